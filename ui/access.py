"""The user of this session, and what the role allows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from core.errors import AccessRefused, SignInNeeded
from core.records.accounts import Accounts
from core.records.rights import RIGHT_OF, RIGHT_TO_SEE, RIGHTS, Action, Caller, Role, View, local_caller
from core.workspace.paths import Workspace
from ui import data
from ui.http_security import COOKIE, is_local_name, oidc_is_set_up
from ui.language import t
from ui.workspaces import home_workspace

__all__ = ["CurrentUser", "Role", "current_user", "is_known", "may", "role_word", "seeing"]


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """The signed-in user, or the local one where no sign-in is required."""

    name: str
    role: Role
    is_local: bool = False
    """No sign-in is required: there are no users, and the page listens on loopback only."""


def current_user() -> CurrentUser:
    """The user of this session. While there are no users, everyone at this machine is an admin.

    Raises:
        SignInNeeded: The session is not signed in, or no longer.
    """
    caller = _known()
    if caller is None or caller.role is None:
        raise SignInNeeded(t("you are not signed in, or not any more"), remedy=t("load the page again to sign in"))
    return CurrentUser(caller.name, caller.role, is_local=caller.is_local)


def is_known() -> bool:
    """Whether this session is signed in, or no sign-in is required."""
    return _known() is not None


def _known() -> Caller | None:
    caller = _by_cookie(home_workspace().root, st.context.cookies.get(COOKIE, ""))
    if caller is not None and caller.is_local:
        # Any other name is that of a proxy, or of a web site that makes the browser send requests here (DNS rebinding).
        return caller if is_local_name(st.context.headers.get("Host", "localhost")) else None
    if caller is None and oidc_is_set_up() and st.user.is_logged_in and st.user.get("email_verified") is not False:
        return _by_email(home_workspace().root, str(st.user.get("email") or ""))
    return caller


@st.cache_data(ttl=data.STATUS_TTL_S, show_spinner=False, max_entries=256)
def _by_cookie(folder: Path, cookie: str) -> Caller | None:
    with Accounts(Workspace(folder).ledger_file) as accounts:
        if not accounts.has_users() and not oidc_is_set_up():
            return local_caller()
        return accounts.whoami(cookie, data.now()) if cookie else None


@st.cache_data(ttl=data.STATUS_TTL_S, show_spinner=False, max_entries=256)
def _by_email(folder: Path, email: str) -> Caller | None:
    with Accounts(Workspace(folder).ledger_file) as accounts:
        return accounts.by_email(email)


def role_word(role: Role) -> str:
    """The role in the language of the session."""
    return {"viewer": t("viewer"), "operator": t("operator"), "admin": t("admin")}[role]


def seeing(what: View) -> Caller:
    """Returns the visitor as a caller of core who may see that.

    Raises:
        AccessRefused: The visitor may not; in the visitor's language.
    """
    visitor = current_user()
    if not may(what):
        only = t("only an admin may do this") if RIGHT_TO_SEE[what] == "admin" else t("only an operator may do this")
        raise AccessRefused(only, remedy=t("ask an admin for the role"))
    return Caller(visitor.name, RIGHTS[visitor.role], visitor.role, is_local=visitor.is_local)


def may(what: Action | View) -> bool:
    """Returns whether the user has the right that the action needs, or may see that part of the page.

    The tables are those of `core.records.rights`, so a button is active exactly if core allows its action.
    """
    needed = {**RIGHT_OF, **RIGHT_TO_SEE}[what]
    return needed in RIGHTS[current_user().role]
