"""Excel and CSV jobs, and parity, over the table of all contestants: time and peak memory at two sizes.

Each command runs in a process of its own. Memory is flat if ten times the rows take hardly more of it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.table import QUERY, make_table
from tests.rigs.postgres import PostgresRig
from tests.rigs.workspace import ROOT, environment, make_workspace

AT = "2026-01-17T02:00:00"
MEASURED = """
import atexit, runpy, sys
from bench.contestant import peak_mb
atexit.register(lambda: print("peak", peak_mb(), file=sys.stderr))
sys.argv = ["core", *sys.argv[1:]]
runpy.run_module("core", run_name="__main__")
"""
FORMS = {"csv": "csv", "excel": "xlsx"}


def measure(folder: Path, postgres: PostgresRig, *words: str) -> dict[str, Any]:
    """Returns exit code, seconds, peak memory in MB, and the printed JSON of one command."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words, "--json"],
        env=environment(postgres, PYTHONPATH=str(ROOT)),
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if "peak " not in done.stderr:
        raise SystemExit(done.stdout + done.stderr)
    return {
        "code": done.returncode,
        "seconds": time.monotonic() - began,
        "peak_mb": float(done.stderr.rpartition("peak ")[2].split()[0]),
        "said": json.loads(done.stdout),
    }


def make_place(folder: Path, postgres: PostgresRig, form: str, rows: int) -> Path:
    return make_workspace(
        folder,
        postgres=postgres,
        bootstrap_servers="127.0.0.1:1",
        topic="never",
        sql=f"{QUERY} LIMIT {rows}",
        job={"export_format": form, "output": f"{rows}.{FORMS[form]}"},
    )


def main(rows: int) -> int:
    """Prints a line for each command. Returns 1 if a run is not green, a comparison not equal, or memory not flat."""
    print(f"{'':<24} {'rows':>10} {'s':>7} {'rows/s':>9} {'peak MB':>8} {'file MB':>8}")
    good = True
    with PostgresRig() as postgres, tempfile.TemporaryDirectory() as folder:
        make_table(postgres, rows)
        for form, ending in FORMS.items():
            peaks: dict[str, list[float]] = {"run": [], "parity": []}
            for count in (rows // 10, rows):
                place = make_place(Path(folder) / form, postgres, form, count)
                file = place / "exports" / f"{count}.{ending}"
                commands = {"run": ("run", "export", "--at", AT), "parity": ("parity", "export", str(file), "--at", AT)}
                for name, words in commands.items():
                    extra = ("--key", "barcode") if name == "parity" else ()
                    found = measure(place, postgres, *words, *extra)
                    peaks[name].append(found["peak_mb"])
                    good &= found["code"] == 0
                    size_mb = file.stat().st_size / 1e6
                    print(
                        f"{f'{name} {form}':<24} {count:>10,} {found['seconds']:>7.1f} {count / found['seconds']:>9,.0f}"
                        f" {found['peak_mb']:>8.0f} {size_mb:>8.1f}{'' if found['code'] == 0 else '   NOT GREEN'}",
                        flush=True,
                    )
            for name, (small, large) in peaks.items():
                print(f"  {name} {form}: ten times the rows take {large - small:+.0f} MB")
            good &= peaks["run"][1] - peaks["run"][0] <= 50
    return 0 if good else 1
