"""What the page and the terminal say of an update."""

from __future__ import annotations

from typing import Any

from holdfast.report.run_files import RunFiles
from holdfast.report.view.update import excluded_feedback_text, score_change_text, update_section

TEST = {
    "metric": "accuracy",
    "n": 60,
    "old": {"value": 0.85, "low": 0.7, "high": 0.9},
    "new": {"value": 0.8, "low": 0.7, "high": 0.9},
    "difference": {"value": -0.05, "low": -0.1, "high": 0.01},
}


def _answer(what: str, value: float) -> dict[str, Any]:
    difference = {"value": value, "low": value - 0.02, "high": value + 0.02}
    return {"what": what, "n": 60, "metric": "accuracy", "old": 0.8, "new": 0.9} | {
        "difference": difference
    }


def _result() -> dict[str, Any]:
    feedback = {
        "n": 100,
        "used": 60,
        "held": 30,
        "left_out": {"leaked_test": 4, "repeats": 0, "conflicting": 6},
        "own_labelled": {"n": 9, "used": 5},
        "replayed": {"n": 280, "of": 280},
        "deleted_since": 2,
    }
    gate = {
        "decision": "kept_aside",
        "because": "worse on class a",
        "margin": 0.028,
        "margin_because": "what 566 validation rows can show",
        "old": _answer("old validation rows", -0.01),
        "first": None,
        "new": _answer("new rows", 0.1),
        "slices": [
            {"part": "b", "kind": "class", "n": 30, "difference": 0.1, "p_value": 1.0},
            {"part": "a", "kind": "class", "n": 30, "difference": -0.2, "p_value": 0.01},
        ],
        "not_asked": ["texts about: x"],
    }
    start = {"start": "anew", "because": "asked for"}
    return {
        "update": {"from": "a", "feedback": feedback, "gate": gate, "start": start} | {"test": TEST}
    }


def test_the_section_answers_first_and_holds_what_decided() -> None:
    found = update_section(RunFiles(_result()))
    assert found is not None
    assert found.sentence == "The update is rejected: worse on class a."
    decided, feedback, parts = found.tables
    assert decided.lines == (
        ("old validation rows", "60", "80.0\u00a0%", "90.0\u00a0%", "−1.0 (−3.0 to +1.0)"),
        ("new rows", "60", "80.0\u00a0%", "90.0\u00a0%", "+10.0 (+8.0 to +12.0)"),
    )
    assert ("Not used: duplicates of test rows", "4") in feedback.lines
    assert not any("already in the training rows" in name for name, *_ in feedback.lines)
    # The part that is likeliest to be worse stands first.
    assert parts.lines[0][:3] == ("class a", "30", "−20.0")
    assert "texts about: x" in found.passages[-1]
    assert "2.8 points (what 566 validation rows can show)" in found.passages[2]


def test_other_runs_have_no_such_section() -> None:
    assert update_section(RunFiles({"task": "text-classification"})) is None


def test_what_was_left_out_in_words() -> None:
    assert excluded_feedback_text(_result()["update"]["feedback"]) == (
        "4 duplicates of test rows; 6 duplicates with different labels; 4 labelled by a model, "
        "above the allowed share; 2 old rows whose feedback was deleted since"
    )
    assert excluded_feedback_text({}) == ""


def test_the_two_scores_in_words() -> None:
    assert score_change_text(TEST) == (
        "accuracy 80.0 %, served model 85.0 % (difference −5.0 (−10.0 to +1.0) points, "
        "scored after the decision)"
    )
    bare = {**TEST, "difference": {"value": None, "why": "no"}}
    assert score_change_text(bare) == "accuracy 80.0 %, served model 85.0 %"
    assert score_change_text({}) == "the two runs have no score in common"
