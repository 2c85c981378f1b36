"""The files of a transaction that is not known to be committed or aborted: `.pstt/pending/`.

Its sends are written there before the commit, where a reader of the spool does not see them. A note beside them says how
to find out whether it was committed, whatever happens to the process or to the job: see `core.run.settling`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from core.errors import StorageFailed
from core.records.ledger import Ledger
from core.workspace.atomic import write_atomically
from core.workspace.paths import Workspace

__all__ = ["TransactionNote", "read_note", "remove_leftovers", "remove_note", "storing_in", "unsettled", "write_note"]

UNKNOWN_RUN_EXPIRES_S = 3600.0
"""Age from which a leftover of a run that the ledger does not know is deleted: a send by hand takes seconds."""


class TransactionNote(msgspec.Struct, frozen=True):
    """What is needed to find out whether a transaction was committed, even if its job has changed. Stored as JSON."""

    run: str
    job: str
    cluster: str
    """Key in `kafka_connections`; empty: that of the KAFKA_* settings."""
    cluster_id: str
    topic: str
    topic_id: str
    control_topic: str
    transactional_id: str
    key: str
    """Key of the marker."""
    rows_read: int
    rejected: int
    rows_counted: int | None = None
    unexpected: tuple[str, str, str] = ("", "", "")
    """Why that number of rows is not as expected: what, why, remedy; empty if it is."""

    @property
    def scheduled_at(self) -> str:
        """The scheduled time of its run, as it is in the key of the marker."""
        return self.key.rpartition("@")[2].partition("#")[0]

    @property
    def is_of_backfill(self) -> bool:
        """Whether its transactional id is that of one scheduled time, and not that of its job."""
        return self.transactional_id.endswith(f"/{self.scheduled_at}")


def write_note(folder: Path, note: TransactionNote) -> None:
    """Stores the note; called before the transaction begins.

    Raises:
        StorageFailed: It cannot be written.
    """
    write_atomically(folder / f"{note.run}.json", msgspec.json.encode(note))


def unsettled(folder: Path) -> list[TransactionNote]:
    """Returns the notes of all transactions whose end is not recorded, also of those that run now.

    A note that cannot be read is left out; `doctor` reports it.
    """
    notes = (read_note(file) for file in sorted(folder.glob("*.json")))
    return [note for note in notes if note is not None]


def read_note(file: Path) -> TransactionNote | None:
    """Returns a note; None: it does not exist any more, or cannot be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=TransactionNote)
    except (OSError, msgspec.DecodeError):
        return None


def remove_note(folder: Path, run_id: str) -> None:
    """Deletes the note and the stored rows, once the ledger has the end of the transaction."""
    with storing_in(folder):
        for suffix in (".rows", ".json"):
            (folder / f"{run_id}{suffix}").unlink(missing_ok=True)


def remove_leftovers(workspace: Workspace, ledger: Ledger) -> list[Path]:
    """Deletes what killed processes left behind, stored rows and temporary files; returns the deleted files.

    Files of a transaction that is not settled stay, and so do all files of a run that goes on.
    """
    removed = []
    for file in _leftovers(workspace):
        run_id = file.name.lstrip(".").partition(".")[0].partition("-")[0]
        run = ledger.known(run_id)
        with suppress(OSError):  # another process was faster, or has it open: it is deleted the next time
            is_old = time.time() - file.stat().st_mtime > UNKNOWN_RUN_EXPIRES_S
            if is_old if run is None else run.state not in ("planned", "running"):
                file.unlink()
                removed.append(file)
    return removed


def _leftovers(workspace: Workspace) -> Iterator[Path]:
    for folder in (workspace.pending_dir, workspace.spool_dir):
        with suppress(FileNotFoundError):
            yield from (file for file in folder.iterdir() if file.suffix in (".rows", ".tmp", ".probe"))


@contextmanager
def storing_in(folder: Path) -> Iterator[None]:
    """Translates an OSError of writing into a folder to StorageFailed."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"{folder} cannot be written",
            why=error.strerror or str(error),
            remedy="check the disk and the folder's permissions; nothing is lost",
        ) from None
