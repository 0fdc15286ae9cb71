"""Where it fails: slices that the test rows confirmed, and those that they cannot decide."""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.report.block import Block
from holdfast.report.numbers import count, estimate, interval, number, p_value, plural
from holdfast.report.run_files import RunFiles
from holdfast.report.section import CLEAN, UNDECIDED, RelianceCheck, Section

WRONG = "wrong"
# A slice's name may hold any word of a text.
LONG = 60


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


def _fails_more(run: RunFiles) -> str | None:
    block = run.part("slices")
    if "found" not in block:
        return None
    found = block.blocks("found")
    if not found:
        untested = block.get("n_candidates") == 0
        return UNDECIDED if untested or block.blocks("undecided") else CLEAN
    worst, more = found[0], len(found) - 1
    name = worst.text("slice")
    name = name if len(name) <= LONG else f"{name[: LONG - 1]}…"
    told = f"It fails more often on {name}"
    if block.get("what") == "wrong":
        value, rest = worst.estimate("value").value, worst.estimate("rest").value
        told += f": {number(value, 'error')} wrong, {number(rest, 'error')} of the others"
    return told + (f"; and in {plural(more, 'other slice')}" if more else "")


SECTIONS = (
    Section(
        "slices",
        "Where it fails",
        slices,
        reliance=RelianceCheck("rows on which it fails more often", _fails_more, rank=3),
    ),
)
