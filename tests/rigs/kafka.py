"""A real Apache Kafka broker from Maven, on this machine, with every kind of listener."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
)
from filelock import FileLock, Timeout

from tests.rigs.certificates import CLIENT_NAME, make_certificates
from tests.rigs.errors import RigMissing, ServerFailed
from tests.rigs.server import Server, start_on_free_ports, tail

# Listener → its protocol. Each is an attribute of KafkaRig with its "host:port".
LISTENERS = {
    "plaintext": "PLAINTEXT",
    "ssl": "SSL",
    "mtls": "SSL",
    "sasl_plaintext": "SASL_PLAINTEXT",
    "sasl_ssl": "SASL_SSL",
    "ssl_expired": "SSL",
    "ssl_wrong_host": "SSL",
}
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
QUIET = {"log_level": 0, "socket.timeout.ms": 5000}
SHOWN_S = 10.0
POM = Path(__file__).with_name("kafka-pom.xml")
QUICK = ["-XX:TieredStopAtLevel=1"]
"""How Java starts for a test: it hardly optimises."""
FEW_THREADS = {"num.network.threads": "1", "num.io.threads": "4"}
"""The first for each listener. More of them cost a broker of a test a quarter of its start."""


# ── the program ───────────────────────────────────────────────────────────────────────────────


def cache_dir() -> Path:
    """Where downloads are kept between runs, outside the tree."""
    if given := os.environ.get("PSTT_TEST_CACHE"):
        return Path(given)
    base = os.environ.get("LOCALAPPDATA") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "pstt-kafka-tests"


def kafka_jars() -> Path:
    """The folder with Kafka's jars; fetched by Maven the first time."""
    return maven_jars("kafka", POM)


def kafka_origin() -> str:
    """Returns which broker the tests use.

    Raises:
        RigMissing: There is none, and none can be fetched.
    """
    if given := os.environ.get("KAFKA_TEST_BOOTSTRAP_SERVERS"):
        return f"KAFKA_TEST_BOOTSTRAP_SERVERS = {given}"
    java, jars = _java("kafka"), _jars("kafka", POM)
    if jars.is_dir():
        return f"{jars.name} with {java}"
    return f"fetched by {_maven('kafka')} for the first test, with {java}"


def maven_jars(name: str, pom: Path) -> Path:
    """The folder with the jars that a pom names, runtime dependencies included; fetched once, whole or not at all.

    Raises:
        RigMissing: There is no Java or no Maven, or a jar cannot be fetched.
    """
    _java(name)
    jars = _jars(name, pom)
    jars.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(jars.with_suffix(".lock")):
        if not jars.is_dir():
            aside = jars.with_suffix(".part")
            shutil.rmtree(aside, ignore_errors=True)
            _download(name, pom, aside)
            aside.replace(jars)
    return jars


def prepared_classes(jars: Path) -> Path:
    """Returns the file with the classes of a broker as Java loads them; of this Java and these jars."""
    java = Path(_java("kafka")).resolve()
    of_java = hashlib.sha256(f"{java} {java.stat().st_mtime_ns}".encode()).hexdigest()[:10]
    return jars.with_name(f"{jars.name}-{of_java}.jsa")


def _jars(name: str, pom: Path) -> Path:
    return cache_dir() / f"{name}-{hashlib.sha256(pom.read_bytes()).hexdigest()[:10]}"


def _java(name: str) -> str:
    if found := shutil.which("java"):
        return found
    raise RigMissing("kafka", f"{name} needs Java: no `java` on the PATH")


def _maven(name: str) -> str:
    if found := shutil.which("mvn"):
        return found
    raise RigMissing("kafka", f"{name} is fetched with Maven: no `mvn` on the PATH")


