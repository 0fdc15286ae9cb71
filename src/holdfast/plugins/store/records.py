"""What stands in the store: frozen records, none of which knows a database.

Times are seconds since 1970 (UTC). A *request* is one call with one row or more; ``index`` is the
place of a row in it, from 0. A *model* is named by ``NAME@MARK``: the folder's name and the
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
# Where a label came from: a call of the service, a file, a page for people, or another model.
Source = Literal["endpoint", "file", "page", "model"]
# How a row came to be labelled: drawn evenly at random, of all rows or of those that two models
# answer differently ("unlike"), chosen because it teaches much, or by whoever wished to. Only those
# drawn evenly of all speak for all rows.
Drawn = Literal["uniform", "unlike", "chosen", "volunteered"]
# Whether who labelled had seen the model's answer, which pulls an answer towards itself.
Suggestion = Literal["hidden", "seen", "unknown"]


def new_id(at: float | None = None) -> str:
    """A name for a request [32 hexadecimal digits] that nobody can guess; later ones sort after
    earlier ones, to the millisecond."""
    millis = int((time.time() if at is None else at) * 1000)
    return f"{millis:012x}{secrets.token_hex(10)}"


def user_mark(user: str) -> str:
    """A user as the store knows him: a hash [32 hexadecimal digits], the same each time."""
    return hashlib.sha256(b"holdfast user\0" + user.encode("utf-8", "replace")).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class StoredPrediction:
    """What one model said of one row: ``shown`` is the answer that went out, others were asked in
    its shadow. ``prediction`` is JSON, ``None`` below the threshold, ``because`` says why."""

    index: int
    model: str
    prediction: Any
    confidence: float | None = None
    probabilities: Mapping[str, float] | None = None
    because: str | None = None
    shown: bool = True


@dataclass(frozen=True, slots=True)
class StoredText:
    """The text of a request's row, stored only where a service was told to, until ``expires_at``
    (``None``: until it is deleted). ``vector`` is the model's feature vector, float16 in order."""

    index: int
    row: Row
    vector: bytes | None = None
    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class StoredRequest:
    """One call: when, by whom (a hash, ``None`` where no user was named), to which model, how long
    it took [s], its predictions, and its texts where they are stored."""

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
    """Who labels a row just now, until when, and whether he has ``seen`` the model's answer."""

    request: str
    index: int
    who: str
    until: float
    seen: bool = False


@dataclass(frozen=True, slots=True)
class Feedback:
    """What one person (or model) says is right for one row. ``row`` is there for rows whose text no
    request left (a file, or a service that keeps no texts), until ``expires_at``; ``model`` is
    whose answer was shown. ``id`` is given by the store."""

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
    """What came of a request outside: 1 for a click or a sale, an amount; ``at`` is when it was
    told, and the request's own time is what it counts for."""

    request: str
    value: float
    at: float
    id: int | None = None


@dataclass(frozen=True, slots=True)
class FirstRequest:
    """The first request of a user (the stored hash) since some time, when it was, and which
    ``model`` answered it."""

    user: str
    at: float
    model: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the service: an alarm, a verdict of the comparison, a promotion, a
    gate, a test, a deletion. ``kind`` names it, ``body`` is JSON. Events are never changed, except
    that a text in one (``{"row": "REQUEST/INDEX", "text": …}``) is removed when it is deleted
    elsewhere."""

    kind: str
    at: float
    body: Mapping[str, Any] = field(default_factory=dict)
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Tombstones:
    """What was deleted: names of requests, and labels as ``MARK-NUMBER`` (``Store.mark``)."""

    requests: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
