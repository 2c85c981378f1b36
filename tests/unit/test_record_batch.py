"""Record batches: independent readers read back what was encoded, and an independent writer writes the same bytes."""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder, _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords as AiokafkaRecords
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.memory_records import MemoryRecords as KafkaPythonRecords

from core.kafka.record_batch import (
    BATCH_HEADER_BYTES,
    COMPRESSIONS,
    RecordBatch,
    encode_batch,
    record_sizes,
)

NOW_MS = 1_795_766_400_000
LAST_MS = (1 << 63) - 1
KAFKA_PYTHON_READS = ("none", "gzip", "snappy")
"""It needs a library more for each of the others, and reads only header and CRC without it."""
Headers = tuple[tuple[str, bytes], ...]


@dataclass
class Columns:
    """Messages of one batch."""

    keys: list[bytes | None]
    values: list[bytes | None]
    ids: list[bytes]
    headers: Headers = ()
    timestamps_ms: int | list[int] = NOW_MS
    further: tuple[tuple[str, list[bytes | None]], ...] = ()
    """Headers with a value for each message."""

    def encode(self, compression: str = "none", *, is_transactional: bool = False) -> RecordBatch:
        return encode_batch(
            self.keys,
            self.values,
            self.ids,
            self.headers,
            timestamps_ms=self.timestamps_ms,
            compression=compression,
            is_transactional=is_transactional,
            header_columns=self.further,
        )

    @property
    def sizes(self) -> list[int]:
        return record_sizes(self.keys, self.values, self.ids, self.headers, self.further)

    @property
    def times(self) -> list[int]:
        given = self.timestamps_ms
        return [given] * len(self.values) if isinstance(given, int) else given

    @property
    def messages(self) -> list[tuple[Any, ...]]:
        """What a reader has to find: offset, timestamp, key, value, headers."""
        rows = zip(self.times, self.keys, self.values, self.ids, strict=True)
        named = list(self.headers)
        return [
            (n, at, key, value, [("message_id", i), *named, *self.own_headers(n)])
            for n, (at, key, value, i) in enumerate(rows)
        ]

    def own_headers(self, row: int) -> list[tuple[str, bytes]]:
        return [(name, value) for name, column in self.further if (value := column[row]) is not None]


def columns(count: int, **changes: Any) -> Columns:
    made: dict[str, Any] = {
        "keys": [b"key-%d" % number for number in range(count)],
        "values": [b'{"number":%d}' % number for number in range(count)],
        "ids": [secrets.token_hex(16).encode() for _ in range(count)],
        "headers": (("run_id", b"0123456789"), ("job", b"abc")),
    }
    return Columns(**made | changes)


def found(batch: Any) -> list[tuple[Any, ...]]:
    return [(r.offset, r.timestamp, r.key, r.value, list(r.headers)) for r in batch]


def header_of(batch: Any) -> tuple[Any, ...]:
    """The fields of a batch's header as a reader reports them."""
    fields = (batch.base_offset, batch.magic, batch.attributes, batch.last_offset_delta)
    times = (batch.first_timestamp, batch.max_timestamp)
    return (*fields, *times, batch.producer_id, batch.producer_epoch, batch.base_sequence)


def only_batch(records: Any) -> Any:
    batch = records.next_batch()
    assert not records.has_next()
    return batch


def assert_readers_agree(sent: Columns, data: bytes) -> None:
    """aiokafka's reader in C, its reader in Python and kafka-python-ng's find exactly these messages."""
    in_c, plain, other = only_batch(AiokafkaRecords(data)), _DefaultRecordBatchPy(data), KafkaPythonRecords(data)
    assert in_c.validate_crc()
    assert plain.validate_crc()
    assert found(in_c) == sent.messages
    assert found(plain) == sent.messages
    third: Any = only_batch(other)
    assert third.validate_crc()
    assert third.compression_type == plain.compression_type
    if plain.compression_type in [COMPRESSIONS[name] for name in KAFKA_PYTHON_READS]:
        assert found(third) == sent.messages


# ── whatever the messages are ─────────────────────────────────────────────────────────────────

texts = st.text(st.characters(codec="utf-8"))
timestamps = st.integers(-(1 << 62), 1 << 62) | st.integers(NOW_MS, NOW_MS + 10_000)
long_binary = st.builds(lambda piece, times: piece * times, st.binary(max_size=40), st.integers(0, 500))


