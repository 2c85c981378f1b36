"""What a part elsewhere gets of the workspace: everything that it needs, and no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.errors import ConfigError
from core.workspace.connections import load_connections
from core.workspace.paths import Workspace
from core.workspace.references import References, references_of
from core.workspace.settings import load_settings

HERE = {"KAFKA_SASL_PASSWORD": "sesame-1", "PSTT_SMTP_PASSWORD": "sesame-2", "A00_PASSWORD": "sesame-3"}
CONNECTION = {
    "name": "A00",
    "db_type": "postgresql",
    "environment": "prod",
    "host": "db",
    "database": "a00",
    "username": "reader",
    "password": "env:A00_PASSWORD",
}
CLUSTER = {
    "bootstrap_servers": "broker:9093",
    "security_protocol": "SASL_SSL",
    "sasl_mechanism": "PLAIN",
    "sasl_username": "pstt",
    "sasl_password": "file:secrets/kafka",
    "ssl_cafile": "certificates/ca.pem",
}


@pytest.fixture
def here(tmp_path: Path) -> Workspace:
    """The workspace of the run."""
    (tmp_path / "here").mkdir()
    return Workspace(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The workspace folder of a worker."""
    home = tmp_path / "there"
    for folder in ("secrets", "certificates"):
        (home / folder).mkdir(parents=True)
    (home / "secrets" / "kafka").write_text("the worker's own\n", encoding="utf-8")
    (home / "certificates" / "ca.pem").write_text("-", encoding="utf-8")
    return home


def written(workspace: Workspace, connection: Any = CONNECTION, cluster: Any = CLUSTER) -> None:
    other = {**CONNECTION, "name": "OTHER", "password": "sesame-4"}
    document = {"connections": [other, connection], "kafka_connections": {"prod": cluster}}
    workspace.connections_file.write_text(json.dumps(document), encoding="utf-8")


def sent(workspace: Workspace, cluster_key: str = "prod", **variables: str) -> bytes:
    """What leaves this machine."""
    settings = load_settings(workspace, HERE | variables)
    return msgspec.msgpack.encode(references_of(workspace, settings, "A00", cluster_key))


def test_secrets_stay_here_and_are_resolved_there(here: Workspace, there: Path, tmp_path: Path) -> None:
    written(here)
    message = sent(here, PSTT_FETCH_ROWS="77")
    assert b"sesame" not in message
    assert b"OTHER" not in message
    found = msgspec.msgpack.decode(message, type=References)
    scratch = Workspace(tmp_path / "scratch")
    scratch.root.mkdir()
    found.write(scratch, there)
    of_worker = {
        "A00_PASSWORD": "of the worker",
        "PSTT_FETCH_ROWS": "5",
        "KAFKA_SSL_CAFILE": "nowhere.pem",
        "HOME": "/",
    }
    variables = found.environment(of_worker, there)
    assert variables["HOME"] == "/"
    settings = load_settings(scratch, variables)
    connections = load_connections(scratch, settings, variables)
    database = connections.database("A00")
    assert database.password
    assert (database.host, database.password.reveal()) == ("db", "of the worker")
    cluster = connections.cluster("prod", settings)
    assert cluster.sasl_password
    assert cluster.sasl_password.reveal() == "the worker's own"
    assert cluster.ssl_cafile == there / "certificates" / "ca.pem"
    assert settings.PSTT_FETCH_ROWS == 77  # the run's, not the worker's
    assert settings.KAFKA_SSL_CAFILE is None


def test_settings_alone_make_a_cluster_with_the_password_of_the_worker(
    here: Workspace, there: Path, tmp_path: Path
) -> None:
    written(here)
    sasl = {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_MECHANISM": "PLAIN", "KAFKA_SASL_USERNAME": "pstt"}
    message = sent(here, "", **sasl, KAFKA_SSL_CAFILE="certificates/ca.pem")
    assert b"sesame" not in message
    found = msgspec.msgpack.decode(message, type=References)
    scratch = Workspace(tmp_path / "scratch")
    scratch.root.mkdir()
    found.write(scratch, there)
    variables = found.environment({"KAFKA_SASL_PASSWORD": "of the worker"}, there)
    settings = load_settings(scratch, variables)
    cluster = load_connections(scratch, settings, variables).cluster_at(None, settings)
    assert cluster.sasl_password
    assert cluster.sasl_password.reveal() == "of the worker"
    assert cluster.ssl_cafile == there / "certificates" / "ca.pem"


def test_database_in_a_file_is_one_of_the_worker(here: Workspace, there: Path, tmp_path: Path) -> None:
    written(here, {"name": "A00", "db_type": "sqlite", "database": "data/a00.db"})
    found = msgspec.msgpack.decode(sent(here), type=References)
    scratch = Workspace(tmp_path / "scratch")
    scratch.root.mkdir()
    found.write(scratch, there)
    database = load_connections(scratch, None, {}).database("A00")
    assert Path(database.database) == there / "data" / "a00.db"


@pytest.mark.parametrize(
    ("connection", "cluster", "owner"),
    [
        ({**CONNECTION, "password": "sesame-5"}, CLUSTER, 'connection "A00"'),
        (CONNECTION, {**CLUSTER, "sasl_password": "sesame-5"}, 'cluster "prod"'),
    ],
)
def test_password_in_the_file_is_refused(here: Workspace, connection: Any, cluster: Any, owner: str) -> None:
    written(here, connection, cluster)
    with pytest.raises(ConfigError) as caught:
        sent(here)
    assert owner in caught.value.what
    assert "env:NAME" in caught.value.remedy
    assert "sesame" not in str(caught.value)


def test_entry_that_was_removed_meanwhile(here: Workspace) -> None:
    written(here, {**CONNECTION, "name": "A01"})
    with pytest.raises(ConfigError, match="has changed since the run began"):
        sent(here)


REGISTRY = {"url": "https://registry:8081", "username": "u", "password": "file:secrets/kafka", "ssl_cafile": "ca.pem"}


@pytest.mark.parametrize("is_of_cluster", [True, False])
def test_a_registry_goes_along_wherever_the_file_has_it(
    is_of_cluster: bool, here: Workspace, there: Path, tmp_path: Path
) -> None:
    written(here, cluster={**CLUSTER, "schema_registry": REGISTRY} if is_of_cluster else CLUSTER)
    if not is_of_cluster:
        document = json.loads(here.connections_file.read_text(encoding="utf-8"))
        here.connections_file.write_text(json.dumps(document | {"schema_registry": REGISTRY}), encoding="utf-8")
    found = msgspec.msgpack.decode(sent(here), type=References)
    scratch = Workspace(tmp_path / "scratch")
    scratch.root.mkdir()
    found.write(scratch, there)
    (there / "ca.pem").write_text("-", encoding="utf-8")
    settings = load_settings(scratch, {})
    registry = load_connections(scratch, settings, {"A00_PASSWORD": "x"}).cluster("prod", settings).schema_registry
    assert registry is not None
    assert registry.password is not None
    assert registry.password.reveal() == "the worker's own"
    assert registry.ssl_cafile == there / "ca.pem"


def test_a_password_of_a_registry_in_the_file_itself_stays_here(here: Workspace) -> None:
    written(here, cluster={**CLUSTER, "schema_registry": {**REGISTRY, "password": "sesame-5"}})
    with pytest.raises(ConfigError, match=r"schema_registry has its password in connections\.json"):
        sent(here)
