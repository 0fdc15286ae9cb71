"""Whether more rows would bring more, and about how much: the learning curve of a probe, carried
one doubling on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.models.probes.head_fit import nested_order
from holdfast.quality.check import CheckResult, check, result, with_classes
from holdfast.quality.fold_answers import probe_logits, scaled
from holdfast.quality.views import Embedded

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
