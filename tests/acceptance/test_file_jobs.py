"""Excel and CSV jobs as a user runs them: the verdict, the file, and what is seen when something is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from python_calamine import CalamineWorkbook

from bench.kills import start_runner, stop_runner
from core.files.writer import MOST_ROWS, open_sink
from core.model.job import Job
from core.model.source import Column
from core.records.ledger import Ledger
from core.workspace.paths import Workspace
from tests.rigs.sweeps import sweep
from tests.rigs.waiting import until
from tests.rigs.workspace import command, environment, make_workspace, run_command

SQL = """define DATA='2026-01-16' --Obbligatorio: the day
SELECT lpad(g::text, 12, '0') AS barcode, '&DATA'::date AS trkdate, (g / 4.0)::numeric(12,2) AS importo
FROM generate_series(1, {rows}) AS g ORDER BY g"""
FILE = {"export_format": "excel", "parameters": {"DATA": "{date-1}"}, "kafka_config": {"message_key_field": "barcode"}}


@pytest.fixture
def place(tmp_path, postgres):
    """A workspace without any cluster whose job `export` writes a file; returns the folder and a function that runs a command."""

    def make(rows: int = 1000, sql: str | None = None, **job):
        folder = make_workspace(
            tmp_path / "ws",
            postgres=postgres,
            bootstrap_servers="127.0.0.1:1",
            topic="never",
            sql=sql or SQL.replace("{rows}", str(rows)),
            job=FILE | job,
        )

        def run(*words, **env):
            return run_command(*words, env=environment(postgres, measured=True, **env), cwd=folder)

        return folder, run

    return make


def test_an_excel_job_writes_its_file_and_says_where(place):
    folder, run = place()
    done = run("run", "export", "--at", "2026-01-17T02:00")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1,000 read = 1,000 written + 0 rejected" in done.stdout
    assert "file       exports/export_pg_20260117.xlsx   1,000 rows" in done.stdout
    rows = CalamineWorkbook.from_path(str(folder / "exports" / "export_pg_20260117.xlsx")).get_sheet_by_index(0)
    assert [str(cell) for cell in rows.to_python()[1]] == ["000000000001", "2026-01-16", "0.25"]
    (verdict,) = json.loads(run("runs", "--json").stdout)["runs"]
    assert (verdict["acknowledged"], verdict["topic"], verdict["files"][0]["rows"]) == (1000, "", 1000)
    assert "exports/export_pg_20260117.xlsx" in run("show", verdict["run_id"]).stdout


def test_a_csv_job_writes_its_dialect_and_a_second_run_replaces_the_file(place):
    folder, run = place(3, export_format="csv", output="{job}-{DATA}.csv", csv={"separator": ",", "decimal": "."})
    for _ in range(2):
        assert run("run", "export", "--at", "2026-01-17T02:00").returncode == 0
    assert [path.name for path in (folder / "exports").iterdir()] == ["export-2026-01-16.csv"]
    text = (folder / "exports" / "export-2026-01-16.csv").read_text(encoding="utf-8-sig")
    assert text.splitlines()[:2] == ["barcode,trkdate,importo", "000000000001,2026-01-16,0.25"]


def test_looking_writes_nothing(place):
    folder, run = place()
    dry = run("run", "export", "--dry-run")
    assert "1,000 rows make 1,000 rows of a file and 0 rejects; nothing was written" in dry.stdout
    assert "rows shown for exports/export_pg_" in run("preview", "export", "--rows", "2").stdout
    assert not (folder / "exports").exists()


def test_parity_says_equal_and_then_what_differs(place, postgres):
    folder, run = place(2000)
    assert run("run", "export", "--at", "2026-01-17T02:00").returncode == 0
    file = folder / "exports" / "export_pg_20260117.xlsx"
    equal = run("parity", "export", file, "--at", "2026-01-17T02:00")
    assert equal.returncode == 0, equal.stdout + equal.stderr
    assert equal.stdout.startswith("✔ equal: 2,000 rows, 3 columns\n")
    other = run("parity", "export", file, "--at", "2026-01-18T02:00", "--csv", "differences.csv")
    assert other.returncode == 1
    assert other.stdout.startswith("✘ 2,000 of 2,000 rows differ\n")
    assert "rows differ, in 2,000 cells: trkdate 2,000" in other.stdout
    assert "trkdate: job '2026-01-17', file '2026-01-16'" in other.stdout
    assert len((folder / "differences.csv").read_text(encoding="utf-8-sig").splitlines()) == 2001


def test_a_path_out_of_exports_and_two_jobs_with_one_file_are_found_by_check(place):
    folder, run = place(output="../../etc/x.xlsx")
    job = folder / "queries" / "export.job.json"
    document = json.loads(job.read_text(encoding="utf-8"))
    job.write_text(json.dumps(document, indent=1), encoding="utf-8")
    done = run("check")
    assert done.returncode == 2
    place_of = job.read_text(encoding="utf-8").split('"output"')[0].count("\n") + 1
    assert f"export.job.json, line {place_of}, column 2: " in done.stdout
    assert "'../../etc/x.xlsx' is not a file below exports/" in done.stdout
    refused = run("run", "export")
    assert refused.returncode == 2
    assert "is not a file below exports/" in refused.stderr
    document = json.loads(job.read_text(encoding="utf-8")) | {"output": "same.xlsx"}
    job.write_text(json.dumps(document), encoding="utf-8")
    (folder / "queries" / "second.job.json").write_text(json.dumps(document | {"name": "Second"}), encoding="utf-8")
    done = run("check")
    assert done.returncode == 2
    assert 'job "Second" writes the same file as job "Export"' in done.stdout


def test_a_name_made_from_a_default_of_the_query_passes_the_check(place):
    sql = "define CANALE='SGU' --Opzionale: channel\nSELECT 1 AS n WHERE '&CANALE' <> ''"
    folder, run = place(sql=sql, parameters={}, output="{CANALE}-{environment}.xlsx", kafka_config={})
    done = run("check")
    assert done.returncode == 0, done.stdout
    assert run("run", "export").returncode == 0
    assert [path.name for path in (folder / "exports").iterdir()] == ["SGU-rig.xlsx"]


def test_a_file_job_needs_no_cluster_at_all(place):
    folder, run = place(3)
    file = folder / "connections.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    del document["kafka_connections"]
    file.write_text(json.dumps(document), encoding="utf-8")
    assert run("check").returncode == 0
    done = run("run", "export", "--json")
    assert done.returncode == 0, done.stdout
    verdict = json.loads(done.stdout)
    (made,) = verdict["files"]
    content = (folder / made["path"]).read_bytes()
    assert (made["rows"], made["size_bytes"], verdict["bytes"]) == (3, len(content), len(content))
    assert made["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_preview_shows_the_rows_of_the_file(place):
    _, run = place(3, export_format="csv")
    seen = run("preview", "export", "--at", "2026-01-17T02:00", "--rows", "2").stdout.splitlines()
    assert seen[2:5] == [
        "barcode       trkdate     importo",
        "000000000001  2026-01-16  0,25",
        "000000000002  2026-01-16  0,50",
    ]
    document = json.loads(run("preview", "export", "--at", "2026-01-17T02:00", "--json").stdout)
    assert document["file"] == "exports/export_pg_20260117.csv"
    assert (document["columns"][2], document["rows"][2]) == ("importo", ["000000000003", "2026-01-16", "0,75"])


def test_a_row_that_excel_cannot_hold_is_rejected_or_ends_the_run(place):
    sql = "SELECT g AS n, repeat('x', 32766 + g) AS t FROM generate_series(1, 3) AS g ORDER BY g"
    folder, run = place(sql=sql, parameters={}, kafka_config={})
    done = run("run", "export", "--json")
    assert done.returncode == 4, done.stdout
    verdict = json.loads(done.stdout)
    assert verdict["verdict"] == "complete_with_rejects"
    assert (verdict["rows_read"], verdict["acknowledged"], verdict["rejected"], verdict["balanced"]) == (3, 1, 2, True)
    told = json.loads(run("rejects", verdict["run_id"], "--json").stdout)["rejects"]
    assert [(r["row_number"], r["column"], r["reason"]) for r in told] == [
        (n, "t", "the text is longer than the 32,767 characters of a cell of Excel") for n in (2, 3)
    ]
    assert told[0]["row"] == {"n": "2", "t": "x" * 500 + "…"}
    job = folder / "queries" / "export.job.json"
    document = json.loads(job.read_text(encoding="utf-8")) | {"on_bad_row": "fail", "output": "second.xlsx"}
    job.write_text(json.dumps(document), encoding="utf-8")
    failed = run("run", "export")
    assert failed.returncode == 1
    assert "row 2, column t cannot be written: the text is longer" in failed.stdout
    assert "0 of 3 rows read are written" in failed.stdout
    assert "acknowledged" not in failed.stdout + failed.stderr
    assert not (folder / "exports" / "second.xlsx").exists()


def test_columns_without_a_name_or_with_one_name_are_written_as_before(place):
    sql = "SELECT a.*, b.*, 7 AS \"N\" FROM (SELECT 1 AS n) AS a, (SELECT 2 AS n, 'x' AS n_2) AS b"
    folder, run = place(sql=sql, parameters={}, kafka_config={}, export_format="csv", output="a.csv")
    done = run("run", "export")
    assert done.returncode == 0, done.stdout
    text = (folder / "exports" / "a.csv").read_text(encoding="utf-8-sig")
    assert text.splitlines() == ["n;n_2;n_2_2;N_3", "1;2;x;7"]
    assert run("preview", "export").stdout.splitlines()[2] == "n  n_2  n_2_2  N_3"


def test_no_rows_make_a_file_with_its_header(place):
    folder, run = place(0, export_format="csv")
    assert run("run", "export", "--at", "2026-01-17T02:00").returncode == 0
    file = folder / "exports" / "export_pg_20260117.csv"
    assert file.read_text(encoding="utf-8-sig").splitlines() == ["barcode;trkdate;importo"]


def test_a_replay_writes_the_file_anew_and_never_only_its_rejects(place):
    folder, run = place(5)
    verdict = json.loads(run("run", "export", "--at", "2026-01-17T02:00", "--json").stdout)
    file = folder / verdict["files"][0]["path"]
    file.unlink()
    again = json.loads(run("replay", verdict["run_id"], "--json").stdout)
    assert (again["of_run"], again["state"], again["files"][0]["path"]) == (
        verdict["run_id"],
        "succeeded",
        verdict["files"][0]["path"],
    )
    assert file.exists()
    for words in (["--rejects-only"], ["--key", "A"]):
        refused = run("replay", verdict["run_id"], *words)
        assert refused.returncode == 2
        assert "writes a file, which is whole or not at all" in refused.stderr
        assert f"leave {words[0]} out" in refused.stderr


LISTED = """define STATI='x' --Obbligatorio [list]: the states
define DAYS='{date}' --Opzionale [list]: the days [type=date]
define NOTE='x' --Opzionale: a text
SELECT v.s AS barcode, v.d::date AS trkdate, '&NOTE' AS note
FROM (VALUES ('N', '2026-01-16'), ('S', '2026-01-17'), ('a,b', '2026-01-17'), ('R', '2026-01-15')) AS v (s, d)
WHERE v.s IN ('&STATI') AND v.d::date IN (&DAYS) ORDER BY v.s"""
DAYS = {"DAYS": ["{date-1}", "{date}"], "NOTE": "{{x}}"}


@pytest.mark.parametrize("states", [["N", "a,b", "R"], 'N,"a,b",R'])
def test_a_job_with_lists_writes_their_rows_and_its_replay_the_same(place, states):
    folder, run = place(sql=LISTED, export_format="csv", parameters={"STATI": states, **DAYS})
    assert json.loads(run("check", "--json").stdout)["problems"] == []
    verdict = json.loads(run("run", "export", "--at", "2026-01-17T02:00", "--json").stdout)
    file = folder / verdict["files"][0]["path"]
    written = file.read_text(encoding="utf-8-sig")
    assert [line.split(";")[0] for line in written.splitlines()] == ["barcode", "N", "a,b"]
    parameters = {"STATI": 'N,"a,b",R', "DAYS": "2026-01-16,2026-01-17", "NOTE": "{x}"}
    assert verdict["parameters"] == parameters
    again = json.loads(run("replay", verdict["run_id"], "--json").stdout)
    assert (again["state"], again["parameters"]) == ("succeeded", parameters)
    assert file.read_text(encoding="utf-8-sig") == written


def test_a_list_is_given_on_the_command_line_and_sql_shows_its_binds(place):
    folder, run = place(sql=LISTED, export_format="csv", parameters={"STATI": "N", **DAYS})
    verdict = json.loads(run("run", "export", "--at", "2026-01-17T02:00", "--param", "STATI='S', N", "--json").stdout)
    assert (verdict["rows_read"], verdict["parameters"]["STATI"]) == (2, "S,N")
    shown = run("sql", folder / "queries" / "export.sql", "--db-type", "postgresql", "--param", 'stati=["S", 7]').stdout
    assert "v.s IN (%(L1_STATI)s, %(L2_STATI)s)" in shown
    assert "   bind L1_STATI = 'S'\n   bind L2_STATI = '7'" in shown
    refused = run("run", "export", "--param", "STATI=")
    assert refused.returncode == 2
    assert "parameter STATI cannot be '': the list is empty" in refused.stderr
    twice = run("run", "export", "--param", "STATI=S", "--param", "stati=N")
    assert (twice.returncode, "stati=A,B" in twice.stderr) == (2, True)
    beside = run("run", "export", "--param", "STATI=S,,N")
    assert (beside.returncode, "value 2 of the list is empty" in beside.stderr) == (2, True)


def test_check_and_run_name_the_mark_where_a_comma_stands_in_in(place):
    _, run = place(sql=LISTED.replace(" [list]: the states", ": the states"), parameters={"STATI": "N,S", **DAYS})
    (problem,) = json.loads(run("check", "--json").stdout)["problems"]
    assert (problem["severity"], "export.sql, line 1" in problem["where"]) == ("error", True)
    assert "parameter STATI stands in IN" in problem["text"]
    assert "--Obbligatorio [list]: " in problem["remedy"]
    refused = run("run", "export")
    assert (refused.returncode, "[list]" in refused.stderr) == (2, True)


def started(folder, postgres, *words):
    return subprocess.Popen(
        command("run", *words),
        env=environment(postgres),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    )


def wait_for(process, happened):
    def or_has_ended():
        found = happened()
        assert found or process.poll() is None, process.stdout.read()
        return found

    until(or_has_ended, every_s=0.02)


def wait_for_part(folder, process):
    wait_for(process, lambda: list((folder / "exports").glob(".*.part")))


def test_a_second_job_that_writes_the_same_file_at_once_fails_and_names_the_first(place, postgres):
    folder, run = place(
        sql="SELECT n FROM held ORDER BY n", parameters={}, kafka_config={}, output="same.csv", export_format="csv"
    )
    document = json.loads((folder / "queries" / "export.job.json").read_text(encoding="utf-8"))
    second = document | {"name": "Second", "query": "fast.sql", "output": "Same.csv"}
    (folder / "queries" / "second.job.json").write_text(json.dumps(second), encoding="utf-8")
    (folder / "queries" / "fast.sql").write_text("SELECT 1 AS n", encoding="utf-8")
    with postgres.connect() as db:
        db.execute("CREATE TABLE held AS SELECT generate_series(1, 4) AS n")
        db.execute("BEGIN")
        db.execute("LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
        first = started(folder, postgres, "export")
        wait_for(first, lambda: list((folder / ".pstt" / "locks").glob("*.holder")))
        second = run("run", "second", "--json")
        db.execute("ROLLBACK")
        assert first.wait(60) == 0, first.stdout.read()
        first.stdout.close()
        db.execute("DROP TABLE held")
    assert second.returncode == 1
    error = json.loads(second.stdout)["error"]
    assert error["text"].startswith('Same.csv is being written by job "Export", run ')
    assert not error["retriable"]
    assert [path.name for path in (folder / "exports").iterdir()] == ["same.csv"]
    assert (folder / "exports" / "same.csv").read_text(encoding="utf-8-sig").split() == ["n", "1", "2", "3", "4"]


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's; on Windows the runner asks through the ledger")
@pytest.mark.parametrize("form", sweep(["excel", "csv"], always=["csv"]))
def test_a_run_that_is_stopped_leaves_nothing_and_one_that_is_killed_nothing_under_the_final_name(
    place, postgres, form
):
    sql = "SELECT g AS n, pg_sleep(0.001) IS NULL AS slept FROM generate_series(1, 60000) AS g"
    folder, run = place(sql=sql, parameters={}, kafka_config={}, output="{job}.xlsx", export_format="excel")
    if form == "csv":
        folder, run = place(sql=sql, parameters={}, kafka_config={}, output="{job}.csv", export_format="csv")
    process = started(folder, postgres, "export")
    wait_for_part(folder, process)
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1, output
    assert "cancelled" in output
    assert list((folder / "exports").iterdir()) == []
    process = started(folder, postgres, "export")
    wait_for_part(folder, process)
    process.kill()
    process.communicate(timeout=30)
    assert all(path.name.startswith(".") for path in (folder / "exports").iterdir())
    (folder / "queries" / "export.sql").write_text("SELECT 1 AS n, true AS slept", encoding="utf-8")
    states = [row["state"] for row in json.loads(run("runs", "--json").stdout)["runs"]]
    assert states == ["interrupted", "cancelled"]
    assert run("run", "export").returncode == 0
    assert [path.stem for path in (folder / "exports").iterdir()] == ["export"]


def test_sql_that_fails_leaves_the_file_of_yesterday(place):
    folder, run = place(sql="SELECT 1 / (3 - g) AS n FROM generate_series(1, 5) AS g", parameters={}, kafka_config={})
    yesterday = folder / "exports" / "export_pg_20260117.xlsx"
    yesterday.parent.mkdir()
    yesterday.write_text("of yesterday", encoding="utf-8")
    done = run("run", "export", "--at", "2026-01-17T02:00")
    assert done.returncode == 1
    assert '✘ failed     the query failed on "pg": division by zero' in done.stdout
    assert "no file was written" in done.stdout
    assert list(yesterday.parent.iterdir()) == [yesterday]
    assert yesterday.read_text(encoding="utf-8") == "of yesterday"


@pytest.mark.skipif(os.name == "nt", reason="a limit of file sizes is POSIX's; the code is the same")
@pytest.mark.parametrize("form", ["excel", "csv"])
def test_a_full_disk_leaves_no_torn_file(place, postgres, form):
    folder, _ = place(100_000, export_format=form)
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000)); sys.argv = ['core', 'run', 'export'];"
        "runpy.run_module('core', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited],
        env=environment(postgres),
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "cannot be written" in done.stdout
    assert "make room" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert list((folder / "exports").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("form", ["excel", "csv"])
def test_memory_stays_flat_while_a_file_grows(place, postgres, form):
    """Peak memory of 20,000 and of 200,000 rows, each in a process of its own."""
    peaks = []
    for rows in (20_000, 200_000):
        folder, _ = place(rows, export_format=form)
        code = (
            "import runpy, sys, psutil, atexit; atexit.register(lambda: print('peak', "
            "__import__('resource').getrusage(__import__('resource').RUSAGE_SELF).ru_maxrss, file=sys.stderr));"
            "sys.argv = ['core', 'run', 'export']; runpy.run_module('core', run_name='__main__')"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment(postgres),
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        peaks.append(int(done.stderr.split("peak")[1].split()[0]) / 1000)
    assert peaks[1] < peaks[0] + 25, peaks


@pytest.mark.slow
def test_a_real_sheet_is_full_after_1_048_576_rows_and_none_is_lost(tmp_path: Path):
    job = Job("export", "Export", "e.sql", "pg", export_format="excel")
    columns = (Column("N", "integer", "int"),)
    with open_sink(tmp_path / "a.xlsx", tmp_path, columns, job) as (sink, finished):
        for start in range(0, MOST_ROWS, 2**15):
            numbers = range(start, start + 2**15)
            assert sink.write(numbers, [b'{"n":%d}' % n for n in numbers]) == []
    book = CalamineWorkbook.from_path(str(tmp_path / "a.xlsx"))
    first, second = (book.get_sheet_by_name(name) for name in book.sheet_names)
    assert finished[0].rows == MOST_ROWS
    assert (first.height, second.to_python()) == (MOST_ROWS, [["N"], [float(MOST_ROWS - 1)]])


def test_excel_and_csv_jobs_run_on_the_calendar_beside_a_job_to_kafka(tmp_path, postgres, kafka):
    topic = kafka.create_topic(partitions=1)
    folder = make_workspace(
        tmp_path / "ws",
        postgres=postgres,
        bootstrap_servers=kafka.plaintext,
        topic=topic,
        sql="SELECT lpad(g::text, 12, '0') AS barcode, g AS n FROM generate_series(1, 500) AS g",
        job={"scheduling_mode": "interval", "interval_s": 5},
    )
    document = json.loads((folder / "queries" / "export.job.json").read_text(encoding="utf-8"))
    for form, ending in (("excel", "xlsx"), ("csv", "csv")):
        job = document | {"name": form, "export_format": form, "output": "{query}_{connection}_{date:%Y%m%d}." + ending}
        (folder / "queries" / f"{form}.job.json").write_text(json.dumps(job), encoding="utf-8")
    runner = start_runner(folder, environment(postgres))
    try:

        def whole():
            with Ledger(Workspace(folder).ledger_file) as ledger:
                return {run.job: run for run in ledger.history.newest() if run.state == "succeeded"}

        wait_for(runner, lambda: len(whole()) == 3)
    finally:
        stop_runner(runner)
    runs = whole()
    assert {job: (run.rows_read, run.acknowledged, run.topic) for job, run in runs.items()} == {
        "export": (500, 500, topic),
        "excel": (500, 500, ""),
        "csv": (500, 500, ""),
    }
    for job in ("excel", "csv"):
        (made,) = runs[job].files
        content = (folder / made.path).read_bytes()
        assert made.path.startswith("exports/export_pg_")
        assert len(content) > 1000
