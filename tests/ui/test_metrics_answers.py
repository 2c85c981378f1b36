"""Page and REST have one cache of what they compute from the metrics."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from core.errors import StorageFailed
from core.records.metrics import Metrics
from core.records.metrics_queries import MetricsQueries, SendFilter
from core.workspace.paths import Workspace
from tests.rigs.waiting import until
from tests.ui.rest import add_user, bearer, client, token
from tests.unit.test_metrics_queries import spooled
from ui import data, metrics_answers
from ui.api import kafka
from ui.data import overview, preparing
from ui.data.overview import PERIODS, frequent_errors, overview_figures
from ui.metrics_answers import MAX_ANSWERS, metrics_answer, metrics_version, one_opening

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
SUMMARY = "/api/kafka/metrics/summary"


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Workspace:
    """A workspace with three sends, at noon."""
    place = Workspace(tmp_path / "ws")
    place.queries_dir.mkdir(parents=True)
    spooled(place, "r1", [NOON] * 3)
    monkeypatch.setenv("PSTT_WORKSPACE", str(place.root))
    monkeypatch.setenv("PSTT_TIMEZONE", "UTC")
    monkeypatch.setattr(data, "now", lambda: NOON)
    monkeypatch.setattr(kafka, "now", lambda: NOON)
    check_again()
    metrics_answers.clear_answers()
    return place


@pytest.fixture
def openings(monkeypatch) -> list[str]:
    """One entry for each time that metrics are opened for a computation."""
    opened: list[str] = []
    figures = Metrics.figures
    monkeypatch.setattr(Metrics, "figures", lambda metrics, zone: opened.append(zone) or figures(metrics, zone))
    return opened


def check_again() -> None:
    """As after some seconds: the next caller asks for the version of the metrics."""
    for cache in (overview._versions, kafka._summary, kafka._everything):
        cache.clear()


def sent_today() -> tuple[int, int]:
    """Messages of today, on the page and in REST."""
    check_again()
    on_page = overview_figures(SendFilter(), 7).summary["today"]["messages"]
    return on_page, client().get(SUMMARY).json()["today"]["messages"]


def test_page_and_rest_compute_again_when_something_is_new_and_only_then(workspace, openings):
    assert sent_today() == (3, 3)
    computed = len(openings)
    assert sent_today() == (3, 3)
    assert client().get("/api/kafka/metrics").json()["total_sent"] == 3  # the same question as the summary
    assert len(openings) == computed > 0
    spooled(workspace, "r2", [NOON] * 2)
    assert sent_today() == (5, 5)
    assert len(openings) == 2 * computed


def test_a_change_on_the_page_clears_the_answers_of_both(workspace, openings):
    sent_today()
    computed = len(openings)
    data.clear_caches()
    sent_today()
    assert len(openings) == 2 * computed


def test_the_day_of_an_answer_is_that_of_the_question(workspace):
    version = metrics_version(workspace.root)
    midnight = datetime(2026, 3, 3, tzinfo=UTC)
    found = [
        metrics_answer(version, midnight + timedelta(seconds=s), MetricsQueries.summary, SendFilter()) for s in (-1, 0)
    ]
    assert [summary["today"]["messages"] for summary in found] == [3, 0]


def test_a_computed_answer_is_only_for_who_may_read(workspace):
    assert client().get(SUMMARY).json()["today"]["messages"] == 3
    add_user(workspace.root, "anna", "viewer")
    asked = client()
    assert asked.get(SUMMARY).status_code == 401
    assert asked.get(SUMMARY, headers=bearer("wrong")).status_code == 401
    answer = asked.get(SUMMARY, headers=bearer(token(workspace.root, "read")))
    assert answer.json()["today"]["messages"] == 3


@pytest.mark.slow
def test_however_many_filters_are_asked_for_few_answers_are_kept(workspace):
    version = metrics_version(workspace.root)
    for number in range(MAX_ANSWERS + 20):
        metrics_answer(version, NOON, _job_asked_for, SendFilter(job=f"job {number}"))
    assert len(metrics_answers._answers._answers) == len(metrics_answers._answers._computing) == MAX_ANSWERS


def _job_asked_for(_figures: MetricsQueries, _at: datetime, send_filter: SendFilter) -> str | None:
    return send_filter.job


def test_all_figures_of_the_overview_come_from_one_opening(workspace, openings):
    overview_figures(SendFilter(), 7)
    assert openings == ["UTC"]
    overview_figures(SendFilter(), 30)  # only what belongs to the other period
    assert openings == ["UTC"] * 2


def test_while_a_user_looks_at_one_period_the_others_are_found_once_for_all_sessions(workspace, openings, monkeypatch):
    computing = threading.Lock()
    monkeypatch.setattr(preparing, "_at_work", computing)
    monkeypatch.setattr(preparing, "AFTER_S", 0.2)
    for _ in range(3):
        preparing.prepare_in_thread(workspace.root, SendFilter())
    until(lambda: not computing.locked())
    computed = len(openings)
    assert computed == 2 * len(PERIODS)  # figures, errors
    for days in PERIODS:
        assert sum(row["messages"] for row in overview_figures(SendFilter(), days).days) == 3
        assert frequent_errors(SendFilter(), days) == []
    assert len(openings) == computed
    overview_figures(SendFilter(), 8)
    assert len(openings) == computed + 1


def test_a_workspace_that_cannot_be_read_is_no_error_of_the_thread_that_prepares(tmp_path, monkeypatch):
    said: list[str] = []
    computing = threading.Lock()
    monkeypatch.setattr(preparing, "_at_work", computing)
    monkeypatch.setattr(preparing, "AFTER_S", 0)
    monkeypatch.setattr(preparing.logger, "opt", lambda **_: said.append("an error was logged"))
    preparing.prepare_in_thread(tmp_path / "gone", SendFilter())
    until(lambda: not computing.locked())
    assert (said, list(tmp_path.iterdir())) == ([], [])


def test_an_error_within_one_opening_is_told_as_without_and_the_next_answer_opens_again(workspace, openings):
    version = metrics_version(workspace.root)

    def broken(figures, at):
        figures._db.execute("SELECT * FROM no_such_table")

    def both() -> None:
        with one_opening(version):
            metrics_answer(version, NOON, _today)
            metrics_answer(version, NOON, broken)

    with pytest.raises(StorageFailed, match="the sends cannot be read"):
        both()
    metrics_answers.clear_answers()
    assert metrics_answer(version, NOON, _today) == 3
    assert len(openings) == 2


def _today(figures: MetricsQueries, at: datetime) -> int:
    return int(figures.summary(at, SendFilter())["today"]["messages"])
