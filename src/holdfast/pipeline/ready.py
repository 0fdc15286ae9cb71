"""The records that the pipeline's parts exchange, and what a kind of task must bring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.core.records import Decision, Finding, Outputs
from holdfast.data.table import Splits, Table
from holdfast.models.prefix import Prefix
from holdfast.pipeline.defaults import filled
from holdfast.pipeline.fits import Need
from holdfast.recipe import DataPart, Recipe
from holdfast.tasks.metrics import Metric, find_metric
from holdfast.training.plan import Plan

if TYPE_CHECKING:
    from holdfast.pipeline.kinds.written_samples import WrittenSamples
    from holdfast.pipeline.using import Answering
    from holdfast.tasks.base import Examples, Task
    from holdfast.training.loop import Fitted
    from holdfast.training.run import Job


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything before the first step: the resolved recipe, the model, the encoded rows.

    ``loaded`` is what the kind's loader gave: ``network``, ``tokenizer`` (or processor),
    ``max_length``, ``decisions`` and ``facts``; ``need`` is the estimate of its memory;
    ``prefix`` are the frozen first layers whose outputs are kept, if they are; ``watch`` what is
    written at the evaluation points; ``usual_rates`` the learning rates that are known to work.
    """

    kind: Kind
    recipe: Recipe
    loaded: Any
    task: Any
    train: Any
    valid: Any
    plan: Plan
    decisions: tuple[Decision, ...]
    findings: tuple[Finding, ...]
    metric: Metric | None
    loaded_at: float
    need: Need
    prefix: Prefix | None = None
    watch: WrittenSamples | None = None
    usual_rates: tuple[float, float] | None = None

    @property
    def own_metric(self) -> bool:
        """Whether the metric is a user's function, to be scored beside the built-in ones."""
        return ".py:" in filled(self.recipe.train.metric)


@dataclass(frozen=True, slots=True)
class Finish:
    """A fitted run whose model is saved, and the opened test rows: what scoring works on.

    ``saved`` is what the kind's ``save`` returned; ``listeners`` are the kind's own.
    """

    run: Path
    ready: Ready
    splits: Splits
    fitted: Fitted
    job: Job
    listeners: tuple[Any, ...]
    saved: dict[str, Any]
    table: Table
    opened_at: str


@dataclass(frozen=True, slots=True)
class Scored:
    """The honest number and what stands beside it: ``blocks`` go into ``result.json``.

    ``outputs`` are a classifier's, for ``predictions.parquet``; ``texts`` the generated ones.
    """

    blocks: dict[str, Any]
    decisions: tuple[Decision, ...]
    seconds: dict[str, float]
    outputs: Outputs | None = None
    predictions: dict[str, Any] = field(default_factory=dict)


def no_sides(data: DataPart) -> tuple[dict[str, str], tuple[Decision, ...]]:
    """A source that brings no validation or test rows of its own."""
    return {}, ()


def no_watch(
    loaded: Any, splits: Splits, train: Any, valid: Any, recipe: Recipe, probe_rows: int
) -> None:
    """A task that writes no text."""
    return


@dataclass(frozen=True, slots=True)
class Kind:
    """What differs between tasks when the parts are put together: functions, no inheritance.

    ``read`` a source into a table (like another one, where that is given); ``load`` the model for
    a table; ``encode`` a table; ``make_task`` the loop's side; ``notices`` findings on the encoded
    training rows; ``listeners`` the loop's own for this kind;
    ``save`` the network into a folder, returning facts; ``score`` the opened test rows;
    ``use_runs`` and ``use_fitted`` what answers and scores other rows, by finished runs (one, or
    the average of several) and by a fit.
    ``sides`` names the validation and test rows that a source itself brings, with the reason.
    ``find_metric`` a criterion of ``train.metric`` by its name; ``watch`` what texts are written at
    the evaluation points.
    """

    name: str
    read: Callable[[str, DataPart, Table | None], Table]
    load: Callable[[Recipe, Table], Any]
    encode: Callable[[Table, Any, Recipe], Examples]
    make_task: Callable[[Any, Table, Recipe, Metric | None], Task]
    notices: Callable[[Any, Any], tuple[Finding, ...]]
    listeners: Callable[[Ready], tuple[Any, ...]]
    save: Callable[[Path, Ready, Fitted], dict[str, Any]]
    score: Callable[[Finish], Scored]
    use_runs: Callable[[Sequence[Path]], Answering]
    use_fitted: Callable[[Ready, Fitted], Answering]
    sides: Callable[[DataPart], tuple[dict[str, str], tuple[Decision, ...]]] = no_sides
    find_metric: Callable[[str], Metric] = find_metric
    watch: Callable[[Any, Splits, Any, Any, Recipe, int], WrittenSamples | None] = no_watch
