"""A part that reads and sends nothing: what `python -m core part` is to its executor, at the pace of a test.

It goes through the phases of a part and writes a file for each into STAND_IN_FOLDER; it waits in a phase as long as
the file `hold-PHASE-INDEX-ATTEMPT` is there. Its segment has as many bytes as its topic says.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from pathlib import Path

import msgspec

from core.errors import RunCancelled
from core.run.parts import PartError, PartProgress, PartResult, PartTask, encode

PHASES = ("reading", "sending", "committing")


def main() -> None:
    cancelled = threading.Event()
    tasks: queue.Queue[PartTask | None] = queue.Queue()
    threading.Thread(target=listen, args=(cancelled, tasks), daemon=True).start()
    while (task := tasks.get()) is not None:
        run(task, cancelled)
        tasks.task_done()


def run(task: PartTask, cancelled: threading.Event) -> None:
    root = Path(sys.argv[sys.argv.index("--workspace") + 1])
    evidence = Path(os.environ["STAND_IN_FOLDER"])
    for phase in PHASES:
        (evidence / f"{phase}-{task.index}-{task.attempt}").write_text(str(os.getpid()))
        write(PartProgress(task.index, task.attempt, phase, 100, 50))
        while (evidence / f"hold-{phase}-{task.index}-{task.attempt}").exists():
            if cancelled.is_set() and not (evidence / "deaf").exists():
                error = PartError.of(RunCancelled("the part was cancelled"))
                write(PartResult(index=task.index, attempt=task.attempt, rows_read=100, acknowledged=50, error=error))
                return
            time.sleep(0.02)
    folder = root / ".pstt" / task.folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{task.name}.parquet").write_bytes(content(task))
    files = sorted(
        str(file.relative_to(root)) for file in root.rglob("*") if file.is_file() and ".pstt" not in str(file)
    )
    (evidence / f"files-{task.index}").write_text(" ".join(files))
    (evidence / f"secret-{task.index}").write_text(os.environ.get("BOSC_PASSWORD", ""))
    write(
        PartResult(
            index=task.index, attempt=task.attempt, rows_read=100, acknowledged=100, segments=[f"{task.name}.parquet"]
        )
    )


def content(task: PartTask) -> bytes:
    """The bytes of a part's segment, each block of them different."""
    size = int(task.topic)
    return b"".join(number.to_bytes(8, "big") for number in range(task.index, task.index + size // 8))


def listen(cancelled: threading.Event, tasks: queue.Queue[PartTask | None]) -> None:
    for line in sys.stdin.buffer:
        if line == b"cancel\n":
            cancelled.set()
        else:
            tasks.put(msgspec.json.decode(line, type=PartTask))
    if tasks.unfinished_tasks:
        os._exit(1)
    tasks.put(None)


def write(event: PartProgress | PartResult) -> None:
    sys.stdout.buffer.write(encode(event) + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
