"""Reads and writes the job files, `queries/*.job.json`. Reports every problem of a file at once."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import msgspec
from pydantic import ValidationError

from core.errors import ConfigError
from core.model.job import Job
from core.sql.incremental import cursor_text
from core.workspace.atomic import write_atomically
from core.workspace.job_formats import contradictions_of_formats
from core.workspace.job_schema import JobShape
from core.workspace.json_file import JsonFile, nearest, parse_json_file, read_json_file
from core.workspace.paths import Workspace
from core.workspace.stored_file import StoredFile, read_stored
from core.workspace.validation import validation_errors

__all__ = [
    "SUFFIX",
    "JobFile",
    "NoSuchJob",
    "checked_job",
    "find_job",
    "job_of",
    "job_text",
    "load_job",
    "load_jobs",
    "parse_job",
    "read_job_file",
    "save_job",
    "set_enabled",
]

SUFFIX = ".job.json"
RESERVED_HEADERS = ("message_id", "run_id", "job")


class NoSuchJob(ConfigError):
    """There is no job file with that name."""


@dataclass(frozen=True, slots=True)
class JobFile:
    """A job file as it is on disk, valid or not."""

    slug: str
    path: Path
    text: str
    sha256: str

    @property
    def job(self) -> Job:
        """The job of the file.

        Raises:
            ConfigError: The first problem of the file.
        """
        return parse_job(self.path, self.text)


def load_job(path: Path) -> Job:
    """Reads one job.

    Raises:
        ConfigError: The first problem of the file.
    """
    return _valid(read_json_file(path))


def parse_job(path: Path, text: str) -> Job:
    """Returns the job of a text; the slug comes from the name in `path`.

    Raises:
        ConfigError: The first problem of the text.
    """
    return _valid(parse_json_file(path, text))


def checked_job(path: Path, text: str) -> tuple[Job | None, list[ConfigError]]:
    """Returns the job of a text and every problem; use the job only if there is no problem."""
    try:
        return job_of(parse_json_file(path, text))
    except ConfigError as error:
        return None, [error]


def load_jobs(workspace: Workspace) -> tuple[list[Job], list[ConfigError]]:
    """Returns every valid job, and every problem of the files."""
    jobs: list[Job] = []
    problems: list[ConfigError] = []
    names: dict[str, Path] = {}
    for path in _files(workspace):
        try:
            job, found = job_of(read_json_file(path))
        except ConfigError as error:
            problems.append(error)
            continue
        problems += found
        if job is None or found:
            continue
        if job.name.lower() in names:
            problems.append(
                ConfigError(
                    f'another job, in {names[job.name.lower()].name}, is called "{job.name}" too',
                    remedy="give one of them another name",
                    file=path,
                    key="name",
                )
            )
        names.setdefault(job.name.lower(), path)
        jobs.append(job)
    return jobs, problems


def find_job(workspace: Workspace, text: str) -> Job:
    """Finds a job by its file name (with or without `.job.json`) or by its name, ignoring case.

    Raises:
        ConfigError: There is none, more than one, or its file is not valid.
    """
    wanted = Path(text).name.removesuffix(SUFFIX).lower()
    paths = _files(workspace)
    for path in paths:
        if _slug(path).lower() == wanted:
            return load_job(path)
    jobs, problems = load_jobs(workspace)
    found = [job for job in jobs if job.name.lower() == text.lower()]
    if len(found) == 1:
        return found[0]
    if found:
        slugs = ", ".join(job.slug for job in found)
        raise ConfigError(f'more than one job is called "{text}"', remedy=f"use a file name: {slugs}")
    if problems and not jobs:
        raise problems[0]
    if not paths:
        raise ConfigError(
            f'there is no job "{text}"', why="queries/ has no *.job.json", remedy="python -m core demo makes an example"
        )
    names = [_slug(path) for path in paths] + [job.name for job in jobs]
    raise ConfigError(f'there is no job "{text}" in queries/', remedy=nearest(text, names))


def save_job(workspace: Workspace, job: Job, content: bytes | None = None) -> Path:
    """Writes a job atomically.

    Args:
        workspace: Where.
        job: The job.
        content: The bytes of a file that describes it; None: they are made without the values that are at their default.

    Raises:
        ConfigError: The job is not valid; nothing is written.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    path = workspace.inside(f"{job.slug}{SUFFIX}", workspace.queries_dir)
    if content is None:
        content = job_text(job).encode()
    parse_job(path, StoredFile(path, content, "").text)
    write_atomically(path, content)
    return path


