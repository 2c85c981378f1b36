"""Runs: what happened. The list, and everything about one run."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, datetime
from typing import Any, get_args

import streamlit as st

from core.errors import PsttError
from core.model.run import Run, Verdict
from core.records.metrics_queries import SendFilter
from core.scheduler.next_attempt import NextAttempt
from ui.access import may
from ui.components import charts, live, live_run, replaying, run_details, written_files
from ui.components.address import accept_every_language
from ui.components.known_since import known_since
from ui.components.links import go, link
from ui.components.problem import fragment, guarded, problem
from ui.components.runner_requests import progress
from ui.components.tables import choose, table, without_usual
from ui.components.text import plain
from ui.components.verdict import coloured_word, equation, verdict_word
from ui.components.viewport import is_narrow
from ui.data.filters import filter_choices
from ui.data.live import LiveRun, running_now
from ui.data.runs import RunDetail, log_lines, rejects, rejects_csv, run_detail, runs_page
from ui.data.status import workspace_status
from ui.formats import duration, milliseconds, moment, number, size, span_text
from ui.language import t, tn, translated

__all__ = ["show"]

PER_PAGE = 50
Days = tuple[date, date] | None
"""Session key: the run of the open dialog, and whether only its rejects are sent again."""
STATES: tuple[Verdict, ...] = get_args(Verdict)


def show() -> None:
    """Draws the list, or the run that the address names."""
    run_id = st.query_params.get("run", "")
    if run_id:
        _one(run_id)
    else:
        _list()


def _list() -> None:
    st.title(t("Runs"), anchor=False)
    progress()
    live.running()
    _table(*_filters())


def _filters() -> tuple[SendFilter, list[str], Days, Days]:
    if is_narrow():
        with st.popover(_filter_words(), icon=":material/filter_list:", width="stretch"):
            return _filter_fields()
    return _filter_fields()


def _filter_words() -> str:
    """Returns the label of the button: how many filters are set."""
    asked = ("job", "topic", "cluster", "day", "sent")
    given = sum(bool(st.query_params.get(name)) for name in (*asked, *(f"runs_{one}" for one in asked), "runs_states"))
    return t("Filters ({count})", count=number(given)) if given else t("Filters")


def _filter_fields() -> tuple[SendFilter, list[str], Days, Days]:
    choices = filter_choices()
    jobs, topics, clusters = ([None, *offered] for offered in (choices.jobs, choices.topics, choices.clusters))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        job = _choose("job", t("Job"), jobs, lambda slug: t("all") if slug is None else choices.jobs.get(slug, slug))
        topic = _choose("topic", t("Topic"), topics, lambda name: name or t("all"))
        cluster = _choose("cluster", t("Environment"), clusters, lambda name: name or t("all"))
        accept_every_language("runs_states", STATES, verdict_word, many=True)
        states = st.multiselect(
            t("State"),
            STATES,
            format_func=verdict_word,
            key="runs_states",
            bind="query-params",
            placeholder=t("all"),
            width=280,
        )
        days = _days("day", "runs_days", t("Scheduled on"), t("The day in the time zone of each job."))
        sent_on = _days("sent", "runs_sent", t("Sent on"), t("The day in the time zone of the workspace."))
        run_id = st.text_input(t("Run"), placeholder=t("its id, or the beginning"), key="runs_id", width=200)
    if run_id.strip():
        go("runs", run=run_id.strip())
    return SendFilter(job, topic, cluster), list(states), days, sent_on


def _choose(asked: str, label: str, offered: list[str | None], name: Callable[[str | None], str]) -> str | None:
    """Draws a filter. Its first value comes from the address: from a link (`asked`), or as it was chosen."""
    wanted = st.query_params.get(asked)
    return st.selectbox(
        label,
        offered,
        index=offered.index(wanted) if wanted in offered else 0,
        format_func=name,
        key=f"runs_{asked}",
        bind="query-params",
        placeholder=t("all"),
        width=240,
    )


def _days(asked: str, key: str, label: str, explained: str) -> Days:
    """As `_choose`, for a range of days; None: any."""
    wanted = _day(st.query_params.get(asked))
    days = st.date_input(
        label,
        value=(wanted, wanted) if wanted else (),
        format="DD/MM/YYYY",
        key=key,
        bind="query-params",
        help=explained,
        width=240,
    )
    chosen = tuple(days) if isinstance(days, tuple) else (days,) if days else ()
    return (chosen[0], chosen[-1]) if chosen else None


def _day(text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        return None


@fragment(run_every=5)
def _table(scope: SendFilter, states: list[str], days: Days, sent_on: Days) -> None:
    page = st.session_state.get("runs_page", 1) - 1
    found = runs_page(scope, states, days, sent_on, page, PER_PAGE)
    runs, count = found.runs, found.count
    pages = max(1, -(-count // PER_PAGE))
    if page >= pages:
        st.session_state["runs_page"] = pages
        runs = runs_page(scope, states, days, sent_on, pages - 1, PER_PAGE).runs
    timezone = workspace_status().timezone
    running = {one.run.run_id: one for one in running_now()}
    rows = [_row(run, running.get(run.run_id)) for run in runs]
    rows = without_usual(rows, {t("Attempt"): 1, **({t("Topic"): runs[0].topic} if runs else {})})
    if found.by_hand:
        st.caption(
            tn(
                found.by_hand,
                "On these days 1 message was sent by hand; it belongs to no run.",
                "On these days {count} messages were sent by hand; they belong to no run.",
                count=number(found.by_hand),
            )
        )
    if found.by_day and found.known:
        st.caption(
            tn(
                found.by_day,
                "1 message of these days is only counted by day, so its run is not listed here.",
                "{count} messages of these days are only counted by day, so their runs are not listed here.",
                count=number(found.by_day),
            )
        )
        known_since(found.known)
    if not rows:
        st.info(t("No run is like that."), icon=":material/filter_alt_off:")
        return
    st.caption(
        t(
            "Select one to open it. Runs: {count}. Times are those of each job's zone, usually {zone}.",
            count=number(count),
            zone=plain(timezone),
        )
    )
    chosen = choose(rows, "runs_table", names=[t("Job")])
    if chosen is not None:
        go("runs", run=runs[chosen].run_id)
    if pages > 1:
        st.number_input(
            t("Page, of {pages}", pages=number(pages)), min_value=1, max_value=pages, key="runs_page", width=160
        )


def _row(run: Run, running: LiveRun | None) -> dict[str, Any]:
    """Returns the cells of a run; while it is running its counts are those up to now."""
    counted = running.progress if running and running.progress else run
    took = duration(run.duration_s) if run.finished_at else span_text(running.elapsed_s) if running else "…"
    return {
        t("Verdict"): verdict_word(run.verdict),
        t("Job"): run.job_name,
        t("Scheduled"): moment(run.scheduled_at, run.timezone),
        t("Read"): counted.rows_read,
        t("Acknowledged"): counted.acknowledged,
        t("Rejected"): counted.rejected,
        t("Duration"): took,
        t("Topic"): run.topic,
        t("Attempt"): run.attempt,
        t("Asked by"): run.asked_by,
        t("Run"): run.run_id,
    }


def _one(run_id: str) -> None:
    link("runs", t("all runs"), icon=":material/arrow_back:")
    progress()
    if not live_run.show(run_id):
        _whole(run_id)


def _whole(run_id: str) -> None:
    detail = run_detail(run_id)
    _head(detail)
    _again(detail.run)
    for part in (_timeline, _latency):
        guarded(part)(detail)
    guarded(run_details.parts)(detail.run)
    guarded(written_files.of_run)(detail.run)
    for part in (_rejects, _offsets, _read_back, _sql):
        guarded(part)(detail)
    guarded(_log)(detail.run)


def _head(detail: RunDetail) -> None:
    run = detail.run
    st.title(plain(run.job_name), anchor=False)
    st.markdown(f"### {coloured_word(run.verdict)}")
    st.markdown(f"# {equation(run)}")
    if run.rows_counted is not None:
        agrees = "=" if run.rows_counted == run.rows_read else "≠"
        st.markdown(
            f"### {t('COUNT(*) in the same snapshot')}: {number(run.rows_counted)} {agrees} {t('{read} read', read=number(run.rows_read))}"
        )
    if run.error_text:
        error = PsttError(run.error_text, remedy=run.error_remedy or "")
        problem(error)
    if detail.next_attempt is not None:
        _tried_again(run, detail.next_attempt)
    for warning in run.warnings:
        st.warning(plain(translated(warning)), icon=":material/warning:")
    run_details.origin(run)
    if detail.family:
        with st.container(horizontal=True):
            st.markdown(t("Other runs of the same scheduled time:"), width="content")
            for other in detail.family[-5:]:
                link("runs", f"{other.run_id} {coloured_word(other.verdict)}", run=other.run_id)


def _tried_again(run: Run, again: NextAttempt) -> None:
    values = {"attempt": number(again.attempt), "most": number(again.most)}
    if again.at is None:
        text = t(
            "It is tried again as soon as the runner has a free place: attempt {attempt} of at most {most}.", **values
        )
    else:
        when = moment(again.at, run.timezone, seconds=True, year=False)
        text = t("It is tried again at {time}: attempt {attempt} of at most {most}.", time=when, **values)
    st.info(text, icon=":material/update:")


def _again(run: Run) -> None:
    allowed = may("replay")
    with st.container(horizontal=True):
        # A file is written whole: the rejects alone would replace it.
        if not run.is_file and st.button(
            t("Send the rejects again"),
            icon=":material/replay:",
            disabled=not allowed or not (run.rejected or run.failed or run.unaccounted),
            key="again_rejects",
            help=None if allowed else t("only an operator may do this"),
        ):
            replaying.ask(run.run_id, rejects_only=True)
        words = t("Write the file again") if run.is_file else t("Send all again")
        if st.button(words, icon=":material/restart_alt:", disabled=not allowed, key="again_all"):
            replaying.ask(run.run_id)
    replaying.confirm(run.run_id, is_file=run.is_file)


def _timeline(detail: RunDetail) -> None:
    run = detail.run
    steps: list[tuple[str, datetime, datetime | None]] = []
    if run.asked_by == "calendar":
        steps.append((t("Waited"), run.scheduled_at, run.started_at))
    first, last = detail.first_sent_at, detail.last_acknowledged_at
    if first is None:  # nothing was sent, as where a file was written
        steps.append((t("From start to end"), run.started_at, run.finished_at))
    else:
        steps.append((t("Query, first row"), run.started_at, first))
    if first and last:
        steps.append((t("Sending, to the last acknowledgement"), first, last))
        steps.append((t("Verdict"), last, run.finished_at))
    with st.container(border=True):
        st.subheader(t("Timeline"), anchor=False)
        for column, (words, begin, end) in zip(st.columns(len(steps)), steps, strict=True):
            seconds = (end - begin).total_seconds() if end else 0.0
            column.metric(words, duration(max(seconds, 0.0)))
            column.caption(t("from {time}", time=moment(begin, run.timezone, seconds=True, year=False)))
        st.caption(
            t(
                "{size} in {time}, {rate} rows a second; times are those of {zone}.",
                size=size(run.bytes),
                time=duration(run.duration_s),
                rate=number(run.rate_per_s),
                zone=plain(run.timezone),
            )
        )


def _latency(detail: RunDetail) -> None:
    run = detail.run
    if run.is_file or not run.acknowledged:
        return
    with st.container(border=True):
        st.subheader(t("Latency of the acknowledgements"), anchor=False)
        names = (("p50", run.latency_p50_ms), ("p90", run.latency_p90_ms), ("p99", run.latency_p99_ms))
        cells = st.columns(4)
        cells[0].metric(t("average"), milliseconds(run.latency_avg_ms))
        for cell, (name, value) in zip(cells[1:], names, strict=True):
            cell.metric(name, milliseconds(value))
        if detail.figures_problem:
            st.warning(plain(translated(detail.figures_problem)), icon=":material/warning:")
        elif detail.histogram:
            charts.show(
                charts.histogram(detail.histogram, dict(names)), "histogram", t("how many messages took how long")
            )
        elif detail.known:
            known_since(detail.known)


def _rejects(detail: RunDetail) -> None:
    run = detail.run
    if not run.rejected:
        return
    with st.container(border=True):
        st.subheader(
            tn(run.rejected, "1 rejected row", "{count} rejected rows", count=number(run.rejected)), anchor=False
        )
        table(
            [
                {t("Column"): column, t("Type"): kind, t("Reason"): translated(reason), t("Rows"): count}
                for column, kind, reason, count in detail.reasons
            ],
            "reasons",
            most_px=400,
        )
        if not may("rejected rows"):
            st.caption(t("The rows themselves are shown to operators."))
            return
        rows = rejects(run.run_id)
        table(
            [
                {
                    t("Row"): r.row_number,
                    t("Key"): r.key if r.key is not None else "–",
                    t("Column"): r.column,
                    t("Reason"): translated(r.reason),
                    t("The row"): json.dumps(r.row, ensure_ascii=False) if r.row else "",
                }
                for r in rows
            ],
            "rejects",
            most_px=400,
        )
        if len(rows) < run.rejected:
            st.caption(t("The first {count} are shown; the file has them all.", count=number(len(rows))))
        st.download_button(
            t("Download as CSV"),
            data=lambda: rejects_csv(run.run_id),
            file_name=f"rejects-{run.run_id}.csv",
            mime="text/csv",
            icon=":material/download:",
            key="rejects_csv",
            on_click="ignore",
        )


def _offsets(detail: RunDetail) -> None:
    if not detail.run.partitions:
        return
    with st.container(border=True):
        st.subheader(t("Offsets per partition"), anchor=False)
        rows = [
            {
                t("Topic"): p.topic,
                t("Partition"): p.partition,
                t("First offset"): p.first_offset,
                t("Last offset"): p.last_offset,
                t("Messages"): p.count,
            }
            for p in detail.run.partitions
        ]
        table(rows, "offsets", most_px=400)
        if may("messages"):
            run_id = detail.run.run_id
            link("messages", t("its messages, one after the other"), icon=":material/forum:", run=run_id)


def _read_back(detail: RunDetail) -> None:
    run, found = detail.run, detail.run.verification
    if found is None:
        return
    signs = {"complete": "✔", "not_verifiable": "–"}
    answers = {
        "complete": t("complete"),
        "missing": t("messages are missing"),
        "other_content": t("messages have another content"),
        "duplicates": t("messages are there twice"),
        "not_verifiable": t("not verifiable"),
    }
    problems = {"missing": t("missing"), "other_content": t("other content"), "duplicate": t("twice")}
    with st.container(border=True):
        st.subheader(t("Read back from the topic"), anchor=False)
        st.markdown(f"**{signs.get(found.answer, '✘')} {answers[found.answer]}**")
        counts = t(
            "{found} of {acknowledged} acknowledged messages found, {missing} missing, {other} with another content, {twice} twice, {unknown} not verifiable",
            found=number(found.found),
            acknowledged=number(found.acknowledged),
            missing=number(found.missing),
            other=number(found.other_content),
            twice=number(found.duplicates),
            unknown=number(found.not_verifiable),
        )
        st.markdown(f"{counts} · {moment(found.checked_at, run.timezone, seconds=True)} · {duration(found.duration_s)}")
        if found.reason:
            st.caption(plain(translated(found.reason)))
        if found.listed and may("rejected rows"):
            rows = [
                {
                    t("What"): problems[unlike.problem],
                    t("Key"): unlike.key if unlike.key is not None else "–",
                    t("Partition"): unlike.partition,
                    t("Offset"): unlike.offset,
                }
                for unlike in found.listed
            ]
            table(rows, "read_back", most_px=400)


def _sql(detail: RunDetail) -> None:
    run = detail.run
    with st.container(border=True):
        st.subheader(t("The SQL that ran"), anchor=False)
        if not run.sql_text:
            st.markdown(t("It failed before there was any."))
            return
        st.code(run.sql_text, language="sql", wrap_lines=True)
        st.caption(f"{plain(run.query)} · sha256 {run.sql_sha256}")


def _log(run: Run) -> None:
    run_details.log(run, log_lines(run))
