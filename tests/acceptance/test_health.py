"""The runner as a process that notifies users: mail about real runs, the error-rate rule, health, receipt, a test mail."""

import json
import time
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from bench.kills import start_runner, stop_runner
from core.model.job import Job
from core.model.query import Query, Step
from core.model.run import Plan
from core.notify.outbox import Outbox
from core.records.ledger import Ledger, Outcome
from core.workspace.paths import Workspace
from tests.rigs.certificates import make_certificates
from tests.rigs.smtp import MailRig
from tests.rigs.waiting import until
from tests.rigs.workspace import ZONE, acknowledged_so_far, environment, log_text, make_workspace, run_command

ANNA, LUCA = "anna@example.com", "luca@example.com"
USER, PASSWORD = "pstt@example.com", "hunter2-in-the-rig"
NO_TABLE = "SELECT barcode FROM table_that_is_gone"
GOOD = "SELECT lpad(g::text, 12, '0') AS barcode, 'row-value-' || g AS text FROM generate_series(1, 300) AS g"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def mails(certificates):
    with MailRig(certificates.server, users={USER: PASSWORD}) as rig:
        yield rig


@pytest.fixture
def place(tmp_path, postgres, kafka, certificates, mails):
    """A workspace with the job `export` that mails to ANNA; its runner is ended after the test."""
    runners = []

    class Place:
        folder = tmp_path / "ws"
        workspace = Workspace(folder)
        topic = ""
        env = environment(
            postgres,
            measured=True,
            PSTT_SMTP_HOST="127.0.0.1",
            PSTT_SMTP_PORT=str(mails.port),
            PSTT_SMTP_USERNAME=USER,
            PSTT_SMTP_PASSWORD="env:RIG_MAIL_PASSWORD",
            RIG_MAIL_PASSWORD=PASSWORD,
            PSTT_SMTP_CAFILE=str(certificates.ca_file),
            PSTT_MAIL_TO=LUCA,
            PSTT_RUN_RETRIES="0",
        )

        def make(self, sql=GOOD, cluster=None, **job):
            self.topic = kafka.create_topic(partitions=1)
            mail = {"on_success": True, "on_failure": True, "recipients": [ANNA]}
            make_workspace(
                self.folder,
                postgres=postgres,
                bootstrap_servers=kafka.plaintext,
                topic=self.topic,
                sql=sql,
                cluster=cluster,
                job={"email_notification": mail, **job},
            )

        def query(self, sql: str) -> None:
            (self.folder / "queries" / "export.sql").write_text(sql, encoding="utf-8")

        def start(self, **env):
            runners.append(start_runner(self.folder, {**self.env, **env}))
            until(
                lambda: (
                    (beat := self.ledger(lambda ledger: ledger.heartbeats.newest()))
                    and beat.is_alive(datetime.now(UTC))
                )
            )
            with Outbox(self.workspace.ledger_file) as outbox:  # runs from here on are notified
                until(lambda: outbox.considered_until("verdicts"))
            return runners[-1]

        def run(self, *words, **env):
            return run_command(*words, env={**self.env, **env}, cwd=self.folder)

        def json(self, *words, **env):
            return json.loads(self.run(*words, "--json", **env).stdout)

        def ledger(self, ask, *args):
            with Ledger(self.workspace.ledger_file) as ledger:
                return ask(ledger, *args)

        def runs(self, state):
            return [run for run in self.ledger(lambda ledger: ledger.history.newest()) if run.state == state]

        def ended(self, count):
            """Waits until there are so many runs and all have ended; returns them, the newest first."""

            def seen():
                runs = self.ledger(lambda ledger: ledger.history.newest())
                return [f"{run.state} {run.error_class or ''} {run.error_text or ''}".strip() for run in runs]

            def all_of_them():
                runs = self.ledger(lambda ledger: ledger.history.newest())
                return len(runs) >= count and all(run.finished_at for run in runs) and runs

            return until(all_of_them, lambda: f"{count} runs have ended; there are {seen()}")

    yield Place()
    for runner in runners:
        if runner.poll() is None:
            stop_runner(runner)


