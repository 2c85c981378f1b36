"""What a person may ask of a topic, over the command line as well: on librdkafka's mock brokers in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from core.admin.topic_messages import MessageQuery, browse, consumer_groups, message_at, message_of_run
from core.app import App
from core.cli.main import app
from core.errors import AccessRefused, ConfigError, PsttError, TopicMissing
from core.kafka.mock_cluster import resolved
from core.model.connection import Cluster
from core.model.run import PartitionRange
from core.records.rights import local_caller
from tests.rigs.callers import caller
from tests.unit.test_ledger import a_plan

CLUSTER = Cluster("messages of a test", "", mock_brokers=1)
TOPIC = "browsed"
ME = local_caller()
NOW = datetime(2026, 1, 17, 2, 0, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def filled() -> None:
    producer = Producer({"bootstrap.servers": resolved(CLUSTER).bootstrap_servers})
    producer.produce(TOPIC, None, "key-00", partition=0, timestamp=int(NOW.timestamp() * 1000) - 1)
    for n in range(20):
        value = json.dumps({"data": {"n": n}}, separators=(",", ":"))
        headers = {"message_id": f"id{n}", "run_id": "7f3c2", "job": "export"}
        at = int((NOW + timedelta(minutes=n)).timestamp() * 1000)
        producer.produce(TOPIC, value, f"key-{n:02}", partition=n % 2, headers=headers, timestamp=at)
    assert producer.flush(30) == 0


@pytest.fixture
def workspace(tmp_path):
    cluster = {"name": CLUSTER.name, "mock_brokers": 1, "default_topic": TOPIC}
    document = {"default_environment": "test", "kafka_connections": {"test": cluster}, "connections": []}
    (tmp_path / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    return tmp_path


def keys(**asked):
    return [m.key.text for m in browse(CLUSTER, TOPIC, MessageQuery(**asked), caller=ME).messages]


def test_the_newest_messages_come_first_and_the_rest_has_a_name():
    first = browse(CLUSTER, TOPIC, MessageQuery(limit=5), caller=ME)
    assert [m.key.text for m in first.messages] == [f"key-{n:02}" for n in range(19, 14, -1)]
    assert (first.end, first.left, first.is_mock) == ("full", 16, True)
    assert sum(span.end - span.earliest for span in first.spans.values()) == 21
    second = browse(CLUSTER, TOPIC, MessageQuery(limit=500, rest=first.next), caller=ME)
    assert len(second.messages) == 16
    assert (second.end, second.next, second.left) == ("end", "", 0)


def test_messages_are_chosen_by_key_value_partition_and_offset():
    assert keys(key="key-03") == ["key-03"]
    assert keys(key="key-0") == []
    assert keys(key="key-0", key_match="contains", newest_first=False)[1:4] == ["key-00", "key-01", "key-02"]
    assert keys(value='"n":17') == ["key-17"]
    assert keys(where="data.n > 16 AND data.n != 18") == ["key-19", "key-17"]
    assert keys(where="data.n = 7", key="key-08") == []
    assert keys(partitions=(1,), first_offset=2, last_offset=3) == ["key-07", "key-05"]
    assert keys(partitions=(2, 3)) == []


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"partitions": (0, 9)}, "no partition 9"),
        ({"first_offset": 5, "last_offset": 4}, "after offset 4"),
        ({"since": NOW, "until": NOW}, "time range is empty"),
        ({"since": NOW}, "does not find messages by their time"),
        ({"where": "data.n is 5"}, "filter on the value is not valid"),
        ({"limit": 0}, "1 to 500 messages"),
        ({"limit": 501}, "1 to 500 messages"),
        ({"rest": "0:1-2;1:3-4"}, "not named as the page before"),
        ({"rest": "9:1-2"}, "no partition 9"),
    ],
)
def test_what_cannot_be_meant_is_refused(asked, says):
    with pytest.raises(ConfigError, match=says):
        keys(**asked)


@pytest.mark.parametrize("rest", ["0:500-900", "0:7-3", "0:0-0,1:0-99999"])
def test_a_rest_that_somebody_wrote_stays_within_the_topic(rest):
    keys(rest=rest)


def test_whoever_may_not_see_messages_is_refused():
    viewer = caller("anna", "viewer")
    with pytest.raises(AccessRefused, match="anna may not do this"):
        browse(CLUSTER, TOPIC, MessageQuery(), caller=viewer)
    with pytest.raises(AccessRefused):
        message_at(CLUSTER, TOPIC, 0, 0, caller=viewer)


def test_one_message_is_read_whole_and_one_that_is_not_there_says_so():
    found = message_at(CLUSTER, TOPIC, 1, 2, caller=ME)
    assert (found.key.text, found.value.form, found.stored.header("job")) == ("key-05", "json", "export")
    with pytest.raises(PsttError, match=r"browsed-1 @ 10") as gone:
        message_at(CLUSTER, TOPIC, 1, 10, caller=ME)
    assert "will have offset 10" in gone.value.why
    with pytest.raises(TopicMissing):
        message_at(CLUSTER, "no-such-topic", 0, 0, caller=ME)


def test_the_brokers_of_a_demo_say_that_they_list_no_groups():
    found = consumer_groups(CLUSTER, TOPIC)
    assert (found.groups, found.note) == ((), "a mock broker does not list consumer groups")


def run(*words, given=0):
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == given, done.output
    return done.stdout


def test_the_command_line_shows_topics_messages_and_groups(workspace):
    there = ("--workspace", str(workspace))
    assert f"{TOPIC}     4 partitions                21 messages" in run("topics", "brow", *there)
    lines = run("messages", TOPIC, "--limit", "2", *there).splitlines()
    assert lines[0].startswith(f"{TOPIC} on {CLUSTER.name}   21 messages in 4 partitions")
    assert "1 @ 9   key-19" in lines[1]
    assert '{"data":{"n":19}}' in lines[1]
    assert "looked through" in lines[3]
    following = lines[4].split("--next ")[1]
    assert "key-17" in run("messages", TOPIC, "--limit", "2", "--next", following, *there)
    whole = run("messages", TOPIC, "--at", "1@9", *there)
    assert "header  message_id = id19" in whole
    misspelled = run("messages", TOPIC, "--where", "data.m = 3", *there)
    assert "looked through 21 messages: these are all" in misspelled
    assert "none of them has data.m" in misspelled
    assert "tombstone" in run("messages", TOPIC, "--oldest", "--limit", "1", *there)
    assert "does not list consumer groups" in run("groups", TOPIC, *there)


def test_the_documents_of_the_command_line_have_the_same(workspace):
    there = ("--json", "--workspace", str(workspace))
    topics = json.loads(run("topics", "brow", *there))
    assert topics["topics"] == [{"name": TOPIC, "partitions": 4, "replication": 1, "messages": 21}]
    found = json.loads(run("messages", TOPIC, "--key", "key-04", *there))
    (message,) = found["messages"]
    assert (message["key"], message["run_id"], message["value_format"]) == ("key-04", "7f3c2", "json")
    assert message["timestamp"] == "2026-01-17T02:04:00.000Z"
    assert {"name": "job", "value": "export"} in message["headers"]
    assert (found["bounded"], found["next"], found["examined"]) == (False, None, 21)
    assert json.loads(run("groups", TOPIC, *there))["groups"] == []


@pytest.mark.parametrize("word", ["list", "reset"])
def test_a_topic_may_be_called_as_a_command_is(workspace, word):
    done = CliRunner().invoke(app, ["groups", word, "--workspace", str(workspace)])
    assert isinstance(done.exception, TopicMissing)
    assert "does not list consumer groups" in run("groups", "list", TOPIC, "--workspace", str(workspace))


@pytest.mark.parametrize(
    ("to", "says"), [("latest", "does not list consumer groups"), ("yesterday", "nothing to which offsets are reset")]
)
def test_offsets_are_not_reset_to_what_is_no_place_or_on_mock_brokers(workspace, to, says):
    words = ["groups", "reset", TOPIC, "billing", "--to", to, "--yes", "--workspace", str(workspace)]
    assert says in str(CliRunner().invoke(app, words).exception)


def test_an_option_that_cannot_be_read_is_refused(workspace):
    there = ("--workspace", str(workspace))
    for words in (("--at", "4711"), ("--since", "yesterday"), ("--key", "a", "--key-contains", "b")):
        done = CliRunner().invoke(app, ["messages", TOPIC, *words, *there])
        assert isinstance(done.exception, ConfigError)


def test_keys_that_are_no_text_are_found_by_their_digits_and_those_with_a_schema_by_their_text():
    producer = Producer({"bootstrap.servers": resolved(CLUSTER).bootstrap_servers})
    for key in (b"\xfe\x01", "perché", b"\0\0\0\0\x07\x04ab"):
        producer.produce("keys", "v", key, partition=0)
    assert producer.flush(30) == 0

    def found(**asked):
        return [m.key.text for m in browse(CLUSTER, "keys", MessageQuery(**asked), caller=ME).messages]

    assert found(key="fe 01") == ["fe 01"]
    assert found(key="rch", key_match="contains") == ["perché"]
    assert found(key="ab", key_match="contains") == ["00 00 00 00 07 04 61 62"]


# ── the messages of a run ─────────────────────────────────────────────────────────────────────


@pytest.fixture
def a_run(workspace):
    """An opened workspace and a run, between whose messages there are those of other programs."""
    producer = Producer({"bootstrap.servers": resolved(CLUSTER).bootstrap_servers})
    topic = f"run-{workspace.name}"
    for partition, runs in ((0, "a-b-aa"), (2, "bab")):
        for n, run in enumerate(runs):
            headers = {"message_id": f"{partition}{n}", "run_id": run} if run != "-" else None
            producer.produce(topic, "{}", f"{partition}@{n}", partition=partition, headers=headers)
    assert producer.flush(30) == 0
    with App.open(workspace, {}, log=False) as opened:
        started = opened.ledger.start(a_plan(), NOW)
        ranges = (PartitionRange(topic, 0, 0, 5, 3), PartitionRange(topic, 2, 1, 1, 1))
        yield opened, replace(started, run_id="a", cluster=CLUSTER.name, partitions=ranges, acknowledged=4)


def steps(opened, run, place, step):
    """Returns the places of messages, one after the other in a direction, as buttons would go."""
    seen = []
    while True:
        found = message_of_run(opened, run, place, step=step if seen or step < 0 else 0, caller=ME)
        seen.append(found.message.key.text)
        place = found.message.stored.partition, found.message.stored.offset
        if not (found.has_next if step > 0 else found.has_previous):
            return seen


def test_the_messages_of_a_run_are_read_in_both_directions_past_those_of_others(a_run):
    opened, run = a_run
    assert steps(opened, run, None, 1) == ["0@0", "0@4", "0@5", "2@1"]
    assert steps(opened, run, (2, 2), -1) == ["2@1", "0@5", "0@4", "0@0"]
    first = message_of_run(opened, run, caller=ME)
    assert (first.number, first.has_previous, first.has_next) == (None, False, True)
    assert message_of_run(opened, run, (0, 1), caller=ME).message.key.text == "0@4"  # at an offset of another program


def test_the_place_of_a_message_among_those_of_its_run_is_counted_where_they_are_adjacent(a_run):
    opened, run = a_run
    topic = run.partitions[0].topic
    whole = replace(run, partitions=(PartitionRange(topic, 0, 4, 5, 2), PartitionRange(topic, 2, 1, 1, 1)))
    assert [message_of_run(opened, whole, place, caller=ME).number for place in ((0, 4), (0, 5), (2, 1))] == [1, 2, 3]


def test_a_run_whose_messages_are_not_there_says_why(a_run):
    opened, run = a_run
    for wrong, says in (
        (replace(run, run_id="c"), "no message of run c is on topic"),
        (replace(run, partitions=()), "has no messages on a topic"),
    ):
        with pytest.raises(PsttError, match=says):
            message_of_run(opened, wrong, caller=ME)
    with pytest.raises(PsttError, match="no later message of run a"):
        message_of_run(opened, run, (2, 1), step=1, caller=ME)
    with pytest.raises(AccessRefused):
        message_of_run(opened, run, caller=caller("anna", "viewer"))
