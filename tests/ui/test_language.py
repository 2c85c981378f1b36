"""Every text that the page can show has its Italian, with the same values in it, and fits its place; data stays as it is."""

import re
from functools import cache

import pytest
from babel.messages.catalog import Message
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from core.language import sentences
from ui.components.text import indented, plain
from ui.language import page_texts, update

LIMITS = {"navigation": 16, "button": 30, "column": 22, "metric": 28}
"""Characters that fit: into the sidebar of 240 px, a button beside others on a phone, a column's head, a figure's label."""
NOT_OURS = {
    r"\blavor[oi]\b": "job",
    r"\blott[oi]\b": "batch",
    r"\barea di lavoro\b": "workspace",
    r"pareggio": "quadra",
    r"\bistantanea\b": "snapshot",
    r"\bmarca temporale\b": "timestamp",
    r"\bsegno di vita\b": "heartbeat",
    r"\b(pò|perchè|poichè|nè|sè|E'|piu|gia|puo|cosi)(?!\w)": "the right accent",
    r"\b(alle|dalle) \{day\}": "il, dal: no hour follows",
}
"""Words that the glossary of docs/decisions/028-catalogue.md replaces, and by which."""


@cache
def italian() -> dict[str, Message]:
    return {first(message): message for message in update.read("it") if message.id and not message.context}


def first(message: Message) -> str:
    return message.id if isinstance(message.id, str) else message.id[0]


def strings(message: Message) -> list[str]:
    return [message.string] if isinstance(message.string, str) else list(message.string or ())


def fields(text: str) -> list[str]:
    """The names of the fields of a text, in the order of the alphabet; what is behind a colon may differ."""
    found = [match for match in sentences.FIELD.finditer(text) if match[0] not in ("{{", "}}")]
    return sorted(match[1] for match in found)


def test_every_text_of_page_and_core_is_in_the_catalogue_and_nothing_else():
    """`python -m ui.language.update` adds what is missing here and removes what no source has any more."""
    now = update.read("it")
    then = update.updated(now, {})
    assert {(first(m), m.context) for m in now if m.id} == {(first(m), m.context) for m in then if m.id}
    places = [file for message in then for file, _ in message.locations]
    assert sum(place.startswith("core/") for place in places) > 1_900
    assert sum(place.startswith("ui/") for place in places) > 900


def test_every_text_is_translated_with_the_same_values():
    wrong = {}
    for english, message in italian().items():
        texts = [message.id] if isinstance(message.id, str) else list(message.id)
        for one, translated in zip(texts, strings(message), strict=True):
            if not translated or fields(one) != fields(translated):
                wrong[english] = translated
    assert wrong == {}


def test_a_text_fits_its_place():
    too_long = {
        (text.place, translated): len(translated)
        for text in page_texts.page_texts()
        if text.place
        for translated in strings(italian()[text.english])
        if len(translated) > LIMITS[text.place]
    }
    assert too_long == {}


@pytest.mark.parametrize("words", NOT_OURS, ids=NOT_OURS.values())
def test_a_term_has_one_word(words):
    found = [text for message in italian().values() for text in strings(message) if re.search(words, text)]
    assert found == []


def _texts() -> None:
    import streamlit as st

    from ui.language import choose, t, tn

    st.caption(t("Find"))
    for count in (0, 1, 2):
        st.markdown(tn(count, "1 rejected row", "{count} rejected rows", count=count))
    choose("en" if st.session_state["language"] == "it" else "it")
    st.caption(t("Find"))


@pytest.mark.parametrize(
    ("language", "found", "rows"),
    [
        ("it", ["Trova", "Find"], ["0 righe scartate", "1 riga scartata", "2 righe scartate"]),
        ("en", ["Find", "Trova"], ["0 rejected rows", "1 rejected row", "2 rejected rows"]),
    ],
)
def test_the_session_decides_the_language_and_the_number_the_form(language, found, rows):
    app = AppTest.from_function(_texts, default_timeout=60)
    app.session_state["language"] = language
    app.run()
    assert [caption.value for caption in app.caption] == found
    assert [text.value for text in app.markdown] == rows
    assert dict(app.query_params) == {}  # an address holds no language


def _problem() -> None:
    from pathlib import Path

    from core.errors import ConfigError
    from ui.components.problem import problem

    problem(
        ConfigError(
            'job "run" sends to partition 7, which is not there',
            why='topic "run" has no partition 7',
            remedy="correct kafka_config.partition of the job, or have partitions added to the topic",
            file=Path("queries/run.job.json"),
            line=1_204,
        )
    )


def test_a_problem_is_shown_in_the_language_of_the_session():
    app = AppTest.from_function(_problem, default_timeout=60)
    app.session_state["language"] = "it"
    text = app.run().error[0].value.replace("\\", "")
    assert 'il topic "run" non ha la partizione 7' in text
    assert "run.job.json, riga 1204" in text
    assert "Che cosa fare: correggere kafka_config.partition del job, o far aggiungere partizioni al topic" in text


@given(st.text(max_size=60))
def test_escaped_data_has_no_sign_that_markdown_takes(text):
    bare = re.sub(r"\\.", "", plain(text))
    assert not set(bare) & set("`*_[]<>$:#|~\n\\")


def test_what_is_escaped_reads_as_it_was():
    assert re.sub(r"\\(.)", r"\1", plain("<b> :red[x] $1$ a_b")) == "<b> :red[x] $1$ a_b"


def test_json_with_indentation_has_every_digit_and_what_is_none_has_none():
    assert indented('{"a":1.50,"b":12345678901234567890.123}') == '{\n  "a": 1.50,\n  "b": 12345678901234567890.123\n}'
    assert [indented(text) for text in ("no", '{"a": NaN}', "[" * 5000 + "]" * 5000)] == [None] * 3
