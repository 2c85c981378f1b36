"""The lines of users and tokens for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from core.cli.output import said
from core.cli.render import table_lines
from core.language import Data
from core.records.accounts import AccessToken, User

__all__ = ["token_lines", "user_lines"]


def user_lines(users: Sequence[User]) -> list[str]:
    """Returns a table of the users; without any, who may use the page."""
    names = [said("name"), said("role"), said("e-mail"), said("signs in by"), said("last sign-in")]
    rows = [
        [Data(u.name), u.role, Data(u.email or ""), "password" if u.has_password else "OIDC", _day(u.last_sign_in_at)]
        for u in users
    ]
    lines = table_lines(names, rows)
    if not users:
        lines.append("no users yet: everybody at this machine is an admin, and no other machine has access")
    return lines


def token_lines(tokens: Sequence[AccessToken], now: datetime) -> list[str]:
    """Returns a table of the tokens with their state at `now`; secrets are not stored."""
    names = [
        said("id"),
        said("name"),
        said("scope"),
        said("state"),
        said("expires"),
        said("last used"),
        said("made by"),
    ]
    return table_lines(
        names,
        [
            [
                Data(t.token_id),
                Data(t.name),
                t.scope,
                t.state(now),
                _day(t.expires_at),
                _day(t.last_used_at),
                Data(t.created_by),
            ]
            for t in tokens
        ],
    )


def _day(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d}" if moment else ""
