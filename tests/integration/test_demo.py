"""The demo workspace on a real SQLite file, and the topic of a mock broker that speaks the real protocol."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Producer

from core.admin.demo import BARCODE, SLUG, make_demo, read_back
from core.admin.diagnosis import diagnose
from core.app import App
from core.errors import BrokerUnavailable, ConfigError, StorageFailed, TopicMissing
from core.run.cancellation import Stop
from core.run.execute import servers_of_plan

NOW = datetime(2026, 1, 17, 9, tzinfo=UTC)
ASKED_FOR = "date(TRKDATE) = '2026-01-16' AND TEST_FLAG = 'N'"

MESSAGE = {
    "barcode": "572680001120",
    "trkdate": "2026-01-16",
    "operator": 848,
    "msgtype": "M3",
    "causal": "RKE",
    "test_flag": "N",
    "phase_at": "W",
    "arrivetimestamp": "2026-01-16T11:50:32.665000",
    "status": "N",
    "track_office": "38713",
    "mtf_mtfid": 9,
    "date_other": "2026-01-16",
    "canale": "SGU",
    "custcode": "0030526661",
    "cust_sped": "PS6",
    "idsped": "S2132224",
}


def ask(folder: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(folder / "demo.sqlite")) as db:
        return db.execute(sql).fetchall()


def contents(folder: Path) -> list[tuple[object, ...]]:
    return ask(folder, "SELECT * FROM EXPORT_TABLE ORDER BY rowid")


def test_twenty_thousand_rows_of_yesterday_are_made(tmp_path: Path) -> None:
    make_demo(tmp_path / "demo", 20_000, now=NOW)
    assert ask(tmp_path / "demo", f"SELECT count(*) FROM EXPORT_TABLE WHERE {ASKED_FOR}") == [(20_000,)]


def test_other_days_and_test_rows_are_in_the_table_but_not_asked_for(tmp_path: Path) -> None:
    make_demo(tmp_path, 100, now=NOW)
    days = dict(ask(tmp_path, "SELECT TRKDATE, count(*) FROM EXPORT_TABLE GROUP BY 1"))  # type: ignore[arg-type]
    assert days == {"2026-01-15": 40, "2026-01-16": 140, "2026-01-17": 40}
    assert ask(tmp_path, "SELECT count(*) FROM EXPORT_TABLE WHERE TEST_FLAG = 'S'") == [(40,)]


def test_the_table_has_the_sixteen_columns_of_the_message_in_its_order(tmp_path: Path) -> None:
    make_demo(tmp_path, 10, now=NOW)
    names = [row[1] for row in ask(tmp_path, "PRAGMA table_info(EXPORT_TABLE)")]
    assert " ".join(map(str, names)).lower() == (
        "barcode trkdate operator msgtype causal test_flag phase_at arrivetimestamp status track_office mtf_mtfid "
        "date_other canale custcode cust_sped idsped"
    )


def test_the_parcel_of_the_documentation_is_there_as_it_is_written_there(tmp_path: Path) -> None:
    make_demo(tmp_path, 50, now=NOW)
    assert ask(tmp_path, f"SELECT * FROM EXPORT_TABLE WHERE BARCODE = '{BARCODE}'") == [
        (
            *("572680001120", "2026-01-16", 848, "M3", "RKE", "N", "W", "2026-01-16 11:50:32.665000", "N", "38713", 9),
            *("2026-01-16", "SGU", "0030526661", "PS6", "S2132224"),
        )
    ]


def test_barcodes_differ_and_some_begin_with_zeros(tmp_path: Path) -> None:
    make_demo(tmp_path, 1000, now=NOW)
    barcodes = [str(b) for (b,) in ask(tmp_path, "SELECT BARCODE FROM EXPORT_TABLE WHERE BARCODE IS NOT NULL")]
    assert len(set(barcodes)) == len(barcodes)
    assert {len(b) for b in barcodes} == {12}
    assert sum(b.startswith("00") for b in barcodes) > 10


def test_five_rows_in_twenty_thousand_are_bad_each_in_its_own_way(tmp_path: Path) -> None:
    make_demo(tmp_path, 20_000, now=NOW)
    bad = ask(
        tmp_path,
        f"""SELECT BARCODE IS NULL, typeof(OPERATOR) = 'text', DATE_OTHER = '31/02/2026', MTF_MTFID > 1e308,
            DATE_OTHER = '0000-00-00' FROM EXPORT_TABLE WHERE {ASKED_FOR} AND (BARCODE IS NULL OR
            typeof(OPERATOR) = 'text' OR date(DATE_OTHER) IS NULL AND DATE_OTHER IS NOT NULL OR MTF_MTFID > 1e308)""",
    )
    assert len(bad) == 5
    assert {tuple(bool(x) for x in row).index(True) for row in bad} == {0, 1, 2, 3, 4}


def test_a_demo_of_one_row_has_that_row(tmp_path: Path) -> None:
    make_demo(tmp_path, 1, now=NOW)
    assert ask(tmp_path, f"SELECT BARCODE FROM EXPORT_TABLE WHERE {ASKED_FOR}") == [(BARCODE,)]


def test_before_two_in_the_morning_the_rows_are_of_the_day_that_the_newest_fire_asks_for(tmp_path: Path) -> None:
    half_past_one_in_rome = datetime(2026, 1, 17, 0, 30, tzinfo=UTC)
    make_demo(tmp_path, 100, now=half_past_one_in_rome)
    assert ask(tmp_path, "SELECT TRKDATE FROM EXPORT_TABLE GROUP BY 1 HAVING count(*) > 40") == [("2026-01-15",)]


def test_the_same_day_gives_the_same_rows_when_the_demo_is_made_anew(tmp_path: Path) -> None:
    make_demo(tmp_path, 300, now=NOW)
    first = contents(tmp_path)
    (tmp_path / "metrics.duckdb").write_bytes(b"of the first demo")
    (tmp_path / ".pstt" / "spool").mkdir()
    (tmp_path / ".pstt" / "ledger.sqlite").write_bytes(b"of the first demo")
    (tmp_path / "queries" / "mine.sql").write_text("SELECT 1", encoding="utf-8")
    make_demo(tmp_path, 300, now=NOW)
    assert contents(tmp_path) == first
    assert not (tmp_path / "metrics.duckdb").exists()
    assert [path.name for path in (tmp_path / ".pstt").iterdir()] == ["demo"]
    assert (tmp_path / "queries" / "mine.sql").exists()  # files that it did not make are kept


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        make_demo(tmp_path, 10, now=NOW)
    assert "is not an empty folder and no demo: the demo never touches files that it did not make" in str(refused.value)
    assert "python -m core demo --workspace DIR" in refused.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not an empty folder"):
        make_demo(tmp_path / "demo", 10, now=NOW)


def test_a_demo_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "blocked").write_text("", encoding="utf-8")
    with pytest.raises(StorageFailed) as failed:
        make_demo(tmp_path / "blocked" / "demo", 10, now=NOW)
    assert "the demo cannot be made in" in str(failed.value)
    assert "choose another folder with --workspace DIR" in failed.value.remedy


def test_the_job_file_is_the_one_of_the_documentation(tmp_path: Path) -> None:
    make_demo(tmp_path, 10, now=NOW)
    job = json.loads((tmp_path / "queries" / f"{SLUG}.job.json").read_text(encoding="utf-8"))
    assert (job["connection"], job["cron"], job["parameters"]) == (
        "A00-CDG-Collaudo",
        "0 2 * * *",
        {"DATA": "{date-1}"},
    )
    assert job["kafka_config"]["message_key_field"] == "BARCODE"
    assert (
        (tmp_path / "queries" / job["query"]).read_text(encoding="utf-8").startswith("define DATA='2026-01-17'  --Obb")
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Producer, str]]:
    producer = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 1, "linger.ms": 10, "log_level": 0})
    brokers = producer.list_topics(timeout=10).brokers.values()
    yield producer, ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    producer.flush(10)


def put(producer: Producer, topic: str, count: int, *, size: int = 700) -> None:
    filler = b"x" * size
    for number in range(count):
        headers = [("message_id", b"%032x" % number), ("job", b"demo")]
        while True:
            try:
                producer.produce(topic, filler, key=str(int(BARCODE) + number), headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(20) == 0


def test_twenty_thousand_messages_are_read_back_whole(cluster: tuple[Producer, str]) -> None:
    producer, bootstrap = cluster
    put(producer, "read-back", 20_000, size=200)
    seen = read_back(bootstrap, "read-back", timeout_s=20)
    assert (seen.count, seen.read, len(seen.ids), seen.duplicates) == (20_000, 20_000, 20_000, 0)
    assert (seen.key, seen.headers) == (BARCODE, {"message_id": "0" * 32, "job": "demo"})
    assert seen.value == "x" * 200


def test_messages_with_an_id_that_came_before_are_counted_as_duplicates(cluster: tuple[Producer, str]) -> None:
    producer, bootstrap = cluster
    put(producer, "twice", 30)
    put(producer, "twice", 20)
    seen = read_back(bootstrap, "twice", timeout_s=10)
    assert (seen.count, seen.duplicates) == (50, 20)


def test_messages_that_the_mock_broker_has_dropped_are_counted_all_the_same(cluster: tuple[Producer, str]) -> None:
    producer, bootstrap = cluster
    put(producer, "large", 600, size=100_000)
    seen = read_back(bootstrap, "large", timeout_s=20)
    assert seen.count == 600
    assert 0 < seen.read < 600


def test_a_topic_that_is_not_there_is_named(cluster: tuple[Producer, str]) -> None:
    with pytest.raises(TopicMissing, match='topic "nowhere" is not there'):
        read_back(cluster[1], "nowhere", timeout_s=5)


def test_a_broker_that_is_away_ends_the_reading_in_time() -> None:
    began = time.perf_counter()
    with pytest.raises(BrokerUnavailable) as failed:
        read_back("127.0.0.1:1", "pstt-traces", timeout_s=1)
    assert 'topic "pstt-traces" could not be read back from 127.0.0.1:1' in str(failed.value)
    assert "python -m core runs" in failed.value.remedy
    assert time.perf_counter() - began < 5


def test_the_demo_runs_green_rejects_its_bad_rows_and_is_read_back_whole(tmp_path: Path) -> None:
    make_demo(tmp_path, 4_000, now=NOW)
    with App.open(tmp_path, {}) as opened:
        plan = opened.plan(opened.job(SLUG), now=NOW, asked_by="test")
        previewed = opened.preview(plan, rows=20)
        run = opened.execute(plan, stop=Stop(), now=lambda: datetime.now(UTC))
        rejects = opened.rejects(run)
        seen = read_back(servers_of_plan(opened, plan), plan.topic, timeout_s=10)
    assert (run.state, run.rows_read, run.acknowledged, run.rejected) == ("succeeded", 4_000, 3_995, 5)
    assert [(reject.column, reject.reason) for reject in rejects] == [
        ("BARCODE", "the key is null"),
        ("OPERATOR", "the text is not a number"),
        ("DATE_OTHER", "the text is not a date between the years 0001 and 9999"),
        ("MTF_MTFID", "Infinity has no JSON form"),
        ("DATE_OTHER", "no such date"),
    ]
    assert (seen.count, seen.read, seen.duplicates, seen.key) == (3_995, 3_995, 0, BARCODE)
    assert json.loads(seen.value)["data"] == MESSAGE
    assert list(seen.headers) == ["message_id", "run_id", "job"]
    assert {message.headers["message_id"] for message in previewed.messages} <= seen.ids


def test_the_preview_of_the_demo_shows_its_first_messages_without_a_warning(tmp_path: Path) -> None:
    make_demo(tmp_path, 1_000, now=NOW)
    with App.open(tmp_path, {}) as opened:
        seen = opened.preview(opened.plan(opened.job(SLUG), now=NOW), rows=20)
    assert len(seen.messages) == 20
    assert (seen.warnings, seen.rejects) == ([], [])
    assert [column.name for column in seen.columns] == [name.upper() for name in MESSAGE]


def test_the_doctor_finds_nothing_wrong_with_the_demo(tmp_path: Path) -> None:
    make_demo(tmp_path, 10, now=NOW)
    with App.open(tmp_path, {}) as opened:
        results = list(diagnose(opened, lambda: NOW))
    assert [result for result in results if result.status == "fail"] == []
    subjects = {result.subject for result in results}
    assert {"database A00-CDG-Collaudo", "cluster Kafka Collaudo (mock)"} <= subjects
