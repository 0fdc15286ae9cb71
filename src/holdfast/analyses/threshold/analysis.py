"""From which certainty on answers can be relied on: chosen on validation rows, measured on test
rows.

Every run measures three promises and sets nothing. ``holdfast threshold`` chooses one by the
answers that a finished run stored, and keeps it in its ``threshold.json``.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.analyses.analysis import Analysis, NoAnswer, Session
from holdfast.analyses.threshold.choice import (
    SURE,
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

ASSUMES = "the rows to come are drawn as the validation rows were"
# benchmarks/decisions.py: the most of 1,000 resamplings of validation rows in which the promised
# precision was not kept, over four data sets, three promises and three numbers of rows.
BROKEN = 0.038
PROMISES = (0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class ThresholdRequest:
    """What is asked of a threshold: one of a share of right answers, a share of rows that are
    answered, and a file of costs."""

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
    def asked(self) -> float | str:
        """The value, or the name of the file."""
        return self.cost or self.precision or self.coverage or ""


def find(session: Session) -> Mapping[float, ThresholdChoice] | NoAnswer:
    """The threshold of each promise, from validation rows alone."""
    wanted = [ThresholdRequest(precision=promise) for promise in PROMISES]
    try:
        refuse_task(str(session.recipe.task), session.valid, wanted[0])
    except RecipeError as error:
        return NoAnswer(error.rule)
    choices = (chosen_by(session.valid, one) for one in wanted)
    return dict(zip(PROMISES, choices, strict=True))


def confirm(
    found: Mapping[float, ThresholdChoice], session: Session, test: Predictions
) -> dict[str, Any]:
    """What each does on the test rows."""
    lines = []
    for promise, chosen in found.items():
        line: dict[str, Any] = {"precision": promise, "threshold": chosen.threshold}
        line |= {"why": chosen.why, "rows_needed": chosen.rows, "test": None}
        if chosen.threshold is not None:
            line["test"] = measured(test, chosen.threshold)
            line["test"].pop("per_class", None)
        lines.append(line)
    return {"sure": SURE, "broken_in": BROKEN, "promises": lines}


ANALYSIS = Analysis("thresholds", ("thresholds",), find, confirm)


def set_threshold(run: Path, wanted: ThresholdRequest, *, force: bool = False) -> dict[str, Any]:
    """Choose and store the threshold of a finished run; returns the document of
    ``threshold.json``. Where nothing can be promised its ``rule`` is ``None``, nothing is stored
    (what was stored before stays in force, ``unchanged``), and ``highest`` says what can be
    promised, with the command that takes it.

    Raises ``RecipeError`` for a task that has no certainty to go by, ``RunError`` where one is
    stored already and ``force`` is not given.
    """
    again = FinishedRun(run)
    valid, test = again.valid, again.test
    refuse_task(str(again.result["task"]), valid, wanted)
    with locked(run):
        if not force:
            refuse_existing(run)
        document = decided(again.result, valid, test if len(test) else None, wanted)
        if document["rule"] is not None:
            write_threshold(run, document)
        elif (run / FILE).exists():
            document["unchanged"] = str(run / FILE)
    if document["highest"]:
        share = f"--{document['highest']['by']} {document['highest']['asked']:g}"
        more = " --force" if "unchanged" in document else ""
        command = f"holdfast threshold {shlex.quote(str(run))} {share}{more}"
        document["highest"]["command"] = command
    return document


def refuse_task(task: str, valid: Predictions, wanted: ThresholdRequest) -> None:
    """Raise ``RecipeError`` where answers are not right or wrong, or nothing tells how sure they
    are."""
    if valid.sure is None or valid.wrong is None:
        what = "numbers" if valid.errors is not None else task
        raise RecipeError(
            "holdfast threshold",
            f"does not exist for {what}: an answer is not right or wrong there",
            None,
            "It is for classes, several labels, tags and pictures.",
        )
    if wanted.cost and not _one_class(valid):
        raise RecipeError(
            "--cost",
            f"does not exist for {task} with several answers a row",
            wanted.cost,
            "Choose by --precision or --coverage.",
        )


def _one_class(told: Predictions) -> bool:
    return not {"labels", "tags"} & set(told.table.rows.column_names)


def decided(
    result: Mapping[str, object],
    valid: Predictions,
    test: Predictions | None,
    wanted: ThresholdRequest,
) -> dict[str, Any]:
    """The document: what was chosen on ``valid``, what it promises, and what it does on
    ``test``."""
    if wanted.cost:
        matrix = read_costs(wanted.cost, valid.names)
        made = _by_cost(matrix, valid, test, wanted)
    else:
        made = _by_certainty(valid, test, wanted)
    document = {
        "schema": 1,
        "by": wanted.by,
        "asked": wanted.asked,
        **made,
        "sure": SURE,
        "assumes": ASSUMES,
        "model": model_fingerprint(result),
    }
    plain: dict[str, Any] = to_json(document)
    return plain


def chosen_by(valid: Predictions, wanted: ThresholdRequest) -> ThresholdChoice:
    """The threshold on how sure the model is, from validation rows; rows of which nothing is read
    are never answered."""
    sure, wrong, groups = _known(valid)
    if wanted.coverage is not None:
        return for_coverage(sure, wrong, wanted.coverage)
    assert wanted.precision is not None
    return for_precision(sure, wrong, wanted.precision, groups=groups)


def _known(valid: Predictions) -> tuple[Floats, Bools, Ints | None]:
    """How sure, wrong and of which groups the rows are of which something is read."""
    assert valid.sure is not None
    assert valid.wrong is not None
    known = np.isfinite(valid.sure)
    groups = valid.take(np.flatnonzero(known)).groups
    return valid.sure[known], valid.wrong[known], groups


def _by_certainty(
    valid: Predictions, test: Predictions | None, wanted: ThresholdRequest
) -> dict[str, Any]:
    found = chosen_by(valid, wanted)
    share = wanted.precision or wanted.coverage
    what = "right answers" if wanted.precision else "answered rows"
    rule = None if found.threshold is None else ThresholdRule(wanted.by, found.threshold)
    promise = f"at least {100 * float(share or 0):g} % {what}, in {100 * SURE:g} % of draws"
    on_test = None if test is None or rule is None else measured(test, found.threshold)
    return {
        "threshold": found.threshold,
        "promise": promise if rule else None,
        "highest": None if rule else _highest(valid, wanted),
        "why": found.why,
        "rows_needed": found.rows,
        "valid": measured(valid, found.threshold) if rule else {"n": found.n},
        "test": on_test,
        "kept_on_test": _kept(on_test, wanted),
        "broken_in": BROKEN if wanted.precision else None,
        "rule": None if rule is None else rule.to_json(),
    }


def _highest(valid: Predictions, wanted: ThresholdRequest) -> dict[str, Any] | None:
    """The most that these rows promise in the place of what was asked: a coverage where one was
    asked, else a precision; ``None`` where they promise nothing."""
    sure, wrong, groups = _known(valid)
    if wanted.by == "coverage":
        found = highest_coverage(sure, wrong)
    else:
        found = highest_precision(sure, wrong, wanted.precision or 1.0, groups=groups)
    if found is None:
        return None
    share, chosen = found
    by = "coverage" if wanted.by == "coverage" else "precision"
    return {"by": by, "asked": share, "answered": chosen.answered, "n": chosen.n}


def measured(told: Predictions, threshold: float | None) -> dict[str, Any]:
    """How many rows are answered at a threshold, and how many of them rightly, with Clopper and
    Pearson's limits at 95 %; and the answered classes, those with the most mistakes first."""
    assert told.sure is not None
    assert told.wrong is not None
    least = math.inf if threshold is None else threshold
    given = np.nan_to_num(told.sure, nan=-1.0) >= least
    right = given & ~told.wrong
    block = answered_block(given, right)
    block["precision_of_all"] = _rate(int((~told.wrong).sum()), len(told))
    if _one_class(told) and told.predictions is not None:
        block["per_class"] = _per_class(told.predictions, given, right)
    return block


