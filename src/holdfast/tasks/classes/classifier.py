"""What all classifiers share: listeners, saving, scoring and prediction."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from holdfast.contract.fit import (
    FittedModel,
    ScoringRequest,
    ScoringResult,
    SplitRows,
    TrainingPlan,
    plain_facts,
)
from holdfast.contract.inference import ClassPredictions, Scorer
from holdfast.contract.predictions import groups_of
from holdfast.contract.result import baseline_block, brief, class_columns, scores_block
from holdfast.core.records import Decision, Finding, Floats, Ints, Outputs, Scores, to_json
from holdfast.core.wording import percent_phrase
from holdfast.data.table import Table
from holdfast.methods.closed_form import HeadRefit
from holdfast.metrics import Metric
from holdfast.metrics.comparison import compare
from holdfast.metrics.reliability import Calibration, calibrate
from holdfast.metrics.score import score, score_out_of_fold
from holdfast.models.base import Network
from holdfast.models.encoders.general import TextNetwork
from holdfast.models.layers import BACKBONE
from holdfast.models.probes.head_fit import HeadType, fit_head
from holdfast.models.probes.probe import fit_probe
from holdfast.models.vision.vision import VisionClassifier
from holdfast.stats.temperature import losses_at
from holdfast.tasks.classes.baseline import (
    MAJORITY,
    PROBE,
    choose_baseline,
    majority_outputs,
    measured_probe,
)
from holdfast.tasks.classes.row_weights import scores_by_source
from holdfast.tasks.ensemble import NamedModel, Weights
from holdfast.tasks.hardest import hardest
from holdfast.tasks.lines import take_rows
from holdfast.training.task import labels_of

if TYPE_CHECKING:
    import torch

    from holdfast.models.base import LoadedModel
    from holdfast.tasks.classes.encoding import EncodedTexts

Answer = Callable[[Table], Outputs]
Forward = Callable[[Callable[..., Any], TrainingPlan, Table], Outputs]


def listeners(training_plan: TrainingPlan) -> tuple[HeadRefit, ...]:
    """The refitted head, which also keeps the linear-probe baseline."""
    seed, classes = training_plan.recipe.seed, len(training_plan.task.classes)
    head_kind: HeadType = training_plan.recipe.train.head or "both"
    refit = HeadRefit(
        partial(fit_head, classes=classes, seed=seed, head_type=head_kind),
        first=bool(training_plan.recipe.methods["probe_first"]),
        held_out=partial(measured_probe, classes=classes, seed=seed),
        moved=partial(fit_probe, classes=classes, seed=seed),
    )
    return (refit,)


def watched(
    metric: Metric | None, classes: tuple[str, ...]
) -> dict[str, Callable[[Outputs], float]]:
    """The user's metric as every evaluation computes it; accuracy is always computed."""
    if metric is None or metric.name == "accuracy":
        return {}

    def compute(outputs: Outputs) -> float:
        value = metric.compute(outputs, classes)
        return float("nan") if value is None else value

    return {metric.name: compute}


def save(folder: Path, fitted: FittedModel) -> dict[str, Any]:
    """Write the plain model with the temperature folded into its last layer."""
    calibration = calibrated(fitted)
    temperature = calibration.temperature
    tokenizer = fitted.training_plan.loaded.tokenizer
    classifier(fitted.network).cpu().save(folder, tokenizer, temperature=temperature)
    return {"temperature": temperature, "calibration": calibration}


def classifier(network: Network) -> TextNetwork | VisionClassifier:
    """The network of a classifier: its features can be read, and a temperature folded in on
    saving.
    """
    assert isinstance(network, TextNetwork | VisionClassifier)
    return network


def calibrated(fitted: FittedModel) -> Calibration:
    """The temperature of the best checkpoint, fitted to its logits of the validation rows."""
    training_plan = fitted.training_plan
    labels = labels_of(training_plan.valid)
    outputs = _outputs(training_plan.valid.rows, labels, fitted.valid_logits)
    grouped = replace(outputs, groups=groups_of(training_plan.splits.valid_rows.table))
    return calibrate(grouped, seed=fitted.recipe.seed)


