"""Evaluates alert rules over the history: what would have fired with these numbers.

It reads what the ledger has kept: runs, connection checks (90 days) and scheduled times. It changes and sends nothing.
A rule's other actions are not imagined: a job that `disable_job` would have disabled goes on as it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import get_args
from zoneinfo import ZoneInfo

from core.clock import iso_utc
from core.errors import ConfigError
from core.model.job import Job
from core.notify.outbox import Outbox
from core.notify.rule_checks import (
    DAY,
    RATES,
    SAMPLE_LIFETIME,
    EndedRun,
    Evaluation,
    ended_run,
    newest_deadline,
    within,
)
from core.notify.rules import JOB_FAILED, AlertFile, Rule, RuleName
from core.records.damaged_segments import damaged_segments
from core.records.ledger import Ledger
from core.records.outcomes import TICK as OUTCOME_TICK
from core.records.outcomes import ScheduledOutcome, scheduled_outcomes

__all__ = ["LONGEST_DAYS", "NO_HISTORY", "Simulation", "WouldFire", "simulate"]

LONGEST_DAYS = 90
"""As far back as connection checks are kept."""
WARM_UP = timedelta(days=7)
"""Failures in a row are counted from so long before the first day."""
NO_HISTORY: Mapping[str, str] = {"runner_memory": "the memory of the runner is not recorded"}
"""Rules whose past is not known, and why."""

Point = tuple[datetime, Evaluation]
"""A time, and the condition from then on."""


@dataclass(frozen=True, slots=True)
class WouldFire:
    """One incident that a rule would have opened."""

    rule: RuleName
    subject: str
    opened_at: datetime
    ended_at: datetime | None
    """None: the condition still holds at the end."""
    text: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Simulation:
    """What the rules would have done in a span of the past."""

    since: datetime
    until: datetime
    rules: Mapping[str, Rule]
    fired: tuple[WouldFire, ...]
    """In order of time."""

    def of_rule(self, name: str) -> list[WouldFire]:
        """Returns the incidents of one rule."""
        return [one for one in self.fired if one.rule == name]


def simulate(
    alerts: AlertFile, jobs: Sequence[Job], outbox: Outbox, ledger: Ledger, *, days: int, now: datetime
) -> Simulation:
    """Evaluates rules over the last days.

    Args:
        alerts: The rules; those that are disabled fire nothing.
        jobs: As they are now; jobs that are gone are left out.
        outbox: Ended runs and verdicts.
        ledger: Connection checks and scheduled times.
        days: How far back, from 1 to 90.
        now: The end of the span.

    Raises:
        ConfigError: The number of days is out of range.
    """
    if not 1 <= days <= LONGEST_DAYS:
        raise ConfigError(
            f"{days} days cannot be simulated", remedy=f"choose 1 to {LONGEST_DAYS} days: older checks are not kept"
        )
    past = _Past(alerts, {job.slug: job for job in jobs}, outbox, ledger, now - timedelta(days=days), now)
    fired = [one for name in get_args(RuleName) for one in past.fired(alerts.rules[name])]
    fired.sort(key=lambda one: (one.opened_at, one.rule, one.subject))
    return Simulation(past.since, now, dict(alerts.rules), tuple(fired))


class _Past:
    """The history of one workspace between two times."""

    def __init__(
        self,
        alerts: AlertFile,
        jobs: Mapping[str, Job],
        outbox: Outbox,
        ledger: Ledger,
        since: datetime,
        until: datetime,
    ) -> None:
        self._longest = timedelta(seconds=max(alerts.rules[name].for_s for name in RATES))
        self._jobs, self._outbox, self._ledger = jobs, outbox, ledger
        self.since, self.until = since, until

    def fired(self, rule: Rule) -> Iterator[WouldFire]:
        """Yields the incidents of one rule that would have opened in the span."""
        if not rule.enabled or rule.name in NO_HISTORY:
            return
        for subject, points in self._points(rule):
            for one in _incidents(rule, subject, points, self.until):
                if one.opened_at >= self.since:
                    yield one

    def _points(self, rule: Rule) -> Iterator[tuple[str, Iterable[Point]]]:
        """Yields each subject with the times at which its condition may have changed, in order."""
        if rule.name == "producer_disconnected":
            yield from self._connections(rule)
        elif rule.name == JOB_FAILED:
            yield from self._verdicts(rule)
        elif rule.name == "job_late":
            yield from ((job.slug, self._deadlines(job, job.expect.by)) for job in self._jobs.values() if job.expect.by)
        elif rule.name == "spool_damaged":
            for segment in damaged_segments(self._outbox.file.parent / "spool"):
                at = segment.set_aside_at
                yield segment.name, [(at, Evaluation(True, None, f"set aside {at:%Y-%m-%d %H:%M} UTC"))]
        else:
            yield from self._rates(rule)

    def _rates(self, rule: Rule) -> Iterator[tuple[str, Iterable[Point]]]:
        begin = self.since - 2 * timedelta(seconds=rule.for_s)
        for slug, runs in self._ended.items():
            first = next((index for index, run in enumerate(runs) if run.finished_at > begin), len(runs))
            yield slug, _rates(rule, runs[first:])

    @cached_property
    def _ended(self) -> Mapping[str, list[EndedRun]]:
        """The runs of each job that ended in the span or before it within the time of a rule, in order."""
        by_job: dict[str, list[EndedRun]] = {}
        for row in self._outbox.rows("ended_runs", after=iso_utc(self.since - 2 * self._longest)):
            if row["job"] in self._jobs and row["acknowledged"] + row["failed"]:
                by_job.setdefault(row["job"], []).append(ended_run(row))
        return by_job

    def _connections(self, rule: Rule) -> Iterator[tuple[str, Iterable[Point]]]:
        by_cluster: dict[str, list[Point]] = {}
        for sample in self._ledger.broker_samples.since(self.since - timedelta(seconds=rule.for_s)):
            points = by_cluster.setdefault(sample.cluster, [])
            if points and sample.at - points[-1][0] > SAMPLE_LIFETIME:  # no runner checked it
                points.append((points[-1][0] + SAMPLE_LIFETIME, Evaluation(False, None, "")))
            points.append((sample.at, Evaluation(not sample.connected, None, sample.error or "it answers")))
        for cluster, points in by_cluster.items():
            if self.until - points[-1][0] > SAMPLE_LIFETIME:
                points.append((points[-1][0] + SAMPLE_LIFETIME, Evaluation(False, None, "")))
            yield cluster, points

    def _verdicts(self, rule: Rule) -> Iterator[tuple[str, Iterable[Point]]]:
        by_job: dict[str, list[Point]] = {}
        failures: dict[str, int] = {}
        span = {"after": iso_utc(self.since - WARM_UP), "until": iso_utc(self.until)}
        for row in self._outbox.rows("verdicts_between", **span):
            slug = row["job"]
            if slug not in self._jobs:
                continue
            failures[slug] = 0 if row["state"] == "succeeded" else failures.get(slug, 0) + 1
            text = f"{row['state']}: {row['error_text'] or 'no reason is known'}"
            is_true = failures[slug] >= (rule.threshold or 1)
            point = Evaluation(is_true, failures[slug], text, row["run_id"])
            by_job.setdefault(slug, []).append((datetime.fromisoformat(row["at"]), point))
        yield from by_job.items()

    def _deadlines(self, job: Job, by: str) -> Iterator[Point]:
        """Yields, for each deadline of the span, whether the job was late, and when it caught up."""
        day = self.since.astimezone(ZoneInfo(job.timezone)).date()
        while True:
            day += timedelta(days=1)  # the deadline of the day before is the newest one as this day begins
            begin = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(job.timezone)).astimezone(UTC)
            deadline = newest_deadline(by, job.timezone, begin - timedelta(microseconds=1))
            if deadline > self.until:
                return
            found = scheduled_outcomes(job, self._ledger, deadline - DAY, deadline + OUTCOME_TICK, self.until)
            due = next((outcome for outcome in reversed(found) if outcome.is_due), None)
            if due is None:
                continue
            arrived = self._arrival(job, due)
            if arrived is None or arrived > deadline:
                at = due.scheduled_at.astimezone(ZoneInfo(job.timezone))
                text = f"the run of {at:%d %b %H:%M} has not succeeded by {by} {job.timezone}"
                yield deadline, Evaluation(True, None, text)
            else:
                yield deadline, Evaluation(False, None, "it succeeded")
            if arrived is not None and arrived > deadline:
                yield arrived, Evaluation(False, None, "it succeeded")

    def _arrival(self, job: Job, due: ScheduledOutcome) -> datetime | None:
        """When the due time or a later one succeeded first; None: it has not."""
        later = scheduled_outcomes(job, self._ledger, due.scheduled_at, due.scheduled_at + 2 * DAY, self.until)
        ends = [one.run.finished_at for one in later if one.has_succeeded and one.run and one.run.finished_at]
        return min(ends, default=None)


def _rates(rule: Rule, runs: Sequence[EndedRun]) -> Iterator[Point]:
    """Yields the rate after each run, over the runs within the rule's time before it."""
    first = 0
    for index, run in enumerate(runs):
        while (run.finished_at - runs[first].finished_at).total_seconds() > rule.for_s:
            first += 1
        if _is_fast(rule, runs[first : index + 1]):
            yield run.finished_at, Evaluation(False, None, "")
            continue
        evaluation = RATES[rule.name](rule, within(runs[first : index + 1], rule.for_s))
        if evaluation is not None:
            yield run.finished_at, evaluation


def _is_fast(rule: Rule, runs: Sequence[EndedRun]) -> bool:
    """Whether no message was slower than the rule allows: then their percentile need not be counted."""
    if rule.name != "latency_p99":
        return False
    slowest = [max(run.latency_counts) for run in runs if run.latency_counts]
    return bool(slowest) and max(slowest) <= (rule.threshold or 0)


def _incidents(rule: Rule, subject: str, points: Iterable[Point], until: datetime) -> Iterator[WouldFire]:
    """Yields each span in which the condition held for as long as the rule says."""
    lasts = timedelta(seconds=rule.for_s)
    began: datetime | None = None
    known = Evaluation(False, None, "")
    for at, evaluation in points:
        if evaluation.is_true:
            if began is None or at - began <= lasts:  # what is known when it opens
                known = evaluation
            began = began or at
        elif began is not None:
            if at - began > lasts or not lasts:
                yield WouldFire(rule.name, subject, began + lasts, at, known.text, known.run_id)
            began = None
    if began is not None and until - began >= lasts:
        yield WouldFire(rule.name, subject, began + lasts, None, known.text, known.run_id)
