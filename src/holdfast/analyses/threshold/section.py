"""The report section on confidence thresholds with a guaranteed precision: ``thresholds`` of
``result.json``."""

from __future__ import annotations

from holdfast.core.wording import about
from holdfast.report.document import Details, Document, DocumentTable, Passage
from holdfast.report.numbers import NBSP, interval, number
from holdfast.report.run_files import Block, RunFiles
from holdfast.report.section import RelianceCheck, Section

RATE = "accuracy"


def thresholds(run: RunFiles) -> Document | None:
    """``None`` for a run without thresholds (older versions, tasks without accuracy)."""
    block = run.part("thresholds")
    if not isinstance(block.get("promises"), (list, tuple)):
        return None
    promises, broken = block.blocks("promises"), block.number("broken_in")
    alarms = (
        "The thresholds are chosen on validation rows. In 1,000 resamplings of each of four data "
        f"sets, a guarantee was broken in at most {_share(broken)} (a missing guarantee counts as "
        "kept). holdfast threshold sets a threshold; predict then gives no prediction below it."
    )
    columns = (
        "Guaranteed precision",
        "Confidence of at least",
        "Test rows with a prediction",
        "Their precision",
        "Why none",
    )
    table = DocumentTable(
        "Thresholds by guaranteed precision",
        columns,
        tuple(map(_line, promises)),
        ("n", "n", "n", "n", ""),
        "region",
    )
    more = (table, Passage("" if broken is None else alarms, "muted"))
    title = "Show all guarantees, with their results on the test rows"
    return Document((Passage(_sentence(promises)), Details(title, more)))


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:g}\u00a0%"


def _sentence(promises: list[Block]) -> str:
    measured = [one for one in promises if one.block("test")]
    if not measured:
        return (
            "No confidence threshold guarantees a precision of 90 % or more: there are too few "
            "validation rows, or too many errors among them. Expect the accuracy above."
        )
    best = measured[-1]
    coverage = best.block("test").estimate("coverage")
    return (
        f"Predictions with a confidence of {number(best.get('threshold'), RATE)} or more have a "
        f"precision of at least {_share(best.number('precision'))} (with 95 % confidence, if new "
        f"rows are drawn as the validation rows were). This covers {number(coverage.value, RATE)} "
        "of the test rows."
    )


def _line(one: Block) -> tuple[str, str, str, str, str]:
    test, promised = one.block("test"), _share(one.number("precision"))
    if not test:
        why, rows = one.text("why"), one.whole("rows_needed")
        if rows is not None:
            why += f"; at this error rate {about(rows)} validation rows are needed"
        return promised, "none", "–", "–", why
    answered, precision = test.estimate("coverage"), test.estimate("precision")
    span = interval(precision, RATE)
    precision_text = (
        f"{number(precision.value, RATE)} ({span})" if span else number(precision.value, RATE)
    )
    return (
        promised,
        number(one.get("threshold"), RATE),
        number(answered.value, RATE),
        precision_text,
        "",
    )


def _guaranteed(run: RunFiles) -> str | None:
    promises = run.part("thresholds").blocks("promises")
    if not promises:
        return None
    measured = [one for one in promises if one.block("test")]
    if not measured:
        return "No confidence threshold guarantees a precision of 90 % or more"
    best = measured[-1]
    share = best.block("test").estimate("coverage").value
    return (
        f"Predictions with a confidence of {number(best.get('threshold'), 'accuracy')} or more "
        f"({number(share, 'accuracy')} of the test rows) have a precision of at least "
        f"{100 * float(best['precision']):g}{NBSP}% (with 95{NBSP}% confidence, "
        "if new rows are like the validation rows); have an annotator check the others"
    )


SECTIONS = (
    Section(
        "thresholds",
        "Confidence threshold",
        thresholds,
        reliance=RelianceCheck(
            "a confidence threshold with a guaranteed precision", _guaranteed, rank=8, is_use=True
        ),
    ),
)
