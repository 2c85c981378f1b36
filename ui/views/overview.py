"""Overview: did everything arrive that was due today and yesterday, and what is the state now?"""

from __future__ import annotations

from dataclasses import asdict
from datetime import date
from textwrap import shorten
from typing import Any
from zoneinfo import ZoneInfo

import streamlit as st

from core.records.metrics_queries import SendFilter
from core.records.outcomes import DayTotals
from ui import data
from ui.components import charts, first_steps, live, written_files
from ui.components.drawn import is_drawn, meet_figure
from ui.components.links import go, link
from ui.components.problem import fragment
from ui.components.runner_requests import progress
from ui.components.tables import choose
from ui.components.text import plain
from ui.components.verdict import coloured_word, error_word, verdict_word
from ui.data.filters import FilterChoices, filter_choices, job_name
from ui.data.jobs import ActiveJob, active_jobs
from ui.data.notes import notes_between
from ui.data.outcomes import DayAnswer, today_and_yesterday
from ui.data.overview import (
    PERIODS,
    CountedError,
    Overview,
    Period,
    days_of_hours,
    frequent_errors,
    overview_figures,
)
from ui.data.preparing import prepare, prepare_in_thread
from ui.data.status import workspace_status
from ui.formats import day, day_of_year, day_short, milliseconds, moment, number, share, until, weekday
from ui.language import t, tn, translated

__all__ = ["show", "warm_up"]

EVERY_S = 10
"""Seconds between two drawings of the figures."""
_FIGURES_STYLE = """<style>
[class*="st-key-figures_"] { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); align-items: start }
[class*="st-key-figures_"] [data-testid="stMetricDelta"], [class*="st-key-figures_"] [data-testid="stMetricDelta"] * {
  white-space: normal; height: auto;
}
</style>"""
"""Two in a row, one below the other: nine digits are as wide as half a card."""
NOTED_NAME = 40
"""Letters of a job's name beside its note: the note is what is to be read."""
MOST_DAYS = 366
"""Of a period that is given by its dates."""


def show() -> None:
    """Draws the view."""
    meet_figure()
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
    scope, period, compared = _filters(choices)
    _numbers(scope, period)
    _slow_part(scope, period, compared)


@fragment()
def _slow_part(scope: SendFilter, period: Period, compared: bool) -> None:
    if is_drawn():
        _charts(scope, period, compared)
        _tables(scope, period)
        prepare_in_thread(data.root(), scope)


def warm_up() -> None:
    """Reads everything once, so that libraries and files are in memory for the first user.

    Raises:
        PsttError: The figures cannot be read.
    """
    import streamlit.emojis  # noqa: F401 - the page's icon is looked up there: 0.2 s of the first visit

    charts.warm_up()
    prepare(data.root(), SendFilter())


@fragment(run_every=EVERY_S)
def _answer() -> None:
    days = today_and_yesterday()
    text = "  \n".join(_sentence(answer, is_today=index == 0) for index, answer in enumerate(days))
    parts = [totals for answer in days for totals in answer.parts]
    if not parts:
        st.info(text, icon=":material/event_available:")
    elif any(totals.failed or totals.missing for totals in parts):
        st.error(text, icon=":material/error:")
    elif any(totals.running or totals.waiting for totals in parts):
        st.info(text, icon=":material/hourglass_top:")
    elif any(totals.rejected or not totals.is_complete for totals in parts):
        st.warning(text, icon=":material/warning:")
    else:
        st.success(text, icon=":material/check_circle:")
    _ways_on(days)


def _sentence(answer: DayAnswer, *, is_today: bool) -> str:
    of_day = day(answer.day)
    name = t("Today, {day}, so far", day=of_day) if is_today else t("Yesterday, {day}", day=of_day)
    if not answer.parts:
        return f"**{name}**: {t('no run was due.')}"
    done = " ".join(_done(totals, is_file=totals is answer.written) for totals in answer.parts)
    return " ".join([f"**{name}**: {done}", *_not_complete(answer)])


def _done(totals: DayTotals, *, is_file: bool) -> str:
    values = {
        "done": number(totals.acknowledged),
        "read": number(totals.rows_read),
        "complete": number(totals.complete),
        "due": number(totals.due),
    }
    if is_file:
        return t("{done} of {read} rows written to files, {complete} of {due} runs complete.", **values)
    return t("{done} of {read} rows acknowledged, {complete} of {due} runs complete.", **values)


