"""What the tour of the demo leads to."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from core.admin.demo import BARCODE, BARCODE_SENT_ONCE
from ui import data

__all__ = ["TourStops", "tour_stops"]


@dataclass(frozen=True)
class TourStops:
    """What the steps of the tour open."""

    barcode: str
    """It was sent on several days."""
    sent_once: str
    """Its message opens at once, since there is only one."""
    failed_run: str | None
    """The newest failed run; None: there is none, or not any more."""


def tour_stops() -> TourStops | None:
    """Returns what the tour opens, up to 5 s old; None: this workspace is no demo."""
    return _tour_stops(str(data.root())) if data.workspace().is_demo else None


@st.cache_data(ttl=data.CHECK_S, show_spinner=False, max_entries=32)
def _tour_stops(folder: str) -> TourStops:
    with data.opened() as app:
        failed, _ = app.ledger.history.page(states=("failed",), limit=1)
    return TourStops(BARCODE, BARCODE_SENT_ONCE, failed[0].run_id if failed else None)
