"""What the filters of overview, runs and calendar offer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from core import open_workspace
from ui import data
from ui.data.jobs import jobs_of
from ui.data.status import status_of

__all__ = ["FilterChoices", "filter_choices", "job_name"]

TTL_S = 20


@dataclass(frozen=True)
class FilterChoices:
    """The values of each filter."""

    jobs: dict[str, str]
    """Slug → name, including deleted jobs."""
    topics: list[str]
    clusters: list[str]
    has_runs: bool


def filter_choices() -> FilterChoices:
    """The values of each filter, up to 20 s old."""
    return _filter_choices(data.root())


def job_name(slug: str) -> str:
    """The name of a job, deleted or not, with its slug where two jobs have the same name; else what was given."""
    names = filter_choices().jobs
    name = names.get(slug, slug)
    return name if list(names.values()).count(name) < 2 else f"{name} ({slug})"


@st.cache_data(ttl=TTL_S, show_spinner=False, max_entries=32)
def _filter_choices(folder: Path) -> FilterChoices:
    with open_workspace(folder, log=False) as app:
        known = app.ledger.history.jobs()
        names = known | {job.slug: job.name for job in jobs_of(folder)[0]}
        topics = app.ledger.history.topics()
        clusters = [state.name for state in status_of(folder).clusters]
    return FilterChoices(dict(sorted(names.items(), key=lambda item: item[1])), topics, clusters, bool(known))
