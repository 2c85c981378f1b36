"""Checks whether this machine, this workspace and its servers are ready for a run. Each result is yielded when it is known."""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from core.admin.check import readable_secrets
from core.admin.server_checks import Servers, check_clusters, check_database, check_identity, guarded
from core.model.check_result import CheckResult
from core.model.job import Job
from core.records.damaged_segments import REMEDY, damaged_segments
from core.records.ledger import Ledger
from core.records.roll_up_note import last_note
from core.run.pending_transactions import read_note
from core.workspace.connections import Connections
from core.workspace.identity import identity_problem, read_identity
from core.workspace.paths import Workspace
from core.workspace.secrets import REFERENCES
from core.workspace.settings import Settings

__all__ = ["examine"]

LITTLE_SPACE_BYTES = 1024**3
"""200,000 sends a day take 10 MB in spool and metrics: 1 GB lasts some months."""
NO_SPACE_BYTES = 64 * 1024**2
"""With less the spool refuses to start a run."""
MOST_NAMES = 5
FIRST_SANE_YEAR = 2024
LAST_SANE_YEAR = 2100


def examine(
    workspace: Workspace, settings: Settings, connections: Connections, jobs: Sequence[Job], servers: Servers
) -> Iterator[CheckResult]:
    """Checks the machine, the workspace, each database and each cluster. Changes nothing and sends nothing.

    Yields:
        A result as soon as it is known. No PsttError is raised: it becomes a result, and a server that does not answer
        is marked `unreachable`.
    """
    now = servers.now()
    yield from guarded("python", _python)
    yield from guarded("clock", lambda: _clock(now, settings.PSTT_TIMEZONE))
    yield from guarded("disk", lambda: _disk(workspace.root))
    yield from guarded("permissions", lambda: _permissions(workspace, connections))
    yield from guarded("ledger", lambda: _ledger(workspace.ledger_file, now))
    yield from guarded("metrics.duckdb", lambda: _metrics(workspace))
    yield from guarded("spool", lambda: _spool(workspace.spool_dir))
    yield from guarded("identity", lambda: _identity(workspace))
    yield from guarded("transactions", lambda: _transactions(workspace))
    for name in connections.database_names:
        yield from check_database(connections, name, servers)
    yield from check_clusters(settings, connections, jobs, servers)
    yield from guarded("identity", lambda: check_identity(workspace, settings, connections, jobs, servers))


def _python() -> Iterator[CheckResult]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - reports an older one that was started nevertheless
        yield CheckResult("fail", "python", f"version {version} is too old", "install Python 3.11 or newer")
    else:
        yield CheckResult("pass", "python", f"version {version}")


def _clock(now: datetime, timezone: str) -> Iterator[CheckResult]:
    local = now.astimezone(ZoneInfo(timezone))  # settings with an unknown zone are not loaded
    text = f"{local:%Y-%m-%d %H:%M:%S} {timezone}"
    if FIRST_SANE_YEAR <= local.year <= LAST_SANE_YEAR:
        yield CheckResult("pass", "clock", text)
    else:
        yield CheckResult(
            "fail",
            "clock",
            f"{text} cannot be right",
            "set the clock: calendars, parameters and certificates depend on it",
        )


def _disk(root: Path) -> Iterator[CheckResult]:
    free = shutil.disk_usage(root).free
    text = f"{free / 1e9:,.1f} GB free"
    remedy = "make room on the disk of the workspace"
    if free < NO_SPACE_BYTES:
        yield CheckResult("fail", "disk", f"{text}: no run begins with less than {NO_SPACE_BYTES // 2**20} MB", remedy)
    elif free < LITTLE_SPACE_BYTES:
        yield CheckResult("warn", "disk", text, remedy)
    else:
        yield CheckResult("pass", "disk", text)


def _permissions(workspace: Workspace, connections: Connections) -> Iterator[CheckResult]:
    problem = _cannot_write(workspace.root)
    if problem:
        remedy = "give this account the right to write there, or choose another folder with --workspace DIR"
        yield CheckResult("fail", "permissions", f"the workspace cannot be written: {problem}", remedy)
    else:
        yield CheckResult("pass", "permissions", "the workspace can be written")
    for file in readable_secrets(workspace, connections):
        remedy = f"chmod 600 {file.name}, or put {REFERENCES} in the secret's place"
        yield CheckResult(
            "warn", "permissions", f"{file.name} holds a password and every account here may read it", remedy
        )


