"""Rows of many small tasks: read, told apart by task and class, divided so that no task is on two
sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.contract.inference import within_limits
from holdfast.core.decisions import notify
from holdfast.core.errors import DataError, RecipeError
from holdfast.core.records import Decision, Finding, Ints
from holdfast.core.tasks import CLASSIFIERS, LABELLED_TEXTS
from holdfast.core.wording import counted
from holdfast.data.source import refuse_missing
from holdfast.data.table import Table
from holdfast.duplicates.duplicates import gather
from holdfast.plan.task import with_task
from holdfast.plugins.episodes.tasks import FewShotTask, Shape, TaskPool, divided, usable
from holdfast.prepare.clean import clean_texts, resolve_cleaning
from holdfast.prepare.model import concatenate
from holdfast.recipe import Recipe
from holdfast.recipe.parts import MetaPart, SplitShares
from holdfast.tasks import kind_of

if TYPE_CHECKING:
    import pyarrow as pa


Names = npt.NDArray[np.object_]
Bools = npt.NDArray[np.bool_]

SIDES = ("train", "valid", "test")
# Fewer test tasks than these shares give would say nothing of tasks to come.
SHARES = (0.6, 0.2, 0.2)
SIX = 6
QUERIES = 15
WAYS = 5
MANY = {"task": "tasks", "class": "classes"}
LISTED = 5


@dataclass(frozen=True, slots=True)
class MetaRows:
    """The rows as one table, and the ``pools`` of tasks (train, valid, test) by position in it.

    ``recipe`` names the task and every number that was worked out. ``by`` says what is on one side
    alone: ``task`` or ``class``. ``names`` [n] are the rows' classes (with their task, where tasks
    are told apart). ``records`` are for ``splits.parquet``, ``sources`` the tables as they were
    read."""

    recipe: Recipe
    table: Table
    sources: tuple[Table, ...]
    pools: tuple[TaskPool, TaskPool, TaskPool]
    shape: Shape
    by: str
    names: tuple[str, ...]
    side: Ints
    records: pa.Table
    findings: tuple[Finding, ...]
    decisions: tuple[Decision, ...]

    @property
    def head(self) -> tuple[str, ...]:
        """The classes of the training tasks, which the saved model's last layer tells apart."""
        tasks = self.pools[0].tasks
        if self.by == "class":
            return tuple(c for task in tasks for c in task.classes)
        return tuple(f"{task.name}/{c}" for task in tasks for c in task.classes)


def load_tasks(recipe: Recipe) -> MetaRows:
    """Read the rows of ``data.path`` (and ``data.test``), and divide their tasks.

    Tasks are told apart by ``meta.task_column``; in a folder of pictures ``task/class/picture`` by
    the first folder. Where there is one task alone, its classes are divided instead. Rows that copy
    a row of a side that judges are left out, and of several copies all but one: a copy among the
    query rows would answer itself.

    Raises ``RecipeError`` for a task or a setting that has no such thing, ``DataError`` where tasks
    or rows are too few, or one stands on two sides.
    """
    with within_limits(recipe.data):
        return _load_tasks(recipe)


def _load_tasks(recipe: Recipe) -> MetaRows:
    recipe, worked_out = _checked(recipe)
    recipe, treatments = resolve_cleaning(recipe)
    meta = recipe.meta
    table, given, _, treated = clean_texts(*_read(recipe), (), treatments)
    tables = (table, *given.values())
    parts = [_told_apart(one, meta.task_column) for one in tables]
    tasks = np.concatenate([part[0] for part in parts])
    classes = np.concatenate([part[1] for part in parts])
    of = np.repeat(np.arange(len(tables)), [len(one) for one in tables])
    joined, _ = concatenate(*tables)
    by, unit = ("task", tasks) if len(set(tasks)) > 1 else ("class", classes)
    shape, chosen = _shape(meta, tasks, classes)
    groups = np.asarray(gather(table, given, recipe.seed).copies.groups, dtype=np.int64)
    every = _pool(tasks, classes, np.ones(len(tasks), dtype=bool), shape).tasks
    enough = {name for task in every for name in ((task.name,) if by == "task" else task.classes)}
    units = _units(unit, of, enough, by)
    divisions, how = _divided(units, recipe, shape, by, table.source)
    where = {name: at for at, part in enumerate(divisions) for name in part}
    # Units that are too small have no side.
    side: Ints = np.array([where.get(name, -1) for name in unit], dtype=np.int64)
    side, found = _kept(side, groups, tasks, of, tables)
    train, valid, judged = (_pool(tasks, classes, side == at, shape) for at in range(len(SIDES)))
    pools = (train, valid, judged)
    _refuse_empty(pools, shape, table.source, by)
    small, side = _too_small(pools, side, unit, shape, by)
    names = tuple(
        f"{t}/{c}" if by == "task" else str(c) for t, c in zip(tasks, classes, strict=True)
    )
    decisions = (*worked_out, *table.decisions, *treated, *chosen, how)
    findings = (*table.findings, *found, *small)
    notify(*decisions, *findings)
    return MetaRows(
        recipe.changed(meta={"ways": shape.ways, "queries": shape.queries}),
        joined,
        tables,
        pools,
        shape,
        by,
        names,
        side,
        _records(tables, side, names),
        findings,
        decisions,
    )


