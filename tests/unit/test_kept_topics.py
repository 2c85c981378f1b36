"""The messages of a demo's mock brokers are kept, and get their offsets again in another process."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer

from core.errors import ConfigError, LedgerBusy, StorageFailed
from core.kafka.kept_topics import KeptMessage, KeptTopics
from core.kafka.mock_cluster import keep, resolved
from core.kafka.record_reader import read_message
from core.model.connection import Cluster
from core.run import kept_messages as run_keeping
from core.run.kept_messages import kept_messages

TOPIC = "pstt-traces"


def message(offset: int, *, partition: int = 2, value: bytes | None = b"{}") -> KeptMessage:
    return KeptMessage(
        TOPIC, partition, offset, 1_768_557_600_000 + offset, b"k%d" % offset, value, (("job", b"demo"),)
    )


def cluster(folder: Path, name: str = "Mock") -> Cluster:
    """Each name has mock brokers of its own in this process, as another process would."""
    return Cluster(name, "", mock_brokers=1, kept_in=folder / "topics")


def send(to: Cluster, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": resolved(to).bootstrap_servers, "log_level": 0})
    for value in values:
        producer.produce(TOPIC, value, b"key", 1, timestamp=1_768_557_600_000, headers=[("run_id", b"abc")])
    assert producer.flush(20) == 0


def test_messages_are_read_as_they_were_written_segment_by_segment(tmp_path: Path) -> None:
    kept = KeptTopics(tmp_path / "topics")
    first, second = [message(0), message(1, value=None)], [message(2), message(0, partition=0)]
    assert kept.segments() == []
    for messages in (first, second):
        kept.add(messages)
    assert [list(kept.read(segment)) for segment in kept.segments()] == [first, second]


def test_without_messages_no_segment_is_written(tmp_path: Path) -> None:
    assert KeptTopics(tmp_path / "topics").add([]) is None
    assert not (tmp_path / "topics").exists()


def test_a_segment_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    kept = KeptTopics(tmp_path)
    segment = kept.add([message(0)])
    assert segment is not None
    segment.write_bytes(b"torn")
    with pytest.raises(StorageFailed, match=r"00000001\.parquet cannot be read"):
        list(kept.read(segment))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(StorageFailed, match="cannot be written"):
        KeptTopics(tmp_path / "file" / "topics").add([message(0)])


def test_what_one_process_sent_another_one_reads_at_its_offset_and_goes_on_behind_it(tmp_path: Path) -> None:
    one, other = cluster(tmp_path, "one"), cluster(tmp_path, "other")
    send(one, b"first", b"second")
    assert keep(one) == 2
    found = read_message(other, TOPIC, 1, 1)
    assert (found.key, found.value, found.headers) == (b"key", b"second", {"run_id": "abc"})
    assert found.at == datetime(2026, 1, 16, 10, tzinfo=UTC)
    send(other, b"third")
    assert keep(other) == 1
    assert read_message(one, TOPIC, 1, 2).value == b"third"
    assert keep(one) == 0


def test_messages_that_the_broker_dropped_leave_a_gap_of_the_same_length(tmp_path: Path) -> None:
    KeptTopics(tmp_path / "topics").add([message(3, partition=1, value=b"after the gap")])
    reader = cluster(tmp_path, "gap")
    assert read_message(reader, TOPIC, 1, 3).value == b"after the gap"
    dropped = read_message(reader, TOPIC, 1, 0)
    assert (dropped.value, dropped.headers) == (None, {"pstt": "this message was not kept"})


def test_a_demo_that_is_made_anew_has_brokers_of_its_own(tmp_path: Path) -> None:
    reader = cluster(tmp_path, "anew")
    kept = KeptTopics(tmp_path / "topics")
    segment = kept.add([message(0, value=b"old"), message(1, value=b"old")])
    assert segment is not None
    assert read_message(reader, TOPIC, 2, 0).value == b"old"
    segment.unlink()
    segment = kept.add([message(0, value=b"new")])
    assert segment is not None
    os.utime(segment, ns=(1, 1))
    assert read_message(reader, TOPIC, 2, 0).value == b"new"


def test_mock_brokers_outside_of_a_demo_keep_nothing() -> None:
    plain = Cluster("plain mock", "", mock_brokers=1)
    send(plain, b"gone")
    assert keep(plain) == 0
    with pytest.raises(ConfigError, match="inside the process"):
        read_message(plain, TOPIC, 1, 0)


def test_a_second_sender_waits_and_then_says_who_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_keeping, "WAIT_S", 0.05)
    one = cluster(tmp_path, "locked")
    with (
        kept_messages(one),
        pytest.raises(LedgerBusy, match="another run of this demo is sending"),
        kept_messages(one),
    ):
        raise AssertionError("two processes would give the same offsets")


def test_what_was_sent_is_kept_if_the_run_fails(tmp_path: Path) -> None:
    one = cluster(tmp_path, "fails")

    def fail() -> None:
        with kept_messages(one):
            send(one, b"acknowledged before the failure")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    (segment,) = KeptTopics(tmp_path / "topics").segments()
    assert [kept.value for kept in KeptTopics(tmp_path / "topics").read(segment)] == [
        b"acknowledged before the failure"
    ]
