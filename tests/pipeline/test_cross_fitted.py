"""Cross-fitted runs: all rows are learned from, and each is judged by networks that had not seen
it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from scipy.stats import binomtest
from tests.kills import KillAt

from holdfast.contract.fit import FittedModel, PreparedData, RunStart
from holdfast.core.decisions import decisions_to, report_progress_to
from holdfast.core.errors import RecipeError
from holdfast.fits import cross_fitting, label_weights
from holdfast.fits import fit as fit_module
from holdfast.fits.cross_fitting import (
    UNUSED,
    FoldRun,
    cross_fit,
    fold_file,
    fold_seed,
    step_of_fold,
    steps_of_fold,
)
from holdfast.fits.fit import FitPlace, late_decisions
from holdfast.fits.row_use import learning_rows
from holdfast.fits.run_facts import make_run_facts
from holdfast.monitor.remedies import MOST_VALID
from holdfast.pipeline.main import train
from holdfast.prepare.model import prepare
from holdfast.prepare.rows import load_and_divide
from holdfast.recipe import Recipe, override
from holdfast.split.folds import make_folds
from holdfast.tasks import task_definition
from holdfast.tasks.classes.classifier import kept_temperature
from holdfast.training.checkpoint import SealedFile
from holdfast.training.observe import FoldEvaluation
from holdfast.training.task import labels_of

ROWS = 48
PLANS = {
    "contrast": {"methods.contrast.steps": 6, "train.epochs": 4},
    "both": {"methods.contrast.steps": 3, "train.epochs": 3},
    "finetune": {"methods.contrast": False, "train.epochs": 2},
}
USUAL = {"train.evaluations": 3, "train.learning_rate": 1e-3}


@pytest.fixture(scope="module")
def prepared(
    tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any, quick: list[str]
) -> PreparedData:
    path = write_csv(tmp_path_factory.mktemp("few") / "rows.csv", marked_rows(ROWS))
    recipe = override(Recipe(), [f"data.path={path}", *quick])
    recipe = recipe.model_copy(update={"task": "text-classification"})
    table = task_definition("text-classification").read(str(path), recipe.data, None)
    # Two rows that may not be parted.
    units = np.arange(ROWS)
    units[2] = units[0]
    return prepare(recipe, table, units=units)


def losses_of(logits: Any, labels: Any) -> Any:
    target = torch.as_tensor(np.asarray(labels, dtype=np.int64))
    return torch.nn.functional.cross_entropy(
        torch.as_tensor(np.asarray(logits, dtype=np.float64)), target, reduction="none"
    ).numpy()


@pytest.fixture(scope="module", params=sorted(PLANS))
def fitted(request: pytest.FixtureRequest, prepared: PreparedData) -> FittedModel:
    return cross_fit(prepared, np.arange(ROWS), 3, {**USUAL, **PLANS[request.param]})


def test_it_learns_from_all_rows_and_is_judged_by_all(fitted: FittedModel) -> None:
    assert len(fitted.training_plan.train) == ROWS
    history = fitted.trained.history
    assert all(look.valid_losses.shape == (ROWS,) for look in history)
    assert fitted.job.out_of_fold is not None
    assert fitted.job.out_of_fold.folds == 3
    passed = sum(phase.rows_passed for phase in fitted.training_plan.plan.phases)
    # Three folds on two thirds of the rows each, and the whole.
    assert fitted.trained.examples_seen == pytest.approx(3 * passed, rel=0.15)


@pytest.mark.slow
def test_every_row_is_answered_by_a_fit_that_never_saw_it(
    prepared: PreparedData, fitted: FittedModel
) -> None:
    """The same losses from separate fits on the other folds, by the ordinary way."""
    everything = np.arange(ROWS)
    labels = labels_of(fitted.training_plan.train)
    folds = make_folds(prepared.units, labels, 3, cross_fitting.fold_seed(prepared))
    look, whole = fitted.trained.history[-1], fitted.training_plan
    for fold in folds:
        assert not np.isin(prepared.units[fold.held_out], prepared.units[fold.train]).any()
        own = replace(prepared, recipe=cross_fitting.recipe_of_fold(whole))
        share = len(fold.train) / ROWS
        steps = steps_of_fold(whole.plan, share)
        alone = fit_with_steps(own, fold, steps)
        logits = alone.measure(prepared.examples, fold.held_out)[1]
        wanted = losses_of(logits, labels[fold.held_out])
        np.testing.assert_allclose(look.valid_losses[fold.held_out], wanted, rtol=1e-4, atol=1e-5)
    # And not by the network that learned from all.
    own_losses, _ = fitted.measure(fitted.training_plan.train, everything)
    assert not np.allclose(look.valid_losses, own_losses, rtol=1e-2)


def spread(logits: Any) -> float:
    """Torch's deviation of each row's logits, root mean square over the rows."""
    of_rows = torch.as_tensor(np.asarray(logits, dtype=np.float64)).var(dim=1, unbiased=False)
    return math.sqrt(float(of_rows.mean()))


def test_the_logits_of_the_folds_are_brought_to_the_scale_of_the_network(
    prepared: PreparedData,
) -> None:
    """Ordinary fits on the other folds give the spread on the sample's rows that they learned and
    on held-out rows; the temperature is the one fitted to the folds' logits, times the scale."""
    settings = {**USUAL, **PLANS["finetune"], "train.epochs": 12}
    fitted = cross_fit(prepared, np.arange(ROWS), 3, settings)
    whole, labels = fitted.training_plan, labels_of(fitted.training_plan.train)
    ratios = []
    for fold in make_folds(prepared.units, labels, 3, cross_fitting.fold_seed(prepared)):
        own = replace(prepared, recipe=cross_fitting.recipe_of_fold(whole))
        alone = fit_with_steps(own, fold, steps_of_fold(whole.plan, len(fold.train) / ROWS))
        learned = np.intersect1d(fold.train, whole.probe)
        seen, held_out = (
            alone.measure(prepared.examples, rows)[1] for rows in (learned, fold.held_out)
        )
        ratios.append(spread(seen) / spread(held_out))
    folds = fitted.job.out_of_fold
    assert isinstance(folds, FoldEvaluation)
    assert folds.inflation == pytest.approx(np.mean(ratios), rel=1e-3)
    own_logits = fitted.measure(prepared.examples, whole.probe)[1]
    of_folds = fitted.best_evaluation.valid_logits
    scale = (spread(own_logits) / np.mean(ratios) / spread(of_folds)) ** 0.75
    assert fitted.fold_scale == pytest.approx(scale, rel=1e-3)
    assert fitted.fold_scale != pytest.approx(1, abs=0.02)
    unscaled = kept_temperature(replace(fitted, fold_scale=1.0))
    assert kept_temperature(fitted) == pytest.approx(scale * unscaled, rel=0.02)
    (note,) = (one for one in late_decisions(fitted) if one.what == "scale of the folds' logits")
    assert note.chosen == f"{scale:.2f}"
    # The folds were measured at their end, which says little of a checkpoint near the start.
    early = replace(fitted, fold_scale=1.0, trained=replace(fitted.trained, best_step=0))
    assert fit_module._with_fold_scale(early).fold_scale == 1
    late = replace(fitted, fold_scale=1.0)
    assert fit_module._with_fold_scale(late).fold_scale == fitted.fold_scale


