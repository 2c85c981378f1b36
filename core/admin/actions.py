"""Actions of an operator that change no file of the user's: tests, the rebuild of metrics, the roll-up of old sends."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from core.records.rights import Caller, require

if TYPE_CHECKING:
    from core.records.ledger import Ledger
    from core.records.metrics import Metrics, SyncResult
    from core.records.opened import OpenWorkspace
    from core.records.retention import RolledUpResult

__all__ = ["allow_test", "rebuild_metrics", "roll_up_sends"]


def allow_test(
    ledger: Ledger,
    action: Literal["test", "test mail"],
    object_: str,
    *,
    caller: Caller,
    now: datetime,
    after: Mapping[str, Any] | None = None,
) -> None:
    """Allows a test that reaches a server, and audits it before it is done.

    Args:
        ledger: Stores the audit line.
        action: What is tested.
        object_: `cluster Kafka Produzione`, `connection A00` or `mail`.
        caller: Who asks for it.
        now: The clock.
        after: More about it, such as the recipients.

    Raises:
        AccessRefused: The caller may not send.
    """
    require(caller, action)
    ledger.audit.add(caller.name, action, object_, now, after=after)


def rebuild_metrics(metrics: Metrics, ledger: Ledger, *, caller: Caller, now: datetime) -> SyncResult:
    """Builds metrics.duckdb again from the spool.

    Raises:
        AccessRefused: The caller is no admin.
        StorageFailed: The file cannot be written.
    """
    require(caller, "rebuild")
    made = metrics.rebuild()
    ledger.audit.add(caller.name, "rebuild", "metrics.duckdb", now, after={"sends": made.sends})
    return made


def roll_up_sends(opened: OpenWorkspace, *, caller: Caller, now: datetime) -> RolledUpResult:
    """Rolls up the sends that are older than the retention of settings and jobs.

    Raises:
        AccessRefused: The caller is no admin.
        StorageFailed: A file cannot be written.
    """
    from core.records.retention import note_pass, retention_of, roll_up  # loads duckdb

    require(caller, "roll up")
    made = roll_up(opened.metrics, retention_of(opened.workspace, opened.settings), now)
    if made.state == "done":
        note_pass(opened.workspace, made, now)
    opened.ledger.audit.add(
        caller.name, "roll up", "metrics.duckdb", now, after={"runs": made.runs, "sends": made.sends}
    )
    return made
