"""Installs the runner or the page as a service: NSSM on Windows, a systemd unit on Linux.

An action is planned as a list of steps without any effect. `--dry-run` prints the list, otherwise it is performed. NSSM
is used instead of the Windows API because it restarts the service, rotates its output and sends Ctrl-C.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from core.errors import ConfigError, RunFailed
from core.workspace.atomic import write_atomically

__all__ = ["Call", "Service", "ServiceAction", "WriteFile", "perform", "status", "steps"]

ServiceAction = Literal["install", "uninstall", "start", "stop", "restart", "status"]
System = Literal["windows", "linux"]

STOP_RESERVE_S = 30
"""Time beyond PSTT_STOP_TIMEOUT_S before the service manager kills: the runner still writes the verdicts of its runs."""
RESTART_AFTER_S = 10
ROTATE_BYTES = 10 * 1024 * 1024
UNITS = Path("/etc/systemd/system")


@dataclass(frozen=True, slots=True)
class Call:
    """A program to run. `may_fail`: its failure means that there was nothing to do."""

    words: tuple[str, ...]
    may_fail: bool = False

    def shown(self, system: System) -> str:
        """Returns the command as typed in a shell."""
        return subprocess.list2cmdline(self.words) if system == "windows" else shlex.join(self.words)


@dataclass(frozen=True, slots=True)
class WriteFile:
    """A file to write."""

    path: PurePath
    text: str

    def shown(self, system: System) -> str:
        """Returns the path and the content."""
        return f"write {self.path}:\n{self.text}"


ServiceStep = Call | WriteFile


@dataclass(frozen=True, slots=True)
class Service:
    """One service and the program that it runs.

    Args:
        workspace: Absolute path.
        python: The interpreter of the virtual environment, absolute path.
        home: The folder that holds `core/` and `ui/`.
        page: Runs the page instead of the runner.
        account: The account it runs under; empty: LocalSystem on Windows, root on Linux.
        stop_timeout_s: PSTT_STOP_TIMEOUT_S, in seconds.
        given_name: Empty: `pstt-kafka`, or `pstt-kafka-page`.
    """

    workspace: PurePath
    python: PurePath
    home: PurePath
    page: bool = False
    account: str = ""
    stop_timeout_s: float = 30.0
    given_name: str = ""

    @classmethod
    def here(cls, workspace: Path, *, page: bool, account: str, stop_timeout_s: float, given_name: str) -> Service:
        """Returns the service of this installation."""
        home = Path(__file__).resolve().parents[2]
        return cls(workspace, Path(sys.executable), home, page, account, stop_timeout_s, given_name)

    @property
    def name(self) -> str:
        """The name in the service manager."""
        return self.given_name or ("pstt-kafka-page" if self.page else "pstt-kafka")

    @property
    def command(self) -> tuple[str, ...]:
        """The program and its arguments."""
        if self.page:
            return (str(self.python), "-m", "streamlit", "run", str(self.home / "ui" / "app.py"))
        return (str(self.python), "-m", "core", "runner", "--workspace", str(self.workspace))

    @property
    def description(self) -> str:
        """Shown in lists of services."""
        return f"PSTT Kafka {'page' if self.page else 'runner'} of {self.workspace}"

    @property
    def kill_after_s(self) -> int:
        """Seconds that a stop may take before the service manager kills the process."""
        return int(self.stop_timeout_s) + STOP_RESERVE_S


def this_system() -> System:
    """Returns which service manager is used."""
    return "windows" if os.name == "nt" else "linux"


def steps(action: ServiceAction, service: Service, *, system: System, nssm: str = "nssm") -> list[ServiceStep]:
    """Returns the steps of an action in order, without any effect.

    Raises:
        ConfigError: The name is not valid for a service, or a path is not valid in a systemd unit.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", service.name):
        raise ConfigError(f"{service.name!r} is no name for a service", remedy="use letters, digits, - and _")
    if system == "windows":
        return _nssm(action, service, nssm)
    return _systemd(action, service)


def _simple(action: ServiceAction, service: Service, system: System, nssm: str = "nssm") -> Call:
    """Returns the call for start, stop, restart or status."""
    if system == "windows":
        return Call((nssm, action, service.name))
    return Call(("systemctl", "is-active" if action == "status" else action, f"{service.name}.service"))


def _nssm(action: ServiceAction, service: Service, nssm: str) -> list[ServiceStep]:
    if action == "install":
        return [Call((nssm, *words)) for words in _nssm_install(service)]
    if action == "uninstall":
        return [Call((nssm, "stop", service.name), may_fail=True), Call((nssm, "remove", service.name, "confirm"))]
    return [_simple(action, service, "windows", nssm)]


