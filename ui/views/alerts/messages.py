"""The messages that wait or were sent, and tests of mail and channels."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import streamlit as st

from core.errors import PsttError
from core.notify.delivery import MAIL, OutboxMessage
from core.notify.rules import load_alerts
from core.notify.wiring import mail_server_of
from core.workspace.settings import email_addresses
from ui import changes, data
from ui.access import may
from ui.components.problem import guarded
from ui.components.tables import table
from ui.components.text import plain
from ui.formats import moment, number
from ui.language import t, translated

__all__ = ["show_messages"]


def show_messages(waiting: Sequence[OutboxMessage], done: Sequence[OutboxMessage], zone: str) -> None:
    """Draws the outbox, and the tests below it."""
    st.caption(t("Times are those of {zone}.", zone=plain(zone)))
    st.markdown(f"**{t('Waiting: {count}', count=number(len(waiting)))}**")
    if waiting:
        table([_entry(entry, zone, entry.next_try_at) for entry in waiting], "outbox_waiting", most_px=300)
    st.markdown(f"**{t('Sent or given up, the newest')}**")
    if done:
        table([_entry(entry, zone, entry.sent_at) for entry in done], "outbox_done", most_px=400)
    else:
        st.caption(t("none yet"))
    guarded(_test_mail)()
    guarded(_test_channel)()


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
        result = changes.send_test(MAIL, email_addresses(to))
        for address in result.delivered:
            st.success(t("taken for {address}", address=plain(address)), icon=":material/check:")
        for address, why in {**result.refused, **result.later}.items():
            st.error(f"{plain(address)}: {plain(translated(why))}")


def _test_channel() -> None:
    try:
        channels = load_alerts(data.workspace().alerts_file).channels
    except PsttError:
        return  # the tab of the rules shows what is wrong with the file
    if not channels:
        return
    st.subheader(t("Test of a channel"), anchor=False)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        channel = st.selectbox(t("Channel"), list(channels), key="test_channel_name", width=240)
        pressed = st.button(
            t("Send a test message"), key="test_channel", icon=":material/send:", disabled=not may("test channel")
        )
    if pressed:
        changes.send_test(channel)
        st.success(t("{channel} took the message.", channel=plain(channel)), icon=":material/check:")
