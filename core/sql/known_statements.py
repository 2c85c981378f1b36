"""Remembers which statements may be wrapped: sqlglot takes 0.2 s of a core, at each run, to find out the same again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from core.model.dialect import Dialect
from core.model.query import Step
from core.sql.partitioning import PARTS, Wrapping, require_wrappable
from core.version import __version__

__all__ = ["KnownStatements"]

MOST_KNOWN = 1_000
"""Empty files in the folder; a query whose text changes each day adds one a day."""


class KnownStatements:
    """What was found of the statements of a workspace, an empty file for each that may be wrapped. Losing it costs time only.

    Args:
        folder: Where the files are; None: nothing is remembered.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder

    def require_wrappable(self, steps: Sequence[Step], dialect: Dialect, wrapping: Wrapping = PARTS) -> Step:
        """Does what `core.sql.partitioning.require_wrappable` does; a statement that is known is not parsed again.

        Raises:
            SqlError: Wrapped, it could give other rows, or the database would refuse it.
        """
        with_rows = [step for step in steps if step.returns_rows]
        if self._folder is None or len(with_rows) != 1:
            return require_wrappable(steps, dialect, wrapping)
        known = self._folder / _name(with_rows[0], dialect)
        if known.exists():
            return with_rows[0]
        step = require_wrappable(steps, dialect, wrapping)
        with suppress(OSError):  # it is found out again
            self._remember(self._folder, known)
        return step

    def _remember(self, folder: Path, known: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = list(folder.iterdir())
        for file in earlier if len(earlier) >= MOST_KNOWN else ():
            file.unlink(missing_ok=True)
        known.touch()


def _name(step: Step, dialect: Dialect) -> str:
    """Returns the hash of all that the answer depends on: the statement, the rules of the database, and who has read it."""
    try:
        parser = version("sqlglot")
    except PackageNotFoundError:
        parser = ""
    rules = dialect.partitions
    wraps = (rules.wraps_with, rules.wraps_order, rules.wraps_unnamed)
    of = (__version__, parser, dialect.name, dialect.title, repr(wraps), str(bool(step.binds)), step.sql)
    return hashlib.sha256("\0".join(of).encode("utf-8", "surrogatepass")).hexdigest()
