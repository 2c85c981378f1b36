"""A Kafka client's own messages are in the log and in errors, never on the terminal."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rigs.kafka import KafkaRig

ROOT = Path(__file__).parents[2]
CLIENTS = {"Producer", "Consumer", "AdminClient"}
MAKERS = [file for folder in ("core", "ui", "bench") for file in sorted((ROOT / folder).rglob("*.py"))]

BEGINNING = """
import sys
from core.kafka.cluster_rights import cluster_rights
from core.kafka.clients import CLIENTS
from core.kafka.sender import Sender
from core.errors import PsttError
from core.model.connection import Cluster
from core.model.publisher import Batch, Delivery
from core.kafka import open_publisher
from core.kafka.record_reader import read_message
from core.kafka.topic_settings import topic_settings

servers = sys.argv[1]

def cluster(client="aiokafka", **changes):
    values = dict(client=client, enable_idempotence=CLIENTS[client].is_idempotent, delivery_timeout_ms=1500, request_timeout_ms=1000)
    return Cluster("lines", servers, **values | changes)

def batch(topic, number=1):
    return Batch(number, topic, [None] * 20, [b"v"] * 20, [b"%032x" % n for n in range(20)], range(1, 21))

def tried(work):
    try:
        return work()
    except PsttError as error:
        assert str(error)
"""

NOBODY = """
for client in CLIENTS:
    publisher = open_publisher(cluster(client))
    sender = Sender(publisher, max_retries=0, backoff_ms=1)
    tried(lambda: publisher.topics(0.5))
    tried(lambda: sender.submit(batch("t")))
    sender.drain(3)
    tried(lambda: sender.submit(batch("t", 2)))
    sender.give_up(0.1)
    publisher.close(0.1)
for client in ("aiokafka", "confluent"):
    once = open_publisher(cluster(client), transactional_id="lines")
    tried(lambda: once.topics(0.5))
    once.close(0.1)
tried(lambda: topic_settings(cluster(), "t", timeout_s=0.5))
tried(lambda: cluster_rights(cluster(), ["t"], timeout_s=0.5))
tried(lambda: read_message(cluster(), "t", 0, 0, timeout_s=0.5))
for client in CLIENTS:
    mock = open_publisher(cluster(client, mock_brokers=1))
    mock.topics()
    mock.close()
"""

THERE = """
from confluent_kafka import admin
topic = sys.argv[2]
for client in CLIENTS:
    publisher = open_publisher(cluster(client))
    sender = Sender(publisher, max_retries=0, backoff_ms=1)
    sender.submit(batch(topic))
    (delivery,) = sender.drain(20)
    assert len(delivery.errors) == 20
    publisher.close()
for client in ("aiokafka", "confluent"):
    publisher = open_publisher(cluster(client), transactional_id="lines")
    publisher.prepare_once("lines-control")
    publisher.read_control("lines-control", b"k")
    publisher.begin()
    sender = Sender(publisher, max_retries=0, backoff_ms=1)
    sender.submit(batch(topic))
    sender.drain(20)
    publisher.abort()
    publisher.close()
in_the_middle = open_publisher(cluster(linger_ms=1000))
in_the_middle.publish(Delivery.of(batch(topic)))
cluster_rights(cluster(), [topic])
tried(lambda: read_message(cluster(), topic, 0, 0, timeout_s=0.5))

# A client that ends with answers nobody took says so: "Purging 3 unserved events from background queue".
taken = admin.AdminClient.describe_configs
def often(self, *args, **options):
    for _ in range(20):
        taken(self, *args, **options)
    return taken(self, *args, **options)
admin.AdminClient.describe_configs = often
for _ in range(40):
    topic_settings(cluster(), topic)
"""


def lines_of(program: str, *words: str) -> str:
    """What the process writes to its file descriptors 1 and 2."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + program, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        cwd=ROOT,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_clients_that_find_no_broker_write_nothing_to_the_terminal():
    assert lines_of(NOBODY, "127.0.0.1:1") == ""


def test_clients_whose_records_are_refused_and_that_end_in_the_middle_write_nothing_to_the_terminal(kafka: KafkaRig):
    topic = kafka.create_topic(config={"cleanup.policy": "compact"})
    assert lines_of(THERE, kafka.plaintext, topic) == ""


@pytest.mark.parametrize("file", MAKERS, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_each_client_of_librdkafka_is_made_with_a_logger(file: Path):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    made = [
        call
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in CLIENTS
    ]
    without = [call.lineno for call in made if "logger" not in {keyword.arg for keyword in call.keywords}]
    assert without == [], "librdkafka writes to stderr by itself where it has no logger"
