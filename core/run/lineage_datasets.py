"""Names of datasets as OpenLineage wants them: the tables of a statement, a topic, a file.

Source: https://openlineage.io/docs/spec/naming.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.errors import ConfigError
from core.model.connection import DatabaseConnection
from core.model.dialect import Dialect
from core.model.run import Run
from core.records.opened import OpenWorkspace

__all__ = ["DatasetName", "input_tables", "output_dataset"]


@dataclass(frozen=True, slots=True)
class DatasetName:
    """A dataset."""

    namespace: str
    """Where it is, such as `postgres://tt2.example.com:5432`."""
    name: str
    """What it is called there."""


def input_tables(run: Run, connection: DatabaseConnection, dialect: Dialect) -> list[DatasetName]:
    """Returns the tables and views that the last statement reads, each once.

    If sqlglot cannot read the statement, or it reads none, it is one dataset with the name of the query's file.
    """
    import sqlglot  # slow to import
    from sqlglot import exp

    namespace = _namespace(connection, dialect)
    try:
        statements = [tree for tree in sqlglot.parse(run.sql_text, dialect=dialect.sqlglot) if tree is not None]
        trees = [tree for tree in statements if isinstance(tree, exp.Query)][-1:]  # the last one is the result
    except (sqlglot.errors.SqlglotError, RecursionError):
        trees = []
    defined = {cte.alias.lower() for tree in trees for cte in tree.find_all(exp.CTE)}
    found = [
        DatasetName(namespace, _table_name(table, connection, dialect))
        for tree in trees
        for table in tree.find_all(exp.Table)
        if table.name and (table.db or table.name.lower() not in defined)
    ]
    return list(dict.fromkeys(found)) or [DatasetName(namespace, run.query)]


def output_dataset(opened: OpenWorkspace, run: Run, file: str = "") -> DatasetName:
    """Returns the topic of a run, or the file that it writes: `file` below `exports/` until the run has written it."""
    if run.is_file:
        path = opened.workspace.root / run.files[0].path if run.files else opened.workspace.exports_dir / file
        return DatasetName("file", path.as_posix())
    servers = _servers(opened, run) or run.bootstrap_servers or run.cluster
    return DatasetName(f"kafka://{servers.partition(',')[0].strip()}", run.topic)


def _servers(opened: OpenWorkspace, run: Run) -> str:
    """Returns the addresses of the cluster of a run as they are set up; empty: it is not any more, or it is a demo's."""
    for key in opened.connections.cluster_names:
        try:
            cluster = opened.connections.cluster(key, opened.settings)
        except ConfigError:
            continue
        if cluster.name == run.cluster and not cluster.mock_brokers:
            return cluster.bootstrap_servers
    return "" if opened.connections.cluster_names else opened.settings.KAFKA_BOOTSTRAP_SERVERS


def _namespace(connection: DatabaseConnection, dialect: Dialect) -> str:
    scheme = dialect.datasets.scheme or dialect.name
    if dialect.connection.is_file:
        return f"{scheme}://{connection.database}"
    if not connection.host:
        return f"{scheme}://{connection.name}"
    port = connection.port or dialect.connection.default_port
    return f"{scheme}://{connection.host}" + (f":{port}" if port else "")


def _table_name(table: Any, connection: DatabaseConnection, dialect: Dialect) -> str:
    rules = dialect.datasets
    schema = _folded(table.args.get("db"), rules.fold) or rules.schema_of(connection)
    catalog = _folded(table.args.get("catalog"), rules.fold) or connection.service_name or connection.sid
    if not dialect.connection.is_file:
        catalog = catalog or connection.database
    return ".".join(part for part in (catalog, schema, _folded(table.this, rules.fold)) if part)


def _folded(identifier: Any, fold: Callable[[str], str]) -> str:
    """Returns an identifier as the database stores it; a quoted one is stored as it is written."""
    if identifier is None:
        return ""
    text = str(identifier.name)
    return text if identifier.args.get("quoted") else fold(text)
