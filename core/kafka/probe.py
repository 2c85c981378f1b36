"""Probes a broker's port when the client cannot say why it gets no response.

kafka-python-ng reports NoBrokersAvailable for everything, and librdkafka does not tell an expired certificate from an
unknown authority. One connection and one request tell all of that apart.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from dataclasses import dataclass
from typing import Literal

from core.kafka.security import tls_context, uses_login, uses_tls
from core.model.connection import Cluster

__all__ = ["Cause", "FailureKind", "addresses", "probe"]

FailureKind = Literal[
    "unknown_host",  # the name server does not know the host
    "unreachable",  # refused, no route, no response
    "plain_port",  # we use TLS, the port does not
    "tls_port",  # the port uses TLS, we do not
    "expired",  # the broker's certificate has expired or is not valid yet
    "wrong_host",  # the certificate is for another host
    "unknown_authority",  # the certificate is signed by an authority that is not trusted
    "certificate",  # the certificate is invalid for another reason
    "own_certificate",  # the broker wants a client certificate or refuses ours
    "login",  # user name or password refused
    "mechanism",  # the broker does not offer this SASL mechanism
    "login_wanted",  # we send no login, the broker wants one
    "login_unwanted",  # we send a login, the broker takes none
    "not_kafka",  # another program answers
    "silent",  # connected, and no response: a broker that is stuck, or another program
    "closed",  # the connection ends without a response: a broker that shuts down, or another program
    "tls",  # the TLS handshake fails; only a client reports this, `probe` is more precise
]

BrokerAddress = tuple[str, int]
"""Host and port."""

SECOND_LOOK_S = 1.0
"""For each further connection to a port that did not answer the first one."""
ILLEGAL_SASL_STATE = 34
MAX_ANSWER_BYTES = 65_536
CERTIFICATE_KINDS: dict[int, FailureKind] = {
    # X509_V_ERR_… of OpenSSL
    9: "expired",  # not yet valid
    10: "expired",
    18: "unknown_authority",  # self-signed
    19: "unknown_authority",  # self-signed in the chain
    20: "unknown_authority",  # issuer not found
    21: "unknown_authority",
    62: "wrong_host",
    64: "wrong_host",  # IP address
}


@dataclass(frozen=True, slots=True)
class Cause:
    """Why no broker can be used, in a form that determines the user's next step."""

    kind: FailureKind
    words: str
    """With the address where it is known: `kafka-1:9092: connection refused`."""


def addresses(bootstrap_servers: str) -> list[BrokerAddress]:
    """Returns host and port of each server; 9092 where no port is given."""
    found = []
    for server in filter(None, (part.strip() for part in bootstrap_servers.split(","))):
        host, _, port = server.rpartition("://")[2].rpartition(":")
        found.append((host.strip("[]"), int(port)) if host and port.isdecimal() else (server, 9092))
    return found


def probe(cluster: Cluster, *, timeout_s: float = 3.0) -> Cause | None:
    """Connects to one server after the other until one is in order.

    It sends a handshake and closes the connection: no password is sent, so a wrong one is not found here.

    Args:
        cluster: At most three of its bootstrap servers are probed.
        timeout_s: For each of them.

    Returns:
        What is wrong with the first server, or None if one is in order.
    """
    first: Cause | None = None
    for host, port in addresses(cluster.bootstrap_servers)[:3]:
        cause = _probe_one(cluster, host, port, timeout_s)
        if cause is None:
            return None
        first = first or cause
    return first


def _probe_one(cluster: Cluster, host: str, port: int, timeout_s: float) -> Cause | None:
    place = f"{host}:{port}"
    try:
        connection = socket.create_connection((host, port), timeout_s)
    except socket.gaierror as error:
        return Cause("unknown_host", f'host name "{host}" is not known ({(error.strerror or str(error)).lower()})')
    except TimeoutError:
        return Cause("unreachable", f"{place}: no answer within {timeout_s:g} s")
    except ConnectionRefusedError:  # Windows would say it in its own language
        return Cause("unreachable", f"{place}: connection refused")
    except OSError as error:
        return Cause("unreachable", f"{place}: {(error.strerror or str(error)).lower()}")
    with connection:
        if not uses_tls(cluster):
            return _handshake(cluster, connection, (host, port))
        return _encrypt(cluster, connection, (host, port))


def _encrypt(cluster: Cluster, connection: socket.socket, address: BrokerAddress) -> Cause | None:
    host, port = address
    place = f"{host}:{port}"
    try:
        with tls_context(cluster).wrap_socket(connection, server_hostname=host) as encrypted:
            return _handshake(cluster, encrypted, address)
    except ssl.SSLCertVerificationError as error:
        kind = CERTIFICATE_KINDS.get(error.verify_code, "certificate")
        return Cause(kind, f"{place}: {error.verify_message.rstrip('.')}")
    except OSError as error:
        reason = (isinstance(error, ssl.SSLError) and error.reason) or ""
        if "ALERT" in reason:
            ours = "refuses ours" if cluster.ssl_certfile else "wants one of ours, and none is set"
            return Cause("own_certificate", f"{place}: the broker {ours} ({reason.replace('_', ' ').lower()})")
        return _without_tls(address, place, is_silent=isinstance(error, TimeoutError))


