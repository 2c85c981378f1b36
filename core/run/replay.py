"""Where a run is sent again: to its own topic and cluster, unless the user chooses those that its job has now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from core.errors import ConfigError
from core.kafka.cluster_lookup import cluster_of, is_same_cluster, unknown_cluster
from core.model.connection import Cluster, Destination
from core.model.job import Job
from core.model.run import Run

if TYPE_CHECKING:
    from core.workspace.connections import Connections
    from core.workspace.settings import Settings

__all__ = ["Choice", "ReplayTarget", "ReplayTo", "is_same_place", "job_place", "own_place", "was_sent_to"]

ReplayTo = Literal["run", "job"]
"""`run`: where the run was sent; `job`: where its job sends now."""


@dataclass(frozen=True, slots=True)
class ReplayTarget:
    """A topic of a cluster."""

    cluster: Cluster
    topic: str

    @property
    def text(self) -> str:
        """For people."""
        return f"{self.topic} on {self.cluster.name}"


@dataclass(frozen=True, slots=True)
class Choice:
    """Where a run can be sent again."""

    run: Run
    job: Job
    own: ReplayTarget | None
    """Where it was sent; None: it wrote a file or never began, or that cluster is gone."""
    own_problem: ConfigError | None
    of_job: ReplayTarget | None
    """Where its job sends now; None: it writes a file, or its cluster cannot be used."""
    job_problem: ConfigError | None

    @property
    def differs(self) -> bool:
        """Whether there is something to choose between."""
        return bool(self.own_problem or self.own) and self.own != self.of_job

    @property
    def reads_otherwise(self) -> bool:
        """Whether the job has another query or another connection now: its rows may be others."""
        return (self.job.query, self.job.connection) != (self.run.query, self.run.connection)

    def notes(self, to: ReplayTo) -> list[str]:
        """What the user should know about it, for the command line."""
        found = []
        if self.differs and to == "run" and self.of_job:
            found.append(f"its job sends to {self.of_job.text} now: --to job sends there")
        elif self.differs and to == "job" and self.own:
            found.append(f"the run itself was sent to {self.own.text}")
        if self.reads_otherwise:
            found.append(
                f"its job reads {self.job.query} from {self.job.connection} now, "
                f"the run read {self.run.query} from {self.run.connection}"
            )
        return found


def own_place(
    run: Run,
    job: Job,
    known: tuple[Sequence[Cluster], Sequence[ConfigError]],
    ids: Mapping[str, str],
    ask: Callable[[Cluster], str],
) -> ReplayTarget | None:
    """The topic and the cluster that a run was sent to; its cluster may have another name or address now.

    Args:
        run: The run.
        job: Its job as it is now.
        known: The clusters that are set up now, and why others cannot be used.
        ids: As in `cluster_of`.
        ask: As in `cluster_of`.

    Returns:
        None: it has no place of its own, so that its job decides.

    Raises:
        ConfigError: The cluster is not set up any more, or the run wrote a file and the job sends messages, or the reverse.
    """
    if not run.sql_text:
        return None
    writes_file = job.export_format != "kafka"
    if writes_file != (not run.topic):
        was, now = (f"sent to {run.topic}", "writes a file") if run.topic else ("written into a file", "sends to Kafka")
        raise ConfigError(
            f"run {run.run_id} was {was}, and its job {now} now",
            remedy="choose the job's own place (--to job), or give the job back its export_format",
        )
    if writes_file:
        return None
    sent_to = _destination(run)
    cluster = cluster_of(sent_to, known[0], ids, ask)
    if cluster is None:
        raise unknown_cluster(sent_to, known[1], what=f"run {run.run_id}")
    return ReplayTarget(cluster, run.topic)


def job_place(job: Job, connections: Connections, settings: Settings) -> ReplayTarget:
    """Where a job that sends to Kafka does so now.

    Raises:
        ConfigError: Its connection or its cluster is not set up, or cannot be used.
    """
    cluster = connections.cluster_for(job, settings)
    return ReplayTarget(cluster, job.kafka_config.topic or cluster.default_topic)


def was_sent_to(run: Run, place: ReplayTarget, ids: Mapping[str, str]) -> bool:
    """Whether a run was sent to that topic of that cluster."""
    servers = place.cluster.bootstrap_servers
    there = Destination(place.cluster.name, ids.get(servers, ""), servers)
    return run.topic == place.topic and is_same_cluster(_destination(run), there)


def is_same_place(one: Run, other: Run) -> bool:
    """Whether both were sent to one topic of one cluster."""
    return one.topic == other.topic and is_same_cluster(_destination(one), _destination(other))


def _destination(run: Run) -> Destination:
    return Destination(run.cluster, run.cluster_id, run.bootstrap_servers)
