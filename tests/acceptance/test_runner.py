"""The runner as a process over a real PostgreSQL and a real Kafka: started, sent requests, stopped, killed, two at once."""

import json
import os
import re
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import duckdb
import psutil
import pytest

from bench.kills import live_through, start_runner, stop_runner, two_at_once
from core.records.ledger import Ledger
from core.workspace.paths import Workspace
from tests.rigs.processes import processes_below
from tests.rigs.waiting import until
from tests.rigs.workspace import environment, make_workspace, run_command

ROWS = "SELECT lpad(g::text, 12, '0') AS barcode, g AS n FROM generate_series(1, {rows}) AS g"
FIVE_HUNDRED = ROWS.format(rows=500)
SLOW = "SELECT pg_sleep(120)::text AS barcode, '{mark}' AS mark"


@pytest.fixture
def place(tmp_path, postgres, kafka):
    """Makes a workspace with the job `export`; its runners are ended after the test."""
    runners = []

    class Place:
        folder = tmp_path / "ws"
        workspace = Workspace(folder)
        topic = ""

        def make(self, sql=FIVE_HUNDRED, **job):
            self.topic = kafka.create_topic(partitions=3)
            kafka_config = {"topic": self.topic, "message_key_field": "barcode"}
            make_workspace(
                self.folder,
                postgres=postgres,
                bootstrap_servers=kafka.plaintext,
                topic=self.topic,
                sql=sql,
                job={"kafka_config": kafka_config, **job},
            )
            return self

        def start(self, **env):
            runners.append(start_runner(self.folder, environment(postgres, measured=True, **env)))
            until(
                lambda: (
                    (beat := self.ledger(lambda ledger: ledger.heartbeats.newest()))
                    and beat.is_alive(datetime.now(UTC))
                    and beat.pid
                )
            )
            return runners[-1]

        def run(self, *words):
            return run_command(*words, env=environment(postgres, measured=True), cwd=self.folder)

        def json(self, *words):
            return json.loads(self.run(*words, "--json").stdout)

        def ledger(self, ask, *args):
            with Ledger(self.workspace.ledger_file) as ledger:
                return ask(ledger, *args)

        def runs(self):
            with Ledger(self.workspace.ledger_file) as ledger:
                return ledger.history.newest()

        def edit(self, **changes):
            file = self.folder / "queries" / "export.job.json"
            document = json.loads(file.read_text(encoding="utf-8"))
            file.write_text(json.dumps(document | changes), encoding="utf-8")

    yield Place()
    for runner in runners:
        if runner.poll() is None:
            stop_runner(runner)


def active_queries(postgres, mark: str) -> int:
    """Returns how many statements with that mark the server runs."""
    with postgres.connect() as connection:
        sql = (
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()"
            " AND datname = current_database() AND query LIKE %s"
        )
        return connection.execute(sql, [f"%{mark}%"]).fetchone()[0]


def finished(place, count: int = 1):
    """Waits until this many runs have a verdict; returns them."""
    runs = [run for run in place.runs() if run.finished_at]
    return runs if len(runs) >= count else None


def copied(place) -> int | None:
    """The sends that another program finds in metrics.duckdb; None while it is held or missing."""
    with suppress(duckdb.Error), duckdb.connect(str(place.workspace.metrics_file), read_only=True) as db:
        return db.execute("SELECT count(*) FROM sends").fetchone()[0]
    return None


# ── on its calendar ───────────────────────────────────────────────────────────────────────────


def test_jobs_run_on_their_calendar_and_an_edit_counts_within_two_seconds(place, kafka):
    place.make(scheduling_mode="interval", interval_s=2, overlap="queue")
    runner = place.start()
    until(lambda: finished(place, 2))
    place.edit(enabled=False)
    edited_at = datetime.now(UTC)
    time.sleep(4.5)
    scheduled_runs = place.ledger(
        lambda ledger: ledger.scheduled_runs.between(edited_at - timedelta(minutes=5), edited_at + timedelta(minutes=5))
    )
    assert all(scheduled_run.state in ("done", "skipped") for scheduled_run in scheduled_runs)
    assert max(scheduled_run.scheduled_at for scheduled_run in scheduled_runs) <= edited_at + timedelta(seconds=2)
    done = [scheduled_run for scheduled_run in scheduled_runs if scheduled_run.state == "done"]
    assert len({message.key() for message in kafka.read(place.topic)}) == 500
    assert kafka.count(place.topic) == 500 * len(done)
    assert {run.state for run in place.runs()} == {"succeeded"}
    assert stop_runner(runner) == 0
    assert place.ledger(lambda ledger: ledger.heartbeats.newest()).state == "stopped"


