"""The error of a read that takes too long; apart from the reader, which loads confluent_kafka."""

from __future__ import annotations

from core.errors import BrokerUnavailable

__all__ = ["NotReadInTime"]


class NotReadInTime(BrokerUnavailable):
    """The broker answers, and what was asked of it did not come in time."""
