"""The actions of the page that change something, or contact a database or a cluster, as functions of core.

Core checks the right and audits. This module makes the visitor the caller, translates a refusal, and clears caches.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from core.admin import alerts, day_notes, edit_files, edit_jobs, edit_settings, mail_settings
from core.admin.actions import allow_test
from core.admin.actions import rebuild_metrics as rebuild_sends
from core.admin.demo import SLUG, create_demo
from core.admin.diagnosis import diagnose_cluster, diagnose_database
from core.admin.edit_jobs import create_job, replace_job
from core.admin.group_offsets import GroupReset, reset_offsets
from core.admin.start_runner import start_as_service
from core.app import open_workspace
from core.calendar.templates import resolve
from core.errors import AccessRefused, ConfigError, PsttError
from core.kafka import open_publisher
from core.kafka.topic_settings import topic_settings as settings_of_topic
from core.model.dialect import Dialect
from core.model.job import Job
from core.model.query import ParameterValue
from core.notify.delivery import MAIL
from core.notify.silences import AlertRecords, Silence
from core.notify.simulation import Simulation
from core.records.job_versions import JobVersion
from core.records.rights import RIGHT_OF, RIGHTS, Action, Caller
from core.scheduler import backfills, commands, watermarks
from core.scheduler.backfills import BackfillOptions
from core.scheduler.watermarks import WatermarkReport, watermark_of
from core.sql.parser import load
from core.sql.values import split
from core.workspace.jobs import SUFFIX, JobFile, checked_job, job_text, read_job_file
from core.workspace.paths import Workspace
from core.workspace.stored_file import StoredFile, read_stored
from ui import access, apart, data
from ui.data.messages import cluster_of
from ui.language import t

if TYPE_CHECKING:
    from core.kafka.topic_settings import TopicSetting
    from core.model.check_result import CheckResult
    from core.model.publisher import TopicInfo
    from core.model.run import Plan
    from core.notify.delivery import DeliveryResult
    from core.records.backfills import BackfillOrder
    from core.run.preview import Preview
    from core.run.replay import ReplayDestination
    from core.sql.query import ParsedQuery

__all__ = ["Draft", "Resolved", "caller", "draft"]

DEMO_ROWS = 1_000
DEMO_DAYS = 60
STAMPED_S = 60.0
PREVIEW_TIMEOUT_S = 30.0
"""The user waits for the preview, and the database is busy meanwhile."""


def caller(action: Action) -> Caller:
    """Returns the visitor as a caller of core.

    Raises:
        AccessRefused: The visitor does not have the right that the action needs; in the visitor's language.
    """
    visitor = access.current_user()
    found = Caller(visitor.name, RIGHTS[visitor.role], visitor.role, is_local=visitor.is_local)
    if not found.may(action):
        only = t("only an admin may do this") if RIGHT_OF[action] == "admin" else t("only an operator may do this")
        raise AccessRefused(only, remedy=t("ask an admin for the role"))
    return found


def _changed() -> None:
    """Clears the caches, so that every session sees the change at once."""
    data.clear_caches()


@dataclass(frozen=True)
class Draft:
    """A job as it is in the editor, not saved."""

    job: Job | None
    """None: a value is so wrong that no job can be built."""
    problems: list[ConfigError]


def draft(slug: str, text: str) -> Draft:
    """Returns the job that a text describes, and every problem that `check` would report."""
    job, problems = checked_job(data.workspace().queries_dir / f"{slug}{SUFFIX}", text)
    return Draft(job, problems)


def job_file(slug: str) -> JobFile:
    """Returns the file of a job.

    Raises:
        NoSuchJob: There is none.
    """
    return read_job_file(data.workspace(), slug)


def save_job(job: Job, seen_sha256: str, brought_back: str = "") -> JobFile:
    """Saves a job, if its file is still the version that was read.

    Args:
        job: The job.
        seen_sha256: Of the file that was read; empty: creates a new file.
        brought_back: Hash of the version that was brought back into the form. If the job is still that of the version, its
            file is written byte for byte.
    """
    by = caller("change" if seen_sha256 else "create")
    with data.opened() as app:
        if seen_sha256:
            content = version.content if (version := version_brought_back(job, brought_back)) else None
            saved = replace_job(
                app.workspace, app.ledger, job, content=content, seen_sha256=seen_sha256, caller=by, now=data.now()
            )
        else:
            saved = create_job(app.workspace, app.ledger, job, caller=by, now=data.now())
    _changed()
    return saved


def version_brought_back(job: Job, sha256: str) -> JobVersion | None:
    """Returns the version that was brought back into the form; None: there is none, or the form is another job by now."""
    if not sha256:
        return None
    with data.opened() as app:
        version = app.ledger.job_versions.get(job.slug, sha256)
    return version if version is not None and draft(job.slug, version.document).job == job else None


def duplicate_job(slug: str, new_slug: str, name: str) -> JobFile:
    """Creates a copy of a job under another name, disabled."""
    return save_job(replace(job_file(slug).job, slug=new_slug, name=name, enabled=False), "")


def delete_job(slug: str, seen_sha256: str) -> None:
    """Deletes the file of a job."""
    by = caller("delete")
    with data.opened() as app:
        edit_jobs.delete_job(app.workspace, app.ledger, slug, seen_sha256=seen_sha256, caller=by, now=data.now())
    _changed()


def switch_job(slug: str, *, enabled: bool) -> None:
    """Enables or disables a job."""
    by = caller("enable" if enabled else "disable")
    with data.opened() as app:
        commands.set_job_enabled(app.workspace, app.ledger, slug, enabled=enabled, caller=by, now=data.now())
    _changed()


def run(slug: str, at: datetime | None = None, *, again: bool = False, dry_run: bool = False) -> int:
    """Asks the runner to run a job, or to try it without sending. Returns the request's number."""
    by = caller("dry_run" if dry_run else "run")
    with data.opened() as app:
        return commands.request_run(
            app.ledger, app.job(slug), caller=by, now=data.now(), at=at, again=again, dry_run=dry_run
        )


