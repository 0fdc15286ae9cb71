"""Precision, recall and F1 of each label, or type of entity, from counts that are resampled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats, Ints
from holdfast.metrics.resample import POSITIVE, RATE, Resampling, parts_in, undefined


def f1_of(hits: Floats, labelled: Floats, predicted: Floats) -> Floats:
    """2 hits ÷ (labelled + predicted); NaN where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(2 * hits / (labelled + predicted))


def with_each(
    averages: Sequence[Floats], hits: Floats, labelled: Floats, predicted: Floats
) -> Floats:
    """The ``averages`` [resamples] as columns, followed by precision, recall and F1 of each of k
    labels, from its counts [resamples, k]: [resamples, averages + 3 k].
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        each = [hits / predicted, hits / labelled, f1_of(hits, labelled, predicted)]
    return np.concatenate([np.stack(averages, axis=1), *each], axis=1)


def rate_estimates(
    drawing: Resampling,
    rows: Floats,
    values: Callable[[Floats], Floats],
    averages: Sequence[str],
    why: tuple[str, str],
    name: str,
) -> tuple[dict[str, Estimate], list[Estimate]]:
    """The ``averages`` by name, and each label's numbers in the order of ``with_each``, from what
    ``values`` makes of sums over ``rows``.

    All lie in [0, 1], except the ``loss``. ``why`` gives the reason why an average or a label's
    number is undefined.
    """
    result, table = drawing.sums(rows, values, name)
    counting = parts_in(values(table))
    loss, estimates = averages.index("loss"), []
    for column, value in enumerate(result.value):
        within = POSITIVE if column == loss else RATE
        estimates.append(
            drawing.estimate(result, column, within=within, counting=counting[column])
            if np.isfinite(value)
            else undefined(why[column >= len(averages)])
        )
    return dict(zip(averages, estimates, strict=False)), estimates[len(averages) :]


def rates_by_name(
    names: Sequence[str], counts: Ints, estimates: Sequence[Estimate]
) -> dict[str, dict[str, Any]]:
    """``per_class`` of a score: how many rows or entities each name has, and its numbers."""
    k = len(names)
    return {
        name: {
            "n": int(counts[i]),
            "precision": estimates[i],
            "recall": estimates[k + i],
            "f1": estimates[2 * k + i],
        }
        for i, name in enumerate(names)
    }
