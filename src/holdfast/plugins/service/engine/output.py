"""What a model answered → what goes out, row for row as ``holdfast predict`` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from holdfast.contract.inference import Answers
from holdfast.core.records import Floats
from holdfast.plugins.service.records import RowPrediction, RowPredictions
from holdfast.runs.prediction_file import DIGITS
from holdfast.runs.predictor import Predictor

NO_TEXT = "there is nothing to read in this row"


class ReadRows(Protocol):
    """A request as it was read: ``places`` [n] is where the rows that can be read stand among its
    ``rows``, ``because`` why another has no answer, ``vectors`` [n, width] what the model's last
    layer read."""

    rows: int
    places: list[int]
    because: Mapping[int, str]
    vectors: Floats | None


def row_predictions(answers: Answers, predictor: Predictor) -> list[RowPrediction]:
    """One answer a row: certainties and probabilities to six digits, nothing where the run's
    threshold leaves a row to a person."""
    chances, names = answers.probabilities, predictor.names
    said, sure = answers.predictions, answers.confidence
    why: Sequence[str | None] = [None] * len(said)
    if predictor.rule is not None:
        said, sure, why = predictor.rule.apply(said, sure, chances)
    rows: Sequence[Mapping[str, float] | None] = [None] * len(said)
    if names and chances is not None:
        rows = [dict(zip(names, row, strict=True)) for row in chances.round(DIGITS).tolist()]
    return [
        RowPrediction(one, None if p is None else round(p, DIGITS), row, because)
        for one, p, row, because in zip(said, sure, rows, why, strict=True)
    ]


def whole_answer(
    read: ReadRows, said: Sequence[RowPrediction], model: str, empty: str | None
) -> RowPredictions:
    """The answers to a request in the order of its rows, ``empty`` to one without anything to read;
    and its vectors [rows, width], NaN where nothing was read."""
    rows: list[Any] = [None] * read.rows
    for place, answer in zip(read.places, said, strict=True):
        rows[place] = answer
    for place, one in enumerate(rows):
        if one is None:
            because = read.because.get(place) or NO_TEXT
            rows[place] = RowPrediction(empty, None, None, because)
    vectors = None
    if read.vectors is not None:
        vectors = np.full((read.rows, read.vectors.shape[1]), np.nan, dtype=np.float32)
        vectors[read.places] = read.vectors
    return RowPredictions(tuple(rows), model, vectors)


def filled(kept: Floats | None, rows: int, found: Floats, first: int) -> Floats:
    """``kept`` [rows, width] with the rows from ``first`` on as found; made where there is none."""
    made = np.full((rows, found.shape[1]), np.nan, dtype=found.dtype) if kept is None else kept
    made[first : first + len(found)] = found
    return made
