"""``/v1/chat/completions``, ``/v1/completions`` and ``/v1/models``: answers of a language model for
OpenAI's clients, complete or streamed as server-sent events.

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

from holdfast.plugins.service.chat.conversations import ChatResult, Chats, Conversation
from holdfast.plugins.service.chat.request import (
    ChatBody,
    ChatError,
    ChatRequest,
    CompletionBody,
    read_chat,
    read_completion,
    unknown_model,
)
from holdfast.plugins.service.records import RowPrediction, RowPredictions, Served
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.endpoint import Call, Endpoint, as_json
from holdfast.plugins.service.web.faults import openai_body
from holdfast.plugins.store.records import OPENAI_PREFIXES, user_mark

# Only these conversations are recorded and can be labelled; others have no complete answer.
COMPLETE = ("stop", "length")
ELSEWHERE = (
    (404, "The served model is not a language model, or has another name"),
    (504, "The answer was not ready within serve.chat_timeout_s"),
)
DOCUMENT = {"chat": "chat.completion", "text": "text_completion"}
CHUNK = {"chat": "chat.completion.chunk", "text": "text_completion"}
DONE = "data: [DONE]\n\n"
# A comment that clients ignore; it shows proxies that the connection is alive.
STILL_HERE, STILL_HERE_S = ": still here\n\n", 15.0
# A client that left gets no response; the counters show nginx's status for it.
CLIENT_CLOSED = 499
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
FinishReason = Literal["stop", "length"]


class Usage(BaseModel):
    """Token counts of the prompt and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Message(BaseModel):
    """The model's message."""

    role: Literal["assistant"]
    content: str


class ChatChoice(BaseModel):
    """The answer, and why it ended."""

    index: int
    message: Message
    finish_reason: FinishReason


class TextChoice(BaseModel):
    """The continuation, and why it ended."""

    index: int
    text: str
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """A complete answer; when streamed, ``chat.completion.chunk`` in each server-sent event."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextCompletion(BaseModel):
    """A complete continuation."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class Model(BaseModel):
    """The served model; ``max_model_len`` is the maximum number of tokens of a prompt and its
    answer."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class Models(BaseModel):
    """The list with the served model."""

    object: Literal["list"]
    data: list[Model]


class Wrong(BaseModel):
    """An error: the field (``param``) and an error code for programs (``code``)."""

    message: str
    type: str
    param: str | None
    code: str | None


class WrongBody(BaseModel):
    """An error response in the format of OpenAI's API."""

    error: Wrong


async def answer(read: Callable[..., ChatRequest], service: Service, call: Call) -> Response:
    """Answer a conversation or continue a text; ``read`` parses the body of either."""
    stack = contextlib.ExitStack()
    try:
        # Entered before the model is looked up: a replaced model is closed after its last
        # conversation.
        stack.enter_context(service.engine.using_shown())
        chats = await _chats(service)
        conversation = await chats.start(read(call.json(), chats.name, chats.stored_name))
    except ChatError as error:
        stack.close()
        service.counters.count_refusal(error.code or "bad request")
        return refusal(error)
    except BaseException:
        stack.close()
        raise

    def after() -> None:
        stack.close()
        _record(service, call, chats, conversation)

    call.after = after
    return reply(conversation, chats.name)


async def models(service: Service, call: Call) -> Response:
    """The served model: as a list, or by its name."""
    try:
        chats = await _chats(service)
        name = call.params.get("name", chats.name)
        if name not in (chats.name, chats.stored_name):
            raise unknown_model(name, chats.name)
    except ChatError as error:
        return refusal(error)
    document = {
        "id": chats.name,
        "object": "model",
        "created": int(chats.since),
        "owned_by": "holdfast",
        "max_model_len": chats.context,
    }
    return as_json(document if call.params else {"object": "list", "data": [document]})


async def _chats(service: Service) -> Chats:
    task = service.facts.task
    chats = None if service.chats is None else await service.chats.current()
    if chats is None:
        rule = f"This run has the task {task}, which has no conversations. "
        rule += 'Use POST /predict with {"texts": [...]}.'
        raise ChatError(404, rule, code="not_a_language_model")
    return chats


def _record(service: Service, call: Call, chats: Chats, conversation: Conversation) -> None:
    """Record the answer in the store and pass it to the observers."""
    result, request = conversation.result, conversation.request
    if result is None or result.end_reason not in COMPLETE:
        return
    row: dict[str, Any] = {"messages": [dict(turn) for turn in request.turns]}
    if len(request.turns) < 2:
        row = {
            service.facts.columns[0]: request.turns[0]["content"] if request.turns else request.text
        }
    predictions = RowPredictions(
        (RowPrediction(result.text, result.confidence),), chats.stored_name
    )
    user = None if request.user is None else user_mark(request.user)
    seconds = time.monotonic() - call.started
    served = Served(
        conversation.id, conversation.started_at, (row,), predictions, user, conversation=True
    )
    service.finish_request(served, seconds, len(call.body))


def reply(conversation: Conversation, model: str) -> Response:
    """The response to an accepted conversation, complete or streamed. However the response ends, so
    does the conversation."""
    return (
        _StreamedResponse(conversation, model)
        if conversation.request.stream
        else _WholeResponse(conversation, model)
    )


