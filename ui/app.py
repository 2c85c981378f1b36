"""The ASGI application: page and REST on one port, started by `python -m streamlit run ui/app.py`."""

from __future__ import annotations

import os
import sys

from starlette.middleware import Middleware
from starlette.routing import Mount
from streamlit import config
from streamlit.starlette import App

from core.errors import ConfigError
from core.report import error_lines
from core.workspace import Workspace
from ui.api import api
from ui.doors import SecurityHeaders, SignInFirst, refuse_open_doors


def _require_closed_doors() -> None:
    """Ends the process where it would let in whoever comes."""
    try:
        refuse_open_doors(config.get_option("server.address"), Workspace.find(None, os.environ))
    except ConfigError as error:
        print(*error_lines(error), sep="\n", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


_require_closed_doors()
app = App("page.py", routes=[Mount("/api", api)], middleware=[Middleware(SecurityHeaders), Middleware(SignInFirst)])
