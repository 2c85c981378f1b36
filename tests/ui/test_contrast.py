"""Lines and bars of the charts, and the colours of verdicts, are seen on both backgrounds (WCAG 2.1, 1.4.11: 3:1)."""

import tomllib

import pytest

from tests.rigs.workspace import ROOT
from ui.components.charts import PALETTE
from ui.components.verdict import HEX_COLOURS

THEME = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))["theme"]
LEAST = 3.0


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("colour", sorted({*PALETTE, *HEX_COLOURS.values()}))
def test_a_colour_is_seen_on_the_background(colour, scheme):
    assert contrast(colour, THEME[scheme]["backgroundColor"]) >= LEAST


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", ["backgroundColor", "secondaryBackgroundColor"])
def test_the_focus_is_drawn_in_the_colour_of_the_text_and_seen_on_every_ground(scheme, ground):
    assert contrast(THEME[scheme]["textColor"], THEME[scheme][ground]) >= LEAST
