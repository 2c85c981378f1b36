"""Restricts a statement to the rows between two positions of a cursor, by wrapping it. Pure; the statement is never edited."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

from core.errors import ConfigError
from core.model.dialect import BoundRules, Dialect, MomentRules
from core.model.job import CursorKind, Incremental
from core.model.query import Step, Value
from core.model.source import Column
from core.model.window import Cursor, Window
from core.sql.partitioning import Wrapping, asked, bound_rules, described, placeholder, quoted, restricted

__all__ = [
    "INCREMENTAL",
    "CursorColumns",
    "cursor_columns",
    "cursor_text",
    "earlier",
    "is_after",
    "latest",
    "moment_of",
    "not_repeated",
    "shown",
]

INCREMENTAL = Wrapping("the query cannot be read incrementally", "run", "incremental")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?)?")
_NUMBER_KINDS = ("integer", "decimal")
_AFTER, _UP_TO = ("PSTT_AFTER", "PSTT_AFTER_TIE"), ("PSTT_UP_TO", "PSTT_UP_TO_TIE")
_LATEST = "PSTT_LATEST"


@dataclass(frozen=True, slots=True)
class _Bound:
    """One of the columns of a cursor, and how its values are read and bound."""

    expression: str
    """The column as SQL."""
    kind: CursorKind
    read: str
    bind: str
    to_value: Callable[[str], Value]
    """The text of a `Cursor` → what is bound."""
    compare: str = "{}"

    @property
    def compared(self) -> str:
        return self.compare.format(self.expression)

    def highest(self, expression: str) -> str:
        """Returns SQL for the text of a value."""
        return self.read.format(expression)


@dataclass(frozen=True, slots=True)
class CursorColumns:
    """The cursor of a job in the result of its query."""

    dialect: Dialect
    cursor: _Bound
    tie: _Bound | None
    zone: ZoneInfo
    is_aware: bool
    """The column has an offset, or is no time."""

    def window(self, step: Step, window: Window, high: Cursor | None) -> Step:
        """Returns the statement that reads the rows of a window up to `high`; None: no row."""
        if high is None:
            return described(step, self.dialect)
        condition, binds = self._between(window.first, high)
        return restricted(step, self.dialect, condition, binds)

    def highest(self, step: Step, window: Window) -> Step:
        """Returns the statement that gives the highest position in a window as one row, or NULL or no row if it is empty."""
        condition, binds = self._above(window)
        if self.tie is None:
            select = f"SELECT {self.cursor.highest(f'MAX({self.cursor.compared})')} FROM ({{}}) part"  # noqa: S608 - the user's own statement
            return asked(step, self.dialect, select, condition, binds)
        order = f"{self.cursor.compared} DESC, {self.tie.compared} DESC"
        select = (
            f"SELECT {self.cursor.compared} AS pstt_cursor, {self.tie.compared} AS pstt_tie, "  # noqa: S608
            f"ROW_NUMBER() OVER (ORDER BY {order}) AS pstt_place FROM ({{}}) part"
        )
        inner = asked(step, self.dialect, select, condition, binds)
        values = f"{self.cursor.highest('found.pstt_cursor')}, {self.tie.highest('found.pstt_tie')}"
        sql = f"SELECT {values} FROM (\n{inner.sql}\n) found WHERE found.pstt_place = 1"  # noqa: S608
        return Step(sql, inner.binds, inner.returns_rows, inner.line)

    def nulls(self, step: Step) -> Step:
        """Returns the statement that counts the rows without a cursor."""
        return asked(step, self.dialect, "SELECT COUNT(*) FROM ({}) part", f"NOT ({self._present})", ())

    def position(self, row: Sequence[Any] | None) -> Cursor | None:
        """Returns the position in the answer of `highest`.

        Raises:
            ConfigError: The value is no number, or no time.
        """
        if not row or row[0] is None:
            return None
        value = self._read(self.cursor, row[0])
        return Cursor(value, self._read(self.tie, row[1]) if self.tie else "")

    def _read(self, bound: _Bound, value: Any) -> str:
        if bound.kind == "integer":
            return _number_text(value, bound.expression)
        if not isinstance(value, str) or not _MOMENT.fullmatch(value):
            _refuse_value(bound.expression, "a time as YYYY-MM-DD HH:MM:SS, without offset")
        return f"{value}Z" if self.is_aware else value

    @property
    def _present(self) -> str:
        ties = f" AND {self.tie.expression} IS NOT NULL" if self.tie else ""
        return f"{self.cursor.expression} IS NOT NULL{ties}"

    def _above(self, window: Window) -> tuple[str, list[tuple[str, Value]]]:
        """Returns the condition of all rows after the begin of a window that are old enough."""
        binds: list[tuple[str, Value]] = []
        parts = [self._present, *self._after(window.low, binds)]
        if window.latest is not None:
            if self.is_aware:
                at_most = f"{_local(window.latest, UTC)}Z"
            else:
                at_most = _local(not_repeated(window.latest, self.zone), self.zone)
            parts.append(f"{self.cursor.compared} <= {self._bound(self.cursor, _LATEST, at_most, binds)}")
        return " AND ".join(parts), binds

    def _between(self, low: Cursor | None, high: Cursor) -> tuple[str, list[tuple[str, Value]]]:
        binds: list[tuple[str, Value]] = []
        parts = [self._present, *self._after(low, binds), *self._up_to(high, binds)]
        return " AND ".join(parts), binds

    def _after(self, low: Cursor | None, binds: list[tuple[str, Value]]) -> list[str]:
        return [] if low is None else self._compared(low, _AFTER, ">", binds)

    def _up_to(self, high: Cursor, binds: list[tuple[str, Value]]) -> list[str]:
        if self.tie is None or not high.tie:
            return [f"{self.cursor.compared} <= {self._bound(self.cursor, _UP_TO[0], high.value, binds)}"]
        return self._compared(high, _UP_TO, "<", binds)

    def _compared(self, at: Cursor, names: tuple[str, str], sign: str, binds: list[tuple[str, Value]]) -> list[str]:
        """Returns the condition of the rows on one side of a position; those at the position itself are on the lower side.

        The comparison of the cursor alone comes first, so that an index on it is used.
        """

        def cursor() -> str:
            return self._bound(self.cursor, names[0], at.value, binds)

        name = self.cursor.compared
        if self.tie is None or not at.tie:
            return [f"{name} {sign} {cursor()}"]
        signs = {">": (">=", ">"), "<": ("<=", "<=")}[sign]
        first = f"{name} {signs[0]} {cursor()}"
        second = f"({name} {sign} {cursor()} OR {self.tie.compared} {signs[1]} "
        return [first, f"{second}{self._bound(self.tie, names[1], at.tie, binds)})"]

    def _bound(self, bound: _Bound, name: str, text: str, binds: list[tuple[str, Value]]) -> str:
        binds.append((name, bound.to_value(text)))
        return bound.bind.format(placeholder(self.dialect, name))


def cursor_columns(columns: Sequence[Column], incremental: Incremental, dialect: Dialect) -> CursorColumns:
    """Returns the cursor of a job in these columns.

    Raises:
        ConfigError: A column is not in the result, or its type cannot be a cursor.
    """
    column = _found(columns, incremental.column, "column")
    zone = ZoneInfo(incremental.timezone)
    if incremental.kind == "integer":
        cursor, is_aware = _number(column, dialect, "column"), False
    else:
        rules = dialect.moments.get(column.database_type.lower()) or dialect.moments.get(column.kind)
        if rules is None:
            _refuse_type(column, "column", "a date or a time", '"kind": "integer" is for numbers')
        cursor, is_aware = _moment(column, dialect, rules, zone), rules.is_aware
    tie = incremental.tie_column
    bound = _number(_found(columns, tie, "tie_column"), dialect, "tie_column") if tie else None
    return CursorColumns(dialect, cursor, bound, zone, is_aware)


def shown(step: Step, incremental: Incremental, dialect: Dialect, window: Window) -> tuple[Step, Step]:
    """Returns the statements of the next run for display, without a database: that of the highest position, that of the rows.

    A time is assumed to have no offset, and a name to be written without quotes.
    """
    column = Column(_folded(incremental.column, dialect), *_ASSUMED[incremental.kind])
    tie = incremental.tie_column
    columns = [column, Column(_folded(tie, dialect), *_ASSUMED["integer"])] if tie else [column]
    cursor = cursor_columns(columns, incremental, dialect)
    asked_first = cursor.highest(step, window)
    any_high = Cursor("0" if incremental.kind == "integer" else "2000-01-01 00:00:00", "0" if tie else "")
    return asked_first, _with_unknown_end(cursor.window(step, window, any_high), 3 if tie else 1)


_ASSUMED: Mapping[CursorKind, tuple[str, str]] = {
    "integer": ("integer", "integer"),
    "timestamp": ("datetime", "timestamp"),
}
_FOUND = "(what the statement before has found)"


def _folded(name: str, dialect: Dialect) -> str:
    return {"upper": name.upper(), "lower": name.lower(), "": name}[dialect.folds_to]


def _with_unknown_end(step: Step, ends: int) -> Step:
    """Returns the step with words for the values that only the database knows."""
    if isinstance(step.binds, Mapping):
        return replace(step, binds={name: _FOUND if name in _UP_TO else value for name, value in step.binds.items()})
    return replace(step, binds=(*step.binds[: len(step.binds) - ends], *[_FOUND] * ends))


def cursor_text(text: str, incremental: Incremental, where: str, key: str = "") -> str:
    """Returns a value that a user gave as the text of a `Cursor`.

    Args:
        text: A whole number, or a time in ISO 8601.
        incremental: The settings of the job.
        where: What it was given as, for the error.
        key: Its key in the job file, for the error.

    Raises:
        ConfigError: It is no value of this kind.
    """
    if incremental.kind == "integer":
        if not re.fullmatch(r"-?\d{1,38}", text.strip()):
            raise ConfigError(f"{where}: {text} is not a whole number", remedy="write it as 12345", key=key)
        return str(int(text))
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(f"{where}: {text} is not a time", remedy="write it as 2026-01-17T02:00:00", key=key) from None
    # Without a fraction of zero, which a text of SQLite does not have either.
    whole = moment if moment.tzinfo is None else moment.astimezone(UTC)
    return whole.replace(tzinfo=None).isoformat(" ") + ("" if moment.tzinfo is None else "Z")


def earlier(cursor: Cursor, seconds: float) -> Cursor:
    """Returns the position that many seconds before a time, after all rows of that moment.

    A time of the database may have more digits than a microsecond; they are cut, which is earlier.
    """
    suffix = "Z" if cursor.value.endswith("Z") else ""
    moment = _parsed(cursor.value.removesuffix("Z")) - timedelta(seconds=seconds)
    return Cursor(f"{_local(moment)}{suffix}")


def moment_of(cursor: Cursor, incremental: Incremental) -> datetime:
    """Returns a position of times as aware time, to the microsecond."""
    zone = UTC if cursor.value.endswith("Z") else ZoneInfo(incremental.timezone)
    return _parsed(cursor.value.removesuffix("Z")).replace(tzinfo=zone)


def is_after(one: Cursor, other: Cursor, incremental: Incremental) -> bool:
    """Returns whether a position is after another one. Times are compared to the microsecond."""

    def key(at: Cursor) -> tuple[Any, Decimal]:
        first = Decimal(at.value) if incremental.kind == "integer" else moment_of(at, incremental)
        return first, Decimal(at.tie) if at.tie else Decimal("Infinity")

    return key(one) > key(other)


def latest(now: datetime, incremental: Incremental) -> datetime | None:
    """Returns how late a row may be to be read now, the delay before the clock; None: the cursor is no time.

    Args:
        now: Aware.
        incremental: The settings of the job.
    """
    if incremental.kind == "integer":
        return None
    return now.astimezone(UTC) - timedelta(seconds=incremental.lag_s)


def not_repeated(moment: datetime, zone: ZoneInfo) -> datetime:
    """Returns the moment, or an earlier one if its local time comes twice since the clock is set back.

    In that hour a row of the second time would be below a watermark of the first time. So its rows are left until it has
    passed twice.
    """
    if not _is_repeated(moment, zone):
        return moment
    first = moment.replace(second=0, microsecond=0)
    while _is_repeated(first - timedelta(minutes=1), zone):
        first -= timedelta(minutes=1)
    return first - timedelta(microseconds=1)


def _is_repeated(moment: datetime, zone: ZoneInfo) -> bool:
    local = moment.astimezone(zone)
    return local.replace(fold=0).utcoffset() != local.replace(fold=1).utcoffset()


def _found(columns: Sequence[Column], name: str, key: str) -> Column:
    found = next((column for column in columns if column.name.lower() == name.lower()), None)
    if found is None:
        raise ConfigError(
            f'"incremental" names column {name}, which the query does not return',
            remedy=f"its columns are: {', '.join(column.name.lower() for column in columns)}",
            key=f"incremental.{key}",
        )
    return found


def _number(column: Column, dialect: Dialect, key: str) -> _Bound:
    rules = bound_rules(column, dialect)
    if dialect.is_untyped and column.kind == "unknown":
        rules = BoundRules()
    elif column.kind not in _NUMBER_KINDS:
        rules = None
    if rules is None:
        _refuse_type(column, key, "a number", '"kind": "timestamp" is for times' if key == "column" else "")

    def value(text: str) -> Value:
        number = Decimal(text)
        return dialect.binds.convert(int(number) if number == number.to_integral_value() else number)

    return _Bound(f"part.{quoted(column, dialect)}", "integer", rules.read, rules.bind, value)


def _moment(column: Column, dialect: Dialect, rules: MomentRules, zone: ZoneInfo) -> _Bound:
    def value(text: str) -> Value:
        return _bound_moment(text, rules, zone)

    return _Bound(f"part.{quoted(column, dialect)}", "timestamp", rules.read, rules.bind, value, rules.compare)


def _bound_moment(text: str, rules: MomentRules, zone: ZoneInfo) -> str:
    """Returns the text to bind. One that the database itself gave is bound as it is, with every digit."""
    plain, is_utc = text.removesuffix("Z"), text.endswith("Z")
    if is_utc and not rules.is_aware:
        plain = _local(_parsed(plain).replace(tzinfo=UTC), zone)
    elif rules.is_aware and not is_utc:
        plain = _local(_parsed(plain).replace(tzinfo=zone), UTC)
    return plain if rules.has_fraction else plain.partition(".")[0]


def _parsed(text: str) -> datetime:
    """Returns a time to the microsecond."""
    whole, dot, fraction = text.replace("T", " ").partition(".")
    return datetime.fromisoformat(f"{whole}{dot}{fraction[:6]:0<6}" if dot else whole)


def _local(moment: datetime, zone: Any = None) -> str:
    """Returns `YYYY-MM-DD HH:MM:SS.ffffff`, in the zone where the moment is aware."""
    local = moment.astimezone(zone) if zone is not None else moment
    return local.replace(tzinfo=None).isoformat(" ", "microseconds")


def _number_text(value: Any, column: str) -> str:
    """Returns a number as text, with every digit."""
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or isinstance(value, bool | bytes):
        _refuse_value(column, "a number")
    return str(int(number)) if number == number.to_integral_value() else format(number, "f")


def _refuse_value(column: str, wanted: str) -> NoReturn:
    raise ConfigError(
        f"the cursor {column.removeprefix('part.')} has a value that is not {wanted}",
        remedy='name another column in "incremental", or have the query convert it',
        key="incremental.column",
    )


def _refuse_type(column: Column, key: str, wanted: str, hint: str) -> NoReturn:
    raise ConfigError(
        f"column {column.name} ({column.database_type}) cannot be the {key} of an incremental job",
        why=f"it needs {wanted}",
        remedy=f'name another column in "incremental"{f"; {hint}" if hint else ""}',
        key=f"incremental.{key}",
    )
