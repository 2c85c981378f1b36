"""Logging through loguru: JSON lines in the files of `logs/`, readable lines on the terminal."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from loguru import logger

from core.language import Language, translated

if TYPE_CHECKING:
    from loguru import Message, Record

__all__ = ["start_logging"]

LOWEST_LEVELS = (
    ("kafka", "WARNING"),
    ("asyncio", "WARNING"),
    ("pstt", "DEBUG"),
    # These log URLs that may contain a token, such as that of a Teams channel or of a collector.
    ("apprise", "CRITICAL"),
    ("urllib3", "WARNING"),
    ("opentelemetry", "CRITICAL"),
    # It warns that a server which does not answer cannot be asked to cancel; the run's verdict reports that.
    ("psycopg", "ERROR"),
)
"""Logger of a library → the lowest level that is kept."""


def start_logging(
    folder: Path | None, *, level: str, retention_days: int = 30, language: Language = "en"
) -> str | None:
    """Writes the log to the file of the day in `folder`, and warnings to stderr.

    A folder that is not writable stops no run: the log then goes to the terminal only.

    Args:
        folder: The workspace's `logs/`; None: the terminal only.
        level: Lowest level that is kept: DEBUG, INFO, WARNING, ERROR.
        retention_days: Days that a file is kept after its last line.
        language: Of our messages, in the files and on the terminal; what libraries log stays as it is.

    Returns:
        Why there is no log file; None if there is one.
    """
    logger.remove()
    logger.configure(extra={"job": "", "run": "", "batch": ""}, patcher=_speaking(language))
    logger.add(
        sys.stderr,
        level=max(level, "WARNING", key=_severity),
        format=_human,
        filter=lambda record: not record["extra"].get("of_client"),
        colorize=sys.stderr.isatty(),
    )
    logging.basicConfig(handlers=[_ToLoguru()], level=0, force=True)
    for name, lowest in LOWEST_LEVELS:
        logging.getLogger(name).setLevel(lowest)
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        logger.add(
            _DailyFile(folder, retention_days),
            level=level,
            format=_json_line,
            # Our messages never contain values of rows; `diagnose` would print local variables.
            diagnose=False,
            backtrace=False,
        )
    except OSError as error:
        return f"no log file in {folder}: {error.strerror or error}"
    return None


class _DailyFile:
    """A sink of loguru: one file a day, deleted after some days. A full disk stops the log and nothing else.

    The day is in the file's name, so that no file is renamed: runner, page and runs write to it at the same time, and
    Windows does not rename a file that another process has open. Loguru's own file sink renames, and prints a traceback
    for each line that cannot be written.
    """

    def __init__(self, folder: Path, retention_days: int) -> None:
        self._folder = folder
        self._retention_days = retention_days
        self._day: date | None = None
        self._stream: TextIO | None = None
        self._has_failed = False
        self._open(datetime.now().astimezone())

    def write(self, message: Message) -> None:
        """Writes a line. Reports the first failure on stderr and ignores the following ones."""
        try:
            now = message.record["time"]
            stream = self._stream if now.date() == self._day else None
            (stream or self._open(now)).write(message)
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                why = error.strerror or str(error)
                print(f"! the log in {self._folder} cannot be written: {why}", file=sys.stderr)

    def stop(self) -> None:
        """Closes the file."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(OSError):
                stream.close()

    def _open(self, now: datetime) -> TextIO:
        self.stop()
        self._day = now.date()
        self._stream = stream = (self._folder / f"pstt-{self._day}.log").open("a", encoding="utf-8", buffering=1)
        oldest = now.timestamp() - self._retention_days * 86_400
        for file in self._folder.glob("pstt*.log"):
            with suppress(OSError):  # deleted meanwhile, or open in another process
                if file.stat().st_mtime < oldest:
                    file.unlink()
        return stream


def _speaking(language: Language) -> Callable[[Record], None]:
    """Returns what each record goes through before it is written."""

    def translate(record: Record) -> None:
        if language != "en" and (record["name"] or "").split(".")[0] in ("core", "ui"):
            record["message"] = translated(record["message"], language)

    return translate


def _severity(level: str) -> int:
    return logging.getLevelNamesMapping()[level]


def _human(record: Record) -> str:
    run = " run {extra[run]}" if record["extra"].get("run") else ""
    return f"<level>{{level: <7}}</level> {{time:HH:mm:ss}}{run} {{message}}\n"


def _json_line(record: Record) -> str:
    """Returns a format string that names an extra field with the JSON: loguru formats what is returned here again."""
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
    """Forwards records of the standard `logging` module to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in logging.getLevelNamesMapping() else record.levelno
        # Messages of a Kafka client go to the file only; our own errors contain their causes.
        of_client = record.name.split(".")[0] == "kafka" or record.name == "pstt.kafka"
        logger.bind(of_client=of_client).opt(depth=6).log(level, "{}", record.getMessage())
