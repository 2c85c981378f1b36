"""Lock files: one process at a time does what another one must not do beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from core.errors import PsttError, StorageFailed

__all__ = ["locked"]


@contextmanager
def locked(file: Path, busy: Callable[[], PsttError], *, wait_s: float = 0) -> Iterator[None]:
    """Holds a lock file. The system releases it when the process ends, however it ends.

    Args:
        file: The lock file; it and its folder are created. It stays there afterwards.
        busy: Builds the error to raise while another process holds the lock.
        wait_s: How long to wait for the lock; -1 waits without limit.

    Raises:
        PsttError: What `busy` returns.
        StorageFailed: The lock file cannot be written.
    """
    lock = FileLock(file, timeout=wait_s)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise busy() from None
    except OSError as error:
        raise StorageFailed(
            f"{file.parent} cannot be written",
            why=error.strerror or str(error),
            remedy="check the disk and the folder's permissions",
        ) from None
    try:
        yield
    finally:
        lock.release()
