"""A real Apache Kafka broker from Maven, on this machine, with every kind of listener."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from filelock import FileLock

from tests.rigs.certificates import make_certificates
from tests.rigs.errors import RigMissing

LISTENERS = ("plaintext", "ssl", "mtls", "sasl_plaintext", "sasl_ssl", "ssl_expired", "ssl_wrong_host")
PROTOCOLS = {"plaintext": "PLAINTEXT", "sasl_plaintext": "SASL_PLAINTEXT", "sasl_ssl": "SASL_SSL"}
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


def cache_dir() -> Path:
    """Where downloads are kept between runs, outside the tree."""
    if given := os.environ.get("PSTT_TEST_CACHE"):
        return Path(given)
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pstt-kafka-tests"


def kafka_jars() -> Path:
    """The folder with Kafka's jars; fetched by Maven the first time, whole or not at all."""
    libs = cache_dir() / "kafka-4.1.0"
    libs.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(libs.with_suffix(".lock")):
        if libs.is_dir():
            return libs
        maven = shutil.which("mvn")
        if maven is None or shutil.which("java") is None:
            raise RigMissing("Kafka needs java and mvn on the PATH")
        aside = Path(tempfile.mkdtemp(dir=libs.parent))
        pom = Path(__file__).with_name("kafka-pom.xml")
        fetch = [maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
        for attempt in range(3):
            done = subprocess.run([*fetch, f"-DoutputDirectory={aside}"], capture_output=True, text=True, check=False)
            if done.returncode == 0:
                aside.replace(libs)
                return libs
            time.sleep(5 * attempt)
        shutil.rmtree(aside, ignore_errors=True)
        raise RigMissing(f"Maven could not fetch Kafka: {done.stdout[-500:]}{done.stderr[-500:]}")


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class KafkaRig:
    """One broker in KRaft mode. Each listener is an attribute with its "host:port".

    Args:
        auto_create: Whether topics are made on first use.
        properties: Further broker properties.
    """

    username = "pstt"
    password = "pstt-secret-4711"
    limited_username = "limited"
    limited_password = "limited-secret-4712"

    plaintext: str
    ssl: str
    mtls: str
    sasl_plaintext: str
    sasl_ssl: str
    ssl_expired: str
    ssl_wrong_host: str

    def __init__(self, *, auto_create: bool = False, properties: Mapping[str, str] | None = None) -> None:
        self.auto_create = auto_create
        self.properties = dict(properties or {})
        self._process: subprocess.Popen[bytes] | None = None

    # ── life ──────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> KafkaRig:
        self._libs = kafka_jars()
        self._folder = Path(tempfile.mkdtemp(prefix="pstt-kafka-"))
        self.certificates = make_certificates(self._folder)
        self.ca_file = self.certificates.ca_file
        self.other_ca_file = self.certificates.other_ca_file
        self.client_cert_file = self.certificates.client_cert_file
        self.client_key_file = self.certificates.client_key_file
        *ports, self._controller = free_ports(len(LISTENERS) + 1)
        for name, port in zip(LISTENERS, ports, strict=True):
            setattr(self, name, f"127.0.0.1:{port}")
        self._config = self._folder / "server.properties"
        self._config.write_text("\n".join(f"{k}={v}" for k, v in self._settings().items()), encoding="utf-8")
        try:
            self._format()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Starts the broker, also again after `kill`, on the same ports and data."""
        log = (self._folder / "broker.log").open("ab")
        command = ["java", "-Xmx512m", "-Xms256m", "-XX:+UseSerialGC", "-cp", f"{self._libs}{os.sep}*"]
        command += ["kafka.Kafka", str(self._config)]
        self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, preexec_fn=_die_with_parent if sys.platform == "linux" else None)
        log.close()
        self._admin = AdminClient({"bootstrap.servers": self.plaintext, "log_level": 0, "socket.timeout.ms": 5000})
        end = time.monotonic() + 60
        while True:
            try:
                self._admin.list_topics(timeout=1)
                return
            except KafkaException:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"Kafka did not start:\n{self.log_tail()}") from None

    def stop(self) -> None:
        """Ends the broker in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the broker as a power cut would."""
        self._end(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)

    def _end(self, how: int) -> None:
        if self._process:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def pause(self) -> None:
        """The broker keeps its connections and answers nothing (POSIX)."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Goes on after `pause`."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def log_tail(self, lines: int = 20) -> str:
        text = (self._folder / "broker.log").read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    # ── topics ────────────────────────────────────────────────────────────────────────────────

    def create_topic(
        self, name: str | None = None, partitions: int = 3, config: Mapping[str, str] | None = None
    ) -> str:
        name = name or f"t-{uuid.uuid4().hex[:10]}"
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
        for future in self._admin.create_topics([topic]).values():
            future.result(30)
        return name

    def topic_config(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        (future,) = self._admin.describe_configs([resource]).values()
        return {name: entry.value for name, entry in future.result(30).items()}

    def read(self, topic: str, isolation: str = "read_committed") -> list[Message]:
        """Every visible message, partition by partition, in order; ends, also when nothing is there."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.plaintext,
                "group.id": f"rig-{uuid.uuid4().hex}",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        try:
            partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
            return _until_the_end(consumer, len(partitions))
        finally:
            consumer.close()

    def count(self, topic: str) -> int:
        """Records up to the high watermark, transaction markers among them."""
        consumer = Consumer({"bootstrap.servers": self.plaintext, "group.id": "rig-count", "log_level": 0})
        try:
            partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
            spans = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=10) for p in partitions]
            return sum(high - low for low, high in spans)
        finally:
            consumer.close()

    # ── configuration ─────────────────────────────────────────────────────────────────────────

    def _format(self) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = ["java", "-cp", f"{self._libs}{os.sep}*", "kafka.tools.StorageTool", "format", "-t", cluster]
        command += ["-c", str(self._config)]
        for user, password in self._users().items():
            for mechanism in MECHANISMS[1:]:
                command += ["--add-scram", f"{mechanism}=[name={user},password={password}]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self._folder)
        if done.returncode:
            raise RuntimeError(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")

    def _users(self) -> dict[str, str]:
        return {self.username: self.password, self.limited_username: self.limited_password}

    def _settings(self) -> dict[str, str]:
        addresses = ",".join(f"{name.upper()}://{getattr(self, name)}" for name in LISTENERS)
        protocols = ",".join(f"{name.upper()}:{PROTOCOLS.get(name, 'SSL')}" for name in LISTENERS)
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{self._controller}",
            "listeners": f"{addresses},CONTROLLER://127.0.0.1:{self._controller}",
            "advertised.listeners": addresses,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._folder / "data"),
            "num.partitions": "3",
            "auto.create.topics.enable": str(self.auto_create).lower(),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "group.initial.rebalance.delay.ms": "0",
            "log.segment.bytes": "52428800",
            "log.cleaner.dedupe.buffer.size": "2097152",
            "sasl.enabled.mechanisms": ",".join(MECHANISMS),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.certificates.ca_file),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS;User:pstt;User:CN=pstt",
            **self._sasl_settings(),
        }
        stores = {"ssl_expired": self.certificates.expired, "ssl_wrong_host": self.certificates.wrong_host}
        for name in LISTENERS:
            if "ssl" in name or name == "mtls":
                prefix = f"listener.name.{name}"
                settings[f"{prefix}.ssl.keystore.type"] = "PEM"
                settings[f"{prefix}.ssl.keystore.location"] = str(stores.get(name, self.certificates.server))
        settings["listener.name.mtls.ssl.client.auth"] = "required"
        # trustme's certificates name a person nowhere: every one that the authority signed may do everything.
        settings["listener.name.mtls.principal.builder.class"] = (
            "org.apache.kafka.common.security.authenticator.DefaultKafkaPrincipalBuilder"
        )
        settings["listener.name.mtls.ssl.principal.mapping.rules"] = "RULE:.*/pstt/"
        return settings | self.properties

    def _sasl_settings(self) -> dict[str, str]:
        plain = "org.apache.kafka.common.security.plain.PlainLoginModule required " + " ".join(
            f'user_{user}="{password}"' for user, password in self._users().items()
        )
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        settings = {}
        for name in ("sasl_plaintext", "sasl_ssl"):
            settings[f"listener.name.{name}.plain.sasl.jaas.config"] = f"{plain};"
            settings[f"listener.name.{name}.scram-sha-256.sasl.jaas.config"] = scram
            settings[f"listener.name.{name}.scram-sha-512.sasl.jaas.config"] = scram
        return settings


def _until_the_end(consumer: Consumer, open_partitions: int) -> list[Message]:
    from confluent_kafka import KafkaError

    found: list[Message] = []
    quiet_until = time.monotonic() + 30
    while open_partitions and time.monotonic() < quiet_until:
        for message in consumer.consume(10_000, timeout=0.5):
            quiet_until = time.monotonic() + 30
            error = message.error()
            if error is None:
                found.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                open_partitions -= 1
            else:
                raise KafkaException(error)
    if open_partitions:
        raise TimeoutError(f"{open_partitions} partitions did not end")
    return sorted(found, key=lambda message: (message.partition(), message.offset()))


def _die_with_parent() -> None:
    """Linux ends the broker with the process that started it, whatever ended that."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