def replay(run_id: str, *, rejects_only: bool, keys: Sequence[str] = (), to: ReplayDestination) -> int:
    """Asks the runner to send a run again, or only its rows with these keys. Returns the request's number."""
    by = caller("replay")
    with data.opened() as app:
        return commands.request_replay(
            app.ledger, run_id, caller=by, now=data.now(), rejects_only=rejects_only, keys=keys, to=to
        )


def reset_group(cluster: str, plan: GroupReset) -> None:
    """Sets the offsets of a consumer group as a plan shows them."""
    by = caller("reset offsets")
    with data.opened() as app:
        reset_offsets(app.ledger, cluster_of(cluster), plan, caller=by, now=data.now())


def watermark(slug: str) -> WatermarkReport | None:
    """Returns how far a job has sent its rows; None: it is not incremental."""
    with data.opened() as app:
        job = app.job(slug)
        return watermark_of(app, job, data.now()) if job.incremental else None


def set_watermark(slug: str, value: str, why: str) -> None:
    """Sets where the next run of an incremental job begins."""
    by = caller("watermark")
    with data.opened() as app:
        watermarks.set_watermark(app, app.job(slug), value, why=why, caller=by, now=data.now())


def write_note(slug: str, day: date, text: str) -> None:
    """Writes the note on a day of a job; an empty text removes it."""
    by = caller("note")
    with data.opened() as app:
        day_notes.write_note(app, slug, day, text, caller=by, now=data.now())
    _changed()


def backfill_from(slug: str, value: str, why: str) -> int:
    """Sends the rows of an incremental job after a value again. Returns the number of the request for the run."""
    by = caller("watermark")
    with data.opened() as app:
        return watermarks.backfill_from(app, app.job(slug), value, why=why, caller=by, now=data.now()).request_id


