"""The condition of each alert rule: what it measures, for each subject."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec

from core.clock import iso_utc
from core.model.job import Job
from core.model.percentile import percentile
from core.notify.incidents import COMMIT_DELAY, Incident, LedgerWrite
from core.notify.outbox import Outbox
from core.notify.rules import Rule
from core.records.damaged_segments import damaged_segments
from core.records.ledger import Ledger
from core.records.outcomes import latest_due

__all__ = [
    "DAY",
    "MOST_DAMAGED_SEGMENTS",
    "RATES",
    "SAMPLE_LIFETIME",
    "EndedRun",
    "Evaluation",
    "RuleChecks",
    "ended_run",
    "newest_deadline",
    "within",
]

SAMPLE_LIFETIME = timedelta(minutes=10)
"""A cluster without a sample for this long is not used any more."""
MOST_DAMAGED_SEGMENTS = 100
"""Segments with an incident of their own: a failing disk damages many."""
_LATENCIES = msgspec.json.Decoder(dict[float, int], strict=False)
DAY = timedelta(days=1) - timedelta(microseconds=1)
"""A time that was due at the deadline of the day before belongs to that deadline."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Whether a rule's condition holds for one subject now."""

    is_true: bool
    value: float | None
    """The measured number, in the unit of the rule's threshold; None if the rule has no threshold."""
    text: str
    run_id: str = ""
    """The run that it is about; empty: no single one."""


@dataclass(frozen=True, slots=True)
class EndedRun:
    """The messages of one run that ended."""

    run_id: str
    finished_at: datetime
    acknowledged: int
    failed: int
    latency_counts: Mapping[float, int]
    """Milliseconds → messages."""
    error_text: str


class RuleChecks:
    """Evaluates the conditions of the rules.

    A job's rates are those of its runs that ended within the rule's time before the newest one. A job that sends once
    a night keeps the rates of that night until it sends again.

    Args:
        outbox: Ended runs and broker samples.
        ledger: Heartbeat, scheduled runs and runs.
        spool_dir: `.pstt/spool`.
    """

    def __init__(self, outbox: Outbox, ledger: Ledger, spool_dir: Path) -> None:
        self._outbox = outbox
        self._ledger = ledger
        self._spool_dir = spool_dir
        self._ended: dict[str, dict[str, EndedRun]] = {}
        """Job → run id → run, as far back as the rule with the longest time needs."""

    def forget(self, job: str | None = None) -> None:
        """Forgets the ended runs of a job, so that only new ones count; None: of all jobs."""
        if job is None:
            self._ended.clear()
        else:
            self._ended.pop(job, None)

    def read_ended_runs(self, longest_s: float, now: datetime) -> tuple[set[str], list[LedgerWrite]]:
        """Reads the runs that ended since the last call.

        Args:
            longest_s: The longest `for_s` of all rules.
            now: The current time.

        Returns:
            Jobs with new runs, and the write that records how far was read.
        """
        until = self._outbox.considered_until("sends")
        write: LedgerWrite = ("set_considered_until", {"what": "sends", "until": iso_utc(now)})
        if until is None:
            return set(), [write]
        fresh: set[str] = set()
        for row in self._outbox.rows("ended_runs", after=iso_utc(until - COMMIT_DELAY)):
            ended = self._ended.setdefault(row["job"], {})
            if row["run_id"] in ended or row["acknowledged"] + row["failed"] == 0:
                continue
            fresh.add(row["job"])
            ended[row["run_id"]] = ended_run(row)
        for job in fresh:
            newest = max(run.finished_at for run in self._ended[job].values())
            since = newest - max(timedelta(seconds=longest_s), 3 * COMMIT_DELAY)
            self._ended[job] = {run_id: run for run_id, run in self._ended[job].items() if run.finished_at > since}
        return fresh, [write]

    def evaluate(
        self,
        rule: Rule,
        jobs: Mapping[str, Job],
        incidents: Mapping[tuple[str, str], Incident],
        fresh: set[str],
        now: datetime,
    ) -> dict[str, Evaluation]:
        """Returns subject → evaluation, without subjects about which nothing new is known.

        Args:
            rule: An enabled rule.
            jobs: By slug.
            incidents: Pending and open ones by rule and subject.
            fresh: Jobs with new ended runs.
            now: The current time.
        """
        if rule.name == "producer_disconnected":
            return self.connections(now)
        if rule.name == "runner_memory":
            return self._memory(rule, now)
        if rule.name == "spool_damaged":
            return self._damaged(incidents)
        if rule.name == "job_late":
            return {job.slug: late for job in jobs.values() if (late := self.lateness(job, now))}
        measure = RATES[rule.name]
        found: dict[str, Evaluation] = {}
        for slug in fresh & jobs.keys():
            evaluation = measure(rule, within(self._ended[slug].values(), rule.for_s))
            if evaluation is not None:
                found[slug] = evaluation
        return found

    def connections(self, now: datetime) -> dict[str, Evaluation]:
        """Returns each cluster with a recent sample, by name: whether it did not answer."""
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
        """Each segment that was set aside; its incident ends when the operator has removed the file."""
        damaged = {
            segment.name: Evaluation(True, None, f"set aside {segment.set_aside_at:%Y-%m-%d %H:%M} UTC")
            for segment in damaged_segments(self._spool_dir)[:MOST_DAMAGED_SEGMENTS]
        }
        known = [subject for rule, subject in incidents if rule == "spool_damaged"]
        return {name: Evaluation(False, None, "it is not in damaged/ any more") for name in known} | damaged

    def lateness(self, job: Job, now: datetime) -> Evaluation | None:
        """Whether the newest time that was due in the day before the last `expect.by` has no success.

        Returns:
            None if the job has no `expect.by`, is not scheduled, or had nothing due on that day.
        """
        if job.expect.by is None:
            return None
        deadline = newest_deadline(job.expect.by, job.timezone, now)
        latest = latest_due(job, self._ledger, deadline, now, since=deadline - DAY)
        if latest is None:
            return None
        text = f"the run of {latest.due.scheduled_at.astimezone(ZoneInfo(job.timezone)):%d %b %H:%M}"
        if latest.succeeded is not None:
            return Evaluation(False, None, f"{text} succeeded")
        return Evaluation(True, None, f"{text} has not succeeded by {job.expect.by} {job.timezone}")


