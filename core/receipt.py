"""The day's receipt: what was due, what arrived, how fast, and what is missing; for people who are no engineers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from core.agenda import Agenda
from core.calendar import fires
from core.envelope import iso_utc
from core.ledger import Ledger
from core.model import Job, Run, RunFile, Verdict
from core.notices import Notice, Table
from core.outbox import Outbox
from core.report import local_time, ms_text, size_text, verdict
from core.verdicts import LOOKS

__all__ = ["JobDay", "Receipt", "TopicDay", "make_receipt", "percentile", "receipt_document", "receipt_notice"]

TICK = timedelta(microseconds=1)
LISTED_RUNS = 6
"""A job with more runs is told in sums, and only what is not green one by one."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A scheduled time without a green run."""

    scheduled_at: datetime
    reason: str


@dataclass(frozen=True, slots=True)
class JobDay:
    """One job: its scheduled times, the newest run of each, and what is missing."""

    slug: str
    name: str
    timezone: str
    runs: tuple[Run, ...]
    missing: tuple[Missing, ...]

    @property
    def is_green(self) -> bool:
        """Whether each scheduled time has a green run."""
        return not self.missing and all(run.state == "succeeded" for run in self.runs)


@dataclass(frozen=True, slots=True)
class TopicDay:
    """What arrived on one topic."""

    topic: str
    rows: int
    bytes: int
    failed: int
    rejected: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """Scheduled times with `since` ≤ t < `until`."""

    since: datetime
    until: datetime
    timezone: str
    jobs: tuple[JobDay, ...]
    topics: tuple[TopicDay, ...]

    @property
    def rows(self) -> int:
        """Rows that arrived on a topic or in a file."""
        return sum(topic.rows for topic in self.topics) + sum(file.rows for file in self.files)

    @property
    def rejected(self) -> int:
        """Rows that the green runs put aside."""
        return sum(run.rejected for job in self.jobs for run in job.runs if run.state == "succeeded")

    @property
    def files(self) -> tuple[RunFile, ...]:
        """The files that were written."""
        return tuple(file for job in self.jobs for run in job.runs for file in run.files)

    @property
    def is_green(self) -> bool:
        """Whether everything that was due arrived."""
        return all(job.is_green for job in self.jobs)


def make_receipt(
    ledger: Ledger,
    agenda: Agenda,
    outbox: Outbox,
    jobs: Iterable[Job],
    since: datetime,
    until: datetime,
    timezone: str,
) -> Receipt:
    """Looks what became of every scheduled time of a span.

    Args:
        ledger: Runs.
        agenda: Why a fire was skipped.
        outbox: Reads latencies.
        jobs: The jobs as they are now; enabled ones are expected to have run.
        since: Aware; it is in the span.
        until: Aware; it is not.
        timezone: The reader's.
    """
    rows = outbox.rows("runs_scheduled", since=iso_utc(since), until=iso_utc(until))
    runs: dict[str, dict[datetime, Run]] = {}
    every = [ledger.run(row["run_id"]) for row in rows]
    for run in every:  # the newest attempt of a scheduled time is what counts; a green one stays
        times = runs.setdefault(run.job, {})
        known = times.get(run.scheduled_at)
        if known is None or known.state != "succeeded" or run.state == "succeeded":
            times[run.scheduled_at] = run
    known_jobs = {job.slug: job for job in jobs}
    days = [
        _job_day(slug, known_jobs.get(slug), runs.get(slug, {}), agenda, since, until)
        for slug in sorted({*runs, *(slug for slug, job in known_jobs.items() if job.enabled)})
    ]
    counts = outbox.rows("latency_counts", since=iso_utc(since), until=iso_utc(until))
    return Receipt(
        since, until, timezone, tuple(day for day in days if day.runs or day.missing), _topics(every, counts)
    )


def _job_day(
    slug: str, job: Job | None, runs: dict[datetime, Run], agenda: Agenda, since: datetime, until: datetime
) -> JobDay:
    name = job.name if job else next(iter(runs.values())).job_name
    timezone = job.timezone if job else next(iter(runs.values())).timezone
    missing = []
    if job and job.enabled:
        skipped = {
            fire.scheduled_at: fire.reason for fire in agenda.fires(since - TICK, until - TICK, slug) if fire.reason
        }
        seen = [version.seen_at for version in agenda.job_versions(slug)]
        for moment in fires(job, since - TICK, until - TICK):
            if moment in runs or (seen and moment < min(seen)):
                continue
            missing.append(Missing(moment, skipped.get(moment, "it was never started: no runner worked")))
    return JobDay(slug, name, timezone, tuple(runs[at] for at in sorted(runs)), tuple(missing))


def _topics(runs: Sequence[Run], rows: Iterable[Any]) -> tuple[TopicDay, ...]:
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
            TopicDay(
                topic,
                sum(run.acknowledged for run in of_topic),
                sum(run.bytes for run in of_topic),
                sum(run.failed for run in of_topic),
                sum(run.rejected for run in of_topic),
                *shares,
            )
        )
    return tuple(found)


def percentile(counts: Mapping[float, int], share: float) -> float | None:
    """The value that `share` (0 to 1) of them did not exceed; None: there are none."""
    total, seen = sum(counts.values()), 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= share * total:
            return value
    return None


# ── in words ──────────────────────────────────────────────────────────────────────────────────


