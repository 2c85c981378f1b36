"""Numbers the rows of a run that are equal to an earlier one, in constant memory.

A message id is a hash of the row's JSON. Rows that are equal in every column would get the same id, and a consumer that
drops duplicates would drop one of them; so the second, third, … of equal rows are numbered. Exact bookkeeping would take
at least 16 bytes for each row of the run; a Bloom filter and a count-min sketch take 19 MB for any number of rows. They
err in one direction only: they may number the first row of its kind, never the other way round, and the numbers of equal
rows always increase. So ids are always unique. Another attempt computes the same ids unless a row is numbered by
mistake: hardly ever below a million rows, 1 row in 1,000 at ten million, and even those keep their ids while the rows
come in the same order. See docs/decisions/012.
"""

from __future__ import annotations

from array import array

import numpy as np

__all__ = ["DuplicateRows"]

_FILTER_BITS = 27
"""2^27 bits, 16 MB: 13 bits a row over ten million rows."""
_SKETCH_BITS = 18
_WORDS = 4
"""A 128-bit hash is used as four 32-bit words: positions in the filter and in the sketch."""


class DuplicateRows:
    """The hashes of one run so far."""

    def __init__(self) -> None:
        self._filter = np.zeros(1 << (_FILTER_BITS - 3), np.uint8)
        self._counts = [array("I", bytes(4 << _SKETCH_BITS)) for _ in range(_WORDS - 1)]

    def numbers(self, digests: list[bytes]) -> dict[int, int]:
        """Adds the hashes of the next rows.

        Args:
            digests: 16 bytes each.

        Returns:
            Index of each row that equals an earlier one of the run → its number among them, from 1.
        """
        words = np.frombuffer(b"".join(digests), "<u4").reshape(-1, _WORDS) >> np.uint32(32 - _FILTER_BITS)
        positions, bits = words >> 3, np.left_shift(np.uint8(1), (words & 7).astype(np.uint8))
        known = ((self._filter[positions] & bits) != 0).all(axis=1)
        np.bitwise_or.at(self._filter, positions.ravel(), bits.ravel())
        repeated = set(np.flatnonzero(known).tolist())
        if len(set(digests)) != len(digests):
            repeated |= _repeated_here(digests)
        return {i: self._count(digests[i]) for i in sorted(repeated)}

    def _count(self, digest: bytes) -> int:
        """Returns how often this hash was repeated, or more: other hashes may share some of its positions, rarely all."""
        mask = (1 << _SKETCH_BITS) - 1
        positions = [int.from_bytes(digest[4 * k : 4 * k + 4], "little") & mask for k in range(_WORDS - 1)]
        number = min(counts[position] for counts, position in zip(self._counts, positions, strict=True)) + 1
        for counts, position in zip(self._counts, positions, strict=True):
            counts[position] = max(counts[position], number)
        return number


def _repeated_here(digests: list[bytes]) -> set[int]:
    """Returns the indexes of all but the first of equal hashes within this list."""
    seen: set[bytes] = set()
    again = set()
    for i, digest in enumerate(digests):
        if digest in seen:
            again.add(i)
        seen.add(digest)
    return again
