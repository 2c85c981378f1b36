"""What is drawn earlier or later than its place: at the first visit the browser says when it has drawn the rest.

A browser that gets figures and charts together shows neither until it has loaded what draws charts, which is a second on a
slow machine. A fixed wait would be too short there and too long elsewhere.

And a browser loads what draws a figure when it meets the first one. React then shows it 0.3 s after the gap it left for
it, or later: so the first one is met before all else.
"""

from __future__ import annotations

import streamlit as st

__all__ = ["DRAWN", "is_drawn", "meet_figure"]

DRAWN = "drawn"
"""Session key: the browser has drawn a view once, so that what draws charts is loaded."""
_JS = """
export default function({ setStateValue }) {
  const timer = setTimeout(() => setStateValue('drawn', true));
  return () => clearTimeout(timer);
}
"""


def meet_figure() -> None:
    """Draws a figure that nobody sees, if the session has drawn nothing yet."""
    # The header's style hides the container. It is there in later drawings too, so that all else keeps its place.
    with st.container(key="met"):
        if DRAWN not in st.session_state:
            st.metric("-", "")


def is_drawn() -> bool:
    """Returns whether the slow part of a view is drawn now; to be called in a fragment that draws it.

    The first time in a session it returns False, and the fragment runs again as soon as the browser has drawn what there is.
    """
    if st.session_state.get(DRAWN):
        return True
    st.session_state[DRAWN] = True
    probe = st.components.v2.component("pstt_drawn", js=_JS)
    probe(key="drawn_probe", on_drawn_change=lambda: None, height=1, width=1)
    return False
