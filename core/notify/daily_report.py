"""The day's receipt: what was due, what arrived, how fast, and what is missing; for people who are no engineers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from core.clock import iso_utc
from core.formatting import local_time, ms_text, size_text, verdict
from core.model.job import Job
from core.model.percentile import percentile
from core.model.run import Run, RunFile, Verdict
from core.model.verdict import LOOKS
from core.notify.notification import Notification, NotificationTable
from core.notify.outbox import Outbox
from core.records.ledger import Ledger
from core.records.outcomes import NEVER_STARTED, Slot, SlotState, is_on_day, slots_of_days, with_gone

__all__ = ["JobDay", "Receipt", "TopicDay", "make_receipt", "receipt_document", "receipt_notice"]

WIDEST_ZONES = timedelta(hours=26)
"""So far apart are two zones at most."""
LISTED_RUNS = 6
"""A job with more runs is told in sums, and only what is not green one by one."""


@dataclass(frozen=True, slots=True)
class JobDay:
    """One job: the scheduled times of the day, in its own time zone, and what became of each."""

    slug: str
    name: str
    timezone: str
    slots: tuple[Slot, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        """The run that counts of each scheduled time that had one."""
        return tuple(slot.run for slot in self.slots if slot.run is not None)

    @property
    def missing(self) -> tuple[Slot, ...]:
        """Scheduled times that nobody ran."""
        return self._in("missing")

    @property
    def waiting(self) -> tuple[Slot, ...]:
        """Scheduled times whose run has not begun yet."""
        return self._in("waiting")

    @property
    def is_green(self) -> bool:
        """Whether each scheduled time has a green run."""
        return all(slot.has_succeeded for slot in self.slots)

    @property
    def is_open(self) -> bool:
        """Whether it is not green yet, and nothing went wrong so far."""
        return not self.is_green and all(slot.has_succeeded or slot.state in _OPEN for slot in self.slots)

    def _in(self, state: SlotState) -> tuple[Slot, ...]:
        return tuple(slot for slot in self.slots if slot.state == state)


_OPEN: tuple[SlotState, ...] = ("running", "waiting")


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
    """The scheduled times of one day up to now; each job's day is that of its own time zone."""

    day: date
    since: datetime
    """When the day begins in the reader's zone."""
    until: datetime
    """When it ends there; now, where it has not ended yet."""
    timezone: str
    """The reader's."""
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
    ledger: Ledger, outbox: Outbox, jobs: Iterable[Job], day: date, now: datetime, timezone: str
) -> Receipt:
    """Finds out what became of every scheduled time of a day.

    Args:
        ledger: Runs, scheduled runs, and since when each job existed.
        outbox: Reads latencies.
        jobs: The jobs as they are now.
        day: In each job's own time zone.
        now: The clock.
        timezone: The reader's.
    """
    zone = ZoneInfo(timezone)
    since, end = (datetime.combine(day + timedelta(days=n), time(), zone) for n in (0, 1))
    span = {"since": iso_utc(since - WIDEST_ZONES), "until": iso_utc(end + WIDEST_ZONES)}
    every = [ledger.run(row["run_id"]) for row in outbox.rows("runs_scheduled", **span)]
    every = [run for run in every if is_on_day(run.scheduled_at, run.timezone, day, day)]
    ran = {run.run_id: run for run in every}
    found = [_job_day(job, slots_of_days(job, ledger, day, day, now), ran) for job in with_gone(jobs, ledger, timezone)]
    counts = [row for row in outbox.rows("latency_counts", **span) if row["run_id"] in ran]
    days = tuple(job for job in found if job.slots)
    return Receipt(day, since, min(end, now.astimezone(zone)), timezone, days, _topics(every, counts))


def _job_day(job: Job, slots: Sequence[Slot], ran: Mapping[str, Run]) -> JobDay:
    """The slots with their runs whole: with files and offsets."""
    whole = (replace(s, run=ran.get(s.run.run_id, s.run)) if s.run else s for s in slots)
    name, timezone = (slots[-1].job_name, slots[-1].timezone) if slots else (job.name, job.timezone)
    return JobDay(job.slug, name, timezone, tuple(whole))


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


_SIGNS = "✘…◐✔–"
"""The worst first."""


