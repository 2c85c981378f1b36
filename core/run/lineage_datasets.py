"""Names of datasets as OpenLineage wants them: the tables of a statement, a topic, a file.

Source: https://openlineage.io/docs/spec/naming.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.model.connection import DatabaseConnection
from core.model.dialect import Dialect
from core.model.query import Query
from core.model.run import Plan
from core.records.opened import OpenWorkspace
from core.run.planning import cluster_of_plan

__all__ = ["DatasetName", "input_tables", "output_dataset"]


@dataclass(frozen=True, slots=True)
class DatasetName:
    """A dataset."""

    namespace: str
    """Where it is, such as `postgres://tt2.example.com:5432`."""
    name: str
    """What it is called there."""


def input_tables(query: Query, connection: DatabaseConnection, dialect: Dialect) -> list[DatasetName]:
    """Returns the tables and views that the last statement reads, each once.

    If sqlglot cannot read the statement, or it reads none, it is one dataset with the name of the query's file.
    """
    import sqlglot  # slow to import
    from sqlglot import exp

    namespace = _namespace(connection, dialect)
    statement = next((step.sql for step in reversed(query.steps) if step.returns_rows), "")
    try:
        trees = [tree for tree in sqlglot.parse(statement, dialect=dialect.sqlglot) if tree is not None]
    except (sqlglot.errors.SqlglotError, RecursionError):
        trees = []
    defined = {cte.alias.lower() for tree in trees for cte in tree.find_all(exp.CTE)}
    found = [
        DatasetName(namespace, _table_name(table, connection, dialect))
        for tree in trees
        for table in tree.find_all(exp.Table)
        if table.name and (table.db or table.name.lower() not in defined)
    ]
    return list(dict.fromkeys(found)) or [DatasetName(namespace, query.name)]


def output_dataset(opened: OpenWorkspace, plan: Plan) -> DatasetName:
    """Returns the topic of a plan, or the file that it writes."""
    if plan.output is not None:
        return DatasetName("file", (opened.workspace.exports_dir / plan.output).as_posix())
    cluster = cluster_of_plan(opened, plan)
    first = cluster.name if cluster.mock_brokers else cluster.bootstrap_servers.partition(",")[0].strip()
    return DatasetName(f"kafka://{first}", plan.topic)


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
