"""The contract's own job over the contract's own SQL file makes the contract's own message, byte for byte.

The table is served by the Oracle double; files, parameters, binds, session, rows, envelope and verdict are the product's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from oracle_double import OracleDouble

from core.app import App
from core.kafka.memory import MemoryPublisher, MemoryRecord
from core.kafka.sender import Sender
from core.model.run import Run
from core.records.ledger import Ledger
from core.run.cancellation import Stop
from core.run.pipeline import RunMeans, run_job
from core.run.row_reader import RunContext
from core.sources import open_source
from tests.rigs.workspace import environment, run_command

QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"
SLUG = "CDG-KAFKA-001"
SQL = """define DATA='2026-01-17'  --Obbligatorio: Data estrazione (YYYY-MM-DD)
SELECT BARCODE, TRKDATE, ARRIVETIMESTAMP FROM EXPORT_TABLE
WHERE TRUNC(TRKDATE) = TO_DATE('&DATA', 'YYYY-MM-DD') AND TEST_FLAG = 'N' ORDER BY ARRIVETIMESTAMP;
"""
JOB = """{
  "name": "Export CDG Tracce to Kafka", "query": "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql", "connection": "A00-CDG-Collaudo",
  "scheduling_mode": "cron", "cron": "0 2 * * *", "enabled": true, "parameters": {"DATA": "{date-1}"}, "export_format": "kafka",
  "kafka_config": {"enabled": true, "topic": "pstt-traces", "message_key_field": "BARCODE", "batch_size": 100, "include_metadata": true},
  "email_notification": {"on_success": false, "on_failure": true, "recipients": ["admin@example.com"]}
}
"""
MESSAGE = """{"data": {"barcode": "572680001120", "trkdate": "2026-01-16", "operator": 848, "msgtype": "M3", "causal": "RKE", "test_flag": "N", "phase_at": "W",
  "arrivetimestamp": "2026-01-16T11:50:32.665000", "status": "N", "track_office": "38713", "mtf_mtfid": 9, "date_other": "2026-01-16", "canale": "SGU",
  "custcode": "0030526661", "cust_sped": "PS6", "idsped": "S2132224"},
 "metadata": {"source": {"system": "PSTT_Tool", "version": "1.0.4", "connection": "A00-CDG-Collaudo", "query": "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"},
  "timestamp": "2026-01-17T10:30:45.123456Z", "processing": {"extracted_at": "2026-01-17T10:30:30Z", "published_at": "2026-01-17T10:30:45Z", "latency_ms": 15123}}}"""

DAY = datetime(2026, 1, 16)  # noqa: DTZ001
TABLE: dict[str, tuple[str, Any]] = {
    "BARCODE": ("VARCHAR2(20)", "572680001120"),
    "TRKDATE": ("DATE", DAY),
    "OPERATOR": ("NUMBER(10)", 848),
    "MSGTYPE": ("VARCHAR2(2)", "M3"),
    "CAUSAL": ("VARCHAR2(3)", "RKE"),
    "TEST_FLAG": ("CHAR(1)", "N"),
    "PHASE_AT": ("CHAR(1)", "W"),
    "ARRIVETIMESTAMP": ("TIMESTAMP(6)", DAY + timedelta(hours=11, minutes=50, seconds=32, milliseconds=665)),
    "STATUS": ("CHAR(1)", "N"),
    "TRACK_OFFICE": ("VARCHAR2(5)", "38713"),
    "MTF_MTFID": ("NUMBER", 9),
    "DATE_OTHER": ("DATE", DAY),
    "CANALE": ("VARCHAR2(3)", "SGU"),
    "CUSTCODE": ("VARCHAR2(10)", "0030526661"),
    "CUST_SPED": ("VARCHAR2(3)", "PS6"),
    "IDSPED": ("VARCHAR2(10)", "S2132224"),
}
ALL_COLUMNS = SQL.replace("BARCODE, TRKDATE, ARRIVETIMESTAMP", ", ".join(TABLE))
STEP = "\nWHERE TRUNC(TRKDATE) = TO_DATE(:P_DATA, 'YYYY-MM-DD') AND TEST_FLAG = 'N' ORDER BY ARRIVETIMESTAMP"
AT = datetime(2026, 1, 17, 2)  # noqa: DTZ001 - naive in the job's zone, as `--at` has it


def serve(double: OracleDouble, names: Sequence[str], rows: int = 1) -> None:
    """EXPORT_TABLE for a SELECT of these columns, asked for the day that its rows are of; the barcodes count up."""
    wanted = "SELECT " + ", ".join(names) + " FROM EXPORT_TABLE" + STEP

    def row(i: int) -> tuple[Any, ...]:
        values = {name: value for name, (_, value) in TABLE.items()} | {"BARCODE": f"{572680001120 + i}"}
        return tuple(values[name] for name in names)

    double.on(
        lambda sql, binds: sql == wanted,
        columns=[(name, TABLE[name][0]) for name in names],
        rows=lambda sql, binds: [row(i) for i in range(rows)] if binds == {"P_DATA": "2026-01-16"} else [],
    )


@pytest.fixture
def double() -> Iterator[OracleDouble]:
    with OracleDouble(users={"pstt": "collaudo-pw"}, service="CDG") as made:
        yield made
        assert made.failures == []


def workspace(folder: Path, double: OracleDouble, *, sql: str, bootstrap_servers: str = "localhost:9") -> Path:
    (folder / "queries").mkdir()
    (folder / "queries" / QUERY).write_text(sql, encoding="utf-8")
    (folder / "queries" / f"{SLUG}.job.json").write_text(JOB, encoding="utf-8")
    connections = {
        "default_environment": "collaudo",
        "connections": [
            {
                "name": "A00-CDG-Collaudo",
                "environment": "collaudo",
                "db_type": "oracle",
                "host": double.host,
                "port": double.port,
                "service_name": "CDG",
                "username": "pstt",
                "password": "env:A00_CDG_PASSWORD",
            }
        ],
        "kafka_connections": {"collaudo": {"name": "Kafka Collaudo", "bootstrap_servers": bootstrap_servers}},
    }
    (folder / "connections.json").write_text(json.dumps(connections), encoding="utf-8")
    return folder


def run_in_memory(folder: Path) -> tuple[Run, list[MemoryRecord]]:
    """The product's own path, with the memory publisher."""
    with App.open(folder, {"A00_CDG_PASSWORD": "collaudo-pw"}) as app, Ledger(folder / "ledger.sqlite") as ledger:
        job = app.job(SLUG)
        plan = app.plan(job, now=datetime.now(UTC), at=AT)
        publisher = MemoryPublisher()
        source = open_source(app.connections.database(job.connection))
        try:
            sender = Sender(publisher, max_retries=3, backoff_ms=100)
            context = RunContext(lambda: datetime.now(UTC), Stop())
            means = RunMeans(plan=plan, publisher=publisher, ledger=ledger, spool_dir=folder / "spool", context=context)
            run = run_job(means, source, sender)
        finally:
            source.close()
        return run, publisher.records.get("pstt-traces", [])


MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
MOMENTS = {
    rf'("timestamp":")({MOMENT}\.\d{{6}})(Z")': "timestamp",
    rf'("extracted_at":")({MOMENT})(Z")': "extracted_at",
    rf'("published_at":")({MOMENT})(Z")': "published_at",
    r'("latency_ms":)(\d+)(\}\}\})$': "latency_ms",
}


def without_moments(value: str) -> str:
    """Returns the message without its four times, each checked to occur once in its format."""
    for pattern, name in MOMENTS.items():
        value, found = re.subn(pattern, rf"\1{name}\3", value)
        assert found == 1, name
    return value


def contract() -> str:
    """The message of SPEC 6 as it is sent: the same text without the layout for readers."""
    return json.dumps(json.loads(MESSAGE), separators=(",", ":"), ensure_ascii=False)


def test_job_of_the_contract_makes_the_message_of_the_contract(tmp_path: Path, double: OracleDouble) -> None:
    serve(double, list(TABLE))
    run, (record,) = run_in_memory(workspace(tmp_path, double, sql=ALL_COLUMNS))

    assert (run.state, run.rows_read, run.acknowledged, run.rejected) == ("succeeded", 1, 1, 0)
    assert record.key == b"572680001120"
    assert without_moments(record.value.decode()) == without_moments(contract())
    headers = dict(record.headers)
    assert list(headers) == ["message_id", "run_id", "job"]
    assert re.fullmatch(rb"[0-9a-f]{32}", headers["message_id"])
    assert headers["run_id"] == run.run_id.encode()
    assert headers["job"] == b"Export CDG Tracce to Kafka"


