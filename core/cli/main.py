"""The command line: `python -m core COMMAND`.

The modules of this package have a `Typer` each, and import what their commands need at their top. They are imported
when one of their commands is used: `--help` takes 0.11 s, and 0.6 s if it imports all of them.
A new command is a function in one of the modules and an entry in `COMMANDS`.

Exit codes: 0 green, 1 the run or check failed, 2 usage or configuration, 3 a server cannot be reached, 4 complete with
rejects.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from core.cli.help import speaking
from core.cli.leaving import leave
from core.cli.output import report_defect, report_error, speak
from core.cli.usage_errors import report_usage_error
from core.errors import PsttError, RunCancelled
from core.language import chosen_language

__all__ = ["COMMANDS", "Command", "app", "main"]

COLLECT_AFTER = 10_000
"""Objects that may be created before the garbage collector runs: as while rows flow (`core.run.row_reader`)."""
INTERRUPTED = 130
"""What Typer makes of Ctrl-C."""


class Command(NamedTuple):
    """One command, or one group of commands such as `user add`, `user list`."""

    name: str
    module: str
    """Its `app`, a `Typer`, has the command."""
    summary: str = ""
    """The first sentence of its help; empty: it is not listed."""


COMMANDS = {
    command.name: command
    for command in (
        Command("demo", "core.cli.demo", "Makes a workspace with a broker and runs its job."),
        Command("run", "core.cli.run", "Runs a job once, now."),
        Command("replay", "core.cli.run", "Runs a run's query again for the same scheduled time."),
        Command("send", "core.cli.run", "Sends one message by hand and waits for its acknowledgement."),
        Command("preview", "core.cli.run", "Shows a job's first messages, or the first rows of its file."),
        Command("parity", "core.cli.run", "Compares what a job would send with a file made earlier."),
        Command("sql", "core.cli.run", "Prints the statements that would reach the driver."),
        Command("runner", "core.cli.schedule", "Runs every job on its calendar until it is stopped."),
        Command("next", "core.cli.schedule", "Lists when each enabled job is due next."),
        Command("scheduled", "core.cli.schedule", "Lists the scheduled runs of the last days."),
        Command("backfill", "core.cli.backfill", "Plans a run for each scheduled time of a range of days."),
        Command("cancel", "core.cli.schedule", "Asks a run to stop, whoever started it."),
        Command("enable", "core.cli.schedule", "Enables a job, in its file."),
        Command("disable", "core.cli.schedule", "Disables a job, in its file."),
        Command("accept-columns", "core.cli.schedule", "Accepts the changed columns that a job was stopped for."),
        Command("watermark", "core.cli.watermark", "Shows or sets from where an incremental job reads."),
        Command("note", "core.cli.note", "Lists the notes on the days of jobs; writes one."),
        Command("versions", "core.cli.versions", "Lists, shows and restores the versions of a file."),
        Command("runs", "core.cli.history", "Lists the newest runs and their verdicts."),
        Command("show", "core.cli.history", "Shows one run: verdict, parameters, SQL, offsets, rejects."),
        Command("verify", "core.cli.history", "Reads a run's messages back and compares them."),
        Command("find", "core.cli.history", "Finds every send of a key."),
        Command("rejects", "core.cli.history", "Lists the rows of a run that could not be sent, and why."),
        Command("receipt", "core.cli.history", "Reports what was scheduled on a day and what arrived."),
        Command("metrics", "core.cli.history", "What was sent, in numbers."),
        Command("topics", "core.cli.messages", "Lists the topics of a cluster with their message counts."),
        Command("messages", "core.cli.messages", "Shows the messages of a topic, the newest first."),
        Command("groups", "core.cli.groups", "Lists the consumer groups of a topic; resets their offsets."),
        Command("alerts", "core.cli.alerts", "Open alerts and their messages."),
        Command("check", "core.cli.inspect", "Checks every file of the workspace; contacts nothing."),
        Command("doctor", "core.cli.inspect", "Contacts every database and broker; checks disk and clock."),
        Command("health", "core.cli.inspect", "Is the runner alive, has each job succeeded in time?"),
        Command("config", "core.cli.inspect", "Lists each setting, its value and its origin."),
        Command("identity", "core.cli.inspect", "Shows the identity under which runs of exactly_once send."),
        Command("service", "core.cli.inspect", "Makes the runner a service of this machine."),
        Command("new", "core.cli.new", "Asks for what a job needs, writes its file and shows its first message."),
        Command("export", "core.cli.as_file", "Writes the workspace into one YAML file for git, without secrets."),
        Command(
            "apply", "core.cli.as_file", "Shows how the workspace differs from such a file, and makes it the same."
        ),
        Command("user", "core.cli.accounts", "Who may sign in to the page."),
        Command("token", "core.cli.accounts", "Which programs may use the REST interface."),
        Command("fires", "core.cli.schedule"),  # the name of `scheduled` up to 1.0.4
        Command("work", "core.cli.worker"),  # for the runner
        Command("part", "core.cli.part"),  # for the process of a partitioned run
        Command("copy-sends", "core.cli.copying"),  # for the runner
    )
}
"""Every command, in the order of `--help`."""


@contextmanager
def _loading() -> Iterator[None]:
    """Keeps the garbage collector from looking at what modules define: nothing of it is garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class LazyGroup(TyperGroup):
    """Imports the module of a command when the command is used."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Returns the names that `--help` shows."""
        return [command.name for command in COMMANDS.values() if command.summary]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Returns the command; None: there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        with _loading():
            found = typer.main.get_command(import_module(COMMANDS[cmd_name].module).app)
        # A module with one command, or with one group, is that command itself.
        return speaking(getattr(found, "commands", {}).get(cmd_name, found))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes the list of `--help` without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name].summary) for name in self.list_commands(ctx)])


