"""The schema of a job file: which values each key may have. `core.model.job` has the keys, types and defaults."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from core.calendar.cron import check_cron
from core.calendar.templates import DIRECTIVES
from core.errors import ConfigError
from core.message.predicate import parse_predicate
from core.model.job import (
    CloudEvents,
    CsvDialect,
    EmailNotification,
    Expect,
    Incremental,
    Job,
    KafkaConfig,
    NewTopic,
    Partitions,
    RowRange,
    SchemaOptions,
    TypeOverride,
)
from core.workspace.connections import TOPIC_NAME
from core.workspace.settings import EMAIL_ADDRESS, known_zone
from core.workspace.validation import StrictModel, completed_from

__all__ = ["EmailAddress", "JobShape", "Topic"]

MOST_KEPT_DAYS = 36_500
LONGEST_S = 366 * 86_400
"""The longest interval and timeout: one year. A datetime plus this never exceeds year 9999."""

MOST_TOPIC_PARTITIONS = 100_000
"""More are a typing error: a whole cluster has fewer than 1,000,000."""
MOST_REPLICAS = 100

MOST_PARTS = 1_000
"""Each part reads the query once and has a transactional id of its own."""


def _topic(name: str) -> str:
    if not TOPIC_NAME.fullmatch(name):
        raise ValueError("a topic's name has letters, digits, dot, _ and -, at most 249, and is not . or ..")
    return name


Topic = Annotated[
    str,
    AfterValidator(_topic),
    Field(json_schema_extra={"pattern": f"^{TOPIC_NAME.pattern}$"}),
]
"""A topic's name. A NUL in it would end the name in a client written in C."""


def _address(text: str) -> str:
    if not EMAIL_ADDRESS.fullmatch(text):
        raise ValueError("this is no e-mail address")
    return text


