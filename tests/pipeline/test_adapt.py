"""``control.policy=adapt`` in whole small runs: what is mended, what is left alone, what a log
gives again, and what a kill leaves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from holdfast.contract.fit import FittedModel, PreparedData
from holdfast.control.choice import Optimism, choice_optimism
from holdfast.control.ladder import Ladder
from holdfast.control.policy import Remedy
from holdfast.control.record import optimism_sentence
from holdfast.control.replay import replay
from holdfast.control.sight import Sight
from holdfast.core.actions import ScaleLearningRate, Shorten, to_record
from holdfast.core.errors import TrainingError
from holdfast.core.records import Estimate
from holdfast.core.run_files import read_events
from holdfast.fits import compose, policies
from holdfast.fits.fit import fit
from holdfast.pipeline.main import train
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override
from holdfast.tasks import task_definition

TRAIN, VALID = np.arange(0, 120), np.arange(120, 200)
PLAIN = {"methods.contrast": False, "train.learning_rate": 2e-3, "train.epochs": 8}
GUIDE = Path(__file__).parents[2] / "docs" / "guard.md"


@pytest.fixture(scope="module", autouse=True)
def suited() -> Iterator[None]:
    """A model drawn at random needs higher rates than one that was pretrained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compose, "usual_rates", lambda *_: (4e-4, 1e-2))
        yield


@pytest.fixture(scope="module")
def settings(
    tiny_model: Path, marked_rows: Any, write_csv: Any, tmp_path_factory: Any
) -> list[str]:
    path = write_csv(tmp_path_factory.mktemp("rows") / "rows.csv", marked_rows(200))
    return [
        "task=text-classification",
        f"data.path={path}",
        f"model.name={tiny_model}",
        "train.precision=float32",
        "train.threads=1",
        "train.matmul=default",
        "train.evaluations=12",
        # The evaluations of folds are no reason to change the run that they are not of.
        "train.folds=0",
        "methods.probe_first=false",
    ]


@pytest.fixture(scope="module")
def prepared(settings: list[str]) -> PreparedData:
    recipe = override(Recipe(), settings)
    return prepare(recipe, task_definition(recipe.task).read(recipe.data.path, recipe.data, None))


def run_of(prepared: PreparedData, **changes: Any) -> FittedModel:
    given = {name.replace("__", "."): value for name, value in changes.items()}
    return fit(prepared, TRAIN, VALID, {**PLAIN, **given})


def same(one: FittedModel, two: FittedModel) -> bool:
    first, second = one.network.state_dict(), two.network.state_dict()
    return all(np.array_equal(first[name].numpy(), second[name].numpy()) for name in first)


def tried(fitted: FittedModel) -> list[tuple[str, bool]]:
    return [(one.name, one.kept) for one in fitted.job.advisor.trials]  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_run_that_is_well_ends_as_under_stop_to_the_bit(prepared: PreparedData) -> None:
    well = {"train__learning_rate": 3e-3, "train__epochs": 12}
    stop, adapt = (run_of(prepared, control__policy=name, **well) for name in ("stop", "adapt"))
    assert stop.trained.verdict.label == "healthy", "as is meant"
    assert stop.trained.last_step < stop.training_plan.plan.steps, "as is meant"
    assert same(stop, adapt)
    assert stop.trained.actions == adapt.trained.actions
    assert stop.trained.last_step == adapt.trained.last_step
    assert tried(adapt) == []


@pytest.mark.slow
def test_a_rate_far_too_low_is_found_early_and_mended(prepared: PreparedData) -> None:
    slow = {"train__learning_rate": 2e-3 / 30}
    off = run_of(prepared, control__policy="off", **slow)
    mended = run_of(prepared, control__policy="adapt", **slow)
    (name, kept) = tried(mended)[0]
    assert (name, kept) == ("the usual learning rate from here on", True)
    began = mended.job.advisor.trials[0].step  # type: ignore[union-attr]
    assert began <= 0.25 * mended.training_plan.plan.steps
    assert mended.best_evaluation.valid_loss < off.best_evaluation.valid_loss - 0.01
    steps = mended.job.advisor.steps_taken  # type: ignore[union-attr]
    assert steps <= 1.3 * mended.training_plan.plan.steps


