"""Reports a command line that Typer refuses: an unknown command, a wrong option, a missing argument."""

from __future__ import annotations

from typing import Any

from typer.exceptions import TyperException

from core.cli.output import language, print_note, report_error, said
from core.errors import ConfigError
from core.language import Data

__all__ = ["report_usage_error"]


def report_usage_error(error: TyperException, *, as_json: bool) -> int:
    """Prints what is wrong with the command line, in the language of the output, and returns the exit code.

    A group that is called without a command is answered with its help, as Typer does.
    """
    # Typer exports no class that has these two attributes.
    usage: Any = error
    context = getattr(usage, "ctx", None)
    text = usage.format_message()
    if as_json:
        place = context.command_path if context else "python -m core"
        return report_error(ConfigError(text, remedy=f"{place} --help"), as_json=True)
    if language() == "en":
        usage.show()
        return 2
    if context and text == context.get_help():  # it is in the language already, and has names of commands
        print_note(Data(text).marked)
        return 2
    if context:
        print_note(Data(context.get_usage()).marked)
        print_note(f"Try '{context.command_path} --help' for help.\n")
    print_note(f"{said('Error')}: {text}")
    return 2
