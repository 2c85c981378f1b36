"""Secrets by reference: `env:NAME`, `file:PATH`, `keyring:SERVICE/USER`, `vault:PATH#KEY`, `exec:COMMAND`.

A literal secret works; `check` warns about it. A secret is read each time that it is needed, so that the next run uses
one that was rotated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.errors import ConfigError
from core.model.connection import UNREAD, Secret
from core.workspace.atomic import write_atomically
from core.workspace.paths import Workspace
from core.workspace.secret_commands import allowed_command, read_command
from core.workspace.vault import VaultServer, check_vault_reference, read_vault

__all__ = ["REFERENCES", "is_reference", "is_remote", "resolve_secret", "store_secret"]

REFERENCES = "env:NAME, file:PATH, keyring:SERVICE/USER, vault:PATH#KEY or exec:COMMAND"
"""As a remedy names them."""
_KINDS = ("env:", "file:", "keyring:", "vault:", "exec:")
_REMOTE = ("vault:", "exec:")
_NEVER_STORED_IN = (".env", "connections.json", "alerts.json", ".pstt", ".streamlit", "queries")
"""The page stores a secret in a file that its user names: that must be none that this program obeys."""


def is_reference(text: str) -> bool:
    """Returns whether a text refers to a secret instead of being one."""
    return text.startswith(_KINDS)


def is_remote(text: str) -> bool:
    """Returns whether a secret is read from a vault or a command, which takes time and may not answer."""
    return text.startswith(_REMOTE)


def resolve_secret(text: str, variables: Mapping[str, str], root: Path, *, contact: bool = True) -> Secret:
    """Returns the secret that a reference points to.

    Args:
        text: A reference, or the secret itself.
        variables: The environment and the entries of `.env`.
        root: The workspace, for `file:` with a relative path.
        contact: False: a vault is not contacted and no command is run; their settings are checked, and UNREAD is
            returned.

    Raises:
        ConfigError: It cannot be read. The message names the reference, never a value.
        NotAuthorised: The vault refuses the login, or denies the path.
        SecretUnavailable: The vault or the command does not answer.
    """
    if is_remote(text):
        return _from_remote(text, variables, root, contact=contact)
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
        ConfigError: The reference is no file or keyring, leads out of the workspace or to a file that this program obeys,
            or there is no keyring. Never names the value.
        StorageFailed: The file cannot be written.
    """
    kind, _, name = reference.partition(":")
    if not value or "\n" in value or "\r" in value:
        raise ConfigError("a secret is one line and not empty", remedy="write it again")
    if kind == "file":
        write_atomically(_place_for(name, workspace), value + "\n", private=True)
    elif kind == "keyring":
        _into_keyring(reference, name, value)
    else:
        raise ConfigError(
            f"a secret cannot be stored as {reference}",
            why="this program writes files and the keyring only",
            remedy="use file:secrets/NAME or keyring:SERVICE/USER, or set it where it is: environment, vault or command",
        )


def _place_for(name: str, workspace: Workspace) -> Path:
    """Returns the path of a secret's file. Refuses files that this program obeys, such as `.env`."""
    path = workspace.inside(name)
    first = path.resolve().relative_to(workspace.root.resolve()).parts[:1]
    # Windows: upper case, dots and spaces at the end, and streams (".env::$DATA") name the same file.
    if not first or first[0].partition(":")[0].rstrip(". ").lower() in _NEVER_STORED_IN:
        raise ConfigError(f"a secret cannot be stored in {name}", remedy="use file:secrets/NAME")
    return path


def _from_remote(text: str, variables: Mapping[str, str], root: Path, *, contact: bool) -> Secret:
    if text.startswith("exec:"):
        if contact:
            return read_command(text, variables, root)
        allowed_command(text, variables)
        return UNREAD
    check_vault_reference(text)
    # A token of the vault that is itself in the vault could never be read.
    server = VaultServer.of(variables, root, lambda other: _login(other, variables, root))
    return read_vault(text, server) if contact else UNREAD


def _login(text: str, variables: Mapping[str, str], root: Path) -> Secret:
    if is_remote(text):
        raise ConfigError("the login of the vault cannot be in a vault or a command", remedy="use file:PATH")
    return resolve_secret(text, variables, root)


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
