"""The past of the demo: runs of earlier days, with everything that a run leaves behind.

Each one is a real run: planned by the calendar, read from the demo's table, encoded, sent and counted by the product's own
code. Only its clock and its broker are simulated (`SimulatedBroker`), since no broker can acknowledge in the past.
All of them were asked for by "demo" (decision 029).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Literal

from core.admin.demo_rows import PastDay
from core.calendar.cron import previous_scheduled_time
from core.errors import BrokerUnavailable, PsttError
from core.kafka.kept_topics import KeptMessage, KeptTopics
from core.kafka.memory import MemoryPublisher, PendingMessage
from core.kafka.mock_cluster import MOCK_PARTITIONS
from core.kafka.partitioning import partitions_of
from core.kafka.sender import Sender
from core.model.connection import Cluster
from core.model.job import Job
from core.model.publisher import Batch, Delivery, TopicState
from core.model.run import Plan, Run
from core.model.source import Source
from core.records.columns import ColumnMemory
from core.records.opened import OpenWorkspace
from core.records.outcomes import ScheduledOutcome, scheduled_outcomes
from core.run.cancellation import Stop
from core.run.drift import column_check
from core.run.metrics_update import update_metrics
from core.run.pipeline import RunMeans, run_job
from core.run.planning import cluster_of_plan, plan_run
from core.run.replay import replay_plan
from core.run.row_reader import RunContext
from core.sources import open_source

__all__ = ["ASKED_BY", "PastRun", "days_for", "make_history", "past_runs", "simulated_past"]

ASKED_BY = "demo"
"""Who asked for the runs of the past."""

Story = Literal["balanced", "rejects", "slow", "failed", "missing", "sent in two runs"]

DAYS = 60
MOST_PAST_ROWS = 150_000
"""Of all days together, where the user does not choose the days: they are made in seconds, and fit into a mock broker."""
_STORIES: dict[int, Story] = {5: "failed", 12: "missing", 19: "sent in two runs", 30: "slow"}
"""Age in days → what happened."""
_REJECTS_EVERY = 6
_OF_WEEKDAY = (1.0, 1.04, 0.97, 1.02, 1.08, 0.84, 0.78)
"""Monday to Sunday: how much of the usual number of rows a day has."""
_PUT_S = 50e-6
_SPREAD = 0.45
"""Of the logarithms of the latencies: the 99th percentile is 2.8 times the median."""
_JOB_IS_OLDER_BY = timedelta(hours=12)
_SENT_AGAIN_AFTER = timedelta(hours=6, minutes=40)
"""When the rest of a run was sent that had failed at 02:00."""


@dataclass(frozen=True, slots=True)
class PastRun:
    """What happened at one scheduled time."""

    scheduled_at: datetime
    story: Story
    data: PastDay


def days_for(rows: int) -> int:
    """Returns how many days of history a demo has by default, if its newest day has so many rows: 60, fewer above 2,500."""
    return min(DAYS, MOST_PAST_ROWS // rows)


def past_runs(job: Job, newest: datetime, rows: int, days: int) -> list[PastRun]:
    """Returns what happened before the newest scheduled time, the oldest first.

    Args:
        job: It exports the day before each scheduled time.
        newest: Its newest scheduled time, in its time zone; it is not among them.
        rows: Rows of that day; earlier days have about as many.
        days: How many scheduled times.
    """
    usual = rows / _OF_WEEKDAY[newest.weekday()]
    chance = random.Random(days)  # noqa: S311 - the same days each time
    found: list[PastRun] = []
    for age, moment in enumerate(islice(_before(job, newest), days), 1):
        story = _STORIES.get(age, "rejects" if age % _REJECTS_EVERY == 2 else "balanced")
        count = max(int(usual * _OF_WEEKDAY[moment.weekday()] * chance.uniform(0.94, 1.06)), 4)
        bad = 1 + age % 3 if story == "rejects" else 0
        found.append(PastRun(moment, story, PastDay(moment.date() - timedelta(days=1), count, bad, age)))
    return found[::-1]


def _before(job: Job, newest: datetime) -> Iterator[datetime]:
    moment = previous_scheduled_time(job, newest, before=True)
    while moment is not None:
        local = moment.astimezone(newest.tzinfo)
        yield local
        moment = previous_scheduled_time(job, local, before=True)


def make_history(opened: OpenWorkspace, job: Job, document: str, past: Sequence[PastRun], now: datetime) -> None:
    """Runs the job for each scheduled time of the past, and keeps its messages.

    Args:
        opened: The demo; its job file need not be there yet.
        job: The job.
        document: The text of its file, which is recorded as its version since before the first run.
        past: What happened, the oldest first.
        now: Aware.
    """
    sha256 = hashlib.sha256(document.encode()).hexdigest()
    opened.ledger.job_versions.add(job.slug, sha256, document, past[0].scheduled_at - _JOB_IS_OLDER_BY)
    with ExitStack() as stack:
        source = open_source(opened.connections.database(job.connection))
        stack.callback(source.close)
        memory = stack.enter_context(ColumnMemory(opened.workspace.ledger_file))
        history = _History(opened, job, sha256, source, memory)
        for past_run in past:
            history.make(past_run)
    update_metrics(opened, now)


def simulated_past(opened: OpenWorkspace, job: Job, before: datetime) -> list[ScheduledOutcome]:
    """Returns what became of each scheduled time before that one, the oldest first, as page and `health` know it."""
    oldest = opened.ledger.history.first_started(job.slug)
    if oldest is None:
        return []
    return scheduled_outcomes(job, opened.ledger, oldest - timedelta(days=1), before, before)


class _History:
    """Makes the runs of the past, one after the other."""

    def __init__(self, opened: OpenWorkspace, job: Job, sha256: str, source: Source, memory: ColumnMemory) -> None:
        self.clock = SimulatedClock()
        self.broker = SimulatedBroker.over(self.clock)
        self._opened = opened
        self._kept = KeptTopics(opened.workspace.kept_topics_dir)
        self._job = job
        self._sha256 = sha256
        self._source = source
        self._memory = memory

    def make(self, past: PastRun) -> None:
        """Makes what happened at one scheduled time."""
        if past.story == "missing":
            return
        self.clock.start(past.scheduled_at + timedelta(seconds=1.2))
        plan = plan_run(self._opened, self._job, now=self.clock.now(), at=past.scheduled_at, asked_by=ASKED_BY)
        cluster = cluster_of_plan(self._opened, plan)
        self.broker.prepare(cluster, past)
        run = self._run(plan, cluster)
        if past.story == "sent in two runs":
            self.clock.start(past.scheduled_at + _SENT_AGAIN_AFTER)
            rest = replay_plan(self._opened, run.run_id, rejects_only=True, asked_by=ASKED_BY, job=self._job)
            self.broker.prepare(cluster, replace(past, story="balanced"))
            self._run(rest, cluster)
        self._kept.add(self.broker.taken())

    def _run(self, plan: Plan, cluster: Cluster) -> Run:
        check = column_check(self._job, self._memory, ASKED_BY, self.clock.now)
        means = RunMeans(
            plan=replace(plan, job_sha256=self._sha256),
            publisher=self.broker,
            ledger=self._opened.ledger,
            spool_dir=self._opened.workspace.spool_dir,
            context=RunContext(self.clock.now, Stop(), check_columns=check),
        )
        sender = Sender(
            self.broker,
            max_retries=cluster.max_retries,
            backoff_ms=cluster.retry_backoff_ms,
            clock=self.clock.monotonic_s,
            sleep=self.clock.sleep,
        )
        return run_job(means, self._source, sender)


class SimulatedClock:
    """A clock of the past: it advances while a run waits for its broker, and a little with each reading."""

    _READING_S = 4e-6

    def __init__(self) -> None:
        self._begin = datetime.fromtimestamp(0, UTC)
        self._elapsed_s = 0.0

    def start(self, at: datetime) -> None:
        """Sets the time of day; the seconds of `monotonic_s` go on."""
        self._begin = at.astimezone(UTC) - timedelta(seconds=self._elapsed_s)

    def now(self) -> datetime:
        """Returns the time, aware UTC."""
        return self._begin + timedelta(seconds=self._elapsed_s)

    def unix_us(self) -> int:
        """Returns the Unix time in µs."""
        return int(self.now().timestamp() * 1_000_000)

    def monotonic_s(self) -> float:
        """Returns seconds that never go back."""
        self._elapsed_s += self._READING_S
        return self._elapsed_s

    def sleep(self, seconds: float) -> None:
        """Lets that time pass at once."""
        self._elapsed_s += max(seconds, 0.0)


@dataclass(slots=True, eq=False)
class SimulatedBroker(MemoryPublisher):
    """A publisher that acknowledges at the time of a simulated clock, or becomes unreachable as a story says."""

    partitions_of_batch: Sequence[int] = ()
    left_until_gone: int | None = None
    """Messages that are acknowledged before the broker becomes unreachable; None: it stays."""
    gone: BrokerUnavailable | None = None
    median_ms: float = 12.0
    chance: random.Random = field(default_factory=random.Random)

    @classmethod
    def over(cls, clock: SimulatedClock) -> SimulatedBroker:
        """Returns a broker without messages."""
        return cls(
            partitions=MOCK_PARTITIONS,
            clock=clock.monotonic_s,
            sleep=clock.sleep,
            unix_us=clock.unix_us,
        )

    def prepare(self, cluster: Cluster, past: PastRun) -> None:
        """Prepares the broker for one run."""
        self.chance = random.Random(past.data.age)  # noqa: S311 - the same latencies each time
        self.median_ms = 140.0 if past.story == "slow" else self.chance.uniform(9, 16)
        self.delay_s = self.median_ms / 1000
        self.gone = BrokerUnavailable(
            f'no broker of "{cluster.name}" answers',
            why="connection refused, as simulated by python -m core demo",
            remedy="python -m core doctor says what can be reached",
        )
        self.fatal = self.gone if past.story == "failed" else None
        self.left_until_gone = past.data.rows * 3 // 5 if past.story == "sent in two runs" else None

    def require_topic(self, topic: str, timeout_s: float = 10.0) -> None:
        """Takes as long as connecting and the query of a small table."""
        self.sleep(self.chance.uniform(0.25, 0.5))
        MemoryPublisher.require_topic(self, topic, timeout_s)

    def describe(self, topic: str, timeout_s: float = 10.0) -> TopicState:
        """Returns the topic as mock brokers describe it, which have no ids."""
        return replace(
            MemoryPublisher.describe(self, topic, timeout_s), cluster_id="", bootstrap_servers="", topic_id=""
        )

    def publish(self, delivery: Delivery, indexes: Sequence[int] | None = None) -> None:
        """Queues the messages, each for the partition of its key."""
        self.partitions_of_batch = partitions_of(delivery.batch.keys, self.partitions, 0).tolist()
        MemoryPublisher.publish(self, delivery, indexes)

    def taken(self) -> list[KeptMessage]:
        """Returns what was acknowledged since the last call, by topic in that order."""
        found = [
            KeptMessage(topic, found.partition, found.offset, found.timestamp_ms, found.key, found.value, found.headers)
            for topic, records in self.records.items()
            for found in records
        ]
        self.records.clear()
        return found

    def _put(self, delivery: Delivery, index: int, refusal: PsttError | None) -> None:
        """Takes 50 µs; after the last message that arrives every other one fails."""
        self.sleep(_PUT_S)
        if self.left_until_gone is not None:
            self.left_until_gone -= 1
            if self.left_until_gone < 0:
                refusal = self.gone
        MemoryPublisher._put(self, delivery, index, refusal)

    def _report(self, item: PendingMessage) -> None:
        """Gives each message a latency of its own."""
        item.at_s = self.clock() - self.median_ms * self.chance.lognormvariate(0, _SPREAD) / 1000
        MemoryPublisher._report(self, item)

    def _partition_of(self, batch: Batch, index: int) -> int:
        """Places keys as Kafka does, so that a message that is sent again goes to the same partition."""
        return self.partitions_of_batch[index]
