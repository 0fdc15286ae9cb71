"""The report section on slices: those that the test rows confirmed, and the inconclusive ones."""

from __future__ import annotations

from holdfast.core.printable import shorten
from holdfast.report.document import Cell, Details, Document, DocumentTable, Passage, Piece
from holdfast.report.numbers import count, estimate, interval, number, p_value, plural
from holdfast.report.run_files import Block, RunFiles
from holdfast.report.section import CLEAN, UNDECIDED, RelianceCheck, Section

WRONG = "wrong"
# A slice's name may hold any word of a text.
MAX_NAME = 60


SliceLine = tuple[str, str, Cell, str, str]


def slices(run: RunFiles) -> Document | None:
    """From ``slices`` of result.json; ``None`` for a run that did not search for slices."""
    block = run.part("slices")
    if "found" not in block:
        return None
    measure, confirmed, undecided = (
        block.text("what", WRONG),
        block.blocks("found"),
        block.blocks("undecided"),
    )
    name = "error" if measure == WRONG else ""
    parts: list[Piece] = [Passage(_sentence(block, confirmed, measure))]
    if confirmed:
        test = "Fisher's exact" if measure == WRONG else "permutation"
        lines = tuple(_line(one, name, p_value(one.get("p_value"))) for one in confirmed)
        caption = "Slices with significantly more errors on the test rows"
        # A terminal prints a heading with a small first letter, which a name must not get.
        parts.append(_table(caption, measure, f"Test ({test}, Holm)", lines))
        if advice := _advice(confirmed[0], block.block("rows").get("test") or 0):
            parts.append(Passage(advice))
    if undecided:
        lines = tuple(_line(one, name, one.text("because")) for one in undecided)
        table = _table("Inconclusive slices", measure, "Reason", lines)
        title = f"Show {plural(len(undecided), 'slice')} with inconclusive test results"
        parts.append(Details(title, (table,)))
    if alarms := _alarms(block.block("false_alarm_rate")):
        parts.append(Passage(alarms, "quiet"))
    return Document(tuple(parts))


def _table(caption: str, measure: str, last: str, lines: tuple[SliceLine, ...]) -> DocumentTable:
    value = "Error rate" if measure == WRONG else measure.capitalize()
    columns = ("Slice", "Test rows", value, "Other rows", last)
    return DocumentTable(caption, columns, lines, ("name", "n", "n", "n", ""), "quiet")


def _sentence(block: Block, confirmed: list[Block], measure: str) -> str:
    n = block.get("n_candidates") or 0
    if not n:
        return "No slice of the validation rows has clearly more errors, so no slice was tested."
    tested = f"{plural(n, 'slice')} with more errors on the validation rows"
    if not confirmed:
        return f"Holdfast tested {tested}. No slice is shown to have more errors on the test rows."
    worst = confirmed[0]
    has = "has" if len(confirmed) == 1 else "have"
    start = f"Of {tested}, {len(confirmed)} {has} significantly more errors on the test rows too. "
    if measure != WRONG:
        return f"{start}The slice that costs most: {worst['slice']}."
    return (
        f"{start}The slice that costs most: {worst['slice']}; error rate "
        f"{number(worst.estimate('value').value, 'error')}, other rows "
        f"{number(worst.estimate('rest').value, 'error')}."
    )


def _advice(worst: Block, test_rows: int) -> str:
    """How frequent the slice that costs most is; empty for runs of older versions."""
    share, rows = worst.get("train_share"), worst.get("n")
    if share is None or not test_rows or rows is None:
        return ""
    shares = [number(value, "error") for value in (share, rows / test_rows)]
    shown = (
        f"The slice “{worst['slice']}” has {shares[0]} of the training rows and {shares[1]} of the "
        "test rows. Labelling more such rows may reduce these errors."
    )
    if _is_topic(worst.block("condition")):
        return shown
    return (
        f"{shown} holdfast predict RUN FILE --set predict.slices=true adds the weak slices of each "
        "row of an unlabelled file."
    )


def _is_topic(condition: Block) -> bool:
    """Whether rows of other files cannot be tested for it: its vector space was not stored."""
    if condition.get("kind") == "both":
        return any(map(_is_topic, condition.blocks("of")))
    return condition.get("kind") == "topic"


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
    rate_estimate = estimate(rate)
    span = f" (95 % CI {ends})" if (ends := interval(rate_estimate, "error")) else ""
    share = number(rate_estimate.value, "error")
    return f"False alarm rate: a slice was confirmed in {share} of {rate.get('what')}{span}."


def _failing_slices(run: RunFiles) -> str | None:
    block = run.part("slices")
    if "found" not in block:
        return None
    confirmed = block.blocks("found")
    if not confirmed:
        untested = block.get("n_candidates") == 0
        return UNDECIDED if untested or block.blocks("undecided") else CLEAN
    worst, more = confirmed[0], len(confirmed) - 1
    name = worst.text("slice")
    name = shorten(name, MAX_NAME)
    sentence = f"It makes more errors on {name}"
    if block.get("what") == "wrong":
        value, rest = worst.estimate("value").value, worst.estimate("rest").value
        sentence += f": error rate {number(value, 'error')}, other rows {number(rest, 'error')}"
    return sentence + (f"; also on {plural(more, 'other slice')}" if more else "")


SECTIONS = (
    Section(
        "slices",
        "Slices with higher error",
        slices,
        reliance=RelianceCheck("slices with more errors", _failing_slices, rank=3),
    ),
)
