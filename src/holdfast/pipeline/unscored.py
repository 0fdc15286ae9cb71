"""A run without test rows: what can be said of its model all the same, for every task."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from holdfast.pipeline.predictor import Predictor
from holdfast.pipeline.ready import Fitted, Scored
from holdfast.report.view.honest import headline_metric
from holdfast.training.batches import probe_positions

WHY = "no test rows were set aside, and none were given"
PROBLEMS = {"several": "multi_label_classification", "number": "regression"}


def unscored(fitted: Fitted, saved: Mapping[str, Any], why: str = WHY) -> Scored:
    """``test`` with ``n`` 0 and ``why``, no baseline, and the train probe by the kept state.
    ``predictions.parquet`` has no line."""
    start = time.perf_counter()
    ready, predictor = fitted.ready, Predictor.of(fitted)
    kind = ready.prepared.rows.columns.label_kind
    probe = probe_positions(ready.train.rows, ready.plan.probe_rows, ready.plan.seed)
    table = ready.sides.train_rows.table
    learned = predictor.judge(table.take(table.places(ready.train.rows[probe])))().to_json()
    nothing = {"value": None, "low": None, "high": None, "why": why}
    metrics = {headline_metric(learned["metrics"]): nothing}
    empty = {"n": 0, "metrics": metrics, "why": why}
    blocks: dict[str, Any] = {
        **({"problem": PROBLEMS[kind]} if kind in PROBLEMS else {}),
        "classes": list(predictor.names) or None,
        "test": empty,
        "valid": empty,
        "train_probe": learned,
        "baseline": {"what": None, "test": empty, "all": [], "why": why},
        "model_facts": ready.kind.facts(fitted, saved),
        "careless": None,
    }
    seconds = {"score_s": time.perf_counter() - start, "baseline_s": 0.0}
    return Scored(blocks, (), seconds, predictions=_no_lines(fitted))


def _no_lines(fitted: Fitted) -> dict[str, Any]:
    """The columns of ``predictions.parquet``, as the answers of other rows have them."""
    if fitted.answered is None:
        types = {"row": pa.int64(), "label": pa.string(), "prediction": pa.string()}
        return {name: pa.array([], kind) for name, kind in {**types, "loss": pa.float64()}.items()}
    none = fitted.answered.columns.slice(0, 0)
    return {name: none[name] for name in none.column_names}
