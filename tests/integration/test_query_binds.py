"""Binds on real servers: a bound parameter gives the rows that SQL*Plus's pasted text would have given.

For each form, the statement with binds is compared with the same statement whose `&NAME` were replaced by
text, on the server itself. Values that would break pasted SQL have to be returned unchanged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import oracledb
import pytest

from core.model.connection import DatabaseConnection, Secret
from core.model.query import Query
from core.sources import find_dialect
from core.sources.oracle import OracleSource
from core.sql.parser import parse
from core.sql.values import join

DEFINES = """define X='v' --Opzionale: text
define D='2026-01-17' --Opzionale: day
define N=5 --Opzionale: number
define P=1.5 --Opzionale: price
define COL=name --Opzionale: column [allowed=id,name]
"""
GIVEN = {"X": "it", "D": "2026-01-17", "N": "2", "P": "1.5", "COL": "name"}

HOSTILE = [
    *[
        "'",
        "''",
        '"',
        "';--",
        "'; DROP TABLE parcel; --",
        "' OR '1'='1",
        "\\",
        "\\'",
        "\\n",
        "a\nb",
        "a\r\nb",
        "\t",
        "%",
        "_",
    ],
    *[
        "%s",
        "%%",
        "%(P_X)s",
        ":P_X",
        "?",
        "$1",
        "@x",
        "&X",
        "/* a",
        "*/",
        "--",
        "$$",
        "]'",
        "{}",
        "è€",
        "価格",
        "😀",
        "\u2028",
    ],
    *["x" * 10_000, "'" * 3000, "NULL", " leading and trailing ", "0012"],
]


def bound(text: str, db_type: str, values: dict[str, str]) -> Query:
    return parse(DEFINES + text, name="q.sql", dialect=find_dialect(db_type)).bind(values)


def pasted(text: str, values: dict[str, str]) -> str:
    """Returns the statement that SQL*Plus would have sent."""
    for name, value in values.items():
        text = text.replace(f"&{name}.", value).replace(f"&{name}", value)
    return text


def rows_of(cursor: Any, query: Query) -> list[tuple[Any, ...]]:
    """Runs all steps as a source does: without binds the driver gets no parameters at all."""
    for step in query.steps:
        if step.binds:
            cursor.execute(step.sql, step.binds)
        else:
            cursor.execute(step.sql)
    return [tuple(row) for row in cursor.fetchall()]


def pasted_rows(cursor: Any, text: str) -> list[tuple[Any, ...]]:
    cursor.execute(pasted(text, GIVEN))
    return [tuple(row) for row in cursor.fetchall()]


# The members of each IN as SQL*Plus needed them written; ours get the same values as lists.
LISTS = {"STATI": ("'A','it'", "A,it"), "IDS": ("1,3", "1,3"), "NAMES": ("'it''s','x'", '["it\'s", "x"]')}
LIST_DEFINES = """define STATI='A' --Obbligatorio [list]: codes
define IDS='1' --Opzionale [list]: numbers
define NAMES='a' --Obbligatorio [list]: names
define DAYS='2026-01-01' --Opzionale [list]: days [type=date]
"""
LIST_FORMS = [
    "SELECT id FROM parcel WHERE code IN ('&STATI') ORDER BY id",
    "SELECT id FROM parcel WHERE code in (& STATI) AND id IN (&IDS) ORDER BY id",
    "SELECT id FROM parcel WHERE code NOT IN ('x', &STATI) OR name IN ('&NAMES') ORDER BY id",
    "SELECT id FROM parcel WHERE NOT (id IN ('&IDS', 2)) OR name IN (&NAMES) ORDER BY id",
    "SELECT id FROM parcel WHERE price + 0 IN (&IDS, 9.99) ORDER BY id",
    "SELECT id, CASE WHEN code IN (&STATI) THEN 1 ELSE 0 END x FROM parcel WHERE day IN (&DAYS) ORDER BY id",
]


def listed_rows(cursor: Any, text: str, db_type: str) -> list[tuple[Any, ...]]:
    """Returns the rows with binds; checks that the pasted text has the same."""
    values = {name: ours for name, (_, ours) in LISTS.items()} | {"DAYS": "2026-01-17,2026-01-16"}
    rows = rows_of(cursor, parse(LIST_DEFINES + text, name="q.sql", dialect=find_dialect(db_type)).bind(values))
    sql = text.replace("& ", "&").replace("&DAYS", "'2026-01-17','2026-01-16'")
    for name, (members, _) in LISTS.items():
        sql = sql.replace(f"'&{name}'", members).replace(f"&{name}", members)
    cursor.execute(sql)
    assert rows == [tuple(row) for row in cursor.fetchall()]
    return rows


# ── PostgreSQL ──

POSTGRESQL_FORMS = [
    "SELECT id FROM parcel WHERE day = '&D'",
    "SELECT id FROM parcel WHERE day = TO_DATE('&D', 'YYYY-MM-DD')",
    "SELECT id FROM parcel WHERE day = DATE '&D' ORDER BY id",
    "SELECT id FROM parcel WHERE at >= '&D 00:00:00' AND at < '&D 23:59:59'",
    "SELECT id FROM parcel WHERE at >= TIMESTAMP '&D 07:00:00'",
    "SELECT id FROM parcel WHERE at_tz >= timestamp with time zone '&D 00:00:00+01'",
    "SELECT id FROM parcel WHERE at_tz >= '&D 00:00:00'::timestamptz",
    "SELECT id FROM parcel WHERE day BETWEEN '&D' AND '&D'::date + &N",
    "SELECT id FROM parcel WHERE day >= DATE '&D' - &N * INTERVAL '1' DAY AND day < DATE '&D' + INTERVAL '&N days'",
    "SELECT id, day - &N, CURRENT_DATE - &N FROM parcel WHERE id < &N ORDER BY id",
    "SELECT id FROM parcel WHERE name LIKE '%&X%' OR name ILIKE '&X.%' OR name = '&X.''s'",
    "SELECT id FROM parcel WHERE name ~ '^&X' AND code = '&X'",
    "SELECT id FROM parcel WHERE code IN ('A', '&X') AND name <> '&X'",
    "SELECT id FROM parcel WHERE doc @> '{\"k\": &N}'",
    "SELECT doc->>'&X' FROM parcel WHERE doc ? '&X'",
    "SELECT id FROM parcel WHERE tags && '{&X,b}'",
    "SELECT id FROM parcel WHERE '&X' = ANY(tags)",
    "SELECT '&X', 'a&X.b', '&X&D', E'a\\tb&X\\'', $$a'&X.$$, $t$&X$t$, N'&X'",
    "SELECT '100%', '&X', 5 % 3 -- %s",
    "SELECT concat('&X', 'a'), format('%s', '&X'), concat_ws('-', '&X', '&D'), count('&X')",
    "SELECT '&X' IS NULL, '&X' IS NOT NULL, coalesce('&X', 'a'), nullif('&X', 'a')",
    "SELECT jsonb_build_object('k', '&X'), json_build_array('&X')",
    "SELECT CASE '&X' WHEN 'it' THEN 1 ELSE 2 END, CASE WHEN '&X' = 'it' THEN '&D' END",
    "SELECT '&X' AS label, count(*) FROM parcel GROUP BY code ORDER BY 2",
    "SELECT date_trunc('&UNIT', at), count(*) FROM parcel GROUP BY date_trunc('&UNIT', at) ORDER BY 1".replace(
        "&UNIT", "month"
    ),
    "SELECT &N, &N + 1, &P * 2, -&N, round(&P, 0), substr('abc', &N), &N * &N",
    "SELECT id FROM parcel ORDER BY id LIMIT &N OFFSET &N - 1",
    "SELECT id FROM parcel WHERE price > &P AND id IN (&N, 3)",
    "SELECT * FROM generate_series(1, &N)",
    "SELECT ARRAY['&X', 'b'], (ARRAY[1, 2, 3])[&N], '{1,&N}'::int[]",
    "SELECT '&X'::text, CAST('&D' AS date), '&D'::date::text, '&X' || 'b', 'a' || '&X'",
    "SELECT &COL FROM parcel ORDER BY &COL DESC LIMIT 1",
    "WITH x AS (SELECT '&X' AS k) SELECT k, length(k) FROM x WHERE k = 'it' UNION ALL SELECT '&D', &N",
    "SELECT to_char(at, 'YYYY') || '&X', upper('&X') FROM parcel WHERE extract(year FROM at) = 2026 AND '&X' <> ''",
    "SELECT p.id FROM parcel p, LATERAL (SELECT p.id + &N AS m) l WHERE l.m > &N",
    "VALUES ('&X', &N)",
    "SELECT now() AT TIME ZONE 'UTC' > '&D', at AT TIME ZONE 'Europe/Rome' FROM parcel",
]


@pytest.fixture
def postgresql(postgres: Any) -> Iterator[Any]:
    with closing(postgres.connect()) as connection, connection.transaction(), connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TABLE parcel (id int, name text, code char(5), day date, at timestamp, at_tz timestamptz,"
            " price numeric(10,2), doc jsonb, tags text[])"
        )
        for values in (
            (
                1,
                "it's",
                "A",
                "2026-01-17",
                "2026-01-17 08:00:00",
                "2026-01-17 08:00:00+01",
                1.5,
                '{"it": 1, "k": 2}',
                ["it"],
            ),
            (
                2,
                "ITEM",
                "it",
                "2026-01-18",
                "2026-01-17 06:00:00",
                "2026-01-16 08:00:00+01",
                9.99,
                '{"k": 3}',
                ["b", "c"],
            ),
            (3, "item", "it", "2026-01-16", "2026-02-01 00:00:00", "2026-03-01 00:00:00+01", 0, "{}", []),
        ):
            cursor.execute("INSERT INTO parcel VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)", values)
        yield cursor


@pytest.mark.parametrize("text", POSTGRESQL_FORMS)
def test_postgresql_form_gives_the_same_rows_as_pasted_text(postgresql: Any, text: str) -> None:
    expected = pasted_rows(postgresql, text)
    assert rows_of(postgresql, bound(text, "postgresql", GIVEN)) == expected


@pytest.mark.parametrize("text", POSTGRESQL_FORMS[:6])
def test_postgresql_form_works_in_a_server_side_cursor(postgresql: Any, text: str) -> None:
    expected = pasted_rows(postgresql, text)
    (step,) = bound(text, "postgresql", GIVEN).steps
    with postgresql.connection.cursor("reading") as cursor:
        assert cursor.execute(step.sql, step.binds).fetchall() == expected


@pytest.mark.parametrize("text", LIST_FORMS)
def test_postgresql_finds_the_members_of_a_list(postgresql: Any, text: str) -> None:
    assert listed_rows(postgresql, text, "postgresql")


def test_postgresql_takes_hostile_values_in_a_list_and_as_many_as_we_allow(postgresql: Any) -> None:
    (step,) = (
        parse(
            LIST_DEFINES + "SELECT 1 WHERE 'no' NOT IN ('&STATI') AND '%' = '%'",
            name="q",
            dialect=find_dialect("postgresql"),
        )
        .bind({"STATI": join(HOSTILE), "NAMES": "x"})
        .steps
    )
    assert list(dict(step.binds).values()) == HOSTILE
    assert postgresql.execute(step.sql, step.binds).fetchall() == [(1,)]
    many = parse(LIST_DEFINES + "SELECT 1 WHERE 65535 IN (&IDS)", name="q", dialect=find_dialect("postgresql")).bind(
        {"IDS": ",".join(map(str, range(1, 65_536))), "STATI": "x", "NAMES": "x"}
    )
    assert rows_of(postgresql, many) == [(1,)]


@pytest.mark.parametrize("value", HOSTILE)
def test_postgresql_gives_hostile_values_back(postgresql: Any, value: str) -> None:
    text = "SELECT '&X', 'a&X.b', E'\\'&X', $$a&X.$$, concat('&X', ''), '&X'::text, '%'"
    (row,) = rows_of(postgresql, bound(text, "postgresql", {"X": value}))
    assert row == (value, f"a{value}b", f"'{value}", f"a{value}", value, value, "%")


def test_postgresql_text_without_binds_keeps_its_percent_signs(postgresql: Any) -> None:
    query = bound("SELECT '100%', '%s', '%(a)s', 7 % 4 -- %", "postgresql", GIVEN)
    assert rows_of(postgresql, query) == [("100%", "%s", "%(a)s", 3)]


def test_postgresql_settings_and_selects_run_as_steps(postgresql: Any) -> None:
    text = "SET LOCAL timezone = 'Asia/Tokyo'; SELECT ';'; SELECT current_setting('timezone'), '&X'"
    assert rows_of(postgresql, bound(text, "postgresql", GIVEN)) == [("Asia/Tokyo", "it")]


@pytest.mark.parametrize("word", ["delete", "insert", "update", "merge", "replace", "truncate", "drop", "lock"])
def test_postgresql_reads_columns_called_as_a_write(postgresql: Any, word: str) -> None:
    postgresql.execute(f'CREATE TEMP TABLE odd ("{word}" int); INSERT INTO odd VALUES (1), (2), (NULL)')
    text = (
        f"SELECT ({word}), ({word} IS NULL), coalesce({word}, 0), sum({word}) OVER (ORDER BY {word} DESC) AS {word}"
        f" FROM odd WHERE ({word} IS NULL OR {word} IN (&IDS)) GROUP BY {word} ORDER BY odd.{word}"
    )
    values = {"STATI": "x", "NAMES": "x", "IDS": "1,3"}
    rows = rows_of(postgresql, parse(LIST_DEFINES + text, name="q", dialect=find_dialect("postgresql")).bind(values))
    assert [row[:3] for row in rows] == [(1, False, 1), (None, True, 0)]


# ── SQL Server ──

SQLSERVER_FORMS = [
    "SELECT id FROM #parcel WHERE day = '&D'",
    "SELECT id FROM #parcel WHERE day = CAST('&D' AS date)",
    "SELECT id FROM #parcel WHERE at >= '&D 00:00:00' AND at < '&D 23:59:59'",
    "SELECT id FROM #parcel WHERE day BETWEEN '&D' AND DATEADD(day, &N, '&D')",
    "SELECT id FROM #parcel WHERE name LIKE '%&X%' OR name = '&X.''s'",
    "SELECT id FROM #parcel WHERE code IN ('A', '&X') AND name <> N'&X'",
    "SELECT CAST('&X' AS nvarchar(50)), CAST(N'a&X.b' AS nvarchar(50)), CAST('&X&D' AS nvarchar(50))",
    "SELECT TOP &N id FROM #parcel ORDER BY id",
    "SELECT TOP (&N) id FROM #parcel ORDER BY id",
    "SELECT id FROM #parcel ORDER BY id OFFSET &N - 1 ROWS FETCH NEXT &N ROWS ONLY",
    "SELECT id FROM #parcel WHERE price > &P AND id IN (&N, 3)",
    "SELECT id + &N, id * -&N, &N / 2 FROM #parcel ORDER BY id",
    "SELECT '?' AS [a?], id FROM #parcel WHERE name LIKE '%&X%' -- ? it's\n/* ? */ ORDER BY id",
    "SELECT CASE WHEN '&X' = 'it' THEN &N ELSE 0 END, LEN('&X'), UPPER('&X')",
    "SELECT &COL FROM #parcel ORDER BY &COL DESC",
    "SELECT [&COL] FROM #parcel ORDER BY id",
    "WITH x AS (SELECT id FROM #parcel WHERE id <= &N) SELECT COUNT(*) FROM x",
    "SET NOCOUNT ON\nSELECT id FROM #parcel WHERE code = '&X' ORDER BY id",
]


@pytest.fixture
def tds(sqlserver: Any) -> Iterator[Any]:
    with closing(sqlserver.connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(
            "CREATE TABLE #parcel (id int, name nvarchar(50), code char(5), day date, at datetime, price decimal(10,2))"
        )
        for values in (
            (1, "it's", "A", "2026-01-17", "2026-01-17 08:00:00", "1.5"),
            (2, "ITEM", "it", "2026-01-18", "2026-01-17 06:00:00", "9.99"),
            (3, "item", "it", "2026-01-16", "2026-02-01 00:00:00", "0"),
        ):
            cursor.execute("INSERT INTO #parcel VALUES (?, ?, ?, ?, ?, ?)", values)
        yield cursor
        cursor.execute("DROP TABLE #parcel")


@pytest.mark.parametrize("text", SQLSERVER_FORMS)
def test_sqlserver_form_gives_the_same_rows_as_pasted_text(tds: Any, text: str) -> None:
    expected = pasted_rows(tds, text)
    assert expected
    assert rows_of(tds, bound(text, "sqlserver", GIVEN)) == expected


@pytest.mark.parametrize("text", LIST_FORMS)
def test_sqlserver_finds_the_members_of_a_list(tds: Any, text: str) -> None:
    assert listed_rows(tds, text.replace("parcel", "#parcel"), "sqlserver")


def test_sqlserver_takes_hostile_values_in_a_list(tds: Any) -> None:
    (step,) = (
        parse(LIST_DEFINES + "SELECT 1 WHERE 'no' NOT IN ('&STATI')", name="q", dialect=find_dialect("sqlserver"))
        .bind({"STATI": join(HOSTILE), "NAMES": "x"})
        .steps
    )
    assert list(step.binds) == HOSTILE
    assert [tuple(row) for row in tds.execute(step.sql, step.binds).fetchall()] == [(1,)]


@pytest.mark.parametrize("value", HOSTILE)
def test_sqlserver_gives_hostile_values_back(tds: Any, value: str) -> None:
    # The cast is for the test server alone, which takes a bare ? in the select list for varchar.
    text = "SELECT CAST('&X' AS nvarchar(max)), CAST(N'a&X.b' AS nvarchar(max)) /* ? ' */"
    (row,) = rows_of(tds, bound(text, "sqlserver", {"X": value}))
    assert row == (value, f"a{value}b")


def test_sqlserver_keeps_nested_comments_without_signs_of_binds(tds: Any) -> None:
    assert rows_of(tds, bound("SELECT 1 /* a /* b */ c */ + LEN('&X')", "sqlserver", {"X": "abc"})) == [(4,)]


# ── SQLite ──

SQLITE_FORMS = [
    "SELECT id FROM parcel WHERE day = '&D'",
    "SELECT id FROM parcel WHERE day = date('&D') AND id = '&N'",
    "SELECT id FROM parcel WHERE at >= '&D 00:00:00' AND at < '&D 23:59:59'",
    "SELECT id FROM parcel WHERE name LIKE '%&X%' OR name = '&X.''s' OR name GLOB '&X*'",
    "SELECT id FROM parcel WHERE code IN ('A', '&X') AND name <> '&X'",
    "SELECT '&X', 'a&X.b', '&X&D', 2 * '1&N', '&X'||'b', typeof('&X'), typeof(&N), typeof(&P)",
    "SELECT id FROM parcel ORDER BY id LIMIT &N OFFSET &N - 1",
    "SELECT id FROM parcel WHERE price > &P AND id IN (&N, 3)",
    "SELECT json_extract(doc, '$.&X'), doc ->> '$.k' FROM parcel ORDER BY id",
    "SELECT &COL FROM parcel ORDER BY &COL DESC",
    "SELECT '&X' AS k, count(*) FROM parcel GROUP BY 'a&X' || code ORDER BY 2",
    "SELECT [name], `code`, \"&COL\" FROM parcel WHERE '&X' IS NOT NULL ORDER BY id",
    "WITH RECURSIVE c(i) AS (VALUES (&N) UNION ALL SELECT i + 1 FROM c WHERE i < &N + 3) SELECT i FROM c",
]


@pytest.fixture
def sqlite() -> Iterator[sqlite3.Cursor]:
    with closing(sqlite3.connect(":memory:")) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(
            "CREATE TABLE parcel (id INTEGER, name TEXT, code TEXT, day TEXT, at TEXT, price NUMERIC, doc TEXT)"
        )
        cursor.executemany(
            "INSERT INTO parcel VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (1, "it's", "A", "2026-01-17", "2026-01-17 08:00:00", 1.5, '{"it": 1, "k": 2}'),
                (2, "ITEM", "it", "2026-01-18", "2026-01-17 06:00:00", 9.99, '{"k": 3}'),
                (3, "item", "it", "2026-01-16", "2026-02-01 00:00:00", 0, "{}"),
            ],
        )
        yield cursor


@pytest.mark.parametrize("text", SQLITE_FORMS)
def test_sqlite_form_gives_the_same_rows_as_pasted_text(sqlite: Any, text: str) -> None:
    expected = pasted_rows(sqlite, text)
    assert rows_of(sqlite, bound(text, "sqlite", GIVEN)) == expected


@pytest.mark.parametrize("text", LIST_FORMS)
def test_sqlite_finds_the_members_of_a_list(sqlite: Any, text: str) -> None:
    assert listed_rows(sqlite, text, "sqlite")


def test_sqlite_takes_as_many_values_as_we_allow(sqlite: Any) -> None:
    # Bound by name they cost seconds: SQLite looks each name up in a list.
    assert sqlite.connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) >= 32_766
    many = parse(LIST_DEFINES + "SELECT 1 WHERE 5000 IN (&IDS)", name="q", dialect=find_dialect("sqlite")).bind(
        {"IDS": ",".join(map(str, range(1, 5001))), "STATI": "x", "NAMES": "x"}
    )
    assert rows_of(sqlite, many) == [(1,)]


@pytest.mark.parametrize("value", [*HOSTILE, "a\0b"])
def test_sqlite_gives_hostile_values_back(sqlite: Any, value: str) -> None:
    (row,) = rows_of(sqlite, bound("SELECT '&X', 'a&X.b' -- ? :x", "sqlite", {"X": value}))
    assert row[0] == value
    assert row[1] == f"a{value}b"


# ── Oracle, through the real driver ──


@pytest.fixture
def echo(oracle: Any) -> Iterator[Any]:
    """A connection whose every SELECT returns the received binds, as text, ordered by name."""
    oracle.on(
        r"select",
        columns=[("V", "VARCHAR2(4000)")],
        rows=lambda sql, binds: [(str(binds[name]),) for name in sorted(binds)],
    )
    with oracledb.connect(user="pstt", password="pw", dsn=oracle.dsn) as connection, connection.cursor() as cursor:
        yield cursor


@pytest.mark.parametrize("value", [value for value in HOSTILE if len(value) < 4000])
def test_oracle_gets_hostile_values_as_binds(oracle: Any, echo: Any, value: str) -> None:
    text = "SELECT '&X', 'a&X.b', q'[it's &X]' FROM dual WHERE a LIKE '%&X%'"
    query = bound(text, "oracle", {"X": value})
    assert rows_of(echo, query) == [(value,)]
    (arrived,) = oracle.statements("FROM dual")
    assert arrived.sql == (
        "SELECT :P_X, ('a' || :P_X || 'b'), ('it''s ' || :P_X) FROM dual WHERE a LIKE ('%' || :P_X || '%')"
    )


def test_oracle_gets_each_value_of_a_list_in_its_type(oracle: Any, echo: Any) -> None:
    text = "SELECT A FROM dual WHERE a IN ('&STATI') AND b NOT IN (&IDS) AND c IN (&DAYS) AND d IN (DATE '&DAYS')"
    values = {"STATI": join(["N", "it's"]), "NAMES": "x", "IDS": "1,3", "DAYS": "2026-01-17,2026-01-16"}
    rows_of(echo, parse(LIST_DEFINES + text, name="q.sql", dialect=find_dialect("oracle")).bind(values))
    (arrived,) = oracle.statements("FROM dual")
    assert arrived.sql == (
        "SELECT A FROM dual WHERE a IN (:L1_STATI, :L2_STATI) AND b NOT IN (:L1_IDS, :L2_IDS)"
        " AND c IN (:L1_DAYS, :L2_DAYS)"
        " AND d IN (TO_DATE(:L1_DAYS_2, 'YYYY-MM-DD'), TO_DATE(:L2_DAYS_2, 'YYYY-MM-DD'))"
    )
    found = {name: str(value).removesuffix(" 00:00:00") for name, value in arrived.binds.items()}
    assert found == {
        **{"L1_STATI": "N", "L2_STATI": "it's", "L1_IDS": "1", "L2_IDS": "3"},
        **{"L1_DAYS": "2026-01-17", "L2_DAYS": "2026-01-16", "L1_DAYS_2": "2026-01-17", "L2_DAYS_2": "2026-01-16"},
    }


def test_oracle_takes_a_thousand_values_in_a_list(oracle: Any, echo: Any) -> None:
    many = parse(
        LIST_DEFINES + "SELECT A FROM dual WHERE a IN (&IDS)", name="q.sql", dialect=find_dialect("oracle")
    ).bind({"STATI": "x", "NAMES": "x", "IDS": ",".join(map(str, range(1000)))})
    assert len(rows_of(echo, many)) == 1000


def test_oracle_compares_a_text_as_the_literal_that_it_replaces(oracle: Any) -> None:
    """`code = :P` finds no `'N    '` of a CHAR(5) where the bind is a VARCHAR2; a literal is a CHAR."""
    oracle.on(r"select", columns=[("A", "VARCHAR2(10)")], rows=[("x",)])
    text = (
        "SELECT A, '&X' FROM dual WHERE a = '&X' AND b IN ('&STATI') AND c LIKE '&X%' AND d = 'a&X' AND e = &IDS"
        " AND '&X' <> f AND g BETWEEN '&X' AND '&X'"
    ).replace("&IDS", "&NUMBER")
    query = parse(
        f"define X='N'\ndefine NUMBER=1\n{LIST_DEFINES}{text}", name="q.sql", dialect=find_dialect("oracle")
    ).bind({"STATI": f"N,{'x' * 2001}", "NAMES": "x"})
    source = OracleSource(
        DatabaseConnection(
            "double",
            "oracle",
            host=oracle.host,
            port=oracle.port,
            service_name=oracle.service,
            username="pstt",
            password=Secret("pw"),
        )
    )
    with closing(source), source.read(query.steps) as reading:
        assert [row for rows in reading for row in rows.rows] == [("x",)]
    (arrived,) = oracle.statements("FROM dual")
    assert arrived.sql == (
        "SELECT A, :P_X FROM dual WHERE a = :P_X_2 AND b IN (:L1_STATI, :L2_STATI) AND c LIKE (:P_X || '%')"
        " AND d = ('a' || :P_X) AND e = :P_NUMBER AND :P_X_2 <> f AND g BETWEEN :P_X_2 AND :P_X_2"
    )
    assert {name: kind for name, kind in arrived.bind_types.items() if name != "P_NUMBER"} == {
        **{"P_X": "VARCHAR2", "P_X_2": "CHAR"},
        **{"L1_STATI": "CHAR", "L2_STATI": "VARCHAR2"},
    }
    assert arrived.binds["P_X_2"] == "N"


ORACLE_FORMS = [
    "SELECT BARCODE FROM EXPORT_TABLE WHERE TRUNC(TRKDATE) = TO_DATE('&D', 'YYYY-MM-DD') AND F = ':no' -- :no",
    "SELECT JSON_OBJECT('k':'&X', 'n' : &N) FROM dual",
    "SELECT DATE '&D', TIMESTAMP '&D 08:00:00', N'&X', nq'!&X!a!' FROM dual",
    "SELECT /*+ FIRST_ROWS(:no) */ q'[:no it's]', \":no\", &P FROM t AS OF TIMESTAMP '&X' WHERE ROWNUM <= &N",
    "SELECT '&X'AND'&D'FROM t,u WHERE t.a=u.a(+)AND t.b=&N ORDER BY 1",
    "SELECT LEVEL FROM dual CONNECT BY LEVEL <= &N /* :no */",
]


@pytest.mark.parametrize("text", ORACLE_FORMS)
def test_driver_finds_exactly_our_binds(echo: Any, text: str) -> None:
    (step,) = bound(text, "oracle", GIVEN).steps
    echo.prepare(step.sql)
    assert sorted(echo.bindnames()) == sorted(step.binds)
    assert len(rows_of(echo, bound(text, "oracle", GIVEN))) == len(step.binds)


def test_numbers_and_dates_reach_oracle_in_their_types(oracle: Any, echo: Any) -> None:
    text = (
        "define DAY=2026-01-17 --Opzionale: [type=date]\n"
        "define BIG=12345678901234567890123456789012345678\n"
        "SELECT &DAY, &BIG, &P FROM dual"
    )
    rows_of(echo, bound(text, "oracle", GIVEN))
    (arrived,) = oracle.statements("FROM dual")
    assert arrived.binds["P_DAY"] in (date(2026, 1, 17), datetime(2026, 1, 17))  # noqa: DTZ001
    assert Decimal(arrived.binds["P_BIG"]) == Decimal("12345678901234567890123456789012345678")
    assert Decimal(arrived.binds["P_P"]) == Decimal("1.5")


def test_example_of_the_contract_reaches_oracle(oracle: Any, echo: Any) -> None:
    text = (
        "define DATA='2026-01-17'  --Obbligatorio: Data estrazione (YYYY-MM-DD)\n"
        "SELECT BARCODE, TRKDATE, ARRIVETIMESTAMP FROM EXPORT_TABLE\n"
        "WHERE TRUNC(TRKDATE) = TO_DATE('&DATA', 'YYYY-MM-DD') AND TEST_FLAG = 'N' ORDER BY ARRIVETIMESTAMP;\n"
    )
    assert rows_of(echo, parse(text, name="CDG.sql", dialect=find_dialect("oracle")).bind({"DATA": "2026-01-16"})) == [
        ("2026-01-16",)
    ]
    (arrived,) = oracle.statements("EXPORT_TABLE")
    assert "TO_DATE(:P_DATA, 'YYYY-MM-DD')" in arrived.sql
    assert not arrived.sql.endswith(";")