def test_a_failed_run_is_mailed_and_the_next_good_one_says_that_it_is_over(place, mails, postgres):
    place.make(NO_TABLE)
    place.start()
    place.run("run", "export", "--by-runner")
    until(lambda: len(mails.inbox.mails) == 1)
    failed = mails.inbox.mails[0]
    assert failed["To"] == ANNA
    assert failed["Subject"].startswith("✘ Export failed: ")
    assert "table_that_is_gone" in failed["Subject"]
    text = mails.inbox.text()
    for label in ("What", "On", "Why", "Next"):
        assert f"\n{label}" in text
    assert "On    pg → topic " in text
    assert "python -m core show " in text
    place.query(GOOD)
    place.run("run", "export", "--by-runner")
    until(lambda: len(mails.inbox.mails) == 2)
    assert mails.inbox.mails[1]["Subject"] == "✔ Export complete: works again: 300 rows arrived"
    assert "300 read = 300 acknowledged + 0 rejected" in mails.inbox.text()
    everything = "".join(mail.as_string() for mail in mails.inbox.mails)
    for secret in (PASSWORD, postgres.password, "row-value-", "000000000001"):
        assert secret not in everything
    log = log_text(place.folder)
    assert PASSWORD not in log
    assert "delivered to anna@example.com" in log


@pytest.mark.slow
def test_a_mail_server_that_is_down_or_slow_delays_mail_and_no_run(place, mails, kafka):
    place.make()
    mails.stop()
    place.start(PSTT_SMTP_TIMEOUT_S="5")
    for _ in range(3):
        place.run("run", "export", "--by-runner")
    assert {run.state for run in place.ended(3)} == {"succeeded"}
    with Outbox(place.workspace.ledger_file) as outbox:
        until(lambda: (waiting := outbox.waiting()) and waiting[0].tries > 0)
    (first, *_) = place.json("alerts")["waiting"]
    assert "cannot be reached" in first["last_error"]
    assert "cannot be reached" in place.run("alerts").stdout
    mails.start()
    mails.inbox.delay_s = 1
    until(lambda: len(mails.inbox.mails) == 3)
    time.sleep(3)
    assert len(mails.inbox.mails) == 3
    assert place.json("alerts")["waiting"] == []


def test_the_error_rate_rule_disables_the_job_in_its_file_and_says_who_did_it(place, mails):
    place.make(NO_TABLE, scheduling_mode="cron", cron="0 2 * * *")
    rules = {"rules": {"error_rate": {"for_s": 1}, "success_rate": {"enabled": False}}}
    (place.folder / "alerts.json").write_text(json.dumps(rules), encoding="utf-8")
    place.start()
    file = place.folder / "queries" / "export.job.json"
    before = file.read_text(encoding="utf-8")
    half_failed(place)
    until(lambda: not json.loads(file.read_text(encoding="utf-8")).get("enabled", True))
    assert before[1:] in file.read_text(encoding="utf-8")
    (entry,) = until(  # the file is written first
        lambda: [e for e in place.ledger(lambda ledger: ledger.audit.entries("job export")) if e.action == "disable"]
    )
    assert entry.who == "alert rule error rate > 10 %"
    until(lambda: any("too many messages fail" in mail["Subject"] for mail in mails.inbox.mails))
    alert = next(mail for mail in mails.inbox.mails if "too many messages fail" in mail["Subject"])
    assert alert["To"] == f"{LUCA}, {ANNA}"
    shown = place.run("alerts").stdout
    assert "✘ 2 alerts open" in shown
    assert "error_rate   export" in shown


