"""Distillation: how much of its teacher's score a student keeps, and how often their predictions
agree: ``distilled`` of ``result.json``.

The student is compared once, on the test rows, with its teachers and with the same model trained
without them. Nothing is chosen by this.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from holdfast.analyses.analysis import Analysis, FittedSession, NoAnswer
from holdfast.analyses.compare.compare import verdict_sentence
from holdfast.analyses.compare.verdict import PairedRows, PairedVerdict, judge_pairs, pair_rows
from holdfast.analyses.row_texts import LabelType, label_type_of, labels_of_rows
from holdfast.contract.fit import FittedModel
from holdfast.contract.inference import run_recipe
from holdfast.contract.predictions import Predictions
from holdfast.contract.run_folder import open_run
from holdfast.core.decisions import notify
from holdfast.core.errors import InputError
from holdfast.core.records import Decision, Estimate, Floats, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.core.tasks import DECODER_TASKS, GENERATIVE_TASKS
from holdfast.core.wording import count_phrase, signed
from holdfast.data.table import AddedRows, Table
from holdfast.fits.fit import fit
from holdfast.fits.lessons import ORIGIN, Lessons
from holdfast.fits.policies import begins_as_probe
from holdfast.models.layers import count_parameters
from holdfast.models.loading.source import short_name
from holdfast.prepare.model import concatenate, prepare
from holdfast.recipe import Recipe
from holdfast.recipe.parts import DistillPart, ModelPart, TrainPart
from holdfast.runs.predictor import Predictor
from holdfast.stats.bootstrap import bootstrap, fold_atoms, sums
from holdfast.stats.intervals import group_freedom, wilson, wilson_by_groups
from holdfast.training.task import device_batch


def retained_share(
    pairs: PairedRows, verdict: PairedVerdict, seed: np.random.Generator, groups: Ints | None = None
) -> dict[str, Any]:
    """The second model's score ÷ the first one's, on the same rows, with its 95 % interval.

    For correct and wrong predictions the ratio is resampled by rows (BCa; for ``groups`` [n]
    Student's, one group left out at a time). For other scores, and where both are correct on the
    same rows, which has nothing to resample, it is 1 − difference ÷ score, with the interval of the
    paired difference ``verdict``. An error has no such share.
    """
    if not pairs.higher_is_better:
        return _unknown("the metric is an error, so no share is kept: see the difference")
    if not len(pairs.gap) or not pairs.first > 0:
        return _unknown("the teacher's score is 0, or there are no rows")
    value = pairs.second / pairs.first
    if pairs.correct is None or not pairs.gap.any():
        if verdict.why:
            return {**_unknown(verdict.why), "value": value}
        low, high = (1 - end * pairs.scale / pairs.first for end in (verdict.high, verdict.low))
        return Estimate(value, low, high).to_json()
    correct = np.column_stack([np.asarray(one, dtype=np.float64) for one in pairs.correct])
    codes = np.arange(len(correct)) if groups is None else groups
    codes, atoms = fold_atoms(codes, int(codes.max()) + 1)
    table = sums(correct, codes, atoms)
    resampled = bootstrap(lambda w: _ratio(w @ table), np.ones(atoms, dtype=np.int64), seed=seed)
    limits = resampled.low, resampled.high
    if groups is not None:
        limits = resampled.student(group_freedom(np.bincount(codes)), 0.95)
    low, high = (float(one[0]) for one in limits)
    if not (math.isfinite(low) and math.isfinite(high)):
        return {**_unknown("the rows are too few for an interval"), "value": value}
    return Estimate(value, low, high).to_json()


def _ratio(sums_of: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums_of[:, 0] > 0, sums_of[:, 1] / sums_of[:, 0], np.nan)


def agreement(
    label_type: LabelType,
    first: Sequence[object],
    second: Sequence[object],
    groups: Ints | None = None,
) -> dict[str, Any]:
    """The share of rows with equal predictions (sets of labels in any order), with Wilson's
    interval; for numbers the correlation of the two."""
    if not len(first):
        return _unknown("there are no rows")
    if label_type == "number":
        first_values, second_values = (
            np.array([np.nan if x is None else x for x in s], float) for s in (first, second)
        )
        finite = np.isfinite(first_values) & np.isfinite(second_values)
        if finite.sum() < 3 or not (
            first_values[finite].std() > 0 and second_values[finite].std() > 0
        ):
            return _unknown("the numbers do not vary")
        value = float(np.corrcoef(first_values[finite], second_values[finite])[0, 1])
        return {"value": value, "low": None, "high": None, "what": "correlation"}
    normalize = (lambda x: sorted(x or ())) if label_type == "several" else (lambda x: x)
    agrees = np.array([normalize(a) == normalize(b) for a, b in zip(first, second, strict=True)])
    if groups is None:
        low, high = wilson(float(agrees.sum()), len(agrees))
    else:
        low, high = wilson_by_groups(agrees, groups)
        if math.isnan(low):
            return {**_unknown("the rows are of one group"), "value": float(agrees.mean())}
    return Estimate(float(agrees.mean()), float(low), float(high)).to_json()


def _unknown(why: str) -> dict[str, Any]:
    return Estimate(None, why=why).to_json()


# Rows for timing, and repeats; the fastest counts, since it was disturbed least.
TIMED_ROWS, TIMING_REPEATS = 32, 3
# Generated texts take long: teacher and student generate this many for the comparison.
MAX_GENERATED_ROWS = 60
MARGIN = 0.01
# How ``compare``'s sentence reads with A the student and B the student without its teacher.
WORDS = {
    "A − B": "with − without teacher",
    "A is": "the student is",
    "than B": "than without its teacher",
    "A and B are": "the students with and without a teacher are",
}


@dataclass(frozen=True, slots=True)
class DistillationReferences:
    """The ``teacher``, and the student trained without it (``baseline``), or why there is none; and
    what is known of sizes and times."""

    teacher: Predictor
    baseline: Predictor | str
    block: Mapping[str, Any]


def find(session: FittedSession) -> DistillationReferences | NoAnswer | None:
    """Train the student without its teachers, and time both."""
    fitted = session.fitted
    settings = fitted.recipe.distill
    if not settings.teacher:
        return None
    runs = [Path(one) for one in settings.teacher]
    if (
        fitted.recipe.task in DECODER_TASKS
        and "[]" in fitted.training_plan.prepared.rows.rows[:1]["turns"]
    ):
        return NoAnswer("models of plain text have no predictions to compare")
    teacher = Predictor.load(runs)
    baseline = (
        _train_without_teacher(fitted)
        if settings.alone
        else "set in the recipe: distill.alone=false"
    )
    lessons = fitted.training_plan.prepared.lessons
    assert isinstance(lessons, Lessons)
    parameters, _ = count_parameters(fitted.training_plan.loaded.network)
    sizes = [open_run(run).get("model_facts", {}).get("parameters") for run in runs]
    block = {
        "teacher": {"runs": [run.name for run in runs], "parameters": _total(sizes)},
        "student": {"model": _student_name(fitted.recipe), "parameters": parameters},
        "speed": _speed(session, lessons),
    }
    return DistillationReferences(teacher, baseline, block)


def confirm(
    references: DistillationReferences, session: FittedSession, test: Predictions
) -> Mapping[str, Any]:
    """Compare the student with its teachers, and with itself trained without them, on the test
    rows."""
    fitted = session.fitted
    compared = _comparable_rows(fitted, test)
    table, groups = compared.table, compared.groups
    label_type, labels = label_type_of(table), labels_of_rows(table)
    predictions = _empty_as_none(compared.predictions or ())
    teacher_predictions = _empty_as_none(references.teacher.predict_table(table).predictions)
    pairs = pair_rows(label_type, labels, teacher_predictions, predictions)
    against_teacher = judge_pairs(-pairs.gap, MARGIN, groups)
    teacher_verdict = judge_pairs(pairs.gap, MARGIN, groups)
    seed = fitted.recipe.seed
    retained = retained_share(pairs, teacher_verdict, generator(seed, "kept share"), groups)
    block: dict[str, Any] = {
        "metric": pairs.metric,
        "n": len(table),
        "teacher": {**references.block["teacher"], "value": pairs.first},
        "student": {**references.block["student"], "value": pairs.second},
        "kept": retained,
        "agreement": agreement(label_type, teacher_predictions, predictions, groups),
        "against_teacher": _difference(against_teacher, pairs.scale),
        "speed": references.block["speed"],
    }
    if isinstance(references.baseline, str):
        block["alone"] = {"why": references.baseline}
    else:
        baseline_predictions = _empty_as_none(references.baseline.predict_table(table).predictions)
        gain = pair_rows(label_type, labels, predictions, baseline_predictions)
        gain_verdict = judge_pairs(gain.gap, MARGIN, groups)
        words = verdict_sentence(gain_verdict, gain)
        for name, meaning in WORDS.items():
            words = words.replace(name, meaning)
        block["alone"] = {
            "value": gain.second,
            **_difference(gain_verdict, gain.scale),
            "because": words,
        }
    return {**block, "because": " ".join([*_discarded_training(fitted), _because(block)])}


def _discarded_training(fitted: FittedModel) -> list[str]:
    """What the student is if no step of its training is kept; empty if one is."""
    training = fitted.trained
    if training.best_step or training.selected_average is not None or not training.last_step:
        return []
    head = ", with a linear probe as its last layer" if begins_as_probe(fitted.listeners) else ""
    steps = count_phrase(training.last_step, "step")
    return [
        f"The distillation was discarded: none of its {steps} was kept, so the saved model is the "
        f"student before distillation{head}."
    ]


def _comparable_rows(fitted: FittedModel, predictions: Predictions) -> Predictions:
    """The test rows whose predictions are compared: all, or for a generative model some of those
    for which it generated texts."""
    if fitted.recipe.task not in GENERATIVE_TASKS:
        return predictions
    answers = predictions.predictions or ()
    positions: Ints = np.array(
        [i for i, one in enumerate(answers) if one is not None], dtype=np.int64
    )
    positions = positions[:MAX_GENERATED_ROWS]
    return replace(predictions.take(positions), wrong=None, confidence=None, errors=None)


def _empty_as_none(predictions: Sequence[object]) -> list[Any]:
    """Predictions in the form of the labels; an empty one is ``None``."""
    return [
        None if one is None or (isinstance(one, str) and one == "") else one for one in predictions
    ]


def _difference(verdict: PairedVerdict, scale: float) -> dict[str, Any]:
    """A verdict and its difference, in the unit of the metric."""
    return {"verdict": verdict.verdict, "difference": to_json(verdict.difference(scale))}


class RetainedShare(TypedDict):
    """The share of its teacher's score that a student keeps."""

    value: float
    low: float | None
    high: float | None


def _because(block: Mapping[str, Any]) -> str:
    retained, speed = block["kept"], block["speed"]["value"]
    speed_words = f" at {speed:.2g} times its speed" if speed is not None else ""
    value, name = block["student"]["value"], block["metric"].replace("_", " ")
    if retained["value"] is None:
        teacher_score = block["teacher"]["value"]
        return (
            f"The student's {name} is {value:.3g}, its teacher's {teacher_score:.3g}{speed_words}."
        )
    sentence = f"{_retained_sentence(retained, name)}{speed_words}"
    gain = block["alone"].get("difference")
    if gain is None or gain["value"] is None:
        return f"{sentence}."
    gain_words = f"{signed(100 * gain['value'])} points{_span(gain, '+')}"
    return f"{sentence}; compared with the same model without a teacher: {gain_words}."


def _retained_sentence(retained: RetainedShare, name: str) -> str:
    """A share above 100 % is claimed only if its interval shows it."""
    share = f"{100 * retained['value']:.1f} %{_span(retained, '')}"
    if retained["value"] < 1:
        return f"The student keeps {share} of its teacher's {name}"
    above = retained["low"] is not None and retained["low"] > 1
    comparison = "is above its teacher" if above else "is not shown to be below its teacher"
    return f"The student {comparison} in {name} (student ÷ teacher {share})"


def _span(estimate: Mapping[str, Any], sign: str) -> str:
    if estimate["low"] is None:
        return ""
    low, high = (format(100 * estimate[end], f"{sign}.1f") for end in ("low", "high"))
    return f" (95 % CI {low} to {high})"


def _total(sizes: Sequence[Any]) -> int | None:
    return sum(sizes) if all(isinstance(one, int) for one in sizes) else None


def _student_name(recipe: Recipe) -> str:
    model = recipe.model
    name = short_name(model.name)
    # A student that was cut out of its teacher is the run's folder named model.
    name = Path(model.name).parent.name if name == "model" else name
    if model.static:
        return f"{name}, static"
    return name if model.layers is None else f"{name}, {count_phrase(model.layers, 'block')}"


def _speed(session: FittedSession, lessons: Lessons) -> dict[str, Any]:
    """How long teacher and student take for the same validation rows."""
    import torch

    fitted, splits = session.fitted, session.fitted.training_plan.splits
    count = min(TIMED_ROWS, len(splits.valid))
    if not count:
        return {"value": None, "why": "there are no validation rows to time"}
    if fitted.recipe.task in GENERATIVE_TASKS:
        device, task = fitted.job.accelerator.device, fitted.job.task
        rows = np.arange(min(count, 8))
        batch = device_batch(task, splits.valid, rows, device)
        network: Any = fitted.network.to(device).eval()
        for one in lessons.teachers:
            one.network.to(device)

        def run_teacher() -> None:
            with torch.inference_mode():
                for one in lessons.teachers:
                    one.batch(task, batch)

        def run_student() -> None:
            with torch.inference_mode():
                task.forward(network, batch)

        count = len(rows)
    else:
        table: Table = splits.valid_rows.table.take(np.arange(min(count, len(splits.valid_rows))))
        examples: Any = splits.valid.take(np.arange(len(table)))
        predictor, count = session.predictor, len(table)

        def run_teacher() -> None:
            for one in lessons.teachers:
                one.network.cpu()
                one.rows(table, examples)

        def run_student() -> None:
            predictor.predict_table(table)

    teacher_seconds, student_seconds = [], []
    for _ in range(TIMING_REPEATS):
        teacher_seconds.append(_seconds(run_teacher))
        student_seconds.append(_seconds(run_student))
    teacher_ms, student_ms = (
        1000 * min(each) / count for each in (teacher_seconds, student_seconds)
    )
    return {
        "value": round(teacher_ms / student_ms, 2),
        "teacher_ms": round(teacher_ms, 3),
        "student_ms": round(student_ms, 3),
        "rows": count,
        "why": "milliseconds per row, the fastest of three passes over the same validation rows",
    }


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _train_without_teacher(fitted: FittedModel) -> Predictor | str:
    """The same model, trained as ``train`` would on the same rows, with labels only."""
    plan, recipe = fitted.training_plan, fitted.recipe
    baseline_recipe = _without_teacher(recipe)
    because = "the same model, rows and seed, with labels only (distill.alone=false skips it)"
    notify(Decision("student without teacher", "trained for comparison", because, prominent=True))
    rows, (train, valid) = concatenate(plan.splits.train_rows.table, plan.splits.valid_rows.table)
    added = plan.prepared.added
    positions = (
        [] if added is None else [i for i, origin in enumerate(added.origins) if origin != ORIGIN]
    )
    try:
        prepared = prepare(baseline_recipe, rows, train=train)
        if added is not None and positions:
            origins = tuple(added.origins[i] for i in positions)
            prepared = prepared.extended(
                AddedRows(
                    added.table.take(positions), np.asarray(added.weights)[positions], origins
                )
            )
        return Predictor.of(fit(prepared, train, valid))
    except InputError as error:
        return f"{error.what} {error.rule}"


def _without_teacher(recipe: Recipe) -> Recipe:
    """The recipe of a run of the student without a teacher; for a student that was cut out of its
    teacher, from the teacher's base model."""
    model, train = recipe.model, recipe.train
    (first, *_) = recipe.distill.teacher or ("",)
    if Path(model.name) == Path(first) / "model":
        teacher_model = run_recipe(Path(first)).model
        base = teacher_model.model_dump(include={"name", "revision", "trust_remote_code"})
        model = ModelPart.model_validate(model.model_dump() | base)
    train_settings = {
        key: getattr(train, key) for key in ("threads", "precision", "matmul", "metric")
    }
    return Recipe.model_validate(
        recipe.model_dump()
        | {
            "distill": DistillPart().model_dump(),
            "model": model.model_dump(),
            "train": TrainPart(**train_settings).model_dump(),
            "methods": {},
            "data": {**recipe.data.model_dump(), "unlabelled": None, "unlabelled_by": None},
        }
    )


ANALYSIS = Analysis("distilled", ("distilled",), find, confirm)
