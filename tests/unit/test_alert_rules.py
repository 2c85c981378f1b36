"""Rules of alerts.json over the command line: listed, changed, and what is refused."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from core.cli.main import app
from core.errors import ConfigError


@pytest.fixture
def rules(tmp_path):
    """Calls `alerts rules` in a workspace of its own."""
    (tmp_path / "connections.json").write_text('{"connections": []}', encoding="utf-8")
    return lambda *words: CliRunner().invoke(app, ["alerts", "rules", *words, "--workspace", str(tmp_path)])


def test_keys_are_changed_and_the_others_stay_as_they_are(rules, tmp_path):
    file = tmp_path / "alerts.json"
    kept = {"channels": {"teams": "env:TEAMS_URL"}, "rules": {"error_rate": {"for_s": 30}, "job_late": {}}}
    file.write_text(json.dumps(kept), encoding="utf-8")
    done = rules("--set", "error_rate.severity=critical", "--set", "error_rate.actions=[]", "--json")
    assert done.exit_code == 0, done.output
    changed = {"for_s": 30, "severity": "critical", "actions": []}
    assert json.loads(file.read_text(encoding="utf-8")) == {**kept, "rules": {"error_rate": changed, "job_late": {}}}
    found = json.loads(done.stdout)
    assert found["channels"] == ["teams"]
    (rule,) = [one for one in found["rules"] if one["rule"] == "error_rate"]
    assert rule["values"] == {**changed, "enabled": True, "recipients": [], "threshold_percent": 10}
    assert "error_rate.severity=critical" in rules().stdout


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("error_rate.threshold_percent=high", "valid number"),
        ("error_rate.threshold=5", "unknown key"),
        ("late.enabled=true", "no rule"),
        ("error_rate=5", "is not RULE.KEY=VALUE"),
    ],
)
def test_a_wrong_change_is_refused_and_all_others_with_it(rules, tmp_path, change, says):
    done = rules("--set", "error_rate.enabled=false", "--set", change)
    assert isinstance(done.exception, ConfigError)
    assert says in str(done.exception)
    assert not (tmp_path / "alerts.json").exists()
