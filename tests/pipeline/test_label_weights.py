"""Training labels that the other rows contradict: what their rows weigh, and what is said."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import holdfast
from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.core.updates import RowPool
from holdfast.data.memory.texts import table_from_texts
from holdfast.data.mix import SOURCE
from holdfast.fits import cross_fitting
from holdfast.fits import label_weights as module
from holdfast.fits.compose import make_training_plan
from holdfast.fits.cross_fitting import cross_fit
from holdfast.fits.label_weights import CHECK, KEY, NAME, row_weights
from holdfast.pipeline.main import train
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override, read_recipe
from holdfast.stats.label_errors import WrongLabels

WORDS = {
    "cooking": "oven flour butter onion sauce recipe garlic bake dish pepper soup cheese",
    "football": "goal striker referee match league penalty coach keeper stadium team",
    "banking": "loan interest account mortgage credit deposit rate branch transfer cash",
}
NAMES = sorted(WORDS)
COUNT = 300


def texts_and_classes() -> tuple[list[str], np.ndarray]:
    """Texts of which some use words of other classes: where every text were as certain as the
    others, wrong labels would look like doubt."""
    draw = random.Random(0)
    texts, classes = [], [place % 3 for place in range(COUNT)]
    for k in classes:
        share = draw.choice([0.5, 0.7, 1.0])
        own, others = WORDS[NAMES[k]].split(), " ".join(WORDS.values()).split()
        texts.append(
            " ".join(draw.choice(own if draw.random() < share else others) for _ in "12345")
        )
    return texts, np.array(classes)


def prepared_with(labels: np.ndarray, *settings: str) -> Any:
    texts, _ = texts_and_classes()
    recipe = override(
        Recipe(task="text-classification"),
        ["model.name=embedded", "train.threads=1", "train.matmul=default", *settings],
    )
    return prepare(recipe, table_from_texts(texts, [NAMES[k] for k in labels]))


def wrong_labels() -> tuple[np.ndarray, np.ndarray]:
    """The classes, and labels of which a quarter of one class is wrong."""
    _, classes = texts_and_classes()
    labels = classes.copy()
    of_one = np.flatnonzero(classes == 1)
    labels[of_one[::4]] = 2
    return classes, labels


EVERYTHING = np.arange(COUNT)
VALID = EVERYTHING[::7]
TRAIN = np.setdiff1d(EVERYTHING, VALID)


def plan_of(labels: np.ndarray, *settings: str) -> Any:
    return make_training_plan(prepared_with(labels, *settings), TRAIN, VALID)


def decision_of(plan: Any) -> Decision:
    (decision,) = (one for one in plan.decisions if one.what == KEY)
    return decision


def test_rows_with_wrong_labels_weigh_little_and_are_listed() -> None:
    classes, labels = wrong_labels()
    plan = plan_of(labels, f"{KEY}=true")
    wrong = (labels != classes)[TRAIN]
    weights = plan.train.weights
    assert weights[wrong].mean() < 0.5 < 0.8 < weights[~wrong].mean()
    assert (weights > 0).all()
    assert (weights <= 1).all()
    # Nothing else differs: the rows, their labels, the plan.
    whole = plan_of(labels)
    assert (plan.train.labels == labels[TRAIN]).all()
    assert (plan.valid.labels == labels[VALID]).all()
    assert plan.plan.evaluate_at == whole.plan.evaluate_at
    assert plan.recipe.train == whole.recipe.train
    (finding,) = (one for one in plan.findings if one.check == CHECK)
    assert set(finding.rows) == set(TRAIN[weights < 0.5])
    assert (labels != classes)[list(finding.rows)].mean() > 0.6
    told = f"probably wrong labels: {len(finding.rows)} of {len(TRAIN)} "
    assert told in decision_of(plan).because
    assert decision_of(plan).chosen == f"mean weight {weights.mean():.2f}"


@pytest.mark.parametrize(
    ("settings", "acts"),
    [(("control.policy=adapt",), True), (("control.policy=adapt", f"{KEY}=false"), False)],
)
def test_the_policy_that_acts_weights_rows(settings: tuple[str, ...], acts: bool) -> None:
    _, labels = wrong_labels()
    plan = plan_of(labels, *settings)
    assert (plan.train.weights is not None) == acts
    # The stored recipe says so, and a fold of it, which has no policy, does the same.
    assert plan.recipe.methods[NAME] is acts
    assert cross_fitting.recipe_of_fold(plan).methods[NAME] is acts


def test_rows_that_are_contradicted_predict_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels = wrong_labels()
    fitted: list[np.ndarray] = []
    real = module.cross_fit

    def predict(vectors: Any, texts: Any, given: np.ndarray, **more: Any) -> Any:
        fitted.append(given.copy())
        return real(vectors, texts, given, **more)

    monkeypatch.setattr(module, "cross_fit", predict)
    plan = plan_of(labels, f"{KEY}=true")
    first, second = fitted
    assert (first == labels[TRAIN]).all()
    unlabelled = second == -1
    assert (second[~unlabelled] == labels[TRAIN][~unlabelled]).all()
    # About as many as are doubtful in the end, which the second round decides.
    assert 0 < unlabelled.sum() <= 2 * (plan.train.weights < 0.5).sum()


def test_a_class_keeps_half_of_its_weight() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    wrong = WrongLabels(np.array([0.9, 0.8, 1.0, 0.1, 0.5, 0.0]), labels > 0, 9.0)
    weights = row_weights(wrong, labels)
    assert weights[labels == 0].mean() == pytest.approx(0.5)
    assert np.argsort(weights[:4]).tolist() == [2, 0, 1, 3]
    # The mean of the other class is more than a half.
    assert weights[labels == 1].tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("settings", "weighted"),
    [((), True), (("control.policy=stop",), False), ((f"{KEY}=false",), False)],
)
def test_rows_have_weights_unless_the_policy_or_the_method_is_off(
    settings: tuple[str, ...], weighted: bool
) -> None:
    _, labels = wrong_labels()
    assert (plan_of(labels, *settings).train.weights is not None) == weighted


def test_with_right_labels_rows_have_no_weights() -> None:
    classes, _ = wrong_labels()
    plan = plan_of(classes, f"{KEY}=true")
    assert plan.train.weights is None
    assert decision_of(plan).chosen == "all rows have the same weight"


def test_many_rows_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels = wrong_labels()
    monkeypatch.setattr(module, "MOST_ROWS", COUNT - 1)
    plan = plan_of(labels, f"{KEY}=true")
    assert plan.train.weights is None
    assert "300 training and validation rows exceed 299" in decision_of(plan).because


def test_folds_weight_their_own_rows_and_all_rows_are_evaluated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The vectors are computed once for all folds."""
    real, passes = module.last_layer_vectors, []
    monkeypatch.setattr(
        module, "last_layer_vectors", lambda *given: passes.append(1) or real(*given)
    )
    asked: list[tuple[np.ndarray, np.ndarray | None]] = []
    find = module.find_wrong_labels

    def found(vectors: Any, rows: Any, seed: int, predicted: np.ndarray | None = None) -> Any:
        asked.append((np.asarray(rows.column("row")), predicted))
        return find(vectors, rows, seed, predicted)

    monkeypatch.setattr(module, "find_wrong_labels", found)
    classes, labels = wrong_labels()
    fitted = cross_fit(prepared_with(labels, f"{KEY}=true", "train.max_steps=4"), EVERYTHING, 2)
    assert passes == [1]
    *of_folds, (everything, predicted) = asked
    assert (everything == EVERYTHING).all()
    assert len(of_folds) == 2
    assert (np.sort(np.concatenate([rows for rows, _ in of_folds])) == EVERYTHING).all()
    # The networks of the folds judge the labels, too.
    assert [one for _, one in of_folds] == [None, None]
    assert any(predicted is one for one in fitted.job.out_of_fold.outputs)
    weights = fitted.training_plan.train.weights
    assert weights[labels != classes].mean() < 0.5 < 0.8 < weights[labels == classes].mean()
    assert fitted.job.train is fitted.training_plan.train
    last = fitted.trained.history[-1]
    assert last.valid_losses.shape == (COUNT,)
    assert np.isfinite(last.valid_losses).all()


