"""Mails about the final verdicts of runs, and about the ends of backfills, as `email_notification` of each job file asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from core.clock import iso_utc
from core.model.job import Job
from core.model.run import Run
from core.notify.alert_messages import backfill_notification, failure_notification, success_notification
from core.notify.delivery import MAIL, MessageKind
from core.notify.incidents import Incident, LedgerWrite, begin_incident, end_incident, update_incident
from core.notify.outbox import Outbox, new_message
from core.records.ledger import Ledger

__all__ = ["COMMIT_DELAY", "JOB_FAILED", "RunNotifications"]

JOB_FAILED = "job_failed"
"""The rule of an incident that lasts from a job's first failure to its next success; it is not in alerts.json."""
COMMIT_DELAY = timedelta(seconds=60)
"""A run may be committed this long after the time that it records as its end; reading starts so much earlier."""
FAILURES_REPEATED_EVERY = timedelta(hours=12)
"""A job that fails every hour is reported again at this interval; one that fails every day is reported every day."""


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

    def writes(
        self, jobs: Mapping[str, Job], incidents: dict[tuple[str, str], Incident], now: datetime
    ) -> list[LedgerWrite]:
        """Returns the writes for all verdicts that became final.

        Args:
            jobs: By slug.
            incidents: Pending and open ones by rule and subject; one that ends here is removed.
            now: The current time.
        """
        until = self._outbox.considered_until("verdicts")
        writes: list[LedgerWrite] = [("set_considered_until", {"what": "verdicts", "until": iso_utc(now)})]
        deleted = [found for (rule, slug), found in incidents.items() if rule == JOB_FAILED and slug not in jobs]
        writes += [end_incident(incident, "the job has gone", now) for incident in deleted]
        if until is None:
            return writes
        for row in self._outbox.rows("final_runs", after=iso_utc(until - COMMIT_DELAY)):
            run_id = row["run_id"]
            if run_id not in self._handled:
                self._handled[run_id] = now
                run = self._ledger.run(run_id)
                handle = self._success if run.state == "succeeded" else self._failure
                writes += handle(run, jobs.get(run.job), incidents, now)
        writes += self._ends_of_backfills(jobs, until - COMMIT_DELAY, now)
        self._handled = {run_id: at for run_id, at in self._handled.items() if now - at < 3 * COMMIT_DELAY}
        return writes

    def _ends_of_backfills(self, jobs: Mapping[str, Job], after: datetime, now: datetime) -> list[LedgerWrite]:
        """Returns one mail for each backfill that has ended; the key of the message keeps a second one out."""
        writes = []
        for backfill in self._ledger.backfills.ended_after(after):
            job, progress = jobs.get(backfill.job), self._ledger.backfills.progress(backfill)
            wanted = job.email_notification if job else None
            if job is None or wanted is None or not wanted.recipients or not progress.total:
                continue
            is_whole = progress.complete + progress.sent_before == progress.total
            if wanted.on_success if is_whole else wanted.on_failure:
                left = () if is_whole else self._ledger.backfills.incomplete(backfill.backfill_id)
                notification = backfill_notification(backfill, progress, left, job)
                key = f"backfill {backfill.backfill_id}"
                writes.append(new_message("job", key, MAIL, wanted.recipients, notification, now))
        return writes

    def _success(
        self, run: Run, job: Job | None, incidents: dict[tuple[str, str], Incident], now: datetime
    ) -> list[LedgerWrite]:
        incident = incidents.pop((JOB_FAILED, run.job), None)
        writes = [end_incident(incident, f"run {run.run_id} succeeded", now)] if incident else []
        wanted = job.email_notification if job else None
        if wanted is None or not wanted.recipients:
            return writes
        failure_was_sent = incident is not None and incident.notified_at is not None and wanted.on_failure
        if wanted.on_success or failure_was_sent:
            kind: MessageKind = "recovered" if failure_was_sent else "job"
            notification = success_notification(run, incident)
            writes.append(new_message(kind, f"run {run.run_id}", MAIL, wanted.recipients, notification, now))
        return writes

    def _failure(
        self, run: Run, job: Job | None, incidents: dict[tuple[str, str], Incident], now: datetime
    ) -> list[LedgerWrite]:
        incident = incidents.get((JOB_FAILED, run.job))
        text = f"{run.state}: {run.error_text or 'no reason is known'}"
        writes: list[LedgerWrite] = []
        if incident is None:
            writes.append(begin_incident(JOB_FAILED, run.job, None, text, now, is_open=True))
        elif incident.text != text:
            writes.append(update_incident(incident, None, text, now))
        notified_at = incident.notified_at if incident else None
        wanted = job.email_notification if job else None
        if wanted is None or not wanted.on_failure or not wanted.recipients:
            return writes
        if notified_at is None or now - notified_at >= FAILURES_REPEATED_EVERY:
            notification = failure_notification(run, incident)
            writes.append(new_message("job", f"run {run.run_id}", MAIL, wanted.recipients, notification, now))
            writes.append(("set_job_notified", {"subject": run.job, "now": iso_utc(now)}))
        return writes
