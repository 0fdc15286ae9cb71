"""Scores of a pretrained model on labelled rows before any training: a linear probe on each of its
layers, out of fold, with the H-score and LogME.

One pass over the rows serves all layers. A row's features are the mean of the layer's states over
its tokens; for tags each word is its first token. Folds keep duplicates and groups together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import PreparedData
from holdfast.core.errors import ModelError
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.metrics.comparison import entity_rows, number_rows, right_rows, set_rows
from holdfast.models.base import Layer
from holdfast.models.compute.processor import use_onednn
from holdfast.models.layer_outputs import below_head, capture_outputs, pooled
from holdfast.models.network_copy import copy_network
from holdfast.models.probes.transferability import h_score, log_evidence, ridge_out_of_fold
from holdfast.tasks.tags.entities import TagTable, entity_counts
from holdfast.tasks.tags.losses import word_features
from holdfast.training.machine.machine import make_accelerator, use_threads
from holdfast.training.observe import EVALUATION_TOKENS
from holdfast.training.plan import batches_by_length
from holdfast.training.task import device_batch, features_of

if TYPE_CHECKING:
    import torch

    from holdfast.training.task import Examples


FOLDS = 5
# Of a deep model so many layers, evenly, the last among them.
MAX_LAYERS = 8
HEAD = "pooled"
# The most rows, and the most words of tagged sentences, for a probe: more would add little.
MAX_PROBE_ROWS, MAX_PROBE_WORDS = 600, 4000


@dataclass(frozen=True, slots=True)
class LayerScore:
    """One layer: the out-of-fold ``score`` of a probe on it, its shrunken ``h_score`` (``None``
    without classes) and its ``log_evidence`` (LogME)."""

    name: str
    score: float
    h_score: float | None
    log_evidence: float

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "score": self.score,
            "h_score": self.h_score,
            "logme": self.log_evidence,
        }


@dataclass(frozen=True, slots=True)
class FrozenEvidence:
    """Probe scores of a frozen model. ``layers`` in their order, the last being the input of the
    head, ``best`` the index of the one with the best probe. ``rows`` [n] are the scores of the
    requested rows (NaN for a row that the model does not read), for each fold by the layer that is
    best on the other folds: choosing the layer adds no selection bias to their mean. ``errors`` [n]
    are the squared errors of its outputs, summed over the classes, with the layer chosen by them.
    ``units`` [n] say which rows are duplicates or in one group; ``rows_per_s`` is the speed of the
    network."""

    layers: tuple[LayerScore, ...]
    best: int
    rows: Floats
    errors: Floats
    units: Ints
    rows_per_s: float

    @property
    def score(self) -> float:
        """The out-of-fold score of a probe on the layer that other folds chose."""
        return float(np.nanmean(self.rows))

    @property
    def layer(self) -> LayerScore:
        return self.layers[self.best]

    @property
    def head(self) -> LayerScore:
        """The score of the last layer, the input of the head."""
        return self.layers[-1]

    @property
    def h_score(self) -> float | None:
        """The mean over the layers; ``None`` without classes."""
        known = [layer.h_score for layer in self.layers if layer.h_score is not None]
        return float(np.mean(known)) if known else None

    @property
    def log_evidence(self) -> float:
        """LogME, the mean over the layers."""
        return float(np.mean([layer.log_evidence for layer in self.layers]))

    def to_json(self) -> dict[str, Any]:
        return {
            "probe": self.score,
            "layer": self.layer.name,
            "probe_of_head": self.head.score,
            "h_score": self.h_score,
            "logme": self.log_evidence,
            "layers": [layer.to_json() for layer in self.layers],
        }


@dataclass(frozen=True, slots=True)
class LayerFeatures:
    """The features of rows in each layer, one line per text, image or word. ``owner`` [lines] is
    the line's example, ``tags`` [lines] the word's tag."""

    states: dict[str, Floats]
    owner: Ints
    tags: Ints | None
    rows_per_s: float


def assign_folds(units: Ints, labels: Ints, seed: int) -> Ints:
    """One of ``FOLDS`` folds for every row [n], the same for rows of one unit, with each label
    spread over the folds. With fewer units than folds, each unit is a fold."""
    _, first, of_row = np.unique(units, return_index=True, return_inverse=True)
    chance = generator(seed, "folds of the probe").permutation(len(first))
    order = np.lexsort((chance, labels[first]))
    place = np.empty(len(first), dtype=np.int64)
    place[order] = np.arange(len(first)) % FOLDS
    return np.asarray(place[of_row])


def sample_rows(prepared: PreparedData, positions: Ints) -> Ints:
    """At most 600 rows, or for tagged sentences at most 4,000 words: a fixed sample that does not
    depend on the model, in the rows' order."""
    order = generator(prepared.recipe.seed, "rows of candidates").permutation(len(positions))
    sample = positions[order[:MAX_PROBE_ROWS]]
    if "tokens" in prepared.rows.rows.column_names:
        words = np.array([len(one) for one in prepared.rows.take(sample).column("tokens")])
        fits_budget = np.cumsum(words) <= MAX_PROBE_WORDS
        fits_budget[: 2 * FOLDS] = True
        sample = sample[fits_budget]
    return np.sort(sample)


