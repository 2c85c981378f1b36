"""Sends the log lines of a Kafka client to our logger and to the diagnosis."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable

from core.kafka.diagnosis import Diagnosis

__all__ = ["ClientLog", "LogRelay"]

SAME_LINE_S = 30.0
"""librdkafka repeats "connection refused" every 50 ms; one line in 30 s is enough."""
MAX_LINES = 100
"""How many different lines are remembered."""

_changing = re.compile(r" \(after \d+ms[^)]*\)|\d+(?=ms)")


class ClientLog:
    """Receives the log lines of one client.

    Args:
        diagnosis: Receives every line, as a client reports many causes only in its log.
        clock: Monotonic seconds.
    """

    def __init__(self, diagnosis: Diagnosis, clock: Callable[[], float] = time.monotonic) -> None:
        self._diagnosis = diagnosis
        self._clock = clock
        self._logger = logging.getLogger("pstt.kafka")
        self._written: dict[str, float] = {}

    def log(self, level: int, form: str, *args: object) -> None:
        """Logs a line unless the same one was logged within 30 s. confluent-kafka calls this within poll()."""
        line = self._diagnosis.scrub(form % args if args else form)
        self._diagnosis.remember(line)
        same = _changing.sub("", line)
        now = self._clock()
        if now - self._written.get(same, -SAME_LINE_S) < SAME_LINE_S:
            return
        if len(self._written) >= MAX_LINES:
            self._written.clear()
        self._written[same] = now
        self._logger.log(level, "%s", line)


class LogRelay(logging.Handler):
    """Receives the log lines of a client that writes them into Python's `logging`, and reports causes nowhere else.

    Lines below INFO are not wanted: kafka-python-ng logs whole rows there, and its admin client the password.

    Args:
        log: Receives the lines.
        level: KAFKA_LOG_LEVEL.
        source: Name of the client's logger.
        is_ours: Whether a line was written by this client, and not by another one of the same library.
    """

    def __init__(
        self, log: ClientLog, level: str, source: str, is_ours: Callable[[logging.LogRecord], bool] = lambda _: True
    ) -> None:
        super().__init__()
        self._log = log
        self._is_ours = is_ours
        self._source = logging.getLogger(source)
        self._source.addHandler(self)
        self._source.setLevel(max(logging.INFO, logging.getLevelNamesMapping().get(level.upper(), logging.INFO)))
        self._source.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Called in the client's own thread."""
        if self._is_ours(record):
            self._log.log(record.levelno, "%s", record.getMessage())

    def end(self) -> None:
        """Stops receiving lines; after the last relay has ended they go where they went before."""
        self._source.removeHandler(self)
        self._source.propagate = not any(isinstance(handler, LogRelay) for handler in self._source.handlers)
