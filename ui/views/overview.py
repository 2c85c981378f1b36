"""Overview: did everything arrive that was due today and yesterday, and what is the state now?"""

from __future__ import annotations

import time
from dataclasses import asdict
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from core.records.metrics_queries import SendFilter
from core.records.outcomes import DayTotals, ScheduledOutcome
from ui.components import charts, first_steps, live
from ui.components.address import accept_every_language
from ui.components.links import go, link
from ui.components.problem import fragment
from ui.components.runner_requests import progress
from ui.components.tables import choose
from ui.components.text import plain
from ui.components.verdict import verdict_word
from ui.data.filters import FilterChoices, filter_choices
from ui.data.jobs import ActiveJob, active_jobs
from ui.data.outcomes import today_and_yesterday
from ui.data.overview import CountedError, Overview, frequent_errors, overview_figures
from ui.data.status import workspace_status
from ui.formats import day, day_short, milliseconds, moment, number, share, until, weekday
from ui.language import t, tn, translated

__all__ = ["show", "warm_up"]

EVERY_S = 10
"""Seconds between two drawings of the figures."""
PERIODS = (7, 30, 90)
_SEEN = "overview_seen"
FIGURES_FIRST_S = 0.3
"""Seconds by which the charts are sent later at the first visit: a browser that gets them together shows the figures only
when the slow charts are drawn."""


def show() -> None:
    """Draws the view."""
    st.title(t("Overview"), anchor=False)
    choices = filter_choices()
    if not choices.has_runs and not choices.jobs:
        first_steps.show()
        return
    progress()
    left, right = st.columns([3, 1], vertical_alignment="top", gap="medium")
    with left:
        _answer()
    with right:
        _where_is()
    live.running()
    scope, days = _filters(choices)
    _numbers(scope, days)
    if _SEEN not in st.session_state:
        st.session_state[_SEEN] = True
        time.sleep(FIGURES_FIRST_S)
    _charts(scope, days)
    _tables(scope, days)


def warm_up() -> None:
    """Reads the figures once, so that libraries and files are in memory for the first user.

    Raises:
        PsttError: The figures cannot be read.
    """
    charts.warm_up()
    overview_figures(SendFilter(), PERIODS[1])
    frequent_errors(SendFilter(), PERIODS[1])


@fragment(run_every=EVERY_S)
def _answer() -> None:
    days = today_and_yesterday()
    text = "  \n".join(_sentence(answer, is_today=index == 0) for index, (answer, _) in enumerate(days))
    answers = [answer for answer, _ in days if answer.due]
    if not answers:
        st.info(text, icon=":material/event_available:")
    elif any(answer.failed or answer.missing for answer in answers):
        st.error(text, icon=":material/error:")
    elif any(answer.running or answer.waiting for answer in answers):
        st.info(text, icon=":material/hourglass_top:")
    elif any(answer.rejected or not answer.is_complete for answer in answers):
        st.warning(text, icon=":material/warning:")
    else:
        st.success(text, icon=":material/check_circle:")
    _ways_on(answers, [slot for _, slots in days for slot in slots])


def _sentence(answer: DayTotals, *, is_today: bool) -> str:
    of_day = day(answer.day)
    name = t("Today, {day}, so far", day=of_day) if is_today else t("Yesterday, {day}", day=of_day)
    if not answer.due:
        return f"**{name}**: {t('no run was due.')}"
    parts = [
        t(
            "**{name}**: {acknowledged} of {read} rows acknowledged, {complete} of {due} runs complete.",
            name=name,
            acknowledged=number(answer.acknowledged),
            read=number(answer.rows_read),
            complete=number(answer.complete),
            due=number(answer.due),
        )
    ]
    if answer.rejected:
        parts.append(t("{count} rejected.", count=number(answer.rejected)))
    if answer.failed:
        parts.append(tn(answer.failed, "1 run failed.", "{count} runs failed.", count=number(answer.failed)))
    if answer.missing:
        parts.append(tn(answer.missing, "1 run is missing.", "{count} runs are missing.", count=number(answer.missing)))
    if answer.running:
        parts.append(tn(answer.running, "1 still runs.", "{count} still run.", count=number(answer.running)))
    if answer.waiting:
        parts.append(
            tn(answer.waiting, "1 waits for its start.", "{count} wait for their start.", count=number(answer.waiting))
        )
    return " ".join(parts)


