"""Encodes columns of messages as Kafka record batches (record format v2).

A client that is called once a message costs one Python call, its header objects and one report object each time. This
module takes keys, values and message ids as columns and makes the bytes of a whole batch from them: every length and
variable-length integer of a column comes from one C-level operation, then follow one write of all parts, one compression
and one CRC32C. The usual case makes no Python call and no bytes object for a single message. Figures: docs/decisions/016.

Format: https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import add
from typing import Any

import cramjam
import google_crc32c

__all__ = ["BATCH_HEADER_BYTES", "COMPRESSIONS", "MESSAGE_ID", "RecordBatch", "encode_batch", "record_sizes"]

HeaderColumns = Sequence[tuple[str, Sequence[bytes | None]]]
"""Headers with a value for each message: name, and a column of values."""

MESSAGE_ID = b"message_id"
"""The first header of each record."""
COMPRESSIONS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
"""Name → the number that stands for it in the attributes of a batch."""

_HEAD = struct.Struct(">qiibI")
"""Base offset, length of what follows, leader epoch, format, CRC32C."""
_BODY = struct.Struct(">hiqqqhii")
"""Attributes, last offset delta, base and max timestamp, producer id and epoch, base sequence, number of records."""
_LENGTH_COUNTS_FROM = 12
"""Base offset and length itself are not part of a batch's length."""
_FORMAT = 2
_TRANSACTIONAL = 0x10
BATCH_HEADER_BYTES = _HEAD.size + _BODY.size

_VARINT_STEPS = (1 << 6, 1 << 13, 1 << 20, 1 << 27)
"""The smallest numbers that need one byte more: zigzag takes one bit, each byte carries seven."""
_MOST_FRAMING_BYTES = 5 + 1 + 10 + 4
"""Record length, attributes, and the longest timestamp delta and offset delta of a batch of fewer than 2^21 records."""
_PARTS = 9
_PLAIN_START = b"\0\0"
"""Attributes and a timestamp delta of 0."""

_GZIP_LEVEL, _ZSTD_LEVEL = 6, 3
"""The defaults of Java's producer."""
_LZ4_HEADER = bytes.fromhex("04224d18 60 40 82")
"""Magic; format 1 with independent blocks and no checksums; blocks of at most 64 kB; checksum of the header. As Java."""
_LZ4_BLOCK_BYTES = 1 << 16
_LZ4_STORED = 1 << 31
"""Marks the length of a block that is not compressed."""
_LZ4_END = bytes(4)
_XERIAL_HEADER = b"\x82SNAPPY\0" + struct.pack(">ii", 1, 1)
"""Java frames snappy with this magic, two versions, and a length before each block."""
_SNAPPY_BLOCK_BYTES = 1 << 18
"""Java writes blocks of 32 kB. Every reader takes longer ones, and one block a batch is a fifth faster and 2 % smaller."""


def _varint(number: int) -> bytes:
    """Returns a signed number of up to 64 bits as zigzag varint."""
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


_VARINTS = [_varint(number) for number in range(_VARINT_STEPS[1])]
_STARTS = [_PLAIN_START + varint for varint in _VARINTS]
"""How a record begins after its length, by its offset delta, if its timestamp is the batch's."""


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """A batch whose records are encoded and compressed; producer id and sequence are added when it is sent.

    Attributes:
        count: Number of records.
        attributes: Compression and transactional flag, as the format has them.
        base_timestamp_ms: Timestamp of the first record.
        max_timestamp_ms: The latest timestamp.
        payload: The records, compressed.
    """

    count: int
    attributes: int
    base_timestamp_ms: int
    max_timestamp_ms: int
    payload: bytes

    @property
    def size_bytes(self) -> int:
        """Number of bytes that `to_bytes` returns."""
        return BATCH_HEADER_BYTES + len(self.payload)

    def to_bytes(self, producer_id: int = -1, producer_epoch: int = -1, base_sequence: int = -1) -> bytes:
        """Returns the batch as a Produce request carries it.

        A retry calls it again: nothing is encoded or compressed a second time.

        Args:
            producer_id: From the broker; -1: without idempotence.
            producer_epoch: Likewise.
            base_sequence: Sequence number of the first record.
        """
        last_offset_delta = self.count - 1
        times = (self.base_timestamp_ms, self.max_timestamp_ms)
        producer = (producer_id, producer_epoch, base_sequence)
        body = _BODY.pack(self.attributes, last_offset_delta, *times, *producer, self.count)
        checksum = google_crc32c.extend(google_crc32c.value(body), self.payload)
        head = _HEAD.pack(0, self.size_bytes - _LENGTH_COUNTS_FROM, -1, _FORMAT, checksum)
        return b"".join((head, body, self.payload))


