"""Ensembles of finished runs, model soups, and the evidence that ensemble weights are fitted to.

The models stay in memory together where they are small, else they are loaded one at a time. The
evidence comes from rows that none of the members learned from: the probability that each member
gave to the truth, or each member's number with the true one.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeVar, overload

import numpy as np

from holdfast.contract.predictions import stored_groups_of
from holdfast.contract.run_folder import MODEL, SPLITS
from holdfast.core.errors import RecipeError
from holdfast.core.machine import MB
from holdfast.core.records import Decision, Floats, Ints
from holdfast.data.table import Table
from holdfast.models.soup import distance, mean_state, other_shape
from holdfast.plan.memory import available_mb
from holdfast.stats.stacking import PRIOR_ROWS, blend_weights, mixture_weights

if TYPE_CHECKING:
    import torch


T = TypeVar("T")
# Share of free memory: above it models are loaded in turn.
SHARE = 0.5


class NamedModel(Protocol):
    """A model whose outputs have names, in its own order."""

    @property
    def classes(self) -> tuple[str, ...]: ...


class InTurn(Sequence[T], Generic[T]):
    """Models that are loaded on access; only the last one stays in memory."""

    def __init__(self, runs: Sequence[Path], load: Callable[[Path], T]) -> None:
        self._runs = tuple(runs)
        self._load = load
        self._held: tuple[int, T] | None = None

    def __len__(self) -> int:
        return len(self._runs)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        if isinstance(index, slice):
            return InTurn(self._runs[index], self._load)
        place = range(len(self))[index]
        if self._held is None or self._held[0] != place:
            # Released first, so that two models are never in memory.
            self._held = None
            self._held = (place, self._load(self._runs[place]))
        return self._held[1]

    def __iter__(self) -> Iterator[T]:
        return (self[place] for place in range(len(self)))


def members(runs: Sequence[Path], load: Callable[[Path], T]) -> Sequence[T]:
    """The models of these runs, as ``load`` returns them."""
    if len(runs) > 1 and together_mb(runs) > SHARE * available_mb():
        return InTurn(runs, load)
    return [load(run) for run in runs]


def same_names(models: Iterable[NamedModel], names: Sequence[str], plural_name: str) -> None:
    """Raise ``RecipeError`` when a model's classes, labels or tags (``plural_name``) are not
    ``names``; their order may differ."""
    for one in models:
        if set(one.classes) != set(names):
            rule = f"can be averaged only where all have the same {plural_name}"
            remedy = "Name runs that were trained in the same way."
            raise RecipeError("several runs", rule, sorted(set(one.classes) ^ set(names)), remedy)


def together_mb(runs: Sequence[Path]) -> float:
    """Size in MB of the model files of all runs."""
    files = [path for run in runs for path in (run / MODEL).rglob("*") if path.is_file()]
    return sum(path.stat().st_size for path in files) / MB


def in_turn(models: object, runs: Sequence[Path]) -> tuple[Decision, ...]:
    """The decision that the models are loaded in turn, where they are."""
    if not isinstance(models, InTurn):
        return ()
    because = (
        f"{len(runs)} models of {together_mb(runs):,.0f} MB in all need more than half of "
        "the free memory"
    )
    return (Decision("models", "one at a time", because),)


AVERAGE = "Use predict.ensemble=stack or average, which do not average the weights of the models."
# How much each of several models counts; ``None``: all equally.
Weights = Sequence[float] | None


@dataclass(frozen=True)
class SavedModels(ABC, Generic[T]):
    """Models that predict together by their ``weights``; the base class of the tasks'
    predictors.
    """

    models: Sequence[T]
    weights: Weights = field(default=None, kw_only=True)

    @staticmethod
    @abstractmethod
    def plain_of(model: T) -> torch.nn.Module:
        """The module whose weights a soup takes the mean of."""

    def with_weights(self, weights: Sequence[float]) -> Self:
        """The same predictor with these weights."""
        return replace(self, weights=tuple(weights))

    def as_soup(self, places: Sequence[int]) -> Self:
        """One model: the mean of the weights of the models at ``places`` (``souped_model``)."""
        mean = souped_model(self.models, places, self.plain_of)
        return replace(self, models=[mean], weights=None)

    def weight_distances(self) -> Floats:
        """How far each model's weights lie from the first's [models]."""
        return lie_apart(self.models, self.plain_of)


def souped_model(
    models: Sequence[T], places: Sequence[int], plain_of: Callable[[T], torch.nn.Module]
) -> T:
    """A copy of the first chosen model with the mean of the weights of those at ``places``.

    ``plain_of`` returns a model's module. Raises ``RecipeError`` for models of different shapes,
    and for adapters: the mean of two factors is not the mean of their products.
    """
    _refuse_unlike(models, plain_of)
    averaged = copy.deepcopy(models[places[0]])
    state = mean_state(plain_of(models[place]).state_dict() for place in places)
    plain_of(averaged).load_state_dict(state)
    return averaged


def lie_apart(models: Sequence[T], plain_of: Callable[[T], torch.nn.Module]) -> Floats:
    """How far each model's weights lie from the first's [models]."""
    _refuse_unlike(models, plain_of)
    first = copy.deepcopy(plain_of(models[0]).state_dict())
    return np.array([distance(first, plain_of(one).state_dict()) for one in models])


def _refuse_unlike(models: Sequence[T], plain_of: Callable[[T], torch.nn.Module]) -> None:
    first: dict[str, Any] = {}
    for one in models:
        plain = plain_of(one)
        state = plain.state_dict()
        if any("lora_" in name or "ia3_" in name or "prompt_encoder" in name for name in state):
            rule = (
                "cannot average adapters: the mean of their factors is not the mean "
                "of their updates"
            )
            remedy = f"Train with --set model.adapter.merge=true, or: {AVERAGE}"
            raise RecipeError("predict.ensemble=soup", rule, None, remedy)
        first = first or {name: tensor.detach().clone() for name, tensor in state.items()}
        if (name := other_shape(first, state)) is not None:
            rule = "needs models of one architecture, but the name or size of a weight differs"
            raise RecipeError("predict.ensemble=soup", rule, name, AVERAGE)


TINY = float(np.finfo(np.float64).tiny)


class EnsembleEvidence(Protocol):
    """Evidence on ``n`` rows; ``metric`` names what ``losses`` are."""

    @property
    def n(self) -> int: ...

    @property
    def members(self) -> int: ...

    @property
    def metric(self) -> str: ...

    @property
    def tokens(self) -> Ints | None:
        """Over how many tokens the loss of each row is a mean, where the metric is the mean over
        all tokens.
        """

    def fit(self, rows: Ints) -> Floats:
        """Fit the weights [members] to these rows."""

    def losses(self, weights: Floats, rows: Ints) -> Floats:
        """The loss of each of these rows under the weights."""


@dataclass(frozen=True)
class Chances:
    """Probabilities of the truth: ``chances`` [outcomes, members].

    An outcome is a row's class, or each of its labels, words or tokens; ``owner`` [outcomes] is the
    row, from 0 to ``n`` − 1. A row's loss is the mean of its outcomes' −log of the mixture.
    ``by_token``: the metric is the mean over all outcomes.
    """

    chances: Floats
    owner: Ints
    n: int
    by_token: bool = False
    metric: str = "loss"

    @property
    def tokens(self) -> Ints | None:
        return self.sizes if self.by_token else None

    @cached_property
    def sizes(self) -> Ints:
        """The outcomes of each row, [n]."""
        return np.bincount(self.owner, minlength=self.n)

    @property
    def members(self) -> int:
        return int(self.chances.shape[1])

    def fit(self, rows: Ints) -> Floats:
        inside = np.isin(self.owner, rows)
        # Either way the outcomes' weights sum to the number of rows, the unit of the shrinkage.
        size = np.full(self.n, len(self.owner) / self.n) if self.by_token else self.sizes
        return mixture_weights(self.chances[inside], PRIOR_ROWS, 1 / size[self.owner[inside]])

    def losses(self, weights: Floats, rows: Ints) -> Floats:
        each = -np.log(np.maximum(self.chances @ weights, TINY))
        total = np.bincount(self.owner, each, minlength=self.n)
        return np.asarray((total / np.maximum(self.sizes, 1))[rows])


@dataclass(frozen=True)
class Blend:
    """Numbers: ``answers`` [n, members] with ``truth`` [n], in the user's unit; a row's loss is its
    squared error.
    """

    answers: Floats
    truth: Floats
    metric: str = "squared error"
    tokens: Ints | None = None

    @property
    def n(self) -> int:
        return len(self.truth)

    @property
    def members(self) -> int:
        return int(self.answers.shape[1])

    def fit(self, rows: Ints) -> Floats:
        return blend_weights(self.answers[rows], self.truth[rows], PRIOR_ROWS)

    def losses(self, weights: Floats, rows: Ints) -> Floats:
        return np.asarray((self.answers[rows] @ weights - self.truth[rows]) ** 2)


def stored_evidence(shared: SharedRows, labels: str) -> EnsembleEvidence:
    """What the runs stored for the rows they share.

    ``labels`` is the label type (``class``, ``several`` or ``number``). Raises ``RecipeError``
    where the runs disagree on a label.
    """
    _same_labels(shared)
    if labels == "number":
        truth = np.array([float(line["label"]) for line in shared.answers[0]])
        errors = [[float(line["error"]) for line in lines] for lines in shared.answers]
        return Blend(truth[:, None] + np.array(errors, dtype=np.float64).T, truth)
    return _several(shared) if labels == "several" else _classes(shared)


def _classes(shared: SharedRows) -> Chances:
    columns = []
    for run, lines in zip(shared.runs, shared.answers, strict=True):
        place = {name: i for i, name in enumerate(run.names)}
        columns.append([line["probabilities"][place[line["label"]]] for line in lines])
    return Chances(_table(columns), np.arange(len(shared)), len(shared))


def _several(shared: SharedRows) -> Chances:
    names, columns = shared.runs[0].names, []
    for run, lines in zip(shared.runs, shared.answers, strict=True):
        place = {name: i for i, name in enumerate(run.names)}
        given: list[float] = []
        for line in lines:
            labels, probabilities = set(line["label"]), line["probabilities"]
            given += [
                probabilities[place[n]] if n in labels else 1 - probabilities[place[n]]
                for n in names
            ]
        columns.append(given)
    return Chances(_table(columns), np.repeat(np.arange(len(shared)), len(names)), len(shared))


def _table(columns: Sequence[Sequence[float]]) -> Floats:
    return np.maximum(np.array(columns, dtype=np.float64).T, TINY)


def _same_labels(shared: SharedRows) -> None:
    def plain(label: object) -> object:
        return sorted(label) if isinstance(label, list) else label

    first = [plain(line["label"]) for line in shared.answers[0]]
    for run, lines in zip(shared.runs[1:], shared.answers[1:], strict=True):
        others = [plain(line["label"]) for line in lines]
        differ = sum(a != b for a, b in zip(first, others, strict=True))
        if differ:
            raise RecipeError(
                "several runs",
                "can be weighted only on rows with the same labels: "
                f"{shared.runs[0].run} and {run.run} differ on {differ} of "
                f"{len(first)}",
                None,
                "Name runs that were trained on the same labels.",
            )


HOW = (
    "Split all runs alike: the same --set data.split.seed=N with different --seed, "
    "or the same --set data.valid=FILE. Or train them with --set train.folds=5, "
    "which predicts all rows out of fold. Or use --set predict.ensemble=average."
)


class MemberRun(Protocol):
    """A finished run whose stored predictions and rows are read: ``runs.stored.Again``."""

    @property
    def run(self) -> Path: ...

    @property
    def result(self) -> dict[str, Any]: ...

    @property
    def names(self) -> tuple[str, ...]: ...

    def divided(self) -> Any: ...

    def stored(self, split: Literal["train", "valid", "test"]) -> Any: ...

    def table(self, split: Literal["train", "valid", "test"]) -> Table: ...


@dataclass(frozen=True)
class SharedRows:
    """Rows that all ``runs`` share.

    For each run the source positions [n] of these rows, in one order; ``keys`` [n] are those of
    their texts.
    """

    runs: tuple[MemberRun, ...]
    rows: tuple[Ints, ...]
    keys: Any
    out_of_fold: bool

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def answers(self) -> tuple[list[dict[str, Any]], ...]:
        """What each run stored for the rows: per run one list [n] of lines of
        ``answers.parquet``.
        """
        predictions = []
        for run, rows in zip(self.runs, self.rows, strict=True):
            lines = {line["row"]: line for line in run.stored("valid").to_pylist()}
            predictions.append([lines[int(row)] for row in rows])
        return tuple(predictions)

    @cached_property
    def table(self) -> Table:
        """The rows as the first run reads them; not available where predictions are out of fold."""
        valid_table = self.runs[0].table("valid")
        return valid_table.take(valid_table.positions_of(self.rows[0]))

    @cached_property
    def groups(self) -> Any:
        """``groups_of`` the rows in the first run's split."""
        run = self.runs[0]
        split = "train" if cross_fitted(run) else "valid"
        return stored_groups_of(run.divided(), split, self.rows[0].tolist())


def cross_fitted(run: MemberRun) -> bool:
    return bool((run.result.get("valid") or {}).get("out_of_fold"))


def split_records(run: MemberRun, split: str) -> list[dict[str, Any]]:
    records = run.divided()
    if "text_key" not in records.column_names:
        rule = "does not identify its rows by their texts: an older version made this run"
        remedy = "Train it again, or use --set predict.ensemble=average."
        raise RecipeError(str(run.run / SPLITS), rule, None, remedy)
    columns = records.select(["row", "split", "group", "text_key"]).to_pylist()
    return [line for line in columns if line["split"] == split]
