"""Facts of rows and of their answers that are watched beside vectors and classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any

import numpy as np

from holdfast.core.records import Floats

CONFIDENCE = "confidence"


def facts_of(
    texts: Sequence[str] | None,
    predictions: Sequence[object],
    confidence: Sequence[float | None],
    outside: object = None,
) -> dict[str, Floats]:
    """By their names, [n] each, NaN where one is not known:

    - ``confidence`` of the answer (of a text the geometric mean of its tokens' probabilities, so
      1 ÷ its perplexity);
    - ``words`` of the text that was asked;
    - of a number ``answer``; of a written text ``answer words`` and ``repetition``, the share of
      its three-word runs that stood in it before; of tags ``tagged``, the share of words that bear
      another than ``outside``; of several labels ``labels``, how many.

    A kind of fact is there where the first known answer is of its kind; class names are written
    texts too, so that of classes the answers are not to be given.
    """

    def answers(kind: type | UnionType, fact: Callable[[Any], float | None]) -> Floats:
        values = [fact(one) if isinstance(one, kind) else None for one in predictions]
        return np.array(values, dtype=np.float64)

    found: dict[str, Floats] = {}
    if any(one is not None for one in confidence):
        found[CONFIDENCE] = np.array(confidence, dtype=np.float64)
    if texts is not None:
        found["words"] = np.array([_words(text) for text in texts], dtype=np.float64)
    first = next((one for one in predictions if one is not None), None)
    if isinstance(first, str):
        found["answer words"] = answers(str, _words)
        found["repetition"] = answers(str, repetition)
    elif isinstance(first, int | float):
        found["answer"] = answers(int | float, float)
    elif isinstance(first, list | tuple):
        if outside is None:
            found["labels"] = answers(list | tuple, len)
        else:
            found["tagged"] = answers(
                list | tuple,
                lambda tags: sum(tag != outside for tag in tags) / len(tags) if tags else None,
            )
    return found


def _words(text: str) -> int:
    return len(text.split())


def repetition(text: str) -> float:
    """The share of the runs of three words that stood in the text before: 0 says nothing twice."""
    words = text.casefold().split()
    runs = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0
