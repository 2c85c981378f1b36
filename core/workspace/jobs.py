"""`queries/*.job.json` ↔ Job: every problem of a file at once, in words that fit beside a form's field too."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from core.model.job import CsvDialect, EmailNotification, Expect, Job, KafkaConfig, RowRange
from core.workspace.atomic import write_whole
from core.workspace.json_file import JsonFile, nearest, parse_json_file, read_json_file
from core.workspace.paths import Workspace

if TYPE_CHECKING:
    from core.workspace.job_schema import JobShape


import hashlib
from dataclasses import dataclass

__all__ = [
    "SUFFIX",
    "JobFile",
    "NoSuchJob",
    "checked_job",
    "find_job",
    "job_text",
    "load_job",
    "load_jobs",
    "parse_job",
    "read_job_file",
    "save_job",
    "set_enabled",
    "validate_job",
]

SUFFIX = ".job.json"
_HEADER_NAMES_OF_OURS = ("message_id", "run_id", "job")


def load_job(path: Path) -> Job:
    """Reads one job.

    Raises:
        ConfigError: The first problem of the file.
    """
    job, problems = _read(path)
    if problems or job is None:
        raise problems[0]
    return job


def parse_job(path: Path, text: str) -> Job:
    """The job of a file that was read already; `path` gives its slug.

    Raises:
        ConfigError: The first problem of the text.
    """
    job, problems = _checked(parse_json_file(path, text))
    if problems or job is None:
        raise problems[0]
    return job


def checked_job(path: Path, text: str) -> tuple[Job | None, list[ConfigError]]:
    """The job of a text, and every problem of it; it may be used only where there is none."""
    try:
        return _checked(parse_json_file(path, text))
    except ConfigError as error:
        return None, [error]


def validate_job(path: Path) -> list[ConfigError]:
    """Every problem of a job file; empty where there is none."""
    try:
        return _read(path)[1]
    except ConfigError as error:
        return [error]


def load_jobs(workspace: Workspace) -> tuple[list[Job], list[ConfigError]]:
    """All jobs that are right, and all problems of those that are not."""
    jobs: list[Job] = []
    problems: list[ConfigError] = []
    names: dict[str, Path] = {}
    for path in _files(workspace):
        try:
            job, found = _read(path)
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
    """The job with that file name (with or without `.job.json`) or that name, whatever its case.

    Raises:
        ConfigError: There is none, more than one, or its file is wrong.
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


