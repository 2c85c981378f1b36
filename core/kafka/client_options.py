"""`client_options`: further settings of a client, by its own names, and those that are refused.

Settings of librdkafka have dots in their names, those of the clients in Python have underscores. With aiokafka both are
possible: names with dots are for librdkafka, which reads for it.
"""

from __future__ import annotations

import difflib
from typing import Any, Literal

from core.errors import ConfigError
from core.model.connection import Cluster

__all__ = ["options_for", "refuse_options"]

Library = Literal["librdkafka", "aiokafka", "kafka-python-ng"]
OF_PYTHON: dict[str, tuple[str, ...]] = {
    "aiokafka": ("connections_max_idle_ms", "metadata_max_age_ms", "sasl_kerberos_domain_name"),
    "kafka-python-ng": (
        "connections_max_idle_ms",
        "metadata_max_age_ms",
        "receive_buffer_bytes",
        "reconnect_backoff_max_ms",
        "reconnect_backoff_ms",
        "sasl_kerberos_domain_name",
        "send_buffer_bytes",
    ),
}
"""What the clients in Python accept here: their other settings are set by this program, or are no settings."""

OWN_SETTING = {
    "bootstrap.servers": "KAFKA_BOOTSTRAP_SERVERS",
    "metadata.broker.list": "KAFKA_BOOTSTRAP_SERVERS",
    "security.protocol": "KAFKA_SECURITY_PROTOCOL",
    "sasl.mechanism": "KAFKA_SASL_MECHANISM",
    "sasl.mechanisms": "KAFKA_SASL_MECHANISM",
    "sasl.username": "KAFKA_SASL_USERNAME",
    "sasl.password": "KAFKA_SASL_PASSWORD",
    "sasl.kerberos.service.name": "KAFKA_SASL_KERBEROS_SERVICE_NAME",
    "sasl.kerberos.keytab": "KAFKA_SASL_KERBEROS_KEYTAB",
    "sasl.kerberos.principal": "KAFKA_SASL_KERBEROS_PRINCIPAL",
    "ssl.ca.location": "KAFKA_SSL_CAFILE",
    "ssl.certificate.location": "KAFKA_SSL_CERTFILE",
    "ssl.key.location": "KAFKA_SSL_KEYFILE",
    "ssl.key.password": "KAFKA_SSL_KEY_PASSWORD",
    "ssl.keystore.location": "KAFKA_SSL_KEYSTORE_LOCATION",
    "ssl.keystore.password": "KAFKA_SSL_KEYSTORE_PASSWORD",
    "client.id": "KAFKA_CLIENT_ID",
    "client.rack": "KAFKA_CLIENT_RACK",
    "compression.codec": "KAFKA_COMPRESSION_TYPE",
    "compression.type": "KAFKA_COMPRESSION_TYPE",
    "batch.size": "KAFKA_BATCH_SIZE",
    "linger.ms": "KAFKA_LINGER_MS",
    "queue.buffering.max.ms": "KAFKA_LINGER_MS",
    "message.max.bytes": "KAFKA_MAX_REQUEST_SIZE",
    "request.timeout.ms": "KAFKA_REQUEST_TIMEOUT_MS",
    "socket.timeout.ms": "KAFKA_REQUEST_TIMEOUT_MS",
    "delivery.timeout.ms": "PSTT_DELIVERY_TIMEOUT_MS",
    "message.timeout.ms": "PSTT_DELIVERY_TIMEOUT_MS",
    "enable.idempotence": "KAFKA_ENABLE_IDEMPOTENCE",
    "max.in.flight": "KAFKA_MAX_IN_FLIGHT_REQUESTS",
    "max.in.flight.requests.per.connection": "KAFKA_MAX_IN_FLIGHT_REQUESTS",
    "retry.backoff.ms": "KAFKA_RETRY_BACKOFF_MS",
    "retry.backoff.max.ms": "KAFKA_RETRY_BACKOFF_MS",
    "log_level": "KAFKA_LOG_LEVEL",
}
"""Options that have a setting of their own here."""

