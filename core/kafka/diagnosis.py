"""Turns what a client reports into one clear error: what failed, on what, why, what to do next.

A client often writes the true cause only to its log, or nowhere, and reports the message itself as timed out. So the last
cause is remembered and becomes part of the error of whatever fails because of it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from typing import Literal, NamedTuple

from core.errors import (
    BatchTooLarge,
    BrokerUnavailable,
    ConfigError,
    DeliveryTimeout,
    MessageTooLarge,
    NotAuthorised,
    PsttError,
    RunFailed,
    TopicMissing,
)
from core.kafka.oauth import token_source, uses_tokens
from core.kafka.probe import Cause, FailureKind, addresses, probe
from core.model.connection import Cluster

__all__ = ["BrokerObjection", "Diagnosis", "Family", "read_cause"]

Family = Literal[
    "late",  # not acknowledged in time
    "away",  # no broker can be reached
    "busy",  # the broker cannot accept it now
    "dropped",  # dropped by us
    "login",  # authentication failed
    "denied",  # authenticated, without the right to write to this topic
    "denied_cluster",  # authenticated, without the right to do this at all
    "topic",  # the topic does not exist
    "name",  # an illegal topic name
    "large",  # above the broker's limit
    "fenced",  # a newer producer has the transactional id
    "setting",  # our settings and the broker's do not fit
    "refused",  # the broker does not accept this message
    "void",  # the transaction or the client has ended
    "foreign",  # never returned to a producer
]
"""Errors of a client, grouped by what the user does next."""

BrokerObjection = Literal["record", "time", "policy", "other"]
"""What a broker objects to: the record's content, its time, a policy of the broker, or another record of the batch."""

REMEMBERED_S = 60.0
"""An older cause says nothing about the present failure."""
PROBED_S = 10.0
"""Eight thousand messages that time out together justify one probe of the broker."""

VAGUE: frozenset[FailureKind] = frozenset({"closed", "tls", "plain_port", "tls_port", "own_certificate", "login"})
"""Causes that a client only guesses; a probe decides. A broker that shuts down during a login looks like one that refuses
the login.
"""
if os.name == "nt":  # librdkafka says why in the language of Windows
    VAGUE |= {"unreachable"}
GUESSED: frozenset[FailureKind] = frozenset({"closed", "plain_port", "tls_port"})
"""The vague causes of which only "the connection ended" remains if the probe finds no fault."""

_PATTERNS: tuple[tuple[str, FailureKind, str], ...] = (
    # librdkafka
    (r"Failed to resolve '(?P<at>[^']+)'", "unknown_host", 'host name "{host}" is not known'),
    (r"(?P<at>[^\s/]+:\d+)/\w+: Connect to \S+ failed: (?P<how>[^(]+?) \(", "unreachable", "{at}: {how}"),
    (r"(?P<at>[^\s/]+:\d+)/\w+: Connection setup timed out", "unreachable", "{at}: no answer"),
    (r"mechanism handshake failed: .*Request not valid in current SASL state", "login_unwanted", "this port takes no login"),
    (r"SaslAuthenticateRequest failed: Local|SSL handshake failed: .*Disconnected", "closed", "the broker ended the connection"),
    (r"mechanism handshake failed: .*supported mechanisms: (?P<how>[^(]*?) \(", "mechanism", "the broker offers {how}"),
    (r"Failed to acquire SASL OAUTHBEARER token", "login", "there is no token"),
    (r"Kerberos ticket|GSSAPI Error|GSSAPI client step", "login", "there is no Kerberos ticket for it"),
    (r"SASL authentication error|Authentication failed", "login", "wrong user name or password"),
    (r"SSL handshake failed|certificate", "tls", "the TLS handshake failed"),
    (r"connecting to a SSL listener", "tls_port", "this port speaks TLS"),
    (r"Disconnected|Receive failed|Broken pipe|Connection reset", "closed", "the broker ended the connection"),
    # kafka-python-ng
    (r"DNS lookup failed for (?P<at>\S+?:\d+)", "unknown_host", 'host name "{host}" is not known'),
    (r"host=(?P<at>\S+:\d+) .*returned error \d+", "unreachable", "{at}: connection refused"),
    (r"host=(?P<at>\S+:\d+) .*timed out", "unreachable", "{at}: no answer"),
    (r"SSL connection closed by server during handshake", "tls", "the TLS handshake failed"),
    (r"UnsupportedSaslMechanism", "mechanism", "the broker does not offer this mechanism"),
    (r"Error receiving reply from server|AuthenticationFailed", "login", "wrong user name or password"),
    (r"socket disconnected", "closed", "the broker ended the connection"),
    # aiokafka, in the words of asyncio and of Linux, macOS or Windows
    (r"Unable connect to \"(?P<at>[^\"]+)\": .*(Name or service not known|nodename nor servname|getaddrinfo failed)", "unknown_host", 'host name "{host}" is not known'),
    (r"\[Errno (111|61|10061)\] Connect call failed \('(?P<at>[^)]+)\)", "unreachable", "{at}: connection refused"),
    (r"Connect call failed \('(?P<at>[^)]+)\)", "unreachable", "{at}: not reachable"),
)  # fmt: skip

