"""Cuts SQL text into tokens by the lexical rules of a database. No other module searches for the end of a literal.

The tokens of a text, joined, are the text: nothing is lost, added or reordered, whatever the text is.
The ends of statements are tokens too, because SQL*Plus commands (`define …`) are allowed only where a statement may begin.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NoReturn, Protocol

import msgspec

from core.model.dialect import DOUBLE_QUOTED, Dialect, LexicalRules

__all__ = [
    "ParameterRef",
    "RaiseSqlError",
    "Token",
    "TokenKind",
    "has_blank_reference",
    "lex",
    "next_significant",
    "position",
    "significant_tokens",
]

# kind       what it is
# space      blanks and line ends
# comment    `-- …` up to the line end, `/* … */` (hints too)
# string     a literal with its prefix and delimiters: 'x', N'x', q'[x]', E'x', $tag$x$tag$
# quoted     a quoted identifier: "x", [x], `x`
# word       a keyword or a plain identifier
# number     a numeric literal without sign
# operator   one character, or `::` and `:=`
# parameter  `&NAME`, `&&NAME`, `& NAME`, with the dot that ends the name
# command    a line for SQL*Plus (define, SET DEFINE, SPOOL …), its line end included
# end        `;`, a line with only `/`, a GO line of SQL Server
TokenKind = Literal["space", "comment", "string", "quoted", "word", "number", "operator", "parameter", "command", "end"]


@dataclass(frozen=True, slots=True)
class ParameterRef:
    """One `&NAME`, which will be replaced. Offsets count characters from the beginning of the file."""

    name: str
    """In capitals; digits for a positional one (`&1`)."""
    start: int
    end: int
    """The offset after the name, or after the dot that ends it."""


class Token(msgspec.Struct, frozen=True, gc=False):
    """A piece of the text, `text`, which begins at character `start` of the file.

    A struct is made in a fifth of the time of a dataclass, and a file of 5 MB has more than a million tokens.
    """

    kind: TokenKind
    text: str
    start: int
    opening: int = 0
    """Characters before the content of a string or quoted identifier."""
    closing: int = 0
    references: tuple[ParameterRef, ...] = ()
    closed: bool = True
    """False where the file ends inside a literal, identifier or comment."""

    @property
    def end(self) -> int:
        """Returns the offset after the last character."""
        return self.start + len(self.text)

    @property
    def upper(self) -> str:
        """The text in capitals."""
        return self.text.upper()

    @property
    def prefix(self) -> str:
        """Returns what precedes the quote of a string, in capitals: `N`, `Q`, `E`, `$`, or nothing."""
        return "$" if self.text[0] == "$" else _BEFORE_QUOTE.match(self.text)[0].upper()  # type: ignore[index]

    @property
    def is_significant(self) -> bool:
        """Whether it is neither a blank nor a comment."""
        return self.kind not in ("space", "comment")


class RaiseSqlError(Protocol):
    """Raises SqlError that points at a character of the file."""

    def __call__(self, offset: int, what: str, why: str = "", remedy: str = "") -> NoReturn:
        """Raises the error; never returns."""
        ...


_SPACE = re.compile(r"[ \t\r\n\f\v]+")
_NUMBER = re.compile(r"(?:0[xX][0-9A-Fa-f]+|(?:[0-9]+(?:\.(?!\.)[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)")
_COMMENT_EDGE = re.compile(r"/\*|\*/")
_BEFORE_QUOTE = re.compile(r"[^'\"]*")
_STRINGS = {"'": re.compile(r"'(?:[^']+|'')*+'"), '"': DOUBLE_QUOTED}
_ESCAPED = {
    "'": re.compile(r"'(?:[^'\\]+|''|\\.)*+'", re.DOTALL),
    '"': re.compile(r'"(?:[^"\\]+|""|\\.)*+"', re.DOTALL),
}
_DOLLAR = re.compile(r"\$(?:[^\x00-@\[-^`{-\x7f][^\x00-/:-@\[-^`{-\x7f]*)?\$")
_MARK = re.compile(r"&&?(?P<blanks>[^\S\r\n]*)(?P<name>[^\W\d]\w*|\d+)\.?")
_EXACT = 1.0
_NEAR = 0.75
"""The similarity to a defined name from which a name counts as its misspelling; `_EXACT`: the same name."""
_LINE = re.compile(r"[^\n]*\n?")
_ALONE = re.compile(r"[ \t\r]*(?:\n|$)")
_CLOSERS = {"[": "]", "(": ")", "{": "}", "<": ">"}

# Commands that SQL*Plus knows and no database does; the bar marks the end of the shortest abbreviation.
_SQLPLUS = """acc|ept a|ppend archive attr|ibute bre|ak bti|tle c|hange cl|ear col|umn comp|ute conn|ect copy def|ine del
    desc|ribe disc|onnect ed|it exec|ute exit get help hist|ory ho|st i|nput l|ist passw|ord pau|se pri|nt pro|mpt quit
    recover rem|ark repf|ooter reph|eader r|un sav|e sho|w shutdown spo|ol sta|rt startup store timi|ng tti|tle
    undef|ine var|iable whenever xquery"""


def _forms(word: str) -> Iterator[str]:
    short, _, rest = word.upper().partition("|")
    return (short + rest[:length] for length in range(len(rest) + 1))


_COMMANDS = frozenset(form for word in _SQLPLUS.split() for form in _forms(word))
_SET_DEFINE = re.compile(r"SET\s+(?:DEF(?:I(?:NE?)?)?|SCAN)\b", re.IGNORECASE)
_SQL_SET = re.compile(r"SET(?:\s|/\*.*?\*/|--[^\n]*\n)+(?:TRANSACTION|ROLE|CONSTRAINTS?)\b", re.IGNORECASE | re.DOTALL)
_COMMAND_SIGNS = re.compile(r"@|!|\\|\.[A-Za-z]")

_HEAD_WORDS = 6
_PLAIN = re.compile(r"([ \t\r\n\f\v]+)|('[^'&\\]*'(?!'))|((?=[0-9])" + _NUMBER.pattern + r")|(,)")
"""What a list of values consists of: the same in every dialect, without parameters and escapes."""
_PLAIN_KINDS: tuple[TokenKind, ...] = ("space", "string", "number", "operator")


def lex(text: str, dialect: Dialect, defined: Collection[str] = ()) -> list[Token]:
    """Cuts a text into tokens that, joined, are that text.

    Never fails: a literal that does not end is a token up to the end of the text with `closed` False.
    `SET DEFINE OFF` and `ON` are obeyed: after OFF no token has references.

    SQL*Plus skips blanks after `&`, but `flags & mask` and `'Marks & Spencer'` are common. So `& NAME` is a parameter only
    if that name is defined; in a literal also if it is a misspelling of a defined name.

    Args:
        text: A whole file, or one statement.
        dialect: The rules to apply.
        defined: The parameters of the file, in capitals.
    """
    return list(_Lexer(text, dialect.lexical, defined))


def significant_tokens(tokens: Sequence[Token]) -> list[Token]:
    """Returns the tokens that are neither blanks nor comments."""
    return [token for token in tokens if token.kind != "space" and token.kind != "comment"]


def next_significant(tokens: Sequence[Token], at: int) -> int | None:
    """Returns the index of the first significant token from `at` on; None without one, and for `at` 0."""
    if at == 0:
        return None
    return next((i for i in range(at, len(tokens)) if tokens[i].is_significant), None)


def has_blank_reference(text: str) -> bool:
    """Returns whether there is a `& NAME`, so that the tokens depend on which names are defined."""
    return any(found["blanks"] for found in _MARK.finditer(text))


def position(text: str, offset: int) -> tuple[int, int]:
    """Returns line and column of a character, both from 1."""
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


class _Lexer:
    def __init__(self, text: str, rules: LexicalRules, defined: Collection[str]) -> None:
        self._text = text
        self._defined = defined
        self._rules = rules
        self._at = 0
        self._define = True
        self._head: list[str] = []
        """The first words of the statement so far; empty where a statement may begin."""

    def __iter__(self) -> Iterator[Token]:
        text, size, at = self._text, len(self._text), 0
        while at < size:
            # A file of megabytes is a list of values, whose tokens are cut here in a third of the time of `_next`.
            if len(self._head) == _HEAD_WORDS and (plain := _PLAIN.match(text, at)):
                kind = _PLAIN_KINDS[(plain.lastindex or 1) - 1]
                quotes = 1 if kind == "string" else 0
                yield Token(kind, plain[0], at, quotes, quotes)
                at = plain.end()
                continue
            self._at = at
            token = self._next()
            at = token.start + len(token.text)
            self._follow(token)
            yield token

    def _follow(self, token: Token) -> None:
        """Keeps track of where statements begin and whether `&` means anything."""
        if token.kind == "end":
            self._head = []
        elif token.kind == "command":
            words = token.upper.replace(";", " ").split()
            if _SET_DEFINE.match(token.text) and words[2:] in (["ON"], ["OFF"]):
                self._define = words[2] == "ON"
        elif token.is_significant and len(self._head) < _HEAD_WORDS:
            self._head.append(token.upper)

    def _next(self) -> Token:
        text, at = self._text, self._at
        char = text[at]
        if blank := _SPACE.match(text, at):
            return self._token("space", blank.end())
        if not self._head and self._is_command():
            end = _match_end(_LINE, text, at)
            return self._token("command", end, references=self._references(at, end))
        if char in "-#" and (comment := self._rules.line_comment.match(text, at)):
            return self._token("comment", comment.end())
        if text.startswith("/*", at):
            return self._block_comment()
        if char in self._rules.string_quotes:
            return self._string(at)
        if pattern := self._rules.quotes.get(char):
            return self._quoted(at, pattern)
        if char == "$" and self._rules.dollar_quotes and (tag := _DOLLAR.match(text, at)):
            return self._delimited(tag.end(), tag[0])
        if char == "&" and self._define and (mark := _MARK.match(text, at)) and self._is_parameter(mark, _EXACT):
            return self._token("parameter", mark.end(), references=(_mark(mark),))
        if number := _NUMBER.match(text, at):
            return self._token("number", number.end())
        if word := self._rules.word.match(text, at):
            return self._word(word.end())
        return self._sign()

    def _token(
        self,
        kind: TokenKind,
        end: int,
        opening: int = 0,
        closing: int = 0,
        references: tuple[ParameterRef, ...] = (),
        closed: bool = True,
    ) -> Token:
        return Token(kind, self._text[self._at : end], self._at, opening, closing, references, closed)

    def _enclosed(self, kind: TokenKind, content: int, end: int, closing: int) -> Token:
        """Returns a literal or identifier whose content begins at `content`; `end` -1: it never ends."""
        closed = end >= 0
        if not closed:
            end, closing = len(self._text), 0
        return self._token(kind, end, content - self._at, closing, self._references(content, end - closing), closed)

    def _references(self, start: int, end: int) -> tuple[ParameterRef, ...]:
        """Returns every parameter between two offsets of a literal, an identifier or a command."""
        if not self._define or self._text.find("&", start, end) < 0:
            return ()
        found = _MARK.finditer(self._text, start, end)
        return tuple(_mark(mark) for mark in found if self._is_parameter(mark, _NEAR))

    def _is_parameter(self, mark: re.Match[str], cutoff: float) -> bool:
        return not mark["blanks"] or bool(
            difflib.get_close_matches(mark["name"].upper(), self._defined, 1, cutoff=cutoff)
        )

    def _string(self, quote: int, *, escapes: bool = False) -> Token:
        patterns = _ESCAPED if escapes or self._rules.backslash_escapes else _STRINGS
        pattern = patterns[self._text[quote]]
        return self._enclosed("string", quote + 1, _match_end(pattern, self._text, quote), 1)

    def _quoted(self, quote: int, pattern: re.Pattern[str]) -> Token:
        return self._enclosed("quoted", quote + 1, _match_end(pattern, self._text, quote), 1)

    def _delimited(self, content: int, closer: str) -> Token:
        """Returns a literal without escapes: dollar quotes and Oracle's q'…'."""
        found = self._text.find(closer, content)
        return self._enclosed("string", content, found + len(closer) if found >= 0 else -1, len(closer))

    def _block_comment(self) -> Token:
        depth, at = 0, self._at
        while True:
            edge = _COMMENT_EDGE.search(self._text, at)
            if edge is None:
                return self._token("comment", len(self._text), closed=False)
            at = edge.end()
            if edge[0] == "*/":
                depth -= 1
            elif depth == 0 or self._rules.nested_comments:
                depth += 1
            if depth == 0:
                return self._token("comment", at)

    def _word(self, end: int) -> Token:
        text, word = self._text, self._text[self._at : end].upper()
        separator = self._rules.batch_separator
        if separator and (found := separator.match(text, self._at)) and self._is_line_start():
            return self._token("end", found.end())
        if self._rules.unicode_escapes and word == "U" and text[end : end + 2] in ("&'", '&"'):
            return self._quoted(end + 1, DOUBLE_QUOTED) if text[end + 1] == '"' else self._string(end + 1)
        if text[end : end + 1] != "'" or word not in self._rules.string_prefixes:
            return self._token("word", end)
        if word.endswith("Q"):
            return self._q_string(end)
        return self._string(end, escapes=word == "E")

    def _q_string(self, quote: int) -> Token:
        delimiter = self._text[quote + 1 : quote + 2]
        if not delimiter or delimiter in " \t\r\n":
            return self._string(quote)
        return self._delimited(quote + 2, _CLOSERS.get(delimiter, delimiter) + "'")

    def _sign(self) -> Token:
        text, at = self._text, self._at
        if text[at] == ";" and not self._rules.blocks.match(" ".join(self._head)):
            return self._token("end", at + 1)
        if text[at] == "/" and self._is_line_start() and _ALONE.match(text, at + 1):
            return self._token("end", at + 1)
        if text.startswith(":=", at) or (text.startswith("::", at) and self._rules.cast_operator):
            return self._token("operator", at + 2)
        return self._token("operator", at + 1)

    def _is_line_start(self) -> bool:
        return not self._text[self._text.rfind("\n", 0, self._at) + 1 : self._at].strip(" \t\r")

    def _is_command(self) -> bool:
        """Returns whether this line is a command of SQL*Plus (psql, the sqlite shell)."""
        text, at = self._text, self._at
        if _SET_DEFINE.match(text, at):
            return True
        word = self._rules.word.match(text, at)
        if word is None or word[0][0] in "@#":
            return bool(_COMMAND_SIGNS.match(text, at))
        upper = word[0].upper()
        if self._rules.has_sqlplus and upper == "SET":
            return not _SQL_SET.match(text, at)
        return upper in _COMMANDS - self._rules.own_words


def _mark(found: re.Match[str]) -> ParameterRef:
    return ParameterRef(found["name"].upper(), found.start(), found.end())


def _match_end(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Returns where the match at `at` ends; -1 without one."""
    found = pattern.match(text, at)
    return found.end() if found else -1
