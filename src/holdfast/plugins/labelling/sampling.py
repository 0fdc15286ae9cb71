"""The labelling queue: a fifth is drawn uniformly at random, the rest where a label teaches most;
while two models are compared, two fifths uniformly from the rows with different predictions.

Uniformly drawn rows are determined by their names: only these measure accuracy. A row's order key
in [0, 1) is a hash of its name, which nobody chooses. Rows below ``EVEN_SHARE`` are reserved: they
are labelled in the order of their keys, whatever the predictions and earlier labels, and never
drawn for another reason. So the labelled ones are a random sample of the requests (a Poisson
sample, cut in the order of random numbers: Ohlsson, J. Official Statistics 1998), in every process
and after every restart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from holdfast.core.records import Estimate, Floats, Ints, log_sum_exp, softmax, unit_rows
from holdfast.plugins.store.records import Drawn
from holdfast.stats.intervals import wilson

Bools = npt.NDArray[np.bool_]

# The share of rows that are reserved for uniform draws.
EVEN_SHARE = 0.2
# Of every five rows the first is drawn uniformly, and two for a comparison where there is one.
CYCLE = round(1 / EVEN_SHARE)
COMPARED_TURNS = (1, 3)
# The prior precision of a head's weights, in rows; chosen on seeds that no reported figure uses.
RIDGE = 0.3
MIN_UNCERTAINTY = 1e-3
# Rows with a higher cosine similarity are near-duplicates: one of them is enough.
COPY_SIMILARITY = 0.99
MAX_WIDTH = 512
# The inverse strength of the ridge penalty; chosen on seeds that no reported figure uses.
C = 10.0
MAX_STEPS = 60
MIN_PROBABILITY = 1e-4
# Minimum uniformly drawn labels for an accuracy.
MIN_LABELS = 10


@dataclass(frozen=True, slots=True, eq=False)
class LabelPool:
    """Predicted rows [n]: their ``order_key`` in [0, 1) (``order_keys``), which may be drawn
    uniformly (``unlabelled_by_draw``: not labelled by such a draw before) and which by
    informativeness (``unlabelled``: not labelled at all), which are ``labelled``, the model's
    ``uncertainty`` (in [0, 1], NaN where unknown), and the vectors [n, d] as ``center_and_scale``
    gives them, where there are any. ``differing`` are rows reserved for a comparison with different
    predictions; they are not ``unlabelled``."""

    order_key: Floats
    unlabelled_by_draw: Bools
    unlabelled: Bools
    labelled: Bools
    uncertainty: Floats
    vectors: Floats | None = None
    differing: Bools | None = None


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """A row by its position in the pool, and how it was drawn."""

    position: int
    drawn: Drawn


def next_rows(pool: LabelPool, n: int) -> tuple[DrawnRow, ...]:
    """Up to ``n`` rows to label, in order: of each five one uniformly at random from those reserved
    for it, two likewise from the ``differing`` rows where there are any, and the others by
    informativeness (``select_informative``). Without vectors these are the most uncertain ones;
    without uncertainty too, any. Where one group runs out, the others continue."""
    set_apart = pool.order_key < EVEN_SHARE
    order = np.argsort(pool.order_key)
    evenly = [int(at) for at in order if set_apart[at] and pool.unlabelled_by_draw[at]]
    even_count = -(-n // CYCLE)
    differing = [] if pool.differing is None else [int(at) for at in order if pool.differing[at]]
    informative = _informative_rows(
        pool, pool.unlabelled & ~set_apart, n - min(even_count, len(evenly))
    )
    items: list[DrawnRow] = []
    while len(items) < n and (evenly or differing or informative):
        turn = len(items) % CYCLE
        others = differing or informative
        if evenly and (turn == 0 or not others):
            items.append(DrawnRow(evenly.pop(0), "uniform"))
        elif differing and (turn in COMPARED_TURNS or not informative):
            items.append(DrawnRow(differing.pop(0), "unlike"))
        else:
            items.append(informative.pop(0))
    return tuple(items)


def _informative_rows(pool: LabelPool, unlabelled: Bools, n: int) -> list[DrawnRow]:
    uncertainty = np.where(np.isfinite(pool.uncertainty), pool.uncertainty, 1.0)
    if pool.vectors is not None:
        selected = select_informative(pool.vectors, uncertainty, pool.labelled, unlabelled, n)
        return [DrawnRow(int(at), "chosen") for at in selected]
    # Ties in the order of the keys, which is random.
    order = np.lexsort((pool.order_key, -uncertainty))
    return [DrawnRow(int(at), "chosen") for at in order if unlabelled[at]][:n]


def select_informative(
    vectors: Floats, uncertainty: Floats, labelled: Bools, unlabelled: Bools, n: int
) -> Ints:
    """The positions of up to ``n`` unlabelled rows, the most informative first.

    With M = λI + Σ w x xᵀ over the labelled and selected rows, the mean variance of a weighted
    least-squares head over all rows is tr(M⁻¹ G), G = Σ w x xᵀ / N; each next row is the one that
    lowers it most: w · xᵀM⁻¹GM⁻¹x / (1 + w · xᵀM⁻¹x). So a row has a large gain where the model is
    uncertain (w), where many rows are similar (G), and where none of those is labelled (M). It is
    the greedy forward step of BAIT (2106.09675) with one weight a row, its uncertainty, in place of
    the classes' own Fisher information.

    vectors [n, d] as ``center_and_scale`` gives them, uncertainty [n] in [0, 1], labelled and
    unlabelled [n]. Siblings: ``quality/label_ranking.py`` (margin × distance) needs many classes to
    pay.
    """
    # The directions in which rows differ most, where there are more than WIDEST.
    if vectors.shape[1] <= MAX_WIDTH:
        x = vectors
    else:
        _, axes = np.linalg.eigh(vectors.T @ vectors)
        x = np.asarray(vectors @ axes[:, -MAX_WIDTH:], dtype=np.float32)
    x = np.concatenate([x, np.ones((len(x), 1), x.dtype)], axis=1)
    weight = np.maximum(uncertainty, MIN_UNCERTAINTY).astype(np.float32)
    width = x.shape[1]
    information = RIDGE * np.eye(width) + (x[labelled] * weight[labelled, None]).T @ x[labelled]
    inverse = np.linalg.inv(information)
    spread = ((x * weight[:, None]).T @ x / len(x)).astype(np.float32)
    # Of each row: M⁻¹x, xᵀM⁻¹x and xᵀM⁻¹GM⁻¹x, kept up to date as rows join (Sherman–Morrison).
    inverse_x = (x @ inverse).astype(np.float32)
    height = (inverse_x * x).sum(axis=1)
    gain = ((inverse_x @ spread) * inverse_x).sum(axis=1)
    unit = unit_rows(vectors)
    available = unlabelled & ~labelled
    for at in np.flatnonzero(labelled):
        available &= unit @ unit[at] < COPY_SIMILARITY
    selected: list[int] = []
    while len(selected) < n and available.any():
        score = np.where(available, weight * gain / (1 + weight * height), -1.0)
        best = int(np.argmax(score))
        selected.append(best)
        available &= unit @ unit[best] < COPY_SIMILARITY
        available[best] = False
        u = inverse_x[best].copy()
        step = float(weight[best] / (1 + weight[best] * height[best]))
        along, of_spread = x @ u, spread @ u
        gain += -2 * step * along * (inverse_x @ of_spread) + (step * along) ** 2 * float(
            u @ of_spread
        )
        height -= step * along**2
        inverse_x -= step * np.outer(along, u)
    return np.array(selected, dtype=np.int64)


def prediction_uncertainty(probabilities: Floats) -> Floats:
    """The uncertainty of each prediction [n], in [0, 1]: 0 where one class has probability 1.

    With two classes 1 − Σ p², the variance of a sampled prediction. With more the squared nearness
    of the two most probable classes, (1 − (p₁ − p₂))²: there the variance is large almost
    everywhere, and says little about where a boundary is (chosen on seeds that no figure is from).
    """
    if probabilities.shape[1] == 2:
        return np.asarray(1 - (probabilities**2).sum(axis=1))
    top = np.sort(probabilities, axis=1)[:, -2:]
    return np.asarray((1 - (top[:, 1] - top[:, 0])) ** 2)


def update_probabilities(vectors: Floats, labels: Ints, probabilities: Floats) -> Floats:
    """The served probabilities [n, k], updated with the labels since.

    A logistic head on frozen vectors, added to the served model: softmax(log p + W x), with the
    ridge penalty ‖W‖²/2C. Without labels it equals the served model; where that predicts uniform
    probabilities, it is an ordinary logistic regression.

    vectors [n, d] as ``center_and_scale`` gives them; labels [n], −1 where unknown; probabilities
    [n, k].
    """
    labelled = np.flatnonzero(labels >= 0)
    if not len(labelled):
        return probabilities
    offset = np.log(np.maximum(probabilities, MIN_PROBABILITY))
    x = np.concatenate([vectors, np.ones((len(vectors), 1), vectors.dtype)], axis=1)
    weights = _fit_head(x[labelled].astype(np.float64), labels[labelled], offset[labelled])
    return softmax(x @ weights.T.astype(x.dtype) + offset)


def center_and_scale(vectors: Floats) -> Floats:
    """Vectors [n, d] centred and scaled to a mean squared length of 1, so that one penalty fits
    every model."""
    middle = vectors - vectors.mean(axis=0)
    length = float(np.sqrt((middle**2).sum(axis=1).mean()))
    return np.asarray(middle / max(length, 1e-12), dtype=np.float32)


def _fit_head(x: Floats, labels: Ints, offset: Floats) -> Floats:
    from scipy.optimize import minimize

    shape = (offset.shape[1], x.shape[1])
    one_hot = np.zeros_like(offset, dtype=np.float64)
    one_hot[np.arange(len(labels)), labels] = 1

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        logits = x @ weights.T + offset
        sums = log_sum_exp(logits)
        gradient = C * (np.exp(logits - sums[:, None]) - one_hot).T @ x + weights
        total = C * float((sums - (logits * one_hot).sum(axis=1)).sum()) + 0.5 * float(
            (weights**2).sum()
        )
        return total, gradient.ravel()

    start = np.zeros(shape[0] * shape[1])
    solution = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": MAX_STEPS})
    return np.asarray(solution.x.reshape(shape))


def order_keys(names: Sequence[tuple[str, int]]) -> Floats:
    """The order key in [0, 1) of each row, given by request and index."""
    hashes = (hashlib.blake2b(f"{id}/{at}".encode(), digest_size=8).digest() for id, at in names)
    return np.array([int.from_bytes(one, "big") / 2**64 for one in hashes], dtype=np.float64)


def random_sample_accuracy(correct: int, n: int) -> Estimate:
    """The accuracy on ``n`` uniformly drawn rows, with Wilson's interval."""
    if n < MIN_LABELS:
        return Estimate(
            None, why=f"{n} of the {MIN_LABELS} uniformly drawn rows it needs are labelled"
        )
    return Estimate(correct / n, *wilson(correct, n))
