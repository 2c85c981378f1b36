"""The SQL editor and the question before leaving, in a browser, under the page's own Content-Security-Policy."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from core.admin.demo import SLUG, make_demo
from tests.ui.conftest import Place

QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"


@pytest.fixture(scope="module")
def address(tmp_path_factory, serve):
    folder = tmp_path_factory.mktemp("editor") / "demo"
    make_demo(folder, 20, now=datetime.now(UTC))
    return serve(Place(folder))


def asks_before_it_closes(visited):
    """Closes the tab as a user does; the rig answers "stay"."""
    with visited.page.expect_event("dialog") as asked:
        visited.page.close(run_before_unload=True)
    visited.troubles[:] = [trouble for trouble in visited.troubles if not trouble.startswith("dialog")]
    return asked.value.type == "beforeunload"


def test_typing_sql_completes_marks_errors_and_is_kept(address, visit):
    there = visit(f"{address}/job?new=query&file={QUERY}")
    page = there.page
    text = page.locator(".cm-content")
    text.wait_for()
    assert text.get_attribute("aria-label") == "SQL"
    page.locator(".cm-lineNumbers .cm-gutterElement").filter(has_text=re.compile("^2$")).wait_for()
    page.locator(".cm-parameter").filter(has_text="&DATA").first.wait_for()
    text.click()
    page.keyboard.press("Control+End")
    page.keyboard.type("\n-- &DA")
    page.locator(".cm-tooltip-autocomplete li").filter(has_text="&DATA").first.click()
    page.locator(".cm-line").filter(has_text=re.compile("^-- &DATA$")).wait_for()
    page.keyboard.press("Control+a")
    page.keyboard.type("SELECT 1 AS n\nFROM t WHERE a = &MISSING")
    there.has("&MISSING is not defined")
    page.locator(".cm-lintRange-error").first.wait_for()
    there.has("Discard changes")
    assert asks_before_it_closes(there)
    assert there.troubles == []
    again = visit(f"{address}/job?new=query&file={QUERY}")
    again.has("You have a draft of")
    again.page.get_by_role("button", name="Go on with it").click()
    again.page.locator(".cm-content").filter(has_text="&MISSING").wait_for()
    assert again.troubles == []


def test_a_field_that_was_not_left_yet_is_kept_when_the_tab_is_closed(address, visit):
    there = visit(f"{address}/job?job={SLUG}")
    name = there.page.get_by_label("Name", exact=True).first
    name.wait_for()
    name.click()
    there.page.keyboard.press("Control+a")
    there.page.keyboard.type("Half a na")
    assert asks_before_it_closes(there)
    there.has("changed, not saved")
    assert there.troubles == []
    again = visit(f"{address}/job?job={SLUG}")
    again.has("You have a draft of")
    again.has(re.compile("Half a na"))
