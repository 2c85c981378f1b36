"""The command line: `python -m core COMMAND`. Imports what is slow only inside the command that needs it.

Exit codes: 0 green, 1 the run or check failed, 2 usage or configuration, 3 a server cannot be reached, 4 complete with
rejects.
"""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

import typer
from typer.exceptions import TyperException

from core.cli import accounts, alerts, demo, history, inspect, run, schedule
from core.cli.output import report_defect, report_error
from core.errors import ConfigError, PsttError, RunCancelled
from core.sources.session import is_left_behind

__all__ = ["app", "main"]

INTERRUPTED = 130
"""What Typer makes of Ctrl-C."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Turns SQL files into JSON messages on Kafka and proves that every row arrived.",
)
for module in (demo, run, schedule, history, inspect, alerts, accounts):
    app.add_typer(module.app)


def main() -> None:
    """Runs one command; a problem is printed in our words and ends in its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console with an old code page cannot print ✔
            stream.reconfigure(encoding="utf-8", errors="replace")
    as_json = "--json" in sys.argv
    try:
        code = _command(as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        _say_no_more()
        code = 0
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Ends the process, at once where a driver's call has not come back: everything is written down by now."""
    if is_left_behind():
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _command(*, as_json: bool) -> int:
    """One command of the command line; its exit code."""
    try:
        code = app(standalone_mode=False) or 0
    except PsttError as error:
        return report_error(error, as_json=as_json)
    except TyperException as error:  # a wrong word on the command line
        return _misused(error, as_json=as_json)
    except SystemExit:  # what Typer makes of a closed pipe, and of nothing else here
        raise BrokenPipeError from None
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user; the log has it
        return report_defect(error, as_json=as_json)
    if code == INTERRUPTED:
        return report_error(RunCancelled("stopped"), as_json=as_json)
    return int(code)


def _misused(error: TyperException, *, as_json: bool) -> int:
    # Typer has no public name for what its usage errors can do.
    usage: Any = error
    if as_json:
        place = usage.ctx.command_path if getattr(usage, "ctx", None) else "python -m core"
        return report_error(ConfigError(usage.format_message(), remedy=f"{place} --help"), as_json=True)
    usage.show()
    return 2


def _say_no_more() -> None:
    """Python writes what is left at its end, and would complain that nobody reads it."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
