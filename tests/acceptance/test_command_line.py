"""The program as a user runs it: a process, its output and its exit code; PostgreSQL and Kafka are real."""

import csv
import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from contextlib import ExitStack

import pytest

from tests.rigs.sweeps import sweep
from tests.rigs.waiting import until
from tests.rigs.workspace import command, environment, log_text, make_workspace, run_command

TABLE = """CREATE TABLE {name} AS SELECT lpad((572680000000 + g)::text, 12, '0') AS barcode, date '2026-01-16' AS trkdate,
  (g % 999)::int AS operator, timestamp '2026-01-16 11:50:32.665' + g * interval '1 second' AS arrivetimestamp,
  (g % 100000 / 100.0)::numeric(12,2) AS importo, CASE WHEN g % 5 = 0 THEN NULL ELSE 'SGU' END AS canale
  FROM generate_series(1, {rows}) AS g"""


@pytest.fixture(scope="module")
def table(postgres):
    """Makes a table of this many rows; returns its name."""
    made = []

    def make(rows: int) -> str:
        name = f"export_{rows}_{len(made)}"
        with postgres.connect() as connection:
            connection.execute(TABLE.format(name=name, rows=rows))
        made.append(name)
        return name

    yield make
    with postgres.connect() as connection:
        for name in made:
            connection.execute(f"DROP TABLE IF EXISTS {name}")


@pytest.fixture
def place(tmp_path, postgres, kafka):
    """Makes the workspace of a test; returns the folder, a function that runs a command there, and the topic."""

    def make(sql: str, *, topic: str | None = None, **changes):
        topic = topic or kafka.create_topic(partitions=6)
        changes.setdefault("bootstrap_servers", kafka.plaintext)
        folder = make_workspace(tmp_path / "ws", postgres=postgres, topic=topic, sql=sql, **changes)

        def run(*words, **env):
            return run_command(*words, env=environment(postgres, measured=True, **env), cwd=folder)

        return folder, run, topic

    return make


def the_json(done: subprocess.CompletedProcess[str]) -> dict:
    """Returns stdout as JSON; fails if it is anything but one document."""
    return json.loads(done.stdout)


# ── the main job ──────────────────────────────────────────────────────────────────────────────


def test_two_hundred_thousand_rows_arrive_with_their_keys_and_bytes_and_are_all_in_the_metrics(place, table, kafka):
    name = table(200_000)
    _, run, topic = place(f"SELECT * FROM {name}", job={"verify_count": True})
    done = run("run", "export", "--json")
    verdict = the_json(done)
    assert done.returncode == 0, done.stderr
    assert (verdict["state"], verdict["rows_read"], verdict["acknowledged"], verdict["rejected"]) == (
        "succeeded",
        200_000,
        200_000,
        0,
    )
    assert verdict["rows_counted"] == 200_000
    messages = kafka.read(topic)
    keys = {m.key() for m in messages}
    assert len(messages) == 200_000
    assert keys == {b"%012d" % (572680000000 + g) for g in range(1, 200_001)}
    by_key = {m.key(): m for m in messages}
    body = json.loads(by_key[b"572680000007"].value())
    assert body["data"] == {
        "barcode": "572680000007",
        "trkdate": "2026-01-16",
        "operator": 7,
        "arrivetimestamp": "2026-01-16T11:50:39.665000",
        "importo": 0.07,
        "canale": "SGU",
    }
    assert b'"importo":0.07,' in by_key[b"572680000007"].value()
    headers = dict(by_key[b"572680000007"].headers())
    assert headers["run_id"].decode() == verdict["run_id"]
    assert len({dict(m.headers())["message_id"] for m in messages}) == 200_000
    count = {(m.topic(), m.partition()): 0 for m in messages}
    for message in messages:
        count[(message.topic(), message.partition())] += 1
    assert {(p["topic"], p["partition"]): p["count"] for p in verdict["partitions"]} == count
    summary = the_json(run("metrics", "summary", "--json"))
    assert (summary["total_sent"], summary["total_failed"]) == (200_000, 0)
    assert verdict["bytes"] == sum(len(m.key()) + len(m.value()) for m in messages)
    sends = the_json(run("find", "572680000007", "--json"))["sends"]
    (send,) = sends
    assert (send["partition"], send["offset"]) == (
        by_key[b"572680000007"].partition(),
        by_key[b"572680000007"].offset(),
    )
    assert send["message_id"] == headers["message_id"].decode()


