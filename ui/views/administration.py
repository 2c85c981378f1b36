"""Administration: settings, users, tokens, audit, log, metrics, versions."""

from __future__ import annotations

import json
import sys
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args

import streamlit as st

from core import __version__
from core.admin.log_reader import LEVELS, newest_lines
from core.errors import PsttError
from core.records.accounts import AccessToken, Accounts
from core.records.audit import AuditEntry
from core.records.rights import Role, TokenScope
from core.records.roll_up_note import last_note, last_roll_up
from core.records.rolled_up import RolledUp
from ui import changes, data
from ui.access import current_user, may, role_word
from ui.components import runner_start, settings
from ui.components.known_since import known_since
from ui.components.problem import fragment, guarded, problem
from ui.components.tables import choose, table
from ui.components.text import plain
from ui.data.status import size_of_spool, workspace_status
from ui.formats import moment, number, size
from ui.language import t, tn, translated
from ui.workspaces import home_workspace

__all__ = ["show"]

AUDIT_ROWS = 500
LOG_LINES = 300
LIBRARIES = (
    "aiokafka",
    "confluent-kafka",
    "kafka-python-ng",
    "oracledb",
    "psycopg",
    "pyodbc",
    "duckdb",
    "pydantic",
    "streamlit",
)
_NEW_TOKEN = "new_token"  # noqa: S105 - a session key, not a secret


def show() -> None:
    """Draws the view."""
    st.title(t("Administration"), anchor=False)
    if not may("administration"):
        st.info(t("Settings, users and the audit are shown to admins, the log to operators."), icon=":material/lock:")
        if may("log"):
            guarded(_log)()
        guarded(_versions)()
        return
    parts = (
        (t("Settings"), settings.show),
        (t("Runner"), runner_start.show),
        (t("Users"), _users),
        (t("Tokens"), _tokens),
        (t("Audit"), _audit),
        (t("Log"), _log),
        (t("Metrics"), _metrics),
        (t("Versions"), _versions),
    )
    for tab, (_, part) in zip(st.tabs([title for title, _ in parts]), parts, strict=True):
        with tab:
            guarded(part)()


NONE = "–"


def _accounts() -> Accounts:
    return Accounts(home_workspace().ledger_file)


def _users() -> None:
    zone = workspace_status().timezone
    with _accounts() as accounts:
        users = accounts.users()
    if not users:
        st.info(
            t(
                "There are no users: everybody at this machine is an admin, and no other machine can reach the page. With the first user sign-in begins, so make an admin first."
            ),
            icon=":material/info:",
        )
    else:
        table(
            [
                {
                    t("Name"): user.name,
                    t("Role"): role_word(user.role),
                    t("E-mail"): user.email or NONE,
                    t("Signs in by"): t("password") if user.has_password else "OIDC",
                    t("Last sign-in"): moment(user.last_sign_in_at, zone),
                    t("Made by"): user.created_by,
                }
                for user in users
            ],
            "users",
        )
        _change_user([user.name for user in users])
    with st.form("add_user", clear_on_submit=True):
        st.markdown(f"**{t('Another user')}**")
        left, right = st.columns(2)
        name = left.text_input(t("Name"), key="user_name")
        role: Role = right.selectbox(
            t("Role"), get_args(Role)[::-1] if not users else get_args(Role), format_func=role_word, key="user_role"
        )
        email = left.text_input(t("E-mail, for sign-in by OIDC"), key="user_email")
        password = right.text_input(
            t("Password; empty: only by OIDC"), type="password", key="user_password", autocomplete="new-password"
        )
        if st.form_submit_button(t("Add"), icon=":material/person_add:"):
            _add_user(name.strip(), role, password or None, email.strip() or None)


def _add_user(name: str, role: Role, password: str | None, email: str | None) -> None:
    try:
        by = changes.caller("accounts")
        with _accounts() as accounts:
            accounts.add_user(name, role, password, by=by, now=data.now(), email=email)
    except PsttError as error:
        problem(error)
        return
    st.rerun()


def _change_user(names: list[str]) -> None:
    with st.expander(t("Change a user")):
        name = st.selectbox(t("User"), names, key="change_user")
        left, right = st.columns(2)
        role: Role = left.selectbox(t("Role"), get_args(Role), format_func=role_word, key="change_role")
        if left.button(t("Give this role"), key="set_role"):
            _act(lambda accounts, by: accounts.set_role(name, role, by=by, now=data.now()))
        password = right.text_input(
            t("New password"), type="password", key="change_password", autocomplete="new-password"
        )
        if right.button(t("Set the password"), key="set_password", disabled=not password):
            _act(lambda accounts, by: accounts.set_password(name, password, by=by, now=data.now()))
        sure = st.checkbox(t("Yes, {name} may not sign in any more", name=plain(name)), key=f"remove_sure_{name}")
        if st.button(t("Remove the user"), key="remove_user", icon=":material/person_remove:", disabled=not sure):
            _act(lambda accounts, by: accounts.remove_user(name, by=by, now=data.now()))


