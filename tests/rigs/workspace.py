"""Workspaces over the real servers, for tests and bench."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.rigs.fork_server import ROOT, fork_server

PASSWORD_VARIABLE = "RIG_DB_PASSWORD"


def zone_of_noon(now: datetime) -> ZoneInfo:
    """A zone without clock changes in which it is between 12:00 and 13:00: no day ends while a suite runs in it."""
    ahead = 12 - now.astimezone(UTC).hour
    return ZoneInfo(f"Etc/GMT{-ahead:+d}" if ahead else "Etc/GMT")


ZONE = zone_of_noon(datetime.now(UTC))
"""The zone of workspaces whose tests ask the real clock for a day. What a page says at midnight and at a clock change
is covered by tests that set the clock."""


def make_workspace(
    folder: Path,
    *,
    postgres: Any,
    bootstrap_servers: str,
    topic: str,
    sql: str,
    job: Mapping[str, Any] | None = None,
    cluster: Mapping[str, Any] | None = None,
    connection: Mapping[str, Any] | None = None,
) -> Path:
    """A workspace whose job `export` sends the rows of `sql` from PostgreSQL to `topic`; returns the folder.

    Every such job has the same name, on a broker that tests share: its markers of `exactly_once` go to a control topic
    of its own.
    """
    (folder / "queries").mkdir(parents=True, exist_ok=True)
    (folder / ".env").write_text(f"PSTT_CONTROL_TOPIC={topic}-control\n", encoding="utf-8")
    (folder / "queries" / "export.sql").write_text(sql, encoding="utf-8")
    document = {
        "name": "Export",
        "query": "export.sql",
        "connection": "pg",
        "kafka_config": {"topic": topic, "message_key_field": "barcode"},
        **(job or {}),
    }
    (folder / "queries" / "export.job.json").write_text(json.dumps(document), encoding="utf-8")
    connections = {
        "default_environment": "rig",
        "connections": [
            {
                "name": "pg",
                "environment": "rig",
                "db_type": "postgresql",
                "host": postgres.host,
                "port": postgres.port,
                "database": postgres.database,
                "username": postgres.user,
                "password": f"env:{PASSWORD_VARIABLE}",
                **(connection or {}),
            }
        ],
        "kafka_connections": {"rig": {"name": "Kafka Rig", "bootstrap_servers": bootstrap_servers, **(cluster or {})}},
    }
    (folder / "connections.json").write_text(json.dumps(connections, indent=1), encoding="utf-8")
    return folder


def environment(postgres: Any = None, *, measured: bool = False, **more: str) -> dict[str, str]:
    """This process's environment without the product's settings, which would leak into a test; days are those of `ZONE`.

    Args:
        postgres: The server whose password connections ask for.
        measured: Whether coverage counts in the process too. That doubles its cost, so only where nothing else
            reaches the code; and it writes a file of its own at the end, so never where files may not grow.
        more: Further variables.
    """
    ours = ("KAFKA_", "PSTT_") if measured else ("KAFKA_", "PSTT_", "COVERAGE_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    password = {PASSWORD_VARIABLE: postgres.password} if postgres else {}
    return {**kept, "PYTHONPATH": str(ROOT), "PSTT_TIMEZONE": ZONE.key, **password, **more}


def command(*words: str | Path) -> list[str]:
    """`python -m core …` with this Python."""
    return [sys.executable, "-m", "core", *map(str, words)]


def log_text(workspace: Path) -> str:
    """Everything in `logs/`, one file a day."""
    return "".join(file.read_text(encoding="utf-8") for file in sorted((workspace / "logs").glob("pstt-*.log")))


def acknowledged_so_far(workspace: Path) -> int:
    """Returns the messages that runs have seen acknowledged; they have to log with KAFKA_LOG_LEVEL=DEBUG.

    A topic has a message a moment before its sender knows, on a busy machine seconds before.
    """
    return sum(map(int, re.findall(r"batch \d+: (\d+) of \d+ acknowledged", log_text(workspace))))


def run_command(
    *words: str | Path, env: Mapping[str, str], cwd: Path, timeout_s: float = 120, anew: bool = False
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end; what a user would see is in stdout and stderr.

    Args:
        words: Command and arguments.
        env: Its whole environment.
        cwd: Its folder.
        timeout_s: It is killed after that time.
        anew: Whether an interpreter is started for it, as a user's shell does; else, where the system can, its process is a
            fork of one that has imported the program.
    """
    server = None if anew else fork_server()
    if server is not None and server.takes(env):
        return server.run([*map(str, words)], env, cwd, timeout_s)
    return subprocess.run(
        command(*words),
        env=dict(env),
        cwd=cwd,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout_s,
        check=False,
    )
