"""What a request says: forms, bodies up to a bound, who sent it; and a page that says what is
wrong with it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, quote, unquote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holdfast.core.errors import HoldfastError
from holdfast.plugins.dashboard.access import DAY_S, cookie_value
from holdfast.plugins.dashboard.pages import message_page, plain
from holdfast.plugins.dashboard.resources import Dashboard
from holdfast.plugins.dashboard.summary import Summary

LARGEST_FORM, LONGEST_NAME = 300_000, 200


def known_run(dashboard: Dashboard, name: str) -> tuple[Summary, Path]:
    """A run by its name; 404 where no folder of that name was found."""
    summary, path = dashboard.runs.summary(name), dashboard.runs.path(name)
    if summary is None or path is None:
        raise HTTPException(404, "There is no run of this name (any more).")
    return summary, path


async def read_form(request: Request) -> dict[str, list[str]]:
    """The fields of a form, all of each name."""
    raw = await read_body(request, LARGEST_FORM)
    try:
        return parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=10_000)
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None


async def read_body(request: Request, most: int) -> bytes:
    """The body, at most so many bytes of it; 413 where it is longer."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise HTTPException(413, f"More than {most:,} bytes are not taken.")
        parts.append(part)
    return b"".join(parts)


def error_page(title: str, error: HoldfastError, status: int) -> Response:
    """What went wrong and what to do, as the command line says it."""
    text = plain(f"{error.what}: {error.rule}", 600)
    return message_page(title, text, status, plain(error.remedy, 600))


def who_is(dashboard: Dashboard, request: Request) -> str:
    """The name that this browser gave; empty where it gave none."""
    found = unquote(cookie_value(request.headers.get("cookie"), f"{dashboard.access.cookie}-who"))
    return found if found.isprintable() and len(found) <= LONGEST_NAME else ""


def remember_who(dashboard: Dashboard, answer: Response, who: str) -> None:
    answer.set_cookie(
        f"{dashboard.access.cookie}-who",
        quote(who),
        max_age=30 * DAY_S if who else 0,
        httponly=True,
        samesite="strict",
        path=f"{dashboard.access.base}/",
    )


def part_of(request: Request) -> str:
    """Which part of a page a script asks for; empty for the whole."""
    return request.query_params.get("part", "")