@dataclass(frozen=True, slots=True, eq=False)
class FrozenRows:
    """Rows that have passed through a frozen model, of which any part can be scored. ``read`` are
    the rows that the model reads: a sentence of which no word is read has no line. ``labels`` are
    those of the lines of ``features``, ``units`` [n] those of the rows, ``names`` those of tags."""

    features: LayerFeatures
    read: Ints
    labels: npt.NDArray[Any]
    units: Ints
    label_type: str | None
    names: tuple[str, ...]

    @classmethod
    def of(cls, prepared: PreparedData, positions: Ints) -> FrozenRows:
        """The prepared rows at ``positions``."""
        examples: Any = prepared.examples.take(positions)
        features = pass_layers(prepared, examples)
        is_tags = features.tags is not None
        labels: Any = features.tags if is_tags else np.asarray(examples.labels)[features.owner]
        return cls(
            features,
            np.arange(len(positions)) if len(examples) == len(positions) else examples.kept,
            labels,
            prepared.units[positions],
            "tags" if is_tags else prepared.rows.columns.label_kind,
            tuple(prepared.rows.names),
        )

    def evidence(self, folds: Ints, part: Ints | None = None) -> FrozenEvidence:
        """The probe scores of these rows, or of a ``part`` of them (positions); ``folds`` are
        theirs."""
        n = len(self.units)
        part = np.arange(n) if part is None else part
        place = np.full(n, -1)
        place[part] = np.arange(len(part))
        owner = place[self.read[self.features.owner]]
        lines = owner >= 0
        owner, labels = owner[lines], self.labels[lines]
        targets, classes = _targets(labels, self.label_type)
        layers: list[LayerScore] = []
        rows: list[Floats] = []
        errors: list[Floats] = []
        read, lines_of = np.unique(owner, return_counts=True)
        for name, states in self.features.states.items():
            out_of_fold = ridge_out_of_fold(states[lines], targets, folds[owner]).predictions
            scores = self._scores(out_of_fold, labels, owner)
            squared = ((out_of_fold - targets) ** 2).sum(axis=1)
            for by_row, values in (
                (rows, scores),
                (errors, np.bincount(owner, squared)[read] / lines_of),
            ):
                by_row.append(np.full(len(part), np.nan))
                by_row[-1][read] = values
            explained = h_score(states[lines], classes) if classes is not None else None
            log_of_evidence = log_evidence(states[lines], targets)
            layers.append(LayerScore(name, float(np.mean(scores)), explained, log_of_evidence))
        layer_scores = [layer.score if np.isfinite(layer.score) else -np.inf for layer in layers]
        return FrozenEvidence(
            tuple(layers),
            int(np.argmax(layer_scores)),
            out_of_fold_scores(np.stack(rows), folds),
            -out_of_fold_scores(-np.stack(errors), folds),
            self.units[part],
            self.features.rows_per_s,
        )

    def _scores(self, out_of_fold: Floats, labels: npt.NDArray[Any], owner: Ints) -> Floats:
        """The score of each row that has a line, from the predictions for the lines."""
        if self.label_type == "tags":
            predicted = np.unique(labels)[out_of_fold.argmax(axis=1)]
            counts = np.unique(owner, return_counts=True)[1]
            totals = entity_counts(labels, predicted, counts, TagTable.of(self.names))
            return entity_rows(totals.reshape(len(counts), 3, -1).sum(axis=2))
        targets, classes = _targets(labels, self.label_type)
        truth = targets[:, 0] if self.label_type == "number" else labels
        return score_rows(self.label_type, out_of_fold, truth if classes is None else classes, 0.5)


def frozen_evidence(prepared: PreparedData, positions: Ints, folds: Ints) -> FrozenEvidence:
    """The probe scores of the prepared rows at ``positions``; ``folds`` [n] are theirs."""
    return FrozenRows.of(prepared, positions).evidence(folds)


