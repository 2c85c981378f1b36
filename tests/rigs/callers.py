"""Callers of core for tests."""

from core.records.rights import RIGHTS, Caller, Role

__all__ = ["caller"]


def caller(name: str, role: Role = "admin") -> Caller:
    """A signed-in user of that role."""
    return Caller(name, RIGHTS[role], role)
