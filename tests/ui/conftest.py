"""Views through AppTest, and the page as a process with a real browser, over workspaces in which real runs ran."""

from __future__ import annotations

import functools
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from core.model.run import Run
from core.records.ledger import Ledger
from core.workspace.jobs import read_job_file
from core.workspace.paths import Workspace
from tests.rigs.browser import ARGUMENTS, chromium
from tests.rigs.errors import RigMissing
from tests.rigs.workspace import PASSWORD_VARIABLE, ROOT, ZONE, environment, make_workspace, run_command
from ui import data
from ui.components.drawn import DRAWN
from ui.data import preparing

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCRIPT = "<script>alert(1)</script>"
SLY = f"{SCRIPT} **bold** :red[x] $x$ [a](javascript:alert(1))"
"""Text that must be shown unchanged wherever it occurs."""
ROWS = (
    "SELECT CASE WHEN g % 100 = 0 THEN NULL ELSE lpad((572680000000 + g)::text, 12, '0') END AS barcode, g AS n, "
    f"'{SLY}' AS note FROM generate_series(1, 500) AS g"
)
PATIENCE_MS = 90_000
"""For what a browser waits: on a busy machine with few cores a view of charts takes half a minute."""
SCREENSHOTS = Path(__file__).parent / "screenshots"

# Each AppTest reads what every installed package says about itself, for half a second of a processor.
manifest_scanner.scan_component_manifests = functools.cache(manifest_scanner.scan_component_manifests)


@pytest.fixture(autouse=True)
def _nothing_is_prepared(monkeypatch) -> None:
    """A thread that finds the next figures would still work in the next test, over a folder that is gone."""
    at_work = threading.Lock()
    at_work.acquire()
    monkeypatch.setattr(preparing, "_at_work", at_work)


