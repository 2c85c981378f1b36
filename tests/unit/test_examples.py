"""The example files are correct: each setting with its default, a job and connections that pass the check."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from core.admin.check import check
from core.workspace.paths import Workspace
from core.workspace.settings import Settings

ROOT = Path(__file__).parents[2]
SHOWN = re.compile(r"^#([A-Z][A-Z_]+)=(.*)$", re.MULTILINE)
PASSWORDS = re.compile(r"env:([A-Z0-9_]+)")


def shown() -> dict[str, str]:
    return dict(SHOWN.findall((ROOT / ".env.example").read_text(encoding="utf-8")))


def test_the_example_lists_every_setting_once():
    names = [name for name, _ in SHOWN.findall((ROOT / ".env.example").read_text(encoding="utf-8"))]
    assert sorted(names) == sorted(Settings.model_fields)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_the_example_shows_the_default(name: str):
    text = shown()[name]
    default = Settings.model_fields[name].get_default(call_default_factory=True)
    assert Settings.model_validate({name: text} if text else {}) == Settings()
    assert bool(text) == (default not in (None, ""))


def test_the_examples_pass_the_check(tmp_path: Path):
    shutil.copytree(ROOT / "queries", tmp_path / "queries")
    shutil.copy(ROOT / "connections.example.json", tmp_path / "connections.json")
    shutil.copy(ROOT / ".env.example", tmp_path / ".env")
    text = (tmp_path / "connections.json").read_text(encoding="utf-8")
    environ = {name: "secret-of-the-test" for name in PASSWORDS.findall(text)}
    assert len(json.loads(text)["connections"]) == 3
    assert check(Workspace(tmp_path), environ) == []
