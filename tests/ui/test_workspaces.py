"""Several workspaces on one page (PSTT_WORKSPACES): chosen on the page, in an address and in a request."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.admin.demo import SLUG, make_demo
from core.errors import ConfigError
from core.workspace.jobs import SUFFIX
from core.workspace.paths import page_workspaces
from tests.rigs.workspace import ROOT
from tests.ui.conftest import cells
from tests.ui.rest import bearer, client, token
from ui import data
from ui.components.drawn import DRAWN

JOBS = "/api/scheduler/scheduling"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two workspaces, `rome` and `milan`, whose jobs have other names."""
    made = []
    for name in ("rome", "milan"):
        make_demo(tmp_path / name, 1, now=datetime.now(UTC))
        file = tmp_path / name / "queries" / f"{SLUG}{SUFFIX}"
        document = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(document | {"name": f"Job of {name}"}), encoding="utf-8")
        made.append(tmp_path / name)
    monkeypatch.setenv("PSTT_WORKSPACES", f"rome={made[0]}; {made[1]}")
    data.clear_caches()
    return made[0], made[1]


@pytest.mark.usefixtures("folders")
def test_a_request_names_its_workspace_and_the_first_is_the_default() -> None:
    with client() as asked:
        for query, name in (("", "rome"), ("?workspace=rome", "rome"), ("?workspace=milan", "milan")):
            assert asked.get(f"{JOBS}/{SLUG}{query}").json()["job"]["name"] == f"Job of {name}"
        refused = asked.get(f"{JOBS}/{SLUG}?workspace=milano")
        assert refused.status_code == 422
        assert refused.json()["detail"] == 'there is no workspace "milano"'
        assert (
            asked.get(f"{JOBS}/{SLUG}").json()["job"]["name"] == "Job of rome"
        )  # nothing is left of the request before


def test_tokens_are_those_of_the_first_workspace(folders: tuple[Path, Path]) -> None:
    first, second = (token(folder, "read") for folder in folders)
    with client() as asked:
        assert (
            asked.get(f"{JOBS}/{SLUG}?workspace=milan", headers=bearer(first)).json()["job"]["name"] == "Job of milan"
        )
        assert asked.get(f"{JOBS}/{SLUG}?workspace=milan", headers=bearer(second)).status_code == 401


def test_a_change_goes_to_the_named_workspace_alone(folders: tuple[Path, Path]) -> None:
    before = (folders[0] / "queries" / f"{SLUG}{SUFFIX}").read_bytes()
    with client() as asked:
        assert asked.post(f"{JOBS}/{SLUG}/disable?workspace=milan").status_code == 200
    assert (folders[0] / "queries" / f"{SLUG}{SUFFIX}").read_bytes() == before
    assert '"enabled": false' in (folders[1] / "queries" / f"{SLUG}{SUFFIX}").read_text(encoding="utf-8")


@pytest.mark.usefixtures("folders")
def test_the_page_shows_the_chosen_one_and_its_address_says_which() -> None:
    app = AppTest.from_file(str(ROOT / "ui" / "page.py"), default_timeout=60)
    app.session_state[DRAWN] = True
    app.session_state["language"] = "en"
    app.run()
    assert not app.exception
    assert "Job of rome" in cells(app)
    assert app.query_params["workspace"] == "rome"
    app.session_state["something typed"] = "x"
    app.get("button_group")[0].set_value("milan").run()
    assert "Job of milan" in cells(app)
    assert "Job of rome" not in cells(app)
    assert app.query_params["workspace"] == "milan"
    assert "something typed" not in app.session_state


@pytest.mark.usefixtures("folders")
def test_an_address_with_a_workspace_shows_it() -> None:
    app = AppTest.from_file(str(ROOT / "ui" / "page.py"), default_timeout=60)
    app.session_state[DRAWN] = True
    app.query_params["workspace"] = "milan"
    assert "Job of milan" in cells(app.run())


def test_one_workspace_needs_no_name(tmp_path: Path) -> None:
    assert list(page_workspaces({"PSTT_WORKSPACE": str(tmp_path)})) == [tmp_path.name]


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("a=/no/such/folder", "there is no workspace"),
        ("a={0};a={1}", "twice"),
        ("a={0};b={0}", "twice"),
        ("={0}", "has no name"),
    ],
)
def test_a_wrong_list_is_one_error(value: str, what: str, tmp_path: Path) -> None:
    folders = [tmp_path / "x", tmp_path / "y"]
    for folder in folders:
        folder.mkdir()
    with pytest.raises(ConfigError, match=what):
        page_workspaces({"PSTT_WORKSPACES": value.format(*folders)})
