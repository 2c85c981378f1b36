"""Reads key stores of Java: PKCS#12 with the library cryptography, JKS here. Why: docs/decisions/024.

The format of JKS is that of the JDK's `sun.security.provider.JavaKeyStore` and `KeyProtector`.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from core.errors import ConfigError
from core.model.connection import Secret

__all__ = ["KeyStore", "read_key_store"]

JKS_MAGIC, JCEKS_MAGIC = b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce"
DIGEST_BYTES = 20
"""Of SHA-1, which JKS uses throughout."""
WHITENER = b"Mighty Aphrodite"
MOST_BYTES = 50_000_000


@dataclass(frozen=True, slots=True)
class KeyStore:
    """What a store holds, as PEM."""

    authorities: str
    """Certificates that it trusts; empty: none."""
    certificates: str = ""
    """The certificate of its key, with its chain; empty: no key."""
    key: Secret | None = None
    """PKCS#8 without a password."""


class _Damaged(Exception):
    """The store ends early, or does not have the form that its beginning says."""


class _WrongPassword(Exception):
    """The store, or its key, has another password."""


def read_key_store(path: Path, password: Secret | None, setting: str, key_password: Secret | None = None) -> KeyStore:
    """Reads a store.

    Args:
        path: JKS or PKCS#12.
        password: Of the store. None: none; of JKS the certificates are then read without the check of their integrity.
        setting: Name of the setting with the path, for the error; its password is named alike.
        key_password: Of the key in it, where it has another one (JKS).

    Raises:
        ConfigError: The file cannot be read, is of another kind, or has another password.
    """
    try:
        data = path.read_bytes()[:MOST_BYTES]
    except OSError as error:
        raise _error(path, "cannot be read", setting, why=error.strerror or type(error).__name__) from None
    password_setting = setting.replace("LOCATION", "PASSWORD")
    secret = password.reveal() if password else None
    try:
        if data.startswith(JKS_MAGIC):
            return _read_jks(data, secret, key_password.reveal() if key_password else secret)
        if data[:1] == b"\x30":
            return _read_pkcs12(data, secret)
    except _WrongPassword:
        why = (
            f"{password_setting} is not its password"
            if secret
            else f"it has a password, and {password_setting} is not set"
        )
        raise _error(path, "cannot be opened", setting, why=why, remedy=f"correct {password_setting}") from None
    except (_Damaged, struct.error, ValueError, IndexError) as error:
        why = str(error) if isinstance(error, _Damaged) else "the file is damaged"
        raise _error(path, "cannot be read", setting, why=why, remedy="make the store again") from None
    if data.startswith(JCEKS_MAGIC):
        remedy = "convert it: keytool -importkeystore -srckeystore OLD -destkeystore NEW -deststoretype PKCS12"
        raise _error(path, "cannot be read", setting, why="it is a JCEKS store", remedy=remedy)
    pem = b"-----BEGIN" in data
    raise _error(
        path,
        "is neither a JKS nor a PKCS#12 store",
        setting,
        why="it is PEM" if pem else "it begins otherwise",
        remedy="set KAFKA_SSL_CAFILE, or KAFKA_SSL_CERTFILE and KAFKA_SSL_KEYFILE" if pem else f"correct {setting}",
    )


def _error(path: Path, what: str, setting: str, *, why: str, remedy: str = "") -> ConfigError:
    return ConfigError(f"{path} {what}", why=why, remedy=remedy or f"correct {setting}", file=path, key=setting)


# ── PKCS#12 ───────────────────────────────────────────────────────────────────────────────────


def _read_pkcs12(data: bytes, password: str | None) -> KeyStore:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

    try:
        store = load_pkcs12(data, password.encode() if password else None)
    except ValueError as error:
        if "password" in str(error).lower():
            raise _WrongPassword from None
        raise _Damaged("it is no PKCS#12 store, or is damaged") from None
    others = [entry.certificate.public_bytes(Encoding.PEM).decode() for entry in store.additional_certs]
    if store.key is None:
        own = [store.cert.certificate.public_bytes(Encoding.PEM).decode()] if store.cert else []
        return KeyStore("".join([*own, *others]))
    if store.cert is None:
        raise _Damaged("its key has no certificate")
    key = store.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    certificate = store.cert.certificate.public_bytes(Encoding.PEM).decode()
    return KeyStore("".join(others), "".join([certificate, *others]), Secret(key))


