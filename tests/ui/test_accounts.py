"""Who may do what, for a program, a browser and a visitor of the page; and the commands that set it."""

from __future__ import annotations

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from core.admin.demo import SLUG, make_demo
from core.records.accounts import FREE_ATTEMPTS, Accounts
from core.workspace.paths import Workspace
from tests.rigs.callers import caller
from tests.rigs.workspace import ROOT, command, environment
from tests.ui.rest import HOST, PASSWORD, add_user, audit, bearer, client, sign_in, token
from ui.api import api
from ui.http_security import SignInFirst

SUMMARY = "/api/kafka/metrics/summary"
JOBS = "/api/scheduler/scheduling"
ROUTES_THAT_SEND = [("POST", "/api/kafka/send"), ("POST", "/api/kafka/test"), ("POST", f"{JOBS}/{SLUG}/run")]
ROUTES_THAT_CHANGE = [
    ("POST", JOBS), ("PUT", f"{JOBS}/{SLUG}"), ("DELETE", f"{JOBS}/{SLUG}"), ("POST", f"{JOBS}/{SLUG}/enable"),
    ("POST", f"{JOBS}/{SLUG}/disable"),
]  # fmt: skip
ROUTES_THAT_READ = [
    ("GET", path)
    for path in (
        "/api/kafka/health", "/api/kafka/topics", "/api/kafka/metrics", "/api/kafka/metrics/summary", JOBS,
        f"{JOBS}/{SLUG}", "/api/scheduler/history", "/api/scheduler/requests/1", "/api/monitoring/metrics",
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def _made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("accounts") / "demo"
    make_demo(folder, 50, now=datetime.now(UTC))
    return folder


@pytest.fixture
def folder(_made, tmp_path, monkeypatch) -> Path:
    place = tmp_path / "demo"
    shutil.copytree(_made, place)
    monkeypatch.setenv("PSTT_WORKSPACE", str(place))
    return place


@pytest.fixture
def asked(folder):
    with client() as made:
        yield made


def core(folder, *words, given="", code=0):
    """Runs a command with this input; returns its output."""
    done = subprocess.run(
        [*command(*words), "--workspace", str(folder)], cwd=ROOT, env=environment(measured=True), input=given, capture_output=True,
        text=True, encoding="utf-8", timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


# ── programs ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("method", "path"), [*ROUTES_THAT_READ, *ROUTES_THAT_SEND, *ROUTES_THAT_CHANGE])
def test_once_there_is_a_user_every_route_needs_to_know_who_asks(asked, folder, method, path):
    add_user(folder, "root", "admin")
    answer = asked.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.json()["type"] == "urn:pstt-kafka:SignInNeeded"
    assert SLUG not in answer.text


def test_load_balancers_and_the_document_need_no_sign_in_and_tell_nothing_of_the_workspace(asked, folder):
    add_user(folder, "root", "admin")
    health = asked.get("/api/monitoring/health", headers={"Host": "pstt.example.com"})
    assert health.status_code == 200
    assert set(health.json()) == {"status", "runner", "version"}
    assert asked.get("/api/openapi.json").status_code == asked.get("/api/docs").status_code == 200


@pytest.mark.parametrize(("scope", "refused"), [("read", [*ROUTES_THAT_SEND, *ROUTES_THAT_CHANGE]),
                                                ("send", ROUTES_THAT_CHANGE), ("admin", [])])  # fmt: skip
def test_a_token_does_what_its_scope_says_and_no_more(asked, folder, scope, refused):
    add_user(folder, "root", "admin")
    who = bearer(token(folder, scope))
    assert asked.get(JOBS, headers=who).status_code == 200
    for method, path in [*ROUTES_THAT_SEND, *ROUTES_THAT_CHANGE]:
        answer = asked.request(method, path, headers=who)
        assert (answer.status_code == 403) == ((method, path) in refused), (method, path, answer.text)
        if answer.status_code == 403:
            assert answer.headers["content-type"] == "application/problem+json"
    made = [entry for entry in audit(folder) if entry.who == f"token {scope}" and entry.action != "test"]
    assert bool(made) == (scope != "read")


def test_a_token_that_expired_was_revoked_or_is_wrong_is_refused_everywhere(asked, folder):
    add_user(folder, "root", "admin")
    old = token(folder, "admin", now=datetime.now(UTC) - timedelta(days=2))
    good = token(folder, "send")
    for path in (JOBS, SUMMARY):
        assert asked.get(path, headers=bearer(good)).status_code == 200
    with Accounts(Workspace(folder).ledger_file) as accounts:
        accounts.revoke_token("send", by=caller("test"), now=datetime.now(UTC))
    for text, why in ((good, "was revoked"), (old, "has expired"), ("x", "not known"), ("", "not known")):
        for path in (SUMMARY, JOBS):
            answer = asked.get(path, headers=bearer(text))
            assert (answer.status_code, why in answer.json()["detail"]) == (401, True)
    assert asked.get(JOBS, headers={"Authorization": "Basic cm9vdDpyb290"}).status_code == 401


# ── browsers ──────────────────────────────────────────────────────────────────────────────────


def test_a_user_signs_in_works_and_signs_out(asked, folder):
    add_user(folder, "maria", "operator")
    answer = sign_in(asked, "maria")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
    cookie = next(text for text in answer.headers.get_list("set-cookie") if text.startswith("pstt_session="))
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert asked.post(f"{JOBS}/{SLUG}/disable").status_code == 200
    assert audit(folder)[0].who == "maria"
    page = asked.get("/api/signout").text
    form = page.split('name="form" value="')[1].split('"')[0]
    assert asked.post("/api/signout", data={"form": form}, follow_redirects=False).status_code == 303
    assert asked.get(JOBS).status_code == 401


@pytest.fixture
def page(folder):
    """The page's addresses behind the redirect to the form, and REST beside them."""
    routes = [Mount("/api", api), Route("/{rest:path}", lambda _: PlainTextResponse("the page"))]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(SignInFirst)]), base_url=HOST)