def refusal(error: ChatError) -> Response:
    """The error response."""
    return JSONResponse(error.to_json(), error.status, headers=error.headers)


class _WholeResponse(Response):
    """The complete answer in one document, unless the client leaves before it is ready."""

    def __init__(self, conversation: Conversation, model: str) -> None:
        super().__init__()
        self._conversation, self._model = conversation, model

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        result_task = asyncio.create_task(_result(self._conversation))
        disconnect_task = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({result_task, disconnect_task}, return_when=asyncio.FIRST_COMPLETED)
            if not result_task.done():
                self.status_code = CLIENT_CLOSED
                return
            result = result_task.result()
            error = _error_of(result)
            response = refusal(error) if error else JSONResponse(self._document(result))
            self.status_code = response.status_code
            await response(scope, receive, send)
        finally:
            self._conversation.leave()
            for task in (result_task, disconnect_task):
                task.cancel()

    def _document(self, result: ChatResult) -> dict[str, Any]:
        prompt_type = self._conversation.request.prompt_type
        content: dict[str, Any] = {"text": result.text}
        if prompt_type == "chat":
            content = {"message": {"role": "assistant", "content": result.text, "refusal": None}}
        envelope = _envelope(self._conversation, DOCUMENT[prompt_type], self._model)
        return {
            **envelope,
            "choices": [_choice(content, result.end_reason)],
            "usage": _usage(result),
        }


async def _result(conversation: Conversation) -> ChatResult:
    while True:
        update = await conversation.updates.get()
        if isinstance(update, ChatResult):
            return update


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _StreamedResponse(StreamingResponse):
    """A stream whose end, also before its first piece, ends the conversation."""

    def __init__(self, conversation: Conversation, model: str) -> None:
        super().__init__(
            _events(conversation, model), media_type="text/event-stream", headers=STREAM_HEADERS
        )
        self._conversation = conversation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._conversation.leave()


async def _events(conversation: Conversation, model: str) -> AsyncIterator[str]:
    chat = conversation.request.prompt_type == "chat"
    envelope = _envelope(conversation, CHUNK[conversation.request.prompt_type], model)
    no_usage = {"usage": None} if conversation.request.usage else {}

    def chunk(content: dict[str, Any], finish_reason: str | None = None) -> str:
        return _event({**envelope, "choices": [_choice(content, finish_reason)], **no_usage})

    if chat:
        yield chunk({"delta": {"role": "assistant", "content": ""}})
    while True:
        try:
            update = await asyncio.wait_for(conversation.updates.get(), STILL_HERE_S)
        except TimeoutError:
            yield STILL_HERE
            continue
        if isinstance(update, ChatResult):
            break
        yield chunk({"delta": {"content": update}} if chat else {"text": update})
    if error := _error_of(update):
        # An incomplete answer ends without ``[DONE]``.
        yield _event(error.to_json())
        return
    last = chunk({"delta": {}} if chat else {"text": ""}, update.end_reason)
    if conversation.request.usage:
        last += _event({**envelope, "choices": [], "usage": _usage(update)})
    yield last + DONE


def _error_of(result: ChatResult) -> ChatError | None:
    """The error for an incomplete answer; ``None`` for a complete one."""
    if result.end_reason in COMPLETE:
        return None
    if result.end_reason == "deadline":
        rule = "The answer was not ready within the time limit of a request."
        return ChatError(504, rule, code="deadline", retry_after=5)
    return ChatError(
        500, "The model could not answer; the server's log has the reason.", code="failed"
    )


def _envelope(conversation: Conversation, object_type: str, model: str) -> dict[str, Any]:
    return {
        "id": OPENAI_PREFIXES[conversation.request.prompt_type] + conversation.id,
        "object": object_type,
        "created": int(conversation.started_at),
        "model": model,
        "system_fingerprint": None,
    }


def _choice(content: dict[str, Any], finish_reason: str | None) -> dict[str, Any]:
    return {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}


def _usage(result: ChatResult) -> dict[str, int]:
    """Tokens of the prompt and of the answer, including the one that ends it."""
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": result.tokens,
        "total_tokens": result.prompt_tokens + result.tokens,
    }


def _event(document: dict[str, Any]) -> str:
    # One line, whatever it contains: JSON escapes line ends.
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


_v1 = partial(Endpoint, error_body=openai_body, error_schema=WrongBody)
ENDPOINTS = (
    _v1(
        "POST",
        "/v1/chat/completions",
        partial(answer, read_chat),
        "Chat completion in the format of OpenAI's API, optionally streamed",
        ChatBody,
        ChatCompletion,
        other_statuses=ELSEWHERE,
    ),
    _v1(
        "POST",
        "/v1/completions",
        partial(answer, read_completion),
        "Text completion in the format of OpenAI's API",
        CompletionBody,
        TextCompletion,
        other_statuses=ELSEWHERE,
    ),
    _v1(
        "GET",
        "/v1/models",
        models,
        "List the served language model",
        response_schema=Models,
        other_statuses=ELSEWHERE[:1],
    ),
    _v1(
        "GET",
        "/v1/models/{name}",
        models,
        "Describe the served language model",
        response_schema=Model,
        other_statuses=ELSEWHERE[:1],
    ),
)
