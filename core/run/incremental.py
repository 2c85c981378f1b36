"""What a run of an incremental job reads: the rows after the watermark, which moves with the verdict.

The watermark is in the ledger. For exactly_once it is a record of the control topic too, in the transaction of the
messages: a ledger that was lost, or that missed the end of a killed run, takes it from there. See docs/decisions/021.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from itertools import chain
from pathlib import Path

import msgspec
from loguru import logger

from core.clock import iso_utc
from core.errors import ConfigError
from core.model.job import Incremental, Job
from core.model.query import ParameterValue, Query
from core.model.run import Plan
from core.model.window import Cursor, RunWindow, Window
from core.records.ledger import Ledger
from core.records.opened import OpenWorkspace
from core.records.watermarks import Watermark
from core.run.known_sends import require_known
from core.run.planning import plan_run
from core.sql.incremental import INCREMENTAL, cursor_text, earlier, is_after, latest, moment_of, shown
from core.sql.known_statements import KnownStatements

__all__ = [
    "WatermarkRecord",
    "increment_warnings",
    "next_window",
    "query_of_job",
    "record_of_watermark",
    "start_of",
    "take_record",
    "window_of_run",
    "with_window",
]


class WatermarkRecord(msgspec.Struct, frozen=True):
    """The watermark of a job as a record of the control topic."""

    run: str
    """The run whose transaction has written it."""
    version: int
    value: str
    tie: str = ""
    column: str = ""
    tie_column: str = ""
    at: str = ""

    @property
    def cursor(self) -> Cursor:
        """The position."""
        return Cursor(self.value, self.tie)


def with_window(opened: OpenWorkspace, plan: Plan, now: datetime) -> Plan:
    """Returns the plan of an incremental job with what it reads; any other plan as it is. No other run of the job may begin.

    Raises:
        ConfigError: The watermark is of another cursor, the run would pass over rows, or the sends of the rows that it
            looks back at are rolled up.
    """
    incremental = plan.job.incremental
    if incremental is None or plan.window is not None:
        return plan
    _require_whole(plan)
    known = opened.ledger.watermarks.get(plan.job.slug)
    window = next_window(plan.job, incremental, known, now)
    if window.since is not None:
        run_ids = _runs_since(opened, plan.job, incremental, known, window.since)
        rejects = chain.from_iterable(opened.ledger.rejects.of_run(run_id) for run_id in run_ids)
        window = replace(
            window,
            known_ids=opened.metrics.acknowledged_ids(run_ids),
            known_rejects=frozenset(filter(None, (reject.content for reject in rejects))),
        )
    return replace(plan, window=window)


def next_window(job: Job, incremental: Incremental, known: Watermark | None, now: datetime) -> Window:
    """Returns what the next run of a job reads, without the ids of what it looks back at.

    Args:
        job: The job.
        incremental: Its cursor.
        known: Its watermark; None: it has none yet.
        now: Aware.

    Raises:
        ConfigError: The watermark is of another cursor.
    """
    if known is not None and not known.is_of(incremental):
        of = " and ".join(filter(None, (f"{known.column_name} ({known.kind})", known.tie_column)))
        raise _other_cursor(job, known.value, of, incremental)
    low = known.cursor if known else start_of(incremental)
    return Window(
        version=known.version if known else 0,
        low=low,
        latest=latest(now, incremental),
        since=_since(incremental, known, low),
    )


def _other_cursor(job: Job, value: str, of: str, incremental: Incremental) -> ConfigError:
    by = " and ".join(filter(None, (f"{incremental.column} ({incremental.kind})", incremental.tie_column)))
    return ConfigError(
        f'the watermark of job "{job.name}" is of another cursor',
        why=f"{value} is a value of {of}, and the job reads by {by} now",
        remedy=f"python -m core watermark {job.slug} --set VALUE --why TEXT sets from where it reads",
        key="incremental.column",
    )


def query_of_job(
    opened: OpenWorkspace,
    job: Job,
    file: Path,
    params: Mapping[str, ParameterValue],
    at: datetime | None,
    now: datetime,
) -> Query:
    """Returns the statements of the next run of a job, for display; contacts nothing.

    Args:
        opened: The workspace.
        job: The job.
        file: Its SQL file.
        params: Values that override the job's own.
        at: Scheduled time; None: the newest one.
        now: Aware.

    Raises:
        ConfigError: The file is of another job, or something of the job is wrong.
        SqlError: The statement cannot be wrapped.
    """
    if file.name != Path(job.query).name:
        raise ConfigError(f'job "{job.name}" runs {job.query}, not {file.name}')
    query = plan_run(opened, job, now=now, at=at, params=params).query
    if job.incremental is None:
        return query
    dialect = opened.connections.dialect(job.connection)
    window = next_window(job, job.incremental, opened.ledger.watermarks.get(job.slug), now)
    step = KnownStatements(opened.workspace.statements_dir).require_wrappable(query.steps, dialect, INCREMENTAL)
    before = query.steps[: query.steps.index(step)]
    return replace(query, steps=(*before, *shown(step, job.incremental, dialect, window)))


def start_of(incremental: Incremental) -> Cursor | None:
    """Returns the position that the job file names; None: the first row."""
    if incremental.start is None:
        return None
    return Cursor(cursor_text(str(incremental.start), incremental, "incremental.start", "incremental.start"))


def _require_whole(plan: Plan) -> None:
    """Refuses a run that would move the watermark over rows that it does not read."""
    if plan.is_backfill:
        raise ConfigError(
            f'job "{plan.job.name}" is incremental, so that its days cannot be sent one by one',
            remedy=f"python -m core watermark {plan.job.slug} --set VALUE --why TEXT sends the rows after a value again",
        )
    if plan.is_altered:
        raise ConfigError(
            f'job "{plan.job.name}" is incremental and takes no parameters for one run',
            why="the rows that it would leave out are never read by a later run",
            remedy="change the parameters of the job",
        )


def _since(incremental: Incremental, known: Watermark | None, low: Cursor | None) -> Cursor | None:
    """Returns from where a run looks back; never beyond where a user or the job file had the job begin."""
    if not incremental.look_back_s or known is None or low is None:
        return None
    found = earlier(low, incremental.look_back_s)
    floor = Cursor(known.floor) if known.floor else None
    if floor is not None and is_after(floor, found, incremental):
        found = floor
    return found if is_after(low, found, incremental) else None


def _runs_since(
    opened: OpenWorkspace, job: Job, incremental: Incremental, known: Watermark | None, since: Cursor
) -> list[str]:
    """Returns the complete runs that have read rows after a position, whose sends are known one by one."""
    run_ids, version = [], None
    watermarks = opened.ledger.watermarks
    for window in watermarks.windows_since(job.slug, known.floor_version if known else 0):
        end = window.end or window.after
        if end is not None and is_after(since, end, incremental):
            break
        run_ids.append(window.run_id)
        version = window.version
    if version is not None:
        run_ids += watermarks.attempts_in_parts(job.slug, version)
    remedy = "use a shorter look_back_s, or a longer keep_sends_days"
    require_known(opened, run_ids, f'job "{job.name}" cannot look back {incremental.look_back_s:g} s', remedy)
    return run_ids


def window_of_run(ledger: Ledger, run_id: str, job: Job) -> Window | None:
    """Returns the rows that a run has read, to send them again; None: the job is not incremental.

    Raises:
        ConfigError: The run has not sent its rows: the next run reads them.
    """
    if job.incremental is None:
        return None
    found = ledger.watermarks.window(run_id)
    if found is None or not found.moved:
        raise ConfigError(
            f"run {run_id} of an incremental job cannot be sent again",
            why="it had no new rows"
            if found is not None and _is_empty(ledger, found)
            else "its rows have not all arrived",
            remedy=f"python -m core run {job.slug} reads everything after the watermark",
        )
    return Window(found.version, found.after, high=found.end, moves=False)


def _is_empty(ledger: Ledger, window: RunWindow) -> bool:
    return window.end is None and ledger.run(window.run_id).state == "succeeded"


def record_of_watermark(run_id: str, incremental: Incremental, version: int, at: Cursor, now: datetime) -> bytes:
    """Returns a watermark as a record of the control topic, as JSON."""
    return msgspec.json.encode(
        WatermarkRecord(
            run_id, version, at.value, at.tie, incremental.column, incremental.tie_column or "", iso_utc(now)
        )
    )


def take_record(ledger: Ledger, plan: Plan, record: WatermarkRecord, now: datetime) -> Plan:
    """Returns the plan from the watermark of the control topic, if that one is newer than the watermark of the ledger.

    The ledger gets it too: it was lost, or it missed the end of a transaction.
    """
    window, incremental = plan.window, plan.job.incremental
    if window is None or incremental is None or not window.moves or record.version <= window.version:
        return plan
    if (record.column.lower(), record.tie_column.lower()) != (
        incremental.column.lower(),
        (incremental.tie_column or "").lower(),
    ):
        raise _other_cursor(plan.job, record.value, record.column, incremental)
    name = f"run {record.run}"
    with ledger.transaction():
        before = ledger.watermarks.get(plan.job.slug)
        taken = ledger.watermarks.set(
            plan.job.slug,
            incremental,
            record.cursor,
            changed_by=name,
            why="the control topic has it",
            now=now,
            version=record.version,
        )
        ledger.audit.add(
            "control topic",
            "watermark",
            f"job {plan.job.slug}",
            now,
            before=before.cursor.text if before else None,
            after={"value": record.cursor.text, "why": f"sent by {name}"},
        )
    logger.warning("the watermark {} of {} is taken from the control topic", record.cursor.text, name)
    fresh = next_window(plan.job, incremental, taken, now)
    return replace(plan, window=replace(fresh, latest=window.latest))


def increment_warnings(plan: Plan, nulls: int | None) -> Iterator[str]:
    """Yields what the user should know about the window of a run."""
    window, incremental = plan.window, plan.job.incremental
    if window is None or incremental is None:
        return
    if nulls:
        names = incremental.column + (f" or {incremental.tie_column}" if incremental.tie_column else "")
        rows = "1 row has" if nulls == 1 else f"{nulls:,} rows have"
        yield f"{rows} no value in {names}: an incremental job never reads them"
    if window.low is not None and window.latest is not None and window.moves:
        if moment_of(window.low, incremental) > window.latest:
            yield (
                f"the watermark {window.low.text} is later than this machine's clock less the delay: nothing is read "
                "until the clock has passed it"
            )
