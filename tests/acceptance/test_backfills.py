"""Backfills by a real runner over a real PostgreSQL and a real Kafka: at once, paused, killed, beside scheduled runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.kills import start_runner, stop_runner
from core.records.ledger import Ledger
from core.workspace.paths import Workspace
from tests.rigs.kafka import KafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.sweeps import sweep
from tests.rigs.waiting import until
from tests.rigs.workspace import environment, make_workspace, run_command

ROWS = 40
SQL = """define D='2026-01-01'  --Obbligatorio: the day
SELECT CAST('&D' AS text) || '/' || lpad(g::text, 4, '0') AS barcode, g AS n, pg_sleep({sleep_s}) IS NULL AS slept
FROM generate_series(1, {rows}) AS g
"""
FIRST, LAST, DAYS = "2026-01-01", "2026-01-12", 12


class Place:
    """A workspace whose job `export` sends 40 rows for each day, and its runners."""

    def __init__(self, folder: Path, postgres: PostgresRig, kafka: KafkaRig) -> None:
        self.folder, self.postgres, self.kafka = folder, postgres, kafka
        self.workspace = Workspace(folder)
        self.runners: list[subprocess.Popen[bytes]] = []
        self.topic = ""

    def make(self, *, sleep_s: float = 0, **job: Any) -> Place:
        self.topic = self.kafka.create_topic(partitions=3)
        make_workspace(
            self.folder,
            postgres=self.postgres,
            bootstrap_servers=self.kafka.plaintext,
            topic=self.topic,
            sql=SQL.format(rows=ROWS, sleep_s=sleep_s),
            job={
                "parameters": {"D": "{date}"},
                "scheduling_mode": "cron",
                "cron": "0 2 * * *",
                "timezone": "UTC",
                "kafka_config": {"topic": self.topic, "message_key_field": "barcode"},
                **job,
            },
        )
        return self

    def start(self, **env: str) -> subprocess.Popen[bytes]:
        self.runners.append(start_runner(self.folder, environment(self.postgres, PSTT_RUN_RETRY_WAIT_S="1", **env)))
        until(lambda: (beat := self.ledger("heartbeats").newest()) and beat.pid == self.runners[-1].pid)
        return self.runners[-1]

    def ledger(self, part: str) -> Any:
        with Ledger(self.workspace.ledger_file) as ledger:
            return _Closed(ledger.file, part)

    def json(self, *words: str) -> dict[str, Any]:
        done = run_command(*words, "--json", env=environment(self.postgres), cwd=self.folder)
        return dict(json.loads(done.stdout))

    def show(self, number: int) -> dict[str, Any]:
        return self.json("backfill", "show", str(number))

    def backfill(self, *more: str) -> int:
        made = self.json("backfill", "export", "--from", FIRST, "--to", LAST, *more)
        assert made["planned"] == DAYS
        return int(made["backfill_id"])

    def ended(self, number: int) -> dict[str, Any]:
        with Ledger(self.workspace.ledger_file) as ledger:
            until(lambda: ledger.backfills.get(number).finished_at, timeout_s=120)
        return self.show(number)

    def running(self) -> int:
        with Ledger(self.workspace.ledger_file) as ledger:
            return len(ledger.history.running("export"))

    def keys(self) -> Counter[str]:
        return Counter(message.key().decode() for message in self.kafka.read(self.topic))


class _Closed:
    """A part of the ledger that opens the file for each question."""

    def __init__(self, file: Path, part: str) -> None:
        self._file, self._part = file, part

    def __getattr__(self, name: str) -> Any:
        def ask(*words: Any) -> Any:
            with Ledger(self._file) as ledger:
                return getattr(getattr(ledger, self._part), name)(*words)

        return ask


@pytest.fixture
def place(tmp_path: Path, postgres: PostgresRig, kafka: KafkaRig) -> Iterator[Place]:
    made = Place(tmp_path / "ws", postgres, kafka)
    yield made
    for runner in made.runners:
        if runner.poll() is None:
            stop_runner(runner)


def expected() -> set[str]:
    days = [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(DAYS)]
    return {f"{day:%Y-%m-%d}/{n:04}" for day in days for n in range(1, ROWS + 1)}


def most_at_once(place: Place) -> int:
    """Returns how many runs of the ledger went on at the same time at most."""
    with Ledger(place.workspace.ledger_file) as ledger:
        runs = ledger.history.newest("export", 1000)
    return max(
        sum(one.started_at <= run.started_at < (one.finished_at or run.started_at) for one in runs) for run in runs
    )


def test_days_run_at_once_and_each_row_arrives_once(place: Place) -> None:
    place.make(sleep_s=0.02).start()
    number = place.backfill("--parallel", "3", "--order", "newest")
    found = place.ended(number)
    assert (found["state"], found["summary"]) == ("done", f"{DAYS} of {DAYS} complete")
    assert found["progress"]["acknowledged"] == DAYS * ROWS
    assert place.keys() == Counter(dict.fromkeys(expected(), 1))
    assert 2 <= most_at_once(place) <= 3
    with Ledger(place.workspace.ledger_file) as ledger:
        runs = ledger.history.newest("export", 100)
        assert len({ledger.process_of(run.run_id) for run in runs}) <= 3  # a process runs many days
    begun = [run.scheduled_at.day for run in reversed(runs)]
    assert max(begun[:3]) == 12
    assert min(begun[-3:]) == 1


IN_PARTS = {"partitions": {"column": "n", "count": 2}, "order": "none"}


@pytest.mark.parametrize(
    ("delivery", "more"),
    [
        pytest.param("at_least_once", {}, marks=pytest.mark.slow),
        ("exactly_once", {}),
        pytest.param("exactly_once", IN_PARTS, marks=pytest.mark.slow),
    ],
    ids=["at_least_once", "exactly_once", "exactly_once_in_parts"],
)
def test_a_runner_killed_in_the_middle_loses_nothing_and_a_pause_outlives_it(
    place: Place, delivery: str, more: dict[str, Any]
) -> None:
    place.make(sleep_s=0.05, delivery=delivery, **more)
    runner = place.start()
    number = place.backfill("--parallel", "3")
    until(lambda: place.running() >= 2)
    children = psutil.Process(runner.pid).children()
    runner.kill()  # its runs go on
    children[0].kill()  # but for one
    runner.wait()
    paused = place.json("backfill", "pause", str(number))
    assert "is paused" in paused["answer"]
    place.start()
    until(lambda: not place.running())
    time.sleep(2)  # two ticks, in which nothing begins
    assert place.running() == 0
    assert place.show(number)["state"] == "paused"
    until(lambda: place.json("backfill", "resume", str(number))["answer"].endswith("waiting"))
    until(lambda: place.running() >= 2)
    runner = place.runners[-1]
    for process in [*psutil.Process(runner.pid).children(), psutil.Process(runner.pid)]:
        process.kill()
    runner.wait()
    place.start()
    found = place.ended(number)
    assert (found["state"], found["summary"]) == ("done", f"{DAYS} of {DAYS} complete")
    keys = place.keys()
    assert set(keys) == expected()
    with Ledger(place.workspace.ledger_file) as ledger:
        runs = ledger.history.newest("export", 1000)
    good = Counter(run.scheduled_at for run in runs if run.state == "succeeded")
    assert set(good.values()) == {1}
    assert len(good) == DAYS
    if delivery == "exactly_once":
        assert set(keys.values()) == {1}
    else:  # a message may be there a second time only for a day that was interrupted
        interrupted = {f"{run.scheduled_at:%Y-%m-%d}" for run in runs if run.state == "interrupted"}
        assert {key[:10] for key, count in keys.items() if count > 1} <= interrupted


@pytest.mark.slow
def test_a_scheduled_run_is_not_delayed_by_a_backfill_that_uses_every_place(place: Place) -> None:
    place.make(sleep_s=0.25)  # a day takes ten seconds
    second = json.loads((place.folder / "queries" / "export.job.json").read_text(encoding="utf-8"))
    second |= {"name": "Second", "query": "second.sql", "scheduling_mode": "interval", "interval_s": 3}
    second |= {"parameters": {}}
    del second["cron"]
    (place.folder / "queries" / "second.sql").write_text("SELECT 'k' AS barcode, 1 AS n", encoding="utf-8")
    place.start(PSTT_WORKERS="1", PSTT_BACKFILL_WORKERS="2")
    number = place.backfill("--parallel", "2")
    until(lambda: place.running() == 2)
    (place.folder / "queries" / "second.job.json").write_text(json.dumps(second), encoding="utf-8")
    asked_at = datetime.now(UTC)
    by_hand = place.json("run", "export", "--by-runner")  # the same job, while its backfill goes on
    with Ledger(place.workspace.ledger_file) as ledger:
        until(lambda: ledger.scheduled_runs.run_of_request(by_hand["request_id"]), timeout_s=60)
        run = ledger.run(ledger.scheduled_runs.run_of_request(by_hand["request_id"]))
        assert run.started_at - asked_at < timedelta(seconds=8)
        assert len(ledger.history.running_backfill_times("export")) == 2
    place.json("cancel", run.run_id)
    with Ledger(place.workspace.ledger_file) as ledger:
        until(lambda: [one for one in ledger.history.newest("second") if one.finished_at][2:], timeout_s=60)
        delays = [(one.started_at - one.scheduled_at).total_seconds() for one in ledger.history.newest("second")]
    assert min(delays) < 2
    cancelled = place.json("backfill", "cancel", str(number))
    assert "are left out" in cancelled["answer"]
    assert place.ended(number)["state"] == "cancelled"


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("point", sweep(["after", "before"], always=["after"]))
def test_a_backfill_knows_what_a_killed_run_of_the_same_time_has_committed(
    place: Place, point: str, postgres: PostgresRig
) -> None:
    """Their transactional ids differ: the marker is found, and an open transaction is ended before the day is sent."""
    place.make(delivery="exactly_once")
    words = ["run", "export", "--at", "2026-01-05T02:00"]
    killed = f"{point}:core.kafka.aiokafka:AiokafkaPublisher.commit:1"
    done = subprocess.run(
        [sys.executable, "-m", "tests.rigs.killed", killed, *words],
        cwd=place.folder,
        env=environment(postgres),
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode in (-signal.SIGKILL, 137), done.stderr
    assert len(list(place.workspace.pending_dir.glob("*.json"))) == 1
    place.start()
    number = int(place.json("backfill", "export", "--from", "2026-01-05", "--to", "2026-01-05")["backfill_id"])
    found = place.ended(number)
    by_the_runner = "0 runs planned, 1 left out that succeeded before"  # it had settled the transaction already
    assert found["summary"] in ("1 of 1 complete", "0 of 1 complete, 1 was sent before", by_the_runner)
    assert place.keys() == Counter({key: 1 for key in expected() if key.startswith("2026-01-05")})
    assert list(place.workspace.pending_dir.glob("*.json")) == []
