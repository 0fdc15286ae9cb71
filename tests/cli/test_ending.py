"""The last words of a run: the answer first, then the verdict, then where everything lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.cli.summary import summary


def estimate(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "level": 0.95}


def result(**more: Any) -> dict[str, Any]:
    verdict = {
        "label": "overfit",
        "because": "The validation loss rose.",
        "cause": None,
        "remedies": [
            {"do": "Train for less long.", "set": ["train.epochs=3"]},
            {"do": "Add rows.", "set": []},
        ],
    }
    return {
        "task": "text-classification",
        "verdict": verdict,
        "best_step": 40,
        "last_step": 60,
        "stopped_because": "overfit: The validation loss rose.",
        "timing": {"train_s": 61.0},
        "test": {"n": 200, "metrics": {"accuracy": estimate(0.5), "f1_macro": estimate(0.4)}},
        "baseline": {
            "what": "majority class",
            "comparison": {"difference": estimate(0.1), "p_value": 0.2},
            "all": [{"what": "majority class", "test": {"metrics": {"accuracy": estimate(0.5)}}}],
        },
        **more,
    }


def test_a_useless_model_is_said_before_any_label() -> None:
    lines = summary(result(), Path("runs/a-1"), 80)
    told = "\n".join(lines)
    assert lines[1].startswith("No better than the majority class (baseline): accuracy 50 %")
    assert told.index("Do not use it") < told.index("overfit")


def test_why_it_ended_the_remedy_and_the_folders_stand_in_lines_of_their_own() -> None:
    lines = summary(result(), Path("runs/a-1"), 80)
    assert "  Stopped   step 60: the verdict is overfit" in lines
    assert "  Kept      the checkpoint of step 40; trained for 1 min 01 s" in lines
    assert "  Scores    F1 macro 40.0 % (95% CI 30.0 – 50.0 %)" in lines
    told = " ".join(" ".join(lines).split())
    assert (
        "Next step Train for less long. --set train.epochs=3 (1 other remedy in the report)" in told
    )
    assert lines[-2:] == ["  Model     runs/a-1/model", "  Report    runs/a-1/report.html"]
    assert max(map(len, lines)) <= 80


def test_a_stop_for_a_spent_run_is_told_in_one_line() -> None:
    reason = "overfit, and no gain at 3 evaluations in a row: The validation loss rose."
    lines = summary(result(stopped_because=reason), Path("r"), 80)
    assert "  Stopped   step 60: overfit, and no gain at 3 evaluations in a row" in lines


def test_a_long_folder_is_never_broken() -> None:
    folder = Path("/".join(["a-folder-with-a-long-name"] * 6))
    assert str(folder / "model") in summary(result(), folder, 80)[-2]


def test_without_remedies_and_at_its_end() -> None:
    verdict = {"label": "healthy", "because": "It holds up.", "cause": None, "remedies": []}
    lines = summary(
        result(verdict=verdict, best_step=60, stopped_because="all 60 planned steps were taken"),
        Path("r"),
        80,
    )
    assert "  Stopped   step 60: all 60 planned steps were taken" in lines
    assert "  Kept      the last checkpoint; trained for 1 min 01 s" in lines
    assert not any(line.startswith("  Next step") for line in lines)


def test_what_a_policy_tried_is_said_and_that_it_tried_nothing() -> None:
    def tried(policy: str, *trials: dict[str, Any], steps: int = 60) -> str:
        control = {"policy": policy, "trials": list(trials), "steps": steps, "planned_steps": 70}
        return "\n".join(summary(result(control=control), Path("r"), 80))

    good = {"name": "half the rate", "step": 40, "from_step": 20, "kept": True, "actions": []}
    text = tried(
        "adapt", good, {**good, "name": "longer", "from_step": 40, "kept": False}, steps=90
    )
    assert "  Tried     half the rate (at step 40, from step 20 on): kept" in text
    assert "  Tried     longer (at step 40): undone, not shown to be better" in text
    assert "  Took      90 updates in all, 70 were planned" in text
    assert "  Tried     nothing: mine.py:Own found no reason to act" in tried("mine.py:Own")
    assert "Tried" not in tried("stop")


def test_what_must_be_known_before_the_model_is_relied_on_is_said() -> None:
    found = {"slice": "rows that hold \x1b[31m“dear”", "value": 0.4, "rest": 0.1}
    told = summary(result(slices={"what": "wrong", "found": [found]}), Path("runs/a-1"), 80)
    (at,) = [place for place, line in enumerate(told) if line.startswith("  Warning   ")]
    assert "It fails more often on rows that hold" in " ".join(told[at:])
    assert max(map(len, told)) <= 80
    assert not any("Warning" in line for line in summary(result(), Path("runs/a-1"), 80))
    nothing = summary(result(slices={"what": "wrong", "found": []}), Path("runs/a-1"), 80)
    assert not any("Warning" in line for line in nothing)
