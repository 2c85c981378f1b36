"""The SQL of MySQL and MariaDB, and what a connection to them needs; imports no driver.

The server decides by `sql_mode` how literals end. The source sets it, so that these rules are the server's:
a backslash escapes, double quotes enclose a text, and names are quoted by backticks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from core.model.dialect import (
    SETTING_VALUE,
    UNRESERVED_VERBS,
    BindRules,
    BoundRules,
    ConnectionRules,
    Dialect,
    GuardRules,
    LexicalRules,
    LiteralRules,
    MomentRules,
    PartitionRules,
    SessionRules,
)

__all__ = ["DIALECT", "UNREADABLE_MODES"]

# Left out on purpose: sql_mode (it would change where literals end), sql_select_limit (it would cut the result without
# an error), autocommit and transaction_read_only, and the character sets of the session.
_SETTINGS = (
    r"(?:TIME_ZONE|GROUP_CONCAT_MAX_LEN|LC_TIME_NAMES|DEFAULT_WEEK_FORMAT|DIV_PRECISION_INCREMENT|COLLATION_CONNECTION"
    r"|MAX_STATEMENT_TIME|MAX_EXECUTION_TIME|LOCK_WAIT_TIMEOUT|INNODB_LOCK_WAIT_TIMEOUT|NET_READ_TIMEOUT|NET_WRITE_TIMEOUT"
    r"|OPTIMIZER_\w+|JOIN_BUFFER_SIZE|JOIN_CACHE_LEVEL|SORT_BUFFER_SIZE|READ_BUFFER_SIZE|READ_RND_BUFFER_SIZE"
    r"|TMP_TABLE_SIZE|TMP_MEMORY_TABLE_SIZE|MAX_HEAP_TABLE_SIZE|MAX_LENGTH_FOR_SORT_DATA|MAX_SORT_LENGTH"
    r"|CTE_MAX_RECURSION_DEPTH|MAX_RECURSIVE_ITERATIONS|SQL_BIG_SELECTS|MAX_JOIN_SIZE|MAX_SEEKS_FOR_KEY"
    r"|EQ_RANGE_INDEX_DIVE_LIMIT|RANGE_OPTIMIZER_MAX_MEM_SIZE|WINDOWING_USE_HIGH_PRECISION|SQL_AUTO_IS_NULL"
    r"|SQL_SAFE_UPDATES)"
)
_ONE = rf"(?:(?:SESSION |LOCAL |@ @ (?:SESSION \. |LOCAL \. )?)?{_SETTINGS}|@ \w+) (?:=|:=) {SETTING_VALUE}"
_CALLS = re.compile(
    r"""LOAD_FILE|GET_LOCK|RELEASE_LOCK|RELEASE_ALL_LOCKS|NEXTVAL|SETVAL|SYS_EXEC|SYS_EVAL|SYS_SET|SYS_GET|LIB_MYSQLUDF\w*
    |(MASTER|SOURCE)_(POS|GTID)_WAIT|WAIT_FOR_EXECUTED_GTID_SET|WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS
    |SERVICE_(GET|RELEASE)_\w*LOCKS|VERSION_TOKENS_\w+|KEYRING_\w+|ASYNCHRONOUS_CONNECTION_\w+
    |GROUP_REPLICATION_\w+|AUDIT_LOG_\w+|ROLES_GRAPHML|SPIDER_\w+|HTTP_\w+""",
    re.VERBOSE,
)

_REFUSED_OPTIONS = (
    (re.compile(r"(host|user|database|db|port|ssl_(ca|cert|key))"), "the connection has a key for it"),
    (re.compile(r"(ssl|ssl_\w+|auth_plugin_map|client_flag)"), "it could turn off what sslmode asks for"),
    (
        re.compile(r"(sql_mode|init_command|charset|use_unicode|conv|autocommit|cursorclass|binary_prefix)"),
        "the program relies on its value",
    ),
    (re.compile(r"(local_infile|read_default_\w+)"), "it reads other files"),
    (re.compile(r"(connect|read|write)_timeout|program_name|defer_connect"), "the run sets it"),
)


def _problems(entry: Any) -> Iterator[tuple[str, str, str]]:
    """Yields half of a client's certificate, and one without TLS."""
    if bool(entry.sslcert) != bool(entry.sslkey):
        yield "sslcert", "sslcert and sslkey belong together", "give both or none"
    if entry.sslcert and entry.sslmode in ("", "prefer", "disable"):
        yield "sslcert", "a client certificate needs TLS", 'add "sslmode": "verify-full"'