def _download(name: str, pom: Path, folder: Path) -> None:
    command = [_maven(name), "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    for wait_s in (5, 15, 0):
        done = subprocess.run(
            [*command, f"-DoutputDirectory={folder}"], capture_output=True, text=True, encoding="utf-8", check=False
        )
        if done.returncode == 0:
            return
        time.sleep(wait_s)
    raise RigMissing("kafka", f"Maven could not fetch {name}: {(done.stdout + done.stderr).strip()[-500:]}")


# ── topics of any broker ──────────────────────────────────────────────────────────────────────


class KafkaTopics:
    """What tests do with the topics of a broker, over its plaintext listener."""

    plaintext: str

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.plaintext, **QUIET})

    def create_topic(
        self,
        name: str | None = None,
        partitions: int = 3,
        config: Mapping[str, str] | None = None,
        replicas: Sequence[int] = (),
    ) -> str:
        """Makes a topic and waits until it can be written; without a name, one of its own.

        Args:
            name: Its name.
            partitions: How many.
            config: Its settings.
            replicas: The brokers that keep it; then it has one partition.
        """
        is_new = name is None
        name = name or f"t-{uuid.uuid4().hex[:10]}"
        admin = self._admin()
        if replicas:
            partitions = 1
            topic = NewTopic(name, num_partitions=1, replica_assignment=[list(replicas)], config=dict(config or {}))
        else:
            topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
        admin.create_topics([topic])[name].result(30)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            found = admin.list_topics(timeout=10).topics.get(name)
            if found and len(found.partitions) == partitions and all(p.leader >= 0 for p in found.partitions.values()):
                break
            time.sleep(0.02)
        else:
            raise TimeoutError(f"topic {name} was made and has no leaders")
        if is_new:
            return name
        # A deleted topic of that name may still have its log, which closes a moment after its metadata.
        newest = {TopicPartition(name, number): OffsetSpec.latest() for number in range(partitions)}
        while time.monotonic() < end:
            with suppress(KafkaException):
                if all(found.result(30).offset == 0 for found in admin.list_offsets(newest).values()):
                    return name
            time.sleep(0.02)
        raise TimeoutError(f"topic {name} was made and is not empty")

    def replicas_in_sync(self, topic: str) -> tuple[int, set[int]]:
        """Leader and in-sync replicas of partition 0, by the ids of their brokers; leader -1: none."""
        found = self._admin().list_topics(topic, timeout=10).topics[topic].partitions[0]
        return found.leader, set(found.isrs)

    def delete_topic(self, topic: str) -> None:
        """Deletes a topic and waits until no broker knows it, or it was created again."""
        admin = self._admin()
        before = admin.describe_topics(TopicCollection([topic]))[topic].result(30).topic_id
        admin.delete_topics([topic])[topic].result(30)
        end = time.monotonic() + 30
        while time.monotonic() < end:
            try:
                if admin.describe_topics(TopicCollection([topic]))[topic].result(30).topic_id != before:
                    return
            except KafkaException as error:
                if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    return
                raise
            time.sleep(0.02)
        raise TimeoutError(f"topic {topic} was deleted and is still there")

    def topic_config(self, topic: str) -> dict[str, str]:
        """Each setting of a topic as the broker has it in force."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        admin = self._admin()  # it drops its requests when it is garbage-collected
        entries = admin.describe_configs([resource])[resource].result(30)
        return {name: entry.value for name, entry in entries.items()}

    def allow(self, user: str, topic: str, *operations: AclOperation) -> None:
        """Gives an account rights on a topic."""
        rules = [
            AclBinding(
                ResourceType.TOPIC,
                topic,
                ResourcePatternType.LITERAL,
                f"User:{user}",
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]
        admin = self._admin()
        for future in admin.create_acls(rules).values():
            future.result(30)

    def delete_records(self, topic: str) -> None:
        """Empties a topic; its offsets continue."""
        spans = self._offsets(topic)
        targets = [TopicPartition(topic, partition, high) for partition, (_, high) in spans.items()]
        admin = self._admin()
        for future in admin.delete_records(targets).values():
            future.result(30)

    def count(self, topic: str) -> int:
        """Offsets in use: the records, plus one marker a partition for each transaction. Cheap for millions."""
        return sum(high - low for low, high in self._offsets(topic).values())

    def read(
        self, topic: str, isolation: str = "read_committed", timeout_s: float = 60, at_least: int = 0
    ) -> list[Message]:
        """What a reader sees now, by partition and offset. Ends for empty topics, open transactions and busy writers.

        Args:
            topic: Its name.
            isolation: What the reader sees of transactions.
            timeout_s: For one reading.
            at_least: Waits up to 10 s until so many are there: a broker that has answered a commit shows its messages a
                moment later.

        Raises:
            KafkaException: No such topic, or the broker cannot be reached.
            TimeoutError: The end was not reached in `timeout_s`.
        """
        give_up = time.monotonic() + SHOWN_S
        while len(found := self._read(topic, isolation, timeout_s)) < at_least and time.monotonic() < give_up:
            time.sleep(0.05)
        return found

    def _read(self, topic: str, isolation: str, timeout_s: float) -> list[Message]:
        ends = {partition: high for partition, (low, high) in self._offsets(topic).items() if high > low}
        consumer = self._consumer(isolation)
        try:
            consumer.assign([TopicPartition(topic, partition, 0) for partition in ends])
            found = _until(ends, consumer, time.monotonic() + timeout_s)
        finally:
            consumer.close()
        return sorted(found, key=lambda message: (message.partition(), message.offset()))

    def _offsets(self, topic: str) -> dict[int, tuple[int, int]]:
        """Partition → first offset, and the one after the last."""
        consumer = self._consumer("read_uncommitted")
        try:
            found = consumer.list_topics(topic, timeout=10).topics[topic]
            if found.error:
                raise KafkaException(found.error)
            return {p: _span(consumer, TopicPartition(topic, p)) for p in found.partitions}
        finally:
            consumer.close()

    def _consumer(self, isolation: str) -> Consumer:
        settings = {"group.id": "rig", "enable.auto.commit": False, "enable.partition.eof": True, **QUIET}
        settings |= {"isolation.level": isolation, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 10}
        settings |= {"check.crcs": True}
        return Consumer({"bootstrap.servers": self.plaintext, **settings})


def _span(consumer: Consumer, place: TopicPartition) -> tuple[int, int]:
    """Retries, because a new leader may be known to others before it accepts requests."""
    for _ in range(50):
        try:
            return consumer.get_watermark_offsets(place, timeout=10)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
                raise
            time.sleep(0.1)
    raise TimeoutError(f"{place.topic}-{place.partition} has no leader")


def _until(ends: dict[int, int], consumer: Consumer, give_up_at: float) -> list[Message]:
    """Consumes until every partition is at its end: at that offset, or at the broker's end of partition."""
    found: list[Message] = []
    while ends:
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{len(found)} messages read, partitions {sorted(ends)} did not end in time")
        for message in consumer.consume(1_000, timeout=0.05):
            partition, error = message.partition(), message.error()
            if error and error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            if partition in ends and not error and message.offset() < ends[partition]:
                found.append(message)
            if partition in ends and (error or message.offset() >= ends[partition] - 1):
                del ends[partition]
    return found


