"""The shape of a job file: which keys there are and which values each may have."""

from __future__ import annotations

import codecs
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from core.calendar.cron import check_cron
from core.calendar.templates import DIRECTIVES
from core.model.job import (
    CatchUp,
    DecimalForm,
    DeliveryGuarantee,
    ExportFormat,
    OnBadRow,
    OnDrift,
    OnNullKey,
    Overlap,
    SchedulingMode,
    TypeOverride,
    VerifyMode,
)
from core.workspace.connections import TOPIC_NAME
from core.workspace.settings import ADDRESS, known_zone

__all__ = ["Address", "JobShape", "Topic"]

LONGEST_S = 366 * 86_400
"""Nothing is due less often than once a year; sums with the clock then never leave the calendar."""


def _topic(name: str) -> str:
    if not TOPIC_NAME.fullmatch(name):
        raise ValueError("a topic's name has letters, digits, dot, _ and -, at most 249, and is not . or ..")
    return name


Topic = Annotated[
    str,
    AfterValidator(_topic),
    Field(json_schema_extra={"pattern": f"^{TOPIC_NAME.pattern}$"}),
]
"""A topic's name; a client written in C would take what comes before a NUL for another topic."""


def _address(text: str) -> str:
    if not ADDRESS.fullmatch(text):
        raise ValueError("this is no e-mail address")
    return text


def _query(name: str) -> str:
    if not name.lower().endswith(".sql") or re.search(r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|:", name):
        raise ValueError("give the name of a .sql file below queries/")
    return name


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
        raise ValueError('one character that stands in no number and no quote; write ";", ",", "|" or "\\t"')
    return text


def _date_format(text: str) -> str:
    wrong = next((found[0] for found in re.finditer("%(.?)", text) if found[1] not in DIRECTIVES), None)
    if wrong:
        raise ValueError(f"{wrong} means nothing on every system; write %d/%m/%Y or %Y-%m-%d %H:%M:%S")
    if text and "%" not in text:
        raise ValueError("every date would be the same text; write %d/%m/%Y")
    return text


def _whole(value: object) -> object:
    """JSON has one kind of number: 29.0 is the integer 29."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
Name = Annotated[str, Field(min_length=1)]
Address = Annotated[str, AfterValidator(_address)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class KafkaShape(_Shape):
    """`kafka_config`."""

    enabled: bool = True
    topic: Topic | None = None
    message_key_field: Name | Annotated[list[Name], Field(min_length=1)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=100_000), WHOLE] | None = None
    include_metadata: bool = True
    cluster: str | None = None


class CsvShape(_Shape):
    """`csv`."""

    separator: Annotated[str, AfterValidator(_separator)] = ";"
    decimal: Literal[".", ","] = ","
    encoding: Annotated[str, AfterValidator(_encoding)] = "utf-8"
    bom: bool = True
    quote_all: bool = False
    line_end: Literal["\r\n", "\n"] = "\r\n"
    date_format: Annotated[str, AfterValidator(_date_format)] = ""
    datetime_format: Annotated[str, AfterValidator(_date_format)] = ""


class EmailShape(_Shape):
    """`email_notification`."""

    on_success: bool = False
    on_failure: bool = True
    recipients: list[Address] = []


class RowsShape(_Shape):
    """`expect.rows`."""

    min: Annotated[int, Field(ge=0), WHOLE] | None = None
    max: Annotated[int, Field(ge=0), WHOLE] | None = None


class ExpectShape(_Shape):
    """`expect`."""

    rows: RowsShape = RowsShape()
    learn: bool = True
    by: Annotated[str, AfterValidator(_time_of_day)] | None = None


class JobShape(_Shape):
    """The whole file; what each key means stands at `core.model.all.Job`."""

    name: Name
    query: Annotated[str, AfterValidator(_query)]
    connection: Name
    scheduling_mode: SchedulingMode = "manual"
    cron: Annotated[str, AfterValidator(check_cron)] | None = None
    interval_s: Annotated[int, Field(ge=1, le=LONGEST_S), WHOLE] | None = None
    enabled: bool = True
    parameters: dict[str, str | int | float | list[str | int | float]] = {}
    export_format: ExportFormat = "kafka"
    output: Name | None = None
    csv: CsvShape = CsvShape()
    kafka_config: KafkaShape = KafkaShape()
    email_notification: EmailShape = EmailShape()
    timezone: Annotated[str, AfterValidator(known_zone)] = "Europe/Rome"
    catch_up: CatchUp = "latest"
    max_catch_up: Annotated[int, Field(ge=1, le=100_000), WHOLE] = 31
    overlap: Overlap = "skip"
    timeout_s: Annotated[float, Field(gt=0, le=LONGEST_S, strict=False)] | None = None
    delivery: DeliveryGuarantee = "at_least_once"
    on_bad_row: OnBadRow = "reject"
    on_null_key: OnNullKey = "reject"
    max_rejects: Annotated[int, Field(ge=0), WHOLE] = 0
    types: dict[str, TypeOverride] = {}
    decimals: DecimalForm = "number"
    key_separator: str = "|"
    headers: dict[Name, str] = {}
    verify_count: bool = False
    verify: VerifyMode = "none"
    expect: ExpectShape = ExpectShape()
    on_drift: OnDrift = "stop"
