"""What importing costs and touches: no page, no data frames, no file of the user, no connection."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.test_exported_members import MODULES

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("streamlit", "plotly", "pandas", "fastapi")
SLOW = (
    "confluent_kafka",
    "kafka",
    "duckdb",
    "pyarrow",
    "oracledb",
    "psycopg",
    "pyodbc",
    "sqlalchemy",
    "sqlglot",
    "keyring",
    "apprise",
)
"""Each takes 50 ms or more, and nobody who asks for --help has to wait for it."""

WATCHED = """
import importlib, json, sys, threading

importing = [True]
seen = []

def watch(event, args):
    if not importing[0]:
        return
    if event in ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "sqlite3.connect"):
        seen.append([event, str(args[-1])])
    if event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+"):
        seen.append([event, str(args[0])])
    if event in ("os.mkdir", "os.remove", "os.rename"):
        seen.append([event, str(args[0])])

sys.dont_write_bytecode = True
sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
importing[0] = False
print(json.dumps({"modules": sorted(sys.modules), "seen": seen, "threads": threading.active_count()}))
"""


def imported(folder: Path, *names: str) -> dict[str, object]:
    """What a fresh Python knows and did after importing these, in an empty folder."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith(("COVERAGE", "COV_"))}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *names],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env={**environment, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("empty")
    found = imported(folder, *MODULES, "core.__main__")
    found["left"] = [path.name for path in folder.iterdir()]
    return found


@pytest.mark.parametrize("library", FORBIDDEN)
def test_no_module_of_core_imports(library: str, everything: dict[str, object]):
    assert library not in everything["modules"]  # type: ignore[operator]


def test_importing_touches_no_connection_and_writes_no_file(everything: dict[str, object]):
    assert everything["seen"] == []
    assert everything["left"] == []
    assert everything["threads"] == 1


def test_help_waits_for_no_slow_library(tmp_path: Path):
    modules = imported(tmp_path, "core.__main__")["modules"]
    assert [name for name in SLOW if name in modules] == []  # type: ignore[operator]


@pytest.mark.parametrize("name", ["core", "core.model.run", "core.errors", "core.kafka", "core.kafka.sender"])
def test_what_everybody_imports_brings_no_client(name: str, tmp_path: Path):
    modules = imported(tmp_path, name)["modules"]
    assert [slow for slow in SLOW if slow in modules] == []  # type: ignore[operator]


def test_one_client_is_not_paid_for_by_those_who_use_the_other(tmp_path: Path):
    assert "kafka" not in imported(tmp_path, "core.kafka.confluent")["modules"]  # type: ignore[operator]
    assert "kafka" not in imported(tmp_path, "core.kafka.service")["modules"]  # type: ignore[operator]
