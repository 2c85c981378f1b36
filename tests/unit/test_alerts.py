"""Rules → incidents → messages, on a virtual clock over a real ledger; nothing is sent here."""

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import pytest

from core.errors import BrokerUnavailable, ExpectationFailed, PsttError, StorageFailed
from core.model.job import EmailNotification, Expect, Job
from core.model.query import Query, Step
from core.model.run import Plan, Run, RunFile
from core.notify.evaluator import AlertRules
from core.notify.outbox import Outbox
from core.notify.rules import default_document, load_alerts, read_alerts
from core.notify.situation import Recipients
from core.records.ledger import Ledger, Outcome
from core.records.runner_status import BrokerSample, RunnerStatus
from core.scheduler.backfill_queue import close_ended
from core.scheduler.backfills import BackfillOptions, backfill, cancel_backfill
from core.workspace.jobs import job_text, set_enabled
from tests.rigs.callers import caller

START = datetime(2026, 1, 17, 1, 0, tzinfo=UTC)
TEN_S = timedelta(seconds=10)
MINUTE = timedelta(minutes=1)
LUCA, ANNA = "luca@example.com", "anna@example.com"
EXPORT = Job("export", "Export CDG", "q.sql", "A00", scheduling_mode="cron", cron="0 2 * * *")
AWAY = BrokerUnavailable(
    "no broker of Kafka Produzione answers", why="connection refused", remedy="look at the brokers"
)


@dataclass
class Stage:
    """A ledger, its alert rules, and a virtual clock."""

    outbox: Outbox
    ledger: Ledger
    rules_file: object
    jobs: dict[str, Job]
    recipients: Recipients = field(default_factory=lambda: Recipients(mail_to=(LUCA,)))
    at: datetime = START
    collected: list[datetime] = field(default_factory=list)
    rules: AlertRules | None = None

    def restart(self) -> None:
        self.rules = AlertRules(
            self.outbox,
            self.ledger,
            rules_file=self.rules_file,
            spool_dir=Path(self.rules_file).parent / "spool",
            jobs=lambda: list(self.jobs.values()),
            recipients=self.recipients,
            collect=lambda: self.collected.append(self.at),
        )

    def go(self, span: timedelta = timedelta(), each=lambda: None) -> None:
        """Moves the clock with an evaluation each 10 s, as in the runner."""
        end = self.at + span
        while True:
            each()
            self.rules.evaluate(self.at)
            if self.at >= end:
                return
            self.at += TEN_S

    def ran(
        self,
        acknowledged: int = 100,
        failed: int = 0,
        *,
        latency_ms: str = "12",
        state: str | None = None,
        error: PsttError | None = None,
        job: Job = EXPORT,
        scheduled_at: datetime | None = None,
        scheduled_run_id: int | None = None,
        is_ad_hoc: bool = False,
    ) -> Run:
        query = Query("q.sql", (Step("select 1"),), {"DATA": "2026-01-16"}, "ab" * 32)
        plan = Plan(
            job,
            query,
            "Kafka Produzione",
            "pstt-traces",
            scheduled_at or self.at,
            100,
            scheduled_run_id=scheduled_run_id,
            is_ad_hoc=is_ad_hoc,
        )
        run = self.ledger.start(plan, self.at)
        error = error or (AWAY if failed else None)
        state = state or ("succeeded" if error is None else "partial" if acknowledged else "failed")
        outcome = Outcome(
            state,
            rows_read=acknowledged + failed,
            sent=acknowledged + failed,
            acknowledged=acknowledged,
            failed=failed,
            error=error,
            latency_counts={latency_ms: acknowledged} if acknowledged else {},
        )
        return self.ledger.finish(run.run_id, outcome, self.at)

    def write(self, **rules) -> None:
        self.rules_file.write_text(json.dumps({"rules": rules}), encoding="utf-8")

    @property
    def subjects(self) -> list[str]:
        return [entry.subject for entry in self.outbox.waiting()]

    @property
    def states(self) -> list[tuple[str, str, str]]:
        return [(e.rule, e.subject, e.state) for e in reversed(self.outbox.incidents())]


@pytest.fixture
def stage(tmp_path):
    file = tmp_path / "ledger.sqlite"
    with Outbox(file) as outbox, Ledger(file) as ledger:
        made = Stage(outbox, ledger, tmp_path / "alerts.json", {"export": EXPORT})
        made.restart()
        made.go()
        yield made


def test_a_success_rate_under_95_percent_is_told_after_five_minutes_once_and_again_when_it_is_over(stage):
    stage.go(MINUTE)
    stage.ran(93, 7)
    stage.go(4 * MINUTE)
    assert stage.subjects == []
    stage.go(2 * MINUTE)
    assert stage.subjects == ["✘ Export CDG: too few messages are acknowledged (success rate < 95 %)"]
    stage.go(60 * MINUTE)
    assert len(stage.subjects) == 1
    stage.ran(1000, 0)
    stage.go(60 * MINUTE)
    assert stage.subjects[1:] == ["✔ over: Export CDG: no longer success rate < 95 %"]
    assert ("success_rate", "export", "ended") in stage.states


