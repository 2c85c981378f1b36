"""Checks every file of a workspace without contacting a server. Reports every problem at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from core.errors import ConfigError, PsttError
from core.files.names import output_name
from core.kafka import refuse_unsupported
from core.model.dialect import Dialect
from core.model.job import Job
from core.model.query import Query
from core.notify.channels import channel_problem
from core.notify.rules import read_alerts
from core.notify.smtp import mail_server
from core.records.ledger import Ledger
from core.run.planning import WITHOUT_PARTS, ReadQuery, bound
from core.run.telemetry import telemetry_problems
from core.sql.known_statements import KnownStatements
from core.sql.parser import load
from core.sql.values import as_text
from core.workspace.connections import Connections, read_connections
from core.workspace.jobs import load_jobs
from core.workspace.json_file import read_json_file
from core.workspace.paths import Workspace
from core.workspace.secrets import REFERENCES, is_reference
from core.workspace.settings import OURS, SECRETS, SETTING_NAMES, Settings, mistyped, read_env_file, read_settings

__all__ = ["Finding", "check", "check_job", "check_jobs", "readable_secrets"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem in the files of a workspace."""

    severity: Literal["error", "warning"]
    where: str
    text: str
    remedy: str = ""


def check(workspace: Workspace, environ: Mapping[str, str]) -> list[Finding]:
    """Checks `.env`, connections.json, alerts.json, every job and every query. Contacts no server and changes no file of the user."""
    settings, findings = _read(lambda: read_settings(workspace, environ))
    findings += [
        Finding("warning", "environment", f"{name} is no setting and has no effect", f'did you mean "{near}"?')
        for name, near in mistyped(environ)
    ]
    connections, found = _read(lambda: read_connections(workspace, environ))
    findings += found
    if connections is not None:
        connections.contacts_vaults = False
    jobs, invalid = load_jobs(workspace)
    findings += map(_error, invalid)
    findings += _alerts(workspace, settings, environ)
    if connections is not None:
        findings += _of_connections(workspace, jobs, connections, settings)
        findings += _telemetry(workspace, connections, settings, environ)
    findings += _runner(workspace)
    if not jobs and not invalid:
        findings.append(Finding("warning", "queries", "there is no *.job.json", "README: how to add a job"))
    return list(dict.fromkeys(findings))


def check_job(
    workspace: Workspace, job: Job, connections: Connections, settings: Settings, *, read: ReadQuery = load
) -> list[Finding]:
    """Checks the connection, query, cluster and output of a job whose file is valid; `read` as in `plan_run`."""
    return list(_job(workspace, job, connections, settings, read))


def check_jobs(workspace: Workspace, connections: Connections) -> list[Finding]:
    """Checks every job with these connections, and that no two write the same file. Needs no secret."""
    jobs, invalid = load_jobs(workspace)
    findings = [_error(problem) for problem in invalid]
    for job in jobs:
        try:
            connections.require(job)
        except ConfigError as error:
            findings.append(_error(error, f"{job.slug}.job.json"))
        else:
            findings += _job(workspace, job, connections, None)
    return [*findings, *_same_outputs(workspace, jobs, connections)]


def _read(read: Callable[[], tuple[T | None, list[ConfigError]]]) -> tuple[T | None, list[Finding]]:
    try:
        value, problems = read()
    except ConfigError as error:
        return None, [_error(error)]
    return value, [_error(problem) for problem in problems]


def _of_connections(
    workspace: Workspace, jobs: list[Job], connections: Connections, settings: Settings | None
) -> Iterator[Finding]:
    """Yields what is wrong with secrets, clusters, jobs and queries; each problem of a cluster once, not for each job."""
    yield from _secrets(workspace, connections)
    clusters = list(_clusters(connections, settings))
    yield from clusters
    reported = {finding.text for finding in clusters}
    for job in jobs:
        if job.connection not in connections.broken:
            found = _job(workspace, job, connections, settings)
            yield from (finding for finding in found if finding.text not in reported)
    yield from _same_outputs(workspace, jobs, connections)
    if settings is not None:
        yield from _same_topics(jobs, connections, settings)
    yield from _unused_queries(workspace, jobs, connections)


