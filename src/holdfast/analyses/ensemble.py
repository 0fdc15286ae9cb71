"""How several runs answer as one: the mean of their answers, a stack (answers by weights), or a
soup (one model of their mean weights).

The weights of a stack are fitted to rows that judged every run and that none learned from, and
kept only where a paired test on folds of these rows says that they are better than the mean. A
greedy soup takes a run in as long as it does no worse on such rows (2203.05482).
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
from holdfast.data.table import Table
from holdfast.models.soup import FAR, greedy_soup
from holdfast.runs.finished_run import shared_rows
from holdfast.runs.predictor import Join
from holdfast.stats.bootstrap import group_codes
from holdfast.stats.paired_tests import loss_rows
from holdfast.stats.stacking import held_out_losses
from holdfast.tasks.ensemble import EnsembleEvidence, SharedRows, in_turn, together_mb

KEY = "predict.ensemble"
Way = Literal["average", "stack", "soup"]
WAYS: tuple[Way, ...] = get_args(Way)


class Joining(TaskPredictor, Protocol):
    """Several models that answer together, by their ``weights`` (``None``: all alike)."""

    @property
    def weights(self) -> Sequence[float] | None: ...

    def weighed(self, weights: Sequence[float]) -> Self:
        """The same with these weights."""

    def evidence(self, shared: SharedRows) -> EnsembleEvidence:
        """What each model says of these rows."""

    def souped(self, places: Sequence[int]) -> Self:
        """One model whose weights are the mean of those of the models at ``places``. Raises
        ``RecipeError`` where they have none."""

    def apart(self) -> Floats:
        """How far each model's weights lie from the first's [models], see ``soup.distance``."""

    def row_losses(self, table: Table) -> Floats:
        """The loss of each labelled row [n], as they answer together."""


@dataclass(frozen=True, slots=True)
class Ensemble:
    """What was made of ``runs``: ``asked`` for, and the ``kind`` that came of it; the ``weights``
    of each run's answers (of a soup, its share of the weights). ``losses`` are the members' alone,
    by the ``n`` rows that judged; ``comparison`` is the paired test (in ``metric``, per row; better
    means that what was asked for is better than the mean). ``cost`` is what it takes beside one
    model: forward passes a row, and MB of weights."""

    asked: Way
    kind: Way
    runs: tuple[Path, ...]
    weights: tuple[float, ...]
    because: str
    n: int = 0
    metric: str | None = None
    losses: tuple[float, ...] | None = None
    together: Mapping[str, float] | None = None
    comparison: PairedVerdict | None = None

    def to_json(self) -> dict[str, Any]:
        """The block ``ensemble`` of ``evaluate --json``."""
        losses = self.losses or [None] * len(self.runs)
        passes = 1 if self.kind == "soup" else sum(weight > 0 for weight in self.weights)
        found: dict[str, Any] = to_json(
            {
                "kind": self.kind,
                "asked": self.asked,
                "because": self.because,
                "members": [
                    {"run": str(run), "weight": weight, "valid_loss": loss}
                    for run, weight, loss in zip(self.runs, self.weights, losses, strict=True)
                ],
                "rows": self.n,
                "metric": self.metric,
                "valid_losses": self.together,
                "comparison": self.comparison.to_json() if self.comparison else None,
                "cost": {"passes": passes, "megabytes": round(together_mb(self.runs), 1)},
            }
        )
        return found

    @property
    def decision(self) -> Decision:
        shares = ", ".join(
            f"{run} {weight:.2f}" for run, weight in zip(self.runs, self.weights, strict=True)
        )
        return Decision("ensemble", f"{self.kind}: {shares}", self.because, prominent=True)


def join_as(way: str, runs: Sequence[Path]) -> Join | None:
    """How ``Predictor.load`` puts these runs together where ``predict.ensemble`` says ``way``;
    ``None`` for the one run that is not to be put together with any. Raises ``RecipeError`` for
    another word, and for one run that is to be stacked."""
    if way not in WAYS:
        raise RecipeError(KEY, "is unknown", way, suggest_name(way, list(WAYS)))
    if len(runs) > 1:
        return partial(_joined, way)
    if way != "average":
        raise RecipeError(KEY, "puts several runs together", len(runs), "Name two or more.")
    return None


def _joined(
    way: Way, runs: Sequence[Path], use: TaskPredictor
) -> tuple[TaskPredictor, Mapping[str, Any], tuple[Decision, ...]]:
    """``use`` answers for ``runs`` by their mean; what answers as ``way`` has it, and why so."""
    told = in_turn(getattr(use, "models", None), runs)
    equal = (1 / len(runs),) * len(runs)
    if way == "average":
        because = "the mean of the answers; no rows are needed for it"
        return use, Ensemble(way, way, tuple(runs), equal, because).to_json(), told
    together = cast("Joining", use)
    shared = shared_rows(runs, f"{KEY}={way}")
    made, found = (_stack if way == "stack" else _soup)(together, shared, tuple(runs))
    return made, found.to_json(), (*told, found.decision)


def _stack(use: Joining, shared: SharedRows, runs: tuple[Path, ...]) -> tuple[Joining, Ensemble]:
    evidence = use.evidence(shared)
    everything, groups = np.arange(evidence.n), shared.groups
    units = everything if groups is None else group_codes(groups, evidence.n)
    equal = np.full(evidence.members, 1 / evidence.members)
    held = held_out_losses(evidence.fit, evidence.losses, units, generator(0, "folds of a stack"))
    losses = loss_rows(held, evidence.tokens)
    mean = loss_rows(evidence.losses(equal, everything), evidence.tokens)
    found = judge_pairs(mean - losses, 0.0, groups)
    weights = evidence.fit(everything)
    each = np.eye(evidence.members)
    alone = tuple(mean_loss(evidence.losses(one, everything), evidence.tokens) for one in each)
    kept = found.verdict == "better"
    said = _test(found, evidence.metric, "the weights", "the mean")
    because = f"{said}: {'weights are kept' if kept else 'the mean is kept'}"
    chosen = weights if kept else equal
    report = Ensemble(
        "stack",
        "stack" if kept else "average",
        runs,
        tuple(float(w) for w in chosen),
        because,
        evidence.n,
        evidence.metric,
        alone,
        {"average": float(mean.mean()), "stack": float(losses.mean())},
        found,
    )
    return (use.weighed(report.weights) if kept else use), report


def _test(found: PairedVerdict, metric: str, first: str, second: str) -> str:
    """The paired test in words."""
    if found.why:
        return f"{found.why} ({found.n} rows that judged every run)"
    words = "is lower than" if found.verdict == "better" else "is not shown to be lower than"
    if found.verdict == "worse":
        words = "is higher than"
    return (
        f"on {found.n} rows that judged every run the {metric} of {first}, out of fold, {words} "
        f"that of {second} (by {found.value:+.4g}, {found.low:+.4g} to {found.high:+.4g})"
    )


def _soup(use: Joining, shared: SharedRows, runs: tuple[Path, ...]) -> tuple[Joining, Ensemble]:
    if shared.out_of_fold:
        raise RecipeError(
            f"{KEY}=soup",
            "needs rows that the kept models have not learned from, and cross-fitted ones learned "
            "from all",
            None,
            f"Take {KEY}=stack or average; or give the runs validation rows of their own.",
        )
    _same_start(runs, use)
    table, groups = shared.table, shared.groups
    mean = use.row_losses(table)
    by_members: dict[tuple[int, ...], Floats] = {}

    def losses_of(places: Sequence[int]) -> Floats:
        key = tuple(places)
        if key not in by_members:
            by_members[key] = use.souped(key).row_losses(table)
        return by_members[key]

    alone = [float(np.nanmean(losses_of((place,)))) for place in range(len(runs))]
    soup = greedy_soup(alone, lambda places: float(np.nanmean(losses_of(places))))
    known = np.isfinite(mean) & np.isfinite(losses_of(soup.members))
    gap = (mean - losses_of(soup.members))[known]
    at = np.flatnonzero(known)
    found = judge_pairs(gap, 0.0, None if groups is None else groups[at])
    share = 1 / len(soup.members)
    weights = tuple(share if place in soup.members else 0.0 for place in range(len(runs)))
    best = min(alone)
    because = (
        f"of {len(runs)} runs of one start {len(soup.members)} "
        f"{'is' if len(soup.members) == 1 else 'are'} in the soup: on {found.n} rows "
        f"that judged every run its loss is {soup.loss:.4f}, that of the best run alone "
        f"{best:.4f}, of the mean of the answers {float(np.nanmean(mean)):.4f}; it costs one "
        "forward pass"
    )
    report = Ensemble(
        "soup",
        "soup",
        runs,
        weights,
        because,
        found.n,
        "loss",
        tuple(alone),
        {"average": float(np.nanmean(mean)), "soup": soup.loss, "best": best},
        found,
    )
    return use.souped(soup.members), report


def _same_start(runs: tuple[Path, ...], use: Joining) -> None:
    """Raise ``RecipeError`` for runs that did not begin with the same pretrained weights."""
    facts = [dict(open_run(run).get("model_facts") or {}) for run in runs]
    for key in ("name", "commit", "architecture", "parameters"):
        found = list(dict.fromkeys(str(one.get(key)) for one in facts))
        if len(found) > 1:
            raise RecipeError(
                f"{KEY}=soup",
                f"needs runs of one start, and these have another {key}",
                ", ".join(found),
                f"Take {KEY}=stack or average, which any runs of the same classes may have.",
            )
    apart = use.apart()
    if float(np.max(apart)) > FAR:
        raise RecipeError(
            f"{KEY}=soup",
            "needs runs of one start: below the head their weights lie further apart than those "
            f"of models that share one (at most {FAR:g})",
            f"{float(np.max(apart)):.3g}",
            f"Take {KEY}=stack or average.",
        )