def test_the_mail_reads_as_what_on_what_why_and_what_to_do(stage):
    stage.ran(93, 7)
    stage.go(6 * MINUTE)
    (entry,) = stage.outbox.waiting()
    assert entry.recipients == (LUCA,)
    assert entry.body == (
        "Export CDG: too few messages are acknowledged since 17 Jan 2026 02:00 Europe/Rome.\n"
        "\n"
        "What  success rate < 95 %, for 5 min\n"
        "On    Export CDG\n"
        "Why   93 % of 100 messages were acknowledged; the last error: no broker of Kafka Produzione answers: "
        "connection refused\n"
        "Next  check the last error; rows that did not arrive are sent by a replay\n"
        "\n"
        "Commands\n"
        "  python -m core alerts              what is open, and what was sent\n"
        "  python -m core runs --job export   its runs and why they failed\n"
        "\n"
        "--\n"
        "Sent by PSTT Kafka, rule success_rate of alerts.json; python -m core alerts shows what is open.\n"
    )
    assert "<b>Export CDG: too few messages" in entry.body_html


def test_a_repeat_that_makes_up_for_it_within_five_minutes_is_no_alert(stage):
    stage.ran(93, 7)
    stage.go(MINUTE)
    stage.ran(200, 0)
    stage.go(30 * MINUTE)
    assert stage.subjects == []
    assert stage.outbox.open_incidents() == []


def test_good_and_bad_runs_in_turn_are_judged_together(stage):
    for n in range(12):
        stage.ran(98 if n % 2 else 90, 2 if n % 2 else 10)
        stage.go(MINUTE)
    assert stage.subjects == ["✘ Export CDG: too few messages are acknowledged (success rate < 95 %)"]


@pytest.mark.parametrize(("acknowledged", "failed"), [(95, 5), (100, 0)])
def test_exactly_95_percent_is_enough(stage, acknowledged, failed):
    stage.ran(acknowledged, failed)
    stage.go(20 * MINUTE)
    assert stage.outbox.open_incidents() == [] or stage.outbox.open_incidents()[0].rule == "job_failed"
    assert stage.subjects == []


def test_an_error_rate_over_10_percent_disables_the_job_after_a_minute_and_says_who_did_it(stage):
    stage.ran(80, 20)
    stage.go(timedelta(seconds=50))
    assert stage.ledger.requests.newest() == []
    stage.go(3 * TEN_S)
    (request,) = stage.ledger.requests.newest()
    assert (request.kind, request.job, request.asked_by) == ("disable", "export", "alert rule error rate > 10 %")
    assert stage.subjects == ["✘ Export CDG: too many messages fail (error rate > 10 %)"]
    body = stage.outbox.waiting()[0].body
    assert "The job is disabled, so that no more of this happens." in body
    assert "python -m core enable export" in body
    stage.go(MINUTE)
    assert len(stage.ledger.requests.newest()) == 1


def disabled(stage) -> None:
    """Applies the request as the runner does: file, audit and the job in memory."""
    stage.ledger.audit.add("alert rule error rate > 10 %", "disable", "job export", stage.at)
    stage.jobs["export"] = replace(EXPORT, enabled=False)


def test_a_job_that_is_enabled_again_is_judged_by_its_new_sends_and_may_be_disabled_again(stage):
    stage.ran(80, 20)
    stage.go(2 * MINUTE)
    disabled(stage)
    stage.go(30 * MINUTE)
    stage.jobs["export"] = EXPORT
    stage.go(30 * MINUTE)
    assert len(stage.ledger.requests.newest()) == 1
    assert ("error_rate", "export", "ended") in stage.states
    stage.ran(70, 30)
    stage.go(2 * MINUTE)
    assert [request.kind for request in stage.ledger.requests.newest()] == ["disable", "disable"]


def test_a_job_whose_file_is_broken_is_asked_to_be_disabled_again(stage):
    stage.ran(80, 20)
    stage.go(2 * MINUTE)
    (request,) = stage.ledger.requests.newest()
    stage.ledger.requests.answer(request.request_id, "refused", "export.job.json, line 3: this is not JSON", stage.at)
    stage.go(5 * MINUTE)
    assert len(stage.ledger.requests.newest()) == 1
    stage.go(6 * MINUTE)
    assert len(stage.ledger.requests.newest()) == 2
    stage.go(30 * MINUTE)
    assert len(stage.ledger.requests.newest()) == 2  # this one waits for the runner


def test_ten_percent_is_not_over_ten_percent(stage):
    stage.ran(90, 10)
    stage.go(10 * MINUTE)
    assert stage.ledger.requests.newest() == []


