"""Using finished text classifiers: answers for other rows, and their score where labels are known.

One class a text, several labels or a number: the run says which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, Ints, Scores
from holdfast.data.columns import choose_columns
from holdfast.data.labelled import load_labelled
from holdfast.data.memory import raw_of_texts
from holdfast.data.raw import Raw
from holdfast.data.source import read_source
from holdfast.data.table import Table
from holdfast.data.unlabelled import renamed, unlabelled
from holdfast.evaluate.forward import answer, groups_of
from holdfast.models.saved import SavedClassifier, load_saved
from holdfast.pipeline.folder import RECIPE, model_of, need_run, open_run
from holdfast.pipeline.kinds import classification as shared
from holdfast.pipeline.kinds import one_number, problems, several_labels
from holdfast.pipeline.kinds.problems import Problem, ProblemAnswers
from holdfast.pipeline.using import (
    Answered,
    Answers,
    Asked,
    Data,
    Options,
    data_part,
    encoding_for,
    group_for,
    label_for,
    read_columns,
)
from holdfast.recipe import DataPart, Recipe, read_recipe

PROBLEMS: dict[str, Problem] = {
    one.kind: one for one in (several_labels.PROBLEM, one_number.PROBLEM)
}
ANSWERED: dict[str, Answered] = {"class": "text", "several": "list", "number": "number"}


class TextPredictor:
    """Text classifiers of one kind of label, averaged."""

    def __init__(self, runs: Sequence[Path]) -> None:
        self._kind = kind_of_labels(runs, "predict")
        self._part = data_part(runs[0])
        least = 2 if self._kind == "class" else 1
        self._saved = [load_saved(model_of(run), least) for run in runs]
        self.answered = ANSWERED[self._kind]
        self.names = () if self._kind == "number" else self._saved[0].classes
        if self._kind == "class":
            shared.same_classes(self._saved, "predict")

    def ask(self, data: Data, options: Options) -> Asked:
        raw, decisions = self._raw(data, options)
        names = read_columns(self._part)
        if names is None:
            columns, chosen, _ = choose_columns(raw, text=options.text, need_label=False)
            decisions = (*decisions, *(d for d in chosen if d.what != "label column"))
        else:
            view = renamed(raw, names, options.text)
            view = replace(view, table=view.table.select(list(names)))
            template = self._part.template
            text = None if template else names
            columns, _, _ = choose_columns(view, text=text, template=template, need_label=False)
            return Asked(raw, unlabelled(view, columns), decisions=decisions)
        return Asked(raw, unlabelled(raw, columns), decisions=decisions)

    def _raw(self, data: Data, options: Options) -> tuple[Raw, tuple[Decision, ...]]:
        if not isinstance(data, str):
            return raw_of_texts(data, read_columns(self._part) or ()), ()
        encoding, decisions = encoding_for(self._part, data, options)
        raw = read_source(data, encoding, None)
        return raw, (*decisions, *raw.decisions)

    def answer(self, table: Table) -> Answers:
        if self._kind == "class":
            return shared.class_answers(self._saved, answer, table)
        names, mean = problems.average(self._saved, table, sets=self._kind == "several")
        if self._kind == "several":
            return several_labels.answers(mean, names)
        return one_number.answers(mean[:, 0])


class JudgedTexts:
    """Labelled texts with the answers of a run, or of the average of several."""

    def __init__(self, runs: Sequence[Path], data: str, options: Options) -> None:
        kind = kind_of_labels(runs, "evaluate")
        saved = [load_saved(model_of(run), 2 if kind == "class" else 1) for run in runs]
        self.table, self.decisions = _labelled(runs[0], data, options, saved[0], kind)
        if kind == "class":
            outputs = shared.mean_outputs(saved, answer, self.table)
            self._score: Callable[[Ints | None], Scores] = partial(
                shared.score_some, outputs, saved[0].classes
            )
            return
        problem, recipe = PROBLEMS[kind], read_recipe(runs[0] / RECIPE)
        answers = _problem_answers(problem, saved, self.table, runs[0])
        self._score = partial(_score_problem, problem, answers, recipe, runs[0], saved[0].classes)

    def score(self, positions: Ints | None = None) -> Scores:
        return self._score(positions)


def kind_of_labels(runs: Sequence[Path], command: str) -> str:
    """The kind of label that all these runs learned.

    Raises ``RecipeError`` where they differ.
    """
    for run in runs:
        need_run(run)
    kinds = {data_part(run).label_kind or "class" for run in runs}
    shapes = {_shape(data_part(run)) for run in runs}
    for what, found in (("kind of label", kinds), ("columns or template", shapes)):
        if len(found) > 1:
            raise RecipeError(
                f"holdfast {command}",
                f"averages only runs of the same {what}",
                sorted(found),
                "Give runs that were trained alike.",
            )
    return kinds.pop()


def _shape(part: DataPart) -> str:
    """How a run makes its texts: two runs on files that call the column otherwise are alike."""
    return part.template or f"{len(part.text or ('text',))} column(s)"


def _labelled(
    run: Path, data: str, options: Options, saved: SavedClassifier, kind: str
) -> tuple[Table, tuple[Decision, ...]]:
    part = data_part(run)
    encoding, decisions = encoding_for(part, data, options)
    names, text = read_columns(part), options.text
    group, dropped = group_for(part, data, encoding)
    table = load_labelled(
        data,
        text=(part.text or text) if not part.template else None,
        label=label_for(part, options),
        group=group,
        template=part.template,
        encoding=encoding,
        kind=kind,
        separator=part.label_separator,
        names=saved.classes,
        labels=part.labels,
        view=partial(renamed, expected=names, given=text) if names else None,
    )
    return table, (*decisions, *dropped)


def _problem_answers(
    problem: Problem, saved: Sequence[SavedClassifier], table: Table, run: Path
) -> ProblemAnswers:
    """The mean of the models' answers, in the form of the first run's loop."""
    scale = _scale(run)
    if len(saved) == 1:
        return problems.ask(problem, saved[0], table, scale)
    _, mean = problems.average(saved, table, sets=problem.kind == "several")
    raw: Floats = several_labels.logits(mean) if problem.kind == "several" else mean
    labels = problem.labels(table, scale)
    rows = table.column("row")
    return ProblemAnswers(rows, labels, problem.from_saved(raw, scale), groups_of(table))


def _score_problem(
    problem: Problem,
    answers: ProblemAnswers,
    recipe: Recipe,
    run: Path,
    names: tuple[str, ...],
    positions: Ints | None,
) -> Scores:
    made = problem.make(shared.take_rows(answers, positions), recipe, _scale(run))
    return problem.score(made, names)


def _scale(run: Path) -> Any:
    return problems.scale_of(open_run(run))
