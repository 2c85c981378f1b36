"""connections.json: every mistake is reported with its position; clusters follow precedence; secrets are references."""

from __future__ import annotations

import json
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

import keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.errors import NoKeyringError

from core.admin.check import check
from core.errors import ConfigError
from core.kafka import refuse_unsupported
from core.model.connection import Cluster
from core.model.job import Job, KafkaConfig
from core.workspace.connections import Connections, load_connections, read_connections
from core.workspace.paths import Workspace
from core.workspace.settings import load_settings

SECRET = "s3cr3t-of-the-database"
ORACLE: dict[str, Any] = {
    "name": "A00-CDG-Collaudo",
    "environment": "collaudo",
    "db_type": "oracle",
    "host": "cdg.example.com",
    "port": 1521,
    "service_name": "CDG",
    "username": "pstt",
    "password": "env:A00_CDG_PASSWORD",
}
SPEC: dict[str, Any] = {
    "default_environment": "collaudo",
    "connections": [
        ORACLE,
        {
            "name": "BOSC-Produzione",
            "environment": "produzione",
            "db_type": "sqlserver",
            "host": "bosc.example.com",
            "port": 1433,
            "database": "BOSC",
            "username": "pstt",
            "password": "keyring:pstt/bosc",
        },
        {
            "name": "TT2",
            "environment": "collaudo",
            "db_type": "postgresql",
            "host": "tt2.example.com",
            "database": "tt2",
            "username": "pstt",
            "password": "file:secrets/tt2",
            "sslmode": "verify-full",
        },
    ],
    "kafka_connections": {
        "collaudo": {
            "name": "Kafka Collaudo",
            "bootstrap_servers": "kafka-collaudo.example.com:9092",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "default_topic": "pstt-collaudo",
        },
        "produzione": {
            "name": "Kafka Produzione",
            "bootstrap_servers": "kafka-prod.example.com:9093",
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "SCRAM-SHA-256",
            "default_topic": "pstt-traces",
        },
    },
}
LOGIN = {"KAFKA_SASL_USERNAME": "pstt", "KAFKA_SASL_PASSWORD": "env:KAFKA_PW", "KAFKA_PW": SECRET}


