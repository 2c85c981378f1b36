"""Logs: JSON lines in `logs/` for machines, one human line on the terminal for people; both through loguru."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from loguru import Message, Record

__all__ = ["start_logging"]

_NEVER = (("apprise", "CRITICAL"), ("urllib3", "WARNING"), ("psycopg", "ERROR"))
"""The first two log addresses that hold a token, such as that of a Teams channel; the last that a silent server could not
be asked to stop, which the run's verdict says."""


def start_logging(folder: Path | None, *, level: str, retention_days: int = 30) -> str | None:
    """Sends everything that is logged to the file of the day in `folder` and warnings to stderr.

    A folder that cannot be written is no reason to send nothing: the terminal then gets the log alone.

    Args:
        folder: The workspace's `logs/`; None: only the terminal.
        level: Lowest level that is kept: DEBUG, INFO, WARNING, ERROR.
        retention_days: Days a file is kept after its last line.

    Returns:
        Why there is no log file; None where there is one.
    """
    from loguru import logger

    logger.remove()
    logger.configure(extra={"job": "", "run": "", "batch": ""})
    logger.add(
        sys.stderr,
        level=max(level, "WARNING", key=_severity),
        format=_human,
        filter=lambda record: not record["extra"].get("of_client"),
        colorize=sys.stderr.isatty(),
    )
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
            _DailyFile(folder, retention_days),
            level=level,
            format=_json_line,
            # A message of ours never holds a row's value; loguru's diagnose would print local variables.
            diagnose=False,
            backtrace=False,
        )
    except OSError as error:
        return f"no log file in {folder}: {error.strerror or error}"
    return None


class _DailyFile:
    """One file a day, kept for some days. A disk that is full takes the log away, and nothing else.

    Its day is in its name, so that no file is ever renamed: runner, page and runs write into one at once, and Windows
    renames none that another process holds open. Loguru's own file cannot do that, and prints a traceback for each
    line that a full disk refuses.
    """

    def __init__(self, folder: Path, retention_days: int) -> None:
        self._folder = folder
        self._retention_days = retention_days
        self._day: date | None = None
        self._stream: TextIO | None = None
        self._told = False
        self._open(datetime.now().astimezone())

    def write(self, message: Message) -> None:
        """Writes a line, or says once that it cannot."""
        try:
            now = message.record["time"]
            stream = self._stream if now.date() == self._day else None
            (stream or self._open(now)).write(message)
        except OSError as error:
            if not self._told:
                self._told = True
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
            with suppress(OSError):  # gone already, or held open
                if file.stat().st_mtime < oldest:
                    file.unlink()
        return stream


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
        # What a Kafka client says of itself is for the file; its causes are in our own errors.
        of_client = record.name.split(".")[0] == "kafka" or record.name == "pstt.kafka"
        logger.bind(of_client=of_client).opt(depth=6).log(level, "{}", record.getMessage())