def _nssm_install(service: Service) -> list[tuple[str, ...]]:
    program, *arguments = service.command
    log = str(service.workspace / "logs" / f"{service.name}.out.log")
    values: list[tuple[str, ...]] = [
        ("AppDirectory", str(service.home)),
        ("AppEnvironmentExtra", f"PSTT_WORKSPACE={service.workspace}", "PYTHONUTF8=1", "PYTHONUNBUFFERED=1"),
        ("DisplayName", service.name),
        ("Description", service.description),
        ("Start", "SERVICE_AUTO_START"),
        ("AppStdout", log),
        ("AppStderr", log),
        ("AppRotateFiles", "1"),
        ("AppRotateOnline", "1"),
        ("AppRotateBytes", str(ROTATE_BYTES)),
        # Only Ctrl-C, then time for the batches in flight: NSSM's other ways to stop would lose the verdicts.
        ("AppStopMethodSkip", "6"),
        ("AppStopMethodConsole", str(service.kill_after_s * 1000)),
        ("AppExit", "Default", "Restart"),
        ("AppExit", "2", "Exit"),
        ("AppExit", "3", "Exit"),
        ("AppRestartDelay", str(RESTART_AFTER_S * 1000)),
    ]
    if service.account:
        values.append(("ObjectName", service.account))
    return [
        ("install", service.name, program, *arguments),
        *(("set", service.name, *value) for value in values),
    ]


def _systemd(action: ServiceAction, service: Service) -> list[ServiceStep]:
    unit = f"{service.name}.service"
    reload = Call(("systemctl", "daemon-reload"))
    if action == "install":
        file = WriteFile(UNITS / unit, unit_text(service))
        return [file, reload, Call(("systemctl", "enable", unit))]
    if action == "uninstall":
        gone = Call(("systemctl", "disable", "--now", unit), may_fail=True)
        return [gone, Call(("rm", "-f", str(UNITS / unit))), reload]
    return [_simple(action, service, "linux")]


def unit_text(service: Service) -> str:
    """Returns the text of the systemd unit. The service may write only to its workspace."""
    command = " ".join(_unit_word(word) for word in service.command)
    user = f"User={service.account}\n" if service.account else ""
    # Exit codes 2 and 3, a wrong setting or a second runner, are not fixed by a restart.
    return f"""[Unit]
Description={service.description.replace("%", "%%")}
After=network-online.target
Wants=network-online.target

[Service]
Type=exec
{user}ExecStart={command}
WorkingDirectory={_unit_path(service.home)}
Environment={_unit_word(f"PSTT_WORKSPACE={service.workspace}")} PYTHONUTF8=1 PYTHONUNBUFFERED=1
Restart=on-failure
RestartSec={RESTART_AFTER_S}
RestartPreventExitStatus=2 3
# The signal goes to the runner only; it stops its runs and waits for them.
KillMode=mixed
KillSignal=SIGTERM
TimeoutStopSec={service.kill_after_s}
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={_unit_path(service.workspace)}
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
CapabilityBoundingSet=
SystemCallArchitectures=native
SystemCallFilter=@system-service

[Install]
WantedBy=multi-user.target
"""


def _unit_word(word: str) -> str:
    """Returns one argument of ExecStart, quoted; % and $ are doubled because systemd expands them."""
    _refuse_line_ends(word)
    word = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unit_path(path: PurePath) -> str:
    """Returns a path for a unit: a blank would begin the next path, and % is a specifier."""
    _refuse_line_ends(str(path))
    if re.search(r"[\s\"'\\]", str(path)):
        raise ConfigError(
            f"the path {path} cannot be written in a systemd unit", remedy="use a folder without blanks and quotes"
        )
    return str(path).replace("%", "%%")


def _refuse_line_ends(text: str) -> None:
    if re.search(r"[\r\n\0]", text):
        raise ConfigError("a path with a line end cannot be a service's", remedy="rename the folder")


def perform(planned: list[ServiceStep], system: System) -> list[str]:
    """Performs the steps in order, stops at the first that fails, and returns the output of the programs.

    Raises:
        ConfigError: The service manager is not installed.
        RunFailed: A step failed; with the service manager's own message.
    """
    printed: list[str] = []
    for step in planned:
        if isinstance(step, WriteFile):
            write_atomically(Path(step.path), step.text)
            continue
        code, text = _call(step, system)
        if code and not step.may_fail:
            raise RunFailed(
                f"{step.shown(system)} failed",
                why=text or f"exit code {code}",
                remedy="run this from a console with an administrator's rights"
                if system == "windows"
                else "run this as root: sudo …",
            )
        printed += [text] if text and not code else []
    return printed


def status(service: Service, *, system: System, nssm: str = "nssm") -> tuple[bool, str]:
    """Returns whether the service runs, and its state as the service manager names it."""
    _, text = _call(_simple("status", service, system, nssm), system)
    return text.strip() in ("active", "SERVICE_RUNNING"), text or "unknown"


def _call(call: Call, system: System) -> tuple[int, str]:
    program = shutil.which(call.words[0])
    if program is None:
        raise ConfigError(
            f"{call.words[0]} is not installed, or not on the PATH",
            remedy="get nssm.exe from its site and put it on the PATH, or name it by --nssm"
            if system == "windows"
            else "this Linux has no systemd; start python -m core runner by its own service manager",
        )
    # No timeout: the service manager limits a stop to `kill_after_s`.
    done = subprocess.run([program, *call.words[1:]], capture_output=True, check=False)  # noqa: S603 - no shell
    return done.returncode, _text(done.stdout + done.stderr)


def _text(output: bytes) -> str:
    """Decodes the output of a program. NSSM writes UTF-16 into a pipe, the others the console's encoding."""
    return output.replace(b"\0", b"").decode(sys.getdefaultencoding(), "replace").strip()
