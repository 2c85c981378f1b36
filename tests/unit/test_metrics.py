"""metrics.duckdb is a projection: if it is locked, lost or damaged, nothing is lost and nothing counts twice."""

import os
import secrets
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from loguru import logger

from core.errors import LedgerBusy, StorageFailed
from core.records.damaged_segments import damaged_segments
from core.records.ledger import Ledger, Outcome
from core.records.metrics import Metrics
from core.records.segment_copies import first_of, portions
from core.records.spool import Spool
from tests.rigs.sweeps import sweep
from tests.unit.test_ledger import a_plan
from tests.unit.test_spool import delivered

NOW = datetime(2026, 1, 17, 12, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path):
    from core.workspace.paths import Workspace

    return Workspace(tmp_path)


@pytest.fixture
def metrics(workspace):
    return Metrics(workspace)


def spooled(workspace, run_id: str, sends: int, *, moment: datetime = NOW, **changes) -> None:
    spool = Spool(workspace.spool_dir, run_id=run_id, job="j")
    delivery = delivered(sends, **changes)
    for i in range(sends):
        delivery.sent_at_us[i] = int(moment.timestamp() * 1e6)
    spool.record(delivery)
    spool.close()


def count(metrics) -> int:
    return metrics.answer(lambda db: db.execute("SELECT count(*) FROM sends").fetchone()[0])


HOLD = """
import sys, duckdb
db = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "read")
db.execute("SELECT 1").fetchall()
print("held", flush=True)
sys.stdin.readline()
"""


class holder:
    """Another process, such as a notebook, that has the file open."""

    def __init__(self, file: Path, mode: str) -> None:
        self.command = [sys.executable, "-c", HOLD, str(file), mode]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().strip() == "held"
        return self

    def __exit__(self, *exc_info):
        self.process.communicate("\n", timeout=20)


def test_sends_are_seen_before_and_after_they_are_copied_and_never_twice(workspace, metrics):
    spooled(workspace, "r1", 5)
    assert count(metrics) == 5
    assert (metrics.sync().sends, metrics.sync().sends) == (5, 0)
    assert count(metrics) == 5
    spooled(workspace, "r2", 3)
    assert count(metrics) == 8
    assert metrics.sync().sends == 3
    assert count(metrics) == 8


def test_a_reader_that_holds_the_file_delays_the_copy_and_hides_nothing(workspace, metrics):
    spooled(workspace, "r1", 5)
    metrics.sync()
    spooled(workspace, "r2", 3)
    with holder(workspace.metrics_file, "read"):
        synced = metrics.sync()
        assert synced.state == "held"
        assert "open in another program" in synced.note
        assert count(metrics) == 8
    assert metrics.sync().sends == 3
    assert count(metrics) == 8


def test_a_writer_that_holds_the_file_is_named_after_a_short_wait(workspace, metrics, monkeypatch):
    monkeypatch.setattr("core.records.metrics.READ_WAIT_S", 0.2)
    spooled(workspace, "r1", 5)
    metrics.sync()
    with holder(workspace.metrics_file, "write"):
        with pytest.raises(LedgerBusy, match=r"metrics\.duckdb is held by another program.*nothing is lost"):
            count(metrics)
        with pytest.raises(LedgerBusy, match="held"):
            metrics.rebuild()
    assert count(metrics) == 5


def test_a_new_file_has_blocks_of_64_kb_and_an_older_one_keeps_its_own(workspace, metrics):
    spooled(workspace, "r1", 3)
    metrics.sync()
    assert block_size(workspace) == 65_536
    workspace.metrics_file.unlink()
    with duckdb.connect(str(workspace.metrics_file), config={"default_block_size": "262144"}) as db:
        metrics.prepare(db, is_new=True)
    spooled(workspace, "r2", 2)
    metrics.sync()
    assert block_size(workspace) == 262_144
    assert count(metrics) == 5


def block_size(workspace) -> int:
    with duckdb.connect(str(workspace.metrics_file), read_only=True) as db:
        return db.execute("SELECT block_size FROM pragma_database_size()").fetchone()[0]


def test_a_deleted_file_is_made_again_by_the_next_copy(workspace, metrics):
    spooled(workspace, "r1", 5)
    metrics.sync()
    workspace.metrics_file.unlink()
    assert count(metrics) == 5
    assert metrics.sync().sends == 5
    assert count(metrics) == 5


def test_a_file_of_garbage_is_kept_aside_and_made_again(workspace, metrics):
    spooled(workspace, "r1", 5)
    workspace.metrics_file.write_bytes(os.urandom(8192))
    assert count(metrics) == 5
    synced = metrics.sync()
    assert (synced.state, synced.sends) == ("rebuilt", 5)
    assert "could not be read" in synced.note
    assert len(list(workspace.root.glob("metrics.duckdb.broken-*"))) == 1
    assert count(metrics) == 5


