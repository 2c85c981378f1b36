"""What is remembered of a cluster that does not answer."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from core.errors import BrokerUnavailable, ConfigError
from core.kafka.late import NotReadInTime
from ui.data.failures import FailureMemory

NOW = datetime(2026, 1, 17, tzinfo=UTC)


class Rig:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.asked: list[str] = []
        self.memory = FailureMemory(20, lambda: NOW, lambda: self.seconds)

    def ask(self, key: str, error: Exception | None = None) -> str:
        def question() -> str:
            self.asked.append(key)
            if error is not None:
                raise error
            return "answer"

        return self.memory.ask(key, question)


def test_a_cluster_that_did_not_answer_is_asked_again_after_a_while_or_when_it_is_forgotten():
    rig = Rig()
    for seconds in (0, 19):
        rig.seconds = seconds
        with pytest.raises(BrokerUnavailable, match="away"):
            rig.ask("a", BrokerUnavailable("away"))
    assert rig.asked == ["a"]
    assert rig.ask("b") == "answer"
    failure = rig.memory.of("a")
    assert failure is not None
    assert failure.at == NOW
    rig.seconds = 20
    assert rig.ask("a") == "answer"
    with pytest.raises(BrokerUnavailable):
        rig.ask("a", BrokerUnavailable("away"))
    rig.memory.forget("a")
    assert rig.ask("a") == "answer"


@pytest.mark.parametrize("error", [NotReadInTime("too much"), ConfigError("no such partition")])
def test_what_another_question_may_not_have_is_not_remembered(error):
    rig = Rig()
    with pytest.raises(type(error)):
        rig.ask("a", error)
    assert rig.ask("a") == "answer"
