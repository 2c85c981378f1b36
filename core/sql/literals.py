"""The pieces of a quoted literal: what they mean, and how they are quoted again."""

from __future__ import annotations

import re

from core.sql.lexer import Token

__all__ = ["plain_text", "quoted_again"]

_ESCAPES = {"0": "\0", "b": "\b", "n": "\n", "r": "\r", "t": "\t", "Z": "\x1a", "%": "\\%", "_": "\\_"}
"""What follows a backslash → its meaning in MySQL; any other character is itself."""


def plain_text(token: Token, piece: str, *, escapes: bool) -> str:
    """Returns the meaning of a piece of a literal.

    Args:
        token: The literal.
        piece: A part of the text between its quotes.
        escapes: Whether a backslash changes the meaning of the next character.
    """
    if token.prefix not in ("", "N", "E"):
        return piece
    quote = token.text[token.opening - 1]
    if not escapes:
        return piece.replace(quote * 2, quote)
    return re.sub(
        rf"\\(.)|{quote}{quote}", lambda m: _ESCAPES.get(m[1], m[1]) if m[1] else quote, piece, flags=re.DOTALL
    )


def quoted_again(token: Token, piece: str) -> str:
    """Returns a piece of a literal as a literal of its own; q'…' becomes '…'."""
    if token.prefix in ("Q", "NQ"):
        return token.prefix.removesuffix("Q") + "'" + piece.replace("'", "''") + "'"
    return token.text[: token.opening] + piece + token.text[len(token.text) - token.closing :]
