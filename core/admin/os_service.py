"""The runner, or the page, as a service of the machine: NSSM on Windows, a systemd unit on Linux.

What would be done is a list of steps, made without touching anything; `--dry-run` prints that list, and doing it runs
the same list. NSSM is asked instead of the Windows API because it restarts, rotates output and sends Ctrl-C by itself.
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
from core.workspace.atomic import write_whole

__all__ = ["Action", "Call", "Service", "WriteFile", "perform", "status", "steps"]

Action = Literal["install", "uninstall", "start", "stop", "restart", "status"]
System = Literal["windows", "linux"]

STOP_RESERVE_S = 30
"""What a service manager waits beyond PSTT_STOP_TIMEOUT_S before it kills: the verdict has to be written."""
RESTART_AFTER_S = 10
ROTATE_BYTES = 10 * 1024 * 1024
UNITS = Path("/etc/systemd/system")


@dataclass(frozen=True, slots=True)
class Call:
    """A program that is run; `may_fail` where its failure means that there was nothing to do."""

    words: tuple[str, ...]
    may_fail: bool = False

    def shown(self, system: System) -> str:
        """As one would type it."""
        return subprocess.list2cmdline(self.words) if system == "windows" else shlex.join(self.words)


@dataclass(frozen=True, slots=True)
class WriteFile:
    """A file that is written whole."""

    path: PurePath
    text: str

    def shown(self, system: System) -> str:
        """The path and what would stand there."""
        return f"write {self.path}:\n{self.text}"


Step = Call | WriteFile


@dataclass(frozen=True, slots=True)
class Service:
    """One service and what it runs.

    Args:
        workspace: Absolute.
        python: The interpreter of the virtual environment, absolute.
        home: The folder that holds `core/` and `ui/`.
        page: The page instead of the runner.
        account: Whose rights it has; empty: the system's own account on Windows, root on Linux.
        stop_timeout_s: PSTT_STOP_TIMEOUT_S.
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
        """The service that this very installation would be."""
        home = Path(__file__).resolve().parent.parent
        return cls(workspace, Path(sys.executable), home, page, account, stop_timeout_s, given_name)

    @property
    def name(self) -> str:
        """What the service manager calls it."""
        return self.given_name or ("pstt-kafka-page" if self.page else "pstt-kafka")

    @property
    def command(self) -> tuple[str, ...]:
        """The program and its arguments."""
        if self.page:
            return (str(self.python), "-m", "streamlit", "run", str(self.home / "ui" / "app.py"))
        return (str(self.python), "-m", "core", "runner", "--workspace", str(self.workspace))

    @property
    def description(self) -> str:
        """For lists of services."""
        return f"PSTT Kafka {'page' if self.page else 'runner'} of {self.workspace}"

    @property
    def kill_after_s(self) -> int:
        """How long a stop may take until the manager kills."""
        return int(self.stop_timeout_s) + STOP_RESERVE_S


def this_system() -> System:
    """Which service manager is asked."""
    return "windows" if os.name == "nt" else "linux"


def steps(action: Action, service: Service, *, system: System, nssm: str = "nssm") -> list[Step]:
    """What has to be done, in order; touches nothing.

    Raises:
        ConfigError: The name cannot be a service's, or a path cannot stand in a unit.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", service.name):
        raise ConfigError(f"{service.name!r} is no name for a service", remedy="use letters, digits, - and _")
    if system == "windows":
        return _nssm(action, service, nssm)
    return _systemd(action, service)


def _simple(action: Action, service: Service, system: System, nssm: str = "nssm") -> Call:
    """start, stop, restart and status are one call."""
    if system == "windows":
        return Call((nssm, action, service.name))
    return Call(("systemctl", "is-active" if action == "status" else action, f"{service.name}.service"))


def _nssm(action: Action, service: Service, nssm: str) -> list[Step]:
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
        # Only Ctrl-C, and time for the batch in hand; closing windows or threads would lose the verdict.
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


def _systemd(action: Action, service: Service) -> list[Step]:
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
    """The unit: everything is read-only to the service but its workspace."""
    command = " ".join(_unit_word(word) for word in service.command)
    user = f"User={service.account}\n" if service.account else ""
    # 2 and 3: a wrong setting, or a runner that works already. Beginning anew would not mend it.
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
# Only the runner is told; it asks its runs to end and waits for them.
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
    """One argument of ExecStart, with what systemd would replace written twice."""
    _refuse_line_ends(word)
    word = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", word):
        return word
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unit_path(path: PurePath) -> str:
    """A path of a unit: a blank would begin the next path, and % is a specifier."""
    _refuse_line_ends(str(path))
    if re.search(r"[\s\"'\\]", str(path)):
        raise ConfigError(
            f"the path {path} cannot stand in a systemd unit", remedy="use a folder without blanks and quotes"
        )
    return str(path).replace("%", "%%")


def _refuse_line_ends(text: str) -> None:
    if re.search(r"[\r\n\0]", text):
        raise ConfigError("a path with a line end cannot be a service's", remedy="rename the folder")


def perform(planned: list[Step], system: System) -> list[str]:
    """Does the steps in order and stops at the first that fails; what the programs printed.

    Raises:
        ConfigError: The service manager is not there.
        RunFailed: A step was refused; says which, and the manager's own words.
    """
    printed: list[str] = []
    for step in planned:
        if isinstance(step, WriteFile):
            write_whole(Path(step.path), step.text)
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
    """Whether it runs, and the manager's word for its state."""
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
    # No time-out: the manager bounds a stop by `kill_after_s` itself.
    done = subprocess.run([program, *call.words[1:]], capture_output=True, check=False)  # noqa: S603 - no shell
    return done.returncode, _text(done.stdout + done.stderr)


def _text(output: bytes) -> str:
    """NSSM writes UTF-16 into a pipe, everything else the console's own encoding."""
    return output.replace(b"\0", b"").decode(sys.getdefaultencoding(), "replace").strip()
