"""What the schema of each job would be beside what is registered."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from core.admin.check import Finding
from core.errors import PsttError
from core.message.envelope import Envelope
from core.message.schema_difference import schema_difference
from core.message.value_formats import subject_of
from core.model.job import Job
from core.model.schema import Schema, Schemas
from core.records.opened import OpenWorkspace
from core.run.format_warnings import format_warnings
from core.run.planning import cluster_of_plan, plan_run
from core.run.preview import open_reading
from core.run.row_reader import formats_of
from core.run.schemas import schemas_of
from core.workspace.jobs import load_jobs

__all__ = ["check_schemas"]


def check_schemas(opened: OpenWorkspace, now: datetime) -> Iterator[Finding]:
    """Asks databases for the columns of each job with a schema, and registries whether its schema may be sent. Registers nothing.

    Yields:
        A warning for each schema that is new or has changed, an error for each that would be refused.
    """
    jobs, _ = load_jobs(opened.workspace)
    for job in (job for job in jobs if job.needs_registry):
        try:
            found = list(_of_job(opened, job, now))
        except PsttError as error:
            found = [Finding("error", f"{job.slug}.job.json", error.text, error.remedy)]
        yield from found


def _of_job(opened: OpenWorkspace, job: Job, now: datetime) -> Iterator[Finding]:
    plan = plan_run(opened, job, now=now)
    schemas = schemas_of(job, cluster_of_plan(opened, plan), registers=False)
    with open_reading(opened, plan) as reading:
        envelope = Envelope(reading.columns, job, scheduled_at=plan.scheduled_at, formats=formats_of(plan, schemas))
    where = f"{job.slug}.job.json"
    new = set(getattr(schemas, "new", ()))
    for part, schema in (("value", envelope.value_schema), ("key", envelope.key_schema)):
        subject = "" if schema is None else subject_of(job, plan.topic, schema, part)
        if schema is not None and subject in new:
            yield Finding(
                "warning",
                where,
                f'the schema of its {part}s is not registered under subject "{subject}" yet{_changed(schemas, subject, schema)}',
                "the next run registers it, if schema_registry allows that; tell the readers of the topic",
            )
    for warning in format_warnings(envelope, None):
        yield Finding("warning", where, warning)


def _changed(schemas: Schemas | None, subject: str, schema: Schema) -> str:
    """Returns what differs from the newest registered schema, as the end of a sentence."""
    text = None if schemas is None else schemas.latest(subject)
    parts = [] if text is None else schema_difference(text, schema)
    return f": {', '.join(parts)}" if parts else ""
