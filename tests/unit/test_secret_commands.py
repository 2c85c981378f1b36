"""Secrets that a command prints: only commands of the administrator run, and nothing that they print is shown."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from pathlib import Path

import psutil
import pytest

from core.admin.check import check
from core.errors import ConfigError, PsttError, SecretUnavailable
from core.model.connection import UNREAD
from core.workspace.paths import Workspace
from core.workspace.references import References, references_of
from core.workspace.secret_commands import command_words
from core.workspace.secrets import resolve_secret, store_secret
from core.workspace.settings import load_settings
from tests.rigs.waiting import until

PASSWORD = "printed-s3cr3t-4711"


def command(root: Path, name: str, program: str) -> str:
    """Writes a program in Python; returns its command line."""
    file = root / f"{name}.py"
    file.write_text(program, encoding="utf-8")
    return f'"{sys.executable}" "{file}" --of bosc'


def read(line: str, root: Path, *, allowed: str | None = None, **variables: str) -> str:
    variables |= {"PSTT_SECRET_COMMANDS": line if allowed is None else allowed}
    return resolve_secret(f"exec:{line}", variables, root).reveal()


def refused(error: type[PsttError], line: str, root: Path, **options: str) -> PsttError:
    with pytest.raises(error) as caught:
        read(line, root, **options)
    whole = "".join(traceback.format_exception(caught.value)) + caught.value.text + caught.value.remedy
    assert PASSWORD not in whole
    return caught.value


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_what_an_allowed_command_prints_is_the_secret(end: str, tmp_path: Path):
    line = command(tmp_path, "print it", f"import sys; sys.stdout.write({PASSWORD + end!r})")
    assert read(line, tmp_path, allowed=f"/bin/other; {line} ;C:\\pstt\\secret.exe") == PASSWORD


def test_words_reach_the_command_as_they_are(tmp_path: Path):
    line = command(tmp_path, "words", "import json, sys; print(json.dumps(sys.argv[1:]))")
    line += ' "a b" $HOME%PATH%|x C:\\keys\\new'
    assert json.loads(read(line, tmp_path)) == ["--of", "bosc", "a b", "$HOME%PATH%|x", "C:\\keys\\new"]


def test_a_command_line_is_split_the_same_way_on_every_system():
    assert command_words('"C:\\Program Files\\op.exe"  read op://v/i ""') == (
        "C:\\Program Files\\op.exe",
        "read",
        "op://v/i",
        "",
    )


@pytest.mark.parametrize("allowed", ["", "/bin/other", "{} --of bosc", "{} --of", "{} --of bosc --verbose"])
def test_a_command_that_is_not_listed_word_by_word_never_runs(allowed: str, tmp_path: Path):
    line = command(tmp_path, "touch", "open('ran', 'w').close(); print('x')")
    program = line.removesuffix(" --of bosc")
    assert (
        "is not allowed"
        in refused(ConfigError, f"{line} --more", tmp_path, allowed=allowed.replace("{}", program)).text
    )
    assert not (tmp_path / "ran").exists()


def test_a_program_needs_its_whole_path(tmp_path: Path):
    assert "it is no absolute path" in refused(ConfigError, "python secret.py", tmp_path).text
    assert "there is no such file" in refused(ConfigError, f'"{tmp_path / "none"}"', tmp_path).text


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("", "it printed nothing"),
        ("print()", "it printed nothing"),
        (f"print({PASSWORD!r}); print('and more')", "it printed more than one line"),
        (f"print({PASSWORD!r} * 10_000)", "it printed over 65,536 bytes"),
        ("import sys; sys.stdout.buffer.write(b'citt\\xe0')", "what it printed is not UTF-8"),
        (f"import sys; print({PASSWORD!r}); sys.exit({PASSWORD!r})", "it ended with code 1"),
    ],
)
def test_a_command_that_fails_is_one_error_without_what_it_printed(program: str, said: str, tmp_path: Path):
    assert said in refused(ConfigError, command(tmp_path, "fails", program), tmp_path).text


def test_a_file_that_is_no_program_is_one_error(tmp_path: Path):
    file = tmp_path / "notes.txt"
    file.write_text("not a program", encoding="utf-8")
    assert "gave no secret" in refused(ConfigError, f'"{file}"', tmp_path).text


def test_a_command_that_does_not_end_is_ended_with_its_children(tmp_path: Path):
    program = (
        "import subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "open('pid', 'w').write(str(child.pid)); child.wait()"
    )
    line = command(tmp_path, "hangs", program)
    error = refused(SecretUnavailable, line, tmp_path, PSTT_SECRET_COMMAND_TIMEOUT_S="5")
    assert "it did not end within 5 s" in error.text
    pid = int((tmp_path / "pid").read_text(encoding="utf-8"))
    until(lambda: has_ended(pid))  # the system takes a moment over a killed process


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_nothing_that_a_command_prints_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
):
    line = command(tmp_path, "loud", f"import sys; print({PASSWORD!r}); print({PASSWORD!r}, file=sys.stderr)")
    with caplog.at_level(logging.DEBUG):
        assert read(line, tmp_path) == PASSWORD
    assert PASSWORD not in caplog.text + "".join(capfd.readouterr())


def test_check_runs_no_command(tmp_path: Path):
    line = command(tmp_path, "touch", "open('ran', 'w').close(); print('x')")
    entry = {"name": "A", "db_type": "postgresql", "host": "h", "database": "d", "username": "u"}
    document = {"connections": [entry | {"password": f"exec:{line}"}]}
    (tmp_path / "connections.json").write_text(json.dumps(document), encoding="utf-8")
    (tmp_path / "queries").mkdir()
    allowed = {"PSTT_SECRET_COMMANDS": line}
    assert [f for f in check(Workspace(tmp_path), allowed) if f.severity == "error"] == []
    assert any("is not allowed" in f.text for f in check(Workspace(tmp_path), {}))
    assert resolve_secret(f"exec:{line}", allowed, tmp_path, contact=False) is UNREAD
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "name",
    [
        ".env",
        ".ENV",
        ".env.",
        ".env ",
        ".env::$DATA",
        "connections.json",
        "alerts.json",
        "queries/x.sql",
        ".pstt/identity.json",
    ],
)
def test_the_page_cannot_allow_a_command_by_storing_a_secret(name: str, tmp_path: Path):
    """Who may store a secret names its file."""
    with pytest.raises(ConfigError, match="a secret cannot be stored in"):
        store_secret(f"file:{name}", "PSTT_SECRET_COMMANDS=/bin/sh", Workspace(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_worker_runs_only_what_its_own_administrator_allowed(tmp_path: Path):
    (tmp_path / "connections.json").write_text(json.dumps({"connections": [{"name": "A"}]}), encoding="utf-8")
    workspace = Workspace(tmp_path)
    settings = load_settings(workspace, {"PSTT_SECRET_COMMANDS": "/bin/of-the-run", "PSTT_FETCH_ROWS": "7"})
    sent: References = references_of(workspace, settings, "A", "")
    there = sent.environment({"PSTT_SECRET_COMMANDS": "/bin/of-the-worker", "PSTT_FETCH_ROWS": "8"}, tmp_path)
    assert (there["PSTT_SECRET_COMMANDS"], there["PSTT_FETCH_ROWS"]) == ("/bin/of-the-worker", "7")
