"""Resets the offsets of a consumer group: first what would change, then the change, once, with its lines in the audit trail.

It makes another application read messages again or leave them out, so it is for admins, and refused while the group has
members: they would go on at their own offsets and commit those.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from core.admin.message_query import require_partitions
from core.admin.topic_messages import reachable
from core.clock import iso_utc
from core.errors import ConfigError
from core.model.connection import Cluster
from core.model.publisher import LogSpan
from core.records.ledger import Ledger
from core.records.rights import Caller, require

if TYPE_CHECKING:
    from core.kafka.group_offsets import GroupState

__all__ = ["GroupInUse", "GroupReset", "NoSuchGroup", "PartitionReset", "plan_reset", "reset_offsets"]

SHOWN_MEMBERS = 5
_OFFSET = re.compile(r"\d{1,18}")


class NoSuchGroup(ConfigError):
    """The cluster has no such consumer group."""


class GroupInUse(ConfigError):
    """The state of a consumer group does not allow to reset its offsets now."""


@dataclass(frozen=True, slots=True)
class PartitionReset:
    """What a reset does to one partition."""

    partition: int
    before: int | None
    """Offset of the next message that the group reads; None: it never committed one."""
    after: int
    earliest: int
    end: int
    """The offsets that the partition has now: from `earliest`, below `end`."""

    @property
    def again(self) -> int:
        """Messages that are read again."""
        return 0 if self.before is None else max(self.before - max(self.after, self.earliest), 0)

    @property
    def left_out(self) -> int:
        """Messages that are not read; where nothing was committed, those before the new offset."""
        begin = self.earliest if self.before is None else max(self.before, self.earliest)
        return max(self.after - begin, 0)


@dataclass(frozen=True, slots=True)
class GroupReset:
    """What a reset of a group changes."""

    cluster: str
    topic: str
    group: str
    to: str
    """As it was asked for."""
    partitions: tuple[PartitionReset, ...]
    """Every one that was asked for, also those that stay as they are."""

    @property
    def changed(self) -> tuple[PartitionReset, ...]:
        """The partitions whose offset changes."""
        return tuple(part for part in self.partitions if part.before != part.after)

    @property
    def again(self) -> int:
        """Messages that the group reads again."""
        return sum(part.again for part in self.partitions)

    @property
    def left_out(self) -> int:
        """Messages that the group does not read."""
        return sum(part.left_out for part in self.partitions)


def plan_reset(
    cluster: Cluster, topic: str, group: str, to: str, *, timezone: str, partitions: tuple[int, ...] = ()
) -> GroupReset:
    """Returns what a reset would change; changes nothing.

    Args:
        cluster: The topic's cluster.
        topic: Its name.
        group: The consumer group.
        to: `earliest`, `latest`, an offset such as `4711`, or an ISO 8601 time: the first message at or after it. An offset
            that a partition does not have becomes the nearest one.
        timezone: Of a time without an offset from UTC.
        partitions: Only these; empty: all.

    Raises:
        NoSuchGroup: The group does not exist, and has no offsets of the topic; or it is a mock broker.
        GroupInUse: It has members.
        ConfigError: `to` or a partition is not valid.
        TopicMissing: There is no such topic.
        BrokerUnavailable, NotAuthorised: The cluster cannot be asked.
    """
    from core.kafka.group_offsets import GroupOffsets  # loads confluent_kafka
    from core.kafka.topic_list import offsets_of_topic

    target = _target(to, timezone)
    if cluster.mock_brokers:
        raise NoSuchGroup(
            f"there is no consumer group {group} that has read {topic}",
            why="a mock broker does not list consumer groups",
            remedy="choose a cluster that has brokers",
        )
    there = reachable(cluster)
    spans = offsets_of_topic(there, topic)
    require_partitions(partitions, spans)
    chosen = {number: spans[number] for number in sorted(partitions or spans)}
    known = GroupOffsets(there, group, topic).state(sorted(spans))
    _require_free(group, topic, known)
    wanted = _wanted(there, topic, chosen, target)
    rows = [
        PartitionReset(number, known.committed.get(number), wanted[number], span.earliest, span.end)
        for number, span in chosen.items()
    ]
    return GroupReset(cluster.name, topic, group, to, tuple(rows))


def reset_offsets(ledger: Ledger, cluster: Cluster, plan: GroupReset, *, caller: Caller, now: datetime) -> GroupReset:
    """Sets the offsets of a plan, exactly as it was shown. Returns the plan.

    Args:
        ledger: Stores the audit lines; there is none where nothing changes.
        cluster: That of the plan.
        plan: What `plan_reset` returned.
        caller: Who wants it.
        now: The clock.

    Raises:
        AccessRefused: The caller is no admin.
        GroupInUse: The group has members now, or committed other offsets since; nothing is changed.
        NoSuchGroup: The group does not exist any more.
        BrokerUnavailable, NotAuthorised: The offsets cannot be set.
    """
    require(caller, "reset offsets")
    from core.kafka.group_offsets import GroupIsRead, GroupOffsets  # loads confluent_kafka

    if not plan.changed:
        return plan
    offsets = GroupOffsets(reachable(cluster), plan.group, plan.topic)
    known = offsets.state([part.partition for part in plan.partitions])
    _require_free(plan.group, plan.topic, known)
    if {part.partition: known.committed.get(part.partition) for part in plan.partitions} != {
        part.partition: part.before for part in plan.partitions
    }:
        raise GroupInUse(
            f"consumer group {plan.group} has committed other offsets since they were shown",
            remedy="check again what would change",
        )
    with ledger.audit.around(
        caller.name,
        "reset offsets",
        f"group {plan.group} of topic {plan.topic}",
        now,
        before={str(part.partition): part.before for part in plan.changed},
        after={"to": plan.to, **{str(part.partition): part.after for part in plan.changed}},
    ):
        try:
            offsets.set({part.partition: part.after for part in plan.changed})
        except GroupIsRead as error:
            raise GroupInUse(error.what, why=error.why, remedy="stop its consumers, then try again") from None
    return plan


def _target(text: str, timezone: str) -> str | int | datetime:
    """Returns `earliest`, `latest`, an offset or an aware time."""
    word = text.strip()
    if word in ("earliest", "latest"):
        return word
    if _OFFSET.fullmatch(word):
        return int(word)
    try:
        at = datetime.fromisoformat(word)
        aware = at if at.tzinfo else at.replace(tzinfo=ZoneInfo(timezone))
        iso_utc(aware)
    except (ValueError, OverflowError):
        raise ConfigError(
            f"{text[:60]!r} is nothing to which offsets are reset",
            remedy="write earliest, latest, an offset such as 4711, or a time such as 2026-01-17T02:00",
        ) from None
    return aware


def _wanted(cluster: Cluster, topic: str, spans: Mapping[int, LogSpan], target: str | int | datetime) -> dict[int, int]:
    from core.kafka.topic_reader import TopicReader  # loads confluent_kafka

    if isinstance(target, int):
        return {number: min(max(target, span.earliest), span.end) for number, span in spans.items()}
    if isinstance(target, str):
        return {number: span.earliest if target == "earliest" else span.end for number, span in spans.items()}
    with TopicReader(cluster, topic) as reader:
        found = reader.offsets_at(spans, target)
    return {number: span.end if found.get(number) is None else found[number] or 0 for number, span in spans.items()}


def _require_free(group: str, topic: str, known: GroupState) -> None:
    if known.members:
        names = ", ".join(sorted(set(known.members))[:SHOWN_MEMBERS])
        raise GroupInUse(
            f"consumer group {group} is in use",
            why=f"it has {len(known.members):,} members: {names}"
            if len(known.members) > 1
            else f"its member is {names}",
            remedy="stop its consumers, then try again",
        )
    if known.state == "dead" and not known.committed:
        raise NoSuchGroup(
            f"there is no consumer group {group} that has read {topic}",
            remedy=f"python -m core groups {topic} lists them",
        )
