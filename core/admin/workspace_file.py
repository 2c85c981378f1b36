"""A workspace as one YAML file for git: written by `export`, compared and brought into a workspace by `apply`.

The file has jobs, SQL files, connections and alert rules, and no secret: references stay, a password that is written in
connections.json or alerts.json becomes `***`, which `apply` leaves as it is there.
"""

from __future__ import annotations

import difflib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from core.admin.check import Finding, check_jobs
from core.admin.edit_files import brought_back, save_alerts, save_connections, save_query
from core.admin.edit_jobs import create_job, delete_job, job_files, replace_job
from core.errors import ConfigError
from core.model.job import Job
from core.notify.rules import parse_alerts
from core.records.connections_versions import HIDDEN, hidden_secrets
from core.records.ledger import Ledger
from core.records.rights import Caller
from core.workspace.atomic import write_atomically
from core.workspace.connections import Connections, parse_connections
from core.workspace.jobs import SUFFIX, JobFile, job_of, job_text, read_job_file
from core.workspace.json_file import FilePosition, JsonFile, nearest, read_json_file
from core.workspace.paths import Workspace
from core.workspace.stored_file import StoredFile, read_stored
from core.workspace.yaml_file import yaml_text

__all__ = ["FORMAT", "Change", "ChangePlan", "apply_changes", "export_workspace", "plan_changes"]

FORMAT = 1
_FORMAT_KEY = "pstt_kafka"
_KEYS = (_FORMAT_KEY, "connections", "alerts", "queries", "jobs")
_SYMBOLS = {"create": "+", "change": "~", "delete": "-"}


@dataclass(frozen=True, slots=True)
class Change:
    """One file of the workspace that differs from the YAML file."""

    action: Literal["create", "change", "delete"]
    name: str
    """`job export`, `query a.sql`, `connections.json`, `alerts.json`."""
    before: str = field(repr=False)
    """Its content now, secrets hidden; empty: there is none."""
    after: str = field(repr=False)
    write: Callable[..., object] = field(repr=False)
    """Takes ledger, caller and now."""

    @property
    def symbol(self) -> str:
        """`+`, `~` or `-`."""
        return _SYMBOLS[self.action]

    def diff(self) -> list[str]:
        """Returns the lines that differ, each with `+`, `-` or a blank before it, and two lines around them."""
        lines = difflib.unified_diff(self.before.splitlines(), self.after.splitlines(), lineterm="", n=2)
        return [line for line in list(lines)[2:] if not line.startswith("@@")]


@dataclass(slots=True)
class ChangePlan:
    """What `apply` would do."""

    changes: list[Change] = field(default_factory=list)
    unchanged: int = 0
    notes: list[str] = field(default_factory=list)

    def add(self, change: Change, *, is_same: bool) -> None:
        """Adds a change, or counts a file that is as it should be."""
        if is_same:
            self.unchanged += 1
        else:
            self.changes.append(change)


def export_workspace(workspace: Workspace) -> str:
    """Returns the workspace as YAML, without secrets.

    Raises:
        ConfigError: A file of it cannot be read, or is no JSON.
    """
    document: dict[str, Any] = {_FORMAT_KEY: FORMAT}
    for key, path in (("connections", workspace.connections_file), ("alerts", workspace.alerts_file)):
        if path.exists():
            document[key] = hidden_secrets(read_json_file(path).document)
    queries = sorted(workspace.queries_dir.glob("*.sql"))
    document["queries"] = {path.name: _lines(read_stored(path)) for path in queries}
    document["jobs"] = {
        slug: read_json_file(workspace.queries_dir / f"{slug}{SUFFIX}").document for slug in job_files(workspace)
    }
    return yaml_text(document)


def _lines(stored: StoredFile) -> str:
    """Returns the text of a file with line feeds alone at the ends of its lines: YAML has no others."""
    return stored.text.replace("\r\n", "\n")


def plan_changes(
    workspace: Workspace,
    file: JsonFile,
    environ: Mapping[str, str],
    *,
    prune: bool = False,
) -> ChangePlan:
    """Compares a YAML file with the workspace and checks what the workspace would be with it. Writes nothing.

    Args:
        workspace: Where it would be applied.
        file: The YAML file.
        environ: What `env:` may name.
        prune: Jobs that the file does not have are to be deleted.

    Raises:
        ConfigError: The first problem of the file, with line and column, or of a job that works now and would not any
            more.
    """
    _require_format(file)
    plan = ChangePlan()
    connections = _plan_connections(workspace, file, environ, plan)
    _plan_alerts(workspace, file, plan)
    jobs = {slug: _job(workspace, file, slug) for slug in _object(file, "jobs")}
    queries = {name: _query(file, name) for name in _object(file, "queries")}
    for name, text in queries.items():
        connection = _connection_of(name, jobs, connections)
        if connection is None:
            raise file.error(
                ("queries", name),
                f"query {name} needs a connection, whose database it is written for",
                remedy="add one",
            )
        _plan_query(workspace, name, text, connection, connections, plan)
    there = job_files(workspace)
    for slug, job in jobs.items():
        if slug in there:
            _plan_replacement(workspace, job, plan)
        else:
            write = partial(create_job, workspace, job=job)
            plan.add(Change("create", f"job {slug}", "", job_text(job), write), is_same=False)
    removed = [slug for slug in there if slug not in jobs] if prune else []
    for slug in removed:
        _plan_removal(workspace, slug, plan)
    _refuse_new_problems(workspace, file, connections, jobs, queries, removed)
    return plan


