"""Commands that look into a cluster: topics and messages. They read, commit nothing and join no consumer group."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from core.admin.topic_messages import (
    MOST_MESSAGES,
    MessageQuery,
    browse,
    forgets,
    message_at,
    topics_of_cluster,
)
from core.admin.topic_tail import TopicTail
from core.app import App
from core.cli.follow import print_tail
from core.cli.message_lines import (
    MOCK_NOTE,
    message_document,
    message_lines,
    messages_document,
    messages_lines,
    topic_document,
    topic_lines,
)
from core.cli.options import ClusterOption, JsonOption, TopicArgument, WorkspaceOption
from core.cli.output import print_json, print_lines
from core.errors import ConfigError
from core.records.rights import local_caller

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_PLACE = re.compile(r"(\d{1,9})@(\d{1,18})")


@app.command()
def topics(
    text: Annotated[str, typer.Argument(metavar="[TEXT]", help="A part of the name.")] = "",
    cluster: ClusterOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 100,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the topics of a cluster with their partitions and message counts."""
    with App.open(workspace) as opened:
        chosen = opened.cluster(cluster)
        found, total = topics_of_cluster(chosen, text, limit=limit)
    if as_json:
        print_json({"cluster": chosen.name, "topics": [topic_document(topic) for topic in found], "total": total})
    else:
        print_lines(topic_lines(found, total, text))


@app.command()
def messages(
    topic: TopicArgument,
    at: Annotated[
        str | None, typer.Option("--at", metavar="PARTITION@OFFSET", help="One message, whole: 0@4711.")
    ] = None,
    partition: Annotated[
        list[int] | None, typer.Option("--partition", min=0, help="Only this one; may be given again.")
    ] = None,
    from_offset: Annotated[int | None, typer.Option(min=0, metavar="OFFSET", help="The first offset.")] = None,
    to_offset: Annotated[int | None, typer.Option(min=0, metavar="OFFSET", help="The last offset, included.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="ISO 8601; without an offset in the workspace's time zone.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Not included.")] = None,
    key: Annotated[str, typer.Option(metavar="TEXT", help="Messages with exactly this key.")] = "",
    key_contains: Annotated[str, typer.Option(metavar="TEXT", help="Messages with this in their key.")] = "",
    value_contains: Annotated[str, typer.Option(metavar="TEXT", help="Messages with this in their value.")] = "",
    where: Annotated[
        str,
        typer.Option(
            "--where", metavar="CONDITION", help="On the JSON of the value: BODY.BARCODE = 'X' AND BODY.N > 3."
        ),
    ] = "",
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest first instead of the newest.")] = False,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_MESSAGES, help="Default: 20. With --follow: ends after so many; default: none."),
    ] = None,
    next_page: Annotated[
        str, typer.Option("--next", metavar="PAGE", help="The next page, as the one before names it.")
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", help="Shows each new message as it comes, until Ctrl-C; --json: one a line.")
    ] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Every message with headers and its whole value.")] = False,
    cluster: ClusterOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows the messages of a topic, the newest first, decoded by the schema registry; commits nothing."""
    if key and key_contains:
        raise ConfigError("--key and --key-contains exclude each other", remedy="give one of them")
    if follow and (at is not None or oldest):
        raise ConfigError("--follow goes neither with --at nor with --oldest", remedy="leave one of them out")
    with App.open(workspace) as opened:
        chosen, timezone = opened.cluster(cluster), opened.timezone
        if at is not None:
            one = message_at(chosen, topic, *_place(at), caller=local_caller())
            print_json(message_document(one)) if as_json else print_lines(message_lines(one, timezone))
            return
        query = MessageQuery(
            partitions=tuple(partition or ()),
            first_offset=from_offset,
            last_offset=to_offset,
            since=_moment("--since", since, timezone),
            until=_moment("--until", until, timezone),
            key=key or key_contains,
            key_match="exact" if key else "contains",
            value=value_contains,
            where=where,
            newest_first=not oldest and not follow,
            limit=MOST_MESSAGES if follow else limit or 20,
            rest=next_page,
        )
        if follow:
            with TopicTail(chosen, topic, query, caller=local_caller()) as tail:
                note = MOCK_NOTE if forgets(chosen) else ""
                print_tail(tail, timezone, most=limit, whole=whole, as_json=as_json, note=note)
            return
        found = browse(chosen, topic, query, caller=local_caller())
    if as_json:
        print_json(messages_document(found))
    else:
        print_lines(messages_lines(found, timezone, whole=whole))


def _place(text: str) -> tuple[int, int]:
    """Reads `PARTITION@OFFSET`."""
    found = _PLACE.fullmatch(text.replace(" ", ""))
    if found is None:
        raise ConfigError(
            f"--at {text} is not the place of a message", remedy="write --at 0@4711: partition and offset"
        )
    return int(found[1]), int(found[2])


def _moment(option: str, text: str | None, timezone: str) -> datetime | None:
    """Reads a time; one without an offset is in the time zone of the workspace."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} {text} is not a time", remedy="write it as 2026-01-17T02:00") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo(timezone))
