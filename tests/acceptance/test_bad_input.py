"""Errors in files, arguments, rows, servers and disks, as the user reads them."""

import json
import os
import shutil
import signal
import subprocess
from contextlib import ExitStack, closing

import pytest

from tests.acceptance.test_command_line import problem, the_json
from tests.rigs.sweeps import sweep
from tests.rigs.waiting import until
from tests.rigs.workspace import acknowledged_so_far, command, environment, log_text, make_workspace, run_command

SECRET = "hunter2-of-the-broker"


@pytest.fixture
def place(tmp_path, postgres, kafka):
    """Makes the workspace of a test; returns the folder, a function that runs a command there, and the topic."""

    def make(sql: str = "SELECT 1 AS barcode", *, topic: str | None = None, **changes):
        topic = topic or kafka.create_topic(partitions=1)
        changes.setdefault("bootstrap_servers", kafka.plaintext)
        folder = make_workspace(tmp_path / "ws", postgres=postgres, topic=topic, sql=sql, **changes)

        def run(*words, **env):
            return run_command(*words, env=environment(postgres, **env), cwd=folder)

        return folder, run, topic

    return make


def change_job(folder, **changes) -> None:
    file = folder / "queries" / "export.job.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}, indent=1), encoding="utf-8")


MISTAKES = [
    ({"crom": "0 2 * * *"}, ("export.job.json, line ", 'unknown key "crom"', 'did you mean "cron"?')),
    ({"cron": "0 25 * * *"}, ("export.job.json, line ", '"cron"', "minute hour day month weekday")),
    ({"cron": "0 0 31 2 *"}, ("export.job.json, line ", '"cron"', "never")),
    ({"timezone": "Europe/Roma"}, ("export.job.json, line ", 'did you mean "Europe/Rome"?')),
    ({"connection": "pgg"}, ('there is no connection "pgg" in connections.json', 'did you mean "pg"?')),
    ({"query": "exprot.sql"}, ("exprot.sql",)),
    ({"parameters": {"DAY": "x"}}, ("export.sql has no parameter DAY",)),
    ({"types": {"code": "date"}}, ("types names column code, which the query does not return", "barcode")),
]


@pytest.mark.parametrize(
    ("changes", "expected"),
    sweep(MISTAKES, always=[MISTAKES[0], MISTAKES[4], MISTAKES[7]]),
)
def test_a_mistake_in_a_job_stops_it_before_anything_is_read(place, kafka, changes, expected):
    folder, run, topic = place()
    change_job(folder, **changes)
    text = problem(done := run("run", "export"))
    assert done.returncode == 2, text
    for part in expected:
        assert part in text
    assert kafka.count(topic) == 0


def test_a_torn_job_file_says_where_it_ends(place):
    folder, run, _ = place()
    file = folder / "queries" / "export.job.json"
    file.write_text(file.read_text(encoding="utf-8")[:60], encoding="utf-8")
    text = problem(done := run("run", "export"))
    assert done.returncode == 2
    assert "export.job.json, line 1, column" in text
    assert "the file is not whole JSON" in text
    assert "the end is missing" in text


def test_an_unknown_name_in_the_sql_has_line_and_column(place):
    _, run, _ = place("SELECT 1 AS barcode\nWHERE '1' = '&DATTA'")
    text = problem(done := run("run", "export"))
    assert done.returncode == 2
    assert "export.sql, line 2, column 14" in text
    assert "DATTA" in text


def test_a_connections_file_that_is_not_there_is_named(place):
    folder, run, _ = place()
    (folder / "connections.json").unlink()
    text = problem(done := run("run", "export"))
    assert done.returncode == 2
    assert "there is no file connections.json" in text


def test_a_setting_that_is_not_allowed_says_where_it_came_from(place):
    folder, run, _ = place()
    (folder / ".env").write_text("\nKAFKA_LINGER_MS=ten\n", encoding="utf-8")
    text = problem(done := run("run", "export"))
    assert done.returncode == 2
    assert ".env, line 2: KAFKA_LINGER_MS is not valid" in text


