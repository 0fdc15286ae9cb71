"""The report section on fairness: whether the model is as good for every group of rows, and whether
its predictions depend on the person that a text is about. ``holdfast fairness`` prints it too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from holdfast.core.wording import about, count_phrase
from holdfast.report.document import Cell, Details, Document, DocumentTable, Items, Passage, Piece
from holdfast.report.numbers import count, estimate, first_two, interval, number, points, sentence
from holdfast.report.run_files import RunFiles
from holdfast.report.section import CLEAN, UNDECIDED, RelianceCheck, Section

Block = Mapping[str, Any]
# How a value that is not a rate is shown.
RATE = "positive rate"
# Measures that are not rates.
NUMBERS = ("loss", "absolute error", "error")
MAX_EXAMPLES = 3


def fairness(run: RunFiles) -> Document | None:
    """``None`` for a run that did not test fairness, or had nothing to compare."""
    block = run.part("fairness")
    document = as_document(block) if "groups" in block else None
    return document if document is not None and len(document.parts) > 1 else None


def as_document(block: Block) -> Document:
    """The block ``fairness`` of ``result.json``: the answer; then, where there are any, the
    findings, the texts with the largest change, the inconclusive comparisons, a table for each
    column, and the false alarm rate."""
    groups = block["groups"]
    axes: list[Block] = (block.get("swap") or {}).get("axes", [])
    changes = [one for one in axes if one["status"] == "changes"]
    findings = [*map(_gap, groups["findings"]), *map(_swap, changes)]
    findings += _missing_rows(groups.get("to_add") or [])
    findings += [_small(one) for one in axes if one["status"] == "small"]
    examples = [
        _example(example, "" if one["class"] is None else "accuracy")
        for one in changes
        for example in one.get("examples", [])
    ]
    inconclusive = _inconclusive_lines(groups, axes)
    tables = [_table(one) for one in groups["columns"] if one["groups"]]
    parts: list[Piece] = [Passage(_answer(groups, axes, changes), explained=True)]
    if findings:
        parts.append(Items(tuple(findings)))
    if examples:
        passages = tuple(passage for example in examples[:MAX_EXAMPLES] for passage in example)
        parts.append(Details("Texts with the largest change in prediction", passages))
    if inconclusive:
        title = "Inconclusive with these test rows"
        parts.append(Details(title, (Items(tuple(inconclusive)),)))
    parts += [Details(table.caption, (table,)) for table in tables]
    alarms = _alarms(block.get("false_alarms") or {})
    if alarms and len(parts) > 1:
        parts.append(Passage(alarms))
    return Document(tuple(parts))


def _example(one: Block, unit: str) -> tuple[Passage, ...]:
    values = " → ".join(number(value, unit) for value in one["values"])
    return Passage(one["from"], "user"), Passage(one["to"], "user"), Passage(values, "remark")


def _answer(groups: Block, axes: list[Block], changes: list[Block]) -> str:
    columns, gaps = [one["column"] for one in groups["columns"]], groups["findings"]
    if gaps or changes:
        worse = [one for one in gaps if one["measure"] != RATE]
        rate_gaps = [one for one in gaps if one["measure"] == RATE]
        parts = [f"its score differs between groups of rows ({_names(worse)})"] if worse else []
        if rate_gaps and not worse:
            # Not an error by itself: the labels of the groups may differ as much.
            parts = [f"some classes are predicted more often for some groups ({_names(rate_gaps)})"]
        if changes:
            axis_names = ", ".join(one["axis"] for one in changes)
            parts.append(f"its predictions change when a text names another group ({axis_names})")
        return sentence(" and ".join(parts))
    if not (columns or axes):
        return (
            "Not tested: no column defines groups of rows, and too few rows have a name, pronoun "
            "or country to swap (--set probes.fairness.insert=true adds such terms)."
        )
    undecided = [one["axis"] for one in axes if one["status"] == "undecided"]
    settled = [one["axis"] for one in axes if one["status"] != "undecided"]
    checked = [f"groups of rows by {', '.join(columns)}"] if columns else []
    checked += [f"texts with {', '.join(settled)} swapped"] if settled else []
    found = []
    if checked:
        found.append(f"no difference is shown on the test rows; tested: {'; '.join(checked)}")
    if undecided:
        found.append(f"inconclusive: texts with {', '.join(undecided)} swapped")
    return " ".join(map(sentence, found))


def _names(gaps: list[Block]) -> str:
    return ", ".join(dict.fromkeys(f"{one['column']}: {one['group']}" for one in gaps))


def _title(one: Block) -> str:
    return one["measure"] if one.get("class") is None else f"{one['measure']} of {one['class']}"


def _gap(one: Block) -> str:
    gap, rate = estimate(one["gap"]), one["measure"] not in NUMBERS
    shown = "an unknown amount"
    if gap.value is not None:
        size = abs(gap.value)
        shown = f"{100 * size:.1f} points" if rate else number(size)
    where = "above" if (gap.value or 0) > 0 else "below"
    unit = "accuracy" if rate else ""
    span = interval(gap, unit)
    return sentence(
        f"{one['column']} {one['group']}: {_title(one)} {number(one.get('value'), unit)}, other "
        f"rows {number(one.get('value_others'), unit)}: {shown} {where} "
        f"({f'95 % CI {span}' if span else 'no interval'}; {count(one['n'])} of "
        f"{count(one['n'] + one['others'])} test rows)"
    )


def _missing_rows(missing: list[Block]) -> list[str]:
    """The additional training rows that would make groups and classes independent, by column."""
    rows_by_column: dict[str, list[str]] = {}
    for one in missing:
        rows = f"{count(one['add'])} of {one['group']} with {one['class']}"
        rows_by_column.setdefault(one["column"], []).append(rows)
    return [
        sentence(
            f"{column}: every group of the training rows would have the same class shares with "
            f"these rows added: {', '.join(rows[:6])}{' and others' if len(rows) > 6 else ''}"
        )
        for column, rows in rows_by_column.items()
    ]


def _swap(one: Block) -> str:
    change = estimate(one["change"])
    about = "the prediction" if one["class"] is None else f"P({one['class']})"
    shown = number(change.value) if one["class"] is None else f"{points(change.value)} points"
    text = (
        f"{one['axis']}, from {one['from']} to {one['to']}: {about} changes by {shown} on average "
        f"(95 % CI {interval(change, '' if one['class'] is None else 'accuracy')}; "
        f"{count(one['rows'])} test rows"
    )
    if one.get("flipped"):
        text += f", {count(one['flipped']['rows'])} with another predicted class"
    start = estimate(one.get("start_model")) if one.get("start_model") else None
    base_words = f"; the base model's changes by {points(start.value)} points" if start else ""
    return sentence(f"{text}){base_words}")


def _small(one: Block) -> str:
    change = estimate(one["change"])
    return sentence(
        f"{one['axis']}, from {one['from']} to {one['to']}: P({one['class']}) changes by less than "
        f"2 points on average (95 % CI {interval(change, 'accuracy')}; "
        f"{count(one['rows'])} test rows)"
    )


def _inconclusive_lines(groups: Block, axes: list[Block]) -> list[str]:
    gap = "would be enough to show a gap of 10 points"
    lines = [
        f"{one['column']} {one['group']}, {_title(one)}: inconclusive"
        + _more(one, f"test rows {gap}")
        for one in groups["undecided"]
    ]
    lines += [
        f"{one['column']} {one['group']}: only {one['valid_rows']} validation rows"
        + _more(one, f"rows of this group {gap}")
        for one in groups["small"]
    ]
    lines += [
        f"{one['axis']}, from {one['from']} to {one['to']}: inconclusive on "
        f"{count_phrase(one['rows'], 'changed test row')}"
        + _more(one, "would decide on a change of 2 points")
        for one in axes
        if one["status"] == "undecided"
    ]
    return list(map(sentence, lines))


def _more(one: Block, what: str) -> str:
    rows = one.get("rows_to_settle")
    return f"; {about(rows)} {what}" if isinstance(rows, int) else ""


def _table(one: Block) -> DocumentTable:
    """A line for each measure with a cell for each group, since there may be many classes."""
    groups = [f"{name} ({count(value['rows'])} test rows)" for name, value in one["groups"].items()]
    by_measure = zip(*(values["measures"] for values in one["groups"].values()), strict=True)
    lines = tuple((_title(cells[0]), *map(_cell, cells)) for cells in by_measure)
    styles = ("term", *["group"] * len(groups))
    return DocumentTable(f"By {one['column']}", ("Measure", *groups), lines, styles, "region")


def _cell(one: Block) -> str | Cell:
    value = estimate(one)
    if value.value is None:
        return "–"
    unit = "" if one["measure"] in NUMBERS else "accuracy"
    return Cell(number(value.value, unit), interval(value, unit))


def _alarms(rates: Block) -> str:
    parts = []
    if rates.get("groups") is not None:
        parts.append(
            f"{number(rates['groups'], 'accuracy')} of {count(rates['groups_of'])} random groupings"
        )
    if rates.get("swap") is not None:
        parts.append(
            f"{number(rates['swap'], 'accuracy')} of {count(rates['swap_of'])} pairs of random "
            "word lists"
        )
    return sentence(f"False alarm rate: {' and '.join(parts)}") if parts else ""


def _differences(run: RunFiles) -> str | None:
    block = run.part("fairness")
    groups, axes = block.block("groups"), block.block("swap").blocks("axes")
    if "groups" not in block:
        return None
    gaps = groups.blocks("findings")
    changes = [str(one.get("axis")) for one in axes if one.get("status") == "changes"]
    parts = []
    if gaps:
        where = dict.fromkeys(f"{one.get('column')} {one.get('group')}" for one in gaps)
        parts.append(f"its score differs between groups of rows ({first_two(list(where))})")
    if changes:
        names = first_two(changes)
        parts.append(f"its predictions change when a text names another group ({names})")
    swaps_open = any(one.get("status") == "undecided" for one in axes)
    if not parts and (swaps_open or groups.blocks("undecided") or groups.blocks("small")):
        return UNDECIDED
    return " and ".join(parts) or (CLEAN if groups.get("columns") or axes else None)


SECTIONS = (
    Section(
        "fairness",
        "Fairness",
        fairness,
        reliance=RelianceCheck("differences between groups", _differences, rank=4),
    ),
)
