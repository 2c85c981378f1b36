"""The page as a process and a real browser: from the overview to a run, and to one message."""

import re

import pytest

from tests.ui.conftest import SLY


@pytest.fixture(scope="module")
def address(_worked, serve):
    return serve(_worked)


def test_from_the_overview_to_the_run_and_to_the_message(worked, address, visit):
    seen = visit(address)
    seen.heading("Overview")
    seen.has("495 of 500 rows acknowledged")
    seen.page.locator(".js-plotly-plot").nth(2).wait_for(timeout=20_000)
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
    """Tables are drawn on a canvas: the box of the first row is below the heading's."""
    box = seen.page.get_by_test_id("stDataFrame").first.bounding_box()
    seen.page.mouse.click(box["x"] + 17, box["y"] + 52)


def test_a_click_on_a_day_of_the_chart_shows_its_runs(address, visit):
    seen = visit(address)
    seen.heading("Overview")
    box = seen.chart()
    seen.page.mouse.click(box["x"] + box["width"] * 0.982, box["y"] + box["height"] * 0.8)
    seen.heading("Runs")
    assert re.search(r"sent=\d{4}-\d\d-\d\d", seen.page.url)


def test_an_address_keeps_what_was_chosen_and_shows_another_browser_the_same(address, visit):
    seen = visit(address)
    seen.heading("Overview")
    seen.page.get_by_text("90 days", exact=True).click()
    seen.page.get_by_role("button", name=re.compile("Filter")).click()
    seen.page.get_by_role("combobox", name=re.compile("Job")).first.click()
    seen.page.get_by_role("option", name="broken").click()
    seen.page.wait_for_url(re.compile(r"overview_days=90.days"))
    seen.page.wait_for_url(re.compile(r"overview_job="))
    other = visit(seen.page.url, locale="it-IT")
    other.has(re.compile("Filtro: Broken"))
    assert other.page.get_by_role("radio", name="90 giorni").get_attribute("aria-checked") == "true"

    seen.page.get_by_role("link", name="Runs", exact=True).click()
    seen.heading("Runs")
    assert "overview_" not in seen.page.url
    seen.page.get_by_role("combobox", name=re.compile("State")).click()
    seen.page.get_by_role("option", name=re.compile("failed")).click()
    seen.page.wait_for_url(re.compile("runs_states="))
    other = visit(seen.page.url, locale="it-IT")
    other.has(re.compile("Esecuzioni: 1[.]"))
    assert [*seen.troubles, *other.troubles] == []


def test_days_drawn_over_in_the_calendar_become_the_range(worked, address, visit):
    seen = visit(f"{address}/calendar")
    seen.heading("Calendar")
    box = seen.chart()
    seen.page.mouse.move(box["x"] + box["width"] * 0.90, box["y"] + box["height"] * 0.55)
    seen.page.mouse.down()
    seen.page.mouse.move(box["x"] + box["width"] * 0.999, box["y"] + box["height"] * 0.999, steps=8)
    seen.page.mouse.up()
    seen.has(re.compile(r"[1-6] runs?, about [\d,]+ messages"))
    seen.photograph("calendar")
    assert seen.troubles == []


@pytest.mark.parametrize(("scheme", "width"), [("dark", 1400), ("light", 390), ("dark", 390)])
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "view",
    [
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
    ],
)
def test_no_view_has_a_serious_accessibility_finding(worked, address, visit, view, scheme):
    from axe_playwright_python.sync_playwright import Axe

    seen = visit(f"{address}/{view.format(run=worked.runs('export')[0].run_id)}", color_scheme=scheme)
    seen.page.get_by_role("heading", level=1).first.wait_for(timeout=20_000)
    seen.page.wait_for_timeout(2500)
    # What is being drawn again is pale for a moment.
    seen.page.wait_for_function("document.querySelectorAll('[data-stale=true]').length === 0")
    violations = Axe().run(seen.page).response["violations"]
    assert [(v["id"], v["nodes"][0]["html"]) for v in violations if v["impact"] in ("serious", "critical")] == []