class GivenKafka(KafkaTopics):
    """A broker that is there already (KAFKA_TEST_BOOTSTRAP_SERVERS); it has a plaintext listener and no more."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.plaintext = bootstrap_servers

    def __getattr__(self, name: str) -> str:
        if name.startswith("__") or (not hasattr(KafkaRig, name) and name not in KafkaRig.__annotations__):
            raise AttributeError(name)
        raise RigMissing("kafka", f"the broker of KAFKA_TEST_BOOTSTRAP_SERVERS has no `{name}`; unset it to start one")


# ── a broker of our own ───────────────────────────────────────────────────────────────────────


class KafkaRig(KafkaTopics):
    """One broker in KRaft mode, with the listeners of LISTENERS and three kinds of accounts.

    The plaintext listener, user `pstt` (PLAIN and both SCRAMs) and the client certificate may do everything; user
    `limited` may log in and do nothing.

    Args:
        auto_create: Whether topics are made on first use.
        properties: Further broker properties, such as message.max.bytes.
        for_long: Whether Java optimises fully: useful in a benchmark, too slow for a test.
    """

    listeners: ClassVar[Mapping[str, str]] = LISTENERS
    host: ClassVar[str] = "127.0.0.1"
    _formatted: ClassVar[dict[str, bytes]] = {}
    """The files of an empty storage, the same for all brokers of this process."""

    username = CLIENT_NAME
    password = "pstt-secret-4711"
    limited_username = "limited"
    limited_password = "limited-secret-4712"

    ssl: str
    mtls: str
    sasl_plaintext: str
    sasl_ssl: str
    ssl_expired: str
    ssl_wrong_host: str
    ca_file: Path
    other_ca_file: Path
    client_cert_file: Path
    client_key_file: Path

    def __init__(
        self, *, auto_create: bool = False, properties: Mapping[str, str] | None = None, for_long: bool = False
    ) -> None:
        self._chosen = {"auto.create.topics.enable": str(auto_create).lower(), **(properties or {})}
        self._is_for_long = for_long
        self._java = ["java"] if for_long else ["java", *QUICK]
        self._server: Server | None = None

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        return vars(self), self._formatted

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, bytes]]) -> None:
        """Becomes a copy for another process, which cannot stop the broker and starts brokers of its own sooner."""
        attributes, formatted = state
        vars(self).update(attributes)
        self._formatted.update(formatted)

    # ── life ──────────────────────────────────────────────────────────────────────────────────

    def __enter__(self) -> KafkaRig:
        self._class_path = f"{kafka_jars()}{os.sep}*"
        self._folder = Path(tempfile.mkdtemp(prefix="pstt-kafka-"))
        self._config, self._log = self._folder / "server.properties", self._folder / "broker.log"
        try:
            self._certificates = made = make_certificates(self._folder)
            self.ca_file, self.other_ca_file = made.ca_file, made.other_ca_file
            self.client_cert_file, self.client_key_file = made.client_cert_file, made.client_key_file
            start_on_free_ports(len(self.listeners) + 1, self._first_start)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _first_start(self, ports: list[int]) -> None:
        for name, port in zip(self.listeners, ports, strict=False):
            setattr(self, name, f"{self.host}:{port}")
        self.controller = f"127.0.0.1:{ports[-1]}"
        settings = {
            **self._settings(self.controller),
            **self._tls(),
            **self._sasl(),
            **({} if self._is_for_long else FEW_THREADS),
            **self._chosen,
        }
        self._config.write_text("\n".join(f"{k}={v}" for k, v in settings.items()), encoding="utf-8")
        self._fill(self._folder / "data")
        self._use_prepared_classes()
        self.start()

    def _use_prepared_classes(self) -> None:
        """Lets Java read its classes from an archive, which takes half the time; makes it once, from a broker that ends.

        Another process that needs a broker meanwhile starts one without it.
        """
        archive = prepared_classes(kafka_jars())
        if self._is_for_long or os.name == "nt":  # nt: its SIGTERM is a kill
            return
        with suppress(Timeout), FileLock(archive.with_suffix(".lock"), blocking=False):
            if self.listeners is LISTENERS and not archive.exists():  # the one that loads most classes
                aside = archive.with_suffix(".part")
                self._java.append(f"-XX:ArchiveClassesAtExit={aside}")
                try:
                    self.start()
                    assert self._server
                    self._server.signal("SIGTERM")
                    with suppress(subprocess.TimeoutExpired):
                        self._server.wait(120)
                finally:
                    self._java.pop()
                    self.kill()
                if aside.exists():
                    aside.replace(archive)
        if archive.exists():
            self._java += [f"-XX:SharedArchiveFile={archive}"]

    def _fill(self, data: Path) -> None:
        """Makes the files of an empty storage."""
        if not self._formatted:
            self._format()
            self._formatted.update((file.name, file.read_bytes()) for file in data.iterdir())
        elif not data.exists():
            data.mkdir()
            for name, content in self._formatted.items():
                (data / name).write_bytes(content)
            file = data / "meta.properties"  # each is a cluster of its own
            file.write_text(
                re.sub(r"(?m)^cluster\.id=.*$", f"cluster.id={_new_id()}", file.read_text("utf-8")), "utf-8"
            )

    def start(self, timeout_s: float = 60) -> None:
        """Starts the broker, also again after `stop` or `kill`, on the same ports and data; returns when it answers."""
        command = [*self._java, "-Xmx512m", "-XX:+UseSerialGC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]
        command += ["-cp", self._class_path, "kafka.Kafka", str(self._config)]
        self._server = Server(command, folder=self._folder, log=self._log)
        admin, end = self._admin(), time.monotonic() + timeout_s
        while not _answers(admin):
            if not self._server.is_running or time.monotonic() > end:
                self.kill()
                raise ServerFailed(f"Kafka did not start:\n{self.log_tail()}")

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._server is not None and self._server.is_running

    @property
    def pid(self) -> int:
        """The process id of the broker's JVM, whose CPU time a bench reads."""
        assert self._server
        return self._server.pid

    def stop(self) -> None:
        """Stops the broker cleanly, also a paused one."""
        if self._server:
            if os.name != "nt":
                self._server.signal("SIGCONT")
            self._server.end("SIGTERM")

    def kill(self) -> None:
        """Ends the broker as a power cut would."""
        if self._server:
            self._server.end()

    def pause(self) -> None:
        """Suspends the broker, which keeps its connections and does not respond (not on Windows)."""
        assert self._server
        self._server.signal("SIGSTOP")

    def resume(self) -> None:
        """Continues after `pause`."""
        assert self._server
        self._server.signal("SIGCONT")

    def log_tail(self, lines: int = 20) -> str:
        """The last warnings of the broker."""
        return tail(self._log, lines)

    # ── configuration ─────────────────────────────────────────────────────────────────────────

    @property
    def _users(self) -> dict[str, str]:
        return {self.username: self.password, self.limited_username: self.limited_password}

    def _format(self) -> None:
        # One in 64 would begin with "-", which the tool takes for an option.
        cluster = _new_id()
        command = ["java", "-XX:TieredStopAtLevel=1", "-cp", self._class_path, "kafka.tools.StorageTool", "format"]
        command += ["-t", cluster, "-c", str(self._config)]
        for user, password in self._users.items():
            for mechanism in SCRAM:
                command += ["--add-scram", f"{mechanism}=[name={user},password={password}]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self._folder)
        if done.returncode:
            raise ServerFailed(f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}")

    def _settings(self, controller: str) -> dict[str, str]:
        addresses = ",".join(f"{name.upper()}://{getattr(self, name)}" for name in self.listeners)
        protocols = ",".join(f"{name.upper()}:{protocol}" for name, protocol in self.listeners.items())
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listeners": f"{addresses},CONTROLLER://{controller}",
            "advertised.listeners": addresses,
            "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
            "log.dirs": (self._folder / "data").as_posix(),
            "num.partitions": "3",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "group.initial.rebalance.delay.ms": "0",
            "broker.heartbeat.interval.ms": "500",
            "metadata.max.idle.interval.ms": "0",  # else it writes a record each half second, for a quarter of its idle time
            "log.segment.bytes": "52428800",
            "log.cleaner.dedupe.buffer.size": "2097152",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{self.username}",
        }

    def _tls(self) -> dict[str, str]:
        made = self._certificates
        keystores = {"ssl_expired": made.expired, "ssl_wrong_host": made.wrong_host}
        settings = {
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": made.ca_file.as_posix(),
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.mtls.ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
        }
        for name in (name for name, protocol in self.listeners.items() if protocol.endswith("SSL")):
            settings[f"listener.name.{name}.ssl.keystore.type"] = "PEM"
            settings[f"listener.name.{name}.ssl.keystore.location"] = keystores.get(name, made.server).as_posix()
        return settings

    def _sasl(self) -> dict[str, str]:
        package = "org.apache.kafka.common.security"
        users = " ".join(f'user_{user}="{password}"' for user, password in self._users.items())
        settings = {"sasl.enabled.mechanisms": ",".join(("PLAIN", *SCRAM))}
        for name in (name for name, protocol in self.listeners.items() if protocol.startswith("SASL")):
            login = f"listener.name.{name}"
            settings[f"{login}.plain.sasl.jaas.config"] = f"{package}.plain.PlainLoginModule required {users};"
            for mechanism in SCRAM:
                settings[f"{login}.{mechanism.lower()}.sasl.jaas.config"] = (
                    f"{package}.scram.ScramLoginModule required;"
                )
        return settings