def test_p99_over_five_seconds_for_ten_minutes_is_told(stage):
    stage.ran(100, latency_ms="5100")
    stage.go(9 * MINUTE)
    assert stage.subjects == []
    stage.go(2 * MINUTE)
    assert stage.subjects == ["✘ Export CDG: acknowledgements are slow (p99 latency > 5,000 ms)"]
    assert "99 % of 100 messages were acknowledged within 5,100 ms" in stage.outbox.waiting()[0].body


def test_p99_is_that_of_all_runs_of_the_time_together(stage):
    for _ in range(100):
        stage.ran(1000, latency_ms="20")
    stage.ran(100, latency_ms="9000")
    stage.go(30 * MINUTE)
    assert stage.subjects == []


def test_cancelled_and_interrupted_runs_say_nothing_about_the_cluster(stage):
    stage.ran(0, 100, state="cancelled")
    stage.ran(0, 100, state="interrupted")
    stage.go(10 * MINUTE)
    assert stage.ledger.requests.newest() == []


def test_an_incident_outlives_a_restart_and_is_not_told_twice(stage):
    stage.ran(80, 20)
    stage.go(MINUTE - TEN_S)
    stage.restart()
    stage.go(10 * MINUTE)
    stage.restart()
    stage.go(10 * MINUTE)
    assert len(stage.ledger.requests.newest()) == 1
    assert len(stage.subjects) == 2  # error rate and success rate


def test_runs_that_ended_while_no_runner_worked_are_seen(stage):
    stage.at += timedelta(hours=3)
    stage.ran(80, 20)
    stage.at += timedelta(hours=3)
    stage.restart()
    stage.go(2 * MINUTE)
    assert len(stage.ledger.requests.newest()) == 1


def test_a_clock_set_back_neither_opens_at_once_nor_never(stage):
    stage.ran(93, 7)
    stage.go(MINUTE)
    stage.at -= timedelta(hours=5)
    stage.go(4 * MINUTE)
    assert stage.subjects == []
    stage.go(3 * MINUTE)
    assert len(stage.subjects) == 1


def test_many_jobs_at_once_are_one_mail(stage):
    jobs = [replace(EXPORT, slug=f"j{n}", name=f"Job {n}") for n in range(50)]
    stage.jobs = {job.slug: job for job in jobs}
    for job in jobs:
        stage.ran(93, 7, job=job)
    stage.go(6 * MINUTE)
    (entry,) = stage.outbox.waiting()
    assert entry.subject.startswith("✘ Job ")
    assert "and 49 others: too few messages are acknowledged" in entry.subject
    assert entry.body.count("93 % of 100 messages") == 50


def test_who_is_named_in_the_job_is_told_of_its_alerts_too(stage):
    stage.jobs = {"export": replace(EXPORT, email_notification=EmailNotification(recipients=(ANNA,)))}
    stage.ran(93, 7)
    stage.go(6 * MINUTE)
    recipients = {entry.kind: entry.recipients for entry in stage.outbox.waiting()}
    assert recipients == {"alert": (LUCA, ANNA), "job": (ANNA,)}


def sampled(stage, *, connected: bool, cluster: str = "Kafka Produzione") -> None:
    error = None if connected else "connection refused"
    stage.ledger.broker_samples.add(BrokerSample(cluster, stage.at, connected, 3.0 if connected else None, error))


def test_a_producer_disconnected_for_five_minutes_is_critical_and_its_return_is_told(stage):
    stage.go(4 * MINUTE, each=lambda: sampled(stage, connected=False))
    assert stage.subjects == []
    stage.go(2 * MINUTE, each=lambda: sampled(stage, connected=False))
    assert stage.subjects == ["✘ CRITICAL: Kafka Produzione: Kafka does not answer (producer disconnected)"]
    stage.go(MINUTE, each=lambda: sampled(stage, connected=True))
    assert stage.subjects[1:] == ["✔ over: Kafka Produzione: no longer producer disconnected"]


def test_a_short_break_is_no_alert(stage):
    stage.go(4 * MINUTE, each=lambda: sampled(stage, connected=False))
    stage.go(MINUTE, each=lambda: sampled(stage, connected=True))
    stage.go(4 * MINUTE, each=lambda: sampled(stage, connected=False))
    assert stage.subjects == []


def test_sms_and_other_channels_get_it_where_they_are_set_up(stage):
    document = {
        "channels": {"sms": "env:SMS", "teams": "env:TEAMS"},
        "rules": {"producer_disconnected": {"actions": ["mail", "sms", "teams"]}},
    }
    stage.rules_file.write_text(json.dumps(document), encoding="utf-8")
    stage.go(6 * MINUTE, each=lambda: sampled(stage, connected=False))
    assert sorted(entry.channel for entry in stage.outbox.waiting()) == ["mail", "sms", "teams"]


