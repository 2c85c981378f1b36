"""Copies new sends from the spool into metrics.duckdb; a failure there is logged and changes no verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loguru import logger

from core.errors import PsttError

if TYPE_CHECKING:
    from core.records.metrics import Metrics

__all__ = ["update_metrics"]


def update_metrics(metrics: Metrics) -> None:
    """Copies the spool; logs what prevents it."""
    try:
        synced = metrics.sync()
    except (PsttError, OSError) as error:
        logger.warning("metrics.duckdb was not updated: {}", error)
        return
    if synced.state == "rebuilt":
        logger.warning(synced.note)
    elif synced.note:
        logger.info(synced.note)
