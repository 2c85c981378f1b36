"""The retry above the client: which messages are published again, when, and how it ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import (
    BrokerUnavailable,
    DeliveryTimeout,
    MessageRefused,
    MessageTooLarge,
    NotAuthorised,
    PsttError,
    RetriesExhausted,
    RunFailed,
    TopicMissing,
)
from core.kafka.memory import MemoryPublisher
from core.kafka.sender import Sender
from core.model.publisher import Batch, Delivery

AWAY = BrokerUnavailable(
    'no broker of cluster "Kafka Collaudo" (kafka-1:9092) answers', why="connection refused", remedy="start the broker"
)
DENIED = NotAuthorised('user "pstt" may not write to topic "orders"', why="ACL", remedy="ask for the right")


class Clock:
    """A clock that moves only by `sleep`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds


class Watched(MemoryPublisher):
    """Records what is published, and fails if an acknowledged message is published again."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.handed: list[tuple[int, list[int]]] = []
        self.alone: list[tuple[int, list[int]]] = []
        self.times: list[float] = []

    def publish(self, delivery: Delivery, indexes: Sequence[int] | None = None) -> None:
        todo = list(range(len(delivery.batch)) if indexes is None else indexes)
        again = [index for index in todo if delivery.partitions[index] != -1]
        assert not again, f"acknowledged messages handed over again: {again}"
        assert len(set(todo)) == len(todo)
        self.handed.append((delivery.batch.number, todo))
        self.times.append(self.clock())
        super().publish(delivery, todo)

    def publish_alone(self, delivery: Delivery, indexes: Sequence[int]) -> None:
        assert not self.in_flight, "nothing else is in flight while messages are sent alone"
        assert all(delivery.partitions[index] == -1 for index in indexes)
        self.alone.append((delivery.batch.number, list(indexes)))
        super().publish_alone(delivery, indexes)


def batch_of(size: int, number: int = 1, value: bytes = b"v", topic: str = "orders") -> Batch:
    return Batch(
        number,
        topic,
        [b"%d-%d" % (number, i) for i in range(size)],
        [value] * size,
        [b"%032x" % (number * 1_000_000 + i) for i in range(size)],
        range(1, size + 1),
    )


def sender_over(publisher: MemoryPublisher, clock: Clock, max_retries: int = 3, backoff_ms: float = 100) -> Sender:
    return Sender(publisher, max_retries=max_retries, backoff_ms=backoff_ms, clock=clock, sleep=clock.sleep)


def watched(clock: Clock, **options: Any) -> Watched:
    return Watched(clock=clock, sleep=clock.sleep, **options)


# ── trying again ─────────────────────────────────────────────────────────────────────────────


def test_a_batch_without_trouble_is_handed_over_once():
    clock = Clock()
    publisher = watched(clock)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(3))
    (delivery,) = sender.drain()
    assert publisher.handed == [(1, [0, 1, 2])]
    assert delivery.acknowledged == 3
    assert list(delivery.attempts) == [1, 1, 1]
    assert delivery.errors == {}
    assert clock.slept == []


def test_only_the_messages_that_are_not_acknowledged_are_handed_over_again():
    clock = Clock()
    publisher = watched(clock, fail=lambda _t, key, _v, attempt: AWAY if key == b"1-1" and attempt < 3 else None)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(3))
    (delivery,) = sender.drain()
    assert publisher.handed == [(1, [0, 1, 2]), (1, [1]), (1, [1])]
    assert list(delivery.attempts) == [1, 3, 1]
    assert delivery.acknowledged == 3
    assert len(publisher.records["orders"]) == 3


def test_the_waits_are_100_200_and_400_ms():
    clock = Clock()
    publisher = watched(clock, fail=lambda *_: AWAY)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(1))
    sender.drain()
    assert [round(b - a, 6) for a, b in zip(publisher.times, publisher.times[1:], strict=False)] == [0.1, 0.2, 0.4]


def test_the_first_wait_is_the_setting():
    clock = Clock()
    publisher = watched(clock, fail=lambda *_: AWAY)
    sender = sender_over(publisher, clock, max_retries=2, backoff_ms=500)
    sender.submit(batch_of(1))
    sender.drain()
    assert [round(b - a, 6) for a, b in zip(publisher.times, publisher.times[1:], strict=False)] == [0.5, 1.0]


def test_after_the_last_try_the_error_names_cause_remedy_and_number_of_tries():
    clock = Clock()
    publisher = watched(clock, fail=lambda *_: AWAY)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(2))
    (delivery,) = sender.drain()
    assert len(publisher.handed) == 4
    for index in (0, 1):
        error = delivery.errors[index]
        assert isinstance(error, RetriesExhausted)
        assert error.__cause__ is AWAY
        assert str(error) == (
            'no broker of cluster "Kafka Collaudo" (kafka-1:9092) answers: '
            "connection refused, handed over 4 times. start the broker"
        )
    assert delivery.acknowledged == 0


def test_with_no_retries_the_first_failure_is_final():
    clock = Clock()
    publisher = watched(clock, fail=lambda *_: AWAY)
    sender = sender_over(publisher, clock, max_retries=0)
    sender.submit(batch_of(1))
    (delivery,) = sender.drain()
    assert len(publisher.handed) == 1
    assert "handed over once" in str(delivery.errors[0])


@pytest.mark.parametrize(
    "fatal",
    [
        DENIED,
        TopicMissing('topic "orders" does not exist', why="…"),
        MessageTooLarge("a message is too large"),
        RunFailed("refused"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_fatal_error_is_never_tried_again(fatal: PsttError):
    clock = Clock()
    publisher = watched(clock, fail=lambda _t, key, _v, _a: fatal if key == b"1-0" else None)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(2))
    (delivery,) = sender.drain()
    assert publisher.handed == [(1, [0, 1])]
    assert delivery.errors == {0: fatal}
    assert delivery.acknowledged == 1
    assert clock.slept == []


def test_a_fatal_error_stays_while_the_others_of_its_batch_are_tried_again():
    clock = Clock()

    def fail(_topic: str, key: bytes | None, _value: bytes, attempt: int) -> PsttError | None:
        return {b"1-0": DENIED, b"1-1": AWAY if attempt == 1 else None}.get(key or b"")

    publisher = watched(clock, fail=fail)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(3))
    (delivery,) = sender.drain()
    assert publisher.handed == [(1, [0, 1, 2]), (1, [1])]
    assert delivery.errors == {0: DENIED}
    assert delivery.acknowledged == 2


def test_other_batches_keep_flowing_while_one_waits():
    clock = Clock()
    publisher = watched(clock, fail=lambda _t, key, _v, attempt: AWAY if key == b"1-0" and attempt < 3 else None)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(1, 1))
    sender.serve(0)
    for number in range(2, 6):
        sender.submit(batch_of(1, number))
    sender.serve(0)
    assert [delivery.batch.number for delivery in sender.finished()] == [2, 3, 4, 5]
    assert sender.unfinished == 1
    assert [delivery.batch.number for delivery in sender.drain()] == [1]


def test_a_due_retry_goes_out_with_the_next_submit():
    clock = Clock()
    publisher = watched(clock, fail=lambda _t, key, _v, attempt: AWAY if key == b"1-0" and attempt == 1 else None)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(1, 1))
    sender.serve(0)
    clock.now += 0.2
    sender.submit(batch_of(1, 2))
    assert [number for number, _ in publisher.handed] == [1, 2, 1]


def test_batches_that_wait_do_not_fill_the_memory():
    clock = Clock()
    publisher = watched(clock, fail=lambda *_: AWAY, max_in_flight=10)
    sender = sender_over(publisher, clock, max_retries=1, backoff_ms=1000)
    most = 0
    for number in range(1, 40):
        sender.submit(batch_of(5, number))
        sender.serve(0)
        most = max(most, sender.unfinished)
    assert most <= 5  # 10 messages waiting, and those published before that was noticed
    assert len(sender.drain()) == 39


# ── the broker's size limit ──────────────────────────────────────────────────────────────────


def test_one_oversized_message_fails_alone_though_the_broker_refused_all():
    clock = Clock()
    publisher = watched(clock, max_record_batch_bytes=1000, partitions=1)
    batch = batch_of(100)
    batch.values[37] = b"x" * 2000
    sender = sender_over(publisher, clock)
    sender.submit(batch)
    (delivery,) = sender.drain()
    assert list(delivery.errors) == [37]
    assert type(delivery.errors[37]) is MessageTooLarge
    assert not delivery.errors[37].is_retriable
    assert delivery.acknowledged == 99
    assert Counter(record.key for record in publisher.records["orders"]).most_common(1)[0][1] == 1
    assert publisher.handed == [(1, list(range(100)))]
    assert publisher.alone == [(1, list(range(100)))], "each once more, and no oftener"


def test_small_messages_all_pass_where_only_their_sum_was_too_large():
    clock = Clock()
    publisher = watched(clock, max_record_batch_bytes=50, partitions=1)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(64, value=b"0123456789"))
    (delivery,) = sender.drain()
    assert delivery.errors == {}
    assert delivery.acknowledged == len(publisher.records["orders"]) == 64


def test_record_batches_are_smaller_once_only_their_size_was_refused():
    clock = Clock()
    publisher = watched(clock, max_record_batch_bytes=50, partitions=1)
    sender = sender_over(publisher, clock)
    for number in range(1, 21):
        sender.submit(batch_of(64, number, value=b"0123456789"))
        sender.drain()
    assert [number for number, _ in publisher.alone] == [1], "from the second batch on they fit"
    assert len(publisher.records["orders"]) == 20 * 64


def test_batches_that_were_in_flight_when_record_batches_became_smaller_do_not_make_them_smaller_again():
    clock = Clock()
    fitted: list[str] = []

    class Fitting(Watched):
        def fit(self, topic: str) -> None:
            fitted.append(topic)
            super().fit(topic)

    publisher = Fitting(clock=clock, sleep=clock.sleep, max_record_batch_bytes=50, partitions=1, delay_s=1)
    sender = sender_over(publisher, clock)
    for number in range(1, 6):
        sender.submit(batch_of(64, number, value=b"0123456789"))
    sender.drain()
    assert fitted == ["orders"]
    assert len(publisher.records["orders"]) == 5 * 64


def test_one_oversized_message_makes_no_record_batch_smaller():
    clock = Clock()
    publisher = watched(clock, max_record_batch_bytes=5000, partitions=1)
    batch = batch_of(10)
    batch.values[3] = b"x" * 6000
    sender = sender_over(publisher, clock)
    sender.submit(batch)
    sender.drain()
    assert publisher.batch_size_bytes is None


# ── records that the broker does not take ────────────────────────────────────────────────────

NO_KEY = MessageRefused(
    'topic "orders" refuses a message without a key', why="cleanup.policy=compact", remedy="give it one"
)


def without_keys(batch: Batch, *indexes: int) -> Batch:
    for index in indexes:
        batch.keys[index] = None
    return batch


def test_a_record_that_is_refused_fails_alone_and_those_that_went_with_it_arrive_once():
    clock = Clock()
    publisher = watched(clock, refuse=lambda key, _: NO_KEY if key is None else None, partitions=1)
    sender = sender_over(publisher, clock)
    for number in (1, 2, 3):
        sender.submit(without_keys(batch_of(50, number), *((7, 30) if number == 2 else ())))
    deliveries = {delivery.batch.number: delivery for delivery in sender.drain()}
    assert deliveries[2].errors == {7: NO_KEY, 30: NO_KEY}
    assert deliveries[1].errors == deliveries[3].errors == {}
    found = Counter(record.key for record in publisher.records["orders"])
    assert set(found.values()) == {1}
    assert len(found) == 148
    assert clock.slept == [], "a refusal is not waited for"


def test_where_every_record_is_refused_each_is_sent_twice_and_not_oftener():
    clock = Clock()
    publisher = watched(clock, refuse=lambda *_: NO_KEY)
    sender = sender_over(publisher, clock)
    for number in range(1, 6):
        sender.submit(batch_of(100, number))
    for delivery in sender.drain():
        assert len(delivery.errors) == 100
        assert set(delivery.attempts) == {2}


def test_a_message_that_is_sent_alone_while_the_broker_falls_is_tried_again():
    clock = Clock()
    publisher = watched(
        clock,
        refuse=lambda key, _: NO_KEY if key is None else None,
        fail=lambda _t, _k, value, attempt: AWAY if attempt == 2 and value == b"late" else None,
        partitions=1,
    )
    batch = without_keys(batch_of(10), 4)
    batch.values[6] = b"late"
    sender = sender_over(publisher, clock)
    sender.submit(batch)
    (delivery,) = sender.drain()
    assert delivery.errors == {4: NO_KEY}
    assert delivery.attempts[6] == 3
    assert delivery.acknowledged == len(publisher.records["orders"]) == 9


def test_a_message_that_was_already_alone_is_tried_alone_once_more_and_then_refused():
    clock = Clock()
    publisher = watched(clock, max_record_batch_bytes=10)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(1, value=b"x" * 100))
    (delivery,) = sender.drain()
    assert publisher.handed == publisher.alone == [(1, [0])]
    assert type(delivery.errors[0]) is MessageTooLarge


def test_a_message_refused_by_the_client_itself_is_handed_over_once():
    clock = Clock()
    publisher = watched(clock, max_request_size_bytes=100)
    batch = batch_of(3)
    batch.values[1] = b"x" * 200
    sender = sender_over(publisher, clock)
    sender.submit(batch)
    (delivery,) = sender.drain()
    assert publisher.handed == [(1, [0, 1, 2])]
    assert list(delivery.errors) == [1]
    assert "KAFKA_MAX_REQUEST_SIZE is 100" in str(delivery.errors[1])
    assert delivery.acknowledged == 2


def test_order_of_a_partition_is_kept_while_the_oversized_one_is_looked_for():
    clock = Clock()
    publisher = watched(clock, max_record_batch_bytes=200, partitions=1)
    batch = batch_of(50)
    batch.values[20] = b"x" * 300
    sender = sender_over(publisher, clock)
    sender.submit(batch)
    sender.drain()
    assert [record.key for record in publisher.records["orders"]] == [b"1-%d" % i for i in range(50) if i != 20]


# ── the end ──────────────────────────────────────────────────────────────────────────────────


def test_giving_up_leaves_every_message_with_an_acknowledgement_or_an_error():
    clock = Clock()
    publisher = watched(clock, delay_s=5, fail=lambda _t, key, _v, _a: AWAY if key and key.startswith(b"1-") else None)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(2, 1))
    clock.now += 6
    sender.serve(0)  # batch 1 waits for its second try
    sender.submit(batch_of(2, 2))  # in flight
    deliveries = {delivery.batch.number: delivery for delivery in sender.give_up()}
    assert set(deliveries) == {1, 2}
    assert deliveries[1].errors == {0: AWAY, 1: AWAY}
    assert all(isinstance(error, DeliveryTimeout) for error in deliveries[2].errors.values())
    assert len(deliveries[2].errors) == 2
    assert all(delivery.pending == 0 for delivery in deliveries.values())
    assert sender.unfinished == 0
    assert sender.give_up() == []


def test_drain_returns_after_its_time_with_what_is_done():
    clock = Clock()
    publisher = watched(clock, delay_s=10)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(1))
    assert sender.drain(2.0) == []
    assert clock.now == pytest.approx(1002.0)
    assert sender.unfinished == 1
    assert len(sender.drain(20.0)) == 1


def test_a_fatal_client_error_is_raised_once_and_then_everything_can_be_accounted_for():
    clock = Clock()
    publisher = watched(clock, delay_s=1)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(2, 1))
    fenced = RunFailed("this run was stopped", why="a newer run took over")
    publisher.fatal = fenced
    with pytest.raises(RunFailed, match="a newer run took over"):
        sender.submit(batch_of(2, 2))
    with pytest.raises(RunFailed):
        sender.submit(batch_of(2, 3))
    deliveries = sender.drain()
    assert [delivery.batch.number for delivery in deliveries] == [1, 2]
    for delivery in deliveries:
        assert len(delivery.errors) == 2
        assert delivery.acknowledged == 0
    assert deliveries[1].errors[0] is fenced


def test_a_fatal_client_error_in_the_middle_of_the_search_for_an_oversized_message_loses_no_batch():
    clock = Clock()

    class Dying(Watched):
        def publish_alone(self, delivery: Delivery, indexes: Sequence[int]) -> None:
            super().publish_alone(delivery, indexes[:20])
            self.fatal = DENIED
            self._require_life()

    publisher = Dying(clock=clock, sleep=clock.sleep, max_record_batch_bytes=100, partitions=1)
    sender = sender_over(publisher, clock)
    sender.submit(batch_of(64))
    with pytest.raises(NotAuthorised):
        sender.drain()
    (delivery,) = sender.drain()
    assert delivery.acknowledged + len(delivery.errors) == 64
    assert delivery.acknowledged == len(publisher.records.get("orders", []))


def test_batches_of_one_message_are_noticed_without_looking_at_each_after_each_report():
    clock = Clock()
    publisher = watched(clock, max_in_flight=500)
    sender = sender_over(publisher, clock)
    done = 0
    for number in range(1, 3001):
        sender.submit(batch_of(1, number))
        done += len(sender.finished())
        assert sender.unfinished <= 600
    assert done + len(sender.drain()) == 3000


# ── whatever happens ─────────────────────────────────────────────────────────────────────────

OUTCOMES = st.sampled_from(["ok", "ok", "ok", "away", "denied"])


@settings(max_examples=300)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=8),
    schedule=st.dictionaries(st.tuples(st.integers(1, 8), st.integers(0, 11)), st.lists(OUTCOMES, max_size=6)),
    large=st.sets(st.tuples(st.integers(1, 8), st.integers(0, 11)), max_size=3),
    limit=st.sampled_from([None, 40, 400]),
    bad=st.sets(st.tuples(st.integers(1, 8), st.integers(0, 11)), max_size=3),
    max_in_flight=st.integers(1, 20),
    max_retries=st.integers(0, 3),
    delay_s=st.sampled_from([0.0, 0.05, 0.3]),
    served=st.lists(st.booleans(), min_size=8, max_size=8),
    ending=st.sampled_from(["drain", "give_up", "drain a little"]),
)
def test_each_message_is_acknowledged_exactly_once_or_has_an_error(
    sizes: list[int],
    schedule: dict[tuple[int, int], list[str]],
    large: set[tuple[int, int]],
    limit: int | None,
    bad: set[tuple[int, int]],
    max_in_flight: int,
    max_retries: int,
    delay_s: float,
    served: list[bool],
    ending: str,
):
    clock = Clock()

    def fail(_topic: str, key: bytes | None, _value: bytes, attempt: int) -> PsttError | None:
        number, index = map(int, (key or b"").split(b"-"))
        plan = schedule.get((number, index), [])
        return {"away": AWAY, "denied": DENIED}.get(plan[attempt - 1] if attempt <= len(plan) else "ok")

    def refuse(key: bytes | None, _value: bytes) -> MessageRefused | None:
        number, index = map(int, (key or b"").split(b"-"))
        return NO_KEY if (number, index) in bad else None

    publisher = watched(
        clock,
        fail=fail,
        refuse=refuse if bad else None,
        delay_s=delay_s,
        max_in_flight=max_in_flight,
        max_record_batch_bytes=limit,
        partitions=2,
    )
    sender = sender_over(publisher, clock, max_retries)
    finished: list[Delivery] = []
    for number, size in enumerate(sizes, 1):
        batch = batch_of(size, number)
        for index in range(size):
            if (number, index) in large:
                batch.values[index] = b"x" * 500
        sender.submit(batch)
        assert publisher.in_flight <= max_in_flight
        if served[number - 1]:
            sender.serve(0.01)
            finished += sender.finished()
    if ending == "drain a little":
        finished += sender.drain(0.1)
    if ending == "drain":
        finished += sender.drain()
    finished += sender.give_up()

    assert sorted(delivery.batch.number for delivery in finished) == list(range(1, len(sizes) + 1))
    records = Counter(record.key for record in publisher.records.get("orders", []))
    assert all(times == 1 for times in records.values())
    for delivery in finished:
        assert delivery.pending == 0
        for index, key in enumerate(delivery.batch.keys):
            acknowledged = delivery.partitions[index] != -1
            assert acknowledged != (index in delivery.errors)
            assert acknowledged == (records[key] == 1)
            assert 1 <= delivery.attempts[index]
            if limit is None and not bad:
                assert delivery.attempts[index] <= 1 + max_retries
            if ending == "drain" and not acknowledged:
                assert not delivery.errors[index].is_retriable
            if delivery.batch.values[index] == b"x" * 500 and limit is not None and ending == "drain":
                assert not acknowledged
            if (delivery.batch.number, index) in bad and ending == "drain":
                assert not acknowledged
