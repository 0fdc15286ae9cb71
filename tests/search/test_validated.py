"""``holdfast cv``: what is learned from, what judges, what scores; resuming; what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from sklearn.metrics import accuracy_score, log_loss
from typer.testing import CliRunner

import holdfast
from holdfast.cli.main import app
from holdfast.core.errors import RecipeError, SplitError
from holdfast.pipeline import main
from holdfast.pipeline.main import train
from holdfast.plan.defaults import resolve_settings
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, as_settings, override
from holdfast.search.context import SearchContext
from holdfast.search.folds.cross_validation import (
    CrossValidation,
    FoldLearner,
    FoldPlan,
    join_evaluations,
    settings_of_all,
)
from holdfast.search.folds.scores import verdict_counts
from holdfast.search.job import FitJob, FitResult
from holdfast.search.learner import SearchLearner, make_engine

CUT = {"train": {"epochs": 2, "keep": "last"}}


def validated(recipe: Recipe, **asked: Any) -> FoldLearner:
    procedure = CrossValidation(**asked)
    recipe = procedure.checked_recipe(recipe)
    divided = load_and_divide(recipe, scores_by_folds=True)
    return procedure.learn(divided.recipe, divided)


def plan_of(recipe: Recipe, **asked: Any) -> tuple[FoldPlan, Any]:
    made = validated(recipe, **asked)
    return made.fold_plan, made.learning


@pytest.fixture(scope="module")
def crossed(search_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("cv") / "run"
    train(search_recipe.with_changes(**CUT), run, procedure=CrossValidation(3))
    return run


def test_every_row_scores_once_a_repeat_and_judges_at_most_once(search_recipe: Recipe) -> None:
    plan, learning = plan_of(search_recipe, folds=4, repeats=2)
    n = len(learning.prepared.rows)
    units = learning.prepared.units
    for repeat in (0, 1):
        of = plan.for_repeat(repeat)
        assert np.array_equal(np.sort(np.concatenate([one.held_out for one in of])), np.arange(n))
        judged = np.concatenate([one.valid for one in of])
        assert len(np.unique(judged)) == len(judged) > 0
        for one in of:
            parts = (one.train, one.valid, one.held_out)
            assert sum(map(len, parts)) == n
            for a in range(3):
                for b in range(a):
                    assert not np.isin(units[parts[a]], units[parts[b]]).any()
    assert not np.array_equal(plan.for_repeat(0)[0].held_out, plan.for_repeat(1)[0].held_out)


@pytest.mark.parametrize(
    ("stated", "nested", "policy"),
    [(None, False, "stop"), ("adapt", False, "stop"), ("off", False, "off"), (None, True, "adapt")],
)
def test_folds_act_only_where_the_final_model_could(
    search_recipe: Recipe, stated: str | None, nested: bool, policy: str
) -> None:
    recipe = search_recipe.with_changes(control={"policy": stated})
    _, learning = plan_of(recipe, folds=3, nested=nested)
    assert learning.prepared.recipe.control.policy == policy
    told = [one for one in learning.divided.decisions if one.what == "control.policy"]
    assert len(told) == (stated in (None, "adapt"))


def test_the_trials_of_a_search_have_no_trials_of_a_policy(search_recipe: Recipe) -> None:
    recipe = search_recipe.with_changes(control={"policy": None})
    search: Any = SimpleNamespace(plan=lambda one: {"policy": one.recipe.control.policy})
    learner = SearchLearner(recipe, load_and_divide(recipe), make_engine("local"), search)
    assert learner.plan()["policy"] == "stop"


def csv_of(folder: Path, write_csv: Any, rows: Any, header: tuple[str, ...]) -> Path:
    path: Path = write_csv(folder / "rows.csv", rows, header)
    return path


def test_groups_are_never_parted(
    search_recipe: Recipe, tmp_path: Path, marked_rows: Any, write_csv: Any
) -> None:
    rows = [(*row, f"who{i // 4}") for i, row in enumerate(marked_rows(60))]
    path = csv_of(tmp_path, write_csv, rows, ("text", "label", "who"))
    recipe = search_recipe.with_changes(data={"path": str(path), "group": "who"})
    plan, learning = plan_of(recipe, folds=3)
    groups = np.array(learning.prepared.rows.column("group"))
    for one in plan.folds:
        assert not set(groups[one.held_out]) & set(groups[one.train])
        assert not set(groups[one.held_out]) & set(groups[one.valid])
    by = recipe.with_changes(data={"split": {"by": "group"}})
    plan, learning = plan_of(by, folds=3)
    groups = np.array(learning.prepared.rows.column("group"))
    for one in plan.folds:
        assert not set(groups[one.held_out]) & set(groups[np.union1d(one.train, one.valid)])


def test_by_time_each_fold_is_answered_by_what_is_older(
    search_recipe: Recipe, tmp_path: Path, marked_rows: Any, write_csv: Any
) -> None:
    order = np.random.default_rng(0).permutation(60)
    rows = [(*row, str(int(at))) for row, at in zip(marked_rows(60), order, strict=True)]
    path = csv_of(tmp_path, write_csv, rows, ("text", "label", "at"))
    data = {"path": str(path), "time": "at", "split": {"by": "time"}}
    plan, learning = plan_of(search_recipe.with_changes(data=data), folds=3)
    at = order[np.array(learning.prepared.rows.column("row"))]
    ends = 0
    for one in plan.folds:
        assert at[one.train].max() < at[one.valid].min()
        assert at[one.valid].max() < at[one.held_out].min()
        assert at[one.held_out].min() > ends
        ends = at[one.held_out].max()
    with pytest.raises(RecipeError, match="one order"):
        plan_of(search_recipe.with_changes(data=data), folds=3, repeats=2)


@pytest.mark.slow
def test_the_scores_are_those_of_the_rows_out_of_fold(crossed: Path) -> None:
    result = json.loads((crossed / "result.json").read_text())
    table = parquet.read_table(crossed / "folds.parquet")
    label, said = table["label"].to_pylist(), table["prediction"].to_pylist()
    metrics = result["cv"]["metrics"]
    assert metrics["accuracy"]["value"] == pytest.approx(accuracy_score(label, said))
    guess = max(label.count(name) for name in set(label)) / len(label)
    assert result["cv"]["commonest"] == pytest.approx(guess)
    probe, compared = (result["cv"]["baseline"][name] for name in ("test", "comparison"))
    assert probe["n"] == len(label)
    assert compared["difference"]["value"] == pytest.approx(
        metrics["accuracy"]["value"] - probe["metrics"]["accuracy"]["value"]
    )
    chances = np.array(table["probabilities"].to_pylist())
    classes = result["classes"]
    assert metrics["loss"]["value"] == pytest.approx(log_loss(label, chances, labels=classes))
    fold = np.array(table["fold"].to_pylist())
    right = np.array(label) == np.array(said)
    for one in result["cv"]["per_fold"]:
        own = right[fold == one["fold"]]
        assert one["n"] == len(own)
        assert one["metrics"]["accuracy"]["value"] == pytest.approx(own.mean())
        assert one["best_step"] <= one["last_step"] <= one["planned_steps"]
        assert one["verdict"]["label"]
    narrow = metrics["accuracy"]["corrected_t"]
    assert narrow["low"] < metrics["accuracy"]["value"] < narrow["high"]
    assert result["valid"]["n"] == len(label)


def test_folds_in_bfloat16_are_scored_by_the_predictions_that_are_stored(
    search_recipe: Recipe, tmp_path: Path
) -> None:
    recipe = search_recipe.with_changes(train={**CUT["train"], "precision": "bfloat16"})
    result = train(recipe, tmp_path / "run", procedure=CrossValidation(2))
    table = parquet.read_table(tmp_path / "run" / "folds.parquet").to_pandas()
    for one in result["cv"]["per_fold"]:
        own = table[table["fold"] == one["fold"]]
        loss = log_loss(own["label"], np.array([*own["probabilities"]]), labels=result["classes"])
        assert one["metrics"]["loss"]["value"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_repeats_score_every_row_again_and_the_score_is_their_mean(
    search_recipe: Recipe, tmp_path: Path
) -> None:
    train(
        search_recipe.with_changes(**CUT), tmp_path / "run", procedure=CrossValidation(2, repeats=2)
    )
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    table = parquet.read_table(tmp_path / "run" / "folds.parquet").to_pandas()
    means = [
        accuracy_score(some["label"], some["prediction"]) for _, some in table.groupby("repeat")
    ]
    losses = [
        log_loss(some["label"], np.array(some["probabilities"].tolist()), labels=result["classes"])
        for _, some in table.groupby("repeat")
    ]
    assert losses[0] != losses[1]
    metrics = result["cv"]["metrics"]
    assert metrics["accuracy"]["value"] == pytest.approx(np.mean(means))
    assert metrics["loss"]["value"] == pytest.approx(np.mean(losses))


def test_the_model_of_all_rows_learned_from_all_and_ends_where_the_folds_say(crossed: Path) -> None:
    result = json.loads((crossed / "result.json").read_text())
    # The median of the folds chose the checkpoint, not a comparison of evaluations.
    assert result["control"]["optimism"] is None
    final = result["cv"]["final"]
    share = float(np.median(final["shares"]))
    assert final["rows"] == result["data"]["rows"] == result["data"]["train"]
    looks = [json.loads(line) for line in (crossed / "events.jsonl").read_text().splitlines()]
    steps = [one["step"] for one in looks if one["event"] == "snapshot"]
    assert final["step"] == result["best_step"] == steps[-1]
    assert abs(final["step"] / final["planned"] - share) <= 0.5
    assert share == 1
    assert "100 %" in final["because"]


@pytest.mark.slow
def test_what_judges_the_model_of_all_rows_was_not_learned_from_by_who_answered(
    search_recipe: Recipe,
) -> None:
    """Its looks are the folds' own at their validation rows."""
    from holdfast.search.context import SearchContext, run_job

    made = validated(search_recipe.with_changes(**CUT), folds=3)
    fitted = made.fit()
    bench = SearchContext.from_learning_rows(made.learning)
    expected = []
    for one in made.fold_plan.folds:
        done = run_job(bench, one.job(f"fold-{one.number}", {}))
        expected.append(done.evaluations.losses[0])
    assert np.array_equal(fitted.trained.history[0].valid_losses, np.concatenate(expected))
    learned = np.sort(fitted.training_plan.train.rows)
    assert np.array_equal(learned, np.sort(bench.rows.column("row")))
    assert fitted.out_of_fold is not None
    assert len(fitted.out_of_fold.table) == len(bench.rows)
    said = fitted.out_of_fold.columns
    assert np.array_equal(fitted.out_of_fold.table.column("row"), said["row"].to_numpy())
    names = [bench.rows.classes[i] for i in fitted.out_of_fold.table.column("label")]
    assert names == said["label"].to_pylist()


