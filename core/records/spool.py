"""Stores every send in Parquet segments below `.pstt/spool/`, durable before its run counts as finished.

A segment is written beside its place, row group by row group, flushed to the disk and renamed, so that every visible
segment is complete. Sending never waits for DuckDB: `core.records.metrics` copies segments into `metrics.duckdb`
afterwards, and can rebuild that file from them.
"""

from __future__ import annotations

import shutil
import threading
from array import array
from collections.abc import Sequence
from dataclasses import astuple
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core.errors import PsttError, RetriesExhausted, StorageFailed
from core.model.connection import Destination
from core.model.publisher import Delivery
from core.records.segments import REPEATING, SEND_SCHEMA, SUFFIX, SegmentFile
from core.records.send_totals import SendColumns, SendTotals

__all__ = ["SEGMENT_SENDS", "Spool"]

SEGMENT_SENDS = 50_000
"""Sends in a segment."""
GROUP_SENDS = 10_000
"""Sends that are kept in memory, 1 MB, until they are written as a row group in 8 ms."""
MIN_FREE_BYTES = 64 * 1024 * 1024

_TEXT = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema([field.with_type(_TEXT) if field.name in REPEATING else field for field in SEND_SCHEMA])
"""Texts that repeat are kept once, in memory as in the file."""


