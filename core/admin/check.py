"""Every file of a workspace, looked at without contacting anything; all problems at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from core.errors import ConfigError, PsttError
from core.sql.values import as_text
from core.workspace.connections import Connections, read_connections
from core.workspace.jobs import load_jobs
from core.workspace.json_file import read_json_file
from core.workspace.paths import Workspace
from core.workspace.settings import Settings, mistyped, read_env_file, read_settings

if TYPE_CHECKING:
    from core.model.dialect import Dialect
    from core.model.job import Job
    from core.model.query import Query

__all__ = ["Problem", "check", "check_job"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that a person should mend."""

    severity: Literal["error", "warning"]
    where: str
    text: str
    remedy: str = ""


def check(workspace: Workspace, environ: Mapping[str, str]) -> list[Problem]:
    """Looks at `.env`, connections.json, every job and every query. Contacts nothing, changes nothing."""
    problems: list[Problem] = []
    settings: Settings | None = None
    connections: Connections | None = None
    try:
        settings, found = read_settings(workspace, environ)
        problems += map(_error, found)
    except ConfigError as error:
        problems.append(_error(error))
    problems += [
        Problem("warning", "environment", f"{name} is no setting and has no effect", f'did you mean "{near}"?')
        for name, near in mistyped(environ)
    ]
    try:
        connections, found = read_connections(workspace, environ)
        problems += map(_error, found)
    except ConfigError as error:
        problems.append(_error(error))
    jobs, found = load_jobs(workspace)
    problems += map(_error, found)
    problems += _alerts(workspace, settings, environ)
    if connections is not None:
        problems += _secrets(workspace, connections)
        broken = list(_clusters(connections, settings))
        problems += broken
        # What is wrong with a connection or a cluster is not told again for each job that uses it.
        told = {problem.text for problem in broken}
        for job in jobs:
            if job.connection not in connections.broken:
                of_job = _job(workspace, job, connections, settings)
                problems += [problem for problem in of_job if problem.text not in told]
        problems += _same_outputs(workspace, jobs, connections)
        problems += _unused_queries(workspace, jobs, connections)
    problems += _runner(workspace)
    if not jobs and not found:
        problems.append(Problem("warning", "queries", "there is no *.job.json", "README: how to add a job"))
    return list(dict.fromkeys(problems))


def check_job(workspace: Workspace, job: Job, connections: Connections, settings: Settings) -> list[Problem]:
    """What is wrong with one job whose file is right: its connection, its query, its cluster, its output."""
    return list(_job(workspace, job, connections, settings))


def _runner(workspace: Workspace) -> Iterator[Problem]:
    """What the runner that works here does about what it cannot use."""
    from core.records.ledger import Ledger

    if not workspace.ledger_file.exists():
        return
    try:
        with Ledger(workspace.ledger_file) as ledger:
            beat = ledger.heartbeats.newest()
    except PsttError as error:
        yield _error(error)
        return
    if beat is not None and beat.is_alive(datetime.now(UTC)):
        for problem in beat.problems:
            text = f"the runner (pid {beat.pid}) found: {problem['text']}; {problem['instead']}"
            yield Problem("warning", problem["where"], text)


def _error(error: PsttError, where: str = "") -> Problem:
    place = error.where if isinstance(error, ConfigError) and error.where else where
    text = f"{error.what}: {error.why}" if error.why else error.what
    return Problem("error", place, text, error.remedy)


def _secrets(workspace: Workspace, connections: Connections) -> Iterator[Problem]:
    for name in connections.literal_passwords:
        yield Problem(
            "warning",
            "connections.json",
            f'"{name}" has its password in the file',
            "write env:NAME, file:PATH or keyring:SERVICE/USER instead",
        )
    for name in connections.database_names:
        try:
            connections.database(name)
        except ConfigError as error:
            yield _error(error)
    holders = [workspace.connections_file] if connections.literal_passwords else []
    if any("PASSWORD" in name.upper() for name in read_env_file(workspace.env_file)):
        holders.append(workspace.env_file)
    for file in holders:
        if os.name != "nt" and file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
            yield Problem(
                "warning", file.name, "holds a password and other accounts may read it", f"chmod 600 {file.name}"
            )