def backfill(
    slug: str, first: date, last: date, *, again: bool, parallel: int = 1, order: BackfillOrder = "oldest"
) -> int:
    """Plans a run for each scheduled time of a range of days. Returns the number of the backfill and of its request."""
    by = caller("backfill")
    with data.opened() as app:
        options = BackfillOptions(parallel, order, again, app.settings.PSTT_BACKFILL_WORKERS)
        made = backfills.backfill(app.ledger, app.job(slug), first, last, caller=by, now=data.now(), options=options)
    return made.request_id


def retry_backfill(number: int) -> int:
    """Plans the times of an ended backfill that have no success. Returns the number of the new backfill."""
    by = caller("backfill")
    with data.opened() as app:
        job = app.job(app.ledger.backfills.get(number).job)
        return backfills.retry_backfill(app.ledger, number, job, caller=by, now=data.now()).request_id


def pause_backfill(number: int) -> str:
    """Pauses a backfill. Returns what was done, in words."""
    by = caller("pause backfill")
    with data.opened() as app:
        return backfills.pause_backfill(app.ledger, number, caller=by, now=data.now())


def resume_backfill(number: int) -> str:
    """Lets a paused backfill go on. Returns what was done, in words."""
    by = caller("resume backfill")
    with data.opened() as app:
        return backfills.resume_backfill(app.ledger, number, caller=by, now=data.now())


def cancel_backfill(number: int) -> str:
    """Cancels a backfill. Returns what was done, in words."""
    by = caller("cancel backfill")
    with data.opened() as app:
        return backfills.cancel_backfill(app.ledger, number, caller=by, now=data.now())


def cancel(run_id: str) -> str:
    """Cancels a run. Returns what was done, in words."""
    by = caller("cancel")
    with data.opened() as app:
        return commands.cancel_run(app.ledger, run_id, caller=by, now=data.now())


def job_text_of(slug: str, text: str) -> str:
    """Returns the text as it would be saved; unchanged if it is not a valid job."""
    found = draft(slug, text)
    return job_text(found.job) if found.job is not None and not found.problems else text


@dataclass(frozen=True)
class Resolved:
    """A parameter of a query with its resolved value."""

    name: str
    mandatory: bool
    description: str
    default: str
    allowed: tuple[str, ...]
    given: ParameterValue | None
    value: str
    values: tuple[str, ...]
    """The values of a list, as they are bound; empty for a single value."""
    problem: str
    """Why the value cannot be resolved; empty if it can."""


def parsed_query(name: str, connection: str) -> ParsedQuery:
    """Returns a query, parsed for the database of that connection.

    Raises:
        ConfigError, SqlError: As `python -m core check`.
    """
    with data.opened() as app:
        dialect = app.connections.dialect(connection)
        path = app.workspace.query_file(name)
    return _parsed_query(path, dialect.title, _stamp(path), dialect, connection)


@st.cache_resource(show_spinner=False, max_entries=16)
def _parsed_query(path: Path, dialect: str, stamp: tuple[int, int], _rules: Dialect, _connection: str) -> ParsedQuery:
    """Parses a file once, not at each rerun of the page; `stamp` identifies its version, `dialect` its rules.

    Of a large file it has only parameters and notes.
    """
    if apart.is_large(path):
        return replace(apart.outline(data.root(), _connection, path), dialect=_rules)
    return load(path, _rules)


