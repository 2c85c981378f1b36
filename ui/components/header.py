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
from ui.components.links import link
from ui.components.problem import fragment
from ui.components.text import plain
from ui.components.viewport import show_probe
from ui.data.status import ClusterStatus, WorkspaceStatus, workspace_status
from ui.formats import ago, clock, moment, span
from ui.http_security import oidc_is_set_up
from ui.language import LANGUAGES, choose, current, language_cookie, t, translated
from ui.workspaces import workspaces

__all__ = ["show"]

START = "python -m core runner"
NAMED_CLUSTERS = 2
"""So many clusters are named in the one line; more are counted."""
LOGO = Path(__file__).parent.parent / "images" / "logo.svg"
STYLE = """<style>
div:has(> :is(.st-key-frame-narrow, .st-key-met)) { display: none }
.st-key-frame, .st-key-frame-wide { flex-wrap: nowrap !important }
.st-key-frame div { min-width: 0 }
.st-key-frame > div:has(.st-key-frame-wide) { flex: 1 1 0 }
.st-key-frame > .st-key-user-menu { flex: 0 1 auto; max-width: 60% }
.st-key-frame-wide > * { flex: none }
.st-key-frame-wide > :last-child { flex: 0 1 auto !important }
.st-key-frame .stPopover button { max-width: 100% }
.st-key-frame .stPopover p { overflow: hidden; text-overflow: ellipsis; white-space: nowrap }
.st-key-viewport-probe { position: absolute; height: 0; overflow: hidden }
:is(button, a, summary, [role=tab], [tabindex]):focus-visible, label:has(> span input:focus-visible) {
  outline: 2px solid currentColor !important; outline-offset: 2px !important;
}
@media (min-width: 1100px) { .stMainBlockContainer { padding-left: 2.5rem; padding-right: 2.5rem } }
@media (max-width: 960px) {
  div:has(> .st-key-frame-wide) { display: none }
  div:has(> .st-key-frame-narrow) { display: flex }
}
</style>"""
"""Streamlit does not know how wide the window is: both forms are drawn, and the browser hides one."""


def show() -> None:
    """Draws the frame: one line, however much there is to say; a tap on the states opens the details."""
    st.logo(str(LOGO), size="large")
    st.html(STYLE)
    with st.container(key="viewport-probe"):
        show_probe(language_cookie() | tour.cookie())
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute", key="frame"):
        _workspace_switch()
        _state()
        _user_menu()
    _problems()


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
        if status.is_demo:
            st.markdown(f":small[:orange-badge[{t('Demo data')}]]", width="content")
        with st.popover(f":small[{_summary(status, at)}]", type="tertiary"):
            _states(status, at)
    with (
        st.container(key="frame-narrow", width="content"),
        st.popover(f"{_worst(status, at)} {_short(where)}", type="tertiary"),
    ):
        _states(status, at)


@fragment(run_every=3)
def _problems() -> None:
    status = workspace_status()
    if status.problem:
        st.warning(plain(translated(status.problem)), icon=":material/warning:")
    if status.damaged:
        text = t(
            "damaged segments of the spool, set aside: {count}; figures and find lack their sends",
            count=status.damaged,
        )
        st.caption(f":material/warning: {text} · `python -m core doctor`")


def _summary(status: WorkspaceStatus, at: datetime) -> str:
    """Returns the states in one line; what is red comes first, as a narrow window cuts off the end."""
    clusters = [_cluster(cluster, status.timezone, at) for cluster in status.clusters]
    if len(clusters) > NAMED_CLUSTERS:
        away = [text for text in clusters if text.startswith("🔴")]
        clusters = [*away[:NAMED_CLUSTERS], *_counted(len(away), status)]
    runner = _runner(status, at) if status.runner_is_alive(at) else f"🔴 {t('Runner stopped')}"
    alerts = [f"🔔 {t('open alerts: {count}', count=len(status.alerts))}"] if status.alerts else []
    return " · ".join(sorted([*clusters, runner, *alerts], key=lambda text: not text.startswith("🔴")))


def _counted(away: int, status: WorkspaceStatus) -> list[str]:
    """Returns how many of the clusters that are not named are connected, and how many are away."""
    connected = sum(cluster.connected is True for cluster in status.clusters)
    found = [f"🔴 {t('disconnected: {count}', count=away)}"] if away > NAMED_CLUSTERS else []
    return [*found, f"🟢 {t('clusters connected: {count}', count=connected)}"]


def _states(status: WorkspaceStatus, at: datetime) -> None:
    """Draws each state with what is known of it."""
    if status.is_demo:
        st.caption(t("The parcels of this demo are made up, and all days before the newest are simulated."))
    for cluster in status.clusters:
        st.markdown(f":small[{_cluster(cluster, status.timezone, at)}]")
        if cluster.error:
            st.caption(plain(translated(cluster.error)))
    st.markdown(f":small[{_runner(status, at)}]")
    _runner_details(status, at)
    if status.alerts:
        st.markdown(f":small[🔔 {t('open alerts: {count}', count=len(status.alerts))}]")
        for text in status.alerts:
            st.caption(plain(translated(text)))
        link("alerts", t("To the alerts"), icon=":material/arrow_forward:")


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


def _runner_details(status: WorkspaceStatus, at: datetime) -> None:
    """Draws the problems of a runner that works; of one that does not, since when, and the commands that start it."""
    beat = status.runner
    if beat is not None and status.runner_is_alive(at):
        for problem in beat.problems:
            st.caption(plain(translated(problem.get("text", ""))))
        return
    words = (
        t("its last heartbeat came at {time}", time=moment(beat.beat_at, status.timezone, seconds=True))
        if beat
        else t("no runner has worked here yet; without one no calendar is followed and no request is answered")
    )
    st.caption(words)
    st.code("\n".join(start_commands(Workspace(status.folder))), language="shell", wrap_lines=True)
