"""A channel type is one file and one entry: here a class of the test, and an entry under its URL scheme."""

from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest

from core.errors import ConfigError
from core.notify.channels import CHANNEL_TYPES, channel_factory, channel_problem
from core.notify.delivery import DeliveryResult
from core.notify.notification import Notification
from core.notify.outbox import Outbox, new_message

NOW = datetime(2026, 1, 17, 6, 0, tzinfo=UTC)


class DeskChannel:
    """Prints messages at a desk, for the URL `desk://NAME`."""

    printed: ClassVar[list[tuple[str, str]]] = []

    def __init__(self, name, url):
        self.desk = url.reveal().removeprefix("desk://")

    def check(self):
        if not self.desk:
            raise ConfigError("a desk has a name", remedy="write desk://NAME")

    @contextmanager
    def open(self):
        def send(message):
            self.printed.append((self.desk, message.subject))
            return DeliveryResult()

        yield send


@pytest.fixture(autouse=True)
def desk(monkeypatch):
    monkeypatch.setitem(CHANNEL_TYPES, "desk", DeskChannel)
    DeskChannel.printed.clear()


def test_a_new_type_delivers_what_waits_in_the_outbox(tmp_path):
    channel_of = channel_factory(
        lambda: None, lambda: {"night": "env:DESK_URL"}, {"DESK_URL": "desk://control room"}, tmp_path
    )
    with Outbox(tmp_path / "ledger.sqlite") as outbox:
        outbox.apply([new_message("alert", "a", "night", (), Notification("✘ down", "It is down."), NOW)])
        assert outbox.deliver(lambda: NOW, channel_of) == 1
    assert DeskChannel.printed == [("control room", "✘ down")]


def test_a_new_type_checks_its_own_url():
    assert channel_problem("night", "env:DESK_URL", {"DESK_URL": "desk://a"}, Path()) is None
    assert channel_problem("night", "env:DESK_URL", {"DESK_URL": "desk://"}, Path()).text == "a desk has a name"


def test_a_name_that_is_not_in_alerts_json_is_refused():
    channel_of = channel_factory(lambda: None, lambda: {"night": "env:DESK_URL"}, {}, Path())
    with pytest.raises(ConfigError, match='no channel "nigt"'):
        channel_of("nigt")
