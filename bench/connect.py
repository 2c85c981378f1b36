"""The peer: Kafka Connect standalone with Aiven's JDBC source connector, over the same rows.

Connect and PostgreSQL's driver come from Maven. The connector is published only as a release on GitHub, so its path is
an option. Where the settings of the two sides cannot be equal, the peer has the advantage: its dates and times are plain
integers, the driver and the connector fetch 2,000 rows at a time, and five requests are in flight in place of one,
Connect's default.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
from confluent_kafka import Consumer

from bench.arrival import Arrival
from bench.figures import Measurement, NotMeasured
from bench.processes import POLL_S, Usage
from bench.table import COLUMNS, QUERY
from core.model.connection import Cluster
from tests.rigs.errors import RigMissing
from tests.rigs.kafka import KafkaRig, maven_jars
from tests.rigs.postgres import PostgresRig
from tests.rigs.server import free_ports, tail

POM = Path(__file__).with_name("connect-pom.xml")
CONNECTOR = "jdbc-connector-for-apache-kafka"
DRIVER = "postgresql"
# As in connect-standalone.sh and kafka-run-class.sh of Kafka 4.1, but for the heap: the script allows 2 GB, of which the
# collector takes more the busier the machine is. With 512 MB the peer was as fast and took half of the memory.
JAVA = (
    "-Xms256M",
    "-Xmx512M",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
GIVE_UP_S = 600
ROWS_A_FETCH = 2_000
"""Of the driver and of the connector, as ours (PSTT_FETCH_ROWS); by default the driver reads the whole result into memory."""


class Peer:
    """Kafka Connect with the connector, ready to be started; a context manager.

    Args:
        path: The connector: a folder, a jar, or the zip or tar of its release. None: the peer is not measured.
        java: Options of the JVM on top of JAVA.

    Raises:
        NotMeasured: On entering: no path, no connector at the path, no Java, or Maven could not fetch Connect.
    """

    def __init__(self, path: Path | None, java: tuple[str, ...] = ()) -> None:
        self._path, self._java = path, (*JAVA, *java)

    def __enter__(self) -> Peer:
        if self._path is None:
            raise NotMeasured("no --peer PATH: the folder, jar, zip or tar of Aiven's JDBC connector")
        try:
            jars = maven_jars("connect", POM)
        except RigMissing as missing:
            raise NotMeasured(str(missing)) from None
        self._folder = Path(tempfile.mkdtemp(prefix="pstt-connect-"))
        try:
            self._fill_plugin(jars, self._path)
        except BaseException:
            self.__exit__()
            raise
        own = [jar for jar in sorted(jars.glob("*.jar")) if not jar.name.startswith(DRIVER)]
        self._class_path = os.pathsep.join(map(str, own))
        return self

    def __exit__(self, *exc_info: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _fill_plugin(self, jars: Path, given: Path) -> None:
        """Copies the connector's jars into a plugin folder of their own, with the driver where they have none."""
        plugin = self._folder / "plugins" / "jdbc"
        plugin.mkdir(parents=True)
        for jar in _jars_at(given, self._folder / "unpacked"):
            shutil.copy(jar, plugin)
        if not list(plugin.glob(f"{CONNECTOR}*.jar")):
            raise NotMeasured(f"{given} has no {CONNECTOR}-….jar")
        if not list(plugin.glob(f"{DRIVER}-*.jar")):
            for jar in jars.glob(f"{DRIVER}-*.jar"):
                shutil.copy(jar, plugin)

    def measure(self, postgres: PostgresRig, kafka: KafkaRig, *, topic: str, rows: int, batch_size: int) -> Measurement:
        """Runs Connect until the topic has got all rows.

        Returns:
            Seconds from the start of the process to the last message; CPU and memory up to then.

        Raises:
            NotMeasured: Connect ended, or did not send all rows.
        """
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        (port,) = free_ports(1)
        worker = _file(folder / "worker.properties", self._worker(folder, kafka.plaintext, port))
        source = _file(folder / "source.properties", _source(postgres, topic, batch_size))
        main = "org.apache.kafka.connect.cli.ConnectStandalone"
        command = ["java", *self._java, "-cp", self._class_path, main, str(worker), str(source)]
        arrival, usage = Arrival(kafka.plaintext, topic, rows), Usage()
        broker = psutil.Process(kafka.pid)
        log, before = folder / "connect.log", broker.cpu_times()
        with log.open("wb") as output:
            started = time.perf_counter()
            child = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output)
            try:
                _until_all_arrived(child, arrival, usage, log)
                after = broker.cpu_times()
            finally:
                _end(child)
        assert arrival.last_at
        _require_same(kafka.plaintext, topic)
        if arrival.arrived != rows:
            raise NotMeasured(f"Kafka Connect sent {arrival.arrived:,} messages for {rows:,} rows")
        return {
            "rows": rows,
            "seconds": arrival.last_at - started,
            "cpu_s": usage.cpu_s,
            "broker_cpu_s": after.user + after.system - before.user - before.system,
            "peak_mb": usage.peak_mb,
            "between_s": arrival.between_s,
        }

    def _worker(self, folder: Path, bootstrap_servers: str, port: int) -> dict[str, str]:
        return {
            "bootstrap.servers": bootstrap_servers,
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.json.JsonConverter",
            "value.converter.schemas.enable": "false",
            "value.converter.decimal.format": "NUMERIC",
            "offset.storage.file.filename": (folder / "offsets").as_posix(),
            "plugin.path": (self._folder / "plugins").as_posix(),
            "connector.client.config.override.policy": "All",
            "listeners": f"HTTP://127.0.0.1:{port}",
        }


