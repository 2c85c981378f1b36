"""The layout of core: each package imports only from packages below it, and there is no import cycle.

Imports inside functions and under TYPE_CHECKING count as well: a reader has to follow them too.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from core.message.column_types import COLUMN_TYPES
from core.sources import DATABASES, find_dialect

ROOT = Path(__file__).parents[2]
CORE = ROOT / "core"
LEVELS = (
    ("version", "errors", "clock", "language"),
    ("model",),
    ("formatting", "sql", "calendar", "message", "kafka"),
    ("sources",),
    ("workspace",),
    ("files", "records"),
    ("run", "notify"),
    ("admin", "scheduler"),
    ("app",),
    ("cli",),
)
"""From the bottom to the top. Packages of one level do not import one another."""
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
ENTRANCES = {"core", "core.__main__"}
"""They are above everything: the public names, and `python -m core`."""
MOST_LINES = 600
MOST_CLASS_LINES = 350
MOST_METHODS = 25


class Import(NamedTuple):
    """One import of one module of core by another."""

    importer: str
    imported: str
    where: str


def modules(folder: Path) -> dict[str, Path]:
    """Dotted name → file, of a package."""
    found = {}
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports_of(name: str, known: Mapping[str, Path], root: Path) -> Iterator[Import]:
    """Each import in a file of a known module, lazy and type-only ones included."""
    file = known[name]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: imports are absolute"
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
            named = [one if one in known else str(node.module) for one in wanted]
        elif isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        else:
            continue
        for imported in named:
            if imported in known and imported != name:
                yield Import(name, imported, f"{file.relative_to(root).as_posix()}:{node.lineno}")


def all_imports(folder: Path) -> list[Import]:
    known = modules(folder)
    return [found for name in known if name not in ENTRANCES for found in imports_of(name, known, folder.parent)]


def package_of(module: str) -> str:
    return module.split(".")[1]


def upward(found: list[Import]) -> list[str]:
    """Returns imports within a level or from above, with file and line."""
    wrong = []
    for one in found:
        if one.imported == "core":
            wrong.append(f"{one.where}: imports core itself; name the module")
            continue
        own, other = package_of(one.importer), package_of(one.imported)
        if own != other and LEVEL[other] >= LEVEL[own]:
            wrong.append(f"{one.where}: {own} may not import {one.imported}")
    return wrong


def cycle(found: list[Import]) -> list[str]:
    """The imports of one cycle, with file and line; empty where there is none."""
    graph: dict[str, list[Import]] = {}
    for one in found:
        graph.setdefault(one.importer, []).append(one)
    done: set[str] = set()

    def walk(module: str, path: list[Import]) -> list[str]:
        for one in graph.get(module, []):
            on_path = [step.importer for step in [*path, one]]
            if one.imported in on_path:
                return [f"{step.where}: {step.importer} → {step.imported}" for step in [*path, one]]
            if one.imported not in done and (wrong := walk(one.imported, [*path, one])):
                return wrong
        done.add(module)
        return []

    for module in graph:
        if module not in done and (wrong := walk(module, [])):
            return wrong
    return []


def test_each_package_imports_only_from_packages_below_it():
    assert upward(all_imports(CORE)) == []


def test_no_module_depends_on_itself_by_a_detour():
    assert cycle(all_imports(CORE)) == []


def test_every_package_has_its_level():
    there = {package_of(name) for name in modules(CORE) if name not in ENTRANCES}
    assert there == set(LEVEL)


@pytest.mark.parametrize(
    "body",
    [
        "from core.app import App",
        "def late():\n    from core.app import App",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from core.app import App",
        "import core.app",
        "from core import app",
    ],
)
def test_an_upward_import_is_found_wherever_it_stands(body: str, tmp_path: Path):
    write(tmp_path, {"app.py": "", "records/ledger.py": f'"""A module."""\n{body}\n'})
    (wrong,) = upward(all_imports(tmp_path / "core"))
    line = len(body.splitlines()) + 1
    assert wrong == f"core/records/ledger.py:{line}: records may not import core.app"


def test_a_neighbour_is_not_below(tmp_path: Path):
    write(tmp_path, {"files/names.py": "from core.records import ledger", "records/ledger.py": ""})
    assert upward(all_imports(tmp_path / "core")) == ["core/files/names.py:1: files may not import core.records.ledger"]


def test_a_cycle_is_shown_import_by_import(tmp_path: Path):
    write(
        tmp_path,
        {
            "records/a.py": "from core.records import b",
            "records/b.py": "def late():\n    from core.records.c import x",
            "records/c.py": "from core.records.a import y",
        },
    )
    assert cycle(all_imports(tmp_path / "core")) == [
        "core/records/a.py:1: core.records.a → core.records.b",
        "core/records/b.py:2: core.records.b → core.records.c",
        "core/records/c.py:1: core.records.c → core.records.a",
    ]


def write(folder: Path, files: Mapping[str, str]) -> None:
    """A small package `core` of these files."""
    for name, text in {"__init__.py": "", **files}.items():
        file = folder / "core" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        for package in [file.parent, *file.parent.parents]:
            if package == folder:
                break
            (package / "__init__.py").touch()
        file.write_text(text, encoding="utf-8")


def dialect_names(file: Path) -> Iterator[str]:
    """Each text in a file that is the `db_type` of a database, with file and line."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and node.value in DATABASES:
            yield f"{file.relative_to(ROOT).as_posix()}:{node.lineno}: {node.value}"


