"""Evaluates the alert rules: from what the ledger records to incidents and to messages in the outbox.

A condition that holds for the rule's time opens an incident. Its recipients are notified once, and again when it ends.
One evaluation costs a few statements on SQLite and sends nothing. Its writes are one transaction, so that an incident
and the message about it are stored together or not at all.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from loguru import logger

from core.clock import iso_utc
from core.errors import ConfigError
from core.model.job import Job
from core.notify.alert_messages import IncidentGroup, alert_notification, recovery_notification
from core.notify.daily_report import daily_report_notification, make_daily_report
from core.notify.delivery import MAIL, MessageKind
from core.notify.incidents import (
    Incident,
    LedgerWrite,
    begin_incident,
    end_incident,
    set_silenced,
    update_incident,
)
from core.notify.outbox import Outbox, new_message
from core.notify.rule_checks import Evaluation, RuleChecks
from core.notify.rules import JOB_FAILED, AlertFile, Rule, default_alerts, load_alerts
from core.notify.run_notifications import RunNotifications
from core.notify.silences import AlertRecords
from core.notify.situation import Recipients, Situation
from core.records.ledger import Ledger

__all__ = ["AlertRules"]

DISABLE_SETTLES = timedelta(seconds=30)
"""After a job was disabled, the runner may show it as enabled for this long."""
DISABLE_RETRIED_AFTER = timedelta(minutes=10)


class AlertRules:
    """The rules of one workspace; belongs to the thread that made it.

    Args:
        outbox: Incidents and messages.
        ledger: Heartbeat, broker samples, requests and runs.
        spool_dir: `.pstt/spool`.
        rules_file: alerts.json; read again whenever it has changed. While it is invalid, the last valid rules stay.
        jobs: Returns the jobs as the runner knows them.
        recipients: Who is notified.
        collect: Collects garbage, for the action `collect_garbage`.
    """

    def __init__(
        self,
        outbox: Outbox,
        ledger: Ledger,
        *,
        rules_file: Path,
        spool_dir: Path,
        jobs: Callable[[], Sequence[Job]],
        recipients: Recipients,
        collect: Callable[[], Any] = gc.collect,
    ) -> None:
        self._outbox = outbox
        self._ledger = ledger
        self._file = rules_file
        self._stamp: tuple[int, int] | None = None
        self._alerts: AlertFile | None = None
        self._jobs = jobs
        self._recipients = recipients
        self._collect = collect
        self._checks = RuleChecks(outbox, ledger, spool_dir)
        self._run_notifications = RunNotifications(outbox, ledger)
        self._records = AlertRecords(outbox)

    def evaluate(self, now: datetime) -> None:
        """Evaluates every rule once and stores what has changed in one transaction.

        Raises:
            StorageFailed: The ledger cannot be written; the next evaluation finds the same again.
            LedgerBusy: As above.
        """
        try:
            self._outbox.apply(self._writes(now))
        except BaseException:  # nothing was stored: the next evaluation reads the same runs again
            self._checks.forget()
            self._run_notifications.forget()
            raise

    def _writes(self, now: datetime) -> list[LedgerWrite]:
        alerts = self._rules()
        jobs = {job.slug: job for job in self._jobs()}
        incidents = {(incident.rule, incident.subject): incident for incident in self._outbox.open_incidents()}
        at = Situation(alerts, jobs, self._records.active(now), self._recipients, now)
        writes = self._run_notifications.writes(incidents, at)
        longest_s = max(rule.for_s for rule in alerts.rules.values())
        fresh, read_until = self._checks.read_ended_runs(longest_s, now)
        for rule in alerts.rules.values():
            if rule.name == JOB_FAILED:  # of each verdict, above
                continue
            found = self._checks.evaluate(rule, jobs, incidents, fresh, now) if rule.enabled else {}
            of_rule = {subject: incident for (name, subject), incident in incidents.items() if name == rule.name}
            writes += self._end_obsolete(rule, of_rule, jobs, now)
            self._retry_disable(rule, of_rule, jobs, now)
            writes += self._apply_rule(rule, found, of_rule, at)
        return writes + read_until + self._daily_report(jobs, now)

    def _rules(self) -> AlertFile:
        """The last valid version of the file; the defaults if there was none."""
        try:
            state = self._file.stat()
            stamp = (state.st_mtime_ns, state.st_size)
        except OSError:
            stamp = (0, 0)
        if self._alerts is None or stamp != self._stamp:
            self._stamp = stamp
            try:
                self._alerts = load_alerts(self._file)
            except ConfigError as error:
                instead = "the rules that were in force go on" if self._alerts else "the defaults hold"
                logger.error("{}; {}", error, instead)
                self._alerts = self._alerts or default_alerts()
        return self._alerts

    def _end_obsolete(
        self, rule: Rule, of_rule: dict[str, Incident], jobs: Mapping[str, Job], now: datetime
    ) -> list[LedgerWrite]:
        """Ends incidents whose rule or subject is not watched any more, without a message; removes them from `of_rule`."""
        writes: list[LedgerWrite] = []
        for subject, incident in list(of_rule.items()):
            why = self._why_obsolete(rule, incident, jobs, now)
            if why:
                del of_rule[subject]
                writes.append(end_incident(incident, why, now))
        return writes

    def _why_obsolete(self, rule: Rule, incident: Incident, jobs: Mapping[str, Job], now: datetime) -> str:
        """The reason; empty if the incident continues."""
        if not rule.enabled:
            return "the rule was disabled"
        if rule.name == "producer_disconnected":
            return "" if incident.subject in self._checks.connections(now) else "no job sends there any more"
        if rule.name in ("runner_memory", "spool_damaged"):
            return ""
        job = jobs.get(incident.subject)
        if job is None:
            return "the job has gone"
        if rule.name == "job_late":
            return "" if job.is_scheduled and job.expect.by else "it is not expected any more"
        if job.enabled and incident.opened_at and "disable_job" in rule.actions and self._was_disabled(incident, now):
            self._checks.forget(incident.subject)  # only sends after the operator enabled it again count
            return "the job was enabled again"
        return ""

    def _was_disabled(self, incident: Incident, now: datetime) -> bool:
        trail = self._ledger.audit.entries(f"job {incident.subject}", 20)
        since, until = incident.opened_at or now, now - DISABLE_SETTLES
        return any(entry.action == "disable" and since <= entry.at <= until for entry in trail)

    def _request_disable(self, rule: Rule, slug: str, now: datetime) -> None:
        self._ledger.requests.submit("disable", job=slug, asked_by=f"alert rule {rule.title}", now=now)

    def _retry_disable(
        self, rule: Rule, of_rule: Mapping[str, Incident], jobs: Mapping[str, Job], now: datetime
    ) -> None:
        """Requests again to disable a job whose file was invalid, and which therefore still runs."""
        if "disable_job" not in rule.actions:
            return
        for slug, incident in of_rule.items():
            if incident.opened_at is None or not jobs[slug].enabled:
                continue
            requests = (r for r in self._ledger.requests.newest() if r.job == slug and r.kind == "disable")
            newest = next((request for request in requests if request.asked_at >= incident.opened_at), None)
            if newest is None or newest.state != "refused" or now - newest.asked_at < DISABLE_RETRIED_AFTER:
                continue
            logger.error("job {} could not be disabled by rule {}: {}", slug, rule.title, newest.answer)
            self._request_disable(rule, slug, now)

    def _apply_rule(
        self,
        rule: Rule,
        found: Mapping[str, Evaluation],
        of_rule: Mapping[str, Incident],
        at: Situation,
    ) -> list[LedgerWrite]:
        """Begins, updates, opens and ends the incidents of one rule, and executes the actions of those that open."""
        now = at.now
        writes: list[LedgerWrite] = []
        ended: list[tuple[Incident, str]] = []
        for subject, evaluation in found.items():
            incident = of_rule.get(subject)
            if evaluation.is_true and incident is None:
                writes.append(
                    begin_incident(
                        rule.name,
                        subject,
                        evaluation.value,
                        evaluation.text,
                        now,
                        severity=rule.severity,
                        run_id=evaluation.run_id,
                    )
                )
            elif evaluation.is_true and incident is not None and _has_changed(incident, evaluation, rule):
                writes.append(
                    update_incident(
                        incident,
                        evaluation.value,
                        evaluation.text,
                        now,
                        severity=rule.severity,
                        run_id=evaluation.run_id,
                    )
                )
            elif not evaluation.is_true and incident is not None:
                writes.append(end_incident(incident, evaluation.text, now))
                ended += [(incident, evaluation.text)] if incident.state == "open" else []
        opened: list[tuple[Incident, str]] = []
        for subject, incident in of_rule.items():
            current = found.get(subject)
            if incident.state != "pending" or (current is not None and not current.is_true):
                continue
            row = {"incident_id": incident.incident_id, "now": iso_utc(now)}
            if incident.first_true_at > now:  # the clock was set back
                writes.append(("restart_incident", row))
            elif now - incident.first_true_at >= timedelta(seconds=rule.for_s):
                writes.append(("open_incident", row))
                opened.append((incident, current.text if current else incident.text))
        self._act(rule, opened, at.jobs, now)
        lasting = [one for one in of_rule.values() if one.state == "open" and not any(one is over for over, _ in ended)]
        writes += self._notify(rule, "alert", [one for one in opened if not at.is_silenced(*_key(one[0]))], at)
        writes += self._silenced([*lasting, *(incident for incident, _ in opened)], at)
        writes += self._notify(rule, "alert", _after_silence(lasting, found, at), at, again=True)
        for incident, text in ended:
            logger.info("alert over: {}: {}: {}", rule.title, incident.subject, text)
        return writes + self._notify(rule, "recovered", [one for one in ended if _is_known(one[0], at)], at)

    def _silenced(self, incidents: Iterable[Incident], at: Situation) -> list[LedgerWrite]:
        """Notes which open incidents a silence covers, so that they are reported when it ends."""
        writes: list[LedgerWrite] = []
        for incident in incidents:
            is_silenced = at.is_silenced(*_key(incident))
            if is_silenced != bool(incident.silenced_at):
                writes.append(set_silenced(*_key(incident), at.now if is_silenced else None))
        return writes

    def _act(self, rule: Rule, opened: IncidentGroup, jobs: Mapping[str, Job], now: datetime) -> None:
        """Executes the actions of a rule that are no messages."""
        if not opened:
            return
        for incident, text in opened:
            for level in ("error", "warning"):
                if f"log_{level}" in rule.actions:
                    logger.log(level.upper(), "alert: {}: {}: {}", rule.title, incident.subject, text)
        if "collect_garbage" in rule.actions:
            self._collect()
        if "disable_job" in rule.actions:
            for incident, _ in opened:
                if jobs[incident.subject].enabled:
                    self._request_disable(rule, incident.subject, now)

    def _notify(
        self,
        rule: Rule,
        kind: MessageKind,
        incidents: IncidentGroup,
        at: Situation,
        *,
        again: bool = False,
    ) -> list[LedgerWrite]:
        """One message for all that open or end at once: fifty jobs of one failed cluster are one mail."""
        writes: list[LedgerWrite] = []
        for channel, recipients, group in self._groups(rule, incidents, at):
            key = f"{kind} {','.join(str(incident.incident_id) for incident, _ in group)}"
            if again:
                key += f" after silence {iso_utc(at.now)}"
            if kind == "alert":
                notification = alert_notification(rule, group, at, again=again)
            else:
                notification = recovery_notification(rule, group, at)
            number, language = group[0][0].incident_id, self._recipients.language
            writes.append(new_message(kind, key, channel, recipients, notification, at.now, number, language))
            writes += [
                ("set_notified", {"incident_id": incident.incident_id, "now": iso_utc(at.now)}) for incident, _ in group
            ]
        return writes

    def _groups(
        self, rule: Rule, incidents: IncidentGroup, at: Situation
    ) -> Iterable[tuple[str, tuple[str, ...], IncidentGroup]]:
        """Yields channel, recipients and incidents of each message."""
        if not incidents:
            return
        for channel in (action for action in rule.actions if action in at.alerts.channels):
            yield channel, (), incidents
        if MAIL not in rule.actions:
            return
        groups: dict[tuple[str, ...], list[tuple[Incident, str]]] = {}
        for incident, text in incidents:
            job = at.jobs.get(incident.subject)
            of_job = job.email_notification.recipients if job and job.email_notification.on_failure else ()
            recipients = tuple(dict.fromkeys((*(rule.recipients or self._recipients.mail_to), *of_job)))
            groups.setdefault(recipients, []).append((incident, text))
        for recipients, group in groups.items():
            if recipients:
                yield MAIL, recipients, group

    def _daily_report(self, jobs: Mapping[str, Job], now: datetime) -> list[LedgerWrite]:
        """Today so far and yesterday, once a day."""
        to = self._recipients.report_to
        if not to:
            return []
        local = now.astimezone(ZoneInfo(self._recipients.timezone))
        key = f"receipt {local.date()}"
        if local.time() < self._recipients.report_at or self._outbox.was_queued(key, MAIL, to):
            return []
        days = (local.date(), local.date() - timedelta(days=1))
        reports = [
            make_daily_report(self._ledger, self._outbox, jobs.values(), day, now, self._recipients.timezone)
            for day in days
        ]
        made = daily_report_notification(*reports)
        return [new_message("receipt", key, MAIL, to, made, now, language=self._recipients.language)]


def _key(incident: Incident) -> tuple[str, str]:
    return incident.rule, incident.subject


def _has_changed(incident: Incident, evaluation: Evaluation, rule: Rule) -> bool:
    return evaluation.text != incident.text or rule.severity != incident.severity


def _after_silence(
    lasting: Iterable[Incident], found: Mapping[str, Evaluation], at: Situation
) -> list[tuple[Incident, str]]:
    """The open incidents whose silence has ended, each with its current text."""
    over = [incident for incident in lasting if incident.silenced_at and not at.is_silenced(*_key(incident))]
    return [(one, found[one.subject].text if one.subject in found else one.text) for one in over]


def _is_known(incident: Incident, at: Situation) -> bool:
    """Whether the end of an incident is reported: not while a silence holds, nor if it kept the beginning back."""
    if at.is_silenced(*_key(incident)):
        return False
    return incident.silenced_at is None or incident.notified_at is not None
