"""Validates JSON documents with pydantic: keys and defaults come from a dataclass, problems have a line and a column."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from core.errors import ConfigError
from core.workspace.json_file import JsonFile, nearest

__all__ = ["StrictModel", "completed_from", "one_of", "validation_errors"]

NOT_AN_OBJECT = "input should be a valid object; write { … }"
"""Instead of pydantic's text, which names a class of ours."""


def one_of(names: Callable[[], Collection[str]]) -> Callable[[str], str]:
    """Returns a validator that accepts the names of a registry; its text is pydantic's own for a Literal."""

    def validate(value: str) -> str:
        if value not in names():
            *others, last = map(repr, names())
            raise ValueError(f"input should be {', '.join(others)} or {last}")
        return value

    return validate


class StrictModel(BaseModel):
    """A JSON object with exactly these keys. Values are not converted: `"5"` is not a number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # the fields that `completed_from` adds


M = TypeVar("M", bound=StrictModel)


def completed_from(dataclass_: type, *, without: Collection[str] = ()) -> Callable[[type[M]], type[M]]:
    """Completes a model with the fields of a dataclass, so that types and defaults are declared once.

    The decorated class declares only the fields whose values JSON limits or writes in another form (a list for a tuple).
    Every other field, the order and the defaults come from the dataclass; a default of the class itself takes precedence.

    Args:
        dataclass_: The type that the document becomes.
        without: Its fields that are not part of the document.

    Raises:
        TypeError: The class declares a field that the dataclass does not have.
    """
    hints = get_type_hints(dataclass_, include_extras=True)
    declared = [field for field in fields(dataclass_) if field.name not in without]

    def complete(model: type[M]) -> type[M]:
        if unknown := set(model.model_fields) - {field.name for field in declared}:
            raise TypeError(f"{dataclass_.__name__} has no field {', '.join(sorted(unknown))}")
        hints_of_model = get_type_hints(model, include_extras=True)
        definitions: dict[str, Any] = {}
        for field in declared:
            own = model.model_fields.get(field.name)
            annotation = hints_of_model[field.name] if own else hints[field.name]
            default = _default(field, annotation) if own is None or own.is_required() else own.default
            definitions[field.name] = (annotation, default)
        completed = create_model(
            model.__name__, __base__=StrictModel, __module__=model.__module__, __doc__=model.__doc__, **definitions
        )
        return cast("type[M]", completed)

    return complete


def _default(field: Field[Any], annotation: Any) -> Any:
    """The default of a dataclass's field in the form of the document; `...` for a field without one."""
    if field.default_factory is not MISSING:
        return field.default_factory()
    if field.default is MISSING:
        return ...
    if is_dataclass(field.default):
        return annotation.model_validate(_document(field.default))
    return _document(field.default)


def _document(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _document(getattr(value, field.name)) for field in fields(value)}
    return list(value) if isinstance(value, tuple) else value


def validation_errors(
    file: JsonFile, position: tuple[str | int, ...], error: ValidationError, model: type[BaseModel]
) -> list[ConfigError]:
    """Returns one ConfigError for each wrong value. The value itself is never shown: it may be a secret."""
    found: dict[tuple[str | int, ...], ConfigError] = {}
    reasons: dict[tuple[str | int, ...], list[tuple[str, str]]] = {}
    for detail in error.errors(include_input=False, include_url=False):
        where = _known_part(file, (*position, *detail["loc"]))
        if detail["type"] == "extra_forbidden":
            key = str(detail["loc"][-1])
            found[where] = file.error(
                where, f'unknown key "{key}"', remedy=nearest(key, _keys(model, detail["loc"][:-1]))
            )
        elif detail["type"] == "missing":
            found[(*where, detail["loc"][-1])] = file.error(
                where, f'"{detail["loc"][-1]}" is missing', remedy=f'add "{detail["loc"][-1]}": …'
            )
        else:
            key = str(where[-1]) if where else file.path.name
            why = NOT_AN_OBJECT if detail["type"] == "model_type" else detail["msg"].removeprefix("Value error, ")
            why = why[:1].lower() + why[1:]
            reasons.setdefault(where, []).append((detail["type"], why))
            why, _, remedy = _of_branches(reasons[where]).partition("; ")
            found[where] = file.error(where, f'"{key}" is not valid', why=why, remedy=remedy or "correct this value")
    return list(found.values())


def _of_branches(reasons: list[tuple[str, str]]) -> str:
    """Joins the reasons of a union. If the value has the type of one branch, only that branch's reason counts."""
    closer = [why for error_type, why in reasons if not error_type.endswith("_type")]
    return ", or ".join(dict.fromkeys(closer or [why for _, why in reasons]))


def _known_part(file: JsonFile, position: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Cuts the name of a union's branch, which pydantic appends, off a position: the file has no such value."""
    while position and position not in file.offsets:
        position = position[:-1]
    return position


def _keys(model: type[BaseModel], position: tuple[str | int, ...]) -> list[str]:
    for step in position:
        field = model.model_fields.get(str(step))
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            break
        model = field.annotation
    return list(model.model_fields)
