"""Which action needs which right, and the caller who asks for it.

The page, the REST interface and the command line ask here and nowhere else. A function of core that changes something
takes a `Caller`, calls `require` first, and writes one line into the audit trail.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from core.errors import AccessRefused

__all__ = [
    "RIGHTS",
    "RIGHTS_OF_SCOPE",
    "RIGHT_OF",
    "RIGHT_TO_SEE",
    "Action",
    "Caller",
    "Right",
    "Role",
    "TokenScope",
    "View",
    "local_caller",
    "require",
    "require_right",
    "system_caller",
]

Role = Literal["viewer", "operator", "admin"]
"""Of a user, the lowest first."""
TokenScope = Literal["read", "send", "admin"]
"""Of a token."""
Right = Literal["read", "send", "change", "admin"]
"""`send`: messages by hand, tests, runs. `change`: jobs. `admin`: users, tokens, settings."""

RIGHTS: Mapping[Role, frozenset[Right]] = {
    "viewer": frozenset({"read"}),
    "operator": frozenset({"read", "send", "change"}),
    "admin": frozenset({"read", "send", "change", "admin"}),
}
RIGHTS_OF_SCOPE: Mapping[TokenScope, frozenset[Right]] = {
    "read": frozenset({"read"}),
    "send": frozenset({"read", "send"}),
    "admin": RIGHTS["admin"],
}

Action = Literal[
    "run", "dry_run", "replay", "backfill", "pause backfill", "resume backfill", "cancel backfill", "cancel", "stop", "send", "test", "test mail", "test channel", "preview",
    "acknowledge", "silence", "end silence", "note",
    "create", "change", "delete", "enable", "disable", "save", "accept-columns", "watermark",
    "rename query", "delete query", "restore", "reset offsets",
    "connections", "settings", "service", "alerts", "secret", "rebuild", "roll up", "accounts", "demo",
]  # fmt: skip
RIGHT_OF: Mapping[Action, Right] = {
    "run": "send",
    "dry_run": "send",
    "replay": "send",
    "backfill": "send",
    "pause backfill": "send",
    "resume backfill": "send",
    "cancel backfill": "send",
    "cancel": "send",
    "send": "send",
    "test": "send",
    "test mail": "send",
    "test channel": "send",
    "acknowledge": "send",
    "silence": "send",
    "end silence": "send",
    "note": "send",
    "preview": "send",
    "create": "change",
    "change": "change",
    "delete": "change",
    "enable": "change",
    "disable": "change",
    "save": "change",
    "accept-columns": "change",
    "watermark": "change",
    "rename query": "change",
    "delete query": "change",
    "restore": "change",
    "reset offsets": "admin",
    "stop": "admin",
    "connections": "admin",
    "settings": "admin",
    "service": "admin",
    "alerts": "admin",
    "secret": "admin",
    "rebuild": "admin",
    "roll up": "admin",
    "accounts": "admin",
    "demo": "admin",
}
"""Every action, and the right that it needs. `create`, `change` and `delete` are of jobs; `save` is of an SQL file.

`reset offsets` makes an application of others read again or leave out, so operators may not do it.
`restore` is of a deleted job or SQL file; a deleted connection is brought back by `connections`.
"""

View = Literal["rejected rows", "exported files", "messages", "log", "administration"]
RIGHT_TO_SEE: Mapping[View, Right] = {
    "rejected rows": "send",
    "exported files": "send",
    "messages": "send",
    "log": "send",
    "administration": "admin",
}
"""What is not shown to every user: reading it changes nothing, so it is no action and is not audited. `messages` are those
of any topic, as its cluster's account may read them."""

_NEEDED: Mapping[Right, str] = {
    "read": "it needs a viewer, or a token that may read",
    "send": "it needs an operator, or a token that may send",
    "change": "it needs an operator, or a token of scope admin",
    "admin": "it needs an admin",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """The user, program or rule that asks for an action."""

    name: str
    """As it is stored in the audit trail."""
    rights: frozenset[Right]
    role: Role | None = None
    """None: a program with a token."""
    is_local: bool = False
    """There are no users, so the caller did not have to sign in."""

    def may(self, action: Action) -> bool:
        """Returns whether the caller has the right that the action needs."""
        return RIGHT_OF[action] in self.rights


def require(caller: Caller, action: Action) -> None:
    """Refuses an action for which the caller has no right.

    Raises:
        AccessRefused: The text says which right is missing.
    """
    require_right(caller, RIGHT_OF[action])


def require_right(caller: Caller, right: Right) -> None:
    """Refuses a caller without that right.

    Raises:
        AccessRefused: The text says which right is missing.
    """
    if right not in caller.rights:
        raise AccessRefused(f"{caller.name} may not do this", why=_NEEDED[right], remedy="ask an admin for the right")


def local_caller() -> Caller:
    """Returns the account that runs this process, with every right: the command line, and a page without users."""
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a service account without a name
        name = "local"
    return Caller(name, RIGHTS["admin"], "admin", is_local=True)


def system_caller(name: str) -> Caller:
    """Returns the caller of what PSTT Kafka does by itself, such as an alert rule that disables a job."""
    return Caller(name, RIGHTS["operator"])
