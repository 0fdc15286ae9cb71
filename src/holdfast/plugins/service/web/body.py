"""The body of a request: bounded bytes, then strict JSON (RFC 8259, and RFC 7493 on names).

Python's own reader takes NaN, numbers beyond every float, the last of several equal names and
halves of characters. Each would become another value on the way to the model or the store; all are
refused.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable, Iterator
from typing import Any

from starlette.types import Receive

from holdfast.core.shapes import check_size
from holdfast.plugins.service.web.faults import Fault, bad

WHAT = "the body"
REMEDY = 'Send JSON such as {"texts": ["…"]}.'
# Only escapes can bring these in: UTF-8 has no halves, and JSON no raw control characters.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_NUL = "\\u0000"
# Bytes of each body that every connection may send, whatever the others do.
FREE = 65_536
KINDS = ("application/json", "application/x-www-form-urlencoded")


class Gone(Exception):
    """The client has hung up."""


def check_head(headers: dict[bytes, bytes], most: int) -> None:
    """Refuse what can be refused before a byte of the body is read.

    ``application/x-www-form-urlencoded`` is what curl and urllib say of any body unless they are
    told otherwise; another site's form is kept out by its ``Origin``.
    """
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")
    if kind and kind not in KINDS and not kind.endswith("+json"):
        rule = "names what this endpoint does not read"
        remedy = "Send JSON, with Content-Type: application/json."
        raise Fault(415, "Content-Type", rule, kind, remedy, reason="media type", closing=True)
    coding = headers.get(b"content-encoding", b"").strip().lower()
    if coding not in (b"", b"identity"):
        raise Fault(
            415,
            "Content-Encoding",
            "is not taken: a packed body can unpack to any size",
            coding.decode("latin-1"),
            "Send the body as it is.",
            reason="media type",
            headers={"Accept-Encoding": "identity"},
            closing=True,
        )
    length = headers.get(b"content-length", b"")
    if length.isdigit() and int(length[:20]) > most:
        raise too_long(int(length[:20]), most)


def too_long(found: int | None, most: int) -> Fault:
    """413, after which the connection is closed."""
    rule = f"is longer than the {most:,} bytes that are taken"
    remedy = "Send fewer rows a request, or start the service with --set serve.max_body_mb=N."
    return Fault(413, WHAT, rule, found, remedy, reason="body", closing=True)


class Arriving:
    """The bytes of all bodies that are still arriving, at most ``most`` beyond the first ``FREE``
    of each: whoever sends many long bodies slowly keeps no short one out."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0

    @contextlib.contextmanager
    def one(self) -> Iterator[Callable[[int], None]]:
        """Of one body: told how long it is so far, it raises ``Fault`` 503 where all together are
        too much."""
        mine = 0

        def grown(length: int) -> None:
            nonlocal mine
            more = max(0, length - FREE) - mine
            if self.held + more > self.most:
                rule = f"takes {self.most:,} bytes of bodies that are still arriving"
                raise Fault(
                    503,
                    "this service",
                    f"{rule}, which is reached",
                    None,
                    "Ask again after the seconds in Retry-After, or start the service with "
                    "--set serve.max_bodies_mb=N.",
                    reason="bodies",
                    again_s=1,
                    closing=True,
                )
            mine += more
            self.held += more

        try:
            yield grown
        finally:
            self.held -= mine


async def read_body(receive: Receive, most: int, arriving: Arriving) -> bytes:
    """All of the body, or ``Fault`` 413 as soon as it is too long, 503 where all that arrive are;
    ``Gone`` without a reader."""
    message = await receive()
    if message["type"] != "http.request":
        raise Gone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False) and len(body) <= most:
        return body
    parts, length = [body], len(body)
    with arriving.one() as grown:
        while length <= most:
            if not message.get("more_body", False):
                return b"".join(parts)
            grown(length)
            message = await receive()
            if message["type"] != "http.request":
                raise Gone
            parts.append(message.get("body", b""))
            length += len(parts[-1])
    raise too_long(None, most)


def read_json(body: bytes) -> dict[str, Any]:
    """The object that the body holds. Raises ``Fault`` 400 for anything else."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        rule = f"is not UTF-8: byte {error.start} cannot stand there"
        raise bad(WHAT, rule, body[error.start : error.start + 4], REMEDY) from None
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except RecursionError:
        raise bad(WHAT, "is nested too deeply", None, REMEDY) from None
    except json.JSONDecodeError as error:
        rule = f"is not JSON: {error.msg} at line {error.lineno}, column {error.colno}"
        raise bad(WHAT, rule, None, REMEDY) from None
    except ValueError as error:
        raise bad(WHAT, f"is not JSON that is taken: {str(error)[:200]}", None, REMEDY) from None
    if not isinstance(value, dict):
        raise bad(WHAT, "must be a JSON object", value, REMEDY)
    try:
        check_size(value)
    except ValueError as error:
        raise bad(WHAT, str(error), None, "Send a flatter, smaller document.") from None
    if _NUL in text and "\0" in (raw := _written(value)):
        place = raw.index("\0")
        rule = "holds a NUL character, which no text has"
        raise bad(WHAT, rule, raw[max(0, place - 20) : place + 20], "Take it out.")
    if _HALF.search(text):
        try:
            _written(value).encode()
        except UnicodeEncodeError as error:
            rule = "holds half of a character (a lone surrogate)"
            found = f"\\u{ord(error.object[error.start]):04x}"
            raise bad(WHAT, rule, found, "Send whole characters.") from None
    return value


def _written(value: Any) -> str:
    """All texts of a value, its names too, in one."""
    texts: list[str] = []
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, str):
            texts.append(one)
        elif isinstance(one, list):
            left += one
        elif isinstance(one, dict):
            texts += one
            left += one.values()
    return " ".join(texts)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"the name {name[:40]!r} stands twice in one object")
        found[name] = value
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is beyond every number that can be held")
    return value
