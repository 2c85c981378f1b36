"""What the rules would have fired: the same as they did fire, and something else with other numbers."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from core.errors import ConfigError
from core.model.job import Expect
from core.notify.outbox import Outbox
from core.notify.rules import changed_alerts
from core.notify.simulation import Simulation, simulate
from core.records.ledger import Ledger
from core.workspace.jobs import job_text
from tests.unit.test_alerts import AWAY, EXPORT, MINUTE, Stage, sampled

HOUR = timedelta(hours=1)


@pytest.fixture
def stage(tmp_path):
    file = tmp_path / "ledger.sqlite"
    with Outbox(file) as outbox, Ledger(file) as ledger:
        made = Stage(outbox, ledger, tmp_path / "alerts.json", {"export": EXPORT})
        made.restart()
        made.go()
        yield made


def simulated(stage: Stage, days: int = 7, **rules: Any) -> Simulation:
    alerts = changed_alerts(stage.rules_file, rules)
    jobs = list(stage.jobs.values())
    return simulate(alerts, jobs, stage.outbox, stage.ledger, days=days, now=stage.at)


def fired(found: Simulation, rule: str) -> list[tuple[str, bool]]:
    """Subject, and whether it ended."""
    return [(one.subject, one.ended_at is not None) for one in found.of_rule(rule)]


def test_it_finds_what_the_rules_fired(stage):
    stage.jobs["other"] = replace(EXPORT, slug="other", name="Other")
    for acknowledged, failed, job in ((100, 0, "export"), (93, 7, "export"), (80, 20, "other")):
        stage.ran(acknowledged, failed, job=stage.jobs[job])
        stage.go(20 * MINUTE)
    stage.ran(1000, job=stage.jobs["export"])
    stage.go(20 * MINUTE, each=lambda: sampled(stage, connected=False))
    stage.go(MINUTE, each=lambda: sampled(stage, connected=True))
    found = simulated(stage)
    happened = {(one.rule, one.subject, one.state == "ended") for one in stage.outbox.incidents()}
    assert {(one.rule, one.subject, one.ended_at is not None) for one in found.fired} == happened
    opened = {(one.rule, one.subject): one.opened_at for one in stage.outbox.incidents()}
    for one in found.fired:
        assert abs(one.opened_at - opened[one.rule, one.subject]) <= timedelta(seconds=30)
    assert [one.opened_at for one in found.fired] == sorted(one.opened_at for one in found.fired)


def test_other_numbers_fire_something_else_and_change_nothing(stage):
    stage.ran(93, 7)
    stage.go(20 * MINUTE)
    assert fired(simulated(stage), "success_rate") == [("export", False)]
    assert fired(simulated(stage, success_rate={"threshold_percent": 90}), "success_rate") == []
    assert fired(simulated(stage, success_rate={"for_s": 3600}), "success_rate") == []
    assert fired(simulated(stage, success_rate={"enabled": False}), "success_rate") == []
    assert fired(simulated(stage, latency_p99={"threshold_ms": 5, "for_s": 0}), "latency_p99") == [("export", False)]
    assert not stage.rules_file.exists()


def test_runs_are_counted_together_as_the_rule_does_it(stage):
    for n in range(12):
        stage.ran(98 if n % 2 else 90, 2 if n % 2 else 10)
        stage.go(MINUTE)
    assert fired(simulated(stage), "success_rate") == [("export", False)]


def test_failures_in_a_row_are_counted_from_before_the_span(stage):
    for _ in range(3):
        stage.ran(0, 0, error=AWAY)
        stage.at += HOUR
        stage.go(MINUTE)
    assert fired(simulated(stage), "job_failed") == [("export", False)]
    assert fired(simulated(stage, job_failed={"threshold_failures": 3}), "job_failed") == [("export", False)]
    assert fired(simulated(stage, job_failed={"threshold_failures": 4}), "job_failed") == []
    stage.ran(100)
    stage.go(MINUTE)
    (one,) = simulated(stage, job_failed={"threshold_failures": 3}).of_rule("job_failed")
    assert one.ended_at is not None
    assert one.text.startswith("failed: no broker of Kafka Produzione answers")
    assert stage.ledger.run(one.run_id).state == "failed"


def test_connections_that_nobody_checked_are_no_alert(stage):
    sampled(stage, connected=False)
    stage.at += 5 * HOUR
    assert fired(simulated(stage), "producer_disconnected") == [("Kafka Produzione", True)]
    assert fired(simulated(stage, producer_disconnected={"for_s": 1200}), "producer_disconnected") == []


def test_a_late_job_is_found_on_each_day_that_it_was_late(stage):
    job = replace(EXPORT, expect=Expect(by="07:00"))
    stage.jobs = {"export": job}
    stage.ledger.job_versions.add("export", "ab" * 32, job_text(job), stage.at - timedelta(days=1))
    begin = stage.at
    for day, at_hour in enumerate((1, 9, None)):  # in time, too late, never
        scheduled = begin + timedelta(days=day)
        if at_hour is not None:
            stage.at = scheduled + timedelta(hours=at_hour)
            stage.ran(100, job=job, scheduled_at=scheduled)
    stage.at = begin + timedelta(days=2, hours=12)
    assert fired(simulated(stage), "job_late") == [("export", True), ("export", False)]


def test_a_segment_that_was_set_aside_and_the_unknown_past_of_the_memory(stage):
    damaged = stage.outbox.file.parent / "spool" / "damaged"
    damaged.mkdir(parents=True)
    (damaged / "a.parquet").write_bytes(b"x")
    stage.at = stage.at.fromtimestamp((damaged / "a.parquet").stat().st_mtime, stage.at.tzinfo) + HOUR
    assert fired(simulated(stage), "spool_damaged") == [("a.parquet", False)]
    assert fired(simulated(stage, runner_memory={"threshold_percent": 1}), "runner_memory") == []


def test_jobs_that_are_gone_are_left_out_and_a_span_has_a_beginning(stage):
    stage.ran(93, 7)
    stage.go(20 * MINUTE)
    stage.jobs = {}
    assert simulated(stage).fired == ()
    stage.jobs = {"export": EXPORT}
    stage.at += timedelta(days=3)
    assert fired(simulated(stage, days=1), "job_failed") == []
    assert fired(simulated(stage, days=4), "job_failed") == [("export", False)]


@pytest.mark.parametrize("days", [0, -1, 91])
def test_a_span_out_of_range_is_refused(stage, days):
    with pytest.raises(ConfigError, match="cannot be simulated"):
        simulated(stage, days=days)


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ({"error_rates": {}}, "error_rates"),
        ({"error_rate": {"threshold_percent": 101}}, "less than or equal to 100"),
        ({"error_rate": {"threshold": 5}}, "threshold"),
        ({"job_failed": {"for_s": 5}}, "for_s"),
        ({"job_failed": {"threshold_failures": 1.5}}, "multiple"),
        ({"job_late": {"repeat_s": 5}}, "repeat_s"),
        ({"job_late": {"severity": "loud"}}, "severity"),
    ],
)
def test_a_change_that_the_file_could_not_have_is_refused(stage, rules, words):
    with pytest.raises(ConfigError, match=words):
        simulated(stage, **rules)
