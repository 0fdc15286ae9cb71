"""Classes of too few rows, or of far more than others; and whether more rows would bring more."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.core.wording import list_phrase
from holdfast.data.options import RARE_BELOW
from holdfast.data.table import Table
from holdfast.models.probes.head_fit import nested_order
from holdfast.quality.check import CheckResult, check, result, with_classes, with_texts
from holdfast.quality.fold_answers import probe_logits, scaled
from holdfast.quality.views import Closely, Embedded, TableRows, normal_pair, text_batches

_SHARE = 0.8
_RATIO = 20


@check(
    TableRows,
    cannot_see="Whether the skew is that of the world.",
    error_rate="Counts: never wrong about the rows.",
    holds_for=with_classes,
)
def class_imbalance(rows: TableRows) -> CheckResult | None:
    """Warns where one class holds 80 % of the rows or more, or 20 times those of another.

    Silent with fewer than two classes present. Score: the share of the largest class.
    """
    table = rows.table
    counts = rows.class_counts
    present = counts[counts > 0]
    if len(present) < 2:
        return None
    largest, smallest = int(counts.argmax()), int(present.min())
    share = float(counts.max() / counts.sum())
    if share < _SHARE and counts.max() < _RATIO * smallest:
        return None
    # The first of equally rare ones; classes without a row are not among them.
    rarest = table.classes[counts.tolist().index(smallest)]
    return result(
        (),
        f"{table.classes[largest]!r} has {counts.max()} of {counts.sum()} rows, {rarest!r} has "
        f"{smallest}: always answering {table.classes[largest]!r} is right {share:.0%} of the time",
        "Read macro F1 and the scores by class beside the accuracy; where rare classes count as "
        "much, answer so: --set methods.balance.by=none --set methods.balance.target=half.",
        score=share,
        count=int(counts.max()),
    )


_FEW = 20


@check(
    TableRows,
    cannot_see="Whether the few rows are typical.",
    error_rate="Counts: never wrong about the rows.",
    holds_for=with_classes,
)
def thin_classes(rows: TableRows) -> CheckResult | None:
    """Says which classes have fewer than 20 rows: at 15 % for the test, at most three of them.

    Silent where no class is so small. Score: the share of the classes that are.
    """
    table = rows.table
    counts = rows.class_counts
    thin = np.flatnonzero((counts > 0) & (counts < _FEW))
    if not len(thin):
        return None
    named = [f"{table.classes[c]!r} {counts[c]}" for c in thin]
    return result(
        (),
        f"classes with fewer than {_FEW} rows: {list_phrase(named, 5, ', ', ' and {} more')}",
        "See whether one is another class misspelt; add rows of the others, and do not trust the "
        "score of a single one of them.",
        score=len(thin) / len(table.classes),
        severity="info",
        count=int(counts[thin].sum()),
    )


def _divided(table: Table) -> bool:
    return with_texts(table) and with_classes(table)


@check(
    Closely,
    cannot_see="Whether the classes are meant.",
    error_rate="Counts by the rule of train: never wrong about the rows.",
    holds_for=_divided,
)
def undividable_classes(view: Closely) -> CheckResult | None:
    """Reports classes of fewer than three different texts (but for case, space and punctuation),
    which cannot stand on three sides: `train` refuses them. An error where a class has one text
    alone; two are enough where the test rows are a file of their own. Score: the share of the
    classes that are.
    """
    table = view.rows.table
    labels = np.asarray(table.column("label"))
    known: dict[int, set[str]] = {int(c): set() for c in np.unique(labels) if c >= 0}
    open_ = set(known)
    for start, batch in text_batches(table):
        for label, text in zip(labels[start : start + len(batch)].tolist(), batch, strict=True):
            if label in open_:
                known[label].add(normal_pair(text))
                if len(known[label]) >= RARE_BELOW:
                    open_.discard(label)
        if not open_:
            return None
    small = sorted(open_)
    named = [f"{table.classes[c]!r} {len(known[c])}" for c in small]
    shown = list_phrase(named, 5, ", ", " and {} more")
    alone = any(len(known[c]) < RARE_BELOW - 1 for c in small)
    left = len(known) - len(small)
    drop = ", or train with --set data.rare=drop" if left >= 2 else ""
    rows = np.flatnonzero(np.isin(labels, small))
    return result(
        tuple(np.asarray(table.column("row"))[rows[:100]].tolist()),
        f"classes of fewer than {RARE_BELOW} different texts: {shown}. train refuses them, "
        "as each side of its division needs one" + ("" if alone else " (with --test FILE two do)"),
        "Where such a label is another one written otherwise, write it in one way; else add rows"
        f"{drop}.",
        score=len(small) / len(known),
        severity="error" if alone or left < 2 else "warn",
        count=len(rows),
    )


DIVISIONS, HELD = 6, 0.2
SHARES = (0.125, 0.25, 0.5, 1.0)
# What one doubling brings of what the one before it brought: 2 to the minus 0.4.
DECAY = 0.75
# Of the standard error of a share of n rows, and of the gain itself.
NOISE, MODEL = 0.6, 0.25
LEAST_ROWS = 100
# Rows times classes: beyond, the fits take longer than their answer is worth.
MOST = 100_000
WORTH = 0.01


@check(
    Embedded,
    cannot_see="What rows of a new kind, or a tuned model, would bring; the probe is linear.",
    error_rate="Its 90 % interval held what twice the rows brought in 61 of 64 draws of 200 to "
    "1,600 rows of CR, MR and TREC.",
    holds_for=with_classes,
)
def too_few_rows(view: Embedded) -> CheckResult | None:
    """Reports what twice the rows would bring to a linear probe, where even the low end of the 90 %
    interval is a point of accuracy or more. Silent from 100,000 rows times classes on. Score: the
    gain that is expected."""
    answers, classes = view.answers, len(view.rows.table.classes)
    if answers is None or len(answers.known) * classes > MOST:
        return None
    found = growth(view.probed, view.rows.labels, classes=classes, c=answers.c, seed=view.seed)
    # Nothing is gained above all rows right.
    if found is None or min(found.low, 1 - found.right) < WORTH:
        return None
    n = len(answers.known)
    most = 1 - found.right
    gain, low, high = (100 * min(one, most) for one in (found.gain, found.low, found.high))
    points = f"{gain:.1f} (90 % interval {low:.1f}–{high:.1f})"
    return result(
        (),
        f"a linear probe has an accuracy of {found.right:.1%} with these {n:,} rows; twice as many "
        f"would bring about {points} points",
        "Label more rows before trying other settings; fine-tuning gains from them too.",
        score=min(1.0, found.gain),
        severity="info",
        count=n,
    )


@dataclass(frozen=True)
class Growth:
    """``right`` is the share of rows that the probe answers rightly; ``gain`` what twice the rows
    would add to it, ``low`` and ``high`` its interval, all in [−1, 1]. ``points`` pairs (rows,
    share of wrong answers), fewest first."""

    right: float
    gain: float
    low: float
    high: float
    points: tuple[tuple[int, float], ...]


def growth(
    vectors: Floats, labels: Ints, *, classes: int, c: float, seed: int, level: float = 0.90
) -> Growth | None:
    """Foretell from the gains of the last three doublings of n labelled rows what the next brings.

    Where the error falls as a + b n^−α, each doubling brings 2^−α of what the last one did; over a
    few doublings that holds though no one law fits a whole curve (Viering and Loog 2103.10948:
    piecewise). α was 0.4 on CR, MR and TREC between 12 and 3,200 rows, and three gains are too few
    to fit it anew, so the gain foretold is the mean of the three, each carried on with that α.
    Gains are means over six divisions into four fifths and one, nested in each, at the audit's C.

    The interval is normal; its variance is that of noise, (0.6)² e (1 − e) ÷ n for an error e, and
    (a quarter of the gain)². ``None`` for fewer than 100 labelled rows, or a smallest part without
    two rows of two classes.
    """
    from scipy.special import ndtri

    known = np.flatnonzero(labels >= 0)
    if len(known) < LEAST_ROWS:
        return None
    x, y = scaled(vectors[known]), np.asarray(labels)[known]
    wrong = np.zeros((DIVISIONS, len(SHARES)))
    for division in range(DIVISIONS):
        order = generator(seed, "growth", division).permutation(len(y))
        held, rest = np.split(order, [round(HELD * len(y))])
        rest = rest[nested_order(y[rest], seed + division)]
        for at, share in enumerate(SHARES):
            part = rest[: round(share * len(rest))]
            if len(np.unique(y[part])) < 2:
                return None
            answers = probe_logits(x[part], y[part], x[held], classes, c).argmax(axis=1)
            wrong[division, at] = (answers != y[held]).mean()
    errors = wrong.mean(axis=0)
    gains = -np.diff(errors)
    carried = gains * DECAY ** np.arange(len(gains), 0, -1)
    gain, last = max(0.0, float(carried.mean())), float(errors[-1])
    spread = math.hypot(NOISE * math.sqrt(last * (1 - last) / len(y)), MODEL * gain)
    reach = float(ndtri((1 + level) / 2)) * spread
    learned = len(y) - round(HELD * len(y))
    points = tuple(
        (round(share * learned), float(error)) for share, error in zip(SHARES, errors, strict=True)
    )
    return Growth(1 - last, gain, gain - reach, gain + reach, points)
