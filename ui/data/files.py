"""The Excel and CSV files that runs have written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import streamlit as st

from core import open_workspace
from core.errors import ConfigError
from core.model.run import Run, RunFile
from core.records.metrics_queries import SendFilter
from core.workspace.paths import Workspace
from ui import data
from ui.data.jobs import jobs_of

__all__ = ["WrittenFile", "content", "files_of", "newest_files"]

RUNS_OF_A_JOB = 3
"""The newest runs of a job among which its newest file is searched: the very last may have failed."""


@dataclass(frozen=True)
class WrittenFile:
    """A file of a run, and whether it is still there."""

    run: Run
    file: RunFile
    state: Literal["there", "changed", "gone"]
    """`changed`: another file of another size has its name, such as that of a later run."""

    @property
    def name(self) -> str:
        """Its name without the folders."""
        return self.file.path.rsplit("/", 1)[-1]


def newest_files(send_filter: SendFilter) -> list[WrittenFile]:
    """The newest files of each job that writes files, the newest first; none where only a topic or cluster is shown."""
    if send_filter.topic or send_filter.cluster:
        return []
    found = _newest_files(data.root())
    return [one for one in found if send_filter.job in (None, one.run.job)]


@st.cache_data(ttl=data.CHECK_S, show_spinner=False, max_entries=32)
def _newest_files(folder: Path) -> list[WrittenFile]:
    with open_workspace(folder, log=False) as app:
        runs = [
            next((run for run in app.ledger.history.newest(job.slug, RUNS_OF_A_JOB) if run.files), None)
            for job in jobs_of(folder)[0]
            if job.export_format != "kafka"
        ]
    found = [one for run in runs if run is not None for one in _files(folder, run)]
    return sorted(found, key=lambda one: one.run.started_at, reverse=True)


def files_of(run: Run) -> list[WrittenFile]:
    """The files that a run has written."""
    return _files(data.root(), run)


def _files(folder: Path, run: Run) -> list[WrittenFile]:
    return [WrittenFile(run, file, _state(folder / file.path, file)) for file in run.files]


def _state(path: Path, file: RunFile) -> Literal["there", "changed", "gone"]:
    try:
        return "there" if path.stat().st_size == file.size_bytes else "changed"
    except OSError:
        return "gone"


def content(run_id: str, path: str) -> bytes:
    """The content of a file that a run has written.

    Args:
        run_id: The run.
        path: As the run recorded it; no other file is read.

    Raises:
        ConfigError: The run has written no such file, or it is not there any more.
    """
    with data.opened() as app:
        known = {file.path for file in app.ledger.run(run_id).files}
    exports = Workspace(data.root()).exports_dir.resolve()
    file = (data.root() / path).resolve()
    if path not in known or not file.is_relative_to(exports):
        raise ConfigError(f"run {run_id} has written no file {path}", remedy="open the run again")
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", why=str(error.strerror), remedy="write it again") from None