def test_rebuild_makes_the_same_numbers_again_also_from_garbage(workspace, metrics):
    spooled(workspace, "r1", 5)
    metrics.sync()
    assert metrics.rebuild().sends == 5
    workspace.metrics_file.write_bytes(b"garbage")
    assert metrics.rebuild().sends == 5
    assert count(metrics) == 5
    assert metrics.sync().sends == 0


def test_a_copy_cut_off_between_segments_goes_on_where_it_was(workspace, metrics):
    for n in range(3):
        spooled(workspace, f"r{n}", 4)
    with duckdb.connect(str(workspace.metrics_file)) as db:
        db.execute(metrics._sql["schema"])
        metrics._copy_in_one(db, ["r0-000001.parquet"])
    assert metrics.sync().sends == 8
    assert count(metrics) == 12


def test_many_small_segments_are_copied_together_and_a_damaged_one_keeps_no_other_from_it(workspace, metrics):
    for n in range(30):
        spooled(workspace, f"r{n:02}", 2)
    damaged, cut = (workspace.spool_dir / f"r{n}-000001.parquet" for n in (11, 12))
    damaged.write_bytes(b"garbage")
    torn(cut)
    done = metrics.sync()
    assert (done.segments, done.sends, count(metrics)) == (28, 56, 56)
    assert {d.name for d in damaged_segments(workspace.spool_dir)} == {damaged.name, cut.name}
    with metrics.reading() as db:
        rows = db.execute("SELECT name, row_count FROM store.segment ORDER BY name").fetchall()
        traffic = db.execute("SELECT count(DISTINCT run_id), sum(messages) FROM traffic").fetchone()
    assert rows == [(f"r{n:02}-000001.parquet", 2) for n in range(30) if n not in (11, 12)]
    assert traffic == (28, 56)


def test_portions_are_20_whole_segments_or_30_shorter_or_200_small_ones(tmp_path):
    def made(name: str, size: int) -> Path:
        file = tmp_path / name
        with file.open("wb") as stream:
            stream.truncate(size)
        return file

    small = [made(f"s{n}", 100) for n in range(450)]
    assert [len(portion) for portion in portions(small)] == [200, 200, 50]
    large = [made(f"l{n}", 300_000) for n in range(45)]
    assert [len(portion) for portion in portions(large)] == [30, 15]
    whole = [made(f"w{n}", 1_070_000) for n in range(45)]
    assert [len(portion) for portion in portions(whole)] == [20, 20, 5]
    parts = [made(f"p{n}", (1_070_000, 1_070_000, 540_000)[n % 3]) for n in range(24)]  # a million sends in 8 parts
    assert [len(portion) for portion in portions(parts)] == [24]
    assert [first_of(some, 10) for some in (small, large, whole, parts, small[:3], [])] == [15, 15, 10, 12, 3, 0]
    mixed = [*small[:100], *large[:25], tmp_path / "gone"]
    assert [len(portion) for portion in portions(mixed)] == [101, 25]
    assert [file for portion in portions(mixed) for file in portion] == mixed


def test_a_segment_of_an_earlier_version_has_no_cluster_and_is_read_beside_newer_ones(workspace, metrics):
    spooled(workspace, "r0", 2)
    segment = next(workspace.spool_dir.iterdir())
    pq.write_table(pq.read_table(segment).drop_columns(["cluster", "cluster_id", "bootstrap_servers"]), segment)
    spooled(workspace, "r1", 2)
    for _ in range(2):  # waiting, then copied
        assert [send["cluster"] for send in metrics.find("k0")] == [None, None]
        assert count(metrics) == 4
        metrics.sync()


def torn(segment: Path) -> None:
    segment.write_bytes(segment.read_bytes()[:100])


def emptied(segment: Path) -> None:
    segment.write_bytes(b"")


def a_folder(segment: Path) -> None:
    segment.unlink()
    (segment / "inside").mkdir(parents=True)


def a_link_to_nothing(segment: Path) -> None:
    segment.unlink()
    segment.symlink_to("nowhere")


def garbage(segment: Path) -> None:
    segment.write_bytes(b"%PDF-1.7 " * 1000)


def of_another_program(segment: Path) -> None:
    with duckdb.connect() as db:
        db.execute(f"COPY (SELECT 1 AS id, 'x' AS key) TO '{segment}' (FORMAT parquet)")


