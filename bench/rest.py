"""`python -m bench rest`: 300 requests a second on `/api/kafka/metrics/summary`, against the real server on one core.

The server is the process that users start, with the page. Each request is due at its own time, whether or not the ones
before it are answered, and its latency counts from then, so that a server that falls behind cannot hide it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from core.admin.demo import SLUG, make_demo
from tests.rigs.callers import caller
from tests.rigs.workspace import ROOT, command, environment

PATH = "/api/kafka/metrics/summary"
CONNECTIONS = 16
WARM_UP_S = 3.0


def with_sign_in(folder: Path) -> str:
    """Adds a user, after which every request needs a token; returns the header with one."""
    from core.records.accounts import Accounts
    from core.workspace.paths import Workspace

    with Accounts(Workspace(folder).ledger_file) as accounts:
        accounts.add_user("root", "admin", None, by=caller("bench"), now=datetime.now(UTC))
        _, text = accounts.add_token(
            "bench", "read", lasts=timedelta(days=1), by=caller("bench"), now=datetime.now(UTC)
        )
    return f"Authorization: Bearer {text}\r\n"


def measure(folder: Path, *, per_s: int, seconds: float, rows: int, prepare: Callable[[Path], str]) -> dict[str, Any]:
    """Starts page and REST over a demo, sends the requests; returns latencies in ms and what else was observed."""
    make_demo(folder, rows, now=datetime.now(UTC))
    subprocess.run(
        command("run", SLUG, "--workspace", folder), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, check=False
    )
    headers = prepare(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    words = [sys.executable, "-m", "streamlit", "run", "ui/app.py", "--server.port", str(port)]
    env = environment(PSTT_WORKSPACE=str(folder))
    server = subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(port, server)
        process = psutil.Process(server.pid)
        if hasattr(process, "cpu_affinity"):  # not on macOS
            process.cpu_affinity([0])
            os.sched_setaffinity(0, set(range(1, os.cpu_count() or 1)) or {0})
        asyncio.run(_ask(port, per_s, WARM_UP_S, headers))
        before = process.cpu_times()
        latencies_ms, bad = asyncio.run(_ask(port, per_s, seconds, headers))
        after = process.cpu_times()
    finally:
        server.terminate()
        server.wait(20)
    ordered = sorted(latencies_ms)
    return {
        "requests": len(ordered),
        "not_200": bad,
        "per_s": len(ordered) / seconds,
        "p50_ms": ordered[len(ordered) // 2],
        "p99_ms": ordered[int(len(ordered) * 0.99)],
        "max_ms": ordered[-1],
        "server_cpu_s": after.user + after.system - before.user - before.system,
        "seconds": seconds,
    }


async def _ask(port: int, per_s: int, seconds: float, headers: str) -> tuple[list[float], int]:
    due: asyncio.Queue[float] = asyncio.Queue()
    latencies_ms: list[float] = []
    bad = 0
    request = f"GET {PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}\r\n".encode()

    async def worker() -> None:
        nonlocal bad
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (moment := await due.get()) >= 0:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(size)
            bad += not head.startswith(b"HTTP/1.1 200")
            latencies_ms.append((time.perf_counter() - moment) * 1000)
        writer.close()

    workers = [asyncio.create_task(worker()) for _ in range(CONNECTIONS)]
    started = time.perf_counter()
    for number in range(int(per_s * seconds)):
        moment = started + number / per_s
        if (left := moment - time.perf_counter()) > 0:
            await asyncio.sleep(left)
        due.put_nowait(moment)
    for _ in workers:
        due.put_nowait(-1.0)
    await asyncio.gather(*workers)
    return latencies_ms, bad


def _wait(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            sys.exit("the page ended at its start")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/monitoring/health", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit("the page did not start in time")
