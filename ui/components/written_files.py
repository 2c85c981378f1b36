"""The Excel and CSV files that were written: rows, size, time, and the file itself."""

from __future__ import annotations

import streamlit as st

from core.model.run import Run
from core.records.metrics_queries import SendFilter
from ui.access import may
from ui.components.links import link
from ui.components.tables import choose
from ui.components.text import plain
from ui.data.files import WrittenFile, content, files_of, newest_files
from ui.formats import moment, number, size
from ui.language import t, tn

__all__ = ["of_run", "show"]

MIME = {".csv": "text/csv", ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}


def show(send_filter: SendFilter) -> None:
    """Draws the newest files of the jobs that write files; nothing where there is none."""
    found = newest_files(send_filter)
    if not found:
        return
    with st.container(border=True):
        st.subheader(t("Files written"), anchor=False)
        rows = [
            {
                t("Job"): one.run.job_name,
                t("File"): one.name,
                t("Rows"): one.file.rows,
                t("Size"): size(one.file.size_bytes),
                t("Written on"): moment(one.run.finished_at, one.run.timezone),
                t("Now"): _now(one),
            }
            for one in found
        ]
        index = choose(rows, "written_files", most_px=400, names=[t("Job"), t("File")])
        if index is None:
            st.caption(t("Select one to download it or to open its run."))
            return
        with st.container(horizontal=True, vertical_alignment="center"):
            _download(found[index], "newest")
            link("runs", t("open the run"), icon=":material/play_circle:", run=found[index].run.run_id)


def of_run(run: Run) -> None:
    """Draws the files of a run, each with its download; nothing where it has written none."""
    found = files_of(run)
    if not found:
        return
    with st.container(border=True):
        st.subheader(t("Files written"), anchor=False)
        for index, one in enumerate(found):
            facts = f"{tn(one.file.rows, '1 row', '{count} rows', count=number(one.file.rows))} · {size(one.file.size_bytes)}"
            with st.container(horizontal=True, vertical_alignment="center"):
                st.markdown(f"**{plain(one.file.path)}** · {facts} · {_now(one)}", width="content")
                _download(one, str(index))


def _now(one: WrittenFile) -> str:
    words = {"there": t("is there"), "changed": t("was replaced"), "gone": t("is not there any more")}
    return words[one.state]


def _download(one: WrittenFile, key: str) -> None:
    allowed = may("exported files")
    st.download_button(
        t("Download"),
        data=lambda: content(one.run.run_id, one.file.path),
        file_name=one.name,
        mime=MIME.get(f".{one.name.rsplit('.', 1)[-1].lower()}", "application/octet-stream"),
        icon=":material/download:",
        key=f"download_{key}_{one.run.run_id}",
        on_click="ignore",
        disabled=one.state == "gone" or not allowed,
        help=None if allowed else t("only an operator may do this"),
    )
