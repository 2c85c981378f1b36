"""The client of a schema registry with Confluent's REST API: Confluent, Karapace, Redpanda, Apicurio (`/apis/ccompat/v7`).

A request that fails for want of an answer is tried again twice.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from core.errors import ConfigError, NotAuthorised, PsttError, RegistryUnavailable, SchemaRefused
from core.model.connection import SchemaRegistry
from core.model.schema import Schema

if TYPE_CHECKING:
    import urllib3

__all__ = ["NO_REASON", "RegistryClient"]

NO_REASON = "the registry gives no reason"
TRIES = 3
PAUSE_S = 0.2
"""Before the second try; twice as long before the third."""
_JSON = "application/vnd.schemaregistry.v1+json, application/json"
_SUBJECT_UNKNOWN, _VERSION_UNKNOWN, _SCHEMA_UNKNOWN = 40_401, 40_402, 40_403


class RegistryClient:
    """Asks one registry. Use it from one thread, or from several.

    Args:
        registry: Address and credentials.
        sleep: Waits between two tries, in seconds.
    """

    def __init__(self, registry: SchemaRegistry, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.registry = registry
        self._sleep = sleep
        self._pool = _pool(registry)
        self._headers = _headers(registry)
        self._texts: dict[int, Schema] = {}
        self._lock = threading.Lock()

    @property
    def place(self) -> str:
        """The address without credentials, for messages."""
        return self.registry.place

    def find(self, subject: str, schema: Schema) -> int | None:
        """Returns the id of a schema that is registered under a subject; None: it is not."""
        found = self._ask("POST", f"/subjects/{_quoted(subject)}", _document(schema), missing=True)
        return None if found is None else _number(found, "id", self.place)

    def latest(self, subject: str) -> tuple[int, Schema] | None:
        """Returns version and schema that were registered last under a subject; None: the subject has none."""
        found = self._ask("GET", f"/subjects/{_quoted(subject)}/versions/latest", missing=True)
        if found is None:
            return None
        return _number(found, "version", self.place), _schema(found)

    def problems(self, subject: str, schema: Schema) -> list[str]:
        """Returns why a schema is not compatible with the newest one of its subject; empty: it is, or there is none."""
        path = f"/compatibility/subjects/{_quoted(subject)}/versions/latest?verbose=true"
        found = self._ask("POST", path, _document(schema), missing=True)
        if found is None or found.get("is_compatible", True):
            return []
        return [str(message) for message in found.get("messages") or [NO_REASON]]

    def register(self, subject: str, schema: Schema) -> int:
        """Registers a schema under a subject and returns its id; one that is registered already keeps its id."""
        found = self._ask("POST", f"/subjects/{_quoted(subject)}/versions", _document(schema))
        return _number(found or {}, "id", self.place)

    def schema(self, schema_id: int) -> Schema:
        """Returns the schema with an id; it never changes, so it is asked for once.

        Raises:
            SchemaRefused: There is none.
        """
        with self._lock:
            known = self._texts.get(schema_id)
        if known is not None:
            return known
        found = self._ask("GET", f"/schemas/ids/{schema_id}", missing=True)
        if found is None:
            raise SchemaRefused(
                f"{self.place} has no schema with the id {schema_id}", remedy="check which registry it is"
            )
        made = _schema(found)
        with self._lock:
            self._texts[schema_id] = made
        return made

    def subjects(self) -> list[str]:
        """Returns every subject: a check that the registry answers and knows the account."""
        found: Any = self._ask("GET", "/subjects")
        return [str(name) for name in found] if isinstance(found, list) else []

    def _ask(self, method: str, path: str, body: Any = None, *, missing: bool = False) -> dict[str, Any] | None:
        """Sends one request and returns the document of the answer; None if `missing` and there is no such thing.

        Raises:
            RegistryUnavailable: No answer, or a server error, three times.
            NotAuthorised, SchemaRefused, ConfigError: As the answer says.
        """
        for attempt in range(1, TRIES + 1):
            try:
                return self._ask_once(method, path, body, missing=missing)
            except RegistryUnavailable:
                if attempt == TRIES:
                    raise
                self._sleep(PAUSE_S * attempt)
        raise AssertionError("unreachable")

    def _ask_once(self, method: str, path: str, body: Any, *, missing: bool) -> dict[str, Any] | None:
        import urllib3  # binds a socket to find out about IPv6

        data = None if body is None else json.dumps(body).encode()
        try:
            answer = self._pool.request(method, self.registry.url.rstrip("/") + path, body=data, headers=self._headers)
        except urllib3.exceptions.HTTPError as error:
            raise self._no_answer(error) from None
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or answer.status == HTTPStatus.TOO_MANY_REQUESTS:
            raise RegistryUnavailable(
                f"schema registry {self.place} cannot answer",
                why=f"HTTP {answer.status}{_said(answer.data)}",
                remedy="try later, or ask who runs it",
            )
        document: dict[str, Any] | None = _parsed(answer.data)
        if answer.status < HTTPStatus.BAD_REQUEST and document is not None:
            return document
        if (
            missing
            and document is not None
            and _code(document) in (_SUBJECT_UNKNOWN, _VERSION_UNKNOWN, _SCHEMA_UNKNOWN)
        ):
            return None
        raise self._refused(answer.status, document, answer.headers)

    def _no_answer(self, error: urllib3.exceptions.HTTPError) -> PsttError:
        import urllib3  # binds a socket to find out about IPv6

        reason = getattr(error, "reason", None) or error
        # With TLS 1.3 a server that misses our certificate may just end the connection, as one that restarts does.
        if isinstance(reason, urllib3.exceptions.SSLError) and "EOF" not in str(reason):
            return ConfigError(
                f"no TLS connection to schema registry {self.place}",
                why=str(reason),
                remedy="check ssl_cafile, ssl_certfile and ssl_keyfile of schema_registry",
            )
        return RegistryUnavailable(
            f"schema registry {self.place} does not answer",
            why=_cause(error),
            remedy="check the url of schema_registry, that the registry runs, and whether it wants a client certificate",
        )

    def _refused(self, status: int, document: dict[str, Any] | None, headers: Mapping[str, str]) -> PsttError:
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return NotAuthorised(
                f"schema registry {self.place} refuses this account",
                why=f"HTTP {status}",
                remedy="check username and password, bearer_token or the client certificate of schema_registry",
            )
        if document is None:
            kind = headers.get("content-type", "no document").partition(";")[0]
            return ConfigError(
                f"what answers at {self.place} is no schema registry",
                why=f"HTTP {status} with {kind}",
                remedy="check the url of schema_registry; Apicurio's ends with /apis/ccompat/v7",
            )
        if status == HTTPStatus.NOT_FOUND and "error_code" not in document:
            return ConfigError(
                f"there is no schema registry at {self.place}",
                why="HTTP 404",
                remedy="check the path of the url of schema_registry; Apicurio's ends with /apis/ccompat/v7",
            )
        return SchemaRefused(
            f"schema registry {self.place} refuses the schema",
            why=str(document.get("message") or f"HTTP {status}")[:2000],
        )


def _pool(registry: SchemaRegistry) -> urllib3.PoolManager:
    import urllib3  # binds a socket to find out about IPv6

    timeout = urllib3.Timeout(connect=registry.timeout_s, read=registry.timeout_s)
    try:
        return urllib3.PoolManager(
            timeout=timeout,
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(registry.ssl_cafile) if registry.ssl_cafile else None,
            cert_file=str(registry.ssl_certfile) if registry.ssl_certfile else None,
            key_file=str(registry.ssl_keyfile) if registry.ssl_keyfile else None,
            key_password=registry.ssl_key_password.reveal() if registry.ssl_key_password else None,
        )
    except (OSError, ValueError) as error:
        raise ConfigError("the certificates of schema_registry cannot be used", why=str(error)) from None


def _headers(registry: SchemaRegistry) -> dict[str, str]:
    import urllib3  # binds a socket to find out about IPv6

    headers = {"accept": _JSON, "content-type": "application/vnd.schemaregistry.v1+json"}
    if registry.bearer_token is not None:
        headers["authorization"] = f"Bearer {registry.bearer_token.reveal()}"
    elif registry.username:
        password = registry.password.reveal() if registry.password else ""
        headers |= urllib3.make_headers(basic_auth=f"{registry.username}:{password}")
    return headers


def _document(schema: Schema) -> dict[str, Any]:
    # Confluent's API leaves the type of Avro out; older registries know no other.
    return {"schema": schema.text} | ({} if schema.type == "AVRO" else {"schemaType": schema.type})


def _schema(found: Mapping[str, Any]) -> Schema:
    return Schema(found.get("schemaType") or "AVRO", str(found.get("schema", "")))


def _parsed(data: bytes) -> Any:
    """Returns the JSON document of an answer; None if it is none."""
    try:
        found = json.loads(data)
    except ValueError:
        return None
    return found if isinstance(found, dict | list) else None


def _number(found: Mapping[str, Any], key: str, place: str) -> int:
    value = found.get(key) if isinstance(found, dict) else None
    if not isinstance(value, int):
        raise ConfigError(
            f"what answers at {place} is no schema registry",
            why=f'its answer has no number "{key}"',
            remedy="check the url of schema_registry",
        )
    return value


def _code(document: Any) -> int | None:
    return document.get("error_code") if isinstance(document, dict) else None


def _said(data: bytes) -> str:
    document = _parsed(data)
    message = document.get("message") if isinstance(document, dict) else None
    return f": {str(message)[:500]}" if message else ""


def _cause(error: urllib3.exceptions.HTTPError) -> str:
    """Returns why there is no answer, without the connection that urllib3 names before it."""
    import urllib3  # binds a socket to find out about IPv6

    reason = getattr(error, "reason", None) or error
    # NewConnectionError is one of the time-outs, too.
    if isinstance(reason, urllib3.exceptions.TimeoutError) and not isinstance(
        reason, urllib3.exceptions.NewConnectionError
    ):
        return "no answer in time"
    return str(reason).partition("): ")[2] or str(reason)


def _quoted(subject: str) -> str:
    return quote(subject, safe="")
