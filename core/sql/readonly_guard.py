"""The read-only gate: whatever could write, lock or leave the database is refused before it gets there.

Two opinions, and a statement passes only if neither objects. The first reads tokens and knows what
begins a write, takes a lock or calls out; the second is the syntax tree of sqlglot. Where sqlglot
cannot read a statement (it knows no MODEL clause, and there will be others), a stricter look at the
tokens replaces it, so that a query is not refused for being unusual.

The gate is not the only guard: sessions are read-only wherever the database can do that, and the account
should have SELECT only. It is the one that can say what is wrong, and where.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from core.model.connection import DbType
from core.sql.lexer import Token

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = ["Refusal", "StatementKind", "kind_of", "parse_tree", "refusal"]

# rows: gives a result · setting: changes only this session · block: PL/SQL or T-SQL code · other: anything else
StatementKind = Literal["rows", "setting", "block", "other"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a statement must not run, and the token to point at."""

    token: Token
    what: str
    why: str
    remedy: str = ""


_BEGINS_ROWS = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
_BEGINS_SETTING: dict[DbType, re.Pattern[str]] = {
    "oracle": re.compile(r"ALTER SESSION\b|SET\b"),
    "sqlserver": re.compile(r"SET\b"),
    "postgresql": re.compile(r"(SET|RESET)\b"),
    "sqlite": re.compile(r"PRAGMA\b"),
}
_BEGINS_BLOCK: dict[DbType, re.Pattern[str]] = {
    "oracle": re.compile(r"(DECLARE|BEGIN|< <)|WITH (FUNCTION|PROCEDURE)\b"),
    "sqlserver": re.compile(r"(DECLARE|IF|WHILE|BEGIN(?! TRAN))\b"),
    "postgresql": re.compile(r"DO\b"),
    "sqlite": re.compile(r"(?!)"),
}
_MAIN_VERBS = frozenset({"SELECT", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"})


def kind_of(tokens: Sequence[Token], db_type: DbType) -> StatementKind:
    """What a statement is, told by its words alone."""
    significant = _significant(tokens)
    words = _signature(significant[:4])
    if _BEGINS_BLOCK[db_type].match(words):
        return "block"
    if _BEGINS_SETTING[db_type].match(words):
        return "setting"
    first = _first_word(significant)
    if first is None or first.upper not in _BEGINS_ROWS or _main_verb(significant) not in _BEGINS_ROWS:
        return "other"
    makes_table = db_type in ("sqlserver", "postgresql") and _find_word(significant, "INTO")
    return "other" if makes_table else "rows"


def _first_word(tokens: Sequence[Token]) -> Token | None:
    """The first token behind opening parentheses: `(SELECT 1) UNION …`."""
    return next((token for token in tokens if token.text != "("), None)


def _main_verb(tokens: Sequence[Token]) -> str:
    """The verb that a statement carries out; behind the common table expressions of a WITH."""
    first = _first_word(tokens)
    if first is None or first.upper != "WITH":
        return first.upper if first else ""
    opened = depth = tokens.index(first)
    for _, token, after in _triples(tokens[opened:]):
        depth += _paren(token)
        if depth <= opened and token.kind == "word" and token.upper in _MAIN_VERBS and _text(after) != "AS":
            return token.upper
    return ""


def _paren(token: Token) -> int:
    if token.kind != "operator":
        return 0
    return {"(": 1, ")": -1}.get(token.text, 0)


def _significant(tokens: Sequence[Token]) -> list[Token]:
    return [token for token in tokens if token.is_significant]


def _signature(tokens: Sequence[Token]) -> str:
    """A statement in one canonical line: words in capitals, literals as `'?'`, numbers as 0, identifiers as `"?"`."""
    shapes = {"string": "'?'", "number": "0", "quoted": '"?"'}
    return " ".join(shapes.get(token.kind, token.upper) for token in tokens)


def _find_word(tokens: Sequence[Token], word: str) -> Token | None:
    return next((token for token in tokens if token.kind == "word" and token.upper == word), None)


def refusal(tokens: Sequence[Token], db_type: DbType) -> Refusal | None:
    """Why this statement must not run on a connection that may only read; None: it may.

    Args:
        tokens: One statement without its terminator; parameters are already literals, bind names or identifiers.
        db_type: Whose SQL it is.
    """
    significant = _significant(tokens)
    kind = kind_of(tokens, db_type)
    if kind == "setting":
        return _setting_refusal(significant, db_type)
    if kind == "block":
        return _block_refusal(significant[0], db_type)
    tokens = _names_quoted(tokens, db_type)
    significant = _significant(tokens)
    found = _token_refusal(significant, db_type)
    if found:
        return found
    if kind == "other":
        return _other_refusal(_first_word(significant) or significant[0])
    return _tree_refusal(tokens, significant, db_type)


def _other_refusal(token: Token) -> Refusal:
    return Refusal(
        token,
        f"{_shown(token)} is not allowed here",
        "a query file holds SELECT statements and session settings, and this is neither",
        'name the "database" on the connection instead' if token.upper == "USE" else "",
    )


def _block_refusal(token: Token, db_type: DbType) -> Refusal:
    name = {"oracle": "PL/SQL block", "sqlserver": "block of T-SQL"}.get(db_type, "block of code")
    return Refusal(
        token,
        f"{_shown(token)} is not allowed here",
        f"it begins a {name}, and what the code inside does cannot be checked",
        "instead of a variable use a parameter: define NAME='value' and &NAME" if token.upper == "DECLARE" else "",
    )


def _shown(token: Token) -> str:
    """The token for a message: short, on one line."""
    text = token.upper if token.kind == "word" else token.text
    return text if len(text) <= 30 else text[:29] + "…"


_VALUE = r"(?:\w+|'\?'|\"\?\"|0|[+-] 0)"
_ORACLE_SETTINGS = (
    r"(?:NLS_\w+|CURRENT_SCHEMA|TIME_ZONE|OPTIMIZER_\w+|ISOLATION_LEVEL|CURSOR_SHARING|WORKAREA_SIZE_POLICY"
    r"|SORT_AREA_SIZE|HASH_AREA_SIZE|QUERY_REWRITE_ENABLED|DB_FILE_MULTIBLOCK_READ_COUNT|RESULT_CACHE_MODE)"
)
# Not here on purpose: standard_conforming_strings (it would change where literals end), roles, everything that
# makes a transaction writable again, and settings of extensions, which may mean anything.
_POSTGRESQL_SETTINGS = (
    r"(?:SEARCH_PATH|TIMEZONE|STATEMENT_TIMEOUT|LOCK_TIMEOUT|IDLE_IN_TRANSACTION_SESSION_TIMEOUT|WORK_MEM"
    r"|HASH_MEM_MULTIPLIER|TEMP_BUFFERS|DATESTYLE|INTERVALSTYLE|EXTRA_FLOAT_DIGITS|BYTEA_OUTPUT|LC_\w+|ENABLE_\w+"
    r"|RANDOM_PAGE_COST|SEQ_PAGE_COST|CPU_\w+|EFFECTIVE_\w+|FROM_COLLAPSE_LIMIT|JOIN_COLLAPSE_LIMIT|GEQO\w*|JIT\w*"
    r"|MAX_PARALLEL_WORKERS\w*|PARALLEL_\w+|MIN_PARALLEL_\w+|PLAN_CACHE_MODE|CONSTRAINT_EXCLUSION"
    r"|CURSOR_TUPLE_FRACTION|DEFAULT_TEXT_SEARCH_CONFIG|APPLICATION_NAME|XMLOPTION|XMLBINARY|CLIENT_MIN_MESSAGES)"
)
# Nor ROWCOUNT and TEXTSIZE, which would cut this result, and the next one on the same connection, without a word.
_SQLSERVER_SWITCHES = (
    r"(?:NOCOUNT|ANSI_NULLS|ANSI_WARNINGS|ANSI_PADDING|ANSI_NULL_DFLT_ON|ANSI_NULL_DFLT_OFF|ARITHABORT"
    r"|ARITHIGNORE|CONCAT_NULL_YIELDS_NULL|NUMERIC_ROUNDABORT|XACT_ABORT|STATISTICS IO|STATISTICS TIME)"
)
_LEVEL = r"ISOLATION LEVEL (?:READ UNCOMMITTED|READ COMMITTED|REPEATABLE READ|SNAPSHOT|SERIALIZABLE)"
_SETTINGS: dict[DbType, re.Pattern[str]] = {
    "oracle": re.compile(
        rf"ALTER SESSION SET(?: {_ORACLE_SETTINGS} = {_VALUE})+"
        r"|ALTER SESSION (?:ENABLE|DISABLE|FORCE) PARALLEL QUERY(?: PARALLEL 0)?"
        rf"|SET TRANSACTION (?:READ ONLY|{_LEVEL})(?: NAME '\?')?"
    ),
    "postgresql": re.compile(
        rf"SET (?:SESSION |LOCAL )?{_POSTGRESQL_SETTINGS} (?:=|TO) {_VALUE}(?: , {_VALUE})*"
        rf"|SET (?:SESSION |LOCAL )?(?:TIME ZONE|SCHEMA) {_VALUE}"
        rf"|SET TRANSACTION(?: ,?(?:READ ONLY|DEFERRABLE|NOT DEFERRABLE|{_LEVEL})(?: ,)?)+"
        rf"|RESET (?:{_POSTGRESQL_SETTINGS}|TIME ZONE)"
    ),
    "sqlserver": re.compile(
        rf"SET {_SQLSERVER_SWITCHES}(?: , {_SQLSERVER_SWITCHES})* (?:ON|OFF)"
        rf"|SET (?:DATEFORMAT|DATEFIRST|LANGUAGE|LOCK_TIMEOUT|DEADLOCK_PRIORITY) {_VALUE}"
        rf"|SET QUOTED_IDENTIFIER ON|SET TRANSACTION {_LEVEL}"
    ),
    "sqlite": re.compile(
        rf"PRAGMA (?:CASE_SENSITIVE_LIKE|CACHE_SIZE|BUSY_TIMEOUT|TEMP_STORE) (?:= {_VALUE}|\( {_VALUE} \))"
        r"|PRAGMA QUERY_ONLY = (?:ON|TRUE|YES)"
    ),
}


def _setting_refusal(tokens: Sequence[Token], db_type: DbType) -> Refusal | None:
    if _SETTINGS[db_type].fullmatch(_signature(tokens)):
        return None
    named = tokens[1:] if tokens[0].upper != "ALTER" else tokens[3:]
    skipped = ("SESSION", "LOCAL")
    culprit = next((t for t in named if t.kind in ("word", "quoted") and t.upper not in skipped), tokens[0])
    return Refusal(
        culprit,
        f"{_shown(tokens[0])} … {_shown(culprit)} is not allowed here",
        "only settings that are known to change nothing but how this session reads may be made",
        "remove it; if only the ; behind the setting is missing, add that",
    )


_DML = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "TRUNCATE"})
_LOCK = re.compile(r"FOR (UPDATE|SHARE|NO KEY UPDATE|KEY SHARE)\b")

