"""Lists the topics of a cluster with their message counts, and the offsets of one topic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec, TopicMetadata  # type: ignore[attr-defined]

from core.errors import TopicMissing
from core.kafka.admin_client import open_admin
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import client_config, translated
from core.kafka.topic_state import describe_topic
from core.model.connection import Cluster
from core.model.publisher import LogSpan

__all__ = ["TopicSummary", "list_topics", "offsets_of_topic"]

INTERNAL = "__"
"""Kafka's own topics begin so; they are listed only if they are asked for."""
CONTACT_S = 5.0
"""How long the first response is waited for: a person waits."""


@dataclass(frozen=True, slots=True)
class TopicSummary:
    """One topic of a list."""

    name: str
    partitions: int
    replication: int
    messages: int | None
    """End minus begin of its partitions: records that were removed by compaction, and the ends of transactions, are
    counted too. None: a partition has no leader, or this account may not read its offsets."""


def list_topics(
    cluster: Cluster,
    text: str = "",
    *,
    limit: int = 100,
    offset: int = 0,
    timeout_s: float = CONTACT_S,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[list[TopicSummary], int]:
    """Returns one page of the topics that this account may see, by name, and how many there are on all pages.

    Args:
        cluster: Its mock brokers are started already.
        text: A part of the name, in any case; empty: all but Kafka's own.
        limit: The most topics on the page.
        offset: Topics on the pages before.
        timeout_s: For each of two requests.
        clock: Monotonic seconds.

    Raises:
        BrokerUnavailable, NotAuthorised: The cluster cannot be asked.
    """
    diagnosis = Diagnosis(cluster, clock=clock, use="read")
    admin = open_admin(cluster, diagnosis, ClientLog(diagnosis, clock))
    known = _metadata(admin, diagnosis, timeout_s, clock)
    wanted = text.strip().lower()
    names = sorted(name for name in known if wanted in name.lower() and (wanted or not name.startswith(INTERNAL)))
    shown = names[offset : offset + limit]
    counts = _counts(admin, {name: list(known[name].partitions) for name in shown}, timeout_s)
    return [_summary(known[name], counts[name]) for name in shown], len(names)


def offsets_of_topic(
    cluster: Cluster, topic: str, *, timeout_s: float = CONTACT_S, clock: Callable[[], float] = time.monotonic
) -> Mapping[int, LogSpan]:
    """Returns, by partition, the offsets that a topic has now.

    Args:
        cluster: Its mock brokers are started already.
        topic: Its name. It is never created.
        timeout_s: In total.
        clock: Monotonic seconds.

    Raises:
        TopicMissing: It does not exist, or this account may not see it.
        BrokerUnavailable, NotAuthorised: The cluster cannot be asked.
    """
    diagnosis = Diagnosis(cluster, clock=clock, use="read")
    log = ClientLog(diagnosis, clock)
    if cluster.mock_brokers:
        # Naming a topic in a request would create it on mock brokers.
        admin = AdminClient(client_config(cluster), logger=log)
        if topic not in _metadata(admin, diagnosis, timeout_s, clock):
            raise _missing(topic, diagnosis)
    found = describe_topic(cluster, diagnosis, log, topic, timeout_s, clock).partitions
    if not found:
        raise _missing(topic, diagnosis)
    return found


def _metadata(
    admin: AdminClient, diagnosis: Diagnosis, timeout_s: float, clock: Callable[[], float]
) -> Mapping[str, TopicMetadata]:
    deadline = clock() + timeout_s
    while True:
        try:
            found: Mapping[str, TopicMetadata] = admin.list_topics(timeout=1.0).topics
            return found
        except KafkaException as failure:
            error = failure.args[0]
        admin.poll(0)  # delivers what the client reports about the brokers
        if diagnosis.is_hopeless or clock() >= deadline:
            if error.retriable() or error.code() < 0:
                raise diagnosis.no_contact(timeout_s)
            raise translated(diagnosis, error, "", None)


def _counts(admin: AdminClient, partitions: Mapping[str, Sequence[int]], timeout_s: float) -> dict[str, int | None]:
    """Returns the messages of each topic; all are asked for in two requests."""
    places = [TopicPartition(name, number) for name, numbers in partitions.items() for number in numbers]
    if not places:
        return dict.fromkeys(partitions)
    earliest, latest = (
        _answers(admin, places, spec, timeout_s)
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
    )
    counts: dict[str, int | None] = {}
    for name, numbers in partitions.items():
        spans = [(earliest.get((name, number)), latest.get((name, number))) for number in numbers]
        known = [end - begin for begin, end in spans if begin is not None and end is not None]
        counts[name] = sum(known) if len(known) == len(spans) else None
    return counts


def _answers(
    admin: AdminClient, places: Iterable[TopicPartition], spec: OffsetSpec, timeout_s: float
) -> dict[tuple[str, int], int]:
    asked = admin.list_offsets({place: spec for place in places}, request_timeout=timeout_s)
    found = {}
    for place, answer in asked.items():
        try:
            found[place.topic, place.partition] = answer.result(timeout_s + 1).offset
        except KafkaException:  # no leader, or no right: the others are counted all the same
            continue
    return found


def _summary(topic: TopicMetadata, messages: int | None) -> TopicSummary:
    replicas = max((len(partition.replicas) for partition in topic.partitions.values()), default=0)
    return TopicSummary(str(topic.topic), len(topic.partitions), replicas, messages)


def _missing(topic: str, diagnosis: Diagnosis) -> TopicMissing:
    return TopicMissing(
        f'topic "{topic}" does not exist on {diagnosis.place}',
        why="or this account has no right to see it",
        remedy="python -m core topics lists the topics that it may see",
    )