@pytest.mark.slow
def test_a_whole_run_says_what_it_weighed(tmp_path: Path, write_csv: Any) -> None:
    texts, classes = texts_and_classes()
    labels = np.where(EVERYTHING % 5 == 0, (classes + 1) % 3, classes)
    rows = [(text, NAMES[label]) for text, label in zip(texts, labels, strict=True)]
    recipe = override(
        Recipe(task="text-classification"),
        [
            f"data.path={write_csv(tmp_path / 'rows.csv', rows)}",
            "model.name=embedded",
            "control.policy=adapt",
            "train.folds=2",
            "train.max_steps=4",
            "train.threads=1",
            "train.matmul=default",
        ],
    )
    result = train(recipe, tmp_path / "run")
    data = result["data"]
    (finding,) = (one for one in data["findings"] if one["check"] == CHECK)
    assert finding["count"] > 0
    assert result["valid"]["n"] == data["train"]
    assert result["test"]["n"] == data["test"]
    assert "probably wrong" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert read_recipe(tmp_path / "run" / "recipe.yaml").methods[NAME] is True


@pytest.mark.parametrize("added", [(), ("augment.aeda.share=1",)])
def test_an_augmented_row_weighs_as_much_as_its_row(added: tuple[str, ...]) -> None:
    _, labels = wrong_labels()
    plan = plan_of(labels, f"{KEY}=true", *added)
    (phase,) = plan.plan.phases
    pool = RowPool(plan.train, 8, 0, phase.name)
    draws = [phase.source.draw(pool, step) for step in range(20)]
    assert all((draw.examples is not None) == bool(added) for draw in draws)
    weights = np.concatenate(
        [plan.task.weights(draw.examples or plan.train, draw.positions) for draw in draws]
    )
    assert (weights == plan.train.weights[np.concatenate([draw.rows for draw in draws])]).all()
    assert np.ptp(weights) > 0.5


