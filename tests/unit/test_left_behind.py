"""What tests have started ends with the process of the tests, also one that was killed."""

import subprocess
import sys
import time

import psutil

from tests.rigs.fork_server import ROOT
from tests.rigs.waiting import until
from tests.rigs.workspace import environment

OWNER = """
import subprocess, sys, time
from tests.rigs.left_behind import end_what_is_left_behind
from tests.rigs.workspace import environment
end_what_is_left_behind()
sleeps = "import sys, time; print(0, flush=True); time.sleep(600)"
starts = f"import os, subprocess, sys; p = subprocess.Popen([sys.executable, '-c', {sleeps!r}]); print(p.pid, flush=True); p.wait()"
child = subprocess.Popen([sys.executable, "-c", starts], env=environment(), stdout=subprocess.PIPE, text=True)
pids = [child.pid, *(int(child.stdout.readline()) for _ in range(2))]
print(*pids, flush=True)
time.sleep(600)
"""


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE  # nobody has asked for its exit code
    except psutil.NoSuchProcess:
        return True


def test_processes_of_a_killed_test_process_end_at_any_depth():
    with subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True
    ) as owner:
        pids = [pid for pid in map(int, owner.stdout.readline().split()) if pid]
        assert len(pids) == 2
        time.sleep(1)
        assert not any(map(has_ended, pids))
        owner.kill()
    until(lambda: all(map(has_ended, pids)), "they go on")
