"""Scores of a pretrained model on the rows before any training, or after a few updates.

For a classifier: a linear probe on each of its layers, out of fold, with the H-score and LogME. One
pass over the rows serves all layers. A row's features are the mean of the layer's states over its
tokens; for tags each word is its first token. Folds keep duplicates and groups together.

For a generative model: the bits per byte of texts, before and after a few updates of an adapter.

    bits per byte = Σ −log2 p(token | before) ÷ Σ UTF-8 bytes of the text that the tokens stand for

Perplexity counts tokens, and models tokenize differently; bytes are the same for all. Special
tokens (an end, the turns of a chat) cost bits and stand for no byte. Lower is better; the scores in
this project reverse the sign, so that higher is better everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.fit import PreparedData
from holdfast.core.records import Floats, Ints
from holdfast.core.seeds import generator
from holdfast.fits.fit import fit
from holdfast.fits.frozen import below_head, capture_outputs, pooled
from holdfast.metrics.comparison import bits_rows, entity_rows, number_rows, right_rows, set_rows
from holdfast.models.base import Layer
from holdfast.models.compute.processor import use_onednn
from holdfast.models.network_copy import copy_network
from holdfast.models.probes.transferability import h_score, log_evidence, ridge_out_of_fold
from holdfast.tasks.tags.entities import TagTable, entity_counts
from holdfast.tasks.tags.losses import word_features
from holdfast.training.machine.machine import make_accelerator, use_threads
from holdfast.training.observe import EVALUATION_TOKENS, Observer
from holdfast.training.plan import batches_by_length
from holdfast.training.task import device_batch, features_of

if TYPE_CHECKING:
    import torch

    from holdfast.tasks.lm.losses import EncodedTokens
    from holdfast.tasks.seq2seq.losses import EncodedPairs
    from holdfast.training.task import Examples, LabelledExamples


FOLDS = 5
# Of a deep model so many layers, evenly, the last among them.
MAX_LAYERS = 8
HEAD = "pooled"


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
    best on the other folds: choosing the layer adds no selection bias to their mean. ``units`` [n]
    say which rows are duplicates or in one group; ``rows_per_s`` is the speed of the network."""

    layers: tuple[LayerScore, ...]
    best: int
    rows: Floats
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


def assign_folds(units: Ints, labels: Ints, folds: int, seed: int) -> Ints:
    """A fold for every row [n], the same for rows of one unit, with each label spread over the
    folds. With fewer units than folds, each unit is a fold."""
    _, first, of_row = np.unique(units, return_index=True, return_inverse=True)
    chance = generator(seed, "folds of the probe").permutation(len(first))
    order = np.lexsort((chance, labels[first]))
    place = np.empty(len(first), dtype=np.int64)
    place[order] = np.arange(len(first)) % folds
    return np.asarray(place[of_row])


def frozen_evidence(prepared: PreparedData, positions: Ints, folds: Ints) -> FrozenEvidence:
    """The probe scores of the prepared rows at ``positions``; ``folds`` [n] are theirs."""
    examples: Any = prepared.examples.take(positions)
    features = pass_layers(prepared, examples)
    # A sentence of which no word is read is no example.
    with_words = np.arange(len(positions)) if len(examples) == len(positions) else examples.kept
    line_folds = folds[with_words][features.owner]
    label_type = "tags" if features.tags is not None else prepared.rows.columns.label_kind
    targets, classes = _targets(examples, features, label_type)
    layers, rows = [], []
    for name, states in features.states.items():
        predictions = ridge_out_of_fold(states, targets, line_folds).predictions
        if features.tags is not None:
            scores = _sentence_rows(features, len(examples), predictions, prepared.rows.names)
        else:
            truth: npt.NDArray[Any] = np.asarray(examples.labels) if classes is None else classes
            truth = targets[:, 0] if label_type == "number" else truth
            scores = score_rows(label_type, predictions, truth, 0.5)
        by_position = np.full(len(positions), np.nan)
        by_position[with_words] = scores
        rows.append(by_position)
        explained = h_score(states, classes) if classes is not None else None
        layers.append(
            LayerScore(name, float(np.mean(scores)), explained, log_evidence(states, targets))
        )
    layer_scores = [layer.score if np.isfinite(layer.score) else -np.inf for layer in layers]
    best = int(np.argmax(layer_scores))
    chosen_scores = out_of_fold_scores(np.stack(rows), folds)
    units = prepared.units[positions]
    return FrozenEvidence(tuple(layers), best, chosen_scores, units, features.rows_per_s)


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


