"""Every action over every front: the same effect, one audit line, and the same refusals.

The fronts are the command line (a process, as the local caller), REST (a token) and the page (its functions in
`ui.changes`, as a signed-in user).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest

from core.admin.demo import SLUG, make_demo
from core.errors import AccessRefused, AlreadySent, PsttError
from core.records.accounts import Accounts
from core.records.ledger import Ledger
from core.records.rights import RIGHT_OF, RIGHTS_OF_SCOPE, Action, Role, TokenScope, local_caller
from core.workspace.jobs import read_job_file
from core.workspace.paths import Workspace
from core.workspace.stored_file import read_stored
from tests.rigs.callers import caller
from tests.rigs.workspace import ROOT, environment, run_command
from tests.ui.rest import audit, bearer, client, token
from tests.unit.test_ledger import a_plan
from ui import access, changes, data

JOBS = "/api/scheduler/scheduling"
CONNECTION = "A00-CDG-Collaudo"
QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).date()
TOMORROW = YESTERDAY + timedelta(days=2)


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

    @property
    def workspace(self) -> Workspace:
        return Workspace(self.folder)

    def ledger(self, ask: Callable[[Ledger], Any]) -> Any:
        with Ledger(self.workspace.ledger_file) as opened:
            return ask(opened)

    @property
    def run_id(self) -> str:
        return str(self.ledger(lambda ledger: ledger.history.newest(SLUG)[-1].run_id))

    def running(self) -> str:
        """Starts a run in this process that does nothing."""
        plan = a_plan(job=read_job_file(self.workspace, SLUG).job)
        return str(self.ledger(lambda ledger: ledger.start(plan, datetime.now(UTC)).run_id))

    def cli(self, *words: str, given: int = 0) -> None:
        """Runs a command; raises the error's text if it refuses."""
        done = run_command(*words, "--json", "--workspace", self.folder, env=environment(), cwd=ROOT)
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
def place(demo, tmp_path, monkeypatch) -> Place:
    folder = tmp_path / "demo"
    shutil.copytree(demo, folder)
    monkeypatch.setenv("PSTT_WORKSPACE", str(folder))
    made = Place(folder, monkeypatch)
    made.as_visitor()
    yield made
    data.clear_caches()


def request_of(place: Place) -> tuple[str, str, str]:
    newest = place.ledger(lambda ledger: ledger.requests.newest(1)[0])
    return newest.kind, newest.job, newest.run_id or ""


def enabled(place: Place) -> bool:
    return read_job_file(place.workspace, SLUG).job.enabled


def planned(place: Place) -> int:
    now = datetime.now(UTC)
    return len(place.ledger(lambda ledger: ledger.scheduled_runs.between(now - timedelta(days=9), now, SLUG)))


def sends(place: Place) -> int:
    return len(list((place.folder / ".pstt" / "spool").rglob("*.parquet")))


def etag(place: Place) -> dict[str, str]:
    return {"If-Match": f'"{read_job_file(place.workspace, SLUG).sha256}"'}


def save(place: Place, **more: Any) -> dict[str, Any]:
    return {**json.loads(read_job_file(place.workspace, SLUG).text), **more}


def revise(place: Place) -> None:
    from dataclasses import replace

    file = read_job_file(place.workspace, SLUG)
    changes.save_job(replace(file.job, name="Another name"), file.sha256)


def make(place: Place) -> None:
    changes.duplicate_job(SLUG, "copy", "Copy")


def save_sql(place: Place, name: str = QUERY) -> None:
    stored = read_stored(place.workspace.query_file(name))
    changes.save_query(name, stored.content + b"\n", CONNECTION, stored.sha256)


def save_connections(place: Place) -> None:
    stored = read_stored(place.workspace.connections_file)
    changes.save_connections(json.loads(stored.text), "connection A00", stored.sha256)


def save_alerts(place: Place) -> None:
    stored = read_stored(place.workspace.alerts_file)
    changes.save_alerts({"rules": {}}, stored.sha256)


def add_user(place: Place) -> None:
    with Accounts(place.workspace.ledger_file) as accounts:
        accounts.add_user("anna", "viewer", None, by=changes.caller("accounts"), now=datetime.now(UTC), email="a@b.it")


