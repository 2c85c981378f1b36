"""A person's first day: an empty folder, the demo, then a broker of one's own. Page and runner are processes."""

import json
import os
import re
import subprocess

import pytest

from bench.kills import stop_runner
from core.demo import BARCODE, SLUG
from tests.rigs.workspace import command, environment
from tests.ui.conftest import Place

ROWS = 20_000


@pytest.fixture
def beginning(tmp_path, look_at):
    """An empty folder with a runner in it."""
    place = Place(tmp_path / "first-day")
    place.folder.mkdir()
    look_at(place)
    own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {}
    with (tmp_path / "runner.log").open("wb") as log:  # not in the folder: the demo wants it empty
        runner = subprocess.Popen(
            command("runner", "--workspace", place.folder), env=environment(), stdout=log, stderr=log, **own_group
        )
    yield place
    code = stop_runner(runner)
    assert code == 0, (tmp_path / "runner.log").read_text(encoding="utf-8")


def test_from_an_empty_folder_to_a_message_sent_again(beginning, kafka, serve, visit):
    seen = visit(serve(beginning))
    consoled = []
    seen.page.on("console", lambda line: consoled.append(line.text) if line.type == "error" else None)

    seen.heading("Overview")
    seen.has("Three steps to the first message")
    seen.has(re.compile("Runner: heartbeat"))
    seen.photograph("first_day_1_empty")
    assert _serious(seen) == []

    seen.page.get_by_role("button", name="Fill with the demo").click()
    seen.has("demo, lives inside each run")
    first = _opened_run(beginning, seen, 1)
    seen.has(f"{ROWS:,} read = {ROWS - 5:,} acknowledged + 5 rejected")
    seen.photograph("first_day_2_verdict")

    topic = kafka.create_topic()
    _use(beginning, kafka.plaintext, topic)
    seen.page.get_by_role("button", name="Send all again").click()
    seen.has("Readers see about")
    seen.page.get_by_role("button", name="Yes, send").click()
    seen.has(re.compile(r"request \d+ · send again"))
    second = _opened_run(beginning, seen, 2)
    assert second.of_run == first.run_id
    assert kafka.count(topic) == ROWS - 5

    seen.page.get_by_role("link", name="Find", exact=True).click()
    seen.heading("Find")
    seen.page.get_by_label("A key, or the start of one", exact=True).fill(BARCODE)
    seen.page.keyboard.press("Enter")
    seen.has("2 sends")
    _choose_newest(seen)
    seen.has("the data has the hash that its message_id is made of")
    assert topic in seen.page.content()
    seen.photograph("first_day_3_found")
    assert seen.troubles == []
    assert consoled == []
    assert "Traceback" not in seen.page.content()


def _opened_run(place, seen, count):
    """Waits until so many runs have their verdict, and opens the newest."""
    for _ in range(300):
        runs = place.runs(SLUG)
        if len(runs) == count and runs[0].finished_at:
            break
        seen.page.wait_for_timeout(100)
    assert len(runs) == count
    assert runs[0].is_balanced
    to_list = seen.page.get_by_role("link", name="all runs")  # of a run's page
    (to_list if to_list.count() else seen.page.get_by_role("link", name="Runs", exact=True)).click()
    seen.heading("Runs")
    seen.page.get_by_label("Run", exact=True).fill(runs[0].run_id)
    seen.page.keyboard.press("Enter")
    seen.heading("Export CDG Tracce to Kafka")
    return runs[0]


def _choose_newest(seen):
    """Tables are drawn on a canvas: the first row is below the heading's."""
    box = seen.page.get_by_test_id("stDataFrame").first.bounding_box()
    seen.page.mouse.click(box["x"] + 17, box["y"] + 52)


def _use(place, bootstrap_servers, topic):
    """What a person changes in two files to leave the demo's broker."""
    connections, job = place.folder / "connections.json", place.folder / "queries" / f"{SLUG}.job.json"
    document = json.loads(connections.read_text(encoding="utf-8"))
    document["kafka_connections"]["collaudo"] = {"name": "Kafka Collaudo", "bootstrap_servers": bootstrap_servers}
    connections.write_text(json.dumps(document), encoding="utf-8")
    document = json.loads(job.read_text(encoding="utf-8"))
    document["kafka_config"]["topic"] = topic
    job.write_text(json.dumps(document), encoding="utf-8")


def _serious(seen):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(seen.page).response["violations"]
    return [(v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")]
