"""Every text of the page has an Italian translation, with the same values in it; data stays as it is."""

import ast
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.admin.edit_settings import setting_meanings
from ui.components.text import indented, plain

UI = Path(__file__).parents[2] / "ui"
ITALIAN = json.loads((UI / "language" / "it.json").read_text(encoding="utf-8"))


def texts() -> list[str]:
    """The literals of t() and tn() in every module of the page."""
    found = []
    for file in UI.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("t", "tn"):
                arguments = node.args[:1] if node.func.id == "t" else node.args[1:3]
                found += [a.value for a in arguments if isinstance(a, ast.Constant)]
    return sorted(set(found))


def test_there_are_texts():
    assert len(texts()) > 200


@pytest.mark.parametrize("text", texts())
def test_a_text_has_its_italian_with_the_same_values(text):
    assert text in ITALIAN
    assert sorted(re.findall(r"{\w+}", text)) == sorted(re.findall(r"{\w+}", ITALIAN[text]))


def test_the_meaning_of_each_setting_has_its_italian():
    assert [text for text in setting_meanings().values() if text not in ITALIAN] == []


@given(st.text(max_size=60))
def test_escaped_data_has_no_sign_that_markdown_takes(text):
    bare = re.sub(r"\\.", "", plain(text))
    assert not set(bare) & set("`*_[]<>$:#|~\n\\")


def test_what_is_escaped_reads_as_it_was():
    assert re.sub(r"\\(.)", r"\1", plain("<b> :red[x] $1$ a_b")) == "<b> :red[x] $1$ a_b"


def test_json_with_indentation_has_every_digit_and_what_is_none_has_none():
    assert indented('{"a":1.50,"b":12345678901234567890.123}') == '{\n  "a": 1.50,\n  "b": 12345678901234567890.123\n}'
    assert [indented(text) for text in ("no", '{"a": NaN}', "[" * 5000 + "]" * 5000)] == [None] * 3
