"""TLS files and login of a cluster, checked before a client uses them.

Clients report a missing file or password late and in words of their own.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from core.errors import ConfigError
from core.model.connection import Cluster

__all__ = ["require_complete", "tls_context", "uses_login", "uses_tls"]


def uses_tls(cluster: Cluster) -> bool:
    """Returns True if the connection is encrypted."""
    return cluster.security_protocol in ("SSL", "SASL_SSL")


def uses_login(cluster: Cluster) -> bool:
    """Returns True if user name and password are sent."""
    return cluster.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")


def require_complete(cluster: Cluster) -> None:
    """Refuses settings with which no connection is possible.

    Raises:
        ConfigError: Servers, mechanism, user or password are missing, or a TLS file cannot be used.
    """
    if not cluster.bootstrap_servers.strip() and not cluster.mock_brokers:
        raise _missing(cluster, "KAFKA_BOOTSTRAP_SERVERS", "no broker's address is set", "set it to host:port")
    if uses_login(cluster):
        why = f"security protocol {cluster.security_protocol} logs in"
        if cluster.sasl_mechanism is None:
            raise _missing(cluster, "KAFKA_SASL_MECHANISM", why, "set it to PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
        if not cluster.sasl_username:
            raise _missing(cluster, "KAFKA_SASL_USERNAME", why, "set it")
        if cluster.sasl_password is None or not cluster.sasl_password.reveal():
            raise _missing(cluster, "KAFKA_SASL_PASSWORD", why, "set it, best as a reference such as env:NAME")
    if uses_tls(cluster):
        tls_context(cluster)


def tls_context(cluster: Cluster) -> ssl.SSLContext:
    """Returns the TLS settings of a cluster as a context of Python's `ssl`.

    Without KAFKA_SSL_CAFILE the system's certificate authorities are trusted. The broker's name is always checked.

    Raises:
        ConfigError: A file is missing, cannot be read, or holds something else.
    """
    context = _trusting(cluster)
    if cluster.ssl_keyfile and not cluster.ssl_certfile:
        raise _missing(cluster, "KAFKA_SSL_CERTFILE", "KAFKA_SSL_KEYFILE is set alone", "set both or none")
    if cluster.ssl_certfile:
        if not cluster.ssl_keyfile:
            raise _missing(cluster, "KAFKA_SSL_KEYFILE", "KAFKA_SSL_CERTFILE is set alone", "set both or none")
        certificate = _file(cluster, "KAFKA_SSL_CERTFILE", cluster.ssl_certfile)
        key = _file(cluster, "KAFKA_SSL_KEYFILE", cluster.ssl_keyfile)
        try:
            # The empty password keeps OpenSSL from asking for one on the terminal.
            context.load_cert_chain(certificate, key, password="")
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f'certificate and key for cluster "{cluster.name}" cannot be used together',
                why=_reason(error),
                remedy="KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE must be PEM files of one pair, the key without a password",
                file=cluster.ssl_certfile,
                key="KAFKA_SSL_CERTFILE",
            ) from None
    return context


def _trusting(cluster: Cluster) -> ssl.SSLContext:
    if not cluster.ssl_cafile:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cafile=_file(cluster, "KAFKA_SSL_CAFILE", cluster.ssl_cafile))
    except ssl.SSLError as error:
        raise ConfigError(
            f'{cluster.ssl_cafile} for cluster "{cluster.name}" holds no usable certificate',
            why=_reason(error),
            remedy="KAFKA_SSL_CAFILE must be a PEM file with the certificate of the broker's authority",
            file=cluster.ssl_cafile,
            key="KAFKA_SSL_CAFILE",
        ) from None


def _file(cluster: Cluster, key: str, path: Path) -> str:
    """Returns the path after checking that the file holds PEM."""
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise ConfigError(
            f'{path} for cluster "{cluster.name}" cannot be read',
            why=error.strerror or str(error),
            remedy=f"correct {key}",
            file=path,
            key=key,
        ) from None
    if "-----BEGIN" not in text:
        raise ConfigError(
            f'{path} for cluster "{cluster.name}" is not a PEM file',
            why="no line -----BEGIN …-----",
            remedy=f"convert it to PEM, or correct {key}",
            file=path,
            key=key,
        )
    return str(path)


def _reason(error: OSError) -> str:
    return (isinstance(error, ssl.SSLError) and error.reason) or error.strerror or str(error)


def _missing(cluster: Cluster, key: str, why: str, remedy: str) -> ConfigError:
    return ConfigError(f'{key} is missing for cluster "{cluster.name}"', why=why, remedy=remedy, key=key)