def receipt_notice(*receipts: Receipt) -> Notification:
    """The receipts of one or more days as one mail, the newest day first; a day on which nothing was due is left out."""
    receipts = tuple(receipt for receipt in receipts if receipt.jobs) or receipts[:1]
    told = [_told(receipt) for receipt in receipts]
    days = [_day_text(receipt) for receipt in receipts]
    sign = min((sign for sign, _, _ in told), key=_SIGNS.index)
    subject = " · ".join(f"{day}: {short}" for day, (_, short, _) in zip(days, told, strict=True))
    answers = [answer for _, _, answer in told]
    if len(receipts) > 1:
        answers = [f"{day}: {answer}" for day, answer in zip(days, answers, strict=True)]
    tables = [
        table for receipt in receipts for table in _tables(receipt, f", {_day_text(receipt)}" * (len(receipts) > 1))
    ]
    commands = [
        ("python -m core receipt", "this, for today"),
        ("python -m core runs", "every run; show RUN tells one in detail"),
        ("python -m core find KEY", "where one key is: topic, partition, offset"),
    ]
    newest = receipts[0]
    now = f"{local_time(newest.until, newest.timezone)} {newest.timezone}"
    facts = [("Span", f"what was scheduled on {' and on '.join(days)}, up to {now}; days are those of each job's zone")]
    footer = "Sent by PSTT Kafka once a day (PSTT_RECEIPT_AT, PSTT_RECEIPT_TO). Rejected rows are listed, not lost."
    return Notification(f"{sign} {subject}", " ".join(answers), facts, tables, commands, footer)


def _day_text(receipt: Receipt) -> str:
    text = f"{receipt.day:%d %b %Y}".lstrip("0")
    is_over = receipt.until.astimezone(ZoneInfo(receipt.timezone)).date() > receipt.day
    return text if is_over else f"{text} so far"


def _told(receipt: Receipt) -> tuple[str, str, str]:
    """Sign, what the subject says, and the answer as a sentence."""
    bad = [job for job in receipt.jobs if not (job.is_green or job.is_open)]
    open_ = [job for job in receipt.jobs if job.is_open]
    rows, due = receipt.rows, len(receipt.jobs)
    if not due:
        return "–", "nothing was due", "No job was due and none ran."
    if bad:
        short = f"{len(bad)} of {due} jobs not as they should be ({rows:,} rows arrived)"
        return "✘", short, f"Not everything arrived: look at {', '.join(job.name for job in bad)}."
    if open_:
        short = f"{len(open_)} of {due} jobs not done yet ({rows:,} rows arrived)"
        return "…", short, f"Still running or waiting for its start: {', '.join(job.name for job in open_)}."
    if rejected := receipt.rejected:
        counts = f"{rows:,} rows of {_count(due, 'job')}, {rejected:,} rejected"
        answer = f"Every row is accounted for: {counts}, each with its reason (python -m core rejects RUN)."
        return "◐", f"every row is accounted for, {counts}", answer
    counts = f"{rows:,} rows of {_count(due, 'job')}"
    return "✔", f"everything arrived, {counts}", f"Everything that was due has arrived: {counts}."


def _tables(receipt: Receipt, of_day: str) -> Iterator[NotificationTable]:
    if receipt.topics:
        head = ("topic", "rows", "size", "failed", "rejected", "p50 ms", "p90 ms", "p99 ms")
        yield NotificationTable(f"What arrived, by topic{of_day}", [head, *map(_topic_row, receipt.topics)])
    if receipt.files:
        written = ((file.path, f"{file.rows:,}", size_text(file.size_bytes)) for file in receipt.files)
        yield NotificationTable(f"Files{of_day}", [("file", "rows", "size"), *written])
    if receipt.jobs:
        lines = [line for job in receipt.jobs for line in _job_rows(job)]
        yield NotificationTable(f"Each job{of_day}", [("", "job", "due", "verdict"), *lines])


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
    rows += [("…", job.name, local_time(slot.scheduled_at, job.timezone), _waiting(slot)) for slot in job.waiting]
    if len(job.missing) > LISTED_RUNS:
        first, last = job.missing[0], job.missing[-1]
        span = f"{local_time(first.scheduled_at, job.timezone)} to {local_time(last.scheduled_at, job.timezone)}"
        rows.append(("✘", job.name, f"{len(job.missing)} times", f"missing, {span}: {first.reason or NEVER_STARTED}"))
    else:
        rows += [
            ("✘", job.name, local_time(slot.scheduled_at, job.timezone), f"missing: {slot.reason or NEVER_STARTED}")
            for slot in job.missing
        ]
    return rows


def _waiting(slot: Slot) -> str:
    return f"waits: {slot.reason}" if slot.reason else "waits for its start"


def receipt_document(receipt: Receipt) -> dict[str, Any]:
    """The receipt for programs."""
    return {
        "ok": receipt.is_green,
        "day": str(receipt.day),
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
                "missing": [
                    {"scheduled_at": iso_utc(slot.scheduled_at), "reason": slot.reason or NEVER_STARTED}
                    for slot in job.missing
                ],
                "waiting": [{"scheduled_at": iso_utc(s.scheduled_at), "reason": s.reason} for s in job.waiting],
            }
            for job in receipt.jobs
        ],
    }


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