def _not_complete(answer: DayAnswer) -> list[str]:
    def count(name: str) -> int:
        return sum(getattr(totals, name) for totals in answer.parts)

    rejected, failed, missing, running, waiting = map(count, ("rejected", "failed", "missing", "running", "waiting"))
    sentences = (
        (rejected, t("{count} rejected.", count=number(rejected))),
        (failed, tn(failed, "1 run failed.", "{count} runs failed.", count=number(failed))),
        (missing, tn(missing, "1 run is missing.", "{count} runs are missing.", count=number(missing))),
        (running, tn(running, "1 still runs.", "{count} still run.", count=number(running))),
        (waiting, tn(waiting, "1 waits for its start.", "{count} wait for their start.", count=number(waiting))),
    )
    return [sentence for found, sentence in sentences if found]


def _ways_on(days: list[DayAnswer]) -> None:
    """Draws links to the runs that are not complete, failures red and rejects amber."""
    outcomes = [outcome for answer in days for outcome in answer.outcomes]
    # Those that are running have a box of their own.
    bad = [one.run for one in outcomes if one.run and one.state != "complete" and one.run.state != "running"]
    missing = [one for one in outcomes if one.state == "missing"]
    with st.container(horizontal=True, gap="medium"):
        for run in bad[:3]:
            with_rejects = run.state == "succeeded"
            words = f":orange[◐ {t('see the rejects')}]" if with_rejects else coloured_word(run.verdict)
            link("runs", f"{plain(run.job_name)}: {words}", icon=":material/arrow_forward:", run=run.run_id)
        if missing:
            link(
                "calendar", t("see the calendar"), icon=":material/calendar_month:",
                job=missing[0].job, day=str(missing[0].day),
            )  # fmt: skip
        elif len(bad) > 3:
            link("calendar", t("see the calendar"), icon=":material/calendar_month:")


def _where_is() -> None:
    key = st.text_input(
        t("Where is …"), placeholder="572680001120", icon=":material/search:", max_chars=1000, key="where_is"
    )
    if key.strip():
        go("find", key=key.strip())


def _filters(choices: FilterChoices) -> tuple[SendFilter, Period, bool]:
    def name(slug: str | None) -> str:
        return t("all") if slug is None else choices.jobs.get(slug, slug)

    keys = ("overview_job", "overview_topic", "overview_cluster")
    # At the first drawing the values of the address are not in the fields yet.
    words = [st.session_state[key] if key in st.session_state else st.query_params.get(key) for key in keys]
    words[0] = words[0] and name(words[0])
    offered = {*choices.jobs.values(), *choices.topics, *choices.clusters}  # the fields ignore any other value
    label = " · ".join(plain(word) for word in words if word in offered) or t("all jobs, topics and environments")
    with st.container(horizontal=True, vertical_alignment="bottom"):
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
        period = _period()
        compared = st.toggle(t("Compare with the week before"), key="overview_compare", bind="query-params")
    return SendFilter(job, topic, cluster), period, compared


def _period() -> Period:
    """Draws the choice of the days: the last ones, or any that are given by their dates."""
    # Only numbers: what is chosen is in the address, which is the same in every language.
    days = st.segmented_control(
        t("Last days"),
        PERIODS,
        default=30,
        format_func=str,
        key="overview_days",
        bind="query-params",
        required=True,
        width="content",
    )
    given = st.date_input(
        t("or from, to"),
        value=(),
        key="overview_range",
        format="DD/MM/YYYY",
        max_value=_today(),
        bind="query-params",
        width=270,
    )
    if not isinstance(given, tuple) or len(given) != 2:
        return Period(days or 30)
    return Period(min((given[1] - given[0]).days + 1, MOST_DAYS), given[1])


def _today() -> date:
    """Today in the zone of the workspace."""
    return data.now().astimezone(ZoneInfo(workspace_status().timezone)).date()


def _or_all(value: str | None) -> str:
    return t("all") if value is None else value


