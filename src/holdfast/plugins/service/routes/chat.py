"""``/v1/chat/completions``, ``/v1/completions`` and ``/v1/models``."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.responses import Response

from holdfast.plugins.service.chat.conversations import Chats, Conversation
from holdfast.plugins.service.chat.replies import (
    ChatCompletion,
    Model,
    Models,
    TextCompletion,
    WrongBody,
    refusal,
    reply,
)
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
