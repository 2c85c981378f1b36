"""The certificates of a broker's rig in the stores of Java, made by the JDK's own keytool."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from core.model.connection import Secret
from tests.rigs.errors import RigMissing
from tests.rigs.kafka import KafkaRig

PASSWORD = "store-secret-4711"


def keytool(*words: object) -> None:
    """Runs keytool.

    Raises:
        RigMissing: There is no Java.
    """
    program = shutil.which("keytool")
    if program is None:
        raise RigMissing("kafka", "key stores are made with Java's keytool: no `keytool` on the PATH")
    command = [program, "-J-XX:TieredStopAtLevel=1", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def client_certificates(broker: KafkaRig, folder: Path) -> dict[str, dict[str, Any]]:
    """Returns the settings of a cluster for JKS stores, PKCS#12 stores, and PEM files with an encrypted key."""
    key = load_pem_private_key(broker.client_key_file.read_bytes(), None)
    chain = x509.load_pem_x509_certificates(broker.client_cert_file.read_bytes())
    encrypted = BestAvailableEncryption(PASSWORD.encode())
    p12, jks, pem = folder / "client.p12", folder / "client.jks", folder / "client.key"
    p12.write_bytes(serialize_key_and_certificates(b"client", key, chain[0], chain[1:], encrypted))  # type: ignore[arg-type]
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encrypted))
    source = ("-importkeystore", "-noprompt", "-srckeystore", p12, "-srcstorepass", PASSWORD)
    keytool(*source, "-destkeystore", jks, "-deststoretype", "JKS", "-deststorepass", PASSWORD)
    trust: dict[str, Path] = {}
    for kind in ("JKS", "PKCS12"):
        trust[kind] = folder / f"trust.{kind}"
        store = ("-keystore", trust[kind], "-storetype", kind, "-storepass", PASSWORD)
        keytool("-importcert", "-noprompt", "-alias", "ca", "-file", broker.ca_file, *store)
    secret = Secret(PASSWORD)
    return {
        "jks": _stores(jks, trust["JKS"], secret),
        "pkcs12": _stores(p12, trust["PKCS12"], secret),
        "encrypted key": {
            "ssl_cafile": broker.ca_file,
            "ssl_certfile": broker.client_cert_file,
            "ssl_keyfile": pem,
            "ssl_key_password": secret,
        },
    }


def _stores(keystore: Path, truststore: Path, password: Secret) -> dict[str, Any]:
    return {
        "ssl_keystore_location": keystore,
        "ssl_keystore_password": password,
        "ssl_truststore_location": truststore,
        "ssl_truststore_password": password,
    }
