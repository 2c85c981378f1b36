"""Logs: JSON lines in files, readable lines on the terminal; a run continues if its log cannot be written."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from core.admin.logs import start_logging
from tests.rigs.workspace import environment, run_command


@pytest.fixture(autouse=True)
def quiet():
    """Ends every log that a test has started."""
    root = logging.getLogger()
    before = (root.level, root.handlers[:])
    yield
    logger.remove()
    logger.configure(extra={})
    root.handlers[:] = before[1]
    root.setLevel(before[0])


def entries(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("pstt-*.log")
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def test_each_line_is_one_json_object_with_job_run_and_batch(tmp_path):
    assert start_logging(tmp_path, level="INFO") is None
    logger.info("before {} a run", "any")
    with logger.contextualize(job="export", run="7f3c2"):
        logger.bind(batch=4).warning('line\nbreaks, "quotes", {braces} <tags> and città')
    first, second = entries(tmp_path)
    assert (first["message"], first["job"], first["run"], first["batch"]) == ("before any a run", "", "", "")
    assert second["message"] == 'line\nbreaks, "quotes", {braces} <tags> and città'
    assert (second["job"], second["run"], second["batch"], second["level"]) == ("export", "7f3c2", 4, "WARNING")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}[+-]\d\d:\d\d", second["time"])


@pytest.mark.parametrize(
    ("level", "kept"),
    [("DEBUG", ["debug", "info", "warning", "error"]), ("INFO", ["info", "warning", "error"]), ("ERROR", ["error"])],
)
def test_the_level_decides_what_is_kept(tmp_path, level, kept):
    start_logging(tmp_path, level=level)
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)(name)
    assert [entry["message"] for entry in entries(tmp_path)] == kept


def test_people_see_warnings_on_the_terminal_and_nothing_below(tmp_path, capsys):
    start_logging(tmp_path, level="DEBUG")
    logger.info("for the file")
    with logger.contextualize(run="7f3c2"):
        logger.warning("for people")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"WARNING \d\d:\d\d:\d\d run 7f3c2 for people\n", err)


def test_what_libraries_log_goes_there_too(tmp_path):
    start_logging(tmp_path, level="DEBUG")
    logging.getLogger("pstt.kafka").debug("of a %s", "client")
    logging.getLogger("kafka").info("chatter")
    logging.getLogger("kafka").warning("of kafka-python-ng")
    assert [entry["message"] for entry in entries(tmp_path)] == ["of a client", "of kafka-python-ng"]


def test_an_exception_is_one_line_without_local_variables(tmp_path):
    start_logging(tmp_path, level="DEBUG")

    def fails(secret: str) -> None:
        raise ValueError("told")

    try:
        fails("hunter2")
    except ValueError as error:
        logger.opt(exception=error).error("unexpected")
    (entry,) = entries(tmp_path)
    assert entry["exception"] == "ValueError('told')"
    assert "hunter2" not in json.dumps(entry)


def test_each_day_has_a_file_of_its_own(tmp_path):
    start_logging(tmp_path, level="INFO")
    for day, text in ((17, "evening"), (18, "morning"), (18, "noon")):
        of_that_day = logger.patch(lambda record, day=day: record.update(time=record["time"].replace(2026, 1, day)))
        of_that_day.info("{}", text)
    told = [(tmp_path / f"pstt-2026-01-{day}.log").read_text(encoding="utf-8").splitlines() for day in (17, 18)]
    assert [[json.loads(line)["message"] for line in lines] for lines in told] == [["evening"], ["morning", "noon"]]


def test_a_file_older_than_the_retention_is_removed_and_what_others_keep_there_is_not(tmp_path):
    names = {"pstt-2020-01-01.log": 31, "pstt-2020-01-02.log": 29, "runner.err": 400}
    for name, days in names.items():
        (tmp_path / name).write_text("{}\n", encoding="utf-8")
        os.utime(tmp_path / name, (time.time() - days * 86_400,) * 2)
    start_logging(tmp_path, level="INFO", retention_days=30)
    assert {name for name in names if (tmp_path / name).exists()} == {"pstt-2020-01-02.log", "runner.err"}


def test_a_folder_that_cannot_be_made_is_a_reason_and_the_terminal_still_has_the_log(tmp_path, capsys):
    (tmp_path / "logs").write_text("a file stands there", encoding="utf-8")
    problem = start_logging(tmp_path / "logs", level="INFO")
    assert problem is not None
    assert problem.startswith(f"no log file in {tmp_path / 'logs'}: ")
    logger.warning("still said")
    assert "still said" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="RLIMIT_FSIZE")
def test_a_disk_that_is_full_takes_the_log_away_with_one_line_and_no_traceback(tmp_path):
    code = (
        "import resource, signal, sys; from pathlib import Path; from loguru import logger\n"
        "from core.admin.logs import start_logging\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "start_logging(Path(sys.argv[1]), level='INFO')\n"
        "for n in range(100): logger.info('{} {}', n, 'x' * 200)\n"
        "print('done')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n")
    assert done.stderr == f"! the log in {tmp_path} cannot be written: File too large\n"


def test_two_processes_write_whole_lines_into_one_file(tmp_path):
    code = (
        "import sys; from pathlib import Path; from loguru import logger; from core.admin.logs import start_logging\n"
        "start_logging(Path(sys.argv[1]), level='INFO')\n"
        "for n in range(500): logger.info('{} {} {}', sys.argv[2], n, 'x' * 200)"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], env=environment()) for name in ("a", "b")
    ]
    assert [process.wait(60) for process in running] == [0, 0]
    seen = [entry["message"].split()[:2] for entry in entries(tmp_path)]
    assert sorted(seen) == sorted([name, str(n)] for name in ("a", "b") for n in range(500))


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A workspace that needs no server."""
    folder = tmp_path_factory.mktemp("logged")
    done = run_command("demo", "--rows", "300", "--days", "0", env=environment(), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "demo"


def run_logged(demo: Path, **settings: str) -> list[dict[str, Any]]:
    """Runs the demo's job; returns the log of that run."""
    for file in (demo / "logs").glob("pstt-*.log"):
        file.unlink()
    done = run_command("run", "export-cdg-tracce", "--again", "--json", env=environment(**settings), cwd=demo)
    assert done.returncode == 4, done.stderr
    return entries(demo / "logs")


def barcode(demo: Path, done: list[dict[str, Any]]) -> str:
    """The key of a row that was rejected."""
    run_id = next(entry["run"] for entry in done if entry["run"])
    listed = run_command("rejects", run_id, "--json", env=environment(), cwd=demo)
    return next(reject["key"] for reject in json.loads(listed.stdout)["rejects"] if reject["key"])


def test_inside_a_run_every_record_names_job_and_run_and_a_batch_its_number(demo):
    log = run_logged(demo, KAFKA_LOG_LEVEL="DEBUG", PSTT_FETCH_ROWS="100")
    batches = [entry for entry in log if re.match(r"batch \d+: \d+ of \d+ acknowledged", entry["message"])]
    assert [entry["batch"] for entry in batches] == list(range(1, len(batches) + 1))
    assert len(batches) >= 3
    (run_id,) = {entry["run"] for entry in batches}
    assert run_id
    assert {entry["job"] for entry in batches} == {"export-cdg-tracce"}


def test_without_log_payload_no_value_of_a_row_is_in_the_log_even_at_debug(demo):
    log = run_logged(demo, KAFKA_LOG_LEVEL="DEBUG")
    assert barcode(demo, log) not in json.dumps(log)


def test_with_log_payload_rejected_rows_are_in_the_log_at_debug_and_only_there(demo):
    log = run_logged(demo, KAFKA_LOG_LEVEL="DEBUG", KAFKA_LOG_PAYLOAD="true")
    key = barcode(demo, log)
    assert {entry["level"] for entry in log if key in entry["message"]} == {"DEBUG"}
    quiet = run_logged(demo, KAFKA_LOG_LEVEL="INFO", KAFKA_LOG_PAYLOAD="true")
    assert key not in json.dumps(quiet)


def test_a_run_goes_on_where_no_log_can_be_written(demo):
    folder = demo / "logs"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("a file stands there", encoding="utf-8")
    try:
        done = run_command("run", "export-cdg-tracce", "--again", env=environment(), cwd=demo)
    finally:
        folder.unlink()
    assert done.returncode == 4, done.stderr
    assert "no log file in" in done.stderr
    assert "◐ complete with rejects" in done.stdout
