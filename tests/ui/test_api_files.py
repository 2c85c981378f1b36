"""SQL files, their versions and deleted things over REST."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.admin.demo import SLUG, make_demo
from core.workspace.jobs import read_job_file
from core.workspace.paths import Workspace
from tests.ui.rest import bearer, client, token

QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"
CONNECTION = "A00-CDG-Collaudo"
FILE = "/api/files/query"
ANY = {"If-Match": "*"}


@pytest.fixture(scope="module")
def _demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files") / "demo"
    make_demo(folder, 20, now=datetime.now(UTC))
    return folder


@pytest.fixture
def folder(_demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(_demo, tmp_path / "demo")
    monkeypatch.setenv("PSTT_WORKSPACE", str(tmp_path / "demo"))
    return tmp_path / "demo"


@pytest.fixture
def asked(folder: Path) -> Iterator:  # type: ignore[type-arg]
    with client() as made:
        yield made


def body(sql: str, connection: str = CONNECTION) -> dict[str, str]:
    return {"sql": sql, "connection": connection}


def test_an_sql_file_is_made_read_changed_and_has_versions(asked, folder):
    made = asked.put(FILE, params={"name": "x/new.sql"}, json=body("SELECT 1 AS n"), headers={"If-None-Match": "*"})
    assert (made.status_code, made.headers["ETag"]) == (200, made.json()["etag"])
    read = asked.get(FILE, params={"name": "x/new.sql"})
    assert (read.json()["sql"], read.json()["jobs"], read.headers["ETag"]) == (
        "SELECT 1 AS n",
        [],
        made.headers["ETag"],
    )
    changed = asked.put(
        FILE, params={"name": "x/new.sql"}, json=body("SELECT 2 AS n"), headers={"If-Match": made.headers["ETag"]}
    )
    assert changed.status_code == 200
    late = asked.put(
        FILE, params={"name": "x/new.sql"}, json=body("SELECT 3 AS n"), headers={"If-Match": made.headers["ETag"]}
    )
    assert late.status_code == 412
    assert (folder / "queries" / "x" / "new.sql").read_text(encoding="utf-8") == "SELECT 2 AS n"
    assert len(asked.get(f"{FILE}/versions", params={"name": "x/new.sql"}).json()["items"]) == 2
    assert [one["name"] for one in asked.get("/api/files/queries").json()["items"]] == [QUERY, "x/new.sql"]


@pytest.mark.parametrize(
    ("name", "sql", "headers", "status"),
    [
        (QUERY, "DELETE FROM t", ANY, 422),
        (QUERY, "SELECT '&MISSING' AS n", ANY, 422),
        (QUERY, "SELECT 1 AS n", {}, 428),
        (QUERY, "SELECT 1 AS n", {"If-None-Match": "*"}, 412),
        ("none.sql", "SELECT 1 AS n", ANY, 404),
        ("../out.sql", "SELECT 1 AS n", {"If-None-Match": "*"}, 422),
        ("x/../out.sql", "SELECT 1 AS n", {"If-None-Match": "*"}, 422),
        ("out.txt", "SELECT 1 AS n", {"If-None-Match": "*"}, 422),
    ],
)
def test_what_cannot_be_saved_is_refused(asked, folder, name, sql, headers, status):
    before = (folder / "queries" / QUERY).read_bytes()
    assert asked.put(FILE, params={"name": name}, json=body(sql), headers=headers).status_code == status
    assert (folder / "queries" / QUERY).read_bytes() == before
    assert not list(folder.rglob("out.*"))


def test_a_large_sql_file_is_taken_and_a_larger_one_is_not(asked, folder):
    padding = "-- " + "x" * 996 + "\n"
    for lines, status in ((4_990, 200), (5_010, 422)):
        sql = "SELECT 1 AS n\n" + padding * lines
        assert asked.put(FILE, params={"name": QUERY}, json=body(sql), headers=ANY).status_code == status


def test_a_query_that_a_job_reads_is_renamed_with_it_and_deleted_only_if_that_is_meant(asked, folder):
    renamed = asked.post(f"{FILE}/rename", params={"name": QUERY}, json={"new_name": "tracce.sql"}, headers=ANY)
    assert renamed.json() == {"name": "tracce.sql", "jobs": [SLUG]}
    assert read_job_file(Workspace(folder), SLUG).job.query == "tracce.sql"
    refused = asked.delete(FILE, params={"name": "tracce.sql"}, headers=ANY)
    assert (refused.status_code, SLUG in refused.json()["detail"]) == (409, True)
    assert asked.delete(FILE, params={"name": "tracce.sql", "even_if_used": True}).status_code == 428
    assert asked.delete(FILE, params={"name": "tracce.sql", "even_if_used": True}, headers=ANY).status_code == 204
    (gone,) = asked.get("/api/files/deleted").json()["items"]
    assert (gone["kind"], gone["name"], bool(gone["deleted_at"])) == ("query", "tracce.sql", True)
    restored = asked.post("/api/files/restore", json={"kind": "query", "name": "tracce.sql"})
    assert restored.json() == {"kind": "query", "name": "tracce.sql", "needs_password": False}
    assert asked.get("/api/files/deleted").json()["total"] == 0
    assert asked.post("/api/files/restore", json={"kind": "query", "name": "tracce.sql"}).status_code == 409
    assert asked.post("/api/files/restore", json={"kind": "job", "name": "never"}).status_code == 404


@pytest.mark.parametrize("kind", ["connection", "cluster"])
def test_only_an_admin_brings_a_connection_back(asked, folder, kind):
    reader = bearer(token(folder, "send"))
    answer = asked.post("/api/files/restore", json={"kind": kind, "name": "gone"}, headers=reader)
    assert answer.status_code == 403


@pytest.mark.parametrize("name", ["../connections.json", "..", "/etc/passwd", "a\0b", "none.sql"])
def test_a_name_that_is_no_sql_file_of_the_workspace_is_not_found(asked, name):
    for method, path, more in (
        ("GET", FILE, {}),
        ("DELETE", FILE, {}),
        ("POST", f"{FILE}/rename", {"json": {"new_name": "new.sql"}}),
    ):
        answer = asked.request(method, path, params={"name": name}, headers=ANY, **more)
        assert answer.status_code == 404, answer.text
    assert json.dumps(asked.get(f"{FILE}/versions", params={"name": name}).json()) == '{"items": []}'
