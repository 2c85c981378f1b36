"""Reading a run back from a real broker: each message that is missing, changed or duplicate is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer

from core.app import App
from core.errors import ConfigError
from core.model.connection import Cluster
from core.model.run import Run, Verification, VerificationProblem
from core.records.ledger import Ledger
from core.run import verification
from core.run.arrival import SentRange
from core.run.verify_run import verify_run
from tests.integration.test_arrival import Place, now
from tests.rigs.kafka import KafkaRig, KafkaTopics
from tests.rigs.waiting import until
from tests.rigs.workspace import environment, run_command

ROWS = 3000
UNKNOWING = {"client": "kafka-python-ng", "enable_idempotence": False}
"""Its runs do not know the topic's id, so that a topic made by hand can replace the run's."""

Change = Callable[[list[Message | None]], Sequence[Message | None]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "ws")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 64 offsets, so that some thousand messages are many blocks."""
    monkeypatch.setattr(verification, "BLOCK_BITS", 6)


def verified(place: Place, run: Run) -> Verification:
    with App.open(place.folder, {}, log=False) as app:
        return verify_run(app, run.run_id, should_stop=lambda: False, now=now)


def written_again(broker: KafkaTopics, topic: str, change: Change) -> None:
    """Deletes the topic, creates it again, and writes its messages at their offsets with one change."""
    messages = [m for m in broker.read(topic) if m.partition() == 0]
    broker.delete_topic(topic)
    broker.create_topic(topic, partitions=1)
    producer = Producer({"bootstrap.servers": broker.plaintext, "enable.idempotence": True})
    for message in change(list(messages)):
        if message is None:
            producer.produce(topic, b"of nobody")
        else:
            producer.produce(topic, message.value(), message.key(), headers=message.headers())
    producer.flush()


# ── the answers ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_run_that_arrived_is_complete_among_messages_of_others(delivery: str, place: Place, kafka: KafkaRig):
    topic = kafka.create_topic()
    place.make(kafka, topic, rows=ROWS, delivery=delivery)
    other = Producer({"bootstrap.servers": kafka.plaintext})

    def write(_: int) -> None:
        other.produce(topic, b"of another writer", b"k1", headers=[("message_id", b"0" * 32), ("run_id", b"other")])
        other.flush()

    runs = [place.run(write), place.run(write)]
    for run in runs:
        found = verified(place, run)
        assert (found.answer, found.acknowledged, found.found) == ("complete", ROWS, ROWS)
        assert (found.missing, found.other_content, found.duplicates, found.not_verifiable) == (0, 0, 0, 0)


def test_one_missing_message_is_found_with_its_key(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1, config={"max.message.bytes": "200000"})
    place.make(kafka, topic, rows=ROWS, cluster=UNKNOWING)
    run = place.run()
    written_again(kafka, topic, lambda messages: messages[:-1])
    found = verified(place, run)
    assert (found.answer, found.missing, found.found) == ("missing", 1, ROWS - 1)
    assert found.listed == (VerificationProblem("missing", 0, ROWS - 1, f"k{ROWS - 1}"),)


def test_one_message_of_another_content_is_found_with_its_key(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, rows=ROWS, cluster=UNKNOWING)
    run = place.run()
    written_again(kafka, topic, lambda messages: [*messages[:1500], None, *messages[1501:]])
    found = verified(place, run)
    assert (found.answer, found.other_content, found.found) == ("other_content", 1, ROWS - 1)
    assert found.listed == (VerificationProblem("other_content", 0, 1500, "k1500"),)


def test_a_key_in_json_that_is_another_one_is_found(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, rows=300, cluster=UNKNOWING, key_format="json")
    run = place.run()

    def with_another_key(messages: list[Message | None]) -> Sequence[Message | None]:
        changed = messages[150]
        assert changed is not None
        assert changed.key() == b'"k150"'
        changed.set_key(b'"k15"')
        return messages

    assert verified(place, run).answer == "complete"
    written_again(kafka, topic, with_another_key)
    found = verified(place, run)
    assert (found.answer, found.other_content, found.found) == ("other_content", 1, 299)
    assert found.listed == (VerificationProblem("other_content", 0, 150, "k150"),)


def test_two_messages_that_changed_places_are_found(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, rows=ROWS, cluster=UNKNOWING)
    run = place.run()
    written_again(kafka, topic, lambda messages: [messages[1], messages[0], *messages[2:]])
    found = verified(place, run)
    assert (found.answer, found.other_content) == ("other_content", 2)
    assert [unlike.key for unlike in found.listed] == ["k0", "k1"]


