"""SQL in `.sql` files: each statement follows a line `-- name: its_name`.

A name in braces is replaced by that statement of the same file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources

__all__ = ["load_named_sql"]


@cache
def load_named_sql(file_name: str) -> Mapping[str, str]:
    """Returns name → statement of a `.sql` file of this package, with its `{name}` fragments expanded.

    A file is read once in a process: the page and REST open the ledger for each request.
    """
    text = resources.files("core.records").joinpath(file_name).read_text(encoding="utf-8")
    parts = re.split(r"^-- name: (\w+)\s*$", text, flags=re.MULTILINE)[1:]
    sql = {name: part.strip() for name, part in zip(parts[::2], parts[1::2], strict=True)}

    def expanded(part: str) -> str:
        return re.sub(r"\{(\w+)\}", lambda found: expanded(sql[found[1]]) if found[1] in sql else found[0], part)

    return {name: expanded(part) for name, part in sql.items()}
