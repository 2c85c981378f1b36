"""One message read at its offset from a real broker."""

import pytest
from confluent_kafka import Producer

from core.errors import BrokerUnavailable, ConfigError, PsttError, TopicMissing
from core.kafka.record_reader import read_message
from core.model.connection import Cluster
from tests.rigs.waiting import until


@pytest.fixture
def cluster(kafka):
    return Cluster("rig", kafka.plaintext)


def sent(kafka, topic, count=3, **settings):
    """Messages 0 … on partition 0."""
    producer = Producer({"bootstrap.servers": kafka.plaintext, **settings})
    if "transactional.id" in settings:
        producer.init_transactions(30)
        producer.begin_transaction()
    for number in range(count):
        producer.produce(topic, f"v{number}".encode(), f"k{number}", partition=0, headers={"message_id": f"id{number}"})
    producer.flush(30)
    return producer


def test_the_message_at_that_offset_is_read_with_key_headers_and_time(kafka, cluster):
    topic = kafka.create_topic(partitions=2)
    sent(kafka, topic)
    message = read_message(cluster, topic, 0, 1)
    assert (message.key, message.value, dict(message.headers)) == (b"k1", b"v1", {"message_id": "id1"})
    assert (message.topic, message.partition, message.offset) == (topic, 0, 1)
    assert message.at is not None


def test_an_offset_beyond_the_end_says_so(kafka, cluster):
    topic = kafka.create_topic(partitions=1)
    sent(kafka, topic)
    with pytest.raises(PsttError, match="up to offset 2: "):
        read_message(cluster, topic, 0, 3)


def test_a_message_that_retention_removed_is_gone(kafka, cluster):
    topic = kafka.create_topic(partitions=1)
    sent(kafka, topic)
    kafka.delete_records(topic)
    with pytest.raises(PsttError, match="any more"):
        read_message(cluster, topic, 0, 1)


def test_a_message_of_an_aborted_transaction_is_not_there(kafka, cluster):
    topic = kafka.create_topic(partitions=1)
    producer = sent(kafka, topic, **{"transactional.id": f"reader-{topic}"})
    producer.abort_transaction(30)
    sent(kafka, topic)
    # The coordinator writes the end of a transaction a moment after it has promised it.
    until(lambda: "a transaction is open there still" not in problem_of(cluster, topic), "the transaction has ended")
    assert "aborted transaction" in problem_of(cluster, topic)


def problem_of(cluster, topic) -> str:
    with pytest.raises(PsttError) as failure:
        read_message(cluster, topic, 0, 1)
    return str(failure.value)


def test_a_topic_that_is_not_there_is_named(kafka, cluster):
    with pytest.raises(TopicMissing, match="no-such-topic"):
        read_message(cluster, "no-such-topic", 0, 0)


def test_a_broker_that_is_away_is_told_within_the_time():
    nobody = Cluster("away", "127.0.0.1:9")
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:9"):
        read_message(nobody, "any", 0, 0, timeout_s=1)


def test_a_demo_has_no_topic_to_read_again():
    with pytest.raises(ConfigError, match="inside the process"):
        read_message(Cluster("demo", "", mock_brokers=1), "any", 0, 0)
