"""Messages about the final verdicts of runs and the ends of backfills, and the rule `job_failed`.

`email_notification` of each job file names its recipients, and the rule further ones. An incident of the rule lasts
from a job's first failure to its next success.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from loguru import logger

from core.clock import iso_utc
from core.model.job import Job
from core.model.run import Run
from core.notify.alert_messages import (
    AFTER_SILENCE,
    backfill_notification,
    failure_notification,
    success_notification,
)
from core.notify.delivery import MAIL, MessageKind
from core.notify.incidents import COMMIT_DELAY, Incident, LedgerWrite, set_silenced
from core.notify.outbox import Outbox, new_message
from core.notify.rules import JOB_FAILED, Rule
from core.notify.situation import Situation
from core.records.ledger import Ledger

__all__ = ["RunNotifications"]


class RunNotifications:
    """Finds final verdicts since the last call and makes the messages about them.

    Args:
        outbox: Incidents and messages.
        ledger: Runs.
    """

    def __init__(self, outbox: Outbox, ledger: Ledger) -> None:
        self._outbox = outbox
        self._ledger = ledger
        self._handled: dict[str, datetime] = {}
        """Run id → when it was handled; kept while the query may still return it."""

    def forget(self) -> None:
        """Forgets what was handled since the last stored `considered_until`: those writes were not stored."""
        self._handled.clear()

    def writes(self, incidents: dict[tuple[str, str], Incident], at: Situation) -> list[LedgerWrite]:
        """Returns the writes for all verdicts that became final.

        Args:
            incidents: Pending and open ones by rule and subject; those of `job_failed` become what the writes make of them.
            at: The evaluation.
        """
        now = at.now
        until = self._outbox.considered_until("verdicts")
        writes: list[LedgerWrite] = [("set_considered_until", {"what": "verdicts", "until": iso_utc(now)})]
        writes += self._end_obsolete(incidents, at)
        if until is None:
            return writes
        for row in self._outbox.rows("final_runs", after=iso_utc(until - COMMIT_DELAY)):
            run_id = row["run_id"]
            if run_id not in self._handled:
                self._handled[run_id] = now
                run = self._ledger.run(run_id)
                handle = self._success if run.state == "succeeded" else self._failure
                writes += handle(run, incidents, at)
        writes += self._after_silence(incidents, at)
        writes += self._ends_of_backfills(at, until - COMMIT_DELAY)
        self._handled = {run_id: at for run_id, at in self._handled.items() if now - at < 3 * COMMIT_DELAY}
        return writes

    def _end_obsolete(self, incidents: dict[tuple[str, str], Incident], at: Situation) -> list[LedgerWrite]:
        """Ends incidents whose job is gone, or all of them where the rule is disabled, without a message."""
        writes: list[LedgerWrite] = []
        is_enabled = at.alerts.rules[JOB_FAILED].enabled
        for name, slug in list(incidents):
            if name == JOB_FAILED and not (is_enabled and slug in at.jobs):
                del incidents[name, slug]
                writes += _end_failures(slug, "the job has gone" if is_enabled else "the rule was disabled", at.now)
        return writes

    def _ends_of_backfills(self, at: Situation, after: datetime) -> list[LedgerWrite]:
        """Returns one mail for each backfill that has ended; the key of the message keeps a second one out."""
        writes = []
        language = at.recipients.language
        for backfill in self._ledger.backfills.ended_after(after):
            job, progress = at.jobs.get(backfill.job), self._ledger.backfills.progress(backfill)
            wanted = job.email_notification if job else None
            if job is None or wanted is None or not wanted.recipients or not progress.total:
                continue
            is_whole = progress.complete + progress.sent_before == progress.total
            if wanted.on_success if is_whole else wanted.on_failure:
                left = () if is_whole else self._ledger.backfills.incomplete(backfill.backfill_id)
                notification = backfill_notification(backfill, progress, left, job)
                key = f"backfill {backfill.backfill_id}"
                writes.append(new_message("job", key, MAIL, wanted.recipients, notification, at.now, language=language))
        return writes

    def _success(self, run: Run, incidents: dict[tuple[str, str], Incident], at: Situation) -> list[LedgerWrite]:
        # Other rows than those of the run that failed: those are still missing.
        incident = None if run.is_ad_hoc else incidents.pop((JOB_FAILED, run.job), None)
        writes = _end_failures(run.job, f"run {run.run_id} succeeded", at.now) if incident else []
        rule, job = at.alerts.rules[JOB_FAILED], at.jobs.get(run.job)
        wanted = job.email_notification if job else None
        was_reported = incident is not None and incident.notified_at is not None
        if not rule.enabled or at.is_silenced(JOB_FAILED, run.job):
            was_reported = False
        recipients: list[str] = []
        if was_reported and MAIL in rule.actions:
            recipients += rule.recipients
        if wanted and (wanted.on_success or (was_reported and wanted.on_failure)):
            recipients += wanted.recipients
        kind: MessageKind = "recovered" if was_reported else "job"
        notification = success_notification(run, incident, at)
        places = [(MAIL, tuple(dict.fromkeys(recipients)))] if recipients else []
        places += [(channel, ()) for channel in _channels(rule, at)] if was_reported else []
        key = f"run {run.run_id}"
        language = at.recipients.language
        return writes + [
            new_message(kind, key, place, to, notification, at.now, language=language) for place, to in places
        ]

    def _failure(self, run: Run, incidents: dict[tuple[str, str], Incident], at: Situation) -> list[LedgerWrite]:
        rule = at.alerts.rules[JOB_FAILED]
        if not rule.enabled:
            return []
        before = incidents.get((JOB_FAILED, run.job))
        failures = int(before.value or 1) + 1 if before else 1
        was_open = before is not None and before.state == "open"
        is_open = was_open or failures >= (rule.threshold or 1)
        incident = _failed(before, run, failures, is_open=is_open, at=at)
        incidents[JOB_FAILED, run.job] = incident
        row = {"subject": run.job, "value": failures, "text": incident.text, "severity": rule.severity}
        writes: list[LedgerWrite] = [
            ("record_failure", row | {"run_id": run.run_id, "is_open": is_open, "now": iso_utc(at.now)})
        ]
        if not is_open:
            return writes
        if not was_open:
            _log(rule, incident)
        self._disable(rule, at.jobs.get(run.job), at.now)
        return writes + self._report(rule, run, before, incidents, at)

    def _report(
        self,
        rule: Rule,
        run: Run,
        before: Incident | None,
        incidents: dict[tuple[str, str], Incident],
        at: Situation,
        *,
        note: str = "",
    ) -> list[LedgerWrite]:
        """Returns the messages about a failed run, unless a silence, an acknowledgement or an earlier one keeps them back."""
        if at.is_silenced(JOB_FAILED, run.job):
            return []
        incident = incidents[JOB_FAILED, run.job]
        if not note and incident.notified_at is not None:
            lasts = at.now - incident.notified_at
            if incident.acknowledged_at is not None or lasts < timedelta(seconds=rule.repeat_s):
                return []
        notification = failure_notification(run, before, at, note=note)
        key = f"run {run.run_id}" + (f" after silence {iso_utc(at.now)}" if note else "")
        writes = [
            new_message(
                kind, key, place, to, notification, at.now, incident.incident_id or None, at.recipients.language
            )
            for kind, place, to in self._receivers(rule, run.job, at)
        ]
        if writes:
            incidents[JOB_FAILED, run.job] = replace(incident, notified_at=at.now)
            writes.append(("set_job_notified", {"subject": run.job, "now": iso_utc(at.now)}))
        return writes

    def _receivers(self, rule: Rule, slug: str, at: Situation) -> Iterator[tuple[MessageKind, str, tuple[str, ...]]]:
        """Yields kind, channel and recipients of each message about a failure."""
        for channel in _channels(rule, at):
            yield "alert", channel, ()
        if MAIL not in rule.actions:
            return
        job = at.jobs.get(slug)
        of_job = job.email_notification.recipients if job and job.email_notification.on_failure else ()
        if recipients := tuple(dict.fromkeys((*rule.recipients, *of_job))):
            yield "job", MAIL, recipients

    def _after_silence(self, incidents: dict[tuple[str, str], Incident], at: Situation) -> list[LedgerWrite]:
        """Notes which incidents a silence covers, and reports those again whose silence has ended."""
        writes: list[LedgerWrite] = []
        for (name, slug), incident in list(incidents.items()):
            is_silenced = at.is_silenced(JOB_FAILED, slug)
            if name != JOB_FAILED or incident.state != "open" or is_silenced == bool(incident.silenced_at):
                continue
            writes.append(set_silenced(JOB_FAILED, slug, at.now if is_silenced else None))
            if not is_silenced and incident.run_id:
                run = self._ledger.run(incident.run_id)
                rule = at.alerts.rules[JOB_FAILED]
                writes += self._report(rule, run, incident, incidents, at, note=AFTER_SILENCE)
        return writes

    def _disable(self, rule: Rule, job: Job | None, now: datetime) -> None:
        if "disable_job" in rule.actions and job is not None and job.enabled:
            self._ledger.requests.submit("disable", job=job.slug, asked_by=f"alert rule {rule.title}", now=now)


def _failed(before: Incident | None, run: Run, failures: int, *, is_open: bool, at: Situation) -> Incident:
    """Returns the incident as `record_failure` stores it; number 0 where it is new."""
    base = before or Incident(0, JOB_FAILED, run.job, "pending", at.now, None, at.now, None, None, None, "")
    return replace(
        base,
        state="open" if is_open else "pending",
        opened_at=base.opened_at or (at.now if is_open else None),
        last_true_at=at.now,
        value=failures,
        text=f"{run.state}: {run.error_text or 'no reason is known'}",
        severity=at.alerts.rules[JOB_FAILED].severity,
        run_id=run.run_id,
    )


def _channels(rule: Rule, at: Situation) -> list[str]:
    return [action for action in rule.actions if action in at.alerts.channels]


def _end_failures(slug: str, why: str, now: datetime) -> list[LedgerWrite]:
    """Returns the writes that end the incident of a job; a pending one, of which no user knows, is deleted."""
    return [
        ("end_failures", {"subject": slug, "text": why, "now": iso_utc(now)}),
        ("delete_pending_failures", {"subject": slug}),
    ]


def _log(rule: Rule, incident: Incident) -> None:
    for level in ("error", "warning"):
        if f"log_{level}" in rule.actions:
            logger.log(level.upper(), "alert: {}: {}: {}", rule.title, incident.subject, incident.text)