def test_the_fit_on_all_rows_ends_at_the_median_share_of_the_folds() -> None:
    """A fold that stopped says what it said last."""

    def fold(best: int, last: int, losses: list[float]) -> tuple[Any, Any]:
        steps = np.array([0, 5, 10, 20])[: last + 1]
        looks = SimpleNamespace(
            steps=steps,
            losses=np.array(losses)[: last + 1, None] * np.ones((1, 2)),
            correct=None,
            metrics=[{"token_accuracy": loss} for loss in losses],
            logits=None,
            refined=np.array(losses),
            temperature=np.ones(4),
        )
        return None, SimpleNamespace(evaluations=looks, best_step=best, planned=20)

    pairs = [fold(10, 3, [4.0, 3, 2, 1]), fold(5, 1, [8.0, 6, 0, 0])]
    ready = SimpleNamespace(plan=SimpleNamespace(evaluate_at=(0, 10, 20, 40), steps=40))
    made = join_evaluations(pairs, ready, 0.375, 2)  # type: ignore[arg-type]
    assert made.ends_at == 10
    assert [look.losses.tolist() for look in made.evaluations] == [
        [4, 4, 8, 8],
        [3, 3, 6, 6],
        [2, 2, 6, 6],
        [1, 1, 6, 6],
    ]
    assert made.evaluations[1].metrics == {"token_accuracy": 4.5}
    assert made.measurements_at(15, None, None) is made.evaluations[1]  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "all_rows", "contrast"), [(131, 240, False), (50, 120, 40), (131, 180, None)]
)
def test_folds_have_the_plan_of_the_model_of_all_rows(
    search_recipe: Recipe, rows: int, all_rows: int, contrast: int | bool | None
) -> None:
    """With 160 of 240 rows a fold's own default was another method than the saved model's."""
    given = search_recipe.with_changes(train={"epochs": None, "max_steps": None})
    given = given.model_copy(update={"methods": {}})
    context = SearchContext.from_learning_rows(validated(given, folds=3).learning)
    found = settings_of_all(context, {}, rows, all_rows)
    if contrast is None:
        assert found == {}
        return
    of_contrast = found["methods.contrast"]
    steps = of_contrast["steps"] if isinstance(of_contrast, dict) else of_contrast
    assert steps == contrast
    assert ("train.epochs" in found) == (contrast is False)
    resolved = [
        resolve_settings(override(given, as_settings(settings)), 4_000, n, None, 2)[0]
        for settings, n in ((found, rows), ({}, all_rows))
    ]
    assert resolved[0].methods == resolved[1].methods


