"""The readonly guard: refuses a statement that could write, lock or call out of the database, before it is sent.

There are two checks, and a statement passes only if neither objects. The first reads tokens and knows what begins a
write, takes a lock or calls out; the second walks the syntax tree of sqlglot. If sqlglot cannot parse a statement (it
knows no MODEL clause, for example), a stricter check of the tokens replaces it, so that a query is not refused for being
unusual. A SELECT whose text has none of the words with which writes and locks begin, not even in a literal, needs no
tree: however it is cut into tokens, no write is in it.

Sessions are read-only too if the database supports that, and the account should have SELECT only. Only the guard can
report what is wrong, and where.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from core.model.dialect import Dialect, GuardRules, PackageCalls, StatementWords
from core.sql.lexer import Token, significant_tokens

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = ["Refusal", "StatementKind", "parse_tree", "refusal", "statement_kind"]

# rows: has a result · setting: changes only this session · block: PL/SQL or T-SQL code · other: anything else
StatementKind = Literal["rows", "setting", "block", "other"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a statement is refused, and the token at fault."""

    token: Token
    what: str
    why: str
    remedy: str = ""


_BEGINS_ROWS = frozenset({"SELECT", "WITH", "VALUES", "TABLE"})
_MAIN_VERBS = frozenset({"SELECT", "VALUES", "TABLE", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"})


def statement_kind(tokens: Sequence[Token], dialect: Dialect) -> StatementKind:
    """Returns what a statement is, by its words alone."""
    significant = significant_tokens(tokens)
    words = _signature(significant[:4])
    if dialect.guard.begins_block.match(words):
        return "block"
    if dialect.guard.begins_setting.match(words):
        return "setting"
    first = _first_word(significant)
    if first is None or first.upper not in _BEGINS_ROWS or _main_verb(significant) not in _BEGINS_ROWS:
        return "other"
    makes_table = dialect.guard.into_makes_table and _find_word(significant, "INTO")
    return "other" if makes_table else "rows"


def _first_word(tokens: Sequence[Token]) -> Token | None:
    """Returns the first token behind opening parentheses: `(SELECT 1) UNION …`."""
    return next((token for token in tokens if token.text != "("), None)


def _main_verb(tokens: Sequence[Token]) -> str:
    """Returns the verb of a statement; for a WITH, the one after its common table expressions."""
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


def _signature(tokens: Sequence[Token]) -> str:
    """Returns a statement as one canonical line: words in capitals, literals as `'?'`, numbers as 0, identifiers as `"?"`."""
    shapes = {"string": "'?'", "number": "0", "quoted": '"?"'}
    return " ".join(shapes.get(token.kind, token.upper) for token in tokens)


def _find_word(tokens: Sequence[Token], word: str) -> Token | None:
    return next((token for token in tokens if token.kind == "word" and token.upper == word), None)


def refusal(tokens: Sequence[Token], dialect: Dialect) -> Refusal | None:
    """Returns why this statement must not run on a connection that may only read; None: it may.

    Args:
        tokens: One statement without its terminator; parameters are already literals, bind names or identifiers.
        dialect: Whose SQL it is.
    """
    significant = significant_tokens(tokens)
    executed = next((t for t in tokens if t.kind == "comment" and dialect.guard.executed_comments.match(t.text)), None)
    if executed:
        return _comment_refusal(executed)
    kind = statement_kind(tokens, dialect)
    if kind == "setting":
        return _setting_refusal(significant, dialect)
    if kind == "block":
        return _block_refusal(significant[0], dialect)
    tokens = _names_quoted(tokens, dialect)
    significant = significant_tokens(tokens)
    found = _token_refusal(significant, dialect)
    if found:
        return found
    if kind == "other":
        return _other_refusal(_first_word(significant) or significant[0])
    return _tree_refusal(tokens, significant, dialect)


def _other_refusal(token: Token) -> Refusal:
    return Refusal(
        token,
        f"{_shown(token)} is not allowed here",
        "a query file holds SELECT statements and session settings, and this is neither",
        'name the "database" on the connection instead' if token.upper == "USE" else "",
    )


def _comment_refusal(token: Token) -> Refusal:
    return Refusal(
        token,
        f"the comment {_shown(token)} is not allowed here",
        "the server runs what is in it, depending on its version",
        "write its content as SQL, or remove it",
    )


def _block_refusal(token: Token, dialect: Dialect) -> Refusal:
    return Refusal(
        token,
        f"{_shown(token)} is not allowed here",
        f"it begins a {dialect.guard.block_name}, and what the code inside does cannot be checked",
        "instead of a variable use a parameter: define NAME='value' and &NAME" if token.upper == "DECLARE" else "",
    )


def _shown(token: Token) -> str:
    """Returns the token for a message: short, on one line."""
    text = token.upper if token.kind == "word" else token.text
    return text if len(text) <= 30 else text[:29] + "…"


def _setting_refusal(tokens: Sequence[Token], dialect: Dialect) -> Refusal | None:
    if dialect.guard.settings.fullmatch(_signature(tokens)):
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

_HINTS = {"MERGE": {"JOIN", "UNION"}, "USE": {"HINT", "PLAN"}}
"""First words of query hints that are otherwise verbs: `OPTION (MERGE JOIN)`."""
_SET_OPERATORS = frozenset({"UNION", "ALL", "EXCEPT", "INTERSECT"})


_BEGINS_CTE = frozenset({"AS", "MATERIALIZED"})


def _names_quoted(tokens: Sequence[Token], dialect: Dialect) -> Sequence[Token]:
    """Returns the tokens with quotes around each column that has the name of a write: `(delete IS NULL)`, `sum(insert)`."""
    unreserved = dialect.guard.unreserved
    if not any(token.kind == "word" and token.upper in unreserved for token in tokens):
        return tokens
    significant = significant_tokens(tokens)
    has_set = _find_word(significant, "SET") is not None
    padded = [None, None, *significant, None]
    names = {
        token.start
        for opener, before, token, after in zip(padded, padded[1:], significant, padded[3:], strict=False)
        if token.kind == "word"
        and (begins := unreserved.get(token.upper)) is not None
        and _is_name(opener, before, after, begins, dialect.guard.behind_names, has_set=has_set)
    }
    return [Token("quoted", f'"{t.text}"', t.start, 1, 1) if t.start in names else t for t in tokens]


def _is_name(
    opener: Token | None,
    before: Token | None,
    after: Token | None,
    begins: str,
    behind_names: frozenset[str],
    *,
    has_set: bool,
) -> bool:
    """Returns whether a word with these neighbours begins no write and is no function or part of FOR UPDATE."""
    if before is None or _text(after) == "(" or before.upper in ("FOR", "KEY"):
        return False
    if begins == "SET":
        is_word = after is not None and after.kind in ("word", "quoted")
        return not is_word or not has_set or _text(after) in behind_names
    if not begins or _text(after) != begins:
        return True
    # `SELECT delete FROM t`, `substring(delete FROM 1)`; a common table expression begins with AS or MATERIALIZED.
    is_argument = before.text == "(" and opener is not None and opener.kind == "word"
    return before.upper in (",", ".", "SELECT", "DISTINCT") or (is_argument and _text(opener) not in _BEGINS_CTE)


def _token_refusal(tokens: Sequence[Token], dialect: Dialect) -> Refusal | None:
    if found := _write_refusal(tokens) or _lock_refusal(tokens) or _call_refusal(tokens, dialect.guard):
        return found
    return _inner_statement_refusal(tokens, dialect.guard.statements) if dialect.guard.statements else None


def _write_refusal(tokens: Sequence[Token]) -> Refusal | None:
    """Finds writes inside a SELECT or WITH: INTO, and a data-changing statement in or behind a parenthesis."""
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


def _lock_refusal(tokens: Sequence[Token]) -> Refusal | None:
    for at, token in enumerate(tokens):
        if token.upper == "FOR" and (lock := _LOCK.match(_signature(tokens[at : at + 4]))):
            return Refusal(
                token, f"{lock[0]} is not allowed here", "it would lock the rows for everybody who writes them"
            )
    return None


def _inner_statement_refusal(tokens: Sequence[Token], words: StatementWords) -> Refusal | None:
    """Finds lock hints and statements that follow without a semicolon, for a database that allows that."""
    depth = selects = 0
    for at, (before, token, after) in enumerate(_triples(tokens)):
        depth += _paren(token)
        if token.kind != "word" or _text(before) == ".":
            continue
        if before and (found := _inner_word_refusal(token, _signature(tokens[at : at + 3]), _text(after), words)):
            return found
        if token.upper == "SELECT" and depth == 0 and _text(before) not in _SET_OPERATORS:
            selects += 1
            if selects > 1:
                return Refusal(token, "a second SELECT begins here", "statements are sent one by one", _END_STATEMENT)
    return None


def _inner_word_refusal(token: Token, phrase: str, after: str, words: StatementWords) -> Refusal | None:
    word = token.upper
    what = f"{_shown(token)} is not allowed here"
    if word in words.lock_hints:
        return Refusal(token, what, "it would lock rows that others write")
    if word == "NEXT" and after == "VALUE":
        return Refusal(token, "NEXT VALUE FOR is not allowed here", "it would move the sequence on")
    if words.phrases.match(phrase) or (word in words.reserved and after not in _HINTS.get(word, ())):
        return Refusal(token, what, "in T-SQL it begins another statement inside this one", _END_STATEMENT)
    return None


def _triples(tokens: Sequence[Token]) -> Iterator[tuple[Token | None, Token, Token | None]]:
    """Yields each token with its neighbours."""
    padded = [None, *tokens, None]
    return ((padded[i - 1], token, padded[i + 1]) for i, token in enumerate(tokens, 1))


def _text(token: Token | None) -> str:
    return token.upper if token is not None else ""


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

    def is_method(self, calls: PackageCalls) -> bool:
        """Whether it is a method of a value, as far as the spelling shows."""
        of_field = self.names[-1] in calls.field_methods and len(self.names) > 2 and not self.has_arguments
        return of_field or self.names[-1] in calls.methods


def _call_refusal(tokens: Sequence[Token], rules: GuardRules) -> Refusal | None:
    escaped = next((token for token in tokens if token.kind == "quoted" and token.upper.startswith("U&")), None)
    if escaped:
        return Refusal(escaped, 'U&"…" is not allowed here', "the name that it spells in escapes cannot be checked")
    for chain in _chains(tokens):
        if chain.is_call and rules.calls.fullmatch(chain.names[-1]):
            return _calls(chain)
        if rules.packages and (found := _package_call_refusal(chain, rules.packages)):
            return found
    return None


def _calls(chain: _Chain) -> Refusal:
    return Refusal(chain.token, f"{chain.name} is not allowed here", "it can write, lock, or reach files and servers")


def _package_call_refusal(chain: _Chain, calls: PackageCalls) -> Refusal | None:
    if len(chain.names) < 2 or calls.harmless.fullmatch(chain.name):
        return None
    if chain.names[-1] == "NEXTVAL":
        return Refusal(chain.token, f"{chain.name} is not allowed here", "it would move the sequence on")
    if any(calls.packages.fullmatch(name) for name in chain.names[:-1]):
        return _calls(chain)
    if not chain.is_call or chain.is_method(calls):
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
    """Returns an identifier as it compares: in capitals, wide letters folded, as SQL Server's collations do."""
    text = token.text[token.opening : len(token.text) - token.closing]
    return unicodedata.normalize("NFKC", text).upper()


# sqlglot's time grows steeply with nesting; a deeper statement gets the token check instead.
_MAX_DEPTH = 40
_SUSPECT_WORDS = _DML - {"REPLACE"} | frozenset(
    """UPSERT INTO EXEC EXECUTE CALL CREATE ALTER DROP GRANT REVOKE COPY DO LOCK VACUUM ATTACH DETACH PRAGMA REINDEX
    COMMIT ROLLBACK SAVEPOINT BEGIN DECLARE PROCEDURE TRIGGER""".split()
)
# In the text itself, so that this does not depend on how our lexer cuts it. A digit before a word does not count as part
# of it, since `1DELETE` is a number and a word for some databases.
_WORDS_OF_WRITES = _SUSPECT_WORDS | {"REPLACE", "SHARE"}
_WRITE_IN_TEXT = re.compile(rf"(?<![A-Z_])(?:{'|'.join(sorted(_WORDS_OF_WRITES))})(?![A-Z0-9_])", re.IGNORECASE)
_LETTERS = re.compile(r"[A-Z_]++(?![0-9])")


def parse_tree(sql: str, dialect: Dialect) -> exp.Expr | None:
    """Returns the syntax tree of one statement; None if sqlglot cannot parse it, or finds more than one."""
    import sqlglot
    from sqlglot.errors import SqlglotError

    logging.getLogger("sqlglot").setLevel(logging.CRITICAL)
    if _deepest(sql) > _MAX_DEPTH:
        return None
    try:
        trees = sqlglot.parse(sql, dialect=dialect.sqlglot)
    except (SqlglotError, RecursionError, ValueError, TypeError, LookupError, AttributeError, AssertionError):
        # The last five are bugs of the parser, not errors of the file: the token check decides.
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


def has_word_of_a_write(text: str) -> bool:
    """Returns whether a word that may begin a write is anywhere in a text, also in a literal or a comment."""
    plain = unicodedata.normalize("NFKC", text)
    if plain.isascii():  # the same in a tenth of the time: a list of values may have 5 MB
        return not _WORDS_OF_WRITES.isdisjoint(_LETTERS.findall(plain.upper()))
    return bool(_WRITE_IN_TEXT.search(plain))


def _tree_refusal(tokens: Sequence[Token], significant: Sequence[Token], dialect: Dialect) -> Refusal | None:
    text = "".join(token.text for token in tokens)
    is_select = significant[0].upper in ("SELECT", "WITH")
    if is_select and not has_word_of_a_write(text):
        return None  # most queries; importing sqlglot takes 70 ms
    tree = parse_tree(text, dialect)
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
    """Finds any word that could begin a write: the strict check if sqlglot cannot parse a statement."""
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
