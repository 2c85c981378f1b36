"""Round numbers for the axes of charts."""

from __future__ import annotations

import math

__all__ = ["round_steps"]

MOST_STEPS = 5
_FACTORS = (1.0, 2.0, 2.5, 5.0, 10.0)
_WHOLE_FACTORS = (1.0, 2.0, 5.0, 10.0)


def round_steps(highest: float, *, whole: bool = False) -> list[float]:
    """Returns 0 and the steps above it: at most five, round, and the last not below `highest`.

    Args:
        highest: The largest value that is drawn; 0 or less is taken as 1.
        whole: Steps are whole numbers, for counts.
    """
    value = highest if highest > 0 else 1.0
    power = 10.0 ** math.floor(math.log10(value / MOST_STEPS))
    if whole:
        power = max(power, 1.0)
    factors = _WHOLE_FACTORS if whole and power < 10 else _FACTORS
    # A hair less: 0.3 / 0.1 is more than 3 in binary numbers.
    step = next(power * factor for factor in factors if value / (power * factor) <= MOST_STEPS + 1e-9)
    count = max(math.ceil(value / step - 1e-9), 1)
    return [round(step * index, 10) for index in range(count + 1)]