def test_a_killed_cross_validation_repeats_no_fold_and_ends_the_same(
    search_recipe: Recipe, crossed: Path, tmp_path: Path, monkeypatch: Any, killed: Any
) -> None:
    from holdfast.search import context as benches

    run, made = tmp_path / "killed", []
    real = benches.run_job

    def dies(bench: Any, job: FitJob, *rest: Any) -> FitResult:
        if job.key == "fold-0-1" and "dead" not in made:
            made.append("dead")
            raise killed
        made.append(job.key)
        return real(bench, job, *rest)

    monkeypatch.setattr("holdfast.search.learner.run_job", dies)
    recipe = search_recipe.with_changes(**CUT)
    with pytest.raises(killed):
        train(recipe, run, procedure=CrossValidation(3))
    score_once, killed_at = main.score_once, []

    def dies_once(*given: Any, **named: Any) -> Any:
        if not killed_at:
            killed_at.append("the score")
            raise killed
        return score_once(*given, **named)

    monkeypatch.setattr(main, "score_once", dies_once)
    with pytest.raises(killed):
        train(recipe, run, resume=True, procedure=CrossValidation(3))
    train(recipe, run, resume=True, procedure=CrossValidation(3))
    assert made == ["fold-0-0", "dead", "fold-0-1", "fold-0-2"]
    for name in ("folds.parquet", "answers.parquet", "model/model.safetensors"):
        assert (run / name).read_bytes() == (crossed / name).read_bytes(), name
    one, two = (json.loads((at / "result.json").read_text()) for at in (run, crossed))
    assert one["cv"]["metrics"] == two["cv"]["metrics"]


