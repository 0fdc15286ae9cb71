"""Score finished runs on other rows, or predict with one or several of them.

The score on other rows is compared with the run's own test score by a two-sample test of the row
scores. If the two differ, possible reasons are checked in the data; every check is reported,
whether it applies or not.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from holdfast.analyses.ensemble import ensemble_join
from holdfast.analyses.row_scores import (
    RowScores,
    compare_scores,
    comparison_block,
    is_correct,
    rate_metric,
)
from holdfast.analyses.row_texts import labels_of_rows, read_texts
from holdfast.analyses.slices.conditions import RowFacts, weak_slices
from holdfast.analyses.threshold.analysis import answered_block
from holdfast.contract.advice import advising
from holdfast.contract.inference import Data, InferenceOptions, within_limits
from holdfast.contract.predictions import (
    group_codes_of,
    groups_of,
    losses_of,
    stored_groups_of,
    tokens_of,
    unit_counts,
)
from holdfast.core.decisions import notify, stage
from holdfast.core.errors import HoldfastError, RecipeError, RunError
from holdfast.core.records import Estimate, Floats, Ints
from holdfast.core.run_files import read_result
from holdfast.core.tasks import GENERATIVE_TASKS
from holdfast.core.wording import p_value_phrase
from holdfast.data.clean import named_groups
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.data.texts.evaluation_tasks import EvaluationTask, read_task
from holdfast.models.compute.device import best_device
from holdfast.monitor.confirmation import ALPHA, METRIC_NAMES, RATE_METRICS
from holdfast.quality.two_samples import proportions_p_value
from holdfast.runs.finished_run import FinishedRun
from holdfast.runs.known_rows import NO_SPLIT, KnownRows, find_known_rows
from holdfast.runs.prediction_file import NameSlices, Predicted
from holdfast.runs.predictor import Predictor
from holdfast.runs.threshold import ThresholdRule
from holdfast.runs.untuned import untuned_predictor
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.intervals import wilson
from holdfast.stats.paired_tests import paired_t
from holdfast.stats.two_samples import BY_GROUPS, NO_SPREAD, TwoSamples, holm, two_samples
from holdfast.tasks.generation.base import GenerationPredictor
from holdfast.tasks.generation.general_tasks import compare_tasks
from holdfast.tasks.lm.answers import CausalLMPredictor
from holdfast.tasks.lm.evaluation_tasks import Bools, right_answers

if TYPE_CHECKING:
    from holdfast.analyses.ensemble import EnsembleModel


def evaluate(
    runs: Path | Sequence[Path],
    data: str,
    options: InferenceOptions | None = None,
    ensemble: str = "average",
    *,
    start: bool = False,
) -> dict[str, Any]:
    """A ``test`` block for the labelled rows of ``data``, scored by the saved model of a run, or by
    several as an ``ensemble``; see ``evaluation_block``. A YAML file is an evaluation task; see
    ``task_block``."""
    # A wrong name is reported before the model is loaded, which takes seconds.
    refuse_missing(data)
    if data.endswith((".yaml", ".yml")):
        task = read_task(Path(data))
        return task_block(_load_predictor(runs, ensemble), task, start=start)
    return evaluation_block(_load_predictor(runs, ensemble), data, options, start=start)


def _load_predictor(runs: Path | Sequence[Path], ensemble: str) -> Predictor:
    paths = [runs] if isinstance(runs, Path) else list(runs)
    return Predictor.load(paths, ensemble_join(ensemble, paths))


def evaluation_block(
    predictor: Predictor, data: str, options: InferenceOptions | None = None, *, start: bool = False
) -> dict[str, Any]:
    """``n`` and ``metrics`` of the labelled rows of ``data``.

    ``seen`` says how many of the rows, or their duplicates, were training or validation rows of the
    runs (not for a fit without a folder). If there are any, ``without_seen`` is the score of the
    other rows. ``against_run`` compares the score with the run's own test score (see
    ``against_run``). For a run with a threshold, ``threshold`` is its effect on these rows. With
    ``start``, ``start`` is the score of the base model on the same rows, for one generative model.
    """
    options = options or InferenceOptions()
    if start:
        _check_start(predictor)
    labelled = predictor.read_labelled_rows(data, options)
    table = labelled.table
    notify(*predictor.decisions, *labelled.decisions, *table.findings)
    score = predictor.judge(table)
    block = score().to_json() | unit_counts(table)
    if predictor.ensemble is not None:
        block["ensemble"] = predictor.ensemble
    if not predictor.runs:
        return block | ({"start": _start_block(predictor, table, None)} if start else {})
    # The runs' own sources are read again, to find duplicates.
    with advising(), within_limits(predictor.part, options.limits):
        overlap = find_known_rows(predictor.runs, table)
    block["seen"] = overlap.to_json()
    if overlap.unseen is not None and len(overlap.unseen) < len(table):
        unseen_counts = unit_counts(table.take(overlap.unseen))
        block["without_seen"] = score(overlap.unseen).to_json() | unseen_counts
    if start:
        block["start"] = _start_block(predictor, table, overlap.unseen)
    block["against_run"] = against_run(predictor, table, overlap, block)
    if predictor.rule is not None:
        block["threshold"] = _threshold_block(predictor, predictor.rule, table, overlap.unseen)
    return block


def task_block(
    predictor: Predictor, task: EvaluationTask, *, start: bool = False
) -> dict[str, Any]:
    """``n`` and ``metrics`` of an evaluation task by a causal language model. With ``start``,
    ``start`` is the base model's score, with the paired ``difference`` and its ``verdict``."""
    model = predictor.model
    if not isinstance(model, CausalLMPredictor) or len(model.networks) > 1:
        rule = "is an evaluation task, which needs one run of a causal language model"
        raise RecipeError(task.name, rule, None, "Name one such run, or a file of rows.")

    def right(one: GenerationPredictor) -> Bools:
        return right_answers([task], one.network, one.tokenizer, best_device())[task.name]

    with predictor.alone(), stage(f"answering {task.name}"):
        after = right(model)
        with untuned_predictor(model) if start else contextlib.nullcontext() as base:
            before = right(base) if base is not None else after
    [line] = compare_tasks({task.name: before}, {task.name: after})
    block = {"n": line["n"], "task": task.name, "metrics": {task.metric: line["after"]}}
    if not start:
        return block
    compared = {name: line[name] for name in ("difference", "p_value", "verdict")}
    return {
        **block,
        "start": {"n": line["n"], "metrics": {task.metric: line["before"]}, **compared},
    }


