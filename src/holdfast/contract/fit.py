"""The records that the pipeline's parts exchange, and what a task must define."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeVar

import numpy as np

from holdfast.contract.extra_features import ExtraFeaturesResult
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Finding, Floats, Ints, Outputs, Snapshot
from holdfast.core.tasks import LABELLED_TEXT_TASKS
from holdfast.core.updates import LossTerm
from holdfast.data.table import AddedRows, Table, TrainSplit, ValidSplit, join_added
from holdfast.methods.balance import Rates
from holdfast.metrics import Metric, find_metric
from holdfast.models.compute.prefix import Prefix
from holdfast.models.layers import count_parameters
from holdfast.models.network_copy import copy_network
from holdfast.recipe import DataPart, Recipe, as_settings, known_keys, override
from holdfast.recipe.resolution import ResolvedRecipe
from holdfast.training.observe import Observer
from holdfast.training.plan import Plan, probe_positions
from holdfast.training.task import GrowingExamples

if TYPE_CHECKING:
    import torch

    from holdfast.contract.inference import TaskPredictor
    from holdfast.contract.written_text import Verbatim, WrittenSamples
    from holdfast.models.base import LoadedModel, Network
    from holdfast.training.loop import TrainingResult
    from holdfast.training.machine.machine import MachineChoice
    from holdfast.training.run import Job
    from holdfast.training.task import Examples, TrainingTask


# The task's own types: a loaded model, and encoded rows.
L = TypeVar("L", bound="LoadedModel")
E = TypeVar("E", bound="Examples")

Read = Callable[[str, "DataPart", "Table | None"], "Table"]

# Settings that a fit may choose; all others were fixed with the rows, the model and the machine.
OF_A_FIT = (
    "train.",
    "methods",
    "enrich",
    "control.",
    "generate.",
    "alert.",
    "track.",
    "model.freeze",
)
PREPARED_WITH = ("train.threads", "train.precision", "train.matmul", "train.pack", "train.shard")


@dataclass(frozen=True, slots=True)
class General:
    """General rows, as read and encoded: knowledge of the model from before training.

    They are the rows of the general-text set (``probe``), and others that methods use against
    forgetting (``rows``); with the decisions and findings about them.
    """

    probe: Table | None = None
    probe_examples: Examples | None = None
    rows: Table | None = None
    rows_examples: Examples | None = None
    decisions: tuple[Decision, ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(table for table in (self.probe, self.rows) if table is not None)


class TeacherLoss(Protocol):
    """The teachers' outputs for prepared rows (``lessons.py``)."""

    def term(
        self,
        prepared: PreparedData,
        recipe: ResolvedRecipe,
        train: Ints,
        splits: EncodedSplits,
        loaded: LoadedModel,
        task: TrainingTask,
    ) -> LossTerm:
        """The teacher's loss term for a fit on the rows at ``train``, with the fit's loaded model
        and its task.
        """


