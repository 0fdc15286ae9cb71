"""Which checkpoint a run keeps, by its plan and its recipe, and what it says of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from holdfast.fits.compose import make_training_plan
from holdfast.fits.policies import checkpoint_rule
from holdfast.pipeline.main import train
from holdfast.prepare.model import prepare_divided
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, override

FAST = ["train.precision=float32", "train.threads=1", "train.matmul=default"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "rule", "chosen"),
    [
        ([], "newest_unless_worse", "newest_unless_worse"),
        (["train.epochs=3"], "newest_unless_worse", "newest_unless_worse"),
        (["train.max_steps=5"], "newest_unless_worse", "newest_unless_worse"),
        (["train.epochs=100", "methods.contrast=false"], "lowest", "lowest_calibrated"),
        (["train.learning_rate=1e-3"], "lowest", "lowest_calibrated"),
        (["methods.probe_first=false"], "lowest", "lowest_calibrated"),
        (["model.adapter.kind=ia3"], "lowest", "lowest_calibrated"),
        (["train.keep=lowest"], "lowest", "lowest_calibrated"),
        (["train.metric=loss"], "lowest", "choose"),
        (
            ["train.learning_rate=1e-3", "train.keep=newest_unless_worse"],
            "newest_unless_worse",
            "newest_unless_worse",
        ),
        (["train.keep=last"], "last", "last"),
    ],
)
def test_the_newest_stands_in_for_the_lowest_only_where_that_was_measured(
    marked_csv: Path, tiny_model: Path, settings: list[str], rule: str, chosen: str
) -> None:
    recipe = override(
        Recipe(), [f"data.path={marked_csv}", f"model.name={tiny_model}", *FAST, *settings]
    )
    ready = make_training_plan(*prepare_divided(recipe, load_and_divide(recipe).splits))
    choose: Any = checkpoint_rule(ready, ready.definition.listeners(ready))
    assert ready.recipe.train.keep == rule
    assert getattr(choose, "func", choose).__name__ == chosen
    # A plan that was not measured to leave its linear probe behind has no right to say so.
    if chosen == "newest_unless_worse":
        assert choose.keywords["gains"] is ("train.learning_rate=1e-3" not in settings)


@pytest.fixture(scope="module")
def unlearnable(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    """60 rows whose labels have nothing to do with their texts."""
    rng = np.random.default_rng(0)
    rows = marked_rows(60)
    labels = rng.permutation([label for _, label in rows])
    path: Path = write_csv(
        tmp_path_factory.mktemp("data") / "noise.csv",
        [(text, label) for (text, _), label in zip(rows, labels, strict=True)],
    )
    return path


def fitted_too_long(csv: Path, model: Path, run: Path, *settings: str) -> dict[str, Any]:
    long = [
        "methods.contrast=false",
        "train.epochs=20",
        "train.learning_rate=3e-3",
        "train.evaluations=1",
        "control.policy=off",
        f"model.name={model}",
    ]
    return train(override(Recipe(), [f"data.path={csv}", *long, *FAST, *settings]), run)


@pytest.mark.slow
def test_a_plan_that_was_not_measured_keeps_the_lowest_calibrated_loss_and_says_both_figures(
    unlearnable: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "r"
    result = fitted_too_long(unlearnable, tiny_model, run, "train.evaluations=6")
    events = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    looks = [event for event in events if event["event"] == "snapshot"]
    best = min(looks, key=lambda look: look["refined_loss"])
    assert result["best_step"] == best["step"] < result["last_step"]
    told = next(d for d in result["decisions"] if d["what"] == "best checkpoint")
    for look in (best, looks[-1]):
        assert f"{look['refined_loss']:.4g}, raw loss {look['valid_loss']:.4g}" in told["because"]
    assert ("linear probe" in told["chosen"]) is (best["step"] == 0)
    notes = [event for event in events if event.get("what") == "best checkpoint"]
    assert [note["because"] for note in notes] == [told["because"]]
    assert result["settings"]["train"]["keep"] == "lowest"


@pytest.mark.slow
def test_a_run_that_only_did_harm_keeps_its_probe_and_says_that_fine_tuning_was_discarded(
    unlearnable: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "r"
    result = fitted_too_long(unlearnable, tiny_model, run, "train.learning_rate=0.3")
    assert result["best_step"] == 0
    told = next(d for d in result["decisions"] if d["what"] == "best checkpoint")
    assert told["chosen"].endswith("before any update, with a linear probe as its last layer")
    assert "Fine-tuning was discarded" in (run / "report.html").read_text("utf-8")
    assert "Fine-tuning was discarded" in (run / "model" / "README.md").read_text("utf-8")
    (named,) = [d for d in result["decisions"] if d["what"].startswith("linear probe")]
    assert named["what"] == "linear probe (baseline)"
    assert named["chosen"] == "baseline, and the last layer at step 0"
    probe = next(b for b in result["baseline"]["all"] if b["what"] == "linear probe")
    assert result["test"]["metrics"]["accuracy"]["value"] == pytest.approx(
        probe["test"]["metrics"]["accuracy"]["value"]
    )


def test_keep_last_keeps_what_training_ended_with(
    unlearnable: Path, tiny_model: Path, tmp_path: Path
) -> None:
    result = fitted_too_long(unlearnable, tiny_model, tmp_path / "r", "train.keep=last")
    assert result["best_step"] == result["last_step"] > 0
    assert result["settings"]["train"]["keep"] == "last"


@pytest.mark.slow
def test_a_metric_that_was_asked_for_keeps_its_best_evaluation_and_says_which_it_was(
    unlearnable: Path, tiny_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "r"
    result = fitted_too_long(
        unlearnable, tiny_model, run, "train.metric=accuracy", "train.evaluations=6"
    )
    events = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    looks = [event for event in events if event["event"] == "snapshot"]
    # Ties go to the lower calibrated loss.
    best = max(looks, key=lambda look: (look["valid_metrics"]["accuracy"], -look["refined_loss"]))
    assert result["best_step"] == best["step"]
    told = next(d for d in result["decisions"] if d["what"] == "best checkpoint")
    assert told["because"] == "its accuracy on the validation rows is the best of all evaluations"


def test_a_better_metric_of_another_trial_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.fits import policies

    kept, other = (
        SimpleNamespace(step=step, valid_metrics={"accuracy": value})
        for step, value in ((0, 0.6), (27, 0.7))
    )
    plan: Any = SimpleNamespace(recipe=override(Recipe(), ["train.metric=accuracy"]))
    monkeypatch.setattr(policies, "criterion", lambda _: lambda s: -s.valid_metrics["accuracy"])

    def said(*evaluations: Any) -> str:
        trained: Any = SimpleNamespace(evaluations=evaluations)
        return policies._best_by_metric(plan, trained, kept)  # type: ignore[arg-type]

    assert said(kept) == "its accuracy on the validation rows is the best of all evaluations"
    assert "that of step 27 of another trial is better" in said(kept, other)
