"""TLS files and login of a cluster, checked before a client uses them.

Clients report a missing file or password late and in words of their own.
"""

from __future__ import annotations

import secrets
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from core.errors import ConfigError
from core.kafka.kerberos import require_kerberos
from core.kafka.key_stores import KeyStore, read_key_store
from core.kafka.oauth import require_token_endpoint
from core.model.connection import UNREAD, Cluster, Secret

__all__ = ["TlsMaterial", "require_complete", "tls_context", "tls_material", "uses_login", "uses_tls"]


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """What librdkafka is given as text: PEM, empty where it reads a file itself or nothing is set."""

    authorities: str = ""
    certificates: str = ""
    key: Secret | None = None


def uses_tls(cluster: Cluster) -> bool:
    """Returns True if the connection is encrypted."""
    return cluster.security_protocol in ("SSL", "SASL_SSL")


def uses_login(cluster: Cluster) -> bool:
    """Returns True if the client logs in."""
    return cluster.security_protocol in ("SASL_PLAINTEXT", "SASL_SSL")


def require_complete(cluster: Cluster) -> None:
    """Refuses settings with which no connection is possible.

    Raises:
        ConfigError: Servers, mechanism or a part of the login are missing, or a TLS file cannot be used.
    """
    if not cluster.bootstrap_servers.strip() and not cluster.mock_brokers:
        raise _missing(cluster, "KAFKA_BOOTSTRAP_SERVERS", "no broker's address is set", "set it to host:port")
    if uses_login(cluster):
        _require_login(cluster)
    passwords = (cluster.ssl_key_password, cluster.ssl_keystore_password, cluster.ssl_truststore_password)
    if uses_tls(cluster) and not any(password is UNREAD for password in passwords):
        tls_context(cluster)


def _require_login(cluster: Cluster) -> None:
    why = f"security protocol {cluster.security_protocol} logs in"
    match cluster.sasl_mechanism:
        case None:
            remedy = "set it to PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, GSSAPI or OAUTHBEARER"
            raise _missing(cluster, "KAFKA_SASL_MECHANISM", why, remedy)
        case "GSSAPI":
            require_kerberos(cluster)
        case "OAUTHBEARER":
            _require_token(cluster)
        case _:
            if not cluster.sasl_username:
                raise _missing(cluster, "KAFKA_SASL_USERNAME", why, "set it")
            if cluster.sasl_password is None or not cluster.sasl_password.reveal():
                raise _missing(cluster, "KAFKA_SASL_PASSWORD", why, "set it, best as a reference such as env:NAME")


def _require_token(cluster: Cluster) -> None:
    if cluster.sasl_oauthbearer_token is not None:
        return
    why = "OAUTHBEARER needs a token endpoint, or a token"
    for key, value in (
        ("KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", cluster.sasl_oauthbearer_token_endpoint_url),
        ("KAFKA_SASL_OAUTHBEARER_CLIENT_ID", cluster.sasl_oauthbearer_client_id),
        ("KAFKA_SASL_OAUTHBEARER_CLIENT_SECRET", cluster.sasl_oauthbearer_client_secret),
    ):
        if not value:
            raise _missing(cluster, key, why, "set it")
    require_token_endpoint(cluster)


def tls_material(cluster: Cluster) -> TlsMaterial:
    """Returns what is in the Java stores of a cluster.

    Raises:
        ConfigError: A store cannot be read.
    """
    trusted, own = _truststore(cluster), _keystore(cluster)
    return TlsMaterial(
        trusted.authorities if trusted else "", own.certificates if own else "", own.key if own else None
    )