class ChoosesModel(Protocol):
    """The candidates for a base model (``prepare/base_model.py``), and the ``decisions`` for the
    one that the rows were prepared for. ``folds`` are those of the embedded one, 0 for none."""

    @property
    def decisions(self) -> tuple[Decision, ...]: ...

    @property
    def folds(self) -> int: ...

    def settings(self, train: Ints, recipe: Recipe) -> dict[str, object]:
        """The settings of the best base model for the rows at ``train``, key to value: those that
        ``recipe`` has not."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Rows and a model for any number of fits, each independent as if in a process of its own.

    Nothing here depends on a split: a fit says by position which of the ``rows`` it learns from and
    which validate it. Test rows are not among them.

    ``recipe`` names the task and holds what the machine decided; the rest may be open. ``examples``
    are all rows, encoded. ``loaded`` is the result of the task's loader: its network is never
    trained, a fit works on a copy (``models/network_copy.py``). ``units`` [n] are equal for rows
    that must stay in one split, because they are duplicates or of one group. ``findings`` are about
    the rows, ``preparation_findings`` about the model and the added rows. ``seconds`` is the time
    from the loaded model on. ``added`` are rows that every fit learns from in addition to its
    training rows, with their ``added_examples`` [m]; a fit's ``train.added`` selects among them.
    ``decisions`` were made on these rows. ``synthetic`` describes synthetic rows, where some were
    requested. ``general`` are general rows, ``lessons`` the teachers' outputs, where the recipe
    names some. ``base_models`` are the candidates for the base model, where it was chosen.
    """

    recipe: Recipe
    definition: TaskDefinition[LoadedModel, Examples]
    rows: Table
    examples: Examples
    loaded: LoadedModel
    machine: MachineChoice
    units: Ints
    findings: tuple[Finding, ...]
    seconds: float
    added: AddedRows | None = None
    added_examples: Examples | None = None
    decisions: tuple[Decision, ...] = ()
    preparation_findings: tuple[Finding, ...] = ()
    synthetic: Mapping[str, Any] | None = None
    general: General | None = None
    lessons: TeacherLoss | None = None
    base_models: ChoosesModel | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def notes(self) -> tuple[Decision | Finding, ...]:
        """Decisions and findings of the preparation; ``findings`` were reported when the rows were
        split.
        """
        general = self.general or General()
        chosen = self.base_models.decisions if self.base_models else ()
        decisions = (*self.machine.decisions, *chosen, *self.decisions)
        return (*decisions, *self.preparation_findings, *general.decisions, *general.findings)

    def extended(self, added: AddedRows) -> PreparedData:
        """Add rows that every fit learns from in addition to its own; they are encoded here, once.

        They are training rows in every fit, whatever its split; validation, the training sample,
        the data map and every count of rows stay those of the table. Raises ``RecipeError`` for a
        task that cannot learn from added rows.
        """
        one_class = self.rows.columns.one_class
        start, both = time.perf_counter(), added
        fresh = self.definition.encode(added.table, self.loaded, self.recipe)
        by_teacher = set(added.origins) == {"taught"}
        if not ((one_class or by_teacher) and isinstance(fresh, GrowingExamples)):
            rule = "are supported for texts with one class each and for causal language models"
            raise RecipeError("added rows", rule, self.recipe.task, "Leave them out.")
        if self.added is not None:
            before = self.added_examples
            assert isinstance(before, GrowingExamples)
            both = join_added(self.added, added)
            fresh = before.extended(fresh, np.asarray(added.weights))
        seconds = self.seconds + time.perf_counter() - start
        return replace(self, added=both, added_examples=fresh, seconds=seconds)

    def with_settings(self, settings: Mapping[str, object] | Sequence[str]) -> Recipe:
        """The recipe with a fit's own settings, as ``holdfast.train`` takes them: keys to values,
        or ``["train.epochs=5"]``.

        Raises ``RecipeError`` for one that rows, model or machine were prepared with.
        """
        recipe = override(self.recipe, as_settings(settings))
        for key in known_keys():
            of_a_fit = key.startswith(OF_A_FIT) and key not in PREPARED_WITH
            value = attrgetter(key)(recipe)
            if not of_a_fit and value != attrgetter(key)(self.recipe):
                raise RecipeError(
                    key,
                    "cannot change after the rows and the model were prepared",
                    value,
                    "Prepare them again with this setting. A fit can set train, "
                    "methods, control and model.freeze.",
                )
        return recipe


def class_count(prepared: PreparedData) -> int:
    """The number of classes where a text has one class; else 0."""
    one_class = prepared.rows.columns.one_class
    of_texts = prepared.recipe.task in LABELLED_TEXT_TASKS
    return len(prepared.rows.classes) if of_texts and one_class else 0


