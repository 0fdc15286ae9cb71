"""What the page's first lines say of an update: its gate before any baseline."""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.report.answer.answer import answer


def scored(gain: float, low: float, decision: str | None) -> Any:
    estimate = {"value": 0.88, "low": 0.84, "high": 0.91, "level": 0.95}
    gap = {"value": gain, "low": low, "high": gain + 0.05, "level": 0.95}
    result: dict[str, Any] = {
        "task": "text-classification",
        "test": {"n": 400, "metrics": {"accuracy": estimate}},
        "baseline": {
            "what": "linear probe",
            "comparison": {"difference": gap, "p_value": 0.001 if low > 0 else 0.4},
            "all": [{"what": "linear probe", "test": {"n": 400, "metrics": {"accuracy": 0.8}}}],
        },
    }
    if decision is not None:
        gate = {"decision": decision, "because": "why"}
        result["update"] = {"from": "/runs/reviews-1", "gate": gate}
    return answer(result)


@pytest.mark.parametrize(
    ("decision", "begins", "use"),
    [
        ("kept_aside", "Keep serving reviews-1: the gate rejected this update", "no"),
        ("undecided", "Keep serving reviews-1: this update is inconclusive", "unsettled"),
        ("taken", "Accepted as an update of reviews-1. Worth using: better", "yes"),
        (None, "Worth using: better", "yes"),
    ],
)
def test_the_gate_leads(decision: str | None, begins: str, use: str) -> None:
    found = scored(0.08, 0.03, decision)
    assert found.advice.startswith(begins)
    assert found.use == use
    assert ("Worth using" in found.advice) == (decision in ("taken", None))


def test_what_speaks_against_the_model_itself_stays() -> None:
    plain = scored(0.01, -0.04, None)
    assert plain.use == "unsettled"
    found = scored(0.01, -0.04, "undecided")
    assert found.advice.startswith("Keep serving reviews-1")
    assert found.advice.endswith(plain.advice)
    assert scored(0.01, -0.04, "kept_aside").use == "no"
    assert scored(0.01, -0.04, "taken").use == "unsettled"


def test_too_few_rows_are_blamed_only_where_more_would_decide() -> None:
    from holdfast.report.view.update import update_advice

    def told(**new: Any) -> str:
        gate = {"decision": "undecided", "because": "why", "new": {"found": "open", **new}}
        return update_advice({"update": {"from": "a", "gate": gate}}, "", "unsettled")[0]

    assert "has too few rows to decide" in told(rows_needed=400)
    assert "neither a gain nor a loss" in told(rows_needed=None)
