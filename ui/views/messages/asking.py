"""Draws what a cluster is asked for; one that does not answer is not asked again at each drawing, and a button asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec

import streamlit as st

from core.errors import BrokerUnavailable
from ui.components.problem import guarded, problem
from ui.components.text import plain
from ui.data.messages import FAILURE_S, ask_again, failure_of
from ui.data.status import workspace_status
from ui.formats import moment
from ui.language import t, tn

__all__ = ["asking"]

P = ParamSpec("P")


def asking(show: Callable[Concatenate[str, P], None]) -> Callable[Concatenate[str, P], None]:
    """Wraps a part of the view whose first argument names the cluster, or the run whose cluster it is."""

    @guarded
    def inner(key: str, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            show(key, *args, **kwargs)
        except BrokerUnavailable as error:
            problem(error)
            _again(key)

    return inner


def _again(key: str) -> None:
    failure = failure_of(key)
    if failure is not None:
        zone = workspace_status().timezone
        st.caption(
            tn(
                int(FAILURE_S),
                "It did not answer at {time} ({zone}); it is asked again after 1 second.",
                "It did not answer at {time} ({zone}); it is asked again after {count} seconds.",
                time=moment(failure.at, zone, seconds=True),
                zone=plain(zone),
                count=int(FAILURE_S),
            )
        )
    if st.button(t("Try again"), key=f"try_again_{key}", icon=":material/refresh:"):
        ask_again(key)
        st.rerun()