LEGAL_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
"""Source: org.apache.kafka.common.internals.Topic. librdkafka reports a topic with an illegal name as unknown."""

SPOKEN = tuple((re.compile(pattern, re.IGNORECASE), kind, words) for pattern, kind, words in _PATTERNS)
"""What the clients write into their logs and errors → the cause, in our words."""


class _Advice(NamedTuple):
    error: type[PsttError]
    what: str
    remedy: str


_NOBODY = "no broker of {cluster} answers"
_NO_TRUST = "{cluster} cannot be trusted"
_NO_LOGIN = "{cluster} refuses the login of {user}"
_SERVERS = "bootstrap_servers in connections.json or KAFKA_BOOTSTRAP_SERVERS"

ADVICE: dict[FailureKind, _Advice] = {
    "unknown_host": _Advice(BrokerUnavailable, _NOBODY, f"correct {_SERVERS}, or the name server"),
    "unreachable": _Advice(
        BrokerUnavailable, _NOBODY, f"start the broker, open the firewall, or correct {_SERVERS}"
    ),
    "silent": _Advice(
        BrokerUnavailable, _NOBODY, f"look at the broker's load and log, or correct the port in {_SERVERS}"
    ),
    "closed": _Advice(BrokerUnavailable, _NOBODY, "look into the broker's log; is this its port for {protocol}?"),
    "not_kafka": _Advice(ConfigError, _NOBODY, f"correct the port in {_SERVERS}"),
    "plain_port": _Advice(
        ConfigError,
        "{cluster} is not spoken to with {protocol}",
        "set KAFKA_SECURITY_PROTOCOL to {without_tls}, or the port to the broker's TLS port",
    ),
    "tls_port": _Advice(
        ConfigError,
        "{cluster} is not spoken to with {protocol}",
        "set KAFKA_SECURITY_PROTOCOL to {with_tls}, or the port to the broker's plaintext port",
    ),
    "login_wanted": _Advice(
        ConfigError,
        "{cluster} wants a login",
        "set KAFKA_SECURITY_PROTOCOL to {with_login}, with KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD",
    ),
    "login_unwanted": _Advice(
        ConfigError, "{cluster} takes no login", "set KAFKA_SECURITY_PROTOCOL to {without_login}, or use another port"
    ),
    "mechanism": _Advice(ConfigError, _NO_LOGIN, "set KAFKA_SASL_MECHANISM to one that the broker offers"),
    "login": _Advice(NotAuthorised, _NO_LOGIN, "{check_login}"),
    "expired": _Advice(NotAuthorised, _NO_TRUST, "the broker needs a new certificate; check this machine's clock too"),
    "wrong_host": _Advice(
        NotAuthorised,
        _NO_TRUST,
        f"use the name that stands in the broker's certificate, in {_SERVERS}, or have the certificate made for this one",
    ),
    "unknown_authority": _Advice(
        NotAuthorised, _NO_TRUST, "set KAFKA_SSL_CAFILE to the certificate of the authority that signed the broker's"
    ),
    "certificate": _Advice(NotAuthorised, _NO_TRUST, "check the broker's certificate and KAFKA_SSL_CAFILE"),
    "tls": _Advice(NotAuthorised, _NO_TRUST, "check the broker's certificate and KAFKA_SSL_CAFILE"),
    "own_certificate": _Advice(
        NotAuthorised,
        "{cluster} does not accept this client's certificate",
        "set KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE to a certificate that the broker trusts",
    ),
}  # fmt: skip

