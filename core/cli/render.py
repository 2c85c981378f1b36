"""The lines that people read on the terminal: the answer first, then its details.

A problem has four parts: what failed, on what, why, what to do next.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from core.clock import iso_utc
from core.model.run import Reject, Run, Verification
from core.model.verdict import headline
from core.notify.daily_report import daily_report_notification
from core.run.preview import file_rows

if TYPE_CHECKING:
    from pathlib import Path

    from core.admin.check import Finding
    from core.admin.demo import DemoReadBack
    from core.files.parity import ParityResult
    from core.model.check_result import CheckResult
    from core.model.progress import RunProgress
    from core.model.query import Query
    from core.model.run import Plan
    from core.notify.daily_report import DailyReport
    from core.notify.delivery import DeliveryResult
    from core.records.known_since import KnownSince
    from core.records.metrics import SyncResult
    from core.records.outcomes import ScheduledOutcome
    from core.records.retention import RolledUpResult
    from core.run.execute import DryRun
    from core.run.preview import Preview
    from core.workspace.settings import SettingRow

from core.cli.live_lines import part_line
from core.cli.output import language, said
from core.formatting import counted, heading, local_time, ms_text, size_text, verdict
from core.language import Data

__all__ = [
    "acknowledged_lines",
    "check_result_lines",
    "check_summary",
    "delivery_lines",
    "demo_lines",
    "dry_run_lines",
    "parity_lines",
    "plan_heading",
    "preview_lines",
    "problem_lines",
    "query_lines",
    "rebuilt_lines",
    "receipt_lines",
    "reject_lines",
    "reject_summary",
    "replay_lines",
    "run_lines",
    "runs_table",
    "send_lines",
    "settings_lines",
    "summary_lines",
    "table_lines",
    "verification_lines",
    "whole_run_lines",
]


def run_lines(run: Run, rejects: Sequence[Reject] = ()) -> list[str]:
    """Returns the verdict of a run and what it is counted from."""
    lines = [f"{said(headline(run.verdict)):<12} {verdict(run)}   run {run.run_id}"]
    if run.acknowledged and run.latency_avg_ms is not None:
        latency = (
            f"avg {ms_text(run.latency_avg_ms)} ms · p50 {ms_text(run.latency_p50_ms)}"
            f" · p90 {ms_text(run.latency_p90_ms)} · p99 {ms_text(run.latency_p99_ms)}"
        )
        volume = f"{size_text(run.bytes)} in {run.duration_s:.1f} s ({run.rate_per_s:,.0f} rows/s)"
        lines.append(f"  latency    {latency}      {volume}, {counted(len(run.partitions), 'partition')}")
    for file in run.files:
        lines.append(
            f"  file       {Data(file.path)}   {counted(file.rows, 'row')}, {size_text(file.size_bytes)} in {run.duration_s:.1f} s"
            f" ({run.rate_per_s:,.0f} rows/s)"
        )
    if run.rows_counted is not None:
        lines.append(f"  counted    COUNT(*) in the same snapshot: {run.rows_counted:,}")
    if run.arrived_before:
        lines.append(f"  before     {counted(run.arrived_before, 'row')} of earlier runs, not sent again")
    if run.increment:
        lines.append(f"  increment  {run.increment.text}")
    if run.retried:
        lines.append(
            f"  retried    {counted(run.retried, 'message')} {'was' if run.retried == 1 else 'were'} sent more than once"
        )
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
        return "no file was written; run it again once the cause is fixed"
    if run.state == "interrupted":
        return "what it had sent is found with python -m core find KEY"
    if run.acknowledged == 1:
        return "1 message is on the topic; a repeated run sends the same message id again"
    if run.acknowledged:
        return f"{run.acknowledged:,} messages are on the topic; a repeated run sends the same message ids again"
    return "nothing was sent; run it again once the cause is fixed"


def reject_summary(run: Run, rejects: Sequence[Reject], most: int = 5) -> list[str]:
    """Returns the rejects grouped by column and reason, and the command that lists them."""
    if not run.rejected:
        return []
    return [*_reason_lines(rejects, most), f"             python -m core rejects {run.run_id} --csv rejects.csv"]


def _reason_lines(rejects: Sequence[Reject], most: int) -> list[str]:
    ordered = Counter((reject.column or "", reject.reason) for reject in rejects).most_common()
    lines = [
        f"  {'rejected' if i == 0 else '':<10} {count:,} × {f'{Data(column)}: ' if column else ''}{reason}"
        for i, ((column, reason), count) in enumerate(ordered[:most])
    ]
    more = len(ordered) - most
    return [*lines, f"             and {more} other {'reason' if more == 1 else 'reasons'}"] if more > 0 else lines


def dry_run_lines(tried: DryRun, most: int = 5) -> list[str]:
    """Returns what a dry run found; it is stored nowhere, so no command can show it again."""
    run = tried.run
    if run.state != "succeeded":
        return run_lines(run)
    made = f"{counted(run.acknowledged, 'row')} of a file" if run.is_file else counted(run.acknowledged, "message")
    counts = (
        f"{counted(run.rows_read, 'row')} {'makes' if run.rows_read == 1 else 'make'} {made} and "
        f"{'1 reject' if run.rejected == 1 else f'{run.rejected:,} rejects'}"
    )
    first = f"✔ dry run   {counts}; nothing was {'written' if run.is_file else 'sent'}"
    return [first, *_reason_lines(tried.rejects, most)]


def plan_heading(plan: Plan) -> str:
    """Returns one line that names the job, the scheduled time and the parameters of a plan."""
    values = plan.query.values.items()
    return heading(plan.job.name, plan.scheduled_at, plan.job.timezone, values, lambda text: Data(text).marked)


def whole_run_lines(run: Run, rejects: Sequence[Reject], notes: Sequence[str] = ()) -> list[str]:
    """Returns all that `show` prints of a run: verdict, destination, notes, offsets per partition and the SQL that ran."""
    cluster = f" ({Data(run.cluster)})" if run.cluster else ""
    origin = ""
    if run.of_run is not None:
        origin = f"   {'replay of' if run.kind == 'replay' else 'sent before by run'} {run.of_run}"
    return [
        heading(run.job_name, run.scheduled_at, run.timezone, run.parameters.items(), lambda text: Data(text).marked),
        f"{Data(run.connection)} → {Data(run.topic) if run.topic else 'file'}{cluster}   attempt {run.attempt}   "
        f"asked by {run.asked_by}{origin}",
        *run_lines(run, rejects),
        *notes,
        f"  started    {local_time(run.started_at, run.timezone, seconds=True)} {run.timezone}",
        *(
            f"  {Data(f'{p.topic}-{p.partition}')}   offsets {p.first_offset} to {p.last_offset}   {counted(p.count, 'message')}"
            for p in run.partitions
        ),
        *(part_line(part, len(run.parts)) for part in run.parts),
        "",
        *(f"  {Data(line)}" for line in run.sql_text.splitlines()),
        f"  sha256 {run.sql_sha256}",
    ]


def replay_lines(plan: Plan, notes: Sequence[str]) -> list[str]:
    """Returns what a replay sends and where, and the notes on its destination."""
    what = "readers see these messages again, with the message ids they had"
    if plan.skip_ids is not None:
        what = "rows that arrived before are left out"
    if plan.only_keys:
        what = "only the rows with the keys that were asked for are sent, with the message ids they had"
    return [
        f"replay of run {plan.of_run}{f' to {Data(plan.topic)} on {Data(plan.cluster)}' if plan.topic else ''}: {what}",
        *notes,
    ]


def demo_lines(run: Run, topic: DemoReadBack, past: Sequence[ScheduledOutcome], workspace: Path) -> list[str]:
    """Returns one message of the demo's topic, what happened on its simulated days, and the commands to try next."""
    option = f"--workspace {workspace}"
    failed = next((outcome.run.run_id for outcome in reversed(past) if outcome.state == "failed" and outcome.run), None)
    return [
        f"  read back  {topic.count:,} messages on {Data(run.topic)}; one of them:",
        "",
        f"  key    {Data(topic.key)}",
        *(f"  header {Data(f'{name} = {value}')}" for name, value in topic.headers.items()),
        f"  value  {Data(topic.value)}",
        "",
        *([f"{len(past)} days before it are simulated: {_states_in_words(past)}", ""] if past else []),
        f"{said('Next')}:",
        f"  python -m core find {topic.key} {option}        where is one barcode?",
        f"  python -m core preview {run.job} {option}   the exact messages, before they are sent",
        f"  python -m core rejects {run.run_id} {option}        the rows that could not be sent, and why",
        *([f"  python -m core show {failed} {option}           the day that failed, and why"] if failed else []),
        "  README.md: the page with a tour of five steps, your own database, your own broker",
    ]


