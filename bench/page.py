"""The cost of open pages: the rate of a run with and without sessions on the overview, and how fast the overview is drawn.

A watcher uses the page's own protocol over its websocket and asks for each part again when a browser would; it draws
nothing, so that the server is measured and not twenty browsers on the same machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from bench.sends import make_year
from bench.table import QUERY, make_table
from core.workspace.paths import Workspace
from tests.rigs.browser import ARGUMENTS, chromium
from tests.rigs.kafka import KafkaRig
from tests.rigs.postgres import PostgresRig
from tests.rigs.waiting import until
from tests.rigs.workspace import ROOT, environment, log_text, make_workspace
from ui.data import CHECK_S

DRAWN = """
window.standing = {}
const note = (what, is_there) => { if (!(what in standing) && is_there()) standing[what] = performance.now() }
new MutationObserver(() => {
    note('heading', () => document.querySelector('h1'))
    note('figures', () => [...document.querySelectorAll('[data-testid=stMetricValue]')].filter(one => one.offsetParent).length >= 8)
    note('charts', () => document.querySelectorAll('.js-plotly-plot .main-svg').length >= 3)
}).observe(document, {childList: true, subtree: true})
"""
"""Records, in milliseconds after the address was opened, when the parts of the overview are drawn."""
STANDING = "JSON.stringify(window.standing ?? {})"
VISITS = ("first visit of a new browser", "second visit", "third visit", "fourth visit")
IDLE = "document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
ASK_EVERY_S = 0.02
WARM_UP_S = 5.0
"""Time for the server to start, which no user waits for."""


@dataclass
class Server:
    """The page over a workspace, in a process of its own."""

    port: int
    process: psutil.Process

    @property
    def cpu_s(self) -> float:
        """Returns the processor time used so far, in seconds; with that of its processes that have ended."""
        return sum(self.process.cpu_times()[:4])


@contextlib.contextmanager
def served(folder: Path, env: dict[str, str]) -> Iterator[Server]:
    """Starts the page; prints the tracebacks of its output."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "ui/app.py", "--server.port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**env, "PSTT_WORKSPACE": str(folder)}, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/_stcore/health")
            yield Server(port, psutil.Process(process.pid))
        finally:
            process.terminate()
            process.wait(30)
            log.seek(0)
            if b"Traceback" in (said := log.read()):
                print(f"the page wrote a traceback:\n{said.decode('utf-8', 'replace')[-2000:]}")


def _wait_for(url: str) -> None:
    for _ in range(600):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    sys.exit("the page did not start within 60 s")


@dataclass
class Watchers:
    """Sessions on the overview, in a thread of their own, until the block ends."""

    port: int
    sessions: int
    drawings: int = 0
    """Scripts and parts that ran to their end."""
    charts: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    """Errors that a visitor would see, and lost connections."""
    _drawn: set[int] = field(default_factory=set)
    _end: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Watchers:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._thread.start()
        deadline = time.monotonic() + 120
        while len(self._drawn) < self.sessions:
            if time.monotonic() > deadline or not self._thread.is_alive():
                self._end.set()
                sys.exit(f"{len(self._drawn)} of {self.sessions} sessions were drawn: {dict(self.problems)}")
            time.sleep(0.1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    async def _all(self) -> None:
        watchers = [asyncio.create_task(self._watch(number)) for number in range(self.sessions)]
        while not self._end.is_set():
            await asyncio.sleep(0.1)
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)

    async def _watch(self, number: int) -> None:
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed

        address = f"ws://127.0.0.1:{self.port}/_stcore/stream"
        parts: dict[str, asyncio.Task[None]] = {}
        page = ""
        try:
            async with connect(address, subprotocols=["streamlit"], max_size=None) as socket_:  # type: ignore[list-item]
                await socket_.send(_rerun())
                async for data in socket_:
                    message = ForwardMsg.FromString(data)
                    what = message.WhichOneof("type")
                    if what == "new_session":
                        page = message.new_session.page_script_hash
                    elif what == "auto_rerun" and message.auto_rerun.fragment_id not in parts:
                        again = self._again(socket_, message.auto_rerun, page)
                        parts[message.auto_rerun.fragment_id] = asyncio.create_task(again)
                    elif what == "delta":
                        self._look(message.delta)
                    elif what == "script_finished":
                        self.drawings += 1
                        if number not in self._drawn:
                            await socket_.send(_rerun(page=page))  # as a browser that has drawn the figures
                        self._drawn.add(number)
        except (ConnectionClosed, OSError) as error:
            self.problems[f"connection lost: {error}"] += 1
        finally:
            for part in parts.values():
                part.cancel()

    async def _again(self, socket_: Any, auto_rerun: Any, page: str) -> None:
        while True:
            await asyncio.sleep(auto_rerun.interval)
            await socket_.send(_rerun(auto_rerun.fragment_id, page))

    def _look(self, delta: Any) -> None:
        element = delta.new_element
        kind = element.WhichOneof("type")
        if kind == "plotly_chart":
            self.charts += 1
        elif kind == "exception":
            self.problems[element.exception.message] += 1
        elif kind == "alert" and element.alert.format == element.alert.ERROR:
            self.problems[element.alert.body] += 1


