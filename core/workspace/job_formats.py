"""What of a job's formats, envelope and tombstones contradicts each other."""

from __future__ import annotations

from collections.abc import Iterator

from core.model.job import CloudEvents, Job, SchemaOptions

__all__ = ["contradictions_of_formats"]

Contradiction = tuple[str, str, str]
"""Position, problem and remedy."""
_HEADERS = ("content-type", "ce_")
"""What names of headers of a CloudEvent begin with."""


def contradictions_of_formats(job: Job) -> list[Contradiction]:
    """Returns position, problem and remedy where values of a job's file contradict each other."""
    if job.export_format != "kafka":
        return [*_of_files(job)]
    return [*_of_envelope(job), *_of_schemas(job), *_of_keys(job), *_of_headers(job)]


def _of_files(job: Job) -> Iterator[Contradiction]:
    given = {
        "value_format": job.value_format != "json",
        "key_format": job.key_format != "text",
        "envelope": job.envelope != "pstt",
        "null_value_when": job.null_value_when is not None,
        "schemas": job.schemas != SchemaOptions(),
        "cloudevents": job.cloudevents != CloudEvents(),
    }
    for key, is_given in given.items():
        if is_given:
            yield key, f'"{key}" is for messages, and export_format is "{job.export_format}"', f'remove "{key}"'


def _of_envelope(job: Job) -> Iterator[Contradiction]:
    if job.envelope == "connect" and job.value_format != "json":
        yield (
            "envelope",
            f'envelope "connect" is JSON with its schema in each message, and value_format is "{job.value_format}"',
            f'write "envelope": "none": Connect reads {job.value_format} with the converter of its registry',
        )
    structured = job.envelope == "cloudevents" and job.cloudevents.mode == "structured"
    if structured and job.value_format != "json":
        yield (
            "cloudevents.mode",
            f'a structured event is one JSON object, and value_format is "{job.value_format}"',
            'write "mode": "binary"',
        )
    if job.cloudevents != CloudEvents() and job.envelope != "cloudevents":
        yield (
            "cloudevents",
            f'"cloudevents" has no effect with envelope "{job.envelope}"',
            'write "envelope": "cloudevents"',
        )


def _of_schemas(job: Job) -> Iterator[Contradiction]:
    for part, file in (("value", job.schemas.value_file), ("key", job.schemas.key_file)):
        used = job.value_format if part == "value" else job.key_format
        if file is not None and used in ("json", "text"):
            yield (
                f"schemas.{part}_file",
                f'{part}_format "{used}" has no schema',
                f'write "{part}_format": "avro", "protobuf" or "json_schema", or remove "{part}_file"',
            )
    if job.schemas.value_file is not None and job.envelope == "pstt":
        yield (
            "schemas.value_file",
            "a given schema describes the row alone, and the envelope adds metadata to it",
            'write "envelope": "none" or "cloudevents"',
        )


def _of_keys(job: Job) -> Iterator[Contradiction]:
    if job.kafka_config.message_key_field is not None:
        return
    if job.key_format != "text":
        yield "key_format", f'key_format "{job.key_format}" needs a key', 'add "message_key_field" to kafka_config'
    if job.null_value_when is not None:
        yield "null_value_when", "a tombstone needs a key", 'add "message_key_field" to kafka_config'


def _of_headers(job: Job) -> Iterator[Contradiction]:
    if job.envelope != "cloudevents":
        return
    for name in job.headers:
        if name.lower() == _HEADERS[0] or name.lower().startswith(_HEADERS[1]):
            yield f"headers.{name}", f"header {name} is set by the CloudEvents envelope", "give it another name"