_IF_A_NAME = "if it is a name, put it in double quotes"
_END_STATEMENT = "end the statement before it with ;"

# Words that begin a statement in T-SQL, where nothing has to stand between two statements. All are
# reserved, so none can be a column unless it stands in brackets.
_TSQL_STATEMENTS = frozenset(
    """ALTER BACKUP BEGIN BREAK BULK CHECKPOINT CLOSE COMMIT CONTINUE CREATE DBCC DEALLOCATE DECLARE DELETE DENY DROP
    DUMP EXEC EXECUTE GOTO GRANT IF INSERT INTO KILL LOAD MERGE OPEN PRINT RAISERROR READTEXT RECONFIGURE RESTORE RETURN
    REVERT REVOKE ROLLBACK SAVE SET SETUSER SHUTDOWN TRAN TRANSACTION TRIGGER TRUNCATE UPDATE UPDATETEXT USE WAITFOR
    WHILE WRITETEXT""".split()
)
_TSQL_LOCK_HINTS = frozenset({"UPDLOCK", "XLOCK", "TABLOCKX"})
_HINTS = {"MERGE": {"JOIN", "UNION"}, "USE": {"HINT", "PLAN"}}
"""First words of query hints that are otherwise verbs: `OPTION (MERGE JOIN)`."""
_TSQL_QUEUES = re.compile(r"RECEIVE (\*|TOP|\()|(END|ON) CONVERSATION ('\?'|@)")
_SET_OPERATORS = frozenset({"UNION", "ALL", "EXCEPT", "INTERSECT"})


