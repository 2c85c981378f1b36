"""Checks that a run's messages are on the topic: reads them back and compares them with the sends in the spool.

Memory stays flat for any number of messages. Both sides are first reduced to one checksum for each block of offsets; only
blocks whose checksums differ are compared message by message, a few at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pyarrow as pa

from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.mock_cluster import resolved
from core.kafka.read_back import Found, ReadBack
from core.kafka.topic_state import describe_topic, is_compacted
from core.message.key_comparison import NOT_COMPARED, KeyComparison
from core.model.connection import Cluster
from core.model.job import VerifyMode
from core.model.publisher import TopicState
from core.model.run import PartitionRange, Verification, VerificationProblem, VerifyAnswer
from core.records.merged_segments import segments_with, sends_in
from core.run.arrival import SentRange

__all__ = ["verify"]

BLOCK_BITS = 14
"""16,384 offsets a block: 600 sums for 10,000,000 messages."""
BLOCKS_AT_ONCE = 4
"""Blocks that are compared message by message together: 65,536 messages, 30 MB."""
READ_AT_ONCE = 12_500
DESCRIBED_S = 10.0
LISTED = 100
MOST_EXTRAS = 100_000
"""Second copies that are looked up one by one; beyond that they are only counted."""

COLUMNS = ["partition", "offset", "key", "message_id", "size_bytes"]
WITHOUT_OFFSET = "the broker acknowledged messages without their offset: it had them already when they were sent again"

StoredSend = tuple[int | None, int | None, bytes | None, bytes, int]
"""Partition (None: not acknowledged), offset (None: the broker did not report it), key, message id, bytes of the value."""


def verify(
    sent: SentRange,
    cluster: Cluster,
    spool_dir: Path,
    mode: VerifyMode,
    *,
    now: Callable[[], datetime],
    should_stop: Callable[[], bool] = lambda: False,
    silence_s: float = 30.0,
    keys: KeyComparison | None = None,
) -> Verification:
    """Reads a run's messages back as committed readers see them.

    Args:
        sent: What the run has sent.
        cluster: The cluster of its topic.
        spool_dir: The folder of its sends.
        mode: `count`: as many messages of this run as the ledger says, which offsets without gaps prove alone;
            `full`: each one with its key, its message id and its size.
        now: The clock, aware UTC.
        should_stop: Checked between two blocks.
        silence_s: How long the brokers may return nothing.
        keys: Compares keys in a format of their own with the spool, which has keys as text; None: the keys are text.
            Where a key cannot be decoded, its message id is compared alone, which is a hash of the row.

    Raises:
        BrokerUnavailable, NotAuthorised, TopicMissing: The topic cannot be read.
        StorageFailed: The sends cannot be read.
        RunCancelled: `should_stop` returned True.
    """
    started_at, began = now(), time.monotonic()
    comparison = _Comparison(
        sent,
        resolved(cluster),
        spool_dir,
        should_stop=should_stop,
        silence_s=silence_s,
        keys=keys,
    )
    comparison.compare(mode)
    return Verification(
        run_id=sent.run_id,
        checked_at=started_at,
        mode=mode,
        answer=comparison.answer,
        acknowledged=sent.acknowledged,
        found=sent.acknowledged - comparison.missing - comparison.other_content - comparison.not_verifiable,
        missing=comparison.missing,
        other_content=comparison.other_content,
        duplicates=comparison.duplicates,
        not_verifiable=comparison.not_verifiable,
        reason="; ".join(comparison.reasons),
        listed=tuple(comparison.listed),
        duration_s=time.monotonic() - began,
    )


@dataclass(slots=True, kw_only=True)
class _Counts:
    """How many messages differ from what was sent."""

    missing: int = 0
    other_content: int = 0
    duplicates: int = 0
    not_verifiable: int = 0
    reasons: list[str] = field(default_factory=list)
    listed: list[VerificationProblem] = field(default_factory=list)

    @property
    def answer(self) -> VerifyAnswer:
        """The worst result."""
        if self.missing:
            return "missing"
        if self.other_content:
            return "other_content"
        if self.not_verifiable:
            return "not_verifiable"
        return "duplicates" if self.duplicates else "complete"

    def add_unverifiable(self, count: int, reason: str) -> None:
        """Counts messages that cannot be verified, with the reason."""
        if count:
            self.not_verifiable += count
            self.reasons.append(reason)


class _Comparison(_Counts):
    """The comparison of one run."""

    def __init__(
        self,
        sent: SentRange,
        cluster: Cluster,
        spool_dir: Path,
        *,
        should_stop: Callable[[], bool],
        silence_s: float,
        keys: KeyComparison | None,
    ) -> None:
        super().__init__()
        self._keys = keys
        self._sent = sent
        self._cluster = cluster
        self._segments = segments_with(spool_dir, sent.run_id)
        self._diagnosis = Diagnosis(cluster)
        self._log = ClientLog(self._diagnosis, time.monotonic)
        self._should_stop, self._silence_s = should_stop, silence_s
        self._sums: dict[int, int] = {}
        """Block → checksum of its sends."""
        self._sums_of_ids: dict[int, int] = {}
        """The same without keys, where those have a format of their own."""
        self._segments_of_block: dict[int, list[Path]] = {}
        """Block → segments with sends of it."""
        self._unplaced = 0
        """Acknowledged sends whose offset the broker did not report."""
        self._extras: dict[bytes, Found] = {}

    def compare(self, mode: VerifyMode) -> None:
        """Compares, and fills the counts."""
        if self._sent.acknowledged and not self._sent.partitions:
            self.add_unverifiable(self._sent.acknowledged, "the run sent nothing itself: an earlier attempt did")
            return
        state = self._describe()
        if reason := self._replaced(state):
            self.add_unverifiable(self._sent.acknowledged, reason)
            return
        with ReadBack(
            self._cluster,
            self._sent.topic,
            self._sent.run_id,
            should_stop=self._should_stop,
            silence_s=self._silence_s,
        ) as reader:
            if mode == "count":
                self._compare_counts(reader, state)
            else:
                self._compare_each(reader, state)
        if self.missing and is_compacted(self._cluster, self._log, self._sent.topic):
            self.add_unverifiable(self.missing, "the topic is compacted, which removes the older messages of a key")
            self.missing, self.listed = 0, [unlike for unlike in self.listed if unlike.problem != "missing"]

    def _describe(self) -> TopicState:
        return describe_topic(self._cluster, self._diagnosis, self._log, self._sent.topic, DESCRIBED_S)

    def _replaced(self, now: TopicState) -> str:
        before = self._sent
        if before.cluster_id and now.cluster_id != before.cluster_id:
            return f"this is another cluster than the run's ({now.cluster_id}, not {before.cluster_id})"
        if not now.partitions:
            return "the topic does not exist any more"
        if before.topic_id and now.topic_id and now.topic_id != before.topic_id:
            return "the topic was deleted and made again since"
        return ""

    def _compare_counts(self, reader: ReadBack, state: TopicState) -> None:
        placed = sum(span.count for span in self._sent.partitions)
        self.add_unverifiable(self._sent.acknowledged - placed, WITHOUT_OFFSET)
        unproven = [span for span in self._sent.partitions if not _proves_itself(span, state)]
        counts = dict.fromkeys((span.partition for span in unproven), 0)
        for block in reader.records(_ranges(unproven, state)):
            for partition, _, _, message_id, _ in block:
                if message_id is not None:
                    counts[partition] += 1
        now = self._describe() if unproven else state
        for span in unproven:
            short = span.count - counts[span.partition]
            self.duplicates += max(-short, 0)
            earliest = now.partitions[span.partition].earliest if span.partition in now.partitions else 0
            deleted = max(min(short, earliest - span.first_offset), 0)
            self.add_unverifiable(deleted, _deleted(span.partition, earliest))
            self.missing += max(short - deleted, 0)

    def _compare_each(self, reader: ReadBack, state: TopicState) -> None:
        recorded = self._add_up()
        self.add_unverifiable(
            max(self._sent.acknowledged - recorded, 0), "not all sends of the run are in the spool any more"
        )
        keys = self._keys
        theirs: dict[int, int] = {}
        their_ids: dict[int, int] = {}
        for block in reader.records(_ranges(self._sent.partitions, state)):
            for partition, offset, key, message_id, size in block:
                if message_id is not None:
                    number = partition << 50 | offset >> BLOCK_BITS
                    if keys is not None:
                        their_ids[number] = their_ids.get(number, 0) + hash((offset, message_id, size))
                        key = keys.of_topic(key)
                    theirs[number] = theirs.get(number, 0) + hash((offset, key, message_id, size))
        ours = self._sums
        if keys is not None and keys.is_blind:
            ours, theirs = self._sums_of_ids, their_ids
            self.reasons.append(f"keys were compared by their message ids alone: {keys.problem}")
        different = sorted(b for b in ours.keys() | theirs.keys() if ours.get(b) != theirs.get(b))
        self._sums.clear()
        self._sums_of_ids.clear()
        for group in _groups(different):
            self._compare_group(reader, group)
        if self._extras or self._unplaced:
            self._look_up_extras()

    def _add_up(self) -> int:
        """Computes the checksums of the sends by block; returns how many are acknowledged."""
        recorded = 0
        sums, sums_of_ids, keys = self._sums, self._sums_of_ids, self._keys
        for segment in self._segments:
            blocks: set[int] = set()
            for partition, offset, key, message_id, size in _sends(segment, self._sent.run_id):
                if partition is None:
                    continue
                recorded += 1
                if offset is None:
                    self._unplaced += 1
                    continue
                number = partition << 50 | offset >> BLOCK_BITS
                if keys is not None:
                    sums_of_ids[number] = sums_of_ids.get(number, 0) + hash((offset, message_id, size))
                    key = keys.of_spool(key)
                sums[number] = sums.get(number, 0) + hash((offset, key, message_id, size))
                blocks.add(number)
            for number in blocks:
                self._segments_of_block.setdefault(number, []).append(segment)
        return recorded

    def _compare_group(self, reader: ReadBack, blocks: Sequence[int]) -> None:
        """Compares neighbouring blocks of one partition message by message."""
        partition = blocks[0] >> 50
        first = (blocks[0] & (1 << 50) - 1) << BLOCK_BITS
        stop = ((blocks[-1] & (1 << 50) - 1) + 1) << BLOCK_BITS
        wanted = {
            send[1]: send[2:]
            for segment in sorted({segment for block in blocks for segment in self._segments_of_block.get(block, ())})
            for send in _sends(segment, self._sent.run_id)
            if send[0] == partition and send[1] is not None and first <= send[1] < stop
        }
        span = next(span for span in self._sent.partitions if span.partition == partition)
        bounds = PartitionRange(
            span.topic, partition, max(first, span.first_offset), min(stop - 1, span.last_offset), len(wanted)
        )
        for block in reader.records(_ranges([bounds], self._describe())):
            for found in block:
                self._compare_one(found, wanted.pop(found[1], None))
        earliest = self._describe().partitions[partition].earliest
        deleted = [offset for offset in wanted if offset < earliest]
        self.add_unverifiable(len(deleted), _deleted(partition, earliest))
        for offset in sorted(wanted.keys() - deleted):
            self.missing += 1
            self._list("missing", partition, offset, wanted[offset][0])

    def _compare_one(self, found: Found, sent: tuple[bytes | None, bytes, int] | None) -> None:
        partition, offset, key, message_id, size = found
        if sent is None:
            if message_id is None:
                return
            if message_id in self._extras or len(self._extras) == MOST_EXTRAS:
                self.duplicates += 1
            else:
                self._extras[message_id] = found
        elif (message_id, size) != sent[1:] or not self._is_same_key(key, sent[0]):
            self.other_content += 1
            self._list("other_content", partition, offset, sent[0])

    def _is_same_key(self, found: bytes | None, sent: bytes | None) -> bool:
        if self._keys is None:
            return _as_kept(found) == sent
        if self._keys.is_blind:
            return True
        key = self._keys.of_topic(found)
        return key == NOT_COMPARED or key == self._keys.of_spool(sent)

    def _look_up_extras(self) -> None:
        """Classifies messages at offsets without a send: a second copy, or a send whose offset the broker did not report."""
        for segment in self._segments:
            for partition, offset, _, message_id, _ in _sends(segment, self._sent.run_id):
                if partition is None:
                    self._extras.pop(message_id, None)  # it was given up and arrived nevertheless: no second copy
                elif offset is None and self._extras.pop(message_id, None) is not None:
                    self._unplaced -= 1
        self.duplicates += len(self._extras)
        for partition, offset, key, _, _ in self._extras.values():
            self._list("duplicate", partition, offset, _as_kept(key))
        self.add_unverifiable(self._unplaced, WITHOUT_OFFSET)

    def _list(self, problem: str, partition: int, offset: int, key: bytes | None) -> None:
        if len(self.listed) < LISTED:
            text = None if key is None else key.decode("utf-8", "backslashreplace")
            self.listed.append(VerificationProblem(problem, partition, offset, text))  # type: ignore[arg-type]


def _sends(segment: Path, run_id: str) -> Iterator[StoredSend]:
    """Yields the sends of a run in a segment, in the order in which they ended."""
    for batch in sends_in(segment, run_id, COLUMNS).select(COLUMNS).to_batches(READ_AT_ONCE):
        columns = [batch.column(name) for name in COLUMNS]
        for at in (2, 3):
            columns[at] = columns[at].cast(pa.binary())
        yield from zip(*(column.to_pylist() for column in columns), strict=True)


def _as_kept(key: bytes | None) -> bytes | None:
    """Returns a key as the spool stores it: as text."""
    return None if key is None else key.decode("utf-8", "backslashreplace").encode()


def _proves_itself(span: PartitionRange, state: TopicState) -> bool:
    """Returns whether every offset of the span was acknowledged to this run and still exists: then it can hold nothing else."""
    now = state.partitions.get(span.partition)
    is_whole = span.count == span.last_offset - span.first_offset + 1
    return is_whole and now is not None and now.earliest <= span.first_offset and span.last_offset < now.end


def _ranges(spans: Iterable[PartitionRange], state: TopicState) -> Mapping[int, range]:
    """Returns the offsets of these spans that the topic holds, by partition."""
    held = ((span, state.partitions.get(span.partition)) for span in spans)
    return {
        span.partition: range(max(span.first_offset, now.earliest), min(span.last_offset + 1, now.end))
        for span, now in held
        if now is not None
    }


def _groups(blocks: Sequence[int]) -> Iterator[list[int]]:
    """Yields neighbouring blocks together, at most `BLOCKS_AT_ONCE`."""
    group: list[int] = []
    for block in blocks:
        if group and (block != group[-1] + 1 or len(group) == BLOCKS_AT_ONCE):
            yield group
            group = []
        group.append(block)
    if group:
        yield group


def _deleted(partition: int, earliest: int) -> str:
    return f"partition {partition} was deleted up to offset {earliest} (retention, or records deleted by hand)"
