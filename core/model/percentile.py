"""The percentile of counted values."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["percentile"]


def percentile(counts: Mapping[float, int], share: float) -> float | None:
    """Returns the smallest value that at least `share` of all values do not exceed; None if there are no values.

    Args:
        counts: Value → how often it occurs.
        share: 0 to 1.
    """
    total, seen = sum(counts.values()), 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= share * total:
            return value
    return None
