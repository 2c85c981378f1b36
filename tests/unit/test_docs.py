"""The documents name commands, options and files that exist; `--help` lists every command."""

from __future__ import annotations

import re
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from core.cli.main import COMMANDS, app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND_LINE = re.compile(r"python -m core ([a-z][a-z-]*)((?:[ \t]+[^\s`|,;:()]+)*)")
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Command (with its group's own) → its options, for each command line in a document."""
    found = []
    for name, rest in COMMAND_LINE.findall(text):
        words = rest.split("#")[0].split()
        found.append((name, words))
    return found


@cache
def all_commands() -> dict[str, Any]:
    """Name → command, hidden ones included."""
    group: Any = get_command(app)
    return {name: group.get_command(None, name) for name in COMMANDS}


def test_every_command_of_a_module_is_listed_and_every_listed_one_is_there():
    assert [name for name, command in all_commands().items() if command.name != name] == []
    files = [file for file in (ROOT / "core" / "cli").glob("*.py") if "app.command(" in file.read_text("utf-8")]
    modules = {f"core.cli.{file.stem}" for file in files}
    assert modules == {command.module for command in COMMANDS.values()}
    for module in modules:
        found = get_command(import_module(module).app)
        names = [found.name] if found.name else list(found.commands)  # type: ignore[attr-defined]
        assert [name for name in names if COMMANDS[str(name)].module != module] == []


def test_help_lists_every_command_that_is_not_hidden():
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert re.findall(r"^  ([a-z][a-z-]*)  ", shown, re.MULTILINE) == [
        name for name, command in all_commands().items() if not command.hidden
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_of_a_document_exist(document: Path):
    known = all_commands()
    unknown = []
    for name, words in commands(document.read_text(encoding="utf-8")):
        command = known.get(name)
        if command is not None and hasattr(command, "commands") and words:
            default = command.commands.get(getattr(command, "default_command", ""))
            name, command = f"{name} {words[0]}", command.commands.get(words[0].split("|")[0], default)
        if command is None:
            unknown.append(name)
            continue
        options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        unknown += [f"{name} {word}" for word in words if re.match(r"--\w", word) and word.strip("[]…") not in options]
    assert unknown == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_links_to_are_there(document: Path):
    linked = LINK.findall(document.read_text(encoding="utf-8"))
    assert [name for name in linked if not (document.parent / name).exists()] == []


def test_the_readme_has_its_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for mark in ("demo command", "test command"):
        (command,) = re.findall(rf"<!-- {mark} -->\s*```sh\n(.*?)\n```", text, re.DOTALL)
        assert command.startswith("python3.11 -m venv .venv && ")
