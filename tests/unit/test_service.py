"""The service: the calls of NSSM and systemd, step by step, and the error when one is refused."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest

from core.admin.os_service import Call, Service, WriteFile, perform, status, steps, unit_text
from core.errors import ConfigError, RunFailed

WINDOWS = Service(
    PureWindowsPath(r"D:\Dati PSTT"),
    PureWindowsPath(r"C:\PSTT Kafka\.venv\Scripts\python.exe"),
    PureWindowsPath(r"C:\PSTT Kafka"),
    account="AZIENDA\\pstt$",
)
LINUX = Service(PurePosixPath("/srv/pstt"), PurePosixPath("/opt/pstt/.venv/bin/python"), PurePosixPath("/opt/pstt"))


def words(action, service=WINDOWS) -> list[tuple[str, ...]]:
    return [step.words for step in steps(action, service, system="windows") if isinstance(step, Call)]


def test_windows_install_is_one_nssm_call_and_its_settings():
    install, *settings = words("install")
    assert install == (
        "nssm",
        "install",
        "pstt-kafka",
        r"C:\PSTT Kafka\.venv\Scripts\python.exe",
        "-m",
        "core",
        "runner",
        "--workspace",
        r"D:\Dati PSTT",
    )
    assert {call[:3] for call in settings} >= {("nssm", "set", "pstt-kafka")}
    told = {call[3]: call[4:] for call in settings if call[3] != "AppExit"}
    assert told == {
        "AppDirectory": (r"C:\PSTT Kafka",),
        "AppEnvironmentExtra": (r"PSTT_WORKSPACE=D:\Dati PSTT", "PYTHONUTF8=1", "PYTHONUNBUFFERED=1"),
        "DisplayName": ("pstt-kafka",),
        "Description": (r"PSTT Kafka runner of D:\Dati PSTT",),
        "Start": ("SERVICE_AUTO_START",),
        "AppStdout": (r"D:\Dati PSTT\logs\pstt-kafka.out.log",),
        "AppStderr": (r"D:\Dati PSTT\logs\pstt-kafka.out.log",),
        "AppRotateFiles": ("1",),
        "AppRotateOnline": ("1",),
        "AppRotateBytes": ("10485760",),
        "AppStopMethodSkip": ("6",),
        "AppStopMethodConsole": ("60000",),
        "AppRestartDelay": ("10000",),
        "ObjectName": ("AZIENDA\\pstt$",),
    }
    assert [call[4:] for call in settings if call[3] == "AppExit"] == [
        ("Default", "Restart"),
        ("2", "Exit"),
        ("3", "Exit"),
    ]


def test_a_stop_of_the_service_waits_longer_than_the_run_may():
    patient = Service(WINDOWS.workspace, WINDOWS.python, WINDOWS.home, stop_timeout_s=600)
    assert ("nssm", "set", "pstt-kafka", "AppStopMethodConsole", "630000") in words("install", patient)
    assert "TimeoutStopSec=630\n" in unit_text(
        patient_linux := Service(LINUX.workspace, LINUX.python, LINUX.home, stop_timeout_s=600)
    )
    assert patient_linux.kill_after_s == 630


@pytest.mark.parametrize("action", ["start", "stop", "restart", "status"])
def test_the_other_actions_are_one_call(action):
    assert words(action) == [("nssm", action, "pstt-kafka")]
    asked = "is-active" if action == "status" else action
    assert steps(action, LINUX, system="linux") == [Call(("systemctl", asked, "pstt-kafka.service"))]


def test_uninstall_stops_first_and_asks_nothing():
    assert words("uninstall") == [("nssm", "stop", "pstt-kafka"), ("nssm", "remove", "pstt-kafka", "confirm")]


def test_linux_install_writes_the_unit_and_enables_it():
    file, reload, enable = steps("install", LINUX, system="linux")
    assert isinstance(file, WriteFile)
    assert file.path.as_posix() == "/etc/systemd/system/pstt-kafka.service"
    assert reload == Call(("systemctl", "daemon-reload"))
    assert enable == Call(("systemctl", "enable", "pstt-kafka.service"))


def test_the_unit_lets_the_service_write_into_its_workspace_only():
    text = unit_text(LINUX)
    assert "ExecStart=/opt/pstt/.venv/bin/python -m core runner --workspace /srv/pstt\n" in text
    assert "WorkingDirectory=/opt/pstt\n" in text
    assert "ProtectSystem=strict\n" in text
    assert "ReadWritePaths=/srv/pstt\n" in text
    assert "KillMode=mixed\n" in text
    assert "RestartPreventExitStatus=2 3\n" in text
    assert "User=" not in text


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path):
    unit = tmp_path / "pstt-kafka.service"
    here = Service(tmp_path, Path(sys.executable), tmp_path, account="daemon")
    unit.write_text(unit_text(here), encoding="utf-8")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "pstt-kafka" in line]
    assert ours == []


def test_what_systemd_would_replace_is_written_so_that_it_stays():
    odd = Service(PurePosixPath("/srv/100%"), PurePosixPath("/opt/a b/$x/python"), PurePosixPath("/opt"))
    text = unit_text(odd)
    assert 'ExecStart="/opt/a b/$$x/python" -m core runner --workspace /srv/100%%\n' in text
    assert "ReadWritePaths=/srv/100%%\n" in text


@pytest.mark.parametrize("folder", ["/srv/a b", '/srv/a"b', "/srv/a\nExecStartPre=/bin/sh"])
def test_a_path_that_cannot_stand_in_a_unit_is_refused(folder):
    with pytest.raises(ConfigError):
        unit_text(Service(PurePosixPath(folder), LINUX.python, LINUX.home))


@pytest.mark.parametrize("name", ["a b", "../x", "-rf", "x;reboot", "ü"])
@pytest.mark.parametrize("system", ["windows", "linux"])
def test_a_name_that_is_no_service_is_refused(name, system):
    service = Service(LINUX.workspace, LINUX.python, LINUX.home, given_name=name)
    with pytest.raises(ConfigError, match="no name for a service"):
        steps("start", service, system=system)


def test_the_page_is_a_service_beside_the_runner():
    page = Service(LINUX.workspace, LINUX.python, LINUX.home, page=True)
    assert page.name == "pstt-kafka-page"
    assert "ExecStart=/opt/pstt/.venv/bin/python -m streamlit run /opt/pstt/ui/app.py\n" in unit_text(page)


def test_a_manager_that_is_not_there_is_one_clear_error():
    with pytest.raises(ConfigError, match="not on the PATH") as caught:
        perform([Call(("no-such-manager", "start"))], "windows")
    assert "nssm" in caught.value.remedy


def test_the_managers_own_words_are_shown_and_the_rest_is_not_done(tmp_path: Path):
    after = tmp_path / "after"
    no = Call((sys.executable, "-c", "import sys; print('Access is denied.'); sys.exit(5)"))
    with pytest.raises(RunFailed, match="Access is denied") as caught:
        perform([no, WriteFile(after, "x")], "windows")
    assert "administrator" in caught.value.remedy
    assert not after.exists()


def test_a_step_that_may_fail_does_not_stop_the_rest(tmp_path: Path):
    after = tmp_path / "after"
    no = Call((sys.executable, "-c", "import sys; sys.exit(5)"), may_fail=True)
    assert perform([no, WriteFile(after, "x")], "linux") == []
    assert after.read_text(encoding="utf-8") == "x"


def test_the_state_is_read_from_what_nssm_writes(tmp_path: Path):
    """NSSM writes UTF-16 into a pipe; a substitute does the same."""
    answer = "import sys\nsys.stdout.buffer.write('SERVICE_RUNNING\\r\\n'.encode('utf-16-le'))\n"
    nssm = tmp_path / "nssm"
    if sys.platform == "win32":
        nssm.with_suffix(".py").write_text(answer, encoding="utf-8")
        nssm = nssm.with_suffix(".bat")
        nssm.write_text(f'@"{sys.executable}" "{nssm.with_suffix(".py")}"\n', encoding="utf-8")
    else:
        nssm.write_text(f"#!{sys.executable}\n{answer}", encoding="utf-8")
        nssm.chmod(0o755)
    assert status(WINDOWS, system="windows", nssm=str(nssm)) == (True, "SERVICE_RUNNING")


def test_the_powershell_wrapper_knows_the_same_actions_and_options():
    """It cannot run here; its arguments have to be ones that the command accepts."""
    from typer.main import get_command

    from core.cli.inspect import app

    script = (Path(__file__).parents[2] / "deploy" / "manage_service.ps1").read_text(encoding="utf-8")
    command = get_command(app).commands["service"]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    assert set(re.findall(r"'(--[a-z-]+)'", script)) <= options
    (actions,) = re.findall(r"ValidateSet\(([^)]*)\)", script)
    assert set(re.findall(r"'(\w+)'", actions)) == {"install", "uninstall", "start", "stop", "restart", "status"}


def test_the_service_of_this_installation_runs_in_the_folder_of_core_and_ui(tmp_path):
    service = Service.here(tmp_path, page=True, account="", stop_timeout_s=30, given_name="")
    assert (Path(service.home) / "ui" / "app.py").is_file()
    assert (Path(service.home) / "core" / "__main__.py").is_file()
