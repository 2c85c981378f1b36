"""Java's stores: what the JDK's own keytool makes is read as it is; each mistake is one error."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.kafka.key_stores import read_key_store
from core.kafka.librdkafka import client_config
from core.kafka.security import tls_context
from core.kafka.support import refuse_unsupported
from core.model.connection import UNREAD, Cluster, Secret
from tests.rigs.errors import RigMissing

PASSWORD = "store-secret-4711"
SETTING = "KAFKA_SSL_KEYSTORE_LOCATION"
Keytool = Callable[..., None]


@pytest.fixture(scope="module")
def keytool() -> Keytool:
    program = shutil.which("keytool")
    if program is None:
        raise RigMissing("kafka", "key stores are made with Java's keytool: no `keytool` on the PATH")

    def run(*words: Any) -> None:
        options = ["-J-Dfile.encoding=UTF-8", "-J-Dsun.jnu.encoding=UTF-8", "-J-XX:TieredStopAtLevel=1"]
        done = subprocess.run(
            [program, *options, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env={"LC_ALL": "C.UTF-8", "PATH": str(Path(program).parent)},
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return run


class Made:
    """A folder with one key and its authority in each form."""

    def __init__(self, folder: Path, keytool: Keytool) -> None:
        self.folder = folder
        ca = trustme.CA()
        leaf = ca.issue_cert("client.example.com", common_name="pstt")
        self.chain = [x509.load_pem_x509_certificate(blob.bytes()) for blob in leaf.cert_chain_pems]
        self.key = load_pem_private_key(leaf.private_key_pem.bytes(), None)
        self.ca_pem = ca.cert_pem.bytes()
        self.authority = x509.load_pem_x509_certificate(self.ca_pem)
        (folder / "ca.pem").write_bytes(self.ca_pem)
        (folder / "client.pem").write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in self.chain))
        encrypted = BestAvailableEncryption(PASSWORD.encode())
        (folder / "client.key").write_bytes(self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encrypted))
        (folder / "client.legacy.key").write_bytes(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, encrypted)
        )
        self.p12 = folder / "client.p12"
        self.p12.write_bytes(
            serialize_key_and_certificates(
                b"client", self.key, self.chain[0], [*self.chain[1:], self.authority], encrypted
            )  # type: ignore[arg-type]
        )
        self.jks, self.trust_jks, self.trust_p12, self.jceks = (
            folder / name for name in ("client.jks", "trust.jks", "trust.p12", "client.jceks")
        )
        source = ("-importkeystore", "-noprompt", "-srckeystore", self.p12, "-srcstorepass", PASSWORD)
        keytool(*source, "-destkeystore", self.jks, "-deststoretype", "JKS", "-deststorepass", PASSWORD)
        keytool(*source, "-destkeystore", self.jceks, "-deststoretype", "JCEKS", "-deststorepass", PASSWORD)
        for store, kind in ((self.trust_jks, "JKS"), (self.trust_p12, "PKCS12")):
            keytool(
                "-importcert", "-noprompt", "-alias", "ca", "-file", folder / "ca.pem",
                "-keystore", store, "-storetype", kind, "-storepass", PASSWORD,
            )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, keytool: Keytool) -> Made:
    return Made(tmp_path_factory.mktemp("stores"), keytool)


def refused(path: Path, password: str | None, setting: str = SETTING, **options: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read_key_store(path, Secret(password) if password else None, setting, **options)
    whole = "".join(traceback.format_exception(caught.value)) + caught.value.text + caught.value.remedy
    assert PASSWORD not in whole
    assert "PRIVATE KEY" not in whole
    return caught.value


@pytest.mark.parametrize("kind", ["jks", "p12"])
def test_key_and_chain_are_those_that_were_stored(kind: str, made: Made):
    store = read_key_store(getattr(made, kind), Secret(PASSWORD), SETTING)
    assert store.key is not None
    key = load_pem_private_key(store.key.reveal().encode(), None)
    assert key.private_numbers() == made.key.private_numbers()  # type: ignore[union-attr]
    certificates = x509.load_pem_x509_certificates(store.certificates.encode())
    assert certificates[0] == made.chain[0]
    assert made.authority in certificates
    assert repr(store.key) == "***"


@pytest.mark.parametrize("kind", ["trust_jks", "trust_p12"])
def test_authorities_are_those_that_were_stored(kind: str, made: Made):
    store = read_key_store(getattr(made, kind), Secret(PASSWORD), "KAFKA_SSL_TRUSTSTORE_LOCATION")
    assert x509.load_pem_x509_certificates(store.authorities.encode()) == [made.authority]
    assert store.key is None


def test_a_jks_truststore_needs_no_password(made: Made):
    store = read_key_store(made.trust_jks, None, "KAFKA_SSL_TRUSTSTORE_LOCATION")
    assert x509.load_pem_x509_certificates(store.authorities.encode()) == [made.authority]


def test_a_key_of_a_jks_may_have_a_password_of_its_own(made: Made, keytool: Keytool, tmp_path: Path):
    store = tmp_path / "two.jks"
    shutil.copy(made.jks, store)
    keytool("-keypasswd", "-alias", "client", "-keystore", store, "-storepass", PASSWORD, "-new", "other-secret")
    assert read_key_store(store, Secret(PASSWORD), SETTING, Secret("other-secret")).key is not None
    assert "KAFKA_SSL_KEYSTORE_PASSWORD is not its password" in refused(store, PASSWORD).text


@pytest.mark.parametrize("kind", ["jks", "p12", "trust_jks", "trust_p12"])
@pytest.mark.parametrize(
    ("password", "said"),
    [("wrong", "is not its password"), (None, "it has a password, and KAFKA_SSL_KEYSTORE_PASSWORD is not set")],
)
def test_a_wrong_password_is_one_error(kind: str, password: str | None, said: str, made: Made):
    if kind == "trust_jks" and password is None:
        return  # its certificates can be read without
    error = refused(getattr(made, kind), password)
    assert said in error.text
    assert error.remedy == "correct KAFKA_SSL_KEYSTORE_PASSWORD"


def test_another_kind_of_file_is_named(made: Made, tmp_path: Path):
    assert "-deststoretype PKCS12" in refused(made.jceks, PASSWORD).remedy
    assert "set KAFKA_SSL_CAFILE" in refused(made.folder / "ca.pem", PASSWORD).remedy
    (tmp_path / "notes.txt").write_text("a note", encoding="utf-8")
    assert "is neither a JKS nor a PKCS#12 store" in refused(tmp_path / "notes.txt", PASSWORD).text
    assert "cannot be read" in refused(tmp_path / "none", PASSWORD).text
    (tmp_path / "der").write_bytes(made.authority.public_bytes(Encoding.DER))
    assert "it is no PKCS#12 store" in refused(tmp_path / "der", PASSWORD).text


@given(data=st.data())
def test_a_damaged_store_is_one_error(data: st.DataObject, made: Made, tmp_path_factory: pytest.TempPathFactory):
    whole = data.draw(st.sampled_from([made.jks, made.p12, made.trust_jks])).read_bytes()
    end = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole[: end if data.draw(st.booleans()) else len(whole)])
    if changed:
        changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 + data.draw(st.integers(0, 254))
    file = tmp_path_factory.getbasetemp() / "damaged"
    file.write_bytes(changed)
    with suppress(ConfigError):  # any other exception would fail; a changed alias or time is no damage
        read_key_store(file, Secret(PASSWORD), SETTING)


# ── what the clients are given ────────────────────────────────────────────────────────────────


def cluster(made: Made, **changes: Any) -> Cluster:
    return Cluster("c", "localhost:1", "SSL", **changes)


STORES = {
    "jks": lambda made: {
        "ssl_keystore_location": made.jks,
        "ssl_keystore_password": Secret(PASSWORD),
        "ssl_truststore_location": made.trust_jks,
    },
    "pkcs12": lambda made: {
        "ssl_keystore_location": made.p12,
        "ssl_keystore_password": Secret(PASSWORD),
        "ssl_truststore_location": made.trust_p12,
        "ssl_truststore_password": Secret(PASSWORD),
    },
}


@pytest.mark.parametrize("kind", STORES)
def test_python_trusts_the_authorities_of_a_store_alone(kind: str, made: Made):
    context = tls_context(cluster(made, **STORES[kind](made)))
    assert [ssl.DER_cert_to_PEM_cert(der).encode() for der in context.get_ca_certs(binary_form=True)] == [made.ca_pem]
    assert context.check_hostname


@pytest.mark.parametrize("kind", STORES)
def test_librdkafka_is_given_the_content_of_a_store(kind: str, made: Made):
    config = client_config(cluster(made, **STORES[kind](made)))
    assert x509.load_pem_x509_certificates(config["ssl.ca.pem"].encode()) == [made.authority]
    assert load_pem_private_key(config["ssl.key.pem"].encode(), None) is not None
    assert not any(name.endswith(".location") for name in config)


@pytest.mark.parametrize("name", ["client.key", "client.legacy.key"])
def test_an_encrypted_key_is_used_with_its_password(name: str, made: Made):
    pair = {"ssl_certfile": made.folder / "client.pem", "ssl_keyfile": made.folder / name}
    given = cluster(made, **pair, ssl_key_password=Secret(PASSWORD))
    tls_context(given)
    assert client_config(given)["ssl.key.password"] == PASSWORD
    for password, said in ((None, "KAFKA_SSL_KEY_PASSWORD is not set"), (Secret("wrong"), "is not its password")):
        with pytest.raises(ConfigError, match=said) as caught:
            refuse_unsupported(cluster(made, **pair, ssl_key_password=password))
        assert caught.value.key == "KAFKA_SSL_KEY_PASSWORD"
    refuse_unsupported(cluster(made, **pair, ssl_key_password=UNREAD))  # `check` reads no vault


def test_a_store_in_the_wrong_place_is_named(made: Made):
    trust = {"ssl_keystore_location": made.trust_jks, "ssl_keystore_password": Secret(PASSWORD)}
    with pytest.raises(ConfigError, match="has no key: it has certificates only"):
        tls_context(cluster(made, **trust))
    with pytest.raises(ConfigError, match="is not a PEM file") as caught:
        tls_context(cluster(made, ssl_cafile=made.trust_jks))
    assert "KAFKA_SSL_TRUSTSTORE_LOCATION" in caught.value.remedy
