"""``/v1/chat/completions``, ``/v1/completions`` and ``/v1/models``, for an application to mount."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from holdfast.service.chat import shapes
from holdfast.service.chat.asked import Ask, read_chat, read_completion
from holdfast.service.chat.conversations import Chats, Conversation, Ended
from holdfast.service.chat.refused import Refused

LARGEST_BODY = 8 * 2**20
STILL_HERE_S = 15.0
# A client that left gets no answer; the log shows this number, which nginx made known.
LEFT = 499
Read = Callable[[object, str], Ask]
Endpoint = Callable[[Request], Awaitable[Response]]
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


def chat_routes(chats: Chats | None, task: str) -> list[Route]:
    """The routes for a language model; where the run is of another ``task`` (``chats`` is
    ``None``) they say so and name what to ask instead."""
    if chats is None:
        told = _elsewhere(task)
        return [
            Route("/v1/chat/completions", told, methods=["POST"]),
            Route("/v1/completions", told, methods=["POST"]),
            Route("/v1/models", told),
            Route("/v1/models/{name:path}", told),
        ]

    async def models(request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [_model(chats)]})

    async def model(request: Request) -> Response:
        name = request.path_params["name"]
        if name == chats.name:
            return JSONResponse(_model(chats))
        rule = f"The model {name[:200]!r} does not exist here. This server has {chats.name!r}."
        return refusal(Refused(404, rule, param="model", code="model_not_found"))

    return [
        Route("/v1/chat/completions", _answering(chats, read_chat), methods=["POST"]),
        Route("/v1/completions", _answering(chats, read_completion), methods=["POST"]),
        Route("/v1/models", models),
        Route("/v1/models/{name:path}", model),
    ]


def _model(chats: Chats) -> dict[str, Any]:
    return shapes.model_of(chats.name, chats.since, chats.context)


def _elsewhere(task: str) -> Endpoint:
    rule = (
        f"This run is of the task {task}: it holds no conversations. Ask POST /predict "
        'with {"texts": [...]}.'
    )

    async def told(request: Request) -> Response:
        return refusal(Refused(404, rule, code="not_a_language_model"))

    return told


def _answering(chats: Chats, read: Read) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            ask = read(await _document(request), chats.name)
            conversation = await chats.begin(ask)
        except Refused as refused:
            return refusal(refused)
        except ClientDisconnect:
            return Response(status_code=LEFT)
        if ask.stream:
            return _Streamed(conversation, chats.name)
        return _Whole(conversation, chats.name)

    return answer


async def _document(request: Request) -> object:
    """The JSON of the body. Raises ``Refused`` for one that is too large or none."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise Refused(413, f"The body is larger than {LARGEST_BODY:,} bytes.")
    try:
        return json.loads(bytes(body), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        why = (
            "is nested too deeply" if isinstance(error, RecursionError) else f"is no JSON: {error}"
        )
        raise Refused(400, f"The body {why}.") from None


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


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


def _failed(ended: Ended) -> Refused | None:
    """What is told of an answer that did not come to its end."""
    if ended.why in ("stop", "length"):
        return None
    if ended.why == "deadline":
        rule = "The answer was not ready in the time that a request has here."
        return Refused(504, rule, code="deadline", retry_after=5)
    return Refused(500, "The model could not answer; the server's log says why.", code="failed")


def refusal(refused: Refused) -> Response:
    return JSONResponse(refused.to_json(), refused.status, headers=refused.headers)