def fit_with_steps(prepared: PreparedData, fold: Any, steps: Any) -> FittedModel:
    """An ordinary fit whose phases take so many steps."""
    from holdfast.fits.compose import make_training_plan
    from holdfast.fits.fit import run_fit

    ready = make_training_plan(prepared, fold.train, fold.held_out, planned_for=ROWS)
    phases = [replace(p, steps=n) for p, n in zip(ready.plan.phases, steps, strict=True)]
    looks = tuple(sorted({0, *np.cumsum(steps).tolist()}))
    plan = replace(ready.plan, phases=tuple(phases), evaluate_at=looks)
    return run_fit(replace(ready, plan=plan), 0.0)


def exchanged(prepared: PreparedData, one: int, other: int) -> PreparedData:
    """The same rows with the labels of two of them exchanged."""
    examples: Any = prepared.examples
    marks = np.array(examples.labels)
    marks[[one, other]] = marks[[other, one]]
    table = prepared.rows
    rows = table.rows.remove_columns("label").add_column("label", marks.tolist())
    return replace(
        prepared, rows=replace(table, rows=rows), examples=replace(examples, labels=marks)
    )


@pytest.mark.slow
def test_the_labels_of_a_fold_change_no_answer_to_it(prepared: PreparedData) -> None:
    """Two rows of one fold with each other's label are answered as before, to the bit, at every
    look; rows of the other folds are not."""
    settings = {**USUAL, **PLANS["contrast"]}
    first = cross_fit(prepared, np.arange(ROWS), 3, settings)
    labels = labels_of(first.training_plan.train)

    def folds(marks: Any) -> list[list[int]]:
        dealt = make_folds(prepared.units, marks, 3, cross_fitting.fold_seed(prepared))
        return [fold.held_out.tolist() for fold in dealt]

    held = folds(labels)
    # Folds are dealt by class: a pair is needed whose exchange deals none anew.
    pairs = (
        (one, other)
        for one in held[0]
        for other in held[0]
        if labels[one] == 0 and labels[other] == 1
    )
    changed = None
    for one, other in pairs:
        changed = exchanged(prepared, one, other)
        if folds(changed.examples.labels) == held:
            break
    assert changed is not None
    assert folds(changed.examples.labels) == held
    second = cross_fit(changed, np.arange(ROWS), 3, settings)
    elsewhere = np.setdiff1d(np.arange(ROWS), held[0])
    for before, after in zip(first.trained.history, second.trained.history, strict=True):
        np.testing.assert_array_equal(before.valid_logits[held[0]], after.valid_logits[held[0]])
        assert not np.array_equal(before.valid_logits[elsewhere], after.valid_logits[elsewhere])


