"""The rules as a form: their numbers, severity, actions, recipients and channels, and what they would have fired."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import streamlit as st

from core.errors import ConfigError
from core.notify.rules import (
    ACTIONS,
    OF_JOBS,
    OPTIONAL_CHANNEL,
    Severity,
    default_document,
    merged_document,
    read_alerts,
)
from core.workspace.json_file import parse_json_file
from core.workspace.secrets import is_reference
from core.workspace.settings import email_addresses
from core.workspace.stored_file import read_stored
from ui import changes, data
from ui.access import may
from ui.components.problem import guarded, problem
from ui.components.text import plain
from ui.language import t
from ui.views.alerts.simulation import show_simulation
from ui.views.alerts.words import rule_title, severity_word

__all__ = ["show_rules"]

THRESHOLDS = ("threshold_percent", "threshold_ms", "threshold_failures")
_SEEN = "alerts_seen"


def show_rules() -> None:
    """Draws the form, and below it what the rules would have fired with the numbers that it shows."""
    stored = read_stored(data.workspace().alerts_file)
    if _SEEN not in st.session_state:
        st.session_state[_SEEN] = stored.sha256
    document: dict[str, Any] = json.loads(default_document())
    if stored.sha256:
        try:
            given = parse_json_file(stored.path, stored.text).document
        except ConfigError as error:
            problem(error)
            return
        if _is_valid():
            document = merged_document(given, {})
        else:
            st.error(t("alerts.json is not valid; python -m core check says where. Fix the file first."))
            return
    else:
        st.caption(t("These are the defaults; alerts.json is made by the first change."))
    channels = dict(document["channels"])
    changed = {name: _rule(name, rule, channels) for name, rule in document["rules"].items()}
    channels = _channels(channels)
    if st.button(t("Save the rules"), key="save_rules", icon=":material/save:", disabled=not may("alerts")):
        changes.save_alerts({**document, "rules": changed, "channels": channels}, st.session_state[_SEEN])
        st.session_state.pop(_SEEN)
        st.toast(t("Saved"), icon=":material/check:")
        st.rerun()
    if st.session_state[_SEEN] != stored.sha256:
        st.warning(t("alerts.json was changed by another user since this form was opened."), icon=":material/warning:")
        st.button(t("Read it again"), key="rules_again", on_click=_read_again)
    guarded(show_simulation)(changed)


def _read_again() -> None:
    for name in [name for name in st.session_state if str(name).startswith(("rule:", "channel:"))]:
        del st.session_state[name]
    st.session_state.pop(_SEEN, None)


def _is_valid() -> bool:
    """Returns whether the file is valid; shows its problems."""
    alerts, problems = read_alerts(data.workspace().alerts_file)
    for error in problems:
        problem(error)
    return alerts is not None


def _rule(name: str, rule: Mapping[str, Any], channels: Mapping[str, str]) -> dict[str, Any]:
    allowed = may("alerts")
    made = dict(rule)
    with st.container(border=True):
        head, severity, number_, lasts = st.columns([3, 2, 2, 2], vertical_alignment="bottom")
        with head:
            made["enabled"] = st.toggle(
                f"**{rule_title(name)}**", value=rule["enabled"], key=f"rule:{name}:enabled", disabled=not allowed
            )
        with severity:
            made["severity"] = st.selectbox(
                t("Severity"),
                get_args(Severity),
                index=get_args(Severity).index(rule["severity"]),
                format_func=severity_word,
                key=f"rule:{name}:severity",
                disabled=not allowed,
            )
        with number_:
            made |= _threshold(name, rule, allowed=allowed)
        with lasts:
            made |= _times(name, rule, allowed=allowed)
        actions, people = st.columns(2)
        with actions:
            options = [a for a in ACTIONS if a != "disable_job" or name in OF_JOBS]
            options += [c for c in (OPTIONAL_CHANNEL, *channels) if c not in options]
            options += [a for a in rule["actions"] if a not in options]
            made["actions"] = st.multiselect(
                t("Then"),
                options,
                default=rule["actions"],
                format_func=_action,
                key=f"rule:{name}:actions",
                disabled=not allowed,
            )
        with people:
            label = (
                t("Recipients, beside those of each job")
                if name == "job_failed"
                else t("Recipients, instead of PSTT_MAIL_TO")
            )
            text = st.text_input(
                label, value=", ".join(rule["recipients"]), key=f"rule:{name}:recipients", disabled=not allowed
            )
            made["recipients"] = list(email_addresses(text))
    return made


def _threshold(name: str, rule: Mapping[str, Any], *, allowed: bool) -> dict[str, Any]:
    """Draws the number of a condition. Returns its key and value; nothing where the condition has none."""
    key = next((key for key in THRESHOLDS if key in rule), None)
    if key is None:
        return {}
    if key == "threshold_failures":
        failures = st.number_input(
            t("Failed runs in a row"),
            min_value=1,
            max_value=1_000,
            value=int(rule[key]),
            key=f"rule:{name}:threshold",
            disabled=not allowed,
        )
        return {key: int(failures)}
    unit = "%" if key == "threshold_percent" else "ms"
    value = st.number_input(
        t("Threshold, {unit}", unit=unit), value=float(rule[key]), key=f"rule:{name}:threshold", disabled=not allowed
    )
    return {key: value}


def _times(name: str, rule: Mapping[str, Any], *, allowed: bool) -> dict[str, Any]:
    """Draws how long a condition has to hold, or when a failure is reported again. Returns the key and the seconds."""
    if name in ("job_late", "spool_damaged"):
        return {}
    if "repeat_s" in rule:
        hours = st.number_input(
            t("Again after, hours"),
            value=float(rule["repeat_s"]) / 3_600,
            min_value=0.0,
            max_value=168.0,
            key=f"rule:{name}:repeat",
            help=t("A job that still fails is reported again after this time; 0: at each failure."),
            disabled=not allowed,
        )
        return {"repeat_s": round(hours * 3_600, 3)}
    minutes = st.number_input(
        t("Lasts for, minutes"),
        value=float(rule["for_s"]) / 60,
        min_value=0.0,
        key=f"rule:{name}:for",
        disabled=not allowed,
    )
    return {"for_s": round(minutes * 60, 3)}


def _action(action: str) -> str:
    return {
        "mail": t("e-mail"),
        "sms": "SMS",
        "log_error": t("log as error"),
        "log_warning": t("log as warning"),
        "disable_job": t("disable the job"),
        "collect_garbage": t("free memory"),
    }.get(action, action)


def _channels(channels: dict[str, str]) -> dict[str, str]:
    """The other alert channels: name → reference of its address, which often contains a token and is never shown."""
    st.markdown(f"**{t('Channels')}**")
    kept = {}
    for name, reference in channels.items():
        shown = reference if is_reference(reference) else t("is in the file itself")
        if st.checkbox(f"{plain(name)}: {plain(shown)}", value=True, key=f"channel:{name}", disabled=not may("alerts")):
            kept[name] = reference
    left, right = st.columns(2)
    new = left.text_input(
        t("Another channel"), placeholder="teams", key="channel:new", disabled=not may("alerts")
    ).strip()
    where = right.text_input(
        t("Its address is in"), placeholder="env:TEAMS_URL", key="channel:reference", disabled=not may("alerts")
    ).strip()
    if new and where:
        if not is_reference(where):
            st.error(
                t(
                    "write env:NAME, file:PATH, keyring:SERVICE/USER, vault:PATH#KEY or exec:COMMAND: an address holds a token"
                )
            )
        else:
            kept[new] = where
    return kept