def _targets(
    examples: LabelledExamples, features: LayerFeatures, label_type: str | None
) -> tuple[Floats, Ints | None]:
    """The targets of the probe [lines, C], and class indices [lines] if there are classes."""
    labels = features.tags if features.tags is not None else np.asarray(examples.labels)
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


def _sentence_rows(
    features: LayerFeatures, sentences: int, answers: Floats, names: Sequence[str]
) -> Floats:
    assert features.tags is not None
    predicted = np.unique(features.tags)[answers.argmax(axis=1)]
    counts = np.bincount(features.owner, minlength=sentences)
    entity_totals = entity_counts(features.tags, predicted, counts, TagTable.of(names))
    return entity_rows(entity_totals.reshape(len(counts), 3, -1).sum(axis=2))


def pass_layers(prepared: PreparedData, examples: Examples) -> LayerFeatures:
    """One pass of ``examples`` through the pretrained network, in evaluation mode."""
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


# Validation rows that are read, and updates before they are read again.
MAX_ROWS, FEW_UPDATES = 300, 10


@dataclass(frozen=True, slots=True)
class TextEvidence:
    """Bits per byte ``before`` any update and ``after`` ``steps`` updates. ``rows`` [validation
    rows] are those after, with the sign reversed, NaN for a row without a target token; ``units``
    say which of them are duplicates or in one group. ``perplexity`` (per token of the model) is
    that before any update."""

    before: float
    after: float
    steps: int
    perplexity: float
    rows: Floats
    units: Ints
    rows_per_s: float

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before,
            "after": self.after,
            "steps": self.steps,
            "perplexity": self.perplexity,
        }


def text_evidence(prepared: PreparedData, train: Ints, valid: Ints) -> TextEvidence:
    """Measured on at most 300 of the ``valid`` rows, the same for every model; ``train`` rows are
    used for the updates."""
    order = generator(prepared.recipe.seed, "rows of candidates").permutation(len(valid))
    sampled = np.sort(np.asarray(valid)[order[:MAX_ROWS]])
    settings = {"train.max_steps": FEW_UPDATES, "train.evaluations": 1, "control.policy": "off"}
    fitted = fit(prepared, train, sampled, settings)
    examples: Any = fitted.training_plan.valid
    tokenizer = prepared.loaded.tokenizer
    after = bits_per_byte_rows(examples, *fitted.measure(examples), tokenizer)
    observer = Observer(fitted.job.accelerator, fitted.job.task, alone=True)
    losses, outputs = observer.measure(fitted.base_network(), examples, np.arange(len(examples)))
    before = bits_per_byte_rows(examples, losses, outputs, tokenizer)
    counts = outputs[:, 0].astype(np.float64)
    mean_loss = float((losses * counts).sum() / max(counts.sum(), 1.0))
    return TextEvidence(
        before=-float(np.nanmean(before)),
        after=-float(np.nanmean(after)),
        steps=fitted.trained.last_step,
        perplexity=float(np.exp(min(mean_loss, 700.0))),
        rows=after,
        units=prepared.units[sampled],
        rows_per_s=len(examples) / max(observer.seconds, 1e-9),
    )


def bits_per_byte_rows(
    examples: EncodedTokens | EncodedPairs, losses: Floats, outputs: Floats, tokenizer: Any
) -> Floats:
    """Bits per byte of each row of the table, with the sign reversed: ``losses`` [examples] in nats
    per token, ``outputs`` [examples, 2] with the number of target tokens first. A row may have
    several examples, or none."""
    nats = losses * outputs[:, 0].astype(np.float64)
    # Which row of the table each example is of, and how many rows there are.
    row_of_example = np.asarray(
        examples.positions if hasattr(examples, "positions") else examples.kept
    )
    rows = len(examples.table_rows)
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in _target_ids(examples)]
    sizes = np.array([len(text.encode("utf-8")) for text in texts], dtype=np.float64)
    total_nats, bytes_ = np.zeros(rows), np.zeros(rows)
    np.add.at(total_nats, row_of_example, nats)
    np.add.at(bytes_, row_of_example, sizes)
    scored = np.isin(np.arange(rows), row_of_example) & (bytes_ > 0)
    row_bits = np.full(rows, np.nan)
    row_bits[scored] = -bits_rows(total_nats[scored], bytes_[scored])
    return row_bits


def _target_ids(examples: Any) -> list[list[int]]:
    if hasattr(examples, "target_ids"):
        ids, offsets = examples.target_ids, examples.target_offsets
        return [part.tolist() for part in np.split(ids, offsets[1:-1])]
    parts = np.split(examples.ids, examples.offsets[1:-1])
    masks = np.split(examples.targets, examples.offsets[1:-1])
    return [ids[mark].tolist() for ids, mark in zip(parts, masks, strict=True)]
