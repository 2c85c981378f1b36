"""From what the ledger knows to what people are told: rules → episodes → messages in the outbox.

A condition that holds for as long as its rule says opens an episode; people are told once, and again when it is over.
A job's rates are those of its runs that ended within the rule's time before the newest one: a job that sends once a
night keeps the figures of that night, until new sends say something else. Nothing here sends: one look costs a few
statements on SQLite, and is one transaction, so that an episode and the message about it come together or not at all.
"""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from core.clock import iso_utc
from core.errors import ConfigError
from core.model.job import Job
from core.model.run import Run
from core.notify.alert_messages import (
    alert_notification,
    failure_notification,
    recovery_notification,
    success_notification,
)
from core.notify.daily_report import daily_report_notification, make_daily_report, percentile
from core.notify.outbox import MAIL, Incident, LedgerWrite, MessageKind, Outbox, new_message
from core.notify.rules import AlertFile, Rule, default_alerts, load_alerts
from core.records.damaged_segments import damaged_segments
from core.records.ledger import Ledger
from core.records.outcomes import latest_due

__all__ = ["AlertRules", "Evaluation", "Recipients"]

COMMIT_DELAY = timedelta(seconds=60)
"""A run is written down up to so long after the time that stands in it as its end."""
FAILURES_REPEATED_EVERY = timedelta(hours=12)
"""A job that fails each hour is not told each hour; one that fails each day is told each day."""
SAMPLE_LIFETIME = timedelta(minutes=10)
"""A cluster that nobody has looked at for so long is not used any more."""
MOST_DAMAGED_SEGMENTS = 100
"""Segments that are told one by one: a disk that goes bad damages many."""
DAY = timedelta(days=1) - timedelta(microseconds=1)
"""The span before a deadline in which a time has to be due for it; a time at the deadline of the day before is not."""
DISABLE_SETTLES = timedelta(seconds=30)
DISABLE_RETRIED_AFTER = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a rule sees of one subject now."""

    is_true: bool
    value: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Recipients:
    """Who is told what the rules find."""

    mail_to: tuple[str, ...] = ()
    """Where a rule names nobody."""
    report_to: tuple[str, ...] = ()
    report_at: time = time(7)
    timezone: str = "Europe/Rome"


@dataclass(frozen=True, slots=True)
class _EndedRun:
    """The sends of one run."""

    finished_at: datetime
    acknowledged: int
    failed: int
    latency_counts: Mapping[str, int]
    error_text: str


class AlertRules:
    """The rules of one workspace; belongs to the thread that made it.

    Args:
        outbox: Episodes and messages.
        ledger: Heartbeat, broker samples, requests.
        ledger: Runs.
        spool_dir: `.pstt/spool`.
        rules_file: alerts.json; looked at each time, its last good version stays while somebody edits it.
        jobs: The jobs as the runner knows them.
        told: Who is told.
        collect: Collects garbage.
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
        self._spool_dir = spool_dir
        self._stamp: tuple[int, int] | None = None
        self._alerts: AlertFile | None = None
        self._jobs = jobs
        self._recipients = recipients
        self._collect = collect
        self._ends: dict[str, dict[str, _EndedRun]] = {}
        """Job → run → its sends, as far back as the longest rule looks."""
        self._seen: dict[str, datetime] = {}
        """Final runs that were told about, until the look back does not find them any more."""

    def evaluate(self, now: datetime) -> None:
        """Looks once; what has changed is written in one transaction.

        Raises:
            StorageFailed: The ledger cannot be written; the next look sees the same again.
            LedgerBusy: As above.
        """
        try:
            self._outbox.apply(self._look(now))
        except BaseException:  # what was taken in is taken in again by the next look
            self._ends.clear()
            self._seen.clear()
            raise

    def _look(self, now: datetime) -> list[LedgerWrite]:
        alerts = self._rules()
        jobs = {job.slug: job for job in self._jobs()}
        incidents = {(incident.rule, incident.subject): incident for incident in self._outbox.open_incidents()}
        changes = self._verdicts(jobs, incidents, now)
        fresh, until = self._take_ended(now)
        for rule in alerts.rules.values():
            found = self._conditions(rule, jobs, incidents, fresh, now) if rule.enabled else {}
            mine = {subject: incident for (name, subject), incident in incidents.items() if name == rule.name}
            changes += self._stale(rule, mine, jobs, now)
            self._insist(rule, mine, jobs, now)
            changes += self._hold(rule, found, mine, jobs, alerts, now)
        return changes + until + self._daily_report(jobs, now)

    def _rules(self) -> AlertFile:
        """The file as it last was right; at the start the defaults where it never was."""
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
                _log().error("{}; {}", error, instead)
                self._alerts = self._alerts or default_alerts()
        return self._alerts

    def _verdicts(
        self, jobs: Mapping[str, Job], incidents: dict[tuple[str, str], Incident], now: datetime
    ) -> list[LedgerWrite]:
        """A mail for each verdict that a job's `email_notification` asks for."""
        until = self._outbox.considered_until("verdicts")
        changes: list[LedgerWrite] = [("set_considered", {"what": "verdicts", "until": iso_utc(now)})]
        gone = [e for (rule, slug), e in incidents.items() if rule == "job_failed" and slug not in jobs]
        changes += [_end(incident, "the job has gone", now) for incident in gone]
        if until is None:
            return changes
        for row in self._outbox.rows("final_runs", after=iso_utc(until - COMMIT_DELAY)):
            run_id = row["run_id"]
            if run_id in self._seen:
                continue
            self._seen[run_id] = now
            run = self._ledger.run(run_id)
            changes += self._verdict(run, jobs.get(run.job), incidents, now)
        self._seen = {run_id: at for run_id, at in self._seen.items() if now - at < 3 * COMMIT_DELAY}
        return changes

    def _verdict(
        self, run: Run, job: Job | None, incidents: dict[tuple[str, str], Incident], now: datetime
    ) -> list[LedgerWrite]:
        incident = incidents.get(("job_failed", run.job))
        wanted = job.email_notification if job else None
        if run.state == "succeeded":
            changes: list[LedgerWrite] = []
            if incident:
                del incidents["job_failed", run.job]
                changes.append(_end(incident, f"run {run.run_id} succeeded", now))
            was_notified = incident is not None and incident.notified_at is not None and wanted and wanted.on_failure
            if wanted and wanted.recipients and (wanted.on_success or was_notified):
                notification = success_notification(run, incident)
                kind: MessageKind = "recovered" if was_notified else "job"
                changes.append(new_message(kind, f"run {run.run_id}", MAIL, wanted.recipients, notification, now))
            return changes
        return self._failure(run, job, incident, now)

    def _failure(self, run: Run, job: Job | None, incident: Incident | None, now: datetime) -> list[LedgerWrite]:
        wanted = job.email_notification if job else None
        text = f"{run.state}: {run.error_text or 'no reason is known'}"
        changes: list[LedgerWrite] = []
        if incident is None:
            changes.append(_begin("job_failed", run.job, None, text, now, is_open=True))
        elif incident.text != text:
            changes.append(_update(incident, None, text, now))
        is_due = (
            incident is None or incident.notified_at is None or now - incident.notified_at >= FAILURES_REPEATED_EVERY
        )
        if wanted and wanted.on_failure and wanted.recipients and is_due:
            changes.append(
                new_message(
                    "job", f"run {run.run_id}", MAIL, wanted.recipients, failure_notification(run, incident), now
                )
            )
            changes.append(("told_job", {"subject": run.job, "now": iso_utc(now)}))
        return changes

    def _take_ended(self, now: datetime) -> tuple[set[str], list[LedgerWrite]]:
        """New sends of runs that ended; the jobs that they are of."""
        until = self._outbox.considered_until("sends")
        change: LedgerWrite = ("set_considered", {"what": "sends", "until": iso_utc(now)})
        longest = timedelta(seconds=max(rule.for_s for rule in self._rules().rules.values()))
        if until is None:
            return set(), [change]
        fresh: set[str] = set()
        for row in self._outbox.rows("ended_runs", after=iso_utc(until - COMMIT_DELAY)):
            ends = self._ends.setdefault(row["job"], {})
            if row["run_id"] in ends or row["acknowledged"] + row["failed"] == 0:
                continue
            fresh.add(row["job"])
            ends[row["run_id"]] = _EndedRun(
                datetime.fromisoformat(row["finished_at"]),
                row["acknowledged"],
                row["failed"],
                json.loads(row["latency_counts"]),
                row["error_text"] or "",
            )
        for job in fresh:
            newest = max(end.finished_at for end in self._ends[job].values())
            since = newest - max(longest, 3 * COMMIT_DELAY)
            self._ends[job] = {run: end for run, end in self._ends[job].items() if end.finished_at > since}
        return fresh, [change]

    def _conditions(
        self,
        rule: Rule,
        jobs: Mapping[str, Job],
        incidents: Mapping[tuple[str, str], Incident],
        fresh: set[str],
        now: datetime,
    ) -> dict[str, Evaluation]:
        """Subject → what is known now; a subject of which nothing new is known is left out."""
        if rule.name == "producer_disconnected":
            return self._connections(now)
        if rule.name == "runner_memory":
            return self._memory(rule, now)
        if rule.name == "spool_damaged":
            return self._damaged(incidents)
        if rule.name == "job_late":
            return {job.slug: late for job in jobs.values() if (late := self._lateness(job, now))}
        measured = {"success_rate": _success_rate, "error_rate": _error_rate, "latency_p99": _latency}[rule.name]
        figures: dict[str, Evaluation] = {}
        for slug in fresh & jobs.keys():
            condition = measured(rule, _within(self._ends[slug].values(), rule.for_s))
            if condition is not None:
                figures[slug] = condition
        return figures

    def _connections(self, now: datetime) -> dict[str, Evaluation]:
        found = {}
        for row in self._outbox.rows("newest_samples", since=iso_utc(now - SAMPLE_LIFETIME)):
            text = row["error"] or "it answers"
            found[row["cluster"]] = Evaluation(not row["connected"], None, text)
        return found

    def _memory(self, rule: Rule, now: datetime) -> dict[str, Evaluation]:
        beat = self._ledger.heartbeats.newest()
        if beat is None or not beat.is_alive(now):
            return {}
        percent = 100 * beat.memory_share
        text = f"it uses {percent:.1f} % of the machine's memory ({beat.memory_bytes / 1e6:,.0f} MB)"
        return {"runner": Evaluation(percent > (rule.threshold or 0), percent, text)}

    def _damaged(self, incidents: Mapping[tuple[str, str], Incident]) -> dict[str, Evaluation]:
        """Each segment that was set aside, told once; over when a person has taken it away."""
        there = {
            segment.name: Evaluation(True, None, f"set aside {segment.set_aside_at:%Y-%m-%d %H:%M} UTC")
            for segment in damaged_segments(self._spool_dir)[:MOST_DAMAGED_SEGMENTS]
        }
        known = [subject for rule, subject in incidents if rule == "spool_damaged"]
        return {name: Evaluation(False, None, "it is not in damaged/ any more") for name in known} | there

    def _lateness(self, job: Job, now: datetime) -> Evaluation | None:
        """Whether the newest scheduled time of the day before the newest `expect.by` has no success."""
        if job.expect.by is None:
            return None
        deadline = _newest_deadline(job, now)
        latest = latest_due(job, self._ledger, deadline, now, since=deadline - DAY)
        if latest is None:
            return None
        text = f"the run of {latest.due.scheduled_at.astimezone(ZoneInfo(job.timezone)):%d %b %H:%M}"
        if latest.succeeded is not None:
            return Evaluation(False, None, f"{text} succeeded")
        return Evaluation(True, None, f"{text} has not succeeded by {job.expect.by} {job.timezone}")

    def _stale(
        self, rule: Rule, mine: dict[str, Incident], jobs: Mapping[str, Job], now: datetime
    ) -> list[LedgerWrite]:
        """Episodes that nobody cares about any more end without a word."""
        changes: list[LedgerWrite] = []
        for subject, incident in list(mine.items()):
            why = self._why_stale(rule, incident, jobs, now)
            if why:
                del mine[subject]
                changes.append(_end(incident, why, now))
        return changes

    def _why_stale(self, rule: Rule, incident: Incident, jobs: Mapping[str, Job], now: datetime) -> str:
        if not rule.enabled:
            return "the rule was disabled"
        if rule.name == "producer_disconnected":
            live = self._outbox.rows("newest_samples", since=iso_utc(now - SAMPLE_LIFETIME))
            return "" if incident.subject in {row["cluster"] for row in live} else "no job sends there any more"
        if rule.name in ("runner_memory", "spool_damaged"):
            return ""
        job = jobs.get(incident.subject)
        if job is None:
            return "the job has gone"
        if rule.name == "job_late":
            return "" if job.is_scheduled and job.expect.by else "nobody waits for it any more"
        if job.enabled and incident.opened_at and "disable_job" in rule.actions and self._was_disabled(incident, now):
            self._ends.pop(incident.subject, None)  # who enables it again wants new sends to be judged
            return "the job was enabled again"
        return ""

    def _disable(self, rule: Rule, slug: str, now: datetime) -> None:
        self._ledger.requests.submit("disable", job=slug, asked_by=f"alert rule {rule.title}", now=now)

    def _insist(self, rule: Rule, mine: Mapping[str, Incident], jobs: Mapping[str, Job], now: datetime) -> None:
        """A job whose file is broken cannot be disabled, and goes on as it last was right: that is asked again."""
        if "disable_job" not in rule.actions:
            return
        for slug, incident in mine.items():
            if incident.opened_at is None or not jobs[slug].enabled:
                continue
            asked = (r for r in self._ledger.requests.newest() if r.job == slug and r.kind == "disable")
            newest = next((request for request in asked if request.asked_at >= incident.opened_at), None)
            if newest is None or newest.state != "refused" or now - newest.asked_at < DISABLE_RETRIED_AFTER:
                continue
            _log().error("job {} could not be disabled by rule {}: {}", slug, rule.title, newest.answer)
            self._disable(rule, slug, now)

    def _was_disabled(self, incident: Incident, now: datetime) -> bool:
        trail = self._ledger.audit.messages(f"job {incident.subject}", 20)
        since, until = incident.opened_at or now, now - DISABLE_SETTLES
        return any(message.action == "disable" and since <= message.at <= until for message in trail)

    def _hold(
        self,
        rule: Rule,
        found: Mapping[str, Evaluation],
        mine: Mapping[str, Incident],
        jobs: Mapping[str, Job],
        alerts: AlertFile,
        now: datetime,
    ) -> list[LedgerWrite]:
        """Begins, keeps and ends episodes; those that have held for long enough are acted upon."""
        changes: list[LedgerWrite] = []
        over: list[tuple[Incident, str]] = []
        opened: list[tuple[Incident, str]] = []
        for subject, condition in found.items():
            incident = mine.get(subject)
            if condition.is_true and incident is None:
                changes.append(_begin(rule.name, subject, condition.value, condition.text, now))
            elif condition.is_true and incident is not None and condition.text != incident.text:
                changes.append(_update(incident, condition.value, condition.text, now))
            elif not condition.is_true and incident is not None:
                changes.append(_end(incident, condition.text, now))
                over += [(incident, condition.text)] if incident.state == "open" else []
        for subject, incident in mine.items():
            still = found.get(subject)
            if incident.state != "pending" or (still is not None and not still.is_true):
                continue
            if incident.first_true_at > now:  # the clock was set back
                changes.append(("restart_episode", {"episode_id": incident.incident_id, "now": iso_utc(now)}))
            elif now - incident.first_true_at >= timedelta(seconds=rule.for_s):
                changes.append(("open_episode", {"episode_id": incident.incident_id, "now": iso_utc(now)}))
                opened.append((incident, still.text if still else incident.text))
        changes += self._act(rule, opened, jobs, alerts, now)
        return changes + self._tell_over(rule, over, jobs, alerts, now)

    def _act(
        self,
        rule: Rule,
        opened: Sequence[tuple[Incident, str]],
        jobs: Mapping[str, Job],
        alerts: AlertFile,
        now: datetime,
    ) -> list[LedgerWrite]:
        if not opened:
            return []
        for incident, text in opened:
            for level in ("error", "warning"):
                if f"log_{level}" in rule.actions:
                    _log().log(level.upper(), "alert: {}: {}: {}", rule.title, incident.subject, text)
        if "collect_garbage" in rule.actions:
            self._collect()
        if "disable_job" in rule.actions:
            for incident, _ in opened:
                if jobs[incident.subject].enabled:
                    self._disable(rule, incident.subject, now)
        return self._tell(rule, "alert", opened, jobs, alerts, now)

    def _tell_over(
        self,
        rule: Rule,
        over: Sequence[tuple[Incident, str]],
        jobs: Mapping[str, Job],
        alerts: AlertFile,
        now: datetime,
    ) -> list[LedgerWrite]:
        for incident, text in over:
            _log().info("alert over: {}: {}: {}", rule.title, incident.subject, text)
        return self._tell(rule, "recovered", over, jobs, alerts, now)

    def _tell(
        self,
        rule: Rule,
        kind: MessageKind,
        incidents: Sequence[tuple[Incident, str]],
        jobs: Mapping[str, Job],
        alerts: AlertFile,
        now: datetime,
    ) -> list[LedgerWrite]:
        """One message for all that comes at once: fifty jobs of one dead cluster are one mail."""
        changes: list[LedgerWrite] = []
        make = alert_notification if kind == "alert" else recovery_notification
        for channel, recipients, group in self._groups(rule, incidents, jobs, alerts):
            key = f"{kind} {','.join(str(incident.incident_id) for incident, _ in group)}"
            notification = make(rule, group, jobs, self._recipients.timezone, now)
            changes.append(new_message(kind, key, channel, recipients, notification, now, group[0][0].incident_id))
            changes += [("told_episode", {"episode_id": e.incident_id, "now": iso_utc(now)}) for e, _ in group]
        return changes

    def _groups(
        self,
        rule: Rule,
        incidents: Sequence[tuple[Incident, str]],
        jobs: Mapping[str, Job],
        alerts: AlertFile,
    ) -> Iterable[tuple[str, tuple[str, ...], list[tuple[Incident, str]]]]:
        if not incidents:
            return
        for channel in (action for action in rule.actions if action in alerts.channels):
            yield channel, (), list(incidents)
        if "mail" not in rule.actions:
            return
        groups: dict[tuple[str, ...], list[tuple[Incident, str]]] = {}
        for incident, text in incidents:
            job = jobs.get(incident.subject)
            own = job.email_notification.recipients if job and job.email_notification.on_failure else ()
            recipients = tuple(dict.fromkeys((*(rule.recipients or self._recipients.mail_to), *own)))
            groups.setdefault(recipients, []).append((incident, text))
        for recipients, group in groups.items():
            if recipients:
                yield MAIL, recipients, group

    def _daily_report(self, jobs: Mapping[str, Job], now: datetime) -> list[LedgerWrite]:
        to = self._recipients.report_to
        if not to:
            return []
        local = now.astimezone(ZoneInfo(self._recipients.timezone))
        key = f"receipt {local.date()}"
        if local.time() < self._recipients.report_at or self._outbox.was_queued(key, MAIL, to):
            return []
        days = (local.date(), local.date() - timedelta(days=1))
        made = [
            make_daily_report(self._ledger, self._outbox, jobs.values(), day, now, self._recipients.timezone)
            for day in days
        ]
        return [new_message("receipt", key, MAIL, to, daily_report_notification(*made), now)]


