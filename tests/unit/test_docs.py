"""The documents name commands and options that exist, and files that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from core.cli.main import app

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
SPOKEN = re.compile(r"python -m core ([a-z][a-z-]*)((?:[ \t]+[^\s`|,;:()]+)*)")
LINKED = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Command (with its group's own) → its options, for each command line in a document."""
    found = []
    for name, rest in SPOKEN.findall(text):
        words = rest.split("#")[0].split()
        found.append((name, words))
    return found


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_of_a_document_exist(document: Path):
    known = get_command(app).commands  # type: ignore[attr-defined]
    unknown = []
    for name, words in commands(document.read_text(encoding="utf-8")):
        command = known.get(name)
        if command is not None and hasattr(command, "commands") and words:
            name, command = f"{name} {words[0]}", command.commands.get(words[0].split("|")[0])
        if command is None:
            unknown.append(name)
            continue
        options = {option for parameter in command.params for option in parameter.opts} | {"--help", "-h"}
        unknown += [f"{name} {word}" for word in words if re.match(r"--\w", word) and word.strip("[]…") not in options]
    assert unknown == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_links_to_are_there(document: Path):
    linked = LINKED.findall(document.read_text(encoding="utf-8"))
    assert [name for name in linked if not (document.parent / name).exists()] == []


def test_the_readme_has_its_two_commands():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for mark in ("demo command", "test command"):
        (command,) = re.findall(rf"<!-- {mark} -->\s*```sh\n(.*?)\n```", text, re.DOTALL)
        assert command.startswith("python3.11 -m venv .venv && ")
