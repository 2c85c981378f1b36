"""Calendar: is a day missing?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

import streamlit as st

from core.errors import PsttError
from core.records.outcomes import DayState, ScheduledOutcome, day_state
from ui import changes
from ui.access import may
from ui.components import charts
from ui.components.backfills import choose_how, show_backfills
from ui.components.links import go
from ui.components.problem import fragment, guarded, problem
from ui.components.runner_requests import follow, progress
from ui.components.tables import choose
from ui.components.text import plain
from ui.components.verdict import verdict_word
from ui.data.filters import filter_choices
from ui.data.jobs import stranded_jobs
from ui.data.outcomes import newest_day, outcomes_by_job
from ui.data.resending import RangeCount, count_range
from ui.formats import day as day_text
from ui.formats import moment, number
from ui.language import t, tn, translated

__all__ = ["show"]

DAYS = 60
_CHOSEN = "calendar_chosen"
_NONCE = "calendar_nonce"


def show() -> None:
    """Draws the view."""
    st.title(t("Calendar"), anchor=False)
    progress()
    slots = outcomes_by_job(DAYS)
    if not slots:
        st.info(t("No job sends to Kafka yet."), icon=":material/event_busy:")
        return
    names = _names()
    for slug, error in stranded_jobs().items():
        st.error(
            f"**{plain(names.get(slug, slug))}**: {t('every run will fail')}: {plain(translated(error.text))}",
            icon=":material/error:",
        )
    _grid()
    left, right = st.columns([3, 2], gap="medium")
    with left, st.container(border=True):
        guarded(_day)(names)
    with right, st.container(border=True):
        guarded(_range)(names)
    guarded(show_backfills)()


def _names() -> dict[str, str]:
    known = filter_choices().jobs
    return {slug: known.get(slug, slug) for slug in outcomes_by_job(DAYS)}


@fragment(run_every=15)
def _grid() -> None:
    names, stranded = _names(), stranded_jobs()
    today = newest_day()
    axis = [today - timedelta(days=back) for back in range(DAYS - 1, -1, -1)]
    by_day = {slug: _by_day(slots) for slug, slots in outcomes_by_job(DAYS).items()}
    cells: dict[str, dict[date, tuple[DayState, str]]] = {}
    for slug, days in by_day.items():
        label = f"✘ {_label(slug, names)}" if slug in stranded else _label(slug, names)
        cells[label] = {}
        for day in axis:
            state = day_state(days.get(day, []))
            cells[label][day] = (state, charts.hover(names[slug], day, state, _counts(days.get(day, []))))
    with st.container(border=True):
        alt = t("the state of each job on each of the last {count} days", count=DAYS)
        key = f"calendar_{st.session_state.get(_NONCE, 0)}"
        event = charts.show(charts.calendar(cells, axis), key, alt, select=("points", "box"))
        st.caption(
            t(
                "Days are those of each job's zone. A click opens the day; draw over several to mark a range to send again."
            )
        )
    _take(charts.clicked(event), list(by_day))


def _take(points: Iterable[dict[str, Any]], slugs: list[str]) -> None:
    """Puts what was clicked or marked into the fields below, once."""
    found = [(slugs[int(point["customdata"][0])], date.fromisoformat(str(point["x"])[:10])) for point in points]
    if not found or st.session_state.get(_CHOSEN) == found:
        return
    st.session_state[_CHOSEN] = found
    slug = Counter(name for name, _ in found).most_common(1)[0][0]
    days = sorted(day for name, day in found if name == slug)
    st.session_state["calendar_job"] = slug
    if len(days) == 1:
        st.session_state["calendar_day"] = days[0]
    st.session_state["calendar_range_job"] = slug
    st.session_state["calendar_range"] = (days[0], days[-1])
    st.rerun()


def _by_day(slots: Iterable[ScheduledOutcome]) -> dict[date, list[ScheduledOutcome]]:
    days: dict[date, list[ScheduledOutcome]] = {}
    for slot in slots:
        days.setdefault(slot.day, []).append(slot)
    return days


def _counts(slots: list[ScheduledOutcome]) -> str:
    if not slots:
        return ""
    states = Counter(slot.state for slot in slots)
    parts = [f"{number(count)} {verdict_word(state)}" for state, count in states.items()] if len(slots) > 1 else []
    acknowledged = sum(slot.run.acknowledged for slot in slots if slot.run)
    return " · ".join([*parts, t("{count} acknowledged", count=number(acknowledged))])


def _label(slug: str, names: dict[str, str]) -> str:
    """The name of a job; with its slug where two jobs have the same name."""
    name = names[slug]
    return name if list(names.values()).count(name) == 1 else f"{name} ({slug})"


def _day(names: dict[str, str]) -> None:
    st.subheader(t("One day"), anchor=False)
    today = newest_day()
    st.session_state.setdefault("calendar_day", today)
    with st.container(horizontal=True):
        slug = st.selectbox(
            t("Job"), list(names), format_func=lambda name: _label(name, names), key="calendar_job", width=300
        )
        chosen = st.date_input(t("Day"), key="calendar_day", format="DD/MM/YYYY", max_value=today, width=160)
    if slug is None or not isinstance(chosen, date):
        return
    slots = _by_day(outcomes_by_job(DAYS).get(slug, [])).get(chosen, [])
    st.markdown(f"**{day_text(chosen)}**: {verdict_word(day_state(slots))}")
    if not slots:
        return
    rows = [
        {
            t("Scheduled"): moment(slot.scheduled_at, slot.timezone),
            t("State"): verdict_word(slot.state),
            t("Read"): slot.run.rows_read if slot.run else None,
            t("Acknowledged"): slot.run.acknowledged if slot.run else None,
            t("Rejected"): slot.run.rejected if slot.run else None,
            t("Why"): _why(slot),
        }
        for slot in slots
    ]
    index = choose(rows, f"day_{slug}_{chosen}", most_px=360)
    st.caption(t("Select a row to open its run."))
    if index is not None and (run := slots[index].run):
        go("runs", run=run.run_id)


def _why(slot: ScheduledOutcome) -> str:
    if slot.run:
        return translated(slot.run.error_text or "")
    return translated(slot.reason) or (t("it was never started: no runner worked") if slot.state == "missing" else "")


def _range(names: dict[str, str]) -> None:
    st.subheader(t("Send a range again"), anchor=False)
    today = newest_day()
    slug = st.selectbox(t("Job"), list(names), format_func=lambda name: _label(name, names), key="calendar_range_job")
    st.session_state.setdefault("calendar_range", (today, today))
    days = st.date_input(t("From, to"), key="calendar_range", format="DD/MM/YYYY", max_value=today)
    again = st.checkbox(t("also times that have a succeeded run"), key="calendar_again")
    parallel, order = choose_how("calendar")
    if slug is None or not isinstance(days, tuple) or len(days) != 2:
        st.caption(t("Choose the first and the last day."))
        return
    try:
        count = count_range(slug, days[0], days[1], again=again)
    except PsttError as error:
        problem(error)
        return
    st.markdown(_what_it_makes(count))
    pressed = st.button(
        tn(count.scheduled_runs, "Send 1 run", "Send {count} runs", count=number(count.scheduled_runs)),
        disabled=not count.scheduled_runs or not may("backfill"),
        key="calendar_send",
        icon=":material/send:",
        help=None if may("backfill") else t("only an operator may do this"),
    )
    if pressed:
        follow(changes.backfill(slug, days[0], days[1], again=again, parallel=parallel, order=order))
        st.session_state.pop(_CHOSEN, None)
        st.session_state[_NONCE] = st.session_state.get(_NONCE, 0) + 1
        st.rerun()


def _what_it_makes(count: RangeCount) -> str:
    runs = tn(count.scheduled_runs, "1 run", "{count} runs", count=number(count.scheduled_runs))
    if not count.scheduled_runs:
        text = t("Nothing is left to send.")
    elif count.messages is None:
        text = t("**{runs}**; how many messages is not known, as no run came to a good end yet.", runs=runs)
    else:
        text = t(
            "**{runs}, about {messages} messages**, estimated from the last complete runs.",
            runs=runs,
            messages=number(count.messages),
        )
    left_out = []
    if count.succeeded_before:
        left_out.append(t("{count} left out that succeeded before", count=number(count.succeeded_before)))
    if count.planned_before:
        left_out.append(t("{count} left out that wait or run already", count=number(count.planned_before)))
    return _join(text, left_out)


def _join(text: str, more: list[str]) -> str:
    """Adds remarks to a sentence."""
    return f"{text} {plain('; '.join(more))}." if more else text
