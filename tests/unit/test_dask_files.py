"""The files of a Dask cluster: the compose file is valid and uses options that Dask has; addresses are checked."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from core.errors import ConfigError
from core.workspace.paths import Workspace
from core.workspace.settings import load_settings

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