@pytest.mark.parametrize("wanted", ["/run?run=ab12&workspace=Rome", "/jobs", "/alerts?x=%2F%2Fevil.example.com"])
def test_after_the_sign_in_one_is_where_one_wanted_to_go(page, folder, wanted):
    add_user(folder, "maria", "operator")
    asked = page.get(wanted, headers={"Accept": "text/html"}, follow_redirects=False)
    assert (asked.status_code, asked.headers["Location"]) == (303, "/api/signin")
    assert sign_in(page, "maria").headers["Location"] == wanted
    assert "pstt_wanted" not in page.cookies
    assert sign_in(page, "maria").headers["Location"] == "/"


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example.com",
        "/\\evil.example.com",
        "https://evil.example.com",
        "/api/signout",
        "/x y",
        "",
        "/" + "a" * 3000,
    ],
)
def test_a_sign_in_leads_to_no_other_server_and_not_out_again(page, folder, wanted):
    add_user(folder, "maria", "operator")
    page.cookies.set("pstt_wanted", quote(wanted, safe=""))
    assert sign_in(page, "maria").headers["Location"] == "/"


def test_a_viewer_is_told_that_an_operator_may_do_this(asked, folder):
    add_user(folder, "vera", "viewer")
    sign_in(asked, "vera")
    assert asked.get(JOBS).status_code == 200
    for method, path in [*ROUTES_THAT_SEND, *ROUTES_THAT_CHANGE]:
        answer = asked.request(method, path)
        assert answer.status_code == 403
        assert "needs an operator" in answer.json()["detail"]
    assert [entry.action for entry in audit(folder)] == ["sign-in", "add"]


def test_wrong_passwords_are_told_alike_and_then_have_to_wait(asked, folder):
    add_user(folder, "maria", "operator")
    texts = set()
    for name in ("nobody", "maria"):
        for _ in range(FREE_ATTEMPTS):
            answer = sign_in(asked, name, "wrong password")
            assert answer.status_code == 401
            texts.add(answer.text.split('role="alert">')[1].split("<")[0])
    assert texts == {"Name or password is wrong."}
    later = [sign_in(asked, "maria", "wrong password").status_code for _ in range(6)]
    assert 429 in later
    assert sign_in(asked, "maria").status_code == 429
    assert "pstt_session" not in asked.cookies


def test_the_form_speaks_italian_and_shows_nothing_that_was_typed(asked, folder):
    add_user(folder, "maria", "operator")
    answer = sign_in(asked, "<script>alert(1)</script>", "<b>", headers={"Accept-Language": "it-IT,it;q=0.9,en;q=0.5"})
    assert "Nome o password non corretti." in answer.text
    assert "alert(1)" not in answer.text
    assert '<html lang="it">' in answer.text


