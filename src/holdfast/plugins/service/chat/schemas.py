"""The shapes of answers, for the OpenAPI document; ``asked`` has those of what is asked."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

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
