"""The page's only door to core: what the views show, read anew at most every few seconds for all sessions together.

Nothing is held open between two calls. What is cached is keyed by the workspace's folder.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import streamlit as st

from core import open_workspace
from core.calendar.cron import next_scheduled_times
from core.errors import ConfigError, PsttError
from core.kafka.cluster_lookup import unknown_cluster
from core.model.connection import Cluster, Destination
from core.model.job import Job
from core.model.run import Run
from core.records.damaged_segments import damaged_segments
from core.records.metrics_queries import SendFilter, Usual
from core.records.outcomes import DayTotals, ScheduledOutcome, day_totals, outcomes_of_days, with_deleted_jobs
from core.records.runner_status import RunnerStatus
from core.workspace.paths import Workspace
from ui.remembered import Remembered

if TYPE_CHECKING:
    from core.admin.log_reader import LogLine
    from core.app import App
    from core.kafka.record_reader import TopicMessage
    from core.model.run import Reject
    from core.records.metrics import Metrics
    from core.run.replay import Choice

SOON_S = 2.0
"""How old what changes by the second may be."""
FIGURES_S = 5.0
"""How old counts may be: however many sessions look, it is asked once in this time whether something is new."""
AT_MOST_S = 60.0
"""How old they may be although nothing tells of a change: a file's time of change may come late, or be the same."""
QUARTER_S = 900
CLUSTERS_S = 20.0
"""How long a cluster is believed to be the one that it was."""
SHOWN_REJECTS = 1_000
DEMO_ROWS = 20_000
LOG_LINES = 300


def now() -> datetime:
    """The clock."""
    return datetime.now(UTC)


def root() -> Path:
    """The workspace's folder: PSTT_WORKSPACE, else where the page was started.

    Raises:
        ConfigError: It is not there.
    """
    return Workspace.find(None, os.environ).root


def workspace() -> Workspace:
    """What is where in it."""
    return Workspace(root())


@contextmanager
def opened() -> Iterator[App]:
    """The workspace, for one question."""
    with open_workspace(root(), log=False) as app:
        yield app


@lru_cache(maxsize=8)
def _metrics(folder: Path) -> Metrics:
    """Remembers the spool's folder from one question to the next; holds no file open."""
    from core.records.metrics import Metrics

    return Metrics(Workspace(folder))


@st.cache_resource(show_spinner=False)
def start_log(folder: Path) -> str:
    """Begins the log of this process, once; why there is no log file, empty where there is one."""
    with open_workspace(folder) as app:
        return app.log_problem


def forget() -> None:
    """What was read before is read anew, as it has been changed."""
    st.cache_data.clear()
    _calendar_slots.clear()
    _replay_choice.clear()
    _all_asked.forget()
    _of_any_period.forget()
    _of_the_period.forget()
    _errors_of_the_period.forget()


def jobs() -> tuple[list[Job], list[ConfigError]]:
    """All jobs that are right, and all problems of those that are not."""
    return _jobs(root())


@st.cache_data(ttl=SOON_S, show_spinner=False, max_entries=8)
def _jobs(folder: Path) -> tuple[list[Job], list[ConfigError]]:
    from core.workspace.jobs import load_jobs

    return load_jobs(Workspace(folder))


def stranded() -> dict[str, ConfigError]:
    """Slug → why a job can only fail, of those whose connection or cluster is not set up."""
    with opened() as app:
        return app.stranded(jobs()[0])


def last_runs(slugs: Sequence[str]) -> dict[str, Run]:
    """The newest run of each of these jobs."""
    with opened() as app:
        found = {slug: next(iter(app.ledger.runs(slug, 1)), None) for slug in slugs}
    return {slug: run for slug, run in found.items() if run is not None}


def query_names() -> list[str]:
    """The SQL files of `queries/`, also in folders below it."""
    folder = workspace().queries_dir
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.sql"))


def cluster_choices() -> tuple[list[str], str]:
    """The keys of `kafka_connections`, and the default topic of the usual cluster."""
    with opened() as app:
        try:
            names = list(app.connections.cluster_names)
        except ConfigError:
            return [], ""
        try:
            return names, app.cluster().default_topic
        except ConfigError:
            return names, ""


# ── the overview ──────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Choices:
    """What the filters offer."""

    jobs: dict[str, str]
    """Slug → name, also of jobs that are gone."""
    topics: list[str]
    clusters: list[str]
    has_runs: bool