def test_the_same_run_repeated_gives_the_same_message_ids(place, table, kafka):
    _, run, topic = place(f"SELECT * FROM {table(500)}")
    assert run("run", "export", "--at", "2026-01-17T02:00").returncode == 0
    refused = run("run", "export", "--at", "2026-01-17T02:00")
    assert refused.returncode == 2
    assert "has 500 messages on" in refused.stderr
    assert "--again" in refused.stderr
    by_runner = run("run", "export", "--at", "2026-01-17T02:00", "--by-runner")
    assert by_runner.returncode == 2
    assert "--again" in by_runner.stderr
    assert len(kafka.read(topic, at_least=500)) == 500
    assert run("run", "export", "--at", "2026-01-17T02:00", "--dry-run").returncode == 0
    assert run("run", "export", "--at", "2026-01-17T02:00", "--again").returncode == 0
    ids = Counter(dict(m.headers())["message_id"] for m in kafka.read(topic))
    assert set(ids.values()) == {2}
    assert len(ids) == 500


def test_a_query_with_no_rows_is_green_and_says_zero(place, table):
    _, run, _ = place(f"SELECT * FROM {table(1)} WHERE barcode = 'none'")
    done = run("run", "export")
    assert done.returncode == 0, done.stderr
    assert "✔ complete" in done.stdout
    assert "0 read = 0 acknowledged + 0 rejected" in done.stdout


def test_bad_rows_are_rejected_listed_exported_and_the_fixed_ones_sent_again(place, table, kafka, postgres, tmp_path):
    name = table(1000)
    with postgres.connect() as connection:
        connection.execute(f"ALTER TABLE {name} ALTER importo TYPE numeric")
        connection.execute(f"UPDATE {name} SET importo = 'NaN' WHERE operator = 7")
        connection.execute(f"UPDATE {name} SET barcode = NULL WHERE operator = 8")
    folder, run, topic = place(f"SELECT * FROM {name} ORDER BY arrivetimestamp")
    done = run("run", "export")
    assert done.returncode == 4
    assert "1,000 read = 998 acknowledged + 2 rejected" in done.stdout
    assert "importo: NaN has no JSON form" in done.stdout
    verdict = the_json(run("runs", "--json"))["runs"][0]
    listed = run("rejects", verdict["run_id"][:6], "--csv", tmp_path / "rejects.csv")
    assert listed.returncode == 0
    with (tmp_path / "rejects.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["row_number"], r["column"], r["reason"]) for r in rows] == [
        ("7", "importo", "NaN has no JSON form"),
        ("8", "barcode", "the key is null"),
    ]
    assert rows[0]["barcode"] == "572680000007"
    with postgres.connect() as connection:
        connection.execute(f"UPDATE {name} SET importo = 1 WHERE operator = 7")
    again = run("replay", verdict["run_id"], "--rejects-only", "--json")
    replayed = the_json(again)
    assert (replayed["rows_read"], replayed["acknowledged"], replayed["rejected"]) == (2, 1, 1)
    keys = [m.key() for m in kafka.read(topic)]
    assert len(keys) == len(set(keys)) == 999
    assert folder.joinpath(".pstt", "ledger.sqlite").exists()


