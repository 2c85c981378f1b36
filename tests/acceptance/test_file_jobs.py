"""Excel and CSV jobs as a person runs them: the verdict, the file, and what is seen when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from python_calamine import CalamineWorkbook

from tests.rigs.workspace import ROOT, environment, make_workspace, run_command

SQL = """define DATA='2026-01-16' --Obbligatorio: the day
SELECT lpad(g::text, 12, '0') AS barcode, '&DATA'::date AS trkdate, (g / 4.0)::numeric(12,2) AS importo
FROM generate_series(1, {rows}) AS g ORDER BY g"""
FILE = {"export_format": "excel", "parameters": {"DATA": "{date-1}"}, "kafka_config": {"message_key_field": "barcode"}}


@pytest.fixture
def place(tmp_path, postgres):
    """A workspace without any cluster whose job `export` writes a file; gives the folder and a function that runs a command."""

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
            return run_command(*words, env=environment(postgres, **env), cwd=folder)

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
    done = run("check")
    assert done.returncode == 2
    assert "is not a file below exports/" in done.stdout
    job = folder / "queries" / "export.job.json"
    document = json.loads(job.read_text(encoding="utf-8")) | {"output": "same.xlsx"}
    job.write_text(json.dumps(document), encoding="utf-8")
    (folder / "queries" / "second.job.json").write_text(json.dumps(document | {"name": "Second"}), encoding="utf-8")
    done = run("check")
    assert done.returncode == 2
    assert 'job "Second" writes the same file as job "Export"' in done.stdout


def test_sql_that_fails_leaves_the_file_of_yesterday(place):
    folder, run = place(sql="SELECT 1 / (3 - g) AS n FROM generate_series(1, 5) AS g", parameters={}, kafka_config={})
    yesterday = folder / "exports" / "export_pg_20260117.xlsx"
    yesterday.parent.mkdir()
    yesterday.write_text("of yesterday", encoding="utf-8")
    done = run("run", "export", "--at", "2026-01-17T02:00")
    assert done.returncode == 1
    assert "division by zero" in done.stdout
    assert "no file was written" in done.stdout
    assert list(yesterday.parent.iterdir()) == [yesterday]
    assert yesterday.read_text(encoding="utf-8") == "of yesterday"


@pytest.mark.skipif(os.name == "nt", reason="a limit of file sizes is POSIX's; the code is the same")
@pytest.mark.parametrize("form", ["excel", "csv"])
def test_a_full_disk_leaves_no_torn_file(place, postgres, form):
    folder, _ = place(60_000, export_format=form)
    limited = (
        "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)); sys.argv = ['core', 'run', 'export'];"
        "runpy.run_module('core', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited],
        env=environment(postgres) | {"PYTHONPATH": str(ROOT)},
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
            env=environment(postgres) | {"PYTHONPATH": str(ROOT)},
            cwd=folder,
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        peaks.append(int(done.stderr.split("peak")[1].split()[0]) / 1000)
    assert peaks[1] < peaks[0] + 25, peaks