def test_a_cluster_that_nobody_uses_any_more_ends_without_a_word(stage):
    stage.go(6 * MINUTE, each=lambda: sampled(stage, connected=False))
    stage.go(15 * MINUTE)
    assert len(stage.subjects) == 1
    assert stage.states == [("producer_disconnected", "Kafka Produzione", "ended")]


def beaten(stage, share: float) -> None:
    stage.ledger.heartbeats.write(
        RunnerStatus("host", 1, 0.0, START, stage.at, "1.0.4", int(share * 8e9), share, "working", 1, ())
    )


def test_memory_over_80_percent_for_five_minutes_is_logged_and_garbage_collected_without_a_mail(stage):
    from loguru import logger

    said: list[str] = []
    handler = logger.add(lambda message: said.append(f"{message.record['level'].name} {message.record['message']}"))
    try:
        stage.go(6 * MINUTE, each=lambda: beaten(stage, 0.81))
    finally:
        logger.remove(handler)
    assert [line for line in said if "memory" in line] == [
        "WARNING alert: memory of the runner > 80 %: runner: it uses 81.0 % of the machine's memory (6,480 MB)"
    ]
    assert len(stage.collected) == 1
    assert stage.subjects == []


@pytest.fixture
def told(stage):
    """The job notifies ANNA of failures."""
    stage.jobs = {"export": replace(EXPORT, email_notification=EmailNotification(recipients=(ANNA,)))}
    return stage


def test_a_failed_run_is_told_with_its_reason_its_remedy_and_the_command(told):
    run = told.ran(0, 0, error=AWAY)
    told.go(TEN_S)
    (entry,) = told.outbox.waiting()
    assert entry.recipients == (ANNA,)
    assert entry.subject == "✘ Export CDG failed: no broker of Kafka Produzione answers: connection refused"
    assert "scheduled 17 Jan 2026 02:00 Europe/Rome · DATA = 2026-01-16" in entry.body
    assert "On    A00 → topic pstt-traces (Kafka Produzione)" in entry.body
    assert "Next  look at the brokers" in entry.body
    assert f"python -m core replay {run.run_id}" in entry.body


def test_failures_in_a_row_are_told_each_twelve_hours_and_the_first_success_after_them(told):
    for _ in range(30):
        told.ran(0, 0, error=AWAY)
        told.at += timedelta(hours=1)
        told.go(TEN_S)
    assert len(told.subjects) == 3
    told.ran(100)
    told.go(TEN_S)
    assert told.subjects[3:] == ["✔ Export CDG complete: works again: 100 rows arrived"]
    told.ran(100)
    told.go(TEN_S)
    assert len(told.subjects) == 4


def test_success_is_told_only_where_it_is_wanted(told):
    told.ran(100)
    told.go(TEN_S)
    assert told.subjects == []
    told.jobs = {"export": replace(EXPORT, email_notification=EmailNotification(True, False, (ANNA,)))}
    told.ran(19_998)
    told.go(TEN_S)
    told.ran(0, 0, error=AWAY)
    told.go(TEN_S)
    assert told.subjects == ["✔ Export CDG complete: 19,998 rows arrived"]


def test_an_attempt_that_is_repeated_is_not_told_only_the_verdict_that_stands(told):
    (scheduled_run_id,) = told.ledger.scheduled_runs.plan_requested(
        "export", [told.at], kind="request", asked_by="anna", now=told.at
    )
    told.ran(0, 0, error=AWAY, scheduled_run_id=scheduled_run_id, scheduled_at=START)
    told.ledger.scheduled_runs.requeue(scheduled_run_id, None, "it is tried again")
    told.go(5 * MINUTE)
    assert told.subjects == []
    told.ran(0, 0, error=AWAY, scheduled_run_id=scheduled_run_id, scheduled_at=START)
    told.go(5 * MINUTE)
    assert told.subjects == []
    told.ledger.scheduled_runs.finish(scheduled_run_id, told.at)
    told.go(TEN_S)
    assert len(told.subjects) == 1
    assert "attempt 2" in told.outbox.waiting()[0].body


def backfilled(told: Stage, *errors: PsttError | None) -> int:
    """A backfill of as many days, which has ended; returns its number."""
    last = told.at.date() - timedelta(days=1)
    first = last - timedelta(days=len(errors) - 1)
    made = backfill(
        told.ledger, EXPORT, first, last, caller=caller("anna"), now=told.at, options=BackfillOptions(again=True)
    )
    for scheduled_run_id, error in zip(made.scheduled_run_ids, errors, strict=True):
        at = told.ledger.scheduled_runs.get(scheduled_run_id).scheduled_at
        told.ran(0 if error else 100, 0, error=error, scheduled_run_id=scheduled_run_id, scheduled_at=at)
        told.ledger.scheduled_runs.finish(scheduled_run_id, told.at)
    close_ended(told.ledger, told.at)
    return made.request_id


