"""Adding a command takes one file (`tests/rigs/topics_command.py`) and one entry in `core/cli/main.py`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.admin.demo import SLUG, make_demo
from core.cli.main import COMMANDS, Command, app, main

NAME = "topics-of-jobs"
SUMMARY = "Lists the topic of each job."


@pytest.fixture(autouse=True)
def entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COMMANDS, NAME, Command(NAME, "tests.rigs.topics_command", SUMMARY))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    make_demo(tmp_path, 1, now=datetime.now(UTC))
    return tmp_path


def test_a_command_that_is_one_file_and_one_entry_can_be_called(workspace: Path) -> None:
    done = CliRunner().invoke(app, [NAME, "--workspace", str(workspace)])
    assert (done.exit_code, done.stdout) == (0, f"{SLUG}: pstt-traces\n")
    as_json = CliRunner().invoke(app, [NAME, "--workspace", str(workspace), "--json"])
    assert json.loads(as_json.stdout) == {"topics": {SLUG: "pstt-traces"}}


def test_help_lists_it_with_the_sentence_of_its_entry() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert [line.split() for line in done.stdout.splitlines() if NAME in line] == [[NAME, *SUMMARY.split()]]


def test_its_errors_end_in_the_exit_code_and_the_document_of_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["core", NAME, "--workspace", str(tmp_path / "gone"), "--json"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "gone" in json.loads(capsys.readouterr().out)["error"]["text"]
