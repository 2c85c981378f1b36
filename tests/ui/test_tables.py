"""Numbers are shown completely at every width, checked in a real browser."""

import re
import sqlite3
from pathlib import Path

import pytest

from core.model.job import Job
from core.model.query import Query, Step
from core.model.run import Plan
from core.records.ledger import Ledger
from core.workspace.paths import Workspace
from tests.rigs.sweeps import sweep
from tests.ui.conftest import now
from ui.components import tables

MANY, MOST = 1_000_000, 123_456_789
DRAWN = (Path(__file__).parent / "drawn.js").read_text(encoding="utf-8")
# What is hidden from the eye and not from screen readers is 1 px wide.
IS_CUT = (
    "e => [e, ...e.querySelectorAll('*')].some(part => part.scrollWidth > part.clientWidth + 1 && part.clientWidth > 1)"
)
NUMBER = re.compile(r"\d[\d.,]*\d")


@pytest.fixture(scope="module")
def large(_worked, tmp_path_factory):
    """A workspace whose oldest runs, and one message, have large numbers; the newest ones have small ones."""
    place = _worked.copy(tmp_path_factory.mktemp("large") / "ws")
    file = Workspace(place.folder).ledger_file
    query = Query("q.sql", (Step("select 1"),), {}, "ab" * 32)
    with Ledger(file) as ledger:
        for _ in range(15):
            ledger.start(Plan(Job("many", "Many", "q.sql", "pg"), query, "rig", "t", now(), 100), now())
    with sqlite3.connect(file) as db:
        db.execute("UPDATE run SET state = 'failed', error_text = 'x', error_class = 'x' WHERE job = 'many'")
        db.execute("UPDATE run SET rows_read = ?, acknowledged = ?, rejected = ?, attempt = ? WHERE job = 'export'",
                   (MOST + MANY, MOST, MANY, MANY))  # fmt: skip
        db.execute("UPDATE run_partition SET first_offset = ?, last_offset = ?, count = ?", (MANY, MOST, MOST - MANY))
        db.execute("UPDATE reject SET row_number = row_number + ?, key = '=1+1'", (MANY,))
    return place


@pytest.fixture(scope="module")
def address(large, serve):
    return serve(large)


BELOW_THE_HEADER = """
['h1', '.st-key-frame'].map(one => document.querySelector(one).getBoundingClientRect().y).reduce((title, frame) => title - frame)
"""
"""How far the title is below the line at the top, in pixels."""


@pytest.mark.parametrize(
    ("width", "locale", "many", "most"),
    sweep(
        [(1280, "en-GB", "1,000,000", "123,456,789"), (800, "it-IT", "1.000.000", "123.456.789")],
        always=[(800, "it-IT", "1.000.000", "123.456.789")],
    ),
)
def test_no_table_and_no_metric_shows_a_part_of_a_number(large, address, visit, width, locale, many, most):
    run = large.runs("export")[0]
    seen = visit("about:blank", locale=locale, viewport={"width": width, "height": 1200})
    seen.page.add_init_script(DRAWN)
    found: set[str] = set()
    tops: dict[str, float] = {}
    for path in ("runs", f"runs?run={run.run_id}", "find?key=572680000123", ""):
        seen.page.goto(f"{address}/{path}")
        seen.page.locator("[data-testid=stDataFrame] canvas").first.wait_for()
        drawn = all_drawn(seen.page)
        assert {text["text"] for text in drawn if text["isCut"] and NUMBER.fullmatch(text["text"])} == set()
        metrics = seen.page.get_by_test_id("stMetricValue").all()
        assert [m.inner_text() for m in metrics if m.evaluate(IS_CUT)] == []
        found |= {text["text"] for text in drawn}
        tops[path] = seen.page.evaluate(BELOW_THE_HEADER)
    assert tops[""] == tops["runs"]  # the figure that nobody sees takes no room
    assert width < 800 or {many, most} <= found


