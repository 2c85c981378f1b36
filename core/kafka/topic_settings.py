"""How a topic is set up on its cluster: retention, compaction, size limits, each with where the value comes from."""

from __future__ import annotations

from dataclasses import dataclass

from core.errors import ConfigError
from core.kafka.client_log import ClientLog
from core.kafka.diagnosis import Diagnosis
from core.kafka.librdkafka import client_config, translated
from core.model.connection import Cluster

__all__ = ["TopicSetting", "topic_settings"]


@dataclass(frozen=True, slots=True)
class TopicSetting:
    """One setting of a topic."""

    name: str
    value: str
    is_default: bool
    """The broker's own value; nobody set it for this topic."""


def topic_settings(cluster: Cluster, topic: str, *, timeout_s: float = 10.0) -> list[TopicSetting]:
    """Every setting of a topic, by name; those that somebody set come first.

    Raises:
        ConfigError: The cluster is a demo's, which lives inside the process of its run.
        BrokerUnavailable, NotAuthorised, TopicMissing: It cannot be asked for.
    """
    import time

    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.admin._config import ConfigResource, ConfigSource  # admin names them, its __all__ does not
    from confluent_kafka.admin._resource import ResourceType

    if cluster.mock_brokers:
        raise ConfigError(f'topics of "{cluster.name}" have no settings', why="it is the broker of a demo")
    diagnosis = Diagnosis(cluster)
    config = client_config(cluster) | {"error_cb": lambda error: diagnosis.hear(error.str())}
    client = AdminClient(config, logger=ClientLog(diagnosis, time.monotonic))
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
