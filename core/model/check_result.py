"""One result of `check` and `doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CheckResult"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One result of testing a server."""

    status: Literal["pass", "warn", "fail"]
    subject: str
    text: str
    remedy: str = ""
    unreachable: bool = False
    """The server did not answer, so that its files and rights could not be checked."""