# ── workspaces ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Place:
    """A workspace in which something ran."""

    folder: Path
    topic: str = ""
    env: dict[str, str] = field(default_factory=dict)

    def runs(self, job: str | None = None) -> list[Run]:
        """The newest first."""
        with Ledger(Workspace(self.folder).ledger_file) as ledger:
            return ledger.history.newest(job)

    def ledger(self, ask: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with Ledger(Workspace(self.folder).ledger_file) as ledger:
            return ask(ledger, *args, **kwargs)

    def requests(self) -> list[Any]:
        return self.ledger(lambda ledger: ledger.requests.newest())

    def command(self, *words: str) -> Any:
        """Returns the JSON document of a command."""
        done = run_command(*words, "--json", env=environment(**self.env), cwd=self.folder)
        return json.loads(done.stdout)

    def copy(self, to: Path) -> Place:
        """A copy, which a test may change."""
        shutil.copytree(self.folder, to)
        return Place(to, self.topic, self.env)


@pytest.fixture(scope="session")
def _worked(tmp_path_factory, postgres, kafka) -> Place:
    folder = tmp_path_factory.mktemp("worked") / "ws"
    topic = kafka.create_topic(partitions=3)
    to_topic = {"topic": topic, "message_key_field": "barcode"}
    make_workspace(
        folder,
        postgres=postgres,
        bootstrap_servers=kafka.plaintext,
        topic=topic,
        sql=ROWS,
        job={
            "name": f"Export {SLY}",
            "scheduling_mode": "cron",
            "cron": "0 2 * * *",
            "timezone": ZONE.key,
            "kafka_config": to_topic,
            "verify_count": True,
            "verify": "full",
        },
    )
    queries = folder / "queries"
    (queries / "broken.sql").write_text("SELECT barcode FROM nowhere", encoding="utf-8")
    broken = {
        "name": "Broken",
        "query": "broken.sql",
        "connection": "pg",
        "timezone": ZONE.key,  # else its run of now may be of tomorrow
        "kafka_config": to_topic,
    }
    (queries / "broken.job.json").write_text(json.dumps(broken), encoding="utf-8")
    place = Place(folder, topic, {PASSWORD_VARIABLE: postgres.password})
    newest = datetime.now(ZONE).replace(hour=2, minute=0, second=0, microsecond=0)
    file = read_job_file(Workspace(folder), "export")
    place.ledger(
        lambda ledger: ledger.job_versions.add("export", file.sha256, file.text, newest - timedelta(days=3, minutes=1))
    )
    for back in (3, 1, 0):  # two days ago is missing
        place.command("run", "export", "--at", (newest - timedelta(days=back)).isoformat())
    place.command("run", "broken")
    return place


@pytest.fixture
def worked(_worked, look_at) -> Place:
    """Runs of three days and a missing one, of a job with markup in its name and rows; a job that fails. Read-only."""
    look_at(_worked)
    return _worked


@pytest.fixture
def spoilt(_worked, look_at, tmp_path) -> Place:
    """A copy of it."""
    place = _worked.copy(tmp_path / "copy")
    look_at(place)
    return place


@pytest.fixture
def empty(tmp_path, look_at) -> Place:
    """A folder with nothing in it."""
    place = Place(tmp_path / "empty")
    place.folder.mkdir()
    look_at(place)
    return place


@pytest.fixture
def look_at(monkeypatch) -> Iterator[Callable[[Place], None]]:
    """Makes the views use a workspace."""

    def look(place: Place) -> None:
        monkeypatch.setenv("PSTT_WORKSPACE", str(place.folder))
        monkeypatch.setenv("PSTT_TIMEZONE", ZONE.key)
        for name, value in place.env.items():
            monkeypatch.setenv(name, value)
        data.clear_caches()

    yield look
    data.clear_caches()


# ── views ─────────────────────────────────────────────────────────────────────────────────────


def _script(view: str, package: str) -> None:
    from importlib import import_module

    from ui.components.problem import guarded

    guarded(import_module(f"ui.{package}.{view}").show)()


@pytest.fixture
def see() -> Callable[..., AppTest]:
    """Draws one view: `see("runs", run=…)`."""

    def draw(
        view: str, *, package: str = "views", language: str = "en", is_drawn: bool = True, **query: str
    ) -> AppTest:
        app = AppTest.from_function(_script, kwargs={"view": view, "package": package}, default_timeout=60)
        app.session_state["language"] = language
        app.session_state[DRAWN] = is_drawn  # no browser says so here
        for name, value in query.items():
            app.query_params[name] = value
        return app.run()

    return draw


def words(app: AppTest) -> str:
    """All text of a view, with what was escaped for Markdown as it is read."""
    found: list[str] = []
    for kind in ("title", "header", "subheader", "markdown", "caption", "error", "warning", "info", "success", "code"):
        found += [str(element.value) for element in app.get(kind)]
    return "\n".join(found).replace("\\", "")


def cells(app: AppTest) -> str:
    """Returns the text in the tables of a view."""
    return "\n".join(frame.value.to_csv() for frame in app.dataframe)


def metric(app: AppTest, label: str) -> str:
    return next(str(element.value) for element in app.metric if element.label == label)


def is_harmless(app: AppTest) -> bool:
    """Whether nothing of a view is drawn as HTML, and no markup in the data takes effect."""
    texts = [element for kind in ("markdown", "caption", "error", "warning") for element in app.get(kind)]
    as_html = [element for element in texts if getattr(element, "allow_html", False)]
    bare = [element for element in texts if SCRIPT in str(element.value) or "[x]" in str(element.value)]
    return not as_html and not bare


# ── the page as a process ─────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def serve(tmp_path_factory) -> Iterator[Callable[[Place], str]]:
    """Starts the page over a workspace; its address. It ends with the module."""
    logs = tmp_path_factory.mktemp("pages")
    started: list[subprocess.Popen[bytes]] = []

    def start(place: Place) -> str:
        port = _free_port()
        env = environment(PSTT_WORKSPACE=str(place.folder), **place.env)
        command = [sys.executable, "-m", "streamlit", "run", "ui/app.py", "--server.port", str(port)]
        with (logs / f"page-{port}.log").open("wb") as log:
            started.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=subprocess.STDOUT))
        _wait_for(f"http://127.0.0.1:{port}/_stcore/health", started[-1])
        return f"http://127.0.0.1:{port}"

    yield start
    for process in started:
        process.terminate()
        process.wait(20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, "the page ended at its start"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the page did not start in time")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless chromium."""
    try:
        from playwright.sync_api import expect, sync_playwright
    except ImportError as error:
        raise RigMissing("browser", f"playwright is not installed: {error}") from None
    program = chromium()
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield started
        started.close()


@dataclass
class Visit:
    """One tab, with its errors."""

    page: Page
    troubles: list[str] = field(default_factory=list)
    hosts: set[str] = field(default_factory=set)

    def photograph(self, name: str) -> None:
        """Takes a picture of the whole view; the window is enlarged, because the view scrolls inside it."""
        SCREENSHOTS.mkdir(exist_ok=True)
        before = self.page.viewport_size
        assert before is not None
        height = self.page.evaluate("document.querySelector('[data-testid=stMain]').scrollHeight")
        self.page.set_viewport_size({"width": before["width"], "height": max(before["height"], min(height, 6000))})
        self.page.wait_for_timeout(1500)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")
        self.page.set_viewport_size(before)

    def chart(self, number: int = 0) -> dict[str, float]:
        """Where the inside of a chart is, once the view does not move any more."""
        plot = self.page.locator(".js-plotly-plot .nsewdrag").nth(number)
        plot.wait_for()
        plot.scroll_into_view_if_needed()
        box, before = plot.bounding_box(), None
        while box != before:
            self.page.wait_for_timeout(1000)
            box, before = plot.bounding_box(), box
        assert box is not None
        return dict(box)

    def heading(self, text: str) -> None:
        """Waits until a view with that heading is drawn."""
        self.page.get_by_role("heading", name=text).first.wait_for()

    def has(self, text: str | re.Pattern[str]) -> None:
        self.page.get_by_text(text).first.wait_for()


@pytest.fixture
def visit(browser) -> Iterator[Callable[..., Visit]]:
    """Opens an address: `visit(url, locale="it-IT", color_scheme="dark", viewport={…})`."""
    contexts = []

    def open_(url: str, **options: Any) -> Visit:
        context = browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1400, "height": 1000}, **options})
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        made = Visit(context.new_page())
        made.page.on("pageerror", lambda error: made.troubles.append(str(error)))
        made.page.on("dialog", lambda dialog: (made.troubles.append(f"dialog {dialog.message}"), dialog.dismiss()))
        made.page.on(
            "request", lambda request: made.hosts.add(request.url.split("/")[2] if "//" in request.url else "")
        )
        made.page.goto(url)
        return made

    yield open_
    for context in contexts:
        context.close()


def now() -> datetime:
    return datetime.now(UTC)
