"""Noisy labels: the model is sure, and the label says otherwise, as often as chance would have it.

A hard row leaves a model in doubt; a wrong label contradicts it where it is sure. Among the rows
that a clean set's model is surest about, nearly every label agrees; wrong labels do not know what
is easy, so among those they are as many as among all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Evidence, Floats, Snapshot
from holdfast.monitor import limits
from holdfast.monitor.case import Bools, Case
from holdfast.monitor.detectors import DETECTORS
from holdfast.monitor.remedies import for_noisy_labels
from holdfast.monitor.sign import Sign, item
from holdfast.stats.intervals import wilson

CAUSE = "wrong labels"
LEAST = 10


@dataclass(frozen=True, slots=True)
class Contradicted:
    """Of the surest quarter of some rows: how many contradict their label, with an interval, and
    the same share of all the rows."""

    wrong: int
    n: int
    low: float
    high: float
    overall: float

    @property
    def share(self) -> float:
        return self.wrong / self.n

    @property
    def telling(self) -> bool:
        often = self.share >= limits.SURE_TO_ALL * self.overall
        return often and self.low > limits.SURE_WRONG


def noisy_labels(case: Case) -> Sign | None:
    """``noisy_labels`` where the surest quarter of the validation rows, or of the train probe,
    contradicts its labels in 15 % of the rows or more (by the whole Wilson interval) and at least
    half as often as all rows do.

    Sureness and answer are those of the probabilities averaged over the later half of the looks up
    to the best one: an average of states knows its doubts better than one, and before the end the
    rows that are learned last still contradict (the area under the margin, 2001.10528, in
    probabilities). Of the train probe only losses are kept, which tell the answer for two classes
    alone, and only while it is not fitted yet. A run that has not got 85 % of the train probe right
    has too little to hold against its labels, and so has one that was at its best a look ago and
    has not come to its end. Ten per cent of wrong labels stay below the line at
    200 rows; 20 % are seen, 30 % plainly. Fewer than 40 rows of a set say nothing.
    """
    if not case.enough or case.labels is None or not _fits(case) or _improving(case):
        return None
    looks = _looks(case)
    if not looks:
        return None
    found = {"valid": contradicted(*_of_validation(case, looks))}
    if case.probe.size and len(np.unique(case.labels)) == 2:
        p = np.exp(-case.probe[:, looks]).mean(axis=1)
        found["train_probe"] = contradicted(np.maximum(p, 1 - p), p < 0.5)
    telling = {name: one for name, one in found.items() if one is not None and one.telling}
    if not telling:
        return None
    name, worst = max(telling.items(), key=lambda pair: pair[1].low)
    rows = "the train probe" if name == "train_probe" else "validation"
    step = case.steps[looks[-1]]
    return Sign(
        because=f"of the quarter of {rows} that the model is surest about, {worst.share:.0%} "
        f"contradict their label ({worst.overall:.0%} of all rows do)",
        strength=0.95, label="noisy_labels", cause=CAUSE, blame=0.9,
        explains=("overfit", "memorizing"), since_step=case.steps[looks[0]],
        evidence=tuple(_item(name, one, step) for name, one in found.items() if one),
        remedies=for_noisy_labels(),
    )  # fmt: skip


def contradicted(sure: Floats, wrong: Bools) -> Contradicted | None:
    """What the surest quarter says, from how sure each row's answer is and whether its label
    contradicts that, both [n]; ``None`` below 40 rows."""
    top = int(len(sure) * limits.SURE_SHARE)
    if top < LEAST:
        return None
    surest = np.argsort(-sure, kind="stable")[:top]
    count = int(wrong[surest].sum())
    low, high = wilson(count, top)
    return Contradicted(count, top, low, high, float(wrong.mean()))


def _fits(case: Case) -> bool:
    hits = case.probe_hits
    return hits is not None and bool(hits.size) and bool(hits[:, -1].mean() >= limits.EARLY)


def _improving(case: Case) -> bool:
    return not case.final and case.best > len(case.history) - 3


def _looks(case: Case) -> list[int]:
    """The later half of the looks up to the best, without the first of all and those at which
    validation was no better than the class frequencies."""
    means, chance = case.valid.mean(axis=0), case.chance or 0.0
    first = max(1, (case.best + 1) // 2)
    return [k for k in range(first, case.best + 1) if means[k] < limits.LEARNED * chance]


def _of_validation(case: Case, looks: list[int]) -> tuple[Floats, Bools]:
    """The sureness of the averaged answer of each row, and whether its label contradicts it."""
    mean = np.mean([_probabilities(case.history[k]) for k in looks], axis=0)
    return mean.max(axis=1), mean.argmax(axis=1) != case.labels


def _probabilities(snapshot: Snapshot) -> Floats:
    """After the best temperature, [n, classes]."""
    temperature = snapshot.temperature if snapshot.temperature > 0 else 1.0
    scores = np.asarray(snapshot.valid_logits, dtype=np.float64) / temperature
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _item(name: str, one: Contradicted, step: int) -> Evidence:
    return item(f"{name}_surest_rows_contradicted", one.share, one.low, one.high, step)


DETECTORS.add("noisy_labels", noisy_labels)
