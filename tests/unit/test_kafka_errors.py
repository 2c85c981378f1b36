"""Every error that a Kafka client can report is retriable or fatal on purpose; a new one fails here."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import get_args

import aiokafka.errors as aiokafka_client_errors
import kafka.errors as client_errors
import pytest
from confluent_kafka import KafkaError

from core.errors import (
    BatchTooLarge,
    BrokerUnavailable,
    ConfigError,
    DeliveryTimeout,
    MessageTooLarge,
    NotAuthorised,
    PsttError,
    RetriesExhausted,
    RunFailed,
    TopicMissing,
)
from core.kafka import aiokafka_errors, kafka_python, librdkafka
from core.kafka.aiokafka import AiokafkaPublisher
from core.kafka.diagnosis import Diagnosis, Family, read_cause
from core.kafka.kafka_python import KafkaPythonPublisher
from core.kafka.probe import Cause
from core.model.connection import Cluster

CLUSTER = Cluster("Kafka Collaudo", "kafka-1:9092")

# A producer's error for a message → the error of ours. Retriable or fatal as SPEC 8 says.
EXPECTED: dict[Family, type[PsttError]] = {
    "late": DeliveryTimeout,
    "away": BrokerUnavailable,
    "busy": BrokerUnavailable,
    "dropped": DeliveryTimeout,
    "login": NotAuthorised,
    "denied": NotAuthorised,
    "denied_cluster": NotAuthorised,
    "topic": TopicMissing,
    "name": ConfigError,
    "large": BatchTooLarge,
    "fenced": RunFailed,
    "setting": ConfigError,
    "refused": RunFailed,
    "void": RunFailed,
    "foreign": RunFailed,
}
RETRIABLE = {"late", "away", "busy", "dropped", "large"}


def diagnosis() -> Diagnosis:
    return Diagnosis(CLUSTER, look=lambda _: None)


def codes_of_librdkafka() -> dict[str, int]:
    """Each constant that names an error code; NO_ERROR is none."""
    constants = {
        name: value for name, value in vars(KafkaError).items() if name.strip("_").isupper() and isinstance(value, int)
    }
    return {name: code for name, code in constants.items() if name != "NO_ERROR"}


def classes_of(module: ModuleType) -> set[type[Exception]]:
    return {
        error
        for _, error in inspect.getmembers(module, inspect.isclass)
        if issubclass(error, Exception) and error.__module__ == module.__name__
    }


def classes_of_kafka_python() -> set[type[Exception]]:
    return classes_of(client_errors)


def classes_of_aiokafka() -> list[type[Exception]]:
    """Without the base class of a broker's errors, which has no code."""
    classes = classes_of(aiokafka_client_errors) - {aiokafka_client_errors.BrokerResponseError}
    return sorted(classes, key=lambda error: error.__name__)


def test_the_table_of_families_is_whole():
    assert set(EXPECTED) == set(get_args(Family)) == set(librdkafka.FAMILIES)
    assert set(kafka_python.FAMILIES) <= set(EXPECTED)
    assert set(aiokafka_errors.FAMILIES) <= set(EXPECTED)


def test_each_code_of_librdkafka_is_in_exactly_one_family():
    known = Counter(code for codes in librdkafka.FAMILIES.values() for code in codes)
    assert [code for code, times in known.items() if times > 1] == []
    codes = codes_of_librdkafka()
    assert len(codes) > 150
    unknown = {name for name, code in codes.items() if code not in known}
    assert unknown == set(), "sort these into librdkafka.FAMILIES"


def test_each_error_of_kafka_python_is_in_exactly_one_family():
    known = Counter(error for errors in kafka_python.FAMILIES.values() for error in errors)
    assert [error for error, times in known.items() if times > 1] == []
    classes = classes_of_kafka_python()
    assert len(classes) > 50
    assert classes - set(known) == set(), "sort these into kafka_python.FAMILIES"


@pytest.mark.parametrize("name", sorted(codes_of_librdkafka()))
def test_code_of_librdkafka(name: str):
    error = KafkaError(codes_of_librdkafka()[name])
    family = librdkafka.family_of(error)
    assert family is not None
    ours = librdkafka.translated(diagnosis(), error, "orders", None)
    require_ours(ours, family)


