"""Prints what a command found: lines for people, one JSON document for programs. Errors for people go to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import typer
from loguru import logger

from core.cli.documents import check_results_document, error_document
from core.cli.render import check_result_lines, check_summary, error_lines
from core.errors import PsttError
from core.model.check_result import CheckResult

__all__ = ["print_answer", "print_check_results", "print_json", "print_lines", "report_defect", "report_error"]


def print_lines(lines: Iterable[str]) -> None:
    """Prints each line as it comes."""
    for line in lines:
        print(line)


def print_json(document: Any) -> None:
    """Prints one JSON document; what JSON has no form for is printed as its text."""
    print(json.dumps(document, ensure_ascii=False, indent=2, default=str))


def print_answer(document: dict[str, Any], as_json: bool) -> None:
    """Prints the document, or for people only the sentence under its key `answer`."""
    print_json(document) if as_json else print_lines([f"✔ {document['answer']}"])


def print_check_results(results: Iterable[CheckResult], *, as_json: bool) -> None:
    """Prints each result as soon as it is known, then how many there are of each kind.

    Raises:
        typer.Exit: Always: 0 nothing failed, 1 something failed, 3 a server cannot be reached.
    """
    seen = []
    for result in results:
        seen.append(result)
        if not as_json:
            print_lines(check_result_lines(result))
    if as_json:
        print_json(check_results_document(seen))
    else:
        print_lines([check_summary(seen)])
    failed = [result for result in seen if result.status == "fail"]
    raise typer.Exit(3 if any(result.unreachable for result in failed) else 1 if failed else 0)


def report_error(error: PsttError, *, as_json: bool) -> int:
    """Prints an error, to stdout as JSON or to stderr as lines, and returns its exit code."""
    if as_json:
        print_json({"error": error_document(error)})
    else:
        for line in error_lines(error):
            print(line, file=sys.stderr)
    return error.exit_code


def report_defect(error: Exception, *, as_json: bool) -> int:
    """Prints one line about an unexpected error and logs its traceback. Returns the exit code."""
    logger.opt(exception=error).debug("unexpected error")
    text = f"unexpected {type(error).__name__}"
    remedy = "this is a defect of PSTT Kafka: report it with the newest file in logs, at KAFKA_LOG_LEVEL=DEBUG"
    return report_error(PsttError(text, remedy=remedy), as_json=as_json)
