"""One word, sign and colour for each state of a run, and exit codes that agree with it."""

from dataclasses import replace
from typing import get_args

import pytest

from core.cli.documents import run_document
from core.cli.render import run_lines
from core.model.run import Verdict
from core.model.verdict import VERDICT_STYLES, exit_code, headline
from tests.unit.test_render import AWAY, RUN

GREEN = replace(RUN, rejected=0, acknowledged=RUN.rows_read)


@pytest.mark.parametrize(
    ("run", "verdict", "colour", "balanced", "code"),
    [
        (GREEN, "complete", "green", True, 0),
        (replace(RUN, rejected=2, max_rejects=2), "complete", "green", True, 0),
        (replace(RUN, rejected=2, max_rejects=1), "complete_with_rejects", "amber", True, 4),
        (replace(RUN, state="partial"), "partial", "amber", False, 1),
        (replace(RUN, state="running"), "running", "blue", False, 1),
        (replace(AWAY, rows_read=0), "failed", "red", False, 3),
        (replace(AWAY, error_class="NothingArrived"), "failed", "red", False, 1),
        (replace(AWAY, error_class="ConfigError"), "failed", "red", False, 2),
        (replace(AWAY, error_class="WorkersUnavailable"), "failed", "red", False, 3),
        (replace(AWAY, error_class="RegistryUnavailable"), "failed", "red", False, 3),
        (replace(AWAY, state="cancelled", error_class="RunCancelled"), "cancelled", "red", False, 1),
    ],
)
def test_state_word_colour_and_exit_code_agree(run, verdict, colour, balanced, code):
    document = run_document(run)
    assert (document["verdict"], document["balanced"]) == (verdict, balanced)
    assert VERDICT_STYLES[run.verdict].colour == colour
    assert run_lines(run)[0].startswith(headline(verdict))
    assert exit_code(run) == code


def test_every_verdict_has_its_look_and_only_green_has_the_tick():
    assert set(get_args(Verdict)) <= set(VERDICT_STYLES)
    assert [name for name, style in VERDICT_STYLES.items() if style.sign == "✔"] == ["complete"]
    assert [name for name, style in VERDICT_STYLES.items() if style.colour == "green"] == ["complete"]
