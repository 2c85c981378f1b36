"""The preview: the first messages or rows that the job in the form would make."""

from __future__ import annotations

import json
from typing import Any

import streamlit as st

from core.formatting import short_value
from core.model.job import Job
from core.model.run import Plan
from core.run.preview import file_rows
from ui import changes
from ui.access import may
from ui.components.tables import choose, table
from ui.components.text import plain
from ui.formats import number, size
from ui.language import t, translated
from ui.views.jobs.scheduled_times import suggested_times, time_words

PREVIEW_ROWS = 20


def show_preview(job: Job) -> None:
    """Draws the button that asks the database, and the messages or rows that it brought."""
    st.subheader(t("Preview"), anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        at = st.selectbox(
            t("For the scheduled time"),
            suggested_times(job)[::-1],
            format_func=lambda chosen: time_words(job, chosen),
            key="preview_at",
            width=340,
        )
        wanted = st.button(
            t("Show the first messages") if job.export_format == "kafka" else t("Show the first rows"),
            key="preview",
            icon=":material/visibility:",
            disabled=not may("preview"),
            help=t(
                "Asks the database, for {seconds} s at most; nothing is sent.", seconds=int(changes.PREVIEW_TIMEOUT_S)
            ),
        )
    if wanted:
        st.session_state.pop("preview_made", None)
        with st.spinner(t("asking the database …")):
            st.session_state["preview_made"] = (job, *changes.preview(job, at, PREVIEW_ROWS))
    made = st.session_state.get("preview_made")
    if made is None or made[0].slug != job.slug:
        return
    if made[0] != job:
        st.info(t("The job was changed since; show them again."), icon=":material/info:")
    _messages(*made)


def _messages(job: Job, plan: Plan, seen: Any) -> None:
    for warning in seen.warnings:
        st.warning(plain(translated(warning)), icon=":material/warning:")
    st.caption(
        " · ".join(f"{plain(name)} = {plain(short_value(value))}" for name, value in plan.query.values.items())
        or t("The query has no parameters.")
    )
    if job.export_format != "kafka":
        _file_rows(job, plan, seen)
        return
    rows = [
        {
            t("Row"): m.row_number,
            t("Key"): m.key if m.key is not None else "–",
            t("Bytes"): m.size_bytes,
            **_cells(m.value),
        }
        for m in seen.messages
    ]
    if not rows:
        return
    st.caption(t("Select a row to see the exact message."))
    chosen = choose(rows, "preview_rows", most_px=400)
    message = seen.messages[chosen or 0]
    with st.container(border=True):
        st.markdown(
            t(
                "Row {row} → {topic}, key {key}, {size}",
                row=number(message.row_number),
                topic=plain(plan.topic),
                key=plain(message.key if message.key is not None else "–"),
                size=size(message.size_bytes),
            )
        )
        st.caption("  \n".join(f"**{plain(name)}** {plain(text)}" for name, text in message.headers.items()))
        if message.timestamp:
            st.caption(t("Time of the record: {time}", time=plain(message.timestamp)))
        st.code(json.dumps(json.loads(message.value), ensure_ascii=False, indent=2), language="json", wrap_lines=True)
        with st.expander(t("Exactly as it is sent")):
            st.code(message.value, language=None, wrap_lines=True)
            if message.value_base64 is not None:
                st.caption(t("Bytes as they are sent (Base64)"))
                st.code(message.value_base64, language=None, wrap_lines=True)
        if message.is_tombstone:
            st.caption(t("A tombstone: the key without a value."))
    if seen.value_schema is not None:
        with st.expander(t("Schema")):
            st.code(seen.value_schema.text, language=None, wrap_lines=True)


def _cells(value: str) -> dict[str, str]:
    """The cells of the row in a message of any envelope; none for a tombstone."""
    tree = json.loads(value, parse_float=str, parse_int=str) or {}
    row = next((tree[name] for name in ("data", "payload") if isinstance(tree.get(name), dict)), tree)
    return {name: cell if isinstance(cell, str) else json.dumps(cell, ensure_ascii=False) for name, cell in row.items()}


def _file_rows(job: Job, plan: Plan, seen: Any) -> None:
    names = [column.name for column in seen.columns]
    st.caption(f"{t('File')}: {plain(plan.output or '')}")
    rows = [dict(zip(names, cells, strict=True)) for cells in file_rows(seen, job)]
    if rows:
        table(rows, "preview_file", most_px=400)
