"""Pseudo-labels: predict labels for unlabelled texts from the labelled rows, and learn from them if
that helps on rows whose labels were held out."""

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
from holdfast.core.wording import signed
from holdfast.data.table import added_texts
from holdfast.models.probes.logistic import softmax_losses
from holdfast.models.probes.probe import ExtraRows, Probe, fit_probe
from holdfast.models.probes.propagation import neighbour_graph, propagate
from holdfast.prepare.embedding import has_classes, last_layer_vectors
from holdfast.prepare.probe_evidence import FOLDS, assign_folds
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.paired_tests import paired_bootstrap

if TYPE_CHECKING:
    import numpy.typing as npt


# With fewer classes, only about half of a row's neighbours have its class.
MANY_CLASSES = 15
# The total weight of all unlabelled rows, where a row of the table has weight 1, is at most this
# many times the rows of the table.
MAX_WEIGHT = 1.0
# The most confident rows of each class: a head is fitted to all of them at every evaluation.
MAX_USED = 2000
# Inverse penalty (C): pseudo-labels are less reliable than annotated ones.
SHARES_OF_C = (0.1, 0.03)
TITLE = "unlabelled rows"
Label = Callable[[Ints, np.ndarray[Any, Any]], tuple[Ints, Floats]]


@dataclass(frozen=True, slots=True)
class Vectors:
    """The data for predicting labels: ``vectors`` of labelled rows [n], then of unlabelled texts
    [m], then of added rows [a]; ``labels`` of the first [n] and of the last [a], which have
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
    """The prepared data with the unlabelled ``texts`` as added rows, if they help.

    Their labels are predicted from the rows at ``train`` (and the names of classes). Whether they
    are used is decided on the rows at ``train`` and ``valid``: each row is predicted by a linear
    probe that did not know its label, neither directly nor through the unlabelled rows. The recipe
    records the choice.
    """
    if prepared.recipe.data.unlabelled is None:
        return prepared
    if not has_classes(prepared):
        rule = "needs single texts with one class each"
        raise RecipeError("data.unlabelled", rule, None, "Leave it out for this task.")
    if not len(texts):
        return _with_choice(
            prepared, "none", "the file holds no text, or only duplicates of other rows"
        )
    requested = prepared.recipe.data.unlabelled_by
    if requested == "none":
        return _with_choice(prepared, "none", "set in the recipe: data.unlabelled_by=none")
    classes = len(prepared.rows.classes)
    if requested is None and classes < MANY_CLASSES:
        because = (
            f"not used with fewer than {MANY_CLASSES} classes (here {classes}): out-of-fold gains "
            "of the linear probe did not carry over to the fine-tuned model (TREC, 100 rows: −6.8 "
            "points); data.unlabelled_by=METHOD uses them anyway"
        )
        return _with_choice(prepared, "none", because)
    method = requested or "propagation"
    evidence = _make_vectors(prepared, np.concatenate([train, valid]), texts)
    assign_labels = _make_labeller(method, evidence)
    because = "set in the recipe"
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
    because = f"the {len(selected):,} most confident of {len(texts):,} texts; {because}"
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
    """A function that gives every unlabelled row a label and a weight, from the labels [n] of the
    rows (−1 where hidden) and the mask ``hidden`` [n]."""

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
        # Probe predictions, propagated to neighbours, have fewer wrong labels than either method.
        start = np.zeros((len(evidence.vectors), evidence.classes))
        start[text_rows] = taught(hidden)
        shares = propagate(
            graph, all_labels, classes=evidence.classes, start=start, excluded=is_hidden
        )
        return _weighted_labels(shares[text_rows], (~hidden).sum())

    return spread


def _weighted_labels(shares: Floats, rows: int) -> tuple[Ints, Floats]:
    """The likeliest class of each row, and its probability as a weight: for the most confident rows
    of each class, 2,000 in all, together at most ``MAX_WEIGHT`` times ``rows``; 0 for others."""
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
    """Whether the unlabelled rows are used (``is_accepted``), with the reason (``summary``)."""

    is_accepted: bool
    summary: str


def _measure_gain(evidence: Vectors, assign_labels: Label, units: Ints) -> Gain:
    """Compare linear probes with and without the unlabelled rows, out of fold.

    The rows are used where the interval of the loss reduction is above 0 and accuracy does not
    fall. The loss is decisive because it is more sensitive with few rows, and gains on rare classes
    hardly change the accuracy."""
    c = _probe(evidence, np.ones(len(evidence.labels), dtype=bool), None, evidence.extra_rows()).c
    fold = assign_folds(units, evidence.labels, evidence.seed)
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
    codes = group_codes(units, len(units))
    fall = paired_bootstrap(losses[:, 0], losses[:, best], seed=random, groups=codes)
    gain = float(correct[:, best].mean() - correct[:, 0].mean())
    summary = (
        f"with them, the out-of-fold loss of a linear probe on {len(fold):,} labelled rows falls "
        f"by {fall.value:.3f} (95 % CI {signed(fall.low, '+.3f')} to "
        f"{signed(fall.high, '+.3f')}), and its accuracy "
        f"changes by {signed(100 * gain)} points"
    )
    return Gain(bool(fall.low > 0 and gain >= 0), summary)
