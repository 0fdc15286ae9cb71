"""A table whose texts are treated row by row, the same whatever the side and whenever they come."""

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
    count_unread,
    positions_that_may,
    texts_treated,
    treated,
)

# Of a column: the position of a text that changes, the text after it, the treatments by name.
Changes = Mapping[int, tuple[str, tuple[str, ...]]]
_BATCH = 10_000
READ, WRITTEN, TURNS = ("text", "text_pair"), ("target",), "turns"


@dataclass(frozen=True, slots=True)
class Treated:
    """A table and what was done to it: ``counts`` texts by treatment, ``rows`` of the source whose
    texts changed, by treatment, at most a hundred each; ``unread`` texts by treatment and why it
    left them alone without a look."""

    table: Table
    counts: Mapping[str, int] = field(default_factory=dict)
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    unread: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def treat_table(table: Table, chosen: CleaningPlan) -> Treated:
    """The table with every text treated: what is read, and, by those treatments that are for them
    too, what is to be written (targets, answers, texts that are learned whole).

    In bounded memory; the table itself where no text changes.
    """
    if not chosen.row:
        return Treated(table)
    rows = table.rows.with_format("arrow")
    parts: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    listed: dict[str, list[int]] = {}
    unread: dict[str, Counter[str]] = {}
    for start in range(0, len(table), _BATCH):
        batch = rows[start : start + _BATCH]
        found = {
            name: _changes(batch, name, chosen)
            for name in (*READ, *WRITTEN, TURNS)
            if name in batch.column_names
        }
        parts.append(found)
        _count(batch, found, counts, listed)
        for name in READ:
            if name in batch.column_names:
                count_unread(batch[name].to_pylist(), chosen, unread)
    if not counts:
        return Treated(table, unread=unread)
    order = {name: place for place, name in enumerate(chosen.names)}
    names = sorted(counts, key=lambda name: order[name])
    written = write_batches("treated", rows[:0].schema, _written(rows, parts))
    return Treated(
        replace(table, rows=written),
        {name: counts[name] for name in names},
        {name: tuple(listed[name]) for name in names},
        unread,
    )


def _changes(batch: pa.Table, name: str, chosen: CleaningPlan) -> dict[int, Any]:
    if name == TURNS:
        return _turns(batch[name], chosen)
    if name in WRITTEN:
        return texts_treated(batch[name], chosen.of_answers())
    if name == READ[0] and TURNS in batch.column_names:
        # A text without turns is not asked but learned.
        whole = texts_treated(batch[name], chosen.of_answers())
        asked = texts_treated(batch[name], chosen)
        turns = batch[TURNS].to_pylist()
        keys = {*whole, *asked}
        both = {n: (whole if turns[n] in ("", "[]", None) else asked).get(n) for n in sorted(keys)}
        return {n: one for n, one in both.items() if one is not None}
    return texts_treated(batch[name], chosen)


def _turns(values: pa.ChunkedArray, chosen: CleaningPlan) -> dict[int, Any]:
    """Chats, as JSON: each turn by itself."""
    found = {}
    for position, cell in enumerate(values.to_pylist()):
        turns = json.loads(cell) if cell else []
        contents = [turn.get("content") for turn in turns]
        texts = pa.array([one if isinstance(one, str) else "" for one in contents], pa.string())
        names: dict[str, None] = {}
        for at in positions_that_may(texts, chosen):
            turn = turns[at]
            by = chosen.of_answers() if turn.get("role") == "assistant" else chosen
            after, done = treated(turn["content"], by)
            if after != turn["content"]:
                turns[at] = {**turn, "content": after}
                names |= dict.fromkeys(done)
        if names:
            found[position] = (json.dumps(turns), tuple(names))
    return found


def _count(
    batch: pa.Table,
    found: Mapping[str, Changes],
    counts: Counter[str],
    listed: dict[str, list[int]],
) -> None:
    # A text that stands in its chat as well is one text.
    by_row: dict[int, set[str]] = {}
    for changes in found.values():
        for position, (_, names) in changes.items():
            by_row.setdefault(position, set()).update(names)
    ids = batch["row"]
    for position in sorted(by_row):
        for name in by_row[position]:
            counts[name] += 1
            if len(listed.setdefault(name, [])) < 100:
                listed[name].append(ids[position].as_py())


def _written(rows: Any, parts: Sequence[Mapping[str, Changes]]) -> Iterator[pa.RecordBatch]:
    """The rows, which come in Arrow's form, with their changes."""
    for number, found in enumerate(parts):
        batch = rows[number * _BATCH : (number + 1) * _BATCH]
        for name, changes in found.items():
            if changes:
                cells = batch[name].to_pylist()
                for position, (after, _) in changes.items():
                    cells[position] = after
                place = batch.schema.get_field_index(name)
                one = pa.array(cells, pa.string())
                batch = batch.set_column(place, batch.schema.field(place), one)
        yield from batch.cast(rows[:0].schema).to_batches()
