"""From which certainty on answers may be relied on: ``thresholds`` of ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from holdfast.report.numbers import estimate, interval, number
from holdfast.report.run_files import RunFiles

RATE = "accuracy"


@dataclass(frozen=True, slots=True)
class ThresholdsView:
    """The answer in a sentence, and the promises: (promise, certainty, rows answered, right of
    them, what stands in the way)."""

    sentence: str
    lines: tuple[tuple[str, str, str, str, str], ...]
    alarms: str


def thresholds(run: RunFiles) -> ThresholdsView | None:
    """``None`` where a run says nothing of it (older versions, tasks without right and wrong)."""
    block = run.part("thresholds")
    promises = block.get("promises")
    if not isinstance(promises, (list, tuple)):
        return None
    lines = [one for one in promises if isinstance(one, Mapping)]
    return ThresholdsView(
        _sentence(lines), tuple(_line(one) for one in lines), _alarms(block.get("broken_in"))
    )


def _share(value: object) -> str:
    return f"{100 * value:g}\u00a0%" if isinstance(value, (int, float)) else "–"


def _sentence(lines: list[Mapping[str, Any]]) -> str:
    kept = [one for one in lines if isinstance(one.get("test"), Mapping)]
    if not kept:
        return (
            "No threshold on the predicted probability guarantees a precision: there are too few "
            "validation rows, or too many errors among them. Expect the accuracy above."
        )
    best = kept[-1]
    coverage = estimate(best["test"].get("coverage"))
    return (
        f"Predictions with a probability of {number(best.get('threshold'), RATE)} or more have a "
        f"precision of at least {_share(best.get('precision'))}, if new rows are drawn as the "
        f"validation rows were; this covers {number(coverage.value, RATE)} of the test rows."
    )


def _line(one: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    test = one.get("test")
    if not isinstance(test, Mapping):
        rows = one.get("rows_needed")
        why = str(one.get("why") or "")
        if isinstance(rows, int):
            why += f"; with errors as found about {rows:,} validation rows are needed"
        return _share(one.get("precision")), "none", "–", "–", why
    answered, right = estimate(test.get("coverage")), estimate(test.get("precision"))
    span = interval(right, RATE)
    shown = f"{number(right.value, RATE)} ({span})" if span else number(right.value, RATE)
    at = number(one.get("threshold"), RATE)
    return _share(one.get("precision")), at, number(answered.value, RATE), shown, ""


def _alarms(broken: object) -> str:
    if not isinstance(broken, (int, float)):
        return ""
    return (
        "Chosen on validation rows; in 1,000 resamplings of each of four data sets a promise was "
        f"broken in at most {_share(broken)} (no promise counts as kept). holdfast threshold sets "
        "one; predict then gives no prediction below it."
    )