def test_a_run_asked_for_is_taken_within_a_second_and_a_backfill_runs_each_day_once(place, kafka):
    place.make(scheduling_mode="cron", cron="0 2 * * *")
    place.start()
    asked = place.json("run", "export", "--by-runner")
    assert asked["state"] in ("taken", "done")
    request = place.ledger(lambda ledger: ledger.requests.get(asked["request_id"]))
    assert request.taken_at - request.asked_at < timedelta(seconds=1)
    until(lambda: finished(place))
    made = place.json("backfill", "export", "--from", "2026-01-10", "--to", "2026-01-12")
    assert (made["planned"], made["succeeded_before"]) == (3, 0)
    until(lambda: finished(place, 4))
    days = sorted(f"{run.scheduled_at:%m-%d %H:%M}" for run in place.runs())[:3]
    assert days == ["01-10 01:00", "01-11 01:00", "01-12 01:00"]
    listed = place.json("scheduled", "--days", "3000", "--job", "export")["scheduled_runs"]
    assert [(scheduled_run["kind"], scheduled_run["run_state"]) for scheduled_run in listed] == [
        ("backfill", "succeeded")
    ] * 3 + [("request", "succeeded")]
    assert place.run("scheduled", "--days", "3000").stdout.count("✔ complete, run ") == 4
    again = place.json("backfill", "export", "--from", "2026-01-10", "--to", "2026-01-12")
    assert (again["planned"], again["succeeded_before"]) == (0, 3)


