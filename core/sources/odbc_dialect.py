"""Any database with an ODBC driver: the SQL of a database that is known, with the binds of ODBC; imports no driver."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.model.check_result import CheckResult
from core.model.dialect import (
    NEVER,
    UNRESERVED_VERBS,
    BindRules,
    BoundRules,
    ConnectionRules,
    Dialect,
    GuardRules,
    LexicalRules,
    LiteralRules,
    PartitionRules,
)
from core.sources import database_types, find_dialect

__all__ = ["DIALECT", "variant"]

_REFUSED_OPTIONS = (
    (re.compile(r"(driver|server|port|database|uid|user|user id|username)"), "the connection has a key for it"),
    (re.compile(r"(dsn|filedsn|savefile|translationdll|translationname)"), "it reads or loads other files"),
    (re.compile(r"(multi_statements|quotedid|quoted identifier|initstmt)"), "the program relies on its value"),
    (
        re.compile(r"(logintimeout|login timeout|connection timeout|connect timeout|query timeout)"),
        "the run sets it",
    ),
)
_MOST = 2_000
"""Values that a statement takes with any driver."""


def _known() -> list[str]:
    return [name for name in database_types() if name != DIALECT.name]


def _problems(entry: Any) -> Iterator[tuple[str, str, str]]:
    """Yields a dialect that is not known."""
    if entry.dialect and entry.dialect not in _known():
        yield "dialect", f"dialect {entry.dialect} is not known", f"use one of {', '.join(_known())}, or none"


def missing_driver(wanted: str) -> CheckResult | None:
    """Returns what is missing on this machine: pyodbc, ODBC itself, or the driver of the connection; None: nothing."""
    if find_spec("pyodbc") is None:
        return CheckResult("fail", "odbc driver", "the Python package pyodbc is not installed", "pip install pyodbc")
    try:
        import pyodbc  # slow to import, and missing without unixODBC

        installed = pyodbc.drivers()
    except ImportError as error:
        return CheckResult("fail", "odbc driver", f"ODBC itself is not installed ({error})", "install unixODBC")
    if not wanted or wanted in installed or Path(wanted).is_file():
        return None
    found = ", ".join(installed) or "none"
    return CheckResult(
        "fail", "odbc driver", f'"{wanted}" is not installed (found: {found})', "correct driver, or install it"
    )


DIALECT = Dialect(
    name="odbc",
    title="ODBC",
    sqlglot="",
    install="pip install pyodbc (on Debian also: apt-get install unixodbc)",
    missing=missing_driver,
    connection=ConnectionRules(
        required=(),
        exactly_one_of=("driver", "dsn"),
        form=("host", "username", "database", "driver"),
        own=("dsn", "dialect"),
        refused_options=_REFUSED_OPTIONS,
        problems=_problems,
    ),
    lexical=LexicalRules(string_prefixes=frozenset({"N", "X"})),
    binds=BindRules(placeholder="?", is_positional=True, foreign=re.compile(r"\?"), most=_MOST, most_in_list=_MOST),
    partitions=PartitionRules(
        bounds={"integer": BoundRules()}, wraps_with=False, wraps_order=False, wraps_unnamed=False
    ),
    guard=GuardRules(begins_setting=NEVER, settings=NEVER, unreserved=UNRESERVED_VERBS, into_makes_table=True),
)
_CASTS: Mapping[str, tuple[str, str]] = {
    "DATE": ("CAST(", " AS date)"),
    "TIME": ("CAST(", " AS time(6))"),
    "TIMESTAMP": ("CAST(", " AS datetime(6))"),
}
"""For a database whose own driver writes values into the text: `DATE ?` is no SQL."""


@cache
def variant(name: str) -> Dialect:
    """Returns the rules of a database's SQL with the binds and the connection of ODBC.

    Raises:
        ConfigError: There is no such database.
    """
    base = find_dialect(name)
    return replace(
        base,
        name=DIALECT.name,
        title=f"{base.title} through ODBC",
        install=DIALECT.install,
        missing=DIALECT.missing,
        connection=DIALECT.connection,
        binds=replace(
            base.binds,
            placeholder="?",
            is_positional=True,
            doubles_percent=False,
            foreign=DIALECT.binds.foreign,
            foreign_takes_words=False,
            foreign_takes_blanks=False,
            most=min(base.binds.most, _MOST),
            most_in_list=min(base.binds.most_in_list, _MOST),
            typed_by_context=False,
            compares_as_char=False,
        ),
        literals=_with_casts(base.literals),
    )


def _with_casts(rules: LiteralRules) -> LiteralRules:
    conversions = {word: around if "(" in around[0] else _CASTS[word] for word, around in rules.conversions.items()}
    return replace(rules, conversions=conversions)