@pytest.mark.parametrize("error", sorted(classes_of_kafka_python(), key=lambda error: error.__name__))
def test_error_of_kafka_python(error: type[Exception]):
    (family,) = [family for family, errors in kafka_python.FAMILIES.items() if error in errors]
    publisher = KafkaPythonPublisher(
        Cluster("Kafka Collaudo", "kafka-1:9092", client="kafka-python-ng", enable_idempotence=False)
    )
    publisher.diagnosis = diagnosis()
    ours = publisher._translated(error("words"), "orders")
    publisher.close(0)
    require_ours(ours, family)


def test_each_error_of_aiokafka_is_in_exactly_one_family():
    known = Counter(error for errors in aiokafka_errors.FAMILIES.values() for error in errors)
    assert [error for error, times in known.items() if times > 1] == []
    classes = classes_of_aiokafka()
    assert len(classes) > 80
    assert set(classes) - set(known) == set(), "sort these into aiokafka_errors.FAMILIES"


@pytest.fixture(scope="module")
def aiokafka_of() -> Iterator[Callable[[str | None], AiokafkaPublisher]]:
    """`aiokafka_of(None)`: a publisher, with a transactional id or without one."""
    made: dict[str | None, AiokafkaPublisher] = {}

    def make(transactional_id: str | None) -> AiokafkaPublisher:
        if transactional_id not in made:
            made[transactional_id] = AiokafkaPublisher(CLUSTER, transactional_id=transactional_id)
        made[transactional_id].diagnosis = diagnosis()  # which remembers no other error
        return made[transactional_id]

    yield make
    for publisher in made.values():
        publisher.close(0)


@pytest.mark.parametrize("error", [*classes_of_aiokafka(), TimeoutError, ConnectionResetError])
def test_error_of_aiokafka(error: type[Exception], aiokafka_of: Callable[[str | None], AiokafkaPublisher]):
    family = aiokafka_errors.family_of(error("words"))
    ours = aiokafka_of(None)._translated(error("words"), "orders")
    require_ours(ours, "busy" if family == "fenced" else family)  # another producer id goes on


@pytest.mark.parametrize("error", classes_of_aiokafka())
def test_within_a_transaction_no_error_of_aiokafka_is_tried_again_by_itself(
    error: type[Exception], aiokafka_of: Callable[[str | None], AiokafkaPublisher]
):
    publisher = aiokafka_of("pstt-export")
    ours = publisher._final(publisher._translated(error("words"), "orders"))
    assert not ours.is_retriable
    if aiokafka_errors.family_of(error("words")) == "fenced":
        assert "a newer run of the same job took over" in str(ours)


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (
            "Unable connect to node with id 2: [Errno 111] Connect call failed ('10.0.0.2', 9092)",
            Cause("unreachable", "10.0.0.2:9092: connection refused"),
        ),
        (
            "Unable connect to node with id 2: [Errno 113] Connect call failed ('10.0.0.2', 9092)",
            Cause("unreachable", "10.0.0.2:9092: not reachable"),
        ),
        (
            'Unable connect to "kafka-7.example:9092": [Errno -2] Name or service not known',
            Cause("unknown_host", 'host name "kafka-7.example" is not known'),
        ),
        (
            "Unable connect to node with id 1: [Error 58] SaslAuthenticationFailed: Authentication failed: Invalid username",
            Cause("login", "wrong user name or password"),
        ),
    ],
)
def test_what_aiokafka_logs_is_a_cause(line: str, cause: Cause):
    assert read_cause(line) == cause


# An error after which a batch may be stored must not be on this list: the next one would be taken for its repetition.
SURELY_NOT_STORED = (
    "TopicAuthorizationFailedError ClusterAuthorizationFailedError GroupAuthorizationFailedError"
    " TransactionalIdAuthorizationFailed UnknownTopicOrPartitionError InvalidTopicError MessageSizeTooLargeError"
    " RecordListTooLargeError RecordTooLargeError InvalidTimestampError InvalidRequestError PolicyViolationError"
    " TopicAlreadyExistsError CorruptRecordException"
)


def test_after_each_other_error_of_aiokafka_a_batch_may_be_stored():
    certain = {
        error.__name__ for error in classes_of_aiokafka() if aiokafka_errors.is_surely_not_stored(error("words"))
    }
    assert certain == set(SURELY_NOT_STORED.split())


