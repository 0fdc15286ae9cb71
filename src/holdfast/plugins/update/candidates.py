"""The start of an update: train from the served model or from the base model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from holdfast.analyses.compare.verdict import judge_pairs, pair_rows
from holdfast.analyses.row_texts import label_type_of, labels_of_rows
from holdfast.contract.predictions import groups_of
from holdfast.contract.run_folder import MODEL
from holdfast.core.errors import RecipeError
from holdfast.core.files import write_json
from holdfast.core.records import Decision, to_json
from holdfast.data.table import Table
from holdfast.models.loading.adapter_folder import is_adapter_folder
from holdfast.plugins.update.gate import signed_points
from holdfast.recipe import Recipe
from holdfast.runs.finished_run import FinishedRun
from holdfast.runs.predictor import Predictor

Start = Literal["warm", "anew"]
STARTS = ("auto", "warm", "anew")
START_WORDS = {"warm": "from the served model", "anew": "from the base model"}


@dataclass(frozen=True, slots=True)
class StartChoice:
    """The chosen start, the reason, and the validation scores of each start that was tried."""

    start: Start
    because: str
    tried: Mapping[str, Any]

    @property
    def decision(self) -> Decision:
        return Decision("start", START_WORDS[self.start], self.because, prominent=True)


def warm_start_obstacle(run: Path, recipe: Recipe, deleted: int) -> str | None:
    """Why training cannot start from the served model; ``None`` where it can."""
    if FinishedRun(run).out_of_fold:
        return "the served model also learned from the validation rows"
    if deleted:
        return f"the served model was trained on {deleted} rows that were deleted since"
    if is_adapter_folder(run / MODEL):
        return "the served model is an adapter on another model"
    if recipe.model.quantize != "none":
        return "the served model is quantized"
    if recipe.model.static:
        return "the served model is a static model, which is made from an encoder"
    return None


def recipe_for_start(start: Start, recipe: Recipe, run: Path) -> Recipe:
    """The recipe that trains from this start."""
    if start == "anew":
        return recipe
    named = {"name": str((run / MODEL).resolve()), "revision": None, "layers": None}
    return recipe.with_changes(model=named)


def check_start(requested: str, obstacle: str | None) -> None:
    """Raise ``RecipeError`` for an unknown start, or one that is not possible."""
    if requested not in STARTS:
        rule = f"must be one of {', '.join(STARTS)}"
        raise RecipeError("--start", rule, requested, "Leave it out: both are tried.")
    if requested == "warm" and obstacle:
        raise RecipeError("--start", f"cannot be warm: {obstacle}", requested, "Use --start anew.")


def choose_start(
    requested: str,
    obstacle: str | None,
    valid: Table,
    predict: Callable[[Start], Sequence[Any]],
    folder: Path,
) -> StartChoice:
    """Choose the model from which training starts. Where none was requested, both are tried:
    ``predict`` trains one and predicts the validation rows. The predictions are stored below
    ``folder``, so that a killed run does not train them again.

    The served model is chosen where it is shown to be better (paired, one-sided at 2.5 %). Where no
    difference can be shown, training starts from the original base model: it does not depend on
    earlier updates, and keeps nothing of rows that are deleted later.
    """
    if requested == "warm":
        return StartChoice("warm", "requested", {})
    if requested == "anew" or obstacle:
        return StartChoice("anew", obstacle or "requested", {})
    folder.mkdir(parents=True, exist_ok=True)
    start_predictions = []
    starts: tuple[Start, ...] = ("warm", "anew")
    for start in starts:
        path = folder / f"start-{start}.json"
        if not path.exists():
            write_json(path, {"predictions": predict(start)})
        start_predictions.append(json.loads(path.read_text("utf-8"))["predictions"])
    pairs = pair_rows(label_type_of(valid), labels_of_rows(valid), *start_predictions)
    comparison = judge_pairs(pairs.gap, 0.01, groups_of(valid))
    scores = {
        "metric": pairs.metric,
        "n": comparison.n,
        "warm": pairs.first,
        "anew": pairs.second,
        "difference": {"value": comparison.value, "low": comparison.low, "high": comparison.high},
        "verdict": comparison.verdict,
    }
    value, low, high = (
        signed_points(one) for one in (comparison.value, comparison.low, comparison.high)
    )
    gap = f"{value} points (95 % CI {low} to {high}) on {comparison.n:,} validation rows"
    warm = "training from the served model is"
    if comparison.verdict == "better":
        return StartChoice("warm", f"{warm} better: {gap}", scores)
    if comparison.verdict == "worse":
        return StartChoice("anew", f"{warm} worse: {gap}", scores)
    because = (
        f"{warm} not shown to be better ({gap}), and training "
        "from the base model keeps nothing of rows that are deleted later"
    )
    return StartChoice("anew", because, scores)


def plain_predictions(predictor: Predictor, table: Table) -> list[Any]:
    """The predictions as plain values."""
    return list(to_json(list(predictor.predict_table(table).predictions)))
