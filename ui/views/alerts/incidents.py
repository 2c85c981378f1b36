"""The open alerts with what users can do about them, and those that have ended."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.notify.incidents import Incident
from core.notify.rules import OF_JOBS
from core.notify.silences import Silence, silence_of
from ui import changes, data
from ui.access import may
from ui.components.links import link
from ui.components.problem import guarded
from ui.components.tables import table
from ui.components.text import plain
from ui.data.jobs import all_jobs
from ui.formats import ago, moment, number
from ui.language import t, tn, translated
from ui.views.alerts.silences import OPEN_SILENCE
from ui.views.alerts.words import rule_title, severity_word, subject_name

__all__ = ["show_incidents"]

MOST_CARDS = 30
"""Open alerts with buttons; the further ones are rows of a table."""
_ACKNOWLEDGING = "acknowledging"
"""Session key: the number of the alert whose dialog is open."""


def show_incidents(open_ones: Sequence[Incident], ended: Sequence[Incident], zone: str) -> None:
    """Draws the open alerts, the newest first, and a table of the ended ones."""
    silences = changes.silences()
    if not open_ones:
        st.success(t("No alert is open."), icon=":material/check:")
    newest = sorted(open_ones, key=_rank)
    for incident in newest[:MOST_CARDS]:
        _card(incident, silence_of(silences, incident), zone)
    if len(newest) > MOST_CARDS:
        more = len(newest) - MOST_CARDS
        st.caption(tn(more, "1 more is open:", "{count} more are open:", count=number(more)))
        table([_row(incident, zone) for incident in newest[MOST_CARDS:]], "alerts_more", most_px=300)
    _dialog(open_ones)
    if ended:
        st.subheader(t("Ended"), anchor=False)
        st.caption(t("Times are those of {zone}.", zone=plain(zone)))
        rows = [_row(incident, zone) for incident in ended]
        if not any(row[t("Acknowledged by")] for row in rows):
            rows = [{name: cell for name, cell in row.items() if name != t("Acknowledged by")} for row in rows]
        table(rows, "alerts_ended", most_px=400)


def _rank(incident: Incident) -> tuple[bool, bool, bool, int]:
    """Open before pending, then those that nobody knows of, the critical ones, the newest."""
    is_known = incident.acknowledged_at is not None
    return incident.state != "open", is_known, incident.severity != "critical", -incident.incident_id


def _row(incident: Incident, zone: str) -> dict[str, str]:
    known = f"{incident.acknowledged_by}: {incident.note}".removesuffix(": ") if incident.acknowledged_at else ""
    return {
        t("Rule"): rule_title(incident.rule),
        t("Subject"): subject_name(incident.rule, incident.subject),
        t("Severity"): severity_word(incident.severity),
        t("Began"): moment(incident.first_true_at, zone),
        t("Ended"): moment(incident.ended_at, zone),
        t("Acknowledged by"): known,
        t("What"): translated(incident.text),
    }


def _card(incident: Incident, silence: Silence | None, zone: str) -> None:
    is_open = incident.state == "open"
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center"):
            if incident.severity == "critical":
                st.badge(severity_word("critical"), icon=":material/error:", color="red")
            else:
                st.badge(severity_word("warning"), icon=":material/warning:", color="orange")
            st.markdown(
                f"**{plain(rule_title(incident.rule))}** · {plain(subject_name(incident.rule, incident.subject))}",
                width="content",
            )
            if incident.acknowledged_at is not None:
                st.badge(
                    t("acknowledged by {who}", who=plain(incident.acknowledged_by)),
                    icon=":material/check:",
                    color="green",
                )
            if silence is not None:
                st.badge(t("silenced"), icon=":material/notifications_off:", color="gray")
        st.markdown(plain(translated(incident.text)))
        st.caption(_state(incident, silence, zone))
        with st.container(horizontal=True, vertical_alignment="center"):
            if incident.run_id:
                link("runs", t("The run"), icon=":material/play_circle:", run=incident.run_id)
            if incident.rule in OF_JOBS and any(job.slug == incident.subject for job in all_jobs()[0]):
                link("jobs", t("The job"), icon=":material/list_alt:", job=incident.subject)
            if is_open:
                _buttons(incident)


def _state(incident: Incident, silence: Silence | None, zone: str) -> str:
    since = ago(incident.first_true_at, data.now())
    if incident.state == "pending":
        lines = [t("true since {time}; reported once it has lasted", time=since)]
    else:
        lines = [t("began {time}", time=since)]
    if incident.acknowledged_at is not None:
        known = t(
            "acknowledged {time} by {who}",
            time=moment(incident.acknowledged_at, zone),
            who=plain(incident.acknowledged_by),
        )
        lines.append(f"{known}: {plain(incident.note)}" if incident.note else known)
    if silence is not None:
        lines.append(t("silenced until {time} by {who}", time=moment(silence.until, zone), who=plain(silence.made_by)))
    return "  \n".join(lines)


def _buttons(incident: Incident) -> None:
    number_ = incident.incident_id
    if st.button(
        t("Acknowledge"), key=f"acknowledge_{number_}", icon=":material/check:", disabled=not may("acknowledge")
    ):
        st.session_state[_ACKNOWLEDGING] = number_
    if st.button(
        t("Silence"), key=f"silence_{number_}", icon=":material/notifications_off:", disabled=not may("silence")
    ):
        st.session_state[OPEN_SILENCE] = (incident.rule, incident.subject)


def _dialog(open_ones: Sequence[Incident]) -> None:
    number_ = st.session_state.get(_ACKNOWLEDGING)
    incident = next((one for one in open_ones if one.incident_id == number_), None)
    if incident is None:
        return

    @st.dialog(t("Acknowledge this alert?"), on_dismiss=_close)
    @guarded
    def dialog() -> None:
        st.markdown(f"**{plain(rule_title(incident.rule))}** · {plain(subject_name(incident.rule, incident.subject))}")
        st.markdown(t("It stays in the list with your name. A job that still fails is not mailed again."))
        note = st.text_area(t("Note for the others"), key="acknowledge_note", max_chars=1_000)
        if st.button(t("Acknowledge"), key="confirm_acknowledge", icon=":material/check:"):
            changes.acknowledge(incident.incident_id, note)
            _close()
            st.rerun()

    dialog()


def _close() -> None:
    st.session_state.pop(_ACKNOWLEDGING, None)
