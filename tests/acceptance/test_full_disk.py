"""A full disk: everything that was recorded can be read, and every write fails with the reason."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from core.records.ledger import Ledger
from core.records.metrics import Metrics
from core.records.named_sql import load_named_sql
from core.records.store import SCHEMAS
from core.workspace.paths import Workspace
from tests.rigs.small_disk import fill, small_disk
from tests.rigs.sweeps import sweep
from tests.rigs.workspace import environment, run_command

READING = (
    ("runs",),
    ("check",),
    ("metrics", "summary"),
    ("alerts",),
    ("scheduled", "--days", "3660"),
    ("next",),
    ("config",),
)


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run; its sends are in the spool and in metrics.duckdb."""
    folder = tmp_path_factory.mktemp("worked") / "ws"
    done = run_command(
        "demo", "--rows", "200", "--days", "0", "--workspace", folder, env=environment(), cwd=folder.parent
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 16) as mounted:
        yield mounted


class Full:
    """The worked workspace on a disk that is filled to its last byte."""

    def __init__(self, disk: Path, worked: Path, prepare: Callable[[Path], object]) -> None:
        self.folder = disk / "ws"
        shutil.copytree(worked, self.folder)
        prepare(self.folder)
        self.filling = fill(disk)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        fill(self.folder.parent)  # space that the last command freed
        return run_command(*words, env=environment(), cwd=self.folder)

    def json(self, *words: str) -> Any:
        done = self.run(*words, "--json")
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return json.loads(done.stdout)


def a_key_of(folder: Path) -> str:
    """Returns the key of a message that was sent."""
    question = "SELECT min(key) FROM sends WHERE status = 'acknowledged'"
    (key,) = Metrics(Workspace(folder)).answer(lambda db: db.execute(question).fetchall())[0]
    return str(key)


def nothing(_folder: Path) -> None:
    pass


def left_by_a_killed_process(folder: Path) -> None:
    """Leaves the newest run in the WAL only, with no process that has the ledger open."""
    ledger = folder / ".pstt" / "ledger.sqlite"
    write = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA journal_mode=WAL');"
        "db.execute(\"UPDATE run SET job_name = 'only in the WAL'\"); db.commit(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", write, str(ledger)], check=True)
    assert ledger.with_name("ledger.sqlite-wal").stat().st_size > 0


def without_its_index(folder: Path) -> None:
    left_by_a_killed_process(folder)
    (folder / ".pstt" / "ledger.sqlite-shm").unlink()


def without_a_log_folder(folder: Path) -> None:
    shutil.rmtree(folder / "logs")


def without_metrics(folder: Path) -> None:
    (folder / "metrics.duckdb").unlink()


PREPARED = [nothing, left_by_a_killed_process, without_its_index, without_a_log_folder, without_metrics]


@pytest.mark.parametrize("prepare", sweep(PREPARED, always=PREPARED[1:3]), ids=lambda prepare: prepare.__name__)
def test_everything_recorded_can_be_read(disk: Path, worked: Path, prepare: Callable[[Path], object]) -> None:
    full = Full(disk, worked, prepare)
    for words in READING:
        done = full.run(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
    (run,) = full.json("runs")["runs"]
    assert run["state"] == "succeeded"
    assert len(full.json("find", a_key_of(worked))["sends"]) == 1
    assert full.json("metrics", "summary")["total_sent"] == run["acknowledged"]
    shown = full.json("show", run["run_id"])
    assert shown["acknowledged"] == run["acknowledged"]
    if prepare in (left_by_a_killed_process, without_its_index):
        assert run["job_name"] == "only in the WAL"
    full.json("rejects", run["run_id"])


def test_reading_goes_on_beside_a_process_that_has_the_ledger_open(disk: Path, worked: Path) -> None:
    opened: list[Ledger] = []
    full = Full(disk, worked, lambda folder: opened.append(Ledger(folder / ".pstt" / "ledger.sqlite")))
    with opened[0]:
        assert len(full.json("runs")["runs"]) == 1
        assert full.json("metrics", "summary")["total_sent"] > 0


def test_whoever_writes_is_told_why_not_and_what_to_do(disk: Path, worked: Path) -> None:
    full = Full(disk, worked, nothing)
    for words in (
        ("run", "export-cdg-tracce", "--again"),
        ("runner",),
        ("metrics", "rebuild"),
        ("disable", "export-cdg-tracce"),
    ):
        done = full.run(*words)
        assert done.returncode == 1, (words, done.stdout, done.stderr)
        assert "make room" in done.stderr or "No space left on device" in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr
    (result,) = [
        result for result in json.loads(full.run("doctor", "--json").stdout)["checks"] if result["subject"] == "disk"
    ]
    assert result["status"] == "fail"


def test_once_there_is_room_again_the_same_opening_writes(disk: Path, worked: Path) -> None:
    full = Full(disk, worked, nothing)
    with Ledger(full.folder / ".pstt" / "ledger.sqlite") as ledger:
        (run,) = ledger.history.newest()
        full.filling.unlink()
        assert ledger.ask_to_end(run.run_id, "anna", run.started_at) is False  # it has ended
        assert ledger.history.newest() == [run]


def test_a_ledger_of_an_earlier_version_is_read_as_well(disk: Path, worked: Path) -> None:
    def earlier(folder: Path) -> None:
        file = folder / ".pstt" / "ledger.sqlite"
        file.unlink()
        with closing(sqlite3.connect(file)) as db:
            for source, name in (step for version in (1, 2) for step in SCHEMAS[version]):
                db.executescript(load_named_sql(source)[name])
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA user_version=2")
            db.commit()

    full = Full(disk, worked, earlier)
    assert full.json("runs") == {"runs": []}
