"""Numbers the rows of a run that are equal to an earlier one, in constant memory.

A message id is a hash of the row's JSON. Rows that are equal in every column would get the same id, and a consumer that
drops duplicates would drop one of them; so the second, third, … of equal rows are numbered. Exact bookkeeping would take
at least 16 bytes for each row of the run; a Bloom filter and a count-min sketch take 19 MB for any number of rows. They
err in one direction only: they may number the first row of its kind, never the other way round, and the numbers of equal
rows always increase. So ids are always unique. Another attempt computes the same ids unless a row is numbered by
mistake: hardly ever below a million rows, 2 rows in 1,000 at ten million, and even those keep their ids while the rows
come in the same order. See docs/decisions/012.
"""

from __future__ import annotations

from array import array

import numpy as np

__all__ = ["DuplicateRows"]

_FILTER_WORD_BITS = 21
"""2^21 words of 64 bits, 16 MB: 13 bits a row over ten million rows."""
_BITS_A_ROW = 6
"""All in one word, so that a row costs one access to memory that is not in the processor's cache. With six bits as few rows
are numbered by mistake as with four anywhere in the filter."""
_SKETCH_BITS = 18
_SKETCH_ROWS = 3


class DuplicateRows:
    """The hashes of one run so far."""

    def __init__(self) -> None:
        self._filter = np.zeros(1 << _FILTER_WORD_BITS, np.uint64)
        self._counts = [array("I", bytes(4 << _SKETCH_BITS)) for _ in range(_SKETCH_ROWS)]

    def numbers(self, digests: list[bytes]) -> dict[int, int]:
        """Adds the hashes of the next rows.

        Args:
            digests: 16 bytes each.

        Returns:
            Index of each row that equals an earlier one of the run → its number among them, from 1.
        """
        hashes = np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)
        words, places = (hashes[:, 0] >> np.uint64(64 - _FILTER_WORD_BITS)).astype(np.intp), hashes[:, 1]
        bits = np.zeros(len(digests), np.uint64)
        for number in range(_BITS_A_ROW):
            bits |= np.uint64(1) << (places >> np.uint64(6 * number) & np.uint64(63))
        known = (self._filter[words] & bits) == bits
        np.bitwise_or.at(self._filter, words, bits)
        repeated = set(np.flatnonzero(known).tolist())
        if len(set(digests)) != len(digests):
            repeated |= _repeated_here(digests)
        return {i: self._count(digests[i]) for i in sorted(repeated)}

    def _count(self, digest: bytes) -> int:
        """Returns how often this hash was repeated, or more: other hashes may share some of its positions, rarely all."""
        mask = (1 << _SKETCH_BITS) - 1
        positions = [int.from_bytes(digest[4 * k : 4 * k + 4], "little") & mask for k in range(_SKETCH_ROWS)]
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
