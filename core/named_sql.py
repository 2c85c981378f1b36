"""SQL kept in `.sql` files: each statement stands under a line `-- name: what_it_is_called`."""

from __future__ import annotations

import re
from importlib import resources

__all__ = ["load_named_sql"]


def load_named_sql(file_name: str) -> dict[str, str]:
    """Reads a `.sql` file of this package: name → statement."""
    text = resources.files("core").joinpath(file_name).read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\s*$", text, flags=re.MULTILINE)[1:]
    return {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}