@dataclass(frozen=True)
class Case:
    """One action over its fronts."""

    action: Action
    audited: tuple[str, str]
    """Verb and object; `{run}` is the run of the demo, `{running}` one that runs."""
    effect: Callable[[Place], Any]
    cli: Callable[[Place, str], Any] | None = None
    rest: Callable[[Place, str], Any] | None = None
    page: Callable[[Place, str], Any] | None = None


CASES = [
    Case("run", ("run", f"job {SLUG}"), request_of,
         cli=lambda p, _: p.cli("run", SLUG, "--by-runner", "--again"),
         rest=lambda p, _: p.rest("POST", f"{JOBS}/{SLUG}/run", {"again": True}),
         page=lambda p, _: changes.run(SLUG, again=True)),
    Case("dry_run", ("dry_run", f"job {SLUG}"), request_of,
         cli=lambda p, _: p.cli("run", SLUG, "--by-runner", "--dry-run"),
         rest=lambda p, _: p.rest("POST", f"{JOBS}/{SLUG}/run", {"dry_run": True}),
         page=lambda p, _: changes.run(SLUG, dry_run=True)),
    Case("replay", ("replay", "run {run}"), lambda p: None,
         cli=lambda p, run: p.cli("replay", run, given=4),
         page=lambda p, run: changes.replay(run, rejects_only=False, to="run")),
    Case("backfill", ("backfill", f"job {SLUG}"), planned,
         cli=lambda p, _: p.cli("backfill", SLUG, "--from", str(YESTERDAY), "--to", str(YESTERDAY), "--again"),
         page=lambda p, _: changes.backfill(SLUG, YESTERDAY, YESTERDAY, again=True)),
    Case("cancel", ("cancel", "run {running}"), lambda p: None,
         cli=lambda p, run: p.cli("cancel", run),
         page=lambda p, run: changes.cancel(run)),
    Case("disable", ("disable", f"job {SLUG}"), enabled,
         cli=lambda p, _: p.cli("disable", SLUG),
         rest=lambda p, _: p.rest("POST", f"{JOBS}/{SLUG}/disable"),
         page=lambda p, _: changes.switch_job(SLUG, enabled=False)),
    Case("send", ("send", "topic by-hand"), sends,
         cli=lambda p, _: p.cli("send", "by-hand", "k", "v"),
         rest=lambda p, _: p.rest("POST", "/api/kafka/send", {"topic": "by-hand", "key": "k", "value": "v"}),
         page=lambda p, _: changes.send(None, "by-hand", "k", "v")),
    Case("test", ("test", "cluster Kafka Collaudo (mock)"), lambda p: None,
         rest=lambda p, _: p.rest("POST", "/api/kafka/test", {}),
         page=lambda p, _: changes.test_cluster(None)),
    Case("create", ("create", "job copy"), lambda p: read_job_file(p.workspace, "copy").job.name,
         rest=lambda p, _: p.rest("POST", f"{JOBS}?id=copy", save(p, name="Copy")),
         page=lambda p, _: make(p)),
    Case("change", ("change", f"job {SLUG}"), lambda p: read_job_file(p.workspace, SLUG).job.name,
         rest=lambda p, _: p.rest("PUT", f"{JOBS}/{SLUG}", save(p, name="Another name"), etag(p)),
         page=lambda p, _: revise(p)),
    Case("delete", ("delete", f"job {SLUG}"), lambda p: (p.folder / "queries" / f"{SLUG}.job.json").exists(),
         rest=lambda p, _: p.rest("DELETE", f"{JOBS}/{SLUG}", headers=etag(p)),
         page=lambda p, _: changes.delete_job(SLUG, read_job_file(p.workspace, SLUG).sha256)),
    Case("save", ("save", f"query {QUERY}"), lambda p: None, page=lambda p, _: save_sql(p)),
    Case("connections", ("change", "connection A00"), lambda p: None, page=lambda p, _: save_connections(p)),
    Case("alerts", ("change", "alert rules"), lambda p: None, page=lambda p, _: save_alerts(p)),
    Case("secret", ("store", "secret file:secrets/x"), lambda p: (p.folder / "secrets" / "x").exists(),
         page=lambda p, _: changes.store_secret("file:secrets/x", "value")),
    Case("rebuild", ("rebuild", "metrics.duckdb"), lambda p: (p.folder / "metrics.duckdb").exists(),
         cli=lambda p, _: p.cli("metrics", "rebuild"), page=lambda p, _: changes.rebuild_metrics()),
    Case("accounts", ("add", "user anna"), lambda p: None,
         cli=lambda p, _: p.cli("user", "add", "anna", "--no-password", "--email", "a@b.it"),
         page=lambda p, _: add_user(p)),
]  # fmt: skip
FRONTS = [(case, front) for case in CASES for front in ("cli", "rest", "page") if getattr(case, front)]
names = [f"{case.action}-{front}" for case, front in FRONTS]