def half_failed(place) -> None:
    """A run half of whose sends failed, as if the broker had stopped during the run."""
    now = datetime.now(UTC)
    job = Job("export", "Export", "export.sql", "pg")
    with Ledger(place.workspace.ledger_file) as ledger:
        run = ledger.start(Plan(job, Query("q", (Step("select 1"),), {}, "ab"), "rig", place.topic, now, 100), now)
        ledger.finish(run.run_id, Outcome("partial", rows_read=20, sent=20, acknowledged=10, failed=10), now)


@pytest.mark.slow
def test_a_broker_that_dies_in_mid_run_is_an_alert_and_disables_the_job(place, mails, own_kafka):
    slow = "SELECT g::text AS barcode, pg_sleep(0.01)::text AS s FROM generate_series(1, 10000) AS g"
    broker = own_kafka()
    place.make(slow, cluster={"bootstrap_servers": broker.plaintext}, scheduling_mode="cron", cron="0 2 * * *")
    broker.create_topic(place.topic, partitions=1)
    (place.folder / "alerts.json").write_text('{"rules": {"error_rate": {"for_s": 1}}}', encoding="utf-8")
    # Long enough for a busy broker's first acknowledgement.
    quick = {"PSTT_DELIVERY_TIMEOUT_MS": "5000", "KAFKA_REQUEST_TIMEOUT_MS": "2500", "KAFKA_MAX_RETRIES": "0"}
    place.start(**quick, PSTT_FETCH_ROWS="50", KAFKA_LOG_LEVEL="DEBUG")
    place.run("run", "export", "--by-runner")
    until(lambda: acknowledged_so_far(place.folder) or place.runs("failed"))
    broker.kill()
    (run,) = place.ended(1)
    assert (run.state, run.acknowledged > 0) == ("partial", True), run.error_text
    assert run.failed > run.acknowledged / 9
    file = place.folder / "queries" / "export.job.json"
    until(lambda: json.loads(file.read_text(encoding="utf-8")).get("enabled") is False)
    subjects = until(lambda: len(mails.inbox.mails) > 1 and [mail["Subject"] for mail in mails.inbox.mails])
    assert any(subject.startswith("◐ Export partial: ") for subject in subjects)
    assert "✘ Export: too many messages fail (error rate > 10 %)" in subjects


def test_a_test_mail_says_what_became_of_it(place, mails, certificates):
    place.make()
    done = place.run("alerts", "test", "--to", ANNA)
    assert (done.returncode, done.stdout) == (0, f"✔ {ANNA}: the mail server has taken it\n")
    assert mails.inbox.mails[0]["Subject"] == "✔ Test of PSTT Kafka: mail arrives – è così"
    assert place.run("alerts", "test").stdout == f"✔ {LUCA}: the mail server has taken it\n"
    mails.inbox.answers = {ANNA: "550 5.1.1 no such user"}
    refused = place.run("alerts", "test", "--to", ANNA)
    assert (refused.returncode, refused.stdout) == (1, f"✘ {ANNA}: refused, 550 5.1.1 no such user\n")
    wrong = place.run("alerts", "test", "--to", ANNA, RIG_MAIL_PASSWORD="wrong-password")
    assert wrong.returncode == 3
    assert f'refuses the user "{USER}"' in wrong.stderr
    assert "wrong-password" not in wrong.stderr
    untrusted = place.run("alerts", "test", "--to", ANNA, PSTT_SMTP_CAFILE=str(certificates.other_ca_file))
    assert untrusted.returncode == 3
    assert "is not trusted" in untrusted.stderr


def failed(done):
    """A command's result if it failed."""
    return done if done.returncode == 1 else None


def statuses(place, **env) -> dict[str, str]:
    return {result["subject"]: result["status"] for result in place.json("health", **env)["checks"]}


