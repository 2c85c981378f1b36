"""Data as text: escaped for Markdown, and JSON with indentation."""

from __future__ import annotations

import re

import msgspec

__all__ = ["indented", "plain"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&^=@/])")


def indented(text: str) -> str | None:
    """JSON with a line for each value, and every digit of its numbers; None: it is no JSON, or is nested too deeply."""
    try:
        return msgspec.json.format(text, indent=2)
    except (msgspec.MsgspecError, RecursionError):
        return None


def plain(text: object) -> str:
    """The text with everything escaped that Markdown, HTML, maths, emoji codes or Streamlit's directives would take."""
    one_line = " ".join(str(text).split())
    return _SPECIAL.sub(r"\\\1", one_line)
