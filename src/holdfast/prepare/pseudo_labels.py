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
MAX_WEIGHT = 1.0
# Of each class the surest ones: a head is fitted to all of them, again at every evaluation.
MAX_USED = 2000
# Of the penalty's inverse: given labels are less sure than written ones.
SHARES_OF_C = (0.1, 0.03)
TITLE = "unlabelled rows"
Label = Callable[[Ints, np.ndarray[Any, Any]], tuple[Ints, Floats]]


@dataclass(frozen=True, slots=True)
class Vectors:
    """All that labels are predicted from: ``vectors`` of labelled rows [n], then of unlabelled
    texts [m], then of added rows [a]; ``labels`` of the first [n] and of the last [a], whose
    ``weights`` [a]."""

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

    def extra_rows(
        self, labels: Ints | None = None, weights: Floats | None = None
    ) -> ExtraRows | None:
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

    Labels for them are predicted from the rows at ``train`` (and the names of classes). Whether
    they are used is decided on the rows at ``train`` and ``valid``, each judged by a probe to which
    its label was unknown, directly and through the unlabelled rows. The recipe says what was
    chosen.
    """
    if prepared.recipe.data.unlabelled is None:
        return prepared
    if not has_classes(prepared):
        rule = "needs single texts with one class each"
        raise RecipeError("data.unlabelled", rule, None, "Leave it out for this task.")
    if not len(texts):
        return _with_choice(prepared, "none", "the file holds no text, or copies of rows alone")
    requested = prepared.recipe.data.unlabelled_by
    if requested == "none":
        return _with_choice(prepared, "none", "set by you: data.unlabelled_by=none")
    classes = len(prepared.rows.classes)
    if requested is None and classes < MANY_CLASSES:
        because = (
            f"{classes} classes are few: what a probe gained by its own labels out of fold, the "
            "tuned model lost (TREC, 100 rows: 6.8 points); data.unlabelled_by asks for it"
        )
        return _with_choice(prepared, "none", because)
    method = requested or "propagation"
    evidence = _make_vectors(prepared, np.concatenate([train, valid]), texts)
    assign_labels = _make_labeller(method, evidence)
    because = "set by you"
    if requested is None:
        gain = _measure_gain(
            evidence, assign_labels, prepared.units[np.concatenate([train, valid])]
        )
        if not gain.is_accepted:
            return _with_choice(prepared, "none", f"{method} was tried: {gain.summary}")
        because = gain.summary
    hidden = np.zeros(len(evidence.labels), dtype=bool)
    hidden[len(train) :] = True
    labels, weights = assign_labels(np.where(hidden, -1, evidence.labels), hidden)
    selected = np.flatnonzero(weights > 0)
    added_rows = added_texts(
        prepared.rows,
        [texts[int(i)] for i in selected],
        labels[selected],
        origin="unlabelled",
        weights=weights[selected],
    )
    because = f"the surest {len(selected):,} of {len(texts):,} texts; {because}"
    return _with_choice(prepared, method, because).extended(added_rows)


def _with_choice(prepared: PreparedData, way: str, because: str) -> PreparedData:
    notify(Decision(TITLE, way, because, prominent=True))
    return replace(prepared, recipe=prepared.recipe.with_changes(data={"unlabelled_by": way}))


def _make_vectors(prepared: PreparedData, rows: Ints, texts: Sequence[str]) -> Vectors:
    definition, loaded, recipe = prepared.definition, prepared.loaded, prepared.recipe
    text_rows = added_texts(prepared.rows, texts, np.zeros(len(texts), int), origin="unlabelled")
    encoded = definition.encode(text_rows.table, loaded, recipe)
    parts = [
        last_layer_vectors(prepared, prepared.examples, rows),
        last_layer_vectors(prepared, encoded),
    ]
    added_labels, weights = np.zeros(0, dtype=np.int64), np.zeros(0)
    if prepared.added is not None and prepared.added_examples is not None:
        parts.append(last_layer_vectors(prepared, prepared.added_examples))
        added_labels = np.asarray(prepared.added.table.column("label"))
        weights = np.asarray(prepared.added.weights)
    return Vectors(
        np.concatenate(parts),
        np.asarray(prepared.rows.column("label"))[rows],
        len(texts),
        added_labels,
        weights,
        len(prepared.rows.classes),
        recipe.seed,
    )


def _make_labeller(method: str, evidence: Vectors) -> Label:
    """What gives every unlabelled row a label and a weight, from the labels [n] of the rows (−1
    where hidden) and which of them are ``hidden`` [n]."""

    def taught(hidden: npt.NDArray[np.bool_]) -> Floats:
        probe = _probe(evidence, ~hidden, None, evidence.extra_rows())
        return softmax(probe.logits(evidence.unlabelled))

    if method == "self-training":
        return lambda labels, hidden: _weighted_labels(taught(hidden), (~hidden).sum())
    graph = neighbour_graph(evidence.vectors)

    def spread(labels: Ints, hidden: npt.NDArray[np.bool_]) -> tuple[Ints, Floats]:
        unknown = np.full(evidence.texts, -1)
        is_hidden = np.zeros(len(evidence.vectors), dtype=bool)
        is_hidden[: len(hidden)] = hidden
        all_labels = np.concatenate([labels, unknown, evidence.added_labels])
        text_rows = slice(len(labels), len(labels) + evidence.texts)
        # What a probe says of a text, spread to its neighbours, has fewer wrong labels than either.
        start = np.zeros((len(evidence.vectors), evidence.classes))
        start[text_rows] = taught(hidden)
        shares = propagate(
            graph, all_labels, classes=evidence.classes, start=start, excluded=is_hidden
        )
        return _weighted_labels(shares[text_rows], (~hidden).sum())

    return spread


def _weighted_labels(shares: Floats, rows: int) -> tuple[Ints, Floats]:
    """The likeliest class of each row and its share as a weight: of each class those of the surest
    rows, 2,000 in all, together at most ``MAX_WEIGHT`` times ``rows``; of the others 0."""
    labels, confidence = shares.argmax(axis=1), shares.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    place = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        place[of_class] = np.arange(len(of_class))
    max_per_class = max(1, MAX_USED // shares.shape[1])
    weights = np.where(place < max_per_class, confidence, 0.0)
    return labels, weights * min(1.0, MAX_WEIGHT * rows / max(float(weights.sum()), 1e-12))


def _probe(
    evidence: Vectors, rows: npt.NDArray[np.bool_], c: float | None, extra_rows: ExtraRows | None
) -> Probe:
    return fit_probe(
        evidence.rows[rows],
        evidence.labels[rows],
        classes=evidence.classes,
        seed=evidence.seed,
        c=c,
        extra_rows=extra_rows,
    )


@dataclass(frozen=True, slots=True)
class Gain:
    """Whether the unlabelled rows are ``is_accepted``, in ``summary``."""

    is_accepted: bool
    summary: str


def _measure_gain(evidence: Vectors, assign_labels: Label, units: Ints) -> Gain:
    """Probes with and without the unlabelled rows on rows of folds whose labels neither saw: kept
    where the interval of the loss's fall is above 0 and no fewer rows are right: the loss shows
    more of as many rows, and what is gained on rare classes hardly shows in the accuracy."""
    c = _probe(evidence, np.ones(len(evidence.labels), dtype=bool), None, evidence.extra_rows()).c
    fold = _folds(evidence.labels, units, evidence.seed)
    correct = np.zeros((len(fold), 1 + len(SHARES_OF_C)))
    losses = np.zeros_like(correct)
    for held_out in (fold == one for one in range(FOLDS)):
        if not held_out.any():
            continue
        extra_rows = evidence.extra_rows(
            *assign_labels(np.where(held_out, -1, evidence.labels), held_out)
        )
        arms = [(c, evidence.extra_rows()), *((share * c, extra_rows) for share in SHARES_OF_C)]
        for arm, (penalty, arm_rows) in enumerate(arms):
            logits = _probe(evidence, ~held_out, penalty, arm_rows).logits(evidence.rows[held_out])
            correct[held_out, arm] = logits.argmax(axis=1) == evidence.labels[held_out]
            losses[held_out, arm] = softmax_losses(logits, evidence.labels[held_out])
    best = 1 + int(losses[:, 1:].mean(axis=0).argmin())
    random = generator(evidence.seed, "unlabelled rows judged")
    fall = paired_bootstrap(losses[:, 0], losses[:, best], seed=random, groups=_unit_codes(units))
    gain = float(correct[:, best].mean() - correct[:, 0].mean())
    summary = (
        f"out of fold, the loss of a probe of the {len(fold):,} labelled rows falls by "
        f"{fall.value:.3f} with them ({fall.low:+.3f} to {fall.high:+.3f}), and it gains "
        f"{100 * gain:+.1f} points"
    )
    return Gain(bool(fall.low > 0 and gain >= 0), summary)


def _unit_codes(units: Ints) -> Ints:
    return np.asarray(np.unique(units, return_inverse=True)[1])


def _folds(labels: Ints, units: Ints, seed: int) -> Ints:
    """A fold for each row [n]: units are dealt out whole, those of one class in turn."""
    dense = _unit_codes(units)
    first = np.unique(dense, return_index=True)[1]
    random = generator(seed, "unlabelled folds").permutation(len(first))
    order = random[np.argsort(labels[first][random], kind="stable")]
    of_unit = np.empty(len(first), dtype=np.int64)
    of_unit[order] = np.arange(len(order)) % FOLDS
    return np.asarray(of_unit[dense])
