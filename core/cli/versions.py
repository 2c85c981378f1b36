"""The commands `versions job`, `versions query`, `versions connections`: who changed a file, when, and the way back."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from core.admin.versions import FileVersion, VersionKind, difference, restore_version, version_text, versions_of
from core.app import App
from core.cli.options import JsonOption, WorkspaceOption, now
from core.cli.output import print_answer, print_json, print_lines
from core.clock import iso_utc
from core.errors import ConfigError
from core.formatting import local_time, size_text
from core.language import Data
from core.records.rights import local_caller
from core.workspace.stored_file import StoredFile

__all__ = ["app"]

app = typer.Typer(
    name="versions",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Lists, shows and restores the versions of a file.",
)
ShowOption = Annotated[int | None, typer.Option("--show", metavar="N", help="Print version N as it was.")]
DiffOption = Annotated[
    int | None, typer.Option("--diff", metavar="N [M]", help="Compare version N with M, or with the file as it is now.")
]
RestoreOption = Annotated[int | None, typer.Option("--restore", metavar="N", help="Make version N the newest again.")]
OtherArgument = Annotated[int | None, typer.Argument(metavar="M", help="With --diff: the other version.")]


@app.command("job")
def job_versions(
    job: Annotated[str, typer.Argument(metavar="SLUG", help="The job's file name, without .job.json.")],
    other: OtherArgument = None,
    show: ShowOption = None,
    diff: DiffOption = None,
    restore: RestoreOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the versions of a job's file: who saved them, when, and how many lines were changed."""
    _answer("job", job, (show, diff, other, restore), workspace, as_json)


@app.command("query")
def query_versions(
    query: Annotated[str, typer.Argument(metavar="NAME", help="The SQL file, below queries/.")],
    other: OtherArgument = None,
    show: ShowOption = None,
    diff: DiffOption = None,
    restore: RestoreOption = None,
    connection: Annotated[
        str, typer.Option("--connection", metavar="NAME", help="With --restore: check it as SQL of that database.")
    ] = "",
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the versions of an SQL file: who saved them, when, and how many lines were changed."""
    _answer("query", query, (show, diff, other, restore), workspace, as_json, connection)


@app.command("connections")
def connections_versions(
    other: OtherArgument = None,
    show: ShowOption = None,
    diff: DiffOption = None,
    restore: RestoreOption = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the versions of connections.json, which have no passwords."""
    _answer("connections", "", (show, diff, other, restore), workspace, as_json)


def _answer(
    kind: VersionKind,
    name: str,
    asked: tuple[int | None, int | None, int | None, int | None],
    folder: Path | None,
    as_json: bool,
    connection: str = "",
) -> None:
    show, diff, other, restore = asked
    if sum(number is not None for number in (show, diff, restore)) > 1:
        raise ConfigError("--show, --diff and --restore do not go together", remedy="give one of them")
    if other is not None and diff is None:
        raise ConfigError(f"{other} goes with --diff", remedy=f"write --diff N {other}")
    if connection and restore is None:
        raise ConfigError("--connection goes with --restore", remedy="add --restore N")
    with App.open(folder) as opened:
        if show is not None:
            _print(opened, kind, name, show, as_json)
        elif diff is not None:
            lines = list(difference(opened, kind, name, diff, other))
            print_json({"diff": lines}) if as_json else print_lines(
                [Data(line).marked for line in lines] or ["Both say the same."]
            )
        elif restore is not None:
            _restore(opened, kind, name, restore, connection, as_json)
        else:
            found = versions_of(opened, kind, name)
            listed = [_document(version) for version in found]
            print_json({"versions": listed}) if as_json else print_lines(_lines(found, opened.timezone))


def _print(opened: App, kind: VersionKind, name: str, number: int, as_json: bool) -> None:
    """Prints a version; for people byte for byte, so that it can be written into a file."""
    version, content = version_text(opened, kind, name, number)
    if as_json:
        print_json(_document(version) | {"text": StoredFile(Path(), content, "").text})
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _restore(opened: App, kind: VersionKind, name: str, number: int, connection: str, as_json: bool) -> None:
    missing = restore_version(
        opened, kind, name, number, seen_sha256=None, connection=connection, caller=local_caller(), now=now()
    )
    answer = f"version {number} of {name or 'connections.json'} is the newest again"
    if missing:
        answer += f"; enter the password again of {', '.join(missing)}"
    print_answer({"answer": answer, "version": number, "missing_passwords": missing}, as_json)


def _document(version: FileVersion) -> dict[str, Any]:
    return {
        "number": version.number,
        "seen_at": iso_utc(version.seen_at),
        "saved_by": version.saved_by or None,
        "size_bytes": version.size_bytes,
        "added": version.added,
        "removed": version.removed,
    }


def _lines(versions: list[FileVersion], timezone: str) -> Iterator[str]:
    if not versions:
        yield "No version is known yet; each one that is saved, or that a runner finds, is kept."
    width = max((len(version.saved_by) for version in versions), default=0)
    for version in versions:
        when = local_time(version.seen_at, timezone, seconds=True)
        who = Data(version.saved_by) if version.saved_by else "found on disk"
        changed = "" if version.added is None else f"+{version.added} −{version.removed} lines"
        yield f"{version.number:>5}  {when:<20}  {who:<{max(width, 13)}}  {size_text(version.size_bytes):>9}  {changed}".rstrip()
