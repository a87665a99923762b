"""The first thing a browser gets, `index.html`: trame's, with its waiting sign within.

trame lets the browser fetch that sign by itself and puts it where the page belongs, whenever it arrives. From a busy
computer it may arrive after the page, which it then replaces, for good.
"""

from __future__ import annotations

import re
from pathlib import Path

from aiohttp import web
from trame_client.module import vue3

FETCHED = re.compile(r'<div id="app"></div>\s*<script>\s*fetch\("\./loading\.tpl"\).*?</script>', re.DOTALL)
LOST = (
    "The connection is lost; the page comes back by itself. If neuralreg app has ended, start it again and open the "
    "address that it prints."
)


def document(folder: Path = Path(vue3.www)) -> str:
    """trame's document, without what it would fetch late."""
    sign = (folder / "loading.tpl").read_text(encoding="utf-8")
    whole = f'<div id="app">{sign}</div>'
    return FETCHED.sub(lambda _: whole, (folder / "index.html").read_text(encoding="utf-8"))


def routes() -> list[web.RouteDef]:
    text = document()

    async def send(_: web.Request) -> web.Response:
        return web.Response(text=text, content_type="text/html", headers={"Cache-Control": "no-store"})

    return [web.get("/index.html", send)]
