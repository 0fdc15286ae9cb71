"""From the served model, or from the start: which of the two an update learns from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from holdfast.analyses.compare.verdict import judge_pairs, pair_rows
from holdfast.analyses.row_texts import label_type_of, labels_of_rows
from holdfast.contract.run_folder import MODEL
from holdfast.core.errors import RecipeError
from holdfast.core.files import write_json
from holdfast.core.records import Decision, to_json
from holdfast.data.table import Table
from holdfast.models.adapters.save import is_adapter_folder
from holdfast.recipe import Recipe
from holdfast.runs.predictor import Predictor

Start = Literal["warm", "anew"]
STARTS = ("auto", "warm", "anew")
WORDS = {"warm": "from the served model", "anew": "from the start"}


@dataclass(frozen=True, slots=True)
class StartChoice:
    """The start that was chosen, why, and what each that was tried scored on the validation
    rows."""

    start: Start
    because: str
    tried: Mapping[str, Any]

    @property
    def decision(self) -> Decision:
        return Decision("start", WORDS[self.start], self.because, prominent=True)


def against_warm(run: Path, recipe: Recipe, deleted: int) -> str | None:
    """Why the served model is no place to start from; ``None`` where it is one."""
    if deleted:
        return f"the served model learned from {deleted} rows that were deleted since"
    if is_adapter_folder(run / MODEL):
        return "the served model is an adapter beside another model"
    if recipe.model.quantize != "none":
        return "the served model is quantized"
    return None


def recipe_of(start: Start, recipe: Recipe, run: Path) -> Recipe:
    """The recipe of the fit with this start."""
    if start == "anew":
        return recipe
    named = {"name": str((run / MODEL).resolve()), "revision": None, "layers": None}
    return recipe.changed(model=named)


def check_start(asked: str, against: str | None) -> None:
    """Raise ``RecipeError`` for a start that there is not, or that cannot be."""
    if asked not in STARTS:
        rule = f"must be one of {', '.join(STARTS)}"
        raise RecipeError("--start", rule, asked, "Leave it out: both are tried.")
    if asked == "warm" and against:
        raise RecipeError("--start", f"cannot be warm: {against}", asked, "Take --start anew.")


def choose(
    asked: str,
    against: str | None,
    valid: Table,
    answers: Callable[[Start], Sequence[Any]],
    kept_in: Path,
) -> StartChoice:
    """The start. Both are tried (``answers`` fits one and answers the validation rows) where
    neither was asked for; what was answered is kept below ``kept_in``, so that a killed run fits
    neither again.

    The served model is taken where it is shown to be better (paired, one-sided at 2.5 %). Where the
    two cannot be told apart the start is: it does not depend on the line of updates before it, and
    holds nothing of rows that are deleted later.
    """
    if asked == "warm":
        return StartChoice("warm", "asked for", {})
    if asked == "anew" or against:
        return StartChoice("anew", against or "asked for", {})
    kept_in.mkdir(parents=True, exist_ok=True)
    said = []
    starts: tuple[Start, ...] = ("warm", "anew")
    for start in starts:
        path = kept_in / f"start-{start}.json"
        if not path.exists():
            write_json(path, {"predictions": answers(start)})
        said.append(json.loads(path.read_text("utf-8"))["predictions"])
    pairs = pair_rows(label_type_of(valid), labels_of_rows(valid), *said)
    found = judge_pairs(pairs.gap, 0.01, groups_of(valid))
    tried = {
        "metric": pairs.metric,
        "n": found.n,
        "warm": pairs.first,
        "anew": pairs.second,
        "difference": {"value": found.value, "low": found.low, "high": found.high},
        "verdict": found.verdict,
    }
    gap = f"{100 * found.value:+.1f} points for it on {found.n:,} validation rows"
    limits = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    if found.verdict == "better":
        return StartChoice("warm", f"{gap} ({limits})", tried)
    if found.verdict == "worse":
        return StartChoice("anew", f"the served model as a start is worse: {gap} ({limits})", tried)
    because = (
        f"starting from the served model is not shown to be better ({gap}, {limits}), and training "
        "from the base model keeps nothing of rows that are deleted later"
    )
    return StartChoice("anew", because, tried)


def groups_of(table: Table) -> Any:
    """The group of each row, where rows come in groups."""
    return table.column("group") if table.has_groups else None


def predictions(predictor: Predictor, table: Table) -> list[Any]:
    """The answers as plain values."""
    return list(to_json(list(predictor.answer(table).predictions)))