def test_sql_file_of_the_contract_asks_for_the_day_before_its_scheduled_time_by_a_bind(
    tmp_path: Path, double: OracleDouble
) -> None:
    names = ["BARCODE", "TRKDATE", "ARRIVETIMESTAMP"]
    serve(double, names)
    run, (record,) = run_in_memory(workspace(tmp_path, double, sql=SQL))

    assert run.state == "succeeded"
    assert run.scheduled_at == datetime(2026, 1, 17, 1, tzinfo=UTC)
    assert dict(run.parameters) == {"DATA": "2026-01-16"}
    assert json.loads(record.value)["data"] == {
        name: json.loads(MESSAGE)["data"][name] for name in map(str.lower, names)
    }
    *session, query = double.statements()
    assert [event.sql for event in session] == ["ALTER SESSION SET TIME_ZONE = '+00:00'", "SET TRANSACTION READ ONLY"]
    assert query.sql == "SELECT BARCODE, TRKDATE, ARRIVETIMESTAMP FROM EXPORT_TABLE" + STEP
    assert query.binds == {"P_DATA": "2026-01-16"}
    assert query.bind_types == {"P_DATA": "VARCHAR2"}


def test_same_row_has_the_same_message_id_in_every_attempt(tmp_path: Path, double: OracleDouble) -> None:
    serve(double, list(TABLE), rows=3)
    folder = workspace(tmp_path, double, sql=ALL_COLUMNS)
    ids = []
    for _ in range(2):
        run, records = run_in_memory(folder)
        ids.append([dict(record.headers)["message_id"] for record in records])
    assert run.attempt == 2
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3


def test_program_sends_the_message_of_the_contract_from_oracle_to_a_real_broker(
    tmp_path: Path, double: OracleDouble, kafka: Any
) -> None:
    topic = kafka.create_topic(partitions=3)
    serve(double, list(TABLE), rows=1200)
    folder = workspace(tmp_path, double, sql=ALL_COLUMNS, bootstrap_servers=kafka.plaintext)
    job = folder / "queries" / f"{SLUG}.job.json"
    job.write_text(JOB.replace("pstt-traces", topic), encoding="utf-8")

    env = environment(A00_CDG_PASSWORD="collaudo-pw")
    done = run_command("run", SLUG, "--at", "2026-01-17T02:00", "--json", env=env, cwd=folder)

    assert done.returncode == 0, done.stderr
    verdict = json.loads(done.stdout)
    counts = [verdict[name] for name in ("rows_read", "sent", "acknowledged", "rejected", "failed")]
    assert (verdict["state"], counts) == ("succeeded", [1200, 1200, 1200, 0, 0])
    messages = {message.key(): message for message in kafka.read(topic)}
    assert set(messages) == {str(572680001120 + i).encode() for i in range(1200)}
    first = messages[b"572680001120"]
    assert without_moments(first.value().decode()) == without_moments(contract())
    headers = dict(first.headers())
    assert headers["run_id"].decode() == verdict["run_id"]
    assert headers["job"] == b"Export CDG Tracce to Kafka"
    assert "collaudo-pw" not in done.stdout + done.stderr


def test_wrong_password_of_oracle_is_one_clear_line_and_nothing_is_sent(
    tmp_path: Path, double: OracleDouble, kafka: Any
) -> None:
    topic = kafka.create_topic()
    folder = workspace(tmp_path, double, sql=SQL, bootstrap_servers=kafka.plaintext)
    job = folder / "queries" / f"{SLUG}.job.json"
    job.write_text(JOB.replace("pstt-traces", topic), encoding="utf-8")

    env = environment(A00_CDG_PASSWORD="wrong-pw-8213")
    done = run_command("run", SLUG, "--at", "2026-01-17T02:00", env=env, cwd=folder)

    assert done.returncode == 1
    out = done.stdout + done.stderr
    assert "refuses the login of pstt: ORA-01017" in " ".join(out.split())
    assert "Traceback" not in out
    assert "wrong-pw-8213" not in out + "".join(f.read_text(encoding="utf-8") for f in (folder / "logs").iterdir())
    assert kafka.count(topic) == 0
