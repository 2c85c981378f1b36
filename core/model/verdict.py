"""The words for the state of a run, a scheduled time and a day: one word, sign and colour for each.

Green needs no action, amber should be reviewed, red did not arrive. Page, command line, REST, mail,
calendar and exit codes all use this table, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from core import errors
from core.model.run import Run, Verdict

__all__ = ["EXIT_WITH_REJECTS", "VERDICT_STYLES", "Colour", "Named", "VerdictStyle", "exit_code", "headline"]

Colour = Literal["green", "amber", "red", "blue", "grey"]
Named = Verdict | Literal["waiting", "missing", "nothing_due"]
"""The states of a run, and of a scheduled time or a day without one."""

EXIT_WITH_REJECTS = 4
"""Every row is accounted for, but more were rejected than the job allows."""
_EXITS = {
    name: kind.exit_code
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.PsttError)
}
"""Class of the error that ended a run → exit code: the same as if the command itself had failed with it."""


@dataclass(frozen=True, slots=True)
class VerdictStyle:
    """How a state is displayed: the sign means the same as the colour, for users who do not distinguish colours."""

    sign: str
    word: str
    colour: Colour


VERDICT_STYLES: Mapping[Named, VerdictStyle] = {
    "complete": VerdictStyle("✔", "complete", "green"),
    "complete_with_rejects": VerdictStyle("◐", "complete with rejects", "amber"),
    "partial": VerdictStyle("◐", "partial", "amber"),
    "failed": VerdictStyle("✘", "failed", "red"),
    "cancelled": VerdictStyle("✘", "cancelled", "red"),
    "interrupted": VerdictStyle("✘", "interrupted", "red"),
    "running": VerdictStyle("…", "running", "blue"),
    "planned": VerdictStyle("…", "planned", "blue"),
    "waiting": VerdictStyle("…", "waiting", "blue"),
    "skipped": VerdictStyle("–", "skipped", "grey"),
    "missing": VerdictStyle("?", "missing", "red"),
    "nothing_due": VerdictStyle("", "nothing due", "grey"),
}


def headline(name: Named) -> str:
    """Returns `✔ complete`, `✘ failed`."""
    style = VERDICT_STYLES[name]
    return f"{style.sign} {style.word}".strip()


def exit_code(run: Run) -> int:
    """Returns 0 complete, 1 failed or partial, 2 a file is wrong, 3 a server cannot be reached, 4 complete with rejects."""
    if run.verdict == "complete":
        return 0
    if run.verdict == "complete_with_rejects":
        return EXIT_WITH_REJECTS
    return _EXITS.get(run.error_class or "", 1)
