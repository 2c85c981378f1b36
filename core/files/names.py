"""Names of Excel and CSV files and of their columns: templates replaced, valid on Windows, never outside `exports/`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from core.calendar.templates import resolve
from core.errors import ConfigError
from core.model.job import Job
from core.model.source import Column
from core.workspace.json_file import nearest

__all__ = ["distinct_columns", "output_name"]

DEFAULT = "{query}_{connection}_{date:%Y%m%d}"
SUFFIXES: Mapping[str, tuple[str, ...]] = {"excel": (".xlsx",), "csv": (".csv", ".txt", ".tsv")}
OWN_FOLDER = "exports/"
MOST_BYTES = 200
"""Longest name of a file or folder: file systems allow 255, and the unfinished file has a longer name."""
TIMES = ("date", "month_start", "now")
_TEMPLATE = re.compile(r"\{[^{}]*\}")
_PARAMETER = re.compile(r"\{\s*param\s*:\s*(\w+)\s*\}")
_SLASH = re.compile(r"/(?![^{}]*\})")
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?")


def output_name(job: Job, values: Mapping[str, str], scheduled_at: datetime, environment: str = "") -> str:
    """Returns the file's name below `exports/`, with slashes.

    `{query}`, `{connection}`, `{job}`, `{environment}` and each parameter (`{DATA}` or `{param:DATA}`) are replaced, and
    the templates of `core.calendar.templates`. A character that is not allowed in file names is an error in `output`
    itself and becomes `_` in a replaced value, so that no value leads to another folder.

    Args:
        job: Its `output`; None: `{query}_{connection}_{date:%Y%m%d}`.
        values: The query's parameters.
        scheduled_at: Aware.
        environment: Of the connection.

    Raises:
        ConfigError: An unknown template, or a name that is no file of that format below `exports/`.
    """
    suffixes = SUFFIXES[job.export_format]
    given = job.output if job.output is not None else DEFAULT + suffixes[0]
    template = given.replace("\\", "/").removeprefix(OWN_FOLDER)
    for part in _SLASH.split(template):
        _refuse(job, given, _TEMPLATE.sub("x", part))
    if not template.lower().endswith(suffixes):
        raise _error(
            f'output "{given}" of job "{job.name}" is no {job.export_format} file',
            remedy=f"end it in {' or '.join(suffixes)}",
        )
    names = _names(job, values, environment)
    template = _PARAMETER.sub(lambda found: _parameter(found, values), template)
    parts = [_safe(resolve(part, scheduled_at, job.timezone, names)) for part in _SLASH.split(template)]
    for part in parts:
        if len(part.encode()) > MOST_BYTES:
            raise _error(
                f'output "{given}" of job "{job.name}" makes a name of {len(part.encode())} bytes',
                why=f"a file may have {MOST_BYTES}",
                remedy="choose a shorter one, such as {job}_{date:%Y%m%d}" + suffixes[0],
            )
    return "/".join(parts)


def distinct_columns(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Returns the columns of a result with distinct names.

    A file, unlike a message, may have a column without a name, or two with the same name, as in `SELECT a.*, b.*`; they
    become `column_3` and `NAME_2`.
    """
    taken: set[str] = set()
    found = []
    for place, column in enumerate(columns, 1):
        name, number = column.name or f"column_{place}", 1
        while name.lower() in taken:
            number += 1
            name = f"{column.name or 'column'}_{number}"
        taken.add(name.lower())
        found.append(replace(column, name=name))
    return tuple(found)


def _names(job: Job, values: Mapping[str, str], environment: str) -> dict[str, str]:
    """Template → value. A parameter with the name of a built-in template is available as `{param:…}` only."""
    own = {"query": Path(job.query).stem, "connection": job.connection, "job": job.slug, "environment": environment}
    own = {name: _plain(value) for name, value in own.items()}
    parameters = {name.lower(): _plain(value) for name, value in values.items()}
    by_name = {name: value for name, value in parameters.items() if name not in TIMES}
    return {f"__{name}": value for name, value in parameters.items()} | by_name | own


def _parameter(found: re.Match[str], values: Mapping[str, str]) -> str:
    if found[1].lower() not in {name.lower() for name in values}:
        raise _error(
            f"template {found[0]!r} cannot be used",
            why="the query has no such parameter",
            remedy=nearest(found[1], values),
        )
    return f"{{__{found[1]}}}"


def _refuse(job: Job, given: str, part: str) -> None:
    """Raises ConfigError for a part of the template that is not a valid name."""
    if part in ("", ".", "..") or re.match("[A-Za-z]:", part):
        raise _error(
            f"{given!r} is not a file below {OWN_FOLDER}",
            why=f'output of job "{job.name}"',
            remedy="use a name inside that folder, without .. or a drive",
        )
    if _RESERVED.fullmatch(part) or part != part.strip(" ").rstrip(".") or _FORBIDDEN.search(part):
        raise _error(
            f'output "{given}" of job "{job.name}" cannot be a file on Windows',
            why=f"{part!r} has a character, an end or a name that is not allowed there",
            remedy="choose another name",
        )


def _plain(text: str) -> str:
    """Replaces characters that are not allowed in file names."""
    return _FORBIDDEN.sub("_", unicodedata.normalize("NFC", text)).strip(" .") or "_"


def _safe(text: str) -> str:
    """Returns a name that is valid on every file system and not hidden."""
    name = _FORBIDDEN.sub("_", unicodedata.normalize("NFC", text)).strip(" ").rstrip(" .")
    return f"_{name}" if name[:1] in ("", ".") or _RESERVED.fullmatch(name) else name


def _error(what: str, *, why: str = "", remedy: str = "") -> ConfigError:
    return ConfigError(what, why=why, remedy=remedy, key="output")
