"""`/api/kafka/topics/{topic}`: its messages, decoded, the consumer groups that read it, and a reset of their offsets."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from core.admin.group_offsets import plan_reset, reset_offsets
from core.admin.topic_messages import MOST_MESSAGES, MessageQuery, browse, consumer_groups, message_at
from core.cli.message_lines import groups_document, message_document, messages_document, reset_document
from ui.api import message_shapes
from ui.api.auth import Administrator, MessageSender, Reader
from ui.api.body import document
from ui.api.documents import takes
from ui.api.kafka import ClusterName, chosen_cluster
from ui.api.problems import responses
from ui.api.workspace import now, opened

router = APIRouter(prefix="/kafka/topics", tags=["kafka"], responses=responses(401, 403, 404, 422, 502, 503))

MOST_OFFSET = 2**53
RESET = {"group": "billing", "to": "2026-01-17T02:00", "dry_run": True}
TopicName = Annotated[str, Path(min_length=1, max_length=249)]
Offset = Annotated[int | None, Query(ge=0, le=MOST_OFFSET)]
Text = Annotated[str, Query(max_length=1000)]
Moment = Annotated[datetime | None, Query(description="Without an offset in the workspace's time zone.")]


@router.get("/{topic}/messages")
def messages(
    caller: MessageSender,
    topic: TopicName,
    cluster: ClusterName = None,
    partition: Annotated[list[Annotated[int, Field(ge=0, le=999_999)]] | None, Query(max_length=1000)] = None,
    from_offset: Offset = None,
    to_offset: Offset = None,
    since: Moment = None,
    until: Moment = None,
    key: Text = "",
    key_match: Literal["exact", "contains"] = "exact",
    value: Annotated[str, Query(max_length=1000, description="A part of the value.")] = "",
    where: Annotated[
        str,
        Query(max_length=1000, description="A condition on the JSON of the value.", examples=["BODY.BARCODE = 'X'"]),
    ] = "",
    order: Literal["newest", "oldest"] = "newest",
    limit: Annotated[int, Query(ge=1, le=MOST_MESSAGES)] = 50,
    next: Annotated[str, Query(max_length=50_000, description="`next` of the page before.")] = "",
) -> message_shapes.Messages:
    """One page of a topic's messages. It looks through 200,000 messages at most, for 10 s: `bounded` says so, `next` goes on."""
    with opened() as app:
        chosen, zone = chosen_cluster(app, cluster), ZoneInfo(app.timezone)
    query = MessageQuery(
        partitions=tuple(partition or ()),
        first_offset=from_offset,
        last_offset=to_offset,
        since=_aware(since, zone),
        until=_aware(until, zone),
        key=key,
        key_match=key_match,
        value=value,
        where=where,
        newest_first=order == "newest",
        limit=limit,
        rest=next,
    )
    return message_shapes.Messages.model_validate(messages_document(browse(chosen, topic, query, caller=caller)))


@router.get("/{topic}/messages/{partition}/{offset}")
def message(
    caller: MessageSender,
    topic: TopicName,
    partition: Annotated[int, Path(ge=0, le=999_999)],
    offset: Annotated[int, Path(ge=0, le=MOST_OFFSET)],
    cluster: ClusterName = None,
) -> message_shapes.TopicMessage:
    """One message, whole."""
    with opened() as app:
        chosen = chosen_cluster(app, cluster)
    found = message_at(chosen, topic, partition, offset, caller=caller)
    return message_shapes.TopicMessage.model_validate(message_document(found))


@router.get("/{topic}/groups")
def groups(caller: Reader, topic: TopicName, cluster: ClusterName = None) -> message_shapes.ConsumerGroups:
    """The consumer groups of a topic: how far each has read every partition, and its members."""
    with opened() as app:
        chosen = chosen_cluster(app, cluster)
    return message_shapes.ConsumerGroups.model_validate(groups_document(topic, consumer_groups(chosen, topic)))


@router.post(
    "/{topic}/groups/reset",
    responses=responses(409, 413, 415),
    openapi_extra=takes(message_shapes.ResetShape, example=RESET),
)
def reset(
    caller: Administrator,
    topic: TopicName,
    asked: Annotated[message_shapes.ResetShape, Depends(document(message_shapes.ResetShape))],
    cluster: ClusterName = None,
) -> message_shapes.ResetGroup:
    """Resets the offsets of a consumer group without members; `"dry_run": true` only returns what would change."""
    with opened() as app:
        chosen = chosen_cluster(app, cluster)
        plan = plan_reset(
            chosen, topic, asked.group, asked.to, timezone=app.timezone, partitions=tuple(asked.partitions)
        )
        if not asked.dry_run:
            reset_offsets(app.ledger, chosen, plan, caller=caller, now=now())
    done = bool(plan.changed) and not asked.dry_run
    return message_shapes.ResetGroup.model_validate(reset_document(plan, done=done))


def _aware(moment: datetime | None, zone: ZoneInfo) -> datetime | None:
    return moment.replace(tzinfo=zone) if moment is not None and moment.tzinfo is None else moment