OUTSIDE = re.compile(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|:").search


def _query(name: str) -> str:
    if not name.lower().endswith(".sql") or OUTSIDE(name):
        raise ValueError("give the name of a .sql file below queries/")
    return name


def _record_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*", name):
        raise ValueError(
            "a record's name has letters, digits and _, with dots between its parts; write it.example.Parcel"
        )
    return name


def _schema_file(name: str) -> str:
    if not name.lower().endswith((".avsc", ".json", ".proto")) or name.lower().endswith(".job.json") or OUTSIDE(name):
        raise ValueError("give the name of a .avsc, .proto or .json file below queries/")
    return name


def _uri_reference(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", text):
        raise ValueError("give a URI without blanks, such as https://example.it/parcels or /parcels")
    return text


def _condition(text: str) -> str:
    try:
        parse_predicate(text)
    except ConfigError as error:
        raise ValueError(f"{error.why}; {error.remedy}") from None
    return text


def _time_of_day(text: str) -> str:
    if not re.fullmatch(r"([01][0-9]|2[0-3]):[0-5][0-9]", text):
        raise ValueError("write a time of the day as 07:00")
    return text


def _encoding(name: str) -> str:
    try:
        "".encode(name)
    except LookupError:
        raise ValueError("no such encoding; write utf-8, cp1252 or iso-8859-15") from None
    return "utf-8" if codecs.lookup(name).name == "utf-8" else name.lower()


def _separator(text: str) -> str:
    if len(text) != 1 or text.isalnum() or text in "\"'\r\n.-+":
        raise ValueError('one character that is not part of a number or a quote; write ";", ",", "|" or "\\t"')
    return text


def _date_format(text: str) -> str:
    wrong = next((found[0] for found in re.finditer("%(.?)", text) if found[1] not in DIRECTIVES), None)
    if wrong:
        raise ValueError(f"{wrong} means nothing on every system; write %d/%m/%Y or %Y-%m-%d %H:%M:%S")
    if text and "%" not in text:
        raise ValueError("every date would be the same text; write %d/%m/%Y")
    return text


def _whole(value: object) -> object:
    """Turns 29.0 into 29: JSON does not distinguish integers."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _setting(value: object) -> object:
    """Turns a number, true or false into the text that a broker takes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(_whole(value)) if isinstance(value, int | float) else value


WHOLE = BeforeValidator(_whole)
Name = Annotated[str, Field(min_length=1)]
EmailAddress = Annotated[str, AfterValidator(_address)]
DateFormat = Annotated[str, AfterValidator(_date_format)]


SettingValue = Annotated[str, BeforeValidator(_setting)]


@completed_from(NewTopic)
class NewTopicShape(StrictModel):
    """`kafka_config.create_topic`."""

    partitions: Annotated[int, Field(ge=1, le=MOST_TOPIC_PARTITIONS), WHOLE]
    replication: Annotated[int, Field(ge=1, le=MOST_REPLICAS), WHOLE] | None
    config: dict[Annotated[str, Field(min_length=1, pattern=r"^[a-z0-9._]+$")], SettingValue]


@completed_from(KafkaConfig)
class KafkaShape(StrictModel):
    """`kafka_config`."""

    topic: Topic | None
    message_key_field: Name | Annotated[list[Name], Field(min_length=1)] | None
    batch_size: Annotated[int, Field(ge=1, le=100_000), WHOLE] | None
    create_topic: NewTopicShape | None
    partition_field: Name | Annotated[list[Name], Field(min_length=1)] | None
    partition: Annotated[int, Field(ge=0, lt=MOST_TOPIC_PARTITIONS), WHOLE] | None
    timestamp_field: Name | None


@completed_from(CsvDialect)
class CsvShape(StrictModel):
    """`csv`."""

    separator: Annotated[str, AfterValidator(_separator)]
    decimal: Literal[".", ","]
    encoding: Annotated[str, AfterValidator(_encoding)]
    line_end: Literal["\r\n", "\n"]
    date_format: DateFormat
    datetime_format: DateFormat


@completed_from(EmailNotification)
class EmailShape(StrictModel):
    """`email_notification`."""

    recipients: list[EmailAddress]


@completed_from(RowRange)
class RowsShape(StrictModel):
    """`expect.rows`."""

    min: Annotated[int, Field(ge=0), WHOLE] | None
    max: Annotated[int, Field(ge=0), WHOLE] | None


@completed_from(Expect)
class ExpectShape(StrictModel):
    """`expect`."""

    rows: RowsShape
    by: Annotated[str, AfterValidator(_time_of_day)] | None


@completed_from(Partitions)
class PartitionsShape(StrictModel):
    """`partitions`."""

    column: Name
    count: Annotated[int, Field(ge=1, le=MOST_PARTS), WHOLE]


@completed_from(SchemaOptions)
class SchemasShape(StrictModel):
    """`schemas`."""

    name: Annotated[str, AfterValidator(_record_name)] | None
    value_file: Annotated[str, AfterValidator(_schema_file)] | None
    key_file: Annotated[str, AfterValidator(_schema_file)] | None


@completed_from(CloudEvents)
class CloudEventsShape(StrictModel):
    """`cloudevents`."""

    source: Annotated[str, AfterValidator(_uri_reference)] | None
    type: Name | None


Seconds = Annotated[float, Field(ge=0, le=LONGEST_S, strict=False)]


@completed_from(Incremental)
class IncrementalShape(StrictModel):
    """`incremental`."""

    column: Name
    start: Annotated[int, WHOLE] | Name | None
    delay_s: Seconds | None
    tie_column: Name | None
    look_back_s: Seconds
    timezone: Annotated[str, AfterValidator(known_zone)]


@completed_from(Job, without=("slug",))
class JobShape(StrictModel):
    """The whole file; `core.model.job.Job` explains each key."""

    name: Name
    query: Annotated[str, AfterValidator(_query)]
    connection: Name
    cron: Annotated[str, AfterValidator(check_cron)] | None
    interval_s: Annotated[int, Field(ge=1, le=LONGEST_S), WHOLE] | None
    parameters: dict[str, str | int | float | list[str | int | float]]
    output: Name | None
    csv: CsvShape
    kafka_config: KafkaShape
    email_notification: EmailShape
    timezone: Annotated[str, AfterValidator(known_zone)]
    max_catch_up: Annotated[int, Field(ge=1, le=100_000), WHOLE]
    timeout_s: Annotated[float, Field(gt=0, le=LONGEST_S, strict=False)] | None
    max_rejects: Annotated[int, Field(ge=0), WHOLE]
    keep_sends_days: Annotated[int, Field(ge=0, le=MOST_KEPT_DAYS), WHOLE] | None
    types: dict[str, TypeOverride]
    headers: dict[Name, str]
    null_value_when: Annotated[str, AfterValidator(_condition)] | None
    schemas: SchemasShape
    cloudevents: CloudEventsShape
    expect: ExpectShape
    partitions: PartitionsShape | None
    incremental: IncrementalShape | None
