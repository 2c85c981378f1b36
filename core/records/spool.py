"""Stores every send in Parquet segments below `.pstt/spool/`, durable before its run counts as finished.

A segment is written to a temporary file, flushed to the disk and renamed, so that every visible segment is complete.
Sending never waits for DuckDB: `core.records.metrics` copies segments into `metrics.duckdb` afterwards, and can
rebuild that file from them.
"""

from __future__ import annotations

import os
import shutil
import threading
from array import array
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, field, replace
from datetime import UTC, datetime
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import PsttError, RetriesExhausted, StorageFailed
from core.model.connection import Destination
from core.model.percentile import percentile
from core.model.publisher import Delivery
from core.model.run import PartitionRange

__all__ = [
    "SEND_SCHEMA",
    "SendTotals",
    "Spool",
    "flush_folder",
    "read_segment",
    "segments_of",
    "text_scalar",
    "write_segment",
]

SEGMENT_SENDS = 50_000
"""Sends in a segment: 8 MB of buffers, and 40 ms to write."""
ENCODED_SENDS = 12_500
"""Sends in a row group. With one row group a segment, Parquet's buffers would take 20 MB."""
PAGE_BYTES = 65_536
"""Of a column in a segment. Pages of 1 MB, the default, take 11 MB more while a segment is written, for files as large."""
SUFFIX = ".parquet"
MIN_FREE_BYTES = 64 * 1024 * 1024

SEND_SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("job", pa.string()),
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("key", pa.string()),
        ("message_id", pa.string()),
        ("size_bytes", pa.int32()),
        ("sent_at", pa.timestamp("us")),
        ("latency_ms", pa.float32()),
        ("attempt", pa.int16()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("error_class", pa.string()),
        ("cluster", pa.string()),
        ("cluster_id", pa.string()),
        ("bootstrap_servers", pa.string()),
    ]
)

EARLIER_SENT_AT = "handed_over_at"
"""The name of `sent_at` in segments of 1.0 and earlier, which are not rewritten."""
COUNTED = ["topic", "partition", "offset", "key", "size_bytes", "sent_at", "latency_ms", "attempt"]
"""The columns that `SendTotals.add` reads."""


