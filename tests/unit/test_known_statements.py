"""A statement is parsed once, and what is refused is refused each time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.admin.check import check
from core.errors import ConfigError, SqlError
from core.model.dialect import Dialect
from core.model.job import Partitions
from core.model.query import Step
from core.sources import find_dialect
from core.sql import known_statements, partitioning
from core.sql.known_statements import KnownStatements
from core.sql.readonly_guard import parse_tree
from core.workspace.paths import Workspace
from tests.rigs.fork_server import ROOT

STEPS = [Step("SET search_path TO x", returns_rows=False), Step("SELECT id FROM t")]
ASK = """
import sys
from pathlib import Path
from core.model.query import Step
from core.sources import find_dialect
from core.sql.known_statements import KnownStatements
print(KnownStatements(Path(sys.argv[1])).require_wrappable([Step("SELECT id FROM t")], find_dialect("postgresql")).sql)
print("sqlglot" in sys.modules)
"""


def test_a_known_statement_needs_no_parser(tmp_path: Path) -> None:
    def asked() -> list[str]:
        words = [sys.executable, "-c", ASK, str(tmp_path / "known")]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")[:2]

    assert asked() == ["SELECT id FROM t", "True"]
    assert asked() == ["SELECT id FROM t", "False"]


@pytest.mark.parametrize("sql", ["SELECT id FROM t LIMIT 5", "SELECT id FROM t FOR UPDATE"])
def test_what_cannot_be_wrapped_is_refused_each_time(tmp_path: Path, sql: str) -> None:
    for _ in range(2):
        with pytest.raises(SqlError, match="cannot be split"):
            KnownStatements(tmp_path / "known").require_wrappable([Step(sql)], find_dialect("postgresql"))
    assert not (tmp_path / "known").exists()


def test_what_one_database_takes_is_not_known_of_another(tmp_path: Path) -> None:
    known, step = KnownStatements(tmp_path), Step("SELECT id FROM t ORDER BY id")
    assert known.require_wrappable([step], find_dialect("postgresql")) is step
    with pytest.raises(SqlError, match="ORDER BY"):
        known.require_wrappable([step], find_dialect("sqlserver"))


def test_several_results_are_refused_also_if_the_last_one_is_known(tmp_path: Path) -> None:
    known, dialect = KnownStatements(tmp_path), find_dialect("postgresql")
    assert known.require_wrappable(STEPS, dialect) is STEPS[1]
    with pytest.raises(SqlError, match="several statements"):
        known.require_wrappable([STEPS[1], STEPS[1]], dialect)


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / "known").write_text("", encoding="utf-8")
    known = KnownStatements(tmp_path / "known" / "below")
    assert known.require_wrappable(STEPS, find_dialect("postgresql")) is STEPS[1]


def test_the_folder_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(known_statements, "MOST_KNOWN", 5)
    known = KnownStatements(tmp_path)
    for day in range(12):
        known.require_wrappable([Step(f"SELECT id FROM t WHERE day = {day}")], find_dialect("postgresql"))
        assert 1 <= len(list(tmp_path.iterdir())) <= 5


def parses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that are parsed from now on."""
    parsed: list[str] = []

    def counted(sql: str, dialect: Dialect) -> object:
        parsed.append(sql)
        return parse_tree(sql, dialect)

    monkeypatch.setattr(partitioning, "parse_tree", counted)
    return parsed


def test_a_split_is_checked_with_one_parse_and_the_run_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed, dialect, by_id = parses(monkeypatch), find_dialect("postgresql"), Partitions(column="ID", count=2)
    KnownStatements(tmp_path).require_splittable(STEPS, dialect, by_id)
    assert parsed == ["SELECT id FROM t"]
    KnownStatements(tmp_path).require_splittable(STEPS, dialect, by_id)  # the page saves
    assert KnownStatements(tmp_path).require_wrappable(STEPS, dialect) is STEPS[1]  # a run starts
    assert len(parsed) == 1
    KnownStatements().require_splittable(STEPS, dialect, by_id)
    assert len(parsed) == 2


def test_the_column_is_checked_of_a_known_statement_too(tmp_path: Path) -> None:
    known, dialect = KnownStatements(tmp_path), find_dialect("postgresql")
    known.require_wrappable(STEPS, dialect)
    for _ in range(2):
        with pytest.raises(ConfigError, match="names column nope, which the query does not return"):
            known.require_splittable(STEPS, dialect, Partitions(column="nope", count=2))
    star = [Step("SELECT * FROM t")]
    for _ in range(2):
        known.require_splittable(star, dialect, Partitions(column="nope", count=2))  # the database is asked


@pytest.mark.parametrize("content", ["", '["i', "5", "\udcff"])
def test_a_damaged_file_costs_one_parse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    known, dialect = KnownStatements(tmp_path), find_dialect("postgresql")
    known.require_wrappable(STEPS, dialect)
    (file,) = tmp_path.iterdir()
    file.write_text(content, encoding="utf-8", errors="surrogateescape")
    parsed = parses(monkeypatch)
    for _ in range(2):
        known.require_splittable(STEPS, dialect, Partitions(column="id", count=2))
    assert len(parsed) == 1


def test_a_workspace_that_is_only_checked_gets_no_state_of_ours(tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "q.sql").write_text("SELECT id FROM t", encoding="utf-8")
    (tmp_path / "connections.json").write_text(
        '{"connections": [{"name": "a", "environment": "e", "db_type": "sqlite", "database": "a.db"}]}',
        encoding="utf-8",
    )
    job = {"name": "q", "query": "q.sql", "connection": "a", "scheduling_mode": "manual", "export_format": "kafka",
           "kafka_config": {"enabled": True, "topic": "t", "message_key_field": "other"}, "partitions": {"column": "other", "count": 2}}  # fmt: skip
    (tmp_path / "queries" / "q.job.json").write_text(json.dumps(job), encoding="utf-8")
    found = [finding.text for finding in check(Workspace(tmp_path), {})]
    assert any("names column other" in text for text in found), found
    assert not (tmp_path / ".pstt").exists()
