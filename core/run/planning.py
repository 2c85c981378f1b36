"""What a run will do, decided before it starts: its query bound, its destination found. Nothing is contacted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from core.calendar.cron import previous_scheduled_time
from core.calendar.templates import resolve
from core.errors import ConfigError
from core.files.names import output_name
from core.model.connection import Cluster
from core.model.dialect import Dialect
from core.model.job import Job, KafkaConfig
from core.model.query import ParameterValue, Query
from core.model.run import Plan
from core.records.ledger import Ledger
from core.records.opened import OpenWorkspace
from core.run.destination import KafkaTarget, target_of_job
from core.sources import database_types, find_dialect
from core.sql.parser import load
from core.sql.query import ParsedQuery
from core.workspace.paths import Workspace

__all__ = [
    "DEFAULT_TIMEZONE",
    "WITHOUT_PARTS",
    "ReadQuery",
    "bound",
    "bound_query",
    "cluster_key_of_plan",
    "cluster_of_plan",
    "last_row_count",
    "overridden",
    "plan_run",
    "plan_warnings",
    "schema_text",
    "unusable_jobs",
]

DEFAULT_TIMEZONE = "Europe/Rome"
ReadQuery = Callable[[Path, Dialect], ParsedQuery]
AD_HOC = "its parameters are not the job's own, so it does not count for its scheduled time"
WITHOUT_PARTS = (
    '"partitions" has no effect: this cluster is a mock broker in the process of the run, so the run has no parts'
)


def plan_run(
    opened: OpenWorkspace,
    job: Job,
    *,
    now: datetime,
    at: datetime | None = None,
    params: Mapping[str, ParameterValue] | None = None,
    asked_by: str = "",
    target: KafkaTarget | None = None,
    read: ReadQuery = load,
) -> Plan:
    """Decides everything about a run; opens no connection.

    Args:
        opened: The workspace.
        job: The job.
        now: Aware.
        at: Scheduled time, naive in the job's zone; None: the newest scheduled time of its calendar, or now.
        params: Values or templates that override the job's own.
        asked_by: Who asked for the run, for the ledger.
        target: Where it is sent; None: where the job sends now.
        read: Reads the SQL file. With an outline of the file the plan has no statements, and finds the same errors.

    Raises:
        ConfigError: Something in the job, its query or its connection is wrong.
    """
    if job.export_format == "kafka" and not job.kafka_config.enabled:
        raise ConfigError(
            f'job "{job.name}" does not send to Kafka',
            why="kafka_config.enabled is false",
            remedy='set "kafka_config": {"enabled": true}',
        )
    scheduled_at = _scheduled_time(job, now, at)
    connection = opened.connections.database(job.connection)
    file, dialect = opened.workspace.query_file(job.query), find_dialect(connection.db_type, connection.dialect)

    def with_values(values: Mapping[str, ParameterValue]) -> Query:
        return bound(file, dialect, values, scheduled_at, job.timezone, allow_writes=connection.allow_writes, read=read)

    query = with_values(overridden(job.parameters, params or {}))
    settings = opened.settings
    is_ad_hoc = False
    if params:
        try:
            is_ad_hoc = with_values(job.parameters).values != query.values
        except ConfigError:  # the calendar could not run it
            is_ad_hoc = True
    plan = Plan(
        job=job,
        query=query,
        cluster="",
        topic="",
        scheduled_at=scheduled_at,
        batch_size=settings.KAFKA_MESSAGE_BATCH_SIZE,
        fetch_rows=settings.PSTT_FETCH_ROWS,
        window_start=previous_scheduled_time(job, scheduled_at, before=True),
        asked_by=asked_by,
        stop_timeout_s=settings.PSTT_STOP_TIMEOUT_S,
        control_topic=settings.PSTT_CONTROL_TOPIC,
        log_payload=settings.KAFKA_LOG_PAYLOAD,
        is_altered=bool(params),
        is_ad_hoc=is_ad_hoc,
    )
    return _to_file(opened, plan) if job.export_format != "kafka" else _to_topic(opened, plan, target)


def plan_warnings(plan: Plan) -> tuple[str, ...]:
    """Returns what a user has to know of a run of this plan, whatever becomes of it."""
    is_scheduled = previous_scheduled_time(plan.job, plan.scheduled_at) == plan.scheduled_at
    return (AD_HOC,) if plan.is_ad_hoc and is_scheduled else ()


def cluster_of_plan(opened: OpenWorkspace, plan: Plan) -> Cluster:
    """Returns the cluster that a plan sends to."""
    return plan.to_cluster or opened.connections.cluster_for(plan.job, opened.settings)


def cluster_key_of_plan(opened: OpenWorkspace, plan: Plan) -> str | None:
    """Returns the key of that cluster in `kafka_connections`; None: it is that of the KAFKA_* settings."""
    if plan.to_cluster is None:
        return opened.connections.cluster_key_for(plan.job)
    return opened.connections.key_of(plan.to_cluster, opened.settings)


def last_row_count(ledger: Ledger, slug: str) -> int | None:
    """Returns the number of rows that the last succeeded run of a job has read; None: there is none among the last 20."""
    return ledger.history.last_row_count(slug)


def unusable_jobs(opened: OpenWorkspace, jobs: Iterable[Job]) -> dict[str, ConfigError]:
    """Returns slug → why its runs must fail: its connection or cluster is not set up, or connections.json is wrong."""
    found = {}
    for job in jobs:
        try:
            opened.connections.require(job)
        except ConfigError as error:
            found[job.slug] = error
    return found


def bound_query(file: Path, db_type: str, params: Mapping[str, str], at: datetime) -> Query:
    """Binds these parameters to an SQL file, as `python -m core sql` shows it.

    Raises:
        ConfigError: The database type is unknown, or a parameter is wrong.
    """
    if db_type not in database_types():
        raise ConfigError(f"--db-type {db_type} is not known", remedy=f"use one of {', '.join(database_types())}")
    scheduled_at = at if at.tzinfo else at.replace(tzinfo=ZoneInfo(DEFAULT_TIMEZONE))
    return bound(file, find_dialect(db_type), params, scheduled_at, DEFAULT_TIMEZONE, allow_writes=False)


def bound(
    file: Path,
    dialect: Dialect,
    params: Mapping[str, ParameterValue],
    scheduled_at: datetime,
    timezone: str,
    *,
    allow_writes: bool,
    read: ReadQuery = load,
) -> Query:
    """Reads an SQL file, resolves its templates and binds its values.

    Raises:
        ConfigError, SqlError: The file or a parameter is wrong.
    """
    parsed = read(file, dialect)
    values = parsed.resolved(params, lambda text: resolve(text, scheduled_at, timezone))
    return parsed.bind(values, allow_writes=allow_writes)


def overridden(of_job: Mapping[str, ParameterValue], own: Mapping[str, ParameterValue]) -> dict[str, ParameterValue]:
    """Returns the job's values with those of one run in their place; names compare in any case."""
    replaced = {name.upper() for name in own}
    return {**{name: value for name, value in of_job.items() if name.upper() not in replaced}, **own}


