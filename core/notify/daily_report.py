"""The daily report (`receipt`): what was due, what arrived, how fast, and what is missing, for readers who are not engineers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from core.clock import iso_utc
from core.formatting import counted, local_time, ms_text, size_text, verdict
from core.model.job import Job
from core.model.percentile import percentile
from core.model.run import Run, RunFile, Verdict
from core.model.verdict import VERDICT_STYLES
from core.notify.notification import Notification, NotificationTable
from core.notify.outbox import Outbox
from core.records.ledger import Ledger
from core.records.outcomes import OutcomeState, ScheduledOutcome, is_on_day, outcomes_of_days, with_deleted_jobs

__all__ = [
    "DailyReport",
    "JobReport",
    "TopicReport",
    "daily_report_document",
    "daily_report_notification",
    "make_daily_report",
]

WIDEST_ZONES = timedelta(hours=26)
"""Largest distance between the local times of two zones."""
MOST_LISTED_RUNS = 6
"""A job with more runs is listed as sums, and only its runs that did not succeed one by one."""


@dataclass(frozen=True, slots=True)
class JobReport:
    """One job: the scheduled times of the day, in the job's time zone, and their outcomes."""

    slug: str
    name: str
    timezone: str
    outcomes: tuple[ScheduledOutcome, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The deciding run of each scheduled time that had one."""
        return tuple(outcome.run for outcome in self.outcomes if outcome.run is not None)

    @property
    def missing(self) -> tuple[ScheduledOutcome, ...]:
        """Scheduled times without a run."""
        return self._in("missing")

    @property
    def waiting(self) -> tuple[ScheduledOutcome, ...]:
        """Scheduled times whose run has not started yet."""
        return self._in("waiting")

    @property
    def is_green(self) -> bool:
        """Whether every scheduled time has succeeded."""
        return all(outcome.has_succeeded for outcome in self.outcomes)

    @property
    def is_open(self) -> bool:
        """Whether some times are still running or waiting, and none has failed or is missing."""
        return not self.is_green and all(outcome.has_succeeded or outcome.state in _OPEN for outcome in self.outcomes)

    def _in(self, state: OutcomeState) -> tuple[ScheduledOutcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.state == state)


_OPEN: tuple[OutcomeState, ...] = ("running", "waiting")


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What arrived on one topic."""

    topic: str
    rows: int
    """Messages of every run for the day, also those that a replay sent once more."""
    bytes: int
    failed: int
    rejected: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class DailyReport:
    """The scheduled times of one day up to now. The day of each job is that of the job's time zone."""

    day: date
    since: datetime
    """Begin of the day in the reader's zone."""
    until: datetime
    """End of the day in the reader's zone; the current time if it has not ended yet."""
    timezone: str
    """The reader's zone."""
    jobs: tuple[JobReport, ...]
    topics: tuple[TopicReport, ...]

    @property
    def rows(self) -> int:
        """Rows that arrived on a topic or in a file; one that was sent again counts once."""
        return sum(outcome.acknowledged for job in self.jobs for outcome in job.outcomes)

    @property
    def rejected(self) -> int:
        """Rows that the successful runs rejected."""
        return sum(run.rejected for job in self.jobs for run in job.runs if run.state == "succeeded")

    @property
    def files(self) -> tuple[RunFile, ...]:
        """The files that were written."""
        return tuple(file for job in self.jobs for run in job.runs for file in run.files)

    @property
    def is_green(self) -> bool:
        """Whether everything that was due arrived."""
        return all(job.is_green for job in self.jobs)


def make_daily_report(
    ledger: Ledger, outbox: Outbox, jobs: Iterable[Job], day: date, now: datetime, timezone: str
) -> DailyReport:
    """Collects the outcome of every scheduled time of a day.

    Args:
        ledger: Runs, scheduled runs and the history of job files.
        outbox: Latencies of the runs.
        jobs: The jobs as they are now.
        day: In each job's own time zone.
        now: The current time.
        timezone: The reader's zone.
    """
    zone = ZoneInfo(timezone)
    since, end = (datetime.combine(day + timedelta(days=n), time(), zone) for n in (0, 1))
    span = {"since": iso_utc(since - WIDEST_ZONES), "until": iso_utc(end + WIDEST_ZONES)}
    every = [ledger.run(row["run_id"]) for row in outbox.rows("runs_scheduled_between", **span)]
    every = [run for run in every if is_on_day(run.scheduled_at, run.timezone, day, day)]
    ran = {run.run_id: run for run in every}
    found = [
        _job_report(job, outcomes_of_days(job, ledger, day, day, now), ran)
        for job in with_deleted_jobs(jobs, ledger, timezone)
    ]
    counts = [row for row in outbox.rows("latency_counts_scheduled_between", **span) if row["run_id"] in ran]
    days = tuple(job for job in found if job.outcomes)
    return DailyReport(day, since, min(end, now.astimezone(zone)), timezone, days, _topics(every, counts))


def _job_report(job: Job, outcomes: Sequence[ScheduledOutcome], ran: Mapping[str, Run]) -> JobReport:
    """Replaces the runs of the outcomes, which were read without files and offsets, by complete ones."""
    complete = (replace(s, run=ran.get(s.run.run_id, s.run)) if s.run else s for s in outcomes)
    name, timezone = (outcomes[-1].job_name, outcomes[-1].timezone) if outcomes else (job.name, job.timezone)
    return JobReport(job.slug, name, timezone, tuple(complete))


def _topics(runs: Sequence[Run], rows: Iterable[Any]) -> tuple[TopicReport, ...]:
    latencies: dict[str, Counter[float]] = {}
    for row in rows:
        counts = latencies.setdefault(row["topic"], Counter())
        for latency_ms, count in json.loads(row["latency_counts"]).items():
            counts[float(latency_ms)] += count
    found = []
    for topic in sorted({run.topic for run in runs if run.topic}):
        of_topic = [run for run in runs if run.topic == topic]
        shares = [percentile(latencies.get(topic, Counter()), share) for share in (0.5, 0.9, 0.99)]
        found.append(
            TopicReport(
                topic,
                sum(run.acknowledged for run in of_topic),
                sum(run.bytes for run in of_topic),
                sum(run.failed for run in of_topic),
                sum(run.rejected for run in of_topic),
                *shares,
            )
        )
    return tuple(found)


_SIGNS = "✘…◐✔–"
"""Signs of a day, the worst first."""


def daily_report_notification(*reports: DailyReport) -> Notification:
    """Makes one mail of the reports of one or more days, the newest first. A day on which nothing was due is left out."""
    reports = tuple(report for report in reports if report.jobs) or reports[:1]
    summaries = [_summary(report) for report in reports]
    days = [_day_text(report) for report in reports]
    sign = min((sign for sign, _, _ in summaries), key=_SIGNS.index)
    subject = " · ".join(f"{day}: {short}" for day, (_, short, _) in zip(days, summaries, strict=True))
    answers = [answer for _, _, answer in summaries]
    if len(reports) > 1:
        answers = [f"{day}: {answer}" for day, answer in zip(days, answers, strict=True)]
    tables = [table for report in reports for table in _tables(report, f", {_day_text(report)}" * (len(reports) > 1))]
    commands = [
        ("python -m core receipt", "this, for today"),
        ("python -m core runs", "every run; show RUN shows one in detail"),
        ("python -m core find KEY", "where one key is: topic, partition, offset"),
    ]
    newest = reports[0]
    now = f"{local_time(newest.until, newest.timezone)} {newest.timezone}"
    details = [
        ("Span", f"what was scheduled on {' and on '.join(days)}, up to {now}; days are those of each job's zone")
    ]
    footer = "Sent by PSTT Kafka once a day (PSTT_RECEIPT_AT, PSTT_RECEIPT_TO). Rejected rows are listed, not lost."
    return Notification(f"{sign} {subject}", " ".join(answers), details, tables, commands, footer)


def _day_text(report: DailyReport) -> str:
    text = f"{report.day:%d %b %Y}".lstrip("0")
    is_over = report.until.astimezone(ZoneInfo(report.timezone)).date() > report.day
    return text if is_over else f"{text} so far"


def _summary(report: DailyReport) -> tuple[str, str, str]:
    """Returns the sign, the text for the subject, and the answer as a sentence."""
    bad = [job for job in report.jobs if not (job.is_green or job.is_open)]
    open_ = [job for job in report.jobs if job.is_open]
    rows, due = report.rows, len(report.jobs)
    if not due:
        return "–", "nothing was due", "No job was due and none ran."
    if bad:
        short = (
            f"{len(bad)} of {due} jobs not as {'it' if len(bad) == 1 else 'they'} should be "
            f"({rows:,} {'row' if rows == 1 else 'rows'} arrived)"
        )
        return "✘", short, f"Not everything arrived: check {', '.join(job.name for job in bad)}."
    if open_:
        short = (
            f"{len(open_)} of {due} jobs {'is' if len(open_) == 1 else 'are'} not done yet "
            f"({rows:,} {'row' if rows == 1 else 'rows'} arrived)"
        )
        return "…", short, f"Still running or waiting for its start: {', '.join(job.name for job in open_)}."
    if rejected := report.rejected:
        counts = f"{rows:,} {'row' if rows == 1 else 'rows'} of {counted(due, 'job')}, {rejected:,} rejected"
        answer = f"Every row is accounted for: {counts}, each with its reason (python -m core rejects RUN)."
        return "◐", f"every row is accounted for, {counts}", answer
    counts = f"{rows:,} {'row' if rows == 1 else 'rows'} of {counted(due, 'job')}"
    return "✔", f"everything arrived, {counts}", f"Everything that was due has arrived: {counts}."


def _tables(report: DailyReport, of_day: str) -> Iterator[NotificationTable]:
    if report.topics:
        head = ("topic", "messages", "size", "failed", "rejected", "p50 ms", "p90 ms", "p99 ms")
        yield NotificationTable(
            f"What arrived, by topic{of_day}", [head, *map(_topic_row, report.topics)], data_columns=frozenset({0})
        )
    if report.files:
        written = ((file.path, f"{file.rows:,}", size_text(file.size_bytes)) for file in report.files)
        yield NotificationTable(f"Files{of_day}", [("file", "rows", "size"), *written], data_columns=frozenset({0}))
    if report.jobs:
        lines = [line for job in report.jobs for line in _job_rows(job)]
        yield NotificationTable(
            f"Each job{of_day}", [("", "job", "due", "verdict"), *lines], data_columns=frozenset({1})
        )


def _topic_row(topic: TopicReport) -> tuple[str, ...]:
    latencies = (ms_text(value) for value in (topic.p50_ms, topic.p90_ms, topic.p99_ms))
    counts = (f"{topic.rows:,}", size_text(topic.bytes), f"{topic.failed:,}", f"{topic.rejected:,}")
    return (topic.topic, *counts, *latencies)


def _job_rows(job: JobReport) -> list[tuple[str, str, str, str]]:
    rows = []
    runs = [_with_earlier(run) for run in job.runs]
    green = [run for run in runs if run.state == "succeeded"]
    if len(green) > MOST_LISTED_RUNS:
        done = "written" if all(run.is_file for run in green) else "acknowledged"
        sums = f"{sum(r.rows_read for r in green):,} read = {sum(r.acknowledged for r in green):,} {done}"
        worst: Verdict = "complete_with_rejects" if any(r.verdict != "complete" for r in green) else "complete"
        counts = f"{sums} + {sum(r.rejected for r in green):,} rejected"
        rows.append((VERDICT_STYLES[worst].sign, job.name, f"{len(green)} times", counts))
        green = []
    for run in (run for run in runs if run.state != "succeeded" or run in green):
        style = VERDICT_STYLES[run.verdict]
        words = f"{style.word}: {verdict(run)}"
        rows.append((style.sign, job.name, local_time(run.scheduled_at, job.timezone), words))
    rows += [
        ("…", job.name, local_time(outcome.scheduled_at, job.timezone), _waiting(outcome)) for outcome in job.waiting
    ]
    if len(job.missing) > MOST_LISTED_RUNS:
        first, last = job.missing[0], job.missing[-1]
        span = f"{local_time(first.scheduled_at, job.timezone)} to {local_time(last.scheduled_at, job.timezone)}"
        rows.append(("✘", job.name, f"{len(job.missing)} times", f"missing, {span}: {first.missing_reason}"))
    else:
        rows += [
            ("✘", job.name, local_time(outcome.scheduled_at, job.timezone), f"missing: {outcome.missing_reason}")
            for outcome in job.missing
        ]
    return rows


def _with_earlier(run: Run) -> Run:
    """Returns a replay of what was missing with the rows that had arrived before it, as the whole of its scheduled time."""
    before = run.arrived_before
    return replace(run, rows_read=run.rows_read + before, acknowledged=run.acknowledged + before)


def _waiting(outcome: ScheduledOutcome) -> str:
    return f"waits: {outcome.reason}" if outcome.reason else "waits for its start"


def daily_report_document(report: DailyReport) -> dict[str, Any]:
    """Returns the report as a JSON document."""
    return {
        "ok": report.is_green,
        "day": str(report.day),
        "since": iso_utc(report.since),
        "until": iso_utc(report.until),
        "timezone": report.timezone,
        "topics": [
            {
                "topic": topic.topic,
                "rows": topic.rows,
                "bytes": topic.bytes,
                "failed": topic.failed,
                "rejected": topic.rejected,
                "latency_ms": {"p50": topic.p50_ms, "p90": topic.p90_ms, "p99": topic.p99_ms},
            }
            for topic in report.topics
        ],
        "files": [{"path": file.path, "rows": file.rows, "bytes": file.size_bytes} for file in report.files],
        "jobs": [
            {
                "job": job.slug,
                "name": job.name,
                "ok": job.is_green,
                "runs": [
                    {
                        "run_id": run.run_id,
                        "scheduled_at": iso_utc(run.scheduled_at),
                        "state": run.state,
                        "verdict": run.verdict,
                        "rows_read": run.rows_read,
                        "acknowledged": run.acknowledged,
                        "rejected": run.rejected,
                        "arrived_before": run.arrived_before,
                        "failed": run.failed,
                        "bytes": run.bytes,
                        "error": run.error_text,
                    }
                    for run in job.runs
                ],
                "missing": [
                    {"scheduled_at": iso_utc(outcome.scheduled_at), "reason": outcome.missing_reason}
                    for outcome in job.missing
                ],
                "waiting": [{"scheduled_at": iso_utc(s.scheduled_at), "reason": s.reason} for s in job.waiting],
            }
            for job in report.jobs
        ],
    }
