"""Secrets of a vault: read anew by each run, and each failure is one error without the secret."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.admin.check import check
from core.errors import ConfigError, NotAuthorised, PsttError, SecretUnavailable
from core.workspace import vault
from core.workspace.connections import Connections, load_connections
from core.workspace.paths import Workspace
from core.workspace.secrets import resolve_secret
from core.workspace.settings import load_settings
from tests.rigs.certificates import Certificates, make_certificates
from tests.rigs.vault import ROLE_ID, ROOT_TOKEN, SECRET_ID, VaultRig, vault_server

PASSWORD = "vault-s3cr3t-4711"
REFERENCE = "vault:secret/pstt/bosc#password"
DATABASE = {
    "name": "BOSC",
    "db_type": "postgresql",
    "host": "bosc",
    "database": "bosc",
    "username": "pstt",
    "password": REFERENCE,
}


@pytest.fixture
def server() -> Iterator[VaultRig]:
    with vault_server() as rig:
        rig.put("secret/pstt/bosc", password=PASSWORD, port=1433, empty="", flag=True)
        yield rig


@pytest.fixture
def variables(server: VaultRig) -> dict[str, str]:
    return {"VAULT_ADDR": server.url, "VAULT_TOKEN": ROOT_TOKEN}


@pytest.fixture
def approle(server: VaultRig) -> Iterator[dict[str, str]]:
    yield {"VAULT_ADDR": server.url, "VAULT_ROLE_ID": ROLE_ID, "VAULT_SECRET_ID": SECRET_ID}
    vault._tokens.clear()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def read(variables: dict[str, str], root: Path, reference: str = REFERENCE) -> str:
    return resolve_secret(reference, variables, root).reveal()


def connections(root: Path, variables: dict[str, str], **entry: Any) -> Connections:
    document = {"connections": [DATABASE | entry]}
    (root / "connections.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
    return load_connections(Workspace(root), load_settings(Workspace(root), {}), variables)


def refused(error: type[PsttError], variables: dict[str, str], root: Path, reference: str = REFERENCE) -> PsttError:
    """The error of a read that fails; neither secret nor login is in any of its texts."""
    with pytest.raises(error) as caught:
        read(variables, root, reference)
    whole = "".join(traceback.format_exception(caught.value)) + caught.value.text + caught.value.remedy
    for secret in (PASSWORD, SECRET_ID, ROOT_TOKEN, "wrong-token"):
        assert secret not in whole
    return caught.value


# ── what works ────────────────────────────────────────────────────────────────────────────────


def test_a_secret_is_read_with_a_token(variables: dict[str, str], tmp_path: Path):
    assert read(variables, tmp_path) == PASSWORD
    assert read(variables, tmp_path, "vault:secret/pstt/bosc#port") == "1433"


def test_a_token_may_be_in_a_file_that_an_agent_renews(variables: dict[str, str], tmp_path: Path):
    (tmp_path / "token").write_text(f"{ROOT_TOKEN}\n", encoding="utf-8")
    assert read(variables | {"VAULT_TOKEN": "file:token"}, tmp_path) == PASSWORD


def test_a_login_by_approle_is_used_for_several_secrets(server: VaultRig, approle: dict[str, str], tmp_path: Path):
    server.put("secret/pstt/kafka", password="other")
    assert read(approle, tmp_path) == PASSWORD
    assert read(approle, tmp_path, "vault:secret/pstt/kafka#password") == "other"
    assert server.logins == 1


def test_an_expired_login_is_renewed(server: VaultRig, approle: dict[str, str], tmp_path: Path):
    server.lease_s = 5  # less than the margin before the end
    read(approle, tmp_path)
    read(approle, tmp_path)
    assert server.logins == 2


def test_a_revoked_login_is_renewed(server: VaultRig, approle: dict[str, str], tmp_path: Path):
    read(approle, tmp_path)
    server.revoke_all()
    assert read(approle, tmp_path) == PASSWORD
    assert server.logins == 2


def test_the_vault_is_trusted_by_its_authority(certificates: Certificates, tmp_path: Path):
    with vault_server(certificates.server) as rig:
        rig.put("secret/pstt/bosc", password=PASSWORD)
        variables = {"VAULT_ADDR": rig.url, "VAULT_TOKEN": ROOT_TOKEN}
        assert read(variables | {"VAULT_CACERT": str(certificates.ca_file)}, tmp_path) == PASSWORD
        for other in ({}, {"VAULT_CACERT": str(certificates.other_ca_file)}):
            error = refused(NotAuthorised, variables | other, tmp_path)
            assert "cannot be trusted" in error.text
        assert len(rig.requests) == 1


def test_a_namespace_and_the_mount_of_the_engine_are_sent(server: VaultRig, variables: dict[str, str], tmp_path: Path):
    server.namespace = "team/a"
    server.put("kv/of/team/pstt/bosc", password="theirs")
    variables |= {"VAULT_NAMESPACE": "team/a", "VAULT_KV_MOUNT": "kv/of/team"}
    assert read(variables, tmp_path, "vault:kv/of/team/pstt/bosc#password") == "theirs"
    assert read(variables, tmp_path, "vault:pstt/bosc#password") == "theirs"


def test_the_next_run_uses_a_rotated_secret(server: VaultRig, variables: dict[str, str], tmp_path: Path):
    opened = connections(tmp_path, variables)
    assert opened.database("BOSC").password.reveal() == PASSWORD
    assert opened.database("BOSC").password.reveal() == PASSWORD
    assert len(server.requests) == 1  # pages and checks ask several times
    server.put("secret/pstt/bosc", password="rotated")
    assert connections(tmp_path, variables).database("BOSC").password.reveal() == "rotated"  # as each process of a run


def test_check_contacts_no_vault(server: VaultRig, variables: dict[str, str], tmp_path: Path):
    connections(tmp_path, variables)
    (tmp_path / "queries").mkdir()
    assert [f for f in check(Workspace(tmp_path), variables) if f.severity == "error"] == []
    (found,) = [f for f in check(Workspace(tmp_path), {}) if f.severity == "error"]
    assert "the address of the vault is not set" in found.text
    assert server.requests == []


# ── what does not ─────────────────────────────────────────────────────────────────────────────


def test_an_error_names_the_entry_and_its_line(variables: dict[str, str], tmp_path: Path):
    opened = connections(tmp_path, variables, password="vault:secret/none#password")
    with pytest.raises(ConfigError, match=r'connection "BOSC": vault:secret/none#password cannot be read') as caught:
        opened.database("BOSC")
    assert caught.value.where == "connections.json, line 9, column 4"


@pytest.mark.parametrize("reference", ["vault:secret/pstt", "vault:secret#password", "vault:#x", "vault:secret/a#"])
def test_a_reference_without_path_or_key_is_refused(reference: str, variables: dict[str, str], tmp_path: Path):
    assert "is not vault:PATH#KEY" in refused(ConfigError, variables, tmp_path, reference).text


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"VAULT_ADDR": ""}, ConfigError, "the address of the vault is not set"),
        ({"VAULT_ADDR": "vault:8200"}, ConfigError, "VAULT_ADDR is not an address"),
        ({"VAULT_ADDR": "http://vault.example.com:8200"}, ConfigError, "VAULT_ADDR is not encrypted"),
        ({"VAULT_ADDR": "http://127.0.0.1:1"}, SecretUnavailable, "nothing answers at http://127.0.0.1:1"),
        ({"VAULT_TOKEN": ""}, ConfigError, "there is no login for the vault"),
        ({"VAULT_TOKEN": "wrong-token"}, NotAuthorised, "the vault denies it. check VAULT_TOKEN"),
        ({"VAULT_TOKEN": "vault:secret/a#b"}, ConfigError, "the login of the vault cannot be in a vault"),
        ({"VAULT_CACERT": "none.pem"}, ConfigError, "the file of VAULT_CACERT is not there"),
        ({"VAULT_CLIENT_TIMEOUT": "soon"}, ConfigError, "VAULT_CLIENT_TIMEOUT is no number"),
    ],
)
def test_a_wrong_setting_is_named(
    changes: dict[str, str], error: type[PsttError], said: str, variables: dict[str, str], tmp_path: Path
):
    found = refused(error, variables | changes, tmp_path)
    assert said in f"{found.text}. {found.remedy}"


def test_a_wrong_secret_id_is_refused(approle: dict[str, str], tmp_path: Path):
    error = refused(NotAuthorised, approle | {"VAULT_SECRET_ID": "wrong-token"}, tmp_path)
    assert "check VAULT_ROLE_ID and VAULT_SECRET_ID" in error.remedy


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("vault:secret/data/pstt/bosc#password", "without data/"),
        ("vault:secret/pstt/none#password", "the vault has no such path"),
        ("vault:other/pstt/bosc#password", "the vault has no such path"),
        (
            "vault:secret/pstt/bosc#passwort",
            'no text under the key "passwort": the path has empty, flag, password, port',
        ),
        ("vault:secret/pstt/bosc#empty", "no text under the key"),
        ("vault:secret/pstt/bosc#flag", "no text under the key"),
    ],
)
def test_a_path_or_key_that_is_not_there_is_named(reference: str, said: str, variables: dict[str, str], tmp_path: Path):
    error = refused(ConfigError, variables, tmp_path, reference)
    assert said in f"{error.text}. {error.remedy}"


def test_a_deleted_version_is_not_there(server: VaultRig, variables: dict[str, str], tmp_path: Path):
    server.put("secret/pstt/bosc")
    assert "its newest version is deleted" in refused(ConfigError, variables, tmp_path).text


def test_a_sealed_vault_is_retriable(server: VaultRig, variables: dict[str, str], tmp_path: Path):
    server.sealed = True
    error = refused(SecretUnavailable, variables, tmp_path)
    assert "is sealed or on standby" in error.text
    assert (error.is_retriable, error.exit_code) == (True, 3)


def test_a_vault_that_does_not_answer_is_retriable(server: VaultRig, variables: dict[str, str], tmp_path: Path):
    server.silent.set()
    error = refused(SecretUnavailable, variables | {"VAULT_CLIENT_TIMEOUT": "0.3s"}, tmp_path)
    assert "did not answer within 0.3 s" in error.text


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        ((200, b"<html>sign in</html>"), ConfigError, "is not a Vault with a KV engine of version 2 at secret/"),
        ((200, b'{"data": {"password": "of version 1"}}'), ConfigError, "KV engine of version 2"),
        ((200, b"[]"), ConfigError, "is not a Vault"),
        ((500, b'{"errors": ["' + PASSWORD.encode() + b'"]}'), SecretUnavailable, "failed (InternalServerError)"),
        ((502, b"<html>bad gateway</html>"), SecretUnavailable, "failed (BadGateway)"),
        ((301, b""), ConfigError, "is not a Vault"),
    ],
)
def test_another_answer_than_that_of_a_vault_is_one_error(
    answer: tuple[int, bytes],
    error: type[PsttError],
    said: str,
    server: VaultRig,
    variables: dict[str, str],
    tmp_path: Path,
):
    server.broken = answer
    assert said in refused(error, variables, tmp_path).text


def test_neither_secret_nor_token_is_logged(
    variables: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.DEBUG):
        read(variables, tmp_path)
    assert PASSWORD not in caplog.text
    assert ROOT_TOKEN not in caplog.text
