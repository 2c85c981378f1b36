"""The real servers, one of each a test session. A missing one skips its tests, or fails them where PSTT_REQUIRE names it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.oracle_double import OracleDouble
from tests.rigs.errors import RigMissing


def _missing(service: str, reason: str) -> None:
    if service in os.environ.get("PSTT_REQUIRE", "").split(","):
        pytest.fail(f"{service} is required here: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Any]:
    """A broker with all listeners; shared, so use topics of your own."""
    try:
        from tests.rigs.kafka import KafkaRig

        rig = KafkaRig().__enter__()
    except (RigMissing, ImportError) as missing:
        _missing("kafka", str(missing))
        return
    yield rig
    rig.__exit__()


@pytest.fixture
def own_kafka() -> Iterator[Any]:
    """Makes brokers that a test may kill: `own_kafka(auto_create=…, properties={…})`."""
    with ExitStack() as stack:

        def make(**options: Any) -> Any:
            try:
                from tests.rigs.kafka import KafkaRig

                return stack.enter_context(KafkaRig(**options))
            except (RigMissing, ImportError) as missing:
                _missing("kafka", str(missing))

        yield make


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A server; shared, so use tables of your own."""
    try:
        from tests.rigs.postgres import PostgresRig

        rig = PostgresRig(os.environ.get("POSTGRES_TEST_URL")).__enter__()
    except (RigMissing, ImportError) as missing:
        _missing("postgres", str(missing))
        return
    yield rig
    rig.__exit__()


@pytest.fixture
def own_postgres() -> Iterator[Any]:
    """A server that a test may kill."""
    try:
        from tests.rigs.postgres import PostgresRig

        rig = PostgresRig().__enter__()
    except (RigMissing, ImportError) as missing:
        _missing("postgres", str(missing))
        return
    yield rig
    rig.__exit__()


@pytest.fixture(scope="session")
def sqlserver() -> Any:
    """A server that speaks TDS; shared, so use tables of your own."""
    try:
        from tests.rigs.sqlserver import SqlServerRig

        return SqlServerRig()
    except (RigMissing, ImportError) as missing:
        return _missing("sqlserver", str(missing))


@pytest.fixture
def oracle() -> Iterator[OracleDouble]:
    """A stand-in that speaks Oracle's wire protocol; no mistake in its answers goes unnoticed."""
    with OracleDouble() as double:
        yield double
        assert double.failures == []
