"""What sources with a DBAPI cursor share: its rows in blocks, and a value that drivers widen."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

__all__ = ["fetched", "fetched_in_pieces", "shortest_single"]

FIRST_ROWS = 16
"""Rows of the first piece, while their rate is not known yet."""


def fetched(cursor: Any, fetch_rows: int) -> Iterator[Sequence[Any]]:
    """Yields the blocks of a DBAPI cursor and closes it."""
    try:
        while rows := cursor.fetchmany(fetch_rows):
            yield rows
    finally:
        cursor.close()


def fetched_in_pieces(
    cursor: Any, fetch_rows: int, note_response: Callable[[], None], silence_s: float
) -> Iterator[Sequence[Any]]:
    """Yields the blocks like `fetched`, in pieces, so that rows that arrive one a second count as responses.

    Calls `note_response` for each piece. Pieces grow while they arrive quickly: from the eighth on, one is a whole block.
    """
    piece_rows = FIRST_ROWS
    block: list[Any] = []
    try:
        while True:
            began = monotonic()
            cursor.arraysize = min(piece_rows, fetch_rows - len(block))
            piece = cursor.fetchmany(cursor.arraysize)
            note_response()
            block += piece
            if monotonic() - began < silence_s / 20:
                piece_rows = min(2 * piece_rows, fetch_rows)
            elif monotonic() - began > silence_s / 4:
                piece_rows = max(piece_rows // 2, 1)
            if len(block) >= fetch_rows or not piece:
                if not block:
                    return
                yield block
                block = []
    finally:
        with suppress(Exception):  # the connection may be cut already; the rows are read
            cursor.close()


def shortest_single(value: float) -> float:
    """Returns the shortest double that equals the same single-precision number: drivers widen 0.1 to 0.10000000149."""
    for digits in range(6, 10):
        candidate = float(f"{value:.{digits}g}")
        try:
            if struct.pack("<f", candidate) == struct.pack("<f", value):
                return candidate
        except OverflowError:  # rounded up beyond the largest one
            continue
    return value
