"""Backfills: how far each is and how long it takes, with the actions that change it; and how a new one should run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import streamlit as st

from core.records.backfills import BackfillOrder, BackfillState
from core.scheduler.backfills import BackfillReport, report, reports
from core.scheduler.watermarks import WatermarkReport
from ui import changes, data
from ui.access import may
from ui.components.problem import fragment
from ui.components.runner_requests import follow
from ui.components.text import plain
from ui.data.filters import job_name
from ui.data.status import workspace_status
from ui.formats import day_of_year, duration, moment, number
from ui.language import t, tn, translated

__all__ = ["choose_how", "choose_value", "show_backfills"]

SHOWN = 5
"""Backfills that are drawn, those that go on first."""
NAMED_TIMES = 10


def choose_how(key: str) -> tuple[int, BackfillOrder]:
    """Draws how many runs go on at once and which is first. Returns both.

    Args:
        key: Begins the keys of the widgets.
    """
    with data.opened() as app:
        most = app.settings.PSTT_BACKFILL_WORKERS
    left, right = st.columns(2)
    parallel = left.number_input(
        t("Runs at once"),
        min_value=1,
        max_value=most,
        value=1,
        key=f"{key}_parallel",
        help=t("More than one: the days arrive in no order, and the database has as many queries at once."),
    )
    order = right.selectbox(
        t("First"),
        ("oldest", "newest"),
        format_func=lambda one: t("the oldest") if one == "oldest" else t("the newest"),
        key=f"{key}_order",
    )
    return int(parallel), "newest" if order == "newest" else "oldest"


def choose_value(report: WatermarkReport, key: str) -> bool:
    """Draws, for an incremental job, the value after which all rows are sent again. Returns whether that run was asked for.

    Args:
        report: The watermark of the job.
        key: Begins the keys of the widgets.
    """
    st.caption(t("The job is incremental: its days cannot be sent one by one. One run sends all rows after a value."))
    if report.known is not None:
        text = t("All rows up to **{value}** are sent or rejected.", value=plain(report.known.cursor.text))
        st.markdown(text)
    is_time = report.incremental.kind == "timestamp"
    value = st.text_input(
        t("Send all rows after the value"),
        placeholder="2026-01-17T02:00:00" if is_time else "12345",
        key=f"{key}_value",
    )
    why = st.text_input(t("Reason, for the audit trail"), key=f"{key}_why")
    is_allowed = may("watermark")
    if st.button(
        t("Send them again"),
        key=f"{key}_from_value",
        icon=":material/send:",
        disabled=not (value.strip() and why.strip() and is_allowed),
        help=None if is_allowed else t("only an operator may do this"),
    ):
        follow(changes.backfill_from(report.job.slug, value, why))
        for name in ("value", "why"):
            st.session_state.pop(f"{key}_{name}", None)
        return True
    return False


def show_backfills() -> None:
    """Draws the backfills of the workspace; nothing where there is none."""
    with data.opened() as app:
        is_any = bool(app.ledger.backfills.count())
    if is_any:
        with st.container(border=True):
            st.subheader(t("Ranges that are sent again"), anchor=False)
            _list()


@fragment(run_every=2)
def _list() -> None:
    with data.opened() as app:
        found = reports(app.ledger, SHOWN)
    is_alive = workspace_status().runner_is_alive(data.now())
    for one in found:
        _one(one, runner_is_alive=is_alive)


def _one(found: BackfillReport, *, runner_is_alive: bool) -> None:
    backfill, progress = found.backfill, found.progress
    first, last = date.fromisoformat(backfill.first_day), date.fromisoformat(backfill.last_day)
    days = f"{day_of_year(first)} – {day_of_year(last)}"
    st.markdown(
        f"**{plain(job_name(backfill.job))}** · {plain(days)} · {_word(backfill.state)} · {plain(_counts(found))}"
    )
    if backfill.finished_at is None:
        st.progress(progress.ended / progress.total if progress.total else 1.0, text=_time_left(found))
        if backfill.paused_by_itself:
            st.caption(plain(translated(backfill.summary)))
        if not runner_is_alive:
            st.caption(t("It waits until a runner works."))
    with st.container(horizontal=True):
        _buttons(found)


def _word(state: BackfillState) -> str:
    return {
        "running": t("in progress"),
        "paused": t("paused"),
        "cancelled": t("cancelled"),
        "done": t("ended"),
    }[state]


def _counts(found: BackfillReport) -> str:
    progress = found.progress
    parts = [t("{count} of {total} complete", count=number(progress.complete), total=number(progress.total))]
    skipped = progress.skipped - progress.sent_before
    if progress.failed:
        parts.append(t("{count} failed", count=number(progress.failed)))
    if skipped:
        parts.append(t("{count} not run", count=number(skipped)))
    if progress.sent_before:
        parts.append(t("{count} sent before", count=number(progress.sent_before)))
    if progress.running:
        parts.append(t("{count} in progress", count=number(progress.running)))
    return ", ".join(parts)


def _time_left(found: BackfillReport) -> str:
    if found.backfill.state == "paused":
        return tn(found.progress.waiting, "1 run waits", "{count} runs wait", count=number(found.progress.waiting))
    return (
        t("the time left is not known yet")
        if found.left_s is None
        else t("about {time} left", time=duration(found.left_s))
    )


def _buttons(found: BackfillReport) -> None:
    number_, state = found.backfill.backfill_id, found.backfill.state
    if found.backfill.finished_at is None:
        if state == "running":
            _button("pause", t("Pause"), ":material/pause:", may("pause backfill"), number_, changes.pause_backfill)
        if state == "paused":
            _button(
                "resume", t("Go on"), ":material/play_arrow:", may("resume backfill"), number_, changes.resume_backfill
            )
        if state != "cancelled":
            _button(
                "stop", t("Cancel"), ":material/stop_circle:", may("cancel backfill"), number_, changes.cancel_backfill
            )
        return
    if found.progress.complete + found.progress.sent_before < found.progress.total:
        with st.expander(t("Times without success")):
            _incomplete(number_)
        _button("retry", t("Send these again"), ":material/replay:", may("backfill"), number_, _retry)


def _incomplete(number_: int) -> None:
    with data.opened() as app:
        found = report(app.ledger, number_)
    for one in found.incomplete[:NAMED_TIMES]:
        why = f": {plain(translated(one.why))}" if one.why else ""
        st.markdown(f"{plain(moment(one.scheduled_at, found.backfill.timezone))}{why}")
    if len(found.incomplete) > NAMED_TIMES:
        st.caption(t("and {count} more", count=number(len(found.incomplete) - NAMED_TIMES)))


def _retry(number_: int) -> None:
    follow(changes.retry_backfill(number_))


def _button(name: str, label: str, icon: str, allowed: bool, number_: int, act: Callable[[int], object]) -> None:
    help_ = None if allowed else t("only an operator may do this")
    if st.button(label, icon=icon, disabled=not allowed, key=f"backfill_{name}_{number_}", help=help_):
        act(number_)
        st.rerun()
