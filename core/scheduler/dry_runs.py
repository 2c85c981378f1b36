"""Dry runs that the runner was asked for: each is a process of the command line, whose verdict is the request's answer.

Nothing else is stored, no scheduled run and no run, so that no calendar, alert, expectation or metric counts them.
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
from core.formatting import counted
from core.model.job import Job
from core.records.ledger import Ledger
from core.records.requests import Request
from core.sql.values import as_text

__all__ = ["DryRuns", "answer_of"]

END_WITHIN_S = 5.0

Begin = Callable[..., "subprocess.Popen[bytes]"]


@dataclass(slots=True)
class _Running:
    request_id: int
    process: subprocess.Popen[bytes]
    output: IO[bytes]


class DryRuns:
    """The dry runs in progress.

    Args:
        workspace: The workspace's folder.
        ledger: Stores the answers.
        begin: `core.workspace.process.begin_process`.
        most: Dry runs at the same time.
    """

    def __init__(self, workspace: Path, ledger: Ledger, begin: Begin, most: int) -> None:
        self._workspace = workspace
        self._ledger = ledger
        self._begin = begin
        self._most = most
        self._running: list[_Running] = []

    def open(self, now: datetime) -> None:
        """Answers the requests that an earlier runner left without an answer."""
        for request in self._ledger.requests.taken("dry_run"):
            self._ledger.requests.answer(
                request.request_id, "refused", "the runner ended before the dry run did: ask again", now
            )

    def start(self, request: Request, job: Job) -> str:
        """Starts a dry run. Returns the request's first answer.

        Raises:
            ConfigError: Too many are running, or the system cannot start a process now.
        """
        if len(self._running) >= self._most:
            raise ConfigError(f"{self._most} dry runs are in progress", remedy="ask again when one has ended")
        words = ["run", "--dry-run", "--json", "--workspace", str(self._workspace)]
        if at := request.args.get("at"):
            words += ["--at", str(at)]
        for name, value in (request.args.get("parameters") or {}).items():
            words += ["--param", f"{name}={as_text(value)}"]
        output = tempfile.TemporaryFile()
        try:
            process = self._begin(
                [*words, "--", job.slug], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            output.close()
            raise ConfigError("the dry run cannot be started", why=error.strerror or str(error)) from None
        self._running.append(_Running(request.request_id, process, output))
        return "the dry run has begun; nothing is sent"

    def settle(self, now: datetime) -> None:
        """Answers the requests of the dry runs that have ended."""
        for one in [one for one in self._running if one.process.poll() is not None]:
            one.output.seek(0)
            state, answer = answer_of(one.output.read(), one.process.returncode)
            self._ledger.requests.answer(one.request_id, state, answer, now)  # if this fails, the next tick tries again
            one.output.close()
            self._running.remove(one)

    def end(self, now: datetime) -> None:
        """Ends all of them; a dry run has sent nothing."""
        for one in self._running:
            one.process.terminate()
        for one in self._running:
            with suppress(subprocess.TimeoutExpired):
                one.process.wait(END_WITHIN_S)
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait()
            one.output.close()
            self._ledger.requests.answer(
                one.request_id, "refused", "the runner stopped before the dry run ended: ask again", now
            )
        self._running.clear()


def answer_of(output: bytes, code: int) -> tuple[Any, str]:
    """Returns the request's state and answer, made from the output of `run --dry-run --json`.

    Args:
        output: One JSON document, unless the process failed.
        code: The process's exit code.
    """
    try:
        document: Mapping[str, Any] = msgspec.json.decode(output)
    except msgspec.DecodeError:
        return "refused", f"the dry run ended with code {code} and said nothing"
    if "state" not in document:
        return "refused", str(document.get("error", {}).get("text") or f"the dry run ended with code {code}")
    read, rejected, seconds = document["rows_read"], document["rejected"], f"{document['duration_s']:.1f} s"
    made, of = counted(document["acknowledged"], "row"), "a file"
    if document.get("topic"):
        made, of = counted(document["acknowledged"], "message"), f"{document['bytes'] / 1e6:,.1f} MB"
    one = f"1 row read in {seconds} makes {made} of {of}"
    counts = one if read == 1 else f"{read:,} rows read in {seconds} make {made} of {of}"
    counts += f", {rejected:,} rejected" if rejected else ""
    reasons = "; ".join(f"{count:,} × {reason}" for reason, count in document.get("reasons", {}).items())
    if document["state"] != "succeeded":
        why = (document.get("error") or {}).get("text") or document["state"]
        return "refused", f"✘ dry run: {why} ({counts})"
    return "done", f"✔ dry run: {counts}{f' ({reasons})' if reasons else ''}; nothing was sent"
