"""A setting is changed in `.env`: checked first, every other line stays, and the audit trail has the change."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from core.admin.edit_settings import (
    MACHINE_SETTINGS,
    change_default_environment,
    change_setting,
    is_editable,
    setting_meanings,
)
from core.cli.main import app
from core.errors import AccessRefused, ConfigError
from core.records.ledger import Ledger
from core.records.rights import local_caller, system_caller
from core.workspace.paths import Workspace
from core.workspace.settings import SECRETS, SETTING_NAMES, load_settings, read_env_file

NOW = datetime(2026, 1, 17, tzinfo=UTC)
TEXT = """# ours
PSTT_WORKERS=2   # few

export PSTT_TIMEZONE='Europe/Rome'
DB_PASSWORD="a # b"
"""


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    (tmp_path / ".env").write_text(TEXT, encoding="utf-8")
    return Workspace(tmp_path)


@pytest.fixture
def ledger(place: Workspace) -> Iterator[Ledger]:
    with Ledger(place.ledger_file) as opened:
        yield opened


def change(
    place: Workspace, ledger: Ledger, name: str, value: str | None, environ: dict[str, str] | None = None
) -> None:
    change_setting(place, ledger, name, value, environ or {}, caller=local_caller(), now=NOW)


def test_a_value_is_replaced_in_its_place_and_every_other_line_stays(place: Workspace, ledger: Ledger) -> None:
    change(place, ledger, "PSTT_WORKERS", "8")
    assert place.env_file.read_text(encoding="utf-8") == TEXT.replace("PSTT_WORKERS=2   # few", "PSTT_WORKERS=8")
    (entry,) = ledger.audit.entries()
    assert (entry.action, entry.object, entry.before, entry.after) == ("change", "setting PSTT_WORKERS", "2", "8")


def test_a_new_one_comes_last_and_one_back_to_its_default_goes(place: Workspace, ledger: Ledger) -> None:
    change(place, ledger, "KAFKA_LINGER_MS", "20")
    assert place.env_file.read_text(encoding="utf-8") == TEXT + "KAFKA_LINGER_MS=20\n"
    change(place, ledger, "KAFKA_LINGER_MS", None)
    assert place.env_file.read_text(encoding="utf-8") == TEXT
    change(place, ledger, "KAFKA_LINGER_MS", None)
    assert place.env_file.read_text(encoding="utf-8") == TEXT


def test_a_workspace_without_the_file_gets_one_for_this_account_alone(tmp_path: Path) -> None:
    place = Workspace(tmp_path)
    with Ledger(place.ledger_file) as ledger:
        change(place, ledger, "PSTT_WORKERS", "8")
    assert load_settings(place, {}).PSTT_WORKERS == 8
    if sys.platform != "win32":
        assert stat.S_IMODE(place.env_file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "value", "what", "remedy"),
    [
        ("PSTT_WORKER", "1", "there is no setting PSTT_WORKER", 'did you mean "PSTT_WORKERS"?'),
        ("PSTT_WORKERS", "0", "PSTT_WORKERS is not valid", ""),
        ("PSTT_WORKERS", "eight", "PSTT_WORKERS is not valid", ""),
        ("PSTT_MAIL_TO", "nobody", "PSTT_MAIL_TO is not valid", ""),
        ("PSTT_TIMEZONE", "Europe/Roma", "PSTT_TIMEZONE is not valid", ""),
        ("PSTT_MAIL_FROM", "a@b.it\nKAFKA_LOG_PAYLOAD=true", "PSTT_MAIL_FROM has a line break", "one line"),
        ("KAFKA_SASL_PASSWORD", "x", "KAFKA_SASL_PASSWORD is not changed here: it is a secret", "administrator"),
    ],
)
def test_a_wrong_change_is_one_error_and_writes_nothing(
    name: str, value: str, what: str, remedy: str, place: Workspace, ledger: Ledger
) -> None:
    with pytest.raises(ConfigError) as refused:
        change(place, ledger, name, value)
    assert what in refused.value.text
    assert remedy in refused.value.remedy
    assert place.env_file.read_text(encoding="utf-8") == TEXT
    assert ledger.audit.entries() == []


def test_what_the_environment_sets_is_not_written_where_it_has_no_effect(place: Workspace, ledger: Ledger) -> None:
    with pytest.raises(ConfigError, match="is set by the environment"):
        change(place, ledger, "PSTT_WORKERS", "8", {"PSTT_WORKERS": "3"})


def test_a_wrong_setting_can_be_fixed_although_another_one_is_wrong(place: Workspace, ledger: Ledger) -> None:
    place.env_file.write_text("PSTT_WORKERS=0\nKAFKA_LINGER_MS=x\n", encoding="utf-8")
    change(place, ledger, "PSTT_WORKERS", "8")
    assert place.env_file.read_text(encoding="utf-8") == "PSTT_WORKERS=8\nKAFKA_LINGER_MS=x\n"


def test_only_an_admin_may(place: Workspace, ledger: Ledger) -> None:
    with pytest.raises(AccessRefused):
        change_setting(place, ledger, "PSTT_WORKERS", "8", {}, caller=system_caller("a rule"), now=NOW)


def test_no_secret_and_nothing_that_runs_programs_is_editable() -> None:
    assert not [name for name in SECRETS | MACHINE_SETTINGS if is_editable(name)]
    assert len([name for name in SETTING_NAMES if is_editable(name)]) > 40


def test_each_setting_has_a_meaning() -> None:
    meanings = setting_meanings()
    assert [name for name in SETTING_NAMES if len(meanings.get(name, "")) < 10] == []
    assert meanings["KAFKA_COMPRESSION_TYPE"] == "none, gzip, snappy, lz4 or zstd"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1))
def test_any_value_comes_back_as_it_was(place: Workspace, ledger: Ledger, value: str) -> None:
    change(place, ledger, "KAFKA_DEFAULT_TOPIC", value)
    assert read_env_file(place.env_file)["KAFKA_DEFAULT_TOPIC"][0] == value
    assert read_env_file(place.env_file)["DB_PASSWORD"][0] == "a # b"


def test_the_default_environment_is_a_setting_of_connections_json(place: Workspace, ledger: Ledger) -> None:
    file = place.connections_file
    clusters = {"kafka_connections": {"a": {"bootstrap_servers": "a:9"}, "b": {"bootstrap_servers": "b:9"}}}
    file.write_text(json.dumps(clusters), encoding="utf-8")

    def config(*words: str) -> Any:
        given = ["config", *words, "--workspace", str(place.root), "--json"]
        return json.loads(CliRunner().invoke(app, given, catch_exceptions=False).stdout)

    assert config("--set", "default_environment=b")["answer"].startswith(
        "default_environment is written into connections.json; the next run"
    )
    assert json.loads(file.read_text(encoding="utf-8")) == {"default_environment": "b", **clusters}
    (entry,) = ledger.audit.entries()
    assert (entry.action, entry.object) == ("change", "default_environment")
    with pytest.raises(ConfigError, match="is not among kafka_connections"):
        config("--set", "default_environment=c")
    with pytest.raises(AccessRefused):
        change_default_environment(place, ledger, "a", {}, caller=system_caller("rule"), now=NOW)
    config("--unset", "default_environment")
    assert json.loads(file.read_text(encoding="utf-8")) == clusters
