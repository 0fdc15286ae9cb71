"""Access control: the host name of a request, a one-time token, a cookie, and for changes the page
that sent the request.

Every program of the machine can reach a page on 127.0.0.1, and so can every page that the user has
open, through a name whose address changes (DNS rebinding). Therefore

- a request under a ``Host`` other than this machine's is refused (403) before anything is read;
- the printed address carries a token that works once: it becomes a cookie that no script reads
  (``HttpOnly``) and no other site sends (``SameSite=Strict``), and disappears from the address bar;
- cookies ignore ports, so another server of this machine would receive it: the cookie is valid only
  below a path that nobody else knows (``base``), and a browser sends it nowhere else;
- without that cookie only a page on how to get it is shown (401);
- a request that changes something also needs an ``Origin`` of this page (403).
"""

from __future__ import annotations

import hmac
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holdfast.plugins.dashboard.pages import BASE, message_page

LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")
# Maximum browsers with a cookie; the oldest is dropped.
MAX_SESSIONS = 64
STATIC = "/static/"
OTHER_HOST = "This page is only available on this machine, as 127.0.0.1 or localhost.\n"
DAY_S = 86_400
SAFE_METHODS = frozenset({"GET", "HEAD"})
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: a form would then be sent with the origin "null".
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=()",
}
"""The headers of every response: only the page's own files may load, and no frame."""


class Access:
    """The tokens and cookies of one dashboard on ``port``; they end with the process.

    ``offer`` is called with each new address that opens it: a used token is replaced, so that a
    second browser can be let in.
    """

    def __init__(self, port: int, offer: Callable[[str], None] = lambda _: None) -> None:
        self.port = port
        self._on_new_url = offer
        self.base = "/" + secrets.token_urlsafe(12)
        self._token = secrets.token_urlsafe(24)
        self._sessions: deque[str] = deque(maxlen=MAX_SESSIONS)

    @property
    def cookie(self) -> str:
        """The cookie's name, with the port: cookies ignore ports, and two dashboards of one machine
        must not share them."""
        return f"holdfast-{self.port}"

    @property
    def url(self) -> str:
        """The address that opens the dashboard once."""
        return f"http://127.0.0.1:{self.port}/?token={self._token}"

    def is_host(self, host: str | None) -> bool:
        """Whether a request was sent to this machine under one of its own names."""
        return host in {f"{name}:{self.port}" for name in LOCAL_NAMES}

    def redeem_token(self, query: str) -> str | None:
        """The ``Set-Cookie`` for a query with the token, which becomes invalid; ``None`` for any
        other query."""
        if not _equal_in_constant_time(parse_qs(query).get("token", [""])[-1], self._token):
            return None
        self._token = secrets.token_urlsafe(24)
        session = secrets.token_urlsafe(32)
        self._sessions.append(session)
        self._on_new_url(self.url)
        attributes = f"HttpOnly; SameSite=Strict; Max-Age={30 * DAY_S}"
        return f"{self.cookie}={session}; Path={self.base}/; {attributes}"

    def page_path(self, path: str) -> str | None:
        """The page of a path below ``base``, with its slash; ``None`` for any other path."""
        head, slash, rest = path[1:].partition("/")
        return "/" + rest if slash and _equal_in_constant_time("/" + head, self.base) else None

    def has_session(self, cookies: str | None) -> bool:
        """Whether a ``Cookie`` header contains a cookie of this dashboard."""
        # Another server of this machine may have set one of the same name for every path.
        given = [cookie_value(one, self.cookie) for one in (cookies or "").split(";")]
        # All are compared, so that the time reveals nothing.
        return (
            sum(_equal_in_constant_time(one, known) for one in given for known in self._sessions)
            > 0
        )

    def is_same_origin(self, host: str | None, origin: str | None) -> bool:
        """Whether a request that changes something was sent by a page of this dashboard."""
        return host is not None and self.is_host(host) and origin == f"http://{host}"


def cookie_value(header: str | None, name: str) -> str:
    """The value of a cookie in a ``Cookie`` header; empty where there is none."""
    try:
        cookie = SimpleCookie(header or "").get(name)
    except CookieError:
        return ""
    return cookie.value if cookie else ""


def _equal_in_constant_time(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


class PageGuard:
    """Admits the requests that ``access`` accepts, and adds the security headers to every
    response."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        static = scope["path"].startswith(STATIC)
        page_path = self._access.page_path(scope["path"])
        if page_path is not None:
            scope = {**scope, "path": page_path, "raw_path": quote(page_path).encode()}
        BASE.set("" if page_path is None else self._access.base)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                # Pages contain texts of the data: no browser may store a copy.
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope, Headers(scope=scope), static, page_path is not None)
        await (refusal or self._app)(scope, receive, send_with_headers)

    def _refusal(
        self, scope: Scope, headers: Headers, static: bool, known_path: bool
    ) -> ASGIApp | None:
        """The response in place of the page; ``None`` where the page is shown. ``known_path``: the
        path is below ``base``."""
        access, host = self._access, headers.get("host")
        if not access.is_host(host):
            return PlainTextResponse(OTHER_HOST, 403)
        if static:
            return None
        query = scope["query_string"].decode("latin-1")
        if scope["method"] in SAFE_METHODS and "token=" in query:
            cookie = access.redeem_token(query)
            if cookie is not None:
                rest = [(k, v) for k, v in parse_qsl(query) if k != "token"]
                address = f"{access.base}/" + scope["path"].lstrip("/")
                address += f"?{urlencode(rest)}" if rest else ""
                return RedirectResponse(address, 303, {"Set-Cookie": cookie})
        if not known_path or not access.has_session(headers.get("cookie")):
            return message_page(
                "This browser has no access yet",
                "Open the address that `holdfast dashboard` printed in its terminal. It is valid "
                "once; each use prints a new address for the next browser.",
                401,
                "If you have just opened that address through a link, continue here.",
                ("/", "Continue"),
            )
        if scope["method"] not in SAFE_METHODS and not access.is_same_origin(
            host, headers.get("origin")
        ):
            text = "A change must be sent from a page of this dashboard.\n"
            return PlainTextResponse(text, 403)
        return None
