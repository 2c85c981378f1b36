"""Help of the commands in the language of the output: translated when it is written, whatever Typer puts together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import typer

from core.cli.output import language, said
from core.language import translated

__all__ = ["speaking"]

_EXTRA = re.compile(r"(.*?)(?:\s*\[([^\]]*)\])?", re.DOTALL)
"""What an option means, and what Typer adds: `[default: 50]`, `[required]`."""
_TYPE = re.compile(r"<(str|int|float|path|list\[int\])(?: range)?>")
"""The type of a value, as Typer writes it; `<read|send>` are values of ours."""
_PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")
"""The name of a value: `--from DAY`, `FILE.sql`, `PARTITION@OFFSET`."""
_Formatter: Any = typer.Context.formatter_class


class _SpokenHelp(_Formatter):  # type: ignore[misc]  # Typer exports the class under no other name
    def write_usage(self, prog: str, args: str = "", prefix: str | None = None) -> None:
        super().write_usage(prog, _said_pieces(args), f"{said('Usage')}: ")

    def write_heading(self, heading: str) -> None:
        super().write_heading(_of_typer().get(heading, heading))

    def write_text(self, text: str) -> None:
        super().write_text("\n\n".join(_said_text(paragraph) for paragraph in text.split("\n\n")))

    def write_dl(self, rows: Iterable[tuple[str, str]], *arguments: Any, **options: Any) -> None:
        spoken = [(_said_name(name), _said_meaning(meaning)) for name, meaning in rows]
        super().write_dl(spoken, *arguments, **options)


class _SpokenContext(typer.Context):
    formatter_class = _SpokenHelp


def speaking(command: Any) -> Any:
    """Returns the command, its help in the language of the output."""
    if language() != "en":
        command.context_class = _SpokenContext
        for inner in getattr(command, "commands", {}).values():
            inner.short_help = inner.short_help or _said_text(inner.help or "")  # Typer would cut the English one
            speaking(inner)
    return command


def _said_pieces(pieces: str) -> str:
    """Returns what follows the name of the program: `[OPTIONS] COMMAND [ARGS]...`."""
    pieces = pieces.replace("[OPTIONS]", said("[OPTIONS]"))
    return _said_placeholders(pieces.replace("COMMAND [ARGS]...", f"{said('COMMAND')} {said('[ARGS]...')}"))


def _said_name(name: str) -> str:
    """Returns an option with its value, or an argument: `--since TIME`."""
    return _said_placeholders(_TYPE.sub(_said_type, name))


def _said_placeholders(name: str) -> str:
    words = _placeholders()
    return _PLACEHOLDER.sub(lambda found: words.get(found[0], found[0]), name)


def _said_type(found: re.Match[str]) -> str:
    types = {
        "str": said("text"),
        "int": said("integer"),
        "float": said("number"),
        "path": said("path"),
        "list[int]": said("integers"),
    }
    return f"<{types[found[1]]}>"


def _said_text(text: str) -> str:
    return translated(" ".join(text.split()), language())


def _said_meaning(meaning: str) -> str:
    found = _EXTRA.fullmatch(meaning)
    if not found or not found[2]:
        return _said_text(meaning)
    extras = ((name, colon, value) for name, colon, value in (one.partition(": ") for one in found[2].split("; ")))
    shown = (_of_typer().get(name, name) + colon + value for name, colon, value in extras)
    return f"{_said_text(found[1])}  [{'; '.join(shown)}]"


def _of_typer() -> dict[str, str]:
    """Returns the words that Typer itself writes."""
    return {
        "Arguments": said("Arguments"),
        "Options": said("Options"),
        "Commands": said("Commands"),
        "default": said("default"),
        "required": said("required"),
        "Show this message and exit.": said("Show this message and exit."),
    }


def _placeholders() -> dict[str, str]:
    """Returns the names of values that differ between the languages."""
    return {
        "ADDRESS": said("ADDRESS"),
        "ALERT": said("ALERT"),
        "COLUMN": said("COLUMN"),
        "CONDITION": said("CONDITION"),
        "DAY": said("DAY"),
        "DIR": said("DIR"),
        "END": said("END"),
        "GROUP": said("GROUP"),
        "KEY": said("KEY"),
        "NAME": said("NAME"),
        "PAGE": said("PAGE"),
        "PARTITION": said("PARTITION"),
        "PROGRAM": said("PROGRAM"),
        "ROLE": said("ROLE"),
        "RULE": said("RULE"),
        "RUN": said("RUN"),
        "SILENCE": said("SILENCE"),
        "TEXT": said("TEXT"),
        "TIME": said("TIME"),
        "VALUE": said("VALUE"),
        "WHERE": said("WHERE"),
    }
