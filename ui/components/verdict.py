"""The verdict of a run in words and signs, never by colour alone."""

from __future__ import annotations

from functools import cache
from typing import Literal

from core.model.run import Run
from core.model.verdict import VERDICT_STYLES, Colour, Named
from ui.components.text import plain
from ui.formats import number
from ui.language import Language, current, t, tn

__all__ = [
    "COLOURS",
    "HEX_COLOURS",
    "coloured",
    "coloured_word",
    "equation",
    "error_word",
    "known_colours",
    "subject",
    "verdict_word",
]

COLOURS: dict[Colour, str] = {"green": "green", "amber": "orange", "red": "red", "blue": "blue", "grey": "gray"}
"""What Streamlit calls the colours of a verdict."""
HEX_COLOURS: dict[Colour, str] = {
    "green": "#3a9d6e",
    "amber": "#c47f17",
    "red": "#c0392b",
    "blue": "#4a8fb5",
    "grey": "#7f8c8d",
}
"""The same in charts and in the labels of lists; each has a contrast of 3:1 to a white and to a dark page."""


def verdict_word(name: Named) -> str:
    """`✔ complete`, `? missing`: the sign and the word in the language of the session."""
    words: dict[Named, str] = {
        "complete": t("complete"),
        "complete_with_rejects": t("complete with rejects"),
        "partial": t("partial"),
        "failed": t("failed"),
        "cancelled": t("cancelled"),
        "interrupted": t("interrupted"),
        "running": t("running"),
        "planned": t("planned"),
        "waiting": t("waiting"),
        "skipped": t("skipped"),
        "missing": t("missing"),
        "nothing_due": t("nothing due"),
    }
    return f"{VERDICT_STYLES[name].sign} {words[name]}".strip()


def error_word(kind: Literal["message", "run", "row"]) -> str:
    """`✘ message`, `✘ run`, `◐ row`: what an error is of, with the sign of a failure or of rejects."""
    words = {"message": t("message"), "run": t("run"), "row": t("row")}
    return f"{VERDICT_STYLES['complete_with_rejects' if kind == 'row' else 'failed'].sign} {words[kind]}"


def known_colours() -> dict[str, Colour]:
    """The words of verdicts and of errors in the language of the session, and their colours."""
    return _known_colours(current())


@cache
def _known_colours(_: Language) -> dict[str, Colour]:
    colours = {verdict_word(name): style.colour for name, style in VERDICT_STYLES.items()}
    return colours | {error_word("message"): "red", error_word("run"): "red", error_word("row"): "amber"}


def coloured(text: str) -> str:
    """A text as Markdown: in its colour if it is the word of a verdict or of an error."""
    colour = known_colours().get(text)
    return f":{COLOURS[colour]}[{plain(text)}]" if colour else plain(text)


def coloured_word(name: Named) -> str:
    """The same in its colour, as Markdown."""
    return f":{COLOURS[VERDICT_STYLES[name].colour]}[{verdict_word(name)}]"


def equation(run: Run) -> str:
    """`18,545 read = 18,543 acknowledged + 2 rejected`; where it does not balance, how many did not arrive."""
    if run.state in ("running", "planned"):
        return t("it runs: the counts come with its verdict")
    if run.state == "succeeded" and run.sent == 0 and run.acknowledged:
        return tn(
            run.acknowledged,
            "1 row was sent exactly once by an earlier attempt; nothing was sent again",
            "{count} rows were sent exactly once by an earlier attempt; nothing was sent again",
            count=number(run.acknowledged),
        )
    values = {
        "read": number(run.rows_read),
        "acknowledged": number(run.acknowledged),
        "rejected": number(run.rejected),
    }
    if run.is_file:
        return _file_equation(run, values)
    if run.is_balanced:
        return t("{read} read = {acknowledged} acknowledged + {rejected} rejected", **values)
    if not run.unaccounted:
        return t("{read} read, {acknowledged} acknowledged, {rejected} rejected", **values)
    left = number(run.unaccounted)
    return t(
        "{read} read ≠ {acknowledged} acknowledged + {rejected} rejected: {left} did not arrive", left=left, **values
    )


def _file_equation(run: Run, values: dict[str, str]) -> str:
    if run.is_balanced:
        return t("{read} read = {acknowledged} written + {rejected} rejected", **values)
    return t("{read} read, {acknowledged} written, {rejected} rejected", **values)


def subject(run: Run) -> str:
    """`A00 → topic (cluster)` or `A00 → file`, escaped."""
    if run.is_file:
        return f"{plain(run.connection)} → {plain(', '.join(file.path for file in run.files) or t('a file'))}"
    return f"{plain(run.connection)} → {plain(run.topic)} ({plain(run.cluster)})"