def test_a_message_that_is_there_twice_is_found(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, rows=ROWS)
    first = list[Message]()

    def again(rows_read: int) -> None:
        if rows_read == 2000:
            until(lambda: bool(kafka.read(topic)), "the first messages")
            first.extend(kafka.read(topic)[:1])
            producer = Producer({"bootstrap.servers": kafka.plaintext})
            producer.produce(topic, first[0].value(), first[0].key(), headers=first[0].headers())
            producer.flush()

    run = place.run(again)
    assert run.state == "succeeded"
    found = verified(place, run)
    assert (found.answer, found.duplicates, found.found) == ("duplicates", 1, ROWS)
    assert [(unlike.problem, unlike.key) for unlike in found.listed] == [("duplicate", "k0")]


def test_a_topic_that_was_made_again_is_not_verifiable(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, rows=ROWS)
    run = place.run()
    written_again(kafka, topic, lambda messages: messages)
    found = verified(place, run)
    assert (found.answer, found.not_verifiable) == ("not_verifiable", ROWS)
    assert found.reason == "the topic was deleted and made again since"
    kafka.delete_topic(topic)
    assert verified(place, run).reason == "the topic does not exist any more"


def test_what_retention_deleted_is_not_verifiable_and_the_rest_is_compared(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, rows=ROWS)

    def delete(rows_read: int) -> None:
        if rows_read == 2000:
            until(lambda: bool(kafka.count(topic)), "the first messages")
            kafka.delete_records(topic)

    run = place.run(delete)
    earliest = kafka.read(topic)[0].offset()
    found = verified(place, run)
    assert (found.answer, found.not_verifiable, found.missing) == ("not_verifiable", earliest, 0)
    assert found.found == ROWS - earliest > 0
    assert found.reason.startswith(f"partition 0 was deleted up to offset {earliest} (retention")


def test_what_is_missing_from_a_compacted_topic_is_not_verifiable(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, rows=ROWS, cluster=UNKNOWING)
    run = place.run()
    messages = kafka.read(topic)
    kafka.delete_topic(topic)
    kafka.create_topic(topic, partitions=1, config={"cleanup.policy": "compact"})
    producer = Producer({"bootstrap.servers": kafka.plaintext})
    for message in messages[:-5]:
        producer.produce(topic, message.value(), message.key(), headers=message.headers())
    producer.flush()
    found = verified(place, run)
    assert (found.answer, found.not_verifiable, found.missing) == ("not_verifiable", 5, 0)
    assert "compacted" in found.reason