@dataclass(frozen=True)
class Error:
    """Something that went wrong, counted."""

    kind: str
    """`message`, `run`, `row`."""
    text: str
    count: int
    last_seen: datetime
    retried_ok: int
    """How many of them came to a good end since."""


@dataclass(frozen=True)
class Overview:
    """Everything that the overview draws."""

    at: datetime
    summary: dict[str, Any]
    usual: Usual
    days: list[dict[str, Any]]
    usual_days: dict[date, Usual]
    hours: list[dict[str, Any]]
    runs: list[dict[str, Any]]
    errors_24h: list[Error]
    """The newest first."""
    threshold_ms: float | None
    """Above this p99 an alert is raised."""


@dataclass(frozen=True)
class ActiveJob:
    """A job that is switched on, and what comes next."""

    slug: str
    name: str
    topic: str
    timezone: str
    next_scheduled_at: datetime | None
    last_run: Run | None
    problem: str
    """Why it can only fail; empty where nothing is known against it."""


def choices() -> Choices:
    """What the filters offer."""
    return _choices(root())


@st.cache_data(ttl=20, show_spinner=False, max_entries=8)
def _choices(folder: Path) -> Choices:
    with open_workspace(folder, log=False) as app:
        known = app.ledger.jobs_known()
        names = known | {job.slug: job.name for job in _jobs(folder)[0]}
        topics = app.ledger.topics_known()
        clusters = [state.name for state in _frame(folder).clusters]
    return Choices(dict(sorted(names.items(), key=lambda item: item[1])), topics, clusters, bool(known))


@dataclass(frozen=True)
class _Asked:
    """What figures depend on: they are the same until one of these is another."""

    folder: Path
    timezone: str
    scope: SendFilter
    days: int
    quarter: int
    """Of an hour, now: time alone changes what is usual by now, and a day begins with a quarter in every zone."""
    runs: tuple[int, int]
    sends: tuple[int, ...]

    def at(self) -> datetime:
        """The clock; within the quarter also where that ended since, so that an answer is of one day."""
        begins = datetime.fromtimestamp(self.quarter * QUARTER_S, UTC)
        return min(now(), begins + timedelta(seconds=QUARTER_S, microseconds=-1))


def overview(scope: SendFilter, days: int) -> Overview:
    """The figures of the overview, of the last `days` days.

    Raises:
        PsttError: They cannot be read.
    """
    at = now()
    asked = replace(_all_asked.get(root()), scope=scope, quarter=_quarter(at))
    of_any, of_this = _of_any_period.get(asked), _of_the_period.get(replace(asked, days=days))
    return Overview(at=at, threshold_ms=_threshold(asked.folder), **of_any, **of_this)


def frequent_errors(scope: SendFilter, days: int) -> list[Error]:
    """Errors of the last `days` days, the most frequent first.

    The slowest question of the overview: it is asked apart, while the browser draws the rest.

    Raises:
        PsttError: They cannot be read.
    """
    asked = replace(_all_asked.get(root()), scope=scope, days=days, quarter=_quarter(now()))
    return _errors_of_the_period.get(asked)


def _quarter(at: datetime) -> int:
    return int(at.timestamp()) // QUARTER_S


def _find_all_asked(folder: Path) -> _Asked:
    with open_workspace(folder, log=False) as app:
        timezone, runs = app.timezone, app.ledger.runs_state()
    return _Asked(folder, timezone, SendFilter(), 0, 0, runs, _metrics(folder).state())


def _find_of_any_period(asked: _Asked) -> dict[str, Any]:
    at = asked.at()
    end, week, day = (at + timedelta(days=days) for days in (1, -7, -1))
    with _metrics(asked.folder).figures(asked.timezone) as figures:
        newest = sorted(_errors(figures, day, end, asked.scope), key=lambda error: error.last_seen, reverse=True)
        return {
            "summary": figures.summary(at, asked.scope),
            "usual": figures.usual(at, asked.scope),
            "hours": figures.hours(week, end, asked.scope),
            "runs": figures.runs(week, end, asked.scope),
            "errors_24h": newest,
        }


def _find_of_the_period(asked: _Asked) -> dict[str, Any]:
    at = asked.at()
    with _metrics(asked.folder).figures(asked.timezone) as figures:
        return {
            "days": figures.days(at, asked.days, asked.scope),
            "usual_days": figures.usual_days(at, asked.days, asked.scope),
        }


def _find_errors_of_the_period(asked: _Asked) -> list[Error]:
    at = asked.at()
    with _metrics(asked.folder).figures(asked.timezone) as figures:
        return _errors(figures, figures.midnight(at, days=1 - asked.days), at + timedelta(days=1), asked.scope)