def _rerun(fragment: str = "", page: str = "") -> bytes:
    from streamlit.proto.BackMsg_pb2 import BackMsg

    message = BackMsg()
    message.rerun_script.query_string = ""
    message.rerun_script.page_script_hash = page
    message.rerun_script.fragment_id = fragment
    message.rerun_script.is_auto_rerun = bool(fragment)
    return bytes(message.SerializeToString())


@dataclass
class LockWaits:
    """Measures how long another writer waits for the ledger while a run works, every 20 ms."""

    file: Path
    waits_ms: list[float] = field(default_factory=list)
    _end: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> LockWaits:
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _ask(self) -> None:
        with contextlib.closing(sqlite3.connect(self.file, timeout=30, isolation_level=None)) as db:
            while not self._end.wait(ASK_EVERY_S):
                began = time.perf_counter()
                db.execute("BEGIN IMMEDIATE")
                self.waits_ms.append((time.perf_counter() - began) * 1000)
                db.execute("ROLLBACK")


def watched(rows: int, sessions: int, repeat: int) -> None:
    """Runs in turn without and with sessions. Of each the median counts, as runs differ by a tenth."""
    from bench.__main__ import contest

    rates: dict[bool, list[float]] = {False: [], True: []}
    problems: Counter[str] = Counter()
    longest_ms = {False: 0.0, True: 0.0}
    with PostgresRig() as postgres, KafkaRig(for_long=True) as kafka, tempfile.TemporaryDirectory() as temporary:
        make_table(postgres, rows)
        folder = Path(temporary) / "watched"
        topic = kafka.create_topic(partitions=6)
        make_workspace(folder, postgres=postgres, bootstrap_servers=kafka.plaintext, topic=topic, sql=QUERY)
        contest("b", folder, postgres, rows)  # the broker's JVM warms up, and the overview has data
        with served(folder, environment(postgres)) as page:
            print(f"{'':<10} {'rows/s':>9} {'s':>6} {'verdict s':>9} {'CPU s':>6} {'page CPU s':>10} {'load':>5}")
            for _ in range(repeat):
                for look in (False, True):
                    watchers = Watchers(page.port, sessions if look else 0)
                    with watchers, LockWaits(Workspace(folder).ledger_file) as locks:
                        cpu_s, seen = page.cpu_s, watchers.drawings
                        done = contest("b", folder, postgres, rows)
                        cpu_s, seen = page.cpu_s - cpu_s, watchers.drawings - seen
                    rates[look].append(done["rows"] / done["seconds"])
                    longest_ms[look] = max(longest_ms[look], *locks.waits_ms)
                    problems += watchers.problems
                    print(
                        f"{f'{sessions} watch' if look else 'nobody':<10} {rates[look][-1]:>9,.0f} "
                        f"{done['seconds']:>6.1f} {done['verdict_s']:>9.1f} {done['cpu_s']:>6.1f} {cpu_s:>10.1f} "
                        f"{os.getloadavg()[0] if hasattr(os, 'getloadavg') else 0:>5.1f}   "
                        f"{seen} drawings, {watchers.charts} charts",
                        flush=True,
                    )
        if problems:
            _print_log(folder)
    alone, together = statistics.median(rates[False]), statistics.median(rates[True])
    print(f"\nslowed by {100 * (1 - together / alone):.1f} %, limit 5 %; page errors {sum(problems.values())}, limit 0")
    for text, count in problems.most_common(5):
        print(f"  {count} × {text}")
    print(
        f"longest wait of one more writer of the ledger: {longest_ms[True]:.0f} ms watched, "
        f"{longest_ms[False]:.0f} ms not; limit 100 ms"
    )


def _print_log(folder: Path) -> None:
    """Prints what the page logged about the problems, before the workspace is deleted."""
    log = log_text(folder)
    start = log.find("could not be shown")
    print(log[max(start - 200, 0) : start + 6000] if start >= 0 else log[-2000:])


