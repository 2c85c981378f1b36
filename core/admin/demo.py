"""Creates a workspace that needs no server: the rows come from SQLite, the messages go to a mock broker in this process."""

from __future__ import annotations

import json
import logging
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from cronsim import CronSim

from core.errors import BrokerUnavailable, ConfigError, StorageFailed, TopicMissing
from core.records.ledger import Ledger
from core.records.rights import Caller, require
from core.sources.sqlite import DIALECT
from core.workspace.paths import Workspace

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message

__all__ = ["BARCODE", "SLUG", "DemoReadBack", "create_demo", "make_demo", "read_back"]

SLUG = "export-cdg-tracce"
BARCODE = "572680001120"
"""The barcode of the row that the documentation follows."""

_TIMEZONE = "Europe/Rome"
_CONNECTION = "A00-CDG-Collaudo"
_DATABASE = "demo.sqlite"
_QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"
_CRON = "0 2 * * *"
_SEED = 572680

_TABLE = """CREATE TABLE EXPORT_TABLE (
  BARCODE VARCHAR(13), TRKDATE DATE, OPERATOR NUMERIC(6), MSGTYPE VARCHAR(2), CAUSAL VARCHAR(3), TEST_FLAG VARCHAR(1),
  PHASE_AT VARCHAR(1), ARRIVETIMESTAMP TIMESTAMP, STATUS VARCHAR(1), TRACK_OFFICE VARCHAR(5), MTF_MTFID NUMERIC(9),
  DATE_OTHER DATE, CANALE VARCHAR(3), CUSTCODE VARCHAR(10), CUST_SPED VARCHAR(5), IDSPED VARCHAR(10)
)"""

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


def create_demo(folder: Path, rows: int, *, caller: Caller, now: datetime) -> None:
    """Creates the demo workspace for a caller: the arguments and what it raises are those of `make_demo`.

    The audit line is in the ledger of the new workspace, for that of an earlier demo is deleted.

    Raises:
        AccessRefused: The caller is no admin.
    """
    require(caller, "demo")
    make_demo(folder, rows, now=now)
    with Ledger(Workspace(folder).ledger_file) as ledger:
        ledger.audit.add(caller.name, "demo", "workspace", now, after={"rows": rows})


def make_demo(folder: Path, rows: int, *, now: datetime) -> None:
    """Creates the demo workspace. An existing demo is replaced, its runs and sends are deleted.

    The same `rows` and day give the same table. About one row in 4,000 is bad on purpose, at least 5 from 50 rows on.

    Args:
        folder: A new or empty folder, one without runs, or an existing demo.
        rows: Rows that the job reads; the table has 120 more, of other days and of tests.
        now: Aware. The rows are of the day that the job's newest scheduled run exports: yesterday, if it is past 02:00.

    Raises:
        ConfigError: The folder holds files that are not a demo.
        StorageFailed: It cannot be written, or a file of the old demo is open in another program.
    """
    marker = folder / ".pstt" / "demo"
    was_demo = marker.is_file()
    if not was_demo:
        _require_unused(folder)
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.write_text("made by python -m core demo, which may make it anew\n", encoding="utf-8")
        if was_demo:
            _clear(folder, marker)
        _write_files(folder)
        _fill(folder / _DATABASE, rows, _day_asked_for(now))
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
    stale = [*folder.glob("metrics.duckdb*"), *folder.glob(f"{_DATABASE}*")]
    for path in [*stale, *marker.parent.iterdir()]:
        if path.is_dir():
            shutil.rmtree(path)
        elif path != marker:
            path.unlink()


def _write_files(folder: Path) -> None:
    (folder / "queries").mkdir(exist_ok=True)
    texts = {
        folder / "connections.json": _json(_CONNECTIONS),
        folder / "queries" / _QUERY: _SQL,
        folder / "queries" / f"{SLUG}.job.json": _json(_JOB),
    }
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8", newline="\n")


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def _day_asked_for(now: datetime) -> date:
    """Returns the value of `{date-1}` for a run now: the day before the newest scheduled time."""
    local = now.astimezone(ZoneInfo(_TIMEZONE)) + timedelta(seconds=1)
    newest: datetime = next(CronSim(_CRON, local, reverse=True))
    return newest.date() - timedelta(days=1)


Row = dict[str, Any]

_SPOILERS: tuple[Callable[[Row], None], ...] = (
    lambda row: row.update(BARCODE=None),
    lambda row: row.update(OPERATOR="N/D"),
    lambda row: row.update(DATE_OTHER="31/02/2026"),
    lambda row: row.update(MTF_MTFID=float("inf")),
    lambda row: row.update(DATE_OTHER="0000-00-00"),
)
"""Values found in old tables: no key, text in a numeric column, dates that do not exist, an overflowed number."""


def _fill(file: Path, rows: int, day: date) -> None:
    """Fills the table in one transaction without fsync: an interrupted demo is created again."""
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode=OFF")
        db.execute("PRAGMA synchronous=OFF")
        db.execute("BEGIN")
        db.execute(_TABLE)
        marks = ", ".join("?" * 16)
        db.executemany(f"INSERT INTO EXPORT_TABLE VALUES ({marks})", _table_rows(rows, day))  # noqa: S608 - only marks
        db.execute("CREATE INDEX EXPORT_TABLE_TRKDATE ON EXPORT_TABLE (DATE(TRKDATE))")
        db.execute("COMMIT")


