"""Messages: topics, the messages of one, its groups, and the messages of a run; over REST as well."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import get_args

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from core.kafka.consumer_groups import ConsumerGroup, GroupLag
from core.kafka.mock_cluster import resolved
from core.model.connection import Cluster
from core.records.rights import Role
from tests.ui.conftest import SLY, Place, cells, is_harmless, words
from tests.ui.rest import bearer, client, token
from ui import access, data
from ui.data.failures import FailureMemory
from ui.data.find import find_sends
from ui.data.messages import failure_of, group_plan
from ui.views.messages.groups import lag_words

CLUSTER = Cluster("messages page", "", mock_brokers=1)
TOPIC = "seen"
TOPICS = "/api/kafka/topics"


@pytest.fixture(scope="module", autouse=True)
def filled() -> None:
    """Messages on the mock brokers of this process, which the page and REST read in these tests."""
    producer = Producer({"bootstrap.servers": resolved(CLUSTER).bootstrap_servers})
    for n in range(60):
        headers = {"message_id": f"id{n}", "run_id": "7f3c2", "job": SLY}
        producer.produce(TOPIC, json.dumps({"n": n, "note": SLY}), f"key-{n}", 0, headers=headers, timestamp=1000 + n)
    producer.produce(TOPIC, None, SLY, 1, timestamp=2000)
    producer.produce(TOPIC, b"\x00\xff\x01", b"\xfe\x00", 1, timestamp=2001, headers={"bytes": b"\xff"})
    producer.produce(TOPIC, b"[" + b"1234567890," * 90_000 + b"12345678901234567890]", "large", 2, timestamp=2002)
    producer.produce(TOPIC, '{"amount": 12345678901234567890.12}', "digits", 3, timestamp=2003)
    assert producer.flush(60) == 0


@pytest.fixture
def place(empty) -> Place:
    document = {
        "default_environment": "test",
        "kafka_connections": {"test": {"name": CLUSTER.name, "mock_brokers": 1}},
        "connections": [],
    }
    (empty.folder / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    data.clear_caches()
    return empty


def as_role(monkeypatch, role: Role) -> None:
    monkeypatch.setattr(access, "current_user", lambda: access.CurrentUser("maria", role))


def test_topics_are_listed_with_their_messages(place, see):
    app = see("messages")
    assert not app.exception
    row = app.dataframe[0].value.set_index("Topic").loc[TOPIC]
    assert (row["Messages"], row["Partitions"]) == (64, 4)
    app.text_input[0].set_value("no such name").run()
    assert "This account sees no topic like that" in words(app)


def test_messages_come_newest_first_in_pages(place, see):
    app = see("messages", topic=TOPIC)
    assert not app.exception
    keys = list(app.dataframe[0].value["Key"])
    assert (keys[0], keys[4], len(keys)) == ("digits", "key-59", 50)
    assert "14 more are left" in words(app)
    app.button(key="topic_next").click().run()
    assert list(app.dataframe[0].value["Key"])[-1] == "key-0"
    assert "These are all" in words(app)
    app.button(key="topic_back").click().run()
    assert list(app.dataframe[0].value["Key"]) == keys
    assert is_harmless(app)


def test_filters_choose_messages_and_what_contradicts_itself_is_said(place, see):
    app = see("messages", topic=TOPIC)
    app.text_input(key="topic_key").set_value("key-5").run()
    assert sorted(app.dataframe[0].value["Key"]) == ["key-5", *(f"key-5{n}" for n in range(10))]
    app.checkbox(key="topic_exact").check().run()
    assert list(app.dataframe[0].value["Key"]) == ["key-5"]
    app.text_input(key="topic_key").set_value("nothing").run()
    assert "No message is like that" in words(app)
    app.text_input(key="topic_partitions").set_value("one").run()
    assert "Partitions are numbers" in words(app)
    app.text_input(key="topic_partitions").set_value("7").run()
    assert "no partition 7" in words(app)


def test_a_message_is_shown_with_its_tree_and_headers_and_a_run_of_another_workspace_is_said(place, see):
    app = see("messages", topic=TOPIC, at="0@59")
    assert not app.exception
    assert json.loads(app.json[0].value) == {"n": 59, "note": SLY}
    assert all(text in cells(app) for text in ("message_id", "id59", "key-59"))
    assert "Run 7f3c2 is not one of this workspace" in words(app)
    assert "every send of this key" in words(app)
    assert is_harmless(app)


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        ("1@0", "A tombstone"),
        ("1@1", "00 ff 01"),
        ("2@0", "Only the beginning is shown; the download has all 990.0 kB"),
        ("3@0", "Numbers that a browser would round are shown as texts"),
        ("3@7", "there is no message at"),
        ("3@x", "The address does not name a message"),
    ],
)
def test_every_kind_of_message_can_be_shown(place, see, at, shown):
    app = see("messages", topic=TOPIC, at=at)
    assert not app.exception
    assert shown in words(app)
    assert sum(len(code.value) for code in app.code) <= 20_000
    assert ("12345678901234567890.12" in words(app)) == (at == "3@0")
    assert is_harmless(app)


def test_a_topic_that_is_not_there_and_groups_of_a_demo_are_said(place, see):
    assert "does not exist" in words(see("messages", topic="no-such-topic"))
    app = see("messages", topic=TOPIC)
    app.segmented_control(key="topic_part_messages").set_value("groups").run()
    assert "does not list consumer groups" in words(app)


@pytest.mark.parametrize("role", get_args(Role))
def test_only_operators_see_messages(place, see, monkeypatch, role):
    as_role(monkeypatch, role)
    assert TOPIC in cells(see("messages"))
    for asked in ({"topic": TOPIC}, {"topic": TOPIC, "at": "0@59"}):
        app = see("messages", **asked)
        assert not app.exception
        assert ("id59" in cells(app) or "key-59" in cells(app)) == (role != "viewer")


def test_a_followed_topic_shows_what_comes_at_the_top_until_it_is_left(place, see, monkeypatch):
    app = see("messages", topic="live", topic_where="n < 100")
    producer = Producer({"bootstrap.servers": resolved(CLUSTER).bootstrap_servers})

    def send(*numbers: int) -> None:
        for n in numbers:
            producer.produce("live", json.dumps({"n": n}), f"key-{n}", 0)
        assert producer.flush(60) == 0

    send(1)
    app.button(key="topic_again").click().run()
    app.toggle(key="topic_follow").set_value(True).run()
    assert not app.exception
    assert list(app.dataframe[0].value["Key"]) == ["key-1"]
    send(2, 300, 3)
    app.run()
    assert list(app.dataframe[0].value["Key"]) == ["key-3", "key-2", "key-1"]
    assert "2 new messages** · It looked through 3 messages" in words(app)
    app.text_input(key="topic_key").set_value("key-2").run()
    assert list(app.dataframe[0].value["Key"]) == ["key-2"]
    app.toggle(key="topic_follow").set_value(False).run()
    assert "These are all" in words(app)
    monkeypatch.setattr("ui.views.messages.follow.LASTS", timedelta(0))
    app.toggle(key="topic_follow").set_value(True).run()
    assert "Following has stopped by itself" in words(app)
    assert not app.toggle(key="topic_follow").value


def test_a_field_that_no_message_has_is_said(place, see):
    assert "None of these messages has **m**" in words(see("messages", topic=TOPIC, topic_where="m = 'X'"))
    assert "the filter on the value is not valid" in words(see("messages", topic=TOPIC, topic_where="m ="))


def test_a_cluster_that_does_not_answer_is_not_asked_again_until_the_button_is_used(place, see, monkeypatch):
    monkeypatch.setattr("ui.data.messages._failures", FailureMemory(3_600, data.now))
    file = place.folder / "connections.json"
    there = file.read_text(encoding="utf-8")
    document = json.loads(there)
    document["kafka_connections"]["test"] = {"name": "away", "bootstrap_servers": "127.0.0.1:1"}
    file.write_text(json.dumps(document), encoding="utf-8")
    data.clear_caches()
    app = see("messages")
    assert "away" in words(app)
    assert "it is asked again after 20 seconds" in words(app)
    first = failure_of("test")
    app.run()
    see("messages", topic=TOPIC, cluster="test")
    assert failure_of("test") is first is not None
    file.write_text(there, encoding="utf-8")
    app.run()
    assert "away" in words(app)
    app.button(key="try_again_test").click().run()
    assert TOPIC in cells(app)
    assert failure_of("test") is None


@pytest.mark.parametrize(
    ("parts", "sign"),
    [
        ((GroupLag(0, None, 9, 2), GroupLag(1, 5, 5)), "🟠"),  # seven messages of a partition that it never committed
        ((GroupLag(0, None, 9, 9), GroupLag(1, 5, 5)), "🟢"),  # there is nothing to read
        ((GroupLag(0, None, 9, 2), GroupLag(1, 3, 5)), "🟠 2 messages behind"),
    ],
)
def test_a_group_is_green_only_if_no_message_can_be_unread(parts, sign):
    assert lag_words(ConsumerGroup("billing", "empty", parts, ())).startswith(sign)


def test_the_offsets_of_a_group_are_reset_after_what_changes_was_shown(empty, see, kafka, monkeypatch):
    topic, group = kafka.create_topic(partitions=1), f"reset {SLY}"
    cluster = {"name": "real", "bootstrap_servers": kafka.plaintext}
    document = {"kafka_connections": {"real": cluster}, "default_environment": "real", "connections": []}
    (empty.folder / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    data.clear_caches()
    producer = Producer({"bootstrap.servers": kafka.plaintext})
    for n in range(5):
        producer.produce(topic, str(n), partition=0)
    assert producer.flush(60) == 0
    consumer = Consumer({"bootstrap.servers": kafka.plaintext, "group.id": group})
    consumer.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    consumer.close()
    as_role(monkeypatch, "operator")
    assert see("messages", topic=topic, part="groups").button(key="reset_group_0").disabled
    as_role(monkeypatch, "admin")
    app = see("messages", topic=topic, part="groups")
    app.button(key="reset_group_0").click().run()
    app.radio(key="reset_to").set_value("offset").run()
    app.number_input(key="reset_offset").set_value(1).run()
    app.button(key="reset_plan").click().run()
    assert not app.exception
    assert "2 messages are read again, 0 are left out" in words(app)
    assert group_plan("real", topic, group, "1").again == 2
    app.button(key="reset_do").click().run()
    assert not app.exception
    assert "4 messages behind" in words(app)
    assert group_plan("real", topic, group, "1").changed == ()
    assert is_harmless(app)


# ── over REST ─────────────────────────────────────────────────────────────────────────────────


def test_rest_pages_through_a_topic_and_reads_one_message(place):
    with client() as asked:
        (topic,) = asked.get(TOPICS, params={"search": "SEE", "counts": True}).json()["items"]
        assert (topic["name"], topic["messages"]) == (TOPIC, 64)
        assert asked.get(TOPICS, params={"search": "nothing"}).json()["total"] == 0
        first = asked.get(f"{TOPICS}/{TOPIC}/messages", params={"limit": 60, "value": '"note"'}).json()
        assert [m["key"] for m in first["messages"]] == [f"key-{n}" for n in range(59, -1, -1)]
        found = asked.get(f"{TOPICS}/{TOPIC}/messages", params={"where": "n >= 58 AND m IS NULL"}).json()
        assert [m["key"] for m in found["messages"]] == ["key-59", "key-58"]
        assert (found["examined"], found["missing"]) == (64, ["m"])
        oldest = {"limit": 2, "order": "oldest", "partition": [0, 3], "from_offset": 0, "to_offset": 5}
        page = asked.get(f"{TOPICS}/{TOPIC}/messages", params=oldest).json()
        after = asked.get(f"{TOPICS}/{TOPIC}/messages", params=oldest | {"next": page["next"]}).json()
        assert [m["key"] for m in (*page["messages"], *after["messages"])] == ["key-0", "key-1", "key-2", "key-3"]
        whole = asked.get(f"{TOPICS}/{TOPIC}/messages/2/0").json()
        assert (len(whole["value"]), whole["is_cut"]) == (990_022, False)
        listed = asked.get(f"{TOPICS}/{TOPIC}/messages", params={"partition": 2}).json()["messages"][0]
        assert (len(listed["value"]), listed["is_cut"], listed["size_bytes"]) == (4096, True, 990_022)
        assert asked.get(f"{TOPICS}/{TOPIC}/groups").json()["note"]


def test_rest_refuses_what_is_wrong_and_who_may_not(place):
    with client() as asked:
        for path, params, status in (
            ("no-such-topic/messages", {}, 404),
            ("no-such-topic/groups", {}, 404),
            (f"{TOPIC}/messages", {"cluster": "nowhere"}, 404),
            (f"{TOPIC}/messages", {"partition": 9}, 422),
            (f"{TOPIC}/messages", {"next": "x"}, 422),
            (f"{TOPIC}/messages", {"where": "n ="}, 422),
            (f"{TOPIC}/messages", {"limit": 501}, 422),
        ):
            assert asked.get(f"{TOPICS}/{path}", params=params).status_code == status, path
        reader, sender = (bearer(token(place.folder, scope)) for scope in ("read", "send"))
        for path in (f"{TOPIC}/messages", f"{TOPIC}/messages/0/0"):
            assert asked.get(f"{TOPICS}/{path}", headers=reader).status_code == 403
            assert asked.get(f"{TOPICS}/{path}", headers=sender).status_code == 200
        assert asked.get(f"{TOPICS}/{TOPIC}/groups", headers=reader).status_code == 200


# ── the messages of a run, and Find ───────────────────────────────────────────────────────────


def test_the_messages_of_a_run_follow_one_another(worked, see):
    run = worked.runs("export")[0]
    app = see("messages", run=run.run_id)
    assert not app.exception
    assert "Message **1** of **495**" in words(app)
    assert app.button(key="run_back").disabled
    first = cells(app)
    app.button(key="run_next").click().run()
    assert "Message **2** of **495**" in words(app)
    second = cells(app)
    assert second != first
    app.button(key="run_back").click().run()
    assert "Message **1** of **495**" in words(app)
    last = max((part.partition, part.last_offset) for part in run.partitions)
    app = see("messages", run=run.run_id, at=f"{last[0]}@{last[1]}")
    assert "Message **495** of **495**" in words(app)
    assert app.button(key="run_next").disabled
    assert is_harmless(app)


def test_find_shows_the_scheduled_time_and_opens_the_send_of_its_address(worked, see):
    sends = find_sends("572680000123").sends
    app = see("find", key="572680000123")
    assert all(re.fullmatch(r"\d+ \w+ \d{4} 02:00", text) for text in app.dataframe[0].value["Scheduled"])
    assert "Equal:" not in words(app)
    send = sends[1]
    name = f"{send['run_id']}.{send['partition']}.{send['offset']}.{send['attempt']}"
    app = see("find", key="572680000123", send=name)
    assert "Equal:" in words(app)
    assert send["run_id"] in words(app)
    (found, *_) = worked.command("find", "572680000123")["sends"]
    assert found["scheduled_at"].endswith("Z")
