"""`schema_registry` in connections.json and the formats of a job's file: what is accepted, refused, hidden and sent to workers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from core.model.connection import SchemaRegistry
from core.records.connections_versions import hidden_secrets
from core.run.planning import schema_text
from core.workspace.connections import Connections, parse_connections
from core.workspace.jobs import checked_job
from core.workspace.json_file import parse_json_file
from core.workspace.paths import Workspace
from core.workspace.references import references_of
from core.workspace.settings import load_settings

CLUSTER = {"bootstrap_servers": "broker:9092"}
DATABASE = {"name": "db", "db_type": "sqlite", "database": "d.sqlite"}


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    (tmp_path / "queries").mkdir()
    (tmp_path / "ca.pem").write_text("-", encoding="utf-8")
    return Workspace(tmp_path)


def read(place: Workspace, own: Any = None, top: Any = None, **environ: str) -> tuple[Connections, list[ConfigError]]:
    cluster = CLUSTER | ({} if own is None else {"schema_registry": own})
    document: dict[str, Any] = {"connections": [DATABASE], "kafka_connections": {"prod": cluster}}
    if top is not None:
        document["schema_registry"] = top
    text = json.dumps(document, indent=1)
    place.connections_file.write_text(text, encoding="utf-8")
    return parse_connections(parse_json_file(place.connections_file, text), place, environ)


def registry(place: Workspace, own: Any = None, top: Any = None, **environ: str) -> SchemaRegistry | None:
    connections, problems = read(place, own, top, **environ)
    assert problems == []
    return connections.cluster_at("prod", load_settings(place, {})).schema_registry


def test_a_registry_has_its_secrets_resolved_and_its_files_found(place: Workspace) -> None:
    entry = {
        "url": "https://registry:8081/",
        "username": "u",
        "password": "env:REGISTRY_PASSWORD",
        "ssl_cafile": "ca.pem",
        "auto_register": False,
        "timeout_s": 5,
    }
    found = registry(place, entry, REGISTRY_PASSWORD="sesame")
    assert found is not None
    assert (found.url, found.username, found.ssl_cafile) == ("https://registry:8081", "u", place.root / "ca.pem")
    assert (found.auto_register, found.timeout_s, found.place) == (False, 5, "registry:8081")
    assert found.password is not None
    assert found.password.reveal() == "sesame"
    assert "sesame" not in repr(found)


def test_a_cluster_without_a_registry_uses_that_of_the_file(place: Workspace) -> None:
    common, own = {"url": "http://common"}, {"url": "http://own"}
    assert registry(place) is None
    assert registry(place, None, common) == SchemaRegistry("http://common")
    assert registry(place, own, common) == SchemaRegistry("http://own")
    connections, _ = read(place, None, common)
    assert connections.cluster_at(None, load_settings(place, {})).schema_registry == SchemaRegistry("http://common")


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"url": "registry:8081"}, "give the address of a registry"),
        ({"url": "https://u:sesame@registry"}, "an address has no password in it"),
        ({"url": "ftp://registry"}, "give the address of a registry"),
        ({"usrname": "u", "url": "http://r"}, 'unknown key "usrname"'),
        ({"username": "u"}, '"url" is missing'),
        ({"url": "http://r", "timeout_s": 0}, "timeout_s"),
        ([], "schema_registry"),
    ],
)
@pytest.mark.parametrize("where", ["own", "top"])
def test_a_wrong_entry_is_told_with_its_line(place: Workspace, entry: Any, told: str, where: str) -> None:
    _, problems = read(place, **{where: entry})
    (problem,) = problems
    assert told in str(problem)
    assert problem.line
    assert "sesame" not in str(problem)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"url": "http://r", "username": "u", "bearer_token": "t"}, "exclude each other"),
        ({"url": "http://r", "password": "p"}, "a password needs a username"),
        ({"url": "https://r", "ssl_certfile": "ca.pem"}, "belong together"),
        ({"url": "http://r", "ssl_cafile": "ca.pem"}, "of no use with http"),
        ({"url": "https://r", "ssl_cafile": "none.pem"}, "there is no file none.pem"),
        ({"url": "http://r", "bearer_token": "env:NOTHING"}, "the variable of env:NOTHING is not set"),
        ({"url": "http://r", "bearer_token": "two\nlines"}, "not one line"),
    ],
)
def test_a_registry_that_cannot_be_used_is_told_when_its_cluster_is(place: Workspace, entry: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        registry(place, entry)


def test_literal_secrets_are_listed_and_hidden(place: Workspace) -> None:
    entry = {"url": "http://r", "username": "u", "password": "sesame", "bearer_token": "sesame-2"}
    connections, _ = read(place, entry, {"url": "http://r", "bearer_token": "sesame-3"})
    assert connections.literal_passwords == ["prod", "schema_registry"]
    assert "sesame" not in json.dumps(hidden_secrets({"kafka_connections": {"prod": {"schema_registry": entry}}}))


def test_a_worker_elsewhere_gets_references_only(place: Workspace, tmp_path: Path) -> None:
    entry = {"url": "https://r", "bearer_token": "file:secrets/token", "ssl_cafile": "ca.pem"}
    read(place, None, entry)
    settings = load_settings(place, {})
    sent = references_of(place, settings, "db", "prod")
    assert sent.registry == entry
    there = Workspace(tmp_path / "part")
    there.root.mkdir()
    sent.write(there, Path("/home/worker"))
    written = json.loads(there.connections_file.read_text(encoding="utf-8"))["schema_registry"]
    assert written["bearer_token"] == f"file:{Path('/home/worker/secrets/token')}"
    assert Path(written["ssl_cafile"]) == Path("/home/worker/ca.pem")
    read(place, {"url": "https://r", "bearer_token": "sesame"})
    with pytest.raises(ConfigError, match="has its password in") as caught:
        references_of(place, settings, "db", "prod")
    assert "sesame" not in str(caught.value)


# ── the job's file ────────────────────────────────────────────────────────────────────────────


def job_problems(place: Workspace, **changes: Any) -> list[str]:
    document = {
        "name": "E",
        "query": "e.sql",
        "connection": "db",
        "kafka_config": {"topic": "t", "message_key_field": "K"},
        **changes,
    }
    _, problems = checked_job(place.queries_dir / "e.job.json", json.dumps(document))
    return [str(problem) for problem in problems]


@pytest.mark.parametrize(
    "changes",
    [
        {"value_format": "avro", "key_format": "avro", "envelope": "none"},
        {"value_format": "protobuf", "envelope": "cloudevents", "schemas": {"value_file": "x.proto"}},
        {"envelope": "cloudevents", "cloudevents": {"mode": "structured", "source": "https://example.it/a?b=c"}},
        {"envelope": "connect", "null_value_when": "DELETED = 'Y' OR STATE IS NULL"},
        {"value_format": "json_schema", "schemas": {"name": "it.example.Parcel", "subject": "topic_record"}},
    ],
)
def test_formats_that_go_together_are_accepted(place: Workspace, changes: Any) -> None:
    assert job_problems(place, **changes) == []


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"value_format": "xml"}, "value_format"),
        ({"envelope": "connect", "value_format": "avro"}, "Connect reads avro with the converter of its registry"),
        (
            {"envelope": "cloudevents", "value_format": "avro", "cloudevents": {"mode": "structured"}},
            'write "mode": "binary"',
        ),
        ({"cloudevents": {"type": "x"}}, "has no effect with envelope"),
        ({"envelope": "cloudevents", "cloudevents": {"source": "a b"}}, "a URI without blanks"),
        ({"envelope": "cloudevents", "headers": {"CE_id": "1"}}, "set by the CloudEvents envelope"),
        ({"schemas": {"value_file": "x.avsc"}}, "has no schema"),
        ({"value_format": "avro", "schemas": {"value_file": "x.avsc"}}, "describes the row alone"),
        ({"value_format": "avro", "envelope": "none", "schemas": {"value_file": "../x.avsc"}}, "below queries/"),
        ({"value_format": "avro", "schemas": {"name": "it.example.1"}}, "a record's name"),
        ({"key_format": "avro", "kafka_config": {"topic": "t"}}, "needs a key"),
        ({"null_value_when": "A = 1", "kafka_config": {"topic": "t"}}, "a tombstone needs a key"),
        ({"null_value_when": "A =="}, "a literal is expected"),
        ({"export_format": "csv", "envelope": "none"}, "is for messages"),
        ({"export_format": "excel", "null_value_when": "A = 1"}, "is for messages"),
    ],
)
def test_formats_that_contradict_each_other_are_refused(place: Workspace, changes: Any, told: str) -> None:
    assert any(told in problem for problem in job_problems(place, **changes)), job_problems(place, **changes)


def test_a_schema_file_is_read_or_told(place: Workspace) -> None:
    assert schema_text(place, None) == ""
    (place.queries_dir / "a.avsc").write_text('\ufeff"string"', encoding="utf-8")
    assert schema_text(place, "a.avsc") == '"string"'
    (place.queries_dir / "empty.avsc").write_text(" \n", encoding="utf-8")
    (place.queries_dir / "latin.avsc").write_bytes(b'"\xe8"')
    for name, told in (("none.avsc", "cannot be read"), ("empty.avsc", "is empty"), ("latin.avsc", "not UTF-8")):
        with pytest.raises(ConfigError, match=told):
            schema_text(place, name)