def _ways_on(answers: list[DayTotals], slots: list[ScheduledOutcome]) -> None:
    """Draws links to the runs that are not complete."""
    # Those that are running have a box of their own.
    bad = [slot.run for slot in slots if slot.run and slot.state != "complete" and slot.run.state != "running"]
    with st.container(horizontal=True, gap="medium"):
        for run in bad[:3]:
            words = t("see the rejects") if run.state == "succeeded" else verdict_word(run.verdict)
            link("runs", f"{plain(run.job_name)}: {words}", icon=":material/arrow_forward:", run=run.run_id)
        if any(answer.missing for answer in answers) or len(bad) > 3:
            link("calendar", t("see the calendar"), icon=":material/calendar_month:")


def _where_is() -> None:
    key = st.text_input(
        t("Where is …"), placeholder="572680001120", icon=":material/search:", max_chars=1000, key="where_is"
    )
    if key.strip():
        go("find", key=key.strip())


def _filters(choices: FilterChoices) -> tuple[SendFilter, int]:
    def name(slug: str | None) -> str:
        return t("all") if slug is None else choices.jobs.get(slug, slug)

    keys = ("overview_job", "overview_topic", "overview_cluster")
    # At the first drawing the values of the address are not in the fields yet.
    words = [st.session_state[key] if key in st.session_state else st.query_params.get(key) for key in keys]
    words[0] = words[0] and name(words[0])
    offered = {*choices.jobs.values(), *choices.topics, *choices.clusters}  # the fields ignore any other value
    label = " · ".join(plain(word) for word in words if word in offered) or t("all jobs, topics and environments")
    with st.container(horizontal=True, vertical_alignment="center"):
        with st.popover(f"{t('Filter')}: {label}", icon=":material/filter_list:"):
            job = st.selectbox(
                t("Job"), [None, *choices.jobs], format_func=name, key="overview_job", bind="query-params"
            )
            topic = st.selectbox(
                t("Topic"), [None, *choices.topics], format_func=_or_all, key="overview_topic", bind="query-params"
            )
            cluster = st.selectbox(
                t("Environment"),
                [None, *choices.clusters],
                format_func=_or_all,
                key="overview_cluster",
                bind="query-params",
            )
        accept_every_language("overview_days", PERIODS, _days_word)
        days = st.segmented_control(
            t("Period"),
            PERIODS,
            default=30,
            format_func=_days_word,
            key="overview_days",
            bind="query-params",
            required=True,
            label_visibility="collapsed",
            width="content",
        )
    return SendFilter(job, topic, cluster), days or 30


def _days_word(count: int) -> str:
    return t("{count} days", count=count)


def _or_all(value: str | None) -> str:
    return t("all") if value is None else value


@fragment(run_every=EVERY_S)
def _numbers(scope: SendFilter, days: int) -> None:
    seen = overview_figures(scope, days)
    timezone = workspace_status().timezone
    today: dict[str, Any] = seen.summary["today"]
    week: dict[str, Any] = seen.summary["last_7_days"]
    local = seen.at.astimezone(ZoneInfo(timezone)).date()
    left, right = st.columns(2, gap="medium")
    # Two in a row: nine digits are as wide as half a card.
    with left, st.container(border=True, height="stretch"):
        st.subheader(t("Today {day}", day=day_short(local)), anchor=False)
        with _pair():
            compared = _against_usual(today["messages"], seen, local)
            st.metric(t("Sent"), number(today["messages"]), width="content" if compared else "stretch", **compared)
            st.metric(t("Success"), share(today["success_rate"]))
        with _pair():
            st.metric(t("Errors"), number(today["errors"]))
            st.metric(t("Avg latency"), milliseconds(today["avg_latency_ms"]))
    with right, st.container(border=True, height="stretch"):
        st.subheader(t("Last 7 days"), anchor=False)
        with _pair():
            st.metric(t("Messages"), number(week["messages"]))
            st.metric(t("A day"), number(week["messages_per_day"]))
        with _pair():
            st.metric("p90", milliseconds(week["latency_ms"]["p90"]))
            st.metric("p99", milliseconds(week["latency_ms"]["p99"]))
    st.caption(
        t(
            "Times are those of {zone}. Drawn {time}.",
            zone=plain(timezone),
            time=moment(seen.at, timezone, seconds=True),
        )
    )


def _pair() -> DeltaGenerator:
    """A row of two figures of the same width."""
    return st.container(horizontal=True, gap="small")


def _against_usual(sent: int, seen: Overview, today: date) -> dict[str, Any]:
    """`▲ 3 % on a usual Saturday`, up to the same time of day."""
    usual = seen.usual.so_far
    if usual is None or not usual[1]:
        return {}
    change = round((sent - usual[1]) / usual[1] * 100)
    text = t("{percent} % on a usual {weekday} so far", percent=f"{change:+d}", weekday=weekday(today))
    return {"delta": text, "delta_color": "off" if usual[0] <= sent <= usual[2] else "normal"}


