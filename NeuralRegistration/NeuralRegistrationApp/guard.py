"""Who may talk to the page: only a browser that was given the address with its token."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

REFUSED = "This page needs the whole address that `neuralreg app` printed, with its token.\n"
HEADERS = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """A token that the address carries once; from then on a cookie of this server does, also for its websocket."""

    def __init__(self):
        self.token = secrets.token_urlsafe(24)
        self._cookie = f"neuralreg-{secrets.token_hex(4)}"  # cookies know no ports: two pages must not share one

    def middleware(self):
        """For the list `middlewares` of an aiohttp application."""

        @web.middleware
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            if self._is_token(request.query.get("token")) and request.method == "GET":
                response = web.Response(status=302, headers={"Location": "index.html", **HEADERS})
                response.set_cookie(self._cookie, self.token, httponly=True, samesite="Strict")
                return response
            if not self._is_token(request.cookies.get(self._cookie)) or not _same_origin(request):
                return web.Response(status=403, text=REFUSED, headers=HEADERS)
            response = await handler(request)
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return admit

    def _is_token(self, given: str | None) -> bool:
        return given is not None and hmac.compare_digest(given.encode(), self.token.encode())


def _same_origin(request: web.Request) -> bool:
    """Whether a request comes from this page: another program's page on the same computer would send our cookie."""
    origin = request.headers.get("Origin")
    return origin is None or urlsplit(origin).netloc == request.host