def subject(place: Place, case: Case) -> str:
    return place.running() if case.action == "cancel" else place.run_id


def new_lines(place: Place, before: int) -> list[tuple[str, str, str]]:
    """Returns the audit lines of the action, without those of the rig's own token."""
    lines = [(entry.who, entry.action, entry.object) for entry in audit(place.folder)]
    return [line for line in lines[: len(lines) - before] if line[0] != "test"]


@pytest.mark.parametrize(("case", "front"), FRONTS, ids=names)
def test_an_action_writes_one_audit_line_that_names_who_did_it(place, case, front):
    place.role = "admin"
    place.as_visitor()
    run, before = subject(place, case), len(audit(place.folder))
    getattr(case, front)(place, run)
    who = {"cli": local_caller().name, "rest": "token admin", "page": "maria"}[front]
    verb, object_ = case.audited
    assert new_lines(place, before) == [(who, verb, object_.format(run=run, running=run))]


@pytest.mark.parametrize("case", CASES, ids=[case.action for case in CASES])
def test_an_action_has_the_same_effect_over_every_front(demo, tmp_path, monkeypatch, case):
    effects = []
    for front in ("cli", "rest", "page"):
        if (act := getattr(case, front)) is None:
            continue
        folder = tmp_path / front
        shutil.copytree(demo, folder)
        monkeypatch.setenv("PSTT_WORKSPACE", str(folder))
        place = Place(folder, monkeypatch, role="admin")
        place.as_visitor()
        act(place, subject(place, case))
        effects.append(case.effect(place))
    assert effects == effects[:1] * len(effects)


def without_right(action: Action, holders: dict[Any, frozenset[str]]) -> Any:
    """The one with the most rights that still lacks the needed one."""
    lacking = [name for name, rights in holders.items() if RIGHT_OF[action] not in rights]
    return max(lacking, key=lambda name: len(holders[name]))


@pytest.mark.parametrize(("case", "front"), [pair for pair in FRONTS if pair[1] != "cli"], ids=[
    name for name in names if not name.endswith("-cli")])  # fmt: skip
def test_a_caller_without_the_right_is_refused_and_nothing_is_audited(place, case, front):
    run = subject(place, case)
    place.scope = without_right(case.action, dict(RIGHTS_OF_SCOPE)) if front == "rest" else "admin"
    place.role = without_right(case.action, {role: caller("x", role).rights for role in get_args(Role)})
    place.as_visitor()
    before = len(audit(place.folder))
    with pytest.raises(AccessRefused):
        getattr(case, front)(place, run)
    assert new_lines(place, before) == []


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
    "a range that is still to come": (
        lambda p: p.cli("backfill", SLUG, "--from", str(TOMORROW), "--to", str(TOMORROW)),
        lambda p: changes.backfill(SLUG, TOMORROW, TOMORROW, again=False),
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_done_is_refused_with_the_same_words_and_not_audited(place, wrong):
    place.role = "admin"
    place.as_visitor()
    before, texts = len(audit(place.folder)), set()
    for act in WRONG[wrong]:
        with pytest.raises((PsttError, AlreadySent)) as caught:
            act(place)
        texts.add(caught.value.text)
    assert len(texts) == 1, texts
    assert new_lines(place, before) == []


def test_every_action_has_a_right_and_is_walked():
    assert set(RIGHT_OF) == set(get_args(Action))
    elsewhere = {
        "enable",  # as disable
        "preview",  # only reads
        "stop",  # tests/acceptance/test_runner.py
        "accept-columns",  # tests/acceptance/test_drift_and_rows.py: a command only
        "test mail",  # tests/integration/test_mail.py
    }
    assert {case.action for case in CASES} | elsewhere == set(RIGHT_OF)
