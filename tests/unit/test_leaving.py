"""How a process of the program ends: after its threads and what was registered for the end, without freeing each object."""

import subprocess
import sys

from tests.rigs.workspace import ROOT, environment

SCRIPT = """
import core.cli.leaving as leaving
import atexit, threading, time

class Freed:
    def __del__(self):
        print("freed")

freed = Freed()
atexit.register(print, "registered")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
{}
"""


def end(statement):
    words = [sys.executable, "-c", SCRIPT.format(statement)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, encoding="utf-8", check=False)
    return done.returncode, done.stdout.split(), done.stderr


def test_threads_and_what_was_registered_come_first_and_nothing_is_freed():
    assert end("leaving.leave(3)") == (3, ["thread", "registered"], "")


def test_a_process_that_ends_in_another_way_ends_as_python_does():
    code, words, errors = end("raise SystemExit(4)")
    assert (code, words, errors) == (4, ["thread", "registered", "freed"], "")
