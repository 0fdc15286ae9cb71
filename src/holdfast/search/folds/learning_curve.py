"""``holdfast cv --learning-curve``: the folds of the first repeat, each trained on a quarter and on
half of its rows too, and what twice the rows would bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from holdfast.contract.fit import FittedModel, PreparedData
from holdfast.contract.predictions import losses_of, tokens_of
from holdfast.core.errors import SplitError
from holdfast.core.records import Estimate, Floats, Ints, to_json
from holdfast.core.seeds import derive_seed
from holdfast.core.tasks import CLASSIFICATION_TASKS
from holdfast.search.context import SearchContext, TrialFold
from holdfast.search.folds.scores import metrics_of_folds
from holdfast.search.job import FitResult
from holdfast.split.folds import holdout_split
from holdfast.stats.learning_curve import Doublings, is_told, room_above
from holdfast.stats.paired_tests import loss_rows

# Halves of halves, so that the rows of a smaller part are rows of the larger one.
PHRASES = {0.25: "a quarter of its rows", 0.5: "half of its rows"}
SHARES = tuple(PHRASES)
# The best possible score.
BEST = {"loss": 0.0, "accuracy": 1.0}
Pairs = Sequence[tuple[TrialFold, FitResult]]


def parts_of_folds(
    prepared: PreparedData, folds: Sequence[TrialFold], seed: int
) -> dict[str, TrialFold]:
    """The smaller fits by their keys: of each fold of the first repeat, with half and a quarter of
    its training and validation rows, in whole units and stratified by class."""
    found = {}
    for fold in folds:
        if fold.repeat:
            continue
        train, valid = fold.train, fold.valid
        for share in reversed(SHARES):
            name = f"{fold.number} {share}"
            train = _half(prepared, train, derive_seed(seed, f"learning curve {name}"))
            valid = _half(prepared, valid, derive_seed(seed, f"learning curve, validation {name}"))
            part = replace(fold, train=train, valid=valid, share=share)
            found[f"part-{share:g}-{fold.number}"] = part
    return found


def _half(prepared: PreparedData, positions: Ints, seed: int) -> Ints:
    """Half of the rows; all of them where they are a single unit."""
    units = prepared.units[positions]
    if len(np.unique(units)) < 2:
        return positions
    labels = np.asarray(prepared.rows.column("label"))[positions]
    try:
        _, half = holdout_split(units, labels, 0.5, seed)
    except SplitError:
        # A class with one unit.
        _, half = holdout_split(units, np.zeros_like(labels), 0.5, seed)
    return positions[half]


def curve_block(
    context: SearchContext, pairs: Pairs, parts: Pairs, fitted: FittedModel
) -> dict[str, Any]:
    """``learning_curve`` of ``cv``: the score by number of rows, with the intervals of ``cv``, and
    the gain of twice the rows, for the loss and, where a row has one class, for the accuracy. Where
    a smaller fit failed, only the reason."""
    failed = next((done.failed for _, done in parts if done.failed is not None), None)
    if failed is not None:
        return {"why": failed}
    of_first = [(fold, done) for fold, done in (*parts, *pairs) if fold.repeat == 0]
    steps = {
        share: [(fold, done) for fold, done in of_first if fold.share == share]
        for share in (*SHARES, 1.0)
    }
    rows = {share: _rows_of(some) for share, some in steps.items()}
    tables = {share: _predictions(some) for share, some in steps.items()}
    groups = _groups(context, tables[1.0]["row"])
    measures = {"loss": [-_losses(table) for table in tables.values()]}
    if context.recipe.task in CLASSIFICATION_TASKS and context.rows.columns.one_class:
        measures["accuracy"] = [_correct(table) for table in tables.values()]
    scores = [metrics_of_folds(context, some, fitted) for some in steps.values()]
    return {
        "rows": [rows[share] for share in steps],
        "next": 2 * rows[1.0],
        "metrics": {
            name: _measure(name, [block[name] for block in scores], measures[name], groups)
            for name in measures
        },
    }


def _measure(
    name: str, scores: Sequence[Estimate], by_row: Sequence[Floats], groups: Ints
) -> dict[str, Any]:
    """The scores of a measure by number of rows, and its foretold gain."""
    rows = np.stack(list(by_row))
    # Of a row without a target nothing is known.
    known = np.isfinite(rows).all(axis=0)
    room = room_above(scores[-1], BEST[name])
    gain = Doublings.from_scores(rows[:, known], groups[known]).foretell(room=room)
    return {
        "scores": [to_json(one) for one in scores],
        "gain": to_json(gain),
        "told": is_told(gain),
    }


def _rows_of(pairs: Pairs) -> int:
    """The mean number of rows that a fold learns from or chooses by."""
    return round(float(np.mean([len(fold.train) + len(fold.valid) for fold, _ in pairs])))


def _predictions(pairs: Pairs) -> Any:
    """The held-out predictions, in the order of the rows."""
    import pyarrow as pa

    table = pa.concat_tables([done.held_out_scores.predictions for _, done in pairs])
    return table.take(pa.array(np.argsort(table["row"].to_numpy(), kind="stable")))


def _groups(context: SearchContext, rows: Any) -> Ints:
    places = context.rows.positions_of(rows.to_numpy())
    return np.unique(context.units[places], return_inverse=True)[1].astype(np.int64)


def _losses(table: Any) -> Floats:
    losses, tokens = losses_of(table), tokens_of(table)
    known = np.isfinite(losses)
    losses[known] = loss_rows(losses[known], None if tokens is None else tokens[known])
    return losses


def _correct(table: Any) -> Floats:
    pairs = zip(table["label"].to_pylist(), table["prediction"].to_pylist(), strict=True)
    return np.array([float(label == predicted) for label, predicted in pairs])
