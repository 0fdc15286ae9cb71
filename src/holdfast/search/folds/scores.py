"""Combined scores of the folds of a cross-validation: metrics with intervals, verdicts, spread.

For classes, the interval is that of the pooled rows, with a reduced effective number of rows and
shifted to a model trained on all rows (``metrics/score.py``). For every other task it is the
corrected resampled t of the folds' scores (``stats/folds.py``). ``benchmarks/cross_validation.py``
measures how often each covers the true value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.contract.fit import FittedModel
from holdfast.contract.predictions import groups_of
from holdfast.contract.result import baseline_block
from holdfast.core.metric_names import metric_name
from holdfast.core.records import Decision, Estimate, Floats, Outputs, to_json
from holdfast.core.tasks import CLASSIFICATION_TASKS
from holdfast.core.wording import count_phrase, seconds_phrase
from holdfast.metrics.comparison import compare
from holdfast.metrics.score import RATE_EFFECT, RATES, score_out_of_fold
from holdfast.metrics.text_scores import OVERLAPS
from holdfast.report.numbers import number
from holdfast.report.view.score import headline_metric
from holdfast.search.context import SearchContext, TrialFold
from holdfast.search.job import FitResult
from holdfast.stats.folds import corrected_t, nested
from holdfast.stats.temperature import losses_at
from holdfast.tasks.classes.baseline import PROBE

if TYPE_CHECKING:
    import pyarrow as pa


Pairs = Sequence[tuple[TrialFold, FitResult]]
LEVEL = 0.95
NO_SPREAD = "no interval: all folds have the same value"
NOT_FINITE = "no interval: the value of a fold is not finite"
ENDS = ("value", "low", "high")
# Metrics of ours that are shares, by how their names begin; what else there is begins at 0.
SHARES = (*RATES, *OVERLAPS, "balanced_accuracy", "entity_", "token_accuracy", "ece")
ROWS = "pooled rows"
CORRECTED = "corrected resampled t"
FOR = (
    "for models trained in this way on all rows, such as the saved one: the folds' models had "
    "fewer rows, so this usually underestimates the saved model slightly, and does not measure it"
)


def cv_block(
    context: SearchContext, pairs: Pairs, how: str, fitted: FittedModel, seconds: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """``cv`` of ``result.json``, and ``valid``, which holds the out-of-fold scores."""
    repeats = len({one.repeat for one, _ in pairs})
    folds = len(pairs) // repeats
    metrics = _estimates(context, pairs, fitted, folds)
    rows = sum(len(one.held_out) for one, _ in pairs if one.repeat == 0)
    headline = headline_metric(metrics)
    block = {
        "folds": folds,
        "repeats": repeats,
        "nested": context.recipe.cv.nested,
        "rows": len(context.rows),
        "answered": rows,
        "how": how,
        "metric": headline,
        "metrics": metrics,
        "commonest": _majority_share(context, pairs, headline),
        "interval": {"of": FOR, "ways": _interval_methods(len(pairs), folds)},
        "per_fold": [_fold_row(one, done) for one, done in pairs],
        "spread": _score_spread(pairs, repeats),
        "verdicts": verdict_counts([done.verdict for _, done in pairs]),
        "final": {
            "rows": len(fitted.training_plan.splits.train_rows),
            "step": fitted.trained.best_step,
            "planned": fitted.job.plan.steps,
            "shares": [round(done.best_step / max(1, done.planned), 4) for _, done in pairs],
            "because": fitted.checkpoint_decision.because,
        },
        "seconds": round(seconds, 3),
    }
    if baseline := _probe_baseline(context, pairs, folds):
        block["baseline"] = baseline
    valid = {
        "n": rows,
        "metrics": {
            name: {key: one[key] for key in one if key not in ("corrected_t", "nested")}
            for name, one in metrics.items()
        },
        "out_of_fold": True,
        "folds": folds,
    }
    return block, valid


def _estimates(
    context: SearchContext, pairs: Pairs, fitted: FittedModel, folds: int
) -> dict[str, Any]:
    """Each metric with its interval, the method of the interval, and the corrected resampled t."""
    pooled = _pooled_estimates(context, pairs, fitted)
    metrics: dict[str, Any] = {}
    for name, by_folds in _fold_estimates(pairs, _bounds_of(fitted)).items():
        why = {"why": by_folds.why} if by_folds.why else {}
        corrected = {"low": by_folds.low, "high": by_folds.high, "level": LEVEL, **why}
        estimate, method = (pooled[name], ROWS) if name in pooled else (by_folds, CORRECTED)
        metrics[name] = {**to_json(estimate), "how": method, "corrected_t": to_json(corrected)}
    if context.recipe.cv.nested:
        for name, block in _nested_estimates(pairs, folds).items():
            metrics[name]["nested"] = block
    return metrics


def metrics_of_folds(
    context: SearchContext, pairs: Pairs, fitted: FittedModel
) -> dict[str, Estimate]:
    """Each metric with the interval that ``cv`` reports: over the rows, or over the folds."""
    return _fold_estimates(pairs, _bounds_of(fitted)) | _pooled_estimates(context, pairs, fitted)


def _bounds_of(fitted: FittedModel) -> dict[str, tuple[float, float]]:
    """The range of each metric of the user's."""
    return {one.name: (one.low, one.high) for one in fitted.training_plan.extra_metrics}


