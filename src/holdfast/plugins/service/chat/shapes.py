"""Answers as OpenAI's clients read them: whole ones, pieces of a stream, and the list of models.

The shapes are those of the API's published reference: ``chat.completion``,
``chat.completion.chunk``, ``text_completion``, ``model``.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from holdfast.plugins.service.chat.conversations import Conversation, Ended

Kind = Literal["chat", "text"]
PREFIX = {"chat": "chatcmpl-", "text": "cmpl-"}
WHOLE = {"chat": "chat.completion", "text": "text_completion"}
PIECE = {"chat": "chat.completion.chunk", "text": "text_completion"}
DONE = "data: [DONE]\n\n"
# Clients pass over it, and proxies see that somebody is there.
STILL_HERE = ": still here\n\n"


def usage(ended: Ended) -> dict[str, int]:
    """Tokens of what was asked and of the answer, the one that ends it included."""
    return {
        "prompt_tokens": ended.prompt_tokens,
        "completion_tokens": ended.tokens,
        "total_tokens": ended.prompt_tokens + ended.tokens,
    }


def whole(one: Conversation, ended: Ended, model: str) -> dict[str, Any]:
    """The whole answer as one document."""
    said: dict[str, Any] = {"text": ended.text}
    if one.ask.kind == "chat":
        said = {"message": {"role": "assistant", "content": ended.text, "refusal": None}}
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": ended.why}
    return {**_head(one, WHOLE[one.ask.kind], model), "choices": [choice], "usage": usage(ended)}


def first(one: Conversation, model: str) -> str:
    """What a stream begins with: who speaks (of a plain text nothing)."""
    if one.ask.kind == "text":
        return ""
    return _chunk(one, model, {"delta": {"role": "assistant", "content": ""}}, None)


def piece(one: Conversation, text: str, model: str) -> str:
    """A piece of the answer."""
    said = {"delta": {"content": text}} if one.ask.kind == "chat" else {"text": text}
    return _chunk(one, model, said, None)


def last(one: Conversation, ended: Ended, model: str) -> str:
    """Why the answer ended, and its numbers where they were asked for."""
    said: dict[str, Any] = {"delta": {}} if one.ask.kind == "chat" else {"text": ""}
    told = _chunk(one, model, said, ended.why)
    if one.ask.usage:
        head = _head(one, PIECE[one.ask.kind], model)
        told += _event({**head, "choices": [], "usage": usage(ended)})
    return told + DONE


def broken(error: dict[str, Any]) -> str:
    """An answer that did not come to its end; no ``[DONE]`` follows."""
    return _event(error)


def model_of(name: str, since: float, context: int) -> dict[str, Any]:
    """One model; ``max_model_len`` is how many tokens a prompt and its answer have together."""
    return {
        "id": name,
        "object": "model",
        "created": int(since),
        "owned_by": "holdfast",
        "max_model_len": context,
    }


def _head(one: Conversation, kind: str, model: str) -> dict[str, Any]:
    return {
        "id": PREFIX[one.ask.kind] + one.id,
        "object": kind,
        "created": int(one.at),
        "model": model,
        "system_fingerprint": None,
    }


def _chunk(one: Conversation, model: str, said: dict[str, Any], why: str | None) -> str:
    choice = {"index": 0, **said, "logprobs": None, "finish_reason": why}
    more = {"usage": None} if one.ask.usage else {}
    return _event({**_head(one, PIECE[one.ask.kind], model), "choices": [choice], **more})


def _event(document: dict[str, Any]) -> str:
    # One line, whatever is in it: JSON writes the ends of lines as escapes.
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"
