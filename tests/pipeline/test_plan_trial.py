"""``control.policy=adapt`` in cross-fitted runs: the default plan is tried on the first fold where
the recipe's plan is far from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from tests.kills import KillAt

from holdfast.core.errors import Interrupted, TrainingError
from holdfast.fits import compose, cross_fitting
from holdfast.fits.plan_trial import default_plan, is_affordable
from holdfast.pipeline import preview as preview_module
from holdfast.pipeline.main import train
from holdfast.pipeline.preview import preview
from holdfast.recipe import Recipe, override, read_recipe
from holdfast.search.folds.cross_validation import CrossValidation
from holdfast.terminal.summary import summary
from holdfast.training.plan import Phase

# A model drawn at random needs higher rates than one that was pretrained.
USUAL_RATE = 3e-3
COLD = f"train.learning_rate={USUAL_RATE / 1000}"


@pytest.fixture(autouse=True)
def suited(monkeypatch: pytest.MonkeyPatch) -> None:
    real = compose.resolve_settings

    def resolve(recipe: Any, *given: Any) -> Any:
        if recipe.train.learning_rate is None:
            recipe = recipe.with_changes(train={"learning_rate": USUAL_RATE})
        return real(recipe, *given)

    monkeypatch.setattr(compose, "resolve_settings", resolve)


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    path: Path = write_csv(tmp_path_factory.mktemp("few") / "rows.csv", marked_rows(120))
    return path


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the folds that are run."""
    numbers: list[int] = []
    real = cross_fitting._run_fold

    def run(prepared: Any, fold: Any, *given: Any) -> Any:
        numbers.append(fold.number)
        return real(prepared, fold, *given)

    monkeypatch.setattr(cross_fitting, "_run_fold", run)
    return numbers


def recipe_of(csv: Path, model: Path, *settings: str) -> Recipe:
    asked = [
        "task=text-classification",
        f"data.path={csv}",
        f"model.name={model}",
        "train.precision=float32",
        "train.threads=1",
        "train.matmul=default",
        "train.evaluations=3",
        "train.folds=2",
        "train.epochs=12",
        "methods.contrast=false",
        "methods.probe_first=false",
        *settings,
    ]
    return override(Recipe(), asked)


def go(csv: Path, model: Path, run: Path, *settings: str, **more: Any) -> dict[str, Any]:
    return train(recipe_of(csv, model, *settings), run, **more)


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def test_a_rate_that_learns_nothing_is_replaced(
    csv: Path, tiny_model: Path, tmp_path: Path, counted: list[int]
) -> None:
    result = go(csv, tiny_model, tmp_path / "run", "control.policy=adapt", COLD)
    # The first fold twice, the other once.
    assert counted == [0, 0, 1]
    (trial,) = result["control"]["trials"]
    assert trial["kept"] is True
    assert (trial["name"], trial["fold"], trial["step"]) == ("the default plan", 1, 0)
    (action,) = trial["actions"]
    assert action["action"] == "Restart"
    assert action["settings"]["train.learning_rate"] == USUAL_RATE
    assert "1/1,000 of the default plan's" in action["because"]
    stored = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text("utf-8"))
    assert stored["train"]["learning_rate"] == USUAL_RATE
    assert stored["control"]["policy"] == "adapt"
    # From there on it is the run of the default plan, to the byte.
    plain = go(csv, tiny_model, tmp_path / "plain", "control.policy=stop")
    assert weights(tmp_path / "run") == weights(tmp_path / "plain")
    assert result["test"]["metrics"] == plain["test"]["metrics"]
    cold = go(csv, tiny_model, tmp_path / "cold", "control.policy=stop", COLD)
    accuracy = [one["test"]["metrics"]["accuracy"]["value"] for one in (cold, result)]
    assert accuracy[1] > accuracy[0] + 0.2
    assert "the default plan in place of the recipe's (compared on fold 1): kept" in summary(
        result, tmp_path / "run", 200
    )
    report = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "Fold 1 was also run with the default plan: kept." in report
    events = (tmp_path / "run" / "events.jsonl").read_text("utf-8").splitlines()
    decided = [one for one in map(json.loads, events) if one.get("what") == "training plan"]
    assert [one["chosen"] for one in decided] == ["the default plan in place of the recipe's"]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [COLD, f"train.learning_rate={USUAL_RATE}"])