def _read(recipe: Recipe) -> tuple[Table, dict[str, Table]]:
    """The rows of the source, and ``test`` rows that were given."""
    kind, data = kind_of(recipe.task), recipe.data
    table = kind.read(str(data.path), data, None)
    test = data.test or kind.sides(data)[0].get("test")
    if test is None:
        return table, {}
    other = recipe.changed(data={"path": test, "test": None}).data
    return table, {"test": kind.read(test, other, None)}


def _checked(recipe: Recipe) -> tuple[Recipe, tuple[Decision, ...]]:
    """The recipe with its task, its columns as they are read here; what has no place is refused."""
    data = recipe.data
    if data.path is None:
        raise RecipeError("data.path", "is missing", None, "Name the file that holds the rows.")
    for source in (data.path, data.test):
        if source is not None:
            refuse_missing(source)
    recipe, worked_out = with_task(recipe)
    if recipe.task not in CLASSIFIERS:
        raise RecipeError(
            "holdfast meta",
            f"learns from rows with one class each, and does not exist for {recipe.task}",
            None,
            f"Tasks: {', '.join(CLASSIFIERS)}.",
        )
    if data.label_kind not in (None, "class"):
        rule = "must be class: an episode asks which of some classes a row has"
        raise RecipeError("data.label_kind", rule, data.label_kind, "Leave it out.")
    refused = {
        "data.group": (
            data.group if data.group != recipe.meta.task_column else None,
            "an episode's rows are of one task each",
        ),
        "data.valid": (data.valid, "validation tasks are taken from the source"),
        "data.mix": (data.mix, "one source holds the tasks, told apart by a column"),
        "model.adapter.kind": (recipe.model.adapter.kind, "a start is a whole model"),
        "methods": (recipe.methods or None, "the methods of an ordinary fit have no part in it"),
        "enrich": (recipe.enrich or None, "rows are learned as they are"),
    }
    for key, (value, because) in refused.items():
        if value is not None:
            raise RecipeError(key, f"has no place in holdfast meta: {because}", value, "Leave it.")
    if recipe.model.quantize != "none":
        rule = "must be none: every weight of a start may learn"
        raise RecipeError("model.quantize", rule, recipe.model.quantize, "Leave it out.")
    fixed: dict[str, Any] = {"group": recipe.meta.task_column}
    if recipe.task in LABELLED_TEXTS:
        fixed["label_kind"] = "class"
    return recipe.changed(data=fixed), worked_out


def _told_apart(table: Table, column: str | None) -> tuple[Names, Names]:
    """Task and class of each row, as text [n]."""
    names = [table.classes[index] for index in table.column("label").tolist()]
    labels = np.array(names, dtype=object)
    if column is not None:
        return np.array(table.column("group"), dtype=object), labels
    root = Path(table.source).expanduser()
    if "path" in table.rows.column_names and root.is_dir():
        found = [Path(path).parts for path in table.column("path")]
        base = len(root.absolute().parts)
        if found and all(len(parts) >= base + 3 for parts in found):
            # The second folder of each picture, where all lie in ``task/class/``.
            return labels, np.array([parts[base + 1] for parts in found], dtype=object)
    return np.full(len(table), "", dtype=object), labels


