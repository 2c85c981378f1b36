"""The topics of a demo's mock brokers on disk, so that messages outlive the process that sent them.

A segment is a Parquet file with the messages of one run, in the order of their offsets. Segments are only added.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec

from core.errors import StorageFailed

__all__ = ["KeptMessage", "KeptTopics"]

SUFFIX = ".parquet"


class KeptMessage(NamedTuple):
    """A message as a topic has it."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """Unix time."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class KeptTopics:
    """The messages of one mock cluster.

    Args:
        folder: Where the segments are; it is created when the first one is written.
    """

    folder: Path

    def segments(self) -> list[Path]:
        """Returns the files with messages, the oldest first."""
        return sorted(self.folder.glob(f"*{SUFFIX}"))

    def add(self, messages: Sequence[KeptMessage]) -> Path | None:
        """Writes one more segment and returns its path; None if there are no messages.

        Args:
            messages: Those of one partition in the order of their offsets.

        Raises:
            StorageFailed: The folder cannot be written.
        """
        import pyarrow as pa  # slow, and `check` or `config` need no messages
        import pyarrow.parquet as pq

        if not messages:
            return None
        columns = dict(zip(KeptMessage._fields, map(list, zip(*messages, strict=True)), strict=True))
        columns["headers"] = [msgspec.msgpack.encode(headers) for headers in columns["headers"]]
        table = pa.table(columns, schema=pa.schema(list(_types().items())))
        newest = self.segments()[-1:]
        number = int(newest[0].stem) + 1 if newest else 1
        file = self.folder / f"{number:08d}{SUFFIX}"
        unfinished = file.with_suffix(".new")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, unfinished, compression="zstd")
            os.replace(unfinished, file)
        except OSError as error:
            why = error.strerror or str(error)
            raise StorageFailed(f"{self.folder} cannot be written", why=why, remedy="make room on the disk") from None
        return file

    def read(self, segment: Path) -> Iterator[KeptMessage]:
        """Yields the messages of one segment in their order.

        Raises:
            StorageFailed: The file cannot be read.
        """
        import pyarrow as pa  # slow, as above
        import pyarrow.parquet as pq

        try:
            table = pq.read_table(segment)
        except (OSError, pa.ArrowInvalid) as error:
            raise StorageFailed(
                f"{segment} cannot be read", why=str(error), remedy="python -m core demo makes the demo anew"
            ) from None
        decode = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode
        columns = {name: table.column(name).to_pylist() for name in KeptMessage._fields}
        columns["headers"] = list(map(decode, columns["headers"]))
        yield from map(KeptMessage._make, zip(*columns.values(), strict=True))


def _types() -> dict[str, str]:
    return {
        "topic": "string",
        "partition": "int32",
        "offset": "int64",
        "timestamp_ms": "int64",
        "key": "binary",
        "value": "binary",
        "headers": "binary",
    }