@pytest.mark.slow
def test_a_rate_that_breaks_the_run_is_found_and_the_run_begins_again(
    prepared: PreparedData,
) -> None:
    hot = {"train__learning_rate": 0.3}
    off = run_of(prepared, control__policy="off", **hot)
    mended = run_of(prepared, control__policy="adapt", **hot)
    assert tried(mended)[0] == ("the usual learning rate from the beginning", True)
    assert mended.best_evaluation.valid_loss < off.best_evaluation.valid_loss
    # What is said at the end is about the rate that the run has had since.
    verdict = mended.trained.verdict
    assert verdict.cause != "the learning rate is too high"
    advised = [one for remedy in verdict.remedies for one in remedy.set if "rate" in one]
    assert advised == ["train.learning_rate=0.006"], "three times the rate since the restart"
    assert not any(one.name == "learning_rate" for one in verdict.evidence)
    assert mended.job.advisor.steps_taken <= 1.3 * mended.training_plan.plan.steps  # type: ignore[union-attr]


class Blows:
    """A rate at which the loss is no number two steps later."""

    def decide(self, sight: Sight) -> Remedy | None:
        if sight.look != 2 or sight.tries("blow"):
            return None
        return Remedy("blow", (ScaleLearningRate("let it break", 1e30),))


@pytest.mark.slow
def test_a_trial_whose_loss_is_no_number_is_undone_and_the_run_goes_on(
    prepared: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TrainingError):
        run_of(prepared, train__learning_rate=1e30, control__policy="off")
    monkeypatch.setattr(policies, "load_policy", lambda _: Blows())
    broken = run_of(prepared, control__policy="adapt")
    assert tried(broken) == [("blow", False)]
    plain = run_of(prepared, control__policy="stop")
    assert same(broken, plain)
    assert broken.trained.last_step == plain.trained.last_step


@pytest.mark.slow
def test_no_more_updates_are_taken_than_max_steps_allows(prepared: PreparedData) -> None:
    slow = {"train__learning_rate": 2e-3 / 30, "control__policy": "adapt"}
    for most in (100, 220):
        held = run_of(prepared, **slow, train__max_steps=most)
        assert tried(held), "as is meant"
        assert held.trained.examples_seen <= most * held.training_plan.plan.phases[-1].rows_per_step
        assert held.job.advisor.steps_taken <= most  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_dropout_that_is_not_there_is_not_offered(settings: list[str], rate: float) -> None:
    recipe = override(Recipe(), [*settings, f"model.dropout={rate}"])
    rows = task_definition(recipe.task).read(recipe.data.path, recipe.data, None)
    fitted = run_of(prepare(recipe, rows), train__max_steps=1, control__policy="adapt")
    assert fitted.job.advisor.plan.capabilities.does("SetDropout") is bool(rate)  # type: ignore[union-attr]


@pytest.mark.parametrize(("given", "offered"), [([], True), (["model.freeze=1"], False)])
def test_layers_that_the_recipe_freezes_stay_frozen(
    settings: list[str], given: list[str], offered: bool
) -> None:
    recipe = override(Recipe(), [*settings, *given])
    rows = task_definition(recipe.task).read(recipe.data.path, recipe.data, None)
    fitted = run_of(prepare(recipe, rows), train__max_steps=1, control__policy="adapt")
    assert not all(p.requires_grad for p in fitted.network.parameters()), "as is meant"
    assert fitted.job.advisor.plan.capabilities.frozen is offered  # type: ignore[union-attr]


class Kill:
    name = "kill"

    def __init__(self, look: int, error: type[BaseException]) -> None:
        self.left, self.error = look, error

    def snapshot_taken(self, run: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise self.error


def lines(run: Path) -> list[dict[str, Any]]:
    """Without what was measured of the machine."""
    found = read_events(run / "events.jsonl")
    kept = [line for line in found if line["event"] != "note" or "sight" in line]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in kept]


LONG = ["train.epochs=30", "train.learning_rate=4e-3", "methods.contrast=false", "train.patience=2"]


