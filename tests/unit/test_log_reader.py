"""The newest lines of the log."""

from datetime import UTC, datetime, timedelta

import pytest
from loguru import logger

from core.admin import log_reader
from core.admin.log_reader import newest_lines
from core.admin.logs import start_logging


@pytest.fixture
def folder(tmp_path):
    assert start_logging(tmp_path / "logs", level="DEBUG") is None
    yield tmp_path / "logs"
    logger.remove()


def test_lines_of_one_run_come_in_order_and_others_do_not(folder):
    with logger.contextualize(job="export", run="aaa111"):
        for number in range(5):
            logger.info("batch {}", number)
    with logger.contextualize(job="export", run="bbb222"):
        logger.info("another run, not aaa111")
    lines = newest_lines(folder, run="aaa111")
    assert [line.message for line in lines] == [f"batch {number}" for number in range(5)]
    assert {(line.job, line.run, line.level) for line in lines} == {("export", "aaa111", "INFO")}


def test_the_newest_lines_are_kept_when_there_are_more(folder):
    for number in range(30):
        logger.info("line {}", number)
    assert [line.message for line in newest_lines(folder, limit=2)] == ["line 28", "line 29"]


def test_lines_longer_than_a_block_and_across_blocks_are_whole(folder, monkeypatch):
    monkeypatch.setattr(log_reader, "BLOCK_BYTES", 64)
    texts = ["è" * 300, "short", "x" * 63, "y"]
    for text in texts:
        logger.info("{}", text)
    assert [line.message for line in newest_lines(folder)] == texts


def test_lower_levels_and_earlier_lines_are_left_out(folder):
    logger.debug("detail")
    logger.warning("beware")
    assert [line.message for line in newest_lines(folder, level="WARNING")] == ["beware"]
    assert newest_lines(folder, since=datetime.now(UTC) + timedelta(hours=1)) == []


def test_earlier_days_are_read_too(folder):
    logger.info("old")
    logger.remove()
    (file,) = folder.glob("pstt-*.log")
    file.rename(folder / "pstt-2026-01-17.log")
    start_logging(folder, level="DEBUG")
    logger.info("new")
    assert [line.message for line in newest_lines(folder)] == ["old", "new"]


def test_a_half_line_and_text_of_others_are_passed_over(folder):
    logger.info("whole")
    (file,) = folder.glob("pstt-*.log")
    with file.open("a", encoding="utf-8") as stream:
        stream.write('not ours\n[1, 2]\n{"time": "2026-01-17T02:00:00+00:00", "lev')
    assert [line.message for line in newest_lines(folder)] == ["whole"]


def test_without_a_log_there_are_no_lines(tmp_path):
    assert newest_lines(tmp_path / "nowhere") == []
