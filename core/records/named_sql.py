"""SQL kept in `.sql` files: each statement stands under a line `-- name: what_it_is_called`.

A word in braces is another statement of the same file.
"""

from __future__ import annotations

import re
from importlib import resources

__all__ = ["load_named_sql"]


def load_named_sql(file_name: str) -> dict[str, str]:
    """Reads a `.sql` file of this package: name → statement, those that stand in braces put in."""
    text = resources.files("core.records").joinpath(file_name).read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\s*$", text, flags=re.MULTILINE)[1:]
    sql = {name: part.strip() for name, part in zip(parts[::2], parts[1::2], strict=True)}

    def put_in(part: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: put_in(sql[found[1]]) if found[1] in sql else found[0], part)

    return {name: put_in(part) for name, part in sql.items()}