def _shape(meta: MetaPart, tasks: Names, classes: Names) -> tuple[Shape, tuple[Decision, ...]]:
    """Ways, shots and queries, those that are not said from the rows."""
    decisions = []
    pairs, sizes = np.unique(
        [f"{t}\0{c}" for t, c in zip(tasks, classes, strict=True)], return_counts=True
    )
    queries, ways = meta.queries, meta.ways
    if queries is None:
        # Nine classes of ten have so many rows beside the shots.
        spare = int(np.quantile(sizes, 0.1)) - meta.shots
        queries = max(1, min(QUERIES, spare))
        because = f"at most {QUERIES}, as far as the rows of nine classes in ten go"
        decisions.append(Decision("meta.queries", str(queries), because))
    if ways is None:
        fit = sizes >= meta.shots + queries
        owners = [pair.partition("\0")[0] for pair, one in zip(pairs, fit, strict=True) if one]
        counts = np.unique(owners, return_counts=True)[1] if owners else np.array([0])
        several = len(set(tasks)) > 1
        most = int(counts[counts >= 2].min(initial=WAYS)) if several else int(counts[0]) // 3
        ways = max(2, min(WAYS, most))
        because = f"at most {WAYS}, and no more than every side has classes for"
        decisions.append(Decision("meta.ways", str(ways), because))
    return Shape(ways, meta.shots, queries), tuple(decisions)


def _units(unit: Names, of: Ints, enough: set[str], by: str) -> tuple[list[str], list[str] | None]:
    """The tasks or classes of the source's rows that episodes can be drawn from, and those of test
    rows that were given; they share none."""
    own = sorted(set(unit[of == 0]))
    test = sorted(set(unit[of == 1])) if (of == 1).any() else None
    # Of those that are large enough alone: rows without a task are one each, by their place.
    if test is not None and (shared := sorted(set(own) & set(test) & enough)):
        raise DataError(
            f"{by} {shared[0]!r}",
            f"stands among the source's rows and among the test rows, with {len(shared) - 1} more: "
            "what is learned there would be no new one here",
            None,
            "Take it out of one of the two.",
        )
    return [name for name in own if name in enough], test


def _divided(
    given: tuple[list[str], list[str] | None], recipe: Recipe, shape: Shape, by: str, source: str
) -> tuple[list[Sequence[str]], Decision]:
    """The tasks or classes of each side."""
    (units, test), several, many = given, by == "task", MANY[by]
    split = recipe.data.split
    every = SHARES if split == SplitShares() else (split.train, split.valid, split.test)
    shares = every[: 2 if test is not None else 3]
    # Two tasks a side show that tasks differ; one shows nothing.
    least = shape.ways if not several else 2 if len(units) >= SIX else 1
    parts = divided(units, shares, least, recipe.seed)
    if parts is None:
        need = least * len(shares)
        raise DataError(
            source,
            f"has {counted(len(units), by, many)} that episodes can be drawn from "
            f"({shape.ways} classes at a time, with {shape.rows} rows a class), and {need} are "
            "needed: episodes of training, validation and test share none",
            None,
            f"Give more {many}, or ask for less with --set meta.ways, meta.shots or "
            "meta.queries."
            + ("" if not several else " Without --task-column, classes are divided."),
        )
    sides = [*parts, *([] if test is None else [test])]
    counts = " / ".join(str(len(part)) for part in sides)
    because = f"a {by} is on one side alone, so that the score is of ones never met"
    asked = f"{many} to learn from / to decide by / to score"
    return sides, Decision(asked, counts, because, prominent=True)


