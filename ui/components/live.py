"""How far a running run is: in one line for lists, in figures for its page."""

from __future__ import annotations

import streamlit as st

from core.model.progress import RunStep
from ui.components.links import link
from ui.components.problem import fragment
from ui.components.text import plain
from ui.data.live import LiveRun, running_now
from ui.formats import number, span_text
from ui.language import t, tn

__all__ = ["figures", "running", "step_word"]

REDRAWN_EVERY_S = 2
SHOWN = 5


def step_word(step: RunStep) -> str:
    """The step in the language of the session."""
    words: dict[RunStep, str] = {
        "connecting": t("connecting"),
        "reading": t("reading"),
        "sending": t("sending"),
        "writing": t("writing the file"),
        "waiting": t("waiting for acknowledgements"),
        "verifying": t("verifying"),
        "recording": t("recording the verdict"),
    }
    return words[step]


@fragment(run_every=REDRAWN_EVERY_S)
def running() -> None:
    """Draws the runs that are running now, each with its bar; nothing where none is."""
    found = running_now()
    if not found:
        return
    with st.container(border=True, key="running_now"):
        st.subheader(t("Running now"), anchor=False)
        for live in found[:SHOWN]:
            with st.container(gap=None):
                link("runs", plain(live.run.job_name), icon=":material/play_circle:", run=live.run.run_id)
                bar(live)
        if more := len(found) - SHOWN:
            if more > 0:
                st.caption(tn(more, "and 1 more run", "and {count} more runs", count=number(more)))


def bar(live: LiveRun) -> None:
    """Draws the bar of a run and its figures in one line; without a bar where the number of rows is not known."""
    words = " · ".join(_parts(live))
    if live.share is None:
        st.markdown(words)
    else:
        st.progress(live.share, text=words)
    silence(live)


def figures(live: LiveRun) -> None:
    """Draws the figures of one run, large, and its bar."""
    found = live.progress
    if found is None:
        st.markdown(t("it has just begun"))
        return
    done = t("Written") if live.run.is_file else t("Acknowledged")
    values = [
        (t("Rows read"), number(found.rows_read)),
        (done, number(found.acknowledged)),
        (t("Rejected"), number(found.rejected)),
        (t("Rows a second"), number(found.rate_per_s)),
        (t("So far"), span_text(live.elapsed_s)),
        (t("Left"), "–" if live.remaining_s is None else span_text(live.remaining_s)),
    ]
    with st.container(border=True):
        if live.share is None:
            st.markdown(f"**{step_word(found.step)}**")
        else:
            st.progress(live.share, text=f"**{step_word(found.step)}** · {_of(live)}")
        with st.container(horizontal=True, horizontal_alignment="distribute", gap="medium"):
            for label, value in values:
                st.metric(label, value, width="content")
        silence(live)


def silence(live: LiveRun) -> None:
    """Draws that the process of a run has given no sign for long."""
    if live.silent_s:
        st.warning(
            t("no sign of its process for {time}: it may have ended", time=span_text(live.silent_s)),
            icon=":material/heart_broken:",
        )


def _of(live: LiveRun) -> str:
    """`12,345 of 40,000 rows read`."""
    found = live.progress
    if found is None or found.rows_expected is None:
        read = found.rows_read if found else 0
        return tn(read, "1 row read", "{read} rows read", read=number(read))
    values = {"read": number(found.rows_read), "expected": number(found.rows_expected)}
    if found.is_counted:
        return t("{read} of {expected} rows read", **values)
    return t("{read} of about {expected} rows read", **values)


def _parts(live: LiveRun) -> list[str]:
    found = live.progress
    if found is None:
        return [t("it has just begun")]
    done = t("{count} written") if live.run.is_file else t("{count} acknowledged")
    parts = [f"**{step_word(found.step)}**", _of(live), done.format(count=number(found.acknowledged))]
    if found.rejected:
        parts.append(f":orange[{t('{count} rejected', count=number(found.rejected))}]")
    if found.rate_per_s is not None:
        parts.append(t("{rate} rows/s", rate=number(found.rate_per_s)))
    parts.append(t("{time} so far", time=span_text(live.elapsed_s)))
    if live.remaining_s is not None:
        parts.append(t("{time} left", time=span_text(live.remaining_s)))
    return parts
