"""Every error this product raises on purpose, split by what the reader does next.

```
PsttError
 ├ ConfigError           fix a file: which one, where in it, the nearest valid name
 │  └ SqlError           the same for an SQL file: line and column
 ├ RetriableError        the same thing may succeed later
 │  ├ SourceUnavailable  the database cannot be reached, or was lost before the first row
 │  ├ BrokerUnavailable  no broker answers
 │  ├ DeliveryTimeout    handed over, but not acknowledged in time
 │  ├ BatchRefused       messages that went together are refused for one of them; alone each may pass
 │  │  └ BatchTooLarge   the same for their common size
 │  ├ NotDelivered       a mail or another notice could not be handed over
 │  └ LedgerBusy         another process holds a file of ours for too long
 │     └ RunnerBusy      another runner works in this workspace
 ├ RunFailed             this run stops, the others go on
 │  ├ QueryFailed        the database refused the statement, or stopped in the middle of it
 │  ├ NotAuthorised      wrong password, or an account that may not do this
 │  ├ TopicMissing       the topic does not exist and will not be made
 │  ├ MessageRefused     one message will never be taken: it has no key, or its time is not accepted
 │  │  └ MessageTooLarge one message is over a size limit
 │  ├ RetriesExhausted   a batch was tried as often as allowed
 │  ├ StorageFailed      a file of ours could not be written (disk full, no permission)
 │  ├ ColumnsChanged     the result has other columns or types than the runs before
 │  ├ NothingArrived     every row was rejected
 │  ├ ExpectationFailed  every row arrived, but their number is not what the job expects
 │  ├ MessagesLost       what was acknowledged is not on the topic any more: made again, cut short
 │  ├ VerificationFailed the run's messages were read back, and are not what was sent
 │  ├ RunCancelled       somebody asked the run to stop
 │  ├ RunTimedOut        it went on for longer than the job allows
 │  └ RunInterrupted     its process ended, or its runner was stopped; the same fire is run again
 ├ AccessRefused         who asks is known, and may not do this
 │  ├ SignInNeeded       who asks is not known here, or no longer
 │  └ TooManyAttempts    too many wrong passwords; the next one is looked at later
 ├ AlreadySent           this scheduled time has been sent; say yes to send it again
 ├ BatchPartlySent       some messages of a batch failed: index → error
 └ RowRejected           this row goes to the rejects, the run goes on
```

A message says what failed, on what, why and what to do next. It never holds a secret, and never a
row's value unless payload logging is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

__all__ = [
    "AccessRefused",
    "AlreadySent",
    "BatchPartlySent",
    "BatchRefused",
    "BatchTooLarge",
    "BrokerUnavailable",
    "ColumnsChanged",
    "ConfigError",
    "DeliveryTimeout",
    "ExpectationFailed",
    "LedgerBusy",
    "MessageRefused",
    "MessageTooLarge",
    "MessagesLost",
    "NotAuthorised",
    "NotDelivered",
    "NothingArrived",
    "PsttError",
    "QueryFailed",
    "RetriableError",
    "RetriesExhausted",
    "RowRejected",
    "RunCancelled",
    "RunFailed",
    "RunInterrupted",
    "RunTimedOut",
    "RunnerBusy",
    "SignInNeeded",
    "SourceUnavailable",
    "SqlError",
    "StorageFailed",
    "TooManyAttempts",
    "TopicMissing",
    "VerificationFailed",
]


class PsttError(Exception):
    """Root of all errors that a person is meant to read.

    Args:
        what: What failed and on what, in one clause: `cannot log in to database "A00"`.
        why: The cause as far as it is known: `password refused (ORA-01017)`.
        remedy: What to do next, as an instruction: `check env:A00_PASSWORD`.
    """

    is_retriable: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.remedy = remedy

    @property
    def text(self) -> str:
        """What and why in one line, without the remedy."""
        return f"{self.what}: {self.why}" if self.why else self.what

    def __str__(self) -> str:
        return f"{self.text}. {self.remedy}" if self.remedy else self.text


class ConfigError(PsttError):
    """A file or a setting of the user has to be corrected.

    Args:
        what: As in `PsttError`.
        why: As in `PsttError`.
        remedy: As in `PsttError`.
        file: The file to open, or None where a variable or an option is at fault.
        line: Line in that file, from 1; None where it is not known.
        column: Column in that line, from 1; None where it is not known.
        key: The dotted name of the value at fault: `kafka_config.batch_size`.
    """

    exit_code: ClassVar[int] = 2

    def __init__(
        self,
        what: str,
        *,
        why: str = "",
        remedy: str = "",
        file: Path | None = None,
        line: int | None = None,
        column: int | None = None,
        key: str = "",
    ) -> None:
        super().__init__(what, why=why, remedy=remedy)
        self.file = file
        self.line = line
        self.column = column
        self.key = key

    @property
    def where(self) -> str:
        """`connections.json, line 4, column 7`; empty where no file is at fault."""
        parts = [self.file.name] if self.file else []
        parts += [f"line {self.line}"] if self.line else []
        parts += [f"column {self.column}"] if self.line and self.column else []
        return ", ".join(parts)

    @property
    def text(self) -> str:
        """Place, what and why in one line, without the remedy."""
        return f"{self.where}: {super().text}" if self.where else super().text


class AlreadySent(PsttError):
    """The scheduled time was sent before; sending it again wants a yes."""

    exit_code: ClassVar[int] = 2


class SqlError(ConfigError):
    """An SQL file cannot be used as it stands, or a parameter of it is missing."""


class RetriableError(PsttError):
    """The same batch, or the same connection, may succeed later."""

    is_retriable: ClassVar[bool] = True


class SourceUnavailable(RetriableError):
    """The database cannot be reached, or the connection was lost before the first row."""

    exit_code: ClassVar[int] = 3


class BrokerUnavailable(RetriableError):
    """No broker of the cluster answers."""

    exit_code: ClassVar[int] = 3


class DeliveryTimeout(RetriableError):
    """A message was handed over and not acknowledged in time; it may or may not be on the topic."""


class BatchRefused(RetriableError):
    """The broker refused messages that the client had put together; sent alone, all but the one at fault pass."""


class BatchTooLarge(BatchRefused):
    """The broker refused messages for their common size; sent alone, all but an oversized one pass."""


class NotDelivered(RetriableError):
    """A mail or another notice could not be handed over; it waits in the outbox and is tried again."""

    exit_code: ClassVar[int] = 3


class LedgerBusy(RetriableError):
    """Another process holds one of our own files for longer than we wait."""


class RunnerBusy(LedgerBusy):
    """Another runner works in this workspace; there is never a second one."""

    exit_code: ClassVar[int] = 3


class RunFailed(PsttError):
    """This run stops; other runs are not touched."""


class QueryFailed(RunFailed):
    """The database refused the statement, or stopped in the middle of its rows."""


class NotAuthorised(RunFailed):
    """A server was reached and said no: wrong password, or an account without that right."""


class TopicMissing(RunFailed):
    """The topic does not exist and the cluster does not make topics on first use."""


class MessageRefused(RunFailed):
    """The broker will never take this message; the others are not touched."""


class MessageTooLarge(MessageRefused):
    """One message is over the client's or the broker's size limit; the others are not touched."""


class RetriesExhausted(RunFailed):
    """A batch was tried as often as `KAFKA_MAX_RETRIES` allows."""


class StorageFailed(RunFailed):
    """A file of ours could not be written, so nothing is claimed that could not be proved."""


class ColumnsChanged(RunFailed):
    """The result has other columns or types than the runs before; nothing was sent, a person has to agree."""


class ExpectationFailed(RunFailed):
    """Every row arrived, but there are fewer or more of them than the job expects."""


class NothingArrived(RunFailed):
    """Rows were read and every one of them was rejected."""


class MessagesLost(RunFailed):
    """The topic cannot hold all that was acknowledged: it was made again, cut short or lost a partition meanwhile."""


class VerificationFailed(RunFailed):
    """Every message was acknowledged, and reading them back found that some are missing, changed or there twice."""


class RunCancelled(RunFailed):
    """Somebody asked this run to stop, and it did between two batches."""


class RunTimedOut(RunFailed):
    """The run went on for longer than `timeout_s` of its job."""


class RunInterrupted(RunFailed):
    """The run was broken off by us, not by its data: the same fire is run again with the same message ids."""

    is_retriable: ClassVar[bool] = True


class AccessRefused(PsttError):
    """Who asks is known, and may not do this."""


class SignInNeeded(AccessRefused):
    """Who asks is not known: no or a wrong password, no or an expired token or session."""


class TooManyAttempts(AccessRefused):
    """Too many wrong passwords one after the other.

    Args:
        what: As in `PsttError`.
        wait_s: When the next one will be looked at.
    """

    def __init__(self, what: str, *, wait_s: float) -> None:
        super().__init__(what, remedy=f"wait {wait_s:.0f} s and try again")
        self.wait_s = wait_s


class BatchPartlySent(PsttError):
    """Some messages of a batch failed; the others are acknowledged and are never sent again.

    Args:
        errors: Index in the batch, from 0 → why that message failed.
        total: Messages in the batch.
    """

    def __init__(self, errors: Mapping[int, PsttError], total: int) -> None:
        first = next(iter(errors.values()))
        super().__init__(f"{len(errors)} of {total} messages failed", why=first.text, remedy=first.remedy)
        self.errors = dict(errors)
        self.total = total


class RowRejected(PsttError):
    """One row cannot become a message.

    Args:
        reason: Why, without the value: `NaN has no JSON form`.
        column: The column at fault, as the database names it; empty for the whole row.
        database_type: Its type, for people.
    """

    def __init__(self, reason: str, *, column: str = "", database_type: str = "") -> None:
        super().__init__(f"{column}: {reason}" if column else reason)
        self.reason = reason
        self.column = column
        self.database_type = database_type
