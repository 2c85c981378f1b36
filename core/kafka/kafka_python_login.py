"""Logins of kafka-python-ng beyond user and password: Kerberos with a keytab, and tokens."""

from __future__ import annotations

from typing import Any

import kafka.errors as client_errors
import kafka.sasl.gssapi
from kafka.future import Future
from kafka.oauth.abstract import AbstractTokenProvider

from core.errors import PsttError
from core.kafka.kerberos import KerberosLogin, gssapi_with, words_of_gssapi
from core.kafka.oauth import TokenSource

__all__ = ["Tokens"]


class Tokens(AbstractTokenProvider):  # type: ignore[misc]
    """Returns tokens for OAUTHBEARER to kafka-python-ng, in its own errors."""

    def __init__(self, source: TokenSource, extensions: dict[str, str]) -> None:
        self._source = source
        self._extensions = extensions

    def token(self) -> str:
        """Returns a token, which may be fetched first."""
        try:
            return self._source.token()
        except PsttError as error:
            # The diagnosis reports the problem of the token source in its own words.
            kind = client_errors.KafkaConnectionError if error.is_retriable else client_errors.AuthenticationFailedError
            raise kind(error.text) from error

    def extensions(self) -> dict[str, str]:
        """Returns what is sent with each token."""
        return self._extensions


_client = kafka.sasl.gssapi

if _client.gssapi is not None:
    # kafka-python-ng 2.2.3 logs in by Kerberos with the default ticket of the process only, and lets gssapi's errors pass,
    # which its callers do not know. Remove with the version that takes credentials.
    _client.gssapi = gssapi_with(_client.gssapi)
    _try_authenticate = _client.try_authenticate

    def _with_credentials(connection: Any, future: Any) -> Any:
        login = connection.config["sasl_plain_username"]
        outcome = Future()
        with _client.gssapi.logging_in(login if isinstance(login, KerberosLogin) else None):
            _try_authenticate(connection, outcome)
        if outcome.succeeded():
            return future.success(outcome.value)
        failure = outcome.exception
        if not isinstance(failure, client_errors.KafkaError):
            failure = client_errors.AuthenticationFailedError(words_of_gssapi(failure))
        return future.failure(failure)

    _client.try_authenticate = _with_credentials
