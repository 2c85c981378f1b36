"""Login by Kerberos (SASL/GSSAPI): keytab and principal for the clients in Python, with the library gssapi.

Both clients log in with the default ticket of the process only. Here each cluster has a ticket of its own, in memory, from
its keytab. librdkafka can only use the default ticket of the process (`adopt`), so that a process has one login there. On
Windows it logs in as the account of the process (SSPI).
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from core.errors import BrokerUnavailable, ConfigError, NotAuthorised, PsttError
from core.model.connection import Cluster

__all__ = [
    "KerberosLogin",
    "adopt",
    "gssapi_with",
    "may_adopt",
    "require_kerberos",
    "require_ticket",
    "words_of_gssapi",
]

PRINCIPAL, KEYTAB = "KAFKA_SASL_KERBEROS_PRINCIPAL", "KAFKA_SASL_KERBEROS_KEYTAB"
PASSING = ("cannot contact any kdc", "resource temporarily unavailable", "timed out", "connection refused")
SETUP = ("cannot find kdc", "configuration file", "default realm", "included profile", "cannot determine realm")
SERVICE = "not found in kerberos database"


class KerberosLogin:
    """Who logs in; the clients keep it in place of a user name and give it back when they connect."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def __repr__(self) -> str:
        return self._cluster.sasl_kerberos_principal or "the default ticket"

    def credentials(self) -> Any:
        """Returns credentials of gssapi, with a ticket that is renewed from the keytab; None: the default ticket."""
        import gssapi

        cluster = self._cluster
        if cluster.sasl_kerberos_keytab is None:
            return None
        name = gssapi.Name(str(cluster.sasl_kerberos_principal), gssapi.NameType.kerberos_principal)
        store: dict[bytes | str, bytes | str] = {
            "client_keytab": f"FILE:{cluster.sasl_kerberos_keytab}",
            "ccache": _cache_of(cluster),
        }
        return gssapi.Credentials(name=name, usage="initiate", store=store)


def require_kerberos(cluster: Cluster) -> None:
    """Refuses settings with which no login is possible. Contacts nothing.

    Raises:
        ConfigError: The principal of the keytab is missing, or the client cannot do it on this machine.
    """
    keytab, principal = cluster.sasl_kerberos_keytab, cluster.sasl_kerberos_principal
    if keytab is not None and not principal:
        why = f"{KEYTAB} is set alone"
        remedy = "set it to the principal whose key is in the keytab: NAME@REALM"
        raise ConfigError(f'{PRINCIPAL} is missing for cluster "{cluster.name}"', why=why, remedy=remedy, key=PRINCIPAL)
    if os.name == "nt" and cluster.client == "confluent":
        if keytab is not None:
            why = "on Windows this client logs in as the account of its process"
            raise ConfigError(f"{KEYTAB} is of no use", why=why, remedy=f"delete {KEYTAB} and {PRINCIPAL}", key=KEYTAB)
    elif find_spec("gssapi") is None:
        raise ConfigError(
            f"KAFKA_CLIENT={cluster.client} cannot log in by Kerberos",
            why="the library gssapi is not installed",
            remedy="pip install -r requirements-kerberos.txt; on Windows set KAFKA_CLIENT=confluent instead",
            key="KAFKA_CLIENT",
        )


def require_ticket(cluster: Cluster, hosts: Iterator[str]) -> None:
    """Gets a ticket for the login, and one for the service of a broker; both are kept for the connections that follow.

    Args:
        cluster: Its settings.
        hosts: Host names of its brokers; one with a ticket is enough.

    Raises:
        ConfigError: krb5.conf does not say where the key distribution centre is.
        BrokerUnavailable: It does not answer.
        NotAuthorised: The keytab is not that of the principal, or there is no ticket.
    """
    import gssapi
    from gssapi.raw.misc import GSSError

    if cluster.sasl_kerberos_keytab is None and not may_adopt(cluster):
        raise _other_login(cluster)  # its default ticket would be that of another cluster
    first: PsttError | None = None
    try:
        credentials = KerberosLogin(cluster).credentials()
        if credentials is None:
            credentials = gssapi.Credentials(usage="initiate")
        _ = credentials.lifetime  # gets the ticket, which is otherwise delayed
    except GSSError as error:
        raise _translated(cluster, error) from None
    for host in hosts:
        service = f"{cluster.sasl_kerberos_service_name}@{host}"
        try:
            name = gssapi.Name(service, gssapi.NameType.hostbased_service).canonicalize(gssapi.MechType.kerberos)
            gssapi.SecurityContext(name=name, creds=credentials, usage="initiate").step()
        except GSSError as error:
            first = first or _translated(cluster, error, service)
        else:
            return
    if first is not None:
        raise first


