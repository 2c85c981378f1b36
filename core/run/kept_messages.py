"""What a run sends to the mock brokers of a demo is kept, so that it can be read from the topic afterwards.

Decision: docs/decisions/029-demo.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from loguru import logger

from core.errors import LedgerBusy, PsttError
from core.kafka.mock_cluster import keep
from core.model.connection import Cluster
from core.workspace.locks import locked

__all__ = ["kept_messages"]

WAIT_S = 60.0
"""How long a run of a demo waits for another one, which is over in seconds."""


@contextmanager
def kept_messages(cluster: Cluster) -> Iterator[None]:
    """Keeps what is sent inside the `with` statement to a demo's mock brokers; does nothing for other clusters.

    Each process has mock brokers of its own, so only one process at a time may send: two would assign the same offsets.
    A failure to keep messages is logged, and changes no verdict: the brokers have acknowledged them.

    Raises:
        LedgerBusy: Another process of the demo sends for longer than a minute.
    """
    if cluster.kept_in is None:
        yield
        return
    with locked(cluster.kept_in.with_suffix(".lock"), _busy, wait_s=WAIT_S):
        try:
            yield
        finally:
            try:
                keep(cluster)
            except PsttError as failure:
                logger.warning("{}", failure.text)


def _busy() -> LedgerBusy:
    return LedgerBusy(
        "another run of this demo is sending",
        why="the mock brokers of a demo serve one process at a time",
        remedy="wait for it; python -m core runs shows its state",
    )
