"""How many windows look at the page. They share one scene and one set of views, which the page says."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .guard import Handler

SOCKET = "/ws"  # trame's; a window holds one as long as it is open


class Windows:
    """Counts them in the page's state, as `windows`."""

    def __init__(self, state: Any):
        self._state = state
        state.windows = 0

    def middleware(self):
        """For the list `middlewares` of an aiohttp application, behind the guard."""

        @web.middleware
        async def count(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.path != SOCKET:
                return await handler(request)
            self._add(1)
            try:
                return await handler(request)
            finally:
                self._add(-1)

        return count

    def _add(self, number: int) -> None:
        with self._state as state:
            state.windows += number
