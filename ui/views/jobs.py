"""Jobs: what is sent, where and when. The list, and what can be done with each; the editor is `job_editor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import streamlit as st

from core.admin.edit_jobs import job_files
from core.calendar.cron import next_scheduled_times
from core.calendar.describe import describe_calendar
from core.errors import ConfigError, PsttError
from core.model.job import Job
from core.model.run import Run
from ui import changes, data
from ui.access import may
from ui.components import first_steps
from ui.components.links import go
from ui.components.problem import guarded, problem
from ui.components.runner_requests import follow, progress
from ui.components.text import plain
from ui.components.verdict import verdict_word
from ui.data.jobs import all_jobs, last_runs, stranded_jobs
from ui.data.resending import count_range, sent_before
from ui.data.status import workspace_status
from ui.formats import moment, number, until
from ui.language import current, t, tn
from ui.views import job_editor

__all__ = ["show"]

PER_PAGE = 25
_DOING = "job_doing"
"""Which dialog is open, and for which job."""


def show() -> None:
    """Draws the list, or the editor of the job that the address names."""
    if "new" in st.query_params:
        job_editor.show_new()
    elif slug := st.query_params.get("job", ""):
        job_editor.show(slug)
    else:
        _list()


# ── the list ──────────────────────────────────────────────────────────────────────────────────


def _list() -> None:
    st.title(t("Jobs"), anchor=False)
    progress()
    jobs, problems = all_jobs()
    _broken(problems)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.text_input(t("Search"), placeholder=t("name, query, topic"), key="jobs_search", width=300)
        if st.button(t("New job"), icon=":material/add:", disabled=not may("operator"), key="job_new"):
            go("jobs", new="1")
        if st.button(t("Queries"), icon=":material/database:", key="job_queries"):
            go("jobs", new="query")
    if not jobs and not problems:
        first_steps.show()
        return
    found = [job for job in jobs if _matches(job, wanted)]
    page = _page(len(found))
    shown = found[page * PER_PAGE : (page + 1) * PER_PAGE]
    last = last_runs([job.slug for job in shown])
    zone = workspace_status().timezone
    st.caption(
        t(
            "Jobs: {count}. Times are those of each job's zone, usually {zone}.",
            count=number(len(found)),
            zone=plain(zone),
        )
    )
    stranded = stranded_jobs()
    for job in shown:
        _row(job, last.get(job.slug), stranded.get(job.slug))
    _dialogs(jobs)


def _broken(problems: Sequence[ConfigError]) -> None:
    """Files that are no job as they stand: what is wrong, and the way to mend it."""
    for index, error in enumerate(problems):
        problem(error)
        slug = _slug(error)
        if slug and st.button(t("Mend {name}", name=plain(slug)), key=f"mend_{index}", icon=":material/build:"):
            go("jobs", job=slug)


def _slug(error: ConfigError) -> str:
    name = error.file.name if error.file else ""
    return name.removesuffix(".job.json") if name.endswith(".job.json") else ""


def _matches(job: Job, wanted: str) -> bool:
    text = f"{job.slug} {job.name} {job.query} {job.connection} {job.kafka_config.topic or ''}".casefold()
    return all(word in text for word in wanted.casefold().split())


def _page(count: int) -> int:
    pages = max(1, -(-count // PER_PAGE))
    if pages == 1:
        return 0
    chosen = st.number_input(
        t("Page, of {pages}", pages=number(pages)), min_value=1, max_value=pages, key="jobs_page", width=160
    )
    return int(chosen) - 1


def _row(job: Job, last: Run | None, error: ConfigError | None) -> None:
    with st.container(border=True):
        what, when, verdict, buttons = st.columns([4, 3, 2, 4], vertical_alignment="center")
        with what:
            st.markdown(f"**{plain(job.name)}**")
            st.caption(f"{plain(job.query)}  \n{plain(job.connection)} → {plain(_target(job))}")
        with when:
            st.markdown(plain(describe_calendar(job, current())))
            if error is None:
                st.caption(_next(job))
            else:
                st.markdown(f":red[✘ {t('every run will fail')}: {plain(error.text)}]")
        with verdict:
            _verdict(job, last)
        with buttons, st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
            _switch(job)
            _buttons(job)


def _target(job: Job) -> str:
    if job.export_format != "kafka":
        return job.output or f"{job.export_format} ({t('name by default')})"
    return job.kafka_config.topic or t("the cluster's default topic")


def _next(job: Job) -> str:
    if not job.enabled:
        return t("switched off")
    at = data.now()
    scheduled_run = next(iter(next_scheduled_times(job, at, 1)), None)
    if scheduled_run is None:
        return t("runs only when asked")
    return t("next {time}, {wait}", time=moment(scheduled_run, job.timezone, year=False), wait=until(scheduled_run, at))


def _verdict(job: Job, last: Run | None) -> None:
    if last is None:
        st.caption(t("never ran"))
        return
    if st.button(verdict_word(last.verdict), key=f"last_{job.slug}", type="tertiary", help=t("open the last run")):
        go("runs", run=last.run_id)
    st.caption(moment(last.scheduled_at, job.timezone, year=False))


def _switch(job: Job) -> None:
    key = f"enabled_{job.slug}_{job.enabled}"  # another key once the file says otherwise, whoever changed it

    def flip() -> None:
        try:
            changes.switch_job(job.slug, enabled=st.session_state[key])
        except PsttError as error:
            st.session_state["job_problem"] = error

    st.toggle(t("Enabled"), value=job.enabled, key=key, on_change=flip, disabled=not may("operator"), width="content")
    if error := st.session_state.pop("job_problem", None):
        problem(error)


def _buttons(job: Job) -> None:
    allowed = may("operator")
    if st.button(t("Open"), key=f"open_{job.slug}", icon=":material/edit:"):
        go("jobs", job=job.slug)
    with st.popover(t("More"), icon=":material/more_vert:"):
        for doing, words, icon in (
            ("run", t("Run now"), ":material/play_arrow:"),
            ("backfill", t("Run a range of days"), ":material/date_range:"),
            ("dry", t("Dry run"), ":material/science:"),
            ("duplicate", t("Duplicate"), ":material/content_copy:"),
            ("delete", t("Delete"), ":material/delete:"),
        ):
            if st.button(words, key=f"{doing}_{job.slug}", icon=icon, disabled=not allowed, width="stretch"):
                st.session_state[_DOING] = (doing, job.slug)


# ── what can be done with a job ───────────────────────────────────────────────────────────────


def _dialogs(jobs: Sequence[Job]) -> None:
    doing, slug = st.session_state.get(_DOING, ("", ""))
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
    st.session_state.pop(_DOING, None)


def _done() -> None:
    _close()
    st.rerun()


def _moment_box(job: Job, key: str) -> datetime:
    times = job_editor.moments(job)[::-1]  # the last one first, as `python -m core run` takes it
    chosen: datetime = st.selectbox(
        t("Scheduled time"),
        times,
        format_func=lambda moment_: job_editor.moment_words(job, moment_),
        key=key,
        help=t("Parameters such as date-1 are computed from it."),
    )
    return chosen


def _run(job: Job) -> None:
    at = _moment_box(job, "run_at")
    guarded(job_editor.parameters_of)(job, at)
    st.markdown(t("The runner takes it within a second; its run is linked above the list."))
    again = _meant_again(job, at)
    if st.button(t("Yes, run it"), key="confirm_run", icon=":material/play_arrow:", disabled=again is False):
        follow(changes.run(job.slug, at, again=bool(again)))
        _done()


def _meant_again(job: Job, at: datetime) -> bool | None:
    """Whether the visitor agrees to send a scheduled time a second time; None: it was not sent yet."""
    sent = sent_before(job, at)
    if sent is None:
        return None
    st.warning(
        t(
            "Run {run} has sent this scheduled time: readers see its {count} messages again on {topic}.",
            run=sent.run_id,
            count=number(sent.acknowledged),
            topic=plain(sent.topic),
        ),
        icon=":material/warning:",
    )
    return st.checkbox(t("Yes, send these messages again"), key=f"again_{sent.run_id}")


def _backfill(job: Job) -> None:
    yesterday = data.now().astimezone(ZoneInfo(job.timezone)).date() - timedelta(days=1)
    chosen = st.date_input(t("From and to"), value=(yesterday, yesterday), format="DD/MM/YYYY", key="backfill_days")
    again = st.checkbox(t("Also times that succeeded before: readers see their messages again"), key="backfill_again")
    if not isinstance(chosen, tuple) or len(chosen) != 2:
        st.caption(t("Choose the first and the last day."))
        return
    first, last = chosen
    _count(job, first, last, again=again)
    if st.button(t("Yes, run them"), key="confirm_backfill", icon=":material/date_range:"):
        follow(changes.backfill(job.slug, first, last, again=again))
        _done()


def _count(job: Job, first: date, last: date, *, again: bool) -> None:
    found = count_range(job.slug, first, last, again=again)
    runs = tn(found.scheduled_runs, "1 run", "{count} runs", count=number(found.scheduled_runs))
    if found.messages is None:
        st.markdown(t("**{runs}**; how many messages is not known, as no run came to a good end yet.", runs=runs))
    else:
        st.markdown(
            t(
                "**{runs}, about {messages} messages**, told from the last good runs.",
                runs=runs,
                messages=number(found.messages),
            )
        )
    if found.succeeded_before:
        st.caption(t("{count} left out that succeeded before", count=number(found.succeeded_before)))


def _dry_run(job: Job) -> None:
    at = _moment_box(job, "dry_at")
    guarded(job_editor.parameters_of)(job, at)
    st.markdown(
        t(
            "A dry run reads every row and makes every message, and sends nothing. The runner does it; what it found is told above the list."
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
    sure = st.text_input(t("Write its file name to confirm: {name}", name=plain(job.slug)), key="delete_sure")
    if st.button(t("Yes, delete"), key="confirm_delete", icon=":material/delete:", disabled=sure.strip() != job.slug):
        changes.delete_job(job.slug, file.sha256)
        _done()