def _states_in_words(outcomes: Sequence[ScheduledOutcome]) -> str:
    """Returns how many outcomes have which state, the most frequent first."""
    counted = Counter(outcome.state for outcome in outcomes)
    return ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in counted.most_common())


def preview_lines(plan: Plan, seen: Preview) -> list[str]:
    """Returns the first messages of a plan, or the first rows as a table if it writes a file."""
    lines = [plan_heading(plan), *(f"! {warning}" for warning in seen.warnings)]
    if plan.output is not None:
        rows = file_rows(seen, plan.job)
        lines += ["", *(Data(line).marked for line in table_lines([column.name for column in seen.columns], rows))]
        return [*lines, "", f"{counted(len(rows), 'row')} shown for exports/{Data(plan.output)}; nothing was written"]
    for message in seen.messages:
        lines += [
            "",
            f"row {message.row_number} · {message.size_bytes:,} bytes",
            f"  key    {Data(message.key)}",
        ]
        lines += [f"  header {Data(f'{name} = {text}')}" for name, text in message.headers.items()]
        lines += [f"  time   {message.timestamp}"] if message.timestamp else []
        lines.append("  value  null (a tombstone)" if message.is_tombstone else f"  value  {Data(message.value)}")
        if message.value_base64 is not None:
            lines.append(f"  bytes  {message.value_base64} (Base64)")
    return [
        *lines,
        "",
        f"{counted(len(seen.messages), 'message')} shown for topic {Data(plan.topic)}; nothing was sent",
    ]


