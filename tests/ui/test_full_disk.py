"""Page and REST over a workspace whose disk has no free byte: they show what they showed before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.records.accounts import Accounts
from core.workspace.paths import Workspace
from tests.rigs.small_disk import fill, small_disk
from tests.ui.conftest import Place, cells, words
from tests.ui.rest import PASSWORD, add_user, bearer, client, token

VIEWS = ("overview", "runs", "calendar", "find", "jobs", "connections", "alerts", "administration")


@pytest.fixture
def small(spoilt: Place, look_at: Callable[[Place], None], tmp_path: Path) -> Iterator[Place]:
    """A workspace with a few MB left."""
    with small_disk(tmp_path / "disk", 24) as disk:
        place = spoilt.copy(disk / "ws")
        look_at(place)
        yield place


@pytest.fixture
def full(small: Place) -> Place:
    fill(small.folder.parent)
    return small


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_drawn(full: Place, see: Callable[..., object], view: str) -> None:
    app = see(view)
    assert not app.exception, words(app)  # type: ignore[attr-defined]
    assert "cannot be" not in words(app), words(app)  # type: ignore[arg-type]


def test_a_key_is_found_and_a_run_is_shown(full: Place, see: Callable[..., object]) -> None:
    app = see("find", key="572680000017")
    assert "572680000017" in words(app) + cells(app)  # type: ignore[arg-type]
    run = full.runs("export")[0]
    assert run.run_id in words(see("runs", run=run.run_id))  # type: ignore[arg-type]


@pytest.mark.parametrize("with_users", [False, True])
def test_rest_reads(small: Place, with_users: bool) -> None:
    headers = {}
    if with_users:
        add_user(small.folder, "anna", "admin")
        headers = bearer(token(small.folder, "read"))
    fill(small.folder.parent)
    paths = ("kafka/metrics/summary", "kafka/metrics", "scheduler/history", "scheduler/scheduling")
    with client() as asked:
        for path in paths:
            assert asked.get(f"/api/{path}", headers=headers).status_code == 200, path
        assert asked.get("/api/scheduler/history", headers=headers).json()["total"] == 4
        assert asked.get("/api/monitoring/health", headers=headers).json()["runner"] == "never"


def test_rest_says_that_a_request_cannot_be_written(full: Place) -> None:
    with client() as asked:
        refused = asked.post("/api/scheduler/scheduling/export/run", json={"again": True})
    assert refused.status_code == 503, refused.text
    assert "make room" in refused.text


def test_who_was_signed_in_stays_so(small: Place) -> None:
    add_user(small.folder, "anna", "admin")
    now = datetime.now(UTC)
    file = Workspace(small.folder).ledger_file
    with Accounts(file) as accounts:
        cookie = accounts.sign_in("anna", PASSWORD, address="127.0.0.1", now=now)
    fill(small.folder.parent)
    with Accounts(file) as accounts:
        caller = accounts.whoami(cookie, now)
    assert caller is not None
    assert caller.name == "anna"