def test_on_bad_row_fail_sends_nothing_after_it_and_names_the_row(place, table, postgres):
    name = table(100)
    with postgres.connect() as connection:
        connection.execute(f"UPDATE {name} SET barcode = NULL WHERE operator = 8")
    _, run, _ = place(f"SELECT * FROM {name} ORDER BY arrivetimestamp", job={"on_null_key": "fail"})
    done = run("run", "export")
    assert done.returncode == 1
    assert "row 8, column barcode cannot be sent: the key is null" in done.stdout


def test_an_oversized_message_is_rejected_alone(place, table, kafka, postgres):
    name = table(300)
    with postgres.connect() as connection:
        connection.execute(f"ALTER TABLE {name} ALTER canale TYPE text")
        connection.execute(f"UPDATE {name} SET canale = repeat('x', 2000000) WHERE operator = 9")
    _, run, topic = place(f"SELECT * FROM {name}")
    verdict = the_json(run("run", "export", "--json"))
    assert (verdict["state"], verdict["acknowledged"], verdict["rejected"], verdict["failed"]) == (
        "succeeded",
        299,
        1,
        0,
    )
    rejected = run("rejects", verdict["run_id"]).stdout
    assert "572680000009" in rejected
    assert "is too large: KAFKA_MAX_REQUEST_SIZE is 1,048,576" in rejected
    assert kafka.count(topic) == 299


@pytest.mark.parametrize("client", ["aiokafka", "confluent", "kafka-python-ng"])
def test_a_row_that_the_topic_does_not_take_is_rejected_alone_with_the_setting_to_change(
    place, table, kafka, postgres, client
):
    name = table(2_000)
    with postgres.connect() as connection:
        connection.execute(f"UPDATE {name} SET barcode = NULL WHERE arrivetimestamp = '2026-01-16 11:50:41.665'")
    topic = kafka.create_topic(config={"cleanup.policy": "compact"})
    _, run, _ = place(f"SELECT * FROM {name}", topic=topic, job={"on_null_key": "send"})
    env = {"KAFKA_CLIENT": client, "KAFKA_ENABLE_IDEMPOTENCE": "false" if client == "kafka-python-ng" else "true"}
    verdict = the_json(run("run", "export", "--json", **env))
    assert (verdict["acknowledged"], verdict["rejected"], verdict["failed"]) == (1_999, 1, 0)
    rejected = run("rejects", verdict["run_id"]).stdout
    assert "the topic is compacted (cleanup.policy=compact)" in " ".join(rejected.split())
    assert len(kafka.read(topic, at_least=1_999)) == 1_999


def test_on_bad_row_fail_ends_at_a_row_that_the_topic_does_not_take_and_what_arrived_is_known(
    place, table, kafka, postgres
):
    name = table(2_000)
    with postgres.connect() as connection:
        connection.execute(f"UPDATE {name} SET barcode = NULL WHERE operator = 9")
    topic = kafka.create_topic(config={"cleanup.policy": "compact"})
    _, run, _ = place(
        f"SELECT * FROM {name} ORDER BY arrivetimestamp",
        topic=topic,
        job={"on_null_key": "send", "on_bad_row": "fail"},
    )
    verdict = the_json(run("run", "export", "--json"))
    assert verdict["state"] == "partial"
    assert "cleanup.policy=compact" in json.dumps(verdict["error"])
    assert verdict["acknowledged"] == len(kafka.read(topic))


def test_exactly_once_with_a_row_that_the_topic_does_not_take_sends_nothing_and_names_the_setting(
    place, table, kafka, postgres
):
    name = table(500)
    with postgres.connect() as connection:
        connection.execute(f"UPDATE {name} SET barcode = NULL WHERE operator = 9")
    topic = kafka.create_topic(config={"cleanup.policy": "compact"})
    _, run, _ = place(f"SELECT * FROM {name}", topic=topic, job={"on_null_key": "send", "delivery": "exactly_once"})
    done = run("run", "export", "--json")
    verdict = the_json(done)
    assert done.returncode == 1
    assert (verdict["state"], verdict["acknowledged"], verdict["rejected"]) == ("failed", 0, 1)
    error = " ".join(json.dumps(verdict["error"]).split())
    assert "1 message is refused, and exactly_once sends all rows or none" in error
    assert "cleanup.policy=compact" in error
    assert "message_key_field" in run("rejects", verdict["run_id"], "--json").stdout
    assert kafka.read(topic) == []


