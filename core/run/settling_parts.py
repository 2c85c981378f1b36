"""Settles the parts of killed runs: what they had sent goes to the spool, and it is found out which of them committed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import msgspec

from core.errors import RunInterrupted
from core.model.publisher import Publisher
from core.model.run import Run
from core.model.window import Cursor
from core.records.ledger import Ledger, Outcome
from core.records.segments import segments_of
from core.run.exactly_once import SentMarker
from core.run.part_results import clear_folder, joined, move_segments, rejects_of, result_of_marker
from core.run.parts import PartResult, attempt_name
from core.workspace.atomic import write_atomically
from core.workspace.paths import Workspace

__all__ = ["PartOfNote", "PartsNote", "notes_of_parts", "parts_folder", "settle_parts", "write_parts_note"]

_NAME = "note.json"


class PartOfNote(msgspec.Struct, frozen=True):
    """One part of a run of exactly_once."""

    index: int
    transactional_id: str
    key: str
    """Key of its marker."""


class PartsNote(msgspec.Struct, frozen=True):
    """What is needed to settle the parts of a run whose process is gone. Stored as JSON beside their files."""

    run: str
    job: str
    scheduled_at: str
    """Of the run, as in the keys of its markers."""
    is_of_backfill: bool
    """Whether the transactional ids are those of one scheduled time, and not those of the job."""
    cluster: str
    """Key in `kafka_connections`; empty: that of the KAFKA_* settings."""
    control_topic: str
    count: int
    """Parts of the run, also those that an earlier attempt had sent."""
    parts: list[PartOfNote] = []
    """exactly_once: the parts that this run sends; empty: at_least_once."""
    high: str = ""
    """Incremental job: the position up to which rows are read; empty: there is none."""
    high_tie: str = ""


def parts_folder(workspace: Workspace, run_id: str) -> Path:
    """Returns the folder of the files of a run's parts."""
    return workspace.state_dir / "parts" / run_id


def write_parts_note(folder: Path, note: PartsNote) -> None:
    """Stores the note; called before a part begins.

    Raises:
        StorageFailed: It cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / _NAME, msgspec.json.encode(note))


def notes_of_parts(workspace: Workspace) -> list[PartsNote]:
    """Returns the notes of all runs in parts that are not settled, also of those that run now."""
    found = []
    for file in sorted((workspace.state_dir / "parts").glob(f"*/{_NAME}")):
        with suppress(OSError, msgspec.DecodeError):
            found.append(msgspec.json.decode(file.read_bytes(), type=PartsNote))
    return found


def settle_parts(
    note: PartsNote,
    workspace: Workspace,
    ledger: Ledger,
    publisher_of: Callable[[str], AbstractContextManager[Publisher]],
) -> tuple[Run, Outcome] | None:
    """Moves what the parts of a killed run have sent into the spool, and deletes their other files.

    Args:
        note: The run; no process works on it.
        workspace: The workspace.
        ledger: Its ledger.
        publisher_of: Opens a publisher with this transactional id.

    Returns:
        The run and its verdict as it is known now; None: there is nothing to record.

    Raises:
        PsttError: Cluster or disk cannot be read; everything stays as it is.
    """
    folder = parts_folder(workspace, note.run)
    if not note.parts:
        _move(folder, workspace, f"{note.run}")
        clear_folder(folder)
        return None
    results = []
    for part in note.parts:
        with publisher_of(part.transactional_id) as publisher:
            publisher.prepare_once(note.control_topic)
            key = part.key.encode()
            raw = publisher.read_control(note.control_topic, [key]).get(key)
        marker = msgspec.json.decode(raw, type=SentMarker) if raw is not None else None
        if marker is not None and marker.run == note.run:
            results.append(_committed(part.index, marker, workspace, ledger, folder))
    run = ledger.known(note.run)
    clear_folder(folder)
    if run is None or run.state != "interrupted" or run.acknowledged or not results:
        return None
    return run, _outcome(run, note, results)


def _move(folder: Path, workspace: Workspace, name: str) -> None:
    segments = [segment.name for segment in segments_of(folder, name)]
    move_segments(PartResult(index=0, attempt=0, segments=segments), folder, workspace.spool_dir)


def _committed(index: int, marker: SentMarker, workspace: Workspace, ledger: Ledger, folder: Path) -> PartResult:
    """Records the sends and rejects of a part that has committed."""
    name = attempt_name(marker.run, index, marker.attempt)
    _move(folder, workspace, name)
    file = folder / f"{name}.rejects"
    rejected = PartResult(index=index, attempt=marker.attempt, rejects_file=file.name if file.exists() else "")
    for rejects in rejects_of(rejected, folder):
        ledger.rejects.add(marker.run, rejects)
    return result_of_marker(index, marker, workspace.spool_dir)


def _outcome(run: Run, note: PartsNote, results: list[PartResult]) -> Outcome:
    sends = joined(results)
    missing = len(note.parts) - len(results)
    error = RunInterrupted(
        f"its process ended when {note.count - missing} of {note.count} parts were sent",
        why="the cluster has no marker of the others",
        remedy="run it again for the same scheduled time: it sends only the others",
    )
    return Outcome(
        state="interrupted" if missing else "succeeded",
        rows_read=sum(result.rows_read for result in results),
        sent=sends.acknowledged + sends.failed,
        acknowledged=sends.acknowledged,
        rejected=sum(result.rejected for result in results),
        duration_s=run.duration_s,
        error=error if missing else None,
        partitions=sends.partitions,
        moved_to=Cursor(note.high, note.high_tie) if note.high and not missing else None,
    )
