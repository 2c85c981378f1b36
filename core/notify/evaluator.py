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
from core.model.percentile import percentile
from core.model.run import Run
from core.notify.alert_messages import alert_notice, failure_notice, over_notice, success_notice
from core.notify.daily_report import make_receipt, receipt_notice
from core.notify.outbox import MAIL, Change, Incident, MessageKind, Outbox, entry_of
from core.notify.rules import AlertFile, Rule, default_alerts, load_alerts
from core.records.damaged_segments import damaged_segments
from core.records.ledger import Ledger
from core.records.outcomes import TICK, slots_of

__all__ = ["AlertRules", "Condition", "Recipients"]

BEFORE_COMMIT = timedelta(seconds=60)
"""A run is written down up to so long after the time that stands in it as its end."""
FAILURES_TOLD_EVERY = timedelta(hours=12)
"""A job that fails each hour is not told each hour; one that fails each day is told each day."""
SAMPLES_LIVE = timedelta(minutes=10)
"""A cluster that nobody has looked at for so long is not used any more."""
MOST_DAMAGED = 100
"""Segments that are told one by one: a disk that goes bad damages many."""
DISABLED_SETTLES = timedelta(seconds=30)
DISABLE_AGAIN = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a rule sees of one subject now."""

    is_true: bool
    value: float | None
    text: str


@dataclass(frozen=True, slots=True)
class Recipients:
    """Who is told what the rules find."""

    mail_to: tuple[str, ...] = ()
    """Where a rule names nobody."""
    receipt_to: tuple[str, ...] = ()
    receipt_at: time = time(7)
    timezone: str = "Europe/Rome"


@dataclass(frozen=True, slots=True)
class _End:
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
        ledger: Heartbeat, broker samples, requests and runs.
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
        told: Recipients,
        collect: Callable[[], Any] = gc.collect,
    ) -> None:
        self._outbox = outbox
        self._ledger = ledger
        self._file = rules_file
        self._spool_dir = spool_dir
        self._stamp: tuple[int, int] | None = None
        self._alerts: AlertFile | None = None
        self._jobs = jobs
        self._told = told
        self._collect = collect
        self._ends: dict[str, dict[str, _End]] = {}
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

    def _look(self, now: datetime) -> list[Change]:
        alerts = self._rules()
        jobs = {job.slug: job for job in self._jobs()}
        episodes = {(episode.rule, episode.subject): episode for episode in self._outbox.open_episodes()}
        changes = self._verdicts(jobs, episodes, now)
        fresh, until = self._take_ended(now)
        for rule in alerts.rules.values():
            found = self._conditions(rule, jobs, episodes, fresh, now) if rule.enabled else {}
            mine = {subject: episode for (name, subject), episode in episodes.items() if name == rule.name}
            changes += self._stale(rule, mine, jobs, now)
            self._insist(rule, mine, jobs, now)
            changes += self._hold(rule, found, mine, jobs, alerts, now)
        return changes + until + self._receipt(jobs, now)

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
        self, jobs: Mapping[str, Job], episodes: dict[tuple[str, str], Incident], now: datetime
    ) -> list[Change]:
        """A mail for each verdict that a job's `email_notification` asks for."""
        until = self._outbox.considered_until("verdicts")
        changes: list[Change] = [("set_considered", {"what": "verdicts", "until": iso_utc(now)})]
        gone = [e for (rule, slug), e in episodes.items() if rule == "job_failed" and slug not in jobs]
        changes += [_ending(episode, "the job has gone", now) for episode in gone]
        if until is None:
            return changes
        for row in self._outbox.rows("final_runs", after=iso_utc(until - BEFORE_COMMIT)):
            run_id = row["run_id"]
            if run_id in self._seen:
                continue
            self._seen[run_id] = now
            run = self._ledger.run(run_id)
            changes += self._verdict(run, jobs.get(run.job), episodes, now)
        self._seen = {run_id: at for run_id, at in self._seen.items() if now - at < 3 * BEFORE_COMMIT}
        return changes

    def _verdict(
        self, run: Run, job: Job | None, episodes: dict[tuple[str, str], Incident], now: datetime
    ) -> list[Change]:
        episode = episodes.get(("job_failed", run.job))
        wanted = job.email_notification if job else None
        if run.state == "succeeded":
            changes: list[Change] = []
            if episode:
                del episodes["job_failed", run.job]
                changes.append(_ending(episode, f"run {run.run_id} succeeded", now))
            was_told = episode is not None and episode.told_at is not None and wanted and wanted.on_failure
            if wanted and wanted.recipients and (wanted.on_success or was_told):
                notice = success_notice(run, episode)
                kind: MessageKind = "recovered" if was_told else "job"
                changes.append(entry_of(kind, f"run {run.run_id}", MAIL, wanted.recipients, notice, now))
            return changes
        return self._failure(run, job, episode, now)

    def _failure(self, run: Run, job: Job | None, episode: Incident | None, now: datetime) -> list[Change]:
        wanted = job.email_notification if job else None
        text = f"{run.state}: {run.error_text or 'no reason is known'}"
        changes: list[Change] = []
        if episode is None:
            changes.append(_beginning("job_failed", run.job, None, text, now, is_open=True))
        elif episode.text != text:
            changes.append(_keeping(episode, None, text, now))
        is_due = episode is None or episode.told_at is None or now - episode.told_at >= FAILURES_TOLD_EVERY
        if wanted and wanted.on_failure and wanted.recipients and is_due:
            changes.append(
                entry_of("job", f"run {run.run_id}", MAIL, wanted.recipients, failure_notice(run, episode), now)
            )
            changes.append(("told_job", {"subject": run.job, "now": iso_utc(now)}))
        return changes

    def _take_ended(self, now: datetime) -> tuple[set[str], list[Change]]:
        """New sends of runs that ended; the jobs that they are of."""
        until = self._outbox.considered_until("sends")
        change: Change = ("set_considered", {"what": "sends", "until": iso_utc(now)})
        longest = timedelta(seconds=max(rule.for_s for rule in self._rules().rules.values()))
        if until is None:
            return set(), [change]
        fresh: set[str] = set()
        for row in self._outbox.rows("ended_runs", after=iso_utc(until - BEFORE_COMMIT)):
            ends = self._ends.setdefault(row["job"], {})
            if row["run_id"] in ends or row["acknowledged"] + row["failed"] == 0:
                continue
            fresh.add(row["job"])
            ends[row["run_id"]] = _End(
                datetime.fromisoformat(row["finished_at"]),
                row["acknowledged"],
                row["failed"],
                json.loads(row["latency_counts"]),
                row["error_text"] or "",
            )
        for job in fresh:
            newest = max(end.finished_at for end in self._ends[job].values())
            since = newest - max(longest, 3 * BEFORE_COMMIT)
            self._ends[job] = {run: end for run, end in self._ends[job].items() if end.finished_at > since}
        return fresh, [change]

    def _conditions(
        self,
        rule: Rule,
        jobs: Mapping[str, Job],
        episodes: Mapping[tuple[str, str], Incident],
        fresh: set[str],
        now: datetime,
    ) -> dict[str, Condition]:
        """Subject → what is known now; a subject of which nothing new is known is left out."""
        if rule.name == "producer_disconnected":
            return self._connections(now)
        if rule.name == "runner_memory":
            return self._memory(rule, now)
        if rule.name == "spool_damaged":
            return self._damaged(episodes)
        if rule.name == "job_late":
            return {job.slug: late for job in jobs.values() if (late := self._lateness(job, now))}
        measured = {"success_rate": _success_rate, "error_rate": _error_rate, "latency_p99": _latency}[rule.name]
        figures: dict[str, Condition] = {}
        for slug in fresh & jobs.keys():
            condition = measured(rule, _within(self._ends[slug].values(), rule.for_s))
            if condition is not None:
                figures[slug] = condition
        return figures

    def _connections(self, now: datetime) -> dict[str, Condition]:
        found = {}
        for row in self._outbox.rows("newest_samples", since=iso_utc(now - SAMPLES_LIVE)):
            text = row["error"] or "it answers"
            found[row["cluster"]] = Condition(not row["connected"], None, text)
        return found

    def _memory(self, rule: Rule, now: datetime) -> dict[str, Condition]:
        beat = self._ledger.heartbeats.newest()
        if beat is None or not beat.is_alive(now):
            return {}
        percent = 100 * beat.memory_share
        text = f"it uses {percent:.1f} % of the machine's memory ({beat.memory_bytes / 1e6:,.0f} MB)"
        return {"runner": Condition(percent > (rule.threshold or 0), percent, text)}

    def _damaged(self, episodes: Mapping[tuple[str, str], Incident]) -> dict[str, Condition]:
        """Each segment that was set aside, told once; over when a person has taken it away."""
        there = {
            segment.name: Condition(True, None, f"set aside {segment.set_aside_at:%Y-%m-%d %H:%M} UTC")
            for segment in damaged_segments(self._spool_dir)[:MOST_DAMAGED]
        }
        known = [subject for rule, subject in episodes if rule == "spool_damaged"]
        return {name: Condition(False, None, "it is not in damaged/ any more") for name in known} | there

    def _lateness(self, job: Job, now: datetime) -> Condition | None:
        """Whether the newest scheduled time of the day before the newest `expect.by` has no success."""
        if job.expect.by is None or not job.enabled:
            return None
        deadline = _newest_deadline(job, now)
        since = deadline - timedelta(days=1) + TICK
        slots = slots_of(job, self._ledger, since, now + TICK, now)
        due = next((slot for slot in reversed(slots) if slot.is_due and slot.scheduled_at <= deadline), None)
        if due is None:
            return None
        text = f"the run of {due.scheduled_at.astimezone(ZoneInfo(job.timezone)):%d %b %H:%M}"
        if any(slot.has_succeeded for slot in slots if slot.scheduled_at >= due.scheduled_at):
            return Condition(False, None, f"{text} succeeded")
        return Condition(True, None, f"{text} has not succeeded by {job.expect.by} {job.timezone}")

    def _stale(self, rule: Rule, mine: dict[str, Incident], jobs: Mapping[str, Job], now: datetime) -> list[Change]:
        """Episodes that nobody cares about any more end without a word."""
        changes: list[Change] = []
        for subject, episode in list(mine.items()):
            why = self._why_stale(rule, episode, jobs, now)
            if why:
                del mine[subject]
                changes.append(_ending(episode, why, now))
        return changes

    def _why_stale(self, rule: Rule, episode: Incident, jobs: Mapping[str, Job], now: datetime) -> str:
        if not rule.enabled:
            return "the rule was disabled"
        if rule.name == "producer_disconnected":
            live = self._outbox.rows("newest_samples", since=iso_utc(now - SAMPLES_LIVE))
            return "" if episode.subject in {row["cluster"] for row in live} else "no job sends there any more"
        if rule.name in ("runner_memory", "spool_damaged"):
            return ""
        job = jobs.get(episode.subject)
        if job is None:
            return "the job has gone"
        if rule.name == "job_late":
            return "" if job.enabled and job.expect.by else "nobody waits for it any more"
        if job.enabled and episode.opened_at and "disable_job" in rule.actions and self._was_disabled(episode, now):
            self._ends.pop(episode.subject, None)  # who enables it again wants new sends to be judged
            return "the job was enabled again"
        return ""

    def _disable(self, rule: Rule, slug: str, now: datetime) -> None:
        self._ledger.requests.submit("disable", job=slug, asked_by=f"alert rule {rule.title}", now=now)

    def _insist(self, rule: Rule, mine: Mapping[str, Incident], jobs: Mapping[str, Job], now: datetime) -> None:
        """A job whose file is broken cannot be disabled, and goes on as it last was right: that is asked again."""
        if "disable_job" not in rule.actions:
            return
        for slug, episode in mine.items():
            if episode.opened_at is None or not jobs[slug].enabled:
                continue
            asked = (r for r in self._ledger.requests.newest() if r.job == slug and r.kind == "disable")
            newest = next((request for request in asked if request.asked_at >= episode.opened_at), None)
            if newest is None or newest.state != "refused" or now - newest.asked_at < DISABLE_AGAIN:
                continue
            _log().error("job {} could not be disabled by rule {}: {}", slug, rule.title, newest.answer)
            self._disable(rule, slug, now)

    def _was_disabled(self, episode: Incident, now: datetime) -> bool:
        trail = self._ledger.audit.entries(f"job {episode.subject}", 20)
        since, until = episode.opened_at or now, now - DISABLED_SETTLES
        return any(entry.action == "disable" and since <= entry.at <= until for entry in trail)

    def _hold(
        self,
        rule: Rule,
        found: Mapping[str, Condition],
        mine: Mapping[str, Incident],
        jobs: Mapping[str, Job],
        alerts: AlertFile,
        now: datetime,
    ) -> list[Change]:
        """Begins, keeps and ends episodes; those that have held for long enough are acted upon."""
        changes: list[Change] = []
        over: list[tuple[Incident, str]] = []
        opened: list[tuple[Incident, str]] = []
        for subject, condition in found.items():
            episode = mine.get(subject)
            if condition.is_true and episode is None:
                changes.append(_beginning(rule.name, subject, condition.value, condition.text, now))
            elif condition.is_true and episode is not None and condition.text != episode.text:
                changes.append(_keeping(episode, condition.value, condition.text, now))
            elif not condition.is_true and episode is not None:
                changes.append(_ending(episode, condition.text, now))
                over += [(episode, condition.text)] if episode.state == "open" else []
        for subject, episode in mine.items():
            still = found.get(subject)
            if episode.state != "pending" or (still is not None and not still.is_true):
                continue
            if episode.first_true_at > now:  # the clock was set back
                changes.append(("restart_episode", {"episode_id": episode.episode_id, "now": iso_utc(now)}))
            elif now - episode.first_true_at >= timedelta(seconds=rule.for_s):
                changes.append(("open_episode", {"episode_id": episode.episode_id, "now": iso_utc(now)}))
                opened.append((episode, still.text if still else episode.text))
        changes += self._act(rule, opened, jobs, alerts, now)
        return changes + self._tell_over(rule, over, jobs, alerts, now)

    def _act(
        self,
        rule: Rule,
        opened: Sequence[tuple[Incident, str]],
        jobs: Mapping[str, Job],
        alerts: AlertFile,
        now: datetime,
    ) -> list[Change]:
        if not opened:
            return []
        for episode, text in opened:
            for level in ("error", "warning"):
                if f"log_{level}" in rule.actions:
                    _log().log(level.upper(), "alert: {}: {}: {}", rule.title, episode.subject, text)
        if "collect_garbage" in rule.actions:
            self._collect()
        if "disable_job" in rule.actions:
            for episode, _ in opened:
                if jobs[episode.subject].enabled:
                    self._disable(rule, episode.subject, now)
        return self._tell(rule, "alert", opened, jobs, alerts, now)

    def _tell_over(
        self,
        rule: Rule,
        over: Sequence[tuple[Incident, str]],
        jobs: Mapping[str, Job],
        alerts: AlertFile,
        now: datetime,
    ) -> list[Change]:
        for episode, text in over:
            _log().info("alert over: {}: {}: {}", rule.title, episode.subject, text)
        return self._tell(rule, "recovered", over, jobs, alerts, now)

    def _tell(
        self,
        rule: Rule,
        kind: MessageKind,
        episodes: Sequence[tuple[Incident, str]],
        jobs: Mapping[str, Job],
        alerts: AlertFile,
        now: datetime,
    ) -> list[Change]:
        """One message for all that comes at once: fifty jobs of one dead cluster are one mail."""
        changes: list[Change] = []
        make = alert_notice if kind == "alert" else over_notice
        for channel, recipients, group in self._groups(rule, episodes, jobs, alerts):
            key = f"{kind} {','.join(str(episode.episode_id) for episode, _ in group)}"
            notice = make(rule, group, jobs, self._told.timezone, now)
            changes.append(entry_of(kind, key, channel, recipients, notice, now, group[0][0].episode_id))
            changes += [("told_episode", {"episode_id": e.episode_id, "now": iso_utc(now)}) for e, _ in group]
        return changes

    def _groups(
        self,
        rule: Rule,
        episodes: Sequence[tuple[Incident, str]],
        jobs: Mapping[str, Job],
        alerts: AlertFile,
    ) -> Iterable[tuple[str, tuple[str, ...], list[tuple[Incident, str]]]]:
        if not episodes:
            return
        for channel in (action for action in rule.actions if action in alerts.channels):
            yield channel, (), list(episodes)
        if "mail" not in rule.actions:
            return
        groups: dict[tuple[str, ...], list[tuple[Incident, str]]] = {}
        for episode, text in episodes:
            job = jobs.get(episode.subject)
            own = job.email_notification.recipients if job and job.email_notification.on_failure else ()
            recipients = tuple(dict.fromkeys((*(rule.recipients or self._told.mail_to), *own)))
            groups.setdefault(recipients, []).append((episode, text))
        for recipients, group in groups.items():
            if recipients:
                yield MAIL, recipients, group

    def _receipt(self, jobs: Mapping[str, Job], now: datetime) -> list[Change]:
        to = self._told.receipt_to
        if not to:
            return []
        local = now.astimezone(ZoneInfo(self._told.timezone))
        key = f"receipt {local.date()}"
        if local.time() < self._told.receipt_at or self._outbox.was_put(key, MAIL, to):
            return []
        days = (local.date(), local.date() - timedelta(days=1))
        made = [make_receipt(self._ledger, self._outbox, jobs.values(), day, now, self._told.timezone) for day in days]
        return [entry_of("receipt", key, MAIL, to, receipt_notice(*made), now)]


