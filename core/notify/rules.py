"""`alerts.json`: when an alert is sent, to whom, and through which channel. Without the file each rule has its defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, create_model

from core.errors import ConfigError
from core.workspace.job_schema import EmailAddress
from core.workspace.json_file import JsonFile, nearest, parse_json_file, read_json_file
from core.workspace.validation import StrictModel, completed_from, validation_errors

__all__ = [
    "JOB_FAILED",
    "AlertFile",
    "Rule",
    "Severity",
    "changed_alerts",
    "default_alerts",
    "default_document",
    "load_alerts",
    "merged_document",
    "parse_alerts",
    "read_alerts",
]

ACTIONS = ("mail", "log_error", "log_warning", "disable_job", "collect_garbage")
OPTIONAL_CHANNEL = "sms"
"""The channel that a rule may name although it is not set up; the action then does nothing."""


def _channel(name: str) -> str:
    if name in ACTIONS:
        raise ValueError(f'"{name}" is an action; give the channel another name')
    return name


RuleName = Literal[
    "success_rate",
    "latency_p99",
    "producer_disconnected",
    "error_rate",
    "runner_memory",
    "job_late",
    "spool_damaged",
    "job_failed",
]
Severity = Literal["warning", "critical"]
JOB_FAILED = "job_failed"
"""The rule that is checked at each verdict of a run, not every ten seconds."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule with its defaults filled in."""

    name: RuleName
    enabled: bool = True
    severity: Severity = "warning"
    """In the subject of mails, and on the page."""
    threshold: float | None = None
    """Percent, ms for latency_p99, runs for job_failed; None if the condition has no number."""
    for_s: float = 0
    """How long the condition has to hold, in seconds."""
    actions: tuple[str, ...] = ()
    recipients: tuple[str, ...] = ()
    repeat_s: float = 0
    """job_failed: a job that still fails is reported again after so many seconds; 0: at each failure."""

    @property
    def title(self) -> str:
        """The condition in words: `error rate > 10 %`."""
        number = f"{self.threshold:,g}" if self.threshold is not None else ""
        return DEFINITIONS[self.name].title.format(number)


@dataclass(frozen=True, slots=True)
class RuleDefinition:
    """The condition of one rule, and its defaults."""

    about: str
    title: str
    """The condition in words; `{}` is the threshold."""
    actions: tuple[str, ...]
    for_s: float | None = 0
    """None: the condition holds at once, and the file has no such key."""
    severity: Severity = "warning"
    repeat_s: float | None = None
    """None: an incident is reported once."""
    threshold: float | None = None
    threshold_key: str = ""
    """The threshold's key in the file; empty: the condition has no number."""
    limits: Any = None
    """Pydantic constraint of the threshold."""
    is_about_job: bool = False
    """The rule is checked for each job, which its action may disable."""


PERCENT = Field(ge=0, le=100, strict=False)
ABOVE_ZERO_PERCENT = Field(gt=0, le=100, strict=False)
MILLISECONDS = Field(gt=0, strict=False)
RUNS = Field(ge=1, le=1_000, multiple_of=1, strict=False)

DEFINITIONS: dict[RuleName, RuleDefinition] = {
    "success_rate": RuleDefinition(
        "Share of a job's messages that were acknowledged.",
        "success rate < {} %",
        ("mail", "log_error"),
        for_s=300,
        threshold=95,
        threshold_key="threshold_percent",
        limits=PERCENT,
        is_about_job=True,
    ),
    "latency_p99": RuleDefinition(
        "Acknowledgement latency that 99 % of a job's messages do not exceed.",
        "p99 latency > {} ms",
        ("mail", "log_warning"),
        for_s=600,
        threshold=5_000,
        threshold_key="threshold_ms",
        limits=MILLISECONDS,
        is_about_job=True,
    ),
    "producer_disconnected": RuleDefinition(
        "A cluster that jobs send to does not answer.",
        "producer disconnected",
        ("mail", "sms", "log_error"),
        for_s=300,
        severity="critical",
    ),
    "error_rate": RuleDefinition(
        "Share of a job's messages that failed.",
        "error rate > {} %",
        ("mail", "log_error", "disable_job"),
        for_s=60,
        threshold=10,
        threshold_key="threshold_percent",
        limits=PERCENT,
        is_about_job=True,
    ),
    "runner_memory": RuleDefinition(
        "Share of the machine's memory that the runner uses.",
        "memory of the runner > {} %",
        ("log_warning", "collect_garbage"),
        for_s=300,
        threshold=80,
        threshold_key="threshold_percent",
        limits=ABOVE_ZERO_PERCENT,
    ),
    "job_late": RuleDefinition(
        "A job has no success at its `expect.by`.",
        "no success in time",
        ("mail", "log_error"),
        is_about_job=True,
    ),
    "spool_damaged": RuleDefinition(
        "A segment of the spool could not be read and was set aside.",
        "a segment of the spool cannot be read",
        ("mail", "log_error"),
    ),
    "job_failed": RuleDefinition(
        "A job's runs that failed one after the other; the runner has repeated each as often as it does.",
        "failed runs in a row ≥ {}",
        ("mail",),
        for_s=None,
        repeat_s=43_200,
        threshold=1,
        threshold_key="threshold_failures",
        limits=RUNS,
        is_about_job=True,
    ),
}
OF_JOBS = tuple(name for name, definition in DEFINITIONS.items() if definition.is_about_job)
"""Rules whose subject is a job."""


