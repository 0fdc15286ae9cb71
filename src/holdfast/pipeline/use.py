"""Using finished runs by the names of their folders: score them on other rows, predict with one or
several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast.data.source import refuse_missing
from holdfast.pipeline.advice import advising
from holdfast.pipeline.predicted import Predicted, json_object
from holdfast.pipeline.predictor import Predictor
from holdfast.pipeline.rows import Notify, notify_all
from holdfast.pipeline.seen import seen_rows
from holdfast.pipeline.using import Data, Options, within_limits


def evaluate(
    runs: Path | Sequence[Path],
    data: str,
    options: Options | None = None,
    notify: Notify = lambda _: None,
) -> dict[str, Any]:
    """A ``test`` block for the labelled rows of ``data``, scored by the saved model of a run, or by
    the average of several; see ``scored_block``."""
    # A name with a mistake in it is told before the seconds that a model takes to load.
    refuse_missing(data)
    return scored_block(Predictor.load(runs), data, options, notify)


def scored_block(
    predictor: Predictor, data: str, options: Options | None = None, notify: Notify = lambda _: None
) -> dict[str, Any]:
    """``n`` and ``metrics`` of the labelled rows of ``data``.

    ``seen`` says how many of the rows the runs were trained on or chosen by (the same rows, or
    copies of them; a fit without a folder does not say); where there are any, ``without_seen`` is
    the score of the others.
    """
    options = options or Options()
    labelled = predictor.labelled(data, options)
    table = labelled.table
    notify_all(notify, (*predictor.decisions, *labelled.decisions), table.findings)
    score = predictor.judge(table)
    block = score().to_json()
    if not predictor.runs:
        return block
    # The runs' own sources are read again, for the copies.
    with advising(), within_limits(predictor.part, options.limits):
        seen = seen_rows(predictor.runs, table)
    block["seen"] = seen.to_json()
    if seen.unseen is not None and len(seen.unseen) < len(table):
        block["without_seen"] = score(seen.unseen).to_json()
    return block


def predict(
    runs: Sequence[Path],
    data: Data,
    options: Options | None = None,
    *,
    probabilities: bool = False,
    notify: Notify = lambda _: None,
) -> Predicted:
    """The predictions for a file as ``train`` reads them, or a list of texts: one a row, made part
    by part as they are read off."""
    if isinstance(data, str):
        refuse_missing(data)
    predictor = Predictor.load(runs)
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
