"""The spool: each send is on disk, completely, before it is reported."""

import signal
import subprocess
import sys
import threading
from array import array
from contextlib import suppress
from pathlib import Path
from zipfile import ZipFile

import duckdb
import pyarrow.parquet as pq
import pytest

import core.records.spool
from core.errors import DeliveryTimeout, MessageTooLarge, StorageFailed
from core.model.connection import Destination
from core.model.publisher import Batch, Delivery
from core.model.run import PartitionRange
from core.records.damaged_segments import damage_of
from core.records.merged_segments import sent_by
from core.records.metrics import Metrics
from core.records.segments import SEND_SCHEMA, SegmentFile, columns_of, read_segment, segments_of
from core.records.send_totals import SendTotals
from core.records.spool import Spool
from core.workspace.paths import Workspace
from tests.rigs.interrupts import interruptible

EARLIER = Path(__file__).parents[1] / "fixtures" / "workspace-1.0.4-db0d166.zip"
EARLIER_RUN = "d4963afda6"


def delivered(
    count: int, *, number: int = 1, topic: str = "t", errors=None, first_offset: int = 0, keys=None
) -> Delivery:
    keys = keys or [b"k%d" % i for i in range(count)]
    batch = Batch(number, topic, keys, [b"12345"] * count, [b"%032d" % i for i in range(count)], range(1, count + 1))
    delivery = Delivery.of(batch)
    delivery.partitions = array("i", [-1 if i in (errors or {}) else i % 2 for i in range(count)])
    delivery.offsets = array("q", range(first_offset, first_offset + count))
    delivery.latencies_ms = array("d", [float(i) for i in range(count)])
    delivery.attempts = array("i", [1] * count)
    delivery.sent_at_us = array("q", [1_768_600_000_000_000] * count)
    delivery.errors = errors or {}
    return delivery


def test_what_is_recorded_is_on_disk_after_close(tmp_path):
    spool = Spool(tmp_path / "spool", run_id="r1", job="j")
    spool.destination = Destination("Kafka Rig", "4L6g3nShT-eMCtK--X86sw")
    spool.record(delivered(4, errors={2: DeliveryTimeout("not acknowledged in 30 s")}))
    tally = spool.close()
    (segment,) = (tmp_path / "spool").iterdir()
    rows = pq.read_table(segment).to_pylist()
    assert pq.read_schema(segment).names == SEND_SCHEMA.names
    assert [r["status"] for r in rows] == ["acknowledged", "acknowledged", "failed", "acknowledged"]
    assert (rows[2]["error"], rows[2]["error_class"]) == ("not acknowledged in 30 s", "DeliveryTimeout")
    assert rows[2]["partition"] is None
    assert rows[3] | {"sent_at": None} == {
        "run_id": "r1",
        "job": "j",
        "topic": "t",
        "partition": 1,
        "offset": 3,
        "key": "k3",
        "message_id": "00000000000000000000000000000003",
        "size_bytes": 5,
        "sent_at": None,
        "latency_ms": 3.0,
        "attempt": 1,
        "status": "acknowledged",
        "error": None,
        "error_class": None,
        "cluster": "Kafka Rig",
        "cluster_id": "4L6g3nShT-eMCtK--X86sw",
        "bootstrap_servers": None,
    }
    assert (tally.acknowledged, tally.failed, tally.bytes) == (3, 1, 3 * 7)


def test_a_message_that_is_acknowledged_without_an_offset_counts_and_widens_no_range(tmp_path):
    """An idempotent repeat whose first response was lost."""
    spool = Spool(tmp_path, run_id="r", job="j")
    delivery = delivered(6, first_offset=10)
    delivery.offsets[0] = delivery.offsets[3] = -1
    spool.record(delivery)
    tally = spool.close()
    rows = pq.read_table(next(tmp_path.iterdir())).to_pylist()
    assert [r["offset"] for r in rows] == [None, 11, 12, None, 14, 15]
    assert tally.partitions == (PartitionRange("t", 0, 12, 14, 3), PartitionRange("t", 1, 11, 15, 3))
    assert tally.acknowledged == 6


def test_offset_ranges_and_percentiles_add_up_over_segments(tmp_path, monkeypatch):
    monkeypatch.setattr(core.records.spool, "SEGMENT_SENDS", 10)
    spool = Spool(tmp_path, run_id="r", job="j")
    for n in range(5):
        spool.record(delivered(10, number=n, first_offset=n * 10))
    tally = spool.close()
    assert len(list(tmp_path.glob("*.parquet"))) == 5
    assert tally.partitions == (PartitionRange("t", 0, 0, 48, 25), PartitionRange("t", 1, 1, 49, 25))
    assert (tally.percentile_ms(0.5), tally.percentile_ms(0.9), tally.percentile_ms(1.0)) == (4.0, 8.0, 9.0)
    assert tally.average_ms == pytest.approx(4.5)


