"""What the parts of a run that looks back leave out: a file of the ids that earlier runs have sent, read by each part."""

from __future__ import annotations

from pathlib import Path

import msgspec

from core.errors import StorageFailed
from core.model.window import Cursor, Window
from core.run.pending_transactions import storing_in
from core.workspace.atomic import write_atomically

__all__ = ["KNOWN_FILE", "known_window", "write_known"]

KNOWN_FILE = "known"
"""Its name in the folder of the run's parts."""


class _Known(msgspec.Struct, frozen=True):
    ids: list[bytes]
    rejects: list[str]


def write_known(folder: Path, window: Window) -> None:
    """Stores what the parts of a run leave out; called before a part begins. A million ids take 34 MB.

    Raises:
        StorageFailed: It cannot be written.
    """
    with storing_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        known = _Known(list(window.known_ids), list(window.known_rejects))
        write_atomically(folder / KNOWN_FILE, msgspec.msgpack.encode(known))


def known_window(folder: Path, since: str) -> Window | None:
    """Returns the window of a part, with what it leaves out; None: the run does not look back.

    Args:
        folder: Where `write_known` has stored it.
        since: The position from which the run looks back; empty: it does not.

    Raises:
        StorageFailed: The file cannot be read. The part sends nothing then: each row could be there already.
    """
    if not since:
        return None
    try:
        known = msgspec.msgpack.decode((folder / KNOWN_FILE).read_bytes(), type=_Known)
    except (OSError, msgspec.DecodeError) as error:
        raise StorageFailed(
            f"{folder / KNOWN_FILE} cannot be read", why=str(error), remedy="run the job again"
        ) from None
    return Window(
        0,
        None,
        since=Cursor(since),
        known_ids=frozenset(known.ids),
        known_rejects=frozenset(known.rejects),
        moves=False,
    )
