"""Reads the settings of a topic: retention, compaction, size limits, each with the origin of its value."""

from __future__ import annotations

import time
from dataclasses import dataclass

from core.errors import ConfigError
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.model.connection import Cluster

__all__ = ["TopicSetting", "topic_settings"]


@dataclass(frozen=True, slots=True)
class TopicSetting:
    """One setting of a topic."""

    name: str
    value: str
    is_default: bool
    """True: the broker's default; it was not set for this topic."""


def topic_settings(cluster: Cluster, topic: str, *, timeout_s: float = 10.0) -> list[TopicSetting]:
    """Returns every setting of a topic, by name; those set for the topic come first.

    Raises:
        ConfigError: The cluster is a demo's, which exists only in the process of its run.
        BrokerUnavailable, NotAuthorised, TopicMissing: The settings cannot be read.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin._config import ConfigResource, ConfigSource  # admin uses them, its __all__ lacks them
    from confluent_kafka.admin._resource import ResourceType

    from core.kafka.admin_client import open_admin
    from core.kafka.librdkafka import translated

    if cluster.mock_brokers:
        raise ConfigError(f'topics of "{cluster.name}" have no settings', why="it is the broker of a demo")
    diagnosis = Diagnosis(cluster)
    client = open_admin(cluster, diagnosis, ClientLog(diagnosis, time.monotonic))
    wanted = ConfigResource(ResourceType.TOPIC, topic)
    try:
        found = client.describe_configs([wanted], request_timeout=timeout_s)[wanted].result()
    except KafkaException as failure:
        raise translated(diagnosis, failure.args[0], topic, None) from None
    own = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    settings = [
        TopicSetting(name, "***" if entry.is_sensitive else str(entry.value), entry.source != own)
        for name, entry in found.items()
    ]
    return sorted(settings, key=lambda setting: (setting.is_default, setting.name))
