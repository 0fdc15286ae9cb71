"""Clean rows and log every change.

``plan_cleaning`` orders the requested steps. ``clean_texts`` applies the steps that are allowed on
rows of any split. ``clean_rows`` applies every step to one split or to a file.

A line of the log is a JSON object: ``{"row": 3, "treatment": "encoding", "column": "text",
"before": "cafÃ©", "after": "café", "why": "…"}``. If a row was removed, ``column`` and ``after``
are null and ``before`` holds its cells. If personal data was removed, ``before`` and ``after`` are
null and ``"reversible"`` is false.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from holdfast.core.discovery import suggest_name
from holdfast.core.errors import RecipeError
from holdfast.quality.clean import all_treatments
from holdfast.quality.clean.treatment import (
    Change,
    RowSet,
    S,
    TableTreatment,
    TextTreatment,
    Treatment,
    parse_settings,
)

# A text would change for ever if two steps undid each other; this has not been observed.
MAX_ROUNDS = 8


@dataclass(frozen=True, slots=True)
class CleaningPlan:
    """Cleaning steps with their settings, in the order in which they are applied."""

    row: tuple[tuple[TextTreatment[Any], Any], ...] = ()
    table: tuple[tuple[TableTreatment[Any], Any], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return (*(one.name for one, _ in self.row), *(one.name for one, _ in self.table))

    def for_answers(self) -> CleaningPlan:
        """The steps that also clean target texts (answers)."""
        return CleaningPlan(tuple(pair for pair in self.row if pair[0].answers))


def plan_cleaning(settings: Mapping[str, Mapping[str, object] | bool]) -> CleaningPlan:
    """The cleaning steps of ``treat: {NAME: {SETTING: …} | true | false}``.

    Raises ``RecipeError`` for a name or a setting that does not exist.
    """
    known = all_treatments()
    for name in settings:
        if name not in known:
            remedy = suggest_name(name, list(known))
            raise RecipeError("clean", "names an unknown cleaning step", name, remedy)
    treatments = sorted(
        (known[name] for name in settings if settings[name] is not False), key=_order
    )
    plan = [(one, parse_settings(one, settings[one.name])) for one in treatments]
    return CleaningPlan(
        tuple((one, given) for one, given in plan if isinstance(one, TextTreatment)),
        tuple((one, given) for one, given in plan if isinstance(one, TableTreatment)),
    )


def _order(treatment: Treatment) -> int:
    return treatment.order


def _cleaning_steps(text: str, plan: CleaningPlan) -> Iterator[tuple[TextTreatment[Any], str, str]]:
    """Each change of a text by the text steps: the step, and the text before and after it. The
    steps repeat until nothing changes. A step that would leave an empty text is skipped."""
    for _ in range(MAX_ROUNDS):
        start = text
        for treatment, settings in plan.row:
            after = treatment.text(text, settings)
            if after != text and after.strip():
                yield treatment, text, after
                text = after
        if text == start:
            break


def clean_text(text: str, plan: CleaningPlan) -> tuple[str, tuple[str, ...]]:
    """The text after all text steps, and the names of the steps that changed it."""
    names: dict[str, None] = {}
    for treatment, _, after in _cleaning_steps(text, plan):
        text, names[treatment.name] = after, None
    return text, tuple(names)


def clean_texts(values: pa.Array | pa.ChunkedArray, plan: CleaningPlan) -> dict[int, Any]:
    """The texts of an Arrow column that change: position → the new text and the names of the steps.
    Texts that match no step's pattern are not read."""
    candidates = candidate_positions(values, plan)
    changed = {}
    for position, text in zip(
        candidates, values.take(pa.array(candidates, pa.int64())).to_pylist(), strict=True
    ):
        after, names = clean_text(text, plan)
        if after != text:
            changed[position] = (after, names)
    return changed


