"""Writes the note on a day of a job, which everybody sees where the day is shown; each change is audited."""

from __future__ import annotations

from datetime import date, datetime

from core.admin.edit_jobs import job_files
from core.errors import ConfigError
from core.records.day_notes import DayNote
from core.records.opened import OpenWorkspace
from core.records.rights import Caller, require
from core.workspace.jobs import NoSuchJob
from core.workspace.json_file import nearest

__all__ = ["MOST_CHARACTERS", "known_job", "write_note"]

MOST_CHARACTERS = 1_000
"""A note is a sentence or two, drawn in a chart's label too."""


def write_note(
    opened: OpenWorkspace, slug: str, day: date, text: str, *, caller: Caller, now: datetime
) -> DayNote | None:
    """Writes what users should know about a day of a job, in place of the note that was there.

    Args:
        opened: The workspace.
        slug: Of the job, which may be deleted.
        day: In the time zone of the job; it may be one to come.
        text: The note; empty: the one that was there is removed.
        caller: Who writes it.
        now: The clock.

    Returns:
        The note; None: there is none any more.

    Raises:
        AccessRefused: The caller may not send.
        NoSuchJob: No job of that name is there, and none was.
        ConfigError: The text is too long.
    """
    require(caller, "note")
    job, text, ledger = known_job(opened, slug), text.strip(), opened.ledger
    if len(text) > MOST_CHARACTERS:
        raise ConfigError(
            f"a note has at most {MOST_CHARACTERS:,} characters", why=f"it has {len(text):,}", remedy="write less"
        )
    note = DayNote(job, day, text, caller.name, now) if text else None
    with ledger.transaction():
        before = ledger.day_notes.on(job, day)
        if (before.text if before else "") == text:
            return before
        if note:
            ledger.day_notes.put(note)
        else:
            ledger.day_notes.remove(job, day)
        about = f"day {day} of job {job}"
        ledger.audit.add(caller.name, "note", about, now, before=before.text if before else None, after=text or None)
    return note


def known_job(opened: OpenWorkspace, slug: str) -> str:
    """Returns the slug of a job that is there, or was.

    Raises:
        NoSuchJob: There is none, and none was.
    """
    known = {*job_files(opened.workspace), *opened.ledger.job_versions.jobs(), *opened.ledger.history.jobs()}
    if slug not in known:
        raise NoSuchJob(f'there is no job "{slug}"', remedy=nearest(slug, sorted(known)))
    return slug
