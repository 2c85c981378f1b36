"""Prints what a command found: lines for people, one JSON document for programs. Errors for people go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from loguru import logger

from core.clock import iso_utc
from core.errors import ConfigError, PsttError
from core.language import Language, label, translated_line

__all__ = [
    "error_document",
    "error_lines",
    "language",
    "print_answer",
    "print_json",
    "print_lines",
    "print_note",
    "report_defect",
    "report_error",
    "said",
    "speak",
]

_language: Language = "en"


def speak(chosen: Language) -> None:
    """Sets the language of what is printed for people from now on; JSON documents are always English."""
    global _language
    _language = chosen


def language() -> Language:
    """Returns the language of what is printed for people."""
    return _language


def said(text: str) -> str:
    """Returns a heading, a question or another text that is part of a line, in the language of the output."""
    return label(text, _language)


def print_lines(lines: Iterable[str]) -> None:
    """Prints each line as it comes, in the language of the output."""
    for line in lines:
        print(translated_line(line, _language))


def print_note(line: str, *, end: str = "\n") -> None:
    """Prints a line on stderr, in the language of the output: what happens meanwhile, and is not the answer."""
    print(translated_line(line, _language), end=end, file=sys.stderr, flush=True)


def print_json(document: Any) -> None:
    """Prints one JSON document; a time as everywhere (`…T10:30:45.123456Z`), what else JSON has no form for as its text."""
    print(json.dumps(document, ensure_ascii=False, indent=2, default=_as_text))


def _as_text(value: object) -> str:
    return iso_utc(value) if isinstance(value, datetime) and value.tzinfo else str(value)


def print_answer(document: dict[str, Any], as_json: bool) -> None:
    """Prints the document, or for people only the sentence under its key `answer`."""
    print_json(document) if as_json else print_lines([f"✔ {document['answer']}"])


def report_error(error: PsttError, *, as_json: bool) -> int:
    """Prints an error, to stdout as JSON or to stderr as lines, and returns its exit code."""
    if as_json:
        print_json({"error": error_document(error)})
    else:
        for line in error_lines(error):
            print_note(line)
    return error.exit_code


def report_defect(error: Exception, *, as_json: bool) -> int:
    """Prints one line about an unexpected error and logs its traceback. Returns the exit code."""
    logger.opt(exception=error).debug("unexpected error")
    text = f"unexpected {type(error).__name__}"
    remedy = "this is a defect of PSTT Kafka: report it with the newest file in logs, at KAFKA_LOG_LEVEL=DEBUG"
    return report_error(PsttError(text, remedy=remedy), as_json=as_json)


def error_lines(error: PsttError) -> list[str]:
    """Returns what failed, on what and why; then what to do next."""
    lines = [f"✘ {error.text}"]
    if error.remedy:
        lines.append(f"  next   {error.remedy}")
    return lines


def error_document(error: PsttError) -> dict[str, Any]:
    """Returns an error; with file, line and column if a file has to be fixed."""
    document: dict[str, Any] = {
        "class": type(error).__name__,
        "retriable": error.is_retriable,
        "text": error.text,
        "remedy": error.remedy,
    }
    if isinstance(error, ConfigError):
        document |= {"file": error.file.name if error.file else None, "line": error.line, "column": error.column}
    return document
