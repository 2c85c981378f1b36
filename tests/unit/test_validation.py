"""Models that take their fields from a dataclass: types and defaults are declared once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated

import pytest
from pydantic import Field

from core.model.connection import DatabaseConnection
from core.model.job import Job
from core.workspace.connections import DATABASE_KEYS
from core.workspace.job_schema import JobShape
from core.workspace.validation import StrictModel, completed_from


@dataclass(frozen=True)
class Inner:
    a: int = 1


@dataclass(frozen=True)
class Outer:
    name: str
    port: int | None = None
    tags: tuple[str, ...] = ("x",)
    inner: Inner = Inner(2)
    seconds: float = 300.0


@completed_from(Inner)
class InnerModel(StrictModel):
    """The inner object."""


@completed_from(Outer)
class OuterModel(StrictModel):
    """The document."""

    port: Annotated[int, Field(ge=1)] | None
    tags: list[str]
    inner: InnerModel
    seconds: float | None = None


def test_fields_order_and_defaults_come_from_the_dataclass():
    assert list(OuterModel.model_fields) == ["name", "port", "tags", "inner", "seconds"]
    made = OuterModel.model_validate({"name": "n"})
    assert (made.port, made.tags, made.inner.a) == (None, ["x"], 2)


def test_a_default_of_the_class_itself_takes_precedence():
    assert OuterModel.model_validate({"name": "n"}).seconds is None


def test_a_field_that_the_dataclass_does_not_have_is_refused():
    with pytest.raises(TypeError, match="Outer has no field prot"):

        @completed_from(Outer)
        class Mistyped(StrictModel):
            prot: int


def test_job_files_and_connections_have_the_keys_of_their_types():
    assert list(JobShape.model_fields) == [field.name for field in fields(Job)][1:]
    assert list(DATABASE_KEYS) == [field.name for field in fields(DatabaseConnection)]
