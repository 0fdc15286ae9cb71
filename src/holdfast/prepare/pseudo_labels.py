"""Unlabelled texts: given labels by the rows that have some, and learned from where that is borne
out on rows whose labels were not used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import PreparedData
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints, softmax
from holdfast.core.seeds import generator
from holdfast.data.table import added_texts
from holdfast.models.probes.logistic import softmax_losses
from holdfast.models.probes.probe import ExtraRows, Probe, fit_probe
from holdfast.models.probes.propagation import neighbour_graph, propagate
from holdfast.prepare.embedding import has_classes, last_layer_vectors
from holdfast.stats.paired_tests import paired_bootstrap

if TYPE_CHECKING:
    import numpy.typing as npt


FOLDS = 5
# With fewer classes most neighbours are of one's own class only by halves.
MANY_CLASSES = 15
# What all unlabelled rows together weigh, a row of the table counting 1, is at most this many times
# the rows of the table.
MOST_WEIGHT = 1.0
# Of each class the surest ones: a head is fitted to all of them, again at every look.
MOST_USED = 2000
# Of the penalty's inverse: given labels are less sure than written ones.
SHARES_OF_C = (0.1, 0.03)
WHAT = "unlabelled rows"
Label = Callable[[Ints, np.ndarray[Any, Any]], tuple[Ints, Floats]]


@dataclass(frozen=True, slots=True)
class Vectors:
    """All that labels are told by: ``vectors`` of labelled rows [n], then of unlabelled texts [m],
    then of added rows [a]; ``labels`` of the first [n] and of the last [a], whose ``weights``
    [a]."""

    vectors: Floats
    labels: Ints
    texts: int
    added_labels: Ints
    added_weights: Floats
    classes: int
    seed: int

    @property
    def rows(self) -> Floats:
        return self.vectors[: len(self.labels)]

    @property
    def unlabelled(self) -> Floats:
        return self.vectors[len(self.labels) : len(self.labels) + self.texts]

    @property
    def added(self) -> Floats:
        return self.vectors[len(self.labels) + self.texts :]

    def beside(self, labels: Ints | None = None, weights: Floats | None = None) -> ExtraRows | None:
        """The added rows, and the unlabelled ones with these labels and weights."""
        if labels is None or weights is None:
            if not len(self.added_labels):
                return None
            return ExtraRows(self.added, self.added_labels, self.added_weights)
        return ExtraRows(
            np.concatenate([self.added, self.unlabelled]),
            np.concatenate([self.added_labels, labels]),
            np.concatenate([self.added_weights, weights]),
        )


def with_unlabelled(
    prepared: PreparedData, train: Ints, valid: Ints, texts: Sequence[str]
) -> PreparedData:
    """What is prepared, with the unlabelled ``texts`` as added rows where they are worth it.

    Labels for them are told by the rows at ``train`` (and the names of classes). Whether they are
    used is decided on the rows at ``train`` and ``valid``, each judged by a probe to which its
    label was unknown, directly and through the unlabelled rows. The recipe says what was chosen.
    """
    if prepared.recipe.data.unlabelled is None:
        return prepared
    if not has_classes(prepared):
        rule = "needs single texts with one class each"
        raise RecipeError("data.unlabelled", rule, None, "Leave it out for this task.")
    if not len(texts):
        return _settled(prepared, "none", "the file holds no text, or copies of rows alone")
    wanted = prepared.recipe.data.unlabelled_by
    if wanted == "none":
        return _settled(prepared, "none", "set by you: data.unlabelled_by=none")
    classes = len(prepared.rows.classes)
    if wanted is None and classes < MANY_CLASSES:
        because = (
            f"{classes} classes are few: what a probe gained by its own labels out of fold, the "
            "tuned model lost (TREC, 100 rows: 6.8 points); data.unlabelled_by asks for it"
        )
        return _settled(prepared, "none", because)
    way = wanted or "propagation"
    known = _vectors(prepared, np.concatenate([train, valid]), texts)
    tell = _teller(way, known)
    because = "set by you"
    if wanted is None:
        gain = _borne_out(known, tell, prepared.units[np.concatenate([train, valid])])
        if not gain.kept:
            return _settled(prepared, "none", f"{way} was tried: {gain.words}")
        because = gain.words
    hidden = np.zeros(len(known.labels), dtype=bool)
    hidden[len(train) :] = True
    labels, weights = tell(np.where(hidden, -1, known.labels), hidden)
    used = np.flatnonzero(weights > 0)
    lot = added_texts(
        prepared.rows,
        [texts[int(i)] for i in used],
        labels[used],
        origin="unlabelled",
        weights=weights[used],
    )
    because = f"the surest {len(used):,} of {len(texts):,} texts; {because}"
    return _settled(prepared, way, because).extended(lot)


def _settled(prepared: PreparedData, way: str, because: str) -> PreparedData:
    notify(Decision(WHAT, way, because, prominent=True))
    return replace(prepared, recipe=prepared.recipe.changed(data={"unlabelled_by": way}))


def _vectors(prepared: PreparedData, rows: Ints, texts: Sequence[str]) -> Vectors:
    kind, loaded, recipe = prepared.kind, prepared.loaded, prepared.recipe
    lot = added_texts(prepared.rows, texts, np.zeros(len(texts), int), origin="unlabelled")
    encoded = kind.encode(lot.table, loaded, recipe)
    parts = [last_layer_vectors(prepared, prepared.examples, rows), last_layer_vectors(prepared, encoded)]
    marks, weights = np.zeros(0, dtype=np.int64), np.zeros(0)
    if prepared.added is not None and prepared.added_examples is not None:
        parts.append(last_layer_vectors(prepared, prepared.added_examples))
        marks = np.asarray(prepared.added.table.column("label"))
        weights = np.asarray(prepared.added.weights)
    return Vectors(
        np.concatenate(parts),
        np.asarray(prepared.rows.column("label"))[rows],
        len(texts),
        marks,
        weights,
        len(prepared.rows.classes),
        recipe.seed,
    )


def _teller(way: str, known: Vectors) -> Label:
    """What gives every unlabelled row a label and a weight, from the labels [n] of the rows (−1
    where hidden) and which of them are ``hidden`` [n]."""

    def taught(hidden: npt.NDArray[np.bool_]) -> Floats:
        probe = _probe(known, ~hidden, None, known.beside())
        return softmax(probe.logits(known.unlabelled))

    if way == "self-training":
        return lambda labels, hidden: _weighed(taught(hidden), (~hidden).sum())
    graph = neighbour_graph(known.vectors)

    def spread(labels: Ints, hidden: npt.NDArray[np.bool_]) -> tuple[Ints, Floats]:
        none = np.full(known.texts, -1)
        off = np.zeros(len(known.vectors), dtype=bool)
        off[: len(hidden)] = hidden
        every = np.concatenate([labels, none, known.added_labels])
        mine = slice(len(labels), len(labels) + known.texts)
        # What a probe says of a text, spread to its neighbours, has fewer wrong labels than either.
        start = np.zeros((len(known.vectors), known.classes))
        start[mine] = taught(hidden)
        shares = propagate(graph, every, classes=known.classes, start=start, without=off)
        return _weighed(shares[mine], (~hidden).sum())

    return spread


def _weighed(shares: Floats, rows: int) -> tuple[Ints, Floats]:
    """The likeliest class of each row and its share as a weight: of each class those of the surest
    rows, 2,000 in all, together at most ``MOST_WEIGHT`` times ``rows``; of the others 0."""
    labels, sure = shares.argmax(axis=1), shares.max(axis=1)
    order = np.argsort(-sure, kind="stable")
    place = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of = order[labels[order] == label]
        place[of] = np.arange(len(of))
    most = max(1, MOST_USED // shares.shape[1])
    weights = np.where(place < most, sure, 0.0)
    return labels, weights * min(1.0, MOST_WEIGHT * rows / max(float(weights.sum()), 1e-12))


def _probe(
    known: Vectors, rows: npt.NDArray[np.bool_], c: float | None, beside: ExtraRows | None
) -> Probe:
    return fit_probe(
        known.rows[rows],
        known.labels[rows],
        classes=known.classes,
        seed=known.seed,
        c=c,
        beside=beside,
    )


@dataclass(frozen=True, slots=True)
class Gain:
    """Whether the unlabelled rows are ``kept``, in ``words``."""

    kept: bool
    words: str


def _borne_out(known: Vectors, tell: Label, units: Ints) -> Gain:
    """Probes with and without the unlabelled rows on rows of folds whose labels neither saw: kept
    where the interval of the loss's fall is above 0 and no fewer rows are right: the loss tells
    more of as many rows, and what is gained on rare classes hardly shows in the accuracy."""
    c = _probe(known, np.ones(len(known.labels), dtype=bool), None, known.beside()).c
    fold = _folds(known.labels, units, known.seed)
    right = np.zeros((len(fold), 1 + len(SHARES_OF_C)))
    losses = np.zeros_like(right)
    for held in (fold == one for one in range(FOLDS)):
        if not held.any():
            continue
        beside = known.beside(*tell(np.where(held, -1, known.labels), held))
        arms = [(c, known.beside()), *((share * c, beside) for share in SHARES_OF_C)]
        for place, (penalty, others) in enumerate(arms):
            logits = _probe(known, ~held, penalty, others).logits(known.rows[held])
            right[held, place] = logits.argmax(axis=1) == known.labels[held]
            losses[held, place] = softmax_losses(logits, known.labels[held])
    best = 1 + int(losses[:, 1:].mean(axis=0).argmin())
    random = generator(known.seed, "unlabelled rows judged")
    fall = paired_bootstrap(losses[:, 0], losses[:, best], seed=random, groups=_dense(units))
    gain = float(right[:, best].mean() - right[:, 0].mean())
    words = (
        f"out of fold, the loss of a probe of the {len(fold):,} labelled rows falls by "
        f"{fall.value:.3f} with them ({fall.low:+.3f} to {fall.high:+.3f}), and it gains "
        f"{100 * gain:+.1f} points"
    )
    return Gain(bool(fall.low > 0 and gain >= 0), words)


def _dense(units: Ints) -> Ints:
    return np.asarray(np.unique(units, return_inverse=True)[1])


def _folds(labels: Ints, units: Ints, seed: int) -> Ints:
    """A fold for each row [n]: units are dealt out whole, those of one class in turn."""
    dense = _dense(units)
    first = np.unique(dense, return_index=True)[1]
    random = generator(seed, "unlabelled folds").permutation(len(first))
    order = random[np.argsort(labels[first][random], kind="stable")]
    of_unit = np.empty(len(first), dtype=np.int64)
    of_unit[order] = np.arange(len(order)) % FOLDS
    return np.asarray(of_unit[dense])
