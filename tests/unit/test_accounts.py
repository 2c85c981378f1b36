"""Users, tokens, sessions: who is let in, who is not, and that no secret is stored."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import ConfigError, SignInNeeded, TooManyAttempts
from core.records.accounts import FREE_ATTEMPTS, LONGEST_WAIT_S, SESSION_LASTS, Accounts
from core.records.idempotency import KEPT, IdempotentAnswers, fingerprint
from core.records.ledger import Ledger
from core.records.rights import local_caller
from core.records.store import SCHEMA_VERSION, SCHEMAS
from tests.rigs.callers import caller

NOW = datetime(2026, 1, 17, 9, 0, tzinfo=UTC)
PASSWORD = "four easy words here"
BY = {"by": caller("root"), "now": NOW}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".pstt" / "ledger.sqlite"


@pytest.fixture
def accounts(file):
    with Accounts(file) as opened:
        yield opened


def audit(file: Path) -> list[tuple[str, str, str]]:
    with Ledger(file) as ledger:
        return [(entry.who, entry.action, entry.object) for entry in ledger.audit.entries()]


def all_text(file: Path) -> str:
    """Returns everything in the ledger as text."""
    db = sqlite3.connect(file)
    try:
        return "\n".join(db.iterdump())
    finally:
        db.close()


# ── users ─────────────────────────────────────────────────────────────────────────────────────


def test_without_users_whoever_is_at_this_machine_is_an_admin(accounts):
    assert not accounts.has_users()
    assert local_caller().is_local
    assert local_caller().may("accounts")


def test_a_user_signs_in_and_is_known_by_the_cookie_until_it_ends(accounts):
    accounts.add_user("maria", "operator", PASSWORD, **BY)
    cookie = accounts.sign_in("Maria", PASSWORD, address="10.0.0.1", now=NOW)
    caller = accounts.whoami(cookie, NOW)
    assert (caller.name, caller.role) == ("maria", "operator")
    assert caller.may("change")
    assert not caller.may("accounts")
    assert accounts.whoami(cookie, NOW + SESSION_LASTS) is None
    assert accounts.whoami(cookie + "x", NOW) is None
    accounts.sign_out(cookie)
    assert accounts.whoami(cookie, NOW) is None


@pytest.mark.parametrize(("role", "rights"), [("viewer", "read"), ("operator", "read send change"),
                                              ("admin", "read send change admin")])  # fmt: skip
def test_each_role_has_what_the_one_below_it_has(accounts, role, rights):
    accounts.add_user("who", role, PASSWORD, **BY)
    cookie = accounts.sign_in("who", PASSWORD, address="x", now=NOW)
    assert accounts.whoami(cookie, NOW).rights == set(rights.split())


def test_a_role_that_changes_holds_at_once_in_an_open_session(accounts):
    accounts.add_user("root", "admin", PASSWORD, **BY)
    accounts.add_user("maria", "operator", PASSWORD, **BY)
    cookie = accounts.sign_in("maria", PASSWORD, address="x", now=NOW)
    accounts.set_role("maria", "viewer", **BY)
    assert accounts.whoami(cookie, NOW).role == "viewer"


def test_a_new_password_and_a_removed_user_end_the_sessions(accounts):
    accounts.add_user("root", "admin", PASSWORD, **BY)
    accounts.add_user("maria", "viewer", PASSWORD, **BY)
    cookie = accounts.sign_in("maria", PASSWORD, address="x", now=NOW)
    accounts.set_password("maria", "another four words", **BY)
    assert accounts.whoami(cookie, NOW) is None
    with pytest.raises(SignInNeeded):
        accounts.sign_in("maria", PASSWORD, address="x", now=NOW)
    cookie = accounts.sign_in("maria", "another four words", address="x", now=NOW)
    accounts.remove_user("MARIA", **BY)
    assert accounts.whoami(cookie, NOW) is None


def test_the_last_admin_stays_while_there_are_others(accounts):
    accounts.add_user("root", "admin", PASSWORD, **BY)
    accounts.add_user("maria", "viewer", PASSWORD, **BY)
    with pytest.raises(ConfigError, match="only admin"):
        accounts.remove_user("root", **BY)
    with pytest.raises(ConfigError, match="only admin"):
        accounts.set_role("root", "viewer", **BY)
    accounts.remove_user("maria", **BY)
    accounts.remove_user("root", **BY)
    assert not accounts.has_users()


@pytest.mark.parametrize("name", ["", "a b", "a/b", "../x", "a\0b", "<b>", "x" * 101])
def test_a_name_that_is_none_is_refused(accounts, name):
    with pytest.raises(ConfigError, match="no name for a user"):
        accounts.add_user(name, "viewer", PASSWORD, **BY)
    assert accounts.users() == []


def test_what_is_refused_leaves_nothing_behind(accounts, file):
    accounts.add_user("maria", "viewer", PASSWORD, email="maria@example.com", **BY)
    written = audit(file)
    for name, email in (("MARIA", None), ("other", "Maria@Example.com")):
        with pytest.raises(ConfigError, match="already"):
            accounts.add_user(name, "viewer", PASSWORD, email=email, **BY)
    with pytest.raises(ConfigError, match="at least 10 characters"):
        accounts.add_user("short", "viewer", "123456789", **BY)
    with pytest.raises(ConfigError, match='no role "boss"'):
        accounts.add_user("boss", "boss", PASSWORD, **BY)
    with pytest.raises(ConfigError, match="no e-mail address"):
        accounts.add_user("mail", "viewer", PASSWORD, email="nowhere", **BY)
    assert [user.name for user in accounts.users()] == ["maria"]
    assert audit(file) == written


def test_oidc_finds_a_user_by_address_and_nobody_else(accounts):
    accounts.add_user("maria", "operator", None, email="maria@example.com", **BY)
    accounts.add_user("luca@example.com", "viewer", None, **BY)
    assert accounts.by_email("MARIA@example.com").role == "operator"
    assert accounts.by_email("luca@example.com").role == "viewer"
    assert accounts.by_email("eve@example.com") is None
    with pytest.raises(SignInNeeded):
        accounts.sign_in("maria", "", address="x", now=NOW)


# ── wrong passwords ───────────────────────────────────────────────────────────────────────────


def miss(accounts, name, at, address="10.0.0.1"):
    with pytest.raises(SignInNeeded):
        accounts.sign_in(name, "wrong password", address=address, now=at)


def test_a_name_waits_longer_and_longer_after_wrong_passwords_and_the_right_one_waits_too(accounts):
    accounts.add_user("maria", "viewer", PASSWORD, **BY)
    for _ in range(FREE_ATTEMPTS):
        miss(accounts, "maria", NOW)
    with pytest.raises(TooManyAttempts) as refused:
        accounts.sign_in("maria", PASSWORD, address="10.0.0.2", now=NOW)
    assert refused.value.wait_s == 1
    at = NOW + timedelta(seconds=1)
    miss(accounts, "maria", at)
    with pytest.raises(TooManyAttempts) as refused:
        accounts.sign_in("maria", PASSWORD, address="10.0.0.2", now=at)
    assert refused.value.wait_s == 2
    assert accounts.sign_in("maria", PASSWORD, address="10.0.0.2", now=at + timedelta(seconds=2))
    miss(accounts, "maria", at + timedelta(seconds=3))


def test_nobody_waits_for_more_than_five_minutes(accounts):
    accounts.add_user("maria", "viewer", PASSWORD, **BY)
    with accounts._transaction():
        for _ in range(200):
            values = {"subject": "name maria", "at": "2026-01-17T09:00:00.000000Z"}
            accounts._db.execute(accounts._sql["insert_wrong_password"], values)
    with pytest.raises(TooManyAttempts) as refused:
        accounts.sign_in("maria", PASSWORD, address="x", now=NOW)
    assert refused.value.wait_s == LONGEST_WAIT_S
    assert accounts.sign_in("maria", PASSWORD, address="x", now=NOW + timedelta(seconds=LONGEST_WAIT_S))


def test_an_address_that_tries_many_names_waits(accounts):
    for number in range(4 * FREE_ATTEMPTS):
        miss(accounts, f"user{number}", NOW)
    with pytest.raises(TooManyAttempts):
        accounts.sign_in("another", "x", address="10.0.0.1", now=NOW)
    miss(accounts, "another", NOW, address="10.0.0.9")


def test_a_name_that_is_not_known_is_told_the_same_as_a_wrong_password(accounts):
    accounts.add_user("maria", "viewer", PASSWORD, **BY)
    texts = []
    for name in ("maria", "nobody", "\0", "x" * 10_000):
        with pytest.raises(SignInNeeded) as refused:
            accounts.sign_in(name, "wrong password", address="x", now=NOW)
        texts.append(str(refused.value))
    assert len(set(texts)) == 1


# ── tokens ────────────────────────────────────────────────────────────────────────────────────


def test_a_token_is_known_until_it_expires_or_is_revoked(accounts):
    token, text = accounts.add_token("grafana", "read", lasts=timedelta(days=1), **BY)
    caller = accounts.token_caller(text, NOW)
    assert (caller.name, caller.rights) == ("token grafana", {"read"})
    with pytest.raises(SignInNeeded, match="has expired"):
        accounts.token_caller(text, NOW + timedelta(days=1))
    accounts.revoke_token("grafana", **BY)
    with pytest.raises(SignInNeeded, match="was revoked"):
        accounts.token_caller(text, NOW)
    assert [(t.token_id, t.state(NOW)) for t in accounts.tokens()] == [(token.token_id, "revoked")]
    with pytest.raises(ConfigError, match="no valid token"):
        accounts.revoke_token("grafana", **BY)


def test_what_is_no_token_is_refused(accounts):
    token, text = accounts.add_token("x", "admin", lasts=timedelta(days=1), **BY)
    other = accounts.add_token("y", "read", lasts=timedelta(days=1), **BY)[1]
    swapped = f"pstt_{token.token_id}_{other.split('_', 2)[2]}"
    wrong = ("", "x", text[:-1], text + "x", text.upper(), token.token_id, f"pstt_{'0' * 12}_{'a' * 43}", "\0" * 60)
    for given in (*wrong, swapped):
        with pytest.raises(SignInNeeded, match="not known"):
            accounts.token_caller(given, NOW)


def test_the_last_use_is_noted_once_a_minute(accounts):
    _, text = accounts.add_token("x", "read", lasts=timedelta(days=1), **BY)
    for seconds, noted in ((0, 0), (59, 0), (60, 60), (61, 60)):
        accounts.token_caller(text, NOW + timedelta(seconds=seconds))
        assert accounts.tokens()[0].last_used_at == NOW + timedelta(seconds=noted)


def test_two_tokens_of_one_name_are_revoked_by_id(accounts):
    first, _ = accounts.add_token("x", "read", lasts=timedelta(days=1), **BY)
    accounts.add_token("x", "read", lasts=timedelta(days=1), **BY)
    with pytest.raises(ConfigError, match="more than one"):
        accounts.revoke_token("x", **BY)
    assert accounts.revoke_token(first.token_id, **BY) == first.token_id


def test_no_secret_is_kept_and_each_change_is_in_the_audit(accounts, file):
    accounts.add_user("maria", "admin", PASSWORD, **BY)
    cookie = accounts.sign_in("maria", PASSWORD, address="10.0.0.1", now=NOW)
    accounts.set_password("maria", "another four words", **BY)
    token, text = accounts.add_token("x", "send", lasts=timedelta(days=1), by=caller("maria"), now=NOW)
    accounts.revoke_token("x", by=caller("maria"), now=NOW)
    kept = all_text(file)
    for secret in (PASSWORD, "another four words", cookie, text, text.split("_", 2)[2]):
        assert secret not in kept
    assert "$argon2id$" in kept
    assert audit(file)[::-1] == [
        ("root", "add", "user maria"),
        ("maria", "sign-in", "user maria"),
        ("root", "password", "user maria"),
        ("maria", "add", f"token {token.token_id}"),
        ("maria", "revoke", f"token {token.token_id}"),
    ]


def test_a_password_costs_as_much_as_its_library_advises():
    """In a process of its own: tests hash cheaply."""
    code = "from core.records.accounts import _hashed; print(_hashed('four easy words here'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "$m=65536,t=3,p=4$" in done.stdout


# ── the file ──────────────────────────────────────────────────────────────────────────────────


def test_a_ledger_of_the_version_before_gets_the_new_tables_and_keeps_its_own(file, monkeypatch):
    import core.records.store

    with monkeypatch.context() as patch:
        patch.setattr(core.records.store, "SCHEMAS", {1: SCHEMAS[1]})
        patch.setattr(core.records.store, "SCHEMA_VERSION", 1)
        with Ledger(file) as ledger:
            ledger.audit.add("root", "old", "thing", NOW)
        with Ledger(file) as ledger:
            tables = ledger._db.execute("SELECT name FROM sqlite_master").fetchall()
        assert "user" not in {name for (name,) in tables}
    with Accounts(file) as accounts:
        accounts.add_user("maria", "viewer", PASSWORD, **BY)
        assert accounts._db.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION
    assert audit(file)[::-1] == [("root", "old", "thing"), ("root", "add", "user maria")]


# ── the same request twice ────────────────────────────────────────────────────────────────────


def test_a_key_gives_the_first_answer_for_a_day_and_each_caller_has_keys_of_its_own(file):
    asked = fingerprint("send", {"key": "1"})
    with IdempotentAnswers(file) as answers:
        assert answers.begin("a", "k", asked, NOW) is None
        under_way = answers.begin("a", "k", asked, NOW)
        assert (under_way.is_same, under_way.status) == (True, None)
        answers.keep("a", "k", 200, {"offset": 7})
        earlier = answers.begin("a", "k", asked, NOW + KEPT - timedelta(seconds=1))
        assert (earlier.status, earlier.answer) == (200, {"offset": 7})
        assert not answers.begin("a", "k", fingerprint("send", {"key": "2"}), NOW).is_same
        assert answers.begin("b", "k", asked, NOW) is None
        assert answers.begin("a", "k", asked, NOW + KEPT) is None
        answers.forget("a", "k")
        assert answers.begin("a", "k", asked, NOW + KEPT) is None


def test_a_fingerprint_tells_requests_apart_and_order_does_not_matter():
    first = fingerprint("send", {"a": 1, "b": 2})
    assert first == fingerprint("send", json.loads('{"b": 2, "a": 1}'))
    assert len({first, fingerprint("run", {"a": 1, "b": 2}), fingerprint("send", {"a": 1, "b": 3})}) == 3