@dataclass(frozen=True, slots=True)
class EncodedSplits:
    """The training and validation rows of a fit, as read and encoded.

    ``added`` are the added training rows, ``with_added`` both. ``general`` is the general-text set,
    ``general_rows`` are the rows that methods use against forgetting. ``train_units`` and
    ``valid_units`` are ``PreparedData.units`` of the rows of the two tables.
    """

    train: Examples
    valid: Examples
    train_rows: TrainSplit
    valid_rows: ValidSplit
    added: Examples | None = None
    with_added: Examples | None = None
    general: Examples | None = None
    general_rows: Examples | None = None
    train_units: Ints | None = None
    valid_units: Ints | None = None

    @property
    def training_examples(self) -> Examples:
        """All examples that updates draw from: the training rows, followed by the added rows."""
        return self.train if self.with_added is None else self.with_added


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Everything about a fit before its first step: the resolved recipe, the model, its rows.

    ``prepared`` is what it shares with other fits; ``loaded`` is its own: a network that the fit
    may change, and limits and units derived from its training rows. ``memory`` is the estimate of
    its memory; ``prefix`` are the frozen first layers whose outputs are cached, if they are;
    ``watch`` what is generated at the evaluations; ``usual_rates`` the learning rates that are
    known to work; ``trials`` the records of other plans that were tried first; ``late_notes``
    decisions and findings from out-of-fold predictions, made after the run's beginning was
    recorded.
    """

    prepared: PreparedData
    recipe: ResolvedRecipe
    loaded: LoadedModel
    task: TrainingTask
    splits: EncodedSplits
    plan: Plan
    decisions: tuple[Decision, ...]
    findings: tuple[Finding, ...]
    metric: Metric | None
    memory: MemoryEstimate
    prefix: Prefix | None = None
    watch: WrittenSamples | None = None
    usual_rates: tuple[float, float] | None = None
    trials: tuple[Mapping[str, Any], ...] = ()
    late_notes: tuple[Decision | Finding, ...] = ()

    @property
    def definition(self) -> TaskDefinition[LoadedModel, Examples]:
        return self.prepared.definition

    @property
    def train(self) -> Examples:
        """The encoded training rows."""
        return self.splits.train

    @property
    def valid(self) -> Examples:
        """The encoded validation rows."""
        return self.splits.valid

    @property
    def probe(self) -> Ints:
        """The positions of the training sample among the training examples."""
        return probe_positions(self.train.rows, self.plan.probe_rows, self.plan.seed)

    @property
    def classes(self) -> int:
        """See ``class_count``."""
        return class_count(self.prepared)

    @property
    def added(self) -> dict[str, int]:
        """How many added rows the fit learns from, by origin."""
        added_rows = self.prepared.added
        if added_rows is None:
            return {}
        indices = added_rows.positions_of(self.recipe.train.added)
        return dict(Counter(added_rows.origins[i] for i in indices))

    @property
    def extra_metrics(self) -> tuple[Metric, ...]:
        """The metrics in addition to the built-in ones: the task's, and a user's function."""
        users = self.metric if ".py:" in self.recipe.train.metric else None
        return self.definition.metrics if users is None else (*self.definition.metrics, users)


@dataclass(frozen=True, slots=True)
class RunStart:
    """The state of a run before its first step: hashes of its rows, settings and base model, its
    findings and decisions as JSON, and the recipe of each outer fold, empty for one that has the
    run's own. ``trials`` are the records of other plans that were tried first; after a trial
    ``requested`` are the settings of ``train`` and ``methods`` as they were before it.
    """

    rows: str
    settings: str
    base_model: str
    findings: Sequence[Any]
    decisions: Sequence[Mapping[str, Any]]
    outer_recipes: Sequence[Mapping[str, Any]] = ()
    trials: Sequence[Mapping[str, Any]] = ()
    requested: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """The identity of a checkpoint's run: its rows, settings and base model."""
        return f"{self.rows} {self.settings} {self.base_model}"


class MeasuredRows:
    """Losses and kept outputs of the measured rows of ``examples``, by position.

    It holds a reference to the examples, so that no others get their address in memory.
    """

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self._place = np.full(len(examples), -1, dtype=np.int64)
        self._losses: Floats = np.zeros(0)
        self._outputs: Floats | None = None

    def missing(self, positions: Ints) -> Ints:
        """The positions that were not measured yet, in their order."""
        return positions[self._place[positions] < 0]

    def add(self, positions: Ints, losses: Floats, outputs: Floats) -> None:
        """Store the measurements of these rows."""
        self._place[positions] = len(self._losses) + np.arange(len(positions))
        self._losses = np.concatenate([self._losses, losses])
        self._outputs = (
            outputs if self._outputs is None else np.concatenate([self._outputs, outputs])
        )

    def at(self, positions: Ints) -> tuple[Floats, Floats]:
        """Losses [n] and kept outputs [n, …] of rows that were all measured."""
        assert self._outputs is not None
        places = self._place[positions]
        return self._losses[places], self._outputs[places]


