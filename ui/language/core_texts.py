"""Finds the texts in the source of `core` that can appear on the page, so that a test can ask for their Italian.

A text is taken wherever it is written: as an argument of an error, in a table of remedies, as what a function returns.
The value of an f-string becomes a field: `{0}`, `{1}`, in the order of the sentence. What is certainly no sentence is
left out: SQL, regular expressions, formats, help of the command line, names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path

import core

__all__ = ["core_texts", "texts_of"]

_SILENT_CALLS = frozenset(
    "Argument Command Option Typer add_typer compile execute executemany executescript fetchall finditer fullmatch match "
    "removeprefix removesuffix search split startswith strftime strptime sub endswith getattr Thread sql debug print "
    "create_counter create_histogram _gauge _counter HistogramMetricFamily GaugeMetricFamily CounterMetricFamily".split()
)
"""Texts in these calls are for the program, a database or the command line."""
_SILENT_FILES = re.compile(
    r"core/(cli/|__|calendar/describe|notify/notification"
    r"|kafka/(aiokafka_workarounds|producer_thread)|message/vectorized"
    r"|records/(prometheus|metrics_queries|store|metrics_schema)\b|run/(telemetry|lineage|dask_code)\b)"
)
"""Modules whose sentences never reach the page: commands, mails, metrics for scrapers, SQL, what clients call errors."""
_SQL = re.compile(
    r"\s*(--|\(?\b(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|WITH|SET|BEGIN|COMMIT|ROLLBACK|PRAGMA|ATTACH|DETACH|COPY"
    r"|FROM|WHERE|JOIN|LEFT JOIN|ORDER BY|GROUP BY|UNION|AND|OR|ON|VALUES|REPLACE|EXPLAIN|SAVEPOINT|RELEASE|SHOW|CALL|KILL"
    r"|DECLARE|LOCK|TRUNCATE|CAST|CASE|COUNT|START|INNER|LIMIT|FETCH|OFFSET|HAVING|EXISTS|NOT|AS|ANTI JOIN"
    r"|CONVERT|LPAD|RIGHT|LEFT|ABS|TO_CHAR|to_char|abs|mod|rtrim)\b(?=[\s(*]))"
)
_CODE = re.compile(
    r"^`?python -m (core|keyring)( [a-z-]+){1,2}( (\{\w*\}|--[\w-]+|[A-Z]+|\w+\.csv))*`?$"
    r"|^pip install [^ ;,]+( [^ ;,]+)?$|^<|^S?YYYY|^yyyy|^import |^\{\w+\} (IS NOT NULL|DESC)|^[\w.]+\.ms, "
    r"|\\[bsdw]|\(\?[:P=!<]|%\(\w+\)s|::|\w\|\w|font-family|padding:|</|\.\*[A-Z]|application/|\n.*\S"
)
"""Commands to copy, HTML, formats and regular expressions."""
_NAMES = frozenset(
    (
        "Kafka Collaudo (mock)",
        "Export CDG Tracce to Kafka",
        "Bad day-of-month",
        "Failed to acquire SASL OAUTHBEARER token",
        "run {extra[run]}",
    )
)
"""Names of the demo, and what other programs write and this one looks for."""
_WORD = re.compile(r"(?<![\w{])[A-Za-z]{2,}(?![\w}])")
_MOST_VARIANTS = 16
"""An f-string with more alternatives than this is translated with its alternatives as fields."""


def core_texts(folder: Path | None = None) -> dict[str, str]:
    """Returns each text with the first place where it is written, `core/kafka/probe.py:41`."""
    root = folder or Path(core.__file__).parent
    found: dict[str, str] = {}
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root.parent).as_posix()
        if not _SILENT_FILES.match(name):
            for text, line in texts_of(file.read_text(encoding="utf-8")):
                found.setdefault(text, f"{name}:{line}")
    return found


def texts_of(source: str) -> list[tuple[str, int]]:
    """Returns the texts of one module with their lines."""
    tree = ast.parse(source)
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [(text, line) for text, line in _visit(tree, docstrings) if _is_sentence(text)]


def _visit(node: ast.AST, docstrings: set[int]) -> Iterator[tuple[str, int]]:
    if id(node) in docstrings or _is_silent(node):
        return
    if isinstance(node, ast.expr) and _is_text(node):
        found = _alternatives(node)
        for pieces in found if len(found) <= _MOST_VARIANTS else [_with_fields(node)]:
            yield _written(pieces), node.lineno
        for value in _values(node):
            yield from _visit(value, docstrings)
        return
    for child in ast.iter_child_nodes(node):
        yield from _visit(child, docstrings)


def _is_silent(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in _SILENT_CALLS


def _is_text(node: ast.expr) -> bool:
    """Whether the expression is a text, or a sum of texts and values."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _is_text(node.left) or _is_text(node.right)
    return isinstance(node, ast.JoinedStr)


def _alternatives(node: ast.expr) -> list[list[str | None]]:
    """The texts that the expression can become, each as pieces; None is a value: `{'s' if many else ''}` makes two."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [[node.value]]
    if isinstance(node, ast.FormattedValue):
        return _alternatives(node.value)
    if isinstance(node, ast.JoinedStr):
        return _products([_alternatives(value) for value in node.values])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and _is_text(node):
        return _products([_alternatives(node.left), _alternatives(node.right)])
    if isinstance(node, ast.IfExp):
        return [*_alternatives(node.body), *_alternatives(node.orelse)]
    return [[None]]


def _products(choices: list[list[list[str | None]]]) -> list[list[str | None]]:
    return [[piece for part in chosen for piece in part] for chosen in islice(product(*choices), _MOST_VARIANTS + 1)]


def _with_fields(node: ast.expr) -> list[str | None]:
    """The pieces of the text with each of its alternatives as a value."""
    if isinstance(node, ast.Constant):
        return [str(node.value)]
    if isinstance(node, ast.JoinedStr):
        return [str(value.value) if isinstance(value, ast.Constant) else None for value in node.values]
    if isinstance(node, ast.BinOp) and _is_text(node):
        return [*_with_fields(node.left), *_with_fields(node.right)]
    return [None]


def _values(node: ast.expr) -> Iterator[ast.expr]:
    """The expressions in a text, which may hold texts of their own."""
    if isinstance(node, ast.JoinedStr):
        yield from (value.value for value in node.values if isinstance(value, ast.FormattedValue))
    elif isinstance(node, ast.BinOp) and _is_text(node):
        for side in (node.left, node.right):
            yield from _values(side) if _is_text(side) else [side]


def _written(pieces: list[str | None]) -> str:
    """The text with `{0}`, `{1}` for its values; braces of the text itself are then doubled."""
    text, fields = "", 0
    for piece in pieces:
        if piece is None:
            text += f"{{{fields}}}"
            fields += 1
        else:
            text += piece if None not in pieces else piece.replace("{", "{{").replace("}", "}}")
    return text


def _is_sentence(text: str) -> bool:
    """Whether people read it: two words at least, one of them in lower case, and neither SQL nor a format."""
    words = _WORD.findall(text)
    if (
        text.strip() in _NAMES
        or " " not in text.strip()
        or len(words) < 2
        or not any(word[0].islower() for word in words)
    ):
        return False
    return not (_SQL.match(text) or _CODE.search(text))
