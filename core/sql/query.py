"""The SQL file: what it asks for, and the statements it becomes when every parameter has a value.

Everything that is not a parameter reaches the driver as it stands in the file, byte for byte; only the
lines for SQL*Plus and the terminators are left out.
"""

from __future__ import annotations

import difflib
import hashlib
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from core.errors import SqlError
from core.model.dialect import Dialect
from core.model.query import LiteralText, Parameter, ParameterValue, Query, Step, Value
from core.sql import readonly_guard as gate
from core.sql.defines import Defines
from core.sql.lexer import Token, has_blank_mark, lex, position
from core.sql.substitution import Bind, Each, Insert, Substituted, Use, resolved, substitute
from core.sql.values import join, problem, shown, split, typed

__all__ = ["ParsedQuery", "load", "parse"]

_Given = TypeVar("_Given", str, ParameterValue)
_ALLOW_WRITES = 'if it is meant to write, set "allow_writes": true on its connection in connections.json'


def load(path: Path, dialect: Dialect) -> ParsedQuery:
    """Reads and parses one file of `queries/`.

    Raises:
        SqlError: As `parse`; also where the file cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise SqlError("cannot read the query file", why=why, remedy=f"check {path}", file=path) from None
    return parse(content, name=path.name, dialect=dialect, file=path)


def parse(text: str | bytes, *, name: str, dialect: Dialect, file: Path | None = None) -> ParsedQuery:
    """Finds parameters and statements of an SQL file and decides where values will be bound.

    Bytes are UTF-8, with or without byte order mark; UTF-16 with one, as SQL Server's tools save it; else
    Windows-1252, which `notes` then tells. Nothing is asked of a database.

    Args:
        text: The whole file.
        name: How the query is called: the file's name.
        dialect: Whose SQL it is.
        file: For error texts.

    Raises:
        SqlError: With line and column: a parameter that is not defined or stands where no value may stand, a
            SQL*Plus command, a literal without end, no SELECT.
    """
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    decoded, notes = (text.removeprefix("\ufeff"), ()) if isinstance(text, str) else _decode(text, file)
    return _Parser(decoded, name, dialect, file, hashlib.sha256(raw).hexdigest(), notes).parse()


def _decode(content: bytes, file: Path | None) -> tuple[str, tuple[str, ...]]:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace"), ("read as UTF-16; save it as UTF-8",)
    try:
        return content.decode("utf-8-sig"), ()
    except UnicodeDecodeError:
        note = "read as Windows-1252, because it is not UTF-8; save it as UTF-8 to be sure of letters such as à and €"
    try:
        return content.decode("cp1252"), (note,)
    except UnicodeDecodeError as error:
        line, column = position(content.decode("latin-1"), error.start)
        raise SqlError(
            f"byte 0x{content[error.start]:02X} is neither UTF-8 nor Windows-1252",
            why="the encoding of the file is not known",
            remedy="save it as UTF-8",
            file=file,
            line=line,
            column=column,
        ) from None


@dataclass(frozen=True, slots=True)
class _Statement:
    tokens: tuple[Token, ...]
    substituted: Substituted
    kind: gate.StatementKind
    line: int


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """An SQL file without its values."""

    name: str
    dialect: Dialect
    parameters: tuple[Parameter, ...]
    sha256: str
    """Hash of the file's bytes, in hex."""
    notes: tuple[str, ...]
    """What a person should know about the file, such as a guessed encoding."""
    file: Path | None
    _text: str
    _statements: tuple[_Statement, ...]

    def defaults(self) -> dict[str, str]:
        """The values that optional parameters have in the file; they may be templates such as `{date-1}`."""
        return {p.name: p.default for p in self.parameters if not p.mandatory}

    def resolved(self, values: Mapping[str, ParameterValue], resolve: Callable[[str], str]) -> dict[str, str]:
        """The texts for `bind`: what is given, else the defaults, with templates resolved.

        Args:
            values: Parameter → text or list; names in any case.
            resolve: Replaces the templates of one text; called for each value of a list.

        Raises:
            SqlError: A list for a parameter of one value, a name in two cases with two values; and what `resolve` raises.
        """
        given: dict[str, ParameterValue] = {**self.defaults(), **self._named(values)}
        known = {parameter.name: parameter for parameter in self.parameters}
        return {name: self.resolved_text(known.get(name), value, resolve) for name, value in given.items()}

    def resolved_text(self, parameter: Parameter | None, value: ParameterValue, resolve: Callable[[str], str]) -> str:
        """As `resolved`, for one parameter; None: one that the file has not, which `bind` will refuse."""
        if parameter is not None and parameter.is_list and isinstance(value, str):
            # What is no list is left to bind, which says why.
            with suppress(ValueError):
                return join(map(resolve, split(value)))
        if isinstance(value, str):
            return resolve(value)
        if parameter is not None and not parameter.is_list:
            raise SqlError(
                f"parameter {parameter.name} is given a list and takes one value",
                remedy=f"write one value, or {_mark_as_list(parameter)}",
                file=self.file,
                line=parameter.line,
            )
        return join(map(resolve, value))

    def bind(self, values: Mapping[str, str], *, allow_writes: bool = False) -> Query:
        """The statements for these values, checked to be free of writes.

        The values change only the binds: the text of the steps is the same for any of them, except for
        parameters that list their allowed names.

        Args:
            values: Parameter → value, templates already resolved; names in any case. Missing ones have their default.
            allow_writes: The connection says so: the read-only gate stays open.

        Raises:
            SqlError: A mandatory parameter is missing, a name is unknown, a value does not fit, or a statement
                could write.
        """
        given = self._given(values)
        if not allow_writes:
            for statement in self._statements:
                self._check(statement, given)
        if not any(statement.kind == "rows" for statement in self._statements):
            raise _without_select(self._statements, self.file)
        steps = tuple(self._step(statement, given) for statement in self._statements)
        return Query(self.name, steps, given, self.sha256)

    def _given(self, values: Mapping[str, str]) -> dict[str, str]:
        """The value of each parameter, checked."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in values:
            if name.upper() not in known:
                self._refuse_unknown(name, list(known))
        named = self._named(values)
        for parameter in self.parameters:
            if parameter.mandatory and parameter.name not in named:
                self._refuse_missing(parameter)
        given = {p.name: named.get(p.name, p.default) for p in self.parameters}
        alone_in_list = frozenset[str]().union(*(s.substituted.alone_in_list for s in self._statements))
        for parameter in self.parameters:
            if parameter.name in alone_in_list:
                self._check_comma(parameter, given[parameter.name])
            self._check_value(parameter, given[parameter.name])
        return given

    def _check_comma(self, parameter: Parameter, value: str) -> None:
        """`IN ('N,S')` finds the rows that hold that whole text: none, and the run would be green."""
        if "," in value:
            raise SqlError(
                f"parameter {parameter.name} stands in IN (…) and cannot be {shown(value)}",
                why="its value is bound as one text, with its commas, so it is no list",
                remedy=f"for a list {_mark_as_list(parameter)}; there a value that holds a comma stands in quotes",
                file=self.file,
                line=parameter.line,
            )

    def _named(self, values: Mapping[str, _Given]) -> dict[str, _Given]:
        """The values by name in capitals."""
        named: dict[str, _Given] = {}
        for name, value in values.items():
            upper = name.upper()
            if named.setdefault(upper, value) != value:
                raise SqlError(
                    f"parameter {upper} is given twice, with different values", remedy="leave one out", file=self.file
                )
        return named

    def _refuse_unknown(self, name: str, known: Sequence[str]) -> NoReturn:
        near = difflib.get_close_matches(name.upper(), known, 1)
        why = f"the nearest is {near[0]}" if near else f"it has {', '.join(known)}" if known else "it has no parameters"
        raise SqlError(
            f"{self.name} has no parameter {name[:60]}",
            why=why,
            remedy="correct the name in parameters of the job or in --param, or add a define line",
            file=self.file,
        )

    def _refuse_missing(self, parameter: Parameter) -> NoReturn:
        described = f" ({parameter.description})" if parameter.description else ""
        raise SqlError(
            f"mandatory parameter {parameter.name}{described} has no value",
            why="the value on its define line is only an example",
            remedy=f'give it in the job ("parameters": {{"{parameter.name}": "…"}}) or with --param {parameter.name}=…',
            file=self.file,
            line=parameter.line,
        )

    def _check_value(self, parameter: Parameter, value: str) -> None:
        why = problem(parameter, value, self.dialect)
        if why:
            raise SqlError(
                f"parameter {parameter.name} cannot be {shown(value)}",
                why=why,
                remedy="give values such as N,S, with commas between" if parameter.is_list else "give another value",
                file=self.file,
                line=parameter.line,
            )

    def _check(self, statement: _Statement, given: Mapping[str, str]) -> None:
        tokens = resolved(statement.tokens, statement.substituted.inserted, given)
        found = gate.refusal(tokens, self.dialect)
        if found is None:
            return
        line, column = position(self._text, found.token.start)
        remedy = f"{found.remedy}; {_ALLOW_WRITES}" if found.remedy else f"remove it; {_ALLOW_WRITES}"
        raise SqlError(found.what, why=found.why, remedy=remedy, file=self.file, line=line, column=column)

    def _step(self, statement: _Statement, given: Mapping[str, str]) -> Step:
        parts = statement.substituted.parts
        doubles = self.dialect.binds.doubles_percent and any(isinstance(part, Bind | Each) for part in parts)
        placeholder = self.dialect.binds.placeholder.format
        texts: list[str] = []
        valued: list[tuple[str, Value]] = []
        for part in parts:
            if isinstance(part, Bind):
                valued.append((part.name, self._value(part, _text_of(part.content, given), given)))
                texts.append(placeholder(part.name))
            elif isinstance(part, Each):
                values = self._values(part, given)
                valued += values
                before, after = (text.replace("%", "%%") if doubles else text for text in (part.before, part.after))
                texts.append(", ".join(before + placeholder(name) + after for name, _ in values))
            elif isinstance(part, Insert):
                texts.append(given[part.parameter])
            else:
                texts.append(part.replace("%", "%%") if doubles else part)
        named = dict(valued)
        binds = tuple(value for _, value in valued) if self.dialect.binds.is_positional else named
        self._check_count(statement, len(binds))
        return Step("".join(texts), binds, statement.kind == "rows", statement.line)

    def _values(self, each: Each, given: Mapping[str, str]) -> list[tuple[str, Value]]:
        """The binds of a list, by name: L1_X, L2_X, …, which the name of no other bind can be."""
        parameter = self._parameter_of(each.bind)
        texts, most = split(given[parameter.name]), self.dialect.binds.most_in_list
        if len(texts) > most:
            raise SqlError(
                f"parameter {parameter.name} has {len(texts):,} values",
                why=f"{self.dialect.title} takes at most {most:,} in one list",
                remedy=_FEWER,
                file=self.file,
                line=parameter.line,
            )
        name = each.bind.name.removeprefix("P_")
        return [(f"L{n}_{name}", self._value(each.bind, text, given)) for n, text in enumerate(texts, 1)]

    def _check_count(self, statement: _Statement, count: int) -> None:
        if count > self.dialect.binds.most:
            raise SqlError(
                f"the statement would have {count:,} values",
                why=f"{self.dialect.title} takes at most {self.dialect.binds.most:,}",
                remedy=_FEWER,
                file=self.file,
                line=statement.line,
            )

    def _value(self, bind: Bind, text: str, given: Mapping[str, str]) -> Value:
        if bind.is_text:
            self._check_length(bind, given)
            return LiteralText(text) if bind.is_compared else text
        parameter = self._parameter_of(bind)
        value = typed(parameter.type, text)
        if value is None:
            self._refuse_text(parameter, text)
        return LiteralText(value) if bind.is_compared and isinstance(value, str) else self.dialect.binds.convert(value)

    def _parameter_of(self, bind: Bind) -> Parameter:
        name = next(piece.parameter for piece in bind.content if isinstance(piece, Use))
        return next(parameter for parameter in self.parameters if parameter.name == name)

    def _refuse_text(self, parameter: Parameter, text: str) -> NoReturn:
        name = parameter.name
        why = f"&{name} stands without quotes, so its value has to be a number"
        if parameter.is_list:
            why = f"&{name} stands without quotes and its define has numbers, so each of its values has to be one"
        raise SqlError(
            f"parameter {name} cannot be {shown(text)}",
            why=why,
            remedy=f"write '&{name}' in the file for a text, or add [type=date] or [type=string] to its comment",
            file=self.file,
            line=parameter.line,
        )

    def _check_length(self, bind: Bind, given: Mapping[str, str]) -> None:
        limit = self.dialect.binds.cuts_text_at
        if limit is None or not bind.literal:
            return
        names = [piece.parameter for piece in bind.literal if isinstance(piece, Use)]
        longest = max(_utf16_units(given[name]) for name in names)
        if longest <= limit < _utf16_units(_text_of(bind.literal, given)):
            raise SqlError(
                f"the literal around &{names[0]} gets longer than {limit} characters",
                why=f"{self.dialect.title} would cut it there without an error",
                remedy="give a shorter value",
                file=self.file,
            )


_FEWER = "give fewer values, or put them into a table and join it"


def _text_of(content: Sequence[str | Use], given: Mapping[str, str]) -> str:
    return "".join(given[piece.parameter] if isinstance(piece, Use) else piece for piece in content)


def _mark_as_list(parameter: Parameter) -> str:
    word = "Obbligatorio" if parameter.mandatory else "Opzionale"
    return f"add [list] to the comment of its define (--{word} [list]: …)"


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


_MISPLACED = re.compile(r"(?:DEF(?:I(?:NE?)?)?\s+\w+\s*=|SET\s+DEF(?:I(?:NE?)?)?\s+O)", re.IGNORECASE)
_BEGINS_BIND = re.compile(r'[\w"]')
_SET_WORDS = frozenset({"SET", "SELECT", "WITH"})


class _Parser:
    def __init__(
        self, text: str, name: str, dialect: Dialect, file: Path | None, sha256: str, notes: tuple[str, ...]
    ) -> None:
        self._text = text
        self._name = name
        self._dialect = dialect
        self._file = file
        self._sha256 = sha256
        self._notes = notes
        self._parameters: dict[str, Parameter] = {}

    def parse(self) -> ParsedQuery:
        self._check_characters()
        tokens = lex(self._text, self._dialect)
        for token in tokens:
            self._check_token(token)
        self._parameters = self._defined(tokens)
        if self._parameters and has_blank_mark(self._text):
            tokens = lex(self._text, self._dialect, self._parameters)
            self._parameters = self._defined(tokens)
        statements = tuple(self._statement(cut) for cut in self._cut(tokens))
        if all(statement.kind == "setting" for statement in statements):
            raise _without_select(statements, self._file)
        return ParsedQuery(
            self._name,
            self._dialect,
            tuple(self._parameters.values()),
            self._sha256,
            self._notes,
            self._file,
            self._text,
            statements,
        )

    def _defined(self, tokens: Sequence[Token]) -> dict[str, Parameter]:
        defines = Defines(self._dialect, self.fail, lambda offset: position(self._text, offset)[0])
        for token in tokens:
            if token.kind == "command":
                defines.read(token)
        return defines.parameters

    def fail(self, offset: int, what: str, why: str = "", remedy: str = "") -> NoReturn:
        line, column = position(self._text, offset)
        raise SqlError(what, why=why, remedy=remedy, file=self._file, line=line, column=column)

    def _check_characters(self) -> None:
        wrong = re.search(r"[\0\ud800-\udfff]", self._text)
        if wrong:
            kind = "a NUL character" if wrong[0] == "\0" else "half a character (a lone surrogate)"
            self.fail(wrong.start(), f"the file holds {kind}", "it is not plain text", "save it again as UTF-8")

    def _check_token(self, token: Token) -> None:
        if not token.closed:
            kind = {"string": "literal", "quoted": "quoted identifier"}.get(token.kind, token.kind)
            self.fail(token.start, f"the {kind} that begins here has no end", remedy="close it")
        if token.kind in ("word", "operator"):
            self._check_letters(token)
        touches_quote = token.kind == "word" and self._text.startswith("'", token.end)
        if touches_quote and self._dialect.lexical.finds_q_literals and token.upper.endswith("Q"):
            self.fail(token.end, "a literal touches the word before it", remedy="put a blank between them")
        lone_return = token.text.startswith("--") and "\r" in token.text.rstrip("\r")
        if lone_return and self._dialect.lexical.refuses_lone_return:
            self.fail(
                token.start + token.text.index("\r"),
                "a carriage return stands alone in this comment",
                "some programs end the comment there and others do not",
                "write a whole line end",
            )

    def _check_letters(self, token: Token) -> None:
        """Outside literals and comments only letters may be other than ASCII: a no-break space is no blank everywhere."""
        for index, char in enumerate(token.text):
            is_plain = char.isprintable() if char.isascii() else char.isalnum() or _is_mark(char)
            if is_plain:
                continue
            self.fail(
                token.start + index,
                f"the character U+{ord(char):04X} ({_character_name(char)}) is not SQL",
                "it often comes from a word processor or a chat",
                "replace it by a plain blank, quote or sign; in a name, put the name in double quotes",
            )

    def _cut(self, tokens: Sequence[Token]) -> list[list[Token]]:
        """The statements, without terminators, commands, and blanks around them."""
        cuts: list[list[Token]] = [[]]
        for token in tokens:
            if token.kind == "end":
                if token.upper not in (";", "/", "GO"):
                    self.fail(token.start, "GO with a number is not understood", remedy="write GO alone")
                cuts.append([])
            elif token.kind != "command":
                if self._begins_after_setting(cuts[-1], token):
                    cuts.append([])
                cuts[-1].append(token)
        return [_trimmed(cut) for cut in cuts if any(token.is_significant for token in cut)]

    def _begins_after_setting(self, cut: Sequence[Token], token: Token) -> bool:
        """Whether a SELECT or SET begins behind a SET that has no semicolon: `SET NOCOUNT ON SELECT 1`."""
        if not self._dialect.lexical.settings_end_alone or token.kind != "word" or token.upper not in _SET_WORDS:
            return False
        first = next((t for t in cut if t.is_significant), None)
        return first is not None and first.upper == "SET"

    def _statement(self, tokens: list[Token]) -> _Statement:
        first = next(token for token in tokens if token.is_significant)
        self._check_misplaced(tokens)
        self._check_foreign_binds(tokens)
        substituted = substitute(tokens, self._dialect, self._parameters, self.fail)
        if self._dialect.binds.loses_nested_comments and any(
            isinstance(part, Bind | Each) for part in substituted.parts
        ):
            self._check_nested_comments(tokens)
        line, _ = position(self._text, first.start)
        return _Statement(tuple(tokens), substituted, gate.kind_of(tokens, self._dialect), line)

    def _check_misplaced(self, tokens: Sequence[Token]) -> None:
        for token in tokens:
            if token.kind == "word" and _MISPLACED.match(self._text, token.start) and self._begins_line(token.start):
                self.fail(
                    token.start,
                    f"{token.text} stands inside a statement",
                    "the statement before it has no end",
                    "end it with ; or move this line up",
                )

    def _begins_line(self, offset: int) -> bool:
        return not self._text[self._text.rfind("\n", 0, offset) + 1 : offset].strip()

    def _check_foreign_binds(self, tokens: Sequence[Token]) -> None:
        """Refuses what the driver would take for a bind that nobody gives a value."""
        significant = [token for token in tokens if token.is_significant]
        if significant[0].upper in ("CREATE", "ALTER"):
            return
        for before, token, after in zip([None, *significant], significant, [*significant[1:], None], strict=False):
            if token.kind != "operator" or not self._dialect.binds.foreign.fullmatch(token.text):
                continue
            if not self._reads_as_bind(before, token, after):
                continue
            shown = token.text if token.text == "?" or after is None else token.text + after.text[:30]
            self.fail(
                token.start,
                f"{shown} is a bind variable of another program",
                "nothing gives it a value here",
                "write &NAME and a define line"
                + ("; between a JSON key and its value put a blank behind the colon" if shown[0] == ":" else ""),
            )

    def _reads_as_bind(self, before: Token | None, token: Token, after: Token | None) -> bool:
        if token.text == "?":
            return True
        if self._dialect.binds.foreign_takes_blanks:
            # `'key' : value` is JSON, `: name` is a bind, and so is the N of `:N'x'`.
            is_json = before and before.kind == "string" and not self._text[before.end : token.start].strip()
            return not is_json and after is not None and bool(_BEGINS_BIND.match(after.text))
        if after is None or after.start != token.end:
            return False
        return after.kind == "number" or (after.kind == "word" and self._dialect.binds.foreign_takes_words)

    def _check_nested_comments(self, tokens: Sequence[Token]) -> None:
        """FreeTDS ends a comment at the first `*/` and would take a later `?` for a bind; SQL Server does not."""
        for token in tokens:
            _, _, rest = token.text.partition("*/")
            if token.kind == "comment" and token.text.startswith("/*") and re.search(r"[?'\"\[{]|--|/\*", rest):
                self.fail(
                    token.start,
                    "this comment holds another one, and quotes or ? behind it",
                    "ODBC drivers do not agree where it ends, so binds could be lost",
                    "remove the inner /* */",
                )


def _without_select(statements: Sequence[_Statement], file: Path | None) -> SqlError:
    return SqlError(
        "the file holds no SELECT" if statements else "the file holds no statement",
        why="the last SELECT gives the rows",
        remedy="add one",
        file=file,
        line=statements[0].line if statements else 1,
    )


def _trimmed(tokens: list[Token]) -> list[Token]:
    """Without blanks at both ends."""
    start, end = 0, len(tokens)
    while tokens[start].kind == "space":
        start += 1
    while tokens[end - 1].kind == "space":
        end -= 1
    return tokens[start:end]


def _is_mark(char: str) -> bool:
    return unicodedata.category(char) in ("Mn", "Mc")


def _character_name(char: str) -> str:
    return unicodedata.name(char, "control character").lower()
