"""Bodies and responses of `/api/alerts`."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from core.notify.rules import RuleName
from core.workspace.job_schema import EmailAddress
from ui.api.shapes import TakenBody


class AcknowledgeShape(TakenBody):
    """An acknowledgement of an alert."""

    note: str = Field("", max_length=1_000, description="What others should know.")


class SilenceShape(TakenBody):
    """What is silenced, and for how long. A rule, a subject or both are named."""

    rule: str | None = Field(None, max_length=40, description="A rule of alerts.json; none: every rule.")
    subject: str | None = Field(None, max_length=250, description="A job's file name or a cluster; none: every one.")
    until: str = Field(
        min_length=1, max_length=60, description="`30m`, `2h`, `3d`, or ISO 8601; without an offset in PSTT_TIMEZONE."
    )
    note: str = Field("", max_length=1_000, description="The reason.")


class ChannelTestShape(TakenBody):
    """Which channel is tested."""

    channel: str = Field("mail", min_length=1, max_length=100, description="`mail`, or a channel of alerts.json.")
    to: list[EmailAddress] = Field([], max_length=50, description="mail: addresses; empty: PSTT_MAIL_TO.")


class SimulateShape(TakenBody):
    """How far back rules are evaluated, and with which numbers."""

    days: int = Field(7, ge=1, le=90)
    rules: dict[str, dict[str, Any]] = Field({}, description="Rule → key → value, instead of what alerts.json says.")


class RuleShape(TakenBody):
    """One rule as in alerts.json. A key that is left out gets its default; a rule has only the keys that `GET` shows."""

    enabled: bool = True
    severity: Literal["warning", "critical"] = "warning"
    for_s: int | float = Field(0, ge=0, le=604_800, description="How long the condition has to hold, in seconds.")
    repeat_s: int | float = Field(
        0, ge=0, le=604_800, description="job_failed: when a failure is reported again, in seconds."
    )
    threshold_percent: int | float = Field(0, ge=0, le=100)
    threshold_ms: int | float = Field(1, gt=0)
    threshold_failures: int = Field(1, ge=1, le=1_000)
    actions: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        [], max_length=50, description="mail, log_error, log_warning, disable_job, collect_garbage, or a channel."
    )
    recipients: list[EmailAddress] = Field([], max_length=50)


class AlertRule(BaseModel):
    """One rule that applies."""

    rule: RuleName
    title: str = Field(description="Its condition in words.", examples=["error rate > 10 %"])
    about: str
    values: dict[str, Any] = Field(description="Its keys and values with every default: what `PUT` takes.")


class AlertRuleRows(BaseModel):
    """Every rule, and the channels that their actions may name."""

    rules: list[AlertRule]
    channels: list[str] = Field(description="Names; addresses hold tokens and are never shown.")
    is_default: bool = Field(description="There is no alerts.json: the first change writes it.")


class AlertRow(BaseModel):
    """One alert: a condition of a rule that holds, or held, for one subject."""

    id: int
    rule: str
    subject: str = Field(description="A job's file name, a cluster's name, a segment's name, or `runner`.")
    severity: Literal["warning", "critical"]
    state: Literal["pending", "open", "ended"] = Field(description="pending: it has not held for long enough.")
    since: datetime
    opened_at: datetime | None
    ended_at: datetime | None
    value: float | None
    text: str
    run_id: str | None = Field(description="The run that it is about; null: no single one.")
    acknowledged_at: datetime | None
    acknowledged_by: str | None
    note: str | None
    silenced_until: datetime | None = Field(description="Until when its messages are kept back; null: they are not.")


class SilenceRow(BaseModel):
    """One silence."""

    id: int
    rule: str | None
    subject: str | None
    until: datetime
    note: str | None
    made_by: str
    made_at: datetime
    ended_at: datetime | None = Field(description="When it was ended before its time.")
    ended_by: str | None


class AlertMessage(BaseModel):
    """A message about an alert, a run or a day."""

    kind: Literal["alert", "recovered", "job", "receipt"]
    state: Literal["waiting", "sent", "given_up"]
    channel: str
    recipients: list[str]
    delivered: list[str]
    refused: dict[str, str]
    subject: str
    created_at: datetime
    next_try_at: datetime | None
    sent_at: datetime | None
    tries: int
    last_error: str


class AlertRows(BaseModel):
    """Alerts, silences and messages."""

    incidents: list[AlertRow]
    silences: list[SilenceRow]
    waiting: list[AlertMessage]
    sent: list[AlertMessage]


class Delivered(BaseModel):
    """The answer of a mail server for each recipient; empty for a channel that took the message."""

    delivered: list[str]
    refused: dict[str, str] = Field(description="Address → why it will never be accepted.")
    later: dict[str, str] = Field(description="Address → why it may be accepted later.")


class WouldFireRow(BaseModel):
    """One alert that a rule would have opened."""

    subject: str
    opened_at: datetime
    ended_at: datetime | None = Field(description="Null: the condition still holds.")
    text: str
    run_id: str | None


class SimulatedRule(BaseModel):
    """What one rule would have fired."""

    rule: str
    title: str
    enabled: bool
    for_s: float
    severity: Literal["warning", "critical"]
    not_known: str | None = Field(description="Why its past is not known; null: it is.")
    fired: list[WouldFireRow]


class SimulationRows(BaseModel):
    """What the rules would have fired in a span of the past."""

    since: datetime
    until: datetime
    rules: list[SimulatedRule]
