"""How much of one model's score another one keeps, and how often the two say the same.

What a student keeps of its teacher: ``distilled`` of ``result.json``.

Its teachers, and the same model trained without them, are held against it on the test rows, once:
nothing is chosen by that.
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
from holdfast.analyses.compare.compare import sentence
from holdfast.analyses.compare.verdict import PairedRows, PairedVerdict, judge_pairs, paired
from holdfast.analyses.row_texts import AnswerKind, kind_of_rows, labels_of_rows
from holdfast.contract.fit import FittedModel
from holdfast.contract.predictions import Predictions
from holdfast.contract.run_folder import RECIPE, open_run
from holdfast.core.decisions import notify
from holdfast.core.errors import InputError
from holdfast.core.records import Decision, Estimate, Floats, Ints, to_json
from holdfast.core.seeds import generator
from holdfast.core.tasks import DECODERS, WRITERS
from holdfast.core.wording import counted
from holdfast.data.table import Added, Table
from holdfast.fits.fit import fit
from holdfast.fits.lessons import ORIGIN, Lessons
from holdfast.fits.policies import begins_as_probe
from holdfast.models.layers import count_parameters
from holdfast.prepare.model import concatenate, prepare
from holdfast.recipe import Recipe, read_recipe
from holdfast.recipe.parts import DistillPart, ModelPart, TrainPart
from holdfast.runs.predictor import Predictor
from holdfast.stats.bootstrap import bootstrap, folded, sums
from holdfast.stats.intervals import wilson, wilson_by_groups
from holdfast.training.task import device_batch


def kept_share(
    pairs: PairedRows, found: PairedVerdict, seed: np.random.Generator, groups: Ints | None = None
) -> dict[str, Any]:
    """The second model's score ÷ the first one's, of the same rows, with its 95 % interval.

    Of right and wrong answers the ratio is resampled by rows (BCa; of whole ``groups`` [n]
    Student's, one group left out at a time). Of other scores it is 1 − difference ÷ score, with the
    interval of the paired difference ``found``. An error has none: no share of it is kept.
    """
    if not pairs.higher_is_better:
        return _unknown("the metric is an error, of which no share is kept: see the difference")
    if not len(pairs.gap) or not pairs.first > 0:
        return _unknown("the teacher's score is 0, or there are no rows")
    value = pairs.second / pairs.first
    if pairs.right is None:
        if found.why:
            return {**_unknown(found.why), "value": value}
        low, high = (1 - end * pairs.scale / pairs.first for end in (found.high, found.low))
        return Estimate(value, low, high).to_json()
    both = np.column_stack([np.asarray(one, dtype=np.float64) for one in pairs.right])
    codes = np.arange(len(both)) if groups is None else groups
    codes, atoms = folded(codes, int(codes.max()) + 1)
    table = sums(both, codes, atoms)
    made = bootstrap(lambda w: _ratio(w @ table), np.ones(atoms, dtype=np.int64), seed=seed)
    limits = (made.low, made.high) if groups is None else made.student(atoms, 0.95)
    low, high = (float(one[0]) for one in limits)
    if not (math.isfinite(low) and math.isfinite(high)):
        return {**_unknown("the rows are too few for an interval"), "value": value}
    return Estimate(value, low, high).to_json()


def _ratio(sums_of: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(sums_of[:, 0] > 0, sums_of[:, 1] / sums_of[:, 0], np.nan)


def agreement(
    kind: AnswerKind, first: Sequence[object], second: Sequence[object], groups: Ints | None = None
) -> dict[str, Any]:
    """The share of rows of which both say the same (a set of labels whatever its order), with
    Wilson's interval; of numbers the correlation of the two."""
    if not len(first):
        return _unknown("there are no rows")
    if kind == "number":
        one, two = (
            np.array([np.nan if x is None else x for x in s], float) for s in (first, second)
        )
        known = np.isfinite(one) & np.isfinite(two)
        if known.sum() < 3 or not (one[known].std() > 0 and two[known].std() > 0):
            return _unknown("the numbers do not vary")
        value = float(np.corrcoef(one[known], two[known])[0, 1])
        return {"value": value, "low": None, "high": None, "what": "correlation"}
    plain = (lambda x: sorted(x or ())) if kind == "several" else (lambda x: x)
    same = np.array([plain(a) == plain(b) for a, b in zip(first, second, strict=True)])
    if groups is None:
        low, high = wilson(float(same.sum()), len(same))
    else:
        low, high = wilson_by_groups(same, groups)
        if math.isnan(low):
            return {**_unknown("the rows are of one group"), "value": float(same.mean())}
    return Estimate(float(same.mean()), float(low), float(high)).to_json()


def _unknown(why: str) -> dict[str, Any]:
    return Estimate(None, why=why).to_json()


# Rows that the two are timed on, and how often; the quickest counts, which nothing else disturbed.
TIMED_ROWS, TIMES = 32, 3
# A text takes as long as it is: teacher and student write to so many rows to be compared.
MOST_WRITTEN = 60
MARGIN = 0.01
# What ``compare`` calls A and B, of a student with its teacher and without.
WORDS = {
    "A minus B is": "with minus without is",
    "A is": "with its teacher it is",
    "than B": "than without",
    "A and B are": "with and without its teacher it is",
}


@dataclass(frozen=True, slots=True)
class Rivals:
    """The ``teacher``, and the student ``alone``, trained without it, or why there is none; what is
    known of sizes and times."""

    teacher: Predictor
    alone: Predictor | str
    block: Mapping[str, Any]


def find(session: FittedSession) -> Rivals | NoAnswer | None:
    """Train the student without its teachers, and time both."""
    fitted = session.fitted
    wanted = fitted.recipe.distill
    if not wanted.teacher:
        return None
    runs = [Path(one) for one in wanted.teacher]
    if fitted.recipe.task in DECODERS and "[]" in fitted.ready.prepared.rows.rows[:1]["turns"]:
        return NoAnswer("plain text has no answers that two models could be compared by")
    teacher = Predictor.load(runs)
    alone = _alone(fitted) if wanted.alone else "set by you: distill.alone=false"
    lessons = fitted.ready.prepared.lessons
    assert isinstance(lessons, Lessons)
    parameters, _ = count_parameters(fitted.ready.loaded.network)
    known = [open_run(run).get("model_facts", {}).get("parameters") for run in runs]
    block = {
        "teacher": {"runs": [run.name for run in runs], "parameters": _total(known)},
        "student": {"model": _shown(fitted.recipe), "parameters": parameters},
        "speed": _speed(session, lessons),
    }
    return Rivals(teacher, alone, block)


def confirm(found: Rivals, session: FittedSession, test: Predictions) -> Mapping[str, Any]:
    """The student beside its teachers, and beside itself without them, on the test rows."""
    fitted = session.fitted
    told = _written(fitted, test)
    table, groups = told.table, told.groups
    kind, labels = kind_of_rows(table), labels_of_rows(table)
    said = _plain(told.predictions or ())
    taught = _plain(found.teacher.answer(table).predictions)
    pairs = paired(kind, labels, taught, said)
    apart = judge_pairs(-pairs.gap, MARGIN, groups)
    by_teacher = judge_pairs(pairs.gap, MARGIN, groups)
    seed = fitted.recipe.seed
    kept = kept_share(pairs, by_teacher, generator(seed, "kept share"), groups)
    block: dict[str, Any] = {
        "metric": pairs.metric,
        "n": len(table),
        "teacher": {**found.block["teacher"], "value": pairs.first},
        "student": {**found.block["student"], "value": pairs.second},
        "kept": kept,
        "agreement": agreement(kind, taught, said, groups),
        "against_teacher": _difference(apart, pairs.scale),
        "speed": found.block["speed"],
    }
    if isinstance(found.alone, str):
        block["alone"] = {"why": found.alone}
    else:
        bare = _plain(found.alone.answer(table).predictions)
        gain = paired(kind, labels, said, bare)
        settled = judge_pairs(gain.gap, MARGIN, groups)
        words = sentence(settled, gain)
        for name, meant in WORDS.items():
            words = words.replace(name, meant)
        block["alone"] = {
            "value": gain.second,
            **_difference(settled, gain.scale),
            "because": words,
        }
    return {**block, "because": " ".join([*_untaught(fitted), _because(block)])}


def _untaught(fitted: FittedModel) -> list[str]:
    """What the student is where no step of its training is kept; nothing where one is."""
    trained = fitted.trained
    if trained.best_step or trained.average is not None or not trained.last_step:
        return []
    head = ", with a linear probe as its last layer" if begins_as_probe(fitted.listeners) else ""
    steps = counted(trained.last_step, "step")
    return [
        f"The distillation was discarded: none of its {steps} was kept, so the saved model is the "
        f"student before distillation{head}."
    ]


def _written(fitted: FittedModel, told: Predictions) -> Predictions:
    """The test rows whose answers are compared: all, or of a model that writes some of those that
    it wrote to for its score."""
    if fitted.recipe.task not in WRITERS:
        return told
    answers = told.predictions or ()
    at: Ints = np.array([i for i, one in enumerate(answers) if one is not None], dtype=np.int64)
    at = at[:MOST_WRITTEN]
    return replace(told.take(at), wrong=None, sure=None, errors=None)


def _plain(said: Sequence[object]) -> list[Any]:
    """Answers as the labels are written; an empty one is none."""
    return [None if one is None or (isinstance(one, str) and one == "") else one for one in said]


def _difference(found: PairedVerdict, scale: float) -> dict[str, Any]:
    """A verdict and its difference, in the metric's own unit."""
    return {"verdict": found.verdict, "difference": to_json(found.difference(scale))}


class KeptShare(TypedDict):
    """The share of its teacher's score that a student keeps."""

    value: float
    low: float | None
    high: float | None


def _because(block: Mapping[str, Any]) -> str:
    kept, speed = block["kept"], block["speed"]["value"]
    quick = f" at {speed:.2g} times its speed" if speed is not None else ""
    value, name = block["student"]["value"], block["metric"].replace("_", " ")
    if kept["value"] is None:
        taught = block["teacher"]["value"]
        return f"The student's {name} is {value:.3g}, its teacher's {taught:.3g}{quick}."
    told = f"{_kept_words(kept, name)}{quick}"
    gain = block["alone"].get("difference")
    if gain is None or gain["value"] is None:
        return f"{told}."
    more = f"{100 * gain['value']:+.1f} points{_span(gain, '+')}"
    return f"{told}; beside the same model without a teacher: {more}."


def _kept_words(kept: KeptShare, name: str) -> str:
    """A share of more than all is no merit of the student unless its interval says so."""
    share = f"{100 * kept['value']:.1f} %{_span(kept, '')}"
    if kept["value"] < 1:
        return f"The student keeps {share} of its teacher's {name}"
    above = kept["low"] is not None and kept["low"] > 1
    stands = "is above its teacher" if above else "is not shown to be below its teacher"
    return f"The student {stands} in {name} (student ÷ teacher {share})"


def _span(estimate: Mapping[str, Any], sign: str) -> str:
    if estimate["low"] is None:
        return ""
    low, high = (format(100 * estimate[end], f"{sign}.1f") for end in ("low", "high"))
    return f" ({low} to {high})"


def _total(known: Sequence[Any]) -> int | None:
    return sum(known) if all(isinstance(one, int) for one in known) else None


def _shown(recipe: Recipe) -> str:
    model = recipe.model
    name = Path(model.name).name if Path(model.name).is_absolute() else model.name
    # A student that was cut out of its teacher lies in the run's folder called model.
    name = Path(model.name).parent.name if name == "model" else name
    return name if model.layers is None else f"{name}, {counted(model.layers, 'block')}"


def _speed(session: FittedSession, lessons: Lessons) -> dict[str, Any]:
    """How long teacher and student take for the same validation rows, one beside the other."""
    import torch

    fitted, sides = session.fitted, session.fitted.ready.sides
    count = min(TIMED_ROWS, len(sides.valid))
    if not count:
        return {"value": None, "why": "there are no validation rows to time"}
    if fitted.recipe.task in WRITERS:
        device, task = fitted.job.accelerator.device, fitted.job.task
        rows = np.arange(min(count, 8))
        batch = device_batch(task, sides.valid, rows, device)
        network: Any = fitted.network.to(device).eval()
        (teacher,) = lessons.teachers
        teacher.network.to(device)

        def asked() -> None:
            with torch.inference_mode():
                teacher.batch(task, batch)

        def answered() -> None:
            with torch.inference_mode():
                task.forward(network, batch)

        count = len(rows)
    else:
        table: Table = sides.valid_rows.table.take(np.arange(min(count, len(sides.valid_rows))))
        examples: Any = sides.valid.take(np.arange(len(table)))
        predictor, count = session.predictor, len(table)

        def asked() -> None:
            for one in lessons.teachers:
                one.network.cpu()
                one.rows(table, examples)

        def answered() -> None:
            predictor.answer(table)

    slow, quick = [], []
    for _ in range(TIMES):
        slow.append(_seconds(asked))
        quick.append(_seconds(answered))
    teacher_ms, student_ms = (1000 * min(each) / count for each in (slow, quick))
    return {
        "value": round(teacher_ms / student_ms, 2),
        "teacher_ms": round(teacher_ms, 3),
        "student_ms": round(student_ms, 3),
        "rows": count,
        "why": "milliseconds a row, the quickest of three passes over the same validation rows",
    }


def _seconds(act: Callable[[], None]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def _alone(fitted: FittedModel) -> Predictor | str:
    """The same model, trained as ``train`` would on the same rows, by their labels alone."""
    ready, recipe = fitted.ready, fitted.recipe
    bare = _without_teacher(recipe)
    because = (
        "the same model, rows and seed, by the labels alone (distill.alone=false leaves it out)"
    )
    notify(Decision("student alone", "trained to be held against", because))
    rows, (train, valid) = concatenate(ready.sides.train_rows.table, ready.sides.valid_rows.table)
    lot = ready.prepared.added
    own = [] if lot is None else [i for i, origin in enumerate(lot.origins) if origin != ORIGIN]
    try:
        prepared = prepare(bare, rows)
        if lot is not None and own:
            origins = tuple(lot.origins[i] for i in own)
            prepared = prepared.extended(
                Added(lot.table.take(own), np.asarray(lot.weights)[own], origins)
            )
        return Predictor.of(fit(prepared, train, valid))
    except InputError as error:
        return f"{error.what} {error.rule}"


def _without_teacher(recipe: Recipe) -> Recipe:
    """The recipe of a plain run of the student: of a model that was cut out of its teacher the one
    that the teacher began with."""
    model, train = recipe.model, recipe.train
    (first, *_) = recipe.distill.teacher or ("",)
    if Path(model.name) == Path(first) / "model":
        began = read_recipe(Path(first) / RECIPE).model
        kept = {"layers": model.layers, "layers_kept": model.layers_kept, "pooling": model.pooling}
        model = ModelPart(**{**began.model_dump(include={"name", "revision"}), **kept})
    decided = {key: getattr(train, key) for key in ("threads", "precision", "matmul", "metric")}
    return Recipe.model_validate(
        recipe.model_dump()
        | {
            "distill": DistillPart().model_dump(),
            "model": model.model_dump(),
            "train": TrainPart(**decided).model_dump(),
            "methods": {},
            "data": {**recipe.data.model_dump(), "unlabelled": None, "unlabelled_by": None},
        }
    )


ANALYSIS = Analysis("distilled", ("distilled",), find, confirm)
