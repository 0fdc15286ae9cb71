"""Facts of rows and of their answers that are watched beside vectors and classes."""

from __future__ import annotations

from collections.abc import Sequence

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
    found: dict[str, Floats] = {}
    if any(one is not None for one in confidence):
        found[CONFIDENCE] = _floats(list(confidence))
    if texts is not None:
        found["words"] = _floats([len(text.split()) for text in texts])
    first = next((one for one in predictions if one is not None), None)
    if isinstance(first, str):
        said = [one if isinstance(one, str) else None for one in predictions]
        found["answer words"] = _floats([None if one is None else len(one.split()) for one in said])
        found["repetition"] = _floats([None if one is None else repetition(one) for one in said])
    elif isinstance(first, int | float):
        found["answer"] = _floats(
            [one if isinstance(one, int | float) else None for one in predictions]
        )
    elif isinstance(first, list | tuple):
        lists = [one if isinstance(one, list | tuple) else None for one in predictions]
        if outside is None:
            found["labels"] = _floats([None if one is None else len(one) for one in lists])
        else:
            found["tagged"] = _floats(
                [sum(tag != outside for tag in one) / len(one) if one else None for one in lists]
            )
    return found


def repetition(text: str) -> float:
    """The share of the runs of three words that stood in the text before: 0 says nothing twice."""
    words = text.casefold().split()
    runs = [tuple(words[i : i + 3]) for i in range(len(words) - 2)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def _floats(values: Sequence[float | int | None]) -> Floats:
    return np.array([np.nan if one is None else float(one) for one in values])