# Where these words are not reserved they may be columns: word → what follows where it begins a write behind another
# token. Nothing: there it never does. UPDATE is followed by a table of any name, and then by SET.
_VERBS = dict.fromkeys(
    """ALTER ATTACH BEGIN CALL COMMIT COPY DECLARE DETACH DROP EXEC EXECUTE GRANT LOCK PRAGMA PROCEDURE REINDEX REPLACE
    REVOKE ROLLBACK SAVEPOINT TRIGGER TRUNCATE UPSERT VACUUM""".split(),
    "",
)
_UNRESERVED: dict[DbType, dict[str, str]] = {
    "oracle": {"MERGE": "INTO", "REPLACE": "", "TRUNCATE": ""},
    "sqlserver": {"REPLACE": ""},
    "postgresql": _VERBS | {"DELETE": "FROM", "INSERT": "INTO", "MERGE": "INTO", "UPDATE": "SET"},
    "sqlite": _VERBS | {"MERGE": "", "REPLACE": "INTO"},
}
_BEGINS_CTE = frozenset({"AS", "MATERIALIZED"})
_RESERVED_BEHIND_NAMES = frozenset(
    """AND AS ASC COLLATE DESC ELSE END EXCEPT FETCH FOR FROM GROUP HAVING ILIKE IN INTERSECT IS ISNULL LIKE LIMIT NOT
    NOTNULL OFFSET ON OR ORDER OVERLAPS SIMILAR THEN UNION USING WHEN WHERE WINDOW""".split()
)
"""Of PostgreSQL: what may follow a column and is never the name of a table."""


