"""Reads a topic page by page, the newest messages first, or the oldest: what a person sees who browses it.

Nothing is committed and no group is joined. Work and memory are bounded: a page looks through a limited number of messages
for a limited time, and keeps only the beginning of large values.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate
from types import TracebackType
from typing import Any, Literal, Self

from confluent_kafka import (
    OFFSET_END,
    TIMESTAMP_LOG_APPEND_TIME,
    TIMESTAMP_NOT_AVAILABLE,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from core.errors import PsttError
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.late import NotReadInTime
from core.kafka.librdkafka import family_of, open_reader, translated
from core.model.connection import Cluster

__all__ = ["MessagePage", "PageEnd", "ReadLimits", "StoredMessage", "TopicReader"]

TURN_S = 0.1
FIRST_WINDOW = 16
"""Offsets of one partition that are read at first, while the size of its messages is not known."""
LARGEST_WINDOW = 20_000
WINDOW_BYTES = 32_000_000
"""About so much is read between two decisions whether the page is complete."""
AT_ONCE = 1_000
AT_ONCE_BYTES = 4_000_000
QUEUED_KBYTES = 8_192
"""What librdkafka prefetches."""

PageEnd = Literal["full", "end", "bound"]
"""Why a page ends: it is full; everything was read; so many messages were looked through, or so long."""
Matches = Callable[[bytes | None, bytes | None, Callable[[], Any]], bool]
"""(Key, value, function that returns the list of headers or None) → whether the message is wanted."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    """None: a tombstone. Shorter than `size_bytes` where it was too large to be kept."""
    size_bytes: int
    """Of the whole value."""
    headers: tuple[tuple[str, bytes | None], ...]
    """In their order; one name may occur several times."""
    at: datetime | None
    """The record's timestamp, UTC; None: it has none."""
    is_append_time: bool = False
    """The broker set the timestamp when it stored the record; False: its producer did."""

    @property
    def is_cut(self) -> bool:
        """Whether only the beginning of the value is here."""
        return self.value is not None and len(self.value) < self.size_bytes

    def header(self, name: str) -> str:
        """Returns the text of the last header with that name; empty if there is none."""
        values = [value for given, value in self.headers if given == name and value is not None]
        return values[-1].decode("utf-8", "replace") if values else ""


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much one page may read and keep."""

    messages: int = 50
    """On the page."""
    examined: int = 200_000
    """Messages that are looked through for it."""
    seconds: float = 10.0
    kept_bytes: int = 65_536
    """The largest value that is kept whole."""
    excerpt_bytes: int = 4_096
    """What is kept of a larger one."""
    page_bytes: int = 4_194_304
    """Once so many bytes are kept, only excerpts are."""


@dataclass(frozen=True, slots=True)
class MessagePage:
    """One page of a topic's messages."""

    messages: tuple[StoredMessage, ...]
    """By their timestamps; those of one partition always in the order of their offsets, whatever their timestamps are."""
    rest: Mapping[int, range]
    """Partition → offsets with which the next page begins; empty: there is no next one."""
    examined: int
    """How many messages were looked through."""
    end: PageEnd


class _Part:
    """What is left to read of one partition, and what was read of it and is not on the page yet."""

    def __init__(self, left: range, *, newest_first: bool) -> None:
        self.left = left
        self.found: deque[StoredMessage] = deque()
        self._times: deque[float] = deque()
        """Of each found message, the newest time of it and of those after it: a message with an old time, which a producer
        may set, does not hold back what is behind it. With the oldest first, the oldest time."""
        self._newest_first = newest_first

    def window(self, size: int) -> range:
        """Returns the offsets to read next."""
        if self._newest_first:
            return range(max(self.left.start, self.left.stop - size), self.left.stop)
        return range(self.left.start, min(self.left.stop, self.left.start + size))

    def add(self, window: range, found: Iterable[StoredMessage]) -> None:
        """Adds what a window has, which was read to its end."""
        if self._newest_first:
            self.left = range(self.left.start, window.start)
            self.found.extend(sorted(found, key=lambda message: -message.offset))
        else:
            self.left = range(window.stop, self.left.stop)
            self.found.extend(found)
        times = [message.at.timestamp() if message.at else 0.0 for message in reversed(self.found)]
        self._times = deque(accumulate(times, max if self._newest_first else min))
        self._times.reverse()

    @property
    def time(self) -> float:
        """Where the next message belongs among those of other partitions."""
        return self._times[0]

    def take(self) -> StoredMessage:
        """Removes the next message and returns it."""
        self._times.popleft()
        return self.found.popleft()

    @property
    def rest(self) -> range:
        """The offsets with which the next page begins."""
        if not self.found:
            return self.left
        if self._newest_first:
            return range(self.left.start, self.found[0].offset + 1)
        return range(self.found[0].offset, self.left.stop)


