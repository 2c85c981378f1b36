"""Dry runs that the runner was asked for: each a process of the command line, whose verdict is the request's answer.

Nothing else is written: no fire and no run, so that no calendar, alert, expectation or figure knows of them.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import msgspec

from core.errors import ConfigError
from core.model.job import Job
from core.records.ledger import Ledger
from core.records.requests import Request
from core.sql.values import as_text

__all__ = ["DryRuns", "answer_of"]

LEAVES_WITHIN_S = 5.0

Begin = Callable[..., "subprocess.Popen[bytes]"]


@dataclass(slots=True)
class _UnderWay:
    request_id: int
    process: subprocess.Popen[bytes]
    said: IO[bytes]


class DryRuns:
    """Those that are under way.

    Args:
        workspace: The workspace's folder.
        ledger: Whose requests are answered.
        begin: `core.scheduler.processes.begin_process`.
        most: At once.
    """

    def __init__(self, workspace: Path, ledger: Ledger, begin: Begin, most: int) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._begin = begin
        self._most = most
        self._under_way: list[_UnderWay] = []

    def open(self, now: datetime) -> None:
        """Answers those that an earlier runner left."""
        for request in self._ledger.requests.taken("dry_run"):
            self._ledger.requests.answer(
                request.request_id, "refused", "the runner ended before the dry run did: ask again", now
            )

    def start(self, request: Request, job: Job) -> str:
        """Begins one; the first answer.

        Raises:
            ConfigError: Too many are under way, or the system starts no process now.
        """
        if len(self._under_way) >= self._most:
            raise ConfigError(f"{self._most} dry runs are under way", remedy="ask again when one has ended")
        words = ["run", "--dry-run", "--json", "--workspace", str(self._workspace)]
        if at := request.args.get("at"):
            words += ["--at", str(at)]
        for name, value in (request.args.get("parameters") or {}).items():
            words += ["--param", f"{name}={as_text(value)}"]
        said = tempfile.TemporaryFile()
        try:
            process = self._begin(
                [*words, "--", job.slug], stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            said.close()
            raise ConfigError("the dry run cannot be started", why=error.strerror or str(error)) from None
        self._under_way.append(_UnderWay(request.request_id, process, said))
        return "the dry run has begun; nothing is sent"

    def settle(self, now: datetime) -> None:
        """Answers the requests of those that have ended."""
        for one in [one for one in self._under_way if one.process.poll() is not None]:
            one.said.seek(0)
            state, answer = answer_of(one.said.read(), one.process.returncode)
            self._ledger.requests.answer(
                one.request_id, state, answer, now
            )  # where it cannot, it is tried at the next look
            one.said.close()
            self._under_way.remove(one)

    def end(self, now: datetime) -> None:
        """Ends all of them: nothing is at stake."""
        for one in self._under_way:
            one.process.terminate()
        for one in self._under_way:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(LEAVES_WITHIN_S)
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()
            one.said.close()
            self._ledger.requests.answer(
                one.request_id, "refused", "the runner stopped before the dry run ended: ask again", now
            )
        self._under_way.clear()


def answer_of(said: bytes, code: int) -> tuple[Any, str]:
    """The request's state and answer, from what `run --dry-run --json` printed.

    Args:
        said: One JSON document, if all went well.
        code: The process's exit code.
    """
    try:
        document: Mapping[str, Any] = msgspec.json.decode(said)
    except msgspec.DecodeError:
        return "refused", f"the dry run ended with code {code} and said nothing"
    if "state" not in document:
        return "refused", str(document.get("error", {}).get("text") or f"the dry run ended with code {code}")
    rejected, made = document["rejected"], document["acknowledged"]
    counted = f"{document['rows_read']:,} rows read in {document['duration_s']:.1f} s make {made:,} "
    counted += f"messages of {document['bytes'] / 1e6:,.1f} MB" if document.get("topic") else "rows of a file"
    counted += f", {rejected:,} rejected" if rejected else ""
    reasons = "; ".join(f"{count:,} × {reason}" for reason, count in document.get("reasons", {}).items())
    if document["state"] != "succeeded":
        why = (document.get("error") or {}).get("text") or document["state"]
        return "refused", f"✘ dry run: {why} ({counted})"
    return "done", f"✔ dry run: {counted}{f' ({reasons})' if reasons else ''}; nothing was sent"
