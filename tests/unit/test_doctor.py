"""What `doctor` reports, and that one problem does not stop the other checks."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from core.admin import doctor
from core.admin.doctor import examine
from core.admin.server_checks import Servers
from core.errors import BrokerUnavailable, NotAuthorised, PsttError
from core.kafka.cluster_rights import Certificate, ClusterRights
from core.model.check_result import CheckResult
from core.model.connection import Cluster
from core.model.job import Job, KafkaConfig
from core.model.publisher import TopicInfo
from core.model.query import Query, Step
from core.model.run import Plan
from core.records.ledger import Ledger
from core.workspace.connections import load_connections
from core.workspace.paths import Workspace
from core.workspace.settings import load_settings

NOW = datetime(2026, 1, 17, 10, 30, tzinfo=UTC)
JOB = Job("export", "Export", "q.sql", "A00", kafka_config=KafkaConfig(topic="pstt-traces"))
A00: dict[str, object] = {"name": "A00", "db_type": "sqlite", "database": "a.sqlite"}
CLUSTER = {"name": "Kafka Collaudo", "bootstrap_servers": "kafka.example.com:9092"}


class Database:
    """A source whose result the test sets."""

    def __init__(self, *results: CheckResult) -> None:
        self.results = list(results)
        self.closed = False

    def check(self) -> list[CheckResult]:
        return self.results

    def close(self) -> None:
        self.closed = True


class Brokers:
    """A publisher whose topics or error the test sets."""

    def __init__(self, topics: list[TopicInfo] | PsttError) -> None:
        self.known = topics
        self.closed = False

    def topics(self, timeout_s: float = 10.0) -> list[TopicInfo]:
        if isinstance(self.known, PsttError):
            raise self.known
        return self.known

    def close(self, timeout_s: float = 10.0) -> None:
        self.closed = True


def everything(cluster: Cluster, topics: Iterable[str]) -> ClusterRights:
    """An account with all rights, over a connection without a certificate."""
    all_of_them = frozenset({"WRITE", "DESCRIBE", "CREATE"})
    return ClusterRights("c1", 3, all_of_them, dict.fromkeys(topics, all_of_them), None)


@dataclass
class Scene:
    """A workspace and its servers; `look` returns the results of doctor for a subject."""

    root: Path
    databases: list[dict[str, Any]] = field(default_factory=list)
    clusters: dict[str, Any] = field(default_factory=dict)
    elsewhere: Path | None = None
    """Examined instead of `root`, where the connections are."""
    jobs: list[Job] = field(default_factory=list)
    database: Database = field(default_factory=Database)
    brokers: Brokers = field(default_factory=lambda: Brokers([]))
    now: Callable[[], datetime] = lambda: NOW
    rights: Callable[[Cluster, Iterable[str]], ClusterRights] = everything

    def all(self) -> list[CheckResult]:
        workspace = Workspace(self.root)
        if not workspace.connections_file.exists():
            document = {"default_environment": "", "connections": self.databases, "kafka_connections": self.clusters}
            workspace.connections_file.write_text(json.dumps(document), encoding="utf-8")
        settings = load_settings(workspace, {})
        return list(
            examine(
                Workspace(self.elsewhere or self.root),
                settings,
                load_connections(workspace, settings, {}),
                self.jobs,
                Servers(
                    open_source=lambda _: self.database,  # type: ignore[arg-type, return-value]
                    open_publisher=lambda _: self.brokers,  # type: ignore[arg-type, return-value]
                    ask_rights=self.rights,
                    now=self.now,
                ),
            )
        )

    def look(self, subject: str) -> list[CheckResult]:
        return [result for result in self.all() if result.subject == subject]

    def only(self, subject: str) -> CheckResult:
        (result,) = self.look(subject)
        return result


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_new_workspace_passes_everything_and_stays_as_it_was(scene: Scene) -> None:
    results = scene.all()
    assert {result.status for result in results} == {"pass"}
    assert [result.subject for result in results] == [
        "python",
        "clock",
        "disk",
        "permissions",
        "ledger",
        "metrics.duckdb",
    ]
    assert [path.name for path in scene.root.iterdir()] == ["connections.json"]


def test_the_clock_is_reported_in_the_time_zone_of_the_workspace(scene: Scene) -> None:
    assert scene.only("clock") == CheckResult("pass", "clock", "2026-01-17 11:30:00 Europe/Rome")


def test_a_clock_in_another_century_fails(scene: Scene) -> None:
    scene.now = lambda: datetime(1970, 1, 2, tzinfo=UTC)
    result = scene.only("clock")
    assert (result.status, result.text) == ("fail", "1970-01-02 01:00:00 Europe/Rome cannot be right")
    assert result.remedy.startswith("set the clock")


def test_an_old_python_fails(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 1))
    assert scene.only("python") == CheckResult(
        "fail", "python", "version 3.9.1 is too old", "install Python 3.11 or newer"
    )


@pytest.mark.parametrize(("limit", "status"), [("LITTLE_SPACE_BYTES", "warn"), ("NO_SPACE_BYTES", "fail")])
def test_a_disk_below_a_limit_is_reported(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, limit: str, status: str
) -> None:
    monkeypatch.setattr(doctor, limit, 10**18)  # no disk of a test machine can be filled for this
    result = scene.only("disk")
    assert (result.status, result.remedy) == (status, "make room on the disk of the workspace")
    assert "GB free" in result.text


@pytest.mark.skipif(sys.platform != "linux", reason="needs a folder that even an administrator cannot write")
def test_a_workspace_that_cannot_be_written_fails(scene: Scene) -> None:
    scene.elsewhere = Path("/proc")
    result = scene.only("permissions")
    assert (result.status, result.text.partition(":")[0]) == ("fail", "the workspace cannot be written")
    assert "--workspace DIR" in result.remedy


SECRETS = [
    ("connections.json", json.dumps({"connections": [A00 | {"password": "tiger"}]}), True),
    ("connections.json", json.dumps({"kafka_connections": {"a": {"sasl_password": "tiger"}}}), True),
    ("connections.json", json.dumps({"connections": [A00 | {"password": "keyring:a/b"}]}), False),
    (".env", "KAFKA_LINGER_MS=5\nKAFKA_SASL_PASSWORD='tiger'\n", True),
    (".env", "A00_CDG=tiger\n", True),
    (".env", "# KAFKA_SASL_PASSWORD=tiger\nKAFKA_SASL_PASSWORD=file:secrets/kafka\nPSTT_FETCH_ROWS=10\n", False),
]


@pytest.mark.skipif(os.name == "nt", reason="rights are inherited there")
@pytest.mark.parametrize(("name", "text", "is_literal"), SECRETS)
def test_a_password_in_a_file_that_others_may_read_is_warned(
    scene: Scene, name: str, text: str, is_literal: bool
) -> None:
    file = scene.root / name
    file.write_text(text, encoding="utf-8")
    file.chmod(0o644)
    warned = [result for result in scene.look("permissions") if result.status == "warn"]
    assert bool(warned) == is_literal
    assert all(f"{name} holds a password and every account here may read it" == result.text for result in warned)
    assert all(f"chmod 600 {name}" in result.remedy and "tiger" not in str(result) for result in warned)
    file.chmod(0o600)
    assert {result.status for result in scene.look("permissions")} == {"pass"}


def start_run(scene: Scene, began: datetime) -> None:
    plan = Plan(JOB, Query("q.sql", (Step("SELECT 1"),), {}, "0" * 64), "Kafka", "t", NOW, batch_size=100)
    with Ledger(Workspace(scene.root).ledger_file) as ledger:
        ledger.start(plan, began)


def test_a_whole_ledger_passes(scene: Scene) -> None:
    start_run(scene, NOW - timedelta(hours=1))
    assert scene.only("ledger") == CheckResult("pass", "ledger", "opens, and is whole")


def test_a_ledger_filled_with_garbage_fails_and_the_rest_is_looked_at(scene: Scene) -> None:
    file = Workspace(scene.root).ledger_file
    file.parent.mkdir()
    file.write_bytes(b"garbage" * 1000)
    result = scene.only("ledger")
    assert result.status == "fail"
    assert "ledger.sqlite" in result.text
    assert result.remedy
    assert scene.only("metrics.duckdb").status == "pass"


def test_a_ledger_with_a_damaged_page_fails(scene: Scene) -> None:
    start_run(scene, NOW)
    file = Workspace(scene.root).ledger_file
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'reject'").fetchone()
    with file.open("r+b") as stream:
        stream.seek((page - 1) * 4096)
        stream.write(b"\xff" * 4096)
    result = scene.only("ledger")
    assert (result.status, result.text.partition(":")[0]) == ("fail", "ledger.sqlite is damaged")
    assert "restore ledger.sqlite from a backup" in result.remedy


def test_a_clock_that_was_set_back_before_the_newest_run_is_warned(scene: Scene) -> None:
    start_run(scene, NOW + timedelta(days=1))
    warned = [result for result in scene.look("clock") if result.status == "warn"]
    assert [result.text for result in warned] == [
        "the newest run began at 2026-01-18 10:30 UTC, which is still to come"
    ]


def make_metrics(scene: Scene, *copied: str) -> Path:
    file = Workspace(scene.root).metrics_file
    with duckdb.connect(str(file)) as db:
        db.execute("CREATE TABLE segment (name VARCHAR)")
        for name in copied:
            db.execute("INSERT INTO segment VALUES (?)", [name])
    return file


def test_segments_that_wait_to_be_copied_are_counted(scene: Scene) -> None:
    make_metrics(scene, "a-000001.parquet")
    spool = Workspace(scene.root).spool_dir
    spool.mkdir(parents=True)
    for name in ("a-000001.parquet", "b-000001.parquet", "c-000001.parquet"):
        (spool / name).touch()
    assert scene.only("metrics.duckdb") == CheckResult("pass", "metrics.duckdb", "opens, 1 segment copied, 2 wait")
    (scene.root / "metrics.duckdb").unlink()
    assert scene.only("metrics.duckdb") == CheckResult(
        "pass", "metrics.duckdb", "not made yet, 3 segments in the spool"
    )


def test_metrics_that_another_process_holds_are_a_warning(scene: Scene) -> None:
    import subprocess

    file = make_metrics(scene)
    hold = "import duckdb, sys; db = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == b"held"
        result = scene.only("metrics.duckdb")
    assert (result.status, result.text.partition(" (")[0]) == ("warn", "is open in another program")
    assert "nothing is lost" in result.remedy


def test_segments_that_were_set_aside_are_a_warning_with_their_names(scene: Scene) -> None:
    damaged = Workspace(scene.root).spool_dir / "damaged"
    damaged.mkdir(parents=True)
    assert scene.look("spool") == []
    (damaged / "aaaaaaaaaa-000001.parquet").write_bytes(b"")
    result = scene.only("spool")
    assert result.status == "warn"
    assert "aaaaaaaaaa-000001.parquet" in result.text
    assert "backup" in result.remedy


def test_metrics_filled_with_garbage_fail_with_the_command_that_makes_them_again(scene: Scene) -> None:
    Workspace(scene.root).metrics_file.write_bytes(b"garbage" * 1000)
    result = scene.only("metrics.duckdb")
    assert (result.status, result.text.partition(" (")[0]) == ("fail", "cannot be read")
    assert "python -m core metrics rebuild" in result.remedy


def test_results_of_a_database_have_its_name(scene: Scene) -> None:
    scene.databases = [A00]
    scene.database = Database(
        CheckResult("pass", "version", "SQLite 3.45"),
        CheckResult("fail", "", "no answer", "start it", unreachable=True),
    )
    assert scene.look("database A00") == [
        CheckResult("pass", "database A00", "version: SQLite 3.45"),
        CheckResult("fail", "database A00", "no answer", "start it", unreachable=True),
    ]
    assert scene.database.closed


def test_a_connection_whose_secret_is_missing_fails_and_the_next_is_looked_at(scene: Scene) -> None:
    scene.databases = [A00 | {"password": "env:A00_PASSWORD"}, A00 | {"name": "B00"}]
    scene.database = Database(CheckResult("pass", "", "SQLite 3.45"))
    result = scene.only("database A00")
    assert result.status == "fail"
    assert result.text.startswith("connections.json, line 1")
    assert result.text.endswith('connection "A00": the variable of env:A00_PASSWORD is not set')
    assert result.remedy == "set A00_PASSWORD in the environment or in .env"
    assert scene.only("database B00").status == "pass"


def test_an_odbc_driver_that_is_not_installed_is_reported_before_the_server_is_contacted(scene: Scene) -> None:
    pytest.importorskip("pyodbc", exc_type=ImportError)
    server = {"host": "bosc.example.com", "database": "BOSC", "driver": "ODBC Driver 99"}
    scene.databases = [{"name": "BOSC", "db_type": "sqlserver", **server}]
    result = scene.only("odbc driver")
    assert result.text.startswith('"ODBC Driver 99" is not installed (found: ')
    assert "ODBC Driver 18 for SQL Server" in result.remedy
    assert scene.look("database BOSC") == []


def test_a_cluster_that_answers_is_reported_with_the_topics_of_its_jobs(scene: Scene) -> None:
    scene.clusters = {"collaudo": CLUSTER}
    other = replace(JOB, slug="other", kafka_config=KafkaConfig())
    excel = replace(JOB, slug="excel", export_format="excel", kafka_config=KafkaConfig(topic="never"))
    scene.databases = [A00 | {"environment": "collaudo"}]
    scene.jobs = [JOB, other, excel]
    scene.brokers = Brokers([TopicInfo("pstt-traces", 6, 3)])
    reached, there, missing, account, may_write, may_make = scene.look("cluster Kafka Collaudo")
    assert reached.status == "pass"
    assert reached.text.startswith("kafka.example.com:9092 answered in ")
    assert reached.text.endswith(" ms, 1 topic")
    assert (there.status, there.text) == ("pass", 'topic "pstt-traces" of job export: 6 partitions')
    assert missing.status == "warn"
    assert missing.text == 'topic "pstt-data" of job other is not there, or this account may not see it'
    assert "have it made before the first run" in missing.remedy
    assert scene.brokers.closed
    assert account.text == "no account over PLAINTEXT; 3 brokers, cluster id c1"
    assert may_write.text == 'this account may write to topic "pstt-traces" (create, describe, write)'
    assert may_make.text == "this account may make topics"
    assert {result.status for result in (account, may_write, may_make)} == {"pass"}


def test_a_topic_that_the_account_may_not_write_to_fails_and_a_certificate_about_to_expire_is_warned(
    scene: Scene,
) -> None:
    scene.clusters = {"collaudo": CLUSTER}
    scene.databases = [A00 | {"environment": "collaudo"}]
    scene.jobs = [JOB]
    scene.brokers = Brokers([TopicInfo("pstt-traces", 6, 3)])
    soon = Certificate("kafka.example.com", "Our CA", NOW + timedelta(days=12, hours=1))
    scene.rights = lambda cluster, topics: ClusterRights(
        "c1", 1, frozenset(), {topic: frozenset({"DESCRIBE"}) for topic in topics}, soon
    )
    _, _, account, certificate, may_write, may_make = scene.look("cluster Kafka Collaudo")
    assert account.text.endswith("1 broker, cluster id c1")
    assert (certificate.status, certificate.text.partition(", valid")[0]) == (
        "warn",
        "certificate of kafka.example.com, issued by Our CA",
    )
    assert certificate.text.endswith("12 days")
    assert (may_write.status, may_write.text) == (
        "fail",
        'this account may not write to topic "pstt-traces" (only: describe)',
    )
    assert "WRITE and DESCRIBE" in may_write.remedy
    assert may_make.text == "this account may not make topics"


def test_with_kafka_python_ng_rights_are_not_asked_for(scene: Scene) -> None:
    scene.clusters = {"collaudo": CLUSTER | {"client": "kafka-python-ng", "enable_idempotence": False}}
    scene.databases = [A00]
    scene.rights = lambda cluster, topics: pytest.fail("it needs librdkafka")
    last = scene.look("cluster Kafka Collaudo")[-1]
    assert last == CheckResult(
        "pass", "cluster Kafka Collaudo", "kafka-python-ng does not report what this account may do there"
    )


def test_brokers_too_old_to_tell_rights_are_no_failure(scene: Scene) -> None:
    scene.clusters = {"collaudo": CLUSTER}
    scene.databases = [A00 | {"environment": "collaudo"}]
    scene.jobs = [JOB]
    scene.brokers = Brokers([TopicInfo("pstt-traces", 6, 3)])
    scene.rights = lambda cluster, topics: ClusterRights("", 1, None, dict.fromkeys(topics), None)
    last = scene.look("cluster Kafka Collaudo")[-1]
    assert (last.status, last.text.rpartition(", ")[2]) == ("warn", "these brokers do not report")


def test_a_mock_cluster_makes_its_topics_itself(scene: Scene) -> None:
    scene.clusters = {"collaudo": CLUSTER | {"mock_brokers": 1}}
    scene.databases = [A00 | {"environment": "collaudo"}]
    scene.jobs = [JOB]
    reached, topic = scene.look("cluster Kafka Collaudo")
    assert reached.text.startswith("mock brokers in this process answered")
    assert (topic.status, topic.text) == ("pass", 'topic "pstt-traces" of job export is made on first use')


def test_a_cluster_that_is_away_is_unreachable_and_one_that_says_no_is_not(scene: Scene) -> None:
    scene.clusters = {"collaudo": CLUSTER}
    away = BrokerUnavailable("no broker answers", why="connection refused", remedy="start it")
    scene.brokers = Brokers(away)
    assert scene.only("cluster Kafka Collaudo") == CheckResult(
        "fail", "cluster Kafka Collaudo", "no broker answers: connection refused", "start it", unreachable=True
    )
    assert scene.brokers.closed
    scene.brokers = Brokers(NotAuthorised("cannot log in", why="password refused", remedy="mend it"))
    assert scene.only("cluster Kafka Collaudo").unreachable is False


def test_a_cluster_with_a_missing_secret_fails_without_stopping_the_others(scene: Scene) -> None:
    secured = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "pstt"}
    scene.clusters = {"produzione": {"name": "P", "sasl_password": "env:P_PASSWORD", **secured}, "collaudo": CLUSTER}
    scene.databases = [A00]
    scene.jobs = [replace(JOB, slug="lost", kafka_config=KafkaConfig(cluster="produzione"))]
    assert scene.only("cluster produzione").text.endswith('cluster "P": the variable of env:P_PASSWORD is not set')
    assert scene.only("job lost").status == "fail"
    assert {result.status for result in scene.look("cluster Kafka Collaudo")} == {"pass"}


def test_a_cluster_of_the_settings_alone_is_reached_for_the_jobs_that_use_it(scene: Scene) -> None:
    scene.databases = [A00]
    scene.jobs = [JOB]
    reached, topic, *_ = scene.look("cluster KAFKA_* settings")
    assert reached.text.startswith("localhost:9092 answered in ")
    assert topic.status == "warn"


def test_results_come_as_they_are_found(scene: Scene) -> None:
    scene.clusters = {"collaudo": CLUSTER}
    scene.all()
    workspace = Workspace(scene.root)
    settings = load_settings(workspace, {})
    results = examine(
        workspace,
        settings,
        load_connections(workspace, settings, {}),
        [],
        Servers(
            open_source=lambda _: pytest.fail("a database was reached before the first result was read"),
            open_publisher=lambda _: pytest.fail("a broker was reached before the first result was read"),
            ask_rights=everything,
            now=lambda: NOW,
        ),
    )
    assert next(results).subject == "python"


def test_every_result_has_a_json_form(scene: Scene) -> None:
    from dataclasses import asdict

    assert json.loads(json.dumps([asdict(result) for result in scene.all()]))[0]["unreachable"] is False
