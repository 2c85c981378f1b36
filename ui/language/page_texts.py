"""Finds the texts of the page: the literals of `t` and `tn`, the titles of the navigation, what the settings mean."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.admin.edit_settings import setting_meanings
from ui.pages import PAGES

__all__ = ["PageText", "page_texts"]

_PLACES = {
    "button": "button",
    "form_submit_button": "button",
    "download_button": "button",
    "link_button": "button",
    "metric": "metric",
}
"""Call of Streamlit whose first argument has to fit → the place."""
_UI = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class PageText:
    """One text of the page, and where it is shown."""

    english: str
    plural: str = ""
    """English for any number but one; empty for a text without a plural."""
    file: str = ""
    place: str = ""
    """`button`, `navigation`, `column`, `metric` for what has to fit into a narrow place; empty for everything else."""


def page_texts() -> list[PageText]:
    """Returns every text of the page; one that is used at several places is there several times."""
    found = [PageText(page.title, file="ui/pages.py", place="navigation") for page in PAGES]
    found += [PageText(meaning, file="core/workspace/settings.py") for meaning in setting_meanings().values()]
    for file in sorted(_UI.rglob("*.py")):
        name = file.relative_to(_UI.parent).as_posix()
        found += _texts_of(ast.parse(file.read_text(encoding="utf-8")), name)
    return found


def _texts_of(tree: ast.Module, file: str) -> Iterator[PageText]:
    places = dict(_places(tree))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            continue
        literals = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        texts = [text for text in literals if isinstance(text, str)]
        if node.func.id == "t" and texts and node.args[0] is not None and isinstance(node.args[0], ast.Constant):
            yield PageText(texts[0], file=file, place=places.get(id(node), ""))
        elif node.func.id == "tn" and len(texts) == 2:
            yield PageText(texts[0], texts[1], file, places.get(id(node), ""))


def _places(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields the calls of `t` whose text has to fit into a button, above a column or above a figure."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _PLACES:
            yield from ((id(argument), _PLACES[node.func.attr]) for argument in node.args[:1])
        elif isinstance(node, ast.Dict):
            yield from ((id(key), "column") for key in node.keys if isinstance(key, ast.Call))
