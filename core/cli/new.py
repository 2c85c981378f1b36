"""The command `new job`: asks for what a job needs, writes its file and shows its first message."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from core.admin.edit_jobs import create_job, slug_of
from core.app import App
from core.calendar.cron import check_cron
from core.cli.documents import preview_document
from core.cli.options import JsonOption, WorkspaceOption, now, parameters_of
from core.cli.output import error_document, error_lines, print_json, print_lines, said
from core.cli.render import preview_lines
from core.errors import ConfigError, PsttError
from core.language import Data
from core.model.job import Job
from core.model.query import Parameter
from core.records.rights import local_caller
from core.sql.parser import load
from core.workspace.jobs import SUFFIX, checked_job
from core.workspace.json_file import nearest

__all__ = ["app"]

app = typer.Typer(name="new", add_completion=False, rich_markup_mode=None, no_args_is_help=True)
MANUAL = "manual"


@app.callback()
def root() -> None:
    """Asks for what is needed, and writes it."""


@app.command()
def job(
    name: Annotated[str, typer.Option(help="The job's name; its file is called after it.")] = "",
    query: Annotated[str, typer.Option(metavar="FILE.sql", help="An SQL file in queries/.")] = "",
    connection: Annotated[str, typer.Option(help="A connection of connections.json.")] = "",
    topic: Annotated[str, typer.Option(help="The topic that its messages go to.")] = "",
    key: Annotated[str, typer.Option(metavar="COLUMN", help="The column that makes the key of a message.")] = "",
    cron: Annotated[str, typer.Option(help='When it runs, such as "0 2 * * *", or manual.')] = "",
    param: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter's value or template.")
    ] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Asks for what a job needs, writes its file, disabled, and shows its first message."""
    with App.open(workspace) as opened:
        questions = Questions(asks=not as_json and sys.stdin.isatty())
        name = questions.text("--name", name, "Name of the job")
        queries = sorted(path.name for path in opened.workspace.queries_dir.glob("*.sql"))
        query = questions.choice("--query", query, "SQL file", queries, "put an SQL file into queries/ first")
        names = opened.connections.database_names
        connection = questions.choice(
            "--connection", connection, "Connection", names, "describe a database in connections.json first"
        )
        parsed = load(opened.workspace.query_file(query), opened.connections.dialect(connection))
        given = parameters_of(param)
        values = {
            each.name: questions.text(
                f"--param {each.name}=…", given.get(each.name, ""), _question(each), default=_usual_value(each)
            )
            for each in parsed.parameters
            if each.mandatory or each.name in given
        }
        if unknown := given.keys() - {each.name for each in parsed.parameters}:
            wrong = min(unknown)
            raise ConfigError(
                f"{query} has no parameter {wrong}", remedy=nearest(wrong, [each.name for each in parsed.parameters])
            )
        topic = questions.text("--topic", topic, "Topic", default=_usual_topic(opened, connection))
        key = questions.text("--key", key, "Column of the key (- for none)", default="-")
        cron = questions.text("--cron", cron, "When, as cron (or manual)", default=MANUAL, check=_require_cron)
        document = _document(name, query, connection, topic, key, cron, values)
        made = _create(opened, slug_of(name), document)
        _report(opened, made, as_json=as_json)


