"""The dialogs of the list of jobs: run now, run a range of days, dry run, duplicate, delete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import streamlit as st

from core.admin.edit_jobs import job_files
from core.model.job import Job
from core.scheduler.commands import is_before_its_time
from ui import changes, data, drafts, file_changes
from ui.components.backfills import choose_how, choose_value
from ui.components.links import go
from ui.components.problem import guarded
from ui.components.runner_requests import follow
from ui.components.text import plain
from ui.components.uses import show_waiting
from ui.data.resending import count_range, sent_before
from ui.formats import moment, number
from ui.language import t, tn
from ui.views.jobs.parameters import show_parameters
from ui.views.jobs.scheduled_times import suggested_times, time_words

OPEN_DIALOG = "job_doing"
"""Which dialog is open, and for which job."""


def show_dialog(jobs: Sequence[Job]) -> None:
    """Draws the dialog that a button of the list opened."""
    doing, slug = st.session_state.get(OPEN_DIALOG, ("", ""))
    job = next((job for job in jobs if job.slug == slug), None)
    if job is None:
        return
    titles = {
        "run": t("Run now?"),
        "backfill": t("Run a range of days"),
        "dry": t("Dry run"),
        "duplicate": t("Duplicate"),
        "delete": t("Delete this job?"),
    }
    parts: dict[str, Callable[[Job], None]] = {
        "run": _run,
        "backfill": _backfill,
        "dry": _dry_run,
        "duplicate": _duplicate,
        "delete": _delete,
    }

    @st.dialog(titles[doing], on_dismiss=_close)
    @guarded
    def dialog() -> None:
        st.markdown(f"**{plain(job.name)}**")
        parts[doing](job)

    dialog()


def _close() -> None:
    st.session_state.pop(OPEN_DIALOG, None)


def _done() -> None:
    _close()
    st.rerun()


def _time_box(job: Job, key: str) -> datetime:
    times = suggested_times(job)[::-1]  # the last one first, as `python -m core run` takes it
    chosen: datetime = st.selectbox(
        t("Scheduled time"),
        times,
        format_func=lambda moment_: time_words(job, moment_),
        key=key,
        help=t("Parameters such as date-1 are computed from it."),
    )
    return chosen


def _run(job: Job) -> None:
    at = _time_box(job, "run_at")
    guarded(show_parameters)(job, at)
    st.markdown(t("The runner takes it within a second; its run is linked above the list."))
    again = _confirm_second_send(job, at)
    if st.button(t("Yes, run it"), key="confirm_run", icon=":material/play_arrow:", disabled=again is False):
        follow(changes.run(job.slug, at, again=bool(again)))
        _done()


def _confirm_second_send(job: Job, at: datetime) -> bool | None:
    """Whether the user agrees to send a scheduled time a second time or before it is due; None: it needs no agreement."""
    if is_before_its_time(job, at, data.now()):
        st.warning(
            t(
                "This run counts for {time}: the runner skips it then, and rows that come until then are not sent.",
                time=moment(at, job.timezone),
            ),
            icon=":material/warning:",
        )
        return st.checkbox(t("Yes, send it before its time"), key=f"early_{at.isoformat()}")
    sent = sent_before(job, at)
    if sent is None:
        return None
    st.warning(
        tn(
            sent.acknowledged,
            "Run {run} has sent this scheduled time: readers see its message again on {topic}.",
            "Run {run} has sent this scheduled time: readers see its {count} messages again on {topic}.",
            run=sent.run_id,
            count=number(sent.acknowledged),
            topic=plain(sent.topic),
        ),
        icon=":material/warning:",
    )
    return st.checkbox(t("Yes, send these messages again"), key=f"again_{sent.run_id}")


def _backfill(job: Job) -> None:
    if (report := changes.watermark(job.slug)) is not None:
        if choose_value(report, "backfill"):
            _done()
        return
    yesterday = data.now().astimezone(ZoneInfo(job.timezone)).date() - timedelta(days=1)
    chosen = st.date_input(t("From and to"), value=(yesterday, yesterday), format="DD/MM/YYYY", key="backfill_days")
    again = st.checkbox(t("Also times that succeeded before: readers see their messages again"), key="backfill_again")
    parallel, order = choose_how("backfill")
    if not isinstance(chosen, tuple) or len(chosen) != 2:
        st.caption(t("Choose the first and the last day."))
        return
    first, last = chosen
    _count(job, first, last, again=again)
    if st.button(t("Yes, run them"), key="confirm_backfill", icon=":material/date_range:"):
        follow(changes.backfill(job.slug, first, last, again=again, parallel=parallel, order=order))
        _done()


def _count(job: Job, first: date, last: date, *, again: bool) -> None:
    found = count_range(job.slug, first, last, again=again)
    runs = tn(found.scheduled_runs, "1 run", "{count} runs", count=number(found.scheduled_runs))
    if found.messages is None:
        st.markdown(t("**{runs}**; how many messages is not known, as no run came to a good end yet.", runs=runs))
    else:
        st.markdown(
            tn(
                found.messages,
                "**{runs}, about 1 message**, estimated from the last complete runs.",
                "**{runs}, about {messages} messages**, estimated from the last complete runs.",
                runs=runs,
                messages=number(found.messages),
            )
        )
    if found.succeeded_before:
        st.caption(t("{count} left out that succeeded before", count=number(found.succeeded_before)))


def _dry_run(job: Job) -> None:
    at = _time_box(job, "dry_at")
    guarded(show_parameters)(job, at)
    st.markdown(
        t(
            "A dry run reads every row and makes every message, and sends nothing. The runner does it; the result is shown above the list."
        )
    )
    if st.button(t("Yes, try it"), key="confirm_dry", icon=":material/science:"):
        follow(changes.run(job.slug, at, dry_run=True))
        _done()


def _duplicate(job: Job) -> None:
    taken = {name.lower() for name in job_files(data.workspace())}
    free = next(name for n in range(2, 10_000) if (name := f"{job.slug}-{n}").lower() not in taken)
    slug = st.text_input(t("File name, without .job.json"), value=free, key="duplicate_slug")
    name = st.text_input(t("Name"), value=f"{job.name} ({t('copy')})", key="duplicate_name")
    st.caption(t("The copy is switched off until you have looked at it."))
    if st.button(t("Make the copy"), key="confirm_duplicate", icon=":material/content_copy:"):
        changes.duplicate_job(job.slug, slug.strip(), name.strip())
        _close()
        go("jobs", job=slug.strip())


def _delete(job: Job) -> None:
    file = changes.job_file(job.slug)
    st.markdown(
        t(
            "Its runs and messages stay in the ledger, its file among the versions. Nothing is taken back from the topic."
        )
    )
    show_waiting(file_changes.uses_of_job(job.slug))
    st.caption(t("It can be brought back from the list of jobs."))
    sure = st.text_input(t("Write its file name to confirm: {name}", name=plain(job.slug)), key="delete_sure")
    if st.button(t("Yes, delete"), key="confirm_delete", icon=":material/delete:", disabled=sure.strip() != job.slug):
        changes.delete_job(job.slug, file.sha256)
        drafts.drop_draft("job", job.slug)
        _done()
