"""Who looks at the page, and what that person may do."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from typing import Literal

from ui.language import t

__all__ = ["Role", "Visitor", "may", "role_word", "visitor"]

Role = Literal["viewer", "operator", "admin"]
_RANK: dict[Role, int] = {"viewer": 0, "operator": 1, "admin": 2}


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who is signed in."""

    name: str
    role: Role
    is_local: bool = False
    """Nobody has to sign in: there are no users, and the page listens on this machine only."""


def visitor() -> Visitor:
    """Who looks at the page. Without users everybody at this machine is an admin."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a service account without a name
        name = "local"
    return Visitor(name, "admin", is_local=True)


def role_word(role: Role) -> str:
    """The role in the reader's language."""
    return {"viewer": t("viewer"), "operator": t("operator"), "admin": t("admin")}[role]


def may(role: Role) -> bool:
    """Whether the visitor has that role, or a higher one."""
    return _RANK[visitor().role] >= _RANK[role]