def test_exactly_once_shows_all_rows_or_none_and_a_second_attempt_sends_nothing(place, table, kafka):
    _, run, topic = place(f"SELECT * FROM {table(20_000)}", job={"delivery": "exactly_once"})
    first = the_json(run("run", "export", "--at", "2026-01-17T02:00", "--json"))
    assert (first["state"], first["acknowledged"]) == ("succeeded", 20_000)
    again = run("run", "export", "--at", "2026-01-17T02:00")
    assert again.returncode == 0, again.stdout
    assert "20,000 rows were sent exactly once by an earlier attempt" in again.stdout
    assert len(kafka.read(topic, at_least=20_000)) == 20_000


def test_a_dry_run_sends_nothing_and_writes_nothing(place, table, kafka):
    folder, run, topic = place(f"SELECT * FROM {table(500)}")
    done = run("run", "export", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "500 rows make 500 messages and 0 rejects; nothing was sent" in done.stdout
    assert kafka.count(topic) == 0
    assert the_json(run("runs", "--json"))["runs"] == []
    assert not list(folder.glob(".pstt/spool/*"))


@pytest.mark.parametrize("words", [("run", "export", "--dry-run"), ("preview", "export")])
def test_looking_never_writes_also_where_a_connection_allows_it(place, table, postgres, words):
    name = table(5)
    sql = f"WITH marked AS (UPDATE {name} SET canale = 'XXX' RETURNING *) SELECT * FROM marked"
    _, run, _ = place(sql, connection={"allow_writes": True})
    text = problem(done := run(*words)) if words[0] == "preview" else (done := run(*words)).stdout
    assert done.returncode == 1
    assert "read-only" in text
    with postgres.connect() as connection:
        assert connection.execute(f"SELECT count(*) FROM {name} WHERE canale = 'XXX'").fetchone() == (0,)


def test_preview_shows_what_is_sent_to_the_byte(place, table, kafka):
    topic = kafka.create_topic(partitions=1)
    config = {"topic": topic, "message_key_field": "barcode", "include_metadata": False}
    _, run, _ = place(f"SELECT * FROM {table(5)} ORDER BY barcode", topic=topic, job={"kafka_config": config})
    at = ("--at", "2026-01-17T02:00")
    shown = the_json(run("preview", "export", "--rows", "3", *at, "--json"))["messages"]
    assert kafka.count(topic) == 0
    assert run("run", "export", *at).returncode == 0
    sent = kafka.read(topic)[:3]
    assert [(m["key"], m["value"]) for m in shown] == [(s.key().decode(), s.value().decode()) for s in sent]
    assert [m["headers"]["message_id"].encode() for m in shown] == [dict(s.headers())["message_id"] for s in sent]


# ── stopped in the middle ─────────────────────────────────────────────────────────────────────


SLOW = "SELECT t.*, pg_sleep(0.0005)::text AS nap FROM {name} t"


@pytest.fixture
def started():
    """Starts a command without waiting; ends it with the test."""
    with ExitStack() as stack:

        def start(folder, env, *words) -> subprocess.Popen[str]:
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
            process = stack.enter_context(subprocess.Popen(command(*words), cwd=folder, env=env, **pipes))
            stack.callback(process.kill)
            return process

        yield start


def wait_for_messages(kafka, topic: str, count: int, timeout_s: float = 60) -> None:
    until(lambda: kafka.count(topic) >= count, f"{count} messages", timeout_s=timeout_s, every_s=0.2)


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's; on Windows the runner asks through the ledger")
@pytest.mark.parametrize("name", sweep(["SIGINT", "SIGTERM"], always=["SIGINT"]))
def test_a_stopped_run_is_cancelled_and_its_numbers_are_those_of_the_topic(
    place, table, kafka, postgres, started, name
):
    folder, run, topic = place(SLOW.format(name=table(60_000)))
    process = started(folder, environment(postgres, measured=True), "run", "export", "--json")
    wait_for_messages(kafka, topic, 3000)
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=40)
    verdict = json.loads(out)
    assert process.returncode == 1
    assert (verdict["state"], verdict["error"]["class"]) == ("cancelled", "RunCancelled")
    assert verdict["acknowledged"] == kafka.count(topic)
    assert 0 < verdict["acknowledged"] < 60_000
    assert "Traceback" not in out + err
    summary = the_json(run("metrics", "summary", "--json"))
    assert summary["total_sent"] == verdict["acknowledged"]
    with postgres.connect() as connection:
        still = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(0.0005)%' AND state = 'active'"
            " AND pid <> pg_backend_pid() AND datname = current_database()"
        ).fetchone()
    assert still == (0,)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_killed_run_becomes_interrupted_and_its_replay_sends_the_same_ids(place, table, kafka, postgres, started):
    name = table(60_000)
    folder, run, topic = place(SLOW.format(name=name))
    process = started(folder, environment(postgres, measured=True), "run", "export", "--at", "2026-01-17T02:00")
    wait_for_messages(kafka, topic, 3000)
    process.kill()
    process.communicate(timeout=20)
    before = {dict(m.headers())["message_id"] for m in kafka.read(topic)}
    listed = the_json(run("runs", "--json"))["runs"]
    assert [r["state"] for r in listed] == ["interrupted"]
    shown = run("show", listed[0]["run_id"])
    assert "✘ interrupted" in shown.stdout
    assert f"replay {listed[0]['run_id']}" in shown.stdout
    (folder / "queries" / "export.sql").write_text(f"SELECT t.*, ''::text AS nap FROM {name} t", encoding="utf-8")
    again = the_json(run("replay", listed[0]["run_id"], "--json"))
    assert (again["state"], again["acknowledged"], again["attempt"]) == ("succeeded", 60_000, 2)
    ids = Counter(dict(m.headers())["message_id"] for m in kafka.read(topic))
    assert len(ids) == 60_000
    assert before <= set(ids)
    assert {count for message_id, count in ids.items() if message_id not in before} == {1}


