"""The differences between databases, as data.

`core.sql` reads these rules and knows no database by name. Each database has one `Dialect`, in its own module of
`core.sources`; that module imports no driver, so that `check` and the page work if a driver is not installed.
The defaults are those of standard SQL: a database sets only what differs from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

from core.model.check_result import CheckResult
from core.model.connection import DatabaseConnection
from core.model.query import Value

__all__ = [
    "BindRules",
    "BoundRules",
    "ConnectionRules",
    "DatasetRules",
    "Dialect",
    "GuardRules",
    "LexicalRules",
    "LiteralRules",
    "MomentRules",
    "PackageCalls",
    "PartitionRules",
    "SessionRules",
    "StatementWords",
    "TypedValue",
]

TypedValue = str | int | Decimal | date | datetime
"""The value of a parameter after its declared type was applied."""

NEVER = re.compile(r"(?!)")
"""Matches no text."""

# Patterns that several dialects share.
#
# Every character beyond ASCII counts as a letter, a no-break space too: if it were a blank here and a letter in the
# server, `\u00a0$a$` would open a literal here and none there. The classes name the ASCII signs that are not letters.
WORD_BEYOND_ASCII = re.compile(r"[^\x00-@\[-^`{-\x7f][^\x00-#%-/:-@\[-^`{-\x7f]*")
DOUBLE_QUOTED = re.compile(r'"(?:[^"]+|"")*+"')
SETTING_VALUE = r"(?:\w+|'\?'|\"\?\"|0|[+-] 0)"
"""One value of a session setting, in the canonical line that `GuardRules` matches."""
ISOLATION_LEVEL = r"ISOLATION LEVEL (?:READ UNCOMMITTED|READ COMMITTED|REPEATABLE READ|SNAPSHOT|SERIALIZABLE)"
UNRESERVED_VERBS: Mapping[str, str] = dict.fromkeys(
    """ALTER ATTACH BEGIN CALL COMMIT COPY DECLARE DETACH DROP EXEC EXECUTE GRANT LOCK PRAGMA PROCEDURE REINDEX REPLACE
    REVOKE ROLLBACK SAVEPOINT TRIGGER TRUNCATE UPSERT VACUUM""".split(),
    "",
)
"""For `GuardRules.unreserved` of a database that reserves few words."""


def as_it_is(value: Any) -> Value:
    """Returns the value unchanged: most drivers take each of these types."""
    return value


def no_problems(_: Any) -> Iterator[tuple[str, str, str]]:
    """Yields nothing: no keys of a connection contradict each other."""
    yield from ()


def end_of_microsecond(moment: str) -> str:
    """Returns the last moment of the microsecond of a time that a database has written with more digits; others as they are.

    A message has microseconds, so what differs by less is equal there and belongs into one part:
    `12:00:00.1234561` → `12:00:00.1234569`.
    """
    return re.sub(r"(\.\d{6})(\d+)", lambda found: found[1] + "9" * len(found[2]), moment)


def needs_nothing(_: str) -> CheckResult | None:
    """Returns None: the Python driver needs no other program."""
    return None


@dataclass(frozen=True, slots=True)
class LexicalRules:
    """How the text of a database is cut into tokens."""

    word: re.Pattern[str] = re.compile(r"[^\W\d][\w$#]*")
    """A plain identifier or a keyword."""
    string_prefixes: frozenset[str] = frozenset()
    """What may precede the quote of a literal, in capitals: `N`, `E`, `X`."""
    string_quotes: str = "'"
    """The characters that may enclose a literal."""
    backslash_escapes: bool = False
    """A backslash in any literal escapes the next character; False: only in E'…'."""
    quotes: Mapping[str, re.Pattern[str]] = field(default_factory=lambda: {'"': DOUBLE_QUOTED})
    """First character of a quoted identifier → pattern of the whole identifier."""
    nested_comments: bool = False
    line_comment: re.Pattern[str] = re.compile(r"--[^\n]*")
    refuses_lone_return: bool = False
    """The server or its driver may end a line comment at a carriage return without a line feed."""
    dollar_quotes: bool = False
    """`$tag$ … $tag$` is a literal."""
    unicode_escapes: bool = False
    """`U&'…'` is a literal and `U&"…"` an identifier."""
    cast_operator: bool = False
    """`::` is one operator."""
    batch_separator: re.Pattern[str] | None = None
    """A line that ends a statement, such as GO."""
    blocks: re.Pattern[str] = NEVER
    """First words of a statement that has semicolons inside; it ends at a line with `/` or at the batch separator."""
    settings_end_alone: bool = False
    """SELECT, WITH and SET begin a new statement after a SET that has no semicolon."""
    own_words: frozenset[str] = frozenset()
    """Commands of SQL*Plus, in capitals, that begin a statement of this database."""
    has_sqlplus: bool = False
    """Files are written for SQL*Plus: a line with SET is one of its commands, and `&` is never an operator."""
    finds_q_literals: bool = False
    """The driver takes `q'` as the beginning of q'[…]' also at the end of a longer word."""


@dataclass(frozen=True, slots=True)
class BindRules:
    """How values are passed to the driver, and which values it takes."""

    placeholder: str = ":{}"
    """Format of one placeholder; `{}` is the name of the bind."""
    is_positional: bool = False
    """The driver takes a tuple with a value for each placeholder; False: a mapping of names."""
    doubles_percent: bool = False
    """In a statement with binds, `%` is written twice."""
    foreign: re.Pattern[str] = NEVER
    """An operator that the driver would take as the beginning of a bind."""
    foreign_takes_words: bool = False
    """A word directly after it makes it a bind; False: only a number does."""
    foreign_takes_blanks: bool = False
    """Blanks may follow the sign of a bind, and `'key' : value` is JSON."""
    loses_nested_comments: bool = False
    """The driver ends a comment at the first `*/`, and would take what follows in it as binds."""
    most: int = 32_766
    """Values that one statement takes."""
    most_in_list: int = 32_766
    """Values that one `IN (…)` takes."""
    convert: Callable[[TypedValue], Value] = as_it_is
    """Converts a value to a type that the driver takes."""
    empty_is_null: bool = False
    """An empty text is NULL."""
    takes_nul: bool = True
    """A text may hold the character U+0000."""
    compares_as_char: bool = False
    """A text that is compared needs the type of a literal: it is bound as `LiteralText`."""
    typed_by_context: bool = False
    """A bind has one type in a whole statement, so it is shared only between equal contexts."""
    cuts_text_at: int | None = None
    """Characters (UTF-16 units) at which the server cuts a concatenation without an error; a longer bind is not cut."""


@dataclass(frozen=True, slots=True)
class LiteralRules:
    """What replaces a literal that has a parameter inside."""

    concatenation: str = " || "
    is_joined_before: bool = False
    """`'&A-&B'` becomes one bind with the joined text; False: binds and texts are concatenated by the server."""
    wrappers: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Prefix of a literal in capitals → what is written before and after its bind."""
    text_cast: tuple[str, str] | None = None
    """What is written before and after a bind whose context gives it no type."""
    untyped_functions: frozenset[str] = frozenset()
    """Functions whose arguments may have any type, in capitals; used with `text_cast`."""
    conversions: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """`DATE '&X'`: word in capitals → the call that replaces it, before and after the bind."""
    cast_types: frozenset[str] = frozenset()
    """Words, in capitals, for which `WORD '&X'` becomes `bind::WORD`."""
    interval: Literal["", "refused", "refused_with_field"] = ""
    """INTERVAL '&X': no literal in this database, never bindable, or not bindable before a field such as DAY."""
    instead_of_interval: str = ""
    """What the user can write in its place; `{}` is the parameter."""
    top_in_parentheses: bool = False
    """A bind after TOP needs parentheses."""


