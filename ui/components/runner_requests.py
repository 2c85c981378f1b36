"""Requests to the runner, and their progress. The page itself runs nothing."""

from __future__ import annotations

import streamlit as st

from core.records.requests import RequestKind
from ui import data
from ui.components.links import link
from ui.components.problem import fragment
from ui.components.text import plain
from ui.data.filters import job_name
from ui.data.status import workspace_status
from ui.language import t, translated

__all__ = ["follow", "progress"]

_ASKED, _STATES = "asked", "asked_states"
"""Session keys: the requests of this session; request → how far it was at the last drawing."""
SHOWN = 3
SHOWN_RUNS = 5


def follow(number: int) -> None:
    """Shows the progress of that request to this session."""
    st.session_state.setdefault(_ASKED, []).append(number)


def progress() -> None:
    """Draws the progress of the requests that this session sent last."""
    if st.session_state.get(_ASKED):
        _progress()


def _word(kind: RequestKind) -> str:
    return {
        "run": t("run"),
        "dry_run": t("dry run"),
        "replay": t("send again"),
        "backfill": t("send a range again"),
        "enable": t("enable"),
        "disable": t("disable"),
        "cancel": t("cancel"),
        "stop": t("stop"),
    }[kind]


@fragment(run_every=1)
def _progress() -> None:
    numbers: list[int] = st.session_state.get(_ASKED, [])[-SHOWN:]
    status = workspace_status()
    with data.opened() as app:
        requests = [app.ledger.requests.get(number) for number in reversed(numbers)]
        planned = {number: app.ledger.scheduled_runs.of_request(number) for number in numbers}
    runs = {number: [one.run_id for one in found if one.run_id] for number, found in planned.items()}
    known: dict[int, tuple[str, str | None]] = st.session_state.setdefault(_STATES, {})
    is_new_state = False
    for request in requests:
        subject = plain(job_name(request.job) if request.job else request.run_id or "")
        text = f"{t('request {number}', number=request.request_id)} · {_word(request.kind)} {subject}"
        answer = f": {plain(translated(request.answer))}" if request.answer else ""
        if request.request_id not in known:  # its box may be above what the window shows
            st.toast(text, icon=":material/hourglass_top:")
        only = planned[request.request_id]
        state = (request.state, only[0].state if len(only) == 1 else None)
        is_new_state |= known.get(request.request_id, state) != state
        known[request.request_id] = state
        if request.state == "waiting" and not status.runner_is_alive(data.now()):
            st.warning(
                f"{text}: {t('it waits until a runner works:')} `python -m core runner`",
                icon=":material/hourglass_empty:",
            )
        elif request.state == "waiting":
            st.info(f"{text}: {t('the runner takes it within a second')}", icon=":material/hourglass_empty:")
        elif request.state == "refused":
            st.error(f"{text} · {t('refused')}{answer}", icon=":material/block:")
        elif request.state == "skipped":
            st.warning(f"{text} · {t('nothing ran')}{answer}", icon=":material/event_busy:")
        elif request.state == "taken":
            st.info(f"{text} · {t('taken')}{answer}", icon=":material/hourglass_top:")
        else:
            st.success(f"{text} · {t('done')}{answer}", icon=":material/check:")
        if runs[request.request_id]:
            with st.container(horizontal=True):
                for run_id in runs[request.request_id][-SHOWN_RUNS:]:
                    link("runs", t("open run {id}", id=run_id), icon=":material/play_circle:", run=run_id)
    if is_new_state:
        st.rerun()  # the view around the boxes shows the run in its new state too