def query_lines(query: Query) -> list[str]:
    """Returns each statement of a query with the values that are bound to it."""
    lines = []
    for number, step in enumerate(query.steps, 1):
        lines += [f"-- step {number} (line {step.line})", Data(step.sql).marked]
        binds = step.binds.items() if isinstance(step.binds, Mapping) else enumerate(step.binds, 1)
        lines += [Data(f"   bind {name} = {value!r}").marked for name, value in binds]
    return lines


def acknowledged_lines(sent: Mapping[str, Any]) -> list[str]:
    """Returns where a message sent by hand is."""
    where = f"{sent['topic']}-{sent['partition']} @ {sent['offset']}"
    return [f"✔ acknowledged   {Data(where)}   in {sent['latency_ms']:.1f} ms"]


def reject_lines(run_id: str, rejects: Sequence[Reject]) -> list[str]:
    """Returns one line for each reject, then their number."""
    lines = []
    for reject in rejects:
        column = f"{Data(f'{reject.column} ({reject.database_type})')}" if reject.column else "row"
        key = "–" if reject.key is None else reject.key
        lines.append(f"row {reject.row_number:,}   key {Data(key)}   {column}: {reject.reason}")
    return [*lines, f"{len(rejects):,} rejected {'row' if len(rejects) == 1 else 'rows'} in run {run_id}"]


def runs_table(runs: Sequence[Run], timezone: str, progress: Mapping[str, RunProgress] | None = None) -> list[str]:
    """Returns one line for each run, in the order given.

    Args:
        runs: Times are those of the job's zone.
        timezone: Of the workspace; a job of another zone has it behind its name.
        progress: Run → how far it is, of those that run now.
    """
    if not runs:
        return ["no run yet", "  next   python -m core run JOB"]
    names = f"{said('run'):<11} {said('scheduled'):<18} {said('verdict'):<23} {said('read'):>11}"
    # In the language already, and as wide as it is there.
    lines = [Data(f"{names} {said('acknowledged'):>13} {said('rejected'):>9}  job").marked]
    for run in runs:
        when = local_time(run.scheduled_at, run.timezone)
        counted_by = (progress or {}).get(run.run_id, run)
        counts = f"{counted_by.rows_read:>11,} {counted_by.acknowledged:>13,} {counted_by.rejected:>9,}"
        lines.append(
            f"{run.run_id:<11} {when:<18} {headline(run.verdict):<23} {counts}  {Data(job_in_zone(run.job, run.timezone, timezone))}"
        )
    return lines


