"""Versions are listed with who and when, compared, and restored by the function with which the page saves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.admin.edit_files import save_connections, save_query
from core.admin.edit_jobs import NewerEdit, delete_job, replace_job
from core.admin.edit_queries import delete_query
from core.admin.versions import NoSuchVersion, difference, restore_version, version_text, versions_of
from core.app import App
from core.cli.main import app as command_line
from core.errors import AccessRefused, ConfigError
from core.sources import find_dialect
from core.workspace.jobs import NoSuchJob, read_job_file
from core.workspace.stored_file import read_stored
from tests.rigs.callers import caller

NOW = datetime(2026, 1, 17, 10, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ANNA, VERA, BRUNO = caller("anna"), caller("vera", "viewer"), caller("bruno", "operator")
SQL = b"SELECT 1 AS n -- \xc3\xa0\r\n"
DATABASE = {"name": "db", "db_type": "sqlite", "database": "data.sqlite"}
SECRET = "s3cret-in-the-file"


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[App]:
    (tmp_path / "queries").mkdir()
    (tmp_path / "queries" / "a.sql").write_bytes(SQL)
    job = {"name": "A", "query": "a.sql", "connection": "db", "export_format": "csv"}
    (tmp_path / "queries" / "a.job.json").write_text(json.dumps(job), encoding="utf-8")
    (tmp_path / "connections.json").write_text(json.dumps({"connections": [DATABASE]}), encoding="utf-8")
    with App.open(tmp_path, {}, log=False) as app:
        yield app


def written(opened: App) -> list[tuple[str, str, str]]:
    return [(entry.who, entry.action, entry.object) for entry in opened.ledger.audit.entries()]


def save_sql(opened: App, content: bytes, at: datetime) -> None:
    stored = read_stored(opened.workspace.query_file("a.sql"))
    save_query(
        opened.workspace, opened.ledger, "a.sql", content, dialect=find_dialect("sqlite"), allow_writes=False,
        seen_sha256=stored.sha256, caller=ANNA, now=at,
    )  # fmt: skip


def rename_job(opened: App, name: str, at: datetime) -> None:
    job = read_job_file(opened.workspace, "a").job
    replaced = type(job)(**{**{field: getattr(job, field) for field in job.__dataclass_fields__}, "name": name})
    replace_job(opened.workspace, opened.ledger, replaced, seen_sha256=None, caller=ANNA, now=at)


def test_a_query_is_listed_compared_and_restored_byte_for_byte(opened: App) -> None:
    save_sql(opened, b"SELECT 2 AS n", NOW)
    newest, first = versions_of(opened, "query", "a.sql")
    assert [(one.saved_by, one.added, one.removed) for one in (newest, first)] == [("anna", 1, 1), ("", 1, 0)]
    assert version_text(opened, "query", "a.sql", first.number)[1] == SQL
    assert list(difference(opened, "query", "a.sql", first.number, None))[2:] == [
        "@@ -1 +1 @@", "-SELECT 1 AS n -- à", "+SELECT 2 AS n",
    ]  # fmt: skip
    assert list(difference(opened, "query", "a.sql", newest.number, None)) == []
    before = len(written(opened))
    given = {"seen_sha256": None, "now": NOW + MINUTE}
    restore_version(opened, "query", "a.sql", first.number, caller=BRUNO, **given)
    assert opened.workspace.query_file("a.sql").read_bytes() == SQL
    assert written(opened)[: len(written(opened)) - before] == [("bruno", "save", "query a.sql")]
    assert [one.saved_by for one in versions_of(opened, "query", "a.sql")] == ["bruno", "anna", ""]


def test_a_query_that_no_job_reads_is_checked_as_sql_of_the_named_connection(opened: App) -> None:
    save_sql(opened, b"SELECT 2 AS n", NOW)
    more = {"connections": [DATABASE, DATABASE | {"name": "other"}]}
    opened.workspace.connections_file.write_text(json.dumps(more), encoding="utf-8")
    (opened.workspace.queries_dir / "a.job.json").unlink()
    number = versions_of(opened, "query", "a.sql")[-1].number
    given = {"seen_sha256": None, "caller": ANNA, "now": NOW}
    with App.open(opened.workspace.root, {}, log=False) as again:
        with pytest.raises(ConfigError, match="as SQL of which database"):
            restore_version(again, "query", "a.sql", number, **given)
        restore_version(again, "query", "a.sql", number, connection="other", **given)
    assert opened.workspace.query_file("a.sql").read_bytes() == SQL


def test_a_job_keeps_its_numbers_and_a_newer_edit_is_not_overwritten(opened: App) -> None:
    for n in range(2):
        rename_job(opened, f"A{n}", NOW + n * MINUTE)
    assert [one.number for one in versions_of(opened, "job", "a")] == [3, 2, 1]
    seen = read_job_file(opened.workspace, "a").sha256
    rename_job(opened, "B", NOW + 3 * MINUTE)
    with pytest.raises(NewerEdit):
        restore_version(opened, "job", "a", 2, seen_sha256=seen, caller=ANNA, now=NOW + 4 * MINUTE)
    restore_version(opened, "job", "a", 2, seen_sha256=None, caller=ANNA, now=NOW + 4 * MINUTE)
    assert read_job_file(opened.workspace, "a").job.name == "A0"
    assert written(opened)[0] == ("anna", "change", "job a")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("is_deleted", [False, True])
def test_a_job_is_restored_byte_for_byte(opened: App, mark: bytes, is_deleted: bool) -> None:
    file = opened.workspace.queries_dir / "a.job.json"
    written = mark + file.read_bytes().replace(b"{", b'{\r\n\t"enabled" : true,  ', 1)
    file.write_bytes(written)
    rename_job(opened, "A2", NOW)
    assert version_text(opened, "job", "a", 1)[1] == written
    assert versions_of(opened, "job", "a")[-1].size_bytes == len(written)
    given = {"seen_sha256": None, "caller": ANNA}
    if is_deleted:
        delete_job(opened.workspace, opened.ledger, "a", now=NOW + MINUTE, **given)
    restore_version(opened, "job", "a", 1, now=NOW + 2 * MINUTE, **given)
    assert file.read_bytes() == written
    assert opened.ledger.job_versions.get("a").sha256 == opened.ledger.job_versions.of_job("a")[-1].sha256


def test_deleted_files_come_back_in_the_version_that_is_asked_for(opened: App) -> None:
    save_sql(opened, b"SELECT 2 AS n", NOW)
    rename_job(opened, "A2", NOW)
    given = {"seen_sha256": None, "caller": ANNA, "now": NOW + MINUTE}
    delete_job(opened.workspace, opened.ledger, "a", **given)
    delete_query(opened.workspace, opened.ledger, "a.sql", even_if_used=True, **given)
    assert all(line.startswith(("---", "+++", "@@", "-")) for line in difference(opened, "job", "a", 1, None))
    restore_version(opened, "query", "a.sql", versions_of(opened, "query", "a.sql")[-1].number, **given)
    restore_version(opened, "job", "a", 1, **given)
    assert opened.workspace.query_file("a.sql").read_bytes() == SQL
    assert read_job_file(opened.workspace, "a").job.name == "A"
    assert {line[1] for line in written(opened)[:2]} == {"restore"}


def test_connections_come_back_with_the_passwords_of_now_and_are_shown_without(opened: App) -> None:
    one = {**DATABASE, "db_type": "postgresql", "host": "h", "username": "u", "password": SECRET}
    for n, database in enumerate((one, one | {"host": "h2"})):
        save_connections(
            opened.workspace, opened.ledger, {"connections": [database]}, {}, about="connection db",
            seen_sha256=read_stored(opened.workspace.connections_file).sha256, caller=ANNA, now=NOW + n * MINUTE,
        )  # fmt: skip
    texts = "\n".join(difference(opened, "connections", "", 2, None))
    assert '-      "host": "h",' in texts
    assert SECRET not in texts + version_text(opened, "connections", "", 3)[1].decode()
    given = {"seen_sha256": None, "now": NOW + 3 * MINUTE}
    with pytest.raises(AccessRefused):
        restore_version(opened, "connections", "", 2, caller=BRUNO, **given)
    assert restore_version(opened, "connections", "", 2, caller=ANNA, **given) == []
    (restored,) = json.loads(opened.workspace.connections_file.read_text(encoding="utf-8"))["connections"]
    assert (restored["host"], restored["password"]) == ("h", SECRET)


def test_what_is_not_there_and_who_may_not_is_refused(opened: App) -> None:
    assert versions_of(opened, "job", "a") == []
    with pytest.raises(NoSuchJob):
        versions_of(opened, "job", "nothing")
    rename_job(opened, "B", NOW)
    with pytest.raises(NoSuchVersion, match="has no version 9"):
        version_text(opened, "job", "a", 9)
    with pytest.raises(AccessRefused):
        restore_version(opened, "job", "a", 1, seen_sha256=None, caller=VERA, now=NOW)


def test_the_commands_list_print_compare_and_restore(opened: App) -> None:
    save_sql(opened, b"SELECT 2 AS n", NOW)
    first = versions_of(opened, "query", "a.sql")[-1].number

    def run(*words: object) -> str:
        given = ["versions", *map(str, words), "--workspace", str(opened.workspace.root)]
        done = CliRunner().invoke(command_line, given, catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    newest, oldest = run("query", "a.sql").splitlines()
    assert ("anna" in newest, "found on disk" in oldest, "+1 −1 lines" in newest) == (True, True, True)
    assert run("query", "a.sql", "--show", first).encode() == SQL.replace(b"\r\n", b"\n")  # as CliRunner reads it
    assert "+SELECT 2 AS n" in run("query", "a.sql", "--diff", first, first + 1)
    assert json.loads(run("query", "a.sql", "--restore", first, "--json"))["missing_passwords"] == []
    assert opened.workspace.query_file("a.sql").read_bytes() == SQL
    with pytest.raises(ConfigError, match="goes with --diff"):
        run("query", "a.sql", first)
    with pytest.raises(ConfigError, match="do not go together"):
        run("connections", "--show", 1, "--restore", 1)
