"""An earlier commit of this program, to compare with: its files in a folder of their own, run by the same Python."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.rigs.workspace import ROOT


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """Yields a folder with the files of a commit, and removes it afterwards.

    Raises:
        SystemExit: There is no such commit.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "baseline"
        done = _git("worktree", "add", "--detach", str(folder), commit)
        if done.returncode:
            sys.exit(f"--baseline {commit} cannot be checked out: {done.stderr.strip()}")
        try:
            yield folder
        finally:
            _git("worktree", "remove", "--force", str(folder))


def _git(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
