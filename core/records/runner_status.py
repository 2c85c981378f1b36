"""The runner's heartbeat, and the connection checks of each Kafka cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import ClassVar, Literal

from core.clock import iso_utc
from core.records.rows import from_row
from core.records.store import StorePart

__all__ = ["BEAT_EVERY_S", "BrokerSample", "BrokerSamples", "BrokerState", "Heartbeats", "RunnerStatus"]

BEAT_EVERY_S = 5.0
SILENT_AFTER_S = 15.0
"""After three missing heartbeats the runner counts as dead."""
SAMPLES_KEPT = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class RunnerStatus:
    """One heartbeat of the runner."""

    host: str
    pid: int
    pid_started_at: float
    started_at: datetime
    beat_at: datetime
    version: str
    memory_bytes: int
    memory_share: float
    """Of the machine's memory, 0 to 1."""
    state: Literal["working", "stopping", "stopped"]
    jobs_loaded: int
    problems: tuple[Mapping[str, str], ...]
    """`where`, `text` and `instead` (what is used meanwhile) of each problem that the user should fix."""

    def is_alive(self, now: datetime) -> bool:
        """Returns whether the runner works and its last heartbeat is at most 15 seconds old."""
        return self.state != "stopped" and now - self.beat_at <= timedelta(seconds=SILENT_AFTER_S)


@dataclass(frozen=True, slots=True)
class BrokerSample:
    """One connection check of a cluster."""

    cluster: str
    at: datetime
    connected: bool
    latency_ms: float | None
    error: str | None


@dataclass(frozen=True, slots=True)
class BrokerState(BrokerSample):
    """The newest connection check of a cluster."""

    since: datetime
    """The first of the checks in a row that had the same result."""


class Heartbeats(StorePart):
    """The last heartbeat of the runner of one workspace."""

    sql_file: ClassVar[str] = "runner_status.sql"

    def write(self, status: RunnerStatus) -> None:
        """Writes a heartbeat over the one before."""
        row = asdict(status) | {"started_at": iso_utc(status.started_at), "beat_at": iso_utc(status.beat_at)}
        row["problems"] = json.dumps([dict(problem) for problem in status.problems], ensure_ascii=False)
        self._write("write_heartbeat", row)

    def newest(self) -> RunnerStatus | None:
        """Returns the last heartbeat; None where no runner has ever worked."""
        rows = self._rows("heartbeat")
        return from_row(RunnerStatus, rows[0]) if rows else None


class BrokerSamples(StorePart):
    """The connection checks of all clusters of one workspace."""

    sql_file: ClassVar[str] = "runner_status.sql"

    def add(self, sample: BrokerSample) -> None:
        """Writes a connection check, and deletes those older than 90 days."""
        row = asdict(sample) | {"at": iso_utc(sample.at), "connected": int(sample.connected)}
        with self._store.transaction() as db:
            db.execute(self._sql["insert_broker_sample"], row)
            db.execute(self._sql["prune_broker_samples"], {"before": iso_utc(sample.at - SAMPLES_KEPT)})

    def since(self, since: datetime, cluster: str | None = None) -> list[BrokerSample]:
        """Returns the checks of a cluster (None: of all) at or after `since`, oldest first."""
        rows = self._rows("broker_samples", {"since": iso_utc(since), "cluster": cluster})
        return [from_row(BrokerSample, row) for row in rows]

    def states(self) -> list[BrokerState]:
        """Returns the newest check of each cluster, and since when the result has been the same."""
        return [from_row(BrokerState, row) for row in self._rows("broker_states")]
