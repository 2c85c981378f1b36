"""What Prometheus reads: its own parser understands it, names follow its conventions, numbers are those of the summary."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.app import App
from core.errors import DeliveryTimeout
from core.records.ledger import Ledger, Outcome
from core.records.prometheus import render
from core.records.runner_status import BrokerSample, RunnerStatus
from core.workspace.paths import Workspace
from tests.unit.test_ledger import a_plan
from tests.unit.test_metrics import holder
from tests.unit.test_metrics_queries import spooled

NOW = datetime(2026, 1, 17, 12, tzinfo=UTC)


@pytest.fixture
def app(tmp_path):
    with App.open(tmp_path, {}) as opened:
        yield opened


def scraped(app) -> dict[tuple[str, ...], float]:
    """(name, label values in the order of the labels' names) → value, as Prometheus reads it."""
    text = render(app.metrics, app.ledger, app.timezone, NOW).decode()
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_messages_latencies_and_runs_are_told_by_job_and_topic(app):
    run = ended_run(app.workspace)
    spooled(app.workspace, run.run_id, [NOW - timedelta(seconds=60)] * 4, job=run.job, topic="t", errors={3: DeliveryTimeout("late")},
            latencies=[4.0, 40.0, 400.0, 1.0], attempts=[1, 2, 1, 1])  # fmt: skip
    told = scraped(app)
    assert told["pstt_messages_total", run.job, "acknowledged", "t"] == 3
    assert told["pstt_messages_total", run.job, "failed", "t"] == 1
    assert told["pstt_messages_retried_total", run.job, "t"] == 1
    assert told["pstt_messages_timed_out_total", run.job, "t"] == 1
    assert told["pstt_sent_bytes_total", run.job, "t"] == 3 * len("k0value")
    name = "pstt_acknowledgement_latency_seconds"
    assert [told[f"{name}_bucket", le, "t"] for le in ("0.005", "0.05", "0.25", "0.5", "+Inf")] == [1, 2, 2, 3, 3]
    assert told[f"{name}_count", "t"] == 3
    assert told[f"{name}_sum", "t"] == pytest.approx(0.444)
    assert told["pstt_runs_total", run.job, "succeeded"] == 1
    assert told["pstt_rows_rejected_total", run.job] == 1
    assert told["pstt_run_duration_seconds", run.job] == 2.5
    assert told["pstt_run_last_success_timestamp_seconds", run.job] == NOW.timestamp()


def ended_run(workspace: Workspace):
    with Ledger(workspace.ledger_file) as ledger:
        run = ledger.start(a_plan(), NOW - timedelta(minutes=5))
        return ledger.finish(run.run_id, Outcome("succeeded", 4, acknowledged=3, rejected=1, duration_s=2.5), NOW)


def test_a_day_that_is_sent_again_later_does_not_make_a_job_look_up_to_date(app):
    newest = ended_run(app.workspace)
    earlier = replace(a_plan(), scheduled_at=newest.scheduled_at - timedelta(days=1))
    for plan in (earlier, replace(a_plan(), kind="replay", of_run=newest.run_id)):
        run = app.ledger.start(plan, NOW + timedelta(hours=1))
        app.ledger.finish(run.run_id, Outcome("succeeded", 4, acknowledged=4, duration_s=1.0), NOW + timedelta(hours=2))
    assert scraped(app)["pstt_run_last_success_timestamp_seconds", newest.job] == NOW.timestamp()


def test_the_counts_are_those_of_the_summary(app):
    spooled(app.workspace, "r1", [NOW - timedelta(days=n) for n in range(20)], errors={0: DeliveryTimeout("late")})
    summary = app.metrics.summary(NOW, app.timezone)
    told = scraped(app)
    assert told["pstt_messages_total", "j", "acknowledged", "t"] == summary["total_sent"] == 19
    assert told["pstt_messages_total", "j", "failed", "t"] == summary["total_failed"] == 1
    assert told["pstt_sent_bytes_total", "j", "t"] == summary["bytes"]


def test_clusters_tell_whether_they_answer_and_how_often_they_did(app):
    for minutes, connected in ((30, False), (20, True), (10, True), (5, True)):
        at = NOW - timedelta(minutes=minutes)
        app.ledger.broker_samples.add(BrokerSample("collaudo", at, connected, 1.0 if connected else None, None))
    told = scraped(app)
    assert told["pstt_cluster_connected", "collaudo"] == 1
    assert told["pstt_cluster_uptime_ratio", "collaudo"] == 0.75


def test_the_runner_is_up_while_it_beats(app):
    assert scraped(app)["pstt_runner_up",] == 0
    app.ledger.heartbeats.write(
        RunnerStatus("h", 1, 0.0, NOW - timedelta(hours=1), NOW - timedelta(seconds=3), "1", 123, 0.1, "working", 4, ())
    )
    told = scraped(app)
    assert told["pstt_runner_up",] == 1
    assert told["pstt_runner_memory_bytes",] == 123


def test_a_held_file_is_a_figure_and_not_a_failure(app, monkeypatch):
    monkeypatch.setattr("core.records.metrics.READ_WAIT_S", 0.2)
    spooled(app.workspace, "r1", [NOW])
    app.metrics.sync()
    assert scraped(app)["pstt_metrics_readable",] == 1
    with holder(app.workspace.metrics_file, "write"):
        told = scraped(app)
    assert told["pstt_metrics_readable",] == 0
    assert not [name for name, *_ in told if name.startswith("pstt_messages")]


def test_names_have_the_prefix_and_base_units(app):
    spooled(app.workspace, "r1", [NOW])
    for family in text_string_to_metric_families(render(app.metrics, app.ledger, app.timezone, NOW).decode()):
        assert family.name.startswith("pstt_")
        assert not family.name.endswith(("_ms", "_mb", "_percent"))
        assert family.documentation
