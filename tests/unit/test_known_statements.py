"""A statement is parsed once, and what is refused is refused each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import SqlError
from core.model.query import Step
from core.sources import find_dialect
from core.sql import known_statements
from core.sql.known_statements import KnownStatements
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
