"""Rows and treatments in, rows and the log of every change out; and the way back.

``choose`` puts what was asked for into its order, ``texts_treated`` is all that may be done to rows
of any side, and ``treat_side`` does everything to one side or to a file.

A line of the log is a JSON object: ``{"row": 3, "treatment": "encoding", "column": "text",
"before": "cafÃ©", "after": "café", "why": "…"}``. Where a whole row was left out ``column`` and
``after`` are null and ``before`` holds its cells; where personal data were taken out both are null,
and ``"reversible": false``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import DataError, RecipeError
from holdfast.quality.clean import all_treatments
from holdfast.quality.clean.treatment import (
    Change,
    RowSet,
    RowTreatment,
    S,
    TableTreatment,
    Treatment,
    settle,
)

# A text that changes for ever has two treatments that undo each other; none have been seen.
MOST_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class CleaningPlan:
    """Treatments with their settings, in the order in which they are applied."""

    row: tuple[tuple[RowTreatment[Any], Any], ...] = ()
    table: tuple[tuple[TableTreatment[Any], Any], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*(one.name for one, _ in self.row), *(one.name for one, _ in self.table))

    def of_answers(self) -> CleaningPlan:
        """Those that texts to be written are treated by as well."""
        return CleaningPlan(tuple(pair for pair in self.row if pair[0].answers))


def choose(asked: Mapping[str, Mapping[str, object] | bool]) -> CleaningPlan:
    """The treatments of ``treat: {NAME: {SETTING: …} | true | false}``.

    Raises ``RecipeError`` for a name or a setting that does not exist.
    """
    known = all_treatments()
    for name in asked:
        if name not in known:
            remedy = suggest_name(name, list(known))
            raise RecipeError("treat", "names an unknown treatment", name, remedy)
    chosen = sorted((known[name] for name in asked if asked[name] is not False), key=_order)
    plan = [(one, settle(one, asked[one.name])) for one in chosen]
    return CleaningPlan(
        tuple((one, given) for one, given in plan if isinstance(one, RowTreatment)),
        tuple((one, given) for one, given in plan if isinstance(one, TableTreatment)),
    )


def _order(treatment: Treatment) -> int:
    return treatment.order


def _steps(text: str, chosen: CleaningPlan) -> Iterator[tuple[RowTreatment[Any], str, str]]:
    """Each change of a text by the row treatments: which, the text before and after it. They are
    repeated until nothing changes. A text of which nothing would be left stays as it is."""
    for _ in range(MOST_ROUNDS):
        start = text
        for treatment, settings in chosen.row:
            after = treatment.text(text, settings)
            if after != text and after.strip():
                yield treatment, text, after
                text = after
        if text == start:
            break


def treated(text: str, chosen: CleaningPlan) -> tuple[str, tuple[str, ...]]:
    """The text after all row treatments, and which of them changed it."""
    by: dict[str, None] = {}
    for treatment, _, after in _steps(text, chosen):
        text, by[treatment.name] = after, None
    return text, tuple(by)


def texts_treated(values: pa.Array | pa.ChunkedArray, chosen: CleaningPlan) -> dict[int, Any]:
    """Of an Arrow column of texts, those that change: position → the text after it and the names
    of the treatments. Texts that no pattern of a treatment matches are never looked at."""
    may = positions_that_may(values, chosen)
    found = {}
    for position, text in zip(may, values.take(pa.array(may, pa.int64())).to_pylist(), strict=True):
        after, names = treated(text, chosen)
        if after != text:
            found[position] = (after, names)
    return found


def positions_that_may(values: pa.Array | pa.ChunkedArray, chosen: CleaningPlan) -> list[int]:
    """Where a text is that one of the treatments might change."""
    if not chosen.row or not len(values):
        return []
    pattern = "|".join(f"(?:{treatment.seen})" for treatment, _ in chosen.row)
    seen = pc.fill_null(pc.match_substring_regex(values, pattern), False)
    found: list[int] = pc.indices_nonzero(seen).to_pylist()
    return found


def count_unread(
    texts: Iterable[str | None], chosen: CleaningPlan, counts: dict[str, Counter[str]]
) -> None:
    """Add to ``counts`` how many texts each treatment leaves alone without a look, by why."""
    asked = [(one.name, one.unread) for one, _ in chosen.row if one.unread is not None]
    for text in texts if asked else ():
        for name, unread in asked:
            if text and (why := unread(text)):
                counts.setdefault(name, Counter())[why] += 1


def unread_words(counts: Mapping[str, int]) -> str:
    """``not looked at: 3 (no capital letter), 1 (a program)``."""
    return "not looked at: " + ", ".join(f"{n:,} ({why})" for why, n in sorted(counts.items()))


def treat_side(
    side: RowSet, chosen: CleaningPlan, targets: Sequence[str] = ()
) -> tuple[RowSet, list[Change]]:
    """The rows of one side after every treatment, and the changes in the order in which they were
    made.

    ``targets`` are columns of texts to be written. Rows keep the numbers that they have in
    ``side.rows``, so that the treated side may be treated again.
    """
    changes: list[Change] = []
    columns = {name: list(cells) for name, cells in side.columns.items()}
    for names, treatments in ((side.text, chosen), (targets, chosen.of_answers())):
        for name in names:
            changes += _treat_column(side, name, columns[name], treatments)
    secret = {(change.row, change.column) for change in changes if not change.reversible}
    # A cell that held a secret shows it in what other treatments made of it, too.
    changes = [_withheld(one) if (one.row, one.column) in secret else one for one in changes]
    now = replace(side, columns=columns)
    for treatment, settings in chosen.table:
        now, more = _treat_table(now, treatment, settings)
        changes += more
    return now, changes


def _treat_column(
    side: RowSet, name: str, cells: list[str | None], chosen: CleaningPlan
) -> list[Change]:
    changes = []
    for position in positions_that_may(pa.array(cells, pa.string()), chosen):
        steps = list(_steps(str(cells[position]), chosen))
        # What was changed and changed back is no change.
        if not steps or steps[-1][2] == cells[position]:
            continue
        cells[position] = steps[-1][2]
        for one, before, after in steps:
            change = Change(side.rows[position], one.name, name, before, after, one.because)
            changes.append(_withheld(change) if one.hides else change)
    return changes


def _withheld(change: Change) -> Change:
    return replace(change, before=None, after=None, reversible=False)


def _treat_table(
    side: RowSet, treatment: TableTreatment[S], settings: S
) -> tuple[RowSet, list[Change]]:
    columns = {name: list(cells) for name, cells in side.columns.items()}
    changes, gone = [], set()
    for edit in treatment.edits(side, settings):
        row = side.rows[edit.position]
        if edit.column is None:
            gone.add(edit.position)
            record = side.record(edit.position)
            changes.append(Change(row, treatment.name, None, record, None, edit.because))
            continue
        cells = columns.setdefault(edit.column, [None] * len(side))
        before, cells[edit.position] = cells[edit.position], edit.after
        changes.append(Change(row, treatment.name, edit.column, before, edit.after, edit.because))
    kept = [n for n in range(len(side)) if n not in gone]
    return replace(
        side,
        rows=[side.rows[n] for n in kept],
        columns={name: [cells[n] for n in kept] for name, cells in columns.items()},
    ), changes


# In the order of a ``Change``.
_KEYS = ("row", "treatment", "column", "before", "after", "why")


def line(change: Change) -> str:
    """One line of the log, without its end."""
    written = asdict(change)
    written["why"] = written.pop("because")
    if not written.pop("reversible"):
        written["reversible"] = False
    return json.dumps(written, ensure_ascii=False)


def read_log(lines: Iterable[str], where: str = "the log") -> list[Change]:
    """The changes of a log.

    Raises ``DataError`` for a line that is none.
    """
    changes = []
    for number, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            found = json.loads(text)
        except ValueError as error:
            raise _no_line(where, number) from error
        if (
            not isinstance(found, dict)
            or not found.keys() >= {*_KEYS}
            or type(found["row"]) is not int
        ):
            raise _no_line(where, number)
        change = Change(*(found[key] for key in _KEYS))
        changes.append(replace(change, reversible=found.get("reversible", True)))
    return changes


def _no_line(where: str, number: int) -> DataError:
    return DataError(
        f"{where}, line {number}",
        "is no change of a row",
        None,
        "Give the file of changes that was written beside the treated one.",
    )


@dataclass(frozen=True, slots=True)
class Reverted:
    """The rows as they were, but for the cells ``lost`` (row, column): what stood there was
    personal and was not written down."""

    side: RowSet
    lost: tuple[tuple[int, str], ...]


def revert(side: RowSet, changes: Sequence[Change]) -> Reverted:
    """Undo the changes, the last first. ``side.rows`` are counted as the treated file has them: 0
    to n − 1.

    Raises ``DataError`` where a cell is not what the log says that it became: the file was changed
    since.
    """
    gone = {change.row: change.before for change in changes if change.column is None}
    kept = _numbers(len(side), gone)
    at = {row: position for position, row in enumerate(kept)}
    columns = {name: list(cells) for name, cells in side.columns.items()}
    lost: dict[tuple[int, str], None] = {}
    # Columns that the source did not have, which only the counting of copies adds: nothing stood in
    # any of their cells.
    counted = [change for change in changes if change.treatment == "copies" and change.column]
    had = {change.column for change in counted if change.before is not None}
    added = {str(change.column) for change in counted} - had
    for change in reversed(changes):
        if change.column is None:
            continue
        if not change.reversible:
            lost[change.row, change.column] = None
            continue
        # The record of a row that went holds what it was when it went.
        cells = gone.get(change.row)
        if isinstance(cells, Mapping):
            now = cells.get(change.column)
        else:
            now = columns[change.column][at[change.row]] if change.row in at else None
        if now != change.after:
            raise DataError(
                f"row {change.row}, column {change.column!r}",
                "is not what the log of changes says",
                now,
                "Give the treated file as it was written, with its own log.",
            )
        if isinstance(cells, Mapping):
            gone[change.row] = {**cells, change.column: change.before}  # type: ignore[dict-item]
        else:
            columns[change.column][at[change.row]] = change.before  # type: ignore[assignment]
    rows = sorted([*kept, *gone])
    whole: dict[str, list[str | None]] = {
        name: [columns[name][at[row]] if row in at else _cell(gone[row], name) for row in rows]
        for name in columns
        if name not in added
    }
    return Reverted(replace(side, rows=rows, columns=whole), tuple(lost))


def _cell(record: object, name: str) -> str | None:
    value: str | None = record.get(name) if isinstance(record, Mapping) else None
    return value


def _numbers(count: int, gone: Container[int]) -> list[int]:
    """The rows of the source that the rows of a treated file are."""
    kept: list[int] = []
    row = 0
    while len(kept) < count:
        if row not in gone:
            kept.append(row)
        row += 1
    return kept
