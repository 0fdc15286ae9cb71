"""Apply the cleaning steps of a recipe between the audit and the split, and again to later rows.

A step that works on single texts is applied to the rows of all splits. ``predict`` and
``evaluate`` apply it too, so that a model reads texts as in training. A step that compares rows is
applied only to the training rows, after the split: it never uses or removes a test row.
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


def resolve_cleaning(recipe: Recipe) -> tuple[Recipe, CleaningPlan]:
    """The recipe with every cleaning step named, including those by default, and the plan of these
    steps.

    Raises ``RecipeError`` for an unknown name or setting, for a step that only works on a file, and
    for any step where rows are not texts.
    """
    requested = dict(recipe.treat)
    if recipe.task not in TEXT_TASKS:
        plan_cleaning(requested)
        if any(given is not False for given in requested.values()):
            rule = f"does not apply to {recipe.task}"
            raise RecipeError("clean", rule, ", ".join(requested), "Leave it out.")
        return recipe, CleaningPlan()
    for name in default_treatments():
        requested.setdefault(name, True)
    cleaning_plan = plan_cleaning(requested)
    for treatment, settings in cleaning_plan.table:
        if not treatment.trains or getattr(settings, "count", None):
            key = f"clean.{treatment.name}" + (".count" if treatment.trains else "")
            rule = "only works on a file, not in training"
            raise RecipeError(key, rule, None, "Clean the file first: holdfast audit DATA --fix.")
    return recipe.model_copy(update={"treat": requested}), cleaning_plan


def default_treatments() -> tuple[str, ...]:
    """The cleaning steps that are applied by default."""
    return tuple(
        name
        for name, one in all_treatments().items()
        if isinstance(one, TextTreatment) and one.default
    )


def clean_like_run(table: Table, recipe: Recipe) -> Table:
    """Clean rows as a run of this recipe does: with the steps that it names, and no others."""
    if recipe.task not in TEXT_TASKS or not recipe.treat:
        return table
    return clean_table(table, plan_cleaning(recipe.treat)).table


def clean_texts(
    table: Table,
    given: Mapping[str, Table],
    findings: Sequence[Finding],
    cleaning_plan: CleaningPlan,
) -> tuple[Table, dict[str, Table], tuple[Finding, ...], tuple[Decision, ...]]:
    """The source and the given files with every text cleaned, the findings that this resolves, and
    the decisions."""
    treated = {"": clean_table(table, cleaning_plan)}
    treated |= {name: clean_table(one, cleaning_plan) for name, one in given.items()}
    decisions = tuple(
        Decision(
            f"clean.{treatment.name}",
            _treated_text(treated, treatment.name),
            _cleaning_reason(treatment) + _unread_text(treated, treatment.name),
        )
        for treatment, _ in cleaning_plan.row
        if any(
            one.counts.get(treatment.name) or one.skipped.get(treatment.name)
            for one in treated.values()
        )
    )
    source = treated.pop("")
    fixed_checks = {
        check
        for treatment, _ in cleaning_plan.row
        if treatment.name in source.counts
        for check in treatment.fixes
    }
    updated_findings = tuple(
        replace(one, fixed=True) if one.check in fixed_checks else one for one in findings
    )
    return (
        source.table,
        {name: one.table for name, one in treated.items()},
        updated_findings,
        decisions,
    )


def _treated_text(treated: Mapping[str, CleanedTable], name: str) -> str:
    counts = [
        count_phrase(one.counts[name], "text") + (f" of the {file_name} file" if file_name else "")
        for file_name, one in treated.items()
        if name in one.counts
    ]
    return f"{', '.join(counts) or 'no text'} cleaned"


def _unread_text(treated: Mapping[str, CleanedTable], name: str) -> str:
    """What the cleaning step skipped, over all files."""
    counts: Counter[str] = Counter()
    for one in treated.values():
        counts.update(one.skipped.get(name, {}))
    return f"; {describe_skipped(counts)}" if counts else ""


S = TypeVar("S")


def _cleaning_reason(treatment: TextTreatment[S]) -> str:
    note = " (by default)" if treatment.default else ""
    return (
        f"every text that {treatment.because} is cleaned{note}, in training, predict and "
        f"evaluate; clean.{treatment.name}=false switches this off"
        if not treatment.hides
        else f"every text that {treatment.because} is read without them, in training, predict and "
        "evaluate"
    )


def clean_training(splits: Splits, cleaning_plan: CleaningPlan) -> Splits:
    """The splits without the training rows that a cleaning step of tables removes.

    Raises ``SplitError`` where no training row remains.
    """
    if not cleaning_plan.table:
        return splits
    table = splits.train.table
    _, changes = clean_rows(_row_set(table), CleaningPlan(table=cleaning_plan.table))
    removed = {change.row: change for change in changes if change.column is None}
    if not removed:
        return splits
    rows = table.column("row")
    positions = np.flatnonzero(~np.isin(rows, list(removed)))
    if not len(positions):
        names = ", ".join(f"clean.{name}" for name in cleaning_plan.names)
        remedy = "Remove cleaning steps, or relax their settings."
        raise SplitError("the training rows", f"are all removed by {names}", None, remedy)
    decisions = tuple(
        Decision(
            f"clean.{name}",
            f"{count_phrase(count, 'training row')} removed",
            "set in the recipe; validation and test rows are not changed",
        )
        for name in cleaning_plan.names
        if (count := sum(change.treatment == name for change in removed.values()))
    )
    return replace(
        splits,
        train=TrainSplit(table.take(positions)),
        records=_mark_dropped(splits.records, removed),
        units=_remaining_units(splits, positions),
        decisions=(*splits.decisions, *decisions),
    )


def _remaining_units(splits: Splits, positions: Ints) -> Ints | None:
    if splits.units is None:
        return None
    n = len(splits.train)
    return np.concatenate([splits.units[:n][positions], splits.units[n:]])


def _row_set(table: Table) -> RowSet:
    """The training rows as a cleaning step reads them: their texts, and one label of any type."""
    names = [name for name in ("text", "text_pair") if name in table.rows.column_names]
    label = next(
        name
        for name in ("target", "turns", "value", "labels", "label")
        if name in table.rows.column_names
    )
    columns = {name: list(table.column(name)) for name in names}
    columns["label"] = [str(one) for one in table.column(label)]
    return RowSet(table.column("row").tolist(), columns, tuple(names), "label")


def _mark_dropped(records: pa.Table, removed: Mapping[int, Any]) -> Any:
    """The table of the split with these training rows marked as dropped."""
    import pyarrow as pa

    splits, rows = records["split"].to_pylist(), records["row"].to_pylist()
    notes = records["note"].to_pylist()
    # Training rows are all from one file, the source; given files have none.
    for place, (split_name, row) in enumerate(zip(splits, rows, strict=True)):
        if split_name == "train" and row in removed:
            splits[place] = "dropped"
            notes[place] = f"clean.{removed[row].treatment}: {removed[row].because}"
    for name, values in (("split", splits), ("note", notes)):
        index = records.schema.get_field_index(name)
        field = records.schema.field(index)
        records = records.set_column(index, field, pa.array(values, field.type))
    return records