def _kept(
    side: Ints, groups: Ints, tasks: Names, of: Ints, tables: Sequence[Table]
) -> tuple[Ints, tuple[Finding, ...]]:
    """Of copies those stay that are on the last side that has one, and of these one a task: what
    is in two tasks under two names may teach both."""
    best = np.full(int(groups.max(initial=-1)) + 1, -1, dtype=np.int64)
    np.maximum.at(best, groups, side)
    kept, across, within = side.copy(), [], []
    seen: set[tuple[int, str]] = set()
    for row in np.flatnonzero(side >= 0).tolist():
        mark = (int(groups[row]), str(tasks[row]))
        if side[row] < best[groups[row]]:
            # Not seen: of classes that are divided all rows are of one task, on every side.
            across.append(row)
        elif mark in seen:
            within.append(row)
        else:
            seen.add(mark)
    kept[[*across, *within]] = -2
    rows = np.concatenate([table.column("row") for table in tables])
    found = []
    for name, list_, words in (
        ("copies_across_tasks", across, "a row of a task that judges, or is scored"),
        ("copies_within_tasks", within, "another row of the same task"),
    ):
        if list_:
            marks = tuple(int(rows[i]) for i in list_ if of[i] == 0)[:100]
            verb, left = ("copies", "is") if len(list_) == 1 else ("copy", "are")
            because = f"{counted(len(list_), 'row')} {verb} {words}, and {left} left out"
            remedy = "Nothing to do: no episode holds a row twice."
            share = len(list_) / len(side)
            severity: Any = "warn" if name == "copies_across_tasks" else "info"
            found.append(Finding(name, severity, share, len(list_), marks, because, remedy, True))
    return kept, tuple(found)


def _pool(tasks: Names, classes: Names, mask: Bools, shape: Shape) -> TaskPool:
    """The tasks of the rows in ``mask`` that episodes can be drawn from."""
    found: dict[str, dict[str, list[int]]] = {}
    for row in np.flatnonzero(mask).tolist():
        found.setdefault(str(tasks[row]), {}).setdefault(str(classes[row]), []).append(row)
    made = [
        FewShotTask(name, tuple(sorted(rows)), tuple(np.array(rows[c]) for c in sorted(rows)))
        for name, rows in sorted(found.items())
    ]
    return TaskPool(usable(made, shape))


def _refuse_empty(pools: Sequence[TaskPool], shape: Shape, source: str, by: str) -> None:
    for name, pool in zip(SIDES, pools, strict=True):
        if not pool.tasks:
            where = " in one task" if by == "task" else ""
            raise DataError(
                source,
                f"leaves no {shape.ways} classes of {shape.rows} rows for the {name} side{where}, "
                "once copies are left out",
                None,
                "Ask for less with --set meta.ways, meta.shots or meta.queries, or give more rows.",
            )


def _too_small(
    pools: Sequence[TaskPool], side: Ints, unit: Names, shape: Shape, by: str
) -> tuple[list[Finding], Ints]:
    """Rows that no episode can hold, since their class or task is too small: told, and marked."""
    used = [rows for pool in pools for task in pool.tasks for rows in task.rows]
    lost = side != -2
    lost[np.concatenate(used)] = False
    if not lost.any():
        return [], side
    names, n = sorted({str(name) for name in unit[lost]}), int(lost.sum())
    shown = ", ".join(names[:LISTED]) + (", …" if len(names) > LISTED else "")
    because = (
        f"{counted(n, 'row')} of {MANY[by]} with fewer than {shape.rows} rows a class in "
        f"{shape.ways} classes take no part: {shown}"
    )
    remedy = "Give them more rows, or ask for less with --set meta.shots or meta.queries."
    check, share = "too_few_rows_of_a_task", float(lost.mean())
    return [Finding(check, "warn", share, n, (), because, remedy)], np.where(lost, -3, side)


def _records(tables: Sequence[Table], side: Ints, names: Sequence[str]) -> pa.Table:
    """One line a source row."""
    import pyarrow as pa

    lines: list[dict[str, Any]] = []
    start = 0
    for table in tables:
        rows = table.column("row").tolist()
        here = {row: at for at, row in enumerate(rows, start)}
        start += len(rows)
        for row in range(table.source_rows):
            at = here.get(row)
            number = -4 if at is None else int(side[at])
            line = {"file": table.source, "row": row, "group": None if at is None else names[at]}
            line["split"] = SIDES[number] if number >= 0 else "dropped"
            line["note"] = None if number >= 0 else NOTES[number]
            lines.append(line)
    kinds = [("file", pa.string()), ("row", pa.int64())]
    kinds += [(name, pa.string()) for name in ("split", "group", "note")]
    return pa.Table.from_pylist(lines, schema=pa.schema(kinds))


NOTES = {
    -1: "its task or class is too small",
    -2: "a copy of another row",
    -3: "its task or class is too small",
    -4: "has no text or no label",
}
