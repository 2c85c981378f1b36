"""Whether this machine, this workspace and the servers it names are fit for a run: one fact a line, as it is found."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo

from core.errors import BrokerUnavailable, PsttError, SourceUnavailable
from core.model.check_result import CheckResult
from core.model.connection import Cluster, DatabaseConnection
from core.model.job import Job
from core.model.publisher import Publisher, TopicInfo
from core.model.source import Source
from core.records.ledger import Ledger
from core.run.exactly_once import foreign_sender
from core.run.pending_transactions import read_note
from core.sources import find_dialect
from core.workspace.identity import Identity, doubt, read_identity
from core.workspace.secrets import is_reference

if TYPE_CHECKING:
    from core.kafka.cluster_rights import Certificate, ClusterRights
    from core.workspace.connections import Connections
    from core.workspace.paths import Workspace
    from core.workspace.settings import Settings

__all__ = ["CheckResult", "examine", "examine_cluster", "examine_database"]

LITTLE_SPACE_BYTES = 1024**3
"""A day of 200,000 sends takes 10 MB in spool and metrics: 1 GB lasts some months."""
NO_SPACE_BYTES = 64 * 1024**2
"""Where the spool refuses to begin a run."""
SLOW_MS = 1000.0
MOST_NAMES = 5
CERTIFICATE_DAYS = 30
TOPICS_TIMEOUT_S = 10.0
FIRST_SANE_YEAR = 2024
LAST_SANE_YEAR = 2100


class OpenSource(Protocol):
    """`core.sources.open_source`."""

    def __call__(self, connection: DatabaseConnection, /) -> Source:
        """A source for that connection."""
        ...


class OpenPublisher(Protocol):
    """`core.kafka.open_publisher`."""

    def __call__(self, cluster: Cluster, /) -> Publisher:
        """A publisher for that cluster."""
        ...


class AskRights(Protocol):
    """`core.kafka.cluster_rights.cluster_rights`."""

    def __call__(self, cluster: Cluster, topics: Iterable[str], /) -> ClusterRights:
        """What this account may do there."""
        ...


def examine(
    workspace: Workspace,
    settings: Settings,
    connections: Connections,
    jobs: Sequence[Job],
    *,
    open_source: OpenSource,
    open_publisher: OpenPublisher,
    ask_rights: AskRights,
    now: Callable[[], datetime],
) -> Iterator[CheckResult]:
    """Looks at the machine, then the workspace, then reaches each database and cluster; changes and sends nothing.

    Yields:
        One fact a line, as soon as it is known. A problem is a fact as well: no PsttError is raised. A server
        that does not answer is marked `unreachable`.
    """
    yield from _told("python", _python)
    yield from _told("clock", lambda: _clock(now(), settings.PSTT_TIMEZONE))
    yield from _told("disk", lambda: _disk(workspace.root))
    yield from _told("permissions", lambda: _permissions(workspace, connections))
    yield from _told("ledger", lambda: _ledger(workspace.ledger_file, now()))
    yield from _told("metrics.duckdb", lambda: _metrics(workspace.metrics_file, workspace.spool_dir))
    yield from _told("spool", lambda: _spool(workspace.spool_dir))
    yield from _told("identity", lambda: _identity(workspace))
    yield from _told("transactions", lambda: _transactions(workspace))
    yield from _databases(connections, open_source)
    yield from _clusters(settings, connections, jobs, open_publisher, partial(_rights, ask_rights, now))
    yield from _told("identity", lambda: _twins(workspace, settings, connections, jobs, open_publisher))


def _told(subject: str, look: Callable[[], Iterable[CheckResult]]) -> Iterator[CheckResult]:
    """The facts of one look; an error of ours becomes the last of them."""
    try:
        yield from look()
    except PsttError as error:
        away = isinstance(error, SourceUnavailable | BrokerUnavailable)
        yield CheckResult("fail", subject, error.text, error.remedy, unreachable=away)


def _python() -> Iterator[CheckResult]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts an older one is told so, here
        yield CheckResult("fail", "python", f"version {version} is too old", "install Python 3.11 or newer")
    else:
        yield CheckResult("pass", "python", f"version {version}")


def _clock(now: datetime, timezone: str) -> Iterator[CheckResult]:
    local = now.astimezone(ZoneInfo(timezone))  # settings with an unknown zone are not loaded
    text = f"{local:%Y-%m-%d %H:%M:%S} {timezone}"
    if FIRST_SANE_YEAR <= local.year <= LAST_SANE_YEAR:
        yield CheckResult("pass", "clock", text)
    else:
        yield CheckResult(
            "fail",
            "clock",
            f"{text} cannot be right",
            "set the clock: calendars, parameters and certificates depend on it",
        )


def _disk(root: Path) -> Iterator[CheckResult]:
    free = shutil.disk_usage(root).free
    text = f"{free / 1e9:,.1f} GB free"
    remedy = "make room on the disk of the workspace"
    if free < NO_SPACE_BYTES:
        yield CheckResult("fail", "disk", f"{text}: no run begins with less than {NO_SPACE_BYTES // 2**20} MB", remedy)
    elif free < LITTLE_SPACE_BYTES:
        yield CheckResult("warn", "disk", text, remedy)
    else:
        yield CheckResult("pass", "disk", text)


def _permissions(workspace: Workspace, connections: Connections) -> Iterator[CheckResult]:
    problem = _cannot_write(workspace.root)
    if problem:
        remedy = "give this account the right to write there, or choose another folder with --workspace DIR"
        yield CheckResult("fail", "permissions", f"the workspace cannot be written: {problem}", remedy)
    else:
        yield CheckResult("pass", "permissions", "the workspace can be written")
    secrets = {
        workspace.connections_file: bool(connections.literal_passwords),
        workspace.env_file: _env_secret(workspace),
    }
    for file, holds_secret in secrets.items():
        if holds_secret and _others_may_read(file):
            remedy = f"chmod 600 {file.name}, or put env:NAME, file:PATH or keyring:SERVICE/USER in the secret's place"
            yield CheckResult(
                "warn", "permissions", f"{file.name} holds a password and every account here may read it", remedy
            )


def _cannot_write(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0")
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _others_may_read(file: Path) -> bool:
    """On Windows rights are inherited from the folder, and its owner looks after them."""
    return os.name != "nt" and bool(file.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _env_secret(workspace: Workspace) -> bool:
    """Whether `.env` holds a secret: the password of Kafka, or a variable that is none of our settings but what `env:` names."""
    from core.workspace.settings import SECRETS, read_env_file

    ours = ("KAFKA_", "PSTT_")
    return any(
        not is_reference(value) and (name in SECRETS or not name.startswith(ours))
        for name, (value, _) in read_env_file(workspace.env_file).items()
    )


def _ledger(file: Path, now: datetime) -> Iterator[CheckResult]:
    if not file.exists():
        yield CheckResult("pass", "ledger", "not made yet, the first run makes it")
        return
    with Ledger(file) as ledger:
        newest = next(iter(ledger.history.newest(None, 1)), None)
    damage = _damage(file)
    if damage:
        remedy = (
            f"restore {file.name} from a backup, or move it away: runs are then forgotten, sends stay in metrics.duckdb"
        )
        yield CheckResult("fail", "ledger", f"{file.name} is damaged: {damage}", remedy)
    else:
        yield CheckResult("pass", "ledger", "opens, and is whole")
    if newest and newest.started_at > now + timedelta(minutes=1):
        yield CheckResult(
            "warn",
            "clock",
            f"the newest run began at {newest.started_at:%Y-%m-%d %H:%M} UTC, which is still to come",
            "the clock was set back: correct it, or wait until then before trusting times",
        )


def _damage(file: Path) -> str:
    """What SQLite finds wrong; reads the file once (0.2 s for 100 MB)."""
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as db:
            (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        return str(error)
    return "" if verdict == "ok" else str(verdict).splitlines()[-1]


def _metrics(file: Path, spool_dir: Path) -> Iterator[CheckResult]:
    segments = {path.name for path in spool_dir.glob("*.parquet")} if spool_dir.is_dir() else set()
    if not file.exists():
        yield CheckResult("pass", file.name, f"not made yet, {_segments(segments)} in the spool")
        return
    import duckdb

    try:
        with duckdb.connect(str(file), config={"threads": 1}) as db:
            known = {name for (name,) in db.execute("SELECT name FROM segment").fetchall()}
    except duckdb.Error as error:
        yield _metrics_problem(file.name, str(error).partition("\n")[0])
        return
    waiting = segments - known
    yield CheckResult(
        "pass", file.name, f"opens, {_segments(known)} copied" + (f", {len(waiting):,} wait" if waiting else "")
    )


def _spool(spool_dir: Path) -> Iterator[CheckResult]:
    """What cannot be read; `_metrics` says how many segments there are."""
    from core.records.damaged_segments import REMEDY, damaged_segments

    found = [segment.name for segment in damaged_segments(spool_dir)]
    if found:
        names = ", ".join(found[:MOST_NAMES]) + (", …" if len(found) > MOST_NAMES else "")
        text = f"{_segments(set(found))} could not be read and stand in {spool_dir / 'damaged'}: {names}"
        yield CheckResult(
            "warn", "spool", f"{text}; metrics and find lack their sends, the verdicts of runs stand", REMEDY
        )


def _metrics_problem(name: str, why: str) -> CheckResult:
    from core.records.metrics import is_held

    if is_held(why):
        remedy = "close the notebook or tool that has it open; until then sends wait in the spool and nothing is lost"
        return CheckResult("warn", name, f"is open in another program ({why})", remedy)
    return CheckResult(
        "fail", name, f"cannot be read ({why})", "python -m core metrics rebuild makes it again from the spool"
    )


def _segments(names: set[str]) -> str:
    return "1 segment" if len(names) == 1 else f"{len(names):,} segments"


def _identity(workspace: Workspace) -> Iterator[CheckResult]:
    if question := doubt(workspace):
        yield CheckResult("fail", "identity", question.text, question.remedy)
    elif known := read_identity(workspace):
        yield CheckResult("pass", "identity", f"{known.id}, under which runs of exactly_once send")


def _transactions(workspace: Workspace) -> Iterator[CheckResult]:
    files = sorted(workspace.pending_dir.glob("*.json"))
    if not files:
        return
    with Ledger(workspace.ledger_file) as ledger:
        for file in files:
            run = ledger.known(file.stem)
            if run is not None and run.state == "running" and ledger.is_alive(run.run_id):
                continue
            whose = f"run {file.stem}" + (f" of job {run.job}" if run else "")
            remedy = "the runner asks the cluster each half minute, and the job's next run asks too: the log says what hinders"
            if read_note(file) is None:
                remedy = f"{file} cannot be read: restore it from a backup"
            yield CheckResult("warn", "transactions", f"whether {whose} was committed is not known yet", remedy)


def _databases(connections: Connections, open_source: OpenSource) -> Iterator[CheckResult]:
    for name in connections.database_names:
        yield from examine_database(connections, name, open_source)


def examine_database(connections: Connections, name: str, open_source: OpenSource) -> Iterator[CheckResult]:
    """Reaches one database; yields as `examine`."""
    subject = f"database {name}"
    yield from _told(subject, partial(_database, connections, name, subject, open_source))


def _database(connections: Connections, name: str, subject: str, open_source: OpenSource) -> Iterator[CheckResult]:
    connection = connections.database(name)
    missing = find_dialect(connection.db_type).missing(connection.driver)
    if missing:
        yield missing
        return
    source = open_source(connection)
    try:
        yield from (_about(subject, fact) for fact in source.check())
    finally:
        source.close()


def _about(subject: str, fact: CheckResult) -> CheckResult:
    """The fact under our subject: a source says what it found, not whose it is."""
    text = fact.text if fact.subject in ("", subject) else f"{fact.subject}: {fact.text}"
    return CheckResult(fact.status, subject, text, fact.remedy, unreachable=fact.unreachable)


def _clusters(
    settings: Settings,
    connections: Connections,
    jobs: Sequence[Job],
    open_publisher: OpenPublisher,
    rights: Callable[[Cluster, list[str]], Iterable[CheckResult]],
) -> Iterator[CheckResult]:
    """Each cluster once, with the topics that jobs send to; also one that only the KAFKA_* settings name."""
    topics: dict[Cluster, dict[str, Job]] = {}
    for name in connections.cluster_names:
        try:
            topics[connections.cluster(name, settings)] = {}
        except PsttError as error:
            yield CheckResult("fail", f"cluster {name}", error.text, error.remedy)
    for job in jobs:
        try:
            connections.require(job)
            if job.export_format != "kafka" or not job.kafka_config.enabled:
                continue
            cluster = connections.cluster_for(job, settings)
        except PsttError as error:
            yield CheckResult("fail", f"job {job.slug}", error.text, error.remedy)
        else:
            topics.setdefault(cluster, {}).setdefault(job.kafka_config.topic or cluster.default_topic, job)
    for cluster, wanted in topics.items():
        yield from _told(f"cluster {cluster.name}", partial(_cluster, cluster, wanted, open_publisher, rights))


def _twins(
    workspace: Workspace,
    settings: Settings,
    connections: Connections,
    jobs: Sequence[Job],
    open_publisher: OpenPublisher,
) -> Iterator[CheckResult]:
    """Whether another workspace has sent under our identity: the newest holder of it on each cluster tells."""
    known = read_identity(workspace)
    if known is None:
        return
    once = [job for job in jobs if job.delivery == "exactly_once" and job.export_format == "kafka"]
    for cluster in dict.fromkeys(_cluster_of(job, connections, settings) for job in once):
        if cluster is not None and not cluster.mock_brokers and cluster.client != "kafka-python-ng":
            yield from _told("identity", partial(_twin, workspace, settings, known, cluster, open_publisher))


def _twin(
    workspace: Workspace, settings: Settings, known: Identity, cluster: Cluster, open_publisher: OpenPublisher
) -> Iterator[CheckResult]:
    with closing(open_publisher(cluster)) as publisher, Ledger(workspace.ledger_file) as ledger:
        key = known.id.encode()
        raw = publisher.read_control(settings.PSTT_CONTROL_TOPIC, [key]).get(key)
        foreign = foreign_sender(raw, known, ledger) if raw else None
    if foreign:
        yield CheckResult("fail", "identity", f"cluster {cluster.name}: {foreign.text}", foreign.remedy)


def _cluster_of(job: Job, connections: Connections, settings: Settings) -> Cluster | None:
    """None where its settings are wrong, which is told elsewhere."""
    try:
        return connections.cluster_for(job, settings)
    except PsttError:
        return None


def examine_cluster(
    cluster: Cluster,
    wanted: dict[str, Job],
    *,
    open_publisher: OpenPublisher,
    ask_rights: AskRights,
    now: Callable[[], datetime],
) -> Iterator[CheckResult]:
    """Reaches one cluster and looks for the topics of these jobs (topic → job); yields as `examine`."""
    rights = partial(_rights, ask_rights, now)
    yield from _told(f"cluster {cluster.name}", partial(_cluster, cluster, wanted, open_publisher, rights))


def _cluster(
    cluster: Cluster,
    wanted: dict[str, Job],
    open_publisher: OpenPublisher,
    rights: Callable[[Cluster, list[str]], Iterable[CheckResult]],
) -> Iterator[CheckResult]:
    publisher = open_publisher(cluster)
    try:
        began = time.perf_counter()
        topics = publisher.topics(TOPICS_TIMEOUT_S)
        latency_ms = (time.perf_counter() - began) * 1000
    finally:
        publisher.close(timeout_s=1)
    subject = f"cluster {cluster.name}"
    place = "mock brokers in this process" if cluster.mock_brokers else cluster.bootstrap_servers
    text = f"{place} answered in {latency_ms:,.0f} ms, {len(topics):,} {'topic' if len(topics) == 1 else 'topics'}"
    if latency_ms > SLOW_MS:
        yield CheckResult("warn", subject, text, "look at the network between here and the brokers")
    else:
        yield CheckResult("pass", subject, text)
    for topic, job in wanted.items():
        yield _topic(cluster, subject, topic, job, topics)
    if cluster.client != "confluent":
        yield CheckResult("pass", subject, f"{cluster.client} does not tell what this account may do there")
    elif not cluster.mock_brokers:
        there = {info.name for info in topics}
        yield from _told(subject, lambda: rights(cluster, [topic for topic in wanted if topic in there]))


def _rights(
    ask_rights: AskRights, now: Callable[[], datetime], cluster: Cluster, topics: Sequence[str]
) -> Iterator[CheckResult]:
    """Who this account is there, what it may do, and how long the brokers' certificate holds."""
    subject = f"cluster {cluster.name}"
    found = ask_rights(cluster, topics)
    account = f'account "{cluster.sasl_username}"' if cluster.sasl_username else "no account"
    account = "the account of our certificate" if cluster.ssl_certfile else account
    sign_in = " ".join(filter(None, [cluster.security_protocol, cluster.sasl_mechanism]))
    brokers = "1 broker" if found.brokers == 1 else f"{found.brokers:,} brokers"
    yield CheckResult("pass", subject, f"{account} over {sign_in}; {brokers}, cluster id {found.cluster_id}")
    if found.certificate:
        yield _certificate(subject, found.certificate, now())
    for topic in topics:
        yield _may_write(subject, topic, found.topic_operations.get(topic))
    if found.cluster_operations is not None:
        makes = "may" if "CREATE" in found.cluster_operations else "may not"
        yield CheckResult("pass", subject, f"this account {makes} make topics")


