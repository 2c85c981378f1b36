"""The ASGI application: page and REST on one port, started by `python -m streamlit run ui/app.py`."""

from __future__ import annotations

import sys
import threading
from contextlib import suppress
from importlib import import_module

from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from streamlit import config
from streamlit.starlette import App

from core.cli.output import error_lines
from core.errors import ConfigError, PsttError
from ui import data
from ui.addresses import KnownAddresses
from ui.api import api
from ui.components.sql_editor import ASSETS
from ui.http_security import SecurityHeaders, SignInFirst, require_sign_in_or_loopback
from ui.no_delay import send_without_delay
from ui.pages import PAGES
from ui.workspaces import home_workspace


def _require_sign_in() -> None:
    """Ends the process if other machines could reach it without signing in."""
    try:
        require_sign_in_or_loopback(config.get_option("server.address"), home_workspace())
    except ConfigError as error:
        print(*error_lines(error), sep="\n", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


def _start_log() -> None:
    """Starts the log before the first request, so that errors of the start are in it."""
    with suppress(PsttError):  # the page and each REST answer report a wrong setting
        data.start_log(data.root())


def _warm_up() -> None:
    """Loads libraries and figures, so that the first user need not wait for them."""
    for page in PAGES:  # some load plotly and pandas: in this thread, not before the server listens
        import_module(f"ui.views.{page.name}")
    from ui.views import overview

    with suppress(PsttError):  # the page reports it
        overview.warm_up()


_require_sign_in()
_start_log()
send_without_delay()
threading.Thread(target=_warm_up, name="warm-up", daemon=True).start()
app = App(
    "page.py",
    routes=[Mount("/api", api), Mount("/editor", StaticFiles(directory=ASSETS))],
    middleware=[Middleware(SecurityHeaders), Middleware(SignInFirst), Middleware(KnownAddresses)],
)
