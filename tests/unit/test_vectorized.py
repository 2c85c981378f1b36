"""Times as PostgreSQL writes them, without trailing zeros, get six digits, a whole column at once."""

from datetime import datetime

from hypothesis import example, given
from hypothesis import strategies as st

from core.message.column_types import COLUMN_TYPES

SECOND = datetime(2026, 1, 16, 11, 50, 32)  # noqa: DTZ001 - a TIMESTAMP of a database has no zone
COLUMNS = st.lists(st.none() | st.datetimes(), min_size=1).filter(any)


def short(moment: datetime) -> str:
    """PostgreSQL's text: `2026-01-16 11:50:32.66`."""
    text = moment.isoformat(" ")
    return text.rstrip("0") if moment.microsecond else text


def whole(moment: datetime) -> str:
    return moment.isoformat("T", "microseconds")


@given(COLUMNS)
@example([SECOND, None, *(SECOND.replace(microsecond=10**n) for n in range(6))])
def test_a_column_of_timestamps_is_taken_at_once_with_six_digits_each(column):
    given_ = [None if v is None else short(v) for v in column]
    assert COLUMN_TYPES["datetime"].column(given_) == [None if v is None else whole(v) for v in column]


@given(COLUMNS)
@example([SECOND, None, *(SECOND.replace(microsecond=10**n) for n in range(6))])
def test_a_column_of_timestamps_with_time_zone_is_taken_at_once_with_its_offset(column):
    """The session's zone is UTC."""
    given_ = [None if v is None else f"{short(v)}+00" for v in column]
    assert COLUMN_TYPES["datetime_tz"].column(given_) == [None if v is None else f"{whole(v)}+00:00" for v in column]