@dataclass(slots=True)
class SendTotals:
    """The totals of recorded sends. Latencies are counted in steps of 0.1 ms, so memory stays constant."""

    acknowledged: int = 0
    failed: int = 0
    retried: int = 0
    bytes: int = 0
    latencies: Counter[float] = field(default_factory=Counter)
    """Latency in ms, rounded to 0.1 → messages."""
    ranges: dict[tuple[str, int], PartitionRange] = field(default_factory=dict)
    unplaced: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Topic and partition → messages acknowledged without an offset, as they were stored before they were sent again."""
    falls: dict[tuple[str, int], list[tuple[int, int]]] = field(default_factory=dict)
    """Topic and partition → each decrease of the offsets: (before, after)."""
    last_sent_at: datetime | None = None

    def percentile_ms(self, share: float) -> float | None:
        """Returns the latency that `share` (0 to 1) of the acknowledged messages did not exceed, to 0.1 ms."""
        return percentile(self.latencies, share)

    @property
    def average_ms(self) -> float | None:
        """Mean latency of the acknowledged messages in ms."""
        total = sum(self.latencies.values())
        return sum(ms * count for ms, count in self.latencies.items()) / total if total else None

    @property
    def latency_counts(self) -> dict[str, int]:
        """Latency in ms to two digits → messages: some hundred entries at most."""
        counts: Counter[str] = Counter()
        for latency_ms, count in self.latencies.items():
            counts[f"{float(f'{latency_ms:.2g}'):g}"] += count
        return dict(counts)

    @property
    def partitions(self) -> tuple[PartitionRange, ...]:
        """Offsets by topic and partition, in order."""
        return tuple(self.ranges[place] for place in sorted(self.ranges))

    @property
    def placed(self) -> tuple[PartitionRange, ...]:
        """The same for the messages whose offset is known."""
        counted = (replace(r, count=r.count - self.unplaced[r.topic, r.partition]) for r in self.partitions)
        return tuple(r for r in counted if r.count)

    def add(self, sends: pa.Table) -> None:
        """Adds the sends of a segment, by columns: 0.02 µs a send."""
        are_sent = pc.is_valid(sends["partition"])
        sent = sends if pc.all(are_sent).as_py() else sends.filter(are_sent)
        self.acknowledged += sent.num_rows
        self.failed += sends.num_rows - sent.num_rows
        last = pc.max(sends["sent_at"]).cast(pa.int64()).as_py()
        if last is not None:
            moment = datetime.fromtimestamp(last / 1e6, UTC)
            self.last_sent_at = max(moment, self.last_sent_at or moment)
        self.retried += pc.sum(pc.greater(sends["attempt"], _number(1))).as_py() or 0
        self.bytes += (pc.sum(sent["size_bytes"]).as_py() or 0) + (pc.sum(pc.binary_length(sent["key"])).as_py() or 0)
        for entry in pc.value_counts(pc.round(sent["latency_ms"].cast(pa.float64()), 1)).to_pylist():
            self.latencies[entry["values"]] += entry["counts"]
        for topic in pc.unique(sent["topic"]):
            is_topic = pc.equal(sent["topic"], topic)
            for partition in pc.unique(sent["partition"].filter(is_topic)):
                offsets = sent["offset"].filter(pc.and_(is_topic, pc.equal(sent["partition"], partition)))
                place = (topic.as_py(), partition.as_py())
                self.unplaced[place] += offsets.null_count
                _widen(self.ranges, place, offsets)


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
        self._segments = 0
        self._failure: Exception | None = None
        """Why a segment could not be written, mostly StorageFailed; later sends are refused."""
        self._writing: threading.Thread | None = None
        """Writes the last segment while the next sends are recorded; Parquet and the disk need no interpreter."""
        # jemalloc, the default on Linux, keeps 25 MB more of a run, and is no faster here.
        pa.set_memory_pool(pa.system_memory_pool())
        self._clear()
        self._require_room()

    def record(self, delivery: Delivery) -> None:
        """Records the result of a batch; writes a segment whenever 50,000 sends are recorded.

        Raises:
            StorageFailed: An earlier segment cannot be written; the run must not be called finished.
        """
        if self._failure:
            raise self._failure
        batch = delivery.batch
        self._topics.append((batch.topic, len(batch)))
        self._keys.add(batch.readable_keys)
        self._ids.add(batch.message_ids)
        self._sizes.extend(_sizes(batch.values))
        self._partitions += delivery.partitions
        self._offsets += delivery.offsets
        self._sent_at_us += delivery.sent_at_us
        self._latencies += delivery.latencies_ms
        self._attempts += delivery.attempts
        for partition, fall in delivery.went_back.items():
            self.totals.falls.setdefault((batch.topic, partition), []).append(fall)
        first = len(self._sizes) - len(batch)
        for index, error in delivery.errors.items():
            self._errors[first + index] = (error.text, _class_of(error))
        if len(self._sizes) >= SEGMENT_SENDS:
            self._write()

    def close(self) -> SendTotals:
        """Writes the last segment, after which every recorded send is durable. Returns the totals."""
        self._await_segment()
        if self._sizes:
            self._write()
            self._await_segment()
        return self.totals

    def _clear(self) -> None:
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

    def _write(self) -> None:
        self._await_segment()
        table = self._table()
        self._clear()
        self._segments += 1
        file = self.folder / f"{self.name}-{self._segments:06}{SUFFIX}"
        self._writing = threading.Thread(target=self._write_segment, args=(table, file), name="spool")
        self._writing.start()

    def _write_segment(self, table: pa.Table, file: Path) -> None:
        try:
            write_segment(table, file)
            self.totals.add(table.select(COUNTED))
        except OSError as error:
            self._failure = self._failed(error)
        except Exception as error:  # noqa: BLE001 - raised by the next call, as this thread has no caller
            self._failure = error
        del table
        # What the next segment needs is allocated half a second later at the earliest.
        pa.default_memory_pool().release_unused()

    def _await_segment(self) -> None:
        """Waits until the last segment is written; raises if it could not be."""
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

    def _table(self) -> pa.Table:
        count = len(self._sizes)
        partitions = _wrapped(self._partitions, pa.int32())
        acknowledged = pc.greater_equal(partitions, _number(0))
        errors = classes = pa.nulls(count, pa.string())
        if self._errors:
            found = [self._errors.get(i) for i in range(count)]
            errors, classes = (_TextColumn([e and e[part].encode() for e in found]).as_arrow() for part in (0, 1))
        latencies = _wrapped(self._latencies, pa.float64()).cast(pa.float32())
        offsets = _wrapped(self._offsets, pa.int64())
        columns = [
            pa.repeat(text_scalar(self.run_id), count),
            pa.repeat(text_scalar(self.job), count),
            pa.concat_arrays([pa.repeat(text_scalar(topic), n) for topic, n in _runs_of(self._topics)]),
            _where(acknowledged, partitions),
            # An idempotent retry whose first acknowledgement was lost is acknowledged without its offset.
            _where(pc.and_(acknowledged, pc.greater_equal(offsets, _number(0))), offsets),
            self._keys.as_arrow(),
            self._ids.as_arrow(),
            _wrapped(self._sizes, pa.int32()),
            _wrapped(self._sent_at_us, pa.timestamp("us")),
            _where(acknowledged, latencies),
            _wrapped(self._attempts, pa.int32()).cast(pa.int16()),
            pc.if_else(acknowledged, text_scalar("acknowledged"), text_scalar("failed")),
            errors,
            classes,
            *(
                pa.repeat(text_scalar(text), count) if text else pa.nulls(count, pa.string())
                for text in astuple(self.destination)
            ),
        ]
        return pa.Table.from_arrays(columns, schema=SEND_SCHEMA)


def segments_of(folder: Path, run_id: str) -> list[Path]:
    """Returns the segments of one run in a folder, in order."""
    return sorted(folder.glob(f"{run_id}-*{SUFFIX}"))


def read_segment(file: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Reads the sends of a segment, or only the columns named; segments of earlier versions have `sent_at` too.

    Raises:
        StorageFailed: It does not exist, or is damaged.
    """
    try:
        with pq.ParquetFile(file) as opened:
            if EARLIER_SENT_AT not in opened.schema_arrow.names:
                return opened.read(columns)
            stored = columns and [EARLIER_SENT_AT if name == "sent_at" else name for name in columns]
            return _with_sent_at(opened.read(stored))
    except (OSError, pa.ArrowException) as error:
        raise StorageFailed(
            f"{file} cannot be read", why=str(error).splitlines()[0], remedy="restore it from a backup"
        ) from None