def test_a_segment_has_several_row_groups_and_counts_once_it_is_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(core.records.spool, "SEGMENT_SENDS", 10)
    monkeypatch.setattr(core.records.spool, "GROUP_SENDS", 4)
    spool = Spool(tmp_path, run_id="r", job="j")
    spool.record(delivered(4))
    spool.record(delivered(4, number=2, topic="u", errors={1: DeliveryTimeout("late")}))
    assert (spool.totals.acknowledged, list(tmp_path.glob("*.parquet"))) == (0, [])
    spool.record(delivered(4, number=3))
    spool.record(delivered(1, number=4))
    assert (spool.close().acknowledged, spool.totals.failed) == (12, 1)
    first, second = segments_of(tmp_path, "r")
    assert (pq.ParquetFile(first).num_row_groups, len(read_segment(second))) == (3, 1)
    sends = read_segment(first)
    assert sends.schema.equals(SEND_SCHEMA)
    assert sends["topic"].to_pylist() == ["t"] * 4 + ["u"] * 4 + ["t"] * 4
    assert sends["error_class"].to_pylist() == [None] * 5 + ["DeliveryTimeout"] + [None] * 6
    assert columns_of(sends).topics == [("t", 4), ("u", 4), ("t", 4)]
    again = sent_by(tmp_path, "r")
    assert (again.acknowledged, again.failed, again.ranges, again.latencies, again.bytes, again.retried) == (
        spool.totals.acknowledged,
        spool.totals.failed,
        spool.totals.ranges,
        spool.totals.latencies,
        spool.totals.bytes,
        spool.totals.retried,
    )


def test_offsets_that_become_known_later_widen_no_range_to_zero(tmp_path):
    totals = SendTotals()
    for offsets in ([-1, -1], [7, 9]):
        spool = Spool(tmp_path, run_id=f"r{offsets[0]}", job="j")
        delivery = delivered(2)
        delivery.partitions, delivery.offsets = array("i", [0, 0]), array("q", offsets)
        spool.record(delivery)
        spool.close()
        totals.add(columns_of(read_segment(segments_of(tmp_path, spool.run_id)[0])))
    assert totals.partitions == (PartitionRange("t", 0, 7, 9, 4),)
    assert totals.placed == (PartitionRange("t", 0, 7, 9, 2),)


def test_keys_may_be_missing_or_any_bytes(tmp_path):
    spool = Spool(tmp_path, run_id="r", job="")
    spool.record(delivered(3, keys=[None, b"", b"\xff\xfe"]))
    spool.close()
    assert pq.read_table(next(tmp_path.glob("*.parquet")))["key"].to_pylist() == [None, "", "\\xff\\xfe"]


def test_a_run_of_nothing_leaves_no_segment(tmp_path):
    tally = Spool(tmp_path, run_id="r", job="j").close()
    assert list(tmp_path.iterdir()) == []
    assert (tally.acknowledged, tally.percentile_ms(0.5), tally.average_ms) == (0, None, None)


def test_a_disk_all_but_full_is_told_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.setattr(core.records.spool, "_free_bytes", lambda folder: 10 * 2**20)
    with pytest.raises(StorageFailed, match=r"all but full \(10 MB free\).*make room and run again; nothing was sent"):
        Spool(tmp_path, run_id="r", job="j")


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_disk_that_fills_up_fails_the_record_and_leaves_no_torn_segment(tmp_path):
    spool = Spool(tmp_path, run_id="r", job="j")
    (tmp_path / "r-000001.tmp").symlink_to("/dev/full")
    spool.record(delivered(3))
    with pytest.raises(StorageFailed, match="No space left on device"):
        spool.close()
    assert list(tmp_path.glob("*.parquet")) == []


def test_topics_of_one_segment_stay_apart(tmp_path):
    spool = Spool(tmp_path, run_id="r", job="j")
    for topic in ("a", "a", "b"):
        spool.record(delivered(2, topic=topic))
    tally = spool.close()
    assert [(p.topic, p.count) for p in tally.partitions] == [("a", 2), ("a", 2), ("b", 1), ("b", 1)]


def test_an_oversized_message_counts_as_failed_in_the_spool(tmp_path):
    spool = Spool(tmp_path, run_id="r", job="j")
    spool.record(delivered(1, errors={0: MessageTooLarge("message of 2,000,000 bytes", why="the limit is 1,048,576")}))
    assert (spool.close().failed, SendTotals().failed) == (1, 0)


def test_keys_that_are_missing_or_no_text_are_kept_readable(tmp_path):
    spool = Spool(tmp_path, run_id="r", job="j")
    spool.record(delivered(4, keys=[b"plain", None, "città".encode(), b"\xff\x00"]))
    spool.close()
    (segment,) = tmp_path.iterdir()
    assert pq.read_table(segment)["key"].to_pylist() == ["plain", None, "città", "\\xff\x00"]


