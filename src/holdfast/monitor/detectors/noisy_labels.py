"""Noisy labels: the model is sure, and the label says otherwise, as often as chance would have it.

A hard row leaves a model in doubt; a wrong label contradicts it where it is sure. Among the rows
that a clean set's model is surest about, nearly every label agrees; wrong labels do not know what
is easy, so among those they are as many as among all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Evidence, Floats
from holdfast.monitor import limits
from holdfast.monitor.case import Case
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
    """``noisy_labels`` where, on the train probe or on validation, the surest quarter of the rows
    contradicts its labels more often than clean sets do (the whole Wilson interval above 4 %) and
    at least 0.4 times as often as all rows do.

    A row's doubt is read from the probability of its label, p = e^−loss, averaged over the looks up
    to the best one at which the model had learned something: below ½ it contradicts, and the
    further from ½ the surer (the area under the margin, 2001.10528, in probabilities). Averaging
    before the end is what shows the rows that are learned last: once memorized, they hide.
    Needs a task that says which rows are right; fewer than 40 rows of a set say nothing.
    """
    if not case.enough or case.valid_hits is None:
        return None
    looks = _looks(case)
    if not looks:
        return None
    found = {
        "train_probe": contradicted(np.exp(-case.probe[:, looks]).mean(axis=1)),
        "valid": contradicted(np.exp(-case.valid[:, looks]).mean(axis=1)),
    }
    telling = {name: one for name, one in found.items() if one is not None and one.telling}
    if not telling:
        return None
    name, worst = max(telling.items(), key=lambda pair: pair[1].low)
    rows = "the train probe" if name == "train_probe" else "validation"
    return Sign(
        because=f"of the quarter of {rows} that the model is surest about, {worst.share:.0%} "
        f"contradict their label ({worst.overall:.0%} of all rows do)",
        strength=0.95, label="noisy_labels", cause=CAUSE, blame=0.9,
        explains=("overfit", "memorizing"), since_step=case.steps[looks[0]],
        evidence=tuple(
            _item(name, one, case.steps[looks[-1]]) for name, one in found.items() if one
        ),
        remedies=for_noisy_labels(),
    )  # fmt: skip


def contradicted(p: Floats) -> Contradicted | None:
    """What the surest quarter says, from the mean probability of each row's label [n]."""
    top = int(len(p) * limits.SURE_SHARE)
    if top < LEAST:
        return None
    surest = np.argsort(-np.abs(p - 0.5), kind="stable")[:top]
    wrong = int((p[surest] < 0.5).sum())
    low, high = wilson(wrong, top)
    return Contradicted(wrong, top, low, high, float((p < 0.5).mean()))


def _looks(case: Case) -> list[int]:
    """The looks up to the best at which validation was clearly better than by chance."""
    if case.chance is None:
        return []
    means = case.valid.mean(axis=0)
    return [k for k in range(case.best + 1) if means[k] < limits.LEARNED * case.chance]


def _item(name: str, one: Contradicted, step: int) -> Evidence:
    return item(f"{name}_surest_rows_contradicted", one.share, one.low, one.high, step)


DETECTORS.add("noisy_labels", noisy_labels)
