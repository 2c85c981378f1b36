"""exactly_once in parts: each part has a transaction and a marker of its own, and a later attempt sends only the others.

Beside each marker is a record of how the query was split, so that a later attempt splits it in the same way.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from core.clock import iso_utc
from core.errors import RunFailed
from core.model.job import PartitionBy, Partitions
from core.model.publisher import Publisher, TopicState
from core.model.query import Value
from core.model.run import Run
from core.model.window import Cursor
from core.records.ledger import Ledger
from core.run.exactly_once import ExactlyOnce, SentMarker, decoded, foreign_sender
from core.run.incremental import record_of_watermark
from core.run.parts import PartOnce, PartValue

__all__ = ["EarlierParts", "PartsRecord", "earlier_parts", "once_of_part", "record_of", "refuse_parts"]


class PartsRecord(msgspec.Struct, frozen=True):
    """How the query of a scheduled time was split."""

    run: str
    column: str
    by: PartitionBy
    count: int
    """Parts that there are."""
    bounds: list[PartValue]
    host: str = ""
    path: str = ""
    at: str = ""
    high: str = ""
    """Incremental job: the position up to which rows are read; empty: there is none."""
    high_tie: str = ""

    @property
    def end(self) -> Cursor | None:
        """That position."""
        return Cursor(self.high, self.high_tie) if self.high else None

    @property
    def partitions(self) -> Partitions:
        """The same as a setting of a job."""
        return Partitions(self.column, self.count, self.by)


@dataclass(frozen=True, slots=True)
class EarlierParts:
    """What earlier attempts have sent."""

    record: PartsRecord | None = None
    """None: nothing."""
    markers: dict[int, SentMarker] = field(default_factory=dict)
    """Index of the part → its marker."""

    @property
    def bounds(self) -> list[Value] | None:
        """The bounds between the parts; None: nothing was sent yet, or the parts are not ranges."""
        if self.record is None or self.record.by == "hash":
            return None
        return [bound.value for bound in self.record.bounds]

    @property
    def is_complete(self) -> bool:
        """Whether every part was sent."""
        return self.record is not None and len(self.markers) == self.record.count


def earlier_parts(
    once: ExactlyOnce, publisher: Publisher, raw: bytes | None, ledger: Ledger, state: TopicState
) -> EarlierParts:
    """Returns what earlier attempts have sent of this scheduled time.

    Args:
        once: What is sent once.
        publisher: Reads the control topic.
        raw: The value of `once.parts_key` on it; None: there is none.
        ledger: The ledger of this workspace.
        state: The plan's topic now.

    Raises:
        RunFailed: They sent something else, or another workspace uses this identity.
    """
    if raw is None:
        return EarlierParts()
    if foreign := foreign_sender(raw, once.identity, ledger):
        raise foreign
    record = decoded(raw, PartsRecord)
    keys = {once.part_key(index, record.count): index for index in range(record.count)}
    markers: dict[int, SentMarker] = {}
    for key, value in publisher.read_control(once.plan.control_topic, list(keys)).items():
        markers[keys[key]] = once.checked(value, ledger, state)
    return EarlierParts(record, markers)


def refuse_parts(once: ExactlyOnce, raw: bytes) -> RunFailed:
    """Returns the error of a run without parts whose scheduled time was sent in parts."""
    record = decoded(raw, PartsRecord)
    return RunFailed(
        f'job "{once.plan.job.name}" has sent parts of {once.plan.scheduled_at:%Y-%m-%d %H:%M} before, and exactly_once '
        "sends once",
        why=f'run {record.run} split the query by {record.column}, and the job has no "partitions" now; nothing was sent',
        remedy=f'add "partitions": {{"column": "{record.column}", "count": {record.count}}} again, until that time is sent',
    )


def once_of_part(
    once: ExactlyOnce, run: Run, index: int, record: PartsRecord, state: TopicState, *, skips_empty: bool = False
) -> PartOnce:
    """Returns the transaction of one part; `skips_empty`: there is none if it has no message."""
    marker = msgspec.json.decode(
        once.marker(run, rows=0, read=0, rejected=0, sha256="", state=state, now=run.started_at), type=SentMarker
    )
    return PartOnce(
        transactional_id=f"{once.transactional_id}#{index}",
        key=once.part_key(index, record.count).decode(),
        skips_empty=skips_empty,
        marker=msgspec.json.encode(msgspec.structs.replace(marker, part=f"{index}/{record.count}")).decode(),
        records={
            once.parts_key.decode(): msgspec.json.encode(record).decode(),
            once.last_sender_key.decode(): once.last_sender(run, run.started_at).decode(),
            **_watermark(once, run),
        },
    )


def _watermark(once: ExactlyOnce, run: Run) -> dict[str, str]:
    """Returns where this run starts: with it a lost ledger finds the parts, whose markers are named by its version."""
    window, incremental = once.plan.window, once.plan.job.incremental
    if window is None or incremental is None or window.low is None or not window.version:
        return {}
    record = record_of_watermark(run.run_id, incremental, window.version, window.low, run.started_at)
    return {once.watermark_key.decode(): record.decode()}


def record_of(
    once: ExactlyOnce, run: Run, partitions: Partitions, count: int, bounds: tuple[Value, ...], high: Cursor | None
) -> PartsRecord:
    """Returns how a run splits its query, and up to which position of its cursor it reads."""
    place = once.identity.place
    return PartsRecord(
        run=run.run_id,
        column=partitions.column,
        by=partitions.by,
        count=count,
        bounds=[PartValue.of(bound) for bound in bounds],
        host=place.host,
        path=place.path,
        at=iso_utc(run.started_at),
        high=high.value if high else "",
        high_tie=high.tie if high else "",
    )
