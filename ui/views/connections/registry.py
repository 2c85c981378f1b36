"""Schema registries: one for every cluster, and those that a cluster has of its own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import streamlit as st

from core.workspace.registries import RegistryEntry
from ui import file_changes
from ui.access import may
from ui.components.text import plain
from ui.language import t
from ui.views.connections.cards import EDITED_ENTRY, secret_place, section_heading
from ui.views.connections.entry_draft import old_with_draft, watch_entry
from ui.views.connections.entry_saving import save_or_delete
from ui.views.connections.fields import more_keys, secret_field, secret_file_name, text_fields

FOR_ALL = ""
"""The place of the registry of every cluster that has none of its own; else the place is the cluster's environment."""
KEY = "schema_registry"
LOGINS = {"": "", "basic": "password", "token": "bearer_token"}
"""How one signs in, and the key of the secret."""
NEW = "+"
"""Names the draft of a registry that is not in the file yet: the form asks for its place."""


def show_registries(document: Mapping[str, Any]) -> None:
    """Draws a card for each registry of connections.json."""
    section_heading(t("Schema registries"), "registry")
    found = _registries(document)
    if not found:
        st.caption(t("None: jobs send JSON or text. Avro, Protobuf and JSON Schema need one."))
        return
    columns = st.columns(2, gap="medium")
    for index, (place, entry) in enumerate(found.items()):
        with columns[index % 2], st.container(border=True):
            st.markdown(f"**{plain(_label(place))}**")
            st.caption(_facts_of(entry))
            if st.button(
                t("Change"), key=f"edit_registry_{place}", icon=":material/edit:", disabled=not may("connections")
            ):
                st.session_state[EDITED_ENTRY] = ("registry", place)
    st.caption(t("The test of a cluster asks its registry too."))


def _registries(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the entry of each place that has one."""
    found = {FOR_ALL: document.get(KEY)}
    clusters: Mapping[str, Any] = document.get("kafka_connections", {})
    found |= {key: entry.get(KEY) for key, entry in clusters.items() if isinstance(entry, dict)}
    return {place: entry for place, entry in found.items() if isinstance(entry, dict)}


def _label(place: str) -> str:
    return place or t("Every cluster without one of its own")


def _facts_of(entry: Mapping[str, Any]) -> str:
    """What the file says about a registry, without secrets."""
    lines = [" · ".join(plain(str(entry[key])) for key in ("url", "username") if entry.get(key))]
    lines += [f"{t('password')}: {plain(secret_place(entry[key]))}" for key in LOGINS.values() if entry.get(key)]
    if entry.get("auto_register") is False:
        lines.append(t("Schemas are registered by others"))
    return "  \n".join(lines)


def edit_registry(document: Mapping[str, Any], place: str | None) -> None:
    """Draws the form of a registry.

    Args:
        document: connections.json.
        place: See FOR_ALL; None: a new one.
    """
    known = _registries(document)
    is_new = place is None
    form = NEW if place is None else place
    entry = old_with_draft("registry", form, {} if place is None else known.get(place, {}))
    if entry is None:
        return
    typed_place = entry.pop("registry_of", FOR_ALL)
    if place is None:
        free = [name for name in (FOR_ALL, *document.get("kafka_connections", {})) if name not in known]
        at = free.index(typed_place) if typed_place in free else 0
        place = st.selectbox(t("Of"), free, index=at, format_func=_label, key="c_registry_of")
        if place is None:
            st.info(t("Each cluster has a registry of its own already."))
            return
    text_fields(entry, [("url", t("Address, https://…"))])
    secret_key = _login(entry)
    secret = None
    if secret_key:
        file = f"secrets/registry-{secret_file_name(place or 'all')}"
        secret = secret_field(str(entry.get(secret_key) or ""), file)
    text_fields(entry, [("ssl_cafile", t("File of the authority (CA)"))])
    others_register = st.checkbox(
        t("Schemas are registered by others: a run with a new one is refused"),
        value=bool(entry.pop("others_register", entry.get("auto_register") is False)),
        key="c_auto_register",
    )
    entry.pop("auto_register", None)
    if others_register:
        entry["auto_register"] = False
    drawn = {"url", "username", "ssl_cafile", "auto_register", *LOGINS.values()} - {""}
    more_keys(entry, list(RegistryEntry.model_fields), frozenset(drawn))
    watch_entry("registry", form)
    save_or_delete(
        _with(document, place, entry),
        _with(document, place, None),
        (entry, secret_key, secret),
        KEY if place == FOR_ALL else f"{KEY} of cluster {place}",
        is_new=is_new,
        users=None if is_new else partial(file_changes.uses_of_registry, place or None, known.keys() - {FOR_ALL}),
        draft=("registry", form),
    )


def _login(entry: dict[str, Any]) -> str:
    """Draws how one signs in; removes the keys of the other ways. Returns the key of the secret; empty: there is none."""
    words = {"": t("nothing"), "basic": t("user and password"), "token": t("bearer token")}
    stored = next(
        (way for way, key in LOGINS.items() if key and entry.get(key)), "basic" if entry.get("username") else ""
    )
    now = str(entry.pop("registry_login", stored))
    way = st.selectbox(
        t("Sign-in by"),
        list(LOGINS),
        index=list(LOGINS).index(now),
        format_func=words.__getitem__,
        key="c_registry_login",
    )
    for other, key in LOGINS.items():
        if other != way and key:
            entry.pop(key, None)
    if way == "basic":
        text_fields(entry, [("username", t("User"))])
    else:
        entry.pop("username", None)
    return LOGINS[way]


def _with(document: Mapping[str, Any], place: str, entry: dict[str, Any] | None) -> dict[str, Any]:
    """Returns connections.json with that registry, or without it."""
    if place == FOR_ALL:
        rest = {key: value for key, value in document.items() if key != KEY}
        return rest if entry is None else {**rest, KEY: entry}
    clusters = dict(document["kafka_connections"])
    cluster = {key: value for key, value in clusters[place].items() if key != KEY}
    clusters[place] = cluster if entry is None else {**cluster, KEY: entry}
    return {**document, "kafka_connections": clusters}