def _within(ends: Iterable[_End], for_s: float) -> list[_End]:
    """Those within the rule's time before the newest."""
    found = list(ends)
    newest = max(end.finished_at for end in found)
    return [end for end in found if newest - end.finished_at <= timedelta(seconds=for_s)]


def _counts(ends: Sequence[_End]) -> tuple[int, int]:
    return sum(end.acknowledged for end in ends), sum(end.failed for end in ends)


def _success_rate(rule: Rule, ends: Sequence[_End]) -> Condition:
    acknowledged, failed = _counts(ends)
    percent = 100 * acknowledged / (acknowledged + failed)
    text = f"{_share(percent)} of {acknowledged + failed:,} messages were acknowledged{_why(ends)}"
    return Condition(percent < (rule.threshold or 0), percent, text)


def _error_rate(rule: Rule, ends: Sequence[_End]) -> Condition:
    acknowledged, failed = _counts(ends)
    percent = 100 * failed / (acknowledged + failed)
    text = f"{_share(percent)} of {acknowledged + failed:,} messages failed{_why(ends)}"
    return Condition(percent > (rule.threshold or 0), percent, text)


def _latency(rule: Rule, ends: Sequence[_End]) -> Condition | None:
    counts: Counter[float] = Counter()
    for end in ends:
        for latency_ms, count in end.latency_counts.items():
            counts[float(latency_ms)] += count
    p99 = percentile(counts, 0.99)
    if p99 is None:
        return None
    text = f"99 % of {sum(counts.values()):,} messages were acknowledged within {p99:,.0f} ms"
    return Condition(p99 > (rule.threshold or 0), p99, text)


def _share(percent: float) -> str:
    return f"{int(percent * 100) / 100:g} %"


def _why(ends: Sequence[_End]) -> str:
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


def _beginning(
    rule: str, subject: str, value: float | None, text: str, now: datetime, *, is_open: bool = False
) -> Change:
    row = {"rule": rule, "subject": subject, "value": value, "text": text, "now": iso_utc(now), "is_open": is_open}
    return "begin_episode", row


def _keeping(episode: Incident, value: float | None, text: str, now: datetime) -> Change:
    return "keep_episode", {"episode_id": episode.episode_id, "value": value, "text": text, "now": iso_utc(now)}


def _ending(episode: Incident, text: str, now: datetime) -> Change:
    if episode.state == "pending":
        return "forget_episode", {"episode_id": episode.episode_id}
    return "end_episode", {
        "episode_id": episode.episode_id,
        "text": f"{episode.text}; then: {text}",
        "now": iso_utc(now),
    }


def _log() -> Any:
    from loguru import logger

    return logger