@pytest.mark.skipif(os.name == "nt", reason="SIGINT")
def test_a_job_that_runs_already_is_not_started_beside_itself(place, table, kafka, postgres, started):
    folder, run, topic = place(SLOW.format(name=table(60_000)))
    process = started(folder, environment(postgres, measured=True), "run", "export")
    wait_for_messages(kafka, topic, 100)
    second = run("run", "export")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=40)
    assert second.returncode == 1
    assert 'job "Export" is running already' in second.stderr
    assert "python -m core runs" in second.stderr


def test_a_metrics_file_held_open_for_the_whole_run_changes_nothing(place, table, postgres):
    from tests.unit.test_metrics import holder

    folder, run, _ = place(f"SELECT * FROM {table(1000)}")
    assert run("run", "export").returncode == 0
    with holder(folder / "metrics.duckdb", "read"):
        done = run("run", "export", "--again")
        assert done.returncode == 0, done.stderr
        assert the_json(run("metrics", "summary", "--json"))["total_sent"] == 2000
    assert run("run", "export", "--again").returncode == 0
    assert the_json(run("metrics", "summary", "--json"))["total_sent"] == 3000
    assert "3,000 sends from 3 segments" in run("metrics", "rebuild").stdout


# ── what goes wrong, as a user reads it ─────────────────────────────────────────────────────


def problem(done: subprocess.CompletedProcess[str]) -> str:
    text = done.stdout + done.stderr
    assert "Traceback" not in text
    assert "next" in text, text
    return text


