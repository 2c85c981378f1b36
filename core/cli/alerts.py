"""The commands `alerts …`: open alerts, acknowledgements, silences, tests, the file of rules and what it would do."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from core.admin import alerts as actions
from core.admin.alert_rules import change_rules, stored_rules
from core.admin.edit_files import create_alerts
from core.app import App
from core.cli.alert_documents import (
    alert_document,
    incident_document,
    rules_document,
    silence_document,
    simulation_document,
)
from core.cli.alert_lines import alert_lines, rules_lines, silence_line, simulation_lines
from core.cli.options import JsonOption, WorkspaceOption, now
from core.cli.output import print_answer, print_json, print_lines
from core.cli.render import delivery_lines
from core.errors import ConfigError
from core.language import Data
from core.notify.delivery import MAIL
from core.notify.silences import AlertRecords
from core.records.rights import local_caller

__all__ = ["app"]

app = typer.Typer(
    name="alerts",
    add_completion=False,
    rich_markup_mode=None,
    help="Open alerts and their messages; the rules are in alerts.json.",
)
NoteOption = Annotated[str, typer.Option("--note", metavar="TEXT", help="What others should know.")]


@app.callback(invoke_without_command=True)
def alerts(context: typer.Context, workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Lists open alerts, silences, messages that wait, and the messages sent last."""
    if context.invoked_subcommand is not None:
        return
    with App.open(workspace) as opened:
        silences = AlertRecords(opened.outbox).active(now())
        found = opened.outbox.open_incidents(), opened.outbox.waiting(), opened.outbox.newest(10), silences
        timezone = opened.timezone
    print_json(alert_document(*found)) if as_json else print_lines(alert_lines(*found, timezone))


@app.command("acknowledge")
def alerts_acknowledge(
    number: Annotated[int, typer.Argument(metavar="ALERT", help="Its number in the list of alerts.")],
    note: NoteOption = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Records that you know of an open alert: it stays in the list, and a job that still fails is not mailed again."""
    with App.open(workspace) as opened:
        made = actions.acknowledge(opened.ledger, number, note, caller=local_caller(), now=now())
        silences = AlertRecords(opened.ledger).active(now())
    answer = f"alert {number} is acknowledged by {made.acknowledged_by}"
    print_json(incident_document(made, silences)) if as_json else print_lines([f"✔ {answer}"])


@app.command("silence")
def alerts_silence(
    until: Annotated[
        str, typer.Option("--until", metavar="END", help="30m, 2h, 3d, or a time such as 2026-01-17T08:00.")
    ],
    rule: Annotated[str, typer.Option("--rule", metavar="RULE", help="A rule; without it every rule.")] = "",
    subject: Annotated[
        str, typer.Option("--subject", metavar="NAME", help="A job's file name or a cluster; without it every one.")
    ] = "",
    note: NoteOption = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keeps messages back up to a time; what still lasts then is reported."""
    with App.open(workspace) as opened:
        end = actions.silence_end(until, opened.timezone, now())
        made = actions.silence(
            opened.ledger, rule=rule, subject=subject, until=end, note=note, caller=local_caller(), now=now()
        )
        timezone = opened.timezone
    print_json(silence_document(made)) if as_json else print_lines([f"✔{silence_line(made, timezone)[1:]}"])


@app.command("end-silence")
def alerts_end_silence(
    number: Annotated[int, typer.Argument(metavar="SILENCE", help="Its number in the list of alerts.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ends a silence before its time."""
    with App.open(workspace) as opened:
        made = actions.end_silence(opened.ledger, number, caller=local_caller(), now=now())
    print_json(silence_document(made)) if as_json else print_lines([f"✔ silence {number} has ended"])


@app.command("simulate")
def alerts_simulate(
    days: Annotated[int, typer.Option("--days", metavar="N", help="How far back, 1 to 90 days.")] = 7,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="RULE.KEY=VALUE", help="Another number than in alerts.json; several are possible."
        ),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists what the rules would have fired in the last days; changes and sends nothing."""
    with App.open(workspace) as opened:
        found = actions.simulated(opened, days=days, now=now(), changes=_changes(change or []))
        timezone = opened.timezone
    print_json(simulation_document(found)) if as_json else print_lines(simulation_lines(found, timezone))


def _changes(texts: list[str]) -> dict[str, dict[str, Any]]:
    changes: dict[str, dict[str, Any]] = {}
    for text in texts:
        place, equals, value = text.partition("=")
        rule, dot, key = place.partition(".")
        if not (rule and dot and key and equals):
            raise ConfigError(f"--set {text[:60]} is not RULE.KEY=VALUE", remedy="error_rate.threshold_percent=5")
        values = changes.setdefault(rule, {})
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return changes


@app.command("rules")
def alerts_rules(
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="RULE.KEY=VALUE", help="Writes it into alerts.json; several are possible."),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the rules that apply, with every key and its value; changes some of them, all or none."""
    with App.open(workspace) as opened:
        if change:
            wanted = _changes(change)
            found = change_rules(opened.workspace, opened.ledger, wanted, caller=local_caller(), now=now())
        else:
            found = stored_rules(opened.workspace)
    print_json(rules_document(found)) if as_json else print_lines(rules_lines(found))


@app.command("test")
def alerts_test(
    to: Annotated[list[str] | None, typer.Option("--to", metavar="ADDRESS", help="Default: PSTT_MAIL_TO.")] = None,
    channel: Annotated[str, typer.Option("--channel", metavar="NAME", help="A channel of alerts.json.")] = MAIL,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sends a test message, by mail or through another channel, and reports the server's answer."""
    with App.open(workspace) as opened:
        result = actions.send_test(opened, channel, caller=local_caller(), now=now(), to=to or ())
    if as_json:
        print_json(asdict(result))
    else:
        print_lines(delivery_lines(result) if channel == MAIL else [f"✔ channel {Data(channel)} took the message"])
    raise typer.Exit(1 if result.refused or result.later else 0)


@app.command("init")
def alerts_init(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Writes alerts.json with every rule at its default; an existing one is left as it is."""
    with App.open(workspace) as opened:
        file = create_alerts(opened.workspace, opened.ledger, caller=local_caller(), now=now())
    print_answer({"file": str(file), "answer": f"{file} is written: edit it, then python -m core check"}, as_json)