@pytest.mark.slow
def test_what_is_added_in_a_fold_is_worked_out_from_its_own_rows(prepared: PreparedData) -> None:
    asked: list[tuple[Any, Any]] = []

    def extend(train: Any, held: Any) -> PreparedData:
        asked.append((train, held))
        return prepared

    cross_fit(prepared, np.arange(ROWS), 3, {**USUAL, **PLANS["contrast"]}, extend=extend)
    assert len(asked) == 3
    for learned, held in asked:
        assert sorted([*learned, *held]) == list(range(ROWS))
        assert len(held) < len(learned)
        assert not np.isin(prepared.units[held], prepared.units[learned]).any()


def test_a_larger_validation_split_is_no_remedy_where_all_rows_validate(
    fitted: FittedModel,
) -> None:
    assert set(MOST_VALID) <= set(make_run_facts(fitted.training_plan).refused)


def test_the_probe_is_judged_out_of_fold(fitted: FittedModel) -> None:
    """Not on the rows that it was fitted to."""
    (refit,) = fitted.listeners
    folds = fitted.job.out_of_fold
    assert folds is not None
    assert folds.curve is not None
    assert refit.curve is folds.curve


def test_a_fold_of_another_run_is_not_used(tmp_path: Path) -> None:
    def store(rows: str, number: int) -> SealedFile:
        return fold_file(
            tmp_path, FitPlace(run_start=RunStart(rows, "settings", "weights", (), ())), number
        )

    one = FoldRun(0, np.arange(2), (), np.zeros((2, 2)), None, 1.0, 1, 1.0, 0.0, 0.0)
    store("rows", 0).save(one.to_state())
    told: list[Any] = []
    with decisions_to(told.append):
        kept = store("rows", 0).load(*UNUSED)
    assert kept is not None
    assert FoldRun.from_state(kept).examples_seen == 1
    assert not told
    with decisions_to(told.append):
        assert store("other rows", 0).load(*UNUSED) is None
    assert told[0].chosen == "not used"


def test_a_fold_has_its_looks_at_the_same_share_of_the_way(fitted: FittedModel) -> None:
    plan = fitted.training_plan.plan
    steps = steps_of_fold(plan, 2 / 3)
    assert step_of_fold(0, plan, steps) == 0
    assert step_of_fold(plan.steps, plan, steps) == sum(steps)
    at = [step_of_fold(step, plan, steps) for step in plan.evaluate_at]
    assert at == sorted(at)
    first = plan.phases[0].steps
    assert step_of_fold(first, plan, steps) == steps[0]


@pytest.mark.slow
def test_it_is_a_value(prepared: PreparedData) -> None:
    settings = {**USUAL, **PLANS["both"]}
    one, two = (cross_fit(prepared, np.arange(ROWS), 2, settings) for _ in range(2))
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, two.network.state_dict()[name])
    assert one.trained.verdict == two.trained.verdict


