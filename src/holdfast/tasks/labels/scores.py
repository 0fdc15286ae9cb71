"""Sets of labels to numbers with intervals: micro and macro F1, exact match, and label by label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Estimate, Floats, Ints, Scores
from holdfast.core.seeds import generator
from holdfast.metrics.resample import (
    POSITIVE,
    RATE,
    RESAMPLES,
    ResampledUnits,
    parts_in,
    to_estimate,
    undefined,
)
from holdfast.metrics.score import rate_estimate
from holdfast.stats.bootstrap import bootstrap, folded, sums
from holdfast.tasks.labels.losses import f1_of

AVERAGES = ("f1_micro", "f1_macro", "precision_micro", "recall_micro", "loss")
NEVER = "no label is held or answered here"


@dataclass(frozen=True, slots=True)
class SetOutputs:
    """A model's answer for some rows: ``labels`` and ``logits`` [n, labels], ``losses`` [n] the
    mean binary cross-entropy in nats. A label is answered where its logit is above 0."""

    rows: Ints
    labels: npt.NDArray[np.bool_]
    logits: Floats
    losses: Floats
    groups: npt.NDArray[Any] | None = None

    @property
    def answers(self) -> npt.NDArray[np.bool_]:
        """Which labels each row is given, [n, labels]."""
        return np.asarray(self.logits > 0)

    @property
    def probabilities(self) -> Floats:
        """Of each label by itself, float64, [n, labels]."""
        from scipy.special import expit

        return np.asarray(expit(self.logits.astype(np.float64)))

    @property
    def confidence(self) -> Floats:
        """How sure the least sure of a row's yes and no answers is, [n], from 0.5 to 1."""
        chances = self.probabilities
        return np.asarray(np.maximum(chances, 1 - chances).min(axis=1))

    @property
    def units(self) -> ResampledUnits:
        """What is drawn in a resample: rows, or the groups they are in."""
        return ResampledUnits.by(self.groups, len(self.rows))


def score_sets(
    outputs: SetOutputs,
    names: Sequence[str],
    *,
    seed: int = 0,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Scores:
    """``f1_micro`` over all (row, label) answers; ``f1_macro`` the mean over the labels that are
    held or answered; ``exact_match`` the share of rows whose whole set is right (Wilson);
    precision and recall over all answers; ``loss``. ``per_class`` has each label by itself.

    Intervals are BCa over rows, or Student's over groups (``to_estimate``). No rows: undefined.
    """
    order = ("f1_micro", "f1_macro", "exact_match", "precision_micro", "recall_micro", "loss")
    if not len(outputs.rows):
        nothing = undefined("there are no rows")
        return Scores(0, dict.fromkeys(order, nothing), {"per_class": {}})
    units, k = outputs.units, len(names)
    # Of many rows blocks are drawn: the cost no longer grows with them (``folded``).
    codes, atoms = folded(units.codes, units.atoms)
    table = sums(_table(outputs), codes, atoms)
    result = bootstrap(
        lambda weights: _values(weights @ table, k),
        np.ones(atoms, dtype=np.int64),
        seed=generator(seed, "bootstrap", "label sets"),
        level=level,
        resamples=resamples,
        blocks=500,
    )
    counting = parts_in(_values(table, k))
    found = [
        to_estimate(
            result,
            column,
            level,
            units,
            within=POSITIVE if column == AVERAGES.index("loss") else RATE,
            counting=counting[column],
        )
        if np.isfinite(result.value[column])
        else undefined(NEVER if column < len(AVERAGES) else "the label is not held or answered")
        for column in range(len(result.value))
    ]
    metrics = dict(zip(AVERAGES, found, strict=False))
    exact = (outputs.labels == outputs.answers).all(axis=1)
    metrics["exact_match"] = rate_estimate(exact, units, level)
    each = _per_label(outputs, names, found[len(AVERAGES) :])
    return Scores(len(outputs.rows), {name: metrics[name] for name in order}, {"per_class": each})


def _table(outputs: SetOutputs) -> Floats:
    """Summed over rows: hits, labelled and answered of each label, the loss, and one."""
    hits = outputs.labels & outputs.answers
    parts = [hits, outputs.labels, outputs.answers]
    counts = np.concatenate([part.astype(np.float64) for part in parts], axis=1)
    return np.column_stack([counts, outputs.losses, np.ones(len(outputs.rows))])


def _values(totals: Floats, k: int) -> Floats:
    """[resamples, 5 averages + 3 × labels] of sums [resamples, 3 × labels + 2]."""
    hits, labelled, answered = (totals[:, i * k : (i + 1) * k] for i in range(3))
    each = f1_of(hits, labelled, answered)
    some, known = np.isfinite(each), np.isfinite(each).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        macro = np.where(some, each, 0).sum(axis=1) / known
        all_hits = hits.sum(axis=1)
        averages = [
            f1_of(all_hits, labelled.sum(axis=1), answered.sum(axis=1)),
            macro,
            all_hits / answered.sum(axis=1),
            all_hits / labelled.sum(axis=1),
            totals[:, -2] / totals[:, -1],
        ]
        return np.concatenate(
            [np.stack(averages, axis=1), hits / answered, hits / labelled, each], axis=1
        )


def _per_label(
    outputs: SetOutputs, names: Sequence[str], found: list[Estimate]
) -> dict[str, dict[str, Any]]:
    k = len(names)
    return {
        name: {
            "n": int(outputs.labels[:, i].sum()),
            "precision": found[i],
            "recall": found[k + i],
            "f1": found[2 * k + i],
        }
        for i, name in enumerate(names)
    }
