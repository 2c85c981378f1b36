"""Secrets that a command prints: `exec:COMMAND`.

Only a command that the administrator listed in PSTT_SECRET_COMMANDS is run. That setting comes from the environment or
from `.env`; neither can be changed on the page or over REST. The words are compared, so that who may edit
connections.json cannot add an argument.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from core.errors import ConfigError, SecretUnavailable
from core.model.connection import Secret

__all__ = ["COMMANDS", "TIMEOUT", "allowed_command", "command_words", "read_command"]

COMMANDS, TIMEOUT = "PSTT_SECRET_COMMANDS", "PSTT_SECRET_COMMAND_TIMEOUT_S"
DEFAULT_TIMEOUT_S = 10.0
MOST_BYTES = 65_536
WORD = re.compile(r'"([^"]*)"|(\S+)')
NO_WINDOW: int = getattr(subprocess, "CREATE_NO_WINDOW", 0)
"""Windows: no console window opens for a moment."""


def command_words(line: str) -> tuple[str, ...]:
    """Splits a command into words. A word with spaces is written in "…"; a backslash is an ordinary character."""
    return tuple(quoted or plain for quoted, plain in WORD.findall(line))


def allowed_command(reference: str, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the words of a command that the administrator allowed. Runs nothing.

    Args:
        reference: `exec:COMMAND`.
        variables: The environment and the entries of `.env`.

    Raises:
        ConfigError: PSTT_SECRET_COMMANDS does not list exactly this command, or its program is not there.
    """
    words = command_words(reference.removeprefix("exec:"))
    allowed = [command_words(line) for line in variables.get(COMMANDS, "").split(";")]
    if not words or words not in allowed:
        raise ConfigError(
            f"the command of {reference} is not allowed",
            why=f"{COMMANDS} does not list it" if variables.get(COMMANDS) else f"{COMMANDS} is not set",
            remedy=f"the administrator of this machine adds it to {COMMANDS}, in the environment or in .env",
        )
    program = Path(words[0])
    if not program.is_absolute() or not program.is_file():
        raise ConfigError(
            f"the program of {reference} cannot be used",
            why="it is no absolute path" if not program.is_absolute() else "there is no such file",
            remedy=f"write its whole path there and in {COMMANDS}",
        )
    return words


def read_command(reference: str, variables: Mapping[str, str], root: Path) -> Secret:
    """Runs an allowed command without a shell and returns what it prints, without the end of its line.

    What it prints is never logged, nor is what it reports on stderr.

    Args:
        reference: `exec:COMMAND`.
        variables: The environment and the entries of `.env`.
        root: The folder in which it runs.

    Raises:
        ConfigError: It is not allowed, cannot be started, fails, or prints nothing, several lines or no UTF-8.
        SecretUnavailable: It did not end within PSTT_SECRET_COMMAND_TIMEOUT_S (10 s).
    """
    words, timeout_s = allowed_command(reference, variables), _timeout_s(variables)
    what = f"{reference} gave no secret"
    try:
        process = subprocess.Popen(  # noqa: S603 - without a shell, and allowed word by word
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
            creationflags=NO_WINDOW,
        )
    except OSError as error:
        raise ConfigError(what, why=error.strerror or type(error).__name__, remedy="run it by hand") from None
    with process:
        try:
            output, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _end_tree(process.pid)
            raise SecretUnavailable(
                what, why=f"it did not end within {timeout_s:g} s", remedy=f"run it by hand, or raise {TIMEOUT}"
            ) from None
    if process.returncode:
        raise ConfigError(what, why=f"it ended with code {process.returncode}", remedy="run it by hand")
    return _one_line(output, what)


def _one_line(output: bytes, what: str) -> Secret:
    try:
        text = output.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise ConfigError(what, why="what it printed is not UTF-8") from None
    if not text or "\n" in text or len(output) > MOST_BYTES:
        found = "nothing" if not text else "more than one line" if "\n" in text else f"over {MOST_BYTES:,} bytes"
        raise ConfigError(what, why=f"it printed {found}", remedy="it has to print the secret alone, in one line")
    return Secret(text)


def _timeout_s(variables: Mapping[str, str]) -> float:
    try:
        return float(variables.get(TIMEOUT) or DEFAULT_TIMEOUT_S)
    except ValueError:
        raise ConfigError(f"{TIMEOUT} is not a number", remedy="write seconds") from None


def _end_tree(pid: int) -> None:
    """Ends a process and those that it started, which would keep its output open."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in [*parent.children(recursive=True), parent]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
