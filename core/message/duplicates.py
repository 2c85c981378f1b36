"""Which rows of a run are equal to an earlier one: flat memory for any number of rows.

A row's identity is a hash of its JSON. Rows that are equal in every column would share it, and a reader that
drops what it has seen would drop one of them; so the second, third … of equal rows are numbered. To know them
exactly would take 16 bytes and more for each row of the run; a Bloom filter and a count-min sketch take 19 MB
for any number. They err in one direction only: a row may be numbered that is the first of its kind, never the
other way round, and the numbers of equal rows always rise. So ids are unique whatever happens. They are those of
every other attempt as long as no row is numbered by mistake: under a million rows hardly ever, over ten million
1 row in 1,000, and even those keep their ids while the rows come in the same order. `docs/decisions/012`.
"""

from __future__ import annotations

from array import array

import numpy as np

__all__ = ["DuplicateRows"]

_FILTER_BITS = 27
"""2^27 bits, 16 MB: 13 bits a row over ten million rows."""
_SKETCH_BITS = 18
_WORDS = 4
"""Of 32 bits, of a 128-bit hash: places in the filter, and in the sketch."""


class DuplicateRows:
    """Hashes seen so far in one run."""

    def __init__(self) -> None:
        self._filter = np.zeros(1 << (_FILTER_BITS - 3), np.uint8)
        self._counts = [array("I", bytes(4 << _SKETCH_BITS)) for _ in range(_WORDS - 1)]

    def numbers(self, digests: list[bytes]) -> dict[int, int]:
        """Takes the hashes of the next rows.

        Args:
            digests: 16 bytes each.

        Returns:
            Index of each row that equals an earlier one of the run → its number among them, from 1.
        """
        words = np.frombuffer(b"".join(digests), "<u4").reshape(-1, _WORDS) >> np.uint32(32 - _FILTER_BITS)
        places, bits = words >> 3, np.left_shift(np.uint8(1), (words & 7).astype(np.uint8))
        known = ((self._filter[places] & bits) != 0).all(axis=1)
        np.bitwise_or.at(self._filter, places.ravel(), bits.ravel())
        repeated = set(np.flatnonzero(known).tolist())
        if len(set(digests)) != len(digests):
            repeated |= _repeated_here(digests)
        return {i: self._count(digests[i]) for i in sorted(repeated)}

    def _count(self, digest: bytes) -> int:
        """How often this hash came again, or more: others may share its places, but not easily all of them."""
        mask = (1 << _SKETCH_BITS) - 1
        places = [int.from_bytes(digest[4 * k : 4 * k + 4], "little") & mask for k in range(_WORDS - 1)]
        number = min(counts[place] for counts, place in zip(self._counts, places, strict=True)) + 1
        for counts, place in zip(self._counts, places, strict=True):
            counts[place] = max(counts[place], number)
        return number


def _repeated_here(digests: list[bytes]) -> set[int]:
    """All but the first of those that are equal within this list."""
    seen: set[bytes] = set()
    again = set()
    for i, digest in enumerate(digests):
        if digest in seen:
            again.add(i)
        seen.add(digest)
    return again
