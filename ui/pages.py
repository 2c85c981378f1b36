"""The pages of the navigation. A new page is one module in `ui/views` and one entry here.

`python -m streamlit run ui/app.py` shows it; its module has a function `show()` that draws it. The title is English and a
key of `language/it.po`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["PAGES", "Page", "address_of"]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of the navigation."""

    name: str
    """Its module in `ui.views` and its address."""
    title: str
    icon: str
    details: Mapping[str, str] = field(default_factory=dict)
    """Query parameter → address. A page that is asked for one object has an address of its own, so that the sidebar leads
    back to the list."""


PAGES = (
    Page("overview", "Overview", ":material/monitoring:"),
    Page("jobs", "Jobs", ":material/list_alt:", details={"job": "job", "new": "job"}),
    Page("runs", "Runs", ":material/play_circle:", details={"run": "run"}),
    Page("calendar", "Calendar", ":material/calendar_month:"),
    Page("find", "Find", ":material/search:"),
    Page(
        "messages",
        "Messages",
        ":material/forum:",
        details={"run": "run-messages", "at": "message", "topic": "topic"},
    ),
    Page("connections", "Connections", ":material/lan:"),
    Page("alerts", "Alerts", ":material/notifications:"),
    Page("administration", "Administration", ":material/settings:"),
)
"""In the order of the sidebar; the first one opens by default."""
_BY_NAME = {page.name: page for page in PAGES}


def address_of(name: str, query: Mapping[str, str]) -> str:
    """The address of a page, or that of its detail where the query names an object."""
    return next((address for parameter, address in _BY_NAME[name].details.items() if parameter in query), name)
