"""A run that writes a file: reading, rejects and verdict are those of a run to Kafka, the sink is another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loguru import logger

from core.errors import PsttError, RunCancelled, RunFailed, StorageFailed
from core.files.names import distinct_columns
from core.files.writer import open_sink
from core.model.run import Plan, Run, RunFile
from core.model.source import Reading, Rows, Source
from core.records.ledger import Ledger, Outcome
from core.run.planning import plan_warnings
from core.run.row_reader import RowReader, RunContext, end_state, fewer_collections, with_stop_reason
from core.workspace.locks import locked
from core.workspace.paths import Workspace

__all__ = ["run_export"]


def run_export(
    plan: Plan,
    source: Source,
    workspace: Workspace,
    ledger: Ledger,
    *,
    context: RunContext,
    folder: Path | None = None,
) -> Run:
    """Writes one job's rows into its file and returns the verdict; errors of the run are in the verdict, not raised.

    Args:
        plan: What is read; `plan.output` is the file's name below the folder.
        source: The database.
        workspace: Where `exports/` is.
        ledger: Where run, rejects and file are recorded.
        context: Clock, stop, progress and column check.
        folder: Used instead of `exports/`, for a dry run.

    Raises:
        StorageFailed: The ledger cannot be written, so there is no verdict.
        LedgerBusy: Another process holds the ledger.
    """
    run = ledger.start(plan, context.now())
    context.observer.started(run)
    reader = RowReader(plan=plan, run_id=run.run_id, rejects=ledger.rejects, context=context)
    files: list[RunFile] = []
    error: PsttError | None = None
    with logger.contextualize(run=run.run_id), context.published(reader):
        try:
            with fewer_collections():
                files = _written(reader, source, workspace, folder or workspace.exports_dir)
        except PsttError as failure:
            error = failure
        except KeyboardInterrupt:
            error = RunCancelled("the run was cancelled", why="the program was told to end at once")
        reader.step = "recording"
        outcome = _outcome(
            reader, files, with_stop_reason(error, context.stop), (context.now() - run.started_at).total_seconds()
        )
        return ledger.finish(run.run_id, outcome, context.now())


def _written(reader: RowReader, source: Source, workspace: Workspace, folder: Path) -> list[RunFile]:
    plan = reader.plan
    file = workspace.inside(plan.output or "", folder)
    root = workspace.root if folder == workspace.exports_dir else folder
    files: list[RunFile] = []
    reader.step = "reading"
    with (
        _only_writer(workspace, file, f'job "{plan.job.name}", run {reader.run_id}'),
        source.read(plan.query.steps, fetch_rows=plan.fetch_rows, count=plan.job.verify_count) as result,
    ):
        reading = _DistinctColumns(result)
        encoded_rows = reader.rows(reading)
        with open_sink(file, root, reading.columns, plan.job) as (sink, files):
            for _, encoded in encoded_rows:
                reader.step = "writing"
                try:
                    rejects = sink.write(encoded.row_numbers, encoded.data)
                except OSError as error:
                    raise StorageFailed(
                        f"{file.name} cannot be written into {file.parent}",
                        why=error.strerror or str(error),
                        remedy="make room on that disk, then run again; nothing was left under the final name",
                    ) from None
                reader.acknowledged += len(encoded.data) - len(rejects)
                reader.reject(rejects)
            reader.check_row_count()
    return files


class _DistinctColumns:
    """A result whose columns all have different names."""

    def __init__(self, reading: Reading) -> None:
        self.columns = distinct_columns(reading.columns)
        self.counted = reading.counted
        self._reading = reading

    def __iter__(self) -> Iterator[Rows]:
        return iter(self._reading)


@contextmanager
def _only_writer(workspace: Workspace, file: Path, writer: str) -> Iterator[None]:
    """Holds the lock of one output file. A second run fails and is not repeated, since it would replace the file.

    Raises:
        RunFailed: Another run writes the file.
        StorageFailed: The lock cannot be written.
    """
    # On Windows and macOS A.xlsx and a.xlsx are one file.
    name = hashlib.sha256(str(file.resolve()).casefold().encode()).hexdigest()[:16]
    locks = workspace.state_dir / "locks"
    owner = locks / f"{name}.holder"

    def busy() -> RunFailed:
        other = owner.read_text(encoding="utf-8") if owner.exists() else "another run"
        return RunFailed(
            f"{file.name} is being written by {other}",
            why="two jobs have the same output",
            remedy='give one of them another "output" in its .job.json',
        )

    with locked(locks / f"{name}.file.lock", busy):
        try:
            owner.write_text(writer, encoding="utf-8")
        except OSError as error:
            raise StorageFailed(f"{locks} cannot be written", why=error.strerror or str(error)) from None
        yield


def _outcome(reader: RowReader, files: list[RunFile], error: PsttError | None, duration_s: float) -> Outcome:
    written = sum(file.rows for file in files)
    if error is None and reader.rows_read != written + reader.rejected:
        error = RunFailed(
            f"{reader.rows_read:,} rows read, but {written:,} written and {reader.rejected:,} rejected",
            why="some rows are not accounted for",
            remedy="report this: it is a defect of PSTT Kafka",
        )
    error = error or reader.expectation_error()
    return Outcome(
        state=end_state(error, written),
        rows_read=reader.rows_read,
        rows_counted=reader.rows_counted,
        sent=written,
        acknowledged=written,
        rejected=reader.rejected,
        bytes=sum(file.size_bytes for file in files),
        duration_s=duration_s,
        files=tuple(files),
        warnings=plan_warnings(reader.plan),
        error=error,
    )