def kept_temperature(fitted: FittedModel) -> float:
    """What the logits of the best checkpoint are divided by, wherever they are used."""
    return calibrated(fitted).temperature


M = TypeVar("M", bound=NamedModel)


@dataclass(frozen=True, slots=True)
class Tempered:
    """A network whose outputs are divided by a temperature, with the interface of any network."""

    network: Callable[..., Any]
    temperature: float = 1.0

    def __call__(self, **batch: torch.Tensor) -> Any:
        return self.network(**batch) / self.temperature


def score_classifier(request: ScoringRequest, answer: Answer, forward: Forward) -> ScoringResult:
    """Score the reloaded model (``answer``) on the test rows, and the baselines that were fitted on
    training rows.

    ``forward`` runs rows through any function from a batch to logits.
    """
    start = time.perf_counter()
    training_plan, table, temperature = (
        request.training_plan,
        request.table,
        request.saved["temperature"],
    )
    outer = request.outer
    if outer is None:
        outputs = answer(table)
        test = scores_block(_score(training_plan, outputs), request.opened_at)
    else:
        outputs = _outputs(table.column("row"), table.column("label"), outer.logits, table)
        fold_scores = _score(training_plan, outputs, outer.folds)
        test = {**scores_block(fold_scores), "out_of_fold": True, "folds": outer.folds}
    score_s = time.perf_counter() - start
    valid, probe = _other_rows(request, temperature)
    baseline, baseline_decision = _baseline(request, _probe(request, forward), table, outputs)
    blocks = {
        "classes": list(training_plan.task.classes),
        "test": test,
        "valid": _valid_block(request.fitted, valid),
        "train_probe": scores_block(_score(training_plan, probe)),
        "baseline": baseline,
        "hardest": hardest(outputs, texts_of(table), training_plan.task.classes),
        "model_facts": plain_facts(request.fitted, request.saved),
        "careless": None,
    }
    folds = outer.folds if outer else 0
    if sources := scores_by_source(outputs, table, training_plan.task.classes, folds):
        blocks["sources"] = sources
    seconds = {"score_s": score_s, "baseline_s": time.perf_counter() - start - score_s}
    decisions = (baseline_decision, request.saved["calibration"].decision)
    return ScoringResult(blocks, decisions, seconds, outputs=outputs)


def _baseline(
    request: ScoringRequest, probe: Answer, table: Table, outputs: Outputs
) -> tuple[dict[str, Any], Decision]:
    training_plan, folds = request.training_plan, request.fitted.job.out_of_fold
    labels, classes = labels_of(training_plan.train), training_plan.task.classes
    if request.outer is not None:
        on_test = {
            name: _outputs(outputs.rows, outputs.labels, logits, table)
            for name, logits in ((MAJORITY, request.outer.majority), (PROBE, request.outer.probe))
        }
    else:
        on_test = {MAJORITY: majority_outputs(labels, len(classes), outputs)}
    if training_plan.recipe.model.freeze == BACKBONE:
        # The probe's pass over the rows would cost as much as the score.
        because = "only the last layer is trained, so a linear probe is the same kind of model"
        selected = Decision("baseline", MAJORITY, f"{because} (model.freeze={BACKBONE})")
        on_test, against = {MAJORITY: on_test[MAJORITY]}, MAJORITY
    else:
        if request.outer is None:
            on_test[PROBE] = replace(probe(table), groups=outputs.groups)
        if folds is None or folds.probe is None:
            valid_probe = probe(training_plan.splits.valid_rows.table)
        else:
            valid_probe = _outputs(
                training_plan.valid.rows, labels_of(training_plan.valid), folds.probe
            )
        majority = majority_outputs(labels, len(classes), valid_probe)
        selected, against = choose_baseline({PROBE: valid_probe, MAJORITY: majority}), PROBE
    tests = {
        name: brief(
            score(o, classes)
            if request.outer is None
            else score_out_of_fold(o, classes, request.outer.folds)
        )
        for name, o in on_test.items()
    }
    comparison = compare(outputs, on_test[against], out_of_fold=request.outer is not None)
    return baseline_block(tests, selected.chosen, comparison), selected


def _probe(request: ScoringRequest, forward: Forward) -> Answer:
    logits = probe_network(request)
    return lambda table: forward(logits, request.training_plan, table)


