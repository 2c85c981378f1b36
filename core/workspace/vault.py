"""Secrets of HashiCorp Vault: `vault:PATH#KEY`, read from the KV engine, version 2, with the library hvac.

The variables are those of Vault's own programs (VAULT_ADDR, VAULT_TOKEN, VAULT_NAMESPACE, VAULT_CACERT, …), from the
environment or from `.env`; VAULT_ROLE_ID and VAULT_SECRET_ID are for a login by AppRole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.errors import ConfigError, NotAuthorised, PsttError, SecretUnavailable
from core.model.connection import Secret

__all__ = ["VaultServer", "check_vault_reference", "read_vault"]

TIMEOUT_S = 10.0
"""For each request, where VAULT_CLIENT_TIMEOUT is not set. A Vault answers in some milliseconds."""
LOOPBACK = ("127.0.0.1", "::1", "localhost")
EARLY_S = 10.0
"""A token of AppRole is not used any more for that long before it expires."""

_tokens: dict[VaultServer, tuple[str, float]] = {}
"""Server with its AppRole → the token, and when it expires (`time.monotonic`): a secret id may be limited in its uses."""
_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class VaultServer:
    """Where the vault is and how to log in there. The token, or the role and its secret id, is set."""

    address: str
    namespace: str = ""
    ca_file: str = ""
    """PEM; empty: the authorities that `requests` trusts."""
    client_cert: str = ""
    client_key: str = ""
    token: Secret | None = None
    role_id: str = ""
    secret_id: Secret | None = None
    approle_mount: str = "approle"
    kv_mount: str = ""
    """Path of the KV engine; empty: the first part of each reference's path."""
    timeout_s: float = TIMEOUT_S

    @classmethod
    def of(cls, variables: Mapping[str, str], root: Path, resolve: Callable[[str], Secret]) -> VaultServer:
        """Returns the server that the variables describe.

        Args:
            variables: The environment and the entries of `.env`.
            root: The workspace, for relative paths.
            resolve: Resolves references: VAULT_TOKEN and VAULT_SECRET_ID may be `file:PATH`, which an agent renews.

        Raises:
            ConfigError: The address or the login is not set, or the address is not encrypted.
        """
        token, role = variables.get("VAULT_TOKEN", ""), variables.get("VAULT_ROLE_ID", "")
        secret = variables.get("VAULT_SECRET_ID", "")
        address = _checked_address(variables.get("VAULT_ADDR", ""))
        if not token and not (role and secret):
            raise ConfigError(
                "there is no login for the vault",
                why="neither VAULT_TOKEN nor VAULT_ROLE_ID with VAULT_SECRET_ID is set",
                remedy="set one of them in the environment or in .env; both may be file:PATH",
            )
        ca_file, certificate, key = (
            str(root / variables[name]) if variables.get(name) else ""
            for name in ("VAULT_CACERT", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY")
        )
        for name, path in (("VAULT_CACERT", ca_file), ("VAULT_CLIENT_CERT", certificate), ("VAULT_CLIENT_KEY", key)):
            if path and not Path(path).is_file():
                raise ConfigError(f"the file of {name} is not there", why=path, remedy=f"correct {name}")
        return cls(
            address,
            variables.get("VAULT_NAMESPACE", ""),
            ca_file,
            certificate,
            key,
            resolve(token) if token else None,
            role,
            resolve(secret) if secret else None,
            variables.get("VAULT_APPROLE_MOUNT") or "approle",
            variables.get("VAULT_KV_MOUNT", "").strip("/"),
            _seconds(variables.get("VAULT_CLIENT_TIMEOUT", "")),
        )


def check_vault_reference(reference: str) -> tuple[str, str]:
    """Returns path and key of `vault:PATH#KEY`. Raises ConfigError if it is written otherwise."""
    path, hash_sign, key = reference.removeprefix("vault:").rpartition("#")
    path = path.strip("/")
    if not hash_sign or not key or "/" not in path:
        raise ConfigError(
            f"{reference} is not vault:PATH#KEY", remedy="write vault:secret/pstt/bosc#password: mount, path and key"
        )
    return path, key


def read_vault(reference: str, server: VaultServer) -> Secret:
    """Returns the newest version of a secret.

    Args:
        reference: `vault:PATH#KEY`; the first part of the path is the mount of the KV engine.
        server: Where it is read.

    Raises:
        ConfigError: hvac is not installed, the path or the key does not exist, or another program answers.
        NotAuthorised: The login is refused, or may not read the path.
        SecretUnavailable: The vault does not answer, or is sealed.
    """
    path, key = check_vault_reference(reference)
    mount, _, below = path.partition("/")
    if server.kv_mount:
        mount, below = server.kv_mount, path.removeprefix(f"{server.kv_mount}/")
    try:
        found = _read(server, reference, mount, below)
    except PsttError:
        raise
    except Exception as error:  # noqa: BLE001 - hvac's and requests' classes are known only when they are imported
        raise _translated(error, reference, server) from None
    value = found.get(key)
    if not isinstance(value, str | int | float) or isinstance(value, bool) or value == "":
        known = ", ".join(sorted(found)) or "no key"
        raise ConfigError(f'{reference}: there is no text under the key "{key}"', why=f"the path has {known}")
    return Secret(str(value))


def _read(server: VaultServer, reference: str, mount: str, path: str) -> Mapping[str, Any]:
    """Returns the keys of a path. A token of AppRole that was revoked meanwhile is replaced once."""
    try:
        from hvac.exceptions import Forbidden
    except ImportError:
        raise ConfigError(
            f"{reference} cannot be read",
            why="the library hvac is not installed",
            remedy="pip install -r requirements-vault.txt",
        ) from None
    is_old = server.token is None and server in _tokens
    try:
        return _ask(server, reference, mount, path)
    except Forbidden:
        if not is_old:
            raise
        with _lock:
            _tokens.pop(server, None)
        return _ask(server, reference, mount, path)


def _ask(server: VaultServer, reference: str, mount: str, path: str) -> Mapping[str, Any]:
    import hvac
    import requests

    certificate = (server.client_cert, server.client_key or server.client_cert) if server.client_cert else None
    with requests.Session() as session:
        session.verify = server.ca_file or True  # hvac prefers that of a session to the one that it is given
        client = hvac.Client(
            url=server.address,
            token="",
            namespace=server.namespace or None,
            cert=certificate,
            timeout=server.timeout_s,
            session=session,
            allow_redirects=False,  # a redirect would take the token to another server
        )
        client.token = _token(server, client)
        answer = client.secrets.kv.v2.read_secret_version(path=path, mount_point=mount, raise_on_deleted_version=True)
    try:
        found: Any = answer["data"]["data"]
    except (KeyError, TypeError, AttributeError):
        found = None
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{reference} cannot be read",
            why=f"what answers at {server.address} is not a Vault with a KV engine of version 2 at {mount}/",
            remedy="correct VAULT_ADDR, or the mount in the reference",
        )
    return found


