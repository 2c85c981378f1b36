"""PostgreSQL's SQL, and what a connection to PostgreSQL needs; imports no driver."""

from __future__ import annotations

import re

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
    PartitionRules,
)

__all__ = ["DIALECT"]

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


def _bound(type_: str) -> BoundRules:
    # As the server's text, which has every digit.
    return BoundRules(read="CAST({} AS text)", bind=f"CAST({{}} AS {type_})")


DIALECT = Dialect(
    name="postgresql",
    title="PostgreSQL",
    sqlglot="postgres",
    install="pip install 'psycopg[binary]'",
    padded_number="LPAD({}::text, 12, '0')",
    connection=ConnectionRules(required=("host", "database", "username"), default_port=5432, has_tls_modes=True),
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