def job_in_zone(job: str, zone: str, timezone: str) -> str:
    """Returns a job with its time zone behind it, if that is not the one of the workspace."""
    return job if zone == timezone else f"{job} ({zone})"


_ANSWERS = {
    "complete": "✔ complete",
    "missing": "✘ messages are missing",
    "other_content": "✘ other content",
    "duplicates": "✘ duplicates",
    "not_verifiable": "– not verifiable",
}


def verification_lines(found: Verification, most: int = 10) -> list[str]:
    """Returns the answer in one line, the reason, and the first wrong messages."""
    how = "as many messages as were acknowledged" if found.mode == "count" else "as they were sent"
    counts = [
        f"{found.found:,} of {found.acknowledged:,} acknowledged messages {'is' if found.found == 1 else 'are'} on the topic, {how}"
    ]
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
    for wrong in found.listed[:most]:
        key = "–" if wrong.key is None else wrong.key
        problem = wrong.problem.replace("_", " ")
        lines.append(f"  {problem:<13}  key {Data(key)}   partition {wrong.partition} @ {wrong.offset}")
    if found.listed[most:]:
        lines.append(f"  … --json lists the first {len(found.listed)}")
    if found.answer in ("missing", "other_content"):
        lines.append(f"  next   python -m core replay {found.run_id} sends the rows again with the same message ids")
    return lines


def send_lines(
    key: str, sends: Sequence[dict[str, Any]], timezone: str, known: KnownSince | None = None, damaged: int = 0
) -> list[str]:
    """Returns one line for each send of a key: time, job, place and outcome; then since when sends are known.

    Args:
        key: The key that was looked for.
        sends: In order of time.
        timezone: Of the workspace, in which a send has its time; the scheduled time has the job's zone, named if it differs.
        known: Since when single sends are known.
        damaged: Segments of the spool that could not be read.
    """
    note = [f"  {known.text}; earlier ones are counted by day"] if known and known.text else []
    if damaged:
        note.append(
            f"  {counted(damaged, 'segment')} of the spool {'is' if damaged == 1 else 'are'} damaged: "
            "sends that were in there are not found; python -m core doctor"
        )
    if not sends:
        never = f"{Data(key)}   never sent from this workspace" + (", as far as single sends are known" if note else "")
        return [never, *note, "  next   python -m core runs   shows which days were sent"]
    runs = len({send["run_id"] for send in sends})
    lines = [
        f"{Data(key)}   {len(sends):,} {'send' if len(sends) == 1 else 'sends'} in {runs:,} {'run' if runs == 1 else 'runs'}"
    ]
    for send in sends:
        when = local_time(send["sent_at"], timezone, seconds=True)
        where = (
            f"{send['topic']}-{send['partition']} @ {send['offset']}"
            if send["partition"] is not None
            else send["topic"]
        )
        outcome = f"acknowledged in {ms_text(send['latency_ms'])} ms"
        if send["status"] != "acknowledged":
            outcome = f"not acknowledged: {send['error']}"
        job = send["job_name"] or send["job"]
        name = Data(job).marked if job else "sent by hand"
        name += f"   key {Data(repr(send['key']))}" if send.get("key", key) != key else ""
        if send.get("scheduled_at"):
            zone = send["timezone"] or timezone
            scheduled = local_time(send["scheduled_at"], zone)
            name += f"   scheduled {scheduled}" if zone == timezone else f"   scheduled {scheduled} {zone}"
        lines.append(
            f"  {when}   {name}   {Data(where)}   {outcome}   attempt {send['attempt']}   run {send['run_id']}"
        )
    return lines + note


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """Returns the figures of today, of the last 7 days and of each topic, and the newest errors."""
    today, week = summary["today"], summary["last_7_days"]
    lines = [
        f"Today         sent {today['messages']:,}   success {_share(today['success_rate'])}   "
        f"latency avg {ms_text(today['avg_latency_ms'])} ms   errors {today['errors']:,}",
        f"Last 7 days   {counted(week['messages'], 'message')}   {week['messages_per_day']:,} a day   "
        f"p90 {ms_text(week['latency_ms']['p90'])} ms   p99 {ms_text(week['latency_ms']['p99'])} ms",
        f"In all        {summary['total_sent']:,} sent   {summary['total_failed']:,} failed   {size_text(summary['bytes'])}",
    ]
    for topic, counts in summary["by_topic"].items():
        lines.append(
            f"  {Data(topic)}   {counted(counts['messages'], 'message')}   {size_text(counts['bytes'])}   last {iso_utc(counts['last_send'], 'seconds')}"
        )
    if summary["known_since"]:
        lines.append(f"Single sends are known since {summary['known_since']}; earlier ones are counted by day")
    for error in summary["recent_errors"]:
        lines.append(f"  {error['count']:,} × {error['error']}   last {iso_utc(error['last_seen'], 'seconds')}")
    return lines


