"""Where it fails: slices that the test rows confirmed, those that they cannot decide, and hard rows
beside the training rows nearest to them."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.report.block import Block
from holdfast.report.numbers import count, estimate, interval, number, p_value, plural
from holdfast.report.run_files import RunFiles

WRONG = "wrong"
SHOWN_TEXT = 300


SliceLine = tuple[str, str, str, str, str, str]


@dataclass(frozen=True, slots=True)
class SlicesView:
    """The answer in a sentence, the confirmed slices, the undecided, the rate of false alarms. A
    slice is its name, its rows, what is bad in it and the interval, the same of all others, and a
    note."""

    sentence: str
    what: str
    test: str
    found: tuple[SliceLine, ...]
    undecided: tuple[SliceLine, ...]
    alarms: str


@dataclass(frozen=True, slots=True)
class HardRow:
    """A hard test row, what its neighbours let one suspect, and the neighbours: training rows, with
    their label and text."""

    row: str
    text: str
    label: str
    prediction: str
    because: str
    nearest: tuple[tuple[str, str, str], ...]


def slices(run: RunFiles) -> SlicesView | None:
    """From ``slices`` of result.json; ``None`` where it was not asked."""
    block = run.part("slices")
    if "found" not in block:
        return None
    what, found = block.text("what", WRONG), block.blocks("found")
    name = "error" if what == WRONG else ""
    return SlicesView(
        _sentence(block, found, what),
        what,
        "Fisher’s exact test" if what == WRONG else "permutation test",
        tuple(_line(one, name, p_value(one.get("p_value"))) for one in found),
        tuple(_line(one, name, one.text("because")) for one in block.blocks("undecided")),
        _alarms(block.block("false_alarm_rate")),
    )


def hard_rows(run: RunFiles) -> tuple[HardRow, ...]:
    """From ``errors`` of result.json: hard rows that have neighbours or a word on them."""
    return tuple(
        HardRow(
            str(row.get("row", "–")),
            _cut(row.get("text")),
            _cut(row.get("label")),
            _cut(row.get("prediction")),
            row.text("because"),
            tuple(
                (str(one.get("row", "–")), _cut(one.get("label")), _cut(one.get("text")))
                for one in row.blocks("nearest")
            ),
        )
        for row in run.part("errors").blocks("hardest")
        if row.get("because")
    )


def _sentence(block: Block, found: list[Block], what: str) -> str:
    n = block.get("n_candidates") or 0
    if not n:
        return "On the validation rows no slice stands out: there was nothing to test."
    tested = f"{plural(n, 'slice')} of rows that stood out on the validation rows"
    if not found:
        return f"None of {tested} is proven to fail more often on the test rows."
    worst = found[0]
    told = f"Of {tested}, {len(found)} fail{'s' if len(found) == 1 else ''} on the test rows too. "
    if what != WRONG:
        return f"{told}The costliest: {worst['slice']}."
    return (
        f"{told}The costliest: {worst['slice']}, {number(worst.estimate('value').value, 'error')} "
        f"wrong against {number(worst.estimate('rest').value, 'error')} of the others."
    )


def _line(one: Block, name: str, note: str) -> SliceLine:
    value = one.estimate("value")
    return (
        one.text("slice", "–"),
        count(one.get("n")),
        number(value.value, name),
        interval(value, name),
        number(one.estimate("rest").value, name),
        note,
    )


def _alarms(rate: Block) -> str:
    if rate.get("value") is None:
        return ""
    told = estimate(rate)
    span = f" (95 % interval {ends})" if (ends := interval(told, "error")) else ""
    share = number(told.value, "error")
    return f"False alarms: a slice was confirmed in {share} of {rate.get('what')}{span}."


def _cut(value: object) -> str:
    if isinstance(value, list):
        value = " ".join(map(str, value))
    text = "" if value is None else str(value)
    return text if len(text) <= SHOWN_TEXT else f"{text[:SHOWN_TEXT]} …"
