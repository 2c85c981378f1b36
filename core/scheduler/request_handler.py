"""Carries out what was asked of the runner: runs, dry runs, replays, a stop, and what alert rules disable.

The right of the caller was checked, and the action audited, where it was asked for (`core.scheduler.control`); only what
an alert rule asks for is audited here. A backfill, a cancel and a user's enable or disable need no runner.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, get_args

from loguru import logger

from core.calendar.cron import previous_scheduled_time
from core.errors import ConfigError, PsttError
from core.records.rights import system_caller
from core.run.replay import ReplayDestination
from core.scheduler.commands import replay_args, require_unsent, set_job_enabled

if TYPE_CHECKING:
    from core.model.job import Job
    from core.records.ledger import Ledger
    from core.records.requests import Request
    from core.scheduler.dry_runs import DryRuns
    from core.scheduler.job_registry import JobRegistry
    from core.workspace.paths import Workspace

__all__ = ["RequestHandler"]


class RequestHandler:
    """Answers the requests of one workspace.

    Args:
        workspace: The workspace.
        ledger: Holds the requests, and the scheduled runs that they become.
        registry: The jobs as the runner knows them.
        dry_runs: Starts what only reads.
    """

    def __init__(self, workspace: Workspace, ledger: Ledger, registry: JobRegistry, dry_runs: DryRuns) -> None:
        self.is_stop_requested = False
        """A `stop` request was answered."""
        self._workspace = workspace
        self._ledger = ledger
        self._registry = registry
        self._dry_runs = dry_runs

    def drop_stops(self, now: datetime) -> None:
        """Answers the stops that an earlier runner was asked for and did not live to obey; this one is not meant."""
        for request in self._ledger.requests.waiting():
            if request.kind == "stop":
                self._ledger.requests.answer(request.request_id, "done", "the runner had ended before", now)

    def handle_waiting(self, now: datetime) -> None:
        """Answers each waiting request; one that cannot be done is refused with the reason."""
        for request in self._ledger.requests.waiting():
            try:
                state, answer = self._handle(request, now)
            except (PsttError, ValueError, KeyError, TypeError) as error:
                text = error.text if isinstance(error, PsttError) else f"the request is not whole: {error}"
                self._ledger.requests.answer(request.request_id, "refused", text, now)
                logger.warning("request {} ({}) refused: {}", request.request_id, request.kind, text)
                continue
            self._ledger.requests.answer(request.request_id, "taken" if state == "taken" else "done", answer, now)
            logger.info("request {} ({}) by {}: {}", request.request_id, request.kind, request.asked_by, answer)

    def _handle(self, request: Request, now: datetime) -> tuple[str, str]:
        """Does what is asked. Returns the request's new state and the answer."""
        match request.kind:
            case "stop":
                self.is_stop_requested = True
                return "done", "the runner stops"
            case "disable":
                return "done", self._disable(request, now)
            case "replay":
                return "taken", self._replay(request, now)
            case "dry_run":
                return "taken", self._dry_runs.start(request, self._known(request.job))
            case "run":
                return "taken", self._run(request, now)
            case _:
                raise ConfigError(
                    f"the runner does not do {request.kind} requests any more",
                    why="an earlier version of PSTT Kafka asked for it",
                    remedy="ask for it again",
                )

    def _disable(self, request: Request, now: datetime) -> str:
        caller = system_caller(request.asked_by)
        changed = set_job_enabled(self._workspace, self._ledger, request.job, enabled=False, caller=caller, now=now)
        return f"job {request.job} {'is' if changed else 'was'} disabled"

    def _replay(self, request: Request, now: datetime) -> str:
        run = self._ledger.run(request.run_id or "")
        to = request.args.get("to", "run")
        if to not in get_args(ReplayDestination):
            raise ConfigError(f'"{to}" is no place to send to again', remedy='"run" or "job"')
        keys = [str(key) for key in request.args.get("keys") or ()]
        args = {"of_run": run.run_id, **replay_args(bool(request.args.get("rejects_only")), keys, to)}
        return self._plan(request, run.job, run.scheduled_at, args, now)

    def _run(self, request: Request, now: datetime) -> str:
        job = self._known(request.job)
        at = datetime.fromisoformat(request.args["at"]) if request.args.get("at") else None
        if at is not None and at.tzinfo is None:
            raise ConfigError(f"{at} has no offset")
        scheduled_at = at or previous_scheduled_time(job, now) or now.replace(microsecond=0)
        # It may have been sent since it was asked for.
        again, parameters = bool(request.args.get("again")), request.args.get("parameters") or {}
        require_unsent(self._ledger, job, scheduled_at, now, again=again, with_ad_hoc=bool(parameters))
        return self._plan(request, job.slug, scheduled_at, {"parameters": parameters}, now)

    def _plan(self, request: Request, slug: str, at: datetime, args: Mapping[str, Any], now: datetime) -> str:
        self._known(slug)
        (scheduled_run_id,) = self._ledger.scheduled_runs.plan_requested(
            slug,
            [at.astimezone(UTC)],
            kind="request",
            asked_by=request.asked_by,
            now=now,
            args=args,
            request_id=request.request_id,
        )
        return f"planned as scheduled run {scheduled_run_id}"

    def _known(self, slug: str) -> Job:
        entry = self._registry.entries.get(slug)
        if entry is None:
            raise ConfigError(f'there is no job "{slug}" that can run', remedy="python -m core check")
        return entry.job