class Questions:
    """Asks for each answer that no option gave.

    Args:
        asks: Whether a person is there to answer.
    """

    def __init__(self, *, asks: bool) -> None:
        self._asks = asks

    def text(
        self,
        option: str,
        given: str,
        question: str,
        *,
        default: str = "",
        check: Callable[[str], None] = lambda _: None,
    ) -> str:
        """Returns the option's value, else the answer, else the default where nobody is asked.

        Raises:
            ConfigError: There is none of them, or the option's value is wrong.
        """
        if given:
            check(given)
            return given
        if not self._asks:
            if default:
                return default
            raise ConfigError(f"{option} is missing", remedy="give it, or call this in a terminal, where it asks")
        while True:
            answer = str(typer.prompt(said(question), default=default or None)).strip()
            try:
                check(answer)
            except ConfigError as error:
                print_lines(error_lines(error))
            else:
                return answer

    def choice(self, option: str, given: str, question: str, among: Sequence[str], if_none: str) -> str:
        """Returns one of some names.

        Raises:
            ConfigError: There are no names, or the option's value is none of them.
        """
        if not among:
            raise ConfigError(f"there is nothing to choose for {option}", remedy=if_none)
        if self._asks and not given:
            print_lines(f"  {number}  {Data(name)}" for number, name in enumerate(among, 1))

        def check(answer: str) -> None:
            if answer not in among and not _is_number(answer, among):
                raise ConfigError(f'"{answer}" is none of them', remedy=nearest(answer, among))

        answer = self.text(option, given, question, default="1" if len(among) == 1 else "", check=check)
        return answer if answer in among else among[int(answer) - 1]


def _is_number(answer: str, among: Sequence[str]) -> bool:
    return answer.isascii() and answer.isdigit() and 1 <= int(answer) <= len(among)


def _question(parameter: Parameter) -> str:
    example = f", such as {parameter.default}" if parameter.default else ""
    return f"{parameter.name} ({parameter.description or 'no description'}{example})"


def _usual_value(parameter: Parameter) -> str:
    """Returns yesterday for what looks like a day, as most daily queries want it."""
    looks_like_day = parameter.type == "date" or parameter.default.count("-") == 2
    return "{date-1}" if looks_like_day else ""


def _usual_topic(opened: App, connection: str) -> str:
    environment = opened.connections.environment_of(connection)
    try:
        return opened.cluster(environment or None).default_topic
    except ConfigError:
        return ""


def _require_cron(text: str) -> None:
    if text == MANUAL:
        return
    try:
        check_cron(text)
    except ValueError as wrong:
        raise ConfigError(f'"{text}" is no calendar', why=str(wrong), remedy='write it as "0 2 * * *"') from None


def _document(
    name: str, query: str, connection: str, topic: str, key: str, cron: str, values: dict[str, str]
) -> dict[str, Any]:
    config: dict[str, Any] = {"topic": topic}
    if key != "-":
        fields = [field.strip() for field in key.split(",")]
        config["message_key_field"] = fields[0] if len(fields) == 1 else fields
    calendar = {"scheduling_mode": MANUAL} if cron == MANUAL else {"scheduling_mode": "cron", "cron": cron}
    return {
        "name": name,
        "query": query,
        "connection": connection,
        **calendar,
        "enabled": cron == MANUAL,
        "parameters": values,
        "kafka_config": config,
    }


def _create(opened: App, slug: str, document: dict[str, Any]) -> Job:
    path = opened.workspace.queries_dir / f"{slug}{SUFFIX}"
    made, problems = checked_job(path, json.dumps(document, ensure_ascii=False, indent=2))
    if made is None or problems:
        raise problems[0]
    return create_job(opened.workspace, opened.ledger, made, caller=local_caller(), now=now()).job


def _report(opened: App, made: Job, *, as_json: bool) -> None:
    """Prints what was written, and the first message where the database answers.

    Raises:
        typer.Exit: The job is written, but its first message cannot be shown.
    """
    file = f"queries/{made.slug}{SUFFIX}"
    if not as_json:
        print_lines([f"✔ {Data(file)} is written"])
    try:
        plan = opened.plan(made, now=now(), asked_by=local_caller().name)
        seen = opened.preview(plan, rows=1)
    except PsttError as error:
        if as_json:
            print_json({"file": file, "preview": None, "error": error_document(error)})
        else:
            print_lines([*error_lines(error), f"  the job is there; try again: python -m core preview {made.slug}"])
        raise typer.Exit(error.exit_code) from None
    if as_json:
        print_json({"file": file, "preview": preview_document(plan, seen)})
        return
    to_enable = "" if made.enabled else f", then: python -m core enable {made.slug}"
    print_lines([*preview_lines(plan, seen), f"  next   python -m core run {made.slug}{to_enable}"])
