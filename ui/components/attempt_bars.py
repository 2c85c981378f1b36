"""The attempts of one job as bars, each as high as it took long; a click opens its run (decision 027)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

from core.model.run import Run
from core.model.verdict import VERDICT_STYLES
from core.records.outcomes import ScheduledOutcome
from ui.components.day_grid import attempt_colour, seconds_of
from ui.components.round_axis import round_steps
from ui.components.verdict import verdict_word
from ui.formats import duration, moment, number
from ui.language import t

__all__ = ["MOST_ATTEMPTS", "attempt_bars", "attempts_data"]

MOST_ATTEMPTS = 60
HERE = Path(__file__).parent
_UNITS = {3600: "h", 60: "min", 1: "s"}


def attempt_bars(outcomes: Sequence[ScheduledOutcome], day: date, now: datetime, key: str) -> str | None:
    """Draws the newest attempts up to a day. Returns the id of the run that was asked for; None: none.

    Args:
        outcomes: Of the scheduled times of one job, in order.
        day: The attempts of its times are emphasised, and later times are left out.
        now: The clock, for a run that has not ended.
        key: Session key of the bars.
    """
    found = attempts_data(outcomes, day, now)
    if not found["attempts"]:
        return None
    asked = _component()(data=found, key=key, on_run_change=lambda: None, height="content").get("run")
    return asked if any(attempt["run_id"] == asked for attempt in found["attempts"]) else None


def attempts_data(outcomes: Sequence[ScheduledOutcome], day: date, now: datetime) -> dict[str, Any]:
    """Returns what the browser draws: the attempts with their height in percent, and the steps of the axis."""
    attempts = [(outcome.day == day, run) for outcome in outcomes if outcome.day <= day for run in outcome.attempts]
    attempts = attempts[-MOST_ATTEMPTS:]
    highest = max((seconds_of(run, now) for _, run in attempts), default=0.0)
    unit = _unit(highest)
    steps = [step * unit for step in round_steps(highest / unit)]
    return {
        "label": t("attempts, oldest first"),
        "steps": [{"text": _step(step, unit), "height": round(100 * step / steps[-1], 1)} for step in steps],
        "attempts": [
            {
                "run_id": run.run_id,
                "colour": attempt_colour(run),
                "sign": VERDICT_STYLES[run.verdict].sign,
                "height": round(100 * seconds_of(run, now) / steps[-1], 1),
                "text": _words(run, now),
                "is_of_day": is_of_day,
            }
            for is_of_day, run in attempts
        ],
    }


def _unit(seconds: float) -> int:
    """The seconds of an hour, a minute or a second: in which the steps are round."""
    return 3600 if seconds >= 3600 else 60 if seconds >= 60 else 1


def _step(seconds: float, unit: int) -> str:
    value = seconds / unit
    digits = 0 if value == int(value) else 1 if round(value, 1) == value else 2
    return f"{number(value, digits)} {_UNITS[unit]}"


def _words(run: Run, now: datetime) -> str:
    done = t("{count} written") if run.is_file else t("{count} acknowledged")
    parts = [
        moment(run.scheduled_at, run.timezone),
        verdict_word(run.verdict),
        duration(seconds_of(run, now)),
        done.format(count=number(run.acknowledged)),
    ]
    if run.rejected:
        parts.append(t("{count} rejected", count=number(run.rejected)))
    if run.attempt > 1:
        parts.append(t("attempt {number}", number=run.attempt))
    return " · ".join(parts)


@cache
def _component() -> Any:
    html, css, js = ((HERE / f"attempt_bars.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js"))
    return st.components.v2.component("pstt_attempt_bars", html=html, css=css, js=js)
