"""Requests to the runner, and their progress. The page itself runs nothing."""

from __future__ import annotations

import streamlit as st

from core.records.requests import RequestKind
from ui import data
from ui.components.links import link
from ui.components.problem import fragment
from ui.components.text import plain
from ui.data.status import workspace_status
from ui.language import t, translated

__all__ = ["follow", "progress"]

_ASKED = "asked"
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
        runs = {
            request.request_id: [
                scheduled_run.run_id
                for scheduled_run in app.ledger.scheduled_runs.of_request(request.request_id)
                if scheduled_run.run_id
            ]
            for request in requests
        }
    for request in requests:
        subject = plain(request.job or request.run_id or "")
        text = f"{t('request {number}', number=request.request_id)} · {_word(request.kind)} {subject}"
        answer = f": {plain(translated(request.answer))}" if request.answer else ""
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
