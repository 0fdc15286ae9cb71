"""Rows that are all there, held against the reference: like it or not, in what, how right the model
is about them, and since which row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.plugins.drift.accuracy import (
    TOLERANCE,
    HarmWatch,
    estimated_accuracy,
    powered_accuracy,
    support_of,
)
from holdfast.plugins.drift.distance import Apart, apart, rank_area
from holdfast.plugins.drift.monitor import BETWEEN, DriftMonitor
from holdfast.plugins.drift.rows import (
    CONFIDENCE,
    DriftRows,
    DriftWord,
    Reference,
    rows_with,
    telling_terms,
)
from holdfast.quality.two_samples import proportions_differ
from holdfast.stats.auc import delong
from holdfast.stats.intervals import wilson

# Of calling like rows different, over all that is looked at.
ERROR = 0.01
# Rows beyond these make a classifier no surer, only slower.
MOST_ROWS = 2000
EXAMPLES = 5


@dataclass(frozen=True, slots=True, eq=False)
class DriftReport:
    """What ``compare_rows`` found. ``differ`` are the sides on which rows are surely not alike
    (``inputs``, ``classes``, or a fact's name); ``alarms`` say since when, where rows stand in the
    order in which they came.

    Each of ``classes`` is how often it is answered, ``then`` and ``now``. Of ``facts``, by name,
    ``then`` and ``now`` are medians and ``higher`` the chance that a new row has more of it than an
    old one (0.5: alike), ``moved`` where that is sure.
    """

    rows: int
    reference: Reference
    differ: Sequence[str]
    apart: Apart | None
    classes: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Mapping[str, Any]]
    accuracy: Mapping[str, Any]
    harm: Mapping[str, Any] | None
    terms: Sequence[DriftWord]
    examples: Sequence[Mapping[str, Any]]
    monitor: DriftMonitor

    @property
    def verdict(self) -> str:
        """``alike`` or ``differ``; ``harmful`` where labels show that the model is worse."""
        if self.harm is not None and self.harm["harmful"]:
            return "harmful"
        return "differ" if self.differ else "alike"

    def to_json(self) -> dict[str, Any]:
        apart, inputs = self.apart, None
        if apart is not None:
            outside = float(apart.outside.mean())
            inputs = {"told_apart": apart.area, "share": apart.share, "outside": outside}
        block = {
            "verdict": self.verdict,
            "rows": self.rows,
            "reference": {"rows": len(self.reference), "what": self.reference.what},
            "differ": self.differ,
            "inputs": inputs,
            "classes": self.classes,
            "facts": self.facts,
            "accuracy": self.accuracy,
            "harm": self.harm,
            "alarms": self.monitor.alarms,
            "terms": self.terms,
            "examples": self.examples,
            "unwatched": self.monitor.unwatched,
        }
        return dict(to_json(block))


def compare_rows(
    reference: Reference, new: DriftRows, *, wrong: Floats | None = None, between: int = BETWEEN
) -> DriftReport:
    """``new`` rows, in the order in which they came, against the reference.

    Each side is tested at its share of 1 %, both sets being samples: the area under the ROC curve
    of a classifier of vectors and of each fact, Pearson's χ² of the classes. ``wrong`` [n] (1 or 0,
    NaN where no label is known) adds what labels say.
    """
    some = np.sort(generator(0, "rows of drift").permutation(len(new))[:MOST_ROWS])
    held, names = reference.rows, reference.classes
    numbers = [name for name in held.numbers if name in new.numbers]
    error = ERROR / (len(numbers) + 2)
    found, differ = None, []
    if held.vectors is not None and new.vectors is not None:
        found = apart(held.vectors, new.vectors[some])
        # One-sided, at another level than the interval that is shown.
        if found and (rank_area(found.old_scores, found.scores, 1 - 2 * error).low or 0) > 0.5:
            differ.append("inputs")
    shares: list[dict[str, Any]] = []
    if held.answers is not None and new.answers is not None and names:
        then, now = (
            np.bincount(answers[answers >= 0], minlength=len(names))
            for answers in (held.answers, new.answers)
        )
        shares = _shares(names, then, now)
        if proportions_differ(then, now) < error:
            differ.append("classes")
    facts = {name: _fact(held.numbers[name], new.numbers[name], 1 - error) for name in numbers}
    differ += [name for name, fact in facts.items() if fact["moved"]]
    before, accuracy = _accuracy(reference, new, found, bool(differ))
    labels, harm = _by_labels(reference, new, wrong, between)
    terms: list[DriftWord] = []
    examples: list[dict[str, Any]] = []
    if differ and new.texts is not None:
        words = rows_with(new.texts)
        terms = telling_terms(words, len(new), reference.words, reference.told_of)
        if found is not None:
            examples = _examples(new.take(some), found.scores)
    return DriftReport(
        len(new),
        reference,
        differ,
        found,
        shares,
        facts,
        {"before": before, "estimated": accuracy, **labels},
        harm,
        terms,
        examples,
        DriftMonitor.of_reference(reference, between).add(new),
    )


def _shares(names: Sequence[str], then: Ints, now: Ints) -> list[dict[str, Any]]:
    """Every class, the one whose share moved most first."""
    old, late = max(1, int(then.sum())), max(1, int(now.sum()))
    order = np.argsort(-np.abs(now / late - then / old), kind="stable")
    return [
        {"class": names[int(k)], "then": _rate(int(then[k]), old), "now": _rate(int(now[k]), late)}
        for k in order
    ]


def _rate(count: int, n: int) -> Estimate:
    low, high = wilson(count, n)
    return Estimate(count / n, low, high)


def _fact(then: Floats, now: Floats, level: float) -> dict[str, Any]:
    old, late = then[np.isfinite(then)], now[np.isfinite(now)]
    values = np.concatenate([old, late])
    labels = np.repeat([False, True], [len(old), len(late)])
    shown, sure = delong(labels, values), delong(labels, values, level)
    moved = bool(len(old) > 1 and len(late) > 1 and (sure.low > 0.5 or sure.high < 0.5))
    area = Estimate(shown.value, shown.low, shown.high)
    if not np.isfinite([shown.value, shown.low, shown.high]).all():
        area = Estimate(None, why="too few rows have it")
    before, after = (float(np.median(x)) if len(x) else float("nan") for x in (old, late))
    return {"then": before, "now": after, "higher": area, "moved": moved}


def _accuracy(
    reference: Reference, new: DriftRows, found: Apart | None, differ: bool
) -> tuple[Estimate, Estimate]:
    """Of the reference, and of the new rows without a label."""
    right = reference.right
    if right is None or not np.isfinite(right).any():
        why = "answers of this task are not right or wrong"
        return Estimate(None, why=why), Estimate(None, why=why)
    known = right[np.isfinite(right)]
    before = _rate(int(known.sum()), len(known))
    sure, now = reference.rows.numbers.get(CONFIDENCE), new.numbers.get(CONFIDENCE)
    if sure is None or now is None:
        return before, Estimate(None, why="answers have no confidence")
    weights = support = None
    if found is not None:
        support = support_of(found.weights, float(found.outside.mean()), len(found.scores))
        weights = found.weights if differ else None
    return before, estimated_accuracy(sure, right, now, weights=weights, support=support)


def _by_labels(
    reference: Reference, new: DriftRows, wrong: Floats | None, between: int
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What labels say of the accuracy, and whether rows are harmful."""
    if wrong is None or not np.isfinite(wrong).any():
        return {"powered": None, "labels": 0}, None
    labelled = np.isfinite(wrong)
    sure = new.numbers.get(CONFIDENCE, np.full(len(new), np.nan))
    powered = powered_accuracy(1 - wrong[labelled], sure[labelled], sure[~labelled])
    said = {"powered": powered, "labels": int(labelled.sum())}
    watch = None if reference.right is None else HarmWatch.of_reference(reference.right)
    if watch is None:
        return said, None
    made, at = watch.add(wrong[labelled], between)
    since = None if at is None else int(np.flatnonzero(labelled)[made.detector.since])
    harm = {"harmful": at is not None, "allowed": made.allowed, "tolerance": TOLERANCE}
    return said, {**harm, "since": since}


def _examples(rows: DriftRows, scores: Floats) -> list[dict[str, Any]]:
    """The rows that look newest, each text once."""
    assert rows.texts is not None
    found: dict[str, dict[str, Any]] = {}
    for at in map(int, np.argsort(-scores, kind="stable")):
        name = rows.names[at] if rows.names is not None else str(at)
        text, score = rows.texts[at], float(scores[at])
        found.setdefault(text, {"row": name, "text": text, "newness": score})
        if len(found) == EXAMPLES:
            break
    return list(found.values())
