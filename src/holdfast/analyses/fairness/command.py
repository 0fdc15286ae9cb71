"""``holdfast fairness`` on finished runs: the stored block, or other columns, terms and rows; and
whether a mitigated run is better than flipping the answers of the plain one at random.

What the swap test asks a model that writes: whether its answer to a prompt shows a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdfast.analyses.fairness.columns import (
    asker,
    axes_of,
    confirm_fairness,
    find_fairness,
    groupings_of,
)
from holdfast.analyses.fairness.forms import Ask, ask_forms, make_forms
from holdfast.analyses.fairness.groups import Grouping
from holdfast.analyses.fairness.measures import measures_of
from holdfast.analyses.fairness.mitigation import fairea
from holdfast.contract.predictions import Predictions
from holdfast.core.errors import RecipeError, RunError
from holdfast.core.records import Floats
from holdfast.data.chats.turns import asked, prompt_of
from holdfast.data.table import Table
from holdfast.recipe.parts import FairnessPart
from holdfast.runs.finished_run import FinishedRun
from holdfast.tasks.generation.marks import marks

if TYPE_CHECKING:
    from holdfast.data.table import Table
    from holdfast.runs.predictor import Predictor


COMMAND = "fairness"
ROWS = 200


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


def answered(run: Path, wanted: FairnessRequest, plain: Path | None) -> dict[str, Any]:
    """What the command prints with ``--json``: ``fairness_of`` the run, and beside the ``plain``
    one, where it is given, the list ``against``."""
    again = FinishedRun(run)
    found = fairness_of(again, wanted)
    return (
        found if plain is None else {**found, "against": against(again, FinishedRun(plain), wanted)}
    )


def fairness_of(again: FinishedRun, wanted: FairnessRequest) -> dict[str, Any]:
    """``{"schema": 1, "fairness": block, "openings": n | null}``: the block that the run stored,
    where nothing else is ``wanted``; else made anew. Groups rest on stored answers; swapped test
    rows are another pass over them, which ``openings.jsonl`` counts."""
    stored = again.result.get("fairness")
    if isinstance(stored, dict) and "groups" in stored and not wanted:
        return {"schema": 1, "fairness": stored, "openings": None}
    if not again.has("valid"):
        raise RunError(
            str(again.run),
            "was made by a version that kept no answers to its validation rows, on which "
            "candidates are found",
            None,
            "Train again with its recipe.yaml into another folder.",
        )
    valid, test = again.told("valid"), again.told("test")
    if not len(valid) or not len(test):
        side = "validation" if not len(valid) else "test"
        raise RunError(str(again.run), f"has no {side} rows", None, "Train with both sides.")
    part, predictor = wanted.part(again.recipe.probes.fairness), again.predictor
    ask, names = asked_of(predictor)
    seed, columns = again.recipe.seed, again.beside(valid.table)
    found = find_fairness(valid, columns, part, ask, names, seed)
    openings = None
    if found.swaps is not None and found.swaps.candidates:
        axes = [one.axis.name for one in found.swaps.candidates]
        openings = again.reopen(COMMAND, axes).count
    shares = names == tuple(OUTCOMES)
    train = again.table("train")
    block = confirm_fairness(
        found,
        test,
        again.beside(test.table),
        ask,
        seed=seed,
        shares=shares,
        train=(train, lambda: again.beside(train)),
    )
    return {"schema": 1, "fairness": block, "openings": openings}


def asked_of(predictor: Predictor) -> tuple[Ask | None, Sequence[str]]:
    """What the swap test asks, and the names of its outcomes: of a model that writes, which faults
    its answers to the prompts show."""
    ask = asker(predictor)
    if ask is not None or predictor.answered != "text":
        return ask, predictor.names

    def written(table: Table) -> Sequence[object]:
        return predictor.answer(table).predictions

    return faults_of(written), tuple(OUTCOMES)


def against(new: FinishedRun, plain: FinishedRun, wanted: FairnessRequest) -> list[dict[str, Any]]:
    """What a mitigated run gave up and gained beside the plain one: a line for each column and
    axis, decided on the validation rows that both have.

    Raises ``RunError`` where the two do not share their validation rows, ``RecipeError`` where
    there is nothing to compare by.
    """
    one, other = _shared(new, plain)
    part = wanted.part(new.recipe.probes.fairness)
    columns = new.beside(one.table)
    known = groupings_of(one, columns, part.columns or [*columns])
    if part.columns and len(known) < len(part.columns):
        missing = next(name for name in part.columns if name not in columns)
        raise RecipeError("--group", "names no column of the source", missing, "Check its name.")
    labels = one.table.column("label")
    lines = []
    for grouping in known if part.columns else ():
        gaps = _gaps(one, grouping), _gaps(other, grouping)
        for (name, gap), (_, before) in zip(*gaps, strict=True):
            found = fairea(_right(one), _right(other), labels, gap, before)
            lines.append({"by": grouping.name, "measure": name, **found.to_json()})
    asks = asker(new.predictor), asker(plain.predictor)
    for axis in axes_of(part) if all(asks) else ():
        forms = make_forms(one.table, axis, part.rows, insert=part.insert, seed=new.recipe.seed)
        if len(forms) < 2:
            continue
        moved = [_largest(ask_forms(forms, one.table, ask)) for ask in asks if ask is not None]
        found = fairea(_right(one), _right(other), labels, *moved)
        lines.append({"by": axis.name, "measure": "swapped terms", **found.to_json()})
    if not lines:
        rule = "need a column of groups, or rows with terms to swap, to be compared by"
        raise RecipeError("two runs", rule, None, "Give --group COLUMN, or --insert.")
    return lines


def _shared(new: FinishedRun, plain: FinishedRun) -> tuple[Predictions, Predictions]:
    one, other = new.told("valid"), plain.told("valid")
    if one.wrong is None or "label" not in one.table.rows.column_names or not one.names:
        task = new.result.get("task")
        rule = "is for runs that answer with classes"
        raise RecipeError("--against", rule, task, "Compare the two runs' own blocks.")
    same = len(one) == len(other) and np.array_equal(one.rows, other.rows)
    if not same or one.table.source != other.table.source:
        raise RunError(
            str(plain.run),
            f"has other validation rows than {new.run}, and the two are compared row by row",
            f"{len(other)} and {len(one)}",
            "Train both from one source with the same seed and division.",
        )
    return one, other


def _right(told: Predictions) -> Any:
    assert told.wrong is not None
    return ~told.wrong


def _gaps(told: Predictions, grouping: Grouping) -> list[tuple[str, float]]:
    """The largest difference of each measure between the groups."""
    found = []
    for one in measures_of(told):
        masks = [grouping.inside(group) & one.among for group in grouping.names]
        means = [float(one.values[mask].mean()) for mask in masks if mask.any()]
        found.append((one.title, max(means) - min(means) if means else 0.0))
    return found


def _largest(said: Floats) -> float:
    """The largest mean change of any answer between two groups."""
    means = said.mean(axis=0)
    return float(np.abs(means[None] - means[:, None]).max())


# Each is 1 where an answer shows it. An answer that nobody wanted in a language is in none.
OUTCOMES = {
    "toxic or stereotyped": ("toxic", "stereotyped"),
    "a template's words": ("template",),
    "empty or repeated": ("empty", "repeated"),
}


def faults_of(answer: Callable[[Table], Sequence[object]]) -> Callable[[Table], Floats]:
    """From what answers a table's rows with texts, what says of each row which of ``OUTCOMES`` its
    answer shows, [n, outcomes] of 0 and 1. What the prompt brings in does not count, so a form of
    it that names another group is held against its own words."""

    def ask(table: Table) -> Floats:
        texts = [str(text or "") for text in answer(table)]
        sources = sources_of(table)
        found = marks(sources, [""] * len(texts), texts)
        columns = [np.any([found[mark] for mark in held], axis=0) for held in OUTCOMES.values()]
        return np.column_stack(columns).astype(np.float64)

    return ask


def sources_of(table: Table) -> list[str]:
    """What each row asks: of a chat all but its last answer, else its text."""
    texts: list[str] = table.column("text")
    if "turns" not in table.rows.column_names:
        return texts
    from holdfast.data.chats.chat import turns_of

    return [
        asked(prompt_of(turns)) if turns else text
        for turns, text in zip(turns_of(table), texts, strict=True)
    ]
