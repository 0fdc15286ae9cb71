"""The door of the dashboard, before any page is looked up; see ``access``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.plugins.dashboard.access import HEADERS, SAFE, Access
from holdfast.plugins.dashboard.pages import BASE, render

STATIC = "/static/"
OTHER_HOST = "This page answers on this machine alone, under 127.0.0.1 or localhost.\n"


class PageGuard:
    """Lets in whom ``access`` knows, and puts the safety headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        static = scope["path"].startswith(STATIC)
        below = self._access.below(scope["path"])
        if below is not None:
            scope = {**scope, "path": below, "raw_path": quote(below).encode()}
        BASE.set("" if below is None else self._access.base)

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                # Pages hold texts of the data: no copy of them is left in a browser's files.
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        answer = self._refused(scope, Headers(scope=scope), static, below is not None)
        await (answer or self._app)(scope, receive, headed)

    def _refused(self, scope: Scope, headers: Headers, static: bool, below: bool) -> ASGIApp | None:
        """What is answered in the place of the page; ``None`` where the page is, which is ``below``
        the path that only this dashboard's browsers know."""
        access, host = self._access, headers.get("host")
        if not access.is_host(host):
            return PlainTextResponse(OTHER_HOST, 403)
        if static:
            return None
        query = scope["query_string"].decode("latin-1")
        if scope["method"] in SAFE and "token=" in query:
            cookie = access.take(query)
            if cookie is not None:
                rest = [(k, v) for k, v in parse_qsl(query) if k != "token"]
                place = f"{access.base}/" + scope["path"].lstrip("/")
                place += f"?{urlencode(rest)}" if rest else ""
                return RedirectResponse(place, 303, {"Set-Cookie": cookie})
        if not below or not access.knows(headers.get("cookie")):
            return HTMLResponse(closed_page(), 401)
        if scope["method"] not in SAFE and not access.is_own(host, headers.get("origin")):
            text = "A change must be sent from a page of this dashboard.\n"
            return PlainTextResponse(text, 403)
        return None


def closed_page() -> str:
    """How to get in."""
    return render(
        "message.html.j2",
        title="Not open yet",
        text="Open the address that `holdfast dashboard` printed in its terminal: it lets this "
        "browser in, once. Each use prints a new one for the next browser.",
        more="If you came by that address from another page just now, go on here.",
        link=("/", "Go on"),
    )


def of_file(kind: str) -> Mapping[str, Any]:
    """The headers of a file whose address changes when it does."""
    return {
        "Content-Type": f"{kind}; charset=utf-8",
        "Cache-Control": "max-age=31536000, immutable",
    }
