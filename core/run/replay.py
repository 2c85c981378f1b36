"""Where a run is sent again: to its own topic and cluster, unless the user chooses those that its job has now."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from core.errors import ConfigError
from core.model.job import Job
from core.model.run import Plan, Run
from core.records.opened import OpenWorkspace
from core.run.destination import KafkaTarget, cluster_of_run, is_same_destination, target_of_job, was_sent_to
from core.run.incremental import window_of_run
from core.run.known_sends import require_known
from core.run.planning import cluster_of_plan, plan_run
from core.workspace.jobs import NoSuchJob, read_job_file

__all__ = ["ReplayDestination", "ReplayOptions", "replay_options", "replay_plan"]

ReplayDestination = Literal["run", "job"]
"""`run`: where the run was sent; `job`: where its job sends now."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Where a run can be sent again."""

    run: Run
    job: Job
    own: KafkaTarget | None
    """Where it was sent; None: it wrote a file or never began, or that cluster is gone."""
    own_problem: ConfigError | None
    of_job: KafkaTarget | None
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

    def notes(self, to: ReplayDestination) -> list[str]:
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


def replay_plan(
    opened: OpenWorkspace,
    prefix: str,
    *,
    rejects_only: bool,
    keys: Sequence[str] = (),
    asked_by: str,
    job: Job | None = None,
    to: ReplayDestination = "run",
) -> Plan:
    """Plans the repetition of a run: its scheduled time and parameters, its topic and cluster, the job as it is now.

    Args:
        opened: The workspace.
        prefix: The run's id, or its beginning.
        rejects_only: Leaves out what was acknowledged, where the run was sent or where this plan sends.
        keys: Only the rows with one of these keys; none: all rows.
        asked_by: Who asked for it, for the ledger.
        job: The job as the runner knows it; None: as it is on disk.
        to: `job`: to the topic and cluster that the job has now.

    Raises:
        ConfigError: There is no such run, its job was deleted, its cluster is not set up any more, `rejects_only` needs
            single sends that are rolled up, or `keys` are asked of a run whose rows have not all arrived.
    """
    run = opened.ledger.run(prefix)
    root = run.of_run or run.run_id
    family = [r for r in (run, *opened.ledger.history.family(run)) if root in (r.run_id, r.of_run)]
    # They are resolved already: a brace in them is plain text and no template.
    parameters = {name: value.replace("{", "{{").replace("}", "}}") for name, value in run.parameters.items()}
    job = replace(job or _job_of_run(opened, run), parameters=parameters)
    target = _own_target(opened, run, job) if to == "run" else None
    plan = plan_run(opened, job, now=run.scheduled_at, at=run.scheduled_at, asked_by=asked_by, target=target)
    if (rejects_only or keys) and plan.output is not None:
        option = "--rejects-only" if rejects_only else "--key"
        raise ConfigError(
            f'job "{job.name}" writes a file, which is whole or not at all',
            remedy=f"leave {option} out: the file is written anew",
        )
    only = _encoded(keys)
    if only:
        _require_arrived(family, root)
    skip = _acknowledged_ids(opened, run, family, plan) if rejects_only else None
    # Until something has arrived this is one more attempt at the same messages; after that it sends them once more.
    arrived = sum(r.acknowledged > 0 and (r.kind == "replay" or r.run_id == root) for r in family)
    some = ("r" if rejects_only else "") + (f"k{_digest(only)}" if only else "")
    repeat = f"{root}.{arrived}{some}" if arrived or only else ""
    window = window_of_run(opened.ledger, root, job)
    return replace(
        plan,
        kind="replay",
        is_ad_hoc=run.is_ad_hoc,
        of_run=root,
        skip_ids=skip,
        only_keys=only,
        repeat=repeat,
        window=window,
    )


def replay_options(opened: OpenWorkspace, prefix: str) -> ReplayOptions:
    """Returns where a run can be sent again; may ask clusters for their ids.

    Raises:
        ConfigError: There is no such run, or its job was deleted.
    """
    run = opened.ledger.run(prefix)
    job = _job_of_run(opened, run)
    own, of_job, problems = None, None, dict[str, ConfigError]()
    try:
        own = _own_target(opened, run, job)
    except ConfigError as error:
        problems["run"] = error
    try:
        if job.export_format == "kafka":
            of_job = target_of_job(opened, job)
    except ConfigError as error:
        problems["job"] = error
    return ReplayOptions(run, job, own, problems.get("run"), of_job, problems.get("job"))


def _job_of_run(opened: OpenWorkspace, run: Run) -> Job:
    """Returns the job of a run as it is on disk.

    Raises:
        ConfigError: It was deleted, or its file is wrong.
    """
    try:
        return read_job_file(opened.workspace, run.job).job
    except NoSuchJob:
        raise ConfigError(
            f"run {run.run_id} cannot be sent again",
            why=f'its job "{run.job}" has been deleted',
            remedy=f"make the job again as queries/{run.job}.job.json; the run names its query and parameters",
        ) from None


def _own_target(opened: OpenWorkspace, run: Run, job: Job) -> KafkaTarget | None:
    """Returns the topic and the cluster that a run was sent to; None: it has none, so that its job decides.

    Args:
        opened: The workspace.
        run: The run.
        job: Its job as it is now.

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
    return None if writes_file else KafkaTarget(cluster_of_run(opened, run), run.topic)


def _require_arrived(family: Sequence[Run], root: str) -> None:
    """Refuses some keys of a run whose rows have not all arrived: their success would be taken for that of its time.

    Raises:
        ConfigError: They have not.
    """
    if not any(run.kind == "job" and run.state == "succeeded" for run in family):
        raise ConfigError(
            f"single rows of run {root} cannot be sent again",
            why="not all of its rows have arrived",
            remedy=f"python -m core replay {root} --rejects-only sends what is missing",
        )


def _encoded(keys: Sequence[str]) -> frozenset[bytes]:
    """Returns the keys as UTF-8.

    Raises:
        ConfigError: One is empty or no text.
    """
    wrong = ConfigError(
        "a key to send again is empty or no text", remedy="name each key with --key, as `find` shows it"
    )
    if not all(keys):
        raise wrong
    try:
        return frozenset(key.encode() for key in keys)
    except UnicodeEncodeError:  # a shell may pass any bytes
        raise wrong from None


def _digest(keys: frozenset[bytes]) -> str:
    return hashlib.sha256(b"\0".join(sorted(keys))).hexdigest()[:16]


def _acknowledged_ids(opened: OpenWorkspace, run: Run, family: Sequence[Run], plan: Plan) -> frozenset[bytes]:
    """Returns the message ids that this run and its replays have sent, where it was sent or where the plan sends."""
    ids, target = opened.ledger.history.cluster_ids(), KafkaTarget(cluster_of_plan(opened, plan), plan.topic)
    run_ids = [
        r.run_id for r in family if r.run_id == run.run_id or was_sent_to(r, target, ids) or is_same_destination(r, run)
    ]
    require_known(
        opened,
        run_ids,
        f"run {run.run_id} cannot be sent again without what was acknowledged",
        remedy=f"python -m core replay {run.run_id} sends all of its rows once more",
    )
    return opened.metrics.acknowledged_ids(run_ids)
