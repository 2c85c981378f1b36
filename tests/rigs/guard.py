"""Runs one server, and ends it when the process that started it has ended in any way.

`python guard.py FOLDER USER COMMAND...`: the owner holds our stdin open and writes names of signals into it. When it
closes (the system closes it even for an owner that was killed) the server is ended and FOLDER removed.
Works without site-packages, and unlike PR_SET_PDEATHSIG on every system and for any thread.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time


def obey(server: subprocess.Popen[bytes], orphaned: threading.Event) -> None:
    """Passes the owner's signals on until the owner has ended."""
    with open(0, "rb", buffering=0, closefd=False) as orders:
        for order in orders:
            server.send_signal(getattr(signal, order.decode().strip()))
    orphaned.set()
    server.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGINT)
    time.sleep(3)
    server.kill()


def remove(folder: str) -> None:
    """The server's children may still be writing for a moment."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.2)


def main() -> None:
    folder, user, *command = sys.argv[1:]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, user=user or None)
    orphaned = threading.Event()
    threading.Thread(target=obey, args=(server, orphaned), daemon=True).start()
    code = server.wait()
    if orphaned.is_set():
        remove(folder)
    os._exit(code & 0xFF)  # the other thread blocks in a read that cannot be interrupted


if __name__ == "__main__":
    main()
