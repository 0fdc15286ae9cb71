"""Is the model as good for every group of rows, and does it answer alike about everybody? The
sentences and tables of the report, and of ``holdfast fairness``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.report.numbers import count, estimate, interval, number, points, sentence
from holdfast.report.run_files import RunFiles

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
    axes = (block.get("swap") or {}).get("axes", [])
    changes = [one for one in axes if one["status"] == "changes"]
    told = [_gap(one) for one in groups["findings"]] + [_swap(one) for one in changes]
    told += _lacking(groups.get("to_add") or [])
    settled = [_small(one) for one in axes if one["status"] == "small"]
    return FairnessView(
        _answer(block, groups["findings"], changes),
        tuple(told + settled),
        tuple(_open(block)),
        tuple(_table(one) for one in groups["columns"]),
        tuple(_examples(changes)),
        _alarms(block.get("false_alarms") or {}),
    )


def _answer(block: Block, gaps: list[Block], changes: list[Block]) -> str:
    columns = [one["column"] for one in block["groups"]["columns"]]
    if gaps or changes:
        worse = [one for one in gaps if one["measure"] != RATE]
        other = [one for one in gaps if one["measure"] == RATE]
        parts = [f"its score differs between groups of rows ({_names(worse)})"] if worse else []
        if other and not worse:
            # Not a fault by itself: the labels of the groups may differ as much.
            parts = [f"groups of rows get some answers more often than others ({_names(other)})"]
        parts += [
            f"its predictions change with whom a text is about "
            f"({', '.join(one['axis'] for one in changes)})"
            for _ in changes[:1]
        ]
        return sentence(" and ".join(parts))
    looked = [f"groups of rows by {', '.join(columns)}"] if columns else []
    axes = (block.get("swap") or {}).get("axes", [])
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
    gap = estimate(one["gap"])
    measure = one["measure"]
    value = gap.value
    if value is None:
        shown = "an unknown amount"
    else:
        shown = number(abs(value)) if measure in NUMBERS else f"{100 * abs(value):.1f} points"
    where = "above" if (gap.value or 0) > 0 else "below"
    values = [_value(one["measure"], one.get(key)) for key in ("value", "value_others")]
    return sentence(
        f"{one['column']} {one['group']}: {_title(one)} {values[0]}, of the other rows "
        f"{values[1]}: {shown} {where} ({_span(one)}; {count(one['n'])} of "
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


def _value(measure: str, value: float | None) -> str:
    return number(value, "" if measure in NUMBERS else "accuracy")


def _span(one: Block) -> str:
    gap = estimate(one["gap"])
    shown = interval(gap, "" if one["measure"] in NUMBERS else "accuracy")
    return f"95 % interval {shown}" if shown else "no interval"


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


def _open(block: Block) -> list[str]:
    found = []
    for one in block["groups"]["undecided"]:
        more = _more(one.get("rows_to_settle"), "test rows would show a gap of 10 points")
        found.append(sentence(f"{one['column']} {one['group']}, {_title(one)}: inconclusive{more}"))
    for one in block["groups"]["small"]:
        more = _more(one.get("rows_to_settle"), "rows of it would show a gap of 10 points")
        found.append(
            sentence(f"{one['column']} {one['group']}: {one['valid_rows']} validation rows{more}")
        )
    for one in (block.get("swap") or {}).get("axes", []):
        if one["status"] == "undecided":
            more = _more(
                one.get("rows_to_settle"), "test rows would decide about a change of 2 points"
            )
            found.append(
                sentence(f"{one['axis']}, from {one['from']} to {one['to']}: inconclusive{more}")
            )
    return found


def _more(rows: object, what: str) -> str:
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


def _examples(changes: list[Block]) -> list[tuple[str, str, str]]:
    found = []
    for one in changes:
        for shown in one.get("examples", []):
            values = " → ".join(number(v, "accuracy") for v in shown["values"])
            found.append((shown["from"], shown["to"], values))
    return found


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
