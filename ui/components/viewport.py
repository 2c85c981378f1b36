"""Whether the window is as narrow as a phone's; Streamlit itself does not say.

A component without anything to see reports it when the page opens and when the window is turned or resized. Until it
has, the browser's own name decides, so that a phone does not see a table first.
"""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

__all__ = ["PROBE", "is_narrow", "show_probe"]

PROBE = "viewport"
"""Session key of the component's state."""
NARROW_PX = 640
_JS = f"""
export default function({{ data, setStateValue }}) {{
  const media = window.matchMedia('(max-width: {NARROW_PX}px)');
  const report = () => setStateValue('narrow', media.matches);
  if (media.matches !== data.narrow) report();
  media.addEventListener('change', report);
  return () => media.removeEventListener('change', report);
}}
"""


def show_probe() -> None:
    """Draws the component; once on every page."""
    probe = st.components.v2.component("pstt_viewport", js=_JS)
    probe(key=PROBE, data={"narrow": is_narrow()}, on_narrow_change=lambda: None, height=1, width=1)


def is_narrow() -> bool:
    """Returns whether tables are drawn as cards, and filters behind a button."""
    if get_script_run_ctx(suppress_warning=True) is None:
        return False
    reported = (st.session_state.get(PROBE) or {}).get("narrow")
    if reported is not None:
        return bool(reported)
    return "Mobi" in (st.context.headers.get("User-Agent") or "")