def test_every_update_of_the_folds_is_reported(prepared: PreparedData) -> None:
    reports: list[tuple[Any, ...]] = []
    with report_progress_to(lambda *report: reports.append(report)):
        fitted = cross_fit(prepared, np.arange(ROWS), 2, {**USUAL, **PLANS["both"]})
    assert {what for what, _, _ in reports} == {"updates in 2 folds, then on all rows"}
    (total,) = {total for _, _, total in reports}
    assert [done for _, done, _ in reports] == list(
        range(1, total - fitted.training_plan.plan.steps + 1)
    )


def go(csv: Path, quick: list[str], run: Path, *settings: str, **more: Any) -> dict[str, Any]:
    asked = [f"data.path={csv}", *quick, "train.evaluations=3", *settings]
    return train(override(Recipe(), asked), run, **more)


@pytest.fixture(scope="module")
def csv(tmp_path_factory: pytest.TempPathFactory, marked_rows: Any, write_csv: Any) -> Path:
    path: Path = write_csv(tmp_path_factory.mktemp("few") / "rows.csv", marked_rows(80))
    return path


@pytest.mark.parametrize(
    ("settings", "folds"),
    [
        ([], 2),
        (["train.learning_rate=1e-4", "train.batch_size=8"], 2),
        (["train.folds=0"], 0),
        (["train.epochs=2"], 2),
        (["train.epochs=2", "control.policy=stop"], 0),
        (["train.max_steps=2"], 0),
        (["train.max_minutes=5"], 0),
        (["model.freeze=0.5"], 0),
        (["model.adapter.kind=lora"], 0),
        (["methods.rdrop=true"], 0),
        (["control.policy=adapt"], 2),
        (["control.policy=own.py:Own"], 0),
        (["data.split.test=0"], 0),
    ],
    ids=str,
)
def test_few_rows_are_cross_fitted_unless_the_recipe_is_not_the_usual_one(
    csv: Path, tiny_model: Path, settings: list[str], folds: int
) -> None:
    recipe = override(Recipe(), [f"data.path={csv}", f"model.name={tiny_model}", *settings])
    assert learning_rows(recipe, load_and_divide(recipe)).folds == folds


@pytest.mark.parametrize(("rare", "folds"), [(4, 2), (3, 0)])
def test_outside_each_fold_there_are_two_rows_of_each_class(
    rare: int, folds: int, tmp_path: Path, tiny_model: Path, marked_rows: Any, write_csv: Any
) -> None:
    """``rare`` rows of a third class are training or validation rows, and one is a test row."""
    rows = [*marked_rows(60), *((f"rare words number {i}", "rare") for i in range(rare + 1))]
    path = write_csv(tmp_path / "rows.csv", rows)
    recipe = override(Recipe(), [f"data.path={path}", f"model.name={tiny_model}"])
    divided = load_and_divide(recipe)
    assert divided.splits.records.column("split").to_pylist()[60:].count("test") == 1
    assert learning_rows(recipe, divided).folds == folds


@pytest.mark.parametrize(("rows", "folds"), [(460, 2), (480, 0)])
def test_more_rows_and_rows_with_their_own_validation_rows_are_not(
    rows: int, folds: int, tmp_path: Path, tiny_model: Path, marked_rows: Any, write_csv: Any
) -> None:
    """15 % of the rows are test rows."""
    path = write_csv(tmp_path / "rows.csv", marked_rows(rows))
    own = write_csv(tmp_path / "valid.csv", [(f"{text} too", y) for text, y in marked_rows(30)])
    recipe = override(Recipe(), [f"data.path={path}", f"model.name={tiny_model}"])
    assert learning_rows(recipe, load_and_divide(recipe)).folds == folds
    recipe = override(recipe, [f"data.valid={own}"])
    assert learning_rows(recipe, load_and_divide(recipe)).folds == 0


