"""The page as a process and a real browser: from the overview to a run, and to one message."""

import re
from contextlib import suppress
from itertools import cycle

import pytest

from tests.rigs.sweeps import sweep
from tests.ui.conftest import SLY


@pytest.fixture(scope="module")
def address(_worked, serve):
    return serve(_worked)


def test_from_the_overview_to_the_run_and_to_the_message(worked, address, visit):
    seen = visit(address)
    seen.heading("Overview")
    seen.has("495 of 500 rows acknowledged")
    seen.page.locator(".js-plotly-plot").nth(2).wait_for()
    seen.photograph("overview")
    seen.page.get_by_role("link", name="Runs", exact=True).click()
    seen.heading("Runs")
    seen.photograph("runs")
    run = worked.runs("export")[0]
    seen.page.get_by_label("Run", exact=True).fill(run.run_id)
    seen.page.keyboard.press("Enter")
    seen.has("500 read = 495 acknowledged + 5 rejected")
    assert f"run={run.run_id}" in seen.page.url
    seen.has("Offsets per partition")
    seen.photograph("run")
    seen.page.get_by_role("link", name="Overview", exact=True).click()
    seen.heading("Overview")
    seen.page.get_by_label("Where is …").fill("572680000123")
    seen.page.keyboard.press("Enter")
    seen.heading("Find")
    seen.has("3 sends")
    _first_row(seen)
    seen.has("the data has the hash that its message_id is made of")
    assert SLY in seen.page.get_by_test_id("stCode").first.inner_text().replace("\n", "")
    seen.photograph("find")
    assert seen.troubles == []
    assert {host.split(":")[0] for host in seen.hosts} <= {"127.0.0.1", ""}


def _first_row(seen):
    """Tables are drawn on a canvas: the box of the first row is below the heading's, once the view does not move any more."""
    frame = seen.page.get_by_test_id("stDataFrame").first
    frame.locator("canvas").first.wait_for()
    frame.scroll_into_view_if_needed()
    box, before = frame.bounding_box(), None
    while box != before:
        seen.page.wait_for_timeout(500)
        box, before = frame.bounding_box(), box
    seen.page.mouse.click(box["x"] + 17, box["y"] + 52)


