"""Joins the results of parts: their sends, their rejects and their segments become those of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from core.errors import PsttError, StorageFailed
from core.model.run import PartitionRange, Reject
from core.records.merged_segments import sent_by
from core.records.segments import flush_folder, segments_of
from core.records.send_totals import SendTotals
from core.run.exactly_once import SentMarker
from core.run.parts import PartError, PartResult, PartTask, attempt_name
from core.run.pending_transactions import storing_in
from core.run.row_reader import REJECTS_AT_ONCE
from core.workspace.atomic import replace_file

__all__ = [
    "clear_folder",
    "counts_of",
    "drop_segments",
    "joined",
    "move_segments",
    "rejects_of",
    "result_of_lost",
    "result_of_marker",
]


def joined(results: Iterable[PartResult]) -> SendTotals:
    """Returns the sends of all these parts together."""
    totals = SendTotals()
    for result in results:
        totals.acknowledged += result.acknowledged
        totals.failed += result.failed + result.refused
        totals.retried += result.retried
        totals.bytes += result.bytes
        totals.latencies.update(Counter({float(ms): count for ms, count in result.latencies.items()}))
        for found in result.ranges:
            _add_range(totals.ranges, found)
        for topic, partition, count in result.unplaced:
            totals.unplaced[topic, partition] += count
        for topic, partition, before, after in result.falls:
            totals.falls.setdefault((topic, partition), []).append((before, after))
    return totals


def result_of_lost(task: PartTask, folder: Path, error: PsttError, worker: str = "") -> PartResult:
    """Returns the result of a part that ended by force: at_least_once, what it has recorded to have sent."""
    sends = SendTotals()
    segments = [] if task.once else segments_of(folder, task.name)
    with suppress(StorageFailed):
        sends = sent_by(folder, task.name) if segments else sends
    return PartResult(
        index=task.index,
        attempt=task.attempt,
        rows_read=sends.acknowledged + sends.failed,
        segments=[segment.name for segment in segments],
        error=PartError.of(error),
        transaction="unknown" if task.once else "",
        worker=worker,
        **counts_of(sends),
    )


def result_of_marker(index: int, marker: SentMarker, spool_dir: Path) -> PartResult:
    """Returns the result of a part that an earlier attempt has sent; its sends are in the spool."""
    recorded = marker.recorded_sends(spool_dir, attempt_name(marker.run, index, marker.attempt))
    sends = recorded or SendTotals(acknowledged=marker.rows)
    return PartResult(
        index=index,
        attempt=marker.attempt,
        rows_read=marker.rows_read,
        rejected=marker.rejected,
        left_out=marker.left_out,
        transaction="committed",
        taken_over=True,
        **counts_of(sends),
    )


def counts_of(sends: SendTotals) -> dict[str, Any]:
    """Returns the fields of a `PartResult` that count these sends."""
    return {
        "acknowledged": sends.acknowledged,
        "failed": sends.failed,
        "retried": sends.retried,
        "bytes": sends.bytes,
        "latencies": {f"{ms:.1f}": count for ms, count in sends.latencies.items()},
        "ranges": list(sends.partitions),
        "unplaced": [(*place, count) for place, count in sends.unplaced.items() if count],
        "falls": [(*place, *fall) for place, falls in sends.falls.items() for fall in falls],
    }


def _add_range(ranges: dict[tuple[str, int], PartitionRange], found: PartitionRange) -> None:
    place = (found.topic, found.partition)
    known = ranges.get(place, found)
    ranges[place] = PartitionRange(
        *place,
        min(known.first_offset, found.first_offset),
        max(known.last_offset, found.last_offset),
        found.count + (known.count if known is not found else 0),
    )


def rejects_of(result: PartResult, folder: Path) -> Iterator[list[Reject]]:
    """Yields the rejects of a part, a thousand at a time.

    Raises:
        StorageFailed: Their file cannot be read.
    """
    if not result.rejects_file:
        if result.rejects:
            yield list(result.rejects)
        return
    decoder = msgspec.json.Decoder(Reject)
    with storing_in(folder), (folder / result.rejects_file).open("rb") as file:
        while lines := list(islice(file, REJECTS_AT_ONCE)):
            yield [decoder.decode(line) for line in lines]


def move_segments(result: PartResult, folder: Path, spool_dir: Path) -> None:
    """Moves the sends of a part into the spool, where readers see them.

    Raises:
        StorageFailed: They cannot be moved.
    """
    with storing_in(spool_dir):
        spool_dir.mkdir(parents=True, exist_ok=True)
        for name in result.segments:
            replace_file(folder / name, spool_dir / name)
        flush_folder(spool_dir)


def drop_segments(task: PartTask, folder: Path) -> None:
    """Deletes what a lost attempt of a part has written: its repetition sends and records the same rows."""
    for file in [*segments_of(folder, task.name), *folder.glob(f"{task.name}.*")]:
        with suppress(OSError):  # it is deleted with the folder
            file.unlink()


def clear_folder(folder: Path) -> None:
    """Deletes the files of the parts of a run, and their folder."""
    with suppress(OSError):  # what cannot be deleted now is deleted before the next run
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
