"""Translates the errors of SQLite about a file of the workspace; one answer for the ledger and for `edits.sqlite`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import LedgerBusy, StorageFailed

__all__ = ["StoredFileErrors", "errors_of_edits", "errors_of_ledger", "is_busy", "primary_code"]


@dataclass(frozen=True, slots=True)
class StoredFileErrors:
    """What is said about one file.

    Args:
        file: The file in a text, with its path.
        name: The same without its path.
        wait_s: How long SQLite waits for a lock.
        if_damaged: What to do about a file that is no database any more.
        if_unusable: What to do where it cannot be used for another reason.
    """

    file: str
    name: str
    wait_s: float
    if_damaged: str
    if_unusable: str

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Within it, errors of SQLite and of the operating system are those of PSTT Kafka.

        Raises:
            LedgerBusy: Another process locks the file.
            StorageFailed: The file cannot be used, or not be written.
        """
        try:
            yield
        except sqlite3.OperationalError as error:
            if is_busy(error):
                raise LedgerBusy(
                    f"{self.name} is held by another process",
                    why=f"waited {self.wait_s:.0f} s",
                    remedy="look for a stuck PSTT Kafka process on this machine",
                ) from None
            is_full = primary_code(error) == sqlite3.SQLITE_FULL
            raise StorageFailed(
                f"{self.file} cannot be {'written' if is_full else 'used'}",
                why=str(error),
                remedy="make room on the disk of the workspace" if is_full else self.if_unusable,
            ) from None
        except OSError as error:  # the folder: whatever is in the file is whole
            raise StorageFailed(
                f"{self.file} cannot be used", why=error.strerror or str(error), remedy=self.if_unusable
            ) from None
        except sqlite3.DatabaseError as error:
            raise StorageFailed(f"{self.file} cannot be used", why=str(error), remedy=self.if_damaged) from None


def errors_of_ledger(file: Path, wait_s: float) -> StoredFileErrors:
    """Returns what is said about the ledger."""
    return StoredFileErrors(
        f"the ledger {file}",
        f"the ledger {file.name}",
        wait_s,
        if_damaged="move the file away to begin a new ledger; the sends stay in metrics.duckdb",
        if_unusable="check the disk and the folder's permissions",
    )


def errors_of_edits(file: Path, wait_s: float) -> StoredFileErrors:
    """Returns what is said about `edits.sqlite`."""
    unusable = (
        "check the disk and the folder's permissions; if the file is damaged, move it away: "
        "it has only old versions of SQL files and drafts"
    )
    return StoredFileErrors(str(file), file.name, wait_s, if_damaged=unusable, if_unusable=unusable)


def is_busy(error: Exception) -> bool:
    """Returns whether another process locks the file."""
    return "locked" in str(error) or "busy" in str(error)


def primary_code(error: sqlite3.Error) -> int:
    """Returns SQLite's primary code, which is the lowest byte of an extended one (SQLITE_IOERR_SHMSIZE)."""
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
