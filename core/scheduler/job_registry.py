"""The jobs as the runner knows them: the files of `queries/`, checked each second, each in its last valid version.

A file that is being edited, or is invalid, does not stop its job: the last valid version stays in use, over a restart
too, and the problem is reported until the file is fixed.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core.errors import ConfigError
from core.model.job import Job
from core.records.ledger import Ledger
from core.workspace.jobs import SUFFIX, parse_job

__all__ = ["JobRegistry", "RegisteredJob"]

RACY_NS = 2_000_000_000
"""A file changed so shortly before it was read may change again without a new time stamp: FAT stores 2 s steps."""


@dataclass(frozen=True, slots=True)
class RegisteredJob:
    """A job, and the version of its file that it was read from."""

    job: Job
    sha256: str


@dataclass(slots=True)
class _File:
    stamp: tuple[int, int]
    """Change time in ns and size in bytes."""
    sha256: str
    is_settled: bool


class JobRegistry:
    """The jobs of one workspace.

    Args:
        folder: `queries/`.
        ledger: Where each version is kept.
        now: The clock.
    """

    def __init__(self, folder: Path, ledger: Ledger, now: Callable[[], datetime]) -> None:
        self.entries: dict[str, RegisteredJob] = {}
        self.problems: dict[str, dict[str, str]] = {}
        """Slug → `where`, `text`, `instead`."""
        self._folder = folder
        self._ledger = ledger
        self._now = now
        self._files: dict[str, _File] = {}
        self._missing: set[str] = set()
        self._is_new = True

    def refresh(self) -> dict[str, RegisteredJob | None]:
        """Reads what has changed in the folder. Returns slug → entry, None where the file is gone. 500 files cost 2 ms."""
        changed: dict[str, RegisteredJob | None] = {}
        found = self._stamps()
        for slug, stamp in found.items():
            known = self._files.get(slug)
            if known is None or known.stamp != stamp or not known.is_settled:
                self._check(slug, stamp, changed)
        # An editor may remove a file for a moment while it saves: it is gone when it is missing in two checks.
        missing = self._files.keys() - found.keys()
        for slug in missing & self._missing:
            del self._files[slug]
            self.problems.pop(slug, None)
            self._ledger.job_versions.end_job(slug, self._now())
            if self.entries.pop(slug, None) is not None:
                changed[slug] = None
        self._missing = missing
        if self._is_new and "" not in self.problems:  # files deleted while no runner worked
            self._is_new = False
            for slug in self._ledger.job_versions.in_force().keys() - found.keys():
                self._ledger.job_versions.end_job(slug, self._now())
        return changed

    def _stamps(self) -> dict[str, tuple[int, int]]:
        found = {}
        try:
            with os.scandir(self._folder) as files:
                for file in files:
                    if file.name.endswith(SUFFIX):
                        status = file.stat()
                        found[file.name.removesuffix(SUFFIX)] = (status.st_mtime_ns, status.st_size)
        except OSError as error:
            self.problems[""] = _problem(
                self._folder.name, f"cannot be read: {error.strerror or error}", "what was known"
            )
            return {slug: file.stamp for slug, file in self._files.items()}
        self.problems.pop("", None)
        return found

    def _check(self, slug: str, stamp: tuple[int, int], changed: dict[str, RegisteredJob | None]) -> None:
        path = self._folder / f"{slug}{SUFFIX}"
        try:
            content = path.read_bytes()
        except OSError:
            return  # it is being deleted or written: the next check reads it
        sha256 = hashlib.sha256(content).hexdigest()
        known = self._files.get(slug)
        self._files[slug] = _File(stamp, sha256, is_settled=time.time_ns() - stamp[0] > RACY_NS)
        if known is not None and known.sha256 == sha256:
            return
        entry = self._read(slug, path, content, sha256)
        if entry is not None and entry != self.entries.get(slug):
            self.entries[slug] = changed[slug] = entry

    def _read(self, slug: str, path: Path, content: bytes, sha256: str) -> RegisteredJob | None:
        try:
            text = content.decode("utf-8-sig")
            job = parse_job(path, text)
        except UnicodeDecodeError:
            return self._last_good(slug, path, ConfigError("the file is not UTF-8", file=path))
        except ConfigError as error:
            return self._last_good(slug, path, error)
        self.problems.pop(slug, None)
        if self._ledger.job_versions.in_force(slug).get(slug) != sha256:  # a restart with 500 jobs writes nothing
            self._ledger.job_versions.add(slug, sha256, text, self._now())
        return RegisteredJob(job, sha256)

    def _last_good(self, slug: str, path: Path, error: ConfigError) -> RegisteredJob | None:
        kept = self.entries.get(slug) or self._kept(slug, path)
        instead = "its last valid version stays in use" if kept else "the job does not run until it is fixed"
        self.problems[slug] = _problem(
            error.where or path.name, error.what + (f": {error.why}" if error.why else ""), instead
        )
        return kept

    def _kept(self, slug: str, path: Path) -> RegisteredJob | None:
        version = self._ledger.job_versions.get(slug)
        try:
            return RegisteredJob(parse_job(path, version.document), version.sha256) if version else None
        except ConfigError:  # this version of the program does not accept it any more
            return None


def _problem(where: str, text: str, instead: str) -> dict[str, str]:
    return {"where": where, "text": text, "instead": instead}
