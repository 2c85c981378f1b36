"""The user's folder: what is where in it, and how a file of ours is written whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from core.errors import ConfigError

__all__ = ["Workspace"]


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
