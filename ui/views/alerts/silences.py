"""The silences that hold, and the dialog that makes one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import get_args
from zoneinfo import ZoneInfo

import streamlit as st

from core.notify.rules import RuleName
from core.notify.silences import Silence
from ui import changes, data
from ui.access import may
from ui.components.problem import guarded
from ui.components.text import plain
from ui.data.filters import job_name
from ui.data.jobs import all_jobs
from ui.data.status import workspace_status
from ui.formats import moment, until
from ui.language import t
from ui.views.alerts.words import rule_title

__all__ = ["OPEN_SILENCE", "show_silences"]

OPEN_SILENCE = "silencing"
"""Session key: rule and subject of the alert whose dialog is open; both empty: of none."""
_LENGTHS = {"30m": timedelta(minutes=30), "2h": timedelta(hours=2), "8h": timedelta(hours=8), "1d": timedelta(days=1)}
_OTHER = "other"


def show_silences(zone: str) -> None:
    """Draws the silences that hold, each with a button that ends it, and the button that makes one."""
    st.subheader(t("Silences"), anchor=False)
    held = changes.silences()
    if not held:
        st.caption(t("None holds: every alert is reported."))
    for silence in held:
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(_words(silence, zone), width="stretch")
            if st.button(t("End it"), key=f"end_silence_{silence.silence_id}", disabled=not may("end silence")):
                changes.end_silence(silence.silence_id)
                st.rerun()
    if st.button(
        t("Silence alerts"), key="new_silence", icon=":material/notifications_off:", disabled=not may("silence")
    ):
        st.session_state[OPEN_SILENCE] = ("", "")
    _dialog()


def _words(silence: Silence, zone: str) -> str:
    rule = rule_title(silence.rule) if silence.rule else t("every rule")
    subject = plain(job_name(silence.subject)) if silence.subject else t("every subject")
    end = f"{moment(silence.until, zone)} ({until(silence.until, data.now())})"
    line = f"**{plain(rule)}** · {subject}  \n{t('until {time}, by {who}', time=end, who=plain(silence.made_by))}"
    return f"{line}: {plain(silence.note)}" if silence.note else line


def _dialog() -> None:
    asked = st.session_state.get(OPEN_SILENCE)
    if asked is None:
        return

    @st.dialog(t("Silence alerts"), on_dismiss=_close)
    @guarded
    def dialog() -> None:
        st.markdown(t("Alerts go on and are listed; only their messages are kept back. What lasts longer is reported."))
        rules = ["", *get_args(RuleName)]
        rule = st.selectbox(
            t("Rule"),
            rules,
            index=rules.index(asked[0]) if asked[0] in rules else 0,
            format_func=lambda name: rule_title(name) if name else t("every rule"),
            key="silence_rule",
        )
        subjects = ["", *dict.fromkeys([asked[1], *(job.slug for job in all_jobs()[0])])]
        subjects = list(dict.fromkeys([*subjects, *(cluster.name for cluster in workspace_status().clusters)]))
        subject = st.selectbox(
            t("Job or cluster"),
            subjects,
            index=subjects.index(asked[1]),
            format_func=lambda name: job_name(name) if name else t("every one"),
            key="silence_subject",
        )
        end = _end()
        note = st.text_input(t("Reason"), key="silence_note", max_chars=1_000)
        if st.button(t("Silence"), key="confirm_silence", icon=":material/notifications_off:"):
            changes.silence(rule, subject, end, note)
            _close()
            st.rerun()

    dialog()


def _end() -> datetime:
    words = {
        "30m": t("30 minutes"),
        "2h": t("2 hours"),
        "8h": t("8 hours"),
        "1d": t("1 day"),
        _OTHER: t("until a day and time"),
    }
    chosen = st.radio(t("For"), list(words), format_func=lambda key: words[key], key="silence_for", horizontal=True)
    if chosen != _OTHER:
        return data.now() + _LENGTHS[chosen]
    zone = ZoneInfo(workspace_status().timezone)
    tomorrow = data.now().astimezone(zone) + timedelta(days=1)
    day, time = st.columns(2)
    on = day.date_input(t("Until"), tomorrow.date(), format="DD/MM/YYYY", key="silence_day")
    at = time.time_input(t("At"), tomorrow.time().replace(minute=0, second=0, microsecond=0), key="silence_time")
    return datetime.combine(on, at, zone)


def _close() -> None:
    st.session_state.pop(OPEN_SILENCE, None)