def test_a_fold_predicts_no_row_by_the_row_of_its_pair(
    tmp_path: Path, quick: list[str], write_csv: Any
) -> None:
    """Pairs of one subject with different labels, in a whole run: a fold learns both or neither."""
    random = np.random.default_rng(0)
    subjects = [" ".join(f"word{k}" for k in random.integers(0, 900, 8)) for _ in range(36)]
    pairs = [
        row
        for subject in subjects
        for row in ((f"{subject} left", "human"), (f"{subject} right", "machine"))
    ]
    order = random.permutation(len(pairs))
    path = write_csv(tmp_path / "rows.csv", [pairs[at] for at in order])
    recipe = override(Recipe(), [f"data.path={path}", *quick, "train.folds=2", "train.max_steps=4"])
    train(recipe, tmp_path / "run")
    result = json.loads((tmp_path / "run/result.json").read_text("utf-8"))
    assert any(one["check"] == "opposite_labels" for one in result["data"]["findings"])
    splits = parquet.read_table(tmp_path / "run/splits.parquet").to_pylist()
    split = {pairs[at][0]: one["split"] for at, one in zip(order, splits, strict=True)}
    assert all(split[f"{one} left"] == split[f"{one} right"] for one in subjects)
    learning = learning_rows(recipe, load_and_divide(recipe))
    prepared, texts = learning.prepared, learning.prepared.rows.column("text")
    labels = prepared.rows.column("label")
    for fold in make_folds(prepared.units, labels, learning.folds, fold_seed(prepared)):
        held_out = {texts[at].rsplit(" ", 1)[0] for at in fold.held_out}
        assert len(fold.held_out) == 2 * len(held_out)


