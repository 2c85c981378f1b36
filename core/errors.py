"""Every error that this product raises on purpose, grouped by what the reader has to do next.

```
PsttError
 ├ ConfigError           fix a file: which one, where in it, the nearest valid name
 │  └ SqlError           the same for an SQL file: line and column
 ├ RetriableError        the same operation may succeed later
 │  ├ SourceUnavailable  the database cannot be reached, or was lost before the first row
 │  ├ BrokerUnavailable  no broker answers
 │  ├ SecretUnavailable  a vault, or a command that supplies a secret, does not answer
 │  ├ DeliveryTimeout    sent, but not acknowledged in time
 │  ├ BatchRefused       messages of one request are refused because of one of them; alone each may pass
 │  │  └ BatchTooLarge   the same for their common size
 │  ├ RegistryUnavailable  the schema registry does not answer
 │  ├ NotDelivered       a mail or another notification could not be sent
 │  └ LedgerBusy         another process locks a file of the workspace for too long
 │     └ RunnerBusy      another runner works in this workspace
 ├ RunFailed             this run stops, the others go on
 │  ├ QueryFailed        the database refused the statement, or stopped in the middle of it
 │  ├ NotAuthorised      wrong password, or an account that may not do this
 │  ├ TopicMissing       the topic does not exist and is not created automatically
 │  ├ MessageRefused     one message will never be accepted: it has no key, or its timestamp is refused
 │  │  └ MessageTooLarge one message is over a size limit
 │  ├ RetriesExhausted   a batch was retried as often as allowed
 │  ├ StorageFailed      a file of the workspace could not be written (disk full, no permission)
 │  ├ SchemaRefused      the schema registry does not accept the schema of the messages
 │  ├ ColumnsChanged     the result has other columns or types than the runs before
 │  ├ NothingArrived     every row was rejected
 │  ├ ExpectationFailed  every row arrived, but their number is not what the job expects
 │  ├ MessagesLost       what was acknowledged is no longer on the topic: it was recreated or truncated
 │  ├ VerificationFailed the run's messages were read back and differ from what was sent
 │  ├ RunCancelled       a user asked the run to stop
 │  ├ RunTimedOut        it took longer than the job allows
 │  └ RunInterrupted     its process ended, or its runner was stopped; the scheduled run is executed again
 ├ AccessRefused         the caller is known, but has no right to do this
 │  ├ SignInNeeded       the caller is not signed in, or no longer
 │  └ TooManyAttempts    too many wrong passwords; the next one is checked after a wait
 ├ AlreadySent           this scheduled time has been sent; sending it again has to be confirmed
 ├ NotDueYet             this scheduled time is in the future; sending it now has to be confirmed
 └ RowRejected           this row goes to the rejects, the run continues
```

A message says what failed, on what, why and what to do next. It never holds a secret, and never a
row's value unless payload logging is on.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

__all__ = [
    "AccessRefused",
    "AlreadySent",
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
    "NotDueYet",
    "NothingArrived",
    "PsttError",
    "QueryFailed",
    "RegistryUnavailable",
    "RetriableError",
    "RetriesExhausted",
    "RowRejected",
    "RunCancelled",
    "RunFailed",
    "RunInterrupted",
    "RunTimedOut",
    "RunnerBusy",
    "SchemaRefused",
    "SecretUnavailable",
    "SignInNeeded",
    "SourceUnavailable",
    "SqlError",
    "StorageFailed",
    "TooManyAttempts",
    "TopicMissing",
    "VerificationFailed",
    "WorkersUnavailable",
]


class PsttError(Exception):
    """Root of all errors that are shown to users.

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
    """A file or a setting of the user has to be fixed.

    Args:
        what: As in `PsttError`.
        why: As in `PsttError`.
        remedy: As in `PsttError`.
        file: The file to open; None: a variable or an option is wrong.
        line: Line in that file, from 1; None: not known.
        column: Column in that line, from 1; None: not known.
        key: The dotted name of the wrong value: `kafka_config.batch_size`.
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
        """`connections.json, line 4, column 7`; empty if no file is named."""
        parts = [self.file.name] if self.file else []
        parts += [f"line {self.line}"] if self.line else []
        parts += [f"column {self.column}"] if self.line and self.column else []
        return ", ".join(parts)

    @property
    def text(self) -> str:
        """Where, what and why in one line, without the remedy."""
        return f"{self.where}: {super().text}" if self.where else super().text


class AlreadySent(PsttError):
    """The scheduled time was sent before; sending it again has to be confirmed."""

    exit_code: ClassVar[int] = 2


class NotDueYet(PsttError):
    """The scheduled time is in the future; the runner would skip it then, so sending it now has to be confirmed."""

    exit_code: ClassVar[int] = 2


class SqlError(ConfigError):
    """An SQL file cannot be used as it is, or one of its parameters is missing."""


class RetriableError(PsttError):
    """The same batch, or the same connection, may succeed later."""

    is_retriable: ClassVar[bool] = True


class SourceUnavailable(RetriableError):
    """The database cannot be reached, or the connection was lost before the first row."""

    exit_code: ClassVar[int] = 3


class BrokerUnavailable(RetriableError):
    """No broker of the cluster answers."""

    exit_code: ClassVar[int] = 3


class SecretUnavailable(RetriableError):
    """The vault, or the command, that supplies a secret does not answer."""

    exit_code: ClassVar[int] = 3


class WorkersUnavailable(RetriableError):
    """The scheduler or the workers of a Dask cluster do not answer."""

    exit_code: ClassVar[int] = 3


class RegistryUnavailable(RetriableError):
    """The schema registry does not answer, or has an error of its own."""

    exit_code: ClassVar[int] = 3


class DeliveryTimeout(RetriableError):
    """A message was sent and not acknowledged in time; it may or may not be on the topic."""


class BatchRefused(RetriableError):
    """The broker refused messages that the client sent in one request; sent alone, all but the wrong one pass."""


class BatchTooLarge(BatchRefused):
    """The broker refused messages for their common size; sent alone, all but an oversized one pass."""


class NotDelivered(RetriableError):
    """A mail or another notification could not be sent; it waits in the outbox and is retried."""

    exit_code: ClassVar[int] = 3


class LedgerBusy(RetriableError):
    """Another process locks a file of the workspace for longer than the time limit."""


class RunnerBusy(LedgerBusy):
    """Another runner works in this workspace; there can be only one."""

    exit_code: ClassVar[int] = 3


class RunFailed(PsttError):
    """This run stops; other runs are not affected."""


class QueryFailed(RunFailed):
    """The database refused the statement, or stopped in the middle of its rows."""


class NotAuthorised(RunFailed):
    """A server refused access: wrong password, or an account without that right."""


class TopicMissing(RunFailed):
    """The topic does not exist and the cluster does not create topics on first use."""


class MessageRefused(RunFailed):
    """The broker will never accept this message; the others are not affected."""


class MessageTooLarge(MessageRefused):
    """One message is over the client's or the broker's size limit; the others are not affected."""


class SchemaRefused(RunFailed):
    """The schema registry does not accept the schema of the messages, or does not have it."""


class RetriesExhausted(RunFailed):
    """A batch was retried as often as `KAFKA_MAX_RETRIES` allows."""


class StorageFailed(RunFailed):
    """A file of the workspace could not be written, so the run reports nothing that is not on disk."""


class ColumnsChanged(RunFailed):
    """The result has other columns or types than the runs before; nothing is sent until a user accepts them."""


class ExpectationFailed(RunFailed):
    """Every row arrived, but there are fewer or more of them than the job expects."""


class NothingArrived(RunFailed):
    """Rows were read and every one of them was rejected."""


class MessagesLost(RunFailed):
    """The topic cannot hold all that was acknowledged: it was recreated, truncated or lost a partition."""


class VerificationFailed(RunFailed):
    """Every message was acknowledged, and reading them back showed that some are missing, changed or duplicated."""


class RunCancelled(RunFailed):
    """A user asked this run to stop, and it stopped between two batches."""


class RunTimedOut(RunFailed):
    """The run took longer than `timeout_s` of its job."""


class RunInterrupted(RunFailed):
    """The run was stopped from outside, not by its data: it is executed again with the same message ids."""

    is_retriable: ClassVar[bool] = True


class AccessRefused(PsttError):
    """The caller is known, but has no right to do this."""


class SignInNeeded(AccessRefused):
    """The caller is not known: no or a wrong password, no or an expired token or session."""


class TooManyAttempts(AccessRefused):
    """Too many wrong passwords one after the other.

    Args:
        what: As in `PsttError`.
        wait_s: Seconds until the next one is checked.
    """

    def __init__(self, what: str, *, wait_s: float) -> None:
        super().__init__(what, remedy=f"wait {wait_s:.0f} s and try again")
        self.wait_s = wait_s


class RowRejected(PsttError):
    """One row cannot become a message.

    Args:
        reason: Why, without the value: `NaN has no JSON form`.
        column: The wrong column, as the database names it; empty for the whole row.
        database_type: Its type, as the database names it.
    """

    def __init__(self, reason: str, *, column: str = "", database_type: str = "") -> None:
        super().__init__(f"{column}: {reason}" if column else reason)
        self.reason = reason
        self.column = column
        self.database_type = database_type
