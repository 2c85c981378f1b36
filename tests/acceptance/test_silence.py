"""A database that falls silent in the middle of a run: packets are dropped without an error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from oracle_double import OracleDouble

from core.model.run import Run
from core.records.ledger import Ledger
from core.workspace.paths import Workspace
from tests.rigs.proxy import Proxy
from tests.rigs.sqlserver import number_table
from tests.rigs.workspace import command, environment, make_workspace, run_command

STOP_TIMEOUT_S = 9
"""PSTT_STOP_TIMEOUT_S of these runs."""
START_S = 30
"""How long a process may take to start and to end on a busy machine."""
AFTER_BYTES = 8_000_000
PASSWORD = "geheim-4711"
ROWS = {
    "postgresql": "SELECT lpad(g::text, 12, '0') AS barcode, repeat('x', 500) AS text FROM generate_series(1, 100000) g",
    "sqlserver": f"SELECT n AS barcode, REPLICATE('x', 500) AS text FROM {number_table(100_000)}",
    "oracle": "SELECT barcode, text FROM parcels",
}


@contextmanager
def postgresql(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    rig = request.getfixturevalue("postgres")
    yield {"db_type": "postgresql", "host": rig.host, "port": rig.port, "secret": rig.password}


@contextmanager
def sqlserver(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    given = request.getfixturevalue("sqlserver").connection()
    yield {
        **{
            key: getattr(given, key) for key in ("db_type", "host", "port", "database", "username", "driver", "sslmode")
        },
        "secret": given.password.reveal(),
    }


@contextmanager
def oracle(_request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    with OracleDouble(users={"pstt": PASSWORD}) as double:
        columns = [("BARCODE", "NUMBER(10)"), ("TEXT", "VARCHAR2(500)")]
        double.on(r"FROM parcels$", columns, lambda sql, binds: ((n, "x" * 500) for n in range(1, 100_001)))
        service = {"service_name": double.service, "username": "pstt", "database": ""}
        yield {"db_type": "oracle", "host": double.host, "port": double.port, "secret": PASSWORD, **service}


class Place:
    """A workspace whose database stops responding after some thousand rows."""

    def __init__(self, folder: Path, env: dict[str, str], way: Proxy) -> None:
        self.folder = folder
        self.way = way
        self._env = env
        self.process: subprocess.Popen[str] | None = None

    def start(self, *words: str, **env: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
        self.process = subprocess.Popen(command(*words), cwd=self.folder, env=self._env | env, **pipes)  # type: ignore[call-overload]
        return self.process

    def ended(self, process: subprocess.Popen[str]) -> dict[str, Any]:
        """Returns the verdict of a manual run; its process has to end in time."""
        out, err = process.communicate(timeout=STOP_TIMEOUT_S + START_S)
        assert "Traceback" not in err
        found: dict[str, Any] = json.loads(out)
        return found

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run_command(*words, env=self._env, cwd=self.folder)

    def runs(self) -> list[Run]:
        with closing(Ledger(Workspace(self.folder).ledger_file)) as ledger:
            return ledger.history.newest()


@pytest.fixture(params=[postgresql, sqlserver, oracle], ids=lambda made: made.__name__)
def place(request: pytest.FixtureRequest, tmp_path: Path, kafka: Any) -> Iterator[Callable[..., Place]]:
    with request.param(request) as given:
        secret = given.pop("secret")
        with Proxy(given["host"], given["port"], silent_after=AFTER_BYTES) as way:
            made: list[Place] = []

            def make(*, job: dict[str, Any] | None = None, **connection: Any) -> Place:
                rig = request.getfixturevalue("postgres") if given["db_type"] == "postgresql" else _NoServer
                topic = kafka.create_topic(partitions=2)
                folder = make_workspace(
                    tmp_path / "ws",
                    postgres=rig,
                    bootstrap_servers=kafka.plaintext,
                    topic=topic,
                    sql=ROWS[given["db_type"]],
                    job=job,
                    connection={**given, "host": way.host, "port": way.port, **connection},
                )
                env = environment(PSTT_STOP_TIMEOUT_S=str(STOP_TIMEOUT_S), RIG_DB_PASSWORD=secret)
                made.append(Place(folder, env, way))
                return made[0]

            yield make
            for one in made:
                if one.process is not None and one.process.poll() is None:
                    one.process.kill()
                    one.process.communicate()


class _NoServer:
    host = port = database = user = ""


def arrived(verdict: dict[str, Any]) -> bool:
    """Whether the rows read before the silence are on the topic and accounted for."""
    return 0 < verdict["acknowledged"] <= verdict["rows_read"] < 100_000


@pytest.mark.always("postgresql")
def test_silence_ends_the_run_after_the_read_timeout(place: Callable[..., Place]) -> None:
    silent = place(read_timeout_s=3)
    verdict = silent.ended(silent.start("run", "export", "--json"))
    assert verdict["state"] == "partial"
    assert verdict["error"]["class"] == "QueryFailed"
    assert "fell silent in the middle of the rows: no answer for read_timeout_s = 3 s" in verdict["error"]["text"]
    assert arrived(verdict)


@pytest.mark.always("postgresql")
def test_read_timeout_of_the_settings_holds_for_every_connection(place: Callable[..., Place]) -> None:
    silent = place()
    verdict = silent.ended(silent.start("run", "export", "--json", PSTT_READ_TIMEOUT_S="3"))
    assert "no answer for read_timeout_s = 3 s" in verdict["error"]["text"]


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM")
@pytest.mark.always("postgresql")
def test_sigterm_ends_a_run_whose_database_is_silent(place: Callable[..., Place]) -> None:
    silent = place()
    process = silent.start("run", "export", "--json")
    assert silent.way.is_silent.wait(START_S)
    process.send_signal(signal.SIGTERM)
    verdict = silent.ended(process)
    assert (process.returncode, verdict["state"], verdict["error"]["class"]) == (1, "cancelled", "RunCancelled")
    assert arrived(verdict)
    assert [run.state for run in silent.runs()] == ["cancelled"]


@pytest.mark.always("oracle")
def test_cancel_ends_a_run_whose_database_is_silent(place: Callable[..., Place]) -> None:
    silent = place()
    process = silent.start("run", "export", "--json")
    assert silent.way.is_silent.wait(START_S)
    assert silent.command("cancel", "export").returncode == 0
    verdict = silent.ended(process)
    assert verdict["state"] == "cancelled"
    assert "asked by" in verdict["error"]["text"]


@pytest.mark.always("sqlserver")
def test_timeout_of_the_job_ends_a_run_whose_database_is_silent(place: Callable[..., Place]) -> None:
    silent = place(job={"timeout_s": 4})
    verdict = silent.ended(silent.start("run", "export", "--json"))
    assert verdict["error"]["class"] == "RunTimedOut"
    assert arrived(verdict)


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM")
@pytest.mark.always("postgresql")
def test_runner_that_is_stopped_ends_a_run_whose_database_is_silent(place: Callable[..., Place]) -> None:
    silent = place()
    runner = silent.start("runner")
    silent.command("run", "export", "--by-runner")
    assert silent.way.is_silent.wait(START_S)
    runner.send_signal(signal.SIGTERM)
    _, err = runner.communicate(timeout=STOP_TIMEOUT_S + START_S)
    assert "Traceback" not in err
    assert "is killed" not in err
    (run,) = silent.runs()
    assert (run.state, run.error_text) == ("interrupted", "the run was broken off: the runner was stopped")
    assert run.acknowledged > 0
