"""The notebooks run on a fresh demo workspace, draw their charts, and are stored without outputs."""

import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

import core
from core.admin.demo import BARCODE
from tests.rigs.workspace import ROOT, environment, run_command

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
KERNEL = {
    "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
    "display_name": "Python of the tests",
    "language": "python",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebooks") / "demo"
    done = run_command(
        "demo", "--rows", "2000", "--days", "0", "--workspace", folder, env=environment(), cwd=folder.parent
    )
    assert done.returncode in (0, 1), done.stderr
    return folder


@pytest.fixture(scope="module")
def altered(demo, tmp_path_factory):
    """The demo with its job renamed, so that two have sent to one topic, and a job whose run failed."""
    folder = tmp_path_factory.mktemp("altered") / "demo"
    shutil.copytree(demo, folder)
    queries = folder / "queries"
    job = json.loads((queries / "export-cdg-tracce.job.json").read_text(encoding="utf-8"))
    (queries / "export-cdg-tracce.job.json").unlink()
    (queries / "altro.job.json").write_text(json.dumps(job | {"name": "Altro"}), encoding="utf-8")
    (queries / "broken.sql").write_text("SELECT barcode FROM nowhere", encoding="utf-8")
    broken = {"name": "Broken", "query": "broken.sql", "parameters": {}}
    (queries / "broken.job.json").write_text(json.dumps(job | broken), encoding="utf-8")
    for slug, code in (("altro", 4), ("broken", 1)):
        done = run_command("run", slug, "--workspace", folder, env=environment(), cwd=folder.parent)
        assert done.returncode == code, done.stdout + done.stderr
    return folder


@pytest.fixture
def executed(demo, tmp_path, monkeypatch):
    """Runs a notebook with this Python; returns its cells with their outputs."""

    def run(file: Path, workspace: Path = demo) -> list[nbformat.NotebookNode]:
        spec = tmp_path / "kernels" / "python3"
        spec.mkdir(parents=True)
        (spec / "kernel.json").write_text(json.dumps(KERNEL), encoding="utf-8")
        monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
        monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
        monkeypatch.setenv("PSTT_WORKSPACE", str(workspace))
        for name in [n for n in os.environ if n.startswith("KAFKA_") or n in ("PSTT_BARCODE", "PSTT_JOB")]:
            monkeypatch.delenv(name)
        notebook = nbformat.read(file, as_version=4)
        kernels = Config()
        place = {"metadata": {"path": str(file.parent)}}
        with tempfile.TemporaryDirectory() as sockets:  # a socket's path is short, that of a test is not
            if os.name == "posix":  # a port that was free may be another process's by the time that the kernel binds it
                kernels.KernelManager.update({"transport": "ipc", "ip": f"{sockets}/kernel"})
            NotebookClient(notebook, config=kernels, timeout=120, resources=place).execute()
        return [cell for cell in notebook.cells if cell.cell_type == "code"]

    return run


def texts(cells) -> str:
    """Everything that a reader sees as text."""
    outputs = [output for cell in cells for output in cell.outputs]
    return "\n".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)


def charts(cells) -> list[dict]:
    mime = "application/vnd.plotly.v1+json"
    return [output.data[mime] for cell in cells for output in cell.outputs if mime in output.get("data", {})]


def drawn(chart) -> bool:
    return any(trace.get("x") or trace.get("y") for trace in chart["data"])


def named(start: str) -> Path:
    (file,) = [file for file in NOTEBOOKS if file.name.startswith(start)]
    return file


def test_first_look_shows_days_latencies_and_slow_runs(executed):
    cells = executed(named("01"))
    assert len(charts(cells)) == 3
    assert all(drawn(chart) for chart in charts(cells))
    assert "Export CDG Tracce to Kafka" in texts(cells)


def test_the_latency_of_two_jobs_of_one_topic_is_one_line_with_one_point_an_hour(executed, altered):
    (_, lines, _) = charts(executed(named("01"), altered))
    points = [list(trace["x"]) for trace in lines["data"]]
    assert len(points) == 3
    assert all(xs and len(xs) == len(set(xs)) for xs in points)


