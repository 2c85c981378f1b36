"""`open_metrics` reads everything, blocks no other process and can change nothing."""

import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random

import duckdb
import pytest

import core
from core.errors import ConfigError, DeliveryTimeout, LedgerBusy
from core.model.run import Reject
from core.records.ledger import Ledger, Outcome
from core.records.metrics import Metrics
from core.records.metrics_reader import VIEWS
from core.workspace.paths import Workspace
from tests.unit.test_ledger import a_plan
from tests.unit.test_metrics import NOW, holder, spooled
from tests.unit.test_metrics_queries import spooled as spooled_of

DOC = Path(__file__).parents[2] / "docs" / "METRICS.md"
REJECT = Reject(7, "IMPORTO", "float8", "NaN has no JSON form", key="1", row={"IMPORTO": "NaN"})


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path)


@pytest.fixture
def db(workspace):
    with core.open_metrics(workspace.root) as opened:
        yield opened


def test_a_writer_copies_while_a_notebook_has_it_open_and_its_answers_stay(workspace, db):
    spooled(workspace, "r1", 5)
    before = db.sql("SELECT run_id, count(*) FROM sends GROUP BY run_id")
    assert before.fetchall() == [("r1", 5)]
    spooled(workspace, "r2", 3)
    copied = subprocess.run(
        [sys.executable, "-c", COPY, str(workspace.root)], capture_output=True, text=True, check=True, timeout=60
    )
    assert copied.stdout.split() == ["copied", "8"]
    assert before.fetchall() == [("r1", 5)]
    assert db.sql("SELECT count(*) FROM sends").fetchall() == [(8,)]


COPY = """
import sys
from pathlib import Path
from core.records.metrics import Metrics
from core.workspace.paths import Workspace
synced = Metrics(Workspace(Path(sys.argv[1]))).sync()
print(synced.state, synced.sends)
"""


def test_what_is_not_copied_yet_is_in_every_view(workspace, db):
    spooled(workspace, "r1", 4, errors={1: DeliveryTimeout("late")})
    seen = {view: db.table(view).fetchall() for view in ("daily", "hourly_latency", "errors")}
    Metrics(workspace).sync()
    assert {view: db.table(view).fetchall() for view in seen} == seen
    assert seen["daily"] == [(date(2026, 1, 17), "j", "t", 3, 1, 0, 3 * 7, 1)]
    assert seen["errors"][0][:7] == ("message", "r1", "j", "t", "late", "DeliveryTimeout", 1)


def test_days_begin_at_midnight_of_the_workspace_also_where_a_zone_has_quarter_hours(workspace):
    (workspace.root / ".env").write_text("PSTT_TIMEZONE=Asia/Kathmandu\n", encoding="utf-8")  # +05:45
    midnight = datetime(2026, 1, 16, 18, 15, tzinfo=UTC)
    spooled(workspace, "before", 2, moment=midnight - timedelta(microseconds=1))
    spooled(workspace, "after", 3, moment=midnight)
    with core.open_metrics(workspace.root) as db:
        days = db.sql("SELECT day, messages FROM daily ORDER BY day").fetchall()
        hours = db.sql("SELECT hour_utc, hour FROM hourly_latency ORDER BY hour").fetchall()
    assert days == [(date(2026, 1, 16), 2), (date(2026, 1, 17), 3)]
    assert hours[1] == (datetime(2026, 1, 16, 18, 15), datetime(2026, 1, 17))  # noqa: DTZ001 - as DuckDB has them


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM sends",
        "CREATE TABLE mine AS SELECT 1",
        "COPY (SELECT 1) TO '{root}/stolen.csv'",
        "COPY (SELECT 1) TO '{segment}'",
        "ATTACH '{root}/metrics.duckdb' AS again",
        "SET enable_external_access = true",
        "SELECT 1; DROP VIEW sends",
        "INSTALL httpfs",
        "SELECT * FROM read_text('{root}/.env')",
        "SELECT * FROM read_csv('https://example.com/x.csv')",
        "SELECT * FROM glob('{root}/*')",
        "SELECT * FROM sqlite_scan('{root}/.pstt/ledger.sqlite', 'run')",  # DuckDB would install an extension
        "SELECT * FROM read_xlsx('{root}/x.xlsx')",
    ],
)
def test_nothing_but_a_question_is_answered(workspace, db, harm):
    spooled(workspace, "r1", 5)
    Metrics(workspace).sync()
    spooled(workspace, "r2", 5)
    (workspace.root / ".env").write_text("KAFKA_SASL_PASSWORD=hidden\n", encoding="utf-8")
    files = {path: path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()}
    segment = workspace.spool_dir / "r2-000001.parquet"
    with pytest.raises(ConfigError) as refused:
        db.sql(harm.format(root=workspace.root, segment=segment))
    assert "hidden" not in str(refused.value)
    assert refused.value.remedy
    assert {path: path.read_bytes() for path in workspace.root.rglob("*") if path.is_file()} == files
    assert db.sql("SELECT count(*) FROM sends").fetchall() == [(10,)]


def test_a_question_with_a_mistake_is_told_with_where_the_columns_are_listed(db):
    with pytest.raises(ConfigError, match=r'(?s)"keys" not found.*docs/METRICS\.md') as told:
        db.sql("SELECT keys FROM sends")
    assert told.value.__suppress_context__


def test_values_are_given_beside_the_question(workspace, db):
    spooled(workspace, "r1", 5)
    assert db.sql('SELECT "offset" FROM sends WHERE key = ?', ["k3"]).fetchall() == [(3,)]
    assert db.execute("SELECT count(*) FROM sends WHERE run_id = $run", {"run": "r1"}).fetchall() == [(5,)]


