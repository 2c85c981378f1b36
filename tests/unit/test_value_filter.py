"""Filters on the value of a message: what they find, and what is refused in which words."""

from __future__ import annotations

import json

import pytest

from core.errors import ConfigError
from core.message.predicate import parse_predicate
from core.message.value_filter import parse_value_filter

VALUE = json.dumps(
    {
        "BODY": {"BARCODE": "572680001120", "QTY": 12, "OK": True, "NOTE": None, "net weight": 1.5, "in": "x"},
        "LINES": [{"SKU": "A-1"}, {"SKU": "B-2"}],
        "tags": ["red", "blue", 7],
        "orders": [
            {"items": [{"code": 4}, {"code": 5}]},
            {"items": []},
            {"items": [{"code": "X"}, {"sku": 1}]},
            {"items": 3},
        ],
        "matrix": [[1, 2], [3, None]],
        "empty": [],
        "message-id": "m1",
    }
)


@pytest.mark.parametrize(
    "text",
    [
        "BODY.BARCODE = '572680001120'",
        "BODY.BARCODE = 572680001120",
        "BODY.BARCODE != 'X'",
        "BODY.BARCODE contains '0001'",
        "BODY.BARCODE > '57268'",
        "BODY.QTY > 9 AND BODY.QTY <= 12.0",
        "BODY.QTY = '12'",
        "BODY.QTY contains '2'",
        "BODY.OK = TRUE",
        "BODY.NOTE IS NULL",
        "BODY.NOT_THERE IS NULL",
        "BODY IS NOT NULL",
        'BODY."net weight" = 1.50',
        "BODY.in = 'x'",
        "LINES[1].SKU IN ('B-2', 'C-3')",
        "tags CONTAINS 'blue' AND tags contains 7",
        "message-id = 'm1'",
        "BODY.QTY = 1 OR NOT (BODY.QTY < 5)",
        "NOT BODY.QTY = 13",
        "BODY.BARCODE NOT CONTAINS 'X'",
        "LINES[*].SKU = 'B-2'",
        "LINES[*].SKU != 'B-2'",
        "LINES[*].SKU = 'A-1' AND LINES[*].SKU = 'B-2'",
        "tags[*] = 7 AND tags[*] contains 'lu'",
        "orders[*].items[*].code = 5",
        "orders[*].items[1].code = 5",
        "orders[2].items[*].code IN ('Y', 'X')",
        "orders[*].items[*].code NOT IN ('4', '5')",
        "orders[*].items[*].code IS NULL",
        "NOT orders[*].items[*].code = 6",
        "NOT empty[*].code = 5",
        "NOT BODY.NOT_THERE[*].code = 5",
        "matrix[*][*] > 2",
        "matrix[*][1] IS NULL",
        "(LINES[*].SKU = 'C' OR orders[*].items[*].code >= 5) AND BODY.QTY = 12",
    ],
)
def test_a_value_is_found(text):
    assert parse_value_filter(text).of(VALUE)


@pytest.mark.parametrize(
    "text",
    [
        "BODY.BARCODE = '57268000112'",
        "body.barcode = '572680001120'",  # names of members are as they are written
        "BODY.NOT_THERE != 'X'",  # null is neither equal nor different
        "BODY.QTY < 12",
        "BODY = 'X'",
        "BODY contains 'BARCODE'",
        "LINES[2].SKU IS NOT NULL",
        "LINES.SKU = 'A-1'",
        "tags contains 'bl'",
        "BODY.BARCODE.more = 'X'",
        "BODY.NOTE contains 'x'",
        "LINES[*].SKU = 'C-3'",
        "NOT LINES[*].SKU = 'B-2'",
        "LINES[*] = 'A-1'",
        "BODY[*].QTY = 12",
        "BODY.QTY[*] = 12",
        "empty[*] IS NULL",
        "empty[*].code IS NOT NULL",
        "orders[*].items[*].code > 5",
        "matrix[*] = 1",
    ],
)
def test_a_value_is_not_found(text):
    assert not parse_value_filter(text).of(VALUE)


@pytest.mark.parametrize(
    "value", ["", "no json", "{", b"\xff\xfe", "[" * 100_000, '{"a": NaN}', "null", "5", '{"a": "NaN"}', '{"a": [1]}']
)
def test_what_is_no_such_json_is_not_found_and_makes_no_error(value):
    assert not parse_value_filter("a > 3").of(value)


def test_numbers_are_compared_with_every_digit():
    value = '{"amount": 12345678901234567890.12, "id": 9007199254740993}'
    assert parse_value_filter("amount = 12345678901234567890.12").of(value)
    assert not parse_value_filter("amount = 12345678901234567890.13").of(value)
    assert not parse_value_filter("id = 9007199254740992").of(value)


def test_a_path_that_no_value_has_is_named():
    found = parse_value_filter("BODY.BARKODE = 'X' OR BODY.QTY = 1")
    found.of(VALUE)
    assert found.missing == ("BODY.BARKODE",)
    found.of('{"BODY": {"BARKODE": null}}')
    assert found.missing == ()
    nested = parse_value_filter("LINES[*].SCU = 'X' OR LINES[*].SKU = 'X' OR empty[*] = 1")
    nested.of(VALUE)
    assert nested.missing == ("LINES[*].SCU", "empty[*]")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a path is expected, not the end"),
        ("BODY.BARCODE", "=, !=, <, >, CONTAINS, IS NULL or IN is expected, not the end"),
        ("BODY..BARCODE = 'X'", "not '.' at character 5"),
        ("BODY.BARCODE = X", "a literal is expected, not 'X' at character 16"),
        ('BODY.BARCODE = "X"', "a literal is expected, not '\"X\"' at character 16"),
        ("BODY.BARCODE == 'X'", "a literal is expected, not '=' at character 15"),
        ("$.BODY = 'X'", "not '$' at character 1"),
        ("LINES[x] = 1", "not '[' at character 6"),
        ("LINES[**] = 1", "not '[' at character 6"),
        ("LINES[*]SKU = 1", "not 'SKU' at character 9"),
        ("A = 1 B = 2", "nothing more is expected, not 'B' at character 7"),
        ("(A = 1", ") is expected, not the end"),
        ("(" * 400 + "A = 1" + ")" * 400, "more than 50 parentheses"),
        ("NOT " * 200 + "A = 1", "more than 50 parentheses"),
        ("A = '" + "x" * 1_000 + "'", "it has 1,006"),
    ],
)
def test_a_wrong_filter_is_one_error_that_says_where(text, why):
    with pytest.raises(ConfigError) as caught:
        parse_value_filter(text)
    assert why in caught.value.why


def test_a_column_may_be_called_contains():
    assert parse_predicate("contains = 'Y'").of({"contains": ["Y", "N"]}, 2) == [True, False]
    assert parse_predicate("code > 3").of({"code": ["NaN", "4"]}, 2) == [False, True]