Seconds = Annotated[float, Field(ge=0, le=604_800, strict=False)]


@completed_from(Rule, without=("name", "threshold", "for_s", "repeat_s"))
class RuleShape(StrictModel):
    """What every rule has in the file."""

    actions: list[str]
    recipients: list[EmailAddress]


def _rule_shape(definition: RuleDefinition) -> type[StrictModel]:
    fields: dict[str, Any] = {
        "severity": (Severity, definition.severity),
        "actions": (list[str], list(definition.actions)),
    }
    for key, default in (("for_s", definition.for_s), ("repeat_s", definition.repeat_s)):
        if default is not None:
            fields[key] = (Seconds, default)
    if definition.threshold_key:
        fields[definition.threshold_key] = (Annotated[float, definition.limits], definition.threshold)
    return create_model("RuleShape", __base__=RuleShape, __doc__=definition.about, **fields)


def _alerts_shape() -> type[StrictModel]:
    shapes = {name: _rule_shape(definition) for name, definition in DEFINITIONS.items()}
    fields: dict[str, Any] = {name: (shape, shape()) for name, shape in shapes.items()}
    rules = create_model("RulesShape", __base__=StrictModel, **fields)
    return create_model("AlertsShape", __base__=StrictModel, channels=(Channels, {}), rules=(rules, rules()))


Channels = dict[Annotated[str, AfterValidator(_channel)], Annotated[str, Field(min_length=1)]]
AlertsShape = _alerts_shape()
"""The whole file."""


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


def merged_document(given: Mapping[str, Any], changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the defaults with the keys that a document of alerts.json gives, and then with further changes.

    Args:
        given: The document; only keys of known rules are used.
        changes: Rule → key → value.
    """
    document: dict[str, Any] = json.loads(default_document())
    document["channels"] = dict(given.get("channels", {}))
    for rules in (given.get("rules", {}), changes):
        for name, values in rules.items():
            document["rules"].setdefault(name, {}).update(values)
    return document


def changed_alerts(path: Path, changes: Mapping[str, Mapping[str, Any]]) -> AlertFile:
    """Returns the rules of alerts.json with other values, without writing them.

    Args:
        path: alerts.json; it need not exist.
        changes: Rule → key → value, as in the file.

    Raises:
        ConfigError: The first problem of the file, or of a change.
    """
    load_alerts(path)
    given = json.loads(path.read_text(encoding="utf-8-sig")) if path.exists() else {}
    alerts, problems = parse_alerts(
        parse_json_file(path, json.dumps(merged_document(given, changes), ensure_ascii=False, indent=2))
    )
    if problems or alerts is None:
        raise problems[0]
    return alerts


def _alerts(shape: StrictModel) -> AlertFile:
    rules: dict[str, Rule] = {}
    entries: dict[str, dict[str, Any]] = shape.rules.model_dump()
    for name, definition in DEFINITIONS.items():
        entry = entries[name]
        threshold = entry.pop(definition.threshold_key, None)
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()
        }
        rules[name] = Rule(name, threshold=threshold, **values)
    return AlertFile(rules, dict(shape.channels))


def _problems(file: JsonFile, shape: StrictModel) -> list[ConfigError]:
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