_all_asked = Remembered(_find_all_asked, fresh_s=FIGURES_S, stale_s=FIGURES_S)
_of_any_period = Remembered(_find_of_any_period, fresh_s=AT_MOST_S, stale_s=AT_MOST_S, problem_s=FIGURES_S)
_of_the_period = Remembered(_find_of_the_period, fresh_s=AT_MOST_S, stale_s=AT_MOST_S, problem_s=FIGURES_S)
_errors_of_the_period = Remembered(
    _find_errors_of_the_period, fresh_s=AT_MOST_S, stale_s=AT_MOST_S, problem_s=FIGURES_S
)


def _errors(figures: Any, since: datetime, until: datetime, scope: SendFilter) -> list[Error]:
    found = [
        Error("message", row["error"] or "", row["count"], row["last_seen"], row["retried_ok"])
        for row in figures.errors(since, until, scope)
    ]
    found += [
        Error("run", row["error"] or "", row["count"], row["last_seen"], row["retried_ok"])
        for row in figures.run_errors(since, until, scope)
    ]
    found += [
        Error(
            "row",
            f"{row['column']}: {row['reason']}" if row["column"] else row["reason"],
            row["count"],
            row["last_seen"],
            0,
        )
        for row in figures.reject_reasons(since, until, scope)
    ]
    return sorted(found, key=lambda error: (-error.count, error.text))


def _threshold(folder: Path) -> float | None:
    from core.notify.rules import load_alerts

    try:
        rule = load_alerts(Workspace(folder).alerts_file).rules["latency_p99"]
    except ConfigError:
        return None
    return rule.threshold if rule.enabled else None


def active_jobs(scope: SendFilter) -> list[ActiveJob]:
    """The jobs that are switched on, the next to fire first."""
    found = [
        job
        for job in _active_jobs(root())
        if scope.job in (None, job.slug)
        and scope.topic in (None, job.topic)
        and (scope.cluster is None or job.last_run is None or job.last_run.cluster == scope.cluster)
    ]
    far = datetime.max.replace(tzinfo=UTC)
    return sorted(found, key=lambda job: (job.next_scheduled_at or far, job.name))


@st.cache_data(ttl=FIGURES_S, show_spinner=False, max_entries=8)
def _active_jobs(folder: Path) -> list[ActiveJob]:
    with open_workspace(folder, log=False) as app:
        stranded = app.stranded(_jobs(folder)[0])
        return [
            ActiveJob(
                slug=job.slug,
                name=job.name,
                topic=_topic(app, job),
                timezone=job.timezone,
                next_scheduled_at=next(iter(next_scheduled_times(job, now(), 1)), None),
                last_run=next(iter(app.ledger.runs(job.slug, 1)), None),
                problem=stranded[job.slug].text if job.slug in stranded else "",
            )
            for job in _jobs(folder)[0]
            if job.enabled
        ]


def _topic(app: App, job: Job) -> str:
    if job.export_format != "kafka":
        return job.output or job.export_format
    if job.kafka_config.topic:
        return job.kafka_config.topic
    try:
        return app.connections.cluster_for(job, app.settings).default_topic
    except ConfigError:
        return ""


# ── an empty workspace ────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class There:
    """Which of the first steps are done."""

    connection: bool
    query: bool


def what_is_there() -> There:
    """Which of the first steps are done."""
    workspace = Workspace(root())
    return There(workspace.connections_file.exists(), any(workspace.queries_dir.glob("*.sql")))


def fill_with_demo() -> str:
    """Makes the demo in this workspace, in which nothing ran yet; the slug of its job.

    Raises:
        ConfigError: There is something else in the folder.
        StorageFailed: It cannot be written.
    """
    from core.admin.demo import SLUG, make_demo

    make_demo(root(), DEMO_ROWS, now=now())
    forget()
    return SLUG


# ── days ──────────────────────────────────────────────────────────────────────────────────────


def today_and_yesterday() -> list[tuple[DayTotals, list[ScheduledOutcome]]]:
    """What arrived of the runs scheduled today, up to now, and of those of yesterday; the scheduled times themselves."""
    return _of_two_days(root(), now().astimezone(ZoneInfo(frame().timezone)).date())