def _check_start(predictor: Predictor) -> None:
    """Raise ``RecipeError`` where there is no base model to score beside the run's."""
    model = predictor.model
    if not isinstance(model, GenerationPredictor):
        rule = "needs a generative model: another one has no base model that answers"
        raise RecipeError("--start", rule, None, "Leave it out.")
    if len(model.networks) > 1:
        raise RecipeError("--start", "needs one run", len(model.networks), "Name one run.")


def _start_block(predictor: Predictor, table: Table, unseen: Ints | None) -> dict[str, Any]:
    """The score of the base model on these rows, and how much lower the run's loss per token is;
    also on the ``unseen`` rows alone, if the run has seen some."""
    model = predictor.model
    assert isinstance(model, GenerationPredictor)
    with predictor.alone():
        tuned = model.row_losses(table)
        with untuned_predictor(model) as base:
            score, untuned = base.scored(table).to_json(), base.row_losses(table)
    block = {**score, **_loss_difference(tuned, untuned, table, np.arange(len(table)))}
    if unseen is not None and 0 < len(unseen) < len(table):
        block["without_seen"] = _loss_difference(tuned, untuned, table, unseen)
    return block


def _loss_difference(tuned: Floats, untuned: Floats, table: Table, rows: Ints) -> dict[str, Any]:
    """Tuned minus untuned losses at these positions, paired by row, or by group."""
    known = rows[np.isfinite(tuned[rows]) & np.isfinite(untuned[rows])]
    codes = group_codes_of(table.take(known))
    difference = paired_t(tuned[known], untuned[known], groups=codes)
    low, high = (one if np.isfinite(one) else None for one in (difference.low, difference.high))
    gap = Estimate(difference.value, low, high)
    return {"loss_difference": {**gap.to_json(), "n": len(known)}}