def test_an_unknown_kafka_host_is_named(place):
    _, run, _ = place(bootstrap_servers="no-such-broker.invalid:9092", cluster={"request_timeout_ms": 3000})
    text = problem(done := run("run", "export"))
    assert done.returncode == 3, text
    assert "no-such-broker.invalid:9092" in text
    assert "Kafka Rig" in text


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_wrong_broker_password_is_said_to_be_one_and_shown_nowhere(place, kafka, mechanism):
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": mechanism, "sasl_username": kafka.username}
    login |= {"sasl_password": "env:BROKER_PASSWORD", "request_timeout_ms": 5000}
    folder, run, _ = place(bootstrap_servers=kafka.sasl_plaintext, cluster=login)
    text = problem(done := run("run", "export", BROKER_PASSWORD=SECRET, KAFKA_LOG_LEVEL="DEBUG"))
    assert done.returncode == 1, text
    assert "Kafka Rig" in text
    assert "password" in text
    log = log_text(folder)
    assert SECRET not in text + log


def test_a_topic_that_this_account_may_not_write_is_named(place, kafka):
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": kafka.limited_username}
    login |= {"sasl_password": "env:BROKER_PASSWORD", "request_timeout_ms": 5000}
    _, run, topic = place(bootstrap_servers=kafka.sasl_plaintext, cluster=login)
    text = problem(done := run("run", "export", BROKER_PASSWORD=kafka.limited_password))
    assert done.returncode == 1, text
    assert topic in text
    assert "may not" in text or "not authori" in text.lower()


@pytest.mark.parametrize(
    ("listener", "authority", "words"),
    [
        ("ssl_expired", "ca_file", ("expired",)),
        ("ssl_wrong_host", "ca_file", ("127.0.0.1", "name")),
        ("ssl", "other_ca_file", ("authority",)),
    ],
)
def test_a_certificate_that_cannot_be_trusted_says_why(place, kafka, listener, authority, words):
    tls = {"security_protocol": "SSL", "ssl_cafile": str(getattr(kafka, authority)), "request_timeout_ms": 5000}
    _, run, _ = place(bootstrap_servers=getattr(kafka, listener), cluster=tls)
    text = problem(done := run("run", "export"))
    assert done.returncode in (1, 3), text
    assert "certificate" in text
    for word in words:
        assert word in text, text


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.slow
def test_a_broker_that_dies_in_the_middle_leaves_a_verdict_that_claims_only_what_arrived(place, own_kafka, postgres):
    rig = own_kafka()
    topic = rig.create_topic(partitions=1)
    sql = "SELECT g::text AS barcode, pg_sleep(0.0005)::text AS nap FROM generate_series(1, 60000) AS g"
    quick = {"request_timeout_ms": 3000, "delivery_timeout_ms": 3000, "max_retries": 1}
    folder, run, _ = place(sql, topic=topic, bootstrap_servers=rig.plaintext, cluster=quick)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    with ExitStack() as stack:
        process = stack.enter_context(
            subprocess.Popen(
                command("run", "export", "--json"),
                cwd=folder,
                env=environment(postgres, KAFKA_LOG_LEVEL="DEBUG"),
                **pipes,
            )
        )
        stack.callback(process.kill)
        until(lambda: acknowledged_so_far(folder) or process.poll() is not None)
        rig.kill()
        out, err = process.communicate(timeout=90)
    verdict = json.loads(out)
    assert "Traceback" not in out + err
    assert process.returncode in (1, 3)
    assert verdict["state"] == "partial"
    assert verdict["error"]["retriable"] is not None
    assert rig.plaintext in verdict["error"]["text"] or "Kafka Rig" in verdict["error"]["text"]
    rig.start()
    assert 0 < verdict["acknowledged"] <= rig.count(topic)
    assert the_json(run("metrics", "summary", "--json"))["total_sent"] == verdict["acknowledged"]