def answered_block(given: Bools, right: Bools) -> dict[str, Any]:
    """Of rows [n] the share that is ``given`` an answer, and of those the share that is ``right``,
    with Clopper and Pearson's limits at 95 %."""
    answered = int(given.sum())
    return {
        "n": len(given),
        "answered": answered,
        "coverage": _rate(answered, len(given)),
        "precision": _rate(int(right.sum()), answered),
    }


def _per_class(said: Sequence[object], given: Bools, right: Bools) -> list[dict[str, Any]]:
    names = np.asarray([str(one) for one in said], dtype=object)
    lines = []
    for name in sorted(set(names[given].tolist())):
        here = given & (names == name)
        hits, n = int((right & here).sum()), int(here.sum())
        lines.append({"class": name, "answered": n, "precision": _rate(hits, n)})
    return sorted(lines, key=lambda line: line["precision"]["value"])[:20]


def _rate(hits: int, n: int) -> dict[str, Any]:
    if not n:
        return Estimate(None, why="no row is answered").to_json()
    return Estimate(hits / n, *clopper_pearson(hits, n)).to_json()


def _kept(test: Mapping[str, Any] | None, wanted: ThresholdRequest) -> bool | None:
    """Whether the test rows agree with the promise: ``False`` where its value lies above their
    limits, ``None`` where they say nothing."""
    if test is None:
        return None
    found = test["precision" if wanted.precision else "coverage"]
    if found["value"] is None:
        return None
    return bool(found["high"] >= float(wanted.precision or wanted.coverage or 0))


def _by_cost(
    matrix: CostMatrix, valid: Predictions, test: Predictions | None, wanted: ThresholdRequest
) -> dict[str, Any]:
    assert valid.probabilities is not None
    found = price_rule(matrix, _labels(valid), valid.probabilities)
    on_test = None if test is None else _cost_block(matrix, test)
    better = found.mean < found.plain
    rule = ThresholdRule("cost", None, matrix) if better else None
    why = None
    if not better:
        why = (
            "on the validation rows the least costly answers do not cost less than always giving "
            "the most probable class"
        )
    return {
        "threshold": None,
        "promise": f"at most {found.limit:.4g} a row on average, in {100 * SURE:g} % of draws"
        if better
        else None,
        "why": why,
        "rows_needed": None,
        "valid": _cost_block(matrix, valid),
        "test": on_test,
        "limit": found.limit,
        "limit_without": found.plain_limit,
        "highest": None if better else _highest(valid, wanted),
        "kept_on_test": bool(on_test["cost"] <= found.limit) if on_test and better else None,
        "broken_in": None,
        "rule": None if rule is None else rule.to_json(),
    }


def _labels(told: Predictions) -> Ints:
    return np.asarray(told.table.column("label"), dtype=np.int64)


def _cost_block(matrix: CostMatrix, told: Predictions) -> dict[str, Any]:
    assert told.probabilities is not None
    answers, labels = matrix.choose(told.probabilities), _labels(told)
    plain = told.probabilities.argmax(axis=1)
    given = answers >= 0
    paid, before = matrix.paid(labels, answers), matrix.paid(labels, plain)
    return {
        **answered_block(given, given & (answers == labels)),
        "cost": float(paid.mean()) if len(told) else None,
        "cost_without": float(before.mean()) if len(told) else None,
    }
