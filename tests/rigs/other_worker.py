"""Modules for `dask worker --preload`: a worker that differs from the others by what OTHER_WORKER says.

`version`: another version of the product; `driver`: psycopg is not installed.
"""

from __future__ import annotations

import os
import sys

import core.version

if os.environ.get("OTHER_WORKER") == "version":
    core.version.__version__ = "0.9.0"
if os.environ.get("OTHER_WORKER") == "driver":
    sys.modules["psycopg"] = None  # type: ignore[assignment]
