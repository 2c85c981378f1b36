"""What a registry answers, over real HTTP: refusals, errors, HTML, silence; certificates, passwords and tokens."""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from core.errors import ConfigError, NotAuthorised, PsttError, RegistryUnavailable, SchemaRefused
from core.kafka.schema_registry import RegistryClient
from core.model.connection import SchemaRegistry, Secret
from core.model.schema import Schema
from core.run.registered_schemas import CheckedSchemas, RegisteredSchemas

SCHEMA = Schema("AVRO", '"string"')
OTHER = Schema("PROTOBUF", "message A {}")
NOT_THERE = (404, {"error_code": 40401, "message": "Subject 'a-value' not found."})
Answer = tuple[int, object]


class Registry:
    """An HTTP server that answers as it is told and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], object]] = []
        self.answers: dict[str, list[Answer]] = {}
        """Method and path → answers; the last one is repeated."""
        self.server: ThreadingHTTPServer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("content-length") or 0)
        body = json.loads(request.rfile.read(length)) if length else None
        self.asked.append((request.command, request.path, {k.lower(): v for k, v in request.headers.items()}, body))
        queue = self.answers.get(f"{request.command} {request.path}", [(404, "<html>nothing here</html>")])
        status, document = queue.pop(0) if len(queue) > 1 else queue[0]
        is_html = isinstance(document, str)
        data = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        request.send_response(status)
        request.send_header("content-type", "text/html" if is_html else "application/json")
        request.send_header("content-length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


@contextmanager
def serving(server: Registry, context: ssl.SSLContext | None = None) -> Iterator[Registry]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def do_POST(self) -> None:
            server.answer(self)

        def log_message(self, *_: object) -> None: ...

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A refused certificate ends a connection in the middle of its handshake."""

    with Quiet(("127.0.0.1", 0), Handler) as listening:
        if context is not None:
            listening.socket = context.wrap_socket(listening.socket, server_side=True)
        server.server = listening
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()


@pytest.fixture
def server() -> Iterator[Registry]:
    with serving(Registry()) as made:
        yield made


def client(server: Registry, sleep: Callable[[float], None] = lambda _: None, **more: object) -> RegistryClient:
    return RegistryClient(SchemaRegistry(server.url, **more), sleep=sleep)  # type: ignore[arg-type]


def test_a_known_schema_is_asked_for_once(server: Registry) -> None:
    server.answers["POST /subjects/a-value"] = [(200, {"subject": "a-value", "id": 7, "version": 2})]
    schemas = RegisteredSchemas(client(server))
    assert [schemas.id_of("a-value", SCHEMA) for _ in range(3)] == [7, 7, 7]
    ((method, path, headers, body),) = server.asked
    assert (method, path, body) == ("POST", "/subjects/a-value", {"schema": '"string"'})
    assert "authorization" not in headers


def test_a_new_compatible_schema_is_registered_after_the_check(server: Registry) -> None:
    server.answers = {
        "POST /subjects/a-value": [NOT_THERE],
        "POST /compatibility/subjects/a-value/versions/latest?verbose=true": [(200, {"is_compatible": True})],
        "GET /subjects/a-value/versions/latest": [(200, {"version": 1, "schema": "message A { int64 x = 1; }"})],
        "POST /subjects/a-value/versions": [(200, {"id": 12})],
    }
    schemas = RegisteredSchemas(client(server))
    assert schemas.id_of("a-value", OTHER) == 12
    assert schemas.notes == [f'schema 12 is new under subject "a-value" of {server.url[7:]}: x is gone']
    assert [path.partition("?")[0] for _, path, _, _ in server.asked] == [
        "/subjects/a-value",
        "/compatibility/subjects/a-value/versions/latest",
        "/subjects/a-value/versions/latest",
        "/subjects/a-value/versions",
    ]
    assert server.asked[-1][3] == {"schema": "message A {}", "schemaType": "PROTOBUF"}


@pytest.mark.parametrize("kind", [RegisteredSchemas, CheckedSchemas])
def test_an_incompatible_schema_is_refused_before_anything_is_registered(server: Registry, kind: type) -> None:
    server.answers = {
        "POST /subjects/a-value": [NOT_THERE],
        "POST /compatibility/subjects/a-value/versions/latest?verbose=true": [
            (200, {"is_compatible": False, "messages": ["READER_FIELD_MISSING_DEFAULT_VALUE: x"]})
        ],
    }
    with pytest.raises(SchemaRefused, match="not compatible") as caught:
        kind(client(server)).id_of("a-value", SCHEMA)
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in caught.value.why
    assert not any(path.endswith("/versions") for _, path, _, _ in server.asked)