def _certificate(subject: str, certificate: Certificate, now: datetime) -> CheckResult:
    days = (certificate.valid_until - now).days
    text = (
        f"certificate of {certificate.subject}, issued by {certificate.issuer}, "
        f"valid until {certificate.valid_until:%Y-%m-%d}, {days:,} days"
    )
    if days < CERTIFICATE_DAYS:
        return CheckResult("warn", subject, text, "have it renewed before then: no run can send once it has expired")
    return CheckResult("pass", subject, text)


def _may_write(subject: str, topic: str, operations: frozenset[str] | None) -> CheckResult:
    if operations is None:
        return CheckResult(
            "warn", subject, f'whether this account may write to topic "{topic}", these brokers do not tell'
        )
    rights = ", ".join(sorted(word.lower().replace("_", " ") for word in operations))
    if "WRITE" in operations:
        return CheckResult("pass", subject, f'this account may write to topic "{topic}" ({rights})')
    return CheckResult(
        "fail",
        subject,
        f'this account may not write to topic "{topic}"' + (f" (only: {rights})" if rights else ""),
        "ask the cluster's administrators for WRITE and DESCRIBE on it",
    )


def _topic(cluster: Cluster, subject: str, topic: str, job: Job, topics: list[TopicInfo]) -> CheckResult:
    """Asking for one topic by name would make it on some clusters, so it is only looked for among all."""
    found = next((info for info in topics if info.name == topic), None)
    if found:
        return CheckResult("pass", subject, f'topic "{topic}" of job {job.slug}: {found.partitions} partitions')
    if cluster.mock_brokers:
        return CheckResult("pass", subject, f'topic "{topic}" of job {job.slug} is made on first use')
    return CheckResult(
        "warn",
        subject,
        f'topic "{topic}" of job {job.slug} is not there, or this account may not see it',
        "have it made before the first run, unless this cluster makes topics on first use",
    )