def record_sizes(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    message_ids: Sequence[bytes],
    headers: tuple[tuple[str, bytes], ...],
    header_columns: HeaderColumns = (),
) -> list[int]:
    """Returns for each message the most bytes that its record can take in a batch, before compression.

    A batch of fewer than 2^21 records takes at most BATCH_HEADER_BYTES and the sum of these. The bound exceeds the true
    size by up to 16 bytes, and by up to 4 bytes more for each column whose lengths differ much.
    """
    if not values:
        return []
    id_header, tail = _framing(headers, len(header_columns))
    fixed = _MOST_FRAMING_BYTES + len(id_header) + len(tail) + sum(len(_name(name)) for name, _ in header_columns)
    sizes: list[int] = []
    columns = [_nullable_lengths(values), _nullable_lengths(keys), _lengths(message_ids)]
    columns += [_nullable_lengths(column) for _, column in header_columns]
    for lengths in columns:
        shortest, longest = min(lengths), max(lengths)
        fixed += len(_any_varint(longest))
        if shortest == longest:
            fixed += max(longest, 0)
            continue
        content = lengths if shortest >= 0 else [max(length, 0) for length in lengths]
        sizes = list(map(add, sizes, content)) if sizes else content
    return [fixed + size for size in sizes] if sizes else [fixed] * len(values)


def encode_batch(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    message_ids: Sequence[bytes],
    headers: tuple[tuple[str, bytes], ...],
    *,
    timestamps_ms: int | Sequence[int],
    compression: str,
    is_transactional: bool = False,
    header_columns: HeaderColumns = (),
) -> RecordBatch:
    """Encodes messages of one partition as one batch.

    Records that compression does not make smaller are stored uncompressed, so the bound of `record_sizes` always holds.

    Args:
        keys: One a message; None is a null key.
        values: One a message; None: a tombstone.
        message_ids: One a message: the value of the header `message_id`, which comes first.
        headers: Further headers of every message, in their order.
        timestamps_ms: Of all messages, or one a message, in milliseconds since 1970; may be negative and in any order.
        compression: A name of COMPRESSIONS.
        is_transactional: Whether the batch belongs to a transaction.
        header_columns: Headers with a value for each message, which follow the others; a message has none where it is None.

    Raises:
        ValueError: No messages, columns of different lengths, an unknown compression, or a timestamp beyond 64 bits.
    """
    count = len(values)
    if not count or not count == len(keys) == len(message_ids):
        columns = f"{len(keys)} keys, {count} values, {len(message_ids)} message ids"
        raise ValueError(f"A record batch needs columns of one length and at least one message, not {columns}")
    if compression not in COMPRESSIONS:
        raise ValueError(f"Compression is one of {', '.join(COMPRESSIONS)}, not {compression!r}")
    first, latest, starts = _starts(count, timestamps_ms)
    for name, column in header_columns:
        if len(column) != count:
            raise ValueError(f"{count} messages have {len(column)} values of header {name}")
    records = _encoded_records(keys, values, message_ids, headers, starts, header_columns)
    payload, codec = _compressed(records, compression)
    return RecordBatch(count, codec | (_TRANSACTIONAL if is_transactional else 0), first, latest, payload)


# ── records ───────────────────────────────────────────────────────────────────────────────────