def _interval_methods(fits: int, folds: int) -> dict[str, str]:
    """How the intervals are computed."""
    return {
        ROWS: f"each row counts once, as 1 ÷ {RATE_EFFECT:g} of a new row (for the loss as "
        f"1 ÷ {1 + folds / (folds - 1):.2f}), because the folds share training rows",
        CORRECTED: f"the spread of {fits} folds' scores, widened for shared training rows "
        "(Nadeau and Bengio 2003)",
    }


def _majority_share(context: SearchContext, pairs: Pairs, metric: str) -> float | None:
    """The share of the most frequent class among the predicted rows, which is the accuracy of
    always predicting it. ``None`` if predictions are not classes."""
    if metric != "accuracy" or context.recipe.task not in CLASSIFICATION_TASKS:
        return None
    held_out = np.concatenate([one.held_out for one, _ in pairs if one.repeat == 0])
    _, counts = np.unique(
        np.asarray(context.rows.take(held_out).column("label"), str), return_counts=True
    )
    return float(counts.max() / len(held_out))


def fold_decision(
    fold: TrialFold, result: FitResult, folds: int, part: str, left: float | None
) -> Decision:
    """A finished fold, in a line; ``part`` says which part of its rows it was trained on, and
    ``left`` is an estimate of the seconds that all other fits take, where one follows another."""
    scores = result.held_out_scores.scores["metrics"]
    name = headline_metric(scores)
    value = scores[name]["value"]
    value_text = "undefined" if value is None else number(value, name)
    fold_number = (
        fold.number + 1 if fold.repeat == 0 else f"{fold.number + 1}, repeat {fold.repeat + 1}"
    )
    because = (
        f"scored on {count_phrase(len(fold.held_out), 'held-out row')}; best checkpoint: step "
        f"{result.best_step} of {result.planned}; {result.seconds:.0f} s; "
        f"{result.verdict['label']}"
    )
    if left is not None:
        because += f"; about {seconds_phrase(left)} left"
    title = f"fold {fold_number}" if fold.repeat else f"fold {fold_number} of {folds}"
    title = f"{title}, {part}" if part else title
    return Decision(title, f"{metric_name(name)} {value_text}", because, prominent=True)


def folds_table(pairs: Pairs) -> pa.Table:
    """``folds.parquet``: the columns of ``predictions.parquet`` with ``fold`` and ``repeat``."""
    import pyarrow as pa

    parts = []
    for one, done in pairs:
        predictions = done.held_out_scores.predictions
        for index, (name, value) in enumerate((("fold", one.number), ("repeat", one.repeat)), 1):
            predictions = predictions.add_column(
                index, name, pa.array([value] * len(predictions), pa.int64())
            )
        parts.append(predictions)
    return pa.concat_tables(parts)


