"""Confidence thresholds: above which confidence a prediction is reliable, chosen on validation rows
and measured on test rows.

Every run measures three guarantees and sets none. ``holdfast threshold`` chooses one from the
stored predictions of a finished run and writes it to ``threshold.json``.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.analysis import Analysis, NoAnswer, Session
from holdfast.analyses.row_scores import rate_estimate
from holdfast.analyses.threshold.choice import (
    CONFIDENCE_LEVEL,
    ThresholdChoice,
    for_coverage,
    for_precision,
    highest_coverage,
    highest_precision,
    read_costs,
)
from holdfast.contract.predictions import Bools, Predictions
from holdfast.core.errors import RecipeError
from holdfast.core.lock import locked
from holdfast.core.records import Estimate, Floats, Ints, to_json
from holdfast.runs.finished_run import FinishedRun
from holdfast.runs.threshold import (
    FILE,
    By,
    CostMatrix,
    ThresholdRule,
    model_fingerprint,
    price_rule,
    refuse_existing,
    write_threshold,
)
from holdfast.stats.intervals import clopper_pearson

if TYPE_CHECKING:
    import numpy.typing as npt

ASSUMES = "new rows are drawn as the validation rows were"
# benchmarks/decisions.py: the largest share of 1,000 resamplings of validation rows in which the
# guaranteed precision was missed, over four data sets, three guarantees and three numbers of rows.
BROKEN_RATE = 0.038
PROMISES = (0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class ThresholdRequest:
    """What a threshold shall guarantee: exactly one of a precision, a coverage (the share of rows
    that get a prediction), and a file of costs."""

    precision: float | None = None
    coverage: float | None = None
    cost: str | None = None

    def __post_init__(self) -> None:
        given = [x for x in (self.precision, self.coverage, self.cost) if x is not None]
        if len(given) != 1:
            rule = "needs exactly one of --precision, --coverage and --cost"
            raise RecipeError("holdfast threshold", rule, len(given), "E.g. --precision 0.95.")
        if self.cost == "":
            raise RecipeError("--cost", "names no file", "", "E.g. --cost costs.csv.")
        for name, value in (("--precision", self.precision), ("--coverage", self.coverage)):
            if value is not None and not 0 < value < 1:
                rule = "must lie strictly between 0 and 1"
                raise RecipeError(name, rule, value, f"E.g. {name} 0.95.")

    @property
    def by(self) -> By:
        return "cost" if self.cost else "precision" if self.precision else "coverage"

    @property
    def requested(self) -> float | str:
        """The value, or the name of the file."""
        return self.cost or self.precision or self.coverage or ""


def find(session: Session) -> Mapping[float, ThresholdChoice] | NoAnswer:
    """The threshold of each guarantee, from validation rows only."""
    requests = [ThresholdRequest(precision=promise) for promise in PROMISES]
    try:
        refuse_task(str(session.recipe.task), session.valid, requests[0])
    except RecipeError as error:
        return NoAnswer(error.rule)
    choices = (choose_threshold(session.valid, one) for one in requests)
    return dict(zip(PROMISES, choices, strict=True))


def confirm(
    choices: Mapping[float, ThresholdChoice], session: Session, test: Predictions
) -> dict[str, Any]:
    """Measure each threshold on the test rows."""
    lines = []
    for promise, choice in choices.items():
        line: dict[str, Any] = {"precision": promise, "threshold": choice.threshold}
        line |= {"why": choice.why, "rows_needed": choice.rows_needed, "test": None}
        if choice.threshold is not None:
            line["test"] = coverage_block(test, choice.threshold)
            line["test"].pop("per_class", None)
        lines.append(line)
    return {"sure": CONFIDENCE_LEVEL, "broken_in": BROKEN_RATE, "promises": lines}


ANALYSIS = Analysis("thresholds", ("thresholds",), find, confirm)


def set_threshold(run: Path, request: ThresholdRequest, *, force: bool = False) -> dict[str, Any]:
    """Choose and store the threshold of a finished run; return the document of ``threshold.json``.
    If nothing can be guaranteed, its ``rule`` is ``None`` and nothing is stored (a stored threshold
    stays in force, ``unchanged``); ``highest`` is what can be guaranteed, with the command that
    sets it.

    Raises ``RecipeError`` for a task without a confidence, ``RunError`` if a threshold is stored
    already and ``force`` is not given.
    """
    finished_run = FinishedRun(run)
    valid, test = finished_run.valid, finished_run.test
    refuse_task(str(finished_run.result["task"]), valid, request)
    with locked(run):
        if not force:
            refuse_existing(run)
        document = threshold_document(
            finished_run.result, valid, test if len(test) else None, request
        )
        if document["rule"] is not None:
            write_threshold(run, document)
        elif (run / FILE).exists():
            document["unchanged"] = str(run / FILE)
    if document["highest"]:
        share = f"--{document['highest']['by']} {document['highest']['asked']:g}"
        force_option = " --force" if "unchanged" in document else ""
        command = f"holdfast threshold {shlex.quote(str(run))} {share}{force_option}"
        document["highest"]["command"] = command
    return document


def refuse_task(task: str, valid: Predictions, request: ThresholdRequest) -> None:
    """Raise ``RecipeError`` if predictions are not correct or wrong, or have no confidence."""
    if valid.confidence is None or valid.wrong is None:
        what = "numbers" if valid.errors is not None else task
        raise RecipeError(
            "holdfast threshold",
            f"is not available for {what}: their predictions cannot be counted as correct or wrong",
            None,
            "It needs classes, several labels, tags or images.",
        )
    if request.cost and not _one_class(valid):
        rule = f"is not available for {task} with several predictions per row"
        raise RecipeError("--cost", rule, request.cost, "Use --precision or --coverage.")


def _one_class(predictions: Predictions) -> bool:
    return not {"labels", "tags"} & set(predictions.table.rows.column_names)


def threshold_document(
    result: Mapping[str, object],
    valid: Predictions,
    test: Predictions | None,
    request: ThresholdRequest,
) -> dict[str, Any]:
    """The document: what was chosen on ``valid``, what it guarantees, and its result on
    ``test``."""
    if request.cost:
        matrix = read_costs(request.cost, valid.names)
        block = _by_cost(matrix, valid, test, request)
    else:
        block = _by_probability(valid, test, request)
    document = {
        "schema": 1,
        "by": request.by,
        "asked": request.requested,
        **block,
        "sure": CONFIDENCE_LEVEL,
        "assumes": ASSUMES,
        "model": model_fingerprint(result),
    }
    plain: dict[str, Any] = to_json(document)
    return plain


def choose_threshold(valid: Predictions, request: ThresholdRequest) -> ThresholdChoice:
    """The confidence threshold from validation rows; rows without a confidence never get a
    prediction."""
    sure, wrong, groups = _scored_rows(valid)
    if request.coverage is not None:
        return for_coverage(sure, wrong, request.coverage)
    assert request.precision is not None
    return for_precision(sure, wrong, request.precision, groups=groups)


def _scored_rows(valid: Predictions) -> tuple[Floats, Bools, Ints | None]:
    """Confidence, errors and groups of the rows that have a confidence."""
    assert valid.confidence is not None
    assert valid.wrong is not None
    finite = np.isfinite(valid.confidence)
    groups = valid.take(np.flatnonzero(finite)).groups
    return valid.confidence[finite], valid.wrong[finite], groups


def _by_probability(
    valid: Predictions, test: Predictions | None, request: ThresholdRequest
) -> dict[str, Any]:
    choice = choose_threshold(valid, request)
    share = request.precision or request.coverage
    rule = None if choice.threshold is None else ThresholdRule(request.by, choice.threshold)
    percent = f"{100 * float(share or 0):g} %"
    guarantee = (
        f"a precision of at least {percent}"
        if request.precision
        else f"at least {percent} of rows get a prediction"
    )
    promise = f"{guarantee}, with {100 * CONFIDENCE_LEVEL:g} % confidence"
    on_test = None if test is None or rule is None else coverage_block(test, choice.threshold)
    return {
        "threshold": choice.threshold,
        "promise": promise if rule else None,
        "highest": None if rule else _highest(valid, request),
        "why": choice.why,
        "rows_needed": choice.rows_needed,
        "valid": coverage_block(valid, choice.threshold) if rule else {"n": choice.n},
        "test": on_test,
        "kept_on_test": _holds_on_test(on_test, request),
        "broken_in": BROKEN_RATE if request.precision else None,
        "rule": None if rule is None else rule.to_json(),
    }


def _highest(valid: Predictions, request: ThresholdRequest) -> dict[str, Any] | None:
    """The most that these rows guarantee instead of the request: a coverage if one was requested,
    else a precision; ``None`` if they guarantee nothing."""
    sure, wrong, groups = _scored_rows(valid)
    if request.by == "coverage":
        highest = highest_coverage(sure, wrong)
    else:
        highest = highest_precision(sure, wrong, request.precision or 1.0, groups=groups)
    if highest is None:
        return None
    share, choice = highest
    by = "coverage" if request.by == "coverage" else "precision"
    return {"by": by, "asked": share, "answered": choice.answered, "n": choice.n}


def coverage_block(predictions: Predictions, threshold: float | None) -> dict[str, Any]:
    """How many rows get a prediction at a threshold, and how many of these are correct, with
    limits at 95 % (see ``answered_block``); and the predicted classes, those with most errors
    first."""
    assert predictions.confidence is not None
    assert predictions.wrong is not None
    lowest = math.inf if threshold is None else threshold
    answered = np.nan_to_num(predictions.confidence, nan=-1.0) >= lowest
    correct = answered & ~predictions.wrong
    groups = predictions.groups
    block = answered_block(answered, correct, groups)
    block["precision_of_all"] = _rate(~predictions.wrong, groups)
    if _one_class(predictions) and predictions.predictions is not None:
        block["per_class"] = _per_class(predictions.predictions, answered, correct, groups)
    return block


def answered_block(
    is_answered: Bools, correct: Bools, groups: npt.NDArray[Any] | None = None
) -> dict[str, Any]:
    """Of rows [n] the share with a prediction (``is_answered``), and of those the share that is
    ``correct``, with Clopper and Pearson's limits at 95 %, or Wilson's over ``groups`` [n]."""
    return {
        "n": len(is_answered),
        "answered": int(is_answered.sum()),
        "coverage": _rate(is_answered, groups),
        "precision": _rate(correct, groups, is_answered),
    }


def _per_class(
    predictions: Sequence[object], answered: Bools, correct: Bools, groups: npt.NDArray[Any] | None
) -> list[dict[str, Any]]:
    names = np.asarray([str(one) for one in predictions], dtype=object)
    lines = []
    for name in sorted(set(names[answered].tolist())):
        of_class = answered & (names == name)
        precision = _rate(correct, groups, of_class)
        lines.append({"class": name, "answered": int(of_class.sum()), "precision": precision})
    return sorted(lines, key=lambda line: line["precision"]["value"])[:20]


def _rate(
    hits: Bools, groups: npt.NDArray[Any] | None, among: Bools | None = None
) -> dict[str, Any]:
    """The share of ``hits`` [n] of the rows ``among`` [n], or of all."""
    if among is not None:
        hits, groups = hits[among], None if groups is None else groups[among]
    if not len(hits):
        return Estimate(None, why="no row gets a prediction").to_json()
    if groups is not None:
        return rate_estimate(hits, groups).to_json()
    n_hits = int(hits.sum())
    return Estimate(n_hits / len(hits), *clopper_pearson(n_hits, len(hits))).to_json()


def _holds_on_test(test: Mapping[str, Any] | None, request: ThresholdRequest) -> bool | None:
    """Whether the test rows agree with the guarantee: ``False`` if its value lies above their upper
    limit, ``None`` without a prediction of a test row, or if they are of one group."""
    if test is None:
        return None
    estimate = test["precision" if request.precision else "coverage"]
    if estimate["high"] is None:
        return None
    return bool(estimate["high"] >= float(request.precision or request.coverage or 0))


def _by_cost(
    matrix: CostMatrix, valid: Predictions, test: Predictions | None, request: ThresholdRequest
) -> dict[str, Any]:
    assert valid.probabilities is not None
    costs = price_rule(matrix, _labels(valid), valid.probabilities)
    on_test = None if test is None else _cost_block(matrix, test)
    better = costs.mean < costs.plain
    rule = ThresholdRule("cost", None, matrix) if better else None
    why = None
    if not better:
        why = (
            "on the validation rows the predictions of least expected cost do not cost less than "
            "the most probable classes"
        )
    return {
        "threshold": None,
        "promise": (
            f"an average cost per row of at most {costs.limit:.4g}, with "
            f"{100 * CONFIDENCE_LEVEL:g} % confidence"
        )
        if better
        else None,
        "why": why,
        "rows_needed": None,
        "valid": _cost_block(matrix, valid),
        "test": on_test,
        "limit": costs.limit,
        "limit_without": costs.plain_limit,
        "highest": None if better else _highest(valid, request),
        "kept_on_test": bool(on_test["cost"] <= costs.limit) if on_test and better else None,
        "broken_in": None,
        "rule": None if rule is None else rule.to_json(),
    }


def _labels(predictions: Predictions) -> Ints:
    return np.asarray(predictions.table.column("label"), dtype=np.int64)


def _cost_block(matrix: CostMatrix, predictions: Predictions) -> dict[str, Any]:
    assert predictions.probabilities is not None
    answers, labels = matrix.choose(predictions.probabilities), _labels(predictions)
    plain = predictions.probabilities.argmax(axis=1)
    answered = answers >= 0
    costs, plain_costs = matrix.paid(labels, answers), matrix.paid(labels, plain)
    return {
        **answered_block(answered, answered & (answers == labels)),
        "cost": float(costs.mean()) if len(predictions) else None,
        "cost_without": float(plain_costs.mean()) if len(predictions) else None,
    }
