"""Builds the runner of a workspace with what runs beside it, and lets it work until it is asked to stop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from core.model.job import Job
from core.notify.wiring import MailDelivery, NotifyingWorkspace, RuleEvaluation
from core.run.cancellation import Stop
from core.run.end_notes import EndNote
from core.run.pending_transactions import remove_leftovers
from core.run.telemetry import report_lost_ends
from core.scheduler.broker_health import look, used_clusters
from core.scheduler.dry_runs import DryRuns
from core.scheduler.metrics_copies import MetricsCopies
from core.scheduler.periodic import PeriodicTask
from core.scheduler.processes import Processes
from core.scheduler.runner import Runner
from core.scheduler.runner_lock import single_runner
from core.version import __version__
from core.workspace.process import begin_process

__all__ = ["run_runner"]

TRANSACTIONS_EVERY_S = 30.0
ALERTS_EVERY_S = 10.0
MAIL_EVERY_S = 2.0
LINEAGE_EVERY_S = 30.0


def run_runner(
    opened: NotifyingWorkspace, stop: Stop, now: Callable[[], datetime], *, accept_clock: bool = False, note: str = ""
) -> None:
    """Runs the runner of this workspace until it is asked to stop.

    Args:
        opened: The workspace.
        stop: Ends the runner when it is set.
        now: The clock, aware UTC.
        accept_clock: The clock is right, although it is behind what was seen before.
        note: A problem known at the start, such as a log folder that cannot be written.

    Raises:
        RunnerBusy: There is one.
        ConfigError: A setting is wrong, or the clock is far behind what was seen before.
    """
    folder, settings = opened.workspace.root, opened.settings
    with single_runner(opened.workspace, opened.ledger):
        runner = Runner(
            opened.workspace,
            settings,
            opened.ledger,
            Processes(folder),
            dry_runs=DryRuns(folder, opened.ledger, begin_process, settings.PSTT_WORKERS),
            copies=MetricsCopies(opened.workspace, opened.ledger, begin_process),
            now=now,
            version=__version__,
            note=note,
        )
        remove_leftovers(opened.workspace, opened.ledger)
        runner.background_tasks = _background_tasks(opened, runner.jobs, now)
        runner.run(stop, accept_clock=accept_clock)


def _background_tasks(
    opened: NotifyingWorkspace, jobs: Callable[[], list[Job]], now: Callable[[], datetime]
) -> list[PeriodicTask]:
    """Returns what runs beside the runs, each in its own thread: a slow mail server delays nothing but mail."""

    def check_brokers() -> None:
        with opened.reopened() as own:  # its connections.json may have changed
            clusters, samples = used_clusters(jobs(), own.connections, own.settings, now())
            samples += [look(cluster, now()) for cluster in clusters]
            for sample in samples:
                own.ledger.broker_samples.add(sample)

    def settle() -> None:
        if any(opened.workspace.pending_dir.glob("*.json")):
            from core.run.settling import settle_transactions  # loads pyarrow: 100 ms and 30 MB

            with opened.reopened() as own:
                settle_transactions(own, now)

    def report_ends() -> None:
        if any(EndNote.all_of(opened.workspace)):
            with opened.reopened() as own:
                report_lost_ends(own)

    rules, mail = RuleEvaluation(opened, jobs, now), MailDelivery(opened, now)
    return [
        PeriodicTask("broker health", opened.settings.KAFKA_HEALTH_CHECK_INTERVAL_SEC, check_brokers),
        PeriodicTask("transactions", TRANSACTIONS_EVERY_S, settle),
        PeriodicTask("lineage", LINEAGE_EVERY_S, report_ends),
        PeriodicTask("alerts", ALERTS_EVERY_S, rules, rules.close),
        PeriodicTask("mail", MAIL_EVERY_S, mail, mail.close),
    ]
