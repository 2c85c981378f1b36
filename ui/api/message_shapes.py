"""Responses of the routes that show messages of a topic and its consumer groups."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from ui.api.shapes import TakenBody


class PartitionOffsets(BaseModel):
    """The offsets of one partition."""

    partition: int
    earliest: int = Field(description="Of the oldest message that is still stored.")
    end: int = Field(description="Of the next message.")
    messages: int


class MessageHeader(BaseModel):
    """One header of a message."""

    name: str
    value: str | None = Field(description="Hexadecimal digits where it is not text.")


class TopicMessage(BaseModel):
    """A message as it is on its topic, decoded by the schema registry."""

    topic: str = Field(examples=["pstt-traces"])
    partition: int
    offset: int
    timestamp: datetime | None
    timestamp_type: Literal["create", "append"] = Field(description="Set by the producer, or by the broker.")
    key: str | None = Field(examples=["572680001120"])
    key_format: str = Field(examples=["text"])
    value: str | None = Field(
        description="JSON text, other text, or hexadecimal digits; null: a tombstone.", examples=['{"data": {}}']
    )
    value_format: str = Field(
        description="json, text, hex, null, or the format of its schema: avro, protobuf, json_schema."
    )
    schema_id: int | None
    size_bytes: int = Field(description="Of the whole value.")
    is_cut: bool = Field(description="`value` is only the beginning; the address of the one message has it whole.")
    problem: str = Field(description="Why it is not decoded although it names a schema.")
    headers: list[MessageHeader]
    run_id: str | None = Field(description="The run that sent it.")
    job: str | None
    message_id: str | None


class Messages(BaseModel):
    """One page of the messages of a topic."""

    cluster: str
    topic: str
    partitions: list[PartitionOffsets]
    messages: list[TopicMessage]
    examined: int = Field(description="How many messages were looked through.")
    bounded: bool = Field(description="It stopped there, and there is more to look through.")
    left: int = Field(description="How many offsets were not looked through.")
    missing: list[str] = Field(description="Paths of `where` that none of these messages has.")
    next: str | None = Field(description="The parameter `next` of the following page; null: there is none.")
    note: str | None


class GroupPartition(BaseModel):
    """How far a group has read one partition."""

    partition: int
    committed: int | None = Field(description="Of the next message that it reads; null: it never committed.")
    end: int
    lag: int | None


class GroupMemberRow(BaseModel):
    """A consumer of a group."""

    client_id: str
    host: str
    member_id: str
    partitions: list[int] = Field(description="Of this topic.")


class ConsumerGroupRow(BaseModel):
    """A group that reads the topic, or has read it."""

    group: str
    state: str
    lag: int | None
    uncommitted: int = Field(
        description="Messages in partitions without a committed offset; `lag` does not count them."
    )
    never_committed: bool
    partitions: list[GroupPartition]
    members: list[GroupMemberRow]


class ConsumerGroups(BaseModel):
    """The consumer groups of a topic, the largest lag first."""

    topic: str
    groups: list[ConsumerGroupRow]
    asked: int = Field(description="How many groups of the cluster were asked.")
    total: int
    refused: int = Field(description="How many of them this account may not read.")
    note: str | None


class ResetShape(TakenBody):
    """Which offsets are reset, and where."""

    group: str = Field(min_length=1, max_length=300, examples=["billing"])
    to: str = Field(
        min_length=1,
        max_length=60,
        description="`earliest`, `latest`, an offset, or ISO 8601; without an offset in PSTT_TIMEZONE.",
    )
    partitions: list[Annotated[int, Field(ge=0, le=999_999)]] = Field([], max_length=1000, description="Empty: all.")
    dry_run: bool = Field(False, description="Only returns what would change.")


class ResetPartition(BaseModel):
    """What a reset does to one partition."""

    partition: int
    before: int | None = Field(description="Of the next message that the group reads; null: it never committed.")
    after: int
    end: int
    again: int = Field(description="Messages that are read again.")
    left_out: int = Field(description="Messages that are not read.")


class ResetGroup(BaseModel):
    """What a reset of a consumer group changes, or has changed."""

    cluster: str
    topic: str
    group: str
    to: str
    partitions: list[ResetPartition]
    changed: int = Field(description="Partitions whose offset changes.")
    again: int
    left_out: int
    done: bool
