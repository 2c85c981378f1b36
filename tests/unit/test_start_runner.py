"""The commands that start the runner of a workspace, and the service that the page makes of it."""

import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.admin import start_runner
from core.admin.os_service import Service
from core.admin.start_runner import service_commands, service_problem, start_as_service, start_commands
from core.app import App
from core.errors import AccessRefused, ConfigError
from core.workspace.paths import Workspace
from tests.rigs.callers import caller
from tests.rigs.workspace import ROOT, environment, run_command

NOW = datetime(2026, 1, 17, tzinfo=UTC)


def test_the_command_names_interpreter_and_workspace_and_finds_the_program(tmp_path):
    folder = tmp_path / "a workspace"
    folder.mkdir()
    enter, command = start_commands(Workspace(folder), system="linux")
    assert enter == f"cd {shlex.quote(str(ROOT))}"
    assert command.endswith(f"-m core runner --workspace '{folder}'")
    windows = start_commands(Workspace(folder), system="windows")
    assert windows[0].startswith("pushd ")
    assert f'--workspace "{folder}"' in windows[1]


def test_the_service_commands_are_those_of_the_command_line(tmp_path):
    lines = service_commands(Workspace(tmp_path))
    assert [line.partition(" -m core ")[2].split(" --")[0] for line in lines[1:]] == [
        "service install",
        "service start",
    ]
    done = run_command("service", "install", "--dry-run", "--workspace", tmp_path, env=environment(), cwd=ROOT)
    python = Service.here(tmp_path, page=False, account="", stop_timeout_s=30, given_name="").python
    begins = "nssm install pstt-kafka " if sys.platform == "win32" else "ExecStart="
    assert f"{begins}{python}" in done.stdout


@pytest.fixture
def booted(tmp_path, monkeypatch) -> Path:
    """A systemctl that records how it is called, as root would call it; a test must not change this machine."""
    if sys.platform == "win32":
        pytest.skip("systemctl is of Linux")
    calls, program = tmp_path / "calls", tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\n', encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "units").mkdir()
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    monkeypatch.setattr(start_runner, "BOOTED", tmp_path)
    monkeypatch.setattr(start_runner, "_is_administrator", lambda: True)
    monkeypatch.setattr("core.admin.os_service.UNITS", tmp_path / "units")
    return calls


@pytest.fixture
def opened(tmp_path):
    (tmp_path / "ws").mkdir()
    with App.open(tmp_path / "ws", {}, log=False) as app:
        yield app


def test_an_admin_makes_the_runner_a_service(booted, opened):
    start_as_service(opened, caller=caller("anna", "admin"), now=NOW)
    assert booted.read_text(encoding="utf-8").splitlines() == [
        "daemon-reload", "enable pstt-kafka.service", "start pstt-kafka.service",
    ]  # fmt: skip
    unit = (booted.parent / "units" / "pstt-kafka.service").read_text(encoding="utf-8")
    assert f"--workspace {opened.workspace.root}" in unit
    (entry,) = opened.ledger.audit.entries()
    assert (entry.who, entry.action, entry.object) == ("anna", "service", "service pstt-kafka")


def test_an_operator_does_not(booted, opened):
    with pytest.raises(AccessRefused):
        start_as_service(opened, caller=caller("olga", "operator"), now=NOW)
    assert not booted.exists()


def test_why_it_is_not_possible_is_said_with_the_command(booted, opened, monkeypatch):
    monkeypatch.setattr(start_runner, "_is_administrator", lambda: False)
    assert service_problem(system="linux").startswith("only root")
    with pytest.raises(ConfigError) as caught:
        start_as_service(opened, caller=caller("anna", "admin"), now=NOW)
    assert "service install" in (caught.value.remedy or "")
    monkeypatch.setattr(start_runner, "BOOTED", Path("/nowhere"))
    assert service_problem(system="linux") == "this machine has no systemd"
    assert "nssm" in service_problem(system="windows")
    assert opened.ledger.audit.entries() == []