def verdict_counts(fold_verdicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many folds have which verdict, and a sentence about them."""
    counts = Counter(str(one["label"]) for one in fold_verdicts)
    parts: list[str] = []
    for label, count in counts.most_common():
        since_steps = [one["since_step"] for one in fold_verdicts if one["label"] == label]
        known = [step for step in since_steps if step]
        word = label.replace("_", " ")
        from_step = f" since step {int(np.median(known))}" if known else ""
        median = " (the median)" if len(set(known)) > 1 else ""
        count_text = (
            f"{count} of {count_phrase(len(fold_verdicts), 'fold')}" if not parts else str(count)
        )
        parts.append(f"{count_text} {word}{from_step}{median}")
    return {"sentence": ", ".join(parts) + ".", "labels": dict(counts.most_common())}


def _metrics_by_fold(pairs: Pairs) -> dict[str, list[Mapping[str, Any]]]:
    """Each metric in every fold."""
    blocks = [done.held_out_scores.scores["metrics"] for _, done in pairs]
    names = [name for name in blocks[0] if all(name in one for one in blocks)]
    return {name: [one[name] for one in blocks] for name in names}


def _complete_values(pairs: Pairs) -> dict[str, list[float]]:
    """Each metric's value in every fold, if all folds have one."""
    values_by_metric = {
        name: [one["value"] for one in folds] for name, folds in _metrics_by_fold(pairs).items()
    }
    return {name: values for name, values in values_by_metric.items() if None not in values}


def _fold_estimates(
    pairs: Pairs, bounds: Mapping[str, tuple[float, float]] = MappingProxyType({})
) -> dict[str, Estimate]:
    """Every metric as the mean over the folds, with the corrected resampled t, clipped to the range
    of the metric; ``bounds`` are those of a user's metric."""
    held_out_rows = float(np.mean([len(one.held_out) for one, _ in pairs]))
    training_rows = float(np.mean([len(one.train) + len(one.valid) for one, _ in pairs]))
    estimates, values = {}, _complete_values(pairs)
    for name, folds in _metrics_by_fold(pairs).items():
        if name not in values:
            missing = [one.get("why") or "no reason given" for one in folds if one["value"] is None]
            why = f"undefined in {len(missing)} of {len(folds)} folds: {missing[0]}"
            estimates[name] = Estimate(None, why=why)
            continue
        t = corrected_t(np.array(values[name]), training_rows, held_out_rows, LEVEL)
        if math.isnan(t.low):
            why = NO_SPREAD if math.isfinite(t.value) else NOT_FINITE
            estimates[name] = Estimate(t.value, level=LEVEL, why=why)
            continue
        low, high = np.clip((t.low, t.high), *(bounds.get(name) or _bounds(name))).tolist()
        estimates[name] = Estimate(t.value, low, high, LEVEL)
    return estimates


def _bounds(name: str) -> tuple[float, float]:
    """The smallest and the largest possible value of a built-in metric: t ignores them, and with
    three folds it is wide."""
    if name in ("r2", "spearman", "mcc"):
        return (-math.inf if name == "r2" else -1.0), 1.0
    return 0.0, 1.0 if name.startswith(SHARES) else math.inf


def _pooled_estimates(
    context: SearchContext, pairs: Pairs, fitted: FittedModel
) -> dict[str, Estimate]:
    """For classes: the scores of all rows at once, per repeat, and then their mean."""
    rows, training_plan = context.rows, fitted.training_plan
    label_sets = {"labels", "tags"} & set(rows.rows.column_names)
    if not rows.columns.one_class or label_sets or not _has_probabilities(pairs):
        return {}
    by_repeat = []
    for repeat in sorted({one.repeat for one, _ in pairs}):
        results = [done for one, done in pairs if one.repeat == repeat]
        outputs, seed = _outputs(context, results), fitted.recipe.seed
        scores = score_out_of_fold(
            outputs,
            rows.classes,
            len(results),
            seed=seed,
            extra_metrics=training_plan.extra_metrics,
        )
        by_repeat.append(scores)
    return {
        name: _mean_estimate([scores.metrics[name] for scores in by_repeat])
        for name in by_repeat[0].metrics
        if all(name in scores.metrics for scores in by_repeat)
    }


def _outputs(
    context: SearchContext, folds: Sequence[FitResult], logits_of_folds: Sequence[Floats] = ()
) -> Outputs:
    """The folds' predictions as the outputs of one model; or other logits for the same rows."""
    import pyarrow as pa

    columns = pa.concat_tables([done.held_out_scores.predictions for done in folds])
    order = np.argsort(columns["row"].to_numpy(), kind="stable")
    columns = columns.take(pa.array(order))
    rows = columns["row"].to_numpy()
    table = context.rows.take(context.rows.positions_of(rows))
    labels = np.asarray(table.column("label"))
    if logits_of_folds:
        logits = np.concatenate(logits_of_folds)[order].astype(np.float64)
    else:
        probabilities = np.array(columns["probabilities"].to_pylist(), dtype=np.float64)
        logits = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return Outputs(rows, labels, logits, losses_at(logits, labels, 1.0), groups_of(table))


def _probe_baseline(context: SearchContext, pairs: Pairs, folds: int) -> dict[str, Any]:
    """The linear probes of the folds as a baseline: their scores, and the paired difference, each
    the mean over the repeats; empty where a fold has none."""
    probes = [p for _, done in pairs if (p := done.held_out_scores.probe) is not None]
    if len(probes) < len(pairs) or not _has_probabilities(pairs):
        return {}
    scores, comparisons = [], []
    for repeat in sorted({one.repeat for one, _ in pairs}):
        results = [done for one, done in pairs if one.repeat == repeat]
        logits = [p for (one, _), p in zip(pairs, probes, strict=True) if one.repeat == repeat]
        model, probe = _outputs(context, results), _outputs(context, results, logits)
        comparisons.append(compare(model, probe, out_of_fold=True))
        scores.append(score_out_of_fold(probe, context.rows.classes, folds))
    metrics = {
        name: to_json(_mean_estimate([one.metrics[name] for one in scores]))
        for name in scores[0].metrics
        if all(name in one.metrics for one in scores)
    }
    difference = _mean_estimate([one["difference"] for one in comparisons])
    because = str(comparisons[0]["because"])
    if len(comparisons) > 1:
        because = (
            f"The difference is the mean of {len(comparisons)} repeats. In the first, "
            f"{because[0].lower()}{because[1:]}"
        )
    comparison = {**comparisons[0], "difference": difference, "because": because}
    return baseline_block({PROBE: {"n": scores[0].n, "metrics": metrics}}, PROBE, comparison)


def _has_probabilities(pairs: Pairs) -> bool:
    return "probabilities" in pairs[0][1].held_out_scores.predictions.column_names


def _mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """One estimate, or the mean over several repeats; undefined if one of them is."""
    first = estimates[0]
    if len(estimates) == 1 or any(one.value is None for one in estimates):
        return first

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if len(known) == len(values) else None

    value, low, high = (mean([getattr(one, name) for one in estimates]) for name in ENDS)
    return replace(first, value=value, low=low, high=high)


def _nested_estimates(pairs: Pairs, folds: int) -> dict[str, Any]:
    """The intervals of nested cross-validation, from the inner folds in ``FitResult``. The inner
    folds chose the checkpoint by the same losses, which are therefore too good by the selection
    gain; the value is shifted by a part of it towards the worse."""
    if folds < 3:
        return {}
    outer = [done.held_out_scores.losses for _, done in pairs]
    estimates = {"loss": nested(outer, [done.losses for _, done in pairs], folds)}
    outer_correct: list[Floats] = []
    for _, done in pairs:
        columns = done.held_out_scores.predictions
        labels, predicted = (columns[name].to_pylist() for name in ("label", "prediction"))
        matches = [a == b for a, b in zip(labels, predicted, strict=True)]
        outer_correct.append(np.array(matches, dtype=np.float64))
    inner = [done.correct for _, done in pairs if done.correct is not None]
    if len(inner) == len(outer_correct):
        estimates["accuracy"] = nested(outer_correct, inner, folds)
    return {
        name: to_json({"value": one.value, "low": one.low, "high": one.high, "level": LEVEL})
        for name, one in estimates.items()
    }


def _fold_row(fold: TrialFold, result: FitResult) -> dict[str, Any]:
    return {
        "fold": fold.number,
        "repeat": fold.repeat,
        "n": len(fold.held_out),
        "train": len(fold.train),
        "valid": len(fold.valid),
        "metrics": result.held_out_scores.scores["metrics"],
        "verdict": result.verdict,
        "best_step": result.best_step,
        "last_step": result.last_step,
        "planned_steps": result.planned,
        "stopped_because": result.ended,
        "seconds": round(result.seconds, 3),
    }


def _score_spread(pairs: Pairs, repeats: int) -> dict[str, Any]:
    """The spread of the folds' scores, and the means of repeats, if there are several."""
    spreads: dict[str, Any] = {}
    for name, values in _complete_values(pairs).items():
        by_repeat = np.array(values).reshape(repeats, -1).mean(axis=1)
        spreads[name] = {
            "folds": {"sd": _sd(values), "low": min(values), "high": max(values)},
            "repeats": {"sd": _sd(by_repeat.tolist()), "values": by_repeat.tolist()},
        }
    return spreads


def _sd(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
