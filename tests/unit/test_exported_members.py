"""The public names of `core` and of its modules: each exists and is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from pathlib import Path

import pytest

import core

FOLDER = Path(core.__file__).parent
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(core.__path__, "core.") if not module.name.endswith("__main__")
)


def test_the_public_names_of_core():
    assert core.__all__ == [
        "AsyncKafkaService",
        "BatchResult",
        "KafkaService",
        "__version__",
        "open_metrics",
        "open_workspace",
    ]


@pytest.mark.parametrize("name", core.__all__)
def test_each_public_name_of_core_is_there(name: str):
    assert getattr(core, name) is not None


def test_a_name_that_core_does_not_have_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'core' has no attribute 'nothing'"):
        core.nothing  # noqa: B018


def test_the_service_is_the_same_by_both_names():
    from core.kafka.service import BatchResult, KafkaService

    assert core.KafkaService is KafkaService
    assert core.BatchResult is BatchResult


def test_what_the_service_offers():
    offered = {name for name, _ in inspect.getmembers(core.KafkaService, callable) if not name.startswith("_")}
    assert offered == {"send_message", "send_batch", "health_check", "destination", "get_metrics", "close"}
    assert list(inspect.signature(core.KafkaService.send_message).parameters) == [
        "self",
        "topic",
        "key",
        "value",
        "headers",
    ]
    fields = list(core.BatchResult.__dataclass_fields__)
    assert fields == ["total", "succeeded", "failed", "errors"]


def test_what_the_asynchronous_service_offers():
    offered = {name for name, _ in inspect.getmembers(core.AsyncKafkaService, callable) if not name.startswith("_")}
    assert offered == {"connect", "send_message", "send_batch", "health_check", "get_metrics", "close"}
    of_one, of_many = core.AsyncKafkaService.send_message, core.AsyncKafkaService.send_batch
    assert list(inspect.signature(of_one).parameters) == ["self", "topic", "key", "value", "headers"]
    parameters = inspect.signature(of_many).parameters
    assert list(parameters) == ["self", "topic", "messages", "batch_size", "headers"]
    assert parameters["batch_size"].default == 100


@pytest.mark.parametrize("name", MODULES)
def test_each_module_lists_its_public_names_and_has_them(name: str):
    module = importlib.import_module(name)
    assert module.__doc__, "a module says why it exists"
    listed = module.__all__
    assert len(set(listed)) == len(listed)
    assert [missing for missing in listed if not hasattr(module, missing)] == []


@pytest.mark.parametrize("file", sorted(FOLDER.rglob("*.py")), ids=lambda file: file.relative_to(FOLDER).as_posix())
def test_no_module_imports_a_private_name_of_another(file: Path):
    private = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("core"):
            private += [f"{node.module}.{alias.name}" for alias in node.names if alias.name.startswith("_")]
    assert [name for name in private if not name.endswith(".__version__")] == []
