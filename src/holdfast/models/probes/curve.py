"""How a linear probe does on rows it was not fitted on, and how that grows with its rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from holdfast.core.records import Floats, Ints
from holdfast.core.run_facts import LabelNoise
from holdfast.core.seeds import generator
from holdfast.models.probes.head_fit import fit_again
from holdfast.models.probes.probe import Probe

SHARES = (0.25, 0.5)
LEAST_ROWS = 20
MOST_TWINS, TWIN_BLOCK, TWIN = 1000, 20_000, 0.01


@dataclass(frozen=True, slots=True)
class ProbeCurve:
    """``losses`` [held-out rows] of the probe on all of its rows, in nats; ``points`` pairs (rows,
    mean held-out loss), fewest rows first, the whole probe last; ``twins`` is how many held-out
    rows have a twin among the probe's own, and of how many; ``labels`` what its answers on rows it
    was not fitted on say against the labels, where somebody asked."""

    losses: Floats
    points: tuple[tuple[int, float], ...]
    twins: tuple[int, int] = (0, 0)
    labels: LabelNoise | None = None


def probe_curve(
    probe: Probe,
    features: Floats,
    labels: Ints,
    held: Floats,
    held_labels: Ints,
    *,
    classes: int,
    seed: int,
) -> ProbeCurve:
    """The learning curve of a probe that was fitted on ``features`` [n, width] and ``labels`` [n]:
    again on a quarter and on half of them, the smaller inside the larger, each class in its share,
    with the C of the whole; its losses on ``held`` [m, width].

    C is the inverse variance of a prior on the weights, which does not hang on how many rows there
    are; choosing it anew for each part gave no lower loss on real features, at five times the time.

    A part of fewer than 20 rows, or with a class less than the whole has, is left out: it would say
    more about the division than about the rows. No held-out rows: no points.
    """
    losses = cross_entropy(probe.logits(held), held_labels)
    if not len(losses):
        return ProbeCurve(losses, (), (0, 0))
    order, points = nested_order(labels, seed), []
    for share in SHARES:
        part = order[: int(share * len(order))]
        if len(part) < LEAST_ROWS or len(np.unique(labels[part])) < len(np.unique(labels)):
            continue
        smaller = fit_again(probe, features[part], labels[part], classes=classes, seed=seed)
        loss = float(cross_entropy(smaller.logits(held), held_labels).mean())
        points.append((len(part), loss))
    whole = (len(labels), float(losses.mean()))
    return ProbeCurve(losses, (*points, whole), count_twins(features, held))


def count_twins(features: Floats, held: Floats) -> tuple[int, int]:
    """How many rows of ``held`` [m, width] lie within a hundredth of their own length of a row of
    ``features`` [n, width], and how many were looked at: 1,000 at most, evenly spaced.

    One text through one model gives one vector, but for rounding; texts that differ in a word lie
    several hundredths apart. Features that are not finite have no twin.
    """
    chosen = np.linspace(0, len(held) - 1, min(len(held), MOST_TWINS)).astype(np.int64)
    rows = np.asarray(held, dtype=np.float64)[np.unique(chosen)]
    if not len(rows) or not len(features):
        return 0, len(rows)
    known = np.asarray(features, dtype=np.float64)
    norms, sizes = (known**2).sum(axis=1), (rows**2).sum(axis=1)
    gaps = np.full(len(rows), np.inf)
    for start in range(0, len(known), TWIN_BLOCK):
        block = slice(start, start + TWIN_BLOCK)
        # ‖a − b‖² from products: no table of differences is ever held.
        apart = sizes[:, None] + norms[block] - 2 * rows @ known[block].T
        gaps = np.minimum(gaps, np.where(np.isfinite(apart), apart, np.inf).min(axis=1))
    return int((gaps < TWIN**2 * sizes).sum()), len(rows)


def out_of_fold(probe: Probe, labels: Ints, held: Floats, held_labels: Ints) -> tuple[Floats, Ints]:
    """Logits [rows, classes] of a probe for every labelled row, none from a fit on that row, and
    their labels [rows]: those of its own ``labels`` [n] from the folds that C was chosen by (a row
    of no fold is left out), those of ``held`` [m, width] from the whole probe. They cost no fit."""
    logits = probe.logits(held)
    if probe.held_out is None:
        return logits, np.asarray(held_labels)
    known = np.isfinite(probe.held_out).all(axis=1)
    return (
        np.concatenate([probe.held_out[known], logits]),
        np.concatenate([np.asarray(labels)[known], held_labels]),
    )


def nested_order(labels: Ints, seed: int) -> Ints:
    """All rows [n] in an order of which every beginning has each class in about its share."""
    random = generator(seed, "probe curve").permutation(len(labels))
    place = np.empty(len(labels))
    for label in np.unique(labels):
        members = random[labels[random] == label]
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.asarray(random[np.argsort(place[random], kind="stable")])


def cross_entropy(logits: Floats, labels: Ints) -> Floats:
    """−log softmax(logits)[label] of each row [n], in nats."""
    from scipy.special import logsumexp

    if not len(labels):
        return np.zeros(0)
    scores = np.asarray(logits, dtype=np.float64)
    return np.asarray(logsumexp(scores, axis=1) - scores[np.arange(len(scores)), labels])