@pytest.mark.slow
def test_the_recipe_of_the_run_repeats_it(crossed: Path, tmp_path: Path) -> None:
    """By ``train`` too, since it asks for the folds."""
    again = holdfast.train(crossed / "recipe.yaml", out=tmp_path / "again", quiet=True)
    first = json.loads((crossed / "result.json").read_text())
    assert again.result["cv"]["metrics"] == first["cv"]["metrics"]
    weights = "model/model.safetensors"
    assert (again.folder / weights).read_bytes() == (crossed / weights).read_bytes()


@pytest.mark.slow
def test_a_learning_curve_trains_on_parts_of_the_same_folds(
    search_recipe: Recipe, crossed: Path, tmp_path: Path
) -> None:
    procedure = CrossValidation(3, learning_curve=True)
    made = validated(search_recipe.with_changes(**CUT), folds=3, learning_curve=True)
    units = made.learning.prepared.units
    for fold in made.fold_plan.folds:
        half, quarter = (made._parts()[f"part-{share}-{fold.number}"] for share in (0.5, 0.25))
        assert set(quarter.train) < set(half.train) < set(fold.train)
        assert set(half.valid) <= set(fold.valid)
        assert len(half.train) == pytest.approx(len(fold.train) / 2, abs=3)
        assert len(quarter.train) == pytest.approx(len(fold.train) / 4, abs=3)
        assert np.array_equal(half.held_out, fold.held_out)
        assert not np.isin(units[half.train], units[np.setdiff1d(fold.train, half.train)]).any()
    result = train(search_recipe.with_changes(**CUT), tmp_path / "run", procedure=procedure)
    curve = result["cv"].pop("learning_curve")
    first = json.loads((crossed / "result.json").read_text())["cv"]
    # The folds themselves, and what is said of them, are those without a curve.
    assert result["cv"]["metrics"] == first["metrics"]
    assert result["cv"]["final"] == first["final"]
    for name in ("loss", "accuracy"):
        one = curve["metrics"][name]
        # With all rows the score is that of the cross-validation.
        for end in ("value", "low", "high"):
            expected = first["metrics"][name][end]
            assert one["scores"][-1][end] == pytest.approx(expected, abs=1e-6)
        assert len(one["scores"]) == 3
        assert all(score["low"] <= score["value"] <= score["high"] for score in one["scores"])
        assert one["gain"]["low"] <= one["gain"]["value"] <= one["gain"]["high"]
    assert curve["rows"] == sorted(curve["rows"])
    assert curve["next"] == 2 * curve["rows"][-1]
    page = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "twice the rows" in page
    kept = (tmp_path / "run" / "recipe.yaml").read_text("utf-8")
    assert "learning_curve: true" in kept
    with pytest.raises(RecipeError, match="--nested"):
        CrossValidation(3, nested=True, learning_curve=True).checked_recipe(search_recipe)


