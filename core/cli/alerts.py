"""The commands `alerts …`: open alerts, a test mail, the file of rules."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from core.admin.actions import allow_test
from core.admin.edit_files import create_alerts
from core.app import App
from core.cli.documents import alert_document
from core.cli.options import JsonOption, WorkspaceOption, now
from core.cli.output import print_answer, print_json, print_lines
from core.cli.render import alert_lines, delivery_lines
from core.notify.wiring import send_test_mail
from core.records.rights import local_caller

__all__ = ["app"]

app = typer.Typer(
    name="alerts",
    add_completion=False,
    rich_markup_mode=None,
    help="Open alerts and their messages; the rules are in alerts.json.",
)


@app.callback(invoke_without_command=True)
def alerts(context: typer.Context, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Lists open alerts, messages that wait, and the messages sent last."""
    if context.invoked_subcommand is not None:
        return
    with App.open(workspace) as opened:
        found = opened.outbox.open_incidents(), opened.outbox.waiting(), opened.outbox.newest(10)
        timezone = opened.timezone
    print_json(alert_document(*found)) if as_json else print_lines(alert_lines(*found, timezone))


@app.command("test")
def alerts_test(
    to: Annotated[list[str] | None, typer.Option("--to", metavar="ADDRESS", help="Default: PSTT_MAIL_TO.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sends a test mail and reports the mail server's answer."""
    with App.open(workspace) as opened:
        allow_test(opened.ledger, "test mail", "mail", caller=local_caller(), now=now(), after={"to": to or []})
        result = send_test_mail(opened, to or (), now())
    print_json(asdict(result)) if as_json else print_lines(delivery_lines(result))
    raise typer.Exit(1 if result.refused or result.later else 0)


@app.command("init")
def alerts_init(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Writes alerts.json with every rule at its default; an existing one is left as it is."""
    with App.open(workspace) as opened:
        file = create_alerts(opened.workspace, opened.ledger, caller=local_caller(), now=now())
    print_answer({"file": str(file), "answer": f"{file} is written: edit it, then python -m core check"}, as_json)