def _table_rows(rows: int, day: date) -> Iterator[tuple[Any, ...]]:
    make = partial(_row, random.Random(_SEED))  # noqa: S311 - the same rows each time
    bad = max(min(5, rows // 10), rows // 4000)
    spoilt = {(i + 1) * rows // (bad + 1): _SPOILERS[i % len(_SPOILERS)] for i in range(bad)}
    yield tuple(_first_row(day).values())
    for number in range(1, rows):
        row = make(number, day, share=number / rows)
        if number in spoilt:
            spoilt[number](row)
        yield tuple(row.values())
    for number in range(rows, rows + 40):  # rows that the query excludes: neighbouring days and tests
        yield tuple(make(number, day - timedelta(days=1), share=0.9).values())
        yield tuple(make(number + 40, day + timedelta(days=1), share=0.1).values())
        yield tuple((make(number + 80, day, share=0.5) | {"TEST_FLAG": "S"}).values())


def _first_row(day: date) -> Row:
    """Returns the row that the documentation follows."""
    return {
        "BARCODE": BARCODE,
        "TRKDATE": day.isoformat(),
        "OPERATOR": 848,
        "MSGTYPE": "M3",
        "CAUSAL": "RKE",
        "TEST_FLAG": "N",
        "PHASE_AT": "W",
        "ARRIVETIMESTAMP": f"{day} 11:50:32.665000",
        "STATUS": "N",
        "TRACK_OFFICE": "38713",
        "MTF_MTFID": 9,
        "DATE_OTHER": day.isoformat(),
        "CANALE": "SGU",
        "CUSTCODE": "0030526661",
        "CUST_SPED": "PS6",
        "IDSPED": "S2132224",
    }


def _row(chance: random.Random, number: int, day: date, *, share: float) -> Row:
    """Returns one event of one parcel; `share` (0 to 1) is its time in the working day (05:00 to 22:00)."""
    pick = chance.random
    parcel = int(BARCODE) + 7 * number
    if number % 50 == 0:  # an old series with leading zeros
        parcel -= 570_000_000_000
    arrived = datetime(day.year, day.month, day.day, 5) + timedelta(hours=17 * share, milliseconds=int(pick() * 900))  # noqa: DTZ001 - the table has local times
    channel, sender = _CHANNELS[int(pick() * len(_CHANNELS))]
    kind, causal, phase = _EVENTS[int(pick() * len(_EVENTS))]
    return {
        "BARCODE": f"{parcel:012d}",
        "TRKDATE": day.isoformat(),
        "OPERATOR": 800 + int(pick() * 120),
        "MSGTYPE": kind,
        "CAUSAL": causal,
        "TEST_FLAG": "N",
        "PHASE_AT": phase,
        "ARRIVETIMESTAMP": arrived.isoformat(" ", "microseconds"),
        "STATUS": "N" if pick() < 0.95 else "R",
        "TRACK_OFFICE": f"{10_000 + int(pick() * 60_000)}",
        "MTF_MTFID": 1 + int(pick() * 12),
        "DATE_OTHER": (day - timedelta(days=int(pick() * 3))).isoformat() if pick() < 0.9 else None,
        "CANALE": channel,
        "CUSTCODE": f"{30_000_000 + int(pick() * 900_000):010d}",
        "CUST_SPED": sender,
        "IDSPED": f"S{2_000_000 + int(pick() * 500_000)}",
    }


_CHANNELS = (("SGU", "PS6"), ("SGU", "PS1"), ("WEB", "PW2"), ("RIT", "PS6"), (None, "PX9"))
_EVENTS = (
    ("M1", "ACC", "A"),
    ("M2", "SMI", "L"),
    ("M3", "RKE", "W"),
    ("M3", "CNS", "D"),
    ("M4", "GIA", "D"),
    ("M4", "RSO", "R"),
)


@dataclass(slots=True)
class DemoReadBack:
    """What a topic holds, read by a separate client, and one of its messages."""

    count: int = 0
    """Messages ever written to the topic, by its offsets."""
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


def read_back(bootstrap: str, topic: str, *, timeout_s: float) -> DemoReadBack:
    """Reads a topic from its first message to the last one at the time of the call.

    Args:
        bootstrap: `host:port`, also of a mock broker in this process.
        topic: An existing topic.
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
        return _read_all(consumer, topic, deadline)
    except KafkaException as error:
        raise _not_read(topic, bootstrap, error.args[0].str()) from None
    except TimeoutError as error:
        raise _not_read(topic, bootstrap, f"{error} within {timeout_s:g} s") from None
    finally:
        consumer.close()


def _read_all(consumer: Consumer, topic: str, deadline: float) -> DemoReadBack:
    from confluent_kafka import KafkaException

    seen = DemoReadBack()
    left: dict[int, int] = {}
    for part, low, high in _offsets(consumer, topic, deadline):
        seen.count += high
        if high > low:
            left[part] = high
    _assign(consumer, topic, left)
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


def _assign(consumer: Consumer, topic: str, parts: dict[int, int]) -> None:
    from confluent_kafka import OFFSET_BEGINNING, TopicPartition

    consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for part in parts])


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