def test_the_end_of_a_backfill_is_one_mail_with_its_failed_days(told):
    number = backfilled(told, None, AWAY, None)
    told.go(5 * MINUTE)
    (mail,) = [entry for entry in told.outbox.waiting() if entry.subject.count("backfill")]
    assert mail.subject == f"✘ Export CDG: backfill {number} has ended, 2 of 3 complete"
    assert mail.recipients == (ANNA,)
    assert "2 of 3 complete, 1 failed: 15 Jan 2026 02:00 failed" in mail.body
    assert "15 Jan 2026 02:00" in mail.body.partition("Without success")[2]
    assert f"python -m core backfill retry {number}" in mail.body
    assert '"email_notification" of export.job.json' in mail.body
    told.restart()  # a runner that was started again sends no second one
    told.go(MINUTE)
    assert sum("backfill" in subject for subject in told.subjects) == 1


@pytest.mark.parametrize(
    ("mail", "errors", "subjects"),
    [
        (
            EmailNotification(True, False, (ANNA,)),
            (None, None),
            ["✔ Export CDG: backfill 1 has ended, 2 of 2 complete"],
        ),
        (EmailNotification(True, False, (ANNA,)), (None, AWAY), []),
        (EmailNotification(False, True, (ANNA,)), (None, None), []),
        (EmailNotification(True, True, ()), (None, AWAY), []),
    ],
)
def test_the_end_of_a_backfill_is_mailed_as_the_job_wants_its_runs_to_be(told, mail, errors, subjects):
    told.jobs = {"export": replace(EXPORT, email_notification=mail)}
    backfilled(told, *errors)
    told.go(MINUTE)
    assert [subject for subject in told.subjects if "backfill" in subject] == subjects


def test_a_cancelled_backfill_sends_no_mail(told):
    made = backfill(told.ledger, EXPORT, date(2026, 1, 14), date(2026, 1, 16), caller=caller("anna"), now=told.at)
    cancel_backfill(told.ledger, made.request_id, caller=caller("anna"), now=told.at)
    told.go(MINUTE)
    assert told.subjects == []


def test_rows_that_are_not_as_expected_are_told_as_a_failure(told):
    error = ExpectationFailed("20 rows where 15,000 to 30,000 are expected", why="expect.rows", remedy="ask")
    told.ran(20, 0, error=error)
    told.go(TEN_S)
    assert told.subjects == ["◐ Export CDG partial: 20 rows where 15,000 to 30,000 are expected: expect.rows"]


def test_runs_of_before_the_first_runner_are_not_told(tmp_path, stage):
    with Outbox(tmp_path / "new.sqlite") as outbox, Ledger(outbox.file) as ledger:
        fresh = Stage(outbox, ledger, tmp_path / "alerts.json", {"export": EXPORT})
        fresh.jobs = {"export": replace(EXPORT, email_notification=EmailNotification(recipients=(ANNA,)))}
        fresh.ran(0, 0, error=AWAY)
        fresh.at += timedelta(days=1)
        fresh.restart()
        fresh.go(MINUTE)
        assert fresh.subjects == []


BY_SEVEN = replace(EXPORT, expect=Expect(by="07:00"))


@pytest.fixture
def waited_for(stage):
    """Due at 02:00, expected by 07:00 Europe/Rome; known since the day before."""
    stage.jobs = {"export": BY_SEVEN}
    stage.ledger.job_versions.add("export", "ab", job_text(BY_SEVEN), START - timedelta(hours=20))
    return stage


def test_no_success_by_seven_is_told_after_seven_and_its_arrival_too(waited_for):
    stage = waited_for
    stage.at = datetime(2026, 1, 17, 5, 59, tzinfo=UTC)
    stage.go(30 * TEN_S / 10)
    assert stage.subjects == []
    stage.go(2 * MINUTE)
    assert stage.subjects == ["✘ Export CDG: the day's run has not succeeded in time (no success in time)"]
    assert "the run of 17 Jan 02:00 has not succeeded by 07:00 Europe/Rome" in stage.outbox.waiting()[0].body
    stage.ran(100, scheduled_at=START)
    stage.go(MINUTE)
    assert stage.subjects[1:] == ["✔ over: Export CDG: no longer no success in time"]


def test_a_success_before_seven_is_in_time(waited_for):
    waited_for.ran(100, scheduled_at=START)
    waited_for.at = datetime(2026, 1, 17, 6, 0, tzinfo=UTC)
    waited_for.go(5 * MINUTE)
    assert waited_for.subjects == []


def test_a_job_that_was_not_there_when_it_would_have_been_due_is_not_late(stage):
    stage.jobs = {"export": BY_SEVEN}
    stage.ledger.job_versions.add("export", "ab", job_text(BY_SEVEN), START + timedelta(hours=4))
    stage.at = datetime(2026, 1, 17, 6, 0, tzinfo=UTC)
    stage.go(5 * MINUTE)
    assert stage.subjects == []


