"""For any values of a driver, the JSON is read back as the same values, or the row is a reject; nothing is raised."""

from __future__ import annotations

import base64
import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from core.message.duplicates import DuplicateRows
from core.message.envelope import Encoded, Envelope
from core.model.job import Job, KafkaConfig
from core.model.source import Column, Rows

AT = datetime(2026, 1, 17, 2, 0, tzinfo=UTC)
JOB = Job("job", "Job", "q.sql", "db", kafka_config=KafkaConfig(message_key_field="K"), on_null_key="send")

any_text = st.text(st.characters(codec="utf-8"))
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=9) | st.decimals(
    min_value=-(10**45), max_value=10**45
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "integer": st.integers(-(10**45), 10**45),
    "decimal": decimals.filter(Decimal.is_finite),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "date": st.dates(),
    "datetime": st.datetimes(),
    "datetime_tz": st.datetimes(timezones=st.timezones()),
    "time": st.times(),
    "text": any_text,
    "char": any_text,
    "bytes": st.binary(),
    "boolean": st.booleans(),
    "unknown": any_text | st.integers() | st.booleans(),
}
BACK = {
    "date": lambda value: value.isoformat(),
    "datetime": lambda value: value.isoformat(timespec="microseconds"),
    "datetime_tz": lambda value: value.isoformat(timespec="microseconds"),
    "time": lambda value: value.isoformat(),
    "bytes": lambda value: base64.b64encode(value).decode(),
}
JUNK = st.one_of(
    st.none(),
    st.text(),
    st.binary(),
    st.integers(),
    st.floats(),
    st.decimals(),
    st.booleans(),
    st.dates(),
    st.datetimes(),
    st.times(),
    st.timedeltas(),
    st.lists(st.integers() | st.floats() | st.text(), max_size=3),
    st.dictionaries(st.text(), st.floats() | st.text(), max_size=3),
    st.builds(object),
)


def encode(columns: list[Column], rows: list[tuple[Any, ...]], **more: Any) -> Encoded:
    return Envelope(columns, replace(JOB, **more), scheduled_at=AT).encode(Rows(1, rows, AT))


def read(data: bytes) -> dict[str, Any]:
    return json.loads(data, parse_float=Decimal, parse_constant=lambda name: 1 / 0)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[tuple[Any, ...]]]:
    kinds = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=6))
    row = st.tuples(st.none() | any_text, *(st.none() | VALUES[kind] for kind in kinds))
    return kinds, draw(st.lists(row, min_size=1, max_size=8))


@given(tables())
def test_every_value_reads_back_from_the_json_as_it_was(table):
    kinds, rows = table
    columns = [Column("K", "text", ""), *(Column(f"C{i}", kind, kind) for i, kind in enumerate(kinds))]
    encoded = encode(columns, rows)
    assert encoded.rejects == []
    for row, data, key in zip(rows, encoded.data, encoded.keys, strict=True):
        assert key == (None if row[0] is None else row[0].encode())
        document = read(data)
        assert list(document) == ["k", *(f"c{i}" for i in range(len(kinds)))]
        for i, (kind, value) in enumerate(zip(kinds, row[1:], strict=True)):
            back = document[f"c{i}"]
            if value is None:
                assert back is None
            elif kind == "float":
                assert float(back) == value
            elif kind == "decimal":
                # The sign of a zero is no digit of it; everything else is kept, trailing zeros too.
                assert Decimal(back) == value
            else:
                assert back == BACK.get(kind, lambda same: same)(value)
                assert type(back) is type(value) or kind in BACK


@given(st.data())
def test_anything_at_all_is_a_message_or_a_reject_and_never_an_exception(data):
    kinds = data.draw(st.lists(st.sampled_from([*sorted(VALUES), "oracle_date", "interval", "json"]), max_size=4))
    columns = [Column("K", data.draw(st.sampled_from(sorted(VALUES))), "")]
    columns += [Column(f"C{i}", kind, kind) for i, kind in enumerate(kinds)]
    columns.append(Column("A", "array", "", element="decimal"))
    rows = data.draw(st.lists(st.tuples(*(JUNK for _ in columns)), min_size=1, max_size=6))
    # Values of a JSON column are valid JSON.
    rows = [
        tuple(None if c.kind == "json" and isinstance(v, str | bytes) else v for c, v in zip(columns, row, strict=True))
        for row in rows
    ]
    types = data.draw(
        st.dictionaries(
            st.sampled_from([c.name for c in columns]),
            st.sampled_from(["date", "datetime", "string", "integer", "decimal", "base64", "json"]),
        )
    )
    encoded = encode(columns, rows, types=types, decimals=data.draw(st.sampled_from(["number", "string", "float"])))
    numbers = encoded.row_numbers + [reject.row_number for reject in encoded.rejects]
    assert sorted(numbers) == list(range(1, len(rows) + 1))
    for message, key in zip(encoded.data, encoded.keys, strict=True):
        document = read(message)
        assert [*document] == [c.name.lower() for c in columns]
        if key is not None:
            key.decode("utf-8")
    for reject in encoded.rejects:
        assert reject.reason
        json.dumps(reject.row).encode()


@given(st.floats() | st.decimals(), st.sampled_from(["number", "string", "float"]))
def test_no_number_that_is_not_finite_becomes_a_message(value, form):
    kind = "float" if isinstance(value, float) else "decimal"
    encoded = encode([Column("K", "text", ""), Column("X", kind, "")], [("k", value)], decimals=form)
    finite = math.isfinite(value) if isinstance(value, float) else value.is_finite()
    finite = finite and (form != "float" or math.isfinite(float(value)))
    assert len(encoded.data) == finite


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 20), st.integers(1, 20))
def test_ids_are_unique_and_the_same_for_every_size_of_a_fetch(values, one_size, other_size):
    def ids(size: int) -> list[bytes]:
        envelope = Envelope([Column("K", "integer", "")], JOB, scheduled_at=AT)
        found: list[bytes] = []
        for start in range(0, len(values), size):
            rows = [(value,) for value in values[start : start + size]]
            found += envelope.encode(Rows(start + 1, rows, AT)).message_ids
        return found

    assert ids(one_size) == ids(other_size)
    assert len(set(ids(one_size))) == len(values)


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=50))
def test_a_hash_that_came_before_is_always_known(digests):
    repeats = DuplicateRows()
    first = repeats.numbers(digests)
    again = repeats.numbers(digests)
    assert set(again) == set(range(len(digests)))
    for i, digest in enumerate(digests):
        assert again[i] > first.get(max(j for j, d in enumerate(digests) if d == digest), 0)
