"""Creates the topic of a job before its first run where the job says how, and compares it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from loguru import logger

from core.model.connection import Cluster
from core.model.job import NewTopic
from core.model.publisher import Publisher
from core.model.run import Plan

__all__ = ["topic_preparer"]


def topic_preparer(cluster: Cluster, plan: Plan) -> Callable[[Publisher], list[str]] | None:
    """Returns what a run calls before it looks for its topic; None: the job does not say how to create it.

    The function creates a missing topic. It returns how an existing one differs from the job, as warnings of the run.
    """
    wanted = plan.job.kafka_config.create_topic
    if wanted is None or cluster.mock_brokers:  # mock brokers create topics on first use, and only so
        return None
    return partial(_prepared, cluster, plan.topic, wanted)


def _prepared(cluster: Cluster, topic: str, wanted: NewTopic, publisher: Publisher) -> list[str]:
    try:
        from core.kafka.topic_creation import create_topic, topic_differences  # librdkafka, which may be missing
    except ImportError as error:
        return [f'topic "{topic}" is neither created nor compared with create_topic: {error}']
    found = next((info for info in publisher.topics() if info.name == topic), None)
    if found is not None:
        return topic_differences(cluster, found, wanted)
    if create_topic(cluster, topic, wanted):
        logger.info("topic {} created with {} partitions", topic, wanted.partitions)
    return []
