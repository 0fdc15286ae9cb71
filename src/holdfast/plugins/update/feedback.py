"""Feedback from a file or a store, as rows in the columns of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from holdfast.core.errors import DataError
from holdfast.core.records import Decision
from holdfast.data.columns.roles import named_columns
from holdfast.data.raw import Raw, source_path
from holdfast.data.source import refuse_missing
from holdfast.data.table import Columns
from holdfast.plugins.labelling.labels import resolve_labels

if TYPE_CHECKING:
    import pyarrow as pa

    from holdfast.plugins.store.records import Feedback

Bools = npt.NDArray[np.bool_]
# Optional columns of a feedback file, and their values.
SOURCE, DRAWN = "source", "drawn"
MODEL, UNIFORM = "model", "uniform"


@dataclass(frozen=True, slots=True, eq=False)
class FeedbackRows:
    """Feedback: ``rows`` [n] with the columns of the run (every cell a text, as in its source),
    ``model_labelled`` [n] whether a model gave the label, ``uniform`` [n] whether the row was drawn
    uniformly at random (``None`` where this is not recorded), ``ids`` [n] in the store (−1 for a
    file).

    ``unusable`` counts what cannot be used for training: labels of rows whose text was not stored,
    and labels that were replaced. ``disagreed`` counts rows on which annotators disagree. ``known``
    are all ids of feedback that the store still has; ``None`` for a file, which does not record
    deletions.
    """

    rows: pa.Table
    where: str
    model_labelled: Bools
    uniform: Bools | None
    ids: npt.NDArray[np.int64]
    unusable: Mapping[str, int]
    known: frozenset[int] | None = None
    decisions: tuple[Decision, ...] = ()
    disagreed: int = 0

    def __len__(self) -> int:
        return int(self.rows.num_rows)


def is_store(where: str) -> bool:
    """Whether ``where`` names a store: a URL, or an SQLite file."""
    from holdfast.data.database_url import is_url

    if is_url(where):
        return True
    path = source_path(where)
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(16) == b"SQLite format 3\0"


def read_feedback(
    where: str, columns: Columns, raw: Raw, read: Callable[[str], Raw]
) -> FeedbackRows:
    """Read the feedback of a file or a store. ``raw`` is the run's own source, and ``columns`` are
    the roles of its columns; ``read`` reads a file as the task does.

    Raises ``DataError`` where a file lacks the run's columns, ``StoreError`` where a store cannot
    be reached.
    """
    if is_store(where):
        return _read_store(where, columns, raw)
    refuse_missing(where)
    return _read_file(where, columns, raw, read(where))


def _read_file(where: str, columns: Columns, raw: Raw, source: Raw) -> FeedbackRows:
    table, decisions = source.table, []
    needed = [*text_names(columns), *([columns.label] if columns.label else [])]
    for name, usual in _usual_names(columns):
        if name not in table.column_names and usual in table.column_names:
            table = table.rename_columns([name if c == usual else c for c in table.column_names])
            decisions.append(
                Decision("column", f"{usual} as {name}", "the run's name for this column")
            )
    lacking = [name for name in needed if name not in table.column_names]
    if lacking:
        rule = f"has no column {lacking[0]!r}, which the run needs"
        remedy = f"Give rows with the columns {', '.join(needed)}."
        raise DataError(where, rule, ", ".join(source.names), remedy)
    n = table.num_rows

    def mask_where(column: str, word: str) -> Bools | None:
        """Where the feedback's own ``column`` equals ``word``; ``None`` where the column is
        missing."""
        if column not in table.column_names or column in raw.names:
            return None
        cells = table[column].to_pylist()
        return np.array([str(one or "").strip().lower() == word for one in cells], dtype=bool)

    model_labelled, uniform = mask_where(SOURCE, MODEL), mask_where(DRAWN, UNIFORM)
    model_labelled = np.zeros(n, dtype=bool) if model_labelled is None else model_labelled
    rows, ids = with_columns(table, raw.names), np.full(n, -1, dtype=np.int64)
    return FeedbackRows(rows, where, model_labelled, uniform, ids, {}, None, tuple(decisions))


def with_columns(rows: pa.Table, names: Sequence[str]) -> pa.Table:
    """The rows with the columns of a run; missing columns are empty."""
    import pyarrow as pa

    missing = pa.nulls(rows.num_rows, pa.string())
    there = rows.column_names
    return pa.table({name: rows[name] if name in there else missing for name in names})


def text_names(columns: Columns) -> tuple[str, ...]:
    """The columns that a text is made of."""
    return (named_columns(columns.template) if columns.template else None) or columns.text


def _usual_names(columns: Columns) -> list[tuple[str, str]]:
    """Pairs of the run's column names and the default names that a file may use for them."""
    texts = text_names(columns)
    pairs = [(columns.label, "label"), *([(texts[0], "text")] if len(texts) == 1 else [])]
    return [(name, usual) for name, usual in pairs if name is not None and name != usual]


