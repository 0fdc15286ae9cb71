"""Cleaning steps for the rows of a file: labels, missing cells, removed rows, boilerplate,
duplicates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from holdfast.core.decisions import decisions_to
from holdfast.core.errors import RecipeError
from holdfast.core.wording import count_phrase
from holdfast.data.labels.spelling import label_key, merge_spellings, missing_labels
from holdfast.data.texts.general import normal_text
from holdfast.duplicates.duplicates import find_duplicates
from holdfast.duplicates.normalise import PAIR_MARK
from holdfast.quality.clean.treatment import Edit, NoSettings, RowSet, TableTreatment, add_treatment


def unify_labels(row_set: RowSet, settings: NoSettings | None = None) -> Sequence[Edit]:
    """An edit for each label that differs from its class's most frequent spelling only in case or
    space."""
    if row_set.label is None:
        return ()
    labels = row_set.columns[row_set.label]
    with decisions_to(None):
        spelled = merge_spellings(Counter(one for one in labels if one and one.strip()))
    return [
        Edit(n, row_set.label, spelled[one], f"most rows write {spelled[one]!r}")
        for n, one in enumerate(labels)
        if one is not None and spelled.get(one, one) != one
    ]


add_treatment(TableTreatment("labels", NoSettings, unify_labels, order=70))


@dataclass(frozen=True, slots=True)
class FillMissing:
    """``text`` and ``label`` replace missing ones; without a value, the row is removed."""

    text: str = ""
    label: str = ""


def handle_missing(row_set: RowSet, settings: FillMissing) -> Sequence[Edit]:
    """An edit for each missing text, target and label (including ``N/A`` and the like)."""
    required = [(name, settings.text) for name in row_set.text]
    required += [(name, settings.label) for name in row_set.targets]
    required += [(row_set.label, settings.label)] if row_set.label is not None else []
    edits_of_row: dict[int, list[Edit]] = {}
    has_text = [row_set.any_text and any(map(str.strip, texts)) for texts in row_set.texts()]
    for name, value in required:
        cells = row_set.columns[name]
        missing_marks = missing_labels({c for c in cells if c}) if name == row_set.label else ()
        for n, cell in enumerate(cells):
            if name in row_set.text and has_text[n]:
                continue
            if cell is None or not cell.strip() or cell in missing_marks:
                column = name if value else None
                edits_of_row.setdefault(n, []).append(
                    Edit(n, column, value or None, f"{name!r} is missing")
                )
    # A removed row needs no filled cells.
    return [
        edit
        for edits in edits_of_row.values()
        for edit in ([e for e in edits if e.column is None][:1] or edits)
    ]


add_treatment(
    TableTreatment(
        "missing",
        FillMissing,
        handle_missing,
        order=75,
        fixes=("missing_text", "missing_label", "missing_source", "missing_target"),
    )
)


@dataclass(frozen=True, slots=True)
class DropRows:
    """``drop``: rows of the source, counted from 0, as findings list them."""

    drop: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for row in self.drop:
            if type(row) is not int or row < 0:
                rule = "is not a row number, counted from 0"
                raise RecipeError("clean.rows.drop", rule, row, "Use the row numbers of a finding.")


def drop_rows(row_set: RowSet, settings: DropRows) -> Sequence[Edit]:
    """An edit for each listed row that exists."""
    dropped = set(settings.drop)
    return [
        Edit(n, None, None, "is listed in clean.rows.drop")
        for n, row in enumerate(row_set.rows)
        if row in dropped
    ]


add_treatment(TableTreatment("rows", DropRows, drop_rows, order=65, trains=True))


_LEAST_ROWS, _SHARE, LEAST_WORDS = 20, 0.01, 5
_MOST_LINES = 10
_FIRST = re.compile(r"\s*([^\n]*?[.!?](?=\s)|[^\n]+)")
_LAST = re.compile(r"(?:[.!?\"')\]]\s+|\n)([^\n.!?]+[.!?]*)\s*\Z")


def first_line(text: str) -> str | None:
    """The first sentence or line of a text; ``None`` if it is short or the complete text."""
    match = _FIRST.match(text)
    return _if_long(match[1], text) if match else None


def last_line(text: str) -> str | None:
    """The last sentence or line of a text; ``None`` if it is short or the complete text."""
    # Only the end is searched: the pattern takes time quadratic in the length of the text.
    match = _LAST.search(text[-400:])
    return _if_long(match[1], text) if match else None


def _if_long(line: str, text: str) -> str | None:
    line = " ".join(line.split())
    full_text = " ".join(text.split()) if len(text) < 2 * len(line) else ""
    return line if len(line.split()) >= LEAST_WORDS and line != full_text else None


def remove_boilerplate(row_set: RowSet, settings: NoSettings | None = None) -> Sequence[Edit]:
    """An edit for each text that begins or ends with a sentence of five words or more that at least
    20 texts and 1 % of them share (``shared_lines``). It repeats, because signatures have several
    lines."""
    edits = []
    for name in row_set.text:
        before = [cell or "" for cell in row_set.columns[name]]
        current = before
        for _ in range(_MOST_LINES):
            last = current
            for at_end in (False, True):
                for line, positions in shared_lines(current, len(current), at_end).items():
                    edge = _edge(line, at_end)
                    found = set(positions)
                    current = [
                        edge.sub("", text) if n in found else text for n, text in enumerate(current)
                    ]
            if current == last:
                break
        edits += [
            Edit(n, name, text, "began or ended with a sentence that many texts share")
            for n, text in enumerate(current)
            if text != before[n]
        ]
    return edits


def shared_lines(texts: Sequence[str], rows: int, at_end: bool) -> dict[str, list[int]]:
    """The sentences that begin (or end) at least 20 of the different ``texts`` and 1 % of the
    ``rows``, the most frequent ones first, each with the positions of all texts that begin (or end)
    with it, also where nothing separates it from the rest."""
    line = last_line if at_end else first_line
    members: dict[str, set[str]] = {}
    for text in texts:
        if (one := line(text)) is not None:
            members.setdefault(one, set()).add(text)
    least = max(_LEAST_ROWS, _SHARE * rows)
    frequent = [one for one, own in members.items() if len(own) >= least]
    # One pass over the texts, whose spaces may differ.
    plain = [" ".join(text.split()) for text in texts] if frequent else []
    found = {
        one: [n for n, text in enumerate(plain) if _has_edge(text, one, at_end)] for one in frequent
    }
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def _has_edge(text: str, line: str, at_end: bool) -> bool:
    """Whether a longer text begins or ends with a line, and not within a word."""
    if len(text) == len(line):
        return False
    if at_end:
        return text.endswith(line) and not text[-len(line) - 1].isalnum()
    return text.startswith(line) and not text[len(line)].isalnum()


def _edge(line: str, at_end: bool) -> re.Pattern[str]:
    """Matches a line at the end (or the beginning) of a text."""
    pattern = r"\s+".join(map(re.escape, line.split()))
    return re.compile(rf"(?<!\w)\s*{pattern}\s*\Z" if at_end else rf"\A\s*{pattern}(?!\w)\s*")


add_treatment(
    TableTreatment("boilerplate", NoSettings, remove_boilerplate, order=80, fixes=("boilerplate",))
)


@dataclass(frozen=True, slots=True)
class DropCopies:
    """``same``: which texts are duplicates. ``written``: texts that are equal character for
    character; ``normal``: also texts that differ only in case, space and punctuation; ``near``:
    also verified near-duplicates. ``count`` names a new column with the number of rows that each
    kept row represents, so that its weight is not lost."""

    same: str = "written"
    count: str = ""

    def __post_init__(self) -> None:
        from holdfast.core.errors import RecipeError

        if self.same not in ("written", "normal", "near"):
            rule = "is not one of the known values"
            raise RecipeError("clean.copies.same", rule, self.same, "Use written, normal or near.")


def drop_copies(row_set: RowSet, settings: DropCopies) -> Sequence[Edit]:
    """An edit for each row that duplicates an earlier row with the same label and targets."""
    first: dict[Hashable, int] = {}
    copy_counts: dict[int, int] = {}
    before = _weights(row_set, settings.count)
    edits = []
    for n, key in enumerate(_keys(row_set, settings.same)):
        first_row = first.setdefault(key, n)
        copy_counts[first_row] = copy_counts.get(first_row, 0) + before[n]
        if first_row != n:
            edits.append(Edit(n, None, None, f"duplicates row {row_set.rows[first_row]}"))
    if settings.count:
        edits += [
            Edit(n, settings.count, str(count), f"represents {count_phrase(count, 'row')}")
            for n, count in copy_counts.items()
            if settings.count not in row_set.columns or count != before[n]
        ]
    return edits


def _weights(row_set: RowSet, column: str) -> list[int]:
    """How many rows each row already represents, if duplicates were removed before."""
    cells = row_set.columns.get(column) or [None] * len(row_set)
    return [int(cell) if cell and cell.isdecimal() else 1 for cell in cells]


def _keys(row_set: RowSet, same: str) -> Sequence[Hashable]:
    labels = row_set.columns[row_set.label] if row_set.label is not None else [None] * len(row_set)
    targets = [row_set.columns[name] for name in row_set.targets]
    known = [
        (None if label is None else label_key(label), *target)
        for label, *target in zip(labels, *targets, strict=True)
    ]
    texts = row_set.texts()
    if same == "written":
        return list(zip(texts, known, strict=True))
    if same == "normal":
        return [(*map(normal_text, text), key) for text, key in zip(texts, known, strict=True)]
    groups = find_duplicates([f" {PAIR_MARK} ".join(text) for text in texts], seed=0).groups
    return list(zip(groups.tolist(), known, strict=True))


add_treatment(
    TableTreatment(
        "copies", DropCopies, drop_copies, order=90, fixes=("exact_duplicates",), trains=True
    )
)
