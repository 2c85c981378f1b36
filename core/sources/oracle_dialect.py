"""Oracle's SQL, and what a connection to Oracle needs; imports no driver."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from core.model.dialect import (
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
    PackageCalls,
    PartitionRules,
    SessionRules,
    end_of_microsecond,
)

__all__ = ["DIALECT"]

_SETTINGS = (
    r"(?:NLS_\w+|CURRENT_SCHEMA|TIME_ZONE|OPTIMIZER_\w+|ISOLATION_LEVEL|CURSOR_SHARING|WORKAREA_SIZE_POLICY"
    r"|SORT_AREA_SIZE|HASH_AREA_SIZE|QUERY_REWRITE_ENABLED|DB_FILE_MULTIBLOCK_READ_COUNT|RESULT_CACHE_MODE)"
)
_PACKAGE_CALLS = PackageCalls(
    packages=re.compile(r"(DBMS|UTL|OWA|APEX|WWV|CTX|WPG|LOGMNR|MGMT)_\w+"),
    harmless=re.compile(
        r"""(SYS\.)?(DBMS_LOB\.(SUBSTR|GETLENGTH|INSTR|COMPARE)|DBMS_RANDOM\.(VALUE|STRING|NORMAL|RANDOM)
            |DBMS_CRYPTO\.(HASH|MAC)|DBMS_UTILITY\.(GET_HASH_VALUE|GET_TIME)|DBMS_ROWID\.\w+
            |DBMS_FLASHBACK\.GET_SYSTEM_CHANGE_NUMBER|(UTL_RAW|UTL_ENCODE|UTL_I18N|UTL_MATCH|UTL_URL)\.\w+)
        |SYS\.(ODCI\w+LIST|XMLTYPE|DBMS_DEBUG_VC2COLL)|MDSYS\.SDO_\w+|(MDSYS\.)?(SDO_GEOM|SDO_CS)\.\w+""",
        re.VERBOSE,
    ),
    methods=frozenset(
        {"GETSTRINGVAL", "GETCLOBVAL", "GETNUMBERVAL", "GETBLOBVAL", "GETROOTELEMENT", "EXTRACT", "EXISTSNODE"}
    ),
    field_methods=frozenset(
        """NUMBER STRING DATE TIMESTAMP BOOLEAN DOUBLE FLOAT BINARY COUNT SIZE TYPE LENGTH LOWER UPPER ABS CEILING
        FLOOR NUMBERONLY STRINGONLY BOOLEANONLY DATEWITHTIME""".split()
    ),
)
_REFUSED_OPTIONS = (
    (
        re.compile(
            r"(user|proxy_user|host|port|service_name|sid|dsn|server_type|wallet_location|config_dir|lib_dir|params"
            r"|externalauth|pool(_\w+)?)"
        ),
        "the connection has a key for it",
    ),
    (
        re.compile(r"(ssl_server_dn_match|ssl_context|ssl_version|use_eztls)"),
        "it could turn off what the wallet asks for",
    ),
    (re.compile(r"mode"), "it could log in as SYSDBA"),
    (re.compile(r"(tcp_connect_timeout|retry_count|retry_delay|expire_time|purity)"), "the run sets it"),
    (
        re.compile(
            r"(\w*callback|handle|appcontext|shardingkey|supershardingkey|debug_jdwp|extra_auth_params|conn_class|tag|matchanytag)"
        ),
        "it is not for a run",
    ),
)
_UNVERIFIED = re.compile(r"SSL_SERVER_DN_MATCH\s*=\s*(NO|OFF|FALSE)", re.IGNORECASE)


def _problems(entry: Any) -> Iterator[tuple[str, str, str]]:
    """Yields keys that exclude each other, and a descriptor that turns the check of the certificate off."""
    if entry.dsn and (entry.host or entry.port):
        yield "dsn", "dsn names the host itself", "remove host and port, or dsn"
    if _UNVERIFIED.search(entry.dsn):
        yield "dsn", "SSL_SERVER_DN_MATCH may not be turned off", "remove it from the descriptor"
    if entry.client_dir and not entry.thick:
        yield "client_dir", "client_dir is of use in thick mode only", 'add "thick": true, or remove client_dir'
    if entry.wallet_password and not entry.wallet_location:
        yield "wallet_password", "a password without a wallet", 'add "wallet_location"'
    if not entry.username and entry.wallet_location and not entry.thick:
        yield "username", "an external password store needs thick mode", 'add "thick": true, or "username"'


_TO_NCHAR = ("TO_NCHAR(", ")")

_DAY, _MOMENT = "SYYYY-MM-DD HH24:MI:SS", "SYYYY-MM-DD HH24:MI:SS.FF9"
_TO_MICROSECONDS = len("-4712-01-01 00:00:00.000000")
_SECOND, _NANOSECOND = "YYYY-MM-DD HH24:MI:SS", "YYYY-MM-DD HH24:MI:SS.FF9"

DIALECT = Dialect(
    name="oracle",
    title="Oracle",
    sqlglot="oracle",
    install="pip install oracledb",
    padded_number="LPAD(TO_CHAR({}), 12, '0')",
    connection=ConnectionRules(
        required=("host", "username"),
        exactly_one_of=("service_name", "sid", "dsn"),
        own=("dsn", "config_dir", "wallet_location", "wallet_password", "proxy_user", "client_dir", "server_type"),
        instead={"dsn": ("host",), "wallet_location": ("username",)},
        refused_options=_REFUSED_OPTIONS,
        problems=_problems,
        form=("host", "username", "service_name", "sid"),
        default_port=1521,
    ),
    datasets=DatasetRules("oracle", str.upper, lambda connection: connection.username.upper()),
    lexical=LexicalRules(
        string_prefixes=frozenset({"N", "Q", "NQ"}),
        refuses_lone_return=True,
        has_sqlplus=True,
        finds_q_literals=True,
        blocks=re.compile(
            r"(DECLARE|BEGIN|< <|WITH (FUNCTION|PROCEDURE)"
            r"|CREATE (OR REPLACE )?((NON)?EDITIONABLE )?(FUNCTION|PROCEDURE|PACKAGE|TRIGGER|TYPE))\b"
        ),
    ),
    binds=BindRules(
        placeholder=":{}",
        foreign=re.compile(r":"),
        foreign_takes_words=True,
        foreign_takes_blanks=True,
        most=65_535,
        most_in_list=1_000,  # ORA-01795; 23ai takes more
        empty_is_null=True,
        compares_as_char=True,
    ),
    literals=LiteralRules(
        wrappers={"N": _TO_NCHAR, "NQ": _TO_NCHAR},
        conversions={
            "DATE": ("TO_DATE(", ", 'YYYY-MM-DD')"),
            "TIMESTAMP": ("TO_TIMESTAMP(", ", 'YYYY-MM-DD HH24:MI:SS.FF')"),
        },
        interval="refused",
        instead_of_interval="write NUMTODSINTERVAL({0}, 'DAY') or NUMTOYMINTERVAL({0}, 'MONTH')",
    ),
    session=SessionRules(("ALTER SESSION SET TIME_ZONE = '+00:00'",), ("SET TRANSACTION READ ONLY",)),
    # The driver returns a NUMBER as a Decimal, and binds a datetime as a DATE without its fraction.
    partitions=PartitionRules(
        bounds={
            "integer": BoundRules(),
            "decimal": BoundRules(),
            "float": BoundRules(),
            "oracle_date": BoundRules(f"TO_CHAR({{}}, '{_DAY}')", f"TO_DATE({{}}, '{_DAY}')"),
            "datetime": BoundRules(
                f"TO_CHAR({{}}, '{_MOMENT}')",
                f"TO_TIMESTAMP({{}}, '{_MOMENT}')",
                end_of_microsecond,
                f"SUBSTR(TO_CHAR({{}}, '{_MOMENT}'), 1, {_TO_MICROSECONDS})",
            ),
            "datetime_tz": BoundRules(
                f"TO_CHAR(SYS_EXTRACT_UTC({{}}), '{_MOMENT}')",
                f"FROM_TZ(TO_TIMESTAMP({{}}, '{_MOMENT}'), '+00:00')",
                end_of_microsecond,
                f"SUBSTR(TO_CHAR(SYS_EXTRACT_UTC({{}}), '{_MOMENT}'), 1, {_TO_MICROSECONDS})",
            ),
        },
        hash="ORA_HASH({value}, {count} - 1)",
        sample="DBMS_RANDOM.VALUE(0, 1000000) < {ppm}",
    ),
    folds_to="upper",
    moments={
        "oracle_date": MomentRules(f"TO_CHAR({{}}, '{_SECOND}')", f"TO_DATE({{}}, '{_SECOND}')", has_fraction=False),
        "datetime": MomentRules(f"TO_CHAR({{}}, '{_NANOSECOND}')", f"TO_TIMESTAMP({{}}, '{_NANOSECOND}')"),
        "datetime_tz": MomentRules(
            f"TO_CHAR(SYS_EXTRACT_UTC({{}}), '{_NANOSECOND}')",
            f"FROM_TZ(TO_TIMESTAMP({{}}, '{_NANOSECOND}'), '+00:00')",
            is_aware=True,
        ),
    },
    guard=GuardRules(
        begins_setting=re.compile(r"ALTER SESSION\b|SET\b"),
        settings=re.compile(
            rf"ALTER SESSION SET(?: {_SETTINGS} = {SETTING_VALUE})+"
            r"|ALTER SESSION (?:ENABLE|DISABLE|FORCE) PARALLEL QUERY(?: PARALLEL 0)?"
            rf"|SET TRANSACTION (?:READ ONLY|{ISOLATION_LEVEL})(?: NAME '\?')?"
        ),
        begins_block=re.compile(r"(DECLARE|BEGIN|< <)|WITH (FUNCTION|PROCEDURE)\b"),
        block_name="PL/SQL block",
        calls=re.compile(r"HTTPURITYPE|FTPURITYPE|DBURITYPE|URIFACTORY|BFILENAME|EXTERNAL"),
        unreserved={"MERGE": "INTO", "REPLACE": "", "TRUNCATE": ""},
        packages=_PACKAGE_CALLS,
    ),
)