def job_text(job: Job) -> str:
    """Returns the content of a job's file, without the values that are at their default."""
    return json.dumps(_changed(job), default=dict, ensure_ascii=False, indent=2) + "\n"


def set_enabled(workspace: Workspace, slug: str, *, enabled: bool) -> bool:
    """Enables or disables a job in its file and leaves every other character as it is. Returns whether it changed.

    Raises:
        ConfigError: There is no such job, or its file is not valid.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    path = workspace.inside(f"{slug}{SUFFIX}", workspace.queries_dir)
    file = read_json_file(path)
    if _valid(file).enabled == enabled:
        return False
    word = "true" if enabled else "false"
    at = file.offsets.get(("enabled",))
    if at is None:
        brace = file.offsets[()] + 1
        text = f'{file.text[:brace]}\n  "enabled": {word},{file.text[brace:]}'
    else:
        text = file.text[:at] + re.sub(r"(:\s*)(true|false)", rf"\g<1>{word}", file.text[at:], count=1)
    write_atomically(path, text)
    return True


def _files(workspace: Workspace) -> list[Path]:
    return sorted(workspace.queries_dir.glob(f"*{SUFFIX}"))


def _slug(path: Path) -> str:
    return path.name.removesuffix(SUFFIX)


def _changed(value: Any) -> Any:
    """Returns the fields of a dataclass that are not at their default; any other value unchanged."""
    if not is_dataclass(value):
        return value
    return {
        field.name: _changed(getattr(value, field.name))
        for field in fields(value)
        if field.name != "slug" and getattr(value, field.name) != _default(field)
    }


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _valid(file: JsonFile) -> Job:
    job, problems = job_of(file)
    if problems or job is None:
        raise problems[0]
    return job


def job_of(file: JsonFile) -> tuple[Job | None, list[ConfigError]]:
    """Returns the job of a parsed file and every problem; its slug comes from the file's name."""
    try:
        shape = JobShape.model_validate(file.document)
    except ValidationError as error:
        return None, validation_errors(file, (), error, JobShape)
    job = _job(_slug(file.path), shape)
    return job, [file.error(at.split("."), what, remedy=remedy) for at, what, remedy in _contradictions(job)]


def _job(slug: str, shape: JobShape) -> Job:
    values = shape.model_dump()
    values["parameters"] = {
        name: [str(item) for item in value] if isinstance(value, list) else str(value)
        for name, value in values["parameters"].items()
    }
    return msgspec.convert({"slug": slug, **values}, Job)


def _contradictions(job: Job) -> list[tuple[str, str, str]]:
    """Returns position, problem and remedy where values contradict each other."""
    found = []
    if job.scheduling_mode == "cron" and job.cron is None:
        found.append(("scheduling_mode", 'scheduling_mode "cron" needs "cron"', 'add "cron": "0 2 * * *"'))
    if job.scheduling_mode == "interval" and job.interval_s is None:
        found.append(("scheduling_mode", 'scheduling_mode "interval" needs "interval_s"', 'add "interval_s": 900'))
    if job.export_format == "kafka" and not job.kafka_config.enabled:
        found.append(
            (
                "kafka_config.enabled",
                "kafka_config is off in a job that exports to Kafka",
                'set it to true, or "enabled": false for the whole job',
            )
        )
    if job.export_format == "csv" and job.csv.separator == job.csv.decimal:
        found.append(("csv.separator", "separator and decimal sign of the CSV are the same", 'write "decimal": "."'))
    rows = job.expect.rows
    if rows.min is not None and rows.max is not None and rows.min > rows.max:
        found.append(("expect.rows", f"expect.rows: min {rows.min:,} is more than max {rows.max:,}", "swap them"))
    reserved = (*RESERVED_HEADERS, "traceparent") if job.kafka_config.traceparent else RESERVED_HEADERS
    taken = [name for name in job.headers if name.lower() in reserved]
    found += [
        (f"headers.{name}", f"header {name} is set by PSTT Kafka itself", "give it another name") for name in taken
    ]
    found += contradictions_of_formats(job)
    found += _contradictions_of_partitioner(job) + _contradictions_of_partitions(job)
    return found + _contradictions_of_incremental(job)