def overwritten_in_the_middle(segment: Path) -> None:
    data = bytearray(segment.read_bytes())
    data[4:600] = bytes(596)
    segment.write_bytes(data)


DAMAGES = [torn, emptied, a_folder, garbage, of_another_program, overwritten_in_the_middle]
if sys.platform != "win32":  # where only an administrator makes links
    DAMAGES.append(a_link_to_nothing)
READERS = {
    "count": count,
    "find": lambda metrics: len(metrics.find("k1")) * 5,
    "summary": lambda metrics: metrics.summary(NOW, "Europe/Rome")["total_sent"],
    "acknowledged_ids": lambda metrics: 5 if metrics.acknowledged_ids(["r1", "r2"]) else 0,
    "sync": lambda metrics: metrics.sync().sends,
    "rebuild": lambda metrics: metrics.rebuild().sends,
}


@pytest.mark.parametrize("ask", READERS.values(), ids=READERS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_segment_is_set_aside_and_hinders_nothing(workspace, metrics, damage, ask):
    spooled(workspace, "r1", 5)
    spooled(workspace, "r2", 5)
    damage(workspace.spool_dir / "r2-000001.parquet")
    assert ask(metrics) == 5
    assert [path.name for path in (workspace.spool_dir / "damaged").iterdir()] == ["r2-000001.parquet"]
    assert [path.name for path in workspace.spool_dir.glob("*.parquet")] == ["r1-000001.parquet"]
    assert [segment.name for segment in damaged_segments(workspace.spool_dir)] == ["r2-000001.parquet"]


def test_a_segment_that_cannot_be_moved_is_left_out_and_told_once(workspace, metrics, monkeypatch):
    monkeypatch.setattr("core.records.metrics.set_aside", lambda segment: False)
    told: list[str] = []
    handler = logger.add(told.append, level="WARNING")
    spooled(workspace, "r1", 5)
    spooled(workspace, "r2", 5)
    torn(workspace.spool_dir / "r2-000001.parquet")
    assert [count(metrics), count(metrics), metrics.sync().sends, count(metrics)] == [5, 5, 5, 5]
    logger.remove(handler)
    assert len(told) == 1
    assert "segment r2-000001.parquet of the spool cannot be read" in told[0]


def test_a_whole_copy_that_is_put_back_counts_again(workspace, metrics):
    spooled(workspace, "r1", 5)
    segment = workspace.spool_dir / "r1-000001.parquet"
    backup = segment.read_bytes()
    torn(segment)
    assert metrics.sync().set_aside == ("r1-000001.parquet",)
    segment.write_bytes(backup)
    assert metrics.sync().sends == 5
    torn(segment)
    metrics.rebuild()
    kept = sorted(path.name for path in (workspace.spool_dir / "damaged").iterdir())
    assert kept == ["r1-000001.parquet", "r1-000001.parquet.1"]
    (old,) = workspace.root.glob("metrics.duckdb.broken-*")  # what only the old file had is kept
    with duckdb.connect(str(old), read_only=True) as db:
        assert db.execute("SELECT count(*) FROM send").fetchone() == (5,)


def damage_in_the_middle(file: Path, share: float = 0.5) -> None:
    """Damages the file as a bad sector does: the start is valid, a block's checksum is not."""
    data = bytearray(file.read_bytes())
    at = int(len(data) * share)
    data[at : at + 4096] = os.urandom(4096)
    file.write_bytes(data)


@pytest.mark.parametrize("share", sweep([0.1, 0.5, 0.9], always=[0.5]))
@pytest.mark.parametrize("ask", READERS.values(), ids=READERS)
def test_a_metrics_file_damaged_in_the_middle_is_mended_from_the_spool(workspace, metrics, ask, share):
    for run in ("r1", "r2"):
        spooled(workspace, run, 5_000)
    metrics.sync()
    damage_in_the_middle(workspace.metrics_file, share)
    ask(metrics)
    with metrics.figures("UTC") as figures:
        assert len(figures.find("k4999")) == 2
        assert figures.totals(NOW - timedelta(days=1), NOW + timedelta(days=1))["messages"] == 10_000
    spooled(workspace, "r3", 5)
    metrics.sync()
    assert count(metrics) == 10_005
    assert len(list(workspace.root.glob("metrics.duckdb.broken-*"))) == (0 if ask is READERS["rebuild"] else 1)


def test_a_metrics_file_that_may_not_be_moved_is_passed_over(workspace, metrics, monkeypatch):
    for run in ("r1", "r2"):
        spooled(workspace, run, 5_000)
    metrics.sync()
    damage_in_the_middle(workspace.metrics_file)
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(PermissionError("held")))
    assert len(metrics.find("k4999")) == 2
    assert len(metrics.find("k4998")) == 2


