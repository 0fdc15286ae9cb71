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
from holdfast.training.task import ExtendableExamples, GrowingExamples

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

# What a fit may set for itself; all else was decided with the rows, the model and the machine.
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
    """Rows of what the model knew before, as read and encoded: those of the general ``probe``, and
    others that methods hold on to (``rows``); with what was decided and found of them."""

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
    """What teachers say of prepared rows (``lessons.py``)."""

    def term(
        self,
        prepared: PreparedData,
        recipe: ResolvedRecipe,
        train: Ints,
        splits: EncodedSplits,
        loaded: LoadedModel,
        task: TrainingTask,
    ) -> LossTerm:
        """The loss term of a fit on the rows at ``train``, of what it ``loaded`` and its side of
        the loop."""


@dataclass(frozen=True, slots=True)
class PreparedData:
    """Rows and a model from which any number of fits begin, each as in a process of its own.

    Nothing here depends on a division: a fit says by position which of the ``rows`` it learns from
    and which judge it. Test rows are not among them.

    ``recipe`` names the task, and holds what the machine decided; the rest may be open.
    ``examples`` are all rows, encoded. ``loaded`` is what the kind's loader gave: its network is
    never trained, a fit works on a copy (``models/network_copy.py``). ``units`` [n] are equal for
    rows that must not be parted, because they are copies or of one group. ``findings`` are those of
    the rows, ``preparation_findings`` those of the model and of what was added to them; ``seconds``
    is how long it took from the loaded model on. ``added`` are rows that every fit learns from
    beside its training rows, with their ``added_examples`` [m]; a fit's ``train.added`` says which,
    ``reweighted`` gives them other weights. ``decisions`` were made on the rows as they lie here;
    ``synthetic`` says what was made of new rows, where some were asked for. ``general`` are rows of
    what the model knew before, ``lessons`` what the teachers say, where the recipe names some.
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

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def notes(self) -> tuple[Decision | Finding, ...]:
        """What was decided and noticed on the way here; ``findings`` were told when the rows were
        divided."""
        general = self.general or General()
        decisions = (*self.machine.decisions, *self.decisions)
        return (*decisions, *self.preparation_findings, *general.decisions, *general.findings)

    def extended(self, added: AddedRows) -> PreparedData:
        """The same with rows that every fit learns from beside its own: encoded here, once.

        They are of the training side in every fit, whatever its division; validation, the train
        probe, the data map and every count of rows stay those of the table. Raises ``RecipeError``
        for a task that can learn from none.
        """
        one_class = self.rows.columns.one_class
        start, both = time.perf_counter(), added
        fresh = self.definition.encode(added.table, self.loaded, self.recipe)
        by_teacher = set(added.origins) == {"taught"}
        if not ((one_class or by_teacher) and isinstance(fresh, GrowingExamples)):
            raise RecipeError(
                "added rows",
                "can be learned beside texts with one class each and by a causal language model",
                self.recipe.task,
                "Leave them out.",
            )
        if self.added is not None:
            before = self.added_examples
            assert isinstance(before, GrowingExamples)
            both = join_added(self.added, added)
            fresh = before.extended(fresh, np.asarray(added.weights))
        seconds = self.seconds + time.perf_counter() - start
        return replace(self, added=both, added_examples=fresh, seconds=seconds)

    def reweighted(self, weights: Floats, labels: Ints | None = None) -> PreparedData:
        """The same added rows with other ``weights`` [m] (0 leaves a row out) and ``labels`` [m];
        nothing is encoded again. So what was worked out from the training rows of one fit never
        reaches another."""
        assert self.added is not None
        added, examples = replace(self.added, weights=np.asarray(weights)), self.added_examples
        if labels is not None:
            rows = added.table.rows.remove_columns("label")
            marks = np.asarray(labels, dtype=np.int64)
            rows = rows.add_column("label", marks.tolist())
            added = replace(added, table=replace(added.table, rows=rows))
            assert isinstance(examples, ExtendableExamples)
            examples = examples.relabelled(marks)
        return replace(self, added=added, added_examples=examples)

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
                    "was settled when the rows and the model were prepared",
                    value,
                    "Prepare them anew with this setting; a fit has its own train, methods, "
                    "control and model.freeze.",
                )
        return recipe


def class_count(prepared: PreparedData) -> int:
    """How many classes a text's label is one of; 0 where it is something else."""
    one_class = prepared.rows.columns.one_class
    of_texts = prepared.recipe.task in LABELLED_TEXT_TASKS
    return len(prepared.rows.classes) if of_texts and one_class else 0