def test_a_wrong_database_password_names_the_connection_and_not_the_password(place, postgres):
    _, run, _ = place("SELECT 1 AS barcode")
    text = problem(done := run("run", "export", RIG_DB_PASSWORD="hunter2-wrong"))
    assert done.returncode == 1
    assert '"pg"' in text
    assert "password" in text
    assert "hunter2-wrong" not in text


def test_an_unknown_database_host_is_unreachable(place):
    _, run, _ = place("SELECT 1 AS barcode", connection={"host": "no-such-host.invalid", "connect_timeout_s": 3})
    text = problem(done := run("run", "export"))
    assert done.returncode == 3, text
    assert "no-such-host.invalid" in text


def test_a_broker_that_is_away_is_named_and_nothing_is_claimed(place):
    _, run, _ = place("SELECT 1 AS barcode", bootstrap_servers="127.0.0.1:1", cluster={"request_timeout_ms": 3000})
    text = problem(done := run("run", "export"))
    assert done.returncode == 3, text
    assert "127.0.0.1:1" in text
    assert "refused" in text
    assert "nothing was sent" in text


def test_a_message_by_hand_is_refused_as_soon_as_a_run(place):
    _, run, topic = place("SELECT 1 AS barcode", bootstrap_servers="127.0.0.1:1")
    text = problem(done := run("send", topic, "k", "v"))
    assert done.returncode == 3, text
    assert "refused, tried for 10 s" in text


def test_a_missing_topic_is_named(place):
    _, run, _ = place("SELECT 1 AS barcode", topic="not-made-yet")
    text = problem(done := run("run", "export"))
    assert done.returncode == 1
    assert "not-made-yet" in text
    assert "does not exist" in text


def test_sql_that_the_database_refuses_shows_the_databases_own_words(place):
    _, run, _ = place("SELECT no_such_column AS barcode FROM pg_class")
    text = problem(done := run("run", "export"))
    assert done.returncode == 1
    assert 'column "no_such_column" does not exist' in text


def test_sql_that_writes_never_reaches_the_database(place, table):
    name = table(3)
    _, run, _ = place(f"DELETE FROM {name}; SELECT * FROM {name}")
    text = problem(done := run("run", "export"))
    assert done.returncode == 2
    assert "export.sql, line 1" in text
    assert "DELETE" in text
    assert "allow_writes" in text


def test_a_missing_mandatory_parameter_is_named_with_its_description(place):
    _, run, _ = place("define DATA='2026-01-17' --Obbligatorio: the day to extract\nSELECT '&DATA' AS barcode")
    text = problem(done := run("run", "export"))
    assert done.returncode == 2
    assert "DATA" in text
    assert "the day to extract" in text


def test_two_columns_of_one_name_are_refused_before_the_first_message(place, kafka):
    _, run, topic = place('SELECT 1 AS barcode, 2 AS "BARCODE"')
    text = problem(done := run("run", "export"))
    assert done.returncode == 1
    assert "two columns" in text
    assert kafka.count(topic) == 0


def test_a_key_column_that_is_not_there_lists_those_that_are(place):
    _, run, _ = place("SELECT 1 AS code, 2 AS other")
    text = problem(done := run("run", "export"))
    assert done.returncode == 2
    assert "code, other" in text


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("run", "exprot"), 'did you mean "export"?'),
        (("show", "ffff"), "python -m core runs"),
        (("run", "export", "--param", "DATA"), "NAME=VALUE"),
        (("run", "export", "--at", "tomorrow"), "--at tomorrow"),
        (("sql", "missing.sql", "--db-type", "oracle"), "missing.sql"),
        (("sql", "queries/export.sql", "--db-type", "db2"), "postgresql"),
    ],
)
def test_a_wrong_word_on_the_command_line_is_a_usage_error_that_helps(place, words, expected):
    _, run, _ = place("SELECT 1 AS barcode")
    text = problem(done := run(*words))
    assert done.returncode == 2
    assert expected in text


