"""Creates a workspace that needs no server: the rows come from SQLite, the messages go to a mock broker in this process."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from core.admin.demo_rows import BARCODE, fill_table
from core.calendar.cron import previous_scheduled_time
from core.errors import BrokerUnavailable, ConfigError, StorageFailed, TopicMissing
from core.model.job import Job
from core.model.run import PartitionRange
from core.records.ledger import Ledger
from core.records.opened import OpenWorkspace
from core.records.rights import Caller, require
from core.sources.sqlite import DIALECT
from core.workspace.jobs import SUFFIX, parse_job
from core.workspace.paths import Workspace

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

__all__ = ["BARCODE", "SLUG", "DemoReadBack", "create_demo", "make_demo", "read_back"]

SLUG = "export-cdg-tracce"

_CONNECTION = "A00-CDG-Collaudo"
_DATABASE = "demo.sqlite"
_QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"
_CRON = "0 2 * * *"

_SQL = """define DATA='2026-01-17'  --Obbligatorio: Data estrazione (YYYY-MM-DD)
SELECT BARCODE, TRKDATE, OPERATOR, MSGTYPE, CAUSAL, TEST_FLAG, PHASE_AT, ARRIVETIMESTAMP, STATUS, TRACK_OFFICE,
       MTF_MTFID, DATE_OTHER, CANALE, CUSTCODE, CUST_SPED, IDSPED
