"""Who may come in: the name that the page is asked under, a token that opens once, a cookie, and
for whatever changes something the page that it was sent from.

A page on 127.0.0.1 is reached by every program of the machine and, through a name whose address
changes (DNS rebinding), by every page that the user has open. So

- a request under another ``Host`` than this machine's is refused (403) before anything is read;
- the printed address carries a token that works once: it becomes a cookie that no script reads
  (``HttpOnly``) and no other site sends (``SameSite=Strict``), and is gone from the address bar;
- cookies know no ports, so that another server of this machine would be sent it: the cookie is good
  below a path that nobody else knows (``base``), and a browser sends it nowhere else;
- without that cookie nothing is shown but how to get it (401);
- a request that changes something needs an ``Origin`` of this very page besides (403).
"""

from __future__ import annotations

import hmac
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

NAMES = ("127.0.0.1", "localhost", "[::1]")
# Of browsers that hold a cookie at a time; the oldest is forgotten.
MOST_SESSIONS = 64
DAY_S = 86_400
SAFE = frozenset({"GET", "HEAD"})
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
"""What every answer bears: the page's own files and nothing else, in no frame."""


class Access:
    """The tokens and cookies of one dashboard on ``port``; everything is forgotten with it.

    ``offer`` is told each new address that opens it: a token that was used is replaced, so that a
    second browser has one too.
    """

    def __init__(self, port: int, offer: Callable[[str], None] = lambda _: None) -> None:
        self.port = port
        self._offer = offer
        self.base = "/" + secrets.token_urlsafe(12)
        self._token = secrets.token_urlsafe(24)
        self._sessions: deque[str] = deque(maxlen=MOST_SESSIONS)

    @property
    def cookie(self) -> str:
        """Cookies know no ports: two dashboards of one machine must not take each other's."""
        return f"holdfast-{self.port}"

    @property
    def url(self) -> str:
        """The address that opens the dashboard once."""
        return f"http://127.0.0.1:{self.port}/?token={self._token}"

    def is_host(self, host: str | None) -> bool:
        """Whether a request was sent to this machine under a name of its own."""
        return host in {f"{name}:{self.port}" for name in NAMES}

    def take(self, query: str) -> str | None:
        """The ``Set-Cookie`` for a query that holds the token; ``None`` for any other. The token
        is of no use from then on."""
        given = parse_qs(query).get("token", [""])[-1]
        if not _same(given, self._token):
            return None
        self._token = secrets.token_urlsafe(24)
        session = secrets.token_urlsafe(32)
        self._sessions.append(session)
        self._offer(self.url)
        kept = f"HttpOnly; SameSite=Strict; Max-Age={30 * DAY_S}"
        return f"{self.cookie}={session}; Path={self.base}/; {kept}"

    def below(self, path: str) -> str | None:
        """The page that a path below ``base`` names, with its slash; ``None`` for any other."""
        head, slash, rest = path[1:].partition("/")
        return "/" + rest if slash and _same("/" + head, self.base) else None

    def knows(self, cookies: str | None) -> bool:
        """Whether a ``Cookie`` header holds one that this dashboard gave."""
        # Another server of this machine may have set one of the same name for every path.
        given = [cookie_value(one, self.cookie) for one in (cookies or "").split(";")]
        # Every one is compared: how long it takes tells nothing.
        return sum(_same(one, known) for one in given for known in self._sessions) > 0

    def is_own(self, host: str | None, origin: str | None) -> bool:
        """Whether a request that changes something was sent by a page of this dashboard."""
        return host is not None and self.is_host(host) and origin == f"http://{host}"


def cookie_value(header: str | None, name: str) -> str:
    """The value of a cookie in a ``Cookie`` header; empty where there is none."""
    try:
        found = SimpleCookie(header or "").get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())
