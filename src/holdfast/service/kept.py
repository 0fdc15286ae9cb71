"""Rows as they are kept: personal data and secrets taken out first, vectors in half precision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast.auditing.treat.mask import masked
from holdfast.core.records import Floats
from holdfast.store.records import Request, Row

# Beyond it a picture or a file stands in the place of a text: its letters say nothing.
LONGEST_MASKED = 1_000_000


def masked_row(row: Row) -> Row:
    """The row with ``[EMAIL]`` in the place of an address and so on, in every text in it, however
    deep; see ``auditing/personal.py`` for what is known."""
    return {name: _masked(value) for name, value in row.items()}


def masked_request(request: Request) -> Request:
    """The request with its texts masked. Takes tens of microseconds a text: not on the way of an
    answer."""
    texts = tuple(replace(one, row=masked_row(one.row)) for one in request.texts)
    return replace(request, texts=texts)


def packed(vectors: Floats | None, index: int) -> bytes | None:
    """The vector of a row as it is stored: float16, the first number first."""
    return None if vectors is None else np.asarray(vectors[index]).astype("<f2").tobytes()


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return masked(value) if len(value) <= LONGEST_MASKED else value
    if isinstance(value, Mapping):
        return {name: _masked(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(one) for one in value]
    return value
