"""Shows problems to the user: what failed, on what, why, what to do next. Never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import streamlit as st
from loguru import logger

from core.errors import PsttError
from ui.components.text import plain
from ui.language import t, translated

__all__ = ["fragment", "guarded", "problem"]

P = ParamSpec("P")


def problem(error: PsttError) -> None:
    """Draws a box with the parts of a problem."""
    text = f"**{plain(translated(error.what))}**"
    if getattr(error, "where", ""):
        text = f"{plain(translated(error.where))}  \n{text}"  # type: ignore[attr-defined]
    if error.why:
        text += f"  \n{plain(translated(error.why))}"
    if error.remedy:
        text += f"\n\n{t('Next')}: {plain(translated(error.remedy))}"
    st.error(text, icon=":material/error:")


def guarded(show: Callable[P, None]) -> Callable[P, None]:
    """Wraps a view or a part of one, so that an error is shown in its place and the rest of the page is drawn."""

    @wraps(show)
    def inner(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            show(*args, **kwargs)
        except PsttError as error:
            problem(error)
        except Exception as error:  # noqa: BLE001 - around one page: no traceback reaches the user, the log has it
            logger.opt(exception=error).error("{} could not be shown: {}", show.__qualname__, type(error).__name__)
            problem(
                PsttError(
                    t("this part of the page could not be shown"),
                    why=type(error).__name__,
                    remedy=t("this is a defect of PSTT Kafka: report it with the newest file in logs"),
                )
            )

    return inner


def fragment(*, run_every: float | None = None) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Decorates a guarded part of a view that is redrawn without the rest.

    Args:
        run_every: Seconds between two drawings; None: only when one of its widgets is used.
    """

    def decorate(show: Callable[P, None]) -> Callable[P, None]:
        return st.fragment(run_every=run_every)(guarded(show))

    return decorate