# ── JKS ───────────────────────────────────────────────────────────────────────────────────────


class _Reader:
    """Reads the big-endian fields of a store, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, count: int) -> bytes:
        """Returns the next bytes. Raises _Damaged if there are fewer."""
        found = self._data[self._at : self._at + count]
        if len(found) != count or count < 0:
            raise _Damaged("it ends in the middle of an entry")
        self._at += count
        return found

    def number(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def text(self) -> bytes:
        return self.take(int.from_bytes(self.take(2), "big"))

    def block(self) -> bytes:
        return self.take(self.number())


def _read_jks(data: bytes, password: str | None, key_password: str | None) -> KeyStore:
    body, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if password is not None:
        expected = hashlib.sha1(_utf16(password) + WHITENER + body, usedforsecurity=False).digest()
        if not hmac.compare_digest(expected, digest):
            raise _WrongPassword  # or damaged, which has the same digest
    trusted: list[bytes] = []
    keys: list[tuple[bytes, list[bytes]]] = []
    for key, certificates in _entries(_Reader(body)):
        if key is None:
            trusted += certificates
        else:
            keys.append((key, certificates))
    if len(keys) > 1:
        raise _Damaged(f"it has {len(keys)} keys, and none is chosen; make a store with one")
    if not keys:
        return KeyStore(_pem(trusted))
    encrypted, own = keys[0]
    if key_password is None:
        raise _WrongPassword
    return KeyStore(_pem(trusted), _pem(own), Secret(_key_pem(_decrypted(encrypted, key_password))))


def _entries(reader: _Reader) -> Iterator[tuple[bytes | None, list[bytes]]]:
    """Yields for each entry the encrypted key, or None, and its certificates (DER)."""
    reader.take(4)
    version = reader.number()
    if version not in (1, 2):
        raise _Damaged(f"it is of version {version}, which is not known")

    def certificate() -> bytes:
        if version == 2:
            reader.text()  # "X.509"
        return reader.block()

    for _ in range(reader.number()):
        kind = reader.number()
        reader.text()  # alias
        reader.take(8)  # time
        if kind == 1:
            key = reader.block()
            yield key, [certificate() for _ in range(reader.number())]
        elif kind == 2:
            yield None, [certificate()]
        else:
            raise _Damaged(f"it has an entry of kind {kind}, which is not known")


def _decrypted(encrypted: bytes, password: str) -> bytes:
    """Returns the key (PKCS#8, DER): Sun's own algorithm is an exclusive or with a chain of SHA-1 digests."""
    protected = _octets_of(encrypted)
    salt, hidden, digest = protected[:DIGEST_BYTES], protected[DIGEST_BYTES:-DIGEST_BYTES], protected[-DIGEST_BYTES:]
    secret = _utf16(password)

    def stream() -> Iterator[bytes]:
        block = salt
        while True:
            block = hashlib.sha1(secret + block, usedforsecurity=False).digest()
            yield block

    plain = bytes(a ^ b for a, b in zip(hidden, chain.from_iterable(stream()), strict=False))
    if not hmac.compare_digest(hashlib.sha1(secret + plain, usedforsecurity=False).digest(), digest):
        raise _WrongPassword
    return plain


def _octets_of(der: bytes) -> bytes:
    """Returns the content of EncryptedPrivateKeyInfo: SEQUENCE of an algorithm and an OCTET STRING."""
    tag, inner, _ = _element(der)
    if tag != 0x30:
        raise _Damaged("its key has another form")
    _, _, rest = _element(inner)
    tag, octets, _ = _element(rest)
    if tag != 0x04 or len(octets) < 2 * DIGEST_BYTES:
        raise _Damaged("its key has another form")
    return octets


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """Splits DER into the tag and the content of its first element, and what follows."""
    length, at = der[1], 2
    if length & 0x80:
        count = length & 0x7F
        length, at = int.from_bytes(der[2 : 2 + count], "big"), 2 + count
    if len(der) < at + length:
        raise _Damaged("its key ends early")
    return der[0], der[at : at + length], der[at + length :]


def _utf16(password: str) -> bytes:
    return password.encode("utf-16-be")


def _pem(certificates: list[bytes]) -> str:
    return "".join(map(ssl.DER_cert_to_PEM_cert, certificates))


def _key_pem(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der).replace(" CERTIFICATE-", " PRIVATE KEY-")
