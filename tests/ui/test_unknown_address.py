"""An address without a view leads to the Overview, which says so in the reader's language."""

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from ui.addresses import KnownAddresses

HTML = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture
def browser() -> TestClient:
    async def answer(request):
        return PlainTextResponse(f"passed on {request.url.path}")

    app = Starlette(routes=[Route("/{path:path}", answer)], middleware=[Middleware(KnownAddresses)])
    return TestClient(app, follow_redirects=False, headers=HTML)


@pytest.mark.parametrize(
    ("asked", "place"),
    [
        ("/overview", "/"),
        ("/overview?days=7", "/?days=7"),
        ("/nowhere", "/?unknown=nowhere"),
        ("/runs/42", "/?unknown=runs%2F42"),
        ("/a%20%3Cb%3E", "/?unknown=a+%3Cb%3E"),
        ("/" + "x" * 3000, "/?unknown=" + "x" * 100),
    ],
)
def test_an_address_without_a_view_leads_to_the_overview(browser, asked, place):
    answer = browser.get(asked)
    assert (answer.status_code, answer.headers["location"]) == (303, place)


@pytest.mark.parametrize(
    "asked", ["/", "/runs", "/run?run=1", "/topic", "/favicon.png", "/_stcore/health", "/api/runs"]
)
def test_others_are_passed_on(browser, asked):
    assert browser.get(asked).text == f"passed on {asked.partition('?')[0]}"


def test_below_a_base_path_streamlit_answers(browser, monkeypatch):
    monkeypatch.setattr("streamlit.config.get_option", {"server.baseUrlPath": "kafka"}.get)
    assert browser.get("/kafka/runs").text == "passed on /kafka/runs"


def test_a_program_gets_the_answer_of_its_address(browser):
    assert browser.get("/nowhere", headers={"Accept": "*/*"}).text == "passed on /nowhere"


@pytest.mark.parametrize(
    ("language", "said"), [("en", "There is no page /a <b>"), ("it", "La pagina /a <b> non esiste")]
)
def test_the_overview_says_which_address_is_unknown(language, said):
    def script() -> None:
        from ui.addresses import show_unknown

        show_unknown()

    app = AppTest.from_function(script, default_timeout=60)
    app.session_state["language"] = language
    app.query_params["unknown"] = "a <b>"
    app.run()
    assert not app.exception
    assert app.warning[0].value.replace("\\", "").startswith(said)
