"""Locks between processes, and whether an earlier process still runs."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from core.errors import LedgerBusy, StorageFailed
from core.workspace.locks import locked
from core.workspace.process import is_running


def busy() -> LedgerBusy:
    return LedgerBusy("another process holds it")


def test_lock_creates_its_folder_and_is_free_again_afterwards(tmp_path: Path):
    file = tmp_path / "locks" / "one.lock"
    for _ in range(2):
        with locked(file, busy):
            assert file.exists()


@pytest.mark.parametrize("wait_s", [0, 0.1])
def test_lock_that_is_held_raises_the_error_of_its_caller(tmp_path: Path, wait_s: float):
    file = tmp_path / "one.lock"
    with locked(file, busy), pytest.raises(LedgerBusy, match="another process"), locked(file, busy, wait_s=wait_s):
        pass


def test_lock_in_a_folder_that_cannot_be_made_is_a_storage_failure(tmp_path: Path):
    (tmp_path / "locks").write_text("a file, no folder")
    with pytest.raises(StorageFailed, match="cannot be written"), locked(tmp_path / "locks" / "one.lock", busy):
        pass


def test_an_error_inside_the_lock_passes_unchanged(tmp_path: Path):
    with pytest.raises(FileNotFoundError), locked(tmp_path / "one.lock", busy):
        (tmp_path / "missing").read_bytes()


def test_process_with_the_pid_of_an_earlier_one_is_not_that_one():
    started_at = psutil.Process().create_time()
    assert is_running(os.getpid(), started_at)
    assert not is_running(os.getpid(), started_at - 60)
    assert not is_running(2**22 + 1, started_at)