def _contradictions_of_partitioner(job: Job) -> list[tuple[str, str, str]]:
    kafka = job.kafka_config
    needed = {"partition_field": ("column", kafka.partition_field), "partition": ("fixed", kafka.partition)}
    found = []
    for key, (partitioner, value) in needed.items():
        place = f"kafka_config.{key}"
        if kafka.partitioner == partitioner and value is None:
            found.append((place, f'partitioner "{partitioner}" needs "{key}"', f'add "{key}", or remove "partitioner"'))
        elif kafka.partitioner != partitioner and value is not None:
            found.append(
                (
                    place,
                    f'"{key}" has no effect with partitioner "{kafka.partitioner}"',
                    f'add "partitioner": "{partitioner}", or remove "{key}"',
                )
            )
    wanted = kafka.create_topic
    if wanted is not None and kafka.partition is not None and kafka.partition >= wanted.partitions:
        found.append(
            (
                "kafka_config.partition",
                f"a topic of {wanted.partitions} partitions has no partition {kafka.partition}",
                f"write 0 to {wanted.partitions - 1}, or more partitions in create_topic",
            )
        )
    return found


def _contradictions_of_partitions(job: Job) -> list[tuple[str, str, str]]:
    given = job.partitions
    if given is None or given.count == 1:
        return []
    column, fields = given.column.lower(), job.kafka_config.message_key_field or ()
    keys = {name.lower() for name in ((fields,) if isinstance(fields, str) else fields)}
    found = []
    if job.export_format != "kafka":
        found.append(
            ("partitions", f'a file of export_format "{job.export_format}" has no parts', 'remove "partitions"')
        )
    if keys and column not in keys and job.order != "none":
        found.append(
            (
                "partitions.column",
                f"rows with the same key may be in different parts, as {given.column} is not part of the key",
                'name a column of "message_key_field", or accept another order with "order": "none"',
            )
        )
    if column in {name.lower() for name in job.types}:
        found.append(
            (
                "partitions.column",
                f'"types" changes the values of {given.column}, so that equal messages could be in two parts',
                "name another column, or convert this one in the SQL",
            )
        )
    return found


def read_job_file(workspace: Workspace, slug: str) -> JobFile:
    """Reads the file of a job. The slug is compared with the names in `queries/` and is never used as a path.

    Raises:
        NoSuchJob: There is no such file.
        ConfigError: It cannot be read.
    """
    path = next((path for path in _files(workspace) if _slug(path) == slug), None)
    stored = read_stored(path) if path else None
    if stored is None or not stored.sha256:
        raise NoSuchJob(f'there is no job "{slug}" in queries/')
    try:
        text = stored.content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8", remedy="save it as UTF-8", file=stored.path) from None
    return JobFile(slug, stored.path, text, stored.sha256)


def _contradictions_of_incremental(job: Job) -> list[tuple[str, str, str]]:
    given, found = job.incremental, list[tuple[str, str, str]]()
    if given is None:
        return found
    if job.export_format != "kafka":
        what = f'a file of export_format "{job.export_format}" always has all rows'
        found.append(("incremental", what, 'remove "incremental"'))
    if given.tie_column is not None and given.tie_column.lower() == given.column.lower():
        found.append(
            (
                "incremental.tie_column",
                "the tie column is the cursor itself",
                'name another one, or remove "tie_column"',
            )
        )
    if given.kind == "integer":
        only_times = [("delay_s", given.delay_s), ("look_back_s", given.look_back_s)]
        found += [
            (f"incremental.{key}", f'"{key}" needs a cursor of times', 'remove it, or use "kind": "timestamp"')
            for key, value in only_times
            if value
        ]
    if given.start is not None:
        try:
            cursor_text(str(given.start), given, "start")
        except ConfigError as error:
            found.append(("incremental.start", error.what, error.remedy))
    return found