def probe_network(request: ScoringRequest) -> Callable[..., Any]:
    """The untouched backbone with the linear probe as its head, in the training precision: from a
    tokenizer's batch to outputs [batch, …].

    A second copy of the model would need more memory than anything else in a run. This one
    therefore uses the weights that are already in memory.
    """
    job = request.fitted.job
    (refit,) = request.fitted.listeners
    assert refit.baseline is not None
    network = classifier(request.fitted.base_network(head=refit.baseline))

    def logits(**batch: torch.Tensor) -> torch.Tensor:
        batch = {name: value.to(job.accelerator.device) for name, value in batch.items()}
        with job.accelerator.autocast():
            features = network.features(**batch)
        answers: torch.Tensor = network.head(features.float())
        return answers.cpu()

    return logits


def _other_rows(request: ScoringRequest, temperature: float) -> tuple[Outputs, Outputs]:
    """Scores of validation rows and training sample by the restored best checkpoint."""
    training_plan = request.training_plan
    probe = training_plan.probe
    valid_logits = _valid_logits(request.fitted, temperature)
    _, probe_logits = request.fitted.measure(training_plan.train, probe)
    valid_both = _add_extra_features(
        request.fitted, valid_logits, training_plan.splits.valid_rows.table
    )
    valid_table = training_plan.splits.valid_rows.table
    valid = _outputs(
        training_plan.valid.rows, labels_of(training_plan.valid), valid_both, valid_table
    )
    labels = labels_of(training_plan.train)[probe]
    rows = training_plan.splits.train_rows.table.take(probe)
    probe_both = _add_extra_features(request.fitted, probe_logits / temperature, rows)
    train = _outputs(training_plan.train.rows[probe], labels, probe_both, rows)
    return valid, train


def tell(split_rows: SplitRows) -> dict[str, Any]:
    """Predictions of the best checkpoint for training or validation rows, calibrated."""
    fitted, table, temperature = (
        split_rows.fitted,
        split_rows.table,
        split_rows.saved["temperature"],
    )
    if split_rows.split == "valid":
        logits = _valid_logits(fitted, temperature)[split_rows.positions]
    else:
        logits = split_rows.measure()[1] / temperature
    both = _add_extra_features(fitted, logits, table)
    outputs = _outputs(table.column("row"), table.column("label"), both)
    return class_columns(outputs, fitted.training_plan.task.classes)


def _valid_logits(fitted: FittedModel, temperature: float) -> Floats:
    """Calibrated logits of the validation rows by the best checkpoint.

    With cross-fitting they are the folds' predictions, at the class rates to which the final
    network's last layer was moved.
    """
    if fitted.job.out_of_fold is None:
        return fitted.measure(fitted.training_plan.valid)[1] / temperature
    shift = fitted.rates.shift if fitted.rates and fitted.rates.is_moved else 0.0
    return np.asarray(fitted.valid_logits / temperature + shift)


def _add_extra_features(fitted: FittedModel, logits: Floats, table: Table) -> Floats:
    """Add the logits from the rows' feature columns to these calibrated logits."""
    layer = fitted.extra_features.layer if fitted.extra_features else None
    return logits if layer is None else layer.add(logits, table, fitted.training_plan.task.classes)


def _outputs(rows: Ints, labels: Ints, logits: Floats, table: Table | None = None) -> Outputs:
    """``table`` holds the rows; give it where their groups count."""
    groups = None if table is None else groups_of(table)
    return Outputs(rows, labels, logits, losses_at(logits, labels, 1.0), groups)


def _score(training_plan: TrainingPlan, outputs: Outputs, folds: int = 0) -> Scores:
    """``folds``: 0, or the number of the folds whose models predicted the rows."""
    classes, extra_metrics = training_plan.task.classes, training_plan.extra_metrics
    if folds:
        return score_out_of_fold(outputs, classes, folds, extra_metrics=extra_metrics)
    return score(outputs, classes, extra_metrics=extra_metrics)


def part_block(training_plan: TrainingPlan, plain: Outputs, both: Outputs) -> dict[str, Any]:
    """The score of the text part, and the paired difference of the full model to it."""
    part = score(plain, training_plan.task.classes)
    return {"test": brief(part), "comparison": to_json(compare(both, plain))}