def _threshold_block(
    predictor: Predictor, rule: ThresholdRule, table: Table, unseen: Ints | None
) -> dict[str, Any]:
    """The effect of the run's threshold on the rows that the run had not seen: how many get a
    prediction, and how many of these are correct."""
    table = table if unseen is None else table.take(unseen)
    answers = predictor.predict_table(table)
    predictions, _, _ = rule.apply(answers.predictions, answers.confidence, answers.probabilities)
    labels = labels_of_rows(table)
    accepted = np.array([one is not None for one in predictions], dtype=bool)
    correct = np.array(
        [is_correct(a, b) for a, b in zip(labels, predictions, strict=True)], dtype=bool
    )
    return {
        "by": rule.by,
        "threshold": rule.threshold,
        **answered_block(accepted, correct & accepted, groups_of(table)),
    }


def predict(
    runs: Sequence[Path],
    data: Data,
    options: InferenceOptions | None = None,
    *,
    probabilities: bool = False,
    slices: bool = False,
    ensemble: str = "average",
) -> Predicted:
    """The predictions for a file as ``train`` reads it, or for a list of texts: one per row,
    computed part by part while they are read. With ``slices``, each prediction lists the weak
    slices that contain its row.

    Raises ``RecipeError`` for ``slices`` of several runs, or of a run without one.
    """
    if isinstance(data, str):
        refuse_missing(data)
    predictor = _load_predictor(runs, ensemble)
    name_slices = _namer_of_slices(runs) if slices else None
    predicted = predictor.predict(
        data, options, probabilities=probabilities, name_slices=name_slices
    )
    notify(*predictor.decisions, *predicted.decisions)
    return predicted


def _namer_of_slices(runs: Sequence[Path]) -> NameSlices:
    if len(runs) > 1:
        raise RecipeError(SLICES_KEY, "needs a single run", len(runs), "Name one run.")
    conditions = {
        name: one for name, one in weak_slices(read_result(runs[0])).items() if one is not None
    }
    if not conditions:
        rule = "needs a run with a confirmed slice that new rows can be tested for"
        remedy = f"Leave it out; holdfast errors {runs[0]} lists the run's slices."
        raise RecipeError(SLICES_KEY, rule, None, remedy)

    def name_slices(table: Table, columns: Mapping[str, Sequence[Any]]) -> list[list[str]]:
        facts = RowFacts(len(table), read_texts(table), columns)
        masks = {name: one.holds(facts) for name, one in conditions.items()}
        return [[name for name, mask in masks.items() if mask[row]] for row in range(len(facts))]

    return name_slices


SLICES_KEY = "predict.slices"
CHI_SQUARED = "chi-squared test"
# Classes by their share of the rows that are named.
MOST_NAMED_CLASSES = 3


