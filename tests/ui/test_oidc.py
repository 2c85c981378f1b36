"""Sign-in by the company's account, with a provider that accepts every visitor; rights are decided by the product."""

import re
import subprocess
import sys

import pytest

from core.records.accounts import Accounts
from core.workspace.paths import Workspace
from tests.rigs.callers import caller
from tests.rigs.oidc import OidcRig
from tests.rigs.sweeps import sweep
from tests.rigs.workspace import ROOT, environment
from tests.ui.conftest import _free_port, _wait_for, now


@pytest.fixture
def provider():
    with OidcRig(email="maria@example.com", email_verified=True, name="Maria") as made:
        yield made


@pytest.fixture
def address(spoilt, provider, tmp_path):
    """A page where maria@example.com is an operator, and anna an admin with a password."""
    with Accounts(Workspace(spoilt.folder).ledger_file) as accounts:
        accounts.add_user("anna", "admin", "correct horse battery", by=caller("test"), now=now())
        accounts.add_user("maria", "operator", None, email="maria@example.com", by=caller("test"), now=now())
    port = _free_port()
    secrets = tmp_path / "secrets.toml"
    secrets.write_text(provider.secrets(f"http://127.0.0.1:{port}/oauth2callback"), encoding="utf-8")
    command = [sys.executable, "-m", "streamlit", "run", "ui/app.py", "--server.port", str(port)]
    with (tmp_path / "page.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--secrets.files", str(secrets)],
            cwd=ROOT,
            env=environment(PSTT_WORKSPACE=str(spoilt.folder), **spoilt.env),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(f"http://127.0.0.1:{port}/_stcore/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)
    log_text = (tmp_path / "page.log").read_text(encoding="utf-8")
    assert "Traceback" not in log_text
    assert "client-secret-4711" not in log_text


def sign_in(seen):
    seen.has("Sign in with the company's account")
    assert "Messages per day" not in seen.page.content()
    seen.page.get_by_role("button", name="Sign in with the company's account").click()


def test_a_known_address_signs_in_with_its_role_and_signs_out(address, provider, visit):
    seen = visit(address)
    sign_in(seen)
    seen.heading("Overview")
    seen.has(re.compile("maria · operator"))
    (asked,) = provider.asked
    assert (asked["response_type"], asked["client_id"]) == ("code", "pstt-page")
    seen.page.get_by_role("link", name="Administration", exact=True).click()
    seen.heading("Administration")
    seen.page.locator(".st-key-user-menu button").first.click()
    seen.page.get_by_role("button", name="Sign out", exact=True).click()
    seen.has("Sign in with the company's account")
    assert "Messages per day" not in seen.page.content()


@pytest.mark.parametrize(
    "claims",
    sweep(
        [{"email": "luca@example.com"}, {"email_verified": False}, {"email": ""}], always=[{"email_verified": False}]
    ),
    ids=["unknown", "unverified", "none"],
)
def test_whoever_the_provider_knows_and_we_do_not_sees_no_view(address, provider, visit, claims):
    provider.claims |= claims
    seen = visit(address)
    sign_in(seen)
    seen.has("your account of the company has no role here; an admin can add it")
    assert "Messages per day" not in seen.page.content()
