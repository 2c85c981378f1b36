"""What only a real broker has: transactions, consumer groups, times, a registry, rights."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from core.admin.group_offsets import GroupInUse, NoSuchGroup, plan_reset, reset_offsets
from core.admin.topic_messages import MessageQuery, browse, consumer_groups, message_at
from core.admin.topic_tail import TopicTail
from core.cli.message_lines import group_lines
from core.kafka.group_offsets import GroupIsRead, GroupOffsets
from core.kafka.schema_registry import RegistryClient
from core.model.connection import Cluster, SchemaRegistry
from core.model.schema import Schema
from core.records.ledger import Ledger
from core.records.rights import local_caller
from tests.rigs.waiting import until

ME = local_caller()


@pytest.fixture
def cluster(kafka):
    return Cluster("rig", kafka.plaintext)


def send(kafka, topic, *values, partition=0, **message):
    producer = Producer({"bootstrap.servers": kafka.plaintext})
    for value in values:
        producer.produce(topic, value, partition=partition, **message)
    assert producer.flush(30) == 0


def values(cluster, topic, **asked):
    return [m.value.text for m in browse(cluster, topic, MessageQuery(**asked), caller=ME).messages]


def group_names(kafka):
    admin = AdminClient({"bootstrap.servers": kafka.plaintext})  # its answers never come once it is collected
    listed = admin.list_consumer_groups().result(30)
    return {group.group_id for group in listed.valid}


def test_what_a_transaction_has_not_committed_is_not_shown(kafka, cluster):
    topic = kafka.create_topic(partitions=1)
    producer = Producer({"bootstrap.servers": kafka.plaintext, "transactional.id": f"browser-{topic}"})
    producer.init_transactions(30)
    for end, value in ((producer.commit_transaction, "kept"), (producer.abort_transaction, "given up")):
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        producer.flush(30)
        end(30)
    producer.begin_transaction()
    producer.produce(topic, "open", partition=0)
    producer.flush(30)
    assert values(cluster, topic) == ["kept"]
    assert values(cluster, topic, newest_first=False) == ["kept"]
    producer.abort_transaction(30)
    send(kafka, topic, "last")
    until(lambda: values(cluster, topic) == ["last", "kept"], "the transaction has ended")


def test_a_range_of_time_is_read(kafka, cluster):
    topic = kafka.create_topic(partitions=2)
    begin = datetime(2026, 1, 17, 2, 0, tzinfo=UTC)
    for n in range(10):
        at = int((begin + timedelta(minutes=n)).timestamp() * 1000)
        send(kafka, topic, f"v{n}", partition=n % 2, timestamp=at)
    since, end = begin + timedelta(minutes=3), begin + timedelta(minutes=6)
    assert values(cluster, topic, since=since, until=end) == ["v5", "v4", "v3"]
    assert values(cluster, topic, since=begin + timedelta(minutes=8)) == ["v9", "v8"]
    assert values(cluster, topic, since=begin + timedelta(days=1)) == []
    assert values(cluster, topic, until=begin) == []


def test_groups_have_lag_and_members_and_nothing_of_ours_is_among_them(own_kafka):
    kafka = own_kafka()  # no other test makes groups there
    cluster = Cluster("rig", kafka.plaintext)
    topic = kafka.create_topic(partitions=2)
    send(kafka, topic, *"abcde")
    send(kafka, topic, "x", "y", partition=1)
    reading = f"reading-{topic}"
    settings = {"bootstrap.servers": kafka.plaintext, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    done = Consumer(settings | {"group.id": f"done-{topic}"})
    done.commit(offsets=[TopicPartition(topic, 0, 3)], asynchronous=False)
    done.close()
    member = Consumer(settings | {"group.id": reading, "client.id": "one of ours"})
    try:
        member.subscribe([topic])
        until(lambda: member.poll(0.1) is not None, "it reads")
        before = group_names(kafka)
        values(cluster, topic)
        found = consumer_groups(cluster, topic)
    finally:
        member.close()
    assert group_names(kafka) == before  # looking at messages makes no group
    assert [group.name for group in found.groups] == [f"done-{topic}", reading]
    behind, never = found.groups
    assert (behind.lag, behind.state, behind.members) == (2, "empty", ())
    assert [(part.committed, part.lag) for part in behind.partitions] == [(3, 2), (None, None)]
    assert behind.uncommitted == 2
    assert any("2 messages in partitions without a committed offset" in line for line in group_lines(topic, found))
    assert (never.lag, never.never_committed, never.state) == (None, True, "stable")
    assert [(m.client_id, m.partitions) for m in never.members] == [("one of ours", (0, 1))]


def test_a_followed_topic_shows_what_a_transaction_has_committed_and_nothing_before(kafka, cluster):
    topic = kafka.create_topic(partitions=1)
    send(kafka, topic, "before")
    with TopicTail(cluster, topic, MessageQuery(), caller=ME) as tail:
        producer = Producer({"bootstrap.servers": kafka.plaintext, "transactional.id": f"tail-{topic}"})
        producer.init_transactions(30)
        producer.begin_transaction()
        producer.produce(topic, "in a transaction", partition=0)
        producer.flush(30)
        assert tail.turn().messages == ()
        producer.commit_transaction(30)
        found = []
        until(lambda: found.extend(m.value.text for m in tail.turn().messages) or found, "it is committed")
        assert found == ["in a transaction"]
        assert tail.turn().messages == ()


@pytest.fixture
def group(kafka):
    """A topic with six messages, of which a group has read four."""
    topic = kafka.create_topic(partitions=2)
    begin = datetime(2026, 1, 17, 2, 0, tzinfo=UTC)
    for n in range(6):
        send(kafka, topic, f"v{n}", partition=n % 2, timestamp=int((begin + timedelta(minutes=n)).timestamp() * 1000))
    name = f"reset-{topic}"
    consumer = Consumer({"bootstrap.servers": kafka.plaintext, "group.id": name, "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition(topic, 0, 3), TopicPartition(topic, 1, 1)], asynchronous=False)
    consumer.close()
    return topic, name


def test_a_plan_says_what_a_reset_changes(cluster, group):
    for to, partitions, offsets, again, left_out in (
        ("earliest", (), {0: (3, 0), 1: (1, 0)}, 4, 0),
        ("latest", (), {0: (3, 3), 1: (1, 3)}, 0, 2),
        ("2026-01-17T03:02", (), {0: (3, 1), 1: (1, 1)}, 2, 0),
        ("2", (), {0: (3, 2), 1: (1, 2)}, 1, 1),
        ("4711", (1,), {1: (1, 3)}, 0, 2),
        ("2030-01-01", (1,), {1: (1, 3)}, 0, 2),
    ):
        plan = plan_reset(cluster, *group, to, timezone="Europe/Rome", partitions=partitions)
        assert {part.partition: (part.before, part.after) for part in plan.partitions} == offsets, to
        assert (plan.again, plan.left_out) == (again, left_out), to


def test_offsets_are_reset_as_planned_and_audited_before_and_after(cluster, group, tmp_path):
    topic, name = group
    plan = plan_reset(cluster, topic, name, "2", timezone="UTC")
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        reset_offsets(ledger, cluster, plan, caller=ME, now=datetime.now(UTC))
        (found,) = [one for one in consumer_groups(cluster, topic).groups if one.name == name]
        assert [part.committed for part in found.partitions] == [2, 2]
        with pytest.raises(GroupInUse, match="committed other offsets since"):
            reset_offsets(ledger, cluster, plan, caller=ME, now=datetime.now(UTC))
        same = plan_reset(cluster, topic, name, "2", timezone="UTC")
        assert reset_offsets(ledger, cluster, same, caller=ME, now=datetime.now(UTC)).changed == ()
        outcome, line = ledger.audit.entries()
    assert (line.action, line.object) == ("reset offsets", f"group {name} of topic {topic}")
    assert (line.before, line.after) == ({"0": 3, "1": 1}, {"to": "2", "0": 2, "1": 2})
    assert (outcome.action, outcome.object) == ("outcome", line.object)
    assert outcome.after == {"of": "reset offsets", "outcome": "done"}


def test_a_reset_that_was_interrupted_or_refused_is_in_the_audit_trail(cluster, group, tmp_path, monkeypatch):
    topic, name = group
    plan = plan_reset(cluster, topic, name, "2", timezone="UTC")
    given = {"caller": ME, "now": datetime.now(UTC)}
    set_offsets = GroupOffsets.set
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        monkeypatch.setattr(GroupOffsets, "set", lambda *_: (_ for _ in ()).throw(GroupIsRead("it is read")))
        with pytest.raises(GroupInUse):
            reset_offsets(ledger, cluster, plan, **given)
        outcome, line = ledger.audit.entries()
        assert (line.action, outcome.after["outcome"], outcome.after["why"]) == (
            "reset offsets",
            "failed",
            "it is read",
        )

        def seen_by_then(offsets, places):
            assert ledger.audit.entries(limit=1)[0].after == {"to": "2", "0": 2, "1": 2}
            set_offsets(offsets, places)

        monkeypatch.setattr(GroupOffsets, "set", seen_by_then)
        reset_offsets(ledger, cluster, plan, **given)
        assert [entry.action for entry in ledger.audit.entries()] == ["outcome", "reset offsets"] * 2


def test_a_group_with_members_is_not_reset_nor_is_one_that_is_not_there(kafka, cluster, group, tmp_path):
    topic, name = group
    plan = plan_reset(cluster, topic, name, "earliest", timezone="UTC")
    member = Consumer({"bootstrap.servers": kafka.plaintext, "group.id": name, "client.id": "billing-1"})
    try:
        member.subscribe([topic])
        until(lambda: member.poll(0.1) is not None, "it reads")
        with pytest.raises(GroupInUse) as caught:
            plan_reset(cluster, topic, name, "earliest", timezone="UTC")
        assert caught.value.why == "its member is billing-1"
        with Ledger(tmp_path / "ledger.sqlite") as ledger:
            with pytest.raises(GroupInUse, match="is in use"):
                reset_offsets(ledger, cluster, plan, caller=ME, now=datetime.now(UTC))
            assert ledger.audit.entries() == []
        offsets = GroupOffsets(cluster, name, topic)
        with pytest.raises(GroupIsRead):  # the broker itself refuses, where a consumer joins in the last moment
            offsets.set({0: 0})
    finally:
        member.close()
    with pytest.raises(NoSuchGroup, match="no consumer group nobody"):
        plan_reset(cluster, topic, "nobody", "earliest", timezone="UTC")


def test_a_value_with_a_schema_is_decoded(kafka, cluster, registry):
    topic = kafka.create_topic(partitions=1)
    place = SchemaRegistry(registry.url)
    schema = {"type": "record", "name": "R", "fields": [{"name": "n", "type": "long"}, {"name": "s", "type": "string"}]}
    number = RegistryClient(place).register(f"{topic}-value", Schema("AVRO", json.dumps(schema)))
    head = b"\0" + number.to_bytes(4, "big")
    send(kafka, topic, head + b"\x54\x04si", head + b"\xff", key="k")
    with_registry = Cluster("rig", kafka.plaintext, schema_registry=place)
    wrong, right = browse(with_registry, topic, MessageQuery(value="", limit=2), caller=ME).messages
    assert json.loads(right.value.text) == {"n": 42, "s": "si"}
    assert (right.value.format, right.value.schema_id) == ("avro", number)
    assert (wrong.value.form, bool(wrong.value.problem)) == ("hex", True)
    assert message_at(with_registry, topic, 0, 0, caller=ME).value == right.value
    assert message_at(cluster, topic, 0, 0, caller=ME).value.form == "hex"


def test_messages_of_ten_megabytes_are_listed_cut_and_read_whole(kafka, cluster):
    topic = kafka.create_topic(partitions=1, config={"max.message.bytes": "12000000"})
    large = b'{"text": "' + b"x" * 10_000_000 + b'"}'
    producer = Producer({"bootstrap.servers": kafka.plaintext, "message.max.bytes": 12_000_000})
    for number in range(4):
        producer.produce(topic, large, f"k{number}", partition=0)
        assert producer.flush(60) == 0
    found = browse(cluster, topic, MessageQuery(), caller=ME)
    assert [m.key.text for m in found.messages] == ["k3", "k2", "k1", "k0"]
    assert {(m.stored.size_bytes, len(m.value.text), m.value.is_cut) for m in found.messages} == {
        (len(large), 4096, True)
    }
    whole = message_at(cluster, topic, 0, 2, caller=ME)
    assert (whole.stored.value, whole.value.is_cut, whole.value.form) == (large, False, "json")