def apply_changes(plan: ChangePlan, ledger: Ledger, *, caller: Caller, now: datetime) -> Iterator[Change]:
    """Makes the changes of a plan one after the other, and yields each when it is made.

    Raises:
        AccessRefused: The caller has no right to one of them.
        NewerEdit: A file was changed after the plan was made. What was yielded stays; apply the file again.
        StorageFailed: A file cannot be written; as before.
    """
    for change in plan.changes:
        change.write(ledger=ledger, caller=caller, now=now)
        yield change


def _require_format(file: JsonFile) -> None:
    for key in file.document:
        if key not in _KEYS:
            raise file.error((key,), f'unknown key "{key}"', remedy=nearest(key, _KEYS))
    found = file.document.get(_FORMAT_KEY)
    if found == FORMAT and found is not True:
        return
    again = "write it again with `python -m core export`"
    if found is None:
        raise file.error(
            (), f"the file does not say its format: {_FORMAT_KEY} is missing", remedy=f"add {_FORMAT_KEY}: {FORMAT}"
        )
    if isinstance(found, int) and found > FORMAT:
        raise file.error(
            (_FORMAT_KEY,),
            f"the file has format {found}, and this version of PSTT Kafka knows {FORMAT}",
            remedy=f"use a newer version, or {again} of this one",
        )
    raise file.error((_FORMAT_KEY,), f"format {found!r} is not supported", remedy=f"the format is {FORMAT}; {again}")


def _object(file: JsonFile, key: str) -> dict[str, Any]:
    found = file.document.get(key, {})
    if not isinstance(found, dict):
        raise file.error((key,), f"{key} must be an object: name → content")
    return found


def _part(file: JsonFile, position: FilePosition, path: Path) -> JsonFile:
    """Returns a part of the YAML file as the file of the workspace that it stands for."""
    document: Any = file.document
    for name in position:
        document = document[name]
    size = len(position)
    offsets = {at[size:]: offset for at, offset in file.offsets.items() if at[:size] == position}
    return JsonFile(path, file.text, document, offsets)


def _first(file: JsonFile, problems: list[ConfigError]) -> ConfigError:
    """Returns the first problem of a part as one of the YAML file, where its line and column are."""
    problems[0].file = file.path
    return problems[0]


def _plan_connections(
    workspace: Workspace, file: JsonFile, environ: Mapping[str, str], plan: ChangePlan
) -> Connections:
    path = workspace.connections_file
    seen = read_stored(path).sha256  # before it is read: an edit in between is noticed when it is written
    now = read_json_file(path) if seen else JsonFile(path, "", {})
    if "connections" not in file.document:
        return parse_connections(now, workspace, environ)[0]
    _object(file, "connections")
    part = _part(file, ("connections",), path)
    connections, problems = parse_connections(part, workspace, environ)
    if problems:
        raise _first(file, problems)
    document, missing = brought_back(json.dumps(part.document), now.document)
    plan.notes += [f'"{name}" has no password: enter it, or write a reference' for name in missing]
    write = partial(
        save_connections,
        workspace,
        document=document,
        environ=environ,
        about="connections",
        seen_sha256=seen,
    )
    plan.add(
        Change(_action(seen), path.name, _shown(now.document) if now.text else "", _shown(document), write),
        is_same=bool(now.text) and document == now.document,
    )
    return connections


def _plan_alerts(workspace: Workspace, file: JsonFile, plan: ChangePlan) -> None:
    if "alerts" not in file.document:
        return
    path = workspace.alerts_file
    _object(file, "alerts")
    part = _part(file, ("alerts",), path)
    if problems := parse_alerts(part)[1]:
        raise _first(file, problems)
    seen = read_stored(path).sha256
    now = read_json_file(path).document if seen else None
    document = _with_channels(part, now or {}, plan)
    write = partial(save_alerts, workspace, document=document, seen_sha256=seen)
    plan.add(
        Change(_action(seen), path.name, _shown(now) if now else "", _shown(document), write), is_same=document == now
    )


