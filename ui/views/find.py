"""Find: where is it?

The search is in the address, and so is the send that is opened: whoever opens the address sees the same.
"""

from __future__ import annotations

from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from ui.access import may
from ui.components import replaying
from ui.components.known_since import known_since
from ui.components.links import link
from ui.components.problem import guarded
from ui.components.runner_requests import progress
from ui.components.tables import choose, table, without_usual
from ui.components.text import indented, plain
from ui.data.find import MessageComparison, SearchResult, compare_with_topic, find_sends
from ui.data.status import workspace_status
from ui.formats import milliseconds, moment, number, size
from ui.language import t, tn, translated

__all__ = ["show"]

MOST_SHOWN = 500
_SEND = "send"
"""Query parameter: the send that is opened."""
_SELECTED = "find_selected"
"""Session key: the search in whose results a send was selected."""


def show() -> None:
    """Draws the view."""
    st.title(t("Find"), anchor=False)
    progress()
    asked = st.query_params.get("key", "")
    key = st.text_input(
        t("A key, or the start of one"),
        value=asked,
        placeholder="572680001120",
        icon=":material/search:",
        max_chars=1000,
        key=f"find_key_{asked}",
        help=t("With * at its end the start of a key is meant."),
    ).strip()
    if not key:
        st.caption(
            t(
                "The box finds every send of a key: which run, where on the topic, when, how quickly, with which outcome."
            )
        )
        return
    if key != asked:
        st.query_params["key"] = key
    guarded(_results)(key)


def _results(key: str) -> None:
    found = find_sends(key)
    _results_of(key, found)
    known_since(found.known)


def _results_of(key: str, found: SearchResult) -> None:
    if not found.sends:
        st.warning(t("**{key}** was never sent from this workspace.", key=plain(key)), icon=":material/search_off:")
        link("calendar", t("see which days were sent"), icon=":material/calendar_month:")
        return
    st.markdown(_summary(key, found))
    zone = workspace_status().timezone
    shown = found.sends[:MOST_SHOWN]
    rows = without_usual([_row(send, zone) for send in shown], {t("Attempt"): 1, t("Key"): key})
    index = choose(rows, f"sends_{key}", most_px=420, names=[t("Job")])
    if not found.by_prefix and any(send["key"] != key for send in found.sends):
        st.caption(t("Some were sent with blanks at the end of the key, as a CHAR column has them."))
    note = t("Select a send to read its message from the topic. Times are those of {zone}.", zone=plain(zone))
    st.caption(f"{note} {t('The address of this page repeats the search: share it as it is.')}")
    index = _opened(index, key, shown)
    if index is not None:
        guarded(_message)(shown[index], zone)


def _opened(chosen: int | None, key: str, shown: list[dict[str, Any]]) -> int | None:
    """Returns which send is opened: the selected one, else that of the address, else the only one."""
    if chosen is not None:
        st.session_state[_SELECTED] = key
        st.query_params[_SEND] = _name(shown[chosen])
        return chosen
    if st.session_state.get(_SELECTED) == key:  # it was selected and is not any more
        del st.session_state[_SELECTED]
        st.query_params.pop(_SEND, None)
    asked = st.query_params.get(_SEND)
    named = next((index for index, send in enumerate(shown) if asked and _name(send) == asked), None)
    return 0 if named is None and len(shown) == 1 else named


def _name(send: dict[str, Any]) -> str:
    """Returns the name of a send in the address."""
    return f"{send['run_id']}.{send['partition']}.{send['offset']}.{send['attempt']}"


def _summary(key: str, found: SearchResult) -> str:
    runs = len({send["run_id"] for send in found.sends})
    sends = tn(len(found.sends), "1 send", "{count} sends", count=number(len(found.sends)))
    in_runs = tn(runs, "in 1 run", "in {count} runs", count=number(runs))
    if not found.by_prefix:
        return f"**{plain(key)}**: {sends} {in_runs}"
    keys = len({send["key"] for send in found.sends})
    begin = tn(keys, "1 key begins with", "{count} keys begin with", count=number(keys))
    return f"{begin} **{plain(key)}**: {sends} {in_runs}"


def _row(send: dict[str, Any], zone: str) -> dict[str, Any]:
    return {
        t("Key"): send["key"] if send["key"] is not None else "–",
        t("Outcome"): _outcome(send),
        t("When"): moment(send["sent_at"], zone, seconds=True),
        t("Scheduled"): moment(send["scheduled_at"], zone),
        t("Latency"): milliseconds(send["latency_ms"]),
        t("Topic"): send["topic"],
        t("Partition"): send["partition"],
        t("Offset"): send["offset"],
        t("Job"): send["job_name"] or send["job"] or t("sent by hand"),
        t("Attempt"): send["attempt"],
        t("Run"): send["run_id"],
    }


def _outcome(send: dict[str, Any]) -> str:
    if send["status"] == "acknowledged":
        return f"✔ {t('acknowledged')}"
    return f"✘ {t('not acknowledged')}: {translated(send['error'] or '')}"


