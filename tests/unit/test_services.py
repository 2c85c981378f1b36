"""The first lines of a test run: what was found is true, and so is the number of tests that are skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.rigs.services import SERVICES, report, skipped_without
from tests.rigs.workspace import ROOT


def without_servers(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a machine that has Python only."""
    given = ("_TEST_URL", "_TEST_ODBC", "_TEST_BOOTSTRAP_SERVERS", "_TEST_BROWSER", "PYTEST_ADDOPTS", "PSTT_")
    kept = {name: value for name, value in os.environ.items() if not any(part in name for part in given)}
    return {**kept, "PATH": str(folder), "PSTT_SHARED": str(folder), "PSTT_TEST_CACHE": str(folder), **more}


def pytest_of(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = without_servers(folder, **more)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_a_machine_without_servers_is_told_what_is_skipped(tmp_path: Path) -> None:
    done = pytest_of(tmp_path, "-n", "0", "tests/unit/test_services.py", "-k", "nothing_at_all")
    head = done.stdout.split("collected")[0]
    assert "servers: Kafka       not found: kafka needs Java: no `java` on the PATH; tests skipped: " in head
    assert " in tests/acceptance" in head
    for title in ("SQL Server", "browser", "Oracle"):
        assert f"{title:<11} not found: " in head
    assert "its tests run on a double" in head


def test_a_whole_run_that_requires_a_service_ends_at_once_without_it(tmp_path: Path) -> None:
    done = pytest_of(tmp_path, PSTT_REQUIRE="kafka, browser")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "required here (PSTT_REQUIRE) and missing: kafka: kafka needs Java" in done.stderr
    assert "browser: no chromium" in done.stderr


def test_each_service_has_a_line_and_tests_that_need_it() -> None:
    assert len(report()) == len(SERVICES)
    count = {service.name: skipped_without(service) for service in SERVICES}
    assert count["kafka"]["acceptance"] > 50
    assert count["postgres"]["integration"] > 100
    assert count["sqlserver"]["integration"] > 20
    assert count["browser"].keys() == {"ui"}
    assert not count["oracle"]
    assert "unit" not in count["kafka"] + count["postgres"] + count["browser"]
