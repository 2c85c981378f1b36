"""The JSON documents that `--json` prints; REST answers with the same document of a run.

Times are ISO 8601 in UTC, sizes bytes, durations seconds unless a key ends in `_ms`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from core.admin.edit_settings import setting_applies
from core.clock import iso_utc
from core.model.run import Reject, Run, Verification
from core.run.preview import file_rows

if TYPE_CHECKING:
    from core.admin.check import Finding
    from core.admin.demo import DemoReadBack
    from core.files.parity import ParityResult
    from core.model.check_result import CheckResult
    from core.model.progress import RunProgress
    from core.model.query import Query
    from core.model.run import Plan
    from core.records.known_since import KnownSince
    from core.records.metrics import SyncResult
    from core.records.outcomes import ScheduledOutcome
    from core.records.retention import RolledUpResult
    from core.records.scheduled_runs import ScheduledRun
    from core.run.execute import DryRun
    from core.run.preview import Preview
    from core.scheduler.backfills import Backfilled, BackfillReport
    from core.scheduler.next_attempt import NextAttempt
    from core.scheduler.watermarks import WatermarkReport
    from core.workspace.settings import SettingRow


__all__ = [
    "backfill_document",
    "backfill_report_document",
    "check_results_document",
    "demo_document",
    "dry_run_document",
    "parity_document",
    "preview_document",
    "problems_document",
    "query_document",
    "rebuilt_document",
    "reject_reasons",
    "run_document",
    "scheduled_run_document",
    "send_document",
    "settings_document",
    "verification_document",
    "watermark_document",
]


def reject_reasons(rejects: Sequence[Reject]) -> dict[str, int]:
    """Counts rejects by column and reason, the most frequent first."""
    groups: dict[str, int] = {}
    for reject in rejects:
        text = f"{reject.column}: {reject.reason}" if reject.column else reject.reason
        groups[text] = groups.get(text, 0) + 1
    return dict(sorted(groups.items(), key=lambda item: -item[1]))


def run_document(run: Run, progress: RunProgress | None = None, retry: NextAttempt | None = None) -> dict[str, Any]:
    """Returns everything that the ledger knows about a run, how far it is, and when it is tried again.

    Args:
        run: The run.
        progress: Where it is running; None: it is not, or only for less than a second.
        retry: Its next attempt; None: there is none.
    """
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
        "arrived_before": run.arrived_before,
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
        "parts": [asdict(part) | {"duration_s": round(part.duration_s, 3)} for part in run.parts],
        "files": [{"path": f.path, "rows": f.rows, "size_bytes": f.size_bytes, "sha256": f.sha256} for f in run.files],
        "warnings": list(run.warnings),
        "increment": _increment(run),
        "verification": verification_document(run.verification, most=0) if run.verification else None,
        "error": None
        if run.error_class is None
        else {
            "class": run.error_class,
            "retriable": bool(run.error_retriable),
            "text": run.error_text,
            "remedy": run.error_remedy,
        },
        "progress": _progress_document(run, progress) if progress else None,
        "retry": None
        if retry is None
        else {"at": iso_utc(retry.at) if retry.at else None, "attempt": retry.attempt, "most": retry.most},
    }


def _progress_document(run: Run, progress: RunProgress) -> dict[str, Any]:
    """Returns how far a running run is; times as of `at`."""
    return {
        "step": progress.step,
        "at": iso_utc(progress.at),
        "rows_read": progress.rows_read,
        "acknowledged": progress.acknowledged,
        "rejected": progress.rejected,
        "rows_expected": progress.rows_expected,
        "is_counted": progress.is_counted,
        "rate_per_s": None if progress.rate_per_s is None else round(progress.rate_per_s, 1),
        "elapsed_s": round(max((progress.at - run.started_at).total_seconds(), 0.0), 3),
        "remaining_s": None if progress.remaining_s is None else round(progress.remaining_s, 1),
    }


def verification_document(found: Verification, most: int = 1_000) -> dict[str, Any]:
    """Returns the answer of a verification, with its first `most` wrong messages."""
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


def scheduled_run_document(scheduled_run: ScheduledRun, run: Run | None) -> dict[str, Any]:
    """Returns one scheduled run, with the state and the verdict of its newest run."""
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
    """Returns one send: where the message is, and its outcome."""
    return {
        "run_id": send["run_id"],
        "job": send["job"],
        "job_name": send["job_name"],
        "scheduled_at": iso_utc(send["scheduled_at"]) if send.get("scheduled_at") else None,
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


def parity_document(found: ParityResult, most: int = 1_000) -> dict[str, Any]:
    """Returns a comparison with a file, with its first `most` differences."""
    document = {"equal": found.is_equal, "rows": found.rows, "different_rows": found.different_rows} | asdict(found)
    return document | {"differences": document["differences"][:most]}


def dry_run_document(tried: DryRun) -> dict[str, Any]:
    """Returns the run of a dry run, marked as one, with the reasons of its rejects."""
    return run_document(tried.run) | {"dry_run": True, "reasons": reject_reasons(tried.rejects)}


def demo_document(run: Run, topic: DemoReadBack, past: Sequence[ScheduledOutcome]) -> dict[str, Any]:
    """Returns the run of the demo, with its messages on the topic, one of them, and how many simulated days ended how."""
    example = {"key": topic.key, "headers": topic.headers, "value": topic.value}
    simulated = dict(Counter(outcome.state for outcome in past))
    return run_document(run) | {"topic_count": topic.count, "example": example, "simulated_days": simulated}


def preview_document(plan: Plan, seen: Preview) -> dict[str, Any]:
    """Returns the first messages of a plan, or the first rows if it writes a file; with warnings and rejects."""
    notes = {"warnings": seen.warnings, "rejects": [asdict(reject) for reject in seen.rejects]}
    if plan.output is None:
        return {"messages": [asdict(message) for message in seen.messages]} | notes
    names = [column.name for column in seen.columns]
    return {"file": f"exports/{plan.output}", "columns": names, "rows": file_rows(seen, plan.job)} | notes


def query_document(query: Query) -> dict[str, Any]:
    """Returns the statements of a query as they reach the driver; `binds` is an object or an array, as the driver's."""
    return {"steps": [{"sql": step.sql, "binds": step.binds} for step in query.steps]}


