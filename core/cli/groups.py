"""The commands `groups …`: the consumer groups of a topic, and a reset of the offsets of one.

`groups TOPIC` is short for `groups list TOPIC`, as the command was before it had others.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from core.admin.group_offsets import plan_reset, reset_offsets
from core.admin.topic_messages import consumer_groups
from core.app import App
from core.cli.message_lines import group_lines, groups_document, reset_document, reset_lines
from core.cli.options import ClusterOption, JsonOption, TopicArgument, WorkspaceOption, now
from core.cli.output import print_json, print_lines, print_note
from core.records.rights import local_caller

__all__ = ["app"]


class ListByDefault(TyperGroup):
    """Takes `groups TOPIC` for `groups list TOPIC`."""

    default_command = "list"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Inserts `list` where the first word is a topic, also one that is called as a command is."""
        first, second = [*args, "", ""][:2]
        if first and first not in ctx.help_option_names:
            is_command = first in self.commands and bool(second) and not second.startswith("-")
            is_help = first in self.commands and second in ctx.help_option_names
            if not is_command and not is_help:
                args = [self.default_command, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    name="groups",
    cls=ListByDefault,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Lists the consumer groups of a topic: groups TOPIC. Resets the offsets of one: groups reset TOPIC GROUP.",
)


@app.command("list")
def list_(
    topic: TopicArgument,
    cluster: ClusterOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the consumer groups of a topic: how far each has read every partition, and its members."""
    with App.open(workspace) as opened:
        found = consumer_groups(opened.cluster(cluster), topic)
    print_json(groups_document(topic, found)) if as_json else print_lines(group_lines(topic, found))


@app.command()
def reset(
    topic: TopicArgument,
    group: Annotated[str, typer.Argument(metavar="GROUP", help="The consumer group; it may have no members.")],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="WHERE",
            help="earliest, latest, an offset, or an ISO 8601 time; without an offset in the workspace's time zone.",
        ),
    ],
    partition: Annotated[
        list[int] | None, typer.Option("--partition", min=0, help="Only this one; may be given again.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Does not ask. Without it --json changes nothing.")] = False,
    cluster: ClusterOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows what a reset of a group's offsets would change, asks, and resets them; refused while the group has members."""
    with App.open(workspace) as opened:
        chosen = opened.cluster(cluster)
        plan = plan_reset(chosen, topic, group, to, timezone=opened.timezone, partitions=tuple(partition or ()))
        if not as_json:
            print_lines(reset_lines(plan))
        is_wanted = bool(plan.changed) and (yes or (not as_json and _is_wanted()))
        if is_wanted:
            reset_offsets(opened.ledger, chosen, plan, caller=local_caller(), now=now())
    if as_json:
        print_json(reset_document(plan, done=is_wanted))
    elif plan.changed:
        print_lines(["✔ the offsets are reset" if is_wanted else "– nothing is changed"])
        raise typer.Exit(0 if is_wanted else 1)


def _is_wanted() -> bool:
    """Asks. Returns False where there is nobody to answer."""
    print_note("Reset these offsets? [y/N] ", end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes", "s", "sì", "si")
