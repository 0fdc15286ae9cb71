"""``/v1/chat/completions``, ``/v1/completions`` and ``/v1/models``: an answer of a language model
as OpenAI's clients read it, whole, or piece by piece as server-sent events.

The shapes are those of the API's published reference: ``chat.completion``,
``chat.completion.chunk``, ``text_completion``, ``model``; the OpenAPI document has them as schemas.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from holdfast.plugins.service.chat.conversations import Chats, Conversation, Ended
from holdfast.plugins.service.chat.request import (
    Ask,
    ChatBody,
    ChatError,
    CompletionBody,
    other_model,
    read_chat,
    read_completion,
)
from holdfast.plugins.service.records import RowPrediction, RowPredictions, Served
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.endpoint import Call, Endpoint, as_json
from holdfast.plugins.service.web.faults import openai
from holdfast.plugins.store.records import user_mark

# Conversations that somebody may record and label; the others have no whole answer.
WHOLE = ("stop", "length")
ELSEWHERE = (
    (404, "No language model, or another one"),
    (504, "The answer was not ready in serve.chat_timeout_s"),
)
PREFIX = {"chat": "chatcmpl-", "text": "cmpl-"}
DOCUMENT = {"chat": "chat.completion", "text": "text_completion"}
PIECE = {"chat": "chat.completion.chunk", "text": "text_completion"}
DONE = "data: [DONE]\n\n"
# Clients pass over it, and proxies see that somebody is there.
STILL_HERE, STILL_HERE_S = ": still here\n\n", 15.0
# A client that left gets no answer; the counters show this number, which nginx made known.
LEFT = 499
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
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


async def answer(read: Callable[..., Ask], service: Service, call: Call) -> Response:
    """Answer a conversation, or go on with a text: ``read`` reads which."""
    holding = contextlib.ExitStack()
    try:
        # Held before the model is looked up: one that is taken off ends when its last is answered.
        if (asking := getattr(service.engine, "asking", None)) is not None:
            holding.enter_context(asking())
        chats = await _chats(service)
        one = await chats.begin(read(call.json(), chats.name, chats.mark))
    except ChatError as refused:
        holding.close()
        service.measured.refused(refused.code or "bad request")
        return refusal(refused)
    except BaseException:
        holding.close()
        raise

    def after() -> None:
        holding.close()
        _record(service, call, chats, one)

    call.after = after
    return reply(one, chats.name)


async def models(service: Service, call: Call) -> Response:
    """The one model that is served: a list of it, or by its name."""
    try:
        chats = await _chats(service)
        name = call.params.get("name", chats.name)
        if name not in (chats.name, chats.mark):
            raise other_model(name, chats.name)
    except ChatError as refused:
        return refusal(refused)
    one = {
        "id": chats.name,
        "object": "model",
        "created": int(chats.since),
        "owned_by": "holdfast",
        "max_model_len": chats.context,
    }
    return as_json(one if call.params else {"object": "list", "data": [one]})


async def _chats(service: Service) -> Chats:
    task = service.facts.task
    chats = None if service.chats is None else await service.chats.now()
    if chats is None:
        rule = f"This run is of the task {task}: it holds no conversations. "
        rule += 'Ask POST /predict with {"texts": [...]}.'
        raise ChatError(404, rule, code="not_a_language_model")
    return chats


def _record(service: Service, call: Call, chats: Chats, one: Conversation) -> None:
    """What was answered, for the store and for those who look on."""
    ended, ask = one.ended, one.ask
    if ended is None or ended.why not in WHOLE:
        return
    row: dict[str, Any] = {"messages": [dict(turn) for turn in ask.turns]}
    if len(ask.turns) < 2:
        row = {service.facts.columns[0]: ask.turns[0]["content"] if ask.turns else ask.text}
    answered = RowPredictions((RowPrediction(ended.text, ended.confidence),), chats.mark)
    user = None if ask.user is None else user_mark(ask.user)
    seconds = time.monotonic() - call.started
    served = Served(one.id, one.at, (row,), answered, user, conversation=True)
    service.afterwards(served, seconds, len(call.body))


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
        head = _head(self._one, DOCUMENT[kind], self._model)
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
    if ended.why in WHOLE:
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


_v1 = partial(Endpoint, refuses=openai, wrong=WrongBody)
ENDPOINTS = (
    _v1(
        "POST",
        "/v1/chat/completions",
        partial(answer, read_chat),
        "An answer of a language model, as OpenAI's clients ask for it; streamed where asked",
        ChatBody,
        ChatCompletion,
        also=ELSEWHERE,
    ),
    _v1(
        "POST",
        "/v1/completions",
        partial(answer, read_completion),
        "A text gone on with by a language model",
        CompletionBody,
        TextCompletion,
        also=ELSEWHERE,
    ),
    _v1(
        "GET",
        "/v1/models",
        models,
        "The language model that is served",
        gives=Models,
        also=ELSEWHERE[:1],
    ),
    _v1(
        "GET", "/v1/models/{name}", models, "The same by its name", gives=Model, also=ELSEWHERE[:1]
    ),
)