def _stamp(path: Path) -> tuple[int, int]:
    """Returns change time in ns and size; zeros if there is no such file."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def resolved_parameters(
    query: ParsedQuery, given: Mapping[str, ParameterValue], at: datetime, timezone: str
) -> list[Resolved]:
    """Returns each parameter with its value for that scheduled time."""
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
    """Raises the error that a run of this job would have before it contacts anything; also if its query cannot be split."""
    workspace = data.workspace()
    looked_at = (workspace.query_file(job.query), workspace.connections_file, workspace.env_file)
    stamps = tuple(_stamp(path) for path in looked_at)
    error = _binding_problem(workspace.root, job.slug, job_text(job), at, stamps, job.query)
    if error is not None:
        raise error


@st.cache_data(ttl=STAMPED_S, show_spinner=False, max_entries=64)
def _binding_problem(
    folder: Path, slug: str, text: str, at: datetime, stamps: tuple[tuple[int, int], ...], query_name: str
) -> PsttError | None:
    """Returns that error, cached by `stamps`; a changed variable or secret file is noticed after `STAMPED_S`."""
    query = Workspace(folder).queries_dir / query_name
    return apart.binding_error(folder, slug, text, data.now(), at, apart=apart.is_large(query))


def preview(job: Job, at: datetime, rows: int) -> tuple[Plan, Preview]:
    """Returns the exact messages of a job, which need not be saved. It contacts the database, for 30 s at most."""
    caller("preview")
    workspace = data.workspace()
    if apart.has_large_query(workspace, job):
        return apart.preview(workspace.root, job.slug, job_text(job), data.now(), at, rows, PREVIEW_TIMEOUT_S)
    with data.opened() as app:
        plan = app.plan(job, now=data.now(), at=at)
        return plan, app.preview(plan, rows=rows, timeout_s=PREVIEW_TIMEOUT_S)


def query_file(name: str) -> StoredFile:
    """Returns an SQL file of `queries/`."""
    return read_stored(data.workspace().query_file(name))


def save_query(name: str, content: bytes, connection: str, seen_sha256: str) -> tuple[str, ...]:
    """Writes an SQL file that the readonly guard accepts. Returns notes about it for the user."""
    by = caller("save")
    with data.opened() as app:
        dialect, writes = app.connections.dialect(connection), app.connections.allows_writes(connection)
        notes = edit_files.save_query(
            app.workspace,
            app.ledger,
            name,
            content,
            dialect=dialect,
            allow_writes=writes,
            seen_sha256=seen_sha256,
            caller=by,
            now=data.now(),
            check=partial(apart.checked, app.workspace.root, connection),
        )
    _changed()
    return notes


def save_connections(document: Mapping[str, Any], about: str, seen_sha256: str) -> None:
    """Writes connections.json."""
    by = caller("connections")
    with data.opened() as app:
        edit_files.save_connections(
            app.workspace,
            app.ledger,
            document,
            os.environ,
            about=about,
            seen_sha256=seen_sha256,
            caller=by,
            now=data.now(),
        )
    _changed()


def set_default_environment(value: str, seen_sha256: str) -> None:
    """Sets the cluster of everything that names none."""
    by = caller("connections")
    with data.opened() as app:
        edit_settings.change_default_environment(
            app.workspace, app.ledger, value, os.environ, seen_sha256=seen_sha256, caller=by, now=data.now()
        )
    _changed()


def store_secret(reference: str, value: str) -> None:
    """Stores a secret where its reference points; only the reference is audited."""
    by = caller("secret")
    with data.opened() as app:
        edit_files.save_secret(app.workspace, app.ledger, reference, value, caller=by, now=data.now())


def test_database(name: str) -> list[CheckResult]:
    """Connects to a database. Returns what was found."""
    by = caller("test")
    with data.opened() as app:
        allow_test(app.ledger, "test", f"connection {name}", caller=by, now=data.now())
        return list(diagnose_database(app, name))


def test_cluster(name: str | None) -> list[CheckResult]:
    """Connects to a cluster. Returns what was found."""
    by = caller("test")
    with data.opened() as app:
        allow_test(app.ledger, "test", f"cluster {app.cluster(name).name}", caller=by, now=data.now())
        return list(diagnose_cluster(app, name))


def topics(name: str | None) -> list[TopicInfo]:
    """Returns the topics of a cluster."""
    caller("test")
    with data.opened() as app:
        publisher = open_publisher(app.cluster(name))
    try:
        return publisher.topics()
    finally:
        publisher.close(timeout_s=1)


def topic_settings(name: str | None, topic: str) -> list[TopicSetting]:
    """Returns the settings of a topic."""
    caller("test")
    with data.opened() as app:
        return settings_of_topic(app.cluster(name), topic)


def send(cluster: str | None, topic: str, key: str, value: str) -> dict[str, Any]:
    """Sends one message by hand. Returns where it is stored."""
    from core.run.send_by_hand import send_message  # loads pyarrow

    by = caller("send")
    with data.opened() as app:
        return send_message(app, topic, key, value, cluster=cluster, caller=by, now=data.now())


def save_alerts(document: Mapping[str, Any], seen_sha256: str) -> None:
    """Writes alerts.json."""
    by = caller("alerts")
    with data.opened() as app:
        edit_files.save_alerts(app.workspace, app.ledger, document, seen_sha256=seen_sha256, caller=by, now=data.now())
    _changed()


def send_test(channel: str, to: Sequence[str] = ()) -> DeliveryResult:
    """Sends a test message through `mail` or a channel. Returns the response for each recipient."""
    by = caller("test mail" if channel == MAIL else "test channel")
    with data.opened() as app:
        return alerts.send_test(app, channel, caller=by, now=data.now(), to=to)


def silences() -> list[Silence]:
    """Returns the silences that hold now."""
    with data.opened() as app:
        return AlertRecords(app.outbox).active(data.now())


def acknowledge(incident_id: int, note: str) -> None:
    """Records that the visitor knows of an open alert."""
    by = caller("acknowledge")
    with data.opened() as app:
        alerts.acknowledge(app.ledger, incident_id, note, caller=by, now=data.now())
    _changed()


def silence(rule: str, subject: str, until: datetime, note: str) -> None:
    """Keeps the messages about a rule, a subject or both back up to a time."""
    by = caller("silence")
    with data.opened() as app:
        alerts.silence(app.ledger, rule=rule, subject=subject, until=until, note=note, caller=by, now=data.now())
    _changed()


def end_silence(silence_id: int) -> None:
    """Ends a silence before its time."""
    by = caller("end silence")
    with data.opened() as app:
        alerts.end_silence(app.ledger, silence_id, caller=by, now=data.now())
    _changed()


def simulated_alerts(days: int, rules: Mapping[str, Mapping[str, Any]]) -> Simulation:
    """Returns what rules with these values would have fired in the last days; changes nothing."""
    with data.opened() as app:
        return alerts.simulated(app, days=days, now=data.now(), changes=rules)


# ── administration ────────────────────────────────────────────────────────────────────────────


def fill_with_demo(days: int | None = None) -> str:
    """Makes the demo in this workspace, which has to be empty. Returns the slug of its job.

    Raises:
        ConfigError: There is something else in the folder.
        StorageFailed: It cannot be written.
    """
    create_demo(
        data.root(),
        DEMO_ROWS,
        days=DEMO_DAYS if days is None else days,
        open_workspace=partial(open_workspace, log=False),
        caller=caller("demo"),
        now=data.now(),
    )
    _changed()
    return SLUG


def rebuild_metrics() -> int:
    """Builds metrics.duckdb again from the spool. Returns how many sends it has."""
    by = caller("rebuild")
    with data.opened() as app:
        made = rebuild_sends(app.metrics, app.ledger, caller=by, now=data.now())
    _changed()
    return made.sends


def change_setting(name: str, value: str | None) -> None:
    """Writes a setting into `.env`; None removes it there."""
    by = caller("settings")
    with data.opened() as app:
        edit_settings.change_setting(app.workspace, app.ledger, name, value, os.environ, caller=by, now=data.now())
    _changed()


def send_test_with(values: Mapping[str, str | None], password: str | None, to: Sequence[str]) -> DeliveryResult:
    """Sends a test mail with settings that are not saved. Returns the server's response for each recipient."""
    by = caller("settings")
    with data.opened() as app:
        return mail_settings.send_test_with(app, values, password=password, to=to, caller=by, now=data.now())


def save_mail_settings(values: Mapping[str, str | None], password: str | None, keep_in: str) -> None:
    """Writes the settings of the mail server, and stores its password as a secret."""
    by = caller("settings")
    with data.opened() as app:
        mail_settings.save_mail_settings(
            app, values, os.environ, password=password, keep_in=keep_in, caller=by, now=data.now()
        )
    _changed()


def start_service() -> list[str]:
    """Makes the runner a service and starts it. Returns what the service manager printed."""
    by = caller("service")
    with data.opened() as app:
        return start_as_service(app, caller=by, now=data.now())
