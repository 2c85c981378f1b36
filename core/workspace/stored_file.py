"""A file of the workspace as it is on disk. Its hash shows whether it was changed since."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError

__all__ = ["StoredFile", "read_stored"]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """The content of a file, and its hash."""

    path: Path
    content: bytes
    sha256: str
    """Empty: the file does not exist."""

    @property
    def text(self) -> str:
        """The content as UTF-8, else as Windows-1252: the parser of queries reads files in the same way."""
        try:
            return self.content.decode("utf-8-sig")
        except UnicodeDecodeError:
            return self.content.decode("cp1252", "replace")


def read_stored(path: Path) -> StoredFile:
    """Reads a file; one that does not exist is returned empty.

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
