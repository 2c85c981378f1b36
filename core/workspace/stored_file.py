"""A file of the workspace as read from disk, with the hash that detects a change made meanwhile."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError

__all__ = ["StoredFile", "read_stored"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as it stands on disk."""

    path: Path
    content: bytes
    sha256: str
    """Empty: there is no such file."""

    @property
    def text(self) -> str:
        """For people: what is no UTF-8 is read as Windows-1252, as the query's reader does."""
        try:
            return self.content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return self.content.decode("cp1252", "replace")


def read_stored(path: Path) -> StoredFile:
    """A file of the workspace; one that is not there is empty.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return StoredFile(path, b"", "")
    except OSError as error:
        raise ConfigError("the file cannot be read", why=error.strerror or str(error), file=path) from None
    return StoredFile(path, content, hashlib.sha256(content).hexdigest())
