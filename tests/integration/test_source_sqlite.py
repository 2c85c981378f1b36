"""What only SQLite has: a file that is missing, locked, damaged, or read while it is written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

import pytest

from core.errors import ConfigError, PsttError, QueryFailed, RunCancelled, SourceUnavailable
from core.model.connection import DatabaseConnection
from core.model.query import Step
from core.sources.sqlite import SqliteSource, _uri


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pacchi è #1 100%25.sqlite"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE parcel (n INTEGER, name TEXT)")
        connection.execute("INSERT INTO parcel VALUES (1, 'one')")
    return path


def source_of(path: Path, **changes: Any) -> SqliteSource:
    return SqliteSource(DatabaseConnection(name="lite", db_type="sqlite", database=str(path), **changes))


def read_all(path: Path, sql: str, **changes: Any) -> list[tuple[Any, ...]]:
    with closing(source_of(path, **changes)) as source, source.read([Step(sql)]) as reading:
        return [tuple(row) for rows in reading for row in rows.rows]


def error_of(path: Path, sql: str = "SELECT n FROM parcel", **changes: Any) -> PsttError:
    with pytest.raises(PsttError) as caught:
        read_all(path, sql, **changes)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


def test_file_of_any_name_is_read(file: Path) -> None:
    assert read_all(file, "SELECT n, name FROM parcel") == [(1, "one")]


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        (PurePosixPath("/data/è #1.db"), "file:///data/%C3%A8%20%231.db"),
        (PureWindowsPath(r"C:\data\a?.db"), "file:///C:/data/a%3F.db"),
        (PureWindowsPath(r"\\server\share\a.db"), "file:////server/share/a.db"),
    ],
)
def test_file_is_named_to_sqlite_as_it_takes_it(path: PurePath, uri: str) -> None:
    assert _uri(path) == uri


@pytest.mark.parametrize("allow_writes", [False, True])
def test_missing_file_is_a_mistake_in_connections_json_and_is_not_made(tmp_path: Path, allow_writes: bool) -> None:
    missing = tmp_path / "missing.sqlite"
    error = error_of(missing, allow_writes=allow_writes)
    assert type(error) is ConfigError
    assert "missing.sqlite" in error.text
    assert "connections.json" in error.remedy
    assert not missing.exists()


def test_folder_in_place_of_the_file_is_a_mistake_in_connections_json(tmp_path: Path) -> None:
    assert type(error_of(tmp_path)) is ConfigError


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough to be looked at" * 100, b"SQLite format 3\0" + b"\xff" * 5000]
)
def test_file_of_something_else_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "garbage.sqlite"
    path.write_bytes(content)
    error = error_of(path, "SELECT 1 AS n FROM sqlite_master")
    assert type(error) is ConfigError
    assert "garbage.sqlite is no database" in error.text
    with closing(source_of(path)) as source:
        assert [(result.status, result.unreachable) for result in source.check()] == [("fail", False)]


def test_file_that_is_damaged_amid_the_rows_is_no_complete_result(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(
            "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c LIMIT 50000)"
            " INSERT INTO parcel SELECT n, hex(randomblob(20)) FROM c"
        )
    content = bytearray(file.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40_000] = b"\xff" * 40_000
    file.write_bytes(content)

    seen = 0
    with (  # noqa: PT012 - the error comes out of the loop
        closing(source_of(file)) as source,
        pytest.raises(ConfigError, match="damaged"),
        source.read([Step("SELECT n, name FROM parcel")], fetch_rows=100) as reading,
    ):
        for rows in reading:
            seen += len(rows.rows)
    assert 0 < seen < 50_001


def test_file_that_another_program_holds_may_be_tried_again(file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        error = error_of(file, connect_timeout_s=0.1)
        assert type(error) is SourceUnavailable
        assert error.is_retriable
        assert "locked" in error.text
        other.execute("ROLLBACK")
    assert read_all(file, "SELECT n FROM parcel") == [(1,)]


def test_writers_are_not_hindered_once_a_read_has_ended(file: Path) -> None:
    with closing(source_of(file)) as source:
        with source.read([Step("SELECT n FROM parcel")], fetch_rows=1) as reading:
            next(iter(reading))
        with closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as other:
            other.execute("INSERT INTO parcel VALUES (2, 'two')")


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO parcel VALUES (2, 'two')",
        "DELETE FROM parcel RETURNING n",
        "PRAGMA user_version = 7",
        "CREATE TEMP TABLE t AS SELECT 1",
    ],
)
def test_write_is_refused_by_sqlite_itself(file: Path, sql: str) -> None:
    before = file.read_bytes()
    error = error_of(file, sql)
    assert type(error) is QueryFailed
    assert "readonly" in error.text
    assert file.read_bytes() == before


def test_read_only_holds_even_when_a_step_turns_its_flag_off(file: Path) -> None:
    before = file.read_bytes()
    with closing(source_of(file)) as source:
        steps = [Step("PRAGMA query_only = OFF", returns_rows=False), Step("DELETE FROM parcel RETURNING n")]
        with pytest.raises(QueryFailed, match="readonly"), source.read(steps):
            pytest.fail("nothing may be deleted")
    assert file.read_bytes() == before


def test_second_statement_in_one_text_is_refused(file: Path) -> None:
    error = error_of(file, "SELECT n FROM parcel; DELETE FROM parcel")
    assert type(error) is QueryFailed
    assert "one statement at a time" in error.text


def test_check_tells_version_and_how_the_file_is_opened(file: Path) -> None:
    with closing(source_of(file)) as source:
        assert source.check()[1].text == f"SQLite {sqlite3.sqlite_version}, 1 table or view, opened read-only"
    with closing(source_of(file, allow_writes=True)) as source:
        assert "may write (allow_writes)" in source.check()[1].text


def test_cancel_that_comes_just_before_a_statement_ends_it_all_the_same(file: Path) -> None:
    endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) AS n FROM c"
    with closing(source_of(file)) as source:
        stream = source.stream

        def late(*given: Any) -> Any:
            source.cancel()  # nothing runs: SQLite forgets the interrupt
            return stream(*given)

        source.stream = late  # type: ignore[method-assign]
        with pytest.raises(RunCancelled), source.read([Step(endless)]) as reading:
            list(reading)