def test_a_registry_without_a_reason_leaves_the_difference_to_us(server: Registry) -> None:
    before = {"type": "record", "name": "A", "fields": [{"name": "x", "type": "int"}, {"name": "y", "type": "int"}]}
    after = {"type": "record", "name": "A", "fields": [{"name": "x", "type": "string"}, {"name": "z", "type": "int"}]}
    server.answers = {
        "POST /subjects/a-value": [NOT_THERE],
        "POST /compatibility/subjects/a-value/versions/latest?verbose=true": [(200, {"is_compatible": False})],
        "GET /subjects/a-value/versions/latest": [(200, {"version": 1, "schema": json.dumps(before)})],
    }
    with pytest.raises(SchemaRefused) as caught:
        RegisteredSchemas(client(server)).id_of("a-value", Schema("AVRO", json.dumps(after)))
    assert caught.value.why == "z is new; y is gone; x has another type"


def test_a_new_schema_waits_for_who_may_register_it(server: Registry) -> None:
    server.answers = {
        "POST /subjects/a-value": [NOT_THERE],
        "POST /compatibility/subjects/a-value/versions/latest?verbose=true": [NOT_THERE],
    }
    with pytest.raises(SchemaRefused, match="not registered") as caught:
        RegisteredSchemas(client(server, auto_register=False)).id_of("a-value", SCHEMA)
    assert "auto_register" in caught.value.why
    checked = CheckedSchemas(client(server))
    assert (checked.id_of("a-value", SCHEMA), checked.new) == (0, ["a-value"])


HTML = "<html><title>Sign in</title></html>"


@pytest.mark.parametrize(
    ("answer", "error", "told"),
    [
        ((401, {"error_code": 401, "message": "Unauthorized"}), NotAuthorised, "refuses this account"),
        ((403, HTML), NotAuthorised, "refuses this account"),
        ((200, HTML), ConfigError, "no schema registry"),
        ((404, HTML), ConfigError, "no schema registry"),
        ((404, {"detail": "Not Found"}), ConfigError, "there is no schema registry"),
        ((200, {"name": "another service"}), ConfigError, 'no number "id"'),
        ((200, []), ConfigError, 'no number "id"'),
        ((422, {"error_code": 42201, "message": "Invalid schema"}), SchemaRefused, "Invalid schema"),
        ((409, {"error_code": 409, "message": "incompatible"}), SchemaRefused, "incompatible"),
        ((302, HTML), ConfigError, "no schema registry"),
    ],
)
def test_a_wrong_answer_is_told_with_what_to_do(
    server: Registry, answer: Answer, error: type[PsttError], told: str
) -> None:
    server.answers["POST /subjects/a-value"] = [answer]
    with pytest.raises(error) as caught:
        RegisteredSchemas(client(server, username="u", password=Secret("s3cret"))).id_of("a-value", SCHEMA)
    assert told in caught.value.text
    assert "s3cret" not in str(caught.value)
    assert caught.value.remedy or error is SchemaRefused
    assert len(server.asked) == 1


def test_a_registry_that_recovers_is_asked_again(server: Registry) -> None:
    waits: list[float] = []
    server.answers["POST /subjects/a-value"] = [(500, HTML), (503, {"message": "starting"}), (200, {"id": 3})]
    assert RegisteredSchemas(client(server, waits.append)).id_of("a-value", SCHEMA) == 3
    assert waits == [0.2, 0.4]


def test_a_registry_that_stays_away_is_a_retriable_error(server: Registry) -> None:
    server.answers["POST /subjects/a-value"] = [(503, {"message": "leader unknown"})]
    with pytest.raises(RegistryUnavailable, match="HTTP 503: leader unknown"):
        RegisteredSchemas(client(server)).id_of("a-value", SCHEMA)
    assert len(server.asked) == 3
    away = RegistryClient(SchemaRegistry("http://127.0.0.1:9"), sleep=lambda _: None)
    with pytest.raises(RegistryUnavailable, match="does not answer") as caught:
        away.subjects()
    assert caught.value.is_retriable
    assert "Connection refused" in caught.value.why
    assert "0x" not in caught.value.why
    nowhere = RegistryClient(SchemaRegistry("http://nowhere.invalid"), sleep=lambda _: None)
    with pytest.raises(RegistryUnavailable, match=r"nowhere\.invalid does not answer"):
        nowhere.subjects()


