"""What the folds of a cross-validation say together: metrics with intervals, verdicts, spread.

The interval of a class's metrics is that of the pooled rows, counted as fewer and moved up to all
rows (``metrics/score.py``); of every other task it is the corrected resampled t of the
folds' scores (``stats/folds.py``). Which holds how often is in ``benchmarks/cross_validation.py``.
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
from holdfast.core.records import Decision, Estimate, Floats, Outputs, to_json
from holdfast.core.tasks import CLASSIFIERS
from holdfast.core.wording import counted
from holdfast.metrics.score import RATE_EFFECT, RATES, score_out_of_fold
from holdfast.metrics.text_scores import OVERLAPS
from holdfast.report.numbers import metric_name, number
from holdfast.report.view.honest import headline_metric
from holdfast.search.bench import Bench, TrialFold
from holdfast.search.job import FitResult
from holdfast.stats.folds import corrected_t, nested
from holdfast.stats.temperature import losses_at

if TYPE_CHECKING:
    import pyarrow as pa


Pairs = Sequence[tuple[TrialFold, FitResult]]
LEVEL = 0.95
ENDS = ("value", "low", "high")
# Metrics of ours that are shares, by how their names begin; what else there is begins at 0.
SHARES = (*RATES, *OVERLAPS, "balanced_accuracy", "entity_", "token_accuracy", "ece")
ROWS = "pooled rows"
CORRECTED = "corrected resampled t"
FOR = (
    "for a model made in this way from all rows, of which the saved one is one: the folds' models "
    "had fewer rows, so it is a careful guess about the saved model and no measurement of it"
)


def cv_block(
    bench: Bench, pairs: Pairs, how: str, fitted: FittedModel, seconds: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """``cv`` of ``result.json``, and ``valid``, which says what is known of rows out of fold."""
    repeats = len({one.repeat for one, _ in pairs})
    folds = len(pairs) // repeats
    metrics = _estimates(bench, pairs, fitted, folds)
    rows = sum(len(one.held_out) for one, _ in pairs if one.repeat == 0)
    headline = headline_metric(metrics)
    block = {
        "folds": folds,
        "repeats": repeats,
        "nested": bench.recipe.cv.nested,
        "rows": len(bench.rows),
        "answered": rows,
        "how": how,
        "metric": headline,
        "metrics": metrics,
        "commonest": _commonest(bench, pairs, headline),
        "interval": {"of": FOR, "ways": _ways(len(pairs), folds)},
        "per_fold": [_per_fold(one, done) for one, done in pairs],
        "spread": _spread(pairs, repeats),
        "verdicts": verdicts([done.verdict for _, done in pairs]),
        "final": {
            "rows": len(fitted.ready.sides.train_rows),
            "step": fitted.trained.best_step,
            "planned": fitted.job.plan.steps,
            "shares": [round(done.best_step / max(1, done.planned), 4) for _, done in pairs],
            "because": fitted.kept.because,
        },
        "seconds": round(seconds, 3),
    }
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


def _estimates(bench: Bench, pairs: Pairs, fitted: FittedModel, folds: int) -> dict[str, Any]:
    """Each metric with its interval, how that came about, and the corrected resampled t."""
    ready = fitted.ready
    own = {one.name: (one.low, one.high) for one in ready.own_metrics}
    pooled = _pooled(bench, pairs, fitted)
    metrics: dict[str, Any] = {}
    for name, found in _by_folds(pairs, own).items():
        why = {"why": found.why} if found.why else {}
        t = {"low": found.low, "high": found.high, "level": LEVEL, **why}
        chosen, way = (pooled[name], ROWS) if name in pooled else (found, CORRECTED)
        metrics[name] = {**to_json(chosen), "how": way, "corrected_t": to_json(t)}
    if bench.recipe.cv.nested:
        for name, block in _nested(pairs, folds).items():
            metrics[name]["nested"] = block
    return metrics


def _ways(fits: int, folds: int) -> dict[str, str]:
    """How the intervals come about."""
    return {
        ROWS: f"each row counts once, as 1 ÷ {RATE_EFFECT:g} of a fresh one (of the loss as "
        f"1 ÷ {1 + folds / (folds - 1):.2f}), since folds share rows",
        CORRECTED: f"the spread of {fits} folds' scores, widened for the rows that they share "
        "(Nadeau and Bengio 2003)",
    }


def _commonest(bench: Bench, pairs: Pairs, metric: str) -> float | None:
    """The share of the rows that were answered which have their commonest class: what guessing
    would score. ``None`` where an answer is none of a row's classes."""
    if metric != "accuracy" or bench.recipe.task not in CLASSIFIERS:
        return None
    held = np.concatenate([one.held_out for one, _ in pairs if one.repeat == 0])
    _, counts = np.unique(
        np.asarray(bench.rows.take(held).column("label"), str), return_counts=True
    )
    return float(counts.max() / len(held))


