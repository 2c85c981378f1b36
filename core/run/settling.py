"""Settles transactions of killed runs: records in spool and ledger whether they were committed.

After the commit the sends are moved into the spool. If the process dies in between, the marker on the control topic
decides: if it is there, the sends are moved and the run is counted; if not, the transaction was aborted and its sends
were never visible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec
from loguru import logger

from core.clock import iso_utc
from core.errors import ConfigError, ExpectationFailed, LedgerBusy, PsttError, RunInterrupted
from core.kafka import open_publisher
from core.model.publisher import Publisher, TopicState
from core.model.run import Plan, Run
from core.records.ledger import Ledger, Outcome
from core.records.merged_segments import sent_by
from core.records.opened import OpenWorkspace
from core.records.segments import flush_folder, read_segment, segments_of, write_segment
from core.records.send_totals import SendTotals
from core.run.arrival import lost_since
from core.run.exactly_once import SentMarker
from core.run.metrics_update import update_metrics
from core.run.pending_transactions import TransactionNote, remove_leftovers, remove_note, storing_in, unsettled
from core.run.row_reader import end_state
from core.run.settling_parts import PartsNote, notes_of_parts, settle_parts
from core.workspace.atomic import replace_file
from core.workspace.locks import locked

__all__ = ["drop_aborted", "move_to_spool", "settle", "settle_before_run", "settle_transactions", "with_totals"]

SETTLING_S = 180.0
"""What another process may take to ask a slow cluster about one transaction."""

_Note = TransactionNote | PartsNote


def settle_transactions(opened: OpenWorkspace, now: Callable[[], datetime]) -> None:
    """Finds out whether the transactions of killed runs were committed, and copies the sends of those that were.

    Raises:
        PsttError: Why one of them cannot be settled now; the others are.
    """
    opened.ledger.mark_interrupted(now())
    problems: list[PsttError] = []
    for slug in sorted({note.job for note in _all_notes(opened)}):
        problems += _settle_job(opened, slug, lambda note: True, wait_s=0)
    update_metrics(opened, now())
    if problems:
        raise problems[0]


def settle_before_run(opened: OpenWorkspace, plan: Plan, now: Callable[[], datetime]) -> None:
    """Cleans up what killed runs of a job left behind, before its next run begins; logs what cannot be settled.

    Raises:
        LedgerBusy: Another run of the job is sending, or may be about to send, under the transactional id in question.
        PsttError: Whether this scheduled time was sent under another transactional id cannot be asked now. An attempt
            under the same id would end that transaction by itself, this one does not.
    """
    for file in remove_leftovers(opened.workspace, opened.ledger):
        logger.info("{}, left by a run that was killed, is removed", file.name)
    scheduled_at = iso_utc(plan.scheduled_at)

    def is_mine(note: _Note) -> bool:
        return note.scheduled_at == scheduled_at or not (plan.is_backfill or note.is_of_backfill)

    def is_of_other_id(note: _Note) -> bool:
        is_other = note.scheduled_at == scheduled_at and note.is_of_backfill != plan.is_backfill
        return is_other and (isinstance(note, TransactionNote) or bool(note.parts))

    mine = _notes(opened, plan.job.slug, is_mine)
    if not mine:
        return
    opened.ledger.mark_interrupted(now())
    with _no_run_of_job(opened, plan, mine):
        problems = _settle_job(opened, plan.job.slug, is_mine, wait_s=SETTLING_S)
    for problem in problems:
        logger.warning("{}", problem)
    if _notes(opened, plan.job.slug, is_of_other_id):
        raise (problems or [LedgerBusy(f"another run of job {plan.job.slug} sends this scheduled time")])[0]


def _no_run_of_job(opened: OpenWorkspace, plan: Plan, notes: Iterable[_Note]) -> AbstractContextManager[None]:
    """Keeps other runs of a job from beginning while a run of a backfill ends a transaction that has their id."""
    if not plan.is_backfill or all(note.is_of_backfill for note in notes):
        return nullcontext()
    busy = LedgerBusy(f"an earlier transaction of job {plan.job.slug} is settled once its run in progress has ended")
    return locked(opened.workspace.state_dir / "locks" / f"{plan.job.slug}.lock", lambda: busy)


def _all_notes(opened: OpenWorkspace) -> list[_Note]:
    return [*unsettled(opened.workspace.pending_dir), *notes_of_parts(opened.workspace)]


def _notes(opened: OpenWorkspace, slug: str, is_wanted: Callable[[_Note], bool]) -> list[_Note]:
    return [note for note in _all_notes(opened) if note.job == slug and is_wanted(note)]


def _settle_job(
    opened: OpenWorkspace, slug: str, is_wanted: Callable[[_Note], bool], *, wait_s: float
) -> list[PsttError]:
    """Settles transactions of one job; returns why some could not be settled.

    Args:
        opened: The workspace.
        slug: The job.
        is_wanted: Which of them.
        wait_s: How long to wait for another process that settles them.
    """
    ledger, problems = opened.ledger, list[PsttError]()
    busy = LedgerBusy(f"another process asks about earlier transactions of job {slug}")
    try:
        with locked(
            opened.workspace.state_dir / "locks" / "transactions" / f"{slug}.lock", lambda: busy, wait_s=wait_s
        ):
            for note in _notes(opened, slug, is_wanted):
                if _is_in_use(note, ledger):
                    continue
                try:
                    _settle_parts(opened, note) if isinstance(note, PartsNote) else _settle_one(opened, note)
                except PsttError as error:
                    problems.append(error)
    except LedgerBusy as error:
        logger.info("{}", error.what)
    return problems


def _settle_one(opened: OpenWorkspace, note: TransactionNote) -> None:
    """Settles the one transaction of a run."""
    cluster = opened.connections.cluster_at(note.cluster or None, opened.settings)
    workspace = opened.workspace
    with closing(open_publisher(cluster, transactional_id=note.transactional_id)) as publisher:
        committed = settle(note, workspace.pending_dir, workspace.spool_dir, opened.ledger, publisher)
    logger.info("the transaction of run {} was {}", note.run, "committed" if committed else "not committed")


def _settle_parts(opened: OpenWorkspace, note: PartsNote) -> None:
    """Settles the parts of a killed run, whose transactions are held by no process."""
    found = settle_parts(note, opened.workspace, opened.ledger, partial(_publisher_of_part, opened, note))
    if found is not None:
        run, outcome = found
        opened.ledger.finish(run.run_id, outcome, run.finished_at or run.started_at)
    logger.info("the parts of run {} are settled", note.run)


def _is_in_use(note: _Note, ledger: Ledger) -> bool:
    """Returns whether a run that goes on may have the same transactional id.

    It would be fenced; it has settled the earlier transactions of that id itself.
    """
    of_backfills = ledger.history.running_backfill_times(note.job)
    if note.is_of_backfill:
        return datetime.fromisoformat(note.scheduled_at) in of_backfills
    return any(run.scheduled_at not in of_backfills for run in ledger.history.running(note.job))


def _publisher_of_part(
    opened: OpenWorkspace, note: PartsNote, transactional_id: str
) -> AbstractContextManager[Publisher]:
    cluster = opened.connections.cluster_at(note.cluster or None, opened.settings)
    return closing(open_publisher(cluster, transactional_id=transactional_id))


def move_to_spool(folder: Path, spool_dir: Path, run_id: str) -> None:
    """Moves the sends of a committed transaction into the spool, where readers see them.

    Raises:
        StorageFailed: They cannot be moved; `settle` does it later.
    """
    with storing_in(spool_dir):
        spool_dir.mkdir(parents=True, exist_ok=True)
        for segment in segments_of(folder, run_id):
            replace_file(segment, spool_dir / segment.name)
        flush_folder(spool_dir)
        flush_folder(folder)


def drop_aborted(folder: Path, spool_dir: Path, run_id: str) -> None:
    """Deletes the sends of an aborted transaction; those that had failed by themselves go into the spool.

    Raises:
        StorageFailed: The folders cannot be written.
    """
    for segment in segments_of(folder, run_id):
        sends = read_segment(segment)
        failed = sends.filter(sends["partition"].is_null())
        with storing_in(spool_dir):
            if failed.num_rows:
                spool_dir.mkdir(parents=True, exist_ok=True)
                write_segment(failed, spool_dir / segment.name)
            segment.unlink()


def settle(note: TransactionNote, folder: Path, spool_dir: Path, ledger: Ledger, publisher: Publisher) -> bool:
    """Finds out whether a transaction whose process is gone was committed, and records it; returns the answer.

    Args:
        note: The transaction.
        folder: `.pstt/pending`.
        spool_dir: Where visible sends are recorded.
        ledger: Where its run is recorded.
        publisher: With the transactional id of the note, on its cluster; a transaction still open is aborted by this.

    Raises:
        PsttError: Cluster or disk cannot be read; everything stays as it is.
    """
    there = publisher.describe(note.control_topic)
    is_other = bool(there.cluster_id and note.cluster_id and there.cluster_id != note.cluster_id)
    if is_other or not there.partitions:
        raise ConfigError(
            f"what became of the transaction of run {note.run} cannot be asked",
            why=f"cluster {note.cluster or 'of the KAFKA_* settings'} is not the one to which it was sent"
            if is_other
            else f'topic "{note.control_topic}", which has its marker, is not there any more',
            remedy=f"let the job's cluster be the one with id {note.cluster_id} again, or move {note.run}* out of "
            ".pstt/pending: its sends are then not counted",
        )
    publisher.prepare_once(note.control_topic)
    key = note.key.encode()
    raw = publisher.read_control(note.control_topic, [key]).get(key)
    marker = msgspec.json.decode(raw, type=SentMarker) if raw is not None else None
    is_committed = marker is not None and marker.run == note.run
    run = ledger.known(note.run)
    (move_to_spool if is_committed else drop_aborted)(folder, spool_dir, note.run)
    if run is not None and run.state != "succeeded" and not run.acknowledged:
        if marker is not None and is_committed:
            tally = sent_by(spool_dir, note.run)
            before, after = (
                TopicState(note.topic, note.cluster_id, topic_id=note.topic_id),
                publisher.describe(note.topic),
            )
            error = lost_since(before, after, tally.placed, {}, note.run) or _unexpected(note)
            outcome = replace(_committed(note, run, marker.rows, tally, error), moved_to=marker.moved_to)
            ledger.finish(run.run_id, outcome, tally.last_sent_at or run.started_at)
        elif run.state == "interrupted":
            ledger.finish(run.run_id, _aborted(note, run), run.finished_at or run.started_at)
    remove_note(folder, note.run)
    return is_committed


def with_totals(outcome: Outcome, tally: SendTotals) -> Outcome:
    """Returns the outcome with bytes, latencies and offsets of its sends."""
    return replace(
        outcome,
        retried=tally.retried,
        bytes=tally.bytes,
        latency_avg_ms=tally.average_ms,
        latency_p50_ms=tally.percentile_ms(0.5),
        latency_p90_ms=tally.percentile_ms(0.9),
        latency_p99_ms=tally.percentile_ms(0.99),
        latency_counts=tally.latency_counts,
        partitions=tally.partitions,
    )


def _unexpected(note: TransactionNote) -> ExpectationFailed | None:
    what, why, remedy = note.unexpected
    return ExpectationFailed(what, why=why, remedy=remedy) if what else None


def _committed(note: TransactionNote, run: Run, rows: int, tally: SendTotals, error: PsttError | None) -> Outcome:
    """Returns the verdict that the run would have recorded itself."""
    ended_at = tally.last_sent_at or run.started_at
    outcome = Outcome(
        state=end_state(error, rows),
        rows_read=note.rows_read,
        rows_counted=note.rows_counted,
        sent=rows,
        acknowledged=rows,
        rejected=note.rejected,
        duration_s=max((ended_at - run.started_at).total_seconds(), 0.0),
        error=error,
    )
    return with_totals(outcome, tally)


def _aborted(note: TransactionNote, run: Run) -> Outcome:
    """Returns the verdict of a run whose transaction was aborted."""
    error = RunInterrupted(
        "its process ended before its transaction was committed",
        why="the cluster has no marker of it, so that nothing of it arrived",
        remedy=f"python -m core replay {run.run_id} sends its rows",
    )
    return Outcome(
        state="interrupted",
        rows_read=note.rows_read,
        rows_counted=note.rows_counted,
        rejected=note.rejected,
        duration_s=run.duration_s,
        error=error,
    )
