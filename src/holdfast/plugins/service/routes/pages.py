"""``/`` and ``/openapi.json``: the page to try the model, and the description for programs."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from pathlib import Path

from starlette.responses import Response

from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.endpoint import JSON, Call, Endpoint, as_text
from holdfast.plugins.service.web.schemas import ErrorBody, OpenApi

PAGE = Path(__file__).parent / "page.html"


@functools.cache
def page() -> tuple[str, str]:
    """The page, and the policy under which its own script and style run, and nothing else does:
    each is named by its hash, and nothing is loaded from or sent to another host."""
    text = PAGE.read_text("utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.S)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )
    return text, policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


async def try_it(service: Service, call: Call) -> Response:
    """The page; it holds nothing of the model, and asks for the token where one is needed."""
    text, policy = page()
    headers = {
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
    }
    return as_text(text, "text/html; charset=utf-8", headers=headers)


async def openapi(service: Service, call: Call) -> Response:
    """The description of all endpoints."""
    return as_text(call.describe(), JSON)


ENDPOINTS = (
    Endpoint("GET", "/", try_it, "A page to try the model", media="text/html", open=True),
    Endpoint("GET", "/openapi.json", openapi, "This document", gives=OpenApi, wrong=ErrorBody),
)