@fragment(run_every=EVERY_S)
def _numbers(scope: SendFilter, period: Period) -> None:
    seen = overview_figures(scope, period.days, period.last)
    timezone = workspace_status().timezone
    today: dict[str, Any] = seen.summary["today"]
    week: dict[str, Any] = seen.summary["last_7_days"]
    local = seen.at.astimezone(ZoneInfo(timezone)).date()
    left, right = st.columns(2, gap="medium")
    st.html(_FIGURES_STYLE)
    with left, st.container(border=True, height="stretch"):
        st.subheader(t("Today {day}", day=day_short(local)), anchor=False)
        with st.container(key="figures_today"):
            st.metric(t("Sent"), number(today["messages"]), **_against_usual(today["messages"], seen, local))
            st.metric(t("Success"), share(today["success_rate"]))
            _errors_of_today(today["errors"], seen.rejected_today)
            st.metric(t("Avg latency"), milliseconds(today["avg_latency_ms"]))
    with right, st.container(border=True, height="stretch"):
        st.subheader(t("Last 7 days"), anchor=False)
        with st.container(key="figures_week"):
            st.metric(t("Messages"), number(week["messages"]))
            st.metric(t("A day"), number(week["messages_per_day"]))
            st.metric("p90", milliseconds(week["latency_ms"]["p90"]))
            st.metric("p99", milliseconds(week["latency_ms"]["p99"]))
        st.caption(_week_before(week, seen.week_before))
    st.caption(
        t(
            "Times are those of {zone}. Drawn {time}.",
            zone=plain(timezone),
            time=moment(seen.at, timezone, seconds=True),
        )
    )


def _errors_of_today(errors: int, rejected: int) -> None:
    """Draws the messages that failed, red where there are any, and below them the rejected rows, amber."""
    beside: dict[str, Any] = {}
    if rejected:
        text = tn(rejected, "◐ 1 row rejected", "◐ {count} rows rejected", count=number(rejected))
        beside = {"delta": text, "delta_color": "orange", "delta_arrow": "off"}
    value = f":red[✘ {number(errors)}]" if errors else number(errors)
    st.metric(t("Errors"), value, **beside)


def _week_before(week: dict[str, Any], before: dict[str, Any]) -> str:
    """Returns `The week before, up to the same time: 145,230 messages (now ▲ 3 %), p90 120 ms, p99 350 ms.`."""
    if not before["messages"]:
        return t("Nothing was sent in the week before.")
    change = _change(week["messages"], before["messages"])
    return tn(
        before["messages"],
        "The week before, up to the same time: 1 message (now {change}), p90 {p90}, p99 {p99}.",
        "The week before, up to the same time: {messages} messages (now {change}), p90 {p90}, p99 {p99}.",
        messages=number(before["messages"]),
        change=change,
        p90=milliseconds(before["latency_ms"]["p90"]),
        p99=milliseconds(before["latency_ms"]["p99"]),
    )


def _change(now: int, before: int) -> str:
    """`▲ 3 %`, `▼ 12 %`, `= 0 %`."""
    percent = round((now - before) / before * 100)
    return f"{'▲' if percent > 0 else '▼' if percent < 0 else '='} {number(abs(percent))} %"


def _against_usual(sent: int, seen: Overview, today: date) -> dict[str, Any]:
    """`▲ 3 % on a usual Saturday`, up to the same time of day."""
    usual = seen.usual.so_far
    if usual is None or not usual[1]:
        return {}
    change = round((sent - usual[1]) / usual[1] * 100)
    text = t("{percent} % on a usual {weekday} so far", percent=f"{change:+d}", weekday=weekday(today))
    return {"delta": text, "delta_color": "off" if usual[0] <= sent <= usual[2] else "normal"}


@fragment(run_every=EVERY_S)
def _charts(scope: SendFilter, period: Period, compared: bool) -> None:
    seen = overview_figures(scope, period.days, period.last)
    timezone = workspace_status().timezone
    axis = period.axis(seen.at.astimezone(ZoneInfo(timezone)).date())
    with st.container(border=True):
        st.subheader(t("Messages per day"), anchor=False)
        if not seen.days and not seen.hours:
            st.markdown(_nothing_sent(period, axis))
            return
        before = seen.days_before if compared else []
        notes = _notes(axis, scope)
        figure = charts.messages_per_day(seen.days, seen.rejected_days, seen.usual_days, axis, before, notes)
        total = sum(row["messages"] for row in seen.days)
        messages = tn(total, "1 message", "{count} messages", count=number(total))
        days = tn(period.days, "1 day", "{count} days", count=period.days)
        alt = t("{messages} in {days}", messages=messages, days=days)
        event = charts.show(figure, f"per_day_{axis[0]}_{len(axis)}", alt, select=("points",))
        st.caption(
            " ".join(
                [
                    f"{_span(axis)}: {messages}.",
                    *([_against_before(total, seen)] if compared else []),
                    t("By the day on which they were sent. A click on a day shows the runs that sent on it."),
                ]
            )
        )
        if points := charts.clicked(event):
            only = {name: value for name, value in asdict(scope).items() if value}
            go("runs", sent=str(points[0]["x"])[:10], **only)
    _hours(seen, axis[-days_of_hours(period.days, period.last) :], timezone)


