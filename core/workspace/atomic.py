"""Writes files atomically: a reader sees the old content or the new, never a part."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from core.errors import StorageFailed

__all__ = ["replace_file", "write_atomically"]


def write_atomically(file: Path, content: str | bytes, *, private: bool = False) -> None:
    """Writes a temporary file, syncs it to disk and renames it.

    Args:
        file: Its final path; a missing folder is created.
        content: Text is written as UTF-8.
        private: Readable by this account only (POSIX; on Windows the permissions of the folder apply).

    Raises:
        StorageFailed: The disk is full or the folder is not writable; the old file is unchanged.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    temporary: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".tmp")
        temporary = Path(name)
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        if not private:
            temporary.chmod(0o644)
        replace_file(temporary, file)
    except OSError as error:
        raise StorageFailed(
            f"{file} cannot be written",
            why=error.strerror or str(error),
            remedy="check the disk and the folder's permissions",
        ) from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def replace_file(temporary: Path, file: Path) -> None:
    """Renames a file over another one.

    Tries again for 1.6 s: Windows refuses while another program, often a virus scanner, has the file open.
    """
    for wait_s in (0.05, 0.1, 0.2, 0.4, 0.8):
        try:
            temporary.replace(file)
            return
        except PermissionError:
            time.sleep(wait_s)
    temporary.replace(file)