def _within(ends: Iterable[_EndedRun], for_s: float) -> list[_EndedRun]:
    """Those within the rule's time before the newest."""
    found = list(ends)
    newest = max(end.finished_at for end in found)
    return [end for end in found if newest - end.finished_at <= timedelta(seconds=for_s)]


def _counts(ends: Sequence[_EndedRun]) -> tuple[int, int]:
    return sum(end.acknowledged for end in ends), sum(end.failed for end in ends)


def _success_rate(rule: Rule, ends: Sequence[_EndedRun]) -> Evaluation:
    acknowledged, failed = _counts(ends)
    percent = 100 * acknowledged / (acknowledged + failed)
    text = f"{_share(percent)} of {acknowledged + failed:,} messages were acknowledged{_why(ends)}"
    return Evaluation(percent < (rule.threshold or 0), percent, text)


def _error_rate(rule: Rule, ends: Sequence[_EndedRun]) -> Evaluation:
    acknowledged, failed = _counts(ends)
    percent = 100 * failed / (acknowledged + failed)
    text = f"{_share(percent)} of {acknowledged + failed:,} messages failed{_why(ends)}"
    return Evaluation(percent > (rule.threshold or 0), percent, text)


def _latency(rule: Rule, ends: Sequence[_EndedRun]) -> Evaluation | None:
    counts: Counter[float] = Counter()
    for end in ends:
        for latency_ms, count in end.latency_counts.items():
            counts[float(latency_ms)] += count
    p99 = percentile(counts, 0.99)
    if p99 is None:
        return None
    text = f"99 % of {sum(counts.values()):,} messages were acknowledged within {p99:,.0f} ms"
    return Evaluation(p99 > (rule.threshold or 0), p99, text)


