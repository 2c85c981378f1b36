"""Reads the SQL*Plus lines of SQL files: `define NAME='value'`, with a comment that describes the parameter.

```
define DATA='2026-01-17'  --Obbligatorio: Data estrazione (YYYY-MM-DD) [type=date]
define STATO=N            --Opzionale: Stato della spedizione [allowed=N,S,R]
```

`Obbligatorio` (or Mandatory): the caller has to give a value; the one in the file is an example.
`Opzionale` (or Optional), or neither word: the value in the file is the default. The comment may have three options in
brackets. `[list]` makes it a list, `N,S`: each of its values gets a bind of its own in `IN (&NAME)` or `IN ('&NAME')`; it
is refused anywhere else. `[type=…]` is one of string, integer, decimal, date (YYYY-MM-DD) and datetime: each value is
checked against it and, outside quotes, bound with it. `[allowed=A,B,C]` lists all values that may be given; a parameter in
place of a name needs it. Every other SQL*Plus line is an error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from core.model.dialect import Dialect
from core.model.query import Parameter
from core.sql.lexer import RaiseSqlError, Token
from core.sql.values import shown, value_problem

__all__ = ["Defines"]

_TYPES = ("string", "integer", "decimal", "date", "datetime")
_DEFINE = re.compile(r"def(?:i(?:ne?)?)?(?:\s+(?P<name>[^\s=]+))?\s*(?P<equals>=)?\s*(?P<rest>.*)", re.IGNORECASE)
_NAME = re.compile(r"[^\W\d]\w*")
_SINGLE = re.compile(r"'((?:[^']|'')*)'")
_DOUBLE = re.compile(r'"((?:[^"]|"")*)"')
_BARE = re.compile(r"((?:(?!--)[^;])*)")
_TAIL = re.compile(r"\s*;?\s*(?:--(?P<comment>.*))?")
_ROLE = re.compile(
    r"\s*(?P<word>obbligatorio|mandatory|opzionale|optional)\b(?P<options>(?:\s*\[[^\]]*\])*)\s*:?\s*(?P<text>.*)",
    re.IGNORECASE,
)
_OPTION = re.compile(r"\s*\[\s*(?P<key>\w+)\s*=\s*(?P<value>[^\]]*)\]")
_FLAG = re.compile(r"\s*\[\s*(?P<key>\w+)\s*\]")
_SET_DEFINE = re.compile(r"SET\s+(?:DEF(?:I(?:NE?)?)?|SCAN)\s+(?:ON|OFF)\s*;?\s*(?:--.*)?", re.IGNORECASE)


class Defines:
    """The parameters of one file, collected line by line.

    Args:
        dialect: The rules of the database whose driver will bind the values.
        fail: Called for a line that cannot be used.
        line_of: Offset of a character → its line.
    """

    def __init__(self, dialect: Dialect, fail: RaiseSqlError, line_of: Callable[[int], int]) -> None:
        self.parameters: dict[str, Parameter] = {}
        """Name in capitals → parameter, in the order of the file."""
        self._dialect = dialect
        self._fail = fail
        self._line_of = line_of

    def read(self, token: Token) -> None:
        """Reads one line and adds its parameter to `parameters`."""
        line = token.text.strip()
        if re.match(r"def(i(ne?)?)?\b", line, re.IGNORECASE):
            self._define(token, line)
        elif not _SET_DEFINE.fullmatch(line):
            words = line.replace(";", " ").split()
            command = " ".join(words[: 2 if words[0].upper() == "SET" else 1])
            self._fail(
                token.start,
                f"{command[:40]} is a command of SQL*Plus or another client, not SQL",
                "only define and SET DEFINE ON or OFF are understood here",
                "remove the line",
            )

    def _define(self, token: Token, line: str) -> None:
        parts = _DEFINE.fullmatch(line)
        if parts is None or not parts["name"] or not parts["equals"]:
            self._fail(token.start, "this define has no value", remedy="write define NAME='value'")
        name = parts["name"].upper()
        if not _NAME.fullmatch(name):
            self._fail(
                token.start + parts.start("name"),
                f"{parts['name'][:60]} cannot be the name of a parameter",
                remedy="use letters, digits and _, with a letter first",
            )
        if name in self.parameters:
            self._fail(
                token.start + parts.start("name"),
                f"{name} is defined twice",
                f"first in line {self.parameters[name].line}",
                "remove one of the lines",
            )
        value, tail = self._define_value(parts["rest"], token.start + parts.start("rest"))
        parameter = self._parameter(name, value, tail["comment"] or "", token)
        value_end = token.start + parts.start("rest") + tail.start()
        inside = [mark for mark in token.references if mark.start < value_end]
        if inside and not parameter.mandatory:
            self._fail(
                inside[0].start,
                f"&{inside[0].name} stands inside the value of {name}",
                "a parameter cannot be made of another one",
                "use both in the statement, or write SET DEFINE OFF above if & is plain text",
            )
        self.parameters[name] = parameter

    def _define_value(self, rest: str, offset: int) -> tuple[str, re.Match[str]]:
        """Returns the value after `=`, and what follows it."""
        quote = rest[:1] if rest[:1] in ("'", '"') else ""
        found = {"'": _SINGLE, '"': _DOUBLE, "": _BARE}[quote].match(rest)
        if found is None:
            self._fail(offset, "the value of this define has no closing quote", remedy=f"close it with {quote}")
        tail = _TAIL.fullmatch(rest, found.end())
        if tail is None:
            self._fail(
                offset + found.end(),
                "this text stands behind the value of the define",
                "only ; and a comment may follow it",
                "put a value with blanks or quotes in quotes, a quote inside it twice",
            )
        value = found[1].replace(quote * 2, quote) if quote else found[1].strip()
        return value, tail

    def _parameter(self, name: str, default: str, comment: str, token: Token) -> Parameter:
        role = _ROLE.fullmatch(comment)
        mandatory = role is not None and role["word"].lower() in ("obbligatorio", "mandatory")
        described = f"{role['options']} {role['text']}" if role else comment
        options, description = self._options(described.strip(), token)
        parameter = replace(
            Parameter(name, default, mandatory, description, line=self._line_of(token.start)), **options
        )
        why = "" if mandatory or "{" in default else value_problem(parameter, default, self._dialect)
        if why:
            remedy = "correct the define" + (
                "; for several values add [list]" if "," in default and not parameter.is_list else ""
            )
            self._fail(token.start, f"the default of {name} cannot be {shown(default)}", why, remedy)
        return parameter

    def _options(self, text: str, token: Token) -> tuple[dict[str, Any], str]:
        """Returns `[list]`, `[type=…]` and `[allowed=…]` of a comment, and the comment without them."""
        options: dict[str, Any] = {}
        for flag in _FLAG.finditer(text):
            key = flag["key"].lower()
            if key == "list":
                options["is_list"] = True
                text = text.replace(flag[0], "", 1)
            elif difflib.get_close_matches(key, ["list"], cutoff=0.8):
                offset = token.start + token.text.index(flag[0].strip())
                self._fail(offset, f"[{key}] is not known", "the nearest is [list]")
        for option in _OPTION.finditer(text):
            key = option["key"].lower()
            offset = token.start + token.text.index(option[0].strip())
            if key == "type":
                options["type"] = self._type(option["value"].strip().lower(), offset)
            elif key == "allowed":
                options["allowed"] = self._allowed(option["value"], offset)
            elif key == "list":
                self._fail(offset, "[list=…] is not known", remedy="write [list]; the values stand behind the =")
            elif difflib.get_close_matches(key, ["type", "allowed"]):
                near = difflib.get_close_matches(key, ["type", "allowed"])[0]
                self._fail(offset, f"[{key}=…] is not known", f"the nearest is [{near}=…]")
            else:
                continue
            text = text.replace(option[0], "", 1)
        return options, text.strip()

    def _type(self, value: str, offset: int) -> str:
        if value not in _TYPES:
            near = difflib.get_close_matches(value, _TYPES, 1)
            why = f"the nearest is {near[0]}" if near else f"there are {', '.join(_TYPES)}"
            self._fail(offset, f"{value[:40]!r} is no type of a parameter", why)
        return value

    def _allowed(self, value: str, offset: int) -> tuple[str, ...]:
        allowed = tuple(part.strip() for part in value.split(","))
        if not all(allowed):
            self._fail(offset, "an allowed value is empty", remedy="write [allowed=A,B]")
        return allowed