def test_a_torn_connections_file_gives_line_and_column(place):
    folder, run, _ = place("SELECT 1 AS barcode")
    file = folder / "connections.json"
    file.write_text(file.read_text(encoding="utf-8")[:120], encoding="utf-8")
    text = problem(done := run("run", "export"))
    assert done.returncode == 2
    assert "connections.json, line" in text


def test_errors_are_one_json_document_too(place):
    _, run, _ = place("SELECT 1 AS barcode")
    done = run("run", "exprot", "--json")
    document = the_json(done)
    assert document["error"]["class"] == "ConfigError"
    assert done.returncode == 2


def test_a_workspace_that_is_not_there_is_said(tmp_path):
    done = run_command("runs", "--workspace", tmp_path / "nowhere", env=environment(measured=True), cwd=tmp_path)
    assert done.returncode == 2
    assert "nowhere" in problem(done)


# ── the demo, and commands over it ────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    done = run_command("demo", "--rows", "3000", "--days", "0", "--json", env=environment(measured=True), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_the_demo_needs_nothing_and_reads_back_what_it_sent(demo):
    _, verdict = demo
    assert verdict["state"] == "succeeded"
    assert verdict["rejected"] > 0
    assert verdict["topic_count"] == verdict["acknowledged"] == verdict["rows_read"] - verdict["rejected"]
    assert list(json.loads(verdict["example"]["value"])) == ["data", "metadata"]


def test_every_command_over_the_demo_prints_one_json_document(demo):
    folder, verdict = demo
    key = verdict["example"]["key"]
    for words in (
        ("check",),
        ("config",),
        ("runs",),
        ("show", verdict["run_id"]),
        ("find", key),
        ("rejects", verdict["run_id"]),
        ("preview", "export-cdg-tracce"),
        ("next",),
        ("scheduled",),
        ("fires",),  # the name of `scheduled` up to 1.0.4
        ("alerts",),
        ("user", "list"),
        ("token", "list"),
        ("metrics", "summary"),
        ("metrics", "rebuild"),
        ("doctor",),
    ):
        done = run_command(*words, "--workspace", folder / "demo", "--json", env=environment(measured=True), cwd=folder)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        json.loads(done.stdout)


def test_the_demo_can_be_made_again(demo, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(demo[0], folder)
    done = run_command("demo", "--rows", "500", "--days", "0", env=environment(measured=True), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "◐ complete with rejects" in done.stdout
    assert "python -m core find" in done.stdout


def test_help_of_every_command_is_there(tmp_path):
    done = run_command("--help", env=environment(measured=True), cwd=tmp_path, anew=True)
    for name in "demo run preview sql check doctor config runs show find rejects replay send metrics".split():
        assert name in done.stdout
        assert run_command(name, "--help", env=environment(), cwd=tmp_path).returncode == 0


def test_a_message_sent_by_hand_is_found(place, kafka):
    _, run, topic = place("SELECT 1 AS barcode")
    done = run("send", topic, "572680001120", '{"hello": "world"}')
    assert done.returncode == 0, done.stderr
    assert "✔ acknowledged" in done.stdout
    assert [(m.key(), m.value()) for m in kafka.read(topic)] == [(b"572680001120", b'{"hello": "world"}')]
    assert "sent by hand" in run("find", "572680001120").stdout


def test_the_log_has_one_json_object_a_line_and_no_row_values(place, table):
    folder, run, _ = place(f"SELECT * FROM {table(50)}")
    assert run("run", "export").returncode == 0
    lines = [json.loads(line) for line in log_text(folder).splitlines()]
    verdict = next(line for line in lines if "50 acknowledged" in line["message"])
    assert verdict["job"] == "export"
    assert verdict["run"]
    assert "572680000007" not in log_text(folder)