def _runner(workspace: Workspace) -> Iterator[Finding]:
    """Yields the problems that the running runner reports, and what it does instead."""
    if not workspace.ledger_file.exists():
        return
    try:
        with Ledger(workspace.ledger_file) as ledger:
            heartbeat = ledger.heartbeats.newest()
    except PsttError as error:
        yield _error(error)
        return
    if heartbeat is not None and heartbeat.is_alive(datetime.now(UTC)):
        for problem in heartbeat.problems:
            text = f"the runner (pid {heartbeat.pid}) found: {problem['text']}; {problem['instead']}"
            yield Finding("warning", problem["where"], text)


def _error(error: PsttError, where: str = "") -> Finding:
    place = error.where if isinstance(error, ConfigError) and error.where else where
    text = f"{error.what}: {error.why}" if error.why else error.what
    return Finding("error", place, text, error.remedy)


def _secrets(workspace: Workspace, connections: Connections) -> Iterator[Finding]:
    for name in connections.literal_passwords:
        yield Finding(
            "warning",
            "connections.json",
            f'"{name}" has its password in the file',
            f"write {REFERENCES} instead",
        )
    for name in connections.database_names:
        try:
            connections.database(name)
        except PsttError as error:
            yield _error(error)
    for file in readable_secrets(workspace, connections):
        yield Finding("warning", file.name, "holds a password and other accounts may read it", f"chmod 600 {file.name}")


def readable_secrets(workspace: Workspace, connections: Connections) -> list[Path]:
    """Returns the files that hold a literal secret and that other accounts of this machine may read.

    Always empty on Windows, where a file inherits the permissions of its folder.
    """
    holders = [workspace.connections_file] if connections.literal_passwords else []
    if any(_is_secret(name, value) for name, (value, _) in read_env_file(workspace.env_file).items()):
        holders.append(workspace.env_file)
    return [file for file in holders if os.name != "nt" and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)]


def _is_secret(name: str, value: str) -> bool:
    """Returns whether an entry of `.env` is a secret: a password of ours, or a variable that `env:NAME` refers to."""
    is_ours = name.startswith((*OURS, "VAULT_")) and name not in ("VAULT_TOKEN", "VAULT_SECRET_ID")
    return not is_reference(value) and (name in SECRETS or not (is_ours or name in SETTING_NAMES))


def _alerts(workspace: Workspace, settings: Settings | None, environ: Mapping[str, str]) -> Iterator[Finding]:
    in_env_file = {}
    with suppress(ConfigError):  # reported with the settings
        in_env_file = {name: value for name, (value, _) in read_env_file(workspace.env_file).items()}
    variables = {**in_env_file, **environ}
    try:
        alerts, found = read_alerts(workspace.alerts_file)
    except ConfigError as error:
        alerts, found = None, [error]
    yield from map(_error, found)
    name = workspace.alerts_file.name
    for channel, reference in (alerts.channels if alerts else {}).items():
        if not is_reference(reference):
            yield Finding(
                "warning",
                name,
                f'channel "{channel}" has its URL in the file',
                f"write {REFERENCES}",
            )
        if problem := channel_problem(channel, reference, variables, workspace.root):
            yield _error(problem, name)
    if settings is not None:
        try:
            mail_server(settings, variables, workspace.root, contact=False)
        except ConfigError as error:
            yield _error(error, "settings")


def _telemetry(
    workspace: Workspace, connections: Connections, settings: Settings | None, environ: Mapping[str, str]
) -> Iterator[Finding]:
    """Yields warnings: runs go on without lineage and traces."""
    if settings is None:
        return
    entries = {name: value for name, (value, _) in read_env_file(workspace.env_file).items()}
    for problem in telemetry_problems(settings, connections, {**entries, **environ}, workspace.root):
        yield replace(_error(problem, "lineage and traces"), severity="warning")


def _clusters(connections: Connections, settings: Settings | None) -> Iterator[Finding]:
    if settings is None:
        return
    for name in connections.cluster_names:
        try:
            refuse_unsupported(connections.cluster(name, settings), transactional=False)
        except PsttError as error:
            yield _error(error, "connections.json")


