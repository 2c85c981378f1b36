"""A Kafka client whose broker is one file: what a killed process had sent is still there, as on a cluster.

Each acknowledged message, and each committed transaction, is appended in one write. A transaction that was not committed is
nowhere.
"""

from __future__ import annotations

import os
from array import array
from pathlib import Path

import msgspec

from core.kafka.memory import MemoryPublisher, MemoryRecord
from core.model.connection import Cluster

__all__ = ["FILES", "FilePublisher", "records_of"]

FILES: dict[str, Path] = {}
"""Address → the file of its broker."""

_Line = tuple[str, int, int, bytes | None, bytes, tuple[tuple[str, bytes], ...]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Line]).decode


def records_of(file: Path) -> dict[str, list[MemoryRecord]]:
    """Returns topic → its records, in the order in which they arrived."""
    found: dict[str, list[MemoryRecord]] = {}
    raw, at = file.read_bytes() if file.exists() else b"", 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 8], "little")
        for topic, *record in _decode(raw[at + 8 : at + 8 + size]):
            found.setdefault(topic, []).append(MemoryRecord(*record))
        at += 8 + size
    return found


class FilePublisher(MemoryPublisher):
    """Publishes into the file of the broker at the cluster's address."""

    __slots__ = ("_file",)

    def __init__(self, cluster: Cluster, *, transactional_id: str | None = None, max_in_flight: int = 5000) -> None:
        self._file = FILES[cluster.bootstrap_servers]
        records, ends = records_of(self._file), dict[str, "array[int]"]()
        for topic, stored in records.items():
            ends[topic] = array("q", [0]) * 6
            for record in stored:
                ends[topic][record.partition] = max(ends[topic][record.partition], record.offset + 1)
        super().__init__(max_in_flight=max_in_flight, records=records, _ends=ends)

    def commit(self) -> None:
        """Writes the transaction and makes it visible."""
        written = list(self._uncommitted or ())
        self._write(written)
        super().commit()

    def _append(self, topic: str, record: MemoryRecord) -> None:
        if self._uncommitted is None:
            self._write([(topic, record)])
        super()._append(topic, record)

    def _write(self, records: list[tuple[str, MemoryRecord]]) -> None:
        if not records:
            return
        block = _encode([(t, r.partition, r.offset, r.key, r.value, r.headers) for t, r in records])
        file = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            os.write(file, len(block).to_bytes(8, "little") + block)
        finally:
            os.close(file)
