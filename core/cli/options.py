"""Options and arguments that several commands share, and the functions that read their texts."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated

import typer

from core.errors import ConfigError

__all__ = [
    "AtOption",
    "ClusterOption",
    "JobArgument",
    "JsonOption",
    "ParamsOption",
    "RunArgument",
    "TopicArgument",
    "WorkspaceOption",
    "day_of",
    "moment_of",
    "now",
    "parameters_of",
]

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", metavar="DIR", help="The workspace. Default: PSTT_WORKSPACE, else this folder."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's file name (without .job.json) or its name.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's id, or the beginning of it.")]
TopicArgument = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic's name.")]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", metavar="NAME", help="A key of kafka_connections. Default: default_environment."),
]
AtOption = Annotated[
    str | None,
    typer.Option("--at", metavar="TIME", help="Scheduled time, ISO 8601; without an offset in the job's time zone."),
]
ParamsOption = Annotated[
    list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter's value or template.")
]


def now() -> datetime:
    """Returns the time of the system clock in UTC."""
    return datetime.now(UTC)


def moment_of(text: str | None) -> datetime | None:
    """Reads the time of `--at`. A naive one means the job's time zone, which the plan adds.

    Raises:
        ConfigError: The text is not an ISO 8601 time.
    """
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"--at {text} is not a time", remedy="write it as 2026-01-17T02:00 or 2026-01-17T02:00:00+01:00"
        ) from None


def day_of(option: str, text: str) -> date:
    """Reads the day of an option such as `--from`.

    Raises:
        ConfigError: The text is not an ISO 8601 day.
    """
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} {text} is not a day", remedy="write it as 2026-01-17") from None


def parameters_of(params: list[str] | None) -> dict[str, str]:
    """Reads `--param NAME=VALUE`: name in upper case → value.

    Raises:
        ConfigError: A text has no name or no `=`, or a name has two values.
    """
    pairs: dict[str, str] = {}
    for param in params or []:
        name, equals, value = param.partition("=")
        if not equals or not name:
            raise ConfigError(f"--param {param} is not NAME=VALUE", remedy="write --param DATA=2026-01-16")
        if pairs.setdefault(name.upper(), value) != value:
            raise ConfigError(
                f"--param {name} is given twice",
                why="the second value would replace the first",
                remedy=f"leave one out; several values of a parameter marked [list] are written {name}=A,B",
            )
    return pairs
