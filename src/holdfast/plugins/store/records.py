"""The records of the store: frozen, and independent of any database.

Times are seconds since 1970 (UTC). A *request* is one call with one row or more; ``index`` is the
position of a row in it, from 0. A *model* is named ``NAME@MARK``: the folder's name and the
beginning of the run's seal, so that a folder that was moved is still the same model.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Row = Mapping[str, Any]
# Where a label came from: a call of the service, a file, the labelling page, or another model.
Source = Literal["endpoint", "file", "page", "model"]
# How a row was selected for labelling: drawn uniformly at random from all rows, or from those on
# which two models differ ("unlike"), chosen as informative (active learning), or by the annotator.
# Only rows drawn uniformly from all rows represent the traffic.
Drawn = Literal["uniform", "unlike", "chosen", "volunteered"]
# Whether the annotator had seen the model's prediction, which biases the label towards it.
Suggestion = Literal["hidden", "seen", "unknown"]
# How OpenAI's clients see the id of a conversation or completion begin.
OPENAI_PREFIXES = {"chat": "chatcmpl-", "text": "cmpl-"}


def new_id(at: float | None = None) -> str:
    """A request id [32 hexadecimal digits] that cannot be guessed. Later ids sort after earlier
    ones, to the millisecond."""
    millis = int((time.time() if at is None else at) * 1000)
    return f"{millis:012x}{secrets.token_hex(10)}"


def request_id(given: str) -> str:
    """The id that the store holds of a request, without the prefix that OpenAI's clients see."""
    for prefix in OPENAI_PREFIXES.values():
        given = given.removeprefix(prefix)
    return given


def user_mark(user: str) -> str:
    """The hash of a user's name that the store holds [32 hexadecimal digits]; always the same."""
    return hashlib.sha256(b"holdfast user\0" + user.encode("utf-8", "replace")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class StoredPrediction:
    """One model's prediction of one row. ``shown`` is true for the prediction that was returned,
    false for a shadow model's. ``prediction`` is JSON; it is ``None`` below the threshold, and
    ``because`` gives the reason."""

    index: int
    model: str
    prediction: Any
    confidence: float | None = None
    probabilities: Mapping[str, float] | None = None
    because: str | None = None
    shown: bool = True


@dataclass(frozen=True, slots=True)
class StoredText:
    """The text of a request's row, stored only where the service is set to store texts, until
    ``expires_at`` (``None``: until it is deleted). ``vector`` is the model's feature vector,
    float16 in order."""

    index: int
    row: Row
    vector: bytes | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """One call: its time, its user (a hash, ``None`` where no user was given), its model, its
    duration [s], its predictions, and its texts where they are stored."""

    id: str
    at: float
    model: str
    rows: int
    seconds: float
    user: str | None = None
    predictions: tuple[StoredPrediction, ...] = ()
    texts: tuple[StoredText, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row whose text is stored, with the prediction that was returned."""

    request: str
    index: int
    at: float
    row: Row
    prediction: StoredPrediction
    vector: bytes | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The annotator who labels a row now, until when, and whether the model's prediction was
    ``seen``."""

    request: str
    index: int
    who: str
    until: float
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Feedback:
    """The label that one annotator (or model) gave to one row. ``row`` is given for rows whose text
    no request stored (a file, or a service that stores no texts), until ``expires_at``; ``model``
    is the model whose prediction was shown. ``id`` is assigned by the store."""

    request: str
    index: int
    label: Any
    who: str
    at: float
    model: str | None = None
    source: Source = "endpoint"
    drawn: Drawn = "volunteered"
    suggestion: Suggestion = "unknown"
    row: Row | None = None
    expires_at: float | None = None
    id: int | None = None


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """The outcome of a request outside the service: 1 for a click or a sale, or an amount. ``at``
    is when it was reported; it counts for the time of the request."""

    request: str
    value: float
    at: float
    id: int | None = None


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """The first request of a user (the stored hash) after a given time: its time, and the ``model``
    that answered it."""

    user: str
    at: float
    model: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the service: an alarm, a verdict of the comparison, a promotion, a
    gate, a test, a deletion. ``kind`` names it, ``body`` is JSON. Events are never changed, with
    one exception: a text in an event (``{"row": "REQUEST/INDEX", "text": …}``) is removed when it
    is deleted elsewhere."""

    kind: str
    at: float
    body: Mapping[str, Any] = field(default_factory=dict)
    id: int | None = None
