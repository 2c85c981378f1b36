"""The state of the form: a job's file is loaded into its fields, and the fields become a file again."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import streamlit as st

from core.model.job import Job
from core.records.drafts import Draft
from core.sql.values import as_text
from core.workspace.job_schema import JobShape
from core.workspace.jobs import job_text
from ui import changes, drafts

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
FLOAT_FIELDS = frozenset({"timeout_s", "incremental.delay_s", "incremental.look_back_s"})
"""Number fields that take decimals."""
FILE, PARAMETERS, JSON_TEXT, SAVING, THEIRS = "job_file", "job_parameters", "job_raw", "job_saving", "job_theirs"
BROUGHT_BACK = "job_brought_back"
"""The hash of the version that was put into the form."""


def field_key(place: str) -> str:
    """The session key of the field for a key of the job's file."""
    return f"job:{place}"


def load_form(slug: str) -> None:
    """Loads the stored file into the form."""
    file = changes.job_file(slug)
    st.session_state[FILE] = file
    st.session_state[JSON_TEXT] = file.text
    st.session_state.pop(BROUGHT_BACK, None)
    found = changes.draft(slug, file.text)
    if found.job is not None and not found.problems:
        fill_form(found.job)
    watch_form()


def watch_form() -> None:
    """Notes that the form is as it is stored: what differs from now on is a draft."""
    file = st.session_state[FILE]
    drafts.watch(drafts.Form("job", file.slug, file.sha256, typed() or "", typed))


def typed() -> str | None:
    """Returns what is in the form, also where no job can be built of it; None: it is not drawn any more."""
    if JSON_TEXT not in st.session_state:
        return None
    state = st.session_state
    fields = {place: _comparable(state.get(field_key(place))) for place in FIELDS if field_key(place) in state}
    parameters = dict(state.get(PARAMETERS, {}))
    prefix = field_key("parameter:")
    for key in [key for key in state if str(key).startswith(prefix)]:
        parameters[str(key).removeprefix(prefix)] = state[key]
    given = {name: value for name, value in parameters.items() if value}
    document = {"fields": fields, "parameters": given, "file": state[JSON_TEXT]}
    return json.dumps(document, ensure_ascii=False, sort_keys=True)


def _comparable(value: Any) -> Any:
    """The browser sends 30 back as 30.0."""
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def restore_draft(draft: Draft) -> None:
    """Fills the form with a draft. If the file was changed since, saving shows both versions."""
    document = json.loads(draft.document)
    for place, value in document["fields"].items():
        if place in FIELDS:
            is_whole = isinstance(value, float) and value.is_integer() and place not in FLOAT_FIELDS
            st.session_state[field_key(place)] = int(value) if is_whole else value
    st.session_state[PARAMETERS] = document["parameters"]
    _drop_parameter_fields()
    st.session_state[JSON_TEXT] = document["file"]
    st.session_state[FILE] = replace(st.session_state[FILE], sha256=draft.base_sha256)


def draft_text(draft: Draft, slug: str) -> str:
    """Returns the job file that a draft would make; of a file that is no job its text."""
    document = json.loads(draft.document)
    if not document["fields"]:
        return str(document["file"])
    state = {field_key(place): value for place, value in document["fields"].items()}
    state[PARAMETERS] = document["parameters"]
    return changes.job_text_of(slug, json.dumps(form_document(state), ensure_ascii=False))


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
    _drop_parameter_fields()


def _drop_parameter_fields() -> None:
    """They get their values from `PARAMETERS` when they are drawn."""
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


def form_document(state: Mapping[Any, Any] | None = None) -> dict[str, Any]:
    """The form as the document of a job's file.

    Args:
        state: The values of the fields; None: those of the session.
    """
    state = st.session_state if state is None else state
    document: dict[str, Any] = {"parameters": dict(state.get(PARAMETERS, {}))}
    partitioner = state.get(field_key("kafka_config.partitioner"))
    for place, kind in FIELDS.items():
        value = _from_field(place, kind, state.get(field_key(place)))
        if value is None or kind == "switch" or ONLY_WITH.get(place, partitioner) != partitioner:
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
    if not state.get(field_key("incremental")):
        document.pop("incremental", None)
    return document


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
    """Whether the job in the form differs from the stored one, be it in blanks or in the order of its keys only."""
    file = st.session_state[FILE]
    return bool(changes.draft(file.slug, file.text).job != job) or layout_brought_back(job) is not None


def layout_brought_back(job: Job) -> str | None:
    """Returns the text of the version that was brought back, if it is the stored job in another layout; else None."""
    file = st.session_state[FILE]
    version = changes.version_brought_back(job, st.session_state.get(BROUGHT_BACK, ""))
    if version is None or version.sha256 == file.sha256 or changes.draft(file.slug, file.text).job != job:
        return None
    return version.document


def discard_changes() -> None:
    """Makes the next drawing load the stored file, and drops the draft."""
    if file := st.session_state.get(FILE):
        drafts.drop_draft("job", file.slug)
        drafts.forget("job", file.slug)
    for name in (FILE, SAVING, THEIRS):
        st.session_state.pop(name, None)
