"""Lines for the terminal: the answer first, then the details; the JSON documents have the same numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from core.cli import render, schedule_lines
from core.cli.documents import run_document
from core.cli.output import error_document, error_lines, print_json
from core.errors import BrokerUnavailable, ConfigError
from core.formatting import heading, ms_text, size_text, verdict
from core.language import translated_line
from core.model.progress import RunProgress
from core.model.run import PartitionRange, Reject, Run
from core.notify.alert_messages import failure_notification, success_notification
from core.notify.rules import default_alerts
from core.notify.situation import Recipients, Situation
from core.records.scheduled_runs import ScheduledRun
from core.run.execute import DryRun

AT = datetime(2026, 1, 17, 1, 0, tzinfo=UTC)
RUN = Run(
    run_id="7f3c2",
    kind="job",
    job="export-cdg-tracce",
    job_name="Export CDG Tracce to Kafka",
    connection="A00-CDG-Collaudo",
    cluster="Kafka Collaudo",
    topic="pstt-traces",
    query="q.sql",
    scheduled_at=AT,
    window_start=None,
    timezone="Europe/Rome",
    attempt=1,
    of_run=None,
    asked_by="anna",
    parameters={"DATA": "2026-01-16"},
    sql_sha256="ab",
    sql_text="SELECT 1",
    state="succeeded",
    started_at=AT,
    finished_at=AT + timedelta(seconds=1),
    rows_read=18_545,
    rows_counted=None,
    sent=18_543,
    acknowledged=18_543,
    rejected=2,
    failed=0,
    retried=0,
    bytes=1_900_000,
    duration_s=0.87,
    latency_avg_ms=12.04,
    latency_p50_ms=9.0,
    latency_p90_ms=22.0,
    latency_p99_ms=36.4,
    error_class=None,
    error_text=None,
    error_remedy=None,
    error_retriable=None,
    partitions=tuple(PartitionRange("pstt-traces", n, 0, 9, 10) for n in range(6)),
)
NAN = Reject(7, "IMPORTO", "NUMBER", "NaN has no JSON form")
AWAY = replace(
    RUN,
    state="failed",
    acknowledged=0,
    sent=0,
    rejected=0,
    partitions=(),
    latency_avg_ms=None,
    error_class="BrokerUnavailable",
    error_text='no broker of "Kafka Collaudo" answers',
    error_remedy="python -m core doctor",
    error_retriable=True,
)


FILE = replace(AWAY, topic="", cluster="", rows_read=3, rejected=1, error_text="disk full", error_remedy="make room")


def printed(lines_of: Callable[..., Sequence[str]], *given: object) -> list[str]:
    """What of these lines is printed in English: without the marks around data."""
    return [translated_line(line, "en") for line in lines_of(*given)]


@pytest.mark.parametrize("state", ["failed", "cancelled", "interrupted"])
def test_a_run_to_a_file_speaks_of_rows_written_also_where_it_failed(state: str):
    text = "\n".join(printed(render.run_lines, replace(FILE, state=state)))
    assert "0 of 3 rows read are written, 1 rejected: disk full" in text
    assert "no file was written; run it again" in text
    assert "acknowledged" not in text
    assert "find KEY" not in text


def test_a_failed_run_to_a_file_speaks_of_rows_written_in_mail():
    at = Situation(default_alerts(), {}, (), Recipients(), AT)
    text = str(failure_notification(FILE, None, at))
    assert "('written', '0')" in text
    assert "writes the file again" in text
    assert "acknowledged" not in text


def test_the_heading_names_job_time_with_zone_and_parameters():
    assert heading(RUN.job_name, AT, "Europe/Rome", RUN.parameters.items()) == (
        "Export CDG Tracce to Kafka · scheduled 17 Jan 2026 02:00 Europe/Rome · DATA = 2026-01-16"
    )


def test_a_green_run_is_an_equation_with_the_facts_below():
    first, latency, rejected, command = printed(render.run_lines, RUN, [NAN, NAN])
    assert first == "◐ complete with rejects 18,545 read = 18,543 acknowledged + 2 rejected   run 7f3c2"
    assert "avg 12 ms · p50 9.0 · p90 22 · p99 36" in latency
    assert "1.9 MB in 0.9 s" in latency
    assert "6 partitions" in latency
    assert rejected == "  rejected   2 × IMPORTO: NaN has no JSON form"
    assert command.strip() == "python -m core rejects 7f3c2 --csv rejects.csv"


def test_a_failed_run_says_why_what_to_do_and_what_arrived():
    lines = printed(render.run_lines, AWAY)
    assert lines[0].startswith("✘ failed")
    assert 'no broker of "Kafka Collaudo" answers' in lines[0]
    assert "  next       python -m core doctor" in lines
    assert "nothing was sent" in lines[-1]


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (
            replace(RUN, sent=0, acknowledged=1),
            "1 row was sent exactly once by an earlier attempt; nothing was sent again",
        ),
        (
            replace(RUN, sent=0, acknowledged=2),
            "2 rows were sent exactly once by an earlier attempt; nothing was sent again",
        ),
        (replace(AWAY, rows_read=9, acknowledged=1, error_text=None), "1 of 9 rows read is acknowledged"),
        (replace(AWAY, rows_read=9, acknowledged=2, error_text=None), "2 of 9 rows read are acknowledged"),
    ],
)
def test_a_verdict_about_one_row_is_in_the_singular(run, text):
    assert verdict(run) == text


def test_a_run_without_a_row_says_the_reason_alone():
    empty = replace(AWAY, rows_read=0)
    assert verdict(empty) == 'no broker of "Kafka Collaudo" answers'
    assert verdict(replace(empty, error_text=None)) == "no row was read"


@pytest.mark.parametrize(
    ("count", "retried", "dry", "subject"),
    [
        (
            1,
            "1 message was sent more",
            "1 row makes 1 message and 1 reject; nothing",
            "1 row arrived, 1 row was rejected",
        ),
        (
            2,
            "2 messages were sent more",
            "2 rows make 2 messages and 2 rejects; nothing",
            "2 rows arrived, 2 rows were",
        ),
    ],
)
def test_lines_and_mails_about_one_row_are_in_the_singular(count, retried, dry, subject):
    run = replace(RUN, rows_read=count, acknowledged=count, rejected=count, retried=count)
    assert any(line.startswith(f"  retried    {retried}") for line in printed(render.run_lines, run))
    assert printed(render.dry_run_lines, DryRun(run, []))[0].startswith(f"✔ dry run   {dry}")
    assert printed(render.reject_lines, "7f3c2", [NAN] * count)[-1].startswith(f"{count} rejected row")
    at = Situation(default_alerts(), {}, (), Recipients(), AT)
    assert subject in success_notification(run, None, at).subject_line


@pytest.mark.parametrize("state", ["partial", "failed", "cancelled", "interrupted"])
def test_no_run_that_is_not_green_looks_complete(state):
    lines = printed(render.run_lines, replace(AWAY, state=state, acknowledged=10))
    assert lines[0].startswith(f"{'◐' if state == 'partial' else '✘'} {state}")
    assert "✔" not in "".join(lines)
    assert any(line.startswith("  next ") for line in lines)


def test_reasons_are_grouped_and_the_most_frequent_comes_first():
    rejects = [NAN, *[replace(NAN, reason=f"reason {n}", column="") for n in range(7)], NAN]
    lines = printed(render.run_lines, replace(RUN, rejected=9), rejects)
    start = next(i for i, line in enumerate(lines) if line.startswith("  rejected"))
    assert "2 × IMPORTO: NaN" in lines[start]
    assert "and 3 other reasons" in "".join(lines)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (1_900_000, "1.9 MB"), (5e12, "5000.0 GB")]
)
def test_sizes_are_by_thousands(size, text):
    assert size_text(size) == text


@pytest.mark.parametrize(("ms", "text"), [(None, "–"), (0.04, "0.0"), (9.96, "10.0"), (36.4, "36"), (12_345, "12,345")])
def test_latencies_have_no_needless_digits(ms, text):
    assert ms_text(ms) == text


def test_the_document_says_the_same_numbers_and_is_plain_json():
    document = json.loads(json.dumps(run_document(RUN)))
    assert document["scheduled_at"] == "2026-01-17T01:00:00.000000Z"
    assert (document["rows_read"], document["acknowledged"], document["rejected"]) == (18_545, 18_543, 2)
    assert document["latency_ms"] == {"avg": 12.0, "p50": 9.0, "p90": 22.0, "p99": 36.4}
    assert document["rate_per_s"] == round(18_545 / 0.87, 1)
    assert document["partitions"][0] == {
        "topic": "pstt-traces",
        "partition": 0,
        "first_offset": 0,
        "last_offset": 9,
        "count": 10,
    }
    assert document["error"] is None
    assert run_document(AWAY)["error"]["retriable"] is True


def test_runs_are_a_table_with_one_line_each():
    head, line = printed(render.runs_table, [RUN], "Europe/Rome")
    assert head.split() == ["run", "scheduled", "verdict", "read", "acknowledged", "rejected", "job"]
    assert line.split() == "7f3c2 17 Jan 2026 02:00 ◐ complete with rejects 18,545 18,543 2 export-cdg-tracce".split()


def test_the_table_counts_what_a_run_that_is_going_has_done_so_far():
    run = replace(RUN, state="running", finished_at=None, rows_read=0, acknowledged=0, rejected=0)
    progress = RunProgress(run.run_id, "reading", AT, rows_read=4_000, acknowledged=2_000, rejected=1)
    _, line = printed(render.runs_table, [run], "Europe/Rome", {run.run_id: progress})
    assert "running" in line
    assert line.split()[-4:] == ["4,000", "2,000", "1", "export-cdg-tracce"]


def test_a_table_names_the_zone_of_a_job_that_is_not_the_usual_one():
    _, rome, new_york = printed(
        render.runs_table, [RUN, replace(RUN, timezone="America/New_York", job="one")], "Europe/Rome"
    )
    assert rome.endswith("  export-cdg-tracce")
    assert "16 Jan 2026 20:00" in new_york
    assert new_york.endswith("  one (America/New_York)")


def test_scheduled_times_are_of_the_zone_of_their_job_with_a_run_and_without():
    skipped = ScheduledRun(
        scheduled_run_id=1,
        job="one",
        kind="calendar",
        scheduled_at=AT,
        state="skipped",
        reason="missed",
        run_id=None,
        tries=0,
        not_before=None,
        args={},
        job_sha256="",
        asked_by="",
        request_id=None,
        skipped_until=AT + timedelta(hours=2),
        skipped_count=3,
        created_at=AT,
        finished_at=AT,
    )
    done = replace(skipped, state="done", skipped_until=None)
    run = replace(RUN, timezone="America/New_York", job="one")
    first, second = printed(
        schedule_lines.scheduled_runs_table,
        [(skipped, None), (done, run)],
        {"one": "America/New_York"},
        "Europe/Rome",
    )
    assert first.startswith("16 Jan 2026 20:00:00  one (America/New_York)  calendar")
    assert first.endswith("skipped (3 scheduled times until 16 Jan 2026 22:00:00) missed")
    assert second.startswith("16 Jan 2026 20:00:00  one (America/New_York)  calendar")


def test_the_next_times_name_a_job_file_that_cannot_be_read():
    torn = ConfigError("lite.job.json, line 6: the file is not whole JSON")
    lines = printed(schedule_lines.scheduled_time_lines, [], [], 7, {}, [torn])
    assert lines[-1] == (
        "✘ lite.job.json, line 6: the file is not whole JSON; its times are not listed, the runner keeps to its last valid version"
    )


SEND = {
    "run_id": "7f3c2",
    "job": "export",
    "job_name": "Export",
    "topic": "pstt-traces",
    "partition": 3,
    "offset": 88_120,
    "sent_at": AT,
    "latency_ms": 11.2,
    "attempt": 1,
    "status": "acknowledged",
    "error": None,
    "timezone": "Europe/Rome",
}


def test_a_key_is_found_with_place_time_and_outcome():
    first, line = printed(render.send_lines, "572680001120", [SEND], "Europe/Rome")
    assert first == "572680001120   1 send in 1 run"
    assert line == (
        "  17 Jan 2026 02:00:00   Export   pstt-traces-3 @ 88120   acknowledged in 11 ms   attempt 1   run 7f3c2"
    )


def test_sends_of_jobs_in_several_zones_have_their_times_in_one_zone():
    other = SEND | {"timezone": "America/New_York", "scheduled_at": AT, "job_name": "One"}
    _, first, second = printed(render.send_lines, "k", [SEND | {"scheduled_at": AT}, other], "Europe/Rome")
    assert first.startswith("  17 Jan 2026 02:00:00   Export   scheduled 17 Jan 2026 02:00   ")
    assert second.startswith("  17 Jan 2026 02:00:00   One   scheduled 16 Jan 2026 20:00 America/New_York   ")


def test_a_send_that_failed_and_one_by_hand_say_so():
    failed = SEND | {"partition": None, "offset": None, "status": "failed", "error": "timed out", "latency_ms": None}
    by_hand = SEND | {"job": "", "job_name": None, "run_id": "b"}
    text = "\n".join(printed(render.send_lines, "k", [failed, by_hand], "UTC"))
    assert "k   2 sends in 2 runs" in text
    assert "pstt-traces   not acknowledged: timed out" in text
    assert "sent by hand" in text


def test_a_send_whose_key_has_blanks_at_its_end_shows_them():
    text = "\n".join(printed(render.send_lines, "AB", [SEND | {"key": "AB   "}, SEND | {"key": "AB"}], "UTC"))
    assert "AB   2 sends in 1 run" in text
    assert text.count("Export   key 'AB   '   pstt-traces-3") == 1


@pytest.mark.parametrize(
    ("damaged", "text"), [(1, "1 segment of the spool is damaged"), (2, "2 segments of the spool are damaged")]
)
def test_a_key_may_be_in_a_damaged_segment(damaged, text):
    first, note, _ = printed(render.send_lines, "k", [], "UTC", None, damaged)
    assert first == "k   never sent from this workspace, as far as single sends are known"
    assert note == f"  {text}: sends that were in there are not found; python -m core doctor"


def test_a_key_that_was_never_sent_says_where_to_look():
    assert printed(render.send_lines, "k", [], "UTC")[0] == "k   never sent from this workspace"


def test_a_success_rate_is_never_rounded_up_to_all():
    day = {"messages": 1, "success_rate": 0.99999, "avg_latency_ms": None, "errors": 1}
    week = {"messages": 7, "messages_per_day": 1, "latency_ms": {"p90": None, "p99": 350.0}}
    summary = {"today": day, "last_7_days": week, "total_sent": 1, "total_failed": 0, "bytes": 0}
    text = "\n".join(
        printed(render.summary_lines, summary | {"by_topic": {}, "recent_errors": [], "known_since": None})
    )
    assert "success 99.99 %" in text
    assert "latency avg – ms" in text
    assert "p99 350 ms" in text


def test_a_problem_has_its_four_parts_for_people_and_for_programs():
    error = ConfigError("no such job", why="a typo", remedy="write export", file=Path("a/x.json"), line=3, column=4)
    assert error_lines(error) == ["✘ x.json, line 3, column 4: no such job: a typo", "  next   write export"]
    document = error_document(error)
    assert (document["class"], document["file"], document["line"], document["column"]) == (
        "ConfigError",
        "x.json",
        3,
        4,
    )
    assert error_document(BrokerUnavailable("away"))["retriable"] is True


def test_the_heading_cuts_a_long_list():
    at = datetime(2026, 1, 17, 1, tzinfo=UTC)
    line = heading("Export", at, "Europe/Rome", [("IDS", ",".join(["1"] * 1000))])
    assert line.endswith("IDS = " + ",".join(["1"] * 100) + ",… (1,999 characters)")


def test_a_time_in_any_json_document_is_that_of_rest(capsys):
    print_json({"last_send": datetime(2026, 1, 17, 11, 30, tzinfo=ZoneInfo("Europe/Rome")), "day": date(2026, 1, 17)})
    assert json.loads(capsys.readouterr().out) == {"last_send": "2026-01-17T10:30:00.000000Z", "day": "2026-01-17"}
