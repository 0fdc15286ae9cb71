"""Where it fails: slices that the test rows confirmed, and those that they cannot decide."""

from __future__ import annotations

from holdfast.report.document import Cell, Details, Document, DocumentTable, Passage, Piece
from holdfast.report.numbers import count, estimate, interval, number, p_value, plural
from holdfast.report.run_files import Block, RunFiles
from holdfast.report.section import CLEAN, UNDECIDED, RelianceCheck, Section

WRONG = "wrong"
# A slice's name may hold any word of a text.
LONG = 60


SliceLine = tuple[str, str, Cell, str, str]


def slices(run: RunFiles) -> Document | None:
    """From ``slices`` of result.json; ``None`` where it was not asked."""
    block = run.part("slices")
    if "found" not in block:
        return None
    what, found, undecided = (
        block.text("what", WRONG),
        block.blocks("found"),
        block.blocks("undecided"),
    )
    name = "error" if what == WRONG else ""
    parts: list[Piece] = [Passage(_sentence(block, found, what))]
    if found:
        test = "Fisher’s exact test" if what == WRONG else "permutation test"
        lines = tuple(_line(one, name, p_value(one.get("p_value"))) for one in found)
        caption = "Slices that fail on the test rows too"
        parts.append(_table(caption, what, f"{test}, Holm", lines))
    if undecided:
        lines = tuple(_line(one, name, one.text("because")) for one in undecided)
        table = _table("Slices that are not decided", what, "What would settle it", lines)
        title = f"Show the {len(undecided)} that the test rows do not decide"
        parts.append(Details(title, (table,)))
    if alarms := _alarms(block.block("false_alarm_rate")):
        parts.append(Passage(alarms, "quiet"))
    return Document(tuple(parts))


def _table(caption: str, what: str, last: str, lines: tuple[SliceLine, ...]) -> DocumentTable:
    columns = ("Slice", "Test rows", what.capitalize(), "Others", last)
    return DocumentTable(caption, columns, lines, ("name", "n", "n", "n", ""), "quiet")


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
        Cell(number(value.value, name), interval(value, name)),
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
