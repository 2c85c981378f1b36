"""What a transaction leaves on disk until it is known what became of it: `.pstt/pending/`.

Its sends are written there, durable, before the commit; a reader of the spool does not see them. Beside them a note says
how to find out what became of the transaction, whatever happens to the process or to the job: see `core.run.settling`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from core.errors import StorageFailed
from core.records.ledger import Ledger
from core.workspace.atomic import write_whole
from core.workspace.paths import Workspace

__all__ = ["TransactionNote", "forget", "keep", "read_note", "remove_leftovers", "unsettled", "writing"]

FORSAKEN_S = 3600.0
"""After this time a left-over of a run that the ledger does not know is nobody's: a send by hand takes seconds."""


class TransactionNote(msgspec.Struct, frozen=True):
    """What has to be known about a transaction to find out what became of it, whatever the job is by then."""

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
    """Of the marker."""
    rows_read: int
    rejected: int
    rows_counted: int | None = None
    unexpected: tuple[str, str, str] = ("", "", "")
    """Why that number of rows is not right: what, why, remedy; empty: it is."""


def keep(folder: Path, note: TransactionNote) -> None:
    """Writes the note, before the transaction begins.

    Raises:
        StorageFailed: It cannot be written.
    """
    write_whole(folder / f"{note.run}.json", msgspec.json.encode(note))


def unsettled(folder: Path) -> list[TransactionNote]:
    """The transactions of which it is not written down what became of them, also those that go on right now.

    A note that cannot be read hinders no other; `doctor` tells it.
    """
    notes = (read_note(file) for file in sorted(folder.glob("*.json")))
    return [note for note in notes if note is not None]


def read_note(file: Path) -> TransactionNote | None:
    """A note; None: it is not there any more, or cannot be read."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=TransactionNote)
    except (OSError, msgspec.DecodeError):
        return None


def forget(folder: Path, run_id: str) -> None:
    """Removes the note, and the rows if they are still there: what became of the transaction is in the ledger."""
    with writing(folder):
        for suffix in (".rows", ".json"):
            (folder / f"{run_id}{suffix}").unlink(missing_ok=True)


def remove_leftovers(workspace: Workspace, ledger: Ledger) -> list[Path]:
    """Removes what killed processes left behind: rows kept aside, files half written; those files.

    What belongs to a transaction that is not settled stays, and so does everything of a run that goes on.
    """
    swept = []
    for file in _left_overs(workspace):
        run_id = file.name.lstrip(".").partition(".")[0].partition("-")[0]
        run = ledger.known(run_id)
        with suppress(OSError):  # somebody else was faster, or has it open: it goes the next time
            is_forsaken = time.time() - file.stat().st_mtime > FORSAKEN_S
            if is_forsaken if run is None else run.state not in ("planned", "running"):
                file.unlink()
                swept.append(file)
    return swept


def _left_overs(workspace: Workspace) -> Iterator[Path]:
    for folder in (workspace.pending_dir, workspace.spool_dir):
        with suppress(FileNotFoundError):
            yield from (file for file in folder.iterdir() if file.suffix in (".rows", ".tmp", ".probe"))


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Translates what keeps a folder from being written."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"{folder} cannot be written",
            why=error.strerror or str(error),
            remedy="check the disk and the folder's permissions; nothing is lost",
        ) from None
