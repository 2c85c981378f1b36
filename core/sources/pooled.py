"""The common part of databases with a Python DBAPI driver: one connection a run, a result read block by block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, islice
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, ClassVar, TypeVar

from core.errors import NotAuthorised, PsttError, QueryFailed, RunCancelled, SourceUnavailable
from core.model.check_result import CheckResult
from core.model.connection import DatabaseConnection
from core.model.dialect import Dialect
from core.model.job import Incremental, Partitions
from core.model.query import Step, Value
from core.model.source import CANCEL_S, Column, Increment, Rows, Split
from core.model.window import Window
from core.sources.increments import find_increment
from core.sources.session import NoAnswer, Session
from core.sources.splitting import split_query

__all__ = ["BlockReading", "PooledSource"]

T = TypeVar("T")

SLACK_S = 2.0
"""Extra time in which driver and server may end a wait by themselves: their error states the reason."""
LOGIN_SLACK_S = 1.0


class PooledSource(ABC):
    """Base of a `core.model.source.Source`. A database adds how it connects, begins, streams, maps types and translates errors.

    Larger than other classes: it has one method for each step that a database may implement.
    """

    dialect: ClassVar[Dialect]
    driver_errors: ClassVar[tuple[type[BaseException], ...]]
    reads_ahead: ClassVar[bool] = False
    """Whether the driver releases the GIL while it waits, so that the next block can be fetched meanwhile."""
    checks_limits: ClassVar[bool] = False
    """Whether the driver calls `on_wait` of its connection every 0.1 s while it waits, so that rows need no thread of their own.

    They cost 1.5 to 2 times as much processor time in one, as another core makes them than uses them.
    """
    logins: ClassVar[int] = 1
    """How many addresses of one host the driver tries, each for `connect_timeout_s`."""

    def __init__(self, connection: DatabaseConnection) -> None:
        self.connection = connection
        self.name = connection.name
        self.statements_dir: Path | None = None
        self._active: _Connected | None = None
        self._stop_by: float | None = None
        """When (monotonic) a cancelled read has to have ended; None: it is not cancelled."""

    @property
    def port(self) -> int:
        """Returns the port of the connection, else the default port of this database."""
        return self.connection.port or self.dialect.connection.default_port

    @abstractmethod
    def connect(self) -> Any:
        """Returns a DBAPI connection of the driver, with its session set up."""

    @abstractmethod
    def begin(self, raw: Any) -> None:
        """Begins one read-only snapshot, as far as the database supports it."""

    @abstractmethod
    def stream(self, raw: Any, step: Step, fetch_rows: int) -> tuple[tuple[Column, ...], Iterator[Sequence[Any]]]:
        """Runs the result's statement; returns its columns and its blocks of rows."""

    @abstractmethod
    def error(self, error: BaseException, *, reading: bool) -> PsttError:
        """Translates an error of the driver; `reading` is true once rows have been returned."""

    @abstractmethod
    def server_checks(self, raw: Any) -> Iterator[CheckResult]:
        """Yields what `check` reports of the server after connecting."""

    def stop(self, raw: Any) -> None:
        """Cancels what runs on the connection, in the server too. Called from another thread."""
        raw.cancel()

    def cut(self, raw: Any) -> None:  # noqa: B027 - most drivers have no such thing
        """Breaks the connection, so that a call that waits on it returns. Called from another thread."""

    def run(self, raw: Any, step: Step) -> None:
        """Runs a statement and discards its rows."""
        cursor = raw.cursor()
        try:
            cursor.execute(step.sql, step.binds) if step.binds else cursor.execute(step.sql)
        finally:
            cursor.close()

    def count(self, raw: Any, step: Step) -> int:
        """Returns COUNT(*) over a statement."""
        cursor = raw.cursor()
        try:
            sql = self.counting(step.sql)
            cursor.execute(sql, step.binds) if step.binds else cursor.execute(sql)
            return int(cursor.fetchone()[0])
        finally:
            cursor.close()

    def counting(self, sql: str) -> str:
        """Returns the statement that counts. The line break ends a comment at the end of the statement."""
        return f"SELECT COUNT(*) FROM (\n{sql}\n) counted"  # noqa: S608 - the user's own statement, past the readonly guard

    def rows(self, raw: Any, step: Step) -> list[tuple[Any, ...]]:
        """Returns all rows of a statement."""
        with closing(raw.cursor()) as cursor:
            cursor.execute(step.sql, step.binds) if step.binds else cursor.execute(step.sql)
            return list(cursor.fetchall())

    def begin_at(self, raw: Any, snapshot: str) -> None:
        """Begins to read the snapshot of another connection; only where `export_snapshot` returns a token."""
        raise NotImplementedError

    def export_snapshot(self, raw: Any) -> tuple[str, str]:
        """Returns the token of the connection's snapshot, and a warning if other connections cannot read it."""
        return "", (
            f"the parts were not read in one snapshot, which {self.dialect.title} does not share between connections: "
            'rows that changed meanwhile may be missing or there twice; "verify_count": true compares their number'
        )

    @contextmanager
    def read(
        self, steps: Sequence[Step], *, fetch_rows: int = 5000, count: bool = False, snapshot: str = ""
    ) -> Iterator[BlockReading]:
        """See `core.model.source.Source.read`."""
        try:
            self._refuse_cancelled()
            with (
                self._connected() as connected,
                self._reading(connected, steps, fetch_rows, count=count, snapshot=snapshot) as reading,
            ):
                yield reading
        finally:
            self._stop_by = None

    @contextmanager
    def split(
        self,
        steps: Sequence[Step],
        partitions: Partitions,
        *,
        count: bool = False,
        bounds: Sequence[Value] | None = None,
    ) -> Iterator[Split]:
        """See `core.model.source.Source.split`."""

        def begin_and_split() -> Split:
            self._refuse_cancelled()
            self.begin(connected.raw)
            return split_query(self, connected.raw, steps, partitions, count=count, bounds=bounds)

        try:
            self._refuse_cancelled()
            with self._connected() as connected:
                pending = connected.session.begin(lambda: self.translated(begin_and_split))
                yield self.answered(connected.session, pending)
        finally:
            self._stop_by = None

    def increment(self, steps: Sequence[Step], incremental: Incremental, window: Window) -> Increment:
        """See `core.model.source.Source.increment`."""

        def begin_and_ask() -> Increment:
            self._refuse_cancelled()
            self.begin(connected.raw)
            return find_increment(self, connected.raw, steps, incremental, window)

        try:
            self._refuse_cancelled()
            with self._connected() as connected:
                pending = connected.session.begin(lambda: self.translated(begin_and_ask))
                return self.answered(connected.session, pending)
        finally:
            self._stop_by = None

    @contextmanager
    def _connected(self) -> Iterator[_Connected]:
        """Yields a new connection and closes it afterwards.

        It serves one run: a step may have changed its session, and an unfinished stream may still run.
        """
        connected = _Connected(self)
        try:
            opened = connected.session.begin(lambda: self.translated(connected.open))
            try:
                self._answered(connected.session, opened, self.login_s, silent=self._silent_login)
            except QueryFailed as error:  # the drivers have many texts for a connection that breaks during the login
                raise self.unavailable(error.why) from error
            self._active = connected
            yield connected
        finally:
            self._active = None
            connected.session.close()

    @contextmanager
    def _reading(
        self, connected: _Connected, steps: Sequence[Step], fetch_rows: int, *, count: bool, snapshot: str
    ) -> Iterator[BlockReading]:
        started = connected.session.begin(
            lambda: self.translated(lambda: self._start(connected, steps, fetch_rows, count=count, snapshot=snapshot))
        )
        columns, counted = self.answered(connected.session, started)
        reading = BlockReading(self, connected, columns, counted)
        yield reading
        if self.connection.allow_writes and reading.is_complete:
            committed = connected.session.begin(lambda: self.translated(connected.raw.commit, reading=True))
            self.answered(connected.session, committed, reading=True)

    def _start(
        self, connected: _Connected, steps: Sequence[Step], fetch_rows: int, *, count: bool, snapshot: str
    ) -> tuple[tuple[Column, ...], int | None]:
        """Runs everything up to the first row; checks for a cancel between two statements."""
        raw = connected.raw
        last = max(i for i, step in enumerate(steps) if step.returns_rows)
        self._refuse_cancelled()
        self.begin(raw)
        if snapshot:
            self.begin_at(raw, snapshot)
        for step in steps[:last]:
            self._refuse_cancelled()
            self.note_response()
            self.run(raw, step)
        self._refuse_cancelled()
        self.note_response()
        counted = self.count(raw, steps[last]) if count else None
        self._refuse_cancelled()
        self.note_response()
        columns, connected.blocks = self.stream(raw, steps[last], fetch_rows)
        return columns, counted

    def cancel(self, within_s: float = CANCEL_S) -> None:
        """See `core.model.source.Source.cancel`."""
        if self._stop_by is None:
            self._stop_by = monotonic() + within_s
        active = self._active
        if active is not None:
            active.session.stop()

    def check(self) -> list[CheckResult]:
        """See `core.model.source.Source.check`."""
        subject = f"database {self.name}"
        started = perf_counter()
        try:
            with self._connected() as connected:
                ms = (perf_counter() - started) * 1000
                pending = connected.session.begin(
                    lambda: self.translated(lambda: list(self.server_checks(connected.raw)))
                )
                found = self.answered(connected.session, pending)
            return [CheckResult("pass", subject, f"reached in {ms:.0f} ms"), *found]
        except PsttError as error:
            unreachable = isinstance(error, SourceUnavailable)
            return [CheckResult("fail", subject, error.text, error.remedy, unreachable=unreachable)]

    def close(self) -> None:  # noqa: B027 - the end of a run closes its connection
        """See `core.model.source.Source.close`."""

    def answered(self, session: Session, pending: Future[T], *, reading: bool = False) -> T:
        """Returns the result of a call, unless the server stops responding or the run is cancelled."""
        return self._answered(session, pending, self.wait_s, silent=lambda: self.silent(reading=reading))

    def _answered(
        self, session: Session, pending: Future[T], silence_s: float | None, *, silent: Callable[[], PsttError]
    ) -> T:
        return self._in_time(
            session,
            lambda: session.answer(pending, silence_s=silence_s, stop_by=lambda: self._stop_by),
            silent=silent,
        )

    def watched(self, connected: _Connected, call: Callable[[], T], *, reading: bool) -> T:
        """Makes a call in this thread, for a driver that checks the limits of `answered` itself."""
        session = connected.session
        connected.raw.on_wait = session.watch(silence_s=self.wait_s, stop_by=lambda: self._stop_by)
        try:
            return self._in_time(session, call, silent=lambda: self.silent(reading=reading))
        finally:
            connected.raw.on_wait = None

    def _in_time(self, session: Session, wait: Callable[[], T], *, silent: Callable[[], PsttError]) -> T:
        try:
            return wait()
        except NoAnswer:
            pass
        except PsttError:
            if not session.is_cut:
                raise
        raise self._cancellation() if self._is_cancelled else silent()

    def translated(self, action: Callable[[], T], *, reading: bool = False) -> T:
        """Translates the exceptions of the driver, so that none leaves the source."""
        try:
            return action()
        except self.driver_errors as error:
            translated = self._cancellation() if self._is_cancelled else self.error(error, reading=reading)
        # Raised outside of the except block, so that it does not reference the driver's exception: some contain the connection string with its password.
        raise translated

    def readable(
        self,
        blocks: Iterator[Sequence[Any]],
        again: Callable[[], Generator[Sequence[Any], None, None]],
        fetch_rows: int,
    ) -> Iterator[Sequence[Any]]:
        """Yields the blocks. From a value on that the driver cannot read, yields those of `again`, which reads any value.

        The driver drops the whole block of such a value. So the statement is run again in the same transaction, and the rows
        that were returned already are skipped once they are known to be the same.

        Args:
            blocks: The blocks of the fast way.
            again: Reads the same result from its first row in a slower way that accepts any value.
            fetch_rows: Rows of a block.
        """
        marks: list[_Mark] = []
        try:
            for block in blocks:
                marks.append(_mark(block))
                yield block
            return
        except (ValueError, OverflowError) as error:
            refused = error
        if self.connection.allow_writes:  # rows that the query itself has written could be in its result
            raise refused
        try:
            with closing(again()) as more:
                yield from self._behind(marks, more, fetch_rows, refused)
        except self.driver_errors as error:
            if self._is_cancelled:
                raise
            raise self.unreadable(refused, f"and once more: {self.error(error, reading=True).text}") from None

    def _behind(
        self, marks: Sequence[_Mark], blocks: Iterator[Sequence[Any]], fetch_rows: int, refused: Exception
    ) -> Iterator[Sequence[Any]]:
        rows = chain.from_iterable(blocks)
        for mark in marks:
            self._refuse_cancelled()
            if _mark(list(islice(rows, mark[0]))) != mark:
                raise self.unreadable(refused, "and run once more the query gave its rows in another order")
        while block := list(islice(rows, fetch_rows)):
            yield block

    @property
    def _is_cancelled(self) -> bool:
        return self._stop_by is not None

    def _refuse_cancelled(self) -> None:
        if self._is_cancelled:
            raise self._cancellation()

    def _cancellation(self) -> RunCancelled:
        return RunCancelled("the run was cancelled", why=f'the query on "{self.name}" was stopped')

    @property
    def silence_s(self) -> float:
        """How long the server may be silent, in seconds."""
        return self.connection.statement_timeout_s or self.connection.read_timeout_s

    @property
    def wait_s(self) -> float | None:
        """How long a call may wait without a response, in seconds; None: without a limit."""
        return self.silence_s + SLACK_S

    @property
    def login_s(self) -> float:
        """How long connecting may take in total, in seconds."""
        return self.connection.connect_timeout_s * self.logins + LOGIN_SLACK_S

    def note_response(self) -> None:
        """Records that the server has responded."""
        active = self._active
        if active is not None:
            active.session.note_response()

    def _silent_login(self) -> SourceUnavailable:
        return self.unavailable(
            f"reached, but no answer to the login in connect_timeout_s = {self.connection.connect_timeout_s:g} s"
        )

    def silent(self, *, reading: bool) -> PsttError:
        """Returns the error for a server that no longer responds: it computes for too long, or its packets are lost."""
        given = self.connection
        setting = "statement_timeout_s" if given.statement_timeout_s else "read_timeout_s"
        what = f"database {self.place} fell silent" + (" in the middle of the rows" if reading else "")
        why = f"no answer for {setting} = {self.silence_s:g} s"
        if not reading:
            longer = f"check the network and the load of the database; a query that computes for longer needs a higher {setting}"
            return SourceUnavailable(what, why=why, remedy=f"{longer} of the connection")
        return QueryFailed(
            what,
            why=why,
            remedy=f"run it again: the same rows get the same message ids; {setting} of the connection may be raised",
        )

    @property
    def place(self) -> str:
        """`"A00" (cdg.example.com:1521)`."""
        given = self.connection
        port = f":{given.port}" if given.port else ""
        return f'"{self.name}" ({given.host or given.service or given.dsn}{port})'

    def unavailable(self, why: str) -> SourceUnavailable:
        """Returns the error for a database that cannot be reached."""
        return SourceUnavailable(
            f"cannot reach database {self.place}",
            why=why,
            remedy="check host, port, network; then python -m core doctor",
        )

    def refused(self, why: str) -> NotAuthorised:
        """Returns the error for a refused login."""
        return NotAuthorised(
            f"database {self.place} refuses the login of {self.connection.username or 'this account'}",
            why=why,
            remedy=f'check username and password of connection "{self.name}" in connections.json',
        )

    def forbidden(self, why: str) -> NotAuthorised:
        """Returns the error for a missing right."""
        return NotAuthorised(
            f"database {self.place} does not allow {self.connection.username or 'this account'} to run the query",
            why=why,
            remedy="ask for the SELECT right on what the query names",
        )

    def failed(self, why: str) -> QueryFailed:
        """Returns the error for a statement that was refused or failed."""
        return QueryFailed(
            f'the query failed on "{self.name}"', why=why, remedy="fix the SQL; python -m core sql shows it"
        )

    def unreadable(self, error: BaseException, also: str = "") -> QueryFailed:
        """Returns the error for a value that the driver cannot convert; the driver does not report the row."""
        why = "text that is not valid Unicode" if isinstance(error, UnicodeError) else str(error)
        why = f"{why}; {also}" if also else why
        return QueryFailed(
            f'the driver cannot read a value of the query on "{self.name}"',
            why=why,
            remedy="have the database turn that column into text or into a valid value, or leave those rows out",
        )

    def lost(self, why: str, *, reading: bool) -> PsttError:
        """Returns the error for a broken connection."""
        if not reading:
            return self.unavailable(why)
        return QueryFailed(
            f"database {self.place} was lost in the middle of the rows",
            why=why,
            remedy="run it again: the same rows get the same message ids",
        )

    def conflict(self, why: str, *, reading: bool) -> PsttError:
        """Returns the error for a conflict with other sessions: locks, a deadlock, an old snapshot."""
        what = f"database {self.place} could not go on with the query"
        if not reading:
            return SourceUnavailable(what, why=why, remedy="run it again; ask who holds the locks if it stays so")
        return QueryFailed(what, why=why, remedy="run it again: the same rows get the same message ids")

    def timed_out(self) -> QueryFailed:
        """Returns the error for a statement that exceeded its time-out."""
        return QueryFailed(
            f'the query on "{self.name}" was stopped',
            why=f"it ran longer than statement_timeout_s = {self.connection.statement_timeout_s:g} s"
            if self.connection.statement_timeout_s
            else "it ran longer than the database allows",
            remedy="make it faster, or raise statement_timeout_s of the connection",
        )

    def waited_too_long(self, *, reading: bool) -> PsttError:
        """Returns the error for a wait that the driver's own time-out ended."""
        return self.timed_out() if self.connection.statement_timeout_s else self.silent(reading=reading)