@pytest.mark.slow
def test_folds_within_folds_choose_where_no_row_is_set_aside(
    search_recipe: Recipe, tmp_path: Path
) -> None:
    result = train(
        search_recipe.with_changes(**CUT),
        tmp_path / "run",
        procedure=CrossValidation(3, nested=True),
    )
    cv = result["cv"]
    assert cv["nested"]
    assert [one["valid"] for one in cv["per_fold"]] == [0, 0, 0]
    assert cv["metrics"]["loss"]["nested"]["low"] < cv["metrics"]["loss"]["nested"]["high"]
    assert cv["final"]["rows"] == result["data"]["rows"]


@pytest.mark.slow
def test_given_test_rows_are_scored_once_by_the_model_of_all_rows(
    search_recipe: Recipe, tmp_path: Path, marked_rows: Any, write_csv: Any
) -> None:
    path = csv_of(tmp_path, write_csv, marked_rows(20, seed=9), ("text", "label"))
    recipe = search_recipe.with_changes(data={"test": str(path)}, **CUT)
    result = train(recipe, tmp_path / "run", procedure=CrossValidation(2))
    assert result["test"]["n"] == 20
    assert result["test"]["opened_at"]
    assert result["valid"]["out_of_fold"]


@pytest.mark.slow
def test_the_command_prints_the_answer_and_its_json(
    search_recipe: Recipe, quick: list[str], tmp_path: Path
) -> None:
    settings = [part for one in quick for part in ("--set", one)]
    asked = ["cv", str(search_recipe.data.path), "--folds", "2", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, [*asked, *settings, "--set", "train.epochs=1"])
    assert done.exit_code == 0, done.output
    assert "Estimated by 2-fold cross-validation on 60 rows" in " ".join(done.stdout.split())
    assert "Verdicts" in done.stdout
    assert "a model trained on all rows with the same settings" in " ".join(done.stdout.split())
    assert "most frequent class (baseline)" in " ".join(done.stdout.split())
    # There are no test rows, and no section of their score.
    assert '<section id="score"' not in (tmp_path / "run" / "report.html").read_text()
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "/" not in line)
    planned = CliRunner().invoke(app, [*asked[:4], *settings, "--dry-run", "--json", "--quiet"])
    plan = json.loads(planned.stdout)
    assert [one["held"] for one in plan["folds"]] == [30, 30]
    assert plan["fits"] == 3
    by_recipe = ["train", str(tmp_path / "run" / "recipe.yaml"), "--dry-run", "--json", "--quiet"]
    assert json.loads(CliRunner().invoke(app, by_recipe).stdout) == plan
    again = CliRunner().invoke(app, [*asked, "--resume", "--json", "--quiet"])
    assert json.loads(again.stdout)["cv"]["folds"] == 2


