"""Certificates for the TLS listeners of the rig, made anew each time; nothing secret is ever in the tree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files; keys are PKCS#8, as Kafka wants them."""

    ca_file: Path
    other_ca_file: Path
    server: Path
    """Key and chain of the broker, for 127.0.0.1 and localhost."""
    expired: Path
    wrong_host: Path
    client_cert_file: Path
    client_key_file: Path


def make_certificates(folder: Path) -> Certificates:
    ca, other = trustme.CA(), trustme.CA()
    ca_file, other_ca_file = folder / "ca.pem", folder / "other-ca.pem"
    ca.cert_pem.write_to_path(str(ca_file))
    other.cert_pem.write_to_path(str(other_ca_file))
    client = ca.issue_cert("pstt")
    client_cert, client_key = folder / "client.pem", folder / "client.key"
    client_cert.write_bytes(b"".join(blob.bytes() for blob in client.cert_chain_pems))
    client_key.write_bytes(_pkcs8(client.private_key_pem.bytes()))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return Certificates(
        ca_file,
        other_ca_file,
        _keystore(folder / "server.pem", ca.issue_cert("127.0.0.1", "localhost")),
        _keystore(folder / "expired.pem", ca.issue_cert("127.0.0.1", "localhost", not_after=yesterday)),
        _keystore(folder / "wrong-host.pem", ca.issue_cert("another-host.example.com")),
        client_cert,
        client_key,
    )


def _keystore(file: Path, leaf: trustme.LeafCert) -> Path:
    chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
    file.write_bytes(_pkcs8(leaf.private_key_pem.bytes()) + chain)
    return file


def _pkcs8(pem: bytes) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        load_pem_private_key,
    )

    return load_pem_private_key(pem, None).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
