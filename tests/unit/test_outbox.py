"""The outbox: a message is stored once, with its reason, until every recipient has it."""

import json
import sqlite3
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

import core.records.store
from core.clock import iso_utc
from core.errors import ConfigError, NotDelivered, StorageFailed
from core.notify.delivery import MAIL, DeliveryResult, OutboxMessage
from core.notify.incidents import begin_incident, end_incident
from core.notify.notification import Notification, NotificationTable
from core.notify.outbox import Outbox, new_message
from core.notify.silences import AlertRecords

NOW = datetime(2026, 1, 17, 6, 0, tzinfo=UTC)
AT = {"at": "2026-01-17T06:00:00.000000Z"}
ANNA, CARLO = "anna@example.com", "carlo@example.com"
NOTIFICATION = Notification("✘ a", "A happened.", [("What", "a")])


class Way:
    """A channel whose responses a test sets."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, tuple[str, ...]]] = []
        self.opened = 0
        self.problem: Exception | None = None
        self.results: list[DeliveryResult | Exception] = []

    @contextmanager
    def open(self):
        self.opened += 1
        if self.problem:
            raise self.problem
        yield self.take

    def take(self, entry: OutboxMessage) -> DeliveryResult:
        answer = self.results.pop(0) if self.results else DeliveryResult(list(entry.open_recipients))
        if isinstance(answer, Exception):
            raise answer
        self.taken.append((entry.dedupe_key.split()[0], tuple(answer.delivered)))
        return answer


@pytest.fixture
def outbox(tmp_path):
    with Outbox(tmp_path / "ledger.sqlite") as opened:
        yield opened


@pytest.fixture
def way():
    return Way()


def put(outbox: Outbox, key: str, *to: str, at: datetime = NOW) -> None:
    outbox.apply([new_message("alert", key, MAIL, to or (ANNA,), NOTIFICATION, at)])


def deliver(outbox: Outbox, way: Way, at: datetime = NOW) -> int:
    return outbox.deliver(lambda: at, lambda channel: way)


def test_the_same_occasion_is_told_once_to_the_same_people(outbox):
    put(outbox, "alert 1")
    put(outbox, "alert 1")
    put(outbox, "alert 1", CARLO)
    put(outbox, "alert 2")
    assert [entry.recipients for entry in outbox.waiting()] == [(ANNA,), (CARLO,), (ANNA,)]


def test_it_stays_told_once_after_it_was_sent(outbox, way):
    put(outbox, "alert 1")
    assert deliver(outbox, way) == 1
    put(outbox, "alert 1")
    assert deliver(outbox, way) == 0
    assert way.taken == [("alert", (ANNA,))]
    assert outbox.was_queued("alert 1", MAIL, (ANNA,))


def test_changes_come_together_or_not_at_all(outbox):
    name, values = begin_incident("r", "s", None, "", NOW)
    wrong = (name, {**values, "subject": None})
    with pytest.raises(StorageFailed):
        outbox.apply([new_message("alert", "alert 1", MAIL, (ANNA,), NOTIFICATION, NOW), wrong])
    assert outbox.waiting() == []


def test_what_waits_survives_another_process(outbox, tmp_path, way):
    put(outbox, "alert 1")
    with Outbox(tmp_path / "ledger.sqlite") as other:
        assert deliver(other, way) == 1
    assert outbox.waiting() == []


def test_all_that_waits_goes_through_one_opening(outbox, way):
    for n in range(5):
        put(outbox, f"n{n}")
    assert deliver(outbox, way) == 5
    assert way.opened == 1
    assert [key for key, _ in way.taken] == [f"n{n}" for n in range(5)]


def test_a_channel_that_cannot_be_opened_costs_one_attempt_for_all_that_waits(outbox, way):
    for n in range(5):
        put(outbox, f"n{n}")
    way.problem = NotDelivered("mail server m:25 cannot be reached", why="refused", remedy="look")
    assert deliver(outbox, way) == 0
    assert way.opened == 1
    assert {(entry.tries, entry.last_error) for entry in outbox.waiting()} == {
        (1, "mail server m:25 cannot be reached: refused. look")
    }
    assert deliver(outbox, way) == 0
    assert way.opened == 1


def test_one_that_fails_does_not_hold_back_the_others(outbox, way):
    for n in range(3):
        put(outbox, f"n{n}")
    way.results = [DeliveryResult([ANNA]), NotDelivered("refused"), DeliveryResult([ANNA])]
    assert deliver(outbox, way) == 2
    assert [entry.dedupe_key.split()[0] for entry in outbox.waiting()] == ["n1"]


def test_a_channel_that_is_not_set_up_holds_back_no_other(outbox, way):
    put(outbox, "mail")
    outbox.apply([new_message("alert", "sms", "sms", (), NOTIFICATION, NOW)])

    def channel_of(channel: str):
        if channel == "sms":
            raise ConfigError('there is no channel "sms" in alerts.json')
        return way

    assert outbox.deliver(lambda: NOW, channel_of) == 1
    (entry,) = outbox.waiting()
    assert (entry.channel, entry.last_error) == ("sms", 'there is no channel "sms" in alerts.json')


def test_who_has_it_is_left_out_of_the_next_try(outbox, way):
    put(outbox, "a", ANNA, CARLO)
    way.results = [DeliveryResult([ANNA], {}, {CARLO: "450 busy"})]
    assert deliver(outbox, way) == 0
    (entry,) = outbox.waiting()
    assert (entry.open_recipients, entry.last_error) == ((CARLO,), f"{CARLO}: 450 busy")
    assert deliver(outbox, way, NOW + timedelta(minutes=1)) == 1
    assert way.taken == [("a", (ANNA,)), ("a", (CARLO,))]


def test_after_a_clock_that_was_a_year_ahead_mail_does_not_wait_for_that_year(outbox, way):
    put(outbox, "a", at=NOW + timedelta(days=366))
    assert deliver(outbox, way, NOW) == 1


def test_what_was_sent_is_forgotten_after_ninety_days(outbox, way):
    put(outbox, "a")
    deliver(outbox, way)
    put(outbox, "b", at=NOW + timedelta(days=91))
    deliver(outbox, way, NOW + timedelta(days=91))
    assert [entry.dedupe_key.split()[0] for entry in outbox.newest()] == ["b"]


def test_a_subject_has_one_incident_at_a_time(outbox):
    begin = begin_incident("error_rate", "export", 20.0, "t", NOW)
    outbox.apply([begin])
    with pytest.raises(StorageFailed, match="UNIQUE"):
        outbox.apply([begin])
    (incident,) = outbox.open_incidents()
    outbox.apply([("open_incident", {"incident_id": incident.incident_id, "now": iso_utc(NOW)})])
    outbox.apply([("end_incident", {"incident_id": incident.incident_id, "text": "over", "now": iso_utc(NOW)})])
    outbox.apply([begin])
    assert [e.state for e in outbox.incidents()] == ["ended"]


def test_looking_at_the_outbox_uses_its_indexes(outbox, tmp_path):
    plans = {}
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        for name, values in {
            "due_messages": {"now": ""},
            "ended_runs": {"after": ""},
            "final_runs": {"after": ""},
            "newest_samples": {"since": ""},
            "active_silences": {"now": ""},
            "incident": {"incident_id": 1},
        }.items():
            rows = db.execute(f"EXPLAIN QUERY PLAN {outbox._sql[name]}", values).fetchall()
            plans[name] = " ".join(row[3] for row in rows)
    db.close()
    assert all("SCAN" not in plan.replace("SCAN (subquery", "") for plan in plans.values()), plans


def test_incidents_and_messages_of_an_older_ledger_are_there_and_go_on(tmp_path, monkeypatch):
    file = tmp_path / "ledger.sqlite"
    with monkeypatch.context() as patch:
        older = {version: steps for version, steps in core.records.store.SCHEMAS.items() if version < 6}
        patch.setattr(core.records.store, "SCHEMAS", older)
        patch.setattr(core.records.store, "SCHEMA_VERSION", 5)
        with Outbox(file) as stored:
            begin = "INSERT INTO episode (rule, subject, state, first_true_at, opened_at, last_true_at, told_at, text)"
            stored._db.execute(f"{begin} VALUES ('error_rate', 'export', 'open', :at, :at, :at, :at, 'all failed')", AT)
            columns = "kind, episode_id, dedupe_key, channel, recipients, subject, body, body_html"
            stored._db.execute(
                f"INSERT INTO outbox ({columns}, created_at, next_try_at, state)"
                " VALUES ('alert', 1, 'alert 1 mail x', 'mail', '[\"a@example.com\"]', '✘ a', '', '', :at, :at, 'waiting')",
                AT,
            )
    with Outbox(file) as outbox:
        (incident,) = outbox.open_incidents()
        assert (incident.incident_id, incident.subject, incident.notified_at) == (1, "export", NOW)
        assert (incident.severity, incident.run_id, incident.acknowledged_at, incident.silenced_at) == (
            "warning", "", None, None,
        )  # fmt: skip
        assert AlertRecords(outbox).active(NOW) == []
        (message,) = outbox.waiting()
        assert (message.incident_id, message.recipients) == (1, ("a@example.com",))
        outbox.apply([end_incident(incident, "over", NOW), begin_incident("error_rate", "export", 50.0, "again", NOW)])
        assert [(i.state, i.value) for i in outbox.open_incidents()] == [("pending", 50.0)]
        assert [i.text for i in outbox.incidents()] == ["all failed; then: over"]


def test_the_text_is_aligned_and_the_html_escaped():
    notification = Notification(
        "s",
        "A < B.",
        [("What", "a & b"), ("Why", "c")],
        [NotificationTable("T", [("topic", "rows"), ("pstt-traces", "1")])],
        [("python -m core alerts", "what is open")],
    )
    assert notification.text == (
        "A < B.\n\nWhat  a & b\nWhy   c\n\nT\n  topic         rows\n  pstt-traces   1\n\n"
        "Commands\n  python -m core alerts   what is open\n"
    )
    assert "<b>A &lt; B.</b>" in notification.html
    assert "a &amp; b" in notification.html


def test_the_entry_keeps_text_and_recipients_as_they_are(outbox):
    put(outbox, "a", "ünïcode@example.com")
    (entry,) = outbox.waiting()
    assert entry.recipients == ("ünïcode@example.com",)
    assert (entry.subject, entry.body, entry.body_html) == (
        NOTIFICATION.subject_line,
        NOTIFICATION.text,
        NOTIFICATION.html,
    )
    assert json.dumps(entry.refused) == "{}"