@st.composite
def any_columns(draw: st.DrawFn) -> Columns:
    rows = draw(
        st.lists(
            st.tuples(st.none() | st.binary(), st.binary() | long_binary, st.binary(max_size=70), timestamps),
            min_size=1,
            max_size=80,
        )
    )
    keys, values, ids, times = map(list, zip(*rows, strict=True))
    if draw(st.booleans()):
        ids = [secrets.token_hex(16).encode() for _ in rows]
    headers = tuple(draw(st.lists(st.tuples(texts, st.binary()), max_size=5)))
    cells = st.none() | st.binary(max_size=20) if draw(st.booleans()) else st.binary(min_size=3, max_size=3)
    column = st.lists(cells, min_size=len(rows), max_size=len(rows))
    further = tuple(draw(st.lists(st.tuples(texts, column), max_size=3)))
    return Columns(keys, values, ids, headers, times if draw(st.booleans()) else times[0], further)


@given(any_columns(), st.sampled_from(list(COMPRESSIONS)), st.booleans())
def test_three_readers_read_back_what_was_encoded(sent: Columns, compression: str, is_transactional: bool):
    batch = sent.encode(compression, is_transactional=is_transactional)
    data = batch.to_bytes(7_000_000_000, 12, 345)
    assert_readers_agree(sent, data)
    assert len(data) == batch.size_bytes
    assert only_batch(AiokafkaRecords(data)).is_transactional is is_transactional


@given(any_columns(), st.integers(-1, LAST_MS), st.integers(-1, (1 << 15) - 1), st.integers(-1, (1 << 31) - 1))
def test_an_independent_writer_writes_the_same_bytes(sent: Columns, producer_id: int, epoch: int, sequence: int):
    writer = DefaultRecordBatchBuilder(2, 0, 0, producer_id, epoch, sequence, 1 << 30)
    for offset, timestamp, key, value, headers in sent.messages:
        assert writer.append(offset, timestamp, key, value, headers) is not None
    ours = sent.encode().to_bytes(producer_id, epoch, sequence)
    assert ours == bytes(writer.build())


@given(any_columns(), st.sampled_from(list(COMPRESSIONS)))
def test_a_batch_is_never_larger_than_the_sizes_of_its_records(sent: Columns, compression: str):
    sizes = sent.sizes
    assert len(sizes) == len(sent.values)
    assert sent.encode(compression).size_bytes <= BATCH_HEADER_BYTES + sum(sizes)


@given(any_columns())
def test_each_record_has_at_most_its_size(sent: Columns):
    sizes = sent.sizes
    for row, size in enumerate(sizes):
        further = tuple((name, [column[row]]) for name, column in sent.further)
        alone = Columns([sent.keys[row]], [sent.values[row]], [sent.ids[row]], sent.headers, sent.times[row], further)
        assert len(alone.encode().payload) <= size


# ── extremes ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(columns(3, keys=[None] * 3), id="null keys only"),
        pytest.param(columns(3, keys=[b"a", None, b""]), id="a null key among others"),
        pytest.param(columns(2, values=[b"", b""], keys=[b"", b""], headers=()), id="nothing but ids"),
        pytest.param(columns(2, ids=[b"", b""]), id="empty ids"),
        pytest.param(columns(2, keys=[b"k" * (1 << 20), b"short"]), id="a key of 1 MB"),
        pytest.param(columns(2, values=[b"v" * 3_000_000, b""]), id="a value of 3 MB"),
        pytest.param(columns(3, values=[b"v", None, b""]), id="a tombstone"),
        pytest.param(columns(2, values=[None, None]), id="tombstones only"),
        pytest.param(columns(3, headers=tuple((f"h{n}", b"%d" % n) for n in range(10_000))), id="10,000 headers"),
        pytest.param(columns(2, headers=(("größe 尺寸 🙂", "è".encode()), ("", b""))), id="header names"),
        pytest.param(columns(2, headers=(("message_id", b"again"),)), id="a header of the same name"),
        pytest.param(columns(3, further=(("office", [b"38713", None, b""]),)), id="a header that one message lacks"),
        pytest.param(columns(2, further=(("a", [None, None]), ("b", [b"1", None]))), id="a header that all lack"),
        pytest.param(columns(2, further=(("größe", [b"x" * 70_000, b""]),)), id="a long and an empty header"),
        pytest.param(
            columns(
                2, headers=tuple((f"h{n}", b"") for n in range(61)), further=(("a", [b"1", None]), ("b", [None, None]))
            ),
            id="63 headers at most, where the number of headers gets longer",
        ),
        pytest.param(columns(3, timestamps_ms=-1), id="just before 1970"),
        pytest.param(columns(3, timestamps_ms=[-5_000_000_000_000, -1, 0]), id="from 1811"),
        pytest.param(columns(3, timestamps_ms=[NOW_MS, NOW_MS - 1, NOW_MS + 1]), id="out of order"),
        pytest.param(columns(2, timestamps_ms=[NOW_MS, NOW_MS]), id="equal, one a message"),
        pytest.param(columns(2, timestamps_ms=[0, LAST_MS]), id="the last timestamp"),
        pytest.param(columns(2, timestamps_ms=[0, -LAST_MS - 1]), id="the first timestamp"),
    ],
)
def test_an_extreme_batch_is_read_back(sent: Columns, compression: str):
    assert_readers_agree(sent, sent.encode(compression).to_bytes())