# Modes that change where a literal ends, and those that include such a mode; longer names first.
UNREADABLE_MODES = (
    *("ANSI_QUOTES", "NO_BACKSLASH_ESCAPES", "ANSI", "DB2", "MAXDB", "MSSQL", "ORACLE", "POSTGRESQL"),
    *("MYSQL323", "MYSQL40"),
)


def _readable_modes() -> str:
    """Returns the expression of the session's modes without those."""
    modes = "@@SESSION.sql_mode"
    for mode in UNREADABLE_MODES:
        modes = f"REPLACE({modes}, '{mode}', '')"
    return modes


_MOMENT_TEXT, _MOMENT_BIND = "CAST(CAST({} AS datetime(6)) AS char(26))", "CAST({} AS datetime(6))"

DIALECT = Dialect(
    name="mysql",
    title="MySQL",
    sqlglot="mysql",
    install="pip install PyMySQL",
    padded_number="LPAD(CAST({} AS char), 12, '0')",
    connection=ConnectionRules(
        required=("host", "database", "username"),
        own=("sslcert", "sslkey", "sslpassword"),
        refused_options=_REFUSED_OPTIONS,
        problems=_problems,
        default_port=3306,
        has_tls_modes=True,
    ),
    lexical=LexicalRules(
        word=re.compile(r"[^\x00-#%-@\[-^`{-\x7f][^\x00-#%-/:-@\[-^`{-\x7f]*"),
        string_prefixes=frozenset({"N", "B", "X"}),
        string_quotes="'\"",
        backslash_escapes=True,
        quotes={"`": re.compile(r"`(?:[^`]+|``)*+`")},
        line_comment=re.compile(r"(?:#|--(?=[\x00-\x20\x7f]|\Z))[^\n]*"),
        own_words=frozenset({"CHANGE", "DESC", "DESCRIBE", "EXECUTE", "GET", "HELP", "SHOW", "START"}),
        blocks=re.compile(
            r"(BEGIN NOT ATOMIC|(CREATE|ALTER)( OR REPLACE)?( DEFINER = .*)? (PROCEDURE|FUNCTION|TRIGGER|EVENT))\b"
        ),
    ),
    binds=BindRules(
        placeholder="%({})s",
        doubles_percent=True,  # PyMySQL reads % only in a statement with binds
        foreign=re.compile(r"(?!)"),
        most=65_535,
        most_in_list=65_535,
    ),
    # || is OR here, unless the server is set up otherwise, so that a literal with a parameter becomes one bind.
    literals=LiteralRules(
        is_joined_before=True,
        conversions={"DATE": ("DATE ", ""), "TIME": ("TIME ", ""), "TIMESTAMP": ("TIMESTAMP ", "")},
    ),
    session=SessionRules(
        (f"SET SESSION sql_mode = {_readable_modes()}, time_zone = '+00:00'",),
        (
            "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
        ),
    ),
    # The server's text has every digit; a literal of a decimal keeps them.
    partitions=PartitionRules(
        quotes=("`", "`"),
        bounds={
            "integer": BoundRules(),
            "decimal": BoundRules("CAST({} AS char(80))", convert=Decimal),
            "double": BoundRules(),
            "date": BoundRules("CAST({} AS char(10))", "CAST({} AS date)"),
            "datetime": BoundRules("CAST({} AS char(26))", "CAST({} AS datetime(6))"),
            "datetime_tz": BoundRules("CAST({} AS char(26))", "CAST({} AS datetime(6))"),
            "time": BoundRules("CAST({} AS char(17))", "CAST({} AS time(6))"),
        },
        hash="MOD(CRC32({value}), {count})",
        sample="RAND() * 1000000 < {ppm}",
    ),
    # The session is in UTC, so a TIMESTAMP has the text of that.
    moments={
        "date": MomentRules(_MOMENT_TEXT, _MOMENT_BIND),
        "datetime": MomentRules(_MOMENT_TEXT, _MOMENT_BIND),
        "datetime_tz": MomentRules(_MOMENT_TEXT, _MOMENT_BIND, is_aware=True),
    },
    guard=GuardRules(
        begins_setting=re.compile(r"SET\b"),
        settings=re.compile(rf"SET {_ONE}(?: , {_ONE})*"),
        begins_block=re.compile(r"(BEGIN|DECLARE)\b"),
        executed_comments=re.compile(r"/\*M?!"),
        calls=_CALLS,
        unreserved={
            word: begins
            for word, begins in UNRESERVED_VERBS.items()
            if word
            not in ("ALTER", "CALL", "DECLARE", "DROP", "GRANT", "LOCK", "PROCEDURE", "REPLACE", "REVOKE", "TRIGGER")
        },
    ),
)
