"""The demo's past: every command over it gives a true answer, and its messages are on the topic."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from core.admin.demo import BARCODE, SLUG, make_demo
from core.admin.demo_history import ASKED_BY, simulated_past
from core.app import App
from core.kafka.record_reader import read_message
from core.model.run import Run
from core.records.outcomes import ScheduledOutcome
from core.run.cancellation import Stop
from core.run.verify_run import verify_run
from tests.rigs.workspace import environment, run_command

NOW = datetime(2026, 1, 17, 9, tzinfo=UTC)
DAYS, ROWS = 21, 80
LOG_OFF = partial(App.open, environ={}, log=False)


@dataclass(frozen=True)
class Demo:
    """A demo with its past, and the run of its newest day through the default client."""

    folder: Path
    outcomes: list[ScheduledOutcome]
    runs: list[Run]
    """Oldest first; the last one is of the newest day."""


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    folder = tmp_path_factory.mktemp("past") / "demo"
    make_demo(folder, ROWS, now=NOW, days=DAYS, open_workspace=LOG_OFF)
    with LOG_OFF(folder) as opened:
        plan = opened.plan(opened.job(SLUG), now=NOW, asked_by="test")
        opened.execute(plan, stop=Stop(), now=lambda: NOW)
        outcomes = simulated_past(opened, plan.job, plan.scheduled_at)
        return Demo(folder, outcomes, opened.ledger.history.newest(limit=100)[::-1])


@pytest.fixture
def opened(demo: Demo) -> Iterator[App]:
    with LOG_OFF(demo.folder) as app:
        yield app


def test_one_day_failed_one_is_missing_and_one_was_sent_in_two_runs(demo: Demo) -> None:
    newest_day = NOW.date()
    by_age = {(newest_day - outcome.day).days: outcome for outcome in demo.outcomes}
    assert sorted(by_age) == list(range(1, DAYS + 1))
    assert (by_age[5].state, by_age[12].state) == ("failed", "missing")
    failed = by_age[5].run
    assert failed is not None
    assert failed.error_class == "BrokerUnavailable"
    assert "as simulated by python -m core demo" in failed.error_text
    assert by_age[12].missing_reason == "it was never started: no runner worked"
    first, rest = [run for run in demo.runs if run.scheduled_at == by_age[19].scheduled_at]
    assert (first.state, rest.state, rest.kind, rest.of_run) == ("partial", "succeeded", "replay", first.run_id)
    assert by_age[19].state == "complete"
    assert rest.rows_read == rest.acknowledged == first.rows_read - first.acknowledged > 0
    counted = Counter(outcome.state for outcome in demo.outcomes)
    assert counted == {"complete": DAYS - 6, "complete_with_rejects": 4, "failed": 1, "missing": 1}


def test_every_run_balances_and_says_who_asked_for_it(demo: Demo) -> None:
    succeeded = [run for run in demo.runs if run.state == "succeeded"]
    assert all(run.rows_read == run.acknowledged + run.rejected for run in succeeded)
    assert {run.asked_by for run in demo.runs[:-1]} == {ASKED_BY}
    assert all(run.started_at < run.finished_at for run in demo.runs[:-1] if run.finished_at)
    assert all(timedelta() < run.started_at - run.scheduled_at < timedelta(hours=7) for run in demo.runs[:-1])


def test_the_metrics_have_each_day_with_what_its_runs_acknowledged(demo: Demo, opened: App) -> None:
    sent = Counter[str]()
    for run in demo.runs[:-1]:  # the newest one was sent now
        sent[run.started_at.date().isoformat()] += run.acknowledged
    with opened.metrics.reading() as db:
        found = db.execute(
            "SELECT strftime(sent_at, '%Y-%m-%d'), count(*) FROM sends "
            "WHERE status = 'acknowledged' AND run_id <> ? GROUP BY 1",
            [demo.runs[-1].run_id],
        ).fetchall()
    assert dict(found) == {day: count for day, count in sent.items() if count}


def test_the_documented_parcel_was_sent_on_three_days_and_is_on_the_topic_each_time(demo: Demo, opened: App) -> None:
    sends = opened.metrics.find(BARCODE)
    assert [send["run_id"] for send in sends] == [run.run_id for run in demo.runs[-3:]]
    cluster = opened.cluster()
    for send, event in zip(sends, ("ACC", "SMI", "RKE"), strict=True):
        found = read_message(cluster, send["topic"], send["partition"], send["offset"])
        assert (found.key, found.headers["message_id"]) == (BARCODE.encode(), send["message_id"])
        assert found.headers["run_id"] == send["run_id"]
        assert json.loads(found.value or b"")["data"]["causal"] == event
    assert len({send["partition"] for send in sends}) == 1  # one key, one partition, whoever sent it


@pytest.mark.parametrize("index", [0, 2, -1])
def test_every_message_of_a_run_is_on_the_topic_as_it_was_sent(demo: Demo, opened: App, index: int) -> None:
    run = demo.runs[index]
    found = verify_run(opened, run.run_id, should_stop=lambda: False, now=lambda: NOW)
    assert (found.answer, found.found, found.missing) == ("complete", run.acknowledged, 0)


def test_another_process_reads_the_same_messages(demo: Demo) -> None:
    words = ("verify", demo.runs[3].run_id, "--json", "--workspace", demo.folder)
    done = run_command(*words, env=environment(), cwd=demo.folder)
    assert (done.returncode, json.loads(done.stdout)["answer"]) == (0, "complete"), done.stderr


def test_offsets_of_the_newest_run_begin_where_the_past_ends(demo: Demo) -> None:
    ends: dict[int, int] = {}
    for run in demo.runs:
        for part in run.partitions:
            assert part.first_offset == ends.get(part.partition, 0)
            ends[part.partition] = part.last_offset + 1


def test_the_same_day_gives_the_same_past(tmp_path: Path, demo: Demo) -> None:
    make_demo(tmp_path, ROWS, now=NOW, days=DAYS, open_workspace=LOG_OFF)
    with LOG_OFF(tmp_path) as again:
        runs = again.ledger.history.newest(limit=100)[::-1]
    seen = [(run.started_at, run.state, run.rows_read, run.acknowledged, run.latency_p99_ms) for run in runs]
    assert seen == [
        (run.started_at, run.state, run.rows_read, run.acknowledged, run.latency_p99_ms) for run in demo.runs[:-1]
    ]


def test_a_demo_without_a_past_replaces_one_with_its_messages(tmp_path: Path) -> None:
    make_demo(tmp_path, 10, now=NOW, days=2, open_workspace=LOG_OFF)
    assert list((tmp_path / ".pstt" / "demo-topics").iterdir())
    make_demo(tmp_path, 10, now=NOW)
    assert [path.name for path in (tmp_path / ".pstt").iterdir()] == ["demo"]
