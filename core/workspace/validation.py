"""What pydantic found wrong, in our words, with line and nearest name."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from core.errors import ConfigError
from core.workspace.json_file import JsonFile, nearest

__all__ = ["validation_errors"]


def validation_errors(
    file: JsonFile, place: tuple[str | int, ...], error: ValidationError, model: type[BaseModel]
) -> list[ConfigError]:
    """One ConfigError a value at fault; the value itself is never shown, it may be a secret."""
    found: dict[tuple[str | int, ...], ConfigError] = {}
    kinds: dict[tuple[str | int, ...], list[tuple[str, str]]] = {}
    for detail in error.errors(include_input=False, include_url=False):
        where = _known_part(file, (*place, *detail["loc"]))
        if detail["type"] == "extra_forbidden":
            key = str(detail["loc"][-1])
            found[where] = file.error(
                where, f'unknown key "{key}"', remedy=nearest(key, _fields(model, detail["loc"][:-1]))
            )
        elif detail["type"] == "missing":
            found[(*where, detail["loc"][-1])] = file.error(
                where, f'"{detail["loc"][-1]}" is missing', remedy=f'add "{detail["loc"][-1]}": …'
            )
        else:
            key = str(where[-1]) if where else file.path.name
            why = detail["msg"].removeprefix("Value error, ")
            why = why[:1].lower() + why[1:]
            kinds.setdefault(where, []).append((detail["type"], why))
            why, _, remedy = _of_branches(kinds[where]).partition("; ")
            found[where] = file.error(where, f'"{key}" is not valid', why=why, remedy=remedy or "mend this value")
    return list(found.values())


def _of_branches(reasons: list[tuple[str, str]]) -> str:
    """A value of several possible types fails for each of them; if it has one of the types, only that failure counts."""
    closer = [why for kind, why in reasons if not kind.endswith("_type")]
    return ", or ".join(dict.fromkeys(closer or [why for _, why in reasons]))


def _known_part(file: JsonFile, place: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Pydantic adds the branch of a union to the place of an error; the file has no such value."""
    while place and place not in file.offsets:
        place = place[:-1]
    return place


def _fields(model: type[BaseModel], place: tuple[str | int, ...]) -> list[str]:
    for step in place:
        field = model.model_fields.get(str(step))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            break
        model = field.annotation
    return list(model.model_fields)
