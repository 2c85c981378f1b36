"""Escapes data for Markdown."""

from __future__ import annotations

import re

__all__ = ["plain"]

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:&^=@/])")


def plain(text: object) -> str:
    """The text with everything escaped that Markdown, HTML, maths, emoji codes or Streamlit's directives would take."""
    one_line = " ".join(str(text).split())
    return _SPECIAL.sub(r"\\\1", one_line)
