"""A command in a fork does what it does in a process that a shell starts."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.rigs.fork_server import fork_server
from tests.rigs.sweeps import sweep
from tests.rigs.workspace import environment, run_command

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forked")
    done = run_command("demo", "--rows", "50", "--days", "0", env=environment(), cwd=folder)
    assert done.returncode in (0, 4), done.stderr
    return folder / "demo"


@pytest.mark.parametrize(
    "line",
    sweep(
        [
            "--help",
            "runs --help",
            "runs --json",
            "check",
            "config --json",
            "no-such-command",
            "show no-such-run",
            "run no-such-job --json",
        ],
        always=["runs --json", "no-such-command"],
    ),
)
def test_output_and_exit_code_are_the_same(demo: Path, line: str) -> None:
    forked, started = (run_command(*line.split(), env=environment(), cwd=demo, anew=anew) for anew in (False, True))
    assert (forked.returncode, forked.stdout, forked.stderr) == (started.returncode, started.stdout, started.stderr)
    assert forked.stdout or forked.stderr


def test_each_has_an_environment_and_a_folder_of_its_own(demo: Path, tmp_path: Path) -> None:
    set_to = {}
    for days in (7, 8):
        done = run_command("config", "--json", env=environment(PSTT_KEEP_SENDS_DAYS=str(days)), cwd=demo)
        set_to[days] = next(
            s["value"] for s in json.loads(done.stdout)["settings"] if s["name"] == "PSTT_KEEP_SENDS_DAYS"
        )
    assert set_to == {7: "7", 8: "8"}
    (known,) = json.loads(run_command("runs", "--json", env=environment(), cwd=demo).stdout)["runs"]
    assert known["state"] == "succeeded"
    assert json.loads(run_command("runs", "--json", env=environment(), cwd=tmp_path).stdout) == {"runs": []}


def test_a_command_that_takes_too_long_is_killed(demo: Path) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run_command("runner", env=environment(), cwd=demo, timeout_s=1)
    assert run_command("runs", "--json", env=environment(), cwd=demo).returncode == 0


def test_what_is_read_at_the_start_of_python_takes_a_process_of_its_own() -> None:
    server = fork_server()
    assert server is not None
    assert server.takes(environment(PSTT_KEEP_SENDS_DAYS="7", ANY_SECRET="x"))
    assert not server.takes(environment(PYTHONHASHSEED="1"))
    assert not server.takes(environment(TZ="Asia/Tokyo"))
    assert not server.takes(environment(COVERAGE_PROCESS_START="x"))
