"""The section "Update decision" (``update`` of ``result.json``), and what the gate adds to the
advice. The gate compares the update with the served model; the rest of the advice compares it with
a baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from holdfast.core.metric_names import metric_name
from holdfast.core.wording import GATE_OUTCOMES, signed
from holdfast.report.answer.score import Use
from holdfast.report.document import Document, DocumentTable
from holdfast.report.numbers import count, estimate, number
from holdfast.report.run_files import Block, RunFiles

STARTS = {"warm": "from the served model", "anew": "from the base model"}
# Why feedback was not used for training, as text.
LEFT_OUT = {
    "replaced": "replaced by a later label",
    "no_text": "without the text, which was not stored",
    "missing": "without text or label",
    "unknown_label": "with a label that is no class",
    "leaked_valid": "duplicates of validation rows",
    "leaked_test": "duplicates of test rows",
    "repeats": "already in the training rows",
    "copies": "duplicates of each other",
    "conflicting": "duplicates with different labels",
}
MAX_SLICES = 12


def update_section(run: RunFiles) -> Document | None:
    """``None`` where the run is not an update."""
    raw = run.part("update")
    gate, start = raw.block("gate"), raw.block("start")
    if not gate:
        return None
    notes = (
        f"It is an update of {raw.get('from')}, trained "
        f"{STARTS.get(str(start.get('start')), '')}: {start.get('because')}.",
        f"On old rows it may be worse by {100 * (gate.number('margin') or 0):g} points "
        f"({gate.get('margin_because')}).",
        f"Test score: {score_change_text(raw.block('test'))}.",
    )
    tables = [
        DocumentTable(
            "The two sets of rows that decided: update minus served model, with 90 % CI "
            "(each bound holds at 95 %)",
            ("Rows", "Number", "Served model", "Update", "Difference, points"),
            tuple(_gate_lines(gate)),
        ),
        DocumentTable(
            "Use of the feedback", ("Rows", "Number"), tuple(_feedback_lines(raw.block("feedback")))
        ),
    ]
    if parts := gate.blocks("slices"):
        parts.sort(key=lambda one: float(one.get("p_value") or 0))
        tables.append(
            DocumentTable(
                "Slices of the old rows where it may be worse, lowest p first",
                ("Slice", "Rows", "Difference, points", "p (paired, one-sided; Holm)"),
                tuple(
                    (
                        f"{one.get('kind')} {one.get('part')}",
                        count(one.get("n")),
                        _signed(one.number("difference")),
                        number(one.estimate("p_value").value),
                    )
                    for one in parts[:MAX_SLICES]
                ),
            )
        )
    more = [
        f"Not tested, because it cannot be found in other rows: {one}."
        for one in gate.texts("not_asked")
    ]
    return Document.of(gate_sentence(gate), notes, tables, more)


def gate_sentence(gate: Mapping[str, object]) -> str:
    """The gate's decision with its reason, as a sentence."""
    decision = str(gate.get("decision"))
    outcome = GATE_OUTCOMES.get(decision, decision)
    return f"The update is {outcome}: {gate.get('because')}."


def excluded_feedback_text(feedback: Mapping[str, Any]) -> str:
    """How much feedback was not used for training, and why; empty where all of it was."""
    counts = feedback.get("left_out") or {}
    parts = [f"{n:,} {LEFT_OUT[key]}" for key, n in counts.items() if n and key in LEFT_OUT]
    by_model = feedback.get("own_labelled") or {}
    if (by_model.get("n") or 0) > (by_model.get("used") or 0):
        unused = by_model["n"] - by_model["used"]
        parts.append(f"{unused:,} labelled by a model, above the allowed share")
    if feedback.get("deleted_since"):
        parts.append(f"{feedback['deleted_since']:,} old rows whose feedback was deleted since")
    return "; ".join(parts)


def score_change_text(block: Mapping[str, Any]) -> str:
    """Old and new score on the test rows, and their difference."""
    name = str(block.get("metric") or "")
    if not name:
        return "the two runs have no score in common"
    old, new = estimate(block.get("old")), estimate(block.get("new"))
    text = (
        f"{metric_name(name).lower()} {number(new.value, name)}, served model "
        f"{number(old.value, name)}"
    ).replace("\u00a0", " ")
    gap = Block(block).block("difference")
    if gap.get("value") is None:
        return text
    return f"{text} (difference {_points(gap)} points, scored after the decision)"


def _gate_lines(gate: Block) -> Iterator[tuple[str, ...]]:
    for one in filter(None, map(gate.block, ("old", "first", "new"))):
        name = str(one.get("metric"))
        yield (
            str(one.get("what")),
            count(one.get("n")),
            number(one.estimate("old").value, name),
            number(one.estimate("new").value, name),
            _points(one.block("difference")),
        )


def _feedback_lines(feedback: Block) -> Iterator[tuple[str, str]]:
    yield "Feedback rows", count(feedback.get("n"))
    yield "Used for training", count(feedback.get("used"))
    yield "Held out for the gate", count(feedback.get("held"))
    for key, n in feedback.block("left_out").items():
        if n and key in LEFT_OUT:
            yield f"Not used: {LEFT_OUT[key]}", count(n)
    by_model = feedback.block("own_labelled")
    if by_model.get("n"):
        yield "Labelled by a model", count(by_model.get("n"))
        yield "Of these, used for training", count(by_model.get("used"))
    yield "Old training rows used again", count(feedback.block("replayed").get("n"))
    if feedback.get("deleted_since"):
        yield "Old rows whose feedback was deleted since", count(feedback["deleted_since"])


def _points(gap: Block) -> str:
    value, low = gap.number("value"), gap.number("low")
    if value is None or low is None:
        return _signed(value)
    return f"{_signed(value)} ({_signed(low)} to {_signed(gap['high'])})"


def _signed(value: float | None) -> str:
    return "–" if value is None else signed(100 * value)


REJECTED, ACCEPTED = "kept_aside", "taken"


def update_advice(result: Mapping[str, object], advice: str, use: Use) -> tuple[str, Use]:
    """The advice on an update, with the decision of its gate first; for other runs ``advice``.

    An update that is rejected or inconclusive is never called worth using, however much better than
    a baseline it is: the served model stays in use.
    """
    block = Block(result).block("update")
    gate, served = block.block("gate"), PurePath(block.text("from", "the served run")).name
    decision = gate.get("decision")
    if not decision:
        return advice, use
    if decision == ACCEPTED:
        return f"Accepted as an update of {served}. {advice}", use
    if decision == REJECTED:
        first, found = f"Keep serving {served}: the gate rejected this update.", "no"
    else:
        # More rows do not always decide: a model as good as the served one shows no gain on any
        # number of rows.
        few = any(gate.block(name).get("rows_needed") for name in ("old", "first", "new"))
        why = (
            "the gate has too few rows to decide"
            if few
            else "the gate can show neither a gain nor a loss"
        )
        first = f"Keep serving {served}: this update is inconclusive, because {why}."
        found = "no" if use == "no" else "unsettled"
    # "Worth using" compares with a baseline, which does not decide about an update.
    rest = "" if use == "yes" else f" {advice}"
    return f"{first}{rest}", found  # type: ignore[return-value]
