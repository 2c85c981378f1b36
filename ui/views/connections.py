"""Connections: can we reach it? A card per database and cluster; topics; a message by hand; entries to add and change."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import streamlit as st

from core.admin.edit_files import brought_back
from core.errors import ConfigError, PsttError
from core.model.check_result import CheckResult
from core.model.dialect import ConnectionRules
from core.records.connections_versions import hidden_secrets
from core.sources import database_types, find_dialect
from core.workspace.connections import CLUSTER_KEYS, DATABASE_KEYS
from core.workspace.json_file import parse_json_file
from core.workspace.secrets import is_reference
from core.workspace.stored_file import read_stored
from ui import changes, data
from ui.access import may
from ui.components.difference import show_difference
from ui.components.problem import guarded, problem
from ui.components.tables import choose, table
from ui.components.text import plain
from ui.data.status import workspace_status
from ui.formats import milliseconds, moment, size
from ui.language import t

__all__ = ["show"]

SIGNS = {"pass": "✔", "warn": "▲", "fail": "✘"}
COLOURS = {"pass": "green", "warn": "orange", "fail": "red"}
_FOUND, _EDITING, _SEEN, _SENDING = "connection_facts", "connection_editing", "connection_seen", "connection_sending"
_DELETING = "connection_deleting"
DB_TYPES = database_types()
"""In the order of the forms."""
SSL_MODES = ("", "disable", "prefer", "require", "verify-ca", "verify-full")
PROTOCOLS = ("", "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
CLUSTER_FIELDS = frozenset(
    "name bootstrap_servers default_topic security_protocol sasl_mechanism sasl_username ssl_cafile sasl_password".split()
)
"""Of a cluster's keys those that have a field of their own in the form."""


def show() -> None:
    """Draws the view."""
    st.title(t("Connections"), anchor=False)
    document = _document()
    if document is None:
        return
    databases = [(index, e) for index, e in enumerate(document.get("connections", [])) if isinstance(e, dict)]
    clusters = document.get("kafka_connections", {})
    entries = [(key, key, entry if isinstance(entry, dict) else {}) for key, entry in clusters.items()]
    _heading(t("Databases"), "database")
    _cards("database", [(index, str(entry.get("name", "")), entry) for index, entry in databases])
    _heading(t("Kafka clusters"), "cluster")
    _cards("cluster", entries)
    if clusters:
        guarded(_usual_environment)(document)
    else:
        st.caption(t("Without an entry the KAFKA settings say where the cluster is."))
        _tested("cluster", "")
    guarded(_topics)(list(clusters))
    guarded(_by_hand)(list(clusters))
    guarded(_versions)(document)
    _editor(document)


def _document() -> dict[str, Any] | None:
    """connections.json as it stands; its problems are shown, and whatever can be read of it all the same."""
    stored = read_stored(data.workspace().connections_file)
    if not stored.sha256:
        st.info(t("There is no connections.json yet: add the first connection."), icon=":material/info:")
        return {}
    try:
        found: dict[str, Any] = parse_json_file(stored.path, stored.text).document
    except ConfigError as error:
        problem(error)
        return None
    with data.opened() as app:
        try:
            _ = app.connections
        except ConfigError as error:
            problem(error)
    if not isinstance(found.get("connections", []), list) or not isinstance(found.get("kafka_connections", {}), dict):
        return None
    return found


# ── cards ─────────────────────────────────────────────────────────────────────────────────────


def _heading(words: str, kind: str) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(words, anchor=False, width="content")
        if st.button(t("Add"), key=f"add_{kind}", icon=":material/add:", disabled=not may("admin")):
            st.session_state[_EDITING] = (kind, None)


def _cards(kind: str, entries: Sequence[tuple[int | str, str, Mapping[str, Any]]]) -> None:
    """A card an entry: where it is in the file, its name, what it says. Two may have one name until that is mended."""
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
                if st.button(t("Change"), key=f"edit_{key}", icon=":material/edit:", disabled=not may("admin")):
                    st.session_state[_EDITING] = (kind, place)
            if not is_second:
                _answer(kind, name)