def backfill_document(job: str, made: Backfilled) -> dict[str, Any]:
    """Returns what a backfill planned, and how many scheduled times it left out."""
    return {
        "backfill_id": made.request_id,
        "job": job,
        "planned": len(made.scheduled_run_ids),
        "succeeded_before": made.succeeded_before,
        "planned_before": made.planned_before,
        "scheduled_run_ids": list(made.scheduled_run_ids),
    }


def backfill_report_document(found: BackfillReport) -> dict[str, Any]:
    """Returns a backfill with its progress, for the command line and REST; `left_s` is null where it is not known."""
    backfill, progress = found.backfill, found.progress
    counts = {f.name: getattr(progress, f.name) for f in fields(progress) if not f.name.startswith("measured")}
    return {
        "backfill_id": backfill.backfill_id,
        "job": backfill.job,
        "timezone": backfill.timezone,
        "from": backfill.first_day,
        "to": backfill.last_day,
        "again": backfill.again,
        "parallel": backfill.parallel,
        "order": backfill.run_order,
        "state": backfill.state,
        "asked_by": backfill.asked_by,
        "created_at": backfill.created_at.isoformat(),
        "finished_at": backfill.finished_at.isoformat() if backfill.finished_at else None,
        "progress": counts,
        "left_s": None if found.left_s is None else round(found.left_s, 1),
        "summary": backfill.summary,
        "incomplete": [
            {"scheduled_at": one.scheduled_at.isoformat(), "state": one.state, "run_id": one.run_id, "why": one.why}
            for one in found.incomplete
        ],
    }


def problems_document(problems: Sequence[Finding]) -> dict[str, Any]:
    """Returns the problems of a workspace's files; `ok` if none of them is an error."""
    return {
        "ok": not any(problem.severity == "error" for problem in problems),
        "problems": [
            {"severity": problem.severity, "text": problem.text, "where": problem.where, "remedy": problem.remedy}
            for problem in problems
        ],
    }


def check_results_document(results: Sequence[CheckResult]) -> dict[str, Any]:
    """Returns the results of `doctor` or `health`; `ok` if none of them failed."""
    ok = not any(result.status == "fail" for result in results)
    return {"ok": ok, "checks": [asdict(result) for result in results]}


def settings_document(rows: Sequence[SettingRow]) -> dict[str, Any]:
    """Returns each setting with its origin; secrets are masked already."""
    return {
        "settings": [
            {"name": row.name, "value": row.value, "origin": row.origin, "applies": setting_applies(row.name)}
            for row in rows
        ]
    }


def rebuilt_document(made: SyncResult) -> dict[str, Any]:
    """Returns what `metrics rebuild` read, and the segments that it could not read."""
    counts = {"state": made.state, "segments": made.segments, "sends": made.sends}
    return counts | {"set_aside": list(made.set_aside)}


def rolled_up_document(made: RolledUpResult) -> dict[str, Any]:
    """Returns what `metrics roll-up` did, and from when on single sends are known."""
    counts = {"state": made.state, "runs": made.runs, "sends": made.sends, "note": made.note}
    return counts | known_since_document(made.known_since)


def known_since_document(known: KnownSince) -> dict[str, Any]:
    """Returns `known_since`, a day or null, and `known_since_of_job`: jobs with another day."""
    days = {job: day.isoformat() for job, day in known.of_jobs.items()}
    common = known.of()
    return {"known_since": common.isoformat() if common else None, "known_since_of_job": days}


def watermark_document(report: WatermarkReport) -> dict[str, Any]:
    """Returns how far an incremental job has sent its rows, and what its next run reads."""
    incremental, known = report.incremental, report.known
    return {
        "job": report.job.slug,
        "column": incremental.column,
        "kind": incremental.kind,
        "tie_column": incremental.tie_column,
        "value": known.value if known else None,
        "tie": (known.tie or None) if known else None,
        "version": known.version if known else 0,
        "run_id": (known.run_id or None) if known else None,
        "changed_by": known.changed_by if known else None,
        "changed_at": iso_utc(known.changed_at) if known else None,
        "why": (known.why or None) if known else None,
        "next": {
            "after": report.after.text if report.after else None,
            "until": iso_utc(report.until) if report.until else None,
        },
        "problem": report.problem or None,
    }


def _increment(run: Run) -> dict[str, Any] | None:
    """Returns which rows a run of an incremental job has read."""
    found = run.increment
    if found is None:
        return None
    return {
        "column": found.column_name,
        "after": found.after.text if found.after else None,
        "up_to": found.end.text if found.end else None,
        "looked_back_to": found.since or None,
        "nulls": found.nulls,
        "moved_watermark": found.moved,
    }