def _names_quoted(tokens: Sequence[Token], db_type: DbType) -> Sequence[Token]:
    """The same tokens with quotes around each column that is called as a write: `(delete IS NULL)`, `sum(insert)`."""
    unreserved = _UNRESERVED[db_type]
    if not any(token.kind == "word" and token.upper in unreserved for token in tokens):
        return tokens
    significant = _significant(tokens)
    has_set = _find_word(significant, "SET") is not None
    padded = [None, None, *significant, None]
    names = {
        token.start
        for opener, before, token, after in zip(padded, padded[1:], significant, padded[3:], strict=False)
        if token.kind == "word"
        and (begins := unreserved.get(token.upper)) is not None
        and _is_name(opener, before, after, begins, has_set=has_set)
    }
    return [Token("quoted", f'"{t.text}"', t.start, 1, 1) if t.start in names else t for t in tokens]


def _is_name(opener: Token | None, before: Token | None, after: Token | None, begins: str, *, has_set: bool) -> bool:
    """Whether a word with these neighbours cannot begin a write, nor be a function or part of FOR UPDATE."""
    if before is None or _text(after) == "(" or before.upper in ("FOR", "KEY"):
        return False
    if begins == "SET":
        is_word = after is not None and after.kind in ("word", "quoted")
        return not is_word or not has_set or _text(after) in _RESERVED_BEHIND_NAMES
    if not begins or _text(after) != begins:
        return True
    # `SELECT delete FROM t`, `substring(delete FROM 1)`; a common table expression begins with AS or MATERIALIZED.
    is_argument = before.text == "(" and opener is not None and opener.kind == "word"
    return before.upper in (",", ".", "SELECT", "DISTINCT") or (is_argument and _text(opener) not in _BEGINS_CTE)


def _token_refusal(tokens: Sequence[Token], db_type: DbType) -> Refusal | None:
    for check in (_write_refusal, _lock_refusal, _call_refusal):
        if found := check(tokens, db_type):
            return found
    return _tsql_refusal(tokens) if db_type == "sqlserver" else None


