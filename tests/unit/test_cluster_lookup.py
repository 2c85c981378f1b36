"""Which cluster has an older message: by its id, else by its addresses, else by its name."""

import pytest

from core.kafka.cluster_lookup import cluster_of, unknown_cluster
from core.model.connection import Cluster, Destination

ONE = Cluster("Kafka Collaudo", "a1.example.com:9092,a2.example.com:9092")
TWO = Cluster("Kafka Produzione", "b.example.com:9093")
DEMO = Cluster("Demo", "127.0.0.1:1", mock_brokers=1)
IDS = {"Kafka Collaudo": "id-one", "Kafka Produzione": "id-two"}
SENT = Destination("Kafka Collaudo", "id-one", ONE.bootstrap_servers)


def found(sent_to, clusters=(DEMO, TWO, ONE), ids=None, answers=IDS):
    cluster = cluster_of(sent_to, clusters, ids or {}, lambda asked: answers.get(asked.name, ""))
    return cluster and cluster.name


@pytest.mark.parametrize(
    ("sent_to", "name"),
    [
        (SENT, "Kafka Collaudo"),
        (Destination("an old name", "id-one", "gone.example.com:9092"), "Kafka Collaudo"),
        (
            Destination("Kafka Collaudo", "id-two", ONE.bootstrap_servers),
            "Kafka Produzione",
        ),  # the addresses were taken over by the other one
        (Destination("an old name", "", "A2.example.com:9092, a3.example.com:9092"), "Kafka Collaudo"),
        (Destination("Kafka Collaudo", "", "b.example.com:9093"), "Kafka Produzione"),  # addresses before the name
        (Destination("Kafka Produzione"), "Kafka Produzione"),
        (Destination("Demo", "mock", "127.0.0.1:2"), "Demo"),
        (
            Destination("Kafka Collaudo", "id-three", ONE.bootstrap_servers),
            None,
        ),  # another cluster has that address now
        (Destination("an old name"), None),
        (Destination(), None),
    ],
)
def test_the_cluster_of_a_message_is_found(sent_to, name):
    assert found(sent_to) == name


def test_one_that_does_not_answer_is_believed_by_its_addresses_or_its_last_known_id():
    assert found(SENT, answers={"Kafka Produzione": "id-two"}) == "Kafka Collaudo"
    moved = Destination("an old name", "id-one", "gone.example.com:9092")
    assert found(moved, answers={}) is None
    assert found(moved, answers={}, ids={ONE.bootstrap_servers: "id-one"}) == "Kafka Collaudo"
    assert found(SENT, answers={}, ids={ONE.bootstrap_servers: "id-new"}) is None


def test_the_likeliest_is_asked_first():
    asked = []
    cluster_of(SENT, [TWO, ONE], {}, lambda cluster: asked.append(cluster.name) or "id-one")
    assert asked == ["Kafka Collaudo"]


def test_one_that_is_none_of_them_is_described_by_what_is_known_of_it():
    error = unknown_cluster(SENT)
    assert error.why == (
        'it was then called "Kafka Collaudo" and reached at a1.example.com:9092,a2.example.com:9092 and with the id id-one'
    )
    assert "kafka_connections" in error.remedy
    assert "neither its name nor its addresses" in unknown_cluster(Destination()).why
