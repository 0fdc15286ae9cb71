"""What a page that is open is told: server-sent events, made by asking the files what is new.

Nothing is read while nothing changed: a file's time and size are asked twice a second, of the runs
that somebody looks at alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.concurrency import run_in_threadpool

from holdfast.core.errors import RunError
from holdfast.core.run_files import EVENTS_FILE
from holdfast.plugins.dashboard.files import START, follow
from holdfast.plugins.dashboard.run_views import look_words
from holdfast.plugins.dashboard.runs import Runs, file_mark

# How often a file is asked for news [s], a list, and how often a silent line shows that it lives.
LOOK_S, LIST_S, STATE_S, BEAT_S = 0.5, 1.0, 2.0, 15.0
# A list that takes long to ask is asked more rarely: at most this share of a core.
SHARE = 0.005


def message(kind: str, data: str = "", place: str = "") -> str:
    """One event as the wire has it; the words are one line."""
    text = " ".join(data.split())
    return f"event: {kind}\n" + (f"id: {place}\n" if place else "") + f"data: {text}\n\n"


async def run_news(
    runs: Runs,
    name: str,
    place: str = START,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncIterator[str]:
    """``look`` for what a run writes after ``place`` (its id is the place after it), ``again``
    where its file began anew, ``state`` where that changed, ``gone`` where the run is."""
    yield "retry: 1000\n\n"
    path = await run_in_threadpool(runs.path, name)
    if path is None:
        yield message("gone")
        return
    known = await run_in_threadpool(runs.summary, name)
    state = known.state if known else ""
    mark: tuple[int, ...] | None = ()
    beat = asked = time.monotonic()
    while True:
        now = file_mark(path / EVENTS_FILE)
        if now != mark:
            more = True
            while more:
                try:
                    found = await run_in_threadpool(follow, path / EVENTS_FILE, place)
                except (OSError, RunError):
                    break
                more = found.more
                words = [text for _, event in found.lines if (text := look_words(event))]
                if found.again and place != START:
                    yield message("again", place=found.place)
                if words:
                    yield message("look", words[-1], found.place)
                    beat = time.monotonic()
                place = found.place
            mark = now
        if time.monotonic() - asked >= STATE_S or now is None:
            asked = time.monotonic()
            known = await run_in_threadpool(runs.summary, name)
            if known is None:
                yield message("gone")
                return
            if known.state != state:
                state = known.state
                yield message("state", state)
                if state == "finished":
                    return
        if time.monotonic() - beat >= BEAT_S:
            beat = time.monotonic()
            yield ": \n\n"
        await sleep(LOOK_S)


async def list_news(
    runs: Runs, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> AsyncIterator[str]:
    """``list`` where runs came, went, or went on."""
    yield "retry: 2000\n\n"
    beat, version = time.monotonic(), runs.version
    while True:
        started = time.monotonic()
        if await run_in_threadpool(runs.changed) or runs.version != version:
            version = runs.version
            yield message("list")
            beat = time.monotonic()
        elif time.monotonic() - beat >= BEAT_S:
            beat = time.monotonic()
            yield ": \n\n"
        await sleep(max(LIST_S, (time.monotonic() - started) / SHARE))
