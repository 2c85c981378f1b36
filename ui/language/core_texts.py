"""Finds the texts in the source of `core` that can appear on the page, so that a test can ask for their Italian.

A text is taken wherever it is written: as an argument of an error, in a table of remedies, as what a function returns.
The value of an f-string becomes a field: `{0}`, `{1}`, in the order of the sentence. What is certainly no sentence is
left out: SQL, regular expressions, formats, help of the command line, names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import islice, product
from pathlib import Path
from typing import Any

import typer

import core
from core.cli.main import COMMANDS, root

__all__ = ["core_texts", "texts_of"]

_SILENT_CALLS = frozenset(
    "Argument Command Option Typer add_typer compile execute executemany executescript fetchall finditer fullmatch match "
    "removeprefix removesuffix search split startswith strftime strptime sub endswith getattr Thread sql debug print "
    "APIKeyCookie Field Header HTTPBearer Path Query "
    "create_counter create_histogram _gauge _counter HistogramMetricFamily GaugeMetricFamily CounterMetricFamily".split()
)
"""Texts in these calls are for the program, a database or the command line."""
_SILENT_FILES = re.compile(
    r"core/(__|calendar/describe|kafka/(aiokafka_workarounds|producer_thread)|message/vectorized"
    r"|records/(prometheus|metrics_queries|metrics_schema)\b|run/dask_code\b)"
    r"|ui/api/(\w*shapes|signin|documents|__init__)\.py"
)
"""Modules whose sentences no person reads, or that have their Italian themselves: metrics for scrapers, SQL."""
_OF_REST = ("ui/api/*.py", "ui/apart.py", "ui/http_security.py", "ui/workspaces.py")
"""Errors of REST and of the page's processes; `core.language.catalogue` knows these places too."""
_OF_LINES = "core/cli/"
"""The modules whose texts are lines with columns: each part between two gaps is a text of its own."""
_GAP = re.compile(r" {2,}|\n")
_LABEL = re.compile(r"  ([a-z]+)(?: {2,}|$)")
"""A word before a line: `  next   python -m core runs`."""
_SQL = re.compile(
    r"\s*(--|\(?\b(SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|WITH|SET|BEGIN|COMMIT|ROLLBACK|PRAGMA|ATTACH|DETACH|COPY"
    r"|FROM|WHERE|JOIN|LEFT JOIN|ORDER BY|GROUP BY|UNION|AND|OR|ON|VALUES|REPLACE|EXPLAIN|SAVEPOINT|RELEASE|SHOW|CALL|KILL"
    r"|DECLARE|LOCK|TRUNCATE|CAST|CASE|COUNT|START|INNER|LIMIT|FETCH|OFFSET|HAVING|EXISTS|NOT|AS|ANTI JOIN"
    r"|CONVERT|LPAD|RIGHT|LEFT|ABS|TO_CHAR|to_char|abs|mod|rtrim)\b(?=[\s(*]))"
)
_CODE = re.compile(
    r"^`?python -m (core|keyring)( [a-z-]+){1,2}( (\{\w*\}|--[\w-]+|[A-Z]+|\w+\.csv))*`?$"
    r"|^pip install [^ ;,]+( [^ ;,]+)?$|^<|^S?YYYY|^yyyy|^import |^\{\w+\} (IS NOT NULL|DESC)|^[\w.]+\.ms, "
    r"|^default-src |^Bearer realm|\\[bsdw]|\(\?[:P=!<]|%\(\w+\)s|::|\w\|\w|font-family|padding:|</|\.\*[A-Z]|application/|\n.*\S"
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
_OF_ONE_WORD = frozenset(
    (
        "version {0}", "setting {0}", "database {0}", "cluster {0}", "cluster {0}: {1}", "service {0}", "✘ {0} open",
        "refused: {0}: {1}", "identity {0}", "connection {0}: {1}", "✔ {0}: {1} done", "run {0} {1}", "partition {0}", "key {0}",
        "scheduled {0}", "scheduled {0} {1}", "since {0}", "sent {0}", "success {0}", "errors {0}", "{0} a day", "last {0}",
        "skipped {0}{1}", "✔ equal: {0}, {1}", "columns {0}: {1}", "✘ {0}: refused, {1}", "+{0} −{1} lines", "lag {0}",
        "{0} again", "unexpected {0}", "until {0}", "by {0}", "by {0}{1}", "by {0}: {1}", "{0} left", "{0}, for {1}", "latency p50 · p90 · p99", "Files{0}", "{0} rows/s",
        "valid: {0}", "{0}: {1} since {2} {3}.", "topic {0} ({1})", "missing, {0}: {1}", "missing: {0}", "waits: {0}",
        "user {0}", "waited {0} s", "account {0} {1}", "skipped: {0}", "{0} so far", "✔ silence {0}", "write {0}", "set {0}",
        "correct {0}", "use {0}", "{0}: {1} partitions", "account \"{0}\"", "{0}, registry", "for {0} s", "within {0} s",
        "called \"{0}\"", "worker {0}: {1}", "{0} answers: {1}{2}", "{0}, {1} partitions", "user \"{0}\"", "topic \"{0}\": {1}",
    )
)  # fmt: skip
"""Texts with one word that are sentences all the same: of lines, labels and mails."""
_WORD = re.compile(r"(?<![\w{])[A-Za-z]{2,}(?![\w}])")
_MOST_VARIANTS = 16
"""An f-string with more alternatives than this is translated with its alternatives as fields."""


def core_texts(folder: Path | None = None) -> dict[str, str]:
    """Returns each text with the first place where it is written, `core/kafka/probe.py:41`."""
    root = folder or Path(core.__file__).parent
    found: dict[str, str] = {}
    of_rest = sorted(file for pattern in _OF_REST for file in root.parent.glob(pattern))
    for file in (*sorted(root.rglob("*.py")), *of_rest):
        name = file.relative_to(root.parent).as_posix()
        if not _SILENT_FILES.match(name):
            for text, line in texts_of(file.read_text(encoding="utf-8"), of_lines=name.startswith(_OF_LINES)):
                found.setdefault(text, f"{name}:{line}")
    return found


def core_help() -> dict[str, str]:
    """Returns the sentences of `--help`, each with its file."""
    found: dict[str, str] = {}
    for command in COMMANDS.values():
        if command.summary:
            place = command.module.replace(".", "/") + ".py"
            made = typer.main.get_command(import_module(command.module).app)
            _add_help(getattr(made, "commands", {}).get(command.name, made), place, found)
            found.setdefault(command.summary, "core/cli/main.py")
    found.setdefault((root.__doc__ or "").strip(), "core/cli/main.py")
    return found


def _add_help(command: Any, place: str, found: dict[str, str]) -> None:
    texts = [*(command.help or "").split("\n\n"), *(getattr(one, "help", None) or "" for one in command.params)]
    for text in texts:
        if line := " ".join(text.split()):
            found.setdefault(line, place)
    for inner in getattr(command, "commands", {}).values():
        _add_help(inner, place, found)


def core_titles(folder: Path | None = None) -> dict[str, str]:
    """Returns what each class of errors means, as REST says it in `title`, with its file."""
    root = folder or Path(core.__file__).parent
    classes: list[tuple[ast.ClassDef, str]] = []
    for file in (root / "errors.py", *sorted(root.rglob("*.py"))):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        name = file.relative_to(root.parent).as_posix()
        classes += [(node, name) for node in tree.body if isinstance(node, ast.ClassDef)]
    kinds, found = {"PsttError"}, {}
    for node, name in classes:
        if node.name in kinds or kinds & {ast.unparse(base) for base in node.bases}:
            kinds.add(node.name)
            found.setdefault((ast.get_docstring(node) or "").partition("\n")[0], name)
    return found


def core_labels(folder: Path | None = None) -> dict[str, str]:
    """Returns the words before lines and above columns of the command line, each with the file where it is written."""
    root = folder or Path(core.__file__).parent
    found: dict[str, str] = {}
    mails = "notify/alert_messages.py", "notify/daily_report.py"
    for pattern, labels_in in (("cli/*.py", _labels), *((mail, _labels_of_mails) for mail in mails)):
        for file in sorted(root.glob(pattern)):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                for label in labels_in(node):
                    found.setdefault(label, file.relative_to(root.parent).as_posix())
    return found


def _labels_of_mails(node: ast.AST) -> Iterator[str]:
    """Yields the words before and above the figures of a mail: `("Why", …)`, `("topic", "rows", …)`, titles of tables."""
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "NotificationTable":
        title = node.args[0]
        if isinstance(title, ast.Constant) and re.fullmatch(r"\w+", str(title.value)):
            yield title.value
    if isinstance(node, ast.Tuple) and len(node.elts) > 1:
        texts = [one.value for one in node.elts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        if len(texts) == len(node.elts):
            yield from (text for text in texts if re.fullmatch("[a-z]+", text))
        if len(node.elts) == 2 and texts and re.fullmatch("[A-Z]?[a-z]+", texts[0]):
            yield texts[0]


def _labels(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "said":
        texts = [one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        yield from (text for text in texts if " " not in text)
    first = node.values[0] if isinstance(node, ast.JoinedStr) and node.values else node
    if isinstance(first, ast.Constant) and isinstance(first.value, str) and (found := _LABEL.match(first.value)):
        yield found[1]


def texts_of(source: str, *, of_lines: bool = False) -> list[tuple[str, int]]:
    """Returns the texts of one module with their lines.

    Args:
        source: Of the module.
        of_lines: Its texts are lines of the command line; each part of a line is a text.
    """
    tree = ast.parse(source)
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found = list(_visit(tree, docstrings))
    if of_lines:
        found = [(_numbered(part), line) for text, line in found for part in _GAP.split(text) if part.strip()]
    return [(text, line) for text, line in found if _is_sentence(text)]


def _numbered(part: str) -> str:
    """Counts the fields of a part of a line from 0."""
    numbers = iter(range(len(part)))
    return re.sub(r"(?<!\{)\{\d+\}", lambda _: f"{{{next(numbers)}}}", part)


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
    if text.strip() in _OF_ONE_WORD:
        return True
    words = _WORD.findall(text)
    if (
        text.strip() in _NAMES
        or " " not in text.strip()
        or len(words) < 2
        or not any(word[0].islower() for word in words)
    ):
        return False
    return not (_SQL.match(text) or _CODE.search(text))
