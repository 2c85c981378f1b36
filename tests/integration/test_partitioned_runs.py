"""Partitioned runs over the real PostgreSQL and Kafka: one verdict, the same message ids, and parts that are killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Message

from core.app import App
from core.errors import RunTimedOut
from core.model.run import Run
from core.run.cancellation import Stop
from core.run.settling import settle_transactions
from tests.rigs.kafka import KafkaRig
from tests.rigs.killed_part import deadly
from tests.rigs.postgres import PostgresRig
from tests.rigs.processes import processes_below
from tests.rigs.sweeps import sweep
from tests.rigs.waiting import until
from tests.rigs.workspace import command, environment, make_workspace, run_command

ROWS = 900
AT = datetime(2026, 1, 17, 2, tzinfo=UTC)
# Some rows are equal in every column; the key is a text of the column that decides the part.
SQL = f"select g % 300 as id, 'parcel ' || g % 150 as status from generate_series(1, {ROWS}) g"
PARTS: dict[str, Any] = {
    "partitions": {"column": "ID", "count": 3},
    "kafka_config": {"message_key_field": "id"},
}


class Place:
    """A workspace with one job and its topic."""

    def __init__(self, folder: Path, kafka: KafkaRig, postgres: PostgresRig) -> None:
        self.folder, self.kafka, self.postgres = folder, kafka, postgres
        self.topic = kafka.create_topic()
        self.env = environment(postgres, PSTT_FETCH_ROWS="50", PSTT_RUN_PROCESSES="2")

    def set(self, sql: str = SQL, **job: Any) -> None:
        """Writes the job."""
        document = {**PARTS, **job}
        document["kafka_config"] = {"topic": self.topic, **document["kafka_config"]}
        make_workspace(
            self.folder,
            postgres=self.postgres,
            bootstrap_servers=self.kafka.plaintext,
            topic=self.topic,
            sql=sql,
            job=document,
        )

    def run(self, stop: Stop | None = None, **variables: str) -> Run:
        """Runs the job in this process; its parts run in theirs, with these variables."""
        before = dict(os.environ)
        os.environ.update(self.env | variables)
        try:
            with App.open(self.folder, dict(os.environ), log=False) as app:
                plan = app.plan(app.job("export"), now=datetime.now(UTC), at=AT)
                return app.execute(plan, stop=stop or Stop(), now=lambda: datetime.now(UTC))
        finally:
            os.environ.clear()
            os.environ.update(before)

    def ids(self, at_least: int = 0) -> Counter[str]:
        """Returns message id → how many messages on the topic have it."""
        return Counter(header(message, "message_id") for message in self.kafka.read(self.topic, at_least=at_least))

    def left(self) -> list[str]:
        """Returns the files that are no longer needed."""
        state = self.folder / ".pstt"
        return [str(f.relative_to(state)) for f in state.glob("parts/**/*")]

    def sends(self) -> list[tuple[str, str]]:
        """Returns message id and status of each send in metrics.duckdb."""
        with App.open(self.folder, {**self.env}) as app:
            app.metrics.sync()
            with app.metrics.reading() as db:
                return [(row[0], row[1]) for row in db.execute("SELECT message_id, status FROM sends").fetchall()]


def header(message: Message, name: str) -> str:
    return dict(message.headers() or [])[name].decode()


@pytest.fixture
def place(tmp_path: Path, kafka: KafkaRig, postgres: PostgresRig) -> Place:
    return Place(tmp_path / "workspace", kafka, postgres)


@pytest.fixture
def expected_ids(tmp_path: Path, kafka: KafkaRig, postgres: PostgresRig) -> Callable[[], Counter[str]]:
    """Returns the message ids of the same job without partitions."""

    def run() -> Counter[str]:
        other = Place(tmp_path / "plain", kafka, postgres)
        other.set(partitions=None)
        assert other.run().verdict == "complete"
        return other.ids()

    return run


def no_children() -> bool:
    return not processes_below(os.getpid(), "part")


@pytest.mark.parametrize("by", ["range", "hash"])
def test_a_run_in_parts_sends_what_one_without_sends(place: Place, expected_ids: Any, by: str) -> None:
    place.set(partitions={"column": "ID", "count": 3, "by": by}, verify="full", verify_count=True)
    run = place.run()
    assert (run.verdict, run.rows_read, run.acknowledged, run.rows_counted) == ("complete", ROWS, ROWS, ROWS)
    assert run.error_text is None
    assert run.warnings == ()
    assert [part.state for part in run.parts] == ["succeeded"] * 3
    assert sum(part.rows_read for part in run.parts) == ROWS
    assert run.verification
    assert (run.verification.answer, run.verification.found) == ("complete", ROWS)
    ids = place.ids()
    assert ids.total() == len(ids) == ROWS
    assert ids == expected_ids()
    assert Counter(place.sends()) == Counter({(message_id, "acknowledged"): 1 for message_id in ids})
    assert place.left() == []
    assert no_children()


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_one_process_runs_all_parts_itself(place: Place, expected_ids: Any, delivery: str) -> None:
    place.set(delivery=delivery, verify="count")
    run = place.run(PSTT_RUN_PROCESSES="1")
    assert (run.verdict, run.rows_read, run.acknowledged) == ("complete", ROWS, ROWS), run.error_text
    assert [(part.state, part.worker) for part in run.parts] == [("succeeded", f"process {os.getpid()}")] * 3
    ids = place.ids()
    assert ids == expected_ids()
    assert Counter(place.sends()) == Counter({(message_id, "acknowledged"): 1 for message_id in ids})
    assert place.left() == []


def test_rows_of_one_key_are_sent_in_order(place: Place) -> None:
    place.set("select g % 20 as id, g as n from generate_series(1, 1000) g order by n")
    assert place.run().verdict == "complete"
    seen: dict[bytes, list[int]] = {}
    for message in place.kafka.read(place.topic):
        seen.setdefault(message.key(), []).append(int(message.value().split(b'"n":')[1].split(b"}")[0]))
    assert len(seen) == 20
    assert all(numbers == sorted(numbers) for numbers in seen.values())


def test_rejects_of_all_parts_are_in_the_ledger_once(place: Place) -> None:
    sql = "select g as id, case when g % 10 = 0 then 'NaN'::float8 else g end as n from generate_series(1, 300) g"
    place.set(sql)
    run = place.run()
    assert (run.verdict, run.rows_read, run.acknowledged, run.rejected) == ("complete_with_rejects", 300, 270, 30)
    with App.open(place.folder, place.env) as app:
        rejects = app.rejects(run)
    assert sorted(int(r.key or "") for r in rejects) == list(range(10, 301, 10))
    assert len({r.row_number for r in rejects}) == 30


def test_on_bad_row_fail_ends_all_parts(place: Place) -> None:
    sql = "select g as id, case when g = 299 then 'NaN'::float8 else g end as n from generate_series(1, 300) g"
    place.set(sql, on_bad_row="fail")
    run = place.run()
    assert run.state in ("failed", "partial")
    assert "cannot be sent" in (run.error_text or "")
    assert {part.state for part in run.parts} <= {"failed", "cancelled", "succeeded"}


@pytest.mark.parametrize(
    ("sql", "job", "words"),
    [
        (SQL + " limit 5", {}, "cannot be split into parts: it limits its rows"),
        ("select 1 as id, 2 as id", {}, "two columns of the result are called id"),
        ("select 'a' as id", {}, "cannot be split into ranges"),
        (SQL, {"partitions": {"column": "x", "count": 2}, "order": "none"}, "does not return"),
        ("select 1.5::numeric as id", {"decimals": "float"}, 'with "decimals": "float"'),
        ("select 1/(g - 150) as id, g from generate_series(1, 300) g", {}, "division by zero"),
    ],
)
def test_what_cannot_be_split_is_one_clear_error(place: Place, sql: str, job: Any, words: str) -> None:
    place.set(sql, **job)
    run = place.run()
    assert run.state == "failed"
    assert words in (run.error_text or ""), run.error_text
    assert run.error_remedy
    assert place.left() == []


def test_a_part_that_fails_fails_the_run(place: Place) -> None:
    """The statement passes until a part reads its last rows: the column that is split has no such value."""
    place.set("select g as id, case when g < 290 then 1 else 1 / (g - 300) end as n from generate_series(1, 300) g")
    run = place.run()
    assert run.state in ("failed", "partial")
    assert "division by zero" in (run.error_text or "")
    assert "failed" in {part.state for part in run.parts}


KILLED = [
    "after:core.run.part:_PartRun._note_columns:1",
    "before:core.run.sending:Sending.publish:3",
    "before:core.records.segments:SegmentFile.complete:1",
    "after:core.records.segments:SegmentFile.complete:2",
    "before:core.run.sending:Sending.drain:1",
    "after:core.run.sending:Sending.drain:1",
    "after:core.run.part:run_part:1",
]


@pytest.mark.parametrize("point", sweep(KILLED, always=[KILLED[1]]))
def test_a_killed_part_is_repeated(place: Place, tmp_path: Path, expected_ids: Any, point: str) -> None:
    place.set(verify="count")
    run = place.run(**deadly(tmp_path / "deadly", point, part=1))
    assert (tmp_path / "deadly" / "0.killed").exists(), "it was not killed"
    assert (run.verdict, run.rows_read, run.acknowledged) == ("complete", ROWS, ROWS), run.error_text
    assert [part.attempt for part in run.parts] == [1, 2, 1]
    assert "part 2 of 3 was repeated" in run.warnings[0]
    assert "may be on the topic twice, with the same message ids" in run.warnings[0]
    assert set(place.ids(len(expected_ids()))) == set(expected_ids())
    assert Counter(place.sends()) == Counter({(message_id, "acknowledged"): 1 for message_id in place.ids()})
    assert place.left() == []


def test_a_part_that_is_always_killed_fails_the_run(place: Place, tmp_path: Path) -> None:
    place.set()
    run = place.run(**deadly(tmp_path / "deadly", KILLED[0], times=0, part=2))
    assert run.state == "partial"
    assert "part 3 of 3 was lost 3 times" in (run.error_text or "")
    assert no_children()


SLOW = "select g as id, slowly(g) as s from generate_series(1, 5000) g"


@pytest.fixture
def slow(place: Place) -> None:
    """A function that takes 20 ms; as it is STABLE, it is not called where its value is not needed."""
    with place.postgres.connect() as connection:
        connection.execute(
            "create or replace function slowly(n int) returns text stable language plpgsql as "
            "$$ begin perform pg_sleep(0.02); return 'n' || n; end $$"
        )


@pytest.mark.usefixtures("slow")
def test_cancel_reaches_all_parts(place: Place) -> None:
    place.set(SLOW)
    stop = Stop()
    threading.Thread(target=_stop_when_parts_read, args=(place, stop)).start()
    run = place.run(stop, PSTT_FETCH_ROWS="10")
    assert run.state in ("cancelled", "partial")
    assert {part.state for part in run.parts} <= {"cancelled", "succeeded"}
    assert run.acknowledged == len(place.sends())
    assert place.left() == []
    assert no_children()


@pytest.mark.usefixtures("slow")
def test_cancel_ends_parts_in_the_process_of_the_run(place: Place) -> None:
    place.set(SLOW)
    stop = Stop()
    threading.Thread(target=_stop_when_parts_read, args=(place, stop)).start()
    run = place.run(stop, PSTT_FETCH_ROWS="10", PSTT_RUN_PROCESSES="1")
    assert run.state in ("cancelled", "partial")
    assert {part.state for part in run.parts} == {"cancelled"}
    assert run.acknowledged == len(place.sends())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("pstt-part-")]
    assert place.left() == []


def _stop_when_parts_read(place: Place, stop: Stop) -> None:
    until(lambda: "reading" in _states(place), "no part reads")
    stop.set()


def _states(place: Place) -> set[str]:
    with App.open(place.folder, place.env, log=False) as app:
        runs = app.ledger.history.newest("export", 1)
        return {part.state for run in runs for part in run.parts}


@pytest.mark.usefixtures("slow")
def test_a_time_out_reaches_all_parts(place: Place) -> None:
    place.set(SLOW, timeout_s=4)
    run = place.run(PSTT_FETCH_ROWS="10")
    assert run.error_class == RunTimedOut.__name__
    assert no_children()


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("how", sweep(["ctrl-c", "kill"], always=["kill"]))
def test_parts_end_with_the_process_of_the_run(place: Place, how: str) -> None:
    place.set(SLOW)
    words = command("run", "export", "--at", "2026-01-17T02:00+00:00")
    process = subprocess.Popen(words, cwd=place.folder, env=place.env, stdout=subprocess.DEVNULL)
    until(lambda: "reading" in _states(place), "no part reads")

    parts = until(
        lambda: len(found := processes_below(process.pid, "part")) == 2 and found, "two parts have a process each"
    )
    process.send_signal(signal.SIGINT if how == "ctrl-c" else signal.SIGKILL)
    process.wait(60)
    until(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in parts), "a part goes on")
    with App.open(place.folder, place.env, log=False) as app:
        (run,) = app.ledger.history.newest("export", 1)
        assert run.state == ("interrupted" if how == "kill" else "cancelled") or run.acknowledged
        settle_transactions(app, lambda: datetime.now(UTC))
    assert place.left() == []
    assert set(place.sends()) <= {(message_id, "acknowledged") for message_id in place.ids()}


# ── exactly_once ──────────────────────────────────────────────────────────────────────────────

ONCE = {"delivery": "exactly_once"}


def check_once(place: Place, expected: Counter[str]) -> None:
    """Checks that topic and metrics have each message once, and that nothing is left over."""
    assert place.ids(expected.total()) == expected
    assert Counter(place.sends()) == Counter({(message_id, "acknowledged"): 1 for message_id in expected})
    assert place.left() == []
    assert no_children()


def test_exactly_once_sends_each_part_in_a_transaction_and_a_second_attempt_sends_nothing(
    place: Place, expected_ids: Any
) -> None:
    place.set(**ONCE, verify="full", verify_count=True)
    run = place.run()
    assert (run.verdict, run.sent, run.acknowledged, run.rows_counted) == ("complete", ROWS, ROWS, ROWS), run.error_text
    again = place.run()
    assert (again.verdict, again.sent, again.rows_read, again.acknowledged) == ("complete", 0, ROWS, ROWS)
    assert again.of_run == run.run_id
    assert [part.worker for part in again.parts] == [f"run {run.run_id}"] * 3
    check_once(place, expected_ids())


@pytest.mark.slow
def test_exactly_once_in_parts_counts_rejects_once(place: Place) -> None:
    sql = "select g as id, case when g % 10 = 0 then 'NaN'::float8 else g end as n from generate_series(1, 300) g"
    place.set(sql, **ONCE)
    for _ in range(2):
        run = place.run()
        assert (run.verdict, run.rows_read, run.acknowledged, run.rejected) == ("complete_with_rejects", 300, 270, 30)
        with App.open(place.folder, place.env, log=False) as app:
            assert sorted(int(r.key or "") for r in app.rejects(run)) == list(range(10, 301, 10))


NOT_COMMITTED = [
    "after:core.run.part:_PartRun._note_columns:1",
    "after:core.kafka.aiokafka:AiokafkaPublisher.begin:1",
    "before:core.run.sending:Sending.publish:3",
    "after:core.records.segments:SegmentFile.complete:1",
    "after:core.run.sending:Sending.mark:1",
    "before:core.kafka.aiokafka:AiokafkaPublisher.commit:1",
]
COMMITTED = [
    "after:core.kafka.aiokafka:AiokafkaPublisher.commit:1",
    "after:core.run.part:run_part:1",
]


@pytest.mark.parametrize("point", sweep([*NOT_COMMITTED, *COMMITTED], always=[COMMITTED[0]]))
def test_a_killed_part_of_exactly_once_is_there_once(
    place: Place, tmp_path: Path, expected_ids: Any, point: str
) -> None:
    place.set(**ONCE, verify="count")
    run = place.run(**deadly(tmp_path / "deadly", point, part=1))
    assert (tmp_path / "deadly" / "0.killed").exists(), "it was not killed"
    assert (run.verdict, run.sent, run.rows_read, run.acknowledged) == ("complete", ROWS, ROWS, ROWS), run.error_text
    assert [part.attempt for part in run.parts] == [1, 2, 1]
    assert "part 2 of 3 was repeated" in run.warnings[0]
    check_once(place, expected_ids())


@pytest.mark.parametrize("point", sweep([NOT_COMMITTED[2], COMMITTED[-1]], always=[COMMITTED[-1]]))
def test_a_later_attempt_sends_only_the_parts_that_are_missing_with_the_same_bounds(
    place: Place, tmp_path: Path, expected_ids: Any, point: str
) -> None:
    place.set(**ONCE)
    first = place.run(**deadly(tmp_path / "deadly", point, times=0, part=2))
    assert first.state == "partial"
    assert "part 3 of 3 was lost 3 times" in (first.error_text or "")
    second = place.run()
    assert (second.verdict, second.rows_read, second.acknowledged) == ("complete", ROWS, ROWS), second.error_text
    assert [part.worker for part in second.parts][:2] == [f"run {first.run_id}"] * 2
    rows = {part.part: part.rows_read for part in first.parts}
    assert [part.rows_read for part in second.parts][:2] == [rows[1], rows[2]]
    check_once(place, expected_ids())


@pytest.mark.parametrize("point", sweep([*NOT_COMMITTED[1:3], *COMMITTED], always=[COMMITTED[0]]))
def test_a_killed_run_of_exactly_once_is_completed_by_the_next(
    place: Place, tmp_path: Path, expected_ids: Any, point: str
) -> None:
    """The process of the run is killed while one part is at a point; the parts end with it."""
    place.set(**ONCE)
    killer = deadly(tmp_path / "deadly", point, part=1)
    killer["RIG_KILL_PARENT"] = "1"
    words = command("run", "export", "--at", "2026-01-17T02:00+00:00")
    done = subprocess.run(words, cwd=place.folder, env={**place.env, **killer}, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    until(no_parts_anywhere(place), "a part goes on")
    run = place.run()
    assert (run.verdict, run.rows_read, run.acknowledged) == ("complete", ROWS, ROWS), run.error_text
    check_once(place, expected_ids())
    with App.open(place.folder, place.env, log=False) as app:
        second, first = app.ledger.history.newest("export")
    assert second.state == "succeeded"
    # Succeeded: all its other parts had committed when it was killed, as the second run found out.
    assert first.state == "interrupted" or (first.state, first.acknowledged) == ("succeeded", ROWS)


def no_parts_anywhere(place: Place) -> Callable[[], bool]:
    def check() -> bool:
        return not any(
            str(place.folder) in p.info["cmdline"] for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]
        )

    return check


def test_the_same_time_without_partitions_is_refused_when_parts_were_sent(place: Place) -> None:
    place.set(**ONCE)
    assert place.run().verdict == "complete"
    place.set(**ONCE, partitions=None)
    run = place.run()
    assert run.state == "failed"
    assert "has sent parts of 2026-01-17" in (run.error_text or "")
    assert place.ids(ROWS).total() == ROWS


def test_a_changed_query_is_refused_when_parts_were_sent(place: Place) -> None:
    place.set(**ONCE)
    assert place.run().verdict == "complete"
    place.set(SQL + " where g > 5", **ONCE)
    run = place.run()
    assert run.state == "failed"
    assert "the SQL was changed" in (run.error_text or "")


def test_another_number_of_parts_changes_nothing_once_some_are_sent(place: Place, expected_ids: Any) -> None:
    place.set(**ONCE)
    place.run()
    place.set(**ONCE, partitions={"column": "id", "count": 5, "by": "hash"})
    run = place.run()
    assert (run.verdict, run.sent, len(run.parts)) == ("complete", 0, 3)
    check_once(place, expected_ids())


# ── SQLite ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["range", "hash"])
def test_a_query_of_sqlite_is_sent_in_parts(place: Place, by: str) -> None:
    place.set("SELECT id, status FROM t", partitions={"column": "id", "count": 3, "by": by}, verify_count=True)
    file = place.folder / "some.db"
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE t (id INTEGER, status TEXT)")
        db.executemany("INSERT INTO t VALUES (?, ?)", [(n % 100, "x") for n in range(600)])
    db.close()
    document = json.loads((place.folder / "connections.json").read_text(encoding="utf-8"))
    document["connections"] = [{"name": "pg", "environment": "rig", "db_type": "sqlite", "database": "some.db"}]
    (place.folder / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    run = place.run()
    assert (run.verdict, run.rows_read, run.acknowledged, run.rows_counted) == ("complete", 600, 600, 600), (
        run.error_text
    )
    assert len(run.parts) == 3
    assert len(place.ids(600)) == 600


def test_show_and_its_document_have_a_line_for_each_part(place: Place) -> None:
    place.set()
    run = place.run()
    shown = run_command("show", run.run_id, env=place.env, cwd=place.folder).stdout
    assert f"part 2 of 3   succeeded   {run.parts[1].rows_read} rows" in shown
    document = json.loads(run_command("show", run.run_id, "--json", env=place.env, cwd=place.folder).stdout)
    assert [(part["part"], part["state"]) for part in document["parts"]] == [(n, "succeeded") for n in (1, 2, 3)]
