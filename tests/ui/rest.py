"""The REST interface over a workspace of its own, as a test calls it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.testclient import TestClient

from core.records.accounts import Accounts
from core.records.audit import AuditEntry
from core.records.ledger import Ledger
from core.records.rights import Role, TokenScope
from core.workspace.paths import Workspace
from tests.rigs.callers import caller
from ui.api import api
from ui.http_security import SecurityHeaders

HOST = "http://127.0.0.1:8501"
PASSWORD = "four easy words here"


def client(**options: Any) -> TestClient:
    """Asks the interface where the page mounts it."""
    app = Starlette(routes=[Mount("/api", api)], middleware=[Middleware(SecurityHeaders)])
    return TestClient(app, base_url=HOST, **options)


def token(folder: Path, scope: TokenScope, *, lasts: timedelta = timedelta(days=1), now: datetime | None = None) -> str:
    """A new token."""
    with Accounts(Workspace(folder).ledger_file) as accounts:
        return accounts.add_token(scope, scope, lasts=lasts, by=caller("test"), now=now or datetime.now(UTC))[1]


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def add_user(folder: Path, name: str, role: Role) -> None:
    with Accounts(Workspace(folder).ledger_file) as accounts:
        accounts.add_user(name, role, PASSWORD, by=caller("test"), now=datetime.now(UTC))


def sign_in(asked: TestClient, name: str, password: str = PASSWORD, headers: Mapping[str, str] = {}) -> Any:
    """Fills in the form; the answer."""
    page = asked.get("/api/signin", headers=headers)
    form = re.search(r'name="form" value="([^"]+)"', page.text)
    assert form is not None
    data = {"name": name, "password": password, "form": form[1]}
    return asked.post("/api/signin", data=data, headers=headers, follow_redirects=False)


def audit(folder: Path) -> list[AuditEntry]:
    """The newest first."""
    with Ledger(Workspace(folder).ledger_file) as ledger:
        return ledger.audit.entries()
