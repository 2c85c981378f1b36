"""SMS, Teams and similar channels: an apprise URL, stored as a secret, over a real HTTP server."""

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from loguru import logger

from core.admin.logs import start_logging
from core.notify.channels import channel_factory, channel_problem
from core.notify.notification import Notification
from core.notify.outbox import Outbox, new_message
from tests.rigs.workspace import log_text

NOW = datetime(2026, 1, 17, 6, 0, tzinfo=UTC)
TOKEN = "T0k3n-of-the-channel"
NOTIFICATION = Notification(
    "✘ Kafka Produzione: Kafka does not answer", "It does not answer since 06:00 – più di 5 min."
)


class Web:
    """An HTTP server that stores the bodies of POST requests."""

    def __init__(self) -> None:
        self.posted: list[dict] = []
        self.status = 200
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                web.posted.append({"path": self.path, **json.loads(self.rfile.read(length))})
                self.send_response(web.status)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"json://127.0.0.1:{self.server.server_port}/{TOKEN}"


@pytest.fixture
def web():
    made = Web()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def office(tmp_path, web):
    """Puts the message into the outbox and delivers it through the channel `teams`."""
    with Outbox(tmp_path / "ledger.sqlite") as outbox:

        def deliver(url: str | None = None) -> Outbox:
            outbox.apply([new_message("alert", "alert 1", "teams", (), NOTIFICATION, NOW)])
            known = {"TEAMS_URL": url or web.url}
            outbox.deliver(
                lambda: NOW, channel_factory(lambda: None, lambda: {"teams": "env:TEAMS_URL"}, known, Path())
            )
            return outbox

        yield deliver


def test_a_channel_gets_subject_and_text(office, web):
    (entry,) = office().newest()
    assert entry.state == "sent"
    (posted,) = web.posted
    assert posted["path"] == f"/{TOKEN}"
    assert posted["title"] == "✘ Kafka Produzione: Kafka does not answer"
    assert posted["message"].strip() == "It does not answer since 06:00 – più di 5 min."
    assert posted["type"] == "failure"


def test_a_channel_that_refuses_is_tried_again_and_gives_its_reason_without_the_token(office, web, tmp_path):
    start_logging(tmp_path / "logs", level="DEBUG")
    web.status = 503
    (entry,) = office().waiting()
    logger.complete()
    logger.remove()
    assert 'channel "teams" took no message' in entry.last_error
    assert "503" in entry.last_error
    assert TOKEN not in entry.last_error
    log = log_text(tmp_path)
    assert "503" in log
    assert TOKEN not in log


def test_a_channel_that_is_down_waits(office, web):
    (entry,) = office(f"json://127.0.0.1:9/{TOKEN}").waiting()
    assert (entry.state, entry.tries) == ("waiting", 1)
    assert TOKEN not in entry.last_error


def test_a_url_that_apprise_does_not_know_is_said_without_showing_it(tmp_path):
    problem = channel_problem("teams", f"nonsense://{TOKEN}", {}, tmp_path)
    assert problem is not None
    assert problem.what == 'the URL of channel "teams" is none that apprise knows'
    assert TOKEN not in str(problem)


def test_a_missing_secret_names_its_reference(tmp_path):
    problem = channel_problem("sms", "env:SMS_URL", {}, tmp_path)
    assert problem is not None
    assert "the variable of env:SMS_URL is not set" in str(problem)
    assert channel_problem("sms", "env:SMS_URL", {"SMS_URL": "json://localhost"}, tmp_path) is None
