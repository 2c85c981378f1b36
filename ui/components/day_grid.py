"""The grid of the calendar: days across, jobs down, each attempt a bar as high as it took long (decision 027).

Streamlit has no element that can be clicked, drawn over and used by keyboard, so this one is HTML of ours.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import streamlit as st

from core.model.run import Run
from core.model.verdict import VERDICT_STYLES
from core.records.outcomes import DayState, ScheduledOutcome, day_state
from ui.components.verdict import verdict_word
from ui.formats import day as day_text
from ui.formats import month_short
from ui.language import current, t

__all__ = [
    "Asked",
    "Cell",
    "Chosen",
    "GridRow",
    "asked_for",
    "attempt_colour",
    "cells_of",
    "day_grid",
    "grid_data",
    "seconds_of",
    "waiting",
]

STATES: tuple[DayState, ...] = (
    "complete", "complete_with_rejects", "partial", "failed", "missing", "running", "waiting"
)  # fmt: skip
"""In the order of the legend; a day on which nothing was due has no state in the grid."""
HERE = Path(__file__).parent


Cell = list[Any] | None
"""What the browser draws of a day: `[state, rows done, rows rejected, [[colour, seconds], …]]`; None: nothing was due."""


@dataclass(frozen=True)
class GridRow:
    """One job of the grid."""

    slug: str
    name: str
    address: str
    """Of the job's page, relative to that of the calendar."""
    cells: Sequence[Cell]
    """One of each day, as `cells_of` makes them."""
    is_file: bool = False
    notes: Mapping[date, str] = field(default_factory=dict)
    """Day → what users have written about it."""
    wrong: str = ""
    """Why every run of the job will fail; empty: nothing is known."""


@dataclass(frozen=True)
class Chosen:
    """The days of a job that are shown as chosen."""

    job: str
    first: date
    last: date


@dataclass(frozen=True)
class Asked:
    """What a user asked the grid for."""

    what: Literal["day", "range", "job"]
    job: str
    days: tuple[date, date] | None
    """The first and the last; None: the job itself."""


def day_grid(
    rows: Sequence[GridRow], days: Sequence[date], today: date, chosen: Chosen | None, key: str
) -> Asked | None:
    """Draws the grid. Returns what was asked for since the last drawing; None: nothing.

    Args:
        rows: The jobs.
        days: The days in order.
        today: It is marked.
        chosen: Is shown as chosen; None: nothing is.
        key: Session key of the grid.
    """
    answer = _component()(
        data=grid_data(rows, days, today, chosen), key=key, on_asked_change=lambda: None, height="content"
    )
    return asked_for(answer.get("asked"), {row.slug for row in rows})


def waiting(key: str, slugs: Collection[str]) -> Asked | None:
    """Returns what the grid of that session key was asked for, before it is drawn; None: nothing."""
    state = st.session_state.get(key)
    return asked_for(state.get("asked"), slugs) if state else None


def grid_data(rows: Sequence[GridRow], days: Sequence[date], today: date, chosen: Chosen | None) -> dict[str, Any]:
    """Returns what the browser draws."""
    return {
        "language": "it" if current() == "it" else "en-GB",
        "label": t("the state of each job on each of the last {count} days", count=len(days)),
        "days": [_day(day, index == 0, today) for index, day in enumerate(days)],
        "states": [
            {"sign": VERDICT_STYLES[state].sign, "word": _word(state), "colour": VERDICT_STYLES[state].colour}
            for state in STATES
        ],
        "jobs": [
            {
                "slug": row.slug,
                "name": row.name,
                "address": row.address,
                "is_file": row.is_file,
                "wrong": row.wrong,
                "cells": row.cells,
                "notes": {str(day): text for day, text in row.notes.items()},
            }
            for row in rows
        ],
        "chosen": {"job": chosen.job, "first": str(chosen.first), "last": str(chosen.last)} if chosen else None,
        "texts": _texts(),
    }


def _texts() -> dict[str, str]:
    """The texts with their `{count}`, which the browser puts in."""
    return {
        "job": t("Job"),
        "today": t("today"),
        "nothing_due": verdict_word("nothing_due"),
        "acknowledged": t("{count} acknowledged"),
        "written": t("{count} written"),
        "rejected": t("{count} rejected"),
        "attempts": t("{count} attempts, the longest {time}"),
        "marked": t("{count} days marked"),
        "note": t("note: {text}"),
        "noted": t("a note"),
        "height": t("Each bar is one attempt, as high as it took long."),
    }


def _word(state: DayState) -> str:
    return verdict_word(state).removeprefix(VERDICT_STYLES[state].sign).strip()


def _day(day: date, is_first: bool, today: date) -> dict[str, Any]:
    return {
        "day": str(day),
        "date": str(day.day),
        "month": month_short(day) if is_first or day.day == 1 else "",
        "text": day_text(day),
        "is_weekend": day.weekday() >= 5,
        "is_today": day == today,
    }


def cells_of(outcomes: Iterable[ScheduledOutcome], days: Sequence[date], now: datetime) -> list[Cell]:
    """Returns the cells of a job.

    Args:
        outcomes: Of its scheduled times.
        days: The days in order.
        now: The clock, for runs that have not ended.
    """
    by_day: dict[date, list[ScheduledOutcome]] = {}
    for outcome in outcomes:
        by_day.setdefault(outcome.day, []).append(outcome)
    return [_cell(by_day.get(day, ()), now) for day in days]


def _cell(outcomes: Sequence[ScheduledOutcome], now: datetime) -> Cell:
    state = day_state(outcomes)
    if state == "nothing_due":
        return None
    return [
        STATES.index(state),
        sum(outcome.acknowledged for outcome in outcomes),
        sum(outcome.run.rejected for outcome in outcomes if outcome.run),
        [[attempt_colour(run), seconds_of(run, now)] for outcome in outcomes for run in outcome.attempts],
    ]


def attempt_colour(run: Run) -> str:
    """The colour of a run's verdict."""
    return VERDICT_STYLES[run.verdict].colour


def seconds_of(run: Run, now: datetime) -> float:
    """How long a run took, in seconds; for one that has not ended, up to now."""
    seconds = run.duration_s if run.finished_at else (now - run.started_at).total_seconds()
    return round(max(seconds, 0.0), 1)


def asked_for(answer: Any, slugs: Collection[str]) -> Asked | None:
    """Returns what the browser sent; None where it is nothing, or nothing that the grid would send.

    Args:
        answer: Anything: a browser can be made to send whatever its user wants.
        slugs: The jobs of the grid.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get("job"), str) or answer["job"] not in slugs:
        return None
    if answer.get("what") == "job":
        return Asked("job", answer["job"], None)
    what: Literal["day", "range"] = "range" if answer.get("what") == "range" else "day"
    try:
        first, last = (date.fromisoformat(str(answer.get(name))) for name in ("first", "last"))
    except ValueError:
        return None
    return Asked(what, answer["job"], (first, last)) if first <= last else None


@cache
def _component() -> Any:
    html, css, js = ((HERE / f"day_grid.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return st.components.v2.component("pstt_day_grid", html=html, css=css, js=js)
