"""What Typer writes is in the language of the output: errors of the command line, and help."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from core.cli import output
from core.cli.help import speaking
from core.cli.main import COMMANDS, _command
from core.language import translated_line
from ui.language.core_texts import texts_of

OF_TYPER = (
    "_adapters", "_coercion", "_param_types", "core", "_click/core", "_click/decorators", "_click/exceptions", "_click/parser",
)  # fmt: skip
NOT_MET = re.compile(
    r"DeprecationWarning|At least one help option|unknown error|Cannot have two nargs|Invalid start character|unknown action"
    r"|Expected one list item|Typer currently doesn't|\w+ types with complex|In Typer, only|env var|Name \{0\} defined|Name '\{0\}'"
    r"|Boolean option|Command has no name|value is not a valid tuple|does not match the formats|None is not a valid string"
)
"""Errors of a program that uses Typer wrongly, and what no command of ours has: tuples, formats of times, variables."""
PARTS = {
    "an argument.": "Option '--x' requires an argument.",
    "Option {0} requires {1}": "Option '--x' requires 2 arguments.",
    "(Possible options: {0})": "No such option: --x (Possible options: --xy)",
    "{0}. Did you mean {1}?": "No such command 'x'. Did you mean 'xy'?",
    "Try '{0} {1}' for help.\n": "Try 'x --help' for help.",
}
"""A part of a sentence: the whole one."""
ENGLISH = re.compile(
    r"\b(the|is|not|no|value|valid|option|argument|missing|unexpected|invalid|error|such|should|or|for|help|usage|requires?)\b"
)


@pytest.fixture(autouse=True)
def in_italian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "_language", "it")


def written_by_typer() -> list[str]:
    folder = Path(typer.__file__).parent
    texts = (text for name in OF_TYPER for text, _ in texts_of((folder / f"{name}.py").read_text(encoding="utf-8")))
    return sorted({text for text in texts if not NOT_MET.search(text)})


def test_the_texts_of_typer_are_found():
    found = written_by_typer()
    assert len(found) > 20
    assert {"Missing command.", "Invalid value for {0}: {1}", "No such option: {0}"} <= set(found)


@pytest.mark.parametrize("text", written_by_typer())
def test_each_text_that_typer_can_write_is_translated(text: str) -> None:
    labels = iter(("File", "'x'"))
    example = PARTS.get(text) or re.sub(
        r"\{\w*(?:![rs])?\}",
        lambda _: next(labels, "y") if text.startswith("{0} {1}") else "'x'",
        text,
    )
    said = translated_line(example.strip(), "it")
    assert not ENGLISH.search(re.sub(r"'[^']*'|--help", "", said).lower()), said


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["python -m core", *line.split(" ")])
    assert _command(as_json=False) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nope", "Errore: Il comando 'nope' non esiste."),
        ("users", "Errore: Il comando 'users' non esiste."),
        ("user ad", "Errore: Il comando 'ad' non esiste. Forse si intendeva 'add'?"),
        ("run", "Errore: Manca l'argomento 'JOB'."),
        ("run a running", "Errore: Argomenti in eccesso (running)"),
        ("run --agan x", "Errore: L'opzione --agan non esiste (opzioni possibili: --again, --at, --param)"),
        ("run x --at", "Errore: L'opzione '--at' richiede un argomento."),
        ("run x --json=3", "Errore: L'opzione '--json' non richiede un valore."),
        ("runs --limit abc", "Errore: Valore non valido per '--limit': Deve essere un numero intero"),
        ("runs --limit 0", "Errore: Valore non valido per '--limit': Deve essere maggiore o uguale a 1"),
        ("next --days x", "Errore: Valore non valido per '--days': Deve essere un numero"),
        (
            "token add a --scope failed",
            "Errore: Valore non valido per '--scope': 'failed' non è tra i valori possibili: 'read', 'send', 'admin'.",
        ),
        ("alerts silence", "Errore: Manca l'opzione '--until'."),
    ],
)
def test_a_wrong_command_line_is_told_in_italian(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, expected: str
) -> None:
    lines = refused(monkeypatch, capsys, line)
    assert lines[-1] == expected
    assert lines[0].startswith("Uso: ") or len(lines) == 1


def test_the_values_of_a_missing_argument_are_listed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = refused(monkeypatch, capsys, "user role a")
    assert lines[-4:] == ["Errore: Manca l'argomento 'ROLE'. Valori possibili:", "\tviewer,", "\toperator,", "\tadmin"]


def test_a_group_without_a_command_shows_its_help_once_with_the_names_of_its_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = refused(monkeypatch, capsys, "user")
    assert lines[0].endswith("user [OPZIONI] COMANDO [ARGOMENTI]...")
    assert sum("Uso:" in line for line in lines) == 1
    assert not any("Errore" in line for line in lines)
    assert any(line.startswith("  role      Imposta il ruolo") for line in lines)


def test_the_end_of_the_input_at_a_question_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(*_: Any, **__: Any) -> None:
        raise typer.Abort

    monkeypatch.setattr("core.cli.accounts._asked_password", end)
    monkeypatch.setattr(sys, "argv", ["python -m core", "user", "add", "anna"])
    assert _command(as_json=False) == 1
    assert capsys.readouterr().err == "✘ il comando è stato interrotto\n"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_has_no_word_of_typer_in_english(name: str) -> None:
    made = typer.main.get_command(import_module(COMMANDS[name].module).app)
    for command in _with_inner(speaking(getattr(made, "commands", {}).get(name, made))):
        text = command.make_context(f"python -m core {name}", [], resilient_parsing=True).get_help()
        assert not re.search(
            r"Usage|Options:|Commands:|\[OPTIONS\]|\[ARGS\]|required|default:|Show this|<(str|int|float)\b", text
        )
        assert not re.search(r"\b(DAY|TIME|TEXT|NAME|VALUE|KEY)\b", re.sub(r"^.*\.json.*$", "", text, flags=re.M)), text


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_option_says_what_it_means(name: str) -> None:
    made = typer.main.get_command(import_module(COMMANDS[name].module).app)
    for command in _with_inner(getattr(made, "commands", {}).get(name, made)):
        silent = [parameter.name for parameter in command.params if not getattr(parameter, "help", "")]
        assert not silent, f"{command.name}: {silent}"


def _with_inner(command: Any) -> list[Any]:
    return [command, *(one for inner in getattr(command, "commands", {}).values() for one in _with_inner(inner))]