def test_sends_that_the_spool_has_no_more_are_not_verifiable(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic()
    place.make(kafka, topic, rows=ROWS)
    run = place.run()
    for segment in (place.folder / ".pstt" / "spool").glob(f"{run.run_id}-*.parquet"):
        segment.unlink()
    found = verified(place, run)
    assert (found.answer, found.not_verifiable) == ("not_verifiable", ROWS)
    assert found.reason == "not all sends of the run are in the spool any more"


def test_a_renamed_cluster_is_found(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic()
    place.make(kafka, topic, rows=50)
    run = place.run()
    file = place.folder / "connections.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["kafka_connections"]["rig"]["name"] = "Another name"
    file.write_text(json.dumps(document), encoding="utf-8")
    assert verified(place, run).answer == "complete"


def test_a_topic_of_the_same_name_on_another_cluster_is_not_taken_for_it(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic()
    place.make(kafka, topic, rows=50)
    run = place.run()
    sent = SentRange(run.run_id, topic, "another-id", run.topic_id, run.partitions, run.acknowledged)
    spool_dir = place.folder / ".pstt" / "spool"
    found = verification.verify(sent, Cluster("rig", kafka.plaintext), spool_dir, "full", now=now)
    assert (found.answer, found.not_verifiable) == ("not_verifiable", 50)
    assert found.reason == f"this is another cluster than the run's ({run.cluster_id}, not another-id)"


def test_a_run_that_sent_nothing_itself_names_the_one_that_did(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic()
    place.make(kafka, topic, rows=50, delivery="exactly_once", scheduling_mode="cron", cron="0 2 * * *")
    first, second = place.run(), place.run()
    assert (first.sent, second.sent, second.acknowledged) == (50, 0, 50)
    with pytest.raises(ConfigError, match="sent nothing itself") as raised:
        verified(place, second)
    assert raised.value.remedy == f"python -m core verify {first.run_id}"
    assert verified(place, first).answer == "complete"


# ── asked for by the job ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("mode", ["count", "full"])
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_job_may_have_its_messages_read_back(mode: str, delivery: str, place: Place, kafka: KafkaRig):
    topic = kafka.create_topic()
    place.make(kafka, topic, rows=ROWS, verify=mode, delivery=delivery)
    other = Producer({"bootstrap.servers": kafka.plaintext})

    def write(_: int) -> None:
        other.produce(topic, b"of another writer")
        other.flush()

    run = place.run(write)
    assert (run.state, run.warnings) == ("succeeded", ())
    assert run.verification is not None
    assert (run.verification.mode, run.verification.answer, run.verification.found) == (mode, "complete", ROWS)


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that misses the first message of the run, as if the broker had lost it."""
    original = verification.ReadBack.records

    def records(self: Any, ranges: Any) -> Iterator[Any]:
        for block in original(self, ranges):
            yield [found for found in block if found[2] != b"k0"]

    monkeypatch.setattr(verification.ReadBack, "records", records)


def test_a_run_whose_messages_are_not_all_read_back_is_not_green(losing: None, place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, rows=ROWS, verify="full")
    run = place.run()
    assert (run.state, run.error_class) == ("partial", "VerificationFailed")
    assert f"of {ROWS:,} acknowledged messages 1 is missing: the first: key k0 at partition 0, offset 0" in str(
        run.error_text
    )
    assert f"python -m core verify {run.run_id}" in str(run.error_remedy)
    assert run.verification is not None
    assert run.verification.listed == (VerificationProblem("missing", 0, 0, "k0"),)


def test_a_number_of_messages_that_is_too_small_is_not_green(losing: None, place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, rows=ROWS, verify="count")
    other = Producer({"bootstrap.servers": kafka.plaintext})

    def write(_: int) -> None:  # otherwise offsets without gaps prove it, and nothing is read
        other.produce(topic, b"of another writer")
        other.flush()

    run = place.run(write)
    assert run.error_class == "VerificationFailed"
    assert "1 is missing" in str(run.error_text)


def test_a_run_that_could_not_be_read_back_is_not_green(place: Place, own_kafka: Callable[..., KafkaRig]):
    broker = own_kafka()
    place.make(broker, broker.create_topic(), rows=100, verify="count")
    run = place.run(after=broker.kill)
    assert (run.state, run.error_class) == ("partial", "VerificationFailed")
    assert "could not be read back after 100 messages were acknowledged" in str(run.error_text)


# ── the program ───────────────────────────────────────────────────────────────────────────────


def test_verify_on_the_command_line_answers_by_exit_code_and_json(place: Place, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1)
    place.make(kafka, topic, rows=ROWS, cluster=UNKNOWING)
    run = place.run()
    env = environment()
    done = run_command("verify", run.run_id[:6], "--json", env=env, cwd=place.folder)
    document = json.loads(done.stdout)
    assert (done.returncode, document["answer"], document["found"], document["messages"]) == (0, "complete", ROWS, [])

    written_again(kafka, topic, lambda messages: [*messages[:-2], None])
    done = run_command("verify", run.run_id, env=env, cwd=place.folder)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == (
        f"✘ messages are missing: {ROWS - 2:,} of {ROWS:,} acknowledged messages are on the topic, as they were sent, "
        "1 missing, 1 with other content"
    )
    assert lines[1] == f"  other content  key k{ROWS - 2}   partition 0 @ {ROWS - 2}"
    assert lines[2] == f"  missing        key k{ROWS - 1}   partition 0 @ {ROWS - 1}"
    assert lines[3] == f"  next   python -m core replay {run.run_id} sends the rows again with the same message ids"

    kafka.delete_topic(topic)
    assert run_command("verify", run.run_id, env=env, cwd=place.folder).returncode == 3
    shown = json.loads(run_command("show", run.run_id, "--json", env=env, cwd=place.folder).stdout)
    assert shown["verification"]["answer"] == "not_verifiable"
    assert "read back" in run_command("show", run.run_id, env=env, cwd=place.folder).stdout
    with Ledger(place.folder / ".pstt" / "ledger.sqlite") as ledger:
        assert ledger._db.execute("SELECT count(*) FROM verification").fetchone()[0] == 3, "each answer is kept"


def test_what_has_no_messages_cannot_be_verified(place: Place, kafka: KafkaRig):
    place.make(kafka, kafka.create_topic(), rows=0)
    run = place.run()
    done = run_command("verify", run.run_id, env=environment(), cwd=place.folder)
    assert done.returncode == 2
    assert "it acknowledged no message" in done.stderr