def test_weights_of_sources_and_of_labels_are_multiplied() -> None:
    _, labels = wrong_labels()
    prepared = prepared_with(labels, f"{KEY}=true")
    sources = ["first" if at % 2 else "second" for at in EVERYTHING]
    rows = replace(prepared.rows, rows=prepared.rows.rows.add_column(SOURCE, sources))
    prepared = replace(prepared, rows=rows)
    changed = prepared.recipe.with_changes(data={"weights": {"first": 3.0}})
    both, alone = (
        make_training_plan(replace(prepared, recipe=recipe), TRAIN, VALID).train.weights
        for recipe in (changed, prepared.recipe)
    )
    ratio = both / alone
    first = TRAIN % 2 == 1
    assert ratio[first] == pytest.approx(3 * ratio[~first].mean())
    assert ratio.mean() == pytest.approx(1)


def test_rows_without_one_class_are_refused() -> None:
    texts, classes = texts_and_classes()
    recipe = override(Recipe(task="text-classification"), ["model.name=embedded", f"{KEY}=true"])
    pairs = table_from_texts(
        list(zip(texts, texts[::-1], strict=True)), [NAMES[k] for k in classes]
    )
    with pytest.raises(RecipeError, match="needs single texts with one class each"):
        make_training_plan(prepare(recipe, pairs), TRAIN, VALID)


@pytest.mark.slow
def test_the_final_model_of_cross_validation_is_weighted(tmp_path: Path) -> None:
    texts, classes = texts_and_classes()
    labels = np.where(EVERYTHING % 5 == 0, (classes + 1) % 3, classes)
    settings = {KEY: True, "train.max_steps": 2, "train.threads": 1, "train.matmul": "default"}
    done = holdfast.cv(
        texts, [NAMES[k] for k in labels], folds=2, out=tmp_path / "run", settings=settings
    )
    (decision,) = (one for one in done.result["decisions"] if one["what"] == KEY)
    assert decision["chosen"].startswith("mean weight")
    assert CHECK in [one["check"] for one in done.result["data"]["findings"]]
