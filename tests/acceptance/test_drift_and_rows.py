"""Changed columns and unexpected numbers of rows, in the program as a process over a real database and broker."""

import json

import pytest

from tests.rigs.workspace import environment, make_workspace, run_command


@pytest.fixture
def place(tmp_path, postgres, kafka):
    """A workspace over a table of its own, a function that runs a command there, one that runs SQL, and the topic."""
    topic = kafka.create_topic(partitions=2)
    name = f"drift_{topic.replace('-', '_')}"

    def sql(text: str) -> None:
        with postgres.connect() as connection:
            connection.execute(text.format(name=name))

    sql("CREATE TABLE {name} AS SELECT g::text AS barcode, g AS operator FROM generate_series(1, 20) g")

    def make(query="select * from {name}", **job):
        folder = make_workspace(
            tmp_path / "ws",
            postgres=postgres,
            bootstrap_servers=kafka.plaintext,
            topic=topic,
            sql=query.format(name=name),
            job=job,
        )
        return lambda *words: run_command(*words, env=environment(postgres), cwd=folder)

    yield make, sql, lambda: len(kafka.read(topic))
    sql("DROP TABLE IF EXISTS {name}")


def test_a_changed_column_stops_the_run_before_the_first_message_until_it_is_accepted(place):
    make, sql, count = place
    run = make()
    assert run("run", "export").returncode == 0
    assert count() == 20
    sql("ALTER TABLE {name} ADD COLUMN canale varchar(3), ALTER COLUMN operator TYPE text")
    stopped = run("run", "export", "--again")
    assert stopped.returncode == 1
    assert "✘ failed" in stopped.stdout
    assert "added: canale (varchar" in stopped.stdout
    assert "changed: operator (int4 → text)" in stopped.stdout
    assert "python -m core accept-columns export" in stopped.stdout
    assert count() == 20
    accepted = run("accept-columns", "export")
    assert (accepted.returncode, accepted.stdout[0]) == (0, "✔")
    assert run("run", "export", "--again").returncode == 0
    assert count() == 40
    again = run("accept-columns", "export")
    assert again.returncode == 2
    assert "no changed columns to accept" in again.stderr


def test_rows_that_are_too_few_arrive_and_the_run_is_not_green(place):
    make, _sql, count = place
    run = make(expect={"rows": {"min": 15_000, "max": 30_000}})
    done = run("run", "export")
    assert done.returncode == 1
    assert "◐ partial" in done.stdout
    assert "20 of 20 rows read are acknowledged: 20 rows where 15,000 to 30,000 are expected" in done.stdout
    assert count() == 20
    document = json.loads(run("runs", "--json").stdout)["runs"][0]
    assert document["state"] == "partial"
    assert (document["verdict"], document["balanced"]) == ("partial", False)
    assert document["error"]["class"] == "ExpectationFailed"
    assert not document["error"]["retriable"]


def test_a_run_with_parameters_of_its_own_is_not_judged(place):
    make, _sql, _count = place
    query = "define MOST='20' --Opzionale: rows\nselect * from {name} where operator <= &MOST"
    run = make(query, expect={"rows": {"min": 15_000}})
    assert run("run", "export").returncode == 1
    own = run("run", "export", "--param", "MOST=7")
    assert own.returncode == 0
    assert "7 read = 7 acknowledged + 0 rejected" in own.stdout


def test_exactly_once_rows_that_are_too_few_are_visible_and_told_as_such(place):
    make, _sql, count = place
    run = make(expect={"rows": {"min": 15_000, "max": 30_000}}, delivery="exactly_once")
    done = run("run", "export", "--at", "2026-01-17T02:00")
    assert done.returncode == 1
    assert "20 of 20 rows read are acknowledged: 20 rows where 15,000 to 30,000 are expected" in done.stdout
    again = run("run", "export", "--at", "2026-01-17T02:00")
    assert again.returncode == 1
    assert "20 rows where 15,000 to 30,000 are expected" in again.stdout
    assert count() == 20


def test_no_rows_where_there_always_were_some_is_a_failure(place):
    make, sql, count = place
    run = make(scheduling_mode="cron", cron="0 2 * * 2")
    sql("INSERT INTO {name} SELECT 'x', g FROM generate_series(1, 100) g")
    for day in ("2026-01-06", "2026-01-13", "2026-01-20", "2026-01-27"):
        sql("DELETE FROM {name} WHERE operator = (SELECT max(operator) FROM {name} WHERE barcode = 'x')")
        assert run("run", "export", "--at", f"{day}T02:00").returncode == 0
    sent = count()
    sql("DELETE FROM {name}")
    done = run("run", "export", "--at", "2026-02-03T02:00")
    assert done.returncode == 1
    assert "✘ failed" in done.stdout
    assert "0 rows where" in done.stdout
    assert "the last 4 runs of Tuesday 02:00 brought 116 to 119" in done.stdout
    assert count() == sent