def test_only_its_own_modules_and_the_registry_name_a_database():
    """No other module names a database, so that one is added by one file and one entry."""
    registry = CORE / "sources" / "__init__.py"
    own = {registry, *(file for name in DATABASES for file in (CORE / "sources").glob(f"{name}*.py"))}
    others = [file for folder in (CORE, ROOT / "ui") for file in folder.rglob("*.py") if file not in own]
    assert [found for file in others for found in dialect_names(file)] == []


def test_each_entry_of_the_registry_has_the_name_of_its_dialect():
    assert {name: find_dialect(name).name for name in DATABASES} == {name: name for name in DATABASES}


@pytest.mark.parametrize("name", DATABASES)
def test_every_type_of_a_database_is_in_the_table_of_column_types(name: str):
    """Names of column types are checked here and not by a Literal, so that a type is one entry of `COLUMN_TYPES`."""
    database = DATABASES[name]
    module = pytest.importorskip(database.source or database.rules, exc_type=ImportError)
    kinds = dict(module.KINDS).values()
    assert set(kinds) <= {*COLUMN_TYPES, "array"}


def test_the_tree_of_the_readme_has_each_package_in_one_line():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = readme.partition("## The tree")[2].split("```")[1]
    named = re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)
    assert sorted(named) == sorted(file.parent.name for file in CORE.glob("*/__init__.py"))
    folders = re.findall(r"^(\w+)/ ", tree, re.MULTILINE)
    assert [name for name in folders if not (ROOT / name).is_dir()] == []


@pytest.mark.parametrize("document", ["README.md", "docs/ARCHITECTURE.md"])
def test_the_files_that_readme_and_architecture_name_are_there(document: str):
    text = (ROOT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:core|ui|tests|docs)/[\w/]+\.\w+", text))
    examples = {name for name in named if "NAME" in name or "SERVICE" in name}
    assert [name for name in sorted(named - examples) if not (ROOT / name).is_file()] == []


def test_architecture_stays_short():
    assert len((ROOT / "docs/ARCHITECTURE.md").read_text(encoding="utf-8").splitlines()) <= 200


def over_the_usual_size(folder: Path) -> list[str]:
    """Modules and classes above the limits whose docstring does not say why (`Larger than other classes: …`)."""
    found = []
    for name, file in modules(folder).items():
        text = file.read_text(encoding="utf-8")
        tree = ast.parse(text)
        lines = text.count("\n")
        if lines > MOST_LINES and "Larger than other modules: " not in (ast.get_docstring(tree) or ""):
            found.append(f"{name}: {lines} lines")
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            methods = sum(isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) for member in node.body)
            lines = (node.end_lineno or 0) - node.lineno + 1
            is_large = lines > MOST_CLASS_LINES or methods > MOST_METHODS
            if is_large and "Larger than other classes: " not in (ast.get_docstring(node) or ""):
                found.append(f"{name}.{node.name}: {lines} lines, {methods} methods")
    return found


@pytest.mark.parametrize("folder", [CORE, ROOT / "ui"], ids=["core", "ui"])
def test_modules_and_classes_are_small_or_say_why_they_are_not(folder: Path):
    assert over_the_usual_size(folder) == []


def test_a_large_class_is_found(tmp_path: Path):
    methods = "\n".join(f"    def m{n}(self): ..." for n in range(MOST_METHODS + 1))
    write(tmp_path, {"records/a.py": f"class Wide:\n{methods}\n", "records/b.py": "x = 1\n" * (MOST_LINES + 1)})
    assert over_the_usual_size(tmp_path / "core") == [
        "core.records.a.Wide: 27 lines, 26 methods",
        "core.records.b: 601 lines",
    ]