def _write_refusal(tokens: Sequence[Token], db_type: DbType) -> Refusal | None:
    """Writes that a SELECT or WITH can hide: INTO, and a data-changing statement in or behind a parenthesis."""
    for before, token, after in _triples(tokens):
        if token.kind != "word" or _text(before) == "." or _text(after) in _HINTS.get(token.upper, ()):
            continue
        if token.upper == "INTO":
            return Refusal(token, "INTO is not allowed here", "it would write the rows into a table or variable")
        named = after is not None and after.kind in ("word", "quoted")
        if token.upper in _DML and named and _text(before) in ("", "(", ")"):
            return _writes(token, _IF_A_NAME if before is not None else "")
    return None


def _writes(token: Token, remedy: str = "") -> Refusal:
    return Refusal(
        token,
        f"{_shown(token)} is not allowed here",
        "it would write, and a query file may only read",
        remedy,
    )


def _lock_refusal(tokens: Sequence[Token], db_type: DbType) -> Refusal | None:
    for at, token in enumerate(tokens):
        if token.upper == "FOR" and (lock := _LOCK.match(_signature(tokens[at : at + 4]))):
            return Refusal(
                token, f"{lock[0]} is not allowed here", "it would lock the rows for everybody who writes them"
            )
    return None


def _tsql_refusal(tokens: Sequence[Token]) -> Refusal | None:
    """What only T-SQL has: lock hints, calls to other servers, and statements that follow without a semicolon."""
    depth = selects = 0
    for at, (before, token, after) in enumerate(_triples(tokens)):
        depth += _paren(token)
        if token.kind != "word" or _text(before) == ".":
            continue
        if before and (found := _tsql_word_refusal(token, _signature(tokens[at : at + 3]), _text(after))):
            return found
        if token.upper == "SELECT" and depth == 0 and _text(before) not in _SET_OPERATORS:
            selects += 1
            if selects > 1:
                return Refusal(token, "a second SELECT begins here", "statements are sent one by one", _END_STATEMENT)
    return None


def _tsql_word_refusal(token: Token, phrase: str, after: str) -> Refusal | None:
    word = token.upper
    what = f"{_shown(token)} is not allowed here"
    if word in _TSQL_LOCK_HINTS:
        return Refusal(token, what, "it would lock rows that others write")
    if word == "NEXT" and after == "VALUE":
        return Refusal(token, "NEXT VALUE FOR is not allowed here", "it would move the sequence on")
    if _TSQL_QUEUES.match(phrase) or (word in _TSQL_STATEMENTS and after not in _HINTS.get(word, ())):
        return Refusal(token, what, "in T-SQL it begins another statement inside this one", _END_STATEMENT)
    return None


def _triples(tokens: Sequence[Token]) -> Iterator[tuple[Token | None, Token, Token | None]]:
    """Each token with its neighbours."""
    padded = [None, *tokens, None]
    return ((padded[i - 1], token, padded[i + 1]) for i, token in enumerate(tokens, 1))


def _text(token: Token | None) -> str:
    return token.upper if token is not None else ""


_POSTGRESQL_CALLS = re.compile(
    r"""PG_(READ|LS|WRITE|FILE|LOGICAL|CREATE|DROP|REPLICATION|COPY|ADVISORY|TRY_ADVISORY|START|STOP|BACKUP|SWITCH
    |WAL_REPLAY|TERMINATE|CANCEL|RELOAD|ROTATE|PROMOTE|NOTIFY|IMPORT|STAT_FILE|STAT\w*_RESET|STAT_RESET|LOG_)\w*
    |LO_(CREAT|IMPORT|EXPORT|UNLINK|PUT|OPEN|TRUNC|FROM_BYTEA)\w*|LOWRITE|DBLINK\w*|SET_CONFIG|NEXTVAL|SETVAL
    |(QUERY|CURSOR)_TO_XML\w*|XPATH_TABLE|CROSSTAB\w*|CONNECTBY|TS_STAT|TS_REWRITE|BRIN_\w+|GIN_CLEAN_\w+
    |BINARY_UPGRADE_\w+|HTTP(_\w+)?""",
    re.VERBOSE,
)
_SQLITE_CALLS = re.compile(
    r"LOAD_EXTENSION|WRITEFILE|READFILE|EDIT|FTS3_TOKENIZER|FSDIR|LSDIR|ZIPFILE|SQLITE3?_EXEC|EVAL"
)
_SQLSERVER_CALLS = re.compile(r"OPENROWSET|OPENQUERY|OPENDATASOURCE|XP_\w+")
_ORACLE_CALLS = re.compile(r"HTTPURITYPE|FTPURITYPE|DBURITYPE|URIFACTORY|BFILENAME|EXTERNAL")
_CALLS: dict[DbType, re.Pattern[str]] = {
    "oracle": _ORACLE_CALLS,
    "sqlserver": _SQLSERVER_CALLS,
    "postgresql": _POSTGRESQL_CALLS,
    "sqlite": _SQLITE_CALLS,
}