@pytest.mark.slow
def test_a_run_says_that_its_validation_is_out_of_fold(
    csv: Path, quick: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = go(csv, quick, run, "train.folds=3")
    data = result["data"]
    assert data["valid"] == 0
    assert result["valid"]["n"] == data["train"]
    assert result["valid"]["out_of_fold"] is True
    assert result["valid"]["folds"] == 3
    assert result["test"]["n"] == data["test"] > 0
    assert data["train"] + data["test"] == data["used"]
    splits = parquet.read_table(run / "splits.parquet").to_pylist()
    assert {row["split"] for row in splits} == {"train", "test"}
    noted = [row for row in splits if row["note"] and "out of fold" in row["note"]]
    assert 0 < len(noted) < data["train"]
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    looks = [line for line in lines if line.get("what") == "fold evaluation"]
    assert {line["fold"] for line in looks} == {0, 1, 2}
    assert sum(line["valid_rows"] for line in looks if line["fold_step"] == 0) == data["train"]
    snapshots = [line for line in lines if line["event"] == "snapshot"]
    assert all(line["valid_rows"] == data["train"] for line in snapshots)
    # The score is that of the looks: the network that learned from the rows is not asked of them.
    kept = next(line for line in snapshots if line["step"] == result["best_step"])
    told = result["valid"]["metrics"]["accuracy"]["value"]
    assert told == pytest.approx(kept["valid_metrics"]["accuracy"])
    assert not (run / "checkpoints").exists()


def test_its_own_score_is_for_the_model_trained_on_all_rows_and_compared_with_the_probe(
    csv: Path, quick: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    valid = go(csv, quick, run, "train.folds=2")["valid"]
    accuracy, n = valid["metrics"]["accuracy"], valid["n"]
    rows_only = binomtest(round(accuracy["value"] * n), n).proportion_ci(method="wilson")
    assert accuracy["low"] < rows_only.low
    assert accuracy["high"] > rows_only.high
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    # Step 0 is the linear probe.
    first = next(line for line in lines if line["event"] == "snapshot")
    probe = valid["baseline"]["test"]["metrics"]["accuracy"]["value"]
    assert probe == pytest.approx(first["valid_metrics"]["accuracy"])
    difference = valid["baseline"]["comparison"]["difference"]
    assert difference["value"] == pytest.approx(accuracy["value"] - probe)
    assert difference["low"] <= difference["value"] <= difference["high"]


@pytest.mark.slow
def test_its_validation_is_for_the_class_rates_that_its_answers_are_for(
    csv: Path, quick: list[str], tmp_path: Path
) -> None:
    """Where one class is next to everything, each row is answered with it, out of fold too."""
    target = "methods.balance={target: {no: 0.000001, yes: 1}}"
    result = go(csv, quick, tmp_path / "run", "train.folds=2", target)
    assert result["rates"]["classes"]["yes"]["target"] > 0.999
    for side in ("valid", "test", "train_probe"):
        recalls = {name: one["recall"]["value"] for name, one in result[side]["per_class"].items()}
        assert recalls == {"no": 0.0, "yes": 1.0}, side


@pytest.mark.slow
def test_its_recipe_repeats_it_to_the_byte(csv: Path, quick: list[str], tmp_path: Path) -> None:
    from holdfast.recipe import read_recipe

    first = go(csv, quick, tmp_path / "a", "train.folds=2")
    again = train(read_recipe(tmp_path / "a" / "recipe.yaml"), tmp_path / "b")
    weights = [(tmp_path / run / "model" / "model.safetensors").read_bytes() for run in "ab"]
    assert weights[0] == weights[1]
    assert first["valid"]["metrics"] == again["valid"]["metrics"]
    assert first["verdict"] == again["verdict"]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["second fold", "final run", "final run, weighted"])
def test_a_killed_run_goes_on_and_repeats_no_fold(
    moment: str,
    csv: Path,
    quick: list[str],
    killed: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ["train.folds=3"]
    if moment.endswith("weighted"):
        # The folds' predictions are part of the weights; here any evidence is enough.
        settings += ["methods.label_weights=true"]
        monkeypatch.setattr(label_weights, "EVIDENCE", -math.inf)
        monkeypatch.setattr(label_weights, "LEAST_SHARE", 0.0)
    whole = go(csv, quick, tmp_path / "whole", *settings)
    weighted = [one for one in whole["decisions"] if one["what"] == label_weights.KEY]
    assert bool(weighted) == moment.endswith("weighted")
    real, count = cross_fitting._run_fold, []

    def counted(*given: Any) -> Any:
        count.append(given[1].number)
        if moment == "second fold" and len(count) == 2:
            raise killed
        return real(*given)

    monkeypatch.setattr(cross_fitting, "_run_fold", counted)
    at_end = (KillAt("step_done", 3, killed),) if moment != "second fold" else ()
    with pytest.raises(killed):
        go(csv, quick, tmp_path / "cut", *settings, listeners=at_end, checkpoint_every_s=0.0)
    done = list(count) if moment != "second fold" else [0]
    count.clear()
    monkeypatch.setattr(
        cross_fitting, "_run_fold", lambda *given: (count.append(given[1].number), real(*given))[1]
    )
    result = train(Recipe(), tmp_path / "cut", resume=True)
    assert sorted(done + count) == [0, 1, 2]
    assert result["timing"]["total_s"] >= result["timing"]["train_s"]
    runs = [tmp_path / name for name in ("whole", "cut")]
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    for block in ("valid", "verdict", "best_step", "last_step"):
        assert result[block] == whole[block]
    assert events(runs[0]) == events(runs[1])


def events(run: Path) -> list[dict[str, Any]]:
    """Without clocks, and what the machine had free at the moment."""
    lines = [json.loads(line) for line in (run / "events.jsonl").read_text("utf-8").splitlines()]
    return [
        {k: v for k, v in line.items() if k not in ("seconds", "at")}
        for line in lines
        if line.get("what") != "memory"
    ]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("train.max_minutes=5", "train.max_minutes"),
        ("data.split.stable=true", "data.split.stable"),
        ("data.label_kind=number", "data.label_kind"),
        ("methods.ema=true", "combined with weight averages or head refitting"),
        ("methods.refit_head=true", "combined with weight averages or head refitting"),
        # What it changes would show in no fold.
        ("control.policy=own.py:Own", "control.policy=.*own.py:Own"),
        # Layers chosen by labels of the rows that a fold answers.
        ("model.freeze=auto", "model.freeze=auto"),
    ],
)
def test_what_cannot_be_cross_fitted_is_refused(
    settings: str, words: str, marked_rows: Any, write_csv: Any, quick: list[str], tmp_path: Path
) -> None:
    rows = [(text, i % 7) for i, (text, _) in enumerate(marked_rows(80))]
    number = "label_kind" in settings
    (tmp_path / "own.py").write_text("class Own:\n    decide = print\n", encoding="utf-8")
    settings = settings.replace("own.py", f"{tmp_path / 'own.py'}")
    path = write_csv(tmp_path / "rows.csv", rows if number else marked_rows(80))
    with pytest.raises(RecipeError, match=words):
        go(path, quick, tmp_path / "run", "train.folds=3", settings)
    assert not (tmp_path / "run").exists()


def test_one_fold_is_none() -> None:
    with pytest.raises(RecipeError, match="cannot be 1"):
        override(Recipe(), ["train.folds=1"])