def _act(action: Any) -> None:
    try:
        by = changes.caller("accounts")
        with _accounts() as accounts:
            action(accounts, by)
    except PsttError as error:
        problem(error)
        return
    st.rerun()


def _tokens() -> None:
    zone, at = workspace_status().timezone, data.now()
    with _accounts() as accounts:
        tokens = accounts.tokens()
    if made := st.session_state.get(_NEW_TOKEN):
        st.success(t("The token; it is shown this once and kept nowhere:"), icon=":material/key:")
        st.code(made, language=None, wrap_lines=True)
        st.button(t("I have it"), key="token_seen", on_click=lambda: st.session_state.pop(_NEW_TOKEN, None))
    if tokens:
        table([_token(token, zone, at) for token in tokens], "tokens")
        valid = [token for token in tokens if token.state(at) == "valid"]
        if valid:
            with st.container(horizontal=True, vertical_alignment="bottom"):
                chosen = st.selectbox(
                    t("Token"),
                    valid,
                    format_func=lambda token: f"{token.name} ({token.token_id})",
                    key="revoke_which",
                    width=300,
                )
                if st.button(t("Revoke"), key="revoke_token", icon=":material/block:"):
                    _act(lambda accounts, by: accounts.revoke_token(chosen.token_id, by=by, now=data.now()))
    else:
        st.markdown(t("No program has a token yet. REST is documented at /api/docs."))
    with st.form("add_token", clear_on_submit=True):
        st.markdown(f"**{t('Another token')}**")
        left, middle, right = st.columns(3)
        name = left.text_input(t("For which program"), key="token_name")
        scope: TokenScope = middle.selectbox(t("Scope"), get_args(TokenScope), format_func=_scope, key="token_scope")
        days = right.number_input(t("Valid for, days"), min_value=1, max_value=3650, value=90, key="token_days")
        if st.form_submit_button(t("Make"), icon=":material/key:"):
            _add_token(name.strip(), scope, int(days))


def _scope(scope: TokenScope) -> str:
    return {"read": t("read"), "send": t("read, send and run"), "admin": t("everything")}[scope]


def _token(token: AccessToken, zone: str, at: datetime) -> dict[str, Any]:
    states = {"valid": f"✔ {t('valid')}", "expired": f"– {t('expired')}", "revoked": f"✘ {t('revoked')}"}
    return {
        t("State"): states[token.state(at)],
        t("Program"): token.name,
        t("Id"): token.token_id,
        t("Scope"): _scope(token.scope),
        t("Expires"): moment(token.expires_at, zone),
        t("Last used"): moment(token.last_used_at, zone),
        t("Made by"): token.created_by,
    }


def _add_token(name: str, scope: TokenScope, days: int) -> None:
    try:
        by = changes.caller("accounts")
        with _accounts() as accounts:
            _, token = accounts.add_token(name, scope, lasts=timedelta(days=days), by=by, now=data.now())
    except PsttError as error:
        problem(error)
        return
    st.session_state[_NEW_TOKEN] = token
    st.rerun()


def _audit() -> None:
    zone = workspace_status().timezone
    with data.opened() as app:
        entries = app.ledger.audit.entries(limit=AUDIT_ROWS)
    wanted = st.text_input(t("Search"), placeholder=t("who, what, on what"), key="audit_search", width=300)
    found = [e for e in entries if wanted.casefold() in f"{e.who} {e.action} {e.object}".casefold()]
    if not found:
        st.markdown(t("Nothing has been changed yet."))
        return
    st.caption(
        t(
            "The newest {count}; select one for before and after. Times are those of {zone}.",
            count=number(len(found)),
            zone=plain(zone),
        )
    )
    chosen = choose(
        [
            {
                t("When"): moment(e.at, zone, seconds=True),
                t("Who"): e.who,
                t("Did"): translated(e.action),
                t("On"): e.object,
            }
            for e in found
        ],
        "audit",
        most_px=420,
    )
    if chosen is not None:
        _change(found[chosen])