def receipt_notice(receipt: Receipt) -> Notice:
    """The receipt as a mail."""
    day = f"{receipt.until.astimezone(receipt.since.tzinfo):%d %b %Y}".lstrip("0")
    bad = [job for job in receipt.jobs if not job.is_green]
    rows = receipt.rows
    if not receipt.jobs:
        subject = f"– {day}: nothing was due"
        answer = "No job was due and none ran."
    elif bad:
        subject = f"✘ {day}: {len(bad)} of {len(receipt.jobs)} jobs not as they should be ({rows:,} rows arrived)"
        answer = f"Not everything arrived: look at {', '.join(job.name for job in bad)}."
    elif rejected := receipt.rejected:
        counts = f"{rows:,} rows of {_count(len(receipt.jobs), 'job')}, {rejected:,} rejected"
        subject = f"◐ {day}: every row is accounted for, {counts}"
        answer = f"Every row is accounted for: {counts}, each with its reason (python -m core rejects RUN)."
    else:
        subject = f"✔ {day}: everything arrived, {rows:,} rows of {_count(len(receipt.jobs), 'job')}"
        answer = f"Everything that was due has arrived: {rows:,} rows of {_count(len(receipt.jobs), 'job')}."
    since, until = (local_time(moment, receipt.timezone) for moment in (receipt.since, receipt.until))
    tables = []
    if receipt.topics:
        head = ("topic", "rows", "size", "failed", "rejected", "p50 ms", "p90 ms", "p99 ms")
        tables.append(Table("What arrived, by topic", [head, *map(_topic_row, receipt.topics)]))
    if receipt.files:
        written = ((file.path, f"{file.rows:,}", size_text(file.size_bytes)) for file in receipt.files)
        tables.append(Table("Files", [("file", "rows", "size"), *written]))
    if receipt.jobs:
        lines = [line for job in receipt.jobs for line in _job_rows(job)]
        tables.append(Table("Each job", [("", "job", "due", "verdict"), *lines]))
    commands = [
        ("python -m core receipt", "this, for today"),
        ("python -m core runs", "every run; show RUN tells one in detail"),
        ("python -m core find KEY", "where one key is: topic, partition, offset"),
    ]
    facts = [("Span", f"due from {since} to {until} {receipt.timezone}")]
    footer = "Sent by PSTT Kafka once a day (PSTT_RECEIPT_AT, PSTT_RECEIPT_TO). Rejected rows are listed, not lost."
    return Notice(subject, answer, facts, tables, commands, footer)


def _topic_row(topic: TopicDay) -> tuple[str, ...]:
    latencies = (ms_text(value) for value in (topic.p50_ms, topic.p90_ms, topic.p99_ms))
    counts = (f"{topic.rows:,}", size_text(topic.bytes), f"{topic.failed:,}", f"{topic.rejected:,}")
    return (topic.topic, *counts, *latencies)


def _job_rows(job: JobDay) -> list[tuple[str, str, str, str]]:
    rows = []
    green = [run for run in job.runs if run.state == "succeeded"]
    if len(green) > LISTED_RUNS:
        done = "written" if all(run.is_file for run in green) else "acknowledged"
        sums = f"{sum(r.rows_read for r in green):,} read = {sum(r.acknowledged for r in green):,} {done}"
        worst: Verdict = "complete_with_rejects" if any(r.verdict != "complete" for r in green) else "complete"
        counts = f"{sums} + {sum(r.rejected for r in green):,} rejected"
        rows.append((LOOKS[worst].sign, job.name, f"{len(green)} times", counts))
        green = []
    for run in (run for run in job.runs if run.state != "succeeded" or run in green):
        look = LOOKS[run.verdict]
        words = f"{look.word}: {verdict(run)}"
        rows.append((look.sign, job.name, local_time(run.scheduled_at, job.timezone), words))
    if len(job.missing) > LISTED_RUNS:
        first, last = job.missing[0], job.missing[-1]
        span = f"{local_time(first.scheduled_at, job.timezone)} to {local_time(last.scheduled_at, job.timezone)}"
        rows.append(("✘", job.name, f"{len(job.missing)} times", f"missing, {span}: {first.reason}"))
    else:
        rows += [
            ("✘", job.name, local_time(gap.scheduled_at, job.timezone), f"missing: {gap.reason}") for gap in job.missing
        ]
    return rows


def receipt_document(receipt: Receipt) -> dict[str, Any]:
    """The receipt for programs."""
    return {
        "ok": receipt.is_green,
        "since": iso_utc(receipt.since),
        "until": iso_utc(receipt.until),
        "timezone": receipt.timezone,
        "topics": [
            {
                "topic": topic.topic,
                "rows": topic.rows,
                "bytes": topic.bytes,
                "failed": topic.failed,
                "rejected": topic.rejected,
                "latency_ms": {"p50": topic.p50_ms, "p90": topic.p90_ms, "p99": topic.p99_ms},
            }
            for topic in receipt.topics
        ],
        "files": [{"path": file.path, "rows": file.rows, "bytes": file.size_bytes} for file in receipt.files],
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
                        "failed": run.failed,
                        "bytes": run.bytes,
                        "error": run.error_text,
                    }
                    for run in job.runs
                ],
                "missing": [{"scheduled_at": iso_utc(gap.scheduled_at), "reason": gap.reason} for gap in job.missing],
            }
            for job in receipt.jobs
        ],
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
