"""Rows of many small tasks: read, assigned to tasks and classes, and split so that no task is in
two splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.inference import within_limits
from holdfast.core.decisions import notify
from holdfast.core.discovery import user_path
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.tasks import CLASSIFICATION_TASKS, IMAGE_TASKS, LABELLED_TEXT_TASKS
from holdfast.core.wording import count_phrase
from holdfast.data.images.folders import given_splits
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.duplicates.duplicates import combine_tables
from holdfast.plan.task import resolve_task
from holdfast.plugins.episodes.tasks import (
    EpisodeShape,
    FewShotTask,
    TaskPool,
    split_units,
    usable_tasks,
)
from holdfast.prepare.clean import clean_texts, resolve_cleaning
from holdfast.prepare.model import concatenate
from holdfast.recipe import Recipe
from holdfast.recipe.parts import MetaPart, SplitShares
from holdfast.tasks import task_definition

if TYPE_CHECKING:
    import pyarrow as pa


Names = npt.NDArray[np.object_]
Bools = npt.NDArray[np.bool_]

SPLITS = ("train", "valid", "test")
# Fewer test tasks than these shares give would say nothing about future tasks.
SHARES = (0.6, 0.2, 0.2)
UNITS_FOR_TWO = 6
QUERIES = 15
WAYS = 5
PLURALS = {"task": "tasks", "class": "classes"}
MAX_LISTED = 5


@dataclass(frozen=True, slots=True)
class MetaRows:
    """The rows as one table, and the ``pools`` of tasks (train, valid, test) by position in it.

    ``recipe`` names the task and every number that was worked out. ``by`` names the unit that stays
    within one split: ``task`` or ``class``. ``names`` [n] are the rows' classes (with their task,
    where there are several). ``records`` are for ``splits.parquet``, ``sources`` the tables as they
    were read.
    """

    recipe: Recipe
    table: Table
    sources: tuple[Table, ...]
    pools: tuple[TaskPool, TaskPool, TaskPool]
    shape: EpisodeShape
    by: str
    names: tuple[str, ...]
    split: Ints
    records: pa.Table
    findings: tuple[Finding, ...]
    decisions: tuple[Decision, ...]

    @property
    def head(self) -> tuple[str, ...]:
        """The classes of the training tasks, which the saved model's last layer predicts."""
        tasks = self.pools[0].tasks
        if self.by == "class":
            return tuple(c for task in tasks for c in task.classes)
        return tuple(f"{task.name}/{c}" for task in tasks for c in task.classes)


def load_tasks(recipe: Recipe) -> MetaRows:
    """Read the rows of ``data.path`` (and ``data.test``), and split their tasks.

    ``meta.task_column`` separates the tasks; in an image folder ``task/class/picture`` the first
    folder does. With a single task, its classes are split instead. Duplicates of a row of the
    validation or test split are left out, and all but one of several duplicates: a query row with a
    duplicate among the support rows would be trivial.

    Raises ``RecipeError`` for a task or a setting that does not apply, ``DataError`` where tasks or
    rows are too few, or one is in two splits.
    """
    with within_limits(recipe.data):
        return _load_tasks(recipe)


def _load_tasks(recipe: Recipe) -> MetaRows:
    recipe, task_decisions = _check_recipe(recipe)
    recipe, treatments = resolve_cleaning(recipe)
    meta = recipe.meta
    table, given_tables, _, cleaning_decisions = clean_texts(*_read(recipe), (), treatments)
    decisions = (*task_decisions, *table.decisions, *cleaning_decisions)
    tables = (table, *given_tables.values())
    parts = [_tasks_and_classes(one, meta.task_column) for one in tables]
    tasks = np.concatenate([part[0] for part in parts])
    classes = np.concatenate([part[1] for part in parts])
    source_index = np.repeat(np.arange(len(tables)), [len(one) for one in tables])
    joined, _ = concatenate(*tables)
    by, unit = ("task", tasks) if len(set(tasks)) > 1 else ("class", classes)
    shape, shape_decisions = _shape(meta, tasks, classes)
    duplicates = combine_tables(table, given_tables, recipe.seed).duplicates
    groups = np.asarray(duplicates.groups, dtype=np.int64)
    large_enough = _large_enough_units(tasks, classes, shape, by)
    unit_names = _usable_units(unit, source_index, large_enough, by)
    divisions, split_decision = _split_units(unit_names, recipe, shape, by, table.source)
    split_of_unit = {name: at for at, part in enumerate(divisions) for name in part}
    # Units that are too small belong to no split.
    split: Ints = np.array([split_of_unit.get(name, -1) for name in unit], dtype=np.int64)
    split, copy_findings = _remove_copies(split, groups, tasks, source_index, tables)
    train, valid, test = (_pool(tasks, classes, split == at, shape) for at in range(len(SPLITS)))
    pools = (train, valid, test)
    _refuse_empty(pools, shape, table.source, by)
    size_findings, split = _mark_too_small(pools, split, unit, shape, by)
    names = tuple(
        f"{t}/{c}" if by == "task" else str(c) for t, c in zip(tasks, classes, strict=True)
    )
    decisions = (*decisions, *shape_decisions, split_decision)
    findings = (*table.findings, *copy_findings, *size_findings)
    notify(*decisions, *findings)
    return MetaRows(
        recipe.with_changes(meta={"ways": shape.ways, "queries": shape.queries}),
        joined,
        tables,
        pools,
        shape,
        by,
        names,
        split,
        _records(tables, split, names),
        findings,
        decisions,
    )


