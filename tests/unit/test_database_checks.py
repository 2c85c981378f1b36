"""What `check` says of the keys of a connection: missing ones, those of another database, and options that undo a protection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from core.cli.main import app
from core.model.connection import DatabaseConnection
from core.workspace.connections import Connections, load_connections, parse_connections
from core.workspace.json_file import parse_json_file
from core.workspace.paths import Workspace
from core.workspace.references import References

ENTRIES: dict[str, dict[str, Any]] = {
    "oracle": {"host": "h", "service_name": "S", "username": "u"},
    "sqlserver": {"host": "h", "database": "d", "username": "u", "password": "env:P"},
    "postgresql": {"host": "h", "database": "d", "username": "u"},
    "mysql": {"host": "h", "database": "d", "username": "u"},
    "sqlite": {"database": "f.sqlite"},
    "odbc": {"driver": "SQLite3", "database": "f.sqlite", "dialect": "sqlite"},
}


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path)


def problems(place: Workspace, db_type: str, **changes: Any) -> list[str]:
    entry = {"name": "X", "db_type": db_type, **ENTRIES[db_type], **changes}
    text = json.dumps({"connections": [{k: v for k, v in entry.items() if v is not None}]}, indent=1)
    found = parse_connections(parse_json_file(place.connections_file, text), place, {})[1]
    return [f"{error.where} {error.what}" for error in found]


@pytest.mark.parametrize("db_type", ENTRIES)
def test_an_entry_without_the_new_keys_is_as_before(place: Workspace, db_type: str) -> None:
    assert problems(place, db_type) == []


REFUSED = [
    ("oracle", "ssl_server_dn_match", False, "turn off what the wallet asks for"),
    ("oracle", "mode", 2, "SYSDBA"),
    ("oracle", "retry_count", 5, "the run sets it"),
    ("oracle", "tcp_connect_timeout", 600, "the run sets it"),
    ("oracle", "access_token", "x", "a secret would be in the file"),
    ("oracle", "password", "x", "a secret would be in the file"),
    ("oracle", "on_connect_callback", "x", "not for a run"),
    ("sqlserver", "TrustServerCertificate", "yes", "turn off what sslmode asks for"),
    ("sqlserver", "encrypt", "no", "turn off what sslmode asks for"),
    ("sqlserver", "TDS_Version", "4.2", "turn off what sslmode asks for"),
    ("sqlserver", "QuotedId", "no", "relies on its value"),
    ("sqlserver", "TranslationDLL", "x.so", "loads other files"),
    ("sqlserver", "FileDSN", "x", "loads other files"),
    ("sqlserver", "UID", "sa", "has a key for it"),
    ("sqlserver", "PWD", "x", "a secret would be in the file"),
    ("sqlserver", "QueryLogFile", "x", "log values"),
    ("postgresql", "sslmode", "disable", "has a key for it"),
    ("postgresql", "gssencmode", "require", "turn off what sslmode asks for"),
    ("postgresql", "connect_timeout", 600, "the run sets it"),
    ("postgresql", "client_encoding", "LATIN1", "the run sets it"),
    ("postgresql", "sslpassword", "x", "a secret would be in the file"),
    ("postgresql", "autocommit", True, "not for a run"),
    ("postgresql", "options", "-c standard_conforming_strings=off", "may not set standard_conforming_strings"),
    ("postgresql", "options", "-c default_transaction_read_only=off", "may not set default_transaction_read_only"),
    ("postgresql", "options", "-c role=admin", "may not set role"),
    ("postgresql", "options", "--role=admin", "may not set role"),
    ("postgresql", "options", "-c 'x", "an open quote"),
    ("postgresql", "options", "-F", "has -F"),
    ("postgresql", "channel_binding", "disable", "may not weaken channel_binding"),
    ("postgresql", "ssl_min_protocol_version", "TLSv1", "may not weaken ssl_min_protocol_version"),
    ("odbc", "FileDSN", "x", "loads other files"),
    ("odbc", "UID", "sa", "has a key for it"),
    ("odbc", "PWD", "x", "a secret would be in the file"),
    ("odbc", "MULTI_STATEMENTS", 1, "relies on its value"),
    ("mysql", "init_command", "SET sql_mode = ''", "relies on its value"),
    ("mysql", "sql_mode", "ANSI", "relies on its value"),
    ("mysql", "local_infile", True, "reads other files"),
    ("mysql", "client_flag", 65536, "turn off what sslmode asks for"),
    ("mysql", "ssl_disabled", True, "turn off what sslmode asks for"),
    ("mysql", "auth_plugin_map", "x", "turn off what sslmode asks for"),
    ("mysql", "read_timeout", 9999, "the run sets it"),
]


@pytest.mark.parametrize(("db_type", "name", "value", "why"), REFUSED)
def test_an_option_that_would_undo_a_protection_is_refused_by_name(
    place: Workspace, db_type: str, name: str, value: Any, why: str
) -> None:
    (found,) = problems(place, db_type, options={name: value})
    assert why in found
    assert "line" in found
    if name != "options":
        assert f"options may not have {name}" in found or "may not weaken" in found


@pytest.mark.parametrize(
    ("db_type", "options"),
    [
        ("oracle", {"sdu": 16384, "edition": "E1", "https_proxy": "proxy.example.com"}),
        ("sqlserver", {"PacketSize": 8192, "ServerSPN": "MSSQLSvc/h", "HostNameInCertificate": "h.example.com"}),
        ("postgresql", {"options": "-c search_path=a,b -csearch_path=c --work_mem=64MB", "channel_binding": "require"}),
        ("postgresql", {"sslcrl": "x.crl", "require_auth": "scram-sha-256", "load_balance_hosts": "random"}),
        ("mysql", {"collation": "utf8mb4_bin", "bind_address": "10.0.0.1"}),
    ],
)
def test_other_options_pass(place: Workspace, db_type: str, options: dict[str, Any]) -> None:
    assert problems(place, db_type, options=options) == []


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"a;b": 1}, "is no name of a setting"),
        ({"": 1}, "is no name of a setting"),
        ({"x": "a\0b"}, "a NUL character"),
        ({"x": None}, "not valid"),
        ({"x": ["a"]}, "not valid"),
        ({"x": {"y": 1}}, "not valid"),
        ("PacketSize=1", "not valid"),
    ],
)
def test_options_are_names_with_plain_values(place: Workspace, options: Any, what: str) -> None:
    found = problems(place, "sqlserver", options=options)
    assert found
    assert all(what in text for text in found)


@pytest.mark.parametrize(
    ("db_type", "changes", "what"),
    [
        ("mysql", {"service": "tt2"}, '"service" is not a key of MySQL'),
        ("oracle", {"target_session_attrs": "any"}, '"target_session_attrs" is not a key of Oracle'),
        ("postgresql", {"dsn": "x"}, '"dsn" is not a key of PostgreSQL'),
        ("sqlite", {"authentication": "ActiveDirectoryMsi"}, '"authentication" is not a key of SQLite'),
        ("postgresql", {"sslcert": "c.pem"}, "sslcert and sslkey belong together"),
        ("postgresql", {"service_file": "s.conf"}, "service_file without service"),
        ("postgresql", {"sslpassword": "geheim"}, '"sslpassword" is written in the file itself'),
        ("oracle", {"wallet_location": "w", "wallet_password": "geheim"}, '"wallet_password" is written in the file'),
        ("postgresql", {"target_session_attrs": "write"}, '"target_session_attrs" is not valid'),
        ("mysql", {"sslcert": "c", "sslkey": "k"}, "a client certificate needs TLS"),
        ("sqlserver", {"authentication": "ActiveDirectoryInteractive"}, '"authentication" is not valid'),
        ("sqlserver", {"authentication": "ActiveDirectoryPassword", "password": None}, "needs username and password"),
        ("sqlserver", {"authentication": "ActiveDirectoryIntegrated"}, "takes the account of the process"),
        ("sqlserver", {"authentication": "SqlPassword", "sslmode": "disable"}, "a login with Entra needs TLS"),
        ("sqlserver", {"authentication": "SqlPassword", "driver": "FreeTDS"}, "FreeTDS has no authentication"),
        ("sqlserver", {"multi_subnet_failover": True, "driver": "FreeTDS"}, "FreeTDS has no multi_subnet_failover"),
        ("sqlserver", {"username": None}, "a password without a username"),
        ("odbc", {"dialect": "db2"}, "dialect db2 is not known"),
        ("odbc", {"dialect": "odbc"}, "dialect odbc is not known"),
        ("odbc", {"driver": None}, 'needs "driver" or "dsn"'),
        ("mysql", {"dialect": "sqlite"}, '"dialect" is not a key of MySQL'),
        ("oracle", {"dsn": "cdg"}, 'needs "service_name" or "sid" or "dsn"'),
        ("oracle", {"dsn": "cdg", "service_name": None}, "dsn names the host itself"),
        ("oracle", {"client_dir": "c"}, "of use in thick mode only"),
        ("oracle", {"wallet_password": "env:W"}, "a password without a wallet"),
        ("oracle", {"wallet_location": "w", "username": None}, "needs thick mode"),
        (
            "oracle",
            {"host": None, "service_name": None, "dsn": "(DESCRIPTION=(SECURITY=(SSL_SERVER_DN_MATCH = no)))"},
            "may not be turned off",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_named(
    place: Workspace, db_type: str, changes: dict[str, Any], what: str
) -> None:
    found = problems(place, db_type, **changes)
    assert any(what in text for text in found), found


@pytest.mark.parametrize(
    ("db_type", "changes"),
    [
        ("postgresql", {"host": None, "database": None, "username": None, "service": "tt2"}),
        ("postgresql", {"host": "a:5433,b", "target_session_attrs": "prefer-standby"}),
        ("oracle", {"host": None, "service_name": None, "dsn": "cdg.world", "config_dir": "tns"}),
        (
            "oracle",
            {"host": None, "service_name": None, "username": None, "dsn": "cdg", "wallet_location": "w", "thick": True},
        ),
        ("sqlserver", {"username": None, "password": None}),
        ("sqlserver", {"authentication": "ActiveDirectoryMsi", "username": None, "password": None}),
        ("mysql", {"sslmode": "verify-full", "sslcert": "c", "sslkey": "k", "sslpassword": "env:K"}),
    ],
)
def test_what_belongs_together_passes(place: Workspace, db_type: str, changes: dict[str, Any]) -> None:
    assert problems(place, db_type, **changes) == []


def loaded(place: Workspace, entry: dict[str, Any], **environ: str) -> Connections:
    place.connections_file.write_text(json.dumps({"connections": [entry]}), encoding="utf-8")
    return load_connections(place, None, environ)


def test_paths_are_below_the_workspace_and_secrets_are_resolved(place: Workspace) -> None:
    for file in ("client.pem", "client.key"):
        (place.root / file).touch()
    entry = {"name": "X", "db_type": "postgresql", **ENTRIES["postgresql"], "options": {"sslsni": 0}}
    entry |= {"sslcert": "client.pem", "sslkey": "client.key", "sslpassword": "env:KEY"}
    made: DatabaseConnection = loaded(place, entry, KEY="geheim").database("X")
    assert (made.sslcert, made.sslkey) == (place.root / "client.pem", place.root / "client.key")
    assert made.sslpassword is not None
    assert made.sslpassword.reveal() == "geheim"
    assert "geheim" not in repr(made)
    assert made.options == {"sslsni": 0}


def test_config_shows_the_databases_and_no_secret(place: Workspace) -> None:
    entry = {"name": "X", "db_type": "postgresql", "service": "tt2", "password": "geheim", "options": {"sslsni": 0}}
    loaded(place, entry)
    done = CliRunner().invoke(app, ["config", "--workspace", str(place.root), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout)["databases"] == [{**entry, "password": "***"}]
    lines = CliRunner().invoke(app, ["config", "--workspace", str(place.root)]).stdout
    assert "connection X: db_type = postgresql" in lines
    assert "geheim" not in lines


def test_a_missing_file_or_folder_is_named_by_its_key(place: Workspace) -> None:
    entry = {"name": "X", "db_type": "oracle", "dsn": "cdg", "username": "u", "config_dir": "tns"}
    with pytest.raises(Exception, match="there is no folder tns"):
        loaded(place, entry).database("X")
    entry = {"name": "X", "db_type": "postgresql", "service": "s", "passfile": "pgpass"}
    with pytest.raises(Exception, match="there is no file pgpass"):
        loaded(place, entry).database("X")


def test_a_part_elsewhere_gets_absolute_paths_and_references(tmp_path: Path) -> None:
    entry = {"name": "X", "db_type": "oracle", "dsn": "cdg", "username": "u", "config_dir": "tns"}
    entry |= {"wallet_location": "/etc/wallet", "wallet_password": "file:secrets/w", "password": "file:secrets/p"}
    scratch, home = Workspace(tmp_path), Path("/home/w")
    References({}, entry).write(scratch, home)
    (made,) = json.loads(scratch.connections_file.read_text(encoding="utf-8"))["connections"]
    assert made["config_dir"] == str(home / "tns")
    assert Path(made["wallet_location"]) == Path("/etc/wallet")
    assert made["wallet_password"] == f"file:{home / 'secrets/w'}"
    assert made["password"] == f"file:{home / 'secrets/p'}"
