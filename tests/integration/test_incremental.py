"""Incremental jobs on the real databases and a real broker: every window, with every digit, in parts and in transactions."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.incremental import JOBS, PARTS_JOBS, killed_over_a_broker
from core.app import App
from core.errors import ConfigError
from core.model.connection import DatabaseConnection
from core.model.job import Incremental
from core.model.query import Step
from core.model.run import Run
from core.model.source import Column
from core.model.window import Cursor, Window
from core.run.cancellation import Stop
from core.sources import find_dialect, open_source
from core.sql.incremental import cursor_columns, shown
from tests.rigs.kafka import KafkaRig
from tests.rigs.mysql import MySqlRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.sqlserver import SqlServerRig, number_table
from tests.rigs.sweeps import sweep
from tests.rigs.workspace import command, environment, make_workspace

BEGIN = datetime(2026, 3, 29, tzinfo=UTC)
ROWS = 60


def walk(
    given: DatabaseConnection, sqls: list[str], incremental: Incremental, latest: list[datetime | None]
) -> list[int]:
    """Reads window after window; returns the rows of each. Every row of the last statement is read once, or fails."""
    source, low, counts, seen = open_source(given), None, [], Counter[Any]()
    try:
        for sql, until in zip(sqls, latest, strict=True):
            found = source.increment([Step(sql)], incremental, Window(len(counts), low, until))
            with source.read(found.steps) as reading:
                assert reading.columns == found.columns
                rows = [tuple(row) for block in reading for row in block.rows]
            seen.update(rows)
            counts.append(len(rows))
            assert (found.high is None) == (not rows)
            low = found.high or low
        with source.read([Step(sqls[-1])]) as reading:
            assert seen == Counter(tuple(row) for block in reading for row in block.rows)
    finally:
        source.close()
    return counts


PG_TIMES = {
    "timestamp with microseconds": "timestamp '2026-03-29 00:00:00.000001' + g * interval '10 seconds'",
    "timestamp of a zone": "timestamptz '2026-03-29 00:00:00.000001+00' + g * interval '10 seconds'",
    "date": "date '2026-03-29' - 60 + g",
}
PG_NUMBERS = {
    "integer": "g",
    "bigint": "g::bigint * 100000000000000",
    "38 digits": "(99999999999999999999999999999999999900::numeric + g)",
    "negative": "g - 100",
}


def in_thirds(seconds: int) -> list[datetime | None]:
    return [BEGIN + timedelta(seconds=seconds * n / 3) for n in (1, 2, 3, 3)] + [BEGIN + timedelta(days=90)]


@pytest.mark.parametrize("expression", PG_TIMES.values(), ids=PG_TIMES.keys())
@pytest.mark.parametrize("tie", [None, "g"])
def test_postgresql_times_are_read_once(postgres: PostgresRig, expression: str, tie: str | None) -> None:
    sql = f'select {expression} as "At This", g as "g", \'50 %\' as note from generate_series(1, {ROWS}) g'
    counts = walk(postgres.connection(), [sql] * 5, Incremental("at this", "timestamp", tie_column=tie), in_thirds(600))
    assert sum(counts) == ROWS
    assert counts[3] == 0


@pytest.mark.parametrize("expression", PG_NUMBERS.values(), ids=PG_NUMBERS.keys())
def test_postgresql_numbers_are_read_once(postgres: PostgresRig, expression: str) -> None:
    sqls = [f"select {expression} as id from generate_series(1, {n}) g order by g desc" for n in (20, 20, 50, ROWS)]
    assert walk(postgres.connection(), sqls, Incremental("ID", "integer"), [None] * 4) == [20, 0, 30, 10]


def test_postgresql_rows_with_an_equal_time_are_ordered_by_the_tie_column(postgres: PostgresRig) -> None:
    same = "select timestamptz '2026-03-29 00:00:00+00' as at, g as id from generate_series(1, {}) g"
    counts = walk(
        postgres.connection(),
        [same.format(n) for n in (5, 5, 12)],
        Incremental("at", "timestamp", tie_column="id"),
        [BEGIN] * 3,
    )
    assert counts == [5, 0, 7]


def test_a_zone_without_offset_is_that_of_the_setting(postgres: PostgresRig) -> None:
    sql = "select timestamp '2026-01-17 12:00:00' + g * interval '1 minute' as at from generate_series(0, 9) g"
    source = open_source(postgres.connection())
    moment = datetime(2026, 1, 17, 11, 4, 30, tzinfo=UTC)
    found = {
        zone: source.increment([Step(sql)], Incremental("at", "timestamp", timezone=zone), Window(0, None, moment)).high
        for zone in ("Europe/Rome", "UTC")
    }
    assert found == {"Europe/Rome": Cursor("2026-01-17 12:04:00.000000"), "UTC": None}


@pytest.mark.parametrize("expression", ["'a ' || g", "g::float8", "g % 2 = 0", "to_jsonb(g)"])
def test_postgresql_columns_that_are_no_cursor(postgres: PostgresRig, expression: str) -> None:
    source = open_source(postgres.connection())
    for kind in ("integer", "timestamp"):
        with pytest.raises(ConfigError, match="cannot be the column of an incremental job"):
            source.increment(
                [Step(f"select {expression} as id from generate_series(1, 3) g")],
                Incremental("id", kind),  # type: ignore[arg-type]
                Window(0, None),
            )


SQLSERVER_TIMES = {
    "datetime2 with seven digits": "DATEADD(nanosecond, 100, DATEADD(second, 10 * n, CAST('2026-03-29' AS datetime2(7))))",
    "datetime": "DATEADD(millisecond, 3, DATEADD(second, 10 * n, CAST('2026-03-29' AS datetime)))",
    "date": "DATEADD(day, n - 60, CAST('2026-03-29' AS date))",
}


@pytest.mark.parametrize("expression", SQLSERVER_TIMES.values(), ids=SQLSERVER_TIMES.keys())
@pytest.mark.parametrize("tie", sweep([None, "g"], always=["g"]))
def test_sqlserver_times_are_read_once(sqlserver: SqlServerRig, expression: str, tie: str | None) -> None:
    sql = f"SELECT {expression} AS [At This], n AS g FROM {number_table(ROWS)}"
    counts = walk(
        sqlserver.connection(), [sql] * 5, Incremental("at this", "timestamp", tie_column=tie), in_thirds(600)
    )
    assert sum(counts) == ROWS
    assert counts[3] == 0


def test_sqlserver_numbers_are_read_once(sqlserver: SqlServerRig) -> None:
    sqls = [f"SELECT CAST(n AS decimal(38, 0)) AS id FROM {number_table(count)}" for count in (20, 20, 50)]
    assert walk(sqlserver.connection(), sqls, Incremental("ID", "integer"), [None] * 3) == [20, 0, 30]


MARIADB_TIMES = {
    "datetime(6)": "TIMESTAMP('2026-03-29') + INTERVAL 10000001 * seq MICROSECOND",
    "timestamp": "FROM_UNIXTIME(UNIX_TIMESTAMP('2026-03-29') + 10 * seq)",
    "date": "CAST('2026-03-29' - INTERVAL 60 - seq DAY AS date)",
}


@pytest.mark.parametrize("name", sweep(list(MARIADB_TIMES), always=["timestamp"]))
@pytest.mark.parametrize("tie", sweep([None, "g"], always=["g"]))
def test_mariadb_times_are_read_once(mariadb: MySqlRig, name: str, tie: str | None) -> None:
    sql = f"SELECT {MARIADB_TIMES[name]} AS `At This`, seq AS g FROM seq_1_to_{ROWS}"
    counts = walk(mariadb.connection(), [sql] * 5, Incremental("at this", "timestamp", tie_column=tie), in_thirds(600))
    assert sum(counts) == ROWS
    assert counts[3] == 0


def test_mariadb_numbers_are_read_once(mariadb: MySqlRig) -> None:
    sqls = [f"SELECT seq * 1000000000000000 AS id FROM seq_1_to_{n} ORDER BY seq DESC" for n in (20, 20, 50, ROWS)]
    assert walk(mariadb.connection(), sqls, Incremental("ID", "integer"), [None] * 4) == [20, 0, 30, 10]


def test_sqlserver_binds_each_place() -> None:
    columns = [Column("At", "datetime", "datetime2"), Column("Id", "integer", "int")]
    incremental = Incremental("at", "timestamp", tie_column="id")
    cursor = cursor_columns(columns, incremental, find_dialect("sqlserver"))
    low, high = Cursor("2026-01-01 00:00:00.1234567", "7"), Cursor("2026-01-02 00:00:00.0000000", "9")
    step = cursor.window(Step("SELECT * FROM t WHERE x = ?", (5,)), Window(1, low), high)
    assert step.binds == (5, low.value, low.value, 7, high.value, high.value, 9)
    assert step.sql.count("?") == len(step.binds)
    assert step.sql.endswith(
        "AND part.[At] <= CAST(? AS datetime2(7)) AND (part.[At] < CAST(? AS datetime2(7)) OR part.[Id] <= ?)"
    )


ORACLE = {
    "oracle_date": ("TO_DATE(:PSTT_UP_TO, 'YYYY-MM-DD HH24:MI:SS')", "2026-01-02 00:00:00"),
    "datetime": ("TO_TIMESTAMP(:PSTT_UP_TO, 'YYYY-MM-DD HH24:MI:SS.FF9')", "2026-01-02 00:00:00.123456789"),
    "datetime_tz": (
        "FROM_TZ(TO_TIMESTAMP(:PSTT_UP_TO, 'YYYY-MM-DD HH24:MI:SS.FF9'), '+00:00')",
        "2026-01-02 00:00:00.123456789",
    ),
}


@pytest.mark.parametrize("kind", ORACLE)
def test_oracle_times_are_bound_with_every_digit(kind: str) -> None:
    cursor = cursor_columns([Column("AT", kind, "TIMESTAMP")], Incremental("at", "timestamp"), find_dialect("oracle"))
    suffix = "Z" if kind == "datetime_tz" else ""
    high = Cursor(f"2026-01-02 00:00:00.123456789{suffix}")
    step = cursor.window(Step("SELECT * FROM t WHERE a = :P_A", {"P_A": "x"}), Window(0, None), high)
    text, value = ORACLE[kind]
    assert step.sql == (
        f'SELECT * FROM (\nSELECT * FROM t WHERE a = :P_A\n) part WHERE part."AT" IS NOT NULL AND part."AT" <= {text}'
    )
    assert step.binds == {"P_A": "x", "PSTT_UP_TO": value}


def test_oracle_asks_for_the_highest_position() -> None:
    columns = [Column("AT", "oracle_date", "DATE"), Column("ID", "decimal", "NUMBER")]
    incremental = Incremental("at", "timestamp", tie_column="id")
    cursor = cursor_columns(columns, incremental, find_dialect("oracle"))
    asked = cursor.highest(Step("SELECT * FROM t"), Window(1, Cursor("2026-01-01 00:00:00", "7"), BEGIN))
    assert asked.sql == (
        "SELECT TO_CHAR(found.pstt_cursor, 'YYYY-MM-DD HH24:MI:SS'), found.pstt_tie FROM (\n"
        'SELECT part."AT" AS pstt_cursor, part."ID" AS pstt_tie, '
        'ROW_NUMBER() OVER (ORDER BY part."AT" DESC, part."ID" DESC) AS pstt_place FROM (\nSELECT * FROM t\n) part '
        'WHERE part."AT" IS NOT NULL AND part."ID" IS NOT NULL '
        "AND part.\"AT\" >= TO_DATE(:PSTT_AFTER, 'YYYY-MM-DD HH24:MI:SS') "
        'AND (part."AT" > TO_DATE(:PSTT_AFTER, \'YYYY-MM-DD HH24:MI:SS\') OR part."ID" > :PSTT_AFTER_TIE) '
        "AND part.\"AT\" <= TO_DATE(:PSTT_LATEST, 'YYYY-MM-DD HH24:MI:SS')\n) found WHERE found.pstt_place = 1"
    )
    assert asked.binds == {
        "PSTT_AFTER": "2026-01-01 00:00:00",
        "PSTT_AFTER_TIE": 7,
        "PSTT_LATEST": "2026-03-29 00:00:00",
    }


@pytest.mark.parametrize(("database", "name"), [("oracle", '"AT"'), ("postgresql", '"at"'), ("sqlserver", "[At]")])
def test_the_statements_are_shown_without_a_database(database: str, name: str) -> None:
    window = Window(1, Cursor("2026-01-01 00:00:00"), BEGIN)
    asked, read = shown(Step("SELECT * FROM t"), Incremental("At", "timestamp"), find_dialect(database), window)
    assert f"MAX(part.{name})" in asked.sql
    assert f"part.{name} > " in read.sql
    assert "2026-01-01 00:00:00" in str(asked.binds)
    assert "(what the statement before has found)" in str(read.binds)


# ── runs over a real broker ───────────────────────────────────────────────────────────────────


class Place:
    """A workspace with one incremental job over a table of its own, and its topic."""

    def __init__(self, folder: Path, kafka: KafkaRig, postgres: PostgresRig) -> None:
        self.folder, self.kafka, self.postgres = folder, kafka, postgres
        self.topic = kafka.create_topic()
        self.table = f"incremental_{self.topic.replace('-', '_').replace('.', '_')}"
        self.env = environment(postgres, PSTT_FETCH_ROWS="50", PSTT_RUN_PROCESSES="2")
        self.rows = 0
        self.sql(f"create table {self.table} (id bigint, at timestamptz default clock_timestamp())")

    def sql(self, text: str) -> None:
        with self.postgres.connect() as connection:
            connection.execute(text)

    def insert(self, count: int) -> None:
        self.sql(f"insert into {self.table} (id) select generate_series({self.rows + 1}, {self.rows + count})")
        self.rows += count

    def write_job(self, **more: Any) -> None:
        job: dict[str, Any] = {"incremental": {"column": "id", "kind": "integer"}, **more}
        job["kafka_config"] = {"topic": self.topic, "message_key_field": "id"}
        make_workspace(
            self.folder,
            postgres=self.postgres,
            bootstrap_servers=self.kafka.plaintext,
            topic=self.topic,
            sql=f"select id, at, 'parcel ' || id as name from {self.table}",
            job=job,
        )

    def run(self) -> Run:
        before = dict(os.environ)
        os.environ.update(self.env)
        try:
            with App.open(self.folder, dict(os.environ), log=False) as app:
                now = datetime.now(UTC)
                return app.execute(app.plan(app.job("export"), now=now), stop=Stop(), now=lambda: datetime.now(UTC))
        finally:
            os.environ.clear()
            os.environ.update(before)

    def sent(self) -> Counter[int]:
        return Counter(int(message.key()) for message in self.kafka.read(self.topic))

    @property
    def expected(self) -> Counter[int]:
        return Counter(range(1, self.rows + 1))


@pytest.fixture
def place(tmp_path: Path, kafka: KafkaRig, postgres: PostgresRig) -> Place:
    return Place(tmp_path / "workspace", kafka, postgres)


PARTS = {"partitions": {"column": "id", "count": 3}}


@pytest.mark.parametrize("delivery", sweep(["at_least_once", "exactly_once"], always=["at_least_once"]))
def test_a_partitioned_job_sends_each_row_once(place: Place, delivery: str) -> None:
    place.write_job(delivery=delivery, **PARTS)
    for count in (300, 90):
        place.insert(count)
        done = place.run()
        assert (done.verdict, done.acknowledged, len(done.parts)) == ("complete", count, 3)
        assert done.increment is not None
        assert (done.increment.high, done.increment.moved) == (str(place.rows), True)
    nothing = place.run()
    assert (nothing.verdict, nothing.rows_read, nothing.warnings) == ("complete", 0, ())
    assert place.sent() == place.expected


@pytest.mark.slow
def test_the_missing_parts_of_a_killed_run_are_sent_by_a_run_of_another_time_without_the_rows_that_came_meanwhile(
    place: Place,
) -> None:
    place.write_job(delivery="exactly_once", **PARTS)
    place.insert(300)
    words = ("run", "export", "--workspace", str(place.folder))
    killed = ["python", "-m", "tests.rigs.killed", "after:core.run.partitioned:PartitionedRun._add:1", *words]
    done = subprocess.run([command()[0], *killed[1:]], env=place.env, check=False, capture_output=True)
    assert done.returncode != 0
    place.insert(50)  # in the range of the last part
    first = place.run()
    assert first.verdict == "complete"
    assert first.increment is not None
    assert first.increment.high == "300"
    place.run()
    assert place.sent() == place.expected


@pytest.mark.slow
def test_a_killed_run_in_parts_that_looks_back_is_completed_and_nothing_is_sent_twice(place: Place) -> None:
    late = {"incremental": {"column": "at", "kind": "timestamp", "delay_s": 0, "look_back_s": 3600}}
    place.write_job(delivery="exactly_once", **late, **PARTS)
    place.insert(300)
    words = ("run", "export", "--workspace", str(place.folder))
    killed = ["python", "-m", "tests.rigs.killed", "after:core.run.partitioned:PartitionedRun._add:1", *words]
    done = subprocess.run([command()[0], *killed[1:]], env=place.env, check=False, capture_output=True)
    assert done.returncode != 0
    for count in (50, 0):
        place.insert(count)
        place.sql(f"insert into {place.table} select {place.rows + 1}, min(at) + interval '1 ms' from {place.table}")
        place.rows += 1
        assert place.run().verdict == "complete"
    for _ in range(2):
        nothing = place.run()
        assert (nothing.verdict, nothing.rows_read) == ("complete", 0)
    assert place.sent() == place.expected


@pytest.mark.slow
@pytest.mark.parametrize("name", [*JOBS, *PARTS_JOBS])
def test_a_hundred_kills_over_a_real_broker(tmp_path: Path, kafka: KafkaRig, postgres: PostgresRig, name: str) -> None:
    assert (
        killed_over_a_broker(tmp_path / "w", postgres, kafka, name, kills=20 if name in JOBS else 6, seed=1).problems
        == []
    )
