"""An answer as it goes out: whole, or piece by piece as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from holdfast.plugins.service.chat import shapes
from holdfast.plugins.service.chat.conversations import Conversation, Ended
from holdfast.plugins.service.chat.errors import ChatError

STILL_HERE_S = 15.0
# A client that left gets no answer; the counters show this number, which nginx made known.
LEFT = 499
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def reply(one: Conversation, model: str) -> Response:
    """The answer to a conversation that was taken on, as it was asked for. However the reply ends,
    so does the conversation."""
    return _Streamed(one, model) if one.ask.stream else _Whole(one, model)


def refusal(refused: ChatError) -> Response:
    """What is told instead of an answer."""
    return JSONResponse(refused.to_json(), refused.status, headers=refused.headers)


class _Whole(Response):
    """The whole answer in one document, unless its reader leaves before it is there."""

    def __init__(self, one: Conversation, model: str) -> None:
        super().__init__()
        self._one, self._model = one, model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = asyncio.create_task(_ended(self._one))
        left = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                self.status_code = LEFT
                return
            failed = _failed(answer.result())
            document = shapes.whole(self._one, answer.result(), self._model)
            told = refusal(failed) if failed else JSONResponse(document)
            self.status_code = told.status_code
            await told(scope, receive, send)
        finally:
            self._one.leave()
            for task in (answer, left):
                task.cancel()


async def _ended(one: Conversation) -> Ended:
    while True:
        what = await one.heard.get()
        if isinstance(what, Ended):
            return what


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Streamed(StreamingResponse):
    """A stream whose end, also before its first piece, is the end of the conversation."""

    def __init__(self, one: Conversation, model: str) -> None:
        super().__init__(
            _events(one, model), media_type="text/event-stream", headers=STREAM_HEADERS
        )
        self._one = one

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._one.leave()


async def _events(one: Conversation, model: str) -> AsyncIterator[str]:
    if begin := shapes.first(one, model):
        yield begin
    while True:
        try:
            what = await asyncio.wait_for(one.heard.get(), STILL_HERE_S)
        except TimeoutError:
            yield shapes.STILL_HERE
            continue
        if isinstance(what, str):
            yield shapes.piece(one, what, model)
            continue
        failed = _failed(what)
        yield shapes.broken(failed.to_json()) if failed else shapes.last(one, what, model)
        return


def _failed(ended: Ended) -> ChatError | None:
    """What is told of an answer that did not come to its end."""
    if ended.why in ("stop", "length"):
        return None
    if ended.why == "deadline":
        rule = "The answer was not ready in the time that a request has here."
        return ChatError(504, rule, code="deadline", retry_after=5)
    return ChatError(500, "The model could not answer; the server's log says why.", code="failed")
