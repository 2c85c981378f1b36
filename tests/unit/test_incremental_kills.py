"""Runs of incremental jobs that are killed at any call of a function: each row arrives, and none twice without a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.incremental import JOBS, killed_over_a_file
from tests.rigs.sweeps import sweep

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that begins as a copy of this one")


@pytest.mark.parametrize("name", sweep(JOBS, always=[*JOBS][::3]))
def test_a_few_kills(tmp_path: Path, name: str):
    assert killed_over_a_file(tmp_path / "w", name, kills=3, seed=1).problems == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", JOBS)
def test_a_thousand_kills(tmp_path: Path, name: str, seed: int):
    assert killed_over_a_file(tmp_path / "w", name, kills=50, seed=seed).problems == []
