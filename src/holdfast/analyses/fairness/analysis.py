"""Is the model as good for every group of rows, and does it answer alike about everybody? Which
columns tell rows apart, which texts are swapped, and the block of both.

``holdfast fairness`` shows the block that a run stored, or looks by other columns, terms and rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from holdfast.analyses.analysis import Analysis, NoAnswer, Session
from holdfast.analyses.fairness.forms import Ask, SwapQuery, axes_of, fault_query, label_query
from holdfast.analyses.fairness.groups import (
    GroupCandidates,
    Grouping,
    confirm_gaps,
    find_gaps,
    groupings_of,
    rows_to_add,
    usable,
)
from holdfast.analyses.fairness.mitigation import against
from holdfast.analyses.fairness.swap import Swaps, confirm_swaps, find_swaps
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

MOST_COLUMNS = 8
# By benchmarks/fairness.py: groupings, and lists of words, that have nothing to do with the label.
FALSE_ALARMS: Mapping[str, float | int] = {
    "groups": 0.014,
    "groups_of": 500,
    "swap": 0.037,
    "swap_of": 4000,
}
COMMAND = "fairness"
ROWS = 200


@dataclass(frozen=True, slots=True)
class FairnessFound:
    """What was fixed on validation rows; ``swaps`` is ``None`` where texts cannot be swapped, for
    which ``why`` is the reason."""

    groups: GroupCandidates
    axes: tuple[Axis, ...]
    swaps: Swaps | None = None
    query: SwapQuery | None = None
    why: str | None = None


def find(session: Session) -> FairnessFound | NoAnswer:
    if not len(session.valid):
        return NoAnswer("there are no validation rows to look for gaps on")
    return find_fairness(session, session.recipe.probes.fairness, label_query(session.predictor))


def find_fairness(session: Session, part: FairnessPart, query: SwapQuery | None) -> FairnessFound:
    """Candidates by validation rows. Raises ``DataError`` for a column of the recipe that the
    source has not."""
    valid = session.valid
    columns = session.beside(valid.table)
    for name in part.columns or ():
        if name not in columns:
            rule = f"has no column {name!r} beside text and label (probes.fairness.columns)"
            shown = ", ".join(columns) or "none"
            raise DataError(valid.table.source, rule, None, f"There are: {shown}.")
    axes = axes_of(part)
    known = groupings_of(columns, part.columns or [*columns])
    if not part.columns:
        known = [one for one in known if usable(one)][:MOST_COLUMNS]
    known += [one for one in of_terms(valid, axes) if usable(one)]
    groups = find_gaps(valid, known)
    why = _no_swap(valid, part, query)
    if why is not None or query is None:
        return FairnessFound(groups, axes, why=why)
    swaps = find_swaps(
        valid.table,
        axes,
        query,
        rows=part.rows,
        insert=part.insert,
        seed=session.recipe.seed,
        known=valid.probabilities,
    )
    return FairnessFound(groups, axes, swaps, query)


def _no_swap(valid: Predictions, part: FairnessPart, query: SwapQuery | None) -> str | None:
    if not part.rows:
        return "probes.fairness.rows is 0"
    held = valid.table.rows.column_names
    if "tokens" in held:
        return "tags belong to the words as they stand"
    if not any(one in held for one in ("text", "turns")):
        return "the rows have no words to swap"
    if query is None:
        return (
            "the answers are neither classes nor numbers; a model that writes is asked by "
            "`holdfast fairness RUN --rows N`"
        )
    return None if len(valid) else "there are no validation rows"


def of_terms(told: Predictions, axes: Sequence[Axis]) -> list[Grouping]:
    """Rows by the terms in their texts: of an axis the one group that is named, or none."""
    names = told.table.rows.column_names
    parts = [part for part in SOURCES if part in names]
    if not parts or "tokens" in names:
        return []
    texts = [" ".join(map(str, row)) for row in zip(*map(told.table.column, parts), strict=True)]
    return [Grouping(f"{axis.name} of terms", [_named(axis, t) for t in texts]) for axis in axes]


def _named(axis: Axis, text: str) -> str | None:
    held = {one.group for one in mentions(axis, text)}
    return held.pop() if len(held) == 1 else None


def confirm(found: FairnessFound, session: Session, test: Predictions) -> dict[str, Any]:
    """The block by the test rows. Of a column by which something was found, the rows that would
    make its groups representative are counted among the training rows; of a change the same is
    asked of the start model, where the fit has one."""
    columns = session.beside(test.table)
    known = groupings_of(columns, found.groups.columns) + of_terms(test, found.axes)
    missing = [name for name in found.groups.columns if name not in {one.name for one in known}]
    groups = confirm_gaps(found.groups, test, known)
    swap: dict[str, Any] | None = None
    if found.swaps is not None and found.query is not None:
        swap = confirm_swaps(
            found.swaps,
            test.table,
            found.query.ask,
            start=None if session.fitted is None else _start(session.fitted),
            seed=session.recipe.seed,
            known=test.probabilities,
            bounded=found.query.shares or test.probabilities is not None,
        )
    return {
        "groups": {**groups, "columns_missing": missing, "to_add": _to_add(groups, session)},
        "swap": swap,
        "swap_why": found.why,
        "false_alarms": dict(FALSE_ALARMS),
    }


ANALYSIS = Analysis("fairness", ("fairness",), find, confirm)


def _to_add(groups: Mapping[str, Any], session: Session) -> list[dict[str, Any]]:
    found = dict.fromkeys(one["column"] for one in groups["findings"])
    if not found:
        return []
    table = session.train_rows
    if not table.columns.one_class or "label" not in table.rows.column_names:
        return []
    columns, labels = session.beside(table), table.column("label")
    return [
        {"column": name, **one}
        for name in found
        if name in columns
        for one in rows_to_add(columns[name], labels, table.classes)
    ]


def _start(fitted: FittedModel) -> Ask | None:
    """The untouched backbone with the linear probe on it, where a run has one."""
    probes = [getattr(one, "baseline", None) for one in fitted.listeners]
    head = next((one for one in probes if one is not None), None)
    classes = fitted.training_plan.splits.train_rows.table.columns.label_kind == "class"
    if head is None or not classes:
        return None
    network: list[Any] = []

    def ask(table: Table) -> Floats:
        # Made when it is first asked: only a finding asks.
        if not network:
            network.append(fitted.base_network(head=head))
        job = fitted.job
        observer = Observer(job.accelerator, job.task, alone=True)
        examples = fitted.encode(table)
        return softmax(observer.measure(network[0], examples, np.arange(len(examples)))[1])

    return ask


@dataclass(frozen=True, slots=True)
class FairnessRequest:
    """What the command asks for beyond the stored block: see its options."""

    groups: tuple[str, ...] = ()
    terms: str | None = None
    rows: int | None = None
    insert: bool = False

    def __bool__(self) -> bool:
        return bool(self.groups or self.terms or self.rows is not None or self.insert)

    def part(self, stored: FairnessPart) -> FairnessPart:
        """The settings: those of the run, with these in their place."""
        return stored.model_copy(
            update={
                "columns": self.groups or stored.columns,
                "terms": self.terms or stored.terms,
                "rows": ROWS if self.rows is None else self.rows,
                "insert": self.insert or stored.insert,
            }
        )


def answered(folder: Path, wanted: FairnessRequest, plain: Path | None) -> dict[str, Any]:
    """What the command prints with ``--json``: ``fairness_of`` the run, and beside the ``plain``
    one, where it is given, the list ``against``."""
    run = FinishedRun(folder)
    found = fairness_of(run, wanted)
    if plain is None:
        return found
    part = wanted.part(run.recipe.probes.fairness)
    return {**found, "against": against(run, FinishedRun(plain), part)}


def fairness_of(run: FinishedRun, wanted: FairnessRequest) -> dict[str, Any]:
    """``{"schema": 1, "fairness": block, "openings": n | null}``: the block that the run stored,
    where nothing else is ``wanted``; else made anew. Groups rest on stored answers; swapped test
    rows are another pass over them, which ``openings.jsonl`` counts."""
    stored = run.result.get("fairness")
    if isinstance(stored, dict) and "groups" in stored and not wanted:
        return {"schema": 1, "fairness": stored, "openings": None}
    if not run.has("valid"):
        raise RunError(
            str(run.run),
            "was made by a version that kept no answers to its validation rows, on which "
            "candidates are found",
            None,
            "Train again with its recipe.yaml into another folder.",
        )
    if not len(run.valid) or not len(run.test):
        side = "validation" if not len(run.valid) else "test"
        raise RunError(str(run.run), f"has no {side} rows", None, "Train with both sides.")
    # Changed training rows are refused before the test rows are opened.
    run.table("train")
    query = label_query(run.predictor) or fault_query(run.predictor)
    found = find_fairness(run, wanted.part(run.recipe.probes.fairness), query)
    openings = None
    if found.swaps is not None and found.swaps.candidates:
        axes = [one.axis.name for one in found.swaps.candidates]
        openings = run.reopen(COMMAND, axes).count
    block = confirm(found, run, run.test)
    return {"schema": 1, "fairness": block, "openings": openings}
