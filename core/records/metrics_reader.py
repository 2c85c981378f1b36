"""Read-only SQL over all sends, for notebooks.

A notebook stays open for days, so the file is opened for each query only, and the result is in memory: the runner
copies in between. A query is one SELECT and reaches no other file and no network.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import duckdb

from core.errors import ConfigError
from core.records.metrics import Metrics
from core.records.metrics_file import may_be_damage
from core.records.metrics_queries import make_zone, metrics_sql
from core.workspace.paths import Workspace
from core.workspace.settings import load_settings

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["VIEWS", "MetricsReader", "open_metrics"]

VIEWS = ("sends", "runs", "rejects", "daily", "hourly_latency", "latency", "errors")
"""The views that a query may use; docs/METRICS.md describes each column."""
COUNTED = re.compile(r"\b(daily|hourly_latency|latency|traffic)\b", re.IGNORECASE)
MOST_ROWS = 5_000_000
"""Rows of a result, which is in memory at about 200 bytes a row."""
MEMORY = "2GB"
"""Memory limit of one query, so that a notebook on the runner's machine leaves the runner what it needs."""


class MetricsReader:
    """Runs SQL over the views `sends`, `runs`, `rejects`, `daily`, `hourly_latency`, `latency` and `errors`.

    Sends not copied into metrics.duckdb yet are included. Times are UTC; days and hours those of the workspace's zone.

    Args:
        workspace: The workspace whose sends are read.
        timezone: IANA time zone of days and hours.
    """

    def __init__(self, workspace: Workspace, timezone: str) -> None:
        self.workspace = workspace
        self.timezone = timezone
        self._metrics = Metrics(workspace)
        self._answers = duckdb.connect(":memory:")

    def sql(self, query: str, params: Sequence[Any] | Mapping[str, Any] | None = None) -> duckdb.DuckDBPyRelation:
        """Runs a query. Returns its complete result in memory.

        Args:
            query: One SELECT, or DESCRIBE, SHOW, SUMMARIZE.
            params: Values for `?`, or by name for `$name`.

        Returns:
            A relation of DuckDB: `.df()`, `.fetchall()`, `.arrow()`, `.show()`, or another query over it.

        Raises:
            ConfigError: It is not one SELECT, or DuckDB does not understand it, or its result has over 5,000,000 rows.
            LedgerBusy: Another program has the file open for writing for longer than 5 s.
            StorageFailed: A file may not be read, or memory is short.
        """
        _require_question(query)

        def question(db: duckdb.DuckDBPyConnection) -> pa.Table:
            make_zone(db, self.timezone)
            for view in ("daily", "hourly_latency", "latency", "errors"):
                db.execute(metrics_sql()[f"view_{view}"])
            self._lock_in(db)
            try:
                return _answer(db.sql(query, params=params))
            except duckdb.Error as error:
                if may_be_damage(error):
                    raise
                raise _not_understood(error) from None

        return self._answers.from_arrow(self._metrics.answer(question, counted=COUNTED.search(query) is not None))

    execute = sql

    def table(self, view: str) -> duckdb.DuckDBPyRelation:
        """Returns all rows of a view."""
        if view not in VIEWS:
            raise ConfigError(f"there is no view {view!r}", remedy=f"use one of {', '.join(VIEWS)}")
        return self.sql(f"SELECT * FROM {view}")  # noqa: S608 - one of our own names

    def close(self) -> None:
        """Frees the results; no file is open in any case."""
        self._answers.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _lock_in(self, db: duckdb.DuckDBPyConnection) -> None:
        """Restricts the connection: it opens only segments not copied yet, and writes nothing, not even to swap."""
        db.execute("SET temp_directory = ''")
        db.execute(f"SET memory_limit = '{MEMORY}'")
        db.execute("SET allowed_paths = ?", [[str(path) for path in self._metrics.waiting]])
        # A function of an extension is a mistake in the question; DuckDB would try to download it, and fail as a disk does.
        db.execute("SET autoinstall_known_extensions = false")
        db.execute("SET autoload_known_extensions = false")
        db.execute("SET enable_external_access = false")
        db.execute("SET lock_configuration = true")


def open_metrics(workspace: str | Path | None = None) -> MetricsReader:
    """Opens the sends of a workspace for read-only queries; it blocks no other process.

    Args:
        workspace: Its folder; None: that of PSTT_WORKSPACE, else the current one.

    Raises:
        ConfigError: The folder does not exist, or a setting is wrong.
    """
    found = Workspace.find(Path(workspace) if workspace is not None else None, os.environ)
    return MetricsReader(found, load_settings(found, os.environ).PSTT_TIMEZONE)


def _require_question(query: str) -> None:
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise _not_understood(error) from None
    allowed = (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN)
    if len(statements) != 1 or statements[0].type not in allowed:
        raise ConfigError(
            "only one SELECT at a time is answered",
            why="metrics are read here, never changed",
            remedy="keep an answer with .df(), or write it with .df().to_csv(…)",
        )


def _answer(result: duckdb.DuckDBPyRelation) -> pa.Table:
    import pyarrow as pa

    batches, rows = [], 0
    reader = result.to_arrow_reader(100_000)
    for batch in reader:
        batches.append(batch)
        rows += batch.num_rows
        if rows > MOST_ROWS:
            raise ConfigError(
                f"the answer has more than {MOST_ROWS:,} rows", remedy="count in SQL, or add WHERE or LIMIT"
            )
    return pa.Table.from_batches(batches, schema=reader.schema)


def _not_understood(error: duckdb.Error) -> ConfigError:
    return ConfigError(
        "the question cannot be answered",
        why=str(error).split("\n\n")[0].strip(),
        remedy="docs/METRICS.md lists the views and their columns",
    )
