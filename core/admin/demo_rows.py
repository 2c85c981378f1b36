"""The rows of the demo's table: events of parcels, the same ones each time that the demo is made for the same day."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

__all__ = ["BARCODE", "PastDay", "fill_table"]

BARCODE = "572680001120"
"""The barcode of the row that the documentation follows: it is sent on the newest day and on the two days before it."""

_SEED = 572680

_TABLE = """CREATE TABLE EXPORT_TABLE (
  BARCODE VARCHAR(13), TRKDATE DATE, OPERATOR NUMERIC(6), MSGTYPE VARCHAR(2), CAUSAL VARCHAR(3), TEST_FLAG VARCHAR(1),
  PHASE_AT VARCHAR(1), ARRIVETIMESTAMP TIMESTAMP, STATUS VARCHAR(1), TRACK_OFFICE VARCHAR(5), MTF_MTFID NUMERIC(9),
  DATE_OTHER DATE, CANALE VARCHAR(3), CUSTCODE VARCHAR(10), CUST_SPED VARCHAR(5), IDSPED VARCHAR(10)
)"""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class PastDay:
    """The rows of one day before the newest."""

    day: date
    rows: int
    bad: int
    """How many of them cannot become messages."""
    age: int
    """How many days it is before the newest day; from 1."""


_SPOILERS: tuple[Callable[[Row], None], ...] = (
    lambda row: row.update(BARCODE=None),
    lambda row: row.update(OPERATOR="N/D"),
    lambda row: row.update(DATE_OTHER="31/02/2026"),
    lambda row: row.update(MTF_MTFID=float("inf")),
    lambda row: row.update(DATE_OTHER="0000-00-00"),
)
"""Values found in old tables: no key, text in a numeric column, dates that do not exist, an overflowed number."""


def fill_table(file: Path, rows: int, day: date, past: Sequence[PastDay] = ()) -> None:
    """Creates and fills the table in one transaction without fsync: an interrupted demo is created again.

    Args:
        file: The new SQLite file.
        rows: Rows of the newest day that the query reads; 120 more are of other days and of tests.
        day: The newest day.
        past: The days before it.
    """
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=OFF")
        db.execute("PRAGMA synchronous=OFF")
        db.execute("BEGIN")
        db.execute(_TABLE)
        marks = ", ".join("?" * 16)
        made = chain(chain.from_iterable(map(_past_rows, past)), _table_rows(rows, day, has_past=bool(past)))
        db.executemany(f"INSERT INTO EXPORT_TABLE VALUES ({marks})", made)  # noqa: S608 - only marks
        db.execute("CREATE INDEX EXPORT_TABLE_TRKDATE ON EXPORT_TABLE (DATE(TRKDATE))")
        db.execute("COMMIT")


def _table_rows(rows: int, day: date, *, has_past: bool) -> Iterator[tuple[Any, ...]]:
    """Yields the rows of the newest day, and those that the query excludes: of tests and, without a past, of neighbouring days."""
    make = partial(_row, random.Random(_SEED))  # noqa: S311 - the same rows each time
    spoilt = _spoilt(rows, max(min(5, rows // 10), rows // 4000))
    yield tuple(_first_row(day).values())
    for number in range(1, rows):
        row = make(number, day, share=number / rows)
        if number in spoilt:
            spoilt[number](row)
        yield tuple(row.values())
    for number in range(rows, rows + 40):
        if not has_past:
            yield tuple(make(number, day - timedelta(days=1), share=0.9).values())
        yield tuple(make(number + 40, day + timedelta(days=1), share=0.1).values())
        yield tuple((make(number + 80, day, share=0.5) | {"TEST_FLAG": "S"}).values())


def _past_rows(past: PastDay) -> Iterator[tuple[Any, ...]]:
    """Yields the rows of one earlier day; the documented parcel is among those of the two days before the newest."""
    make = partial(_row, random.Random(_SEED + past.age))  # noqa: S311 - the same rows each time
    spoilt = _spoilt(past.rows, past.bad, past.age)
    for number in range(past.rows):
        row = make(-past.age * _NUMBERS_A_DAY - number, past.day, share=number / past.rows)
        if number in spoilt:
            spoilt[number](row)
        elif number == past.rows // 3 and past.age in _EARLIER_EVENTS:
            kind, causal, phase = _EARLIER_EVENTS[past.age]
            row |= {"BARCODE": BARCODE, "MSGTYPE": kind, "CAUSAL": causal, "PHASE_AT": phase}
        yield tuple(row.values())


def _spoilt(rows: int, bad: int, first: int = 0) -> dict[int, Callable[[Row], None]]:
    """Returns which rows are spoilt, and how: evenly over the day, beginning with the spoiler of that number."""
    return {(i + 1) * rows // (bad + 1): _SPOILERS[(first + i) % len(_SPOILERS)] for i in range(bad)}


_NUMBERS_A_DAY = 5_000
_EARLIER_EVENTS = {2: ("M1", "ACC", "A"), 1: ("M2", "SMI", "L")}
"""Days before the newest → what happened to the documented parcel then: accepted, sorted."""


def _first_row(day: date) -> Row:
    """Returns the row that the documentation follows."""
    return {
        "BARCODE": BARCODE,
        "TRKDATE": day.isoformat(),
        "OPERATOR": 848,
        "MSGTYPE": "M3",
        "CAUSAL": "RKE",
        "TEST_FLAG": "N",
        "PHASE_AT": "W",
        "ARRIVETIMESTAMP": f"{day} 11:50:32.665000",
        "STATUS": "N",
        "TRACK_OFFICE": "38713",
        "MTF_MTFID": 9,
        "DATE_OTHER": day.isoformat(),
        "CANALE": "SGU",
        "CUSTCODE": "0030526661",
        "CUST_SPED": "PS6",
        "IDSPED": "S2132224",
    }


def _row(chance: random.Random, number: int, day: date, *, share: float) -> Row:
    """Returns one event of one parcel; `share` (0 to 1) is its time in the working day (05:00 to 22:00)."""
    pick = chance.random
    parcel = int(BARCODE) + 7 * number
    if number % 50 == 0:  # an old series with leading zeros
        parcel -= 570_000_000_000
    arrived = datetime(day.year, day.month, day.day, 5) + timedelta(hours=17 * share, milliseconds=int(pick() * 900))  # noqa: DTZ001 - the table has local times
    channel, sender = _CHANNELS[int(pick() * len(_CHANNELS))]
    kind, causal, phase = _EVENTS[int(pick() * len(_EVENTS))]
    return {
        "BARCODE": f"{parcel:012d}",
        "TRKDATE": day.isoformat(),
        "OPERATOR": 800 + int(pick() * 120),
        "MSGTYPE": kind,
        "CAUSAL": causal,
        "TEST_FLAG": "N",
        "PHASE_AT": phase,
        "ARRIVETIMESTAMP": arrived.isoformat(" ", "microseconds"),
        "STATUS": "N" if pick() < 0.95 else "R",
        "TRACK_OFFICE": f"{10_000 + int(pick() * 60_000)}",
        "MTF_MTFID": 1 + int(pick() * 12),
        "DATE_OTHER": (day - timedelta(days=int(pick() * 3))).isoformat() if pick() < 0.9 else None,
        "CANALE": channel,
        "CUSTCODE": f"{30_000_000 + int(pick() * 900_000):010d}",
        "CUST_SPED": sender,
        "IDSPED": f"S{2_000_000 + int(pick() * 500_000)}",
    }


_CHANNELS = (("SGU", "PS6"), ("SGU", "PS1"), ("WEB", "PW2"), ("RIT", "PS6"), (None, "PX9"))
_EVENTS = (
    ("M1", "ACC", "A"),
    ("M2", "SMI", "L"),
    ("M3", "RKE", "W"),
    ("M3", "CNS", "D"),
    ("M4", "GIA", "D"),
    ("M4", "RSO", "R"),
)