def _share(rate: float | None) -> str:
    if rate is None:
        return "–"
    # Rounded down: 99.996 % is not 100 %.
    return f"{int(rate * 10_000) / 100:g} %"


def table_lines(names: Sequence[str], rows: Sequence[Sequence[str]], most: int = 40) -> list[str]:
    """Returns rows under their column names, each column as wide as its content, up to `most` characters."""
    cells = [[_one_line(cell, most) for cell in row] for row in (names, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]


def _one_line(text: str, most: int) -> str:
    line = text.translate({10: "↵", 13: None, 9: " "})
    line = line if len(line) <= most else f"{line[: most - 1]}…"
    return Data(line) if isinstance(text, Data) else line


def parity_lines(found: ParityResult, file: str, plan: Plan, most: int = 10) -> list[str]:
    """Returns whether a job and a file have the same rows, the counts, and the first differences."""
    if found.is_equal:
        lines = [f"✔ equal: {counted(found.rows, 'row')}, {counted(len(found.columns), 'column')}"]
    elif found.different_rows:
        lines = [f"✘ {found.different_rows:,} of {counted(found.rows, 'row')} differ"]
    else:
        lines = [
            f"✘ {counted(found.rows, 'row')} {'is' if found.rows == 1 else 'are'} equal, and yet the two are not the same"
        ]
    lines.append(f"  {plan_heading(plan)}")
    lines.append(f"  the job      {counted(found.our_rows, 'row')}")
    lines.append(f"  {Data(file)}   {counted(found.file_rows, 'row')}   {found.dialect}")
    columns = _by_count(found.differing_columns)
    counts = (
        (found.missing, "row is not in the file", "rows are not in the file"),
        (found.extra, "row is only in the file", "rows are only in the file"),
        (found.duplicates, "row of a key that one side has more often", "rows of a key that one side has more often"),
        (found.rejected, "row of the query cannot become a message", "rows of the query cannot become a message"),
        (
            found.differing_rows,
            f"row differs, in {found.differing_cells:,} {'cell' if found.differing_cells == 1 else 'cells'}: {columns}",
            f"rows differ, in {found.differing_cells:,} cells: {columns}",
        ),
        (
            found.lost_zeros,
            "cell is equal but for zeros in front that the file has lost",
            "cells are equal but for zeros in front that the file has lost",
        ),
        (
            found.repeated_keys_ours,
            "key is in more than one row of the job",
            "keys are in more than one row of the job",
        ),
        (
            found.repeated_keys_theirs,
            "key is in more than one row of the file",
            "keys are in more than one row of the file",
        ),
    )
    lines += [f"  {count:>9,}  {one if count == 1 else many}" for count, one, many in counts if count]
    for names, text in ((found.only_ours, "only in the query"), (found.only_theirs, "only in the file")):
        lines += [f"  columns {text}: {Data(', '.join(names))}"] if names else []
    for difference in found.differences[:most]:
        what = f"{Data(difference.column)}: job {Data(repr(difference.ours))}, file {Data(repr(difference.theirs))}"
        note = f"   ({difference.note})" if difference.note else ""
        lines.append(f"  {Data(difference.key)}   {what + note if difference.kind == 'cell' else difference.note}")
    if found.difference_count > most:
        lines.append(f"  … --csv FILE writes all {found.difference_count:,}")
    return lines


def _by_count(counts: Mapping[str, int]) -> str:
    """Returns `canale 12, status 3`: the highest count first."""
    return ", ".join(f"{Data(name)} {count:,}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def problem_lines(problems: Sequence[Finding], workspace: str) -> list[str]:
    """Returns each problem of a workspace's files with its remedy, then how many there are."""
    lines = []
    for problem in problems:
        sign, where = "✘" if problem.severity == "error" else "!", f"{problem.where}: " if problem.where else ""
        lines += _with_remedy(f"{sign} {where}{problem.text}", problem.remedy)
    errors = sum(problem.severity == "error" for problem in problems)
    warnings = len(problems) - errors
    warned = counted(warnings, "warning")
    if errors:
        return [*lines, f"✘ {counted(errors, 'error')} and {warned} found"]
    return [*lines, f"✔ {Data(workspace)}: no errors, {warned}"]


_NAMED = re.compile(r"(job|cluster|database) (?!file$)(.+?)(, registry)?")
"""The subject of a check that has a name of the user in it; `job file` has none."""
_SIGNS = {"pass": "✔", "warn": "!", "fail": "✘"}


def check_result_lines(result: CheckResult) -> list[str]:
    """Returns one result of `doctor` or `health`, with what to do."""
    named = _NAMED.fullmatch(result.subject)
    subject = f"{named[1]} {Data(named[2])}{named[3] or ''}" if named else result.subject
    return _with_remedy(f"{_SIGNS[result.status]} {subject}: {result.text}", result.remedy)


def check_summary(results: Sequence[CheckResult]) -> str:
    """Returns how many results failed or warn, in one line."""
    failed = sum(result.status == "fail" for result in results)
    warned = sum(result.status == "warn" for result in results)
    return f"{'✘' if failed else '✔'} {failed} failed, {counted(warned, 'warning')}, {len(results)} looked at"


def _with_remedy(line: str, remedy: str) -> list[str]:
    return [line, f"  next   {remedy}"] if remedy else [line]


def settings_lines(rows: Sequence[SettingRow]) -> list[str]:
    """Returns each setting with its value and its origin."""
    width = max(len(row.name) for row in rows)
    return [
        Data(f"{row.name:<{width}}  {row.value if row.value not in (None, '') else '–'}   ({said(row.origin)})").marked
        for row in rows
    ]


def rebuilt_lines(made: SyncResult) -> list[str]:
    """Returns what `metrics rebuild` read, and the segments that it could not read."""
    first = f"✔ metrics.duckdb rebuilt: {counted(made.sends, 'send')} from {counted(made.segments, 'segment')}"
    return [first, *(f"! {Data(name)} could not be read: it is in .pstt/spool/damaged" for name in made.set_aside)]


def rolled_up_lines(made: RolledUpResult) -> list[str]:
    """Returns what `metrics roll-up` did, and from when on single sends are known."""
    if made.state == "held":
        return [f"! {made.note}"]
    first = "✔ nothing to roll up"
    if made.runs:
        first = f"✔ {counted(made.sends, 'send')} of {counted(made.runs, 'run')} {'is' if made.sends == 1 else 'are'} rolled up"
    known = made.known_since.text or "every single send is known"
    return [first, known, *([f"! {made.note}"] if made.note else [])]


def receipt_lines(made: DailyReport) -> list[str]:
    """Returns the text of a day's report, without the mail's closing lines."""
    notice = daily_report_notification(made).in_language(language())
    return [Data(line).marked for line in (notice.subject_line, "", *notice.text.splitlines()[:-3])]


def delivery_lines(result: DeliveryResult) -> list[str]:
    """Returns the mail server's answer for each recipient."""
    return [
        *(f"✔ {Data(address)}: the mail server has taken it" for address in result.delivered),
        *(f"✘ {Data(address)}: refused, {Data(why)}" for address, why in result.refused.items()),
        *(f"✘ {Data(address)}: not now, {Data(why)}" for address, why in result.later.items()),
    ]
