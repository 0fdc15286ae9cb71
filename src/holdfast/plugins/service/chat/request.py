"""Requests of OpenAI's API: parse ``ChatBody`` and ``CompletionBody`` into ``ChatRequest``, or
raise ``ChatError`` in the shape that OpenAI's clients read.

A field that would change the answer and is not supported is refused by name, never ignored. Fields
for the client's own bookkeeping are accepted.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast.data.chats.turns import Turn, read_turns

MAX_STOPS = 4
MAX_STOP_LENGTH = 500
MAX_MESSAGES = 1_000
# Neutral values that clients send by default, and fields for the client's own bookkeeping.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "logprobs": (False, 0),
    "top_logprobs": (0,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
}
BOOKKEEPING = frozenset(
    {"metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
B = TypeVar("B", bound="Settings")
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
ROLES = ("system", "developer", "user", "assistant", "tool", "function")

ERROR_TYPES = {400: "invalid_request_error", 404: "invalid_request_error", 504: "timeout_error"}


@dataclass(eq=False, repr=False)
class ChatError(Exception):
    """An error response: the HTTP ``status``, a sentence, the field at fault (``param``), a
    ``code`` for programs, and the seconds until a retry makes sense (``retry_after``)."""

    status: int
    message: str
    _: KW_ONLY
    param: str | None = None
    code: str | None = None
    retry_after: int | None = None

    def __post_init__(self) -> None:
        super().__init__(self.message)

    def to_json(self) -> dict[str, Any]:
        """``{"error": {"message", "type", "param", "code"}}``."""
        return {
            "error": {
                "message": self.message,
                "type": ERROR_TYPES.get(self.status, "server_error"),
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class StreamOptions(BaseModel):
    """Whether a stream ends with its token counts."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False


class Settings(BaseModel):
    """The fields that both endpoints accept."""

    # ``_checked`` checks other fields one by one.
    model_config = ConfigDict(extra="allow", strict=True)

    model: str | None = Field(None, max_length=500)
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Stop | list[Stop] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = Field(None, max_length=500)


class ChatBody(Settings):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1)


class CompletionBody(Settings):
    """The body of ``POST /v1/completions``."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One conversation to answer: its ``turns``, or a ``text`` to continue.

    ``tokens`` is the longest answer (``None``: the run's setting), ``temperature`` 0 means greedy
    decoding, ``top_p`` is the probability mass to sample from, ``stops`` are texts that end the
    answer.
    """

    prompt_type: Literal["chat", "text"]
    turns: tuple[Turn, ...] = ()
    text: str = ""
    tokens: int | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stops: tuple[str, ...] = ()
    stream: bool = False
    usage: bool = False
    user: str | None = None


def read_chat(body: object, *models: str) -> ChatRequest:
    """``ChatRequest`` from a body of ``/v1/chat/completions``; ``models`` are the names of the
    served model.

    Raises ``ChatError`` for an invalid body, another model, or an unsupported field.
    """
    parsed = _checked(ChatBody, body, models)
    if parsed.max_tokens and parsed.max_completion_tokens:
        rule = (
            "max_tokens and max_completion_tokens are two names of the same limit: send only one."
        )
        raise ChatError(400, rule, param="max_tokens")
    turns = _turns(parsed.messages)
    return ChatRequest("chat", turns=turns, **_shared_options(parsed, parsed.max_completion_tokens))


def read_completion(body: object, *models: str) -> ChatRequest:
    """``ChatRequest`` from a body of ``/v1/completions``; raises ``ChatError`` as ``read_chat``
    does."""
    parsed = _checked(CompletionBody, body, models)
    text = parsed.prompt if isinstance(parsed.prompt, str) else parsed.prompt[0]
    _refuse_unwritable(text, "prompt")
    if not text:
        raise ChatError(400, "prompt is empty: there is no text to continue.", param="prompt")
    return ChatRequest("text", text=text, **_shared_options(parsed, None))


