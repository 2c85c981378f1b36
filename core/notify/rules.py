"""`alerts.json`: the alert rules, their recipients and the channels. Without the file every rule has its defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from core.errors import ConfigError
from core.workspace.job_schema import Address
from core.workspace.json_file import JsonFile, nearest, read_json_file
from core.workspace.validation import validation_errors

__all__ = ["AlertFile", "Rule", "default_alerts", "default_document", "load_alerts", "parse_alerts", "read_alerts"]

ACTIONS = ("mail", "log_error", "log_warning", "disable_job", "collect_garbage")
OPTIONAL_CHANNEL = "sms"
"""The channel that a rule may name although it is not set up; the action then does nothing."""


def _channel(name: str) -> str:
    if name in ACTIONS:
        raise ValueError(f'"{name}" is an action; give the channel another name')
    return name


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RuleShape(_Shape):
    """Keys of every rule. `for_s`: how long the condition has to hold, in seconds."""

    enabled: bool = True
    for_s: Annotated[float, Field(ge=0, le=604_800, strict=False)] = 0
    actions: list[str] = []
    recipients: list[Address] = []


class SuccessRateShape(RuleShape):
    """Share of a job's messages that were acknowledged."""

    threshold_percent: Annotated[float, Field(ge=0, le=100, strict=False)] = 95
    for_s: Annotated[float, Field(ge=0, le=604_800, strict=False)] = 300
    actions: list[str] = ["mail", "log_error"]


class LatencyShape(RuleShape):
    """Acknowledgement latency that 99 % of a job's messages do not exceed."""

    threshold_ms: Annotated[float, Field(gt=0, strict=False)] = 5_000
    for_s: Annotated[float, Field(ge=0, le=604_800, strict=False)] = 600
    actions: list[str] = ["mail", "log_warning"]


class DisconnectedShape(RuleShape):
    """A cluster that jobs send to does not answer."""

    for_s: Annotated[float, Field(ge=0, le=604_800, strict=False)] = 300
    actions: list[str] = ["mail", "sms", "log_error"]


class ErrorRateShape(RuleShape):
    """Share of a job's messages that failed."""

    threshold_percent: Annotated[float, Field(ge=0, le=100, strict=False)] = 10
    for_s: Annotated[float, Field(ge=0, le=604_800, strict=False)] = 60
    actions: list[str] = ["mail", "log_error", "disable_job"]


class MemoryShape(RuleShape):
    """Share of the machine's memory that the runner uses."""

    threshold_percent: Annotated[float, Field(gt=0, le=100, strict=False)] = 80
    for_s: Annotated[float, Field(ge=0, le=604_800, strict=False)] = 300
    actions: list[str] = ["log_warning", "collect_garbage"]


class LateShape(RuleShape):
    """A job has no success at its `expect.by`."""

    actions: list[str] = ["mail", "log_error"]


class DamagedShape(RuleShape):
    """A segment of the spool could not be read and was set aside."""

    actions: list[str] = ["mail", "log_error"]


class RulesShape(_Shape):
    """The key `rules`."""

    success_rate: SuccessRateShape = SuccessRateShape()
    latency_p99: LatencyShape = LatencyShape()
    producer_disconnected: DisconnectedShape = DisconnectedShape()
    error_rate: ErrorRateShape = ErrorRateShape()
    runner_memory: MemoryShape = MemoryShape()
    job_late: LateShape = LateShape()
    spool_damaged: DamagedShape = DamagedShape()


class AlertsShape(_Shape):
    """The whole file."""

    channels: dict[Annotated[str, AfterValidator(_channel)], Annotated[str, Field(min_length=1)]] = {}
    rules: RulesShape = RulesShape()


RuleName = Literal[
    "success_rate", "latency_p99", "producer_disconnected", "error_rate", "runner_memory", "job_late", "spool_damaged"
]
OF_JOBS = ("success_rate", "latency_p99", "error_rate", "job_late")
"""Rules whose subject is a job."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule with its defaults filled in."""

    name: RuleName
    enabled: bool
    threshold: float | None
    """Percent, or ms for latency_p99; None if the condition has no number."""
    for_s: float
    actions: tuple[str, ...]
    recipients: tuple[str, ...]

    @property
    def title(self) -> str:
        """The condition in words: `error rate > 10 %`."""
        number = f"{self.threshold:,g}" if self.threshold is not None else ""
        return {
            "success_rate": f"success rate < {number} %",
            "latency_p99": f"p99 latency > {number} ms",
            "producer_disconnected": "producer disconnected",
            "error_rate": f"error rate > {number} %",
            "runner_memory": f"memory of the runner > {number} %",
            "job_late": "no success in time",
            "spool_damaged": "a segment of the spool cannot be read",
        }[self.name]


@dataclass(frozen=True, slots=True)
class AlertFile:
    """Rules by name, and channel → URL or reference."""

    rules: Mapping[str, Rule]
    channels: Mapping[str, str]


def load_alerts(path: Path) -> AlertFile:
    """Returns the rules of a file; the defaults if there is no file.

    Raises:
        ConfigError: The first problem of the file.
    """
    alerts, problems = read_alerts(path)
    if problems or alerts is None:
        raise problems[0]
    return alerts


def read_alerts(path: Path) -> tuple[AlertFile | None, list[ConfigError]]:
    """Returns the rules, or every problem of the file.

    Raises:
        ConfigError: The file is not JSON.
    """
    return parse_alerts(read_json_file(path)) if path.exists() else (default_alerts(), [])


def parse_alerts(file: JsonFile) -> tuple[AlertFile | None, list[ConfigError]]:
    """Returns the rules of a file that was read already, or every problem of it."""
    try:
        shape = AlertsShape.model_validate(file.document)
    except ValidationError as error:
        return None, validation_errors(file, (), error, AlertsShape)
    problems = _problems(file, shape)
    return (None if problems else _alerts(shape)), problems


def default_alerts() -> AlertFile:
    """Returns the rules of a workspace without alerts.json."""
    return _alerts(AlertsShape())


def default_document() -> str:
    """Returns the text of an alerts.json with every default."""
    return json.dumps(AlertsShape().model_dump(), indent=2) + "\n"


def _alerts(shape: AlertsShape) -> AlertFile:
    rules: dict[str, Rule] = {}
    for name, values in shape.rules.model_dump().items():
        threshold: Any = values.get("threshold_percent", values.get("threshold_ms"))
        rules[name] = Rule(
            name,  # type: ignore[arg-type]  # the shape has these names and no other
            values["enabled"],
            threshold,
            values["for_s"],
            tuple(values["actions"]),
            tuple(values["recipients"]),
        )
    return AlertFile(rules, dict(shape.channels))


def _problems(file: JsonFile, shape: AlertsShape) -> list[ConfigError]:
    known = (*ACTIONS, OPTIONAL_CHANNEL, *shape.channels)
    problems = []
    for name, values in shape.rules.model_dump().items():
        for index, action in enumerate(values["actions"]):
            place = ("rules", name, "actions", index)
            if action not in known:
                problems.append(
                    file.error(place, f'"{action}" is neither an action nor a channel', remedy=nearest(action, known))
                )
            elif action == "disable_job" and name not in OF_JOBS:
                problems.append(file.error(place, f"{name} is about no job that could be disabled"))
    return problems