def _place(send: dict[str, Any]) -> str:
    if send["partition"] is None:
        return str(send["topic"])
    return f"{send['topic']}-{send['partition']} @ {number(send['offset'])}"


def _message(send: dict[str, Any], zone: str) -> None:
    with st.container(border=True):
        st.subheader(plain(_place(send)), anchor=False)
        _links(send)
        if send["status"] != "acknowledged" or send["offset"] is None:
            st.warning(
                t(
                    "It was not acknowledged, so it has no place on the topic: {error}",
                    error=plain(translated(send["error"] or "")),
                )
            )
            return
        verdict = st.container()
        left, right = st.columns(2, gap="medium")
        with left:
            st.markdown(f"**{t('What we sent')}**")
            _sent(send, zone)
        with right:
            st.markdown(f"**{t('On the topic now')}**")
            guarded(_read)(send, zone, verdict)


def _links(send: dict[str, Any]) -> None:
    with st.container(horizontal=True):
        if send["job"]:
            link("runs", t("open run {id}", id=send["run_id"]), icon=":material/play_circle:", run=send["run_id"])
        if send["offset"] is not None and may("messages"):
            place = {"topic": send["topic"], "at": f"{send['partition']}@{send['offset']}"}
            cluster = {"cluster": send["cluster"]} if send["cluster"] else {}
            link("messages", t("open it on its topic"), icon=":material/forum:", **place, **cluster)
        if send["job"] and send["key"]:
            _again(send)


def _again(send: dict[str, Any]) -> None:
    allowed = may("replay")
    if st.button(
        t("Send this row again"),
        icon=":material/replay:",
        disabled=not allowed,
        key="again_row",
        help=None if allowed else t("only an operator may do this"),
    ):
        replaying.ask(send["run_id"], key=send["key"])
    replaying.confirm(send["run_id"])


def _read(send: dict[str, Any], zone: str, verdict: DeltaGenerator) -> None:
    with st.spinner(t("reading the topic …")):
        comparison = compare_with_topic(send)
    with verdict:
        _verdict(comparison)
    _on_topic(comparison, zone)


def _verdict(comparison: MessageComparison) -> None:
    if not comparison.is_equal:
        st.error(t("The message on the topic is **not** what was sent."), icon=":material/error:")
    elif comparison.data_proven:
        st.success(
            t(
                "Equal: key, message_id and size are the same, and the data has the hash that its message_id is made of."
            ),
            icon=":material/check_circle:",
        )
    else:
        st.success(
            t(
                "Equal as far as can be checked: key, message_id and size are the same. A message sent by hand has no hash of its data, and one that is not JSON does not have the bytes that were hashed."
            ),
            icon=":material/check_circle:",
        )
    if comparison.data_proven:
        st.caption(
            t(
                "Compared are key, message_id, size and data; the metadata around it holds times and is compared by its size only."
            )
        )
    checks = (
        (t("key"), comparison.same_key),
        ("message_id", comparison.same_id),
        (t("size"), comparison.same_size),
        (t("hash of the data"), comparison.data_proven),
    )
    words = {True: f":green[✔ {t('same')}]", False: f":red[✘ {t('differs')}]", None: f"– {t('not there')}"}
    st.markdown(" · ".join(f"{name} {words[same]}" for name, same in checks))


def _sent(send: dict[str, Any], zone: str) -> None:
    properties = {
        t("key"): send["key"] if send["key"] is not None else "–",
        "message_id": send["message_id"],
        t("size"): size(send["size_bytes"]),
        t("sent at"): moment(send["sent_at"], zone, seconds=True),
        t("acknowledged in"): milliseconds(send["latency_ms"]),
        t("cluster"): send["cluster"] or "–",
        t("run"): send["run_id"],
    }
    _property_table(properties, "sent")
    st.caption(t("The value itself is not kept: its hash is in the message_id."))


def _on_topic(comparison: MessageComparison, zone: str) -> None:
    message = comparison.message
    properties = {
        t("key"): "–" if message.key is None else comparison.key.text,
        **message.headers,
        t("size"): size(len(message.value or b"")),
        t("time of the record"): moment(message.at, zone, seconds=True),
    }
    _property_table(properties, "on_topic")
    if comparison.value.format:
        st.caption(
            t("{format}, schema {id}", format=comparison.value.format, id=number(comparison.value.schema_id or 0))
        )
    if comparison.value.problem:
        st.caption(t("Not decoded: {why}", why=plain(translated(comparison.value.problem))))
    if message.value is None:
        st.caption(t("A tombstone: the key without a value."))
    text = comparison.value.text
    lines = indented(text)
    st.code(text if lines is None else lines, language=None if lines is None else "json", wrap_lines=True)


def _property_table(properties: dict[str, str], key: str) -> None:
    table([{t("What"): name, t("Value"): str(value)} for name, value in properties.items()], key)
