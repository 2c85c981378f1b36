"""The condition of `null_value_when`: compared with what SQLite answers, and its errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.message.predicate import parse_predicate

ROWS = [("Y", 1, 1.5), ("N", 2, None), (None, 0, 2.0), ("it's", -3, 0.0), ("y", None, -1.25)]


@pytest.fixture(scope="module")
def db() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:")) as made:
        made.execute("CREATE TABLE t (deleted TEXT, n INTEGER, x REAL)")
        made.executemany("INSERT INTO t VALUES (?, ?, ?)", ROWS)
        yield made


CONDITIONS = [
    "DELETED = 'Y'",
    "deleted <> 'Y'",
    "deleted != 'Y' AND n > 0",
    "deleted IS NULL OR n >= 2",
    "deleted IS NOT NULL AND NOT n = 1",
    "NOT (deleted = 'Y' OR n < 0)",
    "deleted IN ('Y', 'it''s')",
    "n NOT IN (1, 2)",
    "n <= -3 OR x = 2",
    '"x" < 1.5',
    "n = 1 OR n = 2 AND deleted = 'N'",
]


@pytest.mark.parametrize("text", CONDITIONS)
def test_a_condition_is_true_where_sql_says_so(db: sqlite3.Connection, text: str) -> None:
    expected = [found == 1 for (found,) in db.execute(f"SELECT {text} FROM t ORDER BY rowid")]
    columns = dict(zip(("deleted", "n", "x"), zip(*ROWS, strict=True), strict=True))
    assert parse_predicate(text).of(columns, len(ROWS)) == expected


COMPARISONS = st.builds(
    "{} {} {}".format,
    st.sampled_from(["n", "x"]),
    st.sampled_from(["=", "<>", "<", "<=", ">", ">="]),
    st.sampled_from(["0", "1", "2.0", "-1.25"]),
)
NESTED = st.recursive(
    COMPARISONS | st.sampled_from(["deleted IS NULL", "deleted = 'Y'"]),
    lambda inner: (
        st.builds("({} AND {})".format, inner, inner)
        | st.builds("({} OR {})".format, inner, inner)
        | st.builds("(NOT {})".format, inner)
    ),
    max_leaves=6,
)


@given(NESTED)
def test_nested_conditions_follow_three_valued_logic(db: sqlite3.Connection, text: str) -> None:
    expected = [found == 1 for (found,) in db.execute(f"SELECT {text} FROM t ORDER BY rowid")]
    columns = dict(zip(("deleted", "n", "x"), zip(*ROWS, strict=True), strict=True))
    assert parse_predicate(text).of(columns, len(ROWS)) == expected


def test_exact_numbers_texts_with_blanks_and_booleans_compare() -> None:
    raw = [msgspec.Raw(b"1.50"), msgspec.Raw(b"1.49"), 2]
    assert parse_predicate("price >= 1.5").of({"price": raw}, 3) == [True, False, True]
    assert parse_predicate("flag = 'Y'").of({"flag": ["Y  ", "Y", " Y"]}, 3) == [True, True, False]
    assert parse_predicate("gone = TRUE").of({"gone": [True, False, None]}, 3) == [True, False, False]
    assert parse_predicate("gone = 1").of({"gone": [True, False, None]}, 3) == [True, False, False]
    assert parse_predicate("code = 7").of({"code": ["7", "x", "07"]}, 3) == [True, False, True]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a column is expected, not the end"),
        ("DELETED", "is expected, not the end"),
        ("DELETED == 'Y'", "a literal is expected, not '=' at character 10"),
        ("DELETED = Y", "a literal is expected, not 'Y'"),
        ("DELETED = 'Y", 'a column, a literal or an operator is expected, not "\'"'),
        ("DELETED = 'Y' OR", "a column is expected"),
        ("DELETED = 'Y') OR X = 1", "nothing more is expected"),
        ("(DELETED = 'Y'", ") is expected"),
        ("DELETED IN ()", "a literal is expected"),
        ("DELETED NOT = 1", "IN is expected"),
        ("DELETED IS 1", "NULL is expected"),
        ("A = 1; DROP TABLE t", "is expected, not ';'"),
        ("LOWER(A) = 'y'", "is expected, not '('"),
    ],
)
def test_what_is_no_condition_is_refused_with_the_place(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_predicate(text)
    assert told in caught.value.why
