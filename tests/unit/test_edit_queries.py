"""SQL files are renamed with their jobs, wholly or not at all, deleted and brought back; versions keep their times."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.admin import edit_queries
from core.admin.deleted import NothingDeleted, deleted, restore_entry, restore_job, restore_query
from core.admin.edit_files import save_connections, save_query
from core.admin.edit_jobs import BEFORE, NameTaken, NewerEdit, create_job, delete_job, replace_job
from core.admin.edit_queries import (
    NoSuchQuery,
    QueryInUse,
    delete_query,
    finish_rename,
    query_names,
    query_versions,
    rename_query,
)
from core.admin.uses import uses_of_query
from core.errors import AccessRefused, ConfigError, StorageFailed
from core.model.job import Job
from core.records import query_versions as versions_module
from core.records.drafts import KEPT_DAYS, LARGEST_DRAFT_BYTES, Draft, Drafts
from core.records.edits_file import EditsFile
from core.records.ledger import Ledger
from core.records.rights import Caller
from core.sources import find_dialect
from core.workspace.jobs import load_job, read_job_file
from core.workspace.paths import Workspace
from core.workspace.stored_file import read_stored
from tests.rigs.callers import caller

NOW = datetime(2026, 1, 17, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ANNA, BRUNO, VERA = caller("anna"), caller("bruno", "operator"), caller("vera", "viewer")
SQL = b"SELECT 1 AS n -- \xc3\xa0\r\n"
CONNECTIONS = {
    "connections": [
        {"name": "db", "db_type": "sqlite", "database": "data.sqlite"},
        {"name": "pg", "db_type": "postgresql", "host": "db", "database": "x", "username": "u", "password": "s3cret"},
    ],
    "kafka_connections": {
        "test": {"bootstrap_servers": "a:9092"},
        "prod": {"name": "Prod", "bootstrap_servers": "b:9"},
    },
}
A_JOB = """{
  "name": "A", "query" :  "old.sql",   "connection": "db",
  "headers": {"query": "old.sql"}
}
"""


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    workspace = Workspace(tmp_path)
    workspace.queries_dir.mkdir()
    (workspace.queries_dir / "old.sql").write_bytes(SQL)
    (workspace.queries_dir / "a.job.json").write_bytes(A_JOB.encode())
    (workspace.queries_dir / "b.job.json").write_text(
        json.dumps({"name": "B", "query": "./old.sql", "connection": "db"})
    )
    (workspace.queries_dir / "c.job.json").write_text(json.dumps({"name": "C", "query": "c.sql", "connection": "db"}))
    workspace.connections_file.write_text(json.dumps(CONNECTIONS), encoding="utf-8")
    return workspace


@pytest.fixture
def ledger(place: Workspace) -> Iterator[Ledger]:
    with Ledger(place.ledger_file) as opened:
        yield opened


def files(place: Workspace) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.queries_dir.iterdir()}


def rename(
    place: Workspace, ledger: Ledger, new: str = "new.sql", by: Caller = BRUNO, seen: str | None = None
) -> list[str]:
    return rename_query(place, ledger, "old.sql", new, seen_sha256=seen, caller=by, now=NOW)


def save(place: Workspace, ledger: Ledger, content: bytes, at: datetime, by: Caller = BRUNO) -> None:
    seen = read_stored(place.query_file("old.sql")).sha256
    save_query(
        place, ledger, "old.sql", content,
        dialect=find_dialect("sqlite"), allow_writes=False, seen_sha256=seen, caller=by, now=at,
    )  # fmt: skip


def remove(place: Workspace, ledger: Ledger, *, at: datetime = NOW, by: Caller = BRUNO, used: bool = True) -> None:
    delete_query(place, ledger, "old.sql", seen_sha256=None, even_if_used=used, caller=by, now=at)


# ── rename ────────────────────────────────────────────────────────────────────────────────────


def test_a_renamed_query_takes_its_jobs_along_and_no_other_character_changes(place: Workspace, ledger: Ledger) -> None:
    before = files(place)
    assert rename(place, ledger) == ["a", "b"]
    after = files(place)
    assert after["new.sql"] == SQL
    assert "old.sql" not in after
    assert after["a.job.json"] == before["a.job.json"].replace(b'"query" :  "old.sql"', b'"query" :  "new.sql"')
    assert json.loads(after["b.job.json"])["query"] == "new.sql"
    assert after["c.job.json"] == before["c.job.json"]
    (entry,) = ledger.audit.entries()
    assert (entry.who, entry.action, entry.object) == ("bruno", "rename query", "query old.sql")
    assert entry.after == {"name": "new.sql", "jobs": ["a", "b"]}
    newest, first = ledger.job_versions.of_job("a")
    assert (newest.document, newest.saved_by) == (after["a.job.json"].decode(), "bruno")
    assert first.document == A_JOB


def test_versions_of_a_renamed_query_go_with_it(place: Workspace, ledger: Ledger) -> None:
    save(place, ledger, b"SELECT 2 AS n", NOW - MINUTE)
    rename(place, ledger)
    with query_versions(place) as versions:
        assert [versions.content("new.sql", v.version_id) for v in versions.of_query("new.sql")] == [
            b"SELECT 2 AS n",
            SQL,
        ]
        assert versions.of_query("old.sql") == []


@pytest.mark.parametrize("steps", range(1, 5))
def test_a_rename_that_fails_at_any_step_changes_nothing(
    place: Workspace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    before = files(place)
    done = _failing_after(monkeypatch, steps, StorageFailed("the disk is full"), undo_works=True)
    with pytest.raises(StorageFailed, match="the disk is full"):
        rename(place, ledger)
    assert done[0] >= steps
    assert files(place) == before
    assert ledger.audit.entries() == []
    monkeypatch.undo()
    finish_rename(place, ledger)
    assert files(place) == before


@pytest.mark.parametrize("steps", range(1, 6))
def test_a_rename_that_a_crash_interrupts_is_completed_and_every_job_runs_meanwhile(
    place: Workspace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    _failing_after(monkeypatch, steps, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        rename(place, ledger)
    monkeypatch.undo()
    for slug in "ab":
        query = load_job(place.queries_dir / f"{slug}.job.json").query
        assert place.query_file(query).read_bytes() == SQL
    finish_rename(place, ledger)
    finish_rename(place, ledger)
    found = files(place)
    if steps == 1:  # it was not written down yet
        assert "new.sql" not in found
        return
    assert sorted(found) == ["a.job.json", "b.job.json", "c.job.json", "new.sql"]
    assert {load_job(place.queries_dir / f"{slug}.job.json").query for slug in "ab"} == {"new.sql"}
    assert [entry.who for entry in ledger.audit.entries()] == ["bruno"]


def _failing_after(
    monkeypatch: pytest.MonkeyPatch, steps: int, error: BaseException, *, undo_works: bool = False
) -> list[int]:
    """Lets the n-th write or removal of a rename raise; with `undo_works` only that one, else also all that follow."""
    done = [0]

    def wrap(name: str) -> None:
        real = getattr(edit_queries, name)

        def step(*args: object) -> None:
            done[0] += 1
            if done[0] == steps or (done[0] > steps and not undo_works):
                raise error
            real(*args)

        monkeypatch.setattr(edit_queries, name, step)

    wrap("write_atomically")
    wrap("_remove")
    return done


def test_an_edit_made_after_a_crash_is_not_lost_when_the_rename_is_completed(
    place: Workspace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    _failing_after(monkeypatch, 4, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        rename(place, ledger)
    monkeypatch.undo()
    place.query_file("new.sql").write_bytes(b"SELECT 3")
    finish_rename(place, ledger)
    assert place.query_file("new.sql").read_bytes() == b"SELECT 3"


@pytest.mark.parametrize(
    ("new", "error"),
    [
        ("OLD.sql", NameTaken),
        ("c.sql", NameTaken),
        ("new.txt", ConfigError),
        ("../new.sql", ConfigError),
        ("x/../new.sql", ConfigError),
        ("./new.sql", ConfigError),
        ("", ConfigError),
        ("a\0.sql", ConfigError),
    ],
)
def test_a_name_that_is_taken_or_wrong_is_refused(
    place: Workspace, ledger: Ledger, new: str, error: type[Exception]
) -> None:
    place.query_file("c.sql").write_bytes(SQL)
    before = files(place)
    with pytest.raises(error):
        rename(place, ledger, new)
    assert files(place) == before


def test_a_query_moves_into_a_folder(place: Workspace, ledger: Ledger) -> None:
    rename(place, ledger, "billing/new.sql")
    assert query_names(place) == ["billing/new.sql"]
    assert read_job_file(place, "a").job.query == "billing/new.sql"


def test_a_rename_is_refused_where_a_broken_job_file_may_use_the_query(place: Workspace, ledger: Ledger) -> None:
    (place.queries_dir / "broken.job.json").write_text('{"query": "old.sql"', encoding="utf-8")
    before = files(place)
    with pytest.raises(ConfigError, match=r"broken\.job\.json has the name old\.sql in it"):
        rename(place, ledger)
    assert files(place) == before


def test_rename_and_delete_need_the_right_and_the_version_that_was_read(place: Workspace, ledger: Ledger) -> None:
    before = files(place)
    with pytest.raises(AccessRefused):
        rename(place, ledger, by=VERA)
    with pytest.raises(AccessRefused):
        remove(place, ledger, by=VERA)
    with pytest.raises(NewerEdit):
        rename(place, ledger, seen="0" * 64)
    with pytest.raises(NewerEdit):
        delete_query(place, ledger, "old.sql", seen_sha256="0" * 64, even_if_used=True, caller=ANNA, now=NOW)
    with pytest.raises(NoSuchQuery):
        delete_query(place, ledger, "../connections.json", seen_sha256=None, even_if_used=True, caller=ANNA, now=NOW)
    assert files(place) == before


# ── delete and bring back ─────────────────────────────────────────────────────────────────────


def test_a_query_that_jobs_read_is_deleted_only_if_that_is_meant_and_comes_back(
    place: Workspace, ledger: Ledger
) -> None:
    with pytest.raises(QueryInUse, match="a, b"):
        remove(place, ledger, used=False)
    remove(place, ledger)
    assert query_names(place) == []
    (gone,) = deleted(place, ledger)
    assert (gone.kind, gone.name, gone.deleted_at, gone.deleted_by) == ("query", "old.sql", NOW, "bruno")
    restore_query(place, ledger, "old.sql", caller=ANNA, now=NOW + MINUTE)
    assert place.query_file("old.sql").read_bytes() == SQL
    assert deleted(place, ledger) == []
    assert [entry.action for entry in ledger.audit.entries()] == ["restore", "delete query"]
    with pytest.raises(NameTaken):
        restore_query(place, ledger, "old.sql", caller=ANNA, now=NOW)
    with pytest.raises(NothingDeleted):
        restore_query(place, ledger, "never.sql", caller=ANNA, now=NOW)


def test_a_query_deleted_in_the_file_manager_comes_back_too(place: Workspace, ledger: Ledger) -> None:
    save(place, ledger, b"SELECT 2", NOW)
    place.query_file("old.sql").unlink()
    (gone,) = deleted(place, ledger)
    assert (gone.name, gone.deleted_at) == ("old.sql", None)
    restore_query(place, ledger, "old.sql", caller=BRUNO, now=NOW)
    assert place.query_file("old.sql").read_bytes() == b"SELECT 2"


def test_versions_of_a_query_keep_their_own_times(place: Workspace, ledger: Ledger) -> None:
    save(place, ledger, b"SELECT 2", NOW, ANNA)
    save(place, ledger, SQL, NOW + MINUTE, BRUNO)
    with query_versions(place) as versions:
        found = [(v.seen_at, v.saved_by, v.size_bytes) for v in versions.of_query("old.sql")]
    assert found == [(NOW + MINUTE, "bruno", len(SQL)), (NOW, "anna", 8), (NOW - BEFORE, "", len(SQL))]


def test_only_the_newest_versions_of_a_query_are_kept(
    place: Workspace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions_module, "KEPT_VERSIONS", 3)
    for number in range(6):
        save(place, ledger, b"SELECT %d" % number, NOW + number * MINUTE)
    with EditsFile(place.edits_file) as file, query_versions(place) as versions:
        kept = versions.of_query("old.sql")
        assert [versions.content("old.sql", v.version_id) for v in kept] == [b"SELECT 5", b"SELECT 4", b"SELECT 3"]
        with file.transaction() as db:
            assert db.execute("SELECT count(*) FROM query_text").fetchone()[0] == 3


def test_a_deleted_job_comes_back_as_it_was(place: Workspace, ledger: Ledger) -> None:
    delete_job(place, ledger, "a", seen_sha256=None, caller=BRUNO, now=NOW)
    (gone,) = deleted(place, ledger)
    assert (gone.kind, gone.name, gone.title, gone.deleted_at, gone.deleted_by) == ("job", "a", "A", NOW, "bruno")
    with pytest.raises(AccessRefused):
        restore_job(place, ledger, "a", caller=VERA, now=NOW)
    restore_job(place, ledger, "a", caller=ANNA, now=NOW + MINUTE)
    assert (place.queries_dir / "a.job.json").read_text(encoding="utf-8") == A_JOB
    assert deleted(place, ledger) == []
    assert [since for since, text in ledger.job_versions.history("a") if text is None] == [NOW]


def test_a_deleted_job_does_not_come_back_over_another_one(place: Workspace, ledger: Ledger) -> None:
    delete_job(place, ledger, "a", seen_sha256=None, caller=BRUNO, now=NOW)
    create_job(place, ledger, Job("other", "a", "old.sql", "db"), caller=BRUNO, now=NOW)
    with pytest.raises(NameTaken, match="is called"):
        restore_job(place, ledger, "a", caller=ANNA, now=NOW)
    with pytest.raises(NothingDeleted):
        restore_job(place, ledger, "never", caller=ANNA, now=NOW)


def test_versions_of_a_job_keep_their_own_times(place: Workspace, ledger: Ledger) -> None:
    first = read_job_file(place, "c").job
    for minute, (cron, by) in enumerate([("0 5 * * *", ANNA), ("0 6 * * *", BRUNO), ("0 5 * * *", BRUNO)]):
        job = Job(first.slug, first.name, first.query, first.connection, scheduling_mode="cron", cron=cron)
        replace_job(place, ledger, job, seen_sha256=None, caller=by, now=NOW + minute * MINUTE)
    found = [(v.seen_at, v.saved_by) for v in ledger.job_versions.of_job("c")]
    assert found == [(NOW + 2 * MINUTE, "bruno"), (NOW + MINUTE, "bruno"), (NOW, "anna"), (NOW - BEFORE, "")]


def test_deleted_connections_come_back_and_only_a_written_password_is_missing(place: Workspace, ledger: Ledger) -> None:
    without = {
        "connections": CONNECTIONS["connections"][:1],
        "kafka_connections": {"test": {"bootstrap_servers": "a:9092"}},
    }
    seen = read_stored(place.connections_file).sha256
    save_connections(place, ledger, without, {}, about="connection pg", seen_sha256=seen, caller=ANNA, now=NOW)
    found = [(one.kind, one.name, one.title, one.deleted_at, one.deleted_by) for one in deleted(place, ledger)]
    assert found == [("connection", "pg", "pg", NOW, "anna"), ("cluster", "prod", "Prod", NOW, "anna")]
    with pytest.raises(AccessRefused):
        restore_entry(place, ledger, "cluster", "prod", {}, caller=BRUNO, now=NOW)
    assert restore_entry(place, ledger, "cluster", "prod", {}, caller=ANNA, now=NOW + MINUTE)
    assert not restore_entry(place, ledger, "connection", "pg", {}, caller=ANNA, now=NOW + 2 * MINUTE)
    now = json.loads(place.connections_file.read_text(encoding="utf-8"))
    assert now["kafka_connections"] == CONNECTIONS["kafka_connections"]
    pg = {key: value for key, value in CONNECTIONS["connections"][1].items() if key != "password"}
    assert now["connections"][1] == pg
    assert deleted(place, ledger) == []
    with pytest.raises(NameTaken):
        restore_entry(place, ledger, "connection", "pg", {}, caller=ANNA, now=NOW)
    with pytest.raises(NothingDeleted):
        restore_entry(place, ledger, "connection", "never", {}, caller=ANNA, now=NOW)


def test_uses_are_the_jobs_and_what_waits_for_them(place: Workspace, ledger: Ledger) -> None:
    for job in ("a", "c"):
        ledger.requests.submit("run", asked_by="anna", now=NOW, job=job)
    ledger.scheduled_runs.plan_requested("b", [NOW], kind="request", asked_by="anna", now=NOW)
    uses = uses_of_query(place, ledger, "old.sql")
    assert ([job.slug for job in uses.jobs], uses.waiting_runs, uses.running) == (["a", "b"], 2, 0)


# ── drafts ────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def drafts(place: Workspace) -> Iterator[Drafts]:
    with EditsFile(place.edits_file) as file:
        yield Drafts(file)


def test_each_user_has_one_draft_of_a_form_and_its_time_is_that_of_its_last_change(drafts: Drafts) -> None:
    drafts.save(Draft("anna", "job", "a", "s1", "{}", NOW))
    drafts.save(Draft("anna", "job", "a", "s1", "{}", NOW + MINUTE))
    drafts.save(Draft("bruno", "job", "a", "s1", '{"b": 1}', NOW))
    mine = drafts.get("anna", "job", "a", NOW + MINUTE)
    assert mine is not None
    assert (mine.document, mine.saved_at) == ("{}", NOW)
    drafts.drop("anna", "job", "a")
    assert drafts.get("anna", "job", "a", NOW) is None
    assert [draft.document for draft in drafts.of_user("bruno", NOW)] == ['{"b": 1}']


def test_drafts_end_with_their_age_their_number_and_their_size(drafts: Drafts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.records.drafts.KEPT_DRAFTS", 2)
    drafts.save(Draft("bruno", "query", "old", "", "x", NOW - timedelta(days=KEPT_DAYS, minutes=1)))
    assert drafts.of_user("bruno", NOW) == []
    for number in range(4):
        drafts.save(Draft("anna", "query", f"{number}", "", "x", NOW + number * MINUTE))
    assert [draft.name for draft in drafts.of_user("anna", NOW)] == ["3", "2"]
    assert not drafts.save(Draft("anna", "query", "3", "", "x" * (LARGEST_DRAFT_BYTES + 1), NOW + 9 * MINUTE))
    kept = drafts.get("anna", "query", "3", NOW)
    assert kept is not None
    assert kept.document == "x"
    with EditsFile(drafts._file.file) as file:
        assert file.rows("drafts", {"user": "bruno", "since": ""}) == []


def test_on_a_disk_that_cannot_be_written_versions_are_read_and_no_draft_is_taken(
    place: Workspace, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(place, ledger, b"SELECT 2", NOW)
    full = sqlite3.OperationalError("unable to open database file")
    monkeypatch.setattr(EditsFile, "_prepare", lambda file: (_ for _ in ()).throw(full))
    with query_versions(place) as versions:
        assert [version.size_bytes for version in versions.of_query("old.sql")] == [8, len(SQL)]
    with EditsFile(place.edits_file) as file, pytest.raises(StorageFailed):
        Drafts(file).save(Draft("anna", "job", "a", "", "{}", NOW))
    with EditsFile(place.root / "none.sqlite") as file:
        assert Drafts(file).of_user("anna", NOW) == []
        with pytest.raises(StorageFailed):
            Drafts(file).save(Draft("anna", "job", "a", "", "{}", NOW))
