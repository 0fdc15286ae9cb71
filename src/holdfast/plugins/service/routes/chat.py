"""``/v1/chat/completions``, ``/v1/completions`` and ``/v1/models``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from holdfast.plugins.service.chat import shapes
from holdfast.plugins.service.chat.conversations import Chats, Conversation
from holdfast.plugins.service.chat.errors import ChatError
from holdfast.plugins.service.chat.replies import refusal, reply
from holdfast.plugins.service.chat.request import (
    Ask,
    ChatBody,
    CompletionBody,
    read_chat,
    read_completion,
)
from holdfast.plugins.service.chat.schemas import (
    ChatCompletion,
    Model,
    Models,
    TextCompletion,
    WrongBody,
)
from holdfast.plugins.service.records import RowPrediction, RowPredictions, Served
from holdfast.plugins.service.service import Service
from holdfast.plugins.service.web.endpoint import Call, Endpoint
from holdfast.plugins.service.web.faults import openai
from holdfast.plugins.service.web.replies import as_json
from holdfast.plugins.store.records import user_mark

Read = Callable[..., Ask]
# Conversations that somebody may record and label; the others have no whole answer.
WHOLE = ("stop", "length")
ELSEWHERE = (
    (404, "No language model, or another one"),
    (504, "The answer was not ready in serve.chat_timeout_s"),
)


async def chat_completions(service: Service, call: Call) -> Response:
    """Answer the last message of a conversation."""
    return await _answer(service, call, read_chat)


async def completions(service: Service, call: Call) -> Response:
    """Go on with a text."""
    return await _answer(service, call, read_completion)


async def models(service: Service, call: Call) -> Response:
    """The one model that is served."""
    try:
        chats = await _chats(service)
    except ChatError as refused:
        return refusal(refused)
    return as_json({"object": "list", "data": [_model(chats)]})


async def model(service: Service, call: Call) -> Response:
    """The same by its name."""
    try:
        chats = await _chats(service)
        name = call.params["name"]
        if name not in (chats.name, chats.mark):
            rule = f"The model {name[:200]!r} does not exist here. This server has {chats.name!r}."
            raise ChatError(404, rule, param="model", code="model_not_found")
    except ChatError as refused:
        return refusal(refused)
    return as_json(_model(chats))


async def _answer(service: Service, call: Call, read: Read) -> Response:
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


async def _chats(service: Service) -> Chats:
    task = service.facts.task
    chats = None if service.chats is None else await service.chats.now()
    if chats is None:
        rule = (
            f"This run is of the task {task}: it holds no conversations. Ask POST /predict "
            'with {"texts": [...]}.'
        )
        raise ChatError(404, rule, code="not_a_language_model")
    return chats


def _model(chats: Chats) -> dict[str, Any]:
    return shapes.model_of(chats.name, chats.since, chats.context)


def _record(service: Service, call: Call, chats: Chats, one: Conversation) -> None:
    """What was answered, for the store and for those who look on."""
    ended, ask = one.ended, one.ask
    if ended is None or ended.why not in WHOLE:
        return
    row: dict[str, Any] = {service.facts.columns[0]: ask.text}
    if ask.kind == "chat":
        single = len(ask.turns) == 1
        row = {"messages": [dict(turn) for turn in ask.turns]}
        if single:
            row = {service.facts.columns[0]: ask.turns[0]["content"]}
    answered = RowPredictions((RowPrediction(ended.text, ended.confidence),), chats.mark)
    user = None if ask.user is None else user_mark(ask.user)
    seconds = time.monotonic() - call.started
    served = Served(one.id, one.at, (row,), answered, user, conversation=True)
    service.afterwards(served, seconds, len(call.body))


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/chat/completions",
        chat_completions,
        "An answer of a language model, as OpenAI's clients ask for it; streamed where asked",
        ChatBody,
        ChatCompletion,
        also=ELSEWHERE,
        refuses=openai,
        wrong=WrongBody,
    ),
    Endpoint(
        "POST",
        "/v1/completions",
        completions,
        "A text gone on with by a language model",
        CompletionBody,
        TextCompletion,
        also=ELSEWHERE,
        refuses=openai,
        wrong=WrongBody,
    ),
    Endpoint(
        "GET",
        "/v1/models",
        models,
        "The language model that is served",
        gives=Models,
        also=ELSEWHERE[:1],
        refuses=openai,
        wrong=WrongBody,
    ),
    Endpoint(
        "GET",
        "/v1/models/{name}",
        model,
        "The same by its name",
        gives=Model,
        also=ELSEWHERE[:1],
        refuses=openai,
        wrong=WrongBody,
    ),
)
