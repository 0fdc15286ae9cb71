"""Scores of a row, high where the model seems to have learned from it: of numbers per row alone.

A **loss** says how well the model knows the row (Yeom and others 2018, 1709.01604). A row may be
easy for anybody, so the others ask how well it knows the row for what the row is: against the model
before training (**ratio**, Carlini and others 2021, 2012.07805), against it at the tokens that the
model still has wrong (**errors**, 2601.12104), against rows like it (**conditioned**, QMIA, Bertran
and others 2023, 2307.03694).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator

Bools = npt.NDArray[np.bool_]
FOLDS = 5
# Of the width of the pinball loss, so that it has a slope everywhere.
SMOOTH = 0.02
RIDGE = 1e-3


@dataclass(frozen=True, slots=True)
class Tokens:
    """What two models say of the tokens of a text, in order: log p of each token by the ``tuned``
    and by the ``start`` model [t], and whether it was the tuned model's likeliest (``right``)."""

    tuned: Floats
    start: Floats
    right: Bools


def by_loss(losses: Floats) -> Floats:
    """−loss."""
    return -np.asarray(losses, dtype=np.float64)


def by_ratio(losses: Floats, start: Floats) -> Floats:
    """How much better than before training: the start model's loss less the tuned model's, the
    mean log ratio per token."""
    return np.asarray(start, dtype=np.float64) - np.asarray(losses, dtype=np.float64)


def by_errors(texts: Sequence[Tokens]) -> Floats:
    """The error zone of each text [n] (2601.12104), in [0, 1].

    At the tokens that the tuned model has wrong, Δ = log p tuned − log p start; the score is the
    upward share, Σ max(0, Δ) ÷ Σ |Δ|: the paper's ratio r of upward to downward sums as
    r ÷ (1 + r), which orders rows alike and stays finite. NaN for a text without an error.
    """
    found = np.full(len(texts), np.nan)
    for at, text in enumerate(texts):
        wrong = ~text.right
        moved = (text.tuned - text.start)[wrong]
        total = float(np.abs(moved).sum())
        if len(moved):
            found[at] = float(np.maximum(moved, 0).sum()) / total if total > 0 else 0.5
    return found


def normal_losses(losses: Floats) -> Floats:
    """log(e^loss − 1), for a class log((1 − p) ÷ p): losses near 0 spread out, and the law is near
    a normal one (Carlini and others 2022, 2112.03570)."""
    x = np.clip(np.asarray(losses, dtype=np.float64), 1e-7, 500.0)
    return np.asarray(x + np.log(-np.expm1(-x)))


@dataclass(frozen=True, slots=True)
class Conditioned:
    """Scores of ``members`` [n] and ``others`` [m] for what each row is."""

    members: Floats
    others: Floats


def by_condition(
    members: Floats,
    others: Floats,
    features: tuple[Floats, Floats],
    seed: int,
    groups: Ints | None = None,
) -> Conditioned:
    """How far a row's loss lies below what rows like it have that the model never saw.

    The median and the quartiles of log(e^loss − 1) are fitted by quantile regression on the
    ``features`` ([n, d] of members, [m, d] of others) of the OTHERS alone; the score is (median −
    own) ÷ half the quartiles' distance. Each row, member or other, is judged by a fit on four
    fifths of the others, which is without it: drawn alike, so that where nothing was learned the
    two have one law. ``groups`` [m]: others of one group are in one fold.
    """
    x, own = normal_losses(others), normal_losses(members)
    one, other = (np.asarray(part, dtype=np.float64) for part in features)
    centre, spread = other.mean(axis=0), other.std(axis=0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    one, other = (one - centre) / spread, (other - centre) / spread
    random = generator(seed, "conditioned losses")
    fold_of = _folds(len(x), groups, random)
    fold_of_members = random.integers(FOLDS, size=len(own))
    narrowest = 0.25 * float(np.subtract(*np.quantile(x, [0.75, 0.25]))) / 2 + 1e-9
    scores = Conditioned(np.full(len(own), np.nan), np.full(len(x), np.nan))
    for fold in range(FOLDS):
        held, mine = fold_of == fold, fold_of_members == fold
        if held.all():
            continue
        lines = [quantile_line(other[~held], x[~held], q) for q in (0.25, 0.5, 0.75)]
        for rows, losses, at, into in (
            (other, x, held, scores.others),
            (one, own, mine, scores.members),
        ):
            low, middle, high = (rows[at] @ line[:-1] + line[-1] for line in lines)
            into[at] = (middle - losses[at]) / np.maximum((high - low) / 2, narrowest)
    return scores


def quantile_line(x: Floats, y: Floats, q: float) -> Floats:
    """Weights [d + 1], the bias last, of the linear ``q`` quantile of ``y`` [n] given ``x`` [n, d]
    (Koenker and Bassett 1978): the least mean pinball loss, made smooth within 2 % of the deviation
    of ``y``, with a ridge of 1e-3 on the weights."""
    from scipy.optimize import minimize

    scale = float(np.std(y)) or 1.0
    target, width = (y - np.median(y)) / scale, SMOOTH
    n, first = len(y), np.zeros(x.shape[1] + 1)
    first[-1] = np.quantile(target, q)

    def value(line: Floats) -> tuple[float, Floats]:
        gap = target - x @ line[:-1] - line[-1]
        # q·u + w·log(1 + e^(−u/w)) is the pinball loss with a rounded corner.
        loss = q * gap + width * np.logaddexp(0, -gap / width)
        slope = q - 1 / (1 + np.exp(np.clip(gap / width, -500, 500)))
        total = float(loss.mean() + RIDGE * (line[:-1] ** 2).sum() / 2)
        made = -np.append(x.T @ slope, slope.sum()) / n
        made[:-1] += RIDGE * line[:-1]
        return total, made

    found = minimize(value, first, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    line = np.asarray(found.x, dtype=np.float64) * scale
    line[-1] += float(np.median(y))
    return line


def _folds(n: int, groups: Ints | None, random: np.random.Generator) -> Ints:
    """A fold for each row [n], whole groups together, evenly."""
    code = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    count = int(code.max()) + 1 if n else 0
    lots = random.permutation(np.arange(count) % FOLDS)
    return np.asarray(lots[code])