def require_ours(ours: PsttError, family: Family) -> None:
    assert type(ours) is EXPECTED[family], ours
    assert ours.is_retriable is (family in RETRIABLE)
    assert "orders" in str(ours) or "Kafka Collaudo" in str(ours)
    assert ours.why
    assert ours.remedy


# SPEC 8, by name: retriable are broker unavailable, leader moves, time-outs, not enough replicas, throttling.
@pytest.mark.parametrize(
    "name",
    "_TRANSPORT _ALL_BROKERS_DOWN _RESOLVE BROKER_NOT_AVAILABLE NETWORK_EXCEPTION LEADER_NOT_AVAILABLE"
    " NOT_LEADER_FOR_PARTITION FENCED_LEADER_EPOCH UNKNOWN_LEADER_EPOCH _MSG_TIMED_OUT _TIMED_OUT REQUEST_TIMED_OUT"
    " NOT_ENOUGH_REPLICAS NOT_ENOUGH_REPLICAS_AFTER_APPEND _ISR_INSUFF THROTTLING_QUOTA_EXCEEDED _QUEUE_FULL"
    " COORDINATOR_LOAD_IN_PROGRESS COORDINATOR_NOT_AVAILABLE NOT_COORDINATOR KAFKA_STORAGE_ERROR".split(),
)
def test_code_may_be_tried_again(name: str):
    assert librdkafka.translated(diagnosis(), KafkaError(getattr(KafkaError, name)), "orders", None).is_retriable


@pytest.mark.parametrize(
    "name",
    "TOPIC_AUTHORIZATION_FAILED CLUSTER_AUTHORIZATION_FAILED TRANSACTIONAL_ID_AUTHORIZATION_FAILED"
    " SASL_AUTHENTICATION_FAILED _AUTHENTICATION UNSUPPORTED_SASL_MECHANISM _UNKNOWN_TOPIC UNKNOWN_TOPIC_OR_PART"
    " TOPIC_EXCEPTION INVALID_REQUIRED_ACKS UNSUPPORTED_VERSION INVALID_RECORD POLICY_VIOLATION _FENCED PRODUCER_FENCED"
    " _FATAL _GAPLESS_GUARANTEE".split(),
)
def test_code_is_fatal(name: str):
    assert not librdkafka.translated(diagnosis(), KafkaError(getattr(KafkaError, name)), "orders", None).is_retriable


@pytest.mark.parametrize("name", sorted(codes_of_librdkafka()))
def test_within_a_transaction_no_code_is_tried_again_by_itself(name: str):
    error = KafkaError(codes_of_librdkafka()[name])
    retriable = librdkafka.translated(diagnosis(), error, "orders", "pstt-export")
    ours = librdkafka.void(retriable)
    assert not ours.is_retriable
    if retriable.is_retriable:
        assert type(ours) is RetriesExhausted
        assert "the transaction is void" in str(ours)


def test_within_a_transaction_an_oversized_message_is_known_to_be_one():
    error = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)
    assert type(librdkafka.translated(diagnosis(), error, "orders", "pstt-export")) is MessageTooLarge


def test_a_code_that_a_newer_librdkafka_brings_is_as_retriable_as_librdkafka_says():
    class Newer:
        def __init__(self, retriable: bool) -> None:
            self._retriable = retriable

        def code(self) -> int:
            return 4711

        def str(self) -> str:
            return "a new error"

        def retriable(self) -> bool:
            return self._retriable

    for retriable in (True, False):
        ours = librdkafka.translated(diagnosis(), Newer(retriable), "orders", None)  # type: ignore[arg-type]
        assert ours.is_retriable is retriable
        assert "a new error" in str(ours)


def test_a_missing_right_is_named_after_what_the_client_does():
    writes, reads = Diagnosis(CLUSTER), Diagnosis(CLUSTER, use="read")
    assert 'may not write to topic "t"' in str(writes.of_family("denied", "", "t"))
    denied = reads.of_family("denied", "", "t")
    assert 'may not read topic "t"' in str(denied)
    assert "Describe and Read" in denied.remedy
    assert "Describe" in reads.of_family("denied_cluster", "no", "").remedy
    assert "cannot be read now" in str(reads.of_family("busy", "no leader", "t"))
