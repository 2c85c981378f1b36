"""Commands for an installation: check, doctor, health, config, identity, service."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from core.admin.check import check as check_files
from core.admin.diagnosis import diagnose, workspace_health
from core.admin.edit_settings import (
    DEFAULT_ENVIRONMENT,
    Applies,
    change_default_environment,
    change_setting,
    setting_applies,
)
from core.admin.os_service import Service, perform, status, steps, this_system
from core.admin.schema_checks import check_schemas
from core.app import App
from core.cli.documents import check_results_document, problems_document, settings_document
from core.cli.options import JsonOption, WorkspaceOption, now
from core.cli.output import print_answer, print_json, print_lines
from core.cli.render import check_result_lines, check_summary, problem_lines, settings_lines
from core.errors import ConfigError
from core.language import Data
from core.model.check_result import CheckResult
from core.records.ledger import Ledger
from core.records.rights import local_caller
from core.workspace.identity import identity_problem, read_identity
from core.workspace.identity import resolve_identity as keep_answer
from core.workspace.paths import Workspace
from core.workspace.settings import load_settings

__all__ = ["app"]

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def check(
    workspace: WorkspaceOption = None,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect", help="Also compare the schemas of jobs with the registry: contacts databases and registries."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Checks every file of the workspace and lists all problems; contacts nothing without --connect."""
    place = Workspace.find(workspace, os.environ)
    problems = check_files(place, os.environ)
    if connect and not any(problem.severity == "error" for problem in problems):
        with App.open(workspace) as opened:
            problems += check_schemas(opened, now())
    if as_json:
        print_json(problems_document(problems))
    else:
        print_lines(problem_lines(problems, place.root.resolve().name))
    raise typer.Exit(2 if any(problem.severity == "error" for problem in problems) else 0)


@app.command()
def doctor(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Contacts every database and broker, and checks disk, clock and permissions."""
    with App.open(workspace) as opened:
        _print_check_results(diagnose(opened, now), as_json=as_json)


@app.command()
def health(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Is the runner alive, and has each job succeeded in time? Exit code 1 if not: for your own monitoring."""
    with App.open(workspace) as opened:
        _print_check_results(workspace_health(opened, now()), as_json=as_json)


@app.command()
def config(
    change: Annotated[
        str, typer.Option("--set", metavar="NAME=VALUE", help="Write a setting into .env, or default_environment.")
    ] = "",
    unset: Annotated[
        str, typer.Option(metavar="NAME", help="Remove a setting from .env, or default_environment.")
    ] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists each setting, its value (secrets as ***) and its origin, and the databases; or changes a setting in .env."""
    if change or unset:
        _change_setting(change, unset, workspace, as_json=as_json)
        return
    with App.open(workspace) as opened:
        rows = opened.settings.table()
        with suppress(ConfigError):  # a connections.json that is missing or wrong is reported by `check`
            rows += opened.connections.client_options()
        databases: list[dict[str, Any]] = []
        with suppress(ConfigError):  # check says what is wrong with connections.json
            databases = opened.connections.database_entries()
    if as_json:
        print_json(settings_document(rows) | {"databases": databases})
    else:
        print_lines([*settings_lines(rows), *map(_database_line, databases)])


def _database_line(entry: Mapping[str, Any]) -> str:
    keys = ", ".join(f"{key} = {value}" for key, value in entry.items() if key != "name")
    return f"connection {Data(entry['name'])}: {Data(keys)}"


_APPLIES: dict[Applies, str] = {
    "next run": "the next run uses it",
    "runner": "a runner that works now reads it when it is started again",
    "runner and page": "a runner and a page that work now read it when they are started again",
    "at once": "it holds at once",
}


def _change_setting(change: str, unset: str, workspace: Path | None, *, as_json: bool) -> None:
    name, equals, value = change.partition("=")
    if bool(change) == bool(unset) or (change and not equals):
        raise ConfigError("one setting is changed at a time", remedy="write --set NAME=VALUE, or --unset NAME")
    place = Workspace.find(workspace, os.environ)  # not an App: settings that are wrong are what is changed here
    name, new = (name, value) if change else (unset, None)
    is_default_environment = name == DEFAULT_ENVIRONMENT
    file = place.connections_file.name if is_default_environment else ".env"
    with Ledger(place.ledger_file) as ledger:
        if is_default_environment:
            change_default_environment(place, ledger, new, os.environ, caller=local_caller(), now=now())
        else:
            change_setting(place, ledger, name, new, os.environ, caller=local_caller(), now=now())
    answer = f"{name} is {'removed from' if new is None else 'written into'} {file}; {_APPLIES[setting_applies(name)]}"
    print_answer({"name": name, "value": new, "answer": answer}, as_json)


@app.command()
def identity(
    resolve_identity: Annotated[
        Literal["moved", "copied"] | None,
        typer.Argument(help="moved: it is the same workspace in another place. copied: it is another one from now on."),
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Shows the identity under which runs of exactly_once send, or records where this workspace came from."""
    place = Workspace.find(workspace, os.environ)
    if resolve_identity:
        keep_answer(place, resolve_identity, now())
    known, question = read_identity(place), identity_problem(place)
    if question:
        raise question
    made = f"{known.id}, at {known.place}" if known else "none yet: the first run of exactly_once makes it"
    print_answer({"id": known.id if known else None, "answer": f"identity {made}"}, as_json)


@app.command()
def service(
    action: Annotated[
        Literal["install", "uninstall", "start", "stop", "restart", "status"],
        typer.Argument(help="What to do with the service."),
    ],
    page: Annotated[bool, typer.Option("--page", help="The page instead of the runner.")] = False,
    account: Annotated[str, typer.Option(help="install: the account that it runs as, a user or DOMAIN\\NAME$.")] = "",
    name: Annotated[str, typer.Option(help="Another name, for a second workspace on this machine.")] = "",
    nssm: Annotated[str, typer.Option(metavar="PROGRAM", help="Windows: where nssm.exe is.")] = "nssm",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Makes the runner a service that starts with this machine, or controls that service."""
    place = Workspace.find(workspace, os.environ)
    stop_timeout_s = load_settings(place, os.environ).PSTT_STOP_TIMEOUT_S
    made = Service.here(place.root, page=page, account=account, stop_timeout_s=stop_timeout_s, given_name=name)
    system = this_system()
    planned = steps(action, made, system=system, nssm=nssm)
    if dry_run:
        code, lines = 0, [step.shown(system) for step in planned]
    elif action == "status":
        runs, word = status(made, system=system, nssm=nssm)
        code, lines = (0, [f"✔ {made.name}: {word}"]) if runs else (1, [f"✘ {made.name}: {word}"])
    else:
        code, lines = 0, [*perform(planned, system), f"✔ {made.name}: {action} done"]
    print_json({"service": made.name, "action": action, "lines": lines}) if as_json else print_lines(lines)
    raise typer.Exit(code)


def _print_check_results(results: Iterable[CheckResult], *, as_json: bool) -> None:
    """Prints each result as soon as it is known, then how many there are of each kind.

    Raises:
        typer.Exit: Always: 0 nothing failed, 1 something failed, 3 a server cannot be reached.
    """
    seen = []
    for result in results:
        seen.append(result)
        if not as_json:
            print_lines(check_result_lines(result))
    if as_json:
        print_json(check_results_document(seen))
    else:
        print_lines([check_summary(seen)])
    failed = [result for result in seen if result.status == "fail"]
    raise typer.Exit(3 if any(result.unreachable for result in failed) else 1 if failed else 0)
