"""Runs in words and signs: never by colour alone."""

from __future__ import annotations

from core.days import DayState, SlotState
from core.model import Run, RunState
from ui.components.text import plain
from ui.formats import number
from ui.language import t

__all__ = ["DAY_SIGNS", "day_word", "equation", "run_state_word", "state_word", "subject"]

_RUN_SIGNS = {
    "succeeded": "✔",
    "partial": "◐",
    "failed": "✘",
    "cancelled": "✘",
    "interrupted": "✘",
    "running": "…",
    "planned": "…",
    "skipped": "–",
}
DAY_SIGNS: dict[DayState, str] = {
    "balanced": "✔",
    "partial": "◐",
    "failed": "✘",
    "running": "…",
    "waiting": "…",
    "missing": "?",
    "nothing_due": "",
}


def state_word(run: Run) -> str:
    """`✔ balanced`, `✘ failed`."""
    return run_state_word(run.state)


def run_state_word(state: RunState) -> str:
    """The same for a state alone."""
    words = {
        "succeeded": t("balanced"),
        "partial": t("partial"),
        "failed": t("failed"),
        "cancelled": t("cancelled"),
        "interrupted": t("interrupted"),
        "running": t("running"),
        "planned": t("planned"),
        "skipped": t("skipped"),
    }
    return f"{_RUN_SIGNS[state]} {words[state]}"


def day_word(state: DayState | SlotState) -> str:
    """`✔ balanced`, `? missing`."""
    words = {
        "balanced": t("balanced"),
        "partial": t("partial"),
        "failed": t("failed"),
        "running": t("running"),
        "waiting": t("waiting"),
        "missing": t("missing"),
        "nothing_due": t("nothing due"),
    }
    return f"{DAY_SIGNS[state]} {words[state]}".strip()


def equation(run: Run) -> str:
    """`18,545 read = 18,543 acknowledged + 2 rejected`; where it does not hold, what is missing of it."""
    if run.state in ("running", "planned"):
        return t("it runs: the counts come with its verdict")
    if run.state == "succeeded" and run.sent == 0 and run.acknowledged:
        return t(
            "{count} rows were sent exactly once by an earlier attempt; nothing was sent again",
            count=number(run.acknowledged),
        )
    values = {
        "read": number(run.rows_read),
        "acknowledged": number(run.acknowledged),
        "rejected": number(run.rejected),
    }
    if run.is_balanced and run.state == "succeeded":
        return t("{read} read = {acknowledged} acknowledged + {rejected} rejected", **values)
    if run.is_balanced:
        return t("{read} read, {acknowledged} acknowledged, {rejected} rejected", **values)
    left = number(run.rows_read - run.acknowledged - run.rejected)
    return t(
        "{read} read ≠ {acknowledged} acknowledged + {rejected} rejected: {left} did not arrive", left=left, **values
    )


def subject(run: Run) -> str:
    """`A00 → topic`, escaped."""
    return f"{plain(run.connection)} → {plain(run.topic)} ({plain(run.cluster)})"