def _handshake(cluster: Cluster, connection: socket.socket, address: BrokerAddress) -> Cause | None:
    """Sends a SASL handshake, which every Kafka broker answers, also one that wants no login."""
    place = f"{address[0]}:{address[1]}"
    answer = _exchange(connection, cluster.sasl_mechanism or "PLAIN")
    code, offered = _parse_handshake(answer or b"")
    if code is None:
        if not uses_tls(cluster) and _speaks_tls(address):
            return Cause("tls_port", f"{place}: this port speaks TLS")
        return _not_kafka(address, place, answer)
    if not uses_login(cluster):
        return Cause("login_wanted", f"{place}: the broker offers {offered}") if offered else None
    if code == ILLEGAL_SASL_STATE:
        return Cause("login_unwanted", f"{place}: this port takes no login")
    if cluster.sasl_mechanism not in offered.split(", "):
        return Cause("mechanism", f"{place}: the broker offers {offered or 'none'}, not {cluster.sasl_mechanism}")
    return None


def _without_tls(address: BrokerAddress, place: str, *, is_silent: bool) -> Cause:
    """Returns why the port did not answer over TLS, by a second connection without TLS."""
    answer: bytes | None = None if is_silent else b""
    with contextlib.suppress(OSError), socket.create_connection(address, SECOND_LOOK_S) as second:
        answer = _exchange(second, "PLAIN") or answer
    if _parse_handshake(answer or b"")[0] is not None:
        return Cause("plain_port", f"{place}: no TLS is spoken on this port")
    return _not_kafka(address, place, answer)


def _not_kafka(address: BrokerAddress, place: str, answer: bytes | None) -> Cause:
    """Returns "not Kafka" only for what another program sent: a broker that is stuck or shutting down sends nothing."""
    if answer or _speaks_http(address):
        return Cause("not_kafka", f"{place}: what answers there is not a Kafka broker")
    if answer is None:
        return Cause("silent", f"{place}: takes the connection and answers nothing")
    return Cause("closed", f"{place}: ends the connection without an answer")


def _exchange(connection: socket.socket, mechanism: str) -> bytes | None:
    """Returns the response to a handshake; empty: the connection was closed; None: nothing came in time."""
    try:
        connection.sendall(_handshake_request(mechanism))
        return _read_response(connection)
    except TimeoutError:
        return None
    except ssl.SSLError:
        raise
    except OSError:
        return b""


def _handshake_request(mechanism: str) -> bytes:
    """SaslHandshake version 1. Source: kafka.apache.org/protocol, API key 17."""

    def text(value: str) -> bytes:
        return struct.pack(">h", len(value)) + value.encode("ascii")

    body = struct.pack(">hhi", 17, 1, 1) + text("pstt-kafka") + text(mechanism)
    return struct.pack(">i", len(body)) + body


def _read_response(connection: socket.socket) -> bytes:
    """Reads one whole response without its length; shorter if the connection ends early."""
    received = b""
    size = 4
    while len(received) < size:
        try:
            chunk = connection.recv(4096)
        except TimeoutError:
            if not received:
                raise
            break  # another program, whose first bytes are no length
        if not chunk:
            break
        received += chunk
        if len(received) >= 4:
            size = 4 + min(int.from_bytes(received[:4], "big"), MAX_ANSWER_BYTES)
    return received[4:]


def _parse_handshake(answer: bytes) -> tuple[int | None, str]:
    """Returns error code and offered mechanisms; None if this is no response of a Kafka broker."""
    try:
        correlation, code, count = struct.unpack_from(">ihi", answer)
        if correlation != 1 or not -1 <= count < 100:
            return None, ""
        names, at = [], 10
        for _ in range(count):
            (length,) = struct.unpack_from(">h", answer, at)
            names.append(answer[at + 2 : at + 2 + length].decode("ascii"))
            at += 2 + length
    except (struct.error, UnicodeDecodeError):
        return None, ""
    return code, ", ".join(sorted(names))


def _speaks_tls(address: BrokerAddress) -> bool:
    """Returns True if a TLS server answers; its certificate is not verified."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(OSError), socket.create_connection(address, SECOND_LOOK_S) as second:
        try:
            with context.wrap_socket(second):
                return True
        except ssl.SSLError as error:
            return "ALERT" in (error.reason or "")
    return False


def _speaks_http(address: BrokerAddress) -> bool:
    """Returns True if a web server answers, which waits silently for the end of what it takes for a line."""
    with contextlib.suppress(OSError), socket.create_connection(address, SECOND_LOOK_S) as second:
        second.sendall(b"HEAD / HTTP/1.0\r\n\r\n")
        return second.recv(16).startswith(b"HTTP/")
    return False
