"""Opens `metrics.duckdb`, and finds out whether it is held by another process, damaged, or of another version."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb

from core.errors import LedgerBusy, PsttError
from core.records.metrics_queries import metrics_sql
from core.workspace.locks import locked

__all__ = [
    "MUCH_MEMORY",
    "NEW_FILE",
    "FileHeld",
    "FileUnreadable",
    "NeedsMemory",
    "copying",
    "is_copied_into",
    "is_held",
    "log_of",
    "may_be_damage",
    "may_be_read",
    "names_copied",
    "opened",
    "remove",
    "require_format",
    "state_of",
    "translated",
]

MUCH_MEMORY = "500MB"
"""Memory limit of a rebuild, which runs on demand and takes two threads: it is twice as fast."""
MEMORY = "14MB"
"""Memory limit of DuckDB while it copies, since copying causes the peak of a process that runs a job by hand. 200MB would
save half a second a million sends, 24MB a tenth."""
NEW_FILE = {"default_block_size": "65536"}
"""Blocks of a new file have 64 KB. With DuckDB's 256 KB the last one of each column of 122,880 rows is mostly empty, which
costs 2 bytes a send; with 16 KB numbers are no longer compressed. A file that exists keeps its size of blocks."""
FORMAT = 7
"""Version of metrics.duckdb; a file of another version is rebuilt from the spool."""


# Of Windows.
GENERIC_READ_WRITE = 0xC0000000
SHARE_ALL = 7
OPEN_EXISTING = 3
ERROR_SHARING_VIOLATION = 32
ERROR_LOCK_VIOLATION = 33


class FileHeld(Exception):
    """Another process, or another thread of this one, has the file open."""


class FileUnreadable(Exception):
    """The file is no DuckDB database, or one that DuckDB cannot read."""


class NeedsMemory(FileUnreadable):
    """What was done with the file needs more memory than it had."""


@contextmanager
def copying(lock_file: Path) -> Iterator[None]:
    """Holds the lock of a copy, so that readers know who holds metrics.duckdb and wait for it.

    Raises:
        FileHeld: Another process or thread copies.
        StorageFailed: The lock file cannot be written.
    """
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(lock_file, lambda: LedgerBusy("another process copies")))
        except LedgerBusy as busy:
            raise FileHeld(busy.what) from None
        yield


def is_copied_into(lock_file: Path) -> bool:
    """Returns whether a copy goes on now. False if the lock file cannot be written, as on a full disk."""
    try:
        with copying(lock_file):
            return False
    except FileHeld:
        return True
    except PsttError:
        return False


def is_held(text: str) -> bool:
    """Returns whether DuckDB reports that another process, or another thread of this one, has the file open.

    `lock` is matched as a word, since the error of a damaged file names a "block".

    Windows says it in its own language, so there the named file is opened once more and the number of the error counts.
    """
    if re.search(r"\block\b|unique file handle conflict", text, re.IGNORECASE):
        return True
    refused = re.search(r'Cannot open file "([^"]+)"', text)
    return refused is not None and _is_shared_with_nobody(Path(refused[1]))


def _is_shared_with_nobody(file: Path) -> bool:
    if sys.platform == "win32":  # `open` only says that it may not
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.CreateFileW.restype = ctypes.c_void_p
        handle = kernel.CreateFileW(str(file), GENERIC_READ_WRITE, SHARE_ALL, None, OPEN_EXISTING, 0, None)
        if handle == ctypes.c_void_p(-1).value:
            return ctypes.get_last_error() in (ERROR_SHARING_VIOLATION, ERROR_LOCK_VIOLATION)
        kernel.CloseHandle(ctypes.c_void_p(handle))
        return True  # it was held a moment ago: nothing else forbids to open it
    return False  # there DuckDB's own words say so


def may_be_damage(error: duckdb.Error) -> bool:
    """Returns whether the error can come from a damaged file and not from the query."""
    damages = (duckdb.IOException, duckdb.FatalException, duckdb.InternalException, duckdb.SerializationException)
    return isinstance(error, damages) or type(error) is duckdb.Error


@contextmanager
def translated() -> Iterator[None]:
    """Raises `FileHeld` or `FileUnreadable` for an error of DuckDB, with its first line."""
    try:
        yield
    except duckdb.Error as error:
        text = str(error)
        first = text.splitlines()[0] if text else type(error).__name__
        if is_held(text):
            raise FileHeld(first) from None
        if isinstance(error, duckdb.OutOfMemoryException):
            raise NeedsMemory(first) from None
        raise FileUnreadable(first) from None


@contextmanager
def opened(file: Path, *, is_hurried: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """Opens the file for writing, with little memory and one thread; creates it if it is missing.

    Args:
        file: Its path.
        is_hurried: With 500 MB and two threads.

    Raises:
        FileHeld: It is open elsewhere.
        FileUnreadable: DuckDB cannot read it, or what is done with it fails.
    """
    with translated():
        memory, threads = (MUCH_MEMORY, 2) if is_hurried else (MEMORY, 1)
        db = duckdb.connect(str(file), config={"memory_limit": memory, "threads": threads, **NEW_FILE})
    try:
        with translated():
            yield db
    finally:
        db.close()


def require_format(db: duckdb.DuckDBPyConnection, place: str = "main") -> None:
    """Raises `FileUnreadable` for a file of another version, which is rebuilt: all of it is in the spool."""
    try:
        is_ours = db.execute(metrics_sql()["is_our_format"].format(place=place, version=FORMAT)).fetchall() == [(True,)]
    except duckdb.CatalogException:
        is_ours = place == "main" and not db.execute("SELECT 1 FROM duckdb_tables()").fetchall()  # a new file
    if not is_ours:
        raise FileUnreadable("it was made by another version")


def names_copied(db: duckdb.DuckDBPyConnection, table: str) -> set[str]:
    """Returns the names of the segments that are copied, from this table."""
    return {name for (name,) in db.execute(f"SELECT name FROM {table}").fetchall()}  # noqa: S608 - names of our own


def state_of(path: Path) -> tuple[int, ...]:
    """Returns a value that changes whenever the file does; empty where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return ()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def may_be_read(file: Path) -> bool:
    """Returns whether this account may read the file; without that right it cannot know of damage."""
    try:
        with file.open("rb") as stream:
            stream.read(1)
    except OSError:
        return False
    return True


def log_of(file: Path) -> Path:
    """Returns the path of DuckDB's write-ahead log beside the file."""
    return file.with_name(f"{file.name}.wal")


def remove(file: Path) -> None:
    """Deletes the file and its write-ahead log."""
    for path in (file, log_of(file)):
        path.unlink(missing_ok=True)
