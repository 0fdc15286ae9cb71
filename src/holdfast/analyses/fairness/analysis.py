"""Fairness: whether the model is as good for every group of rows, and whether its predictions
depend on the person that a text is about. Which columns define groups, which terms are swapped, and
the block of both tests.

``holdfast fairness`` shows the block that a run stored, or tests other columns, terms and rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.analyses.analysis import Analysis, NoAnswer, Session
from holdfast.analyses.fairness.forms import Predict, SwapQuery, fault_query, label_query, read_axes
from holdfast.analyses.fairness.groups import (
    GroupCandidates,
    Grouping,
    confirm_gaps,
    find_gaps,
    groupings_of,
    rows_to_add,
    usable,
)
from holdfast.analyses.fairness.mitigation import mitigation_tradeoffs
from holdfast.analyses.fairness.swap import SwapCandidates, confirm_swaps, find_swaps
from holdfast.augment.terms.forms import mentions
from holdfast.augment.terms.lexicon import Axis
from holdfast.augment.text_forms import SOURCES
from holdfast.contract.fit import FittedModel
from holdfast.contract.predictions import Predictions
from holdfast.core.errors import DataError, RunError
from holdfast.core.records import Floats, softmax
from holdfast.data.table import Table
from holdfast.recipe.parts import FairnessPart
from holdfast.runs.finished_run import FinishedRun
from holdfast.training.observe import Observer

MAX_COLUMNS = 8
# By benchmarks/fairness.py: groupings, and word lists, that are unrelated to the label.
FALSE_ALARMS: Mapping[str, float | int] = {
    "groups": 0.014,
    "groups_of": 500,
    "swap": 0.037,
    "swap_of": 4000,
}
COMMAND = "fairness"
DEFAULT_ROWS = 200


@dataclass(frozen=True, slots=True)
class FairnessCandidates:
    """The candidates, fixed on validation rows; ``swaps`` is ``None`` if texts cannot be swapped,
    and ``why`` gives the reason."""

    groups: GroupCandidates
    axes: tuple[Axis, ...]
    swaps: SwapCandidates | None = None
    query: SwapQuery | None = None
    why: str | None = None


def find(session: Session) -> FairnessCandidates | NoAnswer:
    if not len(session.valid):
        return NoAnswer("there are no validation rows on which to find candidates")
    return find_fairness(session, session.recipe.probes.fairness, label_query(session.predictor))


def find_fairness(
    session: Session, part: FairnessPart, query: SwapQuery | None
) -> FairnessCandidates:
    """Find candidates on validation rows. Raises ``DataError`` for a column of the recipe that is
    missing in the source."""
    valid = session.valid
    columns = session.other_columns(valid.table)
    for name in part.columns or ():
        if name == session.recipe.data.group:
            rule = f"was split by {name!r} (data.group): no group has validation and test rows"
            remedy = "Name another column, or train without --group."
            raise DataError(valid.table.source, rule, None, remedy)
        if name not in columns:
            rule = f"has no column {name!r} besides text and label (probes.fairness.columns)"
            shown = ", ".join(columns) or "none"
            raise DataError(valid.table.source, rule, None, f"The columns are: {shown}.")
    axes = read_axes(part)
    groupings = groupings_of(columns, part.columns or [*columns])
    if not part.columns:
        groupings = [one for one in groupings if usable(one)][:MAX_COLUMNS]
    groupings += [one for one in term_groupings(valid, axes) if usable(one)]
    groups = find_gaps(valid, groupings)
    why = _no_swap(valid, part, query)
    if why is not None or query is None:
        return FairnessCandidates(groups, axes, why=why)
    swaps = find_swaps(
        valid.table,
        axes,
        query,
        rows=part.rows,
        insert=part.insert,
        seed=session.recipe.seed,
        row_outcomes=valid.probabilities,
    )
    return FairnessCandidates(groups, axes, swaps, query)


def _no_swap(valid: Predictions, part: FairnessPart, query: SwapQuery | None) -> str | None:
    if not part.rows:
        return "probes.fairness.rows is 0"
    columns = valid.table.rows.column_names
    if "tokens" in columns:
        return "tags belong to the original words"
    if not any(one in columns for one in ("text", "turns")):
        return "the rows have no words to swap"
    if query is None:
        return (
            "the predictions are neither classes nor numbers; for a generative model use "
            "`holdfast fairness RUN --rows N`"
        )
    return None if len(valid) else "there are no validation rows"


def term_groupings(predictions: Predictions, axes: Sequence[Axis]) -> list[Grouping]:
    """Rows grouped by the terms in their texts: for each axis the one group that is named, or
    ``None``."""
    names = predictions.table.rows.column_names
    parts = [part for part in SOURCES if part in names]
    if not parts or "tokens" in names:
        return []
    texts = [
        " ".join(map(str, row)) for row in zip(*map(predictions.table.column, parts), strict=True)
    ]
    return [
        Grouping(f"{axis.name} of terms", [_named_group(axis, t) for t in texts]) for axis in axes
    ]


def _named_group(axis: Axis, text: str) -> str | None:
    groups = {one.group for one in mentions(axis, text)}
    return groups.pop() if len(groups) == 1 else None


def confirm(candidates: FairnessCandidates, session: Session, test: Predictions) -> dict[str, Any]:
    """The block by the test rows. For a column with a finding, it counts the rows that would make
    the groups of the training rows representative; for a change it tests the base model too, if the
    fit has one."""
    columns = session.other_columns(test.table)
    groupings = groupings_of(columns, candidates.groups.columns) + term_groupings(
        test, candidates.axes
    )
    missing = [
        name for name in candidates.groups.columns if name not in {one.name for one in groupings}
    ]
    groups = confirm_gaps(candidates.groups, test, groupings)
    swap: dict[str, Any] | None = None
    if candidates.swaps is not None and candidates.query is not None:
        swap = confirm_swaps(
            candidates.swaps,
            test.table,
            candidates.query.predict,
            predict_untuned=None if session.fitted is None else _untuned_model(session.fitted),
            seed=session.recipe.seed,
            row_outcomes=test.probabilities,
            bounded=candidates.query.shares or test.probabilities is not None,
        )
    return {
        "groups": {**groups, "columns_missing": missing, "to_add": _rows_to_add(groups, session)},
        "swap": swap,
        "swap_why": candidates.why,
        "false_alarms": dict(FALSE_ALARMS),
    }


ANALYSIS = Analysis("fairness", ("fairness",), find, confirm)


def _rows_to_add(groups: Mapping[str, Any], session: Session) -> list[dict[str, Any]]:
    columns_with_gaps = dict.fromkeys(one["column"] for one in groups["findings"])
    if not columns_with_gaps:
        return []
    table = session.train_rows
    if not table.columns.one_class or "label" not in table.rows.column_names:
        return []
    columns, labels = session.other_columns(table), table.column("label")
    return [
        {"column": name, **one}
        for name in columns_with_gaps
        if name in columns
        for one in rows_to_add(columns[name], labels, table.classes)
    ]


def _untuned_model(fitted: FittedModel) -> Predict | None:
    """The base model with the linear probe on it, if the run has one."""
    heads = [getattr(one, "baseline", None) for one in fitted.listeners]
    head = next((one for one in heads if one is not None), None)
    classes = fitted.training_plan.splits.train_rows.table.columns.label_kind == "class"
    if head is None or not classes:
        return None
    network: list[Any] = []

    def predict(table: Table) -> Floats:
        # Loaded on first use: only a finding needs it.
        if not network:
            network.append(fitted.base_network(head=head))
        job = fitted.job
        observer = Observer(job.accelerator, job.task, alone=True)
        examples = fitted.encode(table)
        return softmax(observer.measure(network[0], examples, np.arange(len(examples)))[1])

    return predict


@dataclass(frozen=True, slots=True)
class FairnessRequest:
    """What the command tests beyond the stored block: see its options."""

    groups: tuple[str, ...] = ()
    terms: str | None = None
    rows: int | None = None
    insert: bool = False

    def __bool__(self) -> bool:
        return bool(self.groups or self.terms or self.rows is not None or self.insert)

    def part(self, stored: FairnessPart) -> FairnessPart:
        """The settings: those of the run, overridden by these."""
        return stored.model_copy(
            update={
                "columns": self.groups or stored.columns,
                "terms": self.terms or stored.terms,
                "rows": DEFAULT_ROWS if self.rows is None else self.rows,
                "insert": self.insert or stored.insert,
            }
        )


def fairness_document(folder: Path, request: FairnessRequest, plain: Path | None) -> dict[str, Any]:
    """What the command prints with ``--json``: ``fairness_of`` the run, and with a ``plain`` run
    (without mitigation) the list ``against``."""
    run = FinishedRun(folder)
    document = fairness_of(run, request)
    if plain is None:
        return document
    part = request.part(run.recipe.probes.fairness)
    return {**document, "against": mitigation_tradeoffs(run, FinishedRun(plain), part)}


def fairness_of(run: FinishedRun, request: FairnessRequest) -> dict[str, Any]:
    """``{"schema": 1, "fairness": block, "openings": n | null}``: the block that the run stored, if
    ``request`` is empty; else it is computed again. Groups need only stored predictions; swapped
    test rows are another pass over the test set, which ``openings.jsonl`` counts."""
    stored = run.result.get("fairness")
    if isinstance(stored, dict) and "groups" in stored and not request:
        return {"schema": 1, "fairness": stored, "openings": None}
    if not run.has("valid"):
        raise RunError(
            str(run.run),
            "was made by a version that did not store predictions of its validation rows, on which "
            "candidates are found",
            None,
            "Train again with its recipe.yaml into another folder.",
        )
    if not len(run.valid) or not len(run.test):
        split = "validation" if not len(run.valid) else "test"
        raise RunError(str(run.run), f"has no {split} rows", None, f"Train with {split} rows.")
    # Changed training rows are refused before the test rows are used.
    run.table("train")
    query = label_query(run.predictor) or fault_query(run.predictor)
    candidates = find_fairness(run, request.part(run.recipe.probes.fairness), query)
    openings = None
    if candidates.swaps is not None and candidates.swaps.candidates:
        axes = [one.axis.name for one in candidates.swaps.candidates]
        openings = run.reopen(COMMAND, axes).count
    block = confirm(candidates, run, run.test)
    return {"schema": 1, "fairness": block, "openings": openings}
