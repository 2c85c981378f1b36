"""Splits a statement into parts by wrapping it: `SELECT * FROM (…) part WHERE …`. Pure; the statement itself is never edited."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NoReturn

from core.errors import ConfigError, SqlError
from core.model.dialect import BoundRules, Dialect
from core.model.job import Partitions
from core.model.query import Step, Value
from core.model.source import Column
from core.sql.readonly_guard import parse_tree

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = [
    "PARTS",
    "Wrappable",
    "Wrapping",
    "asked",
    "bound_rules",
    "bounds_of",
    "column_of",
    "described",
    "part_steps",
    "placeholder",
    "quoted",
    "require_column",
    "require_wrappable",
    "restricted",
    "tiles",
    "wrappable",
]

_LOW, _HIGH = "PSTT_LOW", "PSTT_HIGH"
_PERCENT = re.compile(r"%%|%\((\w+)\)s")


@dataclass(frozen=True, slots=True)
class Wrapping:
    """Why a statement is wrapped, for the errors of one that cannot be."""

    what: str = "the query cannot be split into parts"
    reader: str = "part"
    """What reads the wrapped statement."""
    key: str = "partitions"

    def refuse(self, step: Step, why: str) -> NoReturn:
        """Raises SqlError with that reason."""
        remedy = f'change the SQL, or remove "{self.key}" from the job file'
        raise SqlError(self.what, why=why, remedy=remedy, line=step.line)


PARTS = Wrapping()
"""A statement that is split into parts."""


@dataclass(frozen=True, slots=True)
class Wrappable:
    """A statement that each part, or each run of an incremental job, may wrap."""

    step: Step
    names: tuple[str, ...]
    """Of the columns of its result; empty: the statement does not list them all."""


def require_wrappable(steps: Sequence[Step], dialect: Dialect, wrapping: Wrapping = PARTS) -> Step:
    """Returns the statement that gives the rows, if it may be wrapped.

    Raises:
        SqlError: As `wrappable`.
    """
    return wrappable(steps, dialect, wrapping).step


def wrappable(steps: Sequence[Step], dialect: Dialect, wrapping: Wrapping = PARTS) -> Wrappable:
    """Parses the statement that gives the rows: 0.2 s a MB and more.

    Raises:
        SqlError: Wrapped, it could give other rows, or the database would refuse it.
    """
    with_rows = [step for step in steps if step.returns_rows]
    step = with_rows[-1]
    if len(with_rows) > 1:
        wrapping.refuse(with_rows[0], "the file has several statements that return rows, and only one can be wrapped")
    tree = _tree(step, dialect)
    from sqlglot import exp  # slow to import

    if not isinstance(tree, exp.Query):
        wrapping.refuse(
            step,
            "its grammar is not known to this program, so it cannot be shown that nothing is lost if it is wrapped",
        )
    _require_whole(step, tree, wrapping)
    if not dialect.partitions.wraps_with and tree.args.get("with_"):
        wrapping.refuse(step, f"{dialect.title} takes no WITH inside of a SELECT; put it into a view")
    if not dialect.partitions.wraps_order and tree.args.get("order"):
        wrapping.refuse(step, f"{dialect.title} takes no ORDER BY inside of a SELECT")
    _require_names(step, tree, dialect, wrapping)
    names = tuple(tree.named_selects)
    return Wrappable(step, names if all(name and name != "*" for name in names) else ())


def require_column(names: Sequence[str], dialect: Dialect, partitions: Partitions) -> None:
    """Checks what is known of the column of a split before the database is asked.

    Raises:
        ConfigError: The query does not return the column, or the database has no hash.
    """
    if partitions.by == "hash":
        _require_hash(dialect)
    if names and partitions.column.lower() not in (name.lower() for name in names):
        raise _not_returned(partitions, names)


def _tree(step: Step, dialect: Dialect) -> exp.Expr | None:
    doubled = dialect.binds.doubles_percent and step.binds
    # Not every dialect of sqlglot reads `%(NAME)s`.
    return parse_tree(_PERCENT.sub(lambda m: f":{m[1]}" if m[1] else "%", step.sql) if doubled else step.sql, dialect)


def _not_returned(partitions: Partitions, names: Sequence[str]) -> ConfigError:
    return ConfigError(
        f'"partitions" names column {partitions.column}, which the query does not return',
        remedy=f"its columns are: {', '.join(name.lower() for name in names)}",
        key="partitions.column",
    )


def _require_hash(dialect: Dialect) -> None:
    if not dialect.partitions.hash:
        raise ConfigError(
            f'{dialect.title} has no hash for "partitions"',
            remedy='name a number, a date or a time and remove "by": "hash"',
            key="partitions.by",
        )


def _require_whole(step: Step, tree: exp.Query, wrapping: Wrapping) -> None:
    """Refuses what gives other rows if only some of them are read, or takes locks."""
    from sqlglot import exp

    if tree.args.get("locks"):
        wrapping.refuse(step, "it locks its rows (FOR UPDATE), which several readers cannot do at once")
    if tree.args.get("limit") or tree.args.get("offset") or tree.args.get("fetch"):
        wrapping.refuse(
            step,
            f"it limits its rows (LIMIT, OFFSET, FETCH, TOP), and each {wrapping.reader} would choose its own ones",
        )
    if any(node.name.upper() == "ROWNUM" for node in tree.find_all(exp.Column, exp.Pseudocolumn)):
        wrapping.refuse(step, f"it uses ROWNUM, and each {wrapping.reader} would choose its own rows")
    if tree.args.get("into"):
        wrapping.refuse(step, f"it writes a table (INTO), and each {wrapping.reader} would write it")


def _require_names(step: Step, tree: exp.Query, dialect: Dialect, wrapping: Wrapping) -> None:
    from sqlglot import exp

    unnamed = [e for e in tree.selects if not isinstance(e, exp.Column | exp.Alias | exp.Star | exp.Dot)]
    if unnamed and not dialect.partitions.wraps_unnamed:
        wrapping.refuse(step, "a column of the result has no name; give it one (… AS some_name)")
    seen: set[str] = set()
    for name in tree.named_selects:
        if name not in ("*", "") and name.lower() in seen:
            wrapping.refuse(
                step, f"two columns of the result are called {name}; give one of them another name (… AS {name}_2)"
            )
        seen.add(name.lower())


def column_of(columns: Sequence[Column], partitions: Partitions, dialect: Dialect) -> Column:
    """Returns the column that the query is split by.

    Raises:
        ConfigError: It is not in the result, or its type has no ranges, or the database no hash.
    """
    found = next((column for column in columns if column.name.lower() == partitions.column.lower()), None)
    if found is None:
        raise _not_returned(partitions, [column.name for column in columns])
    if partitions.by == "hash":
        _require_hash(dialect)
    elif bound_rules(found, dialect) is None:
        raise ConfigError(
            f"column {found.name} ({found.database_type}) cannot be split into ranges",
            why="ranges need a number, a date or a time",
            remedy='name another column, or add "by": "hash" to "partitions"',
            key="partitions.column",
        )
    return found


def bound_rules(column: Column, dialect: Dialect) -> BoundRules | None:
    """Returns how ranges of the column are bound; None: it has no ranges."""
    rules = dialect.partitions.bounds
    return rules.get(column.database_type.partition("(")[0].strip().lower()) or rules.get(column.kind)


def described(step: Step, dialect: Dialect) -> Step:
    """Returns the wrapped statement without rows, whose columns are those of every part."""
    return restricted(step, dialect, "1 = 0", ())


def tiles(step: Step, dialect: Dialect, column: Column, count: int, ppm: int | None) -> Step:
    """Returns the statement that gives the highest value of each of `count` ranges of rows, lowest first.

    Args:
        step: The statement.
        dialect: The database.
        column: The column to split by.
        count: The number of ranges.
        ppm: How many of a million rows are used, at random; None: all.
    """
    rules = bound_rules(column, dialect) or BoundRules()
    name = quoted(column, dialect)
    sample = f" AND {dialect.partitions.sample.format(ppm=ppm)}" if ppm and dialect.partitions.sample else ""
    inner = _text(step, dialect)
    sql = (
        f"SELECT {rules.read.format('bounds.bound')} FROM (SELECT MAX(split_value) AS bound FROM ("  # noqa: S608 - the user's own statement
        f"SELECT split_value, NTILE({count}) OVER (ORDER BY split_value) AS tile FROM ("
        f"SELECT part.{name} AS split_value FROM (\n{inner}\n) part WHERE part.{name} IS NOT NULL{sample}"
        ") chosen) tiled GROUP BY tile) bounds ORDER BY bounds.bound"
    )
    return replace(step, sql=sql)


def bounds_of(highest: Sequence[Value], column: Column, dialect: Dialect) -> tuple[Value, ...]:
    """Returns the bounds between the parts: the highest values without the last one, each once.

    Times of one microsecond are one value, since their messages may be equal: equal rows have to be in one part.
    """
    rules = bound_rules(column, dialect) or BoundRules()
    distinct = dict.fromkeys(map(rules.convert, highest))
    return tuple(distinct)[:-1]


def part_steps(
    step: Step, dialect: Dialect, column: Column, partitions: Partitions, bounds: Sequence[Value]
) -> list[Step]:
    """Returns the statement of each part. Each row is in one of them, NULLs of the column in the first.

    Args:
        step: The statement.
        dialect: The database.
        column: The column to split by.
        partitions: How it is split.
        bounds: By range: the highest value of each part but the last, in order.
    """
    name = f"part.{quoted(column, dialect)}"
    rules = bound_rules(column, dialect) or BoundRules()
    if partitions.by == "hash":
        number = dialect.partitions.hash.format(value=rules.hashed.format(name), count=partitions.count)
        conditions = [f"{number} = {index} AND {name} IS NOT NULL" for index in range(1, partitions.count)]
        return [restricted(step, dialect, c, ()) for c in (f"({number} = 0 OR {name} IS NULL)", *conditions)]
    if not bounds:
        return [restricted(step, dialect, "1 = 1", ())]
    low, high = (f"{name} {sign} {rules.bind.format(placeholder(dialect, bind))}" for sign, bind in _ENDS)
    first = restricted(step, dialect, f"({high} OR {name} IS NULL)", ((_HIGH, bounds[0]),))
    middle = [
        restricted(step, dialect, f"{low} AND {high}", ((_LOW, below), (_HIGH, above)))
        for below, above in pairwise(bounds)
    ]
    return [first, *middle, restricted(step, dialect, low, ((_LOW, bounds[-1]),))]


_ENDS = ((">", _LOW), ("<=", _HIGH))


def restricted(step: Step, dialect: Dialect, condition: str, more: Sequence[tuple[str, Value]]) -> Step:
    """Returns the statement wrapped, with this condition. The line break ends a comment at its end.

    Args:
        step: The statement.
        dialect: The database.
        condition: SQL; the row is called `part`.
        more: The binds of the condition, in the order of their places.
    """
    return asked(step, dialect, "SELECT * FROM ({}) part", condition, more)


def asked(step: Step, dialect: Dialect, select: str, condition: str, more: Sequence[tuple[str, Value]]) -> Step:
    """Returns a statement about the rows of another one, with this condition.

    Args:
        step: The statement.
        dialect: The database.
        select: SQL that ends in `FROM ({}) part`.
        condition: As `restricted`.
        more: As `restricted`.
    """
    begin, _, end = select.rpartition("{}")  # the name of a column before it may have braces
    sql = f"{begin}\n{_text(step, dialect, has_more=bool(more))}\n{end} WHERE {condition}"
    return replace(step, sql=sql, binds=_with(step, dialect, more) if more else step.binds)


def _text(step: Step, dialect: Dialect, *, has_more: bool = False) -> str:
    """Returns the text of the statement; one without binds gets `%%` for `%` where it will have some."""
    return step.sql.replace("%", "%%") if has_more and dialect.binds.doubles_percent and not step.binds else step.sql


def _with(step: Step, dialect: Dialect, more: Sequence[tuple[str, Value]]) -> Mapping[str, Value] | tuple[Value, ...]:
    if dialect.binds.is_positional:
        return (*step.binds, *(value for _, value in more))
    return {**(step.binds if isinstance(step.binds, Mapping) else {}), **dict(more)}


def placeholder(dialect: Dialect, bind: str) -> str:
    """Returns the place of a bind in the SQL."""
    return dialect.binds.placeholder.format(bind)


def quoted(column: Column, dialect: Dialect) -> str:
    """Returns the name of the column in quotes."""
    opening, closing = dialect.partitions.quotes
    return f"{opening}{column.name.replace(closing, closing * 2)}{closing}"