class PlainKafkaRig(KafkaRig):
    """A broker that starts in half the time of the processor: it has the plaintext listener alone."""

    listeners: ClassVar[Mapping[str, str]] = {"plaintext": "PLAINTEXT"}


class FurtherBroker(PlainKafkaRig):
    """One more broker of a cluster, whose controller is the first one's; it must not outlive it.

    Args:
        first: The broker with the controller; it is running.
        node_id: From 2.
        properties: As for the first one.
    """

    def __init__(self, first: KafkaRig, node_id: int, *, properties: Mapping[str, str] | None = None) -> None:
        super().__init__(properties=properties)
        self._first, self._node_id = first, node_id

    def _fill(self, data: Path) -> None:
        if data.exists():
            return
        data.mkdir()
        first = (self._first._folder / "data" / "meta.properties").read_text("utf-8")
        known = dict(line.split("=", 1) for line in first.split() if "=" in line)
        known |= {
            "node.id": str(self._node_id),
            "directory.id": base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:22],
        }
        (data / "meta.properties").write_text("\n".join(f"{k}={v}" for k, v in known.items()), encoding="utf-8")

    def _settings(self, controller: str) -> dict[str, str]:
        settings = super()._settings(controller)
        return settings | {
            "process.roles": "broker",
            "node.id": str(self._node_id),
            "controller.quorum.voters": f"1@{self._first.controller}",
            "listeners": settings["advertised.listeners"],
        }


def _new_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "A")


def _answers(admin: AdminClient) -> bool:
    """Whether the broker is in service; just before, it answers with an empty list of brokers."""
    try:
        if admin.list_topics(timeout=0.5).brokers:
            return True
    except KafkaException:
        pass
    time.sleep(0.05)
    return False