def test_health_is_green_while_the_runner_works_and_red_once_it_is_gone(place):
    place.make()
    assert place.run("health").returncode == 1
    assert "no runner has ever worked here" in place.run("health").stdout
    runner = place.start()
    healthy = place.run("health")
    assert healthy.returncode == 0, healthy.stdout
    assert "✔ runner: pid" in healthy.stdout
    runner.kill()
    runner.wait()
    time.sleep(16)
    dead = place.run("health")
    assert dead.returncode == 1
    assert "✘ runner: the last heartbeat, of pid" in dead.stdout
    assert "next   python -m core runner" in dead.stdout


def test_health_fails_when_the_last_success_of_a_job_is_older_than_its_calendar_says(place):
    place.make(NO_TABLE, scheduling_mode="interval", interval_s=2)
    place.start()
    until(lambda: place.runs("failed"))
    time.sleep(3)
    assert statuses(place, PSTT_HEALTH_GRACE_S="3600")["job export"] == "pass"
    # Each two seconds the next run is due and waits for its start for a moment, which is a warning and no failure.
    overdue = until(lambda: failed(place.run("health", PSTT_HEALTH_GRACE_S="1")))
    assert "✘ job export: no success for " in overdue.stdout
    assert "it never succeeded" in overdue.stdout
    place.query(GOOD)
    until(lambda: place.runs("succeeded"))
    assert statuses(place, PSTT_HEALTH_GRACE_S="30")["job export"] == "pass"


def test_a_disabled_job_and_a_manual_one_are_nobodys_dead_man(place):
    place.make(NO_TABLE, scheduling_mode="interval", interval_s=2, enabled=False)
    place.start()
    assert "job export" not in statuses(place, PSTT_HEALTH_GRACE_S="1")


def test_the_receipt_of_the_day_is_mailed_once_and_printed(place, mails):
    place.make(timezone=ZONE.key)  # else its run of now may be of tomorrow
    assert place.run("run", "export").returncode == 0
    place.start(PSTT_RECEIPT_TO=LUCA, PSTT_RECEIPT_AT="00:00")
    until(lambda: any(LUCA in mail["To"] for mail in mails.inbox.mails))
    (receipt,) = [mail for mail in mails.inbox.mails if LUCA in mail["To"]]
    assert receipt["Subject"].endswith(" so far: everything arrived, 300 rows of 1 job")
    printed = place.run("receipt")
    assert printed.returncode == 0
    assert printed.stdout.splitlines()[0].endswith(": everything arrived, 300 rows of 1 job")
    assert f"{place.topic}" in printed.stdout
    assert "300 read = 300 acknowledged + 0 rejected" in printed.stdout
    document = place.json("receipt")
    assert document["ok"]
    assert document["topics"][0]["rows"] == 300
    assert document["topics"][0]["latency_ms"]["p99"] > 0


@pytest.mark.slow
def test_an_idle_runner_with_alerts_and_mail_stays_small(place):
    place.make(scheduling_mode="cron", cron="0 2 * * *")
    for n in range(100):
        text = (place.folder / "queries" / "export.job.json").read_text(encoding="utf-8")
        document = json.loads(text) | {"name": f"Job {n}", "expect": {"by": "07:00"}}
        (place.folder / "queries" / f"job{n}.job.json").write_text(json.dumps(document), encoding="utf-8")
    runner = place.start(PSTT_RECEIPT_TO=LUCA)
    process = psutil.Process(runner.pid)
    time.sleep(15)
    used_s, began = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(20)
    share = (sum(process.cpu_times()[:2]) - used_s) / (time.monotonic() - began)
    memory_mb = process.memory_info().rss / 1e6
    print(f"idle runner, 101 jobs: {100 * share:.2f} % of a core, {memory_mb:.0f} MB")
    assert memory_mb < 150
    assert share < 0.01


def test_a_day_that_is_still_to_come_has_no_receipt(place):
    place.make()
    tomorrow = (datetime.now(UTC) + timedelta(days=2)).date()
    done = place.run("receipt", "--day", str(tomorrow))
    assert done.returncode == 2
    assert "is still to come" in done.stderr
