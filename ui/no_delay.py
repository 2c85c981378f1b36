"""Sets TCP_NODELAY on the server's connections.

Streamlit 1.67 binds its socket without naming the protocol, and asyncio then does not set TCP_NODELAY: Nagle's algorithm
holds the second half of a response for 40 ms, until the first is acknowledged. 124 requests over one connection took
5.2 s, and take 0.2 s with it. To be removed once Streamlit names the protocol.
"""

from __future__ import annotations

import socket
from asyncio import base_events

__all__ = ["send_without_delay"]


def send_without_delay() -> None:
    """Makes asyncio set TCP_NODELAY on every TCP connection of this process, however its socket was made."""
    base_events._set_nodelay = _set_nodelay  # type: ignore[attr-defined]


def _set_nodelay(connection: socket.socket) -> None:
    if connection.family in (socket.AF_INET, socket.AF_INET6) and connection.type == socket.SOCK_STREAM:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
