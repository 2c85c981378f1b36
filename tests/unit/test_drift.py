"""Columns that are missing, new or changed stop a run before its first message, until a user accepts them."""

from datetime import UTC, datetime

import pytest

from core.errors import ColumnsChanged, ConfigError
from core.model.job import Job
from core.model.source import Column
from core.records.columns import ColumnMemory, drift_between
from core.run.drift import column_check

NOW = datetime(2026, 1, 17, 1, 0, tzinfo=UTC)
BARCODE = Column("BARCODE", "text", "VARCHAR2")
OPERATOR = Column("OPERATOR", "integer", "NUMBER")
DATE = Column("TRKDATE", "date", "DATE")


@pytest.fixture
def memory(tmp_path):
    with ColumnMemory(tmp_path / "ledger.sqlite") as opened:
        yield opened


def look(memory: ColumnMemory, *columns: Column, on_drift: str = "stop", dry_run: bool = False) -> None:
    job = Job("export", "Export", "q.sql", "A00", on_drift=on_drift)
    column_check(job, memory, "anna", lambda: NOW, dry_run=dry_run)(columns)


def test_the_first_run_remembers_and_the_next_ones_go_on(memory):
    assert memory.remembered("export") is None
    look(memory, BARCODE, OPERATOR)
    look(memory, BARCODE, OPERATOR)
    assert memory.remembered("export") == (("BARCODE", "text", "VARCHAR2"), ("OPERATOR", "integer", "NUMBER"))


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ([BARCODE], "gone: OPERATOR (NUMBER)"),
        ([BARCODE, OPERATOR, DATE], "added: TRKDATE (DATE)"),
        ([BARCODE, Column("OPERATOR", "text", "VARCHAR2")], "changed: OPERATOR (NUMBER → VARCHAR2)"),
        ([BARCODE, Column("OPERATOR", "decimal", "NUMBER")], "changed: OPERATOR (NUMBER: integer → decimal)"),
        ([DATE, OPERATOR], "gone: BARCODE (VARCHAR2); added: TRKDATE (DATE)"),
    ],
)
def test_a_column_gone_added_or_changed_stops_the_run_with_the_difference(memory, columns, text):
    look(memory, BARCODE, OPERATOR)
    with pytest.raises(ColumnsChanged) as caught:
        look(memory, *columns)
    assert caught.value.text == f'the columns of job "Export" have changed: {text}'
    assert "python -m core accept-columns export" in caught.value.remedy
    assert not caught.value.is_retriable


def test_sqlite_alias_whose_type_was_not_known_at_first_is_no_change_where_its_json_is_the_same(memory):
    known_now = [Column("prezzo", "float", "REAL"), Column("attivo", "boolean", "BOOLEAN")]
    look(memory, Column("prezzo", "unknown", "value"), Column("attivo", "boolean", "BOOLEAN"))
    look(memory, *known_now)
    assert memory.remembered("export") == (("prezzo", "float", "REAL"), ("attivo", "boolean", "BOOLEAN"))
    with pytest.raises(ColumnsChanged, match="prezzo"):
        look(memory, Column("prezzo", "text", "TEXT"), known_now[1])


def test_sqlite_alias_whose_json_changes_with_its_type_stops_the_run(memory):
    look(memory, Column("attivo", "unknown", "value"))
    with pytest.raises(ColumnsChanged, match="attivo"):
        look(memory, Column("attivo", "boolean", "BOOLEAN"))


def test_order_case_and_length_are_no_change(memory):
    look(memory, BARCODE, OPERATOR)
    look(memory, Column("operator", "integer", "NUMBER"), Column("barcode", "text", "VARCHAR2(30)"))
    assert memory.found("export") is None


def test_it_stops_each_time_until_somebody_accepts(memory):
    look(memory, BARCODE, OPERATOR)
    for _ in range(2):
        with pytest.raises(ColumnsChanged):
            look(memory, BARCODE, DATE)
    before, after = memory.accept(Job("export", "Export", "q.sql", "A00"), "carlo", NOW)
    assert drift_between(before, after).text == "gone: OPERATOR (NUMBER); added: TRKDATE (DATE)"
    look(memory, BARCODE, DATE)
    with pytest.raises(ColumnsChanged):
        look(memory, BARCODE, OPERATOR)


def test_columns_that_come_back_leave_nothing_to_accept(memory):
    look(memory, BARCODE, OPERATOR)
    with pytest.raises(ColumnsChanged):
        look(memory, BARCODE)
    look(memory, BARCODE, OPERATOR)
    with pytest.raises(ConfigError, match="no changed columns to accept"):
        memory.accept(Job("export", "Export", "q.sql", "A00"), "carlo", NOW)


def test_accepting_before_the_first_run_says_that_there_was_none(memory):
    with pytest.raises(ConfigError, match="no run has read its columns yet"):
        memory.accept(Job("export", "Export", "q.sql", "A00"), "carlo", NOW)


def test_warn_goes_on_says_it_once_and_remembers_the_new_columns(memory):
    from loguru import logger

    said: list[str] = []
    handler = logger.add(lambda message: said.append(message.record["message"]), level="WARNING")
    try:
        look(memory, BARCODE, OPERATOR)
        look(memory, BARCODE, on_drift="warn")
        look(memory, BARCODE, on_drift="warn")
    finally:
        logger.remove(handler)
    assert said == ["job export: the columns of the result have changed: gone: OPERATOR (NUMBER)"]


def test_ignore_neither_stops_nor_remembers(memory):
    look(memory, BARCODE, OPERATOR)
    look(memory, DATE, on_drift="ignore")
    assert memory.remembered("export") == (("BARCODE", "text", "VARCHAR2"), ("OPERATOR", "integer", "NUMBER"))


def test_a_dry_run_stops_too_and_writes_nothing(memory):
    look(memory, BARCODE, dry_run=True)
    assert memory.remembered("export") is None
    look(memory, BARCODE)
    with pytest.raises(ColumnsChanged):
        look(memory, OPERATOR, dry_run=True)
    assert memory.found("export") is None