def may_adopt(cluster: Cluster) -> bool:
    """Returns False if this process has another default ticket already."""
    return os.name == "nt" or _adopted in (None, _identity(cluster))


def adopt(cluster: Cluster) -> None:
    """Makes the ticket of a cluster the default one of this process, which librdkafka uses.

    librdkafka's own way is `kinit` in a shell, which changes the tickets of the whole account: runs to other clusters would
    log in with them.

    Raises:
        ConfigError: The process has logged in to another cluster in this way.
    """
    global _adopted
    if os.name == "nt":
        return
    with _lock:
        if not may_adopt(cluster):
            raise _other_login(cluster)
        if _adopted is None and cluster.sasl_kerberos_keytab is not None:
            os.environ["KRB5_CLIENT_KTNAME"] = f"FILE:{cluster.sasl_kerberos_keytab}"
            os.environ["KRB5CCNAME"] = _cache_of(cluster)
        _adopted = _identity(cluster)


_lock = threading.Lock()
_adopted: tuple[str, str] | None = None
"""Keytab and principal of the default ticket; empty: the account's own."""


def _other_login(cluster: Cluster) -> ConfigError:
    return ConfigError(
        f'this process cannot log in to cluster "{cluster.name}"',
        why="librdkafka logs in with one Kerberos principal for each process, and this one has used another",
        remedy="use one principal for both clusters, or one process for each",
        key=PRINCIPAL,
    )


def _identity(cluster: Cluster) -> tuple[str, str]:
    if cluster.sasl_kerberos_keytab is None:
        return "", ""
    return str(cluster.sasl_kerberos_keytab), str(cluster.sasl_kerberos_principal)


def _cache_of(cluster: Cluster) -> str:
    """Returns the name of a cache in the memory of this process, one for each keytab and principal."""
    return f"MEMORY:pstt-{hashlib.sha256(repr(_identity(cluster)).encode()).hexdigest()[:20]}"


def words_of_gssapi(error: Exception) -> str:
    """Returns what the mechanism reports, without the numbers and the general sentence around it."""
    found = re.search(r"Minor \(\d+\): (.*)", str(error), re.DOTALL)
    return " ".join((found[1] if found else str(error)).split())


def _translated(cluster: Cluster, error: Exception, service: str = "") -> PsttError:
    words = words_of_gssapi(error)
    low = words.lower()
    who = cluster.sasl_kerberos_principal or "this account"
    what = f'{who} gets no Kerberos ticket for cluster "{cluster.name}"'
    if any(sign in low for sign in PASSING):
        return BrokerUnavailable(what, why=words, remedy="check the key distribution centre, and krb5.conf")
    if any(sign in low for sign in SETUP):
        return ConfigError(what, why=words, remedy="correct krb5.conf of this machine (KRB5_CONFIG)", key=PRINCIPAL)
    if service and SERVICE in low:
        remedy = "KAFKA_SASL_KERBEROS_SERVICE_NAME and the broker's host name must be those of its principal"
        return NotAuthorised(what, why=f"{words} ({service})", remedy=remedy)
    remedy = (
        f"check that {KEYTAB} has the present key of {PRINCIPAL}: klist -k {cluster.sasl_kerberos_keytab}"
        if cluster.sasl_kerberos_keytab
        else f"set {KEYTAB} and {PRINCIPAL}, or let the account of this process get a ticket (kinit)"
    )
    return NotAuthorised(what, why=words, remedy=remedy)


class _Gssapi:
    """The module gssapi as a client sees it, with the credentials of the login that its thread carries out."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._current = threading.local()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def SecurityContext(self, **options: Any) -> Any:
        """Returns a context with the credentials of the login."""
        login = getattr(self._current, "login", None)
        credentials = login.credentials() if login is not None else None
        return self._module.SecurityContext(creds=credentials, **options)

    @contextmanager
    def logging_in(self, login: KerberosLogin | None) -> Iterator[None]:
        """Within it, this thread logs in with these credentials."""
        self._current.login = login
        try:
            yield
        finally:
            self._current.login = None


def gssapi_with(module: Any) -> Any:
    """Returns a stand-in for the module gssapi, which a client's module has under that name."""
    return module if isinstance(module, _Gssapi) else _Gssapi(module)
