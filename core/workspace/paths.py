"""The user's folder: what is where in it, and how a file of ours is written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from core.errors import ConfigError, StorageFailed

__all__ = ["StoredFile", "Workspace", "read_stored", "replace_file", "write_whole"]


@dataclass(frozen=True, slots=True)
class Workspace:
    """One folder with everything that belongs together.

    Args:
        root: The folder.
    """

    root: Path

    @classmethod
    def find(cls, option: str | Path | None, environ: Mapping[str, str]) -> Workspace:
        """The workspace of `--workspace`, else of PSTT_WORKSPACE, else this folder.

        Raises:
            ConfigError: That folder is not there.
        """
        given, origin = option, "--workspace"
        if not given and environ.get("PSTT_WORKSPACE"):
            given, origin = environ["PSTT_WORKSPACE"], "PSTT_WORKSPACE"
        root = Path(given) if given else Path.cwd()
        if not root.is_dir():
            raise ConfigError(
                f"there is no workspace {root}",
                why=f"{origin} names a folder that does not exist",
                remedy="make the folder, or name another one",
            )
        return cls(root.resolve())

    @property
    def connections_file(self) -> Path:
        """Databases and clusters."""
        return self.root / "connections.json"

    @property
    def env_file(self) -> Path:
        """Settings."""
        return self.root / ".env"

    @property
    def alerts_file(self) -> Path:
        """When somebody is told, and who."""
        return self.root / "alerts.json"

    @property
    def queries_dir(self) -> Path:
        """`*.sql` and `*.job.json`."""
        return self.root / "queries"

    @property
    def metrics_file(self) -> Path:
        """The sends, for charts and notebooks."""
        return self.root / "metrics.duckdb"

    @property
    def exports_dir(self) -> Path:
        """Excel and CSV files."""
        return self.root / "exports"

    @property
    def logs_dir(self) -> Path:
        """JSON lines."""
        return self.root / "logs"

    @property
    def state_dir(self) -> Path:
        """What is ours: ledger, spool, locks."""
        return self.root / ".pstt"

    @property
    def ledger_file(self) -> Path:
        """Runs and rejects."""
        return self.state_dir / "ledger.sqlite"

    @property
    def spool_dir(self) -> Path:
        """Sends, as Parquet segments."""
        return self.state_dir / "spool"

    @property
    def pending_dir(self) -> Path:
        """Sends, and rows kept aside, of transactions that are not known to be committed."""
        return self.state_dir / "pending"

    def inside(self, name: str, folder: Path | None = None) -> Path:
        """The path of a name that stands in a file; never one outside of `folder` (default: the workspace).

        Raises:
            ConfigError: The name leads elsewhere: `..`, an absolute path, a drive, a symbolic link.
        """
        base = folder or self.root
        path = base / name
        leaves = Path(name).is_absolute() or PureWindowsPath(name).drive or PureWindowsPath(name).root
        if not name or "\0" in name or leaves or not path.resolve().is_relative_to(base.resolve()):
            raise ConfigError(
                f"{name!r} is not a file below {base.name}/",
                remedy="use a name inside that folder, without .. or a drive",
            )
        return path

    def query_file(self, name: str) -> Path:
        """The SQL file that a job names."""
        return self.inside(name, self.queries_dir)


def write_whole(file: Path, content: str | bytes, *, private: bool = False) -> None:
    """Writes a file aside and renames it: a reader sees the old one or the new one, never a half.

    Args:
        file: Its final name; the folder is made when it is not there.
        content: Text is written as UTF-8.
        private: Readable by this account only (POSIX; on Windows the folder's rights apply).

    Raises:
        StorageFailed: The disk is full, or the folder may not be written; the old file is untouched.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    aside: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
        aside = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if not private:
            aside.chmod(0o644)
        replace_file(aside, file)
    except OSError as error:
        raise StorageFailed(
            f"{file} cannot be written",
            why=error.strerror or str(error),
            remedy="check the disk and the folder's permissions",
        ) from None
    finally:
        if aside is not None:
            with suppress(OSError):
                aside.unlink(missing_ok=True)


def replace_file(aside: Path, file: Path) -> None:
    """Windows refuses while somebody, often a virus scanner, has the file open for a moment."""
    for wait_s in (0.05, 0.1, 0.2, 0.4, 0.8):
        try:
            aside.replace(file)
            return
        except PermissionError:
            time.sleep(wait_s)
    aside.replace(file)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it stands on disk."""

    path: Path
    content: bytes
    sha256: str
    """Empty: there is no such file."""

    @property
    def text(self) -> str:
        """For people: what is no UTF-8 is read as Windows-1252, as the query's reader does."""
        try:
            return self.content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return self.content.decode("cp1252", "replace")


def read_stored(path: Path) -> StoredFile:
    """A file of the workspace; one that is not there is empty.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return StoredFile(path, b"", "")
    except OSError as error:
        raise ConfigError("the file cannot be read", why=error.strerror or str(error), file=path) from None
    return StoredFile(path, content, hashlib.sha256(content).hexdigest())
