"""PostgreSQL's SQL, and what a connection to PostgreSQL needs; imports no driver."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from core.model.dialect import (
    ISOLATION_LEVEL,
    SETTING_VALUE,
    UNRESERVED_VERBS,
    WORD_BEYOND_ASCII,
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
)

__all__ = ["DIALECT", "hosts_and_ports"]

# Left out on purpose: standard_conforming_strings (it would change where literals end), roles, everything that
# makes a transaction writable again, and settings of extensions, whose effect is not known.
_SETTINGS = (
    r"(?:SEARCH_PATH|TIMEZONE|STATEMENT_TIMEOUT|LOCK_TIMEOUT|IDLE_IN_TRANSACTION_SESSION_TIMEOUT|WORK_MEM"
    r"|HASH_MEM_MULTIPLIER|TEMP_BUFFERS|DATESTYLE|INTERVALSTYLE|EXTRA_FLOAT_DIGITS|BYTEA_OUTPUT|LC_\w+|ENABLE_\w+"
    r"|RANDOM_PAGE_COST|SEQ_PAGE_COST|CPU_\w+|EFFECTIVE_\w+|FROM_COLLAPSE_LIMIT|JOIN_COLLAPSE_LIMIT|GEQO\w*|JIT\w*"
    r"|MAX_PARALLEL_WORKERS\w*|PARALLEL_\w+|MIN_PARALLEL_\w+|PLAN_CACHE_MODE|CONSTRAINT_EXCLUSION"
    r"|CURSOR_TUPLE_FRACTION|DEFAULT_TEXT_SEARCH_CONFIG|APPLICATION_NAME|XMLOPTION|XMLBINARY|CLIENT_MIN_MESSAGES)"
)
_CALLS = re.compile(
    r"""PG_(READ|LS|WRITE|FILE|LOGICAL|CREATE|DROP|REPLICATION|COPY|ADVISORY|TRY_ADVISORY|START|STOP|BACKUP|SWITCH
    |WAL_REPLAY|TERMINATE|CANCEL|RELOAD|ROTATE|PROMOTE|NOTIFY|IMPORT|STAT_FILE|STAT\w*_RESET|STAT_RESET|LOG_)\w*
    |LO_(CREAT|IMPORT|EXPORT|UNLINK|PUT|OPEN|TRUNC|FROM_BYTEA)\w*|LOWRITE|DBLINK\w*|SET_CONFIG|NEXTVAL|SETVAL
    |(QUERY|CURSOR)_TO_XML\w*|XPATH_TABLE|CROSSTAB\w*|CONNECTBY|TS_STAT|TS_REWRITE|BRIN_\w+|GIN_CLEAN_\w+
    |BINARY_UPGRADE_\w+|HTTP(_\w+)?""",
    re.VERBOSE,
)


_REFUSED_OPTIONS = (
    (
        re.compile(
            r"host|hostaddr|port|dbname|user|service|servicefile|passfile|ssl(mode|rootcert|cert|key)|target_session_attrs"
        ),
        "the connection has a key for it",
    ),
    (re.compile(r"requiressl|sslcompression|gssencmode"), "it could turn off what sslmode asks for"),
    (
        re.compile(
            r"connect_timeout|tcp_user_timeout|keepalives\w*|client_encoding|replication|(fallback_)?application_name"
        ),
        "the run sets it",
    ),
    (
        re.compile(
            r"sslkeylogfile|scram_\w+|oauth_\w+|autocommit|prepare_threshold|(row|cursor)_factory|context|conninfo"
        ),
        "it is not for a run",
    ),
)
_WEAKER = (("channel_binding", ("prefer", "require")), ("ssl_min_protocol_version", ("TLSv1.2", "TLSv1.3")))
"""Settings of libpq that a connection may only make stricter."""
_SETTING = re.compile(r"(?:-c\s*|--)([A-Za-z_][\w.]*)=(.*)", re.DOTALL)


def hosts_and_ports(text: str, port: int | None) -> tuple[str, str]:
    """Returns `a:5433,b` as libpq takes it: the hosts, and the port of each; without a port for any, no ports."""
    hosts, ports = [], []
    for part in filter(None, map(str.strip, text.split(","))):
        named = re.fullmatch(r"(\[[^\]]+\]|[^:]+):(\d{1,5})", part)
        hosts.append((named[1] if named else part).strip("[]"))
        ports.append(named[2] if named else str(port or ""))
    return ",".join(hosts), ",".join(ports) if any(ports) else ""


def _settings_of(text: str) -> Iterator[tuple[str, str]]:
    """Yields name and value of each `-c NAME=VALUE`; anything else has an empty name."""
    words = iter(shlex.split(text, posix=True))
    for word in words:
        joined = f"-c{next(words, '')}" if word == "-c" else word
        found = _SETTING.fullmatch(joined)
        yield (found[1], found[2]) if found else ("", word)


def _problems(entry: Any) -> Iterator[tuple[str, str, str]]:
    """Yields what the options of libpq would change beyond what a step of the SQL file may set."""
    if bool(entry.sslcert) != bool(entry.sslkey):
        yield "sslcert", "sslcert and sslkey belong together", "give both or none"
    if entry.service_file and not entry.service:
        yield "service_file", "service_file without service", 'add "service": the name of its section'
    for name, allowed in _WEAKER:
        if entry.options.get(name, allowed[0]) not in allowed:
            yield "options", f"options may not weaken {name}", f"write {' or '.join(allowed)}, or remove it"
    try:
        settings = list(_settings_of(str(entry.options.get("options", ""))))
    except ValueError:
        settings = [("", "an open quote")]
    for name, value in settings:
        if not name:
            yield "options", f"options of libpq has {value[:40]}", "write -c NAME=VALUE for each setting"
        elif not re.fullmatch(_SETTINGS, name.upper()):
            yield (
                "options",
                f"options of libpq may not set {name}",
                "only settings that change how a session reads may be set",
            )


def _bound(type_: str) -> BoundRules:
    # As the server's text, which has every digit.
    return BoundRules(read="CAST({} AS text)", bind=f"CAST({{}} AS {type_})")


_MICROSECOND = "YYYY-MM-DD HH24:MI:SS.US"
_NAIVE = MomentRules(f"to_char({{}}, '{_MICROSECOND}')", "CAST({} AS timestamp)")

DIALECT = Dialect(
    name="postgresql",
    title="PostgreSQL",
    sqlglot="postgres",
    install="pip install 'psycopg[binary]'",
    padded_number="LPAD({}::text, 12, '0')",
    connection=ConnectionRules(
        required=("host", "database", "username"),
        own=("sslcert", "sslkey", "sslpassword", "service", "service_file", "passfile", "target_session_attrs"),
        instead={"service": ("host", "database", "username")},
        refused_options=_REFUSED_OPTIONS,
        problems=_problems,
        default_port=5432,
        has_tls_modes=True,
    ),
    datasets=DatasetRules("postgres", str.lower, lambda _: "public"),
    lexical=LexicalRules(
        word=WORD_BEYOND_ASCII,
        string_prefixes=frozenset({"N", "E", "B", "X"}),
        nested_comments=True,
        line_comment=re.compile(r"--[^\n\r]*"),
        dollar_quotes=True,
        unicode_escapes=True,
        cast_operator=True,
        own_words=frozenset({"COPY", "EXECUTE", "SHOW", "START"}),
    ),
    binds=BindRules(
        placeholder="%({})s",
        doubles_percent=True,  # psycopg reads % only in a statement with binds
        foreign=re.compile(r"\$"),
        most=65_535,
        most_in_list=65_535,
        takes_nul=False,
        typed_by_context=True,
    ),
    literals=LiteralRules(
        is_joined_before=True,  # `ts >= '&DAY 00:00'` needs a value of unknown type; || would make it text
        text_cast=("CAST(", " AS text)"),
        # A literal counts as text in an argument of type "any"; a bind has no type at all.
        untyped_functions=frozenset(
            """CONCAT CONCAT_WS FORMAT COUNT JSON_BUILD_ARRAY JSON_BUILD_OBJECT JSONB_BUILD_ARRAY JSONB_BUILD_OBJECT
            ROW JSON_OBJECT_AGG JSONB_OBJECT_AGG NUM_NULLS NUM_NONNULLS PG_TYPEOF PG_COLUMN_SIZE
            PG_COLLATION_FOR""".split()
        ),
        cast_types=frozenset(
            """DATE TIME TIMESTAMP TIMESTAMPTZ TIMETZ INTERVAL NUMERIC DECIMAL INT INTEGER BIGINT SMALLINT INT2 INT4
            INT8 REAL FLOAT FLOAT4 FLOAT8 BOOL BOOLEAN JSON JSONB UUID INET CIDR MACADDR XML BYTEA TEXT VARCHAR BPCHAR
            MONEY POINT DATERANGE TSRANGE TSTZRANGE INT4RANGE INT8RANGE NUMRANGE REGCLASS""".split()
        ),
        interval="refused_with_field",  # `$1::INTERVAL DAY` reads '2' as seconds, then cuts it to whole days
        instead_of_interval="write INTERVAL '{0} days' or {0} * INTERVAL '1 day'",
    ),
    session=SessionRules(
        ("SET standard_conforming_strings = on", "SET TIME ZONE 'UTC'", "SET IntervalStyle = 'iso_8601'"),
        ("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",),
    ),
    partitions=PartitionRules(
        bounds={
            "integer": _bound("bigint"),
            "oid": _bound("oid"),
            "numeric": _bound("numeric"),
            "float": _bound("float8"),
            "date": _bound("date"),
            "datetime": _bound("timestamp"),
            "datetime_tz": _bound("timestamptz"),
            "time": _bound("time"),
            "timetz": _bound("timetz"),
            "interval": _bound("interval"),
        },
        hash="mod(mod(hashtextextended(CAST({value} AS text), 0), {count}) + {count}, {count})",
        sample="random() * 1000000 < {ppm}",
    ),
    folds_to="lower",
    moments={
        "date": MomentRules(f"to_char(CAST({{}} AS timestamp), '{_MICROSECOND}')", "CAST({} AS timestamp)"),
        "datetime": _NAIVE,
        "datetime_tz": MomentRules(
            f"to_char({{}} AT TIME ZONE 'UTC', '{_MICROSECOND}')",
            "(CAST({} AS timestamp) AT TIME ZONE 'UTC')",
            is_aware=True,
        ),
    },
    guard=GuardRules(
        begins_setting=re.compile(r"(SET|RESET)\b"),
        settings=re.compile(
            rf"SET (?:SESSION |LOCAL )?{_SETTINGS} (?:=|TO) {SETTING_VALUE}(?: , {SETTING_VALUE})*"
            rf"|SET (?:SESSION |LOCAL )?(?:TIME ZONE|SCHEMA) {SETTING_VALUE}"
            rf"|SET TRANSACTION(?: ,?(?:READ ONLY|DEFERRABLE|NOT DEFERRABLE|{ISOLATION_LEVEL})(?: ,)?)+"
            rf"|RESET (?:{_SETTINGS}|TIME ZONE)"
        ),
        begins_block=re.compile(r"DO\b"),
        calls=_CALLS,
        unreserved={**UNRESERVED_VERBS, "DELETE": "FROM", "INSERT": "INTO", "MERGE": "INTO", "UPDATE": "SET"},
        behind_names=frozenset(
            """AND AS ASC COLLATE DESC ELSE END EXCEPT FETCH FOR FROM GROUP HAVING ILIKE IN INTERSECT IS ISNULL LIKE
            LIMIT NOT NOTNULL OFFSET ON OR ORDER OVERLAPS SIMILAR THEN UNION USING WHEN WHERE WINDOW""".split()
        ),
        into_makes_table=True,
    ),
)