def test_from_the_topics_to_one_message(worked, address, visit):
    from axe_playwright_python.sync_playwright import Axe

    seen = visit(f"{address}/messages")
    seen.heading("Messages")
    search = seen.page.get_by_label("Topic")
    search.fill(worked.topic)
    search.press("Enter")
    seen.has("1 topic.")
    _first_row(seen)
    seen.heading(worked.topic)
    seen.has("It looked through")
    _first_row(seen)
    seen.page.get_by_role("link", name="address of this message").click()
    seen.heading(f"{worked.topic}-")
    seen.has("Download the value")
    seen.page.wait_for_url(re.compile(r"at=\d+(%40|@)\d+"))
    seen.photograph("message")
    violations = Axe().run(seen.page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")] == []
    assert seen.troubles == []


def test_a_click_on_a_day_of_the_chart_shows_its_runs(address, visit):
    from playwright.sync_api import TimeoutError as NotInTime

    seen = visit(address)
    seen.heading("Overview")
    for _ in range(4):  # a chart that is just drawn anew does not notice a click
        box = seen.chart()
        seen.page.mouse.click(box["x"] + box["width"] * 0.982, box["y"] + box["height"] * 0.8)
        with suppress(NotInTime):  # a second click during a slow answer to the first one would open a run of the list
            seen.page.wait_for_url(re.compile("/runs"), timeout=30_000)
            break
    seen.heading("Runs")
    assert re.search(r"sent=\d{4}-\d\d-\d\d", seen.page.url)


def test_an_address_keeps_what_was_chosen_and_shows_another_browser_the_same(address, visit):
    seen = visit(address)
    seen.heading("Overview")
    seen.page.get_by_role("radio", name="90", exact=True).click()
    seen.page.get_by_role("button", name=re.compile("Filter")).click()
    seen.page.get_by_role("combobox", name=re.compile("Job")).first.click()
    seen.page.get_by_role("option", name="broken").click()
    seen.page.wait_for_url(re.compile(r"overview_days=90(&|$)"))
    seen.page.wait_for_url(re.compile(r"overview_job="))
    other = visit(seen.page.url, locale="it-IT")
    other.has(re.compile("Filtro: Broken"))
    assert other.page.get_by_role("radio", name="90", exact=True).get_attribute("aria-checked") == "true"

    seen.page.get_by_role("link", name="Runs", exact=True).click()
    seen.heading("Runs")
    assert "overview_" not in seen.page.url
    seen.page.get_by_role("combobox", name=re.compile("State")).click()
    seen.page.get_by_role("option", name=re.compile("failed")).click()
    seen.page.wait_for_url(re.compile("runs_states="))
    assert [*seen.troubles, *other.troubles] == []


def test_the_calendar_is_used_by_mouse_and_by_keyboard_and_its_address_keeps_what_was_chosen(worked, address, visit):
    from playwright.sync_api import expect

    seen = visit(f"{address}/calendar")
    seen.heading("Calendar")
    grid = seen.page.get_by_role("grid")
    row = grid.get_by_role("row").filter(has=seen.page.get_by_role("link", name="Export"))
    days = row.get_by_role("gridcell")
    days.last.wait_for()
    days.last.scroll_into_view_if_needed()
    seen.photograph("calendar")
    days.nth(56).hover()
    seen.page.mouse.down()
    days.nth(57).hover()
    days.nth(58).hover()
    seen.page.mouse.up()
    seen.has(re.compile(r"[1-3] runs?, about [\d,]+ messages"))
    seen.page.wait_for_url(re.compile("calendar_range="))
    expect(grid.locator("[aria-selected=true]")).to_have_count(3)

    days.nth(58).click()
    seen.page.wait_for_url(re.compile(r"calendar_day=\d{4}-\d\d-\d\d"))
    expect(grid.locator("[aria-selected=true]")).to_have_count(1)
    expect(days.nth(58)).to_be_focused()
    seen.page.keyboard.press("ArrowLeft")
    expect(days.nth(57)).to_be_focused()
    seen.page.keyboard.press("Enter")
    expect(days.nth(57)).to_have_attribute("aria-selected", "true")
    seen.page.keyboard.down("Shift")
    seen.page.keyboard.press("ArrowRight")
    seen.page.keyboard.up("Shift")
    expect(grid.locator("[aria-selected=true]")).to_have_count(2)
    first, last = (days.nth(index).get_attribute("data-day") for index in (57, 58))
    seen.page.wait_for_url(re.compile(f"calendar_range={first}.*{last}"))

    other = visit(seen.page.url)
    other.heading("Calendar")
    expect(other.page.get_by_role("grid").locator("[aria-selected=true]")).to_have_count(2)
    assert [*seen.troubles, *other.troubles] == []


@pytest.mark.parametrize(
    ("scheme", "width"), sweep([("dark", 1400), ("light", 390), ("dark", 390)], always=[("dark", 390)])
)
def test_it_is_italian_for_an_italian_browser_dark_and_on_a_phone(address, visit, scheme, width):
    seen = visit(address, locale="it-IT", color_scheme=scheme, viewport={"width": width, "height": 900})
    seen.heading("Panoramica")
    seen.has("1.485")
    wide = seen.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    seen.photograph(f"overview_{scheme}_{width}")


def test_the_switch_outranks_the_browsers_language(address, visit):
    seen = visit(address, locale="it-IT")
    seen.heading("Panoramica")
    seen.page.locator(".st-key-user-menu button").first.click()
    seen.page.get_by_text("en", exact=True).click()
    seen.heading("Overview")
    seen.page.get_by_role("link", name="Calendar", exact=True).click()
    seen.heading("Calendar")
    seen.page.wait_for_function("document.cookie.includes('pstt_language=en')")
    seen.page.reload()
    seen.heading("Calendar")
    seen.page.goto(f"{address}/runs")
    seen.heading("Runs")


VIEWS = (
    "",
    "runs",
    "runs?run={run}",
    "calendar",
    "find?key=572680000123",
    "jobs",
    "jobs?job=export",
    "jobs?new=1",
    "connections",
    "alerts",
    "administration",
)


@pytest.mark.parametrize("schemes", sweep(["in turn", "light", "dark"], always=["in turn"]))
def test_no_view_has_a_serious_accessibility_finding(worked, address, visit, schemes):
    """One tab for all views: the browser compiles the page's scripts once."""
    from axe_playwright_python.sync_playwright import Axe

    run, seen, found = worked.runs("export")[0].run_id, visit("about:blank"), {}
    for view, in_turn in zip(VIEWS, cycle(["light", "dark"])):
        seen.page.emulate_media(color_scheme=in_turn if schemes == "in turn" else schemes)
        seen.page.goto(f"{address}/{view.format(run=run)}")
        seen.page.get_by_role("heading", level=1).first.wait_for()
        seen.page.wait_for_timeout(2500)
        # What is being drawn again is pale for a moment.
        seen.page.wait_for_function("document.querySelectorAll('[data-stale=true]').length === 0")
        violations = Axe().run(seen.page).response["violations"]
        serious = [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")]
        if serious:
            found[view] = serious
    assert found == {}
