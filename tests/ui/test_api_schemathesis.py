"""Whatever is asked of the REST interface, it answers as its document says, and never with a defect.

The examples are bounded so that all routes take less than a minute; SCHEMATHESIS_EXAMPLES looks longer. Schemathesis'
own plugin (4.32) does not know pytest 9, so its strategies are run by hypothesis itself.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.applications import Starlette
from starlette.routing import Mount

from core.demo import make_demo
from ui.api import api

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "15"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
SCHEMA = schemathesis.openapi.from_asgi("/api/openapi.json", Starlette(routes=[Mount("/api", api)]))
OPERATIONS = [found.ok() for found in SCHEMA.get_all_operations()]


@pytest.fixture(scope="module")
def _workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz") / "demo"
    make_demo(folder, 60, now=datetime.now(UTC))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PSTT_WORKSPACE", str(folder))
        yield folder


def test_every_route_is_among_them():
    assert len(OPERATIONS) == 18


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["as_told", "wrong"])
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_no_input_makes_a_defect(operation, mode, _workspace):
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        headers = {"Host": "127.0.0.1:8501"}
        if operation.label.startswith(("PUT", "DELETE")):
            headers["If-Match"] = "*"
        case.call_and_validate(checks=CHECKS, headers=headers)

    try:
        ask()
    except Exception as error:
        if type(error).__name__ == "Unsatisfiable" and mode == GenerationMode.NEGATIVE:
            pytest.skip("it takes nothing that could be wrong")
        raise
