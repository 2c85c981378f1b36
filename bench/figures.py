"""How the figures of a bench are printed: a line for each measurement, and a line for each figure that has a limit."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Measurement = dict[str, Any]
"""`rows`, `seconds`, `cpu_s`, `peak_mb`, and where they were measured `broker_cpu_s`, `p50_ms`, `p99_ms`, `between_s`."""

HEAD = (
    f"{'':<50} {'rows':>10} {'s':>7} {'msg/s':>9} {'CPU s':>7} {'broker CPU':>10} {'peak MB':>8} {'p50 ms':>7} {'p99 ms':>7}"
    f" {'1st→last s':>10}"
)
"""The last column: from the first message in the topic to the last one; only of whole processes."""
NOT_MEASURED = "not measured"


class NotMeasured(Exception):
    """A contestant cannot be measured here, or failed; the text says why."""


@dataclass(frozen=True)
class Figure:
    """One figure that is asked for; without a value it was not measured."""

    name: str
    value: float | None
    limit: str
    """`≥ 0.5`, `≤ 100 ms`."""
    contestants: str = ""
    """Letters of the contestants that it compares."""

    def __str__(self) -> str:
        if self.value is None:
            return f"–     {self.name:<60} {NOT_MEASURED:>12}   {self.limit}"
        relation, bound = self.limit.split()[:2]
        holds = self.value >= float(bound) if relation == "≥" else self.value <= float(bound)
        return f"{'pass' if holds else 'FAIL'}  {self.name:<60} {self.value:>12,.2f}   {self.limit}"


def rate(measured: Measurement) -> float:
    """Returns messages a second."""
    return measured["rows"] / measured["seconds"]


def line(name: str, measured: Measurement) -> str:
    """Returns a row below HEAD."""
    p50, p99 = (_or_dash(measured.get(p), 0) for p in ("p50_ms", "p99_ms"))
    return (
        f"{name:<50} {measured['rows']:>10,} {measured['seconds']:>7.1f} {rate(measured):>9,.0f}"
        f" {measured['cpu_s']:>7.1f} {_or_dash(measured.get('broker_cpu_s'), 2):>10} {measured['peak_mb']:>8.0f}"
        f" {p50:>7} {p99:>7} {_or_dash(measured.get('between_s'), 1):>10}"
    )


def _or_dash(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def median(measured: Sequence[Measurement]) -> Measurement | None:
    """Returns the median of each figure; None without any measurement."""
    return _each(measured, statistics.median)


def best(measured: Sequence[Measurement]) -> Measurement | None:
    """Returns the smallest of each figure, as all that disturbs a run makes it larger; None without any measurement."""
    return _each(measured, min)


def _each(measured: Sequence[Measurement], choose: Callable[[list[float]], float]) -> Measurement | None:
    if not measured:
        return None
    # A figure that one run did not measure is not compared.
    names = [name for name, value in measured[0].items() if isinstance(value, int | float)]
    values = {name: [m[name] for m in measured if m.get(name) is not None] for name in names}
    chosen = {name: choose(found) for name, found in values.items() if len(found) == len(measured)}
    return chosen | {"rows": measured[0]["rows"]}


def ratio(name: str, one: Measurement | None, other: Measurement | None) -> float | None:
    """Returns a figure of one measurement divided by that of another, or None where either was not measured."""
    if one is None or other is None or not one.get(name) or not other.get(name):
        return None
    return one[name] / other[name]


def rate_ratio(one: Measurement | None, other: Measurement | None) -> float | None:
    """Returns how many times as many messages a second the first one has, or None where either was not measured."""
    return rate(one) / rate(other) if one and other else None