app = typer.Typer(
    cls=LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def root() -> None:
    """Turns SQL files into JSON messages on Kafka and proves that every row arrived."""


def main() -> None:
    """Runs one command. An error is printed without a traceback and ends in its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a Windows console with an old code page cannot print ✔
            stream.reconfigure(encoding="utf-8", errors="replace")
    # Drivers and numpy are imported when a command needs them, and nothing that modules define is garbage: 0.05 s less for `run`.
    gc.set_threshold(COLLECT_AFTER, *gc.get_threshold()[1:])
    # numpy starts a thread for each processor as it is imported; they spin for 50 ms and get no work here.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    as_json = "--json" in sys.argv
    speak(chosen_language(os.environ, _folder(sys.argv, os.environ) / ".env"))
    try:
        code = _command(as_json=as_json)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output (head, less) has ended
        _discard_output()
        code = 0
    leave(code)


def _folder(arguments: Sequence[str], environ: Mapping[str, str]) -> Path:
    """Returns the folder of `--workspace`, before the command line is read; whether it is there is checked later."""
    for number, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == "--workspace" and (equals or arguments[number + 1 :]):
            return Path(value if equals else arguments[number + 1])
    return Path(environ.get("PSTT_WORKSPACE") or ".")


def _command(*, as_json: bool) -> int:
    """Runs the command of `sys.argv` and returns its exit code."""
    try:
        code = speaking(typer.main.get_command(app))(standalone_mode=False) or 0
    except PsttError as error:
        return report_error(error, as_json=as_json)
    except TyperException as error:  # an unknown command or a wrong option
        return report_usage_error(error, as_json=as_json)
    except typer.Abort:  # the end of the input, or Ctrl-C, at a question
        return report_error(RunCancelled("the command was stopped"), as_json=as_json)
    except SystemExit:  # what Typer makes of a closed pipe, and of nothing else here
        raise BrokenPipeError from None
    except Exception as error:  # noqa: BLE001 - no traceback reaches a user; the log has it
        return report_defect(error, as_json=as_json)
    if code == INTERRUPTED:
        return report_error(RunCancelled("the command was stopped"), as_json=as_json)
    return int(code)


def _discard_output() -> None:
    """Discards what is left in the buffer: Python writes it when it ends, and would report the closed pipe."""
    with open(os.devnull, "w", encoding="utf-8") as null:
        os.dup2(null.fileno(), sys.stdout.fileno())