def painted(rows: int, days: int, folder: Path) -> None:
    """Measures how soon the overview is drawn in a browser, and how long a click takes."""
    from playwright.sync_api import sync_playwright

    workspace = Workspace(folder)
    if not workspace.metrics_file.exists():
        make_year(workspace, rows, days, datetime.now(UTC))
    with served(folder, environment()) as page, browser() as address:
        time.sleep(WARM_UP_S)
        print(
            f"{'seconds until there stand':<34} {'heading':>8} {'figures':>8} {'charts':>8} {'CPU s':>6}   "
            "limit of the figures 1 s; CPU of the page's process"
        )
        for name in VISITS:
            cpu_s = page.cpu_s
            standing = visit(address, f"http://127.0.0.1:{page.port}")
            print(
                f"{name:<34} "
                + " ".join(f"{standing[part] / 1000:>8.2f}" for part in ("heading", "figures", "charts"))
                + f" {page.cpu_s - cpu_s:>6.2f}",
                flush=True,
            )
            time.sleep(CHECK_S + 1)  # so that the next visit finds no cached numbers
        with sync_playwright() as playwright:
            tab = playwright.chromium.connect_over_cdp(address).contexts[0].new_page()
            tab.goto(f"http://127.0.0.1:{page.port}")
            days_of = tab.locator(".st-key-overview_days")
            for shown in ("7", "90"):
                _click(page, tab, lambda text=shown: days_of.get_by_text(text, exact=True).click(), f"{shown} days")
            for view in ("Jobs", "Runs", "Calendar", "Find", "Messages", "Alerts", "Administration", "Overview"):
                _click(page, tab, lambda name=view: tab.get_by_role("link", name=name, exact=True).click(), view)


@contextlib.contextmanager
def browser() -> Iterator[str]:
    """Starts a browser with a new profile; yields the address at which it takes commands."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        words = [chromium(), "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}", *ARGUMENTS]
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            port = Path(profile) / "DevToolsActivePort"
            until(lambda: port.exists() and "\n" in port.read_text(encoding="utf-8"), "the browser")
            address = f"http://127.0.0.1:{port.read_text(encoding='utf-8').splitlines()[0]}"
            _wait_for(f"{address}/json/version")
            yield address
        finally:
            process.terminate()
            process.wait(30)


def visit(address: str, page: str) -> dict[str, float]:
    """Opens a page in a new tab; returns in milliseconds when its parts were drawn, and closes the tab.

    Not through Playwright, as a browser that reports each exception to it reads the whole source of the charts' library
    again for each one of them: a second that no user waits.
    """
    from websockets.sync.client import connect

    opening = urllib.request.Request(f"{address}/json/new?about:blank", method="PUT")
    with urllib.request.urlopen(opening) as opened:
        tab = json.load(opened)["webSocketDebuggerUrl"]
    with connect(tab, max_size=None) as socket_:

        def call(number: int, method: str, **parameters: Any) -> Any:
            socket_.send(json.dumps({"id": number, "method": method, "params": parameters}))
            while (answer := json.loads(socket_.recv(timeout=60))).get("id") != number:
                pass
            return answer.get("result", {}).get("result", {}).get("value")

        call(1, "Page.enable")
        call(2, "Page.addScriptToEvaluateOnNewDocument", source=DRAWN)
        call(3, "Page.navigate", url=page)
        for number in range(4, 40):
            time.sleep(2)  # the questions take time of the browser too
            standing: dict[str, float] = json.loads(call(number, "Runtime.evaluate", expression=STANDING) or "{}")
            if {"figures", "charts"} <= standing.keys():
                call(number + 1, "Page.close")
                return standing
    sys.exit("the overview was not drawn within 72 s")


def _click(page: Server, tab: Any, click: Any, name: str) -> None:
    """Clicks, and waits until the script has run and the page does not change any more."""
    time.sleep(CHECK_S + 1)  # users read before they click; no numbers are cached by then
    tab.wait_for_function(IDLE, timeout=60_000)
    began, cpu_s = time.perf_counter(), page.cpu_s
    click()
    with contextlib.suppress(Exception):  # it may have run before the wait began
        tab.wait_for_function(f"!({IDLE})", timeout=300)
    tab.wait_for_function(IDLE, timeout=60_000)
    took_s = time.perf_counter() - began
    print(f"click on {name:<25} {took_s:>6.2f} s, CPU {page.cpu_s - cpu_s:.2f} s   limit 0.5 s", flush=True)


def main(rows: int, sessions: int, repeat: int, sends: int, days: int, folder: Path) -> None:
    """Runs both measurements, one after the other."""
    if rows:
        watched(rows, sessions, repeat)
    if sends:
        painted(sends, days, folder)
