"""A link that was shared by a person with another language shows the same."""

import pytest
from streamlit.testing.v1 import AppTest

from tests.ui.conftest import words


def _filters() -> None:
    import streamlit as st

    from ui.components.address import accept_every_language
    from ui.language import t

    def order(name: str) -> str:
        return {"newest": t("the newest"), "oldest": t("the oldest")}[name]

    accept_every_language("order", ("newest", "oldest"), order)
    accept_every_language("part", ("newest", "oldest"), order)
    accept_every_language("some", ("newest", "oldest"), order, many=True)
    st.caption(st.selectbox("1", ("newest", "oldest"), format_func=order, key="order", bind="query-params"))
    st.caption(
        st.segmented_control(
            "2", ("newest", "oldest"), default="newest", format_func=order, key="part", bind="query-params"
        )
    )
    st.caption(" ".join(st.multiselect("3", ("newest", "oldest"), format_func=order, key="some", bind="query-params")))


NEWEST = {"en": "the newest", "it": "il più recente"}
OLDEST = {"en": "the oldest", "it": "il più vecchio"}


@pytest.mark.parametrize("shared", ["en", "it"])
@pytest.mark.parametrize("language", ["en", "it"])
def test_a_filter_of_an_address_is_understood_in_every_language(language, shared):
    app = AppTest.from_function(_filters, default_timeout=60)
    app.session_state["language"] = language
    app.query_params["order"] = OLDEST[shared]
    app.query_params["part"] = OLDEST[shared]
    app.query_params["some"] = [NEWEST[shared], OLDEST[shared]]
    app.run()
    assert not app.exception
    assert "Session State API" not in words(app)
    assert [caption.value for caption in app.caption] == ["oldest", "oldest", "newest oldest"]
    app.selectbox[0].select_index(0).run()
    assert app.caption[0].value == "newest"


def test_what_no_language_has_is_ignored():
    app = AppTest.from_function(_filters, default_timeout=60)
    app.session_state["language"] = "it"
    app.query_params["order"] = "<b>"
    app.run()
    assert [caption.value for caption in app.caption] == ["newest", "newest", ""]


def test_the_states_of_a_shared_link_to_the_runs(worked, see):
    app = see("runs", language="en", runs_states="✘ fallita")
    assert not app.exception
    assert app.multiselect(key="runs_states").value == ["failed"]
