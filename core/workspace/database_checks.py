"""Checks of an entry of `connections`: keys that are missing, contradict each other, or would undo a protection."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from core.model.dialect import ConnectionRules, Dialect
from core.sources import database_types, find_dialect
from core.workspace.secrets import is_reference

__all__ = ["FILE_KEYS", "FOLDER_KEYS", "REFERENCE_KEYS", "entry_problems", "foreign_keys"]

FILE_KEYS = ("sslrootcert", "sslcert", "sslkey", "service_file", "passfile")
"""Keys whose value is a file, absolute or below the workspace."""
FOLDER_KEYS = ("config_dir", "wallet_location", "client_dir")
REFERENCE_KEYS = ("sslpassword", "wallet_password")
"""Secrets that have to be references."""
_SECRET_NAME = re.compile(r".*(password|passwd|passphrase|pwd|secret|token|credential).*")
_OPTION_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ ]*")

Problem = tuple[str, str, str]
"""The key that a problem belongs to (empty: the whole entry), what it is, and its remedy."""


def foreign_keys(dialect: Dialect) -> frozenset[str]:
    """Returns the keys that other databases have and this one does not."""
    others = frozenset[str]().union(*(find_dialect(name).connection.own for name in database_types()))
    return others - frozenset(dialect.connection.own)


def entry_problems(entry: Any, dialect: Dialect) -> Iterator[Problem]:
    """Yields every problem of an entry whose keys and types are valid.

    Args:
        entry: Has the keys as attributes, paths and secrets as the file has them.
        dialect: The rules of its database.
    """
    rules = dialect.connection
    yield from _missing(entry, rules)
    for key in sorted(foreign_keys(dialect)):
        if getattr(entry, key):
            yield key, f'"{key}" is not a key of {dialect.title}', "remove it"
    for key in REFERENCE_KEYS:
        if (value := getattr(entry, key)) and not is_reference(value):
            yield (
                key,
                f'"{key}" is written in the file itself',
                f'write "{key}": "env:NAME", "file:PATH" or "keyring:…"',
            )
    yield from rules.problems(entry)
    yield from _options(entry.options, rules)


def _missing(entry: Any, rules: ConnectionRules) -> Iterator[Problem]:
    spared = {key for given, keys in rules.instead.items() if getattr(entry, given) for key in keys}
    for key in rules.required:
        if not getattr(entry, key) and key not in spared:
            yield "", f'needs "{key}"', f'add "{key}": …'
    choices = rules.exactly_one_of
    if choices and sum(bool(getattr(entry, key)) for key in choices) != 1:
        keys = " or ".join(f'"{key}"' for key in choices)
        yield "", f"needs {keys}", "give exactly one of them"


def _options(options: Mapping[str, Any], rules: ConnectionRules) -> Iterator[Problem]:
    for name, value in options.items():
        lower = name.strip().lower()
        if not _OPTION_NAME.fullmatch(name):
            yield "options", f"options: {name[:40]!r} is no name of a setting", "write letters, digits, _ and blanks"
        elif _SECRET_NAME.fullmatch(lower):
            yield "options", f"options may not have {name}: a secret would be in the file", _KEY_OF_ITS_OWN
        elif isinstance(value, str) and "\0" in value:
            yield "options", f"options: the value of {name} has a NUL character", "remove it"
        else:
            why = next((why for pattern, why in rules.refused_options if pattern.fullmatch(lower)), "")
            if why:
                yield "options", f"options may not have {name}: {why}", f"remove {name} from options"


_KEY_OF_ITS_OWN = "write it as a reference under the key that the connection has for it"
