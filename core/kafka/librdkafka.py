"""Settings, log levels and error codes of librdkafka."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from core.errors import ConfigError, PsttError, RetriesExhausted
from core.kafka.client_log import ClientLog
from core.kafka.client_options import options_for
from core.kafka.diagnosis import BrokerObjection, Diagnosis, Family
from core.kafka.kerberos import adopt, may_adopt
from core.kafka.login import require_login
from core.kafka.oauth import token_source
from core.kafka.security import tls_material, uses_login, uses_tls
from core.model.connection import Cluster

__all__ = [
    "FAMILIES",
    "can_log_in",
    "client_config",
    "family_of",
    "open_reader",
    "producer_config",
    "translated",
    "void",
]

CLIENT_ID = "pstt-kafka"
QUEUE_KBYTES = 65_536
"""The most that librdkafka buffers: it limits the memory of a run with 1 MB messages."""
TRANSACTION_TIMEOUT_MS = 900_000
"""The longest that a broker allows by default (transaction.max.timeout.ms)."""

TOPIC_PROPAGATION_MS = 10_000
"""How long a missing topic is waited for. The default, 30 s, is as long as the delivery time-out: the messages would be
reported as timed out, and retried, for a topic that does not exist.
"""

LOG_LEVELS = {"CRITICAL": 2, "ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}
"""Our level → the syslog level that librdkafka uses."""

_NAMES: dict[Family, str] = {
    # retriable
    "late": "_MSG_TIMED_OUT _TIMED_OUT _TIMED_OUT_QUEUE REQUEST_TIMED_OUT",
    "away": "_TRANSPORT _RESOLVE _ALL_BROKERS_DOWN _SSL _NODE_UPDATE _UNKNOWN_BROKER _DESTROY_BROKER"
    " NETWORK_EXCEPTION BROKER_NOT_AVAILABLE REBOOTSTRAP_REQUIRED",
    "busy": "_ISR_INSUFF _WAIT_COORD _WAIT_CACHE _RETRY _IN_PROGRESS _PREV_IN_PROGRESS _INTR _QUEUE_FULL _PARTIAL"
    " _OUTDATED _BAD_MSG _UNDERFLOW _BAD_COMPRESSION UNKNOWN INVALID_MSG LEADER_NOT_AVAILABLE"
    " NOT_LEADER_FOR_PARTITION REPLICA_NOT_AVAILABLE COORDINATOR_LOAD_IN_PROGRESS COORDINATOR_NOT_AVAILABLE"
    " NOT_COORDINATOR NOT_ENOUGH_REPLICAS NOT_ENOUGH_REPLICAS_AFTER_APPEND NOT_CONTROLLER CONCURRENT_TRANSACTIONS"
    " KAFKA_STORAGE_ERROR LOG_DIR_NOT_FOUND FENCED_LEADER_EPOCH UNKNOWN_LEADER_EPOCH STALE_BROKER_EPOCH"
    " STALE_CTRL_EPOCH PREFERRED_LEADER_NOT_AVAILABLE ELIGIBLE_LEADERS_NOT_AVAILABLE THROTTLING_QUOTA_EXCEEDED"
    " REASSIGNMENT_IN_PROGRESS UNKNOWN_TOPIC_ID INCONSISTENT_TOPIC_ID OPERATION_NOT_ATTEMPTED _UNKNOWN_PARTITION",
    "dropped": "_PURGE_QUEUE _PURGE_INFLIGHT _DESTROY",
    # never again
    "login": "_AUTHENTICATION SASL_AUTHENTICATION_FAILED ILLEGAL_SASL_STATE UNSUPPORTED_SASL_MECHANISM SECURITY_DISABLED"
    " UNACCEPTABLE_CREDENTIAL PRINCIPAL_DESERIALIZATION_FAILURE INVALID_PRINCIPAL_TYPE DELEGATION_TOKEN_AUTH_DISABLED"
    " DELEGATION_TOKEN_NOT_FOUND DELEGATION_TOKEN_OWNER_MISMATCH DELEGATION_TOKEN_REQUEST_NOT_ALLOWED"
    " DELEGATION_TOKEN_AUTHORIZATION_FAILED DELEGATION_TOKEN_EXPIRED",
    "denied": "TOPIC_AUTHORIZATION_FAILED",
    "denied_cluster": "CLUSTER_AUTHORIZATION_FAILED TRANSACTIONAL_ID_AUTHORIZATION_FAILED GROUP_AUTHORIZATION_FAILED",
    "topic": "_UNKNOWN_TOPIC UNKNOWN_TOPIC_OR_PART",
    "name": "TOPIC_EXCEPTION",
    "large": "MSG_SIZE_TOO_LARGE INVALID_MSG_SIZE RECORD_LIST_TOO_LARGE",
    "fenced": "_FENCED PRODUCER_FENCED INVALID_PRODUCER_EPOCH TRANSACTION_COORDINATOR_FENCED",
    "setting": "_INVALID_ARG _NOT_CONFIGURED _NOT_IMPLEMENTED _UNSUPPORTED_FEATURE _UNKNOWN_PROTOCOL _CONFLICT _INVALID_TYPE"
    " INVALID_REQUIRED_ACKS INVALID_TRANSACTION_TIMEOUT UNSUPPORTED_VERSION UNSUPPORTED_COMPRESSION_TYPE"
    " UNSUPPORTED_FOR_MESSAGE_FORMAT INVALID_CONFIG INVALID_PARTITIONS INVALID_REPLICATION_FACTOR"
    " INVALID_REPLICA_ASSIGNMENT LISTENER_NOT_FOUND MISMATCHED_ENDPOINT_TYPE UNSUPPORTED_ENDPOINT_TYPE",
    "refused": "INVALID_RECORD INVALID_TIMESTAMP POLICY_VIOLATION INVALID_REQUEST RESOURCE_NOT_FOUND DUPLICATE_RESOURCE"
    " TOPIC_ALREADY_EXISTS TOPIC_DELETION_DISABLED _KEY_SERIALIZATION _VALUE_SERIALIZATION _INVALID_DIFFERENT_RECORD",
    "void": "_STATE _FATAL _FAIL _CRIT_SYS_RESOURCE _FS _INCONSISTENT _GAPLESS_GUARANTEE _APPLICATION _READ_ONLY _NOENT _NOOP"
    " INVALID_TXN_STATE INVALID_PRODUCER_ID_MAPPING OUT_OF_ORDER_SEQUENCE_NUMBER DUPLICATE_SEQUENCE_NUMBER"
    " UNKNOWN_PRODUCER_ID TRANSACTION_ABORTABLE",
    # Only consumers, groups and brokers among themselves receive these.
    "foreign": "_PARTITION_EOF _UNKNOWN_GROUP _EXISTING_SUBSCRIPTION _ASSIGN_PARTITIONS _REVOKE_PARTITIONS _NO_OFFSET"
    " _KEY_DESERIALIZATION _VALUE_DESERIALIZATION _MAX_POLL_EXCEEDED _ASSIGNMENT_LOST _AUTO_OFFSET_RESET _LOG_TRUNCATION"
    " OFFSET_OUT_OF_RANGE OFFSET_METADATA_TOO_LARGE ILLEGAL_GENERATION INCONSISTENT_GROUP_PROTOCOL INVALID_GROUP_ID"
    " UNKNOWN_MEMBER_ID INVALID_SESSION_TIMEOUT REBALANCE_IN_PROGRESS INVALID_COMMIT_OFFSET_SIZE NON_EMPTY_GROUP"
    " GROUP_ID_NOT_FOUND FETCH_SESSION_ID_NOT_FOUND INVALID_FETCH_SESSION_EPOCH OFFSET_NOT_AVAILABLE MEMBER_ID_REQUIRED"
    " GROUP_MAX_SIZE_REACHED FENCED_INSTANCE_ID ELECTION_NOT_NEEDED NO_REASSIGNMENT_IN_PROGRESS GROUP_SUBSCRIBED_TO_TOPIC"
    " UNSTABLE_OFFSET_COMMIT INCONSISTENT_VOTER_SET INVALID_UPDATE_VERSION FEATURE_UPDATE_FAILED FENCED_MEMBER_EPOCH"
    " UNRELEASED_INSTANCE_ID UNSUPPORTED_ASSIGNOR STALE_MEMBER_EPOCH UNKNOWN_CONTROLLER_ID UNKNOWN_SUBSCRIPTION_ID"
    " TELEMETRY_TOO_LARGE INVALID_REGISTRATION INVALID_RECORD_STATE SHARE_SESSION_NOT_FOUND INVALID_SHARE_SESSION_EPOCH"
    " FENCED_STATE_EPOCH INVALID_VOTER_KEY DUPLICATE_VOTER VOTER_NOT_FOUND INVALID_REGULAR_EXPRESSION"
    " STREAMS_INVALID_TOPOLOGY STREAMS_INVALID_TOPOLOGY_EPOCH STREAMS_TOPOLOGY_FENCED SHARE_SESSION_LIMIT_REACHED",
}

FAMILIES: dict[Family, frozenset[int]] = {
    # An older librdkafka lacks the newest names.
    family: frozenset(getattr(KafkaError, name) for name in names.split() if hasattr(KafkaError, name))
    for family, names in _NAMES.items()
}
"""What the user does next → the error codes. A test checks that every code of librdkafka is here."""

_FAMILY_OF = {code: family for family, codes in FAMILIES.items() for code in codes}


def open_reader(cluster: Cluster, diagnosis: Diagnosis, log: ClientLog, settings: Mapping[str, object]) -> Consumer:
    """Opens a consumer of committed records that joins no group and commits nothing.

    Args:
        cluster: Its mock brokers are started already.
        diagnosis: Remembers what the client reports.
        log: Receives the client's log lines.
        settings: What this reader has besides, such as how much it prefetches.
    """
    shared = {
        "group.id": CLIENT_ID,  # librdkafka requires one; the group is never joined
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "error_cb": lambda error: diagnosis.remember(error.str()),
    }
    return Consumer(client_config(cluster) | shared | dict(settings), logger=log)


def client_config(cluster: Cluster) -> dict[str, Any]:
    """Returns the settings of every client of this cluster: producer, consumer and admin client."""
    config: dict[str, Any] = options_for(cluster, "librdkafka") | {
        "bootstrap.servers": cluster.bootstrap_servers,
        "security.protocol": cluster.security_protocol,
        "client.id": cluster.client_id,
        "log_level": LOG_LEVELS.get(cluster.log_level.upper(), LOG_LEVELS["INFO"]),
        "socket.timeout.ms": min(cluster.request_timeout_ms, 300_000),
    }
    if cluster.client_rack:
        config["client.rack"] = cluster.client_rack
    if uses_login(cluster):
        config |= {"sasl.mechanisms": cluster.sasl_mechanism} | _login(cluster)
    if uses_tls(cluster):
        config |= _tls(cluster)
    return config


def _login(cluster: Cluster) -> dict[str, Any]:
    match cluster.sasl_mechanism:
        case "GSSAPI":
            require_gssapi(cluster)
            adopt(cluster)
            require_login(cluster)
            return _kerberos(cluster)
        case "OAUTHBEARER":
            require_login(cluster)
            return {"oauth_cb": token_source(cluster).with_expiry}
    password = cluster.sasl_password.reveal() if cluster.sasl_password else ""
    return {"sasl.username": cluster.sasl_username, "sasl.password": password}


def _kerberos(cluster: Cluster) -> dict[str, Any]:
    config: dict[str, Any] = {"sasl.kerberos.service.name": cluster.sasl_kerberos_service_name}
    # 0: librdkafka runs no `kinit`; the process has a ticket already.
    return config if os.name == "nt" else config | {"sasl.kerberos.min.time.before.relogin": 0}


def _tls(cluster: Cluster) -> dict[str, Any]:
    files = {
        "ssl.ca.location": cluster.ssl_cafile,
        "ssl.certificate.location": cluster.ssl_certfile,
        "ssl.key.location": cluster.ssl_keyfile,
    }
    config: dict[str, Any] = {name: str(path) for name, path in files.items() if path}
    if cluster.ssl_keyfile and cluster.ssl_key_password:
        config["ssl.key.password"] = cluster.ssl_key_password.reveal()
    stores = tls_material(cluster)
    if stores.authorities:
        config["ssl.ca.pem"] = stores.authorities
    if stores.key is not None:
        config |= {"ssl.certificate.pem": stores.certificates, "ssl.key.pem": stores.key.reveal()}
    return config


@cache
def has_gssapi() -> bool:
    """Returns True if this librdkafka was built with Kerberos; that of the wheels for Linux and macOS is not."""
    try:
        Producer({"builtin.features": "sasl_gssapi", "log_level": 0}, logger=logging.getLogger("pstt.kafka"))
    except KafkaException:
        return False
    return True


def can_log_in(cluster: Cluster) -> bool:
    """Returns False if the cluster wants Kerberos, and this librdkafka has none or is logged in with another principal."""
    is_kerberos = uses_login(cluster) and cluster.sasl_mechanism == "GSSAPI"
    return not is_kerberos or (has_gssapi() and may_adopt(cluster))


def require_gssapi(cluster: Cluster) -> None:
    """Refuses Kerberos where librdkafka was built without it.

    Raises:
        ConfigError: With what to install.
    """
    if not has_gssapi():
        raise ConfigError(
            f'cluster "{cluster.name}" cannot be used through librdkafka: it has no Kerberos',
            why="the wheel of confluent-kafka for this system is built without it; exactly_once, verify and topic settings need it",
            remedy="install librdkafka with SASL and then confluent-kafka from its source (docs/KAFKA_SETUP.md), or use KAFKA_CLIENT=aiokafka without exactly_once and verify",
            key="KAFKA_SASL_MECHANISM",
        )


def producer_config(
    cluster: Cluster, *, transactional_id: str | None = None, max_in_flight: int = 5000
) -> dict[str, Any]:
    """Returns every setting of a producer, by librdkafka's names. It contains the password: never log it."""
    config = client_config(cluster) | {
        "acks": "all",
        "enable.idempotence": cluster.enable_idempotence,
        "max.in.flight.requests.per.connection": cluster.max_in_flight_requests,
        "compression.type": cluster.compression_type,
        "linger.ms": cluster.linger_ms,
        "batch.size": cluster.batch_size_bytes,
        "message.max.bytes": cluster.max_request_size_bytes,
        "request.timeout.ms": cluster.request_timeout_ms,
        "delivery.timeout.ms": cluster.delivery_timeout_ms,
        "topic.metadata.propagation.max.ms": min(TOPIC_PROPAGATION_MS, cluster.delivery_timeout_ms // 2),
        "retry.backoff.ms": cluster.retry_backoff_ms,
        "retry.backoff.max.ms": min(4 * cluster.retry_backoff_ms, 300_000),
        # librdkafka's default partitioner places keys differently from every Java client.
        "partitioner": "murmur2_random",
        "queue.buffering.max.messages": max(2 * max_in_flight, 1000),
        "queue.buffering.max.kbytes": max(QUEUE_KBYTES, 4 * cluster.max_request_size_bytes // 1024),
    }
    if transactional_id is not None:
        config |= {"transactional.id": transactional_id, "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS}
    return config


SAID: dict[int, BrokerObjection] = {
    KafkaError.INVALID_RECORD: "record",
    KafkaError.INVALID_MSG: "record",  # brokers before 2.4, for a record without a key on a compacted topic
    KafkaError.INVALID_TIMESTAMP: "time",
    KafkaError.POLICY_VIOLATION: "policy",
    KafkaError._INVALID_DIFFERENT_RECORD: "other",
}
"""Error codes that are about one record of a batch → what the broker objects to."""

ONE_BY_ONE: dict[str, Any] = {
    "batch.num.messages": 1,
    "linger.ms": 0,
    # After a refusal an idempotent producer waits that long before its next record; with more in flight those would fail too.
    "max.in.flight.requests.per.connection": 1,
    "retry.backoff.ms": 1,
}
"""Makes a producer send each message in a record batch of its own."""


def translated(diagnosis: Diagnosis, error: KafkaError, topic: str, transactional_id: str | None) -> PsttError:
    """Returns our error for one of librdkafka's. An unknown code is retriable if librdkafka says so."""
    family = family_of(error) or ("busy" if error.retriable() else "refused")
    return diagnosis.of_family(family, error.str(), topic, transactional_id)


def family_of(error: KafkaError) -> Family | None:
    """Returns what the user does after this error; None for a code in no family."""
    return _FAMILY_OF.get(error.code())


def void(error: PsttError) -> PsttError:
    """Returns the error that ends a transaction: within one, no message can be retried by itself."""
    if not error.is_retriable:
        return error
    final = RetriesExhausted(error.what, why=f"{error.why}; the transaction is void", remedy=error.remedy)
    final.__cause__ = error
    return final