def _read_store(where: str, columns: Columns, raw: Raw) -> FeedbackRows:
    import pyarrow as pa

    from holdfast.plugins.store.store import open_store

    all_feedback: list[Feedback] = []
    with closing(open_store(where)) as store:
        while more := store.feedback(after=all_feedback[-1].id or 0 if all_feedback else 0):
            all_feedback += more
        final_labels = resolve_labels(all_feedback)
        feedback, name = final_labels.labels, store.name
        texts = {
            (request.id, one.index): one.row
            for request in store.requests_by_id(one.request for one in feedback if one.row is None)
            for one in request.texts
        }
    lines, used = [], []
    for one in feedback:
        row = one.row if one.row is not None else texts.get((one.request, one.index))
        line = None if row is None else _labelled_row(row, one.label, columns)
        if line is not None:
            lines.append(line)
            used.append(one)
    cells = {
        column: pa.array([_cell_text(line.get(column)) for line in lines], pa.string())
        for column in raw.names
    }
    unusable = {"replaced": final_labels.replaced, "no_text": len(feedback) - len(used)}
    model_labelled = np.array([one.source == MODEL for one in used], dtype=bool)
    # Annotators who have seen the model's prediction are biased towards it.
    uniform = np.array([x.drawn == UNIFORM and x.suggestion != "seen" for x in used], dtype=bool)
    ids = np.array([-1 if one.id is None else one.id for one in used], dtype=np.int64)
    known = frozenset(one.id for one in all_feedback if one.id is not None)
    rows = pa.table(cells)
    return FeedbackRows(
        rows, name, model_labelled, uniform, ids, unusable, known, disagreed=final_labels.disagreed
    )


def _labelled_row(row: Mapping[str, Any], label: Any, columns: Columns) -> dict[str, Any] | None:
    """A row of a request with its label in the run's columns; ``None`` where it lacks one of them.

    A conversation is a list of turns in the column of the text, whatever that was in the request;
    where the run has no column of answers, the label is its last turn.
    """
    names = text_names(columns)
    line = dict(row)
    if not all(name in row for name in names):
        # A language model's service calls a prompt so, and several turns ``messages``.
        prompt = row.get("messages", row.get("prompt"))
        if prompt is None:
            return None
        line = {names[0]: prompt}
    if columns.label is None:
        prompt = line[names[0]]
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        return {**line, names[0]: [*turns, {"role": "assistant", "content": label}]}
    separator = columns.label_separator
    if separator is not None and isinstance(label, list):
        # Only separators: no label. An empty cell would be a missing one.
        label = separator.join(label) or separator
    return {**line, columns.label: label}


def _cell_text(value: object) -> str | None:
    """A cell as it would be written in a file."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (list, dict, tuple)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def append_event(
    where: str | None, event_type: str, body: Mapping[str, Any], at: float, *, once: bool = False
) -> None:
    """Append an event to the store, where the feedback is a store; with ``once`` only if it is not
    among the newest events already."""
    from holdfast.plugins.store.records import Event
    from holdfast.plugins.store.store import open_store

    if where is None or not is_store(where):
        return
    with closing(open_store(where)) as store:
        known = store.newest_events() if once else []
        if all((one.kind, dict(one.body)) != (event_type, dict(body)) for one in known):
            store.append(Event(event_type, at, body))
