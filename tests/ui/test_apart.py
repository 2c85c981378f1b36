"""A large SQL file is read in another process, with the results and the errors of this one."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.admin import check
from core.admin.demo import SLUG, make_demo
from core.app import App
from core.errors import PsttError, SqlError
from core.run import planning
from core.sql.parser import load
from core.workspace.jobs import read_job_file
from core.workspace.paths import Workspace
from ui import apart

QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"
CONNECTION = "A00-CDG-Collaudo"
NOW = datetime(2026, 1, 17, tzinfo=UTC)
VALUES = b",\n".join(b"'%d'" % number for number in range(25_000))
LARGE = (
    b"define DAY='x'  --Opzionale: a day\nSELECT BARCODE FROM EXPORT_TABLE WHERE BARCODE <> '&DAY' AND BARCODE IN ("
    + VALUES
)


@pytest.fixture(scope="module")
def _demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("apart") / "demo"
    make_demo(folder, 20, now=datetime.now(UTC))
    return folder


@pytest.fixture
def folder(_demo: Path, tmp_path: Path) -> Path:
    shutil.copytree(_demo, tmp_path / "demo")
    return tmp_path / "demo"


@pytest.fixture
def not_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process reads no SQL."""

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("the SQL is read in this process")

    for name in ("checked_query", "load"):
        monkeypatch.setattr(apart, name, refuse)
    for module in (planning, check):
        monkeypatch.setattr(module, "load", refuse)


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the functions that other processes have called."""
    called: list[str] = []
    original = apart._apart
    monkeypatch.setattr(
        apart, "_apart", lambda function, *args: (called.append(function.__name__), original(function, *args))[1]
    )
    return called


@pytest.mark.usefixtures("not_here")
def test_large_sql_is_checked_elsewhere_and_its_error_has_the_place(folder: Path) -> None:
    path = folder / "queries" / QUERY
    assert len(LARGE) > apart.LARGE_BYTES
    assert apart.checked(folder, CONNECTION, path, LARGE + b")") == ()
    with pytest.raises(SqlError) as caught:
        apart.checked(folder, CONNECTION, path, LARGE + b") AND A = '&MISSING'")
    assert (caught.value.line, "MISSING" in caught.value.text) == (25_001, True)
    with pytest.raises(PsttError, match=r"no connection|not in connections"):
        apart.checked(folder, "none", path, LARGE)
    with pytest.raises(AssertionError):
        apart.checked(folder, CONNECTION, path, b"SELECT 1")


@pytest.mark.usefixtures("not_here")
def test_the_outline_of_a_large_file_has_its_parameters(folder: Path) -> None:
    path = folder / "queries" / QUERY
    path.write_bytes(LARGE + b")")
    with App.open(folder, {}, log=False) as opened:
        whole = load(path, opened.connections.dialect(CONNECTION))
    found = apart.outline(folder, CONNECTION, path)
    assert (found.parameters, found.notes, found.sha256) == (whole.parameters, whole.notes, whole.sha256)


@pytest.mark.usefixtures("not_here")
def test_the_check_of_a_save_gives_the_outline_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "queries" / QUERY
    apart.checked(folder, CONNECTION, path, LARGE + b")")
    path.write_bytes(LARGE + b")")
    monkeypatch.setattr(apart, "_apart", None)
    assert [one.name for one in apart.outline(folder, CONNECTION, path).parameters] == ["DAY"]


def job_text(folder: Path, **changes: object) -> str:
    file = folder / "queries" / f"{SLUG}.job.json"
    document = json.loads(file.read_text(encoding="utf-8")) | changes
    file.write_text(json.dumps(document), encoding="utf-8")
    return file.read_text(encoding="utf-8")


def test_a_saved_file_is_parsed_once_for_all_that_the_page_asks(folder: Path, children: list[str]) -> None:
    path = folder / "queries" / QUERY
    sql = (
        b"define DAY='x'  --Obbligatorio: a day\ndefine NUMBER=1  --Opzionale: a number\n"
        b"SELECT BARCODE FROM EXPORT_TABLE WHERE TRKDATE IN ('&DAY') AND OPERATOR > &NUMBER AND BARCODE IN ("
        + VALUES
        + b")"
    )
    apart.checked(folder, CONNECTION, path, sql)
    path.write_bytes(sql)
    cases: list[tuple[dict[str, str], str]] = [
        ({"DAY": "2026-01-17"}, ""),
        ({}, "mandatory parameter DAY"),
        ({"DAY": "x", "DIY": "x"}, "has no parameter DIY"),
        ({"DAY": "{dayte}"}, "dayte"),
        ({"DAY": "1", "NUMBER": "many"}, "parameter NUMBER cannot be"),
        ({"DAY": "1,2"}, "stands in IN"),
    ]
    for parameters, why in cases:
        text = job_text(folder, parameters=parameters)
        error = apart.binding_error(folder, SLUG, text, NOW, NOW, apart=True)
        whole = apart.binding_error(folder, SLUG, text, NOW, NOW, apart=False)
        assert str(error) == str(whole)
        assert why in str(error) if why else error is None
        findings = apart.job_findings(Workspace(folder), read_job_file(Workspace(folder), SLUG))
        assert any(why in one.text for one in findings) == bool(why)
    assert children == ["_check"]


@pytest.mark.usefixtures("not_here")
def test_where_values_change_the_statement_its_text_is_read(folder: Path, children: list[str]) -> None:
    path = folder / "queries" / QUERY
    sql = (
        b"define COLUMN='BARCODE'  --Opzionale [allowed=BARCODE,IDSPED]: a column\n"
        b"SELECT &COLUMN FROM EXPORT_TABLE WHERE BARCODE IN (" + VALUES + b")"
    )
    apart.checked(folder, CONNECTION, path, sql)
    path.write_bytes(sql)
    assert apart.binding_error(folder, SLUG, job_text(folder, parameters={}), NOW, NOW, apart=True) is None
    assert children == ["_check", "_binding_error"]


@pytest.mark.usefixtures("not_here")
@pytest.mark.parametrize("wrong", [b") AND A = '&MISSING'", b"); DELETE FROM EXPORT_TABLE"])
def test_a_file_that_was_changed_on_disk_has_the_errors_of_a_run(folder: Path, wrong: bytes) -> None:
    path = folder / "queries" / QUERY
    path.write_bytes(LARGE + wrong)
    text = job_text(folder, parameters={})
    error = apart.binding_error(folder, SLUG, text, NOW, NOW, apart=True)
    assert isinstance(error, SqlError)
    assert str(error) == str(apart._apart(apart._binding_error, folder, SLUG, text, NOW, NOW))


@pytest.mark.usefixtures("not_here")
def test_a_job_is_checked_elsewhere_and_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace(folder)
    file = read_job_file(workspace, SLUG)
    assert not apart.has_large_query(workspace, file.job)
    (folder / "queries" / QUERY).write_bytes(LARGE + b") AND A = '&MISSING'")
    assert apart.has_large_query(workspace, file.job)
    assert any("MISSING" in one.text for one in apart.job_findings(workspace, file))
    monkeypatch.setattr(apart, "_apart", None)
    assert any("MISSING" in one.text for one in apart.job_findings(workspace, file))


def test_the_messages_of_a_large_query_are_made_elsewhere_and_are_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = read_job_file(Workspace(folder), SLUG)
    path = folder / "queries" / QUERY
    path.write_bytes(path.read_bytes() + b"\n-- " + b"x" * apart.LARGE_BYTES)
    with App.open(folder, {}, log=False) as opened:
        plan = opened.plan(file.job, now=NOW, at=NOW)
        here = opened.preview(plan, rows=2, timeout_s=30)
    monkeypatch.setattr(apart, "open_workspace", None)
    made, elsewhere = apart.preview(folder, SLUG, file.text, NOW, NOW, 2, 30.0)
    assert (elsewhere.messages, elsewhere.warnings) == (here.messages, here.warnings)
    assert (made.topic, made.query.values, made.query.steps) == (plan.topic, plan.query.values, ())


@pytest.mark.usefixtures("not_here")
def test_what_a_run_would_fail_for_is_found_elsewhere(folder: Path) -> None:
    file = read_job_file(Workspace(folder), SLUG)
    assert apart.binding_error(folder, SLUG, file.text, NOW, NOW, apart=True) is None
    (folder / "queries" / QUERY).write_bytes(LARGE)
    error = apart.binding_error(folder, SLUG, file.text, NOW, NOW, apart=True)
    assert isinstance(error, PsttError)
