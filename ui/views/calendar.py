"""Calendar: is a day missing?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import streamlit as st

from core.errors import PsttError
from core.records.outcomes import ScheduledOutcome, day_state
from ui import changes, data
from ui.access import may
from ui.components.attempt_bars import attempt_bars
from ui.components.backfills import choose_how, choose_value, show_backfills
from ui.components.day_grid import Asked, Cell, Chosen, GridRow, cells_of, day_grid, waiting
from ui.components.day_note import edit_note
from ui.components.links import address, go, link
from ui.components.problem import fragment, guarded, problem
from ui.components.runner_requests import follow, progress
from ui.components.tables import choose, without_usual
from ui.components.text import plain
from ui.components.verdict import coloured_word, verdict_word
from ui.data.filters import filter_choices
from ui.data.jobs import stranded_jobs
from ui.data.notes import notes_between
from ui.data.outcomes import CALENDAR_DAYS, file_jobs, newest_day, outcomes_by_job, outcomes_of_job
from ui.data.resending import RangeCount, count_range
from ui.formats import day as day_text
from ui.formats import duration, moment, number
from ui.language import t, tn, translated

__all__ = ["show"]

EVERY_S = 15
"""Seconds between two drawings of the grid."""
GRID = "calendar_grid"
ASKED = "calendar_asked"
"""Session key of what the grid was asked for, until the fields below it have it."""


def show() -> None:
    """Draws the view."""
    st.title(t("Calendar"), anchor=False)
    progress()
    names = _names()
    if not names:
        st.info(t("There is no job yet."), icon=":material/event_busy:")
        return
    for slug, error in stranded_jobs().items():
        st.error(
            f"**{plain(names.get(slug, slug))}**: {t('every run will fail')}: {plain(translated(error.text))}",
            icon=":material/error:",
        )
    _take()
    above = st.container(border=True)
    left, right = st.columns([7, 3], gap="medium")
    with left, st.container(border=True):
        guarded(_day)(names)
    with right, st.container(border=True):
        guarded(_range)(names)
    with above:  # drawn last: only now the fields have what the address says
        _grid()
    guarded(show_backfills)()


def _names() -> dict[str, str]:
    """Slug → name of every job, by name."""
    known = filter_choices().jobs
    names = {slug: known.get(slug, slug) for slug in outcomes_by_job(CALENDAR_DAYS)}
    return dict(sorted(names.items(), key=lambda item: item[1].casefold()))


@fragment(run_every=EVERY_S)
def _grid() -> None:
    names = _names()
    _follow(waiting(GRID, names))  # before the grid is drawn: the whole page is drawn next
    stranded, files = stranded_jobs(), file_jobs()
    today = newest_day()
    axis = [today - timedelta(days=back) for back in range(CALENDAR_DAYS - 1, -1, -1)]
    cells, labels = _cells(axis), _labels(names)
    notes = {(note.job, note.day): note.text for note in notes_between(axis[0], axis[-1])}
    rows = [
        GridRow(
            slug=slug,
            name=labels[slug],
            address=address("jobs", job=slug),
            cells=cells.get(slug, [None] * CALENDAR_DAYS),
            is_file=slug in files,
            notes={day: text for (job, day), text in notes.items() if job == slug},
            wrong=stranded[slug].text if slug in stranded else "",
        )
        for slug in names
    ]
    asked = day_grid(rows, axis, today, _chosen(today), GRID)
    st.caption(
        t(
            "Days are those of each job's zone. A click opens the day; drawing over several (a finger has to rest on the first one), or Shift with the arrow keys, marks a range to send again."
        )
    )
    _follow(asked)


_KNOWN_CELLS: dict[Path, dict[str, tuple[list[ScheduledOutcome], date, list[Cell]]]] = {}
"""Slug → the cells that were made last of each workspace, of which outcomes and up to which day."""


def _cells(axis: Sequence[date]) -> dict[str, list[Cell]]:
    """Slug → cells. They are made once of the outcomes that are known: of 249 jobs they take 0.1 s of a processor."""
    root, now = data.root(), data.now()
    before, found = _KNOWN_CELLS.get(root, {}), {}
    for slug, outcomes in outcomes_by_job(CALENDAR_DAYS).items():
        known = before.get(slug)
        is_same = known is not None and known[0] is outcomes and known[1] == axis[-1]
        if known is None or not is_same or any(outcome.state == "running" for outcome in outcomes):
            known = (outcomes, axis[-1], cells_of(outcomes, axis, now))  # a cell of a running attempt grows
        found[slug] = known
    _KNOWN_CELLS[root] = found
    return {slug: cells for slug, (_, _, cells) in found.items()}


def _follow(asked: Asked | None) -> None:
    """Opens the job, or draws the page again with the day or the range in its fields."""
    if asked is None:
        return
    if asked.days is None:
        go("jobs", job=asked.job)
    st.session_state[ASKED] = asked
    st.rerun()


def _take() -> None:
    """Puts what was clicked or marked into the fields, before they are drawn."""
    asked: Asked | None = st.session_state.pop(ASKED, None)
    if asked is None or asked.days is None:
        return
    st.session_state["calendar_job"] = st.session_state["calendar_range_job"] = asked.job
    st.session_state["calendar_range"] = asked.days
    if asked.what == "day":
        st.session_state["calendar_day"] = asked.days[0]


def _chosen(today: date) -> Chosen | None:
    """The range that would be sent again, else the day that is open."""
    slug, days = st.session_state.get("calendar_range_job"), st.session_state.get("calendar_range")
    if slug and isinstance(days, tuple) and len(days) == 2 and days != (today, today):
        return Chosen(slug, *days)
    slug, opened = st.session_state.get("calendar_job"), st.session_state.get("calendar_day")
    return Chosen(slug, opened, opened) if slug and isinstance(opened, date) and opened != today else None


def _by_day(slots: Iterable[ScheduledOutcome]) -> dict[date, list[ScheduledOutcome]]:
    days: dict[date, list[ScheduledOutcome]] = {}
    for slot in slots:
        days.setdefault(slot.day, []).append(slot)
    return days


def _labels(names: dict[str, str]) -> dict[str, str]:
    """Slug → the name of the job; with its slug where two jobs have the same name."""
    counts = Counter(names.values())
    return {slug: name if counts[name] == 1 else f"{name} ({slug})" for slug, name in names.items()}


def _day(names: dict[str, str]) -> None:
    st.subheader(t("One day"), anchor=False)
    with st.container(horizontal=True):
        slug = _choose_job("calendar_job", names)
        chosen = _choose_days("calendar_day", t("Day"), _linked_day() or newest_day(), width=160)
    if slug is None or not isinstance(chosen, date):
        return
    outcomes = outcomes_of_job(slug, CALENDAR_DAYS)
    slots = _by_day(outcomes).get(chosen, [])
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{day_text(chosen)}**: {coloured_word(day_state(slots))}", width="content")
        link("jobs", t("open the job"), icon=":material/list_alt:", job=slug)
        link("runs", t("its runs of this day"), icon=":material/play_circle:", job=slug, day=str(chosen))
    edit_note(slug, chosen, "day_note")
    if slots:
        _times(slots, f"day_{slug}_{chosen}", is_file=slug in file_jobs())
    if any(outcome.attempts for outcome in outcomes if outcome.day <= chosen):
        st.markdown(f"**{t('Attempts up to this day')}**")
        run_id = attempt_bars(outcomes, chosen, data.now(), f"attempts_{slug}")
        st.caption(t("The height is how long it took. A click opens the run."))
        if run_id is not None:
            go("runs", run=run_id)


def _times(slots: list[ScheduledOutcome], key: str, *, is_file: bool) -> None:
    """Draws the scheduled times of one day, and opens the run of the one that is selected."""
    done = t("Written") if is_file else t("Acknowledged")
    rows = [
        {
            t("Scheduled"): moment(slot.scheduled_at, slot.timezone),
            t("State"): verdict_word(slot.state),
            t("Read"): slot.rows_read if slot.run else None,
            done: slot.acknowledged if slot.run else None,
            t("Rejected"): slot.run.rejected if slot.run else None,
            t("Took"): duration(slot.run.duration_s) if slot.run and slot.run.finished_at else "",
            t("Attempts"): len(slot.attempts),
            t("Why"): _why(slot),
        }
        for slot in slots
    ]
    reasons = {row[t("Why")] for row in rows}
    only = reasons.pop() if len(reasons) == 1 else None  # one reason is below the table, where it is not cut off
    index = choose(without_usual(rows, {t("Attempts"): 1, t("Why"): only}), key, most_px=360, texts=[t("Why")])
    if only:
        st.markdown(f"**{t('Why')}**: {plain(only)}")
    st.caption(t("Select a row to open its run."))
    if index is not None and (run := slots[index].run):
        go("runs", run=run.run_id)


def _choose_job(key: str, names: dict[str, str]) -> str | None:
    """Draws the choice of a job. Its first value is that of a link to a job, or of the address."""
    slugs, labels, wanted = list(names), _labels(names), st.query_params.get("job")
    return st.selectbox(
        t("Job"),
        slugs,
        index=slugs.index(wanted) if wanted in names else 0,
        format_func=labels.__getitem__,
        key=key,
        bind="query-params",
        width=300,
    )


def _choose_days(key: str, label: str, value: date | tuple[date, date], *, width: int) -> Any:
    """As `_choose_job`, for a day or a range of days."""
    return st.date_input(
        label, value=value, key=key, format="DD/MM/YYYY", max_value=newest_day(), bind="query-params", width=width
    )


def _linked_day() -> date | None:
    """The day of a link to one."""
    try:
        day = date.fromisoformat(st.query_params.get("day", ""))
    except ValueError:
        return None
    return min(day, newest_day())


def _why(slot: ScheduledOutcome) -> str:
    if slot.run:
        return translated(slot.run.error_text or "")
    return translated(slot.reason) or (t("it was never started: no runner worked") if slot.state == "missing" else "")


def _range(names: dict[str, str]) -> None:
    st.subheader(t("Send a range again"), anchor=False)
    slug = _choose_job("calendar_range_job", names)
    if slug is not None and (report := changes.watermark(slug)) is not None:
        if choose_value(report, f"calendar_{slug}"):
            st.rerun()
        return
    day = _linked_day() or newest_day()
    days = _choose_days("calendar_range", t("From, to"), (day, day), width=300)
    again = st.checkbox(t("also times that have a succeeded run"), key="calendar_again")
    parallel, order = choose_how("calendar")
    if slug is None or not isinstance(days, tuple) or len(days) != 2:
        st.caption(t("Choose the first and the last day."))
        return
    try:
        count = count_range(slug, days[0], days[1], again=again)
    except PsttError as error:
        if days == (newest_day(), newest_day()):  # as it is at first: that nothing is due today is nobody's mistake
            st.caption(t("Choose the first and the last day."))
        else:
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
        st.rerun()


def _what_it_makes(count: RangeCount) -> str:
    runs = tn(count.scheduled_runs, "1 run", "{count} runs", count=number(count.scheduled_runs))
    if not count.scheduled_runs:
        text = t("Nothing is left to send.")
    elif count.messages is None:
        text = t("**{runs}**; how many messages is not known, as no run came to a good end yet.", runs=runs)
    elif count.is_file:
        text = tn(
            count.messages,
            "**{runs}, about 1 row in files**, estimated from the last complete runs.",
            "**{runs}, about {rows} rows in files**, estimated from the last complete runs.",
            runs=runs,
            rows=number(count.messages),
        )
    else:
        text = tn(
            count.messages,
            "**{runs}, about 1 message**, estimated from the last complete runs.",
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
