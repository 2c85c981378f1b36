"""The ASGI application: page and REST on one port, started by `python -m streamlit run ui/app.py`."""

from importlib.util import find_spec

from starlette.routing import BaseRoute, Mount
from streamlit.starlette import App


def _routes() -> list[BaseRoute]:
    if find_spec("ui.api") is None:
        return []
    from ui.api import api

    return [Mount("/api", api)]


app = App("page.py", routes=_routes())
