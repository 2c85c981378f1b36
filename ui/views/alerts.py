"""Alerts: what is wrong now, who was notified, and the rules."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import streamlit as st

from core.errors import ConfigError
from core.notify.delivery import OutboxMessage
from core.notify.incidents import Incident
from core.notify.rules import ACTIONS, OF_JOBS, OPTIONAL_CHANNEL, default_document, read_alerts
from core.notify.wiring import mail_server_of
from core.workspace.json_file import parse_json_file
from core.workspace.secrets import is_reference
from core.workspace.settings import email_addresses
from core.workspace.stored_file import read_stored
from ui import changes, data
from ui.access import may
from ui.components.problem import guarded, problem
from ui.components.tables import table
from ui.components.text import plain
from ui.data.status import workspace_status
from ui.formats import ago, moment, number
from ui.language import t, translated

__all__ = ["show"]

THRESHOLDS = ("threshold_percent", "threshold_ms")
_SEEN = "alerts_seen"


def show() -> None:
    """Draws the view."""
    st.title(t("Alerts"), anchor=False)
    zone = workspace_status().timezone
    with data.opened() as app:
        open_ones, ended = app.outbox.open_incidents(), [e for e in app.outbox.incidents() if e.state == "ended"]
        waiting, done = app.outbox.waiting(), app.outbox.newest()
    now_tab, rules_tab, mail_tab = st.tabs([t("Now and before"), t("Rules"), t("Messages")])
    with now_tab:
        guarded(_incidents)(open_ones, ended, zone)
    with rules_tab:
        guarded(_rules)()
    with mail_tab:
        guarded(_outbox)(waiting, done, zone)
        guarded(_test_mail)()


def _incidents(open_ones: Sequence[Incident], ended: Sequence[Incident], zone: str) -> None:
    at = data.now()
    if not open_ones:
        st.success(t("No alert is open."), icon=":material/check:")
    for incident in open_ones:
        since = ago(incident.first_true_at, at)
        text = (
            f"**{plain(rule_title(incident.rule))}** · {plain(incident.subject)}  \n{plain(translated(incident.text))}"
        )
        if incident.state == "pending":
            st.info(
                f"{text}  \n{t('true since {time}; reported once it has lasted', time=since)}",
                icon=":material/hourglass_empty:",
            )
        else:
            st.warning(f"{text}  \n{t('began {time}', time=since)}", icon=":material/notifications_active:")
    if ended:
        st.subheader(t("Ended"), anchor=False)
        st.caption(t("Times are those of {zone}.", zone=plain(zone)))
        table(
            [
                {
                    t("Rule"): rule_title(e.rule),
                    t("Subject"): e.subject,
                    t("Began"): moment(e.first_true_at, zone),
                    t("Ended"): moment(e.ended_at, zone),
                    t("What"): translated(e.text),
                }
                for e in ended
            ],
            "alerts_ended",
            most_px=400,
        )


def rule_title(rule: str) -> str:
    """The name of a rule in the language of the session."""
    return {
        "success_rate": t("Success rate too low"),
        "latency_p99": t("Latency p99 too high"),
        "producer_disconnected": t("Cluster does not answer"),
        "error_rate": t("Error rate too high"),
        "runner_memory": t("Memory of the runner"),
        "job_late": t("No success in time"),
        "spool_damaged": t("Damaged segment of the spool"),
    }.get(rule, rule)


def _rules() -> None:
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
        if not _merge(document, given):
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


def _read_again() -> None:
    for name in [name for name in st.session_state if str(name).startswith(("rule:", "channel:"))]:
        del st.session_state[name]
    st.session_state.pop(_SEEN, None)


def _merge(document: dict[str, Any], given: Mapping[str, Any]) -> bool:
    """Applies the file to the defaults. Returns whether the file is valid; shows its problems."""
    alerts, problems = read_alerts(data.workspace().alerts_file)
    for error in problems:
        problem(error)
    if alerts is None:
        return False
    document["channels"] = dict(given.get("channels", {}))
    for name, rule in given.get("rules", {}).items():
        document["rules"][name].update(rule)
    return True


def _rule(name: str, rule: Mapping[str, Any], channels: Mapping[str, str]) -> dict[str, Any]:
    allowed = may("alerts")
    made = dict(rule)
    with st.container(border=True):
        head, number_, lasts = st.columns([3, 2, 2], vertical_alignment="bottom")
        with head:
            made["enabled"] = st.toggle(
                f"**{rule_title(name)}**", value=rule["enabled"], key=f"rule:{name}:enabled", disabled=not allowed
            )
        for threshold in THRESHOLDS:
            if threshold in rule:
                with number_:
                    unit = "%" if threshold == "threshold_percent" else "ms"
                    made[threshold] = st.number_input(
                        t("Threshold, {unit}", unit=unit),
                        value=float(rule[threshold]),
                        key=f"rule:{name}:threshold",
                        disabled=not allowed,
                    )
        if name not in ("job_late", "spool_damaged"):
            with lasts:
                minutes = st.number_input(
                    t("Lasts for, minutes"),
                    value=float(rule["for_s"]) / 60,
                    min_value=0.0,
                    key=f"rule:{name}:for",
                    disabled=not allowed,
                )
                made["for_s"] = round(minutes * 60, 3)
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
            text = st.text_input(
                t("Recipients, instead of PSTT_MAIL_TO"),
                value=", ".join(rule["recipients"]),
                key=f"rule:{name}:recipients",
                disabled=not allowed,
            )
            made["recipients"] = list(email_addresses(text))
    return made


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


def _outbox(waiting: Sequence[OutboxMessage], done: Sequence[OutboxMessage], zone: str) -> None:
    st.caption(t("Times are those of {zone}.", zone=plain(zone)))
    st.markdown(f"**{t('Waiting: {count}', count=number(len(waiting)))}**")
    if waiting:
        table([_entry(entry, zone, entry.next_try_at) for entry in waiting], "outbox_waiting", most_px=300)
    st.markdown(f"**{t('Sent or given up, the newest')}**")
    if done:
        table([_entry(entry, zone, entry.sent_at) for entry in done], "outbox_done", most_px=400)
    else:
        st.caption(t("none yet"))


def _entry(entry: OutboxMessage, zone: str, at: datetime | None) -> dict[str, Any]:
    states = {"waiting": f"… {t('waits')}", "sent": f"✔ {t('sent')}", "given_up": f"✘ {t('given up')}"}
    return {
        t("State"): states[entry.state],
        t("Subject"): translated(entry.subject),
        t("To"): ", ".join(entry.recipients) or entry.channel,
        t("Made"): moment(entry.created_at, zone),
        t("Sent, or next try"): moment(at, zone),
        t("Tries"): entry.tries,
        t("Last error"): translated(entry.last_error or ""),
    }


def _test_mail() -> None:
    st.subheader(t("Test mail"), anchor=False)
    with data.opened() as app:
        server = mail_server_of(app)
        usual = app.settings.PSTT_MAIL_TO or ""
    if server is None:
        st.info(t("No mail server is set up: PSTT_SMTP_HOST and PSTT_MAIL_FROM."), icon=":material/info:")
        return
    to = st.text_input(t("Recipients"), value=usual, key="test_mail_to")
    if st.button(t("Send a test mail"), key="test_mail", icon=":material/mail:", disabled=not may("test mail")):
        result = changes.test_mail(email_addresses(to))
        for address in result.delivered:
            st.success(t("taken for {address}", address=plain(address)), icon=":material/check:")
        for address, why in {**result.refused, **result.later}.items():
            st.error(f"{plain(address)}: {plain(translated(why))}")