@st.cache_data(ttl=FIGURES_S, show_spinner=False, max_entries=8)
def _of_two_days(folder: Path, today: date) -> list[tuple[DayTotals, list[ScheduledOutcome]]]:
    at = now()
    with open_workspace(folder, log=False) as app:
        yesterday = today - timedelta(days=1)
        slots = [
            slot for job in _kafka_jobs(folder, app) for slot in outcomes_of_days(job, app.ledger, yesterday, today, at)
        ]
    of_days = ((day, [slot for slot in slots if slot.day == day]) for day in (today, yesterday))
    return [(day_totals(day, chosen), chosen) for day, chosen in of_days]


def calendar_slots(days: int) -> dict[str, list[ScheduledOutcome]]:
    """Job name → what became of its scheduled times in the last days up to today."""
    return _calendar_slots(root(), days)


@st.cache_resource(ttl=FIGURES_S, show_spinner=False, max_entries=8)  # nothing in it changes: no copy a reader
def _calendar_slots(folder: Path, days: int) -> dict[str, list[ScheduledOutcome]]:
    at = now()
    with open_workspace(folder, log=False) as app:
        found = {}
        for job in _kafka_jobs(folder, app):
            today = at.astimezone(ZoneInfo(job.timezone)).date()
            first = today - timedelta(days=days - 1)
            found[job.slug] = outcomes_of_days(job, app.ledger, first, today, at)
    return found


def newest_day() -> date:
    """Today, in that of the zones of workspace and jobs in which it is latest."""
    zones = {frame().timezone, *(job.timezone for job in jobs()[0])}
    return max(now().astimezone(ZoneInfo(zone)).date() for zone in zones)


def _kafka_jobs(folder: Path, app: App) -> list[Job]:
    """Jobs as they are, and what is left of those whose file is gone or wrong."""
    known = with_deleted_jobs(_jobs(folder)[0], app.ledger, app.timezone)
    return [job for job in known if job.export_format == "kafka"]


@dataclass(frozen=True)
class RangeCount:
    """What sending a range again will do."""

    scheduled_runs: int
    succeeded_before: int
    planned_before: int
    messages: int | None
    """How many that will be, by the last good runs; None: there were none."""


def count_range(slug: str, first: date, last: date, *, again: bool) -> RangeCount:
    """How many runs and messages a backfill of these days will make.

    Raises:
        ConfigError: The range is empty or too long, or there is no such job.
    """
    from core.scheduler.commands import wanted_times

    with opened() as app:
        job = app.job(slug)
        wanted, succeeded, planned = wanted_times(app.ledger, job, first, last, now=now(), again=again)
        good, _ = app.ledger.runs_where(job=slug, states=["succeeded"], limit=30)
    mean = sum(run.acknowledged for run in good) / len(good) if good else None
    return RangeCount(len(wanted), succeeded, planned, None if mean is None else round(mean * len(wanted)))


def sent_before(job: Job, at: datetime) -> Run | None:
    """The run that has sent a scheduled time, which running it would send again; None: there is none."""
    from core.scheduler import commands as orders

    with opened() as app:
        return orders.sent_before(app.ledger, job, at)


# ── runs ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class RunDetail:
    """One run with all that is known about it."""

    run: Run
    family: list[Run]
    """Other runs of the same job and scheduled time."""
    histogram: list[dict[str, Any]]
    first_sent_at: datetime | None
    last_acknowledged_at: datetime | None
    reasons: list[tuple[str, str, str, int]]
    """Column, database type, reason, count."""
    figures_problem: str
    """Why there are no figures of its sends; empty where there are."""


@dataclass(frozen=True)
class RunsPage:
    """One page of the runs, the newest first."""

    runs: list[Run]
    count: int
    """How many there are on all pages."""
    by_hand: int
    """Messages that were sent by hand on the days asked for, which belong to no run."""


def runs_page(
    scope: SendFilter,
    states: Sequence[str],
    days: tuple[date, date] | None,
    sent_on: tuple[date, date] | None,
    page: int,
    per_page: int,
) -> RunsPage:
    """One page of the runs.

    Args:
        scope: Of which job, to which topic and cluster.
        states: Only these; empty: all.
        days: Scheduled on one of these, each in the time zone of its job; None: whenever.
        sent_on: Sent messages on one of these days of the workspace's zone, as the chart counts them; None: whenever.
        page: From 0.
        per_page: Runs.

    Raises:
        PsttError: Who sent when cannot be read.
    """
    run_ids, by_hand = None, 0
    if sent_on:
        with _metrics(root()).figures(frame().timezone) as figures:
            senders = figures.senders(*sent_on, scope)
        run_ids = [row["run_id"] for row in senders if row["job"]]
        by_hand = sum(row["messages"] for row in senders if not row["job"])
    with opened() as app:
        runs, count = app.ledger.runs_where(
            job=scope.job,
            topic=scope.topic,
            cluster=scope.cluster,
            states=states,
            days=days,
            run_ids=run_ids,
            limit=per_page,
            offset=page * per_page,
        )
    return RunsPage(runs, count, by_hand)


