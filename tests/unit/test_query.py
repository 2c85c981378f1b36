"""From an SQL file to the statements that reach a driver, and the errors of invalid files."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from core.errors import SqlError
from core.model.query import Parameter, Query
from core.sources import database_types, find_dialect
from core.sql.parser import load, parse

DIALECTS: tuple[str, ...] = database_types()

SPEC = """define DATA='2026-01-17'  --Obbligatorio: Data estrazione (YYYY-MM-DD)
SELECT BARCODE, TRKDATE, ARRIVETIMESTAMP FROM EXPORT_TABLE
WHERE TRUNC(TRKDATE) = TO_DATE('&DATA', 'YYYY-MM-DD') AND TEST_FLAG = 'N' ORDER BY ARRIVETIMESTAMP;
"""

DEFINES = """define X='v'
define N=5 --Opzionale: how many
define PRICE=1.50
define DAY=2026-01-17 --Opzionale: day [type=date]
define AT='2026-01-17T08:00:00.5' --Opzionale: [type=datetime]
define TXT=abc --Opzionale: [type=string]
define AMOUNT=3 --Opzionale: [type=decimal]
define COL=BARCODE --Opzionale: column [allowed=BARCODE,TRKDATE]
define YY=26 --Opzionale: year [allowed=25,26]
"""
DEFINE_LINES = DEFINES.count("\n")


def bound(text: str, db_type: str, values: dict[str, str] | None = None, **options: Any) -> Query:
    return parse(text, name="q.sql", dialect=find_dialect(db_type)).bind(values or {}, **options)


def refusal(text: str | bytes, db_type: str = "oracle", values: dict[str, str] | None = None) -> SqlError:
    with pytest.raises(SqlError) as caught:
        parse(text, name="q.sql", dialect=find_dialect(db_type), file=Path("queries/q.sql")).bind(values or {})
    return caught.value


# ── the example of SPEC 4 ──


def test_example_of_the_contract_becomes_one_statement_with_one_bind() -> None:
    parsed = parse(SPEC, name="CDG.sql", dialect=find_dialect("oracle"))
    assert parsed.parameters == (
        Parameter("DATA", "2026-01-17", mandatory=True, description="Data estrazione (YYYY-MM-DD)", line=1),
    )
    query = parsed.bind({"DATA": "2026-01-16"})
    (step,) = query.steps
    assert step.sql == SPEC.split("\n", 1)[1].rstrip(";\n").replace("'&DATA'", ":P_DATA")
    assert step.binds == {"P_DATA": "2026-01-16"}
    assert (step.returns_rows, step.line) == (True, 2)
    assert query.values == {"DATA": "2026-01-16"}
    assert query.sha256 == hashlib.sha256(SPEC.encode()).hexdigest()


def test_example_without_its_parameter_says_how_to_give_it() -> None:
    error = refusal(SPEC)
    assert str(error) == (
        "q.sql, line 1: mandatory parameter DATA (Data estrazione (YYYY-MM-DD)) has no value: the value on its define line"
        ' is only an example. give it in the job ("parameters": {"DATA": "…"}) or with --param DATA=…'
    )


# ── what takes the place of a parameter ──

# One row per form, with the statement of each dialect. PostgreSQL joins a literal before binding it (decision 004).
BINDS: list[tuple[str, dict[str, tuple[str, Any]]]] = [
    (
        "SELECT '&X'",
        {
            "oracle": ("SELECT :P_X", {"P_X": "v"}),
            "sqlite": ("SELECT :P_X", {"P_X": "v"}),
            "postgresql": ("SELECT %(P_X)s", {"P_X": "v"}),
            "sqlserver": ("SELECT ?", ("v",)),
        },
    ),
    (
        "SELECT 'a&X.b'",
        {
            "oracle": ("SELECT ('a' || :P_X || 'b')", {"P_X": "v"}),
            "sqlite": ("SELECT ('a' || :P_X || 'b')", {"P_X": "v"}),
            "postgresql": ("SELECT %(P_X)s", {"P_X": "avb"}),
            "sqlserver": ("SELECT ('a' + ? + 'b')", ("v",)),
        },
    ),
    (
        "SELECT 1 FROM t WHERE a LIKE '%&X%'",
        {
            "oracle": ("SELECT 1 FROM t WHERE a LIKE ('%' || :P_X || '%')", {"P_X": "v"}),
            "sqlite": ("SELECT 1 FROM t WHERE a LIKE ('%' || :P_X || '%')", {"P_X": "v"}),
            "postgresql": ("SELECT 1 FROM t WHERE a LIKE %(P_X)s", {"P_X": "%v%"}),
            "sqlserver": ("SELECT 1 FROM t WHERE a LIKE ('%' + ? + '%')", ("v",)),
        },
    ),
    (
        "SELECT '&X&N', '&X..&N', '&&X'",
        {
            "oracle": ("SELECT (:P_X || :P_N), (:P_X || '.' || :P_N), :P_X", {"P_X": "v", "P_N": "5"}),
            "sqlite": ("SELECT (:P_X || :P_N), (:P_X || '.' || :P_N), :P_X", {"P_X": "v", "P_N": "5"}),
            "postgresql": (
                "SELECT %(P_X)s, %(P_X_2)s, %(P_X_3)s",
                {"P_X": "v5", "P_X_2": "v.5", "P_X_3": "v"},
            ),
            "sqlserver": ("SELECT (? + ?), (? + '.' + ?), ?", ("v", "5", "v", "5", "v")),
        },
    ),
    (
        "SELECT 'it''s &X'",
        {
            "oracle": ("SELECT ('it''s ' || :P_X)", {"P_X": "v"}),
            "sqlite": ("SELECT ('it''s ' || :P_X)", {"P_X": "v"}),
            "postgresql": ("SELECT %(P_X)s", {"P_X": "it's v"}),
            "sqlserver": ("SELECT ('it''s ' + ?)", ("v",)),
        },
    ),
    (
        "SELECT &N + &PRICE",
        {
            "oracle": ("SELECT :P_N + :P_PRICE", {"P_N": 5, "P_PRICE": Decimal("1.50")}),
            "sqlite": ("SELECT :P_N + :P_PRICE", {"P_N": 5, "P_PRICE": 1.5}),
            "postgresql": ("SELECT %(P_N)s + %(P_PRICE)s", {"P_N": 5, "P_PRICE": Decimal("1.50")}),
            "sqlserver": ("SELECT ? + ?", (5, Decimal("1.50"))),
        },
    ),
    (
        "SELECT &DAY, &AT, &TXT, &AMOUNT",
        {
            "oracle": (
                "SELECT :P_DAY, :P_AT, :P_TXT, :P_AMOUNT",
                {
                    "P_DAY": date(2026, 1, 17),
                    "P_AT": datetime(2026, 1, 17, 8, 0, 0, 500000),  # noqa: DTZ001
                    "P_TXT": "abc",
                    "P_AMOUNT": Decimal(3),
                },
            ),
            "sqlite": (
                "SELECT :P_DAY, :P_AT, :P_TXT, :P_AMOUNT",
                {"P_DAY": "2026-01-17", "P_AT": "2026-01-17 08:00:00.500000", "P_TXT": "abc", "P_AMOUNT": 3.0},
            ),
        },
    ),
    (
        "SELECT '&DAY'",
        {
            "oracle": ("SELECT :P_DAY", {"P_DAY": "2026-01-17"}),
            "sqlserver": ("SELECT ?", ("2026-01-17",)),
        },
    ),
    (
        "SELECT '&X'AND'&X'",
        {
            "oracle": ("SELECT :P_X AND :P_X", {"P_X": "v"}),
            "postgresql": ("SELECT %(P_X)s AND %(P_X_2)s", {"P_X": "v", "P_X_2": "v"}),
            "sqlserver": ("SELECT ? AND ?", ("v", "v")),
        },
    ),
    (
        "SELECT '100%', '&X' -- 5 %s",
        {
            "oracle": ("SELECT '100%', :P_X -- 5 %s", {"P_X": "v"}),
            "postgresql": ("SELECT '100%%', %(P_X)s -- 5 %%s", {"P_X": "v"}),
        },
    ),
    (
        "SELECT N'&X', N'a&X', q'[it's &X]', nq'!&X!a!', Q'{&X}' FROM dual",
        {
            "oracle": (
                "SELECT TO_NCHAR(:P_X), (N'a' || TO_NCHAR(:P_X)), ('it''s ' || :P_X), (TO_NCHAR(:P_X) || N'!a'), :P_X FROM dual",
                {"P_X": "v"},
            )
        },
    ),
    ("SELECT N'&X', N'a&X.b'", {"sqlserver": ("SELECT ?, (N'a' + ? + N'b')", ("v", "v"))}),
    (
        r"SELECT E'&X', E'a\'\n&X', $$it's &X.$$, $t$&X$t$",
        {
            "postgresql": (
                r"SELECT %(P_X)s, (E'a\'\n' || CAST(%(P_X_2)s AS text)), %(P_X_3)s, %(P_X_4)s",
                {"P_X": "v", "P_X_2": "v", "P_X_3": "it's v", "P_X_4": "v"},
            )
        },
    ),
    (
        "SELECT DATE '&DAY', TIMESTAMP '&DAY 08:00:00', t.date, date FROM t",
        {
            "oracle": (
                "SELECT TO_DATE(:P_DAY, 'YYYY-MM-DD'), TO_TIMESTAMP((:P_DAY || ' 08:00:00'), 'YYYY-MM-DD HH24:MI:SS.FF'),"
                " t.date, date FROM t",
                {"P_DAY": "2026-01-17"},
            ),
            "postgresql": (
                "SELECT %(P_DAY)s::DATE, %(P_DAY_2)s::TIMESTAMP, t.date, date FROM t",
                {"P_DAY": "2026-01-17", "P_DAY_2": "2026-01-17 08:00:00"},
            ),
        },
    ),
    (
        "SELECT INTERVAL '&N days', timestamp with time zone '&DAY', now() AT TIME ZONE '&X'",
        {
            "postgresql": (
                "SELECT %(P_N)s::INTERVAL, %(P_DAY)s::timestamp with time zone, now() AT TIME ZONE %(P_X)s",
                {"P_N": "5 days", "P_DAY": "2026-01-17", "P_X": "v"},
            )
        },
    ),
    (
        "SELECT DATE /* day */ '&DAY' FROM dual",
        {"oracle": ("SELECT TO_DATE(/* day */:P_DAY, 'YYYY-MM-DD') FROM dual", {"P_DAY": "2026-01-17"})},
    ),
    (
        "SELECT * FROM t AS OF TIMESTAMP '&X'",
        {"oracle": ("SELECT * FROM t AS OF TIMESTAMP :P_X", {"P_X": "v"})},
    ),
    (
        "SELECT concat('&X', 'a'), '&X' IS NULL, to_date('&X', 'YYYY')",
        {
            "postgresql": (
                "SELECT concat(CAST(%(P_X)s AS text), 'a'), CAST(%(P_X_2)s AS text) IS NULL, to_date(%(P_X_3)s, 'YYYY')",
                {"P_X": "v", "P_X_2": "v", "P_X_3": "v"},
            )
        },
    ),
    (
        "SELECT date_trunc('&X', ts) FROM t GROUP BY date_trunc('&X', ts)",
        {"postgresql": ("SELECT date_trunc(%(P_X)s, ts) FROM t GROUP BY date_trunc(%(P_X)s, ts)", {"P_X": "v"})},
    ),
    ("SELECT TOP &N a FROM t", {"sqlserver": ("SELECT TOP (?) a FROM t", (5,))}),
    ("SELECT TOP (&N) a FROM t", {"sqlserver": ("SELECT TOP (?) a FROM t", (5,))}),
    ("SELECT '?' AS [a?], '&X' -- ?", {"sqlserver": ("SELECT '?' AS [a?], ? -- ?", ("v",))}),
    (
        "SELECT JSON_OBJECT('k':'&X', 'n': &N) FROM dual",
        {"oracle": ("SELECT JSON_OBJECT('k': :P_X, 'n': :P_N) FROM dual", {"P_X": "v", "P_N": 5})},
    ),
    # names
    (
        "SELECT &COL FROM t",
        {db: ("SELECT BARCODE FROM t", () if db in ("sqlserver", "odbc") else {}) for db in DIALECTS},
    ),
    ("SELECT t.&COL FROM s.&COL", {"oracle": ("SELECT t.BARCODE FROM s.BARCODE", {})}),
    ("SELECT * FROM &COL..t", {"oracle": ("SELECT * FROM BARCODE.t", {})}),
    ("SELECT a FROM t PARTITION (&COL)", {"oracle": ("SELECT a FROM t PARTITION (BARCODE)", {})}),
    ("SELECT a FROM t_&YY", {"oracle": ("SELECT a FROM t_26", {})}),
    ("SELECT a FROM t_&YY._x, &COL._&YY", {"oracle": ("SELECT a FROM t_26_x, BARCODE_26", {})}),
    ('SELECT "&COL", "x&COL.y" FROM t', {"oracle": ('SELECT "BARCODE", "xBARCODEy" FROM t', {})}),
    ("SELECT [&COL] FROM t", {"sqlserver": ("SELECT [BARCODE] FROM t", ())}),
    ("SELECT `&COL` FROM t", {"sqlite": ("SELECT `BARCODE` FROM t", {})}),
    ("SELECT a FROM t ORDER BY &COL", {"oracle": ("SELECT a FROM t ORDER BY BARCODE", {})}),
    ("SELECT a AS &COL FROM t", {"oracle": ("SELECT a AS BARCODE FROM t", {})}),
    ("SELECT a FROM t WHERE y = &YY", {"oracle": ("SELECT a FROM t WHERE y = :P_YY", {"P_YY": 26})}),
    ("SELECT a FROM t WHERE c = '&COL'", {"oracle": ("SELECT a FROM t WHERE c = :P_COL", {"P_COL": "BARCODE"})}),
    # no parameters
    ("SELECT a & b, a&", {"oracle": ("SELECT a & b, a&", {})}),
    ("SELECT a && ARRAY[1] -- &x", {"postgresql": ("SELECT a && ARRAY[1] -- &x", {})}),
    (
        "SELECT /*+ &x */ '{\"k\":1}', '12:30', a::int",
        {"postgresql": ("SELECT /*+ &x */ '{\"k\":1}', '12:30', a::int", {})},
    ),
    ("SELECT '100%'", {"postgresql": ("SELECT '100%'", {})}),
    ("SELECT ':x', \":y\", q'[:z]' -- :a", {"oracle": ("SELECT ':x', \":y\", q'[:z]' -- :a", {})}),
]


@pytest.mark.parametrize(
    ("db_type", "text", "sql", "binds"),
    [(db, text, *expected) for text, by_dialect in BINDS for db, expected in by_dialect.items()],
)
def test_parameter_becomes_a_bind_of_the_dialect(db_type: str, text: str, sql: str, binds: Any) -> None:
    step = bound(DEFINES + text, db_type).steps[-1]
    assert step.sql == sql
    assert step.binds == binds


VALUE_POSITIONS = [
    "SELECT &N FROM t",
    "SELECT DISTINCT &N, a FROM t",
    "SELECT a FROM t WHERE b = &N AND c IN (1, &N, 3)",
    "SELECT a FROM t WHERE &N = b OR NOT &N < b",
    "SELECT a FROM t WHERE b BETWEEN &N AND &N + 1",
    "SELECT a FROM t WHERE (b, c) = (&N, &N)",
    "SELECT CASE WHEN a = &N THEN &N ELSE -&N END FROM t",
    "SELECT f(a, &N), g(&N) FROM t",
    "SELECT a FROM t JOIN u ON t.i = u.i + &N",
    "SELECT a FROM (SELECT &N AS a FROM t) x WHERE a > &N",
    "SELECT a, COUNT(*) FROM t GROUP BY a HAVING COUNT(*) > &N",
    "SELECT a FROM t ORDER BY CASE WHEN a = &N THEN 0 ELSE 1 END",
    "SELECT SUBSTRING(a FROM &N FOR &N) FROM t",
    "SELECT a FROM t WHERE a IS DISTINCT FROM &N",
    "SELECT SUM(a) OVER (ORDER BY b ROWS &N PRECEDING) FROM t",
    "WITH x AS (SELECT &N AS a FROM t) SELECT a FROM x WHERE a = &N",
    "SELECT a FROM t WHERE b = &N UNION ALL SELECT &N FROM u",
    "SELECT a FROM t FETCH FIRST &N ROWS ONLY",
]


@pytest.mark.parametrize("text", VALUE_POSITIONS)
@pytest.mark.parametrize("db_type", DIALECTS)
def test_value_position_is_recognised(db_type: str, text: str) -> None:
    step = bound(DEFINES + text, db_type).steps[0]
    assert "&" not in step.sql
    assert set(step.binds.values() if isinstance(step.binds, dict) else step.binds) == {5}


ORACLE_VALUE_POSITIONS = [
    "SELECT a FROM t WHERE ROWNUM <= &N",
    "SELECT LEVEL FROM dual CONNECT BY LEVEL <= &N",
    "SELECT a FROM t START WITH i = &N CONNECT BY PRIOR i = p",
    "SELECT a FROM t AS OF SCN &N",
    "SELECT a FROM t AS OF TIMESTAMP &N",
    "SELECT a FROM t PARTITION FOR (&N)",
    "SELECT a FROM t WHERE i = &N (+)".replace("&N (+)", "j (+) + &N"),
    "SELECT a FROM t MODEL DIMENSION BY (a) MEASURES (b) RULES (b[1] = &N)",
    "SELECT a FROM t SAMPLE (&N)",
]


@pytest.mark.parametrize("text", ORACLE_VALUE_POSITIONS)
def test_value_position_of_oracle_is_recognised_also_where_sqlglot_cannot_read(text: str) -> None:
    assert bound(DEFINES + text, "oracle").steps[0].binds == {"P_N": 5}


NAME_POSITIONS = [
    "SELECT * FROM &N",
    "SELECT * FROM a, &N",
    "SELECT * FROM a JOIN &N ON 1 = 1",
    "SELECT * FROM a JOIN b ON a.i = b.i, &N",
    "SELECT * FROM s.&N",
    "SELECT * FROM &N..t",
    "SELECT a AS &N FROM t",
    "SELECT a &N FROM t",
    "SELECT a FROM t &N",
    "SELECT x.&N FROM x",
    "SELECT &N..a FROM x",
    "SELECT a_&N FROM t",
    "SELECT &N._a FROM t",
    "SELECT a FROM t ORDER BY &N",
    "SELECT a FROM t ORDER BY b, &N DESC",
    "SELECT a FROM t GROUP BY &N",
    "SELECT SUM(a) OVER (PARTITION BY &N) FROM t",
    "SELECT * FROM a JOIN b USING (&N)",
    "SELECT CAST(a AS &N) FROM t",
    "SELECT a FROM t PARTITION (&N)",
    "SELECT a FROM t SUBPARTITION (&N)",
    "WITH &N AS (SELECT 1 FROM t) SELECT 1 FROM t",
    "WITH x AS (SELECT 1 FROM t), &N AS (SELECT 2 FROM t) SELECT 1 FROM t",
    "SELECT a COLLATE &N FROM t",
    "WITH x (&N) AS (SELECT 1 FROM t) SELECT 1 FROM x",
    "SELECT &N(1) FROM t",
    'SELECT "&N" FROM t',
    "SELECT ROW_NUMBER() OVER &N FROM t",
    "SELECT a AS '&N' FROM t",
]


@pytest.mark.parametrize("text", NAME_POSITIONS)
@pytest.mark.parametrize("db_type", DIALECTS)
def test_place_for_a_name_is_refused_without_allowed_values(db_type: str, text: str) -> None:
    if '"' in text and '"' in find_dialect(db_type).lexical.string_quotes:
        text = text.replace('"', "`")
    error = refusal(DEFINES + text, db_type)
    assert "&N stands in" in error.what
    assert "values are never pasted into SQL" in error.why
    assert "[allowed=A,B]" in error.remedy
    assert (error.line, error.column) == (DEFINE_LINES + 1, text.index("&N") + 1)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("SELECT '&DAT'", "&DAT is not defined"),
        ("SELECT &Z", "&Z is not defined"),
        ("SELECT 'AT&T'", "&T is not defined"),
        ("SELECT flags&mask", "&MASK is not defined"),
        ("SELECT '&1'", "&1 is a positional parameter"),
        ("SELECT flags&1", "&1 is a positional parameter"),
    ],
)
def test_undefined_name_is_an_error_that_mentions_set_define_off(text: str, what: str) -> None:
    error = refusal(DEFINES + text)
    assert error.what == what
    assert "SET DEFINE OFF" in error.remedy
    assert (error.line, error.column) == (DEFINE_LINES + 1, text.index("&") + 1)


def test_undefined_name_names_the_nearest() -> None:
    error = refusal("define DATA='x'\nSELECT '&DATE' FROM dual")
    assert str(error) == (
        "q.sql, line 2, column 9: &DATE is not defined: the nearest is &DATA. add a line define DATE='value';"
        " if & is plain text here, write SET DEFINE OFF on a line before the statement"
    )


@pytest.mark.parametrize(
    ("db_type", "text", "what"),
    [
        ("oracle", "SELECT INTERVAL '&N' DAY FROM dual", "&N stands in an INTERVAL literal"),
        ("postgresql", "SELECT INTERVAL '&N' DAY", "&N stands in an INTERVAL literal"),
        ("postgresql", "SELECT X'&N'", "&N stands in a literal that begins with X'"),
        ("postgresql", "SELECT B'&N'", "&N stands in a literal that begins with B'"),
        ("postgresql", "SELECT U&'&N'", "&N stands in a literal that begins with U&'"),
        ("sqlite", "SELECT x'&N'", "&N stands in a literal that begins with x'"),
        ("postgresql", r"SELECT E'\&N'", "a backslash stands before &N"),
        ("oracle", "SELECT &COL'x' FROM t", "&COL touches 'x'"),
        ("oracle", "SELECT 'x'&N FROM t", "&N touches 'x'"),
        ("oracle", "SELECT :&N FROM t", "&N touches :"),
        ("sqlserver", "SELECT @&COL FROM t", "&COL touches @"),
        ("oracle", "SELECT 1&N FROM t", "&N stands inside a number"),
    ],
)
def test_place_where_nothing_can_stand_is_an_error(db_type: str, text: str, what: str) -> None:
    error = refusal(DEFINES + text, db_type)
    assert error.what == what
    assert error.line == DEFINE_LINES + 1


# ── values ──


@pytest.mark.parametrize(
    "value", ["abc", "", "2026-01-17", "1,2", "0x10", "1e999", "1" * 39, "NaN", "Infinity", "1_000", "٣"]
)
def test_value_without_quotes_and_type_has_to_be_a_number(value: str) -> None:
    error = refusal("define N=1\nSELECT &N FROM dual", values={"N": value})
    assert "parameter N cannot be" in error.what
    assert error.why == "&N stands without quotes, so its value has to be a number"
    assert "[type=date]" in error.remedy


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("5", 5),
        (" 5 ", 5),
        ("-5", -5),
        ("+5", 5),
        ("007", 7),
        ("1.50", Decimal("1.50")),
        (".5", Decimal("0.5")),
        ("5.", Decimal(5)),
        ("1e3", Decimal("1e3")),
        ("9" * 38, int("9" * 38)),
        ("12345678901234567890.123456789012345678", Decimal("12345678901234567890.123456789012345678")),
    ],
)
def test_number_stays_exact(value: str, expected: int | Decimal) -> None:
    binds = bound("define N=1\nSELECT &N FROM dual", "oracle", {"N": value}).steps[0].binds
    assert binds == {"P_N": expected}
    assert isinstance(binds, dict)
    assert type(binds["P_N"]) is type(expected)


def test_number_too_big_for_the_drivers_integer_keeps_its_value() -> None:
    text = "define N=1\nSELECT &N"
    assert bound(text, "sqlserver", {"N": str(2**63)}).steps[0].binds == (Decimal(2**63),)
    assert bound(text, "sqlite", {"N": str(2**63)}).steps[0].binds == {"P_N": float(2**63)}


@pytest.mark.parametrize(
    ("declared", "value", "why"),
    [
        ("date", "17/01/2026", "its declared type is date: YYYY-MM-DD"),
        ("date", "2026-02-30", "its declared type is date: YYYY-MM-DD"),
        ("date", "", "its declared type is date: YYYY-MM-DD"),
        ("datetime", "2026-01-17", "its declared type is datetime"),
        ("datetime", "2026-01-17T08:00:00+01:00", "its declared type is datetime"),
        ("integer", "1.5", "its declared type is integer"),
        ("integer", "x", "its declared type is integer"),
        ("decimal", "1,5", "its declared type is decimal"),
    ],
)
@pytest.mark.parametrize("form", ["'&P'", "&P"])
def test_value_has_to_be_of_the_declared_type_inside_quotes_too(declared: str, value: str, why: str, form: str) -> None:
    error = refusal(f"define P=1 --Obbligatorio: [type={declared}]\nSELECT {form} FROM dual", values={"P": value})
    assert error.what == f"parameter P cannot be {value!r}"
    assert why in error.why
    assert error.line == 1


def test_value_outside_the_allowed_ones_is_refused() -> None:
    error = refusal("define T=A --Opzionale: [allowed=A,B]\nSELECT * FROM &T", values={"T": "B; DROP TABLE x"})
    assert str(error) == (
        "q.sql, line 1: parameter T cannot be 'B; DROP TABLE x': allowed are A, B. give another value"
    )


@pytest.mark.parametrize("value", ["a b", 'a"b', "a;b", "1a", "a-b", "é", "a.b"])
def test_allowed_value_that_is_no_plain_name_cannot_stand_for_a_name(value: str) -> None:
    error = refusal(f"define T=A --Obbligatorio: [allowed=A,{value}]\nSELECT * FROM &T", values={"T": "A"})
    assert f"its allowed value {value!r} may not stand there" in error.what


def test_allowed_values_of_several_kinds_need_a_type() -> None:
    error = refusal("define T=A --Opzionale: [allowed=A,1]\nSELECT 1 FROM t WHERE a = &T")
    assert "neither all names nor all numbers" in error.what
    assert "[type=string]" in error.remedy


def test_allowed_names_with_a_declared_type_are_bound() -> None:
    text = "define T=A --Opzionale: [type=string] [allowed=A,B-1]\nSELECT 1 FROM t WHERE a = &T"
    assert bound(text, "oracle", {"T": "B-1"}).steps[0].binds == {"P_T": "B-1"}


@pytest.mark.parametrize("db_type", DIALECTS)
def test_lone_surrogate_in_a_value_is_refused_without_printing_it(db_type: str) -> None:
    error = refusal("define X=1\nSELECT '&X'", db_type, {"X": "a\ud800"})
    assert error.what == r"parameter X cannot be 'a\ud800'"
    assert "half a character" in error.why
    str(error).encode()


def test_nul_in_a_value_is_refused_for_postgresql() -> None:
    assert "NUL" in refusal("define X=1\nSELECT '&X'", "postgresql", {"X": "a\0b"}).why
    assert bound("define X=1\nSELECT '&X'", "sqlite", {"X": "a\0b"}).steps[0].binds == {"P_X": "a\0b"}


def test_literal_that_sql_server_would_cut_is_refused() -> None:
    text = "define X=1\nSELECT 'abc&X'"
    assert bound(text, "sqlserver", {"X": "x" * 3997}).steps
    assert bound(text, "sqlserver", {"X": "x" * 5000}).steps
    error = refusal(text, "sqlserver", {"X": "x" * 3998})
    assert error.what == "the literal around &X gets longer than 4000 characters"
    assert refusal("define X=1\nSELECT '&X', 'abc&X'", "sqlserver", {"X": "x" * 3998}).what == error.what
    assert error.why == "SQL Server would cut it there without an error"


# ── defines ──


@pytest.mark.parametrize(
    ("line", "default", "mandatory", "description"),
    [
        ("define A='x'", "x", False, ""),
        ("DEFINE a = 'x';", "x", False, ""),
        ("def A=x", "x", False, ""),
        ("Defin A=x;", "x", False, ""),
        ('define A="it\'s"', "it's", False, ""),
        ("define A='it''s'", "it's", False, ""),
        ("define A=''", "", False, ""),
        ("define A= --Obbligatorio: x", "", True, "x"),
        ("define A=2026-01-17 --Opzionale: day", "2026-01-17", False, "day"),
        ("define A='x;--y' ; --Obbligatorio: day", "x;--y", True, "day"),
        ("define A='x' -- OBBLIGATORIO : day", "x", True, "day"),
        ("define A='x' --Mandatory: day", "x", True, "day"),
        ("define A='x' --Optional: day", "x", False, "day"),
        ("define A='x' --Obbligatorio", "x", True, ""),
        ("define A='x' -- just a remark", "x", False, "just a remark"),
        ("define A='x'  --Obbligatorio: l'utente [YYYY]", "x", True, "l'utente [YYYY]"),
        ("define A=two words", "two words", False, ""),
        ("define A='R&D' --Obbligatorio: x", "R&D", True, "x"),
        ("define A='x' --Opzionale: like [z=9]", "x", False, "like [z=9]"),
        ("define A='{date-1}' --Opzionale: [type=date]", "{date-1}", False, ""),
    ],
)
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_define_line_is_read(line: str, default: str, mandatory: bool, description: str, ending: str) -> None:
    (parameter,) = parse(f"{line}{ending}SELECT 1", name="q", dialect=find_dialect("oracle")).parameters
    assert (parameter.name, parameter.default) == ("A", default)
    assert (parameter.mandatory, parameter.description) == (mandatory, description)


def test_comment_declares_type_and_allowed_values() -> None:
    text = "define A=1 --Obbligatorio: how many [type=integer] [allowed=1, 2,3]\nSELECT 1"
    (parameter,) = parse(text, name="q", dialect=find_dialect("oracle")).parameters
    assert parameter == Parameter("A", "1", True, "how many", ("1", "2", "3"), "integer", 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("define A", "this define has no value. write define NAME='value'"),
        ("define ='x'", "this define has no value. write define NAME='value'"),
        ("define A='x", "the value of this define has no closing quote. close it with '"),
        ("define A='x' y", "this text stands behind the value of the define: only ; and a comment may follow it"),
        ("define A='it's'", "this text stands behind the value of the define"),
        ("define 1A='x'", "1A cannot be the name of a parameter. use letters, digits and _, with a letter first"),
        ("define A-B='x'", "A-B cannot be the name of a parameter"),
        ("define A='x'\ndefine a='y'", "A is defined twice: first in line 1"),
        ("define A='R&D'", "&D stands inside the value of A"),
        ("define A=x --Opzionale: [type=dat]", "'dat' is no type of a parameter: the nearest is date"),
        ("define A=x --Opzionale: [type=xyz]", "'xyz' is no type of a parameter: there are string, integer, decimal"),
        ("define A=x --Opzionale: [typ=date]", "[typ=…] is not known: the nearest is [type=…]"),
        ("define A=x --Opzionale: [alowed=x]", "[alowed=…] is not known: the nearest is [allowed=…]"),
        ("define A=x --Opzionale: [allowed=x,,y]", "an allowed value is empty"),
        ("define A=x --Opzionale: [allowed=y]", "the default of A cannot be 'x': allowed are y"),
        ("define A=x --Opzionale: [type=date]", "the default of A cannot be 'x': its declared type is date"),
    ],
)
def test_wrong_define_is_an_error(line: str, message: str) -> None:
    error = refusal(f"{line}\nSELECT 1")
    assert message in str(error)
    assert error.line == line.count("\n") + 1


def test_go_with_a_count_is_an_error() -> None:
    assert "GO with a number is not understood" in str(refusal("SELECT 1\nGO 5\n", "sqlserver"))


def test_define_inside_a_statement_says_that_the_one_before_has_no_end() -> None:
    error = refusal("SELECT 1 FROM dual\ndefine A='x'\nSELECT 2 FROM dual")
    assert str(error).startswith("q.sql, line 2, column 1: define stands inside a statement")
    assert "end it with ;" in error.remedy


def test_define_may_stand_behind_a_header_and_between_statements() -> None:
    text = "-- report\n/* of\nparcels */\ndefine A='x'\nSELECT '&A' FROM t;\ndefine B='y'\n\nSELECT '&B' FROM t;\n"
    steps = bound(text, "oracle").steps
    assert [step.sql for step in steps] == ["-- report\n/* of\nparcels */\nSELECT :P_A FROM t", "SELECT :P_B FROM t"]
    assert [step.line for step in steps] == [5, 8]


# ── giving values ──


def test_names_of_parameters_compare_in_any_case() -> None:
    text = "define Data='x' --Obbligatorio: d\nSELECT '&dATA' FROM dual"
    assert bound(text, "oracle", {"data": "y"}).values == {"DATA": "y"}


def test_same_name_in_two_cases_with_two_values_is_an_error() -> None:
    error = refusal(SPEC, values={"DATA": "a", "data": "b"})
    assert "parameter DATA is given twice" in error.what


def test_unknown_parameter_names_the_nearest() -> None:
    error = refusal(SPEC, values={"DATA": "2026-01-01", "DATE": "x"})
    assert str(error).startswith("q.sql: q.sql has no parameter DATE: the nearest is DATA")
    assert "it has no parameters" in refusal("SELECT 1", values={"A": "x"}).why


def test_example_value_of_a_mandatory_parameter_is_never_used() -> None:
    parsed = parse(SPEC, name="q", dialect=find_dialect("oracle"))
    assert parsed.defaults() == {}
    with pytest.raises(SqlError, match="mandatory parameter DATA"):
        parsed.bind({})
    with pytest.raises(SqlError, match="mandatory parameter DATA"):
        parsed.bind({}, allow_writes=True)


def test_default_of_an_optional_parameter_is_its_value_and_can_be_a_template() -> None:
    parsed = parse("define A='{date-1}' --Opzionale: day\nSELECT '&A'", name="q", dialect=find_dialect("sqlite"))
    assert parsed.defaults() == {"A": "{date-1}"}
    assert parsed.bind({}).steps[0].binds == {"P_A": "{date-1}"}
    assert parsed.bind({"A": "2026-01-16"}).steps[0].binds == {"P_A": "2026-01-16"}


def test_long_value_is_cut_in_an_error() -> None:
    error = refusal("define A=1\nSELECT &A", values={"A": "x" * 10_000})
    assert len(error.what) < 100


# ── names of binds ──


def test_bind_names_are_legal_and_do_not_clash() -> None:
    lines = [
        "define DATE=1",
        "define città=2",
        "define X=3",
        "define X_2=4",
        f"define {'L' * 60}=5",
        f"define {'L' * 61}=6",
    ]
    form = f"SELECT '&DATE', '&città', '&X', &X, '&X_2', '&{'L' * 60}', '&{'L' * 61}' FROM dual"
    binds = bound("\n".join([*lines, form]), "oracle").steps[0].binds
    assert isinstance(binds, dict)
    assert list(binds.values()) == ["1", "2", "3", 3, "4", "5", "6"]
    assert all(name.startswith("P_") and name.isascii() and name.isidentifier() and len(name) <= 30 for name in binds)


# ── statements ──


def test_several_statements_are_steps_in_order() -> None:
    text = """ALTER SESSION SET NLS_DATE_FORMAT = 'YYYY-MM-DD';
