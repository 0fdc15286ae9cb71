"""Using finished runs by the names of their folders: score them on other rows, predict with one or
several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.core.records import Ints
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.know.threshold.rule import Rule
from holdfast.pipeline.advice import advising
from holdfast.pipeline.against_run import against_run
from holdfast.pipeline.contender import labels_of_rows
from holdfast.pipeline.ensemble import join_as
from holdfast.pipeline.predicted import Predicted, json_object
from holdfast.pipeline.predictor import Predictor
from holdfast.pipeline.rows import Notify, notify_all
from holdfast.pipeline.seen import seen_rows
from holdfast.pipeline.threshold import answered_block
from holdfast.pipeline.using import Data, Options, within_limits


def evaluate(
    runs: Path | Sequence[Path],
    data: str,
    options: Options | None = None,
    notify: Notify = lambda _: None,
    ensemble: str = "average",
) -> dict[str, Any]:
    """A ``test`` block for the labelled rows of ``data``, scored by the saved model of a run, or by
    several as an ``ensemble``; see ``scored_block``."""
    # A name with a mistake in it is told before the seconds that a model takes to load.
    refuse_missing(data)
    return scored_block(_loaded(runs, ensemble), data, options, notify)


def _loaded(runs: Path | Sequence[Path], ensemble: str) -> Predictor:
    paths = [runs] if isinstance(runs, Path) else list(runs)
    return Predictor.load(paths, join_as(ensemble, paths))


def scored_block(
    predictor: Predictor, data: str, options: Options | None = None, notify: Notify = lambda _: None
) -> dict[str, Any]:
    """``n`` and ``metrics`` of the labelled rows of ``data``.

    ``seen`` says how many of the rows the runs were trained on or chosen by (the same rows, or
    copies of them; a fit without a folder does not say); where there are any, ``without_seen`` is
    the score of the others. ``against_run`` compares the score with that of the run's own test
    rows (``against_run.py``). Of a run with a threshold, ``threshold`` says what it does to them.
    """
    options = options or Options()
    labelled = predictor.labelled(data, options)
    table = labelled.table
    notify_all(notify, (*predictor.decisions, *labelled.decisions), table.findings)
    score = predictor.judge(table)
    block = score().to_json()
    if predictor.ensemble is not None:
        block["ensemble"] = predictor.ensemble
    if not predictor.runs:
        return block
    # The runs' own sources are read again, for the copies.
    with advising(), within_limits(predictor.part, options.limits):
        seen = seen_rows(predictor.runs, table)
    block["seen"] = seen.to_json()
    if seen.unseen is not None and len(seen.unseen) < len(table):
        block["without_seen"] = score(seen.unseen).to_json()
    block["against_run"] = against_run(predictor, table, seen, block)
    if predictor.rule is not None:
        block["threshold"] = _by_rule(predictor, predictor.rule, table, seen.unseen)
    return block


def _by_rule(predictor: Predictor, rule: Rule, table: Table, unseen: Ints | None) -> dict[str, Any]:
    """What the run's threshold does to the rows that it had not seen: how many are answered, and
    how many of them rightly."""
    table = table if unseen is None else table.take(unseen)
    made = predictor.answer(table)
    said, _, _ = rule.apply(made.predictions, made.confidence, made.probabilities)
    labels = labels_of_rows(table)
    given = np.array([one is not None for one in said], dtype=bool)
    right = np.array([_same(a, b) for a, b in zip(said, labels, strict=True)], dtype=bool)
    return {"by": rule.by, "threshold": rule.threshold, **answered_block(given, right & given)}


def _same(said: Any, label: Any) -> bool:
    # Several labels are a set; tags stand in their order, which both have.
    return bool(said == label) if not isinstance(said, list) else list(said) == list(label)


def predict(
    runs: Sequence[Path],
    data: Data,
    options: Options | None = None,
    *,
    probabilities: bool = False,
    notify: Notify = lambda _: None,
    ensemble: str = "average",
) -> Predicted:
    """The predictions for a file as ``train`` reads them, or a list of texts: one a row, made part
    by part as they are read off."""
    if isinstance(data, str):
        refuse_missing(data)
    predictor = _loaded(runs, ensemble)
    predicted = predictor.predict(data, options, probabilities=probabilities)
    notify_all(notify, (*predictor.decisions, *predicted.decisions), ())
    return predicted


def predict_lines(runs: Sequence[Path], data: Data, options: Options | None = None) -> list[str]:
    """The predictions as one JSON object a row."""
    predicted = predict(runs, data, options)
    return [
        json.dumps(row, ensure_ascii=False)
        for part in predicted.parts()
        for row in json_object(predicted, part)
    ]
