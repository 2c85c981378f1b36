"""What the tour of the demo leads to."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from core.admin.demo import BARCODE
from core.errors import PsttError
from ui import data
from ui.metrics_answers import metrics_of

__all__ = ["TourStops", "tour_stops"]


@dataclass(frozen=True)
class TourStops:
    """What the steps of the tour open."""

    barcode: str
    """It was sent on several days."""
    message: dict[str, str] | None
    """Topic and place of its newest message; None: it was not sent yet, or the sends cannot be read now."""
    failed_run: str | None
    """The newest failed run; None: there is none, or not any more."""


def tour_stops() -> TourStops | None:
    """Returns what the tour opens, up to a minute old; None: this workspace is no demo."""
    return _tour_stops(data.root()) if data.workspace().is_demo else None


@st.cache_data(ttl=60, show_spinner=False, max_entries=32)
def _tour_stops(folder: Path) -> TourStops:
    with data.opened() as app:
        failed, _ = app.ledger.history.page(states=("failed",), limit=1)
    return TourStops(BARCODE, _newest_message(folder), failed[0].run_id if failed else None)


def _newest_message(folder: Path) -> dict[str, str] | None:
    with suppress(PsttError):
        placed = [send for send in metrics_of(folder).find(BARCODE) if send["offset"] is not None]
        if placed:
            return {"topic": placed[-1]["topic"], "at": f"{placed[-1]['partition']}@{placed[-1]['offset']}"}
    return None
