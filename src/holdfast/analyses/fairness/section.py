"""Is the model as good for every group of rows, and does it answer alike about everybody? The
sentences and tables of the report, and of ``holdfast fairness``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.report.numbers import count, estimate, first_two, interval, number, points, sentence
from holdfast.report.run_files import RunFiles
from holdfast.report.section import CLEAN, UNDECIDED, RelianceCheck, Section

Block = Mapping[str, Any]
# What is shown of a value that is no rate.
RATE = "positive rate"
NUMBERS = ("loss", "absolute error", "error")


@dataclass(frozen=True, slots=True)
class GroupTable:
    """One column: its ``groups`` with their numbers of test rows, and a line for each measure with
    a cell for each group. Classes may be many, and stand below one another."""

    column: str
    groups: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class FairnessView:
    """``answer`` is the one sentence; ``told`` what was found, ``open`` what could not be decided,
    each a line; ``alarms`` how often nothing is called something."""

    answer: str
    told: tuple[str, ...]
    open: tuple[str, ...]
    tables: tuple[GroupTable, ...]
    examples: tuple[tuple[str, str, str], ...]
    alarms: str


def fairness(run: RunFiles) -> FairnessView | None:
    """``None`` where the run was not asked, or nothing could be looked at."""
    block = run.part("fairness")
    if "groups" not in block:
        return None
    view = view_of(block)
    return view if view.told or view.open or view.tables else None


def view_of(block: Block) -> FairnessView:
    """The block ``fairness`` of ``result.json`` in words."""
    groups = block["groups"]
    axes: list[Block] = (block.get("swap") or {}).get("axes", [])
    changes = [one for one in axes if one["status"] == "changes"]
    told = [*map(_gap, groups["findings"]), *map(_swap, changes)]
    told += _lacking(groups.get("to_add") or [])
    told += [_small(one) for one in axes if one["status"] == "small"]
    examples = [
        (shown["from"], shown["to"], " → ".join(number(v, "accuracy") for v in shown["values"]))
        for one in changes
        for shown in one.get("examples", [])
    ]
    return FairnessView(
        _answer(groups, axes, changes),
        tuple(told),
        tuple(_open(groups, axes)),
        tuple(map(_table, groups["columns"])),
        tuple(examples),
        _alarms(block.get("false_alarms") or {}),
    )


def _answer(groups: Block, axes: list[Block], changes: list[Block]) -> str:
    columns, gaps = [one["column"] for one in groups["columns"]], groups["findings"]
    if gaps or changes:
        worse = [one for one in gaps if one["measure"] != RATE]
        other = [one for one in gaps if one["measure"] == RATE]
        parts = [f"its score differs between groups of rows ({_names(worse)})"] if worse else []
        if other and not worse:
            # Not a fault by itself: the labels of the groups may differ as much.
            parts = [f"groups of rows get some answers more often than others ({_names(other)})"]
        if changes:
            moved = ", ".join(one["axis"] for one in changes)
            parts.append(f"its predictions change with whom a text is about ({moved})")
        return sentence(" and ".join(parts))
    looked = [f"groups of rows by {', '.join(columns)}"] if columns else []
    looked += [f"texts with {', '.join(one['axis'] for one in axes)} swapped"] if axes else []
    if not looked:
        return (
            "There was nothing to look at: no column tells groups apart, and too few rows have "
            "a name, pronoun or country to swap (probes.fairness.insert=true puts some in)."
        )
    return sentence(f"no difference was confirmed on the test rows: {'; '.join(looked)}")


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
    kind = "accuracy" if rate else ""
    span = interval(gap, kind)
    return sentence(
        f"{one['column']} {one['group']}: {_title(one)} {number(one.get('value'), kind)}, of the "
        f"other rows {number(one.get('value_others'), kind)}: {shown} {where} "
        f"({f'95 % interval {span}' if span else 'no interval'}; {count(one['n'])} of "
        f"{count(one['n'] + one['others'])} test rows)"
    )


def _lacking(missing: list[Block]) -> list[str]:
    """Which training rows would make groups and classes independent, a line a column."""
    found: dict[str, list[str]] = {}
    for one in missing:
        rows = f"{count(one['add'])} of {one['group']} with {one['class']}"
        found.setdefault(one["column"], []).append(rows)
    return [
        sentence(
            f"{column}: classes would be as frequent in every group of the training rows with "
            f"these more: {', '.join(rows[:6])}{' and others' if len(rows) > 6 else ''}"
        )
        for column, rows in found.items()
    ]


def _swap(one: Block) -> str:
    change = estimate(one["change"])
    about = "the answer" if one["class"] is None else f"P({one['class']})"
    shown = number(change.value) if one["class"] is None else f"{points(change.value)} points"
    said = (
        f"{one['axis']}, from {one['from']} to {one['to']}: {about} changes by {shown} on average "
        f"(95 % interval {interval(change, '' if one['class'] is None else 'accuracy')}; "
        f"{count(one['rows'])} test rows"
    )
    if one.get("flipped"):
        said += f", {count(one['flipped']['rows'])} with another answer"
    start = estimate(one.get("start_model")) if one.get("start_model") else None
    begun = f"; the start model's own is {points(start.value)} points" if start else ""
    return sentence(f"{said}){begun}")


def _small(one: Block) -> str:
    change = estimate(one["change"])
    return sentence(
        f"{one['axis']}, from {one['from']} to {one['to']}: P({one['class']}) changes by less than "
        f"2 points on average (95 % interval {interval(change, 'accuracy')}; "
        f"{count(one['rows'])} test rows)"
    )


def _open(groups: Block, axes: list[Block]) -> list[str]:
    gap = "would show a gap of 10 points"
    found = [
        f"{one['column']} {one['group']}, {_title(one)}: inconclusive"
        + _more(one, f"test rows {gap}")
        for one in groups["undecided"]
    ]
    found += [
        f"{one['column']} {one['group']}: {one['valid_rows']} validation rows"
        + _more(one, f"rows of it {gap}")
        for one in groups["small"]
    ]
    found += [
        f"{one['axis']}, from {one['from']} to {one['to']}: inconclusive"
        + _more(one, "test rows would decide about a change of 2 points")
        for one in axes
        if one["status"] == "undecided"
    ]
    return list(map(sentence, found))


def _more(one: Block, what: str) -> str:
    rows = one.get("rows_to_settle")
    return f"; {count(rows)} {what}" if isinstance(rows, int) else ""


def _table(one: Block) -> GroupTable:
    groups = tuple((group, count(held["rows"])) for group, held in one["groups"].items())
    by_measure = zip(*(held["measures"] for held in one["groups"].values()), strict=True)
    lines = tuple((_title(cells[0]), tuple(map(_cell, cells))) for cells in by_measure)
    return GroupTable(one["column"], groups, lines)


def _cell(one: Block) -> str:
    value = estimate(one)
    if value.value is None:
        return "–"
    kind = "" if one["measure"] in NUMBERS else "accuracy"
    span = interval(value, kind)
    return f"{number(value.value, kind)} ({span})" if span else number(value.value, kind)


def _alarms(rates: Block) -> str:
    said = []
    if rates.get("groups") is not None:
        said.append(
            f"of {count(rates['groups_of'])} groupings at random "
            f"{number(rates['groups'], 'accuracy')} showed something"
        )
    if rates.get("swap") is not None:
        said.append(
            f"of {count(rates['swap_of'])} pairs of lists of random words "
            f"{number(rates['swap'], 'accuracy')} did"
        )
    return sentence(f"False alarms, measured: {'; '.join(said)}") if said else ""


def _differences(run: RunFiles) -> str | None:
    block = run.part("fairness")
    groups, axes = block.block("groups"), block.block("swap").blocks("axes")
    if "groups" not in block:
        return None
    gaps = groups.blocks("findings")
    changes = [str(one.get("axis")) for one in axes if one.get("status") == "changes"]
    said = []
    if gaps:
        where = dict.fromkeys(f"{one.get('column')} {one.get('group')}" for one in gaps)
        said.append(f"its score differs between groups of rows ({first_two(list(where))})")
    if changes:
        said.append(f"its predictions change with whom a text is about ({first_two(changes)})")
    if not said and any(one.get("status") == "inconclusive" for one in axes):
        return UNDECIDED
    return " and ".join(said) or (CLEAN if groups.get("columns") or axes else None)


SECTIONS = (
    Section(
        "fairness",
        "Is it fair?",
        fairness,
        "analyses/fairness/section.html.j2",
        reliance=RelianceCheck("differences between groups", _differences, rank=4),
    ),
)