@pytest.mark.parametrize("edge", [63, 64, 65, 8_191, 8_192, 8_193, (1 << 20) - 1, 1 << 20])
def test_lengths_around_a_longer_varint(edge: int):
    for sent in (
        columns(2, values=[b"v" * edge, b""]),
        columns(2, keys=[b"k" * edge, None]),
        columns(2, ids=[b"i" * edge, b"i"]),
        columns(2, values=[b"v" * (edge - 60), b"v" * edge]),
    ):
        assert found(only_batch(AiokafkaRecords(sent.encode().to_bytes()))) == sent.messages


@pytest.mark.parametrize("timestamps_ms", [NOW_MS, [NOW_MS + n % 7 for n in range(8_200)]], ids=["one", "each"])
def test_offsets_around_a_longer_varint(timestamps_ms: int | list[int]):
    sent = columns(8_200, timestamps_ms=timestamps_ms)
    data = sent.encode("lz4").to_bytes()
    assert found(only_batch(AiokafkaRecords(data))) == sent.messages


def test_a_batch_with_offsets_of_four_bytes():
    count = (1 << 20) + 1
    empty = [b""] * count
    batch = encode_batch(empty, empty, empty, (), timestamps_ms=NOW_MS, compression="none")
    assert batch.size_bytes <= BATCH_HEADER_BYTES + sum(record_sizes(empty, empty, empty, ()))
    last = None
    for last in only_batch(AiokafkaRecords(batch.to_bytes())):  # noqa: B007
        pass
    assert last is not None
    assert (last.offset, last.headers) == (count - 1, [("message_id", b"")])


def test_sizes_hold_where_timestamps_differ_most():
    sent = columns(100, timestamps_ms=[0, *[LAST_MS] * 99])
    sizes = sent.sizes
    assert 0 <= sum(sizes) - len(sent.encode().payload) <= 100 * 8


def test_a_header_column_of_another_length_is_refused():
    with pytest.raises(ValueError, match="2 messages have 1 values of header office"):
        columns(2, further=(("office", [b"1"]),)).encode()


def test_sizes_of_no_messages():
    assert record_sizes([], [], [], ()) == []


# ── frames ────────────────────────────────────────────────────────────────────────────────────


def test_snappy_has_the_framing_of_java_and_one_length_before_each_block():
    sent = columns(1, values=[secrets.token_bytes(1_000).hex().encode() * 300])
    payload = sent.encode("snappy").payload
    assert payload[:16] == b"\x82SNAPPY\0\0\0\0\1\0\0\0\1"
    at, blocks = 16, 0
    while at < len(payload):
        at += 4 + struct.unpack_from(">i", payload, at)[0]
        blocks += 1
    assert at == len(payload)
    assert blocks == 3