def test_the_receipt_comes_once_a_day_also_across_restarts(stage):
    stage.recipients = Recipients(report_to=(ANNA,), report_at=time(7))
    stage.restart()
    stage.ran(20_000, scheduled_at=START)
    stage.at = datetime(2026, 1, 17, 5, 59, tzinfo=UTC)
    stage.go(30 * TEN_S / 10)
    assert stage.subjects == []
    stage.go(2 * MINUTE)
    assert stage.subjects == ["✔ 17 Jan 2026 so far: everything arrived, 20,000 rows of 1 job"]
    stage.restart()
    stage.go(60 * MINUTE)
    assert len(stage.subjects) == 1
    stage.at += timedelta(days=1)
    stage.go(MINUTE)
    assert len(stage.subjects) == 2


def test_the_receipt_names_what_is_missing_and_what_failed(stage):
    stage.recipients = Recipients(report_to=(ANNA,), report_at=time(7))
    other = replace(EXPORT, slug="other", name="Other job")
    gone = replace(EXPORT, slug="gone", name="Gone job")
    stage.jobs = {"export": EXPORT, "other": other, "gone": gone}
    stage.ledger.job_versions.add("gone", "ab", job_text(gone), START - MINUTE)
    stage.restart()
    stage.ran(20_000, scheduled_at=START)
    stage.ran(0, 0, error=AWAY, scheduled_at=START, job=other)
    stage.at = datetime(2026, 1, 17, 6, 0, tzinfo=UTC)
    stage.go(TEN_S)
    (entry,) = [entry for entry in stage.outbox.waiting() if entry.kind == "receipt"]
    assert entry.subject == "✘ 17 Jan 2026 so far: 2 of 3 jobs not as they should be (20,000 rows arrived)"
    assert "Not everything arrived: check Gone job, Other job." in entry.body
    assert "pstt-traces   20,000" in entry.body
    assert "missing: it was never started: no runner worked" in entry.body
    assert "failed: no broker of Kafka Produzione answers" in entry.body


def test_the_receipt_counts_no_row_twice_that_was_sent_again(stage):
    stage.recipients = Recipients(report_to=(ANNA,), report_at=time(7))
    stage.restart()
    stage.ran(20_000, scheduled_at=START)
    stage.ran(20_000, scheduled_at=START)
    stage.at = datetime(2026, 1, 17, 6, 0, tzinfo=UTC)
    stage.go(TEN_S)
    (entry,) = [entry for entry in stage.outbox.waiting() if entry.kind == "receipt"]
    assert entry.subject == "✔ 17 Jan 2026 so far: everything arrived, 20,000 rows of 1 job"
    assert "topic         messages" in entry.body
    assert "pstt-traces   40,000" in entry.body


@pytest.mark.parametrize(
    ("rows", "error", "subject"),
    [
        (1, None, "✔ 17 Jan 2026 so far: everything arrived, 2 rows of 2 jobs"),
        (1, AWAY, "✘ 17 Jan 2026 so far: 1 of 2 jobs not as it should be (1 row arrived)"),
    ],
)
def test_the_receipt_of_one_row_or_one_job_is_in_the_singular(stage, rows, error, subject):
    stage.recipients = Recipients(report_to=(ANNA,), report_at=time(7))
    other = replace(EXPORT, slug="other", name="Other job")
    stage.jobs = {"export": EXPORT, "other": other}
    stage.restart()
    stage.ran(rows, scheduled_at=START)
    stage.ran(0 if error else rows, 0, error=error, scheduled_at=START, job=other)
    stage.at = datetime(2026, 1, 17, 6, 0, tzinfo=UTC)
    stage.go(TEN_S)
    assert [entry.subject for entry in stage.outbox.waiting() if entry.kind == "receipt"] == [subject]


def test_files_are_in_the_receipt_and_in_the_mail_about_a_run(stage):
    stage.recipients = Recipients(report_to=(ANNA,), report_at=time(7))
    mail = EmailNotification(True, True, (ANNA,))
    job = replace(EXPORT, export_format="excel", email_notification=mail)
    stage.jobs = {"export": job}
    stage.restart()
    plan = Plan(job, Query("q.sql", (Step("select 1"),), {}, "ab" * 32), "", "", START, 100)
    run = stage.ledger.start(plan, stage.at)
    written = RunFile("exports/CDG_20260117.xlsx", 20_000, 1_500_000, "ab" * 32)
    outcome = Outcome("succeeded", rows_read=20_000, acknowledged=20_000, files=(written,))
    stage.ledger.finish(run.run_id, outcome, stage.at)
    stage.at = datetime(2026, 1, 17, 6, 0, tzinfo=UTC)
    stage.go(TEN_S)
    about_run, receipt = stage.outbox.waiting()
    assert about_run.subject == "✔ Export CDG complete: 20,000 rows written to exports/CDG_20260117.xlsx"
    assert "On  A00 → exports/CDG_20260117.xlsx" in about_run.body
    assert receipt.subject == "✔ 17 Jan 2026 so far: everything arrived, 20,000 rows of 1 job"
    assert "exports/CDG_20260117.xlsx   20,000   1.5 MB" in receipt.body


