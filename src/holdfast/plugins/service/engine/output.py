"""What a model answered → what goes out, row for row as ``holdfast predict`` writes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from holdfast.contract.inference import Answered, Answers
from holdfast.plugins.service.records import RowPrediction
from holdfast.runs.prediction_file import DIGITS
from holdfast.runs.threshold import ThresholdRule

NO_TEXT = "there is nothing to read in this row"


def answers_said(
    answers: Answers, names: Sequence[str], rule: ThresholdRule | None
) -> list[RowPrediction]:
    """One answer a row: certainties and probabilities to six digits, nothing where the run's
    threshold leaves a row to a person."""
    chances = answers.probabilities
    said, sure = answers.predictions, answers.confidence
    why: Sequence[str | None] = [None] * len(said)
    if rule is not None:
        said, sure, why = rule.apply(said, sure, chances)
    rows: Sequence[Mapping[str, float] | None] = [None] * len(said)
    if names and chances is not None:
        rows = [dict(zip(names, row, strict=True)) for row in chances.round(DIGITS).tolist()]
    return [
        RowPrediction(one, None if p is None else round(p, DIGITS), row, because)
        for one, p, row, because in zip(said, sure, rows, why, strict=True)
    ]


def nothing_said(answered: Answered, because: str | None, pictures: bool) -> RowPrediction:
    """The answer to a row without anything to read: empty where answers are texts."""
    empty = "" if answered == "text" and not pictures else None
    return RowPrediction(empty, None, None, because or NO_TEXT)
