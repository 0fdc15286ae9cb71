"""``Predictor``: the common interface to a trained model, or to the average of several.

Loaded once, and usable from several threads: rows are read in parallel, but one thread at a time
queries the models, since a forward pass already uses the full machine and a tokenizer stores its
padding as state.

    Predictor.load(runs)    finished runs, from their folders
    Predictor.of(fitted)    the result of a fit, without a folder
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from holdfast.contract.advice import advising
from holdfast.contract.inference import (
    Data,
    GenerativePredictor,
    InferenceOptions,
    LabelledRequest,
    PredictionRequest,
    PredictionType,
    Scorer,
    TaskPredictions,
    TaskPredictor,
    run_recipe,
    within_limits,
)
from holdfast.contract.run_folder import RECIPE, open_run, unsealed_decisions
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.records import Decision, Ints, Scores
from holdfast.data.raw import source_path
from holdfast.data.table import Table
from holdfast.prepare.clean import clean_like_run
from holdfast.recipe import DataPart, Recipe
from holdfast.runs.prediction_file import NameSlices, Predicted
from holdfast.runs.threshold import ThresholdRule, load_rule
from holdfast.tasks import task_definition
from holdfast.training.machine.machine import flushed_subnormals

if TYPE_CHECKING:
    from holdfast.contract.fit import FittedModel


# From runs and the predictor of their average to their joint predictor, the block about it in
# ``evaluate``, and the decisions.
Join = Callable[
    [Sequence[Path], TaskPredictor], tuple[TaskPredictor, Mapping[str, Any], tuple[Decision, ...]]
]


D = TypeVar("D")
R = TypeVar("R", PredictionRequest, LabelledRequest)


def unchanged(table: Table) -> Table:
    """The rows unchanged, where a run has no cleaning steps."""
    return table


class Predictor:
    """Predicts rows and scores labelled ones, with models in memory.

    ``runs`` are the folders of the models (none for a fit), ``part`` is the first run's recipe for
    its data, ``decisions`` are notes on the runs (for example that a folder has no checksums);
    ``clean`` applies the cleaning steps of training to a table's texts; ``rule`` decides which rows
    ``predict`` leaves without a prediction, where the run has a threshold; ``ensemble`` describes
    how several runs predict together.
    """

    def __init__(
        self,
        model: TaskPredictor,
        part: DataPart,
        runs: Sequence[Path] = (),
        decisions: tuple[Decision, ...] = (),
        clean: Callable[[Table], Table] = unchanged,
        rule: ThresholdRule | None = None,
    ) -> None:
        self._model = model
        self._lock = threading.Lock()
        self._clean = clean
        self.rule = rule
        self.ensemble: Mapping[str, object] | None = None
        self.part = part
        self.runs = tuple(runs)
        self.decisions = decisions

    @classmethod
    def load(cls, runs: Path | Sequence[Path], join: Join | None = None) -> Predictor:
        """The predictor of a finished run, or of several of the same task: of their average, or
        combined by ``join`` (``analyses.ensemble``).

        Raises ``RunError`` where one is not a finished run or was changed since, ``RecipeError``
        where they cannot be combined.
        """
        paths = [runs] if isinstance(runs, Path) else list(runs)
        recipe = _shared_recipe(paths)
        rule, decisions = load_rule(paths)
        ensemble: Mapping[str, Any] | None = None
        with flushed_subnormals():
            model = task_definition(recipe.task).use_runs(paths)
            if join is not None:
                model, ensemble, join_decisions = join(paths, model)
                decisions = (*decisions, *join_decisions)
        treated = partial(clean_like_run, recipe=recipe)
        predictor = cls(
            model, recipe.data, paths, (*unsealed_decisions(paths), *decisions), treated, rule
        )
        predictor.ensemble = ensemble
        return predictor

    @classmethod
    def of(cls, fitted: FittedModel) -> Predictor:
        """The predictor of a fit's best checkpoint, calibrated like its saved folder."""
        recipe = fitted.recipe
        model = fitted.training_plan.definition.use_fitted(fitted)
        return cls(model, recipe.data, clean=partial(clean_like_run, recipe=recipe))

    @property
    def prediction_type(self) -> PredictionType:
        """The type of a prediction: ``text`` (also for a class), ``number`` or ``list``."""
        return self._model.prediction_type

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the predicted probabilities, in their order; empty where there are none."""
        return self._model.names

    @property
    def model(self) -> TaskPredictor:
        """The model itself, for inspection; only within ``alone``."""
        return self._model

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other threads from querying the model inside the ``with`` block."""
        with self._lock, flushed_subnormals():
            yield

    def read_rows(self, data: Data, options: InferenceOptions | None = None) -> PredictionRequest:
        """The rows of a file as ``train`` reads them, or of a list, with the run's limits."""
        return self._read(self._model.read_rows, data, options or InferenceOptions())

    def predict_table(self, table: Table) -> TaskPredictions:
        """The predictions for these rows, in their order, in one pass."""
        with self._lock, flushed_subnormals():
            return self._model.predict(table)

    def predict(
        self,
        data: Data,
        options: InferenceOptions | None = None,
        *,
        probabilities: bool = False,
        name_slices: NameSlices | None = None,
    ) -> Predicted:
        """Every row of a file or a list with its prediction, made part by part while it is read;
        ``None`` for a row below the run's threshold.

        Raises ``RecipeError`` for ``probabilities`` where predictions are not classes, and for
        generation options where the model does not generate text.
        """
        options = options or InferenceOptions()
        if probabilities and not self.names:
            rule = "does not apply to this run: its predictions are not classes"
            raise RecipeError("predict.probabilities", rule, True, "Leave it out.")
        file = source_path(data) if isinstance(data, str) else None
        names = self.names if probabilities else ()
        request, answer = self.read_rows(data, options), self._answer_function(options)
        return Predicted(request, self._model, answer, names, file, self.rule, name_slices)

    def _answer_function(self, options: InferenceOptions) -> Callable[[Table], TaskPredictions]:
        """A function that predicts rows, with the generation settings of ``options``."""
        if options.max_tokens is None and not options.temperature:
            return self.predict_table
        if not isinstance(self._model, GenerativePredictor):
            rule = "only applies to generative models, which this run's model is not"
            given = options.max_tokens if options.max_tokens is not None else options.temperature
            option = "--max-tokens" if options.max_tokens is not None else "--temperature"
            raise RecipeError(option, rule, given, "Leave it out.")
        model = self._model.with_generation(options.max_tokens, options.temperature)

        def answer(table: Table) -> TaskPredictions:
            import torch

            with self._lock, flushed_subnormals(), torch.random.fork_rng():
                torch.manual_seed(options.seed)
                return model.predict(table)

        return answer

    def read_labelled_rows(
        self, data: str, options: InferenceOptions | None = None
    ) -> LabelledRequest:
        """The labelled rows of a file, with the run's limits, columns and classes."""
        return self._read(self._model.read_labelled_rows, data, options or InferenceOptions())

    def _read(
        self, read: Callable[[D, InferenceOptions], R], data: D, options: InferenceOptions
    ) -> R:
        with advising(), within_limits(self.part, options.limits):
            request = read(data, options)
            return replace(request, table=self._clean(request.table))

    def judge(self, table: Table) -> Scorer:
        """A function that scores labelled rows: all, or those at some positions."""
        with self._lock, flushed_subnormals():
            score = self._model.scorer(table)

        def alone(positions: Ints | None = None) -> Scores:
            # A generative model is queried again here, for a sample of these rows.
            with self._lock, flushed_subnormals():
                return score(positions)

        return alone


def _shared_recipe(runs: Sequence[Path]) -> Recipe:
    """The recipe of the first run; the others must have the same task and cleaning steps."""
    for run in runs:
        open_run(run)
    recipes = [run_recipe(run) for run in runs]
    for run, one in zip(runs, recipes, strict=True):
        if one.task is None:
            rule = "names no task, although every run's recipe does"
            remedy = "The file is damaged; restore it from a copy."
            raise RunError(str(run / RECIPE), rule, None, remedy)
    tasks = sorted({str(one.task) for one in recipes})
    if len(tasks) > 1:
        rule = "can be averaged only if they have the same task"
        raise RecipeError("several runs", rule, tasks, "Give runs of one task.")
    if any(one.treat != recipes[0].treat for one in recipes):
        raise RecipeError(
            "several runs",
            "can be averaged only if they clean texts in the same way",
            "; ".join(str(one.treat) for one in recipes),
            "Give runs with the same `clean`.",
        )
    return recipes[0]
