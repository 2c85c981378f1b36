"""The context of each token of a statement, and whether a value is allowed in its place.

It uses the tokens alone, so that it works for grammar that no parser knows. The answer is yes only if a value is
certain: a bind in place of a name would be a syntax error at best, and `ORDER BY :P` would not sort at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.sql.lexer import Token

__all__ = ["TokenContext", "token_contexts"]

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


def token_contexts(tokens: Sequence[Token]) -> list[TokenContext]:
    """Returns the context of each token, blanks included."""
    texts = [token.upper for token in tokens if token.is_significant]
    padded = ["", "", "", "", *texts, ""]
    found: list[TokenContext] = []
    stack = [("", "", 0)]
    seen = 0
    for token in tokens:
        opener, clause, opened = stack[-1]
        after = padded[seen + 5] if seen < len(texts) else ""
        found.append(TokenContext((*padded[seen : seen + 4], after), opener, clause, seen - opened))
        if not token.is_significant:
            continue
        if token.kind == "word" and token.upper in _CLAUSES:
            stack[-1] = (opener, token.upper, opened)
        if token.kind == "operator" and token.text == "(":
            stack.append((padded[seen + 3], "", seen))
        if token.kind == "operator" and token.text == ")" and len(stack) > 1:
            stack.pop()
        seen += 1
    return found