def against_run(
    predictor: Predictor, table: Table, overlap: KnownRows, block: Mapping[str, Any]
) -> dict[str, Any]:
    """``against_run`` of ``evaluate --json``: the score of these rows and of the run's test rows,
    from its stored predictions, with the test of their difference; where that is significant, the
    ``reasons`` that were looked for. ``{"why": …}`` where there is nothing to compare with.
    ``block`` is the score of the rows, and of those that were not ``overlap``."""
    if len(predictor.runs) != 1:
        return {"why": "several runs were averaged, and no run has a test score of the average"}
    run = predictor.runs[0]
    finished_run = FinishedRun(run)
    if read_result(run).get("meta") is not None or not finished_run.n_test:
        return {"why": "the run has no test rows of a single task"}
    n_seen = int((overlap.split_index != NO_SPLIT).sum())
    if n_seen and n_seen == len(overlap.split_index):
        return {"why": "all of these rows are training, validation or test rows of the run"}
    new_scores = _scores_of_rows(predictor, table, block)
    try:
        run_scores = _scores_of_run(finished_run, new_scores.metric)
    except RunError as error:
        return {"why": f"{error.what} {error.rule}"}
    comparison = compare_scores(run_scores, new_scores)
    document = comparison_block(new_scores.metric, comparison, ("run", "here"))
    if comparison.why is not None:
        return document
    differs = comparison.p_value < ALPHA
    because = _describe_difference(new_scores.metric, comparison)
    if n_seen and not differs:
        because += (
            f"; {n_seen:,} of these rows were seen in training or validation, which can make the "
            "two scores more similar"
        )
    document |= {"differs": differs, "because": because, "reasons": []}
    if differs:
        unseen_scores = _unseen_scores(predictor, table, overlap, block.get("without_seen") or {})
        # ``found`` of a check is true or false, or null where it could not run. ``unseen_scores``
        # are the scores of the rows that the run had not seen.
        document["reasons"] = [
            _duplicates_reason(overlap, unseen_scores, run_scores),
            _class_mix_reason(finished_run, table, run_scores),
            *_text_reasons(finished_run, table),
        ]
    return document


def _scores_of_rows(predictor: Predictor, table: Table, block: Mapping[str, object]) -> RowScores:
    groups = groups_of(table)
    if groups is None and (rate_scores := _scores_of_rate(block, rate_metric(table))) is not None:
        return rate_scores
    if FinishedRun(predictor.runs[0]).recipe.task in GENERATIVE_TASKS:
        with predictor.alone():
            losses = cast("EnsembleModel", predictor.model).row_losses(table)
        return RowScores.from_losses(np.asarray(losses, dtype=np.float64), groups)
    metric = "mae" if predictor.prediction_type == "number" else rate_metric(table)
    predictions = predictor.predict_table(table).predictions
    return RowScores.from_labels(metric, labels_of_rows(table), predictions, groups)


def _scores_of_rate(block: Mapping[str, Any], metric: str) -> RowScores | None:
    """For independent rows that are correct or wrong, the rate is enough: no row is predicted
    again."""
    value = ((block.get("metrics") or {}).get(metric) or {}).get("value")
    if value is None:
        return None
    n = int(block["n"])
    return RowScores(metric, (np.arange(n) < round(value * n)).astype(np.float64))


def _unseen_scores(
    predictor: Predictor, table: Table, overlap: KnownRows, block: Mapping[str, object]
) -> RowScores | None:
    """Scores of the rows that the run had not seen; ``None`` if there are no such rows, or only
    such rows. Those rows are scored again: the rows of a loss per token are those of a ratio over
    all of them, so a part of them has another mean."""
    unseen = overlap.unseen
    if unseen is None or not 0 < len(unseen) < len(overlap.split_index):
        return None
    return _scores_of_rows(predictor, table.take(unseen), block)


def _scores_of_run(finished_run: FinishedRun, metric: str) -> RowScores:
    """Scores from the stored predictions; the run's source is not read."""
    columns = finished_run.stored("test")
    groups = stored_groups_of(finished_run.divided(), "test", columns["row"].to_pylist())
    if metric == "loss":
        tokens = tokens_of(columns)
        if tokens is None:
            rule = "stores losses of rows, not of tokens: an older version trained it"
            raise RunError(str(finished_run.run), rule, None, "Train it again.")
        return RowScores.from_losses(losses_of(columns), groups, tokens)
    if metric == "mae" and "error" in columns.column_names:
        return RowScores(metric, np.abs(columns["error"].to_numpy().astype(np.float64)), groups)
    labels, predictions = columns["label"].to_pylist(), columns["prediction"].to_pylist()
    return RowScores.from_labels(metric, labels, predictions, groups)