SELECT 1 FROM dual
/
;;
SELECT ';', '/' -- ;
FROM dual
/
"""
    steps = bound(text, "oracle").steps
    assert [(step.sql, step.returns_rows, step.line) for step in steps] == [
        ("ALTER SESSION SET NLS_DATE_FORMAT = 'YYYY-MM-DD'", False, 1),
        ("SELECT 1 FROM dual", True, 2),
        ("SELECT ';', '/' -- ;\nFROM dual", True, 5),
    ]


def test_several_statements_never_reach_postgresql_as_one() -> None:
    text = "SELECT ';', $$;$$, E'\\';', \"a;b\" /* ; /* ; */ ; */ ; SELECT 2 -- ;\n; SELECT 3"
    assert [step.sql.count("SELECT") for step in bound(text, "postgresql").steps] == [1, 1, 1]
    assert "DELETE is not allowed here" in str(refusal("SELECT 1; DELETE FROM t; SELECT 2", "postgresql"))
    assert "DELETE is not allowed here" in str(refusal("SELECT '\\'; DELETE FROM t --'", "postgresql"))


@pytest.mark.parametrize(
    "text",
    [
        "SET NOCOUNT ON\nSELECT 1",
        "SET NOCOUNT ON; SELECT 1;",
        "SET NOCOUNT ON\nGO\nSELECT 1\nGO\n",
        "SET NOCOUNT ON SELECT 1",
    ],
)
def test_tsql_setting_needs_no_semicolon(text: str) -> None:
    assert [step.sql for step in bound(text, "sqlserver").steps] == ["SET NOCOUNT ON", "SELECT 1"]


@pytest.mark.parametrize("text", ["", "  \n", "-- only a comment\n", ";", "/\n"])
def test_file_without_a_statement_is_an_error(text: str) -> None:
    assert "the file holds no statement" in str(refusal(text))


@pytest.mark.parametrize("text", ["ALTER SESSION SET CURRENT_SCHEMA = app", "define A=1\nSET TRANSACTION READ ONLY;"])
def test_file_without_a_select_is_an_error(text: str) -> None:
    error = refusal(text)
    assert "the file holds no SELECT" in str(error)
    assert error.line == text.count("\n") + 1


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("SPOOL out.csv", "SPOOL"),
        ("SET PAGESIZE 0", "SET PAGESIZE"),
        ("SET FEEDBACK OFF;", "SET FEEDBACK"),
        ("PROMPT it's done", "PROMPT"),
        ("WHENEVER SQLERROR EXIT 1", "WHENEVER"),
        ("EXEC p;", "EXEC"),
        ("@other.sql", "@other.sql"),
        ("COLUMN a FORMAT A10", "COLUMN"),
        ("ACCEPT x PROMPT 'y'", "ACCEPT"),
        ("HOST dir", "HOST"),
        ("! ls", "!"),
        ("CONNECT a/b@c", "CONNECT"),
        ("SHOW USER", "SHOW"),
        ("PAUSE", "PAUSE"),
        ("UNDEFINE A", "UNDEFINE"),
        ("VARIABLE x NUMBER", "VARIABLE"),
        ("EXIT", "EXIT"),
        ("REM x", "REM"),
        ("SET DEFINE '#'", "SET DEFINE"),
    ],
)
def test_other_commands_of_sql_plus_are_an_error_with_line_and_column(text: str, command: str) -> None:
    error = refusal(f"SELECT 1 FROM dual;\n  {text}\nSELECT 2 FROM dual;")
    assert error.what == f"{command} is a command of SQL*Plus or another client, not SQL"
    assert (error.line, error.column) == (2, 3)
    assert error.remedy == "remove the line"


def test_set_define_off_makes_ampersands_plain_from_there_on() -> None:
    text = "define A='x'\nSELECT '&A' FROM dual;\nSET DEFINE OFF\nSELECT 'R&D' FROM dual;\nSET DEFINE ON;\nSELECT '&A' FROM dual"
    assert [step.sql for step in bound(text, "oracle").steps] == [
        "SELECT :P_A FROM dual",
        "SELECT 'R&D' FROM dual",
        "SELECT :P_A FROM dual",
    ]


def test_parameter_in_a_session_setting_needs_allowed_values() -> None:
    setting = "ALTER SESSION SET TIME_ZONE = '&Z';\nSELECT 1 FROM dual"
    assert "&Z stands in a session setting" in str(refusal(f"define Z='UTC'\n{setting}"))
    allowed = f"define Z='Europe/Rome' --Opzionale: [allowed=Europe/Rome,+00:00]\n{setting}"
    assert bound(allowed, "oracle", {"Z": "+00:00"}).steps[0].sql == "ALTER SESSION SET TIME_ZONE = '+00:00'"
    number = "define N=1 --Opzionale: [allowed=1,7]\nSET DATEFIRST &N; SELECT 1"
    assert bound(number, "sqlserver", {"N": "7"}).steps[0].sql == "SET DATEFIRST 7"
    hostile = f"define Z='UTC' --Opzionale: [allowed=UTC,x' y]\n{setting}"
    assert "may not stand there" in str(refusal(hostile))


# ── binds of other programs ──


@pytest.mark.parametrize(
    ("db_type", "text", "bind"),
    [
        ("oracle", "SELECT :x FROM dual", ":x"),
        ("oracle", "SELECT : x FROM dual", ":x"),
        ("oracle", "SELECT :1 FROM dual", ":1"),
        ("oracle", 'SELECT :"x" FROM dual', ':"x"'),
        ("oracle", "SELECT a FROM t WHERE b=:P_X", ":P_X"),
        ("sqlite", "SELECT :x", ":x"),
        ("sqlite", "SELECT ?", "?"),
        ("sqlite", "SELECT ?1", "?"),
        ("sqlite", "SELECT @x", "@x"),
        ("sqlite", "SELECT $x", "$x"),
        ("sqlserver", "SELECT ?", "?"),
        ("postgresql", "SELECT $1", "$1"),
    ],
)
def test_bind_that_nobody_fills_is_an_error(db_type: str, text: str, bind: str) -> None:
    error = refusal(text, db_type)
    assert error.what == f"{bind} is a bind variable of another program"
    assert (error.line, error.column) == (1, text.index(bind[0]) + 1)


@pytest.mark.parametrize(
    ("db_type", "text"),
    [
        ("oracle", "SELECT ':x', \":y\", q'[:z it's]' /* :a */ FROM dual -- :b"),
        ("oracle", "SELECT JSON_OBJECT('k' : v, 'l':w) FROM dual"),
        ("sqlite", "SELECT ':x', \"?\", [@a], `$b` -- ?"),
        ("sqlserver", "SELECT '?', [?], \"?\", @@VERSION /* ? */"),
        ("postgresql", "SELECT a::int, j ? 'k', j ?| array['a'], '$1', $$x$$, a[1:2]"),
    ],
)
def test_signs_of_binds_elsewhere_are_plain(db_type: str, text: str) -> None:
    assert bound(text, db_type).steps[0].sql == text


# ── characters ──


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 'abc", "the literal that begins here has no end. close it"),
        ("SELECT q'[abc'", "the literal that begins here has no end. close it"),
        ('SELECT "abc', "the quoted identifier that begins here has no end. close it"),
        ("SELECT /* abc", "the comment that begins here has no end. close it"),
        ("SELECT \u201ca\u201d", "the character U+201C (left double quotation mark) is not SQL"),
        ("SELECT \u00a0a", "the character U+00A0 (no-break space) is not SQL"),
        ("SELECT \u200ba", "the character U+200B (zero width space) is not SQL"),
        ("SELECT \x1aa", "the character U+001A (control character) is not SQL"),
        ("SELECT \0a", "the file holds a NUL character"),
        ("SELECT \ud800a", "the file holds half a character"),
        ("SELECT 1, freq'x'", "a literal touches the word before it"),
    ],
)
def test_text_that_is_no_sql_is_an_error_with_its_place(text: str, message: str) -> None:
    error = refusal(f"-- è\n{text}")
    assert message in str(error)
    assert error.line == 2
    assert error.column is not None
    assert error.column > len("SELECT")


def test_lone_carriage_return_in_a_comment_is_refused_where_databases_differ() -> None:
    assert "carriage return" in str(refusal("SELECT 1 -- x\r, 2\nFROM dual"))
    assert bound("SELECT 1 -- x\r, 2\n", "postgresql").steps[0].sql == "SELECT 1 -- x\r, 2"
    assert bound("SELECT 1 -- x\r\nFROM dual", "oracle").steps[0].sql == "SELECT 1 -- x\r\nFROM dual"


def test_letters_of_other_languages_may_be_names() -> None:
    text = "SELECT città, 価格 FROM t"
    for db_type in DIALECTS:
        assert bound(text, db_type).steps[0].sql == text


def test_comment_where_odbc_drivers_could_lose_a_bind_is_refused() -> None:
    text = "define X=1\nSELECT '&X' /* a /* b */ it's */"
    assert "this comment holds another one" in str(refusal(text, "sqlserver"))
    assert bound(text, "postgresql").steps
    assert bound("SELECT 1 /* a /* b */ it's */", "sqlserver").steps


def test_utf8_with_and_without_mark_is_read() -> None:
    for content in ("SELECT 'à€'".encode(), "SELECT 'à€'".encode("utf-8-sig")):
        parsed = parse(content, name="q", dialect=find_dialect("sqlite"))
        assert parsed.bind({}).steps[0].sql == "SELECT 'à€'"
        assert parsed.notes == ()
        assert parsed.sha256 == hashlib.sha256(content).hexdigest()


def test_text_with_a_byte_order_mark_is_read() -> None:
    assert bound("\ufeffdefine A=1\nSELECT '&A'", "sqlite").steps[0].sql == "SELECT :P_A"


def test_windows_1252_is_read_with_a_note() -> None:
    parsed = parse("SELECT 'à€'".encode("cp1252"), name="q", dialect=find_dialect("sqlite"))
    assert parsed.bind({}).steps[0].sql == "SELECT 'à€'"
    assert "Windows-1252" in parsed.notes[0]


def test_utf16_of_sql_servers_tools_is_read_with_a_note() -> None:
    parsed = parse("SELECT 'à€'".encode("utf-16"), name="q", dialect=find_dialect("sqlserver"))
    assert parsed.bind({}).steps[0].sql == "SELECT 'à€'"
    assert "UTF-16" in parsed.notes[0]


def test_bytes_of_no_known_encoding_are_an_error_with_their_place() -> None:
    error = refusal(b"SELECT 1,\n  '\x81'")
    assert "byte 0x81 is neither UTF-8 nor Windows-1252" in str(error)
    assert (error.line, error.column) == (2, 4)


# ── writing ──


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("DELETE FROM t", "DELETE is not allowed here"),
        ("INSERT INTO t VALUES (1)", "INSERT is not allowed here"),
        ("DROP TABLE t;", "DROP is not allowed here"),
        ("BEGIN p; END;\n/", "BEGIN is not allowed here"),
        ("SELECT a INTO b FROM t", "INTO is not allowed here"),
    ],
)
def test_file_that_only_writes_is_refused_as_a_write(text: str, what: str) -> None:
    assert refusal(text).what == what


def test_file_that_may_write_still_needs_a_select() -> None:
    with pytest.raises(SqlError, match="the file holds no SELECT"):
        bound("DELETE FROM t", "oracle", allow_writes=True)


def test_write_is_refused_with_its_place_and_the_setting_that_allows_it() -> None:
    error = refusal("SELECT 1 FROM dual;\nDELETE FROM t;", "oracle")
    assert str(error) == (
        "q.sql, line 2, column 1: DELETE is not allowed here: it would write, and a query file may only read."
        ' remove it; if it is meant to write, set "allow_writes": true on its connection in connections.json'
    )


def test_writes_pass_where_the_connection_allows_them() -> None:
    text = "define X='v'\nBEGIN p('&X'); q; END;\n/\nDELETE FROM t WHERE a = '&X';\nSELECT 1 FROM dual;"
    steps = bound(text, "oracle", allow_writes=True).steps
    assert [(step.sql, step.returns_rows) for step in steps] == [
        ("BEGIN p(:P_X); q; END;", False),
        ("DELETE FROM t WHERE a = :P_X", False),
        ("SELECT 1 FROM dual", True),
    ]


def test_block_is_refused_in_words() -> None:
    error = refusal("DECLARE x NUMBER; BEGIN x := 1; END;\n/\nSELECT 1 FROM dual")
    assert (
        "DECLARE is not allowed here: it begins a PL/SQL block, and what the code inside does cannot be checked"
        in str(error)
    )
    assert "define NAME='value'" in error.remedy


def test_gate_judges_the_names_that_are_inserted() -> None:
    text = "define F=ABS --Opzionale: [allowed=ABS,PG_READ_FILE]\nSELECT &F('x')"
    assert bound(text, "postgresql").steps[0].sql == "SELECT ABS('x')"
    assert "PG_READ_FILE is not allowed here" in str(refusal(text, "postgresql", {"F": "PG_READ_FILE"}))
    keyword = "define A=b --Opzionale: [allowed=b,INTO]\nSELECT a &A FROM t"
    assert "INTO is not allowed here" in str(refusal(keyword, "postgresql", {"A": "INTO"}))


# ── files ──


def test_file_is_loaded_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "CDG.sql"
    path.write_bytes(SPEC.encode())
    parsed = load(path, find_dialect("oracle"))
    assert parsed.name == "CDG.sql"
    with pytest.raises(SqlError, match=r"CDG\.sql, line 1: mandatory parameter DATA"):
        parsed.bind({})


def test_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SqlError, match=r"none\.sql: cannot read the query file: No such file"):
        load(tmp_path / "none.sql", find_dialect("oracle"))


def test_sqlglot_is_imported_only_for_a_statement_with_a_word_that_writes() -> None:
    code = (
        "import sys; from core.sql.parser import parse; from core.sources import find_dialect;"
        "query = lambda sql: parse('define A=1\\n' + sql, name='q', dialect=find_dialect('sqlite')).bind({});"
        "query('SELECT \"x\", \\'&A\\''); assert 'sqlglot' not in sys.modules;"
        "query('SELECT \\'into\\', \\'&A\\''); assert 'sqlglot' in sys.modules"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True, timeout=60)


# ── a blank behind & ──


@pytest.mark.parametrize("db_type", DIALECTS)
def test_a_blank_behind_the_ampersand_changes_nothing(db_type: str) -> None:
    tight = "SELECT '&X', 'a&X.b', '&&X' FROM t WHERE n = &N AND d IN ('&X') AND c = '&COL'"
    loose = "SELECT '& X', 'a&  X.b', '&& X' FROM t WHERE n = & N AND d IN ('&\tX') AND c = '& COL'"
    assert bound(DEFINES + loose, db_type).steps == bound(DEFINES + tight, db_type).steps


def test_a_blank_and_a_misspelt_name_in_a_literal_are_an_error() -> None:
    error = refusal(DEFINES.replace("define X", "define DATA") + "SELECT '& DTA' FROM dual")
    assert error.what == "&DTA is not defined"
    assert (error.line, error.column, error.why) == (DEFINE_LINES + 1, 9, "the nearest is &DATA")


@pytest.mark.parametrize("db_type", DIALECTS)
@pytest.mark.parametrize("text", ["SELECT 'Marks & Spencer', 'R & D' FROM t", "SELECT a FROM t WHERE f & m = 1"])
def test_an_ampersand_with_a_blank_and_no_such_parameter_is_itself(db_type: str, text: str) -> None:
    (step,) = bound(DEFINES + text, db_type).steps
    assert (step.sql, list(step.binds)) == (text, [])


def test_an_inserted_name_may_have_a_blank_before_it_where_no_operator_can_stand() -> None:
    assert bound(DEFINES + "SELECT & COL FROM EXPORT_& YY", "oracle").steps[0].sql == "SELECT BARCODE FROM EXPORT_26"
    assert bound(DEFINES + "SELECT & COL FROM t", "postgresql").steps[0].sql == "SELECT BARCODE FROM t"


@pytest.mark.parametrize("db_type", ["postgresql", "sqlserver", "sqlite"])
@pytest.mark.parametrize("text", ["SELECT flags & COL FROM t", "SELECT (a + 1) & N FROM t", "SELECT x_& YY FROM t"])
def test_what_may_be_parameter_or_operator_is_refused(db_type: str, text: str) -> None:
    error = refusal(DEFINES + text, db_type)
    assert "may be the parameter" in error.what
    assert (error.line, error.column) == (DEFINE_LINES + 1, text.index("&") + 1)


def test_set_define_off_holds_for_an_ampersand_with_a_blank() -> None:
    assert bound(f"{DEFINES}SET DEFINE OFF\nSELECT '& X'", "sqlite").steps[0].sql == "SELECT '& X'"


def test_a_value_made_of_another_parameter_is_refused_with_a_blank_too() -> None:
    assert "stands inside the value of B" in refusal("define A='x'\ndefine B='R & A'\nSELECT '&B' FROM dual").what
