"""Progress of a run: a bar with rate and time left on a terminal, plain lines where output is piped."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

import core.cli.progress
from core.cli.progress import showing
from tests.rigs.workspace import environment

SHOW = """
import sys, time
from types import SimpleNamespace as Plain
from core.cli.progress import showing
plan = Plain(job=Plain(connection="A00"), topic="pstt-traces", output=None)
with showing(plan, {expected}, silent={silent}) as progress:
    for n in range(1, 21):
        if progress:
            progress(n * 500, n * 400, None)
        time.sleep(0.05)
"""


def script(expected: int | None = 10_000, *, silent: bool = False) -> list[str]:
    return [sys.executable, "-c", SHOW.format(expected=expected, silent=silent)]


@pytest.mark.skipif(os.name == "nt", reason="a pseudo-terminal")
@pytest.mark.parametrize(("expected", "left"), [(10_000, r"0:00:0\d"), (None, "")])
def test_a_terminal_shows_connection_topic_rows_rate_and_time_left(expected, left):
    import pty

    ours, theirs = pty.openpty()
    shown = b""
    env = environment(TERM="xterm-256color", COLUMNS="140")
    with subprocess.Popen(script(expected), env=env, stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # Linux: the other side has closed
            pass
        assert process.stdout
        assert process.stdout.read() == b""
        assert process.wait(30) == 0
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "A00 → pstt-traces" in text
    assert re.search(r"[1-9][0-9,]* rows · [1-9][0-9,]* rows/s", text)
    assert re.search(left, text)
    assert "━" in text


def test_piped_output_has_no_bar_no_colour_and_nothing_for_a_short_run():
    done = subprocess.run(script(), env=environment(), capture_output=True, check=True)
    assert done.stdout + done.stderr == b""


def test_piped_output_has_a_plain_line_now_and_then(monkeypatch, capsys):
    monkeypatch.setattr(core.cli.progress, "LINE_EVERY_S", 0.0)
    with showing(None, None, silent=False) as progress:  # type: ignore[arg-type] - lines need no plan
        assert progress is not None
        progress(12_000, 11_900, None)
        progress(24_000, 23_900, 50_000)
    out, err = capsys.readouterr()
    assert out == ""
    assert err == ("  12,000 rows read, 11,900 acknowledged\n  24,000 of 50,000 rows read, 23,900 acknowledged\n")


def test_silence_is_silence():
    done = subprocess.run(script(silent=True), env=environment(), capture_output=True, check=True)
    assert done.stdout + done.stderr == b""
