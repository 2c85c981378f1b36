"""`new job` asks for what a job needs, writes its file, disabled, and shows its first message."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from core.admin.demo import make_demo
from core.cli.main import app
from core.errors import ConfigError
from tests.rigs.workspace import command, environment

QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"
GIVEN = ("--name", "My export", "--query", QUERY, "--connection", "A00-CDG-Collaudo", "--topic", "mine")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    make_demo(tmp_path, 3, now=datetime.now(UTC))
    return tmp_path


def written(place: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((place / "queries" / "my-export.job.json").read_text(encoding="utf-8"))
    return document


@pytest.mark.skipif(os.name == "nt", reason="Windows has no pseudo terminals in Python")
def test_it_asks_in_a_terminal_and_asks_again_after_a_wrong_answer(place: Path) -> None:
    import pty

    person, terminal = pty.openpty()
    asked = subprocess.Popen(
        command("new", "job", "--workspace", place),
        env=environment(),
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    os.close(terminal)
    answers = ["My export", "7", "1", "1", "{date-1}", "mine", "BARCODE", "0 99 * * *", "15 3 * * *"]
    os.write(person, "".join(f"{answer}\n" for answer in answers).encode())
    output = asked.communicate(timeout=60)[0].decode()
    os.close(person)
    assert asked.returncode == 0, output
    assert '"7" is none of them' in output
    assert '"0 99 * * *" is no calendar' in output
    assert "key    5726800" in output
    document = written(place)
    assert (document["cron"], document["enabled"]) == ("15 3 * * *", False)
    assert document["kafka_config"] == {"topic": "mine", "message_key_field": "BARCODE"}


def test_options_answer_for_a_program(place: Path) -> None:
    done = CliRunner().invoke(app, ["new", "job", *GIVEN, "--workspace", str(place), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["file"] == "queries/my-export.job.json"
    document = written(place)
    assert document["parameters"] == {"DATA": "{date-1}"}
    assert "cron" not in document  # manual


@pytest.mark.parametrize(
    ("words", "what", "remedy"),
    [
        ((), "--name is missing", "in a terminal"),
        (("--name", "x", "--query", "CDG.sql"), '"CDG.sql" is none of them', "valid: CDG"),
        ((*GIVEN, "--param", "DATE=1"), "has no parameter DATE", 'did you mean "DATA"?'),
        ((*GIVEN, "--cron", "0 99 * * *"), '"0 99 * * *" is no calendar', "0 2 * * *"),
        (
            (*GIVEN[2:], "--name", "Export CDG Tracce to Kafka"),
            'is called "Export CDG Tracce to Kafka" too',
            "another name",
        ),
    ],
)
def test_a_wrong_answer_is_one_error_and_writes_nothing(
    words: tuple[str, ...], what: str, remedy: str, place: Path
) -> None:
    before = sorted((place / "queries").iterdir())
    done = CliRunner().invoke(app, ["new", "job", *words, "--workspace", str(place)])
    assert isinstance(done.exception, ConfigError)
    assert what in done.exception.text
    assert remedy in done.exception.remedy
    assert sorted((place / "queries").iterdir()) == before


def test_a_database_that_does_not_answer_leaves_the_job_and_says_so(place: Path) -> None:
    (place / "demo.sqlite").unlink()
    done = CliRunner().invoke(app, ["new", "job", *GIVEN, "--workspace", str(place)])
    assert done.exit_code != 0
    assert "the job is there; try again: python -m core preview my-export" in done.stdout
    assert written(place)["query"] == QUERY
