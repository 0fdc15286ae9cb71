"""What a client of OpenAI's API asks, read: ``ChatBody`` and ``CompletionBody`` → ``Ask``, or
``ChatError`` in the shape that these clients read.

What would change the answer and cannot be done is refused by its name, never passed over; fields
that a client sends for the sake of its own books are let through.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from holdfast.data.chats.turns import Turn, read_turns

MOST_STOPS = 4
LONGEST_STOP = 500
MOST_MESSAGES = 1_000
# Neutral values that clients send as a matter of course, and names that say who asks and why.
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
BOOKS = frozenset(
    {"metadata", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
B = TypeVar("B", bound="Settings")
Stop = Annotated[str, Field(min_length=1, max_length=LONGEST_STOP)]
ASKING = ("system", "developer", "user", "assistant", "tool", "function")

KINDS = {400: "invalid_request_error", 404: "invalid_request_error", 504: "timeout_error"}


@dataclass(eq=False, repr=False)
class ChatError(Exception):
    """No answer: the HTTP ``status``, a sentence, the field at fault (``param``), a ``code`` for
    programs, and after how many seconds it may be tried again (``retry_after``)."""

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
                "type": KINDS.get(self.status, "server_error"),
                "param": self.param,
                "code": self.code,
            }
        }

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class StreamOptions(BaseModel):
    """Whether a stream ends with the numbers of its tokens."""

    model_config = ConfigDict(extra="ignore", strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False


class Settings(BaseModel):
    """What both endpoints take."""

    # Other fields are looked at one by one, in ``_checked``.
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

    messages: list[dict[str, Any]] = Field(min_length=1, max_length=MOST_MESSAGES)
    max_completion_tokens: int | None = Field(None, ge=1)


class CompletionBody(Settings):
    """The body of ``POST /v1/completions``."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]


@dataclass(frozen=True, slots=True)
class Ask:
    """One conversation to be answered: its ``turns``, or a ``text`` to go on with.

    ``tokens`` is the longest answer (``None``: as the run has it), ``temperature`` 0 the likeliest
    token at each place, ``top_p`` the share of probability that is drawn from, ``stops`` texts that
    end the answer.
    """

    kind: Literal["chat", "text"]
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


def read_chat(body: object, *models: str) -> Ask:
    """``Ask`` of a body of ``/v1/chat/completions``; ``models`` are the names of the one that is
    served.

    Raises ``ChatError`` for what is no such body, another model, or what cannot be done.
    """
    read = _checked(ChatBody, body, models)
    if read.max_tokens and read.max_completion_tokens:
        rule = "max_tokens and max_completion_tokens are two names of one limit: send one."
        raise ChatError(400, rule, param="max_tokens")
    turns = _turns(read.messages)
    return Ask("chat", turns=turns, **_shared(read, read.max_completion_tokens))


def read_completion(body: object, *models: str) -> Ask:
    """``Ask`` of a body of ``/v1/completions``; raises ``ChatError`` as ``read_chat`` does."""
    read = _checked(CompletionBody, body, models)
    text = read.prompt if isinstance(read.prompt, str) else read.prompt[0]
    _refuse_unwritable(text, "prompt")
    if not text:
        raise ChatError(400, "prompt is empty: there is nothing to go on with.", param="prompt")
    return Ask("text", text=text, **_shared(read, None))


def _checked(kind: type[B], body: object, models: Sequence[str]) -> B:
    if not isinstance(body, Mapping):
        raise ChatError(400, "The body must be a JSON object.")
    try:
        read = kind.model_validate(dict(body))
    except ValidationError as error:
        raise _named(error) from None
    if read.model is not None and read.model not in models:
        raise other_model(read.model, models[0])
    for name, value in (read.model_extra or {}).items():
        neutral = NEUTRAL.get(name, ())
        # True is no 1 here, and False no 0.
        same = any(
            value == ok and isinstance(value, bool) == isinstance(ok, bool) for ok in neutral
        )
        if value is None or name in BOOKS or same:
            continue
        rule, code = "is no field of this endpoint: leave it out", "unknown_parameter"
        if name in NEUTRAL:
            able = " or ".join(repr(one) for one in neutral)
            rule = f"cannot be done here, where it is {able}: leave it out"
            code = "unsupported_parameter"
        rule = f"{name[:100]} {rule} (found: {str(value)[:80]!r})."
        raise ChatError(400, rule, param=name[:100], code=code)
    return read


def other_model(name: str, served: str) -> ChatError:
    """404: another model than the one that is served."""
    rule = f"The model {name[:200]!r} does not exist here. This server has {served!r}."
    return ChatError(404, rule, param="model", code="model_not_found")


def _named(error: ValidationError) -> ChatError:
    errors = error.errors(include_url=False, include_context=False)
    # Pydantic tells of every member of a union, and names it in the path: the one that was meant is
    # the one that was read furthest, and fields and places are enough of a path.
    of_one = [one for one in errors if one["loc"][0] == errors[0]["loc"][0]]
    first = max(of_one, key=lambda one: sum(isinstance(part, int) for part in one["loc"]))
    name, *more = first["loc"]
    where = ".".join([str(name), *(str(part) for part in more if isinstance(part, int))])
    found = "" if first["type"] == "missing" else f" (found: {str(first['input'])[:80]!r})"
    said = str(first["msg"])
    return ChatError(400, f"{where}: {said[:1].lower()}{said[1:]}{found}.", param=where)


def _turns(messages: Sequence[dict[str, Any]]) -> tuple[Turn, ...]:
    turns = []
    for place, message in enumerate(messages):
        where = f"messages.{place}"
        if message.get("tool_calls") or message.get("function_call"):
            rule = f"{where} calls a tool, which is not understood here."
            raise ChatError(400, rule, param=where)
        # Rows of a file are read more widely: other names of the roles, no content at all.
        known = message.get("role") in ASKING and message.get("content") is not None
        read = read_turns([message]) if known else None
        if read is None:
            rule = f"{where} must have a role (system, developer, user, assistant or tool) and a "
            rule += "content that is a text or a list of parts of text."
            raise ChatError(400, rule, param=where)
        _refuse_unwritable(read[0]["content"], where)
        turns += read
    if turns[-1]["role"] not in ("user", "tool"):
        rule = "must end with what is asked: a message of the user (or of a tool)"
        found = turns[-1]["role"]
        raise ChatError(400, f"messages {rule} (found: {found!r}).", param="messages")
    return tuple(turns)


def _refuse_unwritable(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        rule = f"{where} holds half of a surrogate pair, which is no character."
        raise ChatError(400, rule, param=where) from None


def _shared(read: Settings, more: int | None) -> dict[str, Any]:
    stops = [read.stop] if isinstance(read.stop, str) else read.stop or []
    if len(stops) > MOST_STOPS:
        rule = f"stop: at most {MOST_STOPS} texts (found: {len(stops)})."
        raise ChatError(400, rule, param="stop")
    return {
        "tokens": more or read.max_tokens,
        "temperature": read.temperature or 0.0,
        "top_p": 1.0 if read.top_p is None else read.top_p,
        "seed": secrets.randbits(62) if read.seed is None else read.seed % 2**63,
        "stops": tuple(stops),
        "stream": bool(read.stream),
        "usage": bool(read.stream_options and read.stream_options.include_usage),
        "user": read.user,
    }
