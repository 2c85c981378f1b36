"""What is put around aiokafka 0.14 where it ends, waits or requests too much. Why: docs/decisions/016."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import aiokafka.conn
import aiokafka.errors as client_errors
from aiokafka.abc import AbstractTokenProvider
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.protocol.transaction import EndTxnRequest

from core.errors import PsttError
from core.kafka.kerberos import KerberosLogin, gssapi_with, words_of_gssapi
from core.kafka.oauth import TokenSource

__all__ = ["EventLoop", "Tokens", "abort_transaction", "forgiving", "paced"]

T = TypeVar("T")

PRODUCER_ONLY = {"acks", "enable_idempotence", "linger_ms", "transactional_id", "transaction_timeout_ms"}
"""Settings of a producer that aiokafka's client does not have."""
UPDATES_AT_ONCE = 5
"""Requests of metadata without a pause, for several topics."""

_log = logging.getLogger("aiokafka.pstt")


class EventLoop(asyncio.SelectorEventLoop):
    """Remembers its connections, so that they can be ended without an answer of the other side.

    The default loop of Windows has no add_reader, which some TLS versions of asyncio need.
    """

    def __init__(self) -> None:
        super().__init__()
        self.connections: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()

    async def create_connection(self, *args: Any, **options: Any) -> Any:
        """Returns transport and protocol of a new connection."""
        connection, protocol = await super().create_connection(*args, **options)
        self.connections.add(connection)
        return connection, protocol


def paced(update: Callable[..., Awaitable[T]], pause_s: float) -> Callable[..., Awaitable[T]]:
    """Returns a function that calls `update`, on the average once in `pause_s`; the first ones at once."""
    ends: deque[float] = deque(maxlen=UPDATES_AT_ONCE)

    async def later(*args: Any) -> T:
        if len(ends) == UPDATES_AT_ONCE:
            await asyncio.sleep(ends[0] + UPDATES_AT_ONCE * pause_s - time.monotonic())
        try:
            return await update(*args)
        finally:
            ends.append(time.monotonic())

    return later


def forgiving(look_up: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """Returns a function that calls `look_up`; a connection that ends meanwhile is an error after which aiokafka tries again."""

    async def tried(*args: Any) -> T:
        try:
            return await look_up(*args)
        except client_errors.KafkaConnectionError as error:
            raise client_errors.NodeNotReadyError(str(error)) from error

    return tried


async def abort_transaction(settings: Mapping[str, Any], identity: tuple[int, int]) -> None:
    """Aborts the transaction of an earlier producer with the transactional id of these settings.

    Args:
        settings: Of `AIOKafkaProducer`.
        identity: Producer id and epoch of that producer.

    Raises:
        ProducerFenced: A newer producer has the transactional id, and nothing was done.
        KafkaError: aiokafka's own, which no further attempt can change.
    """
    client = AIOKafkaClient(**{name: value for name, value in settings.items() if name not in PRODUCER_ONLY})
    try:
        while True:
            try:
                await client.bootstrap()
                if await _is_aborted(client, settings["transactional_id"], identity):
                    return
            except (client_errors.KafkaConnectionError, client_errors.NodeNotReadyError) as error:
                _log.warning("Cannot abort the transaction: %s", error)
            except client_errors.KafkaError as error:
                if not error.retriable:
                    raise
            await asyncio.sleep(settings["retry_backoff_ms"] / 1000)
    finally:
        await client.close()


async def _is_aborted(client: AIOKafkaClient, transactional_id: str, identity: tuple[int, int]) -> bool:
    """Asks the coordinator to abort a transaction; returns False if it cannot do so yet."""
    node = await client.coordinator_lookup(CoordinationType.TRANSACTION, transactional_id)
    request = EndTxnRequest(transactional_id, *identity, False)
    answer = await client.send(node, request, group=ConnectionGroup.COORDINATION)
    error = client_errors.for_code(answer.error_code)
    if error is client_errors.InvalidProducerEpoch:
        raise client_errors.ProducerFenced
    # It had not begun, or it is aborted already: the coordinator does this to one that takes too long.
    if error in (client_errors.NoError, client_errors.InvalidTxnState):
        return True
    if error is not client_errors.ConcurrentTransactions:
        raise error
    return False


class Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Returns tokens for OAUTHBEARER to aiokafka, in its own errors."""

    def __init__(self, source: TokenSource, extensions: Mapping[str, str]) -> None:
        self._source = source
        self._extensions = dict(extensions)

    async def token(self) -> str:
        """Returns a token; it is fetched in another thread."""
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self._source.token)
        except PsttError as error:
            # The diagnosis reports the problem of the token source in its own words.
            kind = client_errors.KafkaConnectionError if error.is_retriable else client_errors.AuthenticationFailedError
            raise kind(error.text) from error

    def extensions(self) -> dict[str, str]:
        """Returns what is sent with each token."""
        return self._extensions


if aiokafka.conn.gssapi is not None:
    # aiokafka 0.14 logs in by Kerberos with the default ticket of the process only, and lets gssapi's errors pass, which its
    # reconnecting does not know. Remove with the version that takes credentials.
    aiokafka.conn.gssapi = gssapi_with(aiokafka.conn.gssapi)

    class _GssapiAuthenticator(aiokafka.conn.SaslGSSAPIAuthenticator):  # type: ignore[misc]
        def __init__(self, *, login: KerberosLogin | None, **options: Any) -> None:
            self._login = login
            super().__init__(**options)

        def _step(self, payload: bytes | None) -> Any:
            with aiokafka.conn.gssapi.logging_in(self._login):
                try:
                    return super()._step(payload)
                except aiokafka.conn.gssapi.exceptions.GSSError as error:
                    raise client_errors.AuthenticationFailedError(words_of_gssapi(error)) from None

    def _authenticator(connection: Any) -> _GssapiAuthenticator:
        login = connection._sasl_plain_username
        return _GssapiAuthenticator(
            login=login if isinstance(login, KerberosLogin) else None,
            loop=connection._loop,
            principal=connection.sasl_principal,
        )

    aiokafka.conn.AIOKafkaConnection.authenticator_gssapi = _authenticator