def _read(recipe: Recipe) -> tuple[Table, dict[str, Table]]:
    """The rows of the source, and ``test`` rows that were given."""
    definition, data = task_definition(recipe.task), recipe.data
    table = definition.read(str(data.path), data, None)
    is_folder = recipe.task in IMAGE_TASKS and data.test is None
    test = given_splits(str(data.path))[0].get("test") if is_folder else data.test
    if test is None:
        return table, {}
    test_data = recipe.with_changes(data={"path": test, "test": None}).data
    return table, {"test": definition.read(test, test_data, None)}


def _check_recipe(recipe: Recipe) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe with its task, and its columns as they are read here; settings that do not apply
    are refused.
    """
    data = recipe.data
    if data.path is None:
        raise RecipeError("data.path", "is missing", None, "Name the file that holds the rows.")
    for source in (data.path, data.test):
        if source is not None:
            refuse_missing(source)
    recipe, task_decisions = resolve_task(recipe)
    if recipe.task not in CLASSIFICATION_TASKS:
        raise RecipeError(
            "holdfast meta",
            f"learns from rows with one class each, and does not support {recipe.task}",
            None,
            f"Tasks: {', '.join(CLASSIFICATION_TASKS)}.",
        )
    if data.label_kind not in (None, "class"):
        rule = "must be class: episodes need one class a row"
        raise RecipeError("data.label_kind", rule, data.label_kind, "Leave it out.")
    unsupported = {
        "data.group": (
            data.group if data.group != recipe.meta.task_column else None,
            "each episode takes its rows from one task",
        ),
        "data.valid": (data.valid, "validation tasks come from the source"),
        "data.mix": (data.mix, "all tasks come from one source, separated by a column"),
        "model.adapter.kind": (
            recipe.model.adapter.method,
            "the learned base model is a full model",
        ),
        "methods": (recipe.methods or None, "methods of ordinary fits do not apply"),
        "enrich": (recipe.enrich or None, "rows are not augmented"),
    }
    for key, (value, because) in unsupported.items():
        if value is not None:
            raise RecipeError(
                key, f"does not apply to holdfast meta: {because}", value, "Leave it out."
            )
    if recipe.model.quantize != "none":
        rule = "must be none: every weight of the base model may be trained"
        raise RecipeError("model.quantize", rule, recipe.model.quantize, "Leave it out.")
    data_settings: dict[str, Any] = {"group": recipe.meta.task_column}
    if recipe.task in LABELLED_TEXT_TASKS:
        data_settings["label_kind"] = "class"
    return recipe.with_changes(data=data_settings), task_decisions


def _tasks_and_classes(table: Table, column: str | None) -> tuple[Names, Names]:
    """Task and class of each row, as text [n]."""
    names = [table.classes[index] for index in table.column("label").tolist()]
    labels = np.array(names, dtype=object)
    if column is not None:
        return np.array(table.column("group"), dtype=object), labels
    root = user_path(table.source)
    if "path" in table.rows.column_names and root.is_dir():
        paths = [Path(path).parts for path in table.column("path")]
        base = len(root.absolute().parts)
        if paths and all(len(parts) >= base + 3 for parts in paths):
            # The second folder of each image, where all are in ``task/class/``.
            return labels, np.array([parts[base + 1] for parts in paths], dtype=object)
    return np.full(len(table), "", dtype=object), labels


def _shape(
    meta: MetaPart, tasks: Names, classes: Names
) -> tuple[EpisodeShape, tuple[Decision, ...]]:
    """Ways, shots and queries; those that were not given are derived from the rows."""
    decisions = []
    pairs, sizes = np.unique(
        [f"{t}\0{c}" for t, c in zip(tasks, classes, strict=True)], return_counts=True
    )
    queries, ways = meta.queries, meta.ways
    if queries is None:
        # Nine of ten classes have this many rows besides the shots.
        rows_left = int(np.quantile(sizes, 0.1)) - meta.shots
        queries = max(1, min(QUERIES, rows_left))
        because = f"at most {QUERIES}, as far as nine of ten classes have rows"
        decisions.append(Decision("meta.queries", str(queries), because))
    if ways is None:
        large = sizes >= meta.shots + queries
        owners = [pair.partition("\0")[0] for pair, one in zip(pairs, large, strict=True) if one]
        counts = np.unique(owners, return_counts=True)[1] if owners else np.array([0])
        several = len(set(tasks)) > 1
        max_ways = int(counts[counts >= 2].min(initial=WAYS)) if several else int(counts[0]) // 3
        ways = max(2, min(WAYS, max_ways))
        because = f"at most {WAYS}, and no more than the classes of each split"
        decisions.append(Decision("meta.ways", str(ways), because))
    return EpisodeShape(ways, meta.shots, queries), tuple(decisions)


def _large_enough_units(tasks: Names, classes: Names, shape: EpisodeShape, by: str) -> set[str]:
    """The tasks or classes from which episodes could be drawn if all rows were in one split."""
    all_tasks = _pool(tasks, classes, np.ones(len(tasks), dtype=bool), shape).tasks
    if by == "task":
        return {task.name for task in all_tasks}
    return {name for task in all_tasks for name in task.classes}


def _usable_units(
    unit: Names, source_index: Ints, large_enough: set[str], by: str
) -> tuple[list[str], list[str] | None]:
    """The tasks or classes of the source's rows and of given test rows that are large enough for
    episodes; the two share none.
    """
    source_units = sorted(set(unit[source_index == 0]))
    test = sorted(set(unit[source_index == 1])) if (source_index == 1).any() else None
    # Only of those that are large enough: rows without a task count as one task each.
    if test is not None and (shared := sorted(set(source_units) & set(test) & large_enough)):
        rule = (
            f"is in the source's rows and in the test rows, with {len(shared) - 1} "
            f"more: a test {by} must not be seen in training"
        )
        raise DataError(f"{by} {shared[0]!r}", rule, None, "Remove it from one of the two.")
    return [name for name in source_units if name in large_enough], test


def _split_units(
    unit_names: tuple[list[str], list[str] | None],
    recipe: Recipe,
    shape: EpisodeShape,
    by: str,
    source: str,
) -> tuple[list[Sequence[str]], Decision]:
    """The tasks or classes of each split."""
    (units, test), by_task, plural = unit_names, by == "task", PLURALS[by]
    split = recipe.data.split
    all_shares = SHARES if split == SplitShares() else (split.train, split.valid, split.test)
    shares = all_shares[: 2 if test is not None else 3]
    # Two tasks per split show that tasks differ; one shows nothing.
    min_units = shape.ways if not by_task else 2 if len(units) >= UNITS_FOR_TWO else 1
    parts = split_units(units, shares, min_units, recipe.seed)
    if parts is None:
        n_needed = min_units * len(shares)
        raise DataError(
            source,
            f"has {count_phrase(len(units), by, plural)} large enough for episodes "
            f"({shape.ways} classes at a time, with {shape.rows} rows a class), and "
            f"{n_needed} are needed: episodes of training, validation and test share "
            "none",
            None,
            f"Add more {plural}, or lower meta.ways, meta.shots or meta.queries."
            + ("" if not by_task else " Without --task-column, Holdfast splits the classes."),
        )
    split_names = [*parts, *([] if test is None else [test])]
    counts = " / ".join(str(len(part)) for part in split_names)
    because = f"each {by} is in one split only, so that the score is for unseen {plural}"
    what = f"{plural} for training / validation / test"
    return split_names, Decision(what, counts, because, prominent=True)


def _remove_copies(
    split: Ints, groups: Ints, tasks: Names, source_index: Ints, tables: Sequence[Table]
) -> tuple[Ints, tuple[Finding, ...]]:
    """Of duplicates those in the last split that has one stay, and of these one a task.

    A row in two tasks under two names may train both.
    """
    last_split = np.full(int(groups.max(initial=-1)) + 1, -1, dtype=np.int64)
    np.maximum.at(last_split, groups, split)
    cleaned, copies_across, copies_within = split.copy(), [], []
    marks_so_far: set[tuple[int, str]] = set()
    for row in np.flatnonzero(split >= 0).tolist():
        mark = (int(groups[row]), str(tasks[row]))
        if split[row] < last_split[groups[row]]:
            # Not reported: where classes are split, all rows are of one task, in every split.
            copies_across.append(row)
        elif mark in marks_so_far:
            copies_within.append(row)
        else:
            marks_so_far.add(mark)
    cleaned[[*copies_across, *copies_within]] = -2
    rows = np.concatenate([table.column("row") for table in tables])
    findings = []
    for name, list_, words in (
        ("copies_across_tasks", copies_across, "a row of a validation or test task"),
        ("copies_within_tasks", copies_within, "another row of the same task"),
    ):
        if list_:
            marks = tuple(int(rows[i]) for i in list_ if source_index[i] == 0)[:100]
            verb, left = ("copies", "is") if len(list_) == 1 else ("copy", "are")
            because = f"{count_phrase(len(list_), 'row')} {verb} {words}, and {left} left out"
            remedy = "Nothing to do: no episode contains a row twice."
            share = len(list_) / len(split)
            severity: Any = "warn" if name == "copies_across_tasks" else "info"
            findings.append(
                Finding(name, severity, share, len(list_), marks, because, remedy, True)
            )
    return cleaned, tuple(findings)


def _pool(tasks: Names, classes: Names, mask: Bools, shape: EpisodeShape) -> TaskPool:
    """The tasks of the rows in ``mask`` that are large enough for episodes."""
    rows_by_class: dict[str, dict[str, list[int]]] = {}
    for row in np.flatnonzero(mask).tolist():
        rows_by_class.setdefault(str(tasks[row]), {}).setdefault(str(classes[row]), []).append(row)
    tasks_with_rows = [
        FewShotTask(name, tuple(sorted(rows)), tuple(np.array(rows[c]) for c in sorted(rows)))
        for name, rows in sorted(rows_by_class.items())
    ]
    return TaskPool(usable_tasks(tasks_with_rows, shape))


def _refuse_empty(pools: Sequence[TaskPool], shape: EpisodeShape, source: str, by: str) -> None:
    for name, pool in zip(SPLITS, pools, strict=True):
        if not pool.tasks:
            where = " in one task" if by == "task" else ""
            raise DataError(
                source,
                f"leaves no {shape.ways} classes of {shape.rows} rows for the {name} "
                f"split{where}, after duplicates were left out",
                None,
                "Need less with --set meta.ways, meta.shots or meta.queries, or add more rows.",
            )


def _mark_too_small(
    pools: Sequence[TaskPool], split: Ints, unit: Names, shape: EpisodeShape, by: str
) -> tuple[list[Finding], Ints]:
    """Report and mark rows that no episode can contain, since their class or task is too small."""
    used = [rows for pool in pools for task in pool.tasks for rows in task.rows]
    unused = split != -2
    unused[np.concatenate(used)] = False
    if not unused.any():
        return [], split
    names, n = sorted({str(name) for name in unit[unused]}), int(unused.sum())
    shown = ", ".join(names[:MAX_LISTED]) + (", …" if len(names) > MAX_LISTED else "")
    because = (
        f"{count_phrase(n, 'row')} of {PLURALS[by]} with fewer than {shape.rows} rows "
        f"a class in {shape.ways} classes are not used: {shown}"
    )
    remedy = "Add rows to them, or lower meta.shots or meta.queries."
    check, share = "too_few_rows_of_a_task", float(unused.mean())
    return [Finding(check, "warn", share, n, (), because, remedy)], np.where(unused, -3, split)


def _records(tables: Sequence[Table], split: Ints, names: Sequence[str]) -> pa.Table:
    """One line for each source row."""
    import pyarrow as pa

    lines: list[dict[str, Any]] = []
    start = 0
    for table in tables:
        rows = table.column("row").tolist()
        row_position = {row: at for at, row in enumerate(rows, start)}
        start += len(rows)
        for row in range(table.source_rows):
            at = row_position.get(row)
            number = -4 if at is None else int(split[at])
            line = {"file": table.source, "row": row, "group": None if at is None else names[at]}
            line["split"] = SPLITS[number] if number >= 0 else "dropped"
            line["note"] = None if number >= 0 else NOTES[number]
            lines.append(line)
    fields = [("file", pa.string()), ("row", pa.int64())]
    fields += [(name, pa.string()) for name in ("split", "group", "note")]
    return pa.Table.from_pylist(lines, schema=pa.schema(fields))


NOTES = {
    -1: "its task or class is too small",
    -2: "a copy of another row",
    -3: "its task or class is too small",
    -4: "has no text or no label",
}
