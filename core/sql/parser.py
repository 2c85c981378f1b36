"""Reads an SQL file: its parameters, its statements, and where values will be bound."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from core.errors import SqlError
from core.model.dialect import Dialect
from core.model.query import Parameter
from core.sql.defines import Defines
from core.sql.lexer import Token, has_blank_reference, lex, position, significant_tokens
from core.sql.query import ParsedQuery, Statement, without_select
from core.sql.readonly_guard import statement_kind
from core.sql.substitution import (
    Bind,
    ListBind,
    substitute,
)

__all__ = ["load", "parse"]


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
    Windows-1252, which `notes` then says. No database is contacted.

    Args:
        text: The whole file.
        name: The name of the query: the file's name.
        dialect: The rules of its database.
        file: For error texts.

    Raises:
        SqlError: With line and column: a parameter that is not defined or is used where no value is allowed, a
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


_MISPLACED = re.compile(r"(?:DEF(?:I(?:NE?)?)?\s+\w+\s*=|SET\s+DEF(?:I(?:NE?)?)?\s+O)", re.IGNORECASE)
_BEGINS_BIND = re.compile(r'[\w"]')
_NOT_CHECKED = ("space", "string", "quoted", "number")
"""Nothing is wrong with these tokens if they have an end."""
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
            if not token.closed or token.kind not in _NOT_CHECKED:
                self._check_token(token)
        self._parameters = self._defined(tokens)
        if self._parameters and has_blank_reference(self._text):
            tokens = lex(self._text, self._dialect, self._parameters)
            self._parameters = self._defined(tokens)
        statements = tuple(self._statement(cut) for cut in self._cut(tokens))
        if all(statement.kind == "setting" for statement in statements):
            raise without_select(statements, self._file)
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
        if token.kind in ("word", "operator") and not (token.text.isascii() and token.text.isprintable()):
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
        """Outside of literals and comments, refuses characters beyond ASCII that are not letters.

        A no-break space is not a blank in every database.
        """
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
        """Returns the statements, without terminators, commands, and blanks around them."""
        cuts: list[list[Token]] = [[]]
        for token in tokens:
            if token.kind == "end":
                if token.upper not in (";", "/", "GO"):
                    self.fail(token.start, "GO with a number is not understood", remedy="write GO alone")
                cuts.append([])
            elif token.kind != "command":
                if token.kind == "word" and self._begins_after_setting(cuts[-1], token):
                    cuts.append([])
                cuts[-1].append(token)
        return [_trimmed(cut) for cut in cuts if any(token.is_significant for token in cut)]

    def _begins_after_setting(self, cut: Sequence[Token], token: Token) -> bool:
        """Returns whether a word is the SELECT or SET after a SET that has no semicolon: `SET NOCOUNT ON SELECT 1`."""
        if not self._dialect.lexical.settings_end_alone or token.upper not in _SET_WORDS:
            return False
        first = next((t for t in cut if t.is_significant), None)
        return first is not None and first.upper == "SET"

    def _statement(self, tokens: list[Token]) -> Statement:
        first = next(token for token in tokens if token.is_significant)
        self._check_misplaced(tokens)
        self._check_foreign_binds(tokens)
        substituted = substitute(tokens, self._dialect, self._parameters, self.fail)
        if self._dialect.binds.loses_nested_comments and any(
            isinstance(part, Bind | ListBind) for part in substituted.parts
        ):
            self._check_nested_comments(tokens)
        line, _ = position(self._text, first.start)
        return Statement(tuple(tokens), substituted, statement_kind(tokens, self._dialect), line)

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
        """Refuses what the driver would take as a bind without a value."""
        significant = significant_tokens(tokens)
        if significant[0].upper in ("CREATE", "ALTER"):
            return
        for before, token, after in zip([None, *significant], significant, [*significant[1:], None], strict=False):
            if token.kind != "operator" or token.text == "," or not self._dialect.binds.foreign.fullmatch(token.text):
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
        """Refuses nested comments: unlike SQL Server, FreeTDS ends one at the first `*/` and would take a later `?` as a bind."""
        for token in tokens:
            _, _, rest = token.text.partition("*/")
            if token.kind == "comment" and token.text.startswith("/*") and re.search(r"[?'\"\[{]|--|/\*", rest):
                self.fail(
                    token.start,
                    "this comment holds another one, and quotes or ? behind it",
                    "ODBC drivers do not agree where it ends, so binds could be lost",
                    "remove the inner /* */",
                )


def _trimmed(tokens: list[Token]) -> list[Token]:
    """Returns the tokens without blanks at both ends."""
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