def _with_sent_at(sends: pa.Table) -> pa.Table:
    return sends.rename_columns(["sent_at" if name == EARLIER_SENT_AT else name for name in sends.column_names])


def write_segment(sends: pa.Table, file: Path) -> None:
    """Writes a segment to a temporary file, flushes it to the disk and renames it.

    Raises:
        OSError: It cannot be written; no partial file remains.
    """
    aside = file.with_suffix(".tmp")
    try:
        with aside.open("wb") as stream:
            pq.write_table(
                sends,
                stream,
                row_group_size=ENCODED_SENDS,
                data_page_size=PAGE_BYTES,
                compression="zstd",
                compression_level=1,
                use_dictionary=_REPEATING,
            )
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(file)
        flush_folder(file.parent)
    except OSError:
        with suppress(OSError):
            aside.unlink()
        raise


_REPEATING = ["run_id", "job", "topic", "status", "error", "error_class", "cluster", "cluster_id", "bootstrap_servers"]


def _class_of(error: PsttError) -> str:
    """Returns the class of the error; for RetriesExhausted that of the last attempt."""
    cause = error.__cause__ if isinstance(error, RetriesExhausted) else None
    return type(cause or error).__name__


def _widen(ranges: dict[tuple[str, int], PartitionRange], place: tuple[str, int], offsets: pa.ChunkedArray) -> None:
    """Extends the offset range of a partition; messages without an offset are only counted."""
    known = ranges.get(place)
    spread = pc.min_max(offsets).as_py()
    firsts: list[int] = [known.first_offset] if known else []
    lasts: list[int] = [known.last_offset] if known else []
    if spread["min"] is not None:
        firsts, lasts = [*firsts, spread["min"]], [*lasts, spread["max"]]
    count = len(offsets) + (known.count if known else 0)
    ranges[place] = PartitionRange(*place, min(firsts, default=0), max(lasts, default=0), count)


