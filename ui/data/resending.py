"""What sending again would do: a range of days, one scheduled time, one run."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import streamlit as st

from core import open_workspace
from core.model.job import Job
from core.model.run import Run
from core.run.replay import ReplayOptions, replay_options
from core.scheduler import backfills, commands
from ui import data

__all__ = ["RangeCount", "count_range", "replay_options_of", "sent_before"]

CLUSTERS_TTL_S = 20.0
"""Seconds for which the cluster ids that were read are believed."""


@dataclass(frozen=True)
class RangeCount:
    """What sending a range of days again will do."""

    scheduled_runs: int
    succeeded_before: int
    planned_before: int
    messages: int | None
    """Estimated from the last successful runs; None: there were none. Rows of files, where the job writes files."""
    is_file: bool = False


def count_range(slug: str, first: date, last: date, *, again: bool) -> RangeCount:
    """How many runs and messages a backfill of these days will make.

    Raises:
        ConfigError: The range is empty or too long, or there is no such job.
    """
    with data.opened() as app:
        job = app.job(slug)
        wanted, succeeded, planned = backfills.wanted_times(app.ledger, job, first, last, now=data.now(), again=again)
        good, _ = app.ledger.history.page(job=slug, states=["succeeded"], limit=30)
    mean = sum(run.acknowledged for run in good) / len(good) if good else None
    rows = None if mean is None else round(mean * len(wanted))
    return RangeCount(len(wanted), succeeded, planned, rows, is_file=job.export_format != "kafka")


def sent_before(job: Job, at: datetime) -> Run | None:
    """The run that already sent this scheduled time, which running it again would send twice; None: there is none."""
    with data.opened() as app:
        return commands.sent_before(app.ledger, job, at, with_ad_hoc=True)


def replay_options_of(run_id: str) -> ReplayOptions:
    """Where a run can be sent again. Cached, because a dialog draws it often and clusters are asked for their ids.

    Raises:
        ConfigError: There is no such run, or its job was deleted.
    """
    return _replay_options(data.root(), run_id)


@st.cache_resource(ttl=CLUSTERS_TTL_S, show_spinner=False, max_entries=16)  # cache_data would copy its secrets
def _replay_options(folder: Path, run_id: str) -> ReplayOptions:
    with open_workspace(folder, log=False) as app:
        return replay_options(app, run_id)


data.on_clear(_replay_options.clear)