ODD_ROWS = """SELECT * FROM (VALUES
  ('good',      1.5::float8,         '2026-01-16'::date,  1::numeric,                                      'x'),
  ('nan',       'NaN'::float8,       '2026-01-16'::date,  1::numeric,                                      'x'),
  ('infinite',  '-Infinity'::float8, '2026-01-16'::date,  1::numeric,                                      'x'),
  ('first',     1,                   '0001-01-01'::date,  1::numeric,                                      'x'),
  ('last',      1,                   '9999-12-31'::date,  1::numeric,                                      'x'),
  ('after',     1,                   '10000-01-01'::date, 1::numeric,                                      'x'),
  ('before',    1,                   '0001-01-01 BC'::date, 1::numeric,                                    'x'),
  ('forever',   1,                   'infinity'::date,    1::numeric,                                      'x'),
  ('digits',    1,                   '2026-01-16'::date,  1234567890123456789012345678901234567890::numeric, 'x'),
  ('large',     1,                   '2026-01-16'::date,  1::numeric,                                      repeat('x', 2000000)),
  (NULL,        1,                   '2026-01-16'::date,  1::numeric,                                      'x')
) AS t (barcode, share, day, amount, note)"""


def test_of_odd_rows_each_that_has_a_form_arrives_and_each_other_is_rejected_with_its_reason(place, kafka):
    _, run, topic = place(ODD_ROWS)
    done = run("run", "export", "--json")
    assert done.returncode == 4, done.stderr
    verdict = the_json(done)
    assert (verdict["rows_read"], verdict["acknowledged"], verdict["rejected"]) == (11, 4, 7)
    rejects = the_json(run("rejects", verdict["run_id"], "--json"))["rejects"]
    reasons = {reject["key"]: (reject["column"], reject["reason"]) for reject in rejects}
    no_date = ("day", "the text is not a date between the years 0001 and 9999")
    assert reasons["nan"] == ("share", "NaN has no JSON form")
    assert reasons["infinite"] == ("share", "Infinity has no JSON form")
    assert reasons["after"] == reasons["before"] == reasons["forever"] == no_date
    assert reasons[None] == ("barcode", "the key is null")
    assert "KAFKA_MAX_REQUEST_SIZE is 1,048,576" in reasons["large"][1]
    values = {m.key().decode(): json.loads(m.value())["data"] for m in kafka.read(topic)}
    assert sorted(values) == ["digits", "first", "good", "last"]
    assert values["first"]["day"] == "0001-01-01"
    assert values["last"]["day"] == "9999-12-31"
    assert values["digits"]["amount"] == 1234567890123456789012345678901234567890


def test_nul_and_half_characters_of_a_database_that_keeps_them(place, kafka):
    folder, run, topic = place(
        "SELECT 'nul' AS barcode, char(97, 0, 98) AS note UNION ALL SELECT 'half', CAST(x'61eda080' AS TEXT) ORDER BY 1",
        connection={"db_type": "sqlite", "database": "odd.sqlite", "host": "", "username": "", "password": None},
    )
    (folder / "odd.sqlite").touch()
    done = run("run", "export", "--json")
    verdict = the_json(done)
    assert done.returncode == 4, verdict
    assert (verdict["acknowledged"], verdict["rejected"]) == (1, 1)
    (message,) = kafka.read(topic)
    assert json.loads(message.value())["data"] == {"barcode": "nul", "note": "a\0b"}
    (reject,) = the_json(run("rejects", verdict["run_id"], "--json"))["rejects"]
    assert (reject["key"], reject["column"]) == ("half", "note")
    assert reject["reason"]


