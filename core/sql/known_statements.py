"""Remembers which statements may be wrapped: sqlglot takes 0.2 s of a core, at each run, to find out the same again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from core.model.dialect import Dialect
from core.model.job import Partitions
from core.model.query import Step
from core.sql.partitioning import PARTS, Wrappable, Wrapping, require_column, wrappable
from core.version import __version__

__all__ = ["KnownStatements"]

MOST_KNOWN = 1_000
"""Files in the folder; a query whose text changes each day adds one a day."""


class KnownStatements:
    """What was found of the statements of a workspace: a file for each that may be wrapped, with the names of its columns.

    Check, page and run share it, so that the first of them parses a statement and no other does. Losing it costs time only.

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
        return self._wrappable(steps, dialect, wrapping).step

    def require_splittable(self, steps: Sequence[Step], dialect: Dialect, partitions: Partitions) -> None:
        """Checks what is known of a split before the database is asked: the statement, its columns, and the hash.

        Raises:
            SqlError: The statement cannot be split.
            ConfigError: The query does not return the column, or the database has no hash.
        """
        require_column(self._wrappable(steps, dialect, PARTS).names, dialect, partitions)

    def _wrappable(self, steps: Sequence[Step], dialect: Dialect, wrapping: Wrapping) -> Wrappable:
        with_rows = [step for step in steps if step.returns_rows]
        if self._folder is None or len(with_rows) != 1:
            return wrappable(steps, dialect, wrapping)
        known = self._folder / _name(with_rows[0], dialect)
        with suppress(OSError, ValueError, TypeError):  # not known, or damaged
            return Wrappable(with_rows[0], tuple(map(str, json.loads(known.read_text(encoding="utf-8")))))
        found = wrappable(steps, dialect, wrapping)
        with suppress(OSError, UnicodeError):  # it is found out again
            self._remember(self._folder, known, json.dumps(found.names))
        return found

    def _remember(self, folder: Path, known: Path, names: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        earlier = list(folder.iterdir())
        for file in earlier if len(earlier) >= MOST_KNOWN else ():
            file.unlink(missing_ok=True)
        known.write_text(names, encoding="utf-8")  # half of it is no JSON, and so not known


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