def _encoded_records(
    keys: Sequence[bytes | None],
    values: Sequence[bytes | None],
    message_ids: Sequence[bytes],
    headers: tuple[tuple[str, bytes], ...],
    starts: list[bytes] | None,
    header_columns: HeaderColumns,
) -> bytes:
    """Returns the records one after the other; `starts` as `_starts` returns it."""
    count = len(values)
    id_header, tail = _framing(headers, len(header_columns))
    key_lengths = _nullable_lengths(keys)
    key_varints, key_bytes, key_differences = _framed(key_lengths)
    value_lengths = _nullable_lengths(values)
    value_varints, value_bytes, value_differences = _framed(value_lengths)
    id_varints, id_bytes, id_differences = _framed(_lengths(message_ids))
    fixed = len(id_header) + len(tail) + key_bytes + value_bytes + id_bytes
    if starts is None:
        starts, sizes = _plain_starts(count), _with_offsets(fixed + len(_PLAIN_START), count)
    else:
        sizes = [fixed + len(start) for start in starts]
    for differences in (key_differences, value_differences, id_differences):
        if differences:
            sizes = list(map(add, sizes, differences))
    further = _FurtherHeaders.of(header_columns, 1 + len(headers)) if header_columns else None
    if further:
        sizes = list(map(add, sizes, further.sizes))
    step = _PARTS + (len(further.parts) if further else 0)
    parts: list[Any] = [id_header + id_varints[0]] * (count * step)
    parts[0::step] = _varints(sizes)
    parts[1::step] = starts
    parts[2::step] = key_varints
    parts[3::step] = keys if min(key_lengths) >= 0 else [key or b"" for key in keys]
    parts[4::step] = value_varints
    parts[5::step] = values if min(value_lengths) >= 0 else [value or b"" for value in values]
    if further and further.counts:
        name = id_header[len(_any_varint(1 + len(headers) + len(header_columns))) :]
        parts[6::step] = [number + name + varint for number, varint in zip(further.counts, id_varints, strict=True)]
    elif id_differences:
        parts[6::step] = [id_header + varint for varint in id_varints]
    parts[7::step] = message_ids
    parts[8::step] = [tail] * count
    for place, column in enumerate(further.parts if further else (), _PARTS):
        parts[place::step] = column
    # bytes.join needs 80 bytes more for each part, which malloc may take from the system anew each time: 0.15 µs a message.
    records = io.BytesIO()
    records.writelines(parts)
    return records.getvalue()


@dataclass(frozen=True, slots=True)
class _FurtherHeaders:
    """Headers with a value for each message, as columns of parts."""

    parts: list[Sequence[bytes]]
    """For each header the name with the length of the value, then the value; empty where a message has no such header."""
    sizes: list[int]
    """What they take of each record, and what the number of its headers takes less if some are left out."""
    counts: list[bytes]
    """The number of headers of each record; empty if each has all."""

    @classmethod
    def of(cls, header_columns: HeaderColumns, others: int) -> _FurtherHeaders:
        """Returns the parts of these headers, which follow `others` that each record has."""
        parts: list[Sequence[bytes]] = []
        sizes = [0] * len(header_columns[0][1])
        left_out = [0] * len(sizes)
        for name, column in header_columns:
            start, lengths = _name(name), _nullable_lengths(column)
            starts = [start + varint for varint in _varints([max(length, 0) for length in lengths])]
            values: Sequence[Any] = column
            if min(lengths) < 0:
                starts = [b"" if length < 0 else own for own, length in zip(starts, lengths, strict=True)]
                values = [value or b"" for value in column]
                left_out = [n + (length < 0) for n, length in zip(left_out, lengths, strict=True)]
            parts += starts, values
            sizes = [a + len(b) + len(c) for a, b, c in zip(sizes, starts, values, strict=True)]
        if not any(left_out):
            return cls(parts, sizes, [])
        most = others + len(header_columns)
        counts = [_any_varint(most - n) for n in left_out]
        longest = len(_any_varint(most))
        return cls(parts, [size + len(own) - longest for size, own in zip(sizes, counts, strict=True)], counts)


def _starts(count: int, timestamps_ms: int | Sequence[int]) -> tuple[int, int, list[bytes] | None]:
    """Returns base and max timestamp, and attributes, timestamp delta and offset delta of each record.

    The last is None if the records have one timestamp.
    """
    if isinstance(timestamps_ms, int):
        first = earliest = latest = timestamps_ms
    else:
        if len(timestamps_ms) != count:
            raise ValueError(f"{count} messages have {len(timestamps_ms)} timestamps")
        first, earliest, latest = timestamps_ms[0], min(timestamps_ms), max(timestamps_ms)
    if not (_fits(earliest) and _fits(latest) and _fits(earliest - first) and _fits(latest - first)):
        raise ValueError(f"Timestamps from {earliest} to {latest} ms do not fit into a record batch: 64 bits at most")
    if isinstance(timestamps_ms, int) or earliest == latest:
        return first, latest, None
    deltas = (_any_varint(timestamp - first) for timestamp in timestamps_ms)
    starts = [b"\0" + delta + _any_varint(offset) for offset, delta in enumerate(deltas)]
    return first, latest, starts


def _plain_starts(count: int) -> list[bytes]:
    """Returns what `_starts` describes, for records with one timestamp."""
    starts = _STARTS[:count]
    starts += [_PLAIN_START + _varint(offset) for offset in range(len(_STARTS), count)]
    return starts


def _with_offsets(fixed: int, count: int) -> list[int]:
    """Returns `fixed` and the size of the offset delta, for each record."""
    sizes = [fixed + 1] * count
    for step in _VARINT_STEPS:
        if count <= step:
            break
        sizes[step:] = [sizes[-1] + 1] * (count - step)
    return sizes


