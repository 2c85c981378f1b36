"""Fields of a database's own keys, and of further settings of its driver."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import streamlit as st

from core.errors import ConfigError
from core.model.connection import ApplicationIntent, EntraMethod, ServerType, SessionAttributes
from core.model.dialect import ConnectionRules
from ui.language import t
from ui.views.connections.fields import as_typed, put, typed

CHOICES: Mapping[str, tuple[str, ...]] = {
    "application_intent": get_args(ApplicationIntent),
    "authentication": get_args(EntraMethod),
    "server_type": get_args(ServerType),
    "target_session_attrs": get_args(SessionAttributes),
}
SWITCHES = frozenset({"multi_subnet_failover"})


def own_fields(entry: dict[str, Any], rules: ConnectionRules) -> None:
    """Draws a field for each key that not every database has, and one for `options`; sets them in the entry."""
    is_set = any(entry.get(key) for key in (*rules.own, "options"))
    with st.expander(t("Login, hosts and driver"), expanded=is_set):
        left, right = st.columns(2)
        for place, key in enumerate(rules.own):
            with right if place % 2 else left:
                _field(entry, key)
        if not rules.is_file:
            _options(entry)


def _field(entry: dict[str, Any], key: str) -> None:
    label, known = _labels().get(key, key), entry.get(key)
    if key in SWITCHES:
        put(entry, key, st.checkbox(label, value=bool(known), key=f"c_{key}"))
    elif key in CHOICES:
        options = CHOICES[key]
        put(
            entry,
            key,
            st.selectbox(
                label,
                options,
                index=options.index(known) if known in options else 0,
                format_func=lambda option: option or t("as the driver likes"),
                key=f"c_{key}",
            ),
        )
    else:
        put(entry, key, st.text_input(label, value=str(known or ""), key=f"c_{key}").strip())


def _labels() -> dict[str, str]:
    return {
        "application_intent": t("Replica (ApplicationIntent)"),
        "authentication": t("Sign-in with Entra"),
        "client_dir": t("Folder of the Instant Client"),
        "config_dir": t("Folder of tnsnames.ora"),
        "dsn": t("TNS alias or descriptor"),
        "multi_subnet_failover": t("The host is the listener of an availability group"),
        "passfile": t("Password file (.pgpass)"),
        "proxy_user": t("Account behind the proxy user"),
        "server_type": t("Server process"),
        "service": t("Section of the service file"),
        "service_file": t("Service file"),
        "sslcert": t("Client certificate, PEM file"),
        "sslkey": t("Its key, PEM file"),
        "sslpassword": t("Passphrase of the key, such as env:NAME"),
        "target_session_attrs": t("Which of several hosts"),
        "wallet_location": t("Folder of the wallet"),
        "wallet_password": t("Password of the wallet, such as env:NAME"),
    }


def _options(entry: dict[str, Any]) -> None:
    known = entry.get("options")
    text = st.text_area(
        t("Further settings of the driver, one a line: name = value"),
        value="\n".join(f"{name} = {as_typed(value)}" for name, value in (known or {}).items()),
        key="c_options",
    )
    options: dict[str, Any] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, equals, value = line.partition("=")
        if not equals:
            raise ConfigError(line[:60], why=t("a line without ="), remedy=t("write it as key = value"))
        options[name.strip()] = typed(value.strip())
    put(entry, "options", options or None)
