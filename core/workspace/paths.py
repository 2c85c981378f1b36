"""The workspace: the user's folder, and the path of each file in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from core.errors import ConfigError

__all__ = ["Workspace"]


@dataclass(frozen=True, slots=True)
class Workspace:
    """One folder with the configuration, queries and records of an installation.

    Args:
        root: The folder.
    """

    root: Path

    @classmethod
    def find(cls, option: str | Path | None, environ: Mapping[str, str]) -> Workspace:
        """Returns the workspace of `--workspace`, else of PSTT_WORKSPACE, else the current folder.

        Raises:
            ConfigError: The folder does not exist.
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
        """Databases and Kafka clusters."""
        return self.root / "connections.json"

    @property
    def env_file(self) -> Path:
        """Settings."""
        return self.root / ".env"

    @property
    def alerts_file(self) -> Path:
        """When alerts are sent, and to whom."""
        return self.root / "alerts.json"

    @property
    def queries_dir(self) -> Path:
        """Queries (`*.sql`) and jobs (`*.job.json`)."""
        return self.root / "queries"

    @property
    def metrics_file(self) -> Path:
        """Every send, for charts and notebooks."""
        return self.root / "metrics.duckdb"

    @property
    def exports_dir(self) -> Path:
        """Excel and CSV files of jobs."""
        return self.root / "exports"

    @property
    def logs_dir(self) -> Path:
        """Log files, one a day, in JSON lines."""
        return self.root / "logs"

    @property
    def state_dir(self) -> Path:
        """The program's own files: ledger, spool, locks."""
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
        """Sends and rejected rows of transactions whose commit is not confirmed."""
        return self.state_dir / "pending"

    def inside(self, name: str, folder: Path | None = None) -> Path:
        """Returns the path of a name below `folder` (default: the workspace).

        Raises:
            ConfigError: The name leads out of it: `..`, an absolute path, a drive, a symbolic link.
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
        """Returns the path of a job's SQL file."""
        return self.inside(name, self.queries_dir)
