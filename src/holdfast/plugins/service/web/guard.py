"""``AccessRules``: who may call the service. They read only the headers of a request, and the
token's file.

Three attacks come through a browser on this machine, without a token: a foreign name that resolves
to this service (DNS rebinding, detected by ``Host``), a foreign page that posts here (detected by
``Origin``), and a foreign page that reads the response (no CORS header is ever sent).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from holdfast.core.decisions import notify
from holdfast.core.discovery import missing_path_remedy, path_exists
from holdfast.core.errors import RecipeError
from holdfast.core.input_errors import reading_errors
from holdfast.core.records import Decision
from holdfast.plugins.service.web.faults import Fault

LOCAL = ("localhost", "127.0.0.1", "::1")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# 128 bits are 32 hexadecimal digits.
MIN_TOKEN_LENGTH, MAX_TOKEN_LENGTH = 16, 1024
# RFC 6750: the characters of a bearer token.
_TOKEN_FORM = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
MAKE_TOKEN = "(umask 077; openssl rand -hex 32 > {})"
_HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^:\[\]/@\s]+)(?::(?P<port>\d{1,5}))?")


def is_local(host: str) -> bool:
    """Whether only this machine can reach a server that listens on ``host``."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False


def host_name(value: str) -> str | None:
    """The name in a ``Host`` header in lower case, without port and brackets; ``None`` where it is
    invalid."""
    match = _HOST.fullmatch(value.strip())
    if match is None or int(match["port"] or 0) > 65_535:
        return None
    return match["name"].strip("[]").lower().rstrip(".")


@dataclass(frozen=True)
class AccessRules:
    """``hosts`` are the allowed names in a ``Host`` header, ``None`` for any; ``digest`` is the
    SHA-256 of the token, ``None`` where none is required; ``proxy_names`` are names of this service
    behind a proxy, whose own pages may write."""

    hosts: frozenset[str] | None
    digest: bytes | None
    proxy_names: frozenset[str] = frozenset()

    @classmethod
    def for_server(cls, host: str, token: str | None, hosts: Iterable[str] = ()) -> AccessRules:
        """The rules of a server that listens on ``host``. On a local host, or where ``hosts`` are
        named, other names are refused."""
        proxy_names = frozenset(name.lower() for name in hosts)
        allowed = frozenset({*LOCAL, host.strip("[]").lower(), *proxy_names})
        return cls(
            allowed if is_local(host) or proxy_names else None,
            None if token is None else _digest(token.encode()),
            proxy_names,
        )

    def check_host(self, headers: dict[bytes, bytes]) -> None:
        """Raises ``Fault`` 403 for a foreign ``Host``."""
        if self.hosts is None:
            return
        value = headers.get(b"host", b"").decode("latin-1")
        # HTTP/1.0 need not send it; a browser always does.
        if not value or host_name(value) in self.hosts:
            return
        rule, names = "is not a name of this service", " or ".join(sorted(self.hosts)[:6])
        remedy = f"Use {names}, or start the service with --set serve.hosts=NAME."
        raise Fault(403, "Host", rule, value, remedy, reason="host", closing=True)

    def check_origin(self, method: str, headers: dict[bytes, bytes]) -> None:
        """Raises ``Fault`` 403 for a request from another site's page."""
        if method in SAFE_METHODS:
            return
        origin = headers.get(b"origin")
        if origin is None:
            if headers.get(b"sec-fetch-site", b"") in (b"", b"none", b"same-origin"):
                return
            sender = headers[b"sec-fetch-site"].decode("latin-1")
        else:
            sender = origin.decode("latin-1")
            own_host = headers.get(b"host", b"").decode("latin-1").lower()
            sender_host = sender.lower().partition("://")[2]
            if (own_host and sender_host == own_host) or host_name(sender_host) in self.proxy_names:
                return
        rule = "is another site, whose pages may not write to this service"
        remedy = "Send the request from the service's own page, or from a program."
        raise Fault(403, "Origin", rule, sender, remedy, reason="origin", closing=True)

    def check_token(self, headers: dict[bytes, bytes]) -> None:
        """Raises ``Fault`` 401 without the token; takes constant time whatever is wrong with it."""
        if self.digest is None:
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        right = hmac.compare_digest(_digest(given.strip()), self.digest)
        if right and scheme.lower() == b"bearer":
            return
        raise Fault(
            401,
            "Authorization",
            "does not contain the token" if given else "is missing",
            None,
            "Send Authorization: Bearer TOKEN, the token of the service's --token-file.",
            reason="token",
            headers={"WWW-Authenticate": 'Bearer realm="holdfast"'},
        )


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def read_token(path: Path) -> str:
    """The token; a decision warns about a file that others can read. Raises ``RecipeError`` for a
    file that is missing, has no token, a token of fewer than 16 characters, or is writable by
    others."""
    option = f"--token-file {path}"
    how_to_make = f"Create it: {MAKE_TOKEN.format(path)}"
    if not path_exists(path):
        raise RecipeError(
            option, "does not exist", None, f"{missing_path_remedy(path)} {how_to_make}"
        )
    if path.is_dir():
        raise RecipeError(option, "is a folder", None, how_to_make)
    with (
        reading_errors(option, RecipeError, "cannot be read", "Check its permissions."),
        path.open("rb") as file,
    ):
        mode = os.fstat(file.fileno()).st_mode
        raw = file.read(MAX_TOKEN_LENGTH + 3)
    if stat.S_ISREG(mode) and mode & (stat.S_IWGRP | stat.S_IWOTH):
        rule = "is writable by other users, who could set the token"
        raise RecipeError(option, rule, oct(mode & 0o777), f"chmod 600 {path}")
    lines = raw.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    # The content is never shown, not even where it is invalid.
    token = lines[0].strip().decode("latin-1")
    bad_character = "contains an invalid character; use letters, digits and -._~+/"
    for wrong, rule in (
        (len(lines) > 2 or any(line.strip() for line in lines[1:]), "contains more than one line"),
        (not token, "is empty"),
        (len(token) > MAX_TOKEN_LENGTH, f"contains more than {MAX_TOKEN_LENGTH:,} characters"),
        (not _TOKEN_FORM.fullmatch(token), bad_character),
    ):
        if wrong:
            raise RecipeError(option, rule, None, how_to_make)
    if len(token) < MIN_TOKEN_LENGTH:
        rule = f"contains a token of fewer than {MIN_TOKEN_LENGTH} characters, which can be guessed"
        raise RecipeError(option, rule, len(token), how_to_make)
    if stat.S_ISREG(mode) and mode & stat.S_IROTH:
        because = (
            f"its mode is {oct(mode & 0o777)}, so other users of this machine can read the "
            f"token; run chmod 600 {path}"
        )
        notify(Decision("token file", "readable by others", because, prominent=True))
    return token