def save_job(workspace: Workspace, job: Job) -> Path:
    """Writes a job whole or not at all; what stands at its default is left out.

    Raises:
        ConfigError: The job is not valid; nothing is written.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    path = workspace.inside(f"{job.slug}{SUFFIX}", workspace.queries_dir)
    text = job_text(job)
    parse_job(path, text)
    write_whole(path, text)
    return path


def job_text(job: Job) -> str:
    """What the file of a job holds; what stands at its default is left out."""
    return json.dumps(_document(job), ensure_ascii=False, indent=2) + "\n"


def set_enabled(workspace: Workspace, slug: str, *, enabled: bool) -> bool:
    """Switches a job on or off in its file and leaves every other character of it as it is; whether that changed it.

    Raises:
        ConfigError: There is no such job, or its file is wrong.
        StorageFailed: The file cannot be written; the old one is untouched.
    """
    path = workspace.inside(f"{slug}{SUFFIX}", workspace.queries_dir)
    file = read_json_file(path)
    job, problems = _checked(file)
    if problems or job is None:
        raise problems[0]
    if job.enabled == enabled:
        return False
    word = "true" if enabled else "false"
    at = file.offsets.get(("enabled",))
    if at is None:
        brace = file.offsets[()] + 1
        text = f'{file.text[:brace]}\n  "enabled": {word},{file.text[brace:]}'
    else:
        text = file.text[:at] + re.sub(r"(:\s*)(true|false)", rf"\g<1>{word}", file.text[at:], count=1)
    write_whole(path, text)
    return True


def _files(workspace: Workspace) -> list[Path]:
    return sorted(workspace.queries_dir.glob(f"*{SUFFIX}"))


def _slug(path: Path) -> str:
    return path.name.removesuffix(SUFFIX)


def _document(job: Job) -> dict[str, Any]:
    plain = json.loads(json.dumps(asdict(job), default=dict))
    default = asdict(Job("", "", "", ""))
    kept = {name: value for name, value in plain.items() if name != "slug" and value != _listed(default[name])}
    nested: tuple[tuple[str, Any], ...] = (
        ("kafka_config", KafkaConfig()),
        ("email_notification", EmailNotification()),
        ("expect", Expect()),
        ("csv", CsvDialect()),
    )
    for name, value in ((name, asdict(default)) for name, default in nested):
        if name in kept:
            kept[name] = {k: v for k, v in kept[name].items() if v != _listed(value[k])}
            if not kept[name]:
                del kept[name]
    return kept


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _read(path: Path) -> tuple[Job | None, list[ConfigError]]:
    return _checked(read_json_file(path))


def _checked(file: JsonFile) -> tuple[Job | None, list[ConfigError]]:
    from pydantic import ValidationError  # 100 ms to import

    from core.workspace.job_schema import JobShape
    from core.workspace.validation import validation_errors

    try:
        entry = JobShape.model_validate(file.document)
    except ValidationError as error:
        return None, validation_errors(file, (), error, JobShape)
    job = _job(_slug(file.path), entry)
    return job, [file.error(place.split("."), what, remedy=remedy) for place, what, remedy in _contradictions(job)]


def _job(slug: str, entry: JobShape) -> Job:
    values = entry.model_dump()
    kafka, email, expect = (values.pop(name) for name in ("kafka_config", "email_notification", "expect"))
    if isinstance(kafka["message_key_field"], list):
        kafka["message_key_field"] = tuple(kafka["message_key_field"])
    email["recipients"] = tuple(email["recipients"])
    values["parameters"] = {
        name: tuple(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in values["parameters"].items()
    }
    expect["rows"] = RowRange(**expect["rows"])
    return Job(
        slug=slug,
        kafka_config=KafkaConfig(**kafka),
        email_notification=EmailNotification(**email),
        expect=Expect(**expect),
        csv=CsvDialect(**values.pop("csv")),
        **values,
    )


def _contradictions(job: Job) -> list[tuple[str, str, str]]:
    """Place, what is wrong, what to do; for what no single value is to blame for."""
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
    taken = [name for name in job.headers if name.lower() in _HEADER_NAMES_OF_OURS]
    found += [
        (f"headers.{name}", f"header {name} is set by PSTT Kafka itself", "give it another name") for name in taken
    ]
    return found


class NoSuchJob(ConfigError):
    """There is no job file of that name."""


@dataclass(frozen=True, slots=True)
class JobFile:
    """A job file as it stands on disk, right or wrong."""

    slug: str
    path: Path
    text: str
    sha256: str

    @property
    def job(self) -> Job:
        """What it says.

        Raises:
            ConfigError: The first problem of the file.
        """
        return parse_job(self.path, self.text)


def read_job_file(workspace: Workspace, slug: str) -> JobFile:
    """The file of a job. The name is compared with those in `queries/`, never made a path of.

    Raises:
        NoSuchJob: There is none.
        ConfigError: It cannot be read.
    """
    path = next((path for path in workspace.queries_dir.glob(f"*{SUFFIX}") if path.name == f"{slug}{SUFFIX}"), None)
    if path is None:
        raise NoSuchJob(f'there is no job "{slug}" in queries/')
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("the file is not UTF-8", remedy="save it as UTF-8", file=path) from None
    except OSError as error:
        raise ConfigError("the file cannot be read", why=error.strerror or str(error), file=path) from None
    return JobFile(slug, path, text, hashlib.sha256(content).hexdigest())