def candidate_positions(values: pa.Array | pa.ChunkedArray, plan: CleaningPlan) -> list[int]:
    """The positions of the texts that a step may change."""
    if not plan.row or not len(values):
        return []
    pattern = "|".join(f"(?:{treatment.pattern})" for treatment, _ in plan.row)
    matches = pc.fill_null(pc.match_substring_regex(values, pattern), False)
    positions: list[int] = pc.indices_nonzero(matches).to_pylist()
    return positions


def count_skipped(
    texts: Iterable[str | None], plan: CleaningPlan, counts: dict[str, Counter[str]]
) -> None:
    """Add to ``counts`` how many texts each step skips, by reason."""
    skipping = [(one.name, one.skip_reason) for one, _ in plan.row if one.skip_reason is not None]
    for text in texts if skipping else ():
        for name, unread in skipping:
            if text and (why := unread(text)):
                counts.setdefault(name, Counter())[why] += 1


def describe_skipped(counts: Mapping[str, int]) -> str:
    """The phrase ``skipped: 3 (no capital letter), 1 (a program)``."""
    return "skipped: " + ", ".join(f"{n:,} ({why})" for why, n in sorted(counts.items()))


def clean_rows(row_set: RowSet, plan: CleaningPlan) -> tuple[RowSet, list[Change]]:
    """The rows of one split after every cleaning step, and the changes in the order in which they
    were made.

    Rows keep the numbers that they have in ``row_set.rows``, so that the cleaned rows can be
    cleaned again.
    """
    changes: list[Change] = []
    columns = {name: list(cells) for name, cells in row_set.columns.items()}
    for names, treatments in ((row_set.text, plan), (row_set.targets, plan.for_answers())):
        for name in names:
            changes += _clean_column(row_set, name, columns[name], treatments)
    hidden_cells = {(change.row, change.column) for change in changes if not change.reversible}
    # The changes of other steps to a cell with a secret would show the secret too.
    changes = [
        _without_values(one) if (one.row, one.column) in hidden_cells else one for one in changes
    ]
    cleaned = replace(row_set, columns=columns)
    for treatment, settings in plan.table:
        cleaned, more = _clean_table(cleaned, treatment, settings)
        changes += more
    return cleaned, changes


def _clean_column(
    row_set: RowSet, name: str, cells: list[str | None], plan: CleaningPlan
) -> list[Change]:
    changes = []
    for position in candidate_positions(pa.array(cells, pa.string()), plan):
        steps = list(_cleaning_steps(str(cells[position]), plan))
        # A change that was reverted is not logged.
        if not steps or steps[-1][2] == cells[position]:
            continue
        cells[position] = steps[-1][2]
        for one, before, after in steps:
            change = Change(row_set.rows[position], one.name, name, before, after, one.because)
            changes.append(_without_values(change) if one.hides else change)
    return changes


def _without_values(change: Change) -> Change:
    return replace(change, before=None, after=None, reversible=False)


def _clean_table(
    row_set: RowSet, treatment: TableTreatment[S], settings: S
) -> tuple[RowSet, list[Change]]:
    columns = {name: list(cells) for name, cells in row_set.columns.items()}
    changes, removed = [], set()
    for edit in treatment.edits(row_set, settings):
        row = row_set.rows[edit.position]
        if edit.column is None:
            removed.add(edit.position)
            record = row_set.record(edit.position)
            changes.append(Change(row, treatment.name, None, record, None, edit.because))
            continue
        cells = columns.setdefault(edit.column, [None] * len(row_set))
        before, cells[edit.position] = cells[edit.position], edit.after
        changes.append(Change(row, treatment.name, edit.column, before, edit.after, edit.because))
    remaining = [n for n in range(len(row_set)) if n not in removed]
    return replace(
        row_set,
        rows=[row_set.rows[n] for n in remaining],
        columns={name: [cells[n] for n in remaining] for name, cells in columns.items()},
    ), changes


def log_line(change: Change) -> str:
    """One line of the log, without the line break."""
    written = asdict(change)
    written["why"] = written.pop("because")
    if not written.pop("reversible"):
        written["reversible"] = False
    return json.dumps(written, ensure_ascii=False)
