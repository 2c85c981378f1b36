"""Answers from the metrics, for page and REST: computed once for all callers, and again when there is something new.

An answer belongs to a version of the metrics. A new version is there when a run has begun or ended, a segment has come
or was copied, the time zone was changed, or a quarter of an hour has passed. To ask for the version takes less than a
millisecond, so page and REST ask often, and compute seldom.

Every caller with the right to read sees the same metrics, so an answer does not depend on the caller. Page and REST
check the right before they ask.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from core import open_workspace
from core.workspace.paths import Workspace
from ui.cache import SharedCache

if TYPE_CHECKING:
    from core.records.metrics import Metrics
    from core.records.metrics_queries import MetricsQueries

__all__ = ["MetricsVersion", "clear_answers", "metrics_answer", "metrics_of", "metrics_version", "one_opening"]

V = TypeVar("V")

FRESH_S = 60.0
"""Age in seconds from which an answer is computed again although no change was noticed: a file's change time may come late
or stay the same, and the last 24 hours go on."""
STALE_S = 900.0
"""Age in seconds up to which it is returned meanwhile: an open page asks again within seconds, and gets the new one."""
ERROR_S = 2.0
"""Lifetime of an error in seconds: callers of the same answer wait once for a file that is held."""
REFRESH_AFTER_S = 1.0
"""Time for a browser on the same machine to draw the stale answer."""
MAX_ANSWERS = 128
"""Filters and periods that are kept; answers of older versions are the first to go."""
QUARTER_S = 900
"""Time alone changes what is usual so far, and days begin with a quarter of an hour in every zone."""


@dataclass(frozen=True)
class MetricsVersion:
    """What answers depend on: as long as all of these are the same, so are the answers."""

    folder: Path
    timezone: str
    runs: tuple[int, int, int]
    sends: tuple[int, ...]


@dataclass(frozen=True)
class _Key:
    version: MetricsVersion
    query: Callable[..., Any]
    arguments: tuple[Hashable, ...]
    quarter: int
    """Quarter of an hour since the epoch."""
    at: datetime = field(compare=False)


def metrics_version(folder: Path) -> MetricsVersion:
    """Returns the version of the metrics of that workspace now; not cached.

    Raises:
        PsttError: The workspace cannot be read.
    """
    with open_workspace(folder, log=False) as app:
        timezone, runs = app.timezone, app.ledger.history.state()
    return MetricsVersion(folder, timezone, runs, metrics_of(folder).state())


def metrics_answer(version: MetricsVersion, at: datetime, query: Callable[..., V], *arguments: Hashable) -> V:
    """Returns `query(figures, at, *arguments)`, from the cache where the same was asked of the same version.

    Args:
        version: What `metrics_version` returned.
        at: The time of the question, aware UTC. Within a quarter of an hour an answer to an earlier question is returned.
        query: A function of a module: it identifies the question. `figures` are `MetricsQueries`.
        arguments: The rest of the question, such as a filter and a number of days.

    Raises:
        PsttError: The metrics cannot be read.
    """
    answer: V = _answers.get(_Key(version, query, arguments, int(at.timestamp()) // QUARTER_S, at))
    return answer


def clear_answers() -> None:
    """Forgets all answers."""
    _answers.clear()


@lru_cache(maxsize=32)
def metrics_of(folder: Path) -> Metrics:
    """The metrics of a workspace. It remembers the listing of the spool's folder between calls and holds no file open."""
    from core.records.metrics import Metrics  # loads duckdb: the page is up before the warm-up thread needs it

    return Metrics(Workspace(folder))


class _Opening(threading.local):
    """The metrics that this thread has opened for several answers."""

    version: MetricsVersion | None = None
    """Set within `one_opening`."""
    figures: MetricsQueries | None = None
    """None: no answer had to be computed yet."""
    closing: ExitStack


_opening = _Opening()


@contextmanager
def one_opening(version: MetricsVersion) -> Iterator[None]:
    """Computes the answers that this thread asks for in the block with one opening: it takes as long as a question."""
    with ExitStack() as _opening.closing:
        _opening.version = version
        try:
            yield
        finally:
            _opening.version = _opening.figures = None


def _compute(key: _Key) -> Any:
    version = key.version
    if _opening.version != version:
        with metrics_of(version.folder).figures(version.timezone) as figures:
            return key.query(figures, key.at, *key.arguments)
    if _opening.figures is None:
        _opening.figures = _opening.closing.enter_context(metrics_of(version.folder).figures(version.timezone))
    return key.query(_opening.figures, key.at, *key.arguments)


_answers: SharedCache[_Key, Any] = SharedCache(
    _compute, fresh_s=FRESH_S, stale_s=STALE_S, max_keys=MAX_ANSWERS, error_s=ERROR_S, refresh_after_s=REFRESH_AFTER_S
)
