"""Replaces each `&NAME` of a statement by a bind, or by one of its allowed names.

A value never becomes SQL text. Inside a literal it is bound and joined to the rest of the literal;
in a value position it is bound; in place of a name (a table, a column, an alias) only a parameter that lists its
allowed values is accepted, since a bind cannot be a name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NoReturn

from core.model.dialect import Dialect
from core.model.query import Parameter
from core.sql.context import TokenContexts
from core.sql.lexer import ParameterRef, RaiseSqlError, Token, next_significant
from core.sql.literals import plain_text, quoted_again
from core.sql.readonly_guard import parse_tree, statement_kind
from core.sql.values import split

__all__ = [
    "Bind",
    "InsertedName",
    "ListBind",
    "ParameterText",
    "SqlPart",
    "Substitution",
    "substitute",
    "tokens_for_guard",
]


@dataclass(frozen=True, slots=True)
class ParameterText:
    """A parameter inside a bound text."""

    parameter: str


@dataclass(frozen=True, slots=True)
class Bind:
    """A place for a value.

    `'&A.-&B'` of PostgreSQL has the content (Use A, "-", Use B): its bind holds the joined text.
    """

    name: str
    content: tuple[str | ParameterText, ...]
    is_text: bool
    """True inside quotes; False: the declared type, else a number."""
    literal: tuple[str | ParameterText, ...] = ()
    """The whole literal of which this bind is a part in SQL; empty if it is not part of one."""
    is_compared: bool = False
    """It is, alone, a side of a comparison, and the database needs the type of a literal there."""


@dataclass(frozen=True, slots=True)
class InsertedName:
    """A place for one of the allowed values, as text."""

    parameter: str


@dataclass(frozen=True, slots=True)
class ListBind:
    """A place for the values of a list: `before :P after` for each of them, separated by commas."""

    bind: Bind
    before: str = ""
    after: str = ""


SqlPart = str | Bind | InsertedName | ListBind


@dataclass(frozen=True, slots=True)
class Substitution:
    """A statement cut at its parameters."""

    parts: tuple[SqlPart, ...]
    inserted: frozenset[int]
    """Offsets of the references that are replaced by text."""
    alone_in_list: frozenset[str]
    """Parameters of one value that are a whole member of `IN (…)`, where several may have been intended."""


_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_$#]*")
_WORD_PART = re.compile(r"[A-Za-z0-9_$#]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_PLAIN_NUMBER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
"""A number without leading zeros, which a code may have and a number loses."""
# In a session setting, between quotes: no quote, no backslash, nothing that could end the literal.
_SETTING_TEXT = re.compile(r"[\w ./:,+-]*")

_DEFINE_OFF = "if & is plain text here, write SET DEFINE OFF on a line before the statement"


def substitute(
    tokens: Sequence[Token], dialect: Dialect, parameters: Mapping[str, Parameter], fail: RaiseSqlError
) -> Substitution:
    """Decides for every `&NAME` of a statement what takes its place.

    Args:
        tokens: The statement without its terminator.
        dialect: The rules by which binds are written.
        parameters: Name in capitals → its define.
        fail: Called for a name that is not defined and for a place where no value is allowed.
    """
    return _StatementParts(tokens, dialect, parameters, fail).substitute()


def tokens_for_guard(tokens: Sequence[Token], inserted: frozenset[int], values: Mapping[str, str]) -> list[Token]:
    """Returns the statement as the readonly guard reads it: allowed values in place, each bind a literal or a bind name.

    Args:
        tokens: The statement as it is in the file.
        inserted: `Substitution.inserted`.
        values: Parameter → the value that is inserted.
    """
    done: list[Token] = []
    for token in tokens:
        new = _resolved_token(token, inserted, values) if token.references else token
        glued = done and done[-1].kind == "word" and new.kind in ("word", "number")
        if glued and (token.references or _ends_with_insert(tokens, token, inserted)):
            done[-1] = Token("word", done[-1].text + new.text, done[-1].start)
        else:
            done.append(new)
    return done


def _ends_with_insert(tokens: Sequence[Token], token: Token, inserted: frozenset[int]) -> bool:
    """Returns whether inserted text ends exactly where this token begins."""
    return any(t.kind == "parameter" and t.end == token.start and t.references[0].start in inserted for t in tokens)


def _resolved_token(token: Token, inserted: frozenset[int], values: Mapping[str, str]) -> Token:
    if token.references[0].start not in inserted:
        text = "'x'" if token.kind == "string" else marker(token)
        return Token(token.kind if token.kind == "string" else "number", text, token.start, 1, 1)
    text, at = "", token.start
    for mark in token.references:
        text += token.text[at - token.start : mark.start - token.start] + values[mark.name]
        at = mark.end
    text += token.text[at - token.start :]
    kind = "word" if token.kind == "parameter" else token.kind
    return Token(kind, text, token.start, token.opening, token.closing)


def marker(token: Token) -> str:
    """Returns a bind name that every dialect of sqlglot parses and that identifies the place in the tree."""
    return f":pstt_{token.start}"


_INTERVAL_FIELDS = frozenset({"YEAR", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND"})
_CODED_LITERALS = {"B", "X", "U&"}
# A bind that touches one of these would be read as part of it.
_STICKY_BEFORE = re.compile(r"[\w$#@:%?]")
_STICKY_AFTER = re.compile(r"[\w$#@]")
_MAX_BIND_NAME = 28
"""Oracle before 12.2 allows 30 bytes; two are reserved for a number at the end."""
_MAX_NUMBER = 4
"""Digits of the number of a value in a list; Oracle allows 1,000 values."""


class _StatementParts:
    def __init__(
        self, tokens: Sequence[Token], dialect: Dialect, parameters: Mapping[str, Parameter], fail: RaiseSqlError
    ) -> None:
        self._tokens = tokens
        self._binding = dialect.binds
        self._literals = dialect.literals
        self._dialect = dialect
        self._parameters = parameters
        self._fail = fail
        self._is_setting = statement_kind(tokens, dialect) == "setting"
        self._inserted: set[int] = set()
        self._alone_in_list: set[str] = set()
        self._binds: dict[tuple[object, ...], Bind] = {}

    @cached_property
    def _contexts(self) -> TokenContexts:
        """The context of each token; a statement without parameters needs none."""
        return TokenContexts(self._tokens)

    def substitute(self) -> Substitution:
        parts: list[SqlPart] = []
        at = 0
        while at < len(self._tokens):
            token = self._tokens[at]
            if not token.references and token.kind != "word":
                parts.append(token.text)
                at += 1
                continue
            taken, new = self._typed_literal(at) or (1, self._one(at))
            parts += self._in_list(at, taken, new)
            at += taken
        self._check_tree()
        return Substitution(_joined(parts), frozenset(self._inserted), frozenset(self._alone_in_list))

    def _one(self, at: int) -> list[SqlPart]:
        token = self._tokens[at]
        if not token.references:
            return [token.text]
        for mark in token.references:
            self._parameter(mark)
        if token.kind == "parameter":
            return self._bare(at)
        if token.kind == "quoted":
            return self._inserts(token, _IDENTIFIER, "a quoted identifier")
        if self._is_setting:
            return self._inserts(token, _SETTING_TEXT, "a session setting")
        return self._spaced(at, self._literal(at))

    def _parameter(self, mark: ParameterRef) -> Parameter:
        found = self._parameters.get(mark.name)
        if found:
            return found
        if mark.name.isdigit():
            self._fail(
                mark.start,
                f"&{mark.name} is a positional parameter",
                "parameters have names here",
                f"give it a name with define NAME='value' and write &NAME; {_DEFINE_OFF}, or put a blank behind it",
            )
        near = difflib.get_close_matches(mark.name, self._parameters, 1)
        self._fail(
            mark.start,
            f"&{mark.name} is not defined",
            f"the nearest is &{near[0]}" if near else "no define line has that name",
            f"add a line define {mark.name}='value'; {_DEFINE_OFF}",
        )

    def _in_list(self, at: int, taken: int, parts: list[SqlPart]) -> list[SqlPart]:
        """Returns the parts that replace some tokens; for a list, once for each of its values.

        Args:
            at: Index of the first token.
            taken: How many tokens.
            parts: What replaces them for a single value.
        """
        last = self._tokens[at + taken - 1]
        if not last.references:
            return parts
        used = {mark.name for mark in last.references}
        lists = [mark for mark in last.references if self._parameter(mark).is_list]
        first, place = self._contexts[at], self._contexts[at + taken - 1]
        is_member = (
            first.opener == "IN" and first.clause == "" and first.before in ("(", ",") and place.after in (")", ",")
        )
        binds = [part for part in parts if isinstance(part, Bind)]
        is_alone = len(used) == 1 and len(_pieces(last)) == 1
        if not lists:
            if is_alone and (is_member or first.before == "IN"):
                self._alone_in_list |= used
            return parts
        name = lists[0].name
        if not is_member or not is_alone or len(binds) != 1:
            self._fail(
                lists[0].start,
                f"&{name} is a list and stands where one value belongs",
                "each of its values is bound for itself, and only IN (…) takes several",
                f"write in (&{name}) or in ('&{name}') with nothing around it, or remove [list] from its define",
            )
        middle = parts.index(binds[0])
        before, after = ("".join(map(str, some)) for some in (parts[:middle], parts[middle + 1 :]))
        return [ListBind(binds[0], before, after)]

    def _inserts(self, token: Token, pattern: re.Pattern[str], place: str) -> list[SqlPart]:
        """Returns the parts of a token whose parameters become text."""
        parts: list[SqlPart] = []
        at = token.start
        for mark in token.references:
            self._require_allowed(self._parameter(mark), mark, pattern, place)
            self._inserted.add(mark.start)
            parts += [token.text[at - token.start : mark.start - token.start], InsertedName(mark.name)]
            at = mark.end
        return [*parts, token.text[at - token.start :]]

    def _require_allowed(self, parameter: Parameter, mark: ParameterRef, pattern: re.Pattern[str], place: str) -> None:
        name = parameter.name
        if not parameter.allowed:
            self._refuse_name(parameter, mark.start, place)
        for value in parameter.allowed:
            if not pattern.fullmatch(value):
                self._fail(
                    mark.start,
                    f"&{name} stands in {place}, and its allowed value {value!r} may not stand there",
                    "only ASCII letters, digits and _ may be inserted (in a session setting also . / : , + -)",
                    "remove it from [allowed=…]",
                )

    def _refuse_name(self, parameter: Parameter, offset: int, place: str) -> NoReturn:
        name = parameter.name
        self._fail(
            offset,
            f"&{name} stands in {place}",
            "no value can be bound there, and values are never pasted into SQL",
            f"list its values in the comment of its define, such as [allowed=A,B], or write the name instead of &{name}",
        )

    def _literal(self, at: int) -> list[SqlPart]:
        """Returns a literal with parameters as an expression around binds."""
        token = self._tokens[at]
        self._check_literal(token, at)
        pieces = _pieces(token)
        escapes = self._dialect.lexical.backslash_escapes
        content = tuple(
            plain_text(token, piece, escapes=escapes) if isinstance(piece, str) else piece for piece in pieces
        )
        if self._literals.is_joined_before and token.prefix != "E":
            return self._placed(self._bind(at, content, is_text=True), at)
        if len(pieces) == 1:
            return self._placed(self._bind(at, content, is_text=True), at)
        joined: list[SqlPart] = ["("]
        operator = self._literals.concatenation
        for piece in pieces:
            joined += [operator] if len(joined) > 1 else []
            if isinstance(piece, str):
                joined.append(quoted_again(token, piece))
            else:
                joined += self._in_concatenation(self._bind(at, (piece,), is_text=True, literal=content), token)
        return [*joined, ")"]

    def _check_literal(self, token: Token, at: int) -> None:
        mark = token.references[0]
        if self._contexts[at].before == "AS":
            self._refuse_name(self._parameter(mark), mark.start, "the place of an alias")
        if token.prefix in _CODED_LITERALS:
            self._fail(
                mark.start,
                f"&{mark.name} stands in a literal that begins with {token.text[: token.opening]}",
                "a value cannot be bound inside one",
                "write it as a plain literal '…'",
            )
        escapes = token.prefix == "E" or self._dialect.lexical.backslash_escapes
        for mark in token.references:
            before = token.text[: mark.start - token.start]
            if escapes and (len(before) - len(before.rstrip("\\"))) % 2:
                self._fail(mark.start, f"a backslash stands before &{mark.name}", "it would escape the first character")

    def _placed(self, bind: Bind, at: int) -> list[SqlPart]:
        """Returns a bind that is a whole literal, with the conversion that it needs."""
        token, place = self._tokens[at], self._contexts[at]
        is_argument = place.before in ("(", ",") and place.after in (")", ",")
        is_untyped = is_argument and place.opener in self._literals.untyped_functions
        is_tested = place.after in ("IS", "ISNULL", "NOTNULL")
        cast = self._literals.text_cast if is_untyped or is_tested else None
        return _wrapped(bind, self._literals.wrappers.get(token.prefix) or cast)

    def _in_concatenation(self, bind: Bind, token: Token) -> list[SqlPart]:
        return _wrapped(bind, self._literals.wrappers.get(token.prefix) or self._literals.text_cast)

    def _typed_literal(self, at: int) -> tuple[int, list[SqlPart]] | None:
        """Returns how many tokens `DATE '&X'` takes and the conversion that replaces them.

        After the word only a literal is allowed.
        """
        word = self._tokens[at]
        if word.kind != "word":
            return None
        end = self._type_end(at)
        literal = next_significant(self._tokens, end)
        if literal is None or not (token := self._tokens[literal]).references or token.kind != "string":
            return None
        if self._contexts[at].before in (".", "OF"):
            return None
        for mark in token.references:
            self._parameter(mark)
        name = word.upper
        between = "".join(t.text for t in self._tokens[end:literal]).strip()
        value = [between, *self._literal(literal)] if between else self._literal(literal)
        has_field = self._contexts[literal].after in _INTERVAL_FIELDS
        refused = self._literals.interval
        if name == "INTERVAL" and (refused == "refused" or (refused == "refused_with_field" and has_field)):
            self._refuse_interval(token.references[0])
        if name in self._literals.conversions:
            opening, closing = self._literals.conversions[name]
            return literal - at + 1, [opening, *value, closing]
        return literal - at + 1, [*value, "::", "".join(t.text for t in self._tokens[at:end])]

    def _type_end(self, at: int) -> int:
        """Returns the index after the type name that begins at this token; 0 if none does."""
        name = self._tokens[at].upper
        if name in self._literals.conversions or (name == "INTERVAL" and self._literals.interval == "refused"):
            return at + 1
        if name not in self._literals.cast_types:
            return 0
        behind = [i for i in range(at + 1, min(at + 10, len(self._tokens))) if self._tokens[i].is_significant][:3]
        has_zone = [self._tokens[i].upper for i in behind] in (["WITH", "TIME", "ZONE"], ["WITHOUT", "TIME", "ZONE"])
        return behind[-1] + 1 if has_zone and name in ("TIME", "TIMESTAMP") else at + 1

    def _refuse_interval(self, mark: ParameterRef) -> NoReturn:
        number = f"&{mark.name}"
        instead = self._literals.instead_of_interval.format(number)
        self._fail(mark.start, f"{number} stands in an INTERVAL literal", "no bind can stand there", instead)

    def _bare(self, at: int) -> list[SqlPart]:
        token = self._tokens[at]
        mark = token.references[0]
        parameter = self._parameter(mark)
        word = self._glued(at)
        if parameter.is_list and not word and not self._is_setting:
            bind = self._bind(
                at, (ParameterText(mark.name),), is_text=parameter.type is None and not _has_numbers(parameter)
            )
            return self._spaced(at, [bind])
        names_only = bool(parameter.allowed) and all(map(_IDENTIFIER.fullmatch, parameter.allowed))
        if self._is_setting or word or (names_only and parameter.type is None) or not self._contexts[at].takes_value:
            place = "a session setting" if self._is_setting else "a place for a name"
            self._refuse_operator(token, at)
            self._require_allowed(
                parameter, mark, _WORD_PART if word == "tail" or self._is_setting else _IDENTIFIER, place
            )
            self._inserted.add(mark.start)
            return [InsertedName(mark.name)]
        if parameter.type is None and not all(map(_NUMBER.fullmatch, parameter.allowed)):
            self._fail(
                mark.start,
                f"&{parameter.name} stands without quotes, and its allowed values are neither all names nor all numbers",
                remedy=f"write '&{parameter.name}', or add [type=string] to the comment of its define",
            )
        bind = self._bind(at, (ParameterText(mark.name),), is_text=False)
        if self._literals.top_in_parentheses and self._contexts[at].before == "TOP":
            return ["(", bind, ")"]
        return self._spaced(at, [bind])

    def _refuse_operator(self, token: Token, at: int) -> None:
        """Refuses `flags & NAME`: `&` is an operator except in files for SQL*Plus, and `flags NAME` would be an alias."""
        if (
            self._dialect.lexical.has_sqlplus
            or self._contexts[at].takes_value
            or not token.text.lstrip("&")[0].isspace()
        ):
            return
        name = token.references[0].name
        self._fail(
            token.start,
            f"{token.text} may be the parameter {name} or the operator &",
            f"{name} is defined, and SQL*Plus skips blanks behind &",
            f"write &{name} for the parameter; for the operator give the parameter another name",
        )

    def _glued(self, at: int) -> str:
        """Returns `tail` if the parameter ends a longer word (`EXPORT_&YEAR`), `head` if it begins one, else nothing."""
        token = self._tokens[at]
        before = self._tokens[at - 1] if at else None
        after = self._tokens[at + 1] if at + 1 < len(self._tokens) else None
        for other in (before, after):
            sticky = other is before and other is not None and other.text in (":", "@", "#", "$", "?", "\\")
            if other is not None and (other.kind in ("string", "quoted") or sticky):
                self._fail(
                    token.start,
                    f"{token.text} touches {other.text[:20]}",
                    "it is not clear what they would make together",
                    "put a blank between them",
                )
        if before is not None and before.kind == "number":
            self._fail(token.start, f"{token.text} stands inside a number", remedy="write the number as one parameter")
        if before is not None and before.kind in ("word", "parameter"):
            return "tail"
        return "head" if after is not None and after.kind in ("word", "number", "parameter") else ""

    def _bind(
        self,
        at: int,
        content: tuple[str | ParameterText, ...],
        *,
        is_text: bool,
        literal: tuple[str | ParameterText, ...] = (),
    ) -> Bind:
        """Returns the bind for a content; the same content has the same bind."""
        by_place = self._contexts[at].surroundings if self._binding.typed_by_context else ()
        is_compared = self._binding.compares_as_char and not literal and self._contexts[at].is_compared
        key = (content, is_text, by_place, literal if self._binding.cuts_text_at else (), is_compared)
        if key not in self._binds:
            self._binds[key] = Bind(self._free_name(content), content, is_text, literal, is_compared)
        return self._binds[key]

    def _free_name(self, content: tuple[str | ParameterText, ...]) -> str:
        # The prefix P_ avoids reserved words: a bind called DATE is ORA-01745.
        parameter = next(piece.parameter for piece in content if isinstance(piece, ParameterText))
        longest = _MAX_BIND_NAME - (_MAX_NUMBER if self._parameters[parameter].is_list else 0)
        base = re.sub(r"[^A-Z0-9_]", "_", f"P_{parameter}")[:longest]
        taken = {bind.name for bind in self._binds.values()}
        reserved = {f"P_{name}" for name in self._parameters if name != parameter}
        candidates = [base, *(f"{base[: longest - 2]}_{n}" for n in range(2, len(taken) + len(reserved) + 3))]
        return next(name for name in candidates if name not in taken | reserved)

    def _spaced(self, at: int, parts: list[SqlPart]) -> list[SqlPart]:
        """Adds blanks around a bind that would otherwise touch a word: `'&X'AND` is legal, `:P_XAND` is another bind."""
        before = self._tokens[at - 1].text[-1:] if at else ""
        after = self._tokens[at + 1].text[:1] if at + 1 < len(self._tokens) else ""
        left = [" "] if _STICKY_BEFORE.match(before) else []
        right = [" "] if _STICKY_AFTER.match(after) else []
        return [*left, *parts, *right]

    def _check_tree(self) -> None:
        """Checks every value position a second time in the syntax tree, if sqlglot can parse the statement."""
        bare = {marker(t)[1:]: t for t in self._tokens if t.kind == "parameter" and t.start not in self._inserted}
        if not bare:
            return
        samples = {name: parameter.allowed[0] for name, parameter in self._parameters.items() if parameter.allowed}
        text = "".join(t.text for t in tokens_for_guard(self._tokens, frozenset(self._inserted), samples))
        for name in sorted(_names_in_tree(text, self._dialect) & bare.keys()):
            self._refuse_name(self._parameter(bare[name].references[0]), bare[name].start, "a place for a name")


def _names_in_tree(sql: str, dialect: Dialect) -> set[str]:
    """Returns the bind names that sqlglot reads as a table, an alias, a column or a sort key."""
    tree = parse_tree(sql, dialect)
    if tree is None:
        return set()
    from sqlglot import exp

    by_parent = (exp.Table, exp.TableAlias, exp.Column, exp.Dot, exp.Partition, exp.Ordered, exp.Group, exp.Collate)
    by_argument = {
        (exp.Alias, "alias"),
        (exp.Join, "using"),
        (exp.Window, "partition_by"),
        (exp.Window, "alias"),
        (exp.Interval, "this"),
    }
    return {
        node.name
        for node in tree.find_all(exp.Placeholder)
        if isinstance(node.parent, by_parent) or (type(node.parent), node.arg_key) in by_argument
    }


def _wrapped(bind: Bind, around: tuple[str, str] | None) -> list[SqlPart]:
    return [around[0], bind, around[1]] if around else [bind]


def _has_numbers(parameter: Parameter) -> bool:
    """Whether a list without a declared type is one of numbers.

    Its define decides, so that each run binds the same type.
    """
    try:
        examples = parameter.allowed or split(parameter.default)
    except ValueError:
        return False
    return all(map(_PLAIN_NUMBER.fullmatch, examples))


def _pieces(token: Token) -> list[str | ParameterText]:
    """Returns the content of a literal, cut at its parameters; the texts as they are in the file."""
    pieces: list[str | ParameterText] = []
    at = token.opening
    for mark in token.references:
        pieces += [token.text[at : mark.start - token.start], ParameterText(mark.name)]
        at = mark.end - token.start
    pieces.append(token.text[at : len(token.text) - token.closing])
    return [piece for piece in pieces if piece != ""]


def _joined(parts: Sequence[SqlPart]) -> tuple[SqlPart, ...]:
    """Returns the parts with neighbouring texts joined.

    It joins once: adding piece by piece to a text of 5 MB takes a minute.
    """
    joined: list[SqlPart] = []
    texts: list[str] = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
            continue
        joined += ["".join(texts)] if texts else []
        joined.append(part)
        texts = []
    joined += ["".join(texts)] if texts else []
    return tuple(joined)
