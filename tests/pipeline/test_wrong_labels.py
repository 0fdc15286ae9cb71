"""Training labels that the other rows contradict: which rows a fit learns from, what it says."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest

from holdfast.core.errors import RecipeError
from holdfast.core.records import Decision
from holdfast.data.memory.texts import table_from_texts
from holdfast.fits import cross_fitting
from holdfast.fits import wrong_labels as module
from holdfast.fits.compose import make_training_plan
from holdfast.fits.cross_fitting import cross_fit
from holdfast.fits.wrong_labels import CHECK, KEY, NAME, WrongLabels, without_wrong_labels
from holdfast.pipeline.main import train
from holdfast.prepare.model import prepare
from holdfast.recipe import Recipe, override

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
    return make_training_plan(*without_wrong_labels(prepared_with(labels, *settings), TRAIN, VALID))


def rows_of(examples: Any) -> np.ndarray:
    return np.asarray(examples.rows)


def decision_of(plan: Any) -> Decision:
    (decision,) = (one for one in plan.decisions if one.what == KEY)
    return decision


def test_wrong_labels_are_excluded_from_training_and_validation_and_listed() -> None:
    classes, labels = wrong_labels()
    plan = plan_of(labels, f"{KEY}=true")
    wrong = labels != classes
    kept = np.concatenate([rows_of(plan.train), rows_of(plan.valid)])
    dropped = np.setdiff1d(EVERYTHING, kept)
    assert wrong[kept].sum() <= 0.4 * wrong.sum()
    assert wrong[dropped].mean() > 0.6
    for examples, before in ((plan.train, TRAIN), (plan.valid, VALID)):
        rows = rows_of(examples)
        assert set(rows) < set(before)
        assert (examples.labels == labels[rows]).all()
    (finding,) = (one for one in plan.findings if one.check == CHECK)
    assert sorted(finding.rows) == dropped.tolist()
    told = f"{len(dropped)} of {COUNT} training and validation rows are excluded"
    assert told in decision_of(plan).because
    # The rows that are left are passed as often as all rows would be, with the same settings.
    whole = plan_of(labels)
    passes = [one.plan.rows_passed / len(one.train) for one in (plan, whole)]
    assert passes[0] == pytest.approx(passes[1], rel=0.05)
    assert plan.recipe.train == whole.recipe.train


@pytest.mark.parametrize(
    ("settings", "drops"),
    [(("control.policy=adapt",), True), (("control.policy=adapt", f"{KEY}=false"), False)],
)
def test_the_policy_that_acts_excludes_them(settings: tuple[str, ...], drops: bool) -> None:
    _, labels = wrong_labels()
    plan = plan_of(labels, *settings)
    assert (len(plan.train) < len(TRAIN)) == drops
    # The stored recipe says so.
    assert plan.recipe.methods[NAME] is drops


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
    assert (first == labels).all()
    unlabelled = second == -1
    assert (second[~unlabelled] == labels[~unlabelled]).all()
    # About as many as are excluded in the end, which the second round decides.
    assert 0 < unlabelled.sum() <= 2 * (COUNT - len(plan.train) - len(plan.valid))


def test_a_class_loses_at_most_half_of_its_rows() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    wrong = WrongLabels(np.array([0.9, 0.8, 0.95, 0.1, 0.7, 0.6, 0.2, 0.2]), np.arange(8) != 3, 9.0)
    # Two of five, two of three were more than half: the most probable ones.
    assert wrong.dropped(labels).tolist() == [0, 2, 5]


@pytest.mark.parametrize("settings", [(), (f"{KEY}=false",)])
def test_without_the_method_rows_stay(settings: tuple[str, ...]) -> None:
    _, labels = wrong_labels()
    plan = plan_of(labels, *settings)
    assert (rows_of(plan.train) == TRAIN).all()
    assert (rows_of(plan.valid) == VALID).all()


def test_right_labels_stay() -> None:
    classes, _ = wrong_labels()
    plan = plan_of(classes, f"{KEY}=true")
    assert (rows_of(plan.train) == TRAIN).all()
    assert (rows_of(plan.valid) == VALID).all()
    assert decision_of(plan).chosen == "no rows excluded"


def test_many_rows_are_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    _, labels = wrong_labels()
    monkeypatch.setattr(module, "MOST_ROWS", COUNT - 1)
    plan = plan_of(labels, f"{KEY}=true")
    assert (rows_of(plan.train) == TRAIN).all()
    assert "300 training and validation rows exceed 299" in decision_of(plan).because


@pytest.fixture
def csv(tmp_path: Path, write_csv: Any) -> Path:
    """The texts, a fifth with a wrong label."""
    texts, classes = texts_and_classes()
    labels = np.where(EVERYTHING % 5 == 0, (classes + 1) % 3, classes)
    rows = [(text, NAMES[label]) for text, label in zip(texts, labels, strict=True)]
    path: Path = write_csv(tmp_path / "rows.csv", rows)
    return path


@pytest.mark.slow
def test_a_whole_run_excludes_rows_from_all_but_the_test_rows(csv: Path, tmp_path: Path) -> None:
    """Folds, verdict and scores have the rows that are left; every test row is scored."""
    recipe = override(
        Recipe(task="text-classification"),
        [
            f"data.path={csv}",
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
    assert result["valid"]["out_of_fold"] is True
    assert result["valid"]["n"] == data["train"] - finding["count"]
    assert result["test"]["n"] == data["test"]
    predicted = parquet.read_table(tmp_path / "run" / "answers.parquet")["row"].to_pylist()
    assert not set(predicted) & set(finding["rows"])


def test_a_finished_fold_of_other_rows_is_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resumed run on another machine may exclude other rows."""
    _, labels = wrong_labels()
    prepared = prepared_with(labels, "train.max_steps=2")
    finished = cross_fitting.run_folds(prepared, EVERYTHING, 2, lambda train, valid: prepared)
    numbers, real = [], cross_fitting._run_fold

    def run(prepared: Any, fold: Any, *given: Any) -> Any:
        numbers.append(fold.number)
        return real(prepared, fold, *given)

    monkeypatch.setattr(cross_fitting, "_run_fold", run)
    cross_fit(prepared, EVERYTHING, 2, finished=finished)
    assert numbers == []
    cross_fit(prepared, EVERYTHING[:-30], 2, finished=finished)
    assert numbers == [0, 1]


def test_rows_without_one_class_are_refused() -> None:
    texts, classes = texts_and_classes()
    recipe = override(Recipe(task="text-classification"), ["model.name=embedded", f"{KEY}=true"])
    pairs = table_from_texts(
        list(zip(texts, texts[::-1], strict=True)), [NAMES[k] for k in classes]
    )
    with pytest.raises(RecipeError, match="needs single texts with one class each"):
        without_wrong_labels(prepare(recipe, pairs), TRAIN, VALID)