def test_spooling_imports_neither_pandas_nor_the_kernels_of_arrow(tmp_path):
    """pandas: 55 MB and 0.3 s, taken where it is installed once pyarrow is given a Python value. Kernels: 9 MB, 35 ms."""
    script = f"""
import sys
from pathlib import Path
from tests.unit.test_spool import *
spool = Spool(Path({str(tmp_path)!r}), run_id="r", job="j")
spool.record(delivered(100, errors={{2: DeliveryTimeout("not acknowledged")}}))
tally = spool.close()
print(tally.acknowledged, len(tally.partitions), {{"pandas", "pyarrow.compute"}} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.split() == ["99", "2", "set()"]


def test_after_a_segment_that_could_not_be_written_nothing_is_taken_and_nothing_claimed(tmp_path, monkeypatch):
    monkeypatch.setattr(core.records.spool, "SEGMENT_SENDS", 4)
    folder = tmp_path / "spool"
    spool = Spool(folder, run_id="r1", job="j")
    spool.record(delivered(4))
    (folder / "r1-000002.tmp").mkdir()  # where the next segment is written aside
    for number in (2, 3):
        with pytest.raises(StorageFailed, match="the sends of run r1 cannot be written"):
            spool.record(delivered(4, number=number))
    with pytest.raises(StorageFailed, match="the same rows get the same message ids"):
        spool.close()
    assert spool.totals.acknowledged == 4


def test_a_segment_that_cannot_be_completed_ends_the_run_and_leaves_no_part_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(core.records.spool, "SEGMENT_SENDS", 8)
    monkeypatch.setattr(core.records.spool, "GROUP_SENDS", 4)
    spool = Spool(tmp_path, run_id="r1", job="j")
    (tmp_path / "r1-000001.parquet").mkdir()  # where it is to be visible
    spool.record(delivered(4))
    with suppress(StorageFailed):  # the disk is waited for in a thread, so it may be the next call that tells it
        spool.record(delivered(4, number=2))
    with pytest.raises(StorageFailed, match="the sends of run r1 cannot be written"):
        spool.record(delivered(4, number=3))
    with pytest.raises(StorageFailed, match="the same rows get the same message ids"):
        spool.close()
    assert spool.totals.acknowledged == 0
    assert [file.name for file in tmp_path.iterdir()] == ["r1-000001.parquet"]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="this system sends no signal to a thread")
def test_an_interrupt_while_sends_are_written_loses_none_of_them(tmp_path, monkeypatch):
    monkeypatch.setattr(core.records.spool, "GROUP_SENDS", 4)
    add, may_end = SegmentFile.add, threading.Event()

    def slow_add(segment, sends):
        if not may_end.is_set():
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            may_end.wait(30)
        add(segment, sends)

    monkeypatch.setattr(SegmentFile, "add", slow_add)
    spool = Spool(tmp_path, run_id="r", job="j")
    with interruptible(), pytest.raises(KeyboardInterrupt):
        spool.record(delivered(4))
    may_end.set()
    spool.record(delivered(4, number=2))
    assert spool.close().acknowledged == 8
    assert len(read_segment(next(tmp_path.iterdir()))) == 8


def test_an_error_of_any_kind_while_a_segment_is_written_reaches_the_caller(tmp_path, monkeypatch):
    spool = Spool(tmp_path / "spool", run_id="r1", job="j")
    monkeypatch.setattr("core.records.segments.flush_folder", lambda folder: 1 / 0)
    spool.record(delivered(4))
    with pytest.raises(ZeroDivisionError):
        spool.close()


@pytest.fixture
def earlier(tmp_path):
    """A workspace of 1.0.4, in whose segment `sent_at` is called `handed_over_at`."""
    with ZipFile(EARLIER) as stored:
        stored.extractall(tmp_path)
    return Workspace(tmp_path)


@pytest.mark.parametrize("columns", [None, ["sent_at", "key"]], ids=["all", "some"])
def test_a_segment_of_an_earlier_version_has_sent_at(earlier, columns):
    (segment,) = segments_of(earlier.spool_dir, EARLIER_RUN)
    assert "handed_over_at" in pq.read_schema(segment).names
    sends = read_segment(segment, columns)
    assert sends["sent_at"].null_count == 0
    assert "handed_over_at" not in sends.column_names
    assert columns is None or sends.column_names == columns
    totals = sent_by(earlier.spool_dir, EARLIER_RUN)
    assert (totals.acknowledged, totals.last_sent_at.year) == (55, 2026)


def test_a_segment_of_either_version_is_whole(earlier):
    spool = Spool(earlier.spool_dir, run_id="r1", job="j")
    spool.record(delivered(3))
    spool.close()
    with duckdb.connect() as db:
        assert [damage_of(db, file, whole=True) for file in sorted(earlier.spool_dir.glob("*.parquet"))] == ["", ""]


def test_segments_of_both_versions_are_counted_together_before_and_after_copying(earlier):
    spool = Spool(earlier.spool_dir, run_id="r1", job="j")
    spool.record(delivered(3))
    spool.close()
    metrics = Metrics(earlier)
    query = "SELECT count(*), count(sent_at), max(sent_at)::DATE::VARCHAR FROM sends"
    waiting = metrics.answer(lambda db: db.execute(query).fetchone())
    assert metrics.sync().sends == 58
    assert metrics.answer(lambda db: db.execute(query).fetchone()) == waiting
    assert waiting[:2] == (58, 58)