_CHECK_PLAIN = (
    "check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM, or sasl_username, sasl_password and "
    "sasl_mechanism in connections.json"
)
_CHECK_LOGIN = {
    "GSSAPI": (
        "the ticket is refused",
        "check KAFKA_SASL_KERBEROS_PRINCIPAL, KAFKA_SASL_KERBEROS_KEYTAB and KAFKA_SASL_KERBEROS_SERVICE_NAME, and the broker's log",
    ),
    "OAUTHBEARER": (
        "the token is refused",
        "check that issuer, audience and scope of the token are what the broker expects, and the clocks; its log has the reason",
    ),
}
"""Mechanism → why a login may fail where no user and password are sent, and what to check."""

KEYS: dict[FailureKind, str] = {
    "not_kafka": "KAFKA_BOOTSTRAP_SERVERS",
    "plain_port": "KAFKA_SECURITY_PROTOCOL",
    "tls_port": "KAFKA_SECURITY_PROTOCOL",
    "login_wanted": "KAFKA_SECURITY_PROTOCOL",
    "login_unwanted": "KAFKA_SECURITY_PROTOCOL",
    "mechanism": "KAFKA_SASL_MECHANISM",
}


def read_cause(words: str) -> Cause | None:
    """Returns the cause in a client's log line or error text; None if it has none."""
    for pattern, kind, answer in SPOKEN:
        if found := pattern.search(words):
            parts = {name: (text or "").strip() for name, text in found.groupdict().items()}
            place = parts.get("at", "").rpartition("://")[2].replace("', ", ":")
            how = parts.get("how", "")
            return Cause(kind, answer.format(at=place, host=place.rpartition(":")[0], how=how[:1].lower() + how[1:]))
    return None


def _tried(why: str, waited_s: float) -> str:
    """Adds how long it was tried, as a text of its own: it is translated apart from the cause."""
    return ", ".join([why, f"tried for {waited_s:g} s"]) if waited_s else why