def _describe_difference(metric: str, comparison: TwoSamples) -> str:
    new_value, run_value = (
        _format_value(metric, value) for value in (comparison.second, comparison.first)
    )
    p = p_value_phrase(comparison.p_value, comparison.test)
    sentence = (
        f"{METRIC_NAMES[metric]} is {new_value} on these {comparison.n_second:,} rows and "
        f"{run_value} on the run's own "
        f"{comparison.n_first:,} test rows"
    )
    if comparison.p_value < ALPHA:
        return f"{sentence}: the difference is significant ({p})"
    return f"{sentence}: no difference can be shown ({p})"


def _format_value(metric: str, value: float) -> str:
    return f"{100 * value:.1f} %" if metric in RATE_METRICS else f"{value:.3g}"


def _reason(check: str, applies: bool | None, because: str) -> dict[str, Any]:
    return {"check": check, "found": applies, "because": because}


def _duplicates_reason(
    overlap: KnownRows, unseen_scores: RowScores | None, run_scores: RowScores
) -> dict[str, Any]:
    """Rows that the run was trained or validated on, and near-duplicates of them."""
    name = "rows also in training"
    if overlap.unseen is None:
        return _reason(name, None, f"not checked: {overlap.why}")
    n_seen = len(overlap.split_index) - len(overlap.unseen)
    if not n_seen:
        return _reason(name, False, "no row or near-duplicate of one was in training or validation")
    because = (
        f"{n_seen} of {len(overlap.split_index)} rows, or near-duplicates of them, were in "
        "training or "
        "validation"
    )
    if unseen_scores is None:
        return _reason(name, True, because)
    comparison = compare_scores(run_scores, unseen_scores)
    return _reason(
        name,
        True,
        f"{because}; without them: "
        f"{comparison.why or _describe_difference(run_scores.metric, comparison)}",
    )


def _class_mix_reason(
    finished_run: FinishedRun, table: Table, run_scores: RowScores
) -> dict[str, Any]:
    """A different class mix, and the run's score if its classes had this mix."""
    name = "another class mix"
    if run_scores.metric != "accuracy":
        return _reason(name, None, "not checked: it needs one class label per row")
    labels = labels_of_rows(table), finished_run.stored("test")["label"].to_pylist()
    names = sorted({*map(str, labels[0]), *map(str, labels[1])})
    new, old = (np.array([Counter(map(str, one))[n] for n in names]) for one in labels)
    groups = groups_of(table), run_scores.groups
    if all(one is None for one in groups):
        p_value, test = proportions_p_value(old, new), CHI_SQUARED
    else:
        # The shares of two classes are one test.
        compared = names[:1] if len(names) == 2 else names
        found = [_share_by_groups(one, labels, groups) for one in compared]
        if why := next((one.why for one in found if one.why not in (None, NO_SPREAD)), None):
            return _reason(name, None, f"not checked: {why}")
        # A class of all rows has no spread.
        p_values = np.nan_to_num([one.p_value for one in found], nan=1.0)
        p_value, test = float(holm(p_values).min()), BY_GROUPS
        if len(compared) > 1:
            test += f", Holm's correction for {len(compared)} classes"
    tested = p_value_phrase(p_value, test)
    if p_value >= ALPHA:
        return _reason(name, False, f"no difference in class shares can be shown ({tested})")
    shares = {n: (b / old.sum(), a / new.sum()) for n, a, b in zip(names, new, old, strict=True)}
    largest = sorted(shares, key=lambda n: -abs(shares[n][1] - shares[n][0]))[:MOST_NAMED_CLASSES]
    changes = ", ".join(
        f"{n} {100 * shares[n][1]:.0f} % (was {100 * shares[n][0]:.0f} %)" for n in largest
    )
    because = f"the class shares differ ({tested}): {changes}"
    expected = _expected_accuracy(names, new, [str(one) for one in labels[1]], run_scores)
    if expected is not None:
        because += f"; with the run's accuracy per class, these shares alone would give {expected}"
    return _reason(name, True, because)