def test_a_day_with_rejected_rows_is_not_told_as_if_everything_had_arrived(stage):
    stage.recipients = Recipients(report_to=(ANNA,), report_at=time(7))
    stage.restart()
    run = stage.ledger.start(Plan(EXPORT, Query("q.sql", (Step("select 1"),), {}, ""), "c", "t", START, 100), stage.at)
    outcome = Outcome("succeeded", rows_read=10, acknowledged=8, rejected=2)
    stage.ledger.finish(run.run_id, outcome, stage.at)
    stage.at = datetime(2026, 1, 17, 6, 0, tzinfo=UTC)
    stage.go(TEN_S)
    (receipt,) = stage.outbox.waiting()
    assert receipt.subject == "◐ 17 Jan 2026 so far: every row is accounted for, 8 rows of 1 job, 2 rejected"


def test_the_defaults_are_those_of_the_contract(tmp_path):
    rules = load_alerts(tmp_path / "alerts.json").rules
    assert {name: (rule.title, rule.for_s, rule.actions) for name, rule in rules.items()} == {
        "success_rate": ("success rate < 95 %", 300, ("mail", "log_error")),
        "latency_p99": ("p99 latency > 5,000 ms", 600, ("mail", "log_warning")),
        "producer_disconnected": ("producer disconnected", 300, ("mail", "sms", "log_error")),
        "error_rate": ("error rate > 10 %", 60, ("mail", "log_error", "disable_job")),
        "runner_memory": ("memory of the runner > 80 %", 300, ("log_warning", "collect_garbage")),
        "job_late": ("no success in time", 0, ("mail", "log_error")),
        "spool_damaged": ("a segment of the spool cannot be read", 0, ("mail", "log_error")),
        "job_failed": ("failed runs in a row ≥ 1", 0, ("mail",)),
    }
    assert {name for name, rule in rules.items() if rule.severity == "critical"} == {"producer_disconnected"}
    assert rules["job_failed"].repeat_s == 12 * 3_600
    (tmp_path / "alerts.json").write_text(default_document(), encoding="utf-8")
    assert load_alerts(tmp_path / "alerts.json") == load_alerts(tmp_path / "none.json")


def test_a_damaged_segment_is_told_once_and_is_over_when_it_is_taken_away(stage):
    damaged = Path(stage.rules_file).parent / "spool" / "damaged"
    damaged.mkdir(parents=True)
    (damaged / "aaaaaaaaaa-000001.parquet").write_bytes(b"")
    (damaged / "bbbbbbbbbb-000001.parquet").write_bytes(b"")
    stage.go(MINUTE)
    (told,) = stage.subjects
    assert "aaaaaaaaaa-000001.parquet and bbbbbbbbbb-000001.parquet" in told
    assert "could not be read and was set aside" in told
    stage.go(10 * MINUTE)
    stage.restart()
    stage.go(MINUTE)
    assert len(stage.subjects) == 1
    (damaged / "bbbbbbbbbb-000001.parquet").unlink()
    stage.go(MINUTE)
    assert [state for rule, subject, state in stage.states if rule == "spool_damaged"] == ["open", "ended"]
    assert stage.subjects[1:] == ["✔ over: bbbbbbbbbb-000001.parquet: no longer a segment of the spool cannot be read"]


def test_a_rule_is_edited_while_the_runner_works_and_a_broken_edit_keeps_the_last_good_one(stage):
    stage.write(success_rate={"threshold_percent": 99, "for_s": 0, "recipients": [ANNA], "actions": ["mail"]})
    stage.ran(98, 2)
    stage.go(TEN_S)
    assert [entry.recipients for entry in stage.outbox.waiting()] == [(ANNA,)]
    stage.rules_file.write_text('{"rules": {"success_rate": ', encoding="utf-8")
    stage.ran(100)
    stage.ran(100)
    stage.ran(100)
    stage.go(TEN_S)
    assert stage.subjects[1:] == ["✔ over: Export CDG: no longer success rate < 99 %"]


def test_a_disabled_rule_says_nothing_and_ends_what_it_had_opened(stage):
    stage.ran(80, 20)
    stage.go(6 * MINUTE)
    before = stage.subjects
    stage.write(success_rate={"enabled": False}, error_rate={"enabled": False})
    stage.go(MINUTE)
    assert stage.subjects == before
    assert {state for rule, _, state in stage.states if rule != "job_failed"} == {"ended"}
    stage.ran(1, 99)
    stage.go(10 * MINUTE)
    assert stage.subjects == before


