"""Logins and stores in connections.json and in settings: what contradicts itself is refused, secrets are references."""

from __future__ import annotations

import base64
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from core.admin.check import check
from core.cli.main import app
from core.errors import BrokerUnavailable, ConfigError, NotAuthorised, PsttError
from core.kafka.kerberos import require_kerberos
from core.kafka.oauth import TokenSource, extensions_of, require_token_endpoint
from core.model.connection import Cluster, RenewedSecret, Secret
from core.records.connections_versions import hidden_secrets
from core.workspace.connections import CLUSTER_FILES, CLUSTER_SECRETS, load_connections
from core.workspace.paths import Workspace
from core.workspace.references import references_of
from core.workspace.settings import load_settings

VALUE = "login-s3cr3t-4711"
SASL = {"bootstrap_servers": "k:1", "security_protocol": "SASL_SSL"}
KERBEROS = SASL | {"sasl_mechanism": "GSSAPI"}
TOKENS = SASL | {
    "sasl_mechanism": "OAUTHBEARER",
    "sasl_oauthbearer_token_endpoint_url": "https://login.example.com/token",
    "sasl_oauthbearer_client_id": "pstt",
    "sasl_oauthbearer_client_secret": "env:SECRET",
}


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    for name in ("pstt.keytab", "store.jks", "ca.pem"):
        (tmp_path / name).write_bytes(b"-----BEGIN")
    (tmp_path / "queries").mkdir()
    return Workspace(tmp_path)


def cluster(place: Workspace, entry: dict[str, Any], **environ: str) -> Cluster:
    (place.root / "connections.json").write_text(json.dumps({"kafka_connections": {"c": entry}}), encoding="utf-8")
    return load_connections(place, None, environ).cluster("c", load_settings(place, environ))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (KERBEROS | {"sasl_kerberos_keytab": "pstt.keytab"}, "sasl_kerberos_keytab needs sasl_kerberos_principal"),
        (KERBEROS | {"sasl_kerberos_keytab": "none"}, "there is no file none"),
        (KERBEROS | {"sasl_kerberos_principal": "pstt; rm -rf"}, "sasl_kerberos_principal"),
        (SASL | {"sasl_mechanism": "OAUTHBEARER"}, "OAUTHBEARER needs sasl_oauthbearer_token_endpoint_url or"),
        (TOKENS | {"sasl_oauthbearer_token": "env:SECRET"}, "and not both"),
        (TOKENS | {"sasl_oauthbearer_client_secret": None}, "endpoint_url needs sasl_oauthbearer_client_secret"),
        (TOKENS | {"sasl_oauthbearer_extensions": "no pairs"}, "sasl_oauthbearer_extensions"),
        (
            SASL | {"sasl_mechanism": "PLAIN", "sasl_username": "u", "sasl_password": "p", "sasl_kerberos_keytab": "pstt.keytab"},
            "sasl_kerberos_keytab is of no use with sasl_mechanism PLAIN",
        ),
        (TOKENS | {"sasl_kerberos_principal": "pstt@X"}, "is of no use with sasl_mechanism OAUTHBEARER"),
        (
            {"bootstrap_servers": "k:1", "security_protocol": "SSL", "ssl_cafile": "ca.pem", "ssl_truststore_location": "store.jks"},
            "ssl_cafile and ssl_truststore_location exclude each other",
        ),
        ({"bootstrap_servers": "k:1", "security_protocol": "PLAINTEXT", "ssl_keystore_location": "store.jks"}, "is of no use with PLAINTEXT"),
        ({"bootstrap_servers": "k:1", "client_id": "a b"}, "client_id"),
        ({"bootstrap_servers": "k:1", "client_options": "x"}, "client_options"),
        ({"bootstrap_servers": "k:1", "client_options": {"a": [1]}}, '"a" is not valid'),
    ],
)  # fmt: skip
def test_what_contradicts_itself_is_refused(entry: dict[str, Any], said: str, place: Workspace):
    with pytest.raises(ConfigError, match=r"connections\.json, line 1") as caught:
        cluster(place, entry, SECRET=VALUE)
    assert said in caught.value.text
    assert VALUE not in caught.value.text


def test_kerberos_needs_no_password_and_a_token_no_user(place: Workspace):
    found = cluster(place, KERBEROS | {"sasl_kerberos_keytab": "pstt.keytab", "sasl_kerberos_principal": "a/b@X.Y"})
    assert (found.sasl_kerberos_keytab, found.sasl_password) == (place.root / "pstt.keytab", None)
    assert cluster(place, TOKENS, SECRET=VALUE).sasl_oauthbearer_client_secret == Secret(VALUE)


@pytest.mark.parametrize("key", CLUSTER_SECRETS)
def test_each_secret_is_a_reference_and_in_no_text(key: str, place: Workspace):
    entry = {"bootstrap_servers": "k:1", key: "env:SECRET"}
    found = cluster(place, entry, SECRET=VALUE)
    assert getattr(found, key).reveal() == VALUE
    assert VALUE not in repr(found)
    assert VALUE.encode() not in pickle.dumps(found)
    literal = entry | {key: VALUE}
    assert VALUE not in json.dumps(hidden_secrets({"kafka_connections": {"c": literal}}))
    cluster(place, literal)
    assert any('"c" has its password in the file' in finding.text for finding in check(place, {}))


