"""The cheap arena: 64 ways to fit a head to the untouched encoder's features, on any division.

A division takes a second, so that a rule of search can be held against thousands of them, each
with a pool large enough to be the truth. A setting is a view of the features (how many of its main
directions, learned from how many of the training rows) and a head over it: ridge regression at a
strength, linear discriminant analysis at a shrinkage, nearest neighbours. Number 0, the default,
is discriminant analysis of the whole features at a shrinkage of 0.3.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
from peers.rows import clean_set, without_copies
from peers.sets import banking
from recorded.store import folder as recordings

from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator

SETS = ("cr", "trec", "banking77", "mr")
COUNT, POOL = 64, 1500
WIDTHS, SHARES = (8, 24, 64, 160, 384), (0.25, 0.5, 1.0)
HEADS = (
    *(("ridge", strength) for strength in (1e-4, 1e-2, 1e-1, 1.0, 10.0)),
    *(("discriminant", shrinkage) for shrinkage in (0.02, 0.1, 0.3, 0.7)),
    *(("neighbours", count) for count in (1, 5, 15)),
)
DEFAULT = (384, 1.0, ("discriminant", 0.3))
SCALES = np.geomspace(0.1, 300, 40)


@dataclass(frozen=True, slots=True)
class Division:
    """What each setting says of the pool: ``losses`` [settings, rows] after the best temperature,
    ``correct`` of them, and what each setting ``costs`` [settings], the default 1."""

    losses: Floats
    correct: Floats
    costs: Floats


def settings() -> list[tuple[int, float, tuple[str, float]]]:
    """The default, then the others in an order of their own."""
    every = [one for one in itertools.product(WIDTHS, SHARES, HEADS) if one != DEFAULT]
    order = generator(0, "arena", "heads").permutation(len(every))
    return [DEFAULT, *(every[i] for i in order[: COUNT - 1])]


@functools.cache
def features(name: str) -> tuple[Floats, Ints]:
    """Vectors [n, 384] of length 1 of all rows of a set, and their classes [n]."""
    place = recordings().parent / "arena" / f"vectors-{name}.npz"
    if not place.exists():
        from recorded.from_probe import embedded

        rows = banking() if name == "banking77" else without_copies(clean_set(name))
        place.parent.mkdir(parents=True, exist_ok=True)
        np.savez(place, v=embedded(rows.texts).numpy(), y=np.array(rows.labels))
    with np.load(place) as found:
        vectors, labels = found["v"], found["y"]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), np.unique(labels, return_inverse=True)[1]


def division(name: str, seed: int, train: int = 160, pool: int = POOL) -> Division:
    """All settings on one division: ``train`` rows, each class at least three times, and others as
    the pool."""
    vectors, labels = features(name)
    order = generator(seed, "arena", "division", SETS.index(name)).permutation(len(labels))
    first = np.concatenate([order[labels[order] == c][:3] for c in range(labels.max() + 1)])
    rest = order[~np.isin(order, first)]
    learnt = np.concatenate([first, rest[: train - len(first)]])
    held = rest[train - len(first) :][:pool]
    known = _Views(vectors[learnt], labels[learnt], vectors[held], len(first))
    found = [_answers(known.logits(*setting), labels[held]) for setting in settings()]
    costs = np.array([width / 384 * share for width, share, _ in settings()])
    losses, correct = (np.stack([one[i] for one in found]) for i in range(2))
    return Division(losses, correct, costs)


class _Views:
    """Main directions of the first rows, worked out once for each share of them."""

    def __init__(self, train: Floats, labels: Ints, held: Floats, least: int) -> None:
        self.train, self.labels, self.held, self.least = train, labels, held, least
        self.known: dict[float, tuple[Floats, Floats, Ints]] = {}

    def logits(self, width: int, share: float, head: tuple[str, float]) -> Floats:
        if share not in self.known:
            # Every class stays, however few rows are learned from.
            count = self.least + round(share * (len(self.train) - self.least))
            rows = self.train[:count]
            centre = rows.mean(axis=0)
            basis = np.linalg.svd(rows - centre, full_matrices=False)[2]
            self.known[share] = (
                (rows - centre) @ basis.T,
                (self.held - centre) @ basis.T,
                self.labels[:count],
            )
        train, held, labels = self.known[share]
        kind, strength = head
        fitted = {"ridge": _ridge, "discriminant": _discriminant, "neighbours": _neighbours}[kind]
        return fitted(train[:, :width], labels, held[:, :width], strength)


def _ridge(train: Floats, labels: Ints, held: Floats, strength: float) -> Floats:
    wanted = np.eye(labels.max() + 1)[labels]
    centre = wanted.mean(axis=0)
    # The columns are main directions: the matrix to invert is diagonal.
    power = (train**2).sum(axis=0)
    weights = (train.T @ (wanted - centre)) / (power + strength)[:, None]
    return np.asarray(centre + held @ weights)


def _discriminant(train: Floats, labels: Ints, held: Floats, shrinkage: float) -> Floats:
    classes = labels.max() + 1
    means = np.stack([train[labels == c].mean(axis=0) for c in range(classes)])
    within = train - means[labels]
    spread = within.T @ within / len(train)
    ball = np.trace(spread) / len(spread)
    both = (1 - shrinkage) * spread + shrinkage * ball * np.eye(len(spread))
    weights = np.linalg.solve(both, means.T)
    shares = np.log(np.bincount(labels) / len(labels))
    return np.asarray(held @ weights + shares - 0.5 * (means.T * weights).sum(axis=0))


def _neighbours(train: Floats, labels: Ints, held: Floats, count: float) -> Floats:
    near = held @ train.T
    of = np.argpartition(-near, min(int(count), near.shape[1] - 1), axis=1)[:, : int(count)]
    votes = np.eye(labels.max() + 1)[labels[of]].mean(axis=1)
    return np.asarray(np.log(votes + 0.5 / (count + 1)))


def _answers(logits: Floats, labels: Ints) -> tuple[Floats, Floats]:
    """Losses after the best temperature, and whether each answer is right."""
    logits = logits - logits.max(axis=1, keepdims=True)
    own = logits[np.arange(len(labels)), labels]
    unit = logits.std() or 1.0
    tried = [np.log(np.exp(s / unit * logits).sum(axis=1)) - s / unit * own for s in SCALES]
    best = min(tried, key=lambda one: float(one.mean()))
    return best, (logits.argmax(axis=1) == labels).astype(np.float64)
