"""A page is one module in `ui/views` and one entry in `ui/pages.py`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.language.catalogue import translations
from ui import pages
from ui.pages import PAGES, Page, address_of

UI = Path(pages.__file__).parent


def test_every_module_of_the_views_is_a_page_and_every_page_has_its_module():
    modules = {path.stem for path in (UI / "views").iterdir() if path.stem != "__init__" and path.stem[0] != "_"}
    assert modules == {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_can_be_drawn_and_has_an_italian_title(page: Page):
    assert callable(import_module(f"ui.views.{page.name}").show)
    assert translations("it").texts.gettext(page.title) not in ("", page.title)


def test_addresses_are_unique_and_a_detail_has_its_own():
    addresses = [page.name for page in PAGES] + [a for page in PAGES for a in set(page.details.values())]
    assert len(addresses) == len(set(addresses))
    assert address_of("runs", {}) == "runs"
    assert address_of("runs", {"run": "7f3c2"}) == "run"
    assert address_of("runs", {"topic": "pstt"}) == "runs"


PAGE_OF_A_TEST = '''"""A page of a test."""

import streamlit as st


def show() -> None:
    """Draws the view."""
    st.title("A page of a test")
'''


def test_a_page_is_added_by_one_file_and_one_entry(tmp_path, monkeypatch, empty):
    (tmp_path / "added.py").write_text(PAGE_OF_A_TEST, encoding="utf-8")
    monkeypatch.setattr("ui.views.__path__", [*import_module("ui.views").__path__, str(tmp_path)])
    monkeypatch.setattr("ui.pages.PAGES", (Page("added", "Added", ":material/add:"), *PAGES))  # the first one opens
    app = AppTest.from_file(str(UI / "page.py"), default_timeout=60).run()
    assert not app.exception
    assert [title.value for title in app.title] == ["A page of a test"]
