"""A job's first messages exactly as they would be sent, with warnings about them; nothing is sent."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

from core.clock import iso_utc
from core.files.names import distinct_columns
from core.files.writer import RowDecoder, cell_text
from core.message.column_types import SAFE_INTEGER
from core.message.decoding import readable
from core.message.envelope import NULL_KEY, Encoded, Envelope
from core.message.record_fields import fixed_headers
from core.model.dialect import Dialect
from core.model.job import Job
from core.model.publisher import NO_TIME
from core.model.query import Step
from core.model.run import Plan, Reject
from core.model.schema import Schema, Schemas
from core.model.source import Column, Reading, Rows, Source
from core.records.opened import OpenWorkspace
from core.run.format_warnings import format_warnings
from core.run.incremental import next_window
from core.run.planning import cluster_of_plan
from core.run.row_reader import formats_of
from core.run.schemas import schemas_of
from core.sources import open_source

__all__ = ["Preview", "PreviewMessage", "file_rows", "open_reading", "preview", "preview_plan"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MADE_AT_THE_RUN = "(made at the run)"
MOST_BYTES = 2**31
"""A row of a file has no limit of its own."""
NEAR_LIMIT = 0.8
"""Share of the size limit from which a message gets a warning: rows of another day may be larger."""


@dataclass(frozen=True, slots=True)
class PreviewMessage:
    """One message as it would be sent."""

    row_number: int
    """Position in the result, from 1."""
    key: str | None
    headers: dict[str, str]
    value: str
    """The exact JSON text; of another format its content as JSON; `null` for a tombstone."""
    size_bytes: int
    """Size of the value, as in `metrics.duckdb`; key and headers are not counted."""
    timestamp: str | None = None
    """Time of the record, ISO 8601 in UTC, from `timestamp_field`; None: when it is sent."""
    value_base64: str | None = None
    """The bytes as they are sent, where they are not that text; None: they are, or it is a tombstone."""
    key_base64: str | None = None
    """The same for the key."""
    is_tombstone: bool = False
    """The value is null: consumers delete what they know of the key."""


@dataclass(frozen=True, slots=True)
class Preview:
    """The first messages of a job, and warnings to read before it runs."""

    messages: list[PreviewMessage]
    warnings: list[str]
    """Each is a sentence: which column, what is unusual, what to do."""
    rejects: list[Reject]
    columns: tuple[Column, ...]
    value_schema: Schema | None = None
    """None: the values are plain JSON."""
    key_schema: Schema | None = None


def preview(
    plan: Plan,
    source: Source,
    *,
    rows: int,
    now: Callable[[], datetime],
    max_request_size_bytes: int,
    schemas: Schemas | None = None,
) -> Preview:
    """Reads the first rows and makes their messages with the code of a run; sends nothing.

    A column that cannot be sent is a warning here and not an error, so that every such column is listed.

    Args:
        plan: What would be read and where it would go.
        source: The database.
        rows: Rows to read, at most.
        now: The clock, aware UTC.
        max_request_size_bytes: The client's limit for one message.
        schemas: Finds the ids of schemas and registers none; None: the cluster has no registry.

    Raises:
        SourceUnavailable, NotAuthorised, QueryFailed: As in `Source.read`.
        ConfigError: The job names a column that the query does not return.
    """
    steps: Sequence[Step] = plan.query.steps
    if plan.window is not None and plan.job.incremental is not None:
        steps = source.increment(steps, plan.job.incremental, plan.window).steps
    with source.read(steps, fetch_rows=rows) as reading:
        columns = reading.columns if plan.output is None else distinct_columns(reading.columns)
        refused = [
            f"{c.name} ({c.database_type}) cannot be sent, so nothing is shown: {c.refusal}"
            for c in columns
            if c.refusal
        ]
        if refused:
            return Preview([], refused, [], columns)
        envelope = Envelope(columns, plan.job, scheduled_at=plan.scheduled_at, formats=formats_of(plan, schemas))
        given = list(_first(reading, rows))
    messages: list[PreviewMessage] = []
    rejects: list[Reject] = []
    for fetched in given:
        encoded = envelope.encode(fetched)
        messages += _messages(encoded, envelope, now(), plan.job)
        rejects += encoded.rejects
    cells = [row for fetched in given for row in fetched.rows]
    check = _PreviewWarnings(plan.job, source.dialect, columns, cells, messages, rejects, max_request_size_bytes)
    warnings = [*check.warnings(), *format_warnings(envelope, schemas)]
    return Preview(messages, warnings, rejects, columns, envelope.value_schema, envelope.key_schema)


def preview_plan(opened: OpenWorkspace, plan: Plan, *, rows: int, timeout_s: float | None = None) -> Preview:
    """Returns the exact messages that a plan would send first, and warnings about them.

    Args:
        opened: The workspace.
        plan: What would be read.
        rows: At most.
        timeout_s: How long the statement may take, if the connection does not allow less.

    Raises:
        SourceUnavailable, NotAuthorised, QueryFailed: As in `Source.read`.
        ConfigError: The job names a column that the query does not return.
    """
    limit, schemas = MOST_BYTES, None
    if plan.output is None:
        cluster = cluster_of_plan(opened, plan)
        limit, schemas = cluster.max_request_size_bytes, schemas_of(plan.job, cluster, registers=False)
    database = opened.connections.database(plan.job.connection)
    timeouts = [seconds for seconds in (database.statement_timeout_s, timeout_s) if seconds]
    source = open_source(replace(database, allow_writes=False, statement_timeout_s=min(timeouts, default=None)))
    if plan.job.incremental is not None:
        known = opened.ledger.watermarks.get(plan.job.slug)
        window = next_window(plan.job, plan.job.incremental, known, datetime.now(UTC))
        plan = replace(plan, window=replace(window, since=None))
    with closing(source):
        return preview(
            plan,
            source,
            rows=rows,
            now=lambda: datetime.now(UTC),
            max_request_size_bytes=limit,
            schemas=schemas,
        )


@contextmanager
def open_reading(opened: OpenWorkspace, plan: Plan) -> Iterator[Reading]:
    """Yields the result of a plan's query, read-only and without a run.

    Raises:
        SourceUnavailable, NotAuthorised, QueryFailed: As in `Source.read`.
    """
    source = open_source(replace(opened.connections.database(plan.job.connection), allow_writes=False))
    with closing(source), source.read(plan.query.steps, fetch_rows=plan.fetch_rows) as reading:
        yield reading


def file_rows(made: Preview, job: Job) -> list[list[str]]:
    """Returns the same rows as the file of an Excel or CSV job would show them, one text a cell."""
    cells = RowDecoder(made.columns, job)
    start, end = len('{"data":'), -len("}")
    return [[cell_text(cell, job) for cell in cells.of(message.value[start:end].encode())] for message in made.messages]


def _first(reading: Reading, rows: int) -> Iterator[Rows]:
    """Yields the first `rows` rows; does not start another fetch after them."""
    left = rows
    for fetched in reading:
        yield Rows(fetched.first_row, fetched.rows[:left], fetched.extracted_at)
        left -= len(fetched.rows)
        if left <= 0:
            return


def _base64(raw: bytes | None) -> str | None:
    return None if raw is None else base64.b64encode(raw).decode()


def _messages(encoded: Encoded, envelope: Envelope, now: datetime, job: Job) -> Iterator[PreviewMessage]:
    fixed = {name: text.decode() for name, text in (*fixed_headers(job), *envelope.headers(encoded))}
    columns, times = (*encoded.fields.headers, *envelope.header_columns(encoded)), encoded.fields.timestamps_ms
    value_schema = envelope.value_schema
    for i, value in enumerate(envelope.values(encoded, published_at=now)):
        key, text = encoded.keys[i], encoded.readable_keys[i]
        headers = {"message_id": encoded.message_ids[i].decode(), "run_id": MADE_AT_THE_RUN, "job": job.name}
        headers |= fixed
        headers |= {name: cell.decode() for name, cells in columns if (cell := cells[i]) is not None}
        has_schema = value_schema is not None and value is not None
        yield PreviewMessage(
            encoded.row_numbers[i],
            None if text is None else text.decode(),
            headers,
            readable(value, None if value_schema is None else lambda _: value_schema).text,
            len(value or b""),
            None if times is None else _iso_time(times[i]),
            _base64(value) if has_schema else None,
            _base64(key) if encoded.key_texts is not None else None,
            value is None,
        )


def _iso_time(unix_ms: int) -> str | None:
    """Returns the time of a record; None: it has none of its own."""
    return None if unix_ms == NO_TIME else iso_utc(EPOCH + timedelta(milliseconds=unix_ms), "milliseconds")


@dataclass(frozen=True, slots=True)
class _PreviewWarnings:
    """The rows that were read and their messages, and the warnings about them."""

    job: Job
    dialect: Dialect
    columns: tuple[Column, ...]
    rows: list[Sequence[Any]]
    messages: list[PreviewMessage]
    rejects: list[Reject]
    max_request_size_bytes: int

    def warnings(self) -> Iterator[str]:
        if not self.rows:
            nothing = "send nothing" if self.job.export_format == "kafka" else "write a file with the header alone"
            yield f"the query returns no rows for these parameters: a run would be green and {nothing}"
            return
        yield from self.null_keys()
        yield from self.repeated_keys()
        yield from self.number_keys()
        yield from self.padded_keys()
        yield from self.spread_keys()
        yield from self.null_times()
        for index, column in enumerate(self.columns):
            values = [row[index] for row in self.rows if row[index] is not None]
            if self.job.export_format == "kafka":
                yield from self.large_numbers(column, values)
            yield from self.mixed_dates(column, values)
        yield from self.large_messages()
        yield from self.bad_rows()

    @property
    def key_columns(self) -> list[Column]:
        fields = self.job.kafka_config.message_key_field or ()
        wanted = [fields] if isinstance(fields, str) else list(fields)
        by_name = {column.name.lower(): column for column in self.columns}
        return [by_name[name.lower()] for name in wanted]

    @property
    def key_name(self) -> str:
        return " + ".join(column.name for column in self.key_columns)

    def override(self, column: Column) -> str | None:
        return next((kind for name, kind in self.job.types.items() if name.lower() == column.name.lower()), None)

    def null_keys(self) -> Iterator[str]:
        if not self.key_columns:
            return
        fix = f"add {self.key_columns[0].name} IS NOT NULL to the query"
        if sent := sum(message.key is None for message in self.messages):
            yield f"{self.key_name}: the key is null in {self._of_rows(sent)}, sent without a key to any partition; {fix} or choose another message_key_field"
        refused = [reject for reject in self.rejects if reject.reason == NULL_KEY]
        if refused:
            end = "would be rejected" if self.job.on_null_key == "reject" else "would end the run"
            first = refused[0]
            yield f'{first.column}: the key is null in {self._of_rows(len(refused))} (first in row {first.row_number}), which {end}; {fix}, or set "on_null_key": "send"'

    def repeated_keys(self) -> Iterator[str]:
        counts = Counter(message.key for message in self.messages if message.key is not None)
        repeated = sum(count for count in counts.values() if count > 1)
        if repeated:
            yield f"{self.key_name}: {repeated} of {len(self.messages)} messages share their key with another one; a compacted topic keeps only the last of each, so add a column to message_key_field if each row matters there"

    def number_keys(self) -> Iterator[str]:
        for column in self.key_columns:
            if column.kind in ("integer", "decimal"):
                yield f"{column.name} is a number in the database ({column.database_type}): leading zeros, if the real keys have them, are already gone from the key; if so, write {self.dialect.padded_number.format(column.name)} in the query, with the true length"

    def padded_keys(self) -> Iterator[str]:
        for column in self.key_columns:
            if self.override(column):
                continue
            index = self.columns.index(column)
            padded = sum(isinstance(row[index], str) and row[index].endswith(" ") for row in self.rows)
            if padded:
                yield f'{column.name} ({column.database_type}): the key ends with blanks in {self._of_rows(padded)}, and readers who look for it without them find nothing; set "types": {{"{column.name}": "string"}} to send it without'

    def spread_keys(self) -> Iterator[str]:
        kafka = self.job.kafka_config
        fields = kafka.partition_field or ()
        placing = {name.lower() for name in ([fields] if isinstance(fields, str) else fields)}
        keys = {column.name.lower() for column in self.key_columns}
        is_spread = kafka.partitioner == "round_robin" or (kafka.partitioner == "column" and not placing <= keys)
        if keys and is_spread:
            yield f'{self.key_name}: with partitioner "{kafka.partitioner}" the messages of one key go to several partitions, so readers do not get them in order and a compacted topic keeps one of each partition'

    def null_times(self) -> Iterator[str]:
        nulls = sum(message.timestamp is None for message in self.messages)
        if self.job.kafka_config.timestamp_field and nulls:
            yield f"{self.job.kafka_config.timestamp_field}: it is null in {self._of_rows(nulls)}, whose records get the time when they are sent"

    def large_numbers(self, column: Column, values: list[Any]) -> Iterator[str]:
        """Warns about digits that a reader with doubles (JavaScript, jq, a spreadsheet) would lose."""
        override = self.override(column)
        kind = override or column.kind
        if kind not in ("integer", "decimal") or (override is None and self.job.decimals == "string"):
            return
        count = sum(map(_is_beyond_double, values))
        if not count:
            return
        alone = f'"types": {{"{column.name}": "string"}}'
        fix = f'"decimals": "string", or {alone} for this column alone' if override is None else alone
        yield f"{column.name}: {self._of_rows(count)} {'holds' if count == 1 else 'hold'} a number beyond 2^53 or with more digits than a double keeps; readers in JavaScript and many tools would round it, so set {fix}"

    def mixed_dates(self, column: Column, values: list[Any]) -> Iterator[str]:
        if column.kind not in ("oracle_date", "date") or self.override(column):
            return
        clocks = sum(map(_has_clock, values))
        if clocks and clocks != len(values):
            yield f'{column.name}: {clocks} of {len(values)} dates {"carries" if clocks == 1 else "carry"} a time of day and the others do not, so readers would meet two shapes; set "types": {{"{column.name}": "datetime"}} or "date"'

    def large_messages(self) -> Iterator[str]:
        limit = self.max_request_size_bytes
        sizes = [(_wire_size(message), message.row_number) for message in self.messages]
        over = [number for size, number in sizes if size > limit]
        near = [number for size, number in sizes if limit * NEAR_LIMIT <= size <= limit]
        fix = "leave out or shorten its largest column, or raise KAFKA_MAX_REQUEST_SIZE here and max.message.bytes on the topic"
        if over:
            yield f"{self._of_rows(len(over))} (first: row {over[0]}) {'makes' if len(over) == 1 else 'make'} a message over the limit of {limit:,} bytes and would be rejected; {fix}"
        if near:
            yield f"{self._of_rows(len(near))} (first: row {near[0]}) {'makes' if len(near) == 1 else 'make'} a message of 80 % or more of the limit of {limit:,} bytes; {fix}"

    def bad_rows(self) -> Iterator[str]:
        bad = [reject for reject in self.rejects if reject.reason != NULL_KEY]
        if not bad:
            return
        first = bad[0]
        place = f"row {first.row_number}" + (f", column {first.column}" if first.column else "")
        if self.job.on_bad_row == "fail":
            yield f'{place} would end the run: {first.reason}; mend the row, or set "on_bad_row": "reject"'
        else:
            yield f"{self._of_rows(len(bad))} would be rejected, the first is {place}: {first.reason}; mend the rows, or set the column's form under types"

    def _of_rows(self, count: int) -> str:
        return f"{count} of {len(self.rows)} rows"


def _has_clock(value: Any) -> bool:
    """Returns whether a date has a time of day; SQLite's are text."""
    if isinstance(value, str):
        return len(value) > len("2026-01-17") and value[11:].strip("0:.") != ""
    return isinstance(value, datetime) and value.time() != time()


def _is_beyond_double(value: Any) -> bool:
    """Returns whether a double cannot hold all digits. A value that is no finite number becomes a reject elsewhere."""
    if isinstance(value, int):
        return abs(value) > SAFE_INTEGER
    try:
        number = Decimal(value) if isinstance(value, str) else value
    except InvalidOperation:
        return False
    if not isinstance(number, Decimal) or not number.is_finite():
        return False
    return abs(number) > SAFE_INTEGER or Decimal(repr(float(number))) != number


def _wire_size(message: PreviewMessage) -> int:
    headers = sum(len(name.encode()) + len(text.encode()) for name, text in message.headers.items())
    return message.size_bytes + len((message.key or "").encode()) + headers