_ORACLE_PACKAGES = re.compile(r"(DBMS|UTL|OWA|APEX|WWV|CTX|WPG|LOGMNR|MGMT)_\w+")
# Functions of packages that compute from their arguments and touch nothing else.
_ORACLE_HARMLESS = re.compile(
    r"""(SYS\.)?(DBMS_LOB\.(SUBSTR|GETLENGTH|INSTR|COMPARE)|DBMS_RANDOM\.(VALUE|STRING|NORMAL|RANDOM)
        |DBMS_CRYPTO\.(HASH|MAC)|DBMS_UTILITY\.(GET_HASH_VALUE|GET_TIME)|DBMS_ROWID\.\w+
        |DBMS_FLASHBACK\.GET_SYSTEM_CHANGE_NUMBER|(UTL_RAW|UTL_ENCODE|UTL_I18N|UTL_MATCH|UTL_URL)\.\w+)
    |SYS\.(ODCI\w+LIST|XMLTYPE|DBMS_DEBUG_VC2COLL)|MDSYS\.SDO_\w+|(MDSYS\.)?(SDO_GEOM|SDO_CS)\.\w+""",
    re.VERBOSE,
)
# Methods of values, not of packages: `t.doc.getStringVal()`, and of JSON fields `t.doc.price.number()`.
_XML_METHODS = frozenset(
    {"GETSTRINGVAL", "GETCLOBVAL", "GETNUMBERVAL", "GETBLOBVAL", "GETROOTELEMENT", "EXTRACT", "EXISTSNODE"}
)
_JSON_METHODS = frozenset(
    """NUMBER STRING DATE TIMESTAMP BOOLEAN DOUBLE FLOAT BINARY COUNT SIZE TYPE LENGTH LOWER UPPER ABS CEILING FLOOR
    NUMBERONLY STRINGONLY BOOLEANONLY DATEWITHTIME""".split()
)


@dataclass(frozen=True, slots=True)
class _Chain:
    """A dotted name, `a.b.c`, and what follows: a parenthesis makes it a call."""

    token: Token
    names: tuple[str, ...]
    is_call: bool
    has_arguments: bool

    @property
    def name(self) -> str:
        return ".".join(self.names)

    @property
    def is_method(self) -> bool:
        """Is it a method of a value, as far as the spelling tells?"""
        of_json = self.names[-1] in _JSON_METHODS and len(self.names) > 2 and not self.has_arguments
        return of_json or self.names[-1] in _XML_METHODS


def _call_refusal(tokens: Sequence[Token], db_type: DbType) -> Refusal | None:
    escaped = next((token for token in tokens if token.kind == "quoted" and token.upper.startswith("U&")), None)
    if escaped:
        return Refusal(escaped, 'U&"…" is not allowed here', "the name that it spells in escapes cannot be checked")
    for chain in _chains(tokens):
        if chain.is_call and _CALLS[db_type].fullmatch(chain.names[-1]):
            return _calls(chain)
        if db_type == "oracle" and (found := _oracle_call_refusal(chain)):
            return found
    return None


def _calls(chain: _Chain) -> Refusal:
    return Refusal(chain.token, f"{chain.name} is not allowed here", "it can write, lock, or reach files and servers")