def test_on_a_phone_a_row_is_a_card_with_every_value(large, address, visit):
    run = large.runs("export")[0]
    seen = visit("about:blank", viewport={"width": 390, "height": 900})
    for path, card in (("runs", "[data-testid=stRadioGroup] > div"), (f"runs?run={run.run_id}", ".pstt-card")):
        seen.page.goto(f"{address}/{path}")
        seen.page.locator(card).first.wait_for()
        assert seen.page.get_by_test_id("stDataFrame").count() == 0
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
        cut = "e => e.scrollWidth > e.clientWidth + 1"
        assert [one.inner_text() for one in seen.page.locator(card).all() if one.evaluate(cut)] == []
    assert "123,456,789" in seen.page.locator("body").inner_text()
    seen.photograph("run_cards_390")
    seen.page.goto(f"{address}/runs")
    seen.page.get_by_role("button", name="Filters").click()
    seen.page.get_by_role("combobox", name=re.compile("State")).wait_for()
    seen.page.keyboard.press("Escape")
    seen.page.locator("[data-testid=stRadioGroup] > div").first.click(
        position={"x": 200, "y": 60}
    )  # its label is all of it
    seen.page.wait_for_url(re.compile("/run[?]run="))
    seen.page.get_by_role("link", name="all runs").wait_for()
    seen.page.go_back()
    seen.heading("Runs")
    assert seen.page.url == f"{address}/runs"
    assert seen.troubles == []


def test_a_table_that_holds_a_formula_of_the_data_cannot_be_downloaded_as_csv(large, address, visit):
    run = large.runs("export")[0]
    seen = visit(f"{address}/runs?run={run.run_id}")
    for heading, there in ("Rejected rows", 0), ("Offsets per partition", 1):
        box = (
            seen.page.locator("[data-testid=stVerticalBlock]")
            .filter(has=seen.page.get_by_role("heading", name=heading))
            .last
        )
        table = box.get_by_test_id("stDataFrame").last
        table.scroll_into_view_if_needed()
        table.hover()
        toolbar = box.get_by_test_id("stElementToolbar").last
        toolbar.get_by_role("button", name="Search").wait_for()
        assert toolbar.get_by_role("button", name="Download as CSV").count() == there


def all_drawn(page):
    """What the tables of a view draw, once they draw nothing more; what is below is drawn when it is seen."""
    before = -1
    while (count := page.evaluate("window.drawn.length")) != before:
        before = count
        for frame in page.get_by_test_id("stDataFrame").all():
            frame.scroll_into_view_if_needed()
        page.wait_for_timeout(700)
    return page.evaluate("window.drawn")


def test_a_column_is_as_wide_as_its_longest_number_wherever_that_is():
    rows = [
        {"Read": n, "Note": "a text that is too long to be shown whole on any page of this program"} for n in range(40)
    ]
    config = tables._config([*rows, {"Read": MOST, "Note": ""}], names=[])
    assert config["Read"]["width"] >= len("123,456,789") * 6.5 + 16
    assert "Note" not in config


def test_a_column_of_numbers_is_one_although_its_first_cell_is_empty():
    config = tables._config([{"Read": None}, {"Read": MOST}], names=[])
    assert config["Read"]["type_config"]["type"] == "number"


def test_a_column_that_says_the_usual_in_each_row_is_left_out():
    rows = [{"Run": "a", "Attempt": 1, "Key": "k"}, {"Run": "b", "Attempt": 1, "Key": "other"}]
    assert tables.without_usual(rows, {"Attempt": 1, "Key": "k"}) == [
        {"Run": "a", "Key": "k"},
        {"Run": "b", "Key": "other"},
    ]
    assert tables.without_usual([*rows, {"Run": "c", "Attempt": 2}], {"Attempt": 1})[0] == rows[0]


def test_numbers_have_the_signs_of_the_chosen_language_whatever_the_browser_has(monkeypatch):
    monkeypatch.setattr("ui.formats.current", lambda: "it")
    drawn = tables._drawn([{"n": 1256, "x": 1.5, "none": 1000, "s": "a"}, {"n": 3, "x": 2.0, "none": None, "s": "b"}])
    html = drawn.to_html()
    assert all(f">{text}</td>" in html for text in ("1.256", "1,5", "1.000", "3", "2", "a", "b"))
    few = [{"n": 1, "s": "a"}]
    assert tables._drawn(few) == few  # nothing to write otherwise


@pytest.mark.parametrize("width", sweep([1280, 390], always=[390]))
def test_the_figures_of_the_overview_stand_one_below_the_other(address, visit, width):
    seen = visit(address, viewport={"width": width, "height": 1000})
    for card in ("figures_today", "figures_week"):
        metrics = seen.page.locator(f".st-key-{card} [data-testid=stMetric]")
        metrics.nth(3).wait_for()
        left = [round(metrics.nth(index).bounding_box()["x"]) for index in range(4)]
        assert left[0] == left[2] < left[1] == left[3]
