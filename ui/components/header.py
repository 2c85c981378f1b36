"""The header above every view: workspace, clusters, runner, open alerts, user, language."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import streamlit as st

from core.admin.start_runner import start_commands
from core.workspace.paths import Workspace
from ui import data, drafts
from ui.access import CurrentUser, current_user, role_word
from ui.components import tour
from ui.components.problem import fragment
from ui.components.text import plain
from ui.components.viewport import show_probe
from ui.data.status import ClusterStatus, WorkspaceStatus, workspace_status
from ui.formats import ago, clock, moment, span
from ui.http_security import oidc_is_set_up
from ui.language import LANGUAGES, choose, current, t, translated
from ui.workspaces import workspaces

__all__ = ["show"]

START = "python -m core runner"
LOGO = Path(__file__).parent.parent / "images" / "logo.svg"
STYLE = """<style>
.st-key-frame-narrow { display: none }
.st-key-viewport-probe { position: absolute; height: 0; overflow: hidden }
:is(button, a, summary, [role=tab], [tabindex]):focus-visible, label:has(> span input:focus-visible) {
  outline: 2px solid currentColor !important; outline-offset: 2px !important;
}
@media (min-width: 1100px) { .stMainBlockContainer { padding-left: 2.5rem; padding-right: 2.5rem } }
@media (max-width: 640px) {
  .st-key-frame-wide { display: none }
  .st-key-frame-narrow { display: flex }
}
</style>"""
"""Streamlit does not know how wide the window is: both forms are drawn, and the browser hides one."""


def show() -> None:
    """Draws the frame: one line; on a phone the states are behind a tap."""
    st.logo(str(LOGO), size="large")
    st.html(STYLE)
    with st.container(key="viewport-probe"):
        show_probe()
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="frame"):
        _workspace_switch()
        _state()
        _user_menu()


def _user_menu() -> None:
    who = current_user()
    role = t("local admin") if who.is_local else role_word(who.role)
    with st.popover(f":material/person: {plain(who.name)} · {role}", type="tertiary", key="user-menu"):
        _language_switch()
        tour.offer()
        _sign_out(who)


def _sign_out(who: CurrentUser) -> None:
    if who.is_local:
        return
    if oidc_is_set_up() and st.user.is_logged_in:
        st.button(t("Sign out"), on_click=st.logout, type="tertiary")
    else:
        st.markdown(f":small[[{t('Sign out')}](/api/signout)]", width="content")


def _workspace_switch() -> None:
    """Draws the choice between workspaces, if there are several."""
    names = list(workspaces())
    if len(names) == 1:
        return

    def switch() -> None:
        if chosen := st.session_state.get("workspace_switch"):
            drafts.keep_typed()  # the forms of this workspace are forgotten
            st.query_params.clear()  # what it asked for is of the other workspace
            data.choose_workspace(chosen)

    st.segmented_control(
        t("Workspace"),
        names,
        default=data.chosen_name(),
        format_func=plain,
        key="workspace_switch",
        on_change=switch,
        label_visibility="collapsed",
        width="content",
    )


def _language_switch() -> None:
    def switch() -> None:
        if chosen := st.session_state.get("language_switch"):
            choose(chosen)

    st.segmented_control(
        t("Language"),
        LANGUAGES,
        default=current(),
        key="language_switch",
        on_change=switch,
        label_visibility="collapsed",
        width="content",
    )


@fragment(run_every=3)
def _state() -> None:
    status = workspace_status()
    at = data.now()
    where = plain(status.folder.name) + (f" · {plain(status.environment)}" if status.environment else "")
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="frame-wide"):
        if len(workspaces()) == 1:
            st.markdown(f"**{where}**", width="content")
        _states(status, at)
    with (
        st.container(key="frame-narrow", width="content"),
        st.popover(f"{_worst(status, at)} {_short(where)}", type="tertiary"),
    ):
        _states(status, at)
    if status.problem:
        st.warning(plain(translated(status.problem)), icon=":material/warning:")
    if status.damaged:
        text = t(
            "damaged segments of the spool, set aside: {count}; figures and find lack their sends",
            count=status.damaged,
        )
        st.caption(f":material/warning: {text} · `python -m core doctor`")


def _states(status: WorkspaceStatus, at: datetime) -> None:
    if status.is_demo:
        explained = t("The parcels of this demo are made up, and all days before the newest are simulated.")
        st.markdown(f":small[:orange-badge[{t('Demo data')}]]", width="content", help=explained)
    for cluster in status.clusters:
        st.markdown(
            f":small[{_cluster(cluster, status.timezone, at)}]",
            width="content",
            help=plain(translated(cluster.error)) or None,
        )
    st.markdown(f":small[{_runner(status, at)}]", width="content", help=_runner_help(status, at))
    if status.alerts:
        st.markdown(
            f":small[🔔 {t('open alerts: {count}', count=len(status.alerts))}]",
            width="content",
            help=plain("; ".join(map(translated, status.alerts))),
        )


def _short(where: str) -> str:
    """Returns the words beside the sign: the choice between workspaces names the one that is shown."""
    return where if len(workspaces()) == 1 else t("State")


def _worst(status: WorkspaceStatus, at: datetime) -> str:
    """Returns the sign of what needs a look most: a phone shows it in place of the words."""
    if not status.runner_is_alive(at) or any(cluster.connected is False for cluster in status.clusters):
        return "🔴"
    return "🔔" if status.alerts else "🟢"


def _cluster(cluster: ClusterStatus, timezone: str, at: datetime) -> str:
    name = plain(cluster.name)
    if cluster.is_demo:
        return f"⚪ {name}: {t('demo, lives inside each run')}"
    if cluster.connected is None:
        seen = (
            t("not looked at since {time}", time=moment(cluster.checked_at, timezone))
            if cluster.checked_at
            else t("not looked at yet")
        )
        return f"⚪ {name}: {seen}"
    since = cluster.since or at
    if not cluster.connected:
        return f"🔴 {name}: {t('Disconnected for {time}', time=span(at - since))}"
    if (at - since).total_seconds() < 86_400:
        return f"🟢 {name}: {t('Connected since {time}', time=clock(since, timezone))}"
    return f"🟢 {name}: {t('Connected since {day}', day=moment(since, timezone, year=False))}"


def _runner(status: WorkspaceStatus, at: datetime) -> str:
    beat = status.runner
    if beat is not None and status.runner_is_alive(at):
        return f"🟢 {t('Runner: heartbeat {time}', time=ago(beat.beat_at, at))}"
    return f"🔴 {t('Runner stopped: start it with')} `{START}`"


def _runner_help(status: WorkspaceStatus, at: datetime) -> str | None:
    beat = status.runner
    if beat is None or not status.runner_is_alive(at):
        words = (
            t("its last heartbeat came at {time}", time=moment(beat.beat_at, status.timezone, seconds=True))
            if beat
            else t("no runner has worked here yet; without one no calendar is followed and no request is answered")
        )
        enter, command = start_commands(Workspace(status.folder))
        return f"{words}  \n`{enter}`  \n`{command}`"
    return plain("; ".join(translated(p.get("text", "")) for p in beat.problems)) or None
