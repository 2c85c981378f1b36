"""A card for each database and cluster: what the file says about it, without secrets, and a test of the connection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from core.errors import PsttError
from core.model.check_result import CheckResult
from core.workspace.secrets import is_reference
from ui import changes
from ui.access import may
from ui.components.problem import problem
from ui.components.text import plain
from ui.language import t, translated

SIGNS = {"pass": "✔", "warn": "▲", "fail": "✘"}
COLOURS = {"pass": "green", "warn": "orange", "fail": "red"}
TEST_RESULTS = "connection_test_results"
"""Session key: kind and name of an entry → what its test returned."""
EDITED_ENTRY = "connection_editing"
"""Session key: kind and place of the entry whose form is open; place None: a new one."""


def section_heading(words: str, kind: str) -> None:
    """Draws a heading with the button that adds an entry of that kind."""
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(words, anchor=False, width="content")
        if st.button(t("Add"), key=f"add_{kind}", icon=":material/add:", disabled=not may("connections")):
            st.session_state[EDITED_ENTRY] = (kind, None)


def show_cards(kind: str, entries: Sequence[tuple[int | str, str, Mapping[str, Any]]]) -> None:
    """Draws a card for each entry.

    Args:
        kind: `database` or `cluster`.
        entries: Place in the file, name, entry. Two may have the same name, which `check` reports.
    """
    columns = st.columns(2, gap="medium")
    drawn: set[str] = set()
    for index, (place, name, entry) in enumerate(entries):
        with columns[index % 2], st.container(border=True):
            label = name if kind == "database" else f"{entry.get('name') or name}"
            st.markdown(f"**{plain(label)}**" if label.strip() else f":red[**{t('without a name')}**]")
            st.caption(_facts_of(kind, name, entry))
            is_second = name in drawn
            drawn.add(name)
            key = f"{kind}_{name}_{place}" if is_second else f"{kind}_{name}"
            with st.container(horizontal=True):
                if name.strip() and not is_second:
                    _test_button(kind, name)
                if st.button(t("Change"), key=f"edit_{key}", icon=":material/edit:", disabled=not may("connections")):
                    st.session_state[EDITED_ENTRY] = (kind, place)
            if not is_second:
                _answer(kind, name)


USERS = ("sasl_username", "sasl_kerberos_principal", "sasl_oauthbearer_client_id")
LOGIN_SECRETS = ("sasl_password", "sasl_oauthbearer_client_secret", "sasl_oauthbearer_token")


def _facts_of(kind: str, name: str, entry: Mapping[str, Any]) -> str:
    """What the file says about an entry, without secrets."""
    if kind == "database":
        place = entry.get("database") or entry.get("service_name") or entry.get("sid") or ""
        host = f"{entry['host']}:{entry['port']}" if entry.get("port") else str(entry.get("host", ""))
        parts = [entry.get("db_type", ""), host, place, entry.get("username", ""), entry.get("environment", "")]
        secret = entry.get("password")
    else:
        protocol = " ".join(filter(None, [entry.get("security_protocol"), entry.get("sasl_mechanism")]))
        where = t("demo, lives inside each run") if entry.get("mock_brokers") else entry.get("bootstrap_servers", "")
        user = next(filter(None, map(entry.get, USERS)), None)
        parts = [name, where, protocol, user, entry.get("default_topic")]
        secret = next(filter(None, map(entry.get, LOGIN_SECRETS)), None)
    lines = [" · ".join(plain(part) for part in parts if part)]
    if secret:
        lines.append(f"{t('password')}: {plain(secret_place(secret))}")
    if entry.get("allow_writes"):
        lines.append(f"▲ {t('writing is allowed on this connection')}")
    return "  \n".join(lines)


def secret_place(secret: Any) -> str:
    """Where a secret is stored; never the secret itself."""
    return secret if isinstance(secret, str) and is_reference(secret) else t("is in the file itself")


def _test_button(kind: str, name: str) -> None:
    if st.button(t("Test"), key=f"test_{kind}_{name}", icon=":material/cable:", disabled=not may("test")):
        with st.spinner(t("reaching it …")):
            st.session_state.setdefault(TEST_RESULTS, {})[kind, name] = _test(kind, name)


def _test(kind: str, name: str) -> list[CheckResult] | PsttError:
    try:
        return changes.test_database(name) if kind == "database" else changes.test_cluster(name or None)
    except PsttError as error:
        return error


def show_test(kind: str, name: str) -> None:
    """Draws the button that tests a connection, and what the last test returned."""
    _test_button(kind, name)
    _answer(kind, name)


def _answer(kind: str, name: str) -> None:
    found = st.session_state.get(TEST_RESULTS, {}).get((kind, name))
    if found is None:
        return
    if isinstance(found, PsttError):
        problem(found)
        return
    for result in found:
        word = {"pass": t("good"), "warn": t("look at it"), "fail": t("not good")}[result.status]
        text = f":{COLOURS[result.status]}[{SIGNS[result.status]} {word}] {plain(translated(result.text))}"
        if result.remedy:
            text += f"  \n{t('Next')}: {plain(translated(result.remedy))}"
        st.markdown(text)