def test_its_recipe_repeats_the_run_to_the_byte(
    csv: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: str
) -> None:
    """Of a trial that was kept, and of one that was undone."""
    if rate != COLD:
        monkeypatch.setattr(sys.modules[__name__], "USUAL_RATE", USUAL_RATE / 100)
    first = go(csv, tiny_model, tmp_path / "a", "control.policy=adapt", rate)
    again = train(read_recipe(tmp_path / "a" / "recipe.yaml"), tmp_path / "b")
    assert len(first["control"]["trials"]) == 1
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert first["test"]["metrics"] == again["test"]["metrics"]


@pytest.mark.slow
def test_what_the_trial_took_is_counted(csv: Path, tiny_model: Path, tmp_path: Path) -> None:
    tried, plain = (
        go(csv, tiny_model, tmp_path / name, f"control.policy={name}", COLD)
        for name in ("adapt", "stop")
    )
    (trial,) = tried["control"]["trials"]
    one_fold = tried["control"]["planned_steps"] / 2
    assert trial["updates"] == pytest.approx(one_fold, abs=1)
    seen = [one["timing"]["train_s"] * one["timing"]["examples_per_s"] for one in (plain, tried)]
    # The rows of half a fit more: two folds and the fit on all rows are those of two.
    assert seen[1] / seen[0] == pytest.approx(1.25, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [[], [f"train.learning_rate={USUAL_RATE / 2}"]], ids=str)
def test_a_plan_like_the_default_one_is_left_alone(
    csv: Path, tiny_model: Path, tmp_path: Path, counted: list[int], settings: list[str]
) -> None:
    result = go(csv, tiny_model, tmp_path / "adapt", "control.policy=adapt", *settings)
    assert counted == [0, 1]
    assert result["control"]["trials"] == []
    go(csv, tiny_model, tmp_path / "stop", "control.policy=stop", *settings)
    assert weights(tmp_path / "adapt") == weights(tmp_path / "stop")


