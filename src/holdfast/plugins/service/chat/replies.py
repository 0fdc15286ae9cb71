"""An answer as it goes out, in the shapes that OpenAI's clients read: whole, or piece by piece as
server-sent events.

The shapes are those of the API's published reference: ``chat.completion``,
``chat.completion.chunk``, ``text_completion``, ``model``; the OpenAPI document has them as schemas.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Literal

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from holdfast.plugins.service.chat.conversations import Conversation, Ended
from holdfast.plugins.service.chat.request import ChatError

PREFIX = {"chat": "chatcmpl-", "text": "cmpl-"}
WHOLE = {"chat": "chat.completion", "text": "text_completion"}
PIECE = {"chat": "chat.completion.chunk", "text": "text_completion"}
DONE = "data: [DONE]\n\n"
# Clients pass over it, and proxies see that somebody is there.
STILL_HERE, STILL_HERE_S = ": still here\n\n", 15.0
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
            ended = answer.result()
            failed = _failed(ended)
            told = refusal(failed) if failed else JSONResponse(self._document(ended))
            self.status_code = told.status_code
            await told(scope, receive, send)
        finally:
            self._one.leave()
            for task in (answer, left):
                task.cancel()

    def _document(self, ended: Ended) -> dict[str, Any]:
        kind = self._one.ask.kind
        said: dict[str, Any] = {"text": ended.text}
        if kind == "chat":
            said = {"message": {"role": "assistant", "content": ended.text, "refusal": None}}
        head = _head(self._one, WHOLE[kind], self._model)
        return {**head, "choices": [_choice(said, ended.why)], "usage": _usage(ended)}


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
    chat = one.ask.kind == "chat"
    head = _head(one, PIECE[one.ask.kind], model)
    no_usage = {"usage": None} if one.ask.usage else {}

    def chunk(said: dict[str, Any], why: str | None = None) -> str:
        return _event({**head, "choices": [_choice(said, why)], **no_usage})

    if chat:
        yield chunk({"delta": {"role": "assistant", "content": ""}})
    while True:
        try:
            what = await asyncio.wait_for(one.heard.get(), STILL_HERE_S)
        except TimeoutError:
            yield STILL_HERE
            continue
        if isinstance(what, Ended):
            break
        yield chunk({"delta": {"content": what}} if chat else {"text": what})
    if failed := _failed(what):
        # No ``[DONE]`` follows what did not come to its end.
        yield _event(failed.to_json())
        return
    last = chunk({"delta": {}} if chat else {"text": ""}, what.why)
    if one.ask.usage:
        last += _event({**head, "choices": [], "usage": _usage(what)})
    yield last + DONE


def _failed(ended: Ended) -> ChatError | None:
    """What is told of an answer that did not come to its end."""
    if ended.why in ("stop", "length"):
        return None
    if ended.why == "deadline":
        rule = "The answer was not ready in the time that a request has here."
        return ChatError(504, rule, code="deadline", retry_after=5)
    return ChatError(500, "The model could not answer; the server's log says why.", code="failed")


def _head(one: Conversation, kind: str, model: str) -> dict[str, Any]:
    return {
        "id": PREFIX[one.ask.kind] + one.id,
        "object": kind,
        "created": int(one.at),
        "model": model,
        "system_fingerprint": None,
    }


def _choice(said: dict[str, Any], why: str | None) -> dict[str, Any]:
    return {"index": 0, **said, "logprobs": None, "finish_reason": why}


def _usage(ended: Ended) -> dict[str, int]:
    """Tokens of what was asked and of the answer, the one that ends it included."""
    return {
        "prompt_tokens": ended.prompt_tokens,
        "completion_tokens": ended.tokens,
        "total_tokens": ended.prompt_tokens + ended.tokens,
    }


def _event(document: dict[str, Any]) -> str:
    # One line, whatever is in it: JSON writes the ends of lines as escapes.
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


Why = Literal["stop", "length"]


class Usage(BaseModel):
    """Tokens of what was asked and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Message(BaseModel):
    """What the model says."""

    role: Literal["assistant"]
    content: str


class ChatChoice(BaseModel):
    """The one answer, and why it ended."""

    index: int
    message: Message
    finish_reason: Why


class TextChoice(BaseModel):
    """The one continuation, and why it ended."""

    index: int
    text: str
    finish_reason: Why


class ChatCompletion(BaseModel):
    """A whole answer; streamed it is ``chat.completion.chunk``, one a server-sent event."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextCompletion(BaseModel):
    """A whole continuation."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class Model(BaseModel):
    """The model that is served; ``max_model_len`` tokens hold a prompt and its answer."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class Models(BaseModel):
    """The list of it."""

    object: Literal["list"]
    data: list[Model]


class Wrong(BaseModel):
    """What is at fault: the field (``param``), a word for programs (``code``)."""

    message: str
    type: str
    param: str | None
    code: str | None


class WrongBody(BaseModel):
    """An error as OpenAI's clients read it."""

    error: Wrong
