"""The treatments of a recipe, between the audit and the division, and again on every later row.

What looks at one text alone is done to the rows of all sides, and by ``predict`` and ``evaluate``
to those that come, so that a model reads what it was trained on. What compares rows is done to the
training rows after the division: nothing learns from a test row, and none is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from holdfast.core.errors import RecipeError, SplitError
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.tasks import TEXT_TASKS
from holdfast.core.wording import count_phrase
from holdfast.data.table import Splits, Table, TrainSplit
from holdfast.quality.clean import all_treatments
from holdfast.quality.clean.apply import CleaningPlan, clean_rows, describe_skipped, plan_cleaning
from holdfast.quality.clean.table import CleanedTable, clean_table
from holdfast.quality.clean.treatment import RowSet, TextTreatment
from holdfast.recipe import Recipe

if TYPE_CHECKING:
    import pyarrow as pa


def with_treatments(recipe: Recipe) -> tuple[Recipe, CleaningPlan]:
    """The recipe with every treatment named that its rows get, those by default too, and what they
    are.

    Raises ``RecipeError`` for a name or a setting that does not exist, one that only a file can be
    treated by, and any where rows are no texts.
    """
    asked = dict(recipe.treat)
    if recipe.task not in TEXT_TASKS:
        plan_cleaning(asked)
        if any(given is not False for given in asked.values()):
            rule = f"does not exist for {recipe.task}"
            raise RecipeError("treat", rule, ", ".join(asked), "Leave it out.")
        return recipe, CleaningPlan()
    for name in by_default():
        asked.setdefault(name, True)
    chosen = plan_cleaning(asked)
    for treatment, settings in chosen.table:
        if not treatment.trains or getattr(settings, "count", None):
            what = f"treat.{treatment.name}" + (".count" if treatment.trains else "")
            rule = "writes into a file, and training does not"
            raise RecipeError(what, rule, None, "Treat the file first: holdfast audit DATA --fix.")
    return recipe.model_copy(update={"treat": asked}), chosen


def by_default() -> tuple[str, ...]:
    """The treatments that are done without being asked for."""
    return tuple(
        name
        for name, one in all_treatments().items()
        if isinstance(one, TextTreatment) and one.default
    )


def same_text(table: Table, recipe: Recipe) -> Table:
    """Rows as a run of this recipe reads them: with the treatments that it names, and no others."""
    if recipe.task not in TEXT_TASKS or not recipe.treat:
        return table
    return clean_table(table, plan_cleaning(recipe.treat)).table


def treat_all(
    table: Table, given: Mapping[str, Table], findings: Sequence[Finding], chosen: CleaningPlan
) -> tuple[Table, dict[str, Table], tuple[Finding, ...], tuple[Decision, ...]]:
    """The source and the given files with every text treated, the findings that are settled by it,
    and what was done."""
    done = {"": clean_table(table, chosen)}
    done |= {name: clean_table(one, chosen) for name, one in given.items()}
    decisions = tuple(
        Decision(
            f"treat.{treatment.name}",
            _texts(done, treatment.name),
            _because(treatment) + _unread(done, treatment.name),
        )
        for treatment, _ in chosen.row
        if any(
            one.counts.get(treatment.name) or one.skipped.get(treatment.name)
            for one in done.values()
        )
    )
    source = done.pop("")
    settled = {
        check
        for treatment, _ in chosen.row
        if treatment.name in source.counts
        for check in treatment.fixes
    }
    marked = tuple(replace(one, fixed=True) if one.check in settled else one for one in findings)
    return source.table, {name: one.table for name, one in done.items()}, marked, decisions


def _texts(done: Mapping[str, CleanedTable], name: str) -> str:
    counts = [
        count_phrase(one.counts[name], "text") + (f" of the {side} file" if side else "")
        for side, one in done.items()
        if name in one.counts
    ]
    return f"{', '.join(counts) or 'no text'} treated"


def _unread(done: Mapping[str, CleanedTable], name: str) -> str:
    """What the treatment did not look at, of all files together."""
    counts: Counter[str] = Counter()
    for one in done.values():
        counts.update(one.skipped.get(name, {}))
    return f"; {describe_skipped(counts)}" if counts else ""


S = TypeVar("S")


def _because(treatment: TextTreatment[S]) -> str:
    by_default = " (by default)" if treatment.default else ""
    return (
        f"what {treatment.because} is read as it was meant{by_default}, here, by predict and by "
        f"evaluate; treat.{treatment.name}=false leaves it"
        if not treatment.hides
        else f"what {treatment.because} is read without them, here, by predict and by evaluate"
    )


def treat_training(splits: Splits, chosen: CleaningPlan) -> Splits:
    """The division without the training rows that a table treatment leaves out.

    Raises ``SplitError`` where none is left.
    """
    if not chosen.table:
        return splits
    table = splits.train.table
    _, changes = clean_rows(_side(table), CleaningPlan(table=chosen.table))
    gone = {change.row: change for change in changes if change.column is None}
    if not gone:
        return splits
    rows = table.column("row")
    kept = np.flatnonzero(~np.isin(rows, list(gone)))
    if not len(kept):
        names = ", ".join(f"treat.{name}" for name in chosen.names)
        raise SplitError("the training rows", f"are all left out by {names}", None, "Ask for less.")
    decisions = tuple(
        Decision(
            f"treat.{name}",
            f"{count_phrase(count, 'training row')} left out",
            "asked for; validation and test rows stay as they are",
        )
        for name in chosen.names
        if (count := sum(change.treatment == name for change in gone.values()))
    )
    return replace(
        splits,
        train=TrainSplit(table.take(kept)),
        records=_recorded(splits.records, gone),
        units=_units(splits, kept),
        decisions=(*splits.decisions, *decisions),
    )


def _units(splits: Splits, kept: Ints) -> Ints | None:
    if splits.units is None:
        return None
    n = len(splits.train)
    return np.concatenate([splits.units[:n][kept], splits.units[n:]])


def _side(table: Table) -> RowSet:
    """The training rows as a treatment reads them: their texts, and one label whatever its kind."""
    names = [name for name in ("text", "text_pair") if name in table.rows.column_names]
    label = next(
        name
        for name in ("target", "turns", "value", "labels", "label")
        if name in table.rows.column_names
    )
    columns = {name: list(table.column(name)) for name in names}
    columns["label"] = [str(one) for one in table.column(label)]
    return RowSet(table.column("row").tolist(), columns, tuple(names), "label")


def _recorded(records: pa.Table, gone: Mapping[int, Any]) -> Any:
    """The table of the division with these training rows dropped."""
    import pyarrow as pa

    sides, rows = records["split"].to_pylist(), records["row"].to_pylist()
    notes = records["note"].to_pylist()
    # Training rows are those of one file, the source; given files have no training rows.
    for place, (side, row) in enumerate(zip(sides, rows, strict=True)):
        if side == "train" and row in gone:
            sides[place] = "dropped"
            notes[place] = f"treat.{gone[row].treatment}: {gone[row].because}"
    for name, values in (("split", sides), ("note", notes)):
        at = records.schema.get_field_index(name)
        field = records.schema.field(at)
        records = records.set_column(at, field, pa.array(values, field.type))
    return records
