"""A parsed SQL file, and the statements it becomes when every parameter has a value.

Text that is not a parameter reaches the driver as it is in the file, byte for byte; only the SQL*Plus lines and the
terminators are left out.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn, TypeVar

from core.errors import SqlError
from core.model.dialect import Dialect
from core.model.query import LiteralText, Parameter, ParameterValue, Query, Step, Value
from core.sql import readonly_guard
from core.sql.lexer import Token, position
from core.sql.substitution import (
    Bind,
    InsertedName,
    ListBind,
    ParameterText,
    Substitution,
    tokens_for_guard,
)
from core.sql.values import join, shown, split, typed_value, value_problem

__all__ = ["ParsedQuery", "Statement", "without_select"]

_Given = TypeVar("_Given", str, ParameterValue)
_ALLOW_WRITES = 'if it is meant to write, set "allow_writes": true on its connection in connections.json'


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of the file, its parameters replaced by binds."""

    tokens: tuple[Token, ...]
    substituted: Substitution
    kind: readonly_guard.StatementKind
    line: int


@dataclass(frozen=True, slots=True)
class ParsedQuery:
    """An SQL file without its values."""

    name: str
    dialect: Dialect
    parameters: tuple[Parameter, ...]
    sha256: str
    """Hash of the file's bytes, in hex."""
    notes: tuple[str, ...]
    """Notes about the file for the user, such as a guessed encoding."""
    file: Path | None
    _text: str
    _statements: tuple[Statement, ...]
    _is_outline: bool = False

    @property
    def inserts_names(self) -> bool:
        """Whether the text of a statement depends on the values: a parameter lists its allowed names."""
        return any(statement.substituted.inserted for statement in self._statements)

    def outline(self) -> ParsedQuery:
        """Returns the file without its SQL, which may be megabytes: parameters, notes, and where values are bound.

        Its `bind` finds what is wrong with the values, as that of the file does. It returns steps without text and does not
        ask the readonly guard: make it of a file that was bound before, and whose names are not inserted.
        """
        statements = tuple(
            replace(
                statement,
                tokens=(),
                substituted=replace(
                    statement.substituted,
                    parts=tuple(part for part in statement.substituted.parts if not isinstance(part, str)),
                ),
            )
            for statement in self._statements
        )
        return replace(self, _text="", _statements=statements, _is_outline=True)

    def defaults(self) -> dict[str, str]:
        """Returns the values that optional parameters have in the file; they may be templates such as `{date-1}`."""
        return {p.name: p.default for p in self.parameters if not p.mandatory}

    def resolved(self, values: Mapping[str, ParameterValue], resolve: Callable[[str], str]) -> dict[str, str]:
        """Returns the texts for `bind`: the given values, else the defaults, with templates resolved.

        Args:
            values: Parameter → text or list; names in any case.
            resolve: Replaces the templates of one text; called for each value of a list.

        Raises:
            SqlError: A list for a parameter of one value, a name in two cases with two values; and what `resolve` raises.
        """
        given: dict[str, ParameterValue] = {**self.defaults(), **self._named(values)}
        known = {parameter.name: parameter for parameter in self.parameters}
        return {name: self.resolved_text(known.get(name), value, resolve) for name, value in given.items()}

    def resolved_text(self, parameter: Parameter | None, value: ParameterValue, resolve: Callable[[str], str]) -> str:
        """Returns the text of one parameter, like `resolved`.

        None: the file has no such parameter, and `bind` will refuse it.
        """
        if parameter is not None and parameter.is_list and isinstance(value, str):
            # A value that is no list is left to bind, which reports why.
            with suppress(ValueError):
                return join(map(resolve, split(value)))
        if isinstance(value, str):
            return resolve(value)
        if parameter is not None and not parameter.is_list:
            raise SqlError(
                f"parameter {parameter.name} is given a list and takes one value",
                remedy=f"write one value, or {_as_list(parameter)}",
                file=self.file,
                line=parameter.line,
            )
        return join(map(resolve, value))

    def bind(self, values: Mapping[str, str], *, allow_writes: bool = False) -> Query:
        """Returns the statements for these values; refuses those that could write.

        The values change only the binds: the text of the steps is the same for all values, except for
        parameters that list their allowed names.

        Args:
            values: Parameter → value, templates already resolved; names in any case. Missing ones have their default.
            allow_writes: The setting of the connection; True turns the readonly guard off.

        Raises:
            SqlError: A mandatory parameter is missing, a name is unknown, a value does not fit, or a statement
                could write.
        """
        given = self._given(values)
        if not allow_writes and not self._is_outline:
            for statement in self._statements:
                self._check(statement, given)
        if not any(statement.kind == "rows" for statement in self._statements):
            raise without_select(self._statements, self.file)
        steps = tuple(self._step(statement, given) for statement in self._statements)
        return Query(self.name, steps, given, self.sha256)

    def _given(self, values: Mapping[str, str]) -> dict[str, str]:
        """Returns the value of each parameter, checked."""
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in values:
            if name.upper() not in known:
                self._refuse_unknown(name, list(known))
        named = self._named(values)
        for parameter in self.parameters:
            if parameter.mandatory and parameter.name not in named:
                self._refuse_missing(parameter)
        given = {p.name: named.get(p.name, p.default) for p in self.parameters}
        alone_in_list = frozenset[str]().union(*(s.substituted.alone_in_list for s in self._statements))
        for parameter in self.parameters:
            if parameter.name in alone_in_list:
                self._check_comma(parameter, given[parameter.name])
            self._check_value(parameter, given[parameter.name])
        return given

    def _check_comma(self, parameter: Parameter, value: str) -> None:
        """Refuses commas in a single value of `IN`: `IN ('N,S')` finds no row, and the run would succeed."""
        if "," in value:
            raise SqlError(
                f"parameter {parameter.name} stands in IN (…) and cannot be {shown(value)}",
                why="its value is bound as one text, with its commas, so it is no list",
                remedy=f"for a list {_as_list(parameter)}; there a value that holds a comma stands in quotes",
                file=self.file,
                line=parameter.line,
            )

    def _named(self, values: Mapping[str, _Given]) -> dict[str, _Given]:
        """Returns the values by name in capitals."""
        named: dict[str, _Given] = {}
        for name, value in values.items():
            upper = name.upper()
            if named.setdefault(upper, value) != value:
                raise SqlError(
                    f"parameter {upper} is given twice, with different values", remedy="leave one out", file=self.file
                )
        return named

    def _refuse_unknown(self, name: str, known: Sequence[str]) -> NoReturn:
        near = difflib.get_close_matches(name.upper(), known, 1)
        why = f"the nearest is {near[0]}" if near else f"it has {', '.join(known)}" if known else "it has no parameters"
        raise SqlError(
            f"{self.name} has no parameter {name[:60]}",
            why=why,
            remedy="correct the name in parameters of the job or in --param, or add a define line",
            file=self.file,
        )

    def _refuse_missing(self, parameter: Parameter) -> NoReturn:
        described = f" ({parameter.description})" if parameter.description else ""
        raise SqlError(
            f"mandatory parameter {parameter.name}{described} has no value",
            why="the value on its define line is only an example",
            remedy=f'give it in the job ("parameters": {{"{parameter.name}": "…"}}) or with --param {parameter.name}=…',
            file=self.file,
            line=parameter.line,
        )

    def _check_value(self, parameter: Parameter, value: str) -> None:
        why = value_problem(parameter, value, self.dialect)
        if why:
            raise SqlError(
                f"parameter {parameter.name} cannot be {shown(value)}",
                why=why,
                remedy="give values such as N,S, with commas between" if parameter.is_list else "give another value",
                file=self.file,
                line=parameter.line,
            )

    def _check(self, statement: Statement, given: Mapping[str, str]) -> None:
        tokens = tokens_for_guard(statement.tokens, statement.substituted.inserted, given)
        found = readonly_guard.refusal(tokens, self.dialect)
        if found is None:
            return
        line, column = position(self._text, found.token.start)
        remedy = f"{found.remedy}; {_ALLOW_WRITES}" if found.remedy else f"remove it; {_ALLOW_WRITES}"
        raise SqlError(found.what, why=found.why, remedy=remedy, file=self.file, line=line, column=column)

    def _step(self, statement: Statement, given: Mapping[str, str]) -> Step:
        parts = statement.substituted.parts
        doubles = self.dialect.binds.doubles_percent and any(isinstance(part, Bind | ListBind) for part in parts)
        placeholder = self.dialect.binds.placeholder.format
        texts: list[str] = []
        valued: list[tuple[str, Value]] = []
        for part in parts:
            if isinstance(part, Bind):
                valued.append((part.name, self._value(part, _text_of(part.content, given), given)))
                texts.append(placeholder(part.name))
            elif isinstance(part, ListBind):
                values = self._values(part, given)
                valued += values
                before, after = (text.replace("%", "%%") if doubles else text for text in (part.before, part.after))
                texts.append(", ".join(before + placeholder(name) + after for name, _ in values))
            elif isinstance(part, InsertedName):
                texts.append(given[part.parameter])
            else:
                texts.append(part.replace("%", "%%") if doubles else part)
        named = dict(valued)
        binds = tuple(value for _, value in valued) if self.dialect.binds.is_positional else named
        self._check_count(statement, len(binds))
        return Step("".join(texts), binds, statement.kind == "rows", statement.line)

    def _values(self, each: ListBind, given: Mapping[str, str]) -> list[tuple[str, Value]]:
        """Returns the binds of a list by name: L1_X, L2_X, …; no other bind can have such a name."""
        parameter = self._parameter_of(each.bind)
        texts, most = split(given[parameter.name]), self.dialect.binds.most_in_list
        if len(texts) > most:
            raise SqlError(
                f"parameter {parameter.name} has {len(texts):,} values",
                why=f"{self.dialect.title} takes at most {most:,} in one list",
                remedy=_FEWER,
                file=self.file,
                line=parameter.line,
            )
        name = each.bind.name.removeprefix("P_")
        return [(f"L{n}_{name}", self._value(each.bind, text, given)) for n, text in enumerate(texts, 1)]

    def _check_count(self, statement: Statement, count: int) -> None:
        if count > self.dialect.binds.most:
            raise SqlError(
                f"the statement would have {count:,} values",
                why=f"{self.dialect.title} takes at most {self.dialect.binds.most:,}",
                remedy=_FEWER,
                file=self.file,
                line=statement.line,
            )

    def _value(self, bind: Bind, text: str, given: Mapping[str, str]) -> Value:
        if bind.is_text:
            self._check_length(bind, given)
            return LiteralText(text) if bind.is_compared else text
        parameter = self._parameter_of(bind)
        value = typed_value(parameter.type, text)
        if value is None:
            self._refuse_text(parameter, text)
        return LiteralText(value) if bind.is_compared and isinstance(value, str) else self.dialect.binds.convert(value)

    def _parameter_of(self, bind: Bind) -> Parameter:
        name = next(piece.parameter for piece in bind.content if isinstance(piece, ParameterText))
        return next(parameter for parameter in self.parameters if parameter.name == name)

    def _refuse_text(self, parameter: Parameter, text: str) -> NoReturn:
        name = parameter.name
        why = f"&{name} stands without quotes, so its value has to be a number"
        if parameter.is_list:
            why = f"&{name} stands without quotes and its define has numbers, so each of its values has to be one"
        raise SqlError(
            f"parameter {name} cannot be {shown(text)}",
            why=why,
            remedy=f"write '&{name}' in the file for a text, or add [type=date] or [type=string] to its comment",
            file=self.file,
            line=parameter.line,
        )

    def _check_length(self, bind: Bind, given: Mapping[str, str]) -> None:
        limit = self.dialect.binds.cuts_text_at
        if limit is None or not bind.literal:
            return
        names = [piece.parameter for piece in bind.literal if isinstance(piece, ParameterText)]
        longest = max(_utf16_units(given[name]) for name in names)
        if longest <= limit < _utf16_units(_text_of(bind.literal, given)):
            raise SqlError(
                f"the literal around &{names[0]} gets longer than {limit} characters",
                why=f"{self.dialect.title} would cut it there without an error",
                remedy="give a shorter value",
                file=self.file,
            )


_FEWER = "give fewer values, or put them into a table and join it"


def _text_of(content: Sequence[str | ParameterText], given: Mapping[str, str]) -> str:
    return "".join(given[piece.parameter] if isinstance(piece, ParameterText) else piece for piece in content)


def _as_list(parameter: Parameter) -> str:
    word = "Obbligatorio" if parameter.mandatory else "Opzionale"
    return f"add [list] to the comment of its define (--{word} [list]: …)"


def _utf16_units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def without_select(statements: Sequence[Statement], file: Path | None) -> SqlError:
    """Returns the error for a file without a result."""
    return SqlError(
        "the file holds no SELECT" if statements else "the file holds no statement",
        why="the last SELECT gives the rows",
        remedy="add one",
        file=file,
        line=statements[0].line if statements else 1,
    )
