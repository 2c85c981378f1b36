"""A headless chromium of this machine, for tests and bench."""

from __future__ import annotations

import os
import shutil

from tests.rigs.errors import RigMissing

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """The program: PSTT_TEST_BROWSER, else the first that is on the PATH."""
    program = os.environ.get("PSTT_TEST_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        raise RigMissing("browser", "no chromium on the PATH; PSTT_TEST_BROWSER may name one")
    return program
