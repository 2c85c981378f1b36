"""Pages of runs, and all about one run."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from core.admin.log_reader import LogLine, newest_lines
from core.errors import PsttError
from core.files.rejects_csv import write_rejects
from core.model.run import Reject, Run
from core.records.known_since import KnownSince
from core.records.metrics_queries import SendFilter
from core.scheduler.next_attempt import NextAttempt, next_attempt
from ui import data
from ui.data.status import workspace_status
from ui.metrics_answers import metrics_of

__all__ = ["RunDetail", "RunsPage", "log_lines", "rejects", "rejects_csv", "run_detail", "runs_page"]

SHOWN_REJECTS = 1_000
LOG_LINES = 300


@dataclass(frozen=True)
class RunDetail:
    """One run with everything that is recorded about it."""

    run: Run
    family: list[Run]
    """Other runs of the same job and scheduled time."""
    histogram: list[dict[str, Any]]
    first_sent_at: datetime | None
    last_acknowledged_at: datetime | None
    reasons: list[tuple[str, str, str, int]]
    """Column, database type, reason, count."""
    known: KnownSince | None
    """From when on single sends are known, where its own are not any more."""
    figures_problem: str
    """Why there are no figures of its sends; empty where there are."""
    next_attempt: NextAttempt | None
    """When it is tried again; None: it is not."""


@dataclass(frozen=True)
class RunsPage:
    """One page of the runs, the newest first."""

    runs: list[Run]
    count: int
    """Number of runs on all pages."""
    by_hand: int
    """Messages that were sent by hand on the days asked for; they belong to no run."""
    by_day: int = 0
    """Messages of the days asked for that are rolled up: only counted by day, so that their runs are not among these."""
    known: KnownSince | None = None
    """From when on single sends are known, where there are such messages."""


def runs_page(
    send_filter: SendFilter,
    states: Sequence[str],
    days: tuple[date, date] | None,
    sent_on: tuple[date, date] | None,
    page: int,
    per_page: int,
) -> RunsPage:
    """Returns one page of the runs.

    Args:
        send_filter: Of which job, to which topic and cluster.
        states: Only these; empty: all.
        days: Scheduled on one of these, each in the time zone of its job; None: any.
        sent_on: Sent messages on one of these days of the workspace's zone, as the chart counts them; None: any.
        page: From 0.
        per_page: Number of runs on a page.

    Raises:
        PsttError: The sends cannot be read.
    """
    run_ids, by_hand, by_day, known = None, 0, 0, None
    if sent_on:
        with metrics_of(data.root()).figures(workspace_status().timezone) as figures:
            senders = figures.senders(*sent_on, send_filter)
            by_day = figures.counted_by_day(*sent_on, send_filter)
        known = metrics_of(data.root()).rolled_up.known_since() if by_day else None
        run_ids = [row["run_id"] for row in senders if row["job"]]
        by_hand = sum(row["messages"] for row in senders if not row["job"])
    with data.opened() as app:
        runs, count = app.ledger.history.page(
            job=send_filter.job,
            topic=send_filter.topic,
            cluster=send_filter.cluster,
            states=states,
            days=days,
            run_ids=run_ids,
            limit=per_page,
            offset=page * per_page,
        )
    return RunsPage(runs, count, by_hand, by_day, known)


def run_detail(run_id: str) -> RunDetail:
    """Returns everything that is recorded about one run.

    Raises:
        ConfigError: There is no such run.
    """
    with data.opened() as app:
        run = app.ledger.run(run_id)
        family = app.ledger.history.family(run)
        reasons = Counter((r.column, r.database_type, r.reason) for r in app.rejects(run)) if run.rejected else {}
        timezone = app.timezone
        again = next_attempt(app, run)
    histogram, span, known, problem = [], {}, None, ""
    try:
        rolled_up = metrics_of(data.root()).rolled_up
        known = rolled_up.known_since() if rolled_up.runs([run.run_id]) else None
        with metrics_of(data.root()).figures(timezone) as figures:
            histogram = figures.latency_histogram(run.run_id)
            span = figures.run_span(run.run_id, run.started_at, (run.finished_at or data.now()) + timedelta(minutes=1))
    except PsttError as error:
        problem = error.text
    return RunDetail(
        run=run,
        family=family,
        histogram=histogram,
        first_sent_at=span.get("first_sent_at"),
        last_acknowledged_at=span.get("last_acknowledged_at"),
        reasons=[(*key, count) for key, count in sorted(reasons.items(), key=lambda item: -item[1])],
        known=known,
        figures_problem=problem,
        next_attempt=again,
    )


def rejects(run_id: str, limit: int = SHOWN_REJECTS) -> list[Reject]:
    """The first rejected rows of a run."""
    with data.opened() as app:
        return list(islice(app.ledger.rejects.of_run(app.ledger.run(run_id).run_id), limit))


def rejects_csv(run_id: str) -> bytes:
    """All rejected rows of a run, as `python -m core rejects --csv` writes them."""
    with data.opened() as app, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rejects.csv"
        write_rejects(file, list(app.ledger.rejects.of_run(app.ledger.run(run_id).run_id)))
        return file.read_bytes()


def log_lines(run: Run) -> list[LogLine]:
    """The newest lines of the log that a run wrote."""
    since = run.started_at - timedelta(minutes=1)
    return newest_lines(data.workspace().logs_dir, run=run.run_id, since=since, limit=LOG_LINES)
