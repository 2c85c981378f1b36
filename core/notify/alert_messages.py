"""Texts of the messages about an alert, its end, and the verdict of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import quote

from core.formatting import heading, local_time, ms_text, size_text, verdict
from core.language import translated
from core.model.job import Job
from core.model.run import Run
from core.model.verdict import VERDICT_STYLES
from core.notify.incidents import Incident
from core.notify.notification import Notification, NotificationTable
from core.notify.rules import JOB_FAILED, OF_JOBS, Rule
from core.notify.situation import Situation
from core.records.backfills import Backfill, BackfillProgress, IncompleteTime
from core.records.damaged_segments import REMEDY

__all__ = [
    "AFTER_SILENCE",
    "alert_notification",
    "backfill_notification",
    "failure_notification",
    "recovery_notification",
    "success_notification",
    "test_notification",
]

IncidentGroup = Sequence[tuple[Incident, str]]
"""Incidents of one rule, each with its current text."""

FOOTER = "Sent by PSTT Kafka, rule {name} of alerts.json; python -m core alerts shows what is open."
MOST_DAYS = 50
"""Times without success that the mail about a backfill lists."""
JOB_FOOTER = 'Sent by PSTT Kafka, as "email_notification" of {slug}.job.json says.'
_WHAT = {
    "success_rate": "too few messages are acknowledged",
    "latency_p99": "acknowledgements are slow",
    "producer_disconnected": "Kafka does not answer",
    "error_rate": "too many messages fail",
    "runner_memory": "the runner uses much memory",
    "job_late": "the day's run has not succeeded in time",
    "spool_damaged": "it could not be read and was set aside",
    "job_failed": "its runs fail",
}
_NEXT = {
    "success_rate": "check the last error; rows that did not arrive are sent by a replay",
    "latency_p99": "check the load of the brokers and the network between; nothing is lost",
    "producer_disconnected": "check whether the brokers run and the network and firewall allow the connection; "
    "runs wait and try again meanwhile",
    "error_rate": "fix the cause, then enable the job again; rows that did not arrive are sent by a replay",
    "runner_memory": "restart the runner when no run is in progress, and report this",
    "job_late": "check whether it runs, failed or was never started; then run it",
    "spool_damaged": REMEDY,
    "job_failed": "fix the cause; rows that did not arrive are sent by a replay",
}
AFTER_SILENCE = "The silence is over and it lasts."
"""In the message that a silence kept back, or that comes again after one."""


def alert_notification(rule: Rule, group: IncidentGroup, at: Situation, *, again: bool = False) -> Notification:
    """Makes the message about incidents of one rule that open together; `again`: their silence has ended."""
    jobs, timezone = at.jobs, at.recipients.timezone
    names = [_name(rule, incident, jobs) for incident, _ in group]
    since = min(incident.first_true_at for incident, _ in group)
    subject = f"✘ {_critical(rule)}{_together(names)}: {_WHAT[rule.name]} ({rule.title})"
    disables = "disable_job" in rule.actions
    answer = f"{_together(names)}: {_WHAT[rule.name]} since {local_time(since, timezone)} {timezone}."
    if disables:
        answer += " The job is disabled, so that no more of this happens." if len(names) == 1 else " They are disabled."
    if again:
        answer += f" {AFTER_SILENCE}"
    details = [
        ("What", f"{rule.title}, for {_span(rule.for_s)}" if rule.for_s else rule.title),
        ("On", ", ".join(names)),
        ("Why", group[0][1] if len(group) == 1 else "see below"),
        ("Next", _NEXT[rule.name]),
    ]
    rows = [("which", "what is known"), *((name, text) for name, (_, text) in zip(names, group, strict=True))]
    tables = [_each(rule, rows)] if len(group) > 1 else []
    return Notification(
        subject,
        answer,
        details + _acknowledgements(group),
        tables,
        _commands(rule, group, disables),
        FOOTER.format(name=rule.name),
        _links(rule, group, at),
    )


def recovery_notification(rule: Rule, group: IncidentGroup, at: Situation) -> Notification:
    """Makes the message about incidents of one rule that end together."""
    jobs, timezone = at.jobs, at.recipients.timezone
    names = [_name(rule, incident, jobs) for incident, _ in group]
    since = min(incident.opened_at or incident.first_true_at for incident, _ in group)
    subject = f"✔ over: {_together(names)}: no longer {rule.title}"
    answer = (
        f"{_together(names)} is well again. It was: {rule.title}, alert since {local_time(since, timezone)} {timezone}."
    )
    if len(names) > 1:
        answer = answer.replace(" is well", " are well")
    rows = [("which", "now"), *((name, text) for name, (_, text) in zip(names, group, strict=True))]
    return Notification(
        subject,
        answer,
        [("Over", f"{local_time(at.now, timezone)} {timezone}")],
        [_each(rule, rows)],
        _commands(rule, group, disables=False),
        FOOTER.format(name=rule.name),
        _links(rule, group, at),
    )


def failure_notification(run: Run, incident: Incident | None, at: Situation, *, note: str = "") -> Notification:
    """Makes the message about a run that did not succeed and is not repeated by the runner.

    Args:
        run: It has ended.
        incident: Of its job, from an earlier failure; None: this is the first one.
        at: The evaluation.
        note: A further sentence, such as `AFTER_SILENCE`.
    """
    again = f" (it fails since {local_time(incident.first_true_at, run.timezone)})" if incident else ""
    style = VERDICT_STYLES[run.verdict]
    rule = at.alerts.rules[JOB_FAILED]
    word = translated(style.word, at.recipients.language)  # behind a name it could be a part of the name
    subject = f"{style.sign} {_critical(rule)}{run.job_name} {word}: {run.error_text or verdict(run)}"
    answer = f"{_heading(run)}: {verdict(run)}{again}." + (f" {note}" if note else "")
    details = [
        ("What", f"run {run.run_id} {word}" + (f", attempt {run.attempt}" if run.attempt > 1 else "")),
        ("On", _route(run)),
        ("Why", run.error_text or "no reason is known"),
        ("Next", run.error_remedy or f"python -m core show {run.run_id}"),
    ]
    repeats = "writes the file again" if run.is_file else "sends the same rows again, with the same message ids"
    commands = [
        (f"python -m core show {run.run_id}", "what happened, step by step"),
        (f"python -m core replay {run.run_id}", repeats),
    ]
    if run.acknowledged and not run.is_file:
        commands[1] = (f"python -m core replay {run.run_id} --rejects-only", "sends the rows that have not arrived")
    details += _acknowledgements([(incident, "")] if incident else [])
    return _of_run(run, subject, answer, details, commands, at)


def success_notification(run: Run, incident: Incident | None, at: Situation) -> Notification:
    """Makes the message about a run that succeeded; after failures it says that they are over."""
    over = ["works again"] if incident else []
    rows = run.acknowledged
    counts = [f"{rows:,} {'row' if rows == 1 else 'rows'} arrived"]
    if run.files:
        counts = [f"{rows:,} {'row' if rows == 1 else 'rows'} written to {run.files[0].path}"]
    if run.rejected:
        counts.append("1 row was rejected" if run.rejected == 1 else f"{run.rejected:,} rows were rejected")
    style = VERDICT_STYLES[run.verdict]
    word = translated(style.word, at.recipients.language)
    subject = f"{style.sign} {run.job_name} {word}: {': '.join([*over, ', '.join(counts)])}"
    answer = f"{_heading(run)}: {verdict(run)}."
    details = [("On", _route(run))]
    if incident:
        details.append(("Before", f"it failed since {local_time(incident.first_true_at, run.timezone)} {run.timezone}"))
    commands = [(f"python -m core show {run.run_id}", "the figures, the SQL, the offsets")]
    if run.rejected:
        commands.append((f"python -m core rejects {run.run_id} --csv rejects.csv", "the rejected rows and why"))
    return _of_run(run, subject, answer, details, commands, at)


def _of_run(
    run: Run,
    subject: str,
    answer: str,
    details: Sequence[tuple[str, str]],
    commands: Sequence[tuple[str, str]],
    at: Situation,
) -> Notification:
    links = [("the run", f"/run?run={run.run_id}"), ("its job", f"/job?job={quote(run.job)}")]
    footer = JOB_FOOTER.format(slug=run.job)
    return Notification(subject, answer, details, [_figures(run)], commands, footer, _addresses(links, at))


def backfill_notification(
    backfill: Backfill, progress: BackfillProgress, left: Sequence[IncompleteTime], job: Job
) -> Notification:
    """Makes the message about the end of a backfill: how many times are complete, and which are not.

    Args:
        backfill: It has ended.
        progress: Its runs, counted.
        left: Its times without success.
        job: Its job.
    """
    days = f"{backfill.first_day} to {backfill.last_day}"
    complete = progress.complete + progress.sent_before
    done = f"{complete:,} of {progress.total:,}"
    style = VERDICT_STYLES["failed" if left else "complete"]
    subject = f"{style.sign} {job.name}: backfill {backfill.backfill_id} has ended, {done} complete"
    details = [
        ("What", f"backfill {backfill.backfill_id} of {days}, asked for by {backfill.asked_by}"),
        ("Result", backfill.summary),
    ]
    zone, number = backfill.timezone, backfill.backfill_id
    rows = [("scheduled for", "state", "why")]
    rows += [(local_time(one.scheduled_at, zone), one.state, one.why or "") for one in left[:MOST_DAYS]]
    if len(left) > MOST_DAYS:
        rows.append((f"… {len(left) - MOST_DAYS:,} more", "", ""))
    commands = [(f"python -m core backfill show {number}", "each time without success and why")]
    if left:
        details.append(("Next", "fix the cause, then repeat these"))
        commands.append((f"python -m core backfill retry {number}", "sends exactly these times again"))
    return Notification(
        subject,
        f"Backfill {number} of {job.name}, {days}, has ended: {done} scheduled times {'is' if complete == 1 else 'are'} complete.",
        details,
        [NotificationTable(f"Without success ({zone})", rows)] if left else [],
        commands,
        JOB_FOOTER.format(slug=job.slug),
    )


def test_notification(place: str, now: datetime, timezone: str) -> Notification:
    """Makes the test message; `place` is the mail server or the channel."""
    return Notification(
        f"✔ Test of PSTT Kafka: {'mail arrives' if place.startswith('mail') else 'messages arrive'} – è così",
        "This is a test. Alerts reach this recipient.",
        [("Sent", f"{local_time(now, timezone, seconds=True)} {timezone}"), ("Through", place)],
        commands=[("python -m core alerts", "what is open, and what was sent")],
    )


def _critical(rule: Rule) -> str:
    return "CRITICAL: " if rule.severity == "critical" else ""


def _acknowledgements(group: IncidentGroup) -> list[tuple[str, str]]:
    """Who knows of it already, and what they wrote."""
    known = {
        f"by {one.acknowledged_by}" + (f": {one.note}" if one.note else "") for one, _ in group if one.acknowledged_at
    }
    return [("Known", "; ".join(sorted(known)))] if known else []


def _links(rule: Rule, group: IncidentGroup, at: Situation) -> list[tuple[str, str]]:
    links = [("open alerts", "/alerts")]
    for incident, _ in group if len(group) == 1 else ():
        if incident.run_id:
            links.append(("the run", f"/run?run={incident.run_id}"))
        if rule.name in OF_JOBS:
            links.append(("its job", f"/job?job={quote(incident.subject)}"))
    return _addresses(links, at)


def _addresses(links: Sequence[tuple[str, str]], at: Situation) -> list[tuple[str, str]]:
    """Completes addresses of the page; none where PSTT_PAGE_URL is not set."""
    page = at.recipients.page_url.rstrip("/")
    return [(shows, f"{page}{address}") for shows, address in links] if page else []


def _name(rule: Rule, incident: Incident, jobs: Mapping[str, Job]) -> str:
    if rule.name in OF_JOBS:
        job = jobs.get(incident.subject)
        return job.name if job else incident.subject
    return "the runner" if rule.name == "runner_memory" else incident.subject


def _each(rule: Rule, rows: Sequence[tuple[str, str]]) -> NotificationTable:
    """Returns the incidents of a rule by name; all but `the runner` are names of the user."""
    names = frozenset[int]() if rule.name == "runner_memory" else frozenset({0})
    return NotificationTable("Each", rows, data_columns=names)


def _together(names: Sequence[str]) -> str:
    if len(names) <= 2:
        return " and ".join(names)
    return f"{names[0]} and {len(names) - 1} others"


def _commands(rule: Rule, group: IncidentGroup, disables: bool) -> list[tuple[str, str]]:
    commands = [("python -m core alerts", "what is open, and what was sent")]
    if rule.name in OF_JOBS and len(group) == 1:
        slug = group[0][0].subject
        commands.append((f"python -m core runs --job {slug}", "its runs and why they failed"))
        if disables:
            commands.append((f"python -m core enable {slug}", "puts it back on its calendar"))
    else:
        commands.append(("python -m core doctor", "reaches every database and broker and says what is wrong"))
    return commands


def _heading(run: Run) -> str:
    return heading(run.job_name, run.scheduled_at, run.timezone, run.parameters.items())


def _route(run: Run) -> str:
    target = (
        f"topic {run.topic} ({run.cluster})" if run.topic else ", ".join(file.path for file in run.files) or "a file"
    )
    return f"{run.connection} → {target}" if run.connection else target


def _figures(run: Run) -> NotificationTable:
    rows = [
        ("figure", "value"),
        ("rows read", f"{run.rows_read:,}"),
        ("written" if run.is_file else "acknowledged", f"{run.acknowledged:,}"),
        ("rejected", f"{run.rejected:,}"),
        ("failed", f"{run.failed:,}"),
        ("size", size_text(run.bytes)),
        ("duration", f"{run.duration_s:,.1f} s"),
        (
            "latency p50 · p90 · p99",
            " · ".join(map(ms_text, (run.latency_p50_ms, run.latency_p90_ms, run.latency_p99_ms))),
        ),
    ]
    return NotificationTable("Figures", rows, has_labels=True)


def _span(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