def out_of_fold_scores(rows: Floats, folds: Ints) -> Floats:
    """The scores [n] of each fold by the layer with the best mean of ``rows`` [layers, n] on the
    other folds: the first on a tie, and the best overall if there are no other rows."""
    scores = np.full(rows.shape[1], np.nan)
    for fold in np.unique(folds):
        in_fold = folds == fold
        others = rows[:, ~in_fold] if (~in_fold).any() else rows
        scored = np.isfinite(others)
        counts = scored.sum(axis=1)
        sums = np.where(scored, others, 0.0).sum(axis=1)
        means = np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)
        scores[in_fold] = rows[int(np.argmax(means)), in_fold]
    return scores


def _targets(labels: npt.NDArray[Any], label_type: str | None) -> tuple[Floats, Ints | None]:
    """The targets of the probe [lines, C], and class indices [lines] if there are classes."""
    if label_type == "several":
        return labels.astype(np.float64), None
    if label_type == "number":
        values = labels.astype(np.float64).reshape(-1, 1)
        return (values - values.mean()) / (values.std() or 1.0), None
    present, classes = np.unique(labels, return_inverse=True)
    return np.eye(len(present))[classes], classes


def score_rows(
    label_type: str | None, outputs: Floats, labels: npt.NDArray[Any], threshold: float
) -> Floats:
    """The scores of rows [n] from ``outputs`` [n, C] and ``labels``: for several labels those above
    ``threshold``, for a number the number, else the class with the highest probability."""
    if label_type == "several":
        return set_rows(outputs > threshold, labels)
    return (
        number_rows(outputs[:, 0], labels)
        if label_type == "number"
        else right_rows(outputs, labels)
    )


def pass_layers(prepared: PreparedData, examples: Examples) -> LayerFeatures:
    """One pass of ``examples`` through the pretrained network, in evaluation mode. Raises
    ``ModelError`` where it computes features that are not finite."""
    import torch

    use_threads(prepared.machine.threads)
    network: Any = copy_network(prepared.loaded.network)
    if prepared.recipe.train.matmul == "onednn":
        use_onednn(network)
    accelerator = make_accelerator(prepared.machine.precision)
    device = accelerator.device
    network.to(device).eval()
    task: Any = prepared.definition.make_task(prepared.loaded, prepared.rows, prepared.recipe, None)
    tokens = EVALUATION_TOKENS.get(device.type, EVALUATION_TOKENS["cpu"])
    lengths = np.asarray(examples.lengths)
    parts: dict[str, list[Floats]] = {}
    owner: list[Ints] = []
    tags: list[Ints] = []
    start = time.perf_counter()
    with capture_outputs(_at_most(below_head(network))) as outputs, torch.inference_mode():
        for batch_rows in batches_by_length(lengths, np.arange(len(examples)), tokens):
            batch = device_batch(task, examples, batch_rows, device)
            tags_words = "where" in batch
            with accelerator.autocast():
                head_input = (
                    word_features(network, batch) if tags_words else features_of(network, batch)
                )
            mask = None if tags_words else batch.get("attention_mask")
            for name, states in outputs().items():
                row_states = _words(states, batch) if tags_words else pooled(states, mask)
                parts.setdefault(name, []).append(row_states.float().cpu().numpy())
            parts.setdefault(HEAD, []).append(head_input.float().cpu().numpy())
            counts = (
                batch["counts"].cpu().numpy() if tags_words else np.ones(len(batch_rows), np.int64)
            )
            owner.append(np.repeat(batch_rows, counts))
            tags += [batch["tags"].cpu().numpy()] if tags_words else []
    speed = len(examples) / max(time.perf_counter() - start, 1e-9)
    lines = np.concatenate(owner)
    order = np.argsort(lines, kind="stable")
    states_by_layer = {name: np.concatenate(some)[order] for name, some in parts.items()}
    for name, layer_states in states_by_layer.items():
        if not np.isfinite(layer_states).all():
            rule = f"computes features that are not finite numbers, in {name}"
            remedy = "Its weights are too large, or damaged: use another model."
            raise ModelError(str(prepared.recipe.model.name), rule, None, remedy)
    line_tags = np.concatenate(tags)[order] if tags else None
    return LayerFeatures(states_by_layer, lines[order], line_tags, speed)


def _words(states: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The states [batch, places, width] of the first token of each word."""
    states = states[:, states.shape[1] - batch["input_ids"].shape[1] :]
    return states.flatten(0, 1)[batch["where"]]


def _at_most(layers: Sequence[Layer]) -> list[Layer]:
    """At most eight layers: hooks on more cost memory and add little."""
    if len(layers) <= MAX_LAYERS:
        return list(layers)
    places: npt.NDArray[Any] = np.linspace(0, len(layers) - 1, MAX_LAYERS).round().astype(int)
    return [layers[place] for place in np.unique(places)]
