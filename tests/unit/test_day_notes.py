"""Notes on the days of jobs are written, replaced, removed, listed and audited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.admin.day_notes import MOST_CHARACTERS, write_note
from core.app import App
from core.cli.main import app as command_line
from core.errors import AccessRefused, ConfigError
from core.workspace.jobs import NoSuchJob
from tests.rigs.callers import caller

NOW = datetime(2026, 1, 17, 7, 30, tzinfo=UTC)
DAY = date(2026, 1, 16)
ANNA, VERA = caller("anna", "operator"), caller("vera", "viewer")
TEXT = "La base dati era ferma fino a mezzogiorno: «manutenzione» <b>"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[App]:
    (tmp_path / "queries").mkdir()
    job = {"name": "A", "query": "a.sql", "connection": "db", "export_format": "csv"}
    (tmp_path / "queries" / "a.job.json").write_text(json.dumps(job), encoding="utf-8")
    with App.open(tmp_path, {}, log=False) as app:
        yield app


def test_a_note_is_written_replaced_and_removed_and_each_change_audited(opened: App) -> None:
    notes = opened.ledger.day_notes
    write_note(opened, "a", DAY, f"  {TEXT}\n", caller=ANNA, now=NOW)
    (note,) = notes.between(DAY, DAY)
    assert (note.job, note.day, note.text, note.written_by, note.written_at) == ("a", DAY, TEXT, "anna", NOW)
    write_note(opened, "a", DAY, TEXT, caller=ANNA, now=NOW)  # nothing new
    write_note(opened, "a", DAY, "sent by hand", caller=ANNA, now=NOW)
    assert notes.on("a", DAY).text == "sent by hand"
    assert notes.between(date(2026, 1, 17), date.max) == notes.between(DAY, DAY, "b") == []
    assert write_note(opened, "a", DAY, " ", caller=ANNA, now=NOW) is None
    assert notes.between(date.min, date.max) == []
    lines = [(one.action, one.object, one.before, one.after) for one in reversed(opened.ledger.audit.entries())]
    about = ("note", "day 2026-01-16 of job a")
    assert lines == [(*about, None, TEXT), (*about, TEXT, "sent by hand"), (*about, "sent by hand", None)]


def test_who_may_not_what_is_too_long_and_no_job_are_refused(opened: App) -> None:
    given = {"caller": ANNA, "now": NOW}
    with pytest.raises(AccessRefused):
        write_note(opened, "a", DAY, TEXT, caller=VERA, now=NOW)
    with pytest.raises(ConfigError, match="at most 1,000 characters"):
        write_note(opened, "a", DAY, "x" * (MOST_CHARACTERS + 1), **given)
    with pytest.raises(NoSuchJob):
        write_note(opened, "nothing", DAY, TEXT, **given)
    assert opened.ledger.audit.entries() == []


def test_the_note_of_a_deleted_job_stays_and_can_be_changed(opened: App) -> None:
    opened.ledger.job_versions.add("gone", "ab", "{}", NOW)
    opened.ledger.job_versions.end_job("gone", NOW)
    write_note(opened, "gone", DAY, TEXT, caller=ANNA, now=NOW)
    assert opened.ledger.day_notes.on("gone", DAY).text == TEXT


def test_the_command_writes_lists_and_removes(opened: App) -> None:
    def run(*words: str) -> str:
        given = ["note", *words, "--workspace", str(opened.workspace.root)]
        done = CliRunner().invoke(command_line, given, catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    assert run() == "There is no note.\n"
    assert f"2026-01-16  a: {TEXT}" in run("a", "2026-01-16", "--text", TEXT)
    (one,) = json.loads(run("a", "2026-01-16", "--json"))["notes"]
    assert (one["job"], one["day"], one["text"]) == ("a", "2026-01-16", TEXT)
    assert run("a", "2026-01-15") == "There is no note.\n"
    assert run("a", "2026-01-16", "--remove") == "There is no note.\n"
    for words, error in (
        (("a", "--text", "x"), "a note is on a day of a job"),
        (("a", "2026-01-16", "--text", "x", "--remove"), "do not go together"),
        (("a", "16/01/2026"), "is not a day"),
        (("b",), 'there is no job "b"'),
    ):
        with pytest.raises(ConfigError, match=error):
            run(*words)
