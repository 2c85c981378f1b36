"""`schema_registry` of connections.json: of one cluster, or beside `connections` for every cluster without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from core.errors import ConfigError
from core.model.connection import SchemaRegistry, Secret
from core.workspace.json_file import JsonFile
from core.workspace.validation import StrictModel, completed_from

__all__ = ["REGISTRY_PATHS", "REGISTRY_SECRETS", "RegistryEntry", "registry_of"]

REGISTRY_SECRETS = ("password", "bearer_token", "ssl_key_password")
REGISTRY_PATHS = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
Position = tuple[str | int, ...]


def _url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("give the address of a registry; write https://registry.example.it:8081")
    if "@" in parts.netloc:
        raise ValueError("an address has no password in it; write username and password as keys of their own")
    return text.rstrip("/")


@completed_from(SchemaRegistry)
class RegistryEntry(StrictModel):
    """The entry as the file has it: secrets are references, paths are texts."""

    url: Annotated[str, AfterValidator(_url)]
    password: Annotated[str | None, Field(repr=False)]
    bearer_token: Annotated[str | None, Field(repr=False)]
    ssl_cafile: str | None
    ssl_certfile: str | None
    ssl_keyfile: str | None
    ssl_key_password: Annotated[str | None, Field(repr=False)]
    timeout_s: Annotated[float, Field(gt=0, le=600, strict=False)]


def registry_of(
    entry: dict[str, Any],
    position: Position,
    file: JsonFile,
    *,
    secret: Callable[[str | None, Position, str], Secret | None],
    existing: Callable[[str, Position], Path],
) -> SchemaRegistry:
    """Returns a registry with its secrets resolved.

    Args:
        entry: Its keys, checked already.
        position: Where in the file it is.
        file: connections.json.
        secret: Resolves a reference.
        existing: Returns the path of a file that has to exist.

    Raises:
        ConfigError: Keys contradict each other, or a secret or a file cannot be read.
    """
    for what, remedy in _contradictions(entry):
        raise file.error(position, f"schema_registry: {what}", remedy=remedy)
    values = dict(entry)
    for key in REGISTRY_SECRETS:
        values[key] = secret(entry[key], (*position, key), "schema_registry")
    for key in REGISTRY_PATHS:
        values[key] = existing(entry[key], (*position, key)) if entry[key] else None
    token = values["bearer_token"]
    for given in (token, values["password"]):
        if given is not None and not given.reveal().isprintable():
            raise ConfigError("a secret of schema_registry is not one line of text", remedy="store it again")
    return SchemaRegistry(**values)


def _contradictions(entry: dict[str, Any]) -> list[tuple[str, str]]:
    found = []
    if entry["bearer_token"] and (entry["username"] or entry["password"]):
        found.append(("bearer_token and username exclude each other", "give one of them"))
    if entry["password"] and not entry["username"]:
        found.append(("a password needs a username", 'add "username"'))
    if bool(entry["ssl_certfile"]) != bool(entry["ssl_keyfile"]):
        found.append(("ssl_certfile and ssl_keyfile belong together", "give both or none"))
    if entry["url"].startswith("http:"):
        idle = [key for key in REGISTRY_PATHS if entry[key]]
        if idle:
            found.append((f"{idle[0]} is of no use with http", "write https:// in url"))
    return found