def _notes(axis: list[date], scope: SendFilter) -> dict[date, list[str]]:
    """Day → the notes on it, each with its job."""
    found: dict[date, list[str]] = {}
    for note in notes_between(axis[0], axis[-1]):
        if scope.job in (None, note.job):
            found.setdefault(note.day, []).append(f"{shorten(job_name(note.job), NOTED_NAME)}: {note.text}")
    return found


def _nothing_sent(period: Period, axis: list[date]) -> str:
    if period.last is None:
        return t("nothing was sent in {days} days", days=period.days)
    return f"{_span(axis)}: {t('nothing was sent')}"


def _span(axis: list[date]) -> str:
    return f"{day_of_year(axis[0])} – {day_of_year(axis[-1])}" if len(axis) > 1 else day_of_year(axis[0])


def _against_before(total: int, seen: Overview) -> str:
    before = seen.messages_before
    if not before:
        return t("Nothing was sent on the same days of the week before.")
    return tn(
        before,
        "The same days of the week before: 1 message (now {change}).",
        "The same days of the week before: {messages} messages (now {change}).",
        messages=number(before),
        change=_change(total, before),
    )


def _hours(seen: Overview, axis: list[date], timezone: str) -> None:
    """Draws the charts by hour, and of which days they are."""
    left, right = st.columns(2, gap="medium")
    with left, st.container(border=True, height="stretch"):
        st.subheader(t("Latency per hour"), anchor=False)
        charts.show(
            charts.latency(seen.hours, seen.threshold_ms, timezone), "latency", t("average, p90 and p99 per hour")
        )
        if seen.threshold_ms is not None:
            alert = t("An alert is raised where p99 stays above {value}.", value=milliseconds(seen.threshold_ms))
            st.caption(f"{_span(axis)}. {alert}")
        else:
            st.caption(f"{_span(axis)}.")
    with right, st.container(border=True, height="stretch"):
        st.subheader(t("Throughput"), anchor=False)
        charts.show(
            charts.throughput(seen.hours, seen.runs, timezone), "throughput", t("messages an hour, rows a second")
        )
        fastest = max((run["rows_per_s"] or 0 for run in seen.runs), default=0)
        found = t("Fastest run: {rate} rows a second.", rate=number(fastest)) if fastest else ""
        st.caption(f"{_span(axis)}. {found}")


@fragment(run_every=EVERY_S)
def _tables(scope: SendFilter, period: Period) -> None:
    seen = overview_figures(scope, period.days, period.last)
    timezone = workspace_status().timezone
    with st.container(border=True):
        st.subheader(t("Active jobs"), anchor=False)
        jobs = active_jobs(scope)
        rows = [
            {
                t("Job"): job.name,
                t("Next run"): _next(job, seen),
                t("Topic or file"): job.topic,
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
    written_files.show(scope)
    with st.container(border=True):
        st.subheader(t("Most frequent errors"), anchor=False)
        nothing = tn(period.days, "no error in 1 day", "no error in {days} days", days=period.days)
        _error_table(frequent_errors(scope, period.days, period.last), timezone, "frequent", nothing)
    with st.container(border=True):
        st.subheader(t("Errors of 24 hours"), anchor=False)
        _error_table(seen.errors_24h, timezone, "recent", t("no error in 24 hours"))


def _next(job: ActiveJob, seen: Overview) -> str:
    if job.problem:
        return f"✘ {translated(job.problem)}"
    if job.next_scheduled_at is None:
        return t("only when asked")
    return f"{until(job.next_scheduled_at, seen.at)} · {moment(job.next_scheduled_at, job.timezone, year=False)}"


def _error_table(errors: list[CountedError], timezone: str, key: str, nothing: str) -> None:
    rows = [
        {
            t("What"): error_word(error.kind),
            t("Error"): translated(error.text),
            t("Count"): error.count,
            t("Retried OK"): _retried(error),
            t("Last seen"): moment(error.last_seen, timezone, year=False),
        }
        for error in errors[:50]
    ]
    if not rows:
        st.markdown(f":green[✔] {nothing}")
        return
    chosen = choose(rows, f"errors_{key}", most_px=400, texts=[t("Error")])
    st.caption(t("Select one to open the newest run that had it."))
    if chosen is not None and errors[chosen].last_run:
        go("runs", run=errors[chosen].last_run)


def _retried(error: CountedError) -> str:
    if error.kind == "row":
        return "–"
    if error.retried_ok == error.count:
        return f"✔ {t('all')}"
    return f"{number(error.retried_ok)} / {number(error.count)}"