@pytest.fixture
def old_database(postgres):
    """A database whose encoding accepts any byte as text."""
    with closing(postgres.connect()) as connection:
        connection.execute("CREATE DATABASE old_texts ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
        yield "old_texts"
        connection.execute("DROP DATABASE old_texts WITH (FORCE)")


def test_names_that_json_has_to_escape_and_text_of_an_old_database_arrive_and_padded_keys_are_found(
    place, old_database, kafka
):
    sql = """SELECT barcode::char(5), convert_from(v, 'SQL_ASCII') AS "a""b\\" FROM (VALUES ('AB', '\\x61'::bytea),
        ('BC', '\\x70657263e8'), ('CD', '\\xc3a8')) AS given (barcode, v)"""
    _, run, topic = place(sql, connection={"database": old_database})
    seen = the_json(run("preview", "export", "--json"))
    assert any("the key ends with blanks in 3 of 3 rows" in text for text in seen["warnings"])
    done = run("run", "export")
    assert "3 read = 2 acknowledged + 1 rejected" in done.stdout
    assert '1 × a"b\\: the text is not valid UTF-8' in done.stdout
    messages = kafka.read(topic)
    assert [(m.key(), json.loads(m.value())["data"]) for m in messages] == [
        (b"AB   ", {"barcode": "AB   ", 'a"b\\': "a"}),
        (b"CD   ", {"barcode": "CD   ", 'a"b\\': "è"}),
    ]
    found = run("find", "AB")
    assert (found.returncode, "key 'AB   '" in found.stdout) == (0, True)
    assert run("find", "BC").returncode == 1


@pytest.mark.skipif(os.name == "nt", reason="RLIMIT_FSIZE")
def test_a_full_disk_while_spooling_fails_the_run_and_claims_nothing_that_cannot_be_proved(place, kafka, postgres):
    sql = "SELECT md5(g::text) AS barcode FROM generate_series(1, 200000) AS g"
    folder, run, _ = place(sql)
    limited = ["sh", "-c", 'trap "" XFSZ; ulimit -f 2000; exec "$@"', "sh", *command("run", "export", "--json")]
    done = subprocess.run(
        limited,
        cwd=folder,
        env=environment(postgres),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=90,
    )
    assert "Traceback" not in done.stdout + done.stderr
    verdict = json.loads(done.stdout)
    assert done.returncode == 1, done.stdout
    error = verdict["error"]
    assert error["class"] == "StorageFailed"
    assert "File too large" in error["text"]
    if "state" in verdict:
        assert verdict["state"] in ("failed", "partial")
        proved = the_json(run("metrics", "summary", "--json"))["total_sent"]
        assert verdict["acknowledged"] <= proved


@pytest.mark.parametrize("damage", sweep(["deleted", "garbage", "empty", "half", "middle"], always=["deleted", "half"]))
def test_a_metrics_file_that_is_damaged_is_made_again_and_no_send_is_lost(place, damage):
    folder, run, _ = place("SELECT g::text AS barcode FROM generate_series(1, 500) AS g")
    assert run("run", "export").returncode == 0
    file = folder / "metrics.duckdb"
    if damage == "deleted":
        file.unlink()
    elif damage == "half":
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    elif damage == "middle":
        data = bytearray(file.read_bytes())
        for at in range(20_000, len(data), 60_000):
            data[at : at + 512] = bytes(512)
        file.write_bytes(data)
        assert len(the_json(run("find", "17", "--json"))["sends"]) == 1
    else:
        file.write_bytes(b"" if damage == "empty" else b"no database at all " * 1000)
    done = run("run", "export", "--again")  # it may be the same second
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert the_json(run("metrics", "summary", "--json"))["total_sent"] == 1000
    assert len(the_json(run("find", "17", "--json"))["sends"]) == 2


@pytest.mark.parametrize("damage", sweep(["torn", "empty", "folder", "another program's"], always=["torn"]))
def test_a_damaged_segment_stops_no_command_and_is_reported(place, damage):
    folder, run, _ = place("SELECT g::text AS barcode FROM generate_series(1, 500) AS g")
    assert run("run", "export").returncode == 0
    assert run("run", "export", "--again").returncode == 0  # it may be the same second
    (folder / "metrics.duckdb").unlink()
    segment = min((folder / ".pstt" / "spool").glob("*.parquet"))
    data = segment.read_bytes()
    segment.unlink()
    if damage == "folder":
        segment.mkdir()
    else:
        segment.write_bytes({"torn": data[:99], "empty": b"", "another program's": b"PK" * 999}[damage])
    found = run("find", "17", "--json")
    assert (found.returncode, len(the_json(found)["sends"])) == (0, 1)
    assert f"segment {segment.name} of the spool cannot be read" in found.stderr
    for words in (
        ("metrics", "summary", "--json"),
        ("runs", "--json"),
        ("find", "17", "--json"),
        ("run", "export", "--again", "--json"),
    ):
        done = run(*words)
        assert (done.returncode, done.stderr) == (0, ""), words
    assert the_json(run("metrics", "summary", "--json"))["total_sent"] == 1000
    assert the_json(run("metrics", "rebuild", "--json"))["sends"] == 1000
    (told,) = [result for result in the_json(run("doctor", "--json"))["checks"] if result["subject"] == "spool"]
    assert (told["status"], segment.name in told["text"]) == ("warn", True)
    assert (folder / ".pstt" / "spool" / "damaged" / segment.name).exists()


COMMANDS = [
    ("run", "export", "--dry-run"),
    ("preview", "export"),
    ("check",),
    ("config",),
    ("runs",),
    ("show", "ffff"),
    ("find", "x"),
    ("rejects", "ffff"),
    ("replay", "ffff"),
    ("send", "t", "k", "v", "--cluster", "none"),
    ("sql", "queries/export.sql", "--db-type", "db2"),
    ("metrics", "summary"),
    ("metrics", "rebuild"),
    ("doctor",),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_takes_a_workspace_and_answers_in_one_json_document(place, tmp_path, postgres, words):
    folder, _, _ = place()
    done = run_command(*words, "--workspace", folder, "--json", env=environment(postgres), cwd=tmp_path)
    assert isinstance(json.loads(done.stdout), dict)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".pstt").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("runs", "--bogus"), "No such option: --bogus"),
        (("bogus",), "No such command 'bogus'."),
        (("run",), "Missing argument 'JOB'."),
        (("preview", "export", "--rows", "many"), "'--rows'"),
        (("run", "export", "--at", "tomorrow"), "--at tomorrow is not a time"),
        (("run", "export", "--param", "DATA"), "--param DATA is not NAME=VALUE"),
        (("show", "ffff"), "ffff"),
        (("check", "--workspace", "nowhere"), "there is no workspace nowhere"),
    ],
)
def test_an_error_of_any_kind_is_one_json_document(place, words, text):
    _, run, _ = place()
    done = run(*words, "--json")
    assert done.returncode == 2
    error = the_json(done)["error"]
    assert text in error["text"]
    assert error["remedy"]


