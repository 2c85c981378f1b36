"""The identity of a workspace: it separates the transactional ids and markers of several workspaces on one cluster.

The id is created once and stored in `.pstt/identity.json` with the location where it was created. A moved folder keeps
the id. A copied folder needs a new one: two workspaces with one id would each take the other's rows for their own, and
fence each other's transactions. No file shows whether a folder was moved or copied, so in doubt the operator decides,
and until then no run with `exactly_once` starts.
"""

from __future__ import annotations

import os
import platform
import secrets
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from core.clock import iso_utc
from core.errors import ConfigError, LedgerBusy, PsttError, StorageFailed
from core.workspace.atomic import write_atomically
from core.workspace.locks import locked
from core.workspace.paths import Workspace

__all__ = [
    "Answer",
    "Identity",
    "WorkspaceLocation",
    "identity_problem",
    "own_identity",
    "read_identity",
    "resolve_identity",
]

Answer = Literal["moved", "copied"]
LOCK_WAIT_S = 60.0
KEPT_PLACES = 50
"""Locations kept: a container with a new host name at each start adds one each time."""


class WorkspaceLocation(msgspec.Struct, frozen=True):
    """Where a workspace is."""

    host: str
    path: str
    folder: str = ""
    """Inode of `.pstt`: a renamed folder keeps it, a copy has another one. Empty: not known."""

    @classmethod
    def of(cls, workspace: Workspace) -> WorkspaceLocation:
        """Returns the current location of a workspace."""
        number = workspace.state_dir.stat().st_ino if workspace.state_dir.is_dir() else 0
        return cls(platform.node(), os.path.normcase(workspace.root.resolve()), str(number or ""))

    def is_same(self, other: WorkspaceLocation) -> bool:
        """Returns whether two of host, path and folder are equal, as after a rename, a restored backup, a new container."""
        same_folder = self.folder == other.folder != ""
        return (self.host == other.host) + (self.path == other.path) + same_folder >= 2

    def __str__(self) -> str:
        return f"{self.path} on {self.host}"


class Identity(msgspec.Struct, frozen=True):
    """The id of a workspace, and the locations where it was used."""

    id: str
    place: WorkspaceLocation
    earlier: tuple[tuple[WorkspaceLocation, str], ...] = ()
    """Former locations, and when the move was detected (ISO 8601, UTC)."""

    def was_at(self, host: str, path: str, moment: str) -> bool:
        """Returns whether this workspace was at a location at a time (ISO 8601, UTC)."""
        if (host, path) == (self.place.host, self.place.path):
            return True
        return any((host, path) == (place.host, place.path) and moment <= until for place, until in self.earlier)


def read_identity(workspace: Workspace) -> Identity | None:
    """Returns the stored identity; None if there is none yet.

    Raises:
        StorageFailed: The file cannot be read.
    """
    file = _file(workspace)
    try:
        return msgspec.json.decode(file.read_bytes(), type=Identity)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise StorageFailed(
            f"{file} cannot be read",
            why=getattr(error, "strerror", None) or str(error),
            remedy="restore it from a backup; without it, runs of exactly_once do not know what they sent before",
        ) from None


def own_identity(workspace: Workspace, now: datetime) -> Identity:
    """Returns the identity of this workspace. Creates it at the first call, and records a move that is certain.

    Raises:
        ConfigError: The folder may be a copy of another workspace; the operator has to answer.
        StorageFailed: The file cannot be read or written.
    """
    with _locked(workspace):
        known = read_identity(workspace)
        if known is None:
            return _write(workspace, Identity(secrets.token_hex(6), WorkspaceLocation.of(workspace)))
        if question := _question(workspace, known):
            raise question
        here = WorkspaceLocation.of(workspace)
        return known if known.place == here else _write(workspace, _moved(known, here, now))


def identity_problem(workspace: Workspace) -> PsttError | None:
    """Returns the problem that the operator has to solve; None if there is none, or no identity yet."""
    try:
        known = read_identity(workspace)
    except StorageFailed as error:
        return error
    return _question(workspace, known) if known else None


def resolve_identity(workspace: Workspace, given: Answer, now: datetime) -> Identity:
    """Keeps the identity (`moved`), or creates a new one (`copied`).

    Raises:
        ConfigError: There is no identity yet.
        StorageFailed: The file cannot be read or written.
    """
    with _locked(workspace):
        known = read_identity(workspace)
        if known is None:
            raise ConfigError(
                "this workspace has no identity yet",
                remedy="nothing is to be done: the first run of exactly_once makes it",
            )
        here = WorkspaceLocation.of(workspace)
        return _write(workspace, _moved(known, here, now) if given == "moved" else Identity(secrets.token_hex(6), here))


def _question(workspace: Workspace, known: Identity) -> ConfigError | None:
    here = WorkspaceLocation.of(workspace)
    if known.place.is_same(here):
        return None
    certain = False
    if known.place.host == here.host:
        there = _id_at(Path(known.place.path))
        certain = there == known.id
        if there != "" and not certain:  # no workspace has this id there, so the folder was moved
            return None
    return ConfigError(
        f"this workspace {'is' if certain else 'may be'} a copy of {known.place}",
        why=f"{_file(workspace).name} in .pstt was made there, and two workspaces with one identity take each other's "
        "rows for their own",
        remedy="answer once: python -m core identity copied (it is another workspace from now on), or "
        "python -m core identity moved (the one there is gone for good)",
    )


def _id_at(root: Path) -> str | None:
    """Returns the id of the workspace at that path; None if there is none, empty if it cannot be read."""
    try:
        found = read_identity(Workspace(root))
    except StorageFailed:
        return ""
    return found.id if found else None


def _moved(known: Identity, here: WorkspaceLocation, now: datetime) -> Identity:
    if (known.place.host, known.place.path) == (here.host, here.path):
        return msgspec.structs.replace(known, place=here)
    earlier = (*known.earlier, (known.place, iso_utc(now)))
    return msgspec.structs.replace(known, place=here, earlier=earlier[-KEPT_PLACES:])


def _file(workspace: Workspace) -> Path:
    return workspace.state_dir / "identity.json"


def _write(workspace: Workspace, identity: Identity) -> Identity:
    write_atomically(_file(workspace), msgspec.json.format(msgspec.json.encode(identity), indent=1))
    return identity


def _locked(workspace: Workspace) -> AbstractContextManager[None]:
    """Lets two processes that create the identity at once get the same one."""
    busy = LedgerBusy("another process writes the identity of this workspace", remedy="try again in a moment")
    return locked(workspace.state_dir / "identity.lock", lambda: busy, wait_s=LOCK_WAIT_S)
