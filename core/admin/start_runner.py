"""How the runner of one workspace is started: the exact commands, and as a service from the page."""

from __future__ import annotations

import ctypes
import os
import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from core.admin.os_service import Call, Service, System, perform, steps, this_system
from core.errors import ConfigError
from core.records.opened import OpenWorkspace
from core.records.rights import Caller, require
from core.workspace.paths import Workspace

__all__ = ["service_commands", "service_problem", "start_as_service", "start_commands"]

BOOTED = Path("/run/systemd/system")
"""It exists where systemd is the service manager (sd_booted(3)); a container may have the program and no systemd."""


def start_commands(workspace: Workspace, *, system: System | None = None) -> list[str]:
    """Returns the lines that start the runner of this workspace in a terminal, with every path.

    Args:
        workspace: Whose runner.
        system: Whose shell; None: that of this machine.
    """
    service = _service(workspace)
    return _lines(service, service.command, system or this_system())


def service_commands(workspace: Workspace, *, system: System | None = None) -> list[str]:
    """Returns the lines with which an administrator of the machine makes the runner a service and starts it."""
    service, chosen = _service(workspace), system or this_system()
    words = (str(service.python), "-m", "core", "service")
    place = ("--workspace", str(service.workspace))
    lines = _lines(service, (*words, "install", *place), chosen)
    lines.append(Call((*words, "start", *place)).shown(chosen))
    return lines


def service_problem(*, system: System | None = None) -> str:
    """Returns why this process cannot make the runner a service; empty if it can."""
    if (system or this_system()) == "windows":
        if shutil.which("nssm") is None:
            return "nssm.exe, which makes it a service, is not on the PATH of this page"
        return "" if _is_administrator() else "this page does not run with the rights of an administrator"
    if not BOOTED.is_dir() or shutil.which("systemctl") is None:
        return "this machine has no systemd"
    return "" if _is_administrator() else "only root may install a service, and this page runs under another account"


def start_as_service(opened: OpenWorkspace, *, caller: Caller, now: datetime) -> list[str]:
    """Makes the runner of this workspace a service that starts with the machine, and starts it.

    Returns:
        What the service manager printed.

    Raises:
        AccessRefused: The caller is no admin.
        ConfigError: This process cannot do it; the text says why.
        RunFailed: The service manager refuses.
    """
    require(caller, "service")
    if why := service_problem():
        raise ConfigError(
            "the runner cannot be made a service from here",
            why=why,
            remedy="; ".join(service_commands(opened.workspace)),
        )
    service = replace(_service(opened.workspace), stop_timeout_s=opened.settings.PSTT_STOP_TIMEOUT_S)
    system = this_system()
    planned = [*steps("install", service, system=system), *steps("start", service, system=system)]
    opened.ledger.audit.add(caller.name, "service", f"service {service.name}", now, after={"action": "install, start"})
    return perform(planned, system)


def _service(workspace: Workspace) -> Service:
    return Service.here(workspace.root.resolve(), page=False, account="", stop_timeout_s=30.0, given_name="")


def _lines(service: Service, words: tuple[str, ...], system: System) -> list[str]:
    # Two lines: PowerShell 5 has no &&, and cmd needs /d for another drive, which pushd does not.
    enter = Call(("pushd" if system == "windows" else "cd", str(service.home)))
    return [enter.shown(system), Call(words).shown(system)]


def _is_administrator() -> bool:
    if this_system() == "windows":
        return bool(ctypes.windll.shell32.IsUserAnAdmin())  # type: ignore[attr-defined]
    return os.geteuid() == 0
