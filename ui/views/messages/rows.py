"""One message as a row of a table."""

from __future__ import annotations

from typing import Any

from core.admin.topic_messages import ReadableMessage
from ui.components.message import one_line
from ui.formats import moment, size
from ui.language import t

__all__ = ["message_row"]

SHOWN_KEY = 60
SHOWN_VALUE = 120


def message_row(message: ReadableMessage, zone: str) -> dict[str, Any]:
    """Returns column → cell; times are those of the zone."""
    stored = message.stored
    return {
        t("Key"): one_line(message.key, SHOWN_KEY),
        t("Time"): moment(stored.at, zone, seconds=True),
        t("Partition"): stored.partition,
        t("Offset"): stored.offset,
        t("Size"): size(stored.size_bytes),
        t("Run"): stored.header("run_id") or "–",
        t("Value"): t("tombstone") if stored.value is None else one_line(message.value, SHOWN_VALUE),
    }