@pytest.fixture(scope="module")
def whole(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that its patience stops while its rate is high, and tried twice and more."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(override(Recipe(), [*settings, *LONG, "control.policy=adapt"]), run)
    return run


@pytest.mark.slow
def test_the_log_gives_the_actions_again_without_a_model(whole: Path) -> None:
    looks = replay(lines(whole), Ladder())
    assert all(look.same for look in looks)
    done = [line for line in lines(whole) if line["event"] == "action"]
    again = [(look.step, to_record(action)) for look in looks for action in look.actions]
    kept = [(d["step"], d["action"], d["because"], d["settings"]) for d in done]
    # What follows a way back is done where the run then stands.
    assert [(r["action"], r["because"], r["settings"]) for _, r in again] == [k[1:] for k in kept]
    assert any(line["action"] == "RollBack" for line in done)
    assert sum("sight" in line for line in lines(whole)) == sum(
        line["event"] == "snapshot" for line in lines(whole)
    )


def test_the_guide_replays_a_run(whole: Path, monkeypatch: Any, capsys: Any) -> None:
    code = GUIDE.read_text("utf-8").split("test_adapt.py -->\n```python\n", 1)[1].split("```", 1)[0]
    monkeypatch.chdir(whole.parent)
    exec(compile(code, "guard.md", "exec"), {})
    told = capsys.readouterr().out
    assert "RollBack" in told
    assert "False" not in told


def test_another_policy_sees_the_same_looks(whole: Path) -> None:
    class Nothing:
        def decide(self, sight: Any) -> None:
            return None

    looks = replay(lines(whole), Nothing())
    assert looks[0].same
    assert not all(look.same for look in looks)


def test_the_result_and_the_page_say_what_was_tried_and_what_choosing_is_worth(whole: Path) -> None:
    result = json.loads((whole / "result.json").read_text())
    block = result["control"]
    assert block["policy"] == "adapt"
    assert block["planned_steps"] < block["looks"] * 100
    assert block["steps"] <= 1.3 * block["planned_steps"]
    assert block["trials"]
    assert len(block["trials"]) <= 3
    found = block["optimism"]
    assert found["metric"] == "accuracy"
    assert 0 <= found["expected"]["value"] < 0.2
    gap = (
        result["valid"]["metrics"]["accuracy"]["value"]
        - result["test"]["metrics"]["accuracy"]["value"]
    )
    assert found["seen"]["value"] == pytest.approx(gap)
    assert found["seen"]["low"] < gap < found["seen"]["high"]
    page = (whole / "report.html").read_text("utf-8")
    assert block["trials"][0]["name"] in page
    assert "was chosen among" in page
    assert "sight" not in page


def test_an_optimism_of_mere_rounding_is_not_printed_as_a_number() -> None:
    none = Optimism("accuracy", 1e-16, 0.0, 0.0, 12, 60)
    told = optimism_sentence(none, Estimate(1e-16, -0.1, 0.1))
    assert "inflates its validation score by less than 0.01 points of accuracy on average" in told
    assert told.endswith(
        "; here the validation score differs from the test score by less than 0.01 points of "
        "accuracy (95 % CI of the difference −10 to +10)."
    )
    some = Optimism("accuracy", 0.012, 0.0, 0.03, 12, 60)
    assert "by about 1.2 points of accuracy on average" in optimism_sentence(some, Estimate(0.02))


@pytest.mark.slow
def test_killed_inside_a_trial_and_resumed_it_ends_the_same(
    whole: Path, settings: list[str], tmp_path: Path, killed: Any
) -> None:
    import pyarrow.parquet as parquet

    looks = [line for line in lines(whole) if line["event"] == "snapshot"]
    inside = next(i for i, look in enumerate(looks) if look.get("branch")) + 1
    for count in (inside, inside + 1):
        run = tmp_path / f"run{count}"
        recipe = override(Recipe(), [*settings, *LONG, "control.policy=adapt"])
        with pytest.raises(killed):
            train(recipe, run, listeners=[Kill(count, killed)], checkpoint_every_s=0.0)
        train(recipe, run, resume=True)
        assert lines(run) == lines(whole)
        tables = [parquet.read_table(one / "predictions.parquet") for one in (run, whole)]
        assert tables[0].equals(tables[1])


@pytest.mark.slow
def test_a_policy_of_a_file_is_asked_and_its_path_is_kept(
    settings: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from holdfast.control.policy import Remedy\n"
        "from holdfast.core.actions import SetDropout\n"
        "class Mine:\n"
        "    def decide(self, sight):\n"
        "        if sight.look == 2 and not sight.tried:\n"
        "            return Remedy('less dropout', (SetDropout('I say so', 0.0),))\n"
    )
    given = [*settings, "train.epochs=3", "methods.contrast=false"]
    policy = f"control.policy={tmp_path}/mine.py:Mine"
    train(override(Recipe(), [*given, policy]), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert [one["name"] for one in result["control"]["trials"]] == ["less dropout"]
    assert "mine.py:Mine" in (tmp_path / "run" / "recipe.yaml").read_text()


@pytest.mark.slow
def test_a_policy_that_never_has_enough_stays_within_the_updates_of_the_run(
    prepared: PreparedData, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(
        "from holdfast.control.policy import Remedy\n"
        "from holdfast.core.actions import Extend, RollBack\n"
        "class Greedy:\n"
        "    def decide(self, sight):\n"
        "        why = 'more'\n"
        "        actions = (RollBack(why, sight.points[-1]), Extend(why, epochs=50))\n"
        "        return Remedy('more', actions if sight.step else actions[1:])\n"
    )
    greedy = f"{tmp_path}/mine.py:Greedy"
    fitted = run_of(prepared, control__policy=greedy, train__epochs=3)
    assert tried(fitted)
    planned, spent = fitted.training_plan.plan.steps, fitted.job.advisor.steps_taken  # type: ignore[union-attr]
    assert planned < spent <= 1.3 * planned
    # What it says of itself is what it did: the rows of all branches.
    rows = fitted.training_plan.plan.phases[-1].rows_per_step
    assert fitted.trained.examples_seen <= spent * rows


# Above 5,000 rows they are folded.
@pytest.mark.parametrize(("n", "runs"), [(400, 30), (12_000, 8)])
def test_the_optimism_of_noise_alone_is_what_a_simulation_says(n: int, runs: int) -> None:
    """Twenty looks that differ by chance alone: the chosen one looks better than it is by the
    expected largest of twenty, over the root of the rows (David and Nagaraja 2003)."""
    from types import SimpleNamespace

    rng = np.random.default_rng(0)
    looks, found, true = 20, [], []
    for seed in range(runs):
        losses = rng.normal(1.0, 1.0, (n, looks))
        snapshots: list[Any] = [
            SimpleNamespace(
                valid_losses=losses[:, i], valid_tokens=None, valid_logits=None, valid_correct=None
            )
            for i in range(looks)
        ]
        made = choice_optimism(snapshots, seed)
        assert made is not None
        assert made.rows == n
        found.append(made.value)
        true.append(1.0 - losses.mean(axis=0).min())
    largest = 1.867
    assert np.mean(true) == pytest.approx(largest / np.sqrt(n), rel=0.15)
    # The draws choose among means that differ already: about seven tenths of it.
    assert 0.4 * np.mean(true) < np.mean(found) < 1.1 * np.mean(true)


@pytest.mark.slow
def test_a_run_of_two_phases_is_not_ended_within_the_first(prepared: PreparedData) -> None:
    """From a linear probe, at a rate that only spoils it: after two trials from step 0, too few
    updates are left for a third."""
    spoiled = {"methods__probe_first": True, "methods__contrast": {"steps": 80}}
    fitted = run_of(
        prepared, control__policy="adapt", train__learning_rate=1e-2, train__epochs=24, **spoiled
    )
    contrast, last = fitted.training_plan.plan.phases
    assert (contrast.steps, last.steps) == (80, 21), "as is meant"
    assert [kept for _, kept in tried(fitted)] == [False, False], "as is meant"
    assert fitted.job.advisor.plan.first_end == contrast.steps + 1  # type: ignore[union-attr]
    ends = [one.to_step for _, one in fitted.trained.actions if isinstance(one, Shorten)]
    assert all(end > contrast.steps for end in ends)
