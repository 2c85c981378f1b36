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

__all__ = ["Int64", "doubles", "framed", "prefixed", "varint", "varints", "zigzag"]

Int64 = npt.NDArray[np.int64]
_LENGTHS = 4_096
"""Lengths below this come from a table."""
_MOST_BYTES = 10


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


def prefixed(prefix: bytes, *, is_zigzag: bool) -> Callable[[int], bytes]:
    """Returns a function from the length of a text to a constant prefix and that length; a table serves the usual ones."""
    encode = zigzag if is_zigzag else varint
    table = [prefix + encode(length) for length in range(_LENGTHS)]

    def of(length: int) -> bytes:
        return table[length] if length < _LENGTHS else prefix + encode(length)

    return of


def framed(
    values: Sequence[bytes | None], frame: Callable[[int], bytes], null: bytes
) -> tuple[list[bytes], list[bytes]]:
    """Returns what precedes each value and each value itself; `null` and nothing where it is None."""
    if None in values:
        starts = [null if value is None else frame(len(value)) for value in values]
        return starts, [value or b"" for value in values]
    present: list[Any] = list(values)
    return list(map(frame, map(len, present))), present
