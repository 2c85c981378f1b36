"""What people read on the terminal, and the JSON documents that say the same to programs.

Pure: from runs, sends and errors to text. The first line is the answer, then the facts behind it.
A problem has four parts: what failed, on what, why, what to do next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from core.clock import iso_utc
from core.errors import ConfigError, PsttError
from core.model.job import Job
from core.model.run import Plan, Reject, Run, Verification
from core.model.verdict import headline

if TYPE_CHECKING:
    from core.files.parity import ParityResult
    from core.notify.delivery import OutboxMessage
    from core.notify.incidents import Incident
    from core.records.scheduled_runs import ScheduledRun
from core.formatting import heading, local_time, ms_text, size_text, verdict

__all__ = ["error_document", "run_document", "run_lines", "send_document", "send_lines", "summary_lines"]


def run_lines(run: Run, rejects: Sequence[Reject] = ()) -> list[str]:
    """The verdict and the facts behind it."""
    lines = [f"{headline(run.verdict):<12} {verdict(run)}   run {run.run_id}"]
    if run.acknowledged and run.latency_avg_ms is not None:
        latency = (
            f"avg {ms_text(run.latency_avg_ms)} ms · p50 {ms_text(run.latency_p50_ms)}"
            f" · p90 {ms_text(run.latency_p90_ms)} · p99 {ms_text(run.latency_p99_ms)}"
        )
        volume = f"{size_text(run.bytes)} in {run.duration_s:.1f} s ({run.rate_per_s:,.0f} rows/s)"
        lines.append(f"  latency    {latency}      {volume}, {len(run.partitions)} partitions")
    for file in run.files:
        lines.append(
            f"  file       {file.path}   {file.rows:,} rows, {size_text(file.size_bytes)} in {run.duration_s:.1f} s"
            f" ({run.rate_per_s:,.0f} rows/s)"
        )
    if run.rows_counted is not None:
        lines.append(f"  counted    COUNT(*) in the same snapshot: {run.rows_counted:,}")
    if run.retried:
        lines.append(f"  retried    {run.retried:,} messages were handed over more than once")
    lines += [f"  warning    {warning}" for warning in run.warnings]
    if run.verification:
        when = local_time(run.verification.checked_at, run.timezone, seconds=True)
        lines.append(f"  read back  {when}: {verification_lines(run.verification)[0]}")
    lines += reject_summary(run, rejects)
    if run.state not in ("succeeded", "running", "planned"):
        lines.append(f"  next       {run.error_remedy or f'python -m core show {run.run_id}'}")
        lines.append(f"             {_what_arrived(run)}")
    return lines


def _what_arrived(run: Run) -> str:
    if run.files:
        return "the file is whole; it is written anew by a repeated run"
    if run.is_file:
        return "no file was written; run it again once the cause is mended"
    if run.state == "interrupted":
        return "what it had sent is found with python -m core find KEY"
    if run.acknowledged:
        return f"{run.acknowledged:,} messages are on the topic; a repeated run sends the same message ids again"
    return "nothing was sent; run it again once the cause is mended"


def reject_summary(run: Run, rejects: Sequence[Reject], most: int = 5) -> list[str]:
    """Rejects grouped by column and reason, with the command that lists them."""
    if not run.rejected:
        return []
    return [*_reason_lines(rejects, most), f"             python -m core rejects {run.run_id} --csv rejects.csv"]


def reject_reasons(rejects: Sequence[Reject]) -> dict[str, int]:
    """Column and reason → how many of these rejects, the most frequent first."""
    groups: dict[str, int] = {}
    for reject in rejects:
        text = f"{reject.column}: {reject.reason}" if reject.column else reject.reason
        groups[text] = groups.get(text, 0) + 1
    return dict(sorted(groups.items(), key=lambda item: -item[1]))


def _reason_lines(rejects: Sequence[Reject], most: int) -> list[str]:
    ordered = list(reject_reasons(rejects).items())
    lines = [
        f"  {'rejected' if i == 0 else '':<10} {count:,} × {text}" for i, (text, count) in enumerate(ordered[:most])
    ]
    return lines if len(ordered) <= most else [*lines, f"             and {len(ordered) - most} other reasons"]


def dry_run_lines(run: Run, rejects: Sequence[Reject], most: int = 5) -> list[str]:
    """What a dry run found; nothing of it can be asked for later."""
    if run.state != "succeeded":
        return run_lines(run)
    made, kept = ("rows of a file", "written") if run.is_file else ("messages", "sent")
    first = (
        f"✔ dry run   {run.rows_read:,} rows make {run.acknowledged:,} {made} and {run.rejected:,} rejects; "
        f"nothing was {kept}"
    )
    return [first, *_reason_lines(rejects, most)]


def run_document(run: Run) -> dict[str, Any]:
    """The run for programs; times ISO 8601 UTC, sizes in bytes, durations in seconds."""
    return {
        "run_id": run.run_id,
        "kind": run.kind,
        "job": run.job,
        "job_name": run.job_name,
        "connection": run.connection,
        "cluster": run.cluster,
        "topic": run.topic,
        "query": run.query,
        "state": run.state,
        "verdict": run.verdict,
        "balanced": run.is_balanced,
        "max_rejects": run.max_rejects,
        "scheduled_at": iso_utc(run.scheduled_at),
        "window_start": iso_utc(run.window_start) if run.window_start else None,
        "timezone": run.timezone,
        "attempt": run.attempt,
        "of_run": run.of_run,
        "asked_by": run.asked_by,
        "parameters": dict(run.parameters),
        "scheduled_run_id": run.scheduled_run_id,
        "job_sha256": run.job_sha256,
        "sql_sha256": run.sql_sha256,
        "started_at": iso_utc(run.started_at),
        "finished_at": iso_utc(run.finished_at) if run.finished_at else None,
        "rows_read": run.rows_read,
        "rows_counted": run.rows_counted,
        "sent": run.sent,
        "acknowledged": run.acknowledged,
        "rejected": run.rejected,
        "failed": run.failed,
        "retried": run.retried,
        "bytes": run.bytes,
        "duration_s": round(run.duration_s, 3),
        "rate_per_s": round(run.rate_per_s, 1),
        "latency_ms": {
            "avg": None if run.latency_avg_ms is None else round(run.latency_avg_ms, 1),
            "p50": run.latency_p50_ms,
            "p90": run.latency_p90_ms,
            "p99": run.latency_p99_ms,
        },
        "partitions": [
            {
                "topic": p.topic,
                "partition": p.partition,
                "first_offset": p.first_offset,
                "last_offset": p.last_offset,
                "count": p.count,
            }
            for p in run.partitions
        ],
        "files": [{"path": f.path, "rows": f.rows, "size_bytes": f.size_bytes, "sha256": f.sha256} for f in run.files],
        "warnings": list(run.warnings),
        "verification": verification_document(run.verification, most=0) if run.verification else None,
        "error": None
        if run.error_class is None
        else {
            "class": run.error_class,
            "retriable": bool(run.error_retriable),
            "text": run.error_text,
            "remedy": run.error_remedy,
        },
    }


def runs_table(runs: Sequence[Run]) -> list[str]:
    """One line a run, newest first."""
    lines = [f"{'run':<11} {'scheduled':<18} {'verdict':<23} {'read':>11} {'acknowledged':>13} {'rejected':>9}  job"]
    for run in runs:
        when = local_time(run.scheduled_at, run.timezone)
        counts = f"{run.rows_read:>11,} {run.acknowledged:>13,} {run.rejected:>9,}"
        lines.append(f"{run.run_id:<11} {when:<18} {headline(run.verdict):<23} {counts}  {run.job}")
    return lines


_ANSWERS = {
    "complete": "✔ complete",
    "missing": "✘ messages are missing",
    "other_content": "✘ other content",
    "duplicates": "✘ duplicates",
    "not_verifiable": "– not verifiable",
}


def verification_lines(found: Verification, most: int = 10) -> list[str]:
    """The answer in one line, the reason, and the first messages that are not as they should be."""
    how = "as many messages as were acknowledged" if found.mode == "count" else "as they were sent"
    counts = [f"{found.found:,} of {found.acknowledged:,} acknowledged messages are on the topic, {how}"]
    counts += [
        f"{count:,} {words}"
        for count, words in (
            (found.missing, "missing"),
            (found.other_content, "with other content"),
            (found.duplicates, "twice"),
            (found.not_verifiable, "not verifiable"),
        )
        if count
    ]
    lines = [f"{_ANSWERS[found.answer]}: {', '.join(counts)}"]
    lines += [f"  why    {found.reason}"] if found.reason else []
    for unlike in found.listed[:most]:
        key = "–" if unlike.key is None else unlike.key
        problem = unlike.problem.replace("_", " ")
        lines.append(f"  {problem:<13}  key {key}   partition {unlike.partition} @ {unlike.offset:,}")
    if found.listed[most:]:
        lines.append(f"  … --json lists the first {len(found.listed)}")
    if found.answer in ("missing", "other_content"):
        lines.append(f"  next   python -m core replay {found.run_id} sends the rows again with the same message ids")
    return lines


def verification_document(found: Verification, most: int = 1_000) -> dict[str, Any]:
    """The same for programs."""
    return {
        "run_id": found.run_id,
        "checked_at": iso_utc(found.checked_at),
        "mode": found.mode,
        "answer": found.answer,
        "acknowledged": found.acknowledged,
        "found": found.found,
        "missing": found.missing,
        "other_content": found.other_content,
        "duplicates": found.duplicates,
        "not_verifiable": found.not_verifiable,
        "reason": found.reason,
        "duration_s": round(found.duration_s, 3),
        "rate_per_s": round(found.acknowledged / found.duration_s, 1) if found.duration_s else 0.0,
    } | ({"messages": [asdict(unlike) for unlike in found.listed[:most]]} if most else {})


def scheduled_run_lines(
    jobs: Sequence[Job], scheduled_runs: Sequence[tuple[datetime, str]], days: float, most: int = 20
) -> list[str]:
    """One line a job with its calendar in words, then the next fires."""
    from core.calendar.cron import in_words

    if not jobs:
        return ["no job is enabled", "  next   README: how to add a job"]
    width = max(len(job.slug) for job in jobs)
    lines = [f"{job.slug:<{width}}  {in_words(job)}, {job.timezone}" for job in jobs]
    lines += ["", *(f"{moment:%a %d %b %Y %H:%M:%S %z}  {slug}" for moment, slug in scheduled_runs[:most])]
    if len(scheduled_runs) > most:
        lines.append(f"and {len(scheduled_runs) - most:,} more in {days:g} days; --json lists them all")
    return lines if scheduled_runs else [*lines, f"no fire in the next {days:g} days"]


def scheduled_runs_table(scheduled_runs: Sequence[tuple[ScheduledRun, Run | None]], timezone: str) -> list[str]:
    """One line a fire: when, which job, what became of it."""
    if not scheduled_runs:
        return ["no scheduled time in these days", "  next   python -m core next shows what comes"]
    width = max(len(scheduled_run.job) for scheduled_run, _ in scheduled_runs)
    return [
        f"{local_time(scheduled_run.scheduled_at, run.timezone if run else timezone, seconds=True):<21} "
        f"{scheduled_run.job:<{width}}  {scheduled_run.kind:<8}  {_fate(scheduled_run, run)}"
        for scheduled_run, run in scheduled_runs
    ]


def _fate(scheduled_run: ScheduledRun, run: Run | None) -> str:
    if scheduled_run.state == "skipped":
        span = ""
        if scheduled_run.skipped_until:
            count = f"{scheduled_run.skipped_count:,} fires " if scheduled_run.skipped_count else ""
            span = f"({count}until {iso_utc(scheduled_run.skipped_until, 'seconds')}) "
        return f"skipped {span}{scheduled_run.reason}"
    attempt = f", attempt {run.attempt}" if run and run.attempt > 1 else ""
    verdict_ = f"{headline(run.verdict)}, run {run.run_id}{attempt}" if run else ""
    if scheduled_run.state == "planned":
        return f"waits   {scheduled_run.reason or verdict_ or 'for a worker'}"
    return f"{scheduled_run.state:<7} {verdict_}"


def scheduled_run_document(scheduled_run: ScheduledRun, run: Run | None) -> dict[str, Any]:
    """The fire for programs, with the state of its newest run; times ISO 8601 UTC."""
    return {
        "scheduled_run_id": scheduled_run.scheduled_run_id,
        "job": scheduled_run.job,
        "kind": scheduled_run.kind,
        "scheduled_at": iso_utc(scheduled_run.scheduled_at),
        "state": scheduled_run.state,
        "reason": scheduled_run.reason,
        "asked_by": scheduled_run.asked_by,
        "tries": scheduled_run.tries,
        "not_before": iso_utc(scheduled_run.not_before) if scheduled_run.not_before else None,
        "skipped_until": iso_utc(scheduled_run.skipped_until) if scheduled_run.skipped_until else None,
        "skipped_count": scheduled_run.skipped_count,
        "run_id": scheduled_run.run_id,
        "run_state": run.state if run else None,
        "run_verdict": run.verdict if run else None,
    }


def send_document(send: dict[str, Any]) -> dict[str, Any]:
    """One send for programs."""
    return {
        "run_id": send["run_id"],
        "job": send["job"],
        "job_name": send["job_name"],
        "cluster": send["cluster"],
        "cluster_id": send["cluster_id"],
        "bootstrap_servers": send["bootstrap_servers"],
        "topic": send["topic"],
        "partition": send["partition"],
        "offset": send["offset"],
        "key": send["key"],
        "message_id": send["message_id"],
        "size_bytes": send["size_bytes"],
        "sent_at": iso_utc(send["sent_at"]),
        "latency_ms": None if send["latency_ms"] is None else round(send["latency_ms"], 1),
        "attempt": send["attempt"],
        "outcome": send["status"],
        "error": send["error"],
    }


def send_lines(key: str, sends: Sequence[dict[str, Any]], timezone: str) -> list[str]:
    """Where a key is: one line a send, oldest first."""
    if not sends:
        return [f"{key}   never sent from this workspace", "  next   python -m core runs   shows which days were sent"]
    runs = len({send["run_id"] for send in sends})
    lines = [f"{key}   {_count(len(sends), 'send')} in {_count(runs, 'run')}"]
    for send in sends:
        when = local_time(send["sent_at"], send["timezone"] or timezone, seconds=True)
        where = (
            f"{send['topic']}-{send['partition']} @ {send['offset']:,}"
            if send["partition"] is not None
            else send["topic"]
        )
        outcome = f"acknowledged in {ms_text(send['latency_ms'])} ms"
        if send["status"] != "acknowledged":
            outcome = f"not acknowledged: {send['error']}"
        name = send["job_name"] or send["job"] or "sent by hand"
        name += f"   key {send['key']!r}" if send.get("key", key) != key else ""
        lines.append(f"  {when}   {name}   {where}   {outcome}   attempt {send['attempt']}   run {send['run_id']}")
    return lines


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """Today, the last 7 days, topics and errors."""
    today, week = summary["today"], summary["last_7_days"]
    lines = [
        f"Today         sent {today['messages']:,}   success {_share(today['success_rate'])}   "
        f"latency avg {ms_text(today['avg_latency_ms'])} ms   errors {today['errors']:,}",
        f"Last 7 days   {week['messages']:,} messages   {week['messages_per_day']:,} a day   "
        f"p90 {ms_text(week['latency_ms']['p90'])} ms   p99 {ms_text(week['latency_ms']['p99'])} ms",
        f"In all        {summary['total_sent']:,} sent   {summary['total_failed']:,} failed   {size_text(summary['bytes'])}",
    ]
    for topic, facts in summary["by_topic"].items():
        lines.append(
            f"  {topic}   {facts['messages']:,} messages   {size_text(facts['bytes'])}   last {iso_utc(facts['last_send'], 'seconds')}"
        )
    for error in summary["recent_errors"]:
        lines.append(f"  {error['count']:,} × {error['error']}   last {iso_utc(error['last_seen'], 'seconds')}")
    return lines


def _share(rate: float | None) -> str:
    if rate is None:
        return "–"
    # Rounded down: 99.996 % is not 100 %.
    return f"{int(rate * 10_000) / 100:g} %"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def alert_lines(
    incidents: Sequence[Incident], waiting: Sequence[OutboxMessage], newest: Sequence[OutboxMessage], timezone: str
) -> list[str]:
    """What is open, what waits for delivery, what was sent last."""
    open_ones = [incident for incident in incidents if incident.state == "open"]
    lines = ["✔ no alert is open"] if not open_ones else [f"✘ {_count(len(open_ones), 'alert')} open"]
    for incident in open_ones:
        since = local_time(incident.opened_at or incident.first_true_at, timezone)
        lines.append(f"  {incident.rule}   {incident.subject}   since {since}   {incident.text}")
    for incident in incidents:
        if incident.state == "pending":
            since = local_time(incident.first_true_at, timezone)
            lines.append(f"  … {incident.rule}   {incident.subject}   since {since}, no alert yet   {incident.text}")
    lines.append(f"{_count(len(waiting), 'message')} {'waits' if len(waiting) == 1 else 'wait'} for delivery")
    for entry in waiting:
        next_try = local_time(entry.next_try_at, timezone, seconds=True)
        lines.append(f"  {entry.subject}   to {_whom(entry)}   next try {next_try}")
        lines += [f"    {entry.last_error}"] if entry.last_error else []
    lines += ["sent last"] if newest else []
    for entry in newest:
        if entry.state == "sent":
            lines.append(
                f"  ✔ {local_time(entry.sent_at or entry.created_at, timezone)}   {entry.subject}   {_whom(entry)}"
            )
        else:
            lines.append(f"  ✘ given up   {entry.subject}   {_whom(entry)}   {entry.last_error}")
        lines += [f"    refused: {address}: {why}" for address, why in entry.refused.items()]
    return lines


def _whom(entry: OutboxMessage) -> str:
    return ", ".join(entry.recipients) or f"channel {entry.channel}"


def alert_document(
    incidents: Sequence[Incident], waiting: Sequence[OutboxMessage], newest: Sequence[OutboxMessage]
) -> dict[str, Any]:
    """The same for programs."""
    return {
        "incidents": [
            {
                "rule": incident.rule,
                "subject": incident.subject,
                "state": incident.state,
                "since": iso_utc(incident.first_true_at),
                "opened_at": iso_utc(incident.opened_at) if incident.opened_at else None,
                "value": incident.value,
                "text": incident.text,
            }
            for incident in incidents
        ],
        "waiting": [_entry_document(entry) for entry in waiting],
        "sent": [_entry_document(entry) for entry in newest],
    }


def _entry_document(entry: OutboxMessage) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "state": entry.state,
        "channel": entry.channel,
        "recipients": list(entry.recipients),
        "delivered": list(entry.delivered),
        "refused": dict(entry.refused),
        "subject": entry.subject,
        "created_at": iso_utc(entry.created_at),
        "next_try_at": iso_utc(entry.next_try_at) if entry.state == "waiting" else None,
        "sent_at": iso_utc(entry.sent_at) if entry.sent_at else None,
        "tries": entry.tries,
        "last_error": entry.last_error,
    }


def error_lines(error: PsttError) -> list[str]:
    """What failed, on what and why; then what to do next."""
    lines = [f"✘ {error.text}"]
    if error.remedy:
        lines.append(f"  next   {error.remedy}")
    return lines


def error_document(error: PsttError) -> dict[str, Any]:
    """The same for programs; file, line and column where a file is at fault."""
    document: dict[str, Any] = {
        "class": type(error).__name__,
        "retriable": error.is_retriable,
        "text": error.text,
        "remedy": error.remedy,
    }
    if isinstance(error, ConfigError):
        document |= {"file": error.file.name if error.file else None, "line": error.line, "column": error.column}
    return document


def table_lines(names: Sequence[str], rows: Sequence[Sequence[str]], most: int = 40) -> list[str]:
    """Rows under their names, each column as wide as its content but no wider than `most` characters."""
    cells = [[_one_line(cell, most) for cell in row] for row in (names, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def _one_line(text: str, most: int) -> str:
    line = text.translate({10: "↵", 13: None, 9: " "})
    return line if len(line) <= most else f"{line[: most - 1]}…"


def parity_lines(found: ParityResult, file: str, plan: Plan, most: int = 10) -> list[str]:
    """The answer first, then what differs."""
    if found.is_equal:
        lines = [f"✔ equal: {_count(found.rows, 'row')}, {_count(len(found.columns), 'column')}"]
    elif found.different_rows:
        lines = [f"✘ {found.different_rows:,} of {_count(found.rows, 'row')} differ"]
    else:
        lines = [f"✘ {_count(found.rows, 'row')} are equal, and yet the two are not the same"]
    lines.append(f"  {heading(plan.job.name, plan.scheduled_at, plan.job.timezone, plan.query.values.items())}")
    lines.append(f"  the job      {_count(found.our_rows, 'row')}")
    lines.append(f"  {file}   {_count(found.file_rows, 'row')}   {found.dialect}")
    facts = (
        (found.missing, "rows are not in the file"),
        (found.extra, "rows are only in the file"),
        (found.duplicates, "rows of a key that one side has more often"),
        (found.rejected, "rows of the query cannot become a message"),
        (
            found.differing_rows,
            f"rows differ, in {found.differing_cells:,} cells: {_by_count(found.differing_columns)}",
        ),
        (found.lost_zeros, "cells are equal but for zeros in front that the file has lost"),
        (found.repeated_keys_ours, "keys stand in more than one row of the job"),
        (found.repeated_keys_theirs, "keys stand in more than one row of the file"),
    )
    lines += [f"  {count:>9,}  {text}" for count, text in facts if count]
    for names, text in ((found.only_ours, "only in the query"), (found.only_theirs, "only in the file")):
        lines += [f"  columns {text}: {', '.join(names)}"] if names else []
    for difference in found.differences[:most]:
        what = f"{difference.column}: job {difference.ours!r}, file {difference.theirs!r}"
        note = f"   ({difference.note})" if difference.note else ""
        lines.append(f"  {difference.key}   {what + note if difference.kind == 'cell' else difference.note}")
    if found.difference_count > most:
        lines.append(f"  … --csv FILE writes all {found.difference_count:,}")
    return lines


def _by_count(counts: Mapping[str, int]) -> str:
    """`canale 12, status 3`, the most first."""
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def parity_document(found: ParityResult, most: int = 1_000) -> dict[str, Any]:
    """The same for programs."""
    from dataclasses import asdict

    document = {"equal": found.is_equal, "rows": found.rows, "different_rows": found.different_rows} | asdict(found)
    return document | {"differences": document["differences"][:most]}
