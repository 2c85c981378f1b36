"""A link that was shared by a person with another language shows the same."""

import pytest

from tests.ui.conftest import words


@pytest.mark.parametrize(
    ("language", "given"),
    [("en", "7 giorni"), ("it", "7 days"), ("en", "no such period")],
)
def test_the_period_of_a_link_is_understood_in_every_language(worked, see, language, given):
    app = see("overview", language=language, overview_days=given)
    assert not app.exception
    assert "Session State API" not in words(app)
    assert app.session_state["overview_days"] == (7 if given.startswith("7") else 30)


@pytest.mark.parametrize(("language", "given"), [("en", "✘ fallita"), ("it", "✘ failed")])
def test_the_states_of_a_link_are_understood_in_every_language(worked, see, language, given):
    app = see("runs", language=language, runs_states=given)
    assert not app.exception
    assert app.multiselect(key="runs_states").value == ["failed"]
