"""The list of jobs, with the actions of each."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.calendar.cron import next_scheduled_times
from core.calendar.describe import describe_calendar
from core.errors import ConfigError, PsttError
from core.model.job import Job
from core.model.run import Run
from core.records.rights import Action
from ui import changes, data
from ui.access import may
from ui.components import first_steps
from ui.components.deleted import show_deleted
from ui.components.links import go
from ui.components.problem import guarded, problem
from ui.components.runner_requests import progress
from ui.components.text import plain
from ui.components.verdict import coloured_word
from ui.data.jobs import all_jobs, last_runs, stranded_jobs
from ui.data.status import workspace_status
from ui.formats import moment, number, until
from ui.language import current, t, translated
from ui.views.jobs.job_dialogs import OPEN_DIALOG, show_dialog

__all__ = ["show_list"]

PER_PAGE = 25


def show_list() -> None:
    """Draws the list."""
    st.title(t("Jobs"), anchor=False)
    progress()
    jobs, problems = all_jobs()
    _broken(problems)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.text_input(t("Search"), placeholder=t("name, query, topic"), key="jobs_search", width=300)
        if st.button(t("New job"), icon=":material/add:", disabled=not may("create"), key="job_new"):
            go("jobs", new="1")
        if st.button(t("Queries"), icon=":material/database:", key="job_queries"):
            go("jobs", new="query")
    if not jobs and not problems:
        guarded(show_deleted)("job")
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
    guarded(show_deleted)("job")
    show_dialog(jobs)


def _broken(problems: Sequence[ConfigError]) -> None:
    """Shows what is wrong with files that are not valid jobs, each with a button that opens it."""
    for index, error in enumerate(problems):
        problem(error)
        slug = _slug(error)
        if slug and st.button(t("Fix {name}", name=plain(slug)), key=f"mend_{index}", icon=":material/build:"):
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
        what, when, verdict, buttons = st.columns([6, 7, 5, 12], vertical_alignment="center")
        with what:
            st.markdown(f"**{plain(job.name)}**")
            st.caption(f"{plain(job.query)}  \n{plain(job.connection)} → {plain(_target(job))}")
        with when:
            st.markdown(plain(describe_calendar(job, current())))
            if error is None:
                st.caption(_next(job))
            else:
                st.markdown(f":red[✘ {t('every run will fail')}: {plain(translated(error.text))}]")
        with verdict:
            _verdict(job, last)
        with (
            buttons,
            st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center", gap="xsmall"),
        ):
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
    if st.button(coloured_word(last.verdict), key=f"last_{job.slug}", type="tertiary", help=t("open the last run")):
        go("runs", run=last.run_id)
    st.caption(moment(last.scheduled_at, job.timezone, year=False))


def _switch(job: Job) -> None:
    action: Action = "disable" if job.enabled else "enable"
    key = f"enabled_{job.slug}_{job.enabled}"  # a new key when the file changes, so that the switch shows its value

    def flip() -> None:
        try:
            changes.switch_job(job.slug, enabled=st.session_state[key])
        except PsttError as error:
            st.session_state["job_problem"] = error

    st.toggle(t("Enabled"), value=job.enabled, key=key, on_change=flip, disabled=not may(action), width="content")
    if error := st.session_state.pop("job_problem", None):
        problem(error)


def _buttons(job: Job) -> None:
    if st.button(t("Run now"), key=f"run_{job.slug}", icon=":material/play_arrow:", disabled=not may("run")):
        st.session_state[OPEN_DIALOG] = ("run", job.slug)
    if st.button(t("Open"), key=f"open_{job.slug}", icon=":material/edit:"):
        go("jobs", job=job.slug)
    entries: Sequence[tuple[str, Action, str]] = (
        ("backfill", "backfill", f":material/date_range: {t('Run a range of days')}"),
        ("dry", "dry_run", f":material/science: {t('Dry run')}"),
        ("duplicate", "create", f":material/content_copy: {t('Duplicate')}"),
        ("delete", "delete", f":material/delete: {t('Delete')}"),
    )
    words = {doing: label for doing, action, label in entries if may(action)}
    if not words:  # a menu cannot be empty
        return
    doing = st.menu_button(
        t("More"),
        list(words),
        format_func=words.__getitem__,
        key=f"more_{job.slug}",
        icon=":material/more_vert:",
    )
    if doing:
        st.session_state[OPEN_DIALOG] = (doing, job.slug)
