"""The context of each token of a statement, and whether a value is allowed in its place.

It uses the tokens alone, so that it works for grammar that no parser knows. The answer is yes only if a value is
certain: a bind in place of a name would be a syntax error at best, and `ORDER BY :P` would not sort at all.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from core.sql.lexer import Token

__all__ = ["TokenContext", "TokenContexts"]

_VALUE_AFTER = frozenset(
    """SELECT DISTINCT ALL WHERE AND OR NOT ON HAVING WHEN THEN ELSE CASE BETWEEN LIKE ILIKE RLIKE REGEXP GLOB MATCH
    TO ESCAPE LIMIT OFFSET FIRST NEXT TOP ANY SOME PRIOR CONNECT_BY_ROOT RETURN ROWS RANGE GROUPS SCN PASSING DEFAULT
    ZONE MOD DIV XOR QUALIFY VALUE""".split()
)
_COMPARISONS = frozenset({"=", "<", ">"})
_NO_VALUE_BEHIND = frozenset({".", ")", "]", "}", "@", "$", "#", "?", "\\", "::"})
_NAME_LISTS = frozenset({"PARTITION", "SUBPARTITION", "USING", "OVER", "INDEX"})
_NAME_CLAUSES = frozenset({"FROM", "JOIN", "BY", "WITH", "WINDOW"})
_CLAUSES = _NAME_CLAUSES | frozenset("SELECT WHERE HAVING VALUES SET LIMIT OFFSET FETCH CONNECT START".split())
_FROM_FUNCTIONS = frozenset({"EXTRACT", "SUBSTRING", "TRIM", "OVERLAY", "POSITION"})


@dataclass(frozen=True, slots=True)
class TokenContext:
    """The context of a token; the texts of its neighbours are in capitals, without blanks and comments."""

    context: tuple[str, ...]
    """The four tokens before it and the one after it."""
    opener: str
    """The word before the innermost open parenthesis."""
    clause: str
    """The last word that began a clause inside the same parenthesis."""
    since_opener: int
    """Tokens between that parenthesis and this one, which is counted too."""

    @property
    def surroundings(self) -> tuple[str, ...]:
        """Returns what decides the type of a value here: the call that it is an argument of, or the tokens around it."""
        if self.opener in ("", "IN"):
            return self.context
        return self.opener, *self.context[max(0, 4 - self.since_opener) :]

    @property
    def before(self) -> str:
        """Returns the token before."""
        return self.context[3]

    @property
    def after(self) -> str:
        """Returns the token after."""
        return self.context[4]

    @property
    def is_compared(self) -> bool:
        """Whether it is, alone, a side of a comparison, a member of IN or a bound of BETWEEN."""
        is_member = self.opener == "IN" and self.clause == "" and self.before in ("(", ",") and self.after in (")", ",")
        is_side = self.before in _COMPARISONS or self.after in _COMPARISONS or self.after in ("!", "^")
        is_bound = self.before == "BETWEEN" or (self.before == "AND" and self.context[1] == "BETWEEN")
        return is_member or is_side or is_bound or self.before in ("IN", "WHEN")

    @property
    def takes_value(self) -> bool:
        """Whether an expression is allowed here; False if that is not certain."""
        before = self.before
        if self.after in (".", "("):
            return False
        if before == "(":
            return self.opener not in _NAME_LISTS
        if before == ",":
            return self.opener not in _NAME_LISTS and self.clause not in _NAME_CLAUSES
        if before in ("FROM", "FOR"):
            return self.opener in _FROM_FUNCTIONS or self.context[2:4] == ("DISTINCT", "FROM")
        if before in ("WITH", "TIMESTAMP"):
            return self.context[2] == {"WITH": "START", "TIMESTAMP": "OF"}[before]
        if self.context[2] == "TOP":
            return True
        is_sign = len(before) <= 2 and not before[:1].isalnum() and before[:1] not in ("'", '"', "", "_")
        return before in _VALUE_AFTER or (is_sign and before not in _NO_VALUE_BEHIND)


class TokenContexts:
    """The contexts of the tokens of a statement, blanks included. Each is made when it is asked for.

    A statement of 5 MB has a million tokens, and only those with parameters are asked for.

    Args:
        tokens: The statement.
    """

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = tokens
        self._significant: list[int] = []
        """The indexes of the tokens that are neither blank nor comment."""
        self._from: list[int] = [0]
        """From which index on the parenthesis of the same place in `_inside` is the innermost one."""
        self._inside: list[tuple[str, str, int]] = [("", "", 0)]
        """Opener, clause, and the number of significant tokens before it."""
        self._read()

    def __getitem__(self, at: int) -> TokenContext:
        """Returns the context of the token with that index."""
        seen = bisect_left(self._significant, at)
        opener, clause, opened = self._inside[bisect_right(self._from, at) - 1]
        around = tuple(self._text(seen + offset) for offset in (-4, -3, -2, -1, 1))
        return TokenContext(around, opener, clause, seen - opened)

    def _text(self, place: int) -> str:
        """Returns the text of a significant token in capitals; empty: there is none."""
        return self._tokens[self._significant[place]].upper if 0 <= place < len(self._significant) else ""

    def _read(self) -> None:
        stack = [("", "", 0)]
        significant = self._significant
        for at, token in enumerate(self._tokens):
            kind = token.kind
            if kind in ("space", "comment"):
                continue
            significant.append(at)
            if kind == "word" and (word := token.upper) in _CLAUSES:
                stack[-1] = (stack[-1][0], word, stack[-1][2])
            elif kind == "operator" and token.text == "(":
                stack.append((self._text(len(significant) - 2), "", len(significant) - 1))
            elif kind == "operator" and token.text == ")" and len(stack) > 1:
                stack.pop()
            else:
                continue
            self._from.append(at + 1)
            self._inside.append(stack[-1])