class _Connected:
    """One connection with its session and, once it runs, its stream."""

    def __init__(self, source: PooledSource) -> None:
        self._source = source
        self.raw: Any = None
        self.blocks: Iterator[Sequence[Any]] = iter(())
        self.session = Session(source.name, stop=self._stop, cut=self._cut, close=self._close)

    def open(self) -> None:
        self.raw = self._source.connect()

    def _stop(self) -> None:
        if self.raw is not None:
            with suppress(*self._source.driver_errors):
                self._source.stop(self.raw)

    def _cut(self) -> None:
        if self.raw is not None:
            self._source.cut(self.raw)

    def _close(self) -> None:
        """Closes the stream and then the connection, whatever the stream raises."""
        errors = self._source.driver_errors
        with suppress(*errors), ExitStack() as stack:
            if self.raw is not None:
                stack.callback(self.raw.close)
            if isinstance(self.blocks, Generator):
                stack.callback(self.blocks.close)


_Fetched = tuple[Sequence[Any], datetime]
"""Rows, and when they were there."""


class BlockReading:
    """A `core.model.source.Reading`: numbers the rows and, if the driver allows it, fetches the next block meanwhile."""

    def __init__(
        self, source: PooledSource, connected: _Connected, columns: tuple[Column, ...], counted: int | None
    ) -> None:
        self.columns = columns
        self.counted = counted
        self._source = source
        self._connected = connected
        self._first_row = 1
        self._is_returning_rows = False
        self.is_complete = False
        """Whether the last row was returned."""

    def __iter__(self) -> Iterator[Rows]:
        """See `core.model.source.Reading`."""
        for rows, extracted_at in self._fetched():
            if not rows:
                self.is_complete = True
                return
            self._is_returning_rows = True
            yield Rows(self._first_row, rows, extracted_at)
            self._first_row += len(rows)

    def _fetched(self) -> Iterator[_Fetched]:
        """Yields each block; the last one is empty."""
        source, session = self._source, self._connected.session
        if source.checks_limits:
            while True:
                yield source.watched(self._connected, self._fetch, reading=self._is_returning_rows)
        pending = session.begin(self._fetch)
        while True:
            block = source.answered(session, pending, reading=self._is_returning_rows)
            if source.reads_ahead and block[0]:
                pending = session.begin(self._fetch)
                yield block
            else:
                yield block
                pending = session.begin(self._fetch)

    def _fetch(self) -> _Fetched:
        rows = self._source.translated(lambda: next(self._connected.blocks, ()), reading=self._is_returning_rows)
        self._source._refuse_cancelled()
        return rows, datetime.now(UTC)


_Mark = tuple[int, int]
"""Identifies a block: its number of rows, and a hash of its first and last row.

A row more or less shifts all later blocks.
"""


def _mark(block: Sequence[Sequence[Any]]) -> _Mark:
    return len(block), hash((repr(block[0]), repr(block[-1]))) if block else 0
