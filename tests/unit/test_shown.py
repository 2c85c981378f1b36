"""Any bytes as a person reads them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import RegistryUnavailable, SchemaRefused
from core.message.shown import asked_once, exact_tree, shown
from core.model.schema import Schema

AVRO = Schema(
    "AVRO",
    json.dumps(
        {
            "type": "record",
            "name": "R",
            "fields": [
                {"name": "a", "type": ["null", "string"]},
                {"name": "b", "type": {"type": "map", "values": {"type": "array", "items": "double"}}},
                {"name": "c", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
                {"name": "d", "type": {"type": "long", "logicalType": "timestamp-micros"}},
            ],
        }
    ),
)
PROTOBUF = Schema("PROTOBUF", 'syntax = "proto3"; message R { optional string a = 1; repeated int64 b = 2; }')
JSON = Schema("JSON", "{}")


@pytest.mark.parametrize(
    ("raw", "form", "text"),
    [
        (None, "null", ""),
        (b"", "text", ""),
        (b'{"a": [1]}', "json", '{"a": [1]}'),
        (b"12", "text", "12"),
        ("però\n\tsì".encode(), "text", "però\n\tsì"),
        (b'{"a": ', "text", '{"a": '),
        (b"[" * 100_000, "text", "[" * 100_000),
        (b"\x00\x01\xfe", "hex", "00 01 fe"),
        (b"a\x00b", "hex", "61 00 62"),
        (b"\xff", "hex", "ff"),
    ],
)
def test_bytes_are_json_text_or_hexadecimal_digits(raw, form, text):
    found = shown(raw, None)
    assert (found.form, found.text, found.is_cut) == (form, text, False)


def test_the_beginning_of_a_value_is_text_also_if_a_letter_is_cut():
    raw = "però".encode()[:-1]
    assert shown(raw, None).form == "hex"
    found = shown(raw, None, size_bytes=5)
    assert (found.form, found.text, found.is_cut, found.size_bytes) == ("text", "per", True, 5)


def test_many_bytes_that_are_no_text_are_cut():
    found = shown(b"\x00" * 10_000, None)
    assert (found.form, found.is_cut, found.size_bytes) == ("hex", True, 10_000)
    assert len(found.text) < 20_000


def test_a_schema_that_is_not_known_is_said_and_the_bytes_are_shown():
    def unknown(schema_id):
        raise SchemaRefused(f"no schema {schema_id}")

    found = shown(b"\x00\x00\x00\x00\x07\x02", unknown)
    assert (found.form, found.schema_id, found.text) == ("hex", 7, "00 00 00 00 07 02")
    assert "no schema 7" in found.problem


@pytest.mark.parametrize("schema", [AVRO, PROTOBUF, JSON], ids=lambda schema: schema.type)
@given(body=st.binary(max_size=60))
def test_any_bytes_with_any_schema_are_shown(schema, body):
    found = shown(b"\x00\x00\x00\x00\x01" + body, lambda _: schema)
    assert found.problem or found.format
    if found.format:
        json.loads(found.text)


def test_a_registry_that_does_not_answer_is_waited_for_once():
    asked = []

    def away(schema_id):
        asked.append(schema_id)
        raise RegistryUnavailable("the registry does not answer")

    find = asked_once(away)
    for schema_id in (1, 1, 2, 3):
        with pytest.raises(RegistryUnavailable):
            find(schema_id)
    assert asked == [1]


def test_a_schema_that_is_not_there_is_asked_for_once_and_others_still_are():
    asked = []

    def some(schema_id):
        asked.append(schema_id)
        if schema_id == 1:
            raise SchemaRefused("no schema 1")
        return JSON

    find = asked_once(some)
    for _ in range(2):
        with pytest.raises(SchemaRefused):
            find(1)
    assert find(2) is JSON
    assert asked == [1, 2]
    assert asked_once(None) is None


@pytest.mark.parametrize(
    ("text", "tree", "is_exact"),
    [
        ('{"a": 1, "b": 1.50, "c": -0.1}', {"a": 1, "b": 1.5, "c": -0.1}, True),
        ("[9007199254740992, 9007199254740993]", [9007199254740992, "9007199254740993"], False),
        ("[12345678901234567.89, 0.1234567890123456789]", ["12345678901234567.89", "0.1234567890123456789"], False),
        ("[1e400, " + "9" * 5_000 + "]", ["1e400", "9" * 5_000], False),
        ("[1e3, 1E-7]", [1000.0, 1e-7], True),
    ],
)
def test_a_tree_never_rounds_a_number(text, tree, is_exact):
    assert exact_tree(text) == (tree, is_exact)


@pytest.mark.parametrize("text", ["nothing", "{", "[" * 100_000, "[" * 500 + "]" * 500])
def test_what_is_not_json_has_no_tree(text):
    with pytest.raises(ValueError):
        exact_tree(text)