class Diagnosis:
    """Creates the errors of one cluster and remembers what its client reported.

    Larger than other classes: each method returns one error, and all name the same cluster.

    Args:
        cluster: Named in each text; its password never is.
        clock: Monotonic seconds.
        look: Probes the brokers when the client does not report a cause.
        use: What the client does with topics, for the text about a missing right.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        clock: Callable[[], float] = time.monotonic,
        look: Callable[[Cluster], Cause | None] = probe,
        use: Literal["write to", "read"] = "write to",
    ) -> None:
        self.cluster = cluster
        self._use = use
        self.place = f'cluster "{cluster.name}" ({cluster.bootstrap_servers or "mock"})'
        self._clock = clock
        self._look = look
        self._heard: tuple[float, Cause] | None = None
        self._seen: tuple[float, Cause | None] | None = None

    def of_family(self, family: Family, words: str, topic: str, transactional_id: str | None = None) -> PsttError:
        """Returns the error for what a client reports about one message or about all.

        Args:
            family: What the user does next.
            words: The client's own text.
            topic: The topic of the message; empty if no message is concerned.
            transactional_id: Set within a transaction, where no message is retried.
        """
        match family:
            case "late":
                return self.not_delivered(topic)
            case "away":
                self.remember(words)
                return self.no_contact()
            case "login":
                self.remember(f"Authentication failed: {words}")
                return self.no_contact()
            case "busy":
                return self.busy(topic, words)
            case "dropped":
                return self.dropped(topic)
            case "denied":
                return self.denied(topic)
            case "denied_cluster":
                return self.denied_cluster(words)
            case "topic" if LEGAL_TOPIC.fullmatch(topic):
                return self.topic_missing(topic)
            case "topic" | "name":
                return self.topic_name(topic)
            case "large":
                return self.too_large_there(topic, alone=transactional_id is not None)
            case "fenced":
                return self.fenced(transactional_id)
            case "setting":
                return self.setting(words)
        return self.refused(topic, words)

    def remember(self, words: str) -> None:
        """Remembers the cause in a client's text, if there is one."""
        cause = read_cause(words)
        if cause is None:
            return
        known = self.last_cause
        # "The connection ended" follows every cause and must not replace it.
        if known is None or cause.kind != "closed":
            self._heard = (self._clock(), cause)

    def forget(self) -> None:
        """Forgets the remembered cause; called when a broker answers."""
        self._heard = self._seen = None

    @property
    def last_cause(self) -> Cause | None:
        """Returns the recent cause that the client reported."""
        if self._heard is None or self._clock() - self._heard[0] > REMEMBERED_S:
            return None
        return self._heard[1]

    @property
    def cause(self) -> Cause | None:
        """Returns why no broker can be used, from the client's report and, where that is vague, from a probe."""
        last_cause = self.last_cause
        if last_cause is not None and last_cause.kind not in VAGUE:
            return last_cause
        seen = self._looked()
        if seen is None and last_cause is not None and last_cause.kind in GUESSED:
            return Cause("closed", "the broker ended the connection")
        return seen or last_cause

    @property
    def is_hopeless(self) -> bool:
        """Returns True if waiting longer does not help: the user has to correct something first."""
        cause = self.cause if self.last_cause else None
        return cause is not None and not ADVICE[cause.kind].error.is_retriable

    def no_contact(self, waited_s: float = 0.0) -> PsttError:
        """Returns why no broker answers."""
        if uses_tokens(self.cluster) and (problem := token_source(self.cluster).problem):
            return problem
        cause = self.cause
        waited_s = round(waited_s)
        if cause is None:
            return BrokerUnavailable(
                f"no broker of {self.place} answers",
                why=_tried("the connection works, but no answer came", waited_s),
                remedy="look at the broker's load and log",
            )
        return self.of_cause(cause, waited_s)

    def of_cause(self, cause: Cause, waited_s: float = 0.0) -> PsttError:
        """Returns the error for a cause, after so many seconds of attempts."""
        advice = ADVICE[cause.kind]
        remedy = advice.remedy
        if cause.kind in ("unknown_host", "unreachable") and not self._is_ours(cause.words):
            remedy = "the cluster itself gives this address: correct advertised.listeners of that broker, or make the address reachable from here"
        what, remedy = self._fill(advice.what), self._fill(remedy)
        if cause.kind == "login" and self.cluster.sasl_mechanism in _CHECK_LOGIN:
            cause = Cause("login", _CHECK_LOGIN[self.cluster.sasl_mechanism][0])
            if uses_tokens(self.cluster):
                token_source(self.cluster).discard()  # the next attempt fetches another one
        words = _tried(cause.words, waited_s if advice.error.is_retriable else 0.0)
        if advice.error is ConfigError:
            return ConfigError(what, why=words, remedy=remedy, key=KEYS[cause.kind])
        return advice.error(what, why=words, remedy=remedy)

    def not_delivered(self, topic: str) -> PsttError:
        """Returns the error for a message that was not acknowledged in time, with the cause if it is known."""
        waited_s = self.cluster.delivery_timeout_ms / 1000
        cause = self.cause
        if cause is not None:
            return self.of_cause(cause, waited_s)
        return DeliveryTimeout(
            f'no acknowledgement from topic "{topic}" of {self.place}',
            why=f"none within {waited_s:g} s",
            remedy="look at the broker's load, or raise PSTT_DELIVERY_TIMEOUT_MS",
        )

    def dropped(self, topic: str) -> DeliveryTimeout:
        """Returns the error for a message that was dropped before it was acknowledged."""
        return DeliveryTimeout(
            f'a message for topic "{topic}" of {self.place} was given up',
            why="no acknowledgement before the run ended",
            remedy="run it again; readers recognise the same message_id",
        )

    def too_large_here(self, topic: str, size: int) -> MessageTooLarge:
        """Returns the error for a message of `size` bytes that the client refused."""
        return MessageTooLarge(
            f'a message of {size:,} bytes for topic "{topic}" is too large',
            why=f"KAFKA_MAX_REQUEST_SIZE is {self.cluster.max_request_size_bytes:,}",
            remedy="shorten the row, or raise KAFKA_MAX_REQUEST_SIZE and max.message.bytes of the topic",
        )

    def too_large_there(self, topic: str, *, alone: bool) -> PsttError:
        """Returns the error for a message that the broker refused, sent `alone` or in a record batch with others."""
        error = MessageTooLarge if alone else BatchTooLarge
        return error(
            f'a message is too large for topic "{topic}" of {self.place}',
            why="it is over max.message.bytes of the topic or message.max.bytes of the broker",
            remedy="shorten the row, or have that limit raised; KAFKA_BATCH_SIZE should not be above it",
        )

    def topic_missing(self, topic: str) -> TopicMissing:
        """Returns the error for a topic that does not exist and is not created."""
        return TopicMissing(
            f'topic "{topic}" does not exist on {self.place}',
            why="the cluster does not make topics on first use",
            remedy="have it created, or correct the topic in the job's kafka_config",
        )

    def topic_name(self, topic: str) -> ConfigError:
        """Returns the error for an illegal topic name."""
        return ConfigError(
            f'"{topic}" cannot be the name of a topic',
            why="letters, digits, dot, hyphen and underscore are allowed, 249 at most",
            remedy="correct the topic in the job's kafka_config",
            key="kafka_config.topic",
        )

    def denied(self, topic: str) -> NotAuthorised:
        """Returns the error for an authenticated account that lacks a right on a topic."""
        right = "Read" if self._use == "read" else "Write"
        return NotAuthorised(
            f'{self._user} may not {self._use} topic "{topic}" of {self.place}',
            why="the broker's access rules (ACL) say no",
            remedy=f"have the rights Describe and {right} on that topic given to this account",
        )

    def denied_cluster(self, words: str) -> NotAuthorised:
        """Returns the error for a right that the account lacks on the whole cluster."""
        if self._use == "read":
            return NotAuthorised(
                f"{self._user} may not read this from {self.place}",
                why=self.scrub(words),
                remedy="have the right Describe on the cluster, on the topic or on its consumer groups given to this account",
            )
        return NotAuthorised(
            f"{self._user} may not write to {self.place}",
            why=self.scrub(words),
            remedy="have the rights Describe and Write on the topic given to this account; exactly_once needs them on the transactional id too",
        )

    def busy(self, topic: str, words: str) -> BrokerUnavailable:
        """Returns the error for brokers that answer and cannot accept or return messages now."""
        return BrokerUnavailable(
            f'topic "{topic}" of {self.place} {"cannot be read" if self._use == "read" else "takes no messages"} now',
            why=self.scrub(words),
            remedy="wait, or look at the state of the brokers and of the topic's replicas",
        )

    def refused(self, topic: str, words: str) -> RunFailed:
        """Returns the error for a message that the broker never accepts."""
        return RunFailed(
            f'topic "{topic}" of {self.place} refuses a message',
            why=self.scrub(words),
            remedy="look at the settings of the topic",
        )

    def fenced(self, transactional_id: str | None) -> RunFailed:
        """Returns the error for a producer that was fenced by a newer one."""
        return RunFailed(
            f"this run was stopped by {self.place}",
            why=f'a newer run of the same job took over the transactional id "{transactional_id}"',
            remedy="nothing of this run is visible; look at the newer run",
        )

    def setting(self, words: str, key: str = "") -> ConfigError:
        """Returns the error for settings that the client or the broker does not accept."""
        return ConfigError(
            f"the settings for {self.place} cannot be used",
            why=self.scrub(words),
            remedy=f"correct {key}" if key else "correct the KAFKA_* setting that is named there",
            key=key,
        )

    def scrub(self, words: str) -> str:
        """Removes passwords and tokens from a client's text, in case it contains one."""
        for secret in (
            self.cluster.sasl_password,
            self.cluster.sasl_oauthbearer_client_secret,
            self.cluster.sasl_oauthbearer_token,
            self.cluster.ssl_key_password,
            self.cluster.ssl_keystore_password,
        ):
            if secret and secret.reveal():
                words = words.replace(secret.reveal(), "***")
        return words

    def _looked(self) -> Cause | None:
        if self.cluster.mock_brokers:
            return None
        now = self._clock()
        if self._seen is None or now - self._seen[0] > PROBED_S:
            self._seen = (now, self._look(self.cluster))
        return self._seen[1]

    def _is_ours(self, words: str) -> bool:
        """Returns True if the text is about an address from the settings, or about none."""
        if ":" not in words and '"' not in words:
            return True
        return any(
            f"{host}:{port}" in words or f'"{host}"' in words
            for host, port in addresses(self.cluster.bootstrap_servers)
        )

    @property
    def _user(self) -> str:
        cluster = self.cluster
        name = {"GSSAPI": cluster.sasl_kerberos_principal, "OAUTHBEARER": cluster.sasl_oauthbearer_client_id}.get(
            cluster.sasl_mechanism or "", cluster.sasl_username
        )
        return f'user "{name}"' if name else "this client"

    def _fill(self, text: str) -> str:
        protocol = self.cluster.security_protocol
        login = protocol.startswith("SASL")
        tls = protocol.endswith("SSL")
        return text.format(
            cluster=self.place,
            user=self._user,
            check_login=_CHECK_LOGIN.get(self.cluster.sasl_mechanism or "", ("", _CHECK_PLAIN))[1],
            protocol=protocol,
            with_tls="SASL_SSL" if login else "SSL",
            without_tls="SASL_PLAINTEXT" if login else "PLAINTEXT",
            with_login="SASL_SSL" if tls else "SASL_PLAINTEXT",
            without_login="SSL" if tls else "PLAINTEXT",
        )