@lru_cache(maxsize=16)
def _framing(headers: tuple[tuple[str, bytes], ...], columns: int) -> tuple[bytes, bytes]:
    """Returns what precedes the length of a message id, and what follows the id: the headers that all messages share.

    Args:
        headers: Those.
        columns: How many further headers each message has.
    """
    id_header = _varint(1 + len(headers) + columns) + _varint(len(MESSAGE_ID)) + MESSAGE_ID
    named = [(name.encode(), value) for name, value in headers]
    tail = b"".join(
        part for name, value in named for part in (_any_varint(len(name)), name, _any_varint(len(value)), value)
    )
    return id_header, tail


@lru_cache(maxsize=64)
def _name(name: str) -> bytes:
    """Returns the name of a header with its length."""
    encoded = name.encode()
    return _any_varint(len(encoded)) + encoded


# ── lengths and numbers ───────────────────────────────────────────────────────────────────────


def _lengths(column: Sequence[bytes]) -> list[int]:
    return list(map(len, column))


def _nullable_lengths(column: Sequence[bytes | None]) -> list[int]:
    """Returns the length of each key or value, -1 for a null one, as the format has it."""
    try:
        return list(map(len, column))  # type: ignore[arg-type]
    except TypeError:
        return [-1 if cell is None else len(cell) for cell in column]


def _framed(lengths: list[int]) -> tuple[list[bytes], int, list[int]]:
    """Returns the varint of each length, and how many bytes varint and content take.

    The latter in two parts: a number for all records, and a list of what each needs more; empty if none does.
    """
    shortest, longest = min(lengths), max(lengths)
    least, most = _any_varint(shortest), _any_varint(longest)
    if shortest == longest:
        return [least] * len(lengths), len(least) + max(shortest, 0), []
    varints = _varints(lengths)
    if shortest >= 0 and len(least) == len(most):
        return varints, len(least), lengths
    return varints, 0, [len(varint) + max(length, 0) for varint, length in zip(varints, lengths, strict=True)]


def _fits(number: int) -> bool:
    return -(1 << 63) <= number < 1 << 63


def _any_varint(number: int) -> bytes:
    return _VARINTS[number] if 0 <= number < len(_VARINTS) else _varint(number)


def _varints(numbers: list[int]) -> list[bytes]:
    """Returns the varint of each number."""
    known, end = _VARINTS, len(_VARINTS)
    if min(numbers) >= 0 and max(numbers) < end:
        return list(map(known.__getitem__, numbers))
    return [known[number] if 0 <= number < end else _varint(number) for number in numbers]


# ── compression ───────────────────────────────────────────────────────────────────────────────


def _compressed(records: bytes, compression: str) -> tuple[bytes, int]:
    """Returns the payload of a batch and the number of its compression."""
    packed = _COMPRESS[compression](records) if compression != "none" else records
    if len(packed) >= len(records):
        return records, COMPRESSIONS["none"]
    return packed, COMPRESSIONS[compression]


def _gzip(records: bytes) -> bytes:
    return bytes(cramjam.gzip.compress(records, level=_GZIP_LEVEL))


def _snappy(records: bytes) -> bytes:
    view, parts = memoryview(records), [_XERIAL_HEADER]
    for start in range(0, len(records), _SNAPPY_BLOCK_BYTES):
        block = cramjam.snappy.compress_raw(view[start : start + _SNAPPY_BLOCK_BYTES])
        parts += struct.pack(">i", len(block)), block  # type: ignore[arg-type]  # join takes any buffer
    return b"".join(parts)


def _lz4(records: bytes) -> bytes:
    # cramjam's own frames have linked blocks, which Kafka refuses (KIP-57), or keep the GIL while they are compressed.
    view, parts = memoryview(records), [_LZ4_HEADER]
    for start in range(0, len(records), _LZ4_BLOCK_BYTES):
        plain = view[start : start + _LZ4_BLOCK_BYTES]
        block = cramjam.lz4.compress_block(plain, store_size=False)
        if len(block) < len(plain):
            parts += struct.pack("<I", len(block)), block  # type: ignore[arg-type]  # join takes any buffer
        else:
            parts += struct.pack("<I", len(plain) | _LZ4_STORED), plain  # type: ignore[arg-type]
    parts.append(_LZ4_END)
    return b"".join(parts)


def _zstd(records: bytes) -> bytes:
    return bytes(cramjam.zstd.compress(records, level=_ZSTD_LEVEL))


_COMPRESS = {"gzip": _gzip, "snappy": _snappy, "lz4": _lz4, "zstd": _zstd}
