"""The part of a job's form that makes it incremental, and its watermark."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import streamlit as st

from core.model import job as job_model
from ui import changes
from ui.access import may
from ui.components.problem import guarded
from ui.components.text import plain
from ui.formats import moment
from ui.language import t, translated
from ui.views.jobs.form_state import field_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ui.views.jobs.form import JobForm

__all__ = ["incremental_fields", "show_watermark"]


def incremental_fields(form: JobForm, zones: Sequence[str]) -> None:
    """Draws the switch, what cannot be seen this way, and the fields of the cursor."""
    form.flag("incremental", t("Only the rows that are new since the last run"))
    if not st.session_state[field_key("incremental")]:
        return
    st.warning(
        t(
            "Updates that leave the cursor as it is, and deletes, cannot be seen this way. To see them: a full run "
            "(switch this off), a column that each change and delete sets as the cursor (soft delete), or change data "
            "capture such as Debezium."
        ),
        icon=":material/visibility_off:",
    )
    form.text("incremental.column", t("Cursor: a column that is higher in every new row"))
    form.choice(
        "incremental.kind",
        t("The cursor is"),
        get_args(job_model.CursorKind),
        {"integer": t("a number"), "timestamp": t("a time")},
    )
    form.text("incremental.start", t("Begins after the value"), placeholder=t("the first row"))
    form.text(
        "incremental.tie_column",
        t("Column of numbers that orders rows with an equal cursor"),
        placeholder=t("none"),
    )
    if st.session_state[field_key("incremental.kind")] == "timestamp":
        form.number(
            "incremental.delay_s",
            t("Rows younger than so many seconds are left to a later run"),
            t("Others may still be committed before them."),
            placeholder="60",
        )
        form.number(
            "incremental.look_back_s",
            t("Looks for late rows so many seconds back"),
            t("What was sent already is left out."),
        )
        form.choice("incremental.timezone", t("Time zone of a column without an offset"), zones)
    form.flag("incremental.count_nulls", t("Count the rows without a cursor, which are never read"))


@guarded
def show_watermark(slug: str) -> None:
    """Shows how far the stored job has sent its rows, and changes it."""
    report = changes.watermark(slug)
    if report is None:
        return
    with st.expander(t("Watermark")):
        known = report.known
        if known is None:
            st.markdown(t("No run has sent a row yet."))
        else:
            by = plain(f"{known.changed_by}{f': {translated(known.why)}' if known.why else ''}")
            st.markdown(t("All rows up to **{value}** are sent or rejected.", value=plain(known.cursor.text)))
            st.caption(t("{when} UTC by {who}", when=moment(known.changed_at, "UTC", seconds=True), who=by))
        if report.problem:
            st.error(plain(translated(report.problem)))
        value = st.text_input(t("The next run reads the rows after"), key="watermark_value")
        why = st.text_input(t("Reason, for the audit trail"), key="watermark_why")
        is_ready = bool(value.strip() and why.strip()) and may("watermark")
        if st.button(t("Set the watermark"), key="set_watermark", disabled=not is_ready):
            changes.set_watermark(slug, value, why)
            for key in ("watermark_value", "watermark_why"):
                st.session_state.pop(key, None)
            st.rerun()
