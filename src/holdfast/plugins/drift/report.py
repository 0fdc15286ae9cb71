"""Rows that are all there, held against the reference: like it or not, in what, how right the model
is about them, and since which row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats, Ints
from holdfast.core.seeds import generator
from holdfast.plugins.drift.accuracy import estimated_accuracy, support_of
from holdfast.plugins.drift.distance import Apart, apart
from holdfast.plugins.drift.facts import CONFIDENCE
from holdfast.plugins.drift.label_evidence import HarmWatch, powered_accuracy
from holdfast.plugins.drift.monitor import BETWEEN, Alarm, DriftMonitor
from holdfast.plugins.drift.rows import DriftRows, Reference
from holdfast.plugins.drift.words import DriftWord, rows_with, telling_terms
from holdfast.quality.two_samples import proportions_differ
from holdfast.stats.auc import delong
from holdfast.stats.intervals import wilson

# Of calling like rows different, over all that is looked at.
ERROR = 0.01
# Rows beyond these make a classifier no surer, only slower.
MOST_ROWS = 2000
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact of rows, then and now: medians, and ``area``, the chance that a new row has more of it
    than an old one (0.5: alike); ``moved`` where that is sure."""

    name: str
    then: float
    now: float
    area: Estimate
    moved: bool

    def to_json(self) -> dict[str, Any]:
        shown = {"then": self.then, "now": self.now, "higher": self.area.to_json()}
        return {**shown, "moved": self.moved}


@dataclass(frozen=True, slots=True)
class ClassShare:
    """How often a class is answered, then and now."""

    name: str
    then: Estimate
    now: Estimate

    def to_json(self) -> dict[str, Any]:
        return {"class": self.name, "then": self.then.to_json(), "now": self.now.to_json()}


@dataclass(frozen=True, slots=True, eq=False)
class DriftReport:
    """What ``compare_rows`` found. ``differ`` are the sides on which rows are surely not alike
    (``inputs``, ``classes``, or a fact's name); ``alarms`` say since when, where rows stand in the
    order in which they came."""

    rows: int
    reference: Reference
    differ: tuple[str, ...]
    apart: Apart | None
    classes: tuple[ClassShare, ...]
    facts: tuple[Fact, ...]
    accuracy: Estimate
    before: Estimate
    powered: Estimate | None
    labels: int
    harm: Mapping[str, Any] | None
    alarms: tuple[Alarm, ...]
    terms: tuple[DriftWord, ...]
    examples: tuple[tuple[str, str, float], ...]
    unwatched: Mapping[str, str]

    @property
    def verdict(self) -> str:
        """``alike`` or ``differ``; ``harmful`` where labels show that the model is worse."""
        if self.harm is not None and self.harm["harmful"]:
            return "harmful"
        return "differ" if self.differ else "alike"

    def to_json(self) -> dict[str, Any]:
        apart = self.apart
        return {
            "verdict": self.verdict,
            "rows": self.rows,
            "reference": {"rows": len(self.reference), "what": self.reference.what},
            "differ": list(self.differ),
            "inputs": None
            if apart is None
            else {
                "told_apart": apart.area.to_json(),
                "share": apart.share.to_json(),
                "outside": float(apart.outside.mean()),
            },
            "classes": [one.to_json() for one in self.classes],
            "facts": {one.name: one.to_json() for one in self.facts},
            "accuracy": {
                "before": self.before.to_json(),
                "estimated": self.accuracy.to_json(),
                "powered": None if self.powered is None else self.powered.to_json(),
                "labels": self.labels,
            },
            "harm": None if self.harm is None else dict(self.harm),
            "alarms": [one.to_json() for one in self.alarms],
            "terms": [one.to_json() for one in self.terms],
            "examples": [
                {"row": name, "text": text, "newness": score} for name, text, score in self.examples
            ],
            "unwatched": dict(self.unwatched),
        }


def compare_rows(
    reference: Reference,
    new: DriftRows,
    *,
    wrong: Floats | None = None,
    between: int = BETWEEN,
    seed: int = 0,
) -> DriftReport:
    """``new`` rows, in the order in which they came, against the reference.

    Each side is tested at its share of 1 %, both sets being samples: the area under the ROC curve
    of a classifier of vectors and of each fact, Pearson's χ² of the classes. ``wrong`` [n] (1 or 0,
    NaN where no label is known) adds what labels say.
    """
    some = _sample(len(new), seed)
    held = reference.rows
    numbers = [name for name in held.numbers if name in new.numbers]
    tests = len(numbers) + 2
    level = 1 - 2 * ERROR / tests
    found = sure = None
    if held.vectors is not None and new.vectors is not None:
        # One classifier, its interval at two levels: the one that decides, the one that is shown.
        found = apart(held.vectors, new.vectors[some], seed=seed)
        sure = apart(held.vectors, new.vectors[some], seed=seed, level=level)
    differ = ["inputs"] if sure is not None and (sure.area.low or 0) > 0.5 else []
    shares: tuple[ClassShare, ...] = ()
    if held.answers is not None and new.answers is not None and reference.classes:
        counts = [_counts(one, len(reference.classes)) for one in (held.answers, new.answers)]
        shares = _shares(reference.classes, *counts)
        if proportions_differ(*counts) < ERROR / tests:
            differ.append("classes")
    facts = tuple(_fact(n, held.numbers[n], new.numbers[n], 1 - ERROR / tests) for n in numbers)
    differ += [one.name for one in facts if one.moved]
    monitor = DriftMonitor.of_reference(reference, between, seed).add(new)
    accuracy, before = _accuracy(reference, new, found, bool(differ), len(some))
    powered, labels, harm = _by_labels(reference, new, wrong, between)
    terms: tuple[DriftWord, ...] = ()
    examples: tuple[tuple[str, str, float], ...] = ()
    if differ and new.texts is not None:
        now = rows_with(new.texts)
        terms = tuple(telling_terms(now, len(new), reference.words, reference.told_of))
        if found is not None:
            examples = _examples(new.take(some), found.scores)
    return DriftReport(
        len(new),
        reference,
        tuple(differ),
        found,
        shares,
        facts,
        accuracy,
        before,
        powered,
        labels,
        harm,
        monitor.alarms,
        terms,
        examples,
        monitor.unwatched,
    )