def texts_of(table: Table) -> list[str]:
    """The texts of a table as they are displayed; a mark separates the two texts of a pair."""
    texts: list[str] = table.column("text")
    if not table.has_pairs:
        return texts
    return [f"{one} ⟂ {two}" for one, two in zip(texts, table.column("text_pair"), strict=True)]


def _valid_block(fitted: FittedModel, valid: Outputs) -> dict[str, Any]:
    """Scores of the validation rows. If none were set aside they are out of fold, with the number
    of folds and the comparison with the folds' linear probes."""
    folds, training_plan = fitted.job.out_of_fold, fitted.training_plan
    if folds is None:
        return scores_block(_score(training_plan, valid))
    block = scores_block(_score(training_plan, valid, folds.folds))
    block |= {"out_of_fold": True, "folds": folds.folds}
    if folds.probe is None or training_plan.recipe.model.freeze == BACKBONE:
        return block
    probe = replace(valid, logits=folds.probe, losses=losses_at(folds.probe, valid.labels, 1.0))
    scores = brief(_score(training_plan, probe, folds.folds))
    comparison = to_json(compare(valid, probe, out_of_fold=True))
    return {**block, "baseline": {"what": PROBE, "test": scores, "comparison": comparison}}


def class_answers(
    models: Sequence[M],
    answer: Callable[[M, Table], Outputs],
    table: Table,
    weights: Weights = None,
) -> ClassPredictions:
    """Predictions of one model, or of the mean of several models' probabilities (by ``weights``).

    The logits of a mean are its logarithms: their softmax is the mean.
    """
    if len(models) == 1:
        one = models[0]
        outputs = answer(one, table)
        return ClassPredictions(one.classes, outputs.probabilities, outputs)
    classes, mean = average(models, answer, table, weights)
    logits = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
    labels = np.asarray(table.column("label"))
    losses = np.where(labels >= 0, losses_at(logits, np.maximum(labels, 0), 1.0), np.nan)
    outputs = Outputs(table.column("row"), labels, logits, losses, groups_of(table))
    return ClassPredictions(classes, mean, outputs)


def scorer(answers: ClassPredictions, metrics: tuple[Metric, ...] = ()) -> Scorer:
    """A function that scores the predictions of labelled rows: all rows, or those at given
    positions.

    ``metrics`` are the task's own.
    """

    def score_some(positions: Ints | None = None) -> Scores:
        return score(take_rows(answers.outputs, positions), answers.names, extra_metrics=metrics)

    return score_some


def average(
    saved: Sequence[M], answer: Callable[[M, Table], Outputs], table: Table, weights: Weights = None
) -> tuple[tuple[str, ...], Floats]:
    """The mean of several models' probabilities [n, classes].

    ``weights`` sum to 1; without them all models count equally. The models may order their classes
    differently.
    """
    classes: tuple[str, ...] = ()
    total: Floats = np.zeros((len(table), 1))
    for place, one in enumerate(saved):
        classes = classes or one.classes
        order = [one.classes.index(name) for name in classes]
        probabilities = answer(one, _unknown(table)).probabilities[:, order]
        total = total + (probabilities if weights is None else weights[place] * probabilities)
    return classes, total / len(saved) if weights is None else total


def _unknown(table: Table) -> Table:
    """The rows without their labels: class indices of one model mean nothing to another."""
    if not (table.column("label") >= 0).any():
        return table
    rows = table.rows.remove_columns("label").add_column("label", [-1] * len(table))
    return replace(table, rows=rows)


def truncation(examples: EncodedTexts, loaded: LoadedModel, split: str) -> tuple[Finding, ...]:
    count = int(examples.cut.sum())
    share = count / max(1, len(examples))
    if not count:
        return ()
    return (
        Finding(
            "truncated_texts",
            "warn" if share > 0.05 else "info",
            min(1.0, share),
            count,
            (),
            f"{count:,} {split} texts ({percent_phrase(share, 1)}) are longer than "
            f"{loaded.max_length} tokens; the rest of each is not read",
            "Raise model.max_length if the model allows it, or shorten the texts.",
        ),
    )
