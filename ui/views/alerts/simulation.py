"""What the rules of the form would have fired, evaluated over the history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.notify.simulation import NO_HISTORY, Simulation
from ui import changes
from ui.components.tables import table
from ui.components.text import plain
from ui.data.status import workspace_status
from ui.formats import moment, number
from ui.language import t, tn, translated
from ui.views.alerts.words import rule_title, severity_word, subject_name

__all__ = ["show_simulation"]

_FOUND = "simulation"
DAYS = (1, 7, 30, 90)


def show_simulation(rules: Mapping[str, Mapping[str, Any]]) -> None:
    """Draws the button and, once it was pressed, what each rule would have fired.

    Args:
        rules: Rule → key → value, as the form has them; they need not be saved.
    """
    st.subheader(t("What would have fired"), anchor=False)
    st.caption(t("With the numbers above, also those that are not saved. Nothing is sent or changed."))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        days = st.selectbox(
            t("In the last"),
            DAYS,
            index=1,
            format_func=lambda count: tn(count, "1 day", "{count} days", count=count),
            key="simulate_days",
            width=160,
        )
        if st.button(t("Try it out"), key="simulate", icon=":material/history:"):
            with st.spinner(t("reading the history …")):
                st.session_state[_FOUND] = changes.simulated_alerts(days, rules)
    found: Simulation | None = st.session_state.get(_FOUND)
    if found is not None:
        _result(found)


def _result(found: Simulation) -> None:
    zone = workspace_status().timezone
    st.markdown(
        tn(
            len(found.fired),
            "**1** alert from {since} to {until}, {zone}",
            "**{count}** alerts from {since} to {until}, {zone}",
            count=number(len(found.fired)),
            since=moment(found.since, zone),
            until=moment(found.until, zone),
            zone=plain(zone),
        )
    )
    table(
        [
            {
                t("Rule"): rule_title(rule.name),
                t("Condition"): rule.title,
                t("Severity"): severity_word(rule.severity),
                t("Alerts"): len(found.of_rule(rule.name)),
                t("Note"): _note(rule.name, enabled=rule.enabled),
            }
            for rule in found.rules.values()
        ],
        "simulated_rules",
    )
    if found.fired:
        table(
            [
                {
                    t("Rule"): rule_title(one.rule),
                    t("Subject"): subject_name(one.rule, one.subject),
                    t("Began"): moment(one.opened_at, zone),
                    t("Ended"): moment(one.ended_at, zone) if one.ended_at else t("still goes on"),
                    t("What"): translated(one.text),
                }
                for one in reversed(found.fired)
            ],
            "simulated_alerts",
            most_px=400,
        )


def _note(rule: str, *, enabled: bool) -> str:
    if not enabled:
        return t("disabled")
    return t("its history is not recorded") if rule in NO_HISTORY else ""
