"""A JSON file with the offset of each value, so that a problem has a line and a column."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.workspace.stored_file import StoredFile

__all__ = ["FilePosition", "JsonFile", "document_of", "nearest", "parse_json_file", "read_json_file", "read_text"]

FilePosition = tuple[str | int, ...]
_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_PLAIN = re.compile(r"[^,\]}\s]+")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(slots=True)
class JsonFile:
    """A document, and the offset of each value by its position; a member of an object has the offset of its name."""

    path: Path
    text: str = field(repr=False)
    document: Any = field(repr=False)
    offsets: dict[FilePosition, int] = field(default_factory=dict)

    def error(self, position: Iterable[str | int], what: str, *, why: str = "", remedy: str = "") -> ConfigError:
        """Returns a ConfigError with the line and column of a value, or of the nearest value around it."""
        where = tuple(position)
        key = ".".join(map(str, where))
        while where and where not in self.offsets:
            where = where[:-1]
        line, column = _line_and_column(self.text, self.offsets.get(where, 0))
        return ConfigError(what, why=why, remedy=remedy, file=self.path, line=line, column=column, key=key)


def read_json_file(path: Path) -> JsonFile:
    """Reads a JSON object.

    Raises:
        ConfigError: It is missing, not UTF-8, not complete, not an object, or has a name twice in one object.
    """
    return parse_json_file(path, read_text(path))


def parse_json_file(path: Path, text: str) -> JsonFile:
    """Parses the text of a file; problems name `path`.

    Raises:
        ConfigError: The text is not complete JSON, not an object, or has a name twice in one object.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise ConfigError(
            "the file is not whole JSON" if error.pos >= len(text.rstrip()) else "this is not JSON",
            why=error.msg,
            remedy=_hint(text, error),
            file=path,
            line=error.lineno,
            column=error.colno,
        ) from None
    except ValueError as error:
        # Python's own words about an integer of more than 4,300 digits are for programmers.
        why = "a number has too many digits" if "digits" in str(error) else str(error)
        raise ConfigError("this is not JSON", why=why, file=path, line=1) from None
    except RecursionError:
        raise _too_deep(path) from None
    file = JsonFile(path, text, document)
    try:
        _locate(file, 0, ())
    except RecursionError:
        raise _too_deep(path) from None
    if _SURROGATE.search(text):
        _refuse_surrogates(file, document, ())
    if not isinstance(document, dict):
        raise file.error((), "the file must hold one JSON object", remedy="begin it with { and end it with }")
    return file


def document_of(stored: StoredFile) -> dict[str, Any]:
    """Returns the JSON object of a file; empty if there is no file.

    Raises:
        ConfigError: It is no JSON object.
    """
    if not stored.sha256:
        return {}
    document: dict[str, Any] = parse_json_file(stored.path, stored.text).document
    return document


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns `did you mean "…"?`, or the list of valid names if none is near."""
    names = list(valid)
    lower: dict[str, str] = {}
    for candidate in names:
        lower.setdefault(candidate.lower(), candidate)
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    if close:
        return f'did you mean "{lower[close[0]]}"?'
    return f"valid: {', '.join(names)}" if names else ""


def read_text(path: Path) -> str:
    """Reads a file of UTF-8, with or without a byte order mark.

    Raises:
        ConfigError: It is missing, is not UTF-8, or cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no file {path.name}", remedy=f"make {path.name} in {path.parent}", file=path
        ) from None
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError("the file is not UTF-8", remedy="save it as UTF-8", file=path, line=line) from None
    except OSError as error:
        raise ConfigError("the file cannot be read", why=error.strerror or str(error), file=path) from None


def _too_deep(path: Path) -> ConfigError:
    return ConfigError(
        "the file is nested too deeply",
        remedy="compare it with the example: a few levels are enough",
        file=path,
        line=1,
    )


def _refuse_surrogates(file: JsonFile, value: Any, position: FilePosition) -> None:
    """Raises on a lone surrogate: JSON allows its escape, but UTF-8 cannot encode it."""
    if isinstance(value, dict):
        members: Iterable[tuple[str | int, Any]] = value.items()
    else:
        members = enumerate(value) if isinstance(value, list) else ()
    for name, member in members:
        _refuse_surrogates(file, name, (*position, name))
        _refuse_surrogates(file, member, (*position, name))
    if isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value):
        raise file.error(
            position, "a text holds half of a character (a lone surrogate)", remedy="write the character itself"
        )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _hint(text: str, error: json.JSONDecodeError) -> str:
    before = text[: error.pos].rstrip()
    if error.pos >= len(text.rstrip()):
        return "the end is missing: restore the file, or close what is open"
    if before.endswith(","):
        return "remove the comma before it" if text[error.pos] in "}]" else "check the comma before it"
    if text[error.pos] in "'#/":
        return "JSON has no comments and no single quotes"
    return "look for a missing comma or quote just before it"


def _line_and_column(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1


def _locate(file: JsonFile, start: int, position: FilePosition) -> int:
    """Records where each value begins and returns the offset after the value. The text is valid JSON."""
    text = file.text
    at = _skip(text, start)
    file.offsets.setdefault(position, at)
    if text[at] == "{":
        return _locate_members(file, at, position)
    if text[at] == "[":
        at, index = _skip(text, at + 1), 0
        while text[at] != "]":
            at = _skip(text, _locate(file, at, (*position, index)))
            index += 1
            at = _skip(text, at + 1) if text[at] == "," else at
        return at + 1
    return _end(_STRING if text[at] == '"' else _PLAIN, text, at)


def _locate_members(file: JsonFile, at: int, position: FilePosition) -> int:
    text = file.text
    at = _skip(text, at + 1)
    while text[at] != "}":
        end = _end(_STRING, text, at)
        name = json.loads(text[at:end])
        member = (*position, name)
        if member in file.offsets:
            file.offsets[member] = at
            raise file.error(member, f'"{name}" is in one object twice', remedy="keep one of them")
        file.offsets[member] = at  # an error points at the name, which the user searches for
        at = _skip(text, _locate(file, _skip(text, end) + 1, member))
        at = _skip(text, at + 1) if text[at] == "," else at
    return at + 1


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at + 1


def _skip(text: str, at: int) -> int:
    return _end(_SPACE, text, at)