class TopicReader:
    """Reads one topic; use it in a `with` statement.

    Args:
        cluster: The topic's cluster; its mock brokers are started already.
        topic: Its name.
        clock: Monotonic seconds.
    """

    def __init__(self, cluster: Cluster, topic: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._clock = clock
        self._diagnosis = Diagnosis(cluster, clock=clock, use="read")
        self._mean_bytes = 0
        self._kept = 0
        settings = {
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",  # retention may delete while this reads
            "fetch.wait.max.ms": 50,
            "queued.max.messages.kbytes": QUEUED_KBYTES,
            "fetch.queue.backoff.ms": 5,
        }
        self._consumer = open_reader(cluster, self._diagnosis, ClientLog(self._diagnosis, clock), settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._consumer.close()

    def offsets_at(self, partitions: Iterable[int], at: datetime, timeout_s: float = 10.0) -> dict[int, int | None]:
        """Returns, by partition, the first offset whose timestamp is that time or later; None: there is none.

        Raises:
            BrokerUnavailable, NotAuthorised: The partitions cannot be asked.
        """
        milliseconds = round(at.timestamp() * 1000)
        places = [TopicPartition(self._topic, partition, milliseconds) for partition in partitions]
        try:
            found = self._consumer.offsets_for_times(places, timeout=timeout_s)
        except KafkaException as failure:
            raise translated(self._diagnosis, failure.args[0], self._topic, None) from None
        for place in found:
            if place.error is not None:
                raise translated(self._diagnosis, place.error, self._topic, None)
        return {place.partition: None if place.offset in (OFFSET_END, -1) else place.offset for place in found}

    def page(
        self,
        ranges: Mapping[int, range],
        *,
        limits: ReadLimits | None = None,
        newest_first: bool = True,
        matches: Matches | None = None,
    ) -> MessagePage:
        """Reads one page.

        Args:
            ranges: Partition → offsets; for a further page the `rest` of the one before.
            limits: How much it may read and keep.
            newest_first: Order of the messages.
            matches: Chooses messages; None: all.

        Raises:
            BrokerUnavailable, NotAuthorised, TopicMissing: The topic cannot be read.
        """
        limits = limits or ReadLimits()
        parts = {p: _Part(offsets, newest_first=newest_first) for p, offsets in ranges.items() if offsets}
        chosen: list[StoredMessage] = []
        examined, size, end = 0, FIRST_WINDOW, "full"
        deadline = self._clock() + limits.seconds
        self._kept = 0
        while len(chosen) < limits.messages:
            empty = {p: part for p, part in parts.items() if not part.found and part.left}
            if empty and (examined >= limits.examined or self._clock() >= deadline):
                end = "bound"
                break
            if empty:
                room = max((limits.examined - examined) // len(empty), 1)
                windows = {p: part.window(min(size, room)) for p, part in empty.items()}
                seen, complete = self._read(windows, parts, deadline, limits, matches)
                examined += seen
                if not complete and not examined:
                    raise self._nothing_in_time(limits.seconds)
                size = self._next_size(size, len(empty))
                if matches is None:
                    size = min(size, limits.messages)
                continue
            if (message := _next_of(parts, newest_first=newest_first)) is None:
                end = "end"
                break
            chosen.append(message)
        while len(chosen) < limits.messages and (message := _next_of(parts, newest_first=newest_first)):
            chosen.append(message)
        rest = {p: part.rest for p, part in parts.items() if part.rest}
        return MessagePage(tuple(chosen), rest, examined, end if rest else "end")  # type: ignore[arg-type]

    def _next_size(self, size: int, partitions: int) -> int:
        """Returns how many offsets of each of so many partitions are read next."""
        fitting = WINDOW_BYTES // max(self._mean_bytes * partitions, 1)
        return max(1, min(size * 4, fitting, LARGEST_WINDOW))

    def _read(
        self,
        windows: Mapping[int, range],
        parts: Mapping[int, _Part],
        deadline: float,
        limits: ReadLimits,
        matches: Matches | None,
    ) -> tuple[int, bool]:
        """Reads windows and adds what they have to their parts; one that is not read to its end in time counts as unread.

        Returns:
            How many messages were looked through, and whether all windows were read to their ends.
        """
        open_ends = {partition: window.stop for partition, window in windows.items()}
        found: dict[int, list[StoredMessage]] = {partition: [] for partition in windows}
        seen = dict.fromkeys(windows, 0)
        self._consumer.assign([TopicPartition(self._topic, p, window.start) for p, window in windows.items()])
        while open_ends and self._clock() < deadline:
            for message in self._poll():
                partition, offset = message.partition() or 0, message.offset() or 0
                if partition not in open_ends:
                    continue
                if (error := message.error()) is not None:
                    if self._is_end(error):
                        self._close(open_ends, partition)
                    continue
                window = windows[partition]
                if offset in window:
                    seen[partition] += 1
                    self._keep(message, found[partition], limits, matches)
                if offset >= window.stop - 1:
                    self._close(open_ends, partition)
            if self._diagnosis.is_hopeless:
                raise self._diagnosis.no_contact()
        complete = windows.keys() - open_ends.keys()
        for partition in complete:
            parts[partition].add(windows[partition], found[partition])
        return sum(seen[partition] for partition in complete), not open_ends

    def _poll(self) -> list[Message]:
        """Returns what has arrived; waits a moment for the first message."""
        try:
            first = self._consumer.poll(TURN_S)
            if first is None:
                return []
            at_once = min(AT_ONCE, AT_ONCE_BYTES // max(self._mean_bytes, len(first.value() or b""), 1))
            return [first, *self._consumer.consume(at_once, 0)] if at_once > 1 else [first]
        except KafkaException as failure:
            raise translated(self._diagnosis, failure.args[0], self._topic, None) from None

    def _close(self, open_ends: dict[int, int], partition: int) -> None:
        del open_ends[partition]
        self._consumer.incremental_unassign([TopicPartition(self._topic, partition)])

    def _is_end(self, error: KafkaError) -> bool:
        """Returns whether a partition has no more messages; raises what makes waiting useless."""
        if error.code() == KafkaError._PARTITION_EOF:
            return True
        # The group is never joined, so its rights do not matter.
        if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED or family_of(error) in ("late", "away", "busy"):
            return False
        raise translated(self._diagnosis, error, self._topic, None)

    def _keep(self, message: Message, found: list[StoredMessage], limits: ReadLimits, matches: Matches | None) -> None:
        key, value = _bytes(message.key()), _bytes(message.value())
        size = len(value or b"")
        # A quick mean that follows the sizes: the window has to fit into memory, not to be exact.
        self._mean_bytes = max(size, (self._mean_bytes * 7 + size) // 8)
        if matches is not None and not matches(key, value, message.headers):
            return
        given: Any = message.headers()  # a list of pairs; its stubs know a dict too
        headers: tuple[tuple[str, bytes | None], ...] = tuple(given or ())
        is_whole = size <= limits.kept_bytes and self._kept + size <= limits.page_bytes
        kept = value if is_whole or value is None else value[: limits.excerpt_bytes]
        self._kept += len(kept or b"")
        kind, milliseconds = message.timestamp()
        at = None if kind == TIMESTAMP_NOT_AVAILABLE else datetime.fromtimestamp(milliseconds / 1000, UTC)
        found.append(
            StoredMessage(
                self._topic,
                message.partition() or 0,
                message.offset() or 0,
                key,
                kept,
                size,
                headers,
                at,
                kind == TIMESTAMP_LOG_APPEND_TIME,
            )
        )

    def _nothing_in_time(self, waited_s: float) -> PsttError:
        if self._diagnosis.cause is not None:
            return self._diagnosis.no_contact(waited_s)
        return NotReadInTime(
            f'topic "{self._topic}" of {self._diagnosis.place} was not read in time',
            why=f"fewer than {FIRST_WINDOW} messages of a partition came within {waited_s:g} s",
            remedy="read one partition, or fewer messages",
        )


def _next_of(parts: Mapping[int, _Part], *, newest_first: bool) -> StoredMessage | None:
    """Takes the message that follows on the page; None: none has been read that is not on it."""
    heads = [part for part in parts.values() if part.found]
    if not heads:
        return None
    pick = max if newest_first else min
    return pick(heads, key=lambda part: part.time).take()


def _bytes(data: bytes | str | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data
