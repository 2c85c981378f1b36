"""Secrets by reference: `env:NAME`, `file:PATH`, `keyring:SERVICE/USER`. A literal secret works; `check` warns about it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.errors import ConfigError
from core.model.connection import Secret
from core.workspace.atomic import write_atomically
from core.workspace.paths import Workspace

__all__ = ["is_reference", "resolve_secret", "store_secret"]


def is_reference(text: str) -> bool:
    """Returns whether a text refers to a secret instead of being one."""
    return text.startswith(("env:", "file:", "keyring:"))


def resolve_secret(text: str, variables: Mapping[str, str], root: Path) -> Secret:
    """Returns the secret that a reference points to.

    Args:
        text: A reference, or the secret itself.
        variables: The environment and the entries of `.env`.
        root: The workspace, for `file:` with a relative path.

    Raises:
        ConfigError: It cannot be read. The message names the reference, never a value.
    """
    kind, _, name = text.partition(":")
    if kind == "env":
        if not variables.get(name):
            raise ConfigError(f"the variable of {text} is not set", remedy=f"set {name} in the environment or in .env")
        return Secret(variables[name])
    if kind == "file":
        return _from_file(text, root / name)
    if kind == "keyring":
        return _from_keyring(text, name)
    return Secret(text)


def store_secret(reference: str, value: str, workspace: Workspace) -> None:
    """Stores a secret in the keyring of this account, or in a file of the workspace that only this account may read.

    Args:
        reference: `keyring:SERVICE/USER` or `file:PATH`.
        value: The secret, one line.
        workspace: Where the file is.

    Raises:
        ConfigError: The reference is `env:` or leads out of the workspace, or there is no keyring. Never names the value.
        StorageFailed: The file cannot be written.
    """
    kind, _, name = reference.partition(":")
    if not value or "\n" in value or "\r" in value:
        raise ConfigError("a secret is one line and not empty", remedy="write it again")
    if kind == "file":
        write_atomically(workspace.inside(name), value + "\n", private=True)
    elif kind == "keyring":
        _into_keyring(reference, name, value)
    else:
        raise ConfigError(
            f"a secret cannot be stored as {reference}",
            why="variables belong to the environment in which the runner is started",
            remedy="use file:secrets/NAME or keyring:SERVICE/USER, or set the variable there",
        )


def _into_keyring(reference: str, name: str, value: str) -> None:
    import keyring
    from keyring.errors import KeyringError

    service, slash, user = name.partition("/")
    if not slash or not service or not user:
        raise ConfigError(f"{reference} is not keyring:SERVICE/USER", remedy="write keyring:pstt/bosc")
    try:
        keyring.set_password(service, user, value)
    except (KeyringError, RuntimeError) as error:
        raise ConfigError(
            f"{reference} cannot be written",
            why=type(error).__name__,
            remedy="this account has no keyring: use file:secrets/NAME",
        ) from None


def _from_file(reference: str, path: Path) -> Secret:
    try:
        value = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(
            f"the file of {reference} cannot be read", why=why, remedy="make the file with the secret in it"
        ) from None
    if not value:
        raise ConfigError(f"the file of {reference} is empty", remedy="write the secret into it")
    return Secret(value)


def _from_keyring(reference: str, name: str) -> Secret:
    import keyring
    from keyring.errors import KeyringError

    service, slash, user = name.partition("/")
    if not slash or not service or not user:
        raise ConfigError(f"{reference} is not keyring:SERVICE/USER", remedy="write keyring:pstt/bosc")
    try:
        value = keyring.get_password(service, user)
    except (KeyringError, RuntimeError) as error:
        raise ConfigError(
            f"{reference} cannot be read",
            why=type(error).__name__,
            remedy="this account has no keyring: use env: or file:",
        ) from None
    if not value:
        raise ConfigError(
            f"{reference} is not in the keyring of this account", remedy=f"python -m keyring set {service} {user}"
        )
    return Secret(value)