@fragment(run_every=EVERY_S)
def _charts(scope: SendFilter, days: int) -> None:
    seen = overview_figures(scope, days)
    timezone = workspace_status().timezone
    today = seen.at.astimezone(ZoneInfo(timezone)).date()
    with st.container(border=True):
        st.subheader(t("Messages per day"), anchor=False)
        if not seen.days and not seen.hours:
            st.markdown(t("nothing was sent in {days} days", days=days))
            return
        figure = charts.messages_per_day(seen.days, seen.rejected_days, seen.usual_days, today, days)
        total = sum(row["messages"] for row in seen.days)
        alt = t("{count} messages in {days} days", count=number(total), days=days)
        event = charts.show(figure, f"per_day_{days}", alt, select=("points",))
        st.caption(t("By the day on which they were sent. A click on a day shows the runs that sent on it."))
        if points := charts.clicked(event):
            only = {name: value for name, value in asdict(scope).items() if value}
            go("runs", sent=str(points[0]["x"])[:10], **only)
    left, right = st.columns(2, gap="medium")
    with left, st.container(border=True):
        st.subheader(t("Latency per hour"), anchor=False)
        charts.show(
            charts.latency(seen.hours, seen.threshold_ms, timezone), "latency", t("average, p90 and p99 per hour")
        )
        if seen.threshold_ms is not None:
            st.caption(t("An alert is raised where p99 stays above {value}.", value=milliseconds(seen.threshold_ms)))
    with right, st.container(border=True):
        st.subheader(t("Throughput"), anchor=False)
        charts.show(
            charts.throughput(seen.hours, seen.runs, timezone), "throughput", t("messages an hour, rows a second")
        )
        if seen.runs:
            fastest = max(seen.runs, key=lambda run: run["rows_per_s"] or 0)
            st.caption(t("Fastest run: {rate} rows a second.", rate=number(fastest["rows_per_s"])))


@fragment(run_every=EVERY_S)
def _tables(scope: SendFilter, days: int) -> None:
    seen = overview_figures(scope, days)
    timezone = workspace_status().timezone
    with st.container(border=True):
        st.subheader(t("Active jobs"), anchor=False)
        jobs = active_jobs(scope)
        rows = [
            {
                t("Job"): job.name,
                t("Next run"): _next(job, seen),
                t("Topic"): job.topic,
                t("Last verdict"): verdict_word(job.last_run.verdict) if job.last_run else t("has not run"),
                t("Last scheduled time"): moment(job.last_run.scheduled_at, job.timezone) if job.last_run else "",
            }
            for job in jobs
        ]
        if rows:
            chosen = choose(rows, "active_jobs", names=[t("Job")])
            st.caption(t("Select one to open it."))
            if chosen is not None:
                go("jobs", job=jobs[chosen].slug)
        else:
            st.markdown(t("no job is switched on"))
    left, right = st.columns(2, gap="medium")
    with left, st.container(border=True):
        st.subheader(t("Most frequent errors"), anchor=False)
        _error_table(frequent_errors(scope, days), timezone, "frequent", t("no error in {days} days", days=days))
    with right, st.container(border=True):
        st.subheader(t("Errors of 24 hours"), anchor=False)
        _error_table(seen.errors_24h, timezone, "recent", t("no error in 24 hours"))


def _next(job: ActiveJob, seen: Overview) -> str:
    if job.problem:
        return f"✘ {translated(job.problem)}"
    if job.next_scheduled_at is None:
        return t("only when asked")
    return f"{until(job.next_scheduled_at, seen.at)} · {moment(job.next_scheduled_at, job.timezone, year=False)}"


def _error_table(errors: list[CountedError], timezone: str, key: str, nothing: str) -> None:
    kinds = {"message": t("message"), "run": t("run"), "row": t("row")}
    rows = [
        {
            t("Count"): error.count,
            t("Error"): translated(error.text),
            t("Retried OK"): _retried(error),
            t("Last seen"): moment(error.last_seen, timezone, year=False),
            t("What"): kinds[error.kind],
        }
        for error in errors[:50]
    ]
    if not rows:
        st.markdown(f":green[✔] {nothing}")
        return
    chosen = choose(rows, f"errors_{key}", most_px=400, names=[t("Error")])
    st.caption(t("Select one to open the newest run that had it."))
    if chosen is not None and errors[chosen].last_run:
        go("runs", run=errors[chosen].last_run)


def _retried(error: CountedError) -> str:
    if error.kind == "row":
        return "–"
    if error.retried_ok == error.count:
        return f"✔ {t('all')}"
    return f"{number(error.retried_ok)} / {number(error.count)}"
