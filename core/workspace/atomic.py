"""Writes a file atomically: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from core.errors import StorageFailed

__all__ = ["replace_file", "write_whole"]


def write_whole(file: Path, content: str | bytes, *, private: bool = False) -> None:
    """Writes a file aside and renames it: a reader sees the old one or the new one, never a half.

    Args:
        file: Its final name; the folder is made when it is not there.
        content: Text is written as UTF-8.
        private: Readable by this account only (POSIX; on Windows the folder's rights apply).

    Raises:
        StorageFailed: The disk is full, or the folder may not be written; the old file is untouched.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    aside: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
        aside = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if not private:
            aside.chmod(0o644)
        replace_file(aside, file)
    except OSError as error:
        raise StorageFailed(
            f"{file} cannot be written",
            why=error.strerror or str(error),
            remedy="check the disk and the folder's permissions",
        ) from None
    finally:
        if aside is not None:
            with suppress(OSError):
                aside.unlink(missing_ok=True)


def replace_file(aside: Path, file: Path) -> None:
    """Windows refuses while somebody, often a virus scanner, has the file open for a moment."""
    for wait_s in (0.05, 0.1, 0.2, 0.4, 0.8):
        try:
            aside.replace(file)
            return
        except PermissionError:
            time.sleep(wait_s)
    aside.replace(file)