def _token(server: VaultServer, client: Any) -> str:
    """Returns VAULT_TOKEN, or a token for the AppRole, which is kept until it expires."""
    if server.token is not None:
        return server.token.reveal()
    with _lock:
        token, expires_at_s = _tokens.get(server, ("", 0.0))
        if token and time.monotonic() < expires_at_s - EARLY_S:
            return token
        secret_id = server.secret_id.reveal() if server.secret_id else ""
        answer = client.auth.approle.login(server.role_id, secret_id, mount_point=server.approle_mount)
        try:
            token, lasts_s = str(answer["auth"]["client_token"]), float(answer["auth"]["lease_duration"])
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                "the vault has no answer to the login by AppRole",
                why=f"what answers at {server.address} is not a Vault",
                remedy="correct VAULT_ADDR",
            ) from None
        _tokens[server] = token, time.monotonic() + (lasts_s or float("inf"))
        return token


def _translated(error: Exception, reference: str, server: VaultServer) -> PsttError:
    """Returns our error for one of hvac or requests. Their texts are left out: they may quote what was sent."""
    from hvac import exceptions
    from requests import exceptions as http

    what = f"{reference} cannot be read"
    login = "VAULT_TOKEN" if server.token is not None else "VAULT_ROLE_ID and VAULT_SECRET_ID"
    if isinstance(error, exceptions.InvalidPath):
        remedy = "correct the path: it begins with the mount, as in `vault kv get`"
        parts = reference.split("/")
        return ConfigError(
            what,
            why="the vault has no such path, or its newest version is deleted",
            remedy=f"{remedy}, without data/" if parts[1:2] == ["data"] else remedy,
        )
    if isinstance(error, exceptions.Forbidden | exceptions.Unauthorized):
        return NotAuthorised(what, why="the vault denies it", remedy=f"check {login} and the policy of that login")
    if isinstance(error, exceptions.InvalidRequest):
        return NotAuthorised(what, why="the vault refuses the login or the request", remedy=f"check {login}")
    if isinstance(error, http.SSLError):
        return NotAuthorised(
            what, why=f"{server.address} cannot be trusted", remedy="set VAULT_CACERT to the vault's authority"
        )
    if isinstance(error, OSError) and not isinstance(error, http.RequestException):
        return ConfigError(what, why="a TLS file of the vault cannot be used", remedy="check VAULT_CACERT")
    if isinstance(error, http.Timeout):
        why = f"{server.address} did not answer within {server.timeout_s:g} s"
    elif isinstance(error, exceptions.VaultDown):
        why = f"the vault at {server.address} is sealed or on standby"
    elif isinstance(error, http.ConnectionError):
        why = f"nothing answers at {server.address}"
    else:
        why = f"the vault at {server.address} failed ({type(error).__name__})"
    return SecretUnavailable(what, why=why, remedy="check the vault, or correct VAULT_ADDR")


def _checked_address(address: str) -> str:
    """Returns the address. Raises ConfigError if it is missing or would send the token in clear text over a network."""
    parts = urlsplit(address)
    if not address or parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "the address of the vault is not set" if not address else "VAULT_ADDR is not an address",
            remedy="set VAULT_ADDR to https://HOST:8200 in the environment or in .env",
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise ConfigError(
            "VAULT_ADDR is not encrypted",
            why="the token and each secret would go over the network in clear text",
            remedy="write https://, with VAULT_CACERT for an authority of your own",
        )
    return address.rstrip("/")


def _seconds(text: str) -> float:
    """Returns VAULT_CLIENT_TIMEOUT in seconds: `30` or `30s`."""
    try:
        seconds = float(text.removesuffix("s")) if text else TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 600:
        raise ConfigError("VAULT_CLIENT_TIMEOUT is no number of seconds", remedy="write 10s")
    return seconds
