"""A user's first day: an empty folder, the demo, then a real broker. Page and runner are processes."""

import getpass
import json
import os
import re
import subprocess

import pytest

from bench.kills import stop_runner
from core.admin.demo import BARCODE, SLUG
from core.admin.demo_history import ASKED_BY
from tests.rigs.workspace import command, environment
from tests.ui.conftest import Place
from ui.changes import DEMO_ROWS

ROWS = DEMO_ROWS


@pytest.fixture
def beginning(tmp_path, look_at):
    """An empty folder with a runner in it."""
    place = Place(tmp_path / "first-day")
    place.folder.mkdir()
    look_at(place)
    own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {}
    with (tmp_path / "runner.log").open("wb") as log:  # not in the folder: the demo needs it empty
        runner = subprocess.Popen(
            command("runner", "--workspace", place.folder), env=environment(), stdout=log, stderr=log, **own_group
        )
    yield place
    code = stop_runner(runner)
    assert code == 0, (tmp_path / "runner.log").read_text(encoding="utf-8")


@pytest.mark.slow  # 90 s of a processor; tests/ui/test_walk.py and the tests of each view have its steps
def test_from_an_empty_folder_to_a_message_sent_again(beginning, kafka, serve, visit):
    seen = visit(serve(beginning))
    consoled = []
    seen.page.on("console", lambda line: consoled.append(line.text) if line.type == "error" else None)

    seen.heading("Overview")
    seen.has("Three steps to the first message")
    seen.has(re.compile("Runner: heartbeat"))
    _look(seen, "1_empty")

    _press(seen, "Fill with the demo")
    seen.page.get_by_text("Demo data").first.wait_for()  # after the runs of 60 days
    seen.has("demo, lives inside each run")
    first = _opened_run(beginning, seen, 1)
    seen.has(f"{ROWS:,} read = {ROWS - 5:,} acknowledged + 5 rejected")

    topic = kafka.create_topic()
    _add_cluster(seen, "rig", kafka.plaintext)
    stored = json.loads((beginning.folder / "connections.json").read_text(encoding="utf-8"))
    assert stored["kafka_connections"]["rig"] == {"name": "Kafka Rig", "bootstrap_servers": kafka.plaintext}

    _edit_job(seen, topic)
    stored = json.loads((beginning.folder / "queries" / f"{SLUG}.job.json").read_text(encoding="utf-8"))
    assert (stored["kafka_config"]["topic"], stored["kafka_config"]["cluster"]) == (topic, "rig")
    assert stored["cron"] == "30 3 * * *"
    assert kafka.count(topic) == 0

    _run_now(seen)
    second = _opened_run(beginning, seen, 2)
    assert (second.kind, second.asked_by, second.topic) == ("job", getpass.getuser(), topic)
    seen.has(f"{ROWS:,} read = {ROWS - 5:,} acknowledged + 5 rejected")
    assert kafka.count(topic) == ROWS - 5

    _to(seen, "Find")
    seen.page.get_by_label("A key, or the start of one", exact=True).fill(BARCODE)
    seen.page.keyboard.press("Enter")
    seen.has("4 sends")  # two of them in the simulated past
    _choose_newest(seen)
    seen.has("the data has the hash that its message_id is made of")
    assert topic in seen.page.content()

    _open_run(seen, second)
    _press(seen, "Send all again")
    seen.has(f"Readers of {topic} on")
    _press(seen, "Yes, send")
    seen.has(re.compile(r"request \d+ · send again"))
    third = _opened_run(beginning, seen, 3)
    assert third.of_run == second.run_id != first.run_id
    assert kafka.count(topic) == 2 * (ROWS - 5)
    _look(seen, "4_sent_again")

    assert seen.troubles == []
    assert consoled == []
    assert "Traceback" not in seen.page.content()


def _to(seen, view):
    seen.page.get_by_role("link", name=view, exact=True).click()
    seen.heading(view)


def _press(seen, words):
    seen.page.get_by_role("button", name=words, exact=True).first.click()


def _fill(seen, label, text):
    field = seen.page.get_by_label(label, exact=True).first
    field.fill(text)
    field.press("Tab")


