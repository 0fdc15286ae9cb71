"""Rows as they are kept: personal data and secrets taken out first, vectors in half precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast.core.records import Floats
from holdfast.plugins.store.records import Row, StoredPrediction, StoredRequest
from holdfast.quality.clean.texts import masked

# Beyond it a picture or a file stands in the place of a text: its letters say nothing.
LONGEST_MASKED = 1_000_000


def masked_row(row: Row) -> Row:
    """The row with ``[EMAIL]`` in the place of an address and so on, in every text in it, however
    deep; see ``quality/personal.py`` for what is known."""
    masked_one: Row = _masked(row)
    return masked_one


def masked_request(request: StoredRequest) -> StoredRequest:
    """The request with its texts masked, and with those of its answers that a model wrote. Takes
    tens of microseconds a text: not on the way of an answer."""
    texts = tuple(replace(one, row=masked_row(one.row)) for one in request.texts)
    return replace(request, texts=texts, said=masked_said(request.said))


def masked_said(said: Sequence[StoredPrediction]) -> tuple[StoredPrediction, ...]:
    """Answers with what a model wrote masked: it may say again what it was asked. One with
    probabilities is the name of a class."""
    return tuple(
        one
        if one.probabilities is not None
        else replace(one, prediction=_masked(one.prediction, numbers=False))
        for one in said
    )


def packed(vectors: Floats | None, index: int) -> bytes | None:
    """The vector of a row as it is stored: float16, the first number first."""
    return None if vectors is None else np.asarray(vectors[index]).astype("<f2").tobytes()


def _masked(value: Any, *, numbers: bool = True) -> Any:
    if isinstance(value, str):
        return masked(value) if len(value) <= LONGEST_MASKED else value
    if isinstance(value, int) and numbers and not isinstance(value, bool):
        # A card or an account as a JSON number is one all the same.
        written = str(value)
        return value if (shown := masked(written)) == written else shown
    if isinstance(value, Mapping):
        return {_masked(name): _masked(one, numbers=numbers) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(one, numbers=numbers) for one in value]
    return value
