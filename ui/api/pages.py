"""Pagination of lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query

__all__ = ["MOST_ROWS", "Limit", "Offset", "page"]

MOST_ROWS = 500
FARTHEST = 1_000_000_000

Limit = Annotated[int, Query(ge=1, le=MOST_ROWS, description="Rows a page.")]
Offset = Annotated[int, Query(ge=0, le=FARTHEST, description="Rows on the pages before.")]


def page(rows: Sequence[Any], limit: int, offset: int) -> dict[str, Any]:
    """Returns one page of rows that are all in memory."""
    return {"items": rows[offset : offset + limit], "total": len(rows), "limit": limit, "offset": offset}
