"""Parameters that repeat a test at other places: a few run always, the others with `-m slow`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

__all__ = ["sweep"]


def sweep(values: Iterable[Any], *, always: Collection[Any]) -> list[Any]:
    """Returns the values as parameters of a test; those that are not in `always` have the mark `slow`."""
    values = list(values)
    unknown = [value for value in always if value not in values]
    assert not unknown, f"no values of this sweep: {unknown}"
    return [value if value in always else _slow(value) for value in values]


def _slow(value: Any) -> Any:
    several = value if isinstance(value, tuple) else (value,)
    return pytest.param(*several, marks=pytest.mark.slow)
