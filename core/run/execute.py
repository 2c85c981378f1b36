"""Executes a plan: opens source and publisher, and runs it; copies its sends where no runner does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from loguru import logger

from core.errors import ConfigError, LedgerBusy
from core.kafka import bootstrap_servers, open_publisher
from core.kafka.memory import MemoryPublisher
from core.kafka.sender import Sender
from core.model.connection import Cluster
from core.model.job import Job
from core.model.publisher import Publisher
from core.model.run import Plan, Reject, Run
from core.model.source import CANCEL_S, Source
from core.records.columns import ColumnMemory
from core.records.ledger import Ledger
from core.records.opened import OpenWorkspace
from core.records.run_progress import ProgressFiles
from core.run.cancellation import Stop
from core.run.drift import column_check
from core.run.exactly_once import ExactlyOnce
from core.run.executors import open_executor
from core.run.expectations import WEEKS, EarlierRun, expected_rows
from core.run.export import run_export
from core.run.incremental import with_window
from core.run.kept_messages import kept_messages
from core.run.live_progress import published
from core.run.metrics_update import update_metrics
from core.run.observation import NOT_OBSERVED, RunObserver
from core.run.partitioned import PartitionedRun, is_partitioned
from core.run.pipeline import RunMeans, run_job, to_verdict
from core.run.planning import WITHOUT_PARTS, cluster_key_of_plan, cluster_of_plan, plan_warnings
from core.run.row_reader import Progress, RunContext
from core.run.schemas import key_comparison, schemas_of
from core.run.settling import settle_before_run
from core.run.telemetry import observed
from core.run.topic_preparation import topic_preparer
from core.run.verify_run import verifier
from core.run.watchdog import watched
from core.sources import open_source
from core.workspace.identity import Identity, WorkspaceLocation, own_identity
from core.workspace.jobs import read_job_file
from core.workspace.locks import locked

__all__ = ["DryRun", "dry_run", "execute", "servers_of_plan"]

DRY_RUN_PARTITIONS = 6
"""Of the topic in a dry run, which contacts no cluster."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """The result of a dry run, of which nothing is stored."""

    run: Run
    rejects: list[Reject]
    """The first 100,000."""


def execute(
    opened: OpenWorkspace,
    plan: Plan,
    *,
    stop: Stop,
    now: Callable[[], datetime],
    progress: Progress | None = None,
) -> Run:
    """Runs a plan to its verdict.

    Args:
        opened: The workspace.
        plan: What is read and where it goes.
        stop: Ends the run when it is set.
        now: The clock, aware UTC.
        progress: Receives how far the run has come.

    Raises:
        ConfigError: A client refuses a setting.
        LedgerBusy: The same job is running already; for a run of a backfill: the same scheduled time.
        StorageFailed: The ledger cannot be written, so that there is no verdict.
    """
    with observed(opened, plan) as observer:
        with nullcontext() if plan.is_backfill else _only_run_of(opened, plan.job):
            if plan.scheduled_run_id is None:  # else the runner has
                _record_job_version(opened, plan.job, now())
            settle_before_run(opened, plan, now)
            plan = with_window(opened, plan, now())
            run = _run(opened, plan, opened.ledger, stop, now, progress, observer=observer)
        if plan.scheduled_run_id is None:  # else the runner copies
            update_metrics(opened, now())
    return run


def dry_run(
    opened: OpenWorkspace,
    plan: Plan,
    *,
    stop: Stop,
    now: Callable[[], datetime],
    progress: Progress | None = None,
) -> DryRun:
    """Reads all rows of a plan and makes every message, sends none, and records nothing in the workspace.

    Args and Raises: as `execute`.
    """
    with (
        _only_run_of(opened, plan.job),
        tempfile.TemporaryDirectory() as folder,
        Ledger(Path(folder) / "ledger.sqlite") as ledger,
    ):
        plan = with_window(opened, plan, now())
        run = _run(opened, plan, ledger, stop, now, progress, scratch=Path(folder))
        return DryRun(run, ledger.rejects.first_of_run(run.run_id))


def servers_of_plan(opened: OpenWorkspace, plan: Plan) -> str:
    """Returns the bootstrap servers of the cluster of a plan; for a mock broker the address that it got."""
    return bootstrap_servers(cluster_of_plan(opened, plan))


def _run(
    opened: OpenWorkspace,
    plan: Plan,
    ledger: Ledger,
    stop: Stop,
    now: Callable[[], datetime],
    progress: Progress | None,
    scratch: Path | None = None,
    observer: RunObserver = NOT_OBSERVED,
) -> Run:
    """Runs a plan; `scratch` is the folder that a dry run writes into instead of the workspace."""
    is_dry = scratch is not None
    database = opened.connections.database(plan.job.connection)
    with ExitStack() as stack:
        source = open_source(replace(database, allow_writes=False) if is_dry else database)
        source.statements_dir = None if is_dry else opened.workspace.statements_dir
        stack.callback(source.close)
        stop.on_stop(partial(source.cancel, min(CANCEL_S, opened.settings.PSTT_STOP_TIMEOUT_S / 3)))
        stack.enter_context(watched(ledger.file, plan.job, stop))
        memory = stack.enter_context(ColumnMemory(opened.workspace.ledger_file))
        check = column_check(plan.job, memory, plan.asked_by, now, dry_run=is_dry)
        context = RunContext(now, stop, progress, check, observer=observer)
        if not is_dry:
            context = replace(context, published=partial(published, files=ProgressFiles(opened.workspace)))
        plan = _with_expected_rows(opened, plan)
        with logger.contextualize(job=plan.job.slug):
            if plan.output is not None:
                run = run_export(plan, source, opened.workspace, ledger, context=context, folder=scratch)
            else:
                cluster = cluster_of_plan(opened, plan)
                with nullcontext() if is_dry else kept_messages(cluster):
                    run = _run_to_kafka(opened, plan, cluster, source, ledger, context, scratch)
            _log_verdict(run, dry_run=is_dry)
    observer.ended(run)
    return run


def _run_to_kafka(
    opened: OpenWorkspace,
    plan: Plan,
    cluster: Cluster,
    source: Source,
    ledger: Ledger,
    context: RunContext,
    scratch: Path | None,
) -> Run:
    context = replace(context, schemas=schemas_of(plan.job, cluster, registers=scratch is None))
    once = _exactly_once(opened, plan, context.now(), scratch)
    publisher = _publisher(opened, plan, cluster, once, dry_run=scratch is not None)
    if scratch is None:
        context = replace(context, prepare_topic=topic_preparer(cluster, plan))
    try:
        check = None
        if scratch is None and plan.job.verify != "none":
            check = verifier(
                cluster,
                opened.workspace.spool_dir,
                plan.job.verify,
                context.stop.is_set,
                context.now,
                keys=key_comparison(plan.job, cluster),
            )
        in_parts = scratch is None and is_partitioned(plan)
        means = RunMeans(
            plan=plan,
            publisher=publisher,
            ledger=ledger,
            spool_dir=scratch / "spool" if scratch else opened.workspace.spool_dir,
            context=context,
            once=once,
            verify=check,
            warnings=(*plan_warnings(plan), *((WITHOUT_PARTS,) if in_parts and cluster.mock_brokers else ())),
        )
        if in_parts and not cluster.mock_brokers:
            return _run_in_parts(opened, means, source)
        sender = Sender(publisher, max_retries=cluster.max_retries, backoff_ms=cluster.retry_backoff_ms)
        return run_job(means, source, sender)
    finally:
        publisher.close()


def _run_in_parts(opened: OpenWorkspace, means: RunMeans, source: Source) -> Run:
    """Runs a plan in parts; the publisher is for the questions of the coordinator, and sends nothing."""
    partitions = means.plan.job.partitions
    if partitions is None:
        raise ValueError("the plan has no parts")
    kafka_run = means.begin(
        PartitionedRun,
        Sender(means.publisher, max_retries=0, backoff_ms=0),
        state_dir=opened.workspace.state_dir,
        cluster_key=cluster_key_of_plan(opened, means.plan) or "",
        open_executor=partial(open_executor, opened),
    )
    with logger.contextualize(run=kafka_run.run_id):
        return to_verdict(kafka_run, lambda: kafka_run.send_parts(source, partitions))


def _publisher(
    opened: OpenWorkspace, plan: Plan, cluster: Cluster, once: ExactlyOnce | None, *, dry_run: bool
) -> Publisher:
    if dry_run:
        highest = plan.job.kafka_config.partition or 0
        return MemoryPublisher(
            keep=False,
            max_request_size_bytes=cluster.max_request_size_bytes,
            partitions=max(DRY_RUN_PARTITIONS, highest + 1),
        )
    return open_publisher(
        cluster,
        transactional_id=once.transactional_id if once else None,
        max_in_flight=opened.settings.PSTT_MAX_IN_FLIGHT_MESSAGES,
    )


def _exactly_once(opened: OpenWorkspace, plan: Plan, now: datetime, scratch: Path | None) -> ExactlyOnce | None:
    """Returns what a plan sends exactly once; None: at least once. A dry run shares nothing and needs no identity."""
    if plan.job.delivery != "exactly_once":
        return None
    if scratch:
        return ExactlyOnce(plan, Identity("", WorkspaceLocation("", "")), "", "", scratch / "pending")
    return ExactlyOnce(
        plan,
        own_identity(opened.workspace, now),
        opened.connections.environment_of(plan.job.connection),
        cluster_key_of_plan(opened, plan) or "",
        opened.workspace.pending_dir,
    )


def _only_run_of(opened: OpenWorkspace, job: Job) -> AbstractContextManager[None]:
    """Locks a job: it never runs twice at once, also not in two processes.

    Runs of backfills have no lock: `Ledger.start` keeps two runs of one scheduled time apart.
    """

    def busy() -> LedgerBusy:
        of_backfills = opened.ledger.history.running_backfill_times(job.slug)
        open_runs = opened.ledger.history.running(job.slug)
        running = next((run for run in open_runs if run.scheduled_at not in of_backfills), None)
        return LedgerBusy(
            f'job "{job.name}" is running already',
            why=f"run {running.run_id} since {running.started_at:%H:%M:%S} UTC" if running else "in another process",
            remedy="wait for it; python -m core runs shows its state",
        )

    return locked(opened.workspace.state_dir / "locks" / f"{job.slug}.lock", busy)


def _record_job_version(opened: OpenWorkspace, job: Job, now: datetime) -> None:
    """Records which version of a job's file is in force: from then on its scheduled times are due."""
    with suppress(ConfigError):  # a job without a file, or one that was broken since
        file = read_job_file(opened.workspace, job.slug)
        if file.job and opened.ledger.job_versions.in_force(job.slug).get(job.slug) != file.sha256:
            opened.ledger.job_versions.add(job.slug, file.sha256, file.text, now)


def _with_expected_rows(opened: OpenWorkspace, plan: Plan) -> Plan:
    """Returns the plan with the number of rows that is expected of it."""
    if plan.is_altered:
        return plan
    since = plan.scheduled_at - timedelta(weeks=WEEKS, days=1)
    earlier = [EarlierRun(*row) for row in opened.ledger.history.row_counts(plan.job.slug, since, plan.scheduled_at)]
    expected = expected_rows(plan.job, plan.scheduled_at, earlier)
    return replace(plan, expected=expected.rows, expected_why=expected.why) if expected else plan


def _log_verdict(run: Run, *, dry_run: bool) -> None:
    """Logs the verdict in one line; the terminal shows it itself."""
    entry = logger.bind(run=run.run_id, dry_run=dry_run)
    entry.info(
        "{} {}: {} read, {} {}, {} rejected, {} failed in {:.1f} s",
        run.job,
        run.state,
        run.rows_read,
        run.acknowledged,
        "written" if run.is_file else "acknowledged",
        run.rejected,
        run.failed,
        run.duration_s,
    )
    for warning in run.warnings:
        entry.warning("{}", warning)
    if run.error_text:
        entry.info("{}: {}", run.error_class, run.error_text)