def test_a_wrong_word_shows_people_the_usage(place):
    _, run, _ = place()
    done = run("runs", "--bogus")
    assert (done.returncode, done.stdout) == (2, "")
    assert "Usage: python -m core runs" in done.stderr
    assert "No such option: --bogus" in done.stderr


@pytest.mark.skipif(shutil.which("head") is None, reason="head")
@pytest.mark.parametrize("words", [("preview", "export", "--rows", "5000"), ("config",)])
def test_a_reader_that_goes_away_ends_the_output_without_a_complaint(place, postgres, words):
    folder, _, _ = place("SELECT g::text AS barcode FROM generate_series(1, 5000) AS g")
    with (
        subprocess.Popen(
            command(*words), cwd=folder, env=environment(postgres), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process,
        subprocess.Popen(["head", "-n", "1"], stdin=process.stdout, stdout=subprocess.PIPE) as head,
    ):
        process.stdout.close()
        first, _ = head.communicate(timeout=60)
        complaint = process.stderr.read()
        process.wait(60)
    assert first.strip()
    assert process.returncode == 0
    assert complaint == b""


@pytest.mark.skipif(os.name == "nt", reason="SIGINT")
def test_ctrl_c_before_a_run_has_begun_says_stopped(place, postgres):
    folder, _, _ = place(connection={"host": "10.255.255.1", "connect_timeout_s": 30})
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    with (
        ExitStack() as stack,
        subprocess.Popen(command("run", "export"), cwd=folder, env=environment(postgres), **pipes) as process,
    ):
        stack.callback(process.kill)
        heading = process.stdout.readline()
        assert heading.startswith("Export")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode in (1, 3)
    assert "Traceback" not in out + err
