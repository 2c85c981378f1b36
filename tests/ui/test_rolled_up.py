"""What the page says where single sends are rolled up: since when they are known, what the roll-up did, and why no run is listed."""

from datetime import date, timedelta

import pytest
from babel.dates import format_date

from core.records.metrics import Metrics
from core.records.metrics_queries import SendFilter
from core.records.retention import Retention, note_pass, roll_up
from core.records.roll_up_note import last_roll_up
from core.workspace.paths import Workspace
from tests.ui.conftest import ZONE, now, words
from ui.data.overview import overview_figures


@pytest.fixture
def rolled_up(spoilt):
    """The workspace ten days later, when single sends are kept for one day. Returns the day of the sends."""
    (bar,) = overview_figures(SendFilter(), 30).days
    workspace, later = Workspace(spoilt.folder), now() + timedelta(days=10)
    made = roll_up(Metrics(workspace, ZONE.key), Retention(1, ZONE.key), later)
    note_pass(workspace, made, later)
    assert (made.runs, made.sends) == (3, 1485)
    return bar["day"], (later - timedelta(days=1)).astimezone(ZONE).date()


def in_words(day: date, language: str) -> str:
    return format_date(day, "d MMM yyyy", locale={"en": "en_GB", "it": "it_IT"}[language])


@pytest.mark.parametrize(
    ("language", "since", "did"),
    [
        (
            "en",
            "Single sends are known since {}; earlier ones are counted by day.",
            "1,485 single sends of 3 runs became",
        ),
        ("it", "I singoli invii sono noti dal {}; i precedenti sono contati per giorno.", "1.485 invii singoli di 3"),
    ],
)
def test_the_administration_page_says_what_the_roll_up_did(rolled_up, spoilt, see, language, since, did):
    text = words(see("administration", language=language))
    assert since.format(in_words(rolled_up[1], language)) in text
    assert did in text
    last = last_roll_up(Workspace(spoilt.folder))
    assert last is not None
    assert min(last.before_bytes, last.after_bytes) > 0


@pytest.mark.parametrize(
    ("language", "why", "none"),
    [
        ("en", "1,485 messages of these days are only counted by day, so their runs are not", "No run is like that."),
        ("it", "1.485 messaggi di questi giorni sono ormai contati solo per giorno, perciò", "Nessuna esecuzione"),
    ],
)
def test_a_day_that_is_rolled_up_says_why_it_lists_no_runs(rolled_up, see, language, why, none):
    day, since = rolled_up
    text = words(see("runs", language=language, sent=str(day)))
    assert why in text
    assert in_words(since, language) in text
    assert none in text
    assert why not in words(see("runs", language=language))


def test_before_the_first_roll_up_nothing_of_it_is_said(spoilt, see):
    text = words(see("administration"))
    assert "No sends were rolled up yet." in text
    assert "Single sends are known since" not in text
