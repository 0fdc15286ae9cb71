"""What all tasks that generate text share: metrics, saving, scoring and prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from holdfast.contract.fit import FittedModel, ScoringRequest
from holdfast.contract.inference import PredictionType, Scorer, run_recipe
from holdfast.contract.predictions import groups_of
from holdfast.contract.run_folder import need_run
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.metric_names import higher_is_better
from holdfast.core.records import Estimate, Floats, Ints, Scores
from holdfast.data.table import Table
from holdfast.metrics import TEXT_METRICS, Metric
from holdfast.metrics import find_text_metric as find_written
from holdfast.models.compute.device import best_device
from holdfast.models.generators.average import AveragedNetwork
from holdfast.recipe import Recipe
from holdfast.stats.paired_tests import loss_rows
from holdfast.tasks.ensemble import Chances, EnsembleEvidence, SharedRows, lie_apart, souped_model
from holdfast.tasks.generation.losses import WATCHED
from holdfast.tasks.generation.token_scores import TokenOutputs, score_tokens, token_chances
from holdfast.training.task import losses_by_row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from holdfast.training.task import Examples, TrainingTask


def find_text_metric(name: str) -> Metric:
    """Find the metric that ``train.metric`` names, with its name and direction.

    It is a token metric, which every evaluation measures, or a metric of generated texts (see
    ``samples.text_metric_of``).
    """
    if name in WATCHED:
        return _criterion(name, higher_is_better(name), float("inf"))
    if name in TEXT_METRICS or ".py:" in name:
        metric = find_written(name)
        return _criterion(metric.name, metric.higher_is_better, metric.high)
    raise RecipeError(
        "train.metric",
        "is not a metric of a task that generates text",
        name,
        suggest_name(name, ["loss", "refined_loss", *WATCHED, *TEXT_METRICS]),
    )


def _criterion(name: str, higher: bool, high: float) -> Metric:
    return Metric(name, higher, 0.0, high, lambda outputs, classes: None)


def save_plain(folder: Path, fitted: FittedModel) -> dict[str, Any]:
    """Write the plain model (or adapter) with its tokenizer."""
    fitted.network.cpu().save(folder, fitted.training_plan.loaded.tokenizer)
    return {}


def other_rows(request: ScoringRequest) -> dict[str, Any]:
    """``valid`` and ``train_probe``: scores of the restored best checkpoint, in the training
    precision.
    """
    training_plan = request.training_plan
    everything, splits = np.arange(len(training_plan.valid)), training_plan.splits

    def block(examples: Examples, positions: Ints, table: Table) -> dict[str, Any]:
        losses, kept = request.fitted.measure(examples, positions)
        rows, groups = examples.rows[positions], groups_of(table)
        if groups is not None:
            groups = groups[table.positions_of(rows)]
        outputs = TokenOutputs(rows, losses, kept[:, 0].astype(np.int64), kept[:, 1], groups)
        return score_tokens(outputs, seed=training_plan.recipe.seed).to_json()

    return {
        "valid": block(training_plan.valid, everything, splits.valid_rows.table),
        "train_probe": block(training_plan.train, training_plan.probe, splits.train_rows.table),
    }


def noted(scores: Mapping[str, Estimate], n: int, rows: int) -> dict[str, Estimate]:
    """The scores of generated texts, with a note on how many rows they cover."""
    of = f"of {n} generated rows" if n == rows else f"of a fixed sample of {n} of {rows} rows"
    return {
        name: replace(estimate, note="; ".join([of, *filter(None, [estimate.note])]))
        for name, estimate in scores.items()
    }


def target_texts(examples: Any, table: Table) -> list[str]:
    """The answers of the rows that are used."""
    answers: list[str] = table.take(examples.kept).column("target")
    return answers


def the_runs(runs: Sequence[Path]) -> Recipe:
    """The recipe of the first of these generative runs, which applies to all of them."""
    for run in runs:
        need_run(run)
    return run_recipe(runs[0])


N = TypeVar("N")


def together(
    networks: Sequence[N], tokenizers: Sequence[PreTrainedTokenizerBase]
) -> N | AveragedNetwork:
    """One network, or an ensemble of several that averages the probabilities of the next token.

    Raises ``RecipeError`` where their vocabularies or chat templates differ.
    """
    if len(networks) == 1:
        return networks[0]
    first = tokenizers[0]
    for one in tokenizers[1:]:
        same = one.get_vocab() == first.get_vocab()
        if not same or one.chat_template != first.chat_template:
            raise RecipeError(
                "generated texts of several runs",
                "can be averaged, token by token, only where all have the same "
                f"{'chat template' if same else 'vocabulary'}",
                None,
                "Name runs of one base model, or one run.",
            )
    return AveragedNetwork(networks)


@dataclass(frozen=True)
class GenerationPredictor(ABC):
    """Predictor of a generative model, or of several that generate as one."""

    network: Any
    tokenizer: Any
    recipe: Recipe
    prediction_type: PredictionType = field(default="text", kw_only=True)
    names: tuple[str, ...] = field(default=(), kw_only=True)
    temperature: float = field(default=0.0, kw_only=True)

    @property
    @abstractmethod
    def task(self) -> TrainingTask:
        """The task as the training loop sees it; it measures the losses of given targets."""

    @abstractmethod
    def encoded(self, table: Table) -> tuple[Examples, Ints]:
        """Labelled rows as they are measured, and each example's place in the table."""

    @abstractmethod
    def measure(self, examples: Any, table: Table) -> TokenOutputs:
        """The losses of their target tokens."""

    @abstractmethod
    def scored(self, table: Table) -> Scores:
        """The score of labelled rows."""

    def scorer(self, table: Table) -> Scorer:
        """A function that scores labelled rows with a new pass of the model.

        A sample of some rows differs from the same rows of a larger sample.
        """

        def score_some(positions: Ints | None = None) -> Scores:
            return self.scored(table if positions is None else table.take(positions))

        return score_some

    def with_generation(self, max_tokens: int | None, temperature: float) -> Self:
        """The same predictor with at most this many generated tokens a text, at this
        temperature.
        """
        given = {} if max_tokens is None else {"max_new_tokens": max_tokens}
        return replace(
            self, recipe=self.recipe.with_changes(generate=given), temperature=temperature
        )

    @property
    def networks(self) -> tuple[Any, ...]:
        """The networks that generate as one."""
        return (
            self.network.networks if isinstance(self.network, AveragedNetwork) else (self.network,)
        )

    @property
    def weights(self) -> Sequence[float] | None:
        """How much each of several networks counts."""
        return self.network.weights if isinstance(self.network, AveragedNetwork) else None

    def row_losses(self, table: Table) -> Floats:
        """The rows [n] of the mean loss over all tokens (``stats/paired_tests.py``); NaN where a
        row has none.
        """
        examples, places = self.encoded(table)
        outputs = self.measure(examples, table)
        # Examples are parts of rows: a long plain text has several.
        means, counts = losses_by_row(outputs.losses, outputs.tokens, places)
        return losses_at_rows(loss_rows(means, counts), np.unique(places), len(table))

    def with_weights(self, weights: Sequence[float]) -> Self:
        """The same predictor with these weights."""
        return replace(self, network=AveragedNetwork(self.networks, weights))

    def evidence(self, rows: SharedRows) -> EnsembleEvidence:
        """The probability that each network gives to every token of the rows' targets."""
        examples, places = self.encoded(rows.table)
        probabilities, owner = token_chances(self.networks, self.task, examples, best_device())
        return Chances(probabilities, places[owner], len(rows), by_token=True)

    def as_soup(self, places: Sequence[int]) -> Self:
        """One model: the mean of the weights of those at ``places`` (``souped_model``)."""
        return replace(self, network=souped_model(self.networks, places, attrgetter("plain")))

    def weight_distances(self) -> Floats:
        """How far each network's weights lie from the first's [networks]."""
        return lie_apart(self.networks, attrgetter("plain"))


def losses_at_rows(losses: Floats, places: Ints, n: int) -> Floats:
    """The losses of examples as losses of the ``n`` rows they belong to; NaN where a row has
    none.
    """
    row_losses = np.full(n, np.nan)
    row_losses[places] = losses
    return row_losses