@dataclass(frozen=True, slots=True)
class EncodedSplits:
    """The rows that a fit learns from and those that judge it, encoded and as they were read;
    ``added`` are those that it learns from beside them, ``with_added`` both. ``general`` is the
    general probe, ``general_rows`` are what methods hold on to against forgetting."""

    train: Examples
    valid: Examples
    train_rows: TrainSplit
    valid_rows: ValidSplit
    added: Examples | None = None
    with_added: Examples | None = None
    general: Examples | None = None
    general_rows: Examples | None = None

    @property
    def training_examples(self) -> Examples:
        """Everything that updates draw from: the training rows, and behind them what was added."""
        return self.train if self.with_added is None else self.with_added


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """Everything of a fit before its first step: the resolved recipe, the model, its rows.

    ``prepared`` is what it shares with other fits, ``loaded`` what is its own of that: a network
    that the fit may change, and limits and units that come from its training rows. ``memory`` is
    the estimate of its memory; ``prefix`` are the frozen first layers whose outputs are kept, if
    they are; ``watch`` what is written at the evaluation points; ``usual_rates`` the learning
    rates that are known to work.
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
        """The positions of the train probe among the training examples."""
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
    """What a run began with: marks of its rows and settings, its findings and decisions as JSON
    has them."""

    rows: str
    settings: str
    findings: Sequence[Any]
    decisions: Sequence[Mapping[str, Any]]

    @property
    def mark(self) -> str:
        """Which run a checkpoint is of: its rows and its settings."""
        return f"{self.rows} {self.settings}"


class Measurements:
    """Losses and kept outputs of the rows of ``examples`` that were measured so far, by their
    positions. It holds the examples, so that no others come to stand at their place in memory."""

    def __init__(self, examples: Examples) -> None:
        self.examples = examples
        self._place = np.full(len(examples), -1, dtype=np.int64)
        self._losses: Floats = np.zeros(0)
        self._outputs: Floats | None = None

    def missing(self, positions: Ints) -> Ints:
        """Those that were not measured yet, in their order."""
        return positions[self._place[positions] < 0]

    def add(self, positions: Ints, losses: Floats, outputs: Floats) -> None:
        """What was measured of them."""
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
    """What fits on parts of the rows said of the rest: of the rows of ``table`` the ``columns`` of
    ``predictions.parquet``, in their order."""

    table: Table
    columns: Any


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A fit that has come to its end, as a value: the next fit takes nothing from it.

    ``trained`` is what the loop hands on: history, verdict, actions. ``network`` is in the state
    that is kept, for which ``checkpoint_decision`` gives the reason. ``listeners`` are the kind's
    own, one of which may hold a linear probe; ``seconds`` is the wall time from the first line of
    ``fit``; ``run_start`` what the run's folder keeps of its beginning; ``rates`` of the classes,
    where the last layer was made for other ones than it learned at; ``extra_features`` the columns
    beside the text; ``out_of_fold`` what stands in the place of validation rows where none were set
    aside; ``completed`` the training rows that a causal language model completes to the word.
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
    completed: Verbatim | None = None
    measurements: dict[int, Measurements] = field(default_factory=dict, repr=False, compare=False)

    @property
    def network(self) -> Network:
        return self.training_plan.loaded.network

    @property
    def recipe(self) -> ResolvedRecipe:
        return self.training_plan.recipe

    @property
    def best_evaluation(self) -> Snapshot:
        """The evaluation of the best checkpoint, which may be an average of weights."""
        if self.trained.selected_average is not None:
            return self.trained.selected_average
        return next(s for s in self.trained.history if s.step == self.trained.best_step)

    def encode(self, rows: Table) -> Examples:
        """Other rows as this fit reads them: in its units, within its limits."""
        definition, loaded = self.training_plan.definition, self.training_plan.loaded
        return definition.transform_examples(
            definition.encode(rows, loaded, self.recipe), loaded, rows
        )

    def measure(self, examples: Examples, positions: Ints | None = None) -> tuple[Floats, Floats]:
        """Losses [n] of encoded rows, and what the task keeps of each output [n, …], by the state
        that is kept and in the precision of the training."""
        everything = np.arange(len(examples)) if positions is None else np.asarray(positions)
        # The best checkpoint does not change: each row is measured once.
        known = self.measurements.setdefault(id(examples), Measurements(examples))
        new = known.missing(everything)
        if len(new) or not len(everything):
            job = self.job
            observer = Observer(job.accelerator, job.task, alone=True)
            network = self.network.to(job.accelerator.device)
            known.add(new, *observer.measure(network, examples, new))
        return known.at(everything)

    def base_network(self, head: Mapping[str, torch.Tensor] = MappingProxyType({})) -> Network:
        """The network as it was before the first step, or with another ``head`` (``weight`` and
        ``bias``), made of the weights that are in memory anyway."""
        # A GPU holds one of the two at a time.
        tensors = {
            **self.trained.initial_tensors,
            **{f"head.{name}": value for name, value in head.items()},
        }
        return copy_network(self.network.cpu(), tensors).to(self.job.accelerator.device).eval()


@dataclass(frozen=True, slots=True, eq=False)
class OuterFoldPredictions:
    """What the models of ``folds`` outer folds said of all rows, each of the fold that it had not
    seen: calibrated ``logits`` [n, classes], those of their linear probes (``probe``) and of the
    frequencies of their training rows (``majority``)."""

    folds: int
    logits: Floats
    probe: Floats
    majority: Floats


@dataclass(frozen=True, slots=True)
class ScoringRequest:
    """A fitted run whose model is saved, and the opened test rows: what scoring works on.

    ``saved`` is what the kind's ``save`` returned. Without test rows ``table`` are all rows, and
    ``outer`` what models said of them that had not learned from them.
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
    """Training or validation rows that the best checkpoint predicts: some of the fit's
    own (``split``), by their ``positions`` there, with their ``examples``."""

    fitted: FittedModel
    saved: Mapping[str, Any]
    split: Literal["train", "valid"]
    positions: Ints

    @property
    def all_rows(self) -> tuple[Table, Examples]:
        """All rows of the side, and their examples."""
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
        """Losses and kept outputs of the ``examples``, as ``FittedModel.measure`` gives them."""
        table, examples = self.all_rows
        # Where a row is an example, what was measured of it for a score is known.
        if np.array_equal(examples.rows, table.column("row")):
            return self.fitted.measure(examples, self.positions)
        return self.fitted.measure(self.examples)


