"""The tour of a demo: five steps, closed and brought back; other workspaces have none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.admin.demo import BARCODE, SLUG, make_demo
from core.app import App
from core.cli.options import now
from core.errors import BrokerUnavailable
from core.records.ledger import Outcome
from tests.ui.conftest import Place, words
from ui import data
from ui.access import CurrentUser
from ui.components import tour
from ui.data.status import workspace_status
from ui.data.tour import tour_stops

STEPS = ["1. All is well?", "2. A failed day", "3. One barcode", "4. The exact message", "5. Send it again"]


@pytest.fixture
def demo(tmp_path, look_at) -> Place:
    place = Place(tmp_path / "demo")
    make_demo(place.folder, 5, now=datetime.now(UTC))
    look_at(place)
    return place


def _tour_and_menu() -> None:
    import streamlit as st

    from ui.components import tour

    tour.show()
    tour.offer()
    st.session_state["cookie"] = tour.cookie()


@pytest.fixture
def app(demo) -> AppTest:
    app = AppTest.from_function(_tour_and_menu, default_timeout=60)
    app.session_state["language"] = "en"
    return app.run()


def labels(app: AppTest) -> list[str]:
    return [button.label for button in app.button]


def test_a_demo_has_five_steps(app):
    shown = words(app)
    assert [step for step in STEPS if step in shown] == STEPS
    assert "all days before the newest are simulated" in shown
    assert labels(app) == ["Close the tour"]


def test_it_is_closed_and_comes_back_from_the_menu(app):
    app.button(key="tour-close").click().run()
    assert "1. All is well?" not in words(app)
    assert labels(app) == ["Tour of the demo"]
    app.button[0].click().run()
    assert "1. All is well?" in words(app)


def test_it_stays_closed_after_a_reload_for_who_closed_it_and_in_this_demo(app, monkeypatch):
    app.button(key="tour-close").click().run()
    (name, value), *others = app.session_state["cookie"].items()
    assert (value, others) == ("closed", [])
    monkeypatch.setattr(type(st.context), "cookies", {name: value})
    again = AppTest.from_function(_tour_and_menu, default_timeout=60).run()
    assert labels(again) == ["Tour of the demo"]
    again.button[0].click().run()
    assert again.session_state["cookie"] == {name: "open"}
    monkeypatch.setattr(tour, "current_user", lambda: CurrentUser("another", "reader"))
    assert labels(AppTest.from_function(_tour_and_menu, default_timeout=60).run()) == ["Close the tour"]


def test_it_speaks_italian(demo, see):
    shown = words(see("tour", package="components", language="it"))
    assert "2. Un giorno fallito" in shown
    assert "Chiudi il giro" not in shown  # a button
    assert "One" not in shown


def test_another_workspace_has_no_tour_and_no_mark(empty, see):
    assert words(see("tour", package="components")) == ""
    assert tour_stops() is None
    assert not workspace_status().is_demo


def test_the_mark_and_the_failed_run_are_of_this_workspace(demo):
    assert workspace_status().is_demo
    stops = tour_stops()
    assert (stops.barcode, stops.message, stops.failed_run) == (BARCODE, None, None)
    with App.open(demo.folder, {}, log=False) as opened:
        run = opened.ledger.start(opened.plan(opened.job(SLUG), now=now()), now())
        opened.ledger.finish(run.run_id, Outcome("failed", error=BrokerUnavailable("away")), now())
    data.clear_caches()
    assert tour_stops().failed_run == run.run_id
