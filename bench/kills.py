"""Kills a runner at random moments over a real broker and checks what its successors do; also starts two runners at once."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from core.calendar.cron import scheduled_times
from core.records.ledger import Ledger
from core.workspace.jobs import load_job, set_enabled
from core.workspace.paths import Workspace
from tests.rigs.workspace import command, environment, make_workspace

SQL = """define T='2026-01-17T02:00:00'  --Obbligatorio: the scheduled time
SELECT CAST('&T' AS text) || '/{job}/' || lpad(g::text, 7, '0') AS barcode, g AS n FROM generate_series(1, {rows}) AS g
"""
JOBS = ("export", "second")
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class KillStory:
    """The results, collected after the last runner had finished everything."""

    kills: int = 0
    of_runner_alone: int = 0
    scheduled_times: int = 0
    interrupted_runs: int = 0
    messages: int = 0
    duplicates: int = 0
    wrong: list[str] = field(default_factory=list)
    """Every violation of the delivery guarantee."""


def start_runner(folder: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    own_group: dict[str, Any] = {"start_new_session": True}
    if os.name == "nt":
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    log = (folder / "runner.err").open("ab")
    with log:
        return subprocess.Popen(
            command("runner", "--workspace", folder), env=dict(env), cwd=folder, stdout=log, stderr=log, **own_group
        )


def stop_runner(runner: subprocess.Popen[bytes], timeout_s: float = 60) -> int:
    """Stops a runner as a service manager does; returns its exit code."""
    runner.send_signal(signal.CTRL_BREAK_EVENT if os.name == "nt" else signal.SIGTERM)
    return runner.wait(timeout_s)


def kill(runner: subprocess.Popen[bytes], *, alone: bool) -> None:
    """Kills the runner and, unless `alone`, the processes of its runs, like a power cut."""
    children = psutil.Process(runner.pid).children(recursive=True)
    runner.kill()
    for child in [] if alone else children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            pass
    runner.wait(30)


def make_jobs(folder: Path, postgres: Any, kafka: Any, rows: int, interval_s: int) -> dict[str, str]:
    """Makes two jobs that send `rows` rows whose keys name the job and the scheduled time; returns slug → topic."""
    topics = {slug: kafka.create_topic(partitions=3) for slug in JOBS}
    make_workspace(folder, postgres=postgres, bootstrap_servers=kafka.plaintext, topic=topics["export"], sql="")
    for slug in JOBS:
        (folder / "queries" / f"{slug}.sql").write_text(SQL.format(job=slug, rows=rows), encoding="utf-8")
        document = {
            "name": slug,
            "query": f"{slug}.sql",
            "connection": "pg",
            "scheduling_mode": "interval",
            "interval_s": interval_s,
            "timezone": "UTC",
            "catch_up": "all",
            "max_catch_up": 10_000,
            "overlap": "queue",
            "parameters": {"T": "{now}"},
            "kafka_config": {"topic": topics[slug], "message_key_field": "barcode"},
        }
        (folder / "queries" / f"{slug}.job.json").write_text(json.dumps(document), encoding="utf-8")
    return topics


def live_through(
    folder: Path,
    postgres: Any,
    kafka: Any,
    *,
    times: int,
    rows: int,
    interval_s: int,
    seed: int = 1,
    loud: bool = False,
) -> KillStory:
    """Kills the runner this often, lets the last one finish, and checks ledger and topics."""
    story, chance = KillStory(), random.Random(seed)
    topics = make_jobs(folder, postgres, kafka, rows, interval_s)
    env = environment(postgres, PSTT_RUN_RETRY_WAIT_S="1", KAFKA_HEALTH_CHECK_INTERVAL_SEC="5")
    workspace = Workspace(folder)
    for n in range(times):
        runner = start_runner(folder, env)
        time.sleep(chance.uniform(0.4, interval_s))
        if chance.random() < 0.7:
            wait_for_a_run(workspace, interval_s + 2)
            time.sleep(chance.uniform(0, 0.4))
        alone = chance.random() < 0.3
        kill(runner, alone=alone)
        story.kills += 1
        story.of_runner_alone += alone
        if loud:
            print(f"\rkill {n + 1} of {times}", end="", file=sys.stderr, flush=True)
    runner = start_runner(folder, env)
    for slug in JOBS:
        set_enabled(workspace, slug, enabled=False)
    with Ledger(workspace.ledger_file) as ledger:
        wait_for_quiet(ledger, story)
        code = stop_runner(runner)
        if code:
            story.wrong.append(f"the last runner ended with code {code}")
        look(ledger, workspace, kafka, topics, rows, story)
    return story


def wait_for_a_run(workspace: Workspace, timeout_s: float) -> None:
    """Waits until a run has begun; a kill in the middle of one tests more."""
    with Ledger(workspace.ledger_file) as ledger:
        end = time.monotonic() + timeout_s
        while not ledger.scheduled_runs.running() and time.monotonic() < end:
            time.sleep(0.02)


def wait_for_quiet(ledger: Ledger, story: KillStory, timeout_s: float = 300) -> None:
    """Waits until nothing is planned or runs, twice in a row, and the runner has seen that the jobs are disabled."""
    quiet, end = 0, time.monotonic() + timeout_s
    while quiet < 8:
        quiet = 0 if ledger.scheduled_runs.unfinished() or ledger.scheduled_runs.watermarks() else quiet + 1
        if time.monotonic() > end:
            story.wrong.append(f"not quiet after {timeout_s} s: {ledger.scheduled_runs.unfinished()}")
            return
        time.sleep(0.25)


def look(
    ledger: Ledger, workspace: Workspace, kafka: Any, topics: Mapping[str, str], rows: int, story: KillStory
) -> None:
    runs = ledger.history.newest(limit=1_000_000)
    by_scheduled_run: dict[int | None, list[Any]] = defaultdict(list)
    for run in runs:
        by_scheduled_run[run.scheduled_run_id].append(run)
    interrupted = {run.run_id for run in runs if run.state == "interrupted"}
    story.interrupted_runs = len(interrupted)
    for slug, topic in topics.items():
        found = ledger.scheduled_runs.between(LONG_AGO, datetime.now(UTC) + timedelta(days=1), slug)
        story.scheduled_times += len(found)
        check_calendar(workspace, slug, [scheduled_run.scheduled_at for scheduled_run in found], story)
        for scheduled_run in found:
            states = Counter(run.state for run in by_scheduled_run[scheduled_run.scheduled_run_id])
            if (
                states["succeeded"] != 1
                or set(states) - {"succeeded", "interrupted"}
                or scheduled_run.state not in ("done",)
            ):
                story.wrong.append(
                    f"{slug} {scheduled_run.scheduled_at:%H:%M:%S} is {scheduled_run.state} ({scheduled_run.reason}): {dict(states)}"
                )
        look_at_topic(kafka.read(topic, timeout_s=300), slug, found, rows, interrupted, story)


def check_calendar(workspace: Workspace, slug: str, found: list[datetime], story: KillStory) -> None:
    """Checks that between the first and the last scheduled run each time of the calendar occurs once."""
    job = load_job(workspace.queries_dir / f"{slug}.job.json")
    tick = timedelta(microseconds=1)
    expected = list(scheduled_times(job, found[0] - tick, found[-1])) if found else []
    if found != expected or len(found) < 2:
        story.wrong.append(f"{slug}: scheduled runs {len(found)}, the calendar has {len(expected)}")


def look_at_topic(
    messages: list[Any], slug: str, found: list[Any], rows: int, interrupted: set[str], story: KillStory
) -> None:
    ids: dict[bytes, set[bytes]] = defaultdict(set)
    sent_by: dict[bytes, list[str]] = defaultdict(list)
    for message in messages:
        headers = dict(message.headers())
        ids[message.key()].add(headers["message_id"])
        sent_by[message.key()].append(headers["run_id"].decode())
    story.messages += len(messages)
    wanted = {
        f"{scheduled_run.scheduled_at:%Y-%m-%dT%H:%M:%S}/{slug}/{n:07}".encode()
        for scheduled_run in found
        for n in range(1, rows + 1)
    }
    if set(ids) != wanted:
        story.wrong.append(f"{slug}: {len(wanted - set(ids))} keys missing, {len(set(ids) - wanted)} unknown")
    for key, run_ids in sent_by.items():
        story.duplicates += len(run_ids) - 1
        if len(ids[key]) != 1:
            story.wrong.append(f"{slug}: {key!r} has {len(ids[key])} message ids")
        if len(set(run_ids)) != len(run_ids) or len([r for r in run_ids if r not in interrupted]) > 1:
            story.wrong.append(f"{slug}: {key!r} comes from {run_ids}, of which not all but one were interrupted")
    del story.wrong[20:]


def two_at_once(folder: Path, times: int) -> list[str]:
    """Starts two runners at the same moment this often; returns every case in which not exactly one stayed."""
    (folder / "queries").mkdir(parents=True, exist_ok=True)
    (folder / "connections.json").write_text('{"connections": []}', encoding="utf-8")
    wrong: list[str] = []
    for n in range(times):
        logs = [folder / f"{name}.txt" for name in "ab"]
        both = []
        for log in logs:
            with log.open("wb") as output:
                words = command("runner", "--workspace", folder)
                both.append(subprocess.Popen(words, env=environment(), cwd=folder, stdout=output, stderr=output))
        end = time.monotonic() + 60
        while all(one.poll() is None for one in both) and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.3)
        codes = [one.poll() for one in both]
        if sorted(codes, key=str) != [3, None]:
            wrong.append(f"round {n + 1}: exit codes {codes}")
        else:
            leaver, stayer = codes.index(3), both[codes.index(None)]
            text = logs[leaver].read_text(encoding="utf-8")
            if f"pid {stayer.pid} on " not in text or "already" not in text:
                wrong.append(f"round {n + 1}: the second one said {text!r}, the first one is {stayer.pid}")
        for one in both:
            if one.poll() is None:
                one.terminate()
            one.wait(60)
    return wrong


def main(times: int, rows: int, interval_s: int) -> int:
    import tempfile

    from tests.rigs.kafka import KafkaRig
    from tests.rigs.postgres import PostgresRig

    with PostgresRig() as postgres, KafkaRig(for_long=True) as kafka, tempfile.TemporaryDirectory() as folder:
        story = live_through(
            Path(folder), postgres, kafka, times=times, rows=rows, interval_s=interval_s, seed=times, loud=True
        )
        print(
            f"\n{story.kills} kills ({story.of_runner_alone} of the runner alone): {story.scheduled_times} scheduled runs, "
            f"{story.interrupted_runs} interrupted runs, {story.messages:,} messages, {story.duplicates:,} duplicates"
        )
        print(
            "\n".join(story.wrong)
            or "each scheduled run succeeded once, each key is on its topic, each duplicate has "
            "the message id of its original and comes from an interrupted run"
        )
        twice = two_at_once(Path(folder) / "two", times)
        print("\n".join(twice) or f"{times} times two runners at once: one worked, one left with the message")
    return 1 if story.wrong or twice else 0
