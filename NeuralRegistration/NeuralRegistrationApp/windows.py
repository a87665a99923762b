"""How many windows look at the page: they share one scene and one set of views, which the page says. And how they end:
when a window is closed while something is sent to it, that is no error.
"""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web

from .guard import Handler

SOCKET = "/ws"  # trame's; a window holds one as long as it is open


class Closed(logging.Filter):
    """Leaves out of trame's log what it says, in three records, of a window that was closed meanwhile."""

    def filter(self, record: logging.LogRecord) -> bool:
        said = record.getMessage()
        return said != "Exception raised" and "ClientConnectionResetError" not in said


class Windows:
    """Counts them in the page's state, as `windows`."""

    def __init__(self, state: Any):
        self._state = state
        state.windows = 0
        logging.getLogger("wslink.protocol").addFilter(Closed())

    def middleware(self):
        """For the list `middlewares` of an aiohttp application, behind the guard."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path != SOCKET:
                return await handler(request)
            self._add(1)
            try:
                return await handler(request)
            except ConnectionError:
                return web.Response()  # nobody is there to read it
            finally:
                self._add(-1)

        return count

    def _add(self, number: int) -> None:
        with self._state as state:
            state.windows += number
