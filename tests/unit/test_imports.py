"""Imports: they touch no file and no connection, they are fast, and they are at the top of a file.

The figures are in docs/decisions/015-imports.md.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.unit.test_exported_members import MODULES

ROOT = Path(__file__).parents[2]
FORBIDDEN = ("streamlit", "plotly", "pandas", "fastapi")
LAZY = {
    "aiokafka",
    "apprise",
    "argon2",
    "confluent_kafka",
    "cryptography",
    "dask",
    "distributed",
    "duckdb",
    "fastapi",
    "fastavro",
    "gssapi",
    "hvac",
    "jsonschema_rs",
    "kafka",
    "keyring",
    "numpy",
    "openpyxl",
    "oracledb",
    "pandas",
    "plotly",
    "psycopg",
    "pyarrow",
    "pyodbc",
    "python_calamine",
    "requests",
    "rich",
    "sqlglot",
    "streamlit",
    "urllib3",
    "uvicorn",
    "xlsxwriter",
}
"""Libraries that a function may import: each takes 25 to 370 ms, or is optional (gssapi, hvac, pyodbc, python_calamine)."""
WITH_HTTP = ("core.run.lineage", "core.run.tracing", "core.kafka.schema_registry", "core.run.registered_schemas")
"""Imported only if the settings or the job ask for it: urllib3 binds a socket when it is imported."""

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
    """Imports modules in a new process and an empty folder; returns `modules`, `seen` (files, sockets) and `threads`."""
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
    found = imported(folder, *(name for name in MODULES if name not in WITH_HTTP), "core.__main__")
    found["left"] = [path.name for path in folder.iterdir()]
    return found


@pytest.mark.parametrize("library", FORBIDDEN)
def test_no_module_of_core_imports(library: str, everything: dict[str, object]):
    assert library not in everything["modules"]  # type: ignore[operator]


def test_importing_touches_no_connection_and_writes_no_file(everything: dict[str, object]):
    # prometheus_client asks for the name of the system, and on Windows Python starts `ver` for that.
    assert everything["seen"] == ([["subprocess.Popen", "None"]] if sys.platform == "win32" else [])
    assert everything["left"] == []
    assert everything["threads"] == 1


def test_help_imports_no_slow_library(tmp_path: Path):
    modules = imported(tmp_path, "core.__main__")["modules"]
    assert [name for name in LAZY if name in modules] == []  # type: ignore[operator]


def test_numpy_starts_no_threads_in_a_command(tmp_path: Path):
    program = (
        "import sys, psutil, core.cli.main as program\n"
        "def leave(code):\n import numpy; print(psutil.Process().num_threads())\n"
        "program.leave = leave\n"
        "sys.argv = ['core', '--version']\n"
        "program.main()\n"
    )
    environment = {name: text for name, text in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    words = [sys.executable, "-c", program]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=tmp_path, env={**environment, "PYTHONPATH": str(ROOT)}, check=True
    )
    assert done.stdout.splitlines()[-1] == "1"


@pytest.mark.parametrize("name", ["core", "core.model.run", "core.errors", "core.kafka", "core.kafka.sender"])
def test_a_module_that_most_others_import_loads_no_client(name: str, tmp_path: Path):
    modules = imported(tmp_path, name)["modules"]
    assert [slow for slow in LAZY if slow in modules] == []  # type: ignore[operator]


def test_one_kafka_client_does_not_load_the_other(tmp_path: Path):
    for name, others in {
        "aiokafka": {"kafka"},
        "confluent": {"aiokafka", "kafka"},
        "kafka_python": {"aiokafka", "confluent_kafka"},
    }.items():
        assert others.isdisjoint(imported(tmp_path, f"core.kafka.{name}")["modules"]), name  # type: ignore[arg-type]
    assert "kafka" not in imported(tmp_path, "core.kafka.service")["modules"]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("connections", "client"),
    [
        ({}, "aiokafka"),
        ({"kafka_connections": {"a": {}}}, "aiokafka"),
        ({"kafka_connections": {"a": {"client": "confluent"}}}, "confluent_kafka"),
        ({"kafka_connections": {"a": {"client": "kafka-python-ng"}, "b": {"client": "confluent"}}}, "kafka"),
    ],
)
def test_an_idle_worker_imports_the_clients_of_its_workspace(
    connections: dict[str, object], client: str, tmp_path: Path
) -> None:
    document = {"connections": [{"name": "db", "db_type": "sqlite", "database": "db.sqlite"}], **connections}
    tmp_path.joinpath("connections.json").write_text(json.dumps(document), encoding="utf-8")
    code = (
        "import json, sys; from pathlib import Path; from core.app import App; from core.cli.worker import warm_up\n"
        "with App.open(Path(sys.argv[1]), {}, log=False) as app:\n    warm_up(app)\nprint(json.dumps([*sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, cwd=ROOT, check=True)
    modules = set(json.loads(done.stdout))
    assert {client, "pyarrow", "core.sources.sqlite"} <= modules
    assert ("aiokafka" in modules) is (client == "aiokafka")
    assert "duckdb" not in modules


Import = ast.Import | ast.ImportFrom


@cache
def modules_of_the_project() -> dict[str, Path]:
    """Dotted name → file, of core and ui."""
    found = {}
    for file in [*ROOT.joinpath("core").rglob("*.py"), *ROOT.joinpath("ui").rglob("*.py")]:
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


@cache
def imports_of(module: str) -> tuple[list[Import], list[Import]]:
    """The imports that run when a module is imported, and those in its functions; type-only ones in neither."""
    at_import: list[Import] = []
    in_functions: list[Import] = []

    def walk(node: ast.AST, found: list[Import]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, Import):
                found.append(child)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for other in child.orelse:
                    walk(other, found)
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                walk(child, in_functions)
            else:
                walk(child, found)

    walk(ast.parse(modules_of_the_project()[module].read_text(encoding="utf-8")), at_import)
    return at_import, in_functions


def names_of(one: Import) -> Iterator[str]:
    """The modules that an import loads."""
    if isinstance(one, ast.Import):
        yield from (alias.name for alias in one.names)
        return
    for alias in one.names:
        submodule = f"{one.module}.{alias.name}"
        yield submodule if submodule in modules_of_the_project() else str(one.module)


def reaches_lazy(name: str, seen: set[str] | None = None) -> bool:
    """Whether importing a module loads one of the slow libraries."""
    seen = set() if seen is None else seen
    if name.split(".")[0] in LAZY:
        return True
    parents = {".".join(name.split(".")[:n]) for n in range(1, name.count(".") + 2)} & set(modules_of_the_project())
    for module in parents - seen:
        seen.add(module)
        if any(reaches_lazy(other, seen) for one in imports_of(module)[0] for other in names_of(one)):
            return True
    return False


def test_an_import_inside_a_function_has_its_reason():
    """An import is at the top of its file, unless it loads a slow library."""
    wrong = []
    for module, file in modules_of_the_project().items():
        for one in imports_of(module)[1]:
            if not any(map(reaches_lazy, names_of(one))):
                wrong.append(f"{file.relative_to(ROOT).as_posix()}:{one.lineno}: {ast.unparse(one)}")
    assert wrong == []
