"""Rows that are all there, held against the reference: like it or not, in what, how far they are
from it, how right the model is about them, and since which row.

How far: how well a classifier tells the two apart, how much each reference row counts among the
new, and which new rows lie where the reference has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from holdfast.core.records import Estimate, Floats, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.models.probes.probe import stratified_folds
from holdfast.plugins.drift.accuracy import (
    TOLERANCE,
    HarmWatch,
    edge_place,
    estimated_accuracy,
    fitted,
    logit,
    powered_accuracy,
    support_of,
)
from holdfast.plugins.drift.monitor import BETWEEN, DriftMonitor
from holdfast.plugins.drift.rows import (
    CONFIDENCE,
    DriftRows,
    DriftWord,
    Reference,
    rows_with,
    telling_terms,
)
from holdfast.plugins.drift.vectors import precision_of
from holdfast.quality.two_samples import proportions_p_value
from holdfast.stats.auc import delong
from holdfast.stats.intervals import normal_quantile, wilson

FOLDS = 5
FEWEST = 20
# Vectors of length 1 that are no further apart are of one row, to the digits that are kept.
SAME = 2e-3
# A row counts at most so many times.
MOST = 20.0


@dataclass(frozen=True, slots=True, eq=False)
class Apart:
    """``area`` is the chance that a new row looks newer than a reference row (0.5: not told apart),
    ``share`` the share of new rows by which the two differ (a lower estimate of their total
    variation); ``old_scores`` [m] and ``scores`` [n] of the rows, higher where newer; ``weights``
    [m] of the reference rows, mean 1; ``outside`` [n], whether a new row lies where the reference
    has none."""

    area: Estimate
    share: Estimate
    old_scores: Floats
    scores: Floats
    weights: Floats
    outside: Ints


def apart(held: Floats, new: Floats) -> Apart | None:
    """Reference vectors ``held`` [m, d] and ``new`` ones [n, d]; ``None`` below 20 of either.

    Each row is scored by a linear discriminant that was made without it (5 folds).
    """
    m, n = len(held), len(new)
    if min(m, n) < FEWEST:
        return None
    x = np.concatenate([held, new]).astype(np.float64)
    y = np.repeat([0, 1], [m, n])
    folds = stratified_folds(y, FOLDS, 0)
    # A row that is in both sets would be told by its copy in the other, the wrong way round.
    nearest, distance = _nearest(held, new)
    same = distance < SAME
    folds[m:][same] = folds[:m][nearest[same]]
    scores = np.zeros(m + n)
    for fold in range(FOLDS):
        inside = folds != fold
        old, late = x[inside & (y == 0)], x[inside & (y == 1)]
        then, now = old.mean(axis=0), late.mean(axis=0)
        way = precision_of(np.concatenate([old - then, late - now])) @ (now - then)
        scores[folds == fold] = (x[folds == fold] - (then + now) / 2) @ way
    before, after = scores[:m], scores[m:]
    area, share = rank_area(before, after), _share(before, after)
    return Apart(area, share, before, after, _weights(scores, y), outside(held, new))


def rank_area(old: Floats, new: Floats, level: float = 0.95) -> Estimate:
    """The area under the ROC curve of cross-fitted scores. Its interval is DeLong's, √2 as wide:
    scores of different folds hang together by the rows that their fits share, as in
    ``quality.two_samples``."""
    labels = np.repeat([False, True], [len(old), len(new)])
    found = delong(labels, np.concatenate([old, new]), level)
    value, error = found.value, found.error
    if not error > 0:
        return Estimate(value, found.low, found.high, level)
    at = float(logit(np.array(value)))
    half = np.sqrt(2) * normal_quantile(level) * error / max(value * (1 - value), 1e-9)
    ends = 1 / (1 + np.exp(-np.array([at - half, at + half])))
    return Estimate(value, float(ends[0]), float(ends[1]), level)


def _share(old: Floats, new: Floats) -> Estimate:
    """Of the new rows that the classifier calls new, less those of the old that it does."""
    hit, false = float((new > 0).mean()), float((old > 0).mean())
    error = np.sqrt(2 * (hit * (1 - hit) / len(new) + false * (1 - false) / len(old)))
    half, gap = normal_quantile(0.95) * float(error), hit - false
    return Estimate(max(0.0, gap), max(0.0, gap - half), min(1.0, max(gap + half, 0.0)))


def _weights(scores: Floats, y: Ints) -> Floats:
    """How much likelier each reference row [m] is among the new: the odds of a logistic curve of
    the cross-fitted scores, at most ``MOST``, of mean 1."""
    spread = max(float(scores.std()), 1e-12)
    scaled = (scores - scores.mean()) / spread
    held = y == 0
    line = fitted(scaled, y.astype(np.float64), np.ones((1, len(y))))[0]
    odds = np.exp(np.clip(line[0] + line[1] * scaled[held], -30, 30))
    odds = np.minimum(odds * held.sum() / max(1, len(y) - held.sum()), MOST)
    return np.asarray(odds / max(float(odds.mean()), 1e-300))


def outside(held: Floats, new: Floats, seed: int = 0) -> Ints:
    """Which new rows [n] (0 or 1) are further from their nearest of one half of the reference than
    99 % of the other half are (all, of fewer than 100): by cosine, or by distance where vectors are
    not of one length."""
    order = generator(seed, "support").permutation(len(held))
    base, rest = held[order[: len(order) // 2]], held[order[len(order) // 2 :]]
    edge = float(np.sort(_nearest(base, rest)[1])[edge_place(len(rest))])
    return (_nearest(base, new)[1] > edge).astype(np.int64)


def _nearest(base: Floats, rows: Floats) -> tuple[Ints, Floats]:
    """The nearest of ``base`` to each row [n], and how far it is."""
    wide, given = base.astype(np.float64), rows.astype(np.float64)
    squares = (wide**2).sum(axis=1)[None] + (given**2).sum(axis=1)[:, None]
    squares = np.maximum(squares - 2 * given @ wide.T, 0)
    at = squares.argmin(axis=1)
    return at, np.sqrt(squares[np.arange(len(at)), at])


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
        if proportions_p_value(then, now) < error:
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
