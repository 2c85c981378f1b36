"""From the user's files to objects that work together: the only place that knows every class."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as clock_time
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict
from zoneinfo import ZoneInfo

from core.calendar.cron import previous_scheduled_time
from core.errors import ConfigError, LedgerBusy, PsttError, StorageFailed
from core.model.check_result import CheckResult
from core.model.connection import Cluster, Destination
from core.model.job import Job, KafkaConfig, VerifyMode
from core.model.publisher import Publisher
from core.model.query import ParameterValue
from core.model.run import Plan, Run, Verification
from core.model.source import CANCEL_S, Column, Reading
from core.records.ledger import Ledger
from core.workspace.paths import Workspace

if TYPE_CHECKING:
    from core.kafka.cluster_rights import ClusterRights
    from core.model.run import Reject
    from core.notify.daily_report import DailyReport
    from core.notify.evaluator import AlertRules
    from core.notify.outbox import Channel, Outbox
    from core.notify.smtp import DeliveryResult, MailServer
    from core.records.ledger import Ledger
    from core.records.metrics import Metrics
    from core.records.scheduled_runs import ScheduledRun
    from core.run.arrival import SentRange
    from core.run.cancellation import Stop
    from core.run.exactly_once import ExactlyOnce
    from core.run.preview import Preview
    from core.run.replay import Choice, ReplayTarget, ReplayTo
    from core.run.row_reader import LookAtColumns, Progress
    from core.scheduler.runner import BackgroundTask
    from core.workspace.settings import Connections, Settings
from core.run.planning import bound, overridden

__all__ = ["App", "open_workspace"]
STOP_SLACK_S = 20.0
"""What a runner may take beyond PSTT_STOP_TIMEOUT_S: to kill what does not end, and to say so."""
ALERTS_EVERY_S = 10.0
MAIL_EVERY_S = 2.0
TRANSACTIONS_EVERY_S = 30.0
SETTLING_S = 180.0
"""What another process may take to ask a slow cluster about one transaction."""
MOST_BYTES = 2**31
"""A row of a file has no limit of its own."""
SHOWN_REJECTS = 100_000
"""Rejects that are read to be grouped by reason; the rest is only counted."""


class _Beside(TypedDict):
    """What every run is given beside its plan and its source."""

    now: Callable[[], datetime]
    stop: Stop
    progress: Progress | None
    look_at_columns: LookAtColumns


class App:
    """One workspace, opened. What is expensive is opened when it is first needed and closed with the app."""

    def __init__(self, workspace: Workspace, environ: Mapping[str, str]) -> None:
        self.workspace = workspace
        self.environ = environ
        self.log_problem = ""
        """Why there is no log file; empty where there is one."""
        self.dry_rejects: list[Reject] = []
        """The first rejects of the last dry run, of which nothing else is kept."""
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
            ConfigError: The folder is not there, or one of its settings is wrong.
        """
        app = cls(Workspace.find(option, environ), environ)
        with app._open:
            if log:
                app.start_logging()
            yield app

    def start_logging(self) -> None:
        """Logs into the workspace from here on."""
        from loguru import logger

        from core.admin.logs import start_logging

        problem = start_logging(
            self.workspace.logs_dir,
            level=self.settings.KAFKA_LOG_LEVEL,
            retention_days=self.settings.PSTT_LOG_RETENTION_DAYS,
        )
        if problem:
            self.log_problem = problem
            logger.warning(problem)

    @cached_property
    def settings(self) -> Settings:
        """Every setting with its origin."""
        from core.workspace.settings import load_settings

        return load_settings(self.workspace, self.environ)

    @cached_property
    def connections(self) -> Connections:
        """connections.json."""
        from core.workspace.settings import load_connections

        return load_connections(self.workspace, self.settings, self.environ)

    @property
    def timezone(self) -> str:
        """The workspace's own zone."""
        return self.settings.PSTT_TIMEZONE

    def cluster(self, name: str | None = None) -> Cluster:
        """A cluster of connections.json; None: that of `default_environment`; without clusters, of the KAFKA_* settings."""
        return self.connections.cluster(name, self.settings)

    def job(self, text: str) -> Job:
        """The job called so, by file name or name."""
        from core.workspace.jobs import find_job

        return find_job(self.workspace, text)

    def stranded(self, jobs: Iterable[Job]) -> dict[str, ConfigError]:
        """Slug → why a job can only fail: its connection or cluster is not set up, or connections.json is wrong."""
        found = {}
        for job in jobs:
            try:
                self.connections.require(job)
            except ConfigError as error:
                found[job.slug] = error
        return found

    @cached_property
    def ledger(self) -> Ledger:
        """Runs, scheduled runs, requests, heartbeat, audit; runs whose process is gone are marked on opening."""
        ledger = self._open.enter_context(Ledger(self.workspace.ledger_file))
        with suppress(StorageFailed):  # on a full disk they are marked later; whoever writes more is told
            ledger.mark_interrupted(datetime.now(UTC))
        return ledger

    @cached_property
    def metrics(self) -> Metrics:
        """The sends."""
        from core.records.metrics import Metrics

        return Metrics(self.workspace, self.timezone)

    def rejects(self, run: Run) -> list[Reject]:
        """The first rejects of a run, to be grouped by reason."""
        return list(islice(self.ledger.rejects(run.run_id), SHOWN_REJECTS))

    def expected_rows(self, plan: Plan) -> int | None:
        """Rows of the last green run of this job."""
        green = (run for run in self.ledger.runs(plan.job.slug, 20) if run.state == "succeeded" and run.kind == "job")
        return next((run.rows_read for run in green), None)

    def plan(
        self,
        job: Job,
        *,
        now: datetime,
        at: datetime | None = None,
        params: Mapping[str, ParameterValue] | None = None,
        asked_by: str = "",
        place: ReplayTarget | None = None,
    ) -> Plan:
        """Decides everything about a run and opens nothing.

        Args:
            job: The job.
            now: Aware.
            at: Scheduled time, naive in the job's zone; None: the newest fire of its calendar, or now.
            params: Values or templates that outrank the job's own.
            asked_by: Who wants it, for the ledger.
            place: Where it is sent; None: the job decides.
            place: Where it is sent; None: the job decides.

        Raises:
            ConfigError: Something in the job, its query or its connection is wrong; nothing was contacted.
        """
        if job.export_format == "kafka" and not job.kafka_config.enabled:
            raise ConfigError(
                f'job "{job.name}" does not send to Kafka',
                why="kafka_config.enabled is false",
                remedy='set "kafka_config": {"enabled": true}',
            )
        zone = ZoneInfo(job.timezone)
        if at is not None:
            scheduled_at = at.replace(tzinfo=zone) if at.tzinfo is None else at
        else:
            scheduled_at = previous_scheduled_time(job, now) or now.replace(microsecond=0)
        scheduled_at = scheduled_at.astimezone(zone)
        connection = self.connections.database(job.connection)
        query = bound(
            self.workspace.query_file(job.query),
            connection.db_type,
            overridden(job.parameters, params or {}),
            scheduled_at,
            job.timezone,
            allow_writes=connection.allow_writes,
        )
        plan = Plan(
            job=job,
            query=query,
            cluster="",
            topic="",
            scheduled_at=scheduled_at,
            batch_size=self.settings.KAFKA_MESSAGE_BATCH_SIZE,
            fetch_rows=self.settings.PSTT_FETCH_ROWS,
            window_start=previous_scheduled_time(job, scheduled_at, before=True),
            asked_by=asked_by,
            stop_timeout_s=self.settings.PSTT_STOP_TIMEOUT_S,
            control_topic=self.settings.PSTT_CONTROL_TOPIC,
            log_payload=self.settings.KAFKA_LOG_PAYLOAD,
            is_altered=bool(params),
        )
        return self._to_file(plan) if job.export_format != "kafka" else self._to_topic(plan, place)

    def _to_topic(self, plan: Plan, place: ReplayTarget | None) -> Plan:
        from core.run.replay import job_place

        chosen = place or job_place(plan.job, self.connections, self.settings)
        return replace(
            plan,
            cluster=chosen.cluster.name,
            to_cluster=place.cluster if place else None,
            topic=chosen.topic,
            batch_size=plan.job.kafka_config.batch_size or chosen.cluster.message_batch_size,
        )

    def _cluster_of(self, plan: Plan) -> Cluster:
        return plan.to_cluster or self.connections.cluster_for(plan.job, self.settings)

    def _cluster_key(self, plan: Plan) -> str | None:
        if plan.to_cluster is None:
            return self.connections.cluster_key_for(plan.job)
        return self.connections.key_of(plan.to_cluster, self.settings)

    def _to_file(self, plan: Plan) -> Plan:
        """A file needs no cluster and no key; its name is decided before anything is opened."""
        from core.files.names import output_name

        environment = self.connections.environment_of(plan.job.connection)
        name = output_name(plan.job, plan.query.values, plan.scheduled_at, environment)
        self.workspace.inside(name, self.workspace.exports_dir)
        return replace(plan, output=name, job=replace(plan.job, kafka_config=KafkaConfig(include_metadata=False)))

    def replay_plan(
        self, prefix: str, *, rejects_only: bool, asked_by: str, job: Job | None = None, to: ReplayTo = "run"
    ) -> Plan:
        """The plan that repeats a run: its scheduled time and its parameters, its topic and cluster, the job as it is now.

        Args:
            prefix: The run's id, or its beginning.
            rejects_only: Leaves out what was acknowledged, where the run was sent or where this plan sends.
            asked_by: Who wants it, for the ledger.
            job: The job as the runner knows it; None: as it is on disk.
            to: `job`: to the topic and cluster that the job has now.

        Raises:
            ConfigError: There is no such run, its job was deleted, or its cluster is not set up any more.
        """
        run = self.ledger.run(prefix)
        root = run.of_run or run.run_id
        family = [r for r in (run, *self.ledger.family(run)) if root in (r.run_id, r.of_run)]
        # They are resolved already: a brace in them is plain text and no template.
        parameters = {name: value.replace("{", "{{").replace("}", "}}") for name, value in run.parameters.items()}
        job = replace(job or self.job_of(run), parameters=parameters)
        place = self.own_place(run, job) if to == "run" else None
        plan = self.plan(job, now=run.scheduled_at, at=run.scheduled_at, asked_by=asked_by, place=place)
        skip = None
        if rejects_only and plan.output is not None:
            raise ConfigError(
                f'job "{job.name}" writes a file, which is whole or not at all',
                remedy="leave --rejects-only out: the file is written anew",
            )
        if rejects_only:
            skip = self._arrived(run, family, plan)
        # As long as nothing has arrived this is one more attempt at the same; after that it is wanted once more.
        arrived = sum(r.acknowledged > 0 and (r.kind == "replay" or r.run_id == root) for r in family)
        repeat = f"{root}.{arrived}{'r' if rejects_only else ''}" if arrived else ""
        return replace(plan, kind="replay", of_run=root, skip_ids=skip, repeat=repeat)

    def job_of(self, run: Run) -> Job:
        """The job of a run as it is on disk.

        Raises:
            ConfigError: It was deleted, or its file is wrong.
        """
        from core.workspace.jobs import NoSuchJob, read_job_file

        try:
            return read_job_file(self.workspace, run.job).job
        except NoSuchJob:
            raise ConfigError(
                f"run {run.run_id} cannot be sent again",
                why=f'its job "{run.job}" has been deleted',
                remedy=f"make the job again as queries/{run.job}.job.json; the run names its query and parameters",
            ) from None

    def own_place(self, run: Run, job: Job) -> ReplayTarget | None:
        """Where a run was sent, as it is set up now; may ask clusters for their ids. See `core.run.replay.own_place`."""
        from core.kafka.record_reader import cluster_id
        from core.run.replay import own_place

        return own_place(
            run, job, self.connections.known_clusters(self.settings), self.ledger.cluster_ids(), cluster_id
        )

    def replay_choice(self, prefix: str) -> Choice:
        """Where a run can be sent again; may ask clusters for their ids.

        Raises:
            ConfigError: There is no such run, or its job was deleted.
        """
        from core.run.replay import Choice, job_place

        run = self.ledger.run(prefix)
        job = self.job_of(run)
        own, of_job, problems = None, None, dict[str, ConfigError]()
        try:
            own = self.own_place(run, job)
        except ConfigError as error:
            problems["run"] = error
        try:
            if job.export_format == "kafka":
                of_job = job_place(job, self.connections, self.settings)
        except ConfigError as error:
            problems["job"] = error
        return Choice(run, job, own, problems.get("run"), of_job, problems.get("job"))

    def _arrived(self, run: Run, family: Sequence[Run], plan: Plan) -> frozenset[bytes]:
        """Ids that this run and its replays have acknowledged, where the run was sent or where the plan sends."""
        from core.run.replay import ReplayTarget, is_same_place, was_sent_to

        ids, goal = self.ledger.cluster_ids(), ReplayTarget(self._cluster_of(plan), plan.topic)
        return self.metrics.acknowledged_ids(
            [r.run_id for r in family if r.run_id == run.run_id or was_sent_to(r, goal, ids) or is_same_place(r, run)]
        )

    def execute(
        self,
        plan: Plan,
        *,
        stop: Stop,
        now: Callable[[], datetime],
        progress: Progress | None = None,
        dry_run: bool = False,
    ) -> Run:
        """Runs a plan and copies its sends into metrics.duckdb.

        Raises:
            ConfigError: A client refuses a setting.
            LedgerBusy: The same job is running already.
        """
        from loguru import logger

        from core.kafka.sender import Sender
        from core.run.export import run_export
        from core.run.pipeline import run_job
        from core.run.watchdog import watched
        from core.sources import open_source

        with ExitStack() as stack:
            stack.enter_context(self._alone(plan.job))
            if plan.scheduled_run_id is None and not dry_run:  # else the runner has
                self._notice(plan.job, now())
            ledger, spool_dir = self.ledger, self.workspace.spool_dir
            if dry_run:
                aside = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                ledger, spool_dir = stack.enter_context(Ledger(aside / "ledger.sqlite")), aside / "spool"
            else:
                self._clear_up(plan.job, now)
            database = self.connections.database(plan.job.connection)
            source = open_source(replace(database, allow_writes=False) if dry_run else database)
            stack.callback(source.close)
            stop.on_stop(partial(source.cancel, min(CANCEL_S, self.settings.PSTT_STOP_TIMEOUT_S / 3)))
            stack.enter_context(watched(ledger.file, plan.job, stop))
            look_at_columns = stack.enter_context(self._columns(plan, now, dry_run=dry_run))
            beside = _Beside(now=now, stop=stop, progress=progress, look_at_columns=look_at_columns)
            plan = self._expecting(plan)
            with logger.contextualize(job=plan.job.slug):
                if plan.output is not None:
                    folder = spool_dir.parent if dry_run else None
                    run = run_export(plan, source, self.workspace, ledger, folder=folder, **beside)
                else:
                    cluster = self._cluster_of(plan)
                    once = self._once(plan, now(), spool_dir.parent if dry_run else None)
                    publisher = self._publisher(cluster, once, dry_run=dry_run)
                    stack.callback(publisher.close)
                    sender = Sender(publisher, max_retries=cluster.max_retries, backoff_ms=cluster.retry_backoff_ms)
                    check = None
                    if not dry_run and plan.job.verify != "none":
                        check = self._verifier(cluster, plan.job.verify, stop.is_set, now)
                    run = run_job(plan, source, publisher, sender, ledger, spool_dir, once=once, verify=check, **beside)
                _log_verdict(run, dry_run=dry_run)
            if dry_run:
                self.dry_rejects = list(islice(ledger.rejects(run.run_id), SHOWN_REJECTS))
        if not dry_run:
            self._sync()
        return run

    def verify(self, prefix: str, *, should_stop: Callable[[], bool], now: Callable[[], datetime]) -> Verification:
        """Reads a run's messages back from the topic, compares each with what was sent, and keeps the answer.

        Raises:
            ConfigError: It has not ended, or acknowledged nothing, or its cluster is not in connections.json any more.
            BrokerUnavailable, NotAuthorised: The topic cannot be read.
        """
        from core.run.arrival import SentRange

        run = self.ledger.run(prefix)
        if run.finished_at is None or not run.topic or not run.acknowledged:
            why = "it has not ended" if run.finished_at is None else "it acknowledged no message"
            raise ConfigError(f"run {run.run_id} cannot be verified", why=why if run.topic else "it wrote a file")
        if not run.sent:
            raise ConfigError(
                f"run {run.run_id} sent nothing itself",
                why="an earlier attempt had sent its rows exactly once",
                remedy=f"python -m core verify {run.of_run}" if run.of_run else "",
            )
        try:
            cluster = self.cluster_of_run(run)
        except ImportError:
            raise _no_reader() from None
        check = self._verifier(cluster, "full", should_stop, now)
        found = check(SentRange(run.run_id, run.topic, run.cluster_id, run.topic_id, run.partitions, run.acknowledged))
        self.ledger.add_verification(found)
        return found

    def cluster_of_run(self, run: Run) -> Cluster:
        """The cluster that a run sent to, whatever it is called now.

        Raises:
            ConfigError: It is none of those that are set up.
        """
        from core.kafka.cluster_lookup import unknown_cluster

        sent_to = Destination(run.cluster, run.cluster_id, run.bootstrap_servers)
        found = self.cluster_of(sent_to)
        if found is None:
            problems = self.connections.known_clusters(self.settings)[1]
            raise unknown_cluster(sent_to, problems, what=f"run {run.run_id}")
        return found

    def cluster_of(self, sent_to: Destination) -> Cluster | None:
        """The cluster to which messages were sent; asks those that it may be for their ids. None: it is none of them."""
        from core.kafka.cluster_lookup import cluster_of
        from core.kafka.record_reader import cluster_id

        clusters, _ = self.connections.known_clusters(self.settings)
        return cluster_of(sent_to, clusters, self.ledger.cluster_ids(), cluster_id)

    def _verifier(
        self, cluster: Cluster, mode: VerifyMode, should_stop: Callable[[], bool], now: Callable[[], datetime]
    ) -> Callable[[SentRange], Verification]:
        """What reads a run back."""
        try:
            from core.run.verification import verify
        except ImportError:
            raise _no_reader() from None
        spool_dir = self.workspace.spool_dir
        return lambda sent: verify(sent, cluster, spool_dir, mode, now=now, should_stop=should_stop)

    def _notice(self, job: Job, now: datetime) -> None:
        """Writes down which version of a job's file is in force: from then on its scheduled times are due."""
        from core.workspace.jobs import read_job_file

        with suppress(ConfigError):  # a job without a file, or one that was broken since
            file = read_job_file(self.workspace, job.slug)
            if file.job and self.ledger.job_versions.in_force(job.slug).get(job.slug) != file.sha256:
                self.ledger.job_versions.add(job.slug, file.sha256, file.text, now)

    @contextmanager
    def _columns(
        self, plan: Plan, now: Callable[[], datetime], *, dry_run: bool
    ) -> Iterator[Callable[[Sequence[Column]], None]]:
        """What a run calls with the columns of its result."""
        from core.records.columns import ColumnMemory, watcher

        with ColumnMemory(self.workspace.ledger_file) as memory:
            yield watcher(plan.job, memory, plan.asked_by, now, dry_run=dry_run)

    def _expecting(self, plan: Plan) -> Plan:
        """The plan with the number of rows that is expected of it."""
        from core.run.expectations import WEEKS, RunsOf, expected_rows

        if plan.is_altered:
            return plan
        since = plan.scheduled_at - timedelta(weeks=WEEKS, days=1)
        earlier = [RunsOf(*row) for row in self.ledger.row_counts(plan.job.slug, since, plan.scheduled_at)]
        expected = expected_rows(plan.job, plan.scheduled_at, earlier)
        return replace(plan, expected=expected.rows, expected_why=expected.why) if expected else plan

    def accept_columns(self, job: Job, who: str, now: datetime) -> str:
        """The columns that a run was stopped for are right from now on; the difference, in words.

        Raises:
            ConfigError: There is nothing to accept.
        """
        from core.records.columns import ColumnMemory, drift_between

        with ColumnMemory(self.workspace.ledger_file) as memory:
            before, after = memory.accept(job, who, now)
        drift = drift_between(before, after).text
        self.ledger.audit.add(who, "accept-columns", f"job {job.slug}", now, before=before, after=after)
        return drift

    @contextmanager
    def reading(self, plan: Plan) -> Iterator[Reading]:
        """The result of a plan's query, for looking only."""
        from core.sources import open_source

        source = open_source(replace(self.connections.database(plan.job.connection), allow_writes=False))
        try:
            with source.read(plan.query.steps, fetch_rows=plan.fetch_rows) as reading:
                yield reading
        finally:
            source.close()

    def preview(self, plan: Plan, *, rows: int, timeout_s: float | None = None) -> Preview:
        """The exact messages that a plan would send first.

        Args:
            plan: What would be read.
            rows: At most.
            timeout_s: How long the statement may take, where the connection does not allow less.
        """
        from core.run.preview import preview
        from core.sources import open_source

        limit = MOST_BYTES
        if plan.output is None:
            limit = self._cluster_of(plan).max_request_size_bytes
        database = self.connections.database(plan.job.connection)
        bounds = [bound for bound in (database.statement_timeout_s, timeout_s) if bound]
        source = open_source(replace(database, allow_writes=False, statement_timeout_s=min(bounds, default=None)))
        try:
            return preview(
                plan,
                source,
                rows=rows,
                now=lambda: datetime.now(UTC),
                max_request_size_bytes=limit,
            )
        finally:
            source.close()

    def send(self, topic: str, key: str, value: str, *, cluster: str | None, now: datetime) -> dict[str, Any]:
        """Sends one message by hand; it is written into the spool like every other send."""
        import secrets

        from core.kafka.service import KafkaService
        from core.records.spool import Spool

        chosen = self.cluster(cluster)
        spool = Spool(self.workspace.spool_dir, run_id=secrets.token_hex(5), job="")
        try:
            with KafkaService(chosen, recorder=spool.record) as service:
                result = service.send_message(topic, key, value)
                spool.destination = service.destination(topic)
        finally:
            spool.close()
            self._sync()
        return {
            "topic": topic,
            "partition": result.partition,
            "offset": result.offset,
            "latency_ms": round(result.latency_ms, 1),
            "run_id": spool.run_id,
        }

    def examine(self, now: Callable[[], datetime]) -> Iterator[CheckResult]:
        """What `doctor` finds, line by line."""
        from core.admin.doctor import examine
        from core.kafka import open_publisher
        from core.sources import open_source
        from core.workspace.jobs import load_jobs

        jobs, _broken = load_jobs(self.workspace)
        yield from examine(
            self.workspace,
            self.settings,
            self.connections,
            jobs,
            open_source=open_source,
            open_publisher=open_publisher,
            ask_rights=_ask_rights,
            now=now,
        )
        yield from self._mail_facts(now())

    def examine_database(self, name: str) -> Iterator[CheckResult]:
        """What `doctor` finds about one database."""
        from core.admin.doctor import examine_database
        from core.sources import open_source

        return examine_database(self.connections, name, open_source)

    def examine_cluster(self, name: str | None) -> Iterator[CheckResult]:
        """What `doctor` finds about one cluster, with the topics that jobs send to.

        Raises:
            ConfigError: There is no such cluster, or its settings contradict each other.
        """
        from core.admin.doctor import examine_cluster
        from core.kafka import open_publisher
        from core.workspace.jobs import load_jobs

        cluster = self.cluster(name)
        wanted: dict[str, Job] = {}
        for job in load_jobs(self.workspace)[0]:
            if job.export_format == "kafka" and job.kafka_config.enabled:
                try:
                    same = self.connections.cluster_for(job, self.settings) == cluster
                except ConfigError:  # told by `check`, and where its own cluster is looked at
                    continue
                if same:
                    wanted.setdefault(job.kafka_config.topic or cluster.default_topic, job)
        return examine_cluster(
            cluster,
            wanted,
            open_publisher=open_publisher,
            ask_rights=_ask_rights,
            now=lambda: datetime.now(UTC),
        )

    def _mail_facts(self, now: datetime) -> Iterator[CheckResult]:
        from core.notify.channels import mail_fact
        from core.workspace.settings import addresses

        try:
            yield mail_fact(self.mail_server(), addresses(self.settings.PSTT_MAIL_TO))
        except ConfigError as error:
            yield CheckResult("fail", "mail", error.text, error.remedy)
        if self.workspace.ledger_file.exists():
            for entry in self.outbox.given_up_since(now - timedelta(days=1)):
                whom = ", ".join(entry.recipients) or entry.channel
                yield CheckResult("warn", "mail", f'"{entry.subject}" never reached {whom}: {entry.last_error}')

    @cached_property
    def variables(self) -> Mapping[str, str]:
        """What `env:NAME` may name: the environment, and `.env` beneath it."""
        from core.workspace.settings import read_env_file

        return {name: value for name, (value, _) in read_env_file(self.workspace.env_file).items()} | dict(self.environ)

    @cached_property
    def outbox(self) -> Outbox:
        """Episodes, and messages on their way."""
        from core.notify.outbox import Outbox

        return self._open.enter_context(Outbox(self.workspace.ledger_file))

    def mail_server(self) -> MailServer | None:
        """Where mail is handed over; None where none is set up."""
        from core.notify.smtp import mail_server

        return mail_server(self.settings, self.variables, self.workspace.root)

    def doors(self) -> Callable[[str], Channel]:
        """How each channel is opened."""
        from core.notify.channels import doors
        from core.notify.rules import load_alerts

        return doors(
            self.mail_server,
            lambda: load_alerts(self.workspace.alerts_file).channels,
            self.variables,
            self.workspace.root,
        )

    def health(self, now: datetime) -> Iterator[CheckResult]:
        """The dead man's check, line by line."""
        from core.admin.health import health
        from core.workspace.jobs import load_jobs

        found, broken = load_jobs(self.workspace)
        problems = [error.text for error in broken]
        stranded = self.stranded(found)
        jobs = [job for job in found if job.slug not in stranded]
        yield from (
            CheckResult("fail", f"job {job.slug}", f"cannot run: {stranded[job.slug].text}", stranded[job.slug].remedy)
            for job in found
            if job.enabled and job.slug in stranded
        )
        yield from health(self.ledger, self.outbox, jobs, problems, now, self.settings.PSTT_HEALTH_GRACE_S)

    def receipt(self, day: date | None, now: datetime) -> DailyReport:
        """The receipt of what was scheduled on a day; None: of today so far."""
        from core.notify.daily_report import make_daily_report
        from core.workspace.jobs import load_jobs

        today = now.astimezone(ZoneInfo(self.timezone)).date()
        if day is not None and day > today:
            raise ConfigError(f"{day} is still to come")
        jobs, _broken = load_jobs(self.workspace)
        return make_daily_report(self.ledger, self.outbox, jobs, day or today, now, self.timezone)

    def test_mail(self, to: Sequence[str], now: datetime) -> DeliveryResult:
        """Sends a test mail at once, past the outbox; what the server said to each recipient.

        Raises:
            ConfigError: No mail is set up, or nobody is named.
            NotDelivered: The server cannot be reached, is not trusted, or refuses.
        """
        from core.notify.alert_messages import test_notification
        from core.notify.smtp import Mail, connect
        from core.workspace.settings import addresses

        server = self.mail_server()
        if server is None:
            raise ConfigError("no mail server is set up", remedy="set PSTT_SMTP_HOST and PSTT_MAIL_FROM")
        recipients = tuple(to) or addresses(self.settings.PSTT_MAIL_TO)
        if not recipients:
            raise ConfigError("nobody is named", remedy="write --to ADDRESS, or set PSTT_MAIL_TO")
        notice = test_notification(server.place, now, self.timezone)
        message_id = f"<pstt-test-{now:%Y%m%d%H%M%S%f}@{server.sender.partition('@')[2]}>"
        with connect(server) as link:
            return link.send(Mail(recipients, notice.subject_line, notice.text, notice.html, now, message_id))

    def _alert_chores(self, jobs: Callable[[], list[Job]], now: Callable[[], datetime]) -> list[BackgroundTask]:
        """Rules are looked at in one thread, mail leaves in another: a slow server delays nothing but mail."""
        from core.notify.outbox import Outbox
        from core.scheduler.periodic import PeriodicTask

        looking, sending = ExitStack(), ExitStack()
        rules: list[AlertRules] = []
        outboxes: list[Outbox] = []

        def look() -> None:
            if not rules:
                rules.append(self._alert_rules(jobs, looking))
            rules[0].evaluate(now())

        def deliver() -> None:
            if not outboxes:
                outboxes.append(sending.enter_context(Outbox(self.workspace.ledger_file)))
            outboxes[0].deliver(now, self.doors())

        return [
            PeriodicTask("alerts", ALERTS_EVERY_S, look, looking.close),
            PeriodicTask("mail", MAIL_EVERY_S, deliver, sending.close),
        ]

    def _alert_rules(self, jobs: Callable[[], list[Job]], stack: ExitStack) -> AlertRules:
        """The rules, over stores of the calling thread."""
        from core.notify.evaluator import AlertRules, Recipients
        from core.notify.outbox import Outbox
        from core.records.ledger import Ledger
        from core.workspace.settings import addresses

        file, settings = self.workspace.ledger_file, self.settings
        told = Recipients(
            addresses(settings.PSTT_MAIL_TO) if settings.PSTT_SMTP_HOST else (),
            addresses(settings.PSTT_RECEIPT_TO) if settings.PSTT_SMTP_HOST else (),
            clock_time.fromisoformat(settings.PSTT_RECEIPT_AT),
            self.timezone,
        )
        return AlertRules(
            stack.enter_context(Outbox(file)),
            stack.enter_context(Ledger(file)),
            rules_file=self.workspace.alerts_file,
            spool_dir=self.workspace.spool_dir,
            jobs=jobs,
            told=told,
        )

    def work(self, stop: Stop, now: Callable[[], datetime], *, accept_clock: bool = False) -> None:
        """Is the runner of this workspace until it is asked to stop.

        Raises:
            RunnerBusy: There is one.
            ConfigError: A setting is wrong, or the clock is far behind what was seen before.
        """
        from core.run.pending import sweep
        from core.scheduler.dry_runs import DryRuns
        from core.scheduler.processes import Processes, begin_process
        from core.scheduler.runner import Runner, alone
        from core.version import __version__

        with alone(self.workspace, self.ledger):
            runner = Runner(
                self.workspace,
                self.settings,
                self.ledger,
                Processes(self.workspace.root),
                dry_runs=DryRuns(self.workspace.root, self.ledger, begin_process, self.settings.PSTT_WORKERS),
                now=now,
                version=__version__,
                note=self.log_problem,
            )
            sweep(self.workspace, self.ledger)
            runner.chores = self._chores(runner.jobs, now)
            runner.run(stop, accept_clock=accept_clock)

    def stop_runner(self, who: str, now: Callable[[], datetime]) -> str:
        """Asks the runner to end and waits for it; what happened, in words.

        Raises:
            LedgerBusy: It did not end in its time.
        """
        beat = self.ledger.heartbeats.newest()
        if beat is None or not beat.is_alive(now()):
            return "no runner works here"
        self.ledger.requests.submit("stop", asked_by=who, now=now())
        deadline = time.monotonic() + self.settings.PSTT_STOP_TIMEOUT_S + STOP_SLACK_S
        while time.monotonic() < deadline:
            beat = self.ledger.heartbeats.newest()
            if beat is None or not beat.is_alive(now()):
                return "the runner has ended"
            time.sleep(0.1)
        raise LedgerBusy("the runner has not ended in its time", remedy=f"look at pid {beat.pid} on {beat.host}")

    def ask_for_run(
        self,
        text: str,
        *,
        at: datetime | None,
        params: Mapping[str, ParameterValue],
        who: str,
        now: Callable[[], datetime],
        dry_run: bool = False,
        again: bool = False,
    ) -> dict[str, Any]:
        """Asks the runner to run a job, or to try it without sending; the request's number, its first answer and run.

        Raises:
            AlreadySent: The scheduled time has succeeded, and `again` is not given.
        """
        from core.scheduler.commands import require_unsent

        job = self.job(text)
        if at is not None and at.tzinfo is None:
            at = at.replace(tzinfo=ZoneInfo(job.timezone))
        if not dry_run and (due := at or previous_scheduled_time(job, now())) is not None:
            require_unsent(self.ledger, job, due, again=again)
        args = {"at": at.isoformat() if at else None, "parameters": dict(params), "again": again}
        number = self.ledger.requests.submit(
            "dry_run" if dry_run else "run", job=job.slug, args=args, asked_by=who, now=now()
        )
        if note := self.runner_note(now()):
            answer = f"asked as request {number}; {note[0]}"
            return {"request_id": number, "state": "waiting", "answer": answer, "run_id": None}
        deadline = time.monotonic() + 3
        while (request := self.ledger.requests.get(number)).state == "waiting" and time.monotonic() < deadline:
            time.sleep(0.05)
        if request.state == "refused":
            raise ConfigError(f"the runner refused: {request.answer}")
        answer = request.answer or "the runner has not taken it"
        return {
            "request_id": number,
            "state": request.state,
            "answer": answer,
            "run_id": self.ledger.scheduled_runs.run_of_request(number),
        }

    def past_scheduled_runs(
        self, now: datetime, days: float, job: str | None = None
    ) -> list[tuple[ScheduledRun, Run | None]]:
        """Fires whose time was in the last days, or that wait since before, each with its newest run; oldest first."""
        scheduled_times = self.ledger.scheduled_runs.between(now - timedelta(days=days), now, job)
        known = {scheduled_run.scheduled_run_id for scheduled_run in scheduled_times}
        waiting = [
            f
            for f in self.ledger.scheduled_runs.unfinished()
            if f.scheduled_run_id not in known and job in (None, f.job)
        ]
        return [(f, self.ledger.run(f.run_id) if f.run_id else None) for f in [*waiting, *scheduled_times]]

    def cancel(self, text: str, *, who: str, now: datetime) -> str:
        """Asks a run to end (its id), or all of a job that runs or waits; what was done, in words."""
        from core.scheduler.commands import cancel, cancel_job

        try:
            return cancel(self.ledger, text, who=who, now=now)
        except ConfigError as error:
            try:
                slug = self.job(text).slug
            except ConfigError:
                raise error from None
        return cancel_job(self.ledger, slug, who=who, now=now)

    def runner_note(self, now: datetime) -> list[str]:
        """What to say where no runner works; empty where one does."""
        beat = self.ledger.heartbeats.newest()
        alive = beat is not None and beat.is_alive(now)
        return [] if alive else ["no runner works here: python -m core runner starts one"]

    def coming_scheduled_times(self, now: datetime, days: float) -> tuple[list[Job], list[tuple[datetime, str]]]:
        """The enabled jobs, and their fires of the next days: (time in the job's zone, slug), by time."""
        from core.calendar.cron import scheduled_times
        from core.workspace.jobs import load_jobs

        jobs = [job for job in load_jobs(self.workspace)[0] if job.enabled]
        until = now + timedelta(days=days)
        found = [
            (moment.astimezone(ZoneInfo(job.timezone)), job.slug)
            for job in jobs
            for moment in scheduled_times(job, now, until)
        ]
        return jobs, sorted(found)

    def _chores(self, jobs: Callable[[], list[Job]], now: Callable[[], datetime]) -> list[BackgroundTask]:
        """What goes on beside the runs. Each opens the ledger in its own thread, since a `Store` belongs to one."""
        from core.scheduler.periodic import PeriodicTask

        def look_at_brokers() -> None:
            from core.admin.broker_health import look, used_clusters
            from core.records.ledger import Ledger
            from core.workspace.settings import load_connections

            connections = load_connections(self.workspace, self.settings, self.environ)
            clusters, samples = used_clusters(jobs(), connections, self.settings, now())
            samples += [look(cluster, now()) for cluster in clusters]
            with Ledger(self.workspace.ledger_file) as ledger:
                for sample in samples:
                    ledger.broker_samples.add(sample)

        def settle_transactions() -> None:
            if any(self.workspace.pending_dir.glob("*.json")):
                with App.open(self.workspace.root, self.environ, log=False) as app:
                    app.settle_transactions(now)

        brokers = PeriodicTask("broker health", self.settings.KAFKA_HEALTH_CHECK_INTERVAL_SEC, look_at_brokers)
        transactions = PeriodicTask("transactions", TRANSACTIONS_EVERY_S, settle_transactions)
        return [brokers, transactions, *self._alert_chores(jobs, now)]

    def bootstrap_servers(self, plan: Plan) -> str:
        """Where the cluster of a plan is reached; for a mock broker the address it was given."""
        from core.kafka import bootstrap_servers

        return bootstrap_servers(self._cluster_of(plan))

    def _publisher(self, cluster: Cluster, once: ExactlyOnce | None, *, dry_run: bool) -> Publisher:
        from core.kafka import open_publisher
        from core.kafka.memory import MemoryPublisher

        if dry_run:
            return MemoryPublisher(keep=False, max_request_size_bytes=cluster.max_request_size_bytes)
        return open_publisher(
            cluster,
            transactional_id=once.transactional_id if once else None,
            max_in_flight=self.settings.PSTT_MAX_IN_FLIGHT_MESSAGES,
        )

    def _once(self, plan: Plan, now: datetime, dry_folder: Path | None) -> ExactlyOnce | None:
        """What a plan sends exactly once; None: at least once. A dry run shares nothing, so it needs no identity."""
        from core.run.exactly_once import ExactlyOnce
        from core.workspace.identity import Identity, WorkspaceLocation, own_identity

        if plan.job.delivery != "exactly_once":
            return None
        if dry_folder:
            return ExactlyOnce(plan, Identity("", WorkspaceLocation("", "")), "", "", dry_folder / "pending")
        return ExactlyOnce(
            plan,
            own_identity(self.workspace, now),
            self.connections.environment_of(plan.job.connection),
            self._cluster_key(plan) or "",
            self.workspace.pending_dir,
        )

    def settle_transactions(self, now: Callable[[], datetime]) -> None:
        """Finds out what became of the transactions of killed runs, and copies what had arrived.

        Raises:
            PsttError: Why one of them cannot be settled now; the others are.
        """
        from core.run.pending import unsettled

        self.ledger.mark_interrupted(now())
        problems: list[PsttError] = []
        for slug in sorted({note.job for note in unsettled(self.workspace.pending_dir)}):
            # A run that goes on would be fenced; it has asked about earlier ones itself.
            if not any(run.state == "running" for run in self.ledger.runs(slug, 5)):
                problems += self._settle(slug, now, wait_s=0)
        self._sync()
        if problems:
            raise problems[0]

    def _settle(self, slug: str, now: Callable[[], datetime], *, wait_s: float) -> list[PsttError]:
        """The same for one job; why some could not be settled.

        Args:
            slug: The job.
            now: The clock.
            wait_s: How long another process may be at it.
        """
        from filelock import FileLock, Timeout
        from loguru import logger

        from core.kafka import open_publisher
        from core.run.pending import unsettled
        from core.run.settling import settle

        place, problems = self.workspace, list[PsttError]()
        folder = place.state_dir / "locks" / "transactions"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(folder / f"{slug}.lock", timeout=wait_s):
                for note in unsettled(place.pending_dir):
                    run = self.ledger.known(note.run)
                    if note.job != slug or (run is not None and run.state == "running"):
                        continue
                    try:
                        cluster = self.connections.cluster_at(note.cluster or None, self.settings)
                        with closing(open_publisher(cluster, transactional_id=note.transactional_id)) as publisher:
                            committed = settle(note, place.pending_dir, place.spool_dir, self.ledger, publisher)
                    except PsttError as error:
                        problems.append(error)
                    else:
                        word = "committed" if committed else "not committed"
                        logger.info("the transaction of run {} was {}", note.run, word)
        except Timeout:
            logger.info("another process asks about earlier transactions of job {}", slug)
        return problems

    def _clear_up(self, job: Job, now: Callable[[], datetime]) -> None:
        """Sees to what killed runs left behind, before a run begins; what stays is in nobody's way."""
        from loguru import logger

        from core.run.pending import sweep, unsettled

        for file in sweep(self.workspace, self.ledger):
            logger.info("{}, left by a run that was killed, is removed", file.name)
        if any(note.job == job.slug for note in unsettled(self.workspace.pending_dir)):
            self.ledger.mark_interrupted(now())
            for problem in self._settle(job.slug, now, wait_s=SETTLING_S):
                logger.warning("{}", problem)

    @contextmanager
    def _alone(self, job: Job) -> Iterator[None]:
        """One job never runs beside itself, also not in two processes."""
        from filelock import FileLock, Timeout

        folder = self.workspace.state_dir / "locks"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f"{job.slug}.lock", timeout=0):
                yield
        except Timeout:
            running = next((run for run in self.ledger.runs(job.slug, 5) if run.state == "running"), None)
            raise LedgerBusy(
                f'job "{job.name}" is running already',
                why=f"run {running.run_id} since {running.started_at:%H:%M:%S} UTC"
                if running
                else "in another process",
                remedy="wait for it; python -m core runs shows its state",
            ) from None
        except OSError as error:
            raise StorageFailed(f"{folder} cannot be written", why=error.strerror or str(error)) from None

    def _sync(self) -> None:
        """Copies the spool; whatever hinders that, the run's verdict stands."""
        from loguru import logger

        try:
            synced = self.metrics.sync()
        except (PsttError, OSError) as error:
            logger.warning("metrics.duckdb was not updated: {}", error)
            return
        if synced.state == "rebuilt":
            logger.warning(synced.note)
        elif synced.note:
            logger.info(synced.note)


def open_workspace(folder: str | Path, *, log: bool = True) -> AbstractContextManager[App]:
    """Opens a workspace for a notebook or another program.

    Args:
        folder: The workspace.
        log: False: the process logs already, and opens the workspace many times.

    Returns:
        A context manager that gives the `App`: its `job`, `plan`, `preview`, `execute`, `ledger`, `metrics`, `cluster`.
    """
    return App.open(Path(folder), log=log)


def _ask_rights(cluster: Cluster, topics: Iterable[str]) -> ClusterRights:
    """Needs librdkafka, which not every machine has."""
    from core.kafka.cluster_rights import cluster_rights

    return cluster_rights(cluster, topics)


def _no_reader() -> ConfigError:
    return ConfigError(
        "messages cannot be read back without confluent-kafka",
        why="it is not installed on this machine",
        remedy='install it, or set "verify": "none"',
    )


def _log_verdict(run: Run, *, dry_run: bool) -> None:
    """One line into the log; the terminal shows the verdict itself."""
    from loguru import logger

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
