"""Follows a topic: what has come since the turn before, bounded in work and memory; commits nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Self

from core.admin.message_query import MessageChoice, MessageQuery, require_partitions, require_sense
from core.admin.topic_messages import ReadableMessage, reachable, readable_message
from core.errors import ConfigError
from core.message.shown import asked_once
from core.model.connection import Cluster
from core.records.rights import RIGHT_TO_SEE, Caller, require_right
from core.run.schemas import schema_lookup

if TYPE_CHECKING:
    from core.kafka.topic_reader import TopicReader

__all__ = ["TailTurn", "TopicTail"]

EXAMINED = 20_000
"""Messages that one turn looks through."""
SECONDS = 5.0
"""The longest that one turn reads."""


@dataclass(frozen=True, slots=True)
class TailTurn:
    """What came since the turn before."""

    messages: tuple[ReadableMessage, ...]
    examined: int
    """How many messages were looked through."""
    passed_over: int
    """Offsets that came and were not looked through; always 0 with the oldest first, where the next turn goes on."""


class TopicTail:
    """Follows a topic from now on; use it in a `with` statement.

    With `newest_first` a turn shows the newest of what came, and passes over what it has no time for. With the oldest
    first nothing is passed over: a turn goes on where the one before ended.

    Args:
        cluster: The topic's cluster.
        topic: Its name.
        query: Which messages; `limit` is for a turn.
        caller: Who wants to see them.
        position: `position` of a tail before, where this one goes on; None: from now on.

    Raises:
        AccessRefused: The caller may not see messages.
        ConfigError: The query names offsets, times or a page, or a partition that is not there.
        TopicMissing: There is no such topic.
        BrokerUnavailable, NotAuthorised: The topic cannot be read.
    """

    def __init__(
        self,
        cluster: Cluster,
        topic: str,
        query: MessageQuery,
        *,
        caller: Caller,
        position: Mapping[int, int] | None = None,
    ) -> None:
        from core.kafka.topic_ends import TopicEnds  # loads confluent_kafka
        from core.kafka.topic_list import offsets_of_topic

        require_right(caller, RIGHT_TO_SEE["messages"])
        require_sense(query)
        if (query.first_offset, query.last_offset, query.since, query.until, query.rest) != (None,) * 4 + ("",):
            raise ConfigError(
                "a topic is followed from now on",
                why="offsets, times or a page were given",
                remedy="leave them out, or read without following",
            )
        self._lookup = asked_once(schema_lookup(cluster))
        self._choice = MessageChoice(query, self._lookup)
        self._query, self._topic, self._cluster, self._there = query, topic, cluster, reachable(cluster)
        if position is None:
            spans = offsets_of_topic(self._there, topic)
            require_partitions(query.partitions, spans)
        self._ends = TopicEnds(self._there, topic, position or query.partitions or spans)
        self._reader: TopicReader | None = None
        self.position: dict[int, int] = dict(position) if position is not None else self._ends.now()
        """Partition → offset of the next message that it reads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.__exit__(kind, error, trace)
            self._reader = None

    @property
    def missing(self) -> tuple[str, ...]:
        """Paths of the filter on the value that none of the messages has which were looked through."""
        return self._choice.missing

    def turn(self) -> TailTurn:
        """Reads what has come since the turn before.

        Raises:
            BrokerUnavailable, NotAuthorised, TopicMissing: The topic cannot be read; the next turn goes on from the same place.
        """
        from core.kafka.topic_reader import ReadLimits, TopicReader  # loads confluent_kafka

        if self._cluster.kept_in is not None:
            self._join_kept()
        ends = self._ends.now()
        new = {p: range(self.position[p], end) for p, end in ends.items() if end > self.position[p]}
        if not new:
            self.position = ends  # a topic that was made anew begins with 0 again
            return TailTurn((), 0, 0)
        if self._reader is None:
            self._reader = TopicReader(self._there, self._topic)
        page = self._reader.page(
            new,
            limits=ReadLimits(messages=self._query.limit, examined=EXAMINED, seconds=SECONDS),
            newest_first=self._query.newest_first,
            matches=None if self._choice.takes_all else self._choice,
        )
        passed_over = 0
        if self._query.newest_first:
            passed_over = sum(map(len, page.rest.values()))
        else:
            ends = ends | {partition: left.start for partition, left in page.rest.items()}
        self.position = ends
        return TailTurn(tuple(readable_message(m, self._lookup) for m in page.messages), page.examined, passed_over)

    def _join_kept(self) -> None:
        """Reads on where the demo's messages are now: another process has sent some, so its brokers were started anew."""
        from core.kafka.topic_ends import TopicEnds  # loads confluent_kafka

        there = reachable(self._cluster)
        if there != self._there:
            self.__exit__(None, None, None)
            self._there = there
            self._ends = TopicEnds(there, self._topic, self.position)
