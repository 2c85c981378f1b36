"""The files of a Dask cluster: the compose file is valid and uses options that Dask has; addresses are checked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from core.errors import ConfigError
from core.run.dask_cluster import connect, examine_workers
from core.version import __version__
from core.workspace.paths import Workspace
from core.workspace.settings import load_settings
from tests.rigs.server import free_ports
from tests.rigs.waiting import until

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy" / "compose-dask.yaml"


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]
    return found


def test_compose_file_has_a_scheduler_and_four_workers_that_find_the_product():
    assert set(services()) == {"scheduler", "worker"}
    worker = services()["worker"]
    assert worker["deploy"]["replicas"] == 4
    assert worker["environment"]["PYTHONPATH"] == worker["working_dir"]
    assert worker["volumes"] == [f"..:{worker['working_dir']}:ro"]
    for files in (part for service in services().values() for part in re.findall(r"-r (\S+)", service["command"][2])):
        assert (ROOT / files).is_file()
    assert all(port.startswith("127.0.0.1:") for port in services()["scheduler"]["ports"])


@pytest.mark.parametrize("kind", ["scheduler", "worker"])
def test_options_of_documents_exist(kind: str):
    shown = subprocess.run([sys.executable, "-m", "dask", kind, "--help"], capture_output=True, text=True, check=True)
    texts = [services()[kind]["command"][2], (ROOT / "docs" / "SCALE.md").read_text(encoding="utf-8")]
    lines = [line for text in texts for line in re.findall(rf"\bdask {kind}\b([^\n`#]*)", text)]
    options = {option for line in lines for option in re.findall(r"--[a-z-]+", line)}
    assert options
    assert [option for option in sorted(options) if option not in shown.stdout] == []


def program(kind: str, **replaced: str) -> list[str]:
    """Returns what the shell of a service starts at last, with other words in place of some."""
    command = services()[kind]["command"]
    assert command[:2] == ["sh", "-c"]
    install, _, start = " ".join(command[2].split()).partition(" && exec ")
    assert install.startswith("python -m pip install -q -r ")
    words = shlex.split(start)
    assert words[:2] == ["dask", kind]
    return [sys.executable, "-m", *(replaced.get(word.replace("-", "_").replace("/", "_"), word) for word in words)]


@pytest.mark.slow
def test_commands_of_the_compose_file_start_a_cluster_that_runs_the_product(tmp_path: Path):
    """As processes in place of containers: the same commands, on a free port and with a folder of the test."""
    (port,) = free_ports(1)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    address = f"tcp://127.0.0.1:{port}"
    scheduler = program("scheduler", **{"8786": str(port)})
    worker = program("worker", **{"tcp:__scheduler:8786": address, "_tmp_pstt": str(tmp_path / "local")})
    assert str(port) in scheduler
    assert {address, str(tmp_path / "local")} <= set(worker)
    health = services()["scheduler"]["healthcheck"]["test"]
    assert health[:2] == ["CMD", "python"]
    checked = [sys.executable, *(part.replace("8786", str(port)) for part in health[2:])]
    with ExitStack() as stack:
        log = stack.enter_context((tmp_path / "log").open("wb"))

        def begin(words: list[str]) -> None:
            process = subprocess.Popen(words, env=environ, cwd=tmp_path, stdout=log, stderr=log)
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)

        begin(scheduler)
        until(lambda: subprocess.run(checked, capture_output=True, check=False).returncode == 0, "it is not healthy")
        begin(worker)
        client = stack.enter_context(connect(address, {}))
        until(lambda: len(client.scheduler_info()["workers"]) == 1, lambda: (tmp_path / "log").read_text())
        (found,) = examine_workers(client, b"")
        assert (found.version, found.problem) == (__version__, None)


def test_installed_dask_is_one_that_the_file_allows():
    import dask
    import distributed

    installed = {"dask": dask.__version__, "distributed": distributed.__version__}
    lines = (ROOT / "requirements-dask.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert {one.name: installed[one.name] in one.specifier for one in wanted} == {"dask": True, "distributed": True}


@pytest.mark.parametrize("address", ["tcp://host:8786", "tls://10.0.0.1:8786", "tcp://[::1]:8786", "tcp://host:8786/"])
def test_address_of_a_scheduler(tmp_path: Path, address: str):
    assert load_settings(Workspace(tmp_path), {"DASK_SCHEDULER_ADDRESS": address}).DASK_SCHEDULER_ADDRESS == address


@pytest.mark.parametrize(
    "address", ["host:8786", "http://host:8786", "tcp://host", "tcp://ho st:1", "tcp://host:8786/x"]
)
def test_what_is_no_address_of_a_scheduler(tmp_path: Path, address: str):
    with pytest.raises(ConfigError, match="DASK_SCHEDULER_ADDRESS is not valid"):
        load_settings(Workspace(tmp_path), {"DASK_SCHEDULER_ADDRESS": address})
