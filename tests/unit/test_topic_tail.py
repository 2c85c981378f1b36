"""A topic that is followed: what comes is shown once, in bounded portions, over the command line as well."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from core.admin import topic_tail
from core.admin.message_query import MessageQuery
from core.admin.topic_tail import TopicTail
from core.cli.main import app
from core.errors import AccessRefused, ConfigError, TopicMissing
from core.kafka.mock_cluster import keep, resolved
from core.model.connection import Cluster
from core.records.rights import local_caller
from tests.rigs.callers import caller

CLUSTER = Cluster("a tail of a test", "", mock_brokers=1)
TOPIC = "followed"
ME = local_caller()


@pytest.fixture(scope="module")
def producer() -> Producer:
    made = Producer({"bootstrap.servers": resolved(CLUSTER).bootstrap_servers})
    send(made, range(3))
    return made


def send(producer: Producer, numbers: range) -> None:
    for n in numbers:
        producer.produce(TOPIC, json.dumps({"n": n}), f"key-{n}", partition=n % 2, timestamp=1_000 + n)
    assert producer.flush(30) == 0


def tail(**asked) -> TopicTail:
    return TopicTail(CLUSTER, TOPIC, MessageQuery(**asked), caller=ME)


def keys(turn) -> list[str]:
    return [message.key.text for message in turn.messages]


def test_each_new_message_is_shown_once_the_newest_first(producer):
    with tail() as followed:
        assert followed.turn().messages == ()
        send(producer, range(10, 13))
        assert keys(followed.turn()) == ["key-12", "key-11", "key-10"]
        assert followed.turn().messages == ()
        send(producer, range(13, 14))
        position = followed.position
    with TopicTail(CLUSTER, TOPIC, MessageQuery(), caller=ME, position=position) as later:
        assert keys(later.turn()) == ["key-13"]


def test_what_a_turn_has_no_room_for_is_counted_or_comes_in_the_next_one(producer):
    with tail(limit=2) as newest, tail(limit=2, newest_first=False) as oldest:
        send(producer, range(20, 25))
        turn = newest.turn()
        assert (keys(turn), turn.passed_over) == (["key-24", "key-23"], 3)
        assert newest.turn().messages == ()
        turns = [oldest.turn() for _ in range(3)]
        assert [keys(turn) for turn in turns] == [["key-20", "key-21"], ["key-22", "key-23"], ["key-24"]]
        assert sum(turn.passed_over for turn in turns) == 0


def test_a_turn_looks_through_a_bounded_number(producer, monkeypatch):
    monkeypatch.setattr(topic_tail, "EXAMINED", 8)
    with tail(where="n = 1000") as newest, tail(where="n = 1000", newest_first=False) as oldest:
        send(producer, range(1000, 1040))
        turn = newest.turn()
        assert (turn.messages, turn.examined + turn.passed_over) == ((), 40)
        assert 0 < turn.examined <= 16
        examined = [oldest.turn() for _ in range(10)]
    assert sum(turn.examined for turn in examined) == 40
    assert [keys(turn) for turn in examined if turn.messages] == [["key-1000"]]


def test_a_filter_and_partitions_choose_and_a_path_that_nothing_has_is_named(producer):
    with tail(where="n > 30 AND m = 1", partitions=(1,)) as followed:
        send(producer, range(30, 34))
        turn = followed.turn()
        assert (turn.messages, turn.examined, followed.missing) == ((), 2, ("m",))


def test_what_another_process_sends_to_the_brokers_of_a_demo_comes_too(tmp_path):
    # Each name has mock brokers of its own in this process, as another process would.
    here, there = (Cluster(name, "", mock_brokers=1, kept_in=tmp_path / "topics") for name in ("here", "there"))

    def send_there(*texts: str) -> None:
        producer = Producer({"bootstrap.servers": resolved(there).bootstrap_servers})
        for text in texts:
            producer.produce(TOPIC, text, text, 0)
        assert producer.flush(30) == 0
        assert keep(there) == len(texts)

    send_there("first")
    with TopicTail(here, TOPIC, MessageQuery(newest_first=False), caller=ME) as followed:
        assert followed.turn().messages == ()
        send_there("second", "third")
        assert keys(followed.turn()) == ["second", "third"]
        assert followed.turn().messages == ()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"first_offset": 0}, "followed from now on"),
        ({"rest": "0:0-1"}, "followed from now on"),
        ({"partitions": (9,)}, "no partition 9"),
        ({"where": "n ="}, "filter on the value"),
        ({"limit": 501}, "1 to 500"),
    ],
)
def test_what_cannot_be_followed_is_refused(producer, asked, says):
    with pytest.raises(ConfigError, match=says):
        tail(**asked)


def test_who_may_not_see_messages_and_a_topic_that_is_not_there_are_refused(producer):
    with pytest.raises(AccessRefused):
        TopicTail(CLUSTER, TOPIC, MessageQuery(), caller=caller("anna", "viewer"))
    with pytest.raises(TopicMissing):
        TopicTail(CLUSTER, "no-such-topic", MessageQuery(), caller=ME)


# ── the command line ──────────────────────────────────────────────────────────────────────────


@pytest.fixture
def command(tmp_path, producer, monkeypatch) -> Iterator[list[str]]:
    """A command whose topic gets two messages while it waits, and which is interrupted when it waits again."""
    cluster = {"name": CLUSTER.name, "mock_brokers": 1}
    document = {"default_environment": "test", "kafka_connections": {"test": cluster}, "connections": []}
    (tmp_path / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    waits = iter((range(50, 52),))

    def wait(seconds: float) -> None:
        if (numbers := next(waits, None)) is None:
            raise KeyboardInterrupt
        send(producer, numbers)

    monkeypatch.setattr("core.cli.follow.time.sleep", wait)
    return ["messages", TOPIC, "--follow", "--workspace", str(tmp_path)]


def test_the_command_shows_what_comes_until_it_is_interrupted(command):
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    assert "key-50" in first
    assert "key-51" in second
    assert "2 messages shown, 2 looked through" in done.stderr


def test_the_command_writes_a_document_a_line_and_ends_after_so_many(command):
    done = CliRunner().invoke(app, [*command, "--json", "--limit", "1"])
    assert [json.loads(line)["key"] for line in done.stdout.splitlines()] == ["key-50"]


@pytest.mark.parametrize("more", [["--oldest"], ["--at", "0@1"], ["--from-offset", "3"]])
def test_options_that_do_not_go_together_are_refused(command, more):
    assert isinstance(CliRunner().invoke(app, [*command, *more]).exception, ConfigError)
