"""Columns of values as columns of bytes: variable-length integers, lengths, numbers. Shared by Avro and Protobuf.

Every function takes a whole column and has one C-level loop or one numpy operation for it: one Python call a value
would make a row of 16 columns three times as slow.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Int64",
    "LengthPrefix",
    "Pieces",
    "Problem",
    "doubles",
    "framed",
    "once_each",
    "varint",
    "varints",
    "zigzag",
]

Int64 = npt.NDArray[np.int64]
Pieces = list[Sequence[bytes]]
"""Columns of bytes whose concatenation, row by row, is one field."""
Problem = Callable[[int, str], None]
"""Called with the number of a row and why its value cannot be encoded."""
_SAFE_KEYS = {str, int, type(None)}
_SAMPLE = 256
"""So many values decide whether a column repeats itself."""
_LENGTHS = 4_096
"""Lengths below this come from a table."""


def varint(number: int) -> bytes:
    """Returns a whole number from 0 on, 7 bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> bytes:
    """Returns a signed number of 64 bits as Avro's long."""
    return varint((number << 1) ^ (number >> 63) if number < 0 else number << 1)


def varints(numbers: Int64, *, is_zigzag: bool) -> list[bytes]:
    """Returns each number of 64 bits as variable-length integer.

    Args:
        numbers: The numbers.
        is_zigzag: Avro's long, in which the sign is the lowest bit; else a negative number takes 10 bytes (Protobuf's int64).
    """
    count = len(numbers)
    if not count:
        return []
    raw = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64) if is_zigzag else numbers.view(np.uint64)
    width = len(varint(int(raw.max())))
    shifts = np.arange(width, dtype=np.uint64) * np.uint64(7)
    groups = raw[:, None] >> shifts
    out = (groups & np.uint64(0x7F)).astype(np.uint8)
    out[:, :-1] |= np.where(groups[:, 1:] > 0, 0x80, 0).astype(np.uint8)
    lengths = 1 + (groups[:, 1:] > 0).sum(axis=1)
    flat = out.tobytes()
    if int(lengths.min()) == width:
        return list(struct.unpack(f"{width}s" * count, flat))
    return [flat[at : at + length] for at, length in zip(range(0, width * count, width), lengths.tolist(), strict=True)]


def doubles(values: Sequence[float]) -> list[bytes]:
    """Returns each number as 8 bytes, IEEE 754, little-endian."""
    return list(struct.unpack("8s" * len(values), np.array(values, "<f8").tobytes()))


class LengthPrefix:
    """What precedes a text of some length: a constant, such as a tag, and the length; a table serves the usual ones."""

    def __init__(self, prefix: bytes, *, is_zigzag: bool) -> None:
        self._prefix, self._encode = prefix, zigzag if is_zigzag else varint
        self._table = [prefix + self._encode(length) for length in range(_LENGTHS)]

    def of(self, lengths: list[int]) -> list[bytes]:
        """Returns what precedes texts of these lengths."""
        if not lengths or max(lengths) < _LENGTHS:
            return list(map(self._table.__getitem__, lengths))
        return [self._prefix + self._encode(length) for length in lengths]


def framed(values: Sequence[bytes | None], prefix: LengthPrefix, null: bytes) -> Pieces:
    """Returns what precedes each value and each value itself; `null` and nothing where it is None."""
    present: list[Any] = list(values) if None not in values else [value for value in values if value is not None]
    starts = prefix.of(list(map(len, present)))
    if len(present) == len(values):
        return [starts, present]
    left = iter(starts)
    return [[null if value is None else next(left) for value in values], [value or b"" for value in values]]


def once_each(cells: Sequence[Any], encode: Callable[[Sequence[Any], Problem], Pieces], reject: Problem) -> Pieces:
    """Encodes a column; the values of one that repeats the same few, as dates and codes do, are encoded once each."""
    sample = cells[:_SAMPLE]
    # Of one type only: 1, 1.0 and True are one key of a dict, and 0.0 and -0.0 too.
    if len(cells) < _SAMPLE or not set(map(type, sample)) <= _SAFE_KEYS or len(set(sample)) * 4 > len(sample):
        return encode(cells, reject)
    distinct = list(set(cells))
    types = set(map(type, distinct))
    if len(distinct) * 4 > len(cells) or not types <= _SAFE_KEYS or {str, int} <= types:
        return encode(cells, reject)
    refused: list[int] = []
    pieces = encode(distinct, lambda row, reason: refused.append(row))
    if refused:
        return encode(cells, reject)
    table = dict(zip(distinct, map(b"".join, zip(*pieces, strict=True)), strict=True))
    return [list(map(table.__getitem__, cells))]