@dataclass(frozen=True, slots=True, eq=False)
class OutOfFoldPredictions:
    """Out-of-fold predictions for the rows of ``table``, in their order, as the ``columns`` of
    ``predictions.parquet``.
    """

    table: Table
    columns: Any


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A finished fit, as a value: the next fit takes nothing from it.

    ``trained`` is the result of the loop: history, verdict, actions. ``network`` is at the best
    checkpoint, for which ``checkpoint_decision`` gives the reason. ``listeners`` are the task's
    own, one of which may hold a linear probe. ``seconds`` is the wall time from the first line of
    ``fit``. ``run_start`` is what the run's folder keeps of its beginning. ``rates`` are class
    rates, where the last layer was moved to other rates than it was trained at; ``extra_features``
    the layer over feature columns; ``out_of_fold`` the replacement of validation rows where none
    were set aside; ``fold_scale`` by how much the logits of the folds' networks are multiplied to
    be as far apart as this network's (``fits/fit.py``); ``completed`` the training rows that a
    causal language model completes word for word.
    """

    training_plan: TrainingPlan
    job: Job
    listeners: tuple[Any, ...]
    trained: TrainingResult
    checkpoint_decision: Decision
    seconds: float
    run_start: RunStart | None = None
    rates: Rates | None = None
    extra_features: ExtraFeaturesResult | None = None
    out_of_fold: OutOfFoldPredictions | None = None
    fold_scale: float = 1.0
    completed: Verbatim | None = None
    measurements: dict[int, MeasuredRows] = field(default_factory=dict, repr=False, compare=False)

    @property
    def network(self) -> Network:
        return self.training_plan.loaded.network

    @property
    def recipe(self) -> ResolvedRecipe:
        return self.training_plan.recipe

    @property
    def trials(self) -> Sequence[Mapping[str, Any]]:
        """The records of other plans that were tried before the fit."""
        return self.run_start.trials if self.run_start else self.training_plan.trials

    @property
    def best_evaluation(self) -> Snapshot:
        """The evaluation of the best checkpoint, which may be an average of weights."""
        if self.trained.selected_average is not None:
            return self.trained.selected_average
        return next(s for s in self.trained.history if s.step == self.trained.best_step)

    @property
    def valid_logits(self) -> Floats:
        """The logits [n, classes] of the validation rows by the best checkpoint: with
        cross-fitting those of the folds' networks, times ``fold_scale``."""
        logits = self.best_evaluation.valid_logits
        assert logits is not None
        return np.asarray(logits * self.fold_scale)

    def encode(self, rows: Table) -> Examples:
        """Encode other rows as this fit does: in its units, within its limits."""
        definition, loaded = self.training_plan.definition, self.training_plan.loaded
        return definition.transform_examples(
            definition.encode(rows, loaded, self.recipe), loaded, rows
        )

    def measure(self, examples: Examples, positions: Ints | None = None) -> tuple[Floats, Floats]:
        """Losses [n] of encoded rows, and what the task keeps of each output [n, …], by the best
        checkpoint and in the training precision.
        """
        everything = np.arange(len(examples)) if positions is None else np.asarray(positions)
        # The best checkpoint does not change: each row is measured once.
        known = self.measurements.setdefault(id(examples), MeasuredRows(examples))
        new = known.missing(everything)
        if len(new) or not len(everything):
            job = self.job
            observer = Observer(job.accelerator, job.task, alone=True)
            network = self.network.to(job.accelerator.device)
            known.add(new, *observer.measure(network, examples, new))
        return known.at(everything)

    def base_network(self, head: Mapping[str, torch.Tensor] = MappingProxyType({})) -> Network:
        """The network before the first step, or with another ``head`` (``weight`` and ``bias``),
        built from the weights that are already in memory.
        """
        import torch

        # A GPU holds only one of the two at a time.
        network: Any = copy_network(self.network.cpu(), self.trained.initial_tensors)
        for name, value in head.items():
            # The layer of a decoder has no bias, but the other head may have one.
            setattr(network.head, name, torch.nn.Parameter(value, requires_grad=False))
        moved: Network = network.to(self.job.accelerator.device).eval()
        return moved


