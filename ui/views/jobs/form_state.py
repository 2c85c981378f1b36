"""The state of the form: a job's file is loaded into its fields, and the fields become a file again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

import streamlit as st

from core.model.job import Job
from core.sql.values import as_text
from core.workspace.job_schema import JobShape
from core.workspace.jobs import job_text
from ui import changes

TAB = "\\t"
"""A tab, as the user types it into a field."""
Kind = Literal["text", "kept", "number", "flag", "choice", "list", "pairs", "switch"]
"""How a field is stored. `text`: empty means that the key is not given. `kept`: empty is a value.

`switch`: whether the object of that key is given at all; the fields below it keep their values.
"""
FIELDS: Mapping[str, Kind] = {
    "name": "kept",
    "query": "choice",
    "connection": "choice",
    "export_format": "choice",
    "types": "pairs",
    "decimals": "choice",
    "on_bad_row": "choice",
    "max_rejects": "number",
    "verify_count": "flag",
    "on_drift": "choice",
    "expect.rows.min": "number",
    "expect.rows.max": "number",
    "expect.learn": "flag",
    "expect.by": "text",
    "kafka_config.enabled": "flag",
    "kafka_config.topic": "text",
    "kafka_config.cluster": "text",
    "kafka_config.message_key_field": "list",
    "key_separator": "kept",
    "on_null_key": "choice",
    "kafka_config.batch_size": "number",
    "kafka_config.include_metadata": "flag",
    "kafka_config.partitioner": "choice",
    "kafka_config.partition_field": "list",
    "kafka_config.partition": "number",
    "kafka_config.timestamp_field": "text",
    "kafka_config.traceparent": "flag",
    "kafka_config.create_topic.partitions": "number",
    "kafka_config.create_topic.replication": "number",
    "kafka_config.create_topic.config": "pairs",
    "value_format": "choice",
    "key_format": "choice",
    "envelope": "choice",
    "null_value_when": "text",
    "schemas.name": "text",
    "schemas.subject": "choice",
    "schemas.value_file": "text",
    "schemas.key_file": "text",
    "cloudevents.mode": "choice",
    "cloudevents.source": "text",
    "cloudevents.type": "text",
    "partitions.column": "text",
    "partitions.count": "number",
    "partitions.by": "choice",
    "order": "choice",
    "incremental": "switch",
    "incremental.column": "kept",
    "incremental.kind": "choice",
    "incremental.start": "text",
    "incremental.tie_column": "text",
    "incremental.delay_s": "number",
    "incremental.look_back_s": "number",
    "incremental.timezone": "choice",
    "incremental.count_nulls": "flag",
    "delivery": "choice",
    "verify": "choice",
    "headers": "pairs",
    "output": "text",
    "csv.separator": "kept",
    "csv.decimal": "choice",
    "csv.encoding": "kept",
    "csv.bom": "flag",
    "csv.quote_all": "flag",
    "csv.line_end": "choice",
    "csv.date_format": "kept",
    "csv.datetime_format": "kept",
    "email_notification.on_success": "flag",
    "email_notification.on_failure": "flag",
    "email_notification.recipients": "list",
    "enabled": "flag",
    "scheduling_mode": "choice",
    "cron": "text",
    "interval_s": "number",
    "timezone": "choice",
    "catch_up": "choice",
    "max_catch_up": "number",
    "overlap": "choice",
    "timeout_s": "number",
    "keep_sends_days": "number",
}
"""Key of the job's file, dotted → how its field is stored."""
KEY_FIELDS = ("kafka_config.message_key_field", "kafka_config.partition_field")
"""Lists that are a text in the file if they have one column, and are not given if they have none."""
ONLY_WITH = {"kafka_config.partition_field": "column", "kafka_config.partition": "fixed"}
"""Key → the partitioner that it belongs to; another one shows no field for it."""
NEW_INCREMENTAL: Mapping[str, Any] = {
    "column": "",
    "kind": "timestamp",
    "start": None,
    "tie_column": None,
    "delay_s": None,
    "look_back_s": 0.0,
    "timezone": "UTC",
    "count_nulls": True,
}
"""The fields of a job that is not incremental."""
FILE, PARAMETERS, JSON_TEXT, SAVING, THEIRS = "job_file", "job_parameters", "job_raw", "job_saving", "job_theirs"


