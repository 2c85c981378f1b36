"""Every action over every front: the same effect, one audit line, and the same refusals.

The fronts are the command line (a process, as the local caller), REST (a token) and the page (its functions in
`ui.changes`, as a signed-in user).
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from bench.kills import start_runner, stop_runner
from core.admin.actions import roll_up_sends
from core.admin.alert_rules import change_rules
from core.admin.alerts import silence
from core.admin.demo import SLUG, make_demo
from core.admin.edit_jobs import delete_job, replace_job
from core.admin.edit_queries import delete_query, query_names
from core.admin.topic_messages import consumer_groups
from core.admin.versions import restore_version
from core.app import App
from core.calendar.cron import next_scheduled_times
from core.clock import iso_utc
from core.errors import AccessRefused, AlreadySent, PsttError
from core.notify.incidents import begin_incident
from core.notify.outbox import Outbox
from core.notify.rules import default_document
from core.notify.silences import AlertRecords
from core.records.accounts import Accounts
from core.records.audit import OUTCOME
from core.records.columns import ColumnMemory
from core.records.connections_versions import keep_connections
from core.records.ledger import Ledger
from core.records.rights import (
    RIGHT_OF,
    RIGHT_TO_SEE,
    RIGHTS_OF_SCOPE,
    Action,
    Caller,
    Role,
    TokenScope,
    View,
    local_caller,
)
from core.run.drift import accept_columns
from core.scheduler import control
from core.scheduler.backfills import backfill as start_backfill
from core.scheduler.backfills import cancel_backfill, pause_backfill, reports
from core.scheduler.commands import audit_run
from core.scheduler.control import cancel
from core.workspace.jobs import read_job_file, set_enabled
from core.workspace.paths import Workspace
from core.workspace.stored_file import read_stored
from tests.rigs.callers import caller
from tests.rigs.http_receiver import http_receiver
from tests.rigs.smtp import MailRig
from tests.rigs.waiting import until
from tests.rigs.workspace import ROOT, environment, run_command
from tests.ui.rest import PASSWORD, audit, bearer, client, token
from tests.unit.test_ledger import a_plan
from ui import access, changes, data, file_changes
from ui.data.messages import cluster_of, group_plan

JOBS = "/api/scheduler/scheduling"
BACKFILLS = "/api/scheduler/backfills"
QUERY_FILE = "/api/files/query?name=CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"
ANY = {"If-Match": "*"}
ALERTS = "/api/alerts"
CONNECTION = "A00-CDG-Collaudo"
QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
TOMORROW = YESTERDAY + timedelta(days=2)
UNTIL = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0).isoformat()


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("actions") / "demo"
    make_demo(folder, 200, now=datetime.now(UTC))
    done = run_command("run", SLUG, "--workspace", folder, env=environment(), cwd=ROOT)
    assert done.returncode == 4, done.stderr  # five of the demo's rows are rejected
    return folder


@dataclass
class Place:
    """A demo in which one run ran, seen by one caller."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    role: Role = "operator"
    scope: TokenScope = "admin"
    kafka: Callable[[], Any] = field(kw_only=True)
    """Starts the brokers of the session, or skips the test."""
    opened: ExitStack = field(default_factory=ExitStack)
    """What a case has started: a runner, a mail server."""
    mails: MailRig | None = None
    topic: str = ""

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.folder)

    def ledger(self, ask: Callable[[Ledger], Any]) -> Any:
        with Ledger(self.workspace.ledger_file) as opened:
            return ask(opened)

    @property
    def run_id(self) -> str:
        return str(self.ledger(lambda ledger: ledger.history.newest(SLUG)[-1].run_id))

    def cli(self, *words: str, given: int = 0, as_json: bool = True) -> None:
        """Raises the error's text where the command refuses."""
        words = (*words, "--json") if as_json else words
        done = run_command(*words, "--workspace", self.folder, env=environment(), cwd=ROOT)
        assert "Traceback" not in done.stderr
        if done.returncode not in (given, 0):
            raise PsttError(json.loads(done.stdout)["error"]["text"])

    def rest(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The same for REST."""
        who = bearer(token(self.folder, self.scope))
        with client() as asked:
            answer = asked.request(method, path, json=body, headers={**who, **(headers or {})})
        if answer.status_code == 403:
            raise AccessRefused(answer.json()["detail"])
        if answer.status_code >= 400:
            raise PsttError(answer.json()["detail"])
        return answer

    def as_visitor(self) -> None:
        visitor = access.CurrentUser("maria", self.role)
        self.monkeypatch.setattr(access, "current_user", lambda: visitor)
        data.clear_caches()


@pytest.fixture
def make_place(demo, tmp_path, monkeypatch, request) -> Iterator[Callable[[str, Role], Place]]:
    with ExitStack() as stack:
        stack.callback(data.clear_caches)

        def make(name: str, role: Role) -> Place:
            folder = tmp_path / name
            shutil.copytree(demo, folder)
            monkeypatch.setenv("PSTT_WORKSPACE", str(folder))
            kafka = partial(request.getfixturevalue, "kafka")
            made = Place(folder, monkeypatch, role, opened=stack, kafka=kafka)
            made.as_visitor()
            return made

        yield make


@pytest.fixture
def place(make_place) -> Place:
    return make_place("demo", "admin")


# ── what a case needs first; returns the run or token that it is about ────────────────────────


def the_run(place: Place) -> str:
    return place.run_id


def a_running_run(place: Place) -> str:
    """Starts a run in this very process, which does nothing."""
    plan = a_plan(job=read_job_file(place.workspace, SLUG).job)
    return str(place.ledger(lambda ledger: ledger.start(plan, datetime.now(UTC)).run_id))


def a_disabled_job(place: Place) -> str:
    set_enabled(place.workspace, SLUG, enabled=False)
    return ""


def an_incremental_job(place: Place) -> str:
    file = place.folder / "queries" / f"{SLUG}.job.json"
    document = json.loads(file.read_text(encoding="utf-8")) | {"incremental": {"column": "n", "kind": "integer"}}
    file.write_text(json.dumps(document), encoding="utf-8")
    return ""


def a_backfill(place: Place) -> str:
    """Returns its number; no runner works, so its runs wait."""
    job = read_job_file(place.workspace, SLUG).job
    day, by = YESTERDAY - timedelta(days=5), caller("test")
    made = place.ledger(
        lambda ledger: start_backfill(ledger, job, day - timedelta(days=2), day, caller=by, now=datetime.now(UTC))
    )
    return str(made.request_id)


def a_paused_backfill(place: Place) -> str:
    number = a_backfill(place)
    place.ledger(lambda ledger: pause_backfill(ledger, int(number), caller=caller("test"), now=datetime.now(UTC)))
    return number


def a_cancelled_backfill(place: Place) -> str:
    number = a_backfill(place)
    place.ledger(lambda ledger: cancel_backfill(ledger, int(number), caller=caller("test"), now=datetime.now(UTC)))
    return number


def a_changed_job(place: Place) -> str:
    """Returns the number of the version before."""
    file = read_job_file(place.workspace, SLUG)
    place.ledger(
        lambda ledger: replace_job(
            place.workspace,
            ledger,
            replace(file.job, name="Changed"),
            seen_sha256=None,
            caller=caller("test"),
            now=clock(),
        )
    )
    return str(len(place.ledger(lambda ledger: ledger.job_versions.of_job(SLUG))) - 1)


def a_deleted_query(place: Place) -> str:
    place.ledger(
        lambda ledger: delete_query(
            place.workspace, ledger, QUERY, seen_sha256=None, even_if_used=True, caller=caller("test"), now=clock()
        )
    )
    return ""


def a_deleted_job(place: Place) -> str:
    place.ledger(
        lambda ledger: delete_job(place.workspace, ledger, SLUG, seen_sha256=None, caller=caller("test"), now=clock())
    )
    return ""


def a_deleted_cluster(place: Place) -> str:
    now = json.loads(place.workspace.connections_file.read_text(encoding="utf-8"))
    then = {**now, "kafka_connections": {**now["kafka_connections"], "gone": {"bootstrap_servers": "a:9092"}}}
    place.ledger(
        lambda ledger: keep_connections(place.workspace, ledger.connections_versions, json.dumps(then), clock())
    )
    return ""


def changed_columns(place: Place) -> str:
    """The last run was stopped for a column more."""
    with ColumnMemory(place.workspace.ledger_file) as memory:
        known = memory.remembered(SLUG)
        memory.note(SLUG, [*known, ("NEW", "text", "TEXT")], datetime.now(UTC))
    return ""


def a_mail_server(place: Place) -> str:
    place.mails = place.opened.enter_context(MailRig())
    server = f"PSTT_SMTP_HOST=127.0.0.1\nPSTT_SMTP_PORT={place.mails.port}\nPSTT_SMTP_SECURITY=none\n"
    (place.folder / ".env").write_text(f"{server}PSTT_MAIL_FROM=pstt@example.com\n", encoding="utf-8")
    return ""


def a_service_manager(place: Place) -> str:
    """A systemctl that does nothing, as root would call it; a test must not change this machine."""
    program = place.folder / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    place.monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    place.monkeypatch.setattr("core.admin.start_runner.BOOTED", place.folder)
    place.monkeypatch.setattr("core.admin.start_runner._is_administrator", lambda: True)
    place.monkeypatch.setattr("core.admin.os_service.UNITS", program.parent)
    return ""


def a_channel(place: Place) -> str:
    received = place.opened.enter_context(http_receiver())
    channels = {"teams": received.url.replace("http", "json")}
    place.workspace.alerts_file.write_text(json.dumps({"channels": channels}), encoding="utf-8")
    return ""


def an_open_alert(place: Place) -> str:
    """Returns its number."""
    with Outbox(place.workspace.ledger_file) as outbox:
        outbox.apply([begin_incident("error_rate", SLUG, 20.0, "20 % of 100 messages failed", clock())])
        (incident,) = outbox.open_incidents()
        outbox.apply([("open_incident", {"incident_id": incident.incident_id, "now": iso_utc(clock())})])
        return str(incident.incident_id)


def a_silence(place: Place) -> str:
    """Returns its number."""
    until = datetime.fromisoformat(UNTIL)
    given = {"caller": caller("test"), "now": clock()}
    made = place.ledger(lambda ledger: silence(ledger, rule="job_late", subject="", until=until, note="", **given))
    return str(made.silence_id)


def a_runner(place: Place) -> str:
    process = start_runner(place.folder, environment())
    place.opened.callback(end, process)
    until(lambda: runner_is_alive(place), timeout_s=60)
    return ""


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        stop_runner(process)


def an_empty_folder(place: Place) -> str:
    shutil.rmtree(place.folder)
    place.folder.mkdir()
    return ""


def a_user(place: Place) -> str:
    with Accounts(place.workspace.ledger_file) as accounts:
        for name, role in (("boss", "admin"), ("anna", "viewer")):
            accounts.add_user(name, role, None, by=caller("test"), now=datetime.now(UTC), email=f"{name}@b.it")
    return ""


def a_token(place: Place) -> str:
    with Accounts(place.workspace.ledger_file) as accounts:
        token_, _ = accounts.add_token("old", "read", lasts=timedelta(days=1), by=caller("test"), now=datetime.now(UTC))
    return token_.token_id


GROUP = "billing"


def a_group_that_has_read(place: Place) -> str:
    """Returns a topic on real brokers, of which a group has read two messages of three: mock brokers list no groups."""
    kafka = place.kafka()
    topic = kafka.create_topic(partitions=1)
    file = place.workspace.connections_file
    document = json.loads(file.read_text(encoding="utf-8"))
    document["kafka_connections"]["real"] = {"name": "real", "bootstrap_servers": kafka.plaintext}
    file.write_text(json.dumps(document), encoding="utf-8")
    producer = Producer({"bootstrap.servers": kafka.plaintext})
    for n in range(3):
        producer.produce(topic, str(n), partition=0)
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": kafka.plaintext, "group.id": GROUP})
    consumer.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
    consumer.close()
    place.topic = topic
    return str(topic)


# ── what an action changes ────────────────────────────────────────────────────────────────────


def nothing(place: Place) -> None:
    """The action changes nothing that is stored, or not the same over each front: a replay runs here or in the runner."""


def newest_request(place: Place) -> list[tuple[str, str, str]]:
    requests = place.ledger(lambda ledger: ledger.requests.newest(1))
    return [(request.kind, request.job, request.run_id or "") for request in requests]


def runs(place: Place) -> list[tuple[str, int]]:
    newest = place.ledger(lambda ledger: ledger.history.newest(SLUG, 9))
    return [(run.state, run.acknowledged) for run in newest]


def watermark(place: Place) -> tuple[str, str, int] | None:
    found = place.ledger(lambda ledger: ledger.watermarks.get(SLUG))
    return (found.value, found.why, found.version) if found else None


def notes(place: Place) -> list[tuple[str, str, str]]:
    found = place.ledger(lambda ledger: ledger.day_notes.between(date.min, date.max))
    return [(note.job, str(note.day), note.text) for note in found]


def sent_from(place: Place) -> list[Any]:
    return [watermark(place), *newest_request(place)]


def committed(place: Place) -> list[tuple[int | None, ...]]:
    found = consumer_groups(cluster_of("real"), place.topic).groups
    return [tuple(part.committed for part in group.partitions) for group in found if group.name == GROUP]


def running(place: Place) -> list[tuple[str, bool]]:
    newest = place.ledger(lambda ledger: ledger.history.newest(SLUG, 9))
    return [(run.state, run.cancel_asked_at is None) for run in newest]


def job_name(slug: str) -> Callable[[Place], str | None]:
    def named(place: Place) -> str | None:
        file = place.folder / "queries" / f"{slug}.job.json"
        return read_job_file(place.workspace, slug).job.name if file.exists() else None

    return named


def text_of(*names: str) -> Callable[[Place], str]:
    return lambda place: read_stored(place.folder.joinpath(*names)).text


def query_files(place: Place) -> tuple[list[str], str]:
    file = place.folder / "queries" / f"{SLUG}.job.json"
    return query_names(place.workspace), file.read_text(encoding="utf-8")


def sql_of(place: Place) -> str:
    return read_stored(place.workspace.query_file(QUERY)).text


def seen_query(place: Place) -> str:
    return read_stored(place.workspace.query_file(QUERY)).sha256


def enabled(place: Place) -> bool:
    return read_job_file(place.workspace, SLUG).job.enabled


def columns(place: Place) -> Any:
    with ColumnMemory(place.workspace.ledger_file) as memory:
        return memory.remembered(SLUG)


def planned(place: Place) -> int:
    now = datetime.now(UTC)
    return len(place.ledger(lambda ledger: ledger.scheduled_runs.between(now - timedelta(days=9), now, SLUG)))


def backfills(place: Place) -> list[tuple[str, str, str, int]]:
    newest = place.ledger(lambda ledger: reports(ledger))
    return [(one.backfill.job, one.backfill.state, one.backfill.summary, one.progress.waiting) for one in newest]


def sends(place: Place) -> int:
    return len(list((place.folder / ".pstt" / "spool").rglob("*.parquet")))


def mails_sent(place: Place) -> list[tuple[str, str]]:
    assert place.mails is not None
    return [(mail["To"], mail["Subject"]) for mail in place.mails.inbox.mails]


def alerts(place: Place) -> list[tuple[str, str, bool, str]]:
    """The caller's name differs by front."""
    with Outbox(place.workspace.ledger_file) as outbox:
        return [(one.rule, one.state, one.acknowledged_at is not None, one.note) for one in outbox.incidents()]


def silences(place: Place) -> list[tuple[str, str, datetime]]:
    with Outbox(place.workspace.ledger_file) as outbox:
        return [(one.rule, one.subject, one.until) for one in AlertRecords(outbox).active(clock())]


def units(place: Place) -> list[str]:
    return sorted(unit.name for unit in (place.folder / "bin").glob("*.service"))


def runner_is_alive(place: Place) -> bool:
    status = place.ledger(lambda ledger: ledger.heartbeats.newest())
    return status is not None and status.is_alive(datetime.now(UTC))


def users(place: Place) -> list[tuple[str, str]]:
    with Accounts(place.workspace.ledger_file) as accounts:
        return [(user.name, user.role) for user in accounts.users()]


def tokens(place: Place) -> list[tuple[str, str, str]]:
    """Without that of the REST rig."""
    with Accounts(place.workspace.ledger_file) as accounts:
        return [(one.name, one.scope, one.state(datetime.now(UTC))) for one in accounts.tokens() if one.name != "admin"]


# ── what the page does ────────────────────────────────────────────────────────────────────────


def etag(place: Place) -> dict[str, str]:
    return {"If-Match": f'"{read_job_file(place.workspace, SLUG).sha256}"'}


def save(place: Place, **more: Any) -> dict[str, Any]:
    return {**json.loads(read_job_file(place.workspace, SLUG).text), **more}


def revise(place: Place) -> None:
    file = read_job_file(place.workspace, SLUG)
    changes.save_job(replace(file.job, name="Another name"), file.sha256)


def save_sql(place: Place, name: str = QUERY) -> None:
    stored = read_stored(place.workspace.query_file(name))
    changes.save_query(name, stored.content + b"\n", CONNECTION, stored.sha256)


def save_connections(place: Place) -> None:
    stored = read_stored(place.workspace.connections_file)
    document = json.loads(stored.text)
    document["kafka_connections"]["collaudo"]["default_topic"] = "another"
    changes.save_connections(document, "connection A00", stored.sha256)


def save_alerts(place: Place) -> None:
    stored = read_stored(place.workspace.alerts_file)
    changes.save_alerts(json.loads(default_document()), stored.sha256)


def preview(place: Place) -> None:
    job = read_job_file(place.workspace, SLUG).job
    assert changes.preview(job, datetime.now(UTC), 3)[1].messages


def of_accounts(act: Callable[[Accounts, Caller, datetime], Any]) -> Callable[[Place, str], None]:
    """As `ui.views.administration` does it."""

    def done(place: Place, _: str) -> None:
        by = changes.caller("accounts")
        with Accounts(place.workspace.ledger_file) as accounts:
            act(accounts, by, datetime.now(UTC))

    return done


def in_core(act: Callable[[App, Caller], Any]) -> Callable[[Place, Caller], None]:
    """The function of core behind a command that page and REST do not have."""

    def done(place: Place, by: Caller) -> None:
        with App.open(place.folder, {}, log=False) as opened:
            act(opened, by)

    return done


def clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Case:
    """One action over its fronts."""

    action: Action
    audited: tuple[str, str] | None
    """Verb and object; `{subject}` is what `prepare` returns, `*` any text. None: the action only reads."""
    effect: Callable[[Place], Any]
    prepare: Callable[[Place], str] = the_run
    cli: Callable[[Place, str], Any] | None = None
    rest: Callable[[Place, str], Any] | None = None
    page: Callable[[Place, str], Any] | None = None
    core: Callable[[Place, Caller], Any] | None = None
    """Where the command line is the only front."""
    about: str = ""
    """Tells apart the cases of one action."""

    @property
    def name(self) -> str:
        return f"{self.action} {self.about}".strip().replace(" ", "_")


CASES = [
    Case("run", ("run", f"job {SLUG}"), newest_request, about="by the runner",
         cli=lambda p, _: p.cli("run", SLUG, "--by-runner", "--again"),
         rest=lambda p, _: p.rest("POST", f"{JOBS}/{SLUG}/run", {"again": True}),
         page=lambda p, _: changes.run(SLUG, again=True)),
    Case("run", ("run", f"job {SLUG}"), runs, about="here",
         cli=lambda p, _: p.cli("run", SLUG, "--again", given=4),
         core=in_core(lambda app, by: audit_run(
             app.ledger, app.plan(app.job(SLUG), now=clock()), caller=by, now=clock(), again=True))),
    Case("dry_run", ("dry_run", f"job {SLUG}"), newest_request, about="by the runner",
         cli=lambda p, _: p.cli("run", SLUG, "--by-runner", "--dry-run"),
         rest=lambda p, _: p.rest("POST", f"{JOBS}/{SLUG}/run", {"dry_run": True}),
         page=lambda p, _: changes.run(SLUG, dry_run=True)),
    Case("dry_run", ("dry_run", f"job {SLUG}"), nothing, about="here",
         cli=lambda p, _: p.cli("run", SLUG, "--dry-run", given=4),
         core=in_core(lambda app, by: audit_run(
             app.ledger, app.plan(app.job(SLUG), now=clock()), caller=by, now=clock(), again=False, dry_run=True))),
    Case("preview", None, nothing,
         cli=lambda p, _: p.cli("preview", SLUG), page=lambda p, _: preview(p)),
    Case("replay", ("replay", "run {subject}"), nothing,
         cli=lambda p, run: p.cli("replay", run, given=4),
         page=lambda p, run: changes.replay(run, rejects_only=False, to="run")),
    Case("backfill", ("backfill", f"job {SLUG}"), planned,
         cli=lambda p, _: p.cli("backfill", SLUG, "--from", str(YESTERDAY), "--to", str(YESTERDAY), "--again"),
         rest=lambda p, _: p.rest(
             "POST", BACKFILLS, {"job": SLUG, "from": str(YESTERDAY), "to": str(YESTERDAY), "again": True}),
         page=lambda p, _: changes.backfill(SLUG, YESTERDAY, YESTERDAY, again=True)),
    Case("backfill", ("backfill", f"job {SLUG}"), backfills, a_cancelled_backfill, about="again what has no success",
         cli=lambda p, number: p.cli("backfill", "retry", number),
         rest=lambda p, number: p.rest("POST", f"{BACKFILLS}/{number}/retry"),
         page=lambda p, number: changes.retry_backfill(int(number))),
    Case("pause backfill", ("pause", "backfill {subject}"), backfills, a_backfill,
         cli=lambda p, number: p.cli("backfill", "pause", number),
         rest=lambda p, number: p.rest("POST", f"{BACKFILLS}/{number}/pause"),
         page=lambda p, number: changes.pause_backfill(int(number))),
    Case("resume backfill", ("resume", "backfill {subject}"), backfills, a_paused_backfill,
         cli=lambda p, number: p.cli("backfill", "resume", number),
         rest=lambda p, number: p.rest("POST", f"{BACKFILLS}/{number}/resume"),
         page=lambda p, number: changes.resume_backfill(int(number))),
    Case("cancel backfill", ("cancel", "backfill {subject}"), backfills, a_backfill,
         cli=lambda p, number: p.cli("backfill", "cancel", number),
         rest=lambda p, number: p.rest("POST", f"{BACKFILLS}/{number}/cancel"),
         page=lambda p, number: changes.cancel_backfill(int(number))),
    Case("cancel", ("cancel", "run {subject}"), running, a_running_run,
         cli=lambda p, run: p.cli("cancel", run),
         page=lambda p, run: changes.cancel(run)),
    Case("cancel", ("cancel", f"job {SLUG}"), running, a_running_run, about="of a job",
         cli=lambda p, _: p.cli("cancel", SLUG),
         core=in_core(lambda app, by: cancel(app, SLUG, caller=by, now=clock()))),
    Case("stop", ("stop", "runner"), runner_is_alive, a_runner,
         cli=lambda p, _: p.cli("runner", "--stop", as_json=False),
         core=in_core(lambda app, by: control.stop_runner(app, by, clock))),
    Case("enable", ("enable", f"job {SLUG}"), enabled, a_disabled_job,
         cli=lambda p, _: p.cli("enable", SLUG),
         rest=lambda p, _: p.rest("POST", f"{JOBS}/{SLUG}/enable"),
         page=lambda p, _: changes.switch_job(SLUG, enabled=True)),
    Case("disable", ("disable", f"job {SLUG}"), enabled,
         cli=lambda p, _: p.cli("disable", SLUG),
         rest=lambda p, _: p.rest("POST", f"{JOBS}/{SLUG}/disable"),
         page=lambda p, _: changes.switch_job(SLUG, enabled=False)),
    Case("accept-columns", ("accept-columns", f"job {SLUG}"), columns, changed_columns,
         cli=lambda p, _: p.cli("accept-columns", SLUG),
         core=in_core(lambda app, by: accept_columns(app, app.job(SLUG), by, clock()))),
    Case("watermark", ("watermark", f"job {SLUG}"), watermark, an_incremental_job,
         cli=lambda p, _: p.cli("watermark", SLUG, "--set", "5", "--why", "again"),
         rest=lambda p, _: p.rest("PUT", f"{JOBS}/{SLUG}/watermark", {"value": "5", "why": "again"}),
         page=lambda p, _: changes.set_watermark(SLUG, "5", "again")),
    Case("watermark", ("watermark", f"job {SLUG}"), sent_from, an_incremental_job, about="and a run, by a backfill",
         cli=lambda p, _: p.cli("backfill", SLUG, "--from-value", "5", "--why", "again"),
         rest=lambda p, _: p.rest("POST", BACKFILLS, {"job": SLUG, "from_value": "5", "why": "again"}),
         page=lambda p, _: changes.backfill_from(SLUG, "5", "again")),
    Case("note", ("note", f"day 2026-01-16 of job {SLUG}"), notes,
         cli=lambda p, _: p.cli("note", SLUG, "2026-01-16", "--text", "maintenance"),
         rest=lambda p, _: p.rest("PUT", f"{JOBS}/{SLUG}/notes", {"day": "2026-01-16", "text": "maintenance"}),
         page=lambda p, _: changes.write_note(SLUG, date(2026, 1, 16), "maintenance")),
    Case("send", ("send", "topic by-hand"), sends,
         cli=lambda p, _: p.cli("send", "by-hand", "k", "v"),
         rest=lambda p, _: p.rest("POST", "/api/kafka/send", {"topic": "by-hand", "key": "k", "value": "v"}),
         page=lambda p, _: changes.send(None, "by-hand", "k", "v")),
    Case("test", ("test", "cluster Kafka Collaudo (mock)"), nothing, about="of a cluster",
         rest=lambda p, _: p.rest("POST", "/api/kafka/test", {}),
         page=lambda p, _: changes.test_cluster(None)),
    Case("test", ("test", f"connection {CONNECTION}"), nothing, about="of a database",
         page=lambda p, _: changes.test_database(CONNECTION)),
    Case("test mail", ("test mail", "mail"), mails_sent, a_mail_server,
         cli=lambda p, _: p.cli("alerts", "test", "--to", "anna@example.com"),
         rest=lambda p, _: p.rest("POST", f"{ALERTS}/test", {"to": ["anna@example.com"]}),
         page=lambda p, _: changes.send_test("mail", ["anna@example.com"])),
    Case("test channel", ("test channel", "channel teams"), nothing, a_channel,
         cli=lambda p, _: p.cli("alerts", "test", "--channel", "teams"),
         rest=lambda p, _: p.rest("POST", f"{ALERTS}/test", {"channel": "teams"}),
         page=lambda p, _: changes.send_test("teams")),
    Case("acknowledge", ("acknowledge", f"alert error_rate of {SLUG}"), alerts, an_open_alert,
         cli=lambda p, number: p.cli("alerts", "acknowledge", number, "--note", "seen"),
         rest=lambda p, number: p.rest("POST", f"{ALERTS}/{number}/acknowledge", {"note": "seen"}),
         page=lambda p, number: changes.acknowledge(int(number), "seen")),
    Case("silence", ("silence", f"alerts job_late of {SLUG}"), silences,
         cli=lambda p, _: p.cli("alerts", "silence", "--rule", "job_late", "--subject", SLUG, "--until", UNTIL),
         rest=lambda p, _: p.rest("POST", f"{ALERTS}/silences", {"rule": "job_late", "subject": SLUG, "until": UNTIL}),
         page=lambda p, _: changes.silence("job_late", SLUG, datetime.fromisoformat(UNTIL), "")),
    Case("end silence", ("end silence", "alerts job_late"), silences, a_silence,
         cli=lambda p, number: p.cli("alerts", "end-silence", number),
         rest=lambda p, number: p.rest("DELETE", f"{ALERTS}/silences/{number}"),
         page=lambda p, number: changes.end_silence(int(number))),
    Case("create", ("create", "job copy"), job_name("copy"),
         rest=lambda p, _: p.rest("POST", f"{JOBS}?id=copy", save(p, name="Copy")),
         page=lambda p, _: changes.duplicate_job(SLUG, "copy", "Copy")),
    Case("change", ("change", f"job {SLUG}"), job_name(SLUG),
         rest=lambda p, _: p.rest("PUT", f"{JOBS}/{SLUG}", save(p, name="Another name"), etag(p)),
         page=lambda p, _: revise(p)),
    Case("change", ("change", f"job {SLUG}"), job_name(SLUG), a_changed_job, about="back to a version",
         cli=lambda p, number: p.cli("versions", "job", SLUG, "--restore", number),
         rest=lambda p, number: p.rest(
             "POST", f"/api/files/versions/{number}/restore?kind=job&name={SLUG}", headers=etag(p)),
         core=in_core(lambda app, by: restore_version(
             app, "job", SLUG, 1, seen_sha256=None, caller=by, now=clock()))),
    Case("delete", ("delete", f"job {SLUG}"), job_name(SLUG),
         rest=lambda p, _: p.rest("DELETE", f"{JOBS}/{SLUG}", headers=etag(p)),
         page=lambda p, _: changes.delete_job(SLUG, read_job_file(p.workspace, SLUG).sha256)),
    Case("save", ("save", f"query {QUERY}"), text_of("queries", QUERY),
         rest=lambda p, _: p.rest("PUT", QUERY_FILE, {"sql": sql_of(p) + "\n", "connection": CONNECTION}, ANY),
         page=lambda p, _: save_sql(p)),
    Case("rename query", ("rename query", f"query {QUERY}"), query_files,
         rest=lambda p, _: p.rest("POST", QUERY_FILE.replace("?", "/rename?"), {"new_name": "new.sql"}, ANY),
         page=lambda p, _: file_changes.rename_query(QUERY, "new.sql", seen_query(p))),
    Case("delete query", ("delete query", f"query {QUERY}"), query_files,
         rest=lambda p, _: p.rest("DELETE", f"{QUERY_FILE}&even_if_used=true", headers=ANY),
         page=lambda p, _: file_changes.delete_query(QUERY, seen_query(p))),
    Case("restore", ("restore", f"query {QUERY}"), query_files, a_deleted_query, about="of an SQL file",
         rest=lambda p, _: p.rest("POST", "/api/files/restore", {"kind": "query", "name": QUERY}),
         page=lambda p, _: file_changes.restore("query", QUERY)),
    Case("restore", ("restore", f"job {SLUG}"), job_name(SLUG), a_deleted_job, about="of a job",
         rest=lambda p, _: p.rest("POST", "/api/files/restore", {"kind": "job", "name": SLUG}),
         page=lambda p, _: file_changes.restore("job", SLUG)),
    Case("connections", ("change", "cluster gone"), text_of("connections.json"), a_deleted_cluster, about="bring back",
         rest=lambda p, _: p.rest("POST", "/api/files/restore", {"kind": "cluster", "name": "gone"}),
         page=lambda p, _: file_changes.restore("cluster", "gone")),
    Case("connections", ("change", "connection A00"), text_of("connections.json"),
         page=lambda p, _: save_connections(p)),
    Case("reset offsets", ("reset offsets", f"group {GROUP} of topic {{subject}}"), committed, a_group_that_has_read,
         cli=lambda p, topic: p.cli("groups", "reset", topic, GROUP, "--to", "earliest", "--yes", "--cluster", "real"),
         rest=lambda p, topic: p.rest(
             "POST", f"/api/kafka/topics/{topic}/groups/reset?cluster=real", {"group": GROUP, "to": "earliest"}),
         page=lambda p, topic: changes.reset_group("real", group_plan("real", topic, GROUP, "earliest"))),
    Case("alerts", ("change", "alert rules"), text_of("alerts.json"),
         cli=lambda p, _: p.cli("alerts", "init"), page=lambda p, _: save_alerts(p)),
    Case("alerts", ("change", "alert rules"), text_of("alerts.json"), about="one rule",
         cli=lambda p, _: p.cli("alerts", "rules", "--set", "error_rate.threshold_percent=5"),
         rest=lambda p, _: p.rest("PUT", f"{ALERTS}/rules/error_rate", {"threshold_percent": 5}, ANY),
         core=lambda p, by: p.ledger(lambda ledger: change_rules(
             p.workspace, ledger, {"error_rate": {"threshold_percent": 5}}, caller=by, now=clock()))),
    Case("settings", ("change", "setting PSTT_WORKERS"), text_of(".env"),
         cli=lambda p, _: p.cli("config", "--set", "PSTT_WORKERS=8"),
         page=lambda p, _: changes.change_setting("PSTT_WORKERS", "8")),
    Case("service", ("service", "service pstt-kafka"), units, a_service_manager,
         page=lambda p, _: changes.start_service()),
    Case("secret", ("store", "secret file:secrets/x"), text_of("secrets", "x"),
         page=lambda p, _: changes.store_secret("file:secrets/x", "value")),
    Case("rebuild", ("rebuild", "metrics.duckdb"), nothing,
         cli=lambda p, _: p.cli("metrics", "rebuild"), page=lambda p, _: changes.rebuild_metrics()),
    Case("roll up", ("roll up", "metrics.duckdb"), nothing, cli=lambda p, _: p.cli("metrics", "roll-up"),
         core=in_core(lambda app, by: roll_up_sends(app, caller=by, now=clock()))),
    Case("accounts", ("add", "user anna"), users, about="add a user",
         cli=lambda p, _: p.cli("user", "add", "anna", "--no-password", "--email", "a@b.it"),
         page=of_accounts(lambda accounts, by, now: accounts.add_user(
             "anna", "viewer", None, by=by, now=now, email="a@b.it"))),
    Case("accounts", ("role", "user anna"), users, a_user, about="give a role",
         cli=lambda p, _: p.cli("user", "role", "anna", "operator"),
         page=of_accounts(lambda accounts, by, now: accounts.set_role("anna", "operator", by=by, now=now))),
    Case("accounts", ("remove", "user anna"), users, a_user, about="remove a user",
         cli=lambda p, _: p.cli("user", "remove", "anna"),
         page=of_accounts(lambda accounts, by, now: accounts.remove_user("anna", by=by, now=now))),
    Case("accounts", ("password", "user anna"), nothing, a_user, about="set a password",
         page=of_accounts(lambda accounts, by, now: accounts.set_password("anna", PASSWORD, by=by, now=now))),
    Case("accounts", ("add", "token *"), tokens, about="add a token",
         cli=lambda p, _: p.cli("token", "add", "new", "--scope", "send"),
         page=of_accounts(lambda accounts, by, now: accounts.add_token(
             "new", "send", lasts=timedelta(days=365), by=by, now=now))),
    Case("accounts", ("revoke", "token {subject}"), tokens, a_token, about="revoke a token",
         cli=lambda p, _: p.cli("token", "revoke", "old"),
         page=of_accounts(lambda accounts, by, now: accounts.revoke_token("old", by=by, now=now))),
    Case("demo", ("demo", "workspace"), job_name(SLUG), an_empty_folder,
         cli=lambda p, _: p.cli("demo", "--rows", "50", "--days", "0", given=4),
         page=lambda p, _: changes.fill_with_demo(days=0)),
]  # fmt: skip
FRONTS = [(case, front) for case in CASES for front in ("cli", "rest", "page") if getattr(case, front)]
REFUSING = [(case, front) for case, front in FRONTS if front != "cli"]
AUDITED = [case for case in CASES if case.audited is not None]


def named(pairs: Sequence[tuple[Case, str]]) -> list[str]:
    return [f"{case.name}-{front}" for case, front in pairs]


def new_lines(place: Place, before: int) -> list[tuple[str, str, str]]:
    """Returns the audit lines of the action, without those of the rig's own token and of outcomes."""
    lines = [(entry.who, entry.action, entry.object) for entry in audit(place.folder)]
    return [line for line in lines[: len(lines) - before] if line[0] != "test" and line[1] != OUTCOME]


@pytest.mark.parametrize(("case", "front"), FRONTS, ids=named(FRONTS))
def test_an_action_writes_one_audit_line_that_names_who_did_it(place, case, front):
    subject, before = case.prepare(place), len(audit(place.folder))
    getattr(case, front)(place, subject)
    written = new_lines(place, before)
    if case.audited is None:
        assert written == []
        return
    verb, object_ = case.audited
    who = {"cli": local_caller().name, "rest": "token admin", "page": "maria"}[front]
    assert [line[:2] for line in written] == [(who, verb)]
    assert fnmatchcase(written[0][2], object_.format(subject=subject))


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_an_action_has_the_same_effect_over_every_front(make_place, case):
    effects = []
    for front in ("cli", "rest", "page"):
        if (act := getattr(case, front)) is None:
            continue
        place = make_place(front, "admin")
        subject = case.prepare(place)
        before = case.effect(place)
        act(place, subject)
        effects.append(case.effect(place))
        assert case.effect is nothing or effects[-1] != before
    assert effects == effects[:1] * len(effects)


def without_right(action: Action, holders: dict[Any, frozenset[str]]) -> Any:
    """The one with the most rights that still lacks the needed one."""
    lacking = [name for name, rights in holders.items() if RIGHT_OF[action] not in rights]
    return max(lacking, key=lambda name: len(holders[name]))


def role_without(action: Action) -> Role:
    role: Role = without_right(action, {role: caller("x", role).rights for role in get_args(Role)})
    return role


@pytest.mark.parametrize(("case", "front"), REFUSING, ids=named(REFUSING))
def test_a_caller_without_the_right_is_refused_and_nothing_is_audited(place, case, front):
    subject = case.prepare(place)
    place.scope = without_right(case.action, dict(RIGHTS_OF_SCOPE)) if front == "rest" else "admin"
    place.role = role_without(case.action)
    place.as_visitor()
    effect, before = case.effect(place), len(audit(place.folder))
    with pytest.raises(AccessRefused):
        getattr(case, front)(place, subject)
    assert new_lines(place, before) == []
    assert case.effect(place) == effect


@pytest.mark.parametrize("case", AUDITED, ids=[case.name for case in AUDITED])
def test_core_refuses_it_too_where_a_front_does_not_ask_for_the_right(place, case):
    """The page and REST refuse before they call core; the command line, whose caller may do everything, does not."""
    lacking = caller("anna", role_without(case.action))
    subject = case.prepare(place)
    effect, before = case.effect(place), len(audit(place.folder))
    place.monkeypatch.setattr(changes, "caller", lambda action: lacking)
    with pytest.raises(AccessRefused, match="anna may not do this"):
        case.page(place, subject) if case.page else case.core(place, lacking)
    assert new_lines(place, before) == []
    assert case.effect(place) == effect


def next_time(place):
    """Returns the next time of the job's calendar."""
    with App.open(place.folder) as app:
        (found,) = next_scheduled_times(app.job(SLUG), clock(), 1)
    return found


WRONG = {
    "unknown job": (
        lambda p: p.cli("run", "nothing", "--by-runner"),
        lambda p: p.rest("POST", f"{JOBS}/nothing/run"),
        lambda p: changes.run("nothing"),
    ),
    "unknown job to disable": (
        lambda p: p.cli("disable", "nothing"),
        lambda p: p.rest("POST", f"{JOBS}/nothing/disable"),
        lambda p: changes.switch_job("nothing", enabled=False),
    ),
    "a time that was sent": (
        lambda p: p.cli("run", SLUG, "--by-runner"),
        lambda p: p.rest("POST", f"{JOBS}/{SLUG}/run"),
        lambda p: changes.run(SLUG),
    ),
    "a run that has ended": (
        lambda p: p.cli("cancel", p.run_id),
        lambda p: changes.cancel(p.run_id),
    ),
    "an unknown run": (
        lambda p: p.cli("replay", "ffffffffff"),
        lambda p: changes.replay("ffffffffff", rejects_only=False, to="run"),
    ),
    "a backfill that is not there": (
        lambda p: p.cli("backfill", "pause", "4711"),
        lambda p: p.rest("POST", f"{BACKFILLS}/4711/pause"),
        lambda p: changes.pause_backfill(4711),
    ),
    "a thousand days at once": (
        lambda p: p.cli("backfill", SLUG, "--from", str(YESTERDAY), "--to", str(YESTERDAY), "--parallel", "1000"),
        lambda p: p.rest(
            "POST", BACKFILLS, {"job": SLUG, "from": str(YESTERDAY), "to": str(YESTERDAY), "parallel": 1000}
        ),
        lambda p: changes.backfill(SLUG, YESTERDAY, YESTERDAY, again=False, parallel=1000),
    ),
    "an alert that is not there": (
        lambda p: p.cli("alerts", "acknowledge", "4711"),
        lambda p: p.rest("POST", f"{ALERTS}/4711/acknowledge"),
        lambda p: changes.acknowledge(4711, ""),
    ),
    "a silence of a rule that is not there": (
        lambda p: p.cli("alerts", "silence", "--rule", "late", "--until", "2h"),
        lambda p: p.rest("POST", f"{ALERTS}/silences", {"rule": "late", "until": "2h"}),
        lambda p: changes.silence("late", "", datetime.fromisoformat(UNTIL), ""),
    ),
    "a silence that has ended": (
        lambda p: p.cli("alerts", "end-silence", "4711"),
        lambda p: p.rest("DELETE", f"{ALERTS}/silences/4711"),
        lambda p: changes.end_silence(4711),
    ),
    "a channel that is not there": (
        lambda p: p.cli("alerts", "test", "--channel", "pager"),
        lambda p: p.rest("POST", f"{ALERTS}/test", {"channel": "pager"}),
        lambda p: changes.send_test("pager"),
    ),
    "a value that is no number": (
        lambda p: [an_incremental_job(p), p.cli("backfill", SLUG, "--from-value", "2026-01-05", "--why", "again")],
        lambda p: p.rest("POST", BACKFILLS, {"job": SLUG, "from_value": "2026-01-05", "why": "again"}),
        lambda p: changes.backfill_from(SLUG, "2026-01-05", "again"),
    ),
    "a time that is still to come": (
        lambda p: p.cli("run", SLUG, "--at", next_time(p).isoformat()),
        lambda p: p.rest("POST", f"{JOBS}/{SLUG}/run", {"at": next_time(p).isoformat()}),
        lambda p: changes.run(SLUG, next_time(p)),
    ),
    "a range that is still to come": (
        lambda p: p.cli("backfill", SLUG, "--from", str(TOMORROW), "--to", str(TOMORROW)),
        lambda p: p.rest("POST", BACKFILLS, {"job": SLUG, "from": str(TOMORROW), "to": str(TOMORROW)}),
        lambda p: changes.backfill(SLUG, TOMORROW, TOMORROW, again=False),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_done_is_refused_with_the_same_words_and_not_audited(place, wrong):
    before, texts = len(audit(place.folder)), set()
    for act in WRONG[wrong]:
        with pytest.raises((PsttError, AlreadySent)) as caught:
            act(place)
        texts.add(caught.value.text)
    assert len(texts) == 1, texts
    assert new_lines(place, before) == []


@pytest.mark.parametrize("role", get_args(Role))
def test_the_page_offers_what_core_allows_the_user(monkeypatch, role):
    monkeypatch.setattr(access, "current_user", lambda: access.CurrentUser("maria", role))
    rights = caller("maria", role)
    assert {action: access.may(action) for action in RIGHT_OF} == {action: rights.may(action) for action in RIGHT_OF}
    assert [view for view in RIGHT_TO_SEE if access.may(view)] == {
        "viewer": [],
        "operator": ["rejected rows", "exported files", "messages", "log"],
        "admin": ["rejected rows", "exported files", "messages", "log", "administration"],
    }[role]  # fmt: skip


def test_every_action_has_a_right_and_is_walked():
    assert set(RIGHT_OF) == set(get_args(Action)) == {case.action for case in CASES}
    assert set(RIGHT_TO_SEE) == set(get_args(View))
