"""The ASGI application: page and REST on one port, started by `python -m streamlit run ui/app.py`."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress

from starlette.middleware import Middleware
from starlette.routing import Mount
from streamlit import config
from streamlit.starlette import App

from core.cli.output import error_lines
from core.errors import ConfigError, PsttError
from core.workspace.paths import Workspace
from ui import data
from ui.api import api
from ui.http_security import SecurityHeaders, SignInFirst, require_sign_in_or_loopback
from ui.no_delay import send_without_delay


def _require_closed_doors() -> None:
    """Ends the process where it would let in whoever comes."""
    try:
        require_sign_in_or_loopback(config.get_option("server.address"), Workspace.find(None, os.environ))
    except ConfigError as error:
        print(*error_lines(error), sep="\n", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


def _start_log() -> None:
    """What goes wrong here stands in the workspace's log from the first request on."""
    with suppress(PsttError):  # a setting that is wrong: the page tells it, and so does each answer
        data.start_log(data.root())


def _warm_up() -> None:
    """Loads what the first visitor would else wait for, while nobody does yet."""
    from ui.views import overview

    with suppress(PsttError):  # the page tells it
        overview.warm_up()


_require_closed_doors()
_start_log()
send_without_delay()
threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()
app = App("page.py", routes=[Mount("/api", api)], middleware=[Middleware(SecurityHeaders), Middleware(SignInFirst)])
