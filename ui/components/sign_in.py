"""What a user who is not signed in sees: the ways to sign in."""

from __future__ import annotations

import streamlit as st

from ui.http_security import is_local_name, oidc_is_set_up
from ui.language import t

__all__ = ["show"]

FORM = "/api/signin"


def show() -> None:
    """Draws the ways to sign in, and nothing else."""
    st.header(t("Sign in"))
    if not is_local_name(st.context.headers.get("Host", "localhost")) and not oidc_is_set_up():
        st.caption(t("without users the page is shown at its own machine only, as 127.0.0.1 or localhost"))
    if not oidc_is_set_up():
        _link()
        return
    if st.user.is_logged_in:
        st.warning(t("your account of the company has no role here; an admin can add it"), icon=":material/block:")
        st.button(t("Sign out"), on_click=st.logout)
    else:
        st.button(t("Sign in with the company's account"), on_click=st.login, icon=":material/login:")
    _link()


def _link() -> None:
    st.markdown(f"[:material/login: {t('Sign in with name and password')}]({FORM})")