def _sample(n: int, seed: int) -> Ints:
    order = generator(seed, "rows of drift").permutation(n)
    return np.sort(order[:MOST_ROWS])


def _counts(answers: Ints, classes: int) -> Ints:
    return np.bincount(answers[answers >= 0], minlength=classes)


def _shares(names: Sequence[str], then: Ints, now: Ints) -> tuple[ClassShare, ...]:
    """Every class, the one whose share moved most first."""
    old, late = max(1, int(then.sum())), max(1, int(now.sum()))
    order = np.argsort(-np.abs(now / late - then / old), kind="stable")
    return tuple(
        ClassShare(names[int(k)], _rate(int(then[k]), old), _rate(int(now[k]), late)) for k in order
    )


def _rate(count: int, n: int) -> Estimate:
    low, high = wilson(count, n)
    return Estimate(count / n, low, high)


def _fact(name: str, then: Floats, now: Floats, level: float) -> Fact:
    old, late = then[np.isfinite(then)], now[np.isfinite(now)]
    values = np.concatenate([old, late])
    labels = np.repeat([False, True], [len(old), len(late)])
    shown, sure = delong(labels, values), delong(labels, values, level)
    moved = bool(len(old) > 1 and len(late) > 1 and (sure.low > 0.5 or sure.high < 0.5))
    area = Estimate(shown.value, shown.low, shown.high)
    if not np.isfinite([shown.value, shown.low, shown.high]).all():
        area = Estimate(None, why="too few rows have it")
    medians = [float(np.median(x)) if len(x) else float("nan") for x in (old, late)]
    return Fact(name, medians[0], medians[1], area, moved)


def _accuracy(
    reference: Reference, new: DriftRows, found: Apart | None, differ: bool, sampled: int
) -> tuple[Estimate, Estimate]:
    """Of the new rows without a label, and of the reference."""
    right = reference.right
    if right is None or not np.isfinite(right).any():
        why = "answers of this task are not right or wrong"
        return Estimate(None, why=why), Estimate(None, why=why)
    known = right[np.isfinite(right)]
    before = _rate(int(known.sum()), len(known))
    sure, now = reference.rows.numbers.get(CONFIDENCE), new.numbers.get(CONFIDENCE)
    if sure is None or now is None:
        return Estimate(None, why="answers have no confidence"), before
    weights = support = None
    if found is not None:
        support = support_of(found.weights, float(found.outside.mean()), sampled)
        weights = found.weights if differ else None
    return estimated_accuracy(sure, right, now, weights=weights, support=support), before


def _by_labels(
    reference: Reference, new: DriftRows, wrong: Floats | None, between: int
) -> tuple[Estimate | None, int, dict[str, Any] | None]:
    if wrong is None or not np.isfinite(wrong).any():
        return None, 0, None
    labelled = np.isfinite(wrong)
    sure = new.numbers.get(CONFIDENCE, np.full(len(new), np.nan))
    powered = powered_accuracy(1 - wrong[labelled], sure[labelled], sure[~labelled])
    watch = None if reference.right is None else HarmWatch.of_reference(reference.right)
    if watch is None:
        return powered, int(labelled.sum()), None
    made, at = watch.add(wrong[labelled], between)
    where = np.flatnonzero(labelled)
    harm = {
        "harmful": at is not None,
        "allowed": made.allowed,
        "tolerance": made.tolerance,
        "since": None if at is None else int(where[made.detector.since]),
    }
    return powered, int(labelled.sum()), harm


def _examples(rows: DriftRows, scores: Floats) -> tuple[tuple[str, str, float], ...]:
    """The rows that look newest, each text once."""
    assert rows.texts is not None
    found: dict[str, tuple[str, str, float]] = {}
    for at in np.argsort(-scores, kind="stable"):
        text = rows.texts[int(at)]
        name = rows.names[int(at)] if rows.names is not None else str(int(at))
        found.setdefault(text, (name, text, float(scores[at])))
        if len(found) == EXAMPLES:
            break
    return tuple(found.values())