def told_of_fold(one: TrialFold, done: FitResult, folds: int) -> Decision:
    """A fold that is done, in a line."""
    scores = done.held_out_scores.scores["metrics"]
    name = headline_metric(scores)
    value = scores[name]["value"]
    shown = "undefined" if value is None else number(value, name)
    at = one.number + 1 if one.repeat == 0 else f"{one.number + 1}, repeat {one.repeat + 1}"
    because = (
        f"{counted(len(one.held_out), 'row')} that chose nothing of it; kept the state of step "
        f"{done.best_step} of {done.planned}, in {done.seconds:.0f} s; {done.verdict['label']}"
    )
    whole = f"fold {at}" if one.repeat else f"fold {at} of {folds}"
    return Decision(whole, f"{metric_name(name)} {shown}", because, prominent=True)


def folds_table(pairs: Pairs) -> pa.Table:
    """``folds.parquet``: the columns of ``predictions.parquet`` with ``fold`` and ``repeat``."""
    import pyarrow as pa

    parts = []
    for one, done in pairs:
        made = done.held_out_scores.answers
        for at, (name, value) in enumerate((("fold", one.number), ("repeat", one.repeat)), 1):
            made = made.add_column(at, name, pa.array([value] * len(made), pa.int64()))
        parts.append(made)
    return pa.concat_tables(parts)