def test_nothing_is_left_of_what_was_refused(search_recipe: Recipe, tmp_path: Path) -> None:
    from holdfast.core.errors import InputError

    for changes in ({"path": "/no/such.csv"}, {"label": "no such column"}):
        recipe = search_recipe.with_changes(data=changes)
        with pytest.raises(InputError):
            train(recipe, tmp_path / "run", procedure=CrossValidation(2))
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": {"folds": 3}}, "--nested"),
        ({"data": {"valid": "x.csv"}}, "cannot|validation rows|no such|not"),
        ({"data": {"features": ["a"]}}, "data.features"),
        ({"train": {"max_minutes": 1}}, "max_minutes"),
    ],
)
def test_what_folds_do_not_go_together_with_is_refused(
    search_recipe: Recipe, changes: Any, says: str
) -> None:
    from holdfast.core.errors import HoldfastError

    with pytest.raises(HoldfastError, match=says):
        validated(search_recipe.with_changes(**changes), folds=2)


def test_too_few_rows_of_a_class_are_refused_with_the_remedy(
    search_recipe: Recipe, tmp_path: Path, marked_rows: Any, write_csv: Any
) -> None:
    rows = [(text, "no" if i < 57 else "yes") for i, (text, _) in enumerate(marked_rows(60))]
    path = csv_of(tmp_path, write_csv, rows, ("text", "label"))
    with pytest.raises(SplitError, match="fewer folds"):
        validated(search_recipe.with_changes(data={"path": str(path)}), folds=5)


def test_the_verdicts_are_one_sentence() -> None:
    found = [{"label": "overfit", "since_step": step} for step in (30, 40, 60, 40)]
    told = verdict_counts([*found, {"label": "healthy", "since_step": None}])
    assert told["sentence"] == "4 of 5 folds overfit since step 40 (the median), 1 healthy."
    assert told["labels"] == {"overfit": 4, "healthy": 1}


def test_the_audit_goes_by_what_the_folds_said_of_each_row(
    crossed: Path, search_recipe: Recipe, tmp_path: Path, marked_rows: Any, write_csv: Any
) -> None:
    from holdfast.analyses.audit.fold_predictions import fold_log_probabilities
    from holdfast.core.decisions import record_decisions
    from holdfast.core.records import to_json
    from holdfast.quality.views import TableRows
    from holdfast.tasks import task_definition

    def rows_of(path: Any) -> TableRows:
        data = search_recipe.data.model_copy(update={"path": str(path)})
        return TableRows(task_definition("text-classification").read(str(path), data, None))

    rows = rows_of(search_recipe.data.path)
    with record_decisions() as told:
        made = fold_log_probabilities(rows, crossed)
    table = parquet.read_table(crossed / "folds.parquet")
    for row, chances in zip(*(table[n].to_pylist() for n in ("row", "probabilities")), strict=True):
        assert np.exp(made[row]) == pytest.approx(chances)
    assert "60 of 60" in to_json(told[0])["because"]
    path = csv_of(tmp_path, write_csv, marked_rows(60, seed=5), ("text", "label"))
    with pytest.raises(RecipeError, match="has other rows"):
        fold_log_probabilities(rows_of(path), crossed)


@pytest.mark.parametrize("method", ["ema", "refit_head"])
def test_averages_are_refused_before_a_fold_is_trained(search_recipe: Recipe, method: str) -> None:
    """The model trained on all rows has no validation rows to test them on."""
    with pytest.raises(RecipeError, match=f"weight averages or head refitting.*{method}"):
        CrossValidation(3).checked_recipe(search_recipe.with_changes(methods={method: True}))