@pytest.mark.slow
def test_a_default_plan_that_is_worse_is_undone(
    csv: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe's rate is the good one here, and the default a hundred times too low."""
    good = f"train.learning_rate={USUAL_RATE}"
    monkeypatch.setattr(sys.modules[__name__], "USUAL_RATE", USUAL_RATE / 100)
    result = go(csv, tiny_model, tmp_path / "adapt", "control.policy=adapt", good)
    (trial,) = result["control"]["trials"]
    assert trial["kept"] is False
    go(csv, tiny_model, tmp_path / "stop", "control.policy=stop", good)
    assert weights(tmp_path / "adapt") == weights(tmp_path / "stop")


@pytest.mark.parametrize("diverges", ["the recipe's", "the default"])
@pytest.mark.slow
def test_a_plan_that_diverges_loses(
    csv: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, diverges: str
) -> None:
    """A loss that is not finite ends one run of the first fold, not the command."""
    real, calls = cross_fitting._run_fold, []

    def run(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == (1 if diverges == "the recipe's" else 2):
            raise TrainingError("the loss", "is not finite", "nan")
        return real(*given)

    monkeypatch.setattr(cross_fitting, "_run_fold", run)
    result = go(csv, tiny_model, tmp_path / "run", "control.policy=adapt", COLD)
    (trial,) = result["control"]["trials"]
    assert trial["kept"] is (diverges == "the recipe's")
    assert "ended with an error" in trial["actions"][0]["because"]


def test_an_interrupted_trial_promises_no_resume(
    csv: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> Any:
        raise Interrupted("the run", "was interrupted")

    monkeypatch.setattr(cross_fitting, "_run_fold", interrupted)
    with pytest.raises(Interrupted, match="before anything was written"):
        go(csv, tiny_model, tmp_path / "run", "control.policy=adapt", COLD)


@pytest.mark.slow
def test_an_interrupted_trial_of_a_search_names_the_resume(
    csv: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fits before the last one are stored, and starting again would delete them."""
    real = cross_fitting._with_better_plan

    def interrupted(own: Any, *given: Any) -> Any:
        if len(own.train) == 120:
            raise Interrupted("the run", "was interrupted in fold 1", None, "Use --resume.")
        return real(own, *given)

    monkeypatch.setattr(cross_fitting, "_with_better_plan", interrupted)
    settings = ("control.policy=adapt", COLD, "train.folds=0")
    how = CrossValidation(2, nested=True)
    with pytest.raises(Interrupted, match="--resume"):
        go(csv, tiny_model, tmp_path / "run", *settings, procedure=how)


@pytest.mark.slow
def test_a_lost_fold_does_not_lose_the_trial(
    csv: Path, tiny_model: Path, tmp_path: Path, killed: type[BaseException]
) -> None:
    settings, cut = ("control.policy=adapt", COLD), tmp_path / "cut"
    end = (KillAt("step_done", 3, killed),)
    with pytest.raises(killed):
        go(csv, tiny_model, cut, *settings, listeners=end, checkpoint_every_s=0.0)
    (cut / "checkpoints" / "folds" / "fold-0.pt").unlink()
    result = train(Recipe(), cut, resume=True)
    assert [one["kept"] for one in result["control"]["trials"]] == [True]


def test_the_policy_stop_tries_nothing(
    csv: Path, tiny_model: Path, tmp_path: Path, counted: list[int]
) -> None:
    result = go(csv, tiny_model, tmp_path / "run", "control.policy=stop", COLD)
    assert counted == [0, 1]
    assert result["control"]["trials"] == []


@pytest.mark.parametrize("rate", [COLD, f"train.learning_rate={USUAL_RATE}"])
@pytest.mark.slow
def test_a_killed_run_repeats_no_trial(
    csv: Path,
    tiny_model: Path,
    tmp_path: Path,
    counted: list[int],
    rate: str,
    killed: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether the trial was kept or not."""
    if rate != COLD:
        monkeypatch.setattr(sys.modules[__name__], "USUAL_RATE", USUAL_RATE / 100)
    settings = ("control.policy=adapt", rate)
    whole = go(csv, tiny_model, tmp_path / "whole", *settings)
    cut = tmp_path / "cut"
    end = (KillAt("step_done", 3, killed),)
    with pytest.raises(killed):
        go(csv, tiny_model, cut, *settings, listeners=end, checkpoint_every_s=0.0)
    counted.clear()
    result = train(Recipe(), cut, resume=True)
    assert counted == []
    assert result["control"] == whole["control"]
    assert weights(cut) == weights(tmp_path / "whole")


@pytest.mark.slow
def test_a_killed_cross_validation_keeps_the_plan_that_was_kept(
    csv: Path, tiny_model: Path, tmp_path: Path, killed: type[BaseException]
) -> None:
    """The last fit of ``cv --nested`` is resumed with the recipe that was given."""
    settings = ("control.policy=adapt", COLD, "train.folds=0")
    how = CrossValidation(3, nested=True)
    whole = go(csv, tiny_model, tmp_path / "whole", *settings, procedure=how)
    assert [one["kept"] for one in whole["control"]["trials"]] == [True]
    cut = tmp_path / "cut"
    end = (KillAt("step_done", 3, killed),)
    with pytest.raises(killed):
        go(csv, tiny_model, cut, *settings, listeners=end, checkpoint_every_s=0.0, procedure=how)
    result = train(Recipe(), cut, resume=True, procedure=how)
    assert result["control"] == whole["control"]
    assert weights(cut) == weights(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("contrast", ["false", "true"])
@pytest.mark.parametrize("rate", [COLD, f"train.learning_rate={USUAL_RATE}"])
def test_each_outer_fold_makes_its_own_trial(
    csv: Path,
    tiny_model: Path,
    tmp_path: Path,
    counted: list[int],
    contrast: str,
    rate: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without test rows each row is scored by a fit whose plan was chosen without it, whether the
    trial was kept or not. The learning rate of contrast is derived from that of the plan."""
    if rate != COLD:
        monkeypatch.setattr(sys.modules[__name__], "USUAL_RATE", USUAL_RATE / 100)
    settings = ("control.policy=adapt", "data.split.test=0", rate, f"methods.contrast={contrast}")
    result = go(csv, tiny_model, tmp_path / "run", *settings)
    assert len(result["control"]["trials"]) == 1
    # The first fold twice, in the fit on all rows and in those of the five outer folds.
    assert counted == [0, 0, 1] * 6


def test_the_plan_without_a_run_names_the_trial(
    csv: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview_module, "_seconds_per_row", lambda _: 1.0)
    said, steps = {}, {}
    for rate in (COLD, f"train.learning_rate={USUAL_RATE}"):
        asked = recipe_of(csv, tiny_model, "control.policy=adapt", rate)
        plan = preview(asked)
        of_policy = [one for one in plan["decisions"] if one["what"] == "training plan"]
        said[rate] = [one["chosen"] for one in of_policy]
        steps[rate] = plan["time_s"]["steps"]
    assert list(said.values()) == [["may change"], []]
    # Two folds and the fit on all rows take as long as two fits, the trial a half of one.
    assert steps[COLD] / steps[f"train.learning_rate={USUAL_RATE}"] == pytest.approx(1.25, rel=0.01)


def test_the_budget_holds_whether_the_trial_is_kept_or_not() -> None:
    """Two folds on half of the rows each: the trial costs a quarter."""
    own = (50, 50, 100)
    assert is_affordable(own, own)
    assert is_affordable(own, (1, 1, 2))
    # Kept, it would take 50 + 110 + 110 + 220 of 200 updates.
    assert not is_affordable(own, (110, 110, 220))
    # Undone, it would take 61 of 200 more; kept, only 191.
    assert not is_affordable(own, (61, 40, 40))


@pytest.mark.parametrize(
    ("rate", "is_tried"), [(4.9, False), (5.1, True), (1 / 4.9, False), (1 / 5.1, True)]
)
def test_a_plan_is_far_from_a_factor_of_five_on(rate: float, is_tried: bool) -> None:
    def plan(learning_rate: float) -> Any:
        phase = Phase(
            name="finetune",
            steps=20,
            batch_size=16,
            learning_rate=learning_rate,
            head_learning_rate=learning_rate,
        )
        settings = ["control.policy=adapt", f"train.learning_rate={learning_rate}"]
        recipe = override(Recipe(), settings)
        return SimpleNamespace(
            plan=SimpleNamespace(phases=(phase,), steps=20), prepared=SimpleNamespace(recipe=recipe)
        )

    usual = plan(1e-4)
    found = default_plan(plan(rate * 1e-4), lambda settings: usual)
    assert found is (usual if is_tried else None)


@pytest.mark.slow
def test_a_short_run_is_not_made_longer(csv: Path, tiny_model: Path, tmp_path: Path) -> None:
    """The default plan has more epochs: it is tried with the recipe's."""
    settings = ("control.policy=adapt", "train.epochs=2", COLD)
    result = go(csv, tiny_model, tmp_path / "run", *settings)
    (trial,) = result["control"]["trials"]
    assert trial["actions"][0]["settings"].keys() == {"train.learning_rate"}
    stop = go(csv, tiny_model, tmp_path / "stop", "control.policy=stop", "train.epochs=2")
    assert result["control"]["planned_steps"] == stop["control"]["planned_steps"]
