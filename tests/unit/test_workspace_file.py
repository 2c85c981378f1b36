"""`export` writes a workspace as one YAML file without secrets; `apply` shows how it differs, and makes it the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from core.admin.demo import SLUG, make_demo
from core.cli.main import app
from core.errors import ConfigError
from core.records.ledger import Ledger
from core.workspace.paths import Workspace
from core.workspace.yaml_file import read_yaml_file, yaml_text

QUERY = "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql"


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    folder = tmp_path / "a"
    make_demo(folder, 1, now=datetime.now(UTC))
    return Workspace(folder)


@pytest.fixture
def other(tmp_path: Path) -> Workspace:
    folder = tmp_path / "b"
    folder.mkdir()
    return Workspace(folder)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pstt.yaml"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def error_of(done: Result) -> ConfigError:
    assert done.exit_code == 1, done.output  # Typer's runner sees the exception itself
    assert isinstance(done.exception, ConfigError), done.exception
    return done.exception


def exported(place: Workspace, file: Path) -> dict[str, Any]:
    done = call("export", file, "--workspace", place.root)
    assert done.exit_code == 0, done.output
    document: dict[str, Any] = read_yaml_file(file).document
    return document


def write(file: Path, document: Any) -> None:
    file.write_text(yaml_text(document), encoding="utf-8")


def files_of(place: Workspace) -> dict[str, bytes]:
    found = [place.connections_file, place.alerts_file, *place.queries_dir.glob("*")]
    return {path.name: path.read_bytes() for path in found if path.exists()}


def test_what_was_exported_changes_nothing_where_it_comes_from(place: Workspace, file: Path) -> None:
    before = files_of(place)
    exported(place, file)
    done = call("apply", file, "--workspace", place.root)
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-1] == "0 new, 0 changed, 0 deleted, 3 as they are"
    assert files_of(place) == before


def test_it_makes_an_empty_folder_the_same_workspace(place: Workspace, other: Workspace, file: Path) -> None:
    exported(place, file)
    dry = call("apply", file, "--workspace", other.root, "--dry-run")
    assert dry.exit_code == 0
    assert f"+ job {SLUG}" in dry.stdout
    assert files_of(other) == {}
    done = call("apply", file, "--workspace", other.root)
    assert f"✔ created job {SLUG}" in done.stdout
    exported(other, file)
    assert "0 new, 0 changed" in call("apply", file, "--workspace", place.root).stdout
    again = json.loads(call("apply", file, "--workspace", other.root, "--json").stdout)
    assert (again["changes"], again["unchanged"], again["made"]) == ([], 3, [])


def test_a_change_is_shown_line_by_line_then_made_and_audited(place: Workspace, file: Path) -> None:
    document = exported(place, file)
    document["jobs"][SLUG]["cron"] = "30 3 * * *"
    write(file, document)
    done = call("apply", file, "--workspace", place.root)
    assert f"~ job {SLUG}" in done.stdout
    assert '-  "cron": "0 2 * * *"' in done.stdout
    assert '+  "cron": "30 3 * * *"' in done.stdout
    assert json.loads((place.queries_dir / f"{SLUG}.job.json").read_text(encoding="utf-8"))["cron"] == "30 3 * * *"
    with Ledger(place.ledger_file) as ledger:
        assert ("change", f"job {SLUG}") in {(line.action, line.object) for line in ledger.audit.entries()}
        assert len(ledger.job_versions.of_job(SLUG)) >= 2


def test_jobs_that_the_file_does_not_have_stay_unless_they_are_pruned(place: Workspace, file: Path) -> None:
    document = exported(place, file)
    document["jobs"] = {}
    write(file, document)
    assert "0 deleted" in call("apply", file, "--workspace", place.root).stdout
    assert "✔ deleted job" in call("apply", file, "--workspace", place.root, "--prune").stdout
    assert not list(place.queries_dir.glob("*.job.json"))
    assert (place.queries_dir / QUERY).exists()


def test_a_password_in_the_file_is_not_exported_and_stays_where_it_is(
    place: Workspace, other: Workspace, file: Path
) -> None:
    document = json.loads(place.connections_file.read_text(encoding="utf-8"))
    document["connections"][0]["password"] = "s3cret-word"
    document["kafka_connections"]["collaudo"] |= {"sasl_username": "u", "sasl_password": "env:KAFKA_WORD"}
    place.connections_file.write_text(json.dumps(document), encoding="utf-8")
    document["schema_registry"] = {"url": "https://r", "username": "u", "password": "s3cret-word of all"}
    document["kafka_connections"]["collaudo"]["schema_registry"] = {"url": "https://q", "bearer_token": "s3cret-word 2"}
    place.connections_file.write_text(json.dumps(document), encoding="utf-8")
    exported(place, file)
    text = file.read_text(encoding="utf-8")
    assert "s3cret-word" not in text
    assert "env:KAFKA_WORD" in text
    assert "s3cret-word" not in call("apply", file, "--workspace", place.root).stdout
    assert json.loads(place.connections_file.read_text(encoding="utf-8")) == document
    done = call("apply", file, "--workspace", other.root)
    assert '! "A00-CDG-Collaudo" has no password: enter it, or write a reference' in done.stdout
    for name in ("collaudo", "schema_registry"):
        assert f'! "{name}" has no password' in done.stdout
    assert "***" not in other.connections_file.read_text(encoding="utf-8")


def test_a_query_keeps_the_ends_of_its_lines(place: Workspace, file: Path) -> None:
    path = place.queries_dir / QUERY
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    document = exported(place, file)
    assert "as they are" in call("apply", file, "--workspace", place.root).stdout
    document["queries"][QUERY] += "-- more\n"
    write(file, document)
    assert f"✔ changed query {QUERY}" in call("apply", file, "--workspace", place.root).stdout
    assert path.read_bytes().count(b"\r\n") == path.read_bytes().count(b"\n")


Break = Callable[[dict[str, Any]], object]
WRONG: dict[str, tuple[Break, str, str]] = {
    "a typo in a key of a job": (
        lambda d: d["jobs"][SLUG].update(crom=d["jobs"][SLUG].pop("cron")),
        'unknown key "crom"',
        'did you mean "cron"?',
    ),
    "a typo at the top": (lambda d: d.update(job=d.pop("jobs")), 'unknown key "job"', 'did you mean "jobs"?'),
    "two jobs of one name": (
        lambda d: d["jobs"].update(second=dict(d["jobs"][SLUG])),
        'is called "Export CDG Tracce to Kafka" too',
        "give one of them another name",
    ),
    "a query that is not there": (lambda d: d["jobs"][SLUG].update(query="no.sql"), "no.sql", ""),
    "a connection that is not there": (lambda d: d["jobs"][SLUG].update(connection="A0"), 'no connection "A0"', ""),
    "a parameter that is missing": (lambda d: d["jobs"][SLUG].update(parameters={}), "DATA", ""),
    "a query that writes": (
        lambda d: d["queries"].update({QUERY: d["queries"][QUERY].replace("SELECT BARCODE", "DELETE")}),
        "DELETE",
        "",
    ),
    "an empty query": (lambda d: d["queries"].update({QUERY: ""}), "has no text", "write the SQL"),
    "a path out of the folder": (
        lambda d: d["queries"].update({"../x.sql": "SELECT 1"}),
        "'../x.sql' is not a file below queries/",
        "",
    ),
    "an older format": (lambda d: d.update(pstt_kafka=0), "format 0 is not supported", "core export"),
    "a newer format": (lambda d: d.update(pstt_kafka=2), "the file has format 2", "newer version"),
    "no format": (lambda d: d.pop("pstt_kafka"), "does not say its format", "add pstt_kafka: 1"),
    "connections that are a text": (lambda d: d.update(connections="x"), "connections must be an object", ""),
    "an unknown database": (
        lambda d: d["connections"]["connections"][0].update(db_type="sqlit"),
        '"db_type" is not valid',
        "",
    ),
    "an unknown rule": (lambda d: d.update(alerts={"rules": {"succes_rate": {}}}), "succes_rate", ""),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_one_error_with_its_place_and_changes_nothing(name: str, place: Workspace, file: Path) -> None:
    break_it, what, remedy = WRONG[name]
    document = exported(place, file)
    document["jobs"][SLUG]["cron"] = "30 3 * * *"  # a good change beside the bad one
    break_it(document)
    write(file, document)
    before = files_of(place)
    error = error_of(call("apply", file, "--workspace", place.root))
    assert what in error.text
    assert remedy in error.remedy
    assert files_of(place) == before


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("pstt_kafka: 1\njobs:\n  a: {}\n  a: {}\n", 'line 4, column 3: "a" is in one object twice'),
        ("pstt_kafka: &x 1\njobs: *x\n", "an alias (*name) is not supported"),
        ("pstt_kafka: !!python/object/apply:os.getcwd []\n", "python/object"),
        ("pstt_kafka: !!int x\n", "tag:yaml.org,2002:int is not supported"),
        ("pstt_kafka: [1\n", "this is not YAML"),
        ("- 1\n", "must hold one YAML object"),
        ("a: " + "[" * 3000, "this is not YAML"),
        ("a: 1\n---\nb: 2\n", "this is not YAML"),
    ],
)
def test_what_is_no_yaml_of_ours_is_one_error(text: str, what: str, place: Workspace, file: Path) -> None:
    file.write_text(text, encoding="utf-8")
    assert what in error_of(call("apply", file, "--workspace", place.root)).text


def test_a_file_of_another_program_is_not_replaced(place: Workspace, file: Path) -> None:
    file.write_text("services: {}\n", encoding="utf-8")
    assert "is no file of this command" in error_of(call("export", file, "--workspace", place.root)).text
    assert file.read_text(encoding="utf-8") == "services: {}\n"


def test_an_edit_after_the_plan_is_not_overwritten(place: Workspace, file: Path) -> None:
    from core.admin.edit_jobs import NewerEdit
    from core.admin.workspace_file import apply_changes, plan_changes
    from core.app import open_workspace
    from core.records.rights import local_caller

    document = exported(place, file)
    document["jobs"][SLUG]["cron"] = "30 3 * * *"
    write(file, document)
    with open_workspace(place.root) as opened:
        plan = plan_changes(place, read_yaml_file(file), {})
        path = place.queries_dir / f"{SLUG}.job.json"
        path.write_text(path.read_text(encoding="utf-8").replace("0 2", "0 5"), encoding="utf-8")
        with pytest.raises(NewerEdit):
            list(apply_changes(plan, opened.ledger, caller=local_caller(), now=datetime.now(UTC)))
    assert '"0 5 * * *"' in path.read_text(encoding="utf-8")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(blacklist_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(blacklist_categories=["Cs"])), inner),
    max_leaves=8,
)
TRAPS = [
    "no",
    "on",
    "~",
    "null",
    "1e5",
    "0x10",
    "012",
    "1_000",
    "12:30:00",
    "2026-01-17",
    "=",
    "<<",
    "1.",
    ".5",
    "-",
    "?",
]


@given(st.dictionaries(st.sampled_from(TRAPS), VALUES | st.sampled_from(TRAPS)))
def test_every_value_comes_back_as_it_was(tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "values.yaml"
    write(path, document)
    assert read_yaml_file(path).document == document