@pytest.mark.parametrize(
    ("document", "key", "words"),
    [
        ({"rules": {"succes_rate": {}}}, "rules.succes_rate", 'did you mean "success_rate"?'),
        (
            {"rules": {"error_rate": {"threshold": 5}}},
            "rules.error_rate.threshold",
            'did you mean "threshold_percent"?',
        ),
        ({"rules": {"error_rate": {"threshold_percent": 101}}}, "rules.error_rate.threshold_percent", "less than or"),
        ({"rules": {"error_rate": {"actions": ["mial"]}}}, "rules.error_rate.actions.0", 'did you mean "mail"?'),
        ({"rules": {"error_rate": {"actions": ["teams"]}}}, "rules.error_rate.actions.0", "neither an action"),
        ({"rules": {"runner_memory": {"actions": ["disable_job"]}}}, "rules.runner_memory.actions.0", "about no job"),
        ({"rules": {"job_late": {"recipients": ["anna"]}}}, "rules.job_late.recipients.0", "no e-mail address"),
        ({"chanels": {}}, "chanels", 'did you mean "channels"?'),
        ({"channels": {"mail": "env:X"}}, "channels.mail", "is an action"),
    ],
)
def test_a_wrong_alerts_file_names_key_line_and_the_nearest_name(tmp_path, document, key, words):
    file = tmp_path / "alerts.json"
    file.write_text(json.dumps(document, indent=1), encoding="utf-8")
    alerts, (problem,) = read_alerts(file)
    assert alerts is None
    assert (problem.key, problem.line is not None and problem.line > 1) == (key, True)
    assert words in str(problem)


def test_check_looks_at_rules_channels_and_mail_settings(tmp_path):
    from core.admin.check import check
    from core.workspace.paths import Workspace

    document = {"channels": {"teams": "env:GONE", "sms": "json://host/T0k3n"}, "rules": {}}
    (tmp_path / "alerts.json").write_text(json.dumps(document), encoding="utf-8")
    environ = {"PSTT_SMTP_HOST": "mail.example.com", "PSTT_MAIL_FROM": "a@example.com", "PSTT_SMTP_USERNAME": "u"}
    found = {
        (p.severity, p.text) for p in check(Workspace(tmp_path), environ) if p.where in ("alerts.json", "settings")
    }
    assert found == {
        ("error", "the variable of env:GONE is not set"),
        ("warning", 'channel "sms" has its URL in the file'),
        ("error", "PSTT_SMTP_USERNAME and PSTT_SMTP_PASSWORD belong together"),
    }
    (tmp_path / "alerts.json").write_text('{"rules": {"late": {}}}', encoding="utf-8")
    (problem,) = [p for p in check(Workspace(tmp_path), {}) if "alerts.json" in p.where]
    assert (problem.where, problem.remedy) == ("alerts.json, line 1, column 12", 'did you mean "job_late"?')


def test_what_could_not_be_written_is_found_again_by_the_next_look(stage, monkeypatch):
    stage.ran(80, 20)
    whole = stage.outbox.apply

    def full(changes) -> None:
        raise StorageFailed("the ledger cannot be used", why="disk full")

    monkeypatch.setattr(stage.outbox, "apply", full)
    with pytest.raises(StorageFailed):
        stage.rules.evaluate(stage.at)
    monkeypatch.setattr(stage.outbox, "apply", whole)
    stage.go(2 * MINUTE)
    assert len(stage.ledger.requests.newest()) == 1


def test_a_failing_job_that_is_deleted_leaves_no_open_alert(told):
    told.ran(0, 0, error=AWAY)
    told.go(TEN_S)
    told.jobs = {}
    told.go(TEN_S)
    assert told.states == [("job_failed", "export", "ended")]


def test_one_look_over_500_jobs_costs_few_statements(stage):
    jobs = [replace(BY_SEVEN, slug=f"j{n}", name=f"Job {n}") for n in range(500)]
    stage.jobs = {job.slug: job for job in jobs}
    stage.go(TEN_S)
    statements: list[str] = []
    stage.outbox._db.set_trace_callback(statements.append)
    stage.jobs = {job.slug: replace(job, expect=Expect()) for job in jobs}
    stage.go()
    stage.outbox._db.set_trace_callback(None)
    assert len(statements) < 15


def test_enabling_in_the_file_is_what_enabling_means(tmp_path):
    """The request of the rule is carried out by this function; the file keeps every other character."""
    from core.workspace.paths import Workspace

    (tmp_path / "queries").mkdir()
    file = tmp_path / "queries" / "export.job.json"
    text = '{"name": "E", "query": "q.sql",\n\n "connection": "A",   "enabled": true}'
    file.write_text(text, encoding="utf-8")
    assert set_enabled(Workspace(tmp_path), "export", enabled=False)
    assert file.read_text(encoding="utf-8") == text.replace("true", "false")
