"""Acknowledgements, silences, severities and the rule job_failed, on the virtual clock of the alert rules."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from core.admin import alerts as actions
from core.errors import AccessRefused, ConfigError
from core.model.job import EmailNotification
from core.notify.outbox import Outbox
from core.notify.silences import AlertRecords
from core.records.ledger import Ledger
from tests.rigs.callers import caller
from tests.unit.test_alerts import ANNA, AWAY, EXPORT, LUCA, MINUTE, START, TEN_S, Stage, sampled

OLGA = caller("olga", "operator")
HOUR = timedelta(hours=1)
PAGE = "https://pstt.example.com/page/"


@pytest.fixture
def stage(tmp_path):
    """The job notifies ANNA of failures."""
    file = tmp_path / "ledger.sqlite"
    with Outbox(file) as outbox, Ledger(file) as ledger:
        job = replace(EXPORT, email_notification=EmailNotification(recipients=(ANNA,)))
        made = Stage(outbox, ledger, tmp_path / "alerts.json", {"export": job})
        made.restart()
        made.go()
        yield made


def quiet(stage, length=HOUR, rule="", subject="export"):
    end = stage.at + length
    return actions.silence(stage.ledger, rule=rule, subject=subject, until=end, note="", caller=OLGA, now=stage.at)


def failed(stage, times=1) -> None:
    for _ in range(times):
        stage.ran(0, 0, error=AWAY)
        stage.go(TEN_S)


def incident(stage, rule="job_failed"):
    return next(one for one in stage.outbox.incidents() if one.rule == rule)


# ── acknowledge ───────────────────────────────────────────────────────────────────────────────


def test_an_acknowledged_failure_stays_listed_and_is_not_mailed_again_until_it_ends(stage):
    failed(stage)
    number = incident(stage).incident_id
    made = actions.acknowledge(stage.ledger, number, " the broker\nis restarted ", caller=OLGA, now=stage.at)
    assert (made.acknowledged_by, made.note, made.acknowledged_at) == ("olga", "the broker is restarted", stage.at)
    stage.at += 13 * HOUR
    failed(stage)
    assert len(stage.subjects) == 1
    assert [one.acknowledged_by for one in stage.outbox.open_incidents()] == ["olga"]
    stage.ran(100)
    stage.go(TEN_S)
    assert "works again" in stage.subjects[1]
    stage.at += HOUR
    failed(stage)
    assert len(stage.subjects) == 3  # another incident, which nobody has acknowledged


@pytest.mark.parametrize("number", [0, -1, 4711, 2**64])
def test_an_alert_that_is_not_there_is_not_acknowledged(stage, number):
    with pytest.raises(ConfigError, match="there is no alert"):
        actions.acknowledge(stage.ledger, number, "", caller=OLGA, now=stage.at)


def test_neither_an_ended_nor_a_pending_alert_is_acknowledged(stage):
    stage.ran(93, 7)
    stage.go(TEN_S)
    pending = next(one for one in stage.outbox.open_incidents() if one.state == "pending")
    with pytest.raises(ConfigError, match="is not open yet"):
        actions.acknowledge(stage.ledger, pending.incident_id, "", caller=OLGA, now=stage.at)
    stage.go(6 * MINUTE)
    stage.ran(1000)
    stage.go(TEN_S)
    with pytest.raises(ConfigError, match="has ended"):
        actions.acknowledge(stage.ledger, incident(stage).incident_id, "", caller=OLGA, now=stage.at)
    assert not [entry for entry in stage.ledger.audit.entries() if entry.action == "acknowledge"]


def test_a_viewer_does_none_of_it(stage):
    failed(stage)
    viewer = caller("vera", "viewer")
    with pytest.raises(AccessRefused):
        actions.acknowledge(stage.ledger, 1, "", caller=viewer, now=stage.at)
    with pytest.raises(AccessRefused):
        actions.silence(stage.ledger, rule="", subject="x", until=stage.at + HOUR, note="", caller=viewer, now=stage.at)
    made = quiet(stage)
    with pytest.raises(AccessRefused):
        actions.end_silence(stage.ledger, made.silence_id, caller=viewer, now=stage.at)


# ── silence ───────────────────────────────────────────────────────────────────────────────────


def test_what_begins_within_a_silence_is_reported_once_when_it_lasts_longer(stage):
    quiet(stage, HOUR, "success_rate")
    stage.ran(93, 7)
    stage.go(30 * MINUTE)
    assert [entry.recipients for entry in stage.outbox.waiting()] == [(ANNA,)]  # of the failed run itself
    assert ("success_rate", "export", "open") in stage.states
    stage.go(31 * MINUTE)
    assert stage.subjects[1:] == ["✘ Export CDG: too few messages are acknowledged (success rate < 95 %)"]
    assert "The silence is over and it lasts." in stage.outbox.waiting()[1].body
    stage.go(HOUR)
    assert len(stage.subjects) == 2


def test_what_was_reported_before_a_silence_is_reported_again_after_it(stage):
    stage.ran(93, 7)
    stage.go(6 * MINUTE)
    before = len(stage.subjects)
    quiet(stage, HOUR, "success_rate", "")
    stage.go(59 * MINUTE)
    assert len(stage.subjects) == before
    stage.restart()
    stage.go(2 * MINUTE)
    assert len(stage.subjects) == before + 1


def test_what_begins_and_ends_within_a_silence_is_never_reported(stage):
    stage.jobs = {"export": EXPORT}  # no mail of its own
    quiet(stage, HOUR, "success_rate")
    stage.ran(93, 7)
    stage.go(10 * MINUTE)
    stage.ran(1000)
    stage.go(2 * HOUR)
    assert stage.subjects == []
    assert ("success_rate", "export", "ended") in stage.states


def test_an_alert_that_was_reported_and_ends_within_a_silence_says_nothing_of_its_end(stage):
    stage.jobs = {"export": EXPORT}
    stage.ran(93, 7)
    stage.go(6 * MINUTE)
    quiet(stage, HOUR)
    stage.ran(1000)
    stage.go(2 * HOUR)
    assert len(stage.subjects) == 1


def test_a_silence_of_one_subject_leaves_the_others(stage):
    stage.jobs = {slug: replace(EXPORT, slug=slug, name=slug) for slug in ("one", "two")}
    quiet(stage, subject="one")
    for job in stage.jobs.values():
        stage.ran(93, 7, job=job)
    stage.go(6 * MINUTE)
    assert stage.subjects == ["✘ two: too few messages are acknowledged (success rate < 95 %)"]


def test_a_silenced_rule_still_logs_and_disables(stage):
    quiet(stage, rule="error_rate", subject="")
    stage.ran(0, 100)
    stage.go(2 * MINUTE)
    assert [request.kind for request in stage.ledger.requests.newest()] == ["disable"]


def test_a_failure_within_a_silence_is_mailed_when_the_silence_is_ended_by_hand(stage):
    made = quiet(stage, 12 * HOUR, "job_failed")
    failed(stage, 3)
    assert stage.subjects == []
    over = actions.end_silence(stage.ledger, made.silence_id, caller=OLGA, now=stage.at)
    assert (over.ended_at, over.ended_by) == (stage.at, "olga")
    stage.go(MINUTE)
    (entry,) = stage.outbox.waiting()
    assert entry.recipients == (ANNA,)
    assert "The silence is over and it lasts." in entry.body
    with pytest.raises(ConfigError, match="has ended already"):
        actions.end_silence(stage.ledger, made.silence_id, caller=OLGA, now=stage.at)


def test_a_job_that_works_again_within_its_silence_says_nothing(stage):
    quiet(stage, HOUR)
    failed(stage)
    stage.ran(100)
    stage.go(2 * HOUR)
    assert stage.subjects == []
    assert stage.states == [("job_failed", "export", "ended")]


def test_the_longest_of_two_silences_holds(stage):
    stage.jobs = {"export": EXPORT}
    quiet(stage, HOUR)
    quiet(stage, 3 * HOUR, "success_rate", "")
    stage.ran(93, 7)
    stage.go(2 * HOUR)
    assert stage.subjects == []
    assert [made.rule for made in AlertRecords(stage.outbox).active(stage.at)] == ["success_rate"]
    stage.go(2 * HOUR)
    assert len(stage.subjects) == 1


@pytest.mark.parametrize(
    ("rule", "subject", "length", "words"),
    [
        ("success_rates", "", HOUR, 'no rule "success_rates"'),
        ("", " ", HOUR, "needs a rule or a subject"),
        ("", "export", timedelta(), "in the future"),
        ("", "export", timedelta(days=400), "within a year"),
    ],
)
def test_a_silence_without_sense_is_refused(stage, rule, subject, length, words):
    with pytest.raises(ConfigError, match=words):
        quiet(stage, length, rule, subject)
    assert AlertRecords(stage.outbox).active(stage.at) == []


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("30m", datetime(2026, 1, 17, 1, 30, tzinfo=UTC)),
        (" 2h", datetime(2026, 1, 17, 3, 0, tzinfo=UTC)),
        ("3d", datetime(2026, 1, 20, 1, 0, tzinfo=UTC)),
        ("2026-01-17T08:00", datetime(2026, 1, 17, 7, 0, tzinfo=UTC)),
        ("2026-01-17T08:00+00:00", datetime(2026, 1, 17, 8, 0, tzinfo=UTC)),
    ],
)
def test_the_end_of_a_silence_is_a_duration_or_a_time_of_the_workspace(text, end):
    assert actions.silence_end(text, "Europe/Rome", START) == end


@pytest.mark.parametrize("text", ["", "soon", "2", "-2h", "0001-01-01T00:00", "999999d"])
def test_another_end_of_a_silence_is_refused(text):
    with pytest.raises(ConfigError, match="is no end of a silence"):
        actions.silence_end(text, "Europe/Rome", START)


def test_a_note_is_one_line_and_has_an_end(stage):
    with pytest.raises(ConfigError, match="at most 1,000 characters"):
        actions.silence(
            stage.ledger, rule="job_late", subject="", until=stage.at + HOUR, note="x" * 1001, caller=OLGA, now=stage.at
        )


# ── job_failed as a rule ──────────────────────────────────────────────────────────────────────


def test_a_job_is_reported_after_as_many_failures_as_the_rule_says(stage):
    stage.write(job_failed={"threshold_failures": 3})
    failed(stage, 2)
    assert stage.subjects == []
    assert stage.states == []  # pending
    failed(stage)
    assert len(stage.subjects) == 1
    assert incident(stage).value == 3
    stage.ran(100)
    stage.go(TEN_S)
    failed(stage, 2)
    assert len(stage.subjects) == 2  # the recovery, and no new failure


def test_two_failures_between_two_evaluations_are_one_alert(stage):
    stage.ran(0, 0, error=AWAY)
    stage.ran(0, 0, error=AWAY)
    stage.go(MINUTE)
    assert len(stage.subjects) == 1
    assert (incident(stage).value, incident(stage).state) == (2, "open")


def test_a_failure_and_a_success_between_two_evaluations_leave_nothing_open(stage):
    stage.ran(0, 0, error=AWAY)
    stage.at += timedelta(seconds=1)
    stage.ran(100)
    stage.go(MINUTE)
    assert stage.outbox.open_incidents() == []


def test_a_failure_is_repeated_as_often_as_the_rule_says(stage):
    stage.write(job_failed={"repeat_s": 3600})
    failed(stage)
    stage.at += 30 * MINUTE
    failed(stage)
    assert len(stage.subjects) == 1
    stage.at += 31 * MINUTE
    failed(stage)
    assert len(stage.subjects) == 2


def test_a_disabled_rule_mails_no_failure_and_ends_what_is_open(stage):
    failed(stage)
    stage.write(job_failed={"enabled": False})
    stage.go(TEN_S)
    assert stage.states == [("job_failed", "export", "ended")]
    assert "the rule was disabled" in incident(stage).text
    failed(stage)
    assert len(stage.subjects) == 1


def test_recipients_channels_and_disable_job_of_the_rule(stage):
    rule = {"recipients": [LUCA], "actions": ["mail", "teams", "disable_job"], "severity": "critical"}
    stage.rules_file.write_text(
        json.dumps({"channels": {"teams": "env:TEAMS"}, "rules": {"job_failed": rule}}), encoding="utf-8"
    )
    failed(stage)
    assert {(entry.channel, entry.recipients) for entry in stage.outbox.waiting()} == {
        ("teams", ()),
        ("mail", (LUCA, ANNA)),
    }
    assert stage.subjects[0].startswith("✘ CRITICAL: Export CDG failed")
    assert [request.kind for request in stage.ledger.requests.newest()] == ["disable"]
    stage.ran(100)
    stage.go(TEN_S)
    assert {entry.channel for entry in stage.outbox.waiting() if entry.kind == "recovered"} == {"teams", "mail"}


def test_a_run_with_other_parameters_does_not_end_the_failures(stage):
    failed(stage)
    stage.ran(100, is_ad_hoc=True)
    stage.go(TEN_S)
    assert stage.states == [("job_failed", "export", "open")]
    stage.ran(100)
    stage.go(TEN_S)
    assert stage.states == [("job_failed", "export", "ended")]


def test_a_rule_without_mail_sends_none(stage):
    stage.write(job_failed={"actions": ["log_error"]})
    failed(stage)
    assert stage.subjects == []
    assert incident(stage).state == "open"


# ── severity and links ────────────────────────────────────────────────────────────────────────


def test_a_severity_is_in_the_subject_and_follows_the_rule(stage):
    stage.write(producer_disconnected={"severity": "warning"}, success_rate={"severity": "critical"})
    stage.go(6 * MINUTE, each=lambda: sampled(stage, connected=False))
    stage.ran(93, 7)
    stage.go(6 * MINUTE, each=lambda: sampled(stage, connected=False))
    subjects = [subject for subject in stage.subjects if "failed" not in subject and "partial" not in subject]
    assert subjects == [
        "✘ Kafka Produzione: Kafka does not answer (producer disconnected)",
        "✘ CRITICAL: Export CDG: too few messages are acknowledged (success rate < 95 %)",
    ]
    assert incident(stage, "success_rate").severity == "critical"


def test_with_the_address_of_the_page_a_mail_links_to_run_and_job(stage):
    stage.recipients = replace(stage.recipients, page_url=PAGE)
    stage.restart()
    run = stage.ran(93, 7)
    stage.go(6 * MINUTE)
    bodies = {entry.kind: entry for entry in stage.outbox.waiting()}
    assert incident(stage, "success_rate").run_id == run.run_id
    for kind in ("alert", "job"):
        assert f"https://pstt.example.com/page/run?run={run.run_id}" in bodies[kind].body
        assert "https://pstt.example.com/page/job?job=export" in bodies[kind].body
        assert f'<a href="https://pstt.example.com/page/run?run={run.run_id}">' in bodies[kind].body_html
