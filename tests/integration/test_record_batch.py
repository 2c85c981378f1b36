"""Record batches on a real broker: aiokafka sends them, librdkafka reads them back and checks each CRC."""

from __future__ import annotations

import secrets
import time
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import Message

from core.kafka.partitioning import group_by_partition, partitions_of
from core.kafka.record_batch import COMPRESSIONS, RecordBatch, encode_batch
from tests.rigs.event_loop import run_in_loop
from tests.rigs.kafka import KafkaRig

PARTITIONS = 3
AT_MS = 1_700_000_000_000
BLOCK = 400
HEADERS = (("run_id", b"0123456789"), ("größe", "è 尺寸".encode()), ("empty", b""))
EVER = {"retention.ms": "-1", "max.message.bytes": "16000000"}
"""Messages have old timestamps, and some are large."""
Placed = dict[int, list[tuple[Any, ...]]]
"""Partition → its messages in their order: timestamp, key, value, headers."""


class EncodedBatch:
    """A finished batch in the form that `AIOKafkaProducer.send_batch` takes."""

    def __init__(self, batch: RecordBatch) -> None:
        self._batch = batch
        self.producer = (-1, -1, -1)

    def record_count(self) -> int:
        return self._batch.count

    def size(self) -> int:
        return self._batch.size_bytes

    def close(self) -> None:
        pass

    def closed(self) -> bool:
        return True

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self.producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytes:
        return self._batch.to_bytes(*self.producer)


async def send(kafka: KafkaRig, topic: str, batches: Iterable[tuple[int, EncodedBatch]], **settings: Any) -> list[int]:
    """Sends partition → batch one after the other; returns the base offset of each."""
    facts = {"acks": "all", "max_request_size": 16_000_000, **settings}
    async with AIOKafkaProducer(bootstrap_servers=kafka.plaintext, enable_idempotence=True, **facts) as producer:
        if "transactional_id" in settings:
            await producer.begin_transaction()
        futures = [await producer.send_batch(batch, topic, partition=partition) for partition, batch in batches]
        reports = [await future for future in futures]
        if "transactional_id" in settings:
            await producer.commit_transaction()
    return [report.offset for report in reports]


def committed(kafka: KafkaRig, topic: str) -> list[Message]:
    """Returns the messages of a committed transaction; its marker may be written after the commit was answered."""
    give_up_at = time.monotonic() + 60
    while not (found := kafka.read(topic)) and time.monotonic() < give_up_at:
        time.sleep(0.02)
    return found


def assert_read_back(kafka: KafkaRig, topic: str, expected: Placed) -> None:
    found: Placed = defaultdict(list)
    for message in kafka.read(topic):
        _, at = message.timestamp()
        assert message.offset() == len(found[message.partition()])
        found[message.partition()].append((at, message.key(), message.value(), message.headers()))
    assert found == expected


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_blocks_are_placed_sent_and_read_back(compression: str, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=PARTITIONS, config=EVER)
    batches: list[tuple[int, EncodedBatch]] = []
    expected: Placed = defaultdict(list)
    for start in range(0, 5 * BLOCK, BLOCK):
        keys = [b"RM%011dIT" % number if number % 50 else None for number in range(start, start + BLOCK)]
        values = [b'{"data":{"barcode":"%s"}}' % (key or b"") * (n % 9) for n, key in enumerate(keys)]
        ids = [secrets.token_hex(16).encode() for _ in keys]
        times = [AT_MS + 7 * number % 100 for number in range(BLOCK)]
        for partition, rows in group_by_partition(partitions_of(keys, PARTITIONS, 1), PARTITIONS):
            columns = ([column[row] for row in rows] for column in (keys, values, ids))
            at = [times[row] for row in rows]
            made = encode_batch(*columns, HEADERS, timestamps_ms=at, compression=compression)  # type: ignore[arg-type]
            batches.append((partition, EncodedBatch(made)))
            expected[partition] += [
                (times[row], keys[row], values[row], [("message_id", ids[row]), *HEADERS]) for row in rows
            ]
    offsets = run_in_loop(send(kafka, topic, batches))
    for partition in range(PARTITIONS):
        mine = [(offset, batch) for offset, (p, batch) in zip(offsets, batches, strict=True) if p == partition]
        assert len(mine) == 5
        assert all(offset == batch.producer[2] for offset, batch in mine), "a batch's sequence is its offset here"
        assert len({batch.producer[:2] for _, batch in mine}) == 1
    assert_read_back(kafka, topic, expected)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"keys": [None, b"", b"k" * (1 << 20)]}, id="keys"),
        pytest.param({"values": [b"", b"v" * 1_500_000, secrets.token_bytes(700_000)]}, id="values"),
        pytest.param({"ids": [b"", b"7", b"i" * 300]}, id="ids"),
        pytest.param({"headers": tuple((f"h{n}", b"%d" % n) for n in range(10_000))}, id="headers"),
        pytest.param({"timestamps_ms": [-1_000_000_000_000, 0, -2]}, id="times before 1970"),
        pytest.param({"timestamps_ms": -86_400_000}, id="one time before 1970"),
    ],
)
def test_extremes_are_read_back(compression: str, change: dict[str, Any], kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1, config=EVER)
    made: dict[str, Any] = {"keys": [b"a", b"b", b"c"], "values": [b"1", b"2", b"3"], "headers": HEADERS}
    made |= {"ids": [secrets.token_hex(16).encode() for _ in range(3)], "timestamps_ms": AT_MS} | change
    times, headers = made["timestamps_ms"], list(made["headers"])
    batch = encode_batch(
        made["keys"], made["values"], made["ids"], made["headers"], timestamps_ms=times, compression=compression
    )
    assert run_in_loop(send(kafka, topic, [(0, EncodedBatch(batch))])) == [0]
    at = [times] * 3 if isinstance(times, int) else times
    rows = zip(at, made["keys"], made["values"], made["ids"], strict=True)
    assert_read_back(kafka, topic, {0: [(t, key, value, [("message_id", i), *headers]) for t, key, value, i in rows]})


def test_the_broker_stores_a_batch_that_comes_twice_once(kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1, config=EVER)
    batch = encode_batch([b"k"] * 2, [b"v"] * 2, [b"1", b"2"], (), timestamps_ms=AT_MS, compression="snappy")

    class Again(EncodedBatch):
        """Has the sequence of the first one, as a retry whose answer was lost."""

        def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
            super()._set_producer_state(producer_id, producer_epoch, 0)

    offsets = run_in_loop(send(kafka, topic, [(0, EncodedBatch(batch)), (0, Again(batch))]))
    assert offsets[0] == 0
    assert [message.headers() for message in kafka.read(topic)] == [[("message_id", b"1")], [("message_id", b"2")]]


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_transactional_batch_is_committed(compression: str, kafka: KafkaRig):
    topic = kafka.create_topic(partitions=1, config=EVER)
    values, ids = [b"value"] * 100, [b"%d" % number for number in range(100)]
    batch = encode_batch(values, values, ids, (), timestamps_ms=AT_MS, compression=compression, is_transactional=True)
    run_in_loop(send(kafka, topic, [(0, EncodedBatch(batch))], transactional_id=f"x-{topic}"))
    assert [message.headers() for message in committed(kafka, topic)] == [[("message_id", one)] for one in ids]