def test_a_schema_is_fetched_by_its_id_once(server: Registry) -> None:
    server.answers = {
        "GET /schemas/ids/4": [(200, {"schema": '"long"'})],
        "GET /schemas/ids/5": [(200, {"schema": "{}", "schemaType": "JSON"})],
        "GET /schemas/ids/6": [(404, {"error_code": 40403, "message": "Schema not found"})],
    }
    asked = client(server)
    assert [asked.schema(4), asked.schema(4), asked.schema(5)] == [Schema("AVRO", '"long"')] * 2 + [
        Schema("JSON", "{}")
    ]
    assert len(server.asked) == 2
    with pytest.raises(SchemaRefused, match="no schema with the id 6"):
        asked.schema(6)


def test_password_and_token_are_sent(server: Registry) -> None:
    server.answers["GET /subjects"] = [(200, ["a"])]
    assert client(server, username="käthe", password=Secret("p:w")).subjects() == ["a"]
    assert client(server, bearer_token=Secret("token-1")).subjects() == ["a"]
    sent = [headers["authorization"] for _, _, headers, _ in server.asked]
    assert sent[1] == "Bearer token-1"
    assert base64.b64decode(sent[0].removeprefix("Basic ")) in ("käthe:p:w".encode(), "käthe:p:w".encode("latin-1"))


def test_a_subject_with_a_slash_is_one_part_of_the_path(server: Registry) -> None:
    server.answers["GET /subjects/a%2Fb%20c/versions/latest"] = [(200, {"version": 1, "schema": '"int"'})]
    assert client(server).latest("a/b c") == (1, Schema("AVRO", '"int"'))


# ── TLS ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with certificates of a server, of a client and of two authorities."""
    folder, ca = tmp_path_factory.mktemp("tls"), trustme.CA()
    ca.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    for name, leaf in (("server", ca.issue_cert("127.0.0.1")), ("client", ca.issue_cert("pstt@example.it"))):
        leaf.private_key_pem.write_to_path(folder / f"{name}.key")
        leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    key = load_pem_private_key((folder / "client.key").read_bytes(), None)
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"key-pass"))
    (folder / "locked.key").write_bytes(encrypted)
    return folder


@pytest.fixture
def tls_registry(tls: Path) -> Iterator[Registry]:
    """A registry that accepts clients with a certificate only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tls / "server.pem", tls / "server.key")
    context.load_verify_locations(tls / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    made = Registry()
    made.answers["GET /subjects"] = [(200, ["a"])]
    with serving(made, context):
        yield made


def tls_client(
    server: Registry, tls: Path, ca: str = "ca.pem", key: str = "client.key", **more: object
) -> RegistryClient:
    own = {"ssl_certfile": tls / "client.pem", "ssl_keyfile": tls / key} if key else {}
    url = server.url.replace("http:", "https:")
    made = SchemaRegistry(url, ssl_cafile=tls / ca if ca else None, **own, **more)  # type: ignore[arg-type]
    return RegistryClient(made, sleep=lambda _: None)


def test_a_client_certificate_opens_the_registry(tls_registry: Registry, tls: Path) -> None:
    assert tls_client(tls_registry, tls).subjects() == ["a"]
    locked = tls_client(tls_registry, tls, key="locked.key", ssl_key_password=Secret("key-pass"))
    assert locked.subjects() == ["a"]


@pytest.mark.parametrize(("ca", "key"), [("other-ca.pem", "client.key"), ("", "client.key"), ("ca.pem", "")])
def test_a_wrong_certificate_is_told(tls_registry: Registry, tls: Path, ca: str, key: str) -> None:
    with pytest.raises((ConfigError, RegistryUnavailable)) as caught:
        tls_client(tls_registry, tls, ca, key).subjects()
    assert tls_registry.asked == []
    assert "certificate" in str(caught.value).lower()
    assert isinstance(caught.value, ConfigError) or not key


def test_a_key_with_a_wrong_password_is_told(tls_registry: Registry, tls: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        tls_client(tls_registry, tls, key="locked.key", ssl_key_password=Secret("wr0ng")).subjects()
    assert "wr0ng" not in str(caught.value)