def _share_by_groups(
    name: str, labels: Sequence[Sequence[object]], groups: Sequence[Any]
) -> TwoSamples:
    """Compare the share of a class in the run's rows and in the new ones; of ``labels`` and
    ``groups`` the new ones come first."""
    new, old = (np.array([str(one) == name for one in rows], dtype=float) for rows in labels)
    return two_samples(old, new, groups[1], groups[0])


def _expected_accuracy(
    names: Sequence[str], new: Ints, labels: Sequence[str], run_scores: RowScores
) -> str | None:
    """The accuracy on the run's test rows, with its classes weighted as in the new rows, and its
    95 % interval: the limits of the classes joined (MOVER; Zou and Donner 2008), or Student's over
    groups of the linearised rows, since the classes of a group are not independent."""
    label_array, shares = np.array(labels), new[new > 0] / new.sum()
    kept, correct = [name for name, n in zip(names, new, strict=True) if n], run_scores.values
    hits = [correct[label_array == name] for name in kept]
    if not all(map(len, hits)):
        return None
    rates = np.array([one.mean() for one in hits])
    expected = float(shares @ rates)
    if run_scores.groups is not None:
        rows = np.full(len(correct), expected)
        for name, share, rate in zip(kept, shares, rates, strict=True):
            own = label_array == name
            rows[own] += share * (correct[own] - rate) / own.mean()
        codes = group_codes(run_scores.groups, len(rows))
        found = paired_t(rows, np.zeros_like(rows), groups=codes)
        if not found.has_spread:
            return f"{100 * expected:.1f} %"
        low, high = max(0.0, found.low), min(1.0, found.high)
    else:
        limits = np.array([wilson(float(one.sum()), len(one)) for one in hits])
        low, high = (
            expected + sign * math.sqrt(float(np.sum((shares * (limits[:, end] - rates)) ** 2)))
            for end, sign in ((0, -1), (1, 1))
        )
    return f"{100 * expected:.1f} % (95 % CI {100 * low:.1f}–{100 * high:.1f})"


def _text_reasons(finished_run: FinishedRun, table: Table) -> list[dict[str, Any]]:
    """Checks of length and groups. They need the run's own rows, so its source is read again."""
    names = ("another text length", "another source")
    try:
        run_table = finished_run.table("test")
    except HoldfastError as error:
        why = f"not checked: the run's own rows cannot be read ({error.what} {error.rule})"
        return [_reason(name, None, why) for name in names]
    return [_length_reason(names[0], run_table, table), _group_reason(names[1], run_table, table)]


def _length_reason(name: str, run_table: Table, table: Table) -> dict[str, Any]:
    run_texts, new_texts = read_texts(run_table), read_texts(table)
    if run_texts is None or new_texts is None:
        return _reason(name, None, "not checked: the rows are not texts")
    old, new = (
        np.array([float(len(text.split())) for text in one]) for one in (run_texts, new_texts)
    )
    comparison = two_samples(np.log1p(old), np.log1p(new), groups_of(run_table), groups_of(table))
    if comparison.why is not None:
        return _reason(name, None, f"not checked: {comparison.why}")
    medians = f"median {np.median(new):.0f} words here, {np.median(old):.0f} in the run's test rows"
    differs = comparison.p_value < ALPHA
    words = "text lengths differ" if differs else "no difference in text length can be shown"
    test = p_value_phrase(
        comparison.p_value, f"{comparison.test} on the logarithm of the word count"
    )
    return _reason(name, differs, f"{words}: {medians} ({test})")


def _group_reason(name: str, run_table: Table, table: Table) -> dict[str, Any]:
    if not (run_table.has_groups and table.has_groups):
        why = "not checked: the rows or the run have no group column (data.group)"
        return _reason(name, None, why)
    run_groups, new_groups = named_groups(run_table), named_groups(table)
    if not new_groups:
        return _reason(name, None, "not checked: no row has a group")
    shared = len(run_groups & new_groups)
    if shared == len(new_groups):
        return _reason(name, False, "every group also occurs in the run's test rows")
    because = (
        f"{len(new_groups) - shared} of {len(new_groups)} groups do not occur in the "
        "run's test rows"
    )
    return _reason(name, True, because)