def _facts_of(kind: str, name: str, entry: Mapping[str, Any]) -> str:
    """What the file says, without secrets."""
    if kind == "database":
        place = entry.get("database") or entry.get("service_name") or entry.get("sid") or ""
        host = f"{entry['host']}:{entry['port']}" if entry.get("port") else str(entry.get("host", ""))
        parts = [entry.get("db_type", ""), host, place, entry.get("username", ""), entry.get("environment", "")]
        secret = entry.get("password")
    else:
        protocol = " ".join(filter(None, [entry.get("security_protocol"), entry.get("sasl_mechanism")]))
        where = t("demo, lives inside each run") if entry.get("mock_brokers") else entry.get("bootstrap_servers", "")
        parts = [name, where, protocol, entry.get("sasl_username"), entry.get("default_topic")]
        secret = entry.get("sasl_password")
    lines = [" · ".join(plain(part) for part in parts if part)]
    if secret:
        lines.append(f"{t('password')}: {plain(_place_of(secret))}")
    if entry.get("allow_writes"):
        lines.append(f"▲ {t('writing is allowed on this connection')}")
    return "  \n".join(lines)


def _place_of(secret: Any) -> str:
    """Where a secret is; never the secret itself."""
    return secret if isinstance(secret, str) and is_reference(secret) else t("stands in the file itself")


def _test_button(kind: str, name: str) -> None:
    if st.button(t("Test"), key=f"test_{kind}_{name}", icon=":material/cable:", disabled=not may("operator")):
        with st.spinner(t("reaching it …")):
            st.session_state.setdefault(_FOUND, {})[kind, name] = _ask(kind, name)


def _ask(kind: str, name: str) -> list[CheckResult] | PsttError:
    try:
        return changes.test_database(name) if kind == "database" else changes.test_cluster(name or None)
    except PsttError as error:
        return error


def _tested(kind: str, name: str) -> None:
    _test_button(kind, name)
    _answer(kind, name)


def _answer(kind: str, name: str) -> None:
    found = st.session_state.get(_FOUND, {}).get((kind, name))
    if found is None:
        return
    if isinstance(found, PsttError):
        problem(found)
        return
    for fact in found:
        word = {"pass": t("good"), "warn": t("look at it"), "fail": t("not good")}[fact.status]
        text = f":{COLOURS[fact.status]}[{SIGNS[fact.status]} {word}] {plain(fact.text)}"
        if fact.remedy:
            text += f"  \n{t('Next')}: {plain(fact.remedy)}"
        st.markdown(text)


# ── the usual environment ─────────────────────────────────────────────────────────────────────


def _usual_environment(document: Mapping[str, Any]) -> None:
    """Sets `default_environment`."""
    names = list(document["kafka_connections"])
    known = document.get("default_environment")
    chosen = st.selectbox(
        t("Usual environment"),
        names,
        index=names.index(known) if known in names else None,
        placeholder=t("none: whoever names no cluster is refused"),
        key=f"usual_environment_{known}",
        help=t("The cluster of whatever names none: jobs, messages by hand, REST, the command line."),
        disabled=not may("admin"),
        width=320,
    )
    if chosen is not None and chosen != known:
        seen = read_stored(data.workspace().connections_file).sha256
        changes.save_connections({**document, "default_environment": chosen}, "default_environment", seen)
        st.toast(t("Saved"), icon=":material/check:")
        st.rerun()


# ── topics ────────────────────────────────────────────────────────────────────────────────────


def _cluster_box(clusters: Sequence[str], key: str) -> str | None:
    if not clusters:
        return None
    default = workspace_status().environment
    index = list(clusters).index(default) if default in clusters else 0
    return st.selectbox(t("Cluster"), clusters, index=index, key=key, width=280)