def _checked(schema: type[B], body: object, models: Sequence[str]) -> B:
    if not isinstance(body, Mapping):
        raise ChatError(400, "The body must be a JSON object.")
    try:
        parsed = schema.model_validate(dict(body))
    except ValidationError as error:
        raise _validation_error(error) from None
    if parsed.model is not None and parsed.model not in models:
        raise unknown_model(parsed.model, models[0])
    for name, value in (parsed.model_extra or {}).items():
        neutral = NEUTRAL.get(name, ())
        # True is not 1 here, and False is not 0.
        is_neutral = any(
            value == allowed and isinstance(value, bool) == isinstance(allowed, bool)
            for allowed in neutral
        )
        if value is None or name in BOOKKEEPING or is_neutral:
            continue
        rule, code = "is not a field of this endpoint: leave it out", "unknown_parameter"
        if name in NEUTRAL:
            allowed_values = " or ".join(repr(one) for one in neutral)
            rule = f"is not supported; it must be {allowed_values}, or left out"
            code = "unsupported_parameter"
        rule = f"{name[:100]} {rule} (found: {str(value)[:80]!r})."
        raise ChatError(400, rule, param=name[:100], code=code)
    return parsed


def unknown_model(name: str, served_name: str) -> ChatError:
    """404: a model other than the served one."""
    rule = f"The model {name[:200]!r} does not exist. This server has {served_name!r}."
    return ChatError(404, rule, param="model", code="model_not_found")


def _validation_error(error: ValidationError) -> ChatError:
    errors = error.errors(include_url=False, include_context=False)
    # Pydantic reports every member of a union and names it in the path. The intended member is the
    # one that was parsed furthest; field names and indices suffice as a path.
    same_field = [one for one in errors if one["loc"][0] == errors[0]["loc"][0]]
    first = max(same_field, key=lambda one: sum(isinstance(part, int) for part in one["loc"]))
    name, *more = first["loc"]
    where = ".".join([str(name), *(str(part) for part in more if isinstance(part, int))])
    value_found = "" if first["type"] == "missing" else f" (found: {str(first['input'])[:80]!r})"
    message = str(first["msg"])
    return ChatError(400, f"{where}: {message[:1].lower()}{message[1:]}{value_found}.", param=where)


def _turns(messages: Sequence[dict[str, Any]]) -> tuple[Turn, ...]:
    turns = []
    for place, message in enumerate(messages):
        where = f"messages.{place}"
        if message.get("tool_calls") or message.get("function_call"):
            rule = f"{where} calls a tool, which is not supported."
            raise ChatError(400, rule, param=where)
        # Rows of a file are read more leniently: other role names, no content at all.
        is_known = message.get("role") in ROLES and message.get("content") is not None
        parsed = read_turns([message]) if is_known else None
        if parsed is None:
            rule = f"{where} must have a role (system, developer, user, assistant or tool) and a "
            rule += "content that is a text or a list of parts of text."
            raise ChatError(400, rule, param=where)
        _refuse_unwritable(parsed[0]["content"], where)
        turns += parsed
    if turns[-1]["role"] not in ("user", "tool"):
        rule = "must end with a user message (or a tool message)"
        last_role = turns[-1]["role"]
        raise ChatError(400, f"messages {rule} (found: {last_role!r}).", param="messages")
    return tuple(turns)


def _refuse_unwritable(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        rule = f"{where} contains half of a surrogate pair, which is not a character."
        raise ChatError(400, rule, param=where) from None


def _shared_options(settings: Settings, max_tokens: int | None) -> dict[str, Any]:
    stops = [settings.stop] if isinstance(settings.stop, str) else settings.stop or []
    if len(stops) > MAX_STOPS:
        rule = f"stop: at most {MAX_STOPS} texts (found: {len(stops)})."
        raise ChatError(400, rule, param="stop")
    return {
        "tokens": max_tokens or settings.max_tokens,
        "temperature": settings.temperature or 0.0,
        "top_p": 1.0 if settings.top_p is None else settings.top_p,
        "seed": secrets.randbits(62) if settings.seed is None else settings.seed % 2**63,
        "stops": tuple(stops),
        "stream": bool(settings.stream),
        "usage": bool(settings.stream_options and settings.stream_options.include_usage),
        "user": settings.user,
    }
