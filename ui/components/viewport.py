"""What only the browser knows or keeps: whether the window is as narrow as a phone's, what the user prefers, the history.

A component without anything to see reports the width when the page opens and when the window is turned or resized.
Until it has, the browser's own name decides, so that a phone does not see a table first. It keeps what the user prefers in
cookies, because a session of Streamlit ends with a reload.
"""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

__all__ = ["PROBE", "is_narrow", "show_probe"]

PROBE = "viewport"
"""Session key of the component's state."""
NARROW_PX = 640
HISTORY_JS = """
function goBackOnce() {
  if (window.psttHistory) return;
  window.psttHistory = true;
  const push = history.pushState.bind(history);
  let queryAt = -Infinity;
  const pushOnce = (state, title, url) => {
    const next = new URL(url ?? location.href, location.href);
    const isPath = next.pathname !== location.pathname;
    if (isPath && next.search === location.search && performance.now() - queryAt < 1000) {
      queryAt = -Infinity;
      return history.replaceState(state, title, url);
    }
    queryAt = !isPath && next.search ? performance.now() : -Infinity;
    return push(state, title, url);
  };
  try { history.pushState = pushOnce } catch { /* this browser does not allow it: Back is pressed twice */ }
}
"""
"""Streamlit (1.67) pushes two entries where a page is opened with a query: the old page with the new query, then the new
page. `st.switch_page` would have the user press Back twice; the second entry replaces the first. No version is asked for: only
these two calls are changed, so a Streamlit that makes one entry, or two in another order, is left as it is."""
_JS = f"""{HISTORY_JS}
export default function({{ data, setStateValue }}) {{
  goBackOnce();
  const media = window.matchMedia('(max-width: {NARROW_PX}px)');
  const report = () => setStateValue('narrow', media.matches);
  if (media.matches !== data.narrow) report();
  for (const [name, value] of Object.entries(data.cookies))
    document.cookie = `${{name}}=${{value}}; path=/; max-age=31536000; SameSite=Lax`;
  media.addEventListener('change', report);
  return () => media.removeEventListener('change', report);
}}
"""


def show_probe(cookies: Mapping[str, str]) -> None:
    """Draws the component; once on every page.

    Args:
        cookies: Name → value of what the user chose in this session; the browser keeps them for a year.
    """
    probe = st.components.v2.component("pstt_viewport", js=_JS)
    probe(
        key=PROBE,
        data={"narrow": is_narrow(), "cookies": dict(cookies)},
        on_narrow_change=lambda: None,
        height=1,
        width=1,
    )


def is_narrow() -> bool:
    """Returns whether tables are drawn as cards, and filters behind a button."""
    if get_script_run_ctx(suppress_warning=True) is None:
        return False
    reported = (st.session_state.get(PROBE) or {}).get("narrow")
    if reported is not None:
        return bool(reported)
    return "Mobi" in (st.context.headers.get("User-Agent") or "")