_PROOF = "a row counts as arrived only when all in-sync replicas have it"
_READING = "what is read back is the proof of arrival"
_CODE = "it would load or run a program"
PROTECTED = {
    "acks": _PROOF,
    "request.required.acks": _PROOF,
    "retries": "retries are bounded by PSTT_DELIVERY_TIMEOUT_MS",
    "message.send.max.retries": "retries are bounded by PSTT_DELIVERY_TIMEOUT_MS",
    "enable.gapless.guarantee": _PROOF,
    "partitioner": "the messages of a key would go to another partition than those before",
    "transactional.id": "it belongs to exactly_once",
    "transaction.timeout.ms": "it belongs to exactly_once",
    "batch.num.messages": "a refused message is found by sending it alone",
    "queue.buffering.max.messages": "it limits the memory of a run",
    "queue.buffering.max.kbytes": "it limits the memory of a run",
    "topic.metadata.propagation.max.ms": "a missing topic is reported within the delivery time-out",
    "allow.auto.create.topics": "this program creates no topic for data",
    "group.id": _READING,
    "group.instance.id": _READING,
    "group.protocol": _READING,
    "isolation.level": _READING,
    "enable.auto.commit": _READING,
    "enable.auto.offset.store": _READING,
    "enable.partition.eof": _READING,
    "auto.offset.reset": _READING,
    "check.crcs": _READING,
    "sasl.kerberos.kinit.cmd": _CODE,
    "sasl.kerberos.min.time.before.relogin": "tickets are renewed by this program",
    "default.topic.config": "name the settings themselves",
    "builtin.features": "it turns parts of the client off",
}
"""Options that would undo a protection → what it protects."""
PROTECTED_GROUPS = {
    "ssl.": "the certificates of the brokers are always verified, with what OpenSSL considers strong",
    "enable.ssl.": "the certificates of the brokers are always verified",
    "https.": "set KAFKA_SASL_OAUTHBEARER_CAFILE",
    "sasl.oauthbearer.": "set the KAFKA_SASL_OAUTHBEARER_* settings, which hold for each client",
    "enable.sasl.": "set the KAFKA_SASL_OAUTHBEARER_* settings, which hold for each client",
    "plugin.": _CODE,
    "test.": "it replaces the brokers",
}
"""The same for each option whose name begins like this."""


def options_for(cluster: Cluster, library: Library) -> dict[str, Any]:
    """Returns the options of a cluster that are meant for a library. They are checked by `refuse_options`."""
    return {name: value for name, value in cluster.client_options if _library(cluster, name) == library}


def refuse_options(cluster: Cluster) -> None:
    """Refuses options that would undo a protection, that have a setting of their own, or that the client does not have.

    librdkafka checks the names and values of its own options when it is started.

    Raises:
        ConfigError: The first such option, with the reason and what to do.
    """
    for name, _ in cluster.client_options:
        library = _library(cluster, name)
        lower = name.lower()
        if own := OWN_SETTING.get(lower) or OWN_SETTING.get(lower.replace("_", ".")):
            raise _refused(cluster, name, "it has a setting of its own", f"set {own}")
        group = next((why for start, why in PROTECTED_GROUPS.items() if lower.startswith(start)), None)
        why = PROTECTED.get(lower) or group
        if why or lower.endswith("_cb"):
            raise _refused(cluster, name, why or "it is a function", "delete it")
        known = OF_PYTHON.get(library)
        if known is not None and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            remedy = f'did you mean "{near[0]}"?' if near else f"use {', '.join(known)}"
            raise _refused(cluster, name, f"{library} has no such option here", remedy)


def _library(cluster: Cluster, name: str) -> Library:
    if cluster.client == "confluent" or (cluster.client == "aiokafka" and "_" not in name):
        return "librdkafka"
    return "aiokafka" if cluster.client == "aiokafka" else "kafka-python-ng"


def _refused(cluster: Cluster, name: str, why: str, remedy: str) -> ConfigError:
    what = f'"client_options" of cluster "{cluster.name}" cannot have "{name}"'
    return ConfigError(what, why=why, remedy=remedy, key="KAFKA_CLIENT_OPTIONS")