def test_the_form_has_the_language_that_was_chosen_on_the_page(asked):
    asked.cookies.set("pstt_language", "it")
    assert "<button>Accedi</button>" in asked.get("/api/signin", headers={"Accept-Language": "en"}).text
    asked.cookies.set("pstt_language", "en")
    assert "<button>Sign in</button>" in asked.get("/api/signin", headers={"Accept-Language": "it"}).text


@pytest.mark.parametrize(
    "body", [b"", b"name=maria&password=x", b"form=x&name=maria", b"\xff\xff=\0", b"&" * 5000, b"a" * 100_000]
)
def test_a_form_that_is_not_ours_signs_nobody_in(asked, folder, body):
    add_user(folder, "maria", "operator")
    asked.get("/api/signin")
    answer = asked.post("/api/signin", content=body, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 403
    assert "pstt_session" not in asked.cookies


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                                     {"Origin": "http://127.0.0.1:9999"}, {"Sec-Fetch-Site": "same-site"}])  # fmt: skip
@pytest.mark.parametrize("with_users", [True, False])
def test_another_web_site_cannot_use_the_browser_of_somebody_here(asked, folder, headers, with_users):
    if with_users:
        add_user(folder, "root", "admin")
        sign_in(asked, "root")
    for method, path in [*ROUTES_THAT_SEND, *ROUTES_THAT_CHANGE]:
        answer = asked.request(method, path, headers=headers)
        assert answer.status_code == 403
        assert "another web site" in answer.json()["detail"]
    assert asked.post(f"{JOBS}/{SLUG}/disable", headers={"Origin": "http://127.0.0.1:8501"}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8501", "10.0.0.5:8501", "127.0.0.1.evil.example", "localhost.x", ""]
)
def test_where_nobody_signs_in_this_machine_answers_to_its_own_name_only(asked, host):
    answer = asked.get(JOBS, headers={"Host": host})
    assert answer.status_code == 403
    assert "only this machine" in answer.json()["detail"]
    for own in ("127.0.0.1", "localhost:8501", "[::1]:8501", "127.0.0.2:80"):
        assert asked.get(JOBS, headers={"Host": own}).status_code == 200


# ── the commands ──────────────────────────────────────────────────────────────────────────────


def test_users_are_made_changed_and_removed_by_command(folder):
    assert "no users yet" in core(folder, "user", "list")
    core(folder, "user", "add", "root", "--role", "admin", "--password-stdin", given=f"{PASSWORD}\n")
    core(folder, "user", "add", "vera", "--email", "vera@example.com", "--no-password")
    core(folder, "user", "role", "vera", "operator")
    core(folder, "user", "password", "root", "--password-stdin", given="another four words\n")
    users = json.loads(core(folder, "user", "list", "--json"))["users"]
    assert [(u["name"], u["role"], u["has_password"]) for u in users] == [
        ("root", "admin", True),
        ("vera", "operator", False),
    ]
    assert "only admin" in core(folder, "user", "remove", "root", code=2)
    core(folder, "user", "remove", "vera")
    assert [entry.action for entry in audit(folder)][::-1] == ["add", "add", "role", "password", "remove"]


@pytest.mark.parametrize(("words", "given", "says"), [
    (("add", "x", "--password-stdin"), "short\n", "at least 10 characters"),
    (("add", "x"), "", "--password-stdin"),
    (("add", "x", "--role", "boss", "--password-stdin"), PASSWORD, "boss"),
    (("role", "nobody", "admin"), "", 'no user "nobody"'),
    (("remove", "nobody"), "", 'no user "nobody"'),
])  # fmt: skip
def test_a_command_that_cannot_be_done_says_why(folder, words, given, says):
    assert says in core(folder, "user", *words, given=given, code=2)


def test_a_token_is_shown_once_works_and_is_revoked_by_command(asked, folder):
    add_user(folder, "root", "admin")
    made = json.loads(core(folder, "token", "add", "grafana", "--scope", "read", "--days", "30", "--json"))
    assert asked.get(JOBS, headers=bearer(made["token"])).status_code == 200
    listed = core(folder, "token", "list")
    assert made["token_id"] in listed
    assert made["token"].split("_", 2)[2] not in listed + core(folder, "token", "list", "--json")
    core(folder, "token", "revoke", "grafana")
    assert asked.get(JOBS, headers=bearer(made["token"])).status_code == 401
    assert "revoked" in core(folder, "token", "list")
