"""Kills runs of incremental jobs at random moments, and checks that each row has arrived once.

With a broker that is a file a run is killed at any call of a function of the product; with a real broker and PostgreSQL its
process is killed at any time.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from core.app import App
from core.kafka import clients
from core.records.ledger import Ledger
from core.run.cancellation import Stop
from core.run.settling import settle_transactions
from tests.rigs.file_broker import FILES, records_of
from tests.rigs.kafka import KafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.workspace import command, environment, make_workspace

ADDRESS = "file:9092"
NOON = datetime(2026, 1, 17, 12, tzinfo=UTC)
JOBS: dict[str, dict[str, Any]] = {
    "numbers": {"incremental": {"column": "id", "kind": "integer"}},
    "times": {
        "incremental": {"column": "at", "kind": "timestamp", "tie_column": "id", "delay_s": 30},
    },
    "late": {"incremental": {"column": "at", "kind": "timestamp", "delay_s": 0, "look_back_s": 600}},
    "late-once": {
        "incremental": {"column": "at", "kind": "timestamp", "delay_s": 0, "look_back_s": 600},
        "delivery": "exactly_once",
    },
    "numbers-once": {"incremental": {"column": "id", "kind": "integer"}, "delivery": "exactly_once"},
    "times-once": {
        "incremental": {"column": "at", "kind": "timestamp", "tie_column": "id", "delay_s": 30},
        "delivery": "exactly_once",
    },
}
_LATE_IN_PARTS = JOBS["late"] | {"partitions": {"column": "id", "count": 3}}
PARTS_JOBS = {"late-parts": _LATE_IN_PARTS, "late-parts-once": _LATE_IN_PARTS | {"delivery": "exactly_once"}}
"""Only over a real broker: parts are processes of their own."""
_OURS = re.compile(r"[/\\]core[/\\](run|records|kafka|sources|message)[/\\]|file_broker\.py$")
BAD_EACH = 40
"""Every so many rows one is rejected."""
SQL = "SELECT id, at, CASE WHEN id % 40 = 0 THEN 9e999 ELSE 1.5 END AS price FROM item"
POSTGRES_SQL = "SELECT id, at, CASE WHEN id % 40 = 0 THEN 'Infinity'::float8 ELSE 1.5 END AS price FROM {table}"


@dataclass
class Story:
    """What became of all rows."""

    kills: int = 0
    rows: int = 0
    messages: int = 0
    repeated: int = 0
    """Messages of runs that had no verdict, which a later run sent again with the same id."""
    problems: list[str] = field(default_factory=list)
    """Each is a gap, or a message that is there twice without such a run."""
    empty_s: list[float] = field(default_factory=list)
    """Duration of each run that had nothing to read, from its start to its verdict."""


def check(
    sent: Iterable[tuple[int, str, str]],
    rows: set[int],
    rejected: set[int],
    complete: set[str],
    story: Story,
    once: bool,
) -> None:
    """Adds what is wrong to the story.

    Args:
        sent: Key, message id and run of each message.
        rows: The keys of all rows.
        rejected: Those of rows that cannot be sent.
        complete: Runs that have ended well.
        story: Receives the counts and the problems.
        once: The job is exactly_once.
    """
    by_key: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for key, message_id, run in sent:
        by_key[key].append((message_id, run))
    story.rows += len(rows)
    story.messages += sum(map(len, by_key.values()))
    for key in sorted(rows - rejected - by_key.keys()):
        story.problems.append(f"row {key} is missing")
    for key, copies in by_key.items():
        of_complete = [run for _, run in copies if run in complete]
        story.repeated += len(copies) - 1
        if len({message_id for message_id, _ in copies}) > 1:
            story.problems.append(f"row {key} has several ids")
        if len(of_complete) > 1 or (once and len(copies) > 1):
            story.problems.append(
                f"row {key} was sent by {[run for _, run in copies]}, of which {of_complete} are complete"
            )


# ── a broker that is a file ───────────────────────────────────────────────────────────────────


class FilePlace:
    """A workspace over SQLite and a broker that is a file, with one job."""

    def __init__(self, folder: Path, name: str) -> None:
        clients.CLIENTS["file"] = clients.KafkaClient(
            "tests.rigs.file_broker:FilePublisher", libraries=("nothing",), is_idempotent=True
        )
        self.folder, self.name, self.topic = folder, name, folder / "broker"
        self.now, self.rows = NOON, 0
        FILES[ADDRESS] = self.topic
        (folder / "queries").mkdir(parents=True)
        connection = {"name": "LITE", "environment": "test", "db_type": "sqlite", "database": "item.sqlite"}
        cluster = {"name": "File", "client": "file", "bootstrap_servers": ADDRESS}
        document = {"connections": [connection], "kafka_connections": {"test": cluster}}
        (folder / "connections.json").write_text(json.dumps(document), encoding="utf-8")
        (folder / "queries/item.sql").write_text(SQL, encoding="utf-8")
        job = {
            "name": "Item",
            "query": "item.sql",
            "connection": "LITE",
            "kafka_config": {"message_key_field": "id", "topic": "item", "batch_size": 5},
            **JOBS[name],
        }
        (folder / "queries/item.job.json").write_text(json.dumps(job), encoding="utf-8")
        with closing(sqlite3.connect(folder / "item.sqlite")) as db, db:
            db.execute("CREATE TABLE item (id INTEGER, at TIMESTAMP)")

    def insert(self, count: int, chance: random.Random) -> None:
        """Adds rows of the last minute; several have the same time, and for `late` some are older than that."""
        rows = []
        for number in range(self.rows + 1, self.rows + count + 1):
            ago = 60 * chance.randrange(1, 8) if self.name.startswith("late") and chance.random() < 0.3 else 0
            at = self.now - timedelta(seconds=ago)
            rows.append((number, at.replace(tzinfo=None).isoformat(" ")))
        self.rows += count
        with closing(sqlite3.connect(self.folder / "item.sqlite")) as db, db:
            db.executemany("INSERT INTO item VALUES (?, ?)", rows)

    def run(self) -> tuple[int, float]:
        """Runs the job in this process; returns the rows that it read and its duration in s."""
        with App.open(self.folder, {"PSTT_FETCH_ROWS": "20"}, log=False) as app:
            plan = app.plan(app.job("item"), now=self.now, at=self.now)
            done = app.execute(plan, stop=Stop(), now=lambda: self.now)
        assert done.state == "succeeded", done.error_text
        return done.rows_read, done.duration_s

    def run_killed(self, call: int) -> bool:
        """Runs the job in a process that is killed at that call of a function; returns whether it was."""
        pid = os.fork()
        if pid == 0:
            try:
                sys.stderr = sys.stdout = open(os.devnull, "w")
                _die_at(call)
                self.run()
            finally:
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        return os.WIFSIGNALED(status)

    def calls(self) -> int:
        """Runs the job in another process and returns how many functions it called."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                count = _count_calls()
                self.run()
                os.write(write, str(count[0]).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        with os.fdopen(read) as answer:
            return int(answer.read())

    def finish(self, story: Story) -> None:
        """Runs until nothing is new, and checks every row."""
        once = JOBS[self.name].get("delivery") == "exactly_once"
        for _ in range(3):
            self.now += timedelta(minutes=2)
            self.run()
        with App.open(self.folder, {}, log=False) as app:
            settle_transactions(app, lambda: self.now)
        with Ledger(self.folder / ".pstt/ledger.sqlite") as ledger:
            complete = {run.run_id for run in ledger.history.newest("item", 100_000) if run.state == "succeeded"}
        sent = [(int(r.key or b"0"), _header(r.headers, "message_id"), _header(r.headers, "run_id"))
                for r in records_of(self.topic).get("item", [])]  # fmt: skip
        rows = set(range(1, self.rows + 1))
        check(sent, rows, {row for row in rows if row % BAD_EACH == 0}, complete, story, once)


def _header(headers: Iterable[tuple[str, bytes]], name: str) -> str:
    return dict(headers)[name].decode()


def _is_ours(frame: FrameType) -> bool:
    """Whether a function reads, sends or records; what reads the files of the workspace before is of no interest."""
    return _OURS.search(frame.f_code.co_filename) is not None


def _count_calls() -> list[int]:
    count = [0]

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and _is_ours(frame):
            count[0] += 1

    threading.setprofile(note)
    sys.setprofile(note)
    return count


def _die_at(call: int) -> None:
    left = [call]

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and _is_ours(frame):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.setprofile(note)
    sys.setprofile(note)


def killed_over_a_file(folder: Path, name: str, kills: int, seed: int) -> Story:
    """Kills runs of one job that often, adding rows before each, and checks every row at the end."""
    story, chance = Story(), random.Random(f"{name} {seed}")
    place = FilePlace(folder, name)
    place.insert(30, chance)
    calls = place.calls()
    while story.kills < kills:
        place.now += timedelta(minutes=1)
        place.insert(chance.randrange(0, 30), chance)
        story.kills += place.run_killed(chance.randrange(1, calls))
    place.finish(story)
    return story


# ── a real broker ─────────────────────────────────────────────────────────────────────────────


def killed_over_a_broker(folder: Path, postgres: Any, kafka: Any, name: str, kills: int, seed: int) -> Story:
    """Does the same with PostgreSQL and a real broker; the process of the command is killed at any time."""
    story, chance = Story(), random.Random(f"{name} {seed}")
    topic, table = kafka.create_topic(partitions=3), f"item_{seed}_{name.replace('-', '_')}"
    given = (JOBS | PARTS_JOBS)[name]
    incremental = given["incremental"]
    if incremental["kind"] == "timestamp":
        incremental = incremental | {"delay_s": 0}  # rows are committed at once here
    _execute(postgres, f"CREATE TABLE {table} (id bigint, at timestamptz)")
    job = given | {"incremental": incremental, "kafka_config": {"message_key_field": "id", "topic": topic}}
    make_workspace(
        folder,
        postgres=postgres,
        bootstrap_servers=kafka.plaintext,
        topic=topic,
        sql=POSTGRES_SQL.format(table=table),
        job=job,
    )
    env = environment(postgres, PSTT_FETCH_ROWS="100", KAFKA_MESSAGE_BATCH_SIZE="50")
    rows = 0
    is_late = name.startswith("late")
    ago = f"CASE WHEN random() < {0.3 if is_late else 0} THEN 60 * ceil(random() * 7) ELSE 0 END * interval '1 second'"

    def insert(count: int) -> None:
        nonlocal rows
        if count:
            _execute(
                postgres,
                f"INSERT INTO {table} SELECT g, clock_timestamp() - {ago} FROM generate_series({rows + 1}, {rows + count}) g",
            )
            rows += count

    insert(500)
    run_s = _timed(folder, env, None)
    while story.kills < kills:
        insert(chance.randrange(1, 500))
        # The program is loaded for the first part of that time; kills there are of no interest.
        story.kills += _timed(folder, env, chance.uniform(0.35, 1.1) * run_s) < 0
    for _ in range(3):
        _timed(folder, env, None)
    for _ in range(5):
        with _environ(env), App.open(folder, env, log=False) as app:
            done = app.execute(app.plan(app.job("export"), now=_now()), stop=Stop(), now=_now)
            assert done.rows_read == 0
            story.empty_s.append(done.duration_s)
    with Ledger(folder / ".pstt/ledger.sqlite") as ledger:
        complete = {run.run_id for run in ledger.history.newest("export", 100_000) if run.state == "succeeded"}
    sent = [
        (int(message.key()), dict(message.headers())["message_id"].decode(), dict(message.headers())["run_id"].decode())
        for message in kafka.read(topic)
    ]
    keys = set(range(1, rows + 1))
    once = given.get("delivery") == "exactly_once"
    check(sent, keys, {row for row in keys if row % BAD_EACH == 0}, complete, story, once)
    return story


def _timed(folder: Path, env: dict[str, str], kill_after_s: float | None) -> float:
    """Runs the command; returns its seconds, or -1 if it was killed before its end."""
    began = time.monotonic()
    process = subprocess.Popen(
        command("run", "export", "--workspace", folder, "--json"),
        env=env,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(kill_after_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return -1
    if kill_after_s is None:
        assert process.returncode in (0, 4), process.returncode
    return time.monotonic() - began


@contextmanager
def _environ(variables: dict[str, str]) -> Iterator[None]:
    """Sets variables of this process, from which the processes of parts have theirs."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _execute(postgres: Any, sql: str) -> None:
    with postgres.connect() as connection:
        connection.execute(sql)


def _now() -> datetime:
    return datetime.now(UTC)


def told(name: str, story: Story) -> str:
    """Returns a story in one line."""
    empty = f", a run with nothing new {statistics.median(story.empty_s):.2f} s" if story.empty_s else ""
    found = "; ".join(story.problems[:3]) or "0 gaps, 0 unexplained duplicates"
    return (
        f"{name:<18} {story.kills:>5} kills {story.rows:>8,} rows {story.messages:>8,} messages, "
        f"{story.repeated:,} repeated with their id: {found}{empty}"
    )


def main(kills: int, real_kills: int) -> int:
    """Kills so many runs of each kind, divided among the jobs, and prints a line a job; returns 1 if a row is wrong."""
    stories = []
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate(JOBS):
            stories.append(killed_over_a_file(Path(folder) / name, name, -(-kills // len(JOBS)), seed))
            print(told(name, stories[-1]), flush=True)
        if real_kills:
            with PostgresRig() as postgres, KafkaRig() as kafka:
                for seed, name in enumerate([*JOBS, *PARTS_JOBS]):
                    place, count = Path(folder) / f"real-{name}", -(-real_kills // len(JOBS))
                    stories.append(killed_over_a_broker(place, postgres, kafka, name, count, seed))
                    print(told(f"{name}, real", stories[-1]), flush=True)
    return int(any(story.problems for story in stories))
