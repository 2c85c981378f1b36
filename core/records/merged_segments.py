"""Files of the spool that replace many small segments: a job that sends each minute would leave 525,600 of them a year.

A merged segment is a segment with the sends of many runs of one job and day. Its metadata names the segments that it
replaces, so that the rename that makes it visible is the decision: from then on those count no more, whether or not their
files are deleted yet. `core.records.merging` makes them (docs/decisions/025-merged-segments.md).
"""

from __future__ import annotations

import json
import re
import secrets
import zlib
from base64 import b85decode, b85encode
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.errors import StorageFailed
from core.records.segments import (
    COUNTED,
    SEND_SCHEMA,
    SUFFIX,
    columns_of,
    read_segment,
    segments_of,
    write_segment,
)
from core.records.send_totals import SendTotals

__all__ = ["NEW", "PREFIX", "is_merged", "names_in", "run_of", "segments_with", "sends_in", "sent_by", "write_merged"]

PREFIX = "merged-"
"""No run id begins with it."""
NEW = ".new"
"""Suffix of a merged segment that does not count yet."""
NAMES = b"segments"
"""Key of the metadata; the names are JSON, compressed, as text."""
RUN_OF_SEGMENT = re.compile(r"^(.*?)(?:-p[0-9]+x[0-9]+)?-[0-9]+\.parquet$")
"""Also in `metrics.sql`: the segments of a part have the part and its attempt in their name."""


def is_merged(name: str) -> bool:
    """Returns whether this is the name of a merged segment."""
    return name.startswith(PREFIX)


def run_of(name: str) -> str:
    """Returns the run whose sends a segment has that is not merged; empty for other names."""
    found = RUN_OF_SEGMENT.match(name)
    return found[1] if found else ""


def names_in(file: Path) -> tuple[str, ...]:
    """Returns the names of the segments that a merged one replaces.

    Raises:
        StorageFailed: It does not exist, or is damaged.
    """
    try:
        stored = (pq.read_metadata(file).metadata or {})[NAMES]
        return tuple(json.loads(zlib.decompress(b85decode(stored))))
    except (OSError, KeyError, ValueError, zlib.error, pa.ArrowException) as error:
        raise StorageFailed(
            f"{file} cannot be read", why=str(error).splitlines()[0], remedy="restore it from a backup"
        ) from None


def write_merged(segments: Sequence[Path], folder: Path) -> Path | None:
    """Writes one segment with the sends of these, and reads it again.

    Returns:
        Its path, which ends in `.new`: it counts when it is renamed. None: it does not have the same sends.

    Raises:
        StorageFailed: One of them cannot be read.
        OSError: The disk is full, or the folder cannot be written.
    """
    sends = pa.concat_tables([_in_full(read_segment(segment)) for segment in segments])
    names = b85encode(zlib.compress(json.dumps([segment.name for segment in segments]).encode(), 9))
    aside = folder / f"{PREFIX}{secrets.token_hex(8)}-000001{NEW}"
    write_segment(sends.replace_schema_metadata({NAMES: names}), aside)
    if read_segment(aside).replace_schema_metadata() != sends:
        aside.unlink()
        return None
    return aside


def segments_with(folder: Path, run_id: str) -> list[Path]:
    """Returns the segments that have sends of a run; where it has none of its own, each merged one is asked (0.3 ms)."""
    own = segments_of(folder, run_id)
    if own:
        return own
    return [file for file in sorted(folder.glob(f"{PREFIX}*{SUFFIX}")) if run_id in map(run_of, _names_in_sound(file))]


def sends_in(file: Path, run_id: str, columns: Sequence[str]) -> pa.Table:
    """Returns these columns of a run's sends in one segment, also if that was merged since it was listed.

    Raises:
        StorageFailed: It cannot be read.
    """
    if not is_merged(file.name):
        try:
            return read_segment(file, columns)
        except StorageFailed:
            merged = [] if file.exists() else segments_with(file.parent, run_id)
            if not merged:
                raise
            file = merged[0]  # a run that is merged had one segment
    import pyarrow.compute as pc  # 9 MB, for what reads segments again

    return read_segment(file, [*columns, "run_id"]).filter(pc.field("run_id") == run_id).select(columns)


def sent_by(folder: Path, run_id: str) -> SendTotals:
    """Returns the totals of the sends of a run.

    Raises:
        StorageFailed: A segment cannot be read.
    """
    tally = SendTotals()
    for file in segments_with(folder, run_id):
        tally.add(columns_of(sends_in(file, run_id, COUNTED)))
    return tally


def _names_in_sound(file: Path) -> tuple[str, ...]:
    try:
        return names_in(file)
    except StorageFailed:  # a copy or a rebuild reports it
        return ()


def _in_full(sends: pa.Table) -> pa.Table:
    """Returns sends with all columns of today; those that an earlier version did not write are null."""
    columns = [
        sends[field.name].cast(field.type) if field.name in sends.column_names else pa.nulls(len(sends), field.type)
        for field in SEND_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=SEND_SCHEMA)