@pytest.mark.parametrize("key", CLUSTER_SECRETS)
def test_no_secret_leaves_for_a_worker(key: str, place: Workspace):
    settings = load_settings(place, {f"KAFKA_{key.upper()}": VALUE})
    document = {
        "connections": [{"name": "A", "db_type": "sqlite", "database": "a"}],
        "kafka_connections": {"c": {key: VALUE}},
    }
    place.connections_file.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(ConfigError, match=f'write "{key}": "env:NAME" there'):
        references_of(place, settings, "A", "c")
    document["kafka_connections"]["c"] = {key: "file:secrets/x", **dict.fromkeys(CLUSTER_FILES, "a/b")}  # type: ignore[call-overload]
    place.connections_file.write_text(json.dumps(document), encoding="utf-8")
    sent = references_of(place, settings, "A", "c")
    assert VALUE not in repr(sent)
    scratch = Workspace(place.root / "queries")
    sent.write(scratch, place.root / "there")
    written = json.loads(scratch.connections_file.read_text(encoding="utf-8"))["kafka_connections"]["c"]
    assert written[key] == f"file:{place.root / 'there' / 'secrets/x'}"
    assert {written[name] for name in CLUSTER_FILES} == {str(place.root / "there" / "a/b")}


def test_the_login_of_a_vault_is_that_of_the_worker(place: Workspace, tmp_path: Path):
    cluster(place, {"bootstrap_servers": "k:1"})
    place.connections_file.write_text('{"connections": [{"name": "A"}]}', encoding="utf-8")
    sent = references_of(place, load_settings(place, {}), "A", "")
    there = sent.environment(
        {"VAULT_ADDR": "https://v", "VAULT_TOKEN": "file:token", "VAULT_CACERT": "ca.pem"}, tmp_path
    )
    assert there["VAULT_TOKEN"] == f"file:{tmp_path / 'token'}"
    assert there["VAULT_CACERT"] == str(tmp_path / "ca.pem")


def test_config_lists_the_options_of_each_cluster(place: Workspace):
    cluster(place, {"bootstrap_servers": "k:1", "client_options": {"metadata_max_age_ms": 60000}})
    shown = CliRunner().invoke(app, ["config", "--workspace", str(place.root)])
    assert shown.exit_code == 0
    (line,) = [line for line in shown.output.splitlines() if line.startswith("client_options of c")]
    assert line.endswith('{"metadata_max_age_ms": 60000}   (connections.json)')


@pytest.mark.parametrize(
    "url", ["http://login.example.com/token", "ftp://x/y", "login.example.com", "https://user:pass@x/y"]
)
def test_a_token_endpoint_must_be_encrypted(url: str):
    with pytest.raises(ConfigError, match="KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL is not"):
        require_token_endpoint(Cluster("c", "k:1", sasl_oauthbearer_token_endpoint_url=url))


def test_a_client_without_the_library_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("core.kafka.kerberos.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="the library gssapi is not installed") as caught:
        require_kerberos(Cluster("c", "k:1", "SASL_SSL", sasl_mechanism="GSSAPI"))
    assert "requirements-kerberos.txt" in caught.value.remedy


# ── when a token is renewed ───────────────────────────────────────────────────────────────────


class Elsewhere:
    """A token that is read anew, and a clock."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.tokens: list[str | PsttError] = []
        given = RenewedSecret(self._jwt(1_500), self._read)
        self.source = TokenSource(Cluster("c", "k:1", sasl_oauthbearer_token=given), lambda: self.now_s)

    def _read(self) -> Secret:
        found = self.tokens.pop(0)
        if isinstance(found, PsttError):
            raise found
        return Secret(found)

    @staticmethod
    def _jwt(expires_at: int) -> str:
        payload = base64.urlsafe_b64encode(json.dumps({"exp": expires_at}).encode()).decode().rstrip("=")
        return f"e30.{payload}.x"

    def jwt(self, expires_at: int) -> str:
        return self._jwt(expires_at)


def test_a_token_is_renewed_before_it_expires():
    elsewhere = Elsewhere()
    first = elsewhere.source.token()
    elsewhere.now_s = 1_439
    assert elsewhere.source.token() == first
    elsewhere.now_s, elsewhere.tokens = 1_440, [elsewhere.jwt(2_000)]  # 60 s before
    assert elsewhere.source.with_expiry()[:2] == (elsewhere.jwt(2_000), 2_000.0)


def test_a_token_serves_until_its_end_where_no_other_can_be_had():
    elsewhere = Elsewhere()
    first = elsewhere.source.token()
    away = BrokerUnavailable("away")
    elsewhere.now_s, elsewhere.tokens = 1_499, [away]
    assert elsewhere.source.token() == first
    elsewhere.now_s, elsewhere.tokens = 1_500, [away]
    with pytest.raises(BrokerUnavailable):
        elsewhere.source.token()
    assert elsewhere.source.problem is away
    elsewhere.tokens = [elsewhere.jwt(3_000)]
    assert elsewhere.source.token() == elsewhere.jwt(3_000)
    assert elsewhere.source.problem is None


def test_a_token_without_an_end_is_read_again_after_minutes():
    source = TokenSource(Cluster("c", "k:1", sasl_oauthbearer_token=Secret("opaque")), lambda: 1_000.0)
    assert source.with_expiry() == ("opaque", 1_300.0, "", {})


def test_an_expired_literal_token_is_refused():
    elsewhere = Elsewhere()
    source = TokenSource(Cluster("c", "k:1", sasl_oauthbearer_token=Secret(elsewhere.jwt(999))), lambda: 1_000.0)
    with pytest.raises(NotAuthorised, match="the token has expired"):
        source.token()


def test_extensions_are_pairs():
    found = extensions_of(Cluster("c", "k:1", sasl_oauthbearer_extensions="logicalCluster=lkc-1, identityPoolId=a=b"))
    assert found == {"logicalCluster": "lkc-1", "identityPoolId": "a=b"}
