"""The versions of each job file, and since when each was in force."""

from __future__ import annotations

import codecs
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar

from core.clock import iso_utc
from core.records.rows import from_row
from core.records.store import StorePart

__all__ = ["JobVersion", "JobVersions"]


@dataclass(frozen=True, slots=True)
class JobVersion:
    """A version of a job file."""

    job: str
    sha256: str
    document: str
    seen_at: datetime
    saved_by: str
    """Who saved it on the page; empty: it was found on disk."""

    @property
    def content(self) -> bytes:
        """The bytes of the file. The ledger has its text, in which a byte order mark is no character: the hash shows one."""
        content = self.document.encode()
        marked = codecs.BOM_UTF8 + content
        return marked if hashlib.sha256(marked).hexdigest() == self.sha256 else content


class JobVersions(StorePart):
    """The versions of all job files of one workspace, also of deleted ones."""

    sql_file: ClassVar[str] = "job_versions.sql"

    def add(self, job: str, sha256: str, document: str, now: datetime, saved_by: str = "") -> None:
        """Writes a version, which is in force from now on unless it was already.

        A version that was seen before becomes the newest again; it keeps the time at which it was first seen.
        """
        row = {"job": job, "sha256": sha256, "document": document, "seen_at": iso_utc(now), "saved_by": saved_by}
        with self._store.transaction() as db:
            db.execute(self._sql["insert"], row)
            db.execute(self._sql["add_to_history"], {"job": job, "since": iso_utc(now), "sha256": sha256})

    def end_job(self, job: str, now: datetime) -> None:
        """Writes that the file of a job was deleted: from now on none of its scheduled times is due."""
        self._write("add_to_history", {"job": job, "since": iso_utc(now), "sha256": ""})

    def history(self, job: str) -> list[tuple[datetime, str | None]]:
        """Returns since when each text of a job file was in force, in the order of its discovery; None: it was deleted."""
        return [
            (datetime.fromisoformat(row["since"]).astimezone(UTC), row["document"])
            for row in self._rows("history", {"job": job})
        ]

    def jobs(self) -> list[str]:
        """Returns the slug of every job whose file was ever seen, also of deleted ones."""
        return [row["job"] for row in self._rows("in_force", {"job": None})]

    def in_force(self, job: str | None = None) -> dict[str, str]:
        """Returns job → hash of the newest version that was seen of its file; deleted jobs are left out."""
        return {row["job"]: row["sha256"] for row in self._rows("in_force", {"job": job}) if row["sha256"]}

    def get(self, job: str, sha256: str | None = None) -> JobVersion | None:
        """Returns that version of a job file, or the newest one; None where there is none."""
        name = "version" if sha256 else "newest"
        rows = self._rows(name, {"job": job, **({"sha256": sha256} if sha256 else {})})
        return from_row(JobVersion, rows[0]) if rows else None

    def of_job(self, job: str) -> list[JobVersion]:
        """Returns every version of a job file, newest first. One that came back is there again with its new time."""
        return [from_row(JobVersion, row) for row in self._rows("of_job", {"job": job})]

    def deleted(self) -> dict[str, datetime]:
        """Returns slug → when its file was deleted, as far as that was seen, of each job that is deleted."""
        return {row["job"]: datetime.fromisoformat(row["since"]).astimezone(UTC) for row in self._rows("deleted")}