def test_a_full_disk_never_costs_the_metrics_file(workspace, metrics, monkeypatch):
    spooled(workspace, "r1", 5)
    metrics.sync()
    spooled(workspace, "r2", 5)

    def full(*_):
        raise duckdb.IOException("IO Error: Could not write file: No space left on device")

    monkeypatch.setattr(metrics, "_copy_in_one", full)
    with pytest.raises(StorageFailed, match=r"cannot be brought up to date.*No space left on device"):
        metrics.sync()
    assert not list(workspace.root.glob("metrics.duckdb.broken-*"))


def test_a_half_written_segment_is_not_seen(workspace, metrics):
    spooled(workspace, "r1", 5)
    (workspace.spool_dir / "r2-000001.tmp").write_bytes(b"PAR1")
    assert count(metrics) == 5


def test_find_gives_every_send_of_a_key_in_order(workspace, metrics):
    spooled(workspace, "r2", 3, moment=NOW)
    spooled(workspace, "r1", 3, moment=NOW - timedelta(days=1))
    metrics.sync()
    found = metrics.find("k1")
    assert [(f["run_id"], f["partition"], f["offset"]) for f in found] == [("r1", 1, 1), ("r2", 1, 1)]
    assert found[0]["sent_at"] == NOW - timedelta(days=1)
    assert metrics.find("k1' OR 1=1 --") == []


def test_the_days_of_the_summary_begin_at_midnight_of_the_workspace(workspace, metrics):
    rome_midnight = datetime(2026, 1, 16, 23, tzinfo=UTC)
    spooled(workspace, "before", 2, moment=rome_midnight - timedelta(seconds=1))
    spooled(workspace, "after", 3, moment=rome_midnight)
    spooled(workspace, "old", 4, moment=NOW - timedelta(days=7))
    summary = metrics.summary(NOW, "Europe/Rome")
    assert summary["today"]["messages"] == 3
    assert summary["last_7_days"]["messages"] == 5
    assert summary["total_sent"] == 9
    assert summary["by_topic"]["t"]["messages"] == 9
    assert summary["today"]["success_rate"] == 1.0


def test_the_summary_of_an_empty_workspace_says_nothing_rather_than_zero_percent(metrics):
    summary = metrics.summary(NOW, "Europe/Rome")
    assert summary["today"]["success_rate"] is None
    assert summary["total_sent"] == 0


def test_runs_stand_beside_the_sends_and_follow_the_ledger(workspace, metrics):
    with Ledger(workspace.ledger_file) as ledger:
        run = ledger.start(a_plan(), NOW)
        metrics.sync()
        ledger.finish(run.run_id, Outcome("succeeded", 5, acknowledged=5), NOW + timedelta(seconds=1))
    for _ in range(2):
        with metrics.reading() as db:
            assert db.execute("SELECT state, acknowledged FROM runs").fetchall() == [("succeeded", 5)]
        metrics.sync()
    with duckdb.connect(str(workspace.metrics_file), read_only=True) as db:
        assert db.execute("SELECT state FROM run").fetchall() == [("succeeded",)]


def test_acknowledged_ids_leave_out_what_failed(workspace, metrics):
    from core.errors import DeliveryTimeout

    spooled(workspace, "r1", 3, errors={1: DeliveryTimeout("late")})
    assert metrics.acknowledged_ids(["r1"]) == {b"%032d" % 0, b"%032d" % 2}
    assert metrics.acknowledged_ids(["other"]) == frozenset()


def test_what_needs_more_memory_than_a_copy_has_gets_it(workspace, metrics, monkeypatch):
    spooled(workspace, "r1", 3)
    monkeypatch.setattr("core.records.metrics_file.MEMORY", "300KB")
    assert metrics.sync().sends == 3
    monkeypatch.setattr("core.records.metrics_file.MUCH_MEMORY", "300KB")
    spooled(workspace, "r2", 3)
    with pytest.raises(StorageFailed, match="Memory"):
        metrics.sync()
    assert [path.name for path in workspace.metrics_file.parent.glob("*.broken*")] == []


def test_segments_whose_values_need_more_memory_are_copied_too(workspace, metrics):
    """DuckDB runs out of its usual 24 MB over these keys of 1 kB and then gets more."""
    for run_id in ("r1", "r2"):
        spooled(workspace, run_id, 50_000, keys=[secrets.token_bytes(500).hex().encode() for _ in range(50_000)])
    synced = metrics.sync()
    assert (synced.state, synced.segments, synced.sends) == ("copied", 2, 100_000)
    assert metrics.sync().sends == 0
    assert count(metrics) == 100_000