@dataclass(frozen=True, slots=True, eq=False)
class OuterFoldPredictions:
    """Predictions of the models of ``folds`` outer folds for all rows, each from a fold that had
    not seen the row.

    Calibrated ``logits`` [n, classes], those of their linear probes (``probe``) and of the
    frequencies of their training rows (``majority``).
    """

    folds: int
    logits: Floats
    probe: Floats
    majority: Floats


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """Input of scoring: a fitted run with its saved model, and the test rows.

    ``saved`` is the return value of the task's ``save``. Without test rows ``table`` are all rows,
    and ``outer`` the predictions of models that were not trained on them.
    """

    run: Path
    fitted: FittedModel
    saved: dict[str, Any]
    table: Table
    opened_at: str | None
    outer: OuterFoldPredictions | None = None

    @property
    def training_plan(self) -> TrainingPlan:
        return self.fitted.training_plan


@dataclass(frozen=True, slots=True)
class SplitRows:
    """Training or validation rows that the best checkpoint predicts.

    They are rows of the fit's ``split``, by their ``positions`` there, with their ``examples``.
    """

    fitted: FittedModel
    saved: Mapping[str, Any]
    split: Literal["train", "valid"]
    positions: Ints

    @property
    def all_rows(self) -> tuple[Table, Examples]:
        """All rows of the split, and their examples."""
        sides = self.fitted.training_plan.splits
        if self.split == "train":
            return sides.train_rows.table, sides.train
        return sides.valid_rows.table, sides.valid

    @property
    def table(self) -> Table:
        table, _ = self.all_rows
        return table if len(self.positions) == len(table) else table.take(self.positions)

    @property
    def examples(self) -> Examples:
        table, examples = self.all_rows
        return examples if len(self.positions) == len(table) else examples.take(self.positions)

    def measure(self) -> tuple[Floats, Floats]:
        """Losses and kept outputs of the ``examples``, as ``FittedModel.measure`` returns them."""
        table, examples = self.all_rows
        # Where each row is one example, earlier measurements for a score can be reused.
        if np.array_equal(examples.rows, table.column("row")):
            return self.fitted.measure(examples, self.positions)
        return self.fitted.measure(self.examples)


@dataclass(frozen=True, slots=True)
class ScoringResult:
    """The test score and what belongs to it: ``blocks`` go into ``result.json``.

    ``outputs`` are a classifier's, for ``predictions.parquet``, ``predictions`` those of others;
    ``table`` are the test rows of the score, ``None`` where none were set aside.
    ``analysis_blocks`` are the blocks of the run's analyses, which took ``analyses_s``.
    """

    blocks: dict[str, Any]
    decisions: tuple[Decision, ...]
    seconds: dict[str, float]
    outputs: Outputs | None = None
    predictions: dict[str, Any] = field(default_factory=dict)
    table: Table | None = None
    analysis_blocks: Mapping[str, Any] = field(default_factory=dict)
    analyses_s: float = 0.0


def no_listeners(training_plan: TrainingPlan) -> tuple[Any, ...]:
    """For a task without listeners of its own."""
    return ()


def no_watch(loaded: LoadedModel, splits: EncodedSplits, recipe: Recipe, probe_rows: int) -> None:
    """For a task that generates no text."""
    return


def shows_nothing(examples: Any, loaded: Any) -> tuple[Decision, ...]:
    """``TaskDefinition.show_example`` where the model reads rows as they are."""
    return ()


def takes_every_setting(recipe: Recipe) -> None:
    """For a task to which every setting applies."""


def plain_facts(fitted: FittedModel, saved: Mapping[str, object]) -> dict[str, Any]:
    """``model_facts`` of ``result.json``."""
    training_plan = fitted.training_plan
    total, trainable = count_parameters(training_plan.loaded.network)
    return {
        **training_plan.loaded.facts,
        "parameters": total,
        "trainable": trainable,
        "precision": training_plan.recipe.train.precision,
        "temperature": saved.get("temperature"),
        "max_length": training_plan.loaded.max_length,
    }


def as_own(read: Read, source: str, data: DataPart, like: Table) -> Table:
    """Read general rows in the same way as the task's own rows."""
    return read(source, data, like)


