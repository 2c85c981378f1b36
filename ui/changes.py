"""The page's door to core for whatever changes something, or reaches a database or a cluster because somebody asked.

Each function looks at the visitor's role itself: a button that is not there protects nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from core.errors import ConfigError, NotAuthorised, PsttError
from core.model.job import Job
from core.model.query import ParameterValue
from core.sources import find_dialect
from core.sql.values import split
from core.workspace.jobs import SUFFIX, JobFile, checked_job
from core.workspace.stored_file import StoredFile, read_stored
from ui import access, data
from ui.data.jobs import all_jobs
from ui.language import t

if TYPE_CHECKING:
    from core.admin.doctor import Fact
    from core.kafka.topic_settings import TopicSetting
    from core.model.publisher import TopicInfo
    from core.model.run import Plan
    from core.notify.delivery import DeliveryResult
    from core.run.preview import Preview
    from core.sql.query import ParsedQuery

__all__ = ["Draft", "Resolved", "draft", "require"]

STAMPED_S = 60.0
PREVIEW_TIMEOUT_S = 30.0
"""A person waits for it, and the database works meanwhile."""


def require(role: access.Role) -> str:
    """The visitor's name, for the audit.

    Raises:
        NotAuthorised: The visitor has not that role.
    """
    if not access.may(role):
        only = t("only an admin may do this") if role == "admin" else t("only an operator may do this")
        raise NotAuthorised(only, remedy=t("ask an admin for the role"))
    return access.visitor().name


def _changed() -> None:
    """What was changed is seen at once, in this session and in all others."""
    data.clear_caches()


# ── jobs ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Draft:
    """A job as it stands in the editor, not saved."""

    job: Job | None
    """None where a value is so wrong that there is no job."""
    problems: list[ConfigError]


def draft(slug: str, text: str) -> Draft:
    """What a text would be as a job's file, and every problem that `check` would tell of it."""
    job, problems = checked_job(data.workspace().queries_dir / f"{slug}{SUFFIX}", text)
    return Draft(job, problems)


def job_file(slug: str) -> JobFile:
    """The file of a job.

    Raises:
        NoSuchJob: There is none.
    """
    from core.workspace.jobs import read_job_file

    return read_job_file(data.workspace(), slug)


def save_job(job: Job, seen_sha256: str) -> JobFile:
    """Saves a job whose file is still the one that was read; an empty hash makes a new file."""
    from core.admin.edit_jobs import create_job, replace_job

    who = require("operator")
    with data.opened() as app:
        if seen_sha256:
            saved = replace_job(app.workspace, app.ledger, job, seen_sha256=seen_sha256, who=who, now=data.now())
        else:
            saved = create_job(app.workspace, app.ledger, job, who=who, now=data.now())
    _changed()
    return saved


def duplicate_job(slug: str, new_slug: str, name: str) -> JobFile:
    """The same job under another name, switched off."""
    from core.admin.edit_jobs import create_job

    who = require("operator")
    with data.opened() as app:
        job = replace(job_file(slug).job, slug=new_slug, name=name, enabled=False)
        saved = create_job(app.workspace, app.ledger, job, who=who, now=data.now())
    _changed()
    return saved


def delete_job(slug: str, seen_sha256: str) -> None:
    """Removes a job's file."""
    from core.admin.edit_jobs import delete_job as delete

    who = require("operator")
    with data.opened() as app:
        delete(app.workspace, app.ledger, slug, seen_sha256=seen_sha256, who=who, now=data.now())
    _changed()


def switch_job(slug: str, *, enabled: bool) -> None:
    """Switches a job on or off."""
    from core.scheduler.commands import switch

    who = require("operator")
    with data.opened() as app:
        switch(app.workspace, app.ledger, slug, enabled=enabled, who=who, now=data.now())
    _changed()


def job_text_of(slug: str, text: str) -> str:
    """The text as it would be saved; as it is where it is not a job."""
    from core.workspace.jobs import job_text

    found = draft(slug, text)
    return job_text(found.job) if found.job is not None and not found.problems else text


