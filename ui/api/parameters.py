"""Parameters in the address of a request."""

from __future__ import annotations

from collections import Counter

from fastapi import Request

from core.errors import ConfigError

__all__ = ["require_once"]

SEVERAL = frozenset({"partition", "state"})
"""Those that may be given more than once."""


def require_once(request: Request) -> None:
    """Refuses a parameter that is given twice: one of its values would have no effect.

    Raises:
        ConfigError: With its name.
    """
    times = Counter(name for name, _ in request.query_params.multi_items() if name not in SEVERAL)
    twice = next((name for name, count in times.items() if count > 1), None)
    if twice is not None:
        raise ConfigError(
            f'the parameter "{twice[:60]}" is given more than once', remedy="give it once", key=twice[:60]
        )