def _job(
    workspace: Workspace, job: Job, connections: Connections, settings: Settings | None, read: ReadQuery = load
) -> Iterator[Finding]:
    where = f"{job.slug}.job.json"
    try:
        dialect = connections.dialect(job.connection)
        writes = connections.allows_writes(job.connection)
    except ConfigError as error:
        yield _error(error, where)
        return
    try:
        query = _bind(workspace, job, dialect, writes, read)
        if job.partitions is not None:
            # A folder that is only checked gets no .pstt.
            known = KnownStatements(workspace.statements_dir if workspace.state_dir.is_dir() else None)
            known.require_splittable(query.steps, dialect, job.partitions)
    except PsttError as error:
        found = _error(error, where)
        yield found if found.where == where else replace(found, where=f"{where} → {found.where}")
    if job.export_format == "kafka":
        if settings is not None:
            yield from _cluster(job, connections, settings, where)
        return
    try:
        _output(workspace, job, connections, read)
    except ConfigError as error:
        file = read_json_file(workspace.queries_dir / where)
        yield _error(file.error(("output",), error.what, why=error.why, remedy=error.remedy))


def _output(workspace: Workspace, job: Job, connections: Connections, read: ReadQuery = load) -> Path:
    """Returns the path of the file that a job would write now."""
    try:
        writes = connections.allows_writes(job.connection)
        values = _bind(workspace, job, connections.dialect(job.connection), writes, read).values
    except PsttError:  # reported already
        values = {name: as_text(value) for name, value in job.parameters.items()}
    environment = connections.environment_of(job.connection)
    return workspace.inside(output_name(job, values, datetime.now(UTC), environment), workspace.exports_dir)


def _same_outputs(workspace: Workspace, jobs: list[Job], connections: Connections) -> Iterator[Finding]:
    """Yields jobs that write the same file: each would replace the other's."""
    found: dict[str, Job] = {}
    for job in jobs:
        if job.export_format == "kafka":
            continue
        try:
            name = str(_output(workspace, job, connections)).casefold()
        except PsttError:  # reported already
            continue
        if name in found:
            yield Finding(
                "error",
                f"{job.slug}.job.json",
                f'job "{job.name}" writes the same file as job "{found[name].name}" ({found[name].slug}.job.json)',
                'give one of them another "output", such as {job}_{date:%Y%m%d}.xlsx',
            )
        found.setdefault(name, job)


def _same_topics(jobs: list[Job], connections: Connections, settings: Settings) -> Iterator[Finding]:
    """Yields jobs that describe one topic differently: which of them creates it would be chance."""
    found: dict[tuple[str, str], Job] = {}
    for job in jobs:
        if job.export_format != "kafka" or job.kafka_config.create_topic is None:
            continue
        try:
            cluster = connections.cluster_for(job, settings)
        except ConfigError:  # reported already
            continue
        place = cluster.bootstrap_servers, job.kafka_config.topic or cluster.default_topic
        other = found.setdefault(place, job)
        if other.kafka_config.create_topic != job.kafka_config.create_topic:
            yield Finding(
                "error",
                f"{job.slug}.job.json",
                f'create_topic of topic "{place[1]}" differs from that of job "{other.name}" ({other.slug}.job.json)',
                "write the same into both, or into one of them only",
            )


def _bind(workspace: Workspace, job: Job, dialect: Dialect, allow_writes: bool, read: ReadQuery) -> Query:
    path = workspace.query_file(job.query)
    now = datetime.now(UTC)
    return bound(path, dialect, job.parameters, now, job.timezone, allow_writes=allow_writes, read=read)


def _cluster(job: Job, connections: Connections, settings: Settings, where: str) -> Iterator[Finding]:
    try:
        cluster = connections.cluster_for(job, settings)
        refuse_unsupported(cluster, transactional=job.delivery == "exactly_once")
    except PsttError as error:
        yield _error(error, where)
        return
    if cluster.mock_brokers and job.partitions is not None and job.partitions.count > 1:
        yield Finding("warning", where, WITHOUT_PARTS, "name another cluster, or leave it: the same messages are sent")


def _unused_queries(workspace: Workspace, jobs: list[Job], connections: Connections) -> Iterator[Finding]:
    """Yields problems of queries that no job uses. With several kinds of database their dialect is not known."""
    dialects = {connections.dialect(name) for name in connections.database_names}
    used = {job.query for job in jobs}
    for path in sorted(workspace.queries_dir.glob("*.sql")):
        if path.name in used or len(dialects) != 1:
            continue
        try:
            load(path, next(iter(dialects)))
        except PsttError as error:
            yield _error(error, path.name)
