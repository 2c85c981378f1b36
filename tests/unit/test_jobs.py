"""Job files: the example of SPEC 5 is valid; every mistake is reported at once with its line; files are saved atomically."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError, StorageFailed
from core.model.job import EmailNotification, Job, KafkaConfig, NewTopic, Partitions
from core.workspace.jobs import checked_job, find_job, load_job, load_jobs, save_job
from core.workspace.paths import Workspace

SPEC = """{
  "name": "Export CDG Tracce to Kafka", "query": "CDG-KAFKA-001--SelezioneTracceGiornaliere.sql", "connection": "A00-CDG-Collaudo",
  "scheduling_mode": "cron", "cron": "0 2 * * *", "enabled": true, "parameters": {"DATA": "{date-1}"}, "export_format": "kafka",
  "kafka_config": {"enabled": true, "topic": "pstt-traces", "message_key_field": "BARCODE", "batch_size": 100, "include_metadata": true},
  "email_notification": {"on_success": false, "on_failure": true, "recipients": ["admin@example.com"]}
}
"""
SMALLEST = {"name": "J", "query": "q.sql", "connection": "c"}


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    (tmp_path / "queries").mkdir()
    return Workspace(tmp_path)


def write(place: Workspace, document: Any, slug: str = "job") -> Path:
    path = place.queries_dir / f"{slug}.job.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document, indent=1), encoding="utf-8")
    return path


def only(place: Workspace, **changes: Any) -> ConfigError:
    (error,) = problems_of(write(place, {**SMALLEST, **changes}))
    return error


def problems_of(path: Path) -> list[ConfigError]:
    return checked_job(path, path.read_text(encoding="utf-8"))[1]


def test_the_file_of_the_specification_is_valid(place):
    assert load_job(write(place, SPEC, "export-cdg-tracce")) == Job(
        slug="export-cdg-tracce",
        name="Export CDG Tracce to Kafka",
        query="CDG-KAFKA-001--SelezioneTracceGiornaliere.sql",
        connection="A00-CDG-Collaudo",
        scheduling_mode="cron",
        cron="0 2 * * *",
        parameters={"DATA": "{date-1}"},
        kafka_config=KafkaConfig(topic="pstt-traces", message_key_field="BARCODE", batch_size=100),
        email_notification=EmailNotification(recipients=("admin@example.com",)),
    )


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("scheduling_mode", "manual"),
        ("enabled", True),
        ("export_format", "kafka"),
        ("timezone", "Europe/Rome"),
        ("catch_up", "latest"),
        ("overlap", "skip"),
        ("timeout_s", None),
        ("delivery", "at_least_once"),
        ("on_bad_row", "reject"),
        ("on_null_key", "reject"),
        ("types", {}),
        ("decimals", "number"),
        ("headers", {}),
        ("parameters", {}),
        ("kafka_config", KafkaConfig()),
        ("email_notification", EmailNotification()),
        ("verify_count", False),
        ("partitions", None),
        ("order", "key"),
        ("verify", "none"),
    ],
)
def test_what_is_left_out_is_at_its_default(place, name, default):
    assert getattr(load_job(write(place, SMALLEST)), name) == default


@pytest.mark.parametrize("cron", ["0 2 * * *", "0 * * * *", "*/15 8-18 * * 1-5", "0 3 1 * *", "@daily"])
def test_typical_calendars_are_taken(place, cron):
    assert load_job(write(place, {**SMALLEST, "scheduling_mode": "cron", "cron": cron})).cron == cron


def test_numbers_may_stand_as_parameters_and_several_columns_as_key(place):
    config = {"message_key_field": ["A", "B"]}
    job = load_job(write(place, {**SMALLEST, "parameters": {"N": 5}, "kafka_config": config}))
    assert (job.parameters, job.kafka_config.message_key_field) == ({"N": "5"}, ("A", "B"))


KEY = {"kafka_config": {"message_key_field": ["A", "B"]}}


@pytest.mark.parametrize(
    "changes",
    [
        {"partitions": {"column": "b", "count": 2}, **KEY},
        {"partitions": {"column": "X", "count": 2}, "order": "none", **KEY},
        {"partitions": {"column": "X", "count": 2}},
        {"partitions": {"column": "X", "count": 1}, **KEY},
        {"partitions": {"column": "X", "count": 1000.0, "by": "hash"}, "order": "none"},
        {"partitions": None},
    ],
)
def test_partitions_that_keep_the_order_of_a_key_or_need_none(place, changes):
    assert load_job(write(place, {**SMALLEST, **changes}))


@pytest.mark.parametrize(
    ("changes", "key", "expected"),
    [
        ({"cron": "0 2 * *"}, "cron", "minute hour day month weekday"),
        ({"cron": "61 2 * * *"}, "cron", "minute hour day month weekday"),
        ({"cron": "0 0 31 2 *"}, "cron", "never"),
        ({"scheduling_mode": "cron"}, "scheduling_mode", 'needs "cron"'),
        ({"scheduling_mode": "interval"}, "scheduling_mode", 'needs "interval_s"'),
        ({"scheduling_mode": "weekly"}, "scheduling_mode", "'cron', 'interval' or 'manual'"),
        ({"interval_s": 0}, "interval_s", "greater than or equal to 1"),
        ({"timezone": "Europe/Roma"}, "timezone", 'did you mean "Europe/Rome"?'),
        ({"enabled": "yes"}, "enabled", "valid boolean"),
        ({"enabled": 1}, "enabled", "valid boolean"),
        ({"parameters": {"DATA": None}}, "DATA", "valid"),
        ({"parameters": ["DATA"]}, "parameters", "valid dictionary"),
        ({"export_format": "xml"}, "export_format", "'kafka', 'excel' or 'csv'"),
        ({"query": "../q.sql"}, "query", "below queries/"),
        ({"query": "/etc/q.sql"}, "query", "below queries/"),
        ({"query": "C:\\q.sql"}, "query", "below queries/"),
        ({"query": "q.txt"}, "query", ".sql file"),
        ({"name": ""}, "name", "at least 1 character"),
        ({"delivery": "twice"}, "delivery", "'at_least_once' or 'exactly_once'"),
        ({"on_bad_row": "skip"}, "on_bad_row", "'reject' or 'fail'"),
        ({"on_null_key": "skip"}, "on_null_key", "'reject', 'send' or 'fail'"),
        ({"catch_up": "some"}, "catch_up", "'none', 'latest' or 'all'"),
        ({"overlap": "kill"}, "overlap", "'skip' or 'queue'"),
        ({"timeout_s": 0}, "timeout_s", "greater than 0"),
        ({"partitions": {"column": "ID"}}, "partitions", '"count" is missing'),
        ({"partitions": {"column": "ID", "count": 0}}, "count", "greater than or equal to 1"),
        ({"partitions": {"column": "ID", "count": 10_000}}, "count", "less than or equal to 1000"),
        ({"partitions": {"column": "ID", "count": 2, "by": "day"}}, "by", "'range' or 'hash'"),
        ({"partitions": {"column": "", "count": 2}}, "column", "at least 1 character"),
        ({"order": "row"}, "order", "'key' or 'none'"),
        ({"partitions": {"column": "X", "count": 2}, **KEY}, "column", "may be in different parts"),
        ({"partitions": {"column": "id", "count": 2}, "types": {"ID": "date"}}, "column", "two parts"),
        ({"partitions": {"column": "ID", "count": 2}, "export_format": "csv"}, "partitions", "has no parts"),
        ({"types": {"A": "float"}}, "A", "'date', 'datetime', 'string', 'integer', 'decimal', 'base64' or 'json'"),
        ({"decimals": "exact"}, "decimals", "'number', 'string' or 'float'"),
        ({"kafka_config": {"topic": "a b"}}, "topic", "letters, digits"),
        ({"kafka_config": {"topic": ".."}}, "topic", "is not . or .."),
        ({"kafka_config": {"batch_size": 0}}, "batch_size", "greater than or equal to 1"),
        ({"kafka_config": {"batch_size": "100"}}, "batch_size", "valid integer"),
        ({"kafka_config": {"message_key_field": []}}, "message_key_field", "at least 1 item"),
        (
            {"kafka_config": {"message_key_field": 5}},
            "message_key_field",
            "valid string, or input should be a valid list",
        ),
        ({"kafka_config": {"enabled": False}}, "enabled", "kafka_config is off"),
        ({"kafka_config": {"partitioner": "random"}}, "partitioner", "'fixed' or 'round_robin'"),
        ({"kafka_config": {"partitioner": "column"}}, "kafka_config", 'needs "partition_field"'),
        ({"kafka_config": {"partitioner": "fixed"}}, "kafka_config", 'needs "partition"'),
        ({"kafka_config": {"partition": 3}}, "partition", 'no effect with partitioner "murmur2"'),
        ({"kafka_config": {"partition_field": ["A"]}}, "partition_field", "no effect"),
        ({"kafka_config": {"partitioner": "fixed", "partition": -1}}, "partition", "greater than or equal to 0"),
        ({"kafka_config": {"timestamp_field": ""}}, "timestamp_field", "at least 1 character"),
        ({"kafka_config": {"create_topic": {}}}, "create_topic", '"partitions" is missing'),
        ({"kafka_config": {"create_topic": {"partitions": 0}}}, "partitions", "greater than or equal to 1"),
        ({"kafka_config": {"create_topic": {"partitions": 1, "replication": 0}}}, "replication", "equal to 1"),
        (
            {"kafka_config": {"create_topic": {"partitions": 1, "config": {"retention.ms": None}}}},
            "retention.ms",
            "valid string",
        ),
        (
            {"kafka_config": {"create_topic": {"partitions": 1, "config": {"Retention": 1}}}},
            "Retention",
            "match pattern",
        ),
        (
            {"kafka_config": {"partitioner": "fixed", "partition": 3, "create_topic": {"partitions": 3}}},
            "partition",
            "a topic of 3 partitions has no partition 3",
        ),
        ({"email_notification": {"recipients": ["admin"]}}, "0", "this is no e-mail address"),
        ({"email_notification": {"recipients": "a@b"}}, "recipients", "valid list"),
        ({"headers": {"Message_ID": "x"}}, "Message_ID", "set by PSTT Kafka itself"),
        ({"headers": {"traceparent": "x"}, "kafka_config": {"traceparent": True}}, "traceparent", "itself"),
        ({"headers": {"a": "\ud83d"}}, "a", "half of a character"),
        ({"crom": "0 2 * * *"}, "crom", 'did you mean "cron"?'),
        ({"kafka_config": {"topik": "t"}}, "topik", 'did you mean "topic"?'),
        ({"email_notification": {"recipient": []}}, "recipient", 'did you mean "recipients"?'),
    ],
)
def test_a_bad_value_is_reported_with_its_line_and_a_remedy(place, changes, key, expected):
    error = only(place, **changes)
    assert expected in str(error)
    assert error.file is not None
    line = error.file.read_text(encoding="utf-8").splitlines()[error.line - 1]
    assert key in line or key == "0" or (key == "message_key_field" and "message_key_field" in str(error))
    assert error.column is not None


@pytest.mark.parametrize("missing", ["name", "query", "connection"])
def test_what_must_be_there_is_named(place, missing):
    document = {name: value for name, value in SMALLEST.items() if name != missing}
    (error,) = problems_of(write(place, document))
    assert error.text == f'job.job.json, line 1, column 1: "{missing}" is missing'
    assert error.remedy == f'add "{missing}": …'


def test_all_problems_of_a_file_come_at_once(place):
    found = problems_of(write(place, {"name": 5, "querry": "q.sql", "cron": "x", "kafka_config": {"topic": ""}}))
    assert {error.key for error in found} >= {"name", "querry", "cron", "kafka_config.topic"}
    assert sum("is missing" in error.text for error in found) == 2


def test_a_torn_file_says_where_it_ends(place):
    (error,) = problems_of(write(place, SPEC[:200]))
    assert error.where.startswith("job.job.json, line 3, column ")
    assert "not whole JSON" in error.what


def test_load_jobs_gives_those_that_are_right_and_the_problems_of_the_others(place):
    write(place, SPEC, "good")
    write(place, "{", "torn")
    write(place, {**SMALLEST, "catch_up": "x"}, "wrong")
    write(place, {**SMALLEST, "name": "EXPORT cdg tracce to kafka"}, "twin")
    jobs, problems = load_jobs(place)
    assert {job.slug for job in jobs} >= {"good"}
    assert {problem.file.name for problem in problems} == {"torn.job.json", "twin.job.json", "wrong.job.json"}
    assert 'good.job.json, is called "EXPORT cdg tracce to kafka" too' in " ".join(p.what for p in problems)


@pytest.mark.parametrize(
    "text", ["good", "GOOD", "good.job.json", "Export CDG Tracce to Kafka", "export cdg tracce TO kafka"]
)
def test_a_job_is_found_by_file_name_and_by_name_whatever_the_case(place, text):
    write(place, SPEC, "good")
    assert find_job(place, text).slug == "good"


def test_of_file_name_and_name_equally_near_the_file_name_is_offered(place):
    write(place, {**SMALLEST, "name": "Export"}, "export")
    with pytest.raises(ConfigError, match=r'there is no job "exprot" in queries/. did you mean "export"\?'):
        find_job(place, "exprot")


def test_without_any_job_the_demo_is_offered(place):
    with pytest.raises(ConfigError, match="python -m core demo"):
        find_job(place, "x")


def test_a_name_that_two_jobs_have_is_no_choice(place):
    write(place, SMALLEST, "one")
    write(place, SMALLEST, "two")
    with pytest.raises(ConfigError, match=r'more than one job is called "J". use a file name: one, two'):
        find_job(place, "J")


def test_settings_of_a_topic_are_text_however_json_writes_them(place):
    config = {"retention.ms": 86_400_000, "unclean.leader.election.enable": False, "cleanup.policy": "compact"}
    wanted = {"partitions": 6.0, "replication": 3, "config": config}
    job = load_job(write(place, {**SMALLEST, "kafka_config": {"create_topic": wanted}}))
    assert job.kafka_config.create_topic == NewTopic(
        6,
        3,
        {"retention.ms": "86400000", "unclean.leader.election.enable": "false", "cleanup.policy": "compact"},
    )


words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)
jobs = st.builds(
    Job,
    slug=st.just("saved"),
    name=words,
    query=st.just("q.sql"),
    connection=words,
    scheduling_mode=st.just("cron"),
    cron=st.sampled_from(["0 2 * * *", "*/15 8-18 * * 1-5"]),
    enabled=st.booleans(),
    parameters=st.dictionaries(words, st.text(st.characters(codec="utf-8")), max_size=3),
    kafka_config=st.builds(
        KafkaConfig,
        topic=st.none() | st.just("pstt-traces"),
        message_key_field=st.none() | words | st.lists(words, min_size=1, max_size=3).map(tuple),
        batch_size=st.none() | st.integers(1, 100_000),
        include_metadata=st.booleans(),
        cluster=st.none() | words,
        create_topic=st.none()
        | st.builds(
            NewTopic, st.integers(10, 100), st.none() | st.integers(1, 3), st.just({}) | st.just({"retention.ms": "1"})
        ),
        partitioner=st.just("column"),
        partition_field=words | st.lists(words, min_size=1, max_size=3).map(tuple),
        timestamp_field=st.none() | words,
    ),
    email_notification=st.builds(EmailNotification, recipients=st.just(("a@example.com",)) | st.just(())),
    timezone=st.sampled_from(["Europe/Rome", "UTC"]),
    catch_up=st.sampled_from(["none", "latest", "all"]),
    max_catch_up=st.integers(1, 100),
    timeout_s=st.none() | st.floats(0.5, 1e6),
    types=st.dictionaries(words, st.sampled_from(["date", "string", "json"]), max_size=3),
    decimals=st.sampled_from(["number", "string", "float"]),
    key_separator=words,
    verify_count=st.booleans(),
    verify=st.sampled_from(["none", "count", "full"]),
    partitions=st.none()
    | st.builds(Partitions, words.map("p".__add__), st.integers(1, 1000), st.sampled_from(["range", "hash"])),
    order=st.just("none"),
)


@given(jobs)
def test_a_saved_job_reads_back_as_it_was(tmp_path_factory, job):
    place = Workspace(tmp_path_factory.mktemp("jobs"))
    assert load_job(save_job(place, job)) == job


def test_what_is_at_its_default_is_left_out_of_the_file(place):
    path = save_job(place, Job("j", "J", "q.sql", "c", timezone="UTC"))
    assert json.loads(path.read_text(encoding="utf-8")) == {**SMALLEST, "timezone": "UTC"}


def test_a_job_that_is_not_valid_is_not_written(place):
    path = write(place, SPEC)
    job = replace(load_job(path), cron="never", headers={})
    with pytest.raises(ConfigError, match='"cron" is not valid') as caught:
        save_job(place, job)
    assert caught.value.line is not None
    assert path.read_text(encoding="utf-8") == SPEC
    assert list(place.queries_dir.iterdir()) == [path]


@pytest.mark.parametrize("slug", ["../escape", "a/../../b", "/tmp/x", "C:\\x"])
def test_a_job_is_never_saved_outside_of_queries(place, slug):
    with pytest.raises(ConfigError, match="is not a file below queries/"):
        save_job(place, Job(slug, "J", "q.sql", "c"))
    assert list(place.queries_dir.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="RLIMIT_FSIZE")
def test_a_disk_that_is_full_leaves_the_old_file_whole_and_no_rest_beside_it(place):
    import resource
    import signal

    path = write(place, SPEC)
    job = replace(load_job(path), parameters={f"P{n}": "x" * 100 for n in range(200)})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StorageFailed, match="cannot be written: File too large"):
            save_job(place, job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text(encoding="utf-8") == SPEC
    assert list(place.queries_dir.iterdir()) == [path]


@pytest.mark.parametrize(("key", "value"), [("max_catch_up", 29.0), ("max_rejects", 3.0), ("interval_s", 900.0)])
def test_a_number_without_fraction_is_an_integer_however_json_writes_it(tmp_path, key, value):
    file = tmp_path / "x.job.json"
    document = {"name": "X", "query": "x.sql", "connection": "A", "kafka_config": {"topic": "t"}, key: value}
    if key == "interval_s":
        document |= {"scheduling_mode": "interval"}
    file.write_text(json.dumps(document), encoding="utf-8")
    assert (getattr(load_job(file), key), type(getattr(load_job(file), key))) == (int(value), int)
    file.write_text(json.dumps(document | {key: value + 0.5}), encoding="utf-8")
    with pytest.raises(ConfigError, match=f'"{key}" is not valid'):
        load_job(file)
