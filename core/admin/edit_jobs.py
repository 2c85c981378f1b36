"""Creates, changes and deletes job files: never over a newer edit; each version is kept, each change audited.

A lock is held from reading the file to writing it. An editor on the same machine does not know that lock: what it saves
before is noticed, and what it overwrites is still among the versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

from core.errors import ConfigError, LedgerBusy, StorageFailed
from core.model.job import Job
from core.records.ledger import Ledger
from core.records.rights import Caller, require
from core.workspace.jobs import SUFFIX, JobFile, load_jobs, read_job_file, save_job
from core.workspace.locks import locked
from core.workspace.paths import Workspace

__all__ = [
    "BEFORE",
    "NameTaken",
    "NewerEdit",
    "create_job",
    "delete_job",
    "editing",
    "job_files",
    "replace_job",
    "require_free_name",
    "require_seen",
    "slug_of",
]

LOCK_WAIT_S = 5.0
BEFORE = timedelta(milliseconds=1)
"""A version that was found on disk is older than the change that found it."""
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows keeps for itself."""


class NameTaken(ConfigError):
    """Another job has that file name or that name."""


class NewerEdit(ConfigError):
    """The file is not the one that the caller has read: it was changed since."""


def job_files(workspace: Workspace) -> list[str]:
    """Returns the slugs of all job files, sorted."""
    return sorted(path.name.removesuffix(SUFFIX) for path in workspace.queries_dir.glob(f"*{SUFFIX}"))


def slug_of(name: str) -> str:
    """Returns the file name that a new job of that name gets: lower case, letters without accents, digits and `._-`."""
    return re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("-._")[:100] or "job"


def create_job(workspace: Workspace, ledger: Ledger, job: Job, *, caller: Caller, now: datetime) -> JobFile:
    """Writes the file of a new job.

    Raises:
        AccessRefused: The caller may not change jobs.
        NameTaken: There is such a file, or a job of that name.
        ConfigError: The job is not valid, or its slug is no file name everywhere; nothing is written.
        StorageFailed: The file cannot be written.
    """
    require(caller, "create")
    if not _SLUG.fullmatch(job.slug) or job.slug.endswith(".") or _DEVICES.fullmatch(job.slug):
        raise ConfigError(
            f"{job.slug!r} cannot be the name of a job's file",
            remedy="use letters, digits and . _ -, at most 100, no name that Windows keeps for itself",
        )
    with editing(workspace):
        if job.slug.lower() in map(str.lower, job_files(workspace)):
            raise NameTaken(f"there is a job file {job.slug}{SUFFIX} already", remedy="choose another id, or change it")
        require_free_name(workspace, job)
        save_job(workspace, job)
        saved = read_job_file(workspace, job.slug)
        ledger.job_versions.add(job.slug, saved.sha256, saved.text, now, saved_by=caller.name)
        ledger.audit.add(caller.name, "create", f"job {job.slug}", now, after=saved.text)
    return saved


def replace_job(
    workspace: Workspace,
    ledger: Ledger,
    job: Job,
    *,
    content: bytes | None = None,
    seen_sha256: str | None,
    caller: Caller,
    now: datetime,
) -> JobFile:
    """Writes a new version of a job's file; the previous one stays among its versions.

    Args:
        workspace: Where.
        ledger: Versions and audit.
        job: The new content.
        content: The bytes of an earlier version that describes it, written as they are; None: as `save_job` makes them.
        seen_sha256: Of the file that the caller has read; None: replaces any version.
        caller: Who changes it.
        now: The clock.

    Raises:
        AccessRefused: The caller may not change jobs.
        NoSuchJob: There is none.
        NewerEdit: It was changed since it was read.
        NameTaken: Another job has the new name.
        ConfigError: The job is not valid; nothing is written.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    require(caller, "change")
    with editing(workspace):
        before = _unchanged(workspace, job.slug, seen_sha256)
        require_free_name(workspace, job)
        ledger.job_versions.add(job.slug, before.sha256, before.text, now - BEFORE)
        save_job(workspace, job, content)
        saved = read_job_file(workspace, job.slug)
        ledger.job_versions.add(job.slug, saved.sha256, saved.text, now, saved_by=caller.name)
        ledger.audit.add(caller.name, "change", f"job {job.slug}", now, before=before.text, after=saved.text)
    return saved


def delete_job(
    workspace: Workspace, ledger: Ledger, slug: str, *, seen_sha256: str | None, caller: Caller, now: datetime
) -> None:
    """Deletes a job's file. Its versions and its runs are kept.

    Raises:
        AccessRefused: The caller may not change jobs.
        NoSuchJob: There is none.
        NewerEdit: It was changed since it was read.
        StorageFailed: It cannot be deleted.
    """
    require(caller, "delete")
    with editing(workspace):
        before = _unchanged(workspace, slug, seen_sha256)
        ledger.job_versions.add(slug, before.sha256, before.text, now - BEFORE)
        try:
            before.path.unlink()
        except OSError as error:
            raise StorageFailed(f"{before.path} cannot be removed", why=error.strerror or str(error)) from None
        ledger.job_versions.end_job(slug, now)
        ledger.audit.add(caller.name, "delete", f"job {slug}", now, before=before.text)


def _unchanged(workspace: Workspace, slug: str, seen_sha256: str | None) -> JobFile:
    found = read_job_file(workspace, slug)
    require_seen(f'job "{slug}"', found.sha256, seen_sha256)
    return found


def require_seen(what: str, stored_sha256: str, seen_sha256: str | None) -> None:
    """Refuses a change of a file that is not the one that the caller has read.

    Args:
        what: The file, for the message.
        stored_sha256: Of the file as it is now.
        seen_sha256: Of the file that the caller has read; None: any version may be replaced.

    Raises:
        NewerEdit: They differ.
    """
    if seen_sha256 not in (None, stored_sha256):
        raise NewerEdit(
            f"{what} was changed by another user since you read it",
            remedy="read it again, and make your change in that version",
        )


def require_free_name(workspace: Workspace, job: Job) -> None:
    """Refuses a job whose name another job has.

    Raises:
        NameTaken: Names are compared without regard to case.
    """
    for other in load_jobs(workspace)[0]:
        if other.slug != job.slug and other.name.lower() == job.name.lower():
            raise NameTaken(
                f'another job, in {other.slug}{SUFFIX}, is called "{job.name}" too', remedy="give it another name"
            )


@contextmanager
def editing(workspace: Workspace) -> Iterator[None]:
    """Holds the lock under which one process at a time changes a file of the user's."""
    busy = LedgerBusy("another change of a job is being written", remedy="try again in a moment")
    with locked(workspace.state_dir / "locks" / "edits", lambda: busy, wait_s=LOCK_WAIT_S):
        yield
