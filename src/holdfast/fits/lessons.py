"""Distillation: find a run's teachers, check that they may teach it, and get their outputs.

Teachers know the training rows of a student, but must not know any row that it is scored on: a
teacher's knowledge of such a row would reach the student through its outputs for other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.augment.synthesize import crossed
from holdfast.contract.fit import EncodedSplits, PreparedData
from holdfast.contract.run_folder import open_run
from holdfast.core.decisions import notify
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.records import Decision, Floats, Ints, softmax
from holdfast.core.seeds import generator
from holdfast.core.tasks import GENERATIVE_TASKS, LABELLED_TEXT_TASKS
from holdfast.core.updates import ForwardPass, logits_of
from holdfast.core.wording import count_phrase
from holdfast.data.table import AddedRows, Table, added_texts
from holdfast.fits.augmentation import row_positions
from holdfast.fits.seen_rows import AS_TEACHER, refuse_seen_rows
from holdfast.fits.teachers import (
    RowAnswers,
    Teacher,
    answers_at,
    inside_losses,
    load_inside_teacher,
    load_teachers,
)
from holdfast.methods.teacher import DistillationLoss, Problem, TeacherOutputs
from holdfast.plan.control import PASSIVE_POLICIES
from holdfast.prepare.rows import Divided
from holdfast.recipe import Recipe
from holdfast.recipe.resolution import ResolvedRecipe
from holdfast.tasks.tags.losses import EncodedWords

if TYPE_CHECKING:
    import torch

    from holdfast.training.task import Examples, TrainingTask

TEACHER = "distill.teacher"
ORIGIN = "taught"
# Epochs over the training rows, and the most rows passed; with added rows, over all rows.
PASSES = ((1000, 24.0), (5000, 10.0), (None, 5.0))
PASSES_OF_ALL = 4.0
# A static student passes a row in a fraction of the time, and needs more passes: of so many rows.
STATIC_PASSED = 40_000
# The learning rate of a static student's vectors, as a share of its head's.
STATIC_SHARE = 0.15
# Crossed texts per training and unlabelled row, by default only where there are no unlabelled rows
# or the student is static; and the most in all.
CROSSED, MOST_CROSSED, MOST_CROSSED_STATIC = 6.0, 3000, 6000
PROBLEMS: dict[str, Problem] = {"several": "several", "number": "number"}


@dataclass(frozen=True, slots=True, eq=False)
class Lessons:
    """The teachers and their outputs for the prepared rows (``rows``, one per teacher) and for the
    ``added`` ones; ``None`` where teachers are queried at every pass. ``inside`` is the network of
    the first teacher, where the student also learns from its blocks."""

    teachers: tuple[Teacher, ...]
    problem: Problem
    rows: tuple[RowAnswers, ...] | None = None
    added: tuple[RowAnswers, ...] = ()
    inside: Any = None

    def term(
        self,
        prepared: PreparedData,
        recipe: ResolvedRecipe,
        train: Ints,
        splits: EncodedSplits,
        loaded: Any,
        task: TrainingTask,
    ) -> DistillationLoss:
        """See ``contract.fit.TeacherLoss``."""
        distill = recipe.distill
        added_rows, own_rows = prepared.added, len(splits.train)
        selected = (
            np.zeros(0, np.int64)
            if added_rows is None
            else added_rows.positions_of(recipe.train.added)
        )
        unlabelled = (
            0 if added_rows is None else sum(added_rows.origins[int(i)] == ORIGIN for i in selected)
        )
        labelled = own_rows + len(selected) - unlabelled
        scaled = self.problem == "number"
        inside: Any = loaded.scale.inside if scaled else np.asarray
        if self.rows is None:
            query: Any = _LiveOutputs(self.teachers, task, inside if scaled else None)
        else:
            # The index of each training example of the fit among the prepared examples.
            rows = np.asarray(train)[row_positions(splits.train, len(train))]
            if isinstance(prepared.examples, EncodedWords):
                positions: Ints = np.searchsorted(prepared.examples.kept, rows)
            else:
                positions = rows
            row_answers = [answers_at(one, positions) for one in self.rows]
            added = self.added
            count = len(row_answers)
            each = [(one,) for one in added] if added else [()] * count
            tables = [
                np.concatenate([inside(one.values), *(inside(a.values[selected]) for a in more)])
                for one, more in zip(row_answers, each, strict=True)
            ]
            query = _StoredOutputs([np.asarray(t, dtype=np.float32) for t in tables], row_answers)
        return DistillationLoss(
            query,
            labelled,
            own_rows + len(selected),
            distill.weight,
            distill.temperature,
            self.problem,
            distill.compared,
            None if self.inside is None else inside_losses(recipe, self.inside, loaded.network),
        )


class _StoredOutputs:
    """Teacher outputs that were computed once."""

    def __init__(self, tables: Sequence[Floats], answers: Sequence[RowAnswers]) -> None:
        import torch

        self._tables = [torch.from_numpy(np.ascontiguousarray(one)) for one in tables]
        self._starts = answers[0].starts
        known = [one.known for one in answers if one.known is not None]
        # A row that one teacher cannot read gets no output.
        self._known = torch.from_numpy(np.logical_and.reduce(known)) if known else None

    def __call__(self, passed: ForwardPass) -> TeacherOutputs:
        import torch

        device = logits_of(passed.output).device
        rows = np.asarray(passed.rows)
        if self._starts is not None:
            parts = [np.arange(self._starts[row], self._starts[row + 1]) for row in rows]
            rows = np.concatenate(parts) if parts else rows
        at = torch.from_numpy(rows)
        known = None if self._known is None else self._known[at].to(device)
        return TeacherOutputs([one[at].to(device) for one in self._tables], known)


class _LiveOutputs:
    """Teachers that are queried at each pass."""

    def __init__(
        self,
        teachers: Sequence[Teacher],
        task: TrainingTask,
        inside: Callable[[Floats], Floats] | None,
    ) -> None:
        self._teachers = teachers
        self._task = task
        self._inside: Any = inside

    def __call__(self, passed: ForwardPass) -> TeacherOutputs:
        import torch

        device = logits_of(passed.output).device
        logits_by_teacher = []
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for one in self._teachers:
                one.network.to(device)
                logits: torch.Tensor = one.batch(self._task, passed.batch).float()
                logits_by_teacher.append(logits if self._inside is None else self._scaled(logits))
        return TeacherOutputs(logits_by_teacher)

    def _scaled(self, values: torch.Tensor) -> torch.Tensor:
        import torch

        inside = self._inside(values.cpu().numpy())
        return torch.from_numpy(np.asarray(inside, dtype=np.float32)).to(values.device)


def with_lessons(prepared: PreparedData, divided: Divided) -> PreparedData:
    """The prepared data with the outputs of the recipe's teachers for its rows, and with unlabelled
    texts that only the teachers label.

    Raises ``RunError`` where a teacher is not a finished run, or knows rows that are to be scored;
    ``RecipeError`` where it cannot teach this student.
    """
    teacher_runs = prepared.recipe.distill.teacher
    if not teacher_runs:
        return prepared
    runs = [Path(one) for one in teacher_runs]
    check_teachers(runs, prepared.recipe)
    for run in runs:
        refuse_seen_rows(run, divided, AS_TEACHER)
    teachers = load_teachers(runs, prepared)
    label_type = prepared.rows.columns.label_kind or "class"
    problem: Problem = PROBLEMS.get(label_type, "class") if _is_text_task(prepared) else "class"
    live = _live_reason(prepared, teachers)
    inside = load_inside_teacher(runs[0], prepared, teachers[0].differs(prepared))
    lessons = Lessons(teachers, problem, inside=inside)
    if live:
        decision = Decision("teacher outputs", "computed at every update", live)
    else:
        rows = _teacher_answers(teachers, prepared.rows, prepared.examples)
        size = f"{count_phrase(len(prepared.rows), 'row')} by {count_phrase(len(runs), 'teacher')}"
        because = f"{size}: the outputs for a row never change"
        decision = Decision("teacher outputs", "computed once", because)
        lessons = replace(lessons, rows=rows)
    prepared = _student_defaults(_with_texts(prepared, lessons, divided), divided)
    if lessons.rows is not None and prepared.added is not None:
        added = _teacher_answers(teachers, prepared.added.table, prepared.added_examples)
        lessons = replace(lessons, added=added)
    notify(decision)
    return replace(prepared, lessons=lessons)


def _teacher_answers(
    teachers: Sequence[Teacher], table: Table, examples: Examples | None
) -> tuple[RowAnswers, ...]:
    answers = [one.rows(table, examples) for one in teachers]
    return tuple(one for one in answers if one is not None)


def _student_defaults(prepared: PreparedData, divided: Divided) -> PreparedData:
    """Defaults for a student that differ from those without a teacher, where the recipe leaves them
    open: no contrast of classes, more epochs, and the newest checkpoint that is not worse: with the
    one of the lowest loss, 72 validation rows ended a student of TREC at 87.3 % that otherwise has
    91.7 (benchmarks/distill.py)."""
    recipe = prepared.recipe
    if "contrast" not in recipe.methods:
        recipe = recipe.with_changes(methods={"contrast": False})
    if recipe.model.static:
        recipe = _static_defaults(recipe, len(prepared.loaded.network.layers()))
    by_loss = recipe.train.metric in (None, "refined_loss")
    if recipe.train.keep is None and by_loss and recipe.task not in GENERATIVE_TASKS:
        recipe = recipe.with_changes(train={"keep": "newest_unless_worse"})
    if recipe.train.epochs is None and recipe.task not in GENERATIVE_TASKS:
        n = max(1, len(divided.splits.train))
        added_count = 0 if prepared.added is None else len(prepared.added)
        min_epochs = next(epochs for rows, epochs in PASSES if rows is None or n <= rows)
        least = STATIC_PASSED if recipe.model.static else 0
        passed = max(PASSES_OF_ALL * (n + added_count), least)
        epochs = round(max(min_epochs, passed / n), 3)
        recipe = recipe.with_changes(train={"epochs": epochs})
        because = (
            f"{n:,} training rows and {added_count:,} added ones; teacher outputs can be "
            "learned for more epochs than labels before they are memorized"
        )
        notify(Decision("train.epochs", f"{epochs:g}", because))
    return replace(prepared, recipe=recipe)


def _static_defaults(recipe: Recipe, layers: int) -> Recipe:
    """Those of a static student of so many layers: a new head, with which the vectors change more
    than with that of a linear probe, and a lower learning rate for the vectors."""
    if "probe_first" not in recipe.methods:
        recipe = recipe.with_changes(methods={"probe_first": False})
    if recipe.train.layer_decay is None:
        decay = round(STATIC_SHARE ** (1 / (layers - 1)), 3)
        recipe = recipe.with_changes(train={"layer_decay": decay})
    because = "a static student trains better from a new head than from the linear probe"
    notify(Decision("methods.probe_first", str(recipe.methods["probe_first"]).lower(), because))
    return recipe


def check_teachers(runs: Sequence[Path], recipe: Recipe) -> None:
    """Refuse a folder that is not a finished run, or is one of another task."""
    for run in runs:
        try:
            task = open_run(run).get("task")
        except RunError as error:
            raise error.reworded(what=f"the teacher {error.what} ({TEACHER})") from error
        if task != recipe.task:
            rule = f"names {run}, which was trained on {task}: it cannot teach {recipe.task}"
            raise RecipeError(TEACHER, rule, None, "Name a run of the same task.")


def _is_text_task(prepared: PreparedData) -> bool:
    return prepared.recipe.task in LABELLED_TEXT_TASKS


def _live_reason(prepared: PreparedData, teachers: Sequence[Teacher]) -> str:
    """Why teachers are queried at every pass; empty where they are queried once.

    Raises ``RecipeError`` where they would have to be queried at every pass, but cannot be.
    """
    recipe = prepared.recipe
    enrichments = [name for name, setting in recipe.enrich.items() if setting is not False]
    policy_acts = recipe.control.policy not in PASSIVE_POLICIES
    differs = next((why for one in teachers if (why := one.differs(prepared))), None)
    if recipe.task in GENERATIVE_TASKS:
        if differs is None:
            return "each target token has an output for every word of the vocabulary"
        rule = f"cannot be compared token by token: {differs}"
        remedy = (
            "Choose a student with the teacher's tokenizer: --layers K, or another model of its "
            "family. Or train on text that the teacher generates: holdfast predict, then holdfast "
            "train."
        )
        raise RecipeError("the teacher and the student", rule, None, remedy)
    if not enrichments:
        return "" if not policy_acts or differs else "control.policy may turn on data augmentation"
    if differs is None:
        return (
            f"rows are augmented ({', '.join(enrichments)}), and the teacher predicts each "
            "augmented row"
        )
    rule = f"needs a teacher that can read the student's augmented rows, but {differs}"
    raise RecipeError(
        f"augment.{enrichments[0]}", rule, None, "Remove it, or choose a student of its family."
    )


def _with_texts(prepared: PreparedData, lessons: Lessons, divided: Divided) -> PreparedData:
    """Add texts without labels: unlabelled ones, and those that are combined from training rows,
    each labelled with the outputs of the teachers."""
    texts, recipe = list(divided.unlabelled), prepared.recipe
    if recipe.data.unlabelled is not None:
        recipe = recipe.with_changes(data={"unlabelled_by": "teacher"})
        because = "the teacher's output for each text is the target, since there is no label"
        value = f"{count_phrase(len(texts), 'text')}, labelled by the teacher"
        if not texts:
            value, because = "none", "the file holds no text, or only duplicates of other rows"
        notify(Decision("unlabelled rows", value, because, prominent=True))
    has_single_texts = _is_text_task(prepared) and not prepared.rows.has_pairs
    per_row = recipe.distill.crossed
    if per_row is None:
        per_row = CROSSED if has_single_texts and (recipe.model.static or not texts) else 0
    elif per_row and not has_single_texts:
        rule = "needs rows of one text each, which can be combined"
        raise RecipeError("distill.crossed", rule, recipe.task, "Leave it out.")
    recipe = recipe.with_changes(distill={"crossed": per_row})
    if per_row:
        known_texts = [*divided.splits.train.table.column("text"), *texts]
        most = MOST_CROSSED_STATIC if recipe.model.static else MOST_CROSSED
        count = min(most, round(per_row * len(known_texts)))
        crossed_texts = crossed(known_texts, count, generator(recipe.seed, "crossed rows"))
        because = (
            "each joins the beginning of one text to the end of another, and the teacher labels "
            "it: on its own training rows a teacher adds little to the labels (distill.crossed)"
        )
        made = count_phrase(len(crossed_texts), "text")
        notify(Decision("combined texts", made, because, prominent=True))
        texts += crossed_texts
    prepared = replace(prepared, recipe=recipe)
    return prepared.extended(_label_texts(prepared, lessons, texts)) if texts else prepared


def refuse_unlabelled(recipe: Recipe) -> None:
    """Refuse unlabelled rows for a task in which teachers cannot label them."""
    if recipe.data.unlabelled is not None and recipe.task not in LABELLED_TEXT_TASKS:
        rule = f"is not supported for {recipe.task} with a teacher: it needs texts with a class, "
        rule += "several labels or a number each"
        raise RecipeError("data.unlabelled", rule, recipe.data.unlabelled, "Leave it out.")


def _label_texts(prepared: PreparedData, lessons: Lessons, texts: Sequence[str]) -> AddedRows:
    import datasets

    like = prepared.rows
    table = added_texts(like, texts, np.zeros(len(texts), int), origin=ORIGIN)
    label_values = np.mean(
        [_teacher_shares(one, table.table, lessons.problem) for one in lessons.teachers], axis=0
    )
    if lessons.problem == "class":
        return added_texts(like, texts, label_values.argmax(axis=1), origin=ORIGIN)
    columns: dict[str, Any] = {"row": table.table.column("row"), "text": list(texts)}
    if lessons.problem == "several":
        columns["labels"] = [np.flatnonzero(line > 0.5).tolist() for line in label_values]
    else:
        columns["value"] = label_values[:, 0].astype(np.float64)
    columns["label"] = np.zeros(len(texts), dtype=np.int64)
    rows = datasets.Dataset.from_dict(columns)
    return replace(table, table=replace(table.table, rows=rows))


def _teacher_shares(teacher: Teacher, table: Table, problem: Problem) -> Floats:
    """Probabilities [n, outputs] of the texts; numbers unchanged."""
    answers = teacher.rows(table, None)
    assert answers is not None
    values = answers.values.astype(np.float64)
    if problem == "number":
        return values
    if problem == "several":
        return np.asarray(1 / (1 + np.exp(-values)))
    return softmax(values)