def run_detail(run_id: str) -> RunDetail:
    """All about one run.

    Raises:
        ConfigError: There is no such run.
    """
    folder = root()
    with opened() as app:
        run = app.ledger.run(run_id)
        family = app.ledger.family(run)
        reasons = Counter((r.column, r.database_type, r.reason) for r in app.rejects(run)) if run.rejected else {}
        timezone = app.timezone
    histogram, span, problem = [], {}, ""
    try:
        with _metrics(folder).figures(timezone) as figures:
            histogram = figures.latency_histogram(run.run_id)
            span = figures.run_span(run.run_id, run.started_at, (run.finished_at or now()) + timedelta(minutes=1))
    except PsttError as error:
        problem = error.text
    return RunDetail(
        run=run,
        family=family,
        histogram=histogram,
        first_sent_at=span.get("first_sent_at"),
        last_acknowledged_at=span.get("last_acknowledged_at"),
        reasons=[(*key, count) for key, count in sorted(reasons.items(), key=lambda item: -item[1])],
        figures_problem=problem,
    )


@st.cache_resource(ttl=CLUSTERS_S, show_spinner=False, max_entries=16)  # its secrets are not copied
def _replay_choice(folder: Path, run_id: str) -> Choice:
    with open_workspace(folder, log=False) as app:
        return app.replay_choice(run_id)


def replay_choice(run_id: str) -> Choice:
    """Where a run can be sent again. A dialog draws it often, and clusters are asked for their ids.

    Raises:
        ConfigError: There is no such run, or its job was deleted.
    """
    return _replay_choice(root(), run_id)


def rejects(run_id: str, limit: int = SHOWN_REJECTS) -> list[Reject]:
    """The first rejected rows of a run."""
    with opened() as app:
        return list(islice(app.ledger.rejects(app.ledger.run(run_id).run_id), limit))


def rejects_csv(run_id: str) -> bytes:
    """All rejected rows of a run, as `python -m core rejects --csv` writes them."""
    import tempfile

    from core.files.rejects_csv import write_rejects

    with opened() as app, tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rejects.csv"
        write_rejects(file, list(app.ledger.rejects(app.ledger.run(run_id).run_id)))
        return file.read_bytes()


def log_lines(run: Run) -> list[LogLine]:
    """What the log says about a run."""
    from core.admin.log_reader import newest_lines

    folder = Workspace(root()).logs_dir
    return newest_lines(folder, run=run.run_id, since=run.started_at - timedelta(minutes=1), limit=LOG_LINES)


# ── find ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Found:
    """What a search brought."""

    sends: list[dict[str, Any]]
    is_beginning: bool
    """The keys only begin so."""


def find(text: str) -> Found:
    """Every send of that key, the newest first; where there is none, or with `*` at its end, of keys that begin so."""
    metrics = _metrics(root())
    sends = [] if text.endswith("*") else metrics.find(text)
    if sends:
        return Found(sends[::-1], is_beginning=False)
    return Found(metrics.find_beginning(text.rstrip("*")), is_beginning=True)


@dataclass(frozen=True)
class OnTopic:
    """A message as it stands on its topic, beside what was sent."""

    message: TopicMessage
    same_key: bool
    same_id: bool | None
    """None: the message has no such header."""
    same_size: bool
    data_proven: bool | None
    """Whether its data has the hash that its id is made of; None: what was sent by hand has no such id."""

    @property
    def is_equal(self) -> bool:
        """Whether nothing that can be compared differs."""
        return self.same_key and self.same_size and self.same_id is not False and self.data_proven is not False


