"""A replay goes to the topic and cluster of its run, even if its job and connections.json have changed."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from core.app import App
from core.records.ledger import Ledger
from core.records.outcomes import scheduled_outcomes
from core.run.replay import replay_plan
from core.workspace.paths import Workspace
from tests.rigs.workspace import environment, make_workspace, run_command

ROWS = "SELECT CASE WHEN g = 7 AND {bad} THEN NULL ELSE g::text END AS barcode FROM generate_series(1, 20) AS g"


class Place:
    """A workspace with a run that sent 19 of 20 rows to `old`."""

    def __init__(self, folder, postgres, kafka):
        self.kafka = kafka
        self.old, self.new = kafka.create_topic(partitions=1), kafka.create_topic(partitions=1)
        self.folder = make_workspace(
            folder, postgres=postgres, bootstrap_servers=kafka.plaintext, topic=self.old, sql=ROWS.format(bad=True)
        )
        self.env = environment(postgres)
        self.run_id = self.says("run", "export", "--at", "2026-01-17T02:00", "--json")["run_id"]

    def does(self, *words):
        return run_command(*words, env=self.env, cwd=self.folder)

    def says(self, *words):
        return json.loads(self.does(*words).stdout)

    def change(self, name, **what):
        path = self.folder / name
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | what), encoding="utf-8")

    def move_job(self):
        """The job sends to another topic, and the cluster has another name and environment."""
        self.change("queries/export.job.json", kafka_config={"topic": self.new, "message_key_field": "barcode"})
        self.cluster("other", {"name": "Renamed", "bootstrap_servers": self.kafka.plaintext})

    def cluster(self, key, entry):
        self.change("connections.json", default_environment=key, kafka_connections={key: entry})

    def counts(self):
        return len(self.kafka.read(self.old)), len(self.kafka.read(self.new))


@pytest.fixture
def place(tmp_path, postgres, kafka):
    return Place(tmp_path / "ws", postgres, kafka)


def test_all_of_a_run_goes_to_its_own_topic_although_topic_and_cluster_of_its_job_are_others_now(place):
    place.move_job()
    done = place.does("replay", place.run_id)
    assert f"to {place.old} on Renamed" in done.stdout
    assert f"its job sends to {place.new} on Renamed now: --to job" in done.stdout
    assert place.counts() == (38, 0)
    with Ledger(Workspace(place.folder).ledger_file) as ledger:
        again, first = ledger.history.newest("export")
    assert (again.kind, again.topic, again.cluster) == ("replay", place.old, "Renamed")
    assert again.cluster_id == first.cluster_id != ""
    assert {p.topic for p in again.partitions} == {place.old}


def test_a_person_may_choose_where_the_job_sends_now(place):
    place.move_job()
    done = place.does("replay", place.run_id, "--to", "job")
    assert f"to {place.new} on Renamed" in done.stdout
    assert place.counts() == (19, 19)
    assert place.says("runs", "--json")["runs"][0]["topic"] == place.new


def test_only_rejects_leaves_out_what_arrived_on_that_topic(place):
    place.move_job()
    place.does("replay", place.run_id, "--to", "job")
    (place.folder / "queries" / "export.sql").write_text(ROWS.format(bad=False), encoding="utf-8")
    place.does("replay", place.run_id, "--rejects-only", "--to", "job")
    newest = place.says("runs", "--json")["runs"][0]
    assert (newest["rows_read"], newest["arrived_before"]) == (1, 19)
    assert place.counts() == (19, 20)  # the fixed row arrived there, and not where the run was sent
    place.does("replay", place.run_id, "--rejects-only")
    assert place.counts() == (20, 20)


def test_single_keys_are_sent_once_more_with_their_ids_and_the_day_stays_that_of_the_whole_run(place):
    done = place.does("replay", place.run_id, "--key", "5", "--key", "12", "--key", "5")
    assert (done.returncode, "only the rows with the keys that were asked for" in done.stdout) == (0, True), done.stderr
    ids = Counter((message.key(), dict(message.headers())["message_id"]) for message in place.kafka.read(place.old))
    assert sorted(key for (key, _), count in ids.items() if count == 2) == [b"12", b"5"]
    assert ids.total() == 21
    newest = place.says("runs", "--json")["runs"][0]
    assert (newest["kind"], newest["verdict"], newest["rows_read"], newest["rejected"]) == ("replay", "complete", 2, 0)
    with App.open(place.folder) as opened:
        at = datetime(2026, 1, 17, tzinfo=UTC)
        found = scheduled_outcomes(opened.job("export"), opened.ledger, at, at + timedelta(days=1), datetime.now(UTC))
    assert [(outcome.state, outcome.run.run_id) for outcome in found] == [("complete_with_rejects", place.run_id)]
    rest = place.says("replay", place.run_id, "--rejects-only", "--json")
    assert (rest["acknowledged"], rest["rejected"]) == (0, 1)


@pytest.mark.parametrize(("keys", "arrived", "state"), [(["99"], 0, "failed"), (["99", "5", "1 "], 1, "partial")])
def test_a_key_without_a_row_is_named_and_the_others_arrive(place, keys, arrived, state):
    done = place.does("replay", place.run_id, *(word for key in keys for word in ("--key", key)))
    assert done.returncode == 1
    missing = (
        '2 keys that were asked for have no row: "1 ", "99"' if arrived else 'key that was asked for has no row: "99"'
    )
    assert missing in done.stdout + done.stderr
    assert "none of the 20 rows that the query gives now has it" in done.stdout + done.stderr
    assert place.counts() == (19 + arrived, 0)
    assert place.says("runs", "--json")["runs"][0]["state"] == state


def test_a_key_of_a_char_column_is_found_without_the_blanks_at_its_end(place):
    rows = "SELECT g::text::char(4) AS barcode FROM generate_series(1, 20) AS g"
    (place.folder / "queries" / "export.sql").write_text(rows, encoding="utf-8")
    place.says("run", "export", "--at", "2026-01-18T02:00", "--json")
    place.does("accept-columns", "export")
    first = place.says("run", "export", "--at", "2026-01-18T02:00", "--json")
    assert place.says("replay", first["run_id"], "--key", "7", "--json")["acknowledged"] == 1


def test_single_keys_of_a_run_that_has_not_arrived_are_refused_and_so_is_an_empty_key(place):
    (place.folder / "queries" / "export.sql").write_text("SELECT 1 / 0 AS barcode", encoding="utf-8")
    failed = place.says("run", "export", "--at", "2026-01-18T02:00", "--json")["run_id"]
    done = place.does("replay", failed, "--key", "5")
    assert (done.returncode, "not all of its rows have arrived" in done.stderr) == (2, True)
    assert f"python -m core replay {failed} --rejects-only sends what is missing" in done.stderr
    for key in ("", "\udcff"):  # the byte FF, as a shell passes it
        done = place.does("replay", place.run_id, "--key", key)
        assert (done.returncode, "a key to send again is empty or no text" in done.stderr) == (2, True)


def test_a_run_whose_cluster_is_gone_is_refused_with_what_to_do(place):
    place.cluster("rig", {"name": "Another", "bootstrap_servers": "127.0.0.1:1", "request_timeout_ms": 1000})
    done = place.does("replay", place.run_id)
    assert done.returncode == 2
    assert f"the cluster that run {place.run_id} was sent to is none of those that are set up now" in done.stderr
    assert 'called "Kafka Rig"' in done.stderr
    assert "add that cluster to kafka_connections again" in done.stderr
    assert place.counts() == (19, 0)


def test_a_job_whose_own_cluster_is_gone_does_not_stop_the_replay_of_a_run_to_where_it_was_sent(place):
    place.change("queries/export.job.json", kafka_config={"topic": place.new, "cluster": "gone", "message_key_field": "barcode"})  # fmt: skip
    assert place.says("replay", place.run_id, "--json")["topic"] == place.old
    assert place.does("replay", place.run_id, "--to", "job").returncode == 2
    assert place.counts() == (38, 0)


def test_a_run_of_a_deleted_job_is_refused_and_never_takes_a_job_of_that_name(place):
    path = place.folder / "queries" / "export.job.json"
    text = json.loads(path.read_text(encoding="utf-8")) | {"name": "export"}
    path.with_name("another.job.json").write_text(json.dumps(text), encoding="utf-8")
    path.unlink()
    done = place.does("replay", place.run_id)
    assert done.returncode == 2
    assert 'its job "export" has been deleted' in done.stderr
    assert "queries/export.job.json" in done.stderr
    assert place.counts() == (19, 0)


def test_a_run_that_was_sent_is_not_written_into_a_file_unless_that_is_chosen(place):
    place.change("queries/export.job.json", export_format="csv", kafka_config={})
    done = place.does("replay", place.run_id)
    assert done.returncode == 2
    assert f"was sent to {place.old}, and its job writes a file now" in done.stderr
    assert place.says("replay", place.run_id, "--to", "job", "--json")["topic"] == ""
    assert list((place.folder / "exports").glob("*.csv"))
    assert place.counts() == (19, 0)


def test_the_runner_sends_it_where_the_request_says(place):
    from core.app import App
    from core.cli.worker import execute_scheduled_run
    from tests.ui.conftest import now

    place.move_job()
    with Ledger(Workspace(place.folder).ledger_file) as ledger, App.open(place.folder, place.env, log=False) as app:
        text = (place.folder / "queries" / "export.job.json").read_text(encoding="utf-8")
        ledger.job_versions.add("export", "ab", text, now())
        at = app.ledger.run(place.run_id).scheduled_at
        for to in ("job", "run", None):  # None: planned by an earlier version
            args = {"of_run": place.run_id, "rejects_only": False} | ({"to": to} if to else {})
            (scheduled_run,) = ledger.scheduled_runs.plan_requested(
                "export", [at], kind="request", asked_by="anna", now=now(), args=args
            )
            ledger.scheduled_runs.assign(scheduled_run, "ab")
            execute_scheduled_run(app, scheduled_run, now)
    assert place.counts() == (57, 19)


def test_an_exactly_once_run_is_sent_again_to_its_own_topic_and_its_pending_note_names_its_own_cluster(place):
    from core.app import App

    path = place.folder / "queries" / "export.job.json"
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"delivery": "exactly_once"}), encoding="utf-8"
    )
    place.change("connections.json", kafka_connections={
        "other": {"name": "Renamed", "bootstrap_servers": place.kafka.plaintext},
        "rig": {"name": "New", "bootstrap_servers": "127.0.0.1:1"},
    })  # fmt: skip
    place.change("queries/export.job.json", kafka_config={"topic": place.new, "message_key_field": "barcode"})
    assert place.says("replay", place.run_id, "--json")["topic"] == place.old
    assert place.counts() == (38, 0)
    with App.open(place.folder, place.env, log=False) as app:
        plan = replay_plan(app, place.run_id, rejects_only=False, asked_by="anna")
        assert (plan.cluster, app.connections.key_of(plan.to_cluster, app.settings)) == ("Renamed", "other")
        assert app.connections.cluster_key_for(plan.job) == "rig"