class InMemoryKeyring(KeyringBackend):
    """A keyring backend in memory, as in keyring's documentation."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()
        self.passwords: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.passwords.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.passwords[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.passwords[service, username]


class NoKeyring(InMemoryKeyring):
    def get_password(self, service: str, username: str) -> str | None:
        raise NoKeyringError("no backend")


@pytest.fixture
def ring():
    before = keyring.get_keyring()
    backend = InMemoryKeyring()
    keyring.set_keyring(backend)
    yield backend
    keyring.set_keyring(before)


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def write(place: Workspace, document: Any) -> None:
    data = document if isinstance(document, bytes) else document.encode() if isinstance(document, str) else None
    place.connections_file.write_bytes(json.dumps(document, indent=1).encode() if data is None else data)


def load(place: Workspace, document: Any = SPEC, **environ: str) -> Connections:
    write(place, document)
    return load_connections(place, None, environ)


def problems(place: Workspace, document: Any, **environ: str) -> list[ConfigError]:
    write(place, document)
    try:
        return read_connections(place, environ)[1]
    except ConfigError as error:
        return [error]


def only(place: Workspace, document: Any) -> ConfigError:
    (error,) = problems(place, document)
    return error


def with_database(**changes: Any) -> dict[str, Any]:
    return {"connections": [{**ORACLE, **changes}]}


def cluster(place: Workspace, entry: dict[str, Any] | None = None, **environ: str) -> Cluster:
    document = {"default_environment": "c", "kafka_connections": {"c": entry}} if entry is not None else {}
    connections = load(place, document, **environ)
    return connections.cluster(None, load_settings(place, environ))


def cluster_problem(place: Workspace, entry: dict[str, Any], **environ: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        cluster(place, entry, **environ)
    return caught.value


def test_the_file_of_the_specification_is_valid(place, ring):
    (place.root / "secrets").mkdir()
    (place.root / "secrets" / "tt2").write_text("of-tt2\n", encoding="utf-8")
    keyring.set_password("pstt", "bosc", "of-bosc")
    connections = load(place, A00_CDG_PASSWORD="of-a00", **LOGIN)
    assert connections.database_names == ["A00-CDG-Collaudo", "BOSC-Produzione", "TT2"]
    assert connections.cluster_names == ["collaudo", "produzione"]
    passwords = [connections.database(name).password.reveal() for name in connections.database_names]
    assert passwords == ["of-a00", "of-bosc", "of-tt2"]
    assert connections.database("TT2").sslmode == "verify-full"
    assert connections.literal_passwords == []
    settings = load_settings(place, LOGIN)
    assert connections.cluster("produzione", settings).sasl_mechanism == "SCRAM-SHA-256"


def chosen(place: Workspace, document: dict[str, Any], connection: str, own: str | None = None) -> str:
    connections = load(place, document, **LOGIN)
    job = Job("j", "J", "q.sql", connection, kafka_config=KafkaConfig(cluster=own))
    return connections.cluster_for(job, load_settings(place, LOGIN)).name


def test_the_jobs_own_choice_comes_first_then_its_environment_then_the_default_then_the_settings(place):
    assert chosen(place, SPEC, "A00-CDG-Collaudo", own="produzione") == "Kafka Produzione"
    assert chosen(place, SPEC, "BOSC-Produzione") == "Kafka Produzione"
    elsewhere = {**SPEC, "connections": [{**ORACLE, "environment": "laboratorio"}]}
    assert chosen(place, elsewhere, "A00-CDG-Collaudo") == "Kafka Collaudo"
    nowhere = {"connections": elsewhere["connections"], "kafka_connections": SPEC["kafka_connections"]}
    assert chosen(place, nowhere, "A00-CDG-Collaudo") == "KAFKA_* settings"
    assert chosen(place, {"connections": [ORACLE]}, "A00-CDG-Collaudo") == "KAFKA_* settings"


def test_a_cluster_that_is_not_there_names_the_nearest(place):
    with pytest.raises(ConfigError, match=r'no cluster "prodduzione".*did you mean "produzione"'):
        chosen(place, SPEC, "TT2", own="prodduzione")


def test_without_a_default_environment_a_cluster_has_to_be_named_except_by_a_job(place):
    document = {name: value for name, value in SPEC.items() if name != "default_environment"}
    connections = load(place, document)
    settings = load_settings(place, {})
    with pytest.raises(ConfigError, match="which cluster is not said") as caught:
        connections.cluster(None, settings)
    assert "collaudo, produzione, and no default_environment" in caught.value.why
    job = Job("j", "J", "q.sql", "TT2")
    assert (
        load(place, {**document, "kafka_connections": {"x": {}}}).cluster_for(job, settings).name == "KAFKA_* settings"
    )


def test_a_default_environment_that_is_not_there_has_its_line(place):
    error = only(place, {**SPEC, "default_environment": "colaudo"})
    assert error.text == (
        'connections.json, line 2, column 2: default_environment "colaudo" is not among kafka_connections'
    )
    assert error.remedy == 'did you mean "collaudo"?'


def test_connections_json_outranks_the_environment_which_outranks_the_file(place):
    place.env_file.write_text("KAFKA_LINGER_MS=1\nKAFKA_BATCH_SIZE=1001\nKAFKA_MAX_RETRIES=7\n", encoding="utf-8")
    found = cluster(place, {"linger_ms": 3}, KAFKA_LINGER_MS="2", KAFKA_BATCH_SIZE="1002")
    assert (found.linger_ms, found.batch_size_bytes, found.max_retries, found.retry_backoff_ms) == (3, 1002, 7, 100)


def test_a_false_or_a_zero_in_the_file_outranks_too(place):
    found = cluster(place, {"linger_ms": 0, "enable_idempotence": False}, KAFKA_LINGER_MS="9")
    assert (found.linger_ms, found.enable_idempotence) == (0, False)


def test_without_an_entry_the_settings_make_the_cluster(place):
    found = cluster(place, KAFKA_BOOTSTRAP_SERVERS="h:1", KAFKA_DEFAULT_TOPIC="t")
    assert (found.name, found.bootstrap_servers, found.default_topic) == ("KAFKA_* settings", "h:1", "t")


def test_a_variable_of_dot_env_is_found_and_the_environment_outranks_it(place):
    place.env_file.write_text("A00_CDG_PASSWORD=of-file\n", encoding="utf-8")
    assert load(place).database("A00-CDG-Collaudo").password.reveal() == "of-file"
    assert load(place, A00_CDG_PASSWORD="of-env").database("A00-CDG-Collaudo").password.reveal() == "of-env"


def test_a_literal_password_works_and_is_listed(place):
    document = {"connections": [{**ORACLE, "password": SECRET}], "kafka_connections": {"c": {"sasl_password": SECRET}}}
    connections = load(place, document)
    assert connections.database("A00-CDG-Collaudo").password.reveal() == SECRET
    assert connections.literal_passwords == ["A00-CDG-Collaudo", "c"]


@pytest.mark.parametrize(
    ("reference", "what", "remedy"),
    [
        ("env:NOT_THERE", "the variable of env:NOT_THERE is not set", "set NOT_THERE in the environment or in .env"),
        ("file:secrets/none", "the file of file:secrets/none cannot be read", "make the file with the secret in it"),
        ("file:empty", "the file of file:empty is empty", "write the secret into it"),
        ("file:latin", "the file of file:latin cannot be read: it is not UTF-8 text", "make the file"),
        ("keyring:pstt/none", "keyring:pstt/none is not in the keyring", "python -m keyring set pstt none"),
        ("keyring:pstt", "keyring:pstt is not keyring:SERVICE/USER", "write keyring:pstt/bosc"),
    ],
)
def test_a_secret_that_cannot_be_had_names_the_reference_and_the_line(place, ring, reference, what, remedy):
    (place.root / "empty").write_text("\n", encoding="utf-8")
    (place.root / "latin").write_bytes(b"citt\xe0")
    connections = load(place, with_database(password=reference))
    with pytest.raises(ConfigError) as caught:
        connections.database("A00-CDG-Collaudo")
    assert f'connection "A00-CDG-Collaudo": {what}' in caught.value.text
    assert caught.value.where == "connections.json, line 11, column 4"
    assert remedy in caught.value.remedy


def test_an_account_without_a_keyring_gets_a_remedy(place, ring):
    keyring.set_keyring(NoKeyring())
    with pytest.raises(ConfigError, match=r"cannot be read: NoKeyringError. this account has no keyring: use env: or"):
        load(place, with_database(password="keyring:pstt/bosc")).database("A00-CDG-Collaudo")


def test_a_password_is_in_no_text_of_any_object(place):
    document = {
        "connections": [{**ORACLE, "password": SECRET}],
        "kafka_connections": {"c": {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "sasl_username": "u"}},
    }
    document["kafka_connections"]["c"]["sasl_password"] = SECRET
    connections = load(place, document)
    settings = load_settings(place, {})
    database, found = connections.database("A00-CDG-Collaudo"), connections.cluster("c", settings)
    entry = connections._database("A00-CDG-Collaudo")
    for thing in (connections, connections._file, entry, database, found, database.password):
        assert SECRET not in repr(thing) + str(thing)
    assert SECRET.encode() not in pickle.dumps(database) + pickle.dumps(found)


def test_a_password_of_the_wrong_type_is_in_no_exception(place):
    for error in problems(place, {"connections": [{**ORACLE, "password": [SECRET], "pasword": SECRET}]}):
        assert SECRET not in "".join(traceback.format_exception(error)) + error.text + error.remedy


def test_no_file_says_where_to_make_it(place):
    with pytest.raises(ConfigError, match=r"no file connections.json"):
        load_connections(place, None, {})


@pytest.mark.parametrize(
    ("data", "where", "what"),
    [
        (b"", "connections.json, line 1, column 1", "not whole JSON"),
        (b"  \n ", "connections.json, line 2, column 2", "not whole JSON"),
        (b'{"connections": [\n{"name": "x",', "connections.json, line 2, column 14", "not whole JSON"),
        (b'{"a": 1,}', "connections.json, line 1, column 9", "this is not JSON"),
        (b"{'a': 1}", "connections.json, line 1, column 2", "this is not JSON"),
        (b'{"default_environment": NaN}', "connections.json, line 1", "NaN is not JSON"),
        (b'[{"a": 1}]', "connections.json, line 1, column 1", "must hold one JSON object"),
        (b'"text"', "connections.json, line 1, column 1", "must hold one JSON object"),
        (
            b'{\n "connections": [],\n "connections": []}',
            "connections.json, line 3, column 2",
            "is in one object twice",
        ),
        (b'{"connections": "\xff"}', "connections.json, line 1", "not UTF-8"),
        ('{"connections": []}'.encode("utf-16"), "connections.json, line 1", "not UTF-8"),
        (b'{"a": ' + b"9" * 5000 + b"}", "connections.json, line 1", "a number has too many digits"),
        (b"[" * 100_000, "connections.json, line 1", "nested too deeply"),
        (b'{"a":' * 700 + b"1" + b"}" * 700, "connections.json, line 1", "nested too deeply"),
    ],
)
def test_a_broken_file_has_its_place_and_no_traceback(place, data, where, what):
    error = only(place, data)
    assert error.where == where
    assert what in error.text


@pytest.mark.skipif(sys.platform == "win32", reason="a folder is another error there")
def test_a_folder_in_its_place_cannot_be_read(place):
    place.connections_file.mkdir()
    with pytest.raises(ConfigError, match=r"the file cannot be read: Is a directory"):
        load_connections(place, None, {})


def test_a_byte_order_mark_is_no_problem(place):
    assert problems(place, b'\xef\xbb\xbf{"connections": []}') == []


def test_a_file_of_five_megabytes_is_read_and_its_last_line_is_found(place):
    entries = [{**ORACLE, "name": f"connection-{n}"} for n in range(25_000)]
    entries.append({**ORACLE, "name": "last", "portt": 1})
    write(place, {"connections": entries})
    assert place.connections_file.stat().st_size > 5_000_000
    (error,) = read_connections(place, {})[1]
    lines = place.connections_file.read_text(encoding="utf-8").splitlines()
    assert '"portt"' in lines[error.line - 1]


@pytest.mark.parametrize(
    ("document", "where", "what", "remedy"),
    [
        ({"conections": []}, "line 2, column 2", 'unknown key "conections"', 'did you mean "connections"?'),
        (with_database(pasword="x"), "line 12, column 4", 'unknown key "pasword"', 'did you mean "password"?'),
        (
            {"kafka_connections": {"c": {"bootstrap_server": "h:1"}}},
            "line 4, column 4",
            'unknown key "bootstrap_server"',
            'did you mean "bootstrap_servers"?',
        ),
        (with_database(port="1521"), "line 8, column 4", '"port" is not valid: input should be a valid integer', ""),
        (with_database(port=0), "line 8, column 4", '"port" is not valid: input should be greater than', ""),
        (
            with_database(db_type="db2"),
            "line 6, column 4",
            "'oracle', 'sqlserver', 'postgresql', 'mysql', 'sqlite' or 'odbc'",
            "",
        ),
        (with_database(host=""), "line 3, column 3", '(oracle) needs "host"', 'add "host": …'),
        (with_database(sid="X"), "line 3, column 3", 'needs "service_name" or "sid"', "give exactly one of them"),
        (with_database(service_name=""), "line 3, column 3", 'needs "service_name" or "sid"', "exactly one"),
        ({"connections": {}}, "line 2, column 2", '"connections" must be a list', 'write "connections": [ … ]'),
        ({"connections": ["x"]}, "line 3, column 3", '"0" is not valid', ""),
        ({"kafka_connections": []}, "line 2, column 2", "must be an object", ""),
        ({"default_environment": 5}, "line 2, column 2", "must be a text", ""),
        (
            {"kafka_connections": {"c": {"linger_ms": "10"}}},
            "line 4, column 4",
            '"linger_ms" is not valid: input should be a valid integer',
            "",
        ),
        (
            {"kafka_connections": {"c": {"security_protocol": "TLS"}}},
            "line 4, column 4",
            "'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'",
            "",
        ),
    ],
)
def test_a_mistake_has_line_column_and_remedy(place, document, where, what, remedy):
    error = only(place, document)
    assert error.where == f"connections.json, {where}"
    assert what in error.text
    assert remedy in error.remedy


def test_two_connections_of_one_name_are_refused(place):
    error = only(place, {"connections": [ORACLE, ORACLE]})
    assert 'there are two connections "A00-CDG-Collaudo"' in error.text


def test_all_problems_come_at_once(place):
    found = problems(place, {"conections": [], "connections": [{**ORACLE, "port": "x", "hots": "y"}, {"name": "z"}]})
    assert {error.key for error in found} == {"conections", "connections.0.port", "connections.0.hots", "connections.1"}


def test_an_unknown_connection_names_the_nearest(place):
    with pytest.raises(ConfigError, match=r'no connection "TT3".*did you mean "TT2"'):
        load(place).database("TT3")


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"security_protocol": "SASL_SSL"}, "SASL_SSL needs sasl_mechanism, sasl_username, sasl_password"),
        (
            {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_username": "u"},
            "SASL_PLAINTEXT needs sasl_password",
        ),
        ({"sasl_mechanism": "PLAIN"}, "sasl_mechanism is of no use with PLAINTEXT"),
        ({"security_protocol": "PLAINTEXT", "ssl_cafile": "ca.pem"}, "ssl_cafile is of no use with PLAINTEXT"),
        ({"ssl_cafile": "ca.pem"}, "ssl_cafile is of no use with PLAINTEXT"),
        ({"security_protocol": "SSL", "ssl_certfile": "ca.pem"}, "ssl_certfile and ssl_keyfile belong together"),
        ({"security_protocol": "SSL", "ssl_cafile": "none.pem"}, "there is no file none.pem"),
        ({"max_in_flight_requests": 6}, "idempotence allows at most 5"),
        ({"bootstrap_servers": "h"}, "bootstrap_servers has 'h'"),
        ({"bootstrap_servers": "h:1,,g:2"}, "bootstrap_servers has ''"),
        ({"default_topic": "a b"}, "'a b' is no topic name"),
        ({"default_topic": ".."}, "'..' is no topic name"),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_their_line(place, entry, what):
    (place.root / "ca.pem").write_text("x", encoding="utf-8")
    error = cluster_problem(place, entry)
    assert what in error.text
    assert error.where.startswith("connections.json, line ")
    assert error.line in (4, 6)
    assert error.remedy


def test_a_cluster_with_a_protocol_of_its_own_is_not_blamed_for_settings_meant_for_others(place):
    (place.root / "ca.pem").write_text("x", encoding="utf-8")
    environ = {"KAFKA_SSL_CAFILE": "ca.pem", "KAFKA_SASL_MECHANISM": "PLAIN"}
    assert cluster(place, {"security_protocol": "PLAINTEXT"}, **environ).security_protocol == "PLAINTEXT"


@pytest.mark.parametrize("servers", ["h:1", "h:1, g:2", "[::1]:9092", "10.0.0.1:9092"])
def test_addresses_in_their_usual_forms_are_taken(place, servers):
    assert cluster(place, {"bootstrap_servers": servers}).bootstrap_servers == servers


def test_kafka_python_ng_with_idempotence_is_refused_with_the_reason(place):
    found = cluster(place, {"client": "kafka-python-ng"})
    with pytest.raises(ConfigError, match=r"kafka-python-ng.*idempoten"):
        refuse_unsupported(found, transactional=False)
    refuse_unsupported(cluster(place, {"client": "kafka-python-ng", "enable_idempotence": False}), transactional=False)


@pytest.mark.parametrize("name", ["", " "])
def test_an_entry_without_a_name_is_refused_by_loader_and_check(place, name):
    text = {"connections": [{"name": name, "db_type": "sqlite", "database": "a.db"}], "kafka_connections": {name: {}}}
    place.connections_file.write_text(json.dumps(text), encoding="utf-8")
    with pytest.raises(ConfigError, match="a connection needs a name"):
        load_connections(place, None, {})
    found = [problem.text for problem in check(place, {})]
    assert '"name" is not valid: a connection needs a name' in found
    assert "a cluster has no name" in found
