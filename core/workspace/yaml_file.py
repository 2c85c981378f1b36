"""A YAML file with the offset of each value, so that a problem has a line and a column, as in a JSON file.

Only what JSON has too: objects, lists, texts, numbers, true, false and null. So `2026-01-17`, `02:00`, `no` and `007`
are texts; YAML 1.1 would make a date, 120, false and 7 of them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError
from core.workspace.json_file import FilePosition, JsonFile, read_text

__all__ = ["read_yaml_file", "yaml_text"]

_KINDS = {
    "null": (r"null|", ["n", ""]),
    "bool": (r"true|false", ["t", "f"]),
    "int": (r"-?(?:0|[1-9][0-9]*)", list("-0123456789")),
    "float": (r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", list("-0123456789")),
}
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.CSafeLoader):
    """Reads only the plain values that JSON has."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own way


class _Dumper(yaml.CSafeDumper):
    """Writes lines of a longer text as they are, and no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        """Returns True: an object that occurs twice is written twice."""
        return True


for _kind, (_pattern, _first) in _KINDS.items():
    _Loader.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_pattern})$"), _first)
    # So that it quotes what either this reader or one of YAML 1.1 would not take for text.
    _Dumper.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_pattern})$"), _first)


def _text_node(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar(f"{_TAG}str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text_node)


def yaml_text(document: Any) -> str:
    """Returns a document as YAML, its members in their order."""
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def read_yaml_file(path: Path) -> JsonFile:
    """Reads a YAML object.

    Raises:
        ConfigError: It is missing, not UTF-8, no YAML, not an object, has a name twice in one object, or uses anchors
            or tags.
    """
    text = read_text(path)
    file = JsonFile(path, text, None)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        file.document = _value(file, node, (), set()) if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise ConfigError(
            "this is not YAML",
            why=error.problem or "",
            remedy="check the indentation, and put a text with : # or quotes into quotes",
            file=path,
            line=mark.line + 1 if mark else 1,
            column=mark.column + 1 if mark else None,
        ) from None
    except yaml.YAMLError as error:
        raise ConfigError("this is not YAML", why=str(error).splitlines()[0], file=path, line=1) from None
    except RecursionError:
        raise ConfigError("the file is nested too deeply", file=path, line=1) from None
    if not isinstance(file.document, dict):
        raise file.error(
            (), "the file must hold one YAML object", remedy="`python -m core export FILE.yaml` writes one"
        )
    return file


def _value(file: JsonFile, node: yaml.Node, position: FilePosition, seen: set[int]) -> Any:
    file.offsets.setdefault(position, node.start_mark.index)
    if id(node) in seen:
        raise file.error(position, "an alias (*name) is not supported here", remedy="write the value itself")
    seen.add(id(node))
    kind = node.tag.removeprefix(_TAG)
    if kind not in ("map", "seq", "str") and not (kind in _KINDS and re.fullmatch(_KINDS[kind][0], node.value)):
        raise file.error(position, f"the tag {node.tag} is not supported here", remedy="write a plain value")
    if isinstance(node, yaml.MappingNode):
        return _members(file, node, position, seen)
    if isinstance(node, yaml.SequenceNode):
        return [_value(file, each, (*position, index), seen) for index, each in enumerate(node.value)]
    return node.value if kind == "str" else json.loads(node.value or "null")


def _members(file: JsonFile, node: yaml.MappingNode, position: FilePosition, seen: set[int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name_node, value_node in node.value:
        if not isinstance(name_node, yaml.ScalarNode):
            raise file.error(position, "the name of a value must be a text")
        name = str(name_node.value)
        file.offsets[(*position, name)] = name_node.start_mark.index  # an error points at the name
        if name in found:
            raise file.error((*position, name), f'"{name}" is in one object twice', remedy="keep one of them")
        found[name] = _value(file, value_node, (*position, name), seen)
    return found
