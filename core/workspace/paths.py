"""The workspace: the user's folder, and the path of each file in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from core.errors import ConfigError

__all__ = ["WORKSPACE_VARIABLES", "Workspace", "page_workspaces"]

WORKSPACE_VARIABLES = ("PSTT_WORKSPACE", "PSTT_WORKSPACES")
"""They say where the settings are, so they cannot be among them."""


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
    def demo_marker(self) -> Path:
        """A file that only a demo has: its runs and sends are made anew by `python -m core demo`."""
        return self.state_dir / "demo"

    @property
    def is_demo(self) -> bool:
        """Whether `python -m core demo` made this workspace."""
        return self.demo_marker.is_file()

    @property
    def kept_topics_dir(self) -> Path:
        """The messages of a demo's mock broker."""
        return self.state_dir / "demo-topics"

    @property
    def edits_file(self) -> Path:
        """Versions of SQL files, and what was typed on the page and is not saved."""
        return self.state_dir / "edits.sqlite"

    @property
    def spool_dir(self) -> Path:
        """Sends, as Parquet segments."""
        return self.state_dir / "spool"

    @property
    def statements_dir(self) -> Path:
        """Which statements may be wrapped, for partitions and incremental jobs; made again if it is lost."""
        return self.state_dir / "statements"

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


def page_workspaces(environ: Mapping[str, str]) -> dict[str, Workspace]:
    """Returns the workspaces of PSTT_WORKSPACES by name, else the one that `Workspace.find` finds.

    PSTT_WORKSPACES is `NAME=FOLDER;NAME=FOLDER`; without `NAME=` the folder's own name is taken. The first one holds
    the users of the page and the tokens of the REST interface.

    Raises:
        ConfigError: A folder does not exist, two workspaces have one name, or a folder is there twice.
    """
    entries = [entry.strip() for entry in environ.get("PSTT_WORKSPACES", "").split(";") if entry.strip()]
    if not entries:
        found = Workspace.find(None, environ)
        return {found.root.name: found}
    workspaces: dict[str, Workspace] = {}
    for entry in entries:
        name, equals, folder = entry.partition("=")
        path = Path(folder.strip() if equals else entry)
        if not path.is_dir():
            raise ConfigError(
                f"there is no workspace {path}",
                why="PSTT_WORKSPACES names a folder that does not exist",
                remedy="write PSTT_WORKSPACES=NAME=FOLDER;NAME=FOLDER",
            )
        workspace = Workspace(path.resolve())
        name = name.strip() if equals else workspace.root.name
        if not name or name in workspaces or workspace in workspaces.values():
            raise ConfigError(
                f"PSTT_WORKSPACES has {entry} twice" if name else f"PSTT_WORKSPACES: {entry} has no name",
                remedy="give each workspace a name of its own: NAME=FOLDER;NAME=FOLDER",
            )
        workspaces[name] = workspace
    return workspaces