def _with_channels(part: JsonFile, now: Mapping[str, Any], plan: ChangePlan) -> dict[str, Any]:
    """Returns the alert rules with the addresses of channels that only the workspace has."""
    document: dict[str, Any] = dict(part.document)
    channels = dict(document.get("channels", {}))
    known = now.get("channels", {})
    for name in [name for name, place in channels.items() if place == HIDDEN]:
        if name in known:
            channels[name] = known[name]
        else:
            del channels[name]
            plan.notes.append(f'channel "{name}" has no address: enter it, or write a reference')
    return document | {"channels": channels} if "channels" in document else document


def _query(file: JsonFile, name: str) -> str:
    text = file.document["queries"][name]
    if not isinstance(text, str) or not text.strip():
        raise file.error(("queries", name), f"query {name} has no text", remedy="write the SQL below it, after `|`")
    return text


def _plan_query(
    workspace: Workspace, name: str, text: str, connection: str, connections: Connections, plan: ChangePlan
) -> None:
    stored = read_stored(workspace.query_file(name))
    is_windows = b"\r\n" in stored.content
    content = (text.replace("\n", "\r\n") if is_windows else text).encode()
    write = partial(
        save_query,
        workspace,
        name=name,
        content=content,
        dialect=connections.dialect(connection),
        allow_writes=connections.allows_writes(connection),
        seen_sha256=stored.sha256,
    )
    plan.add(
        Change(_action(stored.sha256), f"query {name}", _lines(stored), text, write),
        is_same=bool(stored.sha256) and _lines(stored) == text,
    )


def _connection_of(query: str, jobs: Mapping[str, Job], connections: Connections) -> str | None:
    """Returns the connection that a query is written for: that of a job which uses it, else any one."""
    used = [job.connection for job in jobs.values() if job.query == query]
    return next((name for name in [*used, *connections.database_names] if name in connections.database_names), None)


def _job(workspace: Workspace, file: JsonFile, slug: str) -> Job:
    path = workspace.inside(f"{slug}{SUFFIX}", workspace.queries_dir)
    job, problems = job_of(_part(file, ("jobs", slug), path))
    if job is None or problems:
        raise _first(file, problems)
    return job


def _plan_replacement(workspace: Workspace, job: Job, plan: ChangePlan) -> None:
    found = read_job_file(workspace, job.slug)
    before = _known_job(found)
    write = partial(replace_job, workspace, job=job, seen_sha256=found.sha256)
    shown = job_text(before) if before else found.text
    plan.add(Change("change", f"job {job.slug}", shown, job_text(job), write), is_same=job == before)


def _known_job(found: JobFile) -> Job | None:
    try:
        return found.job
    except ConfigError:
        return None  # it is replaced by a valid one


def _plan_removal(workspace: Workspace, slug: str, plan: ChangePlan) -> None:
    found = read_job_file(workspace, slug)
    write = partial(delete_job, workspace, slug=slug, seen_sha256=found.sha256)
    plan.add(Change("delete", f"job {slug}", found.text, "", write), is_same=False)


def _refuse_new_problems(
    workspace: Workspace,
    file: JsonFile,
    connections: Connections,
    jobs: Mapping[str, Job],
    queries: Mapping[str, str],
    removed: list[str],
) -> None:
    """Checks the jobs as they would be, in a copy of `queries/`. A problem that is there already may stay.

    Raises:
        ConfigError: The first new problem.
    """
    known = {(finding.where, finding.text) for finding in _errors(workspace, connections)}
    with tempfile.TemporaryDirectory(prefix="pstt-") as folder:
        copy = Workspace(Path(folder))
        for path in [*workspace.queries_dir.glob("*.sql"), *workspace.queries_dir.glob(f"*{SUFFIX}")]:
            if path.name.removesuffix(SUFFIX) not in removed:
                write_atomically(copy.queries_dir / path.name, path.read_bytes())
        for name, text in queries.items():
            write_atomically(copy.query_file(name), text)
        for slug, job in jobs.items():
            write_atomically(copy.queries_dir / f"{slug}{SUFFIX}", job_text(job))
        new = [found for found in _errors(copy, connections) if (found.where, found.text) not in known]
    if new:
        slug = new[0].where.partition(SUFFIX)[0]
        more = f" (and {len(new) - 1} more)" if len(new) > 1 else ""
        raise file.error(("jobs", slug), f"{new[0].where}: {new[0].text}{more}", remedy=new[0].remedy)


def _errors(workspace: Workspace, connections: Connections) -> list[Finding]:
    return [found for found in check_jobs(workspace, connections) if found.severity == "error"]


def _action(seen_sha256: str) -> Literal["create", "change"]:
    return "change" if seen_sha256 else "create"


def _shown(document: Any) -> str:
    return json.dumps(hidden_secrets(document), ensure_ascii=False, indent=2)