def verdicts(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How many folds have which verdict, and in a sentence."""
    counts = Counter(str(one["label"]) for one in found)
    parts: list[str] = []
    for label, count in counts.most_common():
        since = [one["since_step"] for one in found if one["label"] == label]
        known = [step for step in since if step]
        word = label.replace("_", " ")
        at = f" from step {int(np.median(known))} on" if known else ""
        median = " (the median)" if len(set(known)) > 1 else ""
        whole = f"{count} of {counted(len(found), 'fold')}" if not parts else str(count)
        parts.append(f"{whole} {word}{at}{median}")
    return {"sentence": ", ".join(parts) + ".", "labels": dict(counts.most_common())}


def _metrics(pairs: Pairs) -> dict[str, list[Mapping[str, Any]]]:
    """Each metric in every fold."""
    blocks = [done.held_out_scores.scores["metrics"] for _, done in pairs]
    names = [name for name in blocks[0] if all(name in one for one in blocks)]
    return {name: [one[name] for one in blocks] for name in names}


def _values(pairs: Pairs) -> dict[str, list[float]]:
    """Each metric's value in every fold, where all have one."""
    found = {name: [one["value"] for one in folds] for name, folds in _metrics(pairs).items()}
    return {name: values for name, values in found.items() if None not in values}


def _by_folds(
    pairs: Pairs, ends: Mapping[str, tuple[float, float]] = MappingProxyType({})
) -> dict[str, Estimate]:
    """Every metric as the mean over the folds, with the corrected resampled t, within what the
    metric can be; ``ends`` are those of a user's own."""
    held = float(np.mean([len(one.held_out) for one, _ in pairs]))
    learned = float(np.mean([len(one.train) + len(one.valid) for one, _ in pairs]))
    found, values = {}, _values(pairs)
    for name, folds in _metrics(pairs).items():
        if name not in values:
            none = [one.get("why") or "no reason given" for one in folds if one["value"] is None]
            why = f"none in {len(none)} of {len(folds)} folds: {none[0]}"
            found[name] = Estimate(None, why=why)
            continue
        t = corrected_t(np.array(values[name]), learned, held, LEVEL)
        low, high = np.clip((t.low, t.high), *(ends.get(name) or _ends(name))).tolist()
        found[name] = Estimate(t.value, low, high, LEVEL)
    return found


def _ends(name: str) -> tuple[float, float]:
    """The least and the most that a metric of ours can be: t knows nothing of them, and of three
    folds is wide."""
    if name in ("r2", "spearman", "mcc"):
        return (-math.inf if name == "r2" else -1.0), 1.0
    return 0.0, 1.0 if name.startswith(SHARES) else math.inf


def _pooled(bench: Bench, pairs: Pairs, fitted: FittedModel) -> dict[str, Estimate]:
    """Of classes the scores of all rows at once, each repeat by itself, and then their mean."""
    rows, ready = bench.rows, fitted.ready
    several = {"labels", "tags"} & set(rows.rows.column_names)
    chances = "probabilities" in pairs[0][1].held_out_scores.answers.column_names
    if not rows.columns.one_class or several or not chances:
        return {}
    made = []
    for repeat in sorted({one.repeat for one, _ in pairs}):
        some = [done for one, done in pairs if one.repeat == repeat]
        outputs, seed = _outputs(bench, some), fitted.recipe.seed
        scores = score_out_of_fold(
            outputs, rows.classes, len(some), seed=seed, extra_metrics=ready.own_metrics
        )
        made.append(scores)
    return {
        name: _mean([scores.metrics[name] for scores in made])
        for name in made[0].metrics
        if all(name in scores.metrics for scores in made)
    }


def _outputs(bench: Bench, folds: Sequence[FitResult]) -> Outputs:
    """What the folds said, as the outputs of one model."""
    import pyarrow as pa

    columns = pa.concat_tables([done.held_out_scores.answers for done in folds])
    order = np.argsort(columns["row"].to_numpy(), kind="stable")
    columns = columns.take(pa.array(order))
    rows = columns["row"].to_numpy()
    table = bench.rows.take(bench.rows.places(rows))
    labels = np.asarray(table.column("label"))
    chances = np.array(columns["probabilities"].to_pylist(), dtype=np.float64)
    logits = np.log(np.maximum(chances, np.finfo(np.float64).tiny))
    return Outputs(rows, labels, logits, losses_at(logits, labels, 1.0), groups_of(table))


def _mean(found: Sequence[Estimate]) -> Estimate:
    """One estimate, or the mean of those of several repeats; undefined where one is."""
    first = found[0]
    if len(found) == 1 or any(one.value is None for one in found):
        return first

    def mean(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if len(known) == len(values) else None

    value, low, high = (mean([getattr(one, name) for one in found]) for name in ENDS)
    return replace(first, value=value, low=low, high=high)


def _nested(pairs: Pairs, folds: int) -> dict[str, Any]:
    """Nested cross-validation's intervals: the folds within each fold stand in ``FitResult``.
    They chose the state by the same losses, which are therefore too good by what choosing gains:
    that moves the value a part of it towards the worse."""
    if folds < 3:
        return {}
    outer = [done.held_out_scores.losses for _, done in pairs]
    found = {"loss": nested(outer, [done.losses for _, done in pairs], folds)}
    right: list[Floats] = []
    for _, done in pairs:
        columns = done.held_out_scores.answers
        given, said = (columns[name].to_pylist() for name in ("label", "prediction"))
        hits = [a == b for a, b in zip(given, said, strict=True)]
        right.append(np.array(hits, dtype=np.float64))
    inner = [done.correct for _, done in pairs if done.correct is not None]
    if len(inner) == len(right):
        found["accuracy"] = nested(right, inner, folds)
    return {
        name: to_json({"value": one.value, "low": one.low, "high": one.high, "level": LEVEL})
        for name, one in found.items()
    }


def _per_fold(one: TrialFold, done: FitResult) -> dict[str, Any]:
    return {
        "fold": one.number,
        "repeat": one.repeat,
        "n": len(one.held_out),
        "train": len(one.train),
        "valid": len(one.valid),
        "metrics": done.held_out_scores.scores["metrics"],
        "verdict": done.verdict,
        "best_step": done.best_step,
        "last_step": done.last_step,
        "planned_steps": done.planned,
        "stopped_because": done.ended,
        "seconds": round(done.seconds, 3),
    }


def _spread(pairs: Pairs, repeats: int) -> dict[str, Any]:
    """How far the folds' scores lie apart, and the means of repeats, where there are some."""
    found: dict[str, Any] = {}
    for name, values in _values(pairs).items():
        by_repeat = np.array(values).reshape(repeats, -1).mean(axis=1)
        found[name] = {
            "folds": {"sd": _sd(values), "low": min(values), "high": max(values)},
            "repeats": {"sd": _sd(by_repeat.tolist()), "values": by_repeat.tolist()},
        }
    return found


def _sd(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) if len(values) > 1 else None
