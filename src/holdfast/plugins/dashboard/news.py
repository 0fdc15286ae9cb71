"""Server-sent events for open pages, made by polling the files for changes.

Nothing is read while nothing changed: a file's time and size are checked twice a second, only of
runs that an open page shows.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.concurrency import run_in_threadpool

from holdfast.core.errors import RunError
from holdfast.core.run_files import EVENTS_FILE
from holdfast.plugins.dashboard.files import START_POSITION, read_new_lines
from holdfast.plugins.dashboard.run_views import event_text
from holdfast.plugins.dashboard.runs import Runs, file_version

# How often a file is polled [s], a list, and how often a silent stream sends a comment.
POLL_S, LIST_S, STATE_S, HEARTBEAT_S = 0.5, 1.0, 2.0, 15.0
# A slow list is polled more rarely: it takes at most this share of a core.
SHARE = 0.005


def message(event_type: str, data: str = "", position: str = "") -> str:
    """One server-sent event; its data are one line."""
    text = " ".join(data.split())
    return (
        f"event: {event_type}\n" + (f"id: {position}\n" if position else "") + f"data: {text}\n\n"
    )


async def run_news(
    runs: Runs,
    name: str,
    position: str = START_POSITION,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[str]:
    """``look`` for what a run writes after ``position`` (the event's id is the position after it),
    ``again`` where its file was restarted, ``state`` where the state changed, ``gone`` where the
    run was removed."""
    yield "retry: 1000\n\n"
    path = await run_in_threadpool(runs.path, name)
    if path is None:
        yield message("gone")
        return
    summary = await run_in_threadpool(runs.summary, name)
    state = summary.state if summary else ""
    known_file_state: tuple[int, ...] | None = ()
    last_sent = state_checked_at = time.monotonic()
    while True:
        file_state = file_version(path / EVENTS_FILE)
        if file_state != known_file_state:
            has_more = True
            while has_more:
                try:
                    new_lines = await run_in_threadpool(
                        read_new_lines, path / EVENTS_FILE, position
                    )
                except (OSError, RunError):
                    break
                has_more = new_lines.more
                words = [text for _, event in new_lines.lines if (text := event_text(event))]
                if new_lines.restarted and position != START_POSITION:
                    yield message("again", position=new_lines.position)
                if words:
                    yield message("look", words[-1], new_lines.position)
                    last_sent = time.monotonic()
                position = new_lines.position
            known_file_state = file_state
        if time.monotonic() - state_checked_at >= STATE_S or file_state is None:
            state_checked_at = time.monotonic()
            summary = await run_in_threadpool(runs.summary, name)
            if summary is None:
                yield message("gone")
                return
            if summary.state != state:
                state = summary.state
                yield message("state", state)
                if state == "finished":
                    return
        if time.monotonic() - last_sent >= HEARTBEAT_S:
            last_sent = time.monotonic()
            yield ": \n\n"
        await sleep(POLL_S)


async def list_news(
    runs: Runs, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncIterator[str]:
    """``list`` where runs were added, removed or updated."""
    yield "retry: 2000\n\n"
    last_sent, version = time.monotonic(), runs.version
    while True:
        started = time.monotonic()
        if await run_in_threadpool(runs.changed) or runs.version != version:
            version = runs.version
            yield message("list")
            last_sent = time.monotonic()
        elif time.monotonic() - last_sent >= HEARTBEAT_S:
            last_sent = time.monotonic()
            yield ": \n\n"
        await sleep(max(LIST_S, (time.monotonic() - started) / SHARE))
