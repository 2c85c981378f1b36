"""Opens a workspace and wires its parts: the only module that knows all of them. It decides nothing itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from core.admin.logs import start_logging
from core.errors import StorageFailed
from core.model.connection import Cluster
from core.model.job import Job
from core.model.query import ParameterValue
from core.model.run import Plan, Reject, Run
from core.notify.outbox import Outbox
from core.records.ledger import Ledger
from core.run.cancellation import Stop
from core.run.destination import KafkaTarget
from core.run.planning import plan_run
from core.run.preview import Preview, preview_plan
from core.run.row_reader import Progress
from core.workspace.connections import Connections, load_connections
from core.workspace.jobs import find_job
from core.workspace.paths import Workspace
from core.workspace.settings import Settings, load_settings, read_env_file

if TYPE_CHECKING:
    from core.records.metrics import Metrics

__all__ = ["App", "open_workspace"]


class App:
    """One opened workspace. A part is opened when it is first used, and closed with the app.

    It is an `OpenWorkspace` (`core.records.opened`): what can be done with a workspace are functions that take one,
    such as `core.run.replay.replay_plan`, `core.scheduler.control.ask_for_run` or `core.admin.diagnosis.diagnose`.
    """

    def __init__(self, workspace: Workspace, environ: Mapping[str, str]) -> None:
        self.workspace = workspace
        self.environ = environ
        self.log_problem = ""
        """Why there is no log file; empty if there is one."""
        self._open = ExitStack()

    @classmethod
    @contextmanager
    def open(
        cls, option: Path | None = None, environ: Mapping[str, str] = os.environ, *, log: bool = True
    ) -> Iterator[App]:
        """Opens the workspace of `--workspace`, of PSTT_WORKSPACE, or of this folder, and starts its log.

        Args:
            option: The folder of `--workspace`.
            environ: The environment variables.
            log: False: the process logs already, and opens the workspace many times.

        Raises:
            ConfigError: The folder does not exist, or one of its settings is wrong.
        """
        app = cls(Workspace.find(option, environ), environ)
        with app._open:
            if log:
                app._start_logging()
            yield app

    def reopened(self) -> AbstractContextManager[App]:
        """Opens the same workspace once more, for another thread: an SQLite connection belongs to one thread."""
        return App.open(self.workspace.root, self.environ, log=False)

    def _start_logging(self) -> None:
        problem = start_logging(
            self.workspace.logs_dir,
            level=self.settings.KAFKA_LOG_LEVEL,
            retention_days=self.settings.PSTT_LOG_RETENTION_DAYS,
            language=self.settings.PSTT_LANGUAGE,
        )
        if problem:
            self.log_problem = problem
            logger.warning(problem)

    @cached_property
    def settings(self) -> Settings:
        """Every setting with its origin."""
        return load_settings(self.workspace, self.environ)

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """What a reference `env:NAME` may name: the environment, then `.env`."""
        return {name: value for name, (value, _) in read_env_file(self.workspace.env_file).items()} | dict(self.environ)

    @cached_property
    def connections(self) -> Connections:
        """connections.json."""
        return load_connections(self.workspace, self.settings, self.environ)

    @property
    def timezone(self) -> str:
        """The IANA time zone of the workspace."""
        return self.settings.PSTT_TIMEZONE

    @cached_property
    def ledger(self) -> Ledger:
        """Everything in the ledger file; runs whose process is gone are marked on opening."""
        ledger = self._open.enter_context(Ledger(self.workspace.ledger_file))
        with suppress(StorageFailed):  # on a full disk they are marked later; the next writer reports it
            ledger.mark_interrupted(datetime.now(UTC))
        return ledger

    @cached_property
    def outbox(self) -> Outbox:
        """Incidents, and messages that wait to be sent."""
        return self._open.enter_context(Outbox(self.workspace.ledger_file))

    @cached_property
    def metrics(self) -> Metrics:
        """The sends, as metrics.duckdb has them."""
        from core.records.metrics import Metrics  # loads duckdb

        return Metrics(self.workspace, self.timezone)

    def cluster(self, name: str | None = None) -> Cluster:
        """Returns a cluster of connections.json.

        Args:
            name: Its key; None: that of `default_environment`, or of the KAFKA_* settings if there are no clusters.

        Raises:
            ConfigError: There is no such cluster, or its settings contradict each other.
        """
        return self.connections.cluster(name, self.settings)

    def job(self, text: str) -> Job:
        """Returns the job with this file name or name.

        Raises:
            ConfigError: There is none, or its file is wrong.
        """
        return find_job(self.workspace, text)

    def rejects(self, run: Run) -> list[Reject]:
        """Returns the first 100,000 rejects of a run."""
        return self.ledger.rejects.first_of_run(run.run_id)

    def plan(
        self,
        job: Job,
        *,
        now: datetime,
        at: datetime | None = None,
        params: Mapping[str, ParameterValue] | None = None,
        asked_by: str = "",
        target: KafkaTarget | None = None,
    ) -> Plan:
        """Decides everything about a run; see `core.run.planning.plan_run`."""
        return plan_run(self, job, now=now, at=at, params=params, asked_by=asked_by, target=target)

    def preview(self, plan: Plan, *, rows: int, timeout_s: float | None = None) -> Preview:
        """Returns the messages that a plan would send first; see `core.run.preview.preview_plan`."""
        return preview_plan(self, plan, rows=rows, timeout_s=timeout_s)

    def execute(self, plan: Plan, *, stop: Stop, now: Callable[[], datetime], progress: Progress | None = None) -> Run:
        """Runs a plan to its verdict; see `core.run.execute.execute`."""
        from core.run.execute import execute  # loads pyarrow

        return execute(self, plan, stop=stop, now=now, progress=progress)


def open_workspace(folder: str | Path, *, log: bool = True) -> AbstractContextManager[App]:
    """Opens a workspace for a notebook or another program.

    Args:
        folder: The workspace.
        log: False: the process logs already, and opens the workspace many times.

    Returns:
        A context manager that gives the `App`: its `job`, `plan`, `preview`, `execute`, `ledger`, `metrics`, `cluster`.
    """
    return App.open(Path(folder), log=log)