def _change(entry: AuditEntry) -> None:
    left, right = st.columns(2)
    for column, words, value in ((left, t("Before"), entry.before), (right, t("After"), entry.after)):
        with column:
            st.markdown(f"**{words}**")
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
            st.code(NONE if value is None else text, language=None, wrap_lines=True)


def _log() -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        level = st.selectbox(t("From level"), LEVELS, index=LEVELS.index("INFO"), key="log_level", width=160)
        run = st.text_input(t("Run"), placeholder=t("all"), key="log_run", width=200).strip()
        job = st.text_input(t("Job, its file name"), placeholder=t("all"), key="log_job", width=240).strip()
    _log_lines(level, run, job)


@fragment(run_every=5)
def _log_lines(level: str, run: str, job: str) -> None:
    zone = workspace_status().timezone
    if run:
        with data.opened() as app:
            run = app.ledger.run(run).run_id
    lines = newest_lines(data.workspace().logs_dir, run=run, job=job, level=level, limit=LOG_LINES)
    if not lines:
        st.markdown(t("the log says nothing about it"))
        return
    st.caption(
        t(
            "The newest {count} lines, the last one at the end; times are those of {zone}.",
            count=number(len(lines)),
            zone=plain(zone),
        )
    )
    text = "\n".join(
        f"{moment(line.at, zone, seconds=True, year=False)}  {line.level:<8} {f'[{line.job}] ' if line.job else ''}{translated(line.message)}"
        for line in lines
    )
    st.code(text, language=None, wrap_lines=True, height=480)


def _metrics() -> None:
    workspace, zone = data.workspace(), workspace_status().timezone
    file = workspace.metrics_file
    segments, segment_bytes = size_of_spool(workspace.spool_dir)
    left, middle, right = st.columns(3)
    if file.exists():
        stat = file.stat()
        left.metric("metrics.duckdb", size(stat.st_size))
        left.caption(t("written {time}", time=moment(datetime.fromtimestamp(stat.st_mtime).astimezone(), zone)))
    else:
        left.metric("metrics.duckdb", NONE)
        left.caption(t("not made yet, the first run makes it"))
    middle.metric(t("Segments in the spool"), number(segments))
    middle.caption(size(segment_bytes))
    ledger = workspace.ledger_file
    right.metric(t("Ledger"), size(ledger.stat().st_size) if ledger.exists() else NONE)
    guarded(_rolled_up)()
    st.markdown(
        t(
            "Everything in metrics.duckdb is made from the spool and the ledger; a file that is damaged or lost is made again from them. Reading works meanwhile."
        )
    )
    if st.button(t("Make it again"), key="rebuild", icon=":material/refresh:", disabled=not may("rebuild")):
        with st.spinner(t("copying the spool …")):
            st.session_state["rebuilt"] = changes.rebuild_metrics()
    rebuilt = st.session_state.pop("rebuilt", None)
    if rebuilt is not None:
        st.success(
            tn(rebuilt, "made again, with 1 send", "made again, with {count} sends", count=number(rebuilt)),
            icon=":material/check:",
        )


def _rolled_up() -> None:
    """From when on single sends are known, and what the last roll-up did."""
    workspace, status = data.workspace(), workspace_status()
    known_since(RolledUp(workspace.spool_dir).known_since())
    last = last_roll_up(workspace)
    if last is None:
        st.caption(t("No sends were rolled up yet."))
    else:
        st.caption(
            tn(
                last.sends,
                "The last roll-up, {time}: 1 single send became a count of a day; metrics.duckdb had {before} before and {after} after.",
                "The last roll-up, {time}: {sends} single sends of {runs} became counts of days; metrics.duckdb had {before} before and {after} after.",
                time=moment(last.at, status.timezone),
                sends=number(last.sends),
                runs=tn(last.runs, "1 run", "{count} runs", count=number(last.runs)),
                before=size(last.before_bytes),
                after=size(last.after_bytes),
            )
        )
    if note := last_note(workspace):
        st.warning(plain(translated(note)), icon=":material/warning:")


def _versions() -> None:
    beat = workspace_status().runner
    rows = [{t("Part"): "PSTT Kafka", t("Version"): __version__}]
    if beat is not None:
        rows.append(
            {t("Part"): t("Runner, pid {pid} on {host}", pid=beat.pid, host=beat.host), t("Version"): beat.version}
        )
    rows.append({t("Part"): "Python", t("Version"): ".".join(map(str, sys.version_info[:3]))})
    rows += [{t("Part"): name, t("Version"): _version(name)} for name in LIBRARIES]
    table(rows, "versions")
    st.caption(t("Signed in as {name}.", name=plain(current_user().name)))


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return t("not installed")