@dataclass(frozen=True, slots=True)
class PackageCalls:
    """Which calls of stored packages the readonly guard allows; names are in capitals."""

    packages: re.Pattern[str]
    """Packages of the database itself."""
    harmless: re.Pattern[str]
    """Functions of packages that compute from their arguments and touch nothing else."""
    methods: frozenset[str]
    """Methods of values, such as `t.doc.getStringVal()`."""
    field_methods: frozenset[str]
    """Methods of JSON fields without arguments, such as `t.doc.price.number()`."""


@dataclass(frozen=True, slots=True)
class StatementWords:
    """For a database whose statements need no semicolon between them; all in capitals."""

    reserved: frozenset[str]
    """Reserved words that begin a statement other than a query."""
    lock_hints: frozenset[str]
    phrases: re.Pattern[str]
    """Statements that begin with words that are not reserved; literals are written `'?'`."""


@dataclass(frozen=True, slots=True)
class GuardRules:
    """How the readonly guard distinguishes a read from a write.

    The patterns match a statement in one canonical line: words in capitals with one blank between, literals as
    `'?'`, numbers as `0`, quoted identifiers as `"?"`.
    """

    begins_setting: re.Pattern[str]
    settings: re.Pattern[str]
    """Whole statements that change only how this session reads."""
    begins_block: re.Pattern[str] = NEVER
    block_name: str = "block of code"
    executed_comments: re.Pattern[str] = NEVER
    """How comments begin whose content the server runs."""
    calls: re.Pattern[str] = NEVER
    """Functions that can write, lock, or reach files and servers."""
    unreserved: Mapping[str, str] = field(default_factory=dict)
    """Verbs that may be the name of a column → what follows them if they begin a write after another token.

    Empty: there they never begin one. `SET`: a table of any name, and then SET.
    """
    behind_names: frozenset[str] = frozenset()
    """Reserved words that may follow a column and are never the name of a table."""
    into_makes_table: bool = False
    """`SELECT … INTO` makes a table."""
    packages: PackageCalls | None = None
    statements: StatementWords | None = None


