"""Tasks and results of parts pass as JSON without a loss."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError, PsttError, QueryFailed, RunTimedOut, TooManyAttempts
from core.model.job import Job, KafkaConfig
from core.model.query import LiteralText, Step
from core.model.run import PartitionRange, Reject
from core.run.parts import PartError, PartLost, PartProgress, PartResult, PartStep, PartTask, decode_event, encode

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.text(),
    st.text().map(LiteralText),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
)


def task(step: Step) -> PartTask:
    return PartTask(
        version="1.0",
        run_id="ab12cd34ef",
        index=2,
        count=8,
        attempt=3,
        job=Job(
            "a", "A", "q.sql", "X", kafka_config=KafkaConfig(message_key_field=("A", "B")), parameters={"L": ("1",)}
        ),
        connection="X",
        cluster_key="",
        cluster="c",
        topic="t",
        steps=[PartStep.of(step)],
        scheduled_at=datetime(2026, 3, 1, 2, tzinfo=UTC),
        timezone="Europe/Rome",
        batch_size=100,
        fetch_rows=2000,
        stop_timeout_s=30.0,
        control_topic="control",
        folder="parts/ab12cd34ef",
    )


@given(st.one_of(st.dictionaries(st.text(min_size=1), VALUES, min_size=1), st.lists(VALUES).map(tuple)))
def test_binds_of_a_task_pass_as_json_without_a_loss(binds: dict[str, object] | tuple[object, ...]) -> None:
    sent = task(Step("SELECT 1", binds, line=7))
    received = msgspec.json.decode(encode(sent), type=PartTask)
    assert received == sent
    step = received.steps[0].step
    assert step == Step("SELECT 1", binds, line=7)
    values = lambda all_: list(all_.values()) if isinstance(all_, dict) else list(all_)  # noqa: E731
    assert list(map(type, values(step.binds))) == list(map(type, values(binds)))


def test_a_value_of_an_unknown_type_is_refused() -> None:
    with pytest.raises(ConfigError, match="type bytes cannot be passed"):
        PartStep.of(Step("SELECT 1", (b"x",)))


def test_events_pass_as_json() -> None:
    result = PartResult(
        index=0,
        attempt=1,
        rejects=[Reject(1, "A", "numeric", "NaN has no JSON form", row={"a": None, "b": "1"})],
        ranges=[PartitionRange("t", 0, 1, 9, 5)],
        unplaced=[("t", 0, 1)],
        error=PartError.of(QueryFailed("the query failed", why="because", remedy="fix it")),
    )
    for event in (result, PartProgress(1, 2, "reading", 10, 5), PartLost(1, 2, "gone")):
        assert decode_event(encode(event)) == event


@pytest.mark.parametrize("kind", [QueryFailed, RunTimedOut, ConfigError, PsttError])
def test_an_error_keeps_its_class_and_its_words(kind: type[PsttError]) -> None:
    error = PartError.of(kind("what", why="why", remedy="remedy")).error
    assert type(error) is kind
    assert (error.what, error.why, error.remedy) == ("what", "why", "remedy")


def test_an_error_of_another_kind_becomes_the_root() -> None:
    assert type(PartError.of(TooManyAttempts("what", wait_s=3)).error) is PsttError
    assert type(PartError("Exception", "what").error) is PsttError
