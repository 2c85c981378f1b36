"""The segments of the spool: Parquet files below `.pstt/spool/`, of which every visible one is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import StorageFailed
from core.records.send_totals import SendColumns

__all__ = [
    "COUNTED",
    "SEND_SCHEMA",
    "SUFFIX",
    "SegmentFile",
    "columns_of",
    "flush_folder",
    "read_segment",
    "segments_of",
    "write_segment",
]

ENCODED_SENDS = 12_500
"""Sends in a row group: Parquet's buffers grow with it."""
PAGE_BYTES = 65_536
"""Of a column in a segment. Pages of 1 MB, the default, take 11 MB more while a segment is written, for files as large."""
SUFFIX = ".parquet"

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
REPEATING = ("run_id", "job", "topic", "status", "error", "error_class", "cluster", "cluster_id", "bootstrap_servers")
"""Texts that are the same in most sends of a segment."""

EARLIER_SENT_AT = "handed_over_at"
"""The name of `sent_at` in segments of 1.0 and earlier, which are not rewritten."""
COUNTED = ["topic", "partition", "offset", "key", "size_bytes", "sent_at", "latency_ms", "attempt"]
"""The columns that `columns_of` reads."""


class SegmentFile:
    """A segment that is being written, beside its place.

    Args:
        file: Its place.
        schema: Of the tables that it gets: SEND_SCHEMA, whose texts may be dictionaries.

    Raises:
        OSError: It cannot be written; no partial file remains. Each method may raise it.
    """

    def __init__(self, file: Path, schema: pa.Schema) -> None:
        self.file = file
        self._aside = file.with_suffix(".tmp")
        self._stream = self._aside.open("wb")
        self._writer = pq.ParquetWriter(
            self._stream,
            schema,
            data_page_size=PAGE_BYTES,
            compression="zstd",
            compression_level=1,
            use_dictionary=list(REPEATING),
            store_schema=False,  # or dictionaries would be read as dictionaries
        )

    def add(self, sends: pa.Table) -> None:
        """Writes sends as row groups."""
        with self._removed_on_error():
            self._writer.write_table(sends, ENCODED_SENDS)

    def add_metadata(self, metadata: Mapping[bytes, bytes]) -> None:
        """Adds entries to the metadata of the file."""
        self._writer.add_key_value_metadata(metadata)

    def complete(self) -> None:
        """Flushes the segment to the disk and renames it: now it is visible."""
        with self._removed_on_error():
            self._writer.close()
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            self._aside.replace(self.file)
            flush_folder(self.file.parent)

    @contextmanager
    def _removed_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for opened in (self._writer, self._stream):  # what is buffered is written now, or cannot be
                with suppress(OSError, pa.ArrowException):
                    opened.close()
            with suppress(OSError):
                self._aside.unlink()
            raise


def write_segment(sends: pa.Table, file: Path) -> None:
    """Writes a whole segment, with the metadata of the table's schema.

    Raises:
        OSError: It cannot be written; no partial file remains.
    """
    segment = SegmentFile(file, sends.schema)
    segment.add(sends)
    if sends.schema.metadata:
        segment.add_metadata(sends.schema.metadata)
    segment.complete()


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


def columns_of(sends: pa.Table) -> SendColumns:
    """Returns what is counted of the sends of a table, which has the columns COUNTED."""
    import pyarrow.compute as pc  # 9 MB, for what reads segments again

    runs = pc.run_end_encode(sends["topic"].combine_chunks())
    counts = np.diff(runs.run_ends.to_numpy(), prepend=0).tolist()

    def numbers(name: str, missing: int) -> Any:
        column = sends[name].cast(pa.int64()) if name == "sent_at" else sends[name]
        return column.fill_null(missing).to_numpy()

    return SendColumns(
        topics=list(zip(runs.values.to_pylist(), counts, strict=True)),
        partitions=numbers("partition", -1),
        offsets=numbers("offset", -1),
        sizes=numbers("size_bytes", 0),
        key_sizes=pc.binary_length(sends["key"]).fill_null(0).to_numpy(),
        sent_at_us=numbers("sent_at", -1),
        latencies_ms=numbers("latency_ms", 0),
        attempts=numbers("attempt", 1),
    )


def flush_folder(folder: Path) -> None:
    """Flushes a folder, which makes a rename in it durable. Windows has no such call; it flushes with the file."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