def _alerts(workspace: Workspace, settings: Settings | None, environ: Mapping[str, str]) -> Iterator[Problem]:
    from core.notify.channels import channel_problem
    from core.notify.rules import read_alerts
    from core.notify.smtp import mail_server
    from core.workspace.secrets import is_reference

    in_env_file = {}
    with suppress(ConfigError):  # told with the settings
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
            yield Problem(
                "warning",
                name,
                f'channel "{channel}" has its URL in the file',
                "write env:NAME, file:PATH or keyring:…",
            )
        if problem := channel_problem(channel, reference, variables, workspace.root):
            yield _error(problem, name)
    if settings is not None:
        try:
            mail_server(settings, variables, workspace.root)
        except ConfigError as error:
            yield _error(error, "settings")


def _clusters(connections: Connections, settings: Settings | None) -> Iterator[Problem]:
    from core.kafka import refuse_unsupported

    if settings is None:
        return
    for name in connections.cluster_names:
        try:
            refuse_unsupported(connections.cluster(name, settings), transactional=False)
        except ConfigError as error:
            yield _error(error, "connections.json")


def _job(workspace: Workspace, job: Job, connections: Connections, settings: Settings | None) -> Iterator[Problem]:
    where = f"{job.slug}.job.json"
    try:
        dialect = connections.dialect(job.connection)
        writes = connections.allows_writes(job.connection)
    except ConfigError as error:
        yield _error(error, where)
        return
    try:
        _bind(workspace, job, dialect, writes)
    except PsttError as error:
        problem = _error(error, where)
        yield (
            problem
            if problem.where == where
            else Problem("error", f"{where} → {problem.where}", problem.text, problem.remedy)
        )
    if job.export_format == "kafka":
        if settings is not None:
            yield from _cluster(job, connections, settings, where)
        return
    try:
        _output(workspace, job, connections)
    except ConfigError as error:
        file = read_json_file(workspace.queries_dir / where)
        yield _error(file.error(("output",), error.what, why=error.why, remedy=error.remedy))


def _output(workspace: Workspace, job: Job, connections: Connections) -> Path:
    """The file that a job writes when it is due now."""
    from core.files.names import output_name

    try:
        writes = connections.allows_writes(job.connection)
        values = _bind(workspace, job, connections.dialect(job.connection), writes).values
    except PsttError:  # told already
        values = {name: as_text(value) for name, value in job.parameters.items()}
    environment = connections.environment_of(job.connection)
    return workspace.inside(output_name(job, values, datetime.now(UTC), environment), workspace.exports_dir)


def _same_outputs(workspace: Workspace, jobs: list[Job], connections: Connections) -> Iterator[Problem]:
    """Two jobs that write one file would each replace what the other wrote."""
    found: dict[str, Job] = {}
    for job in jobs:
        if job.export_format == "kafka":
            continue
        try:
            name = str(_output(workspace, job, connections)).casefold()
        except PsttError:  # told already
            continue
        if name in found:
            yield Problem(
                "error",
                f"{job.slug}.job.json",
                f'job "{job.name}" writes the same file as job "{found[name].name}" ({found[name].slug}.job.json)',
                'give one of them another "output", such as {job}_{date:%Y%m%d}.xlsx',
            )
        found.setdefault(name, job)


def _bind(workspace: Workspace, job: Job, dialect: Dialect, allow_writes: bool) -> Query:
    from core.run.planning import bound

    path = workspace.query_file(job.query)
    now = datetime.now(UTC)
    return bound(path, dialect, job.parameters, now, job.timezone, allow_writes=allow_writes)


def _cluster(job: Job, connections: Connections, settings: Settings, where: str) -> Iterator[Problem]:
    from core.kafka import refuse_unsupported

    try:
        cluster = connections.cluster_for(job, settings)
        refuse_unsupported(cluster, transactional=job.delivery == "exactly_once")
    except ConfigError as error:
        yield _error(error, where)


def _unused_queries(workspace: Workspace, jobs: list[Job], connections: Connections) -> Iterator[Problem]:
    """A query that no job uses is read for the one kind of database there is; with several, its dialect is unknown."""
    from core.sql.query import load

    dialects = {connections.dialect(name) for name in connections.database_names}
    used = {job.query for job in jobs}
    for path in sorted(workspace.queries_dir.glob("*.sql")):
        if path.name in used or len(dialects) != 1:
            continue
        try:
            load(path, next(iter(dialects)))
        except PsttError as error:
            yield _error(error, path.name)