def _scheduled_time(job: Job, now: datetime, at: datetime | None) -> datetime:
    zone = ZoneInfo(job.timezone)
    if at is None:
        moment = previous_scheduled_time(job, now) or now.replace(microsecond=0)
    else:
        moment = at.replace(tzinfo=zone) if at.tzinfo is None else at
    return moment.astimezone(zone)


def _to_topic(opened: OpenWorkspace, plan: Plan, target: KafkaTarget | None) -> Plan:
    chosen = target or target_of_job(opened, plan.job)
    schemas = plan.job.schemas
    return replace(
        plan,
        value_schema=schema_text(opened.workspace, schemas.value_file),
        key_schema=schema_text(opened.workspace, schemas.key_file),
        cluster=chosen.cluster.name,
        to_cluster=target.cluster if target else None,
        topic=chosen.topic,
        batch_size=plan.job.kafka_config.batch_size or chosen.cluster.message_batch_size,
    )


def schema_text(workspace: Workspace, name: str | None) -> str:
    """Returns the text of a schema below `queries/`; empty if the job names none.

    Raises:
        ConfigError: The file cannot be read, or is empty.
    """
    if name is None:
        return ""
    path = workspace.inside(name, workspace.queries_dir)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"the schema {name} cannot be read", why=why, remedy="put it into queries/") from None
    if not text.strip():
        raise ConfigError(f"the schema {name} is empty", remedy="write the schema into it")
    return text


def _to_file(opened: OpenWorkspace, plan: Plan) -> Plan:
    """A file needs no cluster and no key; its name is decided before anything is opened."""
    environment = opened.connections.environment_of(plan.job.connection)
    name = output_name(plan.job, plan.query.values, plan.scheduled_at, environment)
    opened.workspace.inside(name, opened.workspace.exports_dir)
    job = replace(plan.job, kafka_config=KafkaConfig(include_metadata=False), headers={})
    return replace(plan, output=name, job=job)
