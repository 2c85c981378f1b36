"""The identity of a workspace: created once, kept when the folder is moved, confirmed by the operator for a possible copy."""

from __future__ import annotations

import json
import os
import platform
import shutil
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError, StorageFailed
from core.workspace.identity import WorkspaceLocation, identity_problem, own_identity, read_identity, resolve_identity
from core.workspace.paths import Workspace

NOW = datetime(2026, 1, 17, 1, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "ws").mkdir()
    return Workspace(tmp_path / "ws")


def change_place(workspace: Workspace, **changes: Any) -> None:
    """Rewrites the stored location: another host, path or inode."""
    file = workspace.state_dir / "identity.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    document["place"] |= changes
    file.write_text(json.dumps(document), encoding="utf-8")


def test_it_is_made_once_and_by_all_processes_the_same(workspace: Workspace):
    assert read_identity(workspace) is None
    assert identity_problem(workspace) is None
    with ThreadPoolExecutor(8) as pool:
        ids = {made.id for made in pool.map(lambda _: own_identity(workspace, NOW), range(8))}
    assert len(ids) == 1
    assert own_identity(workspace, NOW).id in ids


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"host": "f0e1d2c3b4a5"}, id="a container that was begun anew: another host name"),
        pytest.param({"path": "/srv/old"}, id="a folder that was renamed"),
        pytest.param({"folder": "1"}, id="a backup that was restored where it was"),
        pytest.param({"path": "/srv/old", "folder": "1"}, id="moved to another disk, and nothing is left there"),
    ],
)
def test_what_is_certainly_the_same_workspace_goes_on_and_remembers_where_it_was(
    workspace: Workspace, changes: dict[str, Any]
):
    made = own_identity(workspace, NOW)
    change_place(workspace, **changes)
    before = read_identity(workspace)
    assert before is not None
    assert identity_problem(workspace) is None
    later = own_identity(workspace, NOW)
    assert (later.id, later.place) == (made.id, WorkspaceLocation.of(workspace))
    assert later.was_at(before.place.host, before.place.path, "2026-01-16T00:00:00Z")
    is_elsewhere = (before.place.host, before.place.path) != (later.place.host, later.place.path)
    assert later.was_at(before.place.host, before.place.path, "2026-01-18T00:00:00Z") is not is_elsewhere


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"host": "other", "path": "/srv/pstt"}, id="another machine and path, the same number by chance"),
        pytest.param({"host": "other", "folder": "1"}, id="the same path on another machine"),
        pytest.param({"host": "other", "path": "/srv/pstt", "folder": "1"}, id="everything"),
    ],
)
def test_what_may_be_a_copy_is_asked_about_until_it_is_answered(workspace: Workspace, changes: dict[str, Any]):
    made = own_identity(workspace, NOW)
    change_place(workspace, **changes)
    with pytest.raises(ConfigError, match=r"may be a copy of .* on other.*identity copied .*identity moved"):
        own_identity(workspace, NOW)
    kept = resolve_identity(workspace, "moved", NOW)
    assert (kept.id, own_identity(workspace, NOW).id, identity_problem(workspace)) == (made.id, made.id, None)
    change_place(workspace, **changes)
    taken = resolve_identity(workspace, "copied", NOW)
    assert taken.id != made.id
    assert own_identity(workspace, NOW).id == taken.id


def test_a_copy_on_the_same_machine_is_one_for_certain(workspace: Workspace, tmp_path: Path):
    own_identity(workspace, NOW)
    copy = Workspace(shutil.copytree(workspace.root, tmp_path / "copy"))
    with pytest.raises(ConfigError, match="this workspace is a copy of"):
        own_identity(copy, NOW)
    assert identity_problem(workspace) is None
    resolve_identity(workspace, "copied", NOW)  # the original takes the new one: then none shares the old
    assert identity_problem(copy) is None


def test_a_folder_that_was_renamed_is_not_asked_about(workspace: Workspace, tmp_path: Path):
    made = own_identity(workspace, NOW)
    renamed = Workspace(workspace.root.rename(tmp_path / "new name"))
    assert own_identity(renamed, NOW).id == made.id
    assert own_identity(renamed, NOW).place.host == platform.node()


def test_a_file_that_cannot_be_read_is_never_made_anew(workspace: Workspace):
    own_identity(workspace, NOW)
    file = workspace.state_dir / "identity.json"
    file.write_text("{", encoding="utf-8")
    with pytest.raises(StorageFailed, match=r"identity.json cannot be read: .*restore it from a backup"):
        own_identity(workspace, NOW)
    assert isinstance(identity_problem(workspace), StorageFailed)
    assert file.read_text(encoding="utf-8") == "{"


def test_without_an_identity_there_is_nothing_to_answer(workspace: Workspace):
    with pytest.raises(ConfigError, match="no identity yet"):
        resolve_identity(workspace, "moved", NOW)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(workspace: Workspace):
    workspace.root.chmod(0o500)
    with pytest.raises(StorageFailed, match="cannot be written"):
        own_identity(workspace, NOW)
