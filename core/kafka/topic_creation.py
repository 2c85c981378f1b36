"""Creates a topic as a job describes it, and compares an existing one with that; an existing topic is never changed."""

from __future__ import annotations

import time

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.cimpl import NewTopic as ClientTopic

from core.errors import ConfigError, NotAuthorised, PsttError
from core.kafka.admin_client import open_admin
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import translated
from core.kafka.topic_settings import topic_settings
from core.model.connection import Cluster
from core.model.job import NewTopic
from core.model.publisher import TopicInfo

__all__ = ["create_topic", "topic_differences"]

CREATE_S = 30.0
DEFAULT_REPLICATION = -1
"""The cluster's own default."""
_REFUSED = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
_WRONG = (
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
    KafkaError.POLICY_VIOLATION,
    KafkaError.TOPIC_EXCEPTION,
)


def create_topic(cluster: Cluster, topic: str, wanted: NewTopic, *, timeout_s: float = CREATE_S) -> bool:
    """Creates a topic and returns True; returns False if it exists, as another process may create it first.

    Args:
        cluster: A cluster with brokers: mock brokers create topics on first use only.
        topic: Its name.
        wanted: Its partitions, replicas and settings.
        timeout_s: For the whole call.

    Raises:
        NotAuthorised: This account may not create topics.
        ConfigError: The cluster refuses this topic; the text is the broker's.
        BrokerUnavailable: No broker answers.
    """
    diagnosis = Diagnosis(cluster)
    admin = open_admin(cluster, diagnosis, ClientLog(diagnosis, time.monotonic))
    replication = wanted.replication or DEFAULT_REPLICATION
    new = ClientTopic(topic, wanted.partitions, replication, config=dict(wanted.config))
    try:
        admin.create_topics([new], request_timeout=timeout_s)[topic].result(timeout_s + 1)
    except KafkaException as failure:
        error: KafkaError = failure.args[0]
        if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise _not_created(diagnosis, topic, error) from None
    return True


def topic_differences(cluster: Cluster, found: TopicInfo, wanted: NewTopic) -> list[str]:
    """Returns in which ways a topic is not as a job describes it, each as a sentence.

    Args:
        cluster: Its cluster; settings of topics on mock brokers are not compared.
        found: The topic as the cluster describes it.
        wanted: What `create_topic` of the job says.
    """
    values = {"partitions": (str(found.partitions), str(wanted.partitions))}
    if wanted.replication is not None:
        values["replication"] = str(found.replication), str(wanted.replication)
    unread = []
    if wanted.config and not cluster.mock_brokers:
        try:
            settings = {entry.name: entry.value for entry in topic_settings(cluster, found.name)}
        except PsttError as error:
            unread = [f'the settings of topic "{found.name}" cannot be compared with create_topic: {error.text}']
        else:
            values |= {name: (settings.get(name, "not a setting"), text) for name, text in wanted.config.items()}
    differing = [f"{name} is {own}, create_topic says {text}" for name, (own, text) in values.items() if own != text]
    return [f'topic "{found.name}": {difference}' for difference in differing] + unread


def _not_created(diagnosis: Diagnosis, topic: str, error: KafkaError) -> PsttError:
    what = f'topic "{topic}" cannot be created on {diagnosis.place}'
    if error.code() in _REFUSED:
        return NotAuthorised(
            what,
            why="the broker's access rules (ACL) say no, or hide an existing topic of this name",
            remedy="have it created, and Describe and Write on it given to this account; or have Create given",
        )
    if error.code() in _WRONG:
        return ConfigError(
            what, why=diagnosis.scrub(error.str()), remedy="correct kafka_config.create_topic", key="create_topic"
        )
    return translated(diagnosis, error, topic, None)