# `pa.array`, `pa.scalar`, plain numbers passed to `pc` and `Table.group_by` import pandas where it is installed: 55 MB
# and 0.3 s a process. Buffers do not (pyarrow 26, pandas-shim.pxi; a test checks this).


def _number(value: int) -> pa.Scalar:
    return _wrapped(array("i", [value]), pa.int32())[0]


def text_scalar(text: str) -> pa.Scalar:
    """Returns a text as Arrow has it, without importing pandas."""
    return _TextColumn([text.encode()]).as_arrow()[0]


def _where(condition: pa.Array, values: pa.Array) -> pa.Array:
    """Returns the values where the condition is true, else null."""
    return pc.if_else(condition, values, pa.nulls(1, values.type)[0])


def _wrapped(values: array[Any], type_: pa.DataType) -> pa.Array:
    """Returns an Arrow array over the same memory, without a copy."""
    return pa.Array.from_buffers(type_, len(values), [None, pa.py_buffer(values)])


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
        self._ends = array("i", [0])
        self._nulls: list[int] = []
        self.add(texts)

    def add(self, texts: Sequence[bytes | None]) -> None:
        """Adds texts; None is a null."""
        present: Sequence[bytes] = texts  # type: ignore[assignment]
        if None in texts:
            count = len(self._ends) - 1
            self._nulls += [count + index for index, text in enumerate(texts) if text is None]
            present = [text or b"" for text in texts]
        end = self._ends.pop()
        self._ends.extend(accumulate(map(len, present), initial=end))
        self._bytes += b"".join(present)

    def as_arrow(self) -> pa.Array:
        """Returns the column as Arrow text, over the same memory."""
        count = len(self._ends) - 1
        validity = None
        if self._nulls:
            flags = bytearray(b"\1" * count)
            for index in self._nulls:
                flags[index] = 0
            validity = (
                pa.Array.from_buffers(pa.uint8(), count, [None, pa.py_buffer(flags)]).cast(pa.bool_()).buffers()[1]
            )
        array_ = pa.Array.from_buffers(
            pa.string(), count, [validity, pa.py_buffer(self._ends), pa.py_buffer(self._bytes)]
        )
        try:
            array_.validate(full=True)
        except pa.ArrowInvalid:  # keys of `KafkaService` may be any bytes
            nulls = frozenset(self._nulls)
            texts = (self._bytes[start:end] for start, end in pairwise(self._ends))
            escaped = (text.decode("utf-8", "backslashreplace").encode() for text in texts)
            return _TextColumn([None if i in nulls else text for i, text in enumerate(escaped)]).as_arrow()
        return array_


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def flush_folder(folder: Path) -> None:
    """Flushes a folder, which makes a rename in it durable. Windows has no such call; it flushes with the file."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