def test_an_answer_too_large_for_memory_is_refused(workspace, db, monkeypatch):
    monkeypatch.setattr("core.records.metrics_reader.MOST_ROWS", 4)
    spooled(workspace, "r1", 5)
    with pytest.raises(ConfigError, match="more than 4 rows"):
        db.table("sends")
    assert db.sql("SELECT * FROM sends LIMIT 4").fetchall()


def test_a_file_that_is_held_for_writing_is_told_with_what_to_do(workspace, db, monkeypatch):
    monkeypatch.setattr("core.records.metrics.READ_WAIT_S", 0.2)
    spooled(workspace, "r1", 5)
    Metrics(workspace).sync()
    with (
        holder(workspace.metrics_file, "write"),
        pytest.raises(LedgerBusy, match=r"metrics\.duckdb is held.*close the notebook"),
    ):
        db.table("sends")


def test_a_missing_workspace_is_told_before_any_question(tmp_path):
    with pytest.raises(ConfigError, match="there is no workspace"):
        core.open_metrics(tmp_path / "nowhere")


def test_rejected_rows_are_there_with_their_reason_and_without_the_row(workspace, db):
    with Ledger(workspace.ledger_file) as ledger:
        run = ledger.start(a_plan(), NOW)
        ledger.rejects.add(run.run_id, [REJECT])
        ledger.finish(run.run_id, Outcome("succeeded", 1, rejected=1), NOW + timedelta(seconds=1))
    for _ in range(2):
        assert db.sql("SELECT run_id, reason FROM rejects").fetchall() == [(run.run_id, REJECT.reason)]
        assert db.sql("SELECT kind, count FROM errors").fetchall() == [("reject", 1)]
        Metrics(workspace).sync()


# ── the file itself, opened by a tool that knows nothing of ours ──────────────────────────────


def plain(workspace, sql):
    with duckdb.connect(str(workspace.metrics_file), read_only=True) as file:
        return file.execute(sql).fetchall()


def test_the_views_stand_in_the_file_itself_and_answer_as_ours(workspace, db):
    spooled(workspace, "r1", 6, errors={1: DeliveryTimeout("late")})
    with Ledger(workspace.ledger_file) as ledger:
        run = ledger.start(a_plan(), NOW)
        ledger.rejects.add(run.run_id, [REJECT])
        ledger.finish(run.run_id, Outcome("succeeded", 1, rejected=1), NOW + timedelta(seconds=1))
    Metrics(workspace, db.timezone).sync()
    for view in VIEWS:
        ours = db.table(view)
        assert plain(workspace, f"SELECT * FROM {view} ORDER BY ALL") == ours.order("ALL").fetchall() != []
        assert [name for name, *_ in plain(workspace, f"DESCRIBE {view}")] == ours.columns


def test_days_of_the_file_are_those_of_the_zone_also_after_it_was_changed(workspace):
    spooled(workspace, "r1", 2, moment=datetime(2026, 10, 25, 23, 30, tzinfo=UTC))  # 00:30 of the 26th in Rome
    asked = "SELECT day, messages FROM daily"
    for zone, day in (("Europe/Rome", 26), ("America/New_York", 25), ("America/New_York", 25), ("Asia/Tokyo", 26)):
        Metrics(workspace, zone).sync()
        assert plain(workspace, asked) == [(date(2026, 10, day), 2)]


def test_a_file_of_the_earlier_format_gets_its_views_from_the_spool(workspace):
    spooled(workspace, "r1", 5)
    Metrics(workspace).sync()
    with duckdb.connect(str(workspace.metrics_file)) as file:
        file.execute("UPDATE format SET version = 3; DROP VIEW latency; DROP TABLE zone")
    assert Metrics(workspace).sync().state == "rebuilt"
    assert plain(workspace, "SELECT sum(messages) FROM latency") == [(5,)]


BY_HOUR = "SELECT hour_utc, percentile(latency_ms, messages, 0.99) FROM latency GROUP BY hour_utc ORDER BY hour_utc"


def test_percentiles_by_hour_of_all_jobs_together_are_one_short_query(workspace, db):
    random, exact = Random(3), {}
    for number in range(9):  # jobs of very different latencies, so that an average of their p99 would be very different
        hour = NOW + timedelta(hours=number % 3)
        latencies = [random.lognormvariate(1 + number % 4, 1) for _ in range(400)]
        spooled_of(workspace, f"r{number}", [hour] * 400, job=f"j{number % 2}", topic=f"t{number}", latencies=latencies)
        exact.setdefault(hour.replace(tzinfo=None), []).extend(latencies)
    Metrics(workspace).sync()
    told = plain(workspace, BY_HOUR)
    assert [hour for hour, _ in told] == sorted(exact)
    for hour, p99_ms in told:
        assert p99_ms == pytest.approx(sorted(exact[hour])[round(0.99 * 1200) - 1], rel=0.015)
    spooled_of(workspace, "waits", [NOW], job="j", topic="t", latencies=[1e6])  # not copied yet
    assert db.sql(BY_HOUR).fetchall()[1:] == told[1:]
    assert db.sql("SELECT max(latency_ms) FROM latency").fetchall()[0][0] == pytest.approx(1e6, rel=0.015)


def documented() -> dict[str, list[str]]:
    """View → its columns, as docs/METRICS.md lists them."""
    parts = re.split(r"^## `(\w+)`", DOC.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    return {
        view: re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
        for view, text in zip(parts[::2], parts[1::2], strict=True)
    }


def test_the_document_lists_exactly_the_columns_that_there_are(db):
    there = {view: db.table(view).columns for view in VIEWS}
    assert documented() == there