def _cannot_write(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _ledger(file: Path, now: datetime) -> Iterator[CheckResult]:
    if not file.exists():
        yield CheckResult("pass", "ledger", "not made yet, the first run makes it")
        return
    with Ledger(file) as ledger:
        newest = next(iter(ledger.history.newest(None, 1)), None)
    damage = _damage(file)
    if damage:
        remedy = (
            f"restore {file.name} from a backup, or move it away: runs are then forgotten, sends stay in metrics.duckdb"
        )
        yield CheckResult("fail", "ledger", f"{file.name} is damaged: {damage}", remedy)
    else:
        yield CheckResult("pass", "ledger", "opens, and is whole")
    if newest and newest.started_at > now + timedelta(minutes=1):
        yield CheckResult(
            "warn",
            "clock",
            f"the newest run began at {newest.started_at:%Y-%m-%d %H:%M} UTC, which is still to come",
            "the clock was set back: correct it, or wait until then before trusting times",
        )


def _damage(file: Path) -> str:
    """Returns what SQLite finds damaged, or an empty text. Reads the whole file (0.2 s for 100 MB)."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if verdict == "ok" else str(verdict).splitlines()[-1]


def _metrics(workspace: Workspace) -> Iterator[CheckResult]:
    file, spool_dir = workspace.metrics_file, workspace.spool_dir
    segments = {path.name for path in spool_dir.glob("*.parquet")} if spool_dir.is_dir() else set()
    if not file.exists():
        yield CheckResult("pass", file.name, f"not made yet, {_segments(segments)} in the spool")
        return
    import duckdb

    from core.records.merged_store import MergedSegments
    from core.records.rolled_up import RolledUp

    rolled_up = RolledUp(spool_dir)
    try:
        with duckdb.connect(str(file), config={"threads": 1}) as db:
            known = {name for (name,) in db.execute("SELECT name FROM segment").fetchall()}
            waiting = sorted(segments - known - rolled_up.replaced_segments())
            waiting = MergedSegments(spool_dir).waiting(waiting, known, db, "main")
    except duckdb.Error as error:
        yield _metrics_problem(file.name, str(error).partition("\n")[0])
        return
    text = f"opens, {_segments(known)} copied" + (
        f", {len(waiting):,} {'waits' if len(waiting) == 1 else 'wait'}" if waiting else ""
    )
    since = rolled_up.known_since().text
    yield CheckResult("pass", file.name, f"{text}; {since}" if since else text)
    if note := last_note(workspace):
        yield CheckResult("warn", file.name, note, "close the notebook or tool that has it open")


def _spool(spool_dir: Path) -> Iterator[CheckResult]:
    """Yields a warning about damaged segments. `_metrics` reports how many segments there are."""
    found = [segment.name for segment in damaged_segments(spool_dir)]
    if found:
        names = ", ".join(found[:MOST_NAMES]) + (", …" if len(found) > MOST_NAMES else "")
        text = f"{_segments(set(found))} could not be read and are in {spool_dir / 'damaged'}: {names}"
        yield CheckResult(
            "warn", "spool", f"{text}; metrics and find lack their sends, the verdicts of runs are kept", REMEDY
        )


def _metrics_problem(name: str, why: str) -> CheckResult:
    from core.records.metrics_file import is_held

    if is_held(why):
        remedy = "close the notebook or tool that has it open; until then sends wait in the spool and nothing is lost"
        return CheckResult("warn", name, f"is open in another program ({why})", remedy)
    return CheckResult(
        "fail", name, f"cannot be read ({why})", "python -m core metrics rebuild makes it again from the spool"
    )


def _segments(names: set[str]) -> str:
    return "1 segment" if len(names) == 1 else f"{len(names):,} segments"


def _identity(workspace: Workspace) -> Iterator[CheckResult]:
    if question := identity_problem(workspace):
        yield CheckResult("fail", "identity", question.text, question.remedy)
    elif known := read_identity(workspace):
        yield CheckResult("pass", "identity", f"{known.id}, under which runs of exactly_once send")


def _transactions(workspace: Workspace) -> Iterator[CheckResult]:
    files = sorted(workspace.pending_dir.glob("*.json"))
    if not files:
        return
    with Ledger(workspace.ledger_file) as ledger:
        for file in files:
            run = ledger.known(file.stem)
            if run is not None and run.state == "running" and ledger.is_alive(run.run_id):
                continue
            whose = f"run {file.stem}" + (f" of job {run.job}" if run else "")
            remedy = "the runner asks the cluster each half minute, and the job's next run asks too: the log says what hinders"
            if read_note(file) is None:
                remedy = f"{file} cannot be read: restore it from a backup"
            yield CheckResult("warn", "transactions", f"whether {whose} was committed is not known yet", remedy)