def as_loaded(loaded: L, rows: Table, examples: Examples) -> L:
    """For a task that derives nothing from its training rows."""
    return loaded


def as_encoded(examples: E, loaded: LoadedModel, rows: Table) -> E:
    """For a task that uses the rows as they were encoded."""
    return examples


@dataclass(frozen=True, slots=True)
class TaskDefinition(Generic[L, E]):
    """What differs between tasks: functions, no inheritance.

    ``read`` reads a source into a table (like another one, where that is given); ``load`` loads the
    model for a table; ``encode`` encodes a table; ``make_task`` builds the task for the loop;
    ``check_examples`` returns findings on the encoded rows of a split, by its name;
    ``show_example`` shows a training row as the model reads it; ``listeners`` are the loop's
    listeners for this task; ``save`` writes the network into a folder and returns facts; ``score``
    scores the test rows. ``prediction_columns`` are the best checkpoint's predictions for training
    or validation rows, in the columns of ``predictions.parquet``. ``load_plain_model`` loads the
    model of a finished run with plain libraries. ``use_runs`` and ``use_fitted`` return a predictor
    for other rows, from finished runs (one, or the average of several) and from a fit.
    ``find_metric`` finds a metric for ``train.metric`` by its name. ``choose_samples``
    chooses the rows for which texts are generated at the evaluations, or else once, by the best
    checkpoint. ``general`` reads general rows: like the run's own rows (``read``), or differently
    where they may have another form. ``fit_loaded`` adapts the loaded model to a fit's training
    rows (as read and encoded): their unit, the length of their targets. ``transform_examples``
    converts one split's examples to that unit and length. ``facts`` are those of the saved model,
    where no test rows are scored. ``refuse`` raises ``RecipeError`` for a setting that does not
    apply to this task. ``metrics`` are scored in addition to those of every classifier.
    """

    name: str
    read: Callable[[str, DataPart, Table | None], Table]
    load: Callable[[Recipe, Table], L]
    encode: Callable[[Table, L, Recipe], E]
    make_task: Callable[[L, Table, Recipe, Metric | None], TrainingTask]
    check_examples: Callable[[E, L, str], tuple[Finding, ...]]
    save: Callable[[Path, FittedModel], dict[str, Any]]
    score: Callable[[ScoringRequest], ScoringResult]
    prediction_columns: Callable[[SplitRows], Mapping[str, Any]]
    load_plain_model: Callable[[Path], Any]
    use_runs: Callable[[Sequence[Path]], TaskPredictor]
    use_fitted: Callable[[FittedModel], TaskPredictor]
    listeners: Callable[[TrainingPlan], tuple[Any, ...]] = no_listeners
    find_metric: Callable[[str], Metric] = find_metric
    choose_samples: Callable[[L, EncodedSplits, Recipe, int], WrittenSamples | None] = no_watch
    general: Callable[[Read, str, DataPart, Table], Table] = as_own
    fit_loaded: Callable[[L, Table, E], L] = as_loaded
    transform_examples: Callable[[E, L, Table], E] = as_encoded
    show_example: Callable[[E, L], tuple[Decision, ...]] = shows_nothing
    facts: Callable[[FittedModel, Mapping[str, Any]], dict[str, Any]] = plain_facts
    refuse: Callable[[Recipe], None] = takes_every_setting
    metrics: tuple[Metric, ...] = ()

    def read_general(self, source: str, data: DataPart, like: Table) -> Table:
        """General rows, in addition to the run's own rows ``like``."""
        return self.general(self.read, source, data, like)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The peak memory of a run, in MB; ``rest`` is the process without the model.

    On a GPU ``rest`` and the ``copies`` that every run has are in the CPU's memory and not
    included; averages of weights are where the weights are.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    copies: float
    rest: float

    @property
    def total(self) -> float:
        return (
            self.weights
            + self.gradients
            + self.optimizer
            + self.activations
            + self.copies
            + self.rest
        )

    def __str__(self) -> str:
        parts = {
            "weights": self.weights,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "activations": self.activations,
            "copies": self.copies,
            "Python and libraries": self.rest,
        }
        return ", ".join(f"{name} {value:,.0f}" for name, value in parts.items() if value)