FROM EXPORT_TABLE
WHERE DATE(TRKDATE) = '&DATA' AND TEST_FLAG = 'N'
ORDER BY ARRIVETIMESTAMP;
"""

_CONNECTIONS = {
    "default_environment": "collaudo",
    "connections": [
        {"name": _CONNECTION, "environment": "collaudo", "db_type": DIALECT.name, "database": _DATABASE},
    ],
    "kafka_connections": {
        "collaudo": {"name": "Kafka Collaudo (mock)", "mock_brokers": 1, "default_topic": "pstt-collaudo"},
    },
}

_JOB = {
    "name": "Export CDG Tracce to Kafka",
    "query": _QUERY,
    "connection": _CONNECTION,
    "scheduling_mode": "cron",
    "cron": _CRON,
    "enabled": True,
    "parameters": {"DATA": "{date-1}"},
    "export_format": "kafka",
    "kafka_config": {
        "enabled": True,
        "topic": "pstt-traces",
        "message_key_field": "BARCODE",
        "batch_size": 100,
        "include_metadata": True,
    },
    "email_notification": {"on_success": False, "on_failure": True, "recipients": ["admin@example.com"]},
}


Opener = Callable[[Path], AbstractContextManager[OpenWorkspace]]
"""Opens the workspace in a folder."""


def create_demo(folder: Path, rows: int, *, days: int, open_workspace: Opener, caller: Caller, now: datetime) -> None:
    """Creates the demo workspace for a caller: the arguments and what it raises are those of `make_demo`.

    The audit line is in the ledger of the new workspace, for that of an earlier demo is deleted.

    Raises:
        AccessRefused: The caller is no admin.
    """
    require(caller, "demo")
    make_demo(folder, rows, now=now, days=days, open_workspace=open_workspace)
    with Ledger(Workspace(folder).ledger_file) as ledger:
        ledger.audit.add(caller.name, "demo", "workspace", now, after={"rows": rows, "days": days})


def make_demo(folder: Path, rows: int, *, now: datetime, days: int = 0, open_workspace: Opener | None = None) -> None:
    """Creates the demo workspace. An existing demo is replaced, its runs and sends are deleted.

    The same `rows`, `days` and day give the same table. About one row in 4,000 is bad on purpose, at least 5 from 50 rows on.

    Args:
        folder: A new or empty folder, one without runs, or an existing demo.
        rows: Rows that the job reads; the table has 80 to 120 more, of other days and of tests.
        now: Aware. The rows are of the day that the job's newest scheduled run exports: yesterday, if it is past 02:00.
        days: How many earlier scheduled times have a history; at 1,000 rows each takes 70 ms.
        open_workspace: Opens the new workspace for that.

    Raises:
        ConfigError: The folder holds files that are not a demo.
        StorageFailed: It cannot be written, or a file of the old demo is open in another program.
    """
    from core.admin.demo_history import make_history, past_runs  # loads pyarrow

    place = Workspace(folder)
    was_demo = place.is_demo
    if not was_demo:
        _require_unused(folder)
    job_text = _json(_JOB)
    job_file = place.queries_dir / f"{SLUG}{SUFFIX}"
    job = parse_job(job_file, job_text)
    newest = _newest_scheduled_time(job, now)
    past = past_runs(job, newest, rows, days)
    try:
        place.state_dir.mkdir(parents=True, exist_ok=True)
        place.demo_marker.write_text("made by python -m core demo, which may make it anew\n", encoding="utf-8")
        if was_demo:
            _clear(folder, place.demo_marker)
        place.queries_dir.mkdir(exist_ok=True)
        _write(place.connections_file, _json(_CONNECTIONS))
        _write(place.queries_dir / _QUERY, _SQL)
        fill_table(folder / _DATABASE, rows, newest.date() - timedelta(days=1), [run.data for run in past])
        if past and open_workspace is not None:
            with open_workspace(folder) as opened:
                make_history(opened, job, job_text, past, now)
        # Last: a runner that works here knows the job from now on, and catches nothing up.
        _write(job_file, job_text)
    except (OSError, sqlite3.Error) as error:
        raise StorageFailed(
            f"the demo cannot be made in {folder}",
            why=getattr(error, "strerror", None) or str(error),
            remedy="close what has its files open, make room, or choose another folder with --workspace DIR",
        ) from None


def _require_unused(folder: Path) -> None:
    """Raises if the folder is in use. A page or a runner that opened an empty folder leaves an empty ledger and a log."""
    if not folder.exists():
        return
    is_empty = folder.is_dir() and all(path.name in _OWN_NAMES for path in folder.iterdir())
    ledger_file = Workspace(folder).ledger_file
    if is_empty and ledger_file.exists():
        with Ledger(ledger_file) as ledger:
            is_empty = not ledger.history.newest(limit=1)
    if not is_empty:
        raise ConfigError(
            f"{folder} is not an empty folder and no demo",
            why="the demo never touches files that it did not make",
            remedy="choose another folder: python -m core demo --workspace DIR",
        )


_OWN_NAMES = (".pstt", "logs")


def _clear(folder: Path, marker: Path) -> None:
    """Deletes the files of an earlier demo. The marker stays, so that an interrupted demo can be created again."""
    for name in ("logs", "exports"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for job_file in folder.glob(f"queries/{SLUG}{SUFFIX}"):  # not known to a runner before its history is made
        job_file.unlink()
    stale = [*folder.glob("metrics.duckdb*"), *folder.glob(f"{_DATABASE}*")]
    for path in [*stale, *marker.parent.iterdir()]:
        if path.is_dir():
            shutil.rmtree(path)
        elif path != marker:
            path.unlink()


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _newest_scheduled_time(job: Job, now: datetime) -> datetime:
    """Returns the newest scheduled time of the job, in its time zone: a run now exports the day before."""
    newest = previous_scheduled_time(job, now)
    if newest is None:
        raise ValueError("the demo's job has a calendar")
    return newest.astimezone(ZoneInfo(job.timezone))


@dataclass(slots=True)
class DemoReadBack:
    """What a topic holds, read by a separate client, and one of its messages."""

    count: int = 0
    """Messages written to the topic, by its offsets: ever, or since the run that is read."""
    read: int = 0
    """Messages read; fewer than `count` if the mock broker dropped the oldest (it keeps 5 MB a partition)."""
    ids: set[str] = field(default_factory=set, repr=False)
    """The `message_id` of each message read."""
    key: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    value: str = ""

    @property
    def duplicates(self) -> int:
        """Messages whose `message_id` was read before."""
        return self.read - len(self.ids)


def read_back(
    bootstrap: str, topic: str, *, timeout_s: float, sent: Sequence[PartitionRange] | None = None
) -> DemoReadBack:
    """Reads a topic from its first message to the last one at the time of the call.

    Args:
        bootstrap: `host:port`, also of a mock broker in this process.
        topic: An existing topic.
        sent: Reads from the first message of this run on; None: everything.
        timeout_s: For the whole read, in seconds.

    Raises:
        TopicMissing: The topic does not exist.
        BrokerUnavailable: No broker answers, or the time was too short.
    """
    from confluent_kafka import Consumer, KafkaException

    deadline = time.monotonic() + timeout_s
    quiet = logging.getLogger("core.admin.demo.librdkafka")
    quiet.addHandler(logging.NullHandler())
    quiet.propagate = False
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "pstt-read-back",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
        },
        logger=quiet,
    )
    try:
        first = {part.partition: part.first_offset for part in sent or ()}
        return _read_all(consumer, topic, deadline, first if sent is not None else None)
    except KafkaException as error:
        raise _not_read(topic, bootstrap, error.args[0].str()) from None
    except TimeoutError as error:
        raise _not_read(topic, bootstrap, f"{error} within {timeout_s:g} s") from None
    finally:
        consumer.close()


def _read_all(consumer: Consumer, topic: str, deadline: float, first: dict[int, int] | None) -> DemoReadBack:
    from confluent_kafka import KafkaException

    seen = DemoReadBack()
    left: dict[int, int] = {}
    begins: dict[int, int] = {}
    for part, low, high in _offsets(consumer, topic, deadline):
        begin = first.get(part, high) if first is not None else 0
        seen.count += high - begin
        if high > max(low, begin):
            left[part], begins[part] = high, max(low, begin)
    _assign(consumer, topic, begins)
    while left:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{seen.read:,} of {seen.count:,} messages were read")
        for message in consumer.consume(5000, timeout=0.1):
            if error := message.error():
                raise KafkaException(error)
            part, offset = message.partition() or 0, message.offset() or 0
            _add(seen, message)
            if offset + 1 >= left.get(part, 0):
                left.pop(part, None)
    return seen


def _offsets(consumer: Consumer, topic: str, deadline: float) -> Iterator[tuple[int, int, int]]:
    """Yields partition, first offset and end offset."""
    from confluent_kafka import TopicPartition

    described = consumer.list_topics(topic, timeout=_left(deadline)).topics[topic]
    if described.error or not described.partitions:
        raise TopicMissing(f'topic "{topic}" is not there', why=str(described.error or ""), remedy="run the job first")
    for part in described.partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, part), timeout=_left(deadline))
        yield part, low, high


def _assign(consumer: Consumer, topic: str, begins: dict[int, int]) -> None:
    from confluent_kafka import TopicPartition

    consumer.assign([TopicPartition(topic, part, begin) for part, begin in begins.items()])


def _add(seen: DemoReadBack, message: Message) -> None:
    seen.read += 1
    headers = dict(message.headers() or [])
    key = message.key()
    seen.ids.add(_text(headers.get("message_id")) or f"{message.partition()}@{message.offset()}")
    if seen.read == 1 or key == BARCODE.encode():
        seen.key = None if key is None else _text(key)
        seen.headers = {name: _text(value) for name, value in headers.items()}
        seen.value = _text(message.value())


def _text(value: bytes | str | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.1)


def _not_read(topic: str, bootstrap: str, why: str) -> BrokerUnavailable:
    return BrokerUnavailable(
        f'topic "{topic}" could not be read back from {bootstrap}',
        why=why,
        remedy="what was sent is in the ledger nevertheless: python -m core runs",
    )