# ── a job's query ─────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Resolved:
    """A parameter of a query, and what it would be."""

    name: str
    mandatory: bool
    description: str
    default: str
    allowed: tuple[str, ...]
    given: ParameterValue | None
    value: str
    values: tuple[str, ...]
    """Those of a list, as they are bound; empty for one value, and where it is no list."""
    problem: str
    """Why the value cannot be made; empty where it can."""


def parsed_query(name: str, connection: str) -> ParsedQuery:
    """A query, read for the database of that connection.

    Raises:
        ConfigError, SqlError: As `python -m core check`.
    """
    with data.opened() as app:
        dialect = app.connections.dialect(connection)
        path = app.workspace.query_file(name)
    return _parsed_query(path, dialect.name, _stamp(path))


@st.cache_resource(show_spinner=False, max_entries=16)
def _parsed_query(path: Path, db_type: str, stamp: tuple[int, int]) -> ParsedQuery:
    """A large file is read once, not at each drawing; `stamp` tells one version from the next."""
    from core.sql.query import load

    return load(path, find_dialect(db_type))


def _stamp(path: Path) -> tuple[int, int]:
    """Change time in ns and size; zeros where there is no such file."""
    try:
        facts = path.stat()
    except OSError:
        return (0, 0)
    return (facts.st_mtime_ns, facts.st_size)


def resolved_parameters(
    query: ParsedQuery, given: Mapping[str, ParameterValue], at: datetime, timezone: str
) -> list[Resolved]:
    """Each parameter with its value for that scheduled time."""
    from core.calendar.templates import resolve

    by_name = {name.upper(): value for name, value in given.items()}
    found = []
    for p in query.parameters:
        text = by_name.get(p.name)
        value, values, problem = "", (), ""
        if text is not None or not p.mandatory:
            try:
                chosen = text if text is not None else p.default
                value = query.resolved_text(p, chosen, lambda one: resolve(one, at, timezone))
                values = split(value) if p.is_list else ()
            except PsttError as error:
                problem = str(error)
            except ValueError as error:
                problem = f"{p.name}: {error}"
        found.append(Resolved(p.name, p.mandatory, p.description, p.default, p.allowed, text, value, values, problem))
    return found


def binding_problem(job: Job, at: datetime) -> None:
    """Raises what a run of this job would meet before it contacts anything."""
    from core.workspace.jobs import job_text

    workspace = data.workspace()
    looked_at = (workspace.query_file(job.query), workspace.connections_file, workspace.env_file)
    stamps = tuple(_stamp(path) for path in looked_at)
    error = _binding_problem(workspace.root, job.slug, job_text(job), at, stamps)
    if error is not None:
        raise error


@st.cache_data(ttl=STAMPED_S, show_spinner=False, max_entries=64)
def _binding_problem(
    folder: Path, slug: str, text: str, at: datetime, stamps: tuple[tuple[int, int], ...]
) -> PsttError | None:
    """As `_parsed_query`; a variable or a file of a secret that has come meanwhile is seen after some time."""
    with data.opened() as app:
        job, _ = checked_job(folder / f"{slug}{SUFFIX}", text)
        try:
            if job is not None:
                app.plan(job, now=data.now(), at=at)
        except PsttError as error:
            return error
    return None


def preview(job: Job, at: datetime, rows: int) -> tuple[Plan, Preview]:
    """The exact messages of a job that need not be saved; reaches the database, for 30 s at most."""
    require("operator")
    with data.opened() as app:
        plan = app.plan(job, now=data.now(), at=at)
        return plan, app.preview(plan, rows=rows, timeout_s=PREVIEW_TIMEOUT_S)


def query_file(name: str) -> StoredFile:
    """An SQL file of `queries/`."""
    return read_stored(data.workspace().query_file(name))


def save_query(name: str, content: bytes, connection: str, seen_sha256: str) -> tuple[str, ...]:
    """Writes an SQL file that the gate lets pass; what a person should know about it."""
    from core.admin.edit_files import save_query as save

    who = require("operator")
    with data.opened() as app:
        dialect, writes = app.connections.dialect(connection), app.connections.allows_writes(connection)
        notes = save(
            app.workspace,
            app.ledger,
            name,
            content,
            dialect=dialect,
            allow_writes=writes,
            seen_sha256=seen_sha256,
            who=who,
            now=data.now(),
        )
    _changed()
    return notes


