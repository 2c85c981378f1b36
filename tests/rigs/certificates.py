"""Certificates for the TLS listeners of the rig, made again each time; no secret is in the tree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

CLIENT_NAME = "pstt"


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files; keys are PKCS#8, as Kafka wants them."""

    ca_file: Path
    other_ca_file: Path
    """An authority that signed nothing here."""
    server: Path
    """Key and chain of the broker, for 127.0.0.1 and localhost; so the two below."""
    expired: Path
    wrong_host: Path
    client_cert_file: Path
    """Of CLIENT_NAME."""
    client_key_file: Path


def make_certificates(folder: Path) -> Certificates:
    """Writes two authorities and what the first one signs into `folder`."""
    ca, other = trustme.CA(), trustme.CA()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    client = ca.issue_cert(f"{CLIENT_NAME}.example.com", common_name=CLIENT_NAME)
    return Certificates(
        ca_file=_write(folder / "ca.pem", ca.cert_pem.bytes()),
        other_ca_file=_write(folder / "other-ca.pem", other.cert_pem.bytes()),
        server=_keystore(folder / "server.pem", ca.issue_cert("127.0.0.1", "localhost")),
        expired=_keystore(folder / "expired.pem", ca.issue_cert("127.0.0.1", "localhost", not_after=yesterday)),
        wrong_host=_keystore(folder / "wrong-host.pem", ca.issue_cert("another-host.example.com")),
        client_cert_file=_write(folder / "client.pem", _chain(client)),
        client_key_file=_write(folder / "client.key", _key(client)),
    )


def _keystore(file: Path, leaf: trustme.LeafCert) -> Path:
    return _write(file, _key(leaf) + _chain(leaf))


def _chain(leaf: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in leaf.cert_chain_pems)


def _key(leaf: trustme.LeafCert) -> bytes:
    key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(file: Path, content: bytes) -> Path:
    file.write_bytes(content)
    return file