def _topics(clusters: Sequence[str]) -> None:
    st.subheader(t("Topics"), anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        cluster = _cluster_box(clusters, "topics_cluster")
        if st.button(t("List the topics"), key="list_topics", icon=":material/list:", disabled=not may("operator")):
            st.session_state.pop("topics_found", None)
            st.session_state["topics_found"] = (cluster, changes.topics(cluster))
    listed = st.session_state.get("topics_found")
    if listed is None or listed[0] != cluster:
        return
    topics = listed[1]
    if not topics:
        st.markdown(t("This account sees no topic."))
        return
    chosen = choose(
        [{t("Topic"): i.name, t("Partitions"): i.partitions, t("Replicas"): i.replication} for i in topics],
        "topics",
        most_px=320,
    )
    st.caption(t("Select one to see how it is set up."))
    if chosen is not None:
        guarded(_topic)(cluster, topics[chosen].name)


def _topic(cluster: str | None, topic: str) -> None:
    st.markdown(f"**{plain(topic)}**")
    rows = [
        {
            t("Setting"): setting.name,
            t("Value"): setting.value,
            t("Origin"): t("of the broker") if setting.is_default else t("set for this topic"),
        }
        for setting in changes.topic_settings(cluster, topic)
    ]
    table(rows, "topic_settings", most_px=320)


# ── versions ──────────────────────────────────────────────────────────────────────────────────


def _versions(document: Mapping[str, Any]) -> None:
    """Every version of the file that was saved or found, what is different in it, and the way back."""
    with data.opened() as app:
        versions = app.ledger.connections_versions.newest_first()
    st.subheader(t("Versions"), anchor=False)
    with st.expander(t("Earlier versions of connections.json")):
        if not versions:
            st.markdown(t("No earlier version is known yet; each one that is saved, or that a runner finds, is kept."))
            return
        zone = workspace_status().timezone
        names = {
            version.sha256: f"{moment(version.seen_at, zone, seconds=True)} · {version.saved_by or t('found on disk')}"
            for version in versions
        }
        picked = st.selectbox(t("Version"), list(names), format_func=names.get, key="connections_version")
        version = next(version for version in versions if version.sha256 == picked)
        now = json.dumps(hidden_secrets(document), ensure_ascii=False, indent=2)
        show_difference(now, version.document, t("now"), t("that version"))
        restored, missing = brought_back(version.document, document)
        if missing:
            st.warning(
                t("Passwords are in no version; give them again for: {names}", names=plain(", ".join(missing))),
                icon=":material/key_off:",
            )
        seen = read_stored(data.workspace().connections_file).sha256
        same = version.document == now
        if st.button(t("Bring this version back"), key="bring_back", icon=":material/history:",
                     disabled=same or not may("admin")):  # fmt: skip
            changes.save_connections(restored, f"connections.json as of {names[picked]}", seen)
            st.session_state.pop(_FOUND, None)
            st.toast(t("Saved"), icon=":material/check:")
            st.rerun()


# ── a message by hand ─────────────────────────────────────────────────────────────────────────


def _by_hand(clusters: Sequence[str]) -> None:
    st.subheader(t("Send a message by hand"), anchor=False)
    with st.expander(t("Write it")):
        cluster = _cluster_box(clusters, "hand_cluster")
        topic = st.text_input(t("Topic"), key="hand_topic")
        key = st.text_input(t("Key"), key="hand_key")
        value = st.text_area(t("Value, JSON"), key="hand_value", height=140, placeholder='{"data": {}}')
        if not _is_json(value):
            st.caption(t("This is not JSON; readers of this topic may not take it."))
        ready = bool(topic.strip() and value.strip()) and may("operator")
        if st.button(t("Send …"), key="hand_send", icon=":material/send:", disabled=not ready):
            st.session_state[_SENDING] = True
        if st.session_state.get(_SENDING) and ready:
            _confirm_send(cluster, topic.strip(), key, value)
        if sent := st.session_state.get("hand_sent"):
            st.success(
                t(
                    "acknowledged in {latency} at {place}; Find knows it by its key",
                    latency=milliseconds(sent["latency_ms"]),
                    place=plain(f"{sent['topic']}-{sent['partition']} @ {sent['offset']}"),
                ),
                icon=":material/check:",
            )


def _is_json(text: str) -> bool:
    try:
        json.loads(text or "null")
    except (ValueError, RecursionError):
        return False
    return True


def _confirm_send(cluster: str | None, topic: str, key: str, value: str) -> None:
    @st.dialog(t("Send this message?"), on_dismiss=lambda: st.session_state.pop(_SENDING, None))
    @guarded
    def confirm() -> None:
        st.markdown(
            t(
                "One message of {size} with key {key} goes to {topic} on {cluster}. Readers see it at once, and it cannot be taken back.",
                size=size(len(value.encode("utf-8", "replace"))),
                key=plain(key or "–"),
                topic=plain(topic),
                cluster=plain(cluster or "KAFKA"),
            )
        )
        if st.button(t("Yes, send"), key="confirm_send", icon=":material/send:"):
            st.session_state.pop("hand_sent", None)
            st.session_state["hand_sent"] = changes.send(cluster, topic, key, value)
            st.session_state.pop(_SENDING, None)
            st.rerun()

    confirm()


# ── adding and changing an entry ──────────────────────────────────────────────────────────────


def _editor(document: Mapping[str, Any]) -> None:
    editing = st.session_state.get(_EDITING)
    if not editing:
        return
    kind, place = editing
    title = {"database": t("Database connection"), "cluster": t("Kafka cluster")}[kind]

    @st.dialog(title, width="large", on_dismiss=_close_editor)
    @guarded
    def edit() -> None:
        if kind == "database":
            _edit_database(document, place)
        else:
            _edit_cluster(document, place)

    edit()


def _close_editor() -> None:
    for name in (_EDITING, _SEEN, _DELETING):
        st.session_state.pop(name, None)


def _edit_database(document: Mapping[str, Any], index: int | None) -> None:
    """`index` is that of the file's list; None: a new one."""
    entries = document.get("connections", [])
    old = entries[index] if index is not None and index < len(entries) else {}
    name = str(old.get("name", ""))
    entry = dict(old)
    known = old.get("db_type", DB_TYPES[0])
    left, right = st.columns(2)
    with left:
        entry["name"] = st.text_input(t("Name"), value=str(old.get("name", "")), key="c_name").strip()
        entry["db_type"] = st.selectbox(
            t("Type"), DB_TYPES, index=DB_TYPES.index(known) if known in DB_TYPES else 0, key="c_type"
        )
        _texts(entry, [("environment", t("Environment"))])
    with right:
        rules = find_dialect(entry["db_type"]).connection
        _texts(entry, _database_fields(rules))
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
            _put(entry, "port", port)
    if rules.has_tls_modes:
        mode = str(old.get("sslmode", ""))
        _put(
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
        _secret(str(old.get("password") or ""), f"secrets/{_file_of(entry['name'])}") if not rules.is_file else None
    )
    writes = st.checkbox(
        t("It may write: opens the read-only gate"), value=bool(old.get("allow_writes")), key="c_writes"
    )
    _put(entry, "allow_writes", writes)
    _more(
        entry,
        DATABASE_KEYS,
        frozenset(rules.form) | {"name", "db_type", "environment", "port", "sslmode", "password", "allow_writes"},
    )
    others = [e for place, e in enumerate(entries) if place != index]
    _finish(
        {**document, "connections": [*others, entry]},
        {**document, "connections": others},
        (entry, "password", secret),
        f"connection {entry['name'] or name}",
        is_new=index is None,
        users=changes.users_of_connection(name) if index is not None else [],
        is_renamed=index is not None and entry["name"] != name,
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
    """`name` is the key of the file; None: a new one. An entry without a name can be given one."""
    clusters = dict(document.get("kafka_connections", {}))
    known = clusters.get(name, {}) if name is not None else {}
    old = known if isinstance(known, dict) else {}
    entry = dict(old)
    left, right = st.columns(2)
    with left:
        key = st.text_input(
            t("Environment"), value=name or "", key="c_key", disabled=bool((name or "").strip())
        ).strip()
        _texts(entry, [("name", t("Name")), ("bootstrap_servers", t("Bootstrap servers, host:port"))])
        _texts(entry, [("default_topic", t("Default topic"))])
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
            _put(entry, place, chosen)
        _texts(entry, [("sasl_username", t("User")), ("ssl_cafile", t("File of the authority (CA)"))])
    secret = _secret(str(old.get("sasl_password") or ""), f"secrets/kafka-{_file_of(key)}")
    _more(entry, CLUSTER_KEYS, CLUSTER_FIELDS)
    without = {other: value for other, value in clusters.items() if other != name}
    usual = {} if clusters or document.get("default_environment") else {"default_environment": key}
    _finish(
        {**document, **usual, "kafka_connections": {**without, key: entry}},
        {**document, "kafka_connections": without},
        (entry, "sasl_password", secret),
        f"cluster {key}",
        is_new=name is None,
        users=changes.users_of_cluster(name) if name else [],
        taken=_taken(without, key, entry),
    )


def _taken(others: Mapping[str, Any], key: str, entry: Mapping[str, Any]) -> ConfigError | None:
    """Another cluster has that environment or that name, by which runs and messages are told apart."""
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


def _more(entry: dict[str, Any], keys: Sequence[str], fields: AbstractSet[str]) -> None:
    """The keys that have no field of their own, one a line."""
    own = {key: value for key, value in entry.items() if key not in fields}
    free = [key for key in keys if key not in fields]
    with st.expander(t("More keys"), expanded=bool(own)):
        text = st.text_area(
            t("One a line: key = value"),
            value="\n".join(f"{key} = {_as_typed(value)}" for key, value in own.items()),
            placeholder=f"{free[0]} = …",
            key="c_more",
        )
        st.caption(plain(", ".join(free)))
    for key in own:
        del entry[key]
    for line in filter(None, map(str.strip, text.splitlines())):
        key, equals, value = line.partition("=")
        if not equals:
            raise ConfigError(line[:60], why=t("a line without ="), remedy=t("write it as key = value"))
        if key.strip() in fields:  # a password typed here would stand in the file as it is
            raise ConfigError(key.strip(), why=t("it has a field of its own in this form"))
        entry[key.strip()] = _typed(value.strip())


def _typed(text: str) -> Any:
    """A number, true, false or text; text that looks like one of those stands in quotes."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _as_typed(value: Any) -> str:
    if isinstance(value, str) and _typed(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _texts(entry: dict[str, Any], fields: Sequence[tuple[str, str]]) -> None:
    for place, words in fields:
        _put(entry, place, st.text_input(words, value=str(entry.get(place) or ""), key=f"c_{place}").strip())


def _put(entry: dict[str, Any], place: str, value: Any) -> None:
    if value in ("", None, False):
        entry.pop(place, None)
    else:
        entry[place] = value


def _file_of(name: str) -> str:
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "._-") else "-" for letter in name)
    return kept.strip("-.").lower() or "password"


def _secret(old: str, file: str) -> tuple[str, str] | None:
    """A password can be written and never read: its reference, and what is to be stored there; None: as it is."""
    st.markdown(f"**{t('Password')}** · {plain(_place_of(old)) if old else t('none yet')}")
    keep, in_file, in_keyring, variable, none = (
        t("leave it as it is"),
        t("store it in a file for this account only"),
        t("store it in the keyring of this account"),
        t("it is in an environment variable"),
        t("there is none"),
    )
    how = st.selectbox(t("Where"), [keep, in_file, in_keyring, variable, none], key="c_secret_how")
    if how == keep:
        return None
    if how == none:
        return "", ""
    if how == variable:
        name = st.text_input(t("Name of the variable"), key="c_secret_env").strip()
        return (f"env:{name}" if name else ""), ""
    default = f"file:{file}" if how == in_file else f"keyring:pstt/{file.rpartition('/')[2]}"
    reference = st.text_input(t("Stored as"), value=default, key=f"c_secret_reference_{how == in_file}").strip()
    value = st.text_input(
        t("Password, is never shown again"), type="password", key="c_secret_value", autocomplete="new-password"
    )
    return reference, value


def _finish(
    with_it: dict[str, Any],
    without_it: dict[str, Any],
    place: tuple[dict[str, Any], str, tuple[str, str] | None],
    about: str,
    *,
    is_new: bool,
    users: Sequence[str] = (),
    is_renamed: bool = False,
    taken: ConfigError | None = None,
) -> None:
    """The buttons below a form.

    Args:
        with_it: The file with the entry.
        without_it: The file without it.
        place: The entry, the key of its secret, and the secret's reference and value; None: as it is.
        about: What is changed, for the audit.
        is_new: Nothing of it is in the file yet.
        users: The jobs that use the entry.
        is_renamed: They would not find it any more.
        taken: Another entry has its name: it is not saved.
    """
    entry, key, secret = place
    seen = _seen()
    sure = True
    if is_renamed and users:
        st.warning(_used_by(users), icon=":material/warning:")
        sure = st.checkbox(t("Rename it all the same: these jobs fail until they name it"), key="c_rename_sure")
    with st.container(horizontal=True):
        save = st.button(t("Save"), key="c_save", icon=":material/save:", disabled=not may("admin") or not sure)
        if not is_new and st.button(t("Delete"), key="c_delete", icon=":material/delete:", disabled=not may("admin")):
            st.session_state[_DELETING] = True
    if save and taken is not None:
        raise taken
    if save:
        if secret is not None:
            reference, value = secret
            if reference and not reference.startswith("env:"):
                if not is_reference(reference):
                    raise ConfigError(t("write file:… or keyring:SERVICE/USER"))
                changes.store_secret(reference, value)
            _put(entry, key, reference)
        changes.save_connections(with_it, about, seen)
    elif not is_new and st.session_state.get(_DELETING) and _is_deleted(users):
        changes.save_connections(without_it, about, seen)
    else:
        return
    for name in [name for name in st.session_state if str(name).startswith("c_")]:
        del st.session_state[name]
    _close_editor()
    st.session_state.pop(_FOUND, None)
    st.toast(t("Saved"), icon=":material/check:")
    st.rerun()


def _is_deleted(users: Sequence[str]) -> bool:
    """Asks once more, with what uses it; whether it is to be deleted."""
    if users:
        st.warning(_used_by(users), icon=":material/warning:")
    else:
        st.markdown(t("No job uses it."))
    return st.button(t("Yes, delete"), key="c_confirm_delete", icon=":material/delete:", disabled=not may("admin"))


def _used_by(users: Sequence[str]) -> str:
    return "  \n".join([t("Used by:"), *(f"- {plain(user)}" for user in users)])


def _seen() -> str:
    """Which version of the file the open form began with."""
    opened: tuple[Any, str] | None = st.session_state.get(_SEEN)
    editing = st.session_state[_EDITING]
    if opened is None or opened[0] != editing:
        opened = (editing, read_stored(data.workspace().connections_file).sha256)
        st.session_state[_SEEN] = opened
    return opened[1]