def tls_context(cluster: Cluster) -> ssl.SSLContext:
    """Returns the TLS settings of a cluster as a context of Python's `ssl`.

    Without KAFKA_SSL_CAFILE or KAFKA_SSL_TRUSTSTORE_LOCATION the system's certificate authorities are trusted. The broker's
    name is always checked.

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
            context.load_cert_chain(certificate, key, password=_revealed(cluster.ssl_key_password))
        except (ssl.SSLError, OSError) as error:
            _refuse_pair(cluster, Path(key), cluster.ssl_certfile, error)
    if own := _keystore(cluster):
        _load_pair(context, own)
    return context


def _refuse_pair(cluster: Cluster, key: Path, certificate: Path, error: OSError) -> NoReturn:
    """Raises why certificate and key cannot be used together."""
    what = f'certificate and key for cluster "{cluster.name}" cannot be used together'
    if "ENCRYPTED" in key.read_text(encoding="ascii", errors="replace"):
        setting = "KAFKA_SSL_KEY_PASSWORD"
        is_set = bool(cluster.ssl_key_password)
        why = f"the key is encrypted, and {setting} is {'not its password' if is_set else 'not set'}"
        if not is_set or _reason(error) != "KEY_VALUES_MISMATCH":
            raise ConfigError(what, why=why, remedy=f"correct {setting}", file=key, key=setting) from None
    raise ConfigError(
        what,
        why=_reason(error),
        remedy="KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE must be PEM files of one pair; a key with a password needs KAFKA_SSL_KEY_PASSWORD",
        file=certificate,
        key="KAFKA_SSL_CERTFILE",
    ) from None


def _load_pair(context: ssl.SSLContext, own: KeyStore) -> None:
    """Loads the key of a store. Python reads keys from files only: it is there for a moment, under a password of its own."""
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    if own.key is None:
        return
    password = secrets.token_urlsafe(32)
    key = load_pem_private_key(own.key.reveal().encode(), None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password.encode())
    )
    with tempfile.TemporaryDirectory() as folder:
        pair = Path(folder) / "pair.pem"
        pair.write_bytes(key + own.certificates.encode())
        context.load_cert_chain(pair, password=password)


def _trusting(cluster: Cluster) -> ssl.SSLContext:
    if trusted := _truststore(cluster):
        return ssl.create_default_context(cadata=trusted.authorities)
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


def _truststore(cluster: Cluster) -> KeyStore | None:
    path = cluster.ssl_truststore_location
    if path is None:
        return None
    setting = "KAFKA_SSL_TRUSTSTORE_LOCATION"
    store = read_key_store(path, cluster.ssl_truststore_password, setting)
    if not store.authorities:
        why = "it has a key and no authority" if store.key else "it is empty"
        raise ConfigError(f"{path} trusts nothing", why=why, remedy=f"correct {setting}", file=path, key=setting)
    return store


def _keystore(cluster: Cluster) -> KeyStore | None:
    path = cluster.ssl_keystore_location
    if path is None:
        return None
    setting = "KAFKA_SSL_KEYSTORE_LOCATION"
    store = read_key_store(path, cluster.ssl_keystore_password, setting, cluster.ssl_key_password)
    if store.key is None:
        why = "it has certificates only"
        raise ConfigError(f"{path} has no key", why=why, remedy=f"correct {setting}", file=path, key=setting)
    return store


def _revealed(secret: Secret | None) -> str:
    return secret.reveal() if secret else ""


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
            remedy=f"convert it to PEM, set {_STORE_FOR[key]} if it is a JKS or PKCS#12 store, or correct {key}",
            file=path,
            key=key,
        )
    return str(path)


_STORE_FOR = {
    "KAFKA_SSL_CAFILE": "KAFKA_SSL_TRUSTSTORE_LOCATION",
    "KAFKA_SSL_CERTFILE": "KAFKA_SSL_KEYSTORE_LOCATION",
    "KAFKA_SSL_KEYFILE": "KAFKA_SSL_KEYSTORE_LOCATION",
}


def _reason(error: OSError) -> str:
    return (isinstance(error, ssl.SSLError) and error.reason) or error.strerror or str(error)


def _missing(cluster: Cluster, key: str, why: str, remedy: str) -> ConfigError:
    return ConfigError(f'{key} is missing for cluster "{cluster.name}"', why=why, remedy=remedy, key=key)
