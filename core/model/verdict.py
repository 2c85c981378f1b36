"""How a run, a scheduled time and a day are called: one word, sign and colour for each, on every front.

Green needs no action, amber should be seen, red has not arrived. Page, command line, REST, mail,
calendar and exit codes all read this table, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from core.model.run import Run, Verdict

__all__ = ["EXIT_WITH_REJECTS", "LOOKS", "Colour", "Look", "Named", "exit_code", "headline"]

Colour = Literal["green", "amber", "red", "blue", "grey"]
Named = Verdict | Literal["waiting", "missing", "nothing_due"]
"""What a run can be, and what a time or a day without one can be."""

EXIT_WITH_REJECTS = 4
"""Every row is accounted for, but more were rejected than the job calls green."""
_EXITS = {"SourceUnavailable": 3, "BrokerUnavailable": 3, "ConfigError": 2, "SqlError": 2}


@dataclass(frozen=True, slots=True)
class Look:
    """How people see it: the sign says the same as the colour, for those who do not tell colours apart."""

    sign: str
    word: str
    colour: Colour


LOOKS: Mapping[Named, Look] = {
    "complete": Look("✔", "complete", "green"),
    "complete_with_rejects": Look("◐", "complete with rejects", "amber"),
    "partial": Look("◐", "partial", "amber"),
    "failed": Look("✘", "failed", "red"),
    "cancelled": Look("✘", "cancelled", "red"),
    "interrupted": Look("✘", "interrupted", "red"),
    "running": Look("…", "running", "blue"),
    "planned": Look("…", "planned", "blue"),
    "waiting": Look("…", "waiting", "blue"),
    "skipped": Look("–", "skipped", "grey"),
    "missing": Look("?", "missing", "red"),
    "nothing_due": Look("", "nothing due", "grey"),
}


def headline(name: Named) -> str:
    """`✔ complete`, `✘ failed`."""
    look = LOOKS[name]
    return f"{look.sign} {look.word}".strip()


def exit_code(run: Run) -> int:
    """0 complete, 1 failed or partial, 2 a file is wrong, 3 a server cannot be reached, 4 complete with rejects."""
    if run.verdict == "complete":
        return 0
    if run.verdict == "complete_with_rejects":
        return EXIT_WITH_REJECTS
    return _EXITS.get(run.error_class or "", 1)