def test_runs_that_failed_are_among_those_that_are_not_balanced(executed, altered):
    with core.open_metrics(altered) as db:
        ((run_id,),) = db.sql("SELECT run_id FROM runs WHERE state = 'failed'").fetchall()
    assert run_id in texts(executed(named("02"), altered))


def test_a_query_is_tried_of_whichever_job_there_is(executed, altered):
    told = texts(executed(named("03"), altered))
    assert "Altro" in told
    assert "sent\n◐ complete with rejects" in told


@pytest.mark.parametrize("kind", [{"envelope": "none"}, {"envelope": "connect"}, {"null_value_when": "OPERATOR = 848"}])
def test_a_query_is_tried_whatever_its_messages_look_like(executed, demo, tmp_path, kind):
    folder = tmp_path / "demo"
    shutil.copytree(demo, folder)
    (file,) = (folder / "queries").glob("*.job.json")
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | kind), encoding="utf-8")
    told = texts(executed(named("03"), folder))
    assert "sent\n◐ complete with rejects" in told
    assert "1 × DATE_OTHER: no such date" in told


def test_a_workspace_without_a_job_for_kafka_says_so(executed, tmp_path):
    with pytest.raises(CellExecutionError, match="sends to Kafka: python -m core new job makes one"):
        executed(named("03"), tmp_path / "empty")


def test_the_day_of_a_verdict_is_that_of_the_jobs_time_zone(executed, altered):
    (file,) = (altered / "queries").glob("altro.job.json")
    job = json.loads(file.read_text(encoding="utf-8")) | {"name": "Kolkata", "timezone": "Asia/Kolkata"}
    (altered / "queries" / "kolkata.job.json").write_text(json.dumps(job), encoding="utf-8")
    command = ("run", "kolkata", "--at", "2026-01-17T00:15", "--param", "DATA=2026-01-16", "--workspace", altered)
    assert run_command(*command, env=environment(), cwd=altered.parent).returncode == 0
    chart = charts(executed(named("02"), altered))[0]
    days = {str(day)[:10] for trace in chart["data"] for day in trace["x"]}
    assert "2026-01-17" in days
    assert "2026-01-16" not in days


def test_job_health_shows_verdicts_rejects_drift_and_expectations(executed):
    cells = executed(named("02"))
    assert len(charts(cells)) == 2
    assert all(drawn(chart) for chart in charts(cells))
    told = texts(cells)
    assert "export-cdg-tracce" in told
    assert "not known yet" in told
    assert re.search(r"export-cdg-tracce\s+16\s+none", told)


def test_try_a_query_previews_and_sends(executed, demo):
    cells = executed(named("03"))
    told = texts(cells)
    assert "sent\n◐ complete with rejects" in told
    assert '"barcode": ' in told
    assert len(charts(cells)) == 2
    runs = run_command("runs", "--json", "--workspace", demo, env=environment(), cwd=demo)
    assert "notebook" in {run["asked_by"] for run in json.loads(runs.stdout)["runs"]}


def test_where_is_my_barcode_finds_the_one_of_the_demo(executed):
    cells = executed(named("04"))
    assert "acknowledged" in texts(cells)
    assert "pstt-traces" in texts(cells)
    assert "never sent" not in texts(cells)
    (chart,) = charts(cells)
    assert drawn(chart)
    assert BARCODE in chart["layout"]["title"]["text"]
    assert chart["layout"]["shapes"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_a_notebook_is_kept_without_outputs(file):
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert {cell.execution_count for cell in code} == {None}
    assert str(Path.home()) not in file.read_text(encoding="utf-8")


def test_there_are_the_four_notebooks():
    assert [file.stem for file in NOTEBOOKS] == [
        "01_first_look",
        "02_job_health",
        "03_try_a_query",
        "04_where_is_my_barcode",
    ]
