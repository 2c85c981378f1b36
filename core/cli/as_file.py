"""Commands for a workspace as one file: export, apply."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from core.admin.workspace_file import Change, ChangePlan, apply_changes, export_workspace, plan_changes
from core.app import App
from core.cli.options import JsonOption, WorkspaceOption, now
from core.cli.output import print_answer, print_json, print_lines
from core.errors import ConfigError
from core.language import Data
from core.records.rights import local_caller
from core.workspace.atomic import write_atomically
from core.workspace.paths import Workspace
from core.workspace.yaml_file import read_yaml_file

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)
FileArgument = Annotated[Path, typer.Argument(metavar="FILE.yaml", help="The file of the workspace.")]
_DONE = {"create": "created", "change": "changed", "delete": "deleted"}


@app.command()
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.yaml", help="Where it is written; - is standard output.")],
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Writes jobs, SQL files, connections and alert rules into one YAML file for git, without secrets."""
    text = export_workspace(Workspace.find(workspace, os.environ))
    if str(file) == "-":
        sys.stdout.write(text)
        return
    if file.exists():
        _require_ours(file)
    write_atomically(file, text)
    print_answer({"file": str(file), "bytes": len(text.encode()), "answer": f"{file} is written"}, as_json)


def _require_ours(file: Path) -> None:
    """Refuses to write over a file that `export` did not write.

    Raises:
        ConfigError: It is another file.
    """
    try:
        is_ours = "pstt_kafka" in read_yaml_file(file).document
    except ConfigError:
        is_ours = False
    if not is_ours:
        raise ConfigError(
            f"{file} is no file of this command", why="it would be replaced", remedy="name another file, or remove it"
        )


@app.command()
def apply(
    file: FileArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Delete the jobs that the file does not have.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows how the workspace differs from a file of `export`, and makes it the same."""
    with App.open(workspace) as opened:
        plan = plan_changes(opened.workspace, read_yaml_file(file), opened.environ, prune=prune)
        if not as_json:
            print_lines(plan_lines(plan))
        made = []
        if not dry_run:
            for change in apply_changes(plan, opened.ledger, caller=local_caller(), now=now()):
                made.append(change.name)
                if not as_json:
                    print_lines([f"✔ {_DONE[change.action]} {Data(change.name)}"])
    if as_json:
        print_json(
            {
                "changes": [_document(change) for change in plan.changes],
                "unchanged": plan.unchanged,
                "notes": plan.notes,
                "made": made,
            }
        )


def _document(change: Change) -> dict[str, object]:
    return {"action": change.action, "name": change.name, "diff": change.diff()}


def plan_lines(plan: ChangePlan) -> list[str]:
    """Returns each change with its differing lines, then how many there are."""
    lines: list[str] = []
    for change in plan.changes:
        lines += [f"{change.symbol} {Data(change.name)}", *(f"      {Data(line)}" for line in change.diff())]
    counts = [
        f"{sum(change.action == action for change in plan.changes)} {word}"
        for action, word in (("create", "new"), ("change", "changed"), ("delete", "deleted"))
    ]
    notes = [f"! {note}" for note in plan.notes]
    return [*lines, *notes, f"{', '.join(counts)}, {plan.unchanged} as they are"]
