"""`client_options` reach the client that has them; those that would undo a protection are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from core.kafka import kafka_python, librdkafka, open_publisher
from core.kafka.aiokafka_config import producer_config
from core.kafka.client_options import OWN_SETTING, PROTECTED, PROTECTED_GROUPS
from core.kafka.support import refuse_unsupported
from core.model.connection import Cluster
from core.workspace.connections import load_connections
from core.workspace.paths import Workspace
from core.workspace.settings import SETTING_NAMES, load_settings


def cluster(client: str = "confluent", **options: Any) -> Cluster:
    idempotent = client != "kafka-python-ng"
    return Cluster("c", "k:1", client=client, enable_idempotence=idempotent, client_options=tuple(options.items()))


def refused(client: str, name: str, value: Any = "x") -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        refuse_unsupported(cluster(client, **{name: value}))
    assert f'"client_options" of cluster "c" cannot have "{name}"' in caught.value.text
    return caught.value


def test_librdkafka_is_given_its_options_in_each_client():
    given = cluster(**{"socket.keepalive.enable": True, "metadata.max.age.ms": 60000})
    for config in (librdkafka.producer_config(given), librdkafka.client_config(given)):
        assert {"socket.keepalive.enable": True, "metadata.max.age.ms": 60000}.items() <= config.items()


def test_names_with_dots_reach_the_reader_of_aiokafka():
    given = cluster("aiokafka", **{"socket.keepalive.enable": True, "metadata_max_age_ms": 60000})
    assert librdkafka.client_config(given)["socket.keepalive.enable"] is True
    assert "metadata_max_age_ms" not in librdkafka.client_config(given)
    config = producer_config(given)
    assert config["metadata_max_age_ms"] == 60000
    assert "socket.keepalive.enable" not in config


def test_kafka_python_is_given_its_options():
    given = cluster("kafka-python-ng", send_buffer_bytes=131072)
    refuse_unsupported(given)
    assert kafka_python.producer_config(given)["send_buffer_bytes"] == 131072


@pytest.mark.parametrize(
    "name", [*OWN_SETTING, *PROTECTED, *(f"{start}x" for start in PROTECTED_GROUPS), "oauth_cb", "ACKS"]
)
def test_an_option_that_would_undo_a_protection_is_refused(name: str):
    error = refused("confluent", name)
    assert error.why
    assert error.remedy


@pytest.mark.parametrize("name", sorted(set(OWN_SETTING.values())))
def test_the_setting_that_is_advised_exists(name: str):
    assert name in SETTING_NAMES


@pytest.mark.parametrize(
    "name",
    ["enable.ssl.certificate.verification", "ssl.endpoint.identification.algorithm", "sasl.kerberos.kinit.cmd", "acks"],
)
def test_the_reader_of_aiokafka_is_as_protected(name: str):
    refused("aiokafka", name)


@pytest.mark.parametrize("client", ["aiokafka", "kafka-python-ng"])
@pytest.mark.parametrize(
    "name", ["acks", "ssl_context", "ssl_check_hostname", "security_protocol", "client_id", "retries", "api_version"]
)
def test_a_client_in_python_accepts_what_is_listed_and_nothing_else(client: str, name: str):
    refused(client, name)


def test_a_mistyped_option_has_its_nearest_name():
    assert refused("aiokafka", "metadata_max_age").remedy == 'did you mean "metadata_max_age_ms"?'


def test_librdkafka_names_an_option_that_it_does_not_have():
    with pytest.raises(ConfigError, match=r'No such configuration property: "no\.such\.option"'):
        open_publisher(cluster(**{"no.such.option": 1}))


# ── files and settings ────────────────────────────────────────────────────────────────────────


def loaded(root: Path, entry: dict[str, Any], **environ: str) -> Cluster:
    document = {"kafka_connections": {"c": {"bootstrap_servers": "k:1", "client": "confluent"} | entry}}
    (root / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    workspace = Workspace(root)
    return load_connections(workspace, None, environ).cluster("c", load_settings(workspace, environ))


def test_an_entry_takes_precedence_over_the_setting(tmp_path: Path):
    setting = '{"socket.keepalive.enable": true}'
    assert loaded(tmp_path, {}, KAFKA_CLIENT_OPTIONS=setting).client_options == (("socket.keepalive.enable", True),)
    entry = {"client_options": {"metadata.max.age.ms": 5000}, "client_id": "pstt-a00", "client_rack": "rack-1"}
    found = loaded(tmp_path, entry, KAFKA_CLIENT_OPTIONS=setting)
    assert found.client_options == (("metadata.max.age.ms", 5000),)
    config = librdkafka.client_config(found)
    assert (config["client.id"], config["client.rack"]) == ("pstt-a00", "rack-1")
    assert hash(found) == hash(loaded(tmp_path, entry))


@pytest.mark.parametrize("text", ["x", "[1]", '{"a": [1]}', '{"a": null}'])
def test_a_setting_that_is_no_object_of_values_is_refused(text: str, tmp_path: Path):
    with pytest.raises(ConfigError, match="KAFKA_CLIENT_OPTIONS is not valid"):
        load_settings(Workspace(tmp_path), {"KAFKA_CLIENT_OPTIONS": text})


def test_config_shows_the_options(tmp_path: Path):
    settings = load_settings(Workspace(tmp_path), {"KAFKA_CLIENT_OPTIONS": '{"socket.keepalive.enable": true}'})
    assert {row.name: row.value for row in settings.table()}[
        "KAFKA_CLIENT_OPTIONS"
    ] == '{"socket.keepalive.enable": true}'


def test_kafka_python_has_no_rack():
    with pytest.raises(ConfigError, match="KAFKA_CLIENT=kafka-python-ng has no KAFKA_CLIENT_RACK"):
        refuse_unsupported(Cluster("c", "k:1", client="kafka-python-ng", enable_idempotence=False, client_rack="r"))