# ── connections ───────────────────────────────────────────────────────────────────────────────


def save_connections(document: Mapping[str, Any], about: str, seen_sha256: str) -> None:
    """Writes connections.json."""
    from core.admin.edit_files import save_connections as save

    who = require("admin")
    with data.opened() as app:
        save(
            app.workspace,
            app.ledger,
            document,
            os.environ,
            about=about,
            seen_sha256=seen_sha256,
            who=who,
            now=data.now(),
        )
    _changed()


def users_of_connection(name: str) -> list[str]:
    """The jobs that read from a database connection, for people."""
    return [_as_user(job) for job in all_jobs()[0] if job.connection == name]


def users_of_cluster(key: str) -> list[str]:
    """The jobs that send to the cluster under that key of `kafka_connections`, for people; also while the file has faults."""
    from core.workspace.connections import read_connections

    connections, _ = read_connections(data.workspace(), os.environ)
    found = []
    for job in all_jobs()[0]:
        with suppress(ConfigError):  # its connection is gone: it sends nowhere
            if job.export_format == "kafka" and connections.cluster_key_for(job) == key:
                found.append(_as_user(job))
    return found


def _as_user(job: Job) -> str:
    return f"{job.name} ({t('enabled') if job.enabled else t('switched off')})"


def store_secret(reference: str, value: str) -> None:
    """Puts a secret where its reference says; only the reference is written down."""
    from core.workspace.secrets import store_secret as store

    who = require("admin")
    with data.opened() as app:
        store(reference, value, app.workspace)
        app.ledger.audit.add(who, "store", f"secret {reference}", data.now())


def test_database(name: str) -> list[Fact]:
    """What was found on reaching a database."""
    require("operator")
    with data.opened() as app:
        return list(app.examine_database(name))


def test_cluster(name: str | None) -> list[Fact]:
    """What was found on reaching a cluster."""
    require("operator")
    with data.opened() as app:
        return list(app.examine_cluster(name))


def topics(name: str | None) -> list[TopicInfo]:
    """The topics of a cluster."""
    from core.kafka import open_publisher

    require("operator")
    with data.opened() as app:
        publisher = open_publisher(app.cluster(name))
    try:
        return publisher.topics()
    finally:
        publisher.close(timeout_s=1)


def topic_settings(name: str | None, topic: str) -> list[TopicSetting]:
    """How a topic is set up."""
    from core.kafka.topic_settings import topic_settings as ask

    require("operator")
    with data.opened() as app:
        return ask(app.cluster(name), topic)


def send(cluster: str | None, topic: str, key: str, value: str) -> dict[str, Any]:
    """Sends one message by hand; where it is now."""
    who = require("operator")
    with data.opened() as app:
        sent = app.send(topic, key, value, cluster=cluster, now=data.now())
        app.ledger.audit.add(
            who, "send", f"topic {topic}", data.now(), after={**sent, "size_bytes": len(value.encode())}
        )
    return sent


# ── alerts ────────────────────────────────────────────────────────────────────────────────────


def save_alerts(document: Mapping[str, Any], seen_sha256: str) -> None:
    """Writes alerts.json."""
    from core.admin.edit_files import save_alerts as save

    who = require("admin")
    with data.opened() as app:
        save(app.workspace, app.ledger, document, seen_sha256=seen_sha256, who=who, now=data.now())
    _changed()


def test_mail(to: Sequence[str]) -> DeliveryResult:
    """Sends a test mail; what the server said to each."""
    who = require("operator")
    with data.opened() as app:
        fate = app.test_mail(to, data.now())
        app.ledger.audit.add(who, "test mail", "mail", data.now(), after={"to": list(to)})
    return fate


# ── administration ────────────────────────────────────────────────────────────────────────────


def rebuild_metrics() -> int:
    """Makes metrics.duckdb again from the spool; how many sends it holds."""
    who = require("admin")
    with data.opened() as app:
        synced = app.metrics.rebuild()
        app.ledger.audit.add(who, "rebuild", "metrics.duckdb", data.now(), after={"sends": synced.sends})
    _changed()
    return synced.sends
