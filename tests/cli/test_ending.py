"""The summary of a run: result, advice and verdict, at most three remarks, and the paths."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from holdfast.terminal import summary as module


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


def summary(*given: Any) -> list[str]:
    return module.summary(*given).splitlines()


def entry_of(lines: list[str], name: str) -> str:
    """The text of the entry ``name``, over all its lines; empty where there is none."""
    starts = [at for at, line in enumerate(lines) if line.startswith(f"  {name} ")]
    if not starts:
        return ""
    text = [lines[starts[0]][12:]]
    for line in lines[starts[0] + 1 :]:
        if not line.startswith(" " * 12):
            break
        text.append(line.strip())
    return " ".join(text)


def test_result_advice_and_verdict_come_first_in_a_sentence_each() -> None:
    lines = summary(result(), Path("runs/a-1"), 80)
    assert [line.split()[0] for line in lines[1:] if line[2:3].strip()][:3] == [
        "Result",
        "Advice",
        "Verdict",
    ]
    assert entry_of(lines, "Result").startswith("No better than the most frequent class")
    assert "accuracy 50 %" in entry_of(lines, "Result")
    assert entry_of(lines, "Advice").startswith("Do not use it")
    assert entry_of(lines, "Verdict") == "Overfitting: the validation loss rose."


def test_the_saved_checkpoint_the_next_step_and_the_folders_have_their_lines() -> None:
    lines = summary(result(), Path("runs/a-1"), 80)
    saved = "checkpoint of step 40; stopped at step 60 after 1 min 01 s: the verdict is overfit"
    assert entry_of(lines, "Saved") == saved
    because = (
        "it is the newest checkpoint whose loss is not significantly above the lowest (paired "
        "t-test on 60 validation rows, threshold p < 0.05): 0.42; the lowest loss, step 20: 0.41"
    )
    decision = {"what": "best checkpoint", "chosen": "step 40 of 60", "because": because}
    explained = summary(result(decisions=[decision]), Path("runs/a-1"), 80)
    reason = "it is the newest checkpoint whose loss is not significantly above the lowest"
    assert entry_of(explained, "Saved") == saved.replace("step 40;", f"step 40 ({reason});")
    step = "Train for less long. --set train.epochs=3 (1 alternative in the report)"
    assert entry_of(lines, "Next step") == step
    assert lines[-2:] == ["  Model     runs/a-1/model", "  Report    runs/a-1/report.html"]
    assert max(map(len, lines)) <= 80


def test_the_first_screen_has_two_remarks_and_verbose_has_all() -> None:
    found = [
        {"slice": f"rows with “{word}”", "value": 0.4, "rest": 0.1} for word in ("a", "b", "c", "d")
    ]
    trial = {"name": "longer", "step": 40, "from_step": 40, "kept": True}
    control = {"policy": "adapt", "trials": [trial], "steps": 60}
    given = result(slices={"what": "wrong", "found": found}, control=control)
    remarks = ("Warning", "Trials", "Saved", "Scores", "Next step")

    def shown(verbose: bool) -> list[str]:
        lines = summary(given, Path("r"), 80, verbose)
        names = (next((n for n in remarks if line[2:].startswith(n)), "") for line in lines)
        return [name for name in names if name]

    assert shown(verbose=False) == ["Warning", "Trials", "Saved", "Next step"]
    assert {"Warning", "Trials", "Saved", "Scores", "Next step"} <= set(shown(verbose=True))
    assert "macro F1 40.0 %" in entry_of(summary(given, Path("r"), 80, True), "Scores")


def test_the_reason_of_a_stop_does_not_repeat_the_verdict() -> None:
    reason = "overfit, and the metric gained nothing at 3 evaluations: The validation loss rose."
    saved = entry_of(summary(result(stopped_because=reason), Path("r"), 80), "Saved")
    assert saved.endswith("overfit, and the metric gained nothing at 3 evaluations")


def test_a_long_folder_is_never_broken() -> None:
    folder = Path("/".join(["a-folder-with-a-long-name"] * 6))
    assert str(folder / "model") in summary(result(), folder, 80)[-2]


def test_without_remedies_there_is_no_next_step() -> None:
    verdict = {"label": "healthy", "because": "It holds up.", "cause": None, "remedies": []}
    lines = summary(
        result(verdict=verdict, best_step=60, stopped_because="all 60 planned steps were taken"),
        Path("r"),
        80,
    )
    assert entry_of(lines, "Saved").endswith("all 60 planned steps were taken")
    assert entry_of(lines, "Next step") == ""


def test_what_a_policy_tried_is_printed() -> None:
    def tried(policy: str, *trials: dict[str, Any], steps: int = 60) -> str:
        control = {"policy": policy, "trials": list(trials), "steps": steps, "planned_steps": 70}
        return entry_of(summary(result(control=control), Path("r"), 80), "Trials")

    good = {"name": "half the rate", "step": 40, "from_step": 20, "kept": True, "actions": []}
    text = tried(
        "adapt", good, {**good, "name": "longer", "from_step": 40, "kept": False}, steps=90
    )
    assert "half the rate (begun at step 40, continuing from step 20): kept" in text
    assert "longer (begun at step 40): undone, not shown to be better" in text
    assert "90 updates in total, 70 planned" in text
    assert tried("adapt") == tried("stop") == ""


def test_what_must_be_known_before_the_model_is_relied_on_is_said() -> None:
    found = {"slice": "rows that hold \x1b[31m“dear”", "value": 0.4, "rest": 0.1}
    told = summary(result(slices={"what": "wrong", "found": [found]}), Path("runs/a-1"), 80)
    (at,) = [place for place, line in enumerate(told) if line.startswith("  Warning   ")]
    assert "on rows that hold" in " ".join(told[at:])
    assert max(map(len, told)) <= 80
    assert not any("Warning" in line for line in summary(result(), Path("runs/a-1"), 80))
    nothing = summary(result(slices={"what": "wrong", "found": []}), Path("runs/a-1"), 80)
    assert not any("Warning" in line for line in nothing)