def _share(percent: float) -> str:
    return f"{int(percent * 100) / 100:g} %"


def _why(ends: Sequence[_EndedRun]) -> str:
    newest = max((end for end in ends if end.failed), key=lambda end: end.finished_at, default=None)
    return f"; the last error: {newest.error_text}" if newest and newest.error_text else ""


def _newest_deadline(job: Job, now: datetime) -> datetime:
    zone = ZoneInfo(job.timezone)
    local = now.astimezone(zone)
    by = time.fromisoformat(job.expect.by or "00:00")
    today = datetime.combine(local.date(), by, zone)
    if today <= local:
        return today.astimezone(UTC)
    return datetime.combine(local.date() - timedelta(days=1), by, zone).astimezone(UTC)


def _begin(
    rule: str, subject: str, value: float | None, text: str, now: datetime, *, is_open: bool = False
) -> LedgerWrite:
    row = {"rule": rule, "subject": subject, "value": value, "text": text, "now": iso_utc(now), "is_open": is_open}
    return "begin_episode", row


def _update(incident: Incident, value: float | None, text: str, now: datetime) -> LedgerWrite:
    return "keep_episode", {"episode_id": incident.incident_id, "value": value, "text": text, "now": iso_utc(now)}


def _end(incident: Incident, text: str, now: datetime) -> LedgerWrite:
    if incident.state == "pending":
        return "forget_episode", {"episode_id": incident.incident_id}
    return "end_episode", {
        "episode_id": incident.incident_id,
        "text": f"{incident.text}; then: {text}",
        "now": iso_utc(now),
    }


def _log() -> Any:
    from loguru import logger

    return logger
