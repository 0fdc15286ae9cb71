"""Ensembles of several runs: the mean of their predictions, a stack (a weighted mean), or a soup
(one model with their mean weights).

The weights of a stack are fitted on validation rows that no run was trained on. They are kept only
if a paired test on folds of these rows shows that they are better than the mean. A greedy soup adds
a run if the loss on such rows does not rise (2203.05482).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, Self, cast, get_args

import numpy as np

from holdfast.analyses.compare.verdict import PairedVerdict, judge_pairs
from holdfast.contract.inference import TaskPredictor
from holdfast.contract.run_folder import open_run
from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision, Floats, mean_loss, to_json
from holdfast.core.seeds import generator
from holdfast.core.wording import signed
from holdfast.data.table import Table
from holdfast.models.soup import MAX_DISTANCE, greedy_soup
from holdfast.runs.finished_run import shared_rows
from holdfast.runs.predictor import Join
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.paired_tests import loss_rows
from holdfast.stats.stacking import held_out_losses
from holdfast.tasks.ensemble import EnsembleEvidence, SharedRows, in_turn, together_mb

KEY = "predict.ensemble"
EnsembleMethod = Literal["average", "stack", "soup"]
ENSEMBLE_METHODS: tuple[EnsembleMethod, ...] = get_args(EnsembleMethod)


class EnsembleModel(TaskPredictor, Protocol):
    """Several models that predict together, with ``weights`` (``None``: equal weights)."""

    @property
    def weights(self) -> Sequence[float] | None: ...

    def with_weights(self, weights: Sequence[float]) -> Self:
        """The same models with these weights."""

    def evidence(self, shared: SharedRows) -> EnsembleEvidence:
        """The predictions of each model for these rows."""

    def as_soup(self, places: Sequence[int]) -> Self:
        """One model whose weights are the mean of those of the models at ``places``. Raises
        ``RecipeError`` where they have none."""

    def weight_distances(self) -> Floats:
        """The distance of each model's weights from the first model's [models], see
        ``soup.distance``."""

    def row_losses(self, table: Table) -> Floats:
        """The loss of the ensemble for each labelled row [n]."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """An ensemble of ``runs``: the ``requested`` method, and the ``method`` that was used; the
    ``weights`` of each run's predictions (for a soup, its share of the weights). ``losses`` are the
    losses of the single members on the ``n`` comparison rows; ``comparison`` is the paired test (in
    ``metric``, per row; "better" means that the requested method is better than the mean). In the
    JSON, ``cost`` is the number of forward passes for each row, and the MB of weights."""

    requested: EnsembleMethod
    method: EnsembleMethod
    runs: tuple[Path, ...]
    weights: tuple[float, ...]
    because: str
    n: int = 0
    metric: str | None = None
    losses: tuple[float, ...] | None = None
    ensemble_losses: Mapping[str, float] | None = None
    comparison: PairedVerdict | None = None

    def to_json(self) -> dict[str, Any]:
        """The block ``ensemble`` of ``evaluate --json``."""
        losses = self.losses or [None] * len(self.runs)
        n_passes = 1 if self.method == "soup" else sum(weight > 0 for weight in self.weights)
        block: dict[str, Any] = to_json(
            {
                "kind": self.method,
                "asked": self.requested,
                "because": self.because,
                "members": [
                    {"run": str(run), "weight": weight, "valid_loss": loss}
                    for run, weight, loss in zip(self.runs, self.weights, losses, strict=True)
                ],
                "rows": self.n,
                "metric": self.metric,
                "valid_losses": self.ensemble_losses,
                "comparison": self.comparison.to_json() if self.comparison else None,
                "cost": {"passes": n_passes, "megabytes": round(together_mb(self.runs), 1)},
            }
        )
        return block

    @property
    def decision(self) -> Decision:
        shares = ", ".join(
            f"{run} {weight:.2f}" for run, weight in zip(self.runs, self.weights, strict=True)
        )
        return Decision("ensemble", f"{self.method}: {shares}", self.because, prominent=True)


def ensemble_join(method: str, runs: Sequence[Path]) -> Join | None:
    """The function with which ``Predictor.load`` joins these runs for ``predict.ensemble=method``;
    ``None`` for a single run. Raises ``RecipeError`` for an unknown method, and for a single run
    with a method other than ``average``."""
    if method not in ENSEMBLE_METHODS:
        raise RecipeError(KEY, "is unknown", method, suggest_name(method, list(ENSEMBLE_METHODS)))
    if len(runs) > 1:
        return partial(_join_runs, method)
    if method != "average":
        raise RecipeError(KEY, "needs two or more runs", len(runs), "Name two or more runs.")
    return None


def _join_runs(
    method: EnsembleMethod, runs: Sequence[Path], use: TaskPredictor
) -> tuple[TaskPredictor, Mapping[str, Any], tuple[Decision, ...]]:
    """The model that predicts with ``method`` instead of the mean of ``use``, its block
    ``ensemble``, and the decisions."""
    decisions = in_turn(getattr(use, "models", None), runs)
    equal_weights = (1 / len(runs),) * len(runs)
    if method == "average":
        because = "the mean of the predictions, which needs no rows"
        return (
            use,
            Ensemble(method, method, tuple(runs), equal_weights, because).to_json(),
            decisions,
        )
    model = cast("EnsembleModel", use)
    shared = shared_rows(runs, f"{KEY}={method}")
    joined, ensemble = (_stack if method == "stack" else _soup)(model, shared, tuple(runs))
    return joined, ensemble.to_json(), (*decisions, ensemble.decision)


def _stack(
    model: EnsembleModel, shared: SharedRows, runs: tuple[Path, ...]
) -> tuple[EnsembleModel, Ensemble]:
    evidence = model.evidence(shared)
    all_rows, groups = np.arange(evidence.n), shared.groups
    units = all_rows if groups is None else group_codes(groups, evidence.n)
    equal_weights = np.full(evidence.members, 1 / evidence.members)
    held_out = held_out_losses(
        evidence.fit, evidence.losses, units, generator(0, "folds of a stack")
    )
    losses = loss_rows(held_out, evidence.tokens)
    mean_losses = loss_rows(evidence.losses(equal_weights, all_rows), evidence.tokens)
    verdict = judge_pairs(mean_losses - losses, 0.0, groups)
    weights = evidence.fit(all_rows)
    one_hot = np.eye(evidence.members)
    member_losses = tuple(
        mean_loss(evidence.losses(one, all_rows), evidence.tokens) for one in one_hot
    )
    use_weights = verdict.verdict == "better"
    test_words = _describe_test(verdict, evidence.metric)
    because = f"{test_words}: {'the weights are used' if use_weights else 'the mean is used'}"
    final_weights = weights if use_weights else equal_weights
    report = Ensemble(
        "stack",
        "stack" if use_weights else "average",
        runs,
        tuple(float(w) for w in final_weights),
        because,
        evidence.n,
        evidence.metric,
        member_losses,
        {"average": float(mean_losses.mean()), "stack": float(losses.mean())},
        verdict,
    )
    return (model.with_weights(report.weights) if use_weights else model), report


def _describe_test(verdict: PairedVerdict, metric: str) -> str:
    """The result of the paired test, as text."""
    if verdict.why:
        return f"{verdict.why} ({verdict.n} validation rows of all runs)"
    words = "is lower than" if verdict.verdict == "better" else "is not shown to be lower than"
    if verdict.verdict == "worse":
        words = "is higher than"
    return (
        f"on {verdict.n} validation rows of all runs the {metric} of the weights, out of fold, "
        f"{words} that of the mean (by {signed(verdict.value, '+.4g')}, "
        f"{signed(verdict.low, '+.4g')} to {signed(verdict.high, '+.4g')})"
    )


def _soup(
    model: EnsembleModel, shared: SharedRows, runs: tuple[Path, ...]
) -> tuple[EnsembleModel, Ensemble]:
    if shared.out_of_fold:
        rule = "needs rows that no model was trained on, but cross-fitted models use all rows"
        remedy = f"Use {KEY}=stack or average, or train the runs with separate validation rows."
        raise RecipeError(f"{KEY}=soup", rule, None, remedy)
    _refuse_different_bases(runs, model)
    table, groups = shared.table, shared.groups
    mean_losses = model.row_losses(table)
    losses_by_members: dict[tuple[int, ...], Floats] = {}

    def losses_of(places: Sequence[int]) -> Floats:
        key = tuple(places)
        if key not in losses_by_members:
            losses_by_members[key] = model.as_soup(key).row_losses(table)
        return losses_by_members[key]

    member_losses = [float(np.nanmean(losses_of((place,)))) for place in range(len(runs))]
    members, loss = greedy_soup(member_losses, lambda places: float(np.nanmean(losses_of(places))))
    finite = np.isfinite(mean_losses) & np.isfinite(losses_of(members))
    gap = (mean_losses - losses_of(members))[finite]
    positions = np.flatnonzero(finite)
    verdict = judge_pairs(gap, 0.0, None if groups is None else groups[positions])
    share = 1 / len(members)
    weights = tuple(share if place in members else 0.0 for place in range(len(runs)))
    best_loss = min(member_losses)
    because = (
        f"of {len(runs)} runs of the same base model {len(members)} "
        f"{'is' if len(members) == 1 else 'are'} in the soup: on {verdict.n} validation rows "
        f"of all runs its loss is {loss:.4f}, that of the best run {best_loss:.4f}, that of "
        f"the mean of the predictions {float(np.nanmean(mean_losses)):.4f}; it costs one forward "
        "pass"
    )
    report = Ensemble(
        "soup",
        "soup",
        runs,
        weights,
        because,
        verdict.n,
        "loss",
        tuple(member_losses),
        {"average": float(np.nanmean(mean_losses)), "soup": loss, "best": best_loss},
        verdict,
    )
    return model.as_soup(members), report


def _refuse_different_bases(runs: tuple[Path, ...], model: EnsembleModel) -> None:
    """Raise ``RecipeError`` for runs that did not start from the same pretrained weights."""
    facts = [dict(open_run(run).get("model_facts") or {}) for run in runs]
    for key in ("name", "commit", "architecture", "parameters"):
        values = list(dict.fromkeys(str(one.get(key)) for one in facts))
        if len(values) > 1:
            rule = f"needs runs of the same base model, but they differ in {key}"
            remedy = f"Use {KEY}=stack or average, which need only the same classes."
            raise RecipeError(f"{KEY}=soup", rule, ", ".join(values), remedy)
    distances = model.weight_distances()
    if float(np.max(distances)) > MAX_DISTANCE:
        raise RecipeError(
            f"{KEY}=soup",
            "needs runs of the same base model: without the last layer, the distance of their "
            f"weights is larger than that of such runs (at most {MAX_DISTANCE:g})",
            f"{float(np.max(distances)):.3g}",
            f"Use {KEY}=stack or average.",
        )