def newest_deadline(by: str, timezone: str, now: datetime) -> datetime:
    """Returns the newest moment, in UTC, at which the clock of the zone showed `by` (HH:MM)."""
    zone = ZoneInfo(timezone)
    local = now.astimezone(zone)
    today = datetime.combine(local.date(), time.fromisoformat(by), zone)
    if today <= local:
        return today.astimezone(UTC)
    return datetime.combine(local.date() - timedelta(days=1), time.fromisoformat(by), zone).astimezone(UTC)


def ended_run(row: sqlite3.Row) -> EndedRun:
    """Returns the run of a row of the statement `ended_runs`."""
    return EndedRun(
        row["run_id"],
        datetime.fromisoformat(row["finished_at"]),
        row["acknowledged"],
        row["failed"],
        _LATENCIES.decode(row["latency_counts"]),
        row["error_text"] or "",
    )


def within(ended: Iterable[EndedRun], for_s: float) -> list[EndedRun]:
    """Returns those that ended within the rule's time before the newest one; `ended` is not empty."""
    found = list(ended)
    newest = max(run.finished_at for run in found)
    return [run for run in found if newest - run.finished_at <= timedelta(seconds=for_s)]


def _counts(ended: Sequence[EndedRun]) -> tuple[int, int]:
    return sum(run.acknowledged for run in ended), sum(run.failed for run in ended)


def _success_rate(rule: Rule, ended: Sequence[EndedRun]) -> Evaluation:
    acknowledged, failed = _counts(ended)
    count = acknowledged + failed
    percent = 100 * acknowledged / count
    text = f"{_share(percent)} of {count:,} messages were acknowledged{_why(ended)}"
    if count == 1:
        text = f"{_share(percent)} of 1 message was acknowledged{_why(ended)}"
    return Evaluation(percent < (rule.threshold or 0), percent, text, _newest(ended, failed=True))


def _error_rate(rule: Rule, ended: Sequence[EndedRun]) -> Evaluation:
    acknowledged, failed = _counts(ended)
    count = acknowledged + failed
    percent = 100 * failed / count
    text = f"{_share(percent)} of {count:,} {'message' if count == 1 else 'messages'} failed{_why(ended)}"
    return Evaluation(percent > (rule.threshold or 0), percent, text, _newest(ended, failed=True))


def _latency(rule: Rule, ended: Sequence[EndedRun]) -> Evaluation | None:
    counts: Counter[float] = Counter()
    for run in ended:
        for latency_ms, count in run.latency_counts.items():
            counts[latency_ms] += count
    p99 = percentile(counts, 0.99)
    if p99 is None:
        return None
    count = sum(counts.values())
    text = f"99 % of {count:,} messages were acknowledged within {p99:,.0f} ms"
    if count == 1:
        text = f"1 message was acknowledged within {p99:,.0f} ms"
    return Evaluation(p99 > (rule.threshold or 0), p99, text, _newest(ended))


RATES: Mapping[str, Callable[[Rule, Sequence[EndedRun]], Evaluation | None]] = {
    "success_rate": _success_rate,
    "error_rate": _error_rate,
    "latency_p99": _latency,
}


def _share(percent: float) -> str:
    # Rounded down: 99.999 % is not all of them.
    return f"{int(percent * 100) / 100:g} %"


def _newest(ended: Sequence[EndedRun], *, failed: bool = False) -> str:
    """The id of the newest run, with `failed` of the newest one whose messages failed if there is one."""
    chosen = [run for run in ended if run.failed] if failed else []
    return max(chosen or ended, key=lambda run: run.finished_at).run_id


def _why(ended: Sequence[EndedRun]) -> str:
    newest = max((run for run in ended if run.failed), key=lambda run: run.finished_at, default=None)
    return f"; the last error: {newest.error_text}" if newest and newest.error_text else ""
