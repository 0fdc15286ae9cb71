"""The text of ``holdfast fairness``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from holdfast.core.wording import count_phrase, signed
from holdfast.terminal.document import document_lines
from holdfast.terminal.layout import wrap


def fairness_text(document: Mapping[str, Any], columns: int) -> str:
    """The report's section, the comparison with a run without mitigation, and how often the test
    rows were used."""
    from holdfast.analyses.fairness.section import as_document

    lines = document_lines(as_document(document["fairness"]), columns)
    pairs = document.get("against") or []
    if pairs:
        lines += ["", "Compared with the run without mitigation, on the validation rows of both:"]
        lines += [line for one in pairs for line in wrap(_trade_off(one), columns, "- ", "  ")]
    if document["openings"]:
        times = count_phrase(document["openings"], "time")
        lines += ["", *wrap(f"The test rows were used again for this: {times} so far.", columns)]
    return "\n".join(lines)


VERDICTS = {
    "better": "better",
    "no better": "no better",
    "wider": "the gap is wider",
    "undecided": "inconclusive",
}


class GainJson(TypedDict):
    """A difference in accuracy with its interval."""

    value: float
    low: float | None
    high: float | None


class TradeJson(TypedDict):
    """A fairness measure with and without mitigation, and its cost in accuracy."""

    by: str
    measure: str
    gap_plain: float
    gap: float
    accuracy_plain: float
    accuracy: float
    line: float
    verdict: str
    gain: GainJson
    p_adjusted: float


def _trade_off(one: TradeJson) -> str:
    gain = one["gain"]
    limits = "no interval"
    if gain["low"] is not None and gain["high"] is not None:
        limits = f"95 % CI {signed(100 * gain['low'])} to {signed(100 * gain['high'])}"
    return (
        f"{one['by']}, {one['measure']}: gap {one['gap_plain']:.3f} → {one['gap']:.3f}, "
        f"accuracy {100 * one['accuracy_plain']:.1f} → {100 * one['accuracy']:.1f} %; giving "
        "random rows the most frequent class until the gap is the same would give "
        f"{100 * one['line']:.1f} %: "
        f"{VERDICTS[one['verdict']]} ({signed(100 * gain['value'])} points, "
        f"{limits}; adjusted p {one['p_adjusted']:.2g})"
    )
