"""One message of a topic as a person reads it: properties, headers, value as a tree or text, download."""

from __future__ import annotations

import streamlit as st

from core.admin.topic_messages import ReadableMessage
from core.message.shown import ShownBytes, exact_tree
from ui.components.links import link
from ui.components.tables import table
from ui.components.text import indented, plain
from ui.data.messages import known_run
from ui.formats import moment, number, size
from ui.language import t, translated

__all__ = ["message_details", "one_line"]

MOST_TREE = 200_000
"""Characters of a value that become a tree: the browser of the reader draws each of its nodes."""
MOST_TEXT = 20_000
"""Characters of a longer value that are shown; the download has it whole."""

_PALE = {
    "203, 75, 22": "#9c3a11",
    "38, 139, 210": "#1a6399",
    "133, 153, 0": "#566300",
    "181, 137, 0": "#765a00",
    "42, 161, 152": "#1a6b65",
    "220, 50, 47": "#b3261e",
    "211, 54, 130": "#ab2267",
    "108, 113, 196": "#4d53b3",
}
"""Colours of Streamlit's tree on a light page → darker ones: its own have less contrast than 4.5 to 1."""
STYLE = "".join(
    f'[data-testid="stJson"] [style*="color: rgb({pale})"] {{ color: {dark} !important; }}'
    for pale, dark in _PALE.items()
)


def one_line(shown: ShownBytes, most: int) -> str:
    """Returns the beginning of a key or a value for a cell of a table."""
    if shown.form == "null":
        return "–"
    text = " ".join(shown.text[: most + 1].split())
    return text if len(text) <= most and not shown.is_cut else f"{text[:most]}…"


def message_details(
    message: ReadableMessage, cluster: str, zone: str, *, has_address: bool = False, has_run: bool = True
) -> None:
    """Draws a message.

    Args:
        message: The message, whole.
        cluster: Key or name of its cluster; empty: the default one.
        zone: IANA time zone of the times.
        has_address: Whether to link to the address of this message alone.
        has_run: Whether to link to the run that sent it.
    """
    stored = message.stored
    with st.container(border=True):
        if has_address:
            st.subheader(plain(f"{stored.topic}-{stored.partition} @ {number(stored.offset)}"), anchor=False)
        _links(message, cluster, has_address=has_address, has_run=has_run)
        left, right = st.columns(2, gap="medium")
        with left:
            _properties(message, zone)
        with right:
            st.markdown(f"**{t('Value')}**")
            _value(message)


def _links(message: ReadableMessage, cluster: str, *, has_address: bool, has_run: bool) -> None:
    stored = message.stored
    run_id, key = stored.header("run_id"), message.key
    with st.container(horizontal=True):
        if has_address:
            of = {"cluster": cluster} if cluster else {}
            label = t("address of this message")
            at = f"{stored.partition}@{stored.offset}"
            link("messages", label, icon=":material/link:", topic=stored.topic, at=at, **of)
        if has_run and run_id:
            if known_run(run_id):
                link("runs", t("open run {id}", id=plain(run_id)), icon=":material/play_circle:", run=run_id)
            else:
                st.caption(t("Run {id} is not one of this workspace.", id=plain(run_id)))
        if key.form == "text" and key.text and not key.is_cut and len(key.text) <= 1000:
            link("find", t("every send of this key"), icon=":material/search:", key=key.text)


def _properties(message: ReadableMessage, zone: str) -> None:
    stored = message.stored
    at = "–"
    if stored.at:
        at = f"{moment(stored.at, zone, seconds=True)}.{stored.at.microsecond // 1000:03}"
    rows = {
        t("key"): "–" if message.key.form == "null" else message.key.text[:MOST_TEXT],
        t("partition"): str(stored.partition),
        t("offset"): number(stored.offset),
        t("time"): at,
        t("size"): size(stored.size_bytes),
    }
    place = f"{stored.partition}_{stored.offset}"
    table([{t("What"): name, t("Value"): value} for name, value in rows.items()], f"message_{place}")
    if stored.is_append_time:
        st.caption(t("The time is that of {zone}; the broker set it when it stored the message.", zone=plain(zone)))
    elif stored.at:
        st.caption(t("The time is that of {zone}; the producer set it.", zone=plain(zone)))
    if message.key.form == "hex":
        st.caption(t("The key is not text; its bytes are shown as hexadecimal digits."))
    if not stored.headers:
        st.caption(t("It has no headers."))
        return
    st.markdown(f"**{t('Headers')}**")
    table([{t("Header"): name, t("Value"): _header(value)} for name, value in stored.headers], f"headers_{place}")


def _header(value: bytes | None) -> str:
    if value is None:
        return "–"
    try:
        return value.decode()[:MOST_TEXT]
    except UnicodeDecodeError:
        return value[:MOST_TEXT].hex(" ")


def _value(message: ReadableMessage) -> None:
    value, stored = message.value, message.stored
    if stored.value is None:
        st.caption(t("A tombstone: the key without a value."))
        return
    if value.format:
        st.caption(t("{format}, schema {id}", format=value.format, id=number(value.schema_id or 0)))
    if value.problem:
        st.caption(t("Not decoded: {why}", why=plain(translated(value.problem))))
    if value.form == "hex":
        st.caption(t("It is not text; its bytes are shown as hexadecimal digits."))
    if not _tree(value):
        st.code(value.text[:MOST_TEXT] or " ", language=None, wrap_lines=True)
        if value.is_cut or len(value.text) > MOST_TEXT:
            st.caption(t("Only the beginning is shown; the download has all {size}.", size=size(stored.size_bytes)))
    raw = stored.value
    ending = "json" if value.form == "json" and not value.format else "txt" if value.form == "text" else "bin"
    st.download_button(
        t("Download the value"),
        data=lambda: raw,
        file_name=f"{stored.topic}-{stored.partition}-{stored.offset}.{ending}",
        mime="application/octet-stream",
        icon=":material/download:",
        key=f"value_{stored.partition}_{stored.offset}",
        on_click="ignore",
    )


def _tree(value: ShownBytes) -> bool:
    """Draws JSON as a tree; returns False where it is none, or too large for one."""
    if value.form != "json" or len(value.text) > MOST_TREE:
        return False
    try:
        tree, is_exact = exact_tree(value.text)
    except ValueError:
        return False
    if not isinstance(tree, dict | list):
        return False
    st.html(f"<style>{STYLE}</style>")
    st.json(tree, expanded=3)
    if not is_exact:
        st.caption(t("Numbers that a browser would round are shown as texts."))
    with st.expander(t("As text")):  # the keyboard does not reach the branches of the tree
        st.code(indented(value.text) or value.text, language="json", wrap_lines=True)
    return True
