"""Logs: JSON lines in `logs/` for machines, one human line on the terminal for people; both through loguru."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loguru import Record

__all__ = ["start_logging"]

ROTATE_AT = "50 MB"
_NEVER = (("apprise", "CRITICAL"), ("urllib3", "WARNING"))
"""They log addresses that hold a token, such as that of a Teams channel."""


def start_logging(folder: Path | None, *, level: str, retention_days: int = 30) -> str | None:
    """Sends everything that is logged to `folder`/pstt.log and warnings to stderr.

    A folder that cannot be written is no reason to send nothing: the terminal then gets the log alone.

    Args:
        folder: The workspace's `logs/`; None: only the terminal.
        level: Lowest level that is kept: DEBUG, INFO, WARNING, ERROR.
        retention_days: Days a rotated file is kept.

    Returns:
        Why there is no log file; None where there is one.
    """
    from loguru import logger

    logger.remove()
    logger.configure(extra={"job": "", "run": "", "batch": ""})
    logger.add(sys.stderr, level=max(level, "WARNING", key=_severity), format=_human, colorize=sys.stderr.isatty())
    logging.basicConfig(handlers=[_ToLoguru()], level=0, force=True)
    for name, lowest in (
        ("kafka", "WARNING"),
        ("sqlalchemy", "WARNING"),
        ("asyncio", "WARNING"),
        ("pstt", "DEBUG"),
        *_NEVER,
    ):
        logging.getLogger(name).setLevel(lowest)
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        logger.add(
            _Patient(folder / "pstt.log", retention_days),
            level=level,
            format=_json_line,
            # A message of ours never holds a row's value; loguru's diagnose would print local variables.
            diagnose=False,
            backtrace=False,
        )
    except OSError as error:
        return f"no log file in {folder}: {error.strerror or error}"
    return None


class _Patient:
    """The log file, rotated and kept for some days. A disk that is full takes the log away, and nothing else.

    Loguru itself would print a traceback for each line that it cannot write.
    """

    def __init__(self, path: Path, retention_days: int) -> None:
        from loguru import _file_sink  # loguru 0.7.3: it has no public way to handle a sink's errors

        make: Any = _file_sink.FileSink  # untyped
        self._file = make(str(path), rotation=ROTATE_AT, retention=f"{retention_days} days", encoding="utf-8")
        self._folder = path.parent
        self._told = False

    def write(self, message: str) -> None:
        """Writes a line, or says once that it cannot."""
        try:
            self._file.write(message)
        except OSError as error:
            if not self._told:
                self._told = True
                why = error.strerror or str(error)
                print(f"! the log in {self._folder} cannot be written: {why}", file=sys.stderr)

    def stop(self) -> None:
        """Closes the file."""
        with suppress(OSError):
            self._file.stop()


def _severity(level: str) -> int:
    return logging.getLevelNamesMapping()[level]


def _human(record: Record) -> str:
    run = " run {extra[run]}" if record["extra"].get("run") else ""
    return f"<level>{{level: <7}}</level> {{time:HH:mm:ss}}{run} {{message}}\n"


def _json_line(record: Record) -> str:
    """Loguru formats what is returned once more, hence the detour over an extra field."""
    entry: dict[str, Any] = {
        "time": record["time"].astimezone().isoformat(),
        "level": record["level"].name,
        "message": record["message"],
        "logger": record["name"],
        **{name: value for name, value in record["extra"].items() if name != "line"},
    }
    if record["exception"]:
        entry["exception"] = repr(record["exception"].value)
    record["extra"]["line"] = json.dumps(entry, ensure_ascii=False, default=str)
    return "{extra[line]}\n"


class _ToLoguru(logging.Handler):
    """What libraries log in the standard way goes to the same places."""

    def emit(self, record: logging.LogRecord) -> None:
        from loguru import logger

        level = record.levelname if record.levelname in logging.getLevelNamesMapping() else record.levelno
        logger.opt(depth=6).log(level, "{}", record.getMessage())
