"""Changes of job files by people and programs: never over somebody else's newer edit, each one kept and written down.

Whoever changes a file here holds a lock for the moment between looking at it and writing it. An editor on the same
machine does not know that lock; what it saves before is seen, and what it replaces is still among the versions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from core.errors import ConfigError, LedgerBusy, StorageFailed
from core.model.job import Job
from core.records.ledger import Ledger
from core.workspace.jobs import SUFFIX, JobFile, load_jobs, read_job_file, save_job
from core.workspace.locks import locked
from core.workspace.paths import Workspace

__all__ = ["NameTaken", "NewerEdit", "create_job", "delete_job", "editing", "job_files", "replace_job"]

LOCK_WAIT_S = 5.0
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_DEVICES = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows keeps for itself."""


class NameTaken(ConfigError):
    """Another job has that file name or that name."""


class NewerEdit(ConfigError):
    """The file is not the one that was read: somebody else has changed it since."""


def job_files(workspace: Workspace) -> list[str]:
    """The slugs of all job files, by name."""
    return sorted(path.name.removesuffix(SUFFIX) for path in workspace.queries_dir.glob(f"*{SUFFIX}"))


def create_job(workspace: Workspace, ledger: Ledger, job: Job, *, who: str, now: datetime) -> JobFile:
    """Writes the file of a new job.

    Raises:
        NameTaken: There is such a file, or a job of that name.
        ConfigError: The job is not valid, or its slug is no file name everywhere; nothing is written.
        StorageFailed: The file cannot be written.
    """
    if not _SLUG.fullmatch(job.slug) or job.slug.endswith(".") or _DEVICES.fullmatch(job.slug):
        raise ConfigError(
            f"{job.slug!r} cannot be the name of a job's file",
            remedy="use letters, digits and . _ -, at most 100, no name that Windows keeps for itself",
        )
    with editing(workspace):
        if job.slug.lower() in map(str.lower, job_files(workspace)):
            raise NameTaken(f"there is a job file {job.slug}{SUFFIX} already", remedy="choose another id, or change it")
        _require_free_name(workspace, job)
        save_job(workspace, job)
        saved = read_job_file(workspace, job.slug)
        ledger.job_versions.add(job.slug, saved.sha256, saved.text, now, saved_by=who)
        ledger.audit.add(who, "create", f"job {job.slug}", now, after=saved.text)
    return saved


def replace_job(
    workspace: Workspace, ledger: Ledger, job: Job, *, seen_sha256: str | None, who: str, now: datetime
) -> JobFile:
    """Writes another version of a job's file; the one before stays among its versions.

    Args:
        workspace: Where.
        ledger: Versions and audit.
        job: What the file is to say.
        seen_sha256: Of the file that the change began with; None: whatever stands there.
        who: Who changes it.
        now: The clock.

    Raises:
        NoSuchJob: There is none.
        NewerEdit: Somebody else has changed it since.
        NameTaken: Another job has the new name.
        ConfigError: The job is not valid; nothing is written.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    with editing(workspace):
        before = _unchanged(workspace, job.slug, seen_sha256)
        _require_free_name(workspace, job)
        ledger.job_versions.add(job.slug, before.sha256, before.text, now)
        save_job(workspace, job)
        saved = read_job_file(workspace, job.slug)
        ledger.job_versions.add(job.slug, saved.sha256, saved.text, now, saved_by=who)
        ledger.audit.add(who, "change", f"job {job.slug}", now, before=before.text, after=saved.text)
    return saved


def delete_job(
    workspace: Workspace, ledger: Ledger, slug: str, *, seen_sha256: str | None, who: str, now: datetime
) -> None:
    """Removes a job's file; it stays among its versions, its runs in the ledger.

    Raises:
        NoSuchJob: There is none.
        NewerEdit: Somebody else has changed it since.
        StorageFailed: It cannot be removed.
    """
    with editing(workspace):
        before = _unchanged(workspace, slug, seen_sha256)
        ledger.job_versions.add(slug, before.sha256, before.text, now)
        try:
            before.path.unlink()
        except OSError as error:
            raise StorageFailed(f"{before.path} cannot be removed", why=error.strerror or str(error)) from None
        ledger.job_versions.end_job(slug, now)
        ledger.audit.add(who, "delete", f"job {slug}", now, before=before.text)


def _unchanged(workspace: Workspace, slug: str, seen_sha256: str | None) -> JobFile:
    found = read_job_file(workspace, slug)
    if seen_sha256 not in (None, found.sha256):
        raise NewerEdit(
            f'job "{slug}" was changed by somebody else since you read it',
            remedy="read it again, and make your change in that version",
        )
    return found


def _require_free_name(workspace: Workspace, job: Job) -> None:
    for other in load_jobs(workspace)[0]:
        if other.slug != job.slug and other.name.lower() == job.name.lower():
            raise NameTaken(
                f'another job, in {other.slug}{SUFFIX}, is called "{job.name}" too', remedy="give it another name"
            )


@contextmanager
def editing(workspace: Workspace) -> Iterator[None]:
    """One change of a file at a time, whichever process makes it."""
    busy = LedgerBusy("another change of a job is being written", remedy="try again in a moment")
    with locked(workspace.state_dir / "locks" / "edits", lambda: busy, wait_s=LOCK_WAIT_S):
        yield
