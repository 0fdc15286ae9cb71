"""Class sizes: imbalance, classes with few rows, and the gain expected from more rows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.wording import list_phrase, percent_phrase
from holdfast.data.options import RARE_BELOW
from holdfast.data.table import Table
from holdfast.models.probes.head_fit import nested_order
from holdfast.models.probes.probe import scale_features
from holdfast.quality.check import CheckResult, check, has_classes, has_texts, result
from holdfast.quality.fold_predictions import probe_logits
from holdfast.quality.views import Embedded, TableRows, ThoroughRows, normalize_pair, text_batches

_MAX_CLASS_SHARE = 0.8
_MAX_CLASS_RATIO = 20


@check(
    TableRows,
    cannot_see="Whether the imbalance is the same in the application.",
    error_rate="Exact: it counts rows.",
    applies_to=has_classes,
)
def class_imbalance(rows: TableRows) -> CheckResult | None:
    """Warns about class imbalance: one class has at least 80 % of the rows, or at least 20 times
    the rows of another class.

    Reports nothing if fewer than two classes are present. Score: the share of the largest class.
    """
    table = rows.table
    counts = rows.class_counts
    present = counts[counts > 0]
    if len(present) < 2:
        return None
    largest, smallest = int(counts.argmax()), int(present.min())
    share = float(counts.max() / counts.sum())
    if share < _MAX_CLASS_SHARE and counts.max() < _MAX_CLASS_RATIO * smallest:
        return None
    # The first of equally rare classes; classes without rows do not count.
    rarest = table.classes[counts.tolist().index(smallest)]
    return result(
        (),
        f"{table.classes[largest]!r} has {counts.max()} of {counts.sum()} rows, {rarest!r} has "
        f"{smallest}: always predicting {table.classes[largest]!r} has an accuracy of "
        f"{percent_phrase(share)}",
        "Read macro F1 and the scores per class in addition to the accuracy. If rare classes "
        "matter as much as frequent ones, add --set methods.balance.by=none --set "
        "methods.balance.target=half.",
        score=share,
        count=int(counts.max()),
    )


_MIN_CLASS_ROWS = 20


@check(
    TableRows,
    cannot_see="Whether the few rows are typical.",
    error_rate="Exact: it counts rows.",
    applies_to=has_classes,
)
def thin_classes(rows: TableRows) -> CheckResult | None:
    """Lists the classes with fewer than 20 rows. A 15 % test set has at most three rows of each.

    Reports nothing if every class has 20 rows or more. Score: the share of such classes.
    """
    table = rows.table
    counts = rows.class_counts
    thin = np.flatnonzero((counts > 0) & (counts < _MIN_CLASS_ROWS))
    if not len(thin):
        return None
    class_counts = [f"{table.classes[c]!r} {counts[c]}" for c in thin]
    return result(
        (),
        f"classes with fewer than {_MIN_CLASS_ROWS} rows: "
        f"{list_phrase(class_counts, 5, ', ', ' and {} more')}",
        "Check whether one is a misspelling of another class. Add rows to the others, and do not "
        "rely on the score of a single small class.",
        score=len(thin) / len(table.classes),
        severity="info",
        count=int(counts[thin].sum()),
    )


def _is_divided_by_class(table: Table) -> bool:
    return has_texts(table) and has_classes(table)


@check(
    ThoroughRows,
    cannot_see="Whether the classes are intended.",
    error_rate="Exact: it counts by the rule of train.",
    applies_to=_is_divided_by_class,
)
def undividable_classes(view: ThoroughRows) -> CheckResult | None:
    """Reports classes with fewer than three different texts (ignoring case, space and
    punctuation). They cannot be in all three splits, so `train` refuses them. It is an error if a
    class has only one text; two texts are enough if the test rows come from their own file. Score:
    the share of such classes.
    """
    table = view.rows.table
    labels = np.asarray(table.column("label"))
    texts_of_class: dict[int, set[str]] = {int(c): set() for c in np.unique(labels) if c >= 0}
    too_small = set(texts_of_class)
    for start, batch in text_batches(table):
        for label, text in zip(labels[start : start + len(batch)].tolist(), batch, strict=True):
            if label in too_small:
                texts_of_class[label].add(normalize_pair(text))
                if len(texts_of_class[label]) >= RARE_BELOW:
                    too_small.discard(label)
        if not too_small:
            return None
    small = sorted(too_small)
    class_counts = [f"{table.classes[c]!r} {len(texts_of_class[c])}" for c in small]
    shown = list_phrase(class_counts, 5, ", ", " and {} more")
    has_single_text = any(len(texts_of_class[c]) < RARE_BELOW - 1 for c in small)
    remaining = len(texts_of_class) - len(small)
    drop = ", or train with --set data.rare_classes=drop" if remaining >= 2 else ""
    rows = np.flatnonzero(np.isin(labels, small))
    return result(
        tuple(np.asarray(table.column("row"))[rows[:100]].tolist()),
        f"classes with fewer than {RARE_BELOW} different texts: {shown}. train refuses them, "
        "because each split needs one text per class"
        + ("" if has_single_text else " (with --test FILE two are enough)"),
        "If such a label is a spelling variant of another one, unify them. Otherwise add rows"
        f"{drop}.",
        score=len(small) / len(texts_of_class),
        severity="error" if has_single_text or remaining < 2 else "warn",
        count=len(rows),
    )


SPLITS, HELD_OUT_SHARE = 6, 0.2
TRAINING_SHARES = (0.125, 0.25, 0.5, 1.0)
# The gain of one doubling divided by the gain of the doubling before: 2 to the minus 0.4.
GAIN_DECAY = 0.75
# Standard error: a multiple of that of a share of n rows, and a share of the gain.
NOISE_FACTOR, GAIN_ERROR = 0.6, 0.25
LEAST_ROWS = 100
# Rows times classes: above this the fits take longer than their result is worth.
MAX_ROWS_TIMES_CLASSES = 100_000
MIN_GAIN = 0.01


@check(
    Embedded,
    cannot_see="The gain from rows of a new kind, or of a fine-tuned model: the probe is linear.",
    error_rate="In 61 of 64 samples of 200 to 1,600 rows of CR, MR and TREC, its 90 % interval "
    "contained the gain that twice the rows gave.",
    applies_to=has_classes,
)
def too_few_rows(view: Embedded) -> CheckResult | None:
    """Reports the accuracy that a linear probe is expected to gain from twice the rows, if the low
    end of the 90 % interval is at least one point. Reports nothing above 100,000 rows times
    classes. Score: the expected gain."""
    predictions, classes = view.fold_predictions, len(view.rows.table.classes)
    if predictions is None or len(predictions.labelled_rows) * classes > MAX_ROWS_TIMES_CLASSES:
        return None
    growth_estimate = estimate_growth(
        view.probe_features, view.rows.labels, classes=classes, c=predictions.c, seed=view.seed
    )
    # The accuracy cannot exceed 1.
    if growth_estimate is None or min(growth_estimate.low, 1 - growth_estimate.accuracy) < MIN_GAIN:
        return None
    n = len(predictions.labelled_rows)
    max_gain = 1 - growth_estimate.accuracy
    gain, low, high = (
        100 * min(one, max_gain)
        for one in (growth_estimate.gain, growth_estimate.low, growth_estimate.high)
    )
    points = f"{gain:.1f} points (90 % interval {low:.1f} to {high:.1f})"
    return result(
        (),
        f"a linear probe has an accuracy of {percent_phrase(growth_estimate.accuracy, 1)} "
        f"with these {n:,} rows; "
        f"twice as many rows would add about {points}",
        "Label more rows before you try other settings. Fine-tuning gains from them too.",
        score=min(1.0, growth_estimate.gain),
        severity="info",
        count=n,
    )


@dataclass(frozen=True)
class GrowthEstimate:
    """The expected ``gain`` in the probe's ``accuracy`` from twice the rows, with the interval
    ``low`` to ``high``, all in [−1, 1]. ``points`` are pairs (rows, error rate), fewest rows
    first."""

    accuracy: float
    gain: float
    low: float
    high: float
    points: tuple[tuple[int, float], ...]


def estimate_growth(
    vectors: Floats, labels: Ints, *, classes: int, c: float, seed: int, level: float = 0.90
) -> GrowthEstimate | None:
    """Predict the gain from doubling n labelled rows from the gains of the last three doublings.

    If the error falls as a + b n^−α, each doubling gains 2^−α times what the previous one did. Over
    a few doublings that holds although no single law fits an entire curve (Viering and Loog
    2103.10948: piecewise). α was 0.4 on CR, MR and TREC between 12 and 3,200 rows. Three gains are
    too few to estimate α, so each is extrapolated with that α, and the prediction is their mean.
    Gains are means over six random 80/20 splits with nested training sets, at the audit's C.

    The interval is normal; its variance is that of noise, (0.6)² e (1 − e) ÷ n for an error e, plus
    (a quarter of the gain)². ``None`` for fewer than 100 labelled rows, or if the smallest training
    set has fewer than two classes.
    """
    from scipy.special import ndtri

    labelled = np.flatnonzero(labels >= 0)
    if len(labelled) < LEAST_ROWS:
        return None
    x = scale_features(np.asarray(vectors[labelled], np.float64))[0]
    y = np.asarray(labels)[labelled]
    wrong = np.zeros((SPLITS, len(TRAINING_SHARES)))
    for division in range(SPLITS):
        order = generator(seed, "growth", division).permutation(len(y))
        held_out, rest = np.split(order, [round(HELD_OUT_SHARE * len(y))])
        rest = rest[nested_order(y[rest], seed + division)]
        for at, share in enumerate(TRAINING_SHARES):
            subset = rest[: round(share * len(rest))]
            if len(np.unique(y[subset])) < 2:
                return None
            predicted = probe_logits(x[subset], y[subset], x[held_out], classes, c).argmax(axis=1)
            wrong[division, at] = (predicted != y[held_out]).mean()
    errors = wrong.mean(axis=0)
    gains = -np.diff(errors)
    extrapolated = gains * GAIN_DECAY ** np.arange(len(gains), 0, -1)
    gain, last_error = max(0.0, float(extrapolated.mean())), float(errors[-1])
    standard_error = math.hypot(
        NOISE_FACTOR * math.sqrt(last_error * (1 - last_error) / len(y)), GAIN_ERROR * gain
    )
    half_width = float(ndtri((1 + level) / 2)) * standard_error
    training_size = len(y) - round(HELD_OUT_SHARE * len(y))
    points = tuple(
        (round(share * training_size), float(error))
        for share, error in zip(TRAINING_SHARES, errors, strict=True)
    )
    return GrowthEstimate(1 - last_error, gain, gain - half_width, gain + half_width, points)