def field_key(place: str) -> str:
    """The session key of the field for a key of the job's file."""
    return f"job:{place}"


def load_form(slug: str) -> None:
    """Loads the stored file into the form."""
    file = changes.job_file(slug)
    st.session_state[FILE] = file
    st.session_state[JSON_TEXT] = file.text
    found = changes.draft(slug, file.text)
    if found.job is not None and not found.problems:
        fill_form(found.job)


def fill_form(job: Job) -> None:
    """Sets every field to the values of a job."""
    document = JobShape.model_validate(json.loads(job_text(job))).model_dump()
    if is_incremental := document["incremental"] is not None:
        start = document["incremental"]["start"]
        document["incremental"]["start"] = None if start is None else str(start)
    else:
        document["incremental"] = dict(NEW_INCREMENTAL)
    for place, kind in FIELDS.items():
        value: Any = document
        for step in place.split("."):
            value = None if value is None else value[step]
        st.session_state[field_key(place)] = is_incremental if kind == "switch" else _to_field(place, kind, value)
    st.session_state[PARAMETERS] = {name.upper(): as_text(value) for name, value in job.parameters.items()}
    for name in [name for name in st.session_state if str(name).startswith(field_key("parameter:"))]:
        del st.session_state[name]


def _to_field(place: str, kind: Kind, value: Any) -> Any:
    if place == "csv.separator":
        return value.replace("\t", TAB)
    if place == "partitions.by" and value is None:
        return "range"
    if kind == "list":
        return ", ".join([value] if isinstance(value, str) else value or [])
    if kind == "pairs":
        return "\n".join(f"{name} = {text}" for name, text in (value or {}).items())
    return "" if value is None and kind in ("text", "kept") else value


def form_document() -> dict[str, Any]:
    """The form as the document of a job's file."""
    document: dict[str, Any] = {"parameters": dict(st.session_state.get(PARAMETERS, {}))}
    for place, kind in FIELDS.items():
        value = _from_field(place, kind, st.session_state.get(field_key(place)))
        if value is None or kind == "switch" or ONLY_WITH.get(place, _partitioner()) != _partitioner():
            continue
        *above, last = place.split(".")
        into = document
        for step in above:
            into = into.setdefault(step, {})
        into[last] = value
    kafka = document.get("kafka_config", {})
    if kafka.get("create_topic") == {"config": {}}:  # all its fields are empty
        del kafka["create_topic"]
    if "column" not in document.get("partitions", {}):
        document.pop("partitions", None)
    if not st.session_state.get(field_key("incremental")):
        del document["incremental"]
    return document


def _partitioner() -> Any:
    return st.session_state.get(field_key("kafka_config.partitioner"))


def _from_field(place: str, kind: Kind, value: Any) -> Any:
    if place == "csv.separator":
        return (value or "").replace(TAB, "\t")
    if place == "incremental.start" and re.fullmatch(r"\s*-?\d+\s*", value or ""):
        return int(value)
    if kind == "text":
        return value.strip() or None if value else None
    if kind == "list":
        parts = [part.strip() for part in (value or "").split(",") if part.strip()]
        if place in KEY_FIELDS:
            return parts[0] if len(parts) == 1 else parts or None
        return parts
    if kind == "pairs":
        lines = [line.partition("=") for line in (value or "").splitlines() if line.strip()]
        return {name.strip(): text.strip() for name, _, text in lines}
    if kind == "number" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def is_changed(job: Job) -> bool:
    """Whether the job in the form differs from the stored one."""
    file = st.session_state[FILE]
    return bool(changes.draft(file.slug, file.text).job != job)


def discard_changes() -> None:
    """Makes the next drawing load the stored file."""
    for name in (FILE, SAVING, THEIRS):
        st.session_state.pop(name, None)
