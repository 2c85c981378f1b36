"""Reads the present state of a topic through librdkafka's admin client: its id, its partitions and their offsets.

The producer itself does not return a topic's id, and would create a missing topic by asking for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec, ResourceType  # type: ignore[attr-defined]

from core.kafka.admin_client import open_admin
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import client_config, family_of, translated
from core.model.connection import Cluster
from core.model.publisher import LogSpan, TopicState

__all__ = ["describe_topic", "is_compacted"]

BEING_MADE_S = 3.0
"""A topic that was just created is unknown to some brokers for a moment, like one that does not exist."""
TURN_S = 0.1
"""Between two attempts."""
NO_ID = "AAAAAAAAAAAAAAAAAAAAAA"
"""The id that brokers older than 2.8 report, which have none: sixteen zero bytes."""
PASSING = frozenset({"late", "away", "busy", "topic"})
"""Families of errors after which the same request may succeed a moment later."""


def describe_topic(
    cluster: Cluster,
    diagnosis: Diagnosis,
    log: ClientLog,
    topic: str,
    timeout_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> TopicState:
    """Returns ids and offsets of a topic; one that does not exist has no partitions.

    Args:
        cluster: Its cluster; mock brokers are started already.
        diagnosis: Creates the errors.
        log: Receives the client's log lines.
        topic: Its name.
        timeout_s: In total.
        clock: Monotonic seconds.

    Raises:
        BrokerUnavailable, NotAuthorised: The state cannot be read.
    """
    admin = open_admin(cluster, diagnosis, log)
    deadline = clock() + timeout_s
    being_made = min(deadline, clock() + BEING_MADE_S)
    while True:
        left_s = max(deadline - clock(), 0.5)
        try:
            if cluster.mock_brokers:
                return _of_mock(admin, cluster, topic, left_s)
            return _described(admin, cluster, topic, left_s)
        except KafkaException as failure:
            error: KafkaError = failure.args[0]
        family = "busy" if error.code() == KafkaError._NOENT else family_of(error)  # no leader at the moment
        if family == "topic" and clock() >= being_made:
            return TopicState(topic, _cluster_id(admin, left_s), cluster.bootstrap_servers)
        if family not in PASSING:
            raise translated(diagnosis, error, topic, None)
        if diagnosis.is_hopeless or clock() >= deadline:
            raise diagnosis.no_contact(timeout_s) if family in ("late", "away") else diagnosis.busy(topic, error.str())
        admin.poll(TURN_S)


def is_compacted(cluster: Cluster, log: ClientLog, topic: str, timeout_s: float = 10.0) -> bool:
    """Returns True if the broker removes older messages of a key; False also if this account may not read the settings."""
    if cluster.mock_brokers:
        return False
    admin = AdminClient(client_config(cluster), logger=log)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        found = admin.describe_configs([resource], request_timeout=timeout_s)[resource].result(timeout_s + 1)
    except KafkaException:
        return False
    return "compact" in str(found["cleanup.policy"].value)


def _described(admin: AdminClient, cluster: Cluster, topic: str, timeout_s: float) -> TopicState:
    asked = admin.describe_topics(TopicCollection([topic]), request_timeout=timeout_s)[topic]
    cluster_id = _cluster_id(admin, timeout_s)
    found = asked.result(timeout_s + 1)
    spans = _spans(admin, topic, [partition.id for partition in found.partitions], timeout_s)
    topic_id = str(found.topic_id)
    return TopicState(topic, cluster_id, cluster.bootstrap_servers, "" if topic_id == NO_ID else topic_id, spans)


def _of_mock(admin: AdminClient, cluster: Cluster, topic: str, timeout_s: float) -> TopicState:
    """Mock brokers have no controller, so a describe request would never be answered.

    Their cluster has another id in each process, which does not identify the one of a demo.
    """
    found = admin.list_topics(topic, timeout=timeout_s)
    spans = _spans(admin, topic, found.topics[topic].partitions, timeout_s)
    cluster_id = "" if cluster.kept_in else found.cluster_id or ""
    return TopicState(topic, cluster_id, cluster.bootstrap_servers, "", spans)


def _cluster_id(admin: AdminClient, timeout_s: float) -> str:
    found = admin.describe_cluster(request_timeout=timeout_s).result(timeout_s + 1)
    return found.cluster_id or ""


def _spans(admin: AdminClient, topic: str, partitions: Iterable[int], timeout_s: float) -> dict[int, LogSpan]:
    places = [TopicPartition(topic, number) for number in partitions]
    if not places:
        return {}
    asked = [
        admin.list_offsets({place: spec for place in places}, request_timeout=timeout_s)
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
    ]
    earliest, ends = (
        {place.partition: answer.result(timeout_s + 1).offset for place, answer in answers.items()} for answers in asked
    )
    return {number: LogSpan(earliest[number], ends[number]) for number in sorted(ends)}
