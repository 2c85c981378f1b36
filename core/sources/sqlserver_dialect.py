"""SQL Server's SQL, and what a connection to SQL Server needs; imports no driver."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.model.check_result import CheckResult
from core.model.dialect import (
    DOUBLE_QUOTED,
    ISOLATION_LEVEL,
    SETTING_VALUE,
    BindRules,
    BoundRules,
    ConnectionRules,
    DatasetRules,
    Dialect,
    GuardRules,
    LexicalRules,
    LiteralRules,
    MomentRules,
    PartitionRules,
    SessionRules,
    StatementWords,
    TypedValue,
    end_of_microsecond,
)
from core.model.query import Value

__all__ = ["DIALECT"]

# ROWCOUNT and TEXTSIZE are left out on purpose: without an error, they would cut this result and the next one of
# the same connection.
_SWITCHES = (
    r"(?:NOCOUNT|ANSI_NULLS|ANSI_WARNINGS|ANSI_PADDING|ANSI_NULL_DFLT_ON|ANSI_NULL_DFLT_OFF|ARITHABORT"
    r"|ARITHIGNORE|CONCAT_NULL_YIELDS_NULL|NUMERIC_ROUNDABORT|XACT_ABORT|STATISTICS IO|STATISTICS TIME)"
)
_STATEMENTS = StatementWords(
    # All are reserved, so none can be a column unless it is in brackets.
    reserved=frozenset(
        """ALTER BACKUP BEGIN BREAK BULK CHECKPOINT CLOSE COMMIT CONTINUE CREATE DBCC DEALLOCATE DECLARE DELETE DENY
        DROP DUMP EXEC EXECUTE GOTO GRANT IF INSERT INTO KILL LOAD MERGE OPEN PRINT RAISERROR READTEXT RECONFIGURE
        RESTORE RETURN REVERT REVOKE ROLLBACK SAVE SET SETUSER SHUTDOWN TRAN TRANSACTION TRIGGER TRUNCATE UPDATE
        UPDATETEXT USE WAITFOR WHILE WRITETEXT""".split()
    ),
    lock_hints=frozenset({"UPDLOCK", "XLOCK", "TABLOCKX"}),
    phrases=re.compile(r"RECEIVE (\*|TOP|\()|(END|ON) CONVERSATION ('\?'|@)"),
)


def _value(value: TypedValue) -> Value:
    """Converts integers beyond 64 bits to decimal: the ODBC driver takes no longer ones."""
    return Decimal(value) if isinstance(value, int) and value.bit_length() > 63 else value


def missing_driver(wanted: str) -> CheckResult | None:
    """Returns what is missing on this machine to connect to any SQL Server; None: nothing.

    Args:
        wanted: Name or path of the ODBC driver that the connection asks for; empty: any.
    """
    remedy = 'install "ODBC Driver 18 for SQL Server" from Microsoft'
    if find_spec("pyodbc") is None:
        return CheckResult("fail", "odbc driver", "the Python package pyodbc is not installed", "pip install pyodbc")
    try:
        import pyodbc  # slow to import, and missing without unixODBC

        installed = [name for name in pyodbc.drivers() if "sql server" in name.lower() or "freetds" in name.lower()]
    except ImportError as error:  # on Linux, without unixODBC
        return CheckResult(
            "fail", "odbc driver", f"ODBC itself is not installed ({error})", f"install unixODBC, then {remedy}"
        )
    if wanted and wanted not in installed and not Path(wanted).is_file():
        found = ", ".join(installed) or "none"
        return CheckResult(
            "fail", "odbc driver", f'"{wanted}" is not installed (found: {found})', f"correct driver, or {remedy}"
        )
    return (
        None if installed or wanted else CheckResult("fail", "odbc driver", "none for SQL Server is installed", remedy)
    )


_REFUSED_OPTIONS = (
    (
        re.compile(
            r"(driver|server|servername|address|addr|port|database|uid|user id|user|trusted[_ ]connection|authentication"
            r"|multisubnetfailover|applicationintent)"
        ),
        "the connection has a key for it",
    ),
    (
        re.compile(r"(encrypt|encryption|trustservercertificate|tds[_ ]version|usentlmv2)"),
        "it could turn off what sslmode asks for",
    ),
    (
        re.compile(r"(dsn|filedsn|savefile|attachdbfilename|translationdll|translationoption|translation(name)?)"),
        "it reads or loads other files",
    ),
    (
        re.compile(r"(quotedid|quoted identifier|ansinpw|autotranslate|clientcharset|regional|mars[_ ]connection)"),
        "the program relies on its value",
    ),
    (re.compile(r"(querylog_on|querylogfile|querylogtime|statslog_on|statslogfile|dumpfile.*)"), "it would log values"),
    (
        re.compile(r"(app|logintimeout|login timeout|connection timeout|connect timeout|query timeout|timeout)"),
        "the run sets it",
    ),
)
_WITH_USERNAME = ("ActiveDirectoryPassword", "ActiveDirectoryServicePrincipal", "SqlPassword")


def _problems(entry: Any) -> Iterator[tuple[str, str, str]]:
    """Yields combinations of logins, drivers and TLS that the driver would refuse late or ignore."""
    method = entry.authentication
    is_freetds = "tds" in entry.driver.lower()
    if method in _WITH_USERNAME and not (entry.username and entry.password):
        yield "authentication", f"{method} needs username and password", 'add "username" and "password"'
    if method == "ActiveDirectoryIntegrated" and (entry.username or entry.password):
        yield "authentication", f"{method} takes the account of the process", "remove username and password"
    if method and entry.sslmode == "disable":
        yield "sslmode", "a login with Entra needs TLS", "remove sslmode"
    if (method or entry.multi_subnet_failover) and is_freetds:
        key = "authentication" if method else "multi_subnet_failover"
        yield key, f"FreeTDS has no {key}", "use Microsoft's ODBC driver"
    if entry.password and not entry.username:
        yield (
            "username",
            "a password without a username",
            'add "username", or remove "password" for Windows authentication',
        )


_TEXT, _BIND = "CONVERT(varchar(27), CAST({} AS datetime2(7)), 121)", "CAST({} AS datetime2(7))"

DIALECT = Dialect(
    name="sqlserver",
    title="SQL Server",
    sqlglot="tsql",
    install="pip install pyodbc (on Debian also: apt-get install unixodbc)",
    padded_number="RIGHT('000000000000' + CAST({} AS varchar(12)), 12)",
    missing=missing_driver,
    connection=ConnectionRules(
        required=("host", "database"),
        form=("host", "username", "database", "driver"),
        own=("authentication", "multi_subnet_failover", "application_intent"),
        refused_options=_REFUSED_OPTIONS,
        problems=_problems,
        default_port=1433,
        has_tls_modes=True,
    ),
    datasets=DatasetRules("mssql", schema_of=lambda _: "dbo"),
    lexical=LexicalRules(
        word=re.compile(r"[^\W\d@#$][\w@#$]*|[@#][\w@#$]*"),
        string_prefixes=frozenset({"N"}),
        quotes={'"': DOUBLE_QUOTED, "[": re.compile(r"\[(?:[^\]]+|\]\])*+\]")},
        nested_comments=True,
        refuses_lone_return=True,
        batch_separator=re.compile(r"GO(?:[ \t]+\d+)?(?=[ \t\r]*(?:--[^\n]*)?(?:\n|$))", re.IGNORECASE),
        settings_end_alone=True,
        own_words=frozenset({"BREAK", "EXEC", "EXECUTE", "PRINT", "SAVE", "SHUTDOWN"}),
        blocks=re.compile(
            r"(DECLARE|IF|WHILE|BEGIN(?! TRAN| DISTRIBUTED| DIALOG| CONVERSATION)"
            r"|(CREATE|ALTER|CREATE OR ALTER) (PROC|PROCEDURE|FUNCTION|TRIGGER))\b"
        ),
    ),
    binds=BindRules(
        placeholder="?",
        is_positional=True,
        foreign=re.compile(r"\?"),
        loses_nested_comments=True,  # FreeTDS
        most=2_097,  # 2,100, less three that the ODBC driver needs to prepare the statement
        most_in_list=2_097,
        convert=_value,
        cuts_text_at=4000,  # nvarchar(n) + 'x'; a longer bind is nvarchar(max)
    ),
    literals=LiteralRules(concatenation=" + ", top_in_parentheses=True),
    partitions=PartitionRules(
        quotes=("[", "]"),
        bounds={
            "integer": BoundRules(),
            "decimal": BoundRules("CAST({} AS varchar(60))", convert=Decimal),
            "float": BoundRules(),
            "date": BoundRules("CONVERT(varchar(10), {}, 23)", "CAST({} AS date)"),
            # The driver cuts what is shorter than a microsecond.
            "datetime": BoundRules(
                "CONVERT(varchar(33), {}, 126)",
                "CAST({} AS datetime2(7))",
                end_of_microsecond,
                "LEFT(CONVERT(varchar(33), {}, 126), 26)",
            ),
            "datetime_tz": BoundRules(
                "CAST({} AS varchar(40))",
                "CAST({} AS datetimeoffset(7))",
                end_of_microsecond,
                "LEFT(CAST({} AS varchar(40)), 26)",
            ),
            "time": BoundRules(
                "CAST({} AS varchar(16))",
                "CAST({} AS time(7))",
                end_of_microsecond,
                "LEFT(CAST({} AS varchar(16)), 15)",
            ),
        },
        hash="ABS(CHECKSUM({value}) % {count})",
        sample="ABS(CHECKSUM(NEWID()) % 1000000) < {ppm}",
        wraps_with=False,
        wraps_order=False,
        wraps_unnamed=False,
    ),
    moments={
        "date": MomentRules(_TEXT, _BIND),
        "datetime": MomentRules(_TEXT, _BIND),
        "datetime_tz": MomentRules(
            _TEXT.format("SWITCHOFFSET({}, '+00:00')"), f"TODATETIMEOFFSET({_BIND}, '+00:00')", is_aware=True
        ),
    },
    session=SessionRules(("SET QUOTED_IDENTIFIER ON",)),
    guard=GuardRules(
        begins_setting=re.compile(r"SET\b"),
        settings=re.compile(
            rf"SET {_SWITCHES}(?: , {_SWITCHES})* (?:ON|OFF)"
            rf"|SET (?:DATEFORMAT|DATEFIRST|LANGUAGE|LOCK_TIMEOUT|DEADLOCK_PRIORITY) {SETTING_VALUE}"
            rf"|SET QUOTED_IDENTIFIER ON|SET TRANSACTION {ISOLATION_LEVEL}"
        ),
        begins_block=re.compile(r"(DECLARE|IF|WHILE|BEGIN(?! TRAN))\b"),
        block_name="block of T-SQL",
        calls=re.compile(r"OPENROWSET|OPENQUERY|OPENDATASOURCE|XP_\w+"),
        unreserved={"REPLACE": ""},
        into_makes_table=True,
        statements=_STATEMENTS,
    ),
)
