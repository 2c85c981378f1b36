"""The settings of the mail server: a form with a test that uses the values as they are typed."""

from __future__ import annotations

import streamlit as st

from core.admin.mail_settings import MAIL_SETTINGS
from core.workspace.secrets import is_reference
from core.workspace.settings import email_addresses
from ui import changes, data
from ui.access import may
from ui.components.text import plain
from ui.language import t, translated

__all__ = ["show"]

SECURITIES = ("starttls", "tls", "none")
PORTS = {"starttls": 587, "tls": 465, "none": 25}
KEEP_IN = "file:secrets/smtp-password"
_SAVED = "mail_saved"


def show() -> None:
    """Draws the form. Nothing is saved before the user presses the button, and a test saves nothing."""
    st.subheader(t("Mail server"), anchor=False)
    if st.session_state.pop(_SAVED, False):
        st.success(t("Saved. A runner that works now reads it when it is started again."), icon=":material/check:")
    with data.opened() as app:
        settings = app.settings
        fixed = [name for name in MAIL_SETTINGS if settings.origin(name) == "environment"]
        known = {name: str(getattr(settings, name) or "") for name in MAIL_SETTINGS}
        has_password = settings.PSTT_SMTP_PASSWORD is not None
    allowed = may("settings")
    if fixed:
        st.info(
            t("The environment sets {names}, and takes precedence over .env: change it there.", names=", ".join(fixed)),
            icon=":material/info:",
        )
    values = _fields(known, fixed, allowed=allowed)
    password, keep_in = _password(has_password=has_password, allowed=allowed)
    _test(values, password, allowed=allowed)
    if st.button(t("Save the mail server"), key="mail_save", icon=":material/save:", disabled=not allowed):
        changed = {name: value for name, value in values.items() if name not in fixed}
        changes.save_mail_settings(changed, password or None, keep_in)
        st.session_state.pop("mail_password", None)
        st.session_state[_SAVED] = True
        st.rerun()


def _fields(known: dict[str, str], fixed: list[str], *, allowed: bool) -> dict[str, str | None]:
    def text(column: object, name: str, label: str, placeholder: str = "") -> str:
        field = column.text_input  # type: ignore[attr-defined] # a column of Streamlit has no public type
        written: str = field(
            label, known[name], key=f"mail_{name}", placeholder=placeholder, disabled=not allowed or name in fixed
        )
        return written.strip()

    left, middle, right = st.columns(3)
    host = text(left, "PSTT_SMTP_HOST", t("Host"), "mail.example.com")
    security = middle.selectbox(
        t("Encryption"),
        SECURITIES,
        index=SECURITIES.index(known["PSTT_SMTP_SECURITY"]) if known["PSTT_SMTP_SECURITY"] in SECURITIES else 0,
        format_func=lambda name: {"starttls": "STARTTLS", "tls": "TLS", "none": t("not encrypted")}[name],
        key="mail_PSTT_SMTP_SECURITY",
        disabled=not allowed or "PSTT_SMTP_SECURITY" in fixed,
    )
    port = text(right, "PSTT_SMTP_PORT", t("Port"), str(PORTS[security]))
    sender = text(left, "PSTT_MAIL_FROM", t("Sender"), "pstt@example.com")
    user = text(middle, "PSTT_SMTP_USERNAME", t("User"))
    cafile = text(right, "PSTT_SMTP_CAFILE", t("Certificate authorities, a PEM file"))
    to = text(st, "PSTT_MAIL_TO", t("Recipients of alerts, separated by commas"))
    return {
        "PSTT_SMTP_HOST": host or None,
        "PSTT_SMTP_PORT": port or None,
        "PSTT_SMTP_SECURITY": None if security == "starttls" else security,
        "PSTT_SMTP_USERNAME": user or None,
        "PSTT_SMTP_CAFILE": cafile or None,
        "PSTT_MAIL_FROM": sender or None,
        "PSTT_MAIL_TO": to or None,
    }


def _password(*, has_password: bool, allowed: bool) -> tuple[str, str]:
    """Draws the password and where it is stored. Returns both; the password is empty where it stays as it is."""
    left, right = st.columns(2)
    password = left.text_input(
        t("Password"),
        type="password",
        key="mail_password",
        autocomplete="new-password",
        placeholder=t("unchanged") if has_password else "",
        disabled=not allowed,
        help=t("Or a reference to it: env:NAME, file:PATH, keyring:SERVICE/USER, vault:PATH#KEY."),
    )
    keep_in = KEEP_IN
    if password and not is_reference(password):
        keep_in = right.text_input(
            t("It is stored in"), KEEP_IN, key="mail_keep_in", help=t("`keyring:SERVICE/USER` or `file:PATH`")
        ).strip()
    return password, keep_in


def _test(values: dict[str, str | None], password: str, *, allowed: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        to = st.text_input(t("Send a test mail to"), values["PSTT_MAIL_TO"] or "", key="mail_test_to", width=320)
        pressed = st.button(
            t("Test these values"),
            key="mail_test",
            icon=":material/mail:",
            disabled=not allowed or not values["PSTT_SMTP_HOST"],
        )
    if not pressed:
        return
    with st.spinner(t("asking the mail server …")):
        result = changes.send_test_with(values, password or None, email_addresses(to))
    for address in result.delivered:
        st.success(t("taken for {address}", address=plain(address)), icon=":material/check:")
    for address, why in {**result.refused, **result.later}.items():
        st.error(f"{plain(address)}: {plain(translated(why))}")