def _oracle_call_refusal(chain: _Chain) -> Refusal | None:
    if len(chain.names) < 2 or _ORACLE_HARMLESS.fullmatch(chain.name):
        return None
    if chain.names[-1] == "NEXTVAL":
        return Refusal(chain.token, f"{chain.name} is not allowed here", "it would move the sequence on")
    if any(_ORACLE_PACKAGES.fullmatch(name) for name in chain.names[:-1]):
        return _calls(chain)
    if not chain.is_call or chain.is_method:
        return None
    return Refusal(
        chain.token,
        f"the call of {chain.name} is not allowed here",
        "a function of a package can write in a transaction of its own, even in a session that only reads",
    )


def _chains(tokens: Sequence[Token]) -> Iterator[_Chain]:
    at = 0
    while at < len(tokens):
        if tokens[at].kind not in ("word", "quoted"):
            at += 1
            continue
        first, names = tokens[at], [_name(tokens[at])]
        at += 1
        while at + 1 < len(tokens) and tokens[at].text == "." and tokens[at + 1].kind in ("word", "quoted"):
            names.append(_name(tokens[at + 1]))
            at += 2
        following = "".join(token.text for token in tokens[at : at + 3])
        is_call = following.startswith("(") and following != "(+)"
        yield _Chain(first, tuple(names), is_call, has_arguments=is_call and not following.startswith("()"))


def _name(token: Token) -> str:
    """An identifier as it compares: in capitals, wide letters folded, since SQL Server's collations fold them too."""
    text = token.text[token.opening : len(token.text) - token.closing]
    return unicodedata.normalize("NFKC", text).upper()


_DIALECTS: dict[DbType, str] = {
    "oracle": "oracle",
    "sqlserver": "tsql",
    "postgresql": "postgres",
    "sqlite": "sqlite",
}
# sqlglot's time grows steeply with nesting; a deeper statement gets the token check instead.
_MAX_DEPTH = 40
_SUSPECT_WORDS = _DML - {"REPLACE"} | frozenset(
    """UPSERT INTO EXEC EXECUTE CALL CREATE ALTER DROP GRANT REVOKE COPY DO LOCK VACUUM ATTACH DETACH PRAGMA REINDEX
    COMMIT ROLLBACK SAVEPOINT BEGIN DECLARE PROCEDURE TRIGGER""".split()
)


def parse_tree(sql: str, db_type: DbType) -> exp.Expr | None:
    """The syntax tree of one statement; None where sqlglot cannot read it, or reads more than one."""
    import logging

    import sqlglot
    from sqlglot.errors import SqlglotError

    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)
    if _deepest(sql) > _MAX_DEPTH:
        return None
    try:
        trees = sqlglot.parse(sql, dialect=_DIALECTS[db_type])
    except (SqlglotError, RecursionError, ValueError, TypeError, LookupError, AttributeError, AssertionError):
        # The last five are bugs of a parser, not errors of the file: the token check decides.
        return None
    tree = trees[0] if len(trees) == 1 else None
    return None if tree is None or isinstance(tree, sqlglot.exp.Command) else tree


def _deepest(sql: str) -> int:
    depth = deepest = 0
    for char in sql:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return deepest


def _tree_refusal(tokens: Sequence[Token], significant: Sequence[Token], db_type: DbType) -> Refusal | None:
    tree = parse_tree("".join(token.text for token in tokens), db_type)
    if tree is None:
        return _suspect_refusal(significant)
    from sqlglot import exp

    if not isinstance(tree, exp.Query | exp.Values | exp.Table):
        return _suspect_refusal(significant) or _other_refusal(significant[0])
    forbidden = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock, exp.Alter, exp.Drop, exp.TruncateTable)
    for node in tree.walk():
        if isinstance(node, forbidden) and not isinstance(node, exp.Query):
            word = type(node).__name__.upper()
            return _writes(_find_word(significant, word) or significant[0])
    return None


def _suspect_refusal(tokens: Sequence[Token]) -> Refusal | None:
    """The strict look at a statement that sqlglot cannot read: no word that could begin a write."""
    for before, token, after in _triples(tokens):
        suspect = token.kind == "word" and token.upper in _SUSPECT_WORDS
        if not suspect or _text(before) in (".", "AS", "RULES") or _text(after) == "(":
            continue
        return Refusal(
            token,
            f"{_shown(token)} is not allowed here",
            "the grammar around it is not known to this program, so it cannot be shown that nothing is written",
            _IF_A_NAME,
        )
    return None