def test_lz4_has_independent_blocks_and_stores_what_does_not_become_smaller():
    sent = columns(3, values=[b"a" * 70_000, secrets.token_bytes(200_000), b"b" * 70_000])
    batch = sent.encode("lz4")
    assert batch.payload[:7].hex() == "04224d18604082"
    assert batch.payload[-4:] == bytes(4)
    lengths, at = [], 7
    while length := struct.unpack_from("<I", batch.payload, at)[0]:
        lengths.append(length)
        at += 4 + (length & 0x7FFFFFFF)
    assert len(lengths) == 6
    assert [length >> 31 for length in lengths] == [0, 0, 1, 1, 0, 0]
    assert_readers_agree(sent, batch.to_bytes())


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_does_not_become_smaller_is_stored_uncompressed(compression: str):
    sent = columns(2, values=[secrets.token_bytes(5_000), secrets.token_bytes(5_000)], headers=())
    batch = sent.encode(compression)
    assert batch.attributes == 0 or batch.size_bytes < sent.encode("none").size_bytes
    assert batch.size_bytes <= sent.encode("none").size_bytes
    assert_readers_agree(sent, batch.to_bytes())


@pytest.mark.parametrize(("compression", "number"), COMPRESSIONS.items())
def test_compression_is_named_in_the_attributes(compression: str, number: int):
    sent = columns(500)
    batch = sent.encode(compression, is_transactional=True)
    assert batch.attributes == number | 0x10
    assert compression == "none" or batch.size_bytes < sent.encode("none").size_bytes


# ── sending and sending again ─────────────────────────────────────────────────────────────────


def test_header_fields_are_read_back_and_a_retry_changes_only_producer_and_sequence():
    sent = columns(40, timestamps_ms=[NOW_MS + 5, *[NOW_MS] * 38, NOW_MS + 9])
    batch = sent.encode("zstd", is_transactional=True)
    first, again, anonymous = batch.to_bytes(4_711, 2, 1_000), batch.to_bytes(4_711, 3, 0), batch.to_bytes()
    times = (NOW_MS + 5, NOW_MS + 9)
    for data, producer in ((first, (4_711, 2, 1_000)), (again, (4_711, 3, 0)), (anonymous, (-1, -1, -1))):
        expected = (0, 2, COMPRESSIONS["zstd"] | 0x10, 39, *times, *producer)
        assert header_of(only_batch(AiokafkaRecords(data))) == expected
        assert header_of(_DefaultRecordBatchPy(data)) == expected
        assert_readers_agree(sent, data)
    assert first[BATCH_HEADER_BYTES:] == again[BATCH_HEADER_BYTES:] == batch.payload
    assert batch.to_bytes(4_711, 2, 1_000) == first


def test_a_changed_byte_fails_the_crc():
    data = bytearray(columns(3).encode("gzip").to_bytes(1, 1, 1))
    data[-1] ^= 1
    assert not only_batch(AiokafkaRecords(bytes(data))).validate_crc()


# ── refused ───────────────────────────────────────────────────────────────────────────────────


def test_no_records_are_refused():
    with pytest.raises(ValueError, match="at least one message"):
        columns(0).encode()


@pytest.mark.parametrize("changes", [{"keys": [b"k"]}, {"ids": [b"i"] * 3}, {"values": [b"v"]}])
def test_columns_of_different_lengths_are_refused(changes: dict[str, Any]):
    with pytest.raises(ValueError, match="columns of one length"):
        columns(2, **changes).encode()


@pytest.mark.parametrize("timestamps_ms", [[], [NOW_MS], [NOW_MS] * 3])
def test_a_wrong_number_of_timestamps_is_refused(timestamps_ms: list[int]):
    with pytest.raises(ValueError, match=f"2 messages have {len(timestamps_ms)} timestamps"):
        columns(2, timestamps_ms=timestamps_ms).encode()


@pytest.mark.parametrize("timestamps_ms", [LAST_MS + 1, -LAST_MS - 2, [-2, LAST_MS], [1, LAST_MS + 1]])
def test_a_timestamp_beyond_64_bits_is_refused(timestamps_ms: int | list[int]):
    with pytest.raises(ValueError, match="64 bits at most"):
        columns(2, timestamps_ms=timestamps_ms).encode()


def test_an_unknown_compression_is_refused():
    with pytest.raises(ValueError, match="none, gzip, snappy, lz4, zstd, not 'brotli'"):
        columns(2).encode("brotli")


@pytest.mark.parametrize("column", ["keys", "values", "ids"])
def test_text_in_place_of_bytes_is_refused(column: str):
    with pytest.raises(TypeError):
        columns(2, **{column: ["text", b"bytes"]}).encode()


@given(st.integers(1, 200))
def test_any_number_of_messages_is_read_back(count: int):
    sent = columns(count)
    data = sent.encode("snappy").to_bytes()
    assert found(only_batch(AiokafkaRecords(data))) == sent.messages