def read_from_topic(send: dict[str, Any]) -> OnTopic:
    """Reads a message at its offset, on the cluster that it was sent to, and compares it with what was sent.

    Raises:
        PsttError: It cannot be read, or is not there any more; the text says why.
    """
    from core.message.envelope import proves_data

    with opened() as app:
        run = app.ledger.run(send["run_id"]) if send["job"] else None
        sent_to = _destination(send, run)
        cluster = app.cluster_of(sent_to)
        clusters, problems = app.connections.known_clusters(app.settings)
    if cluster is not None:
        message = _at(cluster, send)
    elif sent_to.cluster_id:
        raise unknown_cluster(sent_to, problems)
    else:
        message = _sought(send, sent_to, clusters, problems)
    key = None if message.key is None else message.key.decode("utf-8", "replace")
    value = message.value or b""
    message_id = message.headers.get("message_id")
    return OnTopic(
        message=message,
        same_key=key == send["key"],
        same_id=None if message_id is None else message_id == send["message_id"],
        same_size=len(value) == send["size_bytes"],
        data_proven=None if run is None else proves_data(send["message_id"], value, run.job, run.scheduled_at),
    )


def _destination(send: dict[str, Any], run: Run | None) -> Destination:
    """What was recorded with the send, else with its run."""
    told = Destination(*(send[name] or "" for name in ("cluster", "cluster_id", "bootstrap_servers")))
    if run is None or told.cluster_id or told.bootstrap_servers:
        return told
    return Destination(run.cluster, run.cluster_id, run.bootstrap_servers)


def _at(cluster: Cluster, send: dict[str, Any]) -> TopicMessage:
    from core.kafka.record_reader import read_message

    return read_message(cluster, send["topic"], send["partition"], send["offset"])


def _sought(
    send: dict[str, Any], sent_to: Destination, clusters: list[Cluster], problems: list[ConfigError]
) -> TopicMessage:
    """The message wherever it is: an earlier version recorded no id of its cluster, and the name is another now."""
    for cluster in clusters:
        with suppress(PsttError):  # it has no such topic or offset, or does not answer
            message = _at(cluster, send)
            if message.headers.get("message_id") == send["message_id"]:
                return message
    raise unknown_cluster(sent_to, problems)


# ── the frame ─────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class ClusterState:
    """What is known about one cluster."""

    name: str
    connected: bool | None
    """None: nobody has looked lately."""
    since: datetime | None
    looked_at: datetime | None
    error: str
    is_demo: bool = False
    """It lives inside the process of each run."""


@dataclass(frozen=True)
class FrameState:
    """What stands around every view."""

    folder: Path
    environment: str
    timezone: str
    clusters: tuple[ClusterState, ...]
    runner: RunnerStatus | None
    alerts: tuple[str, ...]
    problem: str
    """What is wrong with connections.json; empty where nothing is."""
    damaged: int
    """Segments of the spool that could not be read."""

    def runner_lives(self, at: datetime) -> bool:
        """Whether a runner works here."""
        return self.runner is not None and self.runner.is_alive(at)


def frame() -> FrameState:
    """The frame."""
    return _frame(root())


@st.cache_data(ttl=SOON_S, show_spinner=False, max_entries=8)
def _frame(folder: Path) -> FrameState:
    with open_workspace(folder, log=False) as app:
        problem, environment = "", ""
        try:
            environment = app.connections.default_environment
        except ConfigError as error:
            is_new = not app.workspace.connections_file.exists() and not any(_jobs(folder))
            problem = "" if is_new else error.text  # the first steps say what to do
        return FrameState(
            folder=folder,
            environment=environment,
            timezone=app.timezone,
            clusters=tuple(_clusters(app)),
            runner=app.ledger.heartbeats.newest(),
            alerts=_open_alerts(app),
            problem=problem,
            damaged=len(damaged_segments(app.workspace.spool_dir)),
        )


def _clusters(app: App) -> Iterator[ClusterState]:
    stale = now() - timedelta(seconds=3 * app.settings.KAFKA_HEALTH_CHECK_INTERVAL_SEC + 15)
    seen = {state.cluster: state for state in app.ledger.broker_samples.states()}
    for state in seen.values():
        connected = state.connected if state.at >= stale else None
        yield ClusterState(state.cluster, connected, state.since, state.at, state.error or "")
    try:
        names = app.connections.cluster_names
    except ConfigError:
        return
    for name in names:
        try:
            cluster = app.cluster(name)
        except ConfigError as error:
            if name not in seen:
                yield ClusterState(name, None, None, None, error.text)
            continue
        if cluster.name not in seen:
            yield ClusterState(cluster.name, None, None, None, "", is_demo=bool(cluster.mock_brokers))


def _open_alerts(app: App) -> tuple[str, ...]:
    from core.notify.outbox import Outbox

    try:
        with Outbox(app.workspace.ledger_file) as outbox:
            return tuple(incident.text for incident in outbox.open_incidents() if incident.state == "open")
    except PsttError:
        return ()