@dataclass(frozen=True, slots=True)
class BoundRules:
    """How a value between two parts of a query is read and bound, without loss; `{}` is the value, or the bind."""

    read: str = "{}"
    bind: str = "{}"
    convert: Callable[[Any], Value] = as_it_is
    """Converts the value that was read to the one that is bound."""
    hashed: str = "{}"
    """What the hash is made of: of a time its microseconds, since what differs by less is equal in a message."""


@dataclass(frozen=True, slots=True)
class PartitionRules:
    """How a query is split into parts."""

    quotes: tuple[str, str] = ('"', '"')
    """Around the name of a column; the second one is doubled inside."""
    bounds: Mapping[str, BoundRules] = field(default_factory=dict)
    """Database type without its length, in lower case, or kind of column → how ranges of it are bound. Others have no ranges."""
    hash: str = ""
    """The number of a row's part by hash: `{value}` is the column, `{count}` the number of parts. Empty: there is no such function."""
    sample: str = ""
    """A condition that is true for `{ppm}` of a million rows, at random; empty: all rows are sorted to find even ranges."""
    wraps_with: bool = True
    """A derived table may begin with WITH."""
    wraps_order: bool = True
    """A derived table may have ORDER BY."""
    wraps_unnamed: bool = True
    """A column of a derived table may be an expression without a name."""


@dataclass(frozen=True, slots=True)
class MomentRules:
    """How the times of a column are read and bound as text with every digit, as `YYYY-MM-DD HH:MM:SS.ffffff`."""

    read: str = "{}"
    """What the server computes of a value, `{}`; the text of a later time sorts after that of an earlier one."""
    bind: str = "{}"
    """What is written around a bind, `{}`."""
    compare: str = "{}"
    """What of the column, `{}`, is compared with a bind."""
    is_aware: bool = False
    """The column has an offset: its text is UTC."""
    has_fraction: bool = True


@dataclass(frozen=True, slots=True)
class SessionRules:
    """Statements that set a session up where the driver of another kind of database is used, such as ODBC."""

    setup: tuple[str, ...] = ()
    """After connecting: they make literals end where these rules say, and moments come in UTC."""
    begin: tuple[str, ...] = ()
    """They begin one read-only snapshot; empty: the database has no such session."""


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """Which keys an entry of `connections` in connections.json needs; they are fields of `DatabaseConnection`."""

    required: tuple[str, ...]
    exactly_one_of: tuple[str, ...] = ()
    form: tuple[str, ...] = ("host", "username", "database")
    """The keys that the page asks for, in this order."""
    own: tuple[str, ...] = ()
    """Further keys, which not every database has."""
    instead: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Key → the required keys that an entry with it may leave out."""
    refused_options: tuple[tuple[re.Pattern[str], str], ...] = ()
    """Name of a driver's setting, in lower case → why `options` may not have it."""
    problems: Callable[[Any], Iterator[tuple[str, str, str]]] = no_problems
    """Yields key, problem and remedy for keys of an entry that contradict each other."""
    default_port: int = 0
    is_file: bool = False
    """`database` is a file below the workspace: there is no host, no port and no password."""
    has_tls_modes: bool = False
    """`sslmode` may be set."""


@dataclass(frozen=True, slots=True)
class DatasetRules:
    """How lineage names the tables of a database. Source: https://openlineage.io/docs/spec/naming."""

    scheme: str = ""
    """Of the namespace; empty: the name of the dialect."""
    fold: Callable[[str], str] = str
    """How the database stores an identifier that is not quoted."""
    schema_of: Callable[[DatabaseConnection], str] = lambda _: ""
    """Returns the schema of a table that the statement names without one; empty: this database has none, or it is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """Everything that the program knows about one kind of database. Compared and hashed by identity."""

    name: str
    """The value of `db_type` in connections.json."""
    title: str
    """Its name for people."""
    sqlglot: str
    """The most similar dialect of sqlglot."""
    connection: ConnectionRules
    guard: GuardRules
    lexical: LexicalRules = LexicalRules()
    binds: BindRules = BindRules()
    literals: LiteralRules = LiteralRules()
    partitions: PartitionRules = PartitionRules()
    moments: Mapping[str, MomentRules] = field(default_factory=dict)
    """Database type in lower case, or kind of column → its times as the cursor of an incremental job. Others cannot be one."""
    folds_to: Literal["", "upper", "lower"] = ""
    """How the server stores a name without quotes."""
    is_untyped: bool = False
    """A column may have no type: it is judged by its values."""
    datasets: DatasetRules = DatasetRules()
    session: SessionRules = SessionRules()
    padded_number: str = "LPAD(CAST({} AS varchar), 12, '0')"
    """How SQL writes the number `{}` with 12 digits; for a warning of `preview`."""
    install: str = ""
    """The command that installs the driver; empty: it comes with Python."""
    missing: Callable[[str], CheckResult | None] = needs_nothing
    """Returns what else has to be installed on this machine to connect, given the connection's `driver`."""