def test_a_process_made_ready_before_the_fire_ends_with_its_runner_and_knows_connections_as_they_are_then(place):
    place.make(scheduling_mode="interval", interval_s=2)
    runner = place.start()
    until(lambda: finished(place))
    ready = until(lambda: processes_below(runner.pid, "--wait"))
    file = place.folder / "connections.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["connections"][0]["port"] = 1
    file.write_text(json.dumps(document), encoding="utf-8")
    time.sleep(0.2)
    changed_at = datetime.now(UTC)
    failed = until(lambda: [run for run in finished(place) if run.started_at > changed_at])
    assert {run.error_class for run in failed} == {"SourceUnavailable"}
    runner.kill()
    psutil.wait_procs(ready, timeout=10)
    assert [process for process in ready if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []


def test_next_lists_the_fires_of_all_enabled_jobs_with_their_offset(place):
    place.make(scheduling_mode="cron", cron="0 2 * * *")
    found = place.json("next", "--days", "3")["scheduled_times"]
    assert [scheduled_run["job"] for scheduled_run in found] == ["export"] * 3
    moments = [datetime.fromisoformat(scheduled_run["scheduled_at"]) for scheduled_run in found]
    assert all(moment.utcoffset() is not None and moment.hour == 2 for moment in moments)
    assert "every day at 02:00, Europe/Rome" in place.run("next").stdout
    assert place.run("disable", "export").returncode == 0
    assert place.json("next")["scheduled_times"] == []


# ── what ends a run ───────────────────────────────────────────────────────────────────────────


def test_a_run_that_takes_too_long_fails_and_its_query_is_gone_from_the_server(place, postgres):
    place.make(SLOW.format(mark="too long"), timeout_s=2)
    place.start()
    place.run("run", "export", "--by-runner")
    until(lambda: active_queries(postgres, "too long"))
    (run,) = until(lambda: finished(place))
    assert (run.state, run.error_class) == ("failed", "RunTimedOut")
    assert '"timeout_s" = 2' in run.error_text
    assert active_queries(postgres, "too long") == 0


def test_a_cancelled_run_is_cancelled_and_its_query_is_gone_from_the_server(place, postgres):
    place.make(SLOW.format(mark="cancel me"))
    place.start()
    place.run("run", "export", "--by-runner")
    until(lambda: active_queries(postgres, "cancel me"))
    done = place.run("cancel", place.runs()[0].run_id)
    assert done.returncode == 0, done.stderr
    (run,) = until(lambda: finished(place))
    assert run.state == "cancelled"
    assert run.error_text.startswith("the run was cancelled: asked by ")
    assert active_queries(postgres, "cancel me") == 0
    assert place.run("cancel", run.run_id).returncode == 2


def test_a_stopped_runner_breaks_its_run_off_in_time_and_the_next_one_repeats_it(place, postgres, kafka):
    place.make(SLOW.format(mark="stop me"), scheduling_mode="interval", interval_s=3600)
    first = place.start()
    place.run("run", "export", "--by-runner")
    until(lambda: active_queries(postgres, "stop me"))
    began = time.monotonic()
    assert stop_runner(first) == 0
    assert time.monotonic() - began < 15
    assert active_queries(postgres, "stop me") == 0
    (run,) = place.runs()
    assert (run.state, run.error_text) == ("interrupted", "the run was broken off: the runner was stopped")
    (place.folder / "queries" / "export.sql").write_text(ROWS.format(rows=50), encoding="utf-8")
    place.start()
    runs = until(lambda: finished(place, 2))
    assert [(run.state, run.attempt) for run in runs] == [("succeeded", 2), ("interrupted", 1)]
    assert len({run.scheduled_at for run in runs}) == 1
    assert kafka.count(place.topic) == 50


def test_a_run_whose_own_process_is_told_to_end_is_broken_off_and_run_again(place, postgres):
    place.make(SLOW.format(mark="end me"))
    runner = place.start()
    place.run("run", "export", "--by-runner")
    until(lambda: active_queries(postgres, "end me"))
    (child,) = psutil.Process(runner.pid).children()
    child.terminate()
    runs = until(lambda: (found := place.runs()) and len(found) == 2 and found)
    if os.name != "nt":  # Windows ends a process without a signal
        assert runs[1].error_text == "the run was broken off: its process was told to end"
    assert [(run.state, run.attempt) for run in runs] == [("running", 2), ("interrupted", 1)]
    until(lambda: active_queries(postgres, "end me"))


def test_a_job_that_cannot_even_begin_is_a_failed_run_that_says_why(place):
    place.make()
    (place.folder / "queries" / "export.sql").unlink()
    place.start()
    place.run("run", "export", "--by-runner")
    (run,) = until(lambda: finished(place))
    assert run.state == "failed"
    assert "export.sql" in run.error_text
    answer = until(
        lambda: (request := place.ledger(lambda ledger: ledger.requests.newest())[0]).state == "done" and request.answer
    )
    assert answer == f"run {run.run_id} failed"


# ── metrics ───────────────────────────────────────────────────────────────────────────────────


def test_the_runner_copies_the_sends_of_its_runs_and_before_it_ends_those_of_runs_by_hand(place):
    place.make()
    runner = place.start()
    place.run("run", "export", "--by-runner")
    until(lambda: finished(place))
    until(lambda: copied(place) == 500, timeout_s=60)
    assert place.run("run", "export").returncode == 0
    assert copied(place) == 500
    assert place.json("metrics", "summary")["total_sent"] == 1000
    assert stop_runner(runner) == 0
    assert copied(place) == 1000
    assert place.run("run", "export").returncode == 0
    assert copied(place) == 1500


# ── files that are wrong ──────────────────────────────────────────────────────────────────────


def test_a_broken_edit_keeps_the_last_good_version_and_heartbeat_and_check_say_so(place):
    place.make(scheduling_mode="interval", interval_s=2)
    place.start()
    until(lambda: finished(place))
    file = place.folder / "queries" / "export.job.json"
    file.write_text(file.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    (problem,) = until(lambda: place.ledger(lambda ledger: ledger.heartbeats.newest()).problems)
    assert problem["where"].startswith("export.job.json, line 1")
    assert problem["instead"] == "its last valid version stays in use"
    count = len(finished(place))
    until(lambda: finished(place, count + 2))
    checked = place.run("check")
    assert checked.returncode == 2
    assert "✘ export.job.json, line 1" in checked.stdout
    assert "its last valid version stays in use" in checked.stdout


def test_a_log_folder_that_cannot_be_written_stops_nothing_and_is_told(place):
    place.make(scheduling_mode="interval", interval_s=2)
    (place.folder / "logs").write_text("a file where the folder should be", encoding="utf-8")
    place.start()
    until(lambda: finished(place))
    assert [problem["where"] for problem in place.ledger(lambda ledger: ledger.heartbeats.newest()).problems] == [
        "logs"
    ]


# ── brokers ───────────────────────────────────────────────────────────────────────────────────


def test_each_cluster_is_looked_at_and_its_state_kept(place):
    place.make()
    place.start(KAFKA_HEALTH_CHECK_INTERVAL_SEC="1")
    since = datetime.now(UTC) - timedelta(minutes=1)
    sample, *_ = until(lambda: place.ledger(lambda ledger: ledger.broker_samples.since(since)))
    assert (sample.cluster, sample.connected, sample.error) == ("Kafka Rig", True, None)
    assert sample.latency_ms > 0
    connections = place.folder / "connections.json"
    document = json.loads(connections.read_text(encoding="utf-8"))
    document["kafka_connections"]["rig"]["bootstrap_servers"] = "127.0.0.1:1"
    connections.write_text(json.dumps(document), encoding="utf-8")
    lost = until(
        lambda: [s for s in place.ledger(lambda ledger: ledger.broker_samples.since(since)) if not s.connected]
    )[0]
    assert "127.0.0.1:1" in lost.error
    assert lost.latency_ms is None


# ── killed, and twice at once ─────────────────────────────────────────────────────────────────


def test_a_runner_killed_in_the_middle_loses_no_fire_and_no_row(tmp_path, postgres, kafka):
    story = live_through(tmp_path / "ws", postgres, kafka, times=3, rows=2_000, interval_s=3, seed=11)
    assert story.wrong == []
    assert story.kills == 3
    assert story.scheduled_times >= 4


def test_of_two_runners_at_once_one_works_and_one_leaves_with_the_message(tmp_path):
    assert two_at_once(tmp_path / "ws", 4) == []


# ── dry runs ──────────────────────────────────────────────────────────────────────────────────

ONE_BAD = "SELECT g::text AS barcode, CASE WHEN g = 7 THEN 'NaN'::numeric ELSE g END AS price FROM generate_series(1, 500) AS g"


def answered(place, number):
    """Waits until the request has ended; returns it."""
    return until(
        lambda: (r := place.ledger(lambda ledger: ledger.requests.get(number))).state in ("done", "refused") and r
    )


def test_a_dry_run_by_the_runner_tells_what_it_found_and_leaves_nothing_behind(place, kafka):
    place.make(ONE_BAD, scheduling_mode="cron", cron="0 2 * * *")
    place.start()
    asked = place.json("run", "export", "--by-runner", "--dry-run", "--at", "2026-01-17T02:00")
    told = answered(place, asked["request_id"])
    assert told.state == "done"
    assert re.fullmatch(
        r"✔ dry run: 500 rows read in \d+\.\d s make 499 messages of 0\.\d MB, 1 rejected "
        r"\(1 × price: NaN has no JSON form\); nothing was sent",
        told.answer,
    )
    assert (place.runs(), kafka.count(place.topic)) == ([], 0)
    assert place.ledger(lambda ledger: ledger.scheduled_runs.of_request(told.request_id)) == []
    assert not list(place.folder.glob(".pstt/spool/*"))
    assert place.json("metrics", "summary")["total_sent"] == 0


def test_a_dry_run_that_fails_says_why(place):
    place.make("SELECT no_such_column AS barcode FROM generate_series(1, 3) AS g")
    place.start()
    told = answered(place, place.json("run", "export", "--by-runner", "--dry-run")["request_id"])
    assert told.state == "refused"
    assert 'column "no_such_column" does not exist' in told.answer


def test_a_dry_run_ends_with_its_runner_and_one_left_by_a_killed_runner_is_answered(place, postgres):
    mark = f"dry-{os.urandom(4).hex()}"
    place.make(SLOW.format(mark=mark))
    runner = place.start()
    number = place.json("run", "export", "--by-runner", "--dry-run")["request_id"]
    until(lambda: active_queries(postgres, mark) == 1)
    assert stop_runner(runner) == 0
    assert (
        place.ledger(lambda ledger: ledger.requests.get(number)).answer
        == "the runner stopped before the dry run ended: ask again"
    )
    until(lambda: active_queries(postgres, mark) == 0)

    killed = place.start()
    number = place.json("run", "export", "--by-runner", "--dry-run")["request_id"]
    until(lambda: active_queries(postgres, mark) == 1)
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.kill()
    killed.wait(10)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    place.start()
    told = answered(place, number)
    assert (told.state, told.answer) == ("refused", "the runner ended before the dry run did: ask again")
    until(lambda: active_queries(postgres, mark) == 0)  # the server notices on its own