def _choose(seen, label, option):
    """Opens a list and takes one of it; a drawing that ends meanwhile closes the list, so it is opened again."""
    from playwright.sync_api import TimeoutError as NotInTime

    wanted = seen.page.get_by_role("option", name=option, exact=True)
    for _ in range(5):
        seen.page.get_by_role("combobox", name=re.compile(re.escape(label))).first.click()
        try:
            wanted.click(timeout=5_000)
        except NotInTime:
            continue
        return
    wanted.click()


def _add_cluster(seen, environment_, bootstrap_servers):
    _to(seen, "Connections")
    seen.page.get_by_role("button", name="Add", exact=True).nth(1).click()
    dialog = seen.page.get_by_role("dialog")
    for label, text in (
        ("Environment", environment_),
        ("Name", "Kafka Rig"),
        ("Bootstrap servers, host:port", bootstrap_servers),
    ):
        field = dialog.get_by_label(label, exact=True)
        field.fill(text)
        field.press("Tab")
    _choose(seen, "Where", "there is none")
    seen.page.wait_for_timeout(500)  # the last field's drawing
    dialog.get_by_role("button", name="Save", exact=True).click()
    seen.has(bootstrap_servers)
    seen.page.get_by_role("button", name="Test", exact=True).last.click()
    seen.has(re.compile("good"))


def _edit_job(seen, topic):
    _to(seen, "Jobs")
    _press(seen, "Open")
    seen.has("as it is stored")
    _fill(seen, "Cron: minute hour day month weekday", "61 3 * * *")
    seen.has(re.compile("problems: 1"))
    assert seen.page.get_by_role("button", name="Save …", exact=True).is_disabled()
    _look(seen, "2_mistake")
    _fill(seen, "Cron: minute hour day month weekday", "30 3 * * *")
    seen.has(re.compile("changed, not saved"))
    _fill(seen, "Topic", topic)
    _choose(seen, "Cluster", "rig")
    _press(seen, "Show the first messages")
    seen.has("Select a row to see the exact message.")
    seen.has(re.compile(f"→ {topic}, key "))
    seen.has(re.compile(r"message_id"))
    _look(seen, "3_preview")
    _press(seen, "Save …")
    seen.page.get_by_role("dialog").get_by_role("button", name="Save", exact=True).click()
    seen.has("as it is stored")


def _run_now(seen):
    _to(seen, "Jobs")
    _press(seen, "Run now")
    _press(seen, "Yes, run it")
    seen.has(re.compile(r"request \d+ · run"))


def _look(seen, name):
    """Takes a picture, and checks that there is no serious accessibility problem.

    Of what tests/ui/test_walk.py does not show: each takes five seconds of a processor.
    """
    seen.photograph(f"first_day_{name}")
    assert _serious(seen) == []


def _opened_run(place, seen, count):
    """Waits until this many runs have a verdict, and opens the newest."""
    for _ in range(300):
        runs = [run for run in place.runs(SLUG) if run.asked_by != ASKED_BY]
        if len(runs) == count and runs[0].finished_at:
            break
        seen.page.wait_for_timeout(100)
    assert len(runs) == count
    assert runs[0].is_balanced
    _open_run(seen, runs[0])
    return runs[0]


def _open_run(seen, run):
    """Over the list, as a user opens it; also from another run's page."""
    _to(seen, "Runs")
    seen.page.get_by_label("Run", exact=True).fill(run.run_id)
    seen.page.keyboard.press("Enter")
    seen.heading("Export CDG Tracce to Kafka")


def _choose_newest(seen):
    """Tables are drawn on a canvas: the first row is below the heading's."""
    box = seen.page.get_by_test_id("stDataFrame").first.bounding_box()
    seen.page.mouse.click(box["x"] + 17, box["y"] + 52)


def _serious(seen):
    from axe_playwright_python.sync_playwright import Axe

    # Streamlit's own note that goes by itself has no name for a screen reader; what it says is on the page as well.
    found = Axe().run(seen.page, context={"exclude": [[".stToast"]]}).response["violations"]
    return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
