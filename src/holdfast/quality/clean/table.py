"""Clean the texts of a table row by row, identically for every split and for new rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from holdfast.data.scratch import write_batches
from holdfast.data.table import Table
from holdfast.quality.clean.apply import (
    CleaningPlan,
    candidate_positions,
    clean_text,
    clean_texts,
    count_skipped,
)

# For a column: position of a changed text → the new text and the names of the steps.
Changes = Mapping[int, tuple[str, tuple[str, ...]]]
_BATCH = 10_000
INPUT_COLUMNS, OUTPUT_COLUMNS, TURNS = ("text", "text_pair"), ("target",), "turns"


@dataclass(frozen=True, slots=True)
class CleanedTable:
    """A cleaned table with a record of the changes: ``counts`` of changed texts by step, ``rows``
    of the source whose texts changed, by step (at most 100 each), and ``skipped`` texts by step and
    reason."""

    table: Table
    counts: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    skipped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def clean_table(table: Table, plan: CleaningPlan) -> CleanedTable:
    """The table with every text cleaned: inputs by all steps, target texts (targets, answers, texts
    without turns) by the steps that apply to them.

    It uses bounded memory and returns the table itself if no text changes.
    """
    if not plan.row:
        return CleanedTable(table)
    rows = table.rows.with_format("arrow")
    parts: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    rows_of_treatment: dict[str, list[int]] = {}
    skipped: dict[str, Counter[str]] = {}
    for start in range(0, len(table), _BATCH):
        batch = rows[start : start + _BATCH]
        changes_of_column = {
            name: _column_changes(batch, name, plan)
            for name in (*INPUT_COLUMNS, *OUTPUT_COLUMNS, TURNS)
            if name in batch.column_names
        }
        parts.append(changes_of_column)
        _count_changes(batch, changes_of_column, counts, rows_of_treatment)
        for name in INPUT_COLUMNS:
            if name in batch.column_names:
                count_skipped(batch[name].to_pylist(), plan, skipped)
    if not counts:
        return CleanedTable(table, skipped=skipped)
    order = {name: place for place, name in enumerate(plan.names)}
    names = sorted(counts, key=lambda name: order[name])
    written = write_batches("treated", rows[:0].schema, _changed_batches(rows, parts))
    return CleanedTable(
        replace(table, rows=written),
        {name: counts[name] for name in names},
        {name: tuple(rows_of_treatment[name]) for name in names},
        skipped,
    )


def _column_changes(batch: pa.Table, name: str, plan: CleaningPlan) -> dict[int, Any]:
    if name == TURNS:
        return _chat_changes(batch[name], plan)
    if name in OUTPUT_COLUMNS:
        return clean_texts(batch[name], plan.for_answers())
    if name == INPUT_COLUMNS[0] and TURNS in batch.column_names:
        # A text without turns is a target text, not an input.
        as_answer = clean_texts(batch[name], plan.for_answers())
        as_input = clean_texts(batch[name], plan)
        turns = batch[TURNS].to_pylist()
        keys = {*as_answer, *as_input}
        both = {
            n: (as_answer if turns[n] in ("", "[]", None) else as_input).get(n)
            for n in sorted(keys)
        }
        return {n: one for n, one in both.items() if one is not None}
    return clean_texts(batch[name], plan)


def _chat_changes(values: pa.ChunkedArray, plan: CleaningPlan) -> dict[int, Any]:
    """The changes of chats (JSON), cleaning each turn separately."""
    changed = {}
    for position, cell in enumerate(values.to_pylist()):
        turns = json.loads(cell) if cell else []
        contents = [turn.get("content") for turn in turns]
        texts = pa.array([one if isinstance(one, str) else "" for one in contents], pa.string())
        names: dict[str, None] = {}
        for at in candidate_positions(texts, plan):
            turn = turns[at]
            turn_plan = plan.for_answers() if turn.get("role") == "assistant" else plan
            after, applied = clean_text(turn["content"], turn_plan)
            if after != turn["content"]:
                turns[at] = {**turn, "content": after}
                names |= dict.fromkeys(applied)
        if names:
            changed[position] = (json.dumps(turns), tuple(names))
    return changed


def _count_changes(
    batch: pa.Table,
    changes_of_column: Mapping[str, Changes],
    counts: Counter[str],
    rows_of_treatment: dict[str, list[int]],
) -> None:
    # A text that is also in its chat counts once.
    by_row: dict[int, set[str]] = {}
    for changes in changes_of_column.values():
        for position, (_, names) in changes.items():
            by_row.setdefault(position, set()).update(names)
    ids = batch["row"]
    for position in sorted(by_row):
        for name in by_row[position]:
            counts[name] += 1
            if len(rows_of_treatment.setdefault(name, [])) < 100:
                rows_of_treatment[name].append(ids[position].as_py())


def _changed_batches(rows: Any, parts: Sequence[Mapping[str, Changes]]) -> Iterator[pa.RecordBatch]:
    """The rows, as Arrow batches, with their changes."""
    for number, changes_of_column in enumerate(parts):
        batch = rows[number * _BATCH : (number + 1) * _BATCH]
        for name, changes in changes_of_column.items():
            if changes:
                cells = batch[name].to_pylist()
                for position, (after, _) in changes.items():
                    cells[position] = after
                place = batch.schema.get_field_index(name)
                cell_array = pa.array(cells, pa.string())
                batch = batch.set_column(place, batch.schema.field(place), cell_array)
        yield from batch.cast(rows[:0].schema).to_batches()