class Spool:
    """Writes the sends of one run to disk. They are durable when `close` has returned.

    Args:
        folder: `.pstt/spool` of the workspace.
        run_id: The run they belong to.
        job: Its job's slug; empty for a manual send.
        name: What the names of its segments begin with; empty: `run_id`. A part of a run has one of its own.

    Raises:
        StorageFailed: The folder cannot be written, or the disk is almost full.
    """

    def __init__(self, folder: Path, *, run_id: str, job: str, name: str = "") -> None:
        self.folder = folder
        self.name = name or run_id
        self.run_id = run_id
        self.job = job
        self.destination = Destination()
        """Where the sends go; to be set before the first segment is written."""
        self.totals = SendTotals()
        self._sends = _Sends()
        self._segments = 0
        self._segment: SegmentFile | None = None
        """The one that is being written."""
        self._in_segment = 0
        """Sends that it has got."""
        self._counted: list[SendColumns] = []
        """The same sends, which count once the segment is on disk."""
        self._failure: Exception | None = None
        """Why a segment could not be written, mostly StorageFailed; later sends are refused."""
        self._writing: threading.Thread | None = None
        """Writes the last row group: whole, also if Ctrl-C ends the wait for it, and to the disk while the next sends are recorded."""
        # jemalloc, the default on Linux, keeps 25 MB more of a run, and is no faster here.
        pa.set_memory_pool(pa.system_memory_pool())
        self._require_room()

    def record(self, delivery: Delivery) -> None:
        """Records the result of a batch; writes a row group whenever 10,000 sends are recorded.

        Raises:
            StorageFailed: Earlier sends cannot be written; the run must not be called finished.
        """
        if self._failure:
            raise self._failure
        for partition, fall in delivery.went_back.items():
            self.totals.falls.setdefault((delivery.batch.topic, partition), []).append(fall)
        self._sends.add(delivery)
        is_full = self._in_segment + len(self._sends) >= SEGMENT_SENDS
        if is_full or len(self._sends) >= GROUP_SENDS:
            self._write(is_last=is_full)

    def close(self) -> SendTotals:
        """Writes the last segment, after which every recorded send is durable. Returns the totals."""
        self._await_group()
        if len(self._sends) or self._in_segment:
            self._write(is_last=True)
            self._await_group()
        return self.totals

    def _require_room(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe = self.folder / f".{self.name}.probe"
            probe.write_bytes(b"\0" * 4096)
            probe.unlink()
            free = _free_bytes(self.folder)
        except OSError as error:
            raise self._failed(error) from None
        if free < MIN_FREE_BYTES:
            raise StorageFailed(
                f"the disk of {self.folder} is all but full ({free // 2**20} MB free)",
                why="each send has to be written down before a run counts as finished",
                remedy="make room and run again; nothing was sent",
            )

    def _write(self, *, is_last: bool) -> None:
        """Writes a row group of what is recorded, in 8 ms; if it is the last one of its segment, begins to flush that.

        This thread waits meanwhile. Else each column would take 5 ms more: pyarrow releases the interpreter's lock for it, and
        gets that back after this thread's turn.

        Args:
            is_last: The segment ends with it.
        """
        self._await_group()
        sends, self._sends = self._sends, _Sends()
        self._in_segment = 0 if is_last else self._in_segment + len(sends)
        is_encoded = threading.Event()
        self._writing = threading.Thread(target=self._write_group, args=(sends, is_last, is_encoded), name="spool")
        self._writing.start()
        is_encoded.wait()
        if self._failure:
            raise self._failure

    def _write_group(self, sends: _Sends, is_last: bool, is_encoded: threading.Event) -> None:
        try:
            if self._segment is None:
                self._segments += 1
                self._segment = SegmentFile(self.folder / f"{self.name}-{self._segments:06}{SUFFIX}", _SCHEMA)
            if len(sends):
                self._segment.add(sends.as_table(self.run_id, self.job, self.destination))
                self._counted.append(sends.as_counted())
            is_encoded.set()
            if is_last:
                self._segment.complete()
                self._segment = None
                counted, self._counted = self._counted, []
                for some in counted:
                    self.totals.add(some)
        except OSError as error:
            self._failure = self._failed(error)
        except Exception as error:  # noqa: BLE001 - raised by the next call, as this thread has no caller
            self._failure = error
        finally:
            is_encoded.set()

    def _await_group(self) -> None:
        """Waits until the last row group is written; raises if it could not be."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        if self._failure:
            raise self._failure

    def _failed(self, error: OSError) -> StorageFailed:
        return StorageFailed(
            f"the sends of run {self.run_id} cannot be written to {self.folder}",
            why=error.strerror or str(error),
            remedy="make room or mend the folder's permissions, then run again: the same rows get the same message ids",
        )


class _Sends:
    """Recorded sends that are not written yet, by columns."""

    def __init__(self) -> None:
        self._topics: list[tuple[str, int]] = []
        self._keys = _TextColumn()
        self._ids = _TextColumn()
        self._sizes: array[int] = array("i")
        self._partitions: array[int] = array("i")
        self._offsets: array[int] = array("q")
        self._sent_at_us: array[int] = array("q")
        self._latencies: array[float] = array("d")
        self._attempts: array[int] = array("i")
        self._errors: dict[int, tuple[str, str]] = {}
        """Index → text and class."""

    def __len__(self) -> int:
        return len(self._sizes)

    def add(self, delivery: Delivery) -> None:
        """Adds the messages of a batch."""
        batch, first = delivery.batch, len(self)
        self._topics.append((batch.topic, len(batch)))
        self._keys.add(batch.readable_keys)
        self._ids.add(batch.message_ids)
        self._sizes.extend(_sizes(batch.values))
        self._partitions += delivery.partitions
        self._offsets += delivery.offsets
        self._sent_at_us += delivery.sent_at_us
        self._latencies += delivery.latencies_ms
        self._attempts += delivery.attempts
        for index, error in delivery.errors.items():
            self._errors[first + index] = (error.text, _class_of(error))

    def as_counted(self) -> SendColumns:
        """Returns what is counted of them, over the same memory."""
        return SendColumns(
            topics=_runs_of(self._topics),
            partitions=np.asarray(self._partitions),
            offsets=np.asarray(self._offsets),
            sizes=np.asarray(self._sizes),
            key_sizes=self._keys.sizes,
            sent_at_us=np.asarray(self._sent_at_us),
            latencies_ms=np.asarray(self._latencies),
            attempts=np.asarray(self._attempts),
        )

    def as_table(self, run_id: str, job: str, destination: Destination) -> pa.Table:
        """Returns them as a segment has them."""
        count = len(self)
        offsets, acknowledged = np.asarray(self._offsets), np.asarray(self._partitions) >= 0
        texts = [self._errors.get(i, (None, None)) for i in range(count)] if self._errors else []
        errors, classes = (
            _texts([text[part] for text in texts]) if texts else _texts([None], [count]) for part in (0, 1)
        )
        columns = [
            _texts([run_id], [count]),
            _texts([job], [count]),
            _texts(*zip(*_runs_of(self._topics), strict=True)),
            _numbers(self._partitions, pa.int32(), acknowledged),
            # An idempotent retry whose first acknowledgement was lost is acknowledged without its offset.
            _numbers(offsets, pa.int64(), acknowledged & (offsets >= 0)),
            self._keys.as_arrow(),
            self._ids.as_arrow(),
            _numbers(self._sizes, pa.int32()),
            _numbers(self._sent_at_us, pa.timestamp("us")),
            _numbers(np.asarray(self._latencies, np.float32), pa.float32(), acknowledged),
            _numbers(np.asarray(self._attempts, np.int16), pa.int16()),
            _dictionary(_numbers((~acknowledged).astype(np.int32), pa.int32()), ("acknowledged", "failed")),
            errors,
            classes,
            *(_texts([text or None], [count]) for text in astuple(destination)),
        ]
        return pa.Table.from_arrays(columns, schema=_SCHEMA)


def _class_of(error: PsttError) -> str:
    """Returns the class of the error; for RetriesExhausted that of the last attempt."""
    cause = error.__cause__ if isinstance(error, RetriesExhausted) else None
    return type(cause or error).__name__


# `pa.array`, `pa.scalar` and plain numbers import pandas where it is installed: 55 MB and 0.3 s a process. Buffers do not
# (pyarrow 26, pandas-shim.pxi; a test checks this). Nor is `pyarrow.compute` loaded: 9 MB and 35 ms.


def _numbers(values: Any, type_: pa.DataType, are_there: np.ndarray | None = None) -> pa.Array:
    """Returns an Arrow column over the same memory; null where `are_there` is false."""
    return pa.Array.from_buffers(type_, len(values), [_validity(are_there), pa.py_buffer(values)])


def _validity(are_there: np.ndarray | None) -> pa.Buffer | None:
    return None if are_there is None or are_there.all() else pa.py_buffer(np.packbits(are_there, bitorder="little"))


def _dictionary(indexes: pa.Array, texts: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(indexes, _TextColumn([text.encode() for text in texts]).as_arrow())


def _texts(texts: Sequence[str | None], counts: Sequence[int] = ()) -> pa.DictionaryArray:
    """Returns a column in which each text is kept once; with `counts` each one stands for so many sends in a row."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(text for text in texts if text is not None))}
    indexes = np.fromiter((-1 if text is None else numbers[text] for text in texts), np.int32, len(texts))
    if counts:
        indexes = np.repeat(indexes, counts)
    return _dictionary(_numbers(indexes, pa.int32(), indexes >= 0), list(numbers))


def _runs_of(topics: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Joins adjacent equal topics: one entry for many batches instead of one for each."""
    joined: list[tuple[str, int]] = []
    for topic, count in topics:
        if joined and joined[-1][0] == topic:
            joined[-1] = (topic, joined[-1][1] + count)
        else:
            joined.append((topic, count))
    return joined


def _sizes(values: Sequence[bytes | None]) -> list[int]:
    """Returns the bytes of each value, 0 for a tombstone."""
    try:
        return list(map(len, values))  # type: ignore[arg-type]
    except TypeError:
        return [0 if value is None else len(value) for value in values]


class _TextColumn:
    """A column of UTF-8 texts in the form in which Arrow stores one; no object is kept for a single text."""

    def __init__(self, texts: Sequence[bytes | None] = ()) -> None:
        self._bytes = bytearray()
        self._lengths: array[int] = array("i")
        self._nulls: list[int] = []
        self.add(texts)

    def add(self, texts: Sequence[bytes | None]) -> None:
        """Adds texts; None is a null."""
        present: Sequence[bytes] = texts  # type: ignore[assignment]
        try:
            lengths = list(map(len, present))
        except TypeError:
            count = len(self._lengths)
            self._nulls += [count + index for index, text in enumerate(texts) if text is None]
            present = [text or b"" for text in texts]
            lengths = list(map(len, present))
        if lengths and lengths.count(lengths[0]) == len(lengths):  # as ids are: no number is converted by itself
            self._lengths += array("i", lengths[:1]) * len(lengths)
        else:
            self._lengths += array("i", lengths)
        self._bytes += b"".join(present)

    @property
    def sizes(self) -> np.ndarray:
        """Bytes of each text, 0 for a null."""
        return np.asarray(self._lengths)

    def as_arrow(self) -> pa.Array:
        """Returns the column as Arrow text, over the same memory; bytes that are no text are escaped first."""
        column = self._as_arrow()
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:  # keys of `KafkaService` may be any bytes
            ends = accumulate(self._lengths, initial=0)
            texts = [self._bytes[start:end].decode("utf-8", "backslashreplace") for start, end in pairwise(ends)]
            self._bytes, self._lengths = bytearray(), array("i")
            self.add([text.encode() for text in texts])
            column = self._as_arrow()
        return column

    def _as_arrow(self) -> pa.Array:
        count = len(self._lengths)
        are_there = None
        if self._nulls:
            are_there = np.ones(count, np.bool_)
            are_there[self._nulls] = False
        if len(self._bytes) > np.iinfo(np.int32).max:
            raise OverflowError(f"{count} texts of {len(self._bytes)} bytes together do not fit into one Arrow column")
        ends = np.zeros(count + 1, np.int32)
        np.cumsum(self._lengths, out=ends[1:])
        buffers = [_validity(are_there), pa.py_buffer(ends), pa.py_buffer(self._bytes)]
        return pa.Array.from_buffers(pa.string(), count, buffers)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free
