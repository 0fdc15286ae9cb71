"""Where it fails: slices that the test rows confirmed, those that they cannot decide, and hard rows
beside the training rows nearest to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.core.records import Estimate
from holdfast.report.numbers import compact, count, estimate, interval, number, p_value, plural
from holdfast.report.run_files import RunFiles

WRONG = "wrong"
SHOWN_TEXT = 300


@dataclass(frozen=True, slots=True)
class SliceLine:
    """One slice: its name, rows, what is bad in it with its interval, the same of all others."""

    name: str
    n: str
    value: str
    span: str
    rest: str
    note: str


@dataclass(frozen=True, slots=True)
class SlicesView:
    """The answer in a sentence, the confirmed slices, the undecided, the rate of false alarms."""

    sentence: str
    what: str
    test: str
    found: tuple[SliceLine, ...]
    undecided: tuple[SliceLine, ...]
    alarms: str


@dataclass(frozen=True, slots=True)
class Near:
    """A training row that is like a hard one."""

    row: str
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class HardRow:
    """A hard test row, what its neighbours let one suspect, and the neighbours."""

    row: str
    text: str
    label: str
    prediction: str
    because: str
    nearest: tuple[Near, ...]


def slices(run: RunFiles) -> SlicesView | None:
    """From ``slices`` of result.json; ``None`` where it was not asked."""
    block = run.part("slices")
    if "found" not in block:
        return None
    what = str(block.get("what") or WRONG)
    name = "error" if what == WRONG else ""
    found = tuple(_line(one, name, p_value(one.get("p_value"))) for one in block["found"])
    undecided = tuple(_line(one, name, str(one.get("because") or "")) for one in block["undecided"])
    test = "Fisher’s exact test" if what == WRONG else "permutation test"
    return SlicesView(_sentence(block, what), what, test, found, undecided, _alarms(block))


def hard_rows(run: RunFiles) -> tuple[HardRow, ...]:
    """From ``errors`` of result.json: hard rows that have neighbours or a word on them."""
    rows = run.records("errors", "hardest")
    return tuple(_hard(row) for row in rows if row.get("because"))


def _sentence(block: Mapping[str, Any], what: str) -> str:
    n, found = block.get("n_candidates") or 0, block["found"]
    if not n:
        return "On the validation rows no slice stands out: there was nothing to test."
    tested = f"{plural(n, 'slice')} of rows that stood out on the validation rows"
    if not found:
        return f"None of {tested} is proven to fail more often on the test rows."
    worst = found[0]
    value, rest = estimate(worst.get("value")), estimate(worst.get("rest"))
    told = f"Of {tested}, {len(found)} fail{'s' if len(found) == 1 else ''} on the test rows too. "
    if what != WRONG:
        return f"{told}The costliest: {worst['slice']}."
    return (
        f"{told}The costliest: {worst['slice']}, {number(value.value, 'error')} wrong against "
        f"{number(rest.value, 'error')} of the others."
    )


def _line(one: Mapping[str, object], name: str, note: str) -> SliceLine:
    value, rest = estimate(one.get("value")), estimate(one.get("rest"))
    return SliceLine(
        str(one.get("slice") or "–"),
        count(one.get("n")),
        _value(value, name),
        interval(value, name),
        _value(rest, name),
        note,
    )


def _value(value: Estimate, name: str) -> str:
    return number(value.value, name) if name else compact(value.value)


def _alarms(block: Mapping[str, object]) -> str:
    rate = block.get("false_alarm_rate")
    if not isinstance(rate, Mapping) or rate.get("value") is None:
        return ""
    told = estimate(rate)
    span = f" (95 % interval {ends})" if (ends := interval(told, "error")) else ""
    share = number(told.value, "error")
    return f"False alarms: a slice was confirmed in {share} of {rate.get('what')}{span}."


def _hard(row: Mapping[str, Any]) -> HardRow:
    return HardRow(
        str(row.get("row", "–")),
        _cut(row.get("text")),
        _cut(row.get("label")),
        _cut(row.get("prediction")),
        str(row.get("because") or ""),
        tuple(
            Near(str(one.get("row", "–")), _cut(one.get("label")), _cut(one.get("text")))
            for one in row.get("nearest") or ()
        ),
    )


def _cut(value: object) -> str:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    text = "" if value is None else str(value)
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]} …"