@dataclass(frozen=True, slots=True)
class ScoringResult:
    """The test score and its companions: ``blocks`` go into ``result.json``.

    ``outputs`` are a classifier's, for ``predictions.parquet``, ``predictions`` those of others;
    ``table`` are the test rows, which were opened for it, ``None`` where none were set aside.
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
    """A task whose loop needs none of its own."""
    return ()


def no_sides(data: DataPart) -> tuple[dict[str, str], tuple[Decision, ...]]:
    """A source that brings no validation or test rows of its own."""
    return {}, ()


def no_watch(loaded: LoadedModel, splits: EncodedSplits, recipe: Recipe, probe_rows: int) -> None:
    """A task that writes no text."""
    return


def takes_every_setting(recipe: Recipe) -> None:
    """Of a task for which every setting means something."""


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
    """General rows of a task that reads them as its own."""
    return read(source, data, like)


def as_loaded(loaded: L, rows: Table, examples: Examples) -> L:
    """A task that works nothing out from its training rows."""
    return loaded


def as_encoded(examples: E, loaded: LoadedModel, rows: Table) -> E:
    """A task whose rows are read as they were encoded."""
    return examples


@dataclass(frozen=True, slots=True)
class TaskDefinition(Generic[L, E]):
    """What differs between tasks when the parts are put together: functions, no inheritance.

    ``read`` a source into a table (like another one, where that is given); ``load`` the model for a
    table; ``encode`` a table; ``make_task`` the loop's side; ``check_examples`` findings on the
    encoded training rows; ``listeners`` the loop's own for this kind; ``save`` the network into a
    folder, returning facts; ``score`` the opened test rows; ``prediction_columns`` the best
    checkpoint's predictions for training or validation rows, in the columns of
    ``predictions.parquet``; ``load_plain_model`` is the model of a finished run, as plain libraries
    load it; ``use_runs`` and ``use_fitted`` what answers and scores other rows, by finished runs
    (one, or the average of several) and by a fit. ``given_splits`` names the validation and test
    rows that a source itself brings, with the reason. ``find_metric`` a criterion of
    ``train.metric`` by its name; ``choose_samples`` the rows for which texts are written at the
    evaluation points, or else once, by the best checkpoint. ``general`` reads rows of what a model
    knew before, beside the run's own: as these are read (``read``), or otherwise where they may be
    of another form. ``fit_loaded`` what was loaded, by a fit's training rows (as read and encoded):
    their unit, the length of their targets. ``transform_examples`` gives one side's examples in
    that unit and within that length. ``facts`` are those of the saved model, where no test rows are
    scored. ``refuse`` raises ``RecipeError`` for a setting that means nothing for this task.
    ``metrics`` are scored beside those that every classifier has.
    """

    name: str
    read: Callable[[str, DataPart, Table | None], Table]
    load: Callable[[Recipe, Table], L]
    encode: Callable[[Table, L, Recipe], E]
    make_task: Callable[[L, Table, Recipe, Metric | None], TrainingTask]
    check_examples: Callable[[E, L], tuple[Finding, ...]]
    save: Callable[[Path, FittedModel], dict[str, Any]]
    score: Callable[[ScoringRequest], ScoringResult]
    prediction_columns: Callable[[SplitRows], Mapping[str, Any]]
    load_plain_model: Callable[[Path], Any]
    use_runs: Callable[[Sequence[Path]], TaskPredictor]
    use_fitted: Callable[[FittedModel], TaskPredictor]
    listeners: Callable[[TrainingPlan], tuple[Any, ...]] = no_listeners
    given_splits: Callable[[DataPart], tuple[dict[str, str], tuple[Decision, ...]]] = no_sides
    find_metric: Callable[[str], Metric] = find_metric
    choose_samples: Callable[[L, EncodedSplits, Recipe, int], WrittenSamples | None] = no_watch
    general: Callable[[Read, str, DataPart, Table], Table] = as_own
    fit_loaded: Callable[[L, Table, E], L] = as_loaded
    transform_examples: Callable[[E, L, Table], E] = as_encoded
    facts: Callable[[FittedModel, Mapping[str, Any]], dict[str, Any]] = plain_facts
    refuse: Callable[[Recipe], None] = takes_every_setting
    metrics: tuple[Metric, ...] = ()

    def read_general(self, source: str, data: DataPart, like: Table) -> Table:
        """Rows of what a model knew before, beside the run's own rows ``like``."""
        return self.general(self.read, source, data, like)


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """What a run holds at its peak, in MB; ``rest`` is the process without the model. On a GPU
    ``rest`` and those ``copies`` that every run has lie in the processor's memory and are not here:
    averages of weights lie where the weights do."""

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
        }
        return ", ".join(f"{name} {value:,.0f}" for name, value in parts.items() if value)