def _until_all_arrived(child: subprocess.Popen[bytes], arrival: Arrival, usage: Usage, log: Path) -> None:
    process, give_up_at = psutil.Process(child.pid), time.monotonic() + GIVE_UP_S
    while not arrival.poll():
        if child.poll() is not None:
            raise NotMeasured(f"Kafka Connect ended with code {child.returncode}:\n{tail(log)}")
        # A task that failed leaves the process running.
        if arrival.first_at is None and "Task is being killed" in (said := tail(log, 60)):
            raise NotMeasured(f"Kafka Connect did not start its task:\n{said}")
        if time.monotonic() > give_up_at:
            raise NotMeasured(f"Kafka Connect sent {arrival.arrived:,} messages in {GIVE_UP_S} s:\n{tail(log)}")
        usage.update(process)
        time.sleep(POLL_S)
    usage.update(process)


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(20)
    child.kill()
    child.wait()


def _require_same(bootstrap_servers: str, topic: str) -> None:
    """Raises NotMeasured unless a message of the peer has the key and the columns that ours have."""
    settings = {"group.id": "bench", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, **settings}, logger=logging.getLogger("pstt.kafka"))
    try:
        consumer.subscribe([topic])
        (message,) = consumer.consume(1, timeout=30)
    finally:
        consumer.close()
    value = json.loads(message.value())
    if list(value) != COLUMNS.split(", ") or value["barcode"].encode() != message.key():
        raise NotMeasured(f"the peer makes other messages: {message.key()}: {message.value()}")


def _source(postgres: PostgresRig, topic: str, batch_size: int) -> dict[str, str]:
    ours = Cluster(name="", bootstrap_servers="")
    producer = {
        "acks": "all",
        "enable.idempotence": str(ours.enable_idempotence).lower(),
        "compression.type": ours.compression_type,
        "linger.ms": str(ours.linger_ms),
        "batch.size": str(batch_size),
        "max.in.flight.requests.per.connection": str(ours.max_in_flight_requests),
    }
    address = f"jdbc:postgresql://{postgres.host}:{postgres.port}/{postgres.database}"
    return {
        "name": "export",
        "connector.class": "io.aiven.connect.jdbc.JdbcSourceConnector",
        "tasks.max": "1",
        "connection.url": f"{address}?defaultRowFetchSize={ROWS_A_FETCH}",
        "connection.user": postgres.user,
        "connection.password": postgres.password,
        "mode": "bulk",
        "query": QUERY,
        "topic.prefix": topic,
        "batch.max.rows": str(ROWS_A_FETCH),
        "poll.interval.ms": "86400000",  # the table once, and not again before the end of the measurement
        "transforms": "key,plain",
        "transforms.key.type": "org.apache.kafka.connect.transforms.ValueToKey",
        "transforms.key.fields": "barcode",
        "transforms.plain.type": "org.apache.kafka.connect.transforms.ExtractField$Key",
        "transforms.plain.field": "barcode",
        **{f"producer.override.{name}": value for name, value in producer.items()},
    }


def _file(file: Path, properties: Mapping[str, str]) -> Path:
    file.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), encoding="utf-8")
    return file


def _jars_at(path: Path, unpacked: Path) -> list[Path]:
    """The jars of a folder or of an archive, or the jar itself."""
    try:
        if path.suffix == ".jar":
            return [path] if path.is_file() else []
        if path.is_file():
            path = _unpack(path, unpacked)
    except (OSError, tarfile.TarError, zipfile.BadZipFile, shutil.ReadError) as error:
        raise NotMeasured(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    return sorted(path.rglob("*.jar"))


def _unpack(archive: Path, folder: Path) -> Path:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    else:
        with tarfile.open(archive) as opened:
            opened.extractall(folder, filter="data")
    return folder
