"""The forms that add or change a database or a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import streamlit as st

from core.errors import ConfigError
from core.model.dialect import ConnectionRules
from core.sources import database_types, find_dialect
from core.workspace.connections import CLUSTER_KEYS, DATABASE_KEYS
from core.workspace.database_checks import foreign_keys
from ui import file_changes
from ui.components.problem import guarded
from ui.language import t
from ui.views.connections.cards import EDITED_ENTRY
from ui.views.connections.entry_draft import old_with_draft, watch_entry
from ui.views.connections.entry_saving import dismiss_form, save_or_delete
from ui.views.connections.fields import more_keys, put, secret_field, secret_file_name, text_fields
from ui.views.connections.own_fields import own_fields
from ui.views.connections.registry import edit_registry

DB_TYPES = database_types()
"""In the order of the forms."""
SSL_MODES = ("", "disable", "prefer", "require", "verify-ca", "verify-full")
PROTOCOLS = ("", "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER")
CLUSTER_FIELDS = frozenset(
    "name bootstrap_servers default_topic security_protocol sasl_mechanism ssl_cafile schema_registry".split()
)
"""The keys of a cluster that have a field or a form of their own, beside those of its login."""


def show_entry_form(document: Mapping[str, Any]) -> None:
    """Draws the form that a button of a card opened, as a dialog."""
    editing = st.session_state.get(EDITED_ENTRY)
    if not editing:
        return
    kind, place = editing
    title = {
        "database": t("Database connection"),
        "cluster": t("Kafka cluster"),
        "registry": t("Schema registry"),
    }[kind]

    @st.dialog(title, width="large", on_dismiss=dismiss_form)
    @guarded
    def edit() -> None:
        if kind == "database":
            _edit_database(document, place)
        elif kind == "registry":
            edit_registry(document, place)
        else:
            _edit_cluster(document, place)

    edit()


def _edit_database(document: Mapping[str, Any], index: int | None) -> None:
    """Draws the form of a database.

    Args:
        document: connections.json.
        index: Of the entry in the file's list; None: a new one.
    """
    entries = document.get("connections", [])
    stored = entries[index] if index is not None and index < len(entries) else {}
    name = str(stored.get("name", ""))
    old = old_with_draft("database", name, stored)
    if old is None:
        return
    entry = dict(old)
    known = old.get("db_type", DB_TYPES[0])
    left, right = st.columns(2)
    with left:
        entry["name"] = st.text_input(t("Name"), value=str(old.get("name", "")), key="c_name").strip()
        entry["db_type"] = st.selectbox(
            t("Type"), DB_TYPES, index=DB_TYPES.index(known) if known in DB_TYPES else 0, key="c_type"
        )
        text_fields(entry, [("environment", t("Environment"))])
    with right:
        rules = find_dialect(entry["db_type"]).connection
        text_fields(entry, _database_fields(rules))
        if not rules.is_file:
            port = st.number_input(
                t("Port"),
                min_value=1,
                max_value=65_535,
                value=old.get("port"),
                step=1,
                placeholder=t("usual"),
                key="c_port",
            )
            put(entry, "port", port)
    if rules.has_tls_modes:
        mode = str(old.get("sslmode", ""))
        put(
            entry,
            "sslmode",
            st.selectbox(
                "TLS",
                SSL_MODES,
                index=SSL_MODES.index(mode) if mode in SSL_MODES else 0,
                format_func=lambda option: option or t("as the driver likes"),
                key="c_sslmode",
            ),
        )
    secret = (
        secret_field(str(old.get("password") or ""), f"secrets/{secret_file_name(entry['name'])}")
        if not rules.is_file
        else None
    )
    writes = st.checkbox(
        t("It may write: turns the readonly guard off"), value=bool(old.get("allow_writes")), key="c_writes"
    )
    put(entry, "allow_writes", writes)
    for key in foreign_keys(find_dialect(entry["db_type"])):
        entry.pop(key, None)  # the type was changed on this form
    own_fields(entry, rules)
    drawn = {"name", "db_type", "environment", "port", "sslmode", "password", "allow_writes", "options"}
    fields = frozenset((*rules.form, *rules.own, *drawn))
    more_keys(entry, [key for key in DATABASE_KEYS if key not in foreign_keys(find_dialect(entry["db_type"]))], fields)
    watch_entry("database", name)
    others = [e for place, e in enumerate(entries) if place != index]
    save_or_delete(
        {**document, "connections": [*others, entry]},
        {**document, "connections": others},
        (entry, "password", secret),
        f"connection {entry['name'] or name}",
        is_new=index is None,
        users=partial(file_changes.uses_of_connection, name) if index is not None else None,
        is_renamed=index is not None and entry["name"] != name,
        draft=("database", name),
    )


def _database_fields(rules: ConnectionRules) -> list[tuple[str, str]]:
    """Returns the key of the entry and its label, for each text that the form asks for."""
    labels = {
        "host": t("Host"),
        "username": t("User"),
        "service_name": t("Service name"),
        "sid": "SID",
        "database": t("File below the workspace") if rules.is_file else t("Database"),
        "driver": t("ODBC driver"),
    }
    return [(key, labels.get(key, key)) for key in rules.form]


def _edit_cluster(document: Mapping[str, Any], name: str | None) -> None:
    """Draws the form of a cluster.

    Args:
        document: connections.json.
        name: The entry's key in the file, which can be changed only while it is empty; None: a new one.
    """
    clusters = dict(document.get("kafka_connections", {}))
    known = clusters.get(name, {}) if name is not None else {}
    old = old_with_draft("cluster", name or "", known if isinstance(known, dict) else {})
    if old is None:
        return
    typed_key = old.pop("key", "")
    entry = dict(old)
    left, right = st.columns(2)
    with left:
        key = st.text_input(
            t("Environment"), value=name or typed_key, key="c_key", disabled=bool((name or "").strip())
        ).strip()
        text_fields(entry, [("name", t("Name")), ("bootstrap_servers", t("Bootstrap servers, host:port"))])
        text_fields(entry, [("default_topic", t("Default topic"))])
    with right:
        for place, words, options in (
            ("security_protocol", t("Protocol"), PROTOCOLS),
            ("sasl_mechanism", t("Sign-in by"), MECHANISMS),
        ):
            now = str(old.get(place) or "")
            chosen = st.selectbox(
                words,
                options,
                index=options.index(now) if now in options else 0,
                format_func=lambda option: option or t("as the settings say"),
                key=f"c_{place}",
            )
            put(entry, place, chosen)
        login, secret_key = _login_fields(entry.get("sasl_mechanism", ""))
        text_fields(entry, [*login, ("ssl_cafile", t("File of the authority (CA)"))])
    secret = (
        secret_field(str(old.get(secret_key) or ""), f"secrets/kafka-{secret_file_name(key)}") if secret_key else None
    )
    more_keys(entry, CLUSTER_KEYS, CLUSTER_FIELDS | {place for place, _ in login} | {secret_key})
    watch_entry("cluster", name or "")
    without = {other: value for other, value in clusters.items() if other != name}
    usual = {} if clusters or document.get("default_environment") else {"default_environment": key}
    save_or_delete(
        {**document, **usual, "kafka_connections": {**without, key: entry}},
        {**document, "kafka_connections": without},
        (entry, secret_key, secret),
        f"cluster {key}",
        is_new=name is None,
        users=partial(file_changes.uses_of_cluster, name) if name else None,
        draft=("cluster", name or ""),
        taken=_taken(without, key, entry),
    )


def _login_fields(mechanism: str) -> tuple[list[tuple[str, str]], str]:
    """Returns key and label of each field that a way of signing in needs, and the key of its secret; empty: it has none."""
    if mechanism == "GSSAPI":
        return [
            ("sasl_kerberos_principal", t("Principal, NAME@REALM")),
            ("sasl_kerberos_keytab", t("File of its keys (keytab)")),
        ], ""
    if mechanism == "OAUTHBEARER":
        return [
            ("sasl_oauthbearer_token_endpoint_url", t("Token endpoint, https://…")),
            ("sasl_oauthbearer_client_id", t("Client id")),
            ("sasl_oauthbearer_scope", t("Scope")),
        ], "sasl_oauthbearer_client_secret"
    return [("sasl_username", t("User"))], "sasl_password"


def _taken(others: Mapping[str, Any], key: str, entry: Mapping[str, Any]) -> ConfigError | None:
    """The problem if another cluster has that environment or name: runs and messages are assigned to clusters by name."""
    if not key:
        return ConfigError(t("a cluster needs an environment"), remedy=t("write its name, such as Collaudo"))
    if key.lower() in (other.strip().lower() for other in others):
        return ConfigError(
            t("there is a cluster of the environment {name} already", name=key),
            remedy=t("choose another name, or change that cluster"),
        )
    label = str(entry.get("name") or key)
    for other, value in others.items():
        if isinstance(value, dict) and label.lower() == str(value.get("name") or other).lower():
            return ConfigError(
                t("another cluster, {other}, is called {name} too", other=other, name=label),
                remedy=t("give it another name"),
            )
    return None
