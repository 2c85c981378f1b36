"""Bodies and responses of `/api/files`."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from core.admin.deleted import DeletedKind
from core.admin.versions import VersionKind
from ui.api.shapes import TakenBody


class QueryShape(TakenBody):
    """The text of an SQL file."""

    sql: str = Field(min_length=1, max_length=5_000_000, description="At most 5,000,000 bytes of UTF-8.")
    connection: str = Field(max_length=300, description="Of connections.json: it is checked as SQL of that database.")


class RenameShape(TakenBody):
    """The new name of an SQL file."""

    new_name: str = Field(min_length=1, max_length=300, description="Below queries/, with .sql.")


class RestoreShape(TakenBody):
    """What is brought back."""

    kind: DeletedKind
    name: str = Field(min_length=1, max_length=300, description="As in the list of what was deleted.")


class QueryRow(BaseModel):
    """An SQL file."""

    name: str
    size_bytes: int
    etag: str = Field(description="For If-Match.")
    jobs: list[str] = Field(description="The ids of the jobs that read it.")


class QueryRows(BaseModel):
    """A page of the SQL files."""

    items: list[QueryRow]
    total: int
    limit: int
    offset: int


class QueryDetail(BaseModel):
    """One SQL file."""

    name: str
    sql: str = Field(description="Its text; one that is not UTF-8 was read as Windows-1252.")
    size_bytes: int
    jobs: list[str]
    waiting_runs: int = Field(description="Runs of these jobs that are planned or asked for.")
    running: int


class SavedQuery(BaseModel):
    """An SQL file that was written."""

    name: str
    etag: str
    notes: list[str] = Field(description="Such as that its encoding is not UTF-8.")


class RenamedQuery(BaseModel):
    """An SQL file that was renamed."""

    name: str
    jobs: list[str] = Field(description="The ids of the jobs that were changed with it.")


class QueryVersionRow(BaseModel):
    """A version of an SQL file."""

    version_id: int
    seen_at: datetime
    saved_by: str = Field(description="Empty: it was found on disk.")
    size_bytes: int


class QueryVersions(BaseModel):
    """The versions of an SQL file."""

    items: list[QueryVersionRow]


class VersionRow(BaseModel):
    """A version of a job, an SQL file or connections.json."""

    number: int = Field(description="It stays the same while newer versions are added.")
    seen_at: datetime
    saved_by: str = Field(description="Empty: it was found on disk.")
    size_bytes: int
    added: int | None = Field(
        description="Lines that the version before does not have; null: the file is too large to be compared."
    )
    removed: int | None


class VersionRows(BaseModel):
    """The versions of a file, the newest first."""

    items: list[VersionRow]


class VersionDetail(VersionRow):
    """A version with its text."""

    text: str = Field(description="That of connections.json has *** in place of each password.")


class RestoredVersion(BaseModel):
    """A version that is the newest again."""

    kind: VersionKind
    name: str
    number: int
    etag: str = Field(description="Of the file as it is now, for If-Match.")
    missing_passwords: list[str] = Field(
        description="The connections and clusters whose password was in the file itself: enter it again."
    )


class DeletedRow(BaseModel):
    """Something deleted that can be brought back."""

    kind: DeletedKind
    name: str
    title: str
    deleted_at: datetime | None = Field(
        description="Null: it was deleted in another program, and the time is not known."
    )
    deleted_by: str


class DeletedRows(BaseModel):
    """A page of what was deleted."""

    items: list[DeletedRow]
    total: int
    limit: int
    offset: int


class Restored(BaseModel):
    """What was brought back."""

    kind: DeletedKind
    name: str
    needs_password: bool = Field(description="Its password was in connections.json itself: enter it again.")
