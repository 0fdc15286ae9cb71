"""Whether an update may take over: from ``update`` of result.json alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from holdfast.core.wording import GATE_OUTCOMES
from holdfast.report.numbers import count, estimate, metric_name, number
from holdfast.report.run_files import RunFiles
from holdfast.report.view.base_model import BesideStart, Lines

STARTS = {"warm": "from the served model", "anew": "from the start"}
# What became of feedback that was not learned, in words.
LEFT_OUT = {
    "replaced": "replaced by a later label",
    "no_text": "without the text, which was not kept",
    "missing": "without text or label",
    "unknown_label": "with a label that is no class",
    "leaked_valid": "copies of validation rows",
    "leaked_test": "copies of test rows",
    "repeats": "known already",
    "copies": "copies of each other",
    "conflicting": "copies with different labels",
}
SHOWN = 12


def renewal(run: RunFiles) -> BesideStart | None:
    """``None`` where the run is no update."""
    raw = run.part("update")
    gate, feedback = run.part("update", "gate"), run.part("update", "feedback")
    if not raw or not gate:
        return None
    sentence = gate_words(gate)
    start = run.part("update", "start")
    notes = [
        f"It is an update of {raw.get('from')}, learned "
        f"{STARTS.get(str(start.get('start')), '')}: {start.get('because')}.",
        f"Allowed to be lost on old rows: {100 * float(gate.get('margin') or 0):g} points "
        f"({gate.get('margin_because')}).",
        f"Test rows: {score_words(run.part('update', 'test'))}.",
    ]
    tables = [
        Lines(
            "The two lots of rows that decided, new model less old, with 90 % limits "
            "(each end holds at 95 %)",
            ("Rows", "How many", "Old", "New", "Difference, points"),
            tuple(_answers(gate)),
        ),
        Lines("What became of the feedback", ("Rows", "How many"), tuple(_feedback(feedback))),
    ]
    parts = [one for one in gate.get("slices") or () if isinstance(one, Mapping)]
    if parts:
        parts.sort(key=lambda one: float(one.get("p_value") or 0))
        lines = tuple(map(_part, parts[:SHOWN]))
        title = "Where it could be worse: parts of the old rows, the likeliest first"
        tables.append(
            Lines(
                title, ("Part", "Rows", "Difference, points", "p (paired, one-sided; Holm)"), lines
            )
        )
    lost = [str(one) for one in gate.get("not_asked") or ()]
    more = [f"Not asked about, since it cannot be found in other rows: {one}." for one in lost]
    return BesideStart(sentence, tuple(notes), tuple(tables), tuple(more))


def gate_words(gate: Mapping[str, object]) -> str:
    """The gate's decision with its reason, as a sentence."""
    decision = str(gate.get("decision"))
    outcome = GATE_OUTCOMES.get(decision, decision)
    return f"The update is {outcome}: {gate.get('because')}."


def left_out_words(feedback: Mapping[str, Any]) -> str:
    """What of the feedback was not learned, and why; empty where nothing was left out."""
    found = feedback.get("left_out") or {}
    told = [f"{n:,} {LEFT_OUT[key]}" for key, n in found.items() if n and key in LEFT_OUT]
    own = feedback.get("own_labelled") or {}
    if (own.get("n") or 0) > (own.get("used") or 0):
        told.append(f"{own['n'] - own['used']:,} labelled by a model, above their share")
    if feedback.get("deleted_since"):
        told.append(f"{feedback['deleted_since']:,} old rows whose feedback was deleted since")
    return "; ".join(told)


def score_words(block: Mapping[str, Any]) -> str:
    """Old and new score on the test rows, and their difference."""
    name = str(block.get("metric") or "")
    if not name:
        return "no score that both runs have"
    old, new = estimate(block.get("old")), estimate(block.get("new"))
    told = (
        f"{metric_name(name).lower()} {number(new.value, name)}, the served model's was "
        f"{number(old.value, name)}"
    ).replace("\u00a0", " ")
    gap = block.get("difference") or {}
    if gap.get("value") is None:
        return told
    return f"{told} (difference {_points(gap)} points, scored after the decision)"


def _answers(gate: Mapping[str, object]) -> Iterator[tuple[str, ...]]:
    for place in ("old", "first", "new"):
        one = gate.get(place)
        if not isinstance(one, Mapping):
            continue
        name = str(one.get("metric"))
        old, new = estimate(one.get("old")), estimate(one.get("new"))
        yield (
            str(one.get("what")),
            count(one.get("n")),
            number(old.value, name),
            number(new.value, name),
            _points(one.get("difference") or {}),
        )


def _feedback(feedback: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Given", count(feedback.get("n"))
    yield "Learned", count(feedback.get("used"))
    yield "Kept out of training, for the gate", count(feedback.get("held"))
    for key, n in (feedback.get("left_out") or {}).items():
        if n and key in LEFT_OUT:
            yield f"Left out: {LEFT_OUT[key]}", count(n)
    own = feedback.get("own_labelled") or {}
    if own.get("n"):
        yield "Labelled by a model", count(own.get("n"))
        yield "Of these learned", count(own.get("used"))
    replayed = feedback.get("replayed") or {}
    yield "Old training rows learned again", count(replayed.get("n"))
    if feedback.get("deleted_since"):
        yield "Old rows whose feedback was deleted since", count(feedback["deleted_since"])


def _part(one: Mapping[str, object]) -> tuple[str, ...]:
    value = one.get("difference")
    shown = f"{100 * value:+.1f}" if isinstance(value, (int, float)) else "–"
    name = f"{one.get('kind')} {one.get('part')}"
    return name, count(one.get("n")), shown, number(estimate(one.get("p_value")).value)


def _points(gap: Mapping[str, Any]) -> str:
    value = gap.get("value")
    if not isinstance(value, (int, float)):
        return "–"
    if not isinstance(gap.get("low"), (int, float)):
        return f"{100 * value:+.1f}"
    return f"{100 * value:+.1f} ({100 * gap['low']:+.1f} to {100 * gap['high']:+.1f})"
