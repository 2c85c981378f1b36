"""Back goes back once, whichever entries Streamlit makes in the browser's history, and nothing fails where it makes others."""

from __future__ import annotations

import pytest

from ui.components.viewport import HISTORY_JS

SITE = "http://page.test"
PUSH = "history.pushState({}, '', '%s');"
TWICE = PUSH % "/overview?run=5" + PUSH % "/runs?run=5"
"""What Streamlit 1.67 does for `st.switch_page` with a query."""


@pytest.fixture
def tab(browser):
    """A page at /overview that has the script and does not have Streamlit."""
    context = browser.new_context()
    made = context.new_page()
    made.route(f"{SITE}/**", lambda route: route.fulfill(body="<p>page", content_type="text/html"))
    made.goto(f"{SITE}/overview")
    yield made
    context.close()


@pytest.mark.parametrize(
    ("pushes", "before"),
    [
        (TWICE, ["/overview"]),
        (TWICE + PUSH % "/runs?run=6" + PUSH % "/jobs?run=6", ["/runs?run=5", "/overview"]),
        (PUSH % "/runs?run=5", ["/overview"]),  # one entry, as another version may make it
        (PUSH % "/runs", ["/overview"]),
        ("history.replaceState({}, '', '/overview?run=5');" + PUSH % "/runs?run=5", ["/overview?run=5"]),
        (PUSH % "/runs" + PUSH % "/runs?run=5", ["/runs", "/overview"]),  # the other order: no entry is lost
        (PUSH % "/overview?days=7" + PUSH % "/runs", ["/overview?days=7", "/overview"]),  # a choice, then another page
        (PUSH % "/overview?days=7" + PUSH % "/overview?days=90", ["/overview?days=7", "/overview"]),
        ("history.pushState({}, '');" + PUSH % "/runs", ["/overview", "/overview"]),
    ],
)
def test_each_press_of_back_leads_to_the_page_before(tab, pushes, before):
    tab.evaluate(f"() => {{ {HISTORY_JS} goBackOnce(); goBackOnce(); {pushes} }}")
    for address in before:
        tab.evaluate("() => new Promise(done => { addEventListener('popstate', done, {once: true}); history.back() })")
        assert tab.url == SITE + address


def test_without_the_script_the_two_entries_are_two(tab):
    tab.evaluate(f"() => {{ {TWICE} }}")
    tab.evaluate("() => new Promise(done => { addEventListener('popstate', done, {once: true}); history.back() })")
    assert tab.url == f"{SITE}/overview?run=5"


def test_a_browser_that_lets_nobody_change_its_history_shows_the_page(tab):
    frozen = "Object.defineProperty(history, 'pushState', {value: history.pushState, writable: false});"
    tab.evaluate(f"() => {{ 'use strict'; {frozen} {HISTORY_JS} goBackOnce(); {PUSH % '/runs?run=5'} }}")
    assert tab.url == f"{SITE}/runs?run=5"
